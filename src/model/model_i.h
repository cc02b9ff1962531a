/* model_i.h - private to model/. Who does what:
 *   config.c          config.json -> model_config, counts, adapter sites
 *   rope.c            rotary frequencies and tables of angles
 *   weights.c         checkpoint -> opened weights, every check before it
 *   adapter_device.c  a host adapter -> matrices on the device
 *   run.c             the workspace: planned once, then placed
 *   block.c           one block: forward, recompute, backward side by side
 *   pass.c            batch -> device, embed, blocks, head, loss
 *   cached.c          passes over the key/value pages of generation
 * Letters as in backend.h; q = H * D and kv = K * D are widths here. */
#ifndef MODEL_I_H
#define MODEL_I_H

#include "format/format.h"
#include "model/model.h"

/* ---- the block as a table of linears -------------------------------- */

/* Where a linear reads and writes. The slots from SLOT_O on hold only the
 * label rows in the last block. */
typedef enum model_slot {
    SLOT_XN1, /* normed block input */
    SLOT_Q,
    SLOT_K,
    SLOT_V,
    SLOT_O,  /* attention output */
    SLOT_X2, /* residual stream after attention */
    SLOT_XN2,
    SLOT_GATE,
    SLOT_UP,
    SLOT_A, /* silu(gate) * up */
    SLOT_Y, /* block output */
    MODEL_SLOTS
} model_slot;

typedef enum model_role {
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN
} model_role;

typedef struct model_linear {
    const char *name; /* below model.layers.N., "self_attn.q_proj" */
    model_slot in, out;
    bool attention; /* its bias is attention_bias, else mlp_bias */
} model_linear;
extern const model_linear model_linears[MODEL_ROLES];
/* Widths of the linear with this role. */
void model_linear_shape(const model_config *c, int role, int64_t *out,
                        int64_t *in);
bool model_linear_bias(const model_config *c, int role);
/* "model.layers.3.self_attn.q_proj" -> layer and role; false: no such. */
bool model_path_parse(const model_config *c, const char *path, int64_t *layer,
                      int *role);

static inline int64_t model_q_width(const model_config *c)
{
    return c->n_heads * c->head_dim;
}
static inline int64_t model_kv_width(const model_config *c)
{
    return c->n_kv_heads * c->head_dim;
}

/* ---- weights -------------------------------------------------------- */

typedef struct model_layer {
    backend_weight *w[MODEL_ROLES];
    void *bias[MODEL_ROLES]; /* [out] acc; NULL: none */
    void *norm1, *norm2;     /* [d] acc */
} model_layer;

struct model {
    model_config config;
    backend *be;
    format_store *store;
    base_dtype dtype;                  /* of the checkpoint */
    const format_tensor *embed_tensor; /* [V, d], to compare extras with */
    const format_tensor *head_tensor;  /* the same when tied */
    backend_weight *embed;
    backend_weight *head; /* `embed` when tied */
    model_layer *layers;
    void *norm;    /* [d] acc */
    void *vectors; /* one block: norms and biases */
};

/* ---- rope ----------------------------------------------------------- */

/* Device tables cos, sin [n_pos, D / 2] acc, filled; both are places in
 * memory the caller owns. */
lori_status model_rope_upload(const model *m, int64_t n_pos, void *cos,
                              void *sin, lori_error *err);

/* ---- workspace ------------------------------------------------------ */

/* What one layer's forward leaves for its backward. Pointers that the
 * schedule does not keep lead to buffers that all layers share. */
typedef struct model_kept {
    void *x;              /* [n, d] act, block input */
    void *x2;             /* [n, d] act, after attention */
    void *y;              /* [n, d] act, block output: the next one's x */
    void *rstd1, *rstd2;  /* [n] acc; NULL in forward-only workspaces */
    void *qkv;            /* [n, q + 2 kv] act, after rope */
    void *o;              /* [n, q] act */
    void *lse;            /* [n, H] acc; NULL in forward-only workspaces */
    void *gu;             /* [n, 2 ffn] act */
    void *h[MODEL_ROLES]; /* [n, rank] act */
} model_kept;

/* The small inputs of a pass, at the same offsets on host and device, so
 * that one copy brings them over. */
typedef struct model_inputs {
    int32_t *ids, *pos;    /* [N] */
    int32_t *cu_q, *cu_k;  /* [S + 1] */
    int32_t *row, *target; /* [M] */
    void *weight;          /* [M] acc */
} model_inputs;

/* Linears that share an input are computed together, at most q, k and v. */
enum { MODEL_TOGETHER = ROLE_O - ROLE_Q };

