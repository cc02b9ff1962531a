/* infer_generate.c - continuous batching: running sequences advance together,
 * prompts enter in pieces beside them, a finished one gives its pages to the
 * next. Owns pages and scheduling, not the mathematics.
 *
 * A request gets all the pages it can ever need when it starts, so nothing has
 * to be taken back later. Requests start in their order. */
#include "infer/infer_i.h"

#include <math.h>
#include <stdlib.h>

#define PAGE          64  /* positions a page */
#define PROMPT_TOKENS 512 /* prompt tokens a step, beside the running ones */
#define DEFAULT_BATCH 16
#define CACHE_BYTES   (INT64_C(4) << 30) /* of keys and values, if avoidable */
#define RNG_STREAM    0x696e666572ULL    /* "infer" */

/* A running request. */
typedef struct slot {
    int64_t request;
    int64_t past; /* positions in the cache */
    int64_t feed; /* tokens given to this step */
    int64_t n_pages;
    int32_t *pages; /* [table_ld] */
    base_rng rng;
} slot;

typedef struct engine {
    model *m;
    const model_adapter *ad;
    const model_config *config;
    const infer_request *requests;
    int64_t n, next, done;
    const infer_hooks *hooks;
    infer_result *results;
    base_dtype acc;

    int64_t max_slots, n_slots, step_tokens, max_tokens, table_ld;
    slot *slots; /* the first n_slots run, in the order they started */
    int32_t *free_pages;
    int64_t n_free, n_pages;

    int32_t *ids, *cu, *past, *table, *row;
    int64_t *row_slot;
    void *logits, *scratch;
    float *buffer, *changed; /* [vocab] */
    int32_t *zeros;          /* [vocab] */
    model_run *run;
    model_cache *cache;
} engine;

/* ---- checks and sizes ----------------------------------------------- */

/* Positions a request caches: the last token it makes is never fed. */
static int64_t positions(const infer_request *q)
{
    return q->n_prompt + (q->max_new_tokens > 0 ? q->max_new_tokens - 1 : 0);
}

static int64_t pages_of(const infer_request *q)
{
    return (positions(q) + PAGE - 1) / PAGE;
}

static lori_status check_request(const engine *e, int64_t i, lori_error *err)
{
    const infer_request *q = &e->requests[i];
    int64_t most = e->config->max_positions;
    if (q->n_prompt < 1)
        return base_fail(err, LORI_INVALID,
                         "request %lld: the prompt has no tokens",
                         (long long)i);
    if (q->max_new_tokens < 0)
        return base_fail(err, LORI_INVALID,
                         "request %lld: max_new_tokens %lld is negative",
                         (long long)i, (long long)q->max_new_tokens);
    if (q->n_prompt > most || q->max_new_tokens > most - q->n_prompt)
        return base_fail(err, LORI_INVALID,
                         "request %lld: a prompt of %lld tokens and "
                         "max_new_tokens %lld exceed the model's "
                         "max_position_embeddings %lld; shorten the prompt or "
                         "lower max_new_tokens",
                         (long long)i, (long long)q->n_prompt,
                         (long long)q->max_new_tokens, (long long)most);
    BASE_TRY(infer_check_ids(q->prompt, q->n_prompt, e->config->vocab,
                             "request", i, err));
    lori_status st = infer_sampling_check(&q->sampling, err);
    return st ? base_prefix(err, st, "request %lld", (long long)i) : LORI_OK;
}

static int largest_first(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a < b) - (a > b);
}

/* Pages for the hungriest max_slots requests at once, within CACHE_BYTES, but
 * always for the hungriest one. */
static lori_status count_pages(engine *e, lori_error *err)
{
    int64_t *need = base_alloc((size_t)e->n, sizeof *need);
    if (!need)
        return base_no_memory(err, (size_t)e->n * sizeof *need);
    for (int64_t i = e->next; i < e->n; i++)
        need[i] = pages_of(&e->requests[i]);
    qsort(need, (size_t)e->n, sizeof *need, largest_first);
    e->table_ld = need[0];
    for (int64_t i = 0; i < e->max_slots; i++)
        e->n_pages += need[i];
    free(need);
    const model_config *c = e->config;
    size_t size = base_dtype_bytes(model_get_backend(e->m)->act);
    int64_t page_bytes = INT64_C(2) * PAGE * c->n_layers * c->n_kv_heads *
                         c->head_dim * (int64_t)size;
    int64_t most = CACHE_BYTES / page_bytes;
    if (e->n_pages > most)
        e->n_pages = most > e->table_ld ? most : e->table_ld;
    return LORI_OK;
}

