/* import.c - a GGUF file becomes a complete Hugging Face folder: config.json,
 * generation_config.json, safetensors, tokenizer. Dense models of architecture
 * "llama" (Llama 1-3, Mistral, SmolLM2, ...); every other one is refused by
 * name, as is any tensor or option that would be lost.
 * Source: spec/gguf.md 3, 4, 5; spec/hf.md 1.3 for the writer. */
#include "job/job_i.h"

#include <math.h>
#include <stdlib.h>

#define SHARD_BYTES 50000000000ULL /* transformers 5's max_shard_size */

/* What the metadata says about the model. */
typedef struct source_model {
    int64_t context, d, layers, ffn, heads, kv_heads, head_dim, vocab;
    float eps, theta;
    bool tied, attention_bias, mlp_bias;
    const char *scaling; /* NULL, "linear", "llama3" */
    double factor;
    int64_t original;
} source_model;

static lori_status refuse_kinds(const format_gguf *g, lori_error *err)
{
    const char *arch = NULL, *type = NULL;
    size_t n = 0;
    BASE_TRY(format_gguf_str(g, "general.type", false, &type, &n, err));
    if (type && strcmp(type, "model") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "general.type is '%s', not a model", type);
    BASE_TRY(format_gguf_str(g, "general.architecture", true, &arch, &n, err));
    if (strcmp(arch, "llama") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "architecture '%s' cannot be imported (known: llama)",
                         arch);
    int64_t experts = 0, parts = 0;
    BASE_TRY(format_gguf_i64(g, "llama.expert_count", false, 0, INT32_MAX,
                             &experts, err));
    if (experts > 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "a mixture of %lld experts cannot be imported",
                         (long long)experts);
    BASE_TRY(
        format_gguf_i64(g, "split.count", false, 0, INT32_MAX, &parts, err));
    if (parts > 1)
        return base_fail(err, LORI_UNSUPPORTED,
                         "this is one of %lld parts; join them first "
                         "(gguf-split --merge)",
                         (long long)parts);
    if (format_gguf_count(g) == 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "the file holds a vocabulary only, no tensors");
    return LORI_OK;
}

/* Recovers Llama-3.1 scaling from rope_freqs.weight: divisors of inv_freq.
 * The only parameter that varies is the factor (spec/gguf.md 3.2). */
static lori_status read_rope_freqs(const format_gguf *g, source_model *s,
                                   lori_error *err)
{
    const format_gguf_tensor *t = format_gguf_find(g, "rope_freqs.weight");
    if (!t)
        return LORI_OK;
    int64_t half = s->head_dim / 2;
    if (t->n_dims != 1 || t->shape[0] != half)
        return base_fail(err, LORI_MISMATCH,
                         "tensor 'rope_freqs.weight' should have %lld values",
                         (long long)half);
    float *div = base_alloc((size_t)half, sizeof *div);
    if (!div)
        return base_no_memory(err, (size_t)half * sizeof *div);
    lori_status st = format_gguf_rows(g, t, 0, 1, div, err);
    bool ones = true, same = true;
    double factor = (double)div[half - 1], lo = 1, hi = 4, old = 8192;
    for (int64_t i = 0; !st && i < half; i++) {
        float inv =
            1.0F / (float)pow((double)s->theta,
                              (double)((float)(2 * i) / (float)s->head_dim));
        double wave = 2 * 3.14159265358979323846 / (double)inv, want;
        double smooth = (old / wave - lo) / (hi - lo);
        if (wave < old / hi)
            want = 1;
        else if (wave > old / lo)
            want = factor;
        else
            want = 1 / ((1 - smooth) / factor + smooth);
        ones = ones && div[i] == 1.0F;
        same = same && fabs((double)div[i] - want) < 1e-5 * want;
    }
    free(div);
    BASE_TRY(st);
    if (ones)
        return LORI_OK;
    if (!same || s->scaling)
        return base_fail(err, LORI_UNSUPPORTED,
                         "'rope_freqs.weight' is not Llama-3 scaling (low 1, "
                         "high 4, original length 8192)");
    s->scaling = "llama3";
    s->factor = factor;
    s->original = 8192;
    return LORI_OK;
}

