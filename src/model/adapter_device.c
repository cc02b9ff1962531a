/* adapter_device.c - a host adapter as matrices on the device, each site tied
 * to its linear of the model. Refuses sites and shapes that the model does
 * not have, and extra tensors that would change the base. May include base,
 * format, backend, adapter, model. Source: spec/lori.md 6.4 (enlarged
 * vocabulary). */
#include <stdlib.h>

#include "model/model_i.h"

/* ---- extras ------------------------------------------------------------ */

/* Whether row i of the base, in the extra's own type, is the extra's row: that
 * is what a base loaded in that type would have saved. `row` holds 3 d
 * doubles. */
static bool same_row(const format_tensor *base, const adapter_extra *extra,
                     int64_t i, double *row)
{
    size_t d = (size_t)extra->cols;
    size_t base_bytes = d * base_dtype_bytes(base->dtype);
    size_t bytes = d * base_dtype_bytes(extra->dtype);
    const char *have = (const char *)base->data + (size_t)i * base_bytes;
    const char *want = (const char *)extra->data + (size_t)i * bytes;
    if (base->dtype == extra->dtype)
        return !memcmp(have, want, bytes);
    float *value = (float *)row, *expected = value + d;
    void *rounded = row + d;
    base_to_f32(have, base->dtype, value, d);
    base_from_f32(value, rounded, extra->dtype, d);
    base_to_f32(rounded, extra->dtype, value, d);
    base_to_f32(want, extra->dtype, expected, d);
    return !memcmp(value, expected, d * sizeof *value);
}

static lori_status compare_rows(const model *m, const format_tensor *base,
                                const adapter_extra *extra, lori_error *err)
{
    double *row = base_alloc(3 * (size_t)extra->cols, sizeof *row);
    if (!row)
        return base_no_memory(err, 3 * (size_t)extra->cols * sizeof *row);
    int64_t i = 0;
    while (i < m->config.vocab && same_row(base, extra, i, row))
        i++;
    free(row);
    if (i == m->config.vocab)
        return LORI_OK;
    return base_fail(err, LORI_UNSUPPORTED,
                     "adapter tensor '%s': row %lld differs from the base's; "
                     "adapters that train it are not supported (is this the "
                     "right base model?)",
                     extra->name, (long long)i);
}

static lori_status check_extra(const model *m, const adapter_extra *extra,
                               lori_error *err)
{
    const model_config *c = &m->config;
    const format_tensor *base = NULL;
    if (!strcmp(extra->name, "model.embed_tokens.weight"))
        base = m->embed_tensor;
    else if (!strcmp(extra->name, "lm_head.weight"))
        base = m->head_tensor;
    if (!base || !base_dtype_is_float(extra->dtype))
        return base_fail(err, LORI_UNSUPPORTED,
                         "adapter tensor '%s' (%s) replaces a part of the "
                         "base: that is not supported",
                         extra->name, base_dtype_name(extra->dtype));
    if (extra->rows < c->vocab || extra->cols != c->d)
        return base_fail(err, LORI_MISMATCH,
                         "adapter tensor '%s': shape [%lld, %lld]; the base "
                         "has [%lld, %lld]",
                         extra->name, (long long)extra->rows,
                         (long long)extra->cols, (long long)c->vocab,
                         (long long)c->d);
    return compare_rows(m, base, extra, err);
}

/* ---- sites -------------------------------------------------------------- */

static lori_status bind_site(const model *m, model_adapter *ma, int64_t i,
                             const adapter_site *s, lori_error *err)
{
    int64_t layer, out, in;
    int role;
    if (!model_path_parse(&m->config, s->path, &layer, &role))
        return base_fail(err, LORI_MISMATCH,
                         "adapter site '%s' is no linear layer of the base (%s "
                         "with %lld layers): the adapter was made for another "
                         "model",
                         s->path, m->config.family,
                         (long long)m->config.n_layers);
    model_linear_shape(&m->config, role, &out, &in);
    if (s->out != out || s->in != in)
        return base_fail(err, LORI_MISMATCH,
                         "adapter site '%s' is made for a layer [%lld, %lld], "
                         "the base's is [%lld, %lld]: the adapter was made for "
                         "another model",
                         s->path, (long long)s->out, (long long)s->in,
                         (long long)out, (long long)in);
    model_site **at = &ma->at[layer * MODEL_ROLES + role];
    if (*at)
        return base_fail(err, LORI_FORMAT, "adapter site '%s' appears twice",
                         s->path);
    *at = &ma->sites[i];
    ma->sites[i] =
        (model_site){.in = in, .out = out, .rank = s->rank, .scale = s->scale};
    return LORI_OK;
}

