/* infer_engine.c - an engine's memory, and requests on their way in and out.
 *
 * The rule about memory: a request starts when all pages that it can ever need
 * (less those it shares) can be had, counting what running ones were promised;
 * until then it waits, and those behind it wait with it. So nothing that runs
 * ever has to stop for want of a page. */
#include "infer/infer_i.h"

#include <stdlib.h>

#define DEFAULT_BATCH 16
#define SCORE_BATCH   64 /* texts to score are short and end soon */
#define STEP_TOKENS   1024
#define CACHE_BYTES   (INT64_C(4) << 30)

/* ---- memory ------------------------------------------------------------- */

/* As many pages as the batch can use, within cache_bytes. */
static lori_status set_sizes(infer_engine *e, const infer_limits *l,
                             int64_t *n_pages, lori_error *err)
{
    const model_config *c = e->config;
    int64_t position = model_cache_position_bytes(e->m);
    int64_t bytes = l->cache_bytes > 0 ? l->cache_bytes : CACHE_BYTES;
    int64_t most = bytes / position / INFER_PAGE;
    e->max_batch = l->max_batch > 0 ? l->max_batch : DEFAULT_BATCH;
    e->step_tokens = l->step_tokens > 0 ? l->step_tokens : STEP_TOKENS;
    if (e->step_tokens < INFER_PAGE)
        e->step_tokens = INFER_PAGE;
    e->context = c->max_positions;
    if (l->context > 0)
        e->context = infer_least(e->context, l->context);
    if (most < 1)
        return base_fail(err, LORI_INVALID,
                         "cache_bytes %lld hold no %d positions of %lld bytes "
                         "each",
                         (long long)bytes, INFER_PAGE, (long long)position);
    if (e->max_batch > 4096 || e->step_tokens > 1 << 20)
        return base_fail(err, LORI_INVALID,
                         "max_batch %lld is over 4096 or step_tokens %lld over "
                         "1048576",
                         (long long)e->max_batch, (long long)e->step_tokens);
    *n_pages = infer_least(most, INT32_MAX / INFER_PAGE);
    if (infer_pages_of(e->context) <= *n_pages / e->max_batch)
        *n_pages = infer_pages_of(e->context) * e->max_batch;
    e->context = infer_least(e->context, *n_pages * INFER_PAGE);
    e->max_slots = e->max_batch > SCORE_BATCH ? e->max_batch : SCORE_BATCH;
    e->max_rows = e->max_batch;
    if (e->draft_tokens >= 0 && e->max_rows < INFER_DRAFT_ROWS)
        e->max_rows =
            infer_least(e->max_batch * (1 + INFER_DRAFT), INFER_DRAFT_ROWS);
    e->max_tokens = e->max_batch + e->step_tokens;
    e->table_ld = infer_pages_of(e->context);
    return LORI_OK;
}

static lori_status take_choosers(infer_engine *e, lori_error *err)
{
    size_t vocab = (size_t)e->config->vocab;
    int64_t n = infer_least(model_get_backend(e->m)->n_threads, e->max_batch);
    e->choosers = base_alloc((size_t)n, sizeof *e->choosers);
    if (!e->choosers)
        return base_no_memory(err, (size_t)n * sizeof *e->choosers);
    for (e->n_choosers = 0; e->n_choosers < n;) {
        infer_chooser *c = &e->choosers[e->n_choosers++];
        c->scratch = base_alloc(vocab, sizeof *c->scratch);
        c->buffer = base_alloc(vocab, sizeof *c->buffer);
        c->changed = base_alloc(vocab, sizeof *c->changed);
        c->zeros = base_alloc(vocab, sizeof *c->zeros);
        if (!c->scratch || !c->buffer || !c->changed || !c->zeros)
            return base_no_memory(err, vocab * sizeof *c->scratch);
    }
    return LORI_OK;
}

static void free_choosers(infer_engine *e)
{
    for (int i = 0; i < e->n_choosers; i++) {
        free(e->choosers[i].scratch);
        free(e->choosers[i].buffer);
        free(e->choosers[i].changed);
        free(e->choosers[i].zeros);
    }
    free(e->choosers);
}

