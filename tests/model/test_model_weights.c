/* test_model_weights.c - checkpoints: types, shards, names, and every way in
 * which a folder can be wrong; adapters that do or do not fit. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/format.h"
#include "tiny_model.h"

static double loss_of_spec(const tiny_spec *spec, base_dtype expected)
{
    static const int lengths[] = {7, 12};
    tiny t = tiny_open(spec, "ref", BASE_F64, 0);
    cr_assert_eq(model_checkpoint_dtype(t.m), expected);
    tiny_batch b;
    tiny_batch_make(&b, 101, lengths, 2, 5);
    model_run *run = tiny_run(&t, &b, false, MODEL_KEEP_ALL, 0);
    double loss;
    lori_error err = {0};
    cr_assert_eq(model_loss(run, &b.b, NULL, false, NULL, &loss, &err), LORI_OK,
                 "%s", err.message);
    model_run_free(run);
    tiny_close(&t);
    return loss;
}

/* The same numbers in another type, in shards, under the short names, or with
 * the tied head written out are the same model. */
Test(model_weights, forms_of_one_checkpoint)
{
    tiny_spec s = {.coarse = true, .seed = 21, .attention_bias = true};
    double loss = loss_of_spec(&s, BASE_F32);
    const base_dtype types[] = {BASE_F16, BASE_BF16, BASE_F64};
    for (size_t i = 0; i < 3; i++) {
        tiny_spec other = s;
        other.dtype = types[i];
        cr_assert_eq(loss_of_spec(&other, types[i]), loss, "%s",
                     base_dtype_name(types[i]));
    }
    tiny_spec shards = s, bare = s;
    shards.shards = 3;
    cr_assert_eq(loss_of_spec(&shards, BASE_F32), loss);
    bare.bare_names = true;
    cr_assert_eq(loss_of_spec(&bare, BASE_F32), loss);
    tiny_spec tied = {.tied = true, .seed = 22};
    loss = loss_of_spec(&tied, BASE_F32);
    tied.other_head = "same";
    cr_assert_eq(loss_of_spec(&tied, BASE_F32), loss);
    tied.extra = "model.layers.0.self_attn.rotary_emb.inv_freq";
    cr_assert_eq(loss_of_spec(&tied, BASE_F32), loss);
}

/* bf16 arithmetic on cpu stays near the double's result. */
Test(model_weights, every_type_opens_on_cpu)
{
    static const int lengths[] = {7, 12};
    tiny_spec s = {.coarse = true, .seed = 23};
    double expected = loss_of_spec(&s, BASE_F32);
    const base_dtype types[] = {BASE_F16, BASE_BF16, BASE_F32};
    for (size_t i = 0; i < 6; i++) {
        s.dtype = types[i % 3];
        base_dtype act = i < 3 ? BASE_F32 : BASE_BF16;
        tiny t = tiny_open(&s, "cpu", act, 0);
        tiny_batch b;
        tiny_batch_make(&b, 101, lengths, 2, 5);
        model_run *run = tiny_run(&t, &b, false, MODEL_KEEP_ALL, 0);
        double loss;
        cr_assert_eq(model_loss(run, &b.b, NULL, false, NULL, &loss, NULL),
                     LORI_OK);
        /* sums of float roundings; of bf16 roundings of 2^-9 each */
        cr_assert_float_eq(loss, expected,
                           expected * (act == BASE_F32 ? 1e-5 : 2e-2));
        model_run_free(run);
        tiny_close(&t);
    }
}

/* ---- wrong folders
 * ----------------------------------------------------------- */

/* The folder's name is cut out of the message. */
static void shorten(char *message, const char *folder)
{
    size_t n = strlen(folder);
    for (char *at; (at = strstr(message, folder));)
        memmove(at, at + n, strlen(at + n) + 1);
}

static void open_fails(const char *folder, lori_status want, const char *text)
{
    backend_options o = {.name = "ref", .dtype = BASE_F32};
    backend *be;
    model *m;
    lori_error err = {0};
    cr_assert_eq(backend_open(&o, &be, NULL), LORI_OK);
    lori_status st = model_open(folder, be, &m, &err);
    shorten(err.message, folder);
    cr_assert_eq(st, want, "%s", err.message);
    cr_assert_null(m);
    if (text)
        cr_assert_str_eq(err.message, text);
    backend_close(be);
}

