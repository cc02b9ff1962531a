/* cuda_k_mma.cu - attention and its gradient of bf16 on tensor cores. The
 * algorithms, and who owns which sums, are those of cuda_k_attn.cu and
 * cuda_k_attn_bwd.cu. One thing differs: a weight of 0 is multiplied like any
 * other, so a NaN in v also reaches earlier rows of its own sequence that share
 * a block with a row that sees it. */
#include "backend/cuda/cuda_k_mma.cuh"

/* ---- forward ------------------------------------------------------------ */

template <int DP> constexpr int mma_keys = DP == 256 ? 32 : 64;

/* A lane's two rows. */
struct mma_rows {
    int first[2], last[2]; /* visible positions; last < first: no such row */
    float max[2], sum[2];
};

/* Over the four lanes of a row. */
template <class F> __device__ static float lanes_reduce(float x, F f)
{
    x = f(x, __shfl_xor_sync(0xffffffffU, x, 1));
    return f(x, __shfl_xor_sync(0xffffffffU, x, 2));
}

/* Scores become weights, 0 where the key cannot be seen; the running maximum
 * and sum and the result so far are adjusted. */
template <int DP, int N>
__device__ static void mma_softmax(piece (&s)[N / 8], piece (&o)[DP / 8],
                                   mma_rows &rows, int key0, float scale)
{
    const lane l;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float max = rows.max[half], sum = 0;
        auto visible = [&](int n, int t) {
            const int key = key0 + n * 8 + l.col + t;
            return key >= rows.first[half] && key <= rows.last[half];
        };
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int t = 0; t < 2; t++) {
                float &x = s[n][2 * half + t];
                x *= scale;
                max = visible(n, t) ? fmaxf(max, x) : max;
            }
        max = lanes_reduce(max, larger());
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int t = 0; t < 2; t++) {
                float &x = s[n][2 * half + t];
                x = visible(n, t) ? expf(x - max) : 0.0F;
                sum += x;
            }
        sum = lanes_reduce(sum, plus());
        /* Equal, also while both are minus infinity: nothing changes. */
        const float by =
            max == rows.max[half] ? 1.0F : expf(rows.max[half] - max);
        rows.sum[half] = rows.sum[half] * by + sum;
        rows.max[half] = max;
#pragma unroll
        for (int n = 0; n < DP / 8; n++)
#pragma unroll
            for (int t = 0; t < 2; t++)
                o[n][2 * half + t] *= by;
    }
}

