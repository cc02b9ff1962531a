/* eval.h - tasks, and how answers to them are judged. A task is a small YAML
 * file: rows become prompts, answers are scored by one of three rules, values
 * are summed up to metrics under the names of lm-evaluation-harness. Every
 * document's result is a line of a sample log, and that log is also the state
 * that a stopped run goes on from.
 * Source: spec/eval.md (prompts and extraction of the LoRI reference, rules of
 * lm-evaluation-harness 0.4.13). May include what tools/layers.txt says. */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include <jansson.h>

#include "infer/infer.h"
#include "text/text.h"

/* ---- tasks ---------------------------------------------------------- */

typedef enum eval_kind {
    EVAL_GENERATE, /* generate_until: a text is made and its answer compared */
    EVAL_CHOICE,   /* multiple_choice: the likeliest continuation */
    EVAL_ROLLING   /* loglikelihood_rolling: perplexity of a text */
} eval_kind;

typedef enum eval_compare {
    EVAL_TEXT,      /* equal but for white space at both ends */
    EVAL_NUMBER,    /* equal numbers */
    EVAL_EXPRESSION /* the answer is an integer expression, the target a list
                       of tests: "x=3 y=5: 8; x=1 y=0: 1" */
} eval_compare;

/* How the answer is found in a text; the same for output and target (but not
 * for a target that is a list of tests). */
typedef struct eval_extract {
    char *remove;     /* characters that are deleted first */
    char *after_last; /* look only behind its last occurrence */
    char *marker;     /* the first hit between its first two occurrences,
                         if there is one */
    char *regex;      /* PCRE2; NULL: the whole text is the answer */
    bool last;        /* take: last hit, not the first */
} eval_extract;

#define EVAL_METRICS 8

typedef struct eval_task {
    char *name;
    char *source;   /* the YAML file's path, or "preset NAME" */
    char *folder;   /* of that file: data files are relative to it; NULL for a
                       preset, whose files are relative to the data folder */
    json_t *config; /* the YAML as given */
    eval_kind kind;
    char *test_file, *fewshot_file;
    int64_t limit; /* first rows only; 0: all */
    int64_t num_fewshot;
    char *fewshot_delimiter, *target_delimiter;
    char *doc_to_text, *doc_to_target;
    char **doc_to_choice; /* templates; one alone may name a list field */
    int64_t n_choices;
    bool choices_are_field;
    bool add_special_tokens, apply_chat_template;
    int64_t max_new_tokens;
    char **until;
    int64_t n_until;
    double temperature, top_p; /* temperature 0: greedy */
    int64_t top_k, seed;
    bool judge_prompt; /* judged_text: prompt_and_completion */
    eval_extract extract;
    void *regex; /* compiled; private to extract.c */
    eval_compare compare;
    bool ignore_case;
    const char *metrics[EVAL_METRICS]; /* the first is shown in tables */
    int64_t n_metrics;
} eval_task;

/* `what`: the name of a preset, or a YAML file. All that is wrong with the
 * file is reported together, a line each. */
lori_status eval_task_load(const char *what, eval_task **out, lori_error *err);
void eval_task_free(eval_task *task);
/* A line a preset: name and what it is. */
void eval_presets_list(base_str *out);
/* The YAML of a preset, to read or to start a task of one's own from. */
lori_status eval_preset_text(const char *name, base_str *out, lori_error *err);

/* ---- documents ------------------------------------------------------ */

typedef struct eval_doc {
    int64_t line; /* of the data file, from 1 */
    char *prompt; /* with few-shot examples before it */
    char *target;
    char **choices;
    int64_t n_choices;
    int64_t gold; /* index of the right choice */
} eval_doc;

typedef struct eval_docs {
    char *path;
    eval_doc *doc;
    int64_t n;
    uint64_t hash; /* of all prompts, targets and choices */
} eval_docs;

/* Renders the rows of the task's data file. `data_dir` (may be NULL) is where
 * a preset's files are, and where a task's file is looked for second. `limit`
 * beats the task's own when > 0. Wrong rows are collected, file and line. */
lori_status eval_docs_load(const eval_task *task, const char *data_dir,
                           int64_t limit, const lori_ui *ui, eval_docs **out,
                           lori_error *err);
void eval_docs_free(eval_docs *docs);

/* ---- judging -------------------------------------------------------- */

/* The answer in text[0..n): *found false and `out` empty when there is none.
 * `out` is cleared first. */
lori_status eval_find_answer(const eval_task *task, const char *text, size_t n,
                             base_str *out, bool *found, lori_error *err);
/* The same of a target. */
lori_status eval_find_target(const eval_task *task, const char *target,
                             base_str *out, bool *found, lori_error *err);
/* Whether an answer is the target's by the task's `compare`. */
bool eval_same_answer(const eval_task *task, const char *answer,
                      const char *want);

/* ---- metrics -------------------------------------------------------- */

typedef struct eval_metric {
    const char *name; /* static */
    double value;
    bool has_stderr; /* sample sd / sqrt(n); perplexities have none */
    double stderr_;
    bool is_share; /* low, high: 95 % Wilson interval */
    double low, high;
    bool higher_is_better;
} eval_metric;

/* What one document gives: generate: exact_match; choice: acc, acc_norm,
 * acc_bytes; rolling: log-likelihood, tokens, words, bytes. */
#define EVAL_VALUES 4
typedef struct eval_values {
    double v[EVAL_VALUES];
} eval_values;

typedef struct eval_score {
    int64_t n;
    eval_metric metric[EVAL_METRICS];
    int64_t n_metrics;
} eval_score;

void eval_summarize(const eval_task *task, const eval_values *values, int64_t n,
                    eval_score *out);
/* 95 % Wilson score interval of `hits` of n. */
void eval_wilson(double hits, double n, double *low, double *high);

/* ---- running -------------------------------------------------------- */

/* A row of the table: a base, or a base with one adapter. */
typedef struct eval_subject {
    const char *name;
    infer_engine *engine;
    const model *model;           /* the engine's */
    const model_adapter *adapter; /* NULL: the base alone */
    uint64_t adapter_key;         /* as in infer_request */
    const text_tokenizer *tok;
    const text_chat *chat; /* for tasks with apply_chat_template */
    uint64_t hash;         /* of the files it came from */
} eval_subject;

typedef struct eval_options {
    const char *output; /* folder, or NULL: nothing is kept */
    bool overwrite;     /* results under other settings are made again */
    bool log_samples;   /* the log also holds prompts and completions */
    const lori_ui *ui;
    int64_t before, total; /* documents of the whole run, for progress */
} eval_options;

/* Evaluates a subject on a task; with an output folder as
 * OUTPUT/SUBJECT/TASK.jsonl and its settings beside it, from where a former
 * run stopped. Results under other settings are LORI_MISMATCH that says what
 * differs. On LORI_INTERRUPTED what was finished is in the log. */
lori_status eval_run(const eval_subject *subject, const eval_task *task,
                     const eval_docs *docs, const eval_options *options,
                     eval_score *out, lori_error *err);

/* ---- reports -------------------------------------------------------- */

/* Scores [n_subjects * n_tasks], subject by subject. */
typedef struct eval_table {
    const char *const *subjects;
    int64_t n_subjects;
    const eval_task *const *tasks;
    int64_t n_tasks;
    const eval_score *scores;
} eval_table;
/* Markdown: subjects x tasks by first metrics, then a line a metric. */
void eval_table_text(const eval_table *table, base_str *out);
/* results.SUBJECT.TASK with lm-evaluation-harness' keys. New reference. */
json_t *eval_table_json(const eval_table *table);

#endif
