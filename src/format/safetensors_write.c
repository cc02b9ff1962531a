/* safetensors_write.c - writes safetensors files and sharded folders with the
 * bytes the reference writer would produce. Refuses duplicate names and an
 * emitter that writes more or fewer bytes than it announced.
 * Source: huggingface/safetensors, serialize(). Includes base, jansson. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format_i.h"

struct format_sink {
    base_out *out;
    const format_desc *desc;
    uint64_t left; /* bytes of this tensor still to come */
};

/* Place of a type in the reference's enum; files list the highest first, so
 * that every tensor is aligned without padding between them. */
static int type_rank(base_dtype dtype)
{
    static const signed char rank[BASE_DTYPES] = {
        [BASE_BOOL] = 0, [BASE_U8] = 1,  [BASE_I8] = 2,   [BASE_I16] = 3,
        [BASE_U16] = 4,  [BASE_F16] = 5, [BASE_BF16] = 6, [BASE_I32] = 7,
        [BASE_U32] = 8,  [BASE_F32] = 9, [BASE_F64] = 10, [BASE_I64] = 11,
        [BASE_U64] = 12,
    };
    return rank[dtype];
}

static int by_type_and_name(const void *pa, const void *pb)
{
    const format_desc *const *a = pa, *const *b = pb;
    int ra = type_rank((*a)->dtype), rb = type_rank((*b)->dtype);
    return ra != rb ? rb - ra : strcmp((*a)->name, (*b)->name);
}

static int by_name(const void *pa, const void *pb)
{
    const format_desc *const *a = pa, *const *b = pb;
    return strcmp((*a)->name, (*b)->name);
}

/* Elements and bytes of one tensor, checked. */
static lori_status measure(const format_desc *desc, uint64_t *elements,
                           uint64_t *bytes, lori_error *err)
{
    if (!desc->name || base_dtype_bytes(desc->dtype) == 0 || desc->n_dims < 0 ||
        desc->n_dims > FORMAT_MAX_DIMS)
        return base_fail(err, LORI_INVALID,
                         "tensor '%s' to write has a bad type or rank",
                         desc->name ? desc->name : "");
    size_t n = strlen(desc->name);
    if (base_utf8_valid(desc->name, n) != n ||
        strcmp(desc->name, "__metadata__") == 0)
        return base_fail(err, LORI_INVALID, "'%s' cannot name a tensor",
                         desc->name);
    int64_t total = 1, size;
    for (int i = 0; i < desc->n_dims; i++)
        if (!base_mul64(total, desc->shape[i], &total))
            total = -1; /* base_mul64 refuses negative factors from here on */
    if (!base_mul64(total, (int64_t)base_dtype_bytes(desc->dtype), &size))
        return base_fail(err, LORI_INVALID,
                         "tensor '%s' to write has a bad shape", desc->name);
    *elements = (uint64_t)total;
    *bytes = (uint64_t)size;
    return LORI_OK;
}