static lori_status read_rope(const format_gguf *g, source_model *s,
                             lori_error *err)
{
    const char *type = NULL;
    size_t n = 0;
    float factor = 0;
    s->theta = 10000;
    BASE_TRY(format_gguf_f32(g, "llama.rope.freq_base", false, &s->theta, err));
    BASE_TRY(
        format_gguf_str(g, "llama.rope.scaling.type", false, &type, &n, err));
    BASE_TRY(
        format_gguf_f32(g, "llama.rope.scale_linear", false, &factor, err));
    BASE_TRY(
        format_gguf_f32(g, "llama.rope.scaling.factor", false, &factor, err));
    if (type && strcmp(type, "none") != 0 && strcmp(type, "linear") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "rope scaling '%s' cannot be imported", type);
    if (factor != 0 && factor != 1.0F && !(type && !strcmp(type, "none"))) {
        s->scaling = "linear";
        s->factor = (double)factor;
    }
    int64_t rot = s->head_dim;
    BASE_TRY(format_gguf_i64(g, "llama.rope.dimension_count", false, 1,
                             INT32_MAX, &rot, err));
    if (rot != s->head_dim)
        return base_fail(err, LORI_UNSUPPORTED,
                         "rope over %lld of %lld dimensions of a head",
                         (long long)rot, (long long)s->head_dim);
    return read_rope_freqs(g, s, err);
}

static lori_status read_model(const format_gguf *g, source_model *s,
                              lori_error *err)
{
    const struct {
        const char *key;
        int64_t *at;
    } sizes[] = {{"llama.context_length", &s->context},
                 {"llama.embedding_length", &s->d},
                 {"llama.block_count", &s->layers},
                 {"llama.feed_forward_length", &s->ffn},
                 {"llama.attention.head_count", &s->heads}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        BASE_TRY(format_gguf_i64_same(g, sizes[i].key, true, 1, INT32_MAX,
                                      sizes[i].at, err));
    s->kv_heads = s->heads;
    BASE_TRY(format_gguf_i64_same(g, "llama.attention.head_count_kv", false, 1,
                                  INT32_MAX, &s->kv_heads, err));
    s->head_dim = s->d / s->heads;
    BASE_TRY(format_gguf_i64(g, "llama.attention.key_length", false, 1,
                             INT32_MAX, &s->head_dim, err));
    int64_t value = s->head_dim;
    BASE_TRY(format_gguf_i64(g, "llama.attention.value_length", false, 1,
                             INT32_MAX, &value, err));
    if (value != s->head_dim || s->heads % s->kv_heads || s->head_dim % 2)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%lld heads, %lld key/value heads of size %lld / %lld",
                         (long long)s->heads, (long long)s->kv_heads,
                         (long long)s->head_dim, (long long)value);
    BASE_TRY(format_gguf_f32(g, "llama.attention.layer_norm_rms_epsilon", true,
                             &s->eps, err));
    BASE_TRY(read_rope(g, s, err));
    const format_gguf_tensor *embed = format_gguf_find(g, "token_embd.weight");
    if (!embed || embed->n_dims != 2)
        return base_fail(err, LORI_NOT_FOUND,
                         "tensor 'token_embd.weight' is missing");
    s->vocab = embed->shape[0];
    int64_t said = s->vocab;
    BASE_TRY(format_gguf_i64(g, "llama.vocab_size", false, 1, INT32_MAX, &said,
                             err));
    if (said != s->vocab)
        return base_fail(err, LORI_MISMATCH,
                         "vocab_size %lld, but 'token_embd.weight' has %lld "
                         "rows",
                         (long long)said, (long long)s->vocab);
    s->tied = !format_gguf_find(g, "output.weight");
    s->attention_bias = format_gguf_find(g, "blk.0.attn_q.bias") != NULL;
    s->mlp_bias = format_gguf_find(g, "blk.0.ffn_up.bias") != NULL;
    return LORI_OK;
}

/* ---- tensors -------------------------------------------------------- */

typedef struct target {
    char name[96]; /* Hugging Face's */
    const format_gguf_tensor *from;
    int64_t unpermute_heads; /* 0: rows as they are */
} target;

typedef struct writer {
    const format_gguf *g;
    const source_model *s;
    const target *targets; /* parallel to descs */
    const format_desc *descs;
    int64_t n, done;
    const lori_ui *ui;
} writer;

