/* infer_score.c - log-probabilities of given texts, in packed batches without
 * padding. Owns the packing; the model owns the numbers. */
#include "infer/infer_i.h"

#include <stdlib.h>

#define DEFAULT_TOKENS 4096

/* Items [first, end) that share a pass. */
typedef struct batch {
    int64_t first, end, tokens, rows;
} batch;

typedef struct scorer {
    model *m;
    infer_score_item *items;
    int64_t n, max_tokens;
    model_run *run;
    int32_t *ids, *cu, *row, *target;
    double *nll;
} scorer;

/* The last token is only a target: it is not fed. */
static int64_t fed(const infer_score_item *item)
{
    return item->first < item->n_ids ? item->n_ids - 1 : 0;
}

static lori_status check_item(const scorer *s, int64_t i, lori_error *err)
{
    const infer_score_item *item = &s->items[i];
    const model_config *c = model_get_config(s->m);
    if (item->first < 1 || item->first > item->n_ids)
        return base_fail(
            err, LORI_INVALID,
            "text %lld: cannot score tokens from %lld of %lld; the "
            "first token has nothing before it",
            (long long)i, (long long)item->first, (long long)item->n_ids);
    if (fed(item) > c->max_positions)
        return base_fail(err, LORI_INVALID,
                         "text %lld: %lld tokens exceed the model's "
                         "max_position_embeddings %lld; shorten it",
                         (long long)i, (long long)item->n_ids,
                         (long long)c->max_positions);
    return infer_check_ids(item->ids, item->n_ids, c->vocab, "text", i, err);
}

/* The batch that starts at item `first`: as many as fit, at least one. */
static batch next_batch(const scorer *s, int64_t first)
{
    batch b = {.first = first, .end = first};
    while (b.end < s->n) {
        const infer_score_item *item = &s->items[b.end];
        if (b.end > first && (b.tokens + fed(item) > s->max_tokens ||
                              item->adapter != s->items[first].adapter))
            break;
        b.tokens += fed(item);
        b.rows += item->n_ids - item->first;
        b.end++;
    }
    return b;
}

static lori_status scorer_init(scorer *s, lori_error *err)
{
    model_limits limits = {0};
    for (int64_t i = 0; i < s->n; i++) {
        int64_t rank = model_adapter_rank(s->items[i].adapter);
        limits.rank = rank > limits.rank ? rank : limits.rank;
        BASE_TRY(check_item(s, i, err));
    }
    for (int64_t i = 0; i < s->n;) {
        batch b = next_batch(s, i);
        limits.tokens = b.tokens > limits.tokens ? b.tokens : limits.tokens;
        limits.rows = b.rows > limits.rows ? b.rows : limits.rows;
        limits.seqs = b.end - i > limits.seqs ? b.end - i : limits.seqs;
        i = b.end;
    }
    if (limits.rows == 0)
        return LORI_OK;
    size_t tokens = (size_t)limits.tokens, rows = (size_t)limits.rows;
    s->ids = base_alloc(tokens, sizeof *s->ids);
    s->cu = base_alloc((size_t)limits.seqs + 1, sizeof *s->cu);
    s->row = base_alloc(rows, sizeof *s->row);
    s->target = base_alloc(rows, sizeof *s->target);
    s->nll = base_alloc(rows, sizeof *s->nll);
    if (!s->ids || !s->cu || !s->row || !s->target || !s->nll)
        return base_no_memory(err, tokens * sizeof *s->ids);
    return model_run_new(s->m, &limits, &s->run, err);
}

static void scorer_fini(scorer *s)
{
    model_run_free(s->run);
    free(s->ids);
    free(s->cu);
    free(s->row);
    free(s->target);
    free(s->nll);
}

static lori_status score_batch(scorer *s, const batch *b, lori_error *err)
{
    if (b->rows == 0) /* nothing to score: there may be no memory at all */
        return LORI_OK;
    model_batch mb = {
        .ids = s->ids, .cu = s->cu, .row = s->row, .target = s->target};
    s->cu[0] = 0;
    for (int64_t i = b->first; i < b->end; i++) {
        const infer_score_item *item = &s->items[i];
        if (fed(item) == 0)
            continue;
        memcpy(s->ids + mb.n_tokens, item->ids,
               (size_t)fed(item) * sizeof *s->ids);
        for (int64_t t = item->first; t < item->n_ids; t++) {
            s->row[mb.n_rows] = (int32_t)(mb.n_tokens + t - 1);
            s->target[mb.n_rows++] = item->ids[t];
        }
        mb.n_tokens += fed(item);
        s->cu[++mb.n_seqs] = (int32_t)mb.n_tokens;
    }
    double loss = 0;
    BASE_TRY(model_loss(s->run, &mb, s->items[b->first].adapter, false, s->nll,
                        &loss, err));
    const double *nll = s->nll;
    for (int64_t i = b->first; i < b->end; i++) {
        infer_score_item *item = &s->items[i];
        size_t rows = (size_t)(item->n_ids - item->first);
        if (rows > 0) /* else its nll may be NULL */
            memcpy(item->nll, nll, rows * sizeof *nll);
        nll += rows;
    }
    return LORI_OK;
}

lori_status infer_score(infer_engine *e, infer_score_item *items, int64_t n,
                        const lori_ui *ui, lori_error *err)
{
    int64_t most = e->limits.step_tokens;
    scorer s = {.m = e->m,
                .items = items,
                .n = n,
                .max_tokens = most > 0 ? most : DEFAULT_TOKENS};
    lori_status st = scorer_init(&s, err);
    for (int64_t i = 0; st == LORI_OK && i < n;) {
        batch b = next_batch(&s, i);
        if (base_interrupted(ui)) {
            st = base_fail(err, LORI_INTERRUPTED,
                           "scoring was interrupted after %lld of %lld texts",
                           (long long)i, (long long)n);
            break;
        }
        st = score_batch(&s, &b, err);
        i = b.end;
        if (st == LORI_OK)
            base_progress(ui, "score", i, n, "%s", "");
    }
    scorer_fini(&s);
    return st;
}
