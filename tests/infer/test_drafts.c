/* test_drafts.c - tokens guessed ahead of replies: what is guessed, when it
 * pays, and that replies do not depend on it, to the bit. */
#include <stdlib.h>

#include "infer/infer_i.h"
#include "model/tiny_model.h"

enum { V = 101, MANY = 6, LONG = 90 };

/* ---- replies ------------------------------------------------------------ */

/* A prompt that repeats `period` random tokens. */
static void repeat(int32_t *ids, int64_t n, int64_t period, uint64_t seed)
{
    base_rng rng;
    base_rng_start(&rng, seed, 78);
    for (int64_t i = 0; i < n; i++)
        ids[i] =
            i < period ? (int32_t)base_rng_below(&rng, V) : ids[i - period];
}

typedef struct list {
    int32_t prompt[MANY][LONG];
    infer_request q[MANY];
} list;

/* Greedy and sampled, with and without an adapter, penalties, stops. */
static void make(list *l, const tiny *t)
{
    static const int lengths[MANY] = {5, 40, 17, 64, LONG, 33};
    static const int32_t stops[] = {3, 50};
    for (int i = 0; i < MANY; i++) {
        repeat(l->prompt[i], lengths[i], 3 + 2 * i, (uint64_t)i);
        l->q[i] = (infer_request){.prompt = l->prompt[i],
                                  .n_prompt = lengths[i],
                                  .max_new_tokens = 60 - 9 * i,
                                  .top_logprobs = 3,
                                  .adapter = i % 3 ? t->ma : NULL,
                                  .adapter_key = i % 3 > 0,
                                  .stops = stops,
                                  .n_stops = i % 2 ? 2 : 0};
        if (i > 2)
            l->q[i].sampling = (infer_sampling){.sample = true,
                                                .temperature = 0.4,
                                                .top_p = 0.9,
                                                .seed = (uint64_t)i,
                                                .min_new_tokens = 4};
        if (i == 2)
            l->q[i].sampling.repetition_penalty = 1.05;
    }
}

/* Steps that it took; everything is given back. */
static int64_t reply(const tiny *t, const infer_limits *limits,
                     const infer_request *q, int64_t n, infer_result *r)
{
    infer_engine *e = NULL;
    lori_error err = {0};
    int64_t steps = 0;
    cr_assert_eq(infer_engine_new(t->m, limits, &e, &err), LORI_OK, "%s",
                 err.message);
    for (int64_t i = 0; i < n; i++)
        cr_assert_eq(infer_submit(e, &q[i], &r[i], &err), LORI_OK, "%s",
                     err.message);
    for (; infer_pending(e); steps++)
        cr_assert_eq(infer_step(e, NULL, &err), LORI_OK, "%s", err.message);
    cr_assert_eq(e->pages.n_free, e->pages.n, "pages are held");
    cr_assert_eq(e->promised, 0);
    infer_engine_free(e);
    return steps;
}

static void same_bits(const infer_result *x, const infer_result *y, int64_t top)
{
    const size_t n = (size_t)x->n;
    cr_assert_eq(x->n, y->n);
    cr_assert_eq(x->finish, y->finish);
    cr_assert_arr_eq(x->ids, y->ids, n * sizeof *x->ids);
    cr_assert_arr_eq(x->logprob, y->logprob, n * sizeof *x->logprob);
    for (int64_t i = 0; i < x->n * top; i++) {
        cr_assert_eq(x->top[i].id, y->top[i].id);
        cr_assert_eq(x->top[i].logprob, y->top[i].logprob);
    }
}

static void replies_with(const char *backend, base_dtype dtype)
{
    static const int64_t drafts[] = {1, 3, 7, 0};
    const tiny_spec spec = {.family = "mistral", .window = 40, .seed = 4};
    tiny t = tiny_open(&spec, backend, dtype, 2);
    tiny_adapt(&t, 3, 5);
    static list l;
    infer_result plain[MANY], got[MANY];
    make(&l, &t);
    for (int64_t batch = 1; batch <= 4; batch += 3) {
        infer_limits limits = {.max_batch = batch, .draft_tokens = -1};
        const int64_t before = reply(&t, &limits, l.q, MANY, plain);
        for (size_t d = 0; d < sizeof drafts / sizeof *drafts; d++) {
            limits.draft_tokens = drafts[d];
            const int64_t steps = reply(&t, &limits, l.q, MANY, got);
            for (int i = 0; i < MANY; i++)
                same_bits(&plain[i], &got[i], l.q[i].top_logprobs);
            if (drafts[d] > 0 && !t.be->round_rows)
                cr_assert_lt(steps, before, "no guess was right");
            infer_results_free(got, MANY);
        }
        infer_results_free(plain, MANY);
    }
    tiny_close(&t);
}

