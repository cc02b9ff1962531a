/* train.h - recipes, datasets, packing, optimizer, schedule, checkpoints and
 * the training loop. Knows no GPU and no file format but its own metrics;
 * adapters are written by adapter/, passes are run by model/.
 * Names and defaults: spec/trainer.md 2 and DESIGN "Names". */
#ifndef TRAIN_TRAIN_H
#define TRAIN_TRAIN_H

#include "model/model.h"
#include "text/text.h"

/* ---- recipe --------------------------------------------------------- */

typedef enum train_method { TRAIN_LORI, TRAIN_LORA } train_method;
typedef enum train_phase { TRAIN_DENSE, TRAIN_SPARSE } train_phase;
typedef enum train_schedule { TRAIN_CONSTANT, TRAIN_LINEAR } train_schedule;
typedef enum train_reduction {
    TRAIN_TOKEN_MEAN, /* sum of nll over the step / label tokens of the step */
    TRAIN_EXAMPLE_SUM /* mean over the step's examples of their summed nll */
} train_reduction;
typedef enum train_clip { TRAIN_CLIP_GLOBAL, TRAIN_CLIP_PER_TENSOR } train_clip;

/* Columns of a dataset's rows. Either prompt/completion, or
 * instruction/input/output (the Alpaca prompt), or question/answer (prompt =
 * question and a line feed), or input_ids/labels; found from the first row when
 * not set, then required of every row. */
typedef struct train_columns {
    char *prompt, *completion; /* e.g. "question", "answer" */
    char *instruction, *input, *output;
} train_columns;

typedef struct train_recipe {
    /* model */
    char *model_name_or_path;
    base_dtype dtype; /* BF16 (default) or F32 */
    /* data */
    char *train_file, *validation_file;
    train_columns columns;
    char *prompt_template;    /* "{instruction}" fields; NULL: default */
    bool apply_chat_template; /* the prompt is a user's message; false */
    char *chat_template;      /* text_chat_open's choice; NULL: the model's */
    int64_t max_seq_length;   /* 2048 */
    int64_t max_train_samples, max_eval_samples; /* 0: all */
    bool shuffle;                                /* true */
    bool completion_only_loss;                   /* true */
    /* adapter */
    train_method method;
    train_phase phase;
    int64_t lora_rank; /* 32 */
    double lora_alpha; /* 2 * rank */
    bool use_rslora;
    char **lora_target_modules; /* NULL: all seven */
    int64_t n_targets;
    bool has_a_seed;
    uint64_t lori_a_seed;
    char *lori_mask_path;
    char *adapter_name_or_path; /* start from its A and B */
    const char *adapter_folder; /* where that is, if not there; no key */
    /* optimization */
    double learning_rate;             /* 2e-4 */
    train_schedule lr_scheduler_type; /* of step t, from 0, as transformers:
                    lr t / warmup below it (so 0 at first), then lr, or
                    linear to 0 at the last step's end */
    int64_t warmup_steps;
    double warmup_ratio;
    double adam_beta1, adam_beta2, adam_epsilon, weight_decay;
    double max_grad_norm; /* 1.0; 0: off */
    train_clip clip_scope;
    train_reduction loss_reduction;
    int64_t per_device_train_batch_size; /* 8 sequences */
    int64_t per_device_eval_batch_size;  /* 8 */
    int64_t gradient_accumulation_steps; /* 1 */
    bool gradient_checkpointing;         /* false; true: the least memory */
    int64_t memory_budget;               /* bytes; 0: what is free */
    double num_train_epochs;             /* 3 */
    int64_t max_steps;                   /* -1: from epochs */
    uint64_t seed;                       /* 42 */
    /* saving and logging */
    char *output_dir;
    bool overwrite_output_dir;
    int64_t logging_steps; /* 10 */
    int64_t eval_steps;    /* 0: at the end only */
    int64_t save_steps;    /* 0: at the end only */
    bool resume_from_checkpoint;
    int64_t n_threads; /* 0: OMP_NUM_THREADS, else all processors */
} train_recipe;

/* Reads a YAML recipe (flat or grouped; `path` may be NULL) and overrides
 * ("key=value", "group.key=value"), the later wins over the file. Every error
 * is collected: err->message holds them a line each, "file:line:column: ..."
 * (overrides: "command line: ..."), an unknown key with the nearest name.
 * Aliases of spec/trainer.md 2 are accepted; two spellings with different
 * values are an error. */
lori_status train_recipe_load(const char *path, const char *const *overrides,
                              int64_t n_overrides, train_recipe *out,
                              lori_error *err);
