/* cpu_t_opened.c - products of few rows of x with AVX512_BF16. 32 rows of w
 * become b tiles, some steps at a time: a weight as it lies is turned, blocks
 * of a compact copy open. The tiles are kept in the first cache and multiplied
 * with a group of rows of x after the other; the first group multiplies an
 * opened block while it is still in registers. */
#include "backend/cpu/tile/cpu_t_ahead.h"

#ifdef CPU_TILE_VECTORS

enum { SIDE = CPU_TILE_SIDE, STEP = CPU_TILE_STEP, UNIT = CPU_TILE_UNIT };
enum { BLOCK = CPU_COMPACT_BLOCK };

/* Steps that are kept: more of them drive each other out of the first cache,
 * with the rows of x and what is fetched (8 took a third longer). */
enum { CHUNK = 4 };

/* ---- x ------------------------------------------------------------------ */

/* From row to row: zeros up to a whole step, and a line that spreads rows over
 * the sets of the first cache. */
INLINE int64_t x_ld(int64_t k)
{
    return cpu_tile_steps(k) * STEP + LINE / 2;
}

int64_t CPU_NAME(cpu_tile_few_x)(uint16_t *to, const uint16_t *x, int64_t ldx,
                                 int64_t m, int64_t k, bool compact)
{
    const int64_t ld = x_ld(k);
    (void)compact;
    if (to)
        rows_to_steps(to, ld, x, ldx, m, k);
    return m * ld;
}

/* ---- 32 rows of w ------------------------------------------------------- */

typedef struct rows_of_w {
    const cpu_few *f;
    int64_t group; /* rows of x at a time: all groups are about equal */
    int64_t share; /* lines to fetch with a step of a group */
    /* as they lie */
    few_panel p, next;
    cpu_few *after;
    /* of a compact copy; NULL: as they lie */
    const uint8_t *blocks;
} rows_of_w;

/* A group's share of what is fetched with step s. */
INLINE few_ahead ahead_of(const rows_of_w *w, int64_t s, int64_t group)
{
    few_ahead a;
    if (w->blocks) {
        a = (few_ahead){block_ahead(w->f, w->blocks + s * BLOCK), BLOCK_LINES,
                        LINE};
    } else {
        const few_panel of = panel_ahead(&w->p, &w->next, s);
        if (of.rows == 0)
            after_ask(w->after);
        a = (few_ahead){(const char *)of.w, of.rows, of.ld * 2};
    }
    const int64_t from = group * w->share, left = a.lines - from;
    a.lines = !a.at || left < 0 ? 0 : left < w->share ? left : w->share;
    a.at += from * a.step;
    return a;
}

/* Step s as b tiles: rows 0 .. 15, and 16 .. 31. Whole lines at once: rows may
 * lie so that they fall into one set of the first cache. */
INLINE void turn_step(uint16_t *to, const few_panel *p, int64_t s)
{
    const uint16_t *at = p->w + s * STEP, *below = at + TILE_SIDE * p->ld;
    const int64_t k = p->k - s * STEP, low = p->rows - TILE_SIDE;
    if (p->rows == SIDE && k >= STEP) {
        tile_b_turned(to, at, p->ld, TILE_SIDE, STEP);
        tile_b_turned(to + TILE, below, p->ld, TILE_SIDE, STEP);
    } else {
        tile_b_turned(to, at, p->ld, p->rows, k);
        tile_b_turned(to + TILE, low > 0 ? below : at, p->ld, low, k);
    }
}

/* ---- products ----------------------------------------------------------- */

/* Of all rows of x with 32 of w. */
typedef struct few_sums {
    _Alignas(LINE) float at[CPU_TILE_ROWS * SIDE];
} few_sums;

/* Groups of rows of x from `first` on with steps [from, to), which are kept. */
INLINE void multiply_kept(few_sums *sums, const rows_of_w *w, int64_t first,
                          int64_t from, int64_t to, const uint16_t *kept)
{
    const int64_t ld = x_ld(w->f->k), m = w->f->m, group = w->group;
    const uint16_t *x = (const uint16_t *)(const void *)w->f->x + from * STEP;
    for (int64_t g = first, row = g * group; row < m; g++, row += group) {
        few_ahead ahead[CHUNK];
        for (int64_t s = from; s < to; s++)
            ahead[s - from] = ahead_of(w, s, g);
        multiply_few(&(product){.sum = sums->at + row * SIDE,
                                .row = SIDE,
                                .right = VL,
                                .a = x + row * ld,
                                .a_row = ld,
                                .a_step = STEP,
                                .b = kept,
                                .b_step = UNIT,
                                .steps = to - from,
                                .add = from > 0,
                                .ahead = ahead},
                     m - row < group ? m - row : group, 0);
    }
}

/* Words at and at + 1 along k of a step: of rows 0 .. 15 and 16 .. 31 of w. */
INLINE void words_of(vu to[2][2], const compact_block *b, const uint16_t *tiles,
                     int at)
{
    if (tiles)
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 2; h++)
                memcpy(&to[i][h], tiles + h * TILE + (at + i) * TILE_K,
                       sizeof to[i][h]);
    else if (b->whole)
        compact_open(to, b, at / 2, 0, true);
    else
        compact_open(to, b, at / 2, 0, false);
}

