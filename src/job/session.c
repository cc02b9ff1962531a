/* session.c - a base model, its tokenizer and at most one adapter, opened to
 * run; and generation from one prompt. */
#include "job/session_i.h"

#include <stdlib.h>

lori_status job_session_open(const lori_session_options *o, const lori_ui *ui,
                             lori_session **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(job_need(o->model, "a model folder", err));
    lori_session *s = base_alloc(1, sizeof *s);
    if (!s)
        return base_no_memory(err, sizeof *s);
    backend_options open = {.name = "cpu",
                            .dtype = job_dtype(o->dtype, BASE_BF16),
                            .n_threads = o->n_threads};
    adapter *ad = NULL;
    lori_status st = backend_open(&open, &s->be, err);
    if (!st)
        st = model_open(o->model, s->be, &s->model, err);
    if (!st)
        st = text_tokenizer_open(o->model, &s->tok, err);
    if (!st && o->adapter)
        st = adapter_read(o->adapter, &ad, err);
    if (!st && ad) {
        st = model_adapter_new(s->model, ad, &s->adapter, err);
        if (st)
            base_prefix(err, st, "%s", o->adapter);
        else if (ad->n_extras)
            base_log(ui, LORI_LOG_INFO,
                     "%s: embedding rows equal the base's and are not needed",
                     o->adapter);
    }
    adapter_free(ad);
    if (st) {
        job_session_close(s);
        return st;
    }
    *out = s;
    return LORI_OK;
}

void job_session_close(lori_session *s)
{
    if (!s)
        return;
    model_adapter_free(s->adapter);
    text_tokenizer_close(s->tok);
    model_close(s->model);
    backend_close(s->be);
    free(s);
}

int64_t session_rank(const lori_session *s)
{
    int64_t rank = 0;
    for (int64_t i = 0; s->adapter && i < s->adapter->n_sites; i++)
        if (s->adapter->sites[i].rank > rank)
            rank = s->adapter->sites[i].rank;
    return rank;
}

/* ---- generate -------------------------------------------------------- */

/* What the token callback needs to stream text. */
typedef struct stream {
    const lori_ui *ui;
    text_stream *decode;
    base_str piece;
    double first_s; /* time of the first token */
    lori_status status;
    lori_error *err;
} stream;

static void flush(stream *s)
{
    if (s->ui && s->ui->text && s->piece.len)
        s->ui->text(s->ui->context, s->piece.s, (int64_t)s->piece.len);
    base_str_clear(&s->piece);
}

static int on_token(void *context, int64_t request, int32_t id)
{
    stream *s = context;
    (void)request;
    if (s->first_s == 0)
        s->first_s = base_now_s();
    s->status = text_stream_put(s->decode, id, &s->piece, s->err);
    flush(s);
    return s->status != LORI_OK || base_interrupted(s->ui);
}

lori_status session_prompt_ids(const lori_session *s,
                               const lori_generate_options *o, text_ids *ids,
                               lori_error *err)
{
    if (!o->prompt) {
        for (int64_t i = 0; i < o->n_ids; i++)
            BASE_TRY(text_ids_add(ids, o->ids[i], err));
        if (ids->n)
            return LORI_OK;
        return base_fail(err, LORI_INVALID,
                         "no prompt: give text or token ids");
    }
    if (!o->chat)
        return text_encode(s->tok, o->prompt, strlen(o->prompt),
                           TEXT_ADD_SPECIAL, ids, err);
    text_message messages[2];
    size_t n = 0;
    if (o->system)
        messages[n++] = (text_message){"system", o->system};
    messages[n++] = (text_message){"user", o->prompt};
    base_str text = {0};
    lori_status st = text_chat_render(s->tok, messages, n, true, &text, err);
    if (!st)
        st = text.failed ? base_no_memory(err, text.len)
                         : text_encode(s->tok, text.s, text.len, 0, ids, err);
    base_str_free(&text);
    return st;
}

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

static lori_status generate_report(const lori_session *s, const text_ids *ids,
                                   const infer_result *r, double start_s,
                                   double first_s, lori_report **out,
                                   lori_error *err)
{
    base_str text = {0};
    BASE_TRY(text_decode(s->tok, r->ids, (size_t)r->n, TEXT_SKIP_SPECIAL, &text,
                         err));
    base_str_puts(&text, "");
    double now = base_now_s(), wait = first_s > 0 ? first_s - start_s : 0;
    double rest = first_s > 0 ? now - first_s : 0;
    double rate = r->n > 1 && rest > 0 ? (double)(r->n - 1) / rest : 0;
    json_t *logprobs = json_array();
    for (int64_t i = 0; i < r->n; i++)
        json_array_append_new(logprobs, json_real(r->logprob[i]));
    json_t *facts = json_pack(
        "{ss#sssIsIsososfsf}", "text", text.s ? text.s : "", (int)text.len,
        "finish_reason", finish_name(r->finish), "prompt_tokens",
        (json_int_t)ids->n, "completion_tokens", (json_int_t)r->n, "ids",
        session_ids_json(r->ids, r->n), "logprobs", logprobs, "first_token_s",
        wait, "tokens_per_s", rate);
    return report_new(facts, &text, out, err);
}

lori_status job_generate(lori_session *s, const lori_generate_options *o,
                         const lori_ui *ui, lori_report **out, lori_error *err)
{
    *out = NULL;
    infer_sampling sampling = {.sample = o->temperature > 0,
                               .temperature = o->temperature,
                               .top_k = o->top_k,
                               .top_p = o->top_p > 0 ? o->top_p : 1,
                               .seed = o->seed};
    if (o->temperature < 0 || o->max_new_tokens < 0)
        return base_fail(err, LORI_INVALID,
                         "temperature and max new tokens cannot be negative");
    if (sampling.sample)
        BASE_TRY(infer_sampling_check(&sampling, err));
    text_ids ids = {0};
    stream st = {.ui = ui, .err = err};
    infer_result result = {0};
    lori_status status = session_prompt_ids(s, o, &ids, err);
    if (!status)
        status = check_ids(s, &ids, err);
    if (!status)
        status = text_stream_new(s->tok, TEXT_SKIP_SPECIAL, &st.decode, err);
    infer_request request = {.prompt = ids.ids,
                             .n_prompt = (int64_t)ids.n,
                             .max_new_tokens =
                                 o->max_new_tokens ? o->max_new_tokens : 256,
                             .sampling = sampling};
    if (!o->ignore_eos)
        request.stops = text_stops(s->tok, &request.n_stops);
    infer_hooks hooks = {.context = &st, .token = on_token};
    double start = base_now_s();
    if (!status)
        status = infer_generate(s->model, s->adapter, &request, 1, 1, &hooks,
                                &result, err);
    if (!status)
        status = st.status;
    if (!status)
        status = text_stream_end(st.decode, &st.piece, err);
    if (!status)
        flush(&st);
    if (!status)
        status = generate_report(s, &ids, &result, start, st.first_s, out, err);
    text_stream_free(st.decode);
    base_str_free(&st.piece);
    infer_results_free(&result, 1);
    text_ids_free(&ids);
    return status;
}
