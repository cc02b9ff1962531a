/* cuda_k_attn.cuh - what attention and its backward share: tiles of rows in
 * shared memory, and products of tiles in registers.
 *
 * A block is a square of SIDE x SIDE threads. A tile holds the rows of one
 * operand as floats, D columns padded with zeros to DP (64, 128 or 256). Of a
 * product of tiles, thread (x, y) owns rows y * R .. y * R + R - 1; of scores
 * it owns the columns x, x + SIDE, ..., of results D wide the groups of four
 * columns x * 4, (x + SIDE) * 4, ... So the 16 threads of a row are half a
 * warp, and sums are in an order that depends neither on R nor on the other
 * rows. */
#ifndef CUDA_K_ATTN_CUH
#define CUDA_K_ATTN_CUH

#include "backend/cuda/cuda_k.cuh"

constexpr int SIDE = 16, THREADS = SIDE * SIDE;

/* Floats from row to row of a tile of N columns: four more than N, so that
 * vectors of 16 bytes from 8 neighbouring rows meet no bank twice. */
template <int N> constexpr int tile_ld = N + 4;

/* Groups of four columns that a thread owns of DP. */
template <int DP> constexpr int groups = DP / (4 * SIDE);

/* One sequence, with positions as ints: they fit, as offsets do. */
struct sequence {
    int q0, len_q, k0, len_k;
    int window;       /* at least 1; INT_MAX for none */
    const int *table; /* pages, or NULL */
    int page;

    __device__ sequence(const backend_attn &a, int64_t s)
        : q0(a.cu_q[s]), len_q(a.cu_q[s + 1] - a.cu_q[s]), k0(a.cu_k[s]),
          len_k(a.cu_k[s + 1] - a.cu_k[s]),
          window(a.window > 0 && a.window < INT_MAX ? static_cast<int>(a.window)
                                                    : INT_MAX),
          table(a.block_table ? a.block_table + s * a.table_ld : nullptr),
          page(a.page)
    {
    }
    /* Row of k and v that holds position j. */
    __device__ int64_t key_row(int j) const
    {
        if (!table)
            return static_cast<int64_t>(k0) + j;
        return static_cast<int64_t>(table[j / page]) * page + j % page;
    }
    /* One more than the last query that sees key j, where len_q is len_k. */
    __device__ int queries_end(int j) const
    {
        return window < len_q - j ? j + window : len_q;
    }
    /* First position that is visible from position p. */
    __device__ int first_key(int p) const
    {
        return p >= window ? p - window + 1 : 0;
    }
};

/* The rows and keys of a block. */
struct block_rows {
    sequence seq;
    int64_t row0, row1; /* pairs (query, head of the group) */
    int64_t head0;      /* the group's first head */
    int group, past, begin, end;

    /* Tile `tile` of BQ rows; the keys of chunk `chunk` of those they see. */
    __device__ block_rows(const backend_attn &a, int64_t s, int kv_head,
                          int64_t tile, int BQ, int chunk, int chunk_keys)
        : seq(a, s), row0(tile * BQ), group(a.n_heads / a.n_kv_heads),
          past(seq.len_k - seq.len_q)
    {
        const int64_t all = static_cast<int64_t>(seq.len_q) * group;
        row1 = row0 + BQ < all ? row0 + BQ : all;
        head0 = static_cast<int64_t>(kv_head) * group;
        if (row0 >= row1) {
            begin = end = 0;
            return;
        }
        const int from = chunk * chunk_keys;
        begin = max(seq.first_key(position(row0)), from);
        end = position(row1 - 1) + 1;
        end = end - from > chunk_keys ? from + chunk_keys : end;
    }
    __device__ int position(int64_t row) const
    {
        return past + static_cast<int>(row / group);
    }
    __device__ int64_t query(int64_t row) const
    {
        return seq.q0 + row / group;
    }
    __device__ int64_t head(int64_t row) const
    {
        return head0 + row % group;
    }
};

/* Fills the ROWS rows of a tile: row r is D elements at row(r), or zeros where
 * row(r) is NULL. */
template <int DP, int ROWS, class Row>
__device__ void load_tile(float *tile, int D, bool wide, Row row)
{
#pragma unroll 4
    for (int i = 0; i < ROWS * DP; i += THREADS * 4) {
        const int at = i + static_cast<int>(threadIdx.x) * 4;
        const int r = at / DP, c = at % DP;
        const auto *from = c < D ? row(r) : nullptr;
        few<4> x = {};
        if (from && wide) {
            x = load<4>(from + c);
        } else if (from) {
#pragma unroll
            for (int t = 0; t < 4; t++)
                x.v[t] = c + t < D ? number(from[c + t]) : 0.0F;
        }
        store<4>(tile + r * tile_ld<DP> + c, x);
    }
}

