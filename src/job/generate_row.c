/* generate_row.c - a row of a file of prompts as options: which keys there are
 * and what they mean. Refuses wrong types and keys that look misspelt. */
#include "job/session_i.h"

#include <stdlib.h>

/* Other fields of a row belong to the user and are copied to the output. */
static const char *const known[] = {
    "prompt",
    "messages",
    "tools",
    "documents",
    "chat_template_kwargs",
    "continue_final_message",
    "adapter",
    "n",
    "max_new_tokens",
    "min_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "seed",
    "stop",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
};
#define N_KNOWN (sizeof known / sizeof *known)

bool session_row_known(const char *key)
{
    for (size_t i = 0; i < N_KNOWN; i++)
        if (!strcmp(key, known[i]))
            return true;
    return false;
}

static lori_status check_keys(const json_t *object, const char *file,
                              lori_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        /* short names are too near to everything */
        const char *near = session_row_known(key) || strlen(key) < 6
                               ? NULL
                               : base_nearest(key, known, N_KNOWN);
        if (near && strlen(near) >= 6)
            return base_fail(err, LORI_FORMAT,
                             "%s: unknown key '%s'; did you mean '%s'?", file,
                             key, near);
    }
    return LORI_OK;
}

static lori_status read_numbers(const json_t *object, const char *file,
                                lori_generate_options *o, lori_error *err)
{
    const struct {
        const char *key;
        double *at;
    } reals[] = {{"temperature", &o->temperature},
                 {"top_p", &o->top_p},
                 {"min_p", &o->min_p},
                 {"repetition_penalty", &o->repetition_penalty},
                 {"presence_penalty", &o->presence_penalty},
                 {"frequency_penalty", &o->frequency_penalty}};
    const struct {
        const char *key;
        int64_t lo, *at;
    } counts[] = {{"n", 1, &o->n},
                  {"max_new_tokens", 1, &o->max_new_tokens},
                  {"min_new_tokens", 0, &o->min_new_tokens},
                  {"top_k", 0, &o->top_k},
                  {"top_logprobs", 0, &o->top_logprobs}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        BASE_TRY(format_get_f64(object, file, reals[i].key, false, reals[i].at,
                                err));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        BASE_TRY(format_get_i64(object, file, counts[i].key, false,
                                counts[i].lo, INT64_MAX, counts[i].at, err));
    /* In a row, 0 says "off" or "greedy"; in the options, "not said". */
    const json_t *t = json_object_get(object, "temperature");
    if (json_is_number(t))
        o->greedy = json_number_value(t) == 0;
    if (json_is_integer(json_object_get(object, "top_k")) && o->top_k == 0)
        o->top_k = -1;
    if (json_is_number(json_object_get(object, "min_p")) && o->min_p == 0)
        o->min_p = -1;
    return LORI_OK;
}

static lori_status read_flags(const json_t *object, const char *file,
                              lori_generate_options *o, lori_error *err)
{
    bool ignore_eos = o->ignore_eos, logprobs = o->logprobs;
    bool go_on = o->continue_final_message;
    BASE_TRY(
        format_get_bool(object, file, "ignore_eos", false, &ignore_eos, err));
    BASE_TRY(format_get_bool(object, file, "logprobs", false, &logprobs, err));
    BASE_TRY(format_get_bool(object, file, "continue_final_message", false,
                             &go_on, err));
    o->ignore_eos = ignore_eos;
    o->logprobs = logprobs;
    o->continue_final_message = go_on;
    const json_t *chosen = json_object_get(object, "adapter");
    if (json_is_null(chosen))
        o->adapter = "none";
    return format_get_str(object, file, "adapter", false, &o->adapter, err);
}

/* A string or a list of strings. */
static lori_status read_stop(session_row *row, const char *file,
                             lori_error *err)
{
    json_t *stop = json_object_get(row->object, "stop");
    if (!stop || json_is_null(stop))
        return LORI_OK;
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    row->stop = base_alloc(n, sizeof *row->stop);
    if (!row->stop)
        return base_no_memory(err, n * sizeof *row->stop);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(stop) ? json_array_get(stop, i) : stop;
        row->stop[i] = json_string_value(s);
        if (!row->stop[i])
            return base_fail(err, LORI_FORMAT,
                             "%s: 'stop' must be a string or a list of "
                             "strings, not %s",
                             file, format_json_kind(s));
    }
    row->o.stop = row->stop;
    row->o.n_stop = (int64_t)n;
    return LORI_OK;
}

