/* test_allocations.c - after warm-up a decode step takes no memory: neither
 * from the backend nor from the C library. */
#include <stdlib.h>

#include "infer/infer_i.h"
#include "model/tiny_model.h"

/* Sanitizers bring a malloc of their own: there only the backend's count. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MALLOC 0
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#endif
#ifndef OWN_MALLOC
#define OWN_MALLOC 1
#endif

static bool counting;
static int64_t taken;

#if OWN_MALLOC
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
    taken += counting;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    taken += counting;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    taken += counting;
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    taken += counting;
    return __libc_memalign(align, n);
}
#endif

static void *(*real_alloc)(backend *be, size_t bytes);
static void *(*real_host)(backend *be, size_t bytes);

static void *count_alloc(backend *be, size_t bytes)
{
    taken += counting;
    return real_alloc(be, bytes);
}

static void *count_host(backend *be, size_t bytes)
{
    taken += counting;
    return real_host(be, bytes);
}

static infer_next next(void *context, int64_t tag, int32_t id)
{
    (void)context;
    (void)tag;
    (void)id;
    return INFER_GO_ON;
}

enum { N = 3, WARM = 20, STEPS = 100 };

static void submit(infer_engine *e, const model_adapter *adapter,
                   infer_result *r)
{
    static const int32_t prompt[] = {5, 6, 7};
    lori_error err = {0};
    for (int i = 0; i < N; i++) {
        infer_request q = {.tag = i,
                           .prompt = prompt,
                           .n_prompt = 1 + i,
                           .max_new_tokens = 2 * (WARM + STEPS),
                           .top_logprobs = 5,
                           .adapter = i ? adapter : NULL,
                           .adapter_key = i > 0};
        q.sampling = (infer_sampling){.sample = i > 1,
                                      .temperature = 1,
                                      .top_p = 0.9,
                                      .repetition_penalty = 1.1,
                                      .presence_penalty = 0.1};
        cr_assert_eq(infer_submit(e, &q, &r[i], &err), LORI_OK);
    }
}

static lori_status advance(infer_engine *e, int steps)
{
    const infer_hooks hooks = {.token = next};
    lori_error err = {0};
    lori_status st = LORI_OK;
    for (int i = 0; i < steps && !st; i++)
        st = infer_step(e, &hooks, &err);
    return st;
}

/* With guesses a step's rows differ: the same replies come before, once. */
static void decode(int64_t draft_tokens)
{
    const infer_limits limits = {.draft_tokens = draft_tokens};
    tiny_spec spec = {.seed = 9};
    tiny t = tiny_open(&spec, "cpu", BASE_F32, 2);
    tiny_adapt(&t, 3, 5);
    real_alloc = t.be->alloc;
    real_host = t.be->host_alloc;
    t.be->alloc = count_alloc;
    t.be->host_alloc = count_host;
    infer_engine *e = NULL;
    infer_result r[N];
    lori_error err = {0};
    taken = 0;
    counting = true; /* the counter counts */
    cr_assert_eq(infer_engine_new(t.m, &limits, &e, &err), LORI_OK);
    cr_assert_gt(taken, OWN_MALLOC ? 5 : 0);
    counting = false;
    if (draft_tokens >= 0) {
        submit(e, t.ma, r);
        cr_assert_eq(advance(e, WARM + STEPS), LORI_OK);
        infer_clear(e);
        infer_results_free(r, N);
    }
    submit(e, t.ma, r);
    cr_assert_eq(advance(e, WARM), LORI_OK);
    taken = 0;
    counting = true;
    const lori_status st = advance(e, STEPS);
    counting = false;
    cr_assert_eq(st, LORI_OK);
    if (draft_tokens < 0)
        cr_assert_eq(r[0].n, WARM + STEPS);
    else
        cr_assert_gt(r[0].n, WARM + STEPS);
    cr_assert_eq(taken, 0, "%lld allocations in %d steps", (long long)taken,
                 STEPS);
    infer_clear(e);
    infer_results_free(r, N);
    infer_engine_free(e);
    tiny_close(&t);
}

Test(allocations, decode_takes_no_memory)
{
    decode(-1);
    decode(1);
}
