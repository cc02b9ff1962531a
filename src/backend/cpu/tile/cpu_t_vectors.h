/* cpu_t_vectors.h - products of bf16 by AVX512_BF16, of operands laid out for
 * tiles. Private to tile/.
 *
 * An element is a chain over k, two products at a time, each rounded, denormals
 * as zeros (vdpbf16ps, Intel SDM), from zero or from where the chain paused:
 * its bits depend on nothing else. */
#ifndef CPU_T_VECTORS_H
#define CPU_T_VECTORS_H

#include "backend/cpu/tile/cpu_tile.h"

/* Rows of results at a time: with two vectors of columns they keep both
 * multipliers busy, and fit the registers. */
enum { GROUP = 8 };

/* results [32, 32] float (+)= a [32, 32 steps] b [32 steps, 32]. Of the
 * results, rows 0 .. 15 of the left half are `row` floats apart, those of the
 * right half `right` floats behind them, and rows from 16 on `below` floats
 * behind those above. Distances of a and b are in elements: b is two b tiles a
 * step, and of a, rows 16 .. 31 begin at a_below. */
typedef struct product {
    float *sum;
    int64_t row, right, below;
    const uint16_t *a, *b;
    int64_t a_row, a_below, a_step, b_step;
    int64_t steps;
    bool add;
    /* What is fetched meanwhile, or NULL: for each step so many lines, at most
     * 32, so many bytes apart. */
    const struct few_ahead *ahead;
} product;

typedef struct few_ahead {
    const char *at;
    int64_t lines, step;
} few_ahead;

/* The part of it that goes with pair `at` of a step. */
INLINE void few_fetch(const few_ahead *a, int64_t at)
{
    for (; at < a->lines; at += TILE_SIDE)
        __builtin_prefetch(a->at + at * a->step, 0, 2);
}

/* Rows of k elements, filled up to whole steps with zeros. */
INLINE void rows_to_steps(uint16_t *to, int64_t ld_to, const uint16_t *rows,
                          int64_t ld, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < n; i++, rows += ld, to += ld_to)
        for (int64_t t = 0; t < k; t += TILE_K)
            _mm512_storeu_si512(
                to + t, _mm512_maskz_loadu_epi16(first_of_32(k - t), rows + t));
}

/* Two neighbouring elements, everywhere. */
INLINE __m512bh pair_of(const uint16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

/* So many of its rows (a constant) from row `first` on, all of them above 16 or
 * below. */
INLINE void multiply_rows(const product *p, int rows, int64_t first)
{
    const int64_t below = first / TILE_SIDE, in = first % TILE_SIDE;
    float *sum = p->sum + below * p->below + in * p->row;
    const uint16_t *a = p->a + below * p->a_below + in * p->a_row, *b = p->b;
    __m512 left[GROUP], right[GROUP];
    for (int i = 0; i < rows; i++) {
        left[i] = right[i] = _mm512_setzero_ps();
        if (p->add) {
            left[i] = _mm512_loadu_ps(sum + i * p->row);
            right[i] = _mm512_loadu_ps(sum + i * p->row + p->right);
        }
    }
    for (int64_t t = 0; t < p->steps; t++, a += p->a_step, b += p->b_step) {
        few_ahead next = {0};
        if (p->ahead)
            next = p->ahead[t];
        for (int64_t at = 0; at < TILE_SIDE; at++) {
            few_fetch(&next, at);
            const __m512i l = _mm512_load_si512(b + at * TILE_K);
            const __m512i r = _mm512_load_si512(b + TILE + at * TILE_K);
            for (int i = 0; i < rows; i++) {
                const __m512bh x = pair_of(a + i * p->a_row + 2 * at);
                left[i] = _mm512_dpbf16_ps(left[i], x, (__m512bh)l);
                right[i] = _mm512_dpbf16_ps(right[i], x, (__m512bh)r);
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        _mm512_storeu_ps(sum + i * p->row, left[i]);
        _mm512_storeu_ps(sum + i * p->row + p->right, right[i]);
    }
}

/* One of eight constant numbers of rows. */
#define BY_ROWS(rows, CALL)                                                    \
    switch (rows) {                                                            \
        CALL(1)                                                                \
        CALL(2)                                                                \
        CALL(3)                                                                \
        CALL(4)                                                                \
        CALL(5)                                                                \
        CALL(6)                                                                \
        CALL(7)                                                                \
        CALL(8)                                                                \
    }

/* 1 to 8 rows. */
INLINE void multiply_few(const product *p, int64_t rows, int64_t first)
{
#define CALL(n)                                                                \
    case n:                                                                    \
        multiply_rows(p, n, first);                                            \
        break;
    BY_ROWS(rows, CALL)
#undef CALL
}

/* The first `rows` of its 32. */
static inline void multiply_first(const product *p, int64_t rows)
{
    for (int64_t i = 0; i < rows; i += GROUP)
        multiply_few(p, rows - i < GROUP ? rows - i : GROUP, i);
}

#endif
