/* infer.h - generation and scoring over a model: requests in, tokens or
 * log-probabilities out; KV pages, sampling, stop rules. Owns no text files.
 * Several requests run as one batch; each result equals its own run alone. */
#ifndef INFER_INFER_H
#define INFER_INFER_H

#include "model/model.h"
#include "text/text.h"

/* Filters are applied in transformers' order: temperature, top-k, top-p. */
typedef struct infer_sampling {
    bool sample;        /* false: greedy, the rest is unused */
    double temperature; /* > 0 */
    int64_t top_k;      /* 0: off */
    double top_p;       /* (0, 1]; 1: off */
    uint64_t seed;
} infer_sampling;
/* Checks ranges; LORI_INVALID names the option. */
lori_status infer_sampling_check(const infer_sampling *s, lori_error *err);
/* One draw from `logits` [vocab] (host); `rng` advances by one number. Greedy:
 * the first largest, `rng` is not touched and may be NULL.
 * `scratch` is vocab * 16 bytes. */
int32_t infer_sample(const float *logits, int64_t vocab,
                     const infer_sampling *s, base_rng *rng, void *scratch);

typedef struct infer_request {
    const int32_t *prompt; /* >= 1 token */
    int64_t n_prompt;
    int64_t max_new_tokens;
    infer_sampling sampling; /* seed of its own */
    const int32_t *stops;    /* ids that end it (included in the result) */
    size_t n_stops;
} infer_request;

typedef enum infer_finish {
    INFER_STOP,
    INFER_LENGTH,
    INFER_CANCELLED
} infer_finish;
typedef struct infer_result {
    int32_t *ids; /* generated tokens; free with infer_results_free */
    int64_t n;
    double *logprob; /* of each, under the unfiltered distribution */
    infer_finish finish;
} infer_result;
void infer_results_free(infer_result *results, int64_t n);

typedef struct infer_hooks {
    void *context;
    /* After each new token; non-zero cancels that request. May be NULL. */
    int (*token)(void *context, int64_t request, int32_t id);
    const lori_ui *ui; /* progress ("generate", requests done), interrupted */
} infer_hooks;

/* Runs all requests, up to `max_batch` at once (0: 16). A prompt that with
 * max_new_tokens exceeds max_position_embeddings is an error that says so.
 * results: caller's array of n, zeroed; on failure empty again, but on
 * LORI_INTERRUPTED it holds what was generated so far. `ad` may be NULL. */
lori_status infer_generate(model *m, const model_adapter *ad,
                           const infer_request *requests, int64_t n,
                           int64_t max_batch, const infer_hooks *hooks,
                           infer_result *results, lori_error *err);

/* A text to score: nll of tokens [first, n_ids), each given all before it. */
typedef struct infer_score_item {
    const int32_t *ids;
    int64_t n_ids;
    int64_t first; /* >= 1 */
    double *nll;   /* out: [n_ids - first], caller's */
} infer_score_item;
/* Scores all items in packed batches of at most `max_tokens` (0: 4096; a
 * longer item runs alone). */
lori_status infer_score(model *m, const model_adapter *ad,
                        infer_score_item *items, int64_t n, int64_t max_tokens,
                        const lori_ui *ui, lori_error *err);

#endif
