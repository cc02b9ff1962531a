/* cpu_t_gemm.c - products on tiles. A square of 32 x 32 of c stays in four
 * tiles while two tiles of a and two of b pass by: a packed panel of b, which
 * stays in the first cache, and the panels of a one after the other, which
 * stay in the second. */
#include "backend/cpu/isa/cpu_k_glu.h"
#include "backend/cpu/tile/cpu_t.h"

enum { SIDE = CPU_TILE_SIDE, STEP = CPU_TILE_STEP, UNIT = CPU_TILE_UNIT };

/* ---- packing ---------------------------------------------------------- */

/* Vectors read eight rows side by side: whole rows, one after the other, which
 * the processor fetches ahead. From tiles it fetches what comes next in memory,
 * the rows of the group after this one. */
#ifdef CPU_TILE_VECTORS
void CPU_NAME(cpu_tile_pack_a)(uint16_t *panel, const uint16_t *rows,
                               int64_t ld, int64_t n_rows, int64_t k)
{
    rows_to_steps(panel, cpu_tile_steps(k) * STEP, rows, ld,
                  n_rows < SIDE ? n_rows : SIDE, k);
}
#else
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
#endif

/* Columns 0, 2, 4 .. of b as one tile, columns 1, 3, 5 .. as the other. */

/* From rows of the transposed b. */
INLINE void turned_unit(uint16_t *to, const uint16_t *p, int64_t ld,
                        int64_t cols, int64_t k)
{
    tile_b_turned(to, p, 2 * ld, (cols + 1) / 2, k);
    tile_b_turned(to + TILE, cols > 1 ? p + ld : p, 2 * ld, cols / 2, k);
}

/* tile_b_turned of whole rows. With tiles, loads put the quarters into their
 * lanes, which leaves half of the shuffles. With vectors every line is read
 * once, as rows may lie so that they fall into one set of the first cache. */
#ifdef CPU_TILE_VECTORS
INLINE void turned_tile(uint16_t *to, const uint16_t *p, int64_t step)
{
    tile_b_turned(to, p, step, TILE_SIDE, STEP);
}
#else
/* 16 bytes of rows 0, 4, 8 and 12 of those that stand `step` apart. */
INLINE __m512i four_rows(const uint16_t *p, int64_t step)
{
    __m512i r = _mm512_castsi128_si512(_mm_loadu_si128((const void *)p));
    r = _mm512_inserti32x4(r, _mm_loadu_si128((const void *)(p + 4 * step)), 1);
    r = _mm512_inserti32x4(r, _mm_loadu_si128((const void *)(p + 8 * step)), 2);
    return _mm512_inserti32x4(r, _mm_loadu_si128((const void *)(p + 12 * step)),
                              3);
}

INLINE void turned_tile(uint16_t *to, const uint16_t *p, int64_t step)
{
    for (int64_t c = 0; c < 4; c++, p += 8, to += 4 * TILE_K) {
        const __m512i r0 = four_rows(p, step), r1 = four_rows(p + step, step);
        const __m512i r2 = four_rows(p + 2 * step, step);
        const __m512i r3 = four_rows(p + 3 * step, step);
        const __m512i a = _mm512_unpacklo_epi32(r0, r1);
        const __m512i b = _mm512_unpackhi_epi32(r0, r1);
        const __m512i d = _mm512_unpacklo_epi32(r2, r3);
        const __m512i e = _mm512_unpackhi_epi32(r2, r3);
        _mm512_store_si512(to, _mm512_unpacklo_epi64(a, d));
        _mm512_store_si512(to + TILE_K, _mm512_unpackhi_epi64(a, d));
        _mm512_store_si512(to + 2 * TILE_K, _mm512_unpacklo_epi64(b, e));
        _mm512_store_si512(to + 3 * TILE_K, _mm512_unpackhi_epi64(b, e));
    }
}
#endif

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

