/* checkpoint.c - output_dir/checkpoint: all a run needs to go on bit for bit.
 *   state.safetensors  master, exp_avg, exp_avg_sq [n] in acc, the packed
 *                      parameters (kept entries only) and their moments
 *   state.json         progress, and what must not have changed since
 * The folder appears whole or not at all. The order of rows and the learning
 * rate follow from the step, so neither is stored. Includes train_i.h,
 * format.h. */
#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"
#include "train/train_i.h"

#define FOLDER  "checkpoint"
#define FACTS   "state.json"
#define TENSORS "state.safetensors"
#define VERSION 1

static const char *const tensor_names[] = {"master", "exp_avg", "exp_avg_sq"};

/* output_dir/checkpoint[/name]; malloc'd */
static char *path_of(const train_recipe *r, const char *name)
{
    char *folder = base_path_join(r->output_dir, FOLDER);
    if (!folder || !name)
        return folder;
    char *path = base_path_join(folder, name);
    free(folder);
    return path;
}

bool checkpoint_exists(const train_recipe *r)
{
    char *path = path_of(r, FACTS);
    bool exists = path && base_is_file(path);
    free(path);
    return exists;
}

void checkpoint_remove(const train_recipe *r)
{
    static const char *const names[] = {FACTS, TENSORS};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_of(r, names[i]);
        if (path)
            unlink(path);
        free(path);
    }
    char *folder = path_of(r, NULL);
    if (folder)
        rmdir(folder);
    free(folder);
}

uint64_t checkpoint_hash(const train_data *data)
{
    uint64_t h = BASE_FNV_START;
    h = base_fnv1a(h, data->start,
                   ((size_t)data->n_rows + 1) * sizeof *data->start);
    h = base_fnv1a(h, data->ids, (size_t)data->n_tokens * sizeof *data->ids);
    return base_fnv1a(h, data->label, (size_t)data->n_tokens);
}

/* ---- writing -------------------------------------------------------- */

/* 64 bits do not fit a JSON number everywhere. */
static json_t *hash_text(uint64_t hash)
{
    char text[24];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return json_string(text);
}

