/* cuda_k_rows.cu - kernels of the row operations. Float arithmetic whatever is
 * stored; a value is rounded once, when it is written. */
#include "backend/cuda/cuda_k.cuh"

/* ---- bias, sums, copies ----------------------------------------------- */

template <class T> struct add_bias_op {
    mat<T> y;
    const float *b;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        few<V> x = load<V>(y.at(i, j)), bias = load<V>(b + j);
#pragma unroll
        for (int t = 0; t < V; t++)
            x.v[t] += bias.v[t];
        store<V>(y.at(i, j), x);
    }
};

template <class T>
static cudaError_t add_bias(cudaStream_t stream, backend_view y, const float *b)
{
    constexpr int W = wide_count<T>;
    return each<W>(stream, y.rows, y.cols, is_wide(y, W) && is_wide(b),
                   add_bias_op<T>{mat<T>(y), b});
}

cudaError_t cuda_k_add_bias(cudaStream_t stream, backend_view y, const float *b)
{
    return is_bf16(y) ? add_bias<bf16>(stream, y, b)
                      : add_bias<float>(stream, y, b);
}

template <class To, class From, bool ADD> struct copy_op {
    mat<To> dst;
    mat<const From> src;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        few<V> x = load<V>(src.at(i, j));
        if (ADD) {
            few<V> old = load<V>(dst.at(i, j));
#pragma unroll
            for (int t = 0; t < V; t++)
                x.v[t] = old.v[t] + x.v[t];
        }
        store<V>(dst.at(i, j), x);
    }
};

template <class To, class From, bool ADD>
static cudaError_t copy(cudaStream_t stream, backend_view dst, backend_view src)
{
    constexpr int a = wide_count<To>, b = wide_count<From>, W = a > b ? a : b;
    return each<W>(stream, dst.rows, dst.cols,
                   is_wide(dst, W) && is_wide(src, W),
                   copy_op<To, From, ADD>{mat<To>(dst), mat<const From>(src)});
}

cudaError_t cuda_k_cast(cudaStream_t stream, backend_view dst, backend_view src)
{
    if (is_bf16(dst))
        return is_bf16(src) ? copy<bf16, bf16, false>(stream, dst, src)
                            : copy<bf16, float, false>(stream, dst, src);
    return is_bf16(src) ? copy<float, bf16, false>(stream, dst, src)
                        : copy<float, float, false>(stream, dst, src);
}

cudaError_t cuda_k_add(cudaStream_t stream, backend_view dst, backend_view src)
{
    return is_bf16(src) ? copy<float, bf16, true>(stream, dst, src)
                        : copy<float, float, true>(stream, dst, src);
}

struct scale_op {
    mat<float> x;
    float factor;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        few<V> y = {};
        if (factor != 0) {
            y = load<V>(x.at(i, j));
#pragma unroll
            for (int t = 0; t < V; t++)
                y.v[t] *= factor;
        }
        store<V>(x.at(i, j), y);
    }
};

cudaError_t cuda_k_scale(cudaStream_t stream, backend_view x, float factor)
{
    return each<4>(stream, x.rows, x.cols, is_wide(x, 4),
                   scale_op{mat<float>(x), factor});
}

/* Rows by index: of the source (gather), or of the destination (scatter). */
template <class T, bool SCATTER> struct rows_op {
    mat<T> dst;
    mat<const T> src;
    const int32_t *index;
    int64_t limit;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        int64_t k = index[i];
        assert(k >= 0 && k < limit);
        if (SCATTER)
            move<V>(dst.at(k, j), src.at(i, j));
        else
            move<V>(dst.at(i, j), src.at(k, j));
    }
};

template <class T, bool SCATTER>
static cudaError_t copy_rows(cudaStream_t stream, backend_view dst,
                             backend_view src, const int32_t *index)
{
    constexpr int W = wide_count<T>;
    return each<W>(stream, SCATTER ? src.rows : dst.rows, dst.cols,
                   is_wide(dst, W) && is_wide(src, W),
                   rows_op<T, SCATTER>{mat<T>(dst), mat<const T>(src), index,
                                       SCATTER ? dst.rows : src.rows});
}

cudaError_t cuda_k_gather_rows(cudaStream_t stream, backend_view dst,
                               backend_view src, const int32_t *index)
{
    return is_bf16(dst) ? copy_rows<bf16, false>(stream, dst, src, index)
                        : copy_rows<float, false>(stream, dst, src, index);
}

cudaError_t cuda_k_scatter_rows(cudaStream_t stream, backend_view dst,
                                backend_view src, const int32_t *index)
{
    return is_bf16(dst) ? copy_rows<bf16, true>(stream, dst, src, index)
                        : copy_rows<float, true>(stream, dst, src, index);
}

/* ---- norms ------------------------------------------------------------ */

