/* adapter_read.c - a PEFT adapter folder to an adapter. Driven by the tensors:
 * the adapted layers are those that have lora_A and lora_B; the config says
 * what the numbers mean and must agree. Refuses, by name, every tensor that it
 * would otherwise ignore.
 *
 * Names taken: PREFIX path .lora_A [.adapter] .weight, where PREFIX is
 * "base_model.model." as PEFT writes it or nothing (a model with injected
 * layers); "_orig_mod." (torch.compile) anywhere; a path that begins at
 * "layers." (the model without its head) stands for "model.layers.".
 * Source: spec/peft.md 1.4, 2; spec/hf.md 5.3, 5.4. */
#include "adapter/adapter_i.h"

#include <stdlib.h>

typedef enum name_kind {
    NAME_A,
    NAME_B,
    NAME_EXTRA,
    NAME_IGNORED,
    NAME_REFUSED
} name_kind;

/* A tensor of the file with its name understood. */
typedef struct entry {
    char *path;       /* module path; of an extra: the whole tensor's name */
    const char *slot; /* adapter name inside the key, or "" (part of `path`) */
    name_kind kind;
    const format_tensor *tensor;
} entry;

/* All that reading holds; fini releases it. */
typedef struct reader {
    const char *folder;
    char *weights;
    adapter_peft peft;
    format_store *store;
    entry *entries;
    int64_t n_entries;
    adapter *ad;
} reader;

/* ---- names ---------------------------------------------------------- */

static void remove_all(char *s, const char *word)
{
    size_t n = strlen(word);
    for (char *p = s; (p = strstr(p, word));) {
        if (p != s && p[-1] != '.')
            p++;
        else
            memmove(p, p + n, strlen(p + n) + 1);
    }
}

/* The name without wrappers, as the base names its modules; malloc'd. */
static char *plain_name(const char *name)
{
    static const char prefix[] = "base_model.model.";
    size_t n = strlen(name);
    char *s = base_alloc(n + sizeof "model.", 1);
    if (!s)
        return NULL;
    memcpy(s, name, n + 1);
    remove_all(s, "_orig_mod.");
    if (strncmp(s, prefix, sizeof prefix - 1) == 0)
        memmove(s, s + sizeof prefix - 1, strlen(s + sizeof prefix - 1) + 1);
    if (strncmp(s, "layers.", 7) == 0 || strncmp(s, "embed_tokens.", 13) == 0) {
        memmove(s + 6, s, strlen(s) + 1);
        memcpy(s, "model.", 6);
    }
    return s;
}

/* Cuts "path.lora_A.slot.weight" behind path; false when it is not that. */
static bool cut_lora(entry *e, const char *mark, const char *end)
{
    char *at = strstr(e->path, mark);
    if (!at || at == e->path)
        return false;
    char *rest = at + strlen(mark); /* "weight" or "slot.weight" */
    size_t n = strlen(rest), k = strlen(end);
    if (n < k || strcmp(rest + n - k, end) != 0)
        return false;
    if (n == k) {
        e->slot = rest + n; /* "" */
    } else {
        char *dot = rest + n - k - 1;
        /* PEFT's module dictionary has no dots in adapter names. */
        if (*dot != '.' || dot == rest || memchr(rest, '.', n - k - 1))
            return false;
        *dot = '\0';
        e->slot = rest;
    }
    *at = '\0';
    return true;
}

static void understand(entry *e)
{
    const char *last = adapter_path_last(e->path);
    if (cut_lora(e, ".lora_A.", "weight")) {
        e->kind = NAME_A;
    } else if (cut_lora(e, ".lora_B.", "weight")) {
        e->kind = NAME_B;
    } else if (cut_lora(e, ".lora_B.", "mask")) {
        e->kind = NAME_IGNORED; /* LoRI's own training code leaves these */
    } else if (strcmp(e->path, "model.embed_tokens.weight") == 0 ||
               strcmp(e->path, "lm_head.weight") == 0) {
        e->kind = NAME_EXTRA;
    } else {
        e->kind = NAME_REFUSED;
        e->slot = last;
    }
}

