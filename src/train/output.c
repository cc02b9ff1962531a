/* output.c - what a run leaves in output_dir: the adapter, recipe.yaml,
 * metrics.jsonl. Refuses to write over an adapter unasked. Layout:
 *   adapter_config.json ...  as adapter_write makes them (PEFT's names)
 *   recipe.yaml              the resolved recipe
 *   metrics.jsonl            a line every logging_steps and every evaluation
 *   checkpoint/              while unfinished (checkpoint.c)
 * Includes train_i.h, format.h, libc. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"
#include "train/train_i.h"

#define CONFIG   "adapter_config.json"
#define METRICS  "metrics.jsonl"
#define RECIPE   "recipe.yaml"
#define PART     "adapter.part" /* the adapter's files before they move */
#define MAX_FILE ((size_t)1 << 30)

/* ---- the folder ----------------------------------------------------- */

static lori_status has_file(const train_recipe *r, const char *name, bool *has,
                            lori_error *err)
{
    char *path = base_path_join(r->output_dir, name);
    if (!path)
        return base_no_memory(err, strlen(name));
    *has = base_is_file(path);
    free(path);
    return LORI_OK;
}

static lori_status refuse_occupied(const train_recipe *r, lori_error *err)
{
    bool occupied = false;
    BASE_TRY(has_file(r, CONFIG, &occupied, err));
    bool unfinished = checkpoint_exists(r);
    if (r->resume_from_checkpoint && !unfinished)
        return base_fail(err, LORI_NOT_FOUND,
                         "output_dir %s holds no checkpoint to resume from: "
                         "remove resume_from_checkpoint to start afresh",
                         r->output_dir);
    if (r->resume_from_checkpoint || r->overwrite_output_dir)
        return LORI_OK;
    if (unfinished)
        return base_fail(err, LORI_INVALID,
                         "output_dir %s holds an unfinished run: "
                         "resume_from_checkpoint=true goes on with it, "
                         "overwrite_output_dir=true starts afresh",
                         r->output_dir);
    if (occupied)
        return base_fail(err, LORI_INVALID,
                         "output_dir %s holds an adapter: choose another "
                         "folder, or overwrite_output_dir=true replaces it",
                         r->output_dir);
    return LORI_OK;
}

/* Bytes of `path` without its last name: "a/b/c" -> 3, "a" -> 0, "/a" -> 1. */
static size_t parent_length(const char *path, size_t n)
{
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n;
}

/* How much of the path is there. */
static lori_status existing_length(const char *path, size_t *n, lori_error *err)
{
    char *copy = base_strdup(path);
    if (!copy)
        return base_no_memory(err, strlen(path));
    *n = strlen(copy);
    while (*n && !base_is_dir(copy)) {
        *n = parent_length(copy, *n);
        copy[*n] = '\0';
    }
    free(copy);
    return LORI_OK;
}

lori_status output_prepare(const train_recipe *r, size_t *existed,
                           lori_error *err)
{
    BASE_TRY(existing_length(r->output_dir, existed, err));
    BASE_TRY(refuse_occupied(r, err));
    lori_status st = base_mkdirs(r->output_dir, err);
    if (!st) {
        char *probe = base_path_join(r->output_dir, METRICS);
        base_out *out = NULL;
        st = probe ? base_out_open(probe, &out, err)
                   : base_no_memory(err, strlen(r->output_dir));
        base_out_abort(out);
        free(probe);
    }
    if (st) {
        output_withdraw(r, *existed);
        return base_prefix(err, st,
                           "output_dir '%s' cannot be used, choose another",
                           r->output_dir);
    }
    return LORI_OK;
}

void output_withdraw(const train_recipe *r, size_t existed)
{
    char *path = base_strdup(r->output_dir);
    size_t n = path ? strlen(path) : 0;
    while (n > existed && rmdir(path) == 0) {
        n = parent_length(path, n);
        path[n] = '\0';
    }
    free(path);
}

/* ---- the adapter ---------------------------------------------------- */

static lori_status move_file(const char *from, const char *to, const char *name,
                             lori_error *err)
{
    char *a = base_path_join(from, name), *b = base_path_join(to, name);
    lori_status st = LORI_OK;
    if (!a || !b)
        st = base_no_memory(err, strlen(from));
    else if (rename(a, b) != 0)
        st = base_fail_errno(err, errno, "cannot move '%s' to '%s'", a, b);
    free(a);
    free(b);
    return st;
}