/* Step by step of a panel of b. */
static void pack_panel(const cpu_tile_b *b, int64_t panel, uint16_t *to)
{
    const int64_t col = panel * SIDE;
    const int64_t cols = b->n - col < SIDE ? b->n - col : SIDE;
    for (int64_t k = 0; k < b->k; k += STEP, to += UNIT) {
        const uint16_t *from =
            b->b + (b->b_rows_n ? col * b->ldb + k : k * b->ldb + col);
        const bool whole = cols == SIDE && b->k - k >= STEP;
        if (b->b_rows_n && whole) {
            turned_tile(to, from, 2 * b->ldb);
            turned_tile(to + TILE, from + b->ldb, 2 * b->ldb);
        } else if (b->b_rows_n)
            turned_unit(to, from, b->ldb, cols, b->k - k);
        else if (whole)
            paired_unit(to, from, b->ldb, SIDE, STEP);
        else
            paired_unit(to, from, b->ldb, cols, b->k - k);
    }
}

void CPU_NAME(cpu_tile_pack_b)(const cpu_tile_b *b)
{
    const int64_t panel = cpu_tile_steps(b->k) * UNIT;
    for (int64_t j = 0; j < cpu_tile_panels(b->n); j++)
        pack_panel(b, j, b->packed + j * panel);
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
    const int64_t per_row = cpu_lines(at, bytes);
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

/* The lines of a panel of b. */
INLINE lines lines_of_b(const cpu_tile_b *b, int64_t panel, int64_t steps)
{
    const int64_t col = panel * SIDE;
    const int64_t cols = b->n - col < SIDE ? b->n - col : SIDE;
    if (cols <= 0)
        return (lines){0};
    return b->b_rows_n
               ? lines_of(b->b + col * b->ldb, b->ldb * 2, cols, b->k * 2,
                          steps)
               : lines_of(b->b + col, b->ldb * 2, b->k, cols * 2, steps);
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

/* Even and odd columns of words of bf16. */
INLINE vf even_of(__m512i words)
{
    return expand_pairs((vu)words, 0);
}
INLINE vf odd_of(__m512i words)
{
    return expand_pairs((vu)words, 1);
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

/* Rows of whole squares, and of those at the right edge. plus NULL: beta is
 * 0. */
INLINE void finish_bf16(void *c, const void *plus, vf even, vf odd, vf alpha,
                        vf beta)
{
    even = even * alpha;
    odd = odd * alpha;
    if (plus) {
        const __m512i words = _mm512_loadu_si512(plus);
        even = madd(beta, even_of(words), even);
        odd = madd(beta, odd_of(words), odd);
    }
    _mm512_storeu_si512(c, woven(even, odd));
}

INLINE void finish_f32(float *c, const float *plus, vf even, vf odd, vf alpha,
                       vf beta)
{
    vf low, high;
    weave(even, odd, &low, &high);
    low = low * alpha;
    high = high * alpha;
    if (plus) {
        low = madd(beta, load(plus), low);
        high = madd(beta, load(plus + VL), high);
    }
    store(c, low);
    store(c + VL, high);
}

INLINE void finish_edge(const cpu_tile_block *g, int64_t at, vf even, vf odd,
                        int64_t cols)
{
    vf low, high;
    float row[SIDE];
    weave(even, odd, &low, &high);
    store(row, low);
    store(row + VL, high);
    put_scaled((char *)g->c + at, (const char *)g->plus + at, row, cols,
               g->alpha, g->beta, g->c_bf);
}

/* SwiGLU of 32 columns of a row, which are words of c. */
INLINE void glu_row(const cpu_tile_glu *t, int64_t row, int64_t col,
                    uint16_t *c, __m512i words)
{
    uint16_t *gate = t->gate + row * t->ld_gate + col;
    const __m512i g = _mm512_loadu_si512(gate);
    vf even = even_of(g), odd = odd_of(g);
    if (t->out) {
        even = swiglu_of(even, even_of(words));
        odd = swiglu_of(odd, odd_of(words));
        _mm512_storeu_si512(c, words);
        _mm512_storeu_si512(t->out + row * t->ld_out + col, woven(even, odd));
        return;
    }
    uint16_t *up = t->up + row * t->ld_up + col;
    const __m512i u = _mm512_loadu_si512(up);
    vf even_u = even_of(u), odd_u = odd_of(u);
    swiglu_bwd_of(&even, &even_u, even_of(words));
    swiglu_bwd_of(&odd, &odd_u, odd_of(words));
    _mm512_storeu_si512(gate, woven(even, odd));
    _mm512_storeu_si512(up, woven(even_u, odd_u));
}

/* The same of the columns that are left. */
static void glu_edge(const cpu_tile_glu *t, int64_t row, int64_t col,
                     uint16_t *c, __m512i words, int64_t cols)
{
    uint16_t da[SIDE];
    uint16_t *gate = t->gate + row * t->ld_gate + col;
    _mm512_storeu_si512(da, words);
    if (t->out) {
        memcpy(c, da, (size_t)cols * sizeof *c);
        swiglu_as(t->out + row * t->ld_out + col, gate, c, cols, true);
    } else {
        swiglu_bwd_as(gate, t->up + row * t->ld_up + col, da, cols, true);
    }
}

/* sums [4 tiles]: even columns of rows 0 .. 15, odd ones, of rows 16 .. 31. The
 * rows begin `at` bytes behind the first of c. */
INLINE void finish_rows(const cpu_tile_block *g, const float *sum, int64_t at,
                        int64_t rows, int64_t cols, bool bf, bool add)
{
    const vf alpha = splat(g->alpha), beta = splat(g->beta);
    for (int64_t i = 0; i < rows; i++, at += g->ldc * (bf ? 2 : 4)) {
        const int64_t in = i / TILE_SIDE * (UNIT / 2) + i % TILE_SIDE * VL;
        const vf even = load(sum + in), odd = load(sum + in + UNIT / 4);
        void *c = (char *)g->c + at;
        const void *plus = add ? (const char *)g->plus + at : NULL;
        if (cols < SIDE)
            finish_edge(g, at, even, odd, cols);
        else if (bf)
            finish_bf16(c, plus, even, odd, alpha, beta);
        else
            finish_f32(c, plus, even, odd, alpha, beta);
    }
}

/* Rows [from, to) of the square at (row, col) of c. */
static void finish_glu(const cpu_tile_block *g, const float *sum, int64_t row,
                       int64_t col, int64_t from, int64_t to)
{
    const int64_t cols = g->n - col < SIDE ? g->n - col : SIDE;
    to = g->m - row < to ? g->m - row : to;
    for (int64_t i = from; i < to; i++) {
        const int64_t at = i / TILE_SIDE * (UNIT / 2) + i % TILE_SIDE * VL;
        const __m512i words = woven(load(sum + at), load(sum + at + UNIT / 4));
        uint16_t *c = (uint16_t *)g->c + (row + i) * g->ldc + col;
        if (cols == SIDE)
            glu_row(&g->glu, row + i, col, c, words);
        else
            glu_edge(&g->glu, row + i, col, c, words, cols);
    }
}

/* The square at (row, col) of c. */
static void finish_square(const cpu_tile_block *g, const float *sum,
                          int64_t row, int64_t col)
{
    const int64_t rows = g->m - row < SIDE ? g->m - row : SIDE;
    const int64_t cols = g->n - col < SIDE ? g->n - col : SIDE;
    const int64_t at = (row * g->ldc + col) * (g->c_bf ? 2 : 4);
    if (g->glu.gate)
        finish_glu(g, sum, row, col, 0, SIDE);
    else if (cols < SIDE)
        finish_rows(g, sum, at, rows, cols, g->c_bf, false);
    else if (g->c_bf && g->beta == 0)
        finish_rows(g, sum, at, rows, SIDE, true, false);
    else if (g->c_bf)
        finish_rows(g, sum, at, rows, SIDE, true, true);
    else if (g->beta == 0)
        finish_rows(g, sum, at, rows, SIDE, false, false);
    else
        finish_rows(g, sum, at, rows, SIDE, false, true);
}

/* ---- squares ------------------------------------------------------------ */

/* Where a panel's tiles are: element distances, and bytes between rows. */
typedef struct tiles {
    const uint16_t *at;
    int64_t half, step, stride;
} tiles;

INLINE tiles tiles_of_rows(const uint16_t *at, int64_t ld)
{
    return (tiles){at, TILE_SIDE * ld, STEP, 2 * ld};
}

INLINE tiles a_tiles(const cpu_tile_a *a, int64_t panel)
{
    if (panel < a->direct)
        return tiles_of_rows(a->rows + panel * SIDE * a->ld, a->ld);
    const uint16_t *packed = a->packed + (panel - a->direct) * a->steps * UNIT;
#ifdef CPU_TILE_VECTORS
    return tiles_of_rows(packed, a->steps * STEP);
#else
    return (tiles){packed, TILE, UNIT, LINE};
#endif
}

/* A panel's lines. */
INLINE lines lines_of_a(const cpu_tile_a *a, int64_t panel, int64_t steps)
{
    const tiles t = a_tiles(a, panel);
    if (panel < a->direct)
        return lines_of(t.at, t.stride, SIDE, a->steps * LINE, steps);
    return lines_of(t.at, 0, 1, a->steps * UNIT * 2, steps);
}

/* Steps of all parts. */
INLINE int64_t steps_of(const cpu_tile_block *g)
{
    int64_t steps = 0;
    for (int i = 0; i < g->parts; i++)
        steps += g->a[i].steps;
    return steps;
}

/* The square at (row, col) of what is as large as c and `ld` elements from row
 * to row. */
INLINE lines lines_of_square(const cpu_tile_block *g, const void *of,
                             int64_t ld, int64_t size, int64_t row, int64_t col)
{
    const int64_t rows = g->m - row < SIDE ? g->m - row : SIDE;
    const int64_t cols = g->n - col < SIDE ? g->n - col : SIDE;
    return lines_of((const char *)of + (row * ld + col) * size, ld * size, rows,
                    cols * size, steps_of(g));
}

/* What is asked for beside the products: of what is read next, a panel of b and
 * rows of a, and of what a square goes to or is added to it. */
typedef struct beside {
    lines a, b, c, gate, other;
} beside;

INLINE void ask_all(beside *w)
{
    ask(&w->a);
    ask(&w->b);
    ask(&w->c);
    ask(&w->gate);
    ask(&w->other);
}

INLINE void beside_square(beside *w, const cpu_tile_block *g, int64_t row,
                          int64_t col)
{
    const cpu_tile_glu *t = &g->glu;
    const int64_t size = g->c_bf ? 2 : 4;
    if (!t->gate || t->out)
        w->c = lines_of_square(g, g->c, g->ldc, size, row, col);
    if (g->beta != 0 && g->plus != g->c)
        w->other = lines_of_square(g, g->plus, g->ldc, size, row, col);
    if (t->gate) {
        w->gate = lines_of_square(g, t->gate, t->ld_gate, 2, row, col);
        w->other = t->out ? lines_of_square(g, t->out, t->ld_out, 2, row, col)
                          : lines_of_square(g, t->up, t->ld_up, 2, row, col);
    }
}

#ifndef CPU_TILE_VECTORS
INLINE void multiply_steps(tiles a, const uint16_t *b, int64_t from, int64_t to,
                           beside *w)
{
    for (int64_t s = from; s < to; s++) {
        const uint16_t *at = a.at + s * a.step;
        tile_load(6, b + s * UNIT, LINE);
        tile_load_once(4, at, a.stride);
        tile_load(7, b + s * UNIT + TILE, LINE);
        tile_load_once(5, at + a.half, a.stride);
        square_multiply();
        ask_all(w);
    }
}

#endif

/* A square that is multiplied; it goes to c while the next one is. */
typedef struct square {
    int64_t row, col;
    float *sum; /* NULL: none */
} square;

#ifdef CPU_TILE_VECTORS
INLINE void multiply_square(const cpu_tile_block *g, const uint16_t *b,
                            square q, square before, beside *w)
{
    const int64_t left = g->m - q.row, rows = left < SIDE ? left : SIDE;
    product p = {.sum = q.sum,
                 .row = VL,
                 .right = UNIT / 4,
                 .below = UNIT / 2,
                 .b = b,
                 .b_step = UNIT,
                 .add = !g->first};
    for (int i = 0; i < g->parts; i++, p.add = true) {
        const tiles a = a_tiles(&g->a[i], q.row / SIDE);
        p.a = a.at;
        p.a_row = a.stride / 2;
        p.a_below = a.half;
        p.a_step = a.step;
        p.steps = g->a[i].steps;
        for (int64_t row = 0; row < rows; row += GROUP) {
            multiply_few(&p, rows - row < GROUP ? rows - row : GROUP, row);
            for (int64_t s = p.steps * row / SIDE;
                 s < p.steps * (row + GROUP) / SIDE; s++)
                ask_all(w);
        }
        p.b += p.steps * UNIT;
    }
    if (before.sum)
        finish_square(g, before.sum, before.row, before.col);
}
#else
/* The steps of the first part; SwiGLU of the square before goes on while the
 * unit multiplies, some rows a step. */
INLINE void multiply_and_glu(const cpu_tile_block *g, tiles a,
                             const uint16_t *b, square before, beside *w)
{
    const int64_t steps = g->a[0].steps;
    for (int64_t s = 0; s < steps; s++) {
        multiply_steps(a, b, s, s + 1, w);
        finish_glu(g, before.sum, before.row, before.col, SIDE * s / steps,
                   SIDE * (s + 1) / steps);
    }
}

INLINE void multiply_square(const cpu_tile_block *g, const uint16_t *b,
                            square q, square before, beside *w)
{
    if (g->first)
        square_clear();
    else
        square_load(q.sum);
    for (int i = 0; i < g->parts; i++) {
        const tiles a = a_tiles(&g->a[i], q.row / SIDE);
        const int64_t steps = g->a[i].steps, half = i ? 0 : steps / 2;
        if (i == 0 && before.sum && g->glu.gate) {
            multiply_and_glu(g, a, b, before, w);
        } else {
            multiply_steps(a, b, 0, half, w);
            if (i == 0 && before.sum)
                finish_square(g, before.sum, before.row, before.col);
            multiply_steps(a, b, half, steps, w);
        }
        b += steps * UNIT;
    }
    square_store(q.sum);
}
#endif

/* The squares of panel j of b, which is packed; the last one is left. */
INLINE square multiply_panel(const cpu_tile_block *g, int64_t j,
                             const uint16_t *panel, square before,
                             float part[2][UNIT], beside *w)
{
    const int64_t rows = cpu_tile_panels(g->m), cols = cpu_tile_panels(g->n);
    for (int64_t i = 0; i < rows; i++) {
        const square q = {i * SIDE, j * SIDE,
                          g->first && g->last ? part[(j * rows + i) % 2]
                                              : g->sum + (j * rows + i) * UNIT};
        /* The next block's rows, while the panels of b go by. */
        if (g->next_a.steps > 0 && i % cols == j)
            w->a = lines_of_a(&g->next_a, i, steps_of(g) * cols);
        if (g->last)
            beside_square(w, g, q.row, q.col);
        multiply_square(g, panel, q, before, w);
        if (g->last)
            before = q;
    }
    return before;
}

/* Panel j of b, all parts. */
INLINE void pack_parts(const cpu_tile_block *g, int64_t j, uint16_t *to)
{
    for (int i = 0; i < g->parts; to += g->a[i++].steps * UNIT)
        pack_panel(&g->b[i], j, to);
}

/* Of panel j of b, which is at `packed` if the others are there, or of the next
 * block's first one; so many steps go by meanwhile. */
INLINE lines next_lines(const cpu_tile_block *g, int64_t j,
                        const uint16_t *packed, int64_t steps)
{
    const int64_t bytes = steps_of(g) * UNIT * 2;
    const bool inside = j < cpu_tile_panels(g->n);
    packed = !inside ? g->next_panel : g->again ? packed : NULL;
    if (packed)
        return lines_of(packed, 0, 1, bytes, steps);
    return inside ? lines_of_b(&g->b[0], j, steps)
                  : lines_of_b(&g->next_b, 0, steps);
}

void CPU_NAME(cpu_tile_gemm)(const cpu_tile_block *g)
{
    const int64_t rows = cpu_tile_panels(g->m), cols = cpu_tile_panels(g->n);
    const int64_t steps = steps_of(g);
    _Alignas(LINE) float part[2][UNIT];
    beside w = {0};
    square before = {0};
    for (int64_t j = 0; j < cols; j++) {
        uint16_t *panel = g->panel + (g->keep ? j * steps * UNIT : 0);
        if (!g->again)
            pack_parts(g, j, panel);
        w.b = next_lines(g, j + 1, panel + steps * UNIT, rows * steps);
        before = multiply_panel(g, j, panel, before, part, &w);
    }
    if (before.sum)
        finish_square(g, before.sum, before.row, before.col);
}
