/* chat_template.c - chats as text: chooses the template, builds the variables
 * that it sees and renders it, as transformers' apply_chat_template does.
 * Includes base, format. Source: transformers 5.24 tokenization_utils_base.py,
 * chat_template_utils.py; spec/hf.md 4. */
#include <stdlib.h>
#include <time.h>

#include "text/jinja_i.h"
#include "text/text_i.h"

/* ---- templates of our own ---------------------------------------------------
 */

/* `bos` is the tokenizer's BOS where its own post-processor would add it. A
 * content may be a text or a list of parts. */
#define TEXT_OF                                                                \
    "{%- macro text_of(m) -%}{%- if m.content is string -%}{{- m.content -}}"  \
    "{%- else -%}{%- for part in m.content -%}{{- part.text -}}{%- endfor -%}" \
    "{%- endif -%}{%- endmacro -%}"
static const struct {
    const char *name, *text;
} own[] = {
    {"chatml", TEXT_OF "{{- bos -}}{%- for m in messages -%}"
                       "{{- '<|im_start|>' + m.role + '\\n' + text_of(m) + "
                       "'<|im_end|>\\n' -}}{%- endfor -%}"
                       "{%- if add_generation_prompt -%}"
                       "{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"},
    {"llama3",
     TEXT_OF "{{- bos -}}{%- for m in messages -%}"
             "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' "
             "+ text_of(m) | trim + '<|eot_id|>' -}}{%- endfor -%}"
             "{%- if add_generation_prompt -%}{{- '<|start_header_id|>"
             "assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"},
    {"alpaca", TEXT_OF
     "{{- bos -}}{%- if messages[0].role != 'system' -%}"
     "{{- 'Below is an instruction that describes a task. Write a response "
     "that appropriately completes the request.\\n\\n' -}}{%- endif -%}"
     "{%- for m in messages -%}{%- if m.role == 'system' -%}"
     "{{- text_of(m) + '\\n\\n' -}}{%- elif m.role == 'user' -%}"
     "{{- '### Instruction:\\n' + text_of(m) + '\\n\\n' -}}"
     "{%- elif m.role == 'assistant' -%}"
     "{{- '### Response:\\n' + text_of(m) -}}"
     "{%- if not (continue_final_message and loop.last) -%}"
     "{{- (eos_token or '') + '\\n\\n' -}}{%- endif -%}{%- else -%}"
     "{{- raise_exception('alpaca has no role ' + m.role) -}}{%- endif -%}"
     "{%- endfor -%}{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}"
     "{%- endif -%}"},
    {"none", TEXT_OF "{{- bos -}}{%- for m in messages -%}"
                     "{{- text_of(m) + ('' if loop.last else '\\n') -}}"
                     "{%- endfor -%}"},
};

/* ---- compiling
 * ------------------------------------------------------------------ */

/* One that does not compile is no obstacle to the others: it fails when it is
 * chosen. */
typedef struct named_template {
    char *name;
    jinja_template *template;
    lori_status status;
    lori_error error;
} named_template;

struct text_chat {
    named_template *template;
    size_t n;
    json_t *names; /* variables: bos_token, ... and for our own bos */
};

static lori_status compile(text_chat *chat, const char *name, const char *file,
                           const char *text, size_t n, lori_error *err)
{
    named_template *t =
        base_resize(chat->template, chat->n + 1, sizeof *chat->template);
    if (!t)
        return base_no_memory(err, (chat->n + 1) * sizeof *t);
    chat->template = t;
    t += chat->n++;
    *t = (named_template){.name = base_strdup(name)};
    if (!t->name)
        return base_no_memory(err, strlen(name));
    t->status = jinja_compile(text, n, file, &t->template, &t->error);
    return LORI_OK;
}

/* A template that stands alone must compile. */
static lori_status compile_one(text_chat *chat, const char *file,
                               const char *text, size_t n, lori_error *err)
{
    BASE_TRY(compile(chat, "default", file, text, n, err));
    if (chat->template[0].status == LORI_OK)
        return LORI_OK;
    return base_fail(err, chat->template[0].status, "%s",
                     chat->template[0].error.message);
}

