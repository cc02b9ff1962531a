/* trainer.c - a run: from a recipe and an open model to an adapter folder.
 * Owns the loop, what is measured and logged, and what happens when a run is
 * interrupted or its numbers break. A loss row weighs 1 / (targets of the whole
 * step), or 1 / (rows of the step) with example_sum, so accumulation is
 * exactly a larger batch. Includes train_i.h, libm. */
#include <math.h>
#include <stdlib.h>

#include "train/train_i.h"

#define SPEEDS 16384 /* steps whose speed the median is taken of: the last */

typedef struct trainer {
    const train_recipe *r;
    model *m;
    backend *be;
    const lori_ui *ui;
    train_data *data, *eval;
    train_start start;
    model_adapter *ma;
    optim optim;
    batch_plan plan;
    batch_buffer buffer;
    model_run *run;
    model_limits limits;
    train_plan memory;
    int64_t total, warmup;
    checkpoint_run fixed;
    FILE *metrics;
    train_progress at;
    /* of this session only */
    double began, elapsed_before, train_s, window_s, loss, lr;
    int64_t session_tokens, window_tokens, n_speeds, rss_anon, rss_file;
    double *speeds; /* [min(total, SPEEDS)], a ring */
} trainer;

static double elapsed(const trainer *t)
{
    return t->elapsed_before + base_now_s() - t->began;
}

static double rate(int64_t tokens, double seconds)
{
    return seconds > 0 ? (double)tokens / seconds : 0;
}

/* ---- setting up ----------------------------------------------------- */

static lori_status load_data(trainer *t, const text_tokenizer *tok,
                             lori_error *err)
{
    const train_recipe *r = t->r;
    int64_t vocab = model_get_config(t->m)->vocab;
    train_data_options o = {.columns = r->columns,
                            .prompt_template = r->prompt_template,
                            .apply_chat_template = r->apply_chat_template,
                            .chat_template = r->chat_template,
                            .max_seq_length = r->max_seq_length,
                            .max_samples = r->max_train_samples,
                            .completion_only_loss = r->completion_only_loss};
    BASE_TRY(
        train_data_load(r->train_file, tok, &o, vocab, t->ui, &t->data, err));
    if (r->validation_file) {
        o.max_samples = r->max_eval_samples;
        BASE_TRY(train_data_load(r->validation_file, tok, &o, vocab, t->ui,
                                 &t->eval, err));
    }
    const train_data *d = t->data;
    base_log(t->ui, LORI_LOG_INFO,
             "%s: %lld rows, %lld tokens, %lld to predict", r->train_file,
             (long long)d->n_rows, (long long)d->n_tokens,
             (long long)d->n_targets);
    if (d->n_truncated)
        base_log(t->ui, LORI_LOG_WARNING,
                 "%lld rows are longer than max_seq_length %lld and lose their "
                 "end",
                 (long long)d->n_truncated, (long long)r->max_seq_length);
    if (d->n_dropped)
        base_log(t->ui, LORI_LOG_WARNING,
                 "%lld rows have no token to predict and are left out",
                 (long long)d->n_dropped);
    return LORI_OK;
}

/* Everything that a run knows before it takes memory for its parameters. */
static lori_status prepare(trainer *t, const text_tokenizer *tok,
                           lori_error *err)
{
    const train_recipe *r = t->r;
    BASE_TRY(load_data(t, tok, err));
    t->total = schedule_total(r, t->data->n_rows);
    t->warmup = schedule_warmup(r, t->total);
    BASE_TRY(train_start_make(r, t->m, t->ui, &t->start, err));
    const adapter *ad = t->start.ad;
    model_limits *limits = &t->limits;
    *limits = (model_limits){.backward = true};
    for (int64_t i = 0; i < ad->n_sites; i++)
        if (ad->sites[i].rank > limits->rank)
            limits->rank = ad->sites[i].rank;
    BASE_TRY(batch_plan_init(&t->plan, t->data, r, err));
    BASE_TRY(batch_train_limits(&t->plan, t->total, limits, err));
    if (t->eval)
        evaluate_limits(t->eval, r->per_device_eval_batch_size, false, limits);
    plan_inputs in = {.r = r, .m = t->m, .start = &t->start};
    in.data = t->data;
    in.eval = t->eval;
    in.limits = limits;
    BASE_TRY(plan_memory(&in, &t->memory, err));
    t->memory.steps = t->total;
    t->memory.rows_per_step = t->plan.per_step;
    return LORI_OK;
}

