/* lori.h - LoRI and LoRA adapters for Llama-family language models.
 *
 *     #include <lori.h>
 *
 *     lori_error err;
 *     lori_session *session = NULL;
 *     lori_report *report = NULL;
 *     lori_session_options open = {.model = "smollm2", .adapter = "math-s"};
 *     lori_generate_options ask = {.prompt = "What is 17 + 25?",
 *                                  .chat = 1, .max_new_tokens = 64};
 *     if (lori_session_open(&open, NULL, &session, &err) ||
 *         lori_generate(session, &ask, NULL, &report, &err))
 *         fprintf(stderr, "%s\n", err.message);
 *     else
 *         puts(lori_report_text(report));
 *     lori_report_free(report);
 *     lori_session_close(session);
 *
 * Rules of the whole interface. Functions return LORI_OK (0) or another status
 * and fill *err (may be NULL). Option structs are zero-initialised by the
 * caller: a zero field means its default. Strings are UTF-8, borrowed during
 * the call. Outputs are NULL on failure; nothing half-written stays on disk.
 * Two handles may be used from two threads at once, one handle from one.
 * `ui` (may be NULL) receives progress, log lines and streamed text and can
 * stop long work. Files are Hugging Face's own: model folders (config.json,
 * *.safetensors, tokenizer.json) and PEFT adapter folders. */
#ifndef LORI_H
#define LORI_H

#include "lori_core.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef LORI_API
#define LORI_API __attribute__((visibility("default")))
#endif

#define LORI_VERSION "0.1.0"
LORI_API const char *lori_version(void);
LORI_API const char *lori_status_text(lori_status status);
/* The candidate that `word` is most likely a misspelling of, or NULL. */
LORI_API const char *lori_nearest(const char *word,
                                  const char *const *candidates, int64_t n);

/* How weights and activations are held while computing. */
typedef enum lori_dtype {
    LORI_DTYPE_DEFAULT, /* bf16; import: bf16; merge: the base's own */
    LORI_DTYPE_BF16,
    LORI_DTYPE_F32
} lori_dtype;

/* What a job found or did, as JSON (one object, final newline) and as text for
 * people. Strings live until lori_report_free. */
typedef struct lori_report lori_report;
LORI_API const char *lori_report_json(const lori_report *report);
LORI_API const char *lori_report_text(const lori_report *report);
LORI_API void lori_report_free(lori_report *report);

/* ---- facts ---------------------------------------------------------- */

/* Counts and properties of a base model (folder or a config.json alone), an
 * adapter folder, a mask folder: any of them. With `base`, adapter sizes are
 * counted for `lora_rank` and `sparsity`. */
typedef struct lori_inspect_options {
    const char *base;
    const char *adapter;
    const char *mask;
    int64_t lora_rank; /* 0: 32 */
    double sparsity;   /* 0: 0.9 */
} lori_inspect_options;
LORI_API lori_status lori_inspect(const lori_inspect_options *options,
                                  lori_report **out, lori_error *err);
/* Version, processor, instruction sets, libraries, memory. */
LORI_API lori_status lori_env(lori_report **out, lori_error *err);

/* ---- making and changing model folders ------------------------------ */

/* A GGUF file to a complete Hugging Face folder (weights, config, tokenizer,
 * chat template). Source: spec of GGUF v2/v3. */
typedef struct lori_import_options {
    const char *source; /* X.gguf */
    const char *output; /* folder to make; must not exist unless `replace` */
    lori_dtype dtype;   /* of the weights written */
    int replace;
} lori_import_options;
LORI_API lori_status lori_import(const lori_import_options *options,
                                 const lori_ui *ui, lori_report **out,
                                 lori_error *err);

typedef enum lori_merge_method {
    LORI_MERGE_CAT,   /* exact sum: rank is the sum of ranks */
    LORI_MERGE_LINEAR /* A and B combined apart: same rank, cross terms */
} lori_merge_method;

/* With `into`: base + sum of weighted adapters as a complete model folder.
 * Without: one adapter made of several. */
