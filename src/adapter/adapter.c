/* adapter.c - adapter objects: making, freeing, finding and ordering sites.
 * Owns no file format. Refuses empty and duplicate sites. */
#include "adapter/adapter_i.h"

#include <math.h>
#include <stdlib.h>

/* Block order of the linears of a Llama-family layer. */
static const char *const role_order[] = {"q_proj",   "k_proj",    "v_proj",
                                         "o_proj",   "gate_proj", "up_proj",
                                         "down_proj"};
#define N_ROLES ((int)(sizeof role_order / sizeof *role_order))

const char *adapter_path_last(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

int64_t adapter_path_layer(const char *path, size_t *start, size_t *length)
{
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, ".");
        size_t digits = strspn(p, "0123456789");
        if (n > 0 && n <= 9 && digits == n) {
            if (start)
                *start = (size_t)(p - path);
            if (length)
                *length = n;
            return strtoll(p, NULL, 10);
        }
        p += n + (p[n] == '.');
    }
    return -1;
}

static int role_of(const char *path)
{
    const char *last = adapter_path_last(path);
    for (int i = 0; i < N_ROLES; i++)
        if (strcmp(last, role_order[i]) == 0)
            return i;
    return N_ROLES;
}

int adapter_path_order(const char *x, const char *y)
{
    int64_t lx = adapter_path_layer(x, NULL, NULL);
    int64_t ly = adapter_path_layer(y, NULL, NULL);
    if (lx != ly)
        return lx < ly ? -1 : 1;
    int rx = role_of(x), ry = role_of(y);
    if (rx != ry)
        return rx < ry ? -1 : 1;
    return strcmp(x, y);
}

static int order_sites(const void *x, const void *y)
{
    return adapter_path_order(((const adapter_site *)x)->path,
                              ((const adapter_site *)y)->path);
}

double adapter_scale(double alpha, int64_t rank, bool rslora)
{
    return rslora ? alpha / sqrt((double)rank) : alpha / (double)rank;
}

static lori_status make_site(const adapter_site_spec *spec, bool rslora,
                             adapter_site *site, lori_error *err)
{
    int64_t a = 0, b = 0;
    if (spec->in < 1 || spec->out < 1 || spec->rank < 1 ||
        !base_mul64(spec->rank, spec->in, &a) ||
        !base_mul64(spec->rank, spec->out, &b))
        return base_fail(err, LORI_INVALID,
                         "'%s': %lld inputs, %lld outputs and rank %lld do not "
                         "make an adapter",
                         spec->path, (long long)spec->in, (long long)spec->out,
                         (long long)spec->rank);
    if (!isfinite(spec->alpha))
        return base_fail(err, LORI_INVALID, "'%s': alpha is not a number",
                         spec->path);
    site->in = spec->in;
    site->out = spec->out;
    site->rank = spec->rank;
    site->alpha = spec->alpha;
    site->scale = adapter_scale(spec->alpha, spec->rank, rslora);
    site->path = base_strdup(spec->path);
    site->A = base_alloc((size_t)a, sizeof *site->A);
    site->B = base_alloc((size_t)b, sizeof *site->B);
    if (!site->path || !site->A || !site->B)
        return base_no_memory(err, ((size_t)a + (size_t)b) * sizeof(float));
    return LORI_OK;
}

lori_status adapter_new(const adapter_site_spec *specs, int64_t n, bool rslora,
                        adapter **out, lori_error *err)
{
    *out = NULL;
    if (n < 1)
        return base_fail(err, LORI_INVALID,
                         "an adapter needs at least one "
                         "linear layer to adapt");
    adapter *ad = base_alloc(1, sizeof *ad);
    if (ad)
        ad->sites = base_alloc((size_t)n, sizeof *ad->sites);
    if (!ad || !ad->sites) {
        adapter_free(ad);
        return base_no_memory(err, (size_t)n * sizeof(adapter_site));
    }
    ad->n_sites = n;
    ad->use_rslora = rslora;
    lori_status st = LORI_OK;
    for (int64_t i = 0; st == LORI_OK && i < n; i++)
        st = make_site(&specs[i], rslora, &ad->sites[i], err);
    if (st == LORI_OK) {
        qsort(ad->sites, (size_t)n, sizeof *ad->sites, order_sites);
        for (int64_t i = 1; st == LORI_OK && i < n; i++)
            if (strcmp(ad->sites[i - 1].path, ad->sites[i].path) == 0)
                st = base_fail(err, LORI_INVALID,
                               "'%s' is named twice among the adapted layers",
                               ad->sites[i].path);
    }
    if (st != LORI_OK) {
        adapter_free(ad);
        return st;
    }
    *out = ad;
    return LORI_OK;
}

void adapter_backing_free(adapter_backing *backing)
{
    if (!backing)
        return;
    for (int64_t i = 0; i < backing->n_names; i++)
        free(backing->names[i]);
    free(backing->names);
    format_store_close(backing->store);
    free(backing);
}

void adapter_free(adapter *ad)
{
    if (!ad)
        return;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        free(ad->sites[i].path);
        free(ad->sites[i].A);
        free(ad->sites[i].B);
    }
    free(ad->sites);
    free(ad->base_model);
    free(ad->method);
    free(ad->extras);
    adapter_backing_free(ad->map);
    free(ad);
}

adapter_site *adapter_find(const adapter *ad, const char *path)
{
    int64_t lo = 0, hi = ad->n_sites;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        int c = adapter_path_order(ad->sites[mid].path, path);
        if (c == 0)
            return &ad->sites[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

int64_t adapter_count_a(const adapter *ad)
{
    int64_t n = 0;
    for (int64_t i = 0; i < ad->n_sites; i++)
        n += ad->sites[i].rank * ad->sites[i].in;
    return n;
}

int64_t adapter_count_b(const adapter *ad)
{
    int64_t n = 0;
    for (int64_t i = 0; i < ad->n_sites; i++)
        n += ad->sites[i].rank * ad->sites[i].out;
    return n;
}

lori_status adapter_copy_a(const adapter *ad, adapter **out, lori_error *err)
{
    *out = NULL;
    adapter_site_spec *specs = base_alloc((size_t)ad->n_sites, sizeof *specs);
    if (!specs)
        return base_no_memory(err, (size_t)ad->n_sites * sizeof *specs);
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        specs[i] =
            (adapter_site_spec){s->path, s->in, s->out, s->rank, s->alpha};
    }
    adapter *copy = NULL;
    lori_status st =
        adapter_new(specs, ad->n_sites, ad->use_rslora, &copy, err);
    free(specs);
    if (st != LORI_OK)
        return st;
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        memcpy(copy->sites[i].A, s->A,
               (size_t)(s->rank * s->in) * sizeof *s->A);
        copy->sites[i].scale = s->scale;
    }
    copy->origin = ad->origin;
    if (ad->base_model && !(copy->base_model = base_strdup(ad->base_model))) {
        adapter_free(copy);
        return base_no_memory(err, strlen(ad->base_model));
    }
    *out = copy;
    return LORI_OK;
}

lori_status adapter_check_finite(const float *x, int64_t n, const char *file,
                                 const char *tensor, lori_error *err)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return base_fail(err, LORI_NUMERIC,
                             "%s: tensor '%s': element %lld is %s; the file is "
                             "damaged or its training diverged",
                             file, tensor, (long long)i,
                             isnan(x[i]) ? "NaN" : "infinite");
    return LORI_OK;
}
