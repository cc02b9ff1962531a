/* session_ask.c - one question on its way through the engine: options to
 * requests, tokens to text, results to a report. */
#include "job/session_i.h"

#include <math.h>
#include <stdlib.h>

#define DEFAULT_NEW 256
#define MAX_REPLIES 1024
#define MAX_TOP     20

/* ---- options ---------------------------------------------------------- */

static lori_status check_options(const lori_generate_options *o,
                                 lori_error *err)
{
    const struct {
        const char *name;
        double value, lo, hi;
        const char *range;
    } rows[] = {
        {"n", (double)o->n, 0, MAX_REPLIES, "1 to 1024"},
        {"max_new_tokens", (double)o->max_new_tokens, 0, 1e15, ">= 1"},
        {"min_new_tokens", (double)o->min_new_tokens, 0, 1e15, ">= 0"},
        {"top_logprobs", (double)o->top_logprobs, 0, MAX_TOP, "0 to 20"},
        {"temperature", o->temperature, 0, 1e6, "> 0"},
        {"top_k", (double)o->top_k, -1, 1e15, "> 0 (-1: off)"},
        {"top_p", o->top_p, 0, 1, "above 0, at most 1"},
        {"repetition_penalty", o->repetition_penalty, 0, 1e6, "> 0 (1: off)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!(rows[i].value >= rows[i].lo && rows[i].value <= rows[i].hi))
            return base_fail(err, LORI_INVALID, "%s %.10g is not %s",
                             rows[i].name, rows[i].value, rows[i].range);
    if (!(o->min_p == -1 || (o->min_p >= 0 && o->min_p <= 1)))
        return base_fail(err, LORI_INVALID, "min_p %g is not 0 to 1 (-1: off)",
                         o->min_p);
    for (int64_t i = 0; i < o->n_stop; i++)
        if (!o->stop[i] || !*o->stop[i])
            return base_fail(err, LORI_INVALID, "stop string %lld is empty",
                             (long long)i);
    return LORI_OK;
}

/* The request's value, else the folder's, else `otherwise`. */
static double pick(double own, double folder, double otherwise)
{
    return own != 0 ? own : folder != 0 ? folder : otherwise;
}

static void resolve_sampling(const session_defaults *d,
                             const lori_generate_options *o, infer_sampling *s)
{
    bool asked = o->temperature > 0 || o->top_k > 0 || o->min_p > 0 ||
                 (o->top_p > 0 && o->top_p < 1);
    double min_p = pick(o->min_p, d->min_p, 0);
    int64_t top_k = o->top_k ? o->top_k : d->top_k;
    *s = (infer_sampling){
        .sample = !o->greedy && (asked || d->do_sample),
        .temperature = pick(o->temperature, d->temperature, 1),
        .top_k = top_k > 0 ? top_k : 0,
        .top_p = pick(o->top_p, d->top_p, 1),
        .min_p = min_p > 0 ? min_p : 0,
        .repetition_penalty =
            pick(o->repetition_penalty, d->repetition_penalty, 1),
        .presence_penalty = o->presence_penalty,
        .frequency_penalty = o->frequency_penalty,
        .min_new_tokens =
            o->min_new_tokens ? o->min_new_tokens : d->min_new_tokens,
        .seed = o->seed};
}

static lori_status copy_bias(session_ask *ask, const lori_generate_options *o,
                             infer_sampling *s, lori_error *err)
{
    int64_t vocab = model_get_config(ask->s->model)->vocab;
    size_t n = (size_t)o->n_logit_bias;
    ask->bias = base_alloc(n, sizeof *ask->bias);
    if (!ask->bias)
        return base_no_memory(err, n * sizeof *ask->bias);
    for (size_t i = 0; i < n; i++) {
        lori_logit_bias b = o->logit_bias[i];
        if (b.id < 0 || b.id >= vocab)
            return base_fail(err, LORI_INVALID,
                             "logit_bias: token id %d is not in 0..%lld", b.id,
                             (long long)vocab - 1);
        ask->bias[i] = (infer_bias){b.id, b.bias};
    }
    s->bias = ask->bias;
    s->n_bias = o->n_logit_bias;
    return LORI_OK;
}

static lori_status copy_stops(session_ask *ask, const lori_generate_options *o,
                              infer_request *r, lori_error *err)
{
    size_t own = 0;
    const int32_t *folder = text_stops(ask->s->tok, &own);
    size_t more = (size_t)o->n_stop_ids, n = o->ignore_eos ? 0 : own;
    ask->stops = base_alloc(n + more, sizeof *ask->stops);
    if (!ask->stops)
        return base_no_memory(err, (n + more) * sizeof *ask->stops);
    if (n)
        memcpy(ask->stops, folder, n * sizeof *folder);
    if (more)
        memcpy(ask->stops + n, o->stop_ids, more * sizeof *o->stop_ids);
    r->stops = ask->stops;
    r->n_stops = (int64_t)(n + more);
    return LORI_OK;
}

/* A length that somebody asked for must fit; a default is made to fit. */
static lori_status resolve_length(const session_ask *ask,
                                  const lori_generate_options *o, int64_t *out,
                                  lori_error *err)
{
    const session_defaults *d = &ask->s->defaults;
    int64_t context = job_session_context(ask->s);
    int64_t prompt = (int64_t)ask->prompt.n, room = context - prompt;
    if (room < 1 || o->max_new_tokens > room)
        return base_fail(err, LORI_INVALID,
                         "a prompt of %lld tokens and max_new_tokens %lld "
                         "exceed the model's context of %lld; shorten the "
                         "prompt or lower max_new_tokens",
                         (long long)prompt,
                         (long long)(o->max_new_tokens ? o->max_new_tokens : 1),
                         (long long)context);
    int64_t n = o->max_new_tokens;
    if (!n)
        n = d->max_new_tokens        ? d->max_new_tokens
            : d->max_length > prompt ? d->max_length - prompt
                                     : DEFAULT_NEW;
    *out = n < room ? n : room;
    return LORI_OK;
}

static lori_status make_request(session_ask *ask,
                                const lori_generate_options *o,
                                infer_request *r, lori_error *err)
{
    session_adapter ad;
    BASE_TRY(session_find_adapter(ask->s, o->adapter, &ad, err));
    BASE_TRY(session_prompt_ids(ask->s, o, &ask->prompt, err));
    *r = (infer_request){.prompt = ask->prompt.ids,
                         .n_prompt = (int64_t)ask->prompt.n,
                         .top_logprobs = o->top_logprobs,
                         .adapter = ad.ma,
                         .adapter_key = ad.key};
    ask->adapter = ad.name;
    ask->logprobs = o->logprobs || o->top_logprobs > 0;
    BASE_TRY(resolve_length(ask, o, &r->max_new_tokens, err));
    resolve_sampling(&ask->s->defaults, o, &r->sampling);
    BASE_TRY(copy_bias(ask, o, &r->sampling, err));
    BASE_TRY(copy_stops(ask, o, r, err));
    return infer_sampling_check(&r->sampling, err);
}

lori_status session_ask_init(session_ask *ask, const lori_session *s,
                             const lori_generate_options *o, lori_error *err)
{
    infer_request first = {0};
    *ask = (session_ask){.s = s, .start_s = base_now_s(), .err = err};
    BASE_TRY(check_options(o, err));
    BASE_TRY(make_request(ask, o, &first, err));
    size_t n = o->n ? (size_t)o->n : 1;
    ask->requests = base_alloc(n, sizeof *ask->requests);
    ask->results = base_alloc(n, sizeof *ask->results);
    ask->replies = base_alloc(n, sizeof *ask->replies);
    if (!ask->requests || !ask->results || !ask->replies)
        return base_no_memory(err, n * sizeof *ask->requests);
    ask->n = (int64_t)n;
    for (int64_t k = 0; k < ask->n; k++) {
        ask->requests[k] = first;
        ask->requests[k].sampling.seed += (uint64_t)k;
        ask->replies[k].stop = -1;
        BASE_TRY(infer_text_new(s->tok, o->stop, o->n_stop,
                                &ask->replies[k].text, err));
    }
    return LORI_OK;
}

void session_ask_free(session_ask *ask)
{
    for (int64_t k = 0; k < ask->n; k++) {
        infer_text_free(ask->replies[k].text);
        base_str_free(&ask->replies[k].shown);
    }
    infer_results_free(ask->results, ask->n);
    text_ids_free(&ask->prompt);
    free(ask->requests);
    free(ask->results);
    free(ask->replies);
    free(ask->bias);
    free(ask->stops);
    *ask = (session_ask){0};
}

/* ---- tokens to text ---------------------------------------------------- */

/* What `shown` has grown by since it was `from` long. */
static void stream_text(const session_ask *ask, int64_t k, size_t from)
{
    const base_str *text = &ask->replies[k].shown;
    if (ask->stream && ask->stream->text && text->len > from)
        ask->stream->text(ask->stream->context, ask->index, k, text->s + from,
                          (int64_t)(text->len - from));
}

static bool ends(const infer_request *r, int32_t id)
{
    for (int64_t i = 0; i < r->n_stops; i++)
        if (r->stops[i] == id)
            return true;
    return false;
}

infer_next session_ask_token(session_ask *ask, int64_t k, int32_t id)
{
    session_reply *r = &ask->replies[k];
    if (r->first_s == 0)
        r->first_s = base_now_s();
    if (ends(&ask->requests[k], id))
        return INFER_GO_ON; /* the engine ends it; a stop token has no text */
    size_t from = r->shown.len;
    ask->status = infer_text_put(r->text, id, &r->shown, &r->stop, ask->err);
    if (!ask->status && r->shown.failed)
        ask->status = base_no_memory(ask->err, r->shown.len);
    if (ask->status)
        return INFER_END_CANCEL;
    stream_text(ask, k, from);
    return r->stop >= 0 ? INFER_END_STOP : INFER_GO_ON;
}

lori_status session_ask_end(session_ask *ask, lori_error *err)
{
    if (ask->status)
        return ask->status;
    for (int64_t k = 0; k < ask->n; k++) {
        session_reply *r = &ask->replies[k];
        size_t from = r->shown.len;
        if (r->stop < 0)
            BASE_TRY(infer_text_end(r->text, &r->shown, err));
        base_str_puts(&r->shown, "");
        if (r->shown.failed)
            return base_no_memory(err, r->shown.len);
        stream_text(ask, k, from);
    }
    return LORI_OK;
}

/* ---- results to a report ----------------------------------------------- */

static const char *finish_name(infer_finish f)
{
    return f == INFER_STOP     ? "stop"
           : f == INFER_LENGTH ? "length"
                               : "cancelled";
}

json_t *session_ids_json(const int32_t *ids, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static json_t *top_json(const session_ask *ask, const infer_top *top, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) {
        const char *token = text_token(ask->s->tok, top[i].id);
        json_array_append_new(list, json_pack("{sisfss?}", "id", (int)top[i].id,
                                              "logprob", top[i].logprob,
                                              "token", token));
    }
    return list;
}

static json_t *reply_json(const session_ask *ask, int64_t k)
{
    const infer_result *r = &ask->results[k];
    const session_reply *reply = &ask->replies[k];
    json_t *o =
        json_pack("{ss#sssIso}", "text", reply->shown.s, (int)reply->shown.len,
                  "finish_reason", finish_name(r->finish), "completion_tokens",
                  (json_int_t)r->n, "ids", session_ids_json(r->ids, r->n));
    if (!ask->logprobs)
        return o;
    int64_t n_top = ask->requests[k].top_logprobs;
    json_t *logprobs = json_array(), *top = json_array();
    for (int64_t i = 0; i < r->n; i++) {
        json_array_append_new(logprobs, json_real(r->logprob[i]));
        if (n_top)
            json_array_append_new(top,
                                  top_json(ask, r->top + i * n_top, n_top));
    }
    json_object_set_new(o, "logprobs", logprobs);
    if (n_top)
        json_object_set(o, "top_logprobs", top);
    json_decref(top);
    return o;
}

static json_t *sampling_json(const infer_request *r)
{
    const infer_sampling *s = &r->sampling;
    json_t *o = json_pack("{sbsI}", "do_sample", (int)s->sample,
                          "max_new_tokens", (json_int_t)r->max_new_tokens);
    if (s->sample) {
        json_object_set_new(o, "temperature", json_real(s->temperature));
        json_object_set_new(o, "top_k", json_integer(s->top_k));
        json_object_set_new(o, "top_p", json_real(s->top_p));
        json_object_set_new(o, "min_p", json_real(s->min_p));
        json_object_set_new(o, "seed", json_integer((json_int_t)s->seed));
    }
    if (s->repetition_penalty != 1)
        json_object_set_new(o, "repetition_penalty",
                            json_real(s->repetition_penalty));
    if (s->presence_penalty != 0)
        json_object_set_new(o, "presence_penalty",
                            json_real(s->presence_penalty));
    if (s->frequency_penalty != 0)
        json_object_set_new(o, "frequency_penalty",
                            json_real(s->frequency_penalty));
    return o;
}

json_t *session_ask_facts(const session_ask *ask)
{
    json_t *o = json_object();
    if (ask->n == 1) {
        json_decref(o);
        o = reply_json(ask, 0);
    } else {
        json_t *choices = json_array();
        for (int64_t k = 0; k < ask->n; k++)
            json_array_append_new(choices, reply_json(ask, k));
        json_object_set_new(o, "choices", choices);
    }
    json_object_set_new(o, "prompt_tokens",
                        json_integer((json_int_t)ask->prompt.n));
    if (ask->adapter && *ask->adapter)
        json_object_set_new(o, "adapter", json_string(ask->adapter));
    json_object_set_new(o, "sampling", sampling_json(&ask->requests[0]));
    return o;
}