typedef struct lori_merge_options {
    const char *const *adapters; /* folders */
    const double *weights;       /* NULL: 1 each */
    int64_t n_adapters;
    lori_merge_method method;
    const char *into;   /* base model folder, or NULL */
    const char *output; /* folder to make */
    lori_dtype dtype;   /* of a merged model's weights */
    int replace;
} lori_merge_options;
LORI_API lori_status lori_merge(const lori_merge_options *options,
                                const lori_ui *ui, lori_report **out,
                                lori_error *err);

/* ---- the method ----------------------------------------------------- */

/* Trains as a YAML recipe says; overrides are "key=value" strings.
 * On LORI_INTERRUPTED the adapter so far and a checkpoint are on disk. */
typedef struct lori_train_options {
    const char *recipe; /* NULL: overrides alone */
    const char *const *overrides;
    int64_t n_overrides;
    int dry_run; /* check everything and report the plan, train nothing */
} lori_train_options;
LORI_API lori_status lori_train(const lori_train_options *options,
                                const lori_ui *ui, lori_report **out,
                                lori_error *err);
/* All recipe keys with their defaults, for --help. Static text. */
LORI_API lori_status lori_train_keys(lori_report **out, lori_error *err);

/* The keep mask of a trained LoRI-D adapter: the largest |B| of the whole
 * model. */
typedef struct lori_mask_options {
    const char *adapter; /* folder */
    const char *output;  /* folder to make */
    double sparsity;     /* 0: 0.9 */
    int replace;
} lori_mask_options;
LORI_API lori_status lori_mask(const lori_mask_options *options,
                               const lori_ui *ui, lori_report **out,
                               lori_error *err);

/* ---- running -------------------------------------------------------- */

/* A base model with its tokenizer and at most one adapter, ready to run. */
typedef struct lori_session lori_session;
typedef struct lori_session_options {
    const char *model;   /* model folder */
    const char *adapter; /* adapter folder, or NULL */
    lori_dtype dtype;
    int n_threads; /* 0: OpenMP's choice */
} lori_session_options;
LORI_API lori_status lori_session_open(const lori_session_options *options,
                                       const lori_ui *ui, lori_session **out,
                                       lori_error *err);
LORI_API void lori_session_close(lori_session *session);

typedef struct lori_generate_options {
    const char *prompt; /* text, or NULL when `ids` are given */
    const int32_t *ids;
    int64_t n_ids;
    int chat;               /* apply the model's chat template to the prompt */
    const char *system;     /* system message, with `chat` */
    int64_t max_new_tokens; /* 0: 256 */
    double temperature;     /* 0: greedy */
    int64_t top_k;          /* 0: off */
    double top_p;           /* 0: off */
    uint64_t seed;
    int ignore_eos; /* go on to max_new_tokens */
} lori_generate_options;
/* Streams text through ui->text; the report holds text, ids, timings. */
LORI_API lori_status lori_generate(lori_session *session,
                                   const lori_generate_options *options,
                                   const lori_ui *ui, lori_report **out,
                                   lori_error *err);

/* Log-probabilities of a text, of ids, or of the completions of a dataset. */
typedef struct lori_score_options {
    const char *text;
    const int32_t *ids;
    int64_t n_ids;
    const char *data;    /* JSON or JSONL file of rows, as for training */
    const char *columns; /* "prompt=question,completion=answer", or NULL */
    const char *prompt_template;
    int64_t max_seq_length; /* 0: 2048 */
    int64_t max_samples;    /* 0: all rows */
    int exact_match;        /* with data: greedy answers, compared trimmed */
    int64_t max_new_tokens; /* of these; 0: 128 */
    const char *output;     /* with data: JSONL of the rows' results, or NULL */
    int64_t top;            /* with text or ids: this many best next tokens */
} lori_score_options;
LORI_API lori_status lori_score(lori_session *session,
                                const lori_score_options *options,
                                const lori_ui *ui, lori_report **out,
                                lori_error *err);

#ifdef __cplusplus
}
#endif
#endif