static lori_status compile_folder(text_chat *chat, const text_tokenizer *tok,
                                  lori_error *err)
{
    if (!tok->templates)
        return base_fail(err, LORI_NOT_FOUND,
                         "%s: no chat template beside it (chat_template.jinja "
                         "or tokenizer_config.json); choose one with "
                         "--chat-template, or use a raw prompt",
                         tok->file);
    for (void *it = json_object_iter(tok->templates); it;
         it = json_object_iter_next(tok->templates, it)) {
        const json_t *row = json_object_iter_value(it);
        const json_t *text = json_array_get(row, 1);
        BASE_TRY(compile(chat, json_object_iter_key(it),
                         json_string_value(json_array_get(row, 0)),
                         json_string_value(text), json_string_length(text),
                         err));
    }
    return LORI_OK;
}

static lori_status compile_file(text_chat *chat, const char *path,
                                lori_error *err)
{
    char *text;
    size_t n;
    lori_status st = base_file_read(path, JINJA_MAX_SOURCE, &text, &n, err);
    if (st != LORI_OK)
        return base_prefix(err, st,
                           "chat template (a file, or one of alpaca, llama3, "
                           "chatml, none)");
    st = compile_one(chat, path, text, n, err);
    free(text);
    return st;
}

/* BOS, where encoding with special tokens begins with it. */
static lori_status own_bos(text_chat *chat, const text_tokenizer *tok,
                           lori_error *err)
{
    text_ids ids = {0};
    BASE_TRY(text_encode(tok, "", 0, TEXT_ADD_SPECIAL, &ids, err));
    bool adds = ids.n > 0 && text_bos(tok) >= 0 && ids.ids[0] == text_bos(tok);
    const char *bos = adds ? text_token(tok, text_bos(tok)) : "";
    text_ids_free(&ids);
    if (json_object_set_new(chat->names, "bos", json_string(bos)) != 0)
        return base_no_memory(err, strlen(bos));
    return LORI_OK;
}

static lori_status compile_choice(text_chat *chat, const text_tokenizer *tok,
                                  const char *choice, lori_error *err)
{
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (strcmp(choice, own[i].name) != 0)
            continue;
        BASE_TRY(own_bos(chat, tok, err));
        return compile_one(chat, own[i].name, own[i].text, strlen(own[i].text),
                           err);
    }
    return compile_file(chat, choice, err);
}

lori_status text_chat_open(const text_tokenizer *tok, const char *choice,
                           text_chat **out, lori_error *err)
{
    *out = NULL;
    text_chat *chat = base_alloc(1, sizeof *chat);
    if (!chat)
        return base_no_memory(err, sizeof *chat);
    chat->names = tok->named ? json_copy(tok->named) : json_object();
    lori_status st = LORI_OK;
    if (!chat->names)
        st = base_no_memory(err, 0);
    else if (choice)
        st = compile_choice(chat, tok, choice, err);
    else
        st = compile_folder(chat, tok, err);
    if (st == LORI_OK)
        *out = chat;
    else
        text_chat_close(chat);
    return st;
}

void text_chat_close(text_chat *chat)
{
    if (!chat)
        return;
    for (size_t i = 0; i < chat->n; i++) {
        jinja_template_free(chat->template[i].template);
        free(chat->template[i].name);
    }
    json_decref(chat->names);
    free(chat->template);
    free(chat);
}

/* ---- choosing
 * --------------------------------------------------------------------- */

static const named_template *find(const text_chat *chat, const char *name)
{
    for (size_t i = 0; i < chat->n; i++)
        if (strcmp(chat->template[i].name, name) == 0)
            return &chat->template[i];
    return NULL;
}

static lori_status choose(const text_chat *chat, const text_chat_input *in,
                          const jinja_template **out, lori_error *err)
{
    const named_template *t = NULL;
    base_str names = {0};
    if (in->name)
        t = find(chat, in->name);
    else if (in->tools)
        t = find(chat, "tool_use");
    if (!t && !in->name)
        t = find(chat, "default");
    if (t) {
        *out = t->template;
        return t->status == LORI_OK
                   ? LORI_OK
                   : base_fail(err, t->status, "%s", t->error.message);
    }
    for (size_t i = 0; i < chat->n; i++)
        base_str_printf(&names, "%s'%s'", i ? ", " : "",
                        chat->template[i].name);
    lori_status st =
        base_fail(err, LORI_NOT_FOUND, "no chat template '%s' (there %s %s)",
                  in->name ? in->name : "default", chat->n == 1 ? "is" : "are",
                  names.s ? names.s : "none");
    base_str_free(&names);
    return st;
}

