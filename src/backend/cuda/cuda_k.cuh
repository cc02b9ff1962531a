/* cuda_k.cuh - what the kernels share: numbers, vectors of 16 bytes, one loop
 * for all operations element by element, sums over a block. */
#ifndef CUDA_K_CUH
#define CUDA_K_CUH

#include <cassert>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

extern "C" {
#include "backend/cuda/cuda_kernels.h"
}

using bf16 = __nv_bfloat16;

/* ---- numbers --------------------------------------------------------- */

__device__ inline float number(float x)
{
    return x;
}
__device__ inline float number(bf16 x)
{
    return __bfloat162float(x);
}

template <class T> __device__ T rounded(float x);
template <> __device__ inline float rounded<float>(float x)
{
    return x;
}
template <> __device__ inline bf16 rounded<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* ---- views ----------------------------------------------------------- */

/* A view on the device. */
template <class T> struct mat {
    T *data;
    int64_t ld;

    __host__ explicit mat(backend_view v)
        : data(static_cast<T *>(v.data)), ld(v.ld)
    {
    }
    __device__ T *at(int64_t row, int64_t col) const
    {
        return data + row * ld + col;
    }
};

inline bool is_bf16(backend_view v)
{
    return v.dtype == BASE_BF16;
}

/* Whether pieces of n elements can be moved by accesses of 16 bytes (or by
 * one, where the piece is smaller). */
inline bool is_wide(backend_view v, int64_t n)
{
    size_t size = is_bf16(v) ? 2 : 4, piece = size * static_cast<size_t>(n);
    size_t step = piece < 16 ? piece : 16;
    return v.cols % n == 0 && reinterpret_cast<uintptr_t>(v.data) % step == 0 &&
           static_cast<size_t>(v.ld) * size % step == 0;
}
inline bool is_wide(const void *p)
{
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

/* ---- a few elements in a row ------------------------------------------ */

/* Copies V elements; with V > 1 they are aligned as is_wide says. */
template <int V, class T> __device__ void move(T *to, const T *from)
{
    constexpr int bytes = V * static_cast<int>(sizeof(T));
    if constexpr (V == 1) {
        *to = *from;
    } else if constexpr (bytes % 16 == 0) {
        for (int i = 0; i < bytes / 16; i++)
            reinterpret_cast<uint4 *>(to)[i] =
                reinterpret_cast<const uint4 *>(from)[i];
    } else {
        static_assert(bytes == 8, "a vector of 8 or of 16 bytes");
        *reinterpret_cast<uint2 *>(to) = *reinterpret_cast<const uint2 *>(from);
    }
}

/* V numbers in registers. */
template <int V> struct few {
    float v[V];
};

template <int V, class T> __device__ few<V> load(const T *from)
{
    alignas(16) T raw[V];
    few<V> x;
    move<V>(raw, from);
#pragma unroll
    for (int i = 0; i < V; i++)
        x.v[i] = number(raw[i]);
    return x;
}

template <int V, class T> __device__ void store(T *to, const few<V> &x)
{
    alignas(16) T raw[V];
#pragma unroll
    for (int i = 0; i < V; i++)
        raw[i] = rounded<T>(x.v[i]);
    move<V>(to, raw);
}

/* Elements of a piece, so that one of T is 16 bytes. */
template <class T> constexpr int wide_count = 16 / static_cast<int>(sizeof(T));

/* ---- element by element ---------------------------------------------- */

template <int V, class Op>
__global__ void each_kernel(int64_t rows, int64_t cols, Op op)
{
    int64_t col = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x);
    col *= V;
    if (col >= cols)
        return;
    int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
    int64_t row = blockIdx.y * static_cast<int64_t>(blockDim.y) + threadIdx.y;
    for (; row < rows; row += step)
        op.template at<V>(row, col);
}

/* Runs op.at<V>(row, col), which does columns [col, col + V), for all of a
 * matrix: with V = W where `wide` (then W divides cols), else with 1. */
template <int W, class Op>
cudaError_t each(cudaStream_t stream, int64_t rows, int64_t cols, bool wide,
                 const Op &op)
{
    if (rows == 0 || cols == 0)
        return cudaSuccess;
    const dim3 block = rows < 8 ? dim3(256, 1) : dim3(32, 8);
    const int64_t across = wide ? cols / W : cols;
    const int64_t tall = (rows + block.y - 1) / block.y;
    const dim3 grid(static_cast<unsigned>((across + block.x - 1) / block.x),
                    static_cast<unsigned>(tall < 65535 ? tall : 65535));
    if (wide)
        each_kernel<W><<<grid, block, 0, stream>>>(rows, cols, op);
    else
        each_kernel<1><<<grid, block, 0, stream>>>(rows, cols, op);
    return cudaGetLastError();
}

/* ---- a block for a row ------------------------------------------------ */

/* Threads for a row of `pieces`: whole warps, at most 1024. */
inline unsigned row_threads(int64_t pieces)
{
    int64_t n = (pieces + 31) / 32 * 32;
    return static_cast<unsigned>(n < 32 ? 32 : n > 1024 ? 1024 : n);
}

/* f over the x of all threads of a block; every thread gets it. The order
 * depends on blockDim.x alone. f must not mind the order of its two operands.
 */
template <class T, class F> __device__ T block_reduce(T x, F f)
{
    __shared__ T part[32];
    for (int d = 16; d > 0; d /= 2)
        x = f(x, __shfl_xor_sync(0xffffffffU, x, d));
    const unsigned warps = blockDim.x / 32;
    if (warps == 1)
        return x;
    __syncthreads(); /* the last reduction's parts have been read */
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
    for (unsigned w = 1; w < warps; w++)
        x = f(x, part[w]);
    return x;
}

struct plus {
    template <class T> __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};
/* fmaxf: a NaN loses, unless both are. */
struct larger {
    __device__ float operator()(float a, float b) const
    {
        return fmaxf(a, b);
    }
    __device__ unsigned long long operator()(unsigned long long a,
                                             unsigned long long b) const
    {
        return a > b ? a : b;
    }
};

#endif
