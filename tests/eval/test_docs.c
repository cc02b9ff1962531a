/* test_docs.c - rows become documents: few-shot examples, choices, the right
 * choice, and what is said about wrong rows and missing files. */
#include "eval_test.h"

TestSuite(docs, .init = here_begin, .fini = here_end);

#define CHOICE                                                                 \
    "task: t\noutput_type: multiple_choice\ntest_file: rows.jsonl\n"           \
    "doc_to_text: 'Q: {{q}}'\n"

Test(docs, choices_of_every_form)
{
    /* an integer is an index; a text is looked up; digits come last */
    put("rows.jsonl",
        "{\"q\": \"one\", \"o\": {\"text\": [\"1\", \"0\"]}, \"a\": 0}\n"
        "{\"q\": \"two\", \"o\": {\"text\": [\"1\", \"0\"]}, \"a\": \"0\"}\n"
        "{\"q\": 3.5, \"o\": {\"text\": [\"x\", \"y\", \"z\"]}, \"a\": "
        "\"2\"}\n");
    eval_task *t = task_of(CHOICE "doc_to_choice: '{{o.text}}'\n"
                                  "doc_to_target: '{{a}}'\n");
    eval_docs *docs = docs_of(t);
    cr_assert_eq(docs->n, 3);
    cr_assert_str_eq(docs->doc[0].prompt, "Q: one");
    cr_assert_eq(docs->doc[0].gold, 0);
    cr_assert_eq(docs->doc[1].gold, 1);
    cr_assert_eq(docs->doc[2].gold, 2);
    cr_assert_eq(docs->doc[2].n_choices, 3);
    cr_assert_str_eq(docs->doc[2].prompt, "Q: 3.5");
    eval_docs_free(docs);
    eval_task_free(t);
}

Test(docs, few_shot_and_limit)
{
    put("rows.jsonl", "[{\"q\": \"4?\", \"a\": \"d\", \"w\": \"no\"},"
                      " {\"q\": \"5?\", \"a\": \"e\", \"w\": \"no\"}]");
    put("shots.jsonl", "{\"q\": \"1?\", \"a\": \"a\", \"w\": \"no\"}\n"
                       "{\"q\": \"2?\", \"a\": \"b\", \"w\": \"no\"}\n"
                       "{\"q\": \"3?\", \"a\": \"c\", \"w\": \"no\"}\n");
    eval_task *t = task_of(CHOICE "doc_to_choice: ['{{w}}', '{{a}}']\n"
                                  "doc_to_target: '{{a}}'\nlimit: 1\n"
                                  "fewshot_file: shots.jsonl\nnum_fewshot: 2\n"
                                  "target_delimiter: ' = '\n"
                                  "fewshot_delimiter: \"\\n\"\n");
    eval_docs *docs = docs_of(t);
    cr_assert_eq(docs->n, 1);
    cr_assert_str_eq(docs->doc[0].prompt, "Q: 1? = a\nQ: 2? = b\nQ: 4?");
    cr_assert_eq(docs->doc[0].gold, 1);
    eval_docs_free(docs);
    ok(eval_docs_load(t, NULL, 2, NULL, &docs, err));
    cr_assert_eq(docs->n, 2); /* --limit beats the task's */
    eval_docs_free(docs);
    eval_task_free(t);
}

static lori_status load(const eval_task *t, const char *data_dir,
                        lori_error *err)
{
    eval_docs *docs = NULL;
    lori_status st = eval_docs_load(t, data_dir, 0, NULL, &docs, err);
    cr_assert_eq(docs == NULL, st != LORI_OK);
    eval_docs_free(docs);
    return st;
}

Test(docs, wrong_rows_are_collected)
{
    put("rows.jsonl", "{\"q\": \"fine\", \"a\": \"x\"}\n"
                      "{\"question\": \"q\", \"a\": \"x\"}\n"
                      "{\"q\": [1], \"a\": \"x\"}\n"
                      "{\"q\": \"\\u0000\", \"a\": \"x\"}\n"
                      "{\"q\": \"gold\", \"a\": \"z\"}\n");
    eval_task *t = task_of(CHOICE "doc_to_choice: [x, y]\n"
                                  "doc_to_target: '{{a}}'\n");
    says(load(t, NULL, err), LORI_FORMAT,
         "./rows.jsonl:2: field 'q' is missing (row has: question, a)\n"
         "./rows.jsonl:3: field 'q' is a list, a text or a number is needed "
         "here\n"
         "./rows.jsonl:4: field 'q' holds a NUL character\n"
         "./rows.jsonl:5: target 'z' is none of the 2 choices, nor the number "
         "of one (from 0)");
    eval_task_free(t);
}

