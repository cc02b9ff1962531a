/* peft_config.c - PEFT's adapter_config.json: which keys are honoured, which
 * are refused by name, which mean nothing for a trained adapter. Owns the
 * reading of the file; peft_match.c applies it to module paths.
 *
 * An unknown key (a newer PEFT) is ignored while it is null, false, a number,
 * a string or empty: PEFT's options are switched on by true or by a value with
 * content, and such a key is refused.
 * Source: peft 0.21 LoraConfig; spec/peft.md 1, spec/hf.md 5. */
#include "adapter/adapter_i.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

/* Keys that are read below, and keys that never change what a trained adapter
 * computes. */
static const char *const known_keys[] = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "target_modules",
    "lora_alpha",
    "lora_dropout",
    "fan_in_fan_out",
    "bias",
    "modules_to_save",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "init_lora_weights",
    "layers_to_transform",
    "layers_pattern",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",
    "auto_mapping",
    "peft_version",
    "runtime_config",
    "megatron_core",
    "qalora_group_size",
    "ensure_weight_tying",
};

/* Options that change the result and that this program does not compute. */
static const struct refused_key {
    const char *key, *what;
} refused_keys[] = {
    {"use_dora", "DoRA's magnitude vectors"},
    {"lora_bias", "a bias on B"},
    {"trainable_token_indices", "replaced token embeddings"},
    {"target_parameters", "adapters on raw parameters (mixture of experts)"},
    {"layer_replication", "a base with repeated layers"},
    {"alora_invocation_tokens", "an adapter switched on by tokens (aLoRA)"},
    {"arrow_config", "routing between adapters (Arrow)"},
    {"kasa_config", "KaSA's diagonal and changed base"},
    {"monteclora_config", "MonteCLoRA's sampling"},
    {"use_bdlora", "block-diagonal adapters"},
    {"use_qalora", "QA-LoRA's grouped inputs"},
    {"megatron_config", "Megatron's parallel layers"},
    {"enable_lora", "fused projections of PEFT before 0.3"},
};

/* Ways to start training that leave a plain adapter behind. */
static const char *const plain_inits[] = {"gaussian", "orthogonal", "eva",
                                          "mica"};

/* True for null, false, "", [] and {}. */
static bool is_unset(const json_t *v)
{
    if (json_is_string(v))
        return json_string_length(v) == 0;
    if (json_is_array(v))
        return json_array_size(v) == 0;
    if (json_is_object(v))
        return json_object_size(v) == 0;
    return !v || json_is_null(v) || json_is_false(v);
}

static lori_status check_refused(const adapter_peft *p, lori_error *err)
{
    for (size_t i = 0; i < sizeof refused_keys / sizeof *refused_keys; i++)
        if (!is_unset(json_object_get(p->root, refused_keys[i].key)))
            return base_fail(
                err, LORI_UNSUPPORTED,
                "%s: '%s' asks for %s, which lori does not compute;"
                " convert the adapter to plain LoRA with PEFT",
                p->file, refused_keys[i].key, refused_keys[i].what);
    return LORI_OK;
}

static bool is_known(const char *key)
{
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++)
        if (strcmp(key, known_keys[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof refused_keys / sizeof *refused_keys; i++)
        if (strcmp(key, refused_keys[i].key) == 0)
            return true;
    return false;
}

static lori_status check_unknown(const adapter_peft *p, lori_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(p->root, key, value)
    {
        bool inert =
            is_unset(value) || json_is_number(value) || json_is_string(value);
        if (!inert && !is_known(key))
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: '%s' is set but not known to this version of "
                             "lori; it may change the adapter's result. Remove "
                             "the key if it does not",
                             p->file, key);
    }
    return LORI_OK;
}

static lori_status check_fixed(const adapter_peft *p, lori_error *err)
{
    const char *type = NULL, *bias = "none";
    BASE_TRY(format_get_str(p->root, p->file, "peft_type", true, &type, err));
    if (strcmp(type, "LORA") != 0)
        return base_fail(
            err, LORI_UNSUPPORTED,
            "%s: peft_type is '%s'; only LORA adapters can be read", p->file,
            type);
    BASE_TRY(format_get_str(p->root, p->file, "bias", false, &bias, err));
    if (strcmp(bias, "none") != 0)
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: bias is '%s': trained biases of the base cannot "
                         "be applied; only \"none\" is supported",
                         p->file, bias);
    const json_t *init = json_object_get(p->root, "init_lora_weights");
    if (!init || json_is_null(init) || json_is_boolean(init))
        return LORI_OK;
    const char *name = json_string_value(init);
    for (size_t i = 0; name && i < sizeof plain_inits / sizeof *plain_inits;
         i++)
        if (strcmp(name, plain_inits[i]) == 0)
            return LORI_OK;
    return base_fail(err, LORI_UNSUPPORTED,
                     "%s: init_lora_weights '%s' belongs to a changed base "
                     "model; save it with PEFT's "
                     "path_initial_model_for_weight_conversion first",
                     p->file, name ? name : "(not a string)");
}