static lori_status check_names(const format_desc *const *order, size_t n,
                               lori_error *err)
{
    const format_desc **sorted = base_alloc(n, sizeof *sorted);
    if (!sorted)
        return base_no_memory(err, n * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = order[i];
    qsort(sorted, n, sizeof *sorted, by_name);
    lori_status status = LORI_OK;
    for (size_t i = 1; i < n && !status; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            status = base_fail(err, LORI_INVALID,
                               "tensor '%s' would be written twice",
                               sorted[i]->name);
    free(sorted);
    return status;
}

static void quote(const char *s, base_str *out)
{
    format_json_quote(s, strlen(s), false, out);
}

/* The 8-byte length, the header, its padding. `order` is in file order. */
static lori_status make_header(const format_desc *const *order, size_t n,
                               const format_pair *metadata, size_t n_meta,
                               base_str *out, lori_error *err)
{
    static const char no_length[8] = {0};
    base_str_add(out, no_length, sizeof no_length);
    base_str_puts(out, "{");
    if (n_meta)
        base_str_puts(out, "\"__metadata__\":{");
    for (size_t i = 0; i < n_meta; i++) {
        base_str_puts(out, i ? "," : "");
        quote(metadata[i].key, out);
        base_str_puts(out, ":");
        quote(metadata[i].value, out);
    }
    if (n_meta)
        base_str_puts(out, n ? "}," : "}");
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const format_desc *d = order[i];
        uint64_t elements = 0, bytes = 0;
        BASE_TRY(measure(d, &elements, &bytes, err));
        base_str_puts(out, i ? "," : "");
        quote(d->name, out);
        base_str_printf(out, ":{\"dtype\":\"%s\",\"shape\":[",
                        base_dtype_name(d->dtype));
        for (int k = 0; k < d->n_dims; k++)
            base_str_printf(out, "%s%lld", k ? "," : "",
                            (long long)d->shape[k]);
        base_str_printf(out, "],\"data_offsets\":[%llu,%llu]}",
                        (unsigned long long)at,
                        (unsigned long long)(at + bytes));
        if (__builtin_add_overflow(at, bytes, &at))
            return base_fail(err, LORI_INVALID, "the tensors are too large");
    }
    base_str_puts(out, "}");
    while (!out->failed && out->len % 8)
        base_str_puts(out, " ");
    if (out->failed)
        return base_no_memory(err, out->len);
    uint64_t length = out->len - 8;
    for (int i = 0; i < 8; i++)
        out->s[i] = (char)(unsigned char)(length >> 8 * i);
    return LORI_OK;
}

lori_status format_sink_write(format_sink *sink, const void *bytes, size_t n,
                              lori_error *err)
{
    if (n > sink->left)
        return base_fail(err, LORI_INVALID,
                         "tensor '%s': more bytes written than its shape has",
                         sink->desc->name);
    sink->left -= n;
    return base_out_write(sink->out, bytes, n, err);
}

static lori_status write_tensors(base_out *out, const format_desc *const *order,
                                 size_t n, format_emit *emit, void *context,
                                 lori_error *err)
{
    for (size_t i = 0; i < n; i++) {
        format_sink sink = {.out = out, .desc = order[i]};
        uint64_t elements = 0;
        BASE_TRY(measure(order[i], &elements, &sink.left, err));
        BASE_TRY(emit(context, order[i], &sink, err));
        if (sink.left)
            return base_fail(err, LORI_INVALID,
                             "tensor '%s': %llu bytes fewer written than its "
                             "shape has",
                             order[i]->name, (unsigned long long)sink.left);
    }
    return LORI_OK;
}

/* One file of the tensors order[0..n), which it puts into file order. */
static lori_status emit_file(const char *path, const format_desc **order,
                             size_t n, const format_pair *metadata,
                             size_t n_meta, format_emit *emit, void *context,
                             lori_error *err)
{
    uint64_t elements = 0, bytes = 0;
    for (size_t i = 0; i < n; i++)
        BASE_TRY(measure(order[i], &elements, &bytes, err));
    BASE_TRY(check_names(order, n, err));
    qsort(order, n, sizeof *order, by_type_and_name);
    base_str header = {0};
    base_out *out = NULL;
    lori_status status = make_header(order, n, metadata, n_meta, &header, err);
    if (!status)
        status = base_out_open(path, &out, err);
    if (!status)
        status = base_out_write(out, header.s, header.len, err);
    if (!status)
        status = write_tensors(out, order, n, emit, context, err);
    base_str_free(&header);
    if (status) {
        base_out_abort(out);
        return status;
    }
    return base_out_commit(out, err);
}

static const format_desc **pointers(const format_desc *tensors, size_t n)
{
    const format_desc **order = base_alloc(n, sizeof *order);
    for (size_t i = 0; order && i < n; i++)
        order[i] = &tensors[i];
    return order;
}

lori_status format_st_emit(const char *path, const format_desc *tensors,
                           size_t n, const format_pair *metadata, size_t n_meta,
                           format_emit *emit, void *context, lori_error *err)
{
    const format_desc **order = pointers(tensors, n);
    if (!order)
        return base_no_memory(err, n * sizeof *order);
    lori_status status =
        emit_file(path, order, n, metadata, n_meta, emit, context, err);
    free(order);
    return status;
}

static lori_status emit_data(void *context, const format_desc *desc,
                             format_sink *sink, lori_error *err)
{
    (void)context;
    return format_sink_write(sink, desc->data, (size_t)sink->left, err);
}

lori_status format_st_write(const char *path, const format_desc *tensors,
                            size_t n, const format_pair *metadata,
                            size_t n_meta, lori_error *err)
{
    return format_st_emit(path, tensors, n, metadata, n_meta, emit_data, NULL,
                          err);
}

/* ---- shards --------------------------------------------------------- */

/* shard[i] of tensor i, and how many shards, as huggingface_hub splits: in the
 * given order; a tensor over the limit gets a shard of its own and the open
 * shard goes on after it. Shards are numbered in the order they are closed. */
typedef struct split {
    size_t *shard;
    size_t n_shards;
    uint64_t elements, bytes;
} split;

/* Moves the tensors of the open shard to the next number. */
static void close_shard(split *s, size_t n, size_t open_mark)
{
    for (size_t i = 0; i < n; i++)
        if (s->shard[i] == open_mark)
            s->shard[i] = s->n_shards;
    s->n_shards++;
}

static lori_status split_tensors(const format_desc *tensors, size_t n,
                                 uint64_t max, split *s, lori_error *err)
{
    const size_t open_mark = SIZE_MAX, unset = SIZE_MAX - 1;
    *s = (split){.shard = base_alloc(n, sizeof *s->shard)};
    if (!s->shard)
        return base_no_memory(err, n * sizeof *s->shard);
    for (size_t i = 0; i < n; i++)
        s->shard[i] = unset;
    uint64_t open = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        uint64_t elements = 0, bytes = 0;
        BASE_TRY(measure(&tensors[i], &elements, &bytes, err));
        if (__builtin_add_overflow(s->bytes, bytes, &s->bytes))
            return base_fail(err, LORI_INVALID, "the tensors are too large");
        s->elements += elements; /* no more than bytes: cannot overflow */
        if (bytes > max) {
            s->shard[i] = s->n_shards++;
            continue;
        }
        if (any && open + bytes > max) {
            close_shard(s, i, open_mark);
            open = 0;
        }
        s->shard[i] = open_mark;
        open += bytes;
        any = true;
    }
    if (any || n == 0)
        close_shard(s, n, open_mark);
    return LORI_OK;
}

