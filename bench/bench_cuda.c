/* bench_cuda.c - what the GPU's backend reaches, through the seam alone: a
 * median of rounds, each of as many operations as take a few milliseconds,
 * between two sync(). Random numbers throughout.
 *   make bench-cuda */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"

enum { ROUNDS = 7, H = 32, K = 8, HD = 128 };

typedef struct bench {
    backend *be;
    base_rng rng;
} bench;

static void *need(void *p)
{
    if (!p) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return p;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check(bench *b)
{
    lori_error err;
    if (b->be->sync(b->be, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
}

static backend_view matrix(bench *b, base_dtype dtype, int64_t rows,
                           int64_t cols)
{
    const size_t n = (size_t)(rows * cols), size = base_dtype_bytes(dtype);
    float *x = need(malloc(n * sizeof *x));
    for (size_t i = 0; i < n; i++)
        x[i] = (float)base_rng_u32(&b->rng) / 2147483648.0F - 1.0F;
    void *host = need(malloc(n * size)),
         *p = need(b->be->alloc(b->be, n * size));
    if (dtype == BASE_F32)
        memcpy(host, x, n * size);
    else
        base_from_f32(x, host, dtype, n);
    b->be->copy(b->be, p, host, n * size, BACKEND_TO_DEVICE);
    check(b);
    free(host);
    free(x);
    return backend_matrix(p, dtype, rows, cols);
}

static int32_t *offsets(bench *b, int n_seq, int64_t length)
{
    int32_t cu[65];
    for (int s = 0; s <= n_seq; s++)
        cu[s] = (int32_t)(s * length);
    int32_t *p = need(b->be->alloc(b->be, sizeof cu));
    b->be->copy(b->be, p, cu, sizeof cu, BACKEND_TO_DEVICE);
    check(b);
    return p;
}

/* Seconds a call of `...`, in a variable `s`. */
#define TIME(b, s, ...)                                                        \
    do {                                                                       \
        double rounds[ROUNDS];                                                 \
        int64_t calls = 1;                                                     \
        for (int r = -3; r < ROUNDS; r++) {                                    \
            double t = base_now_s();                                           \
            for (int64_t i = 0; i < calls; i++)                                \
                __VA_ARGS__;                                                   \
            check(b);                                                          \
            t = base_now_s() - t;                                              \
            if (r >= 0)                                                        \
                rounds[r] = t / (double)calls;                                 \
            else /* about 20 ms a round, from the second call on */            \
                calls =                                                        \
                    r == -3 ? 1 : (int64_t)fmax(1, 0.02 * (double)calls / t);  \
        }                                                                      \
        qsort(rounds, ROUNDS, sizeof *rounds, compare);                        \
        s = rounds[ROUNDS / 2];                                                \
    } while (0)

static void line(const char *what, double s, double flops, double bytes)
{
    printf("%-44s %10.1f us %8.1f TF/s %8.1f GB/s\n", what, s * 1e6,
           flops / s * 1e-12, bytes / s * 1e-9);
}

static void products(bench *b, int64_t n, int64_t in, int64_t out)
{
    backend *be = b->be;
    const base_dtype act = be->act;
    backend_view x = matrix(b, act, n, in), y = matrix(b, act, n, out),
                 w = matrix(b, act, out, in), g = matrix(b, be->acc, out, in);
    const double flops = 2.0 * (double)n * (double)in * (double)out;
    const double size = (double)base_dtype_bytes(act);
    const double bytes = size * (double)(n * in + n * out + in * out);
    char what[64];
    double s;
    snprintf(what, sizeof what, "x W'  [%lld, %lld] -> %lld", (long long)n,
             (long long)in, (long long)out);
    TIME(b, s, be->gemm_nt(be, y, x, w, 1, 0));
    line(what, s, flops, bytes);
    snprintf(what, sizeof what, "dy W  [%lld, %lld] -> %lld", (long long)n,
             (long long)out, (long long)in);
    TIME(b, s, be->gemm_nn(be, x, y, w, 1, 0));
    line(what, s, flops, bytes);
    if (n > 1) {
        snprintf(what, sizeof what, "dy' x over %lld tokens -> [%lld, %lld]",
                 (long long)n, (long long)out, (long long)in);
        TIME(b, s, be->gemm_tn(be, g, y, x, 1, 0));
        line(what, s, flops, bytes);
    }
    void *all[] = {x.data, y.data, w.data, g.data};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        be->free(be, all[i]);
}

/* n_seq sequences whose last len_q positions of len_k are queries. */
static void attention(bench *b, int n_seq, int64_t len_q, int64_t len_k)
{
    backend *be = b->be;
    const base_dtype act = be->act, acc = be->acc;
    const int64_t nq = n_seq * len_q, nk = n_seq * len_k;
    backend_view q = matrix(b, act, nq, H * HD), o = matrix(b, act, nq, H * HD),
                 dout = matrix(b, act, nq, H * HD),
                 dq = matrix(b, act, nq, H * HD);
    backend_view k = matrix(b, act, nk, K * HD), v = matrix(b, act, nk, K * HD),
                 dk = matrix(b, act, nk, K * HD),
                 dv = matrix(b, act, nk, K * HD);
    backend_view lse = matrix(b, acc, nq, H), delta = matrix(b, acc, nq, H);
    backend_attn d = {.n_seq = n_seq,
                      .cu_q = offsets(b, n_seq, len_q),
                      .cu_k = offsets(b, n_seq, len_k),
                      .max_q = len_q,
                      .max_k = len_k,
                      .n_heads = H,
                      .n_kv_heads = K,
                      .head_dim = HD,
                      .scale = 1 / sqrt(HD)};
    /* Pairs of a query and a key it sees. */
    const double pairs =
        (double)nq * ((double)len_k - ((double)len_q - 1) / 2) * H;
    const double size = (double)base_dtype_bytes(act);
    const double bytes = size * (double)(2 * nq * H * HD + 2 * nk * K * HD);
    char what[64];
    double s;
    snprintf(what, sizeof what, "attention %d x %lld of %lld, H %d K %d D %d",
             n_seq, (long long)len_q, (long long)len_k, H, K, HD);
    TIME(b, s, be->attn(be, o, lse, q, k, v, &d));
    line(what, s, 4 * pairs * HD, bytes);
    if (len_q == len_k) {
        TIME(b, s,
             be->attn_bwd(be, dq, dk, dv, dout, q, k, v, o, lse, delta, &d));
        line("  its gradient", s, 10 * pairs * HD, 2.5 * bytes);
    }
    void *all[] = {q.data,
                   o.data,
                   k.data,
                   v.data,
                   dq.data,
                   dk.data,
                   dv.data,
                   dout.data,
                   lse.data,
                   delta.data,
                   (void *)(uintptr_t)d.cu_q,
                   (void *)(uintptr_t)d.cu_k};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        be->free(be, all[i]);
}

static void rows(bench *b, int64_t n, int64_t d)
{
    backend *be = b->be;
    backend_view x = matrix(b, be->act, n, d), y = matrix(b, be->act, n, d),
                 z = matrix(b, be->act, n, d), w = matrix(b, be->acc, 1, d),
                 sum = matrix(b, be->acc, n, d);
    const double act = (double)base_dtype_bytes(be->act), nd = (double)(n * d),
                 acc = (double)base_dtype_bytes(be->acc);
    double s;
    printf("[%lld, %lld]\n", (long long)n, (long long)d);
    TIME(b, s,
         be->copy(be, y.data, x.data, (size_t)(act * nd), BACKEND_ON_DEVICE));
    line("  copy", s, 0, 2 * act * nd);
    TIME(b, s, be->rmsnorm(be, y, NULL, x, w.data, 1e-5));
    line("  rmsnorm", s, 0, 2 * act * nd);
    TIME(b, s, be->swiglu(be, z, x, y));
    line("  swiglu", s, 0, 3 * act * nd);
    TIME(b, s, be->add(be, sum, x));
    line("  add", s, 0, (2 * acc + act) * nd);
    void *all[] = {x.data, y.data, z.data, w.data, sum.data};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        be->free(be, all[i]);
}

static void host(bench *b, size_t bytes)
{
    backend *be = b->be;
    void *pinned = need(be->host_alloc(be, bytes)),
         *device = need(be->alloc(be, bytes));
    double s;
    TIME(b, s, be->copy(be, device, pinned, bytes, BACKEND_TO_DEVICE));
    line("host_alloc memory to the device", s, 0, (double)bytes);
    TIME(b, s, be->copy(be, pinned, device, bytes, BACKEND_TO_HOST));
    line("and back", s, 0, (double)bytes);
    be->host_free(be, pinned);
    be->free(be, device);
}

int main(int argc, char **argv)
{
    const bool f32 = argc > 1 && strcmp(argv[1], "f32") == 0;
    backend_options options = {.name = "cuda",
                               .dtype = f32 ? BASE_F32 : BASE_BF16};
    bench b = {0};
    lori_error err;
    base_rng_start(&b.rng, 1, 1);
    if (backend_open(&options, &b.be, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s, %s\n", base_dtype_name(b.be->act), b.be->detail);
    products(&b, 4096, 4096, 4096);
    products(&b, 4096, 4096, 32);
    products(&b, 4096, 32, 4096);
    products(&b, 8, 4096, 14336);
    products(&b, 1, 4096, 14336);
    attention(&b, 8, 512, 512);
    attention(&b, 1, 4096, 4096);
    attention(&b, 8, 1, 4096);
    rows(&b, 16384, 4096);
    host(&b, (size_t)256 << 20);
    backend_close(b.be);
    return 0;
}
