/* gguf_read.c - the container: key-values and tensor infos of a GGUF file into
 * owned memory. The file is foreign input: every count and length is compared
 * with the bytes that are left before memory is taken for it. Refuses version
 * 1, big-endian files, arrays in arrays, duplicate names, and tensors that do
 * not follow each other exactly.
 * Source: ggml docs/gguf.md; limits from spec/gguf.md 1.4. Includes base. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/gguf_i.h"

#define COUNT_MAX      65536U /* key-values, tensors */
#define KEY_MAX        65535U
#define NAME_MAX_BYTES 63U
#define STRING_MAX     ((uint64_t)1 << 30)
#define ARRAY_MAX      ((uint64_t)1 << 30)
#define ALIGNMENT_MAX  65536U
/* Least bytes of a key-value (length, 1-byte key, type, 1-byte value) and of a
 * tensor info (length, 1-byte name, rank, one dimension, type, offset). */
#define KV_LEAST   14U
#define INFO_LEAST 33U

typedef struct cursor {
    const format_gguf *g;
    uint64_t at; /* of the next byte to take */
    size_t used, filled;
    unsigned char buffer[65536];
} cursor;

static const struct {
    const char *name;
    unsigned char bytes;
} value_types[GGUF_TYPES] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},
    [GGUF_U16] = {"u16", 2},       [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},       [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0},
    [GGUF_U64] = {"u64", 8},       [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

size_t format_gguf_value_bytes(gguf_type type)
{
    return value_types[type].bytes;
}

const char *format_gguf_value_name(gguf_type type)
{
    return value_types[type].name;
}

/* ---- bytes ---------------------------------------------------------- */

lori_status format_gguf_pread(const format_gguf *g, void *dst, size_t n,
                              uint64_t at, lori_error *err)
{
    unsigned char *p = dst;
    while (n) {
        ssize_t got = pread(g->fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return base_fail_errno(err, errno, "cannot read '%s'", g->path);
        if (got == 0)
            return base_fail(err, LORI_FORMAT,
                             "%s: ends at byte %llu, while it is being read",
                             g->path, (unsigned long long)at);
        p += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return LORI_OK;
}

static uint64_t left(const cursor *c)
{
    return c->g->file_bytes - c->at;
}

static lori_status fail_here(const cursor *c, const char *what, lori_error *err)
{
    return base_fail(err, LORI_FORMAT, "%s: byte %llu: %s", c->g->path,
                     (unsigned long long)c->at, what);
}

static lori_status take(cursor *c, void *dst, size_t n, lori_error *err)
{
    unsigned char *p = dst;
    if (n > left(c))
        return fail_here(c, "the file ends inside its header; fetch it again",
                         err);
    while (n) {
        if (c->used == c->filled) {
            uint64_t rest = left(c);
            c->used = 0;
            c->filled = 0;
            size_t fill =
                rest < sizeof c->buffer ? (size_t)rest : sizeof c->buffer;
            BASE_TRY(format_gguf_pread(c->g, c->buffer, fill, c->at, err));
            c->filled = fill;
        }
        size_t part = c->filled - c->used;
        part = part < n ? part : n;
        memcpy(p, c->buffer + c->used, part);
        p += part;
        n -= part;
        c->used += part;
        c->at += part;
    }
    return LORI_OK;
}

static lori_status take_u32(cursor *c, uint32_t *x, lori_error *err)
{
    *x = 0;
    return take(c, x, sizeof *x, err);
}

static lori_status take_u64(cursor *c, uint64_t *x, lori_error *err)
{
    *x = 0;
    return take(c, x, sizeof *x, err);
}

static lori_status take_length(cursor *c, uint64_t most, const char *what,
                               uint64_t *n, lori_error *err)
{
    BASE_TRY(take_u64(c, n, err));
    if (*n > most || *n > left(c))
        return base_fail(err, LORI_FORMAT,
                         "%s: byte %llu: %s of %llu bytes, with %llu left",
                         c->g->path, (unsigned long long)c->at, what,
                         (unsigned long long)*n, (unsigned long long)left(c));
    return LORI_OK;
}

/* A short text without NUL. */
static lori_status take_name(cursor *c, uint64_t most, const char *what,
                             char **out, lori_error *err)
{
    *out = NULL;
    uint64_t n = 0;
    BASE_TRY(take_length(c, most, what, &n, err));
    char *s = base_alloc((size_t)n + 1, 1);
    if (!s)
        return base_no_memory(err, (size_t)n + 1);
    lori_status status = take(c, s, (size_t)n, err);
    if (!status && (n == 0 || strlen(s) != n || base_utf8_valid(s, n) != n))
        status = base_fail(err, LORI_FORMAT,
                           "%s: byte %llu: %s is empty or not text", c->g->path,
                           (unsigned long long)c->at, what);
    if (status)
        free(s);
    else
        *out = s;
    return status;
}

/* ---- key-values ----------------------------------------------------- */

/* Appends n bytes of the file and a NUL. */
static lori_status append(cursor *c, uint64_t n, base_str *text,
                          lori_error *err)
{
    char part[4096];
    while (n) {
        size_t some = n < sizeof part ? (size_t)n : sizeof part;
        BASE_TRY(take(c, part, some, err));
        base_str_add(text, part, some);
        n -= some;
    }
    base_str_add(text, "", 1);
    return text->failed ? base_no_memory(err, text->len) : LORI_OK;
}

static lori_status read_strings(cursor *c, gguf_kv *kv, lori_error *err)
{
    kv->lengths = base_alloc(kv->count, sizeof *kv->lengths);
    kv->strings = base_alloc(kv->count, sizeof *kv->strings);
    if (!kv->lengths || !kv->strings)
        return base_no_memory(err, kv->count * sizeof *kv->strings);
    base_str text = {0};
    lori_status status = LORI_OK;
    for (size_t i = 0; i < kv->count && !status; i++) {
        uint64_t n = 0;
        status = take_length(c, STRING_MAX, "a string", &n, err);
        if (!status)
            status = append(c, n, &text, err);
        kv->lengths[i] = (size_t)n;
    }
    if (status) {
        base_str_free(&text);
        return status;
    }
    kv->bytes = base_str_take(&text);
    if (!kv->bytes)
        return base_no_memory(err, 1);
    const char *at = kv->bytes;
    for (size_t i = 0; i < kv->count; i++) {
        kv->strings[i] = at;
        at += kv->lengths[i] + 1;
    }
    return LORI_OK;
}

static lori_status read_packed(cursor *c, gguf_kv *kv, lori_error *err)
{
    size_t size = format_gguf_value_bytes(kv->type);
    kv->bytes = base_alloc(kv->count, size);
    if (!kv->bytes)
        return base_no_memory(err, kv->count * size);
    BASE_TRY(take(c, kv->bytes, kv->count * size, err));
    if (kv->type == GGUF_BOOL)
        for (size_t i = 0; i < kv->count; i++)
            if (kv->bytes[i] != 0 && kv->bytes[i] != 1)
                return fail_here(c, "a bool is neither 0 nor 1", err);
    return LORI_OK;
}

static lori_status read_type(cursor *c, gguf_type *type, lori_error *err)
{
    uint32_t code = 0;
    BASE_TRY(take_u32(c, &code, err));
    if (code >= GGUF_TYPES)
        return base_fail(err, LORI_FORMAT,
                         "%s: byte %llu: value type %u is not known",
                         c->g->path, (unsigned long long)c->at, (unsigned)code);
    *type = (gguf_type)code;
    return LORI_OK;
}

static lori_status read_array_start(cursor *c, gguf_kv *kv, lori_error *err)
{
    BASE_TRY(read_type(c, &kv->type, err));
    if (kv->type == GGUF_ARRAY)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: key '%s' holds arrays in an array, which are "
                         "not read here",
                         c->g->path, kv->key);
    uint64_t n = 0;
    BASE_TRY(take_u64(c, &n, err));
    uint64_t size = kv->type == GGUF_STRING ? 8 /* its length alone */
                                            : format_gguf_value_bytes(kv->type);
    if (n > ARRAY_MAX || n * size > left(c))
        return base_fail(err, LORI_FORMAT,
                         "%s: key '%s' is said to have %llu elements, with "
                         "%llu bytes left",
                         c->g->path, kv->key, (unsigned long long)n,
                         (unsigned long long)left(c));
    kv->is_array = true;
    kv->count = (size_t)n;
    return LORI_OK;
}

static lori_status read_kv(cursor *c, gguf_kv *kv, lori_error *err)
{
    BASE_TRY(take_name(c, KEY_MAX, "a key", &kv->key, err));
    BASE_TRY(read_type(c, &kv->type, err));
    kv->count = 1;
    lori_status status = LORI_OK;
    if (kv->type == GGUF_ARRAY)
        status = read_array_start(c, kv, err);
    if (!status)
        status = kv->type == GGUF_STRING ? read_strings(c, kv, err)
                                         : read_packed(c, kv, err);
    return status;
}

static int by_key(const void *pa, const void *pb)
{
    const gguf_kv *a = pa, *b = pb;
    return strcmp(a->key, b->key);
}

static lori_status read_kvs(cursor *c, format_gguf *g, size_t n,
                            lori_error *err)
{
    g->kvs = base_alloc(n, sizeof *g->kvs);
    if (!g->kvs)
        return base_no_memory(err, n * sizeof *g->kvs);
    for (size_t i = 0; i < n; i++) {
        g->n_kvs++;
        BASE_TRY(read_kv(c, &g->kvs[i], err));
    }
    qsort(g->kvs, n, sizeof *g->kvs, by_key);
    for (size_t i = 1; i < n; i++)
        if (strcmp(g->kvs[i - 1].key, g->kvs[i].key) == 0)
            return base_fail(err, LORI_FORMAT, "%s: key '%s' is there twice",
                             g->path, g->kvs[i].key);
    return LORI_OK;
}

/* ---- tensor infos --------------------------------------------------- */

/* dims are stored innermost first; *shape* is outermost first. */
static lori_status read_shape(cursor *c, format_gguf_tensor *t,
                              int64_t *elements, lori_error *err)
{
    uint32_t n = 0;
    BASE_TRY(take_u32(c, &n, err));
    if (n < 1 || n > 4)
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' has %u dimensions, expected 1 to 4",
                         c->g->path, t->name, (unsigned)n);
    t->n_dims = (int)n;
    *elements = 1;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t dim = 0;
        BASE_TRY(take_u64(c, &dim, err));
        if (dim < 1 || dim > INT64_MAX ||
            !base_mul64(*elements, (int64_t)dim, elements))
            return base_fail(err, LORI_FORMAT,
                             "%s: tensor '%s' has an impossible dimension %llu",
                             c->g->path, t->name, (unsigned long long)dim);
        t->shape[n - 1 - i] = (int64_t)dim;
    }
    return LORI_OK;
}

