/* cuda_k_attn_bwd.cu - the gradient of attention. With
 *   p_ij = exp(x_ij - lse_i), x_ij = scale q_i.k_j, o_i = sum_j p_ij v_j:
 *   dv_j = sum_i p_ij do_i            dp_ij = do_i . v_j
 *   dx_ij = p_ij (dp_ij - delta_i)    delta_i = do_i . o_i
 *   dq_i = scale sum_j dx_ij k_j      dk_j = scale sum_i dx_ij q_i.
 * Scores are formed twice, once for a block that owns rows of dk and dv and
 * once for one that owns rows of dq: every sum then has one owner and one
 * order, without atomics and without memory of the length squared.
 * Source: FlashAttention-2, arXiv:2307.08691, section 2. */
#include <type_traits>

#include "backend/cuda/cuda_k_mma.cuh"

/* Rows of a thread: four tiles of DP columns must fit into 99 KB. */
template <int DP> constexpr int rows_of = DP == 64 ? 4 : DP == 128 ? 2 : 1;
template <int DP> constexpr int tile_rows = SIDE *rows_of<DP>;

template <int DP> constexpr size_t grad_bytes()
{
    constexpr int B = tile_rows<DP>;
    return sizeof(float) * B * (4 * tile_ld<DP> + tile_ld<B>);
}

/* ---- delta ------------------------------------------------------------ */

/* A warp takes a head of a row. */
template <class T>
__global__ void delta_kernel(grads<T> g, int64_t rows, int heads, int D)
{
    const int64_t at =
        blockIdx.x * static_cast<int64_t>(blockDim.y) + threadIdx.y;
    if (at >= rows * heads)
        return;
    const int64_t i = at / heads, h = at % heads;
    const T *o = g.o.at(i, h * D), *dout = g.dout.at(i, h * D);
    float sum = 0;
    for (int t = static_cast<int>(threadIdx.x); t < D; t += 32)
        sum += number(o[t]) * number(dout[t]);
    for (int d = 16; d > 0; d /= 2)
        sum += __shfl_xor_sync(0xffffffffU, sum, d);
    if (threadIdx.x == 0)
        *g.delta.at(i, h) = sum;
}

/* ---- scores ----------------------------------------------------------- */

/* lse and delta of a thread's rows of queries. */
template <int R> struct row_stats {
    float lse[R], delta[R];

    template <class T>
    __device__ void read(const grads<T> &g, const sequence &seq, int i0, int h)
    {
        const int mine = i0 + static_cast<int>(threadIdx.x) / SIDE * R;
#pragma unroll
        for (int r = 0; r < R; r++) {
            const bool real = mine + r < seq.len_q;
            lse[r] = real ? *g.lse.at(seq.q0 + mine + r, h) : 0.0F;
            delta[r] = real ? *g.delta.at(seq.q0 + mine + r, h) : 0.0F;
        }
    }
};

/* p and dx of a thread's part of the queries i0 + .. and the keys j0 + ..;
 * zero where the key cannot be seen, or where there is no such query. */
template <int DP, int R>
__device__ void grad_scores(float (&p)[R][R], float (&dx)[R][R],
                            const float *qs, const float *ks, const float *dos,
                            const float *vs, const row_stats<R> &rows,
                            const sequence &seq, int i0, int j0, float scale)
{
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    dot_tiles<DP>(p, qs, ks);
    dot_tiles<DP>(dx, dos, vs);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int i = i0 + y * R + r;
#pragma unroll
        for (int c = 0; c < R; c++) {
            grad_score(p[r][c], dx[r][c], rows.lse[r], rows.delta[r], seq, i,
                       j0 + x + SIDE * c, scale);
        }
    }
}

/* The thread's part of a square of scores to shared memory, [query][key]. */
template <int R> __device__ void put_scores(float *to, const float (&s)[R][R])
{
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int c = 0; c < R; c++)
            to[(y * R + r) * tile_ld<SIDE * R> + x + SIDE * c] = s[r][c];
}

/* sum += s^T b: over the queries, for the thread's keys. */
template <int DP, int R>
__device__ void add_turned(result<DP, R> &sum, const float *s, const float *b)
{
    const int y = threadIdx.x / SIDE;
    for (int i = 0; i < SIDE * R; i++) {
        few<4> row[groups<DP>];
        row_of<DP>(row, b, i);
#pragma unroll
        for (int r = 0; r < R; r++)
            sum.add(r, s[i * tile_ld<SIDE * R> + y * R + r], row);
    }
}

