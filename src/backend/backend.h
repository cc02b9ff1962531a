/* backend.h - the one seam between the model's mathematics and the machine.
 *
 * One table of operations, filled by ref/ (plain C in float or double: the
 * oracle), cpu/ (own kernels) and cuda/ (cuBLASLt and own kernels).
 * Rules of the seam:
 *   - `void *` operands are device memory from alloc(); only copy() moves
 *     data between host and device. Code above this line never dereferences
 *     them, and never sees a weight's bytes.
 *   - Operations are void and may run asynchronously, in the order given. The
 *     first failure is kept and returned by sync(); later ones do nothing.
 *   - Shapes are checked with assert-like checks: a wrong shape is a bug in
 *     this program, never a property of somebody's file.
 *   - A row's result does not depend on the number of threads.
 *   - Sums over tokens run in fixed blocks of BACKEND_TOKEN_BLOCK rows.
 * dtypes: `act` is the type of activations and of adapters as used by GEMMs
 * (F64, F32 or BF16); `acc` the type of everything that accumulates: norms,
 * softmax statistics, logits, gradients of parameters and of the residual
 * stream, optimizer state (F64 for act F64, else F32).
 * Letters: n tokens, d width, r rank, H heads, K key/value heads, D head
 * size, V vocabulary. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "base/base.h"

#define BACKEND_TOKEN_BLOCK 512
#define BACKEND_GROUP       4

typedef struct backend backend;
typedef struct backend_team backend_team;     /* threads, team.h */
typedef struct backend_weight backend_weight; /* a frozen matrix, opaque */

/* A matrix by value: element (i, j) at data + (i * ld + j) * size. Row-major,
 * ld >= cols. Owns nothing. */
typedef struct backend_view {
    void *data;
    int64_t rows, cols, ld;
    base_dtype dtype;
} backend_view;

static inline backend_view backend_matrix(void *data, base_dtype dtype,
                                          int64_t rows, int64_t cols)
{
    return (backend_view){data, rows, cols, cols, dtype};
}
/* Columns [col, col + cols) of every row. */
static inline backend_view backend_cols(backend_view v, int64_t col,
                                        int64_t cols)
{
    v.data = (char *)v.data + (size_t)col * base_dtype_bytes(v.dtype);
    v.cols = cols;
    return v;
}
/* Rows [row, row + rows). */
static inline backend_view backend_rows(backend_view v, int64_t row,
                                        int64_t rows)
{
    v.data = (char *)v.data + (size_t)(row * v.ld) * base_dtype_bytes(v.dtype);
    v.rows = rows;
    return v;
}

/* Whether rows that begin so many lines of 64 bytes apart fall into few sets of
 * a processor's first cache, which repeats every 64 lines: one of the next
 * three begins there within a line of the first. */
static inline bool backend_rows_collide(int64_t lines)
{
    enum { SETS = 64, BELOW = 3 };
    for (int64_t below = 1; below <= BELOW; below++)
        if ((below * lines + 1) % SETS <= 2)
            return true;
    return false;
}

/* The row stride, in elements, for matrices whose rows products read: `cols`,
 * or up to three lines more, so that they need not be copied. */
static inline int64_t backend_row_stride(base_dtype dtype, int64_t cols)
{
    enum { BLOCK = 12 }; /* lines that are read of a row at a time */
    const int64_t line = 64 / (int64_t)base_dtype_bytes(dtype);
    int64_t lines = cols / line;
    if (cols % line || lines < BLOCK)
        return cols;
    while (backend_rows_collide(lines))
        lines++;
    return lines * line;
}

/* A matrix with that stride. */
static inline backend_view backend_matrix_apart(void *data, base_dtype dtype,
                                                int64_t rows, int64_t cols)
{
    backend_view v = backend_matrix(data, dtype, rows, cols);
    v.ld = backend_row_stride(dtype, cols);
    return v;
}

/* The row stride, in elements, of keys or values of several heads: attention
 * reads one head's part of each row. `heads * head_dim`, or a line more where
 * those parts would fall into a quarter of the first cache's sets or less. */
