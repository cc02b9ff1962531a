/* test_engine.c - several adapters in one batch, shared prefixes, memory that
 * runs short, requests that come and go: each result stays that of its request
 * alone. On random models, where a wrong page, row or adapter changes it. */
#include <math.h>
#include <stdlib.h>

#include "infer/infer_i.h"
#include "model/tiny_model.h"

enum { V = 101, ADAPTERS = 3 };

/* A model with adapters of ranks 2, 5 and 3. */
typedef struct bench {
    tiny t;
    adapter *ad[ADAPTERS];
    model_adapter *ma[ADAPTERS];
} bench;

static bench bench_open(const char *backend, base_dtype dtype)
{
    static const int64_t ranks[ADAPTERS] = {2, 5, 3};
    tiny_spec spec = {.family = "mistral", .window = 90, .seed = 4};
    bench b = {.t = tiny_open(&spec, backend, dtype, 2)};
    for (int i = 0; i < ADAPTERS; i++) {
        tiny_adapt(&b.t, ranks[i], 50 + (uint64_t)i);
        b.ad[i] = b.t.ad;
        b.ma[i] = b.t.ma;
        b.t.ad = NULL;
        b.t.ma = NULL;
    }
    return b;
}

static void bench_close(bench *b)
{
    for (int i = 0; i < ADAPTERS; i++) {
        model_adapter_free(b->ma[i]);
        adapter_free(b->ad[i]);
    }
    tiny_close(&b->t);
}

static infer_engine *engine(const bench *b, infer_limits limits)
{
    infer_engine *e = NULL;
    lori_error err = {0};
    cr_assert_eq(infer_engine_new(b->t.m, &limits, &e, &err), LORI_OK, "%s",
                 err.message);
    return e;
}

/* which: 0 the base, else an adapter. */
static infer_request ask(const bench *b, const int32_t *prompt, int64_t n,
                         int64_t new, int which)
{
    return (infer_request){.prompt = prompt,
                           .n_prompt = n,
                           .max_new_tokens = new,
                           .top_logprobs = V,
                           .adapter = which ? b->ma[which - 1] : NULL,
                           .adapter_key = (uint64_t)which};
}

static void run(infer_engine *e, const infer_request *q, int64_t n,
                infer_result *r)
{
    lori_error err = {0};
    cr_assert_eq(infer_run(e, q, n, NULL, r, &err), LORI_OK, "%s", err.message);
}

/* In an engine that knows nothing else. */
static infer_result alone(const bench *b, const infer_request *q)
{
    infer_engine *e = engine(b, (infer_limits){.max_batch = 1});
    infer_result r;
    run(e, q, 1, &r);
    infer_engine_free(e);
    return r;
}

/* Ids, and with top_logprobs V the whole distribution. f32: only the order of
 * sums may differ. */
static void same(const infer_result *x, const infer_result *y)
{
    cr_assert_eq(x->n, y->n);
    cr_assert_eq(x->finish, y->finish);
    for (int64_t i = 0; i < x->n; i++)
        cr_assert_eq(x->ids[i], y->ids[i], "token %lld", (long long)i);
    for (int64_t i = 0; x->top && i < x->n * V; i++)
        cr_assert_float_eq(x->top[i].logprob, y->top[i].logprob, 1e-5);
}

static void fill(int32_t *ids, int64_t n, uint64_t seed)
{
    base_rng rng;
    base_rng_start(&rng, seed, 77);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)base_rng_below(&rng, V);
}

/* ---- adapters ---------------------------------------------------------- */

static void mixed_batch(const char *backend)
{
    static const int lengths[8] = {1, 33, 90, 16, 250, 7, 64, 120};
    static const int which[8] = {1, 0, 2, 3, 1, 2, 0, 3};
    bench b = bench_open(backend, BASE_F32);
    static int32_t prompt[8][250];
    infer_request q[8];
    infer_result single[8], many[8];
    for (int i = 0; i < 8; i++) {
        fill(prompt[i], lengths[i], 10 + (uint64_t)i);
        q[i] = ask(&b, prompt[i], lengths[i], 12 + i, which[i]);
        q[i].sampling.seed = (uint64_t)i;
        q[i].sampling.sample = i % 2;
        q[i].sampling.temperature = 1.3;
        q[i].sampling.top_p = 0.95;
        single[i] = alone(&b, &q[i]);
    }
    for (int batch = 2; batch <= 8; batch += 3) {
        infer_engine *e =
            engine(&b, (infer_limits){.max_batch = batch, .step_tokens = 70});
        run(e, q, 8, many);
        for (int i = 0; i < 8; i++)
            same(&single[i], &many[i]);
        infer_results_free(many, 8);
        infer_engine_free(e);
    }
    /* The adapters matter: the same prompt gives four different replies. */
    infer_result other[4];
    for (int i = 0; i < 4; i++) {
        infer_request x = ask(&b, prompt[2], 90, 14, i);
        other[i] = alone(&b, &x);
        for (int k = 0; k < i; k++)
            cr_assert_neq(memcmp(other[i].ids, other[k].ids, 14 * 4), 0);
    }
    infer_results_free(other, 4);
    infer_results_free(single, 8);
    bench_close(&b);
}

