/* cuda_k_mma.cuh - attention's products on tensor cores, for bf16.
 *
 * A warp owns 16 rows of a product; a block is four warps. Lane l holds, of
 * every 16 x 8 piece of a result, rows l / 4 and l / 4 + 8 at the columns
 * l % 4 * 2 and the next. Scores are products of bf16, summed as floats. What
 * is made of them (weights, their gradients) is multiplied as tf32, whose 10
 * bits of fraction disappear behind the 7 of the bf16 that is written; the
 * other factor, bf16, is exact in it.
 * Source: PTX ISA, "Matrix fragments for mma.m16n8k16", ".m16n8k8". */
#ifndef CUDA_K_MMA_CUH
#define CUDA_K_MMA_CUH

#include "backend/cuda/cuda_k_attn.cuh"

constexpr int MMA_THREADS = 128, MMA_ROWS = 64;

/* Elements from row to row of a tile of DP columns: 16 bytes more than DP, so
 * that a warp's reads meet no bank twice. */
template <int DP> constexpr int half_ld = DP + 8;

/* A piece of a result, see above. */
using piece = float[4];

struct lane {
    int row, col; /* of the piece: and row + 8, col + 1 */

    __device__ lane() : row(threadIdx.x % 32 / 4), col(threadIdx.x % 4 * 2)
    {
    }
};

/* The warp's first row of the block's tile. */
__device__ inline int warp_row()
{
    return static_cast<int>(threadIdx.x) / 32 * 16;
}

__device__ inline void mma_bf16(piece &c, const uint32_t (&a)[4], uint32_t b0,
                                uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void mma_tf32(piece &c, const uint32_t (&a)[4], uint32_t b0,
                                uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t tf32(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}
__device__ inline uint32_t tf32(bf16 x)
{
    return static_cast<uint32_t>(__bfloat16_as_ushort(x)) << 16;
}

template <int N> __device__ void clear(piece (&c)[N])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int t = 0; t < 4; t++)
            c[n][t] = 0;
}

/* Fills the ROWS rows of a tile: row r is D elements at row(r), or zeros where
 * row(r) is NULL. */
template <int DP, int ROWS, class Row>
__device__ void load_half_tile(bf16 *tile, int D, bool wide, Row row)
{
#pragma unroll 4
    for (int i = 0; i < ROWS * DP; i += MMA_THREADS * 8) {
        const int at = i + static_cast<int>(threadIdx.x) * 8;
        const int r = at / DP, c = at % DP;
        const bf16 *from = c < D ? row(r) : nullptr;
        alignas(16) bf16 x[8] = {};
        if (from && wide) {
            move<8>(x, from + c);
        } else if (from) {
#pragma unroll
            for (int t = 0; t < 8; t++)
                if (c + t < D)
                    x[t] = from[c + t];
        }
        move<8>(tile + r * half_ld<DP> + c, x);
    }
}

/* s [16, N] = a b^T; a: the warp's 16 rows of a tile, b: N rows of another. */
template <int DP, int N>
__device__ void mma_dot(piece (&s)[N / 8], const bf16 *a, const bf16 *b)
{
    const lane l;
    auto pair = [](const bf16 *tile, int row, int col) {
        return *reinterpret_cast<const uint32_t *>(tile + row * half_ld<DP> +
                                                   col);
    };
    clear(s);
#pragma unroll
    for (int k = 0; k < DP; k += 16) {
        const uint32_t av[4] = {
            pair(a, l.row, k + l.col), pair(a, l.row + 8, k + l.col),
            pair(a, l.row, k + 8 + l.col), pair(a, l.row + 8, k + 8 + l.col)};
#pragma unroll
        for (int n = 0; n < N / 8; n++)
            mma_bf16(s[n], av, pair(b, n * 8 + l.row, k + l.col),
                     pair(b, n * 8 + l.row, k + 8 + l.col));
    }
}

/* sum [16, DP] += s b; s [16, N], b: N rows of a tile. A sum does not mind the
 * order of its terms: the columns of s that a lane holds are taken for those
 * that the instruction wants of it, and the rows of b likewise. */
template <int DP, int N>
__device__ void mma_sum(piece (&sum)[DP / 8], const piece (&s)[N / 8],
                        const bf16 *b)
{
    const lane l;
#pragma unroll
    for (int k = 0; k < N / 8; k++) {
        const uint32_t av[4] = {tf32(s[k][0]), tf32(s[k][2]), tf32(s[k][1]),
                                tf32(s[k][3])};
        const bf16 *b0 = b + (k * 8 + l.col) * half_ld<DP> + l.row,
                   *b1 = b0 + half_ld<DP>;
#pragma unroll
        for (int n = 0; n < DP / 8; n++)
            mma_tf32(sum[n], av, tf32(b0[n * 8]), tf32(b1[n * 8]));
    }
}

/* Row `half` (0: l.row, 1: l.row + 8) of a result, times `by`, to D elements
 * at `to`. */
template <int DP>
__device__ void mma_write(bf16 *to, const piece (&sum)[DP / 8], int half,
                          float by, int D)
{
    const lane l;
#pragma unroll
    for (int n = 0; n < DP / 8; n++)
#pragma unroll
        for (int t = 0; t < 2; t++)
            if (n * 8 + l.col + t < D)
                to[n * 8 + l.col + t] =
                    rounded<bf16>(sum[n][2 * half + t] * by);
}

/* The launchers, for bf16 and padded head sizes that they are built for. */
template <int DP>
cudaError_t attn_mma(cudaStream_t stream, backend_view o, backend_view lse,
                     backend_view q, backend_view k, backend_view v,
                     const backend_attn *a);
/* After delta; DP 64 or 128. */
template <int DP>
cudaError_t attn_bwd_mma(cudaStream_t stream, const cuda_attn_grad *g,
                         const backend_attn *a);

#endif
