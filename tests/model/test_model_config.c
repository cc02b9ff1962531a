/* test_model_config.c - config.json in the forms of transformers 4 and 5,
 * counts, rope frequencies to the bit, refusals. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tiny_model.h"

#define LLAMA3_8B                                                              \
    "\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, "   \
    "\"bos_token_id\": 128000, \"eos_token_id\": 128001, \"hidden_act\": "     \
    "\"silu\", \"hidden_size\": 4096, \"intermediate_size\": 14336, "          \
    "\"max_position_embeddings\": 8192, \"model_type\": \"llama\", "           \
    "\"num_attention_heads\": 32, \"num_hidden_layers\": 32, "                 \
    "\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05, "                    \
    "\"tie_word_embeddings\": false, \"vocab_size\": 128256"
#define MISTRAL_7B                                                             \
    "\"hidden_act\": \"silu\", \"hidden_size\": 4096, \"intermediate_size\": " \
    "14336, \"max_position_embeddings\": 32768, \"model_type\": \"mistral\", " \
    "\"num_attention_heads\": 32, \"num_hidden_layers\": 32, "                 \
    "\"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-05, "                    \
    "\"tie_word_embeddings\": false, \"vocab_size\": 32000, "                  \
    "\"sliding_window\": 4096"

static lori_status parse(const char *body, model_config *c, lori_error *err)
{
    char *folder = tiny_folder();
    base_str text = {0};
    base_str_printf(&text, "{%s}", body);
    tiny_put(folder, "config.json", text.s);
    base_str_free(&text);
    lori_status st = model_config_load(folder, c, err);
    if (err) { /* the folder's random name is not part of the test */
        char *at = strstr(err->message, "config.json");
        if (at)
            memmove(err->message, at, strlen(at) + 1);
    }
    tiny_remove(folder);
    return st;
}

static model_config good(const char *body)
{
    model_config c;
    lori_error err = {0};
    cr_assert_eq(parse(body, &c, &err), LORI_OK, "%s", err.message);
    return c;
}

static void bad(const char *body, lori_status want, const char *message)
{
    model_config c;
    lori_error err = {0};
    cr_assert_eq(parse(body, &c, &err), want, "%s", err.message);
    cr_assert_str_eq(err.message, message);
    cr_assert_eq(c.d, 0); /* nothing half-read */
}

/* Source of the counts: spec, LoRI paper's tables. */
Test(model_config, known_models_are_counted)
{
    static const char *const llama[] = {
        LLAMA3_8B ", \"rope_theta\": 500000.0, \"rope_scaling\": null, "
                  "\"torch_dtype\": \"bfloat16\", \"pretraining_tp\": 1",
        LLAMA3_8B ", \"dtype\": \"bfloat16\", \"head_dim\": 128, "
                  "\"rope_parameters\": {\"rope_theta\": 500000.0, "
                  "\"rope_type\": \"default\"}"};
    static const char *const mistral[] = {
        MISTRAL_7B ", \"rope_theta\": 10000.0",
        MISTRAL_7B ", \"head_dim\": null, \"rope_parameters\": "
                   "{\"rope_theta\": 10000.0, \"rope_type\": \"default\"}"};
    for (int i = 0; i < 2; i++) {
        model_config c = good(llama[i]);
        cr_assert_eq(model_param_count(&c), INT64_C(8030261248));
        cr_assert_eq(c.head_dim, 128);
        cr_assert_eq(c.rope_theta, 500000.0);
        cr_assert_eq(c.window, 0);
        c = good(mistral[i]);
        cr_assert_eq(model_param_count(&c), INT64_C(7241732096));
        cr_assert_eq(c.window, 4096);
        cr_assert_eq(c.rope_theta, 10000.0);
    }
}

Test(model_config, sites_have_the_reference_counts)
{
    model_config c = good(LLAMA3_8B);
    adapter_site_spec *specs;
    int64_t n, a = 0, b = 0;
    cr_assert_eq(model_sites(&c, NULL, 0, 32, 64.0, &specs, &n, NULL), LORI_OK);
    cr_assert_eq(n, 224);
    for (int64_t i = 0; i < n; i++) {
        a += specs[i].rank * specs[i].in;
        b += specs[i].rank * specs[i].out;
    }
    cr_assert_eq(a, 39845888);
    cr_assert_eq(b, 44040192);
    cr_assert_str_eq(specs[0].path, "model.layers.0.self_attn.q_proj");
    cr_assert_str_eq(specs[223].path, "model.layers.31.mlp.down_proj");
    model_sites_free(specs, n);

    static const char *const two[] = {"v_proj", "q_proj", "v_proj"};
    cr_assert_eq(model_sites(&c, two, 3, 8, 16.0, &specs, &n, NULL), LORI_OK);
    cr_assert_eq(n, 64);
    cr_assert_str_eq(specs[3].path, "model.layers.1.self_attn.v_proj");
    cr_assert_eq(specs[3].out, 1024);
    model_sites_free(specs, n);

    static const char *const wrong[] = {"q_proj", "gate_prj"};
    lori_error err = {0};
    cr_assert_eq(model_sites(&c, wrong, 2, 8, 16.0, &specs, &n, &err),
                 LORI_INVALID);
    cr_assert_str_eq(err.message,
                     "unknown target module 'gate_prj': did you mean "
                     "'gate_proj'?; known are q_proj, k_proj, v_proj, o_proj, "
                     "gate_proj, up_proj, down_proj");
    cr_assert_null(specs);
}