static lori_status take_memory(infer_engine *e, lori_error *err)
{
    size_t slots = (size_t)e->max_slots, tokens = (size_t)e->max_tokens;
    size_t vocab = (size_t)e->config->vocab;
    size_t row = vocab * base_dtype_bytes(e->acc);
    e->slots = base_alloc(slots, sizeof *e->slots);
    e->ids = base_alloc(tokens, sizeof *e->ids);
    e->cu = base_alloc(slots + 1, sizeof *e->cu);
    e->past = base_alloc(slots, sizeof *e->past);
    e->table = base_alloc(slots * (size_t)e->table_ld, sizeof *e->table);
    e->row = base_alloc(tokens, sizeof *e->row);
    e->target = base_alloc(tokens, sizeof *e->target);
    e->segments = base_alloc(slots, sizeof *e->segments);
    e->order = base_alloc(slots, sizeof *e->order);
    e->nll = base_alloc(tokens, sizeof *e->nll);
    e->lse = base_alloc((size_t)e->max_rows, sizeof *e->lse);
    e->logits = base_alloc((size_t)e->max_rows, row);
    if (!e->slots || !e->ids || !e->cu || !e->past || !e->table || !e->row ||
        !e->target || !e->segments || !e->order || !e->nll || !e->lse ||
        !e->logits)
        return base_no_memory(err, (size_t)e->max_rows * row);
    for (size_t i = 0; i < slots; i++) {
        size_t ld = (size_t)e->table_ld;
        e->slots[i].pages = base_alloc(ld, sizeof *e->slots[i].pages);
        if (!e->slots[i].pages)
            return base_no_memory(err, ld * sizeof(int32_t));
    }
    return take_choosers(e, err);
}

lori_status infer_engine_new(model *m, const infer_limits *limits,
                             infer_engine **out, lori_error *err)
{
    *out = NULL;
    infer_engine *e = base_alloc(1, sizeof *e);
    if (!e)
        return base_no_memory(err, sizeof *e);
    *e = (infer_engine){.m = m,
                        .config = model_get_config(m),
                        .acc = model_get_backend(m)->acc,
                        .compact_bytes = limits ? limits->compact_bytes : 0,
                        .draft_tokens = limits ? limits->draft_tokens : 0,
                        .run_rank = -1};
    if (model_get_backend(m)->round_rows) /* a row's bits go by its company */
        e->draft_tokens = -1;
    int64_t n_pages = 0;
    const infer_limits none = {0};
    lori_status st = set_sizes(e, limits ? limits : &none, &n_pages, err);
    if (!st)
        st = infer_pages_init(&e->pages, n_pages, err);
    if (!st)
        st = take_memory(e, err);
    if (!st)
        st = model_cache_new(m, n_pages, INFER_PAGE, &e->cache, err);
    if (st)
        infer_engine_free(e);
    else
        *out = e;
    return st;
}

void infer_engine_free(infer_engine *e)
{
    if (!e)
        return;
    infer_clear(e);
    model_cache_free(e->cache);
    model_run_free(e->run);
    infer_pages_fini(&e->pages);
    for (int64_t i = 0; e->slots && i < e->max_slots; i++)
        free(e->slots[i].pages);
    free(e->slots);
    free(e->ids);
    free(e->cu);
    free(e->past);
    free(e->table);
    free(e->row);
    free(e->target);
    free(e->segments);
    free(e->order);
    free(e->nll);
    free(e->lse);
    free(e->logits);
    free_choosers(e);
    free(e);
}

int64_t infer_context(const infer_engine *e)
{
    return e->context;
}

/* ---- in ----------------------------------------------------------------- */

lori_status infer_check_ids(const int32_t *ids, int64_t n, int64_t vocab,
                            const char *what, int64_t index, lori_error *err)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return base_fail(
                err, LORI_INVALID,
                "%s %lld: token %lld is id %d, outside the model's "
                "vocabulary of %lld",
                what, (long long)index, (long long)i, (int)ids[i],
                (long long)vocab);
    return LORI_OK;
}

lori_status infer_check_request(const infer_engine *e, const infer_request *q,
                                lori_error *err)
{
    int64_t vocab = e->config->vocab;
    long long tag = (long long)q->tag;
    if (q->n_prompt < 1)
        return base_fail(err, LORI_INVALID,
                         "request %lld: the prompt has no tokens", tag);
    if (q->max_new_tokens < 0 || q->top_logprobs < 0 || q->top_logprobs > vocab)
        return base_fail(err, LORI_INVALID,
                         "request %lld: max_new_tokens %lld or top_logprobs "
                         "%lld is negative or over the vocabulary",
                         tag, (long long)q->max_new_tokens,
                         (long long)q->top_logprobs);
    if (q->n_prompt > e->context ||
        q->max_new_tokens > e->context - q->n_prompt)
        return base_fail(err, LORI_INVALID,
                         "request %lld: a prompt of %lld tokens and "
                         "max_new_tokens %lld exceed the context of %lld "
                         "(max_position_embeddings %lld); shorten the prompt "
                         "or lower max_new_tokens",
                         tag, (long long)q->n_prompt,
                         (long long)q->max_new_tokens, (long long)e->context,
                         (long long)e->config->max_positions);
    BASE_TRY(
        infer_check_ids(q->prompt, q->n_prompt, vocab, "request", q->tag, err));
    for (int64_t i = 0; i < q->sampling.n_bias; i++)
        BASE_TRY(infer_check_ids(&q->sampling.bias[i].id, 1, vocab,
                                 "logit bias of request", q->tag, err));
    lori_status st = infer_sampling_check(&q->sampling, err);
    return st ? base_prefix(err, st, "request %lld", tag) : LORI_OK;
}