Test(engine, mixed_adapters_equal_alone_ref)
{
    mixed_batch("ref");
}

Test(engine, mixed_adapters_equal_alone_cpu)
{
    mixed_batch("cpu");
}

/* ---- shared prefixes ---------------------------------------------------- */

Test(engine, later_prompts_share_what_is_there)
{
    bench b = bench_open("cpu", BASE_F32);
    infer_engine *e = engine(&b, (infer_limits){0});
    int32_t p[100], q[100];
    fill(p, 100, 1);
    memcpy(q, p, sizeof p);
    for (int i = 60; i < 100; i++)
        q[i] = (p[i] + 1) % V;
    const struct {
        const int32_t *prompt;
        int64_t n;
        int which;
        int64_t cached; /* expected */
    } rows[] = {
        {p, 100, 0, 0},  {p, 100, 0, 98}, /* all but the last two tokens */
        {q, 100, 0, 60}, {q, 100, 0, 98}, {p, 57, 0, 55},
        {p, 1, 0, 0},    {p, 100, 2, 0}, /* another adapter: nothing is shared
                                          */
        {q, 80, 2, 60},  {p, 100, 0, 98},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        infer_request x = ask(&b, rows[i].prompt, rows[i].n, 9, rows[i].which);
        infer_result got, want = alone(&b, &x);
        run(e, &x, 1, &got);
        cr_assert_eq(got.n_cached, rows[i].cached, "row %zu: %lld cached", i,
                     (long long)got.n_cached);
        same(&got, &want);
        infer_results_free(&got, 1);
        infer_results_free(&want, 1);
    }
    infer_engine_free(e);
    bench_close(&b);
}

static void same_bits(const infer_result *x, const infer_result *y, int64_t n)
{
    cr_assert_eq(x->n, y->n);
    for (int64_t i = 0; i < x->n; i++)
        cr_assert_eq(x->ids[i], y->ids[i]);
    for (int64_t i = 0; i < x->n * V; i++)
        cr_assert_eq(x->top[i].logprob, y->top[i].logprob,
                     "prompt of %lld tokens, reply's %lld", (long long)n,
                     (long long)(i / V));
}

/* To the bit: whatever of a prompt is there already, and in whatever pieces it
 * is computed beside others. */
static void bits_depend_on_nothing(base_dtype dtype, int64_t window)
{
    enum { N = 9 };
    static const int lengths[N] = {1, 2, 17, 18, 33, 34, 50, 100, 201};
    const tiny_spec spec = {
        .family = window ? "mistral" : NULL, .window = window, .seed = 12};
    bench b = {.t = tiny_open(&spec, "cpu", dtype, 2)};
    static int32_t prompt[N][201];
    infer_request q[2 * N];
    infer_result want[N], got[2 * N];
    for (int i = 0; i < N; i++) {
        fill(prompt[i], lengths[i], 30 + (uint64_t)i / 3); /* some share */
        q[i] = q[N + i] = ask(&b, prompt[i], lengths[i], 5, 0);
        want[i] = alone(&b, &q[i]);
    }
    for (int room = 16; room <= 48; room += 11) {
        infer_engine *e =
            engine(&b, (infer_limits){.max_batch = 3, .step_tokens = room});
        run(e, q, (int64_t)2 * N, got); /* each of them twice */
        for (int i = 0; i < 2 * N; i++)
            same_bits(&want[i % N], &got[i], lengths[i % N]);
        infer_results_free(got, (int64_t)2 * N);
        infer_engine_free(e);
    }
    infer_results_free(want, N);
    tiny_close(&b.t);
}