static lori_status take_memory(engine *e, lori_error *err)
{
    size_t slots = (size_t)e->max_slots, vocab = (size_t)e->config->vocab;
    size_t logits = 0;
    bool fits = base_mul(slots * base_dtype_bytes(e->acc), vocab, &logits);
    e->slots = base_alloc(slots, sizeof *e->slots);
    e->free_pages = base_alloc((size_t)e->n_pages, sizeof *e->free_pages);
    e->ids = base_alloc((size_t)e->max_tokens, sizeof *e->ids);
    e->cu = base_alloc(slots + 1, sizeof *e->cu);
    e->past = base_alloc(slots, sizeof *e->past);
    e->row = base_alloc(slots, sizeof *e->row);
    e->row_slot = base_alloc(slots, sizeof *e->row_slot);
    e->table = base_alloc(slots * (size_t)e->table_ld, sizeof *e->table);
    e->logits = fits ? base_alloc(logits, 1) : NULL;
    e->scratch = base_alloc(vocab, sizeof(infer_candidate));
    e->buffer = base_alloc(vocab, sizeof *e->buffer);
    e->changed = base_alloc(vocab, sizeof *e->changed);
    e->zeros = base_alloc(vocab, sizeof *e->zeros);
    if (!e->slots || !e->free_pages || !e->ids || !e->cu || !e->past ||
        !e->row || !e->row_slot || !e->table || !e->logits || !e->scratch ||
        !e->buffer || !e->changed || !e->zeros)
        return base_no_memory(err, logits);
    for (size_t i = 0; i < slots; i++) {
        e->slots[i].pages =
            base_alloc((size_t)e->table_ld, sizeof *e->slots[i].pages);
        if (!e->slots[i].pages)
            return base_no_memory(err, (size_t)e->table_ld * sizeof(int32_t));
    }
    while (e->n_free < e->n_pages) { /* the lowest page is taken first */
        e->free_pages[e->n_free] = (int32_t)(e->n_pages - 1 - e->n_free);
        e->n_free++;
    }
    return LORI_OK;
}

static lori_status engine_init(engine *e, int64_t max_batch, lori_error *err)
{
    int64_t longest = 1;
    for (int64_t i = e->next; i < e->n; i++) {
        BASE_TRY(check_request(e, i, err));
        if (e->requests[i].n_prompt > longest)
            longest = e->requests[i].n_prompt;
    }
    e->max_slots = max_batch > 0 ? max_batch : DEFAULT_BATCH;
    if (e->max_slots > e->n)
        e->max_slots = e->n;
    BASE_TRY(count_pages(e, err));
    int64_t piece = longest < e->step_tokens ? longest : e->step_tokens;
    e->max_tokens = e->max_slots + piece;
    BASE_TRY(take_memory(e, err));
    model_limits limits = {.tokens = e->max_tokens,
                           .seqs = e->max_slots,
                           .rows = e->max_slots,
                           .rank = model_adapter_rank(e->ad)};
    BASE_TRY(model_run_new(e->m, &limits, &e->run, err));
    return model_cache_new(e->m, e->n_pages, PAGE, &e->cache, err);
}

static void engine_fini(engine *e)
{
    model_cache_free(e->cache);
    model_run_free(e->run);
    for (int64_t i = 0; e->slots && i < e->max_slots; i++)
        free(e->slots[i].pages);
    free(e->slots);
    free(e->free_pages);
    free(e->ids);
    free(e->cu);
    free(e->past);
    free(e->row);
    free(e->row_slot);
    free(e->table);
    free(e->logits);
    free(e->scratch);
    free(e->buffer);
    free(e->changed);
    free(e->zeros);
}

/* ---- starting and ending -------------------------------------------- */

static void count_done(engine *e)
{
    e->done++;
    base_progress(e->hooks ? e->hooks->ui : NULL, "generate", e->done, e->n,
                  "%s", "");
}