static inline int64_t backend_heads_stride(base_dtype dtype, int64_t heads,
                                           int64_t head_dim)
{
    const int64_t line = 64 / (int64_t)base_dtype_bytes(dtype);
    const int64_t cols = heads * head_dim, part = head_dim / line;
    if (part < 1 || cols % line)
        return cols;
    const int64_t lines = cols / line;
    const int64_t apart = lines & -lines; /* sets are a power of two */
    return apart >= 4 * part ? cols + line : cols;
}

/* A product of low rank r that joins a product with a weight. NULL, or without
 * columns of `left`: none does. */
typedef struct backend_low {
    backend_view left;  /* [n, r] act: h = s x A^T, or dh = s dy B */
    backend_view right; /* B [out, r] act in gemm_w, A [r, in] in gemm_wt */
} backend_low;

/* A tensor in host memory (a mapped checkpoint) to open as a frozen weight. */
typedef struct backend_tensor {
    const char *name; /* for messages */
    const void *data; /* [rows, cols], F16, BF16, F32 or F64, contiguous */
    int64_t rows, cols;
    base_dtype dtype;
} backend_tensor;

/* Packed sequences. Sequence s owns query rows [cu_q[s], cu_q[s+1]) and key
 * positions 0 .. len_k(s)-1. Its queries are the LAST len_q of these
 * positions. Key j is visible from position p iff j <= p and (window == 0 or
 * p - j < window). All arrays are device memory.
 * Without a block table, keys and values are rows [cu_k[s], cu_k[s+1]) of k
 * and v. With one, k and v are pools of pages of `page` rows, position j of
 * sequence s is row block_table[s * table_ld + j / page] * page + j % page,
 * and len_k(s) = cu_k[s+1] - cu_k[s] still. */
typedef struct backend_attn {
    int n_seq;
    const int32_t *cu_q, *cu_k; /* [n_seq + 1] */
    int64_t max_q, max_k;       /* longest len_q, len_k: for launch sizes */
    const int32_t *block_table; /* NULL: contiguous */
    int64_t table_ld;
    int page;
    int n_heads, n_kv_heads, head_dim; /* H, K, D; H % K == 0 */
    int64_t window;                    /* 0: none */
    double scale;                      /* > 0, usually 1/sqrt(D) */
} backend_attn;

/* Which entries of a matrix [rows, cols] are kept (trained). Device memory.
 * bit j % 32 of bits[i * words + j / 32] is entry (i, j), words =
 * (cols + 31) / 32; start[i] counts the kept entries before row i. */
typedef struct backend_keep {
    int64_t rows, cols, kept;
    const uint32_t *bits;
    const int64_t *start; /* [rows + 1] */
} backend_keep;

typedef struct backend_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step;      /* 1 at the first update: bias correction */
    double grad_scale; /* gradient is multiplied by this first (clipping) */
} backend_adamw;

typedef enum backend_dir {
    BACKEND_TO_DEVICE,
    BACKEND_TO_HOST,
    BACKEND_ON_DEVICE
} backend_dir;

struct backend {
    const char *name;   /* "ref", "cpu", "cuda" */
    const char *detail; /* instruction set and libraries in use, one line */
    base_dtype act, acc;
    int n_threads;
    backend_team *team; /* n_threads of them, for backend_parallel() too */
    void *impl;
    void (*close)(backend *be);
    /* Rows that a pass of n rows computes where products are prepared for a
     * number of rows, so that few numbers occur: n or more, monotone, 0 for 0.
     * NULL: any number is as good. */
    int64_t (*round_rows)(int64_t n);

