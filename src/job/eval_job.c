/* eval_job.c - tasks on a base and its adapters: opens what the options name,
 * runs every model on every task through eval/, writes the tables. */
#include <stdlib.h>

#include "eval/eval.h"
#include "job/job_i.h"

/* One row of the table. */
typedef struct row {
    char *name;
    char *folder; /* of the adapter; NULL: the base alone */
    uint64_t hash;
} row;

typedef struct evaluation {
    const lori_eval_options *o;
    const lori_ui *ui;
    char *folder; /* of the base */
    backend *be;
    model *model;
    text_tokenizer *tok;
    text_chat *chat; /* NULL: no task applies it */
    infer_engine *engine;
    row *rows;
    int64_t n_rows;
    eval_task **tasks;
    eval_docs **docs;
    eval_score *scores; /* [rows * tasks] */
    int64_t total;      /* documents of the whole run */
} evaluation;

static void close_all(evaluation *e)
{
    for (int64_t i = 0; e->rows && i < e->n_rows; i++) {
        free(e->rows[i].name);
        free(e->rows[i].folder);
    }
    for (int64_t i = 0; e->tasks && i < e->o->n_tasks; i++)
        eval_task_free(e->tasks[i]);
    for (int64_t i = 0; e->docs && i < e->o->n_tasks; i++)
        eval_docs_free(e->docs[i]);
    free(e->rows);
    free(e->tasks);
    free(e->docs);
    free(e->scores);
    free(e->folder);
    infer_engine_free(e->engine);
    text_chat_close(e->chat);
    text_tokenizer_close(e->tok);
    model_close(e->model);
    backend_close(e->be);
}

/* ---- what is to be evaluated ------------------------------------------ */

/* The last part of a path that may end in '/'; malloc'd. */
static char *last_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/')
        from--;
    return base_strndup(path + from, n - from);
}

/* `ad` NULL: the base alone. */
static lori_status add_row(evaluation *e, const lori_named_adapter *ad,
                           lori_error *err)
{
    row *r = &e->rows[e->n_rows];
    bool named = ad && ad->name && *ad->name;
    if (ad)
        BASE_TRY(job_need(ad->folder, "an adapter folder", err));
    r->name = !ad     ? base_strdup("base")
              : named ? base_strdup(ad->name)
                      : last_name(ad->folder);
    if (!r->name)
        return base_no_memory(err, 1);
    e->n_rows++;
    if (!*r->name || *r->name == '.' || strchr(r->name, '/'))
        return base_fail(err, LORI_INVALID,
                         "'%s' cannot name the results of an adapter: give it "
                         "a plain name with --adapter NAME=FOLDER",
                         r->name);
    for (int64_t i = 0; i + 1 < e->n_rows; i++)
        if (!strcmp(e->rows[i].name, r->name))
            return base_fail(err, LORI_INVALID,
                             "two models are named '%s'; give them names with "
                             "--adapter NAME=FOLDER",
                             r->name);
    return ad ? hub_find(e->o->hub_cache, ad->folder, HUB_WEIGHTS, &r->folder,
                         err)
              : LORI_OK;
}

static lori_status list_rows(evaluation *e, lori_error *err)
{
    const lori_eval_options *o = e->o;
    e->rows = base_alloc((size_t)o->n_adapters + 1, sizeof *e->rows);
    if (!e->rows)
        return base_no_memory(err, (size_t)o->n_adapters * sizeof *e->rows);
    if (o->base || o->n_adapters == 0)
        BASE_TRY(add_row(e, NULL, err));
    for (int64_t i = 0; i < o->n_adapters; i++)
        BASE_TRY(add_row(e, &o->adapters[i], err));
    return LORI_OK;
}

static lori_status load_tasks(evaluation *e, lori_error *err)
{
    const lori_eval_options *o = e->o;
    size_t n = (size_t)o->n_tasks;
    if (n == 0)
        return base_fail(err, LORI_INVALID,
                         "no task: name one with --task (lori eval --list "
                         "shows the presets)");
    e->tasks = base_alloc(n, sizeof *e->tasks);
    e->docs = base_alloc(n, sizeof *e->docs);
    e->scores = base_alloc(n * (size_t)e->n_rows, sizeof *e->scores);
    if (!e->tasks || !e->docs || !e->scores)
        return base_no_memory(err, n * sizeof *e->scores);
    for (size_t i = 0; i < n; i++) {
        BASE_TRY(eval_task_load(o->tasks[i], &e->tasks[i], err));
        for (size_t k = 0; k < i; k++)
            if (!strcmp(e->tasks[k]->name, e->tasks[i]->name))
                return base_fail(err, LORI_INVALID,
                                 "two tasks are named '%s' (%s and %s)",
                                 e->tasks[i]->name, e->tasks[k]->source,
                                 e->tasks[i]->source);
        BASE_TRY(eval_docs_load(e->tasks[i], o->data_dir, o->limit, e->ui,
                                &e->docs[i], err));
        e->total += e->docs[i]->n * e->n_rows;
    }
    return LORI_OK;
}

