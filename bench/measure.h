/* measure.h - what the benchmarks measure against: multiply-adds from
 * registers and reading of memory, on this machine, now; and medians. Random
 * numbers throughout: zeros multiply faster. */
#ifndef MEASURE_H
#define MEASURE_H

#include <immintrin.h>
#include <omp.h>
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

static double tiles_once(int threads)
{
    const int64_t n = 400000;
    _Alignas(64) uint16_t in[2048];
    uint32_t seed = 1;
    for (int i = 0; i < 2048; i++) {
        seed = seed * 1664525U + 1013904223U;
        const float x = (float)(seed >> 8) / 8388608.0F - 1.0F;
        base_from_f32(&x, &in[i], BASE_BF16, 1);
    }
    double s = base_now_s();
#pragma omp parallel num_threads(threads)
    sink = peak_tiles(n, in);
    s = base_now_s() - s;
    return 4.0 * 2 * 16 * 16 * 32 * (double)n * threads / s;
}

static inline double peak_once(const char *isa, int threads)
{
    if (strcmp(isa, "amx") == 0)
        return tiles_once(threads);
    const int64_t n = 4000000;
    float in[32];
    for (int i = 0; i < 32; i++)
        in[i] = 0.5F + (float)i / 99.0F;
    int lanes = strncmp(isa, "avx512", 6) == 0 ? 16
                : strcmp(isa, "avx2") == 0     ? 8
                                               : 4;
    double s = base_now_s();
#pragma omp parallel num_threads(threads)
    sink = lanes == 16  ? peak_avx512(n, in)
           : lanes == 8 ? peak_avx2(n, in)
                        : peak_base(n, in);
    s = base_now_s() - s;
    return 2.0 * CHAINS * lanes * (double)n * threads / s;
}

/* Sums as integers: one addition a word is faster than any memory. */
static inline double read_once(const char *p, int threads)
{
    typedef uint64_t words __attribute__((vector_size(64), aligned(64)));
    uint64_t all = 0;
    double s = base_now_s();
#pragma omp parallel num_threads(threads) reduction(+ : all)
    {
        size_t part = READ_BYTES / (size_t)threads / 64 * 64;
        const words *w =
            (const void *)(p + part * (size_t)omp_get_thread_num());
        words a = {0}, b = {0};
        for (size_t i = 0; i + 2 <= part / 64; i += 2) {
            __builtin_prefetch((const char *)(w + i) + 2048, 0, 1);
            __builtin_prefetch((const char *)(w + i) + 2112, 0, 1);
            a += w[i];
            b += w[i + 1];
        }
        a += b;
        for (int i = 0; i < 8; i++)
            all += a[i];
    }
    s = base_now_s() - s;
    sink = (float)all;
    return (double)READ_BYTES / s;
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