static lori_status read_info(cursor *c, format_gguf_tensor *t, lori_error *err)
{
    char *name;
    BASE_TRY(take_name(c, NAME_MAX_BYTES, "a tensor name", &name, err));
    t->name = name;
    int64_t elements = 0, values = 1, bytes;
    BASE_TRY(read_shape(c, t, &elements, err));
    BASE_TRY(take_u32(c, &t->type, err));
    size_t block = 0;
    if (!format_gguf_block(t->type, &values, &block))
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: tensor '%s' has ggml type %u (%s), which is not "
                         "decoded here; use a file in F32, F16, BF16, Q8_0, "
                         "Q4_0, Q4_1, Q5_0, Q5_1 or Q2_K to Q6_K",
                         c->g->path, t->name, (unsigned)t->type,
                         format_gguf_type_name(t->type));
    if (t->shape[t->n_dims - 1] % values)
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' has rows of %lld values, not whole "
                         "blocks of %s",
                         c->g->path, t->name,
                         (long long)t->shape[t->n_dims - 1],
                         format_gguf_type_name(t->type));
    if (!base_mul64(elements / values, (int64_t)block, &bytes))
        return base_fail(err, LORI_FORMAT, "%s: tensor '%s' is too large",
                         c->g->path, t->name);
    t->bytes = (uint64_t)bytes;
    return take_u64(c, &t->offset, err); /* from the data's start, as yet */
}

