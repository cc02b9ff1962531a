/* cpu_k_attn_row.c - attention of one row of queries, as decoding has it: those
 * of the heads that share keys and values; and the join of its parts. A matrix
 * of lanes (cpu_k_attn.c) would be mostly empty, so a query is a row here,
 * scored by dot products, with its softmax along the row. Keys and values are
 * read where they are; while a block's keys are used its values are asked for,
 * and then the next block's keys.
 *
 * Rows are taken in chunks of two vectors' elements. bf16 is opened as its even
 * elements and its odd ones, or multiplied as it lies where the processor can:
 * then P becomes bf16 too, and values go in pairs of keys. q and o have their
 * columns in the order of that. */
#include "backend/cpu/isa/cpu_k.h"
#include "backend/cpu/isa/cpu_k_keys.h"

enum {
    HEADS = CPU_HEADS,
    KEYS = CPU_KEYS,
    GROUP = 4, /* queries multiplied at once: registers */
    CHUNK = 2 * VL,
    AT_ONCE = VL == 16 ? 4 : 2, /* keys, for the same reason */
    WIDEST = 32,                /* the longest chunk */
    LINE = 64
};

/* What elements are, and how they are multiplied: a constant. */
typedef enum kind {
    FLOATS,
    OPENED, /* bf16, as floats */
    DOTS    /* bf16, by VDPBF16PS */
} kind;

typedef struct space {
    int d, wide; /* head dimension, and rounded up to whole chunks */
    float *q;    /* [HEADS, wide], of elements as they are multiplied */
    float *p;    /* [HEADS, KEYS]: scores, then P */
    float *o;    /* [HEADS, wide] */
    float *m, *sum;
} space;

INLINE int whole_chunks(int head_dim)
{
    return (head_dim + WIDEST - 1) / WIDEST * WIDEST;
}

int64_t CPU_NAME(cpu_attn_row_bytes)(int head_dim)
{
    return 4 * HEADS * (2 * (int64_t)whole_chunks(head_dim) + KEYS);
}

static space place(void *scratch, const cpu_attn_task *t)
{
    space s = {.d = t->head_dim, .wide = whole_chunks(t->head_dim)};
    s.q = scratch;
    s.o = s.q + HEADS * s.wide;
    s.p = s.o + HEADS * s.wide;
    s.m = t->part;
    s.sum = t->part + HEADS;
    return s;
}

/* The same for queries from `first` on. */
INLINE space group_at(const space *s, int first)
{
    space g = *s;
    g.q += first * s->wide;
    g.o += first * s->wide;
    g.p += first * KEYS;
    return g;
}

INLINE int64_t size_of(kind as)
{
    return as == FLOATS ? 4 : 2;
}

/* ---- chunks ----------------------------------------------------------- */

/* `count` elements of a row from element i on, as floats; then zeros. */
INLINE void open_chunk(vf *x, const char *row, int i, int count, kind as)
{
    if (as == FLOATS) {
        const float *at = (const float *)(const void *)row + i;
        x[0] = get(at, 0, count < VL ? count : VL, false);
        x[1] = count == CHUNK ? load(at + VL)
               : count > VL   ? get(at, VL, count - VL, false)
                              : (vf){0};
        return;
    }
    vu pairs = {0};
    memcpy(&pairs, row + 2 * i,
           count == CHUNK ? sizeof pairs : (size_t)count * 2);
    x[0] = expand_pairs(pairs, 0);
    x[1] = expand_pairs(pairs, 1);
}

#if defined(CPU_ISA_avx512bf16)

INLINE __m512i load_chunk(const char *row, int i, int count)
{
    return count == CHUNK
               ? _mm512_loadu_si512(row + 2 * i)
               : _mm512_maskz_loadu_epi16((1U << count) - 1, row + 2 * i);
}

