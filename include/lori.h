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
 *         lori_generate(session, &ask, NULL, NULL, &report, &err))
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
 * `ui` (may be NULL) receives progress and log lines and can stop long work.
 * Files are Hugging Face's own: model folders (config.json, *.safetensors,
 * tokenizer.json) and PEFT adapter folders. Where a folder of a model or
 * adapter is named, "org/name" or "org/name@revision" may stand, too: if no
 * such folder exists, the snapshot in `hub_cache`, a cache folder of Hugging
 * Face ("~/.cache/huggingface/hub" spelled out; NULL: none), is taken. Only
 * lori_pull downloads. */
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

/* Options named `isa` choose the instruction set of the CPU's kernels: NULL
 * is the best one of this processor; "amx", "avx512bf16", "avx512", "avx2" or
 * "base" for tests. Same build, `isa` and recipe: same bits. */

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
    const char *hub_cache;
} lori_inspect_options;
LORI_API lori_status lori_inspect(const lori_inspect_options *options,
                                  lori_report **out, lori_error *err);
/* Version, processor, instruction sets, libraries, memory. */
LORI_API lori_status lori_env(const char *isa, lori_report **out,
                              lori_error *err);

/* ---- models of the hub ---------------------------------------------- */

/* Downloads a model or adapter into `hub_cache`, laid out as huggingface_hub
 * does, so that either program finds it. Every file is verified by its hash. A
 * pull that was stopped or failed is continued by the next one. */
typedef struct lori_pull_options {
    const char *name;     /* "org/name" or "org/name@revision" */
    const char *revision; /* branch, tag, commit; NULL: of the name, or main */
    const char *hub_cache;
    const char *endpoint; /* NULL: "https://huggingface.co" */
    const char *token;    /* NULL: none; goes to the endpoint's host only */
    /* Patterns of file names ("*.gguf"). Without `include`: what is needed to
     * run (safetensors, JSON, tokenizer, chat templates). */
    const char *const *include;
    int64_t n_include;
    const char *const *exclude;
    int64_t n_exclude;
} lori_pull_options;
LORI_API lori_status lori_pull(const lori_pull_options *options,
                               const lori_ui *ui, lori_report **out,
                               lori_error *err);

/* ---- making and changing model folders ------------------------------ */

/* A GGUF file to a complete Hugging Face folder (weights, config, tokenizer,
 * chat template). With `tokenizer_only`, another form of tokenizer to
 * tokenizer.json and tokenizer_config.json: SentencePiece's tokenizer.model
 * (BPE), Llama 3's tiktoken file of that name, Mistral's tekken.json, or a
 * folder that holds one of them. Source: spec of GGUF v2/v3. */
typedef struct lori_import_options {
    const char *source; /* X.gguf */
    const char *output; /* folder to make; must not exist unless `replace` */
    lori_dtype dtype;   /* of the weights written */
    int replace;
    int tokenizer_only;
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
    const char *hub_cache;
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
    const char *hub_cache;
    const char *isa;
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
    const char *hub_cache;
} lori_mask_options;
LORI_API lori_status lori_mask(const lori_mask_options *options,
                               const lori_ui *ui, lori_report **out,
                               lori_error *err);

/* ---- text and ids --------------------------------------------------- */

/* Texts, then files, to ids. The report's text has a line of ids for each, or
 * with `count` their number; its JSON has "inputs": "count" and, with
 * `details`, "ids", "tokens" and "offsets" as the tokenizers package gives
 * them. */
typedef struct lori_tokenize_options {
    const char *model; /* model folder, or one tokenizer.json */
    const char *const *texts;
    const int64_t *text_bytes; /* NULL: texts end at their NUL */
    int64_t n_texts;
    const char *const *files;
    int64_t n_files;
    int no_special_tokens;    /* leave out BOS and the like */
    int plain_special_tokens; /* those in the text are plain text */
    int count;
    int details;
    int byte_offsets; /* offsets in bytes, not characters */
    const char *hub_cache;
} lori_tokenize_options;
LORI_API lori_status lori_tokenize(const lori_tokenize_options *options,
                                   const lori_ui *ui, lori_report **out,
                                   lori_error *err);

/* Ids, as numbers in texts and files, to text: a line each in the report's
 * text, "outputs" in its JSON. An id that is no token is an error. */
typedef struct lori_detokenize_options {
    const char *model;
    const char *const *texts; /* "1 2 3" */
    int64_t n_texts;
    const char *const *files;
    int64_t n_files;
    int skip_special_tokens;
    const char *hub_cache;
} lori_detokenize_options;
LORI_API lori_status lori_detokenize(const lori_detokenize_options *options,
                                     lori_report **out, lori_error *err);

/* ---- running -------------------------------------------------------- */

/* A base model with its tokenizer, any number of adapters, and the keys and
 * values of what was asked lately: a prompt that begins like an earlier one
 * (a conversation that goes on) is computed from where they part. */
