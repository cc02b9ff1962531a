/* table.c - results for people (Markdown) and for programs (JSON with the keys
 * of lm-evaluation-harness). Includes eval_i.h. */
#include <stdarg.h>
#include <stdlib.h>

#include "eval/eval_i.h"

static const eval_score *score_at(const eval_table *t, int64_t subject,
                                  int64_t task)
{
    return &t->scores[subject * t->n_tasks + task];
}

/* ---- Markdown ----------------------------------------------------------- */

/* Cells padded to the widest of their column, so the text reads as it is. */
typedef struct grid {
    base_str *cells; /* [rows * cols] */
    int64_t rows, cols;
    int64_t left; /* so many columns are texts, the others numbers */
} grid;

static bool grid_init(grid *g, int64_t rows, int64_t cols, int64_t left)
{
    *g = (grid){.rows = rows, .cols = cols, .left = left};
    g->cells = base_alloc((size_t)(rows * cols), sizeof *g->cells);
    return g->cells != NULL;
}

static void cell(grid *g, int64_t row, int64_t col, const char *fmt, ...)
    BASE_PRINTF(4, 5);
static void cell(grid *g, int64_t row, int64_t col, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(&g->cells[row * g->cols + col], fmt, ap);
    va_end(ap);
}

/* Characters, not bytes. */
static int width_of(const base_str *s)
{
    int n = 0;
    for (size_t i = 0; i < s->len; i++)
        n += ((unsigned char)s->s[i] & 0xc0) != 0x80;
    return n;
}

static void add_padded(const base_str *text, int width, bool left,
                       base_str *out)
{
    int pad = width - width_of(text);
    base_str_printf(out, "| %*s", left ? 0 : pad, "");
    base_str_add(out, text->s ? text->s : "", text->len);
    base_str_printf(out, "%*s ", left ? pad : 0, "");
}

static void add_rule(int width, bool left, base_str *out)
{
    base_str_puts(out, "|-");
    for (int i = 0; i < width; i++)
        base_str_puts(out, "-");
    base_str_puts(out, left ? "-" : ":");
}

static void grid_end(grid *g, base_str *out)
{
    int *width = base_alloc((size_t)g->cols, sizeof *width);
    if (!width)
        out->failed = true;
    for (int64_t i = 0; width && i < g->rows * g->cols; i++) {
        int w = width_of(&g->cells[i]), *most = &width[i % g->cols];
        *most = w > *most ? w : *most;
    }
    for (int64_t r = 0; width && r < g->rows; r++) {
        for (int64_t c = 0; c < g->cols; c++)
            add_padded(&g->cells[r * g->cols + c], width[c], c < g->left, out);
        base_str_puts(out, "|\n");
        for (int64_t c = 0; r == 0 && c < g->cols; c++)
            add_rule(width[c], c < g->left, out);
        if (r == 0)
            base_str_puts(out, "|\n");
    }
    for (int64_t i = 0; i < g->rows * g->cols; i++) {
        out->failed |= g->cells[i].failed;
        base_str_free(&g->cells[i]);
    }
    free(g->cells);
    free(width);
}

/* Whether the first metrics can be averaged: all are shares. */
static bool have_mean(const eval_table *t)
{
    for (int64_t i = 0; i < t->n_tasks; i++)
        if (!score_at(t, 0, i)->metric[0].is_share)
            return false;
    return t->n_tasks > 1;
}

static void overview(const eval_table *t, base_str *out)
{
    grid g;
    bool mean = have_mean(t);
    if (!grid_init(&g, t->n_subjects + 1, 1 + t->n_tasks + mean, 1)) {
        out->failed = true;
        return;
    }
    cell(&g, 0, 0, "model");
    for (int64_t i = 0; i < t->n_tasks; i++)
        cell(&g, 0, 1 + i, "%s %s", t->tasks[i]->name, t->tasks[i]->metrics[0]);
    if (mean)
        cell(&g, 0, 1 + t->n_tasks, "mean");
    for (int64_t s = 0; s < t->n_subjects; s++) {
        double sum = 0;
        cell(&g, s + 1, 0, "%s", t->subjects[s]);
        for (int64_t i = 0; i < t->n_tasks; i++) {
            double value = score_at(t, s, i)->metric[0].value;
            cell(&g, s + 1, 1 + i, "%.4f", value);
            sum += value;
        }
        if (mean)
            cell(&g, s + 1, 1 + t->n_tasks, "%.4f", sum / (double)t->n_tasks);
    }
    grid_end(&g, out);
}

