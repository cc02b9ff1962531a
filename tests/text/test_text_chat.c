/* test_text_chat.c - chat templates: exact output of the known ones, refusal
 * of the rest. Expected texts were printed by jinja2 (tests/oracle/
 * oracle_text.py compares many more). */
#include "text/text_test.h"

#define EACH "{% for message in messages %}"
#define MESSAGE                                                                \
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "       \
    "'<|im_end|>' + '\\n'}}"
#define PROMPT                                                                 \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"           \
    "{% endif %}"
#define CHATML EACH MESSAGE "{% endfor %}" PROMPT
#define SMOLLM2                                                                \
    EACH "{% if loop.first and messages[0]['role'] != 'system' %}"             \
         "{{ '<|im_start|>system\\nYou are a helpful AI assistant named "      \
         "SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}" MESSAGE \
         "{% endfor %}" PROMPT
#define LLAMA3_LOOP                                                            \
    "{% set loop_messages = messages %}{% for message in loop_messages %}"     \
    "{% set content = '<|start_header_id|>' + message['role'] + "              \
    "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}"   \
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"         \
    "{% endif %}{{ content }}{% endfor %}"
#define LLAMA3_PROMPT                                                          \
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
#define LLAMA3                                                                 \
    LLAMA3_LOOP "{% if add_generation_prompt %}" LLAMA3_PROMPT "{% endif %}"

static const text_message TALK[] = {{"user", "Hi \n"}, {"assistant", " yes"}};
static const text_message WITH_SYSTEM[] = {{"system", "S"}, {"user", "u"}};

/* Renders with the template as chat_template.jinja; NULL when it failed, with
 * *st. */
static char *render(const char *template, const char *config,
                    const text_message *messages, size_t n, bool prompt,
                    lori_status *st, lori_error *err)
{
    temp t;
    text_tokenizer *tok = NULL;
    base_str out = {0};
    temp_open(&t);
    temp_file(&t, "tokenizer.json", SMALL, sizeof SMALL - 1);
    if (config)
        temp_file(&t, "tokenizer_config.json", config, strlen(config));
    if (template)
        temp_file(&t, "chat_template.jinja", template, strlen(template));
    cr_assert_eq(text_tokenizer_open(t.dir, &tok, err), LORI_OK, "%s",
                 err->message);
    *st = text_chat_render(tok, messages, n, prompt, &out, err);
    text_tokenizer_close(tok);
    temp_close(&t);
    if (*st == LORI_OK)
        return base_str_take(&out);
    base_str_free(&out);
    return NULL;
}

static void expect_chat(const char *template, const text_message *messages,
                        size_t n, bool prompt, const char *want)
{
    lori_status st;
    lori_error err = {0};
    char *have = render(template, "{\"bos_token\":\"<s>\"}", messages, n,
                        prompt, &st, &err);
    cr_expect_eq(st, LORI_OK, "%s", err.message);
    cr_expect_str_eq(have ? have : "", want);
    free(have);
}

static void expect_no_chat(const char *template, const char *config,
                           lori_status want, const char *part)
{
    lori_status st;
    lori_error err = {0};
    char *have = render(template, config, TALK, 2, true, &st, &err);
    cr_expect_eq(st, want, "%s", template ? template : "(none)");
    cr_expect_null(have);
    cr_expect(strstr(err.message, part) != NULL, "%s", err.message);
    free(have);
}

Test(text_chat, chatml)
{
    expect_chat(CHATML, TALK, 2, true,
                "<|im_start|>user\nHi \n<|im_end|>\n<|im_start|>assistant\n yes"
                "<|im_end|>\n<|im_start|>assistant\n");
    expect_chat(CHATML, TALK, 1, false, "<|im_start|>user\nHi \n<|im_end|>\n");
}

/* The prompt of spec gguf.md 6: 178 bytes. */
Test(text_chat, default_system_message)
{
    static const text_message ask[] = {
        {"user", "What is the capital of France?"}};
    static const char want[] =
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
        "trained by Hugging Face<|im_end|>\n<|im_start|>user\nWhat is the "
        "capital of France?<|im_end|>\n<|im_start|>assistant\n";
    cr_assert_eq(sizeof want - 1, 178);
    expect_chat(SMOLLM2, ask, 1, true, want);
    /* The file of SmolLM2 has plain line ends inside its strings. */
    char file[sizeof SMOLLM2];
    size_t n = 0;
    for (const char *s = SMOLLM2; *s; s++) {
        bool end = s[0] == '\\' && s[1] == 'n';
        file[n++] = end ? '\n' : *s;
        s += end;
    }
    file[n] = '\0';
    cr_assert_eq(n, 368);
    expect_chat(file, ask, 1, true, want);
    expect_chat(SMOLLM2, WITH_SYSTEM, 2, false,
                "<|im_start|>system\nS<|im_end|>\n"
                "<|im_start|>user\nu<|im_end|>\n");
}