static const struct {
    const char *from, *to;
    int rows; /* 0 d, 1 heads * D, 2 kv * D, 3 ffn;  columns likewise below */
    int cols; /* -1: a vector of length `rows` */
    bool bias;
} block_names[] = {
    {"attn_norm", "input_layernorm", 0, -1, false},
    {"ffn_norm", "post_attention_layernorm", 0, -1, false},
    {"attn_q", "self_attn.q_proj", 1, 0, true},
    {"attn_k", "self_attn.k_proj", 2, 0, true},
    {"attn_v", "self_attn.v_proj", 2, 0, true},
    {"attn_output", "self_attn.o_proj", 0, 1, true},
    {"ffn_gate", "mlp.gate_proj", 3, 0, true},
    {"ffn_up", "mlp.up_proj", 3, 0, true},
    {"ffn_down", "mlp.down_proj", 0, 3, true},
};
#define N_BLOCK_NAMES (sizeof block_names / sizeof *block_names)

static lori_status add_target(const format_gguf *g, target *t, format_desc *d,
                              const char *from, int64_t rows, int64_t cols,
                              lori_error *err)
{
    t->from = format_gguf_find(g, from);
    if (!t->from)
        return base_fail(err, LORI_NOT_FOUND, "tensor '%s' is missing", from);
    int dims = cols < 0 ? 1 : 2;
    if (t->from->n_dims != dims || t->from->shape[0] != rows ||
        (dims == 2 && t->from->shape[1] != cols))
        return base_fail(err, LORI_MISMATCH,
                         "tensor '%s' should have shape [%lld%s%.0lld]", from,
                         (long long)rows, dims == 2 ? ", " : "",
                         (long long)(cols < 0 ? 0 : cols));
    d->n_dims = dims;
    d->shape[0] = rows;
    d->shape[1] = dims == 2 ? cols : 0;
    return LORI_OK;
}

static lori_status add_block(const format_gguf *g, const source_model *s,
                             int64_t layer, target *targets, format_desc *descs,
                             size_t *n, lori_error *err)
{
    const int64_t width[] = {s->d, s->heads * s->head_dim,
                             s->kv_heads * s->head_dim, s->ffn};
    for (size_t i = 0; i < N_BLOCK_NAMES; i++) {
        bool mlp = !strncmp(block_names[i].from, "ffn_", 4);
        int parts = 1 + (block_names[i].bias &&
                         (mlp ? s->mlp_bias : s->attention_bias));
        for (int bias = 0; bias < parts; bias++) {
            const char *end = bias ? "bias" : "weight";
            char from[64];
            target *t = &targets[*n];
            snprintf(from, sizeof from, "blk.%lld.%s.%s", (long long)layer,
                     block_names[i].from, end);
            snprintf(t->name, sizeof t->name, "model.layers.%lld.%s.%s",
                     (long long)layer, block_names[i].to, end);
            int64_t cols = block_names[i].cols < 0 || bias
                               ? -1
                               : width[block_names[i].cols];
            BASE_TRY(add_target(g, t, &descs[*n], from,
                                width[block_names[i].rows], cols, err));
            if (block_names[i].rows == 1)
                t->unpermute_heads = s->heads;
            else if (!strcmp(block_names[i].from, "attn_k"))
                t->unpermute_heads = s->kv_heads;
            ++*n;
        }
    }
    return LORI_OK;
}

/* Fills targets and descs in numeric layer order; all tensors must be used. */
static lori_status map_tensors(const format_gguf *g, const source_model *s,
                               target *targets, format_desc *descs, size_t *n,
                               lori_error *err)
{
    const struct {
        const char *from, *to;
        int64_t rows, cols;
    } outer[] = {
        {"token_embd.weight", "model.embed_tokens.weight", s->vocab, s->d},
        {"output_norm.weight", "model.norm.weight", s->d, -1},
        {"output.weight", "lm_head.weight", s->vocab, s->d}};
    for (size_t i = 0; i < 2 + (size_t)!s->tied; i++) {
        snprintf(targets[*n].name, sizeof targets[*n].name, "%s", outer[i].to);
        BASE_TRY(add_target(g, &targets[*n], &descs[*n], outer[i].from,
                            outer[i].rows, outer[i].cols, err));
        ++*n;
    }
    for (int64_t l = 0; l < s->layers; l++)
        BASE_TRY(add_block(g, s, l, targets, descs, n, err));
    for (size_t i = 0; i < format_gguf_count(g); i++) {
        const format_gguf_tensor *t = format_gguf_at(g, i);
        bool used = !strcmp(t->name, "rope_freqs.weight");
        for (size_t j = 0; j < *n && !used; j++)
            used = targets[j].from == t;
        if (!used)
            return base_fail(err, LORI_UNSUPPORTED,
                             "tensor '%s' has no place in a Llama model",
                             t->name);
    }
    return LORI_OK;
}

