/* merge_job.c - several adapters become one, or become part of their base. */
#include "job/job_i.h"

#include <math.h>
#include <stdlib.h>

static lori_status check(const lori_merge_options *o, lori_error *err)
{
    BASE_TRY(job_need(o->output, "an output folder", err));
    if (o->n_adapters < 1)
        return base_fail(err, LORI_INVALID,
                         "no adapter to merge: name one "
                         "with --adapter");
    for (int64_t i = 0; o->weights && i < o->n_adapters; i++)
        if (!isfinite(o->weights[i]))
            return base_fail(err, LORI_INVALID, "weight %lld is not a number",
                             (long long)i + 1);
    return LORI_OK;
}

/* Adapters of different tasks should have independent projections A. */
static void warn_shared(adapter *const *ads, const lori_merge_options *o,
                        const lori_ui *ui)
{
    for (int64_t i = 0; i < o->n_adapters; i++)
        for (int64_t j = i + 1; j < o->n_adapters; j++)
            if (adapter_share_a(ads[i], ads[j]))
                base_log(ui, LORI_LOG_WARNING,
                         "%s and %s have the same A: their updates share one "
                         "subspace and will interfere",
                         o->adapters[i], o->adapters[j]);
}

static lori_status merge_adapters(const lori_merge_options *o,
                                  adapter *const *ads, const double *weights,
                                  lori_report **out, lori_error *err)
{
    adapter *merged = NULL;
    const adapter *const *sources = (const adapter *const *)ads;
    lori_status st =
        o->method == LORI_MERGE_LINEAR
            ? adapter_merge_linear(sources, weights, o->n_adapters, &merged,
                                   err)
            : adapter_merge_cat(sources, weights, o->n_adapters, &merged, err);
    if (st)
        return st;
    adapter_write_options write = {.replace = o->replace != 0,
                                   .dtype = BASE_F32};
    st = adapter_write(merged, o->output, &write, err);
    int64_t rank = 0, sites = merged->n_sites;
    for (int64_t i = 0; i < sites; i++)
        rank = merged->sites[i].rank > rank ? merged->sites[i].rank : rank;
    adapter_free(merged);
    BASE_TRY(st);
    const char *method = o->method == LORI_MERGE_LINEAR ? "linear" : "cat";
    base_str text = {0};
    base_str_printf(&text, "%s: %s merge of %lld adapters, rank %lld\n",
                    o->output, method, (long long)o->n_adapters,
                    (long long)rank);
    return report_new(json_pack("{sssssIsIsI}", "output", o->output, "method",
                                method, "adapters", (json_int_t)o->n_adapters,
                                "rank", (json_int_t)rank, "sites",
                                (json_int_t)sites),
                      &text, out, err);
}

lori_status job_merge(const lori_merge_options *o, const lori_ui *ui,
                      lori_report **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(check(o, err));
    size_t n = (size_t)o->n_adapters;
    adapter **ads = base_alloc(n, sizeof *ads);
    double *weights = base_alloc(n, sizeof *weights);
    char *into = NULL;
    lori_status st = LORI_OK;
    if (!ads || !weights)
        st = base_no_memory(err, n * sizeof *ads);
    for (size_t i = 0; i < n && !st; i++) {
        weights[i] = o->weights ? o->weights[i] : 1;
        st = job_read_adapter(o->hub_cache, o->adapters[i], &ads[i], err);
        if (!st && ads[i]->n_extras)
            base_log(ui, LORI_LOG_INFO,
                     "%s also holds %lld embedding tensors of an enlarged "
                     "vocabulary; a merge leaves them out",
                     o->adapters[i], (long long)ads[i]->n_extras);
    }
    if (!st)
        warn_shared(ads, o, ui);
    if (!st && o->into)
        st = hub_find(o->hub_cache, o->into, HUB_WEIGHTS, &into, err);
    if (!st)
        st = o->into ? merge_into_base(o, into, ads, weights, ui, out, err)
                     : merge_adapters(o, ads, weights, out, err);
    for (size_t i = 0; ads && i < n; i++)
        adapter_free(ads[i]);
    free(ads);
    free(weights);
    free(into);
    return st;
}
