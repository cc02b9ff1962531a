/* test_conformance_loss.c - loss, kept entries and optimizer of every backend
 * against the f64 reference. */
#include <stdlib.h>

#include "backend/conform.h"

/* ---- cross-entropy ---------------------------------------------------- */

static const struct xent_case {
    int64_t n, v;
    int pad;
    double scale;
} xent[] = {
    {1, 1000, 0, 5}, {1, 1, 0, 1},      {7, 33, 3, 8},     {64, 130, 2, 5},
    {513, 17, 0, 5}, {5, 49152, 0, 10}, {1100, 40, 5, 20},
};

typedef struct xent_run {
    cf_operand logits, lse, nll, weight, d;
    cf_ints target;
} xent_run;

static xent_run xent_start(conform *c, const struct xent_case *s)
{
    cf_next(c, "n %d V %d", (int)s->n, (int)s->v);
    int32_t target[1100];
    for (int64_t i = 0; i < s->n; i++)
        target[i] = (int32_t)(i == 0 ? (uint64_t)s->v - 1
                                     : base_rng_below(&c->rng, (uint64_t)s->v));
    return (xent_run){.logits =
                          cf_random(c, CF_ACC, s->n, s->v, s->pad, s->scale),
                      .lse = cf_blank(c, CF_ACC, 1, s->n, 0),
                      .nll = cf_blank(c, CF_ACC, 1, s->n, 0),
                      .weight = cf_random(c, CF_ACC, 1, s->n, 0, 2),
                      .target = cf_int32(c, target, s->n)};
}

static void xent_forward(conform *c, xent_run *r)
{
    CF_EACH(i)
    c->be[i]->xent_stats(c->be[i], r->lse.v[i].data, r->nll.v[i].data,
                         r->logits.v[i], r->target.p[i]);
}

CONFORM(xent)
{
    for (size_t t = 0; t < COUNT(xent); t++) {
        const struct xent_case *s = &xent[t];
        xent_run r = xent_start(c, s);
        xent_forward(c, &r);
        cf_check(c, &r.lse, "lse", (double)s->v, 1);
        if (s->v > 1) /* else exactly zero, but for noise */
            cf_check(c, &r.nll, "nll", (double)s->v, 1);
        r.d = cf_blank(c, CF_ACT, s->n, s->v, s->pad);
        CF_EACH(i)
        c->be[i]->xent_grad(c->be[i], r.d.v[i], r.logits.v[i], r.target.p[i],
                            r.lse.v[i].data, r.weight.v[i].data);
        /* p = exp(x - lse) carries the rounding of lse, up to 30 * 2^-24. In
         * bf16 one element, p - 1, may be most of the norm: 4e-3. */
        if (s->v > 1)
            cf_check(c, &r.d, "d", 1, c->be[0]->act == BASE_BF16 ? 2 : 4);
    }
}

/* d in the memory of logits: every row begins where its logits begin. */
CONFORM(xent_grad_in_place)
{
    for (size_t t = 0; t < COUNT(xent); t++) {
        const struct xent_case *s = &xent[t];
        if (s->v == 1)
            continue;
        xent_run r = xent_start(c, s);
        xent_forward(c, &r);
        cf_operand apart = cf_blank(c, CF_ACT, s->n, s->v, 0);
        r.d = r.logits;
        r.d.alias = true;
        CF_EACH(i)
        {
            backend *be = c->be[i];
            r.d.v[i].dtype = be->act;
            r.d.v[i].ld =
                r.logits.v[i].ld * (int64_t)(base_dtype_bytes(be->acc) /
                                             base_dtype_bytes(be->act));
            be->xent_grad(be, apart.v[i], r.logits.v[i], r.target.p[i],
                          r.lse.v[i].data, r.weight.v[i].data);
            be->xent_grad(be, r.d.v[i], r.logits.v[i], r.target.p[i],
                          r.lse.v[i].data, r.weight.v[i].data);
            double *a = cf_values(c, i, &apart), *b = cf_values(c, i, &r.d);
            cr_expect_eq(memcmp(a, b, (size_t)(s->n * s->v) * sizeof *a), 0,
                         "%s, %s: in place differs", c->label, c->what);
            free(a);
            free(b);
        }
    }
}

