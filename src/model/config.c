/* config.c - config.json as transformers 4 and 5 write it -> model_config, and
 * what follows from a config alone: counts, shapes, adapter sites. A model
 * family is a row of `families`. Refuses, by name, whatever would change the
 * result and is not computed here. May include base, format, model.
 * Source: transformers LlamaConfig, MistralConfig; spec/hf.md 1. */
#include <math.h>
#include <stdlib.h>

#include "model/model_i.h"

typedef struct family {
    const char *name;
    int64_t kv_heads;      /* when not given; 0: as many as heads */
    int64_t max_positions; /* when not given */
    int64_t window;        /* when not given; -1: the key is not read */
    bool biases;           /* attention_bias and mlp_bias are read */
} family;

static const family families[] = {
    {"llama", 0, 2048, -1, true},
    {"mistral", 8, 131072, 4096, false},
};

const char *const model_role_names[MODEL_ROLES] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
};

const model_linear model_linears[MODEL_ROLES] = {
    [ROLE_Q] = {"self_attn.q_proj", SLOT_XN1, SLOT_Q, true},
    [ROLE_K] = {"self_attn.k_proj", SLOT_XN1, SLOT_K, true},
    [ROLE_V] = {"self_attn.v_proj", SLOT_XN1, SLOT_V, true},
    [ROLE_O] = {"self_attn.o_proj", SLOT_O, SLOT_X2, true},
    [ROLE_GATE] = {"mlp.gate_proj", SLOT_XN2, SLOT_GATE, false},
    [ROLE_UP] = {"mlp.up_proj", SLOT_XN2, SLOT_UP, false},
    [ROLE_DOWN] = {"mlp.down_proj", SLOT_A, SLOT_Y, false},
};

/* Keys of other architectures that some writers put into a llama config. */
static const char *const refused[] = {
    "quantization_config",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "final_logit_softcapping",
    "use_bidirectional_attention",
};

/* Bounds that keep every product of two widths and the count of all
 * parameters inside int64. */
#define MAX_WIDTH    (INT64_C(1) << 20)
#define MAX_FFN      (INT64_C(1) << 22)
#define MAX_HEADS    (INT64_C(1) << 14)
#define MAX_HEAD_DIM 4096
#define MAX_LAYERS   4096

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0.0);
}

static lori_status read_family(const json_t *o, const char *file,
                               model_config *c, const family **out,
                               lori_error *err)
{
    const char *name = NULL;
    BASE_TRY(format_get_str(o, file, "model_type", true, &name, err));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (!strcmp(name, families[i].name)) {
            *out = &families[i];
            memcpy(c->family, name, strlen(name) + 1);
        }
    if (!*out)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: model_type '%s' is not supported; supported are "
                         "llama and mistral",
                         file, name);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (!is_off(json_object_get(o, refused[i])))
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: '%s' is set: such models are not supported",
                             file, refused[i]);
    const char *act = "silu";
    BASE_TRY(format_get_str(o, file, "hidden_act", false, &act, err));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: hidden_act '%s' is not supported; only silu is",
                         file, act);
    return LORI_OK;
}

