/* run_results.c - the numbers of a finished run, read from its own files:
 * eval/results.json, metrics.jsonl of every training, the masks. */
#include <math.h>
#include <stdlib.h>

#include "job/run_page_i.h"

/* ---- accuracies -----------------------------------------------------------
 */

const char *page_row_name(const page_results *r, int64_t row)
{
    return row == 0 ? "base" : r->plan->rows.word[row - 1];
}

static page_value value_of(const json_t *scores, const char *metric)
{
    base_str key = {0};
    page_value v = {0};
    base_str_printf(&key, "%s,none", metric);
    const json_t *value = key.s ? json_object_get(scores, key.s) : NULL;
    base_str_clear(&key);
    base_str_printf(&key, "%s_wilson95,none", metric);
    const json_t *interval = key.s ? json_object_get(scores, key.s) : NULL;
    v.known = json_is_number(value);
    v.value = json_number_value(value);
    v.is_share = json_is_array(interval);
    v.low = json_number_value(json_array_get(interval, 0));
    v.high = json_number_value(json_array_get(interval, 1));
    base_str_free(&key);
    return v;
}

static lori_status read_values(page_results *r, lori_error *err)
{
    const run_plan *plan = r->plan;
    json_t *file = NULL;
    base_str path = {0};
    base_str_printf(&path, "%s/eval/results.json", plan->output);
    lori_status st =
        path.s ? format_json_load(path.s, &file, err) : base_no_memory(err, 1);
    const json_t *results = json_object_get(file, "results");
    for (int64_t i = 0; i < r->n_rows * plan->tasks.n && !st; i++) {
        const char *row = page_row_name(r, i / plan->tasks.n);
        const eval_task *task = r->tasks[i % plan->tasks.n];
        const json_t *scores =
            json_object_get(json_object_get(results, row), task->name);
        r->value[i] = value_of(scores, task->metrics[0]);
        if (!r->value[i].known)
            st = base_fail(err, LORI_FORMAT,
                           "%s: no %s of '%s' on task '%s'; remove the folder "
                           "to make it again",
                           path.s, task->metrics[0], row, task->name);
    }
    json_decref(file);
    base_str_free(&path);
    return st;
}

int64_t page_row(const page_results *r, int64_t stage)
{
    int64_t row = 0;
    for (int64_t i = 0; i <= stage; i++) {
        run_kind kind = r->plan->stages[i].kind;
        row += kind == RUN_TRAIN || kind == RUN_MERGE;
    }
    return row;
}

int64_t page_training(const page_results *r, int64_t task, int64_t method,
                      int64_t first)
{
    for (int64_t i = 0; i < r->plan->n; i++) {
        const run_stage *s = &r->plan->stages[i];
        if (s->kind == RUN_TRAIN && s->task == task && s->method == method &&
            s->first == first)
            return i;
    }
    return -1;
}

page_value page_own(const page_results *r, int64_t stage, int64_t learned)
{
    int64_t task = r->plan->own[learned];
    if (task < 0 || (stage < 0 && stage != PAGE_BASE))
        return (page_value){0};
    int64_t row = stage < 0 ? 0 : page_row(r, stage);
    return r->value[row * r->plan->tasks.n + task];
}

/* ---- losses ---------------------------------------------------------------
 */

static lori_status add_point(page_curve *c, double step, double loss,
                             lori_error *err)
{
    if ((c->n & (c->n - 1)) == 0) { /* full: 0, 1, 2, 4, ... points */
        size_t room = c->n ? 2 * (size_t)c->n : 1;
        double *steps = base_resize(c->step, room, sizeof *steps);
        c->step = steps ? steps : c->step;
        double *losses = base_resize(c->loss, room, sizeof *losses);
        c->loss = losses ? losses : c->loss;
        if (!steps || !losses)
            return base_no_memory(err, room * sizeof *steps);
    }
    c->step[c->n] = step;
    c->loss[c->n++] = loss;
    return LORI_OK;
}

typedef struct curves {
    page_curve *train, *valid;
} curves;

static lori_status on_metrics(void *context, int64_t line, const json_t *row,
                              lori_error *err)
{
    (void)line;
    curves *c = context;
    const json_t *loss = json_object_get(row, "loss");
    const json_t *valid = json_object_get(row, "eval_loss");
    double step = json_number_value(json_object_get(row, "step"));
    if (json_is_number(loss))
        BASE_TRY(add_point(c->train, step, json_number_value(loss), err));
    if (json_is_number(valid))
        BASE_TRY(add_point(c->valid, step, json_number_value(valid), err));
    return LORI_OK;
}