static lori_status start_requests(engine *e, lori_error *err)
{
    while (e->next < e->n && e->n_slots < e->max_slots) {
        const infer_request *q = &e->requests[e->next];
        infer_result *r = &e->results[e->next];
        int64_t need = pages_of(q);
        if (need > e->n_free)
            break;
        size_t most = (size_t)q->max_new_tokens;
        r->ids = base_alloc(most, sizeof *r->ids);
        r->logprob = base_alloc(most, sizeof *r->logprob);
        size_t top = most * (size_t)q->top_logprobs;
        r->top = base_alloc(top, sizeof *r->top);
        if (!r->ids || !r->logprob || !r->top)
            return base_no_memory(err, most * sizeof *r->logprob);
        r->finish = INFER_LENGTH;
        int64_t request = e->next++;
        if (q->max_new_tokens == 0) {
            count_done(e);
            continue;
        }
        slot *s = &e->slots[e->n_slots++];
        s->request = request;
        s->past = 0;
        s->n_pages = need;
        for (int64_t i = 0; i < need; i++)
            s->pages[i] = e->free_pages[--e->n_free];
        base_rng_start(&s->rng, q->sampling.seed, RNG_STREAM);
    }
    return LORI_OK;
}

/* Its pages go back; the slots behind it move up and keep their order. */
static void end_request(engine *e, int64_t at)
{
    slot ended = e->slots[at];
    for (int64_t i = ended.n_pages; i-- > 0;)
        e->free_pages[e->n_free++] = ended.pages[i];
    for (int64_t i = at + 1; i < e->n_slots; i++)
        e->slots[i - 1] = e->slots[i];
    e->slots[--e->n_slots] = ended; /* keeps its `pages` memory */
    count_done(e);
}

/* ---- one step ------------------------------------------------------- */

/* Which tokens every slot gives: a running one its last, the others as much of
 * their prompts as there is room for. */
static void share_tokens(engine *e)
{
    int64_t room = e->max_tokens;
    for (int64_t i = 0; i < e->n_slots; i++) {
        slot *s = &e->slots[i];
        s->feed = s->past >= e->requests[s->request].n_prompt;
        room -= s->feed;
    }
    for (int64_t i = 0; i < e->n_slots; i++) {
        slot *s = &e->slots[i];
        int64_t left = e->requests[s->request].n_prompt - s->past;
        if (left <= 0)
            continue;
        s->feed = left < room ? left : room;
        room -= s->feed;
    }
}

static model_step build_step(engine *e)
{
    model_step step = {.ids = e->ids,
                       .cu = e->cu,
                       .past = e->past,
                       .table = e->table,
                       .table_ld = e->table_ld,
                       .row = e->row};
    e->cu[0] = 0;
    for (int64_t i = 0; i < e->n_slots; i++) {
        const slot *s = &e->slots[i];
        if (s->feed == 0)
            continue;
        const infer_request *q = &e->requests[s->request];
        const infer_result *r = &e->results[s->request];
        for (int64_t k = 0; k < s->feed; k++)
            e->ids[step.n_tokens + k] = s->past < q->n_prompt
                                            ? q->prompt[s->past + k]
                                            : r->ids[r->n - 1];
        step.n_tokens += s->feed;
        e->past[step.n_seqs] = (int32_t)s->past;
        memcpy(e->table + step.n_seqs * e->table_ld, s->pages,
               (size_t)e->table_ld * sizeof *e->table);
        e->cu[++step.n_seqs] = (int32_t)step.n_tokens;
        if (s->past + s->feed >= q->n_prompt) {
            e->row_slot[step.n_rows] = i;
            e->row[step.n_rows++] = (int32_t)(step.n_tokens - 1);
        }
    }
    return step;
}

/* True when the request ends with this token. */
static bool add_token(engine *e, slot *s, int32_t id, double logprob)
{
    const infer_request *q = &e->requests[s->request];
    infer_result *r = &e->results[s->request];
    r->ids[r->n] = id;
    r->logprob[r->n++] = logprob;
    bool stop = false;
    for (int64_t i = 0; i < q->n_stops; i++)
        stop |= q->stops[i] == id;
    infer_next next = INFER_GO_ON;
    if (e->hooks && e->hooks->token)
        next = e->hooks->token(e->hooks->context, s->request, id);
    if (stop || next == INFER_END_STOP)
        r->finish = INFER_STOP;
    else if (next == INFER_END_CANCEL)
        r->finish = INFER_CANCELLED;
    else
        r->finish = INFER_LENGTH;
    return stop || next != INFER_GO_ON || r->n == q->max_new_tokens;
}

