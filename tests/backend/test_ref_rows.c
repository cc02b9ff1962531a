/* test_ref_rows.c - row operations of the reference against their formulas and
 * their backward against central differences. */
#include "backend/fd.h"

/* ---- rmsnorm ---------------------------------------------------------- */

typedef struct norm_case {
    backend *be;
    int64_t n, d;
    double *x, *w, *y, *rstd, *dy;
} norm_case;

static double norm_loss(void *context)
{
    norm_case *c = context;
    c->be->rmsnorm(c->be, fd_view(c->y, c->n, c->d), c->rstd,
                   fd_view(c->x, c->n, c->d), c->w, 1e-3);
    return fd_dot(c->y, c->dy, c->n * c->d);
}

static norm_case norm_new(int64_t n, int64_t d)
{
    return (norm_case){.be = fd_open(BASE_F64),
                       .n = n,
                       .d = d,
                       .x = fd_random(n * d, 1, 0.3),
                       .w = fd_random(d, 2, 2.0),
                       .dy = fd_random(n * d, 3, 1.0),
                       .y = fd_zeros(n * d),
                       .rstd = fd_zeros(n)};
}

static void norm_free(norm_case *c)
{
    fd_close(c->be);
    free(c->x);
    free(c->w);
    free(c->y);
    free(c->rstd);
    free(c->dy);
}

Test(ref_rows, rmsnorm_forward)
{
    norm_case c = norm_new(3, 13);
    norm_loss(&c);
    for (int64_t i = 0; i < c.n; i++) {
        const double *x = c.x + i * c.d;
        double r = 1 / sqrt(fd_dot(x, x, c.d) / 13.0 + 1e-3);
        /* Two orders of one sum of 13 terms in double. */
        cr_assert_float_eq(c.rstd[i], r, 1e-13 * r);
        for (int64_t j = 0; j < c.d; j++)
            cr_assert_float_eq(c.y[i * c.d + j], x[j] * r * c.w[j], 1e-12);
    }
    norm_free(&c);
}

Test(ref_rows, rmsnorm_backward_adds_the_gradient)
{
    norm_case c = norm_new(3, 13);
    norm_loss(&c);
    double *dx = fd_random(c.n * c.d, 9, 1.0);
    double *start = fd_copy(dx, c.n * c.d);
    c.be->rmsnorm_bwd(c.be, fd_view(dx, c.n, c.d), fd_view(c.dy, c.n, c.d),
                      fd_view(c.x, c.n, c.d), c.w, c.rstd, NULL);
    for (int64_t i = 0; i < c.n * c.d; i++)
        dx[i] -= start[i];
    double e = fd_check(norm_loss, &c, c.x, c.n * c.d, dx);
    cr_assert(e <= FD_TOL, "relative error %g", e);
    free(dx);
    free(start);
    norm_free(&c);
}

Test(ref_rows, rmsnorm_without_rstd)
{
    norm_case c = norm_new(2, 8);
    norm_loss(&c);
    double *y = fd_zeros(16);
    c.be->rmsnorm(c.be, fd_view(y, 2, 8), NULL, fd_view(c.x, 2, 8), c.w, 1e-3);
    cr_assert_eq(memcmp(y, c.y, 16 * sizeof *y), 0);
    free(y);
    norm_free(&c);
}

/* ---- rope ------------------------------------------------------------- */

static void rope_tables(double *cos_t, double *sin_t, int64_t n_pos,
                        int64_t half)
{
    for (int64_t p = 0; p < n_pos; p++) {
        for (int64_t j = 0; j < half; j++) {
            double angle = (double)p * pow(100.0, -(double)j / (double)half);
            cos_t[p * half + j] = cos(angle);
            sin_t[p * half + j] = sin(angle);
        }
    }
}

/* The pairing is (j, j + D/2), not (2j, 2j+1), and a turn is by +angle: a unit
 * vector e_j becomes cos e_j + sin e_{j + D/2}. */
Test(ref_rows, rope_turns_half_split_pairs)
{
    backend *be = fd_open(BASE_F64);
    enum { D = 6, HALF = 3, HEADS = 2 };
    double cos_t[5 * HALF], sin_t[5 * HALF];
    rope_tables(cos_t, sin_t, 5, HALF);
    int32_t pos[1] = {4};
    for (int j = 0; j < D * HEADS; j++) {
        double x[D * HEADS] = {0};
        x[j] = 1;
        be->rope(be, fd_view(x, 1, D * HEADS), pos, cos_t, sin_t, D, false);
        int pair = j % D % HALF, head = j / D;
        double c = cos_t[4 * HALF + pair], s = sin_t[4 * HALF + pair];
        bool low = j % D < HALF;
        cr_assert_float_eq(x[head * D + pair], low ? c : -s, 1e-15);
        cr_assert_float_eq(x[head * D + pair + HALF], low ? s : c, 1e-15);
        double norm = fd_dot(x, x, D * HEADS);
        cr_assert_float_eq(norm, 1.0, 1e-14, "another head was touched");
    }
    fd_close(be);
}

