/* test_ref_linear.c - products of matrices and weights of the reference
 * against three plain loops. */
#include "backend/fd.h"

/* Double sums of fewer than 2,000 terms of size one in two different orders:
 * far below 1e-12, and a missing or doubled term is above 1e-4. */
#define SUM_TOL 1e-12

/* c = alpha op(a) op(b) + beta c, with op by strides. */
static void plain(double *c, const double *a, int64_t ai, int64_t ak,
                  const double *b, int64_t bk, int64_t bj, int64_t m, int64_t n,
                  int64_t k, double alpha, double beta)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t t = 0; t < k; t++)
                s += a[i * ai + t * ak] * b[t * bk + j * bj];
            c[i * n + j] = alpha * s + (beta == 0 ? 0 : beta * c[i * n + j]);
        }
    }
}

typedef struct size3 {
    int64_t m, n, k;
} size3;
static const size3 sizes[] = {{1, 1, 1}, {3, 5, 2}, {7, 130, 65}, {65, 3, 129}};

Test(ref_linear, products_equal_plain_loops)
{
    backend *be = fd_open(BASE_F64);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t m = sizes[s].m, n = sizes[s].n, k = sizes[s].k;
        double *a = fd_random(m * k, 1, 1), *b = fd_random(n * k, 2, 1);
        double *c0 = fd_random(m * n, 3, 1), *want = fd_copy(c0, m * n);
        double *c = fd_copy(c0, m * n);
        plain(want, a, k, 1, b, 1, k, m, n, k, 0.5, 2.0);
        be->gemm_nt(be, fd_view(c, m, n), fd_view(a, m, k), fd_view(b, n, k),
                    0.5, 2.0);
        cr_assert(fd_error(c, want, m * n) < SUM_TOL, "nt, size %zu", s);
        memcpy(want, c0, (size_t)(m * n) * sizeof *c);
        memcpy(c, c0, (size_t)(m * n) * sizeof *c);
        plain(want, a, k, 1, b, n, 1, m, n, k, -3.0, 1.0);
        be->gemm_nn(be, fd_view(c, m, n), fd_view(a, m, k), fd_view(b, k, n),
                    -3.0, 1.0);
        cr_assert(fd_error(c, want, m * n) < SUM_TOL, "nn, size %zu", s);
        free(a);
        free(b);
        free(c);
        free(c0);
        free(want);
    }
    fd_close(be);
}

/* Token counts on both sides of the block of 512. */
Test(ref_linear, gemm_tn_sums_every_token_once)
{
    static const int64_t tokens[] = {1, 511, 512, 513, 1100};
    backend *be = fd_open(BASE_F64);
    enum { P = 5, Q = 67 };
    for (size_t s = 0; s < 5; s++) {
        int64_t n = tokens[s];
        double *x = fd_random(n * P, 1, 1), *y = fd_random(n * Q, 2, 1);
        double *c = fd_random(P * Q, 3, 1), *want = fd_copy(c, P * Q);
        plain(want, x, 1, P, y, Q, 1, P, Q, n, 2.0, 0.5);
        be->gemm_tn(be, fd_view(c, P, Q), fd_view(x, n, P), fd_view(y, n, Q),
                    2.0, 0.5);
        cr_assert(fd_error(c, want, P * Q) < SUM_TOL, "%d tokens", (int)n);
        free(x);
        free(y);
        free(c);
        free(want);
    }
    fd_close(be);
}

Test(ref_linear, beta_zero_does_not_read_the_old_value)
{
    backend *be = fd_open(BASE_F64);
    double a[2] = {1, 2}, b[2] = {3, 4}, c[1] = {NAN};
    backend_view va = fd_view(a, 1, 2), vb = fd_view(b, 1, 2);
    be->gemm_nt(be, fd_view(c, 1, 1), va, vb, 1, 0);
    cr_assert_eq(c[0], 11);
    c[0] = NAN;
    be->gemm_nn(be, fd_view(c, 1, 1), va, fd_view(b, 2, 1), 1, 0);
    cr_assert_eq(c[0], 11);
    c[0] = NAN;
    be->gemm_tn(be, fd_view(c, 1, 1), fd_view(a, 2, 1), fd_view(b, 2, 1), 1, 0);
    cr_assert_eq(c[0], 11);
    fd_close(be);
}

/* <dy, x W^T> = <dy W, x>: gemm_wt is the backward of gemm_w. */
Test(ref_linear, gemm_wt_is_the_adjoint_of_gemm_w)
{
    backend *be = fd_open(BASE_F64);
    enum { N = 5, IN = 70, OUT = 33 };
    double *w = fd_random(OUT * IN, 1, 1), *x = fd_random(N * IN, 2, 1);
    double *dy = fd_random(N * OUT, 3, 1), *y = fd_zeros(N * OUT);
    double *dx = fd_zeros(N * IN), *want = fd_zeros(N * OUT);
    backend_tensor t = {"w", w, OUT, IN, BASE_F64};
    backend_weight *bw = NULL;
    cr_assert_eq(be->weight_open(be, &t, &bw, NULL), LORI_OK);
    be->weight_acquire(be, &bw, 1);
    const backend_view out = fd_view(y, N, OUT);
    be->gemm_w(be, out, fd_view(x, N, IN), bw, NULL, NULL);
    be->gemm_wt(be, fd_view(dx, N, IN), fd_view(dy, N, OUT), bw, NULL, 0);
    be->weight_release(be, &bw, 1);
    plain(want, x, IN, 1, w, 1, IN, N, OUT, IN, 1, 0);
    cr_assert(fd_error(y, want, N * OUT) < SUM_TOL);
    double left = fd_dot(dy, y, N * OUT), right = fd_dot(dx, x, N * IN);
    cr_assert_float_eq(left, right, 1e-10 * fabs(left));
    be->gemm_w(be, out, fd_view(x, N, IN), bw, NULL, &out);
    for (int i = 0; i < N * OUT; i++)
        want[i] *= 2;
    cr_assert(fd_error(y, want, N * OUT) < SUM_TOL, "what is there is added");
    be->weight_close(be, bw);
    fd_close(be);
    free(w);
    free(x);
    free(dy);
    free(y);
    free(dx);
    free(want);
}

