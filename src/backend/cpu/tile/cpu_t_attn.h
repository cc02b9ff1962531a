/* cpu_t_attn.h - what attention's forward and backward on tiles share. Private
 * to tile/.
 *
 * A lane is one query of one head: lane c of a task is head c % heads of query
 * row c / heads. Lanes are rows of the scores S [lanes, keys]. Everything is
 * cut into 32s: a strip of lanes, a group of keys, a chunk of the head
 * dimension (zeros beyond D), and lies in memory as
 *   a pair   two tiles of operands: of a, rows 0 .. 15 and 16 .. 31; of b,
 *            columns 0 .. 15 and 16 .. 31;
 *   a quad   32 x 32 floats of results, as the tiles of its four corners.
 * Where keys are summed over, words of an operand hold the keys j and j + 16
 * of a group: two vectors of scores become words by a shift and a choice. */
#ifndef CPU_T_ATTN_H
#define CPU_T_ATTN_H

#include "backend/cpu/isa/cpu_k_keys.h"
#include "backend/cpu/tile/cpu_t.h"
#include "base/base.h"

#define SIDE  32
#define PAIR  (2 * TILE)    /* elements of a pair */
#define QUAD  (SIDE * SIDE) /* floats of a quad */
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

/* Columns 16 half .. of a row of a quad. */
INLINE float *quad_row(float *quad, int row, int half)
{
    return quad + (row / 16 * 2 + half) * 256 + row % 16 * 16;
}

/* quad (+)= the sum of n products of a pair of a and a pair of b; successive
 * ones are so many elements apart. */
INLINE void quad_multiply(float *quad, bool add, const uint16_t *a,
                          int64_t a_step, const uint16_t *b, int64_t b_step,
                          int64_t n)
{
    /* Loads of tiles do not tell gcc that they read memory. */
    __asm__ volatile("" ::: "memory");
    if (add) {
        tile_load(0, quad, 64);
        tile_load(1, quad + 256, 64);
        tile_load(2, quad + 512, 64);
        tile_load(3, quad + 768, 64);
    } else {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    }
    for (int64_t i = 0; i < n; ++i, a += a_step, b += b_step) {
        tile_load(4, a, 64);
        tile_load(6, b, 64);
        tile_mul(0, 4, 6);
        tile_load(7, b + TILE, 64);
        tile_mul(1, 4, 7);
        tile_load(5, a + TILE, 64);
        tile_mul(2, 5, 6);
        tile_mul(3, 5, 7);
    }
    tile_store(0, quad, 64);
    tile_store(1, quad + 256, 64);
    tile_store(2, quad + 512, 64);
    tile_store(3, quad + 768, 64);
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

/* ---- keys ------------------------------------------------------------ */

/* Keys [from, to) of a block that a lane sees. */
typedef struct seen {
    int from, to;
} seen;

INLINE seen seen_from(int64_t position, int64_t window, int64_t key, int keys)
{
    int64_t from = first_seen(position, window) - key;
    int64_t to = position + 1 - key;
    return (seen){from < 0      ? 0
                  : from > keys ? keys
                                : (int)from,
                  to < 0      ? 0
                  : to > keys ? keys
                              : (int)to};
}
/* Which keys of a group. */
INLINE __mmask32 seen_of_group(seen w, int group)
{
    return first_of_32(w.to - group * SIDE) &
           ~first_of_32(w.from - group * SIDE);
}

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

/* Rows of a matrix that are lanes: row (c / heads), columns from
 * (c % heads) * d on. */
typedef struct lanes {
    int heads, d;
    int64_t from; /* the first lane of the strip, */
    int used;     /* and how many it has, <= SIDE */
} lanes;

INLINE int64_t lane_at(const lanes *l, int lane, int64_t ld)
{
    int64_t c = l->from + lane;
    return c / l->heads * ld + c % l->heads * l->d;
}

/* Pairs of a [chunks]: rows are lanes, zeros where there is none. */
INLINE void lanes_load(uint16_t *to, const lanes *l, const char *x, int64_t ld)
{
    for (int c = 0; c < SIDE; ++c) {
        const uint16_t *row = (const uint16_t *)(const void *)x;
        if (c < l->used)
            row += lane_at(l, c, ld);
        for (int i = 0; i < l->d; i += SIDE) {
            const __mmask32 mask = c < l->used ? first_of_32(l->d - i) : 0;
            _mm512_store_si512(to + i * SIDE + c * SIDE,
                               _mm512_maskz_loadu_epi16(mask, row + i));
        }
    }
}

/* x = quads [chunks] times the factor of each lane. */
INLINE void lanes_store(char *x, int64_t ld, const lanes *l, float *quads,
                        const float *factor)
{
    for (int c = 0; c < l->used; ++c) {
        char *row = x + lane_at(l, c, ld) * 2;
        for (int i = 0; i < l->d; i += 16) {
            const vf v = load(quad_row(quads + i / SIDE * QUAD, c, i / 16 % 2));
            put(row, i, v * factor[c], least(l->d - i, 16), true);
        }
    }
}

#endif