lori_status infer_enqueue(infer_engine *e, const infer_job *job,
                          lori_error *err)
{
    infer_job *copy = base_alloc(1, sizeof *copy);
    if (!copy)
        return base_no_memory(err, sizeof *copy);
    *copy = *job;
    if (e->last)
        e->last->next = copy;
    else
        e->first = copy;
    e->last = copy;
    e->n_waiting++;
    int64_t rank = model_adapter_rank(job->request.adapter);
    e->max_rank = rank > e->max_rank ? rank : e->max_rank;
    return LORI_OK;
}

lori_status infer_submit(infer_engine *e, const infer_request *q,
                         infer_result *result, lori_error *err)
{
    *result = (infer_result){.finish = INFER_CANCELLED};
    BASE_TRY(infer_check_request(e, q, err));
    /* The last token of the reply is never fed. */
    int64_t fed = q->max_new_tokens > 0 ? q->max_new_tokens - 1 : 0;
    infer_job job = {.request = *q,
                     .result = result,
                     .prompt = q->prompt,
                     .n_prompt = q->n_prompt,
                     .positions = q->n_prompt + fed};
    return infer_enqueue(e, &job, err);
}

int64_t infer_pending(const infer_engine *e)
{
    return e->n_slots + e->n_waiting;
}

/* ---- out ---------------------------------------------------------------- */

void infer_end_slot(infer_engine *e, int64_t at)
{
    infer_slot ended = e->slots[at];
    e->promised -= infer_pages_of(ended.job->positions) - ended.n_pages;
    for (int64_t i = ended.n_pages; i-- > 0;)
        infer_pages_drop(&e->pages, ended.pages[i]);
    for (int64_t i = at + 1; i < e->n_slots; i++)
        e->slots[i - 1] = e->slots[i];
    e->slots[--e->n_slots] = ended; /* keeps its `pages` memory */
    free(ended.job);
}

void infer_clear(infer_engine *e)
{
    while (e->n_slots > 0)
        infer_end_slot(e, e->n_slots - 1);
    while (e->first) {
        infer_job *next = e->first->next;
        free(e->first);
        e->first = next;
    }
    e->last = NULL;
    e->n_waiting = 0;
}

lori_status infer_forget(infer_engine *e, lori_error *err)
{
    int64_t n = e->pages.n;
    infer_clear(e);
    infer_pages_fini(&e->pages);
    return infer_pages_init(&e->pages, n, err);
}

void infer_results_free(infer_result *results, int64_t n)
{
    for (int64_t i = 0; results && i < n; i++) {
        free(results[i].ids);
        free(results[i].logprob);
        free(results[i].top);
        results[i] = (infer_result){0};
    }
}

/* ---- a whole list ------------------------------------------------------- */

/* infer_run's own hooks: the caller's, and counting for the progress. */
typedef struct whole_run {
    const infer_hooks *hooks;
    int64_t done, n;
} whole_run;

static infer_next pass_token(void *context, int64_t tag, int32_t id)
{
    const infer_hooks *h = ((whole_run *)context)->hooks;
    return h && h->token ? h->token(h->context, tag, id) : INFER_GO_ON;
}

static bool pass_cancelled(void *context, int64_t tag)
{
    const infer_hooks *h = ((whole_run *)context)->hooks;
    return h && h->cancelled && h->cancelled(h->context, tag);
}

static void count_done(void *context, int64_t tag)
{
    whole_run *w = context;
    const infer_hooks *h = w->hooks;
    w->done++;
    base_progress(h ? h->ui : NULL, "generate", w->done, w->n, "%s", "");
    if (h && h->done)
        h->done(h->context, tag);
}

static lori_status submit_all(infer_engine *e, const infer_request *requests,
                              int64_t n, infer_result *results, lori_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        infer_request q = requests[i];
        q.tag = i;
        BASE_TRY(infer_submit(e, &q, &results[i], err));
    }
    return LORI_OK;
}

lori_status infer_run(infer_engine *e, const infer_request *requests, int64_t n,
                      const infer_hooks *hooks, infer_result *results,
                      lori_error *err)
{
    if (n < 1)
        return LORI_OK;
    memset(results, 0, (size_t)n * sizeof *results);
    if (infer_pending(e))
        return base_fail(err, LORI_INVALID,
                         "the engine has requests of infer_submit");
    whole_run w = {.hooks = hooks, .n = n};
    const infer_hooks own = {.context = &w,
                             .token = pass_token,
                             .cancelled = pass_cancelled,
                             .done = count_done};
    lori_status st = submit_all(e, requests, n, results, err);
    while (!st && infer_pending(e)) {
        if (base_interrupted(hooks ? hooks->ui : NULL))
            st = base_fail(err, LORI_INTERRUPTED,
                           "generation was interrupted after %lld of %lld "
                           "requests",
                           (long long)w.done, (long long)n);
        else
            st = infer_step(e, &own, err);
    }
    infer_clear(e);
    if (st && st != LORI_INTERRUPTED)
        infer_results_free(results, n);
    return st;
}
