/* probe_chat.c - lets a script ask the interpreter of chat templates: JSON
 * lines in, JSON lines out. For developers' comparisons only; links text,
 * format and base.
 *
 * usage: probe_chat [TOKENIZER_FOLDER [TEMPLATE]]
 *   {"template": "...", "context": {...}, "now": s}   -> {"text": "..."}
 *   {"messages": [...], "tools": [...], "documents": [...],
 *    "variables": {...}, "name": "...", "prompt": true, "continue": true,
 *    "now": s}      as text_chat_render, with the folder  -> {"text": "..."}
 *   any of them                                       -> {"error": "..."} */
#include <stdio.h>
#include <stdlib.h>

#include "format/format.h"
#include "text/jinja_i.h"
#include "text/text.h"

static lori_status render(const json_t *question, base_str *out,
                          lori_error *err)
{
    const json_t *source = json_object_get(question, "template");
    jinja_template *t;
    BASE_TRY(jinja_compile(json_string_value(source),
                           json_string_length(source), "t", &t, err));
    lori_status st = jinja_render(
        t, json_object_get(question, "context"),
        json_integer_value(json_object_get(question, "now")), out, err);
    jinja_template_free(t);
    return st;
}

static lori_status chat(const text_chat *chat, const json_t *question,
                        base_str *out, lori_error *err)
{
    text_chat_input in = {
        .messages = json_object_get(question, "messages"),
        .tools = json_object_get(question, "tools"),
        .documents = json_object_get(question, "documents"),
        .variables = json_object_get(question, "variables"),
        .name = json_string_value(json_object_get(question, "name")),
        .add_generation_prompt =
            json_is_true(json_object_get(question, "prompt")),
        .continue_final_message =
            json_is_true(json_object_get(question, "continue")),
        .now_s = json_integer_value(json_object_get(question, "now"))};
    return text_chat_render(chat, &in, out, err);
}

static void answer_line(const text_chat *folder, const char *line, size_t n)
{
    lori_error err = {0};
    base_str out = {0};
    json_t *question = NULL, *answer = json_object();
    lori_status st = format_json_parse(line, n, "stdin", &question, &err);
    if (st == LORI_OK)
        st = json_object_get(question, "template")
                 ? render(question, &out, &err)
                 : chat(folder, question, &out, &err);
    if (st == LORI_OK)
        json_object_set_new(answer, "text",
                            json_stringn(out.len ? out.s : "", out.len));
    else
        json_object_set_new(answer, "error", json_string(err.message));
    char *z = json_dumps(answer, JSON_ENSURE_ASCII | JSON_COMPACT);
    puts(z ? z : "{\"error\":\"no memory\"}");
    fflush(stdout);
    free(z);
    base_str_free(&out);
    json_decref(question);
    json_decref(answer);
}

int main(int argc, char **argv)
{
    text_tokenizer *tok = NULL;
    text_chat *folder = NULL;
    lori_error err = {0};
    if (argc > 1 && (text_tokenizer_open(argv[1], &tok, &err) != LORI_OK ||
                     text_chat_open(tok, argc > 2 ? argv[2] : NULL, &folder,
                                    &err) != LORI_OK)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0)
        answer_line(folder, line, (size_t)n);
    free(line);
    text_chat_close(folder);
    text_tokenizer_close(tok);
    return 0;
}
