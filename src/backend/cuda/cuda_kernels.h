/* cuda_kernels.h - what the kernels (.cu, C++) offer to the host side (C).
 * Private to backend/cuda/. Every function launches on `stream` and returns at
 * once with the launch's status. Operands are those of the operation of the
 * same name in backend.h, checked by the caller; all pointers are device
 * memory. Views of `act` are F32 or BF16, all else that is not an integer is
 * float. Results do not depend on the device: grids and the order of sums are
 * chosen by shape alone, and nothing is added atomically. */
#ifndef CUDA_KERNELS_H
#define CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#include "backend/backend.h"

#define CUDA_MAX_HEAD_DIM 256
#define CUDA_SUM_BLOCKS   1024 /* partial sums of sqnorm */
#define CUDA_CHUNK_KEYS   256  /* of decoding, for a block; a multiple of 64 */

/* ---- cuda_k_rows.cu -------------------------------------------------- */

cudaError_t cuda_k_add_bias(cudaStream_t stream, backend_view y,
                            const float *b);
cudaError_t cuda_k_rmsnorm(cudaStream_t stream, backend_view y, float *rstd,
                           backend_view x, const float *w, float eps);
cudaError_t cuda_k_rmsnorm_bwd(cudaStream_t stream, backend_view dx,
                               backend_view dy, backend_view x, const float *w,
                               const float *rstd, const backend_view *copy);
cudaError_t cuda_k_rope(cudaStream_t stream, backend_view x, const int32_t *pos,
                        const float *cos, const float *sin, int head_dim,
                        bool inverse);
cudaError_t cuda_k_swiglu(cudaStream_t stream, backend_view a, backend_view g,
                          backend_view u);
cudaError_t cuda_k_swiglu_bwd(cudaStream_t stream, backend_view g,
                              backend_view u, backend_view da);
cudaError_t cuda_k_cast(cudaStream_t stream, backend_view dst,
                        backend_view src);
cudaError_t cuda_k_add(cudaStream_t stream, backend_view dst, backend_view src);
/* x [rows, cols] float *= factor; factor 0 clears whatever is there. */
cudaError_t cuda_k_scale(cudaStream_t stream, backend_view x, float factor);
/* Also embed, src being the weight. */
cudaError_t cuda_k_gather_rows(cudaStream_t stream, backend_view dst,
                               backend_view src, const int32_t *index);
cudaError_t cuda_k_scatter_rows(cudaStream_t stream, backend_view dst,
                                backend_view src, const int32_t *index);

/* ---- cuda_k_loss.cu -------------------------------------------------- */

cudaError_t cuda_k_xent_stats(cudaStream_t stream, float *lse, float *nll,
                              backend_view logits, const int32_t *target);
cudaError_t cuda_k_xent_grad(cudaStream_t stream, backend_view d,
                             backend_view logits, const int32_t *target,
                             const float *lse, const float *weight);
cudaError_t cuda_k_argmax(cudaStream_t stream, int32_t *out, backend_view x);
/* `keep` is not NULL here: without it these are cast and add. */
cudaError_t cuda_k_keep_gather(cudaStream_t stream, float *packed,
                               backend_view dense, const backend_keep *keep,
                               bool accumulate);
cudaError_t cuda_k_keep_scatter(cudaStream_t stream, backend_view dense,
                                const float *packed, const backend_keep *keep);
/* partial: CUDA_SUM_BLOCKS doubles of scratch. */
cudaError_t cuda_k_sqnorm(cudaStream_t stream, double *out, const float *x,
                          int64_t n, double *partial);

/* One update as floats, worked out in double on the host. */
typedef struct cuda_adamw_step {
    float decay;        /* 1 - lr wd */
    float beta1, left1; /* left: 1 - beta */
    float beta2, left2;
    float step; /* lr / (1 - beta1^t) */
    float root; /* 1 / sqrt(1 - beta2^t) */
    float eps;
    float grad_scale;
} cuda_adamw_step;
cudaError_t cuda_k_adamw(cudaStream_t stream, float *p, const float *g,
                         float *m, float *v, int64_t n, cuda_adamw_step step);

/* ---- cuda_k_attn.cu, cuda_k_attn_bwd.cu ------------------------------ */

/* How many chunks of CUDA_CHUNK_KEYS keys this call is cut into; 1: none. */
int64_t cuda_k_attn_chunks(const backend_attn *desc);
/* head_dim <= CUDA_MAX_HEAD_DIM. With more than one chunk, `chunks` is scratch
 * of rows of q * heads * chunks * (head_dim + 2) floats, else NULL. */
cudaError_t cuda_k_attn(cudaStream_t stream, backend_view o, backend_view lse,
                        backend_view q, backend_view k, backend_view v,
                        const backend_attn *desc, float *chunks);
cudaError_t cuda_k_kv_write(cudaStream_t stream, backend_view k_pool,
                            backend_view v_pool, backend_view k, backend_view v,
                            const backend_attn *desc);

typedef struct cuda_attn_grad {
    backend_view dq, dk, dv, dout, q, k, v, o, lse, delta;
} cuda_attn_grad;
cudaError_t cuda_k_attn_bwd(cudaStream_t stream, const cuda_attn_grad *views,
                            const backend_attn *desc);

#endif
