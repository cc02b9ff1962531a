/* infer_sample.c - from logits to a token: bias, penalties, temperature,
 * top-k, top-p, min-p, and the draw. Owns the order and the tie rules.
 * Source: transformers logits_process.py (SequenceBias, RepetitionPenalty,
 * MinNewTokensLength, Temperature, TopK, TopP, MinP, min_tokens_to_keep 1);
 * OpenAI's reference for presence and frequency penalty. */
#include "infer/infer_i.h"

#include <math.h>

lori_status infer_sampling_check(const infer_sampling *s, lori_error *err)
{
    if (s->repetition_penalty != 0 &&
        !(s->repetition_penalty > 0 && isfinite(s->repetition_penalty)))
        return base_fail(err, LORI_INVALID,
                         "repetition_penalty %g is not above 0 (1: off)",
                         s->repetition_penalty);
    if (!isfinite(s->presence_penalty) || !isfinite(s->frequency_penalty))
        return base_fail(err, LORI_INVALID,
                         "presence_penalty %g and frequency_penalty %g must be "
                         "finite",
                         s->presence_penalty, s->frequency_penalty);
    if (s->min_new_tokens < 0)
        return base_fail(err, LORI_INVALID, "min_new_tokens %lld is negative",
                         (long long)s->min_new_tokens);
    for (int64_t i = 0; i < s->n_bias; i++)
        if (isnan(s->bias[i].bias) || s->bias[i].bias == (double)INFINITY)
            return base_fail(err, LORI_INVALID,
                             "the logit bias of token %d is %g", s->bias[i].id,
                             s->bias[i].bias);
    if (!s->sample)
        return LORI_OK;
    if (!(s->temperature > 0) || isinf(s->temperature))
        return base_fail(
            err, LORI_INVALID,
            "temperature %g is not above 0 (0 means greedy: do not "
            "sample)",
            s->temperature);
    if (s->top_k < 0)
        return base_fail(err, LORI_INVALID, "top_k %lld is negative (0: off)",
                         (long long)s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return base_fail(err, LORI_INVALID, "top_p %g is not in (0, 1]",
                         s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return base_fail(err, LORI_INVALID, "min_p %g is not in [0, 1]",
                         s->min_p);
    return LORI_OK;
}

/* ---- before the filters ---------------------------------------------- */

/* Divides positive and multiplies negative logits, once a token. Floats, as
 * there: x * (float)penalty. */
static void penalise(float *x, const int32_t *ids, int64_t n, float penalty,
                     int32_t *seen)
{
    for (int64_t i = 0; i < n; i++)
        if (seen[ids[i]]++ == 0)
            x[ids[i]] =
                x[ids[i]] < 0 ? x[ids[i]] * penalty : x[ids[i]] / penalty;
}

static void subtract(float *x, const infer_sampling *s, const int32_t *reply,
                     int64_t n, int32_t *count)
{
    float each = (float)s->frequency_penalty, once = (float)s->presence_penalty;
    for (int64_t i = 0; i < n; i++)
        count[reply[i]]++;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = reply[i], times = count[id];
        if (times)
            x[id] -= each * (float)times + once;
        count[id] = 0;
    }
}

bool infer_changes_logits(const infer_sampling *s)
{
    bool repetition = s->repetition_penalty != 0 && s->repetition_penalty != 1;
    return repetition || s->n_bias > 0 || s->presence_penalty != 0 ||
           s->frequency_penalty != 0 || s->min_new_tokens > 0;
}

void infer_process(float *x, const infer_request *q, const int32_t *reply,
                   int64_t n_reply, int32_t *zeros)
{
    const infer_sampling *s = &q->sampling;
    for (int64_t i = 0; i < s->n_bias; i++)
        x[s->bias[i].id] += (float)s->bias[i].bias;
    if (s->repetition_penalty != 0 && s->repetition_penalty != 1) {
        float penalty = (float)s->repetition_penalty;
        penalise(x, q->prompt, q->n_prompt, penalty, zeros);
        penalise(x, reply, n_reply, penalty, zeros);
        for (int64_t i = 0; i < q->n_prompt; i++)
            zeros[q->prompt[i]] = 0;
        for (int64_t i = 0; i < n_reply; i++)
            zeros[reply[i]] = 0;
    }
    if (s->presence_penalty != 0 || s->frequency_penalty != 0)
        subtract(x, s, reply, n_reply, zeros);
    for (int64_t i = 0; i < q->n_stops && n_reply < s->min_new_tokens; i++)
        x[q->stops[i]] = -INFINITY;
}

/* ---- the filters ------------------------------------------------------ */

/* The largest of n, by lanes that do not wait for each other. */
static float largest(const float *x, int64_t n)
{
    enum { LANES = 8 };
    float top[LANES];
    for (int j = 0; j < LANES; j++)
        top[j] = x[0];
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
    for (; i < n; i++)
        top[0] = x[i] > top[0] ? x[i] : top[0];
    for (int j = 1; j < LANES; j++)
        top[0] = top[j] > top[0] ? top[j] : top[0];
    return top[0];
}

int64_t infer_argmax(const float *x, int64_t n)
{
    const float top = largest(x, n);
    int64_t best = 0;
    while (best + 1 < n && x[best] != top)
        best++;
    return best;
}

/* Most likely first; equal logits by id. A total order: ids are distinct. */
static bool before(const infer_candidate *a, const infer_candidate *b)
{
    return a->x != b->x ? a->x > b->x : a->id < b->id;
}

/* Moves c[at] down its heap of n, the last in order on top. */
static void sift(infer_candidate *c, int64_t at, int64_t n)
{
    infer_candidate moving = c[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(&c[child], &c[child + 1]))
            child++;
        if (!before(&moving, &c[child]))
            break;
        c[at] = c[child];
    }
    c[at] = moving;
}

