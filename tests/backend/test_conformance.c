/* test_conformance.c - every backend against the f64 reference: products of
 * matrices and row operations. (Products with weights, attention, loss and
 * optimizer have files of their own.) */
#include <stdlib.h>

#include "backend/conform.h"

/* ---- products --------------------------------------------------------- */

/* m rows, k summed, n columns: into a rank and out of a rank. */
static const struct low_case {
    int64_t m, k, n;
    int pad;
    double alpha, beta;
} low[] = {
    {1, 576, 32, 0, 1, 0},     {1, 32, 576, 0, 2, 1},
    {7, 65, 8, 3, 1.7, 0},     {7, 8, 65, 3, 1.7, 1},
    {64, 100, 33, 0, 0.25, 0}, {64, 33, 100, 5, -2, 1},
    {513, 70, 64, 2, 1, 0},    {513, 64, 70, 0, 0.5, 0.5},
    {1100, 96, 32, 0, 1, 0},   {1100, 32, 96, 4, 3, 1},
    {5, 1, 1, 0, 1, 1},        {12, 2, 3, 1, 1, 0},
};

static void low_rank(conform *c, bool transposed)
{
    for (size_t t = 0; t < COUNT(low); t++) {
        for (int kind = CF_ACT; kind <= CF_ACC; kind++) {
            const struct low_case *s = &low[t];
            cf_next(c, "m %d k %d n %d pad %d alpha %g beta %g to %s",
                    (int)s->m, (int)s->k, (int)s->n, s->pad, s->alpha, s->beta,
                    kind == CF_ACT ? "act" : "acc");
            cf_operand a = cf_random(c, CF_ACT, s->m, s->k, s->pad, 1);
            cf_operand b = transposed
                               ? cf_random(c, CF_ACT, s->n, s->k, s->pad, 1)
                               : cf_random(c, CF_ACT, s->k, s->n, s->pad, 1);
            cf_operand y =
                cf_target(c, (cf_kind)kind, s->m, s->n, s->pad, s->beta);
            CF_EACH(i)
            {
                if (transposed)
                    c->be[i]->gemm_nt(c->be[i], y.v[i], a.v[i], b.v[i],
                                      s->alpha, s->beta);
                else
                    c->be[i]->gemm_nn(c->be[i], y.v[i], a.v[i], b.v[i],
                                      s->alpha, s->beta);
            }
            cf_check(c, &y, "c", (double)s->k, 1);
        }
    }
}

CONFORM(gemm_nt)
{
    low_rank(c, true);
}

CONFORM(gemm_nn)
{
    low_rank(c, false);
}

static void multiply_rows(backend *be, int op, backend_view y, backend_view x,
                          backend_view b, const backend_weight *w,
                          const backend_low *low)
{
    if (op == 0)
        be->gemm_w(be, y, x, w, low, &y);
    else if (op == 1)
        be->gemm_wt(be, y, x, w, low, 0.5);
    else if (op == 2)
        be->gemm_nt(be, y, x, b, 1.7, 0.5);
    else
        be->gemm_nn(be, y, x, b, 1.7, 0.5);
}

