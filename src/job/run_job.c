/* run_job.c - `lori run`: the stages of a plan, one after the other, with the
 * jobs that the commands use. Skips what is done, goes on with what was
 * stopped, shows one progress for all. */
#include <math.h>
#include <stdlib.h>

#include "job/run_i.h"

typedef struct running {
    const lori_run_options *o;
    const lori_ui *ui;
    run_plan plan;
    run_state *state;     /* [stages] */
    double *seconds;      /* [stages] taken, or expected */
    int64_t at;           /* the stage that runs */
    double before, total; /* seconds of the stages before it, of all */
    double share;         /* of this stage that is done */
} running;

/* ---- one progress for all ---------------------------------------------------
 */

static const lori_progress *inner_of(const running *r, const lori_progress *p)
{
    static const char *const counted[] = {"train", NULL, NULL, "eval"};
    const char *what = counted[r->plan.stages[r->at].kind];
    return what && !strcmp(p->what, what) && p->total > 0 ? p : NULL;
}

static void on_progress(void *context, const lori_progress *p)
{
    running *r = context;
    const run_stage *s = &r->plan.stages[r->at];
    if (inner_of(r, p))
        r->share = (double)p->done / (double)p->total;
    double done = (r->before + r->share * r->seconds[r->at]) / r->total;
    base_progress(r->ui, "run", (int64_t)(1000 * done), 1000,
                  "%s: %s %lld/%lld %s", s->name, p->what, (long long)p->done,
                  (long long)p->total, p->detail ? p->detail : "");
}

static void on_log(void *context, lori_log_level level, const char *line)
{
    running *r = context;
    base_log(r->ui, level, "%s: %s", r->plan.stages[r->at].name, line);
}

static int on_ask(void *context)
{
    running *r = context;
    return base_interrupted(r->ui);
}

/* Seconds of stages that have not run: as the mean of their kind's that have,
 * else a guess. */
static void expect(running *r)
{
    static const double guess[RUN_KINDS] = {60, 0.2, 0.5, 60};
    double sum[RUN_KINDS] = {0}, n[RUN_KINDS] = {0};
    for (int64_t i = 0; i < r->plan.n; i++)
        if (r->state[i] == RUN_DONE) {
            sum[r->plan.stages[i].kind] += r->seconds[i];
            n[r->plan.stages[i].kind]++;
        }
    r->total = r->before = 0;
    for (int64_t i = 0; i < r->plan.n; i++) {
        run_kind k = r->plan.stages[i].kind;
        if (r->state[i] != RUN_DONE)
            r->seconds[i] = n[k] > 0 ? sum[k] / n[k] : guess[k];
        r->total += r->seconds[i];
        r->before += i < r->at ? r->seconds[i] : 0;
    }
    r->total = fmax(r->total, 1e-3);
}

/* ---- the jobs
 * ---------------------------------------------------------------- */

static lori_status train_from(running *r, const run_stage *s, bool resume,
                              const lori_ui *ui, lori_report **report,
                              lori_error *err)
{
    run_words all = {0};
    lori_status st = LORI_OK;
    for (int64_t i = 0; i < s->settings.n && !st; i++)
        st = run_words_add(&all, err, "%s", s->settings.word[i]);
    if (!st)
        st = run_words_add(&all, err, "%s=true",
                           resume ? "resume_from_checkpoint"
                                  : "overwrite_output_dir");
    lori_train_options o = {.overrides = (const char *const *)all.word,
                            .n_overrides = all.n,
                            .hub_cache = r->o->hub_cache,
                            .isa = r->o->isa};
    if (!st)
        st = job_train(&o, ui, report, err);
    run_words_free(&all);
    return st;
}

static lori_status do_train(running *r, const run_stage *s, const lori_ui *ui,
                            lori_report **report, lori_error *err)
{
    char *checkpoint = base_path_join(s->output, "checkpoint");
    if (!checkpoint)
        return base_no_memory(err, 1);
    bool resume = r->state[r->at] == RUN_STOPPED && base_is_dir(checkpoint);
    free(checkpoint);
    if (!resume)
        return train_from(r, s, false, ui, report, err);
    lori_error why;
    lori_status st = train_from(r, s, true, ui, report, &why);
    if (st == LORI_MISMATCH || st == LORI_FORMAT) {
        base_log(ui, LORI_LOG_WARNING,
                 "starts afresh, its checkpoint does not fit: %s", why.message);
        return train_from(r, s, false, ui, report, err);
    }
    if (st && err)
        *err = why;
    return st;
}

static lori_status do_mask(const running *r, const run_stage *s,
                           const lori_ui *ui, lori_report **report,
                           lori_error *err)
{
    lori_mask_options o = {.adapter = s->inputs.word[0],
                           .output = s->output,
                           .sparsity = s->sparsity,
                           .replace = 1,
                           .hub_cache = r->o->hub_cache};
    return job_mask(&o, ui, report, err);
}

