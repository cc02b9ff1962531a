/* cpu_t_attn.c - attention of one block of queries on tiles of bf16; see
 * cpu_t_attn.h for lanes, strips, groups and how they lie in memory. A block of
 * keys at a time (FlashAttention-2, arXiv:2307.08691), in powers of two:
 *   S = Q Kt scale log2(e);  m = max(m, S);  P = 2^(S - m);
 *   l = l 2^(m_old - m) + sum P;  O = O 2^(m_old - m) + P V;
 * at the end O = O / l, lse = m ln 2 + log l. Any m near the maximum serves, so
 * it follows only when the maximum has left it far behind. Blocks of keys begin
 * at multiples of their length: what a query gets does not depend on which
 * others are in its block. P is rounded to bf16 for P V, l is a sum of floats.
 */
#include "backend/cpu/tile/cpu_t_attn.h"

enum {
    LANES = CPU_TILE_LANES,
    KEYS = 256, /* many: each block of them costs every row something */
    STRIPS = LANES / SIDE,
    GROUPS = KEYS / SIDE, /* <= MOST_GROUPS */
    BEHIND = 8            /* P may grow to 2^BEHIND */
};

/* Of no score yet: finite, so that its difference to anything is no NaN. */
#define NONE (-0x1p+127f)

typedef struct space {
    int64_t chunks;
    float scale;    /* log2(e) in it */
    lanes *l;       /* [STRIPS] */
    uint16_t *q;    /* [STRIPS, chunks] pairs of a: rows are lanes */
    uint16_t *k;    /* [GROUPS, chunks] pairs of b: columns are keys */
    uint16_t *v;    /* [GROUPS, chunks] pairs of b: summed over keys */
    uint16_t *p;    /* [2, GROUPS] pairs of a, of two strips in turn */
    uint16_t *copy; /* [SIDE, 32 chunks]: keys that do not lie together */
    float *s;       /* [2, GROUPS] quads, in the same way */
    float *o;       /* [STRIPS, chunks] quads */
    float *m;       /* [LANES] */
    float *sum;     /* [LANES, 16], added up at the end */
} space;

static size_t place(space *s, void *memory, int head_dim)
{
    base_plan plan = {.base = memory};
    const size_t chunks = (size_t)in_32s(head_dim);
    s->chunks = (int64_t)chunks;
    s->l = base_plan_take(&plan, STRIPS, sizeof *s->l);
    s->q = base_plan_take(&plan, STRIPS * chunks, PAIR * 2);
    s->k = base_plan_take(&plan, GROUPS * chunks, PAIR * 2);
    s->v = base_plan_take(&plan, GROUPS * chunks, PAIR * 2);
    s->p = base_plan_take(&plan, 2 * GROUPS, PAIR * 2);
    s->copy = base_plan_take(&plan, chunks, PAIR * 2);
    s->s = base_plan_take(&plan, 2 * GROUPS, QUAD * 4);
    s->o = base_plan_take(&plan, STRIPS * chunks, QUAD * 4);
    s->m = base_plan_take(&plan, LANES, 4);
    s->sum = base_plan_take(&plan, LANES * 16, 4);
    return plan.used;
}

int64_t CPU_NAME(cpu_attn_bytes)(int head_dim)
{
    space s;
    return (int64_t)place(&s, NULL, head_dim);
}

/* ---- keys ------------------------------------------------------------ */

/* Rows of n <= 32 keys, *ld elements apart: where they are, or copied when they
 * lie in pages. Keys before `first` are not read, they become zeros. */
static const uint16_t *key_rows(const cpu_attn_task *t, const char *x,
                                int64_t *ld, int64_t key, int64_t n,
                                int64_t first, const space *s)
{
    const uint16_t *from = (const uint16_t *)(const void *)x;
    if (!t->table && key >= first)
        return from + key * *ld;
    const size_t bytes = (size_t)t->head_dim * 2;
    key_walk walk = {.table = t->table, .page = t->page};
    for (int64_t j = 0; j < n; ++j) {
        uint16_t *to = s->copy + j * s->chunks * SIDE;
        if (key + j < first)
            memset(to, 0, bytes);
        else
            memcpy(to, from + key_row(&walk, key + j) * *ld, bytes);
    }
    *ld = s->chunks * SIDE;
    return s->copy;
}

