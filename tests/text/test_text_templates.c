/* test_text_templates.c - the templates of tests/text/templates against what
 * transformers' Jinja printed (tests/golden/make_chat.py): one for each feature
 * of real templates, and ten in the manner of known models, each with chats of
 * many kinds; and templates that must fail, in the line that jinja2 names. */
#include <dirent.h>
#include <time.h>

#include "format/format.h"
#include "text/jinja_i.h"
#include "text/text_test.h"

#define GOLDEN   "tests/golden/chat_templates.json"
#define FOLDER   "tests/text/templates"
#define FEATURES 72
#define MODELS   10

static json_t *golden(void)
{
    json_t *json;
    lori_error err = {0};
    cr_assert_eq(format_json_load(GOLDEN, &json, &err), LORI_OK, "%s",
                 err.message);
    setenv("TZ", "UTC", 1);
    tzset();
    return json;
}

static char *read_template(const char *name, size_t *n)
{
    char path[256], *text;
    lori_error err = {0};
    snprintf(path, sizeof path, "%s/%s.jinja", FOLDER, name);
    cr_assert_eq(base_file_read(path, 1 << 20, &text, n, &err), LORI_OK, "%s",
                 err.message);
    return text;
}

static lori_status run_template(const char *text, size_t n, json_t *all,
                                base_str *out, lori_error *err)
{
    jinja_template *t;
    BASE_TRY(jinja_compile(text, n, "t.jinja", &t, err));
    lori_status st =
        jinja_render(t, json_object_get(all, "values"),
                     json_integer_value(json_object_get(all, "now")), out, err);
    jinja_template_free(t);
    return st;
}

static bool is_text(const base_str *out, const json_t *want)
{
    return out->len == json_string_length(want) &&
           memcmp(out->len ? out->s : "", json_string_value(want), out->len) ==
               0;
}

