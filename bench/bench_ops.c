/* bench_ops.c - how fast the CPU backend's operations are, at the shapes of
 * one SmolLM2-135M training step. Prints a table; the best of several runs,
 * because neighbours on a shared machine only ever make a run slower.
 * Usage: bench_ops [tokens [threads [bf16|f32 [isa]]]]. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"

enum { D = 576, KV = 192, F = 1536, V = 49152, R = 32, H = 9, K = 3, HD = 64 };

typedef struct bench {
    backend *be;
    int64_t n, rows; /* tokens; rows of the head */
    uint32_t seed;
} bench;

static void *need(void *p)
{
    if (!p) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return p;
}

/* Random numbers of about unit size: zeros multiply faster than numbers. */
static backend_view matrix(bench *b, base_dtype dtype, int64_t rows,
                           int64_t cols, float size)
{
    size_t n = (size_t)(rows * cols);
    void *data = need(b->be->alloc(b->be, n * base_dtype_bytes(dtype)));
    for (size_t i = 0; i < n; ++i) {
        b->seed = b->seed * 1664525U + 1013904223U;
        float x = ((float)(b->seed >> 8) / 8388608.0f - 1.0f) * size;
        base_from_f32(&x, (char *)data + i * base_dtype_bytes(dtype), dtype, 1);
    }
    return backend_matrix(data, dtype, rows, cols);
}