/* Why a tensor that has no place here exists, for the message. */
static const char *why_refused(const char *name)
{
    static const struct {
        const char *part, *why;
    } reasons[] = {
        {"lora_embedding_", "adapters on embeddings are not supported"},
        {"lora_magnitude_vector", "DoRA is not supported"},
        {"lora_diag", "KaSA is not supported"},
        {"lora_B.bias", "a bias on B is not supported"},
        {"trainable_tokens_delta", "replaced token embeddings are not "
                                   "supported"},
        {".bias", "trained biases of the base are not supported"},
        {"lora_", "its name is not one that PEFT gives to LoRA weights"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (strstr(name, reasons[i].part))
            return reasons[i].why;
    return "only lora_A, lora_B, embed_tokens and lm_head have a meaning here";
}

static int order_entries(const void *x, const void *y)
{
    const entry *a = x, *b = y;
    int c = strcmp(a->path, b->path);
    return c ? c : (int)a->kind - (int)b->kind;
}

static lori_status list_entries(reader *r, lori_error *err)
{
    size_t n = format_store_count(r->store);
    if (n == 0)
        return base_fail(err, LORI_FORMAT, "%s: no tensors", r->weights);
    r->entries = base_alloc(n, sizeof *r->entries);
    if (!r->entries)
        return base_no_memory(err, n * sizeof *r->entries);
    const char *slot = NULL;
    for (size_t i = 0; i < n; i++) {
        entry *e = &r->entries[r->n_entries];
        e->tensor = format_store_at(r->store, i);
        e->path = plain_name(e->tensor->name);
        if (!e->path)
            return base_no_memory(err, strlen(e->tensor->name));
        r->n_entries++;
        understand(e);
        if (e->kind == NAME_REFUSED)
            return base_fail(err, LORI_UNSUPPORTED, "%s: tensor '%s': %s",
                             r->weights, e->tensor->name,
                             why_refused(e->tensor->name));
        if (e->kind != NAME_A && e->kind != NAME_B)
            continue;
        if (slot && strcmp(slot, e->slot) != 0)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: tensor '%s': the file holds more than one "
                             "adapter; save each to its own folder",
                             r->weights, e->tensor->name);
        slot = e->slot;
    }
    qsort(r->entries, (size_t)r->n_entries, sizeof *r->entries, order_entries);
    for (int64_t i = 1; i < r->n_entries; i++)
        if (r->entries[i].kind != NAME_IGNORED &&
            order_entries(&r->entries[i - 1], &r->entries[i]) == 0)
            return base_fail(err, LORI_FORMAT,
                             "%s: tensors '%s' and '%s' mean the same weight",
                             r->weights, r->entries[i - 1].tensor->name,
                             r->entries[i].tensor->name);
    return LORI_OK;
}

/* ---- sites ---------------------------------------------------------- */

static lori_status check_tensor(const reader *r, const format_tensor *t,
                                lori_error *err)
{
    if (t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1)
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' is not a matrix with elements",
                         r->weights, t->name);
    if (!base_dtype_is_float(t->dtype))
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: tensor '%s' holds %s; expected F32, F16 or BF16",
                         r->weights, t->name, base_dtype_name(t->dtype));
    return LORI_OK;
}

/* What config and tensors say of one site; both must agree. */
static lori_status describe_site(reader *r, const entry *a, const entry *b,
                                 adapter_site_spec *spec, lori_error *err)
{
    const format_tensor *ta = a->tensor, *tb = b->tensor;
    BASE_TRY(check_tensor(r, ta, err));
    BASE_TRY(check_tensor(r, tb, err));
    if (ta->shape[0] != tb->shape[1])
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' has %lld columns but '%s' has %lld "
                         "rows: both must be the rank",
                         r->weights, tb->name, (long long)tb->shape[1],
                         ta->name, (long long)ta->shape[0]);
    bool targeted = false;
    BASE_TRY(adapter_peft_targets(&r->peft, a->path, &targeted, err));
    if (!targeted)
        return base_fail(err, LORI_MISMATCH,
                         "%s: tensor '%s' adapts '%s', which target_modules in "
                         "%s leaves out",
                         r->weights, ta->name, a->path, r->peft.file);
    *spec = (adapter_site_spec){.path = a->path,
                                .in = ta->shape[1],
                                .out = tb->shape[0],
                                .rank = ta->shape[0]};
    int64_t rank = 0;
    BASE_TRY(adapter_peft_values(&r->peft, a->path, &rank, &spec->alpha, err));
    if (rank != spec->rank)
        return base_fail(err, LORI_MISMATCH,
                         "%s: tensor '%s' has rank %lld, but %s says %lld",
                         r->weights, ta->name, (long long)spec->rank,
                         r->peft.file, (long long)rank);
    return LORI_OK;
}

