/* test_ref_loss.c - cross-entropy, argmax, kept entries and AdamW of the
 * reference. */
#include "backend/fd.h"

/* ---- cross-entropy ---------------------------------------------------- */

typedef struct xent_case {
    backend *be;
    int64_t n, v;
    double *logits, lse[8], nll[8], weight[8];
    int32_t target[8];
} xent_case;

static double xent_loss(void *context)
{
    xent_case *c = context;
    c->be->xent_stats(c->be, c->lse, c->nll, fd_view(c->logits, c->n, c->v),
                      c->target);
    return fd_dot(c->nll, c->weight, c->n);
}

static xent_case xent_new(void)
{
    return (xent_case){.be = fd_open(BASE_F64),
                       .n = 4,
                       .v = 11,
                       .logits = fd_random(4 * 11, 1, 4.0),
                       .weight = {1, 0.25, 0, -2},
                       .target = {0, 10, 3, 3}};
}

Test(ref_loss, xent_stats_equal_their_definition)
{
    xent_case c = xent_new();
    xent_loss(&c);
    for (int64_t i = 0; i < c.n; i++) {
        const double *x = c.logits + i * c.v;
        double sum = 0;
        for (int64_t j = 0; j < c.v; j++)
            sum += exp(x[j]);
        cr_assert_float_eq(c.lse[i], log(sum), 1e-14);
        cr_assert_float_eq(c.nll[i], log(sum) - x[c.target[i]], 1e-14);
    }
    free(c.logits);
    fd_close(c.be);
}

Test(ref_loss, xent_grad_equals_central_differences)
{
    xent_case c = xent_new();
    xent_loss(&c);
    double *d = fd_zeros(c.n * c.v);
    c.be->xent_grad(c.be, fd_view(d, c.n, c.v), fd_view(c.logits, c.n, c.v),
                    c.target, c.lse, c.weight);
    double e = fd_check(xent_loss, &c, c.logits, c.n * c.v, d);
    cr_assert(e <= FD_TOL, "relative error %g", e);
    xent_loss(&c);
    for (int64_t j = 0; j < c.v; j++)
        cr_assert_eq(d[2 * c.v + j], 0, "a row of weight 0");
    c.be->xent_grad(c.be, fd_view(c.logits, c.n, c.v),
                    fd_view(c.logits, c.n, c.v), c.target, c.lse, c.weight);
    cr_assert_eq(memcmp(d, c.logits, (size_t)(c.n * c.v) * sizeof *d), 0,
                 "in place");
    free(d);
    free(c.logits);
    fd_close(c.be);
}

Test(ref_loss, xent_of_huge_logits_and_of_nan)
{
    backend *be = fd_open(BASE_F64);
    double x[6] = {1e4, -1e4, 1e4, -1e4, NAN, 0}, lse[2], nll[2];
    double w[2] = {1, 1}, d[6];
    int32_t target[2] = {1, 2};
    be->xent_stats(be, lse, nll, fd_view(x, 2, 3), target);
    cr_assert_float_eq(lse[0], 1e4 + log(2.0), 1e-11);
    cr_assert_float_eq(nll[0], 2e4 + log(2.0), 1e-11);
    cr_assert(isnan(nll[1]));
    double low[3] = {0, (double)-INFINITY, 1};
    be->xent_stats(be, lse + 1, nll + 1, fd_view(low, 1, 3), target);
    cr_assert(isnan(lse[1]) && isnan(nll[1]));
    be->xent_grad(be, fd_view(d, 2, 3), fd_view(x, 2, 3), target, lse, w);
    /* exp(1e4 - lse) carries the rounding of lse near 1e4: 1e-12. */
    cr_assert_float_eq(d[0], 0.5, 1e-11);
    cr_assert_float_eq(d[1], -1.0, 1e-11);
    cr_assert(isnan(d[4]));
    fd_close(be);
}

