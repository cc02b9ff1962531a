/* measure.h - what the benchmarks measure against: multiply-adds from
 * registers and reading of memory, on this machine, now; and medians. Random
 * numbers throughout: zeros multiply faster. */
#ifndef MEASURE_H
#define MEASURE_H

#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"

#define READ_BYTES ((size_t)1 << 30)

static void *need(void *p)
{
    if (!p) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return p;
}

/* READ_BYTES, for read_once. */
static inline char *memory_to_read(void)
{
    char *p = need(aligned_alloc(64, READ_BYTES));
    uint64_t *words = (uint64_t *)(void *)p;
    for (size_t i = 0; i < READ_BYTES / 8; i++)
        words[i] = i * 0x9e3779b97f4a7c15U;
    return p;
}

/* ---- what the machine can do ------------------------------------------ */

/* Enough chains to hide the latency of four cycles of two units. */
#define CHAINS 12
#define PEAK_LOOP(vec, fma, sum)                                               \
    vec acc[CHAINS], a = x[0], b = x[1];                                       \
    for (int i = 0; i < CHAINS; i++)                                           \
        acc[i] = x[i % 2];                                                     \
    for (int64_t t = 0; t < n; t++) {                                          \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] =     \
            fma(acc[i], a, b);                                                 \
    }                                                                          \
    for (int i = 1; i < CHAINS; i++)                                           \
        acc[0] = sum(acc[0], acc[i]);

__attribute__((target("avx512f"), noinline)) static float
peak_avx512(int64_t n, const float *in)
{
    const __m512 x[2] = {_mm512_loadu_ps(in), _mm512_loadu_ps(in + 16)};
    PEAK_LOOP(__m512, _mm512_fmadd_ps, _mm512_add_ps)
    return _mm512_cvtss_f32(acc[0]);
}
__attribute__((target("avx2,fma"), noinline)) static float
peak_avx2(int64_t n, const float *in)
{
    const __m256 x[2] = {_mm256_loadu_ps(in), _mm256_loadu_ps(in + 8)};
    PEAK_LOOP(__m256, _mm256_fmadd_ps, _mm256_add_ps)
    return _mm256_cvtss_f32(acc[0]);
}
/* Pairs of bf16, each product counted. */
__attribute__((target("avx512f,avx512bf16"), noinline)) static float
peak_bf16(int64_t n, const float *in)
{
    const __m512 x[2] = {_mm512_loadu_ps(in), _mm512_loadu_ps(in + 16)};
#define DP(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
    PEAK_LOOP(__m512, DP, _mm512_add_ps)
#undef DP
    return _mm512_cvtss_f32(acc[0]);
}
static __m128 muladd(__m128 a, __m128 b, __m128 c)
{
    return _mm_add_ps(_mm_mul_ps(a, b), c);
}
__attribute__((noinline)) static float peak_base(int64_t n, const float *in)
{
    const __m128 x[2] = {_mm_loadu_ps(in), _mm_loadu_ps(in + 4)};
    PEAK_LOOP(__m128, muladd, _mm_add_ps)
    return _mm_cvtss_f32(acc[0]);
}

static volatile float sink;

/* Products of tiles whose operands stay in registers; the backend has asked
 * for the permission. Numbers are random: zeros multiply faster. */
static __attribute__((target("amx-tile,amx-bf16"))) float
peak_tiles(int64_t n, const uint16_t *in)
{
    _Alignas(64) float out[256];
    static const _Alignas(64) struct {
        uint8_t palette, start, none[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shape);
    _tile_loadd(4, in, 64);
    _tile_loadd(5, in + 512, 64);
    _tile_loadd(6, in + 1024, 64);
    _tile_loadd(7, in + 1536, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, 64);
    _tile_stored(3, out, 64);
    _tile_release();
    return out[17];
}

/* What one thread of a measurement does, and all of them. Threads are the
 * backend's own: others would still wait, and disturb, when its turn comes. */
typedef struct turns {
    float (*vectors)(int64_t n, const float *in); /* NULL: tiles */
    int64_t n;
    float in[32];
    _Alignas(64) uint16_t tiles[2048];
} turns;

static void turns_part(void *context, int thread, int n)
{
    (void)thread;
    (void)n;
    const turns *t = context;
    sink = t->vectors ? t->vectors(t->n, t->in) : peak_tiles(t->n, t->tiles);
}

static double turns_once(backend *be, turns *t, double flops, int threads)
{
    const double s = base_now_s();
    backend_parallel(be, threads, turns_part, t);
    return flops * (double)t->n * threads / (base_now_s() - s);
}

static double vectors_once(backend *be, float (*f)(int64_t, const float *),
                           int flops, int threads)
{
    turns t = {.vectors = f, .n = 4000000};
    for (int i = 0; i < 32; i++)
        t.in[i] = 0.5F + (float)i / 99.0F;
    return turns_once(be, &t, 2.0 * CHAINS * flops, threads);
}

static double tiles_once(backend *be, int threads)
{
    turns t = {.n = 400000};
    uint32_t seed = 1;
    for (int i = 0; i < 2048; i++) {
        seed = seed * 1664525U + 1013904223U;
        const float x = (float)(seed >> 8) / 8388608.0F - 1.0F;
        base_from_f32(&x, &t.tiles[i], BASE_BF16, 1);
    }
    return turns_once(be, &t, 4.0 * 2 * 16 * 16 * 32, threads);
}

/* FLOP/s of the fastest multiply-adds that the rung has. */
static inline double peak_once(backend *be, const char *isa, int threads)
{
    if (strcmp(isa, "amx") == 0)
        return tiles_once(be, threads);
    if (strcmp(isa, "avx2") == 0)
        return vectors_once(be, peak_avx2, 8, threads);
    if (strncmp(isa, "avx512", 6) != 0)
        return vectors_once(be, peak_base, 4, threads);
    const double floats = vectors_once(be, peak_avx512, 16, threads);
    if (strcmp(isa, "avx512bf16") != 0)
        return floats;
    const double pairs = vectors_once(be, peak_bf16, 32, threads);
    return pairs > floats ? pairs : floats;
}

/* Sums as integers: one addition a word is faster than any memory. */
static void read_part(void *context, int thread, int n)
{
    typedef uint64_t words __attribute__((vector_size(64), aligned(64)));
    const size_t part = READ_BYTES / (size_t)n / 64 * 64;
    const words *w =
        (const void *)((const char *)context + part * (size_t)thread);
    words a = {0}, b = {0};
    for (size_t i = 0; i + 2 <= part / 64; i += 2) {
        __builtin_prefetch((const char *)(w + i) + 2048, 0, 1);
        __builtin_prefetch((const char *)(w + i) + 2112, 0, 1);
        a += w[i];
        b += w[i + 1];
    }
    a += b;
    sink = (float)(a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7]);
}

static inline double read_once(backend *be, char *p, int threads)
{
    const double s = base_now_s();
    backend_parallel(be, threads, read_part, p);
    return (double)READ_BYTES / (base_now_s() - s);
}

/* ---- medians ---------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return x[n / 2];
}

#endif