    /* ---- memory ---- */
    /* 64-byte aligned, zeroed; NULL when there is none left. */
    void *(*alloc)(backend *be, size_t bytes);
    /* What was asked for before is done with the memory first. */
    void (*free)(backend *be, void *p);
    /* Host memory that copies quickly; NULL when there is none left. */
    void *(*host_alloc)(backend *be, size_t bytes);
    void (*host_free)(backend *be, void *p);
    /* Ordered with the operations before and after. Host memory must stay
     * unchanged until sync(). */
    void (*copy)(backend *be, void *dst, const void *src, size_t bytes,
                 backend_dir dir);
    void (*zero)(backend *be, void *p, size_t bytes);
    /* Waits for all of it. Reports and clears the first failure. */
    lori_status (*sync)(backend *be, lori_error *err);

    /* ---- frozen weights ---- */
    /* The tensor's bytes must outlive the weight (they may be used in place).
     * Fails on non-finite values only when they cannot be represented. */
    lori_status (*weight_open)(backend *be, const backend_tensor *tensor,
                               backend_weight **out, lori_error *err);
    void (*weight_close)(backend *be, backend_weight *w); /* NULL is fine */
    /* Spends memory to make products of few rows (decoding) faster, where the
     * backend can: a copy in fewer bytes, without loss; results keep their
     * bits. Returns the copy's bytes, 0 when none was made. */
    int64_t (*weight_compact)(backend *be, backend_weight *w);
    /* Around the use of some weights (a layer): residency, prefetch. */
    void (*weight_acquire)(backend *be, backend_weight *const *w, int n);
    void (*weight_release)(backend *be, backend_weight *const *w, int n);

    /* ---- linear ---- */
    /* y [n, out] act|acc = x [n, in] act  W^T + left right^T + plus;
     * W [out, in]. plus [n, out] has y's dtype and ld, and may be y; NULL:
     * nothing. Where a backend can, it rounds the whole sum once. */
    void (*gemm_w)(backend *be, backend_view y, backend_view x,
                   const backend_weight *w, const backend_low *low,
                   const backend_view *plus);
    /* y[i] = x W[i]^T + left[i] right[i]^T, n_w <= BACKEND_GROUP of them: the
     * same as one gemm_w each, with fewer starts. low [n_w], or NULL. */
    void (*gemm_ws)(backend *be, int n_w, const backend_view *y, backend_view x,
                    backend_weight *const *w, const backend_low *low);
    /* dx [n, in] act|acc = dy [n, out] act  W + left right + beta dx */
    void (*gemm_wt)(backend *be, backend_view dx, backend_view dy,
                    const backend_weight *w, const backend_low *low,
                    double beta);
    /* dx = the sum over i of dy[i] W[i] + left[i] right[i]: the backward of
     * gemm_ws, with n_w and low as there. */
    void (*gemm_wts)(backend *be, backend_view dx, int n_w,
                     const backend_view *dy, backend_weight *const *w,
                     const backend_low *low);
    /* SwiGLU with the products beside it, with the bits that they have one
     * after the other: gemm_ws of two, g and u = x w[i]^T + .., then swiglu;
     * and gemm_wt into da [n, f], whose contents nobody reads afterwards, then
     * swiglu_bwd. low as there. NULL when a backend has no better way; open
     * then fills in the two operations. */
    void (*gemm_swiglu)(backend *be, backend_view a, backend_view g,
                        backend_view u, backend_view x,
                        backend_weight *const w[2], const backend_low *low);
    void (*gemm_swiglu_bwd)(backend *be, backend_view g, backend_view u,
                            backend_view da, backend_view dy,
                            const backend_weight *w, const backend_low *low);
    /* y [n, d] act = rows ids[n] (i32) of W [V, d] */
    void (*embed)(backend *be, backend_view y, const backend_weight *w,
                  const int32_t *ids);
    /* c [m, n] act|acc = alpha a b^T + beta c;  a [m, k], b [n, k] act.
     * Low-rank: h = s x A^T. */
    void (*gemm_nt)(backend *be, backend_view c, backend_view a, backend_view b,
                    double alpha, double beta);
    /* c [m, n] act|acc = alpha a b + beta c;  a [m, k], b [k, n] act.
     * dh = s dy B. */
    void (*gemm_nn)(backend *be, backend_view c, backend_view a, backend_view b,
                    double alpha, double beta);
    /* c [p, q] acc = alpha x^T y + beta c;  x [n, p], y [n, q] act: a sum over
     * tokens, in fixed blocks, in order. dB = dy^T h, dA = dh^T x. */
    void (*gemm_tn)(backend *be, backend_view c, backend_view x, backend_view y,
                    double alpha, double beta);
    /* y [n, d] act += b [d] acc */
    void (*add_bias)(backend *be, backend_view y, const void *b);