/* The same rows of x, and of h of a rank, at once and in pieces. */
static void same_rows(conform *c, int64_t k, int64_t n, int64_t rank, int op,
                      cf_kind kind)
{
    enum { ROWS = 330 };
    static const int64_t pieces[] = {1,  2,  7,  8,  9,  3,  4,   5,
                                     16, 17, 31, 32, 33, 65, ROWS};
    const bool turned = op % 2 == 0; /* b is [n, k] */
    cf_operand x = cf_random(c, CF_ACT, ROWS, k, 3, 1);
    cf_operand whole = cf_random(c, kind, ROWS, n, 0, 1);
    cf_operand parts = cf_blank(c, kind, ROWS, n, 0);
    cf_operand b = cf_random(c, CF_ACT, turned ? n : k, turned ? k : n, 0, 1);
    cf_operand h = cf_random(c, CF_ACT, ROWS, rank, 0, 1);
    cf_operand b2 =
        cf_random(c, CF_ACT, turned ? n : rank, turned ? rank : n, 0, 1);
    for (int i = CF_TWO; i <= CF_ONE; i++) {
        backend *be = c->be[i];
        backend_view y = parts.v[i];
        backend_weight *w = NULL;
        size_t bytes = (size_t)(n * k) * base_dtype_bytes(be->act);
        void *host = base_alloc(bytes, 1);
        be->copy(be, host, b.v[i].data, bytes, BACKEND_TO_HOST);
        cr_assert_eq(be->sync(be, NULL), LORI_OK);
        backend_tensor t = {"w", host, b.v[i].rows, b.v[i].cols, be->act};
        cr_assert_eq(be->weight_open(be, &t, &w, NULL), LORI_OK);
        be->copy(be, y.data, whole.v[i].data,
                 (size_t)(ROWS * n) * base_dtype_bytes(y.dtype),
                 BACKEND_ON_DEVICE);
        multiply_rows(be, op, whole.v[i], x.v[i], b.v[i], w,
                      &(backend_low){h.v[i], b2.v[i]});
        int64_t row = 0;
        for (size_t p = 0; row < ROWS; p++) {
            int64_t m = ROWS - row < pieces[p] ? ROWS - row : pieces[p];
            multiply_rows(
                be, op, backend_rows(y, row, m), backend_rows(x.v[i], row, m),
                b.v[i], w,
                &(backend_low){backend_rows(h.v[i], row, m), b2.v[i]});
            row += m;
        }
        be->weight_close(be, w);
        free(host);
        double *all = cf_values(c, i, &whole), *some = cf_values(c, i, &parts);
        int64_t same = 0;
        while (same < ROWS * n && all[same] == some[same])
            same++;
        cr_expect_eq(same, ROWS * n, "%s, %s: row %d depends on the others",
                     c->label, c->what, (int)(same / n));
        free(all);
        free(some);
    }
}

/* A row's bits do not depend on the rows around it: one token decoded alone, a
 * batch of them and a whole prompt agree. Pieces of few rows, of many, and
 * both sides of the edges between the ways that the CPU multiplies them; long
 * sums are cut along k. Not where cuBLASLt multiplies: it sums in an order of
 * its own for every shape. */
CONFORM(gemm_rows_alone)
{
    static const char *const names[] = {"x W'", "dy W", "a b'", "a b"};
    static const int64_t ranks[] = {0, 8, 33};
    static const struct {
        int64_t k, n;
    } shapes[] = {{1300, 70}, {768, 40}, {130, 1100}, {33, 7}};
    const char *detail = c->be[CF_TWO]->detail;
    if (strstr(detail, "cuBLASLt"))
        return;
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int op = 0; op < 4; op++)
            for (size_t r = 0; r < (op < 2 ? COUNT(ranks) : 1); r++)
                for (int kind = CF_ACT; kind <= CF_ACC; kind++) {
                    cf_next(c, "%s, k %d n %d rank %d to %s", names[op],
                            (int)shapes[s].k, (int)shapes[s].n, (int)ranks[r],
                            kind == CF_ACT ? "act" : "acc");
                    same_rows(c, shapes[s].k, shapes[s].n, ranks[r], op,
                              (cf_kind)kind);
                }
    cf_next(c, "more of a weight than a thread keeps packed");
    same_rows(c, 6000, 384, 8, 0, CF_ACT);
}

