/* hub_list.c - what the hub says a repository holds. The answer comes from
 * outside: bounded in bytes, number of files and sizes, and no path may leave
 * the snapshot. Includes base, format and libc. */
#include <fnmatch.h>
#include <stdlib.h>

#include "hub/hub_i.h"

static lori_status parse_hash(const json_t *object, const char *from,
                              const char *path, const char *key, size_t n,
                              char out[65], lori_error *err)
{
    const char *hash = NULL;
    BASE_TRY(format_get_str(object, from, key, true, &hash, err));
    if (!hub_is_hex(hash, n))
        return base_fail(err, LORI_FORMAT,
                         "%s: %s: '%.80s' is not a hash of %zu digits", from,
                         path, hash, n);
    memcpy(out, hash, n + 1);
    return LORI_OK;
}

static lori_status parse_file(const json_t *entry, const char *from,
                              hub_file *out, lori_error *err)
{
    const char *path = NULL;
    if (!json_is_object(entry))
        return base_fail(err, LORI_FORMAT, "%s: siblings: not an object", from);
    BASE_TRY(format_get_str(entry, from, "rfilename", true, &path, err));
    if (!hub_path_is_safe(path))
        return base_fail(err, LORI_FORMAT,
                         "%s: the file name '%.200s' could leave the model's "
                         "folder; nothing was downloaded",
                         from, path);
    const json_t *lfs = json_object_get(entry, "lfs");
    out->lfs = json_is_object(lfs);
    if (out->lfs) {
        BASE_TRY(parse_hash(lfs, from, path, "sha256", 64, out->blob, err));
        BASE_TRY(format_get_i64(lfs, from, "size", true, 0, HUB_SIZE_MAX,
                                &out->size, err));
    } else {
        BASE_TRY(parse_hash(entry, from, path, "blobId", 40, out->blob, err));
        BASE_TRY(format_get_i64(entry, from, "size", true, 0, HUB_SIZE_MAX,
                                &out->size, err));
    }
    out->path = base_strdup(path);
    return out->path ? LORI_OK : base_no_memory(err, strlen(path));
}

static int by_path(const void *a, const void *b)
{
    const hub_file *x = a, *y = b;
    return strcmp(x->path, y->path);
}

static lori_status parse_list(const json_t *root, const char *from,
                              hub_list *out, lori_error *err)
{
    const char *commit = NULL;
    if (!json_is_object(root))
        return base_fail(err, LORI_FORMAT, "%s: not an object", from);
    BASE_TRY(format_get_str(root, from, "sha", true, &commit, err));
    if (!hub_is_hex(commit, 40))
        return base_fail(err, LORI_FORMAT, "%s: sha '%.80s' is not a commit",
                         from, commit);
    memcpy(out->commit, commit, sizeof out->commit);
    const json_t *files = json_object_get(root, "siblings");
    size_t n = json_array_size(files); /* 0 if it is no list */
    if (n == 0 || n > HUB_FILES_MAX)
        return base_fail(err, LORI_FORMAT,
                         "%s: siblings: a list of 1 to %d files was expected",
                         from, HUB_FILES_MAX);
    out->files = base_alloc(n, sizeof *out->files);
    if (!out->files)
        return base_no_memory(err, n * sizeof *out->files);
    for (; out->n < n; out->n++)
        BASE_TRY(parse_file(json_array_get(files, out->n), from,
                            &out->files[out->n], err));
    qsort(out->files, n, sizeof *out->files, by_path);
    for (size_t i = 1; i < n; i++)
        if (strcmp(out->files[i - 1].path, out->files[i].path) == 0)
            return base_fail(err, LORI_FORMAT, "%s: '%s' is listed twice", from,
                             out->files[i].path);
    return LORI_OK;
}

lori_status hub_list_parse(const char *bytes, size_t n, const char *from,
                           hub_list *out, lori_error *err)
{
    *out = (hub_list){0};
    json_t *root = NULL;
    if (n > HUB_LIST_MAX)
        return base_fail(err, LORI_FORMAT, "%s: over 64 MB", from);
    BASE_TRY(format_json_parse(bytes, n, from, &root, err));
    lori_status st = parse_list(root, from, out, err);
    json_decref(root);
    if (st)
        hub_list_free(out);
    return st;
}

void hub_list_free(hub_list *list)
{
    /* After a failure the entry at `n` may hold nothing yet. */
    for (size_t i = 0; i < list->n; i++)
        free(list->files[i].path);
    free(list->files);
    *list = (hub_list){0};
}

/* ---- which files? ------------------------------------------------------ */

static bool matches(const char *path, const char *const *patterns, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (fnmatch(patterns[i], path, 0) == 0)
            return true;
    return false;
}

/* What is needed to run a model or an adapter: the same weights in other
 * formats, training state and pictures are not. */
static bool is_needed(const char *path)
{
    static const char *const kinds[] = {
        "*.safetensors", "*.json",     "*.jinja",  "*.model",
        "*.tiktoken",    "merges.txt", "vocab.txt"};
    const char *templates = "additional_chat_templates/";
    bool top =
        !strchr(path, '/') || strncmp(path, templates, strlen(templates)) == 0;
    return top && matches(path, kinds, sizeof kinds / sizeof *kinds);
}

/* Mistral's repositories hold all weights twice: consolidated*.safetensors
 * carries their own names, model*.safetensors those of transformers. */
static bool is_duplicate(const hub_list *list, const char *path)
{
    if (fnmatch("consolidated*.safetensors", path, 0) != 0)
        return false;
    for (size_t i = 0; i < list->n; i++)
        if (fnmatch("model*.safetensors", list->files[i].path, 0) == 0)
            return true;
    return false;
}

void hub_list_select(hub_list *list, const hub_pull_options *o)
{
    size_t kept = 0;
    /* Judged before any is dropped: is_duplicate looks at all of them. */
    for (size_t i = 0; i < list->n; i++) {
        hub_file *f = &list->files[i];
        bool want = o->n_include > 0
                        ? matches(f->path, o->include, o->n_include)
                        : is_needed(f->path) && !is_duplicate(list, f->path);
        if (!want || matches(f->path, o->exclude, o->n_exclude))
            f->size = -1;
    }
    for (size_t i = 0; i < list->n; i++) {
        if (list->files[i].size < 0)
            free(list->files[i].path);
        else
            list->files[kept++] = list->files[i];
    }
    list->n = kept;
}