void train_recipe_free(train_recipe *recipe);
/* The resolved recipe as YAML: what `lori train --dry-run` prints and what is
 * written beside the adapter. Reads back to the same recipe. */
void train_recipe_text(const train_recipe *recipe, base_str *out);
/* All keys with type, default and one line of help; for --help. */
void train_recipe_help(base_str *out);

/* ---- data ----------------------------------------------------------- */

/* Tokenized rows. Row i is ids[start[i] .. start[i+1]); label[t] says whether
 * token t is predicted (a target). The first token of a row never is. */
typedef struct train_data {
    int64_t n_rows, n_tokens, n_targets;
    int64_t *start;
    int32_t *ids;
    uint8_t *label;
    int64_t n_truncated, n_dropped; /* rows shortened, rows without a target */
} train_data;

/* Options of a dataset, taken from a recipe. */
typedef struct train_data_options {
    train_columns columns;
    const char *prompt_template;
    bool apply_chat_template;
    const char *chat_template;
    int64_t max_seq_length, max_samples;
    bool completion_only_loss;
} train_data_options;

/* Prompt and completion are tokenized apart, BOS as the post-processor adds
 * it to the prompt, EOS appended to the completion; a row longer than
 * max_seq_length loses its end (counted). With apply_chat_template the prompt
 * is what the template makes of it as a user's message, up to the head of the
 * reply. With `tok` NULL only tokenized rows
 * (input_ids, labels; -100 = no loss) are accepted. Errors name file and line;
 * an empty dataset is an error. */
lori_status train_data_load(const char *path, const text_tokenizer *tok,
                            const train_data_options *options, int64_t vocab,
                            const lori_ui *ui, train_data **out,
                            lori_error *err);
void train_data_free(train_data *data);
/* The prompt and completion texts of one dataset row as training uses them
 * (base_str appended); for exact-match evaluation. */
typedef struct train_text_row {
    char *prompt, *completion;
} train_text_row;
lori_status train_texts_load(const char *path,
                             const train_data_options *options,
                             train_text_row **rows, int64_t *n,
                             lori_error *err);
void train_texts_free(train_text_row *rows, int64_t n);

/* Mean nll a target token over `data`, and the number of targets. */
lori_status train_evaluate(model *m, const model_adapter *ad,
                           const train_data *data, int64_t batch_size,
                           const lori_ui *ui, double *mean_nll,
                           lori_error *err);

/* ---- training ------------------------------------------------------- */

/* What a run takes of memory, in bytes, and the schedule that follows. */
typedef struct train_plan {
    int64_t budget; /* memory_budget, or what is free less a reserve */
    bool automatic; /* the latter */
    bool fits;      /* always, unless automatic */
    int64_t steps, rows_per_step, parameters;
    int64_t tokens;                             /* of the largest pass */
    int64_t keep_all, keep_no_mlp, keep_inputs; /* layers, model_schedule */
    size_t mapped, converted;                   /* weights */
    size_t adapter, optimizer, data, kept, live, logits, scratch;
    size_t total; /* all of it; without `mapped` it is private memory */
} train_plan;
/* What train_run would plan; reads the data, writes nothing. */
lori_status train_plan_make(const train_recipe *recipe, model *m,
                            const text_tokenizer *tok, const lori_ui *ui,
                            train_plan *out, lori_error *err);
/* Three lines, each with `before` in front. */
void train_plan_text(const train_plan *plan, const char *before, base_str *out);

typedef struct train_result {
    train_plan plan;
    int64_t steps, epochs_x1000; /* optimizer steps done */
    int64_t trainable, kept;     /* parameters updated */
    double train_loss;           /* of the last logged window */
    bool has_eval;
    double eval_loss;
    double seconds, useful_tokens_per_s, median_tokens_per_s;
    int64_t rss_peak_bytes; /* the kernel's count */
    /* largest of what stood after each step */
    int64_t rss_anon_bytes, rss_file_bytes;
    bool interrupted; /* adapter was saved all the same */
} train_result;

/* Trains as the recipe says and writes output_dir: the adapter (PEFT folder),
 * recipe.yaml, metrics.jsonl, checkpoint/ while unfinished. `tok` as in
 * train_data_load. On interruption the adapter so far and a checkpoint are
 * saved and LORI_INTERRUPTED returned with *result filled. A loss or gradient
 * that is not finite is LORI_NUMERIC: no adapter is written, the one before
 * and the last checkpoint stay. A place that cannot be written to, or that
 * holds an adapter or a checkpoint without leave to replace it, is an error
 * before anything is read. */
lori_status train_run(const train_recipe *recipe, model *m,
                      const text_tokenizer *tok, const lori_ui *ui,
                      train_result *result, lori_error *err);

#endif
