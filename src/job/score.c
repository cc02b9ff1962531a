/* score.c - log-probabilities of a text, of token ids, or of the completions
 * of a dataset; with exact match of greedy answers on request. */
#include "job/session_i.h"

#include <math.h>
#include <stdlib.h>

/* ---- one text -------------------------------------------------------- */

static lori_status text_or_ids(const lori_session *s,
                               const lori_score_options *o, text_ids *ids,
                               lori_error *err)
{
    if (o->text)
        BASE_TRY(text_encode(s->tok, o->text, strlen(o->text), TEXT_ADD_SPECIAL,
                             ids, err));
    for (int64_t i = 0; !o->text && i < o->n_ids; i++)
        BASE_TRY(text_ids_add(ids, o->ids[i], err));
    const model_config *c = model_get_config(s->model);
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] < 0 || ids->ids[i] >= c->vocab)
            return base_fail(err, LORI_INVALID, "token id %d is not in 0..%lld",
                             ids->ids[i], (long long)c->vocab - 1);
    if (ids->n < 1)
        return base_fail(err, LORI_INVALID, "nothing to score");
    if ((int64_t)ids->n > c->max_positions)
        return base_fail(err, LORI_INVALID,
                         "%zu tokens, but the model's context is %lld", ids->n,
                         (long long)c->max_positions);
    return LORI_OK;
}

/* The `top` largest of the last position's logits, and their log-sum-exp. */
static lori_status top_tokens(const lori_session *s, const model_adapter *ad,
                              const text_ids *ids, int64_t top, json_t *facts,
                              base_str *text, lori_error *err)
{
    int64_t vocab = model_get_config(s->model)->vocab;
    model_limits limits = {.tokens = (int64_t)ids->n,
                           .seqs = 1,
                           .rows = 1,
                           .rank = model_adapter_rank(ad)};
    int32_t cu[2] = {0, (int32_t)ids->n}, row = (int32_t)ids->n - 1;
    model_batch batch = {.n_tokens = (int64_t)ids->n,
                         .n_seqs = 1,
                         .n_rows = 1,
                         .ids = ids->ids,
                         .cu = cu,
                         .row = &row};
    float *logits = base_alloc((size_t)vocab, sizeof *logits);
    model_run *run = NULL;
    if (!logits)
        return base_no_memory(err, (size_t)vocab * sizeof *logits);
    lori_status st = model_run_new(s->model, &limits, &run, err);
    if (!st)
        st = model_logits(run, &batch, ad, logits, err);
    model_run_free(run);
    double max = -(double)INFINITY, sum = 0;
    for (int64_t i = 0; !st && i < vocab; i++)
        max = fmax(max, (double)logits[i]);
    for (int64_t i = 0; !st && i < vocab; i++)
        sum += exp((double)logits[i] - max);
    json_t *list = json_array();
    for (int64_t k = 0; !st && k < top && k < vocab; k++) {
        int64_t best = 0;
        for (int64_t i = 1; i < vocab; i++)
            best = logits[i] > logits[best] ? i : best;
        const char *token = text_token(s->tok, (int32_t)best);
        double logit = (double)logits[best], p = logit - max - log(sum);
        base_str_printf(text,
                        "  next %-8lld logit %10.6f  logprob %10.6f  %s\n",
                        (long long)best, logit, p, token ? token : "");
        json_array_append_new(list, json_pack("{sIsfsfss?}", "id",
                                              (json_int_t)best, "logit", logit,
                                              "logprob", p, "token", token));
        logits[best] = -INFINITY;
    }
    json_object_set_new(facts, "logsumexp", json_real(max + log(sum)));
    json_object_set_new(facts, "top", list);
    free(logits);
    return st;
}

