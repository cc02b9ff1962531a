/* test_keep.c - keep masks: how many, which ones, their folders. */
#include "adapter/adapter_test.h"

#include <math.h>

/* Source: lori.md 5.2, 5.3 (Python's int((1 - s) * n)). */
Test(keep, counts_as_python)
{
    const double s[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99};
    const int64_t k[] = {39636172, 35232153, 30828134, 26424115, 22020096,
                         17616076, 13212057, 8808038,  4404019,  440401};
    for (int i = 0; i < 10; i++)
        cr_assert_eq(adapter_keep_count(44040192, s[i]), k[i], "s = %g", s[i]);
    cr_assert_eq(adapter_keep_count(88080384, 0.9), 8808038);
    cr_assert_eq(adapter_keep_count(10, 0.9), 0);
    cr_assert_eq(adapter_keep_count(20, 0.9), 1);
    cr_assert_eq(adapter_keep_count(40, 0.9), 3);
    cr_assert_eq(adapter_keep_count(1000, 0.9), 99);
    /* Per projection, layer and matrix of Llama-3-8B at r = 32. */
    cr_assert_eq(adapter_keep_count(4194304, 0.9), 419430);
    cr_assert_eq(adapter_keep_count(14680064, 0.9), 1468006);
    cr_assert_eq(adapter_keep_count(1376256, 0.9), 137625);
    cr_assert_eq(adapter_keep_count(7, 0), 7);
    cr_assert_eq(adapter_keep_count(7, 1), 0);
    cr_assert_eq(adapter_keep_count(0, 0.5), 0);
}

/* An entry of the whole model, for the oracle's sort. */
typedef struct item {
    float magnitude;
    int64_t index;
} item;