    /* ---- rows ---- */
    /* y = x * rstd * w;  rstd[i] = 1/sqrt(mean(x_i^2) + eps). x, y [n, d] act,
     * w [d] acc, rstd [n] acc (kept for backward; may be NULL).
     * Source: transformers LlamaRMSNorm. */
    void (*rmsnorm)(backend *be, backend_view y, void *rstd, backend_view x,
                    const void *w, double eps);
    /* dx [n, d] acc += d(rmsnorm)/dx applied to dy [n, d] acc:
     * dx += rstd (w dy - xhat mean(w dy xhat)), xhat = x rstd;
     * copy [n, d] act = the new dx, as products take it, or NULL. It overlaps
     * no other operand. */
    void (*rmsnorm_bwd)(backend *be, backend_view dx, backend_view dy,
                        backend_view x, const void *w, const void *rstd,
                        const backend_view *copy);
    /* In place on x [n, heads * D] act: pairs (j, j + D/2) turned by the angle
     * of position pos[i]; cos, sin [n_pos, D/2] acc. inverse: backward. */
    void (*rope)(backend *be, backend_view x, const int32_t *pos,
                 const void *cos, const void *sin, int head_dim, bool inverse);
    /* a [n, f] = silu(g) * u;  all act */
    void (*swiglu)(backend *be, backend_view a, backend_view g, backend_view u);
    /* g, u are overwritten by their gradients; da [n, f] act. */
    void (*swiglu_bwd)(backend *be, backend_view g, backend_view u,
                       backend_view da);
    /* dst = src, any of act, acc, on both sides; same shape. */
    void (*cast)(backend *be, backend_view dst, backend_view src);
    /* dst += src; dst acc, src act|acc. */
    void (*add)(backend *be, backend_view dst, backend_view src);
    /* dst[i] = src[index[i]] (i32), same dtype; dst [n, d]. */
    void (*gather_rows)(backend *be, backend_view dst, backend_view src,
                        const int32_t *index);
    /* dst[index[i]] = src[i] (indices distinct), same dtype; src [n, d]. */
    void (*scatter_rows)(backend *be, backend_view dst, backend_view src,
                         const int32_t *index);

    /* ---- attention ---- */
    /* o, q [n, H*D] act; k, v act; lse [n, H] acc: log-sum-exp of the scaled
     * scores (may be NULL data when not needed). Rows of o outside every
     * sequence are left alone. Memory is linear in the length. A row's bits
     * depend on nothing but its keys, where `round_rows` is NULL, and on whether
     * it is the only query of its sequence.
     * Source: FlashAttention-2, arXiv:2307.08691. */
    void (*attn)(backend *be, backend_view o, backend_view lse, backend_view q,
                 backend_view k, backend_view v, const backend_attn *desc);
    /* Contiguous form only, len_q == len_k. dq, dk, dv act are written (rows
     * of all sequences); delta [n, H] acc is scratch (rowsum of dO * O). */
    void (*attn_bwd)(backend *be, backend_view dq, backend_view dk,
                     backend_view dv, backend_view dout, backend_view q,
                     backend_view k, backend_view v, backend_view o,
                     backend_view lse, backend_view delta,
                     const backend_attn *desc);
    /* Appends this pass's keys and values to the page pools: query row i of
     * sequence s goes to position len_k - len_q + i of s (as attn reads). */
    void (*kv_write)(backend *be, backend_view k_pool, backend_view v_pool,
                     backend_view k, backend_view v, const backend_attn *desc);