Test(text_templates, features)
{
    json_t *all = golden(), *features = json_object_get(all, "features");
    cr_assert_eq(json_object_size(features), FEATURES);
    for (void *it = json_object_iter(features); it;
         it = json_object_iter_next(features, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *want = json_object_iter_value(it);
        size_t n;
        base_str out = {0};
        lori_error err = {0};
        char *text = read_template(name, &n);
        lori_status st = run_template(text, n, all, &out, &err);
        cr_expect_eq(st, LORI_OK, "%s: %s", name, err.message);
        cr_expect(is_text(&out, want), "%s: got\n%s\nexpected\n%s", name,
                  out.s ? out.s : "", json_string_value(want));
        base_str_free(&out);
        free(text);
    }
    json_decref(all);
}

/* The number behind the template's name, 0 when there is none. */
static long line_of(const char *message, const char *name)
{
    const char *at = strstr(message, name);
    return at && at[strlen(name)] == ':' ? atol(at + strlen(name) + 1) : 0;
}

Test(text_templates, what_must_fail)
{
    json_t *all = golden(), *errors = json_object_get(all, "errors");
    cr_assert_geq(json_array_size(errors), 100);
    for (size_t i = 0; i < json_array_size(errors); i++) {
        const json_t *e = json_array_get(errors, i);
        const json_t *source = json_object_get(e, "template");
        const char *text = json_string_value(source);
        base_str out = {0};
        lori_error err = {0};
        lori_status st =
            run_template(text, json_string_length(source), all, &out, &err);
        cr_expect_neq(st, LORI_OK, "%s gave %s", text, out.s);
        cr_expect_eq(out.len, 0);
        /* Where Python refuses the code that jinja2 made, it has no line. */
        if (json_is_integer(json_object_get(e, "line")))
            cr_expect_eq(line_of(err.message, "t.jinja"),
                         json_integer_value(json_object_get(e, "line")),
                         "%s: %s", text, err.message);
        base_str_free(&out);
    }
    json_decref(all);
}

static text_chat *open_model(const char *name, const json_t *names)
{
    temp t;
    size_t n;
    lori_error err = {0};
    text_tokenizer *tok;
    text_chat *chat;
    char *text = read_template(name, &n);
    char *config = json_dumps(names, 0);
    temp_open(&t);
    temp_file(&t, "tokenizer.json", SMALL, strlen(SMALL));
    temp_file(&t, "tokenizer_config.json", config, strlen(config));
    temp_file(&t, "chat_template.jinja", text, n);
    cr_assert_eq(text_tokenizer_open(t.dir, &tok, &err), LORI_OK, "%s",
                 err.message);
    cr_assert_eq(text_chat_open(tok, NULL, &chat, &err), LORI_OK, "%s",
                 err.message);
    text_tokenizer_close(tok);
    temp_close(&t);
    free(config);
    free(text);
    return chat;
}

/* Jinja's exceptions of a template's own have its words; all others ours. */
static void check_error(const char *name, const json_t *want,
                        const lori_error *err)
{
    static const char own[] = "TemplateError: ";
    const char *message = json_string_value(json_object_get(want, "error"));
    json_int_t line = json_integer_value(json_object_get(want, "line"));
    if (line)
        cr_expect_eq(line_of(err->message, "chat_template.jinja"), line,
                     "%s: %s (jinja2: line %lld, %s)", name, err->message,
                     (long long)line, message);
    if (strncmp(message, own, strlen(own)) == 0)
        cr_expect(strstr(err->message, message + strlen(own)) != NULL,
                  "%s: '%s' is not in '%s'", name, message, err->message);
}

static void check_chat(const text_chat *chat, const char *model, json_t *all,
                       const char *name, const json_t *want)
{
    json_t *c = json_object_get(json_object_get(all, "chats"), name);
    char label[128];
    base_str out = {0};
    lori_error err = {0};
    text_chat_input in = {
        .messages = json_object_get(c, "messages"),
        .tools = json_object_get(c, "tools"),
        .documents = json_object_get(c, "documents"),
        .variables = json_object_get(c, "variables"),
        .add_generation_prompt = json_is_true(json_object_get(c, "prompt")),
        .continue_final_message = json_is_true(json_object_get(c, "continue")),
        .now_s = json_integer_value(json_object_get(all, "now"))};
    lori_status st = text_chat_render(chat, &in, &out, &err);
    snprintf(label, sizeof label, "%s with %s", model, name);
    if (json_object_get(want, "text")) {
        cr_expect_eq(st, LORI_OK, "%s: %s", label, err.message);
        cr_expect(is_text(&out, json_object_get(want, "text")),
                  "%s: got\n%s\nexpected\n%s", label, out.s ? out.s : "",
                  json_string_value(json_object_get(want, "text")));
    } else {
        cr_expect_neq(st, LORI_OK, "%s", label);
        check_error(label, want, &err);
    }
    base_str_free(&out);
}

Test(text_templates, models)
{
    json_t *all = golden(), *models = json_object_get(all, "models");
    cr_assert_eq(json_object_size(models), MODELS);
    for (void *it = json_object_iter(models); it;
         it = json_object_iter_next(models, it)) {
        const char *model = json_object_iter_key(it);
        json_t *chats = json_object_iter_value(it);
        text_chat *chat = open_model(model, json_object_get(all, "names"));
        for (void *c = json_object_iter(chats); c;
             c = json_object_iter_next(chats, c))
            check_chat(chat, model, all, json_object_iter_key(c),
                       json_object_iter_value(c));
        text_chat_close(chat);
    }
    json_decref(all);
}

/* A template without its golden text would be no test. */
Test(text_templates, every_file_is_checked)
{
    json_t *all = golden();
    int n = 0;
    DIR *dir = opendir(FOLDER);
    cr_assert_not_null(dir);
    for (const struct dirent *e; (e = readdir(dir));)
        n += strstr(e->d_name, ".jinja") != NULL;
    closedir(dir);
    cr_expect_eq(n, FEATURES + MODELS);
    json_decref(all);
}