static int by_magnitude(const void *x, const void *y)
{
    const item *a = x, *b = y;
    if (a->magnitude != b->magnitude)
        return a->magnitude > b->magnitude ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

/* The mask equals a full sort, bit for bit, over many sparsities; values have
 * few levels, so that ties lie on nearly every threshold. */
static void against_sort(int levels)
{
    const adapter_site_spec specs[] = {
        {"model.layers.0.self_attn.q_proj", 3, 17, 33, 1},
        {"model.layers.0.mlp.up_proj", 3, 5, 64, 1},
        {"model.layers.1.self_attn.q_proj", 3, 40, 7, 1},
    };
    adapter *ad = make_adapter(specs, 3, false, 11);
    int64_t n = adapter_count_b(ad), at = 0;
    item *all = base_alloc((size_t)n, sizeof *all);
    for (int64_t s = 0; s < 3; s++)
        for (int64_t i = 0; i < ad->sites[s].out * ad->sites[s].rank; i++) {
            float *b = &ad->sites[s].B[i];
            if (levels)
                *b = (floorf(*b * (float)levels) + 0.25f) * 1e-3f;
            all[at] = (item){fabsf(*b), at};
            at++;
        }
    qsort(all, (size_t)n, sizeof *all, by_magnitude);
    unsigned char *want = base_alloc((size_t)n, 1);
    for (double sparsity = 0; sparsity < 0.999; sparsity += 0.0625) {
        int64_t k = adapter_keep_count(n, sparsity);
        memset(want, 0, (size_t)n);
        for (int64_t i = 0; i < k; i++)
            want[all[i].index] = 1;
        adapter_keep *keep = NULL;
        ok(adapter_keep_topk(ad, sparsity, &keep, err));
        cr_assert(keep->kept == k && keep->total == n);
        at = 0;
        for (int64_t s = 0; s < 3; s++) {
            const adapter_keep_site *site = &keep->sites[s];
            int64_t kept = 0;
            for (int64_t i = 0; i < site->out; i++)
                for (int64_t j = 0; j < site->rank; j++) {
                    bool bit = adapter_keep_get(site, i, j);
                    kept += bit;
                    cr_assert_eq(bit, want[at++], "site %lld (%lld, %lld)",
                                 (long long)s, (long long)i, (long long)j);
                }
            cr_assert_eq(kept, site->kept);
        }
        adapter_keep_free(keep);
    }
    free(want);
    free(all);
    adapter_free(ad);
}

Test(keep, equals_a_sort)
{
    against_sort(0);
    against_sort(3);
    against_sort(40);
}

Test(keep, refusals)
{
    adapter *ad = small_adapter(3); /* 66 entries of B */
    adapter_keep *keep = NULL;
    fails(adapter_keep_topk(ad, 1.0, &keep, err), LORI_INVALID, "[0, 1)");
    fails(adapter_keep_topk(ad, -0.1, &keep, err), LORI_INVALID, "[0, 1)");
    fails(adapter_keep_topk(ad, (double)NAN, &keep, err), LORI_INVALID,
          "[0, 1)");
    fails(adapter_keep_topk(ad, 0.99, &keep, err), LORI_INVALID, "keeps none");
    for (int64_t i = 1; i < 4; i++)
        memset(ad->sites[i].B, 0,
               (size_t)(ad->sites[i].out * ad->sites[i].rank) * 4);
    fails(adapter_keep_topk(ad, 0.5, &keep, err), LORI_INVALID, "not zero");
    ok(adapter_keep_topk(ad, 1 - 18.5 / 66, &keep, err)); /* exactly all 18 */
    cr_assert_eq(keep->kept, 18);
    cr_assert_eq(keep->sites[0].kept, 18);
    adapter_keep_free(keep);
    ad->sites[2].B[1] = (float)NAN;
    fails(adapter_keep_topk(ad, 0.9, &keep, err), LORI_NUMERIC, "q_proj");
    cr_assert_null(keep);
    adapter_free(ad);
    adapter_keep_free(NULL);
}

/* ---- folders -------------------------------------------------------- */

static void same_keep(const adapter_keep *x, const adapter_keep *y)
{
    cr_assert(x->n_sites == y->n_sites && x->total == y->total);
    cr_assert(x->kept == y->kept && x->sparsity == y->sparsity);
    cr_assert_eq(x->origin.has_seed, y->origin.has_seed);
    cr_assert_eq(x->origin.seed, y->origin.seed);
    cr_assert_eq(x->base_model == NULL, y->base_model == NULL);
    if (x->base_model)
        cr_assert_str_eq(x->base_model, y->base_model);
    for (int64_t s = 0; s < x->n_sites; s++) {
        const adapter_keep_site *a = &x->sites[s], *b = &y->sites[s];
        cr_assert_str_eq(a->path, b->path);
        cr_assert(a->out == b->out && a->in == b->in && a->rank == b->rank);
        cr_assert_eq(a->kept, b->kept);
        size_t words = (size_t)(a->out * ((a->rank + 31) / 32));
        cr_assert_arr_eq(a->bits, b->bits, words * 4);
    }
}

static adapter_keep *make_keep(bool seeded)
{
    const adapter_site_spec specs[] = {
        {"model.layers.0.self_attn.q_proj", 3, 7, 33, 5},
        {"model.layers.1.self_attn.q_proj", 4, 9, 8, 6.5},
    };
    adapter *ad = make_adapter(specs, 2, true, 21);
    if (seeded)
        adapter_init_a(ad, 0xffffffffffffffffULL);
    ad->base_model = base_strdup("base");
    adapter_keep *keep = NULL;
    ok(adapter_keep_topk(ad, 0.7, &keep, err));
    adapter_free(ad);
    return keep;
}

Test(keep, folder_round_trip)
{
    for (int seeded = 0; seeded < 2; seeded++) {
        char *dir = temp_begin();
        char *one = base_path_join(dir, "one"), *two = base_path_join(dir, "2");
        adapter_keep *keep = make_keep(seeded), *back = NULL;
        cr_assert_eq(keep->a_source == NULL, seeded);
        ok(adapter_keep_write(keep, one, false, err));
        cr_assert_neq(adapter_keep_write(keep, one, false, NULL), LORI_OK);
        ok(adapter_keep_read(one, &back, err));
        same_keep(keep, back);
        cr_assert_eq(back->a_source == NULL, seeded);
        if (!seeded) { /* A travels with the mask, B does not */
            same_adapter(keep->a_source, back->a_source);
            cr_assert(back->a_source->use_rslora);
            for (int i = 0; i < 7 * 33; i++)
                cr_assert_eq(back->a_source->sites[0].B[i], 0);
        }
        ok(adapter_keep_write(back, two, false, err));
        same_file(one, two, "keep.json");
        same_file(one, two, "keep.safetensors");
        ok(adapter_keep_write(back, two, true, err));
        adapter_keep_free(back);
        adapter_keep_free(keep);
        free(one);
        free(two);
        temp_end(dir);
    }
}

/* Layout of the bits: bit j % 8 of byte j / 8. */
Test(keep, bit_layout)
{
    char *dir = temp_begin(), *one = base_path_join(dir, "one");
    adapter_keep *keep = make_keep(true);
    ok(adapter_keep_write(keep, one, false, err));
    char *path = base_path_join(one, "keep.safetensors");
    format_store *store = NULL;
    ok(format_store_open_file(path, &store, err));
    cr_assert_eq(format_store_count(store), 2);
    const format_tensor *t =
        format_store_find(store, "model.layers.0.self_attn.q_proj.keep");
    cr_assert_not_null(t);
    cr_assert(t->dtype == BASE_U8 && t->shape[0] == 7 && t->shape[1] == 5);
    const unsigned char *bytes = t->data;
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < 33; j++)
            cr_assert_eq(bytes[i * 5 + j / 8] >> (j % 8) & 1,
                         adapter_keep_get(&keep->sites[0], i, j));
    format_store_close(store);
    adapter_keep_free(keep);
    free(path);
    free(one);
    temp_end(dir);
}

