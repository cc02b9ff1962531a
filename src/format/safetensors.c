/* safetensors.c - reads safetensors files: one, or the shards an index names.
 * Tensors are views into a read-only map; only a tensor that stands at an odd
 * address for its type is copied. Refuses gaps, overlaps, wrong sizes, unknown
 * types, headers over 100 MB, and shard names that leave the folder.
 * Source: huggingface/safetensors README, "Format". Includes base, jansson. */
#include <stdlib.h>

#include "format/format_i.h"

#define HEADER_MAX 100000000U

typedef struct st_file {
    char *path;
    base_map map;
    json_t *header; /* tensor names and metadata are borrowed from it */
    void *copies;   /* realigned tensors, one allocation */
} st_file;

struct format_store {
    st_file *files;
    size_t n_files;
    format_tensor *tensors;
    size_t n_tensors;
};

/* ---- one entry of a header ------------------------------------------ */

static lori_status entry_fail(const st_file *file, const char *name,
                              const char *what, lori_error *err)
{
    return base_fail(err, LORI_FORMAT, "%s: tensor '%s': %s", file->path, name,
                     what);
}

static lori_status entry_type(const st_file *file, const json_t *entry,
                              format_tensor *t, lori_error *err)
{
    const json_t *dtype = json_object_get(entry, "dtype");
    if (!json_is_string(dtype))
        return entry_fail(file, t->name, "no dtype", err);
    const char *s = json_string_value(dtype);
    if (!base_dtype_parse(s, json_string_length(dtype), &t->dtype))
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: tensor '%s' has dtype %.32s, which is not read "
                         "here; save it as BF16, F16 or F32",
                         file->path, t->name, s);
    return LORI_OK;
}

/* Shape and its size in bytes, overflow-checked. */
static lori_status entry_shape(const st_file *file, const json_t *entry,
                               format_tensor *t, uint64_t *bytes,
                               lori_error *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return entry_fail(file, t->name, "no shape", err);
    if (json_array_size(shape) > FORMAT_MAX_DIMS)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: tensor '%s' has %zu dimensions, at most %d are "
                         "read here",
                         file->path, t->name, json_array_size(shape),
                         FORMAT_MAX_DIMS);
    t->n_dims = (int)json_array_size(shape);
    int64_t total = (int64_t)base_dtype_bytes(t->dtype);
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return entry_fail(file, t->name,
                              "a dimension is not a whole number >= 0", err);
        t->shape[i] = json_integer_value(dim);
        if (!base_mul64(total, t->shape[i], &total))
            return entry_fail(file, t->name, "the shape overflows", err);
    }
    *bytes = (uint64_t)total;
    return LORI_OK;
}

/* Sets t->data to `data` + begin, aligned or not: see realign. */
static lori_status entry_place(const st_file *file, const json_t *entry,
                               const unsigned char *data, size_t data_bytes,
                               format_tensor *t, lori_error *err)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *b = json_array_get(offsets, 0),
                 *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) ||
        !json_is_integer(e))
        return entry_fail(file, t->name, "data_offsets are not two integers",
                          err);
    int64_t begin = json_integer_value(b), end = json_integer_value(e);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' is said to be at bytes %lld to %lld "
                         "of %zu; the file is damaged or cut short, fetch it "
                         "again",
                         file->path, t->name, (long long)begin, (long long)end,
                         data_bytes);
    t->data = data + begin;
    t->bytes = (size_t)(end - begin);
    return LORI_OK;
}

static lori_status read_entry(const st_file *file, const char *name,
                              const json_t *entry, const unsigned char *data,
                              size_t data_bytes, format_tensor *t,
                              lori_error *err)
{
    *t = (format_tensor){.name = name, .file = file->path};
    if (!json_is_object(entry))
        return entry_fail(file, name, "its header entry is not an object", err);
    uint64_t bytes = 0;
    BASE_TRY(entry_type(file, entry, t, err));
    BASE_TRY(entry_shape(file, entry, t, &bytes, err));
    BASE_TRY(entry_place(file, entry, data, data_bytes, t, err));
    if (bytes != t->bytes)
        return base_fail(err, LORI_FORMAT,
                         "%s: tensor '%s' has %zu bytes of data, its shape and "
                         "type need %llu",
                         file->path, name, t->bytes, (unsigned long long)bytes);
    return LORI_OK;
}