/* ---- the variables
 * ------------------------------------------------------------------ */

static const char *const reasoning[] = {"reasoning_content", "thinking",
                                        "reasoning"};

/* Reasoning that goes by one of its names is there by those that templates
 * read. "thinking" stands first, as transformers puts it. */
static void add_reasoning(json_t *message, const json_t *from)
{
    for (int k = 0; k < 3; k++) {
        json_t *value = json_object_get(from, reasoning[k]);
        if (!value || json_is_null(value))
            continue;
        json_object_set(message, "thinking", value);
        return;
    }
}

/* The message without members that are null. New reference. */
static json_t *normalize(json_t *from)
{
    json_t *message = json_object();
    add_reasoning(message, from);
    json_t *value = json_object_get(message, "thinking");
    json_incref(value);
    for (void *it = json_object_iter(from); it;
         it = json_object_iter_next(from, it))
        if (!json_is_null(json_object_iter_value(it)))
            json_object_set(message, json_object_iter_key(it),
                            json_object_iter_value(it));
    if (value)
        json_object_set(message, "reasoning_content", value);
    json_decref(value);
    return message;
}

static lori_status normalize_all(json_t *messages, json_t *out, lori_error *err)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return base_fail(err, LORI_INVALID,
                         json_is_array(messages)
                             ? "a chat without messages"
                             : "the messages of a chat are no list");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *message = json_array_get(messages, i);
        if (!json_is_object(message))
            return base_fail(err, LORI_INVALID,
                             "chat message %zu is %s, expected an object", i,
                             format_json_kind(message));
        if (json_array_append_new(out, normalize(message)) != 0)
            return base_no_memory(err, 0);
    }
    return LORI_OK;
}

static lori_status check_list(json_t *list, const char *what, bool objects,
                              lori_error *err)
{
    if (list && !json_is_array(list))
        return base_fail(err, LORI_INVALID,
                         "the %s of a chat are %s, expected "
                         "a list",
                         what, format_json_kind(list));
    for (size_t i = 0; objects && i < json_array_size(list); i++)
        if (!json_is_object(json_array_get(list, i)))
            return base_fail(err, LORI_INVALID,
                             "chat: %s %zu is %s, expected an object", what, i,
                             format_json_kind(json_array_get(list, i)));
    return LORI_OK;
}

/* Variables of the caller come before special tokens, and the four that the
 * call itself sets before all. New reference. */
static lori_status build(const text_chat *chat, const text_chat_input *in,
                         json_t **out, lori_error *err)
{
    BASE_TRY(check_list(in->tools, "tools", true, err));
    BASE_TRY(check_list(in->documents, "documents", true, err));
    if (in->variables && !json_is_object(in->variables))
        return base_fail(err, LORI_INVALID,
                         "the variables of a chat template "
                         "are no object");
    json_t *context = json_copy(chat->names), *messages = json_array();
    lori_status st = context && messages ? LORI_OK : base_no_memory(err, 0);
    if (st == LORI_OK && in->variables)
        json_object_update(context, in->variables);
    if (st == LORI_OK)
        st = normalize_all(in->messages, messages, err);
    if (st == LORI_OK) {
        json_object_set(context, "messages", messages);
        json_object_set_new(context, "tools",
                            in->tools ? json_incref(in->tools) : json_null());
        json_object_set_new(context, "documents",
                            in->documents ? json_incref(in->documents)
                                          : json_null());
        json_object_set_new(context, "add_generation_prompt",
                            json_boolean(in->add_generation_prompt));
    }
    json_decref(messages);
    if (st == LORI_OK)
        *out = context;
    else
        json_decref(context);
    return st;
}

/* ---- continuing the final message
 * ------------------------------------------------------ */

