/* cuda_k_attn.cu - attention forward and the writes to the page pools.
 *
 * One block takes one key/value head of one sequence and BQ = SIDE * R of its
 * rows, a row being a pair (query, head of the group): keys and values are
 * read once for all heads that share them. It walks over tiles of keys with a
 * running maximum and sum, so nothing of the length of the sequence is stored.
 *
 * Few rows over many keys (decoding) would leave most of the GPU idle: their
 * keys are cut into chunks, a block each, whose unfinished sums a second kernel
 * puts together in order.
 * Source: FlashAttention-2, arXiv:2307.08691, algorithm 1; for the chunks
 * Flash-Decoding, pytorch.org/blog/flash-decoding. */
#include <type_traits>

#include "backend/cuda/cuda_k_mma.cuh"

template <int DP> constexpr int keys_of = DP == 256 ? 32 : 64;

/* What a thread knows of its R rows. */
template <int R> struct row_state {
    int first[R], last[R]; /* visible positions; last < first: no such row */
    float max[R], sum[R];
};

/* Scores of one tile of keys become weights in `p`, or -1 where the key cannot
 * be seen; the running maximum and sum and the result so far are adjusted. */
template <int DP, int R, int C>
__device__ void softmax_tile(float *p, result<DP, R> &o, row_state<R> &rows,
                             const float (&s)[R][C], int key0, float scale)
{
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
#pragma unroll
    for (int r = 0; r < R; r++) {
        float w[C], max = rows.max[r], sum = 0;
        bool visible[C];
#pragma unroll
        for (int c = 0; c < C; c++) {
            const int key = key0 + x + SIDE * c;
            visible[c] = key >= rows.first[r] && key <= rows.last[r];
            w[c] = s[r][c] * scale;
            max = visible[c] ? fmaxf(max, w[c]) : max;
        }
        for (int d = SIDE / 2; d > 0; d /= 2)
            max = fmaxf(max, __shfl_xor_sync(0xffffffffU, max, d));
#pragma unroll
        for (int c = 0; c < C; c++) {
            w[c] = visible[c] ? expf(w[c] - max) : -1.0F;
            sum += visible[c] ? w[c] : 0.0F;
            p[(y * R + r) * tile_ld<SIDE * C> + x + SIDE * c] = w[c];
        }
        for (int d = SIDE / 2; d > 0; d /= 2)
            sum += __shfl_xor_sync(0xffffffffU, sum, d);
        /* Equal, also while both are minus infinity: nothing changes. */
        const float by = max == rows.max[r] ? 1.0F : expf(rows.max[r] - max);
        rows.sum[r] = rows.sum[r] * by + sum;
        rows.max[r] = max;
        o.scale(r, by);
    }
}

/* o += p v. What cannot be seen is passed over, not multiplied by zero: it may
 * be NaN. */
template <int DP, int R, int BK>
__device__ void add_values(result<DP, R> &o, const float *p, const float *v)
{
    const int y = threadIdx.x / SIDE;
    for (int k = 0; k < BK; k++) {
        few<4> row[groups<DP>];
        row_of<DP>(row, v, k);
#pragma unroll
        for (int r = 0; r < R; r++) {
            const float w = p[(y * R + r) * tile_ld<BK> + k];
            if (!(w < 0))
                o.add(r, w, row);
        }
    }
}

template <int DP, int R> constexpr size_t attn_bytes()
{
    constexpr int BQ = SIDE * R, BK = keys_of<DP>;
    return sizeof(float) * ((BQ + BK) * tile_ld<DP> + BQ * tile_ld<BK>);
}

/* Unfinished sums of chunks: D sums of a query, head and chunk, then their
 * maximum and sum of weights. */
struct chunk_sums {
    float *data;
    int64_t chunks;
    int heads, D;

    __device__ float *at(int64_t query, int64_t head, int64_t chunk) const
    {
        return data + ((query * heads + head) * chunks + chunk) * (D + 2);
    }
};