Test(engine, bits_depend_on_nothing_f32)
{
    bits_depend_on_nothing(BASE_F32, 0);
    bits_depend_on_nothing(BASE_F32, 70);
}

Test(engine, bits_depend_on_nothing_bf16)
{
    bits_depend_on_nothing(BASE_BF16, 0);
    bits_depend_on_nothing(BASE_BF16, 70);
}

/* A conversation: the next prompt is the last one, the reply, and more. */
Test(engine, a_conversation_goes_on)
{
    bench b = bench_open("cpu", BASE_F32);
    infer_engine *e = engine(&b, (infer_limits){0});
    int32_t p[200];
    int64_t n = 21, known = 0;
    fill(p, 200, 5);
    for (int turn = 0; turn < 4; turn++) {
        infer_request x = ask(&b, p, n, 20, 1);
        infer_result got, want = alone(&b, &x);
        run(e, &x, 1, &got);
        same(&got, &want);
        /* Its own first tokens may by chance be like something known. */
        cr_assert_geq(got.n_cached, known);
        cr_assert_leq(got.n_cached, known + 2);
        memcpy(p + n, got.ids, 20 * sizeof *p);
        known = n + 19; /* the last token of a reply is never fed */
        n += 20 + 13;
        infer_results_free(&got, 1);
        infer_results_free(&want, 1);
    }
    infer_engine_free(e);
    bench_close(&b);
}

/* Requests that start together: the pages of the first are read by the others
 * in the very step that computes them. */
Test(engine, requests_of_one_step_share)
{
    bench b = bench_open("cpu", BASE_F32);
    infer_engine *e =
        engine(&b, (infer_limits){.max_batch = 5, .step_tokens = 64});
    int32_t p[5][160];
    infer_request q[5];
    infer_result r[5];
    for (int i = 0; i < 5; i++) {
        fill(p[i], 160, 3);
        fill(p[i] + 130, 30, 100 + (uint64_t)i);
        q[i] = ask(&b, p[i], 150 + 2 * i, 6, i == 3 ? 2 : 0);
        q[i].sampling = (infer_sampling){
            .sample = true, .temperature = 1, .top_p = 1, .seed = 7};
    }
    run(e, q, 5, r);
    for (int i = 0; i < 5; i++) {
        infer_result want = alone(&b, &q[i]);
        same(&r[i], &want);
        infer_results_free(&want, 1);
        /* 130 are alike: eight whole pages, and two tokens where the page
         * that holds them was ready for a copy. */
        int64_t least = i == 0 || i == 3 ? 0 : 128;
        cr_assert(r[i].n_cached == least || r[i].n_cached == least + 2,
                  "request %d: %lld", i, (long long)r[i].n_cached);
    }
    infer_results_free(r, 5);
    infer_engine_free(e);
    bench_close(&b);
}

/* n replies to a prompt: computed once but for the last part of a page. */
Test(engine, replies_to_one_prompt)
{
    bench b = bench_open("cpu", BASE_F32);
    infer_engine *e = engine(&b, (infer_limits){0});
    int32_t p[100];
    infer_request q[6];
    infer_result r[6];
    fill(p, 100, 3);
    for (int i = 0; i < 6; i++) {
        q[i] = ask(&b, p, 100, 30, 0);
        q[i].sampling = (infer_sampling){.sample = true,
                                         .temperature = 1.5,
                                         .top_p = 1,
                                         .seed = (uint64_t)i};
    }
    run(e, q, 6, r);
    for (int i = 0; i < 6; i++) {
        infer_result want = alone(&b, &q[i]);
        same(&r[i], &want);
        infer_results_free(&want, 1);
        cr_assert_eq(r[i].n_cached, i ? 96 : 0);
        for (int k = 0; k < i; k++)
            cr_assert_neq(memcmp(r[i].ids, r[k].ids, 30 * 4), 0);
    }
    infer_results_free(r, 6);
    infer_engine_free(e);
    bench_close(&b);
}

/* ---- memory -------------------------------------------------------------- */

/* Bytes for `pages` pages of the model. */
static int64_t cache_bytes(const bench *b, int64_t pages)
{
    const model_config *c = model_get_config(b->t.m);
    return pages * INFER_PAGE * 2 * c->n_layers * c->n_kv_heads * c->head_dim *
           (int64_t)base_dtype_bytes(model_get_backend(b->t.m)->act);
}

