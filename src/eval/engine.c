/* engine.c - the one file of this room that runs a model: generates and scores
 * through infer/, reports progress in documents of the whole evaluation.
 * Includes eval_i.h and infer.h. */
#include <math.h>
#include <stdlib.h>

#include "eval/eval_i.h"

/* ---- progress ----------------------------------------------------------- */

/* A chunk's progress inside the whole. */
typedef struct relay {
    const eval_options *options;
    const char *subject, *task;
    int64_t docs; /* of the chunk */
} relay;

static void on_progress(void *context, const lori_progress *p)
{
    const relay *r = context;
    int64_t done = r->options->before;
    if (p->total > 0)
        done += r->docs * p->done / p->total;
    base_progress(r->options->ui, "eval", done, r->options->total, "%s %s",
                  r->subject, r->task);
}

static int on_ask(void *context)
{
    const relay *r = context;
    return base_interrupted(r->options->ui);
}

/* ---- generation --------------------------------------------------------- */

typedef struct generating {
    engine_text *texts;
    infer_text **replies; /* [n] decode and watch for stop strings */
    lori_status status;
    lori_error *err;
} generating;

static infer_next on_token(void *context, int64_t tag, int32_t id)
{
    generating *g = context;
    int64_t stop = -1;
    if (!g->status)
        g->status = infer_text_put(g->replies[tag], id, &g->texts[tag].text,
                                   &stop, g->err);
    return g->status   ? INFER_END_CANCEL
           : stop >= 0 ? INFER_END_STOP
                       : INFER_GO_ON;
}

/* A prompt that leaves no room for the answer loses its beginning. */
static void make_request(const eval_subject *s, const eval_task *t,
                         const engine_text *text, int64_t doc, infer_request *r)
{
    int64_t n = (int64_t)text->prompt.n;
    int64_t most = infer_context(s->engine) - t->max_new_tokens;
    int64_t cut = most > 0 && n > most ? n - most : 0;
    size_t n_stops;
    *r =
        (infer_request){.prompt = text->prompt.ids + cut,
                        .n_prompt = n - cut,
                        .max_new_tokens = t->max_new_tokens,
                        .sampling = {.sample = t->temperature > 0,
                                     .temperature = t->temperature,
                                     .top_k = t->top_k,
                                     .top_p = t->top_p,
                                     .seed = (uint64_t)t->seed + (uint64_t)doc},
                        .adapter = s->adapter,
                        .adapter_key = s->adapter_key};
    r->stops = text_stops(s->tok, &n_stops);
    r->n_stops = (int64_t)n_stops;
}

static lori_status prepare(const eval_subject *s, const eval_task *t,
                           generating *g, infer_request *requests, int64_t n,
                           int64_t first_doc, lori_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        BASE_TRY(infer_text_new(s->tok, (const char *const *)t->until,
                                t->n_until, &g->replies[i], err));
        make_request(s, t, &g->texts[i], first_doc + i, &requests[i]);
    }
    return LORI_OK;
}

static lori_status take_results(const generating *g,
                                const infer_result *results, int64_t n,
                                lori_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        engine_text *text = &g->texts[i];
        text->n_new = results[i].n;
        text->stopped = results[i].finish == INFER_STOP;
        BASE_TRY(infer_text_end(g->replies[i], &text->text, err));
        base_str_puts(&text->text, "");
        if (text->text.failed)
            return base_no_memory(err, text->text.len);
    }
    return LORI_OK;
}

lori_status engine_generate(const eval_subject *s, const eval_task *t,
                            engine_text *texts, int64_t n, int64_t first_doc,
                            const eval_options *o, lori_error *err)
{
    relay r = {o, s->name, t->name, n};
    lori_ui ui = {
        .context = &r, .progress = on_progress, .interrupted = on_ask};
    generating g = {.texts = texts, .err = err};
    infer_hooks hooks = {.context = &g, .token = on_token, .ui = &ui};
    infer_request *requests = base_alloc((size_t)n, sizeof *requests);
    infer_result *results = base_alloc((size_t)n, sizeof *results);
    g.replies = base_alloc((size_t)n, sizeof *g.replies);
    lori_status st = LORI_OK;
    if (!requests || !results || !g.replies)
        st = base_no_memory(err, (size_t)n * sizeof *results);
    if (!st)
        st = prepare(s, t, &g, requests, n, first_doc, err);
    if (!st)
        st = infer_run(s->engine, requests, n, &hooks, results, err);
    if (!st)
        st = g.status;
    if (!st)
        st = take_results(&g, results, n, err);
    if (results)
        infer_results_free(results, n);
    for (int64_t i = 0; g.replies && i < n; i++)
        infer_text_free(g.replies[i]);
    free(g.replies);
    free(requests);
    free(results);
    return st;
}

/* ---- scoring ------------------------------------------------------------ */

lori_status engine_score(const eval_subject *s, const eval_task *t,
                         engine_span *spans, int64_t n, int64_t n_docs,
                         const eval_options *o, lori_error *err)
{
    relay r = {o, s->name, t->name, n_docs};
    lori_ui ui = {
        .context = &r, .progress = on_progress, .interrupted = on_ask};
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++)
        total += (int64_t)spans[i].ids.n - spans[i].first;
    infer_score_item *items = base_alloc((size_t)n, sizeof *items);
    double *nll = base_alloc((size_t)total, sizeof *nll), *at = nll;
    lori_status st = LORI_OK;
    if (!items || !nll)
        st = base_no_memory(err, (size_t)total * sizeof *nll);
    for (int64_t i = 0; !st && i < n; i++) {
        items[i] = (infer_score_item){.ids = spans[i].ids.ids,
                                      .n_ids = (int64_t)spans[i].ids.n,
                                      .first = spans[i].first,
                                      .nll = at,
                                      .adapter = s->adapter,
                                      .adapter_key = s->adapter_key};
        at += items[i].n_ids - items[i].first;
    }
    if (!st)
        st = infer_score(s->engine, items, n, &ui, err);
    for (int64_t i = 0; !st && i < n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < items[i].n_ids - items[i].first; k++)
            sum -= items[i].nll[k];
        spans[i].loglikelihood = sum;
        if (!isfinite(sum))
            st = base_fail(err, LORI_NUMERIC,
                           "%s on %s: a log-likelihood is not finite", s->name,
                           t->name);
    }
    free(items);
    free(nll);
    return st;
}
