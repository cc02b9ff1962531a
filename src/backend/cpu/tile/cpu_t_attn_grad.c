/* cpu_t_attn_grad.c - the gradient of attention over one sequence on tiles of
 * bf16; see cpu_t_attn.h for lanes, strips, groups and how they lie in memory.
 * With P = 2^(S scale log2(e) - lse log2(e)) and delta = rowsum(dO * O):
 *   S = Q Kt;  dP = dO Vt;  dS = P (dP - delta)
 *   dQ += dS K;  dVt += dOt P;  dKt += Qt dS;  the scale at the end.
 * K and V are brought into tiles once, queries a block of lanes at a time. The
 * sums over lanes begin with the first; P and dS are rounded to bf16. */
#include "backend/cpu/tile/cpu_t_attn.h"

enum {
    LANES = 512, /* many: each block of them goes through the sequence */
    KEYS = 128,  /* S and dP of one strip fill the first cache */
    STRIPS = LANES / SIDE,
    GROUPS = KEYS / SIDE /* <= MOST_GROUPS */
};

typedef struct space {
    int64_t chunks;
    float scale; /* log2(e) in it */
    /* The sequence: pairs of b and quads [groups, chunks]. */
    uint16_t *k, *v;  /* columns are keys */
    uint16_t *k_sum;  /* summed over keys */
    float *dkt, *dvt; /* rows along the head dimension */
    /* A block of lanes: pairs of a and quads [STRIPS, chunks]. */
    lanes *l;             /* [STRIPS] */
    uint16_t *q, *dout;   /* rows are lanes */
    uint16_t *qt, *doutt; /* summed over lanes */
    float *dq;
    float *lse, *delta; /* [LANES], lse of powers of two */
    /* A block of keys. */
    float *s, *dp;  /* [2, GROUPS] quads, of two strips in turn */
    uint16_t *p;    /* [STRIPS, GROUPS] pairs of b: columns are keys */
    uint16_t *ds;   /* the same of dS */
    uint16_t *ds_a; /* [STRIPS, GROUPS] pairs of a: rows are lanes */
} space;

static size_t place(space *s, void *memory, int head_dim, int64_t n)
{
    base_plan plan = {.base = memory};
    const size_t chunks = (size_t)in_32s(head_dim);
    const size_t sequence = (size_t)in_32s(n) * chunks, own = STRIPS * chunks;
    s->chunks = (int64_t)chunks;
    s->k = base_plan_take(&plan, sequence, PAIR * 2);
    s->v = base_plan_take(&plan, sequence, PAIR * 2);
    s->k_sum = base_plan_take(&plan, sequence, PAIR * 2);
    s->dkt = base_plan_take(&plan, sequence, QUAD * 4);
    s->dvt = base_plan_take(&plan, sequence, QUAD * 4);
    s->l = base_plan_take(&plan, STRIPS, sizeof *s->l);
    s->q = base_plan_take(&plan, own, PAIR * 2);
    s->dout = base_plan_take(&plan, own, PAIR * 2);
    s->qt = base_plan_take(&plan, own, PAIR * 2);
    s->doutt = base_plan_take(&plan, own, PAIR * 2);
    s->dq = base_plan_take(&plan, own, QUAD * 4);
    s->lse = base_plan_take(&plan, LANES, 4);
    s->delta = base_plan_take(&plan, LANES, 4);
    s->s = base_plan_take(&plan, 2 * GROUPS, QUAD * 4);
    s->dp = base_plan_take(&plan, 2 * GROUPS, QUAD * 4);
    s->p = base_plan_take(&plan, STRIPS * GROUPS, PAIR * 2);
    s->ds = base_plan_take(&plan, STRIPS * GROUPS, PAIR * 2);
    s->ds_a = base_plan_take(&plan, STRIPS * GROUPS, PAIR * 2);
    return plan.used;
}

int64_t CPU_NAME(cpu_attn_grad_bytes)(int head_dim, int64_t max_len)
{
    space s;
    return (int64_t)place(&s, NULL, head_dim, max_len);
}

static void pack_keys(const cpu_attn_grad *t, const space *s)
{
    const uint16_t *k = (const uint16_t *)(const void *)t->k;
    const uint16_t *v = (const uint16_t *)(const void *)t->v;
    const int64_t step = s->chunks * PAIR;
    for (int64_t j = 0; j < t->n; j += SIDE) {
        const int64_t n = least(t->n - j, SIDE), at = j / SIDE * step;
        keys_turned(s->k + at, k + j * t->ldk, t->ldk, t->head_dim, n);
        keys_turned(s->v + at, v + j * t->ldv, t->ldv, t->head_dim, n);
        keys_summed(s->k_sum + at, k + j * t->ldk, t->ldk, t->head_dim, n);
    }
}

