/* cpu_t_few.c - products of few rows of x with rows of w as they lie, and sums
 * over tokens. With tiles, rows of w are a here and x is b, so that w is read
 * once, from where it is mapped, and nothing of it is packed. (With vectors:
 * cpu_t_opened.c.) */
#include "backend/cpu/tile/cpu_t_ahead.h"

enum { SIDE = CPU_TILE_SIDE, STEP = CPU_TILE_STEP, UNIT = CPU_TILE_UNIT };
enum { QUARTER = UNIT / 4 }; /* floats of a tile */

/* r[i] float j -> r[j] float i */
INLINE void turn_floats(vf r[VL])
{
    __m512i words[VL];
    memcpy(words, r, sizeof words);
    turn16(words);
    memcpy(r, words, sizeof words);
}

/* ---- few rows ----------------------------------------------------------- */

#ifndef CPU_TILE_VECTORS

/* Panels of a from the compact copy's products, else of b. */
int64_t CPU_NAME(cpu_tile_few_x)(uint16_t *to, const uint16_t *x, int64_t ldx,
                                 int64_t m, int64_t k, bool compact)
{
    const int64_t each = cpu_tile_steps(k) * UNIT;
    if (to && !compact)
        CPU_NAME(cpu_tile_pack_b)
    (&(cpu_tile_b){
        .b = x, .ldb = ldx, .n = m, .k = k, .b_rows_n = true, .packed = to});
    for (int64_t i = 0; i < m && to && compact; i += SIDE)
        CPU_NAME(cpu_tile_pack_a)
    (to + i / SIDE * each, x + i * ldx, ldx, m - i, k);
    return cpu_tile_panels(m) * each;
}

/* Step s into tiles 4 and 5. Where the panel ends within it, through `edge`. */
INLINE void load_w(const few_panel *p, int64_t s, uint16_t *edge)
{
    const uint16_t *at = p->w + s * STEP;
    const int64_t k = p->k - s * STEP;
    if (p->rows == SIDE && k >= STEP) {
        tile_load(4, at, 2 * p->ld);
        tile_load(5, at + TILE_SIDE * p->ld, 2 * p->ld);
        return;
    }
    const int64_t low = p->rows > TILE_SIDE ? p->rows - TILE_SIDE : 0;
    tile_a(edge, at, p->ld, p->rows, k);
    tile_a(edge + TILE, low ? at + TILE_SIDE * p->ld : at, p->ld, low, k);
    tile_load(4, edge, LINE);
    tile_load(5, edge + TILE, LINE);
}

/* [32 of w, 32 of x] in tiles 0 to 3: even rows of x, odd ones. */
INLINE void multiply_panel(const few_panel *p, const few_panel *next,
                           cpu_few *after, const uint16_t *x, bool ask)
{
    const int64_t steps = cpu_tile_steps(p->k);
    _Alignas(LINE) uint16_t edge[UNIT];
    square_clear();
    for (int64_t s = 0; s < steps; s++) {
        load_w(p, s, edge);
        tile_load(6, x + s * UNIT, LINE);
        tile_load(7, x + s * UNIT + TILE, LINE);
        if (ask)
            panel_ask(p, next, s, after);
        square_multiply();
    }
}

/* Columns [col, col + cols) of rows x_row .. of c from the four tiles. */
static void finish_panel(const cpu_few *f, int64_t x_row, int64_t col,
                         int64_t cols)
{
    _Alignas(LINE) float sum[UNIT], row[TILE_SIDE * SIDE];
    square_store(sum);
    for (int64_t odd = 0; odd < 2 && x_row + odd < f->m; odd++) {
        for (int64_t half = 0; half < 2; half++) {
            vf r[VL];
            for (int i = 0; i < VL; i++)
                r[i] = load(sum + (2 * half + odd) * QUARTER + i * VL);
            turn_floats(r);
            for (int i = 0; i < VL; i++)
                store(row + i * SIDE + half * VL, r[i]);
        }
        for (int64_t i = x_row + odd; i < f->m && i < x_row + SIDE; i += 2)
            few_put(f, i, col, row + (i - x_row) / 2 * SIDE, cols);
    }
}

void CPU_NAME(cpu_tile_few)(const cpu_few *f)
{
    const uint16_t *x = (const uint16_t *)(const void *)f->x;
    const int64_t x_panel = cpu_tile_steps(f->k) * UNIT;
    cpu_few after = *f;
    for (int64_t j = 0; j < f->n; j += SIDE) {
        const few_panel p = panel_at(f, j);
        few_panel next = {.rows = 0};
        if (j + SIDE < f->n)
            next = panel_at(f, j + SIDE);
        cpu_few_fetch_c(f, j, SIDE);
        for (int64_t i = 0; i < f->m; i += SIDE) {
            multiply_panel(&p, &next, &after, x + i / SIDE * x_panel, i == 0);
            finish_panel(f, i, j, p.rows);
        }
    }
}

