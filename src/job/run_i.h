/* run_i.h - what the files of `lori run` share: a recipe becomes a plan of
 * stages, each with a stamp that says what its output was made from. */
#ifndef JOB_RUN_I_H
#define JOB_RUN_I_H

#include "eval/eval.h"
#include "job/job_i.h"

/* A growing list of owned strings. */
typedef struct run_words {
    char **word;
    int64_t n;
} run_words;
/* printf into a new word. */
lori_status run_words_add(run_words *list, lori_error *err, const char *fmt,
                          ...) BASE_PRINTF(3, 4);
void run_words_free(run_words *list);

typedef enum run_kind {
    RUN_TRAIN,
    RUN_MASK,
    RUN_MERGE,
    RUN_EVAL,
    RUN_KINDS
} run_kind;
extern const char *const run_kind_names[RUN_KINDS];

/* One job with one output. Everything that decides its result is in `settings`
 * or is the content of an input. */
typedef struct run_stage {
    run_kind kind;
    char *name;         /* of the output, unique: "math-lori-s" */
    char *output;       /* folder */
    run_words settings; /* "key=value"; of a training: its recipe */
    run_words inputs;   /* files and folders */
    double sparsity;    /* mask */
    lori_merge_method merge;
    double *weights; /* merge: one an adapter */
    int64_t n_rows;  /* eval: the first rows of the plan */
    /* What it is about, for the page: places in the plan's lists, -1: none. */
    int64_t task, method;
    int64_t first; /* the task that was learned before, of a continual pair */
} run_stage;

typedef struct run_plan {
    char *model, *output, *data_dir;
    run_stage *stages;
    int64_t n;
    run_words rows;  /* names of the adapters to evaluate, in order of making */
    run_words tasks; /* of the evaluations: files and presets */
    run_words learned, methods; /* names in the recipe */
    int64_t *own; /* [learned] the task that measures it, -1: none */
    int64_t eval_limit, eval_batch_size;
    bool eval_log_samples;
    int eval_dtype; /* lori_dtype */
    const char *hub_cache;
    char *folder;        /* of the model; set by the job */
    uint64_t model_hash; /* of its files; set by the job */
} run_plan;
lori_status run_plan_load(const lori_run_options *options, run_plan *plan,
                          lori_error *err);
void run_plan_free(run_plan *plan);

/* ---- stamps (run_stamp.c) --------------------------------------------- */

typedef enum run_state {
    RUN_TODO,    /* never done, or made from something else */
    RUN_STOPPED, /* begun from the same, not finished */
    RUN_DONE
} run_state;
/* What a stage would be made from now: JSON, new reference. */
lori_status run_facts(const run_plan *plan, const run_stage *stage,
                      json_t **facts, lori_error *err);
/* Adds the task files and the hashes of the documents that they make of their
 * data to `facts`. */
lori_status run_add_tasks(const run_plan *plan, json_t *facts, lori_error *err);
/* Compares with the stamp. `seconds`: how long it took, when it is done. */
lori_status run_look(const run_plan *plan, const run_stage *stage,
                     const json_t *facts, run_state *state, double *seconds,
                     lori_error *err);
/* Before a stage begins; after it ended, with the hash of its output. */
lori_status run_begin(const run_plan *plan, const run_stage *stage,
                      const json_t *facts, lori_error *err);
lori_status run_end(const run_plan *plan, const run_stage *stage,
                    const json_t *facts, double seconds, lori_error *err);

/* ---- the page (run_page.c) -------------------------------------------- */

/* Of a finished run: tables and plots of what its files hold, as HTML.
 * `seconds` [stages]. *written is false when `path` holds the page already. */
lori_status run_page_write(const run_plan *plan,
                           const lori_run_options *options,
                           const double *seconds, const char *path,
                           bool *written, lori_error *err);

#endif
