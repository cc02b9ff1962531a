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
    /* So many lines are fetched with a step, those of the next one so many
     * bytes on. */
    const char *ahead;
    int64_t ahead_lines, ahead_step;
} product;

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
    const char *ahead = p->ahead;
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
        for (int64_t i = 0; i < p->ahead_lines; i++)
            __builtin_prefetch(ahead + i * LINE, 0, 2);
        ahead += p->ahead_step;
        for (int64_t at = 0; at < TILE_SIDE; at++) {
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
static void multiply_few(const product *p, int64_t rows, int64_t first)
{
#define CALL(n)                                                                \
    case n:                                                                    \
        multiply_rows(p, n, first);                                            \
        break;
    BY_ROWS(rows, CALL)
#undef CALL
}

/* The first `rows` of its 32. */
INLINE void multiply_first(const product *p, int64_t rows)
{
    for (int64_t i = 0; i < rows; i += GROUP)
        multiply_few(p, rows - i < GROUP ? rows - i : GROUP, i);
}

/* ---- few rows of x ------------------------------------------------------ */

/* From row to row of x. */
INLINE int64_t few_ld(int64_t k)
{
    return cpu_tile_steps(k) * CPU_TILE_STEP + 32;
}

/* Of all rows of x with 32 of w. */
typedef struct few_sums {
    _Alignas(64) float at[CPU_TILE_ROWS * CPU_TILE_SIDE];
} few_sums;

/* What is fetched meanwhile: so many lines with a step of the first rows, as
 * many behind them with those of the next rows; and from step to step. */
typedef struct few_ahead {
    const char *at;
    int64_t lines, step;
} few_ahead;

/* Adds steps [from, to) to rows of x from `row` on, a multiple of 8; w holds
 * the steps as b tiles. */
INLINE void few_multiply(few_sums *s, const cpu_few *f, int64_t row,
                         const uint16_t *w, int64_t from, int64_t to,
                         few_ahead ahead)
{
    enum { SIDE = CPU_TILE_SIDE };
    const int64_t ld = few_ld(f->k);
    product p = {.row = SIDE,
                 .right = TILE_SIDE,
                 .a_row = ld,
                 .a_step = CPU_TILE_STEP,
                 .b = w,
                 .b_step = CPU_TILE_UNIT,
                 .steps = to - from,
                 .add = from > 0,
                 .ahead = ahead.at,
                 .ahead_lines = ahead.lines,
                 .ahead_step = ahead.step};
    for (int64_t i = row; i < f->m; i += GROUP, p.ahead += ahead.lines * LINE) {
        p.sum = s->at + i * SIDE;
        p.a = (const uint16_t *)(const void *)f->x + i * ld +
              from * CPU_TILE_STEP;
        multiply_few(&p, f->m - i < GROUP ? f->m - i : GROUP, 0);
    }
}

/* To columns [col, col + cols) of c. */
INLINE void few_finish(const few_sums *s, const cpu_few *f, int64_t col,
                       int64_t cols)
{
    for (int64_t i = 0; i < f->m; i++)
        put_scaled((char *)f->c + (i * f->ldc + col) * (f->c_bf ? 2 : 4),
                   s->at + i * CPU_TILE_SIDE, cols, f->alpha, f->beta, f->c_bf);
}

#endif
