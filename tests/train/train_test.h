/* train_test.h - what the training tests share: temporary folders, a tiny
 * Llama with random weights, rows of tokens, recipes, metrics. */
#ifndef TRAIN_TEST_H
#define TRAIN_TEST_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"
#include "train/train.h"

#define ok(expr)                                                               \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        lori_status got_ = (expr);                                             \
        cr_assert_eq(got_, LORI_OK, "status %d: %s", (int)got_, e_.message);   \
    } while (0)

/* The call fails with `status` and its message holds `part`. */
#define fails(expr, status_, part)                                             \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        lori_status got_ = (expr);                                             \
        cr_assert_eq(got_, (status_), "status %d: %s", (int)got_, e_.message); \
        cr_assert_not_null(strstr(e_.message, (part)), "'%s' is not in: %s",   \
                           (part), e_.message);                                \
    } while (0)

/* Exactly this message. */
#define says(expr, status_, text)                                              \
    do {                                                                       \
        lori_error e_ = {0};                                                   \
        lori_error *err = &e_;                                                 \
        lori_status got_ = (expr);                                             \
        cr_assert_eq(got_, (status_), "status %d: %s", (int)got_, e_.message); \
        cr_assert_str_eq(e_.message, (text));                                  \
    } while (0)

/* A fresh folder, which is made the current one: paths in messages are short
 * and the same everywhere. */
static char temp_path[256];
static inline void temp_begin(void)
{
    const char *root = getenv("TMPDIR");
    snprintf(temp_path, sizeof temp_path, "%s/lori-train-XXXXXX",
             root && *root ? root : P_tmpdir);
    cr_assert_not_null(mkdtemp(temp_path));
    cr_assert_eq(chdir(temp_path), 0);
}

static inline void temp_end(void)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", temp_path);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(system(command), 0);
}

static inline void put(const char *path, const char *text)
{
    ok(base_file_write(path, text, strlen(text), err));
}

static inline char *slurp(const char *path, size_t *n)
{
    char *bytes = NULL;
    size_t size = 0;
    ok(base_file_read(path, 1 << 26, &bytes, &size, err));
    if (n)
        *n = size;
    return bytes;
}

static inline bool same_file(const char *x, const char *y)
{
    size_t n, m;
    char *a = slurp(x, &n), *b = slurp(y, &m);
    bool same = n == m && !memcmp(a, b, n);
    free(a);
    free(b);
    return same;
}

/* ---- a tiny model ---------------------------------------------------- */

enum { VOCAB = 97, D = 32, FFN = 48, LAYERS = 2, HEADS = 4, KV = 2, HD = 8 };

static inline void add_tensor(format_desc *list, size_t *n, const char *name,
                              int64_t rows, int64_t cols, double std,
                              double mean, base_rng *rng)
{
    int64_t count = rows * (cols ? cols : 1);
    float *data = malloc((size_t)count * sizeof *data);
    for (int64_t i = 0; i < count; i++) /* uniform of this deviation */
        data[i] =
            (float)(mean + std * sqrt(12.0) * (base_rng_uniform(rng) - 0.5));
    list[(*n)++] = (format_desc){.name = strdup(name),
                                 .dtype = BASE_F32,
                                 .n_dims = cols ? 2 : 1,
                                 .shape = {rows, cols},
                                 .data = data};
}

/* Folder "base" with config.json and model.safetensors, untied. */
static inline void make_model(const char *folder)
{
    static const struct {
        const char *name;
        int64_t out, in;
    } linears[] = {{"self_attn.q_proj", HEADS * HD, D},
                   {"self_attn.k_proj", KV * HD, D},
                   {"self_attn.v_proj", KV * HD, D},
                   {"self_attn.o_proj", D, HEADS * HD},
                   {"mlp.gate_proj", FFN, D},
                   {"mlp.up_proj", FFN, D},
                   {"mlp.down_proj", D, FFN}};
    char path[512], name[128];
    format_desc list[64];
    size_t n = 0;
    base_rng rng;
    base_rng_start(&rng, 1, 2);
    ok(base_mkdirs(folder, err));
    snprintf(path, sizeof path, "%s/config.json", folder);
    char config[1024];
    snprintf(config, sizeof config,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": "
             "\"llama\", \"hidden_act\": \"silu\", \"hidden_size\": %d, "
             "\"intermediate_size\": %d, \"num_hidden_layers\": %d, "
             "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
             "\"vocab_size\": %d, \"max_position_embeddings\": 128, "
             "\"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
             "\"tie_word_embeddings\": false, \"torch_dtype\": \"float32\"}\n",
             D, FFN, LAYERS, HEADS, KV, VOCAB);
    put(path, config);
    add_tensor(list, &n, "model.embed_tokens.weight", VOCAB, D, 0.5, 0, &rng);
    add_tensor(list, &n, "lm_head.weight", VOCAB, D, 0.2, 0, &rng);
    add_tensor(list, &n, "model.norm.weight", D, 0, 0.1, 1, &rng);
    for (int l = 0; l < LAYERS; l++) {
        for (size_t k = 0; k < 7; k++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l,
                     linears[k].name);
            add_tensor(list, &n, name, linears[k].out, linears[k].in, 0.15, 0,
                       &rng);
        }
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight",
                 l);
        add_tensor(list, &n, name, D, 0, 0.1, 1, &rng);
        snprintf(name, sizeof name,
                 "model.layers.%d.post_attention_layernorm.weight", l);
        add_tensor(list, &n, name, D, 0, 0.1, 1, &rng);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    format_pair meta = {"format", "pt"};
    ok(format_st_write(path, list, n, &meta, 1, err));
    for (size_t i = 0; i < n; i++) {
        free((void *)list[i].name);
        free((void *)list[i].data);
    }
}

