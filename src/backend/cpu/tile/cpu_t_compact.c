/* cpu_t_compact.c - products of few rows with a weight's compact copy
 * (cpu_compact.h). A block's pairs of columns are rows of a b tile, so here x
 * is a and w is b; an element's products and their order are those of
 * cpu_t_few.c. (With vectors: cpu_t_opened.c.) */
#include "backend/cpu/tile/cpu_t_ahead.h"

enum { SIDE = CPU_TILE_SIDE, UNIT = CPU_TILE_UNIT, BLOCK = CPU_COMPACT_BLOCK };

#ifndef CPU_TILE_VECTORS

/* Two b tiles of a block: rows of w 0 .. 15, and 16 .. 31. */
INLINE void open_tiles(uint16_t *to, const compact_block *b, bool whole)
{
    for (int at = 0; at < TILE_SIDE / 2; at++) {
        vu w[2][COMPACT_VECTORS];
        compact_open(w, b, at, 0, whole);
        for (int p = 0; p < 2; p++)
            for (int half = 0; half < 2; half++)
                memcpy(to + half * TILE + (2 * at + p) * TILE_K, &w[p][half],
                       sizeof w[p][half]);
    }
}

/* [32 of x, 32 of w] in tiles 0 to 3; 2 and 3 are not used for 16 or fewer
 * rows of x. */
INLINE void multiply_group(const cpu_few *f, const uint8_t *at,
                           const uint16_t *x, bool both, bool ask)
{
    _Alignas(LINE) uint16_t w[2][UNIT];
    square_clear();
    for (int64_t k = 0; k < f->k; k += SIDE, at += BLOCK, x += UNIT) {
        uint16_t *open = w[k / SIDE % 2];
        const compact_block b = compact_at(f, at);
        if (b.whole)
            open_tiles(open, &b, true);
        else
            open_tiles(open, &b, false);
        if (ask)
            blocks_ask(f, at);
        tile_load(4, x, LINE);
        tile_load(6, open, LINE);
        tile_load(7, open + TILE, LINE);
        if (both) {
            tile_load(5, x + TILE, LINE);
            square_multiply();
        } else {
            tile_mul(0, 4, 6);
            tile_mul(1, 4, 7);
        }
    }
}

/* Columns [col, col + cols) of rows x_row .. of c from the four tiles. */
static void finish_group(const cpu_few *f, int64_t x_row, int64_t col,
                         int64_t cols)
{
    _Alignas(LINE) float sum[UNIT];
    square_store(sum);
    for (int64_t i = 0; i < SIDE && x_row + i < f->m; i++)
        for (int64_t half = 0; half * TILE_SIDE < cols; half++) {
            const int64_t left = cols - half * TILE_SIDE;
            few_put(f, x_row + i, col + half * TILE_SIDE,
                    sum + (i / TILE_SIDE * 2 + half) * (UNIT / 4) +
                        i % TILE_SIDE * TILE_SIDE,
                    left < TILE_SIDE ? left : TILE_SIDE);
        }
}

void CPU_NAME(cpu_tile_few_compact)(const cpu_few *f)
{
    const uint16_t *x = (const uint16_t *)(const void *)f->x;
    const int64_t steps = cpu_tile_steps(f->k);
    const uint8_t *at = f->blocks;
    for (int64_t j = 0; j < f->n; j += SIDE, at += steps * BLOCK) {
        cpu_few_fetch_c(f, j, SIDE);
        for (int64_t i = 0; i < f->m; i += SIDE) {
            const uint16_t *panel = x + i / SIDE * steps * UNIT;
            if (f->m - i > TILE_SIDE)
                multiply_group(f, at, panel, true, i == 0);
            else
                multiply_group(f, at, panel, false, i == 0);
            finish_group(f, i, j, f->n - j < SIDE ? f->n - j : SIDE);
        }
    }
}

#endif
