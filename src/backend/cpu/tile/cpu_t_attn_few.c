/* cpu_t_attn_few.c - attention of few queries with AVX512_BF16, as decoding has
 * it: keys and values are read where they are, once for all queries. Scores are
 * products of bf16 as they lie. P becomes bf16, two keys in a word, and so do
 * values of two keys: even and odd ones side by side, which leaves o's columns
 * in the order of that until the end. */
#include "backend/cpu/isa/cpu_k_keys.h"
#include "backend/cpu/tile/cpu_t.h"

#ifdef CPU_TILE_VECTORS

enum { FEW = CPU_ATTN_FEW, KEYS = CPU_KEYS, CHUNK = 32 };
enum { AT_ONCE = 4 }; /* keys, and vectors of o */

typedef struct space {
    int d, wide;  /* head dimension, and rounded up to whole chunks */
    uint16_t *q;  /* [FEW, wide] */
    float *p;     /* [FEW, KEYS] */
    uint16_t *pb; /* the same in bf16 */
    float *o;     /* [FEW, wide] */
    float *m, *sum;
} space;

INLINE int whole_chunks(int head_dim)
{
    return (head_dim + CHUNK - 1) / CHUNK * CHUNK;
}

int64_t CPU_NAME(cpu_attn_few_bytes)(int head_dim)
{
    return FEW * (6 * (int64_t)whole_chunks(head_dim) + 6 * KEYS);
}

static space place(void *scratch, const cpu_attn_task *t)
{
    space s = {.d = t->head_dim, .wide = whole_chunks(t->head_dim)};
    s.o = scratch;
    s.p = s.o + FEW * s.wide;
    s.q = (uint16_t *)(void *)(s.p + FEW * KEYS);
    s.pb = s.q + FEW * s.wide;
    s.m = t->part;
    s.sum = t->part + FEW;
    return s;
}

/* Query c is row c % n of head c / n, as attn_join() has it. */
static void load_queries(const space *s, const cpu_attn_task *t, int used)
{
    const uint16_t *q = (const uint16_t *)(const void *)t->q;
    for (int c = 0; c < used; ++c) {
        const uint16_t *row =
            q + (t->first + c % t->n) * t->ldq + c / t->n * s->d;
        for (int i = 0; i < s->wide; i += CHUNK)
            _mm512_store_si512(
                s->q + c * s->wide + i,
                _mm512_maskz_loadu_epi16(first_of_32(s->d - i), row + i));
    }
}

/* Keys or values of a block of n keys, and where each lies. */
typedef struct rows {
    const uint16_t *x;
    int64_t ld;
    const int64_t *at; /* [KEYS] */
    int n;
} rows;

INLINE const uint16_t *row_at(const rows *r, int j)
{
    return r->x + r->at[j] * r->ld;
}

INLINE void fetch(const rows *r, int j, int d)
{
    for (int64_t i = 0; i < d && j < r->n; i += LINE / 2)
        __builtin_prefetch(row_at(r, j) + i);
}

/* Rows of keys [key, key + n); the last one again up to a full vector. */
static void find_rows(const cpu_attn_task *t, int64_t key, int n, int64_t *at)
{
    key_walk walk = {.table = t->table, .page = t->page};
    for (int j = 0; j < n; ++j)
        at[j] = key_row(&walk, key + j);
    for (int j = n; j % VL; ++j)
        at[j] = at[n - 1];
}

INLINE __m512i load_chunk(const uint16_t *p, int left)
{
    return left >= CHUNK ? _mm512_loadu_si512(p)
                         : _mm512_maskz_loadu_epi16(first_of_32(left), p);
}

