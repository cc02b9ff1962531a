/* test_sample.c - the filters keep exactly the tokens they should, and draws
 * follow the distribution. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "infer/infer_i.h"

enum { V = 8 };

/* Logits whose softmax is 0.30 0.02 0.25 0.08 0.15 0.02 0.10 0.08. */
static const double probs[V] = {0.30, 0.02, 0.25, 0.08, 0.15, 0.02, 0.10, 0.08};

static void make_logits(float *x)
{
    for (int i = 0; i < V; i++)
        x[i] = (float)log(probs[i]) + 3;
}

/* The survivors as a bit set; checks order and that they sum to 1. */
static unsigned survivors(const infer_sampling *s)
{
    float x[V];
    infer_candidate c[V];
    make_logits(x);
    int64_t n = infer_filter(x, V, s, c);
    unsigned set = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        cr_assert_not(set >> c[i].id & 1U);
        set |= 1U << c[i].id;
        sum += c[i].p;
        if (i > 0 && ((s->top_k > 0 && s->top_k < V) || s->top_p < 1))
            cr_assert(c[i - 1].x > c[i].x ||
                      (c[i - 1].x == c[i].x && c[i - 1].id < c[i].id));
    }
    cr_assert_float_eq(sum, 1, 1e-12);
    return set;
}