/* sum += s b: over the keys, for the thread's queries. */
template <int DP, int R>
__device__ void add_straight(result<DP, R> &sum, const float *s, const float *b)
{
    const int y = threadIdx.x / SIDE;
    for (int j = 0; j < SIDE * R; j++) {
        few<4> row[groups<DP>];
        row_of<DP>(row, b, j);
#pragma unroll
        for (int r = 0; r < R; r++)
            sum.add(r, s[(y * R + r) * tile_ld<SIDE * R> + j], row);
    }
}

/* ---- keys and values --------------------------------------------------- */

/* A block owns tile_rows keys of one K/V head of a sequence. */
template <class T, int DP>
__global__ void __launch_bounds__(THREADS)
    grad_kv_kernel(grads<T> g, backend_attn a, int64_t tiles, bool wide)
{
    constexpr int R = rows_of<DP>, B = tile_rows<DP>, TILE = B * tile_ld<DP>;
    extern __shared__ float4 shared[];
    float *ks = reinterpret_cast<float *>(shared), *vs = ks + TILE,
          *qs = vs + TILE, *dos = qs + TILE, *s = dos + TILE;
    const sequence seq(a, blockIdx.x / tiles);
    const int D = a.head_dim, group = a.n_heads / a.n_kv_heads;
    const int64_t kv_col = static_cast<int64_t>(blockIdx.y) * D;
    const int j0 = static_cast<int>(blockIdx.x % tiles) * B, n = seq.len_k;
    if (j0 >= n)
        return;
    const int end = seq.queries_end(j0 + B < n ? j0 + B - 1 : n - 1);

    auto key = [&](auto matrix, int r) -> const T * {
        return j0 + r < n ? matrix.at(seq.k0 + j0 + r, kv_col) : nullptr;
    };
    load_tile<DP, B>(ks, D, wide, [&](int r) { return key(g.k, r); });
    load_tile<DP, B>(vs, D, wide, [&](int r) { return key(g.v, r); });
    result<DP, R> dk, dv;
    dk.clear();
    dv.clear();
    for (int h = static_cast<int>(blockIdx.y) * group;
         h < static_cast<int>(blockIdx.y + 1) * group; h++) {
        for (int i0 = j0; i0 < end; i0 += B) {
            auto query = [&](auto matrix, int r) -> const T * {
                return i0 + r < end ? matrix.at(seq.q0 + i0 + r,
                                                static_cast<int64_t>(h) * D)
                                    : nullptr;
            };
            row_stats<R> rows;
            float p[R][R], dx[R][R];
            __syncthreads();
            load_tile<DP, B>(qs, D, wide, [&](int r) { return query(g.q, r); });
            load_tile<DP, B>(dos, D, wide,
                             [&](int r) { return query(g.dout, r); });
            rows.read(g, seq, i0, h);
            __syncthreads();
            grad_scores<DP>(p, dx, qs, ks, dos, vs, rows, seq, i0, j0,
                            static_cast<float>(a.scale));
            put_scores(s, p);
            __syncthreads();
            add_turned<DP>(dv, s, dos);
            __syncthreads();
            put_scores(s, dx);
            __syncthreads();
            add_turned<DP>(dk, s, qs);
        }
    }
    const int mine = j0 + static_cast<int>(threadIdx.x) / SIDE * R;
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (mine + r >= n)
            break;
        dk.scale(r, static_cast<float>(a.scale));
        dk.write(r, g.dk.at(seq.k0 + mine + r, kv_col), D, wide);
        dv.write(r, g.dv.at(seq.k0 + mine + r, kv_col), D, wide);
    }
}

/* ---- queries ------------------------------------------------------------ */

