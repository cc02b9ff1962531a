/* generate.c - replies to one question or several: options in, reports out. */
#include "job/session_i.h"

#include <stdlib.h>

/* Whose reply a request makes. */
typedef struct place {
    int64_t ask, reply;
} place;

/* All questions of a call; requests have their tags from infer_run. */
typedef struct call {
    session_ask *asks;
    int64_t n;
    infer_request *requests;
    infer_result *results;
    place *places; /* of each request */
    int64_t n_requests;
    const lori_stream *stream;
} call;

static infer_next on_token(void *context, int64_t tag, int32_t id)
{
    call *c = context;
    place at = c->places[tag];
    return session_ask_token(&c->asks[at.ask], at.reply, id);
}

static bool on_cancelled(void *context, int64_t tag)
{
    const call *c = context;
    return c->stream && c->stream->cancelled &&
           c->stream->cancelled(c->stream->context, c->places[tag].ask);
}

/* The requests of all asks in one list. */
static lori_status collect(call *c, lori_error *err)
{
    for (int64_t i = 0; i < c->n; i++)
        c->n_requests += c->asks[i].n;
    size_t n = (size_t)c->n_requests;
    c->requests = base_alloc(n, sizeof *c->requests);
    c->results = base_alloc(n, sizeof *c->results);
    c->places = base_alloc(n, sizeof *c->places);
    if (!c->requests || !c->results || !c->places)
        return base_no_memory(err, n * sizeof *c->requests);
    int64_t at = 0;
    for (int64_t i = 0; i < c->n; i++) {
        c->asks[i].stream = c->stream;
        c->asks[i].index = i;
        for (int64_t k = 0; k < c->asks[i].n; k++) {
            c->places[at] = (place){i, k};
            c->requests[at++] = c->asks[i].requests[k];
        }
    }
    return LORI_OK;
}

/* The results to their asks. */
static lori_status hand_out(call *c, lori_error *err)
{
    infer_result *from = c->results;
    for (int64_t i = 0; i < c->n; i++) {
        session_ask *ask = &c->asks[i];
        size_t bytes = (size_t)ask->n * sizeof *from;
        memcpy(ask->results, from, bytes);
        memset(from, 0, bytes);
        from += ask->n;
        BASE_TRY(session_ask_end(ask, err));
    }
    return LORI_OK;
}

lori_status session_run(const lori_session *s, session_ask *asks, int64_t n,
                        const lori_stream *stream, const lori_ui *ui,
                        lori_error *err)
{
    call c = {.asks = asks, .n = n, .stream = stream};
    infer_hooks hooks = {
        .context = &c, .token = on_token, .cancelled = on_cancelled, .ui = ui};
    lori_status st = collect(&c, err);
    if (!st)
        st = infer_run(s->engine, c.requests, c.n_requests, &hooks, c.results,
                       err);
    if (!st)
        st = hand_out(&c, err);
    infer_results_free(c.results, c.results ? c.n_requests : 0);
    free(c.requests);
    free(c.results);
    free(c.places);
    return st;
}

/* Seconds to the first token, and the rate after it, of the first reply. */
static void add_times(json_t *facts, const session_ask *ask, double end_s)
{
    double first = ask->replies[0].first_s;
    double rest = first > 0 ? end_s - first : 0;
    int64_t n = ask->results[0].n - 1;
    json_object_set_new(facts, "first_token_s",
                        json_real(first > 0 ? first - ask->start_s : 0));
    json_object_set_new(facts, "tokens_per_s",
                        json_real(n > 0 && rest > 0 ? (double)n / rest : 0));
}

static lori_status ask_all(session_ask *asks, const lori_session *s,
                           const lori_generate_options *o, int64_t n,
                           lori_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        lori_status st = session_ask_init(&asks[i], s, &o[i], err);
        if (st && n > 1)
            base_prefix(err, st, "request %lld", (long long)i);
        if (st)
            return st;
    }
    return LORI_OK;
}

lori_status job_generate_many(lori_session *s, const lori_generate_options *o,
                              int64_t n, const lori_stream *stream,
                              const lori_ui *ui, lori_report **reports,
                              lori_error *err)
{
    for (int64_t i = 0; i < n; i++)
        reports[i] = NULL;
    if (n < 1)
        return LORI_OK;
    session_ask *asks = base_alloc((size_t)n, sizeof *asks);
    if (!asks)
        return base_no_memory(err, (size_t)n * sizeof *asks);
    lori_status st = ask_all(asks, s, o, n, err);
    if (!st)
        st = session_run(s, asks, n, stream, ui, err);
    double end_s = base_now_s();
    for (int64_t i = 0; i < n && !st; i++) {
        json_t *facts = session_ask_facts(&asks[i]);
        add_times(facts, &asks[i], end_s);
        st = report_new(facts, &asks[i].replies[0].shown, &reports[i], err);
    }
    for (int64_t i = 0; i < n && st; i++) {
        job_report_free(reports[i]);
        reports[i] = NULL;
    }
    for (int64_t i = 0; i < n; i++)
        session_ask_free(&asks[i]);
    free(asks);
    return st;
}

lori_status job_generate(lori_session *s, const lori_generate_options *o,
                         const lori_stream *stream, const lori_ui *ui,
                         lori_report **out, lori_error *err)
{
    return job_generate_many(s, o, 1, stream, ui, out, err);
}
