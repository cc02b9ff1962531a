/* run_page.c - OUTPUT/report.html, what `lori run` leaves for people: one page
 * without any other file, made of the run's own files only, so that the same
 * run gives the same bytes; the times, which differ, stand apart at its end. */
#include <math.h>
#include <stdlib.h>

#include "job/run_page_i.h"

static const char *const style =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1c2430;--soft:#5b6675;"
    "--line:#dfe4ea;--panel:#f6f8fa;--c0:#8b95a1;--c1:#2563c9;--c2:#d9730d;"
    "--c3:#12855f;--c4:#a63d9c;--c5:#a67c00;--c6:#0e7f9b;--c7:#c2334d;"
    "--c8:#5b51c9;--up:#2563c9;--down:#c8500a;--on:#fff;--own:#e6effc}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#12161c;--fg:#e4e9ef;"
    "--soft:#98a4b3;--line:#2c3540;--panel:#1a2029;--c0:#7f8a97;--c1:#6ba4ff;"
    "--c2:#f59e4c;--c3:#45c495;--c4:#dd83d3;--c5:#dcb848;--c6:#52c0dc;"
    "--c7:#f47b8f;--c8:#a49cff;--up:#6ba4ff;--down:#f59e4c;--on:#10141a;"
    "--own:#1d3050}}\n"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--fg);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:1492px;margin:0 auto;padding:24px 16px 64px}"
    "h1{font-size:26px;line-height:1.2;margin:0 0 4px}"
    "h2{font-size:19px;margin:40px 0 2px}"
    "section>p,.lead{color:var(--soft);margin:0 0 14px;max-width:84ch}"
    "code,pre{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace}"
    "pre{background:var(--panel);border:1px solid var(--line);"
    "border-radius:6px;padding:12px;overflow-x:auto}"
    "summary{cursor:pointer;margin:8px 0}\n"
    ".scroll{overflow-x:auto;max-width:1100px;border:1px solid "
    "var(--line);border-radius:8px}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;"
    "width:100%}"
    "th,td{padding:6px 12px;text-align:right;white-space:nowrap;"
    "border-top:1px solid var(--line)}"
    "thead th{background:var(--panel);border-top:0;vertical-align:bottom;"
    "font-weight:600}"
    "th:first-child,td.text{text-align:left}"
    "tbody th{font-weight:400;position:sticky;left:0;background:var(--bg)}"
    "tr.group th{background:var(--panel);color:var(--soft);font-size:13px;"
    "font-weight:600}"
    "td small,th small{display:block;color:var(--soft);font-size:11.5px;"
    "font-weight:400}td.own{background:var(--own)}\n"
    ".panels{display:grid;gap:14px;"
    "grid-template-columns:repeat(auto-fill,minmax(min(100%,342px),1fr))}"
    "figure{margin:0;padding:10px 12px;background:var(--panel);"
    "border:1px solid var(--line);border-radius:8px;overflow-x:auto}"
    "figcaption{font-weight:600;margin-bottom:6px}"
    "svg{display:block;max-width:100%;height:auto}"
    "svg text{fill:var(--fg);font:12px system-ui,-apple-system,'Segoe UI',"
    "Roboto,sans-serif;font-variant-numeric:tabular-nums}"
    "svg .tick{fill:var(--soft);font-size:11px}.end{text-anchor:end}"
    ".mid{text-anchor:middle}.grid{stroke:var(--line)}"
    ".bar,.key{fill:var(--c);background:var(--c)}.faint{opacity:.45}"
    ".whisker{stroke:var(--fg);fill:none;stroke-width:1.2}"
    ".line{stroke:var(--c);fill:none;stroke-width:1.8;"
    "stroke-linejoin:round}.dashed{stroke-dasharray:5 4;stroke-width:1.3}"
    ".up{fill:var(--up)}.down{fill:var(--down)}"
    ".framed{stroke:var(--fg);stroke-width:1.5}svg .on{fill:var(--on)}"
    ".legend span{margin-right:16px;white-space:nowrap}"
    ".key{display:inline-block;width:11px;height:11px;border-radius:2px;"
    "margin-right:6px}"
    ".c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}"
    ".c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}"
    ".c6{--c:var(--c6)}.c7{--c:var(--c7)}.c8{--c:var(--c8)}";

typedef struct page {
    const run_plan *plan;
    const lori_run_options *o;
    const double *seconds; /* [plan stages] */
    page_results results;
    base_str out;
} page;

/* ---- head ------------------------------------------------------------------
 */

