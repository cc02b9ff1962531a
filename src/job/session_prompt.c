/* session_prompt.c - from what a caller gives (text, token ids, messages) to
 * the ids of a prompt. */
#include "job/session_i.h"

#include <stdlib.h>

/* ---- messages --------------------------------------------------------- */

static lori_status parse(const char *text, const char *name, json_t **out,
                         lori_error *err)
{
    *out = NULL;
    if (!text)
        return LORI_OK;
    lori_status st = format_json_parse(text, strlen(text), name, out, err);
    return st ? LORI_INVALID : LORI_OK;
}

/* The only call of the chat template. `o` may name documents and variables;
 * `messages` and `tools` are those of `o`, parsed. */
static lori_status render(const lori_session *s, const lori_generate_options *o,
                          json_t *messages, json_t *tools, base_str *out,
                          lori_error *err)
{
    if (!s->chat)
        return base_fail(err, s->chat_status, "%s", s->chat_error.message);
    text_chat_input input = {
        .messages = messages,
        .tools = tools,
        .add_generation_prompt = !o->continue_final_message,
        .continue_final_message = o->continue_final_message != 0};
    lori_status st = parse(o->documents, "documents", &input.documents, err);
    if (!st)
        st = parse(o->chat_template_kwargs, "chat_template_kwargs",
                   &input.variables, err);
    if (!st)
        st = text_chat_render(s->chat, &input, out, err);
    json_decref(input.documents);
    json_decref(input.variables);
    return st;
}

static lori_status encode_messages(const lori_session *s,
                                   const lori_generate_options *o,
                                   json_t *messages, json_t *tools,
                                   text_ids *ids, lori_error *err)
{
    if (json_array_size(messages) == 0)
        return base_fail(err, LORI_INVALID,
                         "messages must be a list of at least one object, not "
                         "%s",
                         format_json_kind(messages));
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);
        if (!json_is_object(m))
            return base_fail(err, LORI_INVALID,
                             "messages[%zu] must be an object with role and "
                             "content, not %s",
                             i, format_json_kind(m));
    }
    base_str text = {0};
    lori_status st = render(s, o, messages, tools, &text, err);
    if (!st) /* the template wrote the special tokens */
        st = text.failed ? base_no_memory(err, text.len)
                         : text_encode(s->tok, text.s, text.len, 0, ids, err);
    base_str_free(&text);
    return st;
}

static lori_status encode_json(const lori_session *s,
                               const lori_generate_options *o, text_ids *ids,
                               lori_error *err)
{
    json_t *messages = NULL, *tools = NULL;
    lori_status st = parse(o->messages, "messages", &messages, err);
    if (!st)
        st = parse(o->tools, "tools", &tools, err);
    if (!st)
        st = encode_messages(s, o, messages, tools, ids, err);
    json_decref(messages);
    json_decref(tools);
    return st;
}

/* `prompt` as a user's message, after a system message if there is one. */
static lori_status encode_chat(const lori_session *s,
                               const lori_generate_options *o, text_ids *ids,
                               lori_error *err)
{
    json_t *messages = json_array(), *tools = NULL;
    if (o->system)
        json_array_append_new(messages, json_pack("{ssss}", "role", "system",
                                                  "content", o->system));
    json_array_append_new(
        messages, json_pack("{ssss}", "role", "user", "content", o->prompt));
    size_t want = o->system ? 2 : 1;
    lori_status st = json_array_size(messages) == want
                         ? parse(o->tools, "tools", &tools, err)
                         : base_fail(err, LORI_INVALID,
                                     "the prompt or system message is not "
                                     "valid UTF-8");
    if (!st)
        st = encode_messages(s, o, messages, tools, ids, err);
    json_decref(messages);
    json_decref(tools);
    return st;
}

/* ---- ids -------------------------------------------------------------- */

static lori_status check_ids(const lori_session *s, const text_ids *ids,
                             lori_error *err)
{
    int64_t vocab = model_get_config(s->model)->vocab;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] < 0 || ids->ids[i] >= vocab)
            return base_fail(err, LORI_INVALID, "token id %d is not in 0..%lld",
                             ids->ids[i], (long long)vocab - 1);
    if (ids->n == 0)
        return base_fail(err, LORI_INVALID, "the prompt is empty");
    return LORI_OK;
}

lori_status session_prompt_ids(const lori_session *s,
                               const lori_generate_options *o, text_ids *ids,
                               lori_error *err)
{
    int given = (o->prompt != NULL) + (o->n_ids > 0) + (o->messages != NULL);
    if (given == 0)
        return base_fail(err, LORI_INVALID,
                         "no prompt: give text, messages or token ids");
    if (given > 1)
        return base_fail(err, LORI_INVALID,
                         "give one of prompt, messages and token ids, not "
                         "several");
    bool chat = o->chat && o->prompt;
    if (!chat && (o->chat || o->system))
        return base_fail(err, LORI_INVALID,
                         "chat and a system message go with a text prompt; "
                         "messages hold their own");
    if (o->tools && !chat && !o->messages)
        return base_fail(err, LORI_INVALID,
                         "tools go with messages or a chat prompt");
    if (o->messages)
        BASE_TRY(encode_json(s, o, ids, err));
    else if (chat)
        BASE_TRY(encode_chat(s, o, ids, err));
    else if (o->prompt)
        BASE_TRY(text_encode(s->tok, o->prompt, strlen(o->prompt),
                             TEXT_ADD_SPECIAL, ids, err));
    for (int64_t i = 0; i < o->n_ids; i++)
        BASE_TRY(text_ids_add(ids, o->ids[i], err));
    return check_ids(s, ids, err);
}

lori_status job_count_tokens(lori_session *s, const lori_generate_options *o,
                             int64_t *out, lori_error *err)
{
    *out = 0;
    text_ids ids = {0};
    lori_status st = session_prompt_ids(s, o, &ids, err);
    if (!st)
        *out = (int64_t)ids.n;
    text_ids_free(&ids);
    return st;
}