template <class T, int V>
__global__ void rmsnorm_kernel(mat<T> y, float *rstd, mat<const T> x,
                               const float *w, float eps, int64_t cols)
{
    const int64_t i = blockIdx.x, first = threadIdx.x * V,
                  step = static_cast<int64_t>(blockDim.x) * V;
    float sum = 0;
    for (int64_t j = first; j < cols; j += step) {
        few<V> a = load<V>(x.at(i, j));
#pragma unroll
        for (int t = 0; t < V; t++)
            sum += a.v[t] * a.v[t];
    }
    sum = block_reduce(sum, plus());
    const float r = 1.0F / sqrtf(sum / static_cast<float>(cols) + eps);
    if (rstd && threadIdx.x == 0)
        rstd[i] = r;
    for (int64_t j = first; j < cols; j += step) {
        few<V> a = load<V>(x.at(i, j)), scale = load<V>(w + j);
#pragma unroll
        for (int t = 0; t < V; t++)
            a.v[t] = a.v[t] * r * scale.v[t];
        store<V>(y.at(i, j), a);
    }
}

template <class T, int V>
static cudaError_t rmsnorm(cudaStream_t stream, backend_view y, float *rstd,
                           backend_view x, const float *w, float eps)
{
    rmsnorm_kernel<T, V>
        <<<static_cast<unsigned>(x.rows), row_threads(x.cols / V), 0, stream>>>(
            mat<T>(y), rstd, mat<const T>(x), w, eps, x.cols);
    return cudaGetLastError();
}

cudaError_t cuda_k_rmsnorm(cudaStream_t stream, backend_view y, float *rstd,
                           backend_view x, const float *w, float eps)
{
    if (x.rows == 0 || x.cols == 0)
        return cudaSuccess;
    const int W = is_bf16(x) ? 8 : 4;
    const bool wide = is_wide(x, W) && is_wide(y, W) && is_wide(w);
    if (is_bf16(x))
        return wide ? rmsnorm<bf16, 8>(stream, y, rstd, x, w, eps)
                    : rmsnorm<bf16, 1>(stream, y, rstd, x, w, eps);
    return wide ? rmsnorm<float, 4>(stream, y, rstd, x, w, eps)
                : rmsnorm<float, 1>(stream, y, rstd, x, w, eps);
}

/* The derivation is in ref_ops.c. */
template <class T, int V>
__global__ void rmsnorm_bwd_kernel(mat<float> dx, mat<const float> dy,
                                   mat<const T> x, const float *w,
                                   const float *rstd, mat<T> copy, int64_t cols)
{
    const int64_t i = blockIdx.x, first = threadIdx.x * V,
                  step = static_cast<int64_t>(blockDim.x) * V;
    const float r = rstd[i];
    float sum = 0;
    for (int64_t j = first; j < cols; j += step) {
        few<V> a = load<V>(x.at(i, j)), g = load<V>(dy.at(i, j)),
               scale = load<V>(w + j);
#pragma unroll
        for (int t = 0; t < V; t++)
            sum += scale.v[t] * g.v[t] * (a.v[t] * r);
    }
    const float mean = block_reduce(sum, plus()) / static_cast<float>(cols);
    for (int64_t j = first; j < cols; j += step) {
        few<V> a = load<V>(x.at(i, j)), g = load<V>(dy.at(i, j)),
               scale = load<V>(w + j), to = load<V>(dx.at(i, j));
#pragma unroll
        for (int t = 0; t < V; t++)
            to.v[t] += r * (scale.v[t] * g.v[t] - a.v[t] * r * mean);
        store<V>(dx.at(i, j), to);
        if (copy.data)
            store<V>(copy.at(i, j), to);
    }
}

template <class T, int V>
static cudaError_t rmsnorm_bwd(cudaStream_t stream, backend_view dx,
                               backend_view dy, backend_view x, const float *w,
                               const float *rstd, backend_view copy)
{
    rmsnorm_bwd_kernel<T, V>
        <<<static_cast<unsigned>(x.rows), row_threads(x.cols / V), 0, stream>>>(
            mat<float>(dx), mat<const float>(dy), mat<const T>(x), w, rstd,
            mat<T>(copy), x.cols);
    return cudaGetLastError();
}

cudaError_t cuda_k_rmsnorm_bwd(cudaStream_t stream, backend_view dx,
                               backend_view dy, backend_view x, const float *w,
                               const float *rstd, const backend_view *copy)
{
    const backend_view to = copy ? *copy : backend_view();
    if (x.rows == 0 || x.cols == 0)
        return cudaSuccess;
    const bool wide = is_wide(x, 4) && is_wide(dx, 4) && is_wide(dy, 4) &&
                      is_wide(w) && (!copy || is_wide(to, 4));
    if (is_bf16(x))
        return wide ? rmsnorm_bwd<bf16, 4>(stream, dx, dy, x, w, rstd, to)
                    : rmsnorm_bwd<bf16, 1>(stream, dx, dy, x, w, rstd, to);
    return wide ? rmsnorm_bwd<float, 4>(stream, dx, dy, x, w, rstd, to)
                : rmsnorm_bwd<float, 1>(stream, dx, dy, x, w, rstd, to);
}