/* Heapsort: a decode step takes no memory, and the C library's qsort does. */
static void sort_candidates(infer_candidate *c, int64_t n)
{
    for (int64_t i = n / 2; i-- > 0;)
        sift(c, i, n);
    for (int64_t i = n - 1; i > 0; i--) {
        infer_candidate last = c[0];
        c[0] = c[i];
        c[i] = last;
        sift(c, 0, i);
    }
}

/* Moves the k largest logits to c[0..k) (Hoare's selection) and returns the
 * k-th. Linear where sorting a vocabulary for every token would cost more than
 * a small model's forward pass. */
static float select_kth(infer_candidate *c, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        float pivot = c[lo + (hi - lo) / 2].x;
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (c[i].x > pivot)
                i++;
            while (c[j].x < pivot)
                j--;
            if (i > j)
                break;
            infer_candidate swap = c[i];
            c[i++] = c[j];
            c[j--] = swap;
        }
        if (k - 1 <= j)
            hi = j;
        else if (k - 1 >= i)
            lo = i;
        else
            break;
    }
    return c[k - 1].x;
}

/* Keeps logits not below the k-th largest: ties with it all stay, as there. */
static int64_t filter_top_k(infer_candidate *c, int64_t n, int64_t k)
{
    float least = select_kth(c, n, k);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].x >= least)
            c[kept++] = c[i];
    return kept;
}

/* c[i].p = softmax of the logits. */
static void normalise(infer_candidate *c, int64_t n)
{
    double max = (double)c[0].x, sum = 0;
    for (int64_t i = 1; i < n; i++)
        max = fmax(max, (double)c[i].x);
    for (int64_t i = 0; i < n; i++)
        sum += c[i].p = exp((double)c[i].x - max);
    for (int64_t i = 0; i < n; i++)
        c[i].p /= sum;
}

/* Removes, from the least likely on, tokens whose cumulative probability is
 * <= 1 - p; the most likely one always stays. */
static int64_t filter_top_p(infer_candidate *c, int64_t n, double p)
{
    /* n tokens of at most (1 - p) / n each cannot exceed 1 - p together, so
     * these go without being sorted: nearly the whole vocabulary. */
    double most = 0, cut = (1 - p) / (double)n, removed = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, c[i].p);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (c[i].p <= cut && c[i].p < most)
            removed += c[i].p;
        else
            c[kept++] = c[i];
    }
    sort_candidates(c, kept);
    while (kept > 1 && removed + c[kept - 1].p <= 1 - p)
        removed += c[--kept].p;
    return kept;
}

/* Keeps tokens at least `least` times as likely as the most likely one. */
static int64_t filter_min_p(infer_candidate *c, int64_t n, double least)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, c[i].p);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].p >= least * most)
            c[kept++] = c[i];
    return kept;
}

int64_t infer_filter(const float *logits, int64_t vocab,
                     const infer_sampling *s, infer_candidate *c)
{
    float t = (float)s->temperature;
    for (int64_t i = 0; i < vocab; i++)
        c[i] = (infer_candidate){0, logits[i] / t, (int32_t)i};
    int64_t n = vocab;
    bool top_k = s->top_k > 0 && s->top_k < vocab, top_p = s->top_p < 1;
    bool min_p = s->min_p > 0;
    if (top_k)
        n = filter_top_k(c, n, s->top_k);
    normalise(c, n);
    if (top_p) {
        n = filter_top_p(c, n, s->top_p);
        normalise(c, n);
    }
    if (min_p) {
        n = filter_min_p(c, n, s->min_p);
        normalise(c, n);
    }
    if (!top_p && (top_k || min_p)) /* top-p has sorted them */
        sort_candidates(c, n);
    return n;
}

int32_t infer_sample(const float *logits, int64_t vocab,
                     const infer_sampling *s, base_rng *rng, void *scratch)
{
    if (!s->sample)
        return (int32_t)infer_argmax(logits, vocab);
    infer_candidate *c = scratch;
    int64_t n = infer_filter(logits, vocab, s, c);
    double u = base_rng_uniform(rng), sum = 0;
    int64_t last = 0; /* rounding may leave the sum below u */
    for (int64_t i = 0; i < n; i++) {
        if (!(c[i].p > 0))
            continue;
        last = i;
        sum += c[i].p;
        if (u < sum)
            break;
    }
    return c[last].id;
}

void infer_top_tokens(const float *x, int64_t vocab, double lse, infer_top *top,
                      int64_t n_top)
{
    int64_t n = 0;
    for (int64_t id = 0; id < vocab && n_top > 0; id++) {
        double p = (double)x[id] - lse;
        if (n == n_top && !(p > top[n - 1].logprob))
            continue;
        int64_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && top[at - 1].logprob < p; at--)
            top[at] = top[at - 1];
        top[at] = (infer_top){(int32_t)id, p};
    }
}