static json_t *fixed_keys(const train_recipe *r)
{
    json_t *o = json_object();
    bool ok = o != NULL;
    for (int64_t i = 0; ok && i < recipe_n_keys; i++) {
        if (!recipe_keys[i].fixed)
            continue;
        base_str text = {0};
        recipe_value_text(&recipe_keys[i], r, &text);
        ok = !text.failed && json_object_set_new(o, recipe_keys[i].name,
                                                 json_string(text.s)) == 0;
        base_str_free(&text);
    }
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *facts_object(const checkpoint_run *run, const optim *o,
                            const train_progress *at)
{
    const struct {
        const char *key;
        json_t *value;
    } facts[] = {
        {"version", json_integer(VERSION)},
        {"step", json_integer(at->step)},
        {"total_steps", json_integer(run->total)},
        {"window_steps", json_integer(at->window_steps)},
        {"window_loss", json_real(at->window_loss)},
        {"tokens", json_integer(at->tokens)},
        {"last_eval", json_integer(at->last_eval)},
        {"has_eval", json_boolean(at->has_eval)},
        {"eval_loss", json_real(at->eval_loss)},
        {"train_loss", json_real(at->train_loss)},
        {"grad_norm", json_real(at->grad_norm)},
        {"elapsed_s", json_real(at->elapsed_s)},
        {"n_parameters", json_integer(o->n)},
        {"start_hash", hash_text(run->start_hash)},
        {"data_hash", hash_text(run->data_hash)},
        {"recipe", fixed_keys(run->r)},
    };
    json_t *object = json_object();
    int bad = object == NULL;
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        bad |= json_object_set_new(object, facts[i].key, facts[i].value);
    if (!bad)
        return object;
    json_decref(object);
    return NULL;
}

static lori_status emit(void *context, const format_desc *desc,
                        format_sink *sink, lori_error *err)
{
    optim *o = context;
    int which = 0;
    while (strcmp(tensor_names[which], desc->name) != 0)
        which++;
    for (int64_t k = 0; k < o->n_slices; k++) {
        const optim_slice *s = &o->slices[k];
        BASE_TRY(optim_get(o, which, s, err));
        BASE_TRY(format_sink_write(
            sink, o->host, (size_t)s->count * base_dtype_bytes(o->be->acc),
            err));
    }
    return LORI_OK;
}

static lori_status write_files(const checkpoint_run *run, optim *o,
                               const train_progress *at, const char *folder,
                               lori_error *err)
{
    format_desc desc[3];
    for (int i = 0; i < 3; i++)
        desc[i] = (format_desc){.name = tensor_names[i],
                                .dtype = o->be->acc,
                                .n_dims = 1,
                                .shape = {o->n}};
    char *tensors = base_path_join(folder, TENSORS);
    char *facts = base_path_join(folder, FACTS);
    json_t *object = facts_object(run, o, at);
    lori_status st = LORI_OK;
    if (!tensors || !facts || !object)
        st = base_no_memory(err, 4096);
    if (!st)
        st = format_st_emit(tensors, desc, 3, NULL, 0, emit, o, err);
    if (!st)
        st = format_json_write(facts, object, FORMAT_JSON_INDENT, true, err);
    json_decref(object);
    free(tensors);
    free(facts);
    return st;
}

lori_status checkpoint_write(const checkpoint_run *run, optim *o,
                             const train_progress *at, lori_error *err)
{
    char *folder = path_of(run->r, NULL);
    if (!folder)
        return base_no_memory(err, strlen(run->r->output_dir));
    base_outdir *out = NULL;
    lori_status st = base_outdir_open(folder, true, FACTS, &out, err);
    free(folder);
    if (!st)
        st = write_files(run, o, at, base_outdir_path(out), err);
    if (st) {
        base_outdir_abort(out);
        return base_prefix(err, st, "saving a checkpoint");
    }
    return base_outdir_commit(out, err);
}

/* ---- reading -------------------------------------------------------- */

static lori_status check_hash(const json_t *o, const char *file,
                              const char *key, uint64_t hash, const char *what,
                              lori_error *err)
{
    const char *text = NULL;
    BASE_TRY(format_get_str(o, file, key, true, &text, err));
    if (strtoull(text, NULL, 16) == hash)
        return LORI_OK;
    return base_fail(err, LORI_MISMATCH,
                     "%s: %s not what this run was started with", file, what);
}

static lori_status check_keys(const checkpoint_run *run, const json_t *o,
                              const char *file, lori_error *err)
{
    const json_t *keys = json_object_get(o, "recipe");
    lori_status st = LORI_OK;
    for (int64_t i = 0; !st && i < recipe_n_keys; i++) {
        const recipe_key *key = &recipe_keys[i];
        const char *old = json_string_value(json_object_get(keys, key->name));
        if (!key->fixed)
            continue;
        base_str now = {0};
        recipe_value_text(key, run->r, &now);
        if (now.failed)
            st = base_no_memory(err, now.len);
        else if (!old || strcmp(old, now.s) != 0)
            st = base_fail(err, LORI_MISMATCH,
                           "%s: the run was started with %s: %s, the recipe "
                           "now says %s",
                           file, key->name, old ? old : "nothing", now.s);
        base_str_free(&now);
    }
    return st;
}

static lori_status check_steps(const checkpoint_run *run, const char *file,
                               int64_t step, int64_t total, lori_error *err)
{
    const train_recipe *r = run->r;
    bool rate_needs_total = r->lr_scheduler_type == TRAIN_LINEAR ||
                            (r->warmup_ratio > 0 && r->warmup_steps == 0);
    if (step > run->total)
        return base_fail(err, LORI_MISMATCH,
                         "%s: %lld steps are done, the recipe now asks for "
                         "%lld",
                         file, (long long)step, (long long)run->total);
    if (rate_needs_total && total != run->total)
        return base_fail(err, LORI_MISMATCH,
                         "%s: the run was planned for %lld steps, now for "
                         "%lld: its learning rate depends on that",
                         file, (long long)total, (long long)run->total);
    return LORI_OK;
}

static lori_status read_facts(const checkpoint_run *run, const json_t *o,
                              const char *file, const optim *opt,
                              train_progress *at, lori_error *err)
{
    int64_t version = 0, total = 0, n = 0;
    BASE_TRY(
        format_get_i64(o, file, "version", true, 0, INT64_MAX, &version, err));
    if (version != VERSION)
        return base_fail(err, LORI_UNSUPPORTED, "%s: version %lld, known is %d",
                         file, (long long)version, VERSION);
    const struct {
        const char *key;
        int64_t *io;
    } counts[] = {{"step", &at->step},
                  {"total_steps", &total},
                  {"window_steps", &at->window_steps},
                  {"tokens", &at->tokens},
                  {"last_eval", &at->last_eval},
                  {"n_parameters", &n}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        BASE_TRY(format_get_i64(o, file, counts[i].key, true, 0, INT64_MAX,
                                counts[i].io, err));
    const struct {
        const char *key;
        double *io;
    } reals[] = {{"window_loss", &at->window_loss},
                 {"eval_loss", &at->eval_loss},
                 {"train_loss", &at->train_loss},
                 {"grad_norm", &at->grad_norm},
                 {"elapsed_s", &at->elapsed_s}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        BASE_TRY(format_get_f64(o, file, reals[i].key, true, reals[i].io, err));
    BASE_TRY(format_get_bool(o, file, "has_eval", true, &at->has_eval, err));
    BASE_TRY(check_keys(run, o, file, err));
    BASE_TRY(check_hash(o, file, "data_hash", run->data_hash,
                        "the rows of train_file are", err));
    BASE_TRY(check_hash(o, file, "start_hash", run->start_hash,
                        "the start adapter or mask is", err));
    if (n != opt->n)
        return base_fail(err, LORI_MISMATCH,
                         "%s: %lld parameters, this run has %lld", file,
                         (long long)n, (long long)opt->n);
    return check_steps(run, file, at->step, total, err);
}

static lori_status read_tensors(const char *path, optim *o, lori_error *err)
{
    format_store *store;
    BASE_TRY(format_store_open_file(path, &store, err));
    lori_status st = LORI_OK;
    for (int i = 0; i < 3 && !st; i++) {
        const format_tensor *t = format_store_find(store, tensor_names[i]);
        if (!t || t->dtype != o->be->acc || t->n_dims != 1 ||
            t->shape[0] != o->n)
            st = base_fail(
                err, LORI_FORMAT, "%s: no tensor '%s' of %lld %s values", path,
                tensor_names[i], (long long)o->n, base_dtype_name(o->be->acc));
        else
            st = optim_put(o, i, t->data, err);
    }
    format_store_close(store);
    return st;
}

lori_status checkpoint_read(const checkpoint_run *run, optim *o,
                            train_progress *at, lori_error *err)
{
    *at = (train_progress){0};
    char *facts = path_of(run->r, FACTS), *tensors = path_of(run->r, TENSORS);
    json_t *object = NULL;
    lori_status st = LORI_OK;
    if (!facts || !tensors)
        st = base_no_memory(err, strlen(run->r->output_dir));
    if (!st)
        st = format_json_load(facts, &object, err);
    if (!st && !json_is_object(object))
        st = base_fail(err, LORI_FORMAT, "%s: not a JSON object", facts);
    if (!st)
        st = read_facts(run, object, facts, o, at, err);
    if (!st)
        st = read_tensors(tensors, o, err);
    json_decref(object);
    free(facts);
    free(tensors);
    return st ? base_prefix(err, st, "resume_from_checkpoint") : LORI_OK;
}
