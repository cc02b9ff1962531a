/* adapter.h - the method: LoRA/LoRI adapters as host objects. Their folders
 * (PEFT's format), A from a seed, keep masks, merges. Knows module paths and
 * matrices, not models.
 *
 * A linear layer y = W x + s B (A x), s = alpha / r (rsLoRA: alpha / sqrt r).
 * W [out, in] frozen, A [r, in], B [out, r]. Source: arXiv:2504.07448;
 * huggingface/peft; spec/lori.md, spec/peft.md, spec/hf.md 5. */
#ifndef ADAPTER_ADAPTER_H
#define ADAPTER_ADAPTER_H

#include "base/base.h"

/* One adapted linear layer. */
typedef struct adapter_site {
    char *path; /* "model.layers.3.self_attn.q_proj", as in the base */
    int64_t in, out, rank;
    double alpha;
    double scale; /* s */
    float *A;     /* [rank, in] */
    float *B;     /* [out, rank] */
} adapter_site;

/* What training needs to know about where A comes from. */
typedef struct adapter_origin {
    bool has_seed; /* A of every site equals A version `version` */
    uint64_t seed;
    int version; /* 1 */
} adapter_origin;

/* A tensor of the folder that belongs to no site: embed_tokens or lm_head of
 * a base whose vocabulary was enlarged. The model decides. Views into the
 * adapter's own map, valid until adapter_free. */
typedef struct adapter_extra {
    const char *name; /* "model.embed_tokens.weight" */
    const void *data;
    base_dtype dtype;
    int64_t rows, cols;
} adapter_extra;

typedef struct adapter {
    adapter_site *sites; /* sorted by base_natural order of path: layer
                            number, then q k v o gate up down, else name */
    int64_t n_sites;
    char *base_model; /* base_model_name_or_path, may be NULL */
    bool use_rslora;
    adapter_origin origin;
    char *method; /* "lori-d", "lori-s", "lora", "merge", or NULL when
                     the folder is not ours */
    adapter_extra *extras;
    int64_t n_extras;
    void *map; /* private: keeps extras alive */
} adapter;

/* What to build: one row a site. */
typedef struct adapter_site_spec {
    const char *path;
    int64_t in, out, rank;
    double alpha;
} adapter_site_spec;

/* B = 0 and A = 0. Copies the paths. */
lori_status adapter_new(const adapter_site_spec *specs, int64_t n, bool rslora,
                        adapter **out, lori_error *err);
void adapter_free(adapter *ad); /* NULL is fine */
adapter_site *adapter_find(const adapter *ad, const char *path);
int64_t adapter_count_a(const adapter *ad); /* sum of r * in */
int64_t adapter_count_b(const adapter *ad); /* sum of out * r */

/* ---- A, version 1 --------------------------------------------------- */

/* A[i][j] = bf16_rne((int32)word * 2^-31 / sqrt(in)) in double, word j % 4 of
 * Philox4x32-10(counter = {j/4, i, low, high of FNV-1a-64(path)}, key = seed,
 * low word first). Equal in bf16 and f32; rank 32 is the first half of rank
 * 64. Source: DESIGN "A, version 1". */
void adapter_a1(uint64_t seed, const char *path, int64_t rank, int64_t in,
                float *A);
/* Fills A of every site and records the origin. */
void adapter_init_a(adapter *ad, uint64_t seed);
/* The seed when none was given: FNV-1a-64 of the adapter's name. */
uint64_t adapter_seed_from_name(const char *name);

/* ---- folders -------------------------------------------------------- */

/* A PEFT folder: adapter_config.json and adapter_model.safetensors; lori.json
 * beside them when it is ours. Every tensor must be used or be a known extra,
 * every option that changes the result is honoured or refused by name
 * (spec/hf.md 5.4). Non-finite values are an error. */
lori_status adapter_read(const char *folder, adapter **out, lori_error *err);

typedef struct adapter_write_options {
    const char *card; /* README.md text; NULL: a short one is written */
    bool replace;     /* an existing adapter folder is replaced */
    base_dtype dtype; /* F32 (default), BF16, F16 of the tensors */
} adapter_write_options;
/* Writes the folder whole or not at all. Config keys are the portable 18 of
 * spec/hf.md 5.2; uneven ranks or alphas become rank_pattern/alpha_pattern.
 * lori.json holds method, A origin, counts; PEFT ignores it. */
lori_status adapter_write(const adapter *ad, const char *folder,
                          const adapter_write_options *options,
                          lori_error *err);

/* ---- keep masks ----------------------------------------------------- */

/* Which entries of every B are trained in LoRI-S. bits as backend_keep:
 * bit j % 32 of bits[i * words + j / 32], words = (rank + 31) / 32. */
typedef struct adapter_keep_site {
    char *path;
    int64_t out, rank, in;
    int64_t kept;
    uint32_t *bits; /* [out, words] */
} adapter_keep_site;

typedef struct adapter_keep {
    adapter_keep_site *sites; /* order of the adapter */
    int64_t n_sites;
    int64_t total, kept;
    double sparsity;
    adapter_origin origin;
    char *base_model;
    adapter *a_source; /* holds A when it has no seed (B all zero), else NULL */
} adapter_keep;

/* int((1 - sparsity) * n) in double, as Python computes it: how many of n
 * entries a mask keeps. */
int64_t adapter_keep_count(int64_t n, double sparsity);
/* The k = int((1 - sparsity) * n) largest |B| over the whole model, n all
 * entries of all B, computed in double as the reference does; ties go to the
 * lower index in site order, row-major. Exactly k are kept. k = 0, or fewer
 * than k non-zero entries, is an error. Source: spec/lori.md 5. */
lori_status adapter_keep_topk(const adapter *ad, double sparsity,
                              adapter_keep **out, lori_error *err);
void adapter_keep_free(adapter_keep *keep);
/* A folder: keep.safetensors (U8 bits, LSB first, [out, (rank+7)/8] a site;
 * A tensors too when it has no seed) and keep.json (facts). */
lori_status adapter_keep_write(const adapter_keep *keep, const char *folder,
                               bool replace, lori_error *err);
lori_status adapter_keep_read(const char *folder, adapter_keep **out,
                              lori_error *err);
bool adapter_keep_get(const adapter_keep_site *site, int64_t i, int64_t j);

/* ---- merges --------------------------------------------------------- */

/* cat: rank = sum of ranks, dW = sum_i w_i s_i B_i A_i exactly; result has
 * scale 1 (alpha = rank). A site that some source lacks uses the others'.
 * Source: peft add_weighted_adapter, spec/peft.md 5. */
lori_status adapter_merge_cat(const adapter *const *sources,
                              const double *weights, int64_t n, adapter **out,
                              lori_error *err);
/* linear: equal ranks; A = sum sgn(w s) sqrt|w s| A_i, B = sum sqrt|w s| B_i,
 * scale 1: has cross terms B_i A_j. */
lori_status adapter_merge_linear(const adapter *const *sources,
                                 const double *weights, int64_t n,
                                 adapter **out, lori_error *err);
/* True when two sources have an identical A at some shared site (they then
 * interfere: a merge warns). */
bool adapter_share_a(const adapter *x, const adapter *y);

/* w [out, in] += s B A for this site, in float with double sums per entry;
 * `weight` scales it. */
void adapter_add_delta(const adapter_site *site, double weight, float *w);

#endif
