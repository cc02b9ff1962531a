/* test_text_chat.c - which chat template is taken, what it is given, and the
 * errors of users and of templates; test_text_templates.c has the language. */
#include <sys/stat.h>

#include "base/base.h"
#include "text/text_test.h"

#define NAMES "\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}"

/* A model folder of a test's own; NULL parts are not written. */
typedef struct folder {
    const char *config, *file,
        *extra; /* extra: additional template "tool_use" */
} folder;

static lori_status open_chat(const folder *f, const char *choice,
                             text_chat **chat, lori_error *err)
{
    temp t;
    char path[1100];
    text_tokenizer *tok;
    temp_open(&t);
    temp_file(&t, "tokenizer.json", SMALL, strlen(SMALL));
    if (f->config)
        temp_file(&t, "tokenizer_config.json", f->config, strlen(f->config));
    if (f->file)
        temp_file(&t, "chat_template.jinja", f->file, strlen(f->file));
    if (f->extra) {
        snprintf(path, sizeof path, "%s/additional_chat_templates", t.dir);
        cr_assert_eq(mkdir(path, 0755), 0);
        temp_file(&t, "additional_chat_templates/tool_use.jinja", f->extra,
                  strlen(f->extra));
    }
    lori_status st = text_tokenizer_open(t.dir, &tok, err);
    if (st == LORI_OK) {
        st = text_chat_open(tok, choice, chat, err);
        text_tokenizer_close(tok);
    }
    temp_close(&t);
    return st;
}

/* The chat's text, or "!" and the error; to be freed. `input`: JSON of
 * messages, tools, documents, variables. */
static char *chat_text(const folder *f, const char *choice, const char *input,
                       text_chat_input in)
{
    text_chat *chat = NULL;
    lori_error err = {0};
    base_str out = {0};
    json_error_t place;
    json_t *json = json_loads(input, 0, &place);
    cr_assert_not_null(json, "%s: %s", input, place.text);
    in.messages = json_object_get(json, "messages");
    in.tools = json_object_get(json, "tools");
    in.documents = json_object_get(json, "documents");
    in.variables = json_object_get(json, "variables");
    lori_status st = open_chat(f, choice, &chat, &err);
    if (st == LORI_OK)
        st = text_chat_render(chat, &in, &out, &err);
    if (st != LORI_OK) {
        cr_expect_eq(out.len, 0);
        base_str_printf(&out, "!%s", err.message);
    }
    base_str_puts(&out, "");
    text_chat_close(chat);
    json_decref(json);
    return base_str_take(&out);
}

static void expect_text(const folder *f, const char *choice, const char *input,
                        text_chat_input in, const char *want)
{
    char *have = chat_text(f, choice, input, in);
    cr_expect_str_eq(have, want);
    free(have);
}

/* The error must hold both parts. */
static void expect_error(const folder *f, const char *input, text_chat_input in,
                         const char *part, const char *other)
{
    char *have = chat_text(f, NULL, input, in);
    cr_expect(have[0] == '!' && strstr(have, part) && strstr(have, other),
              "'%s' and '%s' are not in '%s'", part, other, have);
    free(have);
}

#define ASK  "{\"messages\":[{\"role\":\"user\",\"content\":\" Hi\\n\"}]}"
#define TURN "{\"role\":\"user\",\"content\":\"u\"}"
static const text_chat_input PROMPT = {.add_generation_prompt = true};
static const text_chat_input PLAIN = {0};

Test(text_chat, where_the_template_is)
{
    const folder string = {.config = "{\"chat_template\":\"S\"}"};
    const folder both = {.config = "{\"chat_template\":\"S\"}", .file = "F"};
    const folder list = {
        .config = "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":"
                  "\"T\"},{\"name\":\"default\",\"template\":\"D\"},"
                  "{\"name\":\"rag\",\"template\":\"R\"}]}"};
    const folder files = {.file = "F", .extra = "X"};
    text_chat_input rag = {.name = "rag"};
    expect_text(&string, NULL, ASK, PLAIN, "S");
    expect_text(&both, NULL, ASK, PLAIN, "F");
    expect_text(&list, NULL, ASK, PLAIN, "D");
    expect_text(&list, NULL, ASK, rag, "R");
    expect_text(&list, NULL, "{\"messages\":[" TURN "],\"tools\":[]}", PLAIN,
                "T");
    expect_text(&files, NULL, ASK, PLAIN, "F");
    expect_text(&files, NULL, "{\"messages\":[" TURN "],\"tools\":[{}]}", PLAIN,
                "X");
    rag.name = "none";
    expect_error(&list, ASK, rag, "no chat template 'none'", "'rag'");
}

/* Files beside the config replace its template, even without a default. */
Test(text_chat, extra_files_without_a_default)
{
    const folder f = {.config = "{\"chat_template\":\"S\"}", .extra = "X"};
    expect_error(&f, ASK, PLAIN, "no chat template 'default'", "'tool_use'");
}

