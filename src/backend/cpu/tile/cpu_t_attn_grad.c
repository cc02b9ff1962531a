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
    KEYS = 128,  /* S and dP of a strip lie in the first cache */
    STRIPS = LANES / SIDE,
    GROUPS = KEYS / SIDE
};

typedef struct space {
    int64_t chunks;
    /* The sequence: pairs of b and quads [groups, chunks]. */
    uint16_t *k, *v;  /* columns are keys */
    uint16_t *k_sum;  /* summed over keys */
    float *dkt, *dvt; /* rows along the head dimension */
    /* A block of lanes: pairs of a and quads [STRIPS, chunks]. */
    uint16_t *q, *dout;   /* rows are lanes */
    uint16_t *qt, *doutt; /* summed over lanes */
    float *dq;
    float *lse, *delta; /* [LANES], lse of powers of two */
    /* A block of keys. */
    float *s, *dp;  /* [GROUPS] quads, of one strip */
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
    s->q = base_plan_take(&plan, own, PAIR * 2);
    s->dout = base_plan_take(&plan, own, PAIR * 2);
    s->qt = base_plan_take(&plan, own, PAIR * 2);
    s->doutt = base_plan_take(&plan, own, PAIR * 2);
    s->dq = base_plan_take(&plan, own, QUAD * 4);
    s->lse = base_plan_take(&plan, LANES, 4);
    s->delta = base_plan_take(&plan, LANES, 4);
    s->s = base_plan_take(&plan, GROUPS, QUAD * 4);
    s->dp = base_plan_take(&plan, GROUPS, QUAD * 4);
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

typedef struct strip {
    lanes l;
    int number;     /* within the block of lanes */
    int begin, end; /* groups of the block of keys that any lane sees */
    bool fresh;     /* no keys before these */
    float scale;    /* log2(e) in it */
    seen seen[SIDE];
} strip;

static lanes lanes_of(const cpu_attn_grad *t, int64_t from)
{
    return (lanes){t->heads, t->head_dim, from,
                   (int)least(t->heads * t->n - from, SIDE)};
}

/* lse and delta of the lanes; delta is also left in the caller's array. */
static void load_rows(const cpu_attn_grad *t, const space *s, const lanes *l,
                      int number)
{
    const uint16_t *dout = s->dout + number * s->chunks * PAIR;
    float *lse = s->lse + number * SIDE, *delta = s->delta + number * SIDE;
    for (int c = 0; c < SIDE; c += 16) {
        vf row[16] = {0};
        for (int j = 0; j < 16 && c + j < l->used; ++j) {
            const char *o = t->o + lane_at(l, c + j, t->ldo) * 2;
            for (int i = 0; i < l->d; i += 16)
                row[j] += get(o, i, least(l->d - i, 16), true) *
                          load_any(dout + i / SIDE * PAIR + (c + j) * SIDE,
                                   i % SIDE, true);
        }
        store(delta + c, rows_sum(row));
    }
    for (int c = 0; c < SIDE; ++c) {
        const int64_t lane = l->from + c, row = lane / t->heads;
        lse[c] = 0;
        if (c >= l->used)
            continue;
        lse[c] = t->lse[row * t->ldlse + lane % t->heads] * LOG2E;
        t->delta[row * t->lddelta + lane % t->heads] = delta[c];
    }
}

static void load_strip(const cpu_attn_grad *t, const space *s, const lanes *l,
                       int number)
{
    const int64_t at = number * s->chunks * PAIR;
    lanes_load(s->q + at, l, t->q, t->ldq);
    lanes_load(s->dout + at, l, t->dout, t->lddo);
    for (int64_t i = at; i < at + s->chunks * PAIR; i += PAIR) {
        tile_a_turned(s->qt + i, s->qt + i + TILE, s->q + i, SIDE, SIDE, SIDE);
        tile_a_turned(s->doutt + i, s->doutt + i + TILE, s->dout + i, SIDE,
                      SIDE, SIDE);
    }
    load_rows(t, s, l, number);
}

/* What the lanes of a strip see of a block of keys; false: nothing. */
static bool look(strip *u, const cpu_attn_grad *t, int64_t lane, int number,
                 int64_t key, int keys)
{
    u->l = lanes_of(t, lane + number * SIDE);
    u->number = number;
    u->scale = t->scale * LOG2E;
    for (int i = 0; i < SIDE; ++i) {
        int64_t position = (u->l.from + i) / t->heads;
        u->seen[i] = i < u->l.used ? seen_from(position, t->window, key, keys)
                                   : (seen){0, 0};
        if (i == 0)
            u->fresh = first_seen(position, t->window) >= key;
    }
    u->begin = u->seen[0].from / SIDE;
    u->end = (int)in_32s(u->seen[u->l.used - 1].to);
    return u->begin < u->end;
}

/* P and dS of half a group of keys in one lane, rounded. */
INLINE void row_gradient(vu *p, vu *ds, const space *s, const strip *u, int row,
                         int group, int half, __mmask16 mask)
{
    const int lane = u->number * SIDE + row;
    const vf score = load(quad_row(s->s + group * QUAD, row, half));
    const vf slope =
        load(quad_row(s->dp + group * QUAD, row, half)) - splat(s->delta[lane]);
    const vf e =
        keep(mask, exp2_vf(madd(score, splat(u->scale), -splat(s->lse[lane]))));
    *p = rounded(e);
    *ds = rounded(keep(mask, e * slope));
}

/* P and dS of two lanes, in words as their products want them. */
INLINE void rows_gradient(const space *s, const strip *u, int row, int group)
{
    const int64_t at = (u->number * GROUPS + group) * PAIR;
    const int64_t pair = at + row / 2 * SIDE;
    vu p[2][2], ds[2][2], words[2];
    for (int i = 0; i < 2; ++i) {
        const __mmask32 mask = seen_of_group(u->seen[row + i], group);
        for (int half = 0; half < 2; ++half)
            row_gradient(&p[i][half], &ds[i][half], s, u, row + i, group, half,
                         (__mmask16)(mask >> 16 * half));
        words[i] = words_of_upper(ds[i][0], ds[i][1]);
        _mm512_store_si512(s->ds_a + at + (row + i) * SIDE, (__m512i)words[i]);
    }
    for (int half = 0; half < 2; ++half)
        _mm512_store_si512(s->p + pair + half * TILE,
                           (__m512i)words_of_upper(p[0][half], p[1][half]));
    _mm512_store_si512(s->ds + pair,
                       (__m512i)words_of_lower(words[0], words[1]));
    _mm512_store_si512(s->ds + pair + TILE,
                       (__m512i)words_of_upper(words[0], words[1]));
}

/* P, dS and dQ of a strip; keys from group `base` of the sequence on. */
static void strip_gradient(const space *s, const strip *u, int64_t base)
{
    const int64_t step = s->chunks * PAIR, own = u->number * step;
    for (int g = u->begin; g < u->end; ++g) {
        quad_multiply(s->s + g * QUAD, false, s->q + own, PAIR,
                      s->k + (base + g) * step, PAIR, s->chunks);
        quad_multiply(s->dp + g * QUAD, false, s->dout + own, PAIR,
                      s->v + (base + g) * step, PAIR, s->chunks);
    }
    for (int row = 0; row < SIDE; row += 2)
        for (int g = u->begin; g < u->end; ++g)
            rows_gradient(s, u, row, g);
    for (int64_t chunk = 0; chunk < s->chunks; ++chunk)
        quad_multiply(s->dq + (u->number * s->chunks + chunk) * QUAD, !u->fresh,
                      s->ds_a + (u->number * GROUPS + u->begin) * PAIR, PAIR,
                      s->k_sum + (base + u->begin) * step + chunk * PAIR, step,
                      u->end - u->begin);
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
        quad_multiply(s->dvt + to, add, s->doutt + a, step, s->p + b,
                      GROUPS * PAIR, end - begin);
        quad_multiply(s->dkt + to, add, s->qt + a, step, s->ds + b,
                      GROUPS * PAIR, end - begin);
    }
}

