/* test_conformance_weight.c - products with weights, alone, joined by low ranks
 * and several together. */
#include <string.h>

#include "backend/conform.h"

/* Token counts of one row, of decoding (8, 9), of prefill, and across one and
 * two edges of the block of 512; widths of the real model, of a vocabulary, and
 * odd ones. */
static const struct linear_case {
    int64_t n, in, out;
    int pad;
    double beta;
    base_dtype stored;
} linear[] = {
    {1, 48, 130, 0, 0, BASE_BF16},    {1, 576, 96, 3, 1, BASE_F32},
    {1, 1, 1, 0, 0, BASE_F32},        {7, 130, 65, 6, 1, BASE_F16},
    {7, 33, 17, 0, 0, BASE_BF16},     {8, 1536, 40, 0, 0.5, BASE_BF16},
    {9, 64, 64, 2, 1, BASE_F32},      {64, 576, 144, 0, 1, BASE_BF16},
    {64, 96, 64, 7, 0, BASE_F16},     {513, 64, 96, 0, 1, BASE_F32},
    {513, 72, 33, 2, 0, BASE_BF16},   {1100, 80, 128, 0, 0.5, BASE_F32},
    {1100, 40, 72, 9, 1, BASE_BF16},  {130, 300, 700, 0, 1, BASE_BF16},
    {8, 130, 2050, 0, 0, BASE_F32},   {1, 64, 5000, 0, 0, BASE_BF16},
    {1100, 300, 40, 1, 0, BASE_F16},  {70, 20, 16500, 0, 1, BASE_BF16},
    {40, 1100, 900, 5, 1, BASE_BF16}, {800, 600, 400, 0, 1, BASE_BF16},
    {9, 20, 8300, 0, 0, BASE_F32},
};

/* What gemm_w adds: nothing (beta 0), what is there, or another matrix. */
static const char *const plus_names[] = {"nothing", "itself", "another"};

static const backend_view *plus_of(int plus, const cf_operand *y,
                                   const cf_operand *other, int i)
{
    return plus == 0 ? NULL : plus == 1 ? &y->v[i] : &other->v[i];
}

static void weight_product(conform *c, const struct linear_case *s,
                           cf_kind kind, int plus)
{
    cf_next(c, "n %d in %d out %d pad %d plus %s to %s", (int)s->n, (int)s->in,
            (int)s->out, s->pad, plus_names[plus],
            kind == CF_ACT ? "act" : "acc");
    cf_operand x = cf_random(c, CF_ACT, s->n, s->in, s->pad, 1);
    cf_operand y = cf_target(c, kind, s->n, s->out, s->pad, plus == 1);
    cf_operand other = cf_random(c, kind, s->n, s->out, s->pad, 3);
    cf_weight w = cf_weights(c, s->out, s->in, s->stored);
    CF_EACH(i)
    {
        backend *be = c->be[i];
        be->weight_acquire(be, &w.p[i], 1);
        be->gemm_w(be, y.v[i], x.v[i], w.p[i], NULL,
                   plus_of(plus, &y, &other, i));
        be->weight_release(be, &w.p[i], 1);
    }
    cf_check(c, &y, "y", (double)s->in, 1);
}

CONFORM(gemm_w)
{
    for (size_t t = 0; t < COUNT(linear); t++)
        for (int plus = 0; plus < (linear[t].beta == 0 ? 1 : 3); plus++)
            for (int kind = CF_ACT; kind <= CF_ACC; kind++)
                weight_product(c, &linear[t], (cf_kind)kind, plus);
}

/* Ranks below, at and above a step of tiles, and larger than a block along the
 * sum; few rows and many. */
static const struct joined_case {
    int64_t n, in, out, rank;
    int pad;
    double beta;
} joined[] = {
    {1, 48, 130, 8, 0, 0},      {1, 576, 96, 32, 3, 1},
    {7, 33, 17, 1, 2, 0},       {9, 64, 65, 33, 6, 1},
    {64, 576, 144, 32, 0, 0},   {65, 130, 70, 64, 5, 1},
    {130, 300, 700, 8, 0, 0.5}, {513, 72, 33, 32, 2, 1},
    {1100, 600, 40, 64, 0, 0},  {1100, 40, 1540, 32, 1, 1},
    {40, 1100, 900, 33, 0, 1},  {800, 600, 400, 32, 0, 1},
    {70, 64, 96, 1000, 0, 0},   {330, 576, 1536, 8, 0, 1},
};

