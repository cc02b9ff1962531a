/* test_dataset.c - rows of every form, what they become, and what is said
 * about wrong ones. */
#include "train/train_i.h"
#include "train_test.h"

TestSuite(dataset, .init = temp_begin, .fini = temp_end);

static const train_data_options plain = {.max_seq_length = 64,
                                         .completion_only_loss = true};

/* A byte-level tokenizer of single ASCII characters: ids 0 "<s>", 1 "</s>",
 * then '!' .. '~', blank, line feed. BOS before every text, and EOS after it
 * when `suffix`: that one must not stand between prompt and completion. */
static text_tokenizer *tokenizer(bool suffix)
{
    base_str s = {0};
    base_str_puts(&s, "{\"version\": \"1.0\", \"added_tokens\": ["
                      "{\"id\": 0, \"content\": \"<s>\", \"special\": true, "
                      "\"single_word\": false, \"lstrip\": false, \"rstrip\": "
                      "false, \"normalized\": false}, "
                      "{\"id\": 1, \"content\": \"</s>\", \"special\": true, "
                      "\"single_word\": false, \"lstrip\": false, \"rstrip\": "
                      "false, \"normalized\": false}], "
                      "\"normalizer\": null, \"pre_tokenizer\": {\"type\": "
                      "\"ByteLevel\", \"add_prefix_space\": false, "
                      "\"trim_offsets\": true, \"use_regex\": true}, "
                      "\"post_processor\": {\"type\": \"TemplateProcessing\", "
                      "\"single\": [{\"SpecialToken\": {\"id\": \"<s>\", "
                      "\"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
                      "\"type_id\": 0}}");
    if (suffix)
        base_str_puts(&s, ", {\"SpecialToken\": {\"id\": \"</s>\", "
                          "\"type_id\": 0}}");
    base_str_puts(&s,
                  "], \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": "
                  "0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], "
                  "\"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": "
                  "[0], \"tokens\": [\"<s>\"]}, \"</s>\": {\"id\": \"</s>\", "
                  "\"ids\": [1], \"tokens\": [\"</s>\"]}}}, "
                  "\"decoder\": {\"type\": \"ByteLevel\", "
                  "\"add_prefix_space\": true, \"trim_offsets\": true, "
                  "\"use_regex\": true}, \"model\": {\"type\": \"BPE\", "
                  "\"dropout\": null, \"unk_token\": null, "
                  "\"continuing_subword_prefix\": null, "
                  "\"end_of_word_suffix\": null, \"fuse_unk\": false, "
                  "\"byte_fallback\": false, \"merges\": [], \"vocab\": {"
                  "\"<s>\": 0, \"</s>\": 1");
    for (int c = '!'; c <= '~'; c++)
        base_str_printf(&s, ", \"%s%c\": %d", c == '"' || c == '\\' ? "\\" : "",
                        c, c - '!' + 2);
    base_str_puts(&s, ", \"\xc4\xa0\": 96, \"\xc4\x8a\": 97}}}");
    ok(base_mkdirs("tok", err));
    put("tok/tokenizer.json", s.s);
    put("tok/tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}");
    base_str_free(&s);
    text_tokenizer *tok = NULL;
    ok(text_tokenizer_open("tok", &tok, err));
    return tok;
}

static train_data *load(const char *text, const text_tokenizer *tok,
                        const train_data_options *o)
{
    train_data *data = NULL;
    put("rows.jsonl", text);
    ok(train_data_load("rows.jsonl", tok, o, 98, NULL, &data, err));
    return data;
}

#define rejects(text, tok, o, message)                                         \
    do {                                                                       \
        train_data *data_ = (train_data *)1;                                   \
        put("rows.jsonl", text);                                               \
        says(train_data_load("rows.jsonl", tok, o, 98, NULL, &data_, err),     \
             LORI_FORMAT, message);                                            \
        cr_assert_null(data_);                                                 \
    } while (0)

