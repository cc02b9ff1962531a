/* test_merge.c - merges against dense sums, shared A, the change of a
 * weight. */
#include "adapter/adapter_test.h"

#include <math.h>

/* sum += c B A in double, [out, in]; the test's own triple loop. */
static void dense(const float *B, const float *A, int64_t out, int64_t r,
                  int64_t in, double c, double *sum)
{
    for (int64_t i = 0; i < out; i++)
        for (int64_t j = 0; j < in; j++)
            for (int64_t k = 0; k < r; k++)
                sum[i * in + j] +=
                    c * (double)B[i * r + k] * (double)A[k * in + j];
}

static void add_site(const adapter *ad, const char *path, double weight,
                     double *sum)
{
    const adapter_site *s = adapter_find(ad, path);
    if (s)
        dense(s->B, s->A, s->out, s->rank, s->in, weight * s->scale, sum);
}

/* Values are below 1, sums have < 40 terms: float factors with one rounding
 * each stay within a few 2^-24 a term. */
#define NEAR 2e-6

static const adapter_site_spec q3 = {"model.layers.0.self_attn.q_proj", 5, 6, 3,
                                     7};
static const adapter_site_spec q3v[] = {
    {"model.layers.0.self_attn.q_proj", 5, 6, 3, 4},
    {"model.layers.0.self_attn.v_proj", 5, 2, 3, 4}};

Test(merge, cat_is_the_exact_sum)
{
    const adapter_site_spec wide[] = {
        {"model.layers.0.self_attn.q_proj", 5, 6, 8, 3},
        {"model.layers.1.mlp.up_proj", 4, 3, 8, 3}};
    adapter *src[] = {make_adapter(&q3, 1, false, 1),
                      make_adapter(q3v, 2, true, 2),
                      make_adapter(wide, 2, false, 3)};
    const double w[] = {0.4, -1.3, 2};
    adapter *out = NULL;
    ok(adapter_merge_cat((const adapter *const *)src, w, 3, &out, err));
    cr_assert_eq(out->n_sites, 3);
    cr_assert_str_eq(out->method, "merge");
    cr_assert_not(out->origin.has_seed);
    const int64_t rank[] = {14, 3, 8};
    for (int64_t s = 0; s < 3; s++) {
        const adapter_site *site = &out->sites[s];
        cr_assert_eq(site->rank, rank[s]);
        cr_assert(site->scale == 1 && site->alpha == (double)site->rank);
        double want[64] = {0}, got[64] = {0};
        for (int i = 0; i < 3; i++)
            add_site(src[i], site->path, w[i], want);
        dense(site->B, site->A, site->out, site->rank, site->in, 1, got);
        for (int64_t i = 0; i < site->out * site->in; i++)
            cr_assert_float_eq(got[i], want[i], NEAR, "site %lld entry %lld",
                               (long long)s, (long long)i);
    }
    /* Uneven ranks can be saved and read back: scale is still 1. */
    char *dir = temp_begin(), *one = base_path_join(dir, "one");
    adapter *back = NULL;
    ok(adapter_write(out, one, NULL, err));
    ok(adapter_read(one, &back, err));
    same_adapter(out, back);
    adapter_free(back);
    free(one);
    temp_end(dir);
    adapter_free(out);
    for (int i = 0; i < 3; i++)
        adapter_free(src[i]);
}

/* linear: (sum a_i A_i), (sum b_i B_i), with all cross terms. */
Test(merge, linear_has_cross_terms)
{
    adapter *src[] = {make_adapter(&q3, 1, false, 1),
                      make_adapter(q3v, 2, false, 2)};
    const double w[] = {0.5, -0.8};
    adapter *out = NULL;
    ok(adapter_merge_linear((const adapter *const *)src, w, 2, &out, err));
    cr_assert_eq(out->n_sites, 2);
    const adapter_site *q = &out->sites[0], *v = &out->sites[1];
    cr_assert(q->rank == 3 && q->scale == 1 && v->rank == 3);
    double c[2], want[64] = {0}, got[64] = {0};
    for (int i = 0; i < 2; i++)
        c[i] = w[i] * src[i]->sites[0].scale;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++)
            dense(src[i]->sites[0].B, src[k]->sites[0].A, 6, 3, 5,
                  sqrt(fabs(c[i])) * sqrt(fabs(c[k])) * (c[k] < 0 ? -1 : 1),
                  want);
    dense(q->B, q->A, 6, 3, 5, 1, got);
    for (int i = 0; i < 30; i++)
        cr_assert_float_eq(got[i], want[i], NEAR);
    /* A site of one source alone has no cross terms: dW = w s B A. */
    memset(want, 0, sizeof want);
    memset(got, 0, sizeof got);
    add_site(src[1], v->path, w[1], want);
    dense(v->B, v->A, 2, 3, 5, 1, got);
    for (int i = 0; i < 10; i++)
        cr_assert_float_eq(got[i], want[i], NEAR);
    adapter_free(out);
    adapter_free(src[0]);
    adapter_free(src[1]);
}

