/* cuda_i.h - private to backend/cuda/. Who does what:
 *   cuda.c        open, close, memory, errors, frozen weights
 *   cuda_linear.c products of matrices by their kind, sums over tokens
 *   cuda_lt.c     the only file that sees cublasLt.h
 *   cuda_ops.c    all other operations: checks, then a kernel
 *   cuda_k*.cu    the kernels; what they share is in .cuh files
 *   cuda_none.c   takes the place of all of it in a build without CUDA
 * An operation enqueues its work on the handle's one stream and returns; none
 * waits. Device 0 computes: CUDA_VISIBLE_DEVICES says which one that is. */
#ifndef CUDA_I_H
#define CUDA_I_H

#include <assert.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_kernels.h"

typedef struct cuda_lt cuda_lt;

typedef struct cuda_backend {
    backend be; /* the table; be.impl points back here */
    cudaStream_t stream;
    cuda_lt *lt;
    lori_status failed;
    lori_error first; /* what failed first since the last sync */
    base_str detail;
    void *workspace; /* of the products, CUDA_WORKSPACE bytes */
    double *partial; /* [CUDA_SUM_BLOCKS], of sqnorm */
    void *scratch;   /* of attention over many keys, grows */
    size_t scratch_bytes;
} cuda_backend;

/* What cuBLAS asks for on Hopper. */
#define CUDA_WORKSPACE ((size_t)32 << 20)

struct backend_weight {
    void *data; /* [rows, cols], dtype be->act, device memory */
    int64_t rows, cols;
};

static inline cuda_backend *cuda_of(backend *be)
{
    return be->impl;
}

static inline bool same_shape(backend_view a, backend_view b)
{
    return a.rows == b.rows && a.cols == b.cols;
}

/* A broken rule of the seam is a bug in this program. */
#define CUDA_REQUIRE(condition) assert(condition)

/* Keeps the first failure. */
void cuda_fail(cuda_backend *cuda, lori_status status, const char *fmt, ...)
    BASE_PRINTF(3, 4);
/* The same, when CUDA says that something failed in operation `op`. */
void cuda_check(cuda_backend *cuda, const char *op, cudaError_t status);

/* At least `bytes` of device memory, until the next call; NULL (and a kept
 * failure) when there is none left. What was queued before may still use it. */
void *cuda_scratch(cuda_backend *cuda, size_t bytes);

/* The operations, one file each. */
void cuda_linear_fill(backend *be);
void cuda_ops_fill(backend *be);

/* ---- products of matrices by cuBLASLt --------------------------------- */

/* c [m, n] = alpha op(a) op(b) + beta plus, row-major; op(a) [m, k] is stored
 * as [m, k], or as [k, m] with turn_a; op(b) [k, n] as [k, n], or as [n, k]
 * with turn_b; plus lies as c does, or is c. ab is F32 or BF16, c the same or
 * F32. Sums are float, never TF32. */
typedef struct cuda_product {
    int64_t m, n, k;
    int64_t lda, ldb, ldc;
    base_dtype ab, c_type;
    bool turn_a, turn_b;
    const void *a, *b, *plus;
    void *c;
    float alpha, beta;
} cuda_product;

lori_status cuda_lt_open(cuda_lt **out, lori_error *err);
void cuda_lt_close(cuda_lt *lt); /* NULL is fine */
/* "13.1.0" */
void cuda_lt_version(const cuda_lt *lt, base_str *out);
/* Enqueues. The way of a shape is chosen at its first use and kept, so the
 * same product gives the same bits. LORI_UNSUPPORTED: cuBLASLt has none. */
lori_status cuda_lt_run(cuda_lt *lt, const cuda_product *p, void *workspace,
                        cudaStream_t stream, lori_error *err);

#endif