Test(text_chat, no_template)
{
    const folder none = {.config = "{" NAMES "}"};
    const folder bad = {.config = "{\"chat_template\":5}"};
    const folder list = {.config = "{\"chat_template\":[{\"name\":\"x\"}]}"};
    expect_error(&none, ASK, PLAIN, "no chat template", "--chat-template");
    expect_error(&bad, ASK, PLAIN, "tokenizer_config.json", "chat_template");
    expect_error(&list, ASK, PLAIN, "tokenizer_config.json", "'template'");
}

Test(text_chat, variables)
{
    const folder f = {
        .config = "{" NAMES ",\"unk_token\":null}",
        .file = "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}"
                "{{ tools }}{{ documents }}{{ add_generation_prompt }}"
                "{{ flag }}"};
    expect_text(&f, NULL, ASK, PROMPT, "<s></s>FalseNoneNoneTrue");
    expect_text(&f, NULL,
                "{\"messages\":[" TURN "],\"variables\":{\"flag\":1,"
                "\"bos_token\":\"B\",\"tools\":2},\"documents\":[{}]}",
                PLAIN, "B</s>FalseNone[{}]False1");
}

/* Members that are null are not there; reasoning goes by all its names. */
Test(text_chat, messages_as_transformers_5_gives_them)
{
    const folder f = {.file = "{{ messages }}"};
    expect_text(&f, NULL,
                "{\"messages\":[{\"role\":\"a\",\"content\":null,\"reasoning\":"
                "\"r\"}]}",
                PLAIN,
                "[{'thinking': 'r', 'role': 'a', 'reasoning': 'r', "
                "'reasoning_content': 'r'}]");
}

