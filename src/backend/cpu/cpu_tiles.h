/* cpu_tiles.h - the table of kernels on tiles of bf16 (AMX). Private to
 * backend/cpu/. Kernels are single-threaded, allocate nothing and keep no
 * state but the tiles, which start() gives the calling thread and stop() takes
 * back.
 *
 * Operands are cut into panels of CPU_TILE_SIDE rows of a, or columns of b, and
 * CPU_TILE_STEP along k. A step of a packed panel is two tiles: of a, rows 0 to
 * 15 and 16 to 31 (with vectors a panel of a is its rows, one after the other);
 * of b, the even columns and the odd ones. Every sum runs over k in steps of 32
 * from 0 (tile/cpu_tile.h), so an element has the same bits in every kernel
 * here and in every company. */
#ifndef CPU_TILES_H
#define CPU_TILES_H

#include "backend/cpu/cpu_kernels.h"

#define CPU_TILE_SIDE  32
#define CPU_TILE_STEP  32
#define CPU_TILE_UNIT  1024 /* bf16 elements of a panel's step */
#define CPU_TILE_ROWS  64   /* that `few` takes */
#define CPU_TILE_PARTS 8    /* of a product's terms: some weights, low ranks */

/* Panels of a for a block along k: the first `direct` of them as rows in place
 * (whole ones, of k a multiple of 32), the others packed one after the other.
 */
typedef struct cpu_tile_a {
    const uint16_t *rows;
    int64_t ld, direct;
    const uint16_t *packed;
    int64_t steps; /* of a panel */
} cpu_tile_a;

/* Columns of op(b), to be packed: b is [n, k] (b_rows_n, used transposed) or
 * [k, n]. */
typedef struct cpu_tile_b {
    const uint16_t *b;
    int64_t ldb, n, k;
    bool b_rows_n;
    uint16_t *packed; /* pack_b: panels of all steps, one after the other */
} cpu_tile_b;

static inline int64_t cpu_tile_panels(int64_t n)
{
    return (n + CPU_TILE_SIDE - 1) / CPU_TILE_SIDE;
}
static inline int64_t cpu_tile_steps(int64_t k)
{
    return (k + CPU_TILE_STEP - 1) / CPU_TILE_STEP;
}

/* SwiGLU of a product c whose sums are complete, bf16, as in cpu_kernels: c is
 * up, and out = silu(gate) c; or, with out NULL, c is da, which is not written,
 * and gate and up become their gradients. Where c begins; gate NULL: none. */
typedef struct cpu_tile_glu {
    uint16_t *gate, *up, *out;
    int64_t ld_gate, ld_up, ld_out;
} cpu_tile_glu;

/* sum [m, n] (+)= a[0] b[0], then a[1] b[1] and so on, over a block of k; with
 * `last`, c = alpha sum + beta plus. Panels of b are packed into `panel`, all
 * parts of one together: each in the place of the one before or, with `keep`,
 * behind it; with `again` they are there. Meanwhile what comes next is fetched:
 * next_a, and the first panel of next_b or, packed, at next_panel. */
typedef struct cpu_tile_block {
    int64_t m, n;
    int parts;                            /* of k: at least 1 */
    cpu_tile_a a[CPU_TILE_PARTS], next_a; /* next_a.steps 0: none */
    cpu_tile_b b[CPU_TILE_PARTS], next_b; /* next_b.n 0: none */
    uint16_t *panel;
    const uint16_t *next_panel; /* NULL: not packed */
    bool keep, again;
    float *sum; /* UNIT floats for every 32 x 32; none where k is one block */
    bool first, last;
    void *c;          /* with `last` */
    const void *plus; /* the same, or c */
    int64_t ldc;      /* of both */
    bool c_bf;
    float alpha, beta;
    cpu_tile_glu glu; /* with it, alpha is 1 and beta 0 */
} cpu_tile_block;

/* c [p, q] float = alpha x^T y + beta c, p and q at most CPU_TILE_SIDE: a sum
 * over rows of x and y, in blocks of `block` rows, in order. */
typedef struct cpu_tile_sum {
    int64_t rows, block, p, q;
    const uint16_t *x, *y_turned; /* y: of turn(), a panel of all blocks */
    int64_t ldx;
    float *c;
    int64_t ldc;
    float alpha, beta;
} cpu_tile_sum;

/* Attention works on at most so many queries times heads at a time. */
#define CPU_TILE_LANES 384

typedef struct cpu_tile_kernels {
    void (*start)(void);
    void (*stop)(void);
    /* A panel of a: 32 rows from `rows` (of fewer, the others are zeros, or
     * never read), k elements of each. */
    void (*pack_a)(uint16_t *panel, const uint16_t *rows, int64_t ld,
                   int64_t n_rows, int64_t k);
    void (*pack_b)(const cpu_tile_b *b); /* all panels */
    void (*gemm)(const cpu_tile_block *g);
    /* x [m, k] as the next two take it, from the compact copy of w or not.
     * Returns how many elements it has; with `to` NULL, that alone. */
    int64_t (*few_x)(uint16_t *to, const uint16_t *x, int64_t ldx, int64_t m,
                     int64_t k, bool compact);
    /* As cpu_kernels.few, m <= CPU_TILE_ROWS. */
    void (*few)(const cpu_few *f);
    void (*few_compact)(const cpu_few *f);
    /* y [rows, q <= 32] to the panel that `sum` takes, every block of rows
     * filled up to whole steps. */
    void (*turn)(uint16_t *panel, const uint16_t *y, int64_t ldy, int64_t rows,
                 int64_t block, int64_t q);
    void (*sum)(const cpu_tile_sum *s);
    /* Attention of bf16, as in cpu_kernels; they start and stop the tiles. */
    int64_t (*attn_bytes)(int head_dim);
    void (*attn)(const cpu_attn_task *t, void *scratch);
    int64_t (*attn_grad_bytes)(int head_dim, int64_t max_len);
    void (*attn_grad)(const cpu_attn_grad *t, void *scratch);
} cpu_tile_kernels;

extern const cpu_tile_kernels cpu_tile_kernels_amx, cpu_tile_kernels_vectors,
    cpu_tile_kernels_emulated;

#endif
