/* cached.c - the pages of keys and values that generation keeps, and the pass
 * that appends to them. Owns the pages and their tables. Refuses steps that
 * leave the pool or the model's positions. May include base, backend, model.
 * Source: vLLM, arXiv:2309.06180 (pages). */
#include <stdlib.h>

#include "model/model_i.h"

/* Pieces of a page: keys and values of every layer. */
static int64_t cells_of(const model_cache *cache)
{
    return 2 * cache->m->config.n_layers;
}

/* Elements from one position's keys to the next one's. */
static int64_t position_stride(const model *m)
{
    return backend_heads_stride(m->be->act, m->config.n_kv_heads,
                                m->config.head_dim);
}

static size_t cell_bytes(const model_cache *cache)
{
    return (size_t)(cache->page * position_stride(cache->m)) *
           base_dtype_bytes(cache->m->be->act);
}

int64_t model_cache_position_bytes(const model *m)
{
    return 2 * m->config.n_layers * position_stride(m) *
           (int64_t)base_dtype_bytes(m->be->act);
}

backend_view model_cache_pool(const model_cache *cache, int64_t layer,
                              bool values)
{
    int64_t first = 2 * layer + values; /* and one in every page */
    backend_view pool = backend_matrix(
        (char *)cache->cells + (size_t)first * cell_bytes(cache),
        cache->m->be->act,
        ((cache->n_pages - 1) * cells_of(cache) + 1) * cache->page,
        model_kv_width(&cache->m->config));
    pool.ld = position_stride(cache->m);
    return pool;
}

static void layout(model_cache *cache, base_plan *plan)
{
    const model_config *c = &cache->m->config;
    size_t acc = base_dtype_bytes(cache->m->be->acc);
    size_t cells = (size_t)(cache->n_pages * cells_of(cache));
    cache->cells = base_plan_take(plan, cells, cell_bytes(cache));
    size_t angles = (size_t)(cache->positions * (c->head_dim / 2));
    cache->cos = base_plan_take(plan, angles, acc);
    cache->sin = base_plan_take(plan, angles, acc);
}

static lori_status take(model_cache *cache, lori_error *err)
{
    backend *be = cache->m->be;
    base_plan plan = {0};
    layout(cache, &plan);
    if (!plan.overflow)
        cache->memory = be->alloc(be, plan.used);
    if (!cache->memory)
        return base_no_memory(err, plan.overflow ? SIZE_MAX : plan.used);
    plan = (base_plan){.base = cache->memory};
    layout(cache, &plan);
    return model_rope_upload(cache->m, cache->positions, cache->cos, cache->sin,
                             err);
}

lori_status model_cache_new(model *m, int64_t n_pages, int page,
                            model_cache **out, lori_error *err)
{
    *out = NULL;
    if (n_pages < 1 || page < 1 ||
        n_pages > INT32_MAX / page / (2 * m->config.n_layers))
        return base_fail(err, LORI_INVALID,
                         "key/value cache of %lld pages of %d positions: out "
                         "of range",
                         (long long)n_pages, page);
    model_cache *cache = base_alloc(1, sizeof *cache);
    if (!cache)
        return base_no_memory(err, sizeof *cache);
    cache->m = m;
    cache->n_pages = n_pages;
    cache->page = page;
    cache->positions = n_pages * page;
    if (cache->positions > m->config.max_positions)
        cache->positions = m->config.max_positions;
    lori_status st = take(cache, err);
    if (st) {
        model_cache_free(cache);
        return base_prefix(err, st, "key/value cache of %lld positions",
                           (long long)n_pages * page);
    }
    *out = cache;
    return LORI_OK;
}

void model_cache_free(model_cache *cache)
{
    if (!cache)
        return;
    backend *be = cache->m->be;
    if (cache->host_table)
        be->host_free(be, cache->host_table);
    if (cache->table)
        be->free(be, cache->table);
    if (cache->memory)
        be->free(be, cache->memory);
    free(cache);
}

static int64_t pages_of(const model_cache *cache, int64_t positions)
{
    return (positions + cache->page - 1) / cache->page;
}

static int64_t length(const model_step *step, int64_t s)
{
    return (int64_t)step->past[s] + step->cu[s + 1] - step->cu[s];
}

static lori_status check_step(const model_cache *cache, const model_step *step,
                              lori_error *err)
{
    int64_t total = 0;
    for (int64_t s = 0; s < step->n_seqs; s++) {
        int64_t len = length(step, s), pages = pages_of(cache, len);
        total += len > 0 ? len : 0;
        if (total > INT32_MAX)
            return base_fail(err, LORI_INVALID,
                             "the step's sequences hold too many positions");
        if (step->past[s] < 0 || len > cache->positions)
            return base_fail(err, LORI_INVALID,
                             "sequence %lld reaches position %lld; the model "
                             "and its cache have %lld",
                             (long long)s, (long long)len,
                             (long long)cache->positions);
        if (pages > step->table_ld)
            return base_fail(err, LORI_INVALID,
                             "sequence %lld needs %lld pages; its table has "
                             "%lld",
                             (long long)s, (long long)pages,
                             (long long)step->table_ld);
        for (int64_t i = 0; i < pages; i++) {
            int32_t page = step->table[s * step->table_ld + i];
            if (page < 0 || page >= cache->n_pages)
                return base_fail(err, LORI_INVALID,
                                 "sequence %lld uses page %d of %lld",
                                 (long long)s, page, (long long)cache->n_pages);
        }
    }
    return LORI_OK;
}

/* Room for n table entries; grows by doubling, so that steps soon take
 * nothing more. */
