/* start.c - what a run starts from: the adapter with its A and first B, and
 * the mask. Owns the rule where A comes from (DESIGN "A, version 1"):
 *   adapter_name_or_path: that adapter's A, B, rank, alpha and modules;
 *   else A version 1 from lori_a_seed, or else the mask's own A (its seed, or
 *   the matrices it carries), or else the seed of output_dir's last name.
 * Includes train_i.h. */
#include <stdlib.h>

#include "train/train_i.h"

/* The folder's name as the adapter's name: "runs/math-s/" -> "math-s". */
static lori_status name_seed(const char *output_dir, uint64_t *seed,
                             lori_error *err)
{
    size_t n = strlen(output_dir);
    while (n > 1 && output_dir[n - 1] == '/')
        n--;
    char *path = base_strndup(output_dir, n);
    if (!path)
        return base_no_memory(err, n);
    *seed = adapter_seed_from_name(base_path_name(path));
    free(path);
    return LORI_OK;
}

static const adapter_keep_site *find_keep(const adapter_keep *keep,
                                          const char *path)
{
    for (int64_t i = 0; i < keep->n_sites; i++)
        if (!strcmp(keep->sites[i].path, path))
            return &keep->sites[i];
    return NULL;
}

/* The mask and the adapter must be about the same matrices, in one order. */
static lori_status match_keep(const train_recipe *r, const adapter *ad,
                              const adapter_keep *keep, lori_error *err)
{
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *site = &ad->sites[i];
        const adapter_keep_site *k = find_keep(keep, site->path);
        if (!k)
            return base_fail(err, LORI_MISMATCH,
                             "mask %s does not cover %s: lora_target_modules "
                             "must be those the mask was made with",
                             r->lori_mask_path, site->path);
        if (k->rank != site->rank)
            return base_fail(
                err, LORI_MISMATCH, "mask %s is of rank %lld, but %s is %lld",
                r->lori_mask_path, (long long)k->rank,
                r->adapter_name_or_path ? "the rank of adapter_name_or_path"
                                        : "lora_rank",
                (long long)site->rank);
        if (k->out != site->out || k->in != site->in)
            return base_fail(err, LORI_MISMATCH,
                             "mask %s: %s is [%lld, %lld], the model's is "
                             "[%lld, %lld]: it was made for another base",
                             r->lori_mask_path, site->path, (long long)k->out,
                             (long long)k->in, (long long)site->out,
                             (long long)site->in);
    }
    for (int64_t i = 0; i < keep->n_sites; i++)
        if (i >= ad->n_sites ||
            strcmp(keep->sites[i].path, ad->sites[i].path) != 0)
            return base_fail(err, LORI_MISMATCH,
                             "mask %s also covers %s: lora_target_modules "
                             "must be those the mask was made with",
                             r->lori_mask_path, keep->sites[i].path);
    return LORI_OK;
}

static lori_status copy_a(const train_recipe *r, const adapter *from,
                          adapter *ad, lori_error *err)
{
    for (int64_t i = 0; i < ad->n_sites; i++) {
        adapter_site *site = &ad->sites[i];
        const adapter_site *source = adapter_find(from, site->path);
        if (!source || source->in != site->in || source->rank != site->rank)
            return base_fail(err, LORI_MISMATCH, "mask %s carries no A for %s",
                             r->lori_mask_path, site->path);
        memcpy(site->A, source->A,
               (size_t)(site->rank * site->in) * sizeof *site->A);
    }
    return LORI_OK;
}

static lori_status choose_a(const train_recipe *r, const adapter_keep *keep,
                            const lori_ui *ui, adapter *ad, lori_error *err)
{
    uint64_t seed = r->lori_a_seed;
    if (!r->has_a_seed && keep && !keep->origin.has_seed && keep->a_source)
        return copy_a(r, keep->a_source, ad, err);
    if (!r->has_a_seed && keep && keep->origin.has_seed)
        seed = keep->origin.seed;
    else if (!r->has_a_seed)
        BASE_TRY(name_seed(r->output_dir, &seed, err));
    else if (keep && !(keep->origin.has_seed && keep->origin.seed == seed))
        base_log(ui, LORI_LOG_WARNING,
                 "lori_a_seed is not the seed of the mask's A: the mask's "
                 "columns belong to other directions");
    adapter_init_a(ad, seed);
    return LORI_OK;
}

