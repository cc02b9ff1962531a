/* convert.c - the tensors of a checkpoint as the type that a backend computes
 * in: F32 or BF16. May include base and backend.h. */
#include <math.h>

#include "backend/backend.h"
#include "backend/team.h"

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

enum { PART = 65536 };

/* What backend_convert() gives its threads. */
typedef struct conversion {
    const backend_tensor *t;
    base_dtype act;
    void *out;
    int64_t total;
    backend_tasks parts;
    _Atomic int64_t bad; /* the first entry that became infinite */
} conversion;

static void convert_parts(void *context, int thread, int n)
{
    (void)thread;
    (void)n;
    conversion *c = context;
    int64_t i;
    while (backend_take(&c->parts, &i)) {
        const int64_t at = i * PART, left = c->total - at;
        const int64_t found =
            convert_part(c->t, c->act, c->out, at, left < PART ? left : PART);
        int64_t before = c->bad;
        while (found >= 0 && found < before &&
               !atomic_compare_exchange_weak(&c->bad, &before, found))
            ;
    }
}

lori_status backend_convert(backend *be, const backend_tensor *t, void *out,
                            lori_error *err)
{
    const base_dtype act = be->act;
    conversion c = {.t = t,
                    .act = act,
                    .out = out,
                    .total = t->rows * t->cols,
                    .bad = INT64_MAX};
    c.parts.count = (c.total + PART - 1) / PART;
    backend_team_run(be->team, be->n_threads, convert_parts, &c);
    const int64_t bad = c.bad;
    if (bad != INT64_MAX)
        return base_fail(err, LORI_NUMERIC,
                         "tensor '%s': the %s entry at [%lld, %lld] is too "
                         "large for %s; choose another dtype",
                         t->name ? t->name : "?", base_dtype_name(t->dtype),
                         (long long)(bad / t->cols), (long long)(bad % t->cols),
                         base_dtype_name(act));
    return LORI_OK;
}
