/* infer_i.h - private to src/infer. */
#ifndef INFER_INFER_I_H
#define INFER_INFER_I_H

#include "infer/infer.h"

struct infer_engine {
    model *m;
    infer_limits limits;
};

/* A token that survives the filters. */
typedef struct infer_candidate {
    double p; /* probability among the survivors; they sum to 1 */
    float x;  /* logit over temperature */
    int32_t id;
} infer_candidate;

/* Whether infer_process would change anything. */
bool infer_changes_logits(const infer_sampling *s);
/* Bias, penalties and min_new_tokens, in place on x [vocab]. zeros [vocab]:
 * scratch that is zero before and after. */
void infer_process(float *x, const infer_request *q, const int32_t *reply,
                   int64_t n_reply, int32_t *zeros);
/* Temperature, top-k, top-p, min-p: fills c [vocab] with the survivors and
 * returns their number (>= 1). By id when no filter is on, else most likely
 * first, equal logits by id. */
int64_t infer_filter(const float *logits, int64_t vocab,
                     const infer_sampling *s, infer_candidate *c);
int64_t infer_argmax(const float *x, int64_t n);
/* log(sum(exp(x))); NaN or infinite when x is no distribution. */
double infer_lse(const float *x, int64_t n);
/* The n_top (<= vocab) largest as log-probabilities, equal ones by id. */
void infer_top_tokens(const float *x, int64_t vocab, double lse, infer_top *top,
                      int64_t n_top);
/* Row `row` of logits [rows, vocab] in the backend's acc dtype as floats:
 * inside `logits` itself, or converted into `buffer` [vocab]. */
const float *infer_row(const void *logits, base_dtype acc, int64_t row,
                       int64_t vocab, float *buffer);
/* LORI_INVALID naming `what` and the place when an id is not in [0, vocab). */
lori_status infer_check_ids(const int32_t *ids, int64_t n, int64_t vocab,
                            const char *what, int64_t index, lori_error *err);

#endif