/* ---- one file ------------------------------------------------------- */

static int by_place(const void *pa, const void *pb)
{
    const format_tensor *a = pa, *b = pb;
    if (a->data != b->data)
        return (uintptr_t)a->data < (uintptr_t)b->data ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

/* The data must be covered exactly: a hole could carry anything, an overlap
 * would make two tensors share bytes. Sorts by place. */
static lori_status check_cover(const st_file *file, format_tensor *t, size_t n,
                               const unsigned char *data, size_t data_bytes,
                               lori_error *err)
{
    if (n)
        qsort(t, n, sizeof *t, by_place);
    uintptr_t at = (uintptr_t)data;
    for (size_t i = 0; i < n; i++) {
        if ((uintptr_t)t[i].data != at)
            return entry_fail(file, t[i].name,
                              (uintptr_t)t[i].data < at
                                  ? "its data overlaps another tensor's"
                                  : "unused bytes before its data",
                              err);
        at += t[i].bytes;
    }
    size_t used = (size_t)(at - (uintptr_t)data);
    if (used != data_bytes)
        return base_fail(err, LORI_FORMAT,
                         "%s: %zu bytes after the last tensor", file->path,
                         data_bytes - used);
    return LORI_OK;
}

static bool is_aligned(const format_tensor *t)
{
    return (uintptr_t)t->data % base_dtype_bytes(t->dtype) == 0;
}

/* Copies the tensors that stand at an odd address for their type: writers
 * other than the reference one may not pad the header. */
static lori_status realign(st_file *file, format_tensor *t, size_t n,
                           lori_error *err)
{
    base_plan plan = {0};
    for (size_t i = 0; i < n; i++)
        if (!is_aligned(&t[i]))
            base_plan_take(&plan, t[i].bytes, 1);
    if (plan.overflow)
        return base_no_memory(err, SIZE_MAX);
    if (!plan.used)
        return LORI_OK;
    size_t bytes = plan.used;
    file->copies = aligned_alloc(64, bytes);
    if (!file->copies)
        return base_no_memory(err, bytes);
    plan = (base_plan){.base = file->copies};
    for (size_t i = 0; i < n; i++) {
        if (is_aligned(&t[i]))
            continue;
        void *copy = base_plan_take(&plan, t[i].bytes, 1);
        memcpy(copy, t[i].data, t[i].bytes);
        t[i].data = copy;
    }
    return LORI_OK;
}

static lori_status check_metadata(const st_file *file, lori_error *err)
{
    json_t *metadata = json_object_get(file->header, "__metadata__");
    if (!metadata || json_is_null(metadata))
        return LORI_OK;
    if (!json_is_object(metadata))
        return base_fail(err, LORI_FORMAT, "%s: __metadata__ is %s", file->path,
                         format_json_kind(metadata));
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return base_fail(err, LORI_FORMAT,
                             "%s: __metadata__ '%s' is %s, expected a string",
                             file->path, key, format_json_kind(value));
    }
    return LORI_OK;
}

static lori_status parse_header(st_file *file, size_t *header_end,
                                lori_error *err)
{
    const unsigned char *p = file->map.data;
    if (file->map.bytes < 8)
        return base_fail(err, LORI_FORMAT,
                         "%s: %zu bytes, not a safetensors file", file->path,
                         file->map.bytes);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | p[i];
    if (n > HEADER_MAX || n > file->map.bytes - 8)
        return base_fail(err, LORI_FORMAT,
                         "%s: header of %llu bytes in a file of %zu; not a "
                         "safetensors file, or cut short: fetch it again",
                         file->path, (unsigned long long)n, file->map.bytes);
    *header_end = 8 + (size_t)n;
    lori_status status = LORI_OK;
    base_str name = {0};
    base_str_printf(&name, "%s: header", file->path);
    char *label = base_str_take(&name);
    if (!label)
        return base_no_memory(err, strlen(file->path));
    status = format_json_parse((const char *)p + 8, (size_t)n, label,
                               &file->header, err);
    free(label);
    if (status)
        return status;
    if (!json_is_object(file->header))
        return base_fail(err, LORI_FORMAT, "%s: the header is %s", file->path,
                         format_json_kind(file->header));
    return check_metadata(file, err);
}