static void add_head(page *p)
{
    base_str *out = &p->out;
    const char *name = base_path_name(p->o->recipe);
    base_str_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                       "<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
                       "content=\"width=device-width,initial-scale=1\">\n"
                       "<link rel=\"icon\" href=\"data:,\">\n<title>");
    page_text(out, name);
    base_str_puts(out, " - lori run</title>\n<style>\n");
    base_str_puts(out, style);
    base_str_puts(out, "\n</style>\n</head>\n<body>\n<main>\n<h1>");
    page_text(out, name);
    base_str_puts(out, "</h1>\n<p class=\"lead\">Base model <code>");
    page_text(out, p->plan->model);
    base_str_printf(out,
                    "</code>, %lld tasks, %lld methods, %lld adapters. Made by "
                    "lori %s from the files of the run.</p>\n",
                    (long long)p->plan->learned.n,
                    (long long)p->plan->methods.n, (long long)p->plan->rows.n,
                    LORI_VERSION);
}

/* ---- in short --------------------------------------------------------------
 */

/* A mean over those values that are there. */
typedef struct mean {
    double sum;
    int64_t n;
} mean;

static void take(mean *m, page_value v)
{
    if (!v.known || !v.is_share)
        return;
    m->sum += 100 * v.value;
    m->n++;
}

static double mean_of(mean m)
{
    return m.n ? m.sum / (double)m.n : (double)NAN;
}

static mean own_mean(const page *p, int64_t method)
{
    mean m = {0};
    for (int64_t t = 0; t < p->plan->learned.n; t++) {
        int64_t stage =
            method < 0 ? PAGE_BASE : page_training(&p->results, t, method, -1);
        take(&m, page_own(&p->results, stage, t));
    }
    return m;
}

static mean merge_mean(const page *p, int64_t stage)
{
    mean m = {0};
    for (int64_t t = 0; t < p->plan->learned.n; t++)
        take(&m, page_own(&p->results, stage, t));
    return m;
}

/* Points over the base on the tasks that an adapter did not learn. */
static mean elsewhere(const page *p, int64_t method)
{
    mean with = {0}, base = {0};
    for (int64_t t = 0; t < p->plan->learned.n; t++)
        for (int64_t u = 0; u < p->plan->learned.n; u++)
            if (p->plan->own[t] != p->plan->own[u]) {
                int64_t stage = page_training(&p->results, t, method, -1);
                take(&with, page_own(&p->results, stage, u));
                take(&base, page_own(&p->results, PAGE_BASE, u));
            }
    return (mean){with.sum - base.sum, with.n};
}

/* The first task of the pairs, before and after the second. */
static void kept_means(const page *p, int64_t method, mean *before, mean *after)
{
    for (int64_t i = 0; i < p->plan->n; i++) {
        const run_stage *s = &p->plan->stages[i];
        if (s->kind != RUN_TRAIN || s->method != method || s->first < 0)
            continue;
        int64_t alone = page_training(&p->results, s->first, method, -1);
        take(before, page_own(&p->results, alone, s->first));
        take(after, page_own(&p->results, i, s->first));
    }
}

static void add_number(base_str *out, const char *fmt_sign, double x)
{
    if (isnan(x))
        base_str_puts(out, "<td>-</td>");
    else
        base_str_printf(out, "<td>%s%.1f</td>", x > 0 ? fmt_sign : "", x);
}

/* Digits in groups of three. */
static void add_count(base_str *out, int64_t n)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)n);
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            base_str_puts(out, ",");
        base_str_add(out, &digits[i], 1);
    }
}

static void add_merges_cell(page *p, int64_t method)
{
    base_str *out = &p->out;
    double alone = mean_of(own_mean(p, method));
    bool any = false;
    base_str_puts(out, "<td>");
    for (int64_t i = 0; i < p->plan->n; i++) {
        const run_stage *s = &p->plan->stages[i];
        double merged = mean_of(merge_mean(p, i));
        if (s->kind != RUN_MERGE || s->method != method || isnan(merged))
            continue;
        base_str_printf(out, "%.1f", merged);
        any = true;
        base_str_puts(out, "<small>");
        page_text(out, s->name);
        if (alone > 0)
            base_str_printf(out, ", %.0f %% of alone", 100 * merged / alone);
        base_str_puts(out, "</small>");
    }
    base_str_puts(out, any ? "</td>" : "-</td>");
}

static void add_kept_cell(page *p, int64_t method)
{
    mean before = {0}, after = {0};
    kept_means(p, method, &before, &after);
    if (!after.n) {
        base_str_puts(&p->out, "<td>-</td>");
        return;
    }
    base_str_printf(&p->out, "<td>%.1f<small>of %.1f", mean_of(after),
                    mean_of(before));
    if (before.sum > 0)
        base_str_printf(&p->out, ", %.0f %%", 100 * after.sum / before.sum);
    base_str_puts(&p->out, "</small></td>");
}

