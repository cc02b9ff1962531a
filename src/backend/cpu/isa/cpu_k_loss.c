/* cpu_k_loss.c - kernels of the loss and of the optimizer, all over floats. */
#include "backend/cpu/isa/cpu_k.h"

INLINE vf tail_or(const float *x, int64_t i, int64_t count, float rest)
{
    vf v = splat(rest);
    memcpy(&v, x + i, (size_t)count * 4);
    return v;
}

/* The larger magnitudes, as bits. */
INLINE vu larger_bits(vu most, vf x)
{
    const vu size = (vu)x & 0x7fffffffU;
#if VL == 16
    return (vu)_mm512_max_epu32((__m512i)size, (__m512i)most);
#elif VL == 8
    return (vu)_mm256_max_epu32((__m256i)size, (__m256i)most);
#else
    return (vu)pick((vi)size > (vi)most, (vf)size, (vf)most);
#endif
}

/* What is not finite has at least infinity's bits. */
double CPU_NAME(cpu_logsum)(const float *x, int64_t n, float *max)
{
    vf top = splat(-INFINITY);
    vu most = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        const vf v = load(x + i);
        top = larger(v, top);
        most = larger_bits(most, v);
    }
    if (i < n) {
        top = larger(tail_or(x, i, n - i, -INFINITY), top);
        most = larger_bits(most, tail_or(x, i, n - i, 0));
    }
    float m = lanes_max(top);
    *max = m;
    for (int j = 0; j < VL; ++j)
        if (most[j] >= 0x7f800000U)
            return (double)NAN;
    /* Blocks in float, their sum in double: V may be 256k. */
    double sum = 0;
    for (i = 0; i < n;) {
        vf s[2] = {{0}};
        int64_t end = i + 4096 < n ? i + 4096 : n;
        for (; i + 2 * VL <= end; i += 2 * VL) {
            s[0] += exp_vf(load(x + i) - m);
            s[1] += exp_vf(load(x + i + VL) - m);
        }
        for (; i < end; i += VL) {
            int64_t c = end - i < VL ? end - i : VL;
            s[0] += exp_vf(tail_or(x, i, c, -INFINITY) - m);
        }
        i = end;
        sum += (double)lanes_sum(s[0] + s[1]);
    }
    return log(sum);
}

/* d may be the memory of x, row starts equal: element i of d then lies at or
 * before element i of x, and every vector is read before it is written. */
INLINE void xent_grad_as(void *d, const float *x, float lse, float weight,
                         int64_t target, int64_t n, bool bf)
{
    float at_target = x[target];
    FOR_VECTORS(i, c, n)
    put(d, i, exp_vf(get(x, i, c, false) - lse) * weight, c, bf);
    vf v = (exp_vf(splat(at_target) - lse) - 1.0f) * weight;
    store_some(d, target, v, 1, bf);
}

void CPU_NAME(cpu_xent_grad)(void *d, const float *x, float lse, float weight,
                             int64_t target, int64_t n, bool bf)
{
    if (bf)
        xent_grad_as(d, x, lse, weight, target, n, true);
    else
        xent_grad_as(d, x, lse, weight, target, n, false);
}

/* The first of the largest: the largest value first, then where it first is.
 * NaNs are passed over; a row of nothing else gives 0. */
int64_t CPU_NAME(cpu_argmax)(const float *x, int64_t n)
{
    vf top = splat(-INFINITY);
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        top = larger(load(x + i), top);
    if (i < n)
        top = larger(tail_or(x, i, n - i, -INFINITY), top);
    float m = lanes_max(top);
    for (i = 0; i < n; ++i)
        if (x[i] == m)
            return i;
    return 0;
}

double CPU_NAME(cpu_sqnorm)(const float *x, int64_t n)
{
    typedef double vd __attribute__((vector_size(VL * 8)));
    vd s = {0};
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vd v = __builtin_convertvector(load(x + i), vd);
        s += v * v;
    }
    double sum = 0;
    for (int j = 0; j < VL; ++j)
        sum += s[j];
    for (; i < n; ++i)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

INLINE vf root(vf x)
{
#if VL == 16
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif VL == 8
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    return (vf)_mm_sqrt_ps((__m128)x);
#endif
}

void CPU_NAME(cpu_adamw)(float *p, const float *g, float *m, float *v,
                         int64_t n, const cpu_adamw_step *s)
{
    FOR_VECTORS(i, c, n)
    {
        vf grad = get(g, i, c, false) * s->grad_scale;
        vf m1 = get(m, i, c, false) * s->beta1 + grad * s->left1;
        vf v1 = get(v, i, c, false) * s->beta2 + grad * grad * s->left2;
        vf below = root(v1) * s->root + s->eps;
        put(m, i, m1, c, false);
        put(v, i, v1, c, false);
        put(p, i, get(p, i, c, false) * s->decay - m1 / below * s->step, c,
            false);
    }
}
