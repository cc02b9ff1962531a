/* run.c - the workspace of passes. layout() says once where everything lies:
 * it runs without memory to count (model_run_bytes) and again to place.
 * Owns the device block and the host staging. May include base, backend,
 * model. Source: spec/engine.md 1.2-1.4 (what is kept, what is shared). */
#include <stdlib.h>

#include "model/model_i.h"

/* Logits of one chunk take about this much, but never fewer rows than repay
 * the reading of the head's weight twice. */
#define LOGITS_BYTES ((int64_t)64 << 20)
#define MIN_CHUNK    256

int64_t model_rows(const backend *be, int64_t n)
{
    return be->round_rows ? be->round_rows(n) : n;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Multiplies with the sizes that a plan takes: rows of `cols` values. */
static void *take(base_plan *plan, int64_t rows, int64_t cols, base_dtype dtype)
{
    size_t n;
    if (!base_mul((size_t)rows, (size_t)cols, &n)) {
        plan->overflow = true;
        return NULL;
    }
    return base_plan_take(plan, n, base_dtype_bytes(dtype));
}

/* Columns to take for a matrix that products read. */
static int64_t apart(const model_run *run, int64_t cols)
{
    return backend_row_stride(run->m->be->act, cols);
}

static void layout_inputs(const model_run *run, base_plan *plan,
                          model_inputs *in)
{
    in->ids = take(plan, run->N, 1, BASE_I32);
    in->pos = take(plan, run->N, 1, BASE_I32);
    in->cu_q = take(plan, run->S + 1, 1, BASE_I32);
    in->cu_k = take(plan, run->S + 1, 1, BASE_I32);
    in->row = take(plan, run->M, 1, BASE_I32);
    in->target = take(plan, run->M, 1, BASE_I32);
    in->weight = take(plan, run->M, 1, run->m->be->acc);
}

/* What forward leaves for backward, for every layer of its own. */
static void layout_kept(model_run *run, base_plan *plan, int64_t l,
                        const model_kept *shared, model_kept *k)
{
    const model_config *c = &run->m->config;
    base_dtype act = run->m->be->act, acc = run->m->be->acc;
    int64_t q = model_q_width(c), kv = model_kv_width(c), n = run->N;
    int64_t rows = l + 1 == c->n_layers ? run->M : n; /* from o_proj on */
    model_schedule s = model_schedule_of(&run->limits, l);
    *k = *shared;
    k->x = take(plan, n, c->d, act);
    k->x2 = take(plan, rows, c->d, act);
    k->rstd1 = take(plan, n, 1, acc);
    k->rstd2 = take(plan, rows, 1, acc);
    for (int r = 0; r < MODEL_ROLES; r++)
        k->h[r] = take(plan, r < ROLE_O ? n : rows, run->limits.rank, act);
    if (s != MODEL_KEEP_INPUTS) {
        k->qkv = take(plan, n, q + 2 * kv, act);
        k->o = take(plan, n, apart(run, q), act);
        k->lse = take(plan, n, c->n_heads, acc);
    }
    if (s == MODEL_KEEP_ALL)
        k->gu = take(plan, rows, apart(run, 2 * c->ffn), act);
}

/* What the layers that do not keep it of their own share. */
static model_kept layout_shared(model_run *run, base_plan *plan)
{
    const model_config *c = &run->m->config;
    base_dtype act = run->m->be->act, acc = run->m->be->acc;
    int64_t q = model_q_width(c), kv = model_kv_width(c), n = run->N;
    bool backward = run->limits.backward;
    /* the last layer keeps least */
    model_schedule s = backward
                           ? model_schedule_of(&run->limits, c->n_layers - 1)
                           : MODEL_KEEP_INPUTS;
    model_kept shared = {0};
    if (s == MODEL_KEEP_INPUTS) {
        shared.qkv = take(plan, n, q + 2 * kv, act);
        shared.o = take(plan, n, apart(run, q), act);
        shared.lse = backward ? take(plan, n, c->n_heads, acc) : NULL;
    }
    if (s != MODEL_KEEP_ALL)
        shared.gu = take(plan, n, apart(run, 2 * c->ffn), act);
    if (!backward) { /* the residual stream stays in one place */
        shared.x = take(plan, n, c->d, act);
        for (int r = 0; r < MODEL_ROLES; r++)
            shared.h[r] = r < MODEL_TOGETHER
                              ? take(plan, n, run->limits.rank, act)
                              : shared.h[r % MODEL_TOGETHER];
    }
    shared.x2 = shared.y = shared.x;
    return shared;
}

static void layout_blocks(model_run *run, base_plan *plan, model_kept shared,
                          model_kept *kept)
{
    const model_config *c = &run->m->config;
    bool backward = run->limits.backward;
    void *last = take(plan, run->M, c->d, run->m->be->act);
    for (int64_t l = 0; l < c->n_layers; l++) {
        model_kept k = shared;
        if (backward)
            layout_kept(run, plan, l, &shared, &k);
        if (l > 0 && kept)
            kept[l - 1].y = k.x;
        if (l + 1 == c->n_layers) {
            k.y = last;
            k.x2 = backward ? k.x2 : last;
        }
        if (kept)
            kept[l] = k;
    }
}

static void layout(model_run *run, base_plan *plan, model_kept *kept,
                   model_bytes *part)
{
    const model_config *c = &run->m->config;
    base_dtype act = run->m->be->act, acc = run->m->be->acc;
    int64_t q = model_q_width(c), kv = model_kv_width(c);
    layout_inputs(run, plan, &run->device);
    run->inputs_bytes = plan->used; /* they come first */
    run->cos = take(plan, run->limits.tokens, c->head_dim / 2, acc);
    run->sin = take(plan, run->limits.tokens, c->head_dim / 2, acc);
    size_t start = plan->used;
    model_kept shared = layout_shared(run, plan);
    part->live = plan->used - start;
    layout_blocks(run, plan, shared, kept);
    part->kept = plan->used - start - part->live;
    start = plan->used;
    run->logits =
        take(plan, run->chunk, backend_row_stride(acc, c->vocab), acc);
    part->logits = plan->used - start;
    run->t = take(plan, run->N, apart(run, c->d), act);
    run->wide =
        take(plan, run->N, larger(apart(run, c->ffn), apart(run, q)), act);
    run->label_o = take(plan, run->M, apart(run, q), act);
    run->nll = take(plan, run->M, 1, acc);
    run->nll_lse = take(plan, run->M, 1, acc);
    run->rstd = take(plan, run->M, 1, acc);
    if (run->limits.backward) {
        run->dres = take(plan, run->N, c->d, acc);
        run->dxn = take(plan, run->N, c->d, acc);
        run->dqkv = take(plan, run->N,
                         larger(apart(run, q + 2 * kv), apart(run, c->d)), act);
        run->delta = take(plan, run->N, c->n_heads, acc);
        run->dh = take(plan, MODEL_TOGETHER * run->N, run->limits.rank, act);
        run->grad = take(plan, run->limits.rank,
                         larger(larger(c->ffn, q), larger(c->d, kv)), acc);
    }
    part->total = plan->overflow ? SIZE_MAX : plan->used;
    part->scratch = plan->used - part->live - part->kept - part->logits;
}

/* Sizes from limits; false when they make no sense. */
static bool set_sizes(model_run *run, const model *m,
                      const model_limits *limits)
{
    if (limits->tokens < 1 || limits->tokens > INT32_MAX - 64 ||
        limits->seqs < 1 || limits->rows < 0 || limits->rank < 0 ||
        limits->rank > INT32_MAX)
        return false;
    run->m = (model *)(uintptr_t)m;
    run->limits = *limits;
    run->limits.rows = smaller(limits->rows, limits->tokens);
    run->N = model_rows(m->be, limits->tokens);
    run->M = model_rows(m->be, run->limits.rows);
    run->S = smaller(limits->seqs, limits->tokens);
    int64_t row = m->config.vocab * (int64_t)base_dtype_bytes(m->be->acc);
    int64_t fit = LOGITS_BYTES / row / 64 * 64;
    run->chunk = smaller(larger(fit, MIN_CHUNK), run->M);
    return true;
}

void model_run_parts(const model *m, const model_limits *limits,
                     model_bytes *out)
{
    model_run run = {0};
    base_plan plan = {0};
    *out = (model_bytes){.total = SIZE_MAX};
    if (set_sizes(&run, m, limits))
        layout(&run, &plan, NULL, out);
}

size_t model_run_bytes(const model *m, const model_limits *limits)
{
    model_bytes part;
    model_run_parts(m, limits, &part);
    return part.total;
}

/* ---- schedules ------------------------------------------------------- */

model_schedule model_schedule_of(const model_limits *limits, int64_t layer)
{
    if (layer < limits->keep_all)
        return MODEL_KEEP_ALL;
    /* not a sum: both may be as large as they like */
    if (layer - limits->keep_all < limits->keep_no_mlp)
        return MODEL_KEEP_NO_MLP;
    return MODEL_KEEP_INPUTS;
}

/* The largest *count for which the workspace fits; 0 when none does. From
 * above, because the last layer needs less when no layer recomputes. */
static bool fit(const model *m, size_t budget, model_limits *limits,
                int64_t *count, int64_t most)
{
    for (*count = most; *count > 0; --*count)
        if (model_run_bytes(m, limits) <= budget)
            return true;
    return model_run_bytes(m, limits) <= budget;
}

bool model_limits_fit(const model *m, size_t budget, model_limits *limits)
{
    int64_t layers = m->config.n_layers;
    limits->keep_no_mlp = 0;
    fit(m, budget, limits, &limits->keep_all, layers);
    return fit(m, budget, limits, &limits->keep_no_mlp,
               layers - limits->keep_all);
}

/* ---- a workspace ----------------------------------------------------- */

static lori_status take_staging(model_run *run, lori_error *err)
{
    backend *be = run->m->be;
    base_plan plan = {0};
    layout_inputs(run, &plan, &run->host);
    take(&plan, run->M, 1, be->acc);
    run->staging_bytes = plan.used;
    run->staging = be->host_alloc(be, plan.used);
    if (!run->staging)
        return base_no_memory(err, plan.used);
    plan = (base_plan){.base = run->staging};
    layout_inputs(run, &plan, &run->host);
    run->host_nll = take(&plan, run->M, 1, be->acc);
    return LORI_OK;
}

static lori_status take_memory(model_run *run, lori_error *err)
{
    backend *be = run->m->be;
    run->bytes = model_run_bytes(run->m, &run->limits);
    size_t layers = (size_t)run->m->config.n_layers;
    run->kept = base_alloc(layers, sizeof *run->kept);
    if (!run->kept)
        return base_no_memory(err, layers * sizeof *run->kept);
    if (run->bytes != SIZE_MAX)
        run->memory = be->alloc(be, run->bytes);
    if (!run->memory)
        return base_no_memory(err, run->bytes);
    base_plan plan = {.base = run->memory};
    model_bytes part;
    layout(run, &plan, run->kept, &part);
    BASE_TRY(take_staging(run, err));
    return model_rope_upload(run->m, run->limits.tokens, run->cos, run->sin,
                             err);
}

lori_status model_run_new(model *m, const model_limits *limits, model_run **out,
                          lori_error *err)
{
    *out = NULL;
    model_run *run = base_alloc(1, sizeof *run);
    if (!run)
        return base_no_memory(err, sizeof *run);
    if (!set_sizes(run, m, limits)) {
        free(run);
        return base_fail(err, LORI_INVALID,
                         "workspace of %lld tokens in %lld sequences, %lld "
                         "rows, rank %lld: out of range",
                         (long long)limits->tokens, (long long)limits->seqs,
                         (long long)limits->rows, (long long)limits->rank);
    }
    lori_status st = take_memory(run, err);
    if (st) {
        model_run_free(run);
        return base_prefix(err, st, "workspace for %lld tokens",
                           (long long)limits->tokens);
    }
    *out = run;
    return LORI_OK;
}

void model_run_free(model_run *run)
{
    if (!run)
        return;
    backend *be = run->m->be;
    if (run->staging)
        be->host_free(be, run->staging);
    if (run->memory)
        be->free(be, run->memory);
    free(run->kept);
    free(run);
}
