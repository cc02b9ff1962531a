/* probe_infer.c - what sampling makes of given logits, for the comparison with
 * transformers' processors in tests/oracle/. A developer's tool, not part of
 * the product; only calls src/infer. May include the rooms infer..base.
 *
 *   probe_infer CASES.json
 *
 * CASES: a list of {"logits", "prompt", "reply", "stops", "bias": [[id, b]],
 * "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
 * "min_new_tokens"}. Prints a list of {"processed": logits before the filters
 * (null: -infinity), "ids", "p": what survives the filters}. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "format/format.h"
#include "infer/infer_i.h"

enum { MOST = 4096 };

typedef struct test_case {
    int64_t vocab;
    float logits[MOST];
    int32_t prompt[MOST], reply[MOST], stops[MOST], zeros[MOST];
    infer_bias bias[MOST];
    infer_candidate kept[MOST];
    infer_request q;
    int64_t n_reply;
} test_case;

static int64_t read_ids(const json_t *object, const char *key, int32_t *ids)
{
    const json_t *list = json_object_get(object, key);
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n && i < MOST; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int64_t)n;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void read_case(const json_t *object, test_case *c)
{
    const json_t *logits = json_object_get(object, "logits");
    const json_t *bias = json_object_get(object, "bias");
    c->vocab = (int64_t)json_array_size(logits);
    for (int64_t i = 0; i < c->vocab && i < MOST; i++)
        c->logits[i] =
            (float)json_number_value(json_array_get(logits, (size_t)i));
    for (size_t i = 0; i < json_array_size(bias); i++) {
        const json_t *pair = json_array_get(bias, i);
        c->bias[i] =
            (infer_bias){(int32_t)json_integer_value(json_array_get(pair, 0)),
                         json_number_value(json_array_get(pair, 1))};
    }
    c->q = (infer_request){.prompt = c->prompt, .stops = c->stops};
    c->q.n_prompt = read_ids(object, "prompt", c->prompt);
    c->q.n_stops = read_ids(object, "stops", c->stops);
    c->n_reply = read_ids(object, "reply", c->reply);
    c->q.sampling = (infer_sampling){
        .sample = true,
        .temperature = number(object, "temperature"),
        .top_k = (int64_t)number(object, "top_k"),
        .top_p = number(object, "top_p"),
        .min_p = number(object, "min_p"),
        .repetition_penalty = number(object, "repetition_penalty"),
        .bias = c->bias,
        .n_bias = (int64_t)json_array_size(bias),
        .min_new_tokens = (int64_t)number(object, "min_new_tokens")};
}

static json_t *run_case(test_case *c)
{
    json_t *processed = json_array(), *ids = json_array(), *p = json_array();
    infer_process(c->logits, &c->q, c->reply, c->n_reply, c->zeros);
    for (int64_t i = 0; i < c->vocab; i++)
        json_array_append_new(processed, isfinite(c->logits[i])
                                             ? json_real((double)c->logits[i])
                                             : json_null());
    int64_t n = infer_filter(c->logits, c->vocab, &c->q.sampling, c->kept);
    for (int64_t i = 0; i < n; i++)
        if (c->kept[i].p > 0) {
            json_array_append_new(ids, json_integer(c->kept[i].id));
            json_array_append_new(p, json_real(c->kept[i].p));
        }
    return json_pack("{sososo}", "processed", processed, "ids", ids, "p", p);
}

int main(int argc, char **argv)
{
    lori_error err = {0};
    json_t *cases = NULL, *out = json_array();
    test_case *c = calloc(1, sizeof *c);
    if (argc != 2 || !c) {
        fputs("usage: probe_infer CASES.json\n", stderr);
        return 2;
    }
    lori_status st = format_json_load(argv[1], &cases, &err);
    for (size_t i = 0; !st && i < json_array_size(cases); i++) {
        read_case(json_array_get(cases, i), c);
        st = infer_sampling_check(&c->q.sampling, &err);
        if (!st && c->vocab > MOST)
            st = base_fail(&err, LORI_INVALID, "over %d logits", MOST);
        if (!st)
            json_array_append_new(out, run_case(c));
    }
    base_str text = {0};
    format_json_text(out, 0, &text);
    if (st)
        fprintf(stderr, "probe_infer: %s\n", err.message);
    else
        puts(text.s);
    base_str_free(&text);
    json_decref(cases);
    json_decref(out);
    free(c);
    return st != LORI_OK;
}