/* s[r][c] = row y * R + r of a times row x + SIDE * c of b. */
template <int DP, int R, int C>
__device__ void dot_tiles(float (&s)[R][C], const float *a, const float *b)
{
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int c = 0; c < C; c++)
            s[r][c] = 0;
#pragma unroll 4
    for (int d = 0; d < DP; d += 4) {
        few<4> av[R], bv[C];
#pragma unroll
        for (int r = 0; r < R; r++)
            av[r] = load<4>(a + (y * R + r) * tile_ld<DP> + d);
#pragma unroll
        for (int c = 0; c < C; c++)
            bv[c] = load<4>(b + (x + SIDE * c) * tile_ld<DP> + d);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int c = 0; c < C; c++)
#pragma unroll
                for (int t = 0; t < 4; t++)
                    s[r][c] += av[r].v[t] * bv[c].v[t];
    }
}

/* The thread's part of a result: R rows, DP columns shared by SIDE threads. */
template <int DP, int R> struct result {
    few<4> v[R][groups<DP>];

    __device__ void clear()
    {
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int g = 0; g < groups<DP>; g++)
                v[r][g] = few<4>{};
    }
    __device__ void scale(int r, float by)
    {
#pragma unroll
        for (int g = 0; g < groups<DP>; g++)
#pragma unroll
            for (int t = 0; t < 4; t++)
                v[r][g].v[t] *= by;
    }
    /* Row r += p * row `k` of b. */
    __device__ void add(int r, float p, const few<4> (&b)[groups<DP>])
    {
#pragma unroll
        for (int g = 0; g < groups<DP>; g++)
#pragma unroll
            for (int t = 0; t < 4; t++)
                v[r][g].v[t] += p * b[g].v[t];
    }
    template <class T> __device__ void write(int r, T *to, int D, bool wide)
    {
#pragma unroll
        for (int g = 0; g < groups<DP>; g++) {
            const int c = (threadIdx.x % SIDE + SIDE * g) * 4;
            if (wide && c < D) {
                store<4>(to + c, v[r][g]);
                continue;
            }
#pragma unroll
            for (int t = 0; t < 4; t++)
                if (c + t < D)
                    to[c + t] = rounded<T>(v[r][g].v[t]);
        }
    }
};

/* The thread's columns of row k of a tile. */
template <int DP>
__device__ void row_of(few<4> (&out)[groups<DP>], const float *tile, int k)
{
    const int x = threadIdx.x % SIDE;
#pragma unroll
    for (int g = 0; g < groups<DP>; g++)
        out[g] = load<4>(tile + k * tile_ld<DP> + (x + SIDE * g) * 4);
}

/* ---- backward ----------------------------------------------------------- */

/* The operands of the gradient on the device. */
template <class T> struct grads {
    mat<T> dq, dk, dv;
    mat<const T> dout, q, k, v, o;
    mat<const float> lse;
    mat<float> delta;

    explicit grads(const cuda_attn_grad &g)
        : dq(g.dq), dk(g.dk), dv(g.dv), dout(g.dout), q(g.q), k(g.k), v(g.v),
          o(g.o), lse(g.lse), delta(g.delta)
    {
    }
};

/* Of a score p and a product dx = do.v makes p and its gradient; zero where
 * query i cannot see key j, or where there is no such query. */
__device__ inline void grad_score(float &p, float &dx, float lse, float delta,
                                  const sequence &seq, int i, int j,
                                  float scale)
{
    const bool visible = i < seq.len_q && j <= i && j >= seq.first_key(i);
    const float e = expf(p * scale - lse);
    p = visible ? e : 0.0F;
    dx = visible ? e * (dx - delta) : 0.0F;
}

/* ---- launches ----------------------------------------------------------- */

inline int padded(int head_dim)
{
    return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : CUDA_MAX_HEAD_DIM;
}

/* Launches a kernel with more shared memory than what every kernel gets
 * unasked. */
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, int threads,
                   size_t bytes, cudaStream_t stream,
                   const Arguments &...arguments)
{
    cudaError_t status = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
        static_cast<int>(bytes));
    if (status != cudaSuccess)
        return status;
    kernel<<<grid, threads, bytes, stream>>>(arguments...);
    return cudaGetLastError();
}

#endif