INLINE vf dot_pairs(vf sum, __m512i a, __m512i b)
{
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

/* Two vectors of o, its elements as VPUNPCK leaves them, in their order. */
INLINE void in_order_dots(vf *low, vf *high)
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6,
                                            7, 20, 21, 22, 23);
    const __m512i last = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13,
                                           14, 15, 28, 29, 30, 31);
    const __m512 a = (__m512)*low, b = (__m512)*high;
    *low = (vf)_mm512_permutex2var_ps(a, first, b);
    *high = (vf)_mm512_permutex2var_ps(a, last, b);
}

#endif

/* Even elements and odd ones, in their order. */
INLINE void in_order(vf *low, vf *high)
{
#if VL == 16
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                            5, 21, 6, 22, 7, 23);
    const __m512i last = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                           13, 29, 14, 30, 15, 31);
    const __m512 a = (__m512)*low, b = (__m512)*high;
    *low = (vf)_mm512_permutex2var_ps(a, first, b);
    *high = (vf)_mm512_permutex2var_ps(a, last, b);
#elif VL == 8
    const __m256 a = _mm256_unpacklo_ps((__m256)*low, (__m256)*high);
    const __m256 b = _mm256_unpackhi_ps((__m256)*low, (__m256)*high);
    *low = (vf)_mm256_permute2f128_ps(a, b, 0x20);
    *high = (vf)_mm256_permute2f128_ps(a, b, 0x31);
#else
    const __m128 a = (__m128)*low, b = (__m128)*high;
    *low = (vf)_mm_unpacklo_ps(a, b);
    *high = (vf)_mm_unpackhi_ps(a, b);
#endif
}

INLINE void load_queries(const space *s, const cpu_attn_task *t, kind as)
{
    for (int c = 0; c < t->heads; ++c) {
        const char *row =
            t->q + (t->first * t->ldq + (int64_t)c * s->d) * size_of(as);
        for (int i = 0; i < s->d; i += CHUNK) {
            const int count = s->d - i < CHUNK ? s->d - i : CHUNK;
            float *q = s->q + c * s->wide + i;
#if defined(CPU_ISA_avx512bf16)
            if (as == DOTS) {
                _mm512_store_si512(q, load_chunk(row, i, count));
                continue;
            }
#endif
            vf x[2];
            open_chunk(x, row, i, count, as);
            store(q, x[0]);
            store(q + VL, x[1]);
        }
    }
}

/* ---- a block of keys --------------------------------------------------- */

/* Where keys and values lie; from n on those of the last one, so that every
 * place may be read. */
typedef struct block {
    int n;
    const char *k[KEYS], *v[KEYS];
} block;

/* The block of the task's keys that begins at `key`. */
INLINE void find_block(block *b, const cpu_attn_task *t, int64_t key, kind as)
{
    const int64_t k_step = t->ldk * size_of(as), v_step = t->ldv * size_of(as);
    const int64_t left = t->key_end - key;
    b->n = (int)(left < KEYS ? left : KEYS);
    for (int j = 0; j < b->n;) {
        int64_t rows;
        const int64_t row = key_run(t->table, t->page, key + j, &rows);
        const char *k = t->k + row * k_step, *v = t->v + row * v_step;
        for (; j < b->n && rows > 0; --rows, ++j, k += k_step, v += v_step) {
            b->k[j] = k;
            b->v[j] = v;
        }
    }
    for (int j = b->n; j < KEYS; ++j) {
        b->k[j] = b->k[b->n - 1];
        b->v[j] = b->v[b->n - 1];
    }
}

/* `bytes` of each of n rows, from byte `at` on. */
INLINE void fetch(const char *const *row, int n, int64_t at, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += LINE)
        for (int w = 0; w < n; ++w)
            __builtin_prefetch(row[w] + at + i);
}

/* ---- scores ------------------------------------------------------------ */

