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
    const eval_task *task;
    text_stream **streams; /* [n], only with stop strings */
    base_str *texts;       /* [n] text so far */
    lori_status status;
    lori_error *err;
} generating;

/* Where the earliest stop string begins in text[from..n); n when none does. */
static size_t find_stop(const eval_task *task, const base_str *text,
                        size_t from)
{
    size_t at = text->len;
    for (int64_t i = 0; text->len && i < task->n_until; i++) {
        const char *hit = memmem(text->s + from, text->len - from,
                                 task->until[i], strlen(task->until[i]));
        if (hit && (size_t)(hit - text->s) < at)
            at = (size_t)(hit - text->s);
    }
    return at;
}

static int on_token(void *context, int64_t request, int32_t id)
{
    generating *g = context;
    base_str *text = &g->texts[request];
    size_t before = text->len, longest = 0;
    if (g->status)
        return 1;
    g->status = text_stream_put(g->streams[request], id, text, g->err);
    for (int64_t i = 0; i < g->task->n_until; i++) {
        size_t n = strlen(g->task->until[i]);
        longest = n > longest ? n : longest;
    }
    size_t from = before > longest ? before - longest : 0;
    return g->status || find_stop(g->task, text, from) < text->len;
}

static lori_status open_streams(generating *g, const eval_subject *s, int64_t n,
                                lori_error *err)
{
    g->streams = base_alloc((size_t)n, sizeof *g->streams);
    g->texts = base_alloc((size_t)n, sizeof *g->texts);
    if (!g->streams || !g->texts)
        return base_no_memory(err, (size_t)n * sizeof *g->texts);
    for (int64_t i = 0; i < n; i++)
        BASE_TRY(
            text_stream_new(s->tok, TEXT_SKIP_SPECIAL, &g->streams[i], err));
    return LORI_OK;
}

static void close_streams(generating *g, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (g->streams)
            text_stream_free(g->streams[i]);
        if (g->texts)
            base_str_free(&g->texts[i]);
    }
    free(g->streams);
    free(g->texts);
}

/* A prompt that leaves no room for the answer loses its beginning. */
static void make_request(const eval_subject *s, const eval_task *t,
                         const engine_text *text, int64_t doc, infer_request *r)
{
    int64_t room = model_get_config(s->model)->max_positions;
    int64_t n = (int64_t)text->prompt.n, most = room - t->max_new_tokens;
    int64_t cut = most > 0 && n > most ? n - most : 0;
    *r = (infer_request){
        .prompt = text->prompt.ids + cut,
        .n_prompt = n - cut,
        .max_new_tokens = t->max_new_tokens,
        .sampling = {.sample = t->temperature > 0,
                     .temperature = t->temperature,
                     .top_k = t->top_k,
                     .top_p = t->top_p,
                     .seed = (uint64_t)t->seed + (uint64_t)doc}};
    r->stops = text_stops(s->tok, &r->n_stops);
}

static lori_status take_result(const eval_subject *s, const eval_task *t,
                               const infer_result *result, engine_text *text,
                               lori_error *err)
{
    text->n_new = result->n;
    text->stopped = result->finish != INFER_LENGTH;
    BASE_TRY(text_decode(s->tok, result->ids, (size_t)result->n,
                         TEXT_SKIP_SPECIAL, &text->text, err));
    base_str_puts(&text->text, "");
    if (text->text.failed)
        return base_no_memory(err, (size_t)result->n);
    text->text.len = find_stop(t, &text->text, 0);
    text->text.s[text->text.len] = '\0';
    return LORI_OK;
}

lori_status engine_generate(const eval_subject *s, const eval_task *t,
                            engine_text *texts, int64_t n, int64_t first_doc,
                            const eval_options *o, lori_error *err)
{
    relay r = {o, s->name, t->name, n};
    lori_ui ui = {
        .context = &r, .progress = on_progress, .interrupted = on_ask};
    generating g = {.task = t, .err = err};
    infer_hooks hooks = {.context = &g, .ui = &ui};
    infer_request *requests = base_alloc((size_t)n, sizeof *requests);
    infer_result *results = base_alloc((size_t)n, sizeof *results);
    lori_status st = LORI_OK;
    if (!requests || !results)
        st = base_no_memory(err, (size_t)n * sizeof *results);
    if (!st && t->n_until > 0) {
        st = open_streams(&g, s, n, err);
        hooks.token = on_token;
    }
    for (int64_t i = 0; !st && i < n; i++)
        make_request(s, t, &texts[i], first_doc + i, &requests[i]);
    if (!st)
        st = infer_generate(s->model, s->adapter, requests, n, o->batch_size,
                            &hooks, results, err);
    if (!st)
        st = g.status;
    for (int64_t i = 0; !st && i < n; i++)
        st = take_result(s, t, &results[i], &texts[i], err);
    if (results)
        infer_results_free(results, n);
    close_streams(&g, n);
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
                                      .nll = at};
        at += items[i].n_ids - items[i].first;
    }
    if (!st)
        st = infer_score(s->model, s->adapter, items, n, 0, &ui, err);
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
