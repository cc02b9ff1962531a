/* test_conformance_glu.c - SwiGLU that goes with the products beside it. */
#include "backend/conform.h"

static const struct glu_case {
    int64_t n, f, rank[2]; /* of gate and of up */
} glu_cases[] = {
    {1, 100, {0, 0}},   {5, 300, {0, 0}},   {16, 96, {8, 8}},
    {40, 577, {0, 0}},  {70, 64, {0, 0}},   {130, 77, {8, 8}},
    {130, 800, {8, 0}}, {330, 96, {0, 33}}, {257, 33, {0, 0}},
    {1100, 40, {8, 0}},
};

/* SwiGLU that goes with the products is what it is after them, to the last bit;
 * its products too. */
CONFORM(gemm_swiglu)
{
    static const int64_t d[] = {64, 600, 900}; /* one block along k, two */
    for (size_t t = 0; t < COUNT(d) * COUNT(glu_cases); t++) {
        const struct glu_case *s = &glu_cases[t / COUNT(d)];
        const int64_t in = d[t % COUNT(d)];
        cf_next(c, "n %d in %d out %d ranks %d %d", (int)s->n, (int)in,
                (int)s->f, (int)s->rank[0], (int)s->rank[1]);
        cf_operand x = cf_random(c, CF_ACT, s->n, in, 3, 0.25);
        cf_operand y[2], together[2], h[2], b[2];
        cf_operand a = cf_blank(c, CF_ACT, s->n, s->f, 2);
        cf_operand after = cf_blank(c, CF_ACT, s->n, s->f, 0);
        cf_weight w[2];
        for (int j = 0; j < 2; j++) {
            y[j] = cf_blank(c, CF_ACT, s->n, s->f, 2);
            together[j] = cf_blank(c, CF_ACT, s->n, s->f, 5);
            w[j] = cf_weights(c, s->f, in, BASE_BF16);
            h[j] = cf_random(c, CF_ACT, s->n, s->rank[j], 1, 0.25);
            b[j] = cf_random(c, CF_ACT, s->f, s->rank[j], 0, 1);
        }
        CF_EACH(i)
        {
            backend *be = c->be[i];
            backend_weight *weights[] = {w[0].p[i], w[1].p[i]};
            const backend_low low[] = {{h[0].v[i], b[0].v[i]},
                                       {h[1].v[i], b[1].v[i]}};
            be->gemm_ws(be, 2, (backend_view[]){y[0].v[i], y[1].v[i]}, x.v[i],
                        weights, low);
            be->swiglu(be, after.v[i], y[0].v[i], y[1].v[i]);
            be->gemm_swiglu(be, a.v[i], together[0].v[i], together[1].v[i],
                            x.v[i], weights, low);
            cf_check_same(c, i, &together[0], &y[0], "gate");
            cf_check_same(c, i, &together[1], &y[1], "up");
            cf_check_same(c, i, &a, &after, "a");
        }
    }
}

CONFORM(gemm_swiglu_bwd)
{
    static const int64_t d[] = {64, 600, 900};
    for (size_t t = 0; t < COUNT(d) * COUNT(glu_cases); t++) {
        const struct glu_case *s = &glu_cases[t / COUNT(d)];
        const int64_t out = d[t % COUNT(d)], rank = s->rank[0];
        cf_next(c, "n %d in %d out %d rank %d", (int)s->n, (int)s->f, (int)out,
                (int)rank);
        cf_operand dy = cf_random(c, CF_ACT, s->n, out, 3, 0.25);
        cf_operand da = cf_blank(c, CF_ACT, s->n, s->f, 2);
        cf_operand g[2], u[2];
        cf_weight w = cf_weights(c, out, s->f, BASE_BF16);
        cf_operand dh = cf_random(c, CF_ACT, s->n, rank, 1, 0.25);
        cf_operand a = cf_random(c, CF_ACT, rank, s->f, 0, 1);
        for (int j = 0; j < 2; j++) {
            g[j] = cf_random(c, CF_ACT, s->n, s->f, 2, 4);
            u[j] = cf_random(c, CF_ACT, s->n, s->f, 5, 4);
        }
        CF_EACH(i)
        {
            backend *be = c->be[i];
            const backend_low low = {dh.v[i], a.v[i]};
            be->cast(be, g[1].v[i], g[0].v[i]);
            be->cast(be, u[1].v[i], u[0].v[i]);
            be->gemm_wt(be, da.v[i], dy.v[i], w.p[i], &low, 0);
            be->swiglu_bwd(be, g[0].v[i], u[0].v[i], da.v[i]);
            be->gemm_swiglu_bwd(be, g[1].v[i], u[1].v[i], da.v[i], dy.v[i],
                                w.p[i], &low);
            cf_check_same(c, i, &g[1], &g[0], "gate's gradient");
            cf_check_same(c, i, &u[1], &u[0], "up's gradient");
        }
    }
}
