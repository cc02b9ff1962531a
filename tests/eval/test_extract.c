/* test_extract.c - the answer in a text: the reference's rules on the vectors
 * of its specification (spec/eval.md 1.4, 7), and the rule's own parts. */
#include "eval_test.h"

TestSuite(extract, .init = here_begin, .fini = here_end);

/* The answer that the preset or task finds; NULL when none. malloc'd. */
static char *answer_of(const eval_task *task, const char *text)
{
    base_str out = {0};
    bool found;
    ok(eval_find_answer(task, text, strlen(text), &out, &found, err));
    if (found)
        return base_str_take(&out);
    cr_assert_eq(out.len, 0);
    base_str_free(&out);
    return NULL;
}

static void expect(const eval_task *task, const char *text, const char *want)
{
    char *got = answer_of(task, text);
    if (want)
        cr_assert_str_eq(got ? got : "(none)", want, "in '%s'", text);
    else
        cr_assert_null(got, "'%s' in '%s'", got, text);
    free(got);
}

static eval_task *preset(const char *name)
{
    eval_task *task = NULL;
    ok(eval_task_load(name, &task, err));
    return task;
}

Test(extract, gsm8k)
{
    static const struct {
        const char *text, *want;
        double number;
    } table[] = {
        {"q\nThe final answer is:  18", "18", 18},
        {"The final answer is: $1,234.50.", "1234.50", 1234.5},
        {"The final answer is: \n18 then 7", "18", 18},
        {"So 3-2", "-2", -2},
        {"The final answer is: 12 and The final answer is: 13", "12", 12},
        /* nothing between the markers: the last number of all */
        {"5 apples. The final answer is: none. The final answer is: 13", "13",
         13},
        {"Take 7 of 9. The final answer is: unknown", "9.", 9},
        /* without the blank it is no marker */
        {"The final answer is:\n18 then 7", "7", 7},
        {"16 - 3 - 4 = <<16-3-4=9>>9\n#### 1,018", "1018", 1018},
    };
    eval_task *task = preset("gsm8k");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char number[32];
        expect(task, table[i].text, table[i].want);
        base_f64_text(table[i].number, number);
        cr_assert(eval_same_answer(task, table[i].want, number), "%s",
                  table[i].text);
    }
    expect(task, "no number at all", NULL);
    cr_assert(eval_same_answer(task, "18", "18.0"));
    cr_assert(eval_same_answer(task, "18.", "18"));
    cr_assert_not(eval_same_answer(task, "18", "18.5"));
    cr_assert_not(eval_same_answer(task, "", ""));
    eval_task_free(task);
}

Test(extract, commonsense)
{
    static const char p[] = "### Response:";
    char text[256];
    eval_task *boolq = preset("boolq"), *arc = preset("arc-easy");
    snprintf(text, sizeof text, "true %s the correct answer is false", p);
    expect(boolq, text, "false"); /* the prompt's "true" is before it */
    snprintf(text, sizeof text, "%s false. %s I say true, not false", p, p);
    expect(boolq, text, "true"); /* behind the last one, the first hit */
    snprintf(text, sizeof text, "true %s none", p);
    expect(boolq, text, NULL);
    expect(boolq, "no marker: untrue", "true"); /* inside words, too */
    expect(boolq, "t,rue", "true");             /* commas go first */
    expect(boolq, "True", NULL);                /* case counts */
    expect(arc, "the correct answer is answer3", "answer3");
    expect(arc, "answer12", "answer1");
    expect(arc, "answer6", NULL);
    eval_task_free(boolq);
    eval_task_free(arc);
}

#define GENERATE                                                               \
    "task: t\noutput_type: generate_until\ntest_file: x\n"                     \
    "doc_to_text: q\ndoc_to_target: a\n"

Test(extract, parts_of_the_rule)
{
    eval_task *task = task_of(GENERATE);
    expect(task, " all of it ", " all of it ");
    cr_assert(eval_same_answer(task, " a b\n", "a b"));
    cr_assert_not(eval_same_answer(task, "a b", "a B"));
    eval_task_free(task);

    task = task_of(GENERATE "ignore_case: true\n"
                            "extract: {after_last: '=', remove: '$.'}\n");
    expect(task, "1=2=$3.", "3");
    cr_assert(eval_same_answer(task, "a b", "A B"));
    eval_task_free(task);

    /* a group is the answer; an empty hit does not stop the search */
    task = task_of(GENERATE "extract: {regex: 'x(\\d*)', take: last}\n");
    expect(task, "x1 x22 x", "");
    expect(task, "x1 x22", "22");
    eval_task_free(task);
    task = task_of(GENERATE "extract: {regex: 'z*', take: last}\n");
    expect(task, "zz\xc3\xa9", ""); /* walks over a character of two bytes */
    eval_task_free(task);
    task = task_of(GENERATE "extract: {regex: '(a)|(b)(c)|d'}\n");
    expect(task, "-bc", "bc"); /* the first group took no part */
    expect(task, "-a", "a");
    expect(task, "d", "d");
    eval_task_free(task);
}

Test(extract, matching_is_bounded)
{
    eval_task *task = task_of(GENERATE "extract: {regex: '(a+)+$'}\n");
    char text[200];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 'b';
    base_str out = {0};
    bool found;
    lori_error err;
    cr_assert_eq(eval_find_answer(task, text, sizeof text, &out, &found, &err),
                 LORI_UNSUPPORTED);
    cr_assert_not_null(
        strstr(err.message, "task.yaml: extract.regex: matching stopped"));
    base_str_free(&out);
    eval_task_free(task);
}

Test(extract, broken_text)
{
    /* a completion may end inside a character: what is whole is searched */
    eval_task *task = task_of(GENERATE "extract: {regex: '\\w+', take: last}");
    expect(task, "one two\xc3", "two");
    eval_task_free(task);
}