/* ---- a strip of lanes ------------------------------------------------- */

/* Lanes whose sum is dO * O of a lane: dO from its row of pairs. */
INLINE vf row_product(const uint16_t *dout, const char *o, int d)
{
    const __m512i upper = _mm512_set1_epi32((int32_t)0xffff0000U);
    vf even = {0}, odd = {0};
    for (int i = 0; i < d; i += SIDE, dout += PAIR) {
        const __m512i a = _mm512_load_si512(dout);
        const __m512i b =
            _mm512_maskz_loadu_epi16(first_of_32(d - i), o + i * 2);
        even = madd((vf)_mm512_slli_epi32(a, 16), (vf)_mm512_slli_epi32(b, 16),
                    even);
        odd = madd((vf)_mm512_and_si512(a, upper),
                   (vf)_mm512_and_si512(b, upper), odd);
    }
    return even + odd;
}

/* lse and delta of the lanes; delta is also left in the caller's array. */
static void load_rows(const cpu_attn_grad *t, const space *s, int number)
{
    const lanes *l = s->l + number;
    const uint16_t *dout = s->dout + number * s->chunks * PAIR;
    float *lse = s->lse + number * SIDE, *delta = s->delta + number * SIDE;
    int64_t at[SIDE];
    vf row[SIDE];
    lanes_at(at, l, t->ldo * 2, l->d * 2);
    for (int i = 0; i < l->used; ++i)
        row[i] = row_product(dout + i * SIDE, t->o + at[i], l->d);
    for (int i = l->used; i < SIDE; ++i)
        row[i] = (vf){0};
    store(delta, rows_sum(row));
    store(delta + 16, rows_sum(row + 16));
    memset(lse, 0, SIDE * sizeof *lse);
    lanes_at(at, l, t->ldlse, 1);
    for (int i = 0; i < l->used; ++i)
        lse[i] = t->lse[at[i]] * LOG2E;
    lanes_at(at, l, t->lddelta, 1);
    for (int i = 0; i < l->used; ++i)
        t->delta[at[i]] = delta[i];
}

static void load_strip(const cpu_attn_grad *t, const space *s, int number)
{
    const lanes *l = s->l + number;
    const int64_t at = number * s->chunks * PAIR;
    lanes_load(s->q + at, l, t->q, t->ldq);
    lanes_load(s->dout + at, l, t->dout, t->lddo);
    for (int64_t i = at; i < at + s->chunks * PAIR; i += PAIR) {
        tile_a_turned(s->qt + i, s->qt + i + TILE, s->q + i, SIDE, SIDE, SIDE);
        tile_a_turned(s->doutt + i, s->doutt + i + TILE, s->dout + i, SIDE,
                      SIDE, SIDE);
    }
    load_rows(t, s, number);
}

/* P and dS of 16 keys in one lane, rounded. */
INLINE void keys_gradient(vu *p, vu *ds, const float *score, const float *slope,
                          vf scale, vf lse, vf delta, __mmask16 mask)
{
    const vf e = keep(mask, exp2_vf(madd(load(score), scale, -lse)));
    *p = rounded(e);
    *ds = rounded(keep(mask, e * (load(slope) - delta)));
}