/* Adds the tensors of an opened file to the store. */
static lori_status add_tensors(format_store *store, st_file *file,
                               size_t header_end, lori_error *err)
{
    size_t most, room = json_object_size(file->header);
    if (!base_add(store->n_tensors, room, &most))
        return base_no_memory(err, SIZE_MAX);
    format_tensor *grown =
        base_resize(store->tensors, most, sizeof *store->tensors);
    if (!grown)
        return base_no_memory(err, most * sizeof *grown);
    store->tensors = grown;
    format_tensor *first = grown + store->n_tensors;
    size_t n = 0;
    const unsigned char *data = file->map.data + header_end;
    size_t data_bytes = file->map.bytes - header_end;
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        BASE_TRY(
            read_entry(file, name, entry, data, data_bytes, &first[n], err));
        n++;
    }
    BASE_TRY(check_cover(file, first, n, data, data_bytes, err));
    BASE_TRY(realign(file, first, n, err));
    store->n_tensors += n;
    return LORI_OK;
}

/* Takes `path` over. store->files has room. */
static lori_status add_file(format_store *store, char *path, lori_error *err)
{
    st_file *file = &store->files[store->n_files++];
    *file = (st_file){.path = path};
    size_t header_end = 0;
    BASE_TRY(base_map_open(path, &file->map, err));
    BASE_TRY(parse_header(file, &header_end, err));
    return add_tensors(store, file, header_end, err);
}

/* ---- stores --------------------------------------------------------- */

static int by_name(const void *pa, const void *pb)
{
    const format_tensor *a = pa, *b = pb;
    return strcmp(a->name, b->name);
}

static lori_status sort_store(format_store *store, lori_error *err)
{
    format_tensor *t = store->tensors;
    if (store->n_tensors)
        qsort(t, store->n_tensors, sizeof *t, by_name);
    for (size_t i = 1; i < store->n_tensors; i++)
        if (strcmp(t[i - 1].name, t[i].name) == 0)
            return base_fail(err, LORI_FORMAT,
                             "tensor '%s' is in both '%s' and '%s'", t[i].name,
                             t[i - 1].file, t[i].file);
    return LORI_OK;
}

static format_store *new_store(size_t n_files)
{
    format_store *store = base_alloc(1, sizeof *store);
    if (store)
        store->files = base_alloc(n_files, sizeof *store->files);
    if (store && !store->files) {
        free(store);
        store = NULL;
    }
    return store;
}

lori_status format_store_open_file(const char *path, format_store **out,
                                   lori_error *err)
{
    *out = NULL;
    format_store *store = new_store(1);
    char *copy = base_strdup(path);
    if (!store || !copy) {
        free(copy);
        format_store_close(store);
        return base_no_memory(err, sizeof *store);
    }
    lori_status status = add_file(store, copy, err);
    if (!status)
        status = sort_store(store, err);
    if (status) {
        format_store_close(store);
        return status;
    }
    *out = store;
    return LORI_OK;
}

/* A shard is a file of the index's own folder, never a path out of it. */
static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static int by_text(const void *pa, const void *pb)
{
    const char *const *a = pa, *const *b = pb;
    return strcmp(*a, *b);
}

/* The set of file names in weight_map, sorted; borrowed from `index`. Which
 * tensor the index puts in which file does not matter: the files know. */
