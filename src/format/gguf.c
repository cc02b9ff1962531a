/* gguf.c - an opened GGUF file: its keys by name and type, and its tensors as
 * rows of float. Reads with pread, so a file that shrinks is an error and not a
 * signal. Includes base. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/gguf_i.h"

#define CHUNK_BYTES ((size_t)1 << 18)

lori_status format_gguf_open(const char *path, format_gguf **out,
                             lori_error *err)
{
    *out = NULL;
    format_gguf *g = base_alloc(1, sizeof *g);
    if (!g)
        return base_no_memory(err, sizeof *g);
    g->fd = open(path, O_RDONLY | O_CLOEXEC);
    int code = errno;
    g->path = base_strdup(path);
    struct stat st = {0};
    lori_status status = LORI_OK;
    if (!g->path)
        status = base_no_memory(err, strlen(path));
    else if (g->fd < 0)
        status = base_fail_errno(err, code, "cannot open '%s'", path);
    else if (fstat(g->fd, &st) != 0)
        status = base_fail_errno(err, errno, "cannot read '%s'", path);
    else if (!S_ISREG(st.st_mode))
        status = base_fail(err, LORI_IO, "'%s' is not a regular file", path);
    if (!status) {
        g->file_bytes = (uint64_t)st.st_size;
        status = format_gguf_read_header(g, err);
    }
    if (status) {
        format_gguf_close(g);
        return status;
    }
    *out = g;
    return LORI_OK;
}

void format_gguf_close(format_gguf *g)
{
    if (!g)
        return;
    if (g->fd >= 0)
        close(g->fd);
    for (size_t i = 0; i < g->n_kvs; i++) {
        free(g->kvs[i].key);
        free(g->kvs[i].bytes);
        free(g->kvs[i].strings);
        free(g->kvs[i].lengths);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        union {
            const char *view;
            char *owned;
        } name = {g->tensors[i].name};
        free(name.owned);
    }
    free(g->kvs);
    free(g->tensors);
    free(g->by_name);
    free(g->path);
    free(g);
}

/* ---- tensors -------------------------------------------------------- */

size_t format_gguf_count(const format_gguf *g)
{
    return g->n_tensors;
}

const format_gguf_tensor *format_gguf_at(const format_gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

static int compare_tensor(const void *key, const void *element)
{
    const char *name = key;
    const format_gguf_tensor *const *t = element;
    return strcmp(name, (*t)->name);
}

const format_gguf_tensor *format_gguf_find(const format_gguf *g,
                                           const char *name)
{
    if (!g->n_tensors)
        return NULL;
    const format_gguf_tensor **at =
        bsearch(name, g->by_name, g->n_tensors, sizeof *at, compare_tensor);
    return at ? *at : NULL;
}

lori_status format_gguf_rows(const format_gguf *g, const format_gguf_tensor *t,
                             int64_t row, int64_t rows, float *dst,
                             lori_error *err)
{
    const int64_t cols = t->shape[t->n_dims - 1];
    int64_t all = 1, per_block = 1;
    for (int i = 0; i + 1 < t->n_dims; i++)
        all *= t->shape[i]; /* checked when the file was opened */
    if (row < 0 || rows < 0 || row > all || rows > all - row)
        return base_fail(err, LORI_INVALID,
                         "%s: tensor '%s' has %lld rows, asked for %lld from "
                         "row %lld",
                         g->path, t->name, (long long)all, (long long)rows,
                         (long long)row);
    size_t block = 0;
    if (!format_gguf_block(t->type, &per_block, &block))
        return base_fail(err, LORI_UNSUPPORTED, "%s: tensor '%s' has type %u",
                         g->path, t->name, (unsigned)t->type);
    uint64_t left = (uint64_t)(rows * cols / per_block); /* blocks */
    uint64_t at = t->offset + (uint64_t)(row * cols / per_block) * block;
    size_t most = CHUNK_BYTES / block;
    most = left < most ? (size_t)left : most;
    void *chunk = base_alloc(most, block);
    if (!chunk)
        return base_no_memory(err, most * block);
    lori_status status = LORI_OK;
    while (left && !status) {
        size_t n = left < most ? (size_t)left : most;
        status = format_gguf_pread(g, chunk, n * block, at, err);
        if (!status)
            status = format_gguf_decode(t->type, chunk, (int64_t)n * per_block,
                                        dst, err);
        if (status)
            base_prefix(err, status, "%s: tensor '%s'", g->path, t->name);
        dst += (int64_t)n * per_block;
        at += n * block;
        left -= n;
    }
    free(chunk);
    return status;
}

/* ---- key-values ----------------------------------------------------- */

static int compare_key(const void *key, const void *element)
{
    const char *name = key;
    const gguf_kv *kv = element;
    return strcmp(name, kv->key);
}

static const gguf_kv *find_kv(const format_gguf *g, const char *key)
{
    if (!g->n_kvs)
        return NULL;
    return bsearch(key, g->kvs, g->n_kvs, sizeof *g->kvs, compare_key);
}

bool format_gguf_has(const format_gguf *g, const char *key)
{
    return find_kv(g, key) != NULL;
}

/* The key's value or NULL, which `required` forbids. */
static lori_status get(const format_gguf *g, const char *key, bool required,
                       const gguf_kv **kv, lori_error *err)
{
    *kv = find_kv(g, key);
    if (!*kv && required)
        return base_fail(err, LORI_NOT_FOUND, "%s: the key '%s' is missing",
                         g->path, key);
    return LORI_OK;
}

static lori_status wrong_type(const format_gguf *g, const gguf_kv *kv,
                              const char *expected, lori_error *err)
{
    return base_fail(err, LORI_FORMAT, "%s: '%s' is %s%s, expected %s", g->path,
                     kv->key, kv->is_array ? "an array of " : "of type ",
                     format_gguf_value_name(kv->type), expected);
}

/* Element i as an integer; false for other types and beyond int64_t. */
static bool integer_at(const gguf_kv *kv, size_t i, int64_t *out)
{
    size_t size = format_gguf_value_bytes(kv->type);
    uint64_t bits = 0;
    memcpy(&bits, kv->bytes + i * size, size);
    switch (kv->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
        *out = (int64_t)bits;
        return true;
    case GGUF_U64:
        *out = (int64_t)bits;
        return bits <= INT64_MAX;
    case GGUF_I8:
        *out = (int8_t)bits;
        return true;
    case GGUF_I16:
        *out = (int16_t)bits;
        return true;
    case GGUF_I32:
        *out = (int32_t)bits;
        return true;
    case GGUF_I64:
        *out = (int64_t)bits;
        return true;
    default:
        return false;
    }
}

static bool is_integer(const gguf_kv *kv)
{
    switch (kv->type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_U16:
    case GGUF_I16:
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_U64:
    case GGUF_I64:
        return true;
    default:
        return false;
    }
}

static lori_status checked_integer(const format_gguf *g, const gguf_kv *kv,
                                   int64_t lo, int64_t hi, int64_t *io,
                                   lori_error *err)
{
    int64_t x = 0;
    if (!integer_at(kv, 0, &x))
        return base_fail(err, LORI_FORMAT,
                         "%s: '%s' is above 2^63 - 1, expected %lld to %lld",
                         g->path, kv->key, (long long)lo, (long long)hi);
    if (x < lo || x > hi)
        return base_fail(err, LORI_FORMAT,
                         "%s: '%s' is %lld, expected %lld to %lld", g->path,
                         kv->key, (long long)x, (long long)lo, (long long)hi);
    *io = x;
    return LORI_OK;
}

lori_status format_gguf_i64(const format_gguf *g, const char *key,
                            bool required, int64_t lo, int64_t hi, int64_t *io,
                            lori_error *err)
{
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (kv->is_array || !is_integer(kv))
        return wrong_type(g, kv, "an integer", err);
    return checked_integer(g, kv, lo, hi, io, err);
}

lori_status format_gguf_i64_same(const format_gguf *g, const char *key,
                                 bool required, int64_t lo, int64_t hi,
                                 int64_t *io, lori_error *err)
{
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (!is_integer(kv) || kv->count == 0)
        return wrong_type(g, kv, "an integer", err);
    size_t size = format_gguf_value_bytes(kv->type);
    for (size_t i = 1; i < kv->count; i++)
        if (memcmp(kv->bytes, kv->bytes + i * size, size) != 0)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: '%s' differs between layers, which is not "
                             "supported",
                             g->path, key);
    return checked_integer(g, kv, lo, hi, io, err);
}

