/* fd.h - central differences and small helpers for the tests of `ref`.
 *
 * The f64 reference keeps device memory in host memory, so these tests use
 * plain arrays of double as operands. */
#ifndef TESTS_BACKEND_FD_H
#define TESTS_BACKEND_FD_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "backend/backend.h"

/* With step h = 1e-5 the truncation error of a central difference is about
 * h^2 f''' = 1e-10 and its rounding error about 2^-53 |f| / h = 1e-10 for |f|
 * near 10. 1e-6 leaves four orders of magnitude; a wrong term of a formula
 * moves the gradient by more than 1e-3. */
#define FD_STEP 1e-5
#define FD_TOL  1e-6

static inline backend *fd_open(base_dtype dtype)
{
    backend_options options = {.name = "ref", .dtype = dtype, .n_threads = 2};
    backend *be = NULL;
    lori_error err = {0};
    cr_assert_eq(backend_open(&options, &be, &err), LORI_OK, "%s", err.message);
    return be;
}

/* Reports a pending failure of the backend and closes it. */
static inline void fd_close(backend *be)
{
    lori_error err = {0};
    cr_assert_eq(be->sync(be, &err), LORI_OK, "%s", err.message);
    backend_close(be);
}

static inline double *fd_zeros(int64_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);
    cr_assert_not_null(x);
    return x;
}

/* n values in (-scale, scale); the same for the same seed. */
static inline double *fd_random(int64_t n, uint64_t seed, double scale)
{
    double *x = fd_zeros(n);
    base_rng rng;
    base_rng_start(&rng, seed, 7);
    for (int64_t i = 0; i < n; i++)
        x[i] = scale * (2.0 * base_rng_uniform(&rng) - 1.0);
    return x;
}

static inline double *fd_copy(const double *x, int64_t n)
{
    double *y = fd_zeros(n);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

static inline backend_view fd_view(double *x, int64_t rows, int64_t cols)
{
    return backend_matrix(x, BASE_F64, rows, cols);
}

static inline double fd_dot(const double *a, const double *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* ||a - b|| / ||b||; infinite when anything is NaN. */
static inline double fd_error(const double *a, const double *b, int64_t n)
{
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        s += b[i] * b[i];
    }
    double e = s > 0 ? sqrt(d / s) : sqrt(d);
    return isnan(e) ? (double)INFINITY : e;
}

/* ||difference quotient - grad|| / ||grad|| for the scalar f of x[0..n). */
static inline double fd_check(double (*f)(void *context), void *context,
                              double *x, int64_t n, const double *grad)
{
    double *quotient = fd_zeros(n);
    for (int64_t i = 0; i < n; i++) {
        double old = x[i];
        x[i] = old + FD_STEP;
        double up = f(context);
        x[i] = old - FD_STEP;
        double down = f(context);
        x[i] = old;
        quotient[i] = (up - down) / (2 * FD_STEP);
    }
    double e = fd_error(quotient, grad, n);
    free(quotient);
    return e;
}

#endif