/* Sums of neighbours: a's in the lower half of every 128 bits, then b's. */
INLINE vf add_neighbours(vf a, vf b)
{
#if VL == 16
    return (vf)_mm512_shuffle_ps((__m512)a, (__m512)b, 0x88) +
           (vf)_mm512_shuffle_ps((__m512)a, (__m512)b, 0xdd);
#elif VL == 8
    return (vf)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88) +
           (vf)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd);
#else
    return (vf)_mm_shuffle_ps((__m128)a, (__m128)b, 0x88) +
           (vf)_mm_shuffle_ps((__m128)a, (__m128)b, 0xdd);
#endif
}

/* Of AT_ONCE keys' sums, what add_keys() takes. */
INLINE vf fold(const vf *sum)
{
    const vf two = add_neighbours(sum[0], sum[1]);
    return AT_ONCE == 2 ? two
                        : add_neighbours(two, add_neighbours(sum[AT_ONCE - 2],
                                                             sum[AT_ONCE - 1]));
}

/* Lane i: the sum of key i's lanes. */
INLINE vf add_keys(const vf *folded)
{
#if VL == 16
    const __m512 a = (__m512)folded[0], b = (__m512)folded[1];
    const __m512 c = (__m512)folded[2], d = (__m512)folded[3];
    const vf ab = (vf)_mm512_shuffle_f32x4(a, b, 0x44) +
                  (vf)_mm512_shuffle_f32x4(a, b, 0xee);
    const vf cd = (vf)_mm512_shuffle_f32x4(c, d, 0x44) +
                  (vf)_mm512_shuffle_f32x4(c, d, 0xee);
    return (vf)_mm512_shuffle_f32x4((__m512)ab, (__m512)cd, 0x88) +
           (vf)_mm512_shuffle_f32x4((__m512)ab, (__m512)cd, 0xdd);
#elif VL == 8
    const __m256 a = (__m256)add_neighbours(folded[0], folded[1]);
    const __m256 b = (__m256)add_neighbours(folded[2], folded[3]);
    return (vf)_mm256_permute2f128_ps(a, b, 0x20) +
           (vf)_mm256_permute2f128_ps(a, b, 0x31);
#else
    return add_neighbours(folded[0], folded[1]);
#endif
}

/* sum[c][w] += the chunk at i of q_c times that of key w. */
INLINE void dot(int used, vf (*sum)[AT_ONCE], const space *s,
                const char *const *k, int i, int count, kind as)
{
#if defined(CPU_ISA_avx512bf16)
    if (as == DOTS) {
        __m512i x[AT_ONCE];
        for (int w = 0; w < AT_ONCE; ++w)
            x[w] = load_chunk(k[w], i, count);
        for (int c = 0; c < used; ++c) {
            const __m512i q = _mm512_load_si512(s->q + c * s->wide + i);
            for (int w = 0; w < AT_ONCE; ++w)
                sum[c][w] = dot_pairs(sum[c][w], q, x[w]);
        }
        return;
    }
#endif
    vf x[AT_ONCE][2];
    for (int w = 0; w < AT_ONCE; ++w)
        open_chunk(x[w], k[w], i, count, as);
    for (int c = 0; c < used; ++c)
        for (int half = 0; half < 2; ++half) {
            const vf q = load(s->q + c * s->wide + i + half * VL);
            for (int w = 0; w < AT_ONCE; ++w)
                sum[c][w] = madd(q, x[w][half], sum[c][w]);
        }
}

