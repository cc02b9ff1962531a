/* merge.c - several adapters as one, and an adapter's change of its base.
 * Owns the merge algebra; refuses sources that are not of one base's shapes.
 * Source: peft 0.21 LoraModel.add_weighted_adapter; spec/peft.md 5. */
#include "adapter/adapter_i.h"

#include <math.h>
#include <stdlib.h>

/* A site of a source; all of them sorted are the sites of the result. */
typedef struct part {
    const adapter_site *site;
    int64_t source;
} part;

static int order_parts(const void *x, const void *y)
{
    const part *a = x, *b = y;
    int c = adapter_path_order(a->site->path, b->site->path);
    return c ? c : (a->source > b->source) - (a->source < b->source);
}

static lori_status list_parts(const adapter *const *sources,
                              const double *weights, int64_t n, part **out,
                              int64_t *n_parts, lori_error *err)
{
    *out = NULL;
    *n_parts = 0;
    if (n < 1)
        return base_fail(err, LORI_INVALID, "no adapters to merge");
    size_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        if (weights && !isfinite(weights[i]))
            return base_fail(err, LORI_INVALID,
                             "the weight of adapter %lld is not a number",
                             (long long)i + 1);
        total += (size_t)sources[i]->n_sites;
    }
    part *parts = base_alloc(total, sizeof *parts);
    if (!parts)
        return base_no_memory(err, total * sizeof *parts);
    for (int64_t i = 0; i < n; i++)
        for (int64_t s = 0; s < sources[i]->n_sites; s++)
            parts[(*n_parts)++] = (part){&sources[i]->sites[s], i};
    qsort(parts, total, sizeof *parts, order_parts);
    *out = parts;
    return LORI_OK;
}

/* One site from parts [first, first + count): shapes must agree, and ranks
 * too when they are not added. */
static lori_status describe_group(const part *parts, int64_t count, bool add,
                                  adapter_site_spec *spec, lori_error *err)
{
    const adapter_site *first = parts[0].site;
    int64_t rank = first->rank;
    for (int64_t i = 1; i < count; i++) {
        const adapter_site *s = parts[i].site;
        if (s->in != first->in || s->out != first->out)
            return base_fail(
                err, LORI_MISMATCH,
                "'%s' is [%lld, %lld] in adapter %lld and [%lld, %lld] in "
                "adapter %lld: they belong to different base models",
                s->path, (long long)first->out, (long long)first->in,
                (long long)parts[0].source + 1, (long long)s->out,
                (long long)s->in, (long long)parts[i].source + 1);
        if (!add && s->rank != first->rank)
            return base_fail(
                err, LORI_MISMATCH,
                "'%s' has rank %lld in adapter %lld and %lld in adapter %lld: "
                "a linear merge needs equal ranks; merge with cat",
                s->path, (long long)first->rank, (long long)parts[0].source + 1,
                (long long)s->rank, (long long)parts[i].source + 1);
        rank += add ? s->rank : 0;
    }
    *spec = (adapter_site_spec){.path = first->path,
                                .in = first->in,
                                .out = first->out,
                                .rank = rank,
                                .alpha = (double)rank};
    return LORI_OK;
}

static int64_t group_size(const part *parts, int64_t n)
{
    int64_t count = 1;
    while (count < n &&
           strcmp(parts[count].site->path, parts[0].site->path) == 0)
        count++;
    return count;
}

/* The empty result: one site for each path among the parts. */
static lori_status new_result(const part *parts, int64_t n_parts, bool add,
                              adapter **out, lori_error *err)
{
    adapter_site_spec *specs = base_alloc((size_t)n_parts, sizeof *specs);
    if (!specs)
        return base_no_memory(err, (size_t)n_parts * sizeof *specs);
    lori_status st = LORI_OK;
    int64_t n = 0;
    for (int64_t i = 0, count; st == LORI_OK && i < n_parts; i += count) {
        count = group_size(parts + i, n_parts - i);
        st = describe_group(parts + i, count, add, &specs[n++], err);
    }
    if (st == LORI_OK)
        st = adapter_new(specs, n, false, out, err);
    free(specs);
    return st;
}

/* A gets the rows w s A_i, B the columns B_i, in source order. */
static void fill_cat(adapter_site *dst, const part *parts, int64_t count,
                     const double *weights)
{
    int64_t at = 0;
    for (int64_t p = 0; p < count; p++) {
        const adapter_site *s = parts[p].site;
        double c = s->scale * (weights ? weights[parts[p].source] : 1);
        float *A = dst->A + at * dst->in;
        for (int64_t i = 0; i < s->rank * s->in; i++)
            A[i] = (float)(c * (double)s->A[i]);
        for (int64_t i = 0; i < s->out; i++)
            memcpy(dst->B + i * dst->rank + at, s->B + i * s->rank,
                   (size_t)s->rank * sizeof *s->B);
        at += s->rank;
    }
}

/* A = sum sgn(c) sqrt|c| A_i, B = sum sqrt|c| B_i with c = w s. The sign is on
 * A alone, or it would cancel. Sums in double, rounded once. */