static lori_status read_shape(const json_t *o, const char *file,
                              const family *f, model_config *c, lori_error *err)
{
    BASE_TRY(format_get_i64(o, file, "vocab_size", true, 1, INT32_MAX,
                            &c->vocab, err));
    BASE_TRY(
        format_get_i64(o, file, "hidden_size", true, 1, MAX_WIDTH, &c->d, err));
    BASE_TRY(format_get_i64(o, file, "intermediate_size", true, 1, MAX_FFN,
                            &c->ffn, err));
    BASE_TRY(format_get_i64(o, file, "num_hidden_layers", true, 1, MAX_LAYERS,
                            &c->n_layers, err));
    BASE_TRY(format_get_i64(o, file, "num_attention_heads", true, 1, MAX_HEADS,
                            &c->n_heads, err));
    /* an explicit null means as many as heads, in every family */
    c->n_kv_heads = c->n_heads;
    if (f->kv_heads && !json_object_get(o, "num_key_value_heads"))
        c->n_kv_heads = f->kv_heads;
    BASE_TRY(format_get_i64(o, file, "num_key_value_heads", false, 1, MAX_HEADS,
                            &c->n_kv_heads, err));
    if (c->n_heads % c->n_kv_heads)
        return base_fail(err, LORI_FORMAT,
                         "%s: num_attention_heads %lld is not a multiple of "
                         "num_key_value_heads %lld",
                         file, (long long)c->n_heads, (long long)c->n_kv_heads);
    BASE_TRY(format_get_i64(o, file, "head_dim", false, 1, MAX_HEAD_DIM,
                            &c->head_dim, err));
    if (!c->head_dim) {
        if (c->d % c->n_heads)
            return base_fail(err, LORI_FORMAT,
                             "%s: hidden_size %lld is not a multiple of "
                             "num_attention_heads %lld and there is no "
                             "head_dim",
                             file, (long long)c->d, (long long)c->n_heads);
        c->head_dim = c->d / c->n_heads;
    }
    if (c->head_dim % 2 || c->head_dim > MAX_HEAD_DIM)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: head_dim %lld: it must be even and at most %d",
                         file, (long long)c->head_dim, MAX_HEAD_DIM);
    c->max_positions = f->max_positions;
    return format_get_i64(o, file, "max_position_embeddings", false, 1,
                          INT32_MAX, &c->max_positions, err);
}

static lori_status read_options(const json_t *o, const char *file,
                                const family *f, model_config *c,
                                lori_error *err)
{
    c->norm_eps = 1e-6;
    BASE_TRY(format_get_f64(o, file, "rms_norm_eps", false, &c->norm_eps, err));
    if (!(c->norm_eps >= 0.0) || !isfinite(c->norm_eps))
        return base_fail(err, LORI_FORMAT,
                         "%s: rms_norm_eps must not be negative", file);
    BASE_TRY(
        format_get_bool(o, file, "tie_word_embeddings", false, &c->tied, err));
    if (f->biases) {
        BASE_TRY(format_get_bool(o, file, "attention_bias", false,
                                 &c->attention_bias, err));
        BASE_TRY(
            format_get_bool(o, file, "mlp_bias", false, &c->mlp_bias, err));
    }
    if (f->window < 0)
        return LORI_OK;
    c->window =
        json_is_null(json_object_get(o, "sliding_window")) ? 0 : f->window;
    return format_get_i64(o, file, "sliding_window", false, 1, INT32_MAX,
                          &c->window, err);
}

/* ---- rope ------------------------------------------------------------ */

static lori_status positive(const json_t *dict, const char *file,
                            const char *key, double *io, lori_error *err)
{
    BASE_TRY(format_get_f64(dict, file, key, true, io, err));
    if (!(*io > 0.0) || !isfinite(*io))
        return base_fail(err, LORI_FORMAT, "%s: rope '%s' must be positive",
                         file, key);
    return LORI_OK;
}

/* The dict that counts, or NULL: a non-empty rope_scaling hides
 * rope_parameters and the theta inside it (transformers 5.23). */
static lori_status find_rope(const json_t *o, const char *file,
                             const json_t **out, lori_error *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    for (size_t i = 0; i < 2 && !*out; i++) {
        const json_t *dict = json_object_get(o, keys[i]);
        if (!dict || json_is_null(dict))
            continue;
        if (!json_is_object(dict))
            return base_fail(err, LORI_FORMAT, "%s: '%s' must be an object",
                             file, keys[i]);
        if (json_object_size(dict) > 0)
            *out = dict;
    }
    const char *key;
    json_t *value;
    if (*out)
        json_object_foreach((json_t *)(uintptr_t)*out, key, value) if (
            json_is_object(value)) return base_fail(err, LORI_UNSUPPORTED,
                                                    "%s: rope parameters by "
                                                    "kind of layer ('%s') "
                                                    "are not supported",
                                                    file, key);
    return LORI_OK;
}