static lori_status score_text(const lori_session *s, const session_adapter *ad,
                              const lori_score_options *o, const lori_ui *ui,
                              lori_report **out, lori_error *err)
{
    text_ids ids = {0};
    double *nll = NULL, sum = 0;
    json_t *facts = json_object();
    base_str text = {0};
    lori_status st = text_or_ids(s, o, &ids, err);
    int64_t n = st ? 0 : (int64_t)ids.n - 1;
    if (!st && !(nll = base_alloc((size_t)n + 1, sizeof *nll)))
        st = base_no_memory(err, (size_t)n * sizeof *nll);
    infer_score_item item = {ids.ids, n + 1, 1, nll, ad->ma, ad->key};
    if (!st && n > 0)
        st = infer_score(s->engine, &item, 1, ui, err);
    json_t *logprobs = json_array();
    for (int64_t i = 0; !st && i < n; i++) {
        const char *token = text_token(s->tok, ids.ids[i + 1]);
        sum += nll[i];
        base_str_printf(&text, "  %-8d logprob %10.6f  %s\n", ids.ids[i + 1],
                        -nll[i], token ? token : "");
        json_array_append_new(logprobs, json_real(-nll[i]));
    }
    json_object_set_new(facts, "ids",
                        session_ids_json(ids.ids, st ? 0 : (int64_t)ids.n));
    json_object_set_new(facts, "logprobs", logprobs);
    json_object_set_new(facts, "nll", json_real(sum));
    json_object_set_new(facts, "mean_nll",
                        n > 0 ? json_real(sum / (double)n) : json_null());
    if (!st && n > 0)
        base_str_printf(
            &text, "%lld tokens, nll %.6f, mean %.6f, perplexity %.4f\n",
            (long long)n, sum, sum / (double)n, exp(sum / (double)n));
    if (!st && o->top > 0)
        st = top_tokens(s, ad->ma, &ids, o->top, facts, &text, err);
    text_ids_free(&ids);
    free(nll);
    if (!st)
        return report_new(facts, &text, out, err);
    json_decref(facts);
    base_str_free(&text);
    return st;
}

/* ---- a dataset ------------------------------------------------------- */

/* "prompt=question,completion=answer" */
static lori_status parse_columns(const char *list, train_columns *c,
                                 lori_error *err)
{
    const struct {
        const char *name;
        char **at;
    } known[] = {{"prompt", &c->prompt},
                 {"completion", &c->completion},
                 {"instruction", &c->instruction},
                 {"input", &c->input},
                 {"output", &c->output}};
    for (const char *p = list; p && *p;) {
        size_t len = strcspn(p, ","), key = strcspn(p, "=,");
        char **at = NULL;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (key == strlen(known[i].name) && !memcmp(p, known[i].name, key))
                at = known[i].at;
        if (!at || key >= len || key + 1 == len || *at)
            return base_fail(err, LORI_INVALID,
                             "columns: '%.*s' is not prompt=, completion=, "
                             "instruction=, input= or output= and a field name",
                             (int)len, p);
        *at = base_strndup(p + key + 1, len - key - 1);
        if (!*at)
            return base_no_memory(err, len);
        p += len + (p[len] == ',');
    }
    return LORI_OK;
}

static void columns_free(train_columns *c)
{
    free(c->prompt);
    free(c->completion);
    free(c->instruction);
    free(c->input);
    free(c->output);
}

typedef struct answers {
    train_text_row *rows;
    int64_t n;
    text_ids *prompts;       /* [n] */
    infer_request *requests; /* [n] */
    infer_result *results;   /* [n] */
} answers;

static void answers_free(answers *a)
{
    infer_results_free(a->results, a->results ? a->n : 0);
    for (int64_t i = 0; a->prompts && i < a->n; i++)
        text_ids_free(&a->prompts[i]);
    train_texts_free(a->rows, a->n);
    free(a->prompts);
    free(a->requests);
    free(a->results);
}

/* Equal after white space at both ends is left out. */
static bool same_trimmed(const char *x, size_t n, const char *y, size_t m)
{
    static const char space[] = " \t\r\n";
    while (n && strchr(space, *x))
        x++, n--;
    while (m && strchr(space, *y))
        y++, m--;
    while (n && strchr(space, x[n - 1]))
        n--;
    while (m && strchr(space, y[m - 1]))
        m--;
    return n == m && !memcmp(x, y, n);
}

static lori_status prepare_answers(const lori_session *s,
                                   const session_adapter *ad,
                                   const lori_score_options *o,
                                   const train_data_options *data, answers *a,
                                   lori_error *err)
{
    BASE_TRY(train_texts_load(o->data, data, &a->rows, &a->n, err));
    size_t n = (size_t)a->n;
    a->prompts = base_alloc(n, sizeof *a->prompts);
    a->requests = base_alloc(n, sizeof *a->requests);
    a->results = base_alloc(n, sizeof *a->results);
    if (!a->prompts || !a->requests || !a->results)
        return base_no_memory(err, n * sizeof *a->results);
    for (size_t i = 0; i < n; i++) {
        const char *prompt = a->rows[i].prompt;
        infer_request *r = &a->requests[i];
        BASE_TRY(text_encode(s->tok, prompt, strlen(prompt), TEXT_ADD_SPECIAL,
                             &a->prompts[i], err));
        r->prompt = a->prompts[i].ids;
        r->n_prompt = (int64_t)a->prompts[i].n;
        r->max_new_tokens = o->max_new_tokens ? o->max_new_tokens : 128;
        size_t n_stops = 0;
        r->stops = text_stops(s->tok, &n_stops);
        r->n_stops = (int64_t)n_stops;
        r->adapter = ad->ma;
        r->adapter_key = ad->key;
    }
    return LORI_OK;
}