/* p = scale q . k; values are asked for meanwhile. */
INLINE void scores(int used, const space *s, const block *b, float scale,
                   kind as)
{
    const int whole = s->d / CHUNK * CHUNK;
    const int64_t bytes = s->d * size_of(as);
    for (int key = 0; key < b->n; key += VL) {
        vf folded[GROUP][VL / AT_ONCE];
        for (int j = 0; j < VL; j += AT_ONCE) {
            const char *const *k = b->k + key + j;
            vf sum[GROUP][AT_ONCE];
            for (int c = 0; c < used; ++c)
                for (int w = 0; w < AT_ONCE; ++w)
                    sum[c][w] = (vf){0};
            for (int i = 0; i < whole; i += CHUNK)
                dot(used, sum, s, k, i, CHUNK, as);
            if (whole < s->d)
                dot(used, sum, s, k, whole, s->d - whole, as);
            fetch(b->v + key + j, AT_ONCE, 0, bytes);
            for (int c = 0; c < used; ++c)
                folded[c][j / AT_ONCE] = fold(sum[c]);
        }
        for (int c = 0; c < used; ++c)
            store(s->p + c * KEYS + key, add_keys(folded[c]) * scale);
    }
}

/* ---- softmax ----------------------------------------------------------- */

/* P of a query's scores of the n keys of a block; what was summed before is
 * scaled down to the new maximum. */
static void softmax(const space *s, int c, int n, kind as)
{
    float *p = s->p + c * KEYS, *o = s->o + c * s->wide;
    vi lane;
    for (int i = 0; i < VL; ++i)
        lane[i] = i;
    const float old = s->m[c];
    vf top = splat(old);
    for (int j = 0; j < n; j += VL) {
        if (j + VL > n)
            store(p + j, pick(lane + j < n, load(p + j), splat(-INFINITY)));
        top = larger(load(p + j), top);
    }
    /* Where no score is finite yet: -inf - -inf must not be NaN. */
    const float m = lanes_max(top), base = m == -INFINITY ? 0 : m;
    vf sum = {0};
    for (int j = 0; j < n; j += VL) {
        const vf e = exp_vf(load(p + j) - base);
        if (as == DOTS) {
            const vh bits = shrink_f32(e);
            memcpy((uint16_t *)p + j, &bits, sizeof bits);
        } else {
            store(p + j, e);
        }
        sum += e;
    }
    if (m != old) {
        const vf keep = exp_vf(splat(old - base));
        s->sum[c] *= keep[0];
        for (int i = 0; i < s->wide; i += VL)
            store(o + i, load(o + i) * keep);
    }
    s->m[c] = m;
    s->sum[c] += lanes_sum(sum);
}

/* ---- values ------------------------------------------------------------ */

/* Chunks of o that stay in registers while a block's values pass. */
INLINE int chunks_of(int used)
{
    if (VL == 16)
        return used <= 2 ? 4 : 2;
    return used == 1 ? 4 : used == 2 ? 2 : 1;
}
enum { MOST_CHUNKS = 4 };

#if defined(CPU_ISA_avx512bf16)

/* sum[c] += P of keys j and j + 1 times their values. */
INLINE void add_pair(int used, int chunks, vf (*sum)[2 * MOST_CHUNKS],
                     const space *s, const block *b, int j, int i, int count)
{
    __m512i x[2 * MOST_CHUNKS];
    for (int w = 0; w < chunks; ++w) {
        const __m512i even = load_chunk(b->v[j], i + w * CHUNK, count);
        const __m512i odd = load_chunk(b->v[j + 1], i + w * CHUNK, count);
        x[2 * w] = _mm512_unpacklo_epi16(even, odd);
        x[2 * w + 1] = _mm512_unpackhi_epi16(even, odd);
    }
    for (int c = 0; c < used; ++c) {
        int32_t pair;
        memcpy(&pair, (const uint16_t *)(s->p + c * KEYS) + j, sizeof pair);
        const __m512i p = _mm512_set1_epi32(pair);
        for (int w = 0; w < 2 * chunks; ++w)
            sum[c][w] = dot_pairs(sum[c][w], p, x[w]);
    }
}

#endif

