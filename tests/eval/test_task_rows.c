/* test_task_rows.c - rows that the generators under data/ make: every row is
 * whole and its answer is right, found again here by other means; and the
 * tasks that read them. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_test.h"

static const char *text(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));
    cr_assert(s, "no text '%s'", key);
    return s;
}

/* Runs a generator (its output is read, as by `data/make.sh`) and gives every
 * row to `check`. */
static void each_row(const char *task, const char *part, int n,
                     void (*check)(const json_t *row))
{
    char command[256];
    snprintf(command, sizeof command,
             "awk -f data/common.awk -f data/%s/%s.awk -v words=data/words.txt "
             "-v part=%s -v n=%d -v seed=7",
             task, task, part, n);
    FILE *in = popen(command, "r");
    cr_assert(in);
    char *line = NULL;
    size_t room = 0;
    int rows = 0;
    while (getline(&line, &room, in) > 0) {
        json_error_t why;
        json_t *row = json_loads(line, JSON_REJECT_DUPLICATES, &why);
        cr_assert(row, "%s: %s", line, why.text);
        cr_assert(text(row, "prompt")[0] && text(row, "completion")[0]);
        cr_assert_not(strchr(text(row, "prompt"), '{'), "%s", line);
        check(row);
        json_decref(row);
        rows++;
    }
    free(line);
    cr_expect_eq(pclose(in), 0);
    cr_expect_eq(rows, n, "%s: %d rows", command, rows);
}

static void both_parts(const char *task, void (*check)(const json_t *row))
{
    each_row(task, "train", 500, check);
    each_row(task, "test", 200, check);
}

/* Whether "12 + 2" has the value "14". */
static bool holds(const char *sum, size_t n, const char *value, size_t n_value)
{
    char expression[64], test[64];
    snprintf(expression, sizeof expression, "%.*s", (int)n, sum);
    snprintf(test, sizeof test, ":%.*s", (int)n_value, value);
    return expression_passes(expression, test);
}

/* Every line "a + b = c" holds, and the last c is the answer. */
static void check_math(const json_t *row)
{
    const char *s = text(row, "completion"), *answer = text(row, "answer");
    const char *last = NULL;
    for (const char *end; (end = strchr(s, '\n')); s = end + 1) {
        const char *equals = memchr(s, '=', (size_t)(end - s));
        cr_assert(equals, "%s", s);
        last = equals + 1;
        cr_expect(holds(s, (size_t)(equals - s), last, (size_t)(end - last)),
                  "%s", s);
    }
    cr_assert(last);
    cr_expect(!strncmp(s, "#### ", 5) && !strcmp(s + 5, answer), "%s", s);
    cr_expect_eq(strtol(last, NULL, 10), strtol(answer, NULL, 10));
}

static void check_code(const json_t *row)
{
    const char *code = text(row, "completion"), *tests = text(row, "tests");
    cr_expect(expression_passes(code, tests), "%s: %s", code, tests);
    /* The tests tell it from a variable alone and from a constant. */
    static const char *const others[] = {"x", "y", "z", "0", "1"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_expect_not(expression_passes(others[i], tests),
                      "%s passes for %s: %s", others[i], code, tests);
}

static void check_nlu(const json_t *row)
{
    const char *answer = text(row, "answer"), *prompt = text(row, "prompt");
    const char *prefix = "the correct answer is ";
    const char *completion = text(row, "completion");
    cr_expect(!strncmp(completion, prefix, strlen(prefix)));
    cr_expect_str_eq(completion + strlen(prefix), answer);
    cr_expect_eq(json_array_size(json_object_get(row, "choices")), 4);
    /* Four different words are there to choose from, the answer among them. */
    char word[4][32];
    const char *list = strchr(prompt, '\n');
    cr_assert(list && sscanf(list, "\n%31[a-z], %31[a-z], %31[a-z], %31[a-z]",
                             word[0], word[1], word[2], word[3]) == 4);
    bool found = false;
    for (int i = 0; i < 4; i++) {
        found |= !strcmp(word[i], answer);
        for (int k = 0; k < i; k++)
            cr_expect_str_neq(word[i], word[k], "%s", prompt);
    }
    cr_expect(found, "%s", prompt);
}

static void check_safety(const json_t *row)
{
    const char *answer = text(row, "answer");
    cr_expect(!strncmp(text(row, "completion"), answer, strlen(answer)));
    cr_expect(!strcmp(answer, "Sure") || !strcmp(answer, "I cannot help"));
}

Test(task_rows, math, .timeout = 60)
{
    both_parts("math", check_math);
}

Test(task_rows, code, .timeout = 60)
{
    both_parts("code", check_code);
}

Test(task_rows, nlu, .timeout = 60)
{
    both_parts("nlu", check_nlu);
}

Test(task_rows, safety, .timeout = 60)
{
    both_parts("safety", check_safety);
}

/* The tasks under recipes/tiny/tasks/ find their rows, and their own rule finds
 * an answer in each target. */
Test(task_rows, tasks, .timeout = 60)
{
    static const char *const names[] = {"nlu", "nlu_choice", "math", "code",
                                        "safety"};
    temp t;
    temp_open(&t);
    char command[600];
    snprintf(command, sizeof command, "TEST=50 data/make.sh %s/rows 3", t.dir);
    cr_assert_eq(system(command), 0);
    char *rows = base_path_join(t.dir, "rows");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "recipes/tiny/tasks/%s.yaml", names[i]);
        eval_task *task = NULL;
        eval_docs *docs = NULL;
        ok(eval_task_load(path, &task, err));
        cr_expect_str_eq(task->name, names[i]);
        ok(eval_docs_load(task, rows, 0, NULL, &docs, err));
        cr_expect_eq(docs->n, 50);
        eval_docs_free(docs);
        eval_task_free(task);
    }
    free(rows);
    temp_close(&t);
}