template <int DP>
__global__ void __launch_bounds__(MMA_THREADS)
    attn_mma_kernel(mat<bf16> o, mat<float> lse, mat<const bf16> q,
                    mat<const bf16> k, mat<const bf16> v, backend_attn a,
                    int64_t tiles, bool wide)
{
    constexpr int BK = mma_keys<DP>;
    extern __shared__ float4 shared[];
    bf16 *qs = reinterpret_cast<bf16 *>(shared);
    bf16 *ks = qs + MMA_ROWS * half_ld<DP>, *vs = ks + BK * half_ld<DP>;
    const int D = a.head_dim;
    /* The longest rows first. */
    const block_rows b(a, blockIdx.x / tiles, static_cast<int>(blockIdx.y),
                       tiles - 1 - blockIdx.x % tiles, MMA_ROWS, 0, INT_MAX);
    if (b.begin >= b.end)
        return;
    auto key = [&](auto matrix, int j) -> const bf16 * {
        return j >= b.begin && j < b.end
                   ? matrix.at(b.seq.key_row(j),
                               blockIdx.y * static_cast<int64_t>(D))
                   : nullptr;
    };
    load_half_tile<DP, MMA_ROWS>(qs, D, wide, [&](int r) -> const bf16 * {
        const int64_t row = b.row0 + r;
        return row < b.row1 ? q.at(b.query(row), b.head(row) * D) : nullptr;
    });
    const int64_t mine = b.row0 + warp_row() + lane().row;
    piece sum[DP / 8], s[BK / 8];
    mma_rows rows;
    clear(sum);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t row = mine + 8 * half;
        rows.first[half] = b.seq.first_key(b.position(row));
        rows.last[half] = row < b.row1 ? b.position(row) : -1;
        rows.max[half] = -INFINITY;
        rows.sum[half] = 0;
    }
    /* Tiles begin at multiples of BK, wherever the block's rows begin. */
    for (int key0 = b.begin / BK * BK; key0 < b.end; key0 += BK) {
        __syncthreads();
        load_half_tile<DP, BK>(ks, D, wide,
                               [&](int r) { return key(k, key0 + r); });
        load_half_tile<DP, BK>(vs, D, wide,
                               [&](int r) { return key(v, key0 + r); });
        __syncthreads();
        mma_dot<DP, BK>(s, qs + warp_row() * half_ld<DP>, ks);
        mma_softmax<DP, BK>(s, sum, rows, key0, static_cast<float>(a.scale));
        mma_sum<DP, BK>(sum, s, vs);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t row = mine + 8 * half;
        if (row >= b.row1)
            break;
        mma_write<DP>(o.at(b.query(row), b.head(row) * D), sum, half,
                      1.0F / rows.sum[half], D);
        if (lse.data && lane().col == 0)
            *lse.at(b.query(row), b.head(row)) =
                rows.max[half] + logf(rows.sum[half]);
    }
}

template <int DP>
cudaError_t attn_mma(cudaStream_t stream, backend_view o, backend_view lse,
                     backend_view q, backend_view k, backend_view v,
                     const backend_attn *a)
{
    const int64_t rows = a->max_q * (a->n_heads / a->n_kv_heads);
    const int64_t tiles = (rows + MMA_ROWS - 1) / MMA_ROWS;
    const bool wide =
        a->head_dim % 8 == 0 && is_wide(q, 8) && is_wide(k, 8) && is_wide(v, 8);
    const dim3 grid(static_cast<unsigned>(tiles * a->n_seq),
                    static_cast<unsigned>(a->n_kv_heads));
    const size_t bytes =
        sizeof(bf16) * (MMA_ROWS + 2 * mma_keys<DP>)*half_ld<DP>;
    return launch(attn_mma_kernel<DP>, grid, MMA_THREADS, bytes, stream,
                  mat<bf16>(o), mat<float>(lse), mat<const bf16>(q),
                  mat<const bf16>(k), mat<const bf16>(v), *a, tiles, wide);
}
template cudaError_t attn_mma<64>(cudaStream_t, backend_view, backend_view,
                                  backend_view, backend_view, backend_view,
                                  const backend_attn *);
template cudaError_t attn_mma<128>(cudaStream_t, backend_view, backend_view,
                                   backend_view, backend_view, backend_view,
                                   const backend_attn *);
template cudaError_t attn_mma<256>(cudaStream_t, backend_view, backend_view,
                                   backend_view, backend_view, backend_view,
                                   const backend_attn *);

/* ---- the gradient of keys and values ------------------------------------- */

enum { GRAD_QUERIES = 32 };

/* A block owns MMA_ROWS keys of one K/V head of a sequence. Scores are formed
 * turned, [key][query], so that a warp owns the sums of its keys. */