Test(text_chat, llama3)
{
    expect_chat(LLAMA3, TALK, 2, true,
                "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nyes"
                "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    expect_chat(LLAMA3, TALK, 1, false,
                "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>");
    /* The first release asks for an answer whatever is said. */
    expect_chat(LLAMA3_LOOP LLAMA3_PROMPT, TALK, 1, false,
                "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* Python's strip also takes U+001C-1F, U+0085 and the wide spaces. */
Test(text_chat, llama3_trims_as_python)
{
    static const text_message ask[] = {
        {"user", "\u2003\x1c\xC2\x85 a b\u3000\x1f\t"}};
    expect_chat(LLAMA3, ask, 1, false,
                "<s><|start_header_id|>user<|end_header_id|>\n\na b<|eot_id|>");
}

Test(text_chat, white_space_that_is_not_printed)
{
    static const char want[] = "<|im_start|>user\nHi \n<|im_end|>\n";
    static const char *const same[] = {
        CHATML "\n",
        CHATML "\r\n",
        " " CHATML "\n\n",
        "{% for  message in\n messages %}\n" MESSAGE "{%endfor%}\r\n" PROMPT,
        EACH "\n" MESSAGE "{% endfor %}\n  \t{% if add_generation_prompt %}\n"
             "{{ \"<|im_start|>assistant\\n\" }}{% endif %}",
        "\n  \n{%- for message in messages -%}\n\n  {{- '<|im_start|>'+message"
        "[ 'role' ]+'\\n' +message['content']+'<|im_end|>'+'\\n' -}}\n  "
        "{%- endfor -%}\n" PROMPT};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        expect_chat(same[i], TALK, 1, false, want);
}

Test(text_chat, templates_that_are_refused)
{
    static const char *const other[] = {
        "",
        "hello",
        CHATML " ",
        CHATML "\n\n\n", /* one ends the tag, one the file, one is left */
        "x" CHATML,
        EACH "\n  " MESSAGE "{% endfor %}" PROMPT, /* two spaces are printed */
        EACH " \n" MESSAGE "{% endfor %}" PROMPT,
        "{% for message in messages +%}" MESSAGE "{% endfor %}" PROMPT,
        "{# a #}" CHATML,
        EACH MESSAGE "{% endfor % }" PROMPT,
        EACH MESSAGE "{% endfor %}",
        EACH "{{ message['content'] }}{% endfor %}" PROMPT,
        "{% for messagein messages %}" MESSAGE "{% endfor %}" PROMPT,
        EACH MESSAGE "{% endfor %}{% if add_generation_prompt %}{{ '<|im_star",
        LLAMA3_LOOP,
        EACH
        "{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nA\\tB<|im_end|>\\n' }}{% endif %}" MESSAGE
        "{% endfor %}" PROMPT};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        expect_no_chat(other[i], NULL, LORI_UNSUPPORTED, "chat_template.jinja");
    expect_no_chat(NULL, NULL, LORI_NOT_FOUND, "no chat template");
    expect_no_chat(LLAMA3, "{\"bos_token\":null}", LORI_NOT_FOUND, "bos_token");
}

/* A string or a list in tokenizer_config.json; the .jinja file goes first. */
Test(text_chat, where_the_template_is)
{
    static const char string[] =
        "{\"chat_template\":\"{% for message in messages %}{{'<|im_start|>' + "
        "message['role'] + '\\\\n' + message['content'] + '<|im_end|>' + "
        "'\\\\n'}}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\\\\n' }}{% endif %}\"}";
    base_str list = {0};
    lori_status st;
    lori_error err = {0};
    char *have = render(NULL, string, TALK, 1, false, &st, &err);
    cr_expect_str_eq(have ? have : err.message,
                     "<|im_start|>user\nHi \n<|im_end|>\n");
    free(have);
    base_str_printf(&list,
                    "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":"
                    "\"x\"},{\"name\":\"default\",\"template\":%s]}",
                    string + strlen("{\"chat_template\":"));
    have = render(NULL, list.s, TALK, 1, false, &st, &err);
    cr_expect_str_eq(have ? have : err.message,
                     "<|im_start|>user\nHi \n<|im_end|>\n");
    free(have);
    have = render("other", string, TALK, 1, false, &st, &err);
    cr_expect_null(have);
    cr_expect_eq(st, LORI_UNSUPPORTED);
    base_str_free(&list);
}

Test(text_chat, messages_that_are_refused)
{
    static const text_message no_role[] = {{NULL, "x"}};
    static const text_message no_content[] = {{"user", "x"}, {"user", NULL}};
    static const text_message bad[] = {{"user", "a\xff"}};
    lori_status st;
    lori_error err = {0};
    cr_expect_null(render(CHATML, NULL, TALK, 0, true, &st, &err));
    cr_expect_eq(st, LORI_INVALID);
    cr_expect_null(render(CHATML, NULL, no_role, 1, true, &st, &err));
    cr_expect_eq(st, LORI_INVALID);
    cr_expect_null(render(CHATML, NULL, no_content, 2, true, &st, &err));
    cr_expect_eq(st, LORI_INVALID);
    cr_expect(strstr(err.message, "message 1") != NULL, "%s", err.message);
    cr_expect_null(render(CHATML, NULL, bad, 1, true, &st, &err));
    cr_expect_eq(st, LORI_FORMAT);
}