static void refused(const tiny_spec *spec, lori_status want, const char *text)
{
    char *folder = tiny_folder();
    tiny_write(folder, spec);
    open_fails(folder, want, text);
    tiny_remove(folder);
}

Test(model_weights, deviations_are_named)
{
    refused(&(tiny_spec){.missing = "model.layers.1.mlp.up_proj.weight"},
            LORI_NOT_FOUND,
            ": tensor 'model.layers.1.mlp.up_proj.weight' [56, 32] is missing "
            "from the checkpoint");
    refused(&(tiny_spec){.missing = "lm_head.weight"}, LORI_NOT_FOUND,
            ": tensor 'lm_head.weight' [101, 32] is missing from the "
            "checkpoint");
    refused(&(tiny_spec){.missing = "model.norm.weight"}, LORI_NOT_FOUND,
            ": tensor 'model.norm.weight' [32] is missing from the checkpoint");
    refused(&(tiny_spec){.wrong = "model.layers.0.self_attn.k_proj.weight"},
            LORI_MISMATCH,
            "/model.safetensors: tensor "
            "'model.layers.0.self_attn.k_proj.weight': shape [17, 32], "
            "expected [16, 32] by config.json");
    refused(&(tiny_spec){.wrong = "model.layers.0.input_layernorm.weight",
                         .shards = 2},
            LORI_MISMATCH,
            "/model-00001-of-00002.safetensors: tensor "
            "'model.layers.0.input_layernorm.weight': shape [33], expected "
            "[32] by config.json");
    refused(&(tiny_spec){.extra = "model.layers.0.self_attn.q_norm.weight"},
            LORI_FORMAT,
            "/model.safetensors: tensor "
            "'model.layers.0.self_attn.q_norm.weight' does not belong to a "
            "llama model with this config.json");
    refused(&(tiny_spec){.tied = true, .other_head = "other"}, LORI_MISMATCH,
            "/model.safetensors: config.json says tie_word_embeddings, but "
            "tensor 'lm_head.weight' differs from 'model.embed_tokens.weight': "
            "set tie_word_embeddings to false, or remove the tensor");
}

/* Biases in the file that the config does not speak of are not dropped. */
Test(model_weights, config_and_file_must_agree)
{
    char *folder = tiny_folder(), *other = tiny_folder();
    tiny_write(folder, &(tiny_spec){.attention_bias = true});
    tiny_write(other, &(tiny_spec){0});
    char *from = base_path_join(other, "config.json");
    char *to = base_path_join(folder, "config.json");
    cr_assert_eq(rename(from, to), 0);
    open_fails(folder, LORI_FORMAT,
               "/model.safetensors: tensor "
               "'model.layers.0.self_attn.k_proj.bias' does not belong to a "
               "llama model with this config.json");
    free(from);
    free(to);
    tiny_remove(folder);
    tiny_remove(other);
}

Test(model_weights, missing_files)
{
    char *folder = tiny_folder();
    tiny_write(folder, &(tiny_spec){.shards = 2});
    char *shard = base_path_join(folder, "model-00002-of-00002.safetensors");
    cr_assert_eq(unlink(shard), 0);
    free(shard);
    lori_error err = {0};
    backend_options o = {.name = "ref", .dtype = BASE_F32};
    backend *be;
    model *m;
    cr_assert_eq(backend_open(&o, &be, NULL), LORI_OK);
    cr_assert_neq(model_open(folder, be, &m, &err), LORI_OK);
    cr_assert_null(m);
    cr_assert_not_null(strstr(err.message, "model-00002-of-00002.safetensors"),
                       "%s", err.message);
    backend_close(be);
    tiny_remove(folder);
    folder = tiny_folder();
    open_fails(folder, LORI_NOT_FOUND, NULL);
    tiny_remove(folder);
}

/* ---- adapters
 * ------------------------------------------------------------------ */

static void adapter_fails(tiny *t, const adapter *ad, lori_status want,
                          const char *text)
{
    model_adapter *ma;
    lori_error err = {0};
    cr_assert_eq(model_adapter_new(t->m, ad, &ma, &err), want, "%s",
                 err.message);
    cr_assert_null(ma);
    cr_assert_str_eq(err.message, text);
}

