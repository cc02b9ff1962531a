/* cpu_t_ahead.h - what products of few rows fetch before they read it. Private
 * to tile/. */
#ifndef CPU_T_AHEAD_H
#define CPU_T_AHEAD_H

#include "backend/cpu/isa/cpu_k_open.h"
#include "backend/cpu/tile/cpu_t.h"

/* ---- weights as they lie ------------------------------------------------ */

/* 32 rows of w, or those that are left. */
typedef struct few_panel {
    const uint16_t *w;
    int64_t ld, rows, k;
} few_panel;

INLINE few_panel panel_at(const cpu_few *f, int64_t row)
{
    const int64_t left = f->n - row;
    return (few_panel){(const uint16_t *)f->w + row * f->ldw, f->ldw,
                       left < CPU_TILE_SIDE ? left : CPU_TILE_SIDE, f->k};
}

/* What is read `AHEAD` steps after step s of a panel: of it, or of the next
 * one; rows 0: neither, but what comes after. */
INLINE few_panel panel_ahead(const few_panel *p, const few_panel *next,
                             int64_t s)
{
#ifdef CPU_TILE_VECTORS
    enum { AHEAD = 12 };
#else
    enum { AHEAD = 6 };
#endif
    const int64_t steps = cpu_tile_steps(p->k), at = s + AHEAD;
    few_panel of = at < steps ? *p : *next;
    const int64_t step = at < steps ? at : at - steps;
    if (step >= steps)
        of.rows = 0;
    of.w += of.rows ? step * CPU_TILE_STEP : 0;
    return of;
}

/* A step's share of what is read after a product. */
INLINE void after_ask(cpu_few *after)
{
    for (int64_t i = 0; i < CPU_TILE_SIDE && after->after_bytes > 0; i++) {
        __builtin_prefetch(after->after, 0, 2);
        after->after = (const char *)after->after + LINE;
        after->after_bytes -= LINE;
    }
}

/* All of it. */
INLINE void panel_ask(const few_panel *p, const few_panel *next, int64_t s,
                      cpu_few *after)
{
    const few_panel of = panel_ahead(p, next, s);
    for (int64_t i = 0; i < of.rows; i++)
        __builtin_prefetch(of.w + i * of.ld, 0, 2);
    if (of.rows == 0)
        after_ask(after);
}

/* ---- compact copies ----------------------------------------------------- */

_Static_assert(CPU_COMPACT_SIDE == CPU_TILE_SIDE &&
                   CPU_COMPACT_SIDE == CPU_TILE_STEP,
               "a block is a step of a panel");

/* What is read so far after a block: of this product, or of the next; or NULL.
 */
INLINE const char *block_ahead(const cpu_few *f, const uint8_t *at)
{
    enum { AHEAD = 6 * CPU_COMPACT_BLOCK };
    const int64_t blocks = cpu_compact_blocks(f->n) * cpu_compact_blocks(f->k);
    const int64_t before = at - f->blocks + AHEAD - blocks * CPU_COMPACT_BLOCK;
    if (before < 0)
        return (const char *)at + AHEAD;
    return before < f->after_bytes ? (const char *)f->after + before : NULL;
}

/* All of it. */
enum { BLOCK_LINES = (CPU_COMPACT_BLOCK + LINE - 1) / LINE };
INLINE void blocks_ask(const cpu_few *f, const uint8_t *at)
{
    const char *from = block_ahead(f, at);
    for (int64_t i = 0; i < BLOCK_LINES && from; i++)
        __builtin_prefetch(from + i * LINE, 0, 2);
}

#endif
