/* model.h - a Llama-family model: HF config -> architecture, checkpoint ->
 * weights, block forward / backward / recompute, the whole pass. All the
 * mathematics goes through the backend table; adapters come from adapter/.
 * Source: transformers modeling_llama.py, modeling_mistral.py; spec/hf.md. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "adapter/adapter.h"
#include "backend/backend.h"

/* ---- configuration -------------------------------------------------- */

typedef enum model_rope_kind {
    MODEL_ROPE_DEFAULT,
    MODEL_ROPE_LINEAR,
    MODEL_ROPE_LLAMA3
} model_rope_kind;

typedef struct model_config {
    char family[32]; /* model_type: "llama", "mistral" */
    int64_t vocab, d, ffn, n_layers, n_heads, n_kv_heads, head_dim;
    int64_t max_positions;
    double norm_eps;
    double rope_theta;
    model_rope_kind rope;
    double rope_factor, rope_low, rope_high; /* llama3; linear: factor */
    int64_t rope_original;
    int64_t window; /* 0: none */
    bool tied;      /* lm_head = embed_tokens */
    bool attention_bias, mlp_bias;
} model_config;

/* `path`: a model folder or a config.json, as transformers 4 and 5 write it.
 * An unknown family or option that changes the result is LORI_UNSUPPORTED. */
lori_status model_config_load(const char *path, model_config *out,
                              lori_error *err);
int64_t model_param_count(const model_config *config);
/* The last part of a module path for each linear role of a block, in block
 * order: q_proj k_proj v_proj o_proj gate_proj up_proj down_proj. */
#define MODEL_ROLES 7
extern const char *const model_role_names[MODEL_ROLES];
/* The sites of an adapter: every layer's linears whose last name is in
 * `targets` (NULL: all seven). Paths are malloc'd with the array: free with
 * model_sites_free. An unknown target is an error with the nearest name. */
lori_status model_sites(const model_config *config, const char *const *targets,
                        int64_t n_targets, int64_t rank, double alpha,
                        adapter_site_spec **out, int64_t *n, lori_error *err);
void model_sites_free(adapter_site_spec *specs, int64_t n);
/* inv_freq [head_dim / 2] in float exactly as transformers 5 computes it. */
void model_rope_inv_freq(const model_config *config, float *inv_freq);

/* ---- weights -------------------------------------------------------- */

typedef struct model model; /* config, mapped checkpoint, opened weights */
/* The backend must outlive the model. Checks every tensor's presence and
 * shape before opening any. */
lori_status model_open(const char *folder, backend *be, model **out,
                       lori_error *err);
void model_close(model *m);
const model_config *model_get_config(const model *m);
backend *model_get_backend(const model *m);
base_dtype model_checkpoint_dtype(const model *m);
/* Bytes of the weights: used where the checkpoint is mapped, and converted
 * to the backend's type in memory of their own. */
void model_weight_bytes(const model *m, size_t *mapped, size_t *converted);
/* Spends up to `most` bytes on compact copies of weights, which make steps of
 * few tokens faster and change no bit (backend.h, weight_compact): layer by
 * layer, then the head. Returns what they take. Once is enough. */
int64_t model_compact(model *m, int64_t most);

/* ---- adapters on the device ----------------------------------------- */

/* One site as the passes use it. gB (and gA) are where backward ADDS the
 * gradient: packed [kept] (or all out * rank) acc values; NULL: not wanted. */
typedef struct model_site {
    int64_t in, out, rank;
    double scale;
    void *A; /* [rank, in] act */
    void *B; /* [out, rank] act */
    void *gA, *gB;
    const backend_keep *keep; /* of B; NULL: all */
} model_site;

typedef struct model_adapter {
    int64_t n_sites;
    model_site *sites; /* order of the host adapter */
    model_site **at;   /* [n_layers * MODEL_ROLES], NULL: no adapter */
    void *memory;      /* private */
    backend *be;
} model_adapter;

/* Uploads A and B. Every site must exist in the model with its shape
 * (LORI_MISMATCH names both). Extras (embed_tokens / lm_head of an enlarged
 * vocabulary) must equal the base's rows, else LORI_UNSUPPORTED. */
lori_status model_adapter_new(model *m, const adapter *ad, model_adapter **out,
                              lori_error *err);
void model_adapter_free(model_adapter *ma);
/* The largest rank of its sites; 0 for NULL. */
int64_t model_adapter_rank(const model_adapter *ma);

/* ---- passes --------------------------------------------------------- */

/* What backward keeps of a layer (spec/engine.md 1.2-1.3). Results are the
 * same bits whichever is chosen. */
typedef enum model_schedule {
    MODEL_KEEP_ALL,    /* S0: everything */
    MODEL_KEEP_NO_MLP, /* S1: gate and up are recomputed */
    MODEL_KEEP_INPUTS  /* S2: block input, middle and low-rank h only */
} model_schedule;

/* Packed sequences, no padding. Sequence s is tokens [cu[s], cu[s+1]); its
 * positions start at 0; none is empty. Row i of the loss predicts `target[i]`
 * from token `row[i]` (strictly ascending), with weight `weight[i]` in the
 * summed loss. Host memory. */
