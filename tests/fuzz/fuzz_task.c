/* fuzz_task.c - a task file, up to a blank line, and behind it a text that its
 * rule looks for an answer in; the text is an expression and a list of tests,
 * too. */
#include "fuzz/fuzz.h"

#include <stdlib.h>

#include "eval/eval_i.h"

static void answer(const eval_task *task, const char *text)
{
    base_str out = {0};
    bool found = false;
    lori_error err = {0};
    if (eval_find_answer(task, text, strlen(text), &out, &found, &err))
        FUZZ_CHECK(!found && err.message[0]);
    FUZZ_CHECK(out.len <= strlen(text) && (found || out.len == 0));
    base_str_free(&out);
}

int fuzz_task(const uint8_t *data, size_t n)
{
    if (n > 4096) /* patterns are bounded a match, texts by their length */
        return 0;
    char *text = base_strndup((const char *)data, n);
    char *blank = text ? strstr(text, "\n\n") : NULL;
    size_t head = blank ? (size_t)(blank - text) + 1 : text ? strlen(text) : 0;
    const char *rest = blank ? blank + 2 : "";
    eval_task *task = NULL;
    lori_error err = {0};
    if (text && task_parse(text, head, "fuzz", &task, &err))
        FUZZ_CHECK(!task && err.message[0]);
    if (task) {
        FUZZ_CHECK(task->name && task->test_file && task->n_metrics > 0);
        if (task->kind == EVAL_GENERATE)
            answer(task, rest);
    }
    bool passes = text && expression_passes(rest, rest);
    FUZZ_CHECK(!passes || expression_tests_good(rest));
    expression_passes(rest, "x=3 y=-7 z=2: 1");
    eval_task_free(task);
    free(text);
    return 0;
}

FUZZ_TARGET(fuzz_task)