Test(ref_loss, a_target_outside_the_vocabulary_is_an_error)
{
    backend *be = fd_open(BASE_F64);
    double x[3] = {0}, lse[1], nll[1];
    int32_t bad[2] = {3, -100};
    for (int i = 0; i < 2; i++) {
        be->xent_stats(be, lse, nll, fd_view(x, 1, 3), bad + i);
        cr_assert_eq(be->sync(be, NULL), LORI_DEVICE);
    }
    fd_close(be);
}

Test(ref_loss, argmax_is_the_first_of_equals)
{
    backend *be = fd_open(BASE_F64);
    double x[] = {1, 3, 3, 3, -5, -2, -9, -2, 4, 4, 4, 4};
    int32_t out[3];
    be->argmax(be, out, fd_view(x, 3, 4));
    cr_assert(out[0] == 1 && out[1] == 1 && out[2] == 0);
    fd_close(be);
}

/* ---- kept entries ----------------------------------------------------- */

enum { ROWS = 9 };

/* Keeps roughly a third, with one full and one empty row. */
static backend_keep keep_new(int64_t cols, uint32_t **bits, int64_t **start)
{
    int64_t words = (cols + 31) / 32;
    *bits = calloc((size_t)(ROWS * words), sizeof **bits);
    *start = calloc(ROWS + 1, sizeof **start);
    base_rng rng;
    base_rng_start(&rng, 3, (uint64_t)cols);
    int64_t kept = 0;
    for (int64_t i = 0; i < ROWS; i++) {
        (*start)[i] = kept;
        for (int64_t j = 0; j < cols; j++) {
            bool keep = i == 2 || (i != 5 && base_rng_below(&rng, 3) == 0);
            (*bits)[i * words + j / 32] |= (uint32_t)keep << (j % 32);
            kept += keep;
        }
    }
    (*start)[ROWS] = kept;
    return (backend_keep){ROWS, cols, kept, *bits, *start};
}

Test(ref_keep, gather_and_scatter_round_trip)
{
    static const int64_t ranks[] = {8, 32, 33, 64};
    backend *be = fd_open(BASE_F64);
    for (int c = 0; c < 4; c++) {
        int64_t r = ranks[c], ld = r + 3;
        uint32_t *bits;
        int64_t *start;
        backend_keep keep = keep_new(r, &bits, &start);
        double *dense = fd_random(ROWS * ld, 1, 1);
        double *other = fd_random(ROWS * ld, 2, 1);
        double *before = fd_copy(other, ROWS * ld);
        double *packed = fd_random(keep.kept, 3, 1);
        double *old = fd_copy(packed, keep.kept);
        backend_view vd = {dense, ROWS, r, ld, BASE_F64}, vo = vd;
        vo.data = other;
        be->keep_gather(be, packed, vd, &keep, true);
        for (int64_t t = 0; t < keep.kept; t++)
            old[t] = packed[t] - old[t];
        be->keep_gather(be, packed, vd, &keep, false);
        cr_assert(fd_error(old, packed, keep.kept) < 1e-14, "accumulates");
        be->keep_scatter(be, vo, packed, &keep);
        int64_t at = 0;
        for (int64_t i = 0; i < ROWS; i++) {
            for (int64_t j = 0; j < ld; j++) {
                bool in = j < r &&
                          (bits[i * ((r + 31) / 32) + j / 32] >> (j % 32) & 1);
                const double *want = in ? dense : before;
                cr_assert_eq(other[i * ld + j], want[i * ld + j]);
                if (in)
                    cr_assert_eq(packed[at++], dense[i * ld + j]);
            }
        }
        cr_assert_eq(at, keep.kept);
        free(bits);
        free(start);
        free(dense);
        free(other);
        free(before);
        free(packed);
        free(old);
    }
    fd_close(be);
}