#define TAG       "CONTINUE_FINAL_MESSAGE_TAG "
#define TAG_BYTES (sizeof TAG - 1)

/* Puts `value` with the tag behind it into owner[key]. */
static lori_status tag(json_t *owner, const char *key, const json_t *value,
                       lori_error *err)
{
    base_str text = {0};
    base_str_add(&text, json_string_value(value), json_string_length(value));
    base_str_puts(&text, TAG);
    int set = text.failed ? -1
                          : json_object_set_new(owner, key,
                                                json_stringn(text.s, text.len));
    base_str_free(&text);
    return set == 0 ? LORI_OK : base_no_memory(err, 0);
}

/* Tags the last message's content, or the last text among its parts; *final is
 * what it was. New reference. */
static lori_status tag_final(json_t *messages, json_t **final, lori_error *err)
{
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    json_t *content = json_object_get(last, "content");
    *final = NULL;
    if (json_is_string(content)) {
        *final = json_incref(content);
        return tag(last, "content", content, err);
    }
    for (size_t i = json_array_size(content); i-- > 0;) {
        json_t *text = json_object_get(json_array_get(content, i), "text");
        if (!json_is_string(text))
            continue;
        json_t *copy = json_deep_copy(content);
        if (!copy || json_object_set_new(last, "content", copy) != 0)
            return base_no_memory(err, 0);
        *final = json_incref(text);
        return tag(json_array_get(copy, i), "text", text, err);
    }
    return base_fail(err, LORI_INVALID,
                     "the final message has no text content to continue");
}

static jinja_value stripped(const char *s, size_t n, bool left)
{
    return jinja_strip(jinja_str(s, n), jinja_none(), left, true);
}

/* Cuts the text at the tag. Where the template trimmed the content, the white
 * space at its end goes, too. */
static lori_status cut(base_str *text, const json_t *final, lori_error *err)
{
    jinja_value all = jinja_str(text->s ? text->s : "", text->len);
    jinja_value words =
        stripped(json_string_value(final), json_string_length(final), true);
    size_t at = jinja_find_last(all, jinja_str(TAG, TAG_BYTES - 1));
    if (at == SIZE_MAX || jinja_find(all, words, 0) == SIZE_MAX)
        return base_fail(err, LORI_INVALID,
                         "the final message cannot be continued: the template "
                         "does not print it as it is");
    bool spaced = text->len - at >= TAG_BYTES &&
                  memcmp(text->s + at, TAG, TAG_BYTES) == 0;
    text->len = spaced ? at : stripped(text->s, at, false).n;
    return LORI_OK;
}

lori_status text_chat_render(const text_chat *chat, const text_chat_input *in,
                             base_str *out, lori_error *err)
{
    const jinja_template *template = NULL;
    json_t *context = NULL, *final = NULL;
    base_str text = {0};
    if (in->continue_final_message && in->add_generation_prompt)
        return base_fail(err, LORI_INVALID,
                         "continue_final_message and add_generation_prompt "
                         "exclude each other");
    BASE_TRY(choose(chat, in, &template, err));
    lori_status st = build(chat, in, &context, err);
    if (st == LORI_OK && in->continue_final_message)
        st = tag_final(json_object_get(context, "messages"), &final, err);
    if (st == LORI_OK)
        st = jinja_render(template, context,
                          in->now_s ? in->now_s : (int64_t)time(NULL), &text,
                          err);
    if (st == LORI_OK && final)
        st = cut(&text, final, err);
    if (st == LORI_OK) {
        base_str_add(out, text.len ? text.s : "", text.len);
        if (out->failed)
            st = base_no_memory(err, text.len);
    }
    base_str_free(&text);
    json_decref(final);
    json_decref(context);
    return st;
}

lori_status text_chat_user(const text_chat *chat, const char *words,
                           base_str *out, lori_error *err)
{
    json_t *messages = json_pack("[{ssss}]", "role", "user", "content", words);
    if (!messages)
        return base_fail(err, LORI_INVALID, "the prompt is not UTF-8");
    text_chat_input input = {.messages = messages,
                             .add_generation_prompt = true};
    lori_status st = text_chat_render(chat, &input, out, err);
    json_decref(messages);
    return st;
}