/* Replaces the first `from` in keep.json by `to` and reads. */
static lori_status with_change(const char *dir, const char *from,
                               const char *to, lori_error *err)
{
    char *text = slurp(dir, "keep.json", NULL);
    char *at = strstr(text, from);
    cr_assert_not_null(at, "'%s' in %s", from, text);
    base_str s = {0};
    base_str_add(&s, text, (size_t)(at - text));
    base_str_puts(&s, to);
    base_str_puts(&s, at + strlen(from));
    spit(dir, "keep.json", s.s);
    adapter_keep *keep = NULL;
    lori_status st = adapter_keep_read(dir, &keep, err);
    cr_assert_null(keep);
    spit(dir, "keep.json", text);
    base_str_free(&s);
    free(text);
    return st;
}

Test(keep, bad_folders)
{
    char *dir = temp_begin(), *one = base_path_join(dir, "one");
    adapter_keep *keep = make_keep(true), *back = NULL;
    ok(adapter_keep_write(keep, one, false, err));
    /* 7 * 33 + 9 * 8 = 303 entries, 90 kept. */
    fails(with_change(one, "\"kept\": 90", "\"kept\": 91", err), LORI_FORMAT,
          "add up");
    fails(with_change(one, "\"total\": 303", "\"total\": 304", err),
          LORI_FORMAT, "add up");
    fails(with_change(one, "\"sparsity\": 0.7", "\"sparsity\": 1.5", err),
          LORI_FORMAT, "sparsity");
    fails(with_change(one, "\"rank\": 33", "\"rank\": 32", err), LORI_FORMAT,
          "is not U8 [7, 4]");
    fails(with_change(one, "\"rank\": 8", "\"rank\": 7", err), LORI_FORMAT,
          "beyond rank");
    fails(with_change(one, "\"out\": 9", "\"out\": 10", err), LORI_FORMAT,
          "is not U8 [10, 1]");
    fails(with_change(one, "layers.0.", "layers.2.", err), LORI_NOT_FOUND,
          "model.layers.2.self_attn.q_proj.keep");
    fails(with_change(one, "layers.1.", "layers.0.", err), LORI_FORMAT,
          "out of order or named twice");
    fails(with_change(one, "\"lori-keep\"", "\"x\"", err), LORI_FORMAT,
          "lori-keep");
    fails(with_change(one, "\"version\": 1", "\"version\": 9", err),
          LORI_UNSUPPORTED, "newer");
    fails(with_change(one, "\"a_version\": 1", "\"a_version\": 2", err),
          LORI_UNSUPPORTED, "version 2");
    fails(with_change(one, "\"sites\"", "\"places\"", err), LORI_FORMAT,
          "'sites'");
    /* No seed claimed, but no A in the file either. */
    fails(with_change(one, "\"a_seed\": \"18446744073709551615\"",
                      "\"a_seed\": null", err),
          LORI_NOT_FOUND, "alpha");
    /* The counts of both sites are exchanged: the sums still agree. */
    char from[40], to[40];
    snprintf(from, sizeof from, "\"kept\": %lld",
             (long long)keep->sites[0].kept);
    snprintf(to, sizeof to, "\"kept\": %lld",
             (long long)keep->sites[0].kept + 1);
    fails(with_change(one, from, to, err), LORI_FORMAT, "keeps");
    /* A tensor that no site names. */
    const format_desc t = {
        "model.layers.0.self_attn.q_proj.keep", BASE_U8, 2, {1, 1}, "\1"};
    char *path = base_path_join(one, "keep.safetensors");
    ok(format_st_write(path,
                       (format_desc[]){t, {"other", BASE_U8, 1, {1}, "\1"}}, 2,
                       NULL, 0, err));
    spit(one, "keep.json",
         "{\"format\":\"lori-keep\",\"version\":1,\"sparsity\":0.5,\"total\":1,"
         "\"kept\":1,\"a_seed\":\"1\",\"a_version\":1,\"sites\":[{\"path\":"
         "\"model.layers.0.self_attn.q_proj\",\"out\":1,\"in\":1,\"rank\":1,"
         "\"kept\":1}]}");
    fails(adapter_keep_read(one, &back, err), LORI_FORMAT, "2 tensors");
    ok(format_st_write(path, &t, 1, NULL, 0, err));
    ok(adapter_keep_read(one, &back, err));
    adapter_keep_free(back);
    fails(adapter_keep_read(dir, &back, err), LORI_NOT_FOUND, "keep.json");
    adapter_keep_free(keep);
    free(path);
    free(one);
    temp_end(dir);
}