static void nothing_held(const infer_engine *e)
{
    cr_assert_eq(e->promised, 0);
    cr_assert_eq(e->pages.n_free, e->pages.n);
    int64_t listed = 0;
    for (int32_t i = e->pages.oldest; i >= 0; i = e->pages.at[i].newer) {
        const infer_page *page = &e->pages.at[i];
        cr_assert_eq(page->holders, 0);
        cr_assert_eq(page->n, page->ready);
        listed++;
        if (page->parent >= 0 && page->parent != e->pages.n) {
            /* a child comes before its parent, which is full */
            cr_assert_eq(e->pages.at[page->parent].n, INFER_PAGE);
            int32_t k = page->newer;
            while (k >= 0 && k != page->parent)
                k = e->pages.at[k].newer;
            cr_assert_eq(k, page->parent);
        }
    }
    cr_assert_eq(listed, e->pages.n);
}

typedef struct visitor {
    base_rng rng;
    int32_t cancel; /* this tag after a few tokens */
    int64_t seen, most_running;
    const infer_engine *e;
} visitor;

static infer_next on_token(void *context, int64_t tag, int32_t id)
{
    visitor *v = context;
    (void)id;
    if (v->e->n_slots > v->most_running)
        v->most_running = v->e->n_slots;
    return tag == v->cancel && ++v->seen == 3 ? INFER_END_CANCEL : INFER_GO_ON;
}

/* Random requests that begin alike in all sorts of ways, in a cache that holds
 * a fraction of them; now and then one is cancelled. */
Test(engine, little_memory, .timeout = 120)
{
    enum { N = 40, ROUNDS = 6 };
    bench b = bench_open("cpu", BASE_F32);
    infer_engine *e =
        engine(&b, (infer_limits){.max_batch = 6,
                                  .step_tokens = 40,
                                  .cache_bytes = cache_bytes(&b, 14)});
    cr_assert_eq(e->pages.n, 14);
    cr_assert_eq(infer_context(e), 14 * INFER_PAGE);
    static int32_t p[N][200];
    visitor v = {.e = e};
    base_rng_start(&v.rng, 11, 11);
    for (int round = 0; round < ROUNDS; round++) {
        infer_request q[N];
        infer_result r[N];
        for (int i = 0; i < N; i++) {
            int64_t n = 1 + (int64_t)base_rng_below(&v.rng, 199);
            fill(p[i], 200, base_rng_below(&v.rng, 3));
            int64_t from = (int64_t)base_rng_below(&v.rng, 200);
            fill(p[i] + from, 200 - from, base_rng_u32(&v.rng));
            q[i] = ask(&b, p[i], n, (int64_t)base_rng_below(&v.rng, 25),
                       (int)base_rng_below(&v.rng, 4));
            q[i].top_logprobs = 0;
        }
        v.cancel = (int32_t)base_rng_below(&v.rng, N);
        v.seen = 0;
        infer_hooks hooks = {.context = &v, .token = on_token};
        lori_error err = {0};
        cr_assert_eq(infer_run(e, q, N, &hooks, r, &err), LORI_OK, "%s",
                     err.message);
        nothing_held(e);
        for (int i = 0; i < N; i++) {
            infer_result want = alone(&b, &q[i]);
            if (i == v.cancel && want.n >= 3) {
                cr_assert_eq(r[i].n, 3);
                cr_assert_eq(r[i].finish, INFER_CANCELLED);
                want.n = 3;
                want.finish = INFER_CANCELLED;
            }
            cr_assert_eq(r[i].n, want.n);
            cr_assert_eq(r[i].finish, want.finish);
            if (want.n)
                cr_assert_arr_eq(r[i].ids, want.ids, (size_t)want.n * 4);
            infer_results_free(&want, 1);
        }
        infer_results_free(r, N);
    }
    cr_assert_gt(v.most_running, 2); /* it was a batch */
    infer_engine_free(e);
    bench_close(&b);
}