Test(drafts, replies_stay_the_same)
{
    replies_with("ref", BASE_F64);
    replies_with("cpu", BASE_F32);
    replies_with("cpu", BASE_BF16);
}

/* Wrong guesses leave nothing behind: the next prompt goes on from a reply. */
Test(drafts, a_reply_is_shared_as_without_them)
{
    const tiny_spec spec = {.seed = 6};
    tiny t = tiny_open(&spec, "cpu", BASE_F32, 2);
    static list l;
    make(&l, &t);
    for (int64_t length = 20; length < 52; length++) {
        infer_result first[2], second[2];
        for (int k = 0; k < 2; k++) {
            const infer_limits limits = {.max_batch = 1,
                                         .draft_tokens = k ? 7 : -1};
            infer_request q = l.q[0];
            q.max_new_tokens = length;
            infer_engine *e = NULL;
            lori_error err = {0};
            int32_t prompt[LONG];
            cr_assert_eq(infer_engine_new(t.m, &limits, &e, &err), LORI_OK);
            cr_assert_eq(infer_run(e, &q, 1, NULL, &first[k], &err), LORI_OK);
            memcpy(prompt, q.prompt, (size_t)q.n_prompt * sizeof *prompt);
            memcpy(prompt + q.n_prompt, first[k].ids,
                   (size_t)first[k].n * sizeof *prompt);
            q.prompt = prompt;
            q.n_prompt += first[k].n;
            prompt[q.n_prompt++] = 9;
            q.max_new_tokens = 5;
            cr_assert_eq(infer_run(e, &q, 1, NULL, &second[k], &err), LORI_OK);
            infer_engine_free(e);
        }
        same_bits(&first[0], &first[1], 3);
        same_bits(&second[0], &second[1], 3);
        cr_assert_eq(second[0].n_cached, second[1].n_cached);
        cr_assert_eq(second[1].n_cached, 5 + length - 1);
        infer_results_free(first, 2);
        infer_results_free(second, 2);
    }
    tiny_close(&t);
}

/* Guesses take no page that was promised to somebody else. */
Test(drafts, little_memory)
{
    const tiny_spec spec = {.seed = 7};
    tiny t = tiny_open(&spec, "cpu", BASE_F32, 2);
    const model_config *c = model_get_config(t.m);
    const int64_t page =
        2 * c->n_layers * c->n_kv_heads * c->head_dim * 4 * INFER_PAGE;
    static list l;
    infer_result plain[MANY], got[MANY];
    make(&l, &t);
    for (int i = 0; i < MANY; i++)
        l.q[i].adapter = NULL;
    infer_limits limits = {
        .max_batch = 3, .cache_bytes = 8 * page, .draft_tokens = -1};
    reply(&t, &limits, l.q, MANY, plain);
    limits.draft_tokens = 7;
    reply(&t, &limits, l.q, MANY, got);
    for (int i = 0; i < MANY; i++)
        same_bits(&plain[i], &got[i], 3);
    infer_results_free(plain, MANY);
    infer_results_free(got, MANY);
    tiny_close(&t);
}

/* Ended by its caller or a stop among right guesses: nothing behind it. */
static infer_next thirtieth(void *context, int64_t tag, int32_t id)
{
    (void)tag;
    (void)id;
    return ++*(int *)context == 30 ? INFER_END_STOP : INFER_GO_ON;
}