static lori_status fresh_adapter(const train_recipe *r, const model *m,
                                 const adapter_keep *keep, const lori_ui *ui,
                                 adapter **out, lori_error *err)
{
    adapter_site_spec *specs = NULL;
    int64_t n = 0;
    lori_status st;
    if (keep && !r->lora_target_modules) { /* the mask's own modules */
        n = keep->n_sites;
        specs = base_alloc((size_t)n, sizeof *specs);
        if (!specs)
            return base_no_memory(err, (size_t)n * sizeof *specs);
        for (int64_t i = 0; i < n; i++)
            specs[i] = (adapter_site_spec){
                keep->sites[i].path, keep->sites[i].in, keep->sites[i].out,
                r->lora_rank, r->lora_alpha};
        st = adapter_new(specs, n, r->use_rslora, out, err);
        free(specs);
    } else {
        BASE_TRY(model_sites(
            model_get_config(m), (const char *const *)r->lora_target_modules,
            r->n_targets, r->lora_rank, r->lora_alpha, &specs, &n, err));
        st = adapter_new(specs, n, r->use_rslora, out, err);
        model_sites_free(specs, n);
    }
    if (!st && keep)
        st = match_keep(r, *out, keep, err);
    if (!st)
        st = choose_a(r, keep, ui, *out, err);
    return st;
}

/* Values a recipe also names, but the adapter decides. */
static lori_status given_adapter(const train_recipe *r,
                                 const adapter_keep *keep, const lori_ui *ui,
                                 adapter **out, lori_error *err)
{
    const char *folder =
        r->adapter_folder ? r->adapter_folder : r->adapter_name_or_path;
    lori_status st = adapter_read(folder, out, err);
    if (st)
        return base_prefix(err, st, "adapter_name_or_path");
    const adapter *ad = *out;
    base_log(ui, LORI_LOG_INFO,
             "starting from %s: its A, B, modules, rank %lld, alpha %g",
             r->adapter_name_or_path, (long long)ad->sites[0].rank,
             ad->sites[0].alpha);
    if (!keep)
        return LORI_OK;
    if (ad->origin.has_seed != keep->origin.has_seed ||
        ad->origin.seed != keep->origin.seed)
        base_log(ui, LORI_LOG_WARNING,
                 "the mask %s was made with another A than that of %s: its "
                 "columns belong to other directions",
                 r->lori_mask_path, r->adapter_name_or_path);
    return match_keep(r, ad, keep, err);
}

static uint64_t hash_start(const adapter *ad, const adapter_keep *keep)
{
    uint64_t h = BASE_FNV_START;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        h = base_fnv1a(h, s->path, strlen(s->path));
        h = base_fnv1a(h, &s->scale, sizeof s->scale);
        h = base_fnv1a(h, s->A, (size_t)(s->rank * s->in) * sizeof *s->A);
        h = base_fnv1a(h, s->B, (size_t)(s->out * s->rank) * sizeof *s->B);
        if (keep)
            h = base_fnv1a(h, keep->sites[i].bits,
                           (size_t)s->out * (size_t)((s->rank + 31) / 32) * 4);
    }
    return h;
}

/* What the saved adapter says about itself. */
static lori_status name_adapter(const train_recipe *r, bool sparse, adapter *ad,
                                lori_error *err)
{
    const char *method = r->method == TRAIN_LORA ? "lora"
                         : sparse                ? "lori-s"
                                                 : "lori-d";
    free(ad->method);
    free(ad->base_model);
    ad->method = base_strdup(method);
    ad->base_model = base_strdup(r->model_name_or_path);
    if (!ad->method || !ad->base_model)
        return base_no_memory(err, strlen(r->model_name_or_path));
    if (r->method == TRAIN_LORA) /* A will not stay what the seed made */
        ad->origin = (adapter_origin){0};
    return LORI_OK;
}

lori_status train_start_make(const train_recipe *r, const model *m,
                             const lori_ui *ui, train_start *out,
                             lori_error *err)
{
    *out = (train_start){0};
    lori_status st = LORI_OK;
    if (r->lori_mask_path)
        st = adapter_keep_read(r->lori_mask_path, &out->keep, err);
    if (st)
        return base_prefix(err, st, "lori_mask_path");
    if (r->adapter_name_or_path)
        st = given_adapter(r, out->keep, ui, &out->ad, err);
    else
        st = fresh_adapter(r, m, out->keep, ui, &out->ad, err);
    if (!st)
        st = name_adapter(r, out->keep != NULL, out->ad, err);
    if (st) {
        train_start_free(out);
        return st;
    }
    out->hash = hash_start(out->ad, out->keep);
    return LORI_OK;
}

void train_start_free(train_start *start)
{
    adapter_free(start->ad);
    adapter_keep_free(start->keep);
    *start = (train_start){0};
}
