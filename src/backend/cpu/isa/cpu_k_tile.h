/* cpu_k_tile.h - what products with large matrices share: turning rows, the
 * register tile, asking for memory ahead. Private to isa/. */
#ifndef CPU_K_TILE_H
#define CPU_K_TILE_H

#include "backend/cpu/isa/cpu_k.h"

#define PANEL (2 * VL)
_Static_assert(PANEL <= CPU_PANEL && CPU_PANEL % PANEL == 0,
               "scratch is cut for whole panels");

/* ---- rows turned ------------------------------------------------------- */

/* What one transposition gives of VL rows: so many elements along k. */
#define K_STEP(bf) ((bf) ? 2 * VL : VL)

/* Elements [from, from + count) of VL rows, turned: lane i of part[t] is row
 * i's float t or pair t of bf16; zero past `count`. */
INLINE void turn_rows(vf *part, const char *const *row, int64_t from,
                      int64_t count, bool bf)
{
    const size_t size = bf ? 2 : 4;
    for (int i = 0; i < VL; ++i) {
        const char *p = row[i] + (size_t)from * size;
        if (count == K_STEP(bf)) {
            memcpy(&part[i], p, sizeof part[i]);
        } else {
            part[i] = (vf){0};
            memcpy(&part[i], p, (size_t)count * size);
        }
    }
    turn_square(part);
}

/* ---- a register tile -------------------------------------------------- */

/* Asks for lines of what comes next while a block is multiplied. */
typedef struct ahead {
    const cpu_ahead *part; /* in hand, and one more where `more` */
    const char *row;
    int64_t rows, at; /* left of the part; the next line of its first */
    int64_t each;     /* lines for every AHEAD_STEP of k */
    bool more;
} ahead;
#define AHEAD_STEP 16

INLINE void look_ahead(ahead *a)
{
    for (int64_t i = 0; i < a->each && a->rows > 0; ++i) {
        __builtin_prefetch(a->row + a->at * 64, 0, 2);
        if (++a->at < a->part->lines)
            continue;
        a->at = 0;
        a->row += a->part->row_bytes;
        if (--a->rows == 0 && a->more) {
            a->more = false;
            ++a->part;
            a->row = a->part->at;
            a->rows = a->part->rows;
        }
    }
}

/* One register tile: to [rows, wide vectors] = from + x panel; `from` NULL is
 * zero. `rows` and `wide` are constants where this is inlined. */
INLINE void tile(int rows, int wide, int64_t k, const float *x,
                 const float *panel, const float *from, float *to, ahead *a)
{
    vf acc[MM_ROWS][2];
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < wide; ++j)
            acc[i][j] = from ? load(from + i * PANEL + j * VL) : (vf){0};
    for (int64_t t = 0; t < k;) {
        const int64_t end = k - t < AHEAD_STEP ? k : t + AHEAD_STEP;
        look_ahead(a);
        for (; t < end; ++t) {
            vf b0 = load(panel);
            vf b1 = wide > 1 ? load(panel + VL) : b0;
            panel += wide * VL;
            for (int i = 0; i < rows; ++i) {
                vf v = splat(x[i * CPU_GEMM_LD + t]);
                acc[i][0] = madd(v, b0, acc[i][0]);
                if (wide > 1)
                    acc[i][1] = madd(v, b1, acc[i][1]);
            }
        }
    }
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < wide; ++j)
            store(to + i * PANEL + j * VL, acc[i][j]);
}

#define TILE(n)                                                                \
    case n:                                                                    \
        tile(n, wide, k, x, panel, from, to, a);                               \
        break;

INLINE void tile_of(int64_t rows, int wide, int64_t k, const float *x,
                    const float *panel, const float *from, float *to, ahead *a)
{
    switch (rows) {
        TILE(1)
        TILE(2)
        TILE(3)
        TILE(4)
        TILE(5)
#if MM_ROWS > 6
        TILE(6)
        TILE(7) TILE(8) TILE(9) TILE(10) TILE(11)
#endif
            default : tile(MM_ROWS, wide, k, x, panel, from, to, a);
        break;
    }
}

#undef TILE

/* Asks for `left` bytes of memory at `at`, while what lies before is in use. */
typedef struct stream {
    uintptr_t at;
    int64_t left;
} stream;

INLINE void stream_bytes(stream *s, int64_t bytes)
{
    if (s->left <= 0)
        return;
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const void *)(s->at + (uintptr_t)i), 0, 2);
    s->at += (uintptr_t)bytes;
    s->left -= bytes;
}

#endif