static lori_status do_merge(const running *r, const run_stage *s,
                            const lori_ui *ui, lori_report **report,
                            lori_error *err)
{
    lori_merge_options o = {.adapters = (const char *const *)s->inputs.word,
                            .weights = s->weights,
                            .n_adapters = s->inputs.n,
                            .method = s->merge,
                            .output = s->output,
                            .replace = 1,
                            .hub_cache = r->o->hub_cache};
    return job_merge(&o, ui, report, err);
}

static lori_status do_eval(const running *r, const run_stage *s,
                           const lori_ui *ui, lori_report **report,
                           lori_error *err)
{
    const run_plan *plan = &r->plan;
    lori_named_adapter *rows = base_alloc((size_t)s->n_rows + 1, sizeof *rows);
    if (!rows)
        return base_no_memory(err, (size_t)s->n_rows * sizeof *rows);
    for (int64_t i = 0; i < s->n_rows; i++) /* input 0 is the model */
        rows[i] =
            (lori_named_adapter){plan->rows.word[i], s->inputs.word[i + 1]};
    lori_eval_options o = {.model = plan->model,
                           .adapters = rows,
                           .n_adapters = s->n_rows,
                           .base = 1,
                           .tasks = (const char *const *)plan->tasks.word,
                           .n_tasks = plan->tasks.n,
                           .data_dir = plan->data_dir,
                           .limit = plan->eval_limit,
                           .output = s->output,
                           .log_samples = plan->eval_log_samples,
                           .overwrite = 1,
                           .batch_size = plan->eval_batch_size,
                           .dtype = (lori_dtype)plan->eval_dtype,
                           .hub_cache = r->o->hub_cache,
                           .isa = r->o->isa};
    lori_status st = job_eval(&o, ui, report, err);
    free(rows);
    return st;
}

static lori_status do_stage(running *r, const run_stage *s, const lori_ui *ui,
                            lori_report **report, lori_error *err)
{
    switch (s->kind) {
    case RUN_TRAIN:
        return do_train(r, s, ui, report, err);
    case RUN_MASK:
        return do_mask(r, s, ui, report, err);
    case RUN_MERGE:
        return do_merge(r, s, ui, report, err);
    case RUN_EVAL:
    case RUN_KINDS:
        break;
    }
    return do_eval(r, s, ui, report, err);
}

static lori_status run_stage_at(running *r, int64_t i, lori_error *err)
{
    const run_stage *s = &r->plan.stages[i];
    lori_report *report = NULL;
    json_t *facts = NULL;
    r->at = i;
    r->share = 0;
    BASE_TRY(run_facts(&r->plan, s, &facts, err));
    lori_status st =
        run_look(&r->plan, s, facts, &r->state[i], &r->seconds[i], err);
    if (!st && r->state[i] != RUN_DONE) {
        lori_ui ui = {.context = r,
                      .log = on_log,
                      .progress = on_progress,
                      .interrupted = on_ask};
        expect(r);
        base_log(r->ui, LORI_LOG_INFO, "stage %lld of %lld: %s %s%s",
                 (long long)i + 1, (long long)r->plan.n,
                 run_kind_names[s->kind], s->name,
                 r->state[i] == RUN_STOPPED ? " (goes on)" : "");
        double start = base_now_s();
        st = base_interrupted(r->ui)
                 ? base_fail(err, LORI_INTERRUPTED, "interrupted")
                 : run_begin(&r->plan, s, facts, err);
        if (!st)
            st = do_stage(r, s, &ui, &report, err);
        r->seconds[i] = base_now_s() - start;
        if (!st)
            st = run_end(&r->plan, s, facts, r->seconds[i], err);
        r->state[i] = st ? r->state[i] : RUN_DONE;
        if (st)
            base_prefix(err, st, "stage %s", s->name);
    }
    job_report_free(report);
    json_decref(facts);
    return st;
}

/* ---- reports
 * -------------------------------------------------------------------- */

static json_t *stages_json(const running *r)
{
    static const char *const states[] = {"to do", "stopped", "done"};
    json_t *list = json_array();
    for (int64_t i = 0; i < r->plan.n; i++) {
        const run_stage *s = &r->plan.stages[i];
        json_array_append_new(
            list, json_pack("{sssssssssf}", "name", s->name, "kind",
                            run_kind_names[s->kind], "output", s->output,
                            "state", states[r->state[i]], "seconds",
                            r->state[i] == RUN_DONE ? r->seconds[i] : 0.0));
    }
    return list;
}

static lori_status write_page(const running *r, lori_error *err)
{
    bool written = false;
    char *path = base_path_join(r->plan.output, "report.html");
    lori_status st =
        path ? run_page_write(&r->plan, r->o, r->seconds, path, &written, err)
             : base_no_memory(err, 1);
    if (st)
        base_prefix(err, st, "the page of the results");
    else if (written)
        base_log(r->ui, LORI_LOG_INFO, "results written to %s", path);
    free(path);
    return st;
}