/* The path of a shard, malloc'd: stem.safetensors if it is the only one. */
static char *shard_path(const char *folder, const char *stem, size_t i,
                        size_t n)
{
    base_str name = {0};
    if (n == 1)
        base_str_printf(&name, "%s.safetensors", stem);
    else
        base_str_printf(&name, "%s-%05zu-of-%05zu.safetensors", stem, i + 1, n);
    char *path = name.failed ? NULL : base_path_join(folder, name.s);
    base_str_free(&name);
    return path;
}

static lori_status emit_shard(const char *path, const format_desc *tensors,
                              size_t n, const split *s, size_t shard,
                              format_emit *emit, void *context, lori_error *err)
{
    static const format_pair metadata = {"format", "pt"};
    const format_desc **order = base_alloc(n, sizeof *order);
    if (!order)
        return base_no_memory(err, n * sizeof *order);
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (s->shard[i] == shard)
            order[count++] = &tensors[i];
    lori_status status =
        emit_file(path, order, count, &metadata, 1, emit, context, err);
    free(order);
    return status;
}

/* json_object_set_new with every failure, NULL values included, told. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static lori_status write_index(const char *folder, const char *stem,
                               const format_desc *tensors, size_t n,
                               const split *s, lori_error *err)
{
    json_t *index = json_object(), *metadata = json_object();
    json_t *map = json_object();
    bool made = put(metadata, "total_parameters",
                    json_integer((json_int_t)s->elements)) &&
                put(metadata, "total_size", json_integer((json_int_t)s->bytes));
    for (size_t i = 0; i < n && made; i++) {
        char *path = shard_path("", stem, s->shard[i], s->n_shards);
        made = path &&
               put(map, tensors[i].name, json_string(base_path_name(path)));
        free(path);
    }
    made = json_object_set(index, "metadata", metadata) == 0 && made;
    made = json_object_set(index, "weight_map", map) == 0 && made;
    json_decref(metadata);
    json_decref(map);
    base_str name = {0};
    base_str_printf(&name, "%s.safetensors.index.json", stem);
    char *path = name.failed ? NULL : base_path_join(folder, name.s);
    base_str_free(&name);
    lori_status status;
    if (made && path)
        status = format_json_write(path, index,
                                   FORMAT_JSON_SORT | FORMAT_JSON_INDENT |
                                       FORMAT_JSON_ASCII,
                                   true, err);
    else
        status = base_no_memory(err, n * sizeof(json_t));
    free(path);
    json_decref(index);
    return status;
}

/* Removes the first `count` shards again. */
static void remove_shards(const char *folder, const char *stem, const split *s,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *path = shard_path(folder, stem, i, s->n_shards);
        if (path)
            unlink(path);
        free(path);
    }
}

static lori_status emit_shards(const char *folder, const char *stem,
                               const format_desc *tensors, size_t n,
                               const split *s, format_emit *emit, void *context,
                               lori_error *err)
{
    lori_status status = LORI_OK;
    size_t done = 0;
    while (done < s->n_shards && !status) {
        char *path = shard_path(folder, stem, done, s->n_shards);
        if (!path) {
            status = base_no_memory(err, strlen(folder) + strlen(stem));
        } else {
            status = emit_shard(path, tensors, n, s, done, emit, context, err);
            free(path);
        }
        if (!status)
            done++;
    }
    if (!status && s->n_shards > 1)
        status = write_index(folder, stem, tensors, n, s, err);
    if (status)
        remove_shards(folder, stem, s, done);
    return status;
}

lori_status format_st_emit_folder(const char *folder, const char *stem,
                                  const format_desc *tensors, size_t n,
                                  uint64_t max_shard_bytes, format_emit *emit,
                                  void *context, lori_error *err)
{
    split s;
    lori_status status = split_tensors(tensors, n, max_shard_bytes, &s, err);
    if (!status) {
        /* A name twice in two shards must be found before any is written. */
        const format_desc **all = pointers(tensors, n);
        status = all ? check_names(all, n, err)
                     : base_no_memory(err, n * sizeof *all);
        free(all);
    }
    if (!status)
        status = emit_shards(folder, stem, tensors, n, &s, emit, context, err);
    free(s.shard);
    return status;
}
