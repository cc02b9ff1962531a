/* run_stamp.c - OUTPUT/stamps/STAGE.json: what a stage's output was made from
 * (settings, hashes of its inputs' content), whether it was finished, and the
 * hash of the output. A stage is done when all of it is as it was. */
#include <math.h>
#include <stdlib.h>

#include "job/run_i.h"

static json_t *hash_text(uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return json_string(text);
}

static lori_status stamp_path(const run_plan *plan, const run_stage *s,
                              char **path, lori_error *err)
{
    base_str text = {0};
    base_str_printf(&text, "%s/stamps/%s.json", plan->output, s->name);
    *path = base_str_take(&text);
    return *path ? LORI_OK : base_no_memory(err, 1);
}

/* ---- what a stage is made from ------------------------------------------ */

static lori_status hash_inputs(const run_plan *plan, const run_stage *s,
                               json_t *inputs, lori_error *err)
{
    for (int64_t i = 0; i < s->inputs.n; i++) {
        const char *path = s->inputs.word[i];
        uint64_t hash = BASE_FNV_START;
        if (!strcmp(path, plan->model))
            hash = plan->model_hash;
        else
            BASE_TRY(base_hash_path(path, &hash, err));
        json_array_append_new(inputs, hash_text(hash));
    }
    return LORI_OK;
}

/* A setting; a path of the stage's own by what it is, so that folders may move
 * and be named in another way. */
static json_t *setting_fact(const run_stage *s, const char *word)
{
    const char *value = strchr(word, '=');
    int key = value ? (int)(value - word) : 0;
    if (value && !strcmp(value + 1, s->output))
        return json_sprintf("%.*s: output", key, word);
    for (int64_t i = 0; value && i < s->inputs.n; i++)
        if (!strcmp(value + 1, s->inputs.word[i]))
            return json_sprintf("%.*s: input %d", key, word, (int)i);
    return json_string(word);
}

lori_status run_add_tasks(const run_plan *plan, json_t *facts, lori_error *err)
{
    json_t *tasks = json_object();
    lori_status st = LORI_OK;
    for (int64_t i = 0; i < plan->tasks.n && !st; i++) {
        eval_task *task = NULL;
        eval_docs *docs = NULL;
        st = eval_task_load(plan->tasks.word[i], &task, err);
        if (!st)
            st = eval_docs_load(task, plan->data_dir, plan->eval_limit, NULL,
                                &docs, err);
        if (!st)
            json_object_set_new(tasks, task->name,
                                json_pack("{sOso}", "task", task->config,
                                          "data", hash_text(docs->hash)));
        eval_docs_free(docs);
        eval_task_free(task);
    }
    json_object_set_new(facts, "tasks", tasks);
    return st;
}

lori_status run_facts(const run_plan *plan, const run_stage *s, json_t **facts,
                      lori_error *err)
{
    json_t *settings = json_array(), *inputs = json_array();
    *facts = json_pack("{sssoso}", "kind", run_kind_names[s->kind], "settings",
                       settings, "inputs", inputs);
    if (!*facts)
        return base_no_memory(err, 1);
    for (int64_t i = 0; i < s->settings.n; i++)
        json_array_append_new(settings, setting_fact(s, s->settings.word[i]));
    lori_status st = hash_inputs(plan, s, inputs, err);
    if (!st && s->kind == RUN_EVAL)
        st = run_add_tasks(plan, *facts, err);
    if (st) {
        json_decref(*facts);
        *facts = NULL;
        base_prefix(err, st, "stage %s", s->name);
    }
    return st;
}

/* ---- its output -----------------------------------------------------------
 */

/* Of an evaluation: the logs of its own rows. */
static lori_status hash_output(const run_plan *plan, const run_stage *s,
                               uint64_t *hash, lori_error *err)
{
    *hash = BASE_FNV_START;
    if (s->kind != RUN_EVAL)
        return base_hash_path(s->output, hash, err);
    for (int64_t i = -1; i < s->n_rows; i++) {
        char *path =
            base_path_join(s->output, i < 0 ? "base" : plan->rows.word[i]);
        lori_status st =
            path ? base_hash_path(path, hash, err) : base_no_memory(err, 1);
        free(path);
        BASE_TRY(st);
    }
    return LORI_OK;
}

/* Whether the tables, which all evaluations write to, hold this one's rows. */
static bool in_tables(const run_plan *plan, const run_stage *s)
{
    json_t *tables = NULL;
    char *text = base_path_join(s->output, "results.md");
    char *values = base_path_join(s->output, "results.json");
    const char *last = s->n_rows ? plan->rows.word[s->n_rows - 1] : "base";
    bool there = text && values && base_is_file(text) &&
                 format_json_load(values, &tables, NULL) == LORI_OK &&
                 json_object_get(json_object_get(tables, "results"), last);
    json_decref(tables);
    free(text);
    free(values);
    return there;
}

lori_status run_look(const run_plan *plan, const run_stage *s,
                     const json_t *facts, run_state *state, double *seconds,
                     lori_error *err)
{
    char *path = NULL;
    json_t *stamp = NULL;
    *state = RUN_TODO;
    BASE_TRY(stamp_path(plan, s, &path, err));
    lori_status st = LORI_OK;
    if (base_is_file(path))
        st = format_json_load(path, &stamp, err);
    free(path);
    if (st || !stamp)
        return st;
    const char *then = json_string_value(json_object_get(stamp, "output"));
    if (json_equal(json_object_get(stamp, "facts"), facts)) {
        uint64_t hash;
        lori_error missing; /* an output that cannot be read is not done */
        *state = RUN_STOPPED;
        if (then && hash_output(plan, s, &hash, &missing) == LORI_OK &&
            hash == strtoull(then, NULL, 16) &&
            (s->kind != RUN_EVAL || in_tables(plan, s))) {
            *state = RUN_DONE;
            *seconds = json_number_value(json_object_get(stamp, "seconds"));
        }
    }
    json_decref(stamp);
    return LORI_OK;
}

static lori_status write_stamp(const run_plan *plan, const run_stage *s,
                               const json_t *facts, json_t *output,
                               double seconds, lori_error *err)
{
    char *path = NULL, *folder = base_path_join(plan->output, "stamps");
    json_t *stamp = json_pack("{sOsosf}", "facts", facts, "output", output,
                              "seconds", seconds);
    lori_status st =
        stamp && folder ? base_mkdirs(folder, err) : base_no_memory(err, 1);
    if (!st)
        st = stamp_path(plan, s, &path, err);
    if (!st)
        st = format_json_write(path, stamp, FORMAT_JSON_INDENT, true, err);
    json_decref(stamp);
    free(path);
    free(folder);
    return st;
}

lori_status run_begin(const run_plan *plan, const run_stage *s,
                      const json_t *facts, lori_error *err)
{
    return write_stamp(plan, s, facts, json_null(), 0, err);
}

lori_status run_end(const run_plan *plan, const run_stage *s,
                    const json_t *facts, double seconds, lori_error *err)
{
    uint64_t hash;
    BASE_TRY(hash_output(plan, s, &hash, err));
    return write_stamp(plan, s, facts, hash_text(hash), seconds, err);
}
