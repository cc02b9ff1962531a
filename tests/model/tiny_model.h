/* tiny_model.h - random models of a few thousand parameters, written to a
 * temporary folder as transformers would, and random adapters and batches for
 * them. Weights have std 0.1, so that a wrong scale, pairing, grouping or
 * window moves every result by far more than a tolerance. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <criterion/criterion.h>

#include "model/model.h"

typedef struct tiny_spec {
    const char *family;                                       /* NULL: llama */
    int64_t vocab, d, ffn, layers, heads, kv_heads, head_dim; /* 0: default */
    int64_t window; /* mistral; 0: null */
    model_rope_kind rope;
    bool tied, attention_bias, mlp_bias;
    bool bare_names;  /* without "model." */
    bool coarse;      /* multiples of 1/64: exact in every float type */
    base_dtype dtype; /* BASE_BOOL (0): F32 */
    int shards;       /* 0: one file */
    uint64_t seed;
    /* faults */
    const char *missing;    /* this tensor is not written */
    const char *wrong;      /* this one has a row too many */
    const char *extra;      /* this one is added, [2, 3] */
    const char *other_head; /* "same" or "other": lm_head of a tied model */
} tiny_spec;

/* A new folder; the caller removes it with tiny_remove. */
char *tiny_folder(void);
void tiny_remove(char *folder); /* with its files; frees the string */
void tiny_put(const char *folder, const char *name, const char *text);
void tiny_write(const char *folder, const tiny_spec *spec);
/* The config the folder of `spec` describes, with defaults filled in. */
tiny_spec tiny_defaults(const tiny_spec *spec);

/* Everything open on one backend. */
typedef struct tiny {
    char *folder;
    backend *be;
    model *m;
    adapter *ad;
    model_adapter *ma;
} tiny;
/* `backend_name` "ref" or "cpu", in whose place LORI_BACKEND may name another;
 * n_threads as in backend_options. */
tiny tiny_open(const tiny_spec *spec, const char *backend_name,
               base_dtype dtype, int n_threads);
void tiny_close(tiny *t);
/* Random A and B (std 0.3) of rank r at all seven linears, alpha = 1.5 r. */
void tiny_adapt(tiny *t, int64_t rank, uint64_t seed);
/* Zeroed device gradients for every A (`want_a`) and B. */
void tiny_gradients(tiny *t, bool want_a);
void tiny_zero_gradients(tiny *t);
void tiny_free_gradients(tiny *t);
/* n acc values of device memory as doubles; free() it. */
double *tiny_fetch(backend *be, const void *device, int64_t n);

/* A batch of ragged sequences; label rows are the second part of each, with
 * uneven weights. */
typedef struct tiny_batch {
    model_batch b;
    int32_t ids[256], cu[16], row[256], target[256];
    float weight[256];
} tiny_batch;
void tiny_batch_make(tiny_batch *out, int64_t vocab, const int *lengths,
                     int n_seqs, uint64_t seed);
model_run *tiny_run(tiny *t, const tiny_batch *batch, bool backward,
                    model_schedule schedule, int64_t rank);

#endif