template <class T, int DP, int R>
__global__ void __launch_bounds__(THREADS)
    attn_kernel(mat<T> o, mat<float> lse, mat<const T> q, mat<const T> k,
                mat<const T> v, backend_attn a, int64_t tiles, bool wide,
                chunk_sums sums)
{
    constexpr int BQ = SIDE * R, BK = keys_of<DP>;
    extern __shared__ float4 shared[];
    float *qs = reinterpret_cast<float *>(shared);
    float *kv = qs + BQ * tile_ld<DP>, *p = kv + BK * tile_ld<DP>;
    const int D = a.head_dim, chunk = static_cast<int>(blockIdx.z);
    /* The longest rows first. */
    const block_rows b(a, blockIdx.x / tiles, static_cast<int>(blockIdx.y),
                       tiles - 1 - blockIdx.x % tiles, BQ, chunk,
                       sums.data ? CUDA_CHUNK_KEYS : INT_MAX);
    if (b.begin >= b.end)
        return;
    auto key = [&](auto matrix, int j) -> const T * {
        return j >= b.begin && j < b.end
                   ? matrix.at(b.seq.key_row(j),
                               blockIdx.y * static_cast<int64_t>(D))
                   : nullptr;
    };
    load_tile<DP, BQ>(qs, D, wide, [&](int r) -> const T * {
        const int64_t row = b.row0 + r;
        return row < b.row1 ? q.at(b.query(row), b.head(row) * D) : nullptr;
    });
    const int64_t mine = b.row0 + threadIdx.x / SIDE * R;
    result<DP, R> sum;
    row_state<R> rows;
    sum.clear();
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int at = b.position(mine + r);
        rows.first[r] = b.seq.first_key(at);
        rows.last[r] = mine + r < b.row1 ? min(at, b.end - 1) : -1;
        rows.max[r] = -INFINITY;
        rows.sum[r] = 0;
    }
    /* Tiles begin at multiples of BK, wherever the block's rows begin. */
    for (int key0 = b.begin / BK * BK; key0 < b.end; key0 += BK) {
        float s[R][BK / SIDE];
        __syncthreads();
        load_tile<DP, BK>(kv, D, wide, [&](int r) { return key(k, key0 + r); });
        __syncthreads();
        dot_tiles<DP>(s, qs, kv);
        softmax_tile(p, sum, rows, s, key0, static_cast<float>(a.scale));
        __syncthreads();
        load_tile<DP, BK>(kv, D, wide, [&](int r) { return key(v, key0 + r); });
        __syncthreads();
        add_values<DP, R, BK>(sum, p, kv);
    }
    const bool first = threadIdx.x % SIDE == 0;
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int64_t row = mine + r;
        if (row >= b.row1)
            break;
        if (sums.data) {
            float *to = sums.at(b.query(row), b.head(row), chunk);
            sum.write(r, to, D, false);
            if (first) {
                to[D] = rows.max[r];
                to[D + 1] = rows.sum[r];
            }
            continue;
        }
        sum.scale(r, 1.0F / rows.sum[r]);
        sum.write(r, o.at(b.query(row), b.head(row) * D), D, wide);
        if (lse.data && first)
            *lse.at(b.query(row), b.head(row)) =
                rows.max[r] + logf(rows.sum[r]);
    }
}

/* Puts the chunks of a head of a query together: a block for each pair. */
template <class T>
__global__ void join_kernel(mat<T> o, mat<float> lse, backend_attn a,
                            chunk_sums sums)
{
    const sequence seq(a, blockIdx.x / a.max_q);
    const int i = static_cast<int>(blockIdx.x % a.max_q), h = blockIdx.y;
    if (i >= seq.len_q)
        return;
    const int D = a.head_dim, at = seq.len_k - seq.len_q + i;
    const int first = seq.first_key(at) / CUDA_CHUNK_KEYS,
              last = at / CUDA_CHUNK_KEYS;
    const float *from = sums.at(seq.q0 + i, h, 0);
    float max = -INFINITY, all = 0;
    for (int c = first; c <= last; c++)
        max = fmaxf(max, from[c * (D + 2) + D]);
    for (int c = first; c <= last; c++)
        all += from[c * (D + 2) + D + 1] * expf(from[c * (D + 2) + D] - max);
    for (int t = static_cast<int>(threadIdx.x); t < D; t += blockDim.x) {
        float sum = 0;
        for (int c = first; c <= last; c++)
            sum += from[c * (D + 2) + t] * expf(from[c * (D + 2) + D] - max);
        *o.at(seq.q0 + i, static_cast<int64_t>(h) * D + t) =
            rounded<T>(sum * (1.0F / all));
    }
    if (lse.data && threadIdx.x == 0)
        *lse.at(seq.q0 + i, h) = max + logf(all);
}

/* ---- launches --------------------------------------------------------- */

static int64_t group_rows(const backend_attn *a)
{
    return a->max_q * (a->n_heads / a->n_kv_heads);
}

int64_t cuda_k_attn_chunks(const backend_attn *a)
{
    if (group_rows(a) > SIDE)
        return 1;
    return (a->max_k + CUDA_CHUNK_KEYS - 1) / CUDA_CHUNK_KEYS;
}