Test(engine, limits)
{
    bench b = bench_open("cpu", BASE_F32);
    int32_t p[100];
    fill(p, 100, 2);
    infer_engine *e =
        engine(&b, (infer_limits){.cache_bytes = cache_bytes(&b, 2)});
    infer_request q = ask(&b, p, 30, 3, 0);
    infer_result r;
    lori_error err = {0};
    cr_assert_eq(infer_run(e, &q, 1, NULL, &r, &err), LORI_INVALID);
    cr_assert_not_null(strstr(err.message, "exceed the context of 32"), "%s",
                       err.message);
    q.max_new_tokens = 2;
    run(e, &q, 1, &r);
    infer_results_free(&r, 1);
    infer_engine_free(e);
    e = engine(&b, (infer_limits){.context = 50});
    cr_assert_eq(infer_context(e), 50);
    infer_engine_free(e);
    infer_limits few = {.cache_bytes = 100};
    cr_assert_eq(infer_engine_new(b.t.m, &few, &e, &err), LORI_INVALID);
    cr_assert_not_null(strstr(err.message, "cache_bytes 100"), "%s",
                       err.message);
    cr_assert_null(e);
    bench_close(&b);
}

/* ---- coming and going ------------------------------------------------------
 */

typedef struct office {
    int64_t done[8], tokens[8];
    int64_t leave; /* this tag is cancelled before it begins */
} office;

static infer_next office_token(void *context, int64_t tag, int32_t id)
{
    office *o = context;
    (void)id;
    o->tokens[tag]++;
    return tag == 5 && o->tokens[tag] == 2 ? INFER_END_STOP : INFER_GO_ON;
}

static bool office_cancelled(void *context, int64_t tag)
{
    const office *o = context;
    return tag == o->leave || (tag == 4 && o->tokens[4] >= 3);
}

static void office_done(void *context, int64_t tag)
{
    ((office *)context)->done[tag]++;
}

Test(engine, requests_come_and_go)
{
    bench b = bench_open("cpu", BASE_F32);
    infer_engine *e = engine(&b, (infer_limits){.max_batch = 3});
    int32_t p[8][20];
    infer_request q[8];
    infer_result r[8];
    office o = {.leave = 6};
    infer_hooks hooks = {.context = &o,
                         .token = office_token,
                         .cancelled = office_cancelled,
                         .done = office_done};
    lori_error err = {0};
    for (int i = 0; i < 8; i++) {
        fill(p[i], 20, 30 + (uint64_t)i);
        q[i] = ask(&b, p[i], 20 - i, i == 7 ? 0 : 10, i % 3);
        q[i].tag = i;
    }
    for (int i = 0; i < 8; i++) { /* one more every two steps */
        cr_assert_eq(infer_submit(e, &q[i], &r[i], &err), LORI_OK);
        for (int k = 0; k < 2; k++)
            cr_assert_eq(infer_step(e, &hooks, &err), LORI_OK);
    }
    while (infer_pending(e))
        cr_assert_eq(infer_step(e, &hooks, &err), LORI_OK);
    cr_assert_eq(infer_step(e, &hooks, &err), LORI_OK); /* nothing to do */
    nothing_held(e);
    for (int i = 0; i < 8; i++) {
        infer_result want = alone(&b, &q[i]);
        cr_assert_eq(o.done[i], 1);
        cr_assert_eq(r[i].n, i == 4 ? 3 : i == 5 ? 2 : i == 6 ? 0 : want.n);
        cr_assert_eq(r[i].finish, i == 4 || i == 6 ? INFER_CANCELLED
                                  : i == 5         ? INFER_STOP
                                                   : INFER_LENGTH);
        if (r[i].n)
            cr_assert_arr_eq(r[i].ids, want.ids, (size_t)r[i].n * 4);
        infer_results_free(&want, 1);
    }
    /* What is forgotten leaves nothing behind. */
    infer_result left, refused;
    cr_assert_eq(infer_submit(e, &q[0], &left, &err), LORI_OK);
    cr_assert_eq(infer_step(e, &hooks, &err), LORI_OK);
    cr_assert_eq(infer_run(e, q, 1, NULL, &refused, &err), LORI_INVALID);
    infer_clear(e);
    cr_assert_eq(infer_pending(e), 0);
    nothing_held(e);
    infer_results_free(&left, 1);
    infer_results_free(r, 8);
    infer_engine_free(e);
    bench_close(&b);
}

/* ---- scoring ----------------------------------------------------------------
 */

/* Choices that share contexts, of several adapters, in one call and each in
 * an engine of its own. */
