/* cpu_vec.h - vectors of floats for the kernels of isa/, on GCC's and clang's
 * vector extensions, as wide as the instruction set that the including file is
 * compiled for (CPU_ISA). Private to isa/. */
#ifndef CPU_VEC_H
#define CPU_VEC_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_kernels.h"

#define CPU_PASTE2(a, b) a##_##b
#define CPU_PASTE(a, b)  CPU_PASTE2(a, b)
#define CPU_NAME(f)      CPU_PASTE(f, CPU_ISA) /* f_avx512 */

#if defined(CPU_ISA_avx512) || defined(CPU_ISA_avx512bf16)
#define VL      16
#define MM_ROWS 12 /* rows of a register tile, two vectors wide */
#define MM_SOME 4
#elif defined(CPU_ISA_avx2)
#define VL      8
#define MM_ROWS 6
#define MM_SOME 2
#else
#define VL      4
#define MM_ROWS 6
#define MM_SOME 2
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));

INLINE vf splat(float x)
{
    return x - (vf){0};
}
INLINE vf load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}
/* a b + c, rounded once where the instruction set can. */
INLINE vf madd(vf a, vf b, vf c)
{
#if VL == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VL == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
INLINE vf expand_bf16(vh h)
{
    /* gcc widens a __builtin_convertvector in halves. */
#if VL == 16
    return (vf)(vu)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif VL == 8
    return (vf)(vu)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
    return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}
/* The even (t even) or odd elements of pairs of bf16. */
INLINE vf expand_pairs(vu pairs, int64_t t)
{
    return (vf)(t % 2 ? pairs & 0xffff0000U : pairs << 16);
}
INLINE vf pick(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}
/* Nearest even; a NaN keeps its sign and becomes quiet. */
INLINE vh shrink_exact(vf v)
{
    vu u = (vu)v, near = u + (0x7fffU + ((u >> 16) & 1U));
#if VL == 16
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    __m512i both = _mm512_mask_or_epi32((__m512i)near, nan, (__m512i)u,
                                        _mm512_set1_epi32(0x400000));
    return (vh)_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16));
#else
    vu nan = (vu)((u & 0x7fffffffU) > 0x7f800000U);
    vu both = (nan & (u | 0x400000U)) | (~nan & near);
    return __builtin_convertvector(both >> 16, vh);
#endif
}

/* The same with the processor's own conversion where there is one: it takes
 * denormal floats for zeros, which no activation notices. */
INLINE vh shrink_f32(vf v)
{
#if defined(CPU_ISA_avx512bf16)
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    vh out;
    memcpy(&out, &h, sizeof out);
    return out;
#else
    return shrink_exact(v);
#endif
}

/* Element i of an array of bf16 or float, a vector or the first n < VL. */
INLINE vf load_any(const void *p, int64_t i, bool bf)
{
    if (bf) {
        vh h;
        memcpy(&h, (const uint16_t *)p + i, sizeof h);
        return expand_bf16(h);
    }
    return load((const float *)p + i);
}
INLINE void store_any(void *p, int64_t i, vf v, bool bf)
{
    if (bf) {
        vh h = shrink_f32(v);
        memcpy((uint16_t *)p + i, &h, sizeof h);
    } else {
        store((float *)p + i, v);
    }
}
INLINE vf load_some(const void *p, int64_t i, int64_t n, bool bf)
{
    if (bf) {
        vh h = {0};
        memcpy(&h, (const uint16_t *)p + i, (size_t)n * 2);
        return expand_bf16(h);
    }
    vf v = {0};
    memcpy(&v, (const float *)p + i, (size_t)n * 4);
    return v;
}
INLINE void store_some(void *p, int64_t i, vf v, int64_t n, bool bf)
{
    if (bf) {
        vh h = shrink_f32(v);
        memcpy((uint16_t *)p + i, &h, (size_t)n * 2);
    } else {
        memcpy((float *)p + i, &v, (size_t)n * 4);
    }
}

/* Runs `body` over n elements from 0: full vectors with (i, VL), then the
 * rest with (i, count < VL). `body` is an INLINE function's call. */
#define FOR_VECTORS(i, count, n)                                               \
    for (int64_t i = 0, count = (n) < VL ? (n) : VL; i < (n);                  \
         i += VL, count = (n)-i < VL ? (n)-i : VL)