CONFORM(xent_huge_logits)
{
    enum { V = 40 };
    cf_next(c, "logits of 1e4");
    double x[3 * V];
    for (int j = 0; j < V; j++) {
        x[j] = j == 3 || j == 20 ? 1e4 : -1e4;
        x[V + j] = 1e4;
        x[2 * V + j] = -1e4 - j;
    }
    static const int32_t target[3] = {3, 0, 39};
    static const double one[3] = {1, 1, 1};
    xent_run r = {.logits = cf_from(c, CF_ACC, 3, V, 0, x),
                  .lse = cf_blank(c, CF_ACC, 1, 3, 0),
                  .nll = cf_blank(c, CF_ACC, 1, 3, 0),
                  .weight = cf_from(c, CF_ACC, 1, 3, 0, one),
                  .d = cf_blank(c, CF_ACT, 3, V, 0),
                  .target = cf_int32(c, target, 3)};
    xent_forward(c, &r);
    CF_EACH(i)
    c->be[i]->xent_grad(c->be[i], r.d.v[i], r.logits.v[i], r.target.p[i],
                        r.lse.v[i].data, r.weight.v[i].data);
    double *nll = cf_values(c, CF_TWO, &r.nll), *d = cf_values(c, CF_TWO, &r.d);
    double *nll_ref = cf_values(c, CF_REF, &r.nll);
    double *d_ref = cf_values(c, CF_REF, &r.d);
    /* lse near 1e4 is a multiple of 2^-10 in float: nll (from lse) and p err
     * by up to 2^-11; bf16 adds 2^-9 to a p near one half. */
    for (int i = 0; i < 3; i++)
        cr_expect(fabs(nll[i] - nll_ref[i]) <= 6e-4,
                  "%s: nll %d is %.9g, not "
                  "%.9g",
                  c->label, i, nll[i], nll_ref[i]);
    for (int j = 0; j < 3 * V; j++)
        cr_expect(fabs(d[j] - d_ref[j]) <= 6e-4 + 4e-3 * fabs(d_ref[j]),
                  "%s: d %d is %.9g, not %.9g", c->label, j, d[j], d_ref[j]);
    free(nll);
    free(d);
    free(nll_ref);
    free(d_ref);
}

CONFORM(xent_does_not_hide_what_is_not_finite)
{
    /* At the first column, inside a vector and in the tail. */
    static const int at[3] = {0, 21, 39};
    static const double what[3] = {(double)NAN, (double)INFINITY,
                                   (double)-INFINITY};
    enum { BAD = 9, ROWS = BAD + 1 };
    cf_next(c, "logits that are not finite");
    double x[ROWS * 40], one[ROWS];
    int32_t target[ROWS];
    for (int j = 0; j < ROWS * 40; j++)
        x[j] = j % 9;
    for (int i = 0; i < ROWS; i++) {
        one[i] = 1;
        target[i] = i + 1;
        if (i < BAD)
            x[i * 40 + at[i % 3]] = what[i / 3];
    }
    xent_run r = {.logits = cf_from(c, CF_ACC, ROWS, 40, 0, x),
                  .lse = cf_blank(c, CF_ACC, 1, ROWS, 0),
                  .nll = cf_blank(c, CF_ACC, 1, ROWS, 0),
                  .weight = cf_from(c, CF_ACC, 1, ROWS, 0, one),
                  .d = cf_blank(c, CF_ACT, ROWS, 40, 0),
                  .target = cf_int32(c, target, ROWS)};
    xent_forward(c, &r);
    CF_EACH(i)
    c->be[i]->xent_grad(c->be[i], r.d.v[i], r.logits.v[i], r.target.p[i],
                        r.lse.v[i].data, r.weight.v[i].data);
    double *nll = cf_values(c, CF_TWO, &r.nll), *d = cf_values(c, CF_TWO, &r.d);
    double *lse = cf_values(c, CF_TWO, &r.lse);
    for (int i = 0; i < ROWS; i++) {
        bool want = i < BAD;
        cr_expect_eq(isnan(nll[i]) != 0, want, "%s: nll %d", c->label, i);
        cr_expect_eq(isnan(lse[i]) != 0, want, "%s: lse %d", c->label, i);
        for (int j = 0; j < 40; j++)
            cr_expect_eq(isnan(d[i * 40 + j]) != 0, want, "%s: d %d %d",
                         c->label, i, j);
    }
    free(nll);
    free(lse);
    free(d);
}

