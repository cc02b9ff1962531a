/* test_a1.c - A, version 1, against the vectors of tests/golden/make_a1.py. */
#include <math.h>
#include <omp.h>

#include "adapter/a1_vectors.h"
#include "adapter/adapter_test.h"

Test(a1, small_vectors)
{
    for (size_t v = 0; v < sizeof a1_small / sizeof *a1_small; v++) {
        const struct a1_small *t = &a1_small[v];
        float A[32];
        adapter_a1(t->seed, t->path, t->rank, t->in, A);
        for (int i = 0; i < t->rank * t->in; i++) {
            float want = base_bf16_to_f32(t->bits[i]);
            cr_assert_eq(memcmp(&A[i], &want, 4), 0,
                         "vector %zu entry %d: %a, expected %a", v, i,
                         (double)A[i], (double)want);
        }
    }
}

Test(a1, large_vectors)
{
    for (size_t v = 0; v < sizeof a1_large / sizeof *a1_large; v++) {
        const struct a1_large *t = &a1_large[v];
        size_t n = (size_t)(t->rank * t->in);
        float *A = base_alloc(n, sizeof *A);
        adapter_a1(t->seed, t->path, t->rank, t->in, A);
        uint64_t hash = BASE_FNV_START;
        for (size_t i = 0; i < n; i++) {
            uint16_t h = base_f32_to_bf16(A[i]);
            float back = base_bf16_to_f32(h);
            cr_assert_eq(memcmp(&back, &A[i], 4), 0, "not exact in bf16");
            unsigned char bytes[2] = {(unsigned char)h,
                                      (unsigned char)(h >> 8)};
            hash = base_fnv1a(hash, bytes, 2);
        }
        cr_assert_eq(hash, t->fnv1a, "vector %zu", v);
        free(A);
    }
}

/* Rank r is the beginning of a larger rank, and threads change nothing. */
Test(a1, prefix_and_threads)
{
    enum { IN = 2050 };
    float *one = base_alloc(64 * IN, 4), *many = base_alloc(64 * IN, 4);
    omp_set_num_threads(1);
    adapter_a1(5, "model.layers.2.mlp.up_proj", 32, IN, one);
    omp_set_num_threads(4);
    adapter_a1(5, "model.layers.2.mlp.up_proj", 64, IN, many);
    cr_assert_arr_eq(one, many, 32 * IN * 4);
    /* Bounds and spread of U(-1/sqrt(in), 1/sqrt(in)): 131200 draws, the
     * variance's standard error is 0.25 %, so 2 % is eight of them. */
    double sum = 0, sq = 0, edge = 1 / sqrt((double)IN);
    for (int i = 0; i < 64 * IN; i++) {
        cr_assert_leq(fabs((double)many[i]), edge * (1 + 0x1p-8));
        sum += (double)many[i];
        sq += (double)many[i] * (double)many[i];
    }
    cr_assert_float_eq(sq / (64 * IN) / (edge * edge / 3), 1, 0.02);
    /* The mean's standard error is edge / sqrt(3 n): 5 of them. */
    cr_assert_lt(fabs(sum / (64 * IN)), 5 * edge / sqrt(3.0 * 64 * IN));
    free(one);
    free(many);
}

Test(a1, paths_and_seeds_differ)
{
    float x[64], y[64], z[64];
    adapter_a1(1, "model.layers.1.mlp.up_proj", 4, 16, x);
    adapter_a1(1, "model.layers.2.mlp.up_proj", 4, 16, y);
    adapter_a1(1 + (1ULL << 32), "model.layers.1.mlp.up_proj", 4, 16, z);
    int xy = 0, xz = 0;
    for (int i = 0; i < 64; i++) {
        xy += x[i] == y[i];
        xz += x[i] == z[i];
    }
    cr_assert_lt(xy, 4); /* bf16 has few values; equal ones are rare */
    cr_assert_lt(xz, 4);
}