INLINE vf get(const void *p, int64_t i, int64_t count, bool bf)
{
    return count == VL ? load_any(p, i, bf) : load_some(p, i, count, bf);
}
INLINE void put(void *p, int64_t i, vf v, int64_t count, bool bf)
{
    if (count == VL)
        store_any(p, i, v, bf);
    else
        store_some(p, i, v, count, bf);
}

/* c [n] = alpha sum + beta plus; sum is padded to whole vectors. */
INLINE void put_scaled(void *c, const void *plus, const float *sum, int64_t n,
                       float alpha, float beta, bool bf)
{
    FOR_VECTORS(j, count, n)
    {
        vf v = load(sum + j) * alpha;
        if (beta != 0)
            v = madd(splat(beta), get(plus, j, count, bf), v);
        put(c, j, v, count, bf);
    }
}

/* c[row][col ..] of a product of few rows, n columns of it from their sums. */
INLINE void few_put(const cpu_few *f, int64_t row, int64_t col,
                    const float *sum, int64_t n)
{
    const int64_t at = (row * f->ldc + col) * (f->c_bf ? 2 : 4);
    char *c = (char *)f->c + at;
    const char *plus = (const char *)f->plus + at;
    if (f->c_bf)
        put_scaled(c, plus, sum, n, f->alpha, f->beta, true);
    else
        put_scaled(c, plus, sum, n, f->alpha, f->beta, false);
}

/* Of two numbers; where a is NaN or b is, b (as MAXPS and MINPS have it). */
INLINE vf larger(vf a, vf b)
{
#if VL == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif VL == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#endif
}
INLINE vf smaller(vf a, vf b)
{
#if VL == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif VL == 8
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#endif
}
/* 1 / x for finite x, relative error below 1.5e-7: a division of 16 floats
 * takes longer than the rest of a sigmoid. */
INLINE vf inverse(vf x)
{
#if VL == 16
    vf r = (vf)_mm512_rcp14_ps((__m512)x);
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}
/* Halves are added until one number is left. */
INLINE float lanes_sum4(__m128 v)
{
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}
INLINE float lanes_sum(vf v)
{
#if VL == 16
    __m256 w = _mm256_add_ps(_mm512_castps512_ps256((__m512)v),
                             _mm512_extractf32x8_ps((__m512)v, 1));
#elif VL == 8
    __m256 w = (__m256)v;
#endif
#if VL >= 8
    return lanes_sum4(
        _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1)));
#else
    return lanes_sum4((__m128)v);
#endif
}
/* The same for the largest; `larger` says what becomes of NaN. */
INLINE float lanes_max4(__m128 v)
{
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}
INLINE float lanes_max(vf v)
{
#if VL == 16
    __m256 w = _mm256_max_ps(_mm512_castps512_ps256((__m512)v),
                             _mm512_extractf32x8_ps((__m512)v, 1));
#elif VL == 8
    __m256 w = (__m256)v;
#endif
#if VL >= 8
    return lanes_max4(
        _mm_max_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1)));
#else
    return lanes_max4((__m128)v);
#endif
}

/* e^x, relative error below 1.2e-7 for -87.3 <= x <= 88.3; less gives 0, more
 * infinity, NaN gives NaN. e^x = 2^n e^r with |r| <= ln2/2, and e^r = 1 +
 * r + r^2 q(r), q of degree 4 fitted for the least relative error (3e-9). */
INLINE vf exp_vf(vf x)
{
    const vf magic = splat(12582912.0f); /* 1.5 * 2^23: rounds to integers */
    vf in = smaller(splat(89.0f), x);
    vf t = in * 0x1.715476p+0f + magic;
    vf n = t - magic;
    vf r = in - n * 0x1.62e400p-1f; /* ln 2 in two parts, the first short */
    r = r - n * 0x1.7f7d1cp-20f;
    vf q = r * 0x1.6a2256p-10f + 0x1.123b02p-7f;
    q = q * r + 0x1.5558f8p-5f;
    q = q * r + 0x1.555490p-3f;
    q = q * r + 0x1.fffffcp-2f;
    vf y = (r * r) * q + r + 1.0f;
    vf power = (vf)(((vu)t << 23) + 0x3f800000U); /* wraps */
#if VL == 16 /* not VSCALEFPS: it is slow where the result is denormal */
    __mmask16 seen =
        _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
    return (vf)_mm512_maskz_mul_ps(seen, (__m512)y, (__m512)power);
#else
    return pick(x < -87.3f, (vf){0}, y * power);
#endif
}

