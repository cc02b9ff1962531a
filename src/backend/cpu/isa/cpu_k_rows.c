/* cpu_k_rows.c - kernels over one row: conversions, norms, rope, SwiGLU.
 * Arithmetic is in float; a bf16 result is rounded once, at the store. Sums
 * keep one partial sum a vector lane (several vectors), added at the end in a
 * fixed order. */
#include "backend/cpu/isa/cpu_k.h"
#include "backend/cpu/isa/cpu_k_glu.h"

void CPU_NAME(cpu_expand)(float *dst, const uint16_t *src, int64_t n)
{
    FOR_VECTORS(i, c, n)
    put(dst, i, get(src, i, c, true), c, false);
}

/* Exact for every float, denormals included, as base_f32_to_bf16 is. */
void CPU_NAME(cpu_shrink)(uint16_t *dst, const float *src, int64_t n)
{
    FOR_VECTORS(i, c, n)
    {
        vh h = shrink_exact(get(src, i, c, false));
        memcpy(dst + i, &h, (size_t)c * 2);
    }
}

INLINE void load_rows_as(float *dst, int64_t ldd, const void *src, int64_t lds,
                         int64_t rows, int64_t n, bool bf)
{
    const int64_t full = n / VL * VL, padded = CPU_ROUND_UP(n);
    for (int64_t r = 0; r < rows; ++r) {
        float *to = dst + r * ldd;
        for (int64_t i = 0; i < full; i += VL)
            store(to + i, load_any(src, r * lds + i, bf));
        for (int64_t i = full; i < padded; i += VL)
            store(to + i,
                  i < n ? load_some(src, r * lds + i, n - i, bf) : (vf){0});
    }
}

void CPU_NAME(cpu_load_rows)(float *dst, int64_t ldd, const void *src,
                             int64_t lds, int64_t rows, int64_t n, bool bf)
{
    if (bf)
        load_rows_as(dst, ldd, src, lds, rows, n, true);
    else
        load_rows_as(dst, ldd, src, lds, rows, n, false);
}

INLINE void axpby_as(void *y, const float *x, float alpha, float beta,
                     int64_t n, bool bf)
{
    /* beta 0 does not read y: it may hold anything, NaN included. */
    if (beta == 0) {
        FOR_VECTORS(i, c, n)
        put(y, i, get(x, i, c, false) * alpha, c, bf);
    } else {
        FOR_VECTORS(i, c, n)
        put(y, i, get(x, i, c, false) * alpha + get(y, i, c, bf) * beta, c, bf);
    }
}

void CPU_NAME(cpu_axpby)(void *y, const float *x, float alpha, float beta,
                         int64_t n, bool bf)
{
    if (bf)
        axpby_as(y, x, alpha, beta, n, true);
    else
        axpby_as(y, x, alpha, beta, n, false);
}

void CPU_NAME(cpu_add)(float *dst, const void *src, int64_t n, bool bf)
{
    if (bf)
        FOR_VECTORS(i, c, n)
    put(dst, i, get(dst, i, c, false) + get(src, i, c, true), c, false);
    else FOR_VECTORS(i, c, n)
        put(dst, i, get(dst, i, c, false) + get(src, i, c, false), c, false);
}

void CPU_NAME(cpu_add_bias)(void *y, const float *b, int64_t n, bool bf)
{
    if (bf)
        FOR_VECTORS(i, c, n)
    put(y, i, get(y, i, c, true) + get(b, i, c, false), c, true);
    else FOR_VECTORS(i, c, n)
        put(y, i, get(y, i, c, false) + get(b, i, c, false), c, false);
}

/* ---- norm ----------------------------------------------------------- */

/* Four partial sums hide the latency of the additions. */
INLINE float square_sum(const void *x, int64_t d, bool bf)
{
    vf s[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VL <= d; i += 4 * VL)
        for (int j = 0; j < 4; ++j) {
            vf v = load_any(x, i + j * VL, bf);
            s[j] += v * v;
        }
    for (; i < d; i += VL) {
        vf v = get(x, i, d - i < VL ? d - i : VL, bf);
        s[0] += v * v;
    }
    return lanes_sum((s[0] + s[1]) + (s[2] + s[3]));
}

