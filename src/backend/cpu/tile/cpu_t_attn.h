/* cpu_t_attn.h - what attention's forward and backward on tiles share. Private
 * to tile/.
 *
 * A lane is one query of one head: lane c of a task is head c % heads of query
 * row c / heads. Lanes are rows of the scores S [lanes, keys]. Everything is
 * cut into 32s: a strip of lanes, a group of keys, a chunk of the head
 * dimension (zeros beyond D), and lies in memory as pairs and quads of tiles.
 * Where keys are summed over, words of an operand hold the keys j and j + 16
 * of a group: two vectors of scores become words by a shift and a choice. */
#ifndef CPU_T_ATTN_H
#define CPU_T_ATTN_H

#include "backend/cpu/isa/cpu_k_keys.h"
#include "backend/cpu/tile/cpu_t_quad.h"
#include "base/base.h"

#define LOG2E 0x1.715476p+0f
#define LN2   0x1.62e430p-1f

INLINE int64_t in_32s(int64_t n)
{
    return (n + SIDE - 1) / SIDE;
}
INLINE int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- numbers -------------------------------------------------------- */

/* 2^x for x < 128, relative error below 3e-6; below -126 it is at most 2^-126,
 * and NaN gives NaN. 2^x = 2^n 2^r with |r| <= 1/2; the polynomial is fitted
 * for the least relative error (2.6e-6), which on average is zero: a 700th of
 * what a rounding to bf16 may do, but sums of exponentials are kept. */
INLINE vf exp2_vf(vf x)
{
    const vf magic = splat(12582912.0f); /* 1.5 * 2^23: rounds to integers */
    x = larger(splat(-126.0f), x);
    vf t = x + magic;
    vf r = x - (t - magic);
    vf y = r * 0x1.3997c0p-7f + 0x1.ca1442p-5f;
    y = y * r + 0x1.ec06dap-3f;
    y = y * r + 0x1.62e0dcp-1f;
    y = y * r + 0x1.ffffe8p-1f;
    return (vf)((vu)y + ((vu)t << 23)); /* wraps */
}

/* log x for finite x > 0 that is no denormal, absolute error below 1.5e-7
 * beyond the rounding of the result: x = 2^n m, m in [3/4, 3/2), and log m = 2
 * atanh z with z = (m - 1) / (m + 1), |z| <= 1/5, by the series up to z^9 / 9.
 */
INLINE vf log_vf(vf x)
{
    const vu up = ((vu)x - 0x3f400000U) & 0xff800000U;
    const vf m = (vf)((vu)x - up);
    const vf n = __builtin_convertvector((vi)up >> 23, vf);
    const vf z = (m - 1.0f) / (m + 1.0f), w = z * z;
    vf y = w * 0x1.c71c72p-4f + 0x1.249249p-3f;
    y = y * w + 0x1.99999ap-3f;
    y = y * w + 0x1.555556p-2f;
    return n * LN2 + (z + z * w * y) * 2.0f;
}

/* Keeps lanes of the mask, the others become zero. */
INLINE vf keep(__mmask16 mask, vf v)
{
    return (vf)_mm512_maskz_mov_ps(mask, (__m512)v);
}

/* The bf16 nearest to v (of two the one farther from zero) in the upper half of
 * every word, anything in the lower half. */
INLINE vu rounded(vf v)
{
    return (vu)v + 0x8000U;
}
/* Words of the upper halves of two, and of the lower halves. */
INLINE vu words_of_upper(vu low, vu high)
{
    return (vu)_mm512_mask_blend_epi16(0xaaaaaaaaU, (__m512i)(low >> 16),
                                       (__m512i)high);
}
INLINE vu words_of_lower(vu low, vu high)
{
    return (vu)_mm512_mask_blend_epi16(0xaaaaaaaaU, (__m512i)low,
                                       (__m512i)(high << 16));
}

/* The first n of 32 numbers, as bf16 or float. */
INLINE void store_32(char *to, vf left, vf right, int64_t n, bool bf)
{
    const __mmask32 mask = first_of_32(n);
    if (bf) {
        const __m512i both = _mm512_inserti64x4(
            _mm512_castsi256_si512((__m256i)shrink_f32(left)),
            (__m256i)shrink_f32(right), 1);
        _mm512_mask_storeu_epi16(to, mask, both);
    } else {
        _mm512_mask_storeu_ps(to, (__mmask16)mask, (__m512)left);
        _mm512_mask_storeu_ps(to + 64, (__mmask16)(mask >> 16), (__m512)right);
    }
}

/* ---- keys ------------------------------------------------------------ */

/* Pairs of b of a group of n keys, one a chunk of `d` elements: columns are
 * keys (their rows turned), or the sum is over keys, j and j + 16 in a word. */
INLINE void keys_turned(uint16_t *to, const uint16_t *rows, int64_t ld, int d,
                        int64_t n)
{
    for (int i = 0; i < d; i += SIDE, to += PAIR) {
        tile_b_turned(to, rows + i, ld, n, d - i);
        tile_b_turned(to + TILE, rows + 16 * ld + i, ld, n - 16, d - i);
    }
}
INLINE void keys_summed(uint16_t *to, const uint16_t *rows, int64_t ld, int d,
                        int64_t n)
{
    for (int i = 0; i < d; i += SIDE, to += PAIR) {
        const __mmask32 mask = first_of_32(d - i);
        for (int p = 0; p < 16; ++p) {
            const uint16_t *row = rows + p * ld + i;
            __m512i low = {0}, high = {0}, left, right;
            if (p < n)
                low = _mm512_maskz_loadu_epi16(mask, row);
            if (p + 16 < n)
                high = _mm512_maskz_loadu_epi16(mask, row + 16 * ld);
            pair_rows(low, high, &left, &right);
            _mm512_store_si512(to + p * 32, left);
            _mm512_store_si512(to + TILE + p * 32, right);
        }
    }
}