#if VL == 16
/* Lane bit `bit` changes places with the choice between two rows. */
INLINE void turn_pair(vf *a, vf *b, int bit)
{
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vi odd = (lane & bit) != 0;
    const vi low = (odd & (lane - bit + 16)) | (~odd & lane);
    const vi high = (odd & (lane + 16)) | (~odd & (lane + bit));
    __m512 x = (__m512)*a, y = (__m512)*b;
    *a = (vf)_mm512_permutex2var_ps(x, (__m512i)low, y);
    *b = (vf)_mm512_permutex2var_ps(x, (__m512i)high, y);
}
/* One stage of a transposition: pairs of rows, `bit` apart. */
INLINE void turn_stage(vf *row, int bit)
{
    for (int pair = 0; pair < 8; ++pair) {
        int i = (pair & (bit - 1)) | (pair & ~(bit - 1)) << 1;
        turn_pair(row + i, row + i + bit, bit);
    }
}
#elif VL == 8
INLINE void turn_four(vf *row)
{
    __m256 a = (__m256)row[0], b = (__m256)row[1], c = (__m256)row[2],
           d = (__m256)row[3];
    __m256 ab0 = _mm256_unpacklo_ps(a, b), ab1 = _mm256_unpackhi_ps(a, b);
    __m256 cd0 = _mm256_unpacklo_ps(c, d), cd1 = _mm256_unpackhi_ps(c, d);
    row[0] = (vf)_mm256_shuffle_ps(ab0, cd0, 0x44);
    row[1] = (vf)_mm256_shuffle_ps(ab0, cd0, 0xee);
    row[2] = (vf)_mm256_shuffle_ps(ab1, cd1, 0x44);
    row[3] = (vf)_mm256_shuffle_ps(ab1, cd1, 0xee);
}
#endif

/* Transposes a square of VL rows in registers. */
INLINE void turn_square(vf *row)
{
#if VL == 16
    turn_stage(row, 1);
    turn_stage(row, 2);
    turn_stage(row, 4);
    turn_stage(row, 8);
#elif VL == 8
    turn_four(row);
    turn_four(row + 4);
    for (int i = 0; i < 4; ++i) {
        __m256 a = (__m256)row[i], b = (__m256)row[i + 4];
        row[i] = (vf)_mm256_permute2f128_ps(a, b, 0x20);
        row[i + 4] = (vf)_mm256_permute2f128_ps(a, b, 0x31);
    }
#else
    __m128 a = (__m128)row[0], b = (__m128)row[1], c = (__m128)row[2],
           d = (__m128)row[3];
    _MM_TRANSPOSE4_PS(a, b, c, d);
    row[0] = (vf)a;
    row[1] = (vf)b;
    row[2] = (vf)c;
    row[3] = (vf)d;
#endif
}

#if VL == 16
/* One stage of a transposition, its rows added instead of kept. */
INLINE void sum_stage(vf *row, int bit)
{
    for (int i = 0; i < bit; ++i) {
        turn_pair(row + i, row + i + bit, bit);
        row[i] += row[i + bit];
    }
}
#endif

/* Lane i: the sum of the lanes of row i. The rows are lost. */
INLINE vf rows_sum(vf *row)
{
#if VL == 16
    sum_stage(row, 8); /* written out: `bit` must be a constant */
    sum_stage(row, 4);
    sum_stage(row, 2);
    sum_stage(row, 1);
    return row[0];
#else
    turn_square(row);
    vf sum = row[0];
    for (int i = 1; i < VL; ++i)
        sum += row[i];
    return sum;
#endif
}

/* t [VL, ldt] = the VL x VL tile of s [VL, lds], transposed. */
INLINE void turn_tile(float *t, int64_t ldt, const float *s, int64_t lds)
{
    vf row[VL];
    for (int i = 0; i < VL; ++i)
        row[i] = load(s + i * lds);
    turn_square(row);
    for (int i = 0; i < VL; ++i)
        store(t + i * ldt, row[i]);
}

#endif
