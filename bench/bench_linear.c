/* bench_linear.c - how fast products of matrices are, beside what the machine
 * can do: multiply-adds from registers and reading of memory, both measured
 * here, and oneDNN's product of floats, or of bf16 where the rung multiplies
 * bf16. Every figure is the median of ROUNDS runs that alternate with the
 * others of its line; a run begins when the threads of the one before sleep,
 * and is timed from 15 ms on, when those that it needs are awake and apart.
 * Random numbers throughout: zeros multiply faster.
 * Usage: bench_linear [--threads N] [--isa NAME] [--json FILE] [--quick] */
#include <stdarg.h>
#include <time.h>

#include "dnnl_peer.h"
#include "measure.h"

enum { ROUNDS = 5, MAX_ROUNDS = 9 };

typedef struct bench {
    backend *be;
    const char *isa;
    int threads;
    int rounds;
    FILE *json;
    const char *comma;
    double peak[2], bandwidth[2]; /* of one thread and of all */
    char *memory;                 /* READ_BYTES, random */
} bench;

static uint32_t lcg(uint32_t x)
{
    return x * 1664525U + 1013904223U;
}

static void json_line(bench *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void json_line(bench *b, const char *fmt, ...)
{
    if (!b->json)
        return;
    va_list ap;
    va_start(ap, fmt);
    fputs(b->comma, b->json);
    vfprintf(b->json, fmt, ap);
    va_end(ap);
    b->comma = ",\n  ";
}

static void measure_peaks(bench *b)
{
    for (int all = 0; all < 2; all++) {
        double peak[MAX_ROUNDS], read[MAX_ROUNDS];
        int threads = all ? b->threads : 1;
        for (int i = 0; i < b->rounds; i++) {
            peak[i] = peak_once(b->be, b->isa, threads);
            read[i] = read_once(b->be, b->memory, threads);
        }
        b->peak[all] = median(peak, b->rounds);
        b->bandwidth[all] = median(read, b->rounds);
        printf("%-10s %d thread%s: multiply-adds %.1f GFLOP/s, reading %.1f "
               "GB/s\n",
               b->isa, threads, threads == 1 ? " " : "s", b->peak[all] * 1e-9,
               b->bandwidth[all] * 1e-9);
        json_line(b,
                  "{\"what\": \"peak\", \"isa\": \"%s\", \"threads\": %d, "
                  "\"gflops\": %.1f, \"read_gb_s\": %.1f}",
                  b->isa, threads, b->peak[all] * 1e-9,
                  b->bandwidth[all] * 1e-9);
    }
}

/* ---- products --------------------------------------------------------- */

static backend_view matrix(bench *b, base_dtype dtype, int64_t rows,
                           int64_t cols, float size)
{
    const size_t n = (size_t)(rows * cols), each = base_dtype_bytes(dtype);
    char *data = need(b->be->alloc(b->be, n * each));
#pragma omp parallel for num_threads(b->threads)
    for (size_t at = 0; at < n; at += 4096) {
        uint32_t seed = lcg((uint32_t)at + 1);
        for (size_t i = at; i < n && i < at + 4096; i++) {
            seed = lcg(seed);
            float x = ((float)(seed >> 8) / 8388608.0F - 1.0F) * size;
            base_from_f32(&x, data + i * each, dtype, 1);
        }
    }
    return backend_matrix(data, dtype, rows, cols);
}

static backend_weight *weight_of(bench *b, backend_view v)
{
    backend_tensor t = {"bench", v.data, v.rows, v.cols, v.dtype};
    backend_weight *w;
    lori_error err;
    if (b->be->weight_open(b->be, &t, &w, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    return w;
}

typedef struct operands {
    backend_view x, y, dx, dy, w;
    backend_view xf, yf, wf; /* oneDNN's, where it multiplies floats */
    peer forward, backward;  /* oneDNN's, of bf16 */
    backend_weight *weight;
} operands;

/* Whether the rung multiplies bf16, not floats. */
static bool bf16_rung(const bench *b)
{
    return !strcmp(b->isa, "amx") || !strcmp(b->isa, "avx512bf16");
}

static operands operands_new(bench *b, int64_t m, int64_t n, int64_t k,
                             bool beside)
{
    base_dtype act = b->be->act;
    operands o = {.x = matrix(b, act, m, k, 1),
                  .y = matrix(b, act, m, n, 1),
                  .dx = matrix(b, b->be->acc, m, k, 1),
                  .dy = matrix(b, act, m, n, 1),
                  .w = matrix(b, act, n, k, 0.04F)};
    if (beside && bf16_rung(b)) {
        peer_open(&o.forward, b->threads, o.x, o.w, true, o.y);
        peer_open(&o.backward, b->threads, o.dy, o.w, false, o.dx);
    } else if (beside) {
        o.xf = matrix(b, BASE_F32, m, k, 1);
        o.yf = matrix(b, BASE_F32, m, n, 1);
        o.wf = matrix(b, BASE_F32, n, k, 0.04F);
    }
    o.weight = weight_of(b, o.w);
    return o;
}

static void operands_free(bench *b, operands *o)
{
    b->be->weight_close(b->be, o->weight);
    peer_close(&o->forward);
    peer_close(&o->backward);
    void *all[] = {o->x.data, o->y.data,  o->dx.data, o->dy.data,
                   o->w.data, o->xf.data, o->yf.data, o->wf.data};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        b->be->free(b->be, all[i]);
}

static void ours(bench *b, const operands *o, bool back)
{
    if (back)
        b->be->gemm_wt(b->be, o->dx, o->dy, o->weight, NULL, 0);
    else
        b->be->gemm_w(b->be, o->y, o->x, o->weight, NULL, NULL);
}

static void dnnl(bench *b, const operands *o, bool back)
{
    const int64_t m = o->x.rows, n = o->y.cols, k = o->x.cols;
    if (bf16_rung(b))
        peer_run(back ? &o->backward : &o->forward);
    else if (back)
        dnnl_sgemm('N', 'N', m, k, n, 1, o->yf.data, n, o->wf.data, k, 0,
                   o->xf.data, k);
    else
        dnnl_sgemm('N', 'T', m, n, k, 1, o->xf.data, k, o->wf.data, k, 0,
                   o->yf.data, n);
}

typedef void product(bench *b, const operands *o, bool back);

/* Threads of oneDNN and of the backend wait awake for some ms. */
static void quiet(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
}

/* Seconds of one, of as many as take at_least together. */
static double some(bench *b, product *f, const operands *o, bool back,
                   double at_least)
{
    const double start = base_now_s();
    double s;
    int n = 0;
    do {
        f(b, o, back);
        n++;
    } while ((s = base_now_s() - start) < at_least);
    return s / n;
}

/* The same, once the threads that it wakes lie on processors of their own. */
static double once(bench *b, product *f, const operands *o, bool back)
{
    quiet();
    (void)some(b, f, o, back, 15e-3);
    return some(b, f, o, back, 15e-3);
}

static void many(bench *b, int64_t m, int64_t n, int64_t k)
{
    operands o = operands_new(b, m, n, k, true);
    const double flops = 2.0 * (double)m * (double)n * (double)k;
    for (int back = 0; back < 2; back++) {
        double own[MAX_ROUNDS], other[MAX_ROUNDS], peak[MAX_ROUNDS];
        for (int i = 0; i < b->rounds; i++) {
            quiet();
            peak[i] = peak_once(b->be, b->isa, b->threads);
            own[i] = flops / once(b, ours, &o, back);
            other[i] = flops / once(b, dnnl, &o, back);
        }
        double top = median(peak, b->rounds), rate = median(own, b->rounds);
        double beside = median(other, b->rounds);
        printf("%-10s %s %5lld x %6lld x %6lld  %7.1f GFLOP/s  %5.1f %% of "
               "peak; oneDNN %s %7.1f, x %.2f\n",
               b->isa, back ? "dy W " : "x W' ", (long long)m, (long long)n,
               (long long)k, rate * 1e-9, 100 * rate / top,
               bf16_rung(b) ? "bf16" : "f32", beside * 1e-9, rate / beside);
        fflush(stdout);
        json_line(b,
                  "{\"what\": \"gemm\", \"isa\": \"%s\", \"direction\": "
                  "\"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld, \"gflops\": "
                  "%.1f, \"of_peak\": %.3f, \"onednn_gflops\": %.1f}",
                  b->isa, back ? "dy W" : "x W'", (long long)m, (long long)n,
                  (long long)k, rate * 1e-9, rate / top, beside * 1e-9);
    }
    operands_free(b, &o);
}

/* Few rows, over weights that no cache holds: a layer's matrices follow each
 * other as in a model. The floor is the longer of reading and multiplying. */
static void few(bench *b, int64_t m, int64_t n, int64_t k)
{
    const int64_t bytes = n * k * (int64_t)base_dtype_bytes(b->be->act);
    const int64_t layers = 1 + ((int64_t)768 << 20) / bytes;
    operands o = operands_new(b, m, n, k, false);
    backend_view all = matrix(b, b->be->act, n * layers, k, 0.04F);
    backend_weight **w = need(calloc((size_t)layers, sizeof(void *)));
    for (int64_t i = 0; i < layers; i++)
        w[i] = weight_of(b, backend_rows(all, i * n, n));
    double rate[MAX_ROUNDS], read[MAX_ROUNDS], peak[MAX_ROUNDS];
    for (int i = 0; i < b->rounds; i++) {
        peak[i] = peak_once(b->be, b->isa, b->threads);
        read[i] = read_once(b->be, b->memory, b->threads);
        double s = base_now_s();
        for (int64_t j = 0; j < layers; j++)
            b->be->gemm_w(b->be, o.y, o.x, w[j], NULL, NULL);
        rate[i] = (double)(bytes * layers) / (base_now_s() - s);
    }
    double top = median(read, b->rounds), got = median(rate, b->rounds);
    double compute = median(peak, b->rounds) /
                     (2.0 * (double)m * (double)(n * k)) * (double)bytes;
    double floor = compute < top ? compute : top;
    printf("%-10s %3lld x %6lld x %6lld  %6.1f GB/s, %5.1f %% of reading; %.2f "
           "x the floor's time\n",
           b->isa, (long long)m, (long long)n, (long long)k, got * 1e-9,
           100 * got / top, floor / got);
    fflush(stdout);
    json_line(b,
              "{\"what\": \"few rows\", \"isa\": \"%s\", \"m\": %lld, \"n\": "
              "%lld, \"k\": %lld, \"gb_s\": %.1f, \"of_reading\": %.3f, "
              "\"times_floor\": %.3f}",
              b->isa, (long long)m, (long long)n, (long long)k, got * 1e-9,
              got / top, floor / got);
    for (int64_t i = 0; i < layers; i++)
        b->be->weight_close(b->be, w[i]);
    free(w);
    b->be->free(b->be, all.data);
    operands_free(b, &o);
}

static const struct shape {
    int64_t m, n, k;
    bool quick;
} large[] = {{512, 14336, 4096, false}, {512, 4096, 14336, false},
             {2048, 2048, 8192, true},  {1024, 576, 576, true},
             {1024, 192, 576, true},    {1024, 1536, 576, true},
             {1024, 576, 1536, true},   {256, 49152, 576, true}},
  small[] = {
      {1, 576, 576, true},    {1, 1536, 576, true},   {1, 49152, 576, true},
      {2, 1536, 576, false},  {4, 1536, 576, false},  {8, 1536, 576, true},
      {16, 1536, 576, true},  {32, 1536, 576, false}, {16, 49152, 576, true},
      {64, 1536, 576, false}, {1, 8192, 2048, true},  {1, 2048, 8192, false},
      {8, 8192, 2048, false}, {16, 8192, 2048, true}, {16, 2048, 8192, false},
      {32, 8192, 2048, false}};
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static void rung(bench *b, const char *isa, bool quick)
{
    lori_error err;
    backend_options options = {
        .dtype = BASE_BF16, .n_threads = b->threads, .isa = isa};
    if (backend_open(&options, &b->be, &err)) {
        printf("%-10s %s\n", isa, err.message);
        return;
    }
    b->isa = isa;
    printf("\n%s\n", b->be->detail);
    measure_peaks(b);
    for (size_t i = 0; i < COUNT(large); i++)
        if (large[i].quick || !quick)
            many(b, large[i].m, large[i].n, large[i].k);
    for (size_t i = 0; i < COUNT(small); i++)
        if (small[i].quick || !quick)
            few(b, small[i].m, small[i].n, small[i].k);
    lori_status st = b->be->sync(b->be, &err);
    if (st)
        fprintf(stderr, "%s\n", err.message);
    backend_close(b->be);
}

int main(int argc, char **argv)
{
    bench b = {.threads = omp_get_max_threads(), .rounds = ROUNDS, .comma = ""};
    const char *isas[] = {"amx", "avx512bf16", "avx512", "avx2", "base"};
    const char *only = NULL, *path = NULL;
    bool quick = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--quick"))
            quick = true;
        else if (!strcmp(argv[i], "--threads") && atoi(value) > 0)
            b.threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--isa") && *value)
            only = argv[++i];
        else if (!strcmp(argv[i], "--json") && *value)
            path = argv[++i];
        else {
            fputs("usage: bench_linear [--threads N] [--isa NAME] [--json "
                  "FILE] [--quick]\n",
                  stderr);
            return 2;
        }
    }
    if (path && !(b.json = fopen(path, "w"))) {
        perror(path);
        return 1;
    }
    b.memory = memory_to_read();
    omp_set_num_threads(b.threads);
    base_str machine = {0};
    backend_machine(&machine);
    puts(machine.s ? machine.s : "?");
    if (b.json)
        fprintf(b.json, "{\"machine\": \"%s\", \"runs\": [\n  ",
                machine.s ? machine.s : "?");
    base_str_free(&machine);
    for (size_t i = 0; i < COUNT(isas); i++)
        if (!only || !strcmp(only, isas[i]))
            rung(&b, isas[i], quick);
    if (b.json) {
        fputs("\n]}\n", b.json);
        fclose(b.json);
    }
    free(b.memory);
    return 0;
}