/* Compares each answer; writes a line a row to `lines`. */
static lori_status judge(const lori_session *s, const answers *a,
                         int64_t *matches, base_str *lines, lori_error *err)
{
    base_str text = {0};
    lori_status st = LORI_OK;
    *matches = 0;
    for (int64_t i = 0; i < a->n && !st; i++) {
        base_str_clear(&text);
        st = text_decode(s->tok, a->results[i].ids, (size_t)a->results[i].n,
                         TEXT_SKIP_SPECIAL, &text, err);
        if (st)
            break;
        const char *want = a->rows[i].completion;
        const char *got = text.s ? text.s : "";
        bool match = same_trimmed(got, text.len, want, strlen(want));
        *matches += match;
        json_t *row = json_pack("{sIsssssssb}", "row", (json_int_t)i, "prompt",
                                a->rows[i].prompt, "target", want, "answer",
                                got, "exact_match", (int)match);
        if (!row)
            st = base_no_memory(err, text.len);
        else
            format_json_text(row, 0, lines);
        base_str_puts(lines, "\n");
        json_decref(row);
    }
    base_str_free(&text);
    return st;
}

static lori_status exact_match(const lori_session *s, const session_adapter *ad,
                               const lori_score_options *o,
                               const train_data_options *data,
                               const lori_ui *ui, json_t *facts, base_str *text,
                               lori_error *err)
{
    answers a = {0};
    base_str lines = {0};
    int64_t matches = 0;
    lori_status st = prepare_answers(s, ad, o, data, &a, err);
    infer_hooks hooks = {.ui = ui};
    if (!st)
        st = infer_run(s->engine, a.requests, a.n, &hooks, a.results, err);
    if (!st)
        st = judge(s, &a, &matches, &lines, err);
    if (!st && o->output)
        st = lines.failed ? base_no_memory(err, lines.len)
                          : base_file_write(o->output, lines.s, lines.len, err);
    if (!st) {
        double share = (double)matches / (double)a.n;
        json_object_set_new(facts, "exact_match", json_real(share));
        json_object_set_new(facts, "matches", json_integer(matches));
        base_str_printf(text, "exact match %.4f (%lld of %lld)\n", share,
                        (long long)matches, (long long)a.n);
    }
    base_str_free(&lines);
    answers_free(&a);
    return st;
}

static lori_status score_data(const lori_session *s, const session_adapter *ad,
                              const lori_score_options *o, const lori_ui *ui,
                              lori_report **out, lori_error *err)
{
    train_data_options data = {.prompt_template = o->prompt_template,
                               .max_seq_length =
                                   o->max_seq_length ? o->max_seq_length : 2048,
                               .max_samples = o->max_samples,
                               .completion_only_loss = true};
    train_data *rows = NULL;
    json_t *facts = json_object();
    base_str text = {0};
    double mean = 0;
    lori_status st = parse_columns(o->columns, &data.columns, err);
    if (!st)
        st = train_data_load(o->data, s->tok, &data,
                             model_get_config(s->model)->vocab, ui, &rows, err);
    if (!st)
        st = train_evaluate(s->model, ad->ma, rows, 8, ui, &mean, err);
    if (!st) {
        json_object_set_new(facts, "data", json_string(o->data));
        json_object_set_new(facts, "rows", json_integer(rows->n_rows));
        json_object_set_new(facts, "target_tokens",
                            json_integer(rows->n_targets));
        json_object_set_new(facts, "loss", json_real(mean));
        base_str_printf(&text,
                        "%s: %lld rows, %lld target tokens, loss %.6f, "
                        "perplexity %.4f\n",
                        o->data, (long long)rows->n_rows,
                        (long long)rows->n_targets, mean, exp(mean));
        if (o->exact_match)
            st = exact_match(s, ad, o, &data, ui, facts, &text, err);
    }
    train_data_free(rows);
    columns_free(&data.columns);
    if (!st)
        return report_new(facts, &text, out, err);
    json_decref(facts);
    base_str_free(&text);
    return st;
}

lori_status job_score(lori_session *s, const lori_score_options *o,
                      const lori_ui *ui, lori_report **out, lori_error *err)
{
    *out = NULL;
    int given = (o->text != NULL) + (o->n_ids > 0) + (o->data != NULL);
    if (given != 1)
        return base_fail(err, LORI_INVALID,
                         "score one thing: a text, token ids, or a data file");
    if (!o->data && (o->exact_match || o->output))
        return base_fail(err, LORI_INVALID,
                         "exact match and output need a data file");
    session_adapter ad;
    BASE_TRY(session_find_adapter(s, o->adapter, &ad, err));
    return o->data ? score_data(s, &ad, o, ui, out, err)
                   : score_text(s, &ad, o, ui, out, err);
}
