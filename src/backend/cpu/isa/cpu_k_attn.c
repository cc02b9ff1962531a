/* cpu_k_attn.c - attention of one block of queries, and its gradient over one
 * sequence. Queries lie in the lanes of vectors: column c of the transposed
 * scores St [keys, lanes] is one query of one head (c = head * block +
 * position), so the softmax over keys runs down the rows without sums across
 * lanes, and K and V are used by rows as they come.
 * Forward, a block of keys at a time (FlashAttention-2, arXiv:2307.08691):
 *   St = K Qt;  m' = max(m, St);  Pt = exp(St - m');  l = l e^(m-m') + sum Pt
 *   Ot = Ot e^(m-m') + Vt Pt;  at the end O = Ot / l, lse = m + log l.
 * Backward, with Pt = exp(St - lse) and delta = rowsum(dO * O):
 *   dPt = V dOt;  dSt = Pt (dPt - delta)
 *   dQt += Kt dSt;  dV += Pt dO;  dK += dSt Q.
 * Q is multiplied by the scale as it is read, and dQ at the end. */
#include "backend/cpu/isa/cpu_k.h"
#include "backend/cpu/isa/cpu_k_keys.h"

#define LD CPU_LD /* leading dimension of everything with lanes */

/* Positions of the lanes, and which of them are in use. */
typedef struct lanes {
    int count; /* heads * queries, rounded up to CPU_PAD */
    int used;
    int n;             /* queries of a head */
    int64_t low, high; /* positions of the first and the last query */
    int16_t row[CPU_LANES], head[CPU_LANES]; /* of a used lane */
    int32_t pos[CPU_LANES];
} lanes;

INLINE int64_t padded(int head_dim)
{
    return CPU_ROUND_UP(head_dim);
}

static void lanes_set(lanes *l, int heads, int64_t position, int n)
{
    l->n = n;
    l->used = heads * n;
    l->count = CPU_ROUND_UP(l->used);
    l->low = position;
    l->high = position + n - 1;
    for (int c = 0; c < l->used; ++c) {
        l->row[c] = (int16_t)(c % n);
        l->head[c] = (int16_t)(c / n);
        l->pos[c] = (int32_t)(position + c % n);
    }
    for (int c = l->used; c < l->count; ++c)
        l->pos[c] = (int32_t)position;
}

INLINE void row_to_float(float *dst, const char *src, int d, int64_t d_pad,
                         float scale, bool bf)
{
    for (int64_t i = 0; i < d_pad; i += VL)
        store(dst + i, i + VL <= d ? load_any(src, i, bf) * scale
                       : i < d     ? load_some(src, i, d - i, bf) * scale
                                   : (vf){0});
}

INLINE void float_to_row(char *dst, const float *src, int d, float scale,
                         bool bf)
{
    FOR_VECTORS(i, c, d)
    put(dst, i, get(src, i, c, false) * scale, c, bf);
}

/* Rows [count, head dim padded] of the lanes from x, zeros in unused lanes. */
INLINE void lanes_load_as(float *rows, const lanes *l, const char *x,
                          int64_t ld, int d, float scale, bool bf)
{
    int64_t d_pad = padded(d), size = bf ? 2 : 4;
    for (int c = 0; c < l->used; ++c)
        row_to_float(rows + c * d_pad,
                     x + (l->row[c] * ld + (int64_t)l->head[c] * d) * size, d,
                     d_pad, scale, bf);
    memset(rows + l->used * d_pad, 0,
           (size_t)((l->count - l->used) * d_pad) * 4);
}

static void lanes_load(float *rows, const lanes *l, const char *x, int64_t ld,
                       int d, float scale, bool bf)
{
    if (bf)
        lanes_load_as(rows, l, x, ld, d, scale, true);
    else
        lanes_load_as(rows, l, x, ld, d, scale, false);
}

static void lanes_store(char *x, int64_t ld, const lanes *l, const float *rows,
                        int d, float scale, bool bf)
{
    int64_t d_pad = padded(d), size = bf ? 2 : 4;
    for (int c = 0; c < l->used; ++c) {
        char *to = x + (l->row[c] * ld + (int64_t)l->head[c] * d) * size;
        if (bf)
            float_to_row(to, rows + c * d_pad, d, scale, true);
        else
            float_to_row(to, rows + c * d_pad, d, scale, false);
    }
}