/* The groups of a block of keys, without those that end before `first`. */
static void pack_keys(const cpu_attn_task *t, const space *s, int64_t key,
                      int64_t keys, int64_t first)
{
    const int64_t step = s->chunks * PAIR;
    int64_t group = first > key ? (first - key) / SIDE : 0;
    for (; group * SIDE < keys; ++group) {
        const int64_t at = key + group * SIDE,
                      n = least(keys - group * SIDE, SIDE);
        int64_t ld = t->ldk;
        const uint16_t *rows = key_rows(t, t->k, &ld, at, n, first, s);
        keys_turned(s->k + group * step, rows, ld, t->head_dim, n);
        ld = t->ldv;
        rows = key_rows(t, t->v, &ld, at, n, first, s);
        keys_summed(s->v + group * step, rows, ld, t->head_dim, n);
    }
}

/* ---- a strip of lanes and a block of keys ---------------------------- */

INLINE float *scores_of(const space *s, const strip *u)
{
    return s->s + (u->number & 1) * GROUPS * QUAD;
}
INLINE uint16_t *p_of(const space *s, const strip *u)
{
    return s->p + (u->number & 1) * GROUPS * PAIR;
}

/* The largest of a row's scores, in each lane of the vector. */
INLINE vf row_top(const space *s, const strip *u, int row)
{
    const float *at = quad_row(scores_of(s, u), row, 0);
    vf left = splat(-INFINITY), right = left;
    for (int g = u->begin; g < u->end; ++g) {
        vf a = load(at + g * QUAD), b = load(at + g * QUAD + RIGHT);
        if (!all_seen(u, g)) {
            const uint32_t mask = u->seen[g][row];
            a = (vf)_mm512_mask_mov_ps((__m512)left, (__mmask16)mask,
                                       (__m512)a);
            b = (vf)_mm512_mask_mov_ps((__m512)right, (__mmask16)(mask >> 16),
                                       (__m512)b);
        }
        left = larger(a, left);
        right = larger(b, right);
    }
    return larger(left, right);
}

/* Lane i: the largest lane of row i. The rows are lost. */
INLINE vf rows_max(vf row[16])
{
    for (int bit = 8; bit > 0; bit /= 2)
        for (int i = 0; i < bit; ++i) {
            turn_pair(row + i, row + i + bit, bit);
            row[i] = larger(row[i], row[i + bit]);
        }
    return row[0];
}

/* O and l of the lanes in the mask, 16 from `row` on, by 2^(old - m). */
static void rescale(const space *s, const strip *u, int row, __mmask16 mask,
                    vf old, vf m)
{
    const vf by = exp_vf((old - m) * LN2);
    float *o = s->o + u->number * s->chunks * QUAD;
    for (int i = row; i < row + 16; ++i) {
        if (!(mask >> (i - row) & 1))
            continue;
        float *sum = s->sum + (u->number * SIDE + i) * 16;
        store(sum, load(sum) * by[i - row]);
        for (int64_t chunk = 0; chunk < s->chunks; ++chunk)
            for (int half = 0; half < 2; ++half) {
                float *at = quad_row(o + chunk * QUAD, i, half);
                store(at, load(at) * by[i - row]);
            }
    }
}

/* m of 16 lanes from `row` on. */
static void follow(const space *s, const strip *u, int row)
{
    vf top[16], old = splat(NONE);
    float *m = s->m + u->number * SIDE + row;
    for (int i = 0; i < 16; ++i)
        top[i] = row_top(s, u, row + i);
    if (!u->fresh)
        old = load(m);
    const vf most = rows_max(top) * s->scale;
    const __mmask16 behind = _mm512_cmp_ps_mask(
        (__m512)most, (__m512)(old + (float)BEHIND), _CMP_GT_OQ);
    const vf now = (vf)_mm512_mask_mov_ps((__m512)old, behind, (__m512)most);
    store(m, now);
    if (!u->fresh && behind)
        rescale(s, u, row, behind, old, now);
}

/* A lane's row of P, and what it adds to l. */
INLINE void row_exp(const space *s, const strip *u, int row)
{
    const float *at = quad_row(scores_of(s, u), row, 0);
    uint16_t *p = p_of(s, u) + row * SIDE;
    float *sum = s->sum + (u->number * SIDE + row) * 16;
    const vf m = splat(s->m[u->number * SIDE + row]), scale = splat(s->scale);
    vf left = {0}, right = {0};
    for (int g = u->begin; g < u->end; ++g) {
        vf a = exp2_vf(madd(load(at + g * QUAD), scale, -m));
        vf b = exp2_vf(madd(load(at + g * QUAD + RIGHT), scale, -m));
        if (!all_seen(u, g)) {
            const uint32_t mask = u->seen[g][row];
            a = keep((__mmask16)mask, a);
            b = keep((__mmask16)(mask >> 16), b);
        }
        left += a;
        right += b;
        store_words(p + g * PAIR, words_of_upper(rounded(a), rounded(b)));
    }
    left += right;
    store(sum, u->fresh ? left : load(sum) + left);
}