Test(dataset, token_rows)
{
    train_data *d = load("{\"input_ids\": [5, 6, 7], \"labels\": [5, -100, 7]}"
                         "\n\n{\"input_ids\": [8, 9], \"labels\": [-100, -100]}"
                         "\n{\"labels\": [9, 3], \"input_ids\": [9, 3]}\n",
                         NULL, &plain);
    cr_assert_eq(d->n_rows, 2);
    cr_assert_eq(d->n_tokens, 5);
    cr_assert_eq(d->n_targets, 2); /* the first token never is one */
    cr_assert_eq(d->n_dropped, 1);
    cr_assert_eq(d->start[1], 3);
    cr_assert_eq(d->start[2], 5);
    cr_assert_arr_eq(d->ids, ((int32_t[]){5, 6, 7, 9, 3}), 5 * 4);
    cr_assert_arr_eq(d->label, ((uint8_t[]){0, 0, 1, 0, 1}), 5);
    train_data_free(d);
    /* An array, fewer rows than there are, cut rows. */
    train_data_options few = plain;
    few.max_samples = 2;
    few.max_seq_length = 3;
    d = load("[{\"input_ids\": [1, 2, 3, 4], \"labels\": [1, 2, 3, 4]},"
             " {\"input_ids\": [1, 2], \"labels\": [1, 2]}, {\"x\": 1}]",
             NULL, &few);
    cr_assert_eq(d->n_rows, 2);
    cr_assert_eq(d->n_truncated, 1);
    cr_assert_eq(d->n_targets, 3);
    train_data_free(d);
    /* Without labels every token is predicted, when that was asked for. */
    few.completion_only_loss = false;
    d = load("{\"input_ids\": [1, 2, 3]}", NULL, &few);
    cr_assert_eq(d->n_targets, 2);
    train_data_free(d);
}

Test(dataset, text_rows)
{
    for (int suffix = 0; suffix < 2; suffix++) {
        text_tokenizer *tok = tokenizer(suffix);
        train_data *d =
            load("{\"prompt\": \"ab \", \"completion\": \"c\"}", tok, &plain);
        int32_t want[] = {0, 'a' - 31, 'b' - 31, 96, 'c' - 31, 1};
        cr_assert_eq(d->n_tokens, 6);
        cr_assert_arr_eq(d->ids, want, sizeof want);
        cr_assert_arr_eq(d->label, ((uint8_t[]){0, 0, 0, 0, 1, 1}), 6);
        train_data_free(d);
        text_tokenizer_close(tok);
    }
    text_tokenizer *tok = tokenizer(false);
    train_data_options o = plain;
    o.completion_only_loss = false;
    train_data *d =
        load("{\"prompt\": \"ab\", \"completion\": \"c\"}", tok, &o);
    cr_assert_arr_eq(d->label, ((uint8_t[]){0, 1, 1, 1, 1}), 5);
    train_data_free(d);
    /* The cut takes the end; a row that is all prompt then has no target. */
    o = plain;
    o.max_seq_length = 4;
    d = load("{\"prompt\": \"ab\", \"completion\": \"cde\"}\n"
             "{\"prompt\": \"abcd\", \"completion\": \"e\"}",
             tok, &o);
    cr_assert_eq(d->n_rows, 1);
    cr_assert_eq(d->n_truncated, 2);
    cr_assert_eq(d->n_dropped, 1);
    cr_assert_eq(d->n_targets, 1);
    train_data_free(d);
    text_tokenizer_close(tok);
}

static void check_texts(const char *row, const train_data_options *o,
                        const char *prompt, const char *completion)
{
    train_text_row *rows;
    int64_t n;
    put("rows.jsonl", row);
    ok(train_texts_load("rows.jsonl", o, &rows, &n, err));
    cr_assert_eq(n, 1);
    cr_assert_str_eq(rows[0].prompt, prompt);
    cr_assert_str_eq(rows[0].completion, completion);
    train_texts_free(rows, n);
}