CONFORM(gemm_tn)
{
    static const struct {
        int64_t n, p, q;
        int pad;
        double alpha, beta;
    } cases[] = {
        {1, 130, 32, 0, 2, 0},      {7, 33, 8, 3, 1, 1},
        {64, 64, 64, 0, 0.5, 0},    {512, 40, 32, 0, 1, 1},
        {513, 96, 33, 5, 2, 1},     {1100, 130, 32, 0, 2, 0},
        {1100, 32, 200, 2, 1, 0.5}, {600, 400, 208, 0, 2, 1},
        {70, 33, 577, 1, 1, 0},     {3, 1, 1, 0, 1, 0},
    };
    for (size_t t = 0; t < COUNT(cases); t++) {
        cf_next(c, "n %d p %d q %d pad %d", (int)cases[t].n, (int)cases[t].p,
                (int)cases[t].q, cases[t].pad);
        int pad = cases[t].pad;
        cf_operand x = cf_random(c, CF_ACT, cases[t].n, cases[t].p, pad, 1);
        cf_operand y = cf_random(c, CF_ACT, cases[t].n, cases[t].q, pad, 1);
        cf_operand g =
            cf_target(c, CF_ACC, cases[t].p, cases[t].q, pad, cases[t].beta);
        CF_EACH(i)
        c->be[i]->gemm_tn(c->be[i], g.v[i], x.v[i], y.v[i], cases[t].alpha,
                          cases[t].beta);
        cf_check(c, &g, "c", (double)cases[t].n, 1);
    }
}

/* Adding the blocks of 512 one call at a time is the same sum in the same
 * order: gradients do not depend on how tokens are split at block edges. */
CONFORM(gemm_tn_in_blocks)
{
    cf_next(c, "1100 tokens in blocks");
    cf_operand x = cf_random(c, CF_ACT, 1100, 40, 0, 1);
    cf_operand y = cf_random(c, CF_ACT, 1100, 32, 0, 1);
    cf_operand whole = cf_blank(c, CF_ACC, 40, 32, 0);
    cf_operand parts = cf_blank(c, CF_ACC, 40, 32, 0);
    CF_EACH(i)
    {
        backend *be = c->be[i];
        be->gemm_tn(be, whole.v[i], x.v[i], y.v[i], 1, 0);
        for (int64_t at = 0; at < 1100; at += BACKEND_TOKEN_BLOCK) {
            int64_t n = 1100 - at < BACKEND_TOKEN_BLOCK ? 1100 - at
                                                        : BACKEND_TOKEN_BLOCK;
            be->gemm_tn(be, parts.v[i], backend_rows(x.v[i], at, n),
                        backend_rows(y.v[i], at, n), 1, at ? 1 : 0);
        }
        double *a = cf_values(c, i, &whole), *b = cf_values(c, i, &parts);
        double diff = 0, sum = 0;
        for (int t = 0; t < 40 * 32; t++) {
            diff += (a[t] - b[t]) * (a[t] - b[t]);
            sum += a[t] * a[t];
        }
        /* Two more roundings of the sum than the whole call, at most. */
        cr_expect(sqrt(diff / sum) <= 2e-7, "%s: %g", c->label,
                  sqrt(diff / sum));
        free(a);
        free(b);
    }
}

CONFORM(no_rows)
{
    cf_next(c, "no tokens");
    cf_weight w = cf_weights(c, 40, 24, BASE_F32);
    cf_operand x = cf_random(c, CF_ACT, 0, 24, 0, 1);
    cf_operand y = cf_random(c, CF_ACT, 0, 40, 0, 1);
    cf_operand l = cf_random(c, CF_ACC, 0, 40, 0, 1);
    cf_operand g = cf_random(c, CF_ACC, 24, 40, 0, 1);
    cf_operand v = cf_random(c, CF_ACC, 1, 40, 0, 1);
    cf_ints ids = cf_int32(c, NULL, 1);
    CF_EACH(i)
    {
        backend *be = c->be[i];
        be->gemm_w(be, y.v[i], x.v[i], w.p[i], NULL, NULL);
        be->gemm_wt(be, x.v[i], y.v[i], w.p[i], NULL, 1);
        be->embed(be, x.v[i], w.p[i], ids.p[i]);
        be->rmsnorm(be, y.v[i], NULL, y.v[i], v.v[i].data, 1e-5);
        be->swiglu(be, y.v[i], y.v[i], y.v[i]);
        be->xent_stats(be, v.v[i].data, v.v[i].data, l.v[i], ids.p[i]);
        be->argmax(be, ids.p[i], l.v[i]);
        be->gemm_tn(be, g.v[i], x.v[i], y.v[i], 1, 0.5);
    }
    cf_check(c, &g, "a sum over no tokens is beta times the old value", 1, 1);
}

/* ---- embedding, bias -------------------------------------------------- */