/* A row's results depend on the base's files and its adapter's. */
static lori_status hash_rows(evaluation *e, lori_error *err)
{
    uint64_t base = BASE_FNV_START;
    if (!e->o->output) /* nothing is kept that could be compared */
        return LORI_OK;
    BASE_TRY(base_hash_path(e->folder, &base, err));
    for (int64_t i = 0; i < e->n_rows; i++) {
        e->rows[i].hash = base;
        if (e->rows[i].folder)
            BASE_TRY(base_hash_path(e->rows[i].folder, &e->rows[i].hash, err));
    }
    return LORI_OK;
}

static lori_status open_model(evaluation *e, lori_error *err)
{
    backend_options open = {.name = "cpu",
                            .dtype = job_dtype(e->o->dtype, BASE_BF16),
                            .n_threads = e->o->n_threads,
                            .isa = e->o->isa};
    BASE_TRY(backend_open(&open, &e->be, err));
    infer_limits limits = {.max_batch = e->o->batch_size};
    BASE_TRY(model_open(e->folder, e->be, &e->model, err));
    BASE_TRY(text_tokenizer_open(e->folder, &e->tok, err));
    for (int64_t i = 0; i < e->o->n_tasks && !e->chat; i++)
        if (e->tasks[i]->apply_chat_template)
            BASE_TRY(text_chat_open(e->tok, NULL, &e->chat, err));
    return infer_engine_new(e->model, &limits, &e->engine, err);
}

/* ---- running ------------------------------------------------------------ */

static lori_status run_row(evaluation *e, int64_t i, int64_t *before,
                           lori_error *err)
{
    const row *r = &e->rows[i];
    adapter *ad = NULL;
    model_adapter *ma = NULL;
    lori_status st = r->folder ? adapter_read(r->folder, &ad, err) : LORI_OK;
    if (!st && ad) {
        st = model_adapter_new(e->model, ad, &ma, err);
        if (st)
            base_prefix(err, st, "%s", r->folder);
    }
    eval_subject subject = {.name = r->name,
                            .engine = e->engine,
                            .model = e->model,
                            .adapter = ma,
                            .adapter_key = ma ? (uint64_t)i + 1 : 0,
                            .tok = e->tok,
                            .chat = e->chat,
                            .hash = r->hash};
    for (int64_t k = 0; k < e->o->n_tasks && !st; k++) {
        eval_options options = {.output = e->o->output,
                                .overwrite = e->o->overwrite != 0,
                                .log_samples = e->o->log_samples != 0,
                                .ui = e->ui,
                                .before = *before,
                                .total = e->total};
        st = eval_run(&subject, e->tasks[k], e->docs[k], &options,
                      &e->scores[i * e->o->n_tasks + k], err);
        *before += e->docs[k]->n;
    }
    model_adapter_free(ma);
    adapter_free(ad);
    return st;
}

/* results.json and results.md, then the report. */
static lori_status report(const evaluation *e, lori_report **out,
                          lori_error *err)
{
    const char **names = base_alloc((size_t)e->n_rows, sizeof *names);
    if (!names)
        return base_no_memory(err, (size_t)e->n_rows * sizeof *names);
    for (int64_t i = 0; i < e->n_rows; i++)
        names[i] = e->rows[i].name;
    eval_table table = {.subjects = names,
                        .n_subjects = e->n_rows,
                        .tasks = (const eval_task *const *)e->tasks,
                        .n_tasks = e->o->n_tasks,
                        .scores = e->scores};
    base_str text = {0};
    eval_table_text(&table, &text);
    json_t *facts = eval_table_json(&table);
    free(names);
    lori_status st = !facts || text.failed ? base_no_memory(err, 1) : LORI_OK;
    if (!st && e->o->output) {
        char *path = base_path_join(e->o->output, "results.md");
        st = path ? base_file_write(path, text.s, text.len, err)
                  : base_no_memory(err, 1);
        free(path);
        if (!st)
            st = job_write_json(e->o->output, "results.json", facts,
                                FORMAT_JSON_INDENT, true, err);
    }
    if (!st)
        return report_new(facts, &text, out, err);
    json_decref(facts);
    base_str_free(&text);
    return st;
}

static lori_status run(evaluation *e, lori_report **out, lori_error *err)
{
    BASE_TRY(job_need(e->o->model, "a model folder", err));
    if (e->o->limit < 0 || e->o->batch_size < 0)
        return base_fail(err, LORI_INVALID,
                         "limit and batch size cannot be negative");
    BASE_TRY(
        hub_find(e->o->hub_cache, e->o->model, HUB_WEIGHTS, &e->folder, err));
    BASE_TRY(list_rows(e, err));
    BASE_TRY(load_tasks(e, err));
    BASE_TRY(hash_rows(e, err));
    BASE_TRY(open_model(e, err));
    int64_t before = 0;
    for (int64_t i = 0; i < e->n_rows; i++)
        BASE_TRY(run_row(e, i, &before, err));
    return report(e, out, err);
}

lori_status job_eval(const lori_eval_options *o, const lori_ui *ui,
                     lori_report **out, lori_error *err)
{
    *out = NULL;
    evaluation e = {.o = o, .ui = ui};
    lori_status st = run(&e, out, err);
    close_all(&e);
    return st;
}

lori_status job_eval_presets(const char *name, lori_report **out,
                             lori_error *err)
{
    *out = NULL;
    base_str text = {0};
    if (name)
        BASE_TRY(eval_preset_text(name, &text, err));
    else
        eval_presets_list(&text);
    return report_new(json_pack("{ss}", "text", text.s ? text.s : ""), &text,
                      out, err);
}