INLINE void add_key(int used, int chunks, vf (*sum)[2 * MOST_CHUNKS],
                    const space *s, const block *b, int j, int i, int count,
                    kind as)
{
    for (int w = 0; w < chunks; ++w) {
        vf x[2];
        open_chunk(x, b->v[j], i + w * CHUNK, count, as);
        for (int c = 0; c < used; ++c) {
            const vf p = splat(s->p[c * KEYS + j]);
            for (int half = 0; half < 2; ++half)
                sum[c][2 * w + half] = madd(p, x[half], sum[c][2 * w + half]);
        }
    }
}

/* o += P V in `chunks` chunks of columns from i on, whole ones or one of
 * `count` columns; the next block's keys are asked for meanwhile. */
INLINE void columns(int used, int chunks, const space *s, const block *b, int i,
                    int count, const block *next, kind as)
{
    const int64_t at = i * size_of(as), bytes = chunks * CHUNK * size_of(as);
    vf sum[GROUP][2 * MOST_CHUNKS];
    for (int c = 0; c < used; ++c)
        for (int w = 0; w < 2 * chunks; ++w)
            sum[c][w] = load(s->o + c * s->wide + i + w * VL);
    const int step = as == DOTS ? 2 : 1;
    for (int j = 0; j < b->n; j += step) {
        fetch(next->k + j, step, at, bytes);
#if defined(CPU_ISA_avx512bf16)
        if (as == DOTS)
            add_pair(used, chunks, sum, s, b, j, i, count);
        else
#endif
            add_key(used, chunks, sum, s, b, j, i, count, as);
    }
    for (int c = 0; c < used; ++c)
        for (int w = 0; w < 2 * chunks; ++w)
            store(s->o + c * s->wide + i + w * VL, sum[c][w]);
}

INLINE void values(int used, const space *s, const block *b, const block *next,
                   kind as)
{
    const int most = chunks_of(used);
    int i = 0;
    for (; i + most * CHUNK <= s->d; i += most * CHUNK)
        columns(used, most, s, b, i, CHUNK, next, as);
    for (; most > 2 && i + 2 * CHUNK <= s->d; i += 2 * CHUNK)
        columns(used, 2, s, b, i, CHUNK, next, as);
    for (; i + CHUNK <= s->d; i += CHUNK)
        columns(used, 1, s, b, i, CHUNK, next, as);
    if (i < s->d)
        columns(used, 1, s, b, i, s->d - i, next, as);
}

/* ---- all of it --------------------------------------------------------- */

/* Runs `body`, an INLINE function's call, with the number of a group's queries
 * as a constant. */
#define FOR_USED(used, body)                                                   \
    switch (used) {                                                            \
    case 1: {                                                                  \
        enum { USED = 1 };                                                     \
        body;                                                                  \
        break;                                                                 \
    }                                                                          \
    case 2: {                                                                  \
        enum { USED = 2 };                                                     \
        body;                                                                  \
        break;                                                                 \
    }                                                                          \
    case 3: {                                                                  \
        enum { USED = 3 };                                                     \
        body;                                                                  \
        break;                                                                 \
    }                                                                          \
    default: {                                                                 \
        enum { USED = GROUP };                                                 \
        body;                                                                  \
        break;                                                                 \
    }                                                                          \
    }

INLINE void attend_block(const space *s, const cpu_attn_task *t, const block *b,
                         const block *next, kind as)
{
    const int heads = t->heads, groups = (heads + GROUP - 1) / GROUP;
    for (int g = 0; g < groups; ++g) {
        const int first = heads * g / groups;
        const space at = group_at(s, first);
        FOR_USED(heads * (g + 1) / groups - first,
                 scores(USED, &at, b, t->scale, as))
    }
    for (int c = 0; c < heads; ++c)
        softmax(s, c, b->n, as);
    for (int g = 0; g < groups; ++g) {
        const int first = heads * g / groups;
        const space at = group_at(s, first);
        FOR_USED(heads * (g + 1) / groups - first,
                 values(USED, &at, b, next, as))
    }
}