/* On tiles the whole sum is rounded once; elsewhere what the product with the
 * weight left is rounded too, in the size of its terms. */
static bool one_sum(const conform *c)
{
    return strstr(c->be[CF_TWO]->detail, "amx") != NULL;
}

static void check_joined(conform *c, const cf_operand *o, const char *name,
                         int64_t terms)
{
    if (one_sum(c))
        cf_check(c, o, name, (double)terms, 1);
    else
        cf_check_rounded(c, o, name, (double)terms, 2, 4);
}

/* plus 1 of gemm_wt: what is there, times beta. */
static void joined_product(conform *c, const struct joined_case *s,
                           cf_kind kind, bool back, int plus)
{
    const int64_t k = back ? s->out : s->in, cols = back ? s->in : s->out;
    cf_next(c, "n %d in %d out %d rank %d pad %d beta %g plus %s to %s",
            (int)s->n, (int)s->in, (int)s->out, (int)s->rank, s->pad, s->beta,
            plus_names[plus], kind == CF_ACC ? "acc" : "act");
    cf_operand x = cf_random(c, CF_ACT, s->n, k, s->pad, 1);
    cf_operand h = cf_random(c, CF_ACT, s->n, s->rank, s->pad, 1);
    cf_operand b = back ? cf_random(c, CF_ACT, s->rank, cols, s->pad, 1)
                        : cf_random(c, CF_ACT, cols, s->rank, s->pad, 1);
    cf_operand y = cf_target(c, kind, s->n, cols, s->pad, plus == 1);
    cf_operand other = cf_random(c, kind, s->n, cols, s->pad, 3);
    cf_weight w = cf_weights(c, s->out, s->in, BASE_BF16);
    CF_EACH(i)
    {
        backend *be = c->be[i];
        const backend_low low = {h.v[i], b.v[i]};
        if (back)
            be->gemm_wt(be, y.v[i], x.v[i], w.p[i], &low, s->beta);
        else
            be->gemm_w(be, y.v[i], x.v[i], w.p[i], &low,
                       plus_of(plus, &y, &other, i));
    }
    check_joined(c, &y, "sum", k + s->rank);
}

static void low_rank_joins(conform *c, bool back)
{
    for (size_t t = 0; t < COUNT(joined); t++) {
        const int first = joined[t].beta != 0;
        const int last = first && !back ? 2 : first; /* gemm_wt has no other */
        for (int plus = first; plus <= last; plus++)
            for (int kind = CF_ACT; kind <= CF_ACC; kind++)
                joined_product(c, &joined[t], (cf_kind)kind, back, plus);
    }
}

CONFORM(gemm_w_low)
{
    low_rank_joins(c, false);
}

CONFORM(gemm_wt_low)
{
    low_rank_joins(c, true);
}

/* A sum of some products is the sum, each with its low rank or without. */
CONFORM(gemm_wts)
{
    enum { N_W = 3, IN = 200 };
    static const int64_t rows[] = {1, 7, 40, 130, 330},
                         out[N_W] = {600, 7, 200}, rank[N_W] = {8, 0, 33};
    for (size_t t = 0; t < 2 * COUNT(rows); t++) {
        const int64_t n = rows[t / 2];
        cf_next(c, "n %d to %s", (int)n, t % 2 ? "acc" : "act");
        cf_operand dx = cf_blank(c, t % 2 ? CF_ACC : CF_ACT, n, IN, 3);
        cf_operand dy[N_W], dh[N_W], a[N_W];
        cf_weight w[N_W];
        for (int j = 0; j < N_W; j++) {
            dy[j] = cf_random(c, CF_ACT, n, out[j], 2, 1);
            w[j] = cf_weights(c, out[j], IN, BASE_BF16);
            dh[j] = cf_random(c, CF_ACT, n, rank[j], 1, 1);
            a[j] = cf_random(c, CF_ACT, rank[j], IN, 0, 1);
        }
        CF_EACH(i)
        {
            backend_view y[N_W];
            backend_weight *weights[N_W];
            backend_low low[N_W];
            for (int j = 0; j < N_W; j++) {
                y[j] = dy[j].v[i];
                weights[j] = w[j].p[i];
                low[j] = (backend_low){dh[j].v[i], a[j].v[i]};
            }
            c->be[i]->gemm_wts(c->be[i], dx.v[i], N_W, y, weights, low);
        }
        check_joined(c, &dx, "dx", 600 + 7 + 200 + 8 + 33);
    }
}