Test(sample, filters_keep_exact_sets)
{
    /* In order of probability: 0 2 4 6 3=7 1=5; sums .30 .55 .70 .80 .88 .96
     * .98 1. Equal ones count as less likely with a higher id. */
    static const struct {
        double temperature;
        int64_t top_k;
        double top_p;
        unsigned want;
    } rows[] = {
        {1, 0, 1, 0xff},
        {1, 1, 1, 1U << 0},
        {1, 3, 1, 1U << 0 | 1U << 2 | 1U << 4},
        {1, 5, 1, 0xff & ~(1U << 1 | 1U << 5)}, /* a tie at the 5th: 6 stay */
        {1, 6, 1, 0xff & ~(1U << 1 | 1U << 5)},
        {1, 7, 1, 0xff},
        {1, 100, 1, 0xff},
        {1, 0, 0.10, 1U << 0},
        {1, 0, 0.29, 1U << 0},
        {1, 0, 0.31, 1U << 0 | 1U << 2},
        {1, 0, 0.54, 1U << 0 | 1U << 2},
        {1, 0, 0.56, 1U << 0 | 1U << 2 | 1U << 4},
        {1, 0, 0.79, 1U << 0 | 1U << 2 | 1U << 4 | 1U << 6},
        {1, 0, 0.81, 1U << 0 | 1U << 2 | 1U << 4 | 1U << 6 | 1U << 3},
        {1, 0, 0.89, 0xff & ~(1U << 1 | 1U << 5)},
        {1, 0, 0.97, 0xff & ~(1U << 5)},
        {1, 0, 0.999, 0xff},
        /* After top-k 3 the sums are .43 .79 1: top-p sees these. */
        {1, 3, 0.42, 1U << 0},
        {1, 3, 0.78, 1U << 0 | 1U << 2},
        {1, 3, 0.80, 1U << 0 | 1U << 2 | 1U << 4},
        /* Temperature first: at 0.5 the probabilities go as squares, .46 .32
         * .12 .05 .03 .03 0 0. */
        {0.5, 0, 0.45, 1U << 0},
        {0.5, 0, 0.50, 1U << 0 | 1U << 2},
        /* At 100 all are nearly equal: 0.87 needs seven of eight. */
        {100, 0, 0.87, 0xff & ~(1U << 5)},
        {1e-3, 0, 0.999, 1U << 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        infer_sampling s = {.sample = true,
                            .temperature = rows[i].temperature,
                            .top_k = rows[i].top_k,
                            .top_p = rows[i].top_p,
                            .seed = 0};
        unsigned got = survivors(&s);
        cr_assert_eq(got, rows[i].want, "row %zu: %02x, expected %02x", i, got,
                     rows[i].want);
    }
}

/* Large vocabularies take the paths that avoid sorting: same sets as a plain
 * sort and sum. */
static int ascending(const void *x, const void *y)
{
    float a = *(const float *)x, b = *(const float *)y;
    return (a > b) - (a < b);
}

Test(sample, large_vocabulary_equals_plain_sort)
{
    enum { N = 5000 };
    float *x = malloc(N * sizeof *x), *sorted = malloc(N * sizeof *sorted);
    infer_candidate *c = malloc(N * sizeof *c);
    base_rng rng;
    base_rng_start(&rng, 3, 1);
    for (int i = 0; i < N; i++) /* distinct: no ties to argue about */
        x[i] = sorted[i] =
            (float)(8 * base_rng_uniform(&rng)) + (float)i * 1e-5f;
    qsort(sorted, N, sizeof *sorted, ascending);
    const int64_t ks[] = {1, 17, 1000, 4999};
    for (int i = 0; i < 4; i++) {
        infer_sampling s = {.sample = true,
                            .temperature = 1,
                            .top_k = ks[i],
                            .top_p = 1,
                            .seed = 0};
        int64_t n = infer_filter(x, N, &s, c);
        cr_assert_eq(n, ks[i]);
        for (int64_t k = 0; k < n; k++)
            cr_assert_eq(c[k].x, sorted[N - 1 - k]);
    }
    double total = 0;
    for (int i = 0; i < N; i++)
        total += exp((double)sorted[i]);
    const double ps[] = {0.001, 0.3, 0.77, 0.9, 0.95, 0.9999};
    for (int i = 0; i < 6; i++) {
        double cum = 0;
        int64_t cut = 0;
        while (cut < N - 1) {
            double next = cum + exp((double)sorted[cut]) / total;
            if (next > 1 - ps[i])
                break;
            cum = next;
            cut++;
        }
        infer_sampling s = {.sample = true,
                            .temperature = 1,
                            .top_k = 0,
                            .top_p = ps[i],
                            .seed = 0};
        cr_assert_eq(infer_filter(x, N, &s, c), N - cut, "top_p %g", ps[i]);
    }
    free(x);
    free(sorted);
    free(c);
}

/* Pearson's chi-square of 40000 draws against the filtered distribution. The
 * seed is fixed, so this cannot flicker; the bounds are the 99.9 % quantiles
 * for 7 and 3 degrees of freedom: a generator or a walk over the probabilities
 * that is off by 0.01 anywhere is far beyond them. */
static double chi_square(const infer_sampling *s, const double *want)
{
    enum { DRAWS = 40000 };
    float x[V];
    char scratch[V * 16];
    int64_t count[V] = {0};
    base_rng rng;
    make_logits(x);
    base_rng_start(&rng, s->seed, 5);
    for (int i = 0; i < DRAWS; i++)
        count[infer_sample(x, V, s, &rng, scratch)]++;
    double chi = 0;
    for (int i = 0; i < V; i++) {
        if (want[i] == 0) {
            cr_assert_eq(count[i], 0);
            continue;
        }
        double e = want[i] * DRAWS;
        chi += ((double)count[i] - e) * ((double)count[i] - e) / e;
    }
    return chi;
}

Test(sample, draws_follow_the_distribution)
{
    infer_sampling all = {
        .sample = true, .temperature = 1, .top_k = 0, .top_p = 1, .seed = 12};
    cr_assert_lt(chi_square(&all, probs), 24.32);
    infer_sampling four = {.sample = true,
                           .temperature = 1,
                           .top_k = 0,
                           .top_p = 0.75,
                           .seed = 13};
    double want[V] = {0.30 / 0.8, 0, 0.25 / 0.8, 0, 0.15 / 0.8, 0, 0.1 / 0.8};
    cr_assert_lt(chi_square(&four, want), 16.27);
    infer_sampling hot = {
        .sample = true, .temperature = 2, .top_k = 0, .top_p = 1, .seed = 14};
    double sum = 0;
    for (int i = 0; i < V; i++)
        sum += sqrt(probs[i]);
    for (int i = 0; i < V; i++)
        want[i] = sqrt(probs[i]) / sum;
    cr_assert_lt(chi_square(&hot, want), 24.32);
}

/* One number a draw: the n-th token does not depend on earlier filters. */
Test(sample, one_number_a_draw)
{
    float x[V];
    char scratch[V * 16];
    make_logits(x);
    base_rng a, b;
    base_rng_start(&a, 9, 1);
    base_rng_start(&b, 9, 1);
    infer_sampling s = {.sample = true,
                        .temperature = 0.7,
                        .top_k = 3,
                        .top_p = 0.9,
                        .seed = 0};
    for (int i = 0; i < 20; i++) {
        infer_sample(x, V, &s, &a, scratch);
        base_rng_uniform(&b);
    }
    cr_assert_eq(base_rng_u32(&a), base_rng_u32(&b));
}

Test(sample, greedy_takes_the_first_largest)
{
    const float x[] = {1, 7, -2, 7, 3};
    infer_sampling s = {0};
    cr_assert_eq(infer_sample(x, 5, &s, NULL, NULL), 1);
}

Test(sample, checks)
{
    static const struct {
        infer_sampling s;
        const char *part;
    } rows[] = {
        {{.sample = true, .temperature = 0, .top_k = 0, .top_p = 1, .seed = 0},
         "temperature"},
        {{.sample = true, .temperature = -1, .top_k = 0, .top_p = 1, .seed = 0},
         "temperature"},
        {{.sample = true, .temperature = 1, .top_k = -1, .top_p = 1, .seed = 0},
         "top_k"},
        {{.sample = true, .temperature = 1, .top_k = 0, .top_p = 0, .seed = 0},
         "top_p"},
        {{.sample = true,
          .temperature = 1,
          .top_k = 0,
          .top_p = 1.01,
          .seed = 0},
         "top_p"},
        {{.sample = true,
          .temperature = 1,
          .top_k = 0,
          .top_p = (double)NAN,
          .seed = 0},
         "top_p"},
        {{.sample = true,
          .temperature = (double)NAN,
          .top_k = 0,
          .top_p = 1,
          .seed = 0},
         "temperature"},
        {{.sample = true,
          .temperature = (double)INFINITY,
          .top_k = 0,
          .top_p = 1,
          .seed = 0},
         "temperature"},
    };
    lori_error err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_eq(infer_sampling_check(&rows[i].s, &err), LORI_INVALID);
        cr_assert_not_null(strstr(err.message, rows[i].part), "%s",
                           err.message);
    }
    infer_sampling greedy = {.sample = false,
                             .temperature = -1,
                             .top_k = -1,
                             .top_p = 9,
                             .seed = 0},
                   fine = {.sample = true,
                           .temperature = .1,
                           .top_k = 5,
                           .top_p = .5,
                           .seed = 1};
    cr_assert_eq(infer_sampling_check(&greedy, &err), LORI_OK);
    cr_assert_eq(infer_sampling_check(&fine, &err), LORI_OK);
}