struct model_run {
    model *m;
    model_limits limits;
    int64_t N, M, S;        /* rows and sequences there is room for */
    int64_t chunk;          /* label rows through the head at once */
    void *memory, *staging; /* device, host */
    size_t bytes, staging_bytes, inputs_bytes;
    model_inputs device, host;
    void *host_nll;   /* [M] acc */
    void *cos, *sin;  /* [limits.tokens, D / 2] acc */
    model_kept *kept; /* [n_layers] */
    void *logits;     /* [chunk, V] acc */
    /* scratch shared by all layers */
    void *t;             /* [N, d] act: normed input */
    void *wide;          /* [N, max(ffn, q)] act: a; da; dO */
    void *label_o;       /* [M, q] act: label rows of O, of dO */
    void *nll, *nll_lse; /* [M] acc */
    void *rstd;          /* [M] acc of the last norm */
    void *dres, *dxn;    /* [N, d] acc */
    void *dqkv;          /* [N, max(q + 2 kv, d)] act: dq, dk, dv; dres */
    void *delta;         /* [N, H] acc */
    void *dh;            /* [N, rank] act for each of MODEL_TOGETHER */
    void *grad;          /* [rank * widest] acc: one dense gB or gA */
};

/* Rows a pass of n rows computes. Monotone, >= n, 0 for 0. */
int64_t model_rows(const backend *be, int64_t n);

/* ---- passes --------------------------------------------------------- */

/* A page lies together: [n_pages][n_layers][keys, values][page, kv], so that
 * what was never written takes no memory. */
struct model_cache {
    model *m;
    int64_t n_pages;
    int page;
    int64_t positions; /* the tables' length */
    void *memory, *cells;
    void *cos, *sin;             /* [positions, D / 2] acc */
    int32_t *table, *host_table; /* [capacity], the first cell of a page */
    size_t capacity;
};

/* Keys, or values, of a layer, as attention finds them with the table. */
backend_view model_cache_pool(const model_cache *cache, int64_t layer,
                              bool values);

/* One pass in progress. */
typedef struct model_pass {
    model_run *run;
    const model_adapter *ad;       /* of all rows; NULL: none, or segments */
    const model_segment *segments; /* adapters of rows, forward only */
    int64_t n_segments;            /* 0: `ad` alone */
    int64_t n, n_real;             /* token rows computed, given */
    int64_t label, label_real;     /* label rows computed, given */
    backend_attn attn;
    model_cache *cache; /* NULL: keys are those of the pass */
    const void *cos, *sin;
    backend_view dres, dxn; /* gradient of the residual stream; scratch */
} model_pass;

/* dres of the first x.rows rows += that of their norm, whose output's gradient
 * is in dxn. Products take it from run->dqkv, where it is left as act. */
void model_norm_backward(const model_pass *p, backend_view x, const void *w,
                         const void *rstd);

/* Layer `layer` from kept[layer].x to kept[layer].y. */
void model_block_forward(model_pass *p, int64_t layer);
/* p->dres: gradient of y on entry, of x on return (`below`), and the
 * adapter's gradients are added to. Without `below` nothing under this layer
 * is trained and p->dres is undefined on return. */
void model_block_backward(model_pass *p, int64_t layer, bool below);
/* Whether a site of roles [from, to) of this layer wants a gradient. */
bool model_layer_trains(const model_adapter *ad, int64_t layer, int from,
                        int to);

/* The parts of a pass that both kinds share. */
lori_status model_pass_check_rows(const model_run *run, int64_t n_tokens,
                                  int64_t n_rows, const int32_t *row,
                                  lori_error *err);
lori_status model_pass_check_ids(const model_run *run, int64_t n_tokens,
                                 int64_t n_seqs, const int32_t *ids,
                                 const int32_t *cu, const model_adapter *ad,
                                 lori_error *err);
lori_status model_pass_check_adapter(const model_run *run,
                                     const model_adapter *ad, lori_error *err);
lori_status model_pass_check_targets(const model_run *run, int64_t n_rows,
                                     const int32_t *target, lori_error *err);
/* Everything of `p` but cos, sin, cache and the fields of p->attn that differ
 * between the two kinds; p is zeroed first. */
void model_pass_start(model_pass *p, model_run *run, const model_adapter *ad,
                      int64_t n_tokens, int64_t n_seqs, int64_t n_rows);
/* Host staging: ids, rows and the padding behind them. */
void model_pass_stage(model_pass *p, const int32_t *ids, const int32_t *cu,
                      const int32_t *row);
/* `weight` NULL: 1 each. */
void model_pass_stage_targets(model_pass *p, const int32_t *target,
                              const float *weight);
void model_pass_upload(model_pass *p);
/* Embedding and all blocks: the label rows end in kept[last].y. */
void model_pass_forward(model_pass *p);
/* Copies the logits of the label rows to host memory and waits. */
/* lse [label_real] or NULL. */
lori_status model_pass_logits(model_pass *p, void *logits, double *lse,
                              lori_error *err);
/* The head on the label rows. Negative log-probabilities of their targets to
 * host memory (`nll` may be NULL), *loss their weighted sum; waits. With
 * `backward` the gradient goes down through all blocks. */
lori_status model_pass_loss(model_pass *p, const float *weight, bool backward,
                            double *nll, double *loss, lori_error *err);

#endif