Test(model_weights, adapters_of_another_base)
{
    tiny t = tiny_open(&(tiny_spec){0}, "ref", BASE_F32, 0);
    adapter_site_spec spec = {"model.layers.2.mlp.up_proj", 32, 56, 4, 8.0};
    adapter *ad;
    cr_assert_eq(adapter_new(&spec, 1, false, &ad, NULL), LORI_OK);
    adapter_fails(&t, ad, LORI_MISMATCH,
                  "adapter site 'model.layers.2.mlp.up_proj' is no linear "
                  "layer of the base (llama with 2 layers): the adapter was "
                  "made for another model");
    adapter_free(ad);
    spec.path = "model.layers.01.mlp.up_proj";
    cr_assert_eq(adapter_new(&spec, 1, false, &ad, NULL), LORI_OK);
    adapter_fails(&t, ad, LORI_MISMATCH,
                  "adapter site 'model.layers.01.mlp.up_proj' is no linear "
                  "layer of the base (llama with 2 layers): the adapter was "
                  "made for another model");
    adapter_free(ad);
    spec = (adapter_site_spec){"model.layers.1.mlp.up_proj", 48, 56, 4, 8.0};
    cr_assert_eq(adapter_new(&spec, 1, false, &ad, NULL), LORI_OK);
    adapter_fails(&t, ad, LORI_MISMATCH,
                  "adapter site 'model.layers.1.mlp.up_proj' is made for a "
                  "layer [56, 48], the base's is [56, 32]: the adapter was "
                  "made for another model");
    adapter_free(ad);
    tiny_close(&t);
}

/* What peft stores of a base with one row more. */
Test(model_weights, enlarged_vocabulary)
{
    enum { ROWS = 102, D = 32 };
    tiny t = tiny_open(&(tiny_spec){.coarse = true}, "ref", BASE_F32, 0);
    adapter_site_spec spec = {"model.layers.1.mlp.up_proj", 32, 56, 4, 8.0};
    adapter *ad;
    cr_assert_eq(adapter_new(&spec, 1, false, &ad, NULL), LORI_OK);
    /* the base's own rows, read back through its lookup */
    static float rows[ROWS * D];
    static uint16_t half[ROWS * D];
    format_store *store;
    cr_assert_eq(format_store_open_folder(t.folder, "model", &store, NULL),
                 LORI_OK);
    memcpy(rows, format_store_find(store, "model.embed_tokens.weight")->data,
           sizeof(float) * 101 * D);
    format_store_close(store);
    base_from_f32(rows, half, BASE_BF16, ROWS * D);

    adapter_extra extra = {"model.embed_tokens.weight", rows, BASE_F32, ROWS,
                           D};
    ad->extras = &extra;
    ad->n_extras = 1;
    model_adapter *ma;
    lori_error err = {0};
    cr_assert_eq(model_adapter_new(t.m, ad, &ma, &err), LORI_OK, "%s",
                 err.message);
    model_adapter_free(ma);
    extra.data = half; /* a base loaded in bf16 saves it rounded */
    extra.dtype = BASE_BF16;
    cr_assert_eq(model_adapter_new(t.m, ad, &ma, &err), LORI_OK, "%s",
                 err.message);
    model_adapter_free(ma);
    half[100 * D + 3] ^= 1;
    adapter_fails(&t, ad, LORI_UNSUPPORTED,
                  "adapter tensor 'model.embed_tokens.weight': row 100 differs "
                  "from the base's; adapters that train it are not supported "
                  "(is this the right base model?)");
    extra.rows = 100;
    adapter_fails(&t, ad, LORI_MISMATCH,
                  "adapter tensor 'model.embed_tokens.weight': shape [100, "
                  "32]; the base has [101, 32]");
    extra.name = "model.norm.weight";
    adapter_fails(&t, ad, LORI_UNSUPPORTED,
                  "adapter tensor 'model.norm.weight' (BF16) replaces a part "
                  "of the base: that is not supported");
    ad->extras = NULL;
    ad->n_extras = 0;
    adapter_free(ad);
    tiny_close(&t);
}
