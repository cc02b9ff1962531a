/* cpu_kernels.h - the table of own kernels that every instruction set fills.
 * Private to backend/cpu/. Kernels are single-threaded, allocate nothing and
 * keep no state. `bf` says that void * operands are bf16, else float. Sizes
 * need no rounding unless stated. */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/cpu/cpu_compact.h"

/* Columns of scratch matrices are padded to this, in every rung. */
#define CPU_PAD         16
#define CPU_ROUND_UP(n) (((n) + CPU_PAD - 1) / CPU_PAD * CPU_PAD)

/* Attention works on blocks of CPU_KEYS keys against at most CPU_LANES
 * queries: the positions of one block times the heads that share a K/V head. */
#define CPU_KEYS  64
#define CPU_LANES 128
#define CPU_LD    144 /* rows of lanes: an odd number of cache lines */
#define CPU_HEADS 8   /* query heads of a K/V head handled together */
/* A single row of queries is not worth a matrix of lanes. Its keys are cut into
 * parts of CPU_ATTN_PART, so that all threads find work in one sequence; by
 * position alone, so a row's bits do not depend on other sequences or on the
 * threads. */
#define CPU_ATTN_PART 128

typedef struct cpu_attn_task {
    const char *q; /* first query row of the sequence, at the first head */
    char *o;
    float *lse;              /* may be NULL */
    int64_t ldq, ldo, ldlse; /* elements from row to row */
    const char *k, *v;       /* at the K/V head; row 0 or page pool */
    int64_t ldk, ldv;
    const int32_t *table; /* pages of this sequence, or NULL */
    int page;
    int heads;        /* query heads here, <= CPU_HEADS */
    int head_dim;     /* D */
    int64_t first, n; /* query rows [first, first + n) of the sequence */
    int64_t past;     /* position of query row 0 */
    int64_t window;   /* 0: none */
    float scale;
    bool bf;
    int64_t key, key_end; /* keys that the queries here see */
    float *part;          /* of one row: what these keys give goes here */
    const struct cpu_attn_task *next; /* what is read next, or NULL */
} cpu_attn_task;

/* The first key that is seen from this position. */
static inline int64_t cpu_attn_first(int64_t position, int64_t window)
{
    return window > 0 && position >= window ? position - window + 1 : 0;
}

/* What a part of the keys gives for one row of queries: maxima, sums of
 * exponentials, and sums of values [CPU_HEADS, D rounded up to CPU_PAD]. */
static inline int64_t cpu_attn_part_floats(int head_dim)
{
    return CPU_HEADS * (2 + (int64_t)CPU_ROUND_UP(head_dim));
}

/* Backward over one whole sequence and some heads of one K/V head. */
typedef struct cpu_attn_grad {
    const char *q, *k, *v, *o, *dout;
    char *dq, *dk, *dv;
    const float *lse;
    float *delta;
    int64_t ldq, ldk, ldv, ldo, lddo, lddq, lddk, lddv, ldlse, lddelta;
    /* dK and dV stay here as floats [n, D rounded up to CPU_PAD], because
     * other heads add to them; NULL: they are complete, dk and dv are written.
     */
    float *dk_part, *dv_part;
    int heads; /* any number */
    int head_dim;
    int64_t n; /* length of the sequence */
    int64_t window;
    float scale;
    bool bf;
} cpu_attn_grad;

typedef struct cpu_adamw_step {
    float decay;        /* 1 - lr wd */
    float beta1, left1; /* left = 1 - beta, not rounded twice */
    float beta2, left2;
    float step; /* lr / (1 - beta1^t) */
    float root; /* 1 / sqrt(1 - beta2^t) */
    float eps, grad_scale;
} cpu_adamw_step;

/* Blocks of the packed product; panels are at most CPU_PANEL columns wide. */
#define CPU_PANEL   32
#define CPU_GEMM_K  768
#define CPU_GEMM_LD (CPU_GEMM_K + CPU_PAD) /* rows fall into other sets */

/* What to fetch into the second cache while a block is multiplied: rows of
 * so many lines. */