template <int DP>
__global__ void __launch_bounds__(MMA_THREADS)
    grad_kv_mma_kernel(grads<bf16> g, backend_attn a, int64_t tiles, bool wide)
{
    constexpr int B = MMA_ROWS, BQ = GRAD_QUERIES, LD = half_ld<DP>;
    extern __shared__ float4 shared[];
    bf16 *ks = reinterpret_cast<bf16 *>(shared), *vs = ks + B * LD,
         *qs = vs + B * LD, *dos = qs + BQ * LD;
    __shared__ float lse[BQ], delta[BQ];
    const sequence seq(a, blockIdx.x / tiles);
    const int D = a.head_dim, group = a.n_heads / a.n_kv_heads;
    const float scale = static_cast<float>(a.scale);
    const int64_t kv_col = static_cast<int64_t>(blockIdx.y) * D;
    const int j0 = static_cast<int>(blockIdx.x % tiles) * B, n = seq.len_k;
    if (j0 >= n)
        return;
    const int end = seq.queries_end(j0 + B < n ? j0 + B - 1 : n - 1);
    auto key = [&](auto matrix, int r) -> const bf16 * {
        return j0 + r < n ? matrix.at(seq.k0 + j0 + r, kv_col) : nullptr;
    };
    load_half_tile<DP, B>(ks, D, wide, [&](int r) { return key(g.k, r); });
    load_half_tile<DP, B>(vs, D, wide, [&](int r) { return key(g.v, r); });
    const lane l;
    const int mine = j0 + warp_row() + l.row;
    piece dk[DP / 8], dv[DP / 8], p[BQ / 8], dx[BQ / 8];
    clear(dk);
    clear(dv);
    for (int64_t h = blockIdx.y * group; h < (blockIdx.y + 1) * group; h++) {
        for (int i0 = j0; i0 < end; i0 += BQ) {
            auto query = [&](auto matrix, int r) -> const bf16 * {
                return i0 + r < end ? matrix.at(seq.q0 + i0 + r, h * D)
                                    : nullptr;
            };
            __syncthreads();
            load_half_tile<DP, BQ>(qs, D, wide,
                                   [&](int r) { return query(g.q, r); });
            load_half_tile<DP, BQ>(dos, D, wide,
                                   [&](int r) { return query(g.dout, r); });
            const int i = i0 + static_cast<int>(threadIdx.x);
            if (threadIdx.x < BQ) {
                lse[threadIdx.x] = i < end ? *g.lse.at(seq.q0 + i, h) : 0.0F;
                delta[threadIdx.x] =
                    i < end ? *g.delta.at(seq.q0 + i, h) : 0.0F;
            }
            __syncthreads();
            mma_dot<DP, BQ>(p, ks + warp_row() * LD, qs);
            mma_dot<DP, BQ>(dx, vs + warp_row() * LD, dos);
#pragma unroll
            for (int m = 0; m < BQ / 8; m++)
#pragma unroll
                for (int t = 0; t < 4; t++) {
                    const int at = m * 8 + l.col + t % 2;
                    grad_score(p[m][t], dx[m][t], lse[at], delta[at], seq,
                               i0 + at, mine + t / 2 * 8, scale);
                }
            mma_sum<DP, BQ>(dv, p, dos);
            mma_sum<DP, BQ>(dk, dx, qs);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int64_t row = seq.k0 + mine + 8 * half;
        if (mine + 8 * half >= n)
            break;
        mma_write<DP>(g.dk.at(row, kv_col), dk, half, scale, D);
        mma_write<DP>(g.dv.at(row, kv_col), dv, half, 1.0F, D);
    }
}

/* ---- the gradient of queries --------------------------------------------- */

/* A block owns MMA_ROWS queries of one head of a sequence. */
template <int DP>
__global__ void __launch_bounds__(MMA_THREADS)
    grad_q_mma_kernel(grads<bf16> g, backend_attn a, int64_t tiles, bool wide)
{
    constexpr int B = MMA_ROWS, LD = half_ld<DP>;
    extern __shared__ float4 shared[];
    bf16 *qs = reinterpret_cast<bf16 *>(shared), *dos = qs + B * LD,
         *ks = dos + B * LD, *vs = ks + B * LD;
    const sequence seq(a, blockIdx.x / tiles);
    const int D = a.head_dim, h = static_cast<int>(blockIdx.y);
    const float scale = static_cast<float>(a.scale);
    const int64_t col = static_cast<int64_t>(h) * D,
                  kv_col =
                      h / (a.n_heads / a.n_kv_heads) * static_cast<int64_t>(D);
    /* The longest rows first. */
    const int i0 = static_cast<int>(tiles - 1 - blockIdx.x % tiles) * B;
    if (i0 >= seq.len_q)
        return;
    const int end = min(i0 + B, seq.len_q), begin = seq.first_key(i0);
    auto query = [&](auto matrix, int r) -> const bf16 * {
        return i0 + r < end ? matrix.at(seq.q0 + i0 + r, col) : nullptr;
    };
    load_half_tile<DP, B>(qs, D, wide, [&](int r) { return query(g.q, r); });
    load_half_tile<DP, B>(dos, D, wide,
                          [&](int r) { return query(g.dout, r); });
    const lane l;
    const int mine = i0 + warp_row() + l.row;
    float lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = mine + 8 * half;
        lse[half] = i < end ? *g.lse.at(seq.q0 + i, h) : 0.0F;
        delta[half] = i < end ? *g.delta.at(seq.q0 + i, h) : 0.0F;
    }
    piece dq[DP / 8], p[B / 8], dx[B / 8];
    clear(dq);
    for (int j0 = begin / B * B; j0 < end; j0 += B) {
        auto key = [&](auto matrix, int r) -> const bf16 * {
            const int j = j0 + r;
            return j >= begin && j < end ? matrix.at(seq.k0 + j, kv_col)
                                         : nullptr;
        };
        __syncthreads();
        load_half_tile<DP, B>(ks, D, wide, [&](int r) { return key(g.k, r); });
        load_half_tile<DP, B>(vs, D, wide, [&](int r) { return key(g.v, r); });
        __syncthreads();
        mma_dot<DP, B>(p, qs + warp_row() * LD, ks);
        mma_dot<DP, B>(dx, dos + warp_row() * LD, vs);
#pragma unroll
        for (int m = 0; m < B / 8; m++)
#pragma unroll
            for (int t = 0; t < 4; t++)
                grad_score(p[m][t], dx[m][t], lse[t / 2], delta[t / 2], seq,
                           mine + t / 2 * 8, j0 + m * 8 + l.col + t % 2, scale);
        mma_sum<DP, B>(dq, dx, ks);
    }
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (mine + 8 * half < end)
            mma_write<DP>(g.dq.at(seq.q0 + mine + 8 * half, col), dq, half,
                          scale, D);
}