static void place_sites(model_adapter *ma, base_plan *plan)
{
    size_t size = base_dtype_bytes(ma->be->act);
    for (int64_t i = 0; i < ma->n_sites; i++) {
        model_site *s = &ma->sites[i];
        s->A = base_plan_take(plan, (size_t)(s->rank * s->in), size);
        s->B = base_plan_take(plan, (size_t)(s->out * s->rank), size);
    }
}

/* One matrix at a time, so that the host copy stays small. */
static lori_status upload(model_adapter *ma, const adapter *ad, lori_error *err)
{
    backend *be = ma->be;
    size_t size = base_dtype_bytes(be->act), most = 1;
    for (int64_t i = 0; i < ma->n_sites; i++) {
        const model_site *s = &ma->sites[i];
        int64_t wide = s->in > s->out ? s->in : s->out;
        size_t n = (size_t)(wide * s->rank);
        most = n > most ? n : most;
    }
    void *host = base_alloc(most, size);
    if (!host)
        return base_no_memory(err, most * size);
    lori_status st = LORI_OK;
    for (int64_t i = 0; !st && i < 2 * ma->n_sites; i++) {
        const model_site *s = &ma->sites[i / 2];
        const adapter_site *from = &ad->sites[i / 2];
        bool is_b = i % 2;
        size_t n = (size_t)((is_b ? s->out : s->in) * s->rank);
        base_from_f32(is_b ? from->B : from->A, host, be->act, n);
        be->copy(be, is_b ? s->B : s->A, host, n * size, BACKEND_TO_DEVICE);
        st = be->sync(be, err);
    }
    free(host);
    return st;
}

static lori_status build(model *m, const adapter *ad, model_adapter *ma,
                         lori_error *err)
{
    size_t linears = (size_t)m->config.n_layers * MODEL_ROLES;
    ma->sites = base_alloc((size_t)ad->n_sites, sizeof *ma->sites);
    ma->at = base_alloc(linears, sizeof *ma->at);
    if (!ma->sites || !ma->at)
        return base_no_memory(err, linears * sizeof *ma->at);
    ma->n_sites = ad->n_sites;
    for (int64_t i = 0; i < ad->n_sites; i++)
        BASE_TRY(bind_site(m, ma, i, &ad->sites[i], err));
    for (int64_t i = 0; i < ad->n_extras; i++)
        BASE_TRY(check_extra(m, &ad->extras[i], err));
    base_plan plan = {0};
    place_sites(ma, &plan);
    if (plan.overflow)
        return base_no_memory(err, SIZE_MAX);
    size_t bytes = plan.used ? plan.used : 64; /* an adapter without sites */
    ma->memory = ma->be->alloc(ma->be, bytes);
    if (!ma->memory)
        return base_no_memory(err, bytes);
    plan = (base_plan){.base = ma->memory};
    place_sites(ma, &plan);
    return upload(ma, ad, err);
}

lori_status model_adapter_new(model *m, const adapter *ad, model_adapter **out,
                              lori_error *err)
{
    *out = NULL;
    model_adapter *ma = base_alloc(1, sizeof *ma);
    if (!ma)
        return base_no_memory(err, sizeof *ma);
    ma->be = m->be;
    lori_status st = build(m, ad, ma, err);
    if (st) {
        model_adapter_free(ma);
        return st;
    }
    *out = ma;
    return LORI_OK;
}

void model_adapter_free(model_adapter *ma)
{
    if (!ma)
        return;
    if (ma->memory)
        ma->be->free(ma->be, ma->memory);
    free(ma->at);
    free(ma->sites);
    free(ma);
}

int64_t model_adapter_rank(const model_adapter *ma)
{
    int64_t rank = 0;
    for (int64_t i = 0; ma && i < ma->n_sites; i++)
        rank = ma->sites[i].rank > rank ? ma->sites[i].rank : rank;
    return rank;
}