/* Whole numbers from a small range: many ties in a row. */
CONFORM(argmax_is_the_first_of_equals)
{
    static const int64_t widths[] = {1, 2, 5, 16, 17, 64, 1000, 49155};
    for (size_t t = 0; t < COUNT(widths); t++) {
        int64_t v = widths[t], n = v > 10000 ? 3 : 33;
        cf_next(c, "V %d", (int)v);
        double *x = base_alloc((size_t)(n * v), sizeof *x);
        for (int64_t j = 0; j < n * v; j++)
            x[j] = (double)base_rng_below(&c->rng, 5) - (double)(j / v % 7);
        cf_operand in = cf_from(c, CF_ACC, n, v, 3, x);
        cf_ints out = cf_int32(c, NULL, n);
        int32_t got[3][33];
        CF_EACH(i)
        {
            backend *be = c->be[i];
            be->argmax(be, out.p[i], in.v[i]);
            be->copy(be, got[i], out.p[i], (size_t)n * 4, BACKEND_TO_HOST);
            cr_assert_eq(be->sync(be, NULL), LORI_OK);
        }
        for (int64_t i = 0; i < n; i++)
            cr_expect(got[CF_TWO][i] == got[CF_REF][i] &&
                          got[CF_ONE][i] == got[CF_REF][i],
                      "%s, %s: row %d: %d, %d, expected %d", c->label, c->what,
                      (int)i, got[CF_TWO][i], got[CF_ONE][i], got[CF_REF][i]);
        free(x);
    }
}

/* ---- kept entries ----------------------------------------------------- */

enum { ROWS = 70 };

typedef struct keep_run {
    backend_keep keep[CF_BACKENDS];
    int64_t kept;
} keep_run;

/* One in three; row 2 is kept whole, row 5 not at all. */
static keep_run keep_start(conform *c, int64_t cols)
{
    keep_run r = {0};
    int64_t words = (cols + 31) / 32, start[ROWS + 1];
    uint32_t *bits = base_alloc((size_t)(ROWS * words), sizeof *bits);
    for (int64_t i = 0; i < ROWS; i++) {
        start[i] = r.kept;
        for (int64_t j = 0; j < cols; j++) {
            bool keep = i == 2 || (i != 5 && base_rng_below(&c->rng, 3) == 0);
            bits[i * words + j / 32] |= (uint32_t)keep << (j % 32);
            r.kept += keep;
        }
    }
    start[ROWS] = r.kept;
    CF_EACH(i)
    {
        uint32_t *b = cf_alloc(c, i, (size_t)(ROWS * words) * sizeof *bits);
        int64_t *s = cf_alloc(c, i, sizeof start);
        cf_upload(c, i, b, bits, (size_t)(ROWS * words) * sizeof *bits);
        cf_upload(c, i, s, start, sizeof start);
        r.keep[i] = (backend_keep){ROWS, cols, r.kept, b, s};
    }
    free(bits);
    return r;
}

CONFORM(keep_gather_and_scatter)
{
    static const int64_t ranks[] = {1, 8, 31, 32, 33, 64, 100};
    for (size_t t = 0; t < COUNT(ranks); t++) {
        for (int all = 0; all < 2; all++) {
            cf_next(c, "rank %d, %s", (int)ranks[t], all ? "all" : "some");
            keep_run r = keep_start(c, ranks[t]);
            int64_t kept = all ? ROWS * ranks[t] : r.kept;
            int pad = t % 2 ? 3 : 0;
            cf_operand g = cf_random(c, CF_ACC, ROWS, ranks[t], pad, 1);
            cf_operand packed = cf_blank(c, CF_ACC, 1, kept, 0);
            cf_operand sum = cf_random(c, CF_ACC, 1, kept, 0, 1);
            cf_operand b = cf_random(c, CF_ACT, ROWS, ranks[t], pad, 1);
            cf_operand wide = cf_random(c, CF_ACC, ROWS, ranks[t], pad, 1);
            double *old = cf_values(c, CF_TWO, &b);
            CF_EACH(i)
            {
                backend *be = c->be[i];
                const backend_keep *k = all ? NULL : &r.keep[i];
                be->keep_gather(be, packed.v[i].data, g.v[i], k, false);
                be->keep_gather(be, sum.v[i].data, g.v[i], k, true);
                be->keep_scatter(be, b.v[i], packed.v[i].data, k);
                be->keep_scatter(be, wide.v[i], packed.v[i].data, k);
            }
            cf_check_exact(c, &packed, "packed");
            cf_check(c, &sum, "accumulated", 1, 1);
            cf_check_exact(c, &wide, "scattered to acc");
            /* To act: kept entries are rounded once, the others keep their
             * bits. */
            double *got = cf_values(c, CF_TWO, &b);
            double *want = cf_values(c, CF_REF, &b);
            for (int64_t j = 0; j < ROWS * ranks[t]; j++)
                cr_expect_eq(got[j], cf_round(c, CF_ACT, want[j]),
                             "%s, %s: entry %d is %.9g", c->label, c->what,
                             (int)j, got[j]);
            free(old);
            free(got);
            free(want);
        }
    }
}

