/* test_generate.c - batches equal single runs, the cache equals recomputation,
 * requests end as they should. On random models: a wrong page, position or row
 * changes the tokens. */
#include <math.h>
#include <stdlib.h>

#include "infer/infer_i.h"
#include "model/tiny_model.h"

enum { MANY = 11, LONGEST = 330 };

/* Prompts of mixed lengths: one token, around a page, several pages, and so
 * many that prompts are split over steps. */
typedef struct load {
    infer_request request[MANY];
    int32_t prompt[MANY][LONGEST];
} load;

static void make_load(load *l, int64_t vocab, bool sample)
{
    static const int lengths[MANY] = {1,   63,  64, 65,  330, 2,
                                      128, 200, 17, 300, 5};
    static const int news[MANY] = {70, 3, 1, 5, 20, 66, 1, 9, 30, 2, 12};
    base_rng rng;
    base_rng_start(&rng, 8, 8);
    for (int i = 0; i < MANY; i++) {
        for (int k = 0; k < lengths[i]; k++)
            l->prompt[i][k] = (int32_t)base_rng_below(&rng, (uint64_t)vocab);
        l->request[i] = (infer_request){.prompt = l->prompt[i],
                                        .n_prompt = lengths[i],
                                        .max_new_tokens = news[i]};
        if (sample)
            l->request[i].sampling =
                (infer_sampling){.sample = true,
                                 .temperature = 0.9,
                                 .top_k = 40,
                                 .top_p = 0.95,
                                 .seed = 100 + (uint64_t)i};
    }
}

/* With an engine of its own. */
static lori_status go(tiny *t, const infer_request *q, int64_t n,
                      int64_t max_batch, const infer_hooks *hooks,
                      infer_result *results, lori_error *err)
{
    infer_limits limits = {.max_batch = max_batch};
    infer_engine *e = NULL;
    cr_assert_eq(infer_engine_new(t->m, &limits, &e, err), LORI_OK);
    lori_status st = infer_run(e, q, n, hooks, results, err);
    infer_engine_free(e);
    return st;
}

static lori_status score(tiny *t, infer_score_item *items, int64_t n,
                         int64_t step_tokens, const lori_ui *ui,
                         lori_error *err)
{
    infer_limits limits = {.step_tokens = step_tokens};
    infer_engine *e = NULL;
    cr_assert_eq(infer_engine_new(t->m, &limits, &e, err), LORI_OK);
    lori_status st = infer_score(e, items, n, ui, err);
    infer_engine_free(e);
    return st;
}

static void run(tiny *t, const infer_request *q, int64_t n, int64_t max_batch,
                infer_result *results)
{
    lori_error err = {0};
    infer_request with[MANY];
    for (int64_t i = 0; i < n; i++) {
        with[i] = q[i];
        with[i].adapter = t->ma;
        with[i].adapter_key = t->ma != NULL;
    }
    cr_assert_eq(go(t, with, n, max_batch, NULL, results, &err), LORI_OK, "%s",
                 err.message);
}

static void same_results(const infer_result *x, const infer_result *y)
{
    cr_assert_eq(x->n, y->n);
    cr_assert_eq(x->finish, y->finish);
    for (int64_t i = 0; i < x->n; i++) {
        cr_assert_eq(x->ids[i], y->ids[i], "token %lld", (long long)i);
        /* Other batch shapes may sum in another order: f32 rounding. */
        cr_assert_float_eq(x->logprob[i], y->logprob[i], 1e-4);
    }
}

/* Every token of every batch size equals the request's own run. */
static void batch_equals_single(const char *backend, base_dtype dtype,
                                bool sample)
{
    tiny_spec spec = {.family = "mistral", .window = 90, .seed = 4};
    tiny t = tiny_open(&spec, backend, dtype, 1);
    tiny_adapt(&t, 3, 5);
    static load l;
    make_load(&l, 101, sample);
    infer_result single[MANY], many[MANY];
    for (int i = 0; i < MANY; i++) {
        run(&t, &l.request[i], 1, 1, &single[i]);
        cr_assert_eq(single[i].n, l.request[i].max_new_tokens);
        cr_assert_eq(single[i].finish, INFER_LENGTH);
    }
    const int64_t batches[] = {1, 3, 0};
    for (int b = 0; b < 3; b++) {
        run(&t, l.request, MANY, batches[b], many);
        for (int i = 0; i < MANY; i++)
            same_results(&single[i], &many[i]);
        infer_results_free(many, MANY);
    }
    infer_results_free(single, MANY);
    tiny_close(&t);
}

Test(generate, batch_equals_single_ref)
{
    batch_equals_single("ref", BASE_F32, false);
}

Test(generate, batch_equals_single_cpu)
{
    batch_equals_single("cpu", BASE_F32, false);
}