Test(a1, init_fills_every_site)
{
    adapter *ad = small_adapter(3);
    cr_assert_not(ad->origin.has_seed);
    adapter_init_a(ad, 77);
    cr_assert(ad->origin.has_seed && ad->origin.seed == 77);
    cr_assert_eq(ad->origin.version, 1);
    for (int64_t i = 0; i < ad->n_sites; i++) {
        float want[64];
        adapter_site *s = &ad->sites[i];
        adapter_a1(77, s->path, s->rank, s->in, want);
        cr_assert_arr_eq(s->A, want, (size_t)(s->rank * s->in) * 4);
    }
    adapter_free(ad);
    /* FNV-1a reference value of "foobar". */
    cr_assert_eq(adapter_seed_from_name("foobar"), 0x85944171f73967e8ULL);
}

/* Layer number, then q k v o gate up down, then the name; find agrees. */
Test(sites, order_and_find)
{
    const adapter_site_spec specs[] = {
        {"model.layers.10.self_attn.q_proj", 2, 2, 1, 1},
        {"model.layers.2.mlp.down_proj", 2, 2, 1, 1},
        {"model.layers.2.mlp.gate_proj", 2, 2, 1, 1},
        {"model.layers.2.self_attn.o_proj", 2, 2, 1, 1},
        {"model.layers.2.self_attn.k_proj", 2, 2, 1, 1},
        {"model.layers.2.zeta", 2, 2, 1, 1},
        {"lm_head", 2, 2, 1, 1},
        {"model.layers.2.self_attn.v_proj", 2, 2, 1, 1},
        {"model.layers.2.mlp.up_proj", 2, 2, 1, 1},
        {"model.layers.2.self_attn.q_proj", 2, 2, 1, 1},
    };
    const char *want[] = {"lm_head",
                          "2.self_attn.q_proj",
                          "2.self_attn.k_proj",
                          "2.self_attn.v_proj",
                          "2.self_attn.o_proj",
                          "2.mlp.gate_proj",
                          "2.mlp.up_proj",
                          "2.mlp.down_proj",
                          "2.zeta",
                          "10.self_attn.q_proj"};
    adapter *ad = NULL;
    ok(adapter_new(specs, 10, false, &ad, err));
    for (int i = 0; i < 10; i++) {
        cr_assert_not_null(strstr(ad->sites[i].path, want[i]), "place %d: %s",
                           i, ad->sites[i].path);
        cr_assert_eq(adapter_find(ad, ad->sites[i].path), &ad->sites[i]);
    }
    cr_assert_null(adapter_find(ad, "model.layers.3.mlp.up_proj"));
    adapter_free(ad);
}

Test(sites, counts_scale_and_refusals)
{
    adapter *ad = small_adapter(1);
    cr_assert_eq(adapter_count_a(ad), 2 * 3 * (5 + 9));
    cr_assert_eq(adapter_count_b(ad), 2 * 3 * (6 + 5));
    cr_assert_eq(ad->sites[0].scale, 7.0 / 3.0);
    adapter_free(ad);
    adapter_site_spec s[2] = {{"a.0.q_proj", 4, 4, 16, 8},
                              {"a.0.q_proj", 4, 4, 16, 8}};
    ok(adapter_new(s, 1, true, &ad, err));
    cr_assert_eq(ad->sites[0].scale, 2.0); /* 8 / sqrt(16) */
    adapter_free(ad);
    fails(adapter_new(s, 2, false, &ad, err), LORI_INVALID, "named twice");
    cr_assert_null(ad);
    fails(adapter_new(s, 0, false, &ad, err), LORI_INVALID, "at least one");
    s[0].rank = 0;
    fails(adapter_new(s, 1, false, &ad, err), LORI_INVALID, "a.0.q_proj");
    s[0] = (adapter_site_spec){"a", INT64_MAX, 4, 16, 8};
    fails(adapter_new(s, 1, false, &ad, err), LORI_INVALID, "'a'");
    adapter_free(NULL);
}
