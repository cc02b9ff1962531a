/* infer.h - generation and scoring over a model: requests in, tokens or
 * log-probabilities out. Owns the pages of keys and values, scheduling,
 * sampling, stop rules and stop strings. Reads no files.
 *
 *     infer_engine_new(model, NULL, &engine, err);
 *     infer_run(engine, requests, n, NULL, results, err);   greedy, all at once
 *
 * Requests of several adapters run in one batch, and enter and leave it at any
 * step. Each result equals its request's run alone. An engine is used by one
 * thread at a time and outlived by its model and adapters. */
#ifndef INFER_INFER_H
#define INFER_INFER_H

#include "model/model.h"
#include "text/text.h"

/* ---- sampling ------------------------------------------------------- */

typedef struct infer_bias {
    int32_t id;
    double bias; /* added to the token's logit; -INFINITY forbids it */
} infer_bias;

/* Zeroed: greedy, nothing else. Applied in transformers' order, to greedy
 * choices too up to min_new_tokens: bias, repetition_penalty, frequency and
 * presence penalty, min_new_tokens; then temperature, top-k, top-p, min-p. */
typedef struct infer_sampling {
    bool sample;        /* false: the largest logit, the filters are unused */
    double temperature; /* > 0 */
    int64_t top_k;      /* 0: off */
    double top_p;       /* (0, 1]; 1: off */
    uint64_t seed;
    double min_p;              /* [0, 1]; 0: off */
    double repetition_penalty; /* > 0, of prompt and reply; 0 or 1: off */
    double presence_penalty;   /* subtracted once for a token of the reply */
    double frequency_penalty;  /* for each time it came */
    const infer_bias *bias;    /* each id once at most */
    int64_t n_bias;
    int64_t min_new_tokens; /* stop ids cannot come earlier */
} infer_sampling;
/* Checks ranges; LORI_INVALID names the option. */
lori_status infer_sampling_check(const infer_sampling *s, lori_error *err);
/* One draw from `logits` [vocab] (host); `rng` advances by one number. Greedy:
 * the first largest, `rng` is not touched and may be NULL.
 * `scratch` is vocab * 16 bytes. */
int32_t infer_sample(const float *logits, int64_t vocab,
                     const infer_sampling *s, base_rng *rng, void *scratch);

/* ---- requests ------------------------------------------------------- */

typedef struct infer_request {
    int64_t tag;           /* the caller's name for it; infer_run: its index */
    const int32_t *prompt; /* >= 1 token */
    int64_t n_prompt;
    int64_t max_new_tokens;
    infer_sampling sampling;
    const int32_t *stops; /* ids that end it (included in the result) */
    int64_t n_stops;
    int64_t top_logprobs; /* most likely tokens to report at each place */
    const model_adapter *adapter; /* NULL: the base */
    /* Tells adapters apart whose keys and values may not be shared: the base
     * has 0; a number is never used again for another adapter. */
    uint64_t adapter_key;
} infer_request;

typedef enum infer_finish {
    INFER_STOP,
    INFER_LENGTH,
    INFER_CANCELLED
} infer_finish;
typedef struct infer_top {
    int32_t id;
    double logprob;
} infer_top;
typedef struct infer_result {
    int32_t *ids; /* generated tokens; free with infer_results_free */
    int64_t n;
    double *logprob;  /* of each, before bias, penalties and filters */
    infer_top *top;   /* [n * top_logprobs], most likely first */
    int64_t n_cached; /* prompt tokens whose keys were there already */
    infer_finish finish;
} infer_result;
void infer_results_free(infer_result *results, int64_t n);

/* What a `token` hook answers. */
typedef enum infer_next {
    INFER_GO_ON,
    INFER_END_STOP,  /* end it: a stop string was found */
    INFER_END_CANCEL /* end it: nobody wants it any more */
} infer_next;

typedef struct infer_hooks {
    void *context;
    /* After each new token of request `tag`. NULL: go on. */
    infer_next (*token)(void *context, int64_t tag, int32_t id);
    /* Asked before each step for every request; true ends it. May be NULL. */
    bool (*cancelled)(void *context, int64_t tag);
    /* The request has ended, its result is complete. May be NULL. */
    void (*done)(void *context, int64_t tag);
    const lori_ui *ui; /* infer_run: progress ("generate"), interrupted */
} infer_hooks;

/* ---- the engine ----------------------------------------------------- */