/* A block owns tile_rows queries of one head of a sequence. */
template <class T, int DP>
__global__ void __launch_bounds__(THREADS)
    grad_q_kernel(grads<T> g, backend_attn a, int64_t tiles, bool wide)
{
    constexpr int R = rows_of<DP>, B = tile_rows<DP>, TILE = B * tile_ld<DP>;
    extern __shared__ float4 shared[];
    float *qs = reinterpret_cast<float *>(shared), *dos = qs + TILE,
          *ks = dos + TILE, *vs = ks + TILE, *s = vs + TILE;
    const sequence seq(a, blockIdx.x / tiles);
    const int D = a.head_dim, h = static_cast<int>(blockIdx.y);
    const int64_t col = static_cast<int64_t>(h) * D,
                  kv_col =
                      h / (a.n_heads / a.n_kv_heads) * static_cast<int64_t>(D);
    /* The longest rows first. */
    const int i0 = static_cast<int>(tiles - 1 - blockIdx.x % tiles) * B;
    if (i0 >= seq.len_q)
        return;
    const int end = i0 + B < seq.len_q ? i0 + B : seq.len_q;
    const int begin = seq.first_key(i0);

    auto query = [&](auto matrix, int r) -> const T * {
        return i0 + r < end ? matrix.at(seq.q0 + i0 + r, col) : nullptr;
    };
    load_tile<DP, B>(qs, D, wide, [&](int r) { return query(g.q, r); });
    load_tile<DP, B>(dos, D, wide, [&](int r) { return query(g.dout, r); });
    row_stats<R> rows;
    rows.read(g, seq, i0, h);
    result<DP, R> dq;
    dq.clear();
    for (int j0 = begin / B * B; j0 < end; j0 += B) {
        auto key = [&](auto matrix, int r) -> const T * {
            const int j = j0 + r;
            return j >= begin && j < end ? matrix.at(seq.k0 + j, kv_col)
                                         : nullptr;
        };
        float p[R][R], dx[R][R];
        __syncthreads();
        load_tile<DP, B>(ks, D, wide, [&](int r) { return key(g.k, r); });
        load_tile<DP, B>(vs, D, wide, [&](int r) { return key(g.v, r); });
        __syncthreads();
        grad_scores<DP>(p, dx, qs, ks, dos, vs, rows, seq, i0, j0,
                        static_cast<float>(a.scale));
        put_scores(s, dx);
        __syncthreads();
        add_straight<DP>(dq, s, ks);
    }
    const int mine = i0 + static_cast<int>(threadIdx.x) / SIDE * R;
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (mine + r >= end)
            break;
        dq.scale(r, static_cast<float>(a.scale));
        dq.write(r, g.dq.at(seq.q0 + mine + r, col), D, wide);
    }
}

/* ---- launches ----------------------------------------------------------- */

template <class T, int DP>
static cudaError_t grad_tiles(cudaStream_t stream, const cuda_attn_grad *g,
                              const backend_attn *a)
{
    const int64_t tiles = (a->max_q + tile_rows<DP> - 1) / tile_rows<DP>;
    const unsigned blocks = static_cast<unsigned>(tiles * a->n_seq);
    const grads<T> views(*g);
    bool wide = a->head_dim % 4 == 0;
    for (const backend_view &v :
         {g->dq, g->dk, g->dv, g->dout, g->q, g->k, g->v})
        wide = wide && is_wide(v, 4);
    cudaError_t status =
        launch(grad_kv_kernel<T, DP>,
               dim3(blocks, static_cast<unsigned>(a->n_kv_heads)), THREADS,
               grad_bytes<DP>(), stream, views, *a, tiles, wide);
    if (status == cudaSuccess)
        status =
            launch(grad_q_kernel<T, DP>,
                   dim3(blocks, static_cast<unsigned>(a->n_heads)), THREADS,
                   grad_bytes<DP>(), stream, views, *a, tiles, wide);
    return status;
}

/* On tensor cores where two sums of DP columns fit into the registers. */
template <class T, int DP>
static cudaError_t grad_width(cudaStream_t stream, const cuda_attn_grad *g,
                              const backend_attn *a)
{
    if constexpr (std::is_same_v<T, bf16> && DP <= 128)
        return attn_bwd_mma<DP>(stream, g, a);
    else
        return grad_tiles<T, DP>(stream, g, a);
}

template <class T>
static cudaError_t attn_bwd(cudaStream_t stream, const cuda_attn_grad *g,
                            const backend_attn *a)
{
    const int64_t warps = g->q.rows * a->n_heads;
    delta_kernel<T>
        <<<static_cast<unsigned>((warps + 7) / 8), dim3(32, 8), 0, stream>>>(
            grads<T>(*g), g->q.rows, a->n_heads, a->head_dim);
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess)
        return status;
    switch (padded(a->head_dim)) {
    case 64:
        return grad_width<T, 64>(stream, g, a);
    case 128:
        return grad_width<T, 128>(stream, g, a);
    default:
        return grad_width<T, 256>(stream, g, a);
    }
}

cudaError_t cuda_k_attn_bwd(cudaStream_t stream, const cuda_attn_grad *views,
                            const backend_attn *desc)
{
    if (desc->n_seq == 0 || desc->max_q == 0 || views->q.rows == 0)
        return cudaSuccess;
    return is_bf16(views->q) ? attn_bwd<bf16>(stream, views, desc)
                             : attn_bwd<float>(stream, views, desc);
}