/* t [d_pad, LD] = rows [count, d_pad] transposed, and back. */
static void turn(float *t, const float *rows, int count, int64_t d_pad)
{
    for (int c = 0; c < count; c += VL)
        for (int64_t i = 0; i < d_pad; i += VL)
            turn_tile(t + i * LD + c, LD, rows + c * d_pad + i, d_pad);
}

static void turn_back(float *rows, const float *t, int count, int64_t d_pad)
{
    for (int c = 0; c < count; c += VL)
        for (int64_t i = 0; i < d_pad; i += VL)
            turn_tile(rows + c * d_pad + i, d_pad, t + i * LD + c, LD);
}

/* Scores that a query may not see become -infinity. Only blocks that reach
 * past the first query's position or behind the last one's window have any. */
static void hide(float *st, const lanes *l, int64_t key, int keys,
                 int64_t window)
{
    bool future = key + keys - 1 > l->low;
    bool past = window > 0 && l->high - key >= window;
    if (!future && !past)
        return;
    int32_t most =
        window > 0 && window < INT32_MAX ? (int32_t)window : INT32_MAX;
    for (int j = 0; j < keys; ++j)
        for (int c = 0; c < l->count; c += VL) {
            vi pos;
            memcpy(&pos, l->pos + c, sizeof pos);
            vi back = pos - (int32_t)(key + j);
            float *at = st + j * LD + c;
            store(at, pick((back >= 0) & (back < most), load(at),
                           splat(-INFINITY)));
        }
}

/* The block's softmax in place; m, l and Ot are brought to the new maximum. */
static void softmax(float *st, int keys, int count, float *m, float *sum,
                    float *ot, int64_t d_pad)
{
    for (int c = 0; c < count; c += VL) {
        vf old = load(m + c), top = old;
        for (int j = 0; j < keys; ++j)
            top = larger(load(st + j * LD + c), top);
        /* A query that has seen no key yet: -inf - -inf must not be NaN. */
        vf base = pick(top == -INFINITY, (vf){0}, top);
        vf keep = exp_vf(old - base), s = {0};
        for (int j = 0; j < keys; ++j) {
            vf p = exp_vf(load(st + j * LD + c) - base);
            store(st + j * LD + c, p);
            s += p;
        }
        store(m + c, top);
        store(sum + c, load(sum + c) * keep + s);
        for (int64_t i = 0; i < d_pad; ++i)
            store(ot + i * LD + c, load(ot + i * LD + c) * keep);
    }
}

/* Keys [key, key + n) of one sequence to rows [n, d_pad]. */
INLINE void keys_load_as(float *rows, const char *x, int64_t ld, int64_t key,
                         int n, const int32_t *table, int page, int d, bool bf)
{
    int64_t d_pad = padded(d), size = bf ? 2 : 4;
    key_walk walk = {.table = table, .page = page};
    for (int j = 0; j < n; ++j)
        row_to_float(rows + j * d_pad, x + key_row(&walk, key + j) * ld * size,
                     d, d_pad, 1, bf);
}

static void keys_load(float *rows, const char *x, int64_t ld, int64_t key,
                      int n, const int32_t *table, int page, int d, bool bf)
{
    if (bf)
        keys_load_as(rows, x, ld, key, n, table, page, d, true);
    else
        keys_load_as(rows, x, ld, key, n, table, page, d, false);
}

/* The length of the block of keys that begins at `key`. Blocks end at multiples
 * of CPU_KEYS wherever the first one begins, so that a row's bits do not depend
 * on the rows beside it. */
INLINE int block_keys(int64_t end, int64_t key)
{
    const int64_t left = end - key, most = CPU_KEYS - key % CPU_KEYS;
    return (int)(left < most ? left : most);
}

/* ---- forward -------------------------------------------------------- */

int64_t CPU_NAME(cpu_attn_bytes)(int head_dim)
{
    int64_t d = padded(head_dim);
    return 4 * (3 * LD * d + CPU_KEYS * LD + CPU_KEYS * d + 2 * LD);
}

