/* job_i.h - what the files of job/ share. */
#ifndef JOB_JOB_I_H
#define JOB_JOB_I_H

#include <jansson.h>

#include "format/format.h"
#include "hub/hub.h"
#include "infer/infer.h"
#include "job/job.h"
#include "model/model.h"
#include "text/text.h"
#include "train/train.h"

/* Takes both: `facts` (a reference) and the text of `text` (freed). A NULL
 * `facts` or a failed string is LORI_NO_MEMORY. */
lori_status report_new(json_t *facts, base_str *text, lori_report **out,
                       lori_error *err);

/* Names "output", refuses an empty one. */
lori_status job_need(const char *value, const char *what, lori_error *err);
/* The adapter in the folder, or of the hub's cache, that `name` means. */
lori_status job_read_adapter(const char *hub_cache, const char *name,
                             adapter **out, lori_error *err);
base_dtype job_dtype(lori_dtype dtype, base_dtype otherwise);

/* A JSON file of a model folder. flags as format_json_write; config files of
 * Hugging Face have JOB_CONFIG. */
#define JOB_CONFIG (FORMAT_JSON_SORT | FORMAT_JSON_INDENT | FORMAT_JSON_ASCII)
lori_status job_write_json(const char *folder, const char *name,
                           const json_t *value, unsigned flags, bool newline,
                           lori_error *err);

/* Converts the GGUF vocabulary into tokenizer.json, tokenizer_config.json and
 * chat_template.jinja in `folder`. *stops: json array or integer for
 * generation_config's eos_token_id (new reference; NULL when there is none). */
lori_status import_tokenizer(const format_gguf *gguf, const char *folder,
                             int64_t vocab, int64_t context, json_t **stops,
                             lori_error *err);
/* A tokenizer file that is not tokenizer.json, or a folder that holds one, to
 * a folder with tokenizer.json and tokenizer_config.json. */
lori_status import_tokenizer_alone(const lori_import_options *options,
                                   lori_report **out, lori_error *err);
/* Values shared with import_tokenizer: id of tokenizer.ggml.<key>, -1 unset. */
lori_status import_token_id(const format_gguf *gguf, const char *key,
                            int64_t vocab, int64_t *id, lori_error *err);

/* Writes base + weighted adapters as a model folder (job_merge with `into`,
 * which was found at `base`). */
lori_status merge_into_base(const lori_merge_options *options, const char *base,
                            adapter *const *adapters, const double *weights,
                            const lori_ui *ui, lori_report **out,
                            lori_error *err);

#endif