typedef struct lori_session lori_session;

typedef struct lori_named_adapter {
    const char *name;   /* letters, digits, "._-"; not "none" */
    const char *folder; /* PEFT adapter folder */
} lori_named_adapter;

typedef struct lori_session_options {
    const char *model;   /* model folder */
    const char *adapter; /* folder of the adapter used where none is named */
    lori_dtype dtype;
    int n_threads; /* 0: OMP_NUM_THREADS, else all processors */
    const char *isa;
    const lori_named_adapter *adapters; /* further ones, chosen by name */
    int64_t n_adapters;
    int64_t max_batch;   /* replies that grow together; 0: 16 */
    int64_t cache_bytes; /* most for keys and values; 0: 4 GiB */
    /* Most for copies of weights that make long replies come faster, to the
     * same bits; 0: half of the memory that is free beside the mapped
     * weights, -1: none. */
    int64_t compact_bytes;
    /* Tokens guessed ahead for a reply, from what followed its last tokens
     * before, and computed in the same step: 1 to 7; 0: as many as pay, -1:
     * none. Replies do not depend on it. */
    int64_t draft_tokens;
    /* NULL: the model folder's own. Else a template file, or for models
     * without one "alpaca", "llama3", "chatml", "none" (contents alone). */
    const char *chat_template;
    const char *hub_cache; /* also for adapters added later */
} lori_session_options;
LORI_API lori_status lori_session_open(const lori_session_options *options,
                                       const lori_ui *ui, lori_session **out,
                                       lori_error *err);
LORI_API void lori_session_close(lori_session *session);
/* Opens one more adapter. A name in use is an error. */
LORI_API lori_status lori_session_add_adapter(lori_session *session,
                                              const char *name,
                                              const char *folder,
                                              const lori_ui *ui,
                                              lori_error *err);
/* Names of the adapters in the order they were opened ("" for the unnamed
 * default one); NULL from the last one on. */
LORI_API const char *lori_session_adapter_name(const lori_session *session,
                                               int64_t index);
/* Tokens that a prompt and its reply may have together. */
LORI_API int64_t lori_session_context(const lori_session *session);

typedef struct lori_logit_bias {
    int32_t id;
    double bias; /* added to the token's logit */
} lori_logit_bias;

/* What to ask: exactly one of prompt, ids and messages. Where a sampling field
 * is 0, the model's generation_config.json decides, and without it the value
 * in parentheses. Sampling is on when generation_config says do_sample or when
 * temperature, top_k, top_p or min_p is given here; `greedy` turns it off. */
typedef struct lori_generate_options {
    const char *prompt; /* text */
    const int32_t *ids;
    int64_t n_ids;
    /* JSON: [{"role": "user", "content": "..."}, ...]. The model's chat
     * template makes the prompt of it. */
    const char *messages;
    const char *tools;     /* JSON list of functions, with messages; or NULL */
    const char *documents; /* JSON list, for templates that take it; or NULL */
    const char *chat_template_kwargs; /* JSON object of further variables */
    int continue_final_message; /* the reply goes on in the last message */
    int chat;                   /* `prompt` is a user's message */
    const char *system;         /* system message, with `chat` */
    /* An opened adapter's name; "none": the base alone; NULL: the default */
    const char *adapter;

    int64_t n;              /* replies to this prompt (1) */
    int64_t max_new_tokens; /* (256, or what the context leaves) */
    int64_t min_new_tokens; /* (0) */
    int greedy;
    double temperature;        /* > 0 (1) */
    int64_t top_k;             /* -1: off (off) */
    double top_p;              /* 1: off (off) */
    double min_p;              /* -1: off (off) */
    double repetition_penalty; /* of prompt and reply; 1: off (off) */
    double presence_penalty;   /* of the reply's tokens (0) */
    double frequency_penalty;  /* (0) */
    const lori_logit_bias *logit_bias;
    int64_t n_logit_bias;
    uint64_t seed; /* reply k draws with seed + k */

    const char *const *stop; /* strings that end a reply; not shown */
    int64_t n_stop;
    const int32_t *stop_ids; /* besides the model's own */
    int64_t n_stop_ids;
    int ignore_eos;       /* go on to max_new_tokens */
    int logprobs;         /* report the log-probability of every token */
    int64_t top_logprobs; /* and the most likely ones at its place, <= 20 */
} lori_generate_options;

/* Replies as they grow. `request` is the index in the call, `reply` in
 * [0, n). Called from the thread that called into the library. */
typedef struct lori_stream {
    void *context;
    /* More text: UTF-8, whole characters, nothing of a stop string. The
     * pieces of a reply make its text in the report. May be NULL. */
    void (*text)(void *context, int64_t request, int64_t reply,
                 const char *bytes, int64_t n);
    /* Asked at least once a token, also while the prompt is read. Non-zero
     * ends the request: the report holds what there is, with the
     * finish_reason "cancelled". Others go on. May be NULL. */
    int (*cancelled)(void *context, int64_t request);
} lori_stream;