/* ---- optimizer -------------------------------------------------------- */

CONFORM(sqnorm)
{
    static const int64_t sizes[] = {0, 1, 5, 1000, 40000};
    for (size_t t = 0; t < COUNT(sizes); t++) {
        cf_next(c, "n %d", (int)sizes[t]);
        cf_operand x = cf_random(c, CF_ACC, 1, sizes[t], 0, 3);
        double got[CF_BACKENDS];
        CF_EACH(i)
        {
            backend *be = c->be[i];
            double *out = cf_alloc(c, i, sizeof *out);
            be->sqnorm(be, out, x.v[i].data, sizes[t]);
            be->copy(be, &got[i], out, sizeof *out, BACKEND_TO_HOST);
            cr_assert_eq(be->sync(be, NULL), LORI_OK);
        }
        /* A double result; squares may be formed in float. */
        cr_expect(fabs(got[CF_TWO] - got[CF_REF]) <= 1e-6 * got[CF_REF],
                  "%s, %s: %.12g, expected %.12g", c->label, c->what,
                  got[CF_TWO], got[CF_REF]);
        cr_expect_eq(memcmp(&got[CF_TWO], &got[CF_ONE], sizeof *got), 0);
    }
}

CONFORM(adamw)
{
    static const int64_t sizes[] = {1, 7, 1000, 40000};
    for (size_t t = 0; t < COUNT(sizes); t++) {
        cf_next(c, "n %d", (int)sizes[t]);
        int64_t n = sizes[t];
        /* p of the size of its updates, so that their error shows. */
        cf_operand p = cf_random(c, CF_ACC, 1, n, 0, 0.02);
        cf_operand m = cf_random(c, CF_ACC, 1, n, 0, 0);
        cf_operand v = cf_random(c, CF_ACC, 1, n, 0, 0);
        for (int step = 1; step <= 3; step++) {
            cf_operand g = cf_random(c, CF_ACC, 1, n, 0, 1e-3);
            backend_adamw hp = {.lr = 0.01,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.1,
                                .step = step,
                                .grad_scale = 0.3};
            CF_EACH(i)
            c->be[i]->adamw(c->be[i], p.v[i].data, g.v[i].data, m.v[i].data,
                            v.v[i].data, n, &hp);
        }
        cf_check(c, &p, "p", 1, 1);
        cf_check(c, &m, "m", 1, 1);
        cf_check(c, &v, "v", 1, 1);
    }
}

CONFORM(optimizer_does_not_hide_nan)
{
    cf_next(c, "NaN gradient");
    double x[40] = {0};
    x[17] = NAN;
    cf_operand g = cf_from(c, CF_ACC, 1, 40, 0, x);
    cf_operand p = cf_random(c, CF_ACC, 1, 40, 0, 1);
    cf_operand m = cf_random(c, CF_ACC, 1, 40, 0, 0);
    cf_operand v = cf_random(c, CF_ACC, 1, 40, 0, 0);
    backend_adamw hp = {0.01, 0.9, 0.999, 1e-8, 0, 1, 1.0};
    double norm = 0, *out = cf_alloc(c, CF_TWO, sizeof *out);
    backend *be = c->be[CF_TWO];
    be->sqnorm(be, out, g.v[CF_TWO].data, 40);
    be->copy(be, &norm, out, sizeof norm, BACKEND_TO_HOST);
    be->adamw(be, p.v[CF_TWO].data, g.v[CF_TWO].data, m.v[CF_TWO].data,
              v.v[CF_TWO].data, 40, &hp);
    double *got = cf_values(c, CF_TWO, &p);
    cr_expect(isnan(norm), "%s: sqnorm", c->label);
    for (int j = 0; j < 40; j++)
        cr_expect_eq(isnan(got[j]) != 0, j == 17, "%s: p[%d]", c->label, j);
    free(got);
}