CONFORM(embed)
{
    static const base_dtype stored[] = {BASE_F16, BASE_BF16, BASE_F32};
    static const int32_t ids[9] = {0, 96, 5, 5, 17, 1, 95, 0, 50};
    for (size_t t = 0; t < 3; t++) {
        cf_next(c, "W %s", base_dtype_name(stored[t]));
        cf_weight w = cf_weights(c, 97, 33, stored[t]);
        cf_operand y = cf_blank(c, CF_ACT, 9, 33, 4);
        cf_ints at = cf_int32(c, ids, 9);
        CF_EACH(i) c->be[i]->embed(c->be[i], y.v[i], w.p[i], at.p[i]);
        cf_check_exact(c, &y, "y");
    }
}

static const struct row_case {
    int64_t n, d;
    int pad;
} rows[] = {
    {1, 576, 0}, {1, 1, 0},    {7, 33, 3},    {64, 130, 0},
    {5, 7, 2},   {513, 48, 5}, {1100, 64, 0},
};

CONFORM(add_bias)
{
    for (size_t t = 0; t < COUNT(rows); t++) {
        cf_next(c, "[%d, %d]", (int)rows[t].n, (int)rows[t].d);
        cf_operand y =
            cf_random(c, CF_ACT, rows[t].n, rows[t].d, rows[t].pad, 1);
        cf_operand b = cf_random(c, CF_ACC, 1, rows[t].d, 0, 1);
        CF_EACH(i) c->be[i]->add_bias(c->be[i], y.v[i], b.v[i].data);
        cf_check(c, &y, "y", 1, 1);
    }
}

/* ---- rows ------------------------------------------------------------- */

/* Rows of very different size, so that eps matters in some. */
static cf_operand norm_input(conform *c, const struct row_case *s)
{
    double *x = base_alloc((size_t)(s->n * s->d), sizeof *x);
    for (int64_t i = 0; i < s->n * s->d; i++)
        x[i] = pow(10, (double)(i / s->d % 5) - 3) *
               (2 * base_rng_uniform(&c->rng) - 1);
    cf_operand o = cf_from(c, CF_ACT, s->n, s->d, s->pad, x);
    free(x);
    return o;
}

CONFORM(rmsnorm)
{
    for (size_t t = 0; t < COUNT(rows); t++) {
        const struct row_case *s = &rows[t];
        cf_next(c, "[%d, %d]", (int)s->n, (int)s->d);
        cf_operand x = norm_input(c, s);
        cf_operand w = cf_random(c, CF_ACC, 1, s->d, 0, 2);
        cf_operand y = cf_blank(c, CF_ACT, s->n, s->d, s->pad);
        cf_operand rstd = cf_blank(c, CF_ACC, s->n, 1, 0);
        CF_EACH(i)
        c->be[i]->rmsnorm(c->be[i], y.v[i], rstd.v[i].data, x.v[i], w.v[i].data,
                          1e-5);
        cf_check(c, &y, "y", (double)s->d, 1);
        cf_check(c, &rstd, "rstd", (double)s->d, 1);
        CF_EACH(i)
        c->be[i]->rmsnorm(c->be[i], y.v[i], NULL, x.v[i], w.v[i].data, 1e-2);
        cf_check(c, &y, "y without rstd", (double)s->d, 1);
    }
}

CONFORM(rmsnorm_bwd)
{
    for (size_t t = 0; t < COUNT(rows); t++) {
        const struct row_case *s = &rows[t];
        cf_next(c, "[%d, %d]", (int)s->n, (int)s->d);
        cf_operand x = cf_random(c, CF_ACT, s->n, s->d, s->pad, 1);
        cf_operand w = cf_random(c, CF_ACC, 1, s->d, 0, 2);
        cf_operand dy = cf_random(c, CF_ACC, s->n, s->d, s->pad, 1);
        cf_operand dx = cf_random(c, CF_ACC, s->n, s->d, s->pad, 1);
        cf_operand rstd = cf_random(c, CF_ACC, s->n, 1, 0, 2);
        cf_operand copy = cf_blank(c, CF_ACT, s->n, s->d, s->pad);
        CF_EACH(i)
        c->be[i]->rmsnorm_bwd(c->be[i], dx.v[i], dy.v[i], x.v[i], w.v[i].data,
                              rstd.v[i].data, &copy.v[i]);
        cf_check(c, &dx, "dx", (double)s->d, 1);
        cf_check(c, &copy, "copy", (double)s->d, 1);
        CF_EACH(i)
        c->be[i]->rmsnorm_bwd(c->be[i], dx.v[i], dy.v[i], x.v[i], w.v[i].data,
                              rstd.v[i].data, NULL);
        cf_check(c, &dx, "dx once more", (double)s->d, 2);
    }
}