    /* ---- loss ---- */
    /* logits [n, V] acc; target [n] i32. lse [n], nll [n] acc:
     * nll = lse - logits[target]. Of a row with an entry that is not finite,
     * -infinity too, both are NaN. */
    void (*xent_stats)(backend *be, void *lse, void *nll, backend_view logits,
                       const int32_t *target);
    /* d [n, V] act = weight[i] (softmax(logits_i) - onehot(target_i)).
     * weight [n] acc. d may be the same memory as logits (d.ld * act size <=
     * logits.ld * acc size, row starts equal). */
    void (*xent_grad)(backend *be, backend_view d, backend_view logits,
                      const int32_t *target, const void *lse,
                      const void *weight);
    /* out [n] i32: the first largest entry of each row of x [n, V] acc */
    void (*argmax)(backend *be, int32_t *out, backend_view x);

    /* ---- kept entries and optimizer ---- */
    /* packed[] acc (+)= the kept entries of dense [rows, cols] acc, in row
     * order. keep NULL: all entries, row-major. */
    void (*keep_gather)(backend *be, void *packed, backend_view dense,
                        const backend_keep *keep, bool accumulate);
    /* Kept entries of dense [rows, cols] act|acc = packed[]; the others stay.
     */
    void (*keep_scatter)(backend *be, backend_view dense, const void *packed,
                         const backend_keep *keep);
    /* *out (device double) = sum of x[i]^2 over n acc values, fixed order */
    void (*sqnorm)(backend *be, double *out, const void *x, int64_t n);
    /* One AdamW update of n parameters; p, g, m, v acc; g is read only.
     * Source: Loshchilov & Hutter 2019; torch.optim.AdamW (decay first:
     * p *= 1 - lr wd;  p -= lr/(1-b1^t) m / (sqrt(v/(1-b2^t)) + eps)). */
    void (*adamw)(backend *be, void *p, const void *g, void *m, void *v,
                  int64_t n, const backend_adamw *hp);
};

typedef struct backend_options {
    const char *name; /* "cpu" (default when NULL), "cuda" or "ref" */
    base_dtype dtype; /* act: F32 or BF16 (cpu, cuda), F32 or F64 (ref) */
    int n_threads;    /* 0: backend_threads() */
    const char *isa;  /* NULL: best; "amx", "avx512bf16", "avx512", "avx2",
                       * "base"; "amx-emulated": tests of tiles, AVX-512 */
} backend_options;
lori_status backend_open(const backend_options *options, backend **out,
                         lori_error *err);
void backend_close(backend *be); /* NULL is fine */
/* Threads when nobody asked: OMP_NUM_THREADS, else the processors that this
 * process may run on, but not more than its control groups give it time for. */
int backend_threads(void);
/* One line about the machine: processor name, instruction sets, threads. */
void backend_machine(base_str *out);

/* Calls part(context, thread, n) on threads 0, the caller, to n - 1 of be's
 * n_threads, for work of the caller's own; returns when all are done. Not from
 * within a part. */
typedef void backend_part(void *context, int thread, int n);
void backend_parallel(backend *be, int n, backend_part *part, void *context);

/* The first of `count` things in a thread's equal share; its last one comes
 * before the first of thread + 1. */
static inline int64_t backend_share(int64_t count, int thread, int n)
{
    return count * thread / n;
}

/* What the folders provide to backend.c. */
lori_status backend_ref_open(const backend_options *options, backend **out,
                             lori_error *err);
lori_status backend_cpu_open(const backend_options *options, backend **out,
                             lori_error *err);
lori_status backend_cuda_open(const backend_options *options, backend **out,
                              lori_error *err);
/* Starts be->team, of be->n_threads. */
lori_status backend_team_open(backend *be, lori_error *err);
/* What they share: out [rows, cols] be->act (F32 or BF16), host memory, = the
 * tensor's entries. Refuses a finite one that is infinite as such. */
lori_status backend_convert(backend *be, const backend_tensor *t, void *out,
                            lori_error *err);

#endif