/* llama.cpp stores q and k rows interleaved for its rope; back to halves:
 * hf[h D + j] = gguf[h D + (j < D/2 ? 2j : 2(j - D/2) + 1)]. */
static int64_t source_row(int64_t row, int64_t head_dim)
{
    int64_t h = row / head_dim, j = row % head_dim, half = head_dim / 2;
    return h * head_dim + (j < half ? 2 * j : 2 * (j - half) + 1);
}

static lori_status emit_rows(const writer *w, const target *t,
                             const format_desc *desc, float *values, void *out,
                             format_sink *sink, int64_t chunk, lori_error *err)
{
    int64_t cols = desc->n_dims == 2 ? desc->shape[1] : 1;
    int64_t rows = desc->shape[0], hd = w->s->head_dim;
    for (int64_t r = 0; r < rows; r += chunk) {
        int64_t take = rows - r < chunk ? rows - r : chunk;
        if (!t->unpermute_heads)
            BASE_TRY(format_gguf_rows(w->g, t->from, r, take, values, err));
        for (int64_t i = 0; t->unpermute_heads && i < take; i++)
            BASE_TRY(format_gguf_rows(w->g, t->from, source_row(r + i, hd), 1,
                                      values + i * cols, err));
        size_t n = (size_t)(take * cols);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(values[i]))
                return base_fail(err, LORI_NUMERIC,
                                 "tensor '%s' holds a value that is not finite",
                                 t->from->name);
        base_from_f32(values, out, desc->dtype, n);
        BASE_TRY(format_sink_write(sink, out, n * base_dtype_bytes(desc->dtype),
                                   err));
    }
    return LORI_OK;
}

/* A vector is one row of the source; its rows move by permuting elements. */
static lori_status emit_vector(const writer *w, const target *t,
                               const format_desc *desc, float *values,
                               void *out, format_sink *sink, lori_error *err)
{
    size_t n = (size_t)desc->shape[0];
    BASE_TRY(format_gguf_rows(w->g, t->from, 0, 1, values + n, err));
    for (size_t i = 0; i < n; i++) {
        size_t from = t->unpermute_heads
                          ? (size_t)source_row((int64_t)i, w->s->head_dim)
                          : i;
        values[i] = values[n + from];
        if (!isfinite(values[i]))
            return base_fail(err, LORI_NUMERIC,
                             "tensor '%s' holds a value that is not finite",
                             t->from->name);
    }
    base_from_f32(values, out, desc->dtype, n);
    return format_sink_write(sink, out, n * base_dtype_bytes(desc->dtype), err);
}

static lori_status emit_tensor(void *context, const format_desc *desc,
                               format_sink *sink, lori_error *err)
{
    writer *w = context;
    const target *t = NULL;
    for (int64_t i = 0; i < w->n && !t; i++)
        if (!strcmp(w->targets[i].name, desc->name))
            t = &w->targets[i];
    if (base_interrupted(w->ui))
        return base_fail(err, LORI_INTERRUPTED, "import stopped");
    base_progress(w->ui, "import", w->done++, w->n, "%s", desc->name);
    bool vector = desc->n_dims == 1;
    int64_t cols = vector ? 2 * desc->shape[0] : desc->shape[1];
    int64_t chunk = vector ? 1 : 1 + (1 << 20) / cols;
    size_t n = (size_t)chunk * (size_t)cols;
    float *values = base_alloc(n, sizeof *values);
    void *out = base_alloc(n, base_dtype_bytes(desc->dtype));
    lori_status st = LORI_OK;
    if (!values || !out)
        st = base_no_memory(err, n * 4);
    else if (vector)
        st = emit_vector(w, t, desc, values, out, sink, err);
    else
        st = emit_rows(w, t, desc, values, out, sink, chunk, err);
    free(values);
    free(out);
    return st;
}