INLINE float rmsnorm_as(void *y, const void *x, const float *w, double eps,
                        int64_t d, bool bf)
{
    double mean = (double)square_sum(x, d, bf) / (double)d;
    float rstd = (float)(1.0 / sqrt(mean + eps));
    FOR_VECTORS(i, c, d)
    put(y, i, get(x, i, c, bf) * rstd * get(w, i, c, false), c, bf);
    return rstd;
}

float CPU_NAME(cpu_rmsnorm)(void *y, const void *x, const float *w, double eps,
                            int64_t d, bool bf)
{
    return bf ? rmsnorm_as(y, x, w, eps, d, true)
              : rmsnorm_as(y, x, w, eps, d, false);
}

/* y_j = x_j rstd w_j with rstd = (mean x^2 + eps)^(-1/2), so
 * dx_j = rstd w_j dy_j - x_j rstd^3 (1/d) sum_i w_i dy_i x_i. */
INLINE void rmsnorm_bwd_as(float *dx, const float *dy, const void *x,
                           const float *w, float rstd, int64_t d, bool bf,
                           void *copy)
{
    vf s[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * VL <= d; i += 4 * VL)
        for (int j = 0; j < 4; ++j) {
            int64_t at = i + j * VL;
            s[j] += load(w + at) * load(dy + at) * load_any(x, at, bf);
        }
    for (; i < d; i += VL) {
        int64_t c = d - i < VL ? d - i : VL;
        s[0] += get(w, i, c, false) * get(dy, i, c, false) * get(x, i, c, bf);
    }
    const float all = lanes_sum((s[0] + s[1]) + (s[2] + s[3]));
    float mean = (float)((double)all * (double)rstd / (double)d);
    FOR_VECTORS(j, c, d)
    {
        vf xhat = get(x, j, c, bf) * rstd;
        vf g = get(w, j, c, false) * get(dy, j, c, false) - xhat * mean;
        const vf sum = get(dx, j, c, false) + g * rstd;
        put(dx, j, sum, c, false);
        if (copy)
            put(copy, j, sum, c, bf);
    }
}

void CPU_NAME(cpu_rmsnorm_bwd)(float *dx, const float *dy, const void *x,
                               const float *w, float rstd, int64_t d, bool bf,
                               void *copy)
{
    if (bf)
        rmsnorm_bwd_as(dx, dy, x, w, rstd, d, true, copy);
    else
        rmsnorm_bwd_as(dx, dy, x, w, rstd, d, false, copy);
}

/* ---- rope ----------------------------------------------------------- */

INLINE void rope_as(char *x, const float *cos, const float *sin, int64_t heads,
                    int64_t head_dim, bool inverse, bool bf)
{
    int64_t half = head_dim / 2;
    float sign = inverse ? -1.0f : 1.0f;
    for (int64_t h = 0; h < heads; ++h) {
        char *low = x + h * head_dim * (bf ? 2 : 4);
        char *high = low + half * (bf ? 2 : 4);
        FOR_VECTORS(i, c, half)
        {
            vf a = get(low, i, c, bf), b = get(high, i, c, bf);
            vf co = get(cos, i, c, false), si = get(sin, i, c, false) * sign;
            put(low, i, a * co - b * si, c, bf);
            put(high, i, b * co + a * si, c, bf);
        }
    }
}

void CPU_NAME(cpu_rope)(void *x, const float *cos, const float *sin,
                        int64_t heads, int64_t head_dim, bool inverse, bool bf)
{
    if (bf)
        rope_as(x, cos, sin, heads, head_dim, inverse, true);
    else
        rope_as(x, cos, sin, heads, head_dim, inverse, false);
}

/* ---- SwiGLU --------------------------------------------------------- */

void CPU_NAME(cpu_swiglu)(void *a, const void *g, const void *u, int64_t n,
                          bool bf)
{
    if (bf)
        swiglu_as(a, g, u, n, true);
    else
        swiglu_as(a, g, u, n, false);
}

void CPU_NAME(cpu_swiglu_bwd)(void *g, void *u, const void *da, int64_t n,
                              bool bf)
{
    if (bf)
        swiglu_bwd_as(g, u, da, n, true);
    else
        swiglu_bwd_as(g, u, da, n, false);
}
