/* part.c - the sample log of one subject on one task:
 * OUTPUT/SUBJECT/TASK.jsonl, a line a document, and TASK.settings.json, what it
 * was made with. The log is the state of a stopped run: chunks of PART_CHUNK
 * documents are appended whole, and a run goes on at a chunk's border, so that
 * every batch, and with it every bit, is that of an uninterrupted run. Includes
 * eval_i.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval/eval_i.h"

/* Changes when the same model and task could give other values. */
#define RULES_VERSION 1
#define SETTINGS_MAX  ((size_t)16 << 20)
#define LOG_MAX       ((size_t)4 << 30)

static json_t *hash_json(uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return json_string(text);
}

static json_t *settings_of(const eval_subject *s, const eval_task *t,
                           const eval_docs *docs, const eval_options *o)
{
    base_dtype dtype = model_get_backend(s->model)->act;
    json_t *out = json_pack(
        "{sisssbsI}", "rules", RULES_VERSION, "dtype", base_dtype_name(dtype),
        "log_samples", (int)o->log_samples, "documents", (json_int_t)docs->n);
    if (!out)
        return NULL;
    json_object_set_new(out, "model", hash_json(s->hash));
    json_object_set_new(out, "data", hash_json(docs->hash));
    json_object_set(out, "task", t->config);
    return out;
}

/* Names the keys in which two objects differ: "task.limit, documents". */
static void list_changes(const json_t *x, const json_t *y, const char *prefix,
                         base_str *out)
{
    const char *key;
    json_t *value;
    const json_t *both[2] = {x, y};
    for (int side = 0; side < 2; side++)
        json_object_foreach((json_t *)(uintptr_t)both[side], key, value)
        {
            json_t *other = json_object_get(both[!side], key);
            if ((side == 1 && other) || json_equal(value, other))
                continue;
            if (json_is_object(value) && json_is_object(other) && !*prefix) {
                list_changes(value, other, "task.", out);
                continue;
            }
            base_str_printf(out, "%s%s%s", out->len ? ", " : "", prefix, key);
        }
}

/* A run that was killed when it began leaves an empty log. */
static bool has_lines(const char *log)
{
    struct stat file;
    return stat(log, &file) == 0 && file.st_size > 0;
}

/* Whether the settings on disk are these, and what differs. */
static lori_status compare_settings(const part *p, const json_t *now,
                                    bool *same, base_str *changes,
                                    lori_error *err)
{
    json_t *then = NULL;
    *same = false;
    if (!base_is_file(p->settings)) {
        if (has_lines(p->log))
            base_str_puts(changes, "they are not there");
        return LORI_OK;
    }
    BASE_TRY(format_json_load(p->settings, &then, err));
    *same = json_equal(then, now);
    if (!*same)
        list_changes(then, now, "", changes);
    json_decref(then);
    return LORI_OK;
}

/* ---- the log ------------------------------------------------------------ */

static lori_status read_line(part *p, const eval_task *t, int64_t doc,
                             const char *line, size_t n, lori_error *err)
{
    const char *names[EVAL_VALUES];
    int64_t n_values = metric_values(t->kind, names), number = -1;
    json_t *row = NULL;
    lori_status st = format_json_parse(line, n, p->log, &row, err);
    if (!st)
        st = format_get_i64(row, p->log, "doc", true, 0, INT64_MAX, &number,
                            err);
    for (int64_t k = 0; k < n_values && !st; k++)
        st = format_get_f64(row, p->log, names[k], true, &p->values[doc].v[k],
                            err);
    json_decref(row);
    if (!st && number != doc)
        st = base_fail(err, LORI_FORMAT,
                       "document %lld stands where %lld should",
                       (long long)number, (long long)doc);
    if (st)
        base_prefix(err, st, "%s:%lld: remove this file to make it again",
                    p->log, (long long)doc + 1);
    return st;
}

