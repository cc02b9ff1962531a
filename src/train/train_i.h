/* train_i.h - what the files of train/ share. Private to this room.
 * Letters: step = one optimizer step, micro batch = the sequences of one pass,
 * row = one example of a dataset, target = a token the loss predicts. */
#ifndef TRAIN_TRAIN_I_H
#define TRAIN_TRAIN_I_H

#include <jansson.h>
#include <stdio.h>

#include "train/train.h"

/* ---- collected errors (base) ----------------------------------------- */

typedef base_diag diag;
#define diag_add base_diag_add
#define diag_end base_diag_end

/* ---- recipe keys (recipe_keys.c) ------------------------------------ */

typedef enum recipe_type {
    RECIPE_STRING, /* char *; NULL when not set */
    RECIPE_BOOL,
    RECIPE_INT,    /* int64_t */
    RECIPE_BYTES,  /* int64_t, with a unit; 0 when not set */
    RECIPE_SEED,   /* uint64_t, and a bool at `flag` when there is one */
    RECIPE_REAL,   /* double */
    RECIPE_CHOICE, /* an enum (int) */
    RECIPE_LIST    /* char **, and its int64_t count at `flag` */
} recipe_type;

typedef struct recipe_choice {
    const char *name;
    int value;
} recipe_choice;

/* One recipe key. Everything that is said about it anywhere (parsing, help,
 * resolved text, nearest name, resume check) comes from its row. */
typedef struct recipe_key {
    const char *name, *group;
    recipe_type type;
    size_t offset, flag;          /* into train_recipe; flag 0: none */
    double lo, hi;                /* range of a number, both included */
    const char *preset;           /* default as text; NULL: not set */
    const char *preset_note;      /* help: a default that other keys decide */
    const recipe_choice *choices; /* the first of a value is its name */
    const char *aliases;          /* other spellings, separated by a space */
    bool required;
    bool fixed; /* must not change when a run is resumed */
    const char *help;
} recipe_key;

extern const recipe_key recipe_keys[];
extern const int64_t recipe_n_keys;

/* The key of a name or alias, or -1. */
int64_t recipe_find(const char *name);
/* The name or alias nearest to a wrong one, or NULL; malloc'd. */
char *recipe_nearest(const char *name);
bool recipe_is_group(const char *name);
/* For keys of other trainers that lori has no use for: what to do instead of
 * setting them, or NULL. */
const char *recipe_advice(const char *name);
/* Reads `text` into the field of `key`; the field is empty before. On failure
 * false, and *why (cleared, then set) is the fact. */
bool recipe_read(const recipe_key *key, const char *text, train_recipe *r,
                 base_str *why);
/* Appends the value as YAML; "null" when it is not set. */
void recipe_value_text(const recipe_key *key, const train_recipe *r,
                       base_str *out);
/* Frees and empties one field. */
void recipe_clear(const recipe_key *key, train_recipe *r);

/* ---- rows (row_text.c) -------------------------------------------------- */

typedef enum rows_kind { ROWS_TEXT, ROWS_TOKENS } rows_kind;

/* How the rows of one file become prompt and completion. Found from the first
 * row, then fixed. Borrows the options. */
typedef struct rows_form {
    bool known;
    rows_kind kind;
    const char *prompt;     /* column, or NULL with a template */
    const char *completion; /* column */
    const char *optional;   /* column that may be absent (Alpaca's input) */
    const char *template_;  /* NULL: the prompt column as it stands */
    const char *template_with_optional; /* when that column is not empty */
} rows_form;

/* NULL, or what is wrong with a recipe's columns / template. */
const char *rows_check_columns(const train_columns *c, const char *template_);
const char *rows_check_template(const char *template_);
/* `place` is "file:line". Facts about wrong rows go to `d`; false then. */
bool rows_find_form(const train_data_options *o, const json_t *row,
                    const char *place, rows_form *form, diag *d);
/* Prompt (cleared, then set) and completion (borrowed from row). */
bool rows_texts(const rows_form *form, const json_t *row, const char *place,
                base_str *prompt, const char **completion, size_t *n, diag *d);
/* "instruction, output": the row's field names, appended. */
void rows_fields(const json_t *row, base_str *out);

/* ---- batches (batch.c) ---------------------------------------------- */