static int by_tensor_name(const void *pa, const void *pb)
{
    const format_gguf_tensor *const *a = pa, *const *b = pb;
    return strcmp((*a)->name, (*b)->name);
}

static lori_status index_names(format_gguf *g, lori_error *err)
{
    size_t n = g->n_tensors;
    g->by_name = base_alloc(n, sizeof *g->by_name);
    if (!g->by_name)
        return base_no_memory(err, n * sizeof *g->by_name);
    for (size_t i = 0; i < n; i++)
        g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, n, sizeof *g->by_name, by_tensor_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(g->by_name[i - 1]->name, g->by_name[i]->name) == 0)
            return base_fail(err, LORI_FORMAT, "%s: tensor '%s' is there twice",
                             g->path, g->by_name[i]->name);
    return LORI_OK;
}

static lori_status read_infos(cursor *c, format_gguf *g, size_t n,
                              lori_error *err)
{
    g->tensors = base_alloc(n, sizeof *g->tensors);
    if (!g->tensors)
        return base_no_memory(err, n * sizeof *g->tensors);
    for (size_t i = 0; i < n; i++) {
        g->n_tensors++;
        BASE_TRY(read_info(c, &g->tensors[i], err));
    }
    return index_names(g, err);
}

static lori_status read_alignment(const format_gguf *g, uint64_t *alignment,
                                  lori_error *err)
{
    *alignment = 32;
    for (size_t i = 0; i < g->n_kvs; i++) {
        const gguf_kv *kv = &g->kvs[i];
        if (strcmp(kv->key, "general.alignment") != 0)
            continue;
        uint32_t x = 0;
        if (!kv->is_array && kv->type == GGUF_U32)
            memcpy(&x, kv->bytes, sizeof x);
        if (x < 8 || x > ALIGNMENT_MAX || x & (x - 1))
            return base_fail(err, LORI_FORMAT,
                             "%s: general.alignment is not a u32 power of two "
                             "from 8 to %u",
                             g->path, ALIGNMENT_MAX);
        *alignment = x;
    }
    return LORI_OK;
}