void CPU_NAME(cpu_attn)(const cpu_attn_task *t, void *scratch)
{
    const int d = t->head_dim;
    const int64_t dp = padded(d), size = t->bf ? 2 : 4;
    float *rows = scratch, *qt = rows + LD * dp, *ot = qt + LD * dp;
    float *st = ot + LD * dp;
    float *kv = st + CPU_KEYS * LD, *m = kv + CPU_KEYS * dp, *sum = m + LD;
    lanes l;
    lanes_set(&l, t->heads, t->past + t->first, (int)t->n);
    lanes_load(rows, &l, t->q + t->first * t->ldq * size, t->ldq, d, t->scale,
               t->bf);
    turn(qt, rows, l.count, dp);
    memset(ot, 0, (size_t)(LD * dp) * 4);
    for (int c = 0; c < l.count; ++c) {
        m[c] = -INFINITY;
        sum[c] = 0;
    }
    int64_t key = cpu_attn_first(l.low, t->window);
    for (int n; key <= l.high; key += n) {
        n = block_keys(l.high + 1, key);
        keys_load(kv, t->k, t->ldk, key, n, t->table, t->page, d, t->bf);
        CPU_NAME(cpu_mm)(n, l.count, dp, kv, dp, 1, qt, LD, st, LD, false);
        hide(st, &l, key, n, t->window);
        softmax(st, n, l.count, m, sum, ot, dp);
        keys_load(kv, t->v, t->ldv, key, n, t->table, t->page, d, t->bf);
        CPU_NAME(cpu_mm)(d, l.count, n, kv, 1, dp, st, LD, ot, LD, true);
    }
    for (int c = 0; c < l.count; c += VL) {
        vf part = 1.0f / load(sum + c);
        for (int64_t i = 0; i < d; ++i)
            store(ot + i * LD + c, load(ot + i * LD + c) * part);
    }
    turn_back(rows, ot, l.count, dp);
    lanes_store(t->o + t->first * t->ldo * size, t->ldo, &l, rows, d, 1, t->bf);
    if (t->lse)
        for (int c = 0; c < l.used; ++c)
            t->lse[(t->first + l.row[c]) * t->ldlse + l.head[c]] =
                m[c] + logf(sum[c]);
}

/* ---- backward ------------------------------------------------------- */

typedef struct grad_space {
    float *k, *v, *dk, *dv;  /* [n, dp], the whole sequence */
    float *q, *dout;         /* [LD, dp], this block of queries */
    float *qt, *doutt, *dqt; /* [dp, LD] */
    float *st, *dst;         /* [CPU_KEYS, LD] */
    float *lse, *delta;      /* [LD] */
} grad_space;

int64_t CPU_NAME(cpu_attn_grad_bytes)(int head_dim, int64_t max_len)
{
    int64_t d = padded(head_dim);
    return 4 * (4 * max_len * d + 5 * LD * d + 2 * CPU_KEYS * LD + 2 * LD);
}

static float *take(float **at, int64_t n)
{
    float *p = *at;
    *at += n;
    return p;
}

static void grad_place(grad_space *s, float *at, int64_t n, int64_t dp)
{
    s->k = take(&at, n * dp);
    s->v = take(&at, n * dp);
    s->dk = take(&at, n * dp);
    s->dv = take(&at, n * dp);
    s->q = take(&at, LD * dp);
    s->dout = take(&at, LD * dp);
    s->qt = take(&at, LD * dp);
    s->doutt = take(&at, LD * dp);
    s->dqt = take(&at, LD * dp);
    s->st = take(&at, CPU_KEYS * LD);
    s->dst = take(&at, CPU_KEYS * LD);
    s->lse = take(&at, LD);
    s->delta = take(&at, LD);
}

/* lse and delta of the lanes; delta is also left in the caller's array. */
static void grad_rows(const cpu_attn_grad *t, grad_space *s, const lanes *l,
                      int head, int64_t first)
{
    const int d = t->head_dim;
    const int64_t dp = padded(d);
    lanes_load(s->q, l, t->o, t->ldo, d, 1, t->bf); /* O, for delta only */
    for (int c = 0; c < l->count; ++c) {
        s->lse[c] = 0;
        s->delta[c] = 0;
        if (c >= l->used)
            continue;
        int64_t row = first + l->row[c], h = head + l->head[c];
        vf sum = {0};
        for (int64_t i = 0; i < dp; i += VL)
            sum += load(s->q + c * dp + i) * load(s->dout + c * dp + i);
        s->lse[c] = t->lse[row * t->ldlse + h];
        s->delta[c] = lanes_sum(sum);
        t->delta[row * t->lddelta + h] = s->delta[c];
    }
}

