/* block.c - one transformer block: forward, recompute and backward, side by
 * side. A block is the table model_linears plus two norms, rope, attention
 * and SwiGLU. In the last block everything after attention runs on the label
 * rows only: nobody reads the others, and their gradient is zero. May include
 * base, backend, model. Source: transformers LlamaDecoderLayer; LoRI,
 * arXiv:2504.07448; spec/engine.md 1.1. */
#include "model/model_i.h"

/* The views of one layer in one pass. */
typedef struct block {
    const model_pass *p;
    backend *be;
    const model_config *c;
    const model_layer *w;
    model_site *const *site; /* [MODEL_ROLES]; NULL: no adapter at all */
    const model_kept *k;
    int64_t layer;
    bool last;              /* o_proj .. down_proj run on label rows */
    int64_t rows;           /* rows of o_proj .. down_proj */
    backend_view x;         /* block input */
    backend_view qk;        /* queries and keys side by side: rope turns both */
    backend_view attn, lse; /* attention's output before rows are chosen */
    backend_view slot[MODEL_SLOTS];
    backend_view grad[MODEL_SLOTS]; /* backward only */
} block;

static backend_view act(const block *b, void *data, int64_t rows, int64_t cols)
{
    return backend_matrix(data, b->be->act, rows, cols);
}

/* In the workspace, read by products. */
static backend_view apart(const block *b, void *data, int64_t rows,
                          int64_t cols)
{
    return backend_matrix_apart(data, b->be->act, rows, cols);
}

static backend_view acc(const block *b, void *data, int64_t rows, int64_t cols)
{
    return backend_matrix(data, b->be->acc, rows, cols);
}

static void open_block(block *b, const model_pass *p, int64_t layer)
{
    const model_run *run = p->run;
    const model_config *c = &run->m->config;
    int64_t q = model_q_width(c), kv = model_kv_width(c), f = c->ffn;
    const model_kept *k = &run->kept[layer];
    *b = (block){.p = p, .be = run->m->be, .c = c, .k = k};
    b->w = &run->m->layers[layer];
    b->site = p->ad ? &p->ad->at[layer * MODEL_ROLES] : NULL;
    b->layer = layer;
    b->last = layer + 1 == c->n_layers;
    b->rows = b->last ? p->label : p->n;
    b->x = act(b, k->x, p->n, c->d);
    b->attn = apart(b, k->o, p->n, q);
    b->lse = acc(b, k->lse, p->n, c->n_heads);

    backend_view qkv = act(b, k->qkv, p->n, q + 2 * kv);
    backend_view gu = apart(b, k->gu, b->rows, 2 * f);
    b->qk = backend_cols(qkv, 0, q + kv);
    b->slot[SLOT_XN1] = apart(b, run->t, p->n, c->d);
    b->slot[SLOT_Q] = backend_cols(qkv, 0, q);
    b->slot[SLOT_K] = backend_cols(qkv, q, kv);
    b->slot[SLOT_V] = backend_cols(qkv, q + kv, kv);
    b->slot[SLOT_O] = b->last ? apart(b, run->label_o, b->rows, q) : b->attn;
    b->slot[SLOT_X2] = act(b, k->x2, b->rows, c->d);
    b->slot[SLOT_XN2] = apart(b, run->t, b->rows, c->d);
    b->slot[SLOT_GATE] = backend_cols(gu, 0, f);
    b->slot[SLOT_UP] = backend_cols(gu, f, f);
    b->slot[SLOT_A] = apart(b, run->wide, b->rows, f);
    b->slot[SLOT_Y] = act(b, k->y, b->rows, c->d);
}

static model_site *site_of(const block *b, int role)
{
    return b->site ? b->site[role] : NULL;
}

/* h = s x A^T [n, r] of a site, kept from forward to backward. */
static backend_view low_rank(const block *b, int role)
{
    const model_site *s = b->site[role];
    return act(b, b->k->h[role], role < ROLE_O ? b->p->n : b->rows, s->rank);
}

/* ---- forward ------------------------------------------------------------ */

/* Label rows whose tokens lie before `token`: the rows of a segment in the
 * last block. */
static int64_t label_rows_before(const model_pass *p, int64_t token)
{
    int64_t n = 0;
    while (n < p->label_real && p->run->host.row[n] < token)
        n++;
    return n;
}

