/* metrics.c - from the documents' values to metrics: names, means, errors and
 * intervals as lm-evaluation-harness computes them. Includes eval_i.h. */
#include <math.h>

#include "eval/eval_i.h"

typedef enum aggregate {
    MEAN,     /* of values[a] */
    EXP_PER,  /* exp(-sum a / sum b) */
    NATS_PER, /* -sum a / sum b */
    BITS_PER  /* -sum a / (sum b ln 2) */
} aggregate;

typedef struct metric {
    eval_kind kind;
    const char *name;
    aggregate how;
    int a, b; /* columns of the documents' values */
} metric;

enum { LL, TOKENS, WORDS, BYTES };
static const metric metrics[] = {
    {EVAL_GENERATE, "exact_match", MEAN, 0, 0},
    {EVAL_CHOICE, "acc", MEAN, 0, 0},
    {EVAL_CHOICE, "acc_norm", MEAN, 1, 0},
    {EVAL_CHOICE, "acc_bytes", MEAN, 2, 0},
    {EVAL_ROLLING, "word_perplexity", EXP_PER, LL, WORDS},
    {EVAL_ROLLING, "byte_perplexity", EXP_PER, LL, BYTES},
    {EVAL_ROLLING, "bits_per_byte", BITS_PER, LL, BYTES},
    {EVAL_ROLLING, "token_perplexity", EXP_PER, LL, TOKENS},
    {EVAL_ROLLING, "loss", NATS_PER, LL, TOKENS},
};
#define N_METRICS ((int64_t)(sizeof metrics / sizeof *metrics))

const char *metric_find(eval_kind kind, const char *name)
{
    for (int64_t i = 0; i < N_METRICS; i++)
        if (metrics[i].kind == kind && !strcmp(metrics[i].name, name))
            return metrics[i].name;
    return NULL;
}

int64_t metric_names(eval_kind kind, const char *names[EVAL_METRICS])
{
    int64_t n = 0;
    for (int64_t i = 0; i < N_METRICS; i++)
        if (metrics[i].kind == kind)
            names[n++] = metrics[i].name;
    return n;
}

int64_t metric_values(eval_kind kind, const char *names[EVAL_VALUES])
{
    static const char *const rolling[] = {"loglikelihood", "tokens", "words",
                                          "bytes"};
    const char *all[EVAL_METRICS];
    int64_t n = kind == EVAL_ROLLING ? EVAL_VALUES : metric_names(kind, all);
    for (int64_t i = 0; i < n; i++)
        names[i] = kind == EVAL_ROLLING ? rolling[i] : all[i];
    return n;
}

void eval_wilson(double hits, double n, double *low, double *high)
{
    const double z = 1.959963984540054; /* 97.5 % point of the normal */
    double p = hits / n, zz = z * z / n;
    double middle = (p + zz / 2) / (1 + zz);
    double half = z * sqrt(p * (1 - p) / n + zz / (4 * n)) / (1 + zz);
    /* Exact at the ends, where rounding would leave 3e-18. */
    *low = hits > 0 ? fmax(0, middle - half) : 0;
    *high = hits < n ? fmin(1, middle + half) : 1;
}

static double column_sum(const eval_values *values, int64_t n, int column)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += values[i].v[column];
    return sum;
}

static void mean(const metric *m, const eval_values *values, int64_t n,
                 eval_metric *out)
{
    double sum = column_sum(values, n, m->a), square = 0;
    double count = (double)n;
    out->value = sum / count;
    for (int64_t i = 0; i < n; i++) {
        double off = values[i].v[m->a] - out->value;
        square += off * off;
    }
    out->has_stderr = n > 1;
    out->stderr_ = n > 1 ? sqrt(square / (count - 1)) / sqrt(count) : 0;
    out->is_share = true;
    eval_wilson(sum, count, &out->low, &out->high);
    out->higher_is_better = true;
}

static void summarize_one(const metric *m, const eval_values *values, int64_t n,
                          eval_metric *out)
{
    *out = (eval_metric){.name = m->name};
    if (m->how == MEAN) {
        mean(m, values, n, out);
        return;
    }
    double nats = -column_sum(values, n, m->a) / column_sum(values, n, m->b);
    out->value = m->how == EXP_PER    ? exp(nats)
                 : m->how == BITS_PER ? nats / log(2)
                                      : nats;
}

void eval_summarize(const eval_task *task, const eval_values *values, int64_t n,
                    eval_score *out)
{
    *out = (eval_score){.n = n, .n_metrics = task->n_metrics};
    for (int64_t k = 0; k < task->n_metrics; k++)
        for (int64_t i = 0; i < N_METRICS; i++)
            if (metrics[i].kind == task->kind &&
                !strcmp(metrics[i].name, task->metrics[k]))
                summarize_one(&metrics[i], values, n, &out->metric[k]);
}