static void add_short_row(page *p, int64_t method)
{
    base_str *out = &p->out;
    mean rest = elsewhere(p, method);
    base_str_puts(out, "<tr><th scope=\"row\">");
    page_text(out, p->plan->methods.word[method]);
    int64_t stage = page_training(&p->results, 0, method, -1);
    base_str_puts(out, "</th><td>");
    add_count(out, p->results.trained[stage]);
    base_str_puts(out, "</td>");
    add_number(out, "", mean_of(own_mean(p, method)));
    add_number(out, "+", mean_of(rest));
    add_merges_cell(p, method);
    add_kept_cell(p, method);
    base_str_puts(out, "</tr>\n");
}

static void add_in_short(page *p)
{
    base_str *out = &p->out;
    if (own_mean(p, -1).n == 0)
        return;
    base_str_puts(
        out, "<section>\n<h2>In short</h2>\n<p>Mean accuracies in per cent. "
             "Own task: of the adapters on the task that each learned. Other "
             "tasks: points over the base there. Merged: one adapter on all "
             "tasks. First task kept: of continual pairs, after the second "
             "task.</p>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<thead>"
             "<tr><th scope=\"col\">method</th><th scope=\"col\">trained "
             "parameters</th><th scope=\"col\">own task</th><th scope=\"col\">"
             "other tasks</th><th scope=\"col\">merged</th><th scope=\"col\">"
             "first task kept</th></tr></thead>\n<tbody>\n"
             "<tr><th scope=\"row\">base</th><td>0</td>");
    add_number(out, "", mean_of(own_mean(p, -1)));
    base_str_puts(out, "<td>-</td><td>-</td><td>-</td></tr>\n");
    for (int64_t m = 0; m < p->plan->methods.n; m++)
        add_short_row(p, m);
    base_str_puts(out, "</tbody></table></div>\n</section>\n");
}

/* ---- all results -----------------------------------------------------------
 */

static void add_value(base_str *out, page_value v, bool own)
{
    base_str_puts(out, own ? "<td class=\"own\">" : "<td>");
    if (v.is_share)
        base_str_printf(out, "%.1f<small>%.1f to %.1f</small></td>",
                        100 * v.value, 100 * v.low, 100 * v.high);
    else
        base_str_printf(out, "%.4f</td>", v.value);
}

/* Whether there are accuracies to average. */
static bool has_mean(const page_results *r)
{
    int64_t shares = 0;
    for (int64_t t = 0; t < r->plan->tasks.n; t++)
        shares += r->value[t].is_share;
    return shares > 1;
}

/* `stage` PAGE_BASE: the base. */
static void add_result_row(page *p, int64_t stage)
{
    const page_results *r = &p->results;
    int64_t row = stage < 0 ? 0 : page_row(r, stage);
    base_str *out = &p->out;
    mean all = {0};
    base_str_puts(out, "<tr><th scope=\"row\">");
    page_text(out, page_row_name(r, row));
    base_str_puts(out, "</th>");
    for (int64_t t = 0; t < p->plan->tasks.n; t++) {
        page_value v = r->value[row * p->plan->tasks.n + t];
        int64_t learned = stage < 0 ? -1 : p->plan->stages[stage].task;
        add_value(out, v, learned >= 0 && p->plan->own[learned] == t);
        take(&all, v);
    }
    if (has_mean(r))
        add_number(out, "", mean_of(all));
    base_str_puts(out, "</tr>\n");
}

static void add_result_group(page *p, const char *name, run_kind kind,
                             bool pair)
{
    bool any = false;
    for (int64_t i = 0; i < p->plan->n; i++) {
        const run_stage *s = &p->plan->stages[i];
        if (s->kind != kind || (s->first >= 0) != pair)
            continue;
        if (!any)
            base_str_printf(
                &p->out,
                "<tr class=\"group\"><th scope=\"rowgroup\" "
                "colspan=\"%lld\">%s</th></tr>\n",
                (long long)p->plan->tasks.n + 1 + has_mean(&p->results), name);
        any = true;
        add_result_row(p, i);
    }
}

