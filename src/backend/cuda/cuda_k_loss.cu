/* cuda_k_loss.cu - kernels of the loss, of kept entries and of the optimizer.
 */
#include "backend/cuda/cuda_k.cuh"

/* ---- cross-entropy ---------------------------------------------------- */

/* max skips NaN, the sum then does not: exp(NaN - max) is NaN. */
template <int V>
__global__ void xent_stats_kernel(float *lse, float *nll,
                                  mat<const float> logits,
                                  const int32_t *target, int64_t cols)
{
    const int64_t i = blockIdx.x, first = threadIdx.x * V,
                  step = static_cast<int64_t>(blockDim.x) * V;
    float max = -INFINITY, sum = 0;
    for (int64_t j = first; j < cols; j += step) {
        few<V> x = load<V>(logits.at(i, j));
#pragma unroll
        for (int t = 0; t < V; t++)
            max = fmaxf(max, x.v[t]);
    }
    max = block_reduce(max, larger());
    for (int64_t j = first; j < cols; j += step) {
        few<V> x = load<V>(logits.at(i, j));
#pragma unroll
        for (int t = 0; t < V; t++)
            sum += isinf(x.v[t]) ? NAN : expf(x.v[t] - max);
    }
    sum = block_reduce(sum, plus());
    if (threadIdx.x > 0)
        return;
    assert(target[i] >= 0 && target[i] < cols);
    const double log_sum = log(static_cast<double>(sum)), top = max;
    lse[i] = static_cast<float>(top + log_sum);
    /* From the parts: the difference keeps digits that lse rounds off. */
    nll[i] = static_cast<float>(top - *logits.at(i, target[i]) + log_sum);
}

cudaError_t cuda_k_xent_stats(cudaStream_t stream, float *lse, float *nll,
                              backend_view logits, const int32_t *target)
{
    if (logits.rows == 0)
        return cudaSuccess;
    const mat<const float> x(logits);
    const unsigned rows = static_cast<unsigned>(logits.rows);
    if (is_wide(logits, 4))
        xent_stats_kernel<4><<<rows, row_threads(logits.cols / 4), 0, stream>>>(
            lse, nll, x, target, logits.cols);
    else
        xent_stats_kernel<1><<<rows, row_threads(logits.cols), 0, stream>>>(
            lse, nll, x, target, logits.cols);
    return cudaGetLastError();
}

/* d may lie in the memory of logits, narrower: what the block writes in one
 * round is read by it in this round or was in an earlier one, so it reads,
 * waits and writes. */
template <class T>
__global__ void xent_grad_kernel(mat<T> d, mat<const float> logits,
                                 const int32_t *target, const float *lse,
                                 const float *weight, int64_t cols)
{
    const int64_t i = blockIdx.x;
    const float l = lse[i], w = weight[i];
    const int64_t t = target[i];
    assert(t >= 0 && t < cols);
    for (int64_t at = 0; at < cols; at += blockDim.x) {
        const int64_t j = at + threadIdx.x;
        const float p = j < cols ? expf(*logits.at(i, j) - l) : 0;
        __syncthreads();
        if (j < cols)
            *d.at(i, j) = rounded<T>(w * (j == t ? p - 1.0F : p));
    }
}

template <class T>
static cudaError_t xent_grad(cudaStream_t stream, backend_view d,
                             backend_view logits, const int32_t *target,
                             const float *lse, const float *weight)
{
    xent_grad_kernel<T>
        <<<static_cast<unsigned>(d.rows), row_threads(d.cols), 0, stream>>>(
            mat<T>(d), mat<const float>(logits), target, lse, weight, d.cols);
    return cudaGetLastError();
}

cudaError_t cuda_k_xent_grad(cudaStream_t stream, backend_view d,
                             backend_view logits, const int32_t *target,
                             const float *lse, const float *weight)
{
    if (d.rows == 0)
        return cudaSuccess;
    return is_bf16(d)
               ? xent_grad<bf16>(stream, d, logits, target, lse, weight)
               : xent_grad<float>(stream, d, logits, target, lse, weight);
}

/* ---- the largest ------------------------------------------------------ */

/* Ordered as (value, then the earlier column). The oracle starts from column 0
 * and asks `x > best`: so a NaN loses, except in column 0, where it wins. */
__device__ static unsigned long long rank_of(float x, uint32_t col)
{
    if (isnan(x))
        return col == 0 ? ~0ULL : 0;
    const uint32_t bits = __float_as_uint(x + 0.0F); /* -0 is 0 */
    const uint32_t order = bits >> 31 ? ~bits : bits | 0x80000000U;
    return static_cast<unsigned long long>(order) << 32 | ~col;
}

__global__ static void argmax_kernel(int32_t *out, mat<const float> x,
                                     int64_t cols)
{
    unsigned long long best = 0;
    for (int64_t j = threadIdx.x; j < cols; j += blockDim.x)
        best = larger()(
            best, rank_of(*x.at(blockIdx.x, j), static_cast<uint32_t>(j)));
    best = block_reduce(best, larger());
    if (threadIdx.x == 0)
        out[blockIdx.x] = static_cast<int32_t>(~static_cast<uint32_t>(best));
}

