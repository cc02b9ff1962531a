/* cpu_k_glu.h - SwiGLU of vectors and rows of bf16 or float, forward and
 * backward: rows of their own, and the ends of products. Private to isa/ and
 * tile/. Source: Shazeer 2020, arXiv:2002.05202; transformers LlamaMLP. */
#ifndef CPU_K_GLU_H
#define CPU_K_GLU_H

#include "backend/cpu/isa/cpu_vec.h"

/* Below -88 the true value is under 1e-38; the bound keeps the sum finite. */
INLINE vf sigmoid(vf x)
{
    return inverse(1.0f + exp_vf(smaller(splat(88.0f), -x)));
}

/* silu(g) u */
INLINE vf swiglu_of(vf g, vf u)
{
    return g * sigmoid(g) * u;
}

/* a = silu(g) u, silu(g) = g s, s = sigmoid(g):
 * du = da silu(g), dg = da u s (1 + g (1 - s)). In place of g and u. */
INLINE void swiglu_bwd_of(vf *g, vf *u, vf da)
{
    const vf x = *g, y = *u, s = sigmoid(x);
    *g = da * y * s * (1.0f + x * (1.0f - s));
    *u = da * x * s;
}

INLINE void swiglu_as(void *a, const void *g, const void *u, int64_t n, bool bf)
{
    FOR_VECTORS(i, c, n)
    put(a, i, swiglu_of(get(g, i, c, bf), get(u, i, c, bf)), c, bf);
}

INLINE void swiglu_bwd_as(void *g, void *u, const void *da, int64_t n, bool bf)
{
    FOR_VECTORS(i, c, n)
    {
        vf x = get(g, i, c, bf), y = get(u, i, c, bf);
        swiglu_bwd_of(&x, &y, get(da, i, c, bf));
        put(g, i, x, c, bf);
        put(u, i, y, c, bf);
    }
}

#endif