static lori_status read_theta(const json_t *o, const json_t *dict,
                              const char *file, model_config *c,
                              lori_error *err)
{
    c->rope_theta = 10000.0;
    const json_t *places[] = {o, dict}; /* the inner one wins */
    for (size_t i = 0; i < 2; i++) {
        double partial = 1.0;
        if (!places[i])
            continue;
        if (json_object_get(places[i], "rope_theta"))
            BASE_TRY(
                positive(places[i], file, "rope_theta", &c->rope_theta, err));
        BASE_TRY(format_get_f64(places[i], file, "partial_rotary_factor", false,
                                &partial, err));
        if (partial != 1.0)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: partial_rotary_factor %g is not supported; "
                             "only 1 is",
                             file, partial);
    }
    return LORI_OK;
}

static lori_status read_llama3(const json_t *o, const json_t *dict,
                               const char *file, model_config *c,
                               lori_error *err)
{
    static const char key[] = "original_max_position_embeddings";
    BASE_TRY(positive(dict, file, "low_freq_factor", &c->rope_low, err));
    BASE_TRY(positive(dict, file, "high_freq_factor", &c->rope_high, err));
    if (c->rope_high <= c->rope_low)
        return base_fail(err, LORI_FORMAT,
                         "%s: rope 'high_freq_factor' must be larger than "
                         "'low_freq_factor'",
                         file);
    c->rope_original = c->max_positions;
    BASE_TRY(format_get_i64(dict, file, key, false, 1, INT32_MAX,
                            &c->rope_original, err));
    /* transformers copies the outer key over the inner one */
    return format_get_i64(o, file, key, false, 1, INT32_MAX, &c->rope_original,
                          err);
}

static lori_status read_rope(const json_t *o, const char *file, model_config *c,
                             lori_error *err)
{
    const json_t *dict = NULL;
    BASE_TRY(find_rope(o, file, &dict, err));
    BASE_TRY(read_theta(o, dict, file, c, err));
    const char *type = NULL;
    if (dict) {
        BASE_TRY(format_get_str(dict, file, "rope_type", false, &type, err));
        if (!type)
            BASE_TRY(format_get_str(dict, file, "type", false, &type, err));
    }
    c->rope_factor = 1.0;
    if (!type || !strcmp(type, "default"))
        return LORI_OK;
    if (!strcmp(type, "linear"))
        c->rope = MODEL_ROPE_LINEAR;
    else if (!strcmp(type, "llama3"))
        c->rope = MODEL_ROPE_LLAMA3;
    else
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: rope_type '%s' is not supported; supported are "
                         "default, linear and llama3",
                         file, type);
    BASE_TRY(positive(dict, file, "factor", &c->rope_factor, err));
    return c->rope == MODEL_ROPE_LLAMA3 ? read_llama3(o, dict, file, c, err)
                                        : LORI_OK;
}

/* ---- the whole file --------------------------------------------------- */

static lori_status read_config(const char *file, model_config *c,
                               lori_error *err)
{
    json_t *o = NULL;
    BASE_TRY(format_json_load(file, &o, err));
    const family *f = NULL;
    lori_status st = LORI_OK;
    if (!json_is_object(o))
        st = base_fail(err, LORI_FORMAT, "%s: not a JSON object", file);
    if (!st)
        st = read_family(o, file, c, &f, err);
    if (!st)
        st = read_shape(o, file, f, c, err);
    if (!st)
        st = read_options(o, file, f, c, err);
    if (!st)
        st = read_rope(o, file, c, err);
    json_decref(o);
    return st;
}

lori_status model_config_load(const char *path, model_config *out,
                              lori_error *err)
{
    *out = (model_config){0};
    char *file = base_is_dir(path) ? base_path_join(path, "config.json")
                                   : base_strdup(path);
    if (!file)
        return base_no_memory(err, strlen(path) + sizeof "/config.json");
    model_config c = {0};
    lori_status st = read_config(file, &c, err);
    free(file);
    if (!st)
        *out = c;
    return st;
}

/* ---- what follows from it --------------------------------------------- */

void model_linear_shape(const model_config *c, int role, int64_t *out,
                        int64_t *in)
{
    const int64_t width[MODEL_SLOTS] = {
        [SLOT_XN1] = c->d,
        [SLOT_Q] = model_q_width(c),
        [SLOT_K] = model_kv_width(c),
        [SLOT_V] = model_kv_width(c),
        [SLOT_O] = model_q_width(c),
        [SLOT_X2] = c->d,
        [SLOT_XN2] = c->d,
        [SLOT_GATE] = c->ffn,
        [SLOT_UP] = c->ffn,
        [SLOT_A] = c->ffn,
        [SLOT_Y] = c->d,
    };
    *out = width[model_linears[role].out];
    *in = width[model_linears[role].in];
}