/* Every file of folder `from`, CONFIG last. */
static lori_status move_all(const char *from, const char *to, lori_error *err)
{
    DIR *dir = opendir(from);
    if (!dir)
        return base_fail_errno(err, errno, "cannot read '%s'", from);
    lori_status st = LORI_OK;
    const struct dirent *entry;
    while (!st && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, CONFIG) != 0)
            st = move_file(from, to, entry->d_name, err);
    closedir(dir);
    return st ? st : move_file(from, to, CONFIG, err);
}

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char *file = entry->d_name[0] == '.'
                         ? NULL
                         : base_path_join(path, entry->d_name);
        if (file)
            unlink(file);
        free(file);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

/* Makes the moves survive a power cut, where the file system can. */
static void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

static lori_status save_recipe(const train_recipe *r, lori_error *err)
{
    base_str text = {0};
    train_recipe_text(r, &text);
    char *path = base_path_join(r->output_dir, RECIPE);
    lori_status st = text.failed || !path
                         ? base_no_memory(err, text.len)
                         : base_file_write(path, text.s, text.len, err);
    free(path);
    base_str_free(&text);
    return st;
}

lori_status output_save(const train_recipe *r, const adapter *ad,
                        lori_error *err)
{
    char *part = base_path_join(r->output_dir, PART);
    char *config = base_path_join(r->output_dir, CONFIG);
    lori_status st = LORI_OK;
    if (!part || !config)
        st = base_no_memory(err, strlen(r->output_dir));
    if (!st)
        st = adapter_write(ad, part, &(adapter_write_options){.replace = true},
                           err);
    if (!st)
        st = save_recipe(r, err);
    /* Without this file the folder is no adapter: what stands there between
     * the first and the last move is never taken for one. */
    if (!st && unlink(config) != 0 && errno != ENOENT)
        st = base_fail_errno(err, errno, "cannot replace '%s'", config);
    if (!st)
        st = move_all(part, r->output_dir, err);
    if (part)
        remove_folder(part);
    sync_folder(r->output_dir);
    free(part);
    free(config);
    return st ? base_prefix(err, st, "saving the adapter") : LORI_OK;
}

/* ---- metrics -------------------------------------------------------- */

/* Bytes of the lines up to `step`; a line that was cut by a crash ends them.
 */
static size_t lines_until(const char *text, size_t n, int64_t step)
{
    size_t keep = 0;
    while (keep < n) {
        const char *line = text + keep;
        const char *end = memchr(line, '\n', n - keep);
        json_t *value = NULL;
        if (!end || format_json_parse(line, (size_t)(end - line), METRICS,
                                      &value, NULL))
            break;
        const json_t *at = json_object_get(value, "step");
        bool earlier = json_is_integer(at) && json_integer_value(at) <= step;
        json_decref(value);
        if (!earlier)
            break;
        keep += (size_t)(end - line) + 1;
    }
    return keep;
}

static lori_status cut_metrics(const char *path, int64_t step, lori_error *err)
{
    if (!base_is_file(path))
        return LORI_OK;
    char *text;
    size_t n;
    BASE_TRY(base_file_read(path, MAX_FILE, &text, &n, err));
    size_t keep = lines_until(text, n, step);
    lori_status st =
        keep < n ? base_file_write(path, text, keep, err) : LORI_OK;
    free(text);
    return st;
}

lori_status output_metrics_open(const train_recipe *r, bool keep, int64_t step,
                                FILE **file, lori_error *err)
{
    *file = NULL;
    char *path = base_path_join(r->output_dir, METRICS);
    if (!path)
        return base_no_memory(err, strlen(r->output_dir));
    lori_status st = keep ? cut_metrics(path, step, err) : LORI_OK;
    if (!st) {
        *file = fopen(path, keep ? "ae" : "we");
        if (!*file)
            st = base_fail_errno(err, errno, "cannot write '%s'", path);
    }
    free(path);
    return st;
}

lori_status output_metrics_put(FILE *file, json_t *line, lori_error *err)
{
    base_str text = {0};
    if (line)
        format_json_text(line, 0, &text);
    base_str_puts(&text, "\n");
    bool ok = line && !text.failed;
    json_decref(line);
    lori_status st = LORI_OK;
    if (!ok)
        st = base_no_memory(err, text.len);
    else if (fwrite(text.s, 1, text.len, file) != text.len || fflush(file) != 0)
        st = base_fail_errno(err, errno, "cannot write " METRICS);
    base_str_free(&text);
    return st;
}
