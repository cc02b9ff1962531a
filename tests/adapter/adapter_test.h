/* adapter_test.h - what the adapter tests share: temporary folders, small
 * adapters, folders as other programs write them. */
#ifndef ADAPTER_TEST_H
#define ADAPTER_TEST_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "adapter/adapter.h"
#include "format/format.h"

/* A fresh folder, removed by temp_end. */
static inline char *temp_begin(void)
{
    const char *root = getenv("TMPDIR");
    base_str s = {0};
    base_str_printf(&s, "%s/lori-adapter-XXXXXX",
                    root && *root ? root : P_tmpdir);
    cr_assert_not_null(mkdtemp(s.s));
    return base_str_take(&s);
}

static inline void temp_end(char *dir)
{
    base_str s = {0};
    base_str_printf(&s, "rm -rf '%s'", dir);
    cr_assert_eq(system(s.s), 0);
    base_str_free(&s);
    free(dir);
}

#define ok(expr)                                                               \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        cr_assert_eq((expr), LORI_OK, "%s", err->message);                     \
    } while (0)

/* The call fails with `status` and its message holds `part`. */
#define fails(expr, status_, part)                                             \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        lori_status got_ = (expr);                                             \
        cr_assert_eq(got_, (status_), "status %d: %s", (int)got_, e_.message); \
        cr_assert_not_null(strstr(e_.message, (part)), "'%s' is not in: %s",   \
                           (part), e_.message);                                \
        cr_assert_null(strchr(e_.message, '\n'));                              \
    } while (0)

/* Values that differ everywhere and are exact in float. */
static inline void fill(float *x, int64_t n, uint64_t seed)
{
    base_rng rng;
    base_rng_start(&rng, seed, 7);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)base_rng_uniform(&rng) - 0.5f;
}

static inline adapter *make_adapter(const adapter_site_spec *specs, int64_t n,
                                    bool rslora, uint64_t seed)
{
    adapter *ad = NULL;
    ok(adapter_new(specs, n, rslora, &ad, err));
    for (int64_t i = 0; i < n; i++) {
        adapter_site *s = &ad->sites[i];
        fill(s->A, s->rank * s->in, seed + 2 * (uint64_t)i);
        fill(s->B, s->rank * s->out, seed + 2 * (uint64_t)i + 1);
    }
    return ad;
}

/* Two layers, q_proj [6, 5] and down_proj [5, 9], alpha != 2 r. */
static inline adapter *small_adapter(uint64_t seed)
{
    static const adapter_site_spec specs[] = {
        {"model.layers.1.mlp.down_proj", 9, 5, 3, 7},
        {"model.layers.0.mlp.down_proj", 9, 5, 3, 7},
        {"model.layers.0.self_attn.q_proj", 5, 6, 3, 7},
        {"model.layers.1.self_attn.q_proj", 5, 6, 3, 7},
    };
    return make_adapter(specs, 4, false, seed);
}

static inline char *slurp(const char *dir, const char *name, size_t *n)
{
    char *path = base_path_join(dir, name), *bytes = NULL;
    size_t size = 0;
    ok(base_file_read(path, 1 << 26, &bytes, &size, err));
    free(path);
    if (n)
        *n = size;
    return bytes;
}

static inline void spit(const char *dir, const char *name, const char *text)
{
    char *path = base_path_join(dir, name);
    ok(base_file_write(path, text, strlen(text), err));
    free(path);
}

/* Both folders hold the same bytes under `name`. */
static inline void same_file(const char *x, const char *y, const char *name)
{
    size_t n = 0, m = 0;
    char *a = slurp(x, name, &n), *b = slurp(y, name, &m);
    cr_assert(n == m && memcmp(a, b, n) == 0, "%s differs", name);
    free(a);
    free(b);
}

static inline void same_adapter(const adapter *x, const adapter *y)
{
    cr_assert_eq(x->n_sites, y->n_sites);
    for (int64_t i = 0; i < x->n_sites; i++) {
        const adapter_site *a = &x->sites[i], *b = &y->sites[i];
        cr_assert_str_eq(a->path, b->path);
        cr_assert(a->in == b->in && a->out == b->out && a->rank == b->rank);
        cr_assert(a->alpha == b->alpha && a->scale == b->scale);
        cr_assert_arr_eq(a->A, b->A, (size_t)(a->rank * a->in) * 4);
        cr_assert_arr_eq(a->B, b->B, (size_t)(a->rank * a->out) * 4);
    }
}

#endif