/* Keys [key, key + keys) and the strips of the lanes from `lane` on. */
static void block_gradient(const cpu_attn_grad *t, const space *s, int64_t lane,
                           int strips, int64_t key, int keys)
{
    int begin[GROUPS], end[GROUPS] = {0}; /* strips that see a group */
    const int64_t before = lane ? (lane - 1) / t->heads : -1;
    for (int i = 0; i < strips; ++i) {
        strip u;
        if (!look(&u, t, lane, i, key, keys))
            continue;
        strip_gradient(s, &u, key / SIDE);
        for (int g = u.begin; g < u.end; ++g) {
            if (end[g] == 0)
                begin[g] = i;
            end[g] = i + 1;
        }
    }
    for (int g = 0; g < GROUPS; ++g)
        if (end[g] > 0)
            group_gradient(s, g, key / SIDE, key + g * SIDE <= before, begin[g],
                           end[g]);
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
        const lanes l = lanes_of(t, lane + i * SIDE);
        load_strip(t, s, &l, i);
    }
    int64_t key = first_seen(low, t->window) / KEYS * KEYS;
    for (; key <= high; key += KEYS)
        block_gradient(t, s, lane, strips, key,
                       (int)least(high + 1 - key, KEYS));
    for (int i = 0; i < strips; ++i) {
        const lanes l = lanes_of(t, lane + i * SIDE);
        lanes_store(t->dq, t->lddq, &l, s->dq + i * s->chunks * QUAD, scale);
    }
}

/* ---- the sequence ------------------------------------------------------ */

/* Rows of keys, ld elements apart, from the quads of a transposed matrix; of
 * 16 columns at a time the first `width`. */
static void keys_store(char *x, int64_t ld, bool bf, float *quads,
                       int64_t chunks, int64_t n, int64_t width, float factor)
{
    const int64_t size = bf ? 2 : 4;
    for (int64_t j = 0; j < n; j += 16)
        for (int64_t i = 0; i < width; i += 16) {
            float *quad = quads + (j / SIDE * chunks + i / SIDE) * QUAD;
            vf row[16];
            for (int c = 0; c < 16; ++c)
                row[c] = load(
                    quad_row(quad, (int)(i % SIDE) + c, (int)(j % SIDE / 16)));
            turn_square(row);
            for (int c = 0; c < least(n - j, 16); ++c)
                put(x + (j + c) * ld * size, i, row[c] * factor,
                    least(width - i, 16), bf);
        }
}

void CPU_NAME(cpu_attn_grad)(const cpu_attn_grad *t, void *scratch)
{
    space s;
    place(&s, scratch, t->head_dim, t->n);
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