Test(ref_rows, rope_inverse_undoes_it_at_any_position)
{
    backend *be = fd_open(BASE_F64);
    enum { N = 4, D = 10, HEADS = 3, W = D * HEADS };
    double cos_t[200 * D / 2], sin_t[200 * D / 2];
    rope_tables(cos_t, sin_t, 200, D / 2);
    int32_t pos[N] = {0, 199, 7, 7};
    double *x = fd_random(N * W, 5, 1.0), *start = fd_copy(x, N * W);
    be->rope(be, fd_view(x, N, W), pos, cos_t, sin_t, D, false);
    cr_assert(fd_error(x, start, W) < 1e-15, "position 0 turns nothing");
    cr_assert(fd_error(x + W, start + W, W) > 0.1, "position 199 turns");
    be->rope(be, fd_view(x, N, W), pos, cos_t, sin_t, D, true);
    /* Two rotations, each rounded twice per element. */
    cr_assert(fd_error(x, start, N * W) < 1e-14);
    free(x);
    free(start);
    fd_close(be);
}

/* ---- swiglu ----------------------------------------------------------- */

typedef struct glu_case {
    backend *be;
    int64_t n, f;
    double *g, *u, *a, *da;
} glu_case;

static double glu_loss(void *context)
{
    glu_case *c = context;
    c->be->swiglu(c->be, fd_view(c->a, c->n, c->f), fd_view(c->g, c->n, c->f),
                  fd_view(c->u, c->n, c->f));
    return fd_dot(c->a, c->da, c->n * c->f);
}

Test(ref_rows, swiglu_and_its_backward)
{
    enum { N = 3, F = 7 };
    glu_case c = {.be = fd_open(BASE_F64),
                  .n = N,
                  .f = F,
                  .g = fd_random(N * F, 1, 4.0),
                  .u = fd_random(N * F, 2, 2.0),
                  .da = fd_random(N * F, 3, 1.0),
                  .a = fd_zeros(N * F)};
    glu_loss(&c);
    for (int i = 0; i < N * F; i++) {
        double silu = c.g[i] / (1 + exp(-c.g[i]));
        cr_assert_float_eq(c.a[i], silu * c.u[i], 1e-14);
    }
    double *dg = fd_copy(c.g, N * F), *du = fd_copy(c.u, N * F);
    c.be->swiglu_bwd(c.be, fd_view(dg, N, F), fd_view(du, N, F),
                     fd_view(c.da, N, F));
    double eg = fd_check(glu_loss, &c, c.g, N * F, dg);
    double eu = fd_check(glu_loss, &c, c.u, N * F, du);
    cr_assert(eg <= FD_TOL && eu <= FD_TOL, "dg %g, du %g", eg, eu);
    fd_close(c.be);
    free(c.g);
    free(c.u);
    free(c.a);
    free(c.da);
    free(dg);
    free(du);
}

/* exp(-g) overflows for g = -1e3: silu must be -0, not NaN. */
Test(ref_rows, swiglu_far_from_zero)
{
    backend *be = fd_open(BASE_F64);
    double g[2] = {-1e3, 1e3}, u[2] = {1, 1}, a[2], da[2] = {1, 1};
    be->swiglu(be, fd_view(a, 1, 2), fd_view(g, 1, 2), fd_view(u, 1, 2));
    cr_assert(a[0] == 0.0 && a[1] == 1e3);
    be->swiglu_bwd(be, fd_view(g, 1, 2), fd_view(u, 1, 2), fd_view(da, 1, 2));
    cr_assert(g[0] == 0.0 && g[1] == 1.0 && u[0] == 0.0 && u[1] == 1e3);
    fd_close(be);
}

/* ---- moving rows ------------------------------------------------------ */

Test(ref_rows, gather_then_scatter_moves_whole_rows)
{
    backend *be = fd_open(BASE_F64);
    enum { N = 6, D = 5 };
    double *src = fd_random(N * (D + 2), 1, 1.0), picked[3 * D] = {0};
    backend_view table = fd_view(src, N, D);
    table.ld = D + 2;
    int32_t index[3] = {4, 0, 5};
    be->gather_rows(be, fd_view(picked, 3, D), table, index);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(
            memcmp(picked + i * D, src + index[i] * (D + 2), D * sizeof *src),
            0);
    double back[N * D];
    for (int i = 0; i < N * D; i++)
        back[i] = -7;
    be->scatter_rows(be, fd_view(back, N, D), fd_view(picked, 3, D), index);
    for (int i = 0; i < N; i++) {
        bool moved = i == 4 || i == 0 || i == 5;
        for (int j = 0; j < D; j++)
            cr_assert_eq(back[i * D + j], moved ? src[i * (D + 2) + j] : -7);
    }
    free(src);
    fd_close(be);
}

Test(ref_rows, add_and_bias_and_cast_keep_to_their_columns)
{
    backend *be = fd_open(BASE_F64);
    enum { N = 3, D = 4, LD = 7 };
    double y[N * LD], x[N * D], b[D] = {1, 2, 3, 4};
    for (int i = 0; i < N * LD; i++)
        y[i] = 100;
    for (int i = 0; i < N * D; i++)
        x[i] = i;
    backend_view part = {y + 2, N, D, LD, BASE_F64};
    be->cast(be, part, fd_view(x, N, D));
    be->add(be, part, fd_view(x, N, D));
    be->add_bias(be, part, b);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < LD; j++) {
            bool inside = j >= 2 && j < 2 + D;
            double want = inside ? 2.0 * (i * D + j - 2) + b[j - 2] : 100;
            cr_assert_eq(y[i * LD + j], want);
        }
    }
    fd_close(be);
}