static lori_status write_weights(const format_gguf *g, const source_model *s,
                                 const char *folder, base_dtype dtype,
                                 const lori_ui *ui, int64_t *count,
                                 lori_error *err)
{
    size_t most = 3 + (size_t)s->layers * (2 * N_BLOCK_NAMES), n = 0;
    if (most > 4 * format_gguf_count(g) + 32)
        return base_fail(err, LORI_FORMAT,
                         "block_count %lld, but the file has %zu tensors",
                         (long long)s->layers, format_gguf_count(g));
    target *targets = base_alloc(most, sizeof *targets);
    format_desc *descs = base_alloc(most, sizeof *descs);
    lori_status st = LORI_OK;
    if (!targets || !descs)
        st = base_no_memory(err, most * (sizeof *targets + sizeof *descs));
    if (!st)
        st = map_tensors(g, s, targets, descs, &n, err);
    for (size_t i = 0; i < n; i++) {
        descs[i].name = targets[i].name;
        descs[i].dtype = dtype;
    }
    writer w = {g, s, targets, descs, (int64_t)n, 0, ui};
    if (!st)
        st = format_st_emit_folder(folder, "model", descs, n, SHARD_BYTES,
                                   emit_tensor, &w, err);
    free(targets);
    free(descs);
    *count = (int64_t)n;
    if (!st)
        base_progress(ui, "import", (int64_t)n, (int64_t)n, "done");
    return st;
}

/* ---- config --------------------------------------------------------- */

/* The float as the double that prints in the float's shortest form. */
static json_t *real32(double x)
{
    char buf[32];
    return json_real(strtod(base_f32_text((float)x, buf), NULL));
}

static json_t *token_id(int64_t id)
{
    return id < 0 ? json_null() : json_integer((json_int_t)id);
}

/* rope_parameters (5.x) when `inner_theta`, rope_scaling (4.x) otherwise. */
static json_t *rope_json(const source_model *s, bool inner_theta)
{
    if (!s->scaling && !inner_theta)
        return json_null();
    json_t *r = json_object();
    json_object_set_new(r, "rope_type",
                        json_string(s->scaling ? s->scaling : "default"));
    if (inner_theta)
        json_object_set_new(r, "rope_theta", real32((double)s->theta));
    if (!s->scaling)
        return r;
    json_object_set_new(r, "factor", real32(s->factor));
    if (strcmp(s->scaling, "llama3") != 0)
        return r;
    json_object_set_new(r, "low_freq_factor", json_real(1.0));
    json_object_set_new(r, "high_freq_factor", json_real(4.0));
    json_object_set_new(r, "original_max_position_embeddings",
                        json_integer(s->original));
    return r;
}

/* Both generations of transformers read it: rope_parameters and
 * rope_theta / rope_scaling, dtype and torch_dtype (spec/hf.md 1.3). */
static lori_status write_config(const char *folder, const source_model *s,
                                const int64_t ids[3], base_dtype dtype,
                                lori_error *err)
{
    const char *type = dtype == BASE_F32 ? "float32" : "bfloat16";
    json_t *c = json_pack(
        "{s[s]sssisIsIsIsIsIsIsIsIsssbsbsbsbsfssss}", "architectures",
        "LlamaForCausalLM", "model_type", "llama", "pretraining_tp", 1,
        "hidden_size", (json_int_t)s->d, "intermediate_size",
        (json_int_t)s->ffn, "num_hidden_layers", (json_int_t)s->layers,
        "num_attention_heads", (json_int_t)s->heads, "num_key_value_heads",
        (json_int_t)s->kv_heads, "head_dim", (json_int_t)s->head_dim,
        "vocab_size", (json_int_t)s->vocab, "max_position_embeddings",
        (json_int_t)s->context, "hidden_act", "silu", "attention_bias",
        (int)s->attention_bias, "mlp_bias", (int)s->mlp_bias,
        "tie_word_embeddings", (int)s->tied, "use_cache", 1,
        "initializer_range", 0.02, "dtype", type, "torch_dtype", type);
    if (!c)
        return base_no_memory(err, 4096);
    json_object_set_new(c, "rms_norm_eps", real32((double)s->eps));
    json_object_set_new(c, "rope_theta", real32((double)s->theta));
    json_object_set_new(c, "rope_parameters", rope_json(s, true));
    json_object_set_new(c, "rope_scaling", rope_json(s, false));
    json_object_set_new(c, "attention_dropout", json_real(0.0));
    json_object_set_new(c, "bos_token_id", token_id(ids[0]));
    json_object_set_new(c, "eos_token_id", token_id(ids[1]));
    json_object_set_new(c, "pad_token_id", token_id(ids[2]));
    lori_status st =
        job_write_json(folder, "config.json", c, JOB_CONFIG, true, err);
    json_decref(c);
    return st;
}