/* rank_pattern or alpha_pattern: an object of numbers. */
static lori_status read_patterns(const adapter_peft *p, const char *key,
                                 bool integer, adapter_peft_pattern **out,
                                 size_t *n, lori_error *err)
{
    json_t *object = json_object_get(p->root, key);
    if (is_unset(object))
        return LORI_OK;
    if (!json_is_object(object))
        return base_fail(err, LORI_FORMAT, "%s: '%s' is not an object", p->file,
                         key);
    size_t size = json_object_size(object);
    *out = base_alloc(size, sizeof **out);
    if (!*out)
        return base_no_memory(err, size * sizeof **out);
    const char *pattern;
    json_t *value;
    json_object_foreach(object, pattern, value)
    {
        double v = json_number_value(value);
        if (!(integer ? json_is_integer(value) : json_is_number(value)) ||
            (integer && (v < 1 || v > INT32_MAX)))
            return base_fail(err, LORI_FORMAT, "%s: %s['%s'] is not a %s",
                             p->file, key, pattern,
                             integer ? "positive integer" : "number");
        (*out)[(*n)++] = (adapter_peft_pattern){pattern, v};
    }
    return LORI_OK;
}

static bool all_strings(const json_t *array)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        if (!json_is_string(item))
            return false;
    }
    return true;
}

static bool all_integers(const json_t *array)
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item)
    {
        if (!json_is_integer(item))
            return false;
    }
    return true;
}

/* A key that is a string or a list of strings; *out stays NULL when unset. */
static lori_status read_names(const adapter_peft *p, const char *key,
                              const json_t **out, lori_error *err)
{
    const json_t *v = json_object_get(p->root, key);
    if (!v || json_is_null(v))
        return LORI_OK;
    if (!json_is_string(v) && !(json_is_array(v) && all_strings(v)))
        return base_fail(err, LORI_FORMAT,
                         "%s: '%s' is neither a string nor a list of strings",
                         p->file, key);
    *out = v;
    return LORI_OK;
}

static lori_status read_layers(adapter_peft *p, lori_error *err)
{
    const json_t *v = json_object_get(p->root, "layers_to_transform");
    if (json_is_integer(v) ||
        (!is_unset(v) && json_is_array(v) && all_integers(v)))
        p->layers = v;
    else if (!is_unset(v))
        return base_fail(err, LORI_FORMAT,
                         "%s: 'layers_to_transform' is neither an integer nor "
                         "a list of integers",
                         p->file);
    BASE_TRY(read_names(p, "layers_pattern", &p->layer_patterns, err));
    if (is_unset(p->layer_patterns))
        p->layer_patterns = NULL;
    if (p->layer_patterns && !p->layers)
        return base_fail(err, LORI_FORMAT,
                         "%s: 'layers_pattern' without 'layers_to_transform'",
                         p->file);
    if (p->layers && json_is_string(p->targets))
        return base_fail(err, LORI_FORMAT,
                         "%s: 'layers_to_transform' needs 'target_modules' to "
                         "be a list",
                         p->file);
    return LORI_OK;
}

static lori_status read_saved(adapter_peft *p, lori_error *err)
{
    const json_t *v = json_object_get(p->root, "modules_to_save");
    if (is_unset(v))
        return LORI_OK;
    if (!json_is_array(v) || !all_strings(v))
        return base_fail(err, LORI_FORMAT,
                         "%s: 'modules_to_save' is not a list of strings",
                         p->file);
    size_t i;
    json_t *item;
    json_array_foreach(v, i, item)
    {
        const char *last = adapter_path_last(json_string_value(item));
        if (strcmp(last, "embed_tokens") != 0 && strcmp(last, "lm_head") != 0)
            return base_fail(err, LORI_UNSUPPORTED,
                             "%s: modules_to_save names '%s': modules trained "
                             "in full are not supported",
                             p->file, json_string_value(item));
    }
    p->saved = v;
    return LORI_OK;
}

static lori_status read_keys(adapter_peft *p, lori_error *err)
{
    if (!json_is_object(p->root))
        return base_fail(err, LORI_FORMAT, "%s: not a JSON object", p->file);
    BASE_TRY(check_fixed(p, err));
    BASE_TRY(check_refused(p, err));
    BASE_TRY(check_unknown(p, err));
    p->r = 8; /* PEFT's defaults */
    p->alpha = 8;
    BASE_TRY(
        format_get_i64(p->root, p->file, "r", false, 1, INT32_MAX, &p->r, err));
    BASE_TRY(
        format_get_f64(p->root, p->file, "lora_alpha", false, &p->alpha, err));
    BASE_TRY(format_get_bool(p->root, p->file, "use_rslora", false, &p->rslora,
                             err));
    BASE_TRY(format_get_str(p->root, p->file, "base_model_name_or_path", false,
                            &p->base_model, err));
    BASE_TRY(
        read_patterns(p, "rank_pattern", true, &p->ranks, &p->n_ranks, err));
    BASE_TRY(read_patterns(p, "alpha_pattern", false, &p->alphas, &p->n_alphas,
                           err));
    BASE_TRY(read_names(p, "target_modules", &p->targets, err));
    BASE_TRY(read_names(p, "exclude_modules", &p->excludes, err));
    BASE_TRY(read_layers(p, err));
    return read_saved(p, err);
}

lori_status adapter_peft_load(const char *path, adapter_peft *out,
                              lori_error *err)
{
    *out = (adapter_peft){0};
    BASE_TRY(format_json_load(path, &out->root, err));
    out->file = base_strdup(path);
    lori_status st =
        out->file ? read_keys(out, err) : base_no_memory(err, strlen(path));
    if (st != LORI_OK)
        adapter_peft_free(out);
    return st;
}

void adapter_peft_free(adapter_peft *peft)
{
    free(peft->ranks);
    free(peft->alphas);
    free(peft->file);
    json_decref(peft->root);
    *peft = (adapter_peft){0};
}