CONFORM(rope)
{
    static const struct {
        int64_t n, heads;
        int head_dim, pad;
    } cases[] = {{1, 9, 64, 0},
                 {7, 3, 10, 5},
                 {64, 2, 6, 0},
                 {513, 1, 2, 3},
                 {33, 4, 128, 0}};
    enum { N_POS = 300 };
    for (size_t t = 0; t < COUNT(cases); t++) {
        int64_t n = cases[t].n, width = cases[t].heads * cases[t].head_dim;
        int half = cases[t].head_dim / 2;
        cf_next(c, "n %d heads %d D %d", (int)n, (int)cases[t].heads, half * 2);
        double *table = base_alloc((size_t)(2 * N_POS * half), sizeof *table);
        for (int p = 0; p < N_POS * half; p++) {
            double angle = p / half * pow(100, -(double)(p % half) / half);
            table[p] = cos(angle);
            table[N_POS * half + p] = sin(angle);
        }
        int32_t pos[513];
        for (int64_t i = 0; i < n; i++)
            pos[i] = (int32_t)(i * 37 % N_POS);
        cf_operand co = cf_from(c, CF_ACC, N_POS, half, 0, table);
        cf_operand si =
            cf_from(c, CF_ACC, N_POS, half, 0, table + N_POS * half);
        cf_operand x = cf_random(c, CF_ACT, n, width, cases[t].pad, 1);
        cf_operand y = cf_random(c, CF_ACT, n, width, cases[t].pad, 1);
        cf_ints at = cf_int32(c, pos, n);
        CF_EACH(i)
        {
            c->be[i]->rope(c->be[i], x.v[i], at.p[i], co.v[i].data,
                           si.v[i].data, 2 * half, false);
            c->be[i]->rope(c->be[i], y.v[i], at.p[i], co.v[i].data,
                           si.v[i].data, 2 * half, true);
        }
        cf_check(c, &x, "turned", 2, 1);
        cf_check(c, &y, "turned back", 2, 1);
        free(table);
    }
}

CONFORM(swiglu)
{
    for (size_t t = 0; t < COUNT(rows); t++) {
        const struct row_case *s = &rows[t];
        cf_next(c, "[%d, %d]", (int)s->n, (int)s->d);
        cf_operand g = cf_random(c, CF_ACT, s->n, s->d, s->pad, 6);
        cf_operand u = cf_random(c, CF_ACT, s->n, s->d, s->pad, 2);
        cf_operand a = cf_blank(c, CF_ACT, s->n, s->d, s->pad);
        cf_operand da = cf_random(c, CF_ACT, s->n, s->d, s->pad, 1);
        CF_EACH(i) c->be[i]->swiglu(c->be[i], a.v[i], g.v[i], u.v[i]);
        cf_check(c, &a, "a", 1, 1);
        CF_EACH(i) c->be[i]->swiglu_bwd(c->be[i], g.v[i], u.v[i], da.v[i]);
        cf_check(c, &g, "dg", 1, 1);
        cf_check(c, &u, "du", 1, 1);
    }
}