/* Present, this file alone decides where generation stops. */
static lori_status write_generation(const char *folder, const int64_t ids[3],
                                    json_t *stops, lori_error *err)
{
    json_t *c = json_pack("{sb}", "_from_model_config", 1);
    if (!c)
        return base_no_memory(err, 256);
    const char *names[] = {"bos_token_id", NULL, "pad_token_id"};
    for (int i = 0; i < 3; i += 2)
        if (ids[i] >= 0)
            json_object_set_new(c, names[i], json_integer(ids[i]));
    if (stops)
        json_object_set(c, "eos_token_id", stops);
    lori_status st = job_write_json(folder, "generation_config.json", c,
                                    JOB_CONFIG, true, err);
    json_decref(c);
    return st;
}

static lori_status write_folder(const format_gguf *g, const char *folder,
                                base_dtype dtype, const lori_ui *ui,
                                source_model *s, int64_t *tensors,
                                lori_error *err)
{
    BASE_TRY(refuse_kinds(g, err));
    BASE_TRY(read_model(g, s, err));
    int64_t ids[3] = {-1, -1, -1};
    const char *keys[] = {"bos_token_id", "eos_token_id", "padding_token_id"};
    for (int i = 0; i < 3; i++)
        BASE_TRY(import_token_id(g, keys[i], s->vocab, &ids[i], err));
    json_t *stops = NULL;
    lori_status st =
        import_tokenizer(g, folder, s->vocab, s->context, &stops, err);
    if (!st)
        st = write_config(folder, s, ids, dtype, err);
    if (!st)
        st = write_generation(folder, ids, stops, err);
    json_decref(stops);
    return st ? st : write_weights(g, s, folder, dtype, ui, tensors, err);
}

lori_status job_import(const lori_import_options *o, const lori_ui *ui,
                       lori_report **out, lori_error *err)
{
    *out = NULL;
    BASE_TRY(job_need(o->source,
                      o->tokenizer_only ? "a tokenizer file" : "a GGUF file",
                      err));
    BASE_TRY(job_need(o->output, "an output folder", err));
    if (o->tokenizer_only)
        return import_tokenizer_alone(o, out, err);
    base_dtype dtype = job_dtype(o->dtype, BASE_BF16);
    format_gguf *g = NULL;
    base_outdir *dir = NULL;
    source_model s = {0};
    int64_t tensors = 0;
    lori_status st = format_gguf_open(o->source, &g, err);
    if (!st)
        st = base_outdir_open(o->output, o->replace != 0, "config.json", &dir,
                              err);
    if (!st) {
        st = write_folder(g, base_outdir_path(dir), dtype, ui, &s, &tensors,
                          err);
        if (st)
            base_prefix(err, st, "%s", o->source);
    }
    format_gguf_close(g);
    if (st) {
        base_outdir_abort(dir);
        return st;
    }
    BASE_TRY(base_outdir_commit(dir, err));
    base_str text = {0};
    base_str_printf(&text,
                    "%s: %lld layers, width %lld, vocabulary %lld, %lld "
                    "tensors in %s\n",
                    o->output, (long long)s.layers, (long long)s.d,
                    (long long)s.vocab, (long long)tensors,
                    base_dtype_name(dtype));
    return report_new(
        json_pack("{sssssssIsIsIsI}", "source", o->source, "output", o->output,
                  "dtype", base_dtype_name(dtype), "tensors",
                  (json_int_t)tensors, "layers", (json_int_t)s.layers,
                  "hidden_size", (json_int_t)s.d, "vocab_size",
                  (json_int_t)s.vocab),
        &text, out, err);
}
