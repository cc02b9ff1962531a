/* bench_attn.c - how fast attention and its gradient are at the shapes of
 * real models, one or more instruction sets side by side in every round.
 * Prints medians; FLOPs are those of the keys that causality leaves, 4 D a
 * query head and key forward and 10 D backward.
 * Usage: bench_attn [threads [isa ...]]. */
#include <math.h>

#include "measure.h"

enum { TOKENS = 2048, ROUNDS = 15, MOST = 6 };

typedef struct shape {
    int heads, kv_heads, head_dim;
} shape;

typedef struct run {
    backend *be;
    backend_view q, k, v, o, dq, dk, dv, dout, lse, delta;
    backend_attn d;
} run;

static backend_view matrix(backend *be, base_dtype dtype, int64_t rows,
                           int64_t cols)
{
    static uint32_t seed = 1;
    size_t size = base_dtype_bytes(dtype);
    char *data = need(be->alloc(be, (size_t)(rows * cols) * size));
    for (size_t i = 0; i < (size_t)(rows * cols); i++) {
        seed = seed * 1664525U + 1013904223U;
        float x = (float)(seed >> 8) / 8388608.0F - 1.0F;
        base_from_f32(&x, data + i * size, dtype, 1);
    }
    return backend_matrix(data, dtype, rows, cols);
}

static run start(backend *be, shape s, int n_seq, const int32_t *cu)
{
    const int64_t n = cu[n_seq], wide = (int64_t)s.heads * s.head_dim;
    const int64_t narrow = (int64_t)s.kv_heads * s.head_dim;
    run r = {.be = be,
             .d = {.n_seq = n_seq,
                   .cu_q = cu,
                   .cu_k = cu,
                   .max_q = cu[1],
                   .max_k = cu[1],
                   .n_heads = s.heads,
                   .n_kv_heads = s.kv_heads,
                   .head_dim = s.head_dim,
                   .scale = 1 / sqrt(s.head_dim)}};
    backend_view *own[] = {&r.q, &r.o, &r.dq, &r.dout};
    backend_view *shared[] = {&r.k, &r.v, &r.dk, &r.dv};
    for (int i = 0; i < 4; i++) {
        *own[i] = matrix(be, be->act, n, wide);
        *shared[i] = matrix(be, be->act, n, narrow);
    }
    r.lse = matrix(be, be->acc, n, s.heads);
    r.delta = matrix(be, be->acc, n, s.heads);
    return r;
}

static void end(run *r)
{
    backend_view all[] = {r->q,  r->k,  r->v,    r->o,   r->dq,
                          r->dk, r->dv, r->dout, r->lse, r->delta};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        r->be->free(r->be, all[i].data);
}

static double forward(run *r)
{
    double s = base_now_s();
    r->be->attn(r->be, r->o, r->lse, r->q, r->k, r->v, &r->d);
    return base_now_s() - s;
}

static double backward(run *r)
{
    double s = base_now_s();
    r->be->attn_bwd(r->be, r->dq, r->dk, r->dv, r->dout, r->q, r->k, r->v, r->o,
                    r->lse, r->delta, &r->d);
    return base_now_s() - s;
}

static void measure(backend *const *be, int n_be, shape s, int len)
{
    int32_t cu[TOKENS / 64 + 1];
    run runs[MOST];
    double t[MOST][2][ROUNDS];
    const int n_seq = TOKENS / len;
    for (int i = 0; i <= n_seq; i++)
        cu[i] = i * len;
    for (int i = 0; i < n_be; i++) {
        runs[i] = start(be[i], s, n_seq, cu);
        forward(&runs[i]); /* warm, and lse for backward */
        backward(&runs[i]);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < n_be; i++) {
            t[i][0][round] = forward(&runs[i]);
            t[i][1][round] = backward(&runs[i]);
        }
    const double pairs = (double)n_seq * len * (len + 1) / 2;
    const double flops = 4 * pairs * s.heads * s.head_dim;
    printf("%2d on %d, D %3d, %2d x %4d", s.heads, s.kv_heads, s.head_dim,
           n_seq, len);
    for (int i = 0; i < n_be; i++) {
        printf(" | %7.1f %7.1f", flops / median(t[i][0], ROUNDS) * 1e-9,
               2.5 * flops / median(t[i][1], ROUNDS) * 1e-9);
        end(&runs[i]);
    }
    putchar('\n');
}

static int open_all(backend **be, int threads, int argc, char **isa)
{
    int n = argc > MOST ? MOST : argc;
    for (int i = 0; i < n; i++) {
        backend_options options = {.name = "cpu",
                                   .dtype = BASE_BF16,
                                   .n_threads = threads,
                                   .isa = isa[i]};
        lori_error err;
        if (backend_open(&options, &be[i], &err)) {
            fprintf(stderr, "%s\n", err.message);
            exit(1);
        }
        printf("%s\n", be[i]->detail);
    }
    return n;
}

int main(int argc, char **argv)
{
    static const shape shapes[] = {{9, 3, 64}, {32, 8, 64}, {32, 8, 128}};
    static const int lengths[] = {128, 220, 512, 2048};
    static char *best[] = {NULL};
    backend *be[MOST];
    int n = open_all(be, argc > 1 ? atoi(argv[1]) : 0, argc > 2 ? argc - 2 : 1,
                     argc > 2 ? argv + 2 : best);
    printf("GFLOP/s, forward and backward\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
            measure(be, n, shapes[i], lengths[j]);
    for (int i = 0; i < n; i++)
        backend_close(be[i]);
    return 0;
}