static lori_status reserve_table(model_cache *cache, size_t n, lori_error *err)
{
    if (n <= cache->capacity)
        return LORI_OK;
    backend *be = cache->m->be;
    size_t want = cache->capacity ? cache->capacity : 256;
    while (want < n)
        want *= 2;
    int32_t *table = be->alloc(be, want * sizeof *table);
    int32_t *host = be->host_alloc(be, want * sizeof *host);
    if (!table || !host) {
        if (table)
            be->free(be, table);
        if (host)
            be->host_free(be, host);
        return base_no_memory(err, want * sizeof *table);
    }
    if (cache->capacity) {
        be->free(be, cache->table);
        be->host_free(be, cache->host_table);
    }
    cache->table = table;
    cache->host_table = host;
    cache->capacity = want;
    return LORI_OK;
}

/* The caller's table with only the columns in use, counted in cells. */
static lori_status stage_table(model_pass *p, const model_step *step,
                               lori_error *err)
{
    model_cache *cache = p->cache;
    backend *be = cache->m->be;
    int64_t ld = pages_of(cache, p->attn.max_k);
    size_t n = (size_t)(step->n_seqs * ld);
    BASE_TRY(reserve_table(cache, n, err));
    memset(cache->host_table, 0, n * sizeof *cache->host_table);
    for (int64_t s = 0; s < step->n_seqs; s++)
        for (int64_t i = 0; i < pages_of(cache, length(step, s)); i++)
            cache->host_table[s * ld + i] =
                step->table[s * step->table_ld + i] * (int32_t)cells_of(cache);
    be->copy(be, cache->table, cache->host_table, n * sizeof *cache->host_table,
             BACKEND_TO_DEVICE);
    p->attn.block_table = cache->table;
    p->attn.table_ld = ld;
    p->attn.page = cache->page;
    return LORI_OK;
}

/* Positions go on where the cache ends; keys are all positions so far. */
static void stage_positions(model_pass *p, const model_step *step)
{
    const model_inputs *in = &p->run->host;
    int64_t total = 0;
    in->cu_k[0] = 0;
    for (int64_t s = 0; s < step->n_seqs; s++) {
        int64_t len = length(step, s);
        for (int32_t t = step->cu[s]; t < step->cu[s + 1]; t++)
            in->pos[t] = step->past[s] + t - step->cu[s];
        total += len;
        in->cu_k[s + 1] = (int32_t)total;
        p->attn.max_k = len > p->attn.max_k ? len : p->attn.max_k;
    }
}

/* One adapter for all rows is a segment too, not the pass's own: that one may
 * join the product with W, and a row's bits would depend on its company. */
static lori_status take_segments(model_pass *p, const model_step *step,
                                 lori_error *err)
{
    int64_t end = 0;
    for (int64_t i = 0; i < step->n_segments; i++) {
        const model_segment *g = &step->segments[i];
        if (g->end <= end || g->end > step->n_tokens)
            return base_fail(
                err, LORI_INVALID, "segment %lld ends at token %lld of %lld",
                (long long)i, (long long)g->end, (long long)step->n_tokens);
        end = g->end;
        BASE_TRY(model_pass_check_adapter(p->run, g->adapter, err));
    }
    if (step->n_segments > 0 && end != step->n_tokens)
        return base_fail(err, LORI_INVALID,
                         "the segments cover %lld of %lld tokens",
                         (long long)end, (long long)step->n_tokens);
    p->segments = step->segments;
    p->n_segments = step->n_segments;
    return LORI_OK;
}

/* Everything but the head. */
static lori_status forward(model_pass *p, model_run *run, model_cache *cache,
                           const model_step *step, lori_error *err)
{
    BASE_TRY(model_pass_check_ids(run, step->n_tokens, step->n_seqs, step->ids,
                                  step->cu, NULL, err));
    BASE_TRY(model_pass_check_rows(run, step->n_tokens, step->n_rows, step->row,
                                   err));
    BASE_TRY(check_step(cache, step, err));
    model_pass_start(p, run, NULL, step->n_tokens, step->n_seqs, step->n_rows);
    BASE_TRY(take_segments(p, step, err));
    p->cache = cache;
    p->cos = cache->cos;
    p->sin = cache->sin;
    model_pass_stage(p, step->ids, step->cu, step->row);
    if (step->target)
        model_pass_stage_targets(p, step->target, NULL);
    stage_positions(p, step);
    BASE_TRY(stage_table(p, step, err));
    model_pass_upload(p);
    model_pass_forward(p);
    return LORI_OK;
}

lori_status model_forward_cached(model_run *run, model_cache *cache,
                                 const model_step *step, void *logits,
                                 double *lse, lori_error *err)
{
    model_pass p;
    BASE_TRY(forward(&p, run, cache, step, err));
    return model_pass_logits(&p, logits, lse, err);
}

lori_status model_score_cached(model_run *run, model_cache *cache,
                               const model_step *step, double *nll,
                               lori_error *err)
{
    model_pass p;
    double loss = 0;
    BASE_TRY(model_pass_check_targets(run, step->n_rows, step->target, err));
    BASE_TRY(forward(&p, run, cache, step, err));
    return model_pass_loss(&p, NULL, false, nll, &loss, err);
}

void model_cache_copy(model_cache *cache, int32_t to, int32_t from, int rows)
{
    backend *be = cache->m->be;
    size_t cell = cell_bytes(cache);
    size_t n = cell / (size_t)cache->page * (size_t)rows;
    size_t page = (size_t)cells_of(cache) * cell;
    char *dst = (char *)cache->cells + (size_t)to * page;
    const char *src = (const char *)cache->cells + (size_t)from * page;
    for (size_t at = 0; at < page; at += cell)
        be->copy(be, dst + at, src + at, n, BACKEND_ON_DEVICE);
}