static void detail_row(grid *g, int64_t row, const eval_table *t, int64_t s,
                       int64_t i, int64_t k)
{
    const eval_score *score = score_at(t, s, i);
    const eval_metric *m = &score->metric[k];
    cell(g, row, 0, "%s", t->subjects[s]);
    cell(g, row, 1, "%s", t->tasks[i]->name);
    cell(g, row, 2, "%s", m->name);
    cell(g, row, 3, "%lld", (long long)score->n);
    cell(g, row, 4, "%.4f", m->value);
    if (m->has_stderr)
        cell(g, row, 5, "%.4f", m->stderr_);
    if (m->is_share)
        cell(g, row, 6, "%.4f to %.4f", m->low, m->high);
}

static void details(const eval_table *t, base_str *out)
{
    static const char *const heads[] = {"model", "task",   "metric",       "n",
                                        "value", "stderr", "95 % interval"};
    int64_t rows = 1, row = 1;
    for (int64_t i = 0; i < t->n_tasks; i++)
        rows += t->n_subjects * t->tasks[i]->n_metrics;
    grid g;
    if (!grid_init(&g, rows, 7, 3)) {
        out->failed = true;
        return;
    }
    for (int64_t c = 0; c < 7; c++)
        cell(&g, 0, c, "%s", heads[c]);
    for (int64_t s = 0; s < t->n_subjects; s++)
        for (int64_t i = 0; i < t->n_tasks; i++)
            for (int64_t k = 0; k < t->tasks[i]->n_metrics; k++)
                detail_row(&g, row++, t, s, i, k);
    grid_end(&g, out);
}

void eval_table_text(const eval_table *table, base_str *out)
{
    overview(table, out);
    base_str_puts(out, "\n");
    details(table, out);
}

/* ---- JSON --------------------------------------------------------------- */

static void put_metric(json_t *task, const eval_metric *m)
{
    base_str key = {0};
    base_str_printf(&key, "%s,none", m->name);
    if (key.s)
        json_object_set_new(task, key.s, json_real(m->value));
    base_str_clear(&key);
    base_str_printf(&key, "%s_stderr,none", m->name);
    if (key.s)
        json_object_set_new(task, key.s,
                            m->has_stderr ? json_real(m->stderr_)
                                          : json_string("N/A"));
    base_str_clear(&key);
    base_str_printf(&key, "%s_wilson95,none", m->name);
    if (key.s && m->is_share)
        json_object_set_new(task, key.s, json_pack("[ff]", m->low, m->high));
    base_str_free(&key);
}

static json_t *subject_json(const eval_table *t, int64_t s)
{
    json_t *out = json_object();
    for (int64_t i = 0; out && i < t->n_tasks; i++) {
        const eval_score *score = score_at(t, s, i);
        json_t *task = json_pack("{sssI}", "alias", t->tasks[i]->name,
                                 "sample_len", (json_int_t)score->n);
        for (int64_t k = 0; task && k < score->n_metrics; k++)
            put_metric(task, &score->metric[k]);
        json_object_set_new(out, t->tasks[i]->name, task);
    }
    return out;
}

json_t *eval_table_json(const eval_table *t)
{
    json_t *results = json_object(), *configs = json_object();
    json_t *higher = json_object(), *shots = json_object();
    for (int64_t s = 0; s < t->n_subjects; s++)
        json_object_set_new(results, t->subjects[s], subject_json(t, s));
    for (int64_t i = 0; i < t->n_tasks; i++) {
        const eval_task *task = t->tasks[i];
        const eval_score *score = score_at(t, 0, i);
        json_t *directions = json_object();
        for (int64_t k = 0; k < score->n_metrics; k++)
            json_object_set_new(
                directions, score->metric[k].name,
                json_boolean(score->metric[k].higher_is_better));
        json_object_set(configs, task->name, task->config);
        json_object_set_new(higher, task->name, directions);
        json_object_set_new(shots, task->name, json_integer(task->num_fewshot));
    }
    return json_pack("{sosososo}", "results", results, "configs", configs,
                     "n-shot", shots, "higher_is_better", higher);
}