Test(generate, sampled_batch_equals_single)
{
    batch_equals_single("cpu", BASE_F32, true);
}

/* The tokens and log-probabilities are those of the whole text in one pass
 * without a cache. f64: the passes differ by rounding only. */
Test(generate, cache_equals_recomputation)
{
    tiny_spec spec = {.seed = 6, .rope = MODEL_ROPE_LLAMA3};
    tiny t = tiny_open(&spec, "ref", BASE_F64, 1);
    tiny_adapt(&t, 2, 7);
    enum { P = 70, N = 90, T = P + N, V = 101 };
    int32_t ids[T], cu[2] = {0, T - 1}, row[N];
    base_rng rng;
    base_rng_start(&rng, 1, 1);
    for (int i = 0; i < P; i++)
        ids[i] = (int32_t)base_rng_below(&rng, V);
    infer_request q = {.prompt = ids, .n_prompt = P, .max_new_tokens = N};
    infer_result r;
    run(&t, &q, 1, 0, &r);
    cr_assert_eq(r.n, N);
    for (int i = 0; i < N; i++) {
        ids[P + i] = r.ids[i];
        row[i] = P + i - 1;
    }
    model_limits limits = {.tokens = T, .seqs = 1, .rows = N, .rank = 2};
    model_run *pass = NULL;
    cr_assert_eq(model_run_new(t.m, &limits, &pass, NULL), LORI_OK);
    double *logits = base_alloc(N * V, sizeof *logits);
    model_batch b = {T - 1, 1, N, ids, cu, row, NULL, NULL};
    cr_assert_eq(model_logits(pass, &b, t.ma, logits, NULL), LORI_OK);
    int changes = 0;
    for (int i = 0; i < N; i++) {
        const double *x = logits + i * V;
        int best = 0;
        double sum = 0;
        for (int v = 1; v < V; v++)
            best = x[v] > x[best] ? v : best;
        for (int v = 0; v < V; v++)
            sum += exp(x[v] - x[best]);
        cr_assert_eq(r.ids[i], best, "token %d", i);
        /* Sampling sees floats: 2^-24 of logits below 16. */
        cr_assert_float_eq(r.logprob[i], -log(sum), 2e-6);
        changes += i > 0 && r.ids[i] != r.ids[i - 1];
    }
    cr_assert_gt(changes, 2); /* not one token repeated, which proves little */
    /* The infer_score of the same text gives the same numbers. */
    double nll[N];
    infer_score_item item = {ids, T, P, nll, t.ma, 1};
    cr_assert_eq(score(&t, &item, 1, 0, NULL, NULL), LORI_OK);
    for (int i = 0; i < N; i++)
        cr_assert_float_eq(nll[i], -r.logprob[i], 2e-6);
    free(logits);
    model_run_free(pass);
    infer_results_free(&r, 1);
    tiny_close(&t);
}

/* ---- how requests end ----------------------------------------------- */

static tiny small(void)
{
    tiny_spec spec = {.seed = 9};
    return tiny_open(&spec, "cpu", BASE_F32, 1);
}

Test(generate, stops)
{
    tiny t = small();
    const int32_t prompt[] = {5, 6, 7};
    infer_request q = {.prompt = prompt,
                       .n_prompt = 3,
                       .max_new_tokens = 40,
                       .sampling = {.sample = true,
                                    .temperature = 1.5,
                                    .top_k = 0,
                                    .top_p = 1,
                                    .seed = 3}};
    infer_result full, cut;
    run(&t, &q, 1, 0, &full);
    cr_assert_eq(full.n, 40);
    /* Stop at the token that comes 8th, wherever it comes first. */
    int64_t first = 0;
    while (full.ids[first] != full.ids[7])
        first++;
    const int32_t stops[] = {100000, full.ids[7]};
    q.stops = stops;
    q.n_stops = 2;
    run(&t, &q, 1, 0, &cut);
    cr_assert_eq(cut.n, first + 1);
    cr_assert_eq(cut.finish, INFER_STOP);
    cr_assert_eq(cut.ids[first], full.ids[7]); /* included */
    cr_assert_arr_eq(cut.ids, full.ids, (size_t)cut.n * 4);
    infer_results_free(&cut, 1);
    /* A stop at the very last place is a stop, not the length. */
    q.max_new_tokens = first + 1;
    run(&t, &q, 1, 0, &cut);
    cr_assert_eq(cut.finish, INFER_STOP);
    infer_results_free(&cut, 1);
    infer_results_free(&full, 1);
    tiny_close(&t);
}