/* [1, -1] of the same adapter: cat gives zero; linear with weight -1 negates
 * (the sign sits on A alone). NULL weights mean 1. */
Test(merge, signs_and_weights)
{
    adapter *a = make_adapter(&q3, 1, false, 1), *out = NULL;
    const adapter *const twice[] = {a, a};
    ok(adapter_merge_cat(twice, (const double[]){1, -1}, 2, &out, err));
    double sum[30] = {0}, one[30] = {0};
    const adapter_site *s = &out->sites[0];
    dense(s->B, s->A, 6, s->rank, 5, s->scale, sum);
    for (int i = 0; i < 30; i++)
        cr_assert_float_eq(sum[i], 0, NEAR);
    adapter_free(out);
    ok(adapter_merge_linear(twice, (const double[]){-1}, 1, &out, err));
    s = &out->sites[0];
    memset(sum, 0, sizeof sum);
    dense(s->B, s->A, 6, s->rank, 5, s->scale, sum);
    add_site(a, s->path, 1, one);
    for (int i = 0; i < 30; i++)
        cr_assert_float_eq(sum[i], -one[i], NEAR);
    adapter_free(out);
    ok(adapter_merge_cat(twice, NULL, 2, &out, err));
    s = &out->sites[0];
    memset(sum, 0, sizeof sum);
    dense(s->B, s->A, 6, s->rank, 5, s->scale, sum);
    for (int i = 0; i < 30; i++)
        cr_assert_float_eq(sum[i], 2 * one[i], NEAR);
    adapter_free(out);
    adapter_free(a);
}

Test(merge, refusals)
{
    const adapter_site_spec other = {"model.layers.0.self_attn.q_proj", 5, 7, 3,
                                     7};
    const adapter_site_spec rank = {"model.layers.0.self_attn.q_proj", 5, 6, 4,
                                    7};
    adapter *a = make_adapter(&q3, 1, false, 1), *out = NULL;
    adapter *b = make_adapter(&other, 1, false, 2);
    adapter *c = make_adapter(&rank, 1, false, 3);
    const adapter *const ab[] = {a, b}, *const ac[] = {a, c};
    fails(adapter_merge_cat(ab, NULL, 2, &out, err), LORI_MISMATCH,
          "different base models");
    fails(adapter_merge_linear(ac, NULL, 2, &out, err), LORI_MISMATCH,
          "equal ranks");
    fails(adapter_merge_cat(ac, (const double[]){1, (double)NAN}, 2, &out, err),
          LORI_INVALID, "adapter 2");
    fails(adapter_merge_cat(ac, (const double[]){1e300, 1}, 2, &out, err),
          LORI_NUMERIC, "q_proj");
    fails(adapter_merge_cat(ac, NULL, 0, &out, err), LORI_INVALID,
          "no adapters");
    cr_assert_null(out);
    adapter_free(a);
    adapter_free(b);
    adapter_free(c);
}

Test(merge, shared_a)
{
    adapter_site_spec s = {"model.layers.0.self_attn.q_proj", 9, 4, 4, 1};
    adapter *a = make_adapter(&s, 1, false, 1);
    s.rank = 8;
    adapter *b = make_adapter(&s, 1, false, 2);
    s.path = "model.layers.1.self_attn.q_proj";
    adapter *c = make_adapter(&s, 1, false, 2);
    cr_assert_not(adapter_share_a(a, b));
    adapter_init_a(a, 6);
    adapter_init_a(b, 6); /* rank 4 is the beginning of rank 8 */
    adapter_init_a(c, 6); /* no common site */
    cr_assert(adapter_share_a(a, b));
    cr_assert(adapter_share_a(b, a));
    cr_assert_not(adapter_share_a(a, c));
    adapter_init_a(b, 7);
    cr_assert_not(adapter_share_a(a, b));
    adapter_free(a);
    adapter_free(b);
    adapter_free(c);
}

/* Wider than the kernel's piece, B sparse as after LoRI-S. */
Test(merge, add_delta)
{
    enum { IN = 1300, OUT = 3, R = 5 };
    const adapter_site_spec s = {"model.layers.0.self_attn.q_proj", IN, OUT, R,
                                 8};
    adapter *ad = make_adapter(&s, 1, false, 4);
    for (int i = 0; i < OUT * R; i += 2)
        ad->sites[0].B[i] = 0;
    float *w = base_alloc(IN * OUT, sizeof *w);
    double *want = base_alloc(IN * OUT, sizeof *want);
    fill(w, IN * OUT, 99);
    for (int i = 0; i < IN * OUT; i++)
        want[i] = (double)w[i];
    add_site(ad, s.path, -0.75, want);
    adapter_add_delta(&ad->sites[0], -0.75, w);
    /* Sums in double, one rounding: half an ulp of a value below 4. */
    for (int i = 0; i < IN * OUT; i++)
        cr_assert_float_eq((double)w[i], want[i], 0x1p-23);
    free(w);
    free(want);
    adapter_free(ad);
}