Test(dataset, forms)
{
    check_texts("{\"question\": \"q\", \"answer\": \"a\"}", &plain, "q\n", "a");
    check_texts("{\"prompt\": \"q\", \"completion\": \"a\"}", &plain, "q", "a");
    const char *no_input =
        "Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\nAdd "
        "{input}.\n\n### Response:\n";
    check_texts("{\"instruction\": \"Add {input}.\", \"output\": \"o\"}",
                &plain, no_input, "o");
    check_texts("{\"instruction\": \"Add {input}.\", \"input\": \"\", "
                "\"output\": \"o\"}",
                &plain, no_input, "o");
    const char *with_input =
        "Below is an instruction that describes a task, paired with an input "
        "that provides further context. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2"
        "\n\n### Response:\n";
    check_texts("{\"instruction\": \"Add.\", \"input\": \"1 2\", \"output\": "
                "\"3\"}",
                &plain, with_input, "3");
    train_data_options o = plain;
    o.columns = (train_columns){.instruction = (char *)"task",
                                .output = (char *)"result"};
    check_texts("{\"task\": \"Add.\", \"input\": \"1 2\", \"result\": \"3\"}",
                &o, with_input, "3");
    o.columns =
        (train_columns){.prompt = (char *)"q", .completion = (char *)"a"};
    check_texts("{\"q\": \"x\", \"a\": \"y\", \"prompt\": 3}", &o, "x", "y");
    o.prompt_template = "{{{q}}} {b}\n";
    check_texts("{\"q\": \"x\", \"a\": \"y\", \"b\": \"{z}\"}", &o, "{x} {z}\n",
                "y");
}

/* As messages prompts have no frame but the template's; no BOS before it. */
Test(dataset, chat_turns)
{
    static const struct {
        const char *row, *words;
    } cases[] = {{"{\"question\": \"q\", \"answer\": \"a\"}", "q"},
                 {"{\"prompt\": \"q\", \"completion\": \"a\"}", "q"},
                 {"{\"instruction\": \"q\", \"output\": \"a\"}", "q"},
                 {"{\"instruction\": \"q\", \"input\": \"r\", \"output\": "
                  "\"a\"}",
                  "q\n\nr"}};
    text_tokenizer *tok = tokenizer(false);
    train_data_options o = plain;
    o.apply_chat_template = true;
    o.chat_template = "turn.jinja";
    o.max_seq_length = 512;
    put("turn.jinja", "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% "
                      "endfor %}{% if add_generation_prompt %}[reply:{% endif "
                      "%}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        train_data *d = load(cases[i].row, tok, &o);
        char want[64];
        text_ids ids = {0};
        snprintf(want, sizeof want, "[user:%s][reply:a", cases[i].words);
        ok(text_encode(tok, want, strlen(want), 0, &ids, err));
        cr_assert_eq(d->n_tokens, (int64_t)ids.n + 1); /* and EOS */
        cr_assert_arr_eq(d->ids, ids.ids, ids.n * sizeof *ids.ids);
        cr_assert_eq(d->n_targets, 2);
        cr_assert(d->label[ids.n - 1] && d->label[ids.n]);
        text_ids_free(&ids);
        train_data_free(d);
    }
    o.chat_template = NULL;
    train_data *none = NULL;
    fails(train_data_load("rows.jsonl", tok, &o, 98, NULL, &none, err),
          LORI_NOT_FOUND, "apply_chat_template");
    text_tokenizer_close(tok);
}