/* exp overflows and underflows; the results do neither. */
CONFORM(swiglu_far_from_zero)
{
    static const double x[] = {-1e6, -1e4, -104, -100, -90, -88,  -87.5,
                               -80,  -20,  0,    20,   80,  87.5, 88,
                               90,   100,  104,  1e4,  1e6};
    cf_next(c, "g from -1e6 to 1e6");
    double one[COUNT(x)];
    for (size_t j = 0; j < COUNT(x); j++)
        one[j] = 1;
    cf_operand g = cf_from(c, CF_ACT, 1, COUNT(x), 0, x);
    cf_operand u = cf_from(c, CF_ACT, 1, COUNT(x), 0, one);
    cf_operand a = cf_blank(c, CF_ACT, 1, COUNT(x), 0);
    CF_EACH(i) c->be[i]->swiglu(c->be[i], a.v[i], g.v[i], u.v[i]);
    CF_EACH(i) c->be[i]->swiglu_bwd(c->be[i], g.v[i], u.v[i], u.v[i]);
    cf_operand *results[3] = {&a, &g, &u};
    for (int r = 0; r < 3; r++) {
        double *got = cf_values(c, CF_TWO, results[r]);
        double *want = cf_values(c, CF_REF, results[r]);
        for (size_t j = 0; j < COUNT(x); j++)
            cr_expect(fabs(got[j] - want[j]) <= 4e-3 * fabs(want[j]) + 1e-30,
                      "%s: %s at g = %g is %g, expected %g", c->label,
                      r == 0   ? "a"
                      : r == 1 ? "dg"
                               : "du",
                      x[j], got[j], want[j]);
        free(got);
        free(want);
    }
}

CONFORM(cast_and_add)
{
    for (size_t t = 0; t < COUNT(rows); t++) {
        const struct row_case *s = &rows[t];
        for (int k = 0; k < 4; k++) {
            cf_kind from = (cf_kind)(k & 1), to = (cf_kind)(k >> 1);
            cf_next(c, "[%d, %d] %d to %d", (int)s->n, (int)s->d, from, to);
            cf_operand x = cf_random(c, from, s->n, s->d, s->pad, 1);
            cf_operand y = cf_blank(c, to, s->n, s->d, s->pad);
            CF_EACH(i) c->be[i]->cast(c->be[i], y.v[i], x.v[i]);
            cf_check(c, &y, "cast", 1, 1);
            if (to != CF_ACC)
                continue;
            cf_operand z = cf_random(c, CF_ACC, s->n, s->d, s->pad, 1);
            CF_EACH(i) c->be[i]->add(c->be[i], z.v[i], x.v[i]);
            cf_check(c, &z, "sum", 1, 1);
        }
    }
}

/* Ties to even, overflow to infinity, NaN kept: bit by bit. */
CONFORM(cast_rounds_to_nearest_even)
{
    static const double x[] = {1.00390625,
                               1.01171875,
                               -1.00390625,
                               1.003906369,
                               3.3895e38,
                               3.4e38,
                               -3.4e38,
                               1e-40,
                               -0.0,
                               0,
                               (double)INFINITY,
                               (double)-INFINITY,
                               (double)NAN,
                               (double)-NAN,
                               5.877e-39,
                               1.17549435e-38,
                               7,
                               -8.03125,
                               0.1,
                               1e-3};
    cf_next(c, "special values");
    cf_operand a = cf_from(c, CF_ACC, 1, COUNT(x), 0, x);
    cf_operand b = cf_blank(c, CF_ACT, 1, COUNT(x), 0);
    CF_EACH(i) c->be[i]->cast(c->be[i], b.v[i], a.v[i]);
    double *got = cf_values(c, CF_TWO, &b);
    for (size_t j = 0; j < COUNT(x); j++) {
        double want = cf_round(c, CF_ACT, (float)x[j]);
        cr_expect((isnan(want) && isnan(got[j])) || got[j] == want,
                  "%s: %.9g became %.9g, not %.9g", c->label, x[j], got[j],
                  want);
    }
    free(got);
}