/* Tokens guessed ahead of a reply, at most. */
#define INFER_DRAFT 7

/* The keys and values of an engine lie in pages. A page that nobody uses any
 * more keeps what it holds until another needs its place, least recently used
 * first; a prompt that begins like something still there shares it, if the
 * adapter is the same. */
typedef struct infer_limits {
    int64_t max_batch;   /* requests that advance together; 0: 16 */
    int64_t step_tokens; /* of prompts, computed in one step; 0: 1024 */
    int64_t context;     /* longest prompt and reply; 0: all the model has */
    int64_t
        cache_bytes;       /* most for keys and values; 0: 4 GiB. If that is too
                              little for `context`, the context is what it holds */
    int64_t compact_bytes; /* most for compact copies of weights
                              (model_compact), made when a reply has 64 tokens
                              or more to come; 0: half of the memory that is
                              free beside the mapped weights, -1: none */
    int64_t draft_tokens;  /* guessed ahead for a reply, from what followed its
                              last tokens before, and computed in the same
                              step: 1 to INFER_DRAFT; 0: as many as pay, -1:
                              none. No result depends on it. None where a row's
                              bits depend on its company (backend.h,
                              round_rows) */
} infer_limits;
typedef struct infer_engine infer_engine;
/* `limits` may be NULL. */
lori_status infer_engine_new(model *m, const infer_limits *limits,
                             infer_engine **out, lori_error *err);
void infer_engine_free(infer_engine *e);
int64_t infer_context(const infer_engine *e);

/* Puts a request in the queue: they start in their order, when there is room.
 * What it points to (not `q` itself) must live until it is done. *result is
 * filled as tokens come; its finish is INFER_CANCELLED until it is done. */
lori_status infer_submit(infer_engine *e, const infer_request *q,
                         infer_result *result, lori_error *err);
int64_t infer_pending(const infer_engine *e); /* waiting or running */
/* Advances every running request by a token or more, or a piece of its prompt.
 * After a failure nothing is pending any more; results hold what had come.
 * `hooks` may be NULL. */
lori_status infer_step(infer_engine *e, const infer_hooks *hooks,
                       lori_error *err);
/* Forgets all requests, without telling anyone. */
void infer_clear(infer_engine *e);
/* Forgets them and all keys and values: what comes next is computed as in a
 * new engine, to the same bits. */
lori_status infer_forget(infer_engine *e, lori_error *err);

/* All of that for a list. A prompt that with max_new_tokens exceeds the context
 * is an error that says so. results: caller's array of n, zeroed; on failure
 * empty again, but on LORI_INTERRUPTED it holds what was generated so far.
 * `hooks` may be NULL. */
lori_status infer_run(infer_engine *e, const infer_request *requests, int64_t n,
                      const infer_hooks *hooks, infer_result *results,
                      lori_error *err);

/* ---- scoring -------------------------------------------------------- */

/* A text to score: nll of tokens [first, n_ids), each given all before it.
 * For the choices of a question: context and continuation one after the
 * other, first = length of the context. */
typedef struct infer_score_item {
    const int32_t *ids;
    int64_t n_ids;
    int64_t first;                /* >= 1 */
    double *nll;                  /* out: [n_ids - first], caller's */
    const model_adapter *adapter; /* as in infer_request */
    uint64_t adapter_key;
} infer_score_item;
lori_status infer_score(infer_engine *e, infer_score_item *items, int64_t n,
                        const lori_ui *ui, lori_error *err);

/* ---- text as it grows ------------------------------------------------ */

/* The text of one reply: decodes token by token and watches for stop strings.
 * What it shows is never half a character, never a stop string nor a beginning
 * of one that may still be completed. */
typedef struct infer_text infer_text;
/* stops: strings, copied; none may be empty. */
lori_status infer_text_new(const text_tokenizer *tok, const char *const *stops,
                           int64_t n_stops, infer_text **out, lori_error *err);
/* Appends to `out` what may be shown now. *stop: index of the stop string that
 * the reply has reached (then nothing more is to be put), else -1. */
lori_status infer_text_put(infer_text *t, int32_t id, base_str *out,
                           int64_t *stop, lori_error *err);
/* What was held back, when the reply ends otherwise. */
lori_status infer_text_end(infer_text *t, base_str *out, lori_error *err);
void infer_text_free(infer_text *t);

#endif