Test(engine, choices_share_their_context)
{
    enum { N = 24 };
    bench b = bench_open("ref", BASE_F64);
    static int32_t ids[N][140];
    static double got[N][40], want[N][40];
    infer_score_item items[N], one[N];
    for (int i = 0; i < N; i++) {
        int question = i / 4, which = question % 3;
        int64_t context = 20 + 17 * question, n = context + 3 + i % 4;
        fill(ids[i], 140, 60 + (uint64_t)question);
        fill(ids[i] + context, 10, 90 + (uint64_t)i);
        items[i] = (infer_score_item){
            ids[i],         n, context, got[i], which ? b.ma[which - 1] : NULL,
            (uint64_t)which};
        one[i] = items[i];
        one[i].nll = want[i];
        infer_engine *e = engine(&b, (infer_limits){0});
        cr_assert_eq(infer_score(e, &one[i], 1, NULL, NULL), LORI_OK);
        infer_engine_free(e);
    }
    infer_engine *e = engine(&b, (infer_limits){.step_tokens = 100});
    lori_error err = {0};
    cr_assert_eq(infer_score(e, items, N, NULL, &err), LORI_OK, "%s",
                 err.message);
    nothing_held(e);
    for (int i = 0; i < N; i++)
        for (int64_t k = 0; k < items[i].n_ids - items[i].first; k++)
            cr_assert_float_eq(got[i][k], want[i][k], 1e-12); /* f64 */
    infer_engine_free(e);
    bench_close(&b);
}

/* ---- compact copies of the weights --------------------------------------- */

/* Replies of an engine that may spend `bytes` on them. */
static void reply(const tiny *t, int64_t bytes, int64_t n, int32_t (*prompt)[5],
                  int64_t new, infer_result *r)
{
    const infer_limits limits = {.max_batch = n, .compact_bytes = bytes};
    infer_request q[20] = {{0}};
    lori_error err = {0};
    infer_engine *e;
    for (int64_t i = 0; i < n; i++)
        q[i] = (infer_request){
            .prompt = prompt[i], .n_prompt = 5, .max_new_tokens = new};
    cr_assert_eq(infer_engine_new(t->m, &limits, &e, &err), LORI_OK, "%s",
                 err.message);
    run(e, q, n, r);
    infer_engine_free(e);
}

/* Same bits, one reply at a time or many; made once, and not for short ones. */
Test(engine, compact_copies_change_nothing)
{
    enum { MOST = 20, NEW = 70 };
    const tiny_spec spec = {
        .vocab = 128, .d = 64, .ffn = 96, .dtype = BASE_BF16, .seed = 9};
    int32_t prompt[MOST][5];
    infer_result before[MOST], after[MOST], brief[1];
    for (int i = 0; i < MOST; i++)
        fill(prompt[i], 5, (uint64_t)i);
    for (int64_t n = 1; n <= MOST; n += MOST - 1) {
        tiny t = tiny_open(&spec, "cpu", BASE_BF16, 2);
        reply(&t, -1, n, prompt, NEW, before);
        reply(&t, 0, 1, prompt, NEW - 10, brief);
        reply(&t, 0, n, prompt, NEW, after);
        for (int64_t i = 0; i < n; i++) {
            cr_assert_eq(before[i].n, after[i].n);
            cr_assert_arr_eq(before[i].ids, after[i].ids,
                             (size_t)after[i].n * sizeof *after[i].ids);
            cr_assert_arr_eq(before[i].logprob, after[i].logprob,
                             (size_t)after[i].n * sizeof *after[i].logprob);
        }
        cr_assert_eq(model_compact(t.m, 1 << 30), 0, "it was not made");
        infer_results_free(before, n);
        infer_results_free(after, n);
        infer_results_free(brief, 1);
        tiny_close(&t);
    }
}

/* No more than it may be, and on no backend where it would not help. */
Test(engine, compact_copies_keep_to_their_bytes)
{
    const tiny_spec spec = {
        .vocab = 128, .d = 64, .ffn = 96, .dtype = BASE_BF16, .seed = 9};
    tiny t = tiny_open(&spec, "cpu", BASE_BF16, 1);
    tiny f = tiny_open(&spec, "ref", BASE_F32, 1);
    const bool helps = strncmp(t.be->detail, "base", 4) != 0;
    cr_expect_eq(model_compact(t.m, 1000), 0);
    const int64_t some = model_compact(t.m, 30000);
    cr_expect(helps ? some > 10000 && some <= 30000 : some == 0, "%lld",
              (long long)some);
    const int64_t more = model_compact(t.m, 1 << 30);
    cr_expect(helps ? more > 10000 : more == 0, "%lld", (long long)more);
    cr_expect_eq(model_compact(f.m, 1 << 30), 0);
    tiny_close(&t);
    tiny_close(&f);
}