/* The table that the last evaluation wrote. */
static lori_status finish_report(const running *r, lori_report **out,
                                 lori_error *err)
{
    json_t *results = NULL, *stages = stages_json(r);
    base_str text = {0}, file = {0};
    char *bytes = NULL;
    size_t n = 0;
    lori_status st = LORI_OK;
    if (r->plan.tasks.n) {
        base_str_printf(&file, "%s/eval/results.md", r->plan.output);
        st = base_file_read(file.s ? file.s : "", (size_t)1 << 26, &bytes, &n,
                            err);
        if (!st)
            base_str_add(&text, bytes, n);
        base_str_clear(&file);
        base_str_printf(&file, "%s/eval/results.json", r->plan.output);
        if (!st)
            st = format_json_load(file.s ? file.s : "", &results, err);
    }
    free(bytes);
    base_str_free(&file);
    if (!st)
        return report_new(json_pack("{sososo}", "output",
                                    json_string(r->plan.output), "stages",
                                    stages, "evaluation",
                                    results ? results : json_null()),
                          &text, out, err);
    json_decref(stages);
    base_str_free(&text);
    return st;
}

/* Whether an input of stage i is the output of an earlier one that will run. */
static bool waits(const running *r, int64_t i)
{
    const run_stage *s = &r->plan.stages[i];
    for (int64_t k = 0; k < i; k++)
        for (int64_t j = 0; j < s->inputs.n && r->state[k] != RUN_DONE; j++)
            if (!strcmp(r->plan.stages[k].output, s->inputs.word[j]))
                return true;
    return false;
}

static lori_status look_at(running *r, int64_t i, lori_error *err)
{
    json_t *facts = NULL;
    r->state[i] = RUN_TODO;
    if (waits(r, i))
        return LORI_OK;
    BASE_TRY(run_facts(&r->plan, &r->plan.stages[i], &facts, err));
    lori_status st = run_look(&r->plan, &r->plan.stages[i], facts, &r->state[i],
                              &r->seconds[i], err);
    json_decref(facts);
    return st;
}

static lori_status dry_run(running *r, lori_report **out, lori_error *err)
{
    static const char *const words[] = {"run", "go on", "done"};
    base_str text = {0};
    for (int64_t i = 0; i < r->plan.n; i++) {
        lori_status st = look_at(r, i, err);
        if (st) {
            base_str_free(&text);
            return st;
        }
        const run_stage *s = &r->plan.stages[i];
        base_str_printf(&text, "%3lld  %-5s  %-5s  %s\n", (long long)i + 1,
                        words[r->state[i]], run_kind_names[s->kind], s->name);
    }
    return report_new(
        json_pack("{sbso}", "dry_run", 1, "stages", stages_json(r)), &text, out,
        err);
}

static bool is_output(const run_plan *plan, const char *path)
{
    for (int64_t i = 0; i < plan->n; i++)
        if (!strcmp(plan->stages[i].output, path))
            return true;
    return false;
}

/* What hours of training would otherwise end with: files that are not there. */
static lori_status check_inputs(const run_plan *plan, lori_error *err)
{
    for (int64_t i = 0; i < plan->n; i++) {
        const run_stage *s = &plan->stages[i];
        for (int64_t k = 0; k < s->inputs.n; k++) {
            const char *path = s->inputs.word[k];
            if (strcmp(path, plan->model) != 0 && !is_output(plan, path) &&
                !base_is_file(path) && !base_is_dir(path))
                return base_fail(err, LORI_NOT_FOUND,
                                 "stage %s: '%s' is not there%s%s", s->name,
                                 path, plan->data_dir ? " and not in " : "",
                                 plan->data_dir ? plan->data_dir : "");
        }
    }
    json_t *facts = json_object();
    lori_status st =
        facts ? run_add_tasks(plan, facts, err) : base_no_memory(err, 1);
    json_decref(facts);
    return st;
}

static lori_status run_all(running *r, lori_report **out, lori_error *err)
{
    run_plan *plan = &r->plan;
    r->state = base_alloc((size_t)plan->n, sizeof *r->state);
    r->seconds = base_alloc((size_t)plan->n, sizeof *r->seconds);
    if (!r->state || !r->seconds)
        return base_no_memory(err, (size_t)plan->n * sizeof *r->seconds);
    BASE_TRY(hub_find(r->o->hub_cache, plan->model, HUB_WEIGHTS, &plan->folder,
                      err));
    BASE_TRY(check_inputs(plan, err));
    plan->model_hash = BASE_FNV_START;
    BASE_TRY(base_hash_path(plan->folder, &plan->model_hash, err));
    if (r->o->dry_run)
        return dry_run(r, out, err);
    for (int64_t i = 0; i < plan->n; i++)
        BASE_TRY(run_stage_at(r, i, err));
    BASE_TRY(write_page(r, err));
    return finish_report(r, out, err);
}

lori_status job_run(const lori_run_options *o, const lori_ui *ui,
                    lori_report **out, lori_error *err)
{
    *out = NULL;
    running r = {.o = o, .ui = ui};
    BASE_TRY(run_plan_load(o, &r.plan, err));
    lori_status st = run_all(&r, out, err);
    run_plan_free(&r.plan);
    free(r.state);
    free(r.seconds);
    return st;
}
