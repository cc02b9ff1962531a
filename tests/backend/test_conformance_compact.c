/* test_conformance_compact.c - compact copies of weights change no bit of a
 * product, and are as small as they are said to be. */
#include <stdlib.h>

#include "backend/conform.h"

typedef enum exponents { NEAR, FAR, SOME_FAR, ALL_FAR } exponents;

/* [rows, cols]: exponents that are neighbours; with zeros and the least and
 * largest numbers among them; of 40 octaves in every sixteenth 32 x 32 block,
 * or in all. */
static float *spread(conform *c, int64_t rows, int64_t cols, exponents kind)
{
    float *x = base_alloc((size_t)(rows * cols), sizeof *x);
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t block = i / cols / 32 + i % cols / 32;
        const bool far =
            kind == ALL_FAR || (kind == SOME_FAR && block % 16 == 3);
        const int octave = (int)base_rng_below(&c->rng, far            ? 40
                                                        : kind == NEAR ? 12
                                                                       : 4);
        x[i] = ldexpf(1.0F + (float)base_rng_below(&c->rng, 128) / 128.0F,
                      -octave);
        if (base_rng_below(&c->rng, 2))
            x[i] = -x[i];
        if (kind == FAR && base_rng_below(&c->rng, 3) == 0)
            x[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? 0x1p-130F : -0x1p100F;
    }
    return x;
}

/* A copy's bytes, as far as they are promised. */
static void check_bytes(const conform *c, int i, int64_t bytes, int64_t all,
                        exponents kind)
{
    const backend *be = c->be[i];
    const bool compacts = i != CF_REF && !strcmp(be->name, "cpu") &&
                          be->act == BASE_BF16 &&
                          strncmp(be->detail, "base", 4) != 0;
    if (!compacts || kind == ALL_FAR)
        cr_expect_eq(bytes, 0, "%s %s", c->label, c->what);
    else
        cr_expect(bytes > all * 3 / 4 && bytes < all * 9 / 10,
                  "%s %s: %lld of %lld bytes", c->label, c->what,
                  (long long)bytes, (long long)all);
}

/* Products keep their bits, and the copy is as small as it is said to be. */
CONFORM(weight_compact)
{
    static const int64_t rows[] = {1, 2, 3, 12, 13, 17, 32, 33, 64};
    static const struct shape {
        int64_t out, in;
    } shapes[] = {{256, 256}, {254, 318}, {64, 1999}, {320, 63}};
    for (size_t t = 0; t < COUNT(shapes) * 4; t++) {
        const struct shape *s = &shapes[t / 4];
        const exponents kind = (exponents)(t % 4);
        cf_next(c, "out %d in %d exponents %d", (int)s->out, (int)s->in,
                (int)kind);
        float *values = spread(c, s->out, s->in, kind);
        cf_weight w = cf_weights_from(c, s->out, s->in, BASE_BF16, values);
        free(values);
        cf_operand x[COUNT(rows)], before[COUNT(rows)], after[COUNT(rows)];
        for (size_t r = 0; r < COUNT(rows); r++) {
            x[r] = cf_random(c, CF_ACT, rows[r], s->in, 3, 1);
            before[r] =
                cf_blank(c, r % 2 ? CF_ACT : CF_ACC, rows[r], s->out, 2);
            after[r] = cf_blank(c, r % 2 ? CF_ACT : CF_ACC, rows[r], s->out, 2);
        }
        CF_EACH(i)
        {
            backend *be = c->be[i];
            const size_t n = i == CF_REF ? 0 : COUNT(rows);
            for (size_t r = 0; r < n; r++)
                be->gemm_w(be, before[r].v[i], x[r].v[i], w.p[i], NULL, NULL);
            check_bytes(c, i, be->weight_compact(be, w.p[i]),
                        s->out * s->in * 2, kind);
            cr_expect_eq(be->weight_compact(be, w.p[i]), 0,
                         "%s %s: a second copy", c->label, c->what);
            for (size_t r = 0; r < n; r++) {
                be->gemm_w(be, after[r].v[i], x[r].v[i], w.p[i], NULL, NULL);
                double *a = cf_values(c, i, &before[r]);
                double *b = cf_values(c, i, &after[r]);
                cr_expect_arr_eq(a, b, (size_t)(rows[r] * s->out) * sizeof *a,
                                 "%s %s: %d rows differ", c->label, c->what,
                                 (int)rows[r]);
                free(a);
                free(b);
            }
        }
    }
}