Test(dataset, wrong_rows_of_text)
{
    text_tokenizer *tok = tokenizer(false);
    rejects("{\"instruction\": \"a\", \"input\": \"\"}\n", tok, &plain,
            "rows.jsonl:1: field 'output' is missing (row has: instruction, "
            "input)");
    rejects("{\"prompt\": \"a\", \"completion\": \"b\"}\n"
            "{\"prompt\": \"a\", \"response\": \"b\"}\n"
            "{\"prompt\": 7, \"completion\": \"b\"}\n"
            "{\"prompt\": \"a\", \"completion\": null}\n",
            tok, &plain,
            "rows.jsonl:2: field 'completion' is missing (row has: prompt, "
            "response)\n"
            "rows.jsonl:3: field 'prompt' is an integer, a string is needed\n"
            "rows.jsonl:4: field 'completion' is null, a string is needed");
    rejects("{\"text\": \"a\"}", tok, &plain,
            "rows.jsonl:1: no known form of rows (row has: text); known are "
            "instruction/output, prompt/completion, question/answer and "
            "input_ids/labels: set columns.prompt and columns.completion");
    train_data_options o = plain;
    o.prompt_template = "{prompt} {context}";
    rejects("{\"prompt\": \"a\", \"completion\": \"b\"}", tok, &o,
            "rows.jsonl:1: field 'context' is missing (row has: prompt, "
            "completion)");
    o.prompt_template = "{prompt";
    rejects("{\"prompt\": \"a\", \"completion\": \"b\"}", tok, &o,
            "rows.jsonl:1: a '{' has no '}'; write {{ for a brace");
    const char *empty = "rows.jsonl: the dataset has no rows; it takes JSON "
                        "Lines, an object a line, or a JSON array of objects";
    rejects("", tok, &plain, empty);
    rejects("[]", tok, &plain, empty);
    o = plain;
    o.max_seq_length = 3;
    rejects("{\"prompt\": \"abcd\", \"completion\": \"b\"}", tok, &o,
            "rows.jsonl: none of 1 rows has a token to predict within "
            "max_seq_length 3");
    train_data *data;
    put("rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}");
    says(train_data_load("rows.jsonl", tok, &plain, 60, NULL, &data, err),
         LORI_FORMAT,
         "rows.jsonl:1: the tokenizer makes token 66, but the model's "
         "vocabulary has 60: they do not belong together");
    fails(train_data_load("rows.jsonl", NULL, &plain, 98, NULL, &data, err),
          LORI_MISMATCH, "rows.jsonl:1: rows of text need a tokenizer");
    fails(train_data_load("none.jsonl", tok, &plain, 98, NULL, &data, err),
          LORI_NOT_FOUND, "none.jsonl");
    text_tokenizer_close(tok);
}

Test(dataset, wrong_rows_of_tokens)
{
    rejects("{\"input_ids\": [1, 2]}", NULL, &plain,
            "rows.jsonl:1: field 'labels' is missing (row has: input_ids)");
    rejects("{\"input_ids\": 3, \"labels\": []}", NULL, &plain,
            "rows.jsonl:1: field 'input_ids' is not a list");
    rejects("{\"input_ids\": [1, 2], \"labels\": [1]}", NULL, &plain,
            "rows.jsonl:1: 1 labels for 2 input_ids");
    rejects("{\"input_ids\": [1, 98], \"labels\": [1, 98]}", NULL, &plain,
            "rows.jsonl:1: input_ids[1] is 98, outside the vocabulary of 98");
    rejects("{\"input_ids\": [1, 2.5], \"labels\": [1, 2]}", NULL, &plain,
            "rows.jsonl:1: input_ids[1] is not a whole number");
    rejects("{\"input_ids\": [1, 2], \"labels\": [1, 3]}", NULL, &plain,
            "rows.jsonl:1: labels[1] is 3; -100 or the token itself, 2, is "
            "possible");
    /* Many wrong rows: the first of them, and how many more. */
    base_str s = {0};
    for (int i = 0; i < 20; i++)
        base_str_puts(&s, "{\"input_ids\": [1], \"labels\": []}\n");
    train_data *data;
    put("rows.jsonl", s.s);
    fails(train_data_load("rows.jsonl", NULL, &plain, 98, NULL, &data, err),
          LORI_FORMAT,
          "rows.jsonl:8: 0 labels for 1 input_ids\n... and 12 "
          "more");
    base_str_free(&s);
    /* Wrong rows before a line that is no JSON are told too. */
    put("rows.jsonl", "{\"input_ids\": [1], \"labels\": []}\n{\"in");
    fails(train_data_load("rows.jsonl", NULL, &plain, 98, NULL, &data, err),
          LORI_FORMAT, "rows.jsonl:1: 0 labels for 1 input_ids\nrows.jsonl:2");
}

static int yes(void *context)
{
    (void)context;
    return 1;
}

Test(dataset, interruption)
{
    lori_ui ui = {.interrupted = yes};
    train_data *data;
    put("rows.jsonl", "{\"input_ids\": [1, 2], \"labels\": [1, 2]}");
    fails(train_data_load("rows.jsonl", NULL, &plain, 98, &ui, &data, err),
          LORI_INTERRUPTED, "interrupted");
}