static lori_status shard_names(const char *path, const json_t *index,
                               const char ***out, size_t *n, lori_error *err)
{
    *out = NULL;
    *n = 0;
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return base_fail(err, LORI_FORMAT, "%s: no weight_map", path);
    const char **names = base_alloc(json_object_size(map), sizeof *names);
    if (!names)
        return base_no_memory(err, json_object_size(map) * sizeof *names);
    size_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        const char *name = json_string_value(value);
        if (!name || strlen(name) != json_string_length(value) ||
            !is_plain_name(name)) {
            free(names);
            return base_fail(err, LORI_FORMAT,
                             "%s: weight_map '%s' is not a plain file name",
                             path, key);
        }
        names[count++] = name;
    }
    qsort(names, count, sizeof *names, by_text);
    size_t unique = 1;
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[unique - 1], names[i]) != 0)
            names[unique++] = names[i];
    *out = names;
    *n = unique;
    return LORI_OK;
}

static lori_status add_shard(format_store *store, const char *folder,
                             const char *name, const char *index,
                             lori_error *err)
{
    char *path = base_path_join(folder, name);
    if (!path)
        return base_no_memory(err, strlen(folder) + strlen(name));
    if (!base_is_file(path)) {
        free(path);
        return base_fail(err, LORI_NOT_FOUND,
                         "'%s' names the shard '%s', which is missing; "
                         "download it into the same folder",
                         index, name);
    }
    return add_file(store, path, err);
}

static lori_status open_index(const char *folder, const char *index_path,
                              format_store **out, lori_error *err)
{
    json_t *index;
    BASE_TRY(format_json_load(index_path, &index, err));
    const char **names;
    size_t n;
    lori_status status = shard_names(index_path, index, &names, &n, err);
    format_store *store = NULL;
    if (!status) {
        store = new_store(n);
        if (!store)
            status = base_no_memory(err, n * sizeof(st_file));
    }
    for (size_t i = 0; i < n && !status; i++)
        status = add_shard(store, folder, names[i], index_path, err);
    if (!status)
        status = sort_store(store, err);
    free(names);
    json_decref(index);
    if (status) {
        format_store_close(store);
        return status;
    }
    *out = store;
    return LORI_OK;
}

lori_status format_store_open_folder(const char *folder, const char *stem,
                                     format_store **out, lori_error *err)
{
    *out = NULL;
    base_str name = {0};
    base_str_printf(&name, "%s.safetensors", stem);
    size_t single = name.len;
    base_str_puts(&name, ".index.json");
    char *index = name.failed ? NULL : base_path_join(folder, name.s);
    if (!name.failed)
        name.s[single] = '\0';
    char *file = name.failed ? NULL : base_path_join(folder, name.s);
    lori_status status;
    if (!index || !file)
        status = base_no_memory(err, strlen(folder) + strlen(stem));
    else if (base_is_file(file))
        status = format_store_open_file(file, out, err);
    else if (base_is_file(index))
        status = open_index(folder, index, out, err);
    else if (!base_is_dir(folder))
        status =
            base_fail(err, LORI_NOT_FOUND, "there is no folder '%s'", folder);
    else
        status = base_fail(err, LORI_NOT_FOUND,
                           "the folder '%s' holds neither %s.safetensors nor "
                           "%s.safetensors.index.json; weights in other "
                           "formats (.bin, .pt) must be saved as safetensors",
                           folder, stem, stem);
    base_str_free(&name);
    free(index);
    free(file);
    return status;
}

void format_store_close(format_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->n_files; i++) {
        st_file *file = &store->files[i];
        base_map_close(&file->map);
        json_decref(file->header);
        free(file->copies);
        free(file->path);
    }
    free(store->files);
    free(store->tensors);
    free(store);
}

size_t format_store_count(const format_store *store)
{
    return store->n_tensors;
}

const format_tensor *format_store_at(const format_store *store, size_t i)
{
    return i < store->n_tensors ? &store->tensors[i] : NULL;
}

const format_tensor *format_store_find(const format_store *store,
                                       const char *name)
{
    if (!store->n_tensors)
        return NULL;
    format_tensor key = {.name = name};
    return bsearch(&key, store->tensors, store->n_tensors,
                   sizeof *store->tensors, by_name);
}

const char *format_store_metadata(const format_store *store, const char *key)
{
    if (!store->n_files)
        return NULL;
    const json_t *metadata =
        json_object_get(store->files[0].header, "__metadata__");
    return json_string_value(json_object_get(metadata, key));
}