CONFORM(gather_and_scatter_rows)
{
    static const int32_t index[5] = {6, 0, 3, 5, 1};
    for (int k = 0; k < 2; k++) {
        cf_next(c, "%s", k ? "acc" : "act");
        cf_operand src = cf_random(c, (cf_kind)k, 7, 33, 3, 1);
        cf_operand dst = cf_blank(c, (cf_kind)k, 5, 33, 1);
        cf_operand back = cf_random(c, (cf_kind)k, 7, 33, 2, 1);
        cf_ints at = cf_int32(c, index, 5);
        CF_EACH(i)
        {
            c->be[i]->gather_rows(c->be[i], dst.v[i], src.v[i], at.p[i]);
            c->be[i]->scatter_rows(c->be[i], back.v[i], dst.v[i], at.p[i]);
        }
        cf_check_exact(c, &dst, "gathered");
        cf_check_exact(c, &back, "scattered");
    }
}

/* ---- not a number ----------------------------------------------------- */

static void expect_nan(conform *c, const cf_operand *o, const char *name,
                       int64_t r, bool whole_row)
{
    double *got = cf_values(c, CF_TWO, o);
    int64_t cols = o->v[0].cols, nan = 0, elsewhere = 0;
    for (int64_t i = 0; i < o->v[0].rows * cols; i++) {
        nan += i / cols == r && isnan(got[i]);
        elsewhere += i / cols != r && isnan(got[i]);
    }
    cr_expect(whole_row ? nan == cols : nan >= 1, "%s: %s hides a NaN",
              c->label, name);
    cr_expect_eq(elsewhere, 0, "%s: %s spreads a NaN to other rows", c->label,
                 name);
    free(got);
}

/* A NaN in one row comes out of that row, and only of that row. */
CONFORM(nan_is_not_hidden)
{
    enum { N = 11, D = 40 };
    cf_next(c, "one NaN");
    double x[N * D], one[D];
    for (int i = 0; i < N * D; i++)
        x[i] = (i % 7) - 3;
    for (int i = 0; i < D; i++)
        one[i] = 1;
    x[4 * D + 9] = NAN;
    cf_operand in = cf_from(c, CF_ACT, N, D, 0, x);
    cf_operand in_acc = cf_from(c, CF_ACC, N, D, 0, x);
    cf_operand other = cf_random(c, CF_ACT, N, D, 0, 1);
    cf_operand low_a = cf_random(c, CF_ACT, 8, D, 0, 1);
    cf_operand w = cf_from(c, CF_ACC, 1, D, 0, one);
    cf_operand y = cf_blank(c, CF_ACT, N, 32, 0);
    cf_operand h = cf_blank(c, CF_ACT, N, 8, 0);
    cf_operand norm = cf_blank(c, CF_ACT, N, D, 0);
    cf_operand glu = cf_blank(c, CF_ACT, N, D, 0);
    cf_operand copy = cf_blank(c, CF_ACC, N, D, 0);
    cf_operand back = cf_blank(c, CF_ACT, N, D, 0);
    cf_operand sum = cf_random(c, CF_ACC, N, D, 0, 1);
    cf_operand tn = cf_blank(c, CF_ACC, D, 8, 0);
    cf_weight wt = cf_weights(c, 32, D, BASE_F32);
    CF_EACH(i)
    {
        backend *be = c->be[i];
        be->gemm_w(be, y.v[i], in.v[i], wt.p[i], NULL, NULL);
        be->gemm_nt(be, h.v[i], in.v[i], low_a.v[i], 1, 0);
        be->rmsnorm(be, norm.v[i], NULL, in.v[i], w.v[i].data, 1e-5);
        be->swiglu(be, glu.v[i], in.v[i], other.v[i]);
        be->cast(be, copy.v[i], in.v[i]);
        be->cast(be, back.v[i], in_acc.v[i]);
        be->add(be, sum.v[i], in.v[i]);
        be->gemm_tn(be, tn.v[i], in.v[i], backend_cols(other.v[i], 0, 8), 1, 0);
    }
    expect_nan(c, &y, "gemm_w", 4, true);
    expect_nan(c, &h, "gemm_nt", 4, true);
    expect_nan(c, &norm, "rmsnorm", 4, true);
    expect_nan(c, &glu, "swiglu", 4, false);
    expect_nan(c, &copy, "cast to acc", 4, false);
    expect_nan(c, &back, "cast to act", 4, false);
    expect_nan(c, &sum, "add", 4, false);
    expect_nan(c, &tn, "gemm_tn", 9, true);
}