static backend_weight *weight(bench *b, int64_t rows, int64_t cols)
{
    backend_view v = matrix(b, b->be->act, rows, cols, 0.04f);
    backend_tensor t = {"bench", v.data, rows, cols, b->be->act};
    backend_weight *w;
    lori_error err;
    if (b->be->weight_open(b->be, &t, &w, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    return w;
}

/* Best time of `expr`, at least 5 runs and about 0.3 s. */
#define TIME(b, seconds, expr)                                                 \
    do {                                                                       \
        double all_ = 0;                                                       \
        (seconds) = 1e30;                                                      \
        for (int i_ = 0; i_ < 5 || (all_ < 0.3 && i_ < 1000); ++i_) {          \
            double t_ = base_now_s();                                          \
            expr;                                                              \
            t_ = base_now_s() - t_;                                            \
            all_ += t_;                                                        \
            (seconds) = t_ < (seconds) ? t_ : (seconds);                       \
        }                                                                      \
    } while (0)

static void line(const char *op, const char *shape, double s, double flops,
                 double bytes)
{
    printf("%-12s %-22s %9.3f ms", op, shape, s * 1e3);
    if (flops > 0)
        printf(" %9.1f GFLOP/s", flops / s * 1e-9);
    else
        printf(" %9.1f GB/s", bytes / s * 1e-9);
    putchar('\n');
}

static void linear(bench *b, int64_t n, int64_t out, int64_t in,
                   base_dtype y_dtype)
{
    backend *be = b->be;
    backend_view x = matrix(b, be->act, n, in, 1),
                 dy = matrix(b, be->act, n, out, 1);
    backend_view y = matrix(b, y_dtype, n, out, 1),
                 dx = matrix(b, be->acc, n, in, 1);
    backend_weight *w = weight(b, out, in);
    double s, flops = 2.0 * (double)n * (double)out * (double)in;
    char shape[64];
    snprintf(shape, sizeof shape, "%lld x %lld x %lld", (long long)n,
             (long long)out, (long long)in);
    TIME(b, s, be->gemm_w(be, y, x, w, NULL, NULL));
    line("gemm_w", shape, s, flops, 0);
    if (n > 8) {
        TIME(b, s, be->gemm_wt(be, dx, dy, w, NULL, 0));
        line("gemm_wt", shape, s, flops, 0);
    }
    be->weight_close(be, w);
    be->free(be, x.data);
    be->free(be, y.data);
    be->free(be, dx.data);
    be->free(be, dy.data);
}

static void low_rank(bench *b, int64_t out, int64_t in)
{
    backend *be = b->be;
    const int64_t n = b->n;
    backend_view x = matrix(b, be->act, n, in, 1),
                 y = matrix(b, be->act, n, out, 1);
    backend_view A = matrix(b, be->act, R, in, 1),
                 B = matrix(b, be->act, out, R, 1);
    backend_view h = matrix(b, be->act, n, R, 1),
                 dB = matrix(b, be->acc, out, R, 0);
    backend_view dA = matrix(b, be->acc, R, in, 0),
                 dx = matrix(b, be->acc, n, in, 0);
    double s, down = 2.0 * (double)n * R * (double)in;
    double up = 2.0 * (double)n * R * (double)out;
    char shape[64];
    snprintf(shape, sizeof shape, "%lld: %lld <- %lld", (long long)n,
             (long long)out, (long long)in);
    TIME(b, s, be->gemm_nt(be, h, x, A, 1, 0));
    line("h = x A'", shape, s, down, 0);
    TIME(b, s, be->gemm_nt(be, y, h, B, 0.01, 1));
    line("y += h B'", shape, s, up, 0);
    TIME(b, s, be->gemm_nn(be, h, y, B, 0.01, 0));
    line("dh = dy B", shape, s, up, 0);
    TIME(b, s, be->gemm_nn(be, dx, h, A, 1, 1));
    line("dx += dh A", shape, s, down, 0);
    backend_weight *w = weight(b, out, in);
    const backend_low forward = {h, B}, backward = {h, A};
    const double full = 2.0 * (double)n * (double)out * (double)in;
    TIME(b, s, be->gemm_w(be, y, x, w, &forward, NULL));
    line("x W' + h B'", shape, s, full + up, 0);
    TIME(b, s, be->gemm_wt(be, dx, y, w, &backward, 0));
    line("dy W + dh A", shape, s, full + down, 0);
    be->weight_close(be, w);
    TIME(b, s, be->gemm_tn(be, dB, y, h, 2, 1));
    line("dB = dy' h", shape, s, up, 0);
    TIME(b, s, be->gemm_tn(be, dA, h, x, 1, 1));
    line("dA = dh' x", shape, s, down, 0);
    void *all[] = {x.data, y.data,  A.data,  B.data,
                   h.data, dB.data, dA.data, dx.data};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        be->free(be, all[i]);
}

static void attention(bench *b, int n_seq)
{
    backend *be = b->be;
    const int64_t n = b->n;
    int32_t cu[65];
    double pairs = 0;
    for (int s = 0; s <= n_seq; ++s)
        cu[s] = (int32_t)(n * s / n_seq);
    for (int s = 0; s < n_seq; ++s) {
        double len = cu[s + 1] - cu[s];
        pairs += len * (len + 1) / 2;
    }
    backend_attn d = {.n_seq = n_seq,
                      .cu_q = cu,
                      .cu_k = cu,
                      .max_q = n,
                      .max_k = n,
                      .n_heads = H,
                      .n_kv_heads = K,
                      .head_dim = HD,
                      .scale = 0.125};
    backend_view v[10];
    const int64_t cols[] = {D, KV, KV, D, D, KV, KV, D, H, H};
    for (int i = 0; i < 10; ++i)
        v[i] = matrix(b, i < 8 ? be->act : be->acc, n, cols[i], 1);
    double s, flops = 4.0 * pairs * D;
    char shape[64];
    snprintf(shape, sizeof shape, "%d x %lld", n_seq, (long long)n / n_seq);
    TIME(b, s, be->attn(be, v[3], v[8], v[0], v[1], v[2], &d));
    line("attn", shape, s, flops, 0);
    TIME(b, s,
         be->attn_bwd(be, v[4], v[5], v[6], v[7], v[0], v[1], v[2], v[3], v[8],
                      v[9], &d));
    line("attn_bwd", shape, s, 2.5 * flops, 0);
    for (int i = 0; i < 10; ++i)
        be->free(be, v[i].data);
}

/* One new token a sequence over `len` cached positions. */
static void decode(bench *b, int n_seq, int len)
{
    backend *be = b->be;
    enum { PAGE = 32 };
    const int pages = (len + PAGE - 1) / PAGE;
    int32_t cu_q[65], cu_k[65];
    int32_t *table = need(calloc((size_t)(n_seq * pages), sizeof *table));
    for (int i = 0; i < n_seq * pages; ++i)
        table[i] = i;
    for (int s = 0; s <= n_seq; ++s) {
        cu_q[s] = s;
        cu_k[s] = s * len;
    }
    backend_attn d = {.n_seq = n_seq,
                      .cu_q = cu_q,
                      .cu_k = cu_k,
                      .max_q = 1,
                      .max_k = len,
                      .block_table = table,
                      .table_ld = pages,
                      .page = PAGE,
                      .n_heads = H,
                      .n_kv_heads = K,
                      .head_dim = HD,
                      .scale = 0.125};
    backend_view q = matrix(b, be->act, n_seq, D, 1),
                 o = matrix(b, be->act, n_seq, D, 1);
    backend_view k = matrix(b, be->act, (int64_t)n_seq * pages * PAGE, KV, 1);
    backend_view v = matrix(b, be->act, (int64_t)n_seq * pages * PAGE, KV, 1);
    double s;
    char shape[64];
    snprintf(shape, sizeof shape, "%d x 1 of %d", n_seq, len);
    TIME(b, s, be->attn(be, o, (backend_view){0}, q, k, v, &d));
    line("attn decode", shape, s, 4.0 * n_seq * (double)len * D, 0);
    be->free(be, q.data);
    be->free(be, o.data);
    be->free(be, k.data);
    be->free(be, v.data);
    free(table);
}

static void rows(bench *b)
{
    backend *be = b->be;
    const int64_t n = b->n;
    const double act = (double)base_dtype_bytes(be->act), acc = 4;
    const double nd = (double)(n * D), nf = (double)(n * F);
    const double nv = (double)(b->rows * V);
    backend_view x = matrix(b, be->act, n, D, 1),
                 y = matrix(b, be->act, n, D, 1);
    backend_view dx = matrix(b, be->acc, n, D, 1),
                 dy = matrix(b, be->acc, n, D, 1);
    backend_view g = matrix(b, be->act, n, F, 1),
                 u = matrix(b, be->act, n, F, 1);
    backend_view a = matrix(b, be->act, n, F, 1),
                 w = matrix(b, be->acc, 1, D, 1);
    backend_view r = matrix(b, be->acc, 1, n, 1),
                 z = matrix(b, be->acc, b->rows, V, 4);
    backend_view lse = matrix(b, be->acc, 1, b->rows, 0),
                 nll = matrix(b, be->acc, 1, b->rows, 0);
    backend_view c = matrix(b, be->acc, n, HD / 2, 1),
                 dz = matrix(b, be->act, b->rows, V, 1);
    int32_t *ids = need(calloc((size_t)(n + b->rows), sizeof *ids));
    double s;
    char shape[64];
    snprintf(shape, sizeof shape, "%lld x %d", (long long)n, D);
    TIME(b, s, be->rmsnorm(be, y, r.data, x, w.data, 1e-5));
    line("rmsnorm", shape, s, 0, 2 * act * nd);
    TIME(b, s, be->rmsnorm_bwd(be, dx, dy, x, w.data, r.data, &y));
    line("rmsnorm_bwd", shape, s, 0, (3 * acc + 2 * act) * nd);
    TIME(b, s, be->rope(be, x, ids, c.data, c.data, HD, false));
    line("rope", shape, s, 0, 2 * act * nd);
    TIME(b, s, be->cast(be, y, dx));
    line("cast", shape, s, 0, (act + acc) * nd);
    TIME(b, s, be->add(be, dx, y));
    line("add", shape, s, 0, (2 * acc + act) * nd);
    snprintf(shape, sizeof shape, "%lld x %d", (long long)n, F);
    TIME(b, s, be->swiglu(be, a, g, u));
    line("swiglu", shape, s, 0, 3 * act * nf);
    TIME(b, s, be->swiglu_bwd(be, g, u, a));
    line("swiglu_bwd", shape, s, 0, 5 * act * nf);
    snprintf(shape, sizeof shape, "%lld x %d", (long long)b->rows, V);
    TIME(b, s, be->xent_stats(be, lse.data, nll.data, z, ids));
    line("xent_stats", shape, s, 0, acc * nv);
    TIME(b, s, be->xent_grad(be, dz, z, ids, lse.data, nll.data));
    line("xent_grad", shape, s, 0, (acc + act) * nv);
    void *all[] = {x.data,   y.data,   dx.data, dy.data, g.data,
                   u.data,   a.data,   w.data,  r.data,  z.data,
                   lse.data, nll.data, c.data,  dz.data};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        be->free(be, all[i]);
    free(ids);
}

int main(int argc, char **argv)
{
    bench b = {.n = argc > 1 ? atoll(argv[1]) : 1024, .rows = 256, .seed = 1};
    backend_options options = {
        .name = "cpu",
        .dtype = argc > 3 && strcmp(argv[3], "f32") == 0 ? BASE_F32 : BASE_BF16,
        .n_threads = argc > 2 ? atoi(argv[2]) : 0,
        .isa = argc > 4 ? argv[4] : NULL};
    lori_error err;
    if (b.n < 64 || b.n > 1 << 20 || backend_open(&options, &b.be, &err)) {
        fprintf(stderr, "%s\n",
                b.n < 64 || b.n > 1 << 20 ? "tokens: 64 to 1048576"
                                          : err.message);
        return 1;
    }
    printf("%s, %s\n", base_dtype_name(b.be->act), b.be->detail);
    base_dtype act = b.be->act, acc = b.be->acc;
    linear(&b, b.n, D, D, act);
    linear(&b, b.n, KV, D, act);
    linear(&b, b.n, F, D, act);
    linear(&b, b.n, D, F, act);
    linear(&b, b.rows, V, D, acc);
    linear(&b, 1, D, D, act);
    linear(&b, 1, F, D, act);
    linear(&b, 1, V, D, acc);
    linear(&b, 8, V, D, acc);
    low_rank(&b, D, D);
    low_rank(&b, F, D);
    low_rank(&b, D, F);
    attention(&b, 8);
    attention(&b, 1);
    decode(&b, 1, 1024);
    decode(&b, 8, 256);
    rows(&b);
    lori_status st = b.be->sync(b.be, &err);
    if (st)
        fprintf(stderr, "%s\n", err.message);
    backend_close(b.be);
    return st != LORI_OK;
}