static void add_results(page *p)
{
    base_str *out = &p->out;
    if (p->plan->tasks.n == 0)
        return;
    base_str_puts(out,
                  "<section>\n<h2>Results</h2>\n<p>Accuracies in per cent with "
                  "95 % Wilson intervals; other metrics as they are. Shaded: "
                  "the task that the adapter learned last.</p>\n"
                  "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>"
                  "<th scope=\"col\">model</th>");
    for (int64_t t = 0; t < p->plan->tasks.n; t++) {
        base_str_puts(out, "<th scope=\"col\">");
        page_text(out, p->results.tasks[t]->name);
        base_str_printf(out, "<small>%s</small></th>",
                        p->results.tasks[t]->metrics[0]);
    }
    if (has_mean(&p->results))
        base_str_puts(out, "<th scope=\"col\">mean<small>of accuracies</small>"
                           "</th>");
    base_str_puts(out, "</tr></thead>\n<tbody>\n");
    add_result_row(p, PAGE_BASE);
    add_result_group(p, "Single tasks", RUN_TRAIN, false);
    add_result_group(p, "Merges", RUN_MERGE, false);
    add_result_group(p, "Continual pairs: first task, second task, method",
                     RUN_TRAIN, true);
    base_str_puts(out, "</tbody></table></div>\n</section>\n");
}

/* ---- how it was made -------------------------------------------------------
 */

static lori_status add_origin(page *p, lori_error *err)
{
    base_str *out = &p->out;
    char *recipe = NULL;
    size_t n = 0;
    lori_report *machine = NULL;
    BASE_TRY(base_file_read(p->o->recipe, (size_t)1 << 24, &recipe, &n, err));
    lori_status st = job_env(p->o->isa, &machine, err);
    if (!st) {
        base_str_puts(out, "<section>\n<h2>How it was made</h2>\n<pre>");
        page_text(out, job_report_text(machine));
        base_str_puts(out, "</pre>\n<details><summary>Recipe</summary><pre>");
        page_text(out, recipe);
        base_str_puts(out, "</pre></details>\n");
        if (p->o->n_overrides)
            base_str_puts(out, "<p>Keys of the command:</p>\n<pre>");
        for (int64_t i = 0; i < p->o->n_overrides; i++) {
            page_text(out, p->o->overrides[i]);
            base_str_puts(out, "\n");
        }
        base_str_puts(out, p->o->n_overrides ? "</pre>\n</section>\n"
                                             : "</section>\n");
    }
    job_report_free(machine);
    free(recipe);
    return st;
}

/* What a stage took when it was made, by its stamp. */
static void add_times(page *p)
{
    base_str *out = &p->out;
    double all = 0;
    base_str_puts(
        out,
        "<section id=\"times\">\n<h2>Times</h2>\n<details><summary>Seconds "
        "by stage, of the last start when it was stopped</summary>\n<div "
        "class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">stage</th>"
        "<th scope=\"col\">kind</th><th scope=\"col\">seconds</th></tr>"
        "</thead>\n<tbody>\n");
    for (int64_t i = 0; i < p->plan->n; i++) {
        base_str_puts(out, "<tr><th scope=\"row\">");
        page_text(out, p->plan->stages[i].name);
        base_str_printf(out, "</th><td>%s</td><td>%.2f</td></tr>\n",
                        run_kind_names[p->plan->stages[i].kind], p->seconds[i]);
        all += p->seconds[i];
    }
    base_str_printf(out,
                    "<tr><th scope=\"row\">all</th><td></td><td>%.2f</td></tr>"
                    "\n</tbody></table></div></details>\n</section>\n",
                    all);
}

/* ---- the page
 * ----------------------------------------------------------------
 */

static lori_status compose(page *p, lori_error *err)
{
    BASE_TRY(page_results_read(p->plan, &p->results, err));
    add_head(p);
    add_in_short(p);
    page_accuracy(&p->results, &p->out);
    page_merges(&p->results, &p->out);
    page_interference(&p->results, &p->out);
    page_continual(&p->results, &p->out);
    add_results(p);
    page_losses(&p->results, &p->out);
    page_masks(&p->results, &p->out);
    lori_status st = add_origin(p, err);
    add_times(p);
    base_str_puts(&p->out, "</main>\n</body>\n</html>\n");
    page_results_free(&p->results);
    if (!st && p->out.failed)
        st = base_no_memory(err, p->out.len);
    return st;
}

/* Whether the file holds these bytes. */
static bool is_there(const char *path, const base_str *text)
{
    char *bytes = NULL;
    size_t n = 0;
    bool same = base_is_file(path) &&
                base_file_read(path, text->len, &bytes, &n, NULL) == LORI_OK &&
                n == text->len && !memcmp(bytes, text->s, n);
    free(bytes);
    return same;
}

lori_status run_page_write(const run_plan *plan, const lori_run_options *o,
                           const double *seconds, const char *path,
                           bool *written, lori_error *err)
{
    page p = {.plan = plan, .o = o, .seconds = seconds};
    *written = false;
    lori_status st = compose(&p, err);
    if (!st && !is_there(path, &p.out)) {
        st = base_file_write(path, p.out.s, p.out.len, err);
        *written = !st;
    }
    base_str_free(&p.out);
    return st;
}