static lori_status missing_half(const reader *r, const entry *e,
                                lori_error *err)
{
    return base_fail(err, LORI_NOT_FOUND,
                     "%s: tensor '%s' has no %s beside it; the file is "
                     "incomplete",
                     r->weights, e->tensor->name,
                     e->kind == NAME_A ? "lora_B" : "lora_A");
}

static lori_status build_sites(reader *r, lori_error *err)
{
    adapter_site_spec *specs = base_alloc((size_t)r->n_entries, sizeof *specs);
    if (!specs)
        return base_no_memory(err, (size_t)r->n_entries * sizeof *specs);
    int64_t n = 0;
    lori_status st = LORI_OK;
    for (int64_t i = 0; st == LORI_OK && i < r->n_entries; i++) {
        const entry *e = &r->entries[i];
        if (e->kind != NAME_A && e->kind != NAME_B)
            continue;
        const entry *next = i + 1 < r->n_entries ? e + 1 : NULL;
        if (e->kind == NAME_A && next && next->kind == NAME_B &&
            strcmp(e->path, next->path) == 0) {
            st = describe_site(r, e, next, &specs[n++], err);
            i++;
        } else {
            st = missing_half(r, e, err);
        }
    }
    if (st == LORI_OK && n == 0)
        st = base_fail(err, LORI_FORMAT, "%s: no lora_A and lora_B tensors",
                       r->weights);
    if (st == LORI_OK)
        st = adapter_new(specs, n, r->peft.rslora, &r->ad, err);
    free(specs);
    return st;
}

static lori_status copy_values(reader *r, lori_error *err)
{
    for (int64_t i = 0; i < r->n_entries; i++) {
        const entry *e = &r->entries[i];
        if (e->kind != NAME_A && e->kind != NAME_B)
            continue;
        adapter_site *site = adapter_find(r->ad, e->path);
        float *dst = e->kind == NAME_A ? site->A : site->B;
        int64_t n = e->tensor->shape[0] * e->tensor->shape[1];
        base_to_f32(e->tensor->data, e->tensor->dtype, dst, (size_t)n);
        BASE_TRY(
            adapter_check_finite(dst, n, r->weights, e->tensor->name, err));
    }
    return LORI_OK;
}

/* ---- where A comes from --------------------------------------------- */

/* The claimed seed must give this A, bit for bit (in the file's dtype: an F16
 * file rounds A; the exact one is put back). */
static lori_status verify_a(reader *r, lori_error *err)
{
    const adapter_origin *origin = &r->ad->origin;
    for (int64_t i = 0; i < r->n_entries; i++) {
        const entry *e = &r->entries[i];
        if (e->kind != NAME_A)
            continue;
        adapter_site *site = adapter_find(r->ad, e->path);
        size_t n = (size_t)(site->rank * site->in);
        float *want = base_alloc(n, sizeof *want);
        if (!want)
            return base_no_memory(err, n * sizeof *want);
        adapter_a1(origin->seed, site->path, site->rank, site->in, want);
        bool same = true;
        for (size_t k = 0; same && k < n; k++) {
            float w = want[k];
            if (e->tensor->dtype == BASE_F16)
                w = base_f16_to_f32(base_f32_to_f16(w));
            same = memcmp(&w, &site->A[k], sizeof w) == 0;
        }
        if (same)
            memcpy(site->A, want, n * sizeof *want);
        free(want);
        if (!same)
            return base_fail(
                err, LORI_MISMATCH,
                "%s: tensor '%s' is not the A of seed %llu (version %d) that "
                "%s claims: the file was changed or comes from another version "
                "of lori. Without lori.json it is read as a plain adapter",
                r->weights, e->tensor->name, (unsigned long long)origin->seed,
                origin->version, ADAPTER_FACTS_FILE);
    }
    return LORI_OK;
}

/* ---- extras --------------------------------------------------------- */