/* ---- weights ---------------------------------------------------------- */

/* The same small numbers in four types, at an odd address as in a mapped
 * file, read back through embed. */
Test(ref_linear, weights_of_every_type_at_any_address)
{
    static const float values[6] = {1.5F, -0.25F, 0, 3, -96, 0.0625F};
    static const base_dtype types[] = {BASE_F16, BASE_BF16, BASE_F32, BASE_F64};
    backend *be = fd_open(BASE_F64), *be32 = fd_open(BASE_F32);
    for (size_t t = 0; t < 4; t++) {
        unsigned char bytes[6 * 8 + 1], typed[6 * 8];
        for (int i = 0; i < 6 && types[t] == BASE_F64; i++) {
            double d = values[i];
            memcpy(typed + 8 * i, &d, 8);
        }
        if (types[t] != BASE_F64)
            base_from_f32(values, typed, types[t], 6);
        memcpy(bytes + 1, typed, 6 * base_dtype_bytes(types[t]));
        backend_tensor tensor = {"t", bytes + 1, 3, 2, types[t]};
        int32_t ids[3] = {2, 0, 1};
        backend_weight *w = NULL, *w32 = NULL;
        cr_assert_eq(be->weight_open(be, &tensor, &w, NULL), LORI_OK);
        cr_assert_eq(be32->weight_open(be32, &tensor, &w32, NULL), LORI_OK);
        double y[6];
        float y32[6];
        be->embed(be, fd_view(y, 3, 2), w, ids);
        be32->embed(be32, backend_matrix(y32, BASE_F32, 3, 2), w32, ids);
        for (int i = 0; i < 6; i++) {
            cr_assert_eq(y[i], (double)values[ids[i / 2] * 2 + i % 2]);
            cr_assert_eq(y32[i], values[ids[i / 2] * 2 + i % 2]);
        }
        be->weight_close(be, w);
        be32->weight_close(be32, w32);
    }
    fd_close(be);
    fd_close(be32);
}

Test(ref_linear, weights_that_cannot_be_represented_are_refused)
{
    backend *be = fd_open(BASE_F32);
    double big[2] = {1, 1e200}, inf[2] = {(double)INFINITY, (double)NAN};
    backend_tensor t = {"blk.0", big, 1, 2, BASE_F64};
    backend_weight *w = (backend_weight *)1;
    lori_error err = {0};
    cr_assert_eq(be->weight_open(be, &t, &w, &err), LORI_NUMERIC);
    cr_assert_null(w);
    cr_assert(strstr(err.message, "blk.0") && strstr(err.message, "1e+200"),
              "%s", err.message);
    t.data = inf;
    cr_assert_eq(be->weight_open(be, &t, &w, &err), LORI_OK);
    be->weight_close(be, w);
    be->weight_close(be, NULL);
    t.dtype = BASE_I32;
    cr_assert_eq(be->weight_open(be, &t, &w, &err), LORI_UNSUPPORTED);
    fd_close(be);
}

/* ---- the sticky error ------------------------------------------------- */

Test(ref_linear, a_wrong_shape_is_kept_until_sync)
{
    backend *be = fd_open(BASE_F64);
    double a[6] = {1, 1, 1, 1, 1, 1}, c[4] = {5, 5, 5, 5};
    be->gemm_nt(be, fd_view(c, 2, 2), fd_view(a, 2, 3), fd_view(a, 2, 2), 1, 0);
    cr_assert_eq(c[0], 5, "a wrong call writes nothing");
    be->zero(be, c, sizeof c);
    cr_assert_eq(c[0], 5, "nothing runs after a failure");
    be->embed(be, fd_view(c, 2, 2), NULL, NULL);
    lori_error err = {0};
    cr_assert_eq(be->sync(be, &err), LORI_DEVICE);
    cr_assert(strstr(err.message, "gemm_nt") && strstr(err.message, "[2, 3]"),
              "%s", err.message);
    cr_assert_eq(be->sync(be, &err), LORI_OK, "reported once");
    be->zero(be, c, sizeof c);
    cr_assert_eq(c[0], 0, "works again");
    backend_view wrong = backend_matrix(c, BASE_F32, 2, 2);
    be->add(be, wrong, wrong);
    cr_assert_eq(be->sync(be, NULL), LORI_DEVICE, "a wrong dtype");
    backend_close(be);
}

Test(ref_linear, an_id_outside_the_table_is_an_error_not_a_read)
{
    backend *be = fd_open(BASE_F64);
    double w[4] = {1, 2, 3, 4}, y[2] = {0, 0};
    backend_tensor t = {"w", w, 2, 2, BASE_F64};
    backend_weight *bw = NULL;
    cr_assert_eq(be->weight_open(be, &t, &bw, NULL), LORI_OK);
    int32_t bad[2] = {2, -1};
    for (int i = 0; i < 2; i++) {
        be->embed(be, fd_view(y, 1, 2), bw, bad + i);
        cr_assert_eq(be->sync(be, NULL), LORI_DEVICE);
    }
    be->weight_close(be, bw);
    fd_close(be);
}