static lori_status take_tokens(engine *e, const model_step *step,
                               lori_error *err)
{
    int64_t vocab = e->config->vocab;
    for (int64_t k = 0; k < step->n_rows; k++) {
        slot *s = &e->slots[e->row_slot[k]];
        const infer_request *q = &e->requests[s->request];
        const float *x = infer_row(e->logits, e->acc, k, vocab, e->buffer);
        double lse = infer_lse(x, vocab);
        if (!isfinite(lse))
            return base_fail(err, LORI_NUMERIC,
                             "request %lld: the logits hold NaN or infinity",
                             (long long)s->request);
        infer_result *r = &e->results[s->request];
        infer_top_tokens(x, vocab, lse, r->top + r->n * q->top_logprobs,
                         q->top_logprobs);
        const float *from = x;
        if (infer_changes_logits(&q->sampling)) {
            memcpy(e->changed, x, (size_t)vocab * sizeof *x);
            infer_process(e->changed, q, r->ids, r->n, e->zeros);
            from = e->changed;
        }
        int32_t id =
            infer_sample(from, vocab, &q->sampling, &s->rng, e->scratch);
        if (add_token(e, s, id, (double)x[id] - lse))
            s->feed = -1; /* ended; removed below, where no index is in use */
    }
    for (int64_t i = e->n_slots; i-- > 0;)
        if (e->slots[i].feed < 0)
            end_request(e, i);
    return LORI_OK;
}

static void drop_cancelled(engine *e)
{
    const infer_hooks *h = e->hooks;
    for (int64_t i = e->n_slots; h && h->cancelled && i-- > 0;)
        if (h->cancelled(h->context, e->slots[i].request)) {
            e->results[e->slots[i].request].finish = INFER_CANCELLED;
            end_request(e, i);
        }
}

static lori_status run_all(engine *e, lori_error *err)
{
    const lori_ui *ui = e->hooks ? e->hooks->ui : NULL;
    for (;;) {
        BASE_TRY(start_requests(e, err));
        if (e->n_slots == 0)
            return LORI_OK;
        if (base_interrupted(ui))
            return base_fail(err, LORI_INTERRUPTED,
                             "generation was interrupted after %lld of %lld "
                             "requests",
                             (long long)e->done, (long long)e->n);
        drop_cancelled(e);
        if (e->n_slots == 0)
            continue;
        share_tokens(e);
        model_step step = build_step(e);
        BASE_TRY(model_forward_cached(e->run, e->cache, &step, e->ad, e->logits,
                                      err));
        for (int64_t i = 0; i < e->n_slots; i++)
            e->slots[i].past += e->slots[i].feed;
        BASE_TRY(take_tokens(e, &step, err));
    }
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

static lori_status run_adapter(engine *e, int64_t max_batch, lori_error *err)
{
    lori_status st = engine_init(e, max_batch, err);
    if (st == LORI_OK)
        st = run_all(e, err);
    if (st == LORI_INTERRUPTED) {
        for (int64_t i = 0; i < e->n_slots; i++)
            e->results[e->slots[i].request].finish = INFER_CANCELLED;
        for (int64_t i = e->next; i < e->n; i++)
            e->results[i].finish = INFER_CANCELLED;
    }
    engine_fini(e);
    return st;
}

lori_status infer_run(infer_engine *e, const infer_request *requests, int64_t n,
                      const infer_hooks *hooks, infer_result *results,
                      lori_error *err)
{
    if (n < 1)
        return LORI_OK;
    memset(results, 0, (size_t)n * sizeof *results);
    lori_status st = LORI_OK;
    for (int64_t i = 0, end = 0; i < n && st == LORI_OK; i = end) {
        while (end < n && requests[end].adapter == requests[i].adapter)
            end++;
        engine part = {.m = e->m,
                       .ad = requests[i].adapter,
                       .config = model_get_config(e->m),
                       .requests = requests,
                       .n = end,
                       .next = i,
                       .done = i,
                       .step_tokens = e->limits.step_tokens > 0
                                          ? e->limits.step_tokens
                                          : PROMPT_TOKENS,
                       .hooks = hooks,
                       .results = results,
                       .acc = model_get_backend(e->m)->acc};
        st = run_adapter(&part, e->limits.max_batch, err);
    }
    if (st != LORI_OK && st != LORI_INTERRUPTED)
        infer_results_free(results, n);
    return st;
}

lori_status infer_engine_new(model *m, const infer_limits *limits,
                             infer_engine **out, lori_error *err)
{
    *out = base_alloc(1, sizeof **out);
    if (!*out)
        return base_no_memory(err, sizeof **out);
    **out = (infer_engine){m, limits ? *limits : (infer_limits){0}};
    return LORI_OK;
}

void infer_engine_free(infer_engine *e)
{
    free(e);
}

int64_t infer_context(const infer_engine *e)
{
    int64_t all = model_get_config(e->m)->max_positions;
    int64_t own = e->limits.context;
    return own > 0 && own < all ? own : all;
}