static const model_site *segment_site(const block *b, const model_segment *g,
                                      int role)
{
    return g->adapter ? g->adapter->at[b->layer * MODEL_ROLES + role] : NULL;
}

/* y += h B^T, h = s x A^T, each segment with its own A and B. h is nobody's
 * afterwards: the segments take turns in one place. */
static void add_segments(const block *b, int role, backend_view y,
                         backend_view x)
{
    backend *be = b->be;
    const model_pass *p = b->p;
    int64_t from = 0;
    for (int64_t i = 0; i < p->n_segments; i++) {
        const model_segment *g = &p->segments[i];
        int64_t end =
            b->last && role >= ROLE_O ? label_rows_before(p, g->end) : g->end;
        const model_site *s = segment_site(b, g, role);
        if (s && end > from) {
            backend_view h = act(b, b->k->h[role], end - from, s->rank);
            be->gemm_nt(be, h, backend_rows(x, from, end - from),
                        act(b, s->A, s->rank, s->in), s->scale, 0.0);
            be->gemm_nt(be, backend_rows(y, from, end - from), h,
                        act(b, s->B, s->out, s->rank), 1.0, 1.0);
        }
        from = end;
    }
}

/* h B^T of a site, to join its product; h = s x A^T, which `recompute` finds
 * kept. */
static backend_low low_product(const block *b, int role, bool recompute)
{
    backend *be = b->be;
    const model_site *s = site_of(b, role);
    if (!s)
        return (backend_low){0};
    backend_view h = low_rank(b, role), x = b->slot[model_linears[role].in];
    if (!recompute)
        be->gemm_nt(be, h, x, act(b, s->A, s->rank, s->in), s->scale, 0.0);
    return (backend_low){h, act(b, s->B, s->out, s->rank)};
}

/* y += b, and what segments add. */
static void add_to_product(const block *b, int role)
{
    const model_linear *l = &model_linears[role];
    backend_view y = b->slot[l->out];
    if (b->w->bias[role])
        b->be->add_bias(b->be, y, b->w->bias[role]);
    add_segments(b, role, y, b->slot[l->in]);
}

/* y = residual + x W^T + h B^T + b */
static void add_linear(const block *b, int role, backend_view residual)
{
    const model_linear *l = &model_linears[role];
    const backend_low low = low_product(b, role, false);
    b->be->gemm_w(b->be, b->slot[l->out], b->slot[l->in], b->w->w[role], &low,
                  &residual);
    add_to_product(b, role);
}

static void low_products(const block *b, int from, int to, bool recompute,
                         backend_low *low)
{
    for (int r = from; r < to; r++)
        low[r - from] = low_product(b, r, recompute);
}

/* y = x W^T + h B^T + b for roles [from, to), which share their x. */
static void linears(const block *b, int from, int to, bool recompute)
{
    backend_view y[BACKEND_GROUP] = {{0}};
    backend_low low[BACKEND_GROUP] = {{{0}, {0}}};
    for (int r = from; r < to; r++)
        y[r - from] = b->slot[model_linears[r].out];
    low_products(b, from, to, recompute, low);
    b->be->gemm_ws(b->be, to - from, y, b->slot[model_linears[from].in],
                   &b->w->w[from], low);
    for (int r = from; r < to; r++)
        add_to_product(b, r);
}

static void queries_keys_values(const block *b, bool recompute)
{
    backend *be = b->be;
    const model_pass *p = b->p;
    be->rmsnorm(be, b->slot[SLOT_XN1], b->k->rstd1, b->x, b->w->norm1,
                b->c->norm_eps);
    linears(b, ROLE_Q, ROLE_O, recompute);
    be->rope(be, b->qk, p->run->device.pos, p->cos, p->sin, (int)b->c->head_dim,
             false);
}

/* Rows behind the last sequence: no attention writes them. */
static void zero_tail(const block *b, backend_view v)
{
    int64_t real = b->p->n_real;
    if (v.rows > real) {
        backend_view tail = backend_rows(v, real, v.rows - real);
        size_t row = (size_t)v.ld * base_dtype_bytes(v.dtype);
        b->be->zero(b->be, tail.data, (size_t)tail.rows * row);
    }
}