/* A training of few steps may have logged nothing. */
static lori_status read_curves(page_results *r, int64_t i, lori_error *err)
{
    curves c = {&r->train[i], &r->valid[i]};
    char *path = base_path_join(r->plan->stages[i].output, "metrics.jsonl");
    lori_status st = LORI_OK;
    if (!path)
        st = base_no_memory(err, 1);
    else if (base_is_file(path))
        st = format_rows_read(path, on_metrics, &c, err);
    free(path);
    return st;
}

/* ---- parameters ------------------------------------------------------------
 */

/* lori.json says what an adapter holds; a mask, what of it was trained. */
static lori_status count_trained(page_results *r, int64_t i, lori_error *err)
{
    const run_stage *s = &r->plan->stages[i];
    for (int64_t k = 0; k < i; k++) {
        const run_stage *other = &r->plan->stages[k];
        if (r->keep[k] && other->task == s->task && other->method == s->method)
            r->trained[i] = r->keep[k]->kept;
    }
    if (r->trained[i])
        return LORI_OK;
    json_t *facts = NULL;
    const char *method = NULL;
    int64_t a = 0, b = 0;
    char *path = base_path_join(s->output, "lori.json");
    lori_status st =
        path ? format_json_load(path, &facts, err) : base_no_memory(err, 1);
    if (!st)
        st = format_get_str(facts, path, "method", true, &method, err);
    if (!st && !strcmp(method, "lora"))
        st = format_get_i64(facts, path, "a_entries", true, 0, INT64_MAX, &a,
                            err);
    if (!st)
        st = format_get_i64(facts, path, "b_entries", true, 0, INT64_MAX, &b,
                            err);
    r->trained[i] = a + b;
    json_decref(facts);
    free(path);
    return st;
}

/* ---- all --------------------------------------------------------------------
 */

static lori_status take_memory(page_results *r, lori_error *err)
{
    const run_plan *plan = r->plan;
    size_t stages = (size_t)plan->n, tasks = (size_t)plan->tasks.n;
    r->n_rows = plan->rows.n + 1;
    r->tasks = base_alloc(tasks, sizeof *r->tasks);
    r->value = base_alloc((size_t)r->n_rows * tasks, sizeof *r->value);
    r->train = base_alloc(stages, sizeof *r->train);
    r->valid = base_alloc(stages, sizeof *r->valid);
    r->trained = base_alloc(stages, sizeof *r->trained);
    r->keep = base_alloc(stages, sizeof *r->keep);
    if (r->tasks && r->value && r->train && r->valid && r->trained && r->keep)
        return LORI_OK;
    return base_no_memory(err, stages * sizeof *r->train);
}

static lori_status read_all(page_results *r, lori_error *err)
{
    const run_plan *plan = r->plan;
    BASE_TRY(take_memory(r, err));
    for (int64_t i = 0; i < plan->tasks.n; i++)
        BASE_TRY(eval_task_load(plan->tasks.word[i], &r->tasks[i], err));
    if (plan->tasks.n)
        BASE_TRY(read_values(r, err));
    for (int64_t i = 0; i < plan->n; i++) {
        const run_stage *s = &plan->stages[i];
        if (s->kind == RUN_TRAIN) {
            BASE_TRY(read_curves(r, i, err));
            BASE_TRY(count_trained(r, i, err));
        }
        if (s->kind == RUN_MASK)
            BASE_TRY(adapter_keep_read(s->output, &r->keep[i], err));
    }
    return LORI_OK;
}

lori_status page_results_read(const run_plan *plan, page_results *out,
                              lori_error *err)
{
    *out = (page_results){.plan = plan};
    lori_status st = read_all(out, err);
    if (st)
        page_results_free(out);
    return st;
}

void page_results_free(page_results *r)
{
    for (int64_t i = 0; r->tasks && i < r->plan->tasks.n; i++)
        eval_task_free(r->tasks[i]);
    for (int64_t i = 0; r->train && r->valid && r->keep && i < r->plan->n;
         i++) {
        free(r->train[i].step);
        free(r->train[i].loss);
        free(r->valid[i].step);
        free(r->valid[i].loss);
        adapter_keep_free(r->keep[i]);
    }
    free(r->tasks);
    free(r->value);
    free(r->train);
    free(r->valid);
    free(r->trained);
    free(r->keep);
    *r = (page_results){0};
}
