/* run_sections.c - the sections of the page of `lori run` that are plots: which
 * numbers stand beside which. run_plot.c draws them. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "job/run_page_i.h"

/* ---- bars ------------------------------------------------------------------
 */

/* The bars of one plot. */
typedef struct bar_list {
    plot_bar *bar;
    run_words labels;
    int64_t n;
} bar_list;

/* A value that the recipe does not evaluate is left out. `color` is a method,
 * -1: the base. */
static void add_bar(bar_list *list, page_value value, int64_t color, bool faint,
                    base_str *out, const char *fmt, ...) BASE_PRINTF(6, 7);
static void add_bar(bar_list *list, page_value value, int64_t color, bool faint,
                    base_str *out, const char *fmt, ...)
{
    if (!value.known)
        return;
    base_str label = {0};
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(&label, fmt, ap);
    va_end(ap);
    lori_status st =
        run_words_add(&list->labels, NULL, "%s", label.s ? label.s : "");
    base_str_free(&label);
    plot_bar *grown =
        base_resize(list->bar, (size_t)list->n + 1, sizeof *grown);
    list->bar = grown ? grown : list->bar;
    if (st || !grown) {
        out->failed = true;
        return;
    }
    grown[list->n++] =
        (plot_bar){.value = value, .color = color + 1, .faint = faint};
}

/* Draws and empties the list; bars of a base alone say nothing. */
static void draw_bars(bar_list *list, base_str *title, base_str *out)
{
    out->failed |= title->failed;
    for (int64_t i = 0; i < list->n && !out->failed; i++)
        list->bar[i].label = list->labels.word[i];
    if (list->n > 1 && !out->failed)
        plot_bars(title->s, list->bar, list->n, out);
    base_str_free(title);
    run_words_free(&list->labels);
    free(list->bar);
    *list = (bar_list){0};
}

/* A learned task and its metric; the caller frees. */
static base_str measure(const page_results *r, int64_t learned)
{
    base_str text = {0};
    int64_t task = r->plan->own[learned];
    base_str_printf(&text, "%s, %s", r->plan->learned.word[learned],
                    task < 0 ? "" : r->tasks[task]->metrics[0]);
    return text;
}

static void open_section(const char *heading, const char *text, base_str *out)
{
    base_str_printf(out, "<section>\n<h2>%s</h2>\n<p>%s</p>\n", heading, text);
}

static void open_panels(base_str *out)
{
    base_str_puts(out, "<div class=\"panels\">\n");
}

static void close_panels(base_str *out)
{
    base_str_puts(out, "</div>\n</section>\n");
}

static void add_legend(const run_plan *plan, base_str *out)
{
    base_str_puts(out, "<p class=\"legend\">");
    for (int64_t m = 0; m < plan->methods.n; m++) {
        base_str_printf(out, "<span><i class=\"key c%lld\"></i>",
                        (long long)plot_color(m + 1));
        page_text(out, plan->methods.word[m]);
        base_str_puts(out, "</span> ");
    }
    base_str_puts(out, "</p>\n");
}

static bool any_stage(const run_plan *plan, run_kind kind, bool pair)
{
    for (int64_t i = 0; i < plan->n; i++)
        if (plan->stages[i].kind == kind &&
            (plan->stages[i].first >= 0) == pair)
            return true;
    return false;
}

/* A plot a learned task: the base's bar, then those that `add` makes of every
 * method. */
typedef void add_bars(const page_results *r, int64_t task, int64_t method,
                      bar_list *list, base_str *out);
static void task_plots(const page_results *r, add_bars *add, base_str *out)
{
    open_panels(out);
    for (int64_t t = 0; t < r->plan->learned.n; t++) {
        bar_list list = {0};
        base_str title = measure(r, t);
        add_bar(&list, page_own(r, PAGE_BASE, t), -1, false, out, "base");
        for (int64_t m = 0; m < r->plan->methods.n; m++)
            add(r, t, m, &list, out);
        draw_bars(&list, &title, out);
    }
    close_panels(out);
}

/* ---- single tasks ----------------------------------------------------------
 */

static void own_bar(const page_results *r, int64_t task, int64_t method,
                    bar_list *list, base_str *out)
{
    add_bar(list, page_own(r, page_training(r, task, method, -1), task), method,
            false, out, "%s", r->plan->methods.word[method]);
}

