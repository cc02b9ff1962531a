/* cpu_t_compact.c - products of few rows with a weight's compact copy
 * (cpu_compact.h). A block's pairs of columns are rows of a b tile, so here x
 * is a and w is b; an element's products and their order are those of
 * cpu_t_few.c. */
#include "backend/cpu/tile/cpu_t.h"

enum { SIDE = CPU_TILE_SIDE, UNIT = CPU_TILE_UNIT, BLOCK = CPU_COMPACT_BLOCK };
enum { LINES = (BLOCK + LINE - 1) / LINE };
_Static_assert(CPU_COMPACT_SIDE == CPU_TILE_SIDE &&
                   CPU_COMPACT_SIDE == CPU_TILE_STEP,
               "a block is a step of a panel");

/* What is read so far after a block: of this product, or of the next; or NULL.
 */
INLINE const char *read_after(const cpu_few *f, const uint8_t *at)
{
    enum { AHEAD = 8 * BLOCK };
    const int64_t blocks = cpu_compact_blocks(f->n) * cpu_compact_blocks(f->k);
    const int64_t before = at - f->blocks + AHEAD - blocks * BLOCK;
    if (before < 0)
        return (const char *)at + AHEAD;
    return before < f->after_bytes ? (const char *)f->after + before : NULL;
}

/* So many lines of it. */
INLINE void ask_ahead(const cpu_few *f, const uint8_t *at, int64_t lines)
{
    const char *from = read_after(f, at);
    for (int64_t i = 0; i < lines && from; i++)
        __builtin_prefetch(from + i * LINE, 0, 2);
}

/* Block at `at` as two b tiles. */
INLINE void open_block(uint16_t *to, const cpu_few *f, const uint8_t *at)
{
    const compact_block b = compact_at(f, at);
    if (b.whole)
        open_tiles(to, &b, true);
    else
        open_tiles(to, &b, false);
}

#ifdef CPU_TILE_VECTORS

INLINE int64_t groups_of(const cpu_few *f)
{
    return (f->m + GROUP - 1) / GROUP;
}

/* Rows of x, the first `rows` of them (a constant), with `steps` blocks from
 * `at` on. Blocks open as they are multiplied, and are left in `open` if that
 * is not NULL. */
INLINE void multiply_opened(few_sums *sums, const cpu_few *f, int rows,
                            const uint8_t *at, int64_t from, int64_t steps,
                            uint16_t *open)
{
    const int64_t ld = few_ld(f->k), lines = LINES / groups_of(f);
    const uint16_t *x =
        (const uint16_t *)(const void *)f->x + from * CPU_TILE_STEP;
    __m512 sum[GROUP][2];
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++)
            sum[i][h] = from ? _mm512_load_ps(sums->at + i * SIDE + h * VL)
                             : _mm512_setzero_ps();
    for (int64_t s = 0; s < steps; s++, at += BLOCK, x += CPU_TILE_STEP) {
        const compact_block b = compact_at(f, at);
        ask_ahead(f, at, lines);
        for (int pairs = 0; pairs < TILE_SIDE / 2; pairs++) {
            vu w[2][COMPACT_VECTORS];
            if (b.whole)
                compact_open(w, &b, pairs, true);
            else
                compact_open(w, &b, pairs, false);
            for (int p = 0; p < 2; p++) {
                const int at_pair = 2 * pairs + p;
                for (int h = 0; h < 2 && open; h++)
                    store_words(open + s * UNIT + h * TILE + at_pair * TILE_K,
                                w[p][h]);
                for (int i = 0; i < rows; i++) {
                    const __m512bh y = pair_of(x + i * ld + 2 * at_pair);
                    for (int h = 0; h < 2; h++)
                        sum[i][h] =
                            _mm512_dpbf16_ps(sum[i][h], y, (__m512bh)w[p][h]);
                }
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++)
            _mm512_store_ps(sums->at + i * SIDE + h * VL, sum[i][h]);
}

/* Columns from `at` on, by a constant number of rows. */
static void multiply_group(few_sums *sums, const cpu_few *f, const uint8_t *at)
{
    const int64_t steps = cpu_tile_steps(f->k);
#define CALL(n)                                                                \
    case n:                                                                    \
        multiply_opened(sums, f, n, at, 0, steps, NULL);                       \
        return;
    BY_ROWS(f->m, CALL)
#undef CALL
    enum { CHUNK = 2 };
    _Alignas(LINE) uint16_t w[CHUNK * UNIT];
    for (int64_t s = 0; s < steps; s += CHUNK, at += CHUNK * BLOCK) {
        const int64_t end = steps - s < CHUNK ? steps : s + CHUNK;
        multiply_opened(sums, f, GROUP, at, s, end - s, w);
        few_ahead ahead = {.at = read_after(f, at), .step = BLOCK};
        if (ahead.at) { /* what is left to ask for, evenly */
            ahead.at += LINES / groups_of(f) * LINE;
            ahead.lines = LINES / groups_of(f);
        }
        few_multiply(sums, f, GROUP, w, s, end, ahead);
    }
}

void CPU_NAME(cpu_tile_few_compact)(const cpu_few *f)
{
    const uint8_t *at = f->blocks;
    const int64_t steps = cpu_tile_steps(f->k);
    for (int64_t j = 0; j < f->n; j += SIDE, at += steps * BLOCK) {
        few_sums sums;
        multiply_group(&sums, f, at);
        few_finish(&sums, f, j, f->n - j < SIDE ? f->n - j : SIDE);
    }
}

#else

/* [32 of x, 32 of w] in tiles 0 to 3; 2 and 3 are not used for 16 or fewer
 * rows of x. */
INLINE void multiply_group(const cpu_few *f, const uint8_t *at,
                           const uint16_t *x, bool both, bool ask)
{
    _Alignas(LINE) uint16_t w[2][UNIT];
    square_clear();
    for (int64_t k = 0; k < f->k; k += SIDE, at += BLOCK, x += UNIT) {
        uint16_t *open = w[k / SIDE % 2];
        open_block(open, f, at);
        if (ask)
            ask_ahead(f, at, LINES);
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
            const int64_t at = (x_row + i) * f->ldc + col + half * TILE_SIDE;
            put_scaled((char *)f->c + (size_t)at * (f->c_bf ? 2 : 4),
                       sum + (i / TILE_SIDE * 2 + half) * (UNIT / 4) +
                           i % TILE_SIDE * TILE_SIDE,
                       left < TILE_SIDE ? left : TILE_SIDE, f->alpha, f->beta,
                       f->c_bf);
        }
}

void CPU_NAME(cpu_tile_few_compact)(const cpu_few *f)
{
    const uint16_t *x = (const uint16_t *)(const void *)f->x;
    const int64_t steps = cpu_tile_steps(f->k);
    const uint8_t *at = f->blocks;
    for (int64_t j = 0; j < f->n; j += SIDE, at += steps * BLOCK)
        for (int64_t i = 0; i < f->m; i += SIDE) {
            const uint16_t *panel = x + i / SIDE * steps * UNIT;
            if (f->m - i > TILE_SIDE)
                multiply_group(f, at, panel, true, i == 0);
            else
                multiply_group(f, at, panel, false, i == 0);
            finish_group(f, i, j, f->n - j < SIDE ? f->n - j : SIDE);
        }
}

#endif
