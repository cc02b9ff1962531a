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
    run_state *state; /* [stages] */
    double *seconds;  /* [stages] that the done ones took */
    bool surveyed;    /* later stages were looked at, for `seconds_left` */
    int64_t at;       /* the stage that runs */
    double start;     /* of that stage */
    double share;     /* of it that is done, and that was at its start */
    double share_before;
} running;

/* ---- one progress for all ---------------------------------------------------
 */

/* The rows that an evaluation shares with the one before it: they are not
 * evaluated again. */
static int64_t rows_before(const running *r, int64_t i)
{
    while (--i >= 0)
        if (r->plan.stages[i].kind == RUN_EVAL)
            return r->plan.stages[i].n_rows + 1;
    return 0;
}

/* Work of a stage, in a unit that is its kind's. */
static double work_of(const running *r, int64_t i)
{
    const run_stage *s = &r->plan.stages[i];
    if (s->kind != RUN_EVAL)
        return 1;
    return fmax((double)(s->n_rows + 1 - rows_before(r, i)), 1);
}

/* Of the stage that runs; other counts than that of its work say nothing. */
static void take_share(running *r, const lori_progress *p)
{
    static const char *const counted[] = {"train", NULL, NULL, "eval"};
    const run_stage *s = &r->plan.stages[r->at];
    const char *what = counted[s->kind];
    if (!what || strcmp(p->what, what) != 0 || p->total <= 0)
        return;
    double share = (double)p->done / (double)p->total;
    if (s->kind == RUN_EVAL) {
        double rows = (double)s->n_rows + 1;
        share =
            (share * rows - (double)rows_before(r, r->at)) / work_of(r, r->at);
    }
    r->share = fmax(share, 0);
    if (r->share_before < 0)
        r->share_before = r->share;
}

/* What the stage that runs will have taken by its own pace; 0: too early. */
static double by_pace(const running *r)
{
    double part = r->share - r->share_before;
    if (r->share_before < 0 || part < 0.05)
        return 0;
    return (base_now_s() - r->start) * (1 - r->share_before) / part;
}

/* Stages to come take what their kind took so far, or else a guess. */
static double seconds_left(const running *r)
{
    static const double guess[RUN_KINDS] = {30, 0.2, 0.5, 3};
    double sum[RUN_KINDS] = {0}, work[RUN_KINDS] = {0}, left = 0;
    double pace = by_pace(r);
    for (int64_t i = 0; i < r->plan.n; i++) {
        run_kind k = r->plan.stages[i].kind;
        bool paced = i == r->at && pace > 0;
        if (r->state[i] != RUN_DONE && !paced)
            continue;
        sum[k] += paced ? pace : r->seconds[i];
        work[k] += work_of(r, i);
    }
    for (int64_t i = r->at; i < r->plan.n; i++) {
        run_kind k = r->plan.stages[i].kind;
        double each = work[k] > 0 ? sum[k] / work[k] : guess[k];
        if (r->state[i] != RUN_DONE)
            left += each * work_of(r, i) * (i == r->at ? 1 - r->share : 1);
    }
    return left;
}

static void clock_text(double s, char buf[16])
{
    int t = (int)fmin(s, 359999);
    if (t >= 3600)
        snprintf(buf, 16, "%d:%02d:%02d", t / 3600, t / 60 % 60, t % 60);
    else
        snprintf(buf, 16, "%02d:%02d", t / 60, t % 60);
}

/* The stage's own progress, with its place among all and the time for all. */
static void on_progress(void *context, const lori_progress *p)
{
    running *r = context;
    const char *detail = p->detail ? p->detail : "";
    char left[16];
    take_share(r, p);
    clock_text(seconds_left(r), left);
    base_progress(r->ui, p->what, p->done, p->total,
                  "run %lld/%lld, %s left, %s%s%s", (long long)r->at + 1,
                  (long long)r->plan.n, left, r->plan.stages[r->at].name,
                  *detail ? " | " : "", detail);
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

/* Once there is something to do: what else there is. */
static lori_status survey(running *r, lori_error *err)
{
    for (int64_t i = r->at + 1; i < r->plan.n && !r->surveyed; i++)
        BASE_TRY(look_at(r, i, err));
    r->surveyed = true;
    return LORI_OK;
}

/* A stage that is not done, with what it is made from. */
static lori_status make(running *r, const json_t *facts, lori_error *err)
{
    int64_t i = r->at;
    const run_stage *s = &r->plan.stages[i];
    lori_report *report = NULL;
    lori_ui ui = {.context = r,
                  .log = on_log,
                  .progress = on_progress,
                  .interrupted = on_ask};
    BASE_TRY(survey(r, err));
    base_log(r->ui, LORI_LOG_INFO, "stage %lld of %lld: %s %s%s",
             (long long)i + 1, (long long)r->plan.n, run_kind_names[s->kind],
             s->name, r->state[i] == RUN_STOPPED ? " (goes on)" : "");
    r->start = base_now_s();
    r->share = 0;
    r->share_before = -1;
    lori_status st = base_interrupted(r->ui)
                         ? base_fail(err, LORI_INTERRUPTED, "interrupted")
                         : run_begin(&r->plan, s, facts, err);
    if (!st)
        st = do_stage(r, s, &ui, &report, err);
    r->seconds[i] = base_now_s() - r->start;
    if (!st)
        st = run_end(&r->plan, s, facts, r->seconds[i], err);
    if (!st)
        r->state[i] = RUN_DONE;
    else
        base_prefix(err, st, "stage %s", s->name);
    job_report_free(report);
    return st;
}

static lori_status run_stage_at(running *r, int64_t i, lori_error *err)
{
    const run_stage *s = &r->plan.stages[i];
    json_t *facts = NULL;
    r->at = i;
    BASE_TRY(run_facts(&r->plan, s, &facts, err));
    lori_status st =
        run_look(&r->plan, s, facts, &r->state[i], &r->seconds[i], err);
    if (!st && r->state[i] != RUN_DONE)
        st = make(r, facts, err);
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