/* x up to a multiple of `to`; false on overflow. */
static bool round_up(uint64_t x, uint64_t to, uint64_t *out)
{
    if (__builtin_add_overflow(x, to - 1, out))
        return false;
    *out &= ~(to - 1);
    return true;
}

/* Each tensor must begin where the padded sum of those before it ends: then
 * none overlaps another and nothing is hidden between them. Offsets become
 * offsets in the file. */
static lori_status place_tensors(format_gguf *g, uint64_t header_end,
                                 lori_error *err)
{
    uint64_t alignment = 0, next = 0;
    BASE_TRY(read_alignment(g, &alignment, err));
    if (!round_up(header_end, alignment, &g->data_start))
        return base_fail(err, LORI_FORMAT, "%s: too large", g->path);
    for (size_t i = 0; i < g->n_tensors; i++) {
        format_gguf_tensor *t = &g->tensors[i];
        if (t->offset != next)
            return base_fail(err, LORI_FORMAT,
                             "%s: tensor '%s' is at offset %llu, expected "
                             "%llu: gap, overlap or bad alignment",
                             g->path, t->name, (unsigned long long)t->offset,
                             (unsigned long long)next);
        uint64_t end;
        if (__builtin_add_overflow(g->data_start, next, &t->offset) ||
            __builtin_add_overflow(t->offset, t->bytes, &end) ||
            end > g->file_bytes)
            return base_fail(err, LORI_FORMAT,
                             "%s: tensor '%s' ends beyond the file's %llu "
                             "bytes; it is cut short, fetch it again",
                             g->path, t->name,
                             (unsigned long long)g->file_bytes);
        /* end <= file size <= INT64_MAX: neither sum wraps. */
        if (!round_up(next + t->bytes, alignment, &next))
            return base_fail(err, LORI_FORMAT, "%s: too large", g->path);
    }
    return LORI_OK;
}

/* ---- start ---------------------------------------------------------- */

static lori_status read_start(cursor *c, uint64_t *n_tensors, uint64_t *n_kvs,
                              lori_error *err)
{
    char magic[4];
    uint32_t version = 0;
    if (left(c) < 24)
        return base_fail(err, LORI_FORMAT, "%s: too short for a GGUF file",
                         c->g->path);
    BASE_TRY(take(c, magic, sizeof magic, err));
    if (memcmp(magic, "GGUF", 4) != 0)
        return base_fail(err, LORI_FORMAT, "%s: not a GGUF file", c->g->path);
    BASE_TRY(take_u32(c, &version, err));
    if ((version & 0xffffU) == 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: a big-endian GGUF file, not read here",
                         c->g->path);
    if (version != 2 && version != 3)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: GGUF version %u; versions 2 and 3 are read here",
                         c->g->path, (unsigned)version);
    BASE_TRY(take_u64(c, n_tensors, err));
    BASE_TRY(take_u64(c, n_kvs, err));
    if (*n_kvs > COUNT_MAX || *n_kvs > left(c) / KV_LEAST ||
        *n_tensors > COUNT_MAX || *n_tensors > left(c) / INFO_LEAST)
        return base_fail(err, LORI_FORMAT,
                         "%s: said to hold %llu keys and %llu tensors in "
                         "%llu bytes",
                         c->g->path, (unsigned long long)*n_kvs,
                         (unsigned long long)*n_tensors,
                         (unsigned long long)c->g->file_bytes);
    return LORI_OK;
}

lori_status format_gguf_read_header(format_gguf *g, lori_error *err)
{
    cursor *c = base_alloc(1, sizeof *c);
    if (!c)
        return base_no_memory(err, sizeof *c);
    c->g = g;
    uint64_t n_tensors = 0, n_kvs = 0;
    lori_status status = read_start(c, &n_tensors, &n_kvs, err);
    if (!status)
        status = read_kvs(c, g, (size_t)n_kvs, err);
    if (!status)
        status = read_infos(c, g, (size_t)n_tensors, err);
    if (!status)
        status = place_tensors(g, c->at, err);
    free(c);
    return status;
}