void page_accuracy(const page_results *r, base_str *out)
{
    if (r->plan->tasks.n == 0)
        return;
    open_section("Single tasks",
                 "Each task by the adapter that learned it. Accuracies are in "
                 "per cent, lines are 95 % Wilson intervals.",
                 out);
    task_plots(r, own_bar, out);
}

/* ---- merges ----------------------------------------------------------------
 */

/* A method's own adapter, then every merge of that method's. */
static void merged_bars(const page_results *r, int64_t task, int64_t method,
                        bar_list *list, base_str *out)
{
    const run_plan *plan = r->plan;
    bool first = true;
    for (int64_t i = 0; i < plan->n; i++) {
        const run_stage *s = &plan->stages[i];
        if (s->kind != RUN_MERGE || s->method != method)
            continue;
        if (first)
            add_bar(list, page_own(r, page_training(r, task, method, -1), task),
                    method, true, out, "%s alone", plan->methods.word[method]);
        first = false;
        add_bar(list, page_own(r, i, task), method, false, out, "%s", s->name);
    }
}

void page_merges(const page_results *r, base_str *out)
{
    const run_plan *plan = r->plan;
    if (plan->tasks.n == 0 || !any_stage(plan, RUN_MERGE, false))
        return;
    open_section("Merged and alone",
                 "One adapter for all tasks, merged of those that each learned "
                 "one (pale: alone, on the task that it learned).",
                 out);
    task_plots(r, merged_bars, out);
}

/* ---- interference
 * ------------------------------------------------------------
 */

/* Points that the adapter of task `row` has over the base on task `col`. */
static double change(const page_results *r, int64_t method, int64_t row,
                     int64_t col)
{
    int64_t stage = page_training(r, row, method, -1);
    return 100 *
           (page_own(r, stage, col).value - page_own(r, PAGE_BASE, col).value);
}

/* The learned tasks with an accuracy. */
typedef struct scored {
    int64_t *task; /* [n] */
    const char **name;
    int64_t n;
} scored;

static void scored_tasks(const page_results *r, scored *s)
{
    for (int64_t t = 0; t < r->plan->learned.n; t++)
        if (page_own(r, PAGE_BASE, t).is_share) {
            s->name[s->n] = r->plan->learned.word[t];
            s->task[s->n++] = t;
        }
}

/* The colours reach as far as the largest change of a task that was not
 * learned; noise of a few points stays pale. */
#define LEAST_SCALE 10
static void interference_maps(const page_results *r, const scored *s,
                              double *cells, bool *framed, base_str *out)
{
    int64_t n = s->n;
    plot_heat h = {.rows = s->name,
                   .cols = s->name,
                   .n_rows = n,
                   .n_cols = n,
                   .cells = cells,
                   .framed = framed,
                   .most = LEAST_SCALE,
                   .is_signed = true,
                   .unit = "points"};
    for (int64_t m = 0; m < r->plan->methods.n; m++)
        for (int64_t i = 0; i < n * n; i++)
            if (i / n != i % n)
                h.most = fmax(
                    h.most, fabs(change(r, m, s->task[i / n], s->task[i % n])));
    for (int64_t m = 0; m < r->plan->methods.n; m++) {
        for (int64_t i = 0; i < n * n; i++) {
            cells[i] = change(r, m, s->task[i / n], s->task[i % n]);
            framed[i] = i / n == i % n;
        }
        plot_heat_map(r->plan->methods.word[m], &h, out);
    }
}

void page_interference(const page_results *r, base_str *out)
{
    size_t n = (size_t)r->plan->learned.n;
    scored s = {.task = base_alloc(n, sizeof *s.task),
                .name = base_alloc(n, sizeof *s.name)};
    double *cells = base_alloc(n * n, sizeof *cells);
    bool *framed = base_alloc(n * n, sizeof *framed);
    if (!s.task || !s.name || !cells || !framed)
        out->failed = true;
    else
        scored_tasks(r, &s);
    if (s.n > 1) {
        open_section("Interference",
                     "What the adapter that learned the task of a row changes "
                     "on the task of a column, in points of accuracy over the "
                     "base. Framed: its own task.",
                     out);
        open_panels(out);
        interference_maps(r, &s, cells, framed, out);
        close_panels(out);
    }
    free(s.task);
    free(s.name);
    free(cells);
    free(framed);
}

/* ---- continual pairs
 * ---------------------------------------------------------
 */