/* ---- lanes ------------------------------------------------------------ */

/* The lanes of a strip: rows and heads of a matrix of queries. */
typedef struct lanes {
    int d, used; /* head dimension; lanes in use, <= SIDE */
    int32_t row[SIDE], head[SIDE];
} lanes;

/* From lane `from` of heads * n on. */
INLINE void lanes_set(lanes *l, int heads, int d, int64_t n, int64_t from)
{
    int32_t row = (int32_t)(from / heads), head = (int32_t)(from % heads);
    l->d = d;
    l->used = (int)least(heads * n - from, SIDE);
    for (int i = 0; i < SIDE; ++i) {
        l->row[i] = row;
        l->head[i] = head;
        ++head;
        row += head == heads;
        head = head == heads ? 0 : head;
    }
}

/* Where the lanes begin in a matrix with `width` elements a head. */
INLINE void lanes_at(int64_t *at, const lanes *l, int64_t ld, int64_t width)
{
    for (int i = 0; i < SIDE; ++i)
        at[i] = l->row[i] * ld + l->head[i] * width;
}

/* Pairs of a [chunks]: rows are lanes, zeros where there is none. */
INLINE void lanes_load(uint16_t *to, const lanes *l, const char *x, int64_t ld)
{
    const int used = l->used, d = l->d;
    int64_t at[SIDE];
    lanes_at(at, l, ld * 2, d * 2);
    for (int i = 0; i < d; i += SIDE, x += SIDE * 2, to += PAIR) {
        const __mmask32 mask = first_of_32(d - i);
        for (int c = 0; c < used; ++c)
            _mm512_store_si512(to + c * SIDE,
                               _mm512_maskz_loadu_epi16(mask, x + at[c]));
        for (int c = used; c < SIDE; ++c)
            _mm512_store_si512(to + c * SIDE, _mm512_setzero_si512());
    }
}

/* x = quads [chunks] times the factor of each lane. */
INLINE void lanes_store(char *x, int64_t ld, const lanes *l, float *quads,
                        const float *factor)
{
    const int used = l->used, d = l->d;
    int64_t at[SIDE];
    lanes_at(at, l, ld * 2, d * 2);
    for (int i = 0; i < d; i += SIDE, x += SIDE * 2, quads += QUAD)
        for (int c = 0; c < used; ++c)
            store_32(x + at[c], load(quad_row(quads, c, 0)) * factor[c],
                     load(quad_row(quads, c, 1)) * factor[c], d - i, true);
}

/* ---- a strip of lanes against a block of keys -------------------------- */

#define MOST_GROUPS 8 /* of a block of keys */

typedef struct strip {
    int number;     /* of the strip */
    int begin, end; /* groups of the block that any lane sees */
    int from, to;   /* of these: all of it in every lane */
    bool fresh;     /* no keys before the block */
    _Alignas(64) uint32_t seen[MOST_GROUPS][SIDE]; /* keys, in other groups */
} strip;

INLINE int clamp(int64_t x, int64_t most)
{
    return x < 0 ? 0 : (int)least(x, most);
}

/* Lane i: the first n[i] of 32 bits. */
INLINE vu first_bits(vi n)
{
    const __m512i one = _mm512_set1_epi32(1);
    return (vu)_mm512_sub_epi32(
        _mm512_sllv_epi32(one, _mm512_max_epi32((__m512i)n, (__m512i){0})),
        one);
}

/* `position` is that of row 0, from the first key of the group. */
INLINE void group_seen(uint32_t *to, const lanes *l, int64_t position,
                       int32_t window)
{
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int i = 0; i < SIDE; i += 16) {
        vi n;
        memcpy(&n, l->row + i, sizeof n);
        n += (int32_t)position + 1;
        const vu used = (vu)(lane + i < l->used);
        const vu see = first_bits(n) & ~first_bits(n - window) & used;
        memcpy(to + i, &see, sizeof see);
    }
}

/* What a strip sees of keys [key, key + keys); false: nothing. Row 0 has this
 * position. */
INLINE bool strip_set(strip *u, const lanes *l, int number, int64_t position,
                      int64_t window, int64_t key, int keys)
{
    const int64_t first = position + l->row[0];
    const int64_t last = position + l->row[l->used - 1];
    const int32_t most =
        window > 0 && window < INT32_MAX / 2 ? (int32_t)window : INT32_MAX / 2;
    u->number = number;
    u->begin = clamp(cpu_attn_first(first, window) - key, keys) / SIDE;
    u->end = (int)in_32s(clamp(last + 1 - key, keys));
    u->from = (int)in_32s(clamp(cpu_attn_first(last, window) - key, keys));
    u->to = l->used < SIDE ? u->from : clamp(first + 1 - key, keys) / SIDE;
    u->fresh = cpu_attn_first(first, window) >= key;
    for (int g = u->begin; g < u->end; ++g)
        if (g < u->from || g >= u->to)
            group_seen(u->seen[g], l, position - key - g * SIDE, most);
    return u->begin < u->end;
}

INLINE bool all_seen(const strip *u, int group)
{
    return group >= u->from && group < u->to;
}

#endif