/* Keys [t->key, t->key_end). */
INLINE void attend(const space *s, const cpu_attn_task *t, kind as)
{
    block blocks[2];
    int now = 0;
    find_block(&blocks[0], t, t->key, as);
    fetch(blocks[0].k, blocks[0].n, 0, s->d * size_of(as));
    for (int64_t key = t->key; key < t->key_end; now = !now) {
        const block *b = &blocks[now], *next = &blocks[!now];
        const int64_t after = key + b->n;
        if (after < t->key_end)
            find_block(&blocks[!now], t, after, as);
        else if (t->next)
            find_block(&blocks[!now], t->next, t->next->key, as);
        else
            next = b; /* nothing new */
        attend_block(s, t, b, next, as);
        key = after;
    }
}

/* o in its order, to the part. */
INLINE void write_part(const space *s, const cpu_attn_task *t, kind as)
{
    const int64_t ld = CPU_ROUND_UP(s->d);
    for (int c = 0; c < t->heads; ++c)
        for (int i = 0; i < ld; i += CHUNK) {
            const float *o = s->o + c * s->wide + i;
            float *to = t->part + 2 * HEADS + c * ld + i;
            vf low = load(o), high = load(o + VL);
#if defined(CPU_ISA_avx512bf16)
            if (as == DOTS)
                in_order_dots(&low, &high);
#endif
            if (as == OPENED)
                in_order(&low, &high);
            store(to, low);
            if (i + VL < ld)
                store(to + VL, high);
        }
}

INLINE void row_as(const space *s, const cpu_attn_task *t, kind as)
{
    load_queries(s, t, as);
    attend(s, t, as);
    write_part(s, t, as);
}

void CPU_NAME(cpu_attn_row)(const cpu_attn_task *t, void *scratch)
{
    const space s = place(scratch, t);
    memset(s.o, 0, (size_t)(t->heads * s.wide) * sizeof(float));
    for (int c = 0; c < t->heads; ++c) {
        s.m[c] = -INFINITY;
        s.sum[c] = 0;
    }
    if (!t->bf)
        row_as(&s, t, FLOATS);
    else
#if defined(CPU_ISA_avx512bf16)
        row_as(&s, t, DOTS);
#else
        row_as(&s, t, OPENED);
#endif
}

/* ---- parts ------------------------------------------------------------- */

/* Query c of the n parts at t->part: o [D rounded up], not yet divided by what
 * is returned, its sum of exponentials; *max: their maximum. */
static float join_parts(const cpu_attn_task *t, int64_t n, int c, float *o,
                        float *max)
{
    const int64_t ld = CPU_ROUND_UP(t->head_dim);
    const int64_t each = cpu_attn_part_floats(t->head_dim);
    float m = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; ++i)
        m = t->part[i * each + c] > m ? t->part[i * each + c] : m;
    memset(o, 0, (size_t)ld * sizeof *o);
    for (int64_t i = 0; i < n; ++i) {
        const float *part = t->part + i * each;
        const float *from = part + 2 * HEADS + c * ld;
        const vf keep = exp_vf(splat(part[c] - m));
        sum += part[HEADS + c] * keep[0];
        for (int64_t at = 0; at < ld; at += VL)
            store(o + at, madd(load(from + at), keep, load(o + at)));
    }
    *max = m;
    return sum;
}

void CPU_NAME(cpu_attn_join)(const cpu_attn_task *t, int64_t n, void *scratch)
{
    const int64_t size = t->bf ? 2 : 4;
    float *o = scratch;
    for (int c = 0; c < t->heads; ++c) {
        char *to = t->o + (t->first * t->ldo + (int64_t)c * t->head_dim) * size;
        float m;
        const float sum = join_parts(t, n, c, o, &m);
        FOR_VECTORS(i, count, t->head_dim)
        put(to, i, load(o + i) * (1.0f / sum), count, t->bf);
        if (t->lse)
            t->lse[t->first * t->ldlse + c] = m + logf(sum);
    }
}