/* What later tasks leave of the first one. */
static void kept_bars(const page_results *r, int64_t method, int64_t first,
                      base_str *out)
{
    const run_plan *plan = r->plan;
    bar_list list = {0};
    base_str title = {0};
    add_bar(&list, page_own(r, PAGE_BASE, first), -1, false, out, "base");
    add_bar(&list, page_own(r, page_training(r, first, method, -1), first),
            method, true, out, "%s alone", plan->learned.word[first]);
    for (int64_t t = 0; t < plan->learned.n; t++) {
        int64_t stage = page_training(r, t, method, first);
        if (stage >= 0)
            add_bar(&list, page_own(r, stage, first), method, false, out,
                    "then %s", plan->learned.word[t]);
    }
    base_str_printf(&title, "%s kept, %s", plan->learned.word[first],
                    plan->methods.word[method]);
    draw_bars(&list, &title, out);
}

/* What the tasks reach when they come second. */
static void second_bars(const page_results *r, int64_t method, int64_t first,
                        base_str *out)
{
    const run_plan *plan = r->plan;
    bar_list list = {0};
    base_str title = {0};
    for (int64_t t = 0; t < plan->learned.n; t++) {
        int64_t stage = page_training(r, t, method, first);
        if (stage < 0)
            continue;
        add_bar(&list, page_own(r, page_training(r, t, method, -1), t), method,
                true, out, "%s alone", plan->learned.word[t]);
        add_bar(&list, page_own(r, stage, t), method, false, out, "%s second",
                plan->learned.word[t]);
    }
    base_str_printf(&title, "learned after %s, %s", plan->learned.word[first],
                    plan->methods.word[method]);
    draw_bars(&list, &title, out);
}

static bool has_pair(const run_plan *plan, int64_t method, int64_t first)
{
    for (int64_t i = 0; i < plan->n; i++)
        if (plan->stages[i].kind == RUN_TRAIN &&
            plan->stages[i].method == method && plan->stages[i].first == first)
            return true;
    return false;
}

void page_continual(const page_results *r, base_str *out)
{
    const run_plan *plan = r->plan;
    if (plan->tasks.n == 0 || !any_stage(plan, RUN_TRAIN, true))
        return;
    open_section("Continual pairs",
                 "A second task is learned from the adapter that the first one "
                 "left: what is kept of the first, and what the second reaches "
                 "(pale: learned alone).",
                 out);
    open_panels(out);
    int64_t n = plan->learned.n * plan->methods.n;
    for (int64_t i = 0; i < n; i++)
        if (has_pair(plan, i % plan->methods.n, i / plan->methods.n))
            kept_bars(r, i % plan->methods.n, i / plan->methods.n, out);
    for (int64_t i = 0; i < n; i++)
        if (has_pair(plan, i % plan->methods.n, i / plan->methods.n))
            second_bars(r, i % plan->methods.n, i / plan->methods.n, out);
    close_panels(out);
}

/* ---- losses
 * ------------------------------------------------------------------
 */

void page_losses(const page_results *r, base_str *out)
{
    const run_plan *plan = r->plan;
    size_t n = 2 * (size_t)plan->methods.n;
    plot_line *lines = base_alloc(n, sizeof *lines);
    if (!lines) {
        out->failed = true;
        return;
    }
    open_section("Loss",
                 "Mean training loss by step; dashed with points: validation "
                 "loss.",
                 out);
    add_legend(plan, out);
    open_panels(out);
    for (int64_t t = 0; t < plan->learned.n; t++) {
        int64_t used = 0;
        for (int64_t k = 0; k < 2 * plan->methods.n; k++) {
            int64_t m = k / 2;
            int64_t i = page_training(r, t, m, -1);
            const page_curve *c = k % 2 ? &r->valid[i] : &r->train[i];
            if (c->n)
                lines[used++] = (plot_line){.label = plan->methods.word[m],
                                            .curve = c,
                                            .color = m + 1,
                                            .points = k % 2 == 1};
        }
        if (used)
            plot_lines(plan->learned.word[t], lines, used, out);
    }
    close_panels(out);
    free(lines);
}

/* ---- masks
 * -------------------------------------------------------------------
 */

