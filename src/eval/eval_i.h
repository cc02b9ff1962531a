/* eval_i.h - private to src/eval. */
#ifndef EVAL_EVAL_I_H
#define EVAL_EVAL_I_H

#include "eval/eval.h"
#include "format/format.h"

/* ---- presets (tasks.c) and metrics (metrics.c) ----------------------- */

/* Whether `name` is a preset; its YAML is appended to `out`. */
bool preset_text(const char *name, base_str *out);
/* The preset nearest to a wrong name, or NULL. */
const char *preset_nearest(const char *name);

/* The static name of a metric that `kind` has, or NULL. */
const char *metric_find(eval_kind kind, const char *name);
/* Names of `kind`'s metrics, the default first; returns their number. */
int64_t metric_names(eval_kind kind, const char *names[EVAL_METRICS]);
/* How many of a document's values `kind` fills, and the name of each. */
int64_t metric_values(eval_kind kind, const char *names[EVAL_VALUES]);

/* ---- task files (task_read.c) ----------------------------------------- */

/* The YAML of a task; `file` is its name in messages. */
lori_status task_parse(const char *text, size_t n, const char *file,
                       eval_task **out, lori_error *err);

/* ---- templates (template.c) ------------------------------------------ */

/* NULL, or what is wrong with a template. "{{name}}" and "{{a.b}}" stand for
 * fields of a row, everything else for itself. */
const char *template_check(const char *text);
/* The field's name when the template is one field alone; else NULL. malloc'd.
 */
char *template_field(const char *text);
/* Appends the filled template; false when a field is missing or no text, and
 * the fact goes to `d`. `place` is "file:line". */
bool template_fill(const char *text, const json_t *row, const char *place,
                   base_str *out, base_diag *d);
/* The value of "a.b", borrowed, or NULL. */
const json_t *template_value(const json_t *row, const char *path);

/* ---- extraction (extract.c) ------------------------------------------ */

/* Compiles task->extract.regex; *fact (static or in `buf`) says why not. */
bool extract_compile(eval_task *task, char *buf, size_t n);
void extract_free(eval_task *task);

/* ---- expressions (expression.c) -------------------------------------- */

/* Whether `tests` is a list of tests, "x=3 y=5: 8; x=1 y=0: 1". */
bool expression_tests_good(const char *tests);
/* Whether the expression has the value that each test says. */
bool expression_passes(const char *expression, const char *tests);

/* ---- the engine (engine.c) ------------------------------------------- */

/* Everything here that runs a model goes through these two. */
typedef struct engine_text {
    text_ids prompt;
    base_str text; /* out: generated, cut before a stop string */
    int64_t n_new; /* out */
    bool stopped;  /* out: by a stop token or string, not by length */
} engine_text;
lori_status engine_generate(const eval_subject *subject, const eval_task *task,
                            engine_text *texts, int64_t n, int64_t first_doc,
                            const eval_options *options, lori_error *err);

/* ids[first..) given what is before them. */
typedef struct engine_span {
    text_ids ids;
    int64_t first;
    double loglikelihood; /* out */
} engine_span;
lori_status engine_score(const eval_subject *subject, const eval_task *task,
                         engine_span *spans, int64_t n, int64_t n_docs,
                         const eval_options *options, lori_error *err);

/* ---- texts to tokens (encode_pair.c) ---------------------------------------
 */

/* The prompt as the model gets it, and the flags to encode it with. */
lori_status prompt_text(const eval_subject *subject, const eval_task *task,
                        const eval_doc *doc, base_str *out, unsigned *flags,
                        lori_error *err);
/* Adds the token that stands before a text without context: BOS, else EOS. */
lori_status encode_prefix(const text_tokenizer *tok, text_ids *ids,
                          lori_error *err);
/* Fills ids and first of an empty span. */
lori_status encode_pair(const eval_subject *subject, const char *context,
                        const char *continuation, unsigned flags,
                        engine_span *span, lori_error *err);

/* The same as a row of training data has it: the target is encoded apart, and
 * EOS follows. */
lori_status encode_row(const eval_subject *subject, const char *prompt,
                       const char *target, unsigned flags, engine_span *span,
                       lori_error *err);

/* ---- measuring a chunk of documents ----------------------------------- */

/* Documents [first, first + n): fills values[0..n) and appends their lines. */
typedef struct measuring {
    const eval_subject *subject;
    const eval_task *task;
    const eval_docs *docs;
    const eval_options *options;
    int64_t first, n;
    eval_values *values;
    base_str *lines;
} measuring;
lori_status measure_generate(const measuring *m, lori_error *err);
lori_status measure_choice(const measuring *m, lori_error *err);
lori_status measure_rolling(const measuring *m, lori_error *err);

/* A line of the log that starts with the document's number, line and values. */
json_t *measure_line(const measuring *m, int64_t i);
/* Appends and frees; NULL is LORI_NO_MEMORY. */
lori_status measure_put(const measuring *m, json_t *line, lori_error *err);

/* ---- the log of a part (part.c) --------------------------------------- */

/* One subject on one task. Chunks are appended whole. */
typedef struct part {
    char *log, *settings; /* paths; NULL without an output folder */
    int fd;
    int64_t done;        /* documents in the log */
    eval_values *values; /* [docs] */
} part;
#define PART_CHUNK 64
/* Opens the log of (subject, task), with what a former run finished. */
lori_status part_open(part *p, const eval_subject *subject,
                      const eval_task *task, const eval_docs *docs,
                      const eval_options *options, lori_error *err);
lori_status part_append(part *p, const base_str *lines, int64_t n,
                        lori_error *err);
void part_close(part *p);

#endif