/* Views into the file, which the adapter then keeps open. */
static lori_status take_extras(reader *r, lori_error *err)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_entries; i++)
        n += r->entries[i].kind == NAME_EXTRA;
    if (n == 0)
        return LORI_OK;
    adapter *ad = r->ad;
    adapter_backing *backing = base_alloc(1, sizeof *backing);
    ad->map = backing;
    ad->extras = base_alloc((size_t)n, sizeof *ad->extras);
    if (backing)
        backing->names = base_alloc((size_t)n, sizeof *backing->names);
    if (!backing || !ad->extras || !backing->names)
        return base_no_memory(err, (size_t)n * sizeof *ad->extras);
    for (int64_t i = 0; i < r->n_entries; i++) {
        entry *e = &r->entries[i];
        if (e->kind != NAME_EXTRA)
            continue;
        BASE_TRY(check_tensor(r, e->tensor, err));
        backing->names[backing->n_names++] = e->path;
        ad->extras[ad->n_extras++] =
            (adapter_extra){e->path, e->tensor->data, e->tensor->dtype,
                            e->tensor->shape[0], e->tensor->shape[1]};
        e->path = NULL; /* now the backing's */
    }
    backing->store = r->store;
    r->store = NULL;
    return LORI_OK;
}

/* modules_to_save must be in the file: PEFT fails without them too. */
static lori_status check_saved(const reader *r, lori_error *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(r->peft.saved, i, item)
    {
        const char *module = adapter_path_last(json_string_value(item));
        bool found = false;
        for (int64_t k = 0; k < r->ad->n_extras; k++)
            found |= strstr(r->ad->extras[k].name, module) != NULL;
        if (!found)
            return base_fail(err, LORI_NOT_FOUND,
                             "%s: no tensor for '%s', which modules_to_save in "
                             "%s names",
                             r->weights, module, r->peft.file);
    }
    return LORI_OK;
}

/* ---- the folder ----------------------------------------------------- */

static bool has_file(const char *folder, const char *name)
{
    char *path = base_path_join(folder, name);
    bool found = path && base_is_file(path);
    free(path);
    return found;
}

static lori_status check_folder(const char *folder, lori_error *err)
{
    if (!base_is_dir(folder))
        return base_fail(err, LORI_NOT_FOUND, "adapter '%s': no such folder",
                         folder);
    if (!has_file(folder, ADAPTER_CONFIG_FILE)) {
        if (has_file(folder, ADAPTER_KEEP_FILE))
            return base_fail(err, LORI_INVALID,
                             "'%s' is a mask folder, not an adapter", folder);
        return base_fail(err, LORI_NOT_FOUND,
                         "'%s' is not an adapter folder: it has no %s", folder,
                         ADAPTER_CONFIG_FILE);
    }
    if (has_file(folder, ADAPTER_WEIGHTS_FILE))
        return LORI_OK;
    if (has_file(folder, "adapter_model.bin"))
        return base_fail(err, LORI_UNSUPPORTED,
                         "'%s' holds adapter_model.bin (a pickle): load it "
                         "with PEFT and save_pretrained it as safetensors",
                         folder);
    return base_fail(err, LORI_NOT_FOUND, "adapter '%s': it has no %s", folder,
                     ADAPTER_WEIGHTS_FILE);
}

static lori_status read_folder(reader *r, lori_error *err)
{
    BASE_TRY(check_folder(r->folder, err));
    r->weights = base_path_join(r->folder, ADAPTER_WEIGHTS_FILE);
    char *config = base_path_join(r->folder, ADAPTER_CONFIG_FILE);
    lori_status st = r->weights && config
                         ? adapter_peft_load(config, &r->peft, err)
                         : base_no_memory(err, strlen(r->folder));
    free(config);
    BASE_TRY(st);
    BASE_TRY(format_store_open_file(r->weights, &r->store, err));
    BASE_TRY(list_entries(r, err));
    BASE_TRY(build_sites(r, err));
    BASE_TRY(copy_values(r, err));
    BASE_TRY(adapter_facts_read(r->folder, r->ad, err));
    if (r->ad->origin.has_seed)
        BASE_TRY(verify_a(r, err));
    BASE_TRY(take_extras(r, err));
    BASE_TRY(check_saved(r, err));
    const char *base = r->peft.base_model;
    if (base && !(r->ad->base_model = base_strdup(base)))
        return base_no_memory(err, strlen(base));
    return LORI_OK;
}

lori_status adapter_read(const char *folder, adapter **out, lori_error *err)
{
    *out = NULL;
    reader r = {.folder = folder};
    lori_status st = read_folder(&r, err);
    for (int64_t i = 0; i < r.n_entries; i++)
        free(r.entries[i].path);
    free(r.entries);
    if (st == LORI_OK)
        *out = r.ad;
    else
        adapter_free(r.ad);
    format_store_close(r.store);
    adapter_peft_free(&r.peft);
    free(r.weights);
    return st;
}
