/* adapter_i.h - private to src/adapter: what the reader, the writer and the
 * merges share. */
#ifndef ADAPTER_ADAPTER_I_H
#define ADAPTER_ADAPTER_I_H

#include "adapter/adapter.h"
#include "format/format.h"

#define ADAPTER_CONFIG_FILE    "adapter_config.json"
#define ADAPTER_WEIGHTS_FILE   "adapter_model.safetensors"
#define ADAPTER_FACTS_FILE     "lori.json"
#define ADAPTER_KEEP_FILE      "keep.json"
#define ADAPTER_KEEP_BITS_FILE "keep.safetensors"

/* ---- sites (adapter.c) ---------------------------------------------- */

/* Order of sites: first layer number in the path (none: before layer 0), then
 * q k v o gate up down, then the path's bytes. */
int adapter_path_order(const char *x, const char *y);
/* The first component of `path` that is a number, or -1; *start and *length
 * (may be NULL) say where it stands. */
int64_t adapter_path_layer(const char *path, size_t *start, size_t *length);
/* What follows the last '.' of the path. */
const char *adapter_path_last(const char *path);
/* alpha / rank, or alpha / sqrt(rank). */
double adapter_scale(double alpha, int64_t rank, bool rslora);
/* A copy of sites, A, base model and origin; B is zero, no method, no extras.
 */
lori_status adapter_copy_a(const adapter *ad, adapter **out, lori_error *err);
/* LORI_NUMERIC naming `folder/tensor` when a value is NaN or infinite. */
lori_status adapter_check_finite(const float *x, int64_t n, const char *file,
                                 const char *tensor, lori_error *err);

/* What adapter.map holds: the open file behind the extras and their names. */
typedef struct adapter_backing {
    format_store *store;
    char **names;
    int64_t n_names;
} adapter_backing;
void adapter_backing_free(adapter_backing *backing); /* NULL is fine */

/* ---- PEFT's adapter_config.json (peft_config.c, peft_match.c) ------- */

/* One entry of rank_pattern or alpha_pattern, in file order. */
typedef struct adapter_peft_pattern {
    const char *key; /* borrowed from the JSON */
    double value;
} adapter_peft_pattern;

/* The keys that decide what the tensors mean. Borrows from `root`. */
typedef struct adapter_peft {
    json_t *root;
    char *file; /* for messages */
    int64_t r;
    double alpha;
    bool rslora;
    const char *base_model; /* may be NULL */
    adapter_peft_pattern *ranks, *alphas;
    size_t n_ranks, n_alphas;
    const json_t *targets;  /* string, array, or NULL: PEFT's family default */
    const json_t *excludes; /* string, array or NULL */
    const json_t *saved;    /* modules_to_save: array or NULL */
    const json_t *layers;   /* integer, array or NULL */
    const json_t *layer_patterns; /* string, array or NULL */
} adapter_peft;

/* Reads and checks the file: options that change the result and are not
 * honoured are LORI_UNSUPPORTED by name. */
lori_status adapter_peft_load(const char *path, adapter_peft *out,
                              lori_error *err);
void adapter_peft_free(adapter_peft *peft);

/* PEFT's rule whether the config adapts module `path` (spec/peft.md 1.2). */
lori_status adapter_peft_targets(const adapter_peft *peft, const char *path,
                                 bool *out, lori_error *err);
/* Rank and alpha of `path` after the patterns (spec/peft.md 1.3). */
lori_status adapter_peft_values(const adapter_peft *peft, const char *path,
                                int64_t *rank, double *alpha, lori_error *err);

/* ---- lori.json (lori_facts.c) --------------------------------------- */

/* Reads folder/lori.json when there is one: method and origin. */
lori_status adapter_facts_read(const char *folder, adapter *ad,
                               lori_error *err);
lori_status adapter_facts_write(const char *folder, const adapter *ad,
                                lori_error *err);
/* "a_seed" (decimal string) and "a_version" in `object`: both or neither. */
lori_status adapter_origin_read(const json_t *object, const char *file,
                                adapter_origin *out, lori_error *err);
/* Adds both keys to `object`, null when A has no seed. */
int adapter_origin_write(json_t *object, const adapter_origin *origin);

/* ---- writing folders (adapter_write.c) ------------------------------ */

/* The model card's text. */
void adapter_card(const adapter *ad, base_str *out);

/* ---- keep masks (keep.c) -------------------------------------------- */

static inline int64_t adapter_keep_words(int64_t rank)
{
    return (rank + 31) / 32;
}

#endif
