/* cpu_t_gemm.c - products on tiles. A square of 32 x 32 of c stays in four
 * tiles while two tiles of a and two of b pass by: a panel of a, which stays in
 * the first cache, and the packed panels of b one after the other. */
#include "backend/cpu/tile/cpu_t.h"

enum { SIDE = CPU_TILE_SIDE, STEP = CPU_TILE_STEP, UNIT = CPU_TILE_UNIT };
enum { LINE = 64 };

/* ---- packing ---------------------------------------------------------- */

void CPU_NAME(cpu_tile_pack_a)(uint16_t *panel, const uint16_t *rows,
                               int64_t ld, int64_t n_rows, int64_t k)
{
    for (int64_t t = 0; t < k; t += STEP)
        for (int64_t half = 0; half < 2; half++) {
            const int64_t first = half * TILE_SIDE;
            const int64_t left = n_rows > first ? n_rows - first : 0;
            tile_a(panel, left ? rows + first * ld + t : rows, ld, left, k - t);
            panel += TILE;
        }
}

/* Columns 0, 2, 4 .. of b as one tile, columns 1, 3, 5 .. as the other. */

/* From rows of the transposed b. */
INLINE void turned_unit(uint16_t *to, const uint16_t *p, int64_t ld,
                        int64_t cols, int64_t k)
{
    tile_b_turned(to, p, 2 * ld, (cols + 1) / 2, k);
    tile_b_turned(to + TILE, cols > 1 ? p + ld : p, 2 * ld, cols / 2, k);
}

/* Rows 2i and 2i + 1 of b give row i of both tiles. */
INLINE void paired_rows(uint16_t *to, __m512i even, __m512i odd)
{
    const __m512i high = _mm512_set1_epi32((int32_t)0xffff0000U);
    const __m512i left =
        _mm512_mask_mov_epi16(even, 0xaaaaaaaaU, _mm512_slli_epi32(odd, 16));
    const __m512i right = _mm512_mask_mov_epi16(
        _mm512_srli_epi32(even, 16), 0xaaaaaaaaU, _mm512_and_si512(odd, high));
    _mm512_store_si512(to, left);
    _mm512_store_si512(to + TILE, right);
}

INLINE void paired_unit(uint16_t *to, const uint16_t *p, int64_t ld,
                        int64_t cols, int64_t k)
{
    const __mmask32 mask = first_of_32(cols);
    const __m512i none = _mm512_setzero_si512();
    for (int64_t i = 0; i < STEP; i += 2) {
        const __m512i even =
            i < k ? _mm512_maskz_loadu_epi16(mask, p + i * ld) : none;
        const __m512i odd =
            i + 1 < k ? _mm512_maskz_loadu_epi16(mask, p + (i + 1) * ld) : none;
        paired_rows(to + i / 2 * TILE_K, even, odd);
    }
}

/* A unit's place: of op(b) and in the packed panels. Consecutive units read
 * consecutive memory: along k of a transposed b, along n else. */
typedef struct unit {
    int64_t panel, step;
} unit;

INLINE unit unit_at(const cpu_tile_b *b, int64_t i, int64_t panels,
                    int64_t steps)
{
    if (b->b_rows_n)
        return (unit){i / steps, i % steps};
    return (unit){i % panels, i / panels};
}

INLINE const uint16_t *unit_source(const cpu_tile_b *b, unit u)
{
    return b->b_rows_n ? b->b + u.panel * SIDE * b->ldb + u.step * STEP
                       : b->b + u.step * STEP * b->ldb + u.panel * SIDE;
}

/* The unit's lines, for when it is packed. */
INLINE void unit_ahead(const cpu_tile_b *b, unit u)
{
    const uint16_t *p = unit_source(b, u);
    const int64_t all =
        b->b_rows_n ? b->n - u.panel * SIDE : b->k - u.step * STEP;
    for (int64_t i = 0; i < SIDE && i < all; i++)
        __builtin_prefetch(p + i * b->ldb);
}

void CPU_NAME(cpu_tile_pack_b)(const cpu_tile_b *b)
{
    enum { AHEAD = 4 };
    const int64_t panels = cpu_tile_panels(b->n), steps = cpu_tile_steps(b->k);
    for (int64_t i = 0; i < panels * steps; i++) {
        const unit u = unit_at(b, i, panels, steps);
        if (i + AHEAD < panels * steps)
            unit_ahead(b, unit_at(b, i + AHEAD, panels, steps));
        uint16_t *out = b->packed + (u.panel * steps + u.step) * UNIT;
        const uint16_t *p = unit_source(b, u);
        const int64_t cols = b->n - u.panel * SIDE, k = b->k - u.step * STEP;
        const bool whole = cols >= SIDE && k >= STEP;
        if (b->b_rows_n && whole)
            turned_unit(out, p, b->ldb, SIDE, STEP);
        else if (b->b_rows_n)
            turned_unit(out, p, b->ldb, cols < SIDE ? cols : SIDE, k);
        else if (whole)
            paired_unit(out, p, b->ldb, SIDE, STEP);
        else
            paired_unit(out, p, b->ldb, cols, k);
    }
}