cudaError_t cuda_k_argmax(cudaStream_t stream, int32_t *out, backend_view x)
{
    if (x.rows == 0)
        return cudaSuccess;
    argmax_kernel<<<static_cast<unsigned>(x.rows), row_threads(x.cols), 0,
                    stream>>>(out, mat<const float>(x), x.cols);
    return cudaGetLastError();
}

/* ---- kept entries ----------------------------------------------------- */

/* A warp takes a row, 32 columns at a time: the kept ones among the lanes
 * before mine say where my entry is packed. f(column, place). */
template <class F>
__device__ static void each_kept(const backend_keep &keep, int64_t i, F f)
{
    const int64_t words = (keep.cols + 31) / 32;
    const uint32_t mine = 1U << threadIdx.x;
    int64_t place = keep.start[i];
    for (int64_t w = 0; w < words; w++) {
        const uint32_t bits = keep.bits[i * words + w];
        if (bits & mine)
            f(w * 32 + threadIdx.x, place + __popc(bits & (mine - 1)));
        place += __popc(bits);
    }
}

__device__ static int64_t kept_row()
{
    return blockIdx.x * static_cast<int64_t>(blockDim.y) + threadIdx.y;
}

__global__ static void keep_gather_kernel(float *packed, mat<const float> dense,
                                          backend_keep keep, bool accumulate)
{
    const int64_t i = kept_row();
    if (i < keep.rows)
        each_kept(keep, i, [&](int64_t j, int64_t place) {
            const float x = *dense.at(i, j);
            packed[place] = accumulate ? packed[place] + x : x;
        });
}

template <class T>
__global__ void keep_scatter_kernel(mat<T> dense, const float *packed,
                                    backend_keep keep)
{
    const int64_t i = kept_row();
    if (i < keep.rows)
        each_kept(keep, i, [&](int64_t j, int64_t place) {
            *dense.at(i, j) = rounded<T>(packed[place]);
        });
}

static const dim3 kept_block(32, 8);

static unsigned kept_blocks(const backend_keep *keep)
{
    return static_cast<unsigned>((keep->rows + 7) / 8);
}

cudaError_t cuda_k_keep_gather(cudaStream_t stream, float *packed,
                               backend_view dense, const backend_keep *keep,
                               bool accumulate)
{
    if (keep->rows == 0)
        return cudaSuccess;
    keep_gather_kernel<<<kept_blocks(keep), kept_block, 0, stream>>>(
        packed, mat<const float>(dense), *keep, accumulate);
    return cudaGetLastError();
}

cudaError_t cuda_k_keep_scatter(cudaStream_t stream, backend_view dense,
                                const float *packed, const backend_keep *keep)
{
    if (keep->rows == 0)
        return cudaSuccess;
    if (is_bf16(dense))
        keep_scatter_kernel<<<kept_blocks(keep), kept_block, 0, stream>>>(
            mat<bf16>(dense), packed, *keep);
    else
        keep_scatter_kernel<<<kept_blocks(keep), kept_block, 0, stream>>>(
            mat<float>(dense), packed, *keep);
    return cudaGetLastError();
}

/* ---- optimizer -------------------------------------------------------- */

/* Always CUDA_SUM_BLOCKS blocks, so that n alone fixes the order. */
__global__ static void sqnorm_kernel(double *partial, const float *x, int64_t n)
{
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    double sum = 0;
    for (int64_t i =
             blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
         i < n; i += step)
        sum += static_cast<double>(x[i]) * x[i];
    sum = block_reduce(sum, plus());
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

__global__ static void sum_kernel(double *out, const double *partial)
{
    const double sum = block_reduce(partial[threadIdx.x], plus());
    if (threadIdx.x == 0)
        *out = sum;
}

cudaError_t cuda_k_sqnorm(cudaStream_t stream, double *out, const float *x,
                          int64_t n, double *partial)
{
    sqnorm_kernel<<<CUDA_SUM_BLOCKS, 256, 0, stream>>>(partial, x, n);
    sum_kernel<<<1, CUDA_SUM_BLOCKS, 0, stream>>>(out, partial);
    return cudaGetLastError();
}

struct adamw_op {
    float *p;
    const float *g;
    float *m, *v;
    cuda_adamw_step s;

    template <int V> __device__ void at(int64_t, int64_t i) const
    {
        few<V> x = load<V>(p + i), grad = load<V>(g + i), m1 = load<V>(m + i),
               v1 = load<V>(v + i);
#pragma unroll
        for (int t = 0; t < V; t++) {
            const float d = grad.v[t] * s.grad_scale;
            m1.v[t] = m1.v[t] * s.beta1 + d * s.left1;
            v1.v[t] = v1.v[t] * s.beta2 + d * d * s.left2;
            x.v[t] = x.v[t] * s.decay -
                     m1.v[t] / (sqrtf(v1.v[t]) * s.root + s.eps) * s.step;
        }
        store<V>(p + i, x);
        store<V>(m + i, m1);
        store<V>(v + i, v1);
    }
};

cudaError_t cuda_k_adamw(cudaStream_t stream, float *p, const float *g,
                         float *m, float *v, int64_t n, cuda_adamw_step step)
{
    const bool wide =
        n % 4 == 0 && is_wide(p) && is_wide(g) && is_wide(m) && is_wide(v);
    return each<4>(stream, 1, n, wide, adamw_op{p, g, m, v, step});
}
