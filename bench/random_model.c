/* random_model.c - a model folder of a known shape with random bf16 weights,
 * for measurements of speed and memory without a download.
 *   random_model smollm2|llama-1b|llama-8b FOLDER [LAYERS]
 * Weights repeat one block of Philox numbers: they differ everywhere a product
 * could notice, and 16 GB of them take as long as the disk does. There is no
 * tokenizer: datasets for it hold input_ids and labels. */
#include <stdio.h>
#include <stdlib.h>

#include "format/format.h"

typedef struct shape {
    const char *name;
    int64_t vocab, d, ffn, layers, heads, kv_heads, head_dim;
    double rope_theta;
    bool tied;
} shape;

static const shape shapes[] = {
    {"smollm2", 49152, 576, 1536, 30, 9, 3, 64, 1e5, true},
    {"llama-1b", 128256, 2048, 8192, 16, 32, 8, 64, 5e5, true},
    {"llama-8b", 128256, 4096, 14336, 32, 32, 8, 128, 5e5, false}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* An odd number of values: rows of no width start alike. */
enum { BLOCK = (1 << 22) - 1, MOST = 3 + 9 * 128, SHARD = 2000000000 };

typedef struct maker {
    const shape *s;
    int64_t layers;
    format_desc tensors[MOST];
    char names[MOST][64];
    size_t n, at; /* tensors; where in the block the next value is */
    uint16_t *block;
    uint16_t one[16384];
} maker;

static void add(maker *m, int64_t layer, const char *name, int64_t rows,
                int64_t cols)
{
    format_desc *t = &m->tensors[m->n];
    char *text = m->names[m->n++];
    if (layer < 0)
        snprintf(text, sizeof m->names[0], "%s.weight", name);
    else
        snprintf(text, sizeof m->names[0], "model.layers.%d.%s.weight",
                 (int)layer, name);
    *t = (format_desc){.name = text, .dtype = BASE_BF16};
    t->n_dims = cols ? 2 : 1;
    t->shape[0] = rows;
    t->shape[1] = cols;
}

static void describe(maker *m)
{
    const shape *s = m->s;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    add(m, -1, "model.embed_tokens", s->vocab, s->d);
    for (int64_t l = 0; l < m->layers; l++) {
        add(m, l, "input_layernorm", s->d, 0);
        add(m, l, "self_attn.q_proj", q, s->d);
        add(m, l, "self_attn.k_proj", kv, s->d);
        add(m, l, "self_attn.v_proj", kv, s->d);
        add(m, l, "self_attn.o_proj", s->d, q);
        add(m, l, "post_attention_layernorm", s->d, 0);
        add(m, l, "mlp.gate_proj", s->ffn, s->d);
        add(m, l, "mlp.up_proj", s->ffn, s->d);
        add(m, l, "mlp.down_proj", s->d, s->ffn);
    }
    add(m, -1, "model.norm", s->d, 0);
    if (!s->tied)
        add(m, -1, "lm_head", s->vocab, s->d);
}

/* Uniform of deviation 0.02, as models are initialized. */
static bool make_block(maker *m)
{
    m->block = malloc(BLOCK * sizeof *m->block);
    if (!m->block)
        return false;
    base_rng rng;
    base_rng_start(&rng, 1, 0);
    for (size_t i = 0; i < BLOCK; i++) {
        double u = (double)base_rng_u32(&rng) * 0x1p-31 - 1;
        m->block[i] = base_f32_to_bf16((float)(u * 0.02 * 1.7320508));
    }
    for (size_t i = 0; i < sizeof m->one / sizeof *m->one; i++)
        m->one[i] = base_f32_to_bf16(1);
    return true;
}

static lori_status emit(void *context, const format_desc *t, format_sink *sink,
                        lori_error *err)
{
    maker *m = context;
    if (t->n_dims == 1)
        return format_sink_write(sink, m->one, (size_t)t->shape[0] * 2, err);
    size_t left = (size_t)(t->shape[0] * t->shape[1]);
    while (left) {
        size_t n = BLOCK - m->at < left ? BLOCK - m->at : left;
        BASE_TRY(format_sink_write(sink, m->block + m->at, n * 2, err));
        m->at = (m->at + n) % BLOCK;
        left -= n;
    }
    return LORI_OK;
}

static lori_status write_config(const maker *m, const char *folder,
                                lori_error *err)
{
    const shape *s = m->s;
    json_t *config = json_pack(
        "{s[s] ss sI sI sI sI sI sI sI sI sf sf sb ss ss}", "architectures",
        "LlamaForCausalLM", "model_type", "llama", "vocab_size",
        (json_int_t)s->vocab, "hidden_size", (json_int_t)s->d,
        "intermediate_size", (json_int_t)s->ffn, "num_hidden_layers",
        (json_int_t)m->layers, "num_attention_heads", (json_int_t)s->heads,
        "num_key_value_heads", (json_int_t)s->kv_heads, "head_dim",
        (json_int_t)s->head_dim, "max_position_embeddings", (json_int_t)8192,
        "rms_norm_eps", 1e-5, "rope_theta", s->rope_theta,
        "tie_word_embeddings", (int)s->tied, "hidden_act", "silu",
        "torch_dtype", "bfloat16");
    char *path = base_path_join(folder, "config.json");
    lori_status st = config && path
                         ? format_json_write(
                               path, config,
                               FORMAT_JSON_SORT | FORMAT_JSON_INDENT, true, err)
                         : base_no_memory(err, 1);
    free(path);
    json_decref(config);
    return st;
}

static lori_status make(maker *m, const char *folder, lori_error *err)
{
    describe(m);
    if (!make_block(m))
        return base_no_memory(err, BLOCK * sizeof *m->block);
    BASE_TRY(base_mkdirs(folder, err));
    BASE_TRY(format_st_emit_folder(folder, "model", m->tensors, m->n, SHARD,
                                   emit, m, err));
    return write_config(m, folder, err); /* last: with it, all is there */
}

int main(int argc, char **argv)
{
    const shape *s = NULL;
    for (int i = 0; argc > 1 && i < SHAPES; i++)
        if (!strcmp(argv[1], shapes[i].name))
            s = &shapes[i];
    int64_t layers = argc > 3 ? atoll(argv[3]) : s ? s->layers : 0;
    if (argc < 3 || argc > 4 || !s || layers < 1 || layers > 128) {
        fputs("usage: random_model smollm2|llama-1b|llama-8b FOLDER "
              "[LAYERS]\n",
              stderr);
        return 2;
    }
    lori_error err;
    maker *m = calloc(1, sizeof *m);
    lori_status st = LORI_NO_MEMORY;
    if (m) {
        m->s = s;
        m->layers = layers;
        st = make(m, argv[2], &err);
        free(m->block);
    } else
        base_no_memory(&err, sizeof *m);
    free(m);
    if (st)
        fprintf(stderr, "random_model: %s\n", err.message);
    return st != LORI_OK;
}
