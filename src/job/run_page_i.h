/* run_page_i.h - what the page of `lori run` is made of: numbers that
 * run_results.c reads from the files of a finished run, plots that run_plot.c
 * draws of them as SVG, sections that run_page.c puts together. */
#ifndef JOB_RUN_PAGE_I_H
#define JOB_RUN_PAGE_I_H

#include "job/run_i.h"

/* ---- numbers (run_results.c) -------------------------------------------- */

/* What a model reached on a task. */
typedef struct page_value {
    bool known, is_share; /* share: 0 to 1, with a 95 % interval */
    double value, low, high;
} page_value;

/* Losses by step. */
typedef struct page_curve {
    double *step, *loss;
    int64_t n;
} page_curve;

typedef struct page_results {
    const run_plan *plan;
    eval_task **tasks; /* [plan->tasks] */
    int64_t n_rows;    /* the base, then the plan's */
    page_value *value; /* [n_rows * tasks] */
    /* [plan stages], empty but for trainings, NULL but for masks */
    page_curve *train, *valid;
    int64_t *trained; /* parameters */
    adapter_keep **keep;
} page_results;
/* Reads eval/results.json, the trainings' metrics.jsonl and the masks. */
lori_status page_results_read(const run_plan *plan, page_results *out,
                              lori_error *err);
void page_results_free(page_results *r);
/* The row of a training's or a merge's adapter. */
int64_t page_row(const page_results *r, int64_t stage);
/* The stage that learned a task, after `first` unless that is -1. -1: the
 * recipe has none. */
int64_t page_training(const page_results *r, int64_t task, int64_t method,
                      int64_t first);
/* Of a stage's adapter, or with PAGE_BASE of the base, on the task that
 * measures what `learned` is about; unknown when there is none. */
#define PAGE_BASE (-2)
page_value page_own(const page_results *r, int64_t stage, int64_t learned);
/* The name of a row. */
const char *page_row_name(const page_results *r, int64_t row);

/* ---- plots (run_plot.c) -------------------------------------------------- */

/* Escapes what HTML gives a meaning. */
void page_text(base_str *out, const char *text);

/* The class of a colour: 0 is grey, others come again after the last. */
int64_t plot_color(int64_t color);

typedef struct plot_bar {
    const char *label;
    page_value value;
    int64_t color; /* 0: grey */
    bool faint;    /* what the others are compared with */
} plot_bar;
/* Horizontal bars with intervals; values that are no shares get a scale of
 * their own. */
void plot_bars(const char *title, const plot_bar *bars, int64_t n,
               base_str *out);

typedef struct plot_line {
    const char *label;
    const page_curve *curve;
    int64_t color;
    bool points; /* dashed, with a point each */
} plot_line;
void plot_lines(const char *title, const plot_line *lines, int64_t n,
                base_str *out);

/* A heat map. NAN cells stay empty. Colour: |value| / most, of its own below
 * zero. */
typedef struct plot_heat {
    const char *const *rows, *const *cols;
    int64_t n_rows, n_cols;
    const double *cells; /* [n_rows * n_cols] */
    double most;
    bool is_signed;     /* "+" before what is above zero */
    const char *unit;   /* in the tooltip */
    const bool *framed; /* [n_rows * n_cols], NULL: none */
} plot_heat;
void plot_heat_map(const char *title, const plot_heat *h, base_str *out);

/* ---- sections with plots (run_sections.c) -------------------------------- */

/* Nothing where the recipe has no such stages. */
void page_accuracy(const page_results *r, base_str *out);
void page_merges(const page_results *r, base_str *out);
void page_interference(const page_results *r, base_str *out);
void page_continual(const page_results *r, base_str *out);
void page_losses(const page_results *r, base_str *out);
void page_masks(const page_results *r, base_str *out);

#endif