Test(generate, seeds)
{
    tiny t = small();
    const int32_t prompt[] = {5, 6, 7};
    infer_request q[3];
    for (int i = 0; i < 3; i++)
        q[i] = (infer_request){.prompt = prompt,
                               .n_prompt = 3,
                               .max_new_tokens = 20,
                               .sampling = {.sample = true,
                                            .temperature = 2,
                                            .top_k = 0,
                                            .top_p = 1,
                                            .seed = i == 2 ? 1 : 2}};
    infer_result r[3];
    run(&t, q, 3, 0, r);
    cr_assert_arr_eq(r[0].ids, r[1].ids, 80); /* by seed, not by place */
    cr_assert_neq(memcmp(r[0].ids, r[2].ids, 80), 0);
    infer_results_free(r, 3);
    tiny_close(&t);
}

typedef struct watch {
    int64_t seen[4];
    int64_t cancel, calls, stop_after;
} watch;

static infer_next on_token(void *context, int64_t request, int32_t id)
{
    watch *w = context;
    cr_assert_geq(id, 0);
    w->seen[request]++;
    w->calls++;
    return request == w->cancel && w->seen[request] == 3 ? INFER_END_CANCEL
                                                         : INFER_GO_ON;
}

static int on_interrupt(void *context)
{
    watch *w = context;
    return w->stop_after && w->calls >= w->stop_after;
}

Test(generate, cancel_and_interrupt)
{
    tiny t = small();
    const int32_t prompt[] = {5, 6, 7};
    infer_request q[4];
    for (int i = 0; i < 4; i++)
        q[i] = (infer_request){
            .prompt = prompt, .n_prompt = 1 + i % 3, .max_new_tokens = 40};
    watch w = {.cancel = 1};
    lori_ui ui = {.context = &w, .interrupted = on_interrupt};
    infer_hooks hooks = {.context = &w, .token = on_token, .ui = &ui};
    infer_result r[4], plain[4];
    run(&t, q, 4, 2, plain);
    cr_assert_eq(go(&t, q, 4, 2, &hooks, r, NULL), LORI_OK);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(r[i].n, i == 1 ? 3 : 40);
        cr_assert_eq(r[i].finish, i == 1 ? INFER_CANCELLED : INFER_LENGTH);
        cr_assert_eq(w.seen[i], r[i].n);
        cr_assert_arr_eq(r[i].ids, plain[i].ids, (size_t)r[i].n * 4);
    }
    infer_results_free(r, 4);
    /* Interrupted: what was made is kept, what was not begun is empty. */
    w = (watch){.cancel = -1, .stop_after = 14};
    lori_error err = {0};
    cr_assert_eq(go(&t, q, 4, 2, &hooks, r, &err), LORI_INTERRUPTED);
    int64_t made = 0;
    for (int i = 0; i < 4; i++) {
        made += r[i].n;
        cr_assert_eq(r[i].finish, INFER_CANCELLED);
        if (r[i].n)
            cr_assert_arr_eq(r[i].ids, plain[i].ids, (size_t)r[i].n * 4);
    }
    cr_assert_eq(made, w.calls);
    cr_assert_eq(r[3].n, 0);
    infer_results_free(r, 4);
    infer_results_free(plain, 4);
    tiny_close(&t);
}

Test(generate, refusals)
{
    tiny t = small(); /* 512 positions, 101 ids */
    int32_t prompt[513] = {5, 101};
    const infer_request good = {
        .prompt = prompt, .n_prompt = 1, .max_new_tokens = 2};
    static const struct {
        int64_t n_prompt, max_new;
        const char *part;
    } rows[] = {
        {0, 2, "no tokens"},
        {513, 0, "max_position_embeddings 512"},
        {1, 512, "max_position_embeddings 512"},
        {1, INT64_MAX, "max_position_embeddings 512"},
        {1, -1, "negative"},
        {2, 2, "id 101"},
    };
    lori_error err = {0};
    infer_result r[2];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        infer_request q[2] = {good, good};
        q[1].n_prompt = rows[i].n_prompt;
        q[1].max_new_tokens = rows[i].max_new;
        cr_assert_eq(go(&t, q, 2, 0, NULL, r, &err), LORI_INVALID);
        cr_assert_not_null(strstr(err.message, rows[i].part), "%s",
                           err.message);
        cr_assert_not_null(strstr(err.message, "request 1"), "%s", err.message);
        cr_assert(!r[0].ids && !r[1].ids && r[0].n == 0);
    }
    infer_request q = good;
    q.sampling = (infer_sampling){
        .sample = true, .temperature = 0, .top_k = 0, .top_p = 1, .seed = 0};
    cr_assert_eq(go(&t, &q, 1, 0, NULL, r, &err), LORI_INVALID);
    cr_assert_not_null(strstr(err.message, "request 0: temperature"));
    /* Exactly all positions are allowed, and none at all. */
    q = good;
    q.max_new_tokens = 511;
    run(&t, &q, 1, 0, r);
    cr_assert_eq(r[0].n, 511);
    infer_results_free(r, 1);
    infer_request two[2] = {good, good};
    two[0].max_new_tokens = 0;
    run(&t, two, 2, 1, r);
    cr_assert(r[0].n == 0 && r[0].finish == INFER_LENGTH && r[1].n == 2);
    infer_results_free(r, 2);
    cr_assert_eq(go(&t, NULL, 0, 0, NULL, NULL, &err), LORI_OK);
    tiny_close(&t);
}

