/* cpu_i.h - private to backend/cpu/. Who does what:
 *   cpu.c        open, close, memory, errors, threads, the choice of a rung
 *   cpu_linear.c products of matrices by their kind, embedding
 *   cpu_gemm.c   own products: packed, and of few rows
 *   cpu_compact.c copies of weights in fewer bytes, for few rows
 *   cpu_tiles.c  own products of bf16, on tiles (AMX) or by AVX512_BF16
 *   cpu_rows.c   row operations, loss, kept entries, optimizer
 *   cpu_attn.c   attention tasks, writes to the page pools
 *   isa/         own kernels, compiled once per instruction set
 *   tile/        own kernels for bf16
 * Threads: an operation splits its work into tasks by shape alone and runs
 * them as one part of be.team (backend/team.h); what a task computes does not
 * depend on who runs it, so results do not depend on the number of threads.
 */
#ifndef CPU_I_H
#define CPU_I_H

#include <assert.h>

#include "backend/backend.h"
#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/cpu_tiles.h"
#include "backend/team.h"

typedef struct cpu_backend {
    backend be; /* the table; be.impl points back here */
    const cpu_kernels *k;
    const cpu_tile_kernels *tiles; /* NULL: products of floats */
    lori_status failed;
    lori_error first; /* what failed first since the last sync */
    base_str detail;
    void *scratch; /* n_threads blocks of scratch_each bytes */
    size_t scratch_bytes, scratch_each;
    void *list; /* what an operation's threads share */
    size_t list_bytes;
    size_t l2_bytes;            /* of a processor's second cache */
    const backend_weight *last; /* that x W^T was computed with, or NULL */
} cpu_backend;

/* Where a weight lies. As it only says what to fetch, it may be out of date. */
typedef struct cpu_place {
    const void *data;
    int64_t rows, cols;
    const uint8_t *blocks; /* of its compact copy, or NULL */
} cpu_place;

struct backend_weight {
    const void *data;    /* [rows, cols], dtype be->act */
    void *owned;         /* converted copy, or NULL when used in place */
    cpu_compact compact; /* for products of few rows; empty: none */
    int64_t rows, cols;
    cpu_place *after; /* the weight that came after this one the last time */
};

static inline cpu_backend *cpu_of(backend *be)
{
    return be->impl;
}

/* A broken rule of the seam is a bug in this program. */
#define CPU_REQUIRE(condition) assert(condition)

/* Keeps the first failure. */
void cpu_fail(cpu_backend *cpu, lori_status status, const char *fmt, ...)
    BASE_PRINTF(3, 4);
/* At least `each` bytes of scratch for every thread, 64-byte aligned; false
 * (and a kept failure) when there is no memory. Contents are not kept. Never
 * called inside a parallel region. */
bool cpu_scratch(cpu_backend *cpu, size_t each);
static inline void *cpu_scratch_of(const cpu_backend *cpu, int thread)
{
    return (char *)cpu->scratch + (size_t)thread * cpu->scratch_each;
}
/* At least `bytes` that all threads of an operation share: a list of tasks, or
 * an operand as they take it; NULL as above. */
void *cpu_list(cpu_backend *cpu, size_t bytes);
/* 64-byte aligned zeroed memory (huge pages when large). */
void *cpu_memory(size_t bytes);
void cpu_memory_free(void *p);

static inline void *cpu_at(backend_view v, int64_t row, int64_t col)
{
    return (char *)v.data +
           (size_t)(row * v.ld + col) * base_dtype_bytes(v.dtype);
}

/* SwiGLU of products that are done, act, of one shape: of two, gate and up, to
 * a; or back, of one, a's gradient in the place of a, the gradients of gate and
 * up in theirs. */
typedef struct cpu_glu {
    backend_view gate, up, a;
    bool back;
} cpu_glu;

/* The same row by row. */
void cpu_glu_rows(cpu_backend *cpu, const cpu_glu *glu);

static inline bool cpu_is_act(const backend *be, backend_view v)
{
    return v.dtype == be->act;
}
static inline bool cpu_same_shape(backend_view a, backend_view b)
{
    return a.rows == b.rows && a.cols == b.cols;
}

/* The operations, one file each. */
void cpu_linear_fill(backend *be);
void cpu_rows_fill(backend *be);
void cpu_attn_fill(backend *be);

/* ---- products of matrices -------------------------------------------- */

/* c [m, n] = alpha a op(b) + beta plus; b has the dtype of a. */
typedef struct cpu_call {
    backend_view c, a;
    const backend_view *plus; /* of c's dtype and ld; NULL: c */
    const char *b;
    int64_t ldb, k;
    bool b_rows_n; /* b is [n, k] (used transposed), else [k, n] */
    float alpha, beta;
    const cpu_compact *compact; /* of b, or NULL */
    cpu_place after;            /* what the next product reads, or zero */
    /* A product that is added to the same c (alpha and beta 1), or NULL. On
     * tiles its terms follow those along k, elsewhere it is one of its own. */
    const struct cpu_call *then;
} cpu_call;

/* Where op(b) begins at (row, col): row along k, col along n. */
static inline const char *cpu_b_at(const cpu_call *p, int64_t row, int64_t col)
{
    int64_t at = p->b_rows_n ? col * p->ldb + row : row * p->ldb + col;
    return p->b + (size_t)at * base_dtype_bytes(p->a.dtype);
}

/* Where what beta multiplies begins at (row, col) of c. */
static inline const void *cpu_plus_at(const cpu_call *p, int64_t row,
                                      int64_t col)
{
    return cpu_at(p->plus ? *p->plus : p->c, row, col);
}

/* `total` cut into `count` pieces of `size`, the last one shorter. */
typedef struct cpu_cut {
    int64_t total, size, count;
} cpu_cut;

/* Into at most `pieces`, their size a multiple of `step`. */
static inline cpu_cut cpu_cut_even(int64_t total, int64_t pieces, int64_t step)
{
    int64_t size = (total + pieces - 1) / pieces;
    size = (size + step - 1) / step * step;
    return (cpu_cut){total, size, (total + size - 1) / size};
}
static inline int64_t cpu_cut_length(cpu_cut c, int64_t i)
{
    return i + 1 < c.count ? c.size : c.total - (c.count - 1) * c.size;
}

static inline int64_t cpu_clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

/* Any product, by own kernels. */
void cpu_gemm_packed(cpu_backend *cpu, const cpu_call *p);
/* n products of few rows of one a with rows of b, the same bits, and SwiGLU of
 * them (or NULL). False: not such products. */
bool cpu_gemm_few(cpu_backend *cpu, const cpu_call *p, int n,
                  const cpu_glu *glu);
/* n products of one a with what is added to them, and SwiGLU of them (or NULL);
 * and sums over tokens (backend.gemm_tn), on tiles. */
void cpu_gemm_tiles(cpu_backend *cpu, const cpu_call *p, int n,
                    const cpu_glu *glu);
void cpu_sum_tiles(cpu_backend *cpu, backend_view c, backend_view x,
                   backend_view y, float alpha, float beta);

#endif
