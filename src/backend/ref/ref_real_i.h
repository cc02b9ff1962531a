/* ref_real_i.h - what the files compiled twice share (REF_REAL=32 or 64): the
 * stored type, operand checks and the few helpers every operation uses. */
#ifndef BACKEND_REF_REAL_I_H
#define BACKEND_REF_REAL_I_H

#include <math.h>

#include "backend/ref/ref_i.h"

#if REF_REAL == 32
typedef float real;
#define REF_NAME(name) name##_f32
#elif REF_REAL == 64
typedef double real;
#define REF_NAME(name) name##_f64
#else
#error "REF_REAL is 32 or 64"
#endif

#define N_VIEWS(...)                                                           \
    (sizeof((backend_view[]){__VA_ARGS__}) / sizeof(backend_view))
#define FITS(be, op, fits, ...)                                                \
    ref_fits(be, op, fits, (backend_view[]){__VA_ARGS__},                      \
             (int)N_VIEWS(__VA_ARGS__))

/* Below this many multiplications a parallel region costs more than it
 * saves. */
#define WORTH_THREADS 100000

static inline real *row(backend_view v, int64_t i)
{
    return (real *)v.data + i * v.ld;
}

static inline bool same_shape(backend_view a, backend_view b)
{
    return a.rows == b.rows && a.cols == b.cols;
}

/* Four partial sums: a single chain would wait for every addition. */
static inline double dot(const real *a, const real *b, int64_t n)
{
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int64_t k = 0;
    for (; k + 4 <= n; k += 4) {
        s0 += (double)a[k] * (double)b[k];
        s1 += (double)a[k + 1] * (double)b[k + 1];
        s2 += (double)a[k + 2] * (double)b[k + 2];
        s3 += (double)a[k + 3] * (double)b[k + 3];
    }
    for (; k < n; k++)
        s0 += (double)a[k] * (double)b[k];
    return (s0 + s1) + (s2 + s3);
}

/* With beta 0 the old value is not read: it may be anything. */
static inline void put(real *c, double sum, double beta)
{
    *c = (real)(beta == 0.0 ? sum : sum + beta * (double)*c);
}

#endif
