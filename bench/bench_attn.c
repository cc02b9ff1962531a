/* bench_attn.c - how fast attention and its gradient are at the shapes of
 * real models, one or more instruction sets side by side in every round.
 * Prints medians; FLOPs are those of the keys that causality leaves, 4 D a
 * query head and key forward and 10 D backward. Then decoding: one row of each
 * of 16 sequences, in GB/s of the keys and values that it reads, which lie in
 * pages of 16 positions and as many layers as no cache holds.
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

/* ---- decoding -------------------------------------------------------------
 */

enum { SEQUENCES = 16, KEYS = 1024, PAGE = 16, LAYERS = 8 };

typedef struct decoding {
    run r;
    backend_view pool;
    int32_t cu_q[SEQUENCES + 1], cu_k[SEQUENCES + 1];
    int32_t table[SEQUENCES * KEYS / PAGE];
} decoding;

static void start_decoding(decoding *c, backend *be, shape s)
{
    const int64_t stride =
        backend_heads_stride(be->act, s.kv_heads, s.head_dim);
    const int64_t rows = (int64_t)SEQUENCES * KEYS * 2 * LAYERS;
    for (int i = 0; i <= SEQUENCES; i++) {
        c->cu_q[i] = i;
        c->cu_k[i] = i * KEYS;
    }
    for (int i = 0; i < SEQUENCES * KEYS / PAGE; i++)
        c->table[i] = i * 2 * LAYERS; /* a page has a cell for every layer */
    c->r = start(be, s, SEQUENCES, c->cu_q);
    c->r.d.cu_k = c->cu_k;
    c->r.d.max_q = 1;
    c->r.d.max_k = KEYS;
    c->r.d.block_table = c->table;
    c->r.d.table_ld = KEYS / PAGE;
    c->r.d.page = PAGE;
    c->pool = matrix(be, be->act, rows, stride);
    c->pool.cols = (int64_t)s.kv_heads * s.head_dim;
}

static double decode(decoding *c)
{
    double s = base_now_s();
    for (int i = 0; i < LAYERS; i++) {
        const int64_t last = (int64_t)(2 * LAYERS - 1) * PAGE;
        const int64_t rows = c->pool.rows - last;
        backend_view k = backend_rows(c->pool, (int64_t)2 * i * PAGE, rows);
        backend_view v =
            backend_rows(c->pool, (int64_t)(2 * i + 1) * PAGE, rows);
        c->r.be->attn(c->r.be, c->r.o, c->r.lse, c->r.q, k, v, &c->r.d);
    }
    return base_now_s() - s;
}

static void measure_decoding(backend *const *be, int n_be, shape s)
{
    static decoding all[MOST];
    double t[MOST][ROUNDS];
    for (int i = 0; i < n_be; i++) {
        start_decoding(&all[i], be[i], s);
        decode(&all[i]);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < n_be; i++)
            t[i][round] = decode(&all[i]);
    const double bytes =
        2.0 * 2 * SEQUENCES * KEYS * LAYERS * s.kv_heads * s.head_dim;
    printf("%2d on %d, D %3d", s.heads, s.kv_heads, s.head_dim);
    for (int i = 0; i < n_be; i++) {
        printf(" | %7.1f", bytes / median(t[i], ROUNDS) * 1e-9);
        be[i]->free(be[i], all[i].pool.data);
        end(&all[i].r);
    }
    putchar('\n');
}

static void measure_reading(backend *const *be, int n_be)
{
    char *memory = memory_to_read();
    double t[ROUNDS];
    printf("reading        ");
    for (int i = 0; i < n_be; i++) {
        for (int round = 0; round < ROUNDS; round++)
            t[round] = read_once(be[i], memory, be[i]->n_threads);
        printf(" | %7.1f", median(t, ROUNDS) * 1e-9);
    }
    putchar('\n');
    free(memory);
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
    static const shape more[] = {{32, 4, 64}, {28, 4, 128}, {8, 8, 64}};
    static const int lengths[] = {128, 220, 512, 2048};
    static char *best[] = {NULL};
    backend *be[MOST];
    int n = open_all(be, argc > 1 ? atoi(argv[1]) : 0, argc > 2 ? argc - 2 : 1,
                     argc > 2 ? argv + 2 : best);
    printf("GFLOP/s, forward and backward\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
            measure(be, n, shapes[i], lengths[j]);
    printf("GB/s of keys and values, one row, %d sequences of %d keys\n",
           SEQUENCES, KEYS);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        measure_decoding(be, n, shapes[i]);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        measure_decoding(be, n, more[i]);
    measure_reading(be, n);
    for (int i = 0; i < n; i++)
        backend_close(be[i]);
    return 0;
}
