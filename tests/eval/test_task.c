/* test_task.c - task files: presets byte for byte, and what is said about wrong
 * ones. */
#include "eval_test.h"
#include "sha256.h"

TestSuite(task, .init = here_begin, .fini = here_end);

static void digest_of(const char *template_, const char *field, char hex[65])
{
    json_t *row = json_pack("{ss}", field, "X");
    base_str text = {0};
    base_diag d = {0};
    cr_assert(template_fill(template_, row, "row", &text, &d));
    sha256_of(text.s, text.len, hex);
    json_decref(row);
    base_str_free(&text);
}

/* Lengths and hashes of spec/eval.md 1.1, computed from the reference. */
Test(task, preset_prompts)
{
    static const char *const names[] = {
        "boolq",    "piqa",       "social_i_qa", "arc-challenge",
        "arc-easy", "openbookqa", "hellaswag",   "winogrande"};
    char hex[65];
    eval_task *task = NULL;
    for (int i = 0; i < 8; i++) {
        ok(eval_task_load(names[i], &task, err));
        digest_of(task->doc_to_text, "instruction", hex);
        cr_assert_eq(strncmp(hex, "2e1e7b605dba01bc", 16), 0, "%s: %s",
                     names[i], hex);
        cr_assert(task->judge_prompt && !task->add_special_tokens);
        cr_assert_eq(task->max_new_tokens, 512);
        eval_task_free(task);
    }
    ok(eval_task_load("gsm8k", &task, err));
    digest_of(task->doc_to_text, "question", hex);
    cr_assert_eq(strncmp(hex, "5f3146f566f29c41", 16), 0, "%s", hex);
    eval_task_free(task);
}

Test(task, a_preset_is_the_file_it_prints)
{
    base_str text = {0};
    eval_task *preset = NULL;
    ok(eval_preset_text("gsm8k", &text, err));
    ok(eval_task_load("gsm8k", &preset, err));
    eval_task *file = task_of(text.s);
    cr_assert(json_equal(preset->config, file->config));
    cr_assert_str_eq(preset->extract.regex, file->extract.regex);
    eval_task_free(preset);
    eval_task_free(file);
    base_str_free(&text);
}

Test(task, defaults)
{
    eval_task *t = task_of("task: t\noutput_type: multiple_choice\n"
                           "test_file: rows.jsonl\ndoc_to_text: '{{q}}'\n"
                           "doc_to_choice: '{{ options }}'\n"
                           "doc_to_target: '{{label}}'\n");
    cr_assert_str_eq(t->target_delimiter, " ");
    cr_assert_str_eq(t->fewshot_delimiter, "\n\n");
    cr_assert(t->add_special_tokens && t->choices_are_field);
    cr_assert_str_eq(t->doc_to_choice[0], "options");
    cr_assert_eq(t->n_metrics, 3);
    cr_assert_str_eq(t->metrics[0], "acc");
    cr_assert_str_eq(t->folder, ".");
    eval_task_free(t);
}

static lori_status load(const char *yaml, lori_error *err)
{
    eval_task *task = NULL;
    put("bad.yaml", yaml);
    lori_status st = eval_task_load("bad.yaml", &task, err);
    cr_assert_eq(task == NULL, st != LORI_OK);
    eval_task_free(task);
    return st;
}

Test(task, every_error_at_once)
{
    says(
        load("task: a/b\n"
             "output_typ: generate_until\n"
             "output_type: generate_until\n"
             "test_file: [x]\n"
             "doc_to_text: '{{q'\n"
             "doc_to_target: '{{q|trim}}'\n"
             "max_new_tokens: many\n"
             "temperature: -1\n"
             "doc_to_choice: [a, b]\n"
             "extract:\n"
             "  regex: '(a'\n"
             "  take: lats\n"
             "metric_list: [acc]\n"
             "num_fewshot: 3\n"
             "judged_text: prompt\n"
             "until: ['']\n",
             err),
        LORI_INVALID,
        "bad.yaml:2:1: unknown key 'output_typ'; did you mean 'output_type'?\n"
        "bad.yaml:4:12: test_file: expected one value, not a list\n"
        "bad.yaml:7:17: max_new_tokens: expected a whole number\n"
        "bad.yaml:8:14: temperature: '-1' is not between 0 and 100\n"
        "bad.yaml:15:14: judged_text: 'prompt' is not known; known are "
        "completion, prompt_and_completion\n"
        "bad.yaml:9:16: doc_to_choice: has no meaning with output_type: "
        "generate_until\n"
        "bad.yaml:12:9: take: 'lats' is not known; did you mean 'last'?\n"
        "bad.yaml:11:10: extract.regex: missing closing parenthesis (character "
        "3 of the pattern)\n"
        "bad.yaml:14:14: num_fewshot: needs a fewshot_file\n"
        "bad.yaml:16:8: until: an empty text would stop everything\n"
        "bad.yaml:1:7: task: names a file of results: no '/', no '.' in "
        "front\n"
        "bad.yaml:5:14: doc_to_text: a '{{' has no '}}'\n"
        "bad.yaml:6:16: doc_to_target: only the name of a field can stand in "
        "{{ }}, no expression\n"
        "bad.yaml:13:14: metric_list: 'acc' is no metric of this output_type, "
        "which has exact_match");
}

Test(task, missing_keys)
{
    says(load("output_type: multiple_choice\n", err), LORI_INVALID,
         "bad.yaml:1: task is missing\n"
         "bad.yaml:1: test_file is missing\n"
         "bad.yaml:1: doc_to_target is missing\n"
         "bad.yaml:1: doc_to_choice is missing\n"
         "bad.yaml:1: doc_to_text is missing");
    says(load("- a\n", err), LORI_INVALID,
         "bad.yaml:1:1: expected a map of keys, like task: ...");
    says(load("task: t\noutput_type: multiple_choice\ntest_file: x\n"
              "doc_to_text: q\ndoc_to_target: a\ndoc_to_choice: '{{a}} b'\n",
              err),
         LORI_INVALID,
         "bad.yaml:6:16: doc_to_choice: expected a list of two or more texts, "
         "or \"{{field}}\" for a field that holds such a list");
}

Test(task, no_such_task)
{
    eval_task *task = NULL;
    says(eval_task_load("gsm8", &task, err), LORI_INVALID,
         "task 'gsm8' is neither a file nor a preset; did you mean 'gsm8k'?");
    says(eval_task_load("nothing.yaml", &task, err), LORI_NOT_FOUND,
         "cannot open 'nothing.yaml': No such file or directory");
}