static lori_status fill_linear(adapter_site *dst, const part *parts,
                               int64_t count, const double *weights,
                               lori_error *err)
{
    size_t na = (size_t)(dst->rank * dst->in);
    size_t nb = (size_t)(dst->rank * dst->out);
    double *sum = base_alloc(na > nb ? na : nb, sizeof *sum);
    if (!sum)
        return base_no_memory(err, (na > nb ? na : nb) * sizeof *sum);
    for (int pass = 0; pass < 2; pass++) {
        size_t n = pass ? nb : na;
        memset(sum, 0, n * sizeof *sum);
        for (int64_t p = 0; p < count; p++) {
            const adapter_site *s = parts[p].site;
            double c = s->scale * (weights ? weights[parts[p].source] : 1);
            double f = pass || c >= 0 ? sqrt(fabs(c)) : -sqrt(fabs(c));
            const float *x = pass ? s->B : s->A;
            for (size_t i = 0; i < n; i++)
                sum[i] += f * (double)x[i];
        }
        float *y = pass ? dst->B : dst->A;
        for (size_t i = 0; i < n; i++)
            y[i] = (float)sum[i];
    }
    free(sum);
    return LORI_OK;
}

static lori_status finish(adapter *ad, const adapter *const *sources, int64_t n,
                          lori_error *err)
{
    const char *base = NULL;
    for (int64_t i = 0; i < n && !base; i++)
        base = sources[i]->base_model;
    ad->method = base_strdup("merge");
    if (base)
        ad->base_model = base_strdup(base);
    if (!ad->method || (base && !ad->base_model))
        return base_no_memory(err, 64);
    for (int64_t i = 0; i < ad->n_sites; i++) {
        const adapter_site *s = &ad->sites[i];
        BASE_TRY(adapter_check_finite(s->A, s->rank * s->in, "merged adapter",
                                      s->path, err));
        BASE_TRY(adapter_check_finite(s->B, s->rank * s->out, "merged adapter",
                                      s->path, err));
    }
    return LORI_OK;
}

static lori_status merge(const adapter *const *sources, const double *weights,
                         int64_t n, bool cat, adapter **out, lori_error *err)
{
    *out = NULL;
    part *parts = NULL;
    int64_t n_parts = 0;
    adapter *ad = NULL;
    BASE_TRY(list_parts(sources, weights, n, &parts, &n_parts, err));
    lori_status st = new_result(parts, n_parts, cat, &ad, err);
    for (int64_t i = 0, g = 0, count; st == LORI_OK && i < n_parts;
         i += count, g++) {
        count = group_size(parts + i, n_parts - i);
        if (cat)
            fill_cat(&ad->sites[g], parts + i, count, weights);
        else
            st = fill_linear(&ad->sites[g], parts + i, count, weights, err);
    }
    free(parts);
    if (st == LORI_OK)
        st = finish(ad, sources, n, err);
    if (st != LORI_OK) {
        adapter_free(ad);
        return st;
    }
    *out = ad;
    return LORI_OK;
}

lori_status adapter_merge_cat(const adapter *const *sources,
                              const double *weights, int64_t n, adapter **out,
                              lori_error *err)
{
    return merge(sources, weights, n, true, out, err);
}

lori_status adapter_merge_linear(const adapter *const *sources,
                                 const double *weights, int64_t n,
                                 adapter **out, lori_error *err)
{
    return merge(sources, weights, n, false, out, err);
}

bool adapter_share_a(const adapter *x, const adapter *y)
{
    for (int64_t i = 0; i < x->n_sites; i++) {
        const adapter_site *a = &x->sites[i];
        const adapter_site *b = adapter_find(y, a->path);
        if (!b || a->in != b->in)
            continue;
        /* A of a smaller rank is the beginning of A of a larger one. */
        int64_t rank = a->rank < b->rank ? a->rank : b->rank;
        if (memcmp(a->A, b->A, (size_t)(rank * a->in) * sizeof *a->A) == 0)
            return true;
    }
    return false;
}

void adapter_add_delta(const adapter_site *site, double weight, float *w)
{
    enum { PIECE = 512 };
    double c = weight * site->scale;
    int64_t in = site->in, rank = site->rank;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < site->out; i++) {
        const float *b = site->B + i * rank;
        for (int64_t at = 0; at < in; at += PIECE) {
            int64_t n = in - at < PIECE ? in - at : PIECE;
            double sum[PIECE] = {0};
            for (int64_t k = 0; k < rank; k++) {
                if (b[k] == 0) /* nine of ten in a LoRI-S adapter */
                    continue;
                const float *a = site->A + k * in + at;
                double bk = (double)b[k];
                for (int64_t j = 0; j < n; j++)
                    sum[j] += bk * (double)a[j];
            }
            float *row = w + i * in + at;
            for (int64_t j = 0; j < n; j++)
                row[j] = (float)((double)row[j] + c * sum[j]);
        }
    }
}