/* {"1234": -100, ...}, as OpenAI's */
static lori_status read_bias(session_row *row, const char *file,
                             lori_error *err)
{
    json_t *bias = json_object_get(row->object, "logit_bias");
    if (!bias || json_is_null(bias))
        return LORI_OK;
    size_t n = json_object_size(bias), i = 0;
    row->bias = base_alloc(n, sizeof *row->bias);
    if (!row->bias)
        return base_no_memory(err, n * sizeof *row->bias);
    const char *key;
    json_t *value;
    json_object_foreach(bias, key, value)
    {
        char *end = NULL;
        long id = strtol(key, &end, 10);
        if (end == key || *end || id < 0 || id > INT32_MAX ||
            !json_is_number(value))
            return base_fail(err, LORI_FORMAT,
                             "%s: 'logit_bias' must map token ids to numbers, "
                             "not '%s' to %s",
                             file, key, format_json_kind(value));
        row->bias[i++] =
            (lori_logit_bias){(int32_t)id, json_number_value(value)};
    }
    if (!json_is_object(bias))
        return base_fail(err, LORI_FORMAT,
                         "%s: 'logit_bias' must be an object, not %s", file,
                         format_json_kind(bias));
    row->o.logit_bias = row->bias;
    row->o.n_logit_bias = (int64_t)n;
    return LORI_OK;
}

/* The JSON text of a value of the row; NULL when it is not there. */
static const char *value_text(const session_row *row, const char *key,
                              base_str *out)
{
    const json_t *value = json_object_get(row->object, key);
    if (!value || json_is_null(value))
        return NULL;
    format_json_text(value, 0, out);
    return out->s;
}

static lori_status read_prompt(session_row *row, const char *file,
                               lori_error *err)
{
    lori_generate_options *o = &row->o;
    const json_t *object = row->object;
    BASE_TRY(format_get_str(object, file, "prompt", false, &o->prompt, err));
    o->messages = value_text(row, "messages", &row->messages);
    if (json_object_get(object, "tools"))
        o->tools = value_text(row, "tools", &row->tools);
    if (json_object_get(object, "documents"))
        o->documents = value_text(row, "documents", &row->documents);
    if (json_object_get(object, "chat_template_kwargs"))
        o->chat_template_kwargs =
            value_text(row, "chat_template_kwargs", &row->kwargs);
    if (row->messages.failed || row->tools.failed || row->documents.failed ||
        row->kwargs.failed)
        return base_no_memory(err, row->messages.len + row->tools.len);
    if (!o->prompt == !o->messages)
        return base_fail(err, LORI_FORMAT,
                         "%s: a row needs either \"prompt\" or \"messages\"",
                         file);
    if (o->messages) { /* they hold their own system message */
        o->chat = 0;
        o->system = NULL;
    }
    return LORI_OK;
}

lori_status session_row_init(session_row *row, const json_t *object,
                             const char *file,
                             const lori_generate_options *defaults,
                             int64_t index, lori_error *err)
{
    *row = (session_row){.o = *defaults};
    row->object = json_incref((json_t *)(uintptr_t)object);
    row->o.seed = defaults->seed + (uint64_t)index;
    int64_t seed = -1;
    BASE_TRY(check_keys(object, file, err));
    BASE_TRY(read_prompt(row, file, err));
    BASE_TRY(read_numbers(object, file, &row->o, err));
    BASE_TRY(read_flags(object, file, &row->o, err));
    BASE_TRY(
        format_get_i64(object, file, "seed", false, 0, INT64_MAX, &seed, err));
    if (seed >= 0)
        row->o.seed = (uint64_t)seed;
    BASE_TRY(read_stop(row, file, err));
    return read_bias(row, file, err);
}

void session_row_free(session_row *row)
{
    json_decref(row->object);
    base_str_free(&row->messages);
    base_str_free(&row->tools);
    base_str_free(&row->documents);
    base_str_free(&row->kwargs);
    free(row->stop);
    free(row->bias);
    *row = (session_row){0};
}