/* ---- bias, penalties, min-p ------------------------------------------------
 */

Test(sample, min_p_keeps_exact_sets)
{
    /* probs / 0.30: 1 .067 .833 .267 .5 .067 .333 .267 */
    static const struct {
        double top_p, min_p;
        unsigned want;
    } rows[] = {
        {1, 1, 1U << 0},
        {1, 0.84, 1U << 0},
        {1, 0.83, 1U << 0 | 1U << 2},
        {1, 0.3, 1U << 0 | 1U << 2 | 1U << 4 | 1U << 6},
        {1, 0.1, 0xff & ~(1U << 1 | 1U << 5)},
        {1, 0.01, 0xff},
        {0.6, 0.3, 1U << 0 | 1U << 2 | 1U << 4}, /* after top-p */
        {0.6, 0.6, 1U << 0 | 1U << 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        infer_sampling s = {.sample = true,
                            .temperature = 1,
                            .top_p = rows[i].top_p,
                            .min_p = rows[i].min_p};
        cr_assert_eq(survivors(&s), rows[i].want, "row %zu: %x", i,
                     survivors(&s));
    }
}

static void processed(const infer_request *q, const int32_t *reply, int64_t n,
                      float *x)
{
    static const float start[V] = {2, -2, 1, 0, -1, 4, 0.5F, 3};
    int32_t zeros[V] = {0};
    memcpy(x, start, sizeof start);
    cr_assert(infer_changes_logits(&q->sampling));
    infer_process(x, q, reply, n, zeros);
    for (int i = 0; i < V; i++)
        cr_assert_eq(zeros[i], 0);
}

Test(sample, processors)
{
    static const int32_t prompt[] = {0, 1, 1, 4}, reply[] = {5, 5, 1, 7};
    static const int32_t stops[] = {7, 2};
    float x[V];
    infer_request q = {.prompt = prompt, .n_prompt = 4};
    q.sampling.repetition_penalty = 2; /* once a token, prompt and reply */
    processed(&q, reply, 4, x);
    const float repeated[V] = {1, -4, 1, 0, -2, 2, 0.5F, 1.5F};
    cr_assert_arr_eq(x, repeated, sizeof x);
    q.sampling =
        (infer_sampling){.presence_penalty = 0.5, .frequency_penalty = 0.25};
    processed(&q, reply, 4, x); /* of the reply only */
    const float less[V] = {2, -2.75F, 1, 0, -1, 3, 0.5F, 2.25F};
    cr_assert_arr_eq(x, less, sizeof x);
    const infer_bias bias[] = {{5, -3}, {3, (double)-INFINITY}};
    q.sampling =
        (infer_sampling){.bias = bias, .n_bias = 2, .repetition_penalty = 2};
    processed(&q, reply, 1, x); /* the bias comes first: (4 - 3) / 2 */
    cr_assert_eq(x[5], 0.5F);
    cr_assert_eq(x[3], -INFINITY);
    q.stops = stops;
    q.n_stops = 2;
    q.sampling = (infer_sampling){.min_new_tokens = 2};
    processed(&q, reply, 1, x);
    cr_assert(x[7] == -INFINITY && x[2] == -INFINITY && x[5] == 4);
    processed(&q, reply, 2, x); /* two are there: it may end */
    cr_assert_eq(x[7], 3);
    infer_sampling none = {.repetition_penalty = 1};
    cr_assert_not(infer_changes_logits(&none));
}

Test(sample, processor_checks)
{
    const infer_bias bad[] = {{1, (double)INFINITY}};
    const struct {
        infer_sampling s;
        const char *part;
    } rows[] = {
        {{.repetition_penalty = -1}, "repetition_penalty"},
        {{.repetition_penalty = (double)NAN}, "repetition_penalty"},
        {{.presence_penalty = (double)NAN}, "presence_penalty"},
        {{.frequency_penalty = (double)INFINITY}, "frequency_penalty"},
        {{.min_new_tokens = -1}, "min_new_tokens"},
        {{.bias = bad, .n_bias = 1}, "bias of token 1"},
        {{.sample = true, .temperature = 1, .top_p = 1, .min_p = 1.5}, "min_p"},
    };
    lori_error err = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_eq(infer_sampling_check(&rows[i].s, &err), LORI_INVALID);
        cr_assert_not_null(strstr(err.message, rows[i].part), "%s",
                           err.message);
    }
}

Test(sample, top_tokens)
{
    const float x[] = {1, 5, 3, 5, -1};
    infer_top top[5];
    infer_top_tokens(x, 5, 0, top, 5);
    static const int32_t want[] = {1, 3, 2, 0, 4}; /* equal ones by id */
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(top[i].id, want[i]);
        cr_assert_eq(top[i].logprob, (double)x[want[i]]);
    }
    infer_top_tokens(x, 5, 2, top, 2);
    cr_assert(top[0].id == 1 && top[1].id == 3 && top[1].logprob == 3);
}

/* min-p after top-k: .30 .25 .15 of .70; min-p 0.55 leaves two. */
Test(sample, draws_follow_min_p)
{
    infer_sampling s = {.sample = true,
                        .temperature = 1,
                        .top_k = 3,
                        .top_p = 1,
                        .seed = 21,
                        .min_p = 0.55};
    double want[V] = {0.30 / 0.55, 0, 0.25 / 0.55};
    cr_assert_lt(chi_square(&s, want), 10.83); /* 1 degree, 99.9 % */
}