/* P and dS of lanes `row` and row + 1, in words as their products want them. */
INLINE void rows_gradient(const space *s, const strip *u, int row)
{
    const int64_t quads = (u->number & 1) * GROUPS * QUAD;
    const int64_t pairs = u->number * GROUPS * PAIR, pair = row / 2 * SIDE;
    const float *score = quad_row(s->s + quads, row, 0);
    const float *slope = quad_row(s->dp + quads, row, 0);
    const float *lse = s->lse + u->number * SIDE + row;
    const float *delta = s->delta + u->number * SIDE + row;
    const vf scale = splat(s->scale), lses[2] = {splat(lse[0]), splat(lse[1])};
    const vf deltas[2] = {splat(delta[0]), splat(delta[1])};
    uint16_t *rows = s->ds_a + pairs + row * SIDE;
    uint16_t *p = s->p + pairs + pair, *ds = s->ds + pairs + pair;
    for (int g = u->begin; g < u->end; ++g) {
        const bool all = all_seen(u, g);
        vu e[2][2], d[2][2], words[2];
        for (int i = 0; i < 2; ++i) {
            const uint32_t mask = all ? 0xffffffffU : u->seen[g][row + i];
            for (int half = 0; half < 2; ++half) {
                const int64_t at = g * QUAD + i * 16 + half * RIGHT;
                keys_gradient(&e[i][half], &d[i][half], score + at, slope + at,
                              scale, lses[i], deltas[i],
                              (__mmask16)(mask >> 16 * half));
            }
            words[i] = words_of_upper(d[i][0], d[i][1]);
            store_words(rows + g * PAIR + i * SIDE, words[i]);
        }
        store_words(p + g * PAIR, words_of_upper(e[0][0], e[1][0]));
        store_words(p + g * PAIR + TILE, words_of_upper(e[0][1], e[1][1]));
        store_words(ds + g * PAIR, words_of_lower(words[0], words[1]));
        store_words(ds + g * PAIR + TILE, words_of_upper(words[0], words[1]));
    }
}

/* S = Q Kt and dP = dO Vt of a strip; keys from group `base` of the sequence
 * on. */
static void push_scores(queue *q, const space *s, const strip *u, int64_t base)
{
    const int64_t step = s->chunks * PAIR, own = u->number * step;
    for (int g = u->begin; g < u->end; ++g) {
        const int64_t quad = ((u->number & 1) * GROUPS + g) * QUAD;
        quad_product p = {.quad = s->s + quad,
                          .n = (int)s->chunks,
                          .a = s->q + own,
                          .a_step = PAIR,
                          .b = s->k + (base + g) * step,
                          .b_step = PAIR};
        queue_push(q, p);
        p.quad = s->dp + quad;
        p.a = s->dout + own;
        p.b = s->v + (base + g) * step;
        queue_push(q, p);
    }
}

/* dQ += dS K. */
static void push_dq(queue *q, const space *s, const strip *u, int64_t base)
{
    const int64_t step = s->chunks * PAIR;
    const int64_t at = u->number * GROUPS + u->begin;
    for (int64_t chunk = 0; chunk < s->chunks; ++chunk)
        queue_push(q,
                   (quad_product){
                       .quad = s->dq + (u->number * s->chunks + chunk) * QUAD,
                       .add = !u->fresh,
                       .n = u->end - u->begin,
                       .a = s->ds_a + at * PAIR,
                       .a_step = PAIR,
                       .b = s->k_sum + (base + u->begin) * step + chunk * PAIR,
                       .b_step = step});
}

/* ---- keys against a block of lanes ------------------------------------ */

/* dKt and dVt of a group of the block, from strips [begin, end). */
static void group_gradient(const space *s, int group, int64_t base, bool add,
                           int begin, int end)
{
    const int64_t step = s->chunks * PAIR;
    const int64_t b = (begin * GROUPS + group) * PAIR;
    for (int64_t chunk = 0; chunk < s->chunks; ++chunk) {
        const int64_t to = ((base + group) * s->chunks + chunk) * QUAD;
        const int64_t a = begin * step + chunk * PAIR;
        quad_product p = {.quad = s->dvt + to,
                          .add = add,
                          .n = end - begin,
                          .a = s->doutt + a,
                          .a_step = step,
                          .b = s->p + b,
                          .b_step = GROUPS * PAIR};
        multiply(&p);
        p.quad = s->dkt + to;
        p.a = s->qt + a;
        p.b = s->ds + b;
        multiply(&p);
    }
}

/* Strips [begin, end) of the lanes that see a group. */
typedef struct viewers {
    int begin, end;
} viewers;

/* P, dS and dQ of all strips that see keys [key, key + keys). While vectors
 * make P and dS of one strip, tiles multiply for the ones beside it. */
