/* hub_pull.c - a whole repository: its list, the room on the disk, its files,
 * and then the reference that makes the snapshot current. */
#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "hub/hub_i.h"

void hub_url_escape(const char *text, const char *keep, base_str *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    for (const char *c = text; *c; c++) {
        if (strchr(plain, *c) || strchr(keep, *c))
            base_str_add(out, c, 1);
        else
            base_str_printf(out, "%%%02X", (unsigned char)*c);
    }
}

/* ---- the list ---------------------------------------------------------- */

static lori_status list_put(void *context, const void *bytes, size_t n,
                            lori_error *err)
{
    base_str *text = context;
    base_str_add(text, bytes, n);
    return text->failed ? base_no_memory(err, n) : LORI_OK;
}

static lori_status list_restart(void *context, lori_error *err)
{
    (void)err;
    base_str_clear(context);
    return LORI_OK;
}

static lori_status get_list(hub_http *http, const hub_name *name,
                            hub_list *list, lori_error *err)
{
    base_str path = {0}, what = {0}, text = {0};
    base_str_printf(&path, "/api/models/%s/revision/", name->repo);
    hub_url_escape(name->revision, "", &path);
    base_str_puts(&path, "?blobs=true");
    base_str_printf(&what, "%s@%s", name->repo, name->revision);
    hub_sink sink = {.context = &text,
                     .size = -1,
                     .max = (int64_t)HUB_LIST_MAX,
                     .put = list_put,
                     .restart = list_restart};
    lori_status st = path.failed || what.failed
                         ? base_no_memory(err, 1)
                         : hub_http_get(http, path.s, what.s, &sink, err);
    base_str_puts(&what, ": the hub's list of files");
    if (!st && (text.failed || what.failed))
        st = base_no_memory(err, 1);
    if (!st)
        st = hub_list_parse(text.s ? text.s : "", text.len, what.s, list, err);
    base_str_free(&path);
    base_str_free(&what);
    base_str_free(&text);
    return st;
}

/* ---- room -------------------------------------------------------------- */

static lori_status check_room(const hub_pull_state *pull, const hub_list *list,
                              lori_error *err)
{
    int64_t missing = 0;
    for (size_t i = 0; i < list->n; i++)
        missing +=
            list->files[i].size - hub_blob_have(pull->name, &list->files[i]);
    struct statvfs fs;
    if (missing == 0 || statvfs(pull->cache, &fs) != 0)
        return LORI_OK; /* writing will tell */
    double room = (double)fs.f_bavail * (double)fs.f_frsize;
    char need[32], have[32];
    if ((double)missing <= room)
        return LORI_OK;
    return base_fail(err, LORI_IO,
                     "%s: %s are to be downloaded, but only %s are free on the "
                     "disk of '%s'; free some, or name another cache (HF_HOME)",
                     pull->name->repo,
                     base_human_bytes((double)missing, need, sizeof need),
                     base_human_bytes(room, have, sizeof have), pull->cache);
}

/* ---- the whole --------------------------------------------------------- */

static lori_status add_sizes(hub_pull_state *pull, const hub_list *list,
                             lori_error *err)
{
    bool weights = false;
    for (size_t i = 0; i < list->n; i++) {
        const hub_file *f = &list->files[i];
        if (f->size > HUB_SIZE_MAX - pull->total)
            return base_fail(err, LORI_FORMAT,
                             "%s: the hub's list of files adds up to more than "
                             "a petabyte; nothing was downloaded",
                             pull->name->repo);
        pull->total += f->size;
        weights |= strstr(f->path, ".safetensors") != NULL;
    }
    if (list->n == 0)
        return base_fail(err, LORI_NOT_FOUND,
                         "%s: no file of it fits --include and --exclude, or "
                         "is needed to run a model",
                         pull->name->repo);
    if (!weights)
        base_log(pull->ui, LORI_LOG_WARNING,
                 "%s: no *.safetensors among what is downloaded; weights in "
                 "other formats come only with --include, '*.gguf' for example",
                 pull->name->repo);
    return LORI_OK;
}

/* refs/REVISION holds the commit: from now on the snapshot is current. */
static lori_status write_ref(const hub_pull_state *pull, lori_error *err)
{
    if (strcmp(pull->name->revision, pull->commit) == 0)
        return LORI_OK;
    char *path = hub_path(pull->name->folder, "refs", pull->name->revision);
    if (!path)
        return base_no_memory(err, 1);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    lori_status st = base_mkdirs(path, err);
    *slash = '/';
    if (!st)
        st = base_file_write(path, pull->commit, 40, err);
    free(path);
    return st;
}

static lori_status pull_files(hub_pull_state *pull, hub_list *list,
                              const hub_pull_options *o, lori_error *err)
{
    hub_list_select(list, o);
    BASE_TRY(add_sizes(pull, list, err));
    char *blobs = base_path_join(pull->name->folder, "blobs");
    lori_status st = blobs ? base_mkdirs(blobs, err) : base_no_memory(err, 1);
    free(blobs);
    if (!st)
        st = check_room(pull, list, err);
    for (size_t i = 0; i < list->n && !st; i++)
        st = hub_blob_get(pull, &list->files[i], err);
    if (!st)
        st = write_ref(pull, err);
    return st;
}

lori_status hub_pull(const hub_pull_options *o, const lori_ui *ui,
                     hub_pull_result *out, lori_error *err)
{
    *out = (hub_pull_result){0};
    hub_name name = {0};
    hub_list list = {0};
    hub_pull_state pull = {
        .name = &name, .cache = o->cache, .ui = ui, .start_s = base_now_s()};
    BASE_TRY(hub_name_parse(o->name, o->revision, o->cache, &name, err));
    lori_status st = hub_http_open(o->endpoint, o->token, ui, &pull.http, err);
    if (!st)
        st = get_list(pull.http, &name, &list, err);
    pull.commit = list.commit;
    if (!st)
        st = pull_files(&pull, &list, o, err);
    if (!st) {
        out->folder = hub_path(name.folder, "snapshots", list.commit);
        memcpy(out->commit, list.commit, sizeof out->commit);
        out->files = (int64_t)list.n;
        out->bytes = pull.total;
        out->pulled_bytes = pull.pulled;
        st = out->folder ? LORI_OK : base_no_memory(err, 1);
    }
    hub_http_close(pull.http);
    hub_list_free(&list);
    hub_name_free(&name);
    return st;
}