static void attend(const block *b)
{
    backend *be = b->be;
    const model_pass *p = b->p;
    backend_view k = b->slot[SLOT_K], v = b->slot[SLOT_V];
    if (p->cache) {
        backend_view k_pool = model_cache_pool(p->cache, b->layer, false);
        backend_view v_pool = model_cache_pool(p->cache, b->layer, true);
        be->kv_write(be, k_pool, v_pool, k, v, &p->attn);
        k = k_pool;
        v = v_pool;
    }
    if (!b->rows)
        return; /* only keys and values were wanted of the last block */
    be->attn(be, b->attn, b->lse, b->slot[SLOT_Q], k, v, &p->attn);
    zero_tail(b, b->attn);
}

static void norm2(const block *b)
{
    b->be->rmsnorm(b->be, b->slot[SLOT_XN2], b->k->rstd2, b->slot[SLOT_X2],
                   b->w->norm2, b->c->norm_eps);
}

/* Whether add_to_product() does anything. */
static bool adds_to_product(const block *b, int role)
{
    bool adds = b->w->bias[role] != NULL;
    for (int64_t i = 0; i < b->p->n_segments; i++)
        adds = adds || segment_site(b, &b->p->segments[i], role);
    return adds;
}

/* a = silu(g) u, g, u = G(n), U(n), n = norm(x2) */
static void gated(const block *b)
{
    backend *be = b->be;
    backend_view a = b->slot[SLOT_A], g = b->slot[SLOT_GATE];
    backend_view u = b->slot[SLOT_UP];
    norm2(b);
    if (adds_to_product(b, ROLE_GATE) || adds_to_product(b, ROLE_UP)) {
        linears(b, ROLE_GATE, ROLE_DOWN, false);
        be->swiglu(be, a, g, u);
        return;
    }
    backend_low low[2];
    low_products(b, ROLE_GATE, ROLE_DOWN, false, low);
    be->gemm_swiglu(be, a, g, u, b->slot[SLOT_XN2], &b->w->w[ROLE_GATE], low);
}

void model_block_forward(model_pass *p, int64_t layer)
{
    block b;
    open_block(&b, p, layer);
    backend *be = b.be;
    const int32_t *row = p->run->device.row;
    be->weight_acquire(be, b.w->w, MODEL_ROLES);
    queries_keys_values(&b, false);
    attend(&b);
    if (b.rows) {
        backend_view x = b.x;
        if (b.last) {
            be->gather_rows(be, b.slot[SLOT_O], b.attn, row);
            be->gather_rows(be, b.slot[SLOT_X2], b.x, row);
            x = b.slot[SLOT_X2];
        }
        add_linear(&b, ROLE_O, x);
        gated(&b);
        add_linear(&b, ROLE_DOWN, b.slot[SLOT_X2]);
    }
    be->weight_release(be, b.w->w, MODEL_ROLES);
}

/* ---- recompute ---------------------------------------------------------- */

static model_schedule schedule(const block *b)
{
    return model_schedule_of(&b->p->run->limits, b->layer);
}

/* The same operations on the same values as in forward: the same bits. The
 * outputs of o_proj and down_proj are never needed again, and h is kept. */
static void recompute_mlp(const block *b)
{
    if (schedule(b) == MODEL_KEEP_ALL)
        return;
    norm2(b);
    linears(b, ROLE_GATE, ROLE_DOWN, true);
}

static void recompute_attention(const block *b)
{
    if (schedule(b) != MODEL_KEEP_INPUTS)
        return;
    queries_keys_values(b, true);
    attend(b);
}

/* ---- backward ----------------------------------------------------------- */

bool model_layer_trains(const model_adapter *ad, int64_t layer, int from,
                        int to)
{
    for (int r = from; r < to; r++) {
        const model_site *s = ad->at[layer * MODEL_ROLES + r];
        if (s && (s->gA || s->gB))
            return true;
    }
    return false;
}

/* packed += the kept entries of x^T y, summed over tokens. Always
 * through the dense scratch, so that a kept entry's bits do not depend on
 * what else is kept. */
static void add_gradient(const block *b, void *packed, const backend_keep *keep,
                         backend_view x, backend_view y)
{
    backend_view dense = acc(b, b->p->run->grad, x.cols, y.cols);
    b->be->gemm_tn(b->be, dense, x, y, 1.0, 0.0);
    b->be->keep_gather(b->be, packed, dense, keep, true);
}