template <int DP>
cudaError_t attn_bwd_mma(cudaStream_t stream, const cuda_attn_grad *g,
                         const backend_attn *a)
{
    const int64_t tiles = (a->max_q + MMA_ROWS - 1) / MMA_ROWS;
    const unsigned blocks = static_cast<unsigned>(tiles * a->n_seq);
    const grads<bf16> views(*g);
    constexpr size_t row = sizeof(bf16) * half_ld<DP>;
    bool wide = a->head_dim % 8 == 0;
    for (const backend_view &v : {g->dout, g->q, g->k, g->v})
        wide = wide && is_wide(v, 8);
    cudaError_t status = launch(
        grad_kv_mma_kernel<DP>,
        dim3(blocks, static_cast<unsigned>(a->n_kv_heads)), MMA_THREADS,
        2 * (MMA_ROWS + GRAD_QUERIES) * row, stream, views, *a, tiles, wide);
    if (status == cudaSuccess)
        status =
            launch(grad_q_mma_kernel<DP>,
                   dim3(blocks, static_cast<unsigned>(a->n_heads)), MMA_THREADS,
                   4 * MMA_ROWS * row, stream, views, *a, tiles, wide);
    return status;
}
template cudaError_t attn_bwd_mma<64>(cudaStream_t, const cuda_attn_grad *,
                                      const backend_attn *);
template cudaError_t attn_bwd_mma<128>(cudaStream_t, const cuda_attn_grad *,
                                       const backend_attn *);