Test(docs, wrong_choice_fields)
{
    put("rows.jsonl", "{\"q\": \"a\", \"o\": \"x\", \"a\": 0}\n"
                      "{\"q\": \"b\", \"o\": [\"x\"], \"a\": 0}\n"
                      "{\"q\": \"c\", \"o\": [\"x\", 2], \"a\": 0}\n"
                      "{\"q\": \"d\", \"a\": 0}\n");
    eval_task *t = task_of(CHOICE "doc_to_choice: '{{o}}'\n"
                                  "doc_to_target: '{{a}}'\n");
    says(load(t, NULL, err), LORI_FORMAT,
         "./rows.jsonl:1: field 'o' is a string, a list of two or more texts "
         "is needed\n"
         "./rows.jsonl:2: field 'o' is too short a list, a list of two or more "
         "texts is needed\n"
         "./rows.jsonl:3: choice 2 of 'o' is an integer, not a text\n"
         "./rows.jsonl:4: field 'o' is nothing, a list of two or more texts is "
         "needed");
    eval_task_free(t);
}

Test(docs, missing_files)
{
    eval_task *t = NULL;
    ok(eval_task_load("boolq", &t, err));
    says(load(t, NULL, err), LORI_INVALID,
         "preset boolq: its rows are the file commonsense/boolq.test.json of a "
         "data folder: name that folder with --data-dir");
    says(load(t, "nowhere", err), LORI_NOT_FOUND,
         "preset boolq: data file 'commonsense/boolq.test.json' is not in "
         "nowhere");
    eval_task_free(t);
    t = task_of(CHOICE "doc_to_choice: [x, y]\ndoc_to_target: x\n");
    says(load(t, "nowhere", err), LORI_NOT_FOUND,
         "task.yaml: data file 'rows.jsonl' is not in . and not in nowhere");
    ok(base_mkdirs("somewhere", err));
    put("somewhere/rows.jsonl", "{\"q\": \"a\"}\n");
    ok(load(t, "somewhere", err));
    put("rows.jsonl", "\n");
    says(load(t, NULL, err), LORI_INVALID, "./rows.jsonl: has no rows");
    eval_task_free(t);
    t = task_of(CHOICE "doc_to_choice: [x, y]\ndoc_to_target: x\n"
                       "num_fewshot: 2\nfewshot_file: somewhere/rows.jsonl\n");
    says(load(t, NULL, err), LORI_INVALID,
         "task.yaml: num_fewshot is 2, but ./somewhere/rows.jsonl has 1 rows");
    eval_task_free(t);
}

static int warned;
static void on_log(void *context, lori_log_level level, const char *line)
{
    (void)context;
    cr_assert_eq(level, LORI_LOG_WARNING);
    cr_assert_str_eq(line,
                     "task.yaml: extract finds no answer in 1 of 2 targets "
                     "(the first is ./rows.jsonl:2): they count as wrong");
    warned++;
}

Test(docs, targets_without_an_answer)
{
    const lori_ui ui = {.log = on_log};
    eval_docs *docs = NULL;
    eval_task *t = task_of("task: t\noutput_type: generate_until\n"
                           "test_file: rows.jsonl\ndoc_to_text: q\n"
                           "doc_to_target: '{{a}}'\nextract: {regex: '\\d'}\n");
    put("rows.jsonl", "{\"a\": \"7\"}\n{\"a\": \"none\"}\n");
    ok(eval_docs_load(t, NULL, 0, &ui, &docs, err));
    cr_assert_eq(warned, 1);
    eval_docs_free(docs);
    put("rows.jsonl", "{\"a\": \"no\"}\n");
    says(load(t, NULL, err), LORI_INVALID,
         "task.yaml: extract finds no answer in any target of ./rows.jsonl; "
         "what it finds in a completion could never be right");
    eval_task_free(t);
}
