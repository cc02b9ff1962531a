/* mask.c - from a trained LoRI-D adapter to the keep mask of LoRI-S. */
#include "job/job_i.h"

lori_status job_mask(const lori_mask_options *o, const lori_ui *ui,
                     lori_report **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(job_need(o->adapter, "an adapter folder", err));
    BASE_TRY(job_need(o->output, "an output folder", err));
    double sparsity = o->sparsity > 0 ? o->sparsity : 0.9;
    if (!(sparsity > 0 && sparsity < 1))
        return base_fail(err, LORI_INVALID,
                         "sparsity %g is not between 0 and 1", sparsity);
    adapter *ad = NULL;
    adapter_keep *keep = NULL;
    BASE_TRY(job_read_adapter(o->hub_cache, o->adapter, &ad, err));
    lori_status st = adapter_keep_topk(ad, sparsity, &keep, err);
    if (st)
        st = base_prefix(err, st, "%s", o->adapter);
    else
        st = adapter_keep_write(keep, o->output, o->replace != 0, err);
    adapter_free(ad);
    if (st) {
        adapter_keep_free(keep);
        return st;
    }
    base_log(ui, LORI_LOG_INFO, "mask written to %s", o->output);
    base_str text = {0};
    base_str_printf(&text, "%s: %lld of %lld entries of B kept (sparsity %g)\n",
                    o->output, (long long)keep->kept, (long long)keep->total,
                    sparsity);
    json_t *facts =
        json_pack("{sssssfsIsI}", "adapter", o->adapter, "output", o->output,
                  "sparsity", sparsity, "kept", (json_int_t)keep->kept, "total",
                  (json_int_t)keep->total);
    adapter_keep_free(keep);
    return report_new(facts, &text, out, err);
}