/* Which rows make up step t: the rows of an epoch in file order or shuffled
 * by (seed, epoch), cut into steps of micro * accumulation rows; the last
 * step of an epoch may be shorter (Hugging Face's drop_last=False). */
typedef struct batch_plan {
    const train_data *data;
    int64_t micro, per_step, steps_per_epoch;
    bool shuffle;
    uint64_t seed;
    int64_t *order;   /* [n_rows] of `epoch` */
    int64_t epoch;    /* -1: none yet */
    int32_t *used;    /* [n_rows] tokens of a row the loss depends on */
    int32_t *targets; /* [n_rows] */
} batch_plan;
lori_status batch_plan_init(batch_plan *plan, const train_data *data,
                            const train_recipe *r, lori_error *err);
void batch_plan_fini(batch_plan *plan);
/* Rows of step t (0-based), borrowed until the next call. */
const int64_t *batch_rows(batch_plan *plan, int64_t t, int64_t *n);
/* *limits become at least the largest micro batch of steps [0, total). */
lori_status batch_train_limits(batch_plan *plan, int64_t total,
                               model_limits *limits, lori_error *err);

/* Room for one packed pass. */
typedef struct batch_buffer {
    model_batch pass;
    int32_t *ids, *cu, *row, *target;
    float *weight;
    double *nll;
    int64_t max_tokens, max_seqs, max_rows;
} batch_buffer;
lori_status batch_buffer_init(batch_buffer *b, const model_limits *limits,
                              lori_error *err);
void batch_buffer_fini(batch_buffer *b);
void batch_start(batch_buffer *b);
/* Appends a row's sequence; false (and nothing changed) when it has no room. */
bool batch_add(batch_buffer *b, const train_data *data, int64_t row);
/* Every loss row gets this weight. */
void batch_weigh(batch_buffer *b, double weight);
/* Tokens of a row that its loss depends on, and its targets. */
void batch_row_size(const train_data *data, int64_t row, int64_t *used,
                    int64_t *targets);

/* ---- evaluation (evaluate.c) ---------------------------------------- */

/* Limits for evaluating `data` at most `batch_size` rows a pass: the longest
 * row must fit, more rows share a pass while they do. `roomy`: as large as
 * the largest batch_size neighbours; else only as needed. */
void evaluate_limits(const train_data *data, int64_t batch_size, bool roomy,
                     model_limits *limits);
lori_status evaluate_run(model_run *run, batch_buffer *b,
                         const model_adapter *ad, const train_data *data,
                         int64_t batch_size, const lori_ui *ui,
                         double *mean_nll, lori_error *err);

/* ---- schedule and optimizer (optim.c) ------------------------------- */

/* ceil(warmup_ratio * total) or warmup_steps. */
int64_t schedule_warmup(const train_recipe *r, int64_t total);
/* Learning rate of step t (0-based) of `total`. */
double schedule_lr(const train_recipe *r, int64_t warmup, int64_t total,
                   int64_t t);
int64_t schedule_total(const train_recipe *r, int64_t n_rows);

/* Kept entries of one matrix inside the packed vectors. */
typedef struct optim_slice {
    int64_t site, start, count;
    bool is_a;
    backend_view dense;       /* device: the matrix the passes use */
    const backend_keep *keep; /* NULL: all */
} optim_slice;

/* All trainable parameters as one packed vector of acc values: of every site
 * in order the kept entries of B row by row, then (method lora) A. Gradient
 * and both moments have the same layout. */
typedef struct optim {
    backend *be;
    int64_t n;
    int64_t n_slices;
    optim_slice *slices;
    void *p, *g, *m, *v; /* device, [n] acc */
    double *sq;          /* device, [n_slices] */
    double *sq_host;     /* [n_slices] sums of squares of the gradient */
    backend_keep *keeps; /* [n_sites], device bits; NULL without a mask */
    int64_t n_keeps;
    const adapter_keep *keep; /* borrowed, or NULL */
    void *host;               /* one slice, acc: on the way in and out */
} optim;

/* Takes the start values from `ad` and points gB, gA and keep of `ma`'s sites
 * here. `ma` must outlive it. */
lori_status optim_init(optim *o, model_adapter *ma, const adapter *ad,
                       const adapter_keep *keep, bool train_a, lori_error *err);