typedef struct model_batch {
    int64_t n_tokens, n_seqs, n_rows;
    const int32_t *ids;    /* [n_tokens] */
    const int32_t *cu;     /* [n_seqs + 1] */
    const int32_t *row;    /* [n_rows] */
    const int32_t *target; /* [n_rows] */
    const float *weight;   /* [n_rows]; NULL: 1 */
} model_batch;

/* A workspace for passes of at most this size; one block of memory, planned
 * before it is taken. After the first pass of a size nothing is allocated. */
typedef struct model_limits {
    int64_t tokens, seqs, rows;
    bool backward;
    /* The first keep_all layers are MODEL_KEEP_ALL, the next keep_no_mlp
     * MODEL_KEEP_NO_MLP, the rest MODEL_KEEP_INPUTS; more than there are
     * means all. */
    int64_t keep_all, keep_no_mlp;
    int64_t rank; /* largest adapter rank, 0: none */
} model_limits;
model_schedule model_schedule_of(const model_limits *limits, int64_t layer);
typedef struct model_run model_run;
size_t model_run_bytes(const model *m, const model_limits *limits);

/* The same by part. */
typedef struct model_bytes {
    size_t kept;    /* what forward leaves for backward */
    size_t live;    /* what layers that recompute share */
    size_t logits;  /* one chunk of label rows */
    size_t scratch; /* inputs, gradients on their way, angles */
    size_t total;
} model_bytes;
void model_run_parts(const model *m, const model_limits *limits,
                     model_bytes *out);
/* Sets the schedules: MODEL_KEEP_ALL for as many layers as a workspace of at
 * most `budget` bytes allows, then MODEL_KEEP_NO_MLP for as many of the rest.
 * False when not even the smallest workspace fits; that one is then set. */
bool model_limits_fit(const model *m, size_t budget, model_limits *limits);
lori_status model_run_new(model *m, const model_limits *limits, model_run **out,
                          lori_error *err);
void model_run_free(model_run *run);

/* nll[i] (host, double, n_rows; may be NULL) = -log p(target[i]); *loss =
 * sum of weight[i] nll[i]. With `backward`, gradients of *loss are added to
 * the adapter's gA / gB. NaN or infinity is LORI_NUMERIC; what was added to
 * gA / gB then is of no use. Without rows the loss is 0. */
lori_status model_loss(model_run *run, const model_batch *batch,
                       const model_adapter *ad, bool backward, double *nll,
                       double *loss, lori_error *err);
/* logits (host, float or double as acc) [n_rows, vocab] of the tokens named
 * by batch->row; targets are not read. */
lori_status model_logits(model_run *run, const model_batch *batch,
                         const model_adapter *ad, void *logits,
                         lori_error *err);

/* ---- cached passes (generation) ------------------------------------- */

/* Keys and values of `n_pages` pages of `page` positions, every layer. */
typedef struct model_cache model_cache;
/* What keys and values of one position take, all layers. */
int64_t model_cache_position_bytes(const model *m);
lori_status model_cache_new(model *m, int64_t n_pages, int page,
                            model_cache **out, lori_error *err);
void model_cache_free(model_cache *cache);

/* The first `rows` positions of page `from` become those of page `to`. */
void model_cache_copy(model_cache *cache, int32_t to, int32_t from, int rows);

/* Tokens from the end of the segment before (or 0) up to `end` are computed
 * with `adapter` (NULL: none). */
typedef struct model_segment {
    int64_t end;
    const model_adapter *adapter;
} model_segment;

/* New tokens of some sequences, after what the cache already holds of them. A
 * sequence may read pages that another one fills in the same step. */
typedef struct model_step {
    int64_t n_tokens, n_seqs, n_rows;
    const int32_t *ids;   /* [n_tokens] */
    const int32_t *cu;    /* [n_seqs + 1] new tokens a sequence */
    const int32_t *past;  /* [n_seqs] positions cached before */
    const int32_t *table; /* [n_seqs, table_ld] page numbers */
    int64_t table_ld;
    const int32_t *row;            /* [n_rows] tokens whose logits are wanted */
    const int32_t *target;         /* [n_rows], of model_score_cached only */
    const model_segment *segments; /* the last ends at n_tokens */
    int64_t n_segments;            /* 0: no adapter */
} model_step;
/* Writes the new keys and values to the cache; logits as model_logits (may be
 * NULL without rows), lse[i] (host, n_rows, or NULL) = log(sum(exp(.))) of row
 * i. The run's limits bound tokens, seqs and rows; a
 * sequence may reach min(max_positions, n_pages * page) positions. */
lori_status model_forward_cached(model_run *run, model_cache *cache,
                                 const model_step *step, void *logits,
                                 double *lse, lori_error *err);
/* The same with nll[i] (host, n_rows) = -log p(target[i]) instead. */
lori_status model_score_cached(model_run *run, model_cache *cache,
                               const model_step *step, double *nll,
                               lori_error *err);

#endif