/* ---- rope -------------------------------------------------------------------
 */

typedef struct vector {
    int index;
    float value;
} vector;

static void check_rope(const model_config *c, const vector *v, size_t n)
{
    float inv[256];
    cr_assert_leq(c->head_dim, 512);
    model_rope_inv_freq(c, inv);
    cr_assert_eq(inv[0], 1.0F);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(inv[v[i].index], v[i].value, "[%d] = %a, expected %a",
                     v[i].index, (double)inv[v[i].index], (double)v[i].value);
}

#define COUNT(x) (sizeof(x) / sizeof((x)[0]))

/* Measured with transformers 5.23 (spec/hf.md 2). */
Test(model_config, rope_frequencies_to_the_bit)
{
    static const vector small[] = {
        {1, 0x1.53c38cp-1F},   {2, 0x1.c2ef78p-2F},   {15, 0x1.524f36p-10F},
        {16, 0x1.c26c40p-12F}, {17, 0x1.9731eep-14F}, {29, 0x1.cb4a9ap-23F},
        {30, 0x1.30c94ep-23F}, {31, 0x1.948360p-24F}};
    static const vector large[] = {
        {1, 0x1.a11582p-1F},   {2, 0x1.53c38cp-1F},   {29, 0x1.1bfa0cp-9F},
        {30, 0x1.67a23ap-10F}, {31, 0x1.c12f3cp-11F}, {32, 0x1.132ba4p-11F},
        {33, 0x1.47e210p-12F}, {34, 0x1.765ba4p-13F}, {61, 0x1.f09184p-22F},
        {62, 0x1.948360p-22F}, {63, 0x1.4985fep-22F}};
    static const vector mid[] = {
        {29, 0x1.15a9f0p-9F}, {34, 0x1.9731eep-14F}, {63, 0x1.4985fep-24F}};
    static const vector d4[] = {{1, 0x1.bb5faep-1F}, {63, 0x1.e459c4p-14F}};
    static const vector d6[] = {{1, 0x1.9c975ap-1F}, {63, 0x1.4d1c98p-20F}};
    static const vector d5[] = {{1, 0x1.654a0cp-1F}, {31, 0x1.e0d6dap-17F}};
    model_config c = {.head_dim = 64,
                      .rope_theta = 5e5,
                      .rope = MODEL_ROPE_LLAMA3,
                      .rope_factor = 32.0,
                      .rope_low = 1.0,
                      .rope_high = 4.0,
                      .rope_original = 8192};
    check_rope(&c, small, COUNT(small));
    c.head_dim = 128;
    check_rope(&c, mid, COUNT(mid));
    c.rope_factor = 8.0;
    check_rope(&c, large, COUNT(large));
    c = (model_config){.head_dim = 128, .rope_theta = 1e4};
    check_rope(&c, d4, COUNT(d4));
    float plain[64], linear[64];
    model_rope_inv_freq(&c, plain);
    c.rope = MODEL_ROPE_LINEAR;
    c.rope_factor = 3.0;
    model_rope_inv_freq(&c, linear);
    for (int j = 0; j < 64; j++)
        cr_assert_eq(linear[j], plain[j] / 3.0F);
    c = (model_config){.head_dim = 128, .rope_theta = 1e6};
    check_rope(&c, d6, COUNT(d6));
    c = (model_config){.head_dim = 64, .rope_theta = 1e5};
    check_rope(&c, d5, COUNT(d5));
}

#define SMALL                                                                  \
    "\"model_type\": \"llama\", \"vocab_size\": 10, \"hidden_size\": 16, "     \
    "\"intermediate_size\": 8, \"num_hidden_layers\": 1, "                     \
    "\"num_attention_heads\": 4, \"max_position_embeddings\": 1000"
#define SCALED                                                                 \
    "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "  \
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 500"