/* Pt and dSt of a block of keys from St and dPt, in place. */
static void grad_scores(grad_space *s, int keys, int count)
{
    for (int c = 0; c < count; c += VL) {
        vf lse = load(s->lse + c), delta = load(s->delta + c);
        for (int j = 0; j < keys; ++j) {
            float *st = s->st + j * LD + c, *dst = s->dst + j * LD + c;
            vf p = exp_vf(load(st) - lse);
            store(st, p);
            store(dst, p * (load(dst) - delta));
        }
    }
}

static void grad_block(const cpu_attn_grad *t, grad_space *s, int head,
                       int heads, int64_t first, int n)
{
    const int d = t->head_dim;
    const int64_t dp = padded(d), size = t->bf ? 2 : 4;
    cpu_attn_grad at = *t; /* moved to this block's rows and heads */
    at.o += (first * t->ldo + head * d) * size;
    lanes l;
    lanes_set(&l, heads, first, n);
    lanes_load(s->dout, &l, t->dout + (first * t->lddo + head * d) * size,
               t->lddo, d, 1, t->bf);
    grad_rows(&at, s, &l, head, first);
    lanes_load(s->q, &l, t->q + (first * t->ldq + head * d) * size, t->ldq, d,
               t->scale, t->bf);
    turn(s->qt, s->q, l.count, dp);
    turn(s->doutt, s->dout, l.count, dp);
    memset(s->dqt, 0, (size_t)(LD * dp) * 4);
    int64_t key = cpu_attn_first(l.low, t->window);
    for (int keys; key <= l.high; key += keys) {
        keys = block_keys(l.high + 1, key);
        float *k = s->k + key * dp, *v = s->v + key * dp;
        CPU_NAME(cpu_mm)
        (keys, l.count, dp, k, dp, 1, s->qt, LD, s->st, LD, false);
        hide(s->st, &l, key, keys, t->window);
        CPU_NAME(cpu_mm)
        (keys, l.count, dp, v, dp, 1, s->doutt, LD, s->dst, LD, false);
        grad_scores(s, keys, l.count);
        CPU_NAME(cpu_mm)
        (d, l.count, keys, k, 1, dp, s->dst, LD, s->dqt, LD, true);
        CPU_NAME(cpu_mm)
        (keys, dp, l.used, s->st, LD, 1, s->dout, dp, s->dv + key * dp, dp,
         true);
        CPU_NAME(cpu_mm)
        (keys, dp, l.used, s->dst, LD, 1, s->q, dp, s->dk + key * dp, dp, true);
    }
    turn_back(s->q, s->dqt, l.count, dp);
    lanes_store(t->dq + (first * t->lddq + head * d) * size, t->lddq, &l, s->q,
                d, t->scale, t->bf);
}

void CPU_NAME(cpu_attn_grad)(const cpu_attn_grad *t, void *scratch)
{
    const int d = t->head_dim;
    const int64_t dp = padded(d), size = t->bf ? 2 : 4;
    grad_space s;
    grad_place(&s, scratch, t->n, dp);
    if (t->dk_part) {
        s.dk = t->dk_part;
        s.dv = t->dv_part;
    }
    keys_load(s.k, t->k, t->ldk, 0, (int)t->n, NULL, 0, d, t->bf);
    keys_load(s.v, t->v, t->ldv, 0, (int)t->n, NULL, 0, d, t->bf);
    memset(s.dk, 0, (size_t)(t->n * dp) * 4);
    memset(s.dv, 0, (size_t)(t->n * dp) * 4);
    for (int head = 0; head < t->heads; head += CPU_HEADS) {
        int heads = t->heads - head < CPU_HEADS ? t->heads - head : CPU_HEADS;
        int block = cpu_attn_block(heads);
        for (int64_t first = 0; first < t->n; first += block) {
            int64_t n = t->n - first < block ? t->n - first : block;
            grad_block(t, &s, head, heads, first, (int)n);
        }
    }
    for (int64_t i = 0; !t->dk_part && i < t->n; ++i) {
        char *dk = t->dk + i * t->lddk * size, *dv = t->dv + i * t->lddv * size;
        float_to_row(dk, s.dk + i * dp, d, 1, t->bf);
        float_to_row(dv, s.dv + i * dp, d, 1, t->bf);
    }
}