static void rows_of_block(const cpu_attn_grad *t, const space *s, int strips,
                          int64_t key, int keys, viewers *view)
{
    const int64_t base = key / SIDE;
    strip two[2];
    queue q = {.count = 0};
    int i = 0;
    while (!strip_set(&two[i % 2], s->l + i, i, 0, t->window, key, keys))
        ++i; /* some strip sees every block */
    push_scores(&q, s, &two[i % 2], base);
    queue_run(&q, 0);
    for (bool more = true; more; ++i) {
        const strip *u = &two[i % 2];
        strip *next = &two[(i + 1) % 2];
        more = i + 1 < strips &&
               strip_set(next, s->l + i + 1, i + 1, 0, t->window, key, keys);
        if (more)
            push_scores(&q, s, next, base);
        const int steps = q.left;
        for (int row = 0; row < SIDE; row += 2) {
            rows_gradient(s, u, row);
            queue_run(&q, steps * (SIDE - 2 - row) >> 5);
        }
        push_dq(&q, s, u, base);
        for (int g = u->begin; g < u->end; ++g) {
            view[g].begin = view[g].end ? view[g].begin : i;
            view[g].end = i + 1;
        }
    }
    queue_run(&q, 0);
}

/* Keys [key, key + keys) and the strips of the lanes from `lane` on. */
static void block_gradient(const cpu_attn_grad *t, const space *s, int64_t lane,
                           int strips, int64_t key, int keys)
{
    const int64_t before = lane ? (lane - 1) / t->heads : -1;
    viewers view[GROUPS] = {0};
    rows_of_block(t, s, strips, key, keys, view);
    for (int g = 0; g < GROUPS; ++g)
        if (view[g].end > 0)
            group_gradient(s, g, key / SIDE, key + g * SIDE <= before,
                           view[g].begin, view[g].end);
}

static void lanes_gradient(const cpu_attn_grad *t, const space *s, int64_t lane)
{
    const int64_t count = least(t->heads * t->n - lane, LANES);
    const int strips = (int)in_32s(count);
    const int64_t low = lane / t->heads, high = (lane + count - 1) / t->heads;
    float scale[SIDE];
    for (int i = 0; i < SIDE; ++i)
        scale[i] = t->scale;
    for (int i = 0; i < strips; ++i) {
        lanes_set(s->l + i, t->heads, t->head_dim, t->n, lane + i * SIDE);
        load_strip(t, s, i);
    }
    int64_t key = cpu_attn_first(low, t->window) / KEYS * KEYS;
    for (; key <= high; key += KEYS)
        block_gradient(t, s, lane, strips, key,
                       (int)least(high + 1 - key, KEYS));
    for (int i = 0; i < strips; ++i)
        lanes_store(t->dq, t->lddq, s->l + i, s->dq + i * s->chunks * QUAD,
                    scale);
}

/* ---- the sequence ------------------------------------------------------ */

/* The first `width` elements of the rows of n keys, ld elements apart, from the
 * quads of a transposed matrix. */
static void keys_store(char *x, int64_t ld, bool bf, float *quads,
                       int64_t chunks, int64_t n, int64_t width, float factor)
{
    const int64_t size = bf ? 2 : 4;
    for (int64_t j = 0; j < n; j += 16)
        for (int64_t i = 0; i < width; i += SIDE) {
            float *quad = quads + (j / SIDE * chunks + i / SIDE) * QUAD;
            char *to = x + (j * ld + i) * size;
            vf row[2][16];
            for (int half = 0; half < 2; ++half) {
                for (int c = 0; c < 16; ++c)
                    row[half][c] =
                        load(quad_row(quad, 16 * half + c, (int)(j / 16 % 2)));
                turn_square(row[half]);
            }
            for (int c = 0; c < least(n - j, 16); ++c, to += ld * size)
                store_32(to, row[0][c] * factor, row[1][c] * factor, width - i,
                         bf);
        }
}

void CPU_NAME(cpu_attn_grad)(const cpu_attn_grad *t, void *scratch)
{
    space s;
    place(&s, scratch, t->head_dim, t->n);
    s.scale = t->scale * LOG2E;
    pack_keys(t, &s);
    tile_start();
    for (int64_t lane = 0; lane < t->heads * t->n; lane += LANES)
        lanes_gradient(t, &s, lane);
    tile_stop();
    if (t->dk_part) {
        const int64_t ld = CPU_ROUND_UP(t->head_dim);
        keys_store((char *)t->dk_part, ld, false, s.dkt, s.chunks, t->n, ld,
                   t->scale);
        keys_store((char *)t->dv_part, ld, false, s.dvt, s.chunks, t->n, ld, 1);
    } else {
        keys_store(t->dk, t->lddk, true, s.dkt, s.chunks, t->n, t->head_dim,
                   t->scale);
        keys_store(t->dv, t->lddv, true, s.dvt, s.chunks, t->n, t->head_dim, 1);
    }
}