lori_status format_gguf_f32(const format_gguf *g, const char *key,
                            bool required, float *io, lori_error *err)
{
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (kv->is_array || (kv->type != GGUF_F32 && kv->type != GGUF_F64))
        return wrong_type(g, kv, "f32", err);
    base_to_f32(kv->bytes, kv->type == GGUF_F32 ? BASE_F32 : BASE_F64, io, 1);
    return LORI_OK;
}

lori_status format_gguf_bool(const format_gguf *g, const char *key,
                             bool required, bool *io, lori_error *err)
{
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (kv->is_array || kv->type != GGUF_BOOL)
        return wrong_type(g, kv, "bool", err);
    *io = kv->bytes[0] != 0;
    return LORI_OK;
}

lori_status format_gguf_str(const format_gguf *g, const char *key,
                            bool required, const char **bytes, size_t *n,
                            lori_error *err)
{
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (kv->is_array || kv->type != GGUF_STRING)
        return wrong_type(g, kv, "string", err);
    *bytes = kv->strings[0];
    if (n)
        *n = kv->lengths[0];
    return LORI_OK;
}

lori_status format_gguf_strings(const format_gguf *g, const char *key,
                                bool required, size_t *count,
                                const char *const **strings,
                                const size_t **lengths, lori_error *err)
{
    *count = 0;
    *strings = NULL;
    *lengths = NULL;
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (!kv->is_array || kv->type != GGUF_STRING)
        return wrong_type(g, kv, "an array of string", err);
    *count = kv->count;
    *strings = kv->strings;
    *lengths = kv->lengths;
    return LORI_OK;
}

lori_status format_gguf_f32s(const format_gguf *g, const char *key,
                             bool required, size_t *count, const float **values,
                             lori_error *err)
{
    *count = 0;
    *values = NULL;
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (!kv->is_array || kv->type != GGUF_F32)
        return wrong_type(g, kv, "an array of f32", err);
    *count = kv->count;
    *values = (const float *)(const void *)kv->bytes; /* from malloc: aligned */
    return LORI_OK;
}

lori_status format_gguf_i32s(const format_gguf *g, const char *key,
                             bool required, size_t *count,
                             const int32_t **values, lori_error *err)
{
    *count = 0;
    *values = NULL;
    const gguf_kv *kv;
    BASE_TRY(get(g, key, required, &kv, err));
    if (!kv)
        return LORI_OK;
    if (!kv->is_array || (kv->type != GGUF_I32 && kv->type != GGUF_U32))
        return wrong_type(g, kv, "an array of i32 or u32", err);
    const int32_t *x = (const int32_t *)(const void *)kv->bytes;
    for (size_t i = 0; kv->type == GGUF_U32 && i < kv->count; i++)
        if (x[i] < 0)
            return base_fail(err, LORI_FORMAT,
                             "%s: '%s' element %zu is above 2^31 - 1", g->path,
                             key, i);
    *count = kv->count;
    *values = x;
    return LORI_OK;
}