/* p = scale q . k; the values are fetched meanwhile. */
INLINE void scores(int used, const space *s, const rows *k, const rows *v,
                   float scale)
{
    for (int key = 0; key < k->n; key += VL) {
        vf sum[FEW][VL];
        for (int j = 0; j < VL; j += AT_ONCE) {
            __m512 acc[FEW][AT_ONCE];
            for (int c = 0; c < used; ++c)
                for (int w = 0; w < AT_ONCE; ++w)
                    acc[c][w] = _mm512_setzero_ps();
            for (int i = 0; i < s->d; i += CHUNK) {
                __m512i x[AT_ONCE];
                for (int w = 0; w < AT_ONCE; ++w)
                    x[w] = load_chunk(row_at(k, key + j + w) + i, s->d - i);
                for (int c = 0; c < used; ++c) {
                    const __m512i q = _mm512_load_si512(s->q + c * s->wide + i);
                    for (int w = 0; w < AT_ONCE; ++w)
                        acc[c][w] = _mm512_dpbf16_ps(acc[c][w], (__m512bh)q,
                                                     (__m512bh)x[w]);
                }
            }
            for (int w = 0; w < AT_ONCE; ++w) {
                fetch(v, key + j + w, s->d);
                for (int c = 0; c < used; ++c)
                    sum[c][j + w] = (vf)acc[c][w];
            }
        }
        for (int c = 0; c < used; ++c)
            store(s->p + c * KEYS + key, rows_sum(sum[c]) * scale);
    }
}

/* Exponentials of a query's scores of keys [low, high] of a block, rounded for
 * the values but not for their sum, and what was summed before scaled down. */
static void softmax(const space *s, int c, int64_t low, int64_t high)
{
    float *p = s->p + c * KEYS, *o = s->o + c * s->wide;
    for (int j = 0; j < KEYS && (low > 0 || high < KEYS - 1); ++j)
        p[j] = j >= low && j <= high ? p[j] : -INFINITY;
    vf top = splat(s->m[c]);
    for (int j = 0; j < KEYS; j += VL)
        top = larger(load(p + j), top);
    const float m = lanes_max(top), base = m == -INFINITY ? 0 : m;
    const vf keep = exp_vf(splat(s->m[c] - base));
    vf sum = {0};
    for (int j = 0; j < KEYS; j += VL) {
        const vf e = exp_vf(load(p + j) - base);
        const vh bits = shrink_f32(e);
        memcpy(s->pb + c * KEYS + j, &bits, sizeof bits);
        sum += e;
    }
    s->m[c] = m;
    s->sum[c] = s->sum[c] * keep[0] + lanes_sum(sum);
    for (int i = 0; i < s->wide; i += VL)
        store(o + i, load(o + i) * keep);
}

/* o += P V in columns [i, i + 16 n), n (2 or 4) vectors of it; the next block's
 * keys are fetched meanwhile. */
INLINE void columns(int used, int n, const space *s, int i, const rows *v,
                    const rows *next)
{
    __m512 acc[FEW][AT_ONCE];
    for (int c = 0; c < used; ++c)
        for (int w = 0; w < n; ++w)
            acc[c][w] = _mm512_load_ps(s->o + c * s->wide + i + w * VL);
    for (int j = 0; j < v->n; j += 2) {
        const uint16_t *even = row_at(v, j) + i;
        const uint16_t *odd = row_at(v, j + 1 < v->n ? j + 1 : j) + i;
        __m512i x[AT_ONCE];
        fetch(next, j, s->d);
        fetch(next, j + 1, s->d);
        for (int w = 0; w < n; w += 2) {
            const int left = s->d - i - w * VL;
            const __m512i a = load_chunk(even + w * VL, left);
            const __m512i b = j + 1 < v->n ? load_chunk(odd + w * VL, left)
                                           : _mm512_setzero_si512();
            x[w] = _mm512_unpacklo_epi16(a, b);
            x[w + 1] = _mm512_unpackhi_epi16(a, b);
        }
        for (int c = 0; c < used; ++c) {
            const __m512bh p = pair_of(s->pb + c * KEYS + j);
            for (int w = 0; w < n; ++w)
                acc[c][w] = _mm512_dpbf16_ps(acc[c][w], p, (__m512bh)x[w]);
        }
    }
    for (int c = 0; c < used; ++c)
        for (int w = 0; w < n; ++w)
            _mm512_store_ps(s->o + c * s->wide + i + w * VL, acc[c][w]);
}