bool model_linear_bias(const model_config *c, int role)
{
    return model_linears[role].attention ? c->attention_bias : c->mlp_bias;
}

int64_t model_param_count(const model_config *c)
{
    int64_t layer = 2 * c->d;
    for (int r = 0; r < MODEL_ROLES; r++) {
        int64_t out, in;
        model_linear_shape(c, r, &out, &in);
        layer += out * in + (model_linear_bias(c, r) ? out : 0);
    }
    return c->n_layers * layer + c->vocab * c->d * (c->tied ? 1 : 2) + c->d;
}

bool model_path_parse(const model_config *c, const char *path, int64_t *layer,
                      int *role)
{
    static const char head[] = "model.layers.";
    if (strncmp(path, head, sizeof head - 1) != 0)
        return false;
    const char *digits = path + sizeof head - 1, *s = digits;
    int64_t number = 0;
    for (; *s >= '0' && *s <= '9'; s++) {
        number = number * 10 + (*s - '0');
        if (number >= c->n_layers)
            return false;
    }
    /* one spelling a layer: "03" names nothing */
    if (s == digits || (*digits == '0' && s > digits + 1) || *s != '.')
        return false;
    for (int r = 0; r < MODEL_ROLES; r++)
        if (!strcmp(s + 1, model_linears[r].name)) {
            *layer = number;
            *role = r;
            return true;
        }
    return false;
}

static lori_status choose_roles(const char *const *targets, int64_t n,
                                bool wanted[MODEL_ROLES], lori_error *err)
{
    for (int r = 0; r < MODEL_ROLES; r++)
        wanted[r] = !targets;
    for (int64_t i = 0; targets && i < n; i++) {
        int r = 0;
        while (r < MODEL_ROLES && strcmp(targets[i], model_role_names[r]) != 0)
            r++;
        if (r < MODEL_ROLES) {
            wanted[r] = true;
            continue;
        }
        const char *near =
            base_nearest(targets[i], model_role_names, MODEL_ROLES);
        return base_fail(err, LORI_INVALID,
                         "unknown target module '%s'%s%s%s; known are q_proj, "
                         "k_proj, v_proj, o_proj, gate_proj, up_proj, "
                         "down_proj",
                         targets[i], near ? ": did you mean '" : "",
                         near ? near : "", near ? "'?" : "");
    }
    return LORI_OK;
}

lori_status model_sites(const model_config *c, const char *const *targets,
                        int64_t n_targets, int64_t rank, double alpha,
                        adapter_site_spec **out, int64_t *n, lori_error *err)
{
    *out = NULL;
    *n = 0;
    bool wanted[MODEL_ROLES];
    BASE_TRY(choose_roles(targets, n_targets, wanted, err));
    size_t most = (size_t)c->n_layers * MODEL_ROLES;
    adapter_site_spec *specs = base_alloc(most, sizeof *specs);
    if (!specs)
        return base_no_memory(err, most * sizeof *specs);
    int64_t used = 0;
    for (int64_t l = 0; l < c->n_layers; l++)
        for (int r = 0; r < MODEL_ROLES; r++) {
            if (!wanted[r])
                continue;
            adapter_site_spec *s = &specs[used++];
            base_str path = {0};
            base_str_printf(&path, "model.layers.%lld.%s", (long long)l,
                            model_linears[r].name);
            s->path = base_str_take(&path);
            model_linear_shape(c, r, &s->out, &s->in);
            s->rank = rank;
            s->alpha = alpha;
            if (!s->path) {
                model_sites_free(specs, used);
                return base_no_memory(err, 64);
            }
        }
    *out = specs;
    *n = used;
    return LORI_OK;
}

void model_sites_free(adapter_site_spec *specs, int64_t n)
{
    for (int64_t i = 0; specs && i < n; i++)
        free((void *)(uintptr_t)specs[i].path);
    free(specs);
}