/* Several products of one x are what they are alone, to the last bit, and so
 * are those that a low rank joins. Products of as many columns are cut alike
 * and walked together; rows for which they keep what is packed are many. */
static void together(conform *c, int64_t n, int64_t in, const int64_t *out)
{
    enum { N_W = 3 };
    static const int64_t rank[N_W] = {8, 0, 33};
    cf_next(c, "n %d in %d out %d %d %d", (int)n, (int)in, (int)out[0],
            (int)out[1], (int)out[2]);
    cf_operand x = cf_random(c, CF_ACT, n, in, 3, 1);
    cf_operand alone[N_W], group[N_W], h[N_W], b[N_W];
    cf_weight w[N_W];
    for (int j = 0; j < N_W; j++) {
        alone[j] = cf_blank(c, CF_ACT, n, out[j], 2);
        group[j] = cf_blank(c, CF_ACT, n, out[j], 2);
        w[j] = cf_weights(c, out[j], in, BASE_BF16);
        h[j] = cf_random(c, CF_ACT, n, rank[j], 1, 1);
        b[j] = cf_random(c, CF_ACT, out[j], rank[j], 0, 1);
    }
    CF_EACH(i)
    {
        backend_view y[N_W];
        backend_weight *weights[N_W];
        backend_low low[N_W];
        for (int j = 0; j < N_W; j++) {
            y[j] = group[j].v[i];
            weights[j] = w[j].p[i];
            low[j] = (backend_low){h[j].v[i], b[j].v[i]};
            c->be[i]->gemm_w(c->be[i], alone[j].v[i], x.v[i], weights[j],
                             &low[j], NULL);
        }
        c->be[i]->gemm_ws(c->be[i], N_W, y, x.v[i], weights, low);
        for (int j = 0; j < N_W; j++)
            cf_check_same(c, i, &alone[j], &group[j], "a product");
    }
    for (int j = 0; j < N_W; j++)
        check_joined(c, &group[j], "y", in + rank[j]);
}

CONFORM(gemm_ws)
{
    static const int64_t rows[] = {1, 2, 5, 16, 40, 130}, out[] = {100, 7, 300},
                         alike[] = {40, 40, 40};
    for (size_t t = 0; t < COUNT(rows); t++)
        together(c, rows[t], 600, out);
    together(c, 130, 300, alike);
    together(c, 1100, 700, alike);
}

CONFORM(gemm_wt)
{
    for (size_t t = 0; t < COUNT(linear); t++) {
        for (int kind = CF_ACT; kind <= CF_ACC; kind++) {
            const struct linear_case *s = &linear[t];
            cf_next(c, "n %d in %d out %d pad %d beta %g to %s", (int)s->n,
                    (int)s->in, (int)s->out, s->pad, s->beta,
                    kind == CF_ACT ? "act" : "acc");
            cf_operand dy = cf_random(c, CF_ACT, s->n, s->out, s->pad, 1);
            cf_operand dx =
                cf_target(c, (cf_kind)kind, s->n, s->in, s->pad, s->beta);
            cf_weight w = cf_weights(c, s->out, s->in, s->stored);
            CF_EACH(i)
            c->be[i]->gemm_wt(c->be[i], dx.v[i], dy.v[i], w.p[i], NULL,
                              s->beta);
            cf_check(c, &dx, "dx", (double)s->out, 1);
        }
    }
}