typedef struct cpu_ahead {
    const char *at;
    int64_t row_bytes, rows, lines;
} cpu_ahead;

/* Lines that so many bytes touch: tensors of a safetensors file begin at any
 * multiple of 8. */
static inline int64_t cpu_lines(const void *at, int64_t bytes)
{
    enum { LINE_BYTES = 64 };
    const int64_t skew = (int64_t)((uintptr_t)at % LINE_BYTES);
    return (skew + bytes + LINE_BYTES - 1) / LINE_BYTES;
}

/* sum [m, n] (+)= x panels, one chain of multiply-adds over k each; with
 * `last`: c = alpha sum + beta plus. */
typedef struct cpu_gemm_block {
    int64_t m, n, k;     /* k <= CPU_GEMM_K */
    const float *x;      /* [m, CPU_GEMM_LD] */
    const float *panels; /* of pack() */
    float *sum;          /* [m, panel] for every panel, sum_rows rows apart */
    int64_t sum_rows;
    bool first, last; /* block along k */
    void *c;          /* with `last`: [m, n] */
    const void *plus; /* the same, or c */
    int64_t ldc;      /* of both */
    bool c_bf;
    float alpha, beta;
    cpu_ahead ahead[2];
} cpu_gemm_block;

/* c [m, n] = alpha x w^T + beta plus for few rows of x; the same bits. */
#define CPU_FEW_ROWS 32
typedef struct cpu_few {
    int64_t m, n, k; /* m <= CPU_FEW_ROWS */
    const float *x;  /* of few_x() */
    const void *w;   /* [n, k] */
    int64_t ldw;
    bool bf; /* w */
    /* few_compact: instead of w, blocks of its rows, and whole ones */
    const uint8_t *blocks;
    const uint16_t *whole;
    const void *after; /* what is read next, so many bytes at least; or NULL */
    int64_t after_bytes;
    void *c;
    const void *plus; /* or c */
    int64_t ldc;      /* of both */
    bool c_bf;
    float alpha, beta;
} cpu_few;

/* Fetches what rows of w from `row` on are written to, [m, cols] of c, and what
 * is added to it: another thread had it last, and its processor may have it
 * still. */
static inline void cpu_few_fetch_c(const cpu_few *f, int64_t row, int64_t cols)
{
    enum { LINE_BYTES = 64 };
    const int64_t size = f->c_bf ? 2 : 4;
    const bool apart = f->beta != 0 && f->plus != f->c;
    cols = cols < f->n - row ? cols : f->n - row;
    for (int64_t i = 0; i < f->m; i++) {
        const int64_t first = (i * f->ldc + row) * size;
        for (int64_t at = first; at < first + cols * size; at += LINE_BYTES) {
            __builtin_prefetch((const char *)f->c + at, 1, 3);
            if (apart)
                __builtin_prefetch((const char *)f->plus + at, 0, 3);
        }
    }
}

static inline int64_t cpu_few_compact_ld(int64_t k)
{
    return (k + CPU_GEMM_K - 1) / CPU_GEMM_K * CPU_GEMM_LD;
}