static lori_status make_parameters(trainer *t, lori_error *err)
{
    const train_recipe *r = t->r;
    BASE_TRY(model_adapter_new(t->m, t->start.ad, &t->ma, err));
    return optim_init(&t->optim, t->ma, t->start.ad, t->start.keep,
                      r->method == TRAIN_LORA, err);
}

/* One workspace for all training and evaluation passes, taken before the
 * first, so that a run that starts does not run out of memory later. */
static lori_status make_workspace(trainer *t, lori_error *err)
{
    BASE_TRY(batch_buffer_init(&t->buffer, &t->limits, err));
    int64_t n = t->total < SPEEDS ? t->total : SPEEDS;
    t->speeds = base_alloc((size_t)n, sizeof *t->speeds);
    if (!t->speeds)
        return base_no_memory(err, (size_t)n * sizeof *t->speeds);
    lori_status st = model_run_new(t->m, &t->limits, &t->run, err);
    if (st == LORI_NO_MEMORY)
        return base_prefix(err, st,
                           "lower per_device_train_batch_size, or "
                           "memory_budget");
    return st;
}

static void log_plan(const trainer *t)
{
    base_str text = {0};
    train_plan_text(&t->memory, "", &text);
    char *save = NULL;
    for (char *line = text.failed ? NULL : strtok_r(text.s, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        base_log(t->ui, LORI_LOG_INFO, "%s", line);
    base_str_free(&text);
    if (!t->memory.fits)
        base_log(t->ui, LORI_LOG_WARNING,
                 "less memory is free than the run is planned to take: lower "
                 "per_device_train_batch_size if it becomes slow or is killed");
}

static lori_status begin(trainer *t, lori_error *err)
{
    bool resume = t->r->resume_from_checkpoint;
    t->fixed = (checkpoint_run){.r = t->r,
                                .start_hash = t->start.hash,
                                .data_hash = checkpoint_hash(t->data),
                                .total = t->total};
    if (resume) {
        BASE_TRY(checkpoint_read(&t->fixed, &t->optim, &t->at, err));
        base_log(t->ui, LORI_LOG_INFO, "resuming after step %lld of %lld",
                 (long long)t->at.step, (long long)t->total);
    } else
        checkpoint_remove(t->r);
    t->began = base_now_s();
    t->elapsed_before = t->at.elapsed_s;
    return output_metrics_open(t->r, resume, t->at.step, &t->metrics, err);
}

/* ---- a step --------------------------------------------------------- */

/* NaN or infinity: says where, and what usually helps. */
static lori_status broken(const trainer *t, const char *what, lori_error *err)
{
    char lr[32];
    return base_fail(err, LORI_NUMERIC,
                     "training stopped at step %lld of %lld: %s; try a lower "
                     "learning_rate (now %s)%s; no adapter was saved",
                     (long long)t->at.step + 1, (long long)t->total, what,
                     base_f64_text(t->r->learning_rate, lr),
                     t->r->dtype == BASE_F32 ? "" : " or dtype: f32");
}

static lori_status broken_loss(const trainer *t, double loss, lori_error *err)
{
    char what[128];
    snprintf(what, sizeof what, "the loss is not a number (%g)", loss);
    return broken(t, what, err);
}

static lori_status broken_gradient(const trainer *t, double norm,
                                   lori_error *err)
{
    const optim_slice *bad = optim_bad_slice(&t->optim);
    char what[512];
    snprintf(what, sizeof what,
             "loss %g, but the gradient's norm is %g (first in %s of %s)",
             t->loss, norm, bad && bad->is_a ? "A" : "B",
             bad ? t->start.ad->sites[bad->site].path : "the sum");
    return broken(t, what, err);
}

/* Loss and gradient of the rows of one pass; *sum += their nll. */
static lori_status micro_step(trainer *t, const int64_t *rows, int64_t n,
                              double weight, double *sum, lori_error *err)
{
    batch_start(&t->buffer);
    for (int64_t i = 0; i < n; i++)
        if (!batch_add(&t->buffer, t->data, rows[i]))
            return base_fail(err, LORI_INVALID,
                             "row %lld does not fit the planned workspace",
                             (long long)rows[i]);
    batch_weigh(&t->buffer, weight);
    double loss = 0;
    lori_status st = model_loss(t->run, &t->buffer.pass, t->ma, true,
                                t->buffer.nll, &loss, err);
    for (int64_t i = 0; !st && i < t->buffer.pass.n_rows; i++)
        *sum += t->buffer.nll[i];
    if (st == LORI_NUMERIC || (!st && !isfinite(*sum)))
        return broken_loss(t, st ? (double)NAN : *sum, err);
    return st;
}

static void watch_memory(trainer *t)
{
    int64_t anon = base_rss_anon_bytes(), file = base_rss_file_bytes();
    t->rss_anon = anon > t->rss_anon ? anon : t->rss_anon;
    t->rss_file = file > t->rss_file ? file : t->rss_file;
}

/* All of step t->at.step. LORI_INTERRUPTED leaves the parameters as they were.
 */
static lori_status optimizer_step(trainer *t, lori_error *err)
{
    const train_recipe *r = t->r;
    double began = base_now_s(), sum = 0, norm;
    int64_t n, targets = 0, tokens = 0;
    const int64_t *rows = batch_rows(&t->plan, t->at.step, &n);
    for (int64_t i = 0; i < n; i++) {
        targets += t->plan.targets[rows[i]];
        tokens += t->data->start[rows[i] + 1] - t->data->start[rows[i]];
    }
    double weight =
        1.0 / (double)(r->loss_reduction == TRAIN_TOKEN_MEAN ? targets : n);
    optim_zero_grad(&t->optim);
    for (int64_t i = 0; i < n; i += t->plan.micro) {
        if (base_interrupted(t->ui))
            return LORI_INTERRUPTED;
        int64_t k = n - i < t->plan.micro ? n - i : t->plan.micro;
        BASE_TRY(micro_step(t, rows + i, k, weight, &sum, err));
    }
    t->loss = sum * weight;
    BASE_TRY(optim_grad_norm(&t->optim, &norm, err));
    if (!isfinite(norm))
        return broken_gradient(t, norm, err);
    t->lr = schedule_lr(r, t->warmup, t->total, t->at.step);
    optim_update(&t->optim, r, t->lr, norm, t->at.step + 1);
    BASE_TRY(t->be->sync(t->be, err));
    double seconds = base_now_s() - began;
    t->speeds[t->n_speeds++ % SPEEDS] = rate(tokens, seconds);
    t->at.step++;
    t->at.window_steps++;
    t->at.window_loss += t->loss;
    t->at.grad_norm = norm;
    t->at.tokens += tokens;
    t->session_tokens += tokens;
    t->window_tokens += tokens;
    t->train_s += seconds;
    t->window_s += seconds;
    watch_memory(t);
    return LORI_OK;
}

/* ---- reporting ------------------------------------------------------ */

static double epochs_done(const trainer *t)
{
    return (double)t->at.step / (double)t->plan.steps_per_epoch;
}

static void show_progress(const trainer *t)
{
    char mem[32];
    base_human_bytes((double)base_rss_peak_bytes(), mem, sizeof mem);
    base_progress(t->ui, "train", t->at.step, t->total,
                  "loss %.4f | %.0f tok/s | lr %.1e | mem %s", t->loss,
                  rate(t->session_tokens, t->train_s), t->lr, mem);
}

static lori_status log_window(trainer *t, lori_error *err)
{
    train_progress *at = &t->at;
    at->train_loss = at->window_loss / (double)at->window_steps;
    json_t *line =
        json_pack("{sI sf sf sf sf sI sf sI sf}", "step", (json_int_t)at->step,
                  "epoch", epochs_done(t), "loss", at->train_loss, "grad_norm",
                  at->grad_norm, "learning_rate", t->lr, "tokens",
                  (json_int_t)at->tokens, "useful_tokens_per_s",
                  rate(t->window_tokens, t->window_s), "rss_peak_bytes",
                  (json_int_t)base_rss_peak_bytes(), "elapsed_s", elapsed(t));
    at->window_steps = 0;
    at->window_loss = 0;
    t->window_tokens = 0;
    t->window_s = 0;
    return output_metrics_put(t->metrics, line, err);
}

static lori_status evaluate(trainer *t, lori_error *err)
{
    double loss;
    lori_status st =
        evaluate_run(t->run, &t->buffer, t->ma, t->eval,
                     t->r->per_device_eval_batch_size, t->ui, &loss, err);
    if (st == LORI_NUMERIC)
        return base_prefix(err, st, "evaluation after step %lld",
                           (long long)t->at.step);
    if (st)
        return st;
    t->at.last_eval = t->at.step;
    t->at.has_eval = true;
    t->at.eval_loss = loss;
    base_log(t->ui, LORI_LOG_INFO, "step %lld: validation loss %.4f",
             (long long)t->at.step, loss);
    return output_metrics_put(
        t->metrics,
        json_pack("{sI sf sf sI sf}", "step", (json_int_t)t->at.step, "epoch",
                  epochs_done(t), "eval_loss", loss, "eval_tokens",
                  (json_int_t)t->eval->n_targets, "elapsed_s", elapsed(t)),
        err);
}

/* ---- the loop ------------------------------------------------------- */

static bool every(int64_t step, int64_t steps)
{
    return steps > 0 && step > 0 && step % steps == 0;
}

static lori_status checkpoint(trainer *t, lori_error *err)
{
    train_progress at = t->at;
    at.elapsed_s = elapsed(t);
    return checkpoint_write(&t->fixed, &t->optim, &at, err);
}

/* Everything that is due between two steps is decided from the progress
 * alone, so a resumed run does what the first one would have done next. */
static lori_status loop(trainer *t, lori_error *err)
{
    const train_recipe *r = t->r;
    int64_t saved = t->at.step; /* a checkpoint of this step is there */
    for (;;) {
        int64_t step = t->at.step;
        bool end = step == t->total;
        if (t->eval && (end || every(step, r->eval_steps)) &&
            t->at.last_eval != step)
            BASE_TRY(evaluate(t, err));
        if (end)
            return LORI_OK;
        if (every(step, r->save_steps) && step != saved) {
            BASE_TRY(checkpoint(t, err));
            saved = step;
        }
        BASE_TRY(optimizer_step(t, err));
        show_progress(t);
        if (every(t->at.step, r->logging_steps) || t->at.step == t->total)
            BASE_TRY(log_window(t, err));
    }
}

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void fill_result(trainer *t, bool interrupted, train_result *result)
{
    const train_progress *at = &t->at;
    int64_t n = t->n_speeds < SPEEDS ? t->n_speeds : SPEEDS, kept = 0;
    for (int64_t k = 0; k < t->optim.n_slices; k++)
        if (!t->optim.slices[k].is_a)
            kept += t->optim.slices[k].count;
    qsort(t->speeds, (size_t)n, sizeof *t->speeds, ascending);
    *result = (train_result){
        .plan = t->memory,
        .rss_anon_bytes = t->rss_anon,
        .rss_file_bytes = t->rss_file,
        .steps = at->step,
        .epochs_x1000 = (int64_t)(1000 * epochs_done(t)),
        .trainable = t->optim.n,
        .kept = kept,
        .train_loss = at->window_steps
                          ? at->window_loss / (double)at->window_steps
                          : at->train_loss,
        .has_eval = at->has_eval,
        .eval_loss = at->eval_loss,
        .seconds = elapsed(t),
        .useful_tokens_per_s = rate(t->session_tokens, t->train_s),
        .median_tokens_per_s = n ? t->speeds[n / 2] : 0,
        .rss_peak_bytes = base_rss_peak_bytes(),
        .interrupted = interrupted};
}

static lori_status save(trainer *t, lori_error *err)
{
    BASE_TRY(optim_store(&t->optim, t->start.ad, err));
    return output_save(t->r, t->start.ad, err);
}

/* The loop and what follows it. */
static lori_status run(trainer *t, train_result *result, lori_error *err)
{
    lori_status st = loop(t, err);
    if (st && st != LORI_INTERRUPTED)
        return st;
    if (st) /* the checkpoint first: it can bring back all the rest */
        BASE_TRY(checkpoint(t, err));
    BASE_TRY(save(t, err));
    fill_result(t, st != LORI_OK, result);
    if (st)
        return base_fail(err, st,
                         "interrupted after step %lld of %lld: %s holds the "
                         "adapter so far and a checkpoint; "
                         "resume_from_checkpoint=true goes on",
                         (long long)t->at.step, (long long)t->total,
                         t->r->output_dir);
    checkpoint_remove(t->r);
    return LORI_OK;
}

static lori_status set_up(trainer *t, const text_tokenizer *tok,
                          lori_error *err)
{
    BASE_TRY(prepare(t, tok, err));
    log_plan(t);
    BASE_TRY(make_parameters(t, err));
    BASE_TRY(make_workspace(t, err));
    return begin(t, err);
}

static void tear_down(trainer *t)
{
    if (t->metrics)
        fclose(t->metrics);
    model_run_free(t->run);
    batch_buffer_fini(&t->buffer);
    batch_plan_fini(&t->plan);
    optim_fini(&t->optim);
    model_adapter_free(t->ma);
    train_start_free(&t->start);
    train_data_free(t->data);
    train_data_free(t->eval);
    free(t->speeds);
}

static trainer *new_trainer(const train_recipe *recipe, model *m,
                            const lori_ui *ui)
{
    trainer *t = base_alloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->r = recipe;
    t->m = m;
    t->be = model_get_backend(m);
    t->ui = ui;
    t->began = base_now_s();
    return t;
}

lori_status train_plan_make(const train_recipe *recipe, model *m,
                            const text_tokenizer *tok, const lori_ui *ui,
                            train_plan *out, lori_error *err)
{
    trainer *t = new_trainer(recipe, m, ui);
    if (!t)
        return base_no_memory(err, sizeof *t);
    lori_status st = prepare(t, tok, err);
    *out = t->memory;
    tear_down(t);
    free(t);
    return st;
}

lori_status train_run(const train_recipe *recipe, model *m,
                      const text_tokenizer *tok, const lori_ui *ui,
                      train_result *result, lori_error *err)
{
    *result = (train_result){0};
    size_t existed;
    BASE_TRY(output_prepare(recipe, &existed, err));
    trainer *t = new_trainer(recipe, m, ui);
    if (!t) {
        output_withdraw(recipe, existed);
        return base_no_memory(err, sizeof *t);
    }
    lori_status st = set_up(t, tok, err);
    bool started = t->metrics != NULL;
    if (!st)
        st = run(t, result, err);
    tear_down(t);
    free(t);
    if (st && !started)
        output_withdraw(recipe, existed);
    return st;
}
