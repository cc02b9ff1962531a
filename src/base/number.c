/* number.c - element types, half precisions, and the FNV-1a hash. Conversions
 * round to nearest even once. Includes base.h and libc. */
#include <math.h>

#include "base/base.h"

static const struct {
    const char *name;
    size_t bytes;
} dtypes[BASE_DTYPES] = {
    [BASE_BOOL] = {"BOOL", 1}, [BASE_U8] = {"U8", 1},   [BASE_I8] = {"I8", 1},
    [BASE_U16] = {"U16", 2},   [BASE_I16] = {"I16", 2}, [BASE_F16] = {"F16", 2},
    [BASE_BF16] = {"BF16", 2}, [BASE_U32] = {"U32", 4}, [BASE_I32] = {"I32", 4},
    [BASE_F32] = {"F32", 4},   [BASE_U64] = {"U64", 8}, [BASE_I64] = {"I64", 8},
    [BASE_F64] = {"F64", 8},
};

size_t base_dtype_bytes(base_dtype dtype)
{
    return (unsigned)dtype < BASE_DTYPES ? dtypes[dtype].bytes : 0;
}

const char *base_dtype_name(base_dtype dtype)
{
    return (unsigned)dtype < BASE_DTYPES ? dtypes[dtype].name : "?";
}

bool base_dtype_parse(const char *name, size_t n, base_dtype *out)
{
    for (int i = 0; i < BASE_DTYPES; i++) {
        if (strlen(dtypes[i].name) == n &&
            memcmp(dtypes[i].name, name, n) == 0) {
            *out = (base_dtype)i;
            return true;
        }
    }
    return false;
}

uint16_t base_f64_to_bf16(double x)
{
    float f = (float)x;
    if (isnan(x) || (double)f == x)
        return base_f32_to_bf16(f);
    /* Round to odd: take the float next to x toward zero and set its last bit.
     * It then stands on the same side of every bf16 midpoint as x does, so the
     * second rounding cannot go wrong (Boldo and Melquiond 2008). */
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    u -= fabs((double)f) > fabs(x); /* the next toward zero */
    u |= 1U;
    memcpy(&f, &u, sizeof f);
    return base_f32_to_bf16(f);
}

float base_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t exponent = (h >> 10) & 0x1fU, mantissa = h & 0x3ffU;
    uint32_t u;
    if (exponent == 0) {
        float f = (float)mantissa * 0x1p-24F;
        return sign ? -f : f;
    }
    if (exponent == 31)
        u = sign | 0x7f800000U | (mantissa << 13) |
            (mantissa ? 0x00400000U : 0);
    else
        u = sign | ((exponent + 112) << 23) | (mantissa << 13);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t base_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000U);
    u &= 0x7fffffffU;
    if (u > 0x7f800000U)
        return (uint16_t)(sign | 0x7e00U | ((u >> 13) & 0x3ffU));
    if (u >= 0x477ff000U) /* 65520, halfway to the first value out of range */
        return (uint16_t)(sign | 0x7c00U);
    if (u < 0x38800000U) { /* below 2^-14: subnormal or zero */
        float a;
        memcpy(&a, &u, sizeof a);
        /* Adding 1/2 leaves units of 2^-24 in the sum's last bit, rounded to
         * nearest even by the addition itself. */
        a += 0.5F;
        memcpy(&u, &a, sizeof u);
        return (uint16_t)(sign | (u - 0x3f000000U));
    }
    u += 0xfffU + ((u >> 13) & 1U);
    return (uint16_t)(sign | ((u - 0x38000000U) >> 13));
}

void base_to_f32(const void *src, base_dtype dtype, float *dst, size_t n)
{
    const unsigned char *p = src;
    switch (dtype) {
    case BASE_F32:
        if (n)
            memmove(dst, src, n * sizeof *dst);
        break;
    case BASE_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + 2 * i, sizeof h);
            dst[i] = base_f16_to_f32(h);
        }
        break;
    case BASE_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, p + 2 * i, sizeof h);
            dst[i] = base_bf16_to_f32(h);
        }
        break;
    case BASE_F64:
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, p + 8 * i, sizeof d);
            dst[i] = (float)d;
        }
        break;
    default: /* a programmer's error: the caller checks the type */
        for (size_t i = 0; i < n; i++)
            dst[i] = NAN;
        break;
    }
}

void base_from_f32(const float *src, void *dst, base_dtype dtype, size_t n)
{
    unsigned char *p = dst;
    switch (dtype) {
    case BASE_F32:
        if (n)
            memmove(dst, src, n * sizeof *src);
        break;
    case BASE_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h = base_f32_to_f16(src[i]);
            memcpy(p + 2 * i, &h, sizeof h);
        }
        break;
    case BASE_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h = base_f32_to_bf16(src[i]);
            memcpy(p + 2 * i, &h, sizeof h);
        }
        break;
    case BASE_F64:
        for (size_t i = 0; i < n; i++) {
            double d = (double)src[i];
            memcpy(p + 8 * i, &d, sizeof d);
        }
        break;
    default: /* a programmer's error: the caller checks the type */
        memset(dst, 0xff, n * base_dtype_bytes(dtype));
        break;
    }
}

uint64_t base_fnv1a(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3ULL;
    return hash;
}