/* ---- memory ahead ------------------------------------------------------- */

/* Lines of memory to ask for, a few with every step of the products: the unit
 * is faster than memory, and a burst of requests stops the core. */
typedef struct lines {
    const char *at;
    int64_t row_bytes, rows, per_row, col;
    int64_t each; /* with a step */
} lines;

INLINE lines lines_of(const void *at, int64_t row_bytes, int64_t rows,
                      int64_t bytes, int64_t steps)
{
    enum { MOST = 8 };
    const int64_t per_row = (bytes + LINE - 1) / LINE;
    const int64_t each = (rows * per_row + steps - 1) / steps;
    return (lines){.at = at,
                   .row_bytes = row_bytes,
                   .rows = rows,
                   .per_row = per_row,
                   .each = each < MOST ? each : MOST};
}

INLINE void ask(lines *l)
{
    for (int64_t i = 0; i < l->each && l->rows > 0; i++) {
        __builtin_prefetch(l->at + l->col * LINE, 0, 2);
        if (++l->col == l->per_row) {
            l->col = 0;
            l->at += l->row_bytes;
            l->rows--;
        }
    }
}

INLINE lines lines_of_b(const cpu_tile_b *b, int64_t steps)
{
    return b->b_rows_n ? lines_of(b->b, b->ldb * 2, b->n, b->k * 2, steps)
                       : lines_of(b->b, b->ldb * 2, b->k, b->n * 2, steps);
}

/* ---- results ------------------------------------------------------------ */

/* Even and odd columns, rounded and in their order. */
INLINE __m512i woven(vf even, vf odd)
{
#ifdef CPU_ISA_avx512bf16
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
        6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    __m512i words;
    memcpy(&words, &both, sizeof words);
    return _mm512_permutexvar_epi16(order, words);
#else
    const vh e = shrink_exact(even), o = shrink_exact(odd);
    return _mm512_or_si512(
        _mm512_cvtepu16_epi32((__m256i)e),
        _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)o), 16));
#endif
}

/* A whole row of 32 columns of bf16. */
INLINE void finish_bf16(uint16_t *c, const float *even, const float *odd,
                        vf alpha, vf beta, bool add)
{
    vf e = load(even) * alpha, o = load(odd) * alpha;
    if (add) {
        const vu old = (vu)_mm512_loadu_si512(c);
        e = madd(beta, (vf)(old << 16), e);
        o = madd(beta, (vf)(old & 0xffff0000U), o);
    }
    _mm512_storeu_si512(c, woven(e, o));
}

/* Even and odd columns in their order. */
INLINE void weave(vf even, vf odd, vf *low, vf *high)
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                            5, 21, 6, 22, 7, 23);
    const __m512i last = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                           13, 29, 14, 30, 15, 31);
    *low = (vf)_mm512_permutex2var_ps((__m512)even, first, (__m512)odd);
    *high = (vf)_mm512_permutex2var_ps((__m512)even, last, (__m512)odd);
}

INLINE void finish_f32(float *c, const float *even, const float *odd, vf alpha,
                       vf beta, bool add)
{
    vf low, high;
    weave(load(even), load(odd), &low, &high);
    low = low * alpha;
    high = high * alpha;
    if (add) {
        low = madd(beta, load(c), low);
        high = madd(beta, load(c + VL), high);
    }
    store(c, low);
    store(c + VL, high);
}

INLINE void finish_any(void *c, const float *even, const float *odd,
                       int64_t cols, float alpha, float beta, bool bf)
{
    vf low, high;
    float row[SIDE];
    weave(load(even), load(odd), &low, &high);
    store(row, low);
    store(row + VL, high);
    put_scaled(c, row, cols, alpha, beta, bf);
}

/* The square at (row, col) of c from sums: even columns of rows 0 .. 15, odd
 * ones, then of rows 16 .. 31. */
INLINE void finish_rows(const cpu_tile_block *g, const float *sum, char *c,
                        int64_t rows, bool bf, bool add)
{
    const vf alpha = splat(g->alpha), beta = splat(g->beta);
    for (int64_t i = 0; i < rows; i++, c += g->ldc * (bf ? 2 : 4)) {
        const float *even = sum + i / TILE_SIDE * UNIT / 2 + i % TILE_SIDE * VL;
        const float *odd = even + UNIT / 4;
        if (bf)
            finish_bf16((uint16_t *)(void *)c, even, odd, alpha, beta, add);
        else
            finish_f32((float *)(void *)c, even, odd, alpha, beta, add);
    }
}