typedef struct cpu_kernels {
    const char *name;
    /* bf16 -> float, float -> bf16 (nearest even, NaN stays NaN) */
    void (*expand)(float *dst, const uint16_t *src, int64_t n);
    void (*shrink)(uint16_t *dst, const float *src, int64_t n);
    /* dst [rows, ldd] float = src [rows, n], zeros up to the next multiple of
     * CPU_PAD (ldd allows them) */
    void (*load_rows)(float *dst, int64_t ldd, const void *src, int64_t lds,
                      int64_t rows, int64_t n, bool bf);
    /* y = alpha x + beta y; y bf16 with bf */
    void (*axpby)(void *y, const float *x, float alpha, float beta, int64_t n,
                  bool bf);
    void (*add)(float *dst, const void *src, int64_t n, bool bf);
    void (*add_bias)(void *y, const float *b, int64_t n, bool bf);

    float (*rmsnorm)(void *y, const void *x, const float *w, double eps,
                     int64_t d, bool bf); /* returns rstd */
    /* copy: of the new dx, bf16 as x is, or NULL */
    void (*rmsnorm_bwd)(float *dx, const float *dy, const void *x,
                        const float *w, float rstd, int64_t d, bool bf,
                        void *copy);
    void (*rope)(void *x, const float *cos, const float *sin, int64_t heads,
                 int64_t head_dim, bool inverse, bool bf);
    void (*swiglu)(void *a, const void *g, const void *u, int64_t n, bool bf);
    void (*swiglu_bwd)(void *g, void *u, const void *da, int64_t n, bool bf);

    /* log-sum-exp of x[0..n), as max + log(sum): *max, returns log(sum); NaN
     * where an element is not finite */
    double (*logsum)(const float *x, int64_t n, float *max);
    void (*xent_grad)(void *d, const float *x, float lse, float weight,
                      int64_t target, int64_t n, bool bf);
    int64_t (*argmax)(const float *x, int64_t n);
    double (*sqnorm)(const float *x, int64_t n);
    void (*adamw)(float *p, const float *g, float *m, float *v, int64_t n,
                  const cpu_adamw_step *s);

    /* c [m, n] (+)= a b over k, in float: element (i, t) of a is
     * a[i * ars + t * aks], b [k, n], c [m, n] by rows. n, ldb and ldc are
     * multiples of CPU_PAD. Each element is one FMA chain over k. */
    void (*mm)(int64_t m, int64_t n, int64_t k, const float *a, int64_t ars,
               int64_t aks, const float *b, int64_t ldb, float *c, int64_t ldc,
               bool add);
    /* A block of b [n, k] (b_rows_n) or [k, n] as floats, in panels of up to
     * CPU_PANEL columns; panels has room for n rounded up to CPU_PANEL. */
    void (*pack)(float *panels, const void *b, int64_t ldb, bool b_rows_n,
                 int64_t n, int64_t k, bool bf);
    /* Columns of a panel. */
    int panel;
    void (*gemm)(const cpu_gemm_block *g);
    void (*few)(const cpu_few *f);
    /* The same from the compact copy of w, and x as it takes it: m times
     * cpu_few_compact_ld(k) floats. NULL: not on this instruction set. */
    void (*few_compact)(const cpu_few *f);
    void (*few_compact_x)(float *dst, const void *x, int64_t ldx, int64_t m,
                          int64_t k, bool bf);
    /* A block of the compact copy of w [n, at least 32 columns]. False: too
     * many exponents, or too far apart; what is written says nothing. */
    bool (*compact_write)(uint8_t *block, const uint16_t *w, int64_t ld,
                          int64_t n);
    /* x as `few` takes it: m rounded up to CPU_PAD times k rounded up floats */
    void (*few_x)(float *dst, const void *x, int64_t ldx, int64_t m, int64_t k,
                  bool bf);

    /* Scratch bytes of the attention kernels. */
    int64_t (*attn_bytes)(int head_dim);
    void (*attn)(const cpu_attn_task *t, void *scratch);
    /* Of one row of queries, to t->part; then o and lse from the n parts there,
     * one after the other. */
    int64_t (*attn_row_bytes)(int head_dim);
    void (*attn_row)(const cpu_attn_task *t, void *scratch);
    void (*attn_join)(const cpu_attn_task *t, int64_t n, void *scratch);
    int64_t (*attn_grad_bytes)(int head_dim, int64_t max_len);
    void (*attn_grad)(const cpu_attn_grad *t, void *scratch);
} cpu_kernels;

/* Query positions in a block for a group of `heads` heads (<= CPU_HEADS). */
static inline int cpu_attn_block(int heads)
{
    int n = CPU_LANES / heads;
    return n >= 64 ? 64 : n >= 32 ? 32 : n >= 24 ? 24 : 16;
}

extern const cpu_kernels cpu_kernels_base, cpu_kernels_avx2, cpu_kernels_avx512,
    cpu_kernels_avx512bf16;

#endif
