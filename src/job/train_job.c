/* train_job.c - a recipe becomes a trained adapter: opens the base, its
 * tokenizer and the backend, and hands over to train/. */
#include "job/job_i.h"

#include <math.h>
#include <stdlib.h>

typedef struct opened {
    char *base, *adapter; /* folders */
    backend *be;
    model *model;
    text_tokenizer *tok;
} opened;

/* Where the names of the recipe lead. */
static lori_status find_all(train_recipe *r, const char *cache, opened *o,
                            lori_error *err)
{
    lori_status st =
        hub_find(cache, r->model_name_or_path, HUB_WEIGHTS, &o->base, err);
    if (st)
        return base_prefix(err, st, "model_name_or_path");
    if (!r->adapter_name_or_path)
        return LORI_OK;
    st =
        hub_find(cache, r->adapter_name_or_path, HUB_WEIGHTS, &o->adapter, err);
    if (st)
        return base_prefix(err, st, "adapter_name_or_path");
    r->adapter_folder = o->adapter;
    return LORI_OK;
}

static lori_status open_all(const train_recipe *r, const char *isa, opened *o,
                            lori_error *err)
{
    backend_options open = {.name = "cpu",
                            .dtype = r->dtype,
                            .n_threads = (int)r->n_threads,
                            .isa = isa};
    BASE_TRY(backend_open(&open, &o->be, err));
    BASE_TRY(model_open(o->base, o->be, &o->model, err));
    /* A base without tokenizer files can still train on tokenized rows. */
    char *file = base_path_join(o->base, "tokenizer.json");
    if (!file)
        return base_no_memory(err, 1);
    bool has = base_is_file(file);
    free(file);
    return has ? text_tokenizer_open(o->base, &o->tok, err) : LORI_OK;
}

static void close_all(opened *o)
{
    text_tokenizer_close(o->tok);
    model_close(o->model);
    backend_close(o->be);
    free(o->base);
    free(o->adapter);
}

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *plan_json(const train_plan *p)
{
    return json_pack(
        "{sI sb sI sI sI sI sI sI sI sI sI sI sI sI sI sI}", "memory_budget",
        (json_int_t)p->budget, "automatic", (int)p->automatic,
        "tokens_per_pass", (json_int_t)p->tokens, "layers_keep_all",
        (json_int_t)p->keep_all, "layers_keep_no_mlp",
        (json_int_t)p->keep_no_mlp, "layers_keep_inputs",
        (json_int_t)p->keep_inputs, "weights_mapped_bytes",
        (json_int_t)p->mapped, "weights_converted_bytes",
        (json_int_t)p->converted, "adapter_bytes", (json_int_t)p->adapter,
        "optimizer_bytes", (json_int_t)p->optimizer, "rows_bytes",
        (json_int_t)p->data, "kept_bytes", (json_int_t)p->kept,
        "live_block_bytes", (json_int_t)p->live, "logits_bytes",
        (json_int_t)p->logits, "scratch_bytes", (json_int_t)p->scratch,
        "total_bytes", (json_int_t)p->total);
}

static lori_status train_report(const train_recipe *r, const train_result *t,
                                lori_report **out, lori_error *err)
{
    base_str text = {0};
    char mem[32], anon[32], file[32], planned[32];
    base_str_printf(&text, "%s: %lld steps, %lld trained parameters\n",
                    r->output_dir, (long long)t->steps,
                    (long long)t->trainable);
    base_str_printf(&text, "  train loss %.4f", t->train_loss);
    if (t->has_eval)
        base_str_printf(&text, ", validation loss %.4f", t->eval_loss);
    base_str_printf(
        &text,
        "\n  %.1f s, %.0f useful tok/s (median of steps %.0f)\n"
        "  peak memory %s; after steps at most %s private (%s planned) and %s "
        "of mapped files\n",
        t->seconds, t->useful_tokens_per_s, t->median_tokens_per_s,
        base_human_bytes((double)t->rss_peak_bytes, mem, sizeof mem),
        base_human_bytes((double)t->rss_anon_bytes, anon, sizeof anon),
        base_human_bytes((double)(t->plan.total - t->plan.mapped), planned,
                         sizeof planned),
        base_human_bytes((double)t->rss_file_bytes, file, sizeof file));
    if (t->interrupted)
        base_str_puts(&text, "  interrupted: the adapter so far is saved; "
                             "resume with resume_from_checkpoint=true\n");
    json_t *facts = json_pack(
        "{sssIsIsosfsfsfsIsIsIsosb}", "output_dir", r->output_dir, "steps",
        (json_int_t)t->steps, "trainable_parameters", (json_int_t)t->trainable,
        "train_loss", number(t->train_loss), "seconds", t->seconds,
        "useful_tokens_per_s", t->useful_tokens_per_s, "median_tokens_per_s",
        t->median_tokens_per_s, "rss_peak_bytes", (json_int_t)t->rss_peak_bytes,
        "rss_anon_bytes", (json_int_t)t->rss_anon_bytes, "rss_file_bytes",
        (json_int_t)t->rss_file_bytes, "plan", plan_json(&t->plan),
        "interrupted", (int)t->interrupted);
    if (facts)
        json_object_set_new(facts, "eval_loss",
                            t->has_eval ? number(t->eval_loss) : json_null());
    return report_new(facts, &text, out, err);
}

/* The resolved recipe, and the plan behind it as comments. */
static lori_status dry_run(const train_recipe *r, const opened *all,
                           const lori_ui *ui, lori_report **out,
                           lori_error *err)
{
    base_str text = {0};
    train_plan plan;
    BASE_TRY(train_plan_make(r, all->model, all->tok, ui, &plan, err));
    train_recipe_text(r, &text);
    base_str_puts(&text, "");
    json_t *facts =
        json_pack("{sbss#so}", "dry_run", 1, "recipe", text.s ? text.s : "",
                  (int)text.len, "plan", plan_json(&plan));
    train_plan_text(&plan, "# ", &text);
    return report_new(facts, &text, out, err);
}

lori_status job_train(const lori_train_options *o, const lori_ui *ui,
                      lori_report **out, lori_error *err)
{
    *out = NULL;
    train_recipe r;
    opened all = {0};
    train_result result = {0};
    BASE_TRY(
        train_recipe_load(o->recipe, o->overrides, o->n_overrides, &r, err));
    lori_status st = find_all(&r, o->hub_cache, &all, err);
    if (!st)
        st = open_all(&r, o->isa, &all, err);
    if (!st && o->dry_run)
        st = dry_run(&r, &all, ui, out, err);
    else if (!st) {
        st = train_run(&r, all.model, all.tok, ui, &result, err);
        if (!st || (st == LORI_INTERRUPTED && result.interrupted)) {
            lori_status told = train_report(&r, &result, out, err);
            st = told ? told : st;
        }
    }
    close_all(&all);
    train_recipe_free(&r);
    return st;
}

lori_status job_train_keys(lori_report **out, lori_error *err)
{
    *out = NULL;
    base_str text = {0};
    train_recipe_help(&text);
    return report_new(json_pack("{ss}", "keys", text.s ? text.s : ""), &text,
                      out, err);
}
