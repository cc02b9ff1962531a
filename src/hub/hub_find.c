/* hub_find.c - from a name to the folder of a snapshot in the local cache, and
 * whether that snapshot is whole. Includes base, format and libc. */
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "hub/hub_i.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* The commit that refs/REVISION holds; `out` stays empty when there is none. */
static void read_ref(const hub_name *name, char out[41])
{
    char *bytes = NULL, *path = hub_path(name->folder, "refs", name->revision);
    size_t n = 0;
    if (path && !base_file_read(path, 4096, &bytes, &n, NULL)) {
        n = strcspn(bytes, "\r\n ");
        bytes[n] = '\0';
        if (hub_is_hex(bytes, 40))
            memcpy(out, bytes, 41);
    }
    free(bytes);
    free(path);
}

/* ---- is it whole? ------------------------------------------------------ */

typedef struct snapshot {
    const char *text; /* as the user wrote it */
    const hub_name *name;
    const char *folder;
    bool has_weights;
} snapshot;

static lori_status half(const snapshot *s, const char *file, const char *fact,
                        lori_error *err)
{
    return base_fail(err, LORI_MISMATCH,
                     "'%s': the snapshot '%s' of the Hugging Face cache is not "
                     "complete: %s %s; `lori pull %s` gets the rest",
                     s->text, s->folder, file, fact, s->text);
}

static lori_status check_shards(const snapshot *s, const char *index,
                                lori_error *err)
{
    json_t *root = NULL;
    char *path = base_path_join(s->folder, index);
    if (!path)
        return base_no_memory(err, 1);
    lori_status st = format_json_load(path, &root, err);
    free(path);
    BASE_TRY(st);
    const char *key;
    json_t *shard;
    json_object_foreach(json_object_get(root, "weight_map"), key, shard)
    {
        const char *file = json_string_value(shard);
        if (!file || !hub_path_is_safe(file))
            continue; /* whoever reads the weights explains */
        path = base_path_join(s->folder, file);
        bool there = path && base_is_file(path);
        st = !path   ? base_no_memory(err, 1)
             : there ? LORI_OK
                     : half(s, file, "is missing", err);
        free(path);
        if (st)
            break;
    }
    json_decref(root);
    return st;
}

static lori_status check_entry(snapshot *s, const char *file, hub_need need,
                               lori_error *err)
{
    char *path = base_path_join(s->folder, file);
    struct stat st;
    if (!path)
        return base_no_memory(err, 1);
    bool dangling = lstat(path, &st) == 0 && stat(path, &st) != 0;
    free(path);
    if (dangling && (need == HUB_WEIGHTS || ends_with(file, ".json")))
        return half(s, file, "is a link to a file that is not there", err);
    if (ends_with(file, ".safetensors"))
        s->has_weights = true;
    if (need == HUB_WEIGHTS && ends_with(file, ".safetensors.index.json"))
        return check_shards(s, file, err);
    return LORI_OK;
}

/* The name of an interrupted download among the blobs, or "". */
static void find_incomplete(const hub_name *name, char out[256])
{
    char *blobs = base_path_join(name->folder, "blobs");
    DIR *dir = blobs ? opendir(blobs) : NULL;
    const struct dirent *entry;
    *out = '\0';
    while (dir && !*out && (entry = readdir(dir)))
        if (ends_with(entry->d_name, ".incomplete"))
            snprintf(out, 256, "%s", entry->d_name);
    if (dir)
        closedir(dir);
    free(blobs);
}

static lori_status check_whole(snapshot *s, hub_need need, lori_error *err)
{
    DIR *dir = opendir(s->folder);
    if (!dir)
        return base_fail(err, LORI_IO, "cannot read the folder '%s'",
                         s->folder);
    lori_status st = LORI_OK;
    const struct dirent *entry;
    while (!st && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            st = check_entry(s, entry->d_name, need, err);
    closedir(dir);
    if (st || need != HUB_WEIGHTS || s->has_weights)
        return st;
    char left[256], fact[320];
    find_incomplete(s->name, left);
    snprintf(fact, sizeof fact, "are missing%s%s%s",
             *left ? " (an interrupted download: blobs/" : "", left,
             *left ? ")" : "");
    return half(s, "the weights (*.safetensors)", fact, err);
}

/* ---- looking up -------------------------------------------------------- */

static lori_status find_snapshot(const char *text, const hub_name *name,
                                 const char *cache, char **folder,
                                 lori_error *err)
{
    if (!base_is_dir(name->folder))
        return base_fail(err, LORI_NOT_FOUND,
                         "'%s': no such folder, and no model of that name in "
                         "the Hugging Face cache '%s'; `lori pull %s` "
                         "downloads it",
                         text, cache, text);
    char commit[41] = "";
    read_ref(name, commit);
    *folder =
        hub_path(name->folder, "snapshots", *commit ? commit : name->revision);
    if (!*folder)
        return base_no_memory(err, 1);
    if (base_is_dir(*folder))
        return LORI_OK;
    free(*folder);
    *folder = NULL;
    return base_fail(err, LORI_NOT_FOUND,
                     "'%s': no such folder, and '%s' holds no revision '%s'; "
                     "`lori pull %s` downloads it",
                     text, name->folder, name->revision, text);
}

lori_status hub_find(const char *cache, const char *text, hub_need need,
                     char **folder, lori_error *err)
{
    *folder = NULL;
    struct stat st;
    hub_name name = {0};
    bool look = cache && hub_name_is(text) && stat(text, &st) != 0;
    if (look)
        BASE_TRY(hub_name_parse(text, NULL, cache, &name, err));
    /* "gpt2" is more often a mistyped folder than a name: the caller's own
     * words fit better unless the cache knows it. */
    if (look && !strchr(name.repo, '/') && !base_is_dir(name.folder))
        look = false;
    lori_status status = LORI_OK;
    if (look) {
        status = find_snapshot(text, &name, cache, folder, err);
        snapshot s = {.text = text, .name = &name, .folder = *folder};
        if (!status)
            status = check_whole(&s, need, err);
    } else if (!(*folder = base_strdup(text))) {
        status = base_no_memory(err, strlen(text));
    }
    hub_name_free(&name);
    if (status) {
        free(*folder);
        *folder = NULL;
    }
    return status;
}