static void finish_square(const cpu_tile_block *g, const float *sum,
                          int64_t row, int64_t col)
{
    const int64_t rows = g->m - row < SIDE ? g->m - row : SIDE;
    const int64_t cols = g->n - col < SIDE ? g->n - col : SIDE;
    const int64_t size = g->c_bf ? 2 : 4;
    char *c = (char *)g->c + (row * g->ldc + col) * size;
    if (cols < SIDE)
        for (int64_t i = 0; i < rows; i++) {
            const float *even =
                sum + i / TILE_SIDE * UNIT / 2 + i % TILE_SIDE * VL;
            finish_any(c + i * g->ldc * size, even, even + UNIT / 4, cols,
                       g->alpha, g->beta, g->c_bf);
        }
    else if (g->c_bf && g->beta == 0)
        finish_rows(g, sum, c, rows, true, false);
    else if (g->c_bf)
        finish_rows(g, sum, c, rows, true, true);
    else if (g->beta == 0)
        finish_rows(g, sum, c, rows, false, false);
    else
        finish_rows(g, sum, c, rows, false, true);
}

/* ---- squares ------------------------------------------------------------ */

/* Where a panel's tiles are: element distances, and bytes between rows. */
typedef struct tiles {
    const uint16_t *at;
    int64_t half, step, stride;
} tiles;

INLINE tiles a_tiles(const cpu_tile_block *g, int64_t panel)
{
    const cpu_tile_a *a = &g->a;
    if (panel < a->direct)
        return (tiles){a->rows + panel * SIDE * a->ld + g->a_step * STEP,
                       TILE_SIDE * a->ld, STEP, 2 * a->ld};
    return (tiles){a->packed + (panel - a->direct) * a->panel +
                       g->a_step * UNIT,
                   TILE, UNIT, LINE};
}

INLINE void clear_square(void)
{
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
}
INLINE void load_square(const float *sum)
{
    tile_load(0, sum, LINE);
    tile_load(1, sum + UNIT / 4, LINE);
    tile_load(2, sum + UNIT / 2, LINE);
    tile_load(3, sum + UNIT / 4 * 3, LINE);
}
INLINE void store_square(float *sum)
{
    tile_store(0, sum, LINE);
    tile_store(1, sum + UNIT / 4, LINE);
    tile_store(2, sum + UNIT / 2, LINE);
    tile_store(3, sum + UNIT / 4 * 3, LINE);
}

/* A panel's lines for the steps of this block. */
INLINE lines lines_of_a(const cpu_tile_block *g, int64_t panel, int64_t steps)
{
    const tiles a = a_tiles(g, panel);
    if (panel < g->a.direct)
        return lines_of(a.at, a.stride, SIDE, g->steps * LINE, steps);
    return lines_of(a.at, UNIT * 2, g->steps, UNIT * 2, steps);
}

/* The square of c at (row, col). */
INLINE lines lines_of_c(const cpu_tile_block *g, int64_t row, int64_t col)
{
    const int64_t size = g->c_bf ? 2 : 4;
    const int64_t rows = g->m - row < SIDE ? g->m - row : SIDE;
    const int64_t cols = g->n - col < SIDE ? g->n - col : SIDE;
    return lines_of((const char *)g->c + (row * g->ldc + col) * size,
                    g->ldc * size, rows, cols * size, g->steps);
}

/* The square += steps of a panel of a and one of b. */
INLINE void multiply_square(tiles a, const uint16_t *b, int64_t steps,
                            lines ahead[3])
{
    for (int64_t s = 0; s < steps; s++) {
        tile_load(4, a.at, a.stride);
        tile_load(6, b, LINE);
        tile_load(5, a.at + a.half, a.stride);
        tile_load(7, b + TILE, LINE);
        ask(&ahead[0]);
        ask(&ahead[1]);
        ask(&ahead[2]);
        tile_mul(0, 4, 6);
        tile_mul(1, 4, 7);
        tile_mul(2, 5, 6);
        tile_mul(3, 5, 7);
        a.at += a.step;
        b += UNIT;
    }
}

void CPU_NAME(cpu_tile_gemm)(const cpu_tile_block *g)
{
    const int64_t rows = cpu_tile_panels(g->m), cols = cpu_tile_panels(g->n);
    _Alignas(LINE) float part[UNIT];
    /* What comes next of a, of b and of c. */
    lines ahead[3] = {{0}};
    if (g->next.n)
        ahead[1] = lines_of_b(&g->next, rows * cols * g->steps);
    for (int64_t i = 0; i < rows; i++) {
        const tiles a = a_tiles(g, i);
        if (i + 1 < rows)
            ahead[0] = lines_of_a(g, i + 1, cols * g->steps);
        for (int64_t j = 0; j < cols; j++) {
            float *sum =
                g->first && g->last ? part : g->sum + (i * cols + j) * UNIT;
            if (g->last)
                ahead[2] = lines_of_c(g, i * SIDE, j * SIDE);
            if (g->first)
                clear_square();
            else
                load_square(sum);
            multiply_square(a, g->b + j * g->steps * UNIT, g->steps, ahead);
            store_square(sum);
            if (g->last)
                finish_square(g, sum, i * SIDE, j * SIDE);
        }
    }
}