/* n rows of 6 .. 25 random tokens, the first third without loss. */
static inline void make_rows(const char *path, int n, uint64_t seed)
{
    base_rng rng;
    base_str s = {0};
    base_rng_start(&rng, seed, 5);
    for (int i = 0; i < n; i++) {
        int len = 6 + (int)base_rng_below(&rng, 20), ids[32];
        for (int k = 0; k < len; k++)
            ids[k] = (int)base_rng_below(&rng, VOCAB);
        base_str_puts(&s, "{\"input_ids\": [");
        for (int k = 0; k < len; k++)
            base_str_printf(&s, "%s%d", k ? ", " : "", ids[k]);
        base_str_puts(&s, "], \"labels\": [");
        for (int k = 0; k < len; k++)
            base_str_printf(&s, "%s%d", k ? ", " : "",
                            k < len / 3 ? -100 : ids[k]);
        base_str_puts(&s, "]}\n");
    }
    ok(base_file_write(path, s.s, s.len, err));
    base_str_free(&s);
}

/* ---- running --------------------------------------------------------- */

/* Recipe from "key=value key=value ..." after the common part. */
static inline void recipe(train_recipe *r, const char *keys)
{
    char common[] = "model_name_or_path=base train_file=rows.jsonl dtype=f32 "
                    "lora_rank=4 lora_alpha=12 learning_rate=1e-2 "
                    "per_device_train_batch_size=4 logging_steps=2";
    char *copy = strdup(keys), *save = NULL;
    const char *list[64];
    int64_t n = 0;
    for (char *w = strtok_r(common, " ", &save); w;
         w = strtok_r(NULL, " ", &save))
        list[n++] = w;
    for (char *w = strtok_r(copy, " ", &save); w;
         w = strtok_r(NULL, " ", &save))
        list[n++] = w; /* of two the later wins */
    ok(train_recipe_load(NULL, list, n, r, err));
    free(copy);
}

typedef struct machine {
    const char *name;
    base_dtype dtype;
    int threads;
} machine;
static const machine cpu32 = {"cpu", BASE_F32, 1};

static inline lori_status train_on(const machine *how, const char *keys,
                                   const lori_ui *ui, train_result *result,
                                   lori_error *err)
{
    train_recipe r;
    recipe(&r, keys);
    backend_options o = {
        .name = how->name, .dtype = how->dtype, .n_threads = how->threads};
    if (strcmp(how->name, "cpu") == 0) {
        o.name = getenv("LORI_BACKEND"); /* "cuda": on a GPU */
        o.isa = getenv("LORI_ISA");      /* make check-rungs */
    }
    backend *be = NULL;
    model *m = NULL;
    lori_status st = backend_open(&o, &be, err);
    if (!st)
        st = model_open(r.model_name_or_path, be, &m, err);
    if (!st)
        st = train_run(&r, m, NULL, ui, result, err);
    model_close(m);
    backend_close(be);
    train_recipe_free(&r);
    return st;
}

static inline lori_status train(const char *keys, const lori_ui *ui,
                                train_result *result, lori_error *err)
{
    return train_on(&cpu32, keys, ui, result, err);
}

/* Values of `key` in out/metrics.jsonl, in order; returns how many. */
static inline int metric(const char *path, const char *key, double *out,
                         int max)
{
    char *text = slurp(path, NULL), *save = NULL;
    int n = 0;
    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *o = NULL;
        ok(format_json_parse(line, strlen(line), path, &o, err));
        const json_t *v = json_object_get(o, key);
        if (v && n < max)
            out[n++] = json_number_value(v);
        json_decref(o);
    }
    free(text);
    return n;
}

#endif