Test(text_chat, templates_of_our_own)
{
    const folder f = {.config = "{" NAMES "}"};
    static const char turns[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":"
        "\"user\",\"content\":[{\"type\":\"text\",\"text\":\"u \"}]},{\"role\":"
        "\"assistant\",\"content\":\"a\"}]}";
    const text_chat_input more = {.continue_final_message = true};
    expect_text(&f, "chatml", turns, PROMPT,
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu "
                "<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
                "<|im_start|>assistant\n");
    expect_text(&f, "llama3", turns, PLAIN,
                "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nu<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|>");
    expect_text(&f, "alpaca", turns, PROMPT,
                "S\n\n### Instruction:\nu \n\n### Response:\na</s>\n\n"
                "### Response:\n");
    expect_text(&f, "alpaca", ASK, PROMPT,
                "Below is an instruction that describes a task. Write a "
                "response that appropriately completes the request.\n\n"
                "### Instruction:\n Hi\n\n\n### Response:\n");
    expect_text(&f, "alpaca", turns, more,
                "S\n\n### Instruction:\nu \n\n### Response:\na");
    expect_text(&f, "none", turns, PLAIN, "S\nu \na");
    char *have = chat_text(&f, "/nowhere/x.jinja", ASK, PLAIN);
    cr_expect(strstr(have, "/nowhere/x.jinja") && strstr(have, "alpaca"), "%s",
              have);
    free(have);
}

/* A BOS that the tokenizer's own post-processor adds. */
Test(text_chat, templates_of_our_own_begin_with_bos)
{
    temp t;
    lori_error err = {0};
    text_tokenizer *tok;
    text_chat *chat;
    base_str out = {0};
    static const char json[] = TOKENIZER(
        SMALL_ADDED, "null", BYTE_LEVEL,
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
        "\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
        "\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":"
        "\"<s>\",\"ids\":[19],\"tokens\":[\"<s>\"]}}}",
        BYTE_LEVEL, SMALL_MODEL);
    temp_open(&t);
    temp_file(&t, "tokenizer.json", json, sizeof json - 1);
    temp_file(&t, "tokenizer_config.json", "{" NAMES "}", strlen(NAMES) + 2);
    cr_assert_eq(text_tokenizer_open(t.dir, &tok, &err), LORI_OK, "%s",
                 err.message);
    cr_assert_eq(text_chat_open(tok, "none", &chat, &err), LORI_OK);
    json_t *messages = json_pack("[{ssss}]", "role", "user", "content", "u");
    text_chat_input in = {.messages = messages};
    cr_expect_eq(text_chat_render(chat, &in, &out, &err), LORI_OK);
    cr_expect_str_eq(out.s, "<s>u");
    json_decref(messages);
    base_str_free(&out);
    text_chat_close(chat);
    text_tokenizer_close(tok);
    temp_close(&t);
}

Test(text_chat, what_is_refused)
{
    const folder f = {.file = "{{ messages[0].content | trim }}"};
    text_chat_input both = {.add_generation_prompt = true,
                            .continue_final_message = true};
    const text_chat_input more = {.continue_final_message = true};
    expect_error(&f, "{\"messages\":[]}", PLAIN, "without messages", "");
    expect_error(&f, "{\"messages\":{}}", PLAIN, "no list", "");
    expect_error(&f, "{\"messages\":[" TURN ",5]}", PLAIN, "message 1",
                 "an integer");
    expect_error(&f, "{\"messages\":[" TURN "],\"tools\":{}}", PLAIN, "tools",
                 "a list");
    expect_error(&f, "{\"messages\":[" TURN "],\"documents\":[1]}", PLAIN,
                 "documents 0", "an object");
    expect_error(&f, "{\"messages\":[" TURN "],\"variables\":[]}", PLAIN,
                 "variables", "");
    expect_error(&f, ASK, both, "exclude each other", "");
    expect_error(&f, "{\"messages\":[{\"role\":\"user\"}]}", more,
                 "no text content", "");
    expect_error(&f, "{\"messages\":[" TURN "," TURN "]}", more,
                 "does not print it", "");
}

Test(text_chat, errors_name_the_template_and_line)
{
    const folder refuses = {
        .file = "{% for m in messages %}\n{% if m.role != 'user' %}\n"
                "{{ raise_exception('Roles must\nalternate') }}{% endif %}"
                "{% endfor %}"};
    const folder syntax = {.file = "a\n{% if x %}\nb\n"};
    const folder filter = {.file = "a\n\n{{ x | nofilter }}"};
    const folder config = {
        .config = "{\"chat_template\":[{\"name\":\"default\",\"template\":"
                  "\"\\n{{ x.y }}\"}]}"};
    const folder bytes = {.file = "a\xff"};
    expect_error(&refuses, "{\"messages\":[{\"role\":\"a\"}]}", PLAIN,
                 "chat_template.jinja:3: ", "Roles must alternate");
    expect_error(&syntax, ASK, PLAIN, "chat_template.jinja:", "'if' of line 2");
    expect_error(&filter, ASK, PLAIN, "chat_template.jinja:3: ", "'nofilter'");
    expect_error(&config, ASK, PLAIN,
                 "tokenizer_config.json chat_template 'default':2: ",
                 "'x' is undefined");
    expect_error(&bytes, ASK, PLAIN,
                 "chat_template.jinja: ", "not UTF-8 at byte 1");
}

/* A broken template is no obstacle until it is chosen. */
Test(text_chat, a_broken_template_beside)
{
    const folder f = {.file = "F", .extra = "{% if %}"};
    expect_text(&f, NULL, ASK, PLAIN, "F");
    expect_error(&f, "{\"messages\":[" TURN "],\"tools\":[]}", PLAIN,
                 "tool_use.jinja:1: ", "an expression");
}

/* Each ends with a clear error, at once. */
Test(text_chat, bombs, .timeout = 60)
{
    static const struct {
        const char *text, *error;
    } bomb[] = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}"
         "{% endfor %}{% endfor %}",
         "MiB"},
        {"{{ range(1000000000) | list }}", "Range too big"},
        {"{{ 'a' * 1000000000 }}", "repetition"},
        {"{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}"
         "{% set ns.s = ns.s + ns.s %}{% endfor %}",
         "MiB"},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}"
         "{% set ns.s = ns.s + ns.s %}{% endfor %}",
         "MiB"},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(60) %}"
         "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
         "st"},
        {"{% for i in range(99999) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}",
         "MiB"},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested deeper"},
        {"{% set ns = namespace(s=[]) %}{% for i in range(2000) %}"
         "{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s | tojson }}",
         "nested deeper"},
        {"{{ ('a' * 60000000).replace('', 'aaaaaaaa') }}", "MiB"},
        {"{{ ('a' * 9999999).rfind('a' * 5000000 + 'b') }}", "steps"},
        {"{{ ('a' * 9999999).strip('bcdefghijklmnopqrstuvwxyza' * 9999) }}",
         "steps"},
        {"{{ '%1000000000d' % 1 }}", "4096"},
        {"{{ 'a'.ljust(1000000000) }}", "million"},
    };
    for (size_t i = 0; i < sizeof bomb / sizeof *bomb; i++) {
        const folder f = {.file = bomb[i].text};
        expect_error(&f, ASK, PLAIN, "chat_template.jinja:1: ", bomb[i].error);
    }
}

static void expect_nested(const char *open, const char *close, int n)
{
    base_str text = {0};
    base_str_puts(&text, "{{ ");
    for (int i = 0; i < n; i++)
        base_str_puts(&text, open);
    base_str_puts(&text, "1");
    for (int i = 0; i < n; i++)
        base_str_puts(&text, close);
    base_str_puts(&text, " }}");
    const folder f = {.file = text.s};
    expect_error(&f, ASK, PLAIN, "chat_template.jinja:1: ", "nested");
    base_str_free(&text);
}

Test(text_chat, nested_source, .timeout = 60)
{
    expect_nested("(", ")", 100000);
    expect_nested("[", "]", 100000);
    expect_nested("-", "", 100000);
    expect_nested("not ", "", 100000);
    expect_nested("", "|abs", 100000);
    expect_nested("", ".a", 100000);
    expect_nested("", "()", 100000);
    expect_nested("", " if 1 else 1", 100000);
    expect_nested("1 + ", "", 100000);
    expect_nested("", " == 1 if 1", 100000);
    base_str text = {0};
    for (int i = 0; i < 100000; i++)
        base_str_puts(&text, "{% if 1 %}");
    const folder f = {.file = text.s};
    expect_error(&f, ASK, PLAIN, "chat_template.jinja:1: ", "nested");
    base_str_free(&text);
}