void optim_fini(optim *o);
void optim_zero_grad(optim *o);
/* Euclidean norm of the whole gradient; waits for the device. */
lori_status optim_grad_norm(optim *o, double *norm, lori_error *err);
/* One update from the gradient whose norms optim_grad_norm found; step >= 1.
 * Writes the new values into the matrices the passes use. */
void optim_update(optim *o, const train_recipe *r, double lr, double norm,
                  int64_t step);
/* The name of the first matrix whose gradient is not finite, or NULL. */
const optim_slice *optim_bad_slice(const optim *o);
/* Current values into the host adapter; entries not kept stay. */
lori_status optim_store(optim *o, adapter *ad, lori_error *err);
/* Vector 0 p, 1 m, 2 v: one slice into o->host; all of it from host memory
 * [n] acc. */
lori_status optim_get(optim *o, int which, const optim_slice *slice,
                      lori_error *err);
lori_status optim_put(optim *o, int which, const void *host, lori_error *err);

/* ---- the start of a run (start.c) ----------------------------------- */

/* What is trained: adapter with its A and start B, and the mask (or NULL). */
typedef struct train_start {
    adapter *ad;
    adapter_keep *keep;
    uint64_t hash; /* of A, B and the mask: a resumed run must have the same */
} train_start;
lori_status train_start_make(const train_recipe *r, const model *m,
                             const lori_ui *ui, train_start *out,
                             lori_error *err);
void train_start_free(train_start *start);

/* ---- memory (plan.c) ------------------------------------------------ */

typedef struct plan_inputs {
    const train_recipe *r;
    const model *m;
    const train_start *start;
    const train_data *data, *eval; /* eval may be NULL */
    model_limits *limits;          /* sizes set; schedules are set here */
} plan_inputs;
/* LORI_NO_MEMORY when memory_budget does not hold even the smallest schedule;
 * an automatic budget that does not is only told (`fits`). `steps` and
 * `rows_per_step` are left to the caller. */
lori_status plan_memory(const plan_inputs *in, train_plan *plan,
                        lori_error *err);

/* ---- files of a run (output.c, checkpoint.c) ------------------------ */

/* What a run has done so far; all of it goes into a checkpoint. */
typedef struct train_progress {
    int64_t step;         /* optimizer steps done */
    int64_t window_steps; /* since the last metrics line */
    double window_loss;   /* sum over these steps */
    int64_t tokens;       /* all useful tokens so far */
    int64_t last_eval;    /* step of the last evaluation, 0: none */
    bool has_eval;
    double eval_loss, train_loss, grad_norm, elapsed_s;
} train_progress;

/* Makes output_dir, proves that files can be made in it, and refuses one that
 * holds an adapter or a checkpoint unless the recipe allows it. *existed: how
 * many bytes of the path were there before. */
lori_status output_prepare(const train_recipe *r, size_t *existed,
                           lori_error *err);
/* After a failure: removes folders that output_prepare made, if empty. */
void output_withdraw(const train_recipe *r, size_t existed);
/* The adapter's files and recipe.yaml into output_dir, each whole,
 * adapter_config.json last: a folder with that file is a whole adapter. */
lori_status output_save(const train_recipe *r, const adapter *ad,
                        lori_error *err);
/* metrics.jsonl, to append to: emptied, or with `keep` cut after `step`. */
lori_status output_metrics_open(const train_recipe *r, bool keep, int64_t step,
                                FILE **file, lori_error *err);
/* One line, flushed. Takes the reference; NULL is LORI_NO_MEMORY. */
lori_status output_metrics_put(FILE *file, json_t *line, lori_error *err);

/* What must be the same in the run that wrote a checkpoint and the one that
 * goes on from it. */
typedef struct checkpoint_run {
    const train_recipe *r;
    uint64_t start_hash, data_hash;
    int64_t total;
} checkpoint_run;
uint64_t checkpoint_hash(const train_data *data);
lori_status checkpoint_write(const checkpoint_run *run, optim *o,
                             const train_progress *at, lori_error *err);
/* LORI_MISMATCH naming what differs from the run that wrote it. */
lori_status checkpoint_read(const checkpoint_run *run, optim *o,
                            train_progress *at, lori_error *err);
bool checkpoint_exists(const train_recipe *r);
void checkpoint_remove(const train_recipe *r);

#endif