/* Takes the finished chunks; *bytes is where they end. */
static lori_status read_log(part *p, const eval_task *t, int64_t n_docs,
                            size_t *bytes, lori_error *err)
{
    char *text = NULL;
    size_t n = 0;
    *bytes = 0;
    if (!base_is_file(p->log))
        return LORI_OK;
    BASE_TRY(base_file_read(p->log, LOG_MAX, &text, &n, err));
    lori_status st = LORI_OK;
    size_t at = 0;
    for (int64_t doc = 0; doc < n_docs && !st; doc++) {
        char *end = memchr(text + at, '\n', n - at);
        if (!end)
            break;
        size_t length = (size_t)(end - text) - at;
        st = read_line(p, t, doc, text + at, length, err);
        at += length + 1;
        if (doc + 1 == n_docs || (doc + 1) % PART_CHUNK == 0) {
            p->done = doc + 1;
            *bytes = at;
        }
    }
    free(text);
    return st;
}

static lori_status open_log(part *p, size_t bytes, lori_error *err)
{
    p->fd = open(p->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (p->fd < 0)
        return base_fail_errno(err, errno, "cannot write '%s'", p->log);
    if (ftruncate(p->fd, (off_t)bytes) != 0 ||
        lseek(p->fd, (off_t)bytes, SEEK_SET) < 0)
        return base_fail_errno(err, errno, "cannot write '%s'", p->log);
    return LORI_OK;
}

static lori_status make_paths(part *p, const char *folder, const char *task,
                              lori_error *err)
{
    base_str log = {0}, settings = {0};
    base_str_printf(&log, "%s/%s.jsonl", folder, task);
    base_str_printf(&settings, "%s/%s.settings.json", folder, task);
    p->log = base_str_take(&log);
    p->settings = base_str_take(&settings);
    return p->log && p->settings ? base_mkdirs(folder, err)
                                 : base_no_memory(err, 1);
}

static lori_status resume(part *p, const eval_task *t, const eval_docs *docs,
                          const eval_options *o, const json_t *now,
                          lori_error *err)
{
    bool same;
    size_t bytes = 0;
    base_str changes = {0};
    lori_status st = compare_settings(p, now, &same, &changes, err);
    if (!st && !same && changes.len && !o->overwrite)
        st = base_fail(err, LORI_MISMATCH,
                       "%s was made with other settings (%s); choose another "
                       "output folder, or replace it with --overwrite",
                       p->log, changes.s);
    base_str_free(&changes);
    if (!st && same)
        st = read_log(p, t, docs->n, &bytes, err);
    if (!st)
        st = open_log(p, bytes, err); /* empties a log of other settings */
    if (!st && !same)
        st = format_json_write(p->settings, now, FORMAT_JSON_INDENT, true, err);
    return st;
}

lori_status part_open(part *p, const eval_subject *s, const eval_task *t,
                      const eval_docs *docs, const eval_options *o,
                      lori_error *err)
{
    *p = (part){.fd = -1};
    p->values = base_alloc((size_t)docs->n, sizeof *p->values);
    if (!p->values)
        return base_no_memory(err, (size_t)docs->n * sizeof *p->values);
    if (!o->output)
        return LORI_OK;
    char *folder = base_path_join(o->output, s->name);
    json_t *now = settings_of(s, t, docs, o);
    lori_status st = folder && now ? make_paths(p, folder, t->name, err)
                                   : base_no_memory(err, 1);
    if (!st)
        st = resume(p, t, docs, o, now, err);
    json_decref(now);
    free(folder);
    return st;
}

lori_status part_append(part *p, const base_str *lines, int64_t n,
                        lori_error *err)
{
    for (size_t at = 0; p->fd >= 0 && at < lines->len;) {
        ssize_t put = write(p->fd, lines->s + at, lines->len - at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return base_fail_errno(err, errno, "cannot write '%s'", p->log);
        at += (size_t)put;
    }
    p->done += n;
    return LORI_OK;
}

void part_close(part *p)
{
    if (p->fd >= 0)
        close(p->fd);
    free(p->log);
    free(p->settings);
    free(p->values);
    *p = (part){.fd = -1};
}