/* The first group, so many rows (a constant), with steps [from, to) as they are
 * turned or open; kept if `kept` is not NULL. */
INLINE void multiply_opened(few_sums *sums, const rows_of_w *w, bool compact,
                            int rows, int64_t from, int64_t to, uint16_t *kept)
{
    const int64_t ld = x_ld(w->f->k);
    const uint16_t *x = (const uint16_t *)(const void *)w->f->x + from * STEP;
    _Alignas(LINE) uint16_t tiles[UNIT];
    __m512 sum[GROUP][2];
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++)
            sum[i][h] = from ? _mm512_load_ps(sums->at + i * SIDE + h * VL)
                             : _mm512_setzero_ps();
    for (int64_t s = from; s < to; s++, x += STEP) {
        few_ahead next = ahead_of(w, s, 0);
        compact_block b = {0};
        if (compact) { /* at once: faster here */
            for (int64_t i = 0; i < next.lines; i++)
                __builtin_prefetch(next.at + i * LINE, 0, 2);
            next.lines = 0;
            b = compact_at(w->f, w->blocks + s * BLOCK);
        } else {
            turn_step(tiles, &w->p, s);
        }
        for (int at = 0; at < TILE_SIDE; at += 2) {
            vu words[2][2];
            words_of(words, &b, compact ? NULL : tiles, at);
            for (int p = 0; p < 2; p++) {
                few_fetch(&next, at + p);
                for (int h = 0; h < 2 && kept; h++)
                    store_words(kept + (s - from) * UNIT + h * TILE +
                                    (at + p) * TILE_K,
                                words[p][h]);
                for (int i = 0; i < rows; i++) {
                    const __m512bh y = pair_of(x + i * ld + 2 * (at + p));
                    for (int h = 0; h < 2; h++)
                        sum[i][h] = _mm512_dpbf16_ps(sum[i][h], y,
                                                     (__m512bh)words[p][h]);
                }
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++)
            _mm512_store_ps(sums->at + i * SIDE + h * VL, sum[i][h]);
}

INLINE void multiply_group(few_sums *sums, const rows_of_w *w, bool compact,
                           int64_t from, int64_t to, uint16_t *kept)
{
#define CALL(n)                                                                \
    case n:                                                                    \
        multiply_opened(sums, w, compact, n, from, to, kept);                  \
        break;
    BY_ROWS(w->group, CALL)
#undef CALL
}

/* All rows of x. */
INLINE void multiply_all(few_sums *sums, const rows_of_w *w, bool compact)
{
    const int64_t steps = cpu_tile_steps(w->f->k);
    _Alignas(LINE) uint16_t kept[CHUNK * UNIT];
    if (w->group == w->f->m) {
        multiply_group(sums, w, compact, 0, steps, NULL);
        return;
    }
    for (int64_t s = 0; s < steps; s += CHUNK) {
        const int64_t end = steps - s < CHUNK ? steps : s + CHUNK;
        if (compact)
            multiply_group(sums, w, true, s, end, kept);
        for (int64_t i = s; i < end && !compact; i++)
            turn_step(kept + (i - s) * UNIT, &w->p, i);
        multiply_kept(sums, w, compact ? 1 : 0, s, end, kept);
    }
}

/* ---- a product ---------------------------------------------------------- */

static rows_of_w first_rows(const cpu_few *f, int64_t lines)
{
    const int64_t groups = (f->m + GROUP - 1) / GROUP;
    return (rows_of_w){.f = f,
                       .group = (f->m + groups - 1) / groups,
                       .share = (lines + groups - 1) / groups};
}

/* To columns [col, col + 32) of c, or those that are left. */
INLINE void finish(const few_sums *sums, const cpu_few *f, int64_t col)
{
    const int64_t cols = f->n - col < SIDE ? f->n - col : SIDE;
    for (int64_t i = 0; i < f->m; i++)
        few_put(f, i, col, sums->at + i * SIDE, cols);
}

void CPU_NAME(cpu_tile_few)(const cpu_few *f)
{
    cpu_few after = *f;
    few_sums sums;
    rows_of_w w = first_rows(f, SIDE);
    w.after = &after;
    for (int64_t j = 0; j < f->n; j += SIDE) {
        w.p = panel_at(f, j);
        w.next = j + SIDE < f->n ? panel_at(f, j + SIDE) : (few_panel){0};
        cpu_few_fetch_c(f, j, SIDE);
        multiply_all(&sums, &w, false);
        finish(&sums, f, j);
    }
}

void CPU_NAME(cpu_tile_few_compact)(const cpu_few *f)
{
    few_sums sums;
    rows_of_w w = first_rows(f, BLOCK_LINES);
    w.blocks = f->blocks;
    for (int64_t j = 0; j < f->n; j += SIDE) {
        cpu_few_fetch_c(f, j, SIDE);
        multiply_all(&sums, &w, true);
        finish(&sums, f, j);
        w.blocks += cpu_tile_steps(f->k) * BLOCK;
    }
}

#endif
