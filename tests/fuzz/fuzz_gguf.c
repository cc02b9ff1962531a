/* fuzz_gguf.c - a GGUF file: every key answers, every tensor decodes or says
 * why not. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "fuzz/memory_file.h"

static void decode(const format_gguf *g, const format_gguf_tensor *t)
{
    const int64_t cols = t->shape[t->n_dims - 1];
    int64_t rows = 1;
    for (int i = 0; i + 1 < t->n_dims; i++)
        rows *= t->shape[i];
    FUZZ_CHECK(format_gguf_find(g, t->name) == t);
    /* The smallest type is 84 bytes for 256 values, so a tensor that fits its
     * file is never much larger decoded. */
    float *y = base_alloc((size_t)cols, sizeof *y);
    lori_error err;
    for (int64_t r = 0; y && r < rows && r < 8; r++)
        format_gguf_rows(g, t, r, 1, y, &err);
    free(y);
}

static void ask(const format_gguf *g, const char *key)
{
    lori_error err;
    int64_t i = 5;
    float f = 0;
    bool b = false;
    const char *s = NULL;
    size_t n = 0;
    const char *const *strings;
    const size_t *lengths;
    const float *floats;
    const int32_t *ints;
    if (format_gguf_i64(g, key, true, -9, 9, &i, &err) == LORI_OK)
        FUZZ_CHECK(i >= -9 && i <= 9);
    format_gguf_i64_same(g, key, false, INT64_MIN, INT64_MAX, &i, &err);
    format_gguf_f32(g, key, true, &f, &err);
    format_gguf_bool(g, key, true, &b, &err);
    if (format_gguf_str(g, key, true, &s, &n, &err) == LORI_OK)
        FUZZ_CHECK(s[n] == '\0');
    if (format_gguf_strings(g, key, true, &n, &strings, &lengths, &err) ==
        LORI_OK)
        for (size_t k = 0; k < n; k++)
            FUZZ_CHECK(strings[k][lengths[k]] == '\0');
    if (format_gguf_f32s(g, key, true, &n, &floats, &err) == LORI_OK)
        base_fnv1a(BASE_FNV_START, floats, n * sizeof *floats);
    if (format_gguf_i32s(g, key, true, &n, &ints, &err) == LORI_OK)
        base_fnv1a(BASE_FNV_START, ints, n * sizeof *ints);
}

int fuzz_gguf(const uint8_t *data, size_t n)
{
    static const char *const keys[] = {"general.architecture",
                                       "general.alignment", "x.y", "a", "s"};
    char path[64];
    int fd = memory_file(data, n, path);
    format_gguf *g = NULL;
    lori_error err = {0};
    if (format_gguf_open(path, &g, &err) == LORI_OK) {
        for (size_t i = 0; i < format_gguf_count(g); i++)
            decode(g, format_gguf_at(g, i));
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            ask(g, keys[i]);
    } else {
        FUZZ_CHECK(!g && err.message[0]);
    }
    format_gguf_close(g);
    close(fd);
    return 0;
}

FUZZ_TARGET(fuzz_gguf)