/* ---- scoring -------------------------------------------------------- */

Test(score, packed_equals_alone_and_logits)
{
    tiny_spec spec = {.seed = 12};
    tiny t = tiny_open(&spec, "ref", BASE_F64, 1);
    tiny_adapt(&t, 2, 7);
    enum { N = 6, V = 101 };
    static const int lengths[N] = {2, 40, 7, 1, 90, 12};
    static const int firsts[N] = {1, 30, 1, 1, 2, 12}; /* last: nothing */
    static int32_t ids[N][100];
    static double nll[4][N][100];
    base_rng rng;
    base_rng_start(&rng, 3, 3);
    infer_score_item items[4][N];
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < lengths[i]; k++)
            ids[i][k] = (int32_t)base_rng_below(&rng, V);
        for (int b = 0; b < 4; b++)
            items[b][i] = (infer_score_item){ids[i],    lengths[i], firsts[i],
                                             nll[b][i], t.ma,       1};
    }
    lori_error err = {0};
    const int64_t tokens[] = {0, 50, 1};
    for (int b = 0; b < 3; b++)
        cr_assert_eq(score(&t, items[b], N, tokens[b], NULL, &err), LORI_OK,
                     "%s", err.message);
    for (int i = 0; i < N; i++)
        cr_assert_eq(score(&t, &items[3][i], 1, 0, NULL, &err), LORI_OK);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < lengths[i] - firsts[i]; k++) {
            cr_assert_gt(nll[3][i][k], 0);
            for (int b = 0; b < 3; b++) /* f64: rounding of other orders */
                cr_assert_float_eq(nll[b][i][k], nll[3][i][k], 1e-12);
        }
    /* Item 2 against its logits. */
    model_limits limits = {.tokens = 6, .seqs = 1, .rows = 6, .rank = 2};
    model_run *pass = NULL;
    cr_assert_eq(model_run_new(t.m, &limits, &pass, NULL), LORI_OK);
    static double logits[6 * V];
    int32_t cu[2] = {0, 6}, row[6] = {0, 1, 2, 3, 4, 5};
    model_batch b = {6, 1, 6, ids[2], cu, row, NULL, NULL};
    cr_assert_eq(model_logits(pass, &b, t.ma, logits, NULL), LORI_OK);
    for (int k = 0; k < 6; k++) {
        double sum = 0;
        for (int v = 0; v < V; v++)
            sum += exp(logits[k * V + v]);
        cr_assert_float_eq(nll[0][2][k],
                           log(sum) - logits[k * V + ids[2][k + 1]], 1e-12);
    }
    model_run_free(pass);
    tiny_close(&t);
}

static int stop_now(void *context)
{
    (void)context;
    return 1;
}

Test(score, refusals)
{
    tiny t = small();
    int32_t ids[514] = {1, 2, 3};
    double nll[514];
    static const struct {
        int64_t n, first;
        const char *part;
    } rows[] = {{3, 0, "text 1"},
                {3, 4, "text 1"},
                {0, 1, "text 1"},
                {514, 1, "max_position_embeddings 512"}};
    lori_error err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        infer_score_item items[] = {
            {ids, 3, 1, nll, NULL, 0},
            {ids, rows[i].n, rows[i].first, nll, NULL, 0}};
        cr_assert_eq(score(&t, items, 2, 0, NULL, &err), LORI_INVALID);
        cr_assert_not_null(strstr(err.message, rows[i].part), "%s",
                           err.message);
    }
    infer_score_item item = {ids, 513,  1,
                             nll, NULL, 0}; /* the last is not fed */
    cr_assert_eq(score(&t, &item, 1, 0, NULL, &err), LORI_OK);
    ids[2] = -1;
    cr_assert_eq(score(&t, &item, 1, 0, NULL, &err), LORI_INVALID);
    cr_assert_not_null(strstr(err.message, "id -1"));
    ids[2] = 3;
    lori_ui ui = {.interrupted = stop_now};
    cr_assert_eq(score(&t, &item, 1, 0, &ui, &err), LORI_INTERRUPTED);
    cr_assert_eq(score(&t, NULL, 0, 0, NULL, &err), LORI_OK);
    tiny_close(&t);
}