INLINE void values(int used, const space *s, const rows *v, rows next)
{
    int i = 0;
    for (; i + 2 * CHUNK <= s->wide; i += 2 * CHUNK) {
        columns(used, 4, s, i, v, &next);
        next.n = 0; /* once is enough */
    }
    if (i < s->wide)
        columns(used, 2, s, i, v, &next);
}

INLINE int block_keys(int64_t end, int64_t key)
{
    return (int)(end - key < KEYS ? end - key : KEYS);
}

/* A block of keys from `key` on; their places go to `at`. */
static rows block_at(const cpu_attn_task *t, int64_t key, int64_t *at)
{
    const int n = block_keys(t->key_end, key);
    find_rows(t, key, n, at);
    return (rows){(const uint16_t *)(const void *)t->k, t->ldk, at, n};
}

/* Keys [t->key, t->key_end). */
INLINE void attend(int used, const space *s, const cpu_attn_task *t)
{
    int64_t at[2][KEYS]; /* of a block's keys, and of the next one's */
    int64_t key = t->key;
    rows k = block_at(t, key, at[0]);
    for (int j = 0; j < k.n; ++j)
        fetch(&k, j, s->d);
    for (int now = 0; key < t->key_end; now = !now) {
        const rows v = {(const uint16_t *)(const void *)t->v, t->ldv, k.at,
                        k.n};
        rows next = {.n = 0};
        if (key + k.n < t->key_end)
            next = block_at(t, key + k.n, at[!now]);
        else if (t->next)
            next = block_at(t->next, t->next->key, at[!now]);
        scores(used, s, &k, &v, t->scale);
        for (int c = 0; c < used; ++c) {
            const int64_t last = t->past + t->first + c % t->n - key;
            softmax(s, c, t->window > 0 ? last - t->window + 1 : 0,
                    last < k.n ? last : k.n - 1);
        }
        values(used, s, &v, next);
        key += k.n;
        k = next;
    }
}

/* o in its order, to the part. */
static void write_part(const space *s, float *to, int used)
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6,
                                            7, 20, 21, 22, 23);
    const __m512i last = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13,
                                           14, 15, 28, 29, 30, 31);
    const int64_t ld = CPU_ROUND_UP(s->d);
    for (int c = 0; c < used; ++c)
        for (int i = 0; i < s->wide; i += CHUNK) {
            const __m512 a = _mm512_load_ps(s->o + c * s->wide + i);
            const __m512 b = _mm512_load_ps(s->o + c * s->wide + i + VL);
            float *row = to + c * ld + i;
            _mm512_storeu_ps(row, _mm512_permutex2var_ps(a, first, b));
            if (i + VL < ld)
                _mm512_storeu_ps(row + VL, _mm512_permutex2var_ps(a, last, b));
        }
}

void CPU_NAME(cpu_attn_few)(const cpu_attn_task *t, void *scratch)
{
    const space s = place(scratch, t);
    const int used = (int)(t->heads * t->n);
    memset(s.o, 0, (size_t)(FEW * s.wide) * sizeof(float));
    for (int c = 0; c < FEW; ++c) {
        s.m[c] = -INFINITY;
        s.sum[c] = 0;
    }
    load_queries(&s, t, used);
    switch (used) {
    case 1:
        attend(1, &s, t);
        break;
    case 2:
        attend(2, &s, t);
        break;
    case 3:
        attend(3, &s, t);
        break;
    default:
        attend(FEW, &s, t);
        break;
    }
    write_part(&s, t->part + 2 * FEW, used);
}

#endif