Test(ref_keep, no_keep_means_every_entry)
{
    backend *be = fd_open(BASE_F64);
    double dense[2 * 5], packed[6], back[6];
    for (int i = 0; i < 10; i++)
        dense[i] = i;
    backend_view v = {dense, 2, 3, 5, BASE_F64};
    be->keep_gather(be, packed, v, NULL, false);
    double want[6] = {0, 1, 2, 5, 6, 7};
    cr_assert_eq(memcmp(packed, want, sizeof want), 0);
    be->keep_scatter(be, fd_view(back, 2, 3), packed, NULL);
    cr_assert_eq(memcmp(back, want, sizeof want), 0);
    fd_close(be);
}

/* ---- optimizer -------------------------------------------------------- */

/* By hand: p0 = 1, lr .1, betas .9 .99, eps .001, decay .5, gradients 2, -1
 * with grad_scale .5 (so 1, -.5).
 * Step 1: p = 1 * .95 = .95; m = .1, v = .01; m/(1-.9) = 1, v/(1-.99) = 1;
 *   p = .95 - .1 * 1 / (1 + .001) = 0.850099900099900...
 * Step 2: m = .09 - .05 = .04, v = .0099 + .0025 = .0124;
 *   mhat = .04/.19, vhat = .0124/.0199; p = .95 p - .1 mhat/(sqrt(vhat)+.001).
 */
Test(ref_adamw, follows_a_trajectory_computed_by_hand)
{
    backend *be = fd_open(BASE_F64);
    backend_adamw hp = {.lr = 0.1,
                        .beta1 = 0.9,
                        .beta2 = 0.99,
                        .eps = 1e-3,
                        .weight_decay = 0.5,
                        .step = 1,
                        .grad_scale = 0.5};
    double p[1] = {1}, m[1] = {0}, v[1] = {0}, g1[1] = {2}, g2[1] = {-1};
    be->adamw(be, p, g1, m, v, 1, &hp);
    /* A handful of roundings of numbers below one, 1e-16 each. */
    cr_assert_float_eq(p[0], 0.85009990009990010, 1e-15);
    cr_assert_float_eq(m[0], 0.1, 1e-16);
    cr_assert_float_eq(v[0], 0.01, 1e-16);
    hp.step = 2;
    be->adamw(be, p, g2, m, v, 1, &hp);
    cr_assert_float_eq(m[0], 0.04, 1e-16);
    cr_assert_float_eq(v[0], 0.0124, 1e-16);
    double root = 0.789376702145083096; /* sqrt(.0124 / .0199) */
    double want =
        0.95 * 0.85009990009990010 - 0.1 * (0.04 / 0.19) / (root + 0.001);
    cr_assert_float_eq(p[0], want, 1e-15);
    cr_assert_eq(g1[0], 2, "the gradient is read only");
    fd_close(be);
}

/* With g = 0 and no decay nothing moves, and eps keeps 0/0 away. */
Test(ref_adamw, a_zero_gradient_moves_nothing)
{
    backend *be = fd_open(BASE_F64);
    backend_adamw hp = {0.1, 0.9, 0.999, 1e-8, 0, 1, 1.0};
    double p[2] = {0.5, 0.5}, g[2] = {0, (double)NAN}, m[2] = {0}, v[2] = {0};
    be->adamw(be, p, g, m, v, 2, &hp);
    cr_assert_eq(p[0], 0.5);
    cr_assert(isnan(p[1]), "a NaN gradient must not be hidden");
    fd_close(be);
}

Test(ref_adamw, sqnorm_is_a_double_even_for_float)
{
    backend *be = fd_open(BASE_F32);
    float x[3] = {3e20F, 4e20F, 0};
    double out = 0;
    be->sqnorm(be, &out, x, 3);
    cr_assert_float_eq(out, 25e40, 25e40 * 1e-6, "overflowed in float");
    be->sqnorm(be, &out, NULL, 0);
    cr_assert_eq(out, 0);
    fd_close(be);
}
