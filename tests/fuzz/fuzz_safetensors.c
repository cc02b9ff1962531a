/* fuzz_safetensors.c - a safetensors file: every tensor that comes out can be
 * read whole, is aligned, and is found by its name. */
#include "fuzz/fuzz.h"

#include "format/format.h"
#include "fuzz/memory_file.h"

static void check(const format_store *store, const format_tensor *t)
{
    size_t bytes = base_dtype_bytes(t->dtype);
    FUZZ_CHECK(t->n_dims >= 0 && t->n_dims <= FORMAT_MAX_DIMS);
    for (int i = 0; i < t->n_dims; i++)
        FUZZ_CHECK(t->shape[i] >= 0 &&
                   base_mul(bytes, (size_t)t->shape[i], &bytes));
    FUZZ_CHECK(bytes == t->bytes);
    FUZZ_CHECK(!bytes || (uintptr_t)t->data % base_dtype_bytes(t->dtype) == 0);
    FUZZ_CHECK(format_store_find(store, t->name) == t);
    base_fnv1a(BASE_FNV_START, t->data, t->bytes);
}

static void try_file(const uint8_t *data, size_t n)
{
    char path[64];
    int fd = memory_file(data, n, path);
    format_store *store = NULL;
    lori_error err = {0};
    if (format_store_open_file(path, &store, &err) == LORI_OK) {
        for (size_t i = 0; i < format_store_count(store); i++)
            check(store, format_store_at(store, i));
        (void)format_store_metadata(store, "format");
    } else {
        FUZZ_CHECK(!store && err.message[0]);
    }
    format_store_close(store);
    close(fd);
}

/* Input that begins with '{' is a header up to its first NUL and then the
 * data; its length is put before it, which mutation would hardly get right. */
int fuzz_safetensors(const uint8_t *data, size_t n)
{
    if (!n || data[0] != '{') {
        try_file(data, n);
        return 0;
    }
    const uint8_t *end = memchr(data, 0, n);
    uint64_t header = end ? (uint64_t)(end - data) : n;
    base_str file = {0};
    base_str_add(&file, (const char *)&header, sizeof header);
    base_str_add(&file, (const char *)data, header);
    if (end)
        base_str_add(&file, (const char *)end + 1, n - header - 1);
    if (!file.failed)
        try_file((const uint8_t *)file.s, file.len);
    base_str_free(&file);
    return 0;
}

FUZZ_TARGET(fuzz_safetensors)