/* y = x W^T + b + h B^T, h = s x A^T. With dy [n, out]:
 *   dB = dy^T h;  dh = s dy B;  dA = dh^T x;  dx = dy W + dh A.
 * There is no dW. Returns dh A, to join its product; `place` tells the dh of
 * products that do so together apart. */
static backend_low low_backward(const block *b, int role, bool want_dx,
                                int place)
{
    backend *be = b->be;
    const model_linear *l = &model_linears[role];
    const model_site *s = site_of(b, role);
    if (!s)
        return (backend_low){{0}, {0}};
    const model_run *run = b->p->run;
    backend_view dy = b->grad[l->out];
    backend_view room =
        act(b, run->dh, MODEL_TOGETHER * run->N, run->limits.rank);
    backend_view dh =
        backend_cols(backend_rows(room, place * run->N, dy.rows), 0, s->rank);
    if (s->gB)
        add_gradient(b, s->gB, s->keep, dy, low_rank(b, role));
    if (want_dx || s->gA)
        be->gemm_nn(be, dh, dy, act(b, s->B, s->out, s->rank), s->scale, 0.0);
    if (s->gA)
        add_gradient(b, s->gA, NULL, dh, b->slot[l->in]);
    return (backend_low){dh, act(b, s->A, s->rank, s->in)};
}

/* Roles [from, to), which share their x: dx is the sum of theirs. x is read
 * only for dA, before dx may take its place. */
static void linears_backward(const block *b, int from, int to, bool want_dx)
{
    backend_view dy[BACKEND_GROUP] = {{0}};
    backend_low low[BACKEND_GROUP] = {{{0}, {0}}};
    for (int r = from; r < to; r++) {
        dy[r - from] = b->grad[model_linears[r].out];
        low[r - from] = low_backward(b, r, want_dx, r - from);
    }
    if (want_dx)
        b->be->gemm_wts(b->be, b->grad[model_linears[from].in], to - from, dy,
                        &b->w->w[from], low);
}

static bool wants_dA(const block *b, int from, int to)
{
    for (int r = from; r < to; r++) {
        const model_site *s = site_of(b, r);
        if (s && s->gA)
            return true;
    }
    return false;
}

/* p->dres as products take it: model_norm_backward() left it so, until
 * gradients of queries, keys and values take its place. */
static backend_view dres_act(const model_pass *p, int64_t rows)
{
    const backend *be = p->run->m->be;
    if (be->act == be->acc)
        return backend_rows(p->dres, 0, rows);
    return backend_matrix_apart(p->run->dqkv, be->act, rows, p->dres.cols);
}

void model_norm_backward(const model_pass *p, backend_view x, const void *w,
                         const void *rstd)
{
    backend *be = p->run->m->be;
    const backend_view copy = dres_act(p, x.rows);
    be->rmsnorm_bwd(be, backend_rows(p->dres, 0, x.rows),
                    backend_rows(p->dxn, 0, x.rows), x, w, rstd,
                    be->act == be->acc ? NULL : &copy);
}

/* y = x2 + D(silu(g) u), g, u = G(n), U(n), n = norm(x2). p->dres holds dy,
 * which is also dx2's first term:
 *   da = D^T dy;  dg, du from swiglu;  dn = G^T dg + U^T du;
 *   dx2 = dy + dnorm(dn). */
static void mlp_backward(block *b, bool below)
{
    backend *be = b->be;
    recompute_mlp(b);
    if (wants_dA(b, ROLE_DOWN, MODEL_ROLES))
        be->swiglu(be, b->slot[SLOT_A], b->slot[SLOT_GATE], b->slot[SLOT_UP]);
    b->grad[SLOT_Y] = dres_act(b->p, b->rows);
    b->grad[SLOT_GATE] = b->slot[SLOT_GATE];
    b->grad[SLOT_UP] = b->slot[SLOT_UP];
    b->grad[SLOT_XN2] = backend_rows(b->p->dxn, 0, b->rows);
    bool inner =
        below || model_layer_trains(b->p->ad, b->layer, ROLE_Q, ROLE_DOWN);
    const backend_low low = low_backward(b, ROLE_DOWN, inner, 0);
    if (!inner)
        return;
    be->gemm_swiglu_bwd(be, b->slot[SLOT_GATE], b->slot[SLOT_UP],
                        b->slot[SLOT_A], b->grad[SLOT_Y], b->w->w[ROLE_DOWN],
                        &low);
    if (wants_dA(b, ROLE_GATE, ROLE_DOWN)) /* xn2 again */
        be->rmsnorm(be, b->slot[SLOT_XN2], NULL, b->slot[SLOT_X2], b->w->norm2,
                    b->c->norm_eps);
    linears_backward(b, ROLE_GATE, ROLE_DOWN, true);
    model_norm_backward(b->p, b->slot[SLOT_X2], b->w->norm2, b->k->rstd2);
}