/* A module path as a row and a column: "layer 3" and "q". */
static lori_status split_path(const char *path, base_str *row, base_str *col)
{
    const char *name = strrchr(path, '.');
    name = name ? name + 1 : path;
    size_t n = strlen(name), tail = strlen("_proj");
    bool proj = n > tail && !strcmp(name + n - tail, "_proj");
    base_str_clear(row);
    base_str_clear(col);
    base_str_add(col, name, proj ? n - tail : n);
    for (const char *part = path; part;) {
        size_t digits = strspn(part, "0123456789");
        if (digits && (part[digits] == '.' || !part[digits])) {
            base_str_puts(row, "layer ");
            base_str_add(row, part, digits);
            break;
        }
        part = strchr(part, '.');
        part += part != NULL;
    }
    if (!row->len)
        base_str_puts(row, "-");
    return row->failed || col->failed ? LORI_NO_MEMORY : LORI_OK;
}

/* Where a name stands in the list, added at its end when it is new. */
static lori_status place_of(run_words *list, const char *name, int64_t *at)
{
    for (*at = 0; *at < list->n; ++*at)
        if (!strcmp(list->word[*at], name))
            return LORI_OK;
    return run_words_add(list, NULL, "%s", name);
}

/* A mask by layer and projection. */
typedef struct density {
    run_words rows, cols;
    double *cells;
} density;

static void density_free(density *d)
{
    run_words_free(&d->rows);
    run_words_free(&d->cols);
    free(d->cells);
    *d = (density){0};
}

static lori_status density_of(const adapter_keep *keep, density *d)
{
    base_str row = {0}, col = {0};
    int64_t *at = base_alloc(2 * (size_t)keep->n_sites, sizeof *at);
    lori_status st = at ? LORI_OK : LORI_NO_MEMORY;
    for (int64_t i = 0; i < keep->n_sites && !st; i++) {
        st = split_path(keep->sites[i].path, &row, &col);
        if (!st)
            st = place_of(&d->rows, row.s, &at[2 * i]);
        if (!st)
            st = place_of(&d->cols, col.s, &at[2 * i + 1]);
    }
    size_t n = (size_t)(d->rows.n * d->cols.n);
    d->cells = base_alloc(n, sizeof *d->cells);
    st = d->cells ? st : LORI_NO_MEMORY;
    for (size_t i = 0; i < n && !st; i++)
        d->cells[i] = (double)NAN;
    for (int64_t i = 0; i < keep->n_sites && !st; i++) {
        const adapter_keep_site *s = &keep->sites[i];
        d->cells[at[2 * i] * d->cols.n + at[2 * i + 1]] =
            100 * (double)s->kept / (double)(s->out * s->rank);
    }
    base_str_free(&row);
    base_str_free(&col);
    free(at);
    return st;
}

static double densest(const page_results *r)
{
    double most = 0;
    for (int64_t i = 0; i < r->plan->n; i++)
        for (int64_t k = 0; r->keep[i] && k < r->keep[i]->n_sites; k++) {
            const adapter_keep_site *s = &r->keep[i]->sites[k];
            most =
                fmax(most, 100 * (double)s->kept / (double)(s->out * s->rank));
        }
    return most;
}

static void mask_panel(const page_results *r, int64_t stage, double most,
                       base_str *out)
{
    const run_stage *s = &r->plan->stages[stage];
    density d = {0};
    base_str title = {0};
    if (density_of(r->keep[stage], &d))
        out->failed = true;
    plot_heat h = {.rows = (const char *const *)d.rows.word,
                   .cols = (const char *const *)d.cols.word,
                   .n_rows = d.rows.n,
                   .n_cols = d.cols.n,
                   .cells = d.cells,
                   .most = most,
                   .unit = "% kept"};
    base_str_printf(
        &title, "%s, %s: %lld of %lld kept", r->plan->learned.word[s->task],
        r->plan->methods.word[s->method], (long long)r->keep[stage]->kept,
        (long long)r->keep[stage]->total);
    if (!out->failed && title.s)
        plot_heat_map(title.s, &h, out);
    out->failed |= title.failed;
    base_str_free(&title);
    density_free(&d);
}

void page_masks(const page_results *r, base_str *out)
{
    if (!any_stage(r->plan, RUN_MASK, false))
        return;
    double most = densest(r);
    open_section("Masks",
                 "Per cent of the entries of B that are trained, by layer and "
                 "projection.",
                 out);
    open_panels(out);
    for (int64_t i = 0; i < r->plan->n; i++)
        if (r->keep[i])
            mask_panel(r, i, most, out);
    close_panels(out);
}
