/* convert.c - the tensors of a checkpoint as the type that a backend computes
 * in: F32 or BF16. May include base and backend.h. */
#include <math.h>

#include "backend/backend.h"

static bool is_finite_as(const void *p, base_dtype dtype, int64_t i)
{
    if (dtype == BASE_F64)
        return isfinite(((const double *)p)[i]);
    float x;
    base_to_f32((const char *)p + (size_t)i * base_dtype_bytes(dtype), dtype,
                &x, 1);
    return isfinite(x);
}

/* Converts entries [at, at + n); returns the first finite one that became
 * infinite, or -1. */
static int64_t convert_part(const backend_tensor *t, base_dtype act, void *out,
                            int64_t at, int64_t n)
{
    float part[1024];
    const char *src =
        (const char *)t->data + (size_t)at * base_dtype_bytes(t->dtype);
    for (int64_t i = 0; i < n; i += 1024) {
        int64_t c = n - i < 1024 ? n - i : 1024;
        base_to_f32(src + (size_t)i * base_dtype_bytes(t->dtype), t->dtype,
                    part, (size_t)c);
        if (act == BASE_BF16) {
            uint16_t *to = (uint16_t *)out + at + i;
            for (int64_t j = 0; j < c; ++j)
                to[j] = t->dtype == BASE_F64
                            ? base_f64_to_bf16(
                                  ((const double *)t->data)[at + i + j])
                            : base_f32_to_bf16(part[j]);
            base_to_f32(to, BASE_BF16, part, (size_t)c);
        } else {
            memcpy((float *)out + at + i, part, (size_t)c * 4);
        }
        for (int64_t j = 0; j < c; ++j)
            if (!isfinite(part[j]) &&
                is_finite_as(t->data, t->dtype, at + i + j))
                return at + i + j;
    }
    return -1;
}

lori_status backend_convert(const backend_tensor *t, base_dtype act,
                            int n_threads, void *out, lori_error *err)
{
    const int64_t total = t->rows * t->cols, part = 65536;
    int64_t bad = INT64_MAX;
#pragma omp parallel for num_threads(n_threads) reduction(min                  \
                                                          : bad)               \
    schedule(static)
    for (int64_t at = 0; at < total; at += part) {
        int64_t n = total - at < part ? total - at : part;
        int64_t found = convert_part(t, act, out, at, n);
        if (found >= 0 && found < bad)
            bad = found;
    }
    if (bad != INT64_MAX)
        return base_fail(err, LORI_NUMERIC,
                         "tensor '%s': the %s entry at [%lld, %lld] is too "
                         "large for %s; choose another dtype",
                         t->name ? t->name : "?", base_dtype_name(t->dtype),
                         (long long)(bad / t->cols), (long long)(bad % t->cols),
                         base_dtype_name(act));
    return LORI_OK;
}
