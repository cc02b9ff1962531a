/* eval_test.h - what the evaluation tests share: temporary folders, a tiny
 * random model with a tokenizer of single ASCII characters, tasks from text. */
#ifndef TESTS_EVAL_EVAL_TEST_H
#define TESTS_EVAL_EVAL_TEST_H

#include "eval/eval_i.h"
#include "format/temp.h"
#include "model/tiny_model.h"

#define ok(expr)                                                               \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        lori_status got_ = (expr);                                             \
        cr_assert_eq(got_, LORI_OK, "status %d: %s", (int)got_, e_.message);   \
    } while (0)

/* The call fails with `status` and exactly this message. */
#define says(expr, status_, text)                                              \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        lori_status got_ = (expr);                                             \
        cr_assert_eq(got_, (status_), "status %d: %s", (int)got_, e_.message); \
        cr_assert_str_eq(e_.message, (text));                                  \
    } while (0)

/* A fresh folder as the current one: paths in messages are short. */
extern temp here;
void here_begin(void);
void here_end(void);
void put(const char *path, const char *text);
char *slurp(const char *path); /* free() it */

/* Writes task.yaml and loads it. */
eval_task *task_of(const char *yaml);
eval_docs *docs_of(const eval_task *task);

/* A tiny model of vocabulary 98 with a tokenizer: "<s>" 0, "</s>" 1, then
 * '!' .. '~', blank, line feed; "<s>" before every text. */
typedef struct bench {
    tiny t;
    infer_engine *engine;
    text_tokenizer *tok;
    eval_subject subject;
} bench;
bench bench_open(void);
void bench_close(bench *b);

#endif
