/* infer_score.c - log-probabilities of given texts. They run through the
 * engine as prompts whose logits are wanted from `first` on, so texts that
 * begin alike (the choices of a question) compute the common part once. */
#include "infer/infer_i.h"

/* The last token is only a target: it is not fed. */
static int64_t fed(const infer_score_item *item)
{
    return item->first < item->n_ids ? item->n_ids - 1 : 0;
}

static lori_status check_item(const infer_engine *e,
                              const infer_score_item *item, int64_t i,
                              lori_error *err)
{
    if (item->first < 1 || item->first > item->n_ids)
        return base_fail(
            err, LORI_INVALID,
            "text %lld: cannot score tokens from %lld of %lld; the "
            "first token has nothing before it",
            (long long)i, (long long)item->first, (long long)item->n_ids);
    if (fed(item) > e->context)
        return base_fail(err, LORI_INVALID,
                         "text %lld: %lld tokens exceed the context of %lld "
                         "(max_position_embeddings %lld); shorten it",
                         (long long)i, (long long)item->n_ids,
                         (long long)e->context,
                         (long long)e->config->max_positions);
    return infer_check_ids(item->ids, item->n_ids, e->config->vocab, "text", i,
                           err);
}

static lori_status enqueue_all(infer_engine *e, infer_score_item *items,
                               int64_t n, lori_error *err)
{
    for (int64_t i = 0; i < n; i++)
        BASE_TRY(check_item(e, &items[i], i, err));
    for (int64_t i = 0; i < n; i++) {
        infer_job job = {.request = {.tag = i, .adapter = items[i].adapter},
                         .score = &items[i],
                         .prompt = items[i].ids,
                         .n_prompt = fed(&items[i]),
                         .positions = fed(&items[i])};
        if (job.n_prompt > 0)
            BASE_TRY(infer_enqueue(e, &job, err));
    }
    return LORI_OK;
}

lori_status infer_score(infer_engine *e, infer_score_item *items, int64_t n,
                        const lori_ui *ui, lori_error *err)
{
    if (infer_pending(e))
        return base_fail(err, LORI_INVALID,
                         "the engine has requests of infer_submit");
    lori_status st = enqueue_all(e, items, n, err);
    int64_t total = infer_pending(e);
    while (!st && infer_pending(e)) {
        int64_t done = total - infer_pending(e);
        if (base_interrupted(ui))
            st = base_fail(err, LORI_INTERRUPTED,
                           "scoring was interrupted after %lld of %lld texts",
                           (long long)done, (long long)total);
        else
            st = infer_step(e, NULL, err);
        if (!st && total - infer_pending(e) > done)
            base_progress(ui, "score", total - infer_pending(e), total, "%s",
                          "");
    }
    infer_clear(e);
    return st;
}