/* The report: text of the (first) reply; as JSON text, finish_reason
 * ("stop", "length", "cancelled"), ids, counts, the sampling that was used;
 * with n > 1 a list "choices". `stream` may be NULL. */
LORI_API lori_status lori_generate(lori_session *session,
                                   const lori_generate_options *options,
                                   const lori_stream *stream, const lori_ui *ui,
                                   lori_report **out, lori_error *err);
/* Several at once: each reply is what lori_generate makes of it alone.
 * `reports`: caller's array of n; free each. On failure all are NULL. */
LORI_API lori_status lori_generate_many(lori_session *session,
                                        const lori_generate_options *options,
                                        int64_t n, const lori_stream *stream,
                                        const lori_ui *ui,
                                        lori_report **reports, lori_error *err);
/* Rows in, rows out. `input`: JSON Lines (or one JSON array) of objects with
 * "prompt" or "messages" and, where they differ from `defaults`, "tools",
 * "adapter" (null: the base) and the fields of lori_generate_options by their
 * names. A row without a seed has that of `defaults` plus its index.
 * `output`: a line a row, in the same order: the row's other fields, then text
 * (or choices), finish_reason, counts, log-probabilities if asked for.
 *
 * Until it is complete the output is OUTPUT.partial, and grows by blocks of
 * rows; the same call goes on after the last block there, and ends with the
 * same bytes as a run that was never stopped. With other settings or another
 * input it refuses. */
typedef struct lori_generate_file_options {
    const char *input;
    const char *output;             /* must not exist unless `replace` */
    lori_generate_options defaults; /* without prompt, ids and messages */
    int replace; /* write over `output`, begin anew in spite of a part */
} lori_generate_file_options;
LORI_API lori_status lori_generate_file(
    lori_session *session, const lori_generate_file_options *options,
    const lori_ui *ui, lori_report **out, lori_error *err);
/* Tokens of the prompt that `options` make. */
LORI_API lori_status lori_count_tokens(lori_session *session,
                                       const lori_generate_options *options,
                                       int64_t *out, lori_error *err);

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
    const char *adapter;    /* as in lori_generate_options */
} lori_score_options;
LORI_API lori_status lori_score(lori_session *session,
                                const lori_score_options *options,
                                const lori_ui *ui, lori_report **out,
                                lori_error *err);

/* ---- evaluation ----------------------------------------------------- */

/* Runs tasks on a base and on adapters over it. A task is the name of a preset
 * or a YAML file; prompts, extraction and metrics are what it says. */
typedef struct lori_eval_options {
    const char *model; /* model folder */
    const lori_named_adapter
        *adapters; /* a row each; name NULL: the folder's */
    int64_t n_adapters;
    int base; /* a row for the base alone; always without adapters */
    const char *const *tasks;
    int64_t n_tasks;
    const char *data_dir; /* folder of the presets' data files */
    int64_t limit;        /* first rows of every task; 0: as the task says */
    /* Folder for results.json, results.md and a log a model and task; a run
     * that was stopped goes on from there. NULL: only the report. */
    const char *output;
    int log_samples;    /* the logs also hold prompts and completions */
    int overwrite;      /* replace results of other settings */
    int64_t batch_size; /* texts generated at once; 0: 16 */
    lori_dtype dtype;
    int n_threads;
    const char *hub_cache;
    const char *isa;
} lori_eval_options;
LORI_API lori_status lori_eval(const lori_eval_options *options,
                               const lori_ui *ui, lori_report **out,
                               lori_error *err);
/* The presets, or with `name` the YAML of one. */
LORI_API lori_status lori_eval_presets(const char *name, lori_report **out,
                                       lori_error *err);

/* ---- whole experiments ---------------------------------------------- */

/* Runs a recipe of stages: trainings of several tasks, masks, merges, pairs of
 * tasks one after the other, evaluation of all. What is done and still valid
 * (by the content of what it was made from) is skipped, a stopped training or
 * evaluation goes on. Leaves a page of the results, OUTPUT/report.html. Format:
 * docs/RUN.md. */
typedef struct lori_run_options {
    const char *recipe;
    /* These beat the recipe's model_name_or_path, output_dir, data_dir. */
    const char *model, *output, *data_dir;
    const char *const *overrides; /* "key=value" for every training */
    int64_t n_overrides;
    int dry_run; /* report the plan and what is done of it */
    const char *hub_cache;
    const char *isa;
} lori_run_options;
LORI_API lori_status lori_run(const lori_run_options *options,
                              const lori_ui *ui, lori_report **out,
                              lori_error *err);

#ifdef __cplusplus
}
#endif
#endif