/* ---- positions -------------------------------------------------------- */

/* Works on the first halves of the heads: columns [0, heads * D/2), and their
 * partners D/2 further. */
template <class T> struct rope_op {
    mat<T> x;
    const int32_t *pos;
    const float *cos, *sin;
    int64_t half;
    float sign;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        const int64_t in_head = j % half, row = pos[i] * half + in_head;
        T *p = x.at(i, j / half * 2 * half + in_head);
        few<V> a = load<V>(p), b = load<V>(p + half), c = load<V>(cos + row),
               s = load<V>(sin + row), to_a, to_b;
#pragma unroll
        for (int t = 0; t < V; t++) {
            to_a.v[t] = a.v[t] * c.v[t] - b.v[t] * (sign * s.v[t]);
            to_b.v[t] = b.v[t] * c.v[t] + a.v[t] * (sign * s.v[t]);
        }
        store<V>(p, to_a);
        store<V>(p + half, to_b);
    }
};

template <class T>
static cudaError_t rope(cudaStream_t stream, backend_view x, const int32_t *pos,
                        const float *cos, const float *sin, int head_dim,
                        bool inverse)
{
    constexpr int W = wide_count<T>;
    const int64_t half = head_dim / 2;
    const bool wide =
        is_wide(x, W) && half % W == 0 && is_wide(cos) && is_wide(sin);
    return each<W>(
        stream, x.rows, x.cols / 2, wide,
        rope_op<T>{mat<T>(x), pos, cos, sin, half, inverse ? -1.0F : 1.0F});
}

cudaError_t cuda_k_rope(cudaStream_t stream, backend_view x, const int32_t *pos,
                        const float *cos, const float *sin, int head_dim,
                        bool inverse)
{
    return is_bf16(x)
               ? rope<bf16>(stream, x, pos, cos, sin, head_dim, inverse)
               : rope<float>(stream, x, pos, cos, sin, head_dim, inverse);
}

/* ---- the gate of the MLP ---------------------------------------------- */

__device__ static float sigmoid(float x)
{
    return 1.0F / (1.0F + expf(-x));
}

template <class T> struct swiglu_op {
    mat<T> a;
    mat<const T> g, u;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        few<V> x = load<V>(g.at(i, j)), y = load<V>(u.at(i, j));
#pragma unroll
        for (int t = 0; t < V; t++)
            x.v[t] = x.v[t] * sigmoid(x.v[t]) * y.v[t];
        store<V>(a.at(i, j), x);
    }
};

template <class T>
static cudaError_t swiglu(cudaStream_t stream, backend_view a, backend_view g,
                          backend_view u)
{
    constexpr int W = wide_count<T>;
    return each<W>(stream, a.rows, a.cols,
                   is_wide(a, W) && is_wide(g, W) && is_wide(u, W),
                   swiglu_op<T>{mat<T>(a), mat<const T>(g), mat<const T>(u)});
}

cudaError_t cuda_k_swiglu(cudaStream_t stream, backend_view a, backend_view g,
                          backend_view u)
{
    return is_bf16(a) ? swiglu<bf16>(stream, a, g, u)
                      : swiglu<float>(stream, a, g, u);
}

/* The derivation is in ref_ops.c. */
template <class T> struct swiglu_bwd_op {
    mat<T> g, u;
    mat<const T> da;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        few<V> x = load<V>(g.at(i, j)), y = load<V>(u.at(i, j)),
               d = load<V>(da.at(i, j)), dg, du;
#pragma unroll
        for (int t = 0; t < V; t++) {
            const float s = sigmoid(x.v[t]);
            dg.v[t] = d.v[t] * y.v[t] * s * (1.0F + x.v[t] * (1.0F - s));
            du.v[t] = d.v[t] * x.v[t] * s;
        }
        store<V>(g.at(i, j), dg);
        store<V>(u.at(i, j), du);
    }
};

template <class T>
static cudaError_t swiglu_bwd(cudaStream_t stream, backend_view g,
                              backend_view u, backend_view da)
{
    constexpr int W = wide_count<T>;
    return each<W>(stream, g.rows, g.cols,
                   is_wide(g, W) && is_wide(u, W) && is_wide(da, W),
                   swiglu_bwd_op<T>{mat<T>(g), mat<T>(u), mat<const T>(da)});
}

cudaError_t cuda_k_swiglu_bwd(cudaStream_t stream, backend_view g,
                              backend_view u, backend_view da)
{
    return is_bf16(g) ? swiglu_bwd<bf16>(stream, g, u, da)
                      : swiglu_bwd<float>(stream, g, u, da);
}