Test(drafts, a_reply_ends_where_it_is_told)
{
    const tiny_spec spec = {.seed = 8};
    tiny t = tiny_open(&spec, "cpu", BASE_F32, 2);
    static list l;
    infer_result r;
    make(&l, &t);
    const infer_limits limits = {.max_batch = 1, .draft_tokens = 7};
    infer_engine *e = NULL;
    lori_error err = {0};
    int calls = 0;
    const infer_hooks hooks = {.context = &calls, .token = thirtieth};
    cr_assert_eq(infer_engine_new(t.m, &limits, &e, &err), LORI_OK);
    cr_assert_eq(infer_run(e, l.q, 1, &hooks, &r, &err), LORI_OK);
    cr_assert_eq(calls, 30);
    cr_assert_eq(r.n, 30);
    cr_assert_eq(r.finish, INFER_STOP);
    infer_results_free(&r, 1);
    infer_engine_free(e);
    tiny_close(&t);
}

/* ---- what is guessed ----------------------------------------------------- */

/* An engine as far as infer_guess() looks at it. */
typedef struct guesser {
    infer_engine e;
    infer_slot slot[INFER_DRAFT_ROWS];
    infer_job job;
    infer_result result;
} guesser;

/* `n` tokens, the last n_reply of them the reply, of up to `most`. */
static void start(guesser *g, const int32_t *ids, int64_t n, int64_t n_reply,
                  int64_t most)
{
    *g = (guesser){
        .e = {.n_slots = 1, .max_rows = INFER_DRAFT_ROWS, .draft_tokens = 7}};
    g->result = (infer_result){.ids = (int32_t *)(uintptr_t)(ids + n - n_reply),
                               .n = n_reply};
    g->job = (infer_job){.request = {.max_new_tokens = most},
                         .result = &g->result,
                         .prompt = ids,
                         .n_prompt = n - n_reply};
    g->e.slots = g->slot;
    for (int i = 0; i < INFER_DRAFT_ROWS; i++)
        g->slot[i] = (infer_slot){.job = &g->job, .past = n - 1};
}

static void guesses(const int32_t *ids, int64_t n, const int32_t *want,
                    int64_t n_want)
{
    for (int64_t n_reply = 1; n_reply < n; n_reply++) {
        guesser g;
        start(&g, ids, n, n_reply, 100);
        infer_guess(&g.e);
        cr_assert_eq(g.slot[0].n_draft, n_want, "%d of %d",
                     (int)g.slot[0].n_draft, (int)n_want);
        cr_assert_arr_eq(g.slot[0].draft, want, (size_t)n_want * sizeof *want);
    }
}

#define GUESS(list, ...)                                                       \
    do {                                                                       \
        const int32_t ids[] = list, want[] = {__VA_ARGS__};                    \
        guesses(ids, sizeof ids / 4, want, sizeof want / 4);                   \
    } while (0)
#define L(...)                                                                 \
    {                                                                          \
        __VA_ARGS__                                                            \
    }

Test(drafts, what_followed_before)
{
    GUESS(L(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2), 3, 4, 5, 6, 7, 8, 9);
    /* on in the guesses themselves */
    GUESS(L(1, 2, 3, 9, 1, 2), 3, 9, 1, 2, 3, 9, 1);
    GUESS(L(5, 5, 5), 5, 5, 5, 5, 5, 5, 5);
    /* the longer match, though the shorter one is newer */
    GUESS(L(4, 1, 2, 6, 6, 6, 6, 6, 6, 8, 1, 2, 7, 7, 7, 7, 7, 4, 1, 2), 6, 6,
          6, 6, 6, 6, 8);
    /* of equal ones the newer */
    GUESS(L(1, 2, 6, 6, 1, 2, 7, 0, 7, 0, 3, 1, 2), 7, 0, 7, 0, 3, 1, 2);
}