#endif

/* ---- sums over tokens ------------------------------------------------- */

/* The steps of `rows` rows, blocks filled up to whole steps. */
void CPU_NAME(cpu_tile_turn)(uint16_t *out, const uint16_t *y, int64_t ldy,
                             int64_t rows, int64_t block, int64_t q)
{
    for (int64_t from = 0; from < rows; from += block) {
        const int64_t to = rows - from < block ? rows : from + block;
        for (int64_t t = from; t < to; t += STEP, out += UNIT)
            tile_a_turned(out, out + TILE, y + t * ldy, ldy, q, to - t);
    }
}

/* part [q, p]: the sums of a block's steps from zero. */
#ifdef CPU_TILE_VECTORS
INLINE void sum_steps(const cpu_tile_sum *s, int64_t from, int64_t rows,
                      const uint16_t *y, float *part)
{
    enum { CHUNK = 8 }; /* steps of x that are packed, and then multiplied */
    _Alignas(LINE) uint16_t x[CHUNK * UNIT];
    for (int64_t t = 0; t < rows; t += CHUNK * STEP) {
        const int64_t k = rows - t < CHUNK * STEP ? rows - t : CHUNK * STEP;
        CPU_NAME(cpu_tile_pack_b)
        (&(cpu_tile_b){.b = s->x + (from + t) * s->ldx,
                       .ldb = s->ldx,
                       .n = s->p,
                       .k = k,
                       .packed = x});
        multiply_first(&(product){.sum = part,
                                  .row = VL,
                                  .right = QUARTER,
                                  .below = 2 * QUARTER,
                                  .a = y + t / STEP * UNIT,
                                  .a_row = STEP,
                                  .a_below = TILE,
                                  .a_step = UNIT,
                                  .b = x,
                                  .b_step = UNIT,
                                  .steps = cpu_tile_steps(k),
                                  .add = t > 0},
                       s->q);
    }
}
#else
INLINE void sum_steps(const cpu_tile_sum *s, int64_t from, int64_t rows,
                      const uint16_t *y, float *part)
{
    _Alignas(LINE) uint16_t x[UNIT];
    square_clear();
    for (int64_t t = 0; t < rows; t += STEP, y += UNIT) {
        const cpu_tile_b b = {.b = s->x + (from + t) * s->ldx,
                              .ldb = s->ldx,
                              .n = s->p,
                              .k = rows - t < STEP ? rows - t : STEP,
                              .packed = x};
        CPU_NAME(cpu_tile_pack_b)(&b);
        tile_load(4, y, LINE);
        tile_load(5, y + TILE, LINE);
        tile_load(6, x, LINE);
        tile_load(7, x + TILE, LINE);
        square_multiply();
    }
    square_store(part);
}
#endif

/* total [q, p] of a block: the sums of its steps from zero, added. */
INLINE void sum_block(const cpu_tile_sum *s, int64_t from, int64_t rows,
                      const uint16_t *y, float *total)
{
    _Alignas(LINE) float part[UNIT] = {0};
    sum_steps(s, from, rows, y, part);
    for (int64_t i = 0; i < UNIT; i += VL)
        store(total + i, load(total + i) + load(part + i));
}

void CPU_NAME(cpu_tile_sum)(const cpu_tile_sum *s)
{
    _Alignas(LINE) float total[UNIT] = {0};
    const uint16_t *y = s->y_turned;
    for (int64_t from = 0; from < s->rows; from += s->block) {
        const int64_t left = s->rows - from;
        const int64_t rows = left < s->block ? left : s->block;
        sum_block(s, from, rows, y, total);
        y += cpu_tile_steps(rows) * UNIT;
    }
    /* Tiles are [16 of q, 16 of p]: even p, odd p, of q 0 .. 15 and 16 .. */
    for (int64_t tile = 0; tile < 4; tile++) {
        const int64_t q0 = tile / 2 * TILE_SIDE, cols = s->q - q0;
        vf r[VL];
        for (int i = 0; i < VL; i++)
            r[i] = load(total + tile * QUARTER + i * VL);
        turn_floats(r);
        for (int64_t i = 0; i < VL && tile % 2 + 2 * i < s->p && cols > 0;
             i++) {
            float sum[VL], *c = s->c + (tile % 2 + 2 * i) * s->ldc + q0;
            store(sum, r[i]);
            put_scaled(c, c, sum, cols < VL ? cols : VL, s->alpha, s->beta,
                       false);
        }
    }
}