Test(model_config, rope_precedence)
{
    /* a non-empty rope_scaling hides rope_parameters and its theta */
    model_config c =
        good(SMALL ", \"rope_scaling\": " SCALED "}, \"rope_parameters\": "
                   "{\"rope_type\": \"default\", \"rope_theta\": 7.0}");
    cr_assert_eq(c.rope, MODEL_ROPE_LLAMA3);
    cr_assert_eq(c.rope_theta, 10000.0);
    cr_assert_eq(c.rope_original, 500);
    /* theta inside beats theta outside; an empty rope_scaling is none */
    c = good(SMALL ", \"rope_scaling\": {}, \"rope_theta\": 5.0, "
                   "\"rope_parameters\": {\"rope_type\": \"linear\", "
                   "\"factor\": 2.0, \"rope_theta\": 7.0}");
    cr_assert_eq(c.rope, MODEL_ROPE_LINEAR);
    cr_assert_eq(c.rope_factor, 2.0);
    cr_assert_eq(c.rope_theta, 7.0);
    /* "type" is the old name; the outer original length wins */
    c = good(SMALL ", \"rope_theta\": 5.0, \"rope_scaling\": {\"type\": "
                   "\"linear\", \"factor\": 2}");
    cr_assert_eq(c.rope, MODEL_ROPE_LINEAR);
    cr_assert_eq(c.rope_theta, 5.0);
    c = good(SMALL ", \"original_max_position_embeddings\": 250, "
                   "\"rope_parameters\": " SCALED "}");
    cr_assert_eq(c.rope_original, 250);
}

Test(model_config, defaults_of_the_families)
{
    model_config c = good("\"model_type\": \"llama\", \"vocab_size\": 10, "
                          "\"hidden_size\": 16, \"intermediate_size\": 8, "
                          "\"num_hidden_layers\": 1, "
                          "\"num_attention_heads\": 4, \"mlp_bias\": true");
    cr_assert_eq(c.n_kv_heads, 4);
    cr_assert_eq(c.max_positions, 2048);
    cr_assert_eq(c.norm_eps, 1e-6);
    cr_assert_eq(c.head_dim, 4);
    cr_assert(!c.tied && !c.attention_bias && c.mlp_bias);
    c = good("\"model_type\": \"mistral\", \"vocab_size\": 10, "
             "\"hidden_size\": 16, \"intermediate_size\": 8, "
             "\"num_hidden_layers\": 1, \"num_attention_heads\": 8");
    cr_assert_eq(c.n_kv_heads, 8);
    cr_assert_eq(c.window, 4096);
    cr_assert_eq(c.max_positions, 131072);
    c = good("\"model_type\": \"mistral\", \"vocab_size\": 10, "
             "\"hidden_size\": 16, \"intermediate_size\": 8, "
             "\"num_hidden_layers\": 1, \"num_attention_heads\": 16, "
             "\"head_dim\": 6, \"num_key_value_heads\": null, "
             "\"sliding_window\": null");
    cr_assert_eq(c.n_kv_heads, 16);
    cr_assert_eq(c.window, 0);
    cr_assert_eq(c.head_dim, 6);
}

Test(model_config, what_would_change_the_result_is_refused)
{
    bad("\"model_type\": \"gemma2\"", LORI_UNSUPPORTED,
        "config.json: model_type 'gemma2' is not supported; supported are "
        "llama and mistral");
    bad(SMALL ", \"hidden_act\": \"gelu\"", LORI_UNSUPPORTED,
        "config.json: hidden_act 'gelu' is not supported; only silu is");
    bad(SMALL ", \"quantization_config\": {\"bits\": 4}", LORI_UNSUPPORTED,
        "config.json: 'quantization_config' is set: such models are not "
        "supported");
    bad(SMALL ", \"num_local_experts\": 8", LORI_UNSUPPORTED,
        "config.json: 'num_local_experts' is set: such models are not "
        "supported");
    bad(SMALL ", \"partial_rotary_factor\": 0.5", LORI_UNSUPPORTED,
        "config.json: partial_rotary_factor 0.5 is not supported; only 1 is");
    bad(SMALL ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}",
        LORI_UNSUPPORTED,
        "config.json: rope_type 'yarn' is not supported; supported are "
        "default, linear and llama3");
    bad(SMALL ", \"rope_parameters\": {\"full_attention\": {}}",
        LORI_UNSUPPORTED,
        "config.json: rope parameters by kind of layer ('full_attention') are "
        "not supported");
    bad(SMALL ", \"num_key_value_heads\": 3", LORI_FORMAT,
        "config.json: num_attention_heads 4 is not a multiple of "
        "num_key_value_heads 3");
    bad(SMALL ", \"head_dim\": 5", LORI_UNSUPPORTED,
        "config.json: head_dim 5: it must be even and at most 4096");
    bad(SMALL ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0}",
        LORI_FORMAT, "config.json: rope 'factor' must be positive");
    good(SMALL ", \"attention_dropout\": 0.5, \"quantization_config\": null");
}