Test(drafts, nothing_to_guess)
{
    static const int32_t fresh[] = {1, 2, 3, 4, 2}, full[] = {1, 2, 3, 1, 2};
    guesser g;
    start(&g, fresh, 5, 1, 100); /* one token alone says little */
    infer_guess(&g.e);
    cr_assert_eq(g.slot[0].n_draft, 0);
    start(&g, full, 5, 2, 4); /* two are left, the last is never computed */
    infer_guess(&g.e);
    cr_assert_eq(g.slot[0].n_draft, 1);
    start(&g, full, 5, 2, 3);
    infer_guess(&g.e);
    cr_assert_eq(g.slot[0].n_draft, 0);
    start(&g, full, 5, 2, 100); /* a prompt is being computed */
    g.slot[0].past = 1;
    infer_guess(&g.e);
    cr_assert_eq(g.slot[0].n_draft, 0);
    start(&g, full, 5, 2, 100);
    g.e.draft_tokens = -1;
    infer_guess(&g.e);
    cr_assert_eq(g.slot[0].n_draft, 0);
}

/* ---- how many pay -------------------------------------------------------- */

static int64_t number(const double *seconds, double right, int64_t n_slots)
{
    static const int32_t ids[] = {1, 2, 3, 1, 2};
    guesser g;
    start(&g, ids, 5, 2, 100);
    g.e.n_slots = n_slots;
    g.e.draft_tokens = 0;
    for (int64_t i = 0; i < n_slots; i++) {
        g.slot[i].guessed = 1000;
        g.slot[i].right = 1000 * right;
    }
    for (int64_t rows = 1; rows <= 8; rows++)
        if (seconds[rows] > 0)
            infer_took(&g.e.pace, rows, seconds[rows]);
    infer_guess(&g.e);
    for (int64_t i = 1; i < n_slots; i++)
        cr_assert_eq(g.slot[i].n_draft, g.slot[0].n_draft);
    return g.slot[0].n_draft;
}

Test(drafts, as_many_as_pay)
{
    static const double free_rows[] = {0, 1, 1, 1, 1, 1, 1, 1, 1},
                        dear[] = {0, 1, 2, 3, 4, 5, 6, 7, 8},
                        four[] = {0, 1, 1.1, 1.1, 1.1, 3, 3, 3, 3},
                        one[] = {0, 1, 0, 0, 0, 0, 0, 0, 0},
                        two[] = {0, 1, 1.1, 0, 0, 0, 0, 0, 0},
                        slow[] = {0, 1, 2, 0, 0, 0, 0, 0, 0},
                        ends[] = {0, 1, 0, 0, 0, 0, 0, 0, 8},
                        none[] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    cr_assert_eq(number(free_rows, 0.5, 1), 7);
    cr_assert_eq(number(free_rows, 0.1, 1), 7);
    cr_assert_eq(number(dear, 0.9, 1), 0);
    cr_assert_eq(number(four, 0.5, 1), 3);
    cr_assert_eq(number(four, 0.01, 1), 0);
    /* What is not known is tried, up to twice as many rows as are. */
    cr_assert_eq(number(one, 0.9, 1), 1);
    cr_assert_eq(number(two, 0.9, 1), 3);
    cr_assert_eq(number(slow, 0.9, 1), 0);
    cr_assert_eq(number(ends, 0.9, 1), 0);
    cr_assert_eq(number(none, 0.9, 1), 0);
    cr_assert_eq(number(one, 0.9, 3), 0);
    cr_assert_eq(number(free_rows, 0.5, 2), 7); /* 16 rows, as free as 8 */
    cr_assert_eq(number(free_rows, 0.5, 5), 2);
    cr_assert_eq(number(four, 0.5, 2), 1);
    cr_assert_eq(number(free_rows, 0.5, 9), 0);
}

Test(drafts, what_is_counted)
{
    infer_slot s = {.n_draft = 4};
    infer_pace p = {0};
    infer_guessed(&s, 2); /* two right, one wrong, one not looked at */
    cr_assert_eq(s.right, 2);
    cr_assert_eq(s.guessed, 3);
    infer_guessed(&s, 4);
    cr_assert_float_eq(s.right, 5.9, 1e-12);
    cr_assert_float_eq(s.guessed, 6.85, 1e-12);
    infer_took(&p, 2, 4);
    infer_took(&p, 2, 8);
    cr_assert_eq(p.seconds[2], 5);
    infer_took(&p, 100, 50); /* too many rows to guess beside */
    for (int i = 0; i < 200; i++)
        infer_took(&p, 1, 3);
    cr_assert_eq(p.seconds[1], 3);
    cr_assert_eq(p.seconds[2], 0, "it is not known any more");
}