template <class T, int DP, int R>
static cudaError_t
attn_rows(cudaStream_t stream, backend_view o, backend_view lse, backend_view q,
          backend_view k, backend_view v, const backend_attn *a, float *chunks)
{
    const int64_t tiles = (group_rows(a) + SIDE * R - 1) / (SIDE * R);
    const bool wide = a->head_dim % 4 == 0 && is_wide(o, 4) && is_wide(q, 4) &&
                      is_wide(k, 4) && is_wide(v, 4);
    const chunk_sums sums = {chunks, cuda_k_attn_chunks(a), a->n_heads,
                             a->head_dim};
    const dim3 grid(static_cast<unsigned>(tiles * a->n_seq),
                    static_cast<unsigned>(a->n_kv_heads),
                    static_cast<unsigned>(sums.chunks));
    cudaError_t status =
        launch(attn_kernel<T, DP, R>, grid, THREADS, attn_bytes<DP, R>(),
               stream, mat<T>(o), mat<float>(lse), mat<const T>(q),
               mat<const T>(k), mat<const T>(v), *a, tiles, wide, sums);
    if (status != cudaSuccess || !chunks)
        return status;
    join_kernel<<<dim3(static_cast<unsigned>(a->n_seq * a->max_q),
                       static_cast<unsigned>(a->n_heads)),
                  DP / 2, 0, stream>>>(mat<T>(o), mat<float>(lse), *a, sums);
    return cudaGetLastError();
}

/* Few rows in tiles of SIDE rows; else bf16 on tensor cores, and floats in
 * larger tiles. */
template <class T, int DP>
static cudaError_t attn_width(cudaStream_t stream, backend_view o,
                              backend_view lse, backend_view q, backend_view k,
                              backend_view v, const backend_attn *a,
                              float *chunks)
{
    constexpr int R = DP == 256 ? 2 : 4;
    if (group_rows(a) <= SIDE)
        return attn_rows<T, DP, 1>(stream, o, lse, q, k, v, a, chunks);
    if constexpr (std::is_same_v<T, bf16>)
        return attn_mma<DP>(stream, o, lse, q, k, v, a);
    else
        return attn_rows<T, DP, R>(stream, o, lse, q, k, v, a, chunks);
}

template <class T>
static cudaError_t attn(cudaStream_t stream, backend_view o, backend_view lse,
                        backend_view q, backend_view k, backend_view v,
                        const backend_attn *a, float *chunks)
{
    switch (padded(a->head_dim)) {
    case 64:
        return attn_width<T, 64>(stream, o, lse, q, k, v, a, chunks);
    case 128:
        return attn_width<T, 128>(stream, o, lse, q, k, v, a, chunks);
    default:
        return attn_width<T, 256>(stream, o, lse, q, k, v, a, chunks);
    }
}

cudaError_t cuda_k_attn(cudaStream_t stream, backend_view o, backend_view lse,
                        backend_view q, backend_view k, backend_view v,
                        const backend_attn *desc, float *chunks)
{
    if (desc->n_seq == 0 || desc->max_q == 0)
        return cudaSuccess;
    return is_bf16(q) ? attn<bf16>(stream, o, lse, q, k, v, desc, chunks)
                      : attn<float>(stream, o, lse, q, k, v, desc, chunks);
}

/* ---- pages ------------------------------------------------------------ */

/* Row i stands for query i % max_q of sequence i / max_q. */
template <class T> struct kv_write_op {
    mat<T> k_pool, v_pool;
    mat<const T> k, v;
    backend_attn a;

    template <int V> __device__ void at(int64_t i, int64_t j) const
    {
        const sequence seq(a, i / a.max_q);
        const int n = static_cast<int>(i % a.max_q);
        if (n >= seq.len_q)
            return;
        const int64_t to = seq.key_row(seq.len_k - seq.len_q + n);
        move<V>(k_pool.at(to, j), k.at(seq.q0 + n, j));
        move<V>(v_pool.at(to, j), v.at(seq.q0 + n, j));
    }
};

template <class T>
static cudaError_t kv_write(cudaStream_t stream, backend_view k_pool,
                            backend_view v_pool, backend_view k, backend_view v,
                            const backend_attn *a)
{
    constexpr int W = wide_count<T>;
    return each<W>(stream, a->n_seq * a->max_q, k.cols,
                   is_wide(k_pool, W) && is_wide(v_pool, W) && is_wide(k, W) &&
                       is_wide(v, W),
                   kv_write_op<T>{mat<T>(k_pool), mat<T>(v_pool),
                                  mat<const T>(k), mat<const T>(v), *a});
}

cudaError_t cuda_k_kv_write(cudaStream_t stream, backend_view k_pool,
                            backend_view v_pool, backend_view k, backend_view v,
                            const backend_attn *desc)
{
    return is_bf16(k) ? kv_write<bf16>(stream, k_pool, v_pool, k, v, desc)
                      : kv_write<float>(stream, k_pool, v_pool, k, v, desc);
}