/* dO of all rows from that of the label rows; the others are zero. */
static void spread(const block *b, backend_view dst, backend_view src)
{
    const model_pass *p = b->p;
    size_t row = (size_t)dst.ld * base_dtype_bytes(dst.dtype);
    b->be->zero(b->be, dst.data, (size_t)dst.rows * row);
    /* the padding behind the label rows repeats row 0, with zero gradient */
    b->be->scatter_rows(b->be, dst, backend_rows(src, 0, p->label_real),
                        p->run->device.row);
}

/* x2 = x + O(attention(q, k, v)), q, k, v = rope(Q(n)), rope(K(n)), V(n),
 * n = norm(x). p->dres holds dx2, which is also dx's first term. `below`: dx
 * is wanted; without it nothing reads dn. */
static void attention_backward(block *b, backend_view dO, bool below)
{
    backend *be = b->be;
    const model_pass *p = b->p;
    const model_run *run = p->run;
    int64_t q = model_q_width(b->c), kv = model_kv_width(b->c);
    backend_view dqkv = apart(b, run->dqkv, p->n, q + 2 * kv);
    b->grad[SLOT_Q] = backend_cols(dqkv, 0, q);
    b->grad[SLOT_K] = backend_cols(dqkv, q, kv);
    b->grad[SLOT_V] = backend_cols(dqkv, q + kv, kv);
    b->grad[SLOT_XN1] = p->dxn;
    be->attn_bwd(be, b->grad[SLOT_Q], b->grad[SLOT_K], b->grad[SLOT_V], dO,
                 b->slot[SLOT_Q], b->slot[SLOT_K], b->slot[SLOT_V], b->attn,
                 b->lse, acc(b, run->delta, p->n, b->c->n_heads), &p->attn);
    zero_tail(b, dqkv);
    be->rope(be, backend_cols(dqkv, 0, q + kv), run->device.pos, p->cos, p->sin,
             (int)b->c->head_dim, true);
    if (wants_dA(b, ROLE_Q, ROLE_O))
        be->rmsnorm(be, b->slot[SLOT_XN1], NULL, b->x, b->w->norm1,
                    b->c->norm_eps);
    linears_backward(b, ROLE_Q, ROLE_O, below);
    if (below)
        model_norm_backward(p, b->x, b->w->norm1, b->k->rstd1);
}

void model_block_backward(model_pass *p, int64_t layer, bool below)
{
    block b;
    open_block(&b, p, layer);
    backend *be = b.be;
    const model_run *run = p->run;
    int64_t q = model_q_width(b.c);
    bool qkv = below || model_layer_trains(p->ad, layer, ROLE_Q, ROLE_O);
    be->weight_acquire(be, b.w->w, MODEL_ROLES);
    mlp_backward(&b, below);
    if (qkv || model_layer_trains(p->ad, layer, ROLE_O, ROLE_GATE)) {
        recompute_attention(&b);
        if (b.last && wants_dA(&b, ROLE_O, ROLE_GATE))
            be->gather_rows(be, b.slot[SLOT_O], b.attn, run->device.row);
        backend_view dO = apart(&b, run->wide, p->n, q);
        b.grad[SLOT_X2] = dres_act(p, b.rows);
        b.grad[SLOT_O] = b.last ? b.slot[SLOT_O] : dO;
        linears_backward(&b, ROLE_O, ROLE_GATE, qkv);
        if (qkv && b.last) {
            spread(&b, dO, b.grad[SLOT_O]);
            spread(&b, p->dxn, backend_rows(p->dres, 0, b.rows));
            backend_view swap = p->dres;
            p->dres = p->dxn;
            p->dxn = swap;
        }
        if (qkv)
            attention_backward(&b, dO, below);
    }
    be->weight_release(be, b.w->w, MODEL_ROLES);
}