/* S = Q Kt of a strip. */
static void push_scores(queue *q, const space *s, const strip *u)
{
    const int64_t step = s->chunks * PAIR;
    for (int g = u->begin; g < u->end; ++g)
        queue_push(q, (quad_product){.quad = scores_of(s, u) + g * QUAD,
                                     .n = (int)s->chunks,
                                     .a = s->q + u->number * step,
                                     .a_step = PAIR,
                                     .b = s->k + g * step,
                                     .b_step = PAIR});
}

/* O += P V. */
static void push_values(queue *q, const space *s, const strip *u)
{
    const int64_t step = s->chunks * PAIR;
    for (int64_t chunk = 0; chunk < s->chunks; ++chunk)
        queue_push(q, (quad_product){
                          .quad = s->o + (u->number * s->chunks + chunk) * QUAD,
                          .add = !u->fresh,
                          .n = u->end - u->begin,
                          .a = p_of(s, u) + u->begin * PAIR,
                          .a_step = PAIR,
                          .b = s->v + u->begin * step + chunk * PAIR,
                          .b_step = step});
}

/* All strips that see a block of keys. While vectors make P of one, tiles
 * multiply P V of the one before and Q Kt of the one after it. */
static void attend(const cpu_attn_task *t, const space *s, int strips,
                   int64_t key, int keys)
{
    const int64_t low = t->past + t->first;
    strip two[2];
    queue q = {.count = 0};
    int i = 0;
    while (!strip_set(&two[i % 2], s->l + i, i, low, t->window, key, keys))
        ++i; /* some strip sees every block */
    push_scores(&q, s, &two[i % 2]);
    queue_run(&q, 0);
    for (bool more = true; more; ++i) {
        const strip *u = &two[i % 2];
        strip *next = &two[(i + 1) % 2];
        more = i + 1 < strips &&
               strip_set(next, s->l + i + 1, i + 1, low, t->window, key, keys);
        if (more)
            push_scores(&q, s, next);
        follow(s, u, 0);
        follow(s, u, 16);
        const int steps = q.left;
        for (int row = 0; row < SIDE; ++row) {
            row_exp(s, u, row);
            queue_run(&q, steps * (SIDE - 1 - row) >> 5);
        }
        push_values(&q, s, u);
    }
    queue_run(&q, 0);
}

/* ---- the block of queries --------------------------------------------- */

/* Writes O and lse of a strip. */
static void finish(const cpu_attn_task *t, const space *s, int number)
{
    const lanes *l = s->l + number;
    const float *sum = s->sum + number * SIDE * 16, *m = s->m + number * SIDE;
    float lse[SIDE], part[SIDE];
    for (int i = 0; i < SIDE; i += 16) {
        vf row[16];
        for (int j = 0; j < 16; ++j)
            row[j] = load(sum + (i + j) * 16);
        const vf v = rows_sum(row);
        store(lse + i, load(m + i) * LN2 + log_vf(v));
        store(part + i, 1.0f / v);
    }
    lanes_store(t->o + t->first * t->ldo * 2, t->ldo, l,
                s->o + number * s->chunks * QUAD, part);
    for (int i = 0; t->lse && i < l->used; ++i)
        t->lse[(t->first + l->row[i]) * t->ldlse + l->head[i]] = lse[i];
}

void CPU_NAME(cpu_attn)(const cpu_attn_task *t, void *scratch)
{
    space s;
    place(&s, scratch, t->head_dim);
    s.scale = t->scale * LOG2E;
    const int strips = (int)in_32s(t->heads * t->n);
    const int64_t low = t->past + t->first, high = low + t->n - 1;
    const int64_t first = cpu_attn_first(low, t->window);
    for (int i = 0; i < strips; ++i) {
        lanes_set(s.l + i, t->heads, t->head_dim, t->n, i * SIDE);
        lanes_load(s.q + i * s.chunks * PAIR, s.l + i,
                   t->q + t->first * t->ldq * 2, t->ldq);
    }
    tile_start();
    for (int64_t key = first / KEYS * KEYS; key <= high; key += KEYS) {
        const int keys = (int)least(high + 1 - key, KEYS);
        pack_keys(t, &s, key, keys, first);
        attend(t, &s, strips, key, keys);
    }
    tile_stop();
    for (int i = 0; i < strips; ++i)
        finish(t, &s, i);
}
