/* test_adapter_folder.c - adapter folders: what is written, that it reads back
 * the same, and folders as other programs write them. */
#include "adapter/adapter_test.h"

#include <math.h>

static json_t *config_of(const char *dir)
{
    char *path = base_path_join(dir, "adapter_config.json");
    json_t *o = NULL;
    ok(format_json_load(path, &o, err));
    free(path);
    return o;
}

static const char *text_of(const json_t *o, const char *key)
{
    base_str s = {0};
    static char buffer[4096];
    format_json_text(json_object_get(o, key), FORMAT_JSON_SORT, &s);
    snprintf(buffer, sizeof buffer, "%s", s.s);
    base_str_free(&s);
    return buffer;
}

/* Writes, reads, compares, writes again: the same bytes. */
static adapter *round_trip(const adapter *ad, const char *dir,
                           const adapter_write_options *options)
{
    char *one = base_path_join(dir, "one"), *two = base_path_join(dir, "two");
    adapter *back = NULL;
    ok(adapter_write(ad, one, options, err));
    ok(adapter_read(one, &back, err));
    ok(adapter_write(back, two, options, err));
    static const char *const files[] = {"adapter_config.json",
                                        "adapter_model.safetensors",
                                        "lori.json", "README.md"};
    for (int i = 0; i < 4; i++)
        same_file(one, two, files[i]);
    free(one);
    free(two);
    return back;
}

Test(folder, round_trip)
{
    char *dir = temp_begin();
    adapter *ad = small_adapter(5);
    adapter_init_a(ad, 0xfedcba9876543210ULL);
    ad->method = base_strdup("lori-d");
    ad->base_model = base_strdup("some/b\"ase \xc3\xa9");
    adapter *back = round_trip(ad, dir, NULL);
    same_adapter(ad, back);
    cr_assert_str_eq(back->method, "lori-d");
    cr_assert_str_eq(back->base_model, ad->base_model);
    cr_assert(back->origin.has_seed && back->origin.version == 1);
    cr_assert_eq(back->origin.seed, 0xfedcba9876543210ULL);
    cr_assert_eq(back->n_extras, 0);
    adapter_free(back);
    adapter_free(ad);
    temp_end(dir);
}

Test(folder, config_has_the_portable_keys)
{
    static const char *const keys[] = {"alpha_pattern",
                                       "base_model_name_or_path",
                                       "bias",
                                       "fan_in_fan_out",
                                       "inference_mode",
                                       "init_lora_weights",
                                       "layers_pattern",
                                       "layers_to_transform",
                                       "lora_alpha",
                                       "lora_dropout",
                                       "modules_to_save",
                                       "peft_type",
                                       "r",
                                       "rank_pattern",
                                       "revision",
                                       "target_modules",
                                       "task_type",
                                       "use_rslora"};
    char *dir = temp_begin();
    adapter *ad = small_adapter(5);
    adapter_free(round_trip(ad, dir, NULL));
    char *one = base_path_join(dir, "one");
    json_t *o = config_of(one);
    cr_assert_eq(json_object_size(o), 18);
    size_t i = 0;
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value) cr_assert_str_eq(key, keys[i++]);
    cr_assert_str_eq(text_of(o, "r"), "3");
    cr_assert_str_eq(text_of(o, "lora_alpha"), "7");
    cr_assert_str_eq(text_of(o, "target_modules"),
                     "[\"down_proj\", \"q_proj\"]");
    cr_assert_str_eq(text_of(o, "peft_type"), "\"LORA\"");
    cr_assert_str_eq(text_of(o, "task_type"), "\"CAUSAL_LM\"");
    cr_assert_str_eq(text_of(o, "inference_mode"), "true");
    cr_assert_str_eq(text_of(o, "lora_dropout"), "0.0");
    cr_assert_str_eq(text_of(o, "rank_pattern"), "{}");
    cr_assert_str_eq(text_of(o, "base_model_name_or_path"), "null");
    json_decref(o);
    size_t n = 0;
    char *bytes = slurp(one, "adapter_config.json", &n);
    cr_assert_eq(bytes[n - 1], '}'); /* as json.dumps: no final newline */
    free(bytes);
    /* Names, shapes and metadata of the weights. */
    char *path = base_path_join(one, "adapter_model.safetensors");
    format_store *store = NULL;
    ok(format_store_open_file(path, &store, err));
    cr_assert_eq(format_store_count(store), 8);
    cr_assert_str_eq(format_store_metadata(store, "format"), "pt");
    const format_tensor *t = format_store_find(
        store,
        "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
    cr_assert_not_null(t);
    cr_assert(t->shape[0] == 6 && t->shape[1] == 3 && t->dtype == BASE_F32);
    format_store_close(store);
    free(path);
    free(one);
    adapter_free(ad);
    temp_end(dir);
}

/* Names that do not cover every layer alike are written in full. */
Test(folder, uneven_sites_are_named_in_full)
{
    const adapter_site_spec specs[] = {
        {"model.layers.0.self_attn.q_proj", 4, 4, 2, 3},
        {"model.layers.2.self_attn.q_proj", 4, 4, 2, 3},
    };
    char *dir = temp_begin(), *one = base_path_join(dir, "one");
    adapter *ad = make_adapter(specs, 2, false, 1);
    adapter_free(round_trip(ad, dir, NULL));
    json_t *o = config_of(one);
    cr_assert_str_eq(text_of(o, "target_modules"),
                     "[\"model.layers.0.self_attn.q_proj\", "
                     "\"model.layers.2.self_attn.q_proj\"]");
    json_decref(o);
    free(one);
    adapter_free(ad);
    temp_end(dir);
}

Test(folder, ranks_and_alphas_become_patterns)
{
    /* v_proj differs by name; one q_proj differs by layer; alpha is real. */
    const adapter_site_spec specs[] = {
        {"model.layers.0.self_attn.q_proj", 4, 4, 2, 3},
        {"model.layers.0.self_attn.k_proj", 4, 4, 2, 3},
        {"model.layers.0.self_attn.v_proj", 4, 4, 5, 3.5},
        {"model.layers.1.self_attn.q_proj", 4, 4, 1, 3},
        {"model.layers.1.self_attn.k_proj", 4, 4, 2, 3},
        {"model.layers.1.self_attn.v_proj", 4, 4, 5, 3.5},
    };
    for (int rslora = 0; rslora < 2; rslora++) {
        char *dir = temp_begin(), *one = base_path_join(dir, "one");
        adapter *ad = make_adapter(specs, 6, rslora, 9);
        adapter *back = round_trip(ad, dir, NULL);
        same_adapter(ad, back);
        cr_assert_eq(back->use_rslora, (bool)rslora);
        json_t *o = config_of(one);
        cr_assert_str_eq(text_of(o, "r"), "2");
        cr_assert_str_eq(text_of(o, "lora_alpha"), "3");
        cr_assert_str_eq(text_of(o, "rank_pattern"),
                         "{\"^model\\\\.layers\\\\.1\\\\.self_attn\\\\.q_proj\""
                         ": 1, \"v_proj\": 5}");
        cr_assert_str_eq(text_of(o, "alpha_pattern"), "{\"v_proj\": 3.5}");
        json_decref(o);
        adapter_free(back);
        adapter_free(ad);
        free(one);
        temp_end(dir);
    }
}

/* A stays exact through both 16-bit types when it has a seed; B is rounded. */
Test(folder, sixteen_bit_tensors)
{
    const base_dtype dtypes[] = {BASE_BF16, BASE_F16};
    for (int d = 0; d < 2; d++) {
        char *dir = temp_begin();
        adapter *ad = small_adapter(5);
        adapter_init_a(ad, 12345);
        adapter_write_options options = {.dtype = dtypes[d]};
        adapter *back = round_trip(ad, dir, &options);
        cr_assert(back->origin.has_seed);
        for (int64_t i = 0; i < ad->n_sites; i++) {
            const adapter_site *a = &ad->sites[i], *b = &back->sites[i];
            cr_assert_arr_eq(a->A, b->A, (size_t)(a->rank * a->in) * 4);
            for (int64_t k = 0; k < a->out * a->rank; k++) {
                float want = dtypes[d] == BASE_BF16
                                 ? base_bf16_to_f32(base_f32_to_bf16(a->B[k]))
                                 : base_f16_to_f32(base_f32_to_f16(a->B[k]));
                cr_assert_eq(b->B[k], want);
            }
        }
        adapter_free(back);
        adapter_free(ad);
        temp_end(dir);
    }
}

Test(folder, replace_and_refusals)
{
    char *dir = temp_begin(), *one = base_path_join(dir, "one");
    adapter *ad = small_adapter(1), *other = small_adapter(2), *back = NULL;
    ok(adapter_write(ad, one, NULL, err));
    cr_assert_neq(adapter_write(other, one, NULL, NULL), LORI_OK);
    ok(adapter_read(one, &back, err));
    same_adapter(ad, back);
    adapter_free(back);
    adapter_write_options options = {.replace = true, .card = "my card\n"};
    ok(adapter_write(other, one, &options, err));
    ok(adapter_read(one, &back, err));
    same_adapter(other, back);
    adapter_free(back);
    char *card = slurp(one, "README.md", NULL);
    cr_assert_str_eq(card, "my card\n");
    free(card);
    /* NaN is never written, and nothing is left behind. */
    char *two = base_path_join(dir, "two");
    ad->sites[2].B[4] = (float)NAN;
    fails(adapter_write(ad, two, NULL, err), LORI_NUMERIC, "q_proj");
    cr_assert_not(base_is_dir(two));
    free(two);
    free(one);
    adapter_free(ad);
    adapter_free(other);
    temp_end(dir);
}

Test(folder, changed_a_is_found)
{
    char *dir = temp_begin(), *one = base_path_join(dir, "one");
    adapter *ad = small_adapter(1), *back = NULL;
    adapter_init_a(ad, 4);
    ad->sites[1].A[7] = nextafterf(ad->sites[1].A[7], 1);
    ok(adapter_write(ad, one, NULL, err));
    fails(adapter_read(one, &back, err), LORI_MISMATCH,
          "is not the A of seed 4");
    cr_assert_null(back);
    /* Without the claim it is a plain adapter. */
    char *facts = base_path_join(one, "lori.json");
    cr_assert_eq(unlink(facts), 0);
    ok(adapter_read(one, &back, err));
    cr_assert_not(back->origin.has_seed);
    cr_assert_null(back->method);
    same_adapter(ad, back);
    free(facts);
    free(one);
    adapter_free(back);
    adapter_free(ad);
    temp_end(dir);
}

/* ---- folders of other programs -------------------------------------- */

static void make_folder(const char *dir, const char *config,
                        const format_desc *t, size_t n)
{
    ok(base_mkdirs(dir, err));
    spit(dir, "adapter_config.json", config);
    char *path = base_path_join(dir, "adapter_model.safetensors");
    ok(format_st_write(path, t, n, NULL, 0, err));
    free(path);
}

static const float ones[64] = {1, 2, 3, 4, 5, 6, 7, 8};
static const float a_values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const float b_values[6] = {-1, 2, -3, 4, -5, 6};

/* Every accepted spelling of A and B of model.layers.0.self_attn.q_proj. */
Test(foreign, names)
{
    static const char *const prefixes[] = {
        "base_model.model.model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.q_proj",
        "base_model.model.layers.0.self_attn.q_proj",
        "layers.0.self_attn.q_proj",
        "base_model.model._orig_mod.model.layers.0.self_attn.q_proj",
        "_orig_mod.base_model.model.model.layers.0._orig_mod.self_attn.q_proj",
    };
    static const char *const ends[] = {".weight", ".default.weight",
                                       ".my_task.weight"};
    for (int p = 0; p < 6; p++)
        for (int e = 0; e < 3; e++) {
            char *dir = temp_begin(), a[200], b[200], mask[200];
            snprintf(a, sizeof a, "%s.lora_A%s", prefixes[p], ends[e]);
            snprintf(b, sizeof b, "%s.lora_B%s", prefixes[p], ends[e]);
            snprintf(mask, sizeof mask, "%s.lora_B.mask", prefixes[p]);
            const format_desc t[] = {
                {a, BASE_F32, 2, {2, 4}, a_values},
                {b, BASE_F32, 2, {3, 2}, b_values},
                {mask, BASE_F32, 2, {3, 2}, ones},
            };
            make_folder(dir,
                        "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":5,"
                        "\"target_modules\":[\"q_proj\"]}",
                        t, 3);
            adapter *ad = NULL;
            ok(adapter_read(dir, &ad, err));
            cr_assert_eq(ad->n_sites, 1);
            const adapter_site *s = &ad->sites[0];
            cr_assert_str_eq(s->path, "model.layers.0.self_attn.q_proj");
            cr_assert(s->in == 4 && s->out == 3 && s->rank == 2);
            cr_assert_eq(s->scale, 2.5);
            cr_assert_arr_eq(s->A, a_values, 32);
            cr_assert_arr_eq(s->B, b_values, 24);
            cr_assert_null(ad->method);
            cr_assert_null(ad->base_model);
            adapter_free(ad);
            temp_end(dir);
        }
}

Test(foreign, enlarged_vocabulary)
{
    char *dir = temp_begin();
    const format_desc t[] = {
        {"base_model.model.model.layers.0.q_proj.lora_A.weight",
         BASE_F32,
         2,
         {2, 4},
         a_values},
        {"base_model.model.model.layers.0.q_proj.lora_B.weight",
         BASE_F32,
         2,
         {3, 2},
         b_values},
        {"base_model.model.model.embed_tokens.weight",
         BASE_F32,
         2,
         {5, 3},
         ones},
        {"base_model.model.lm_head.weight", BASE_BF16, 2, {6, 2}, ones},
    };
    make_folder(dir,
                "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":5,"
                "\"target_modules\":[\"q_proj\"],"
                "\"modules_to_save\":[\"lm_head\",\"embed_tokens\"]}",
                t, 4);
    adapter *ad = NULL;
    ok(adapter_read(dir, &ad, err));
    cr_assert_eq(ad->n_extras, 2);
    const adapter_extra *head = &ad->extras[0], *embed = &ad->extras[1];
    cr_assert_str_eq(head->name, "lm_head.weight");
    cr_assert(head->rows == 6 && head->cols == 2 && head->dtype == BASE_BF16);
    cr_assert_str_eq(embed->name, "model.embed_tokens.weight");
    cr_assert(embed->rows == 5 && embed->cols == 3);
    cr_assert_arr_eq(embed->data, ones, 60);
    /* Written again, they are still there. */
    char *again = base_path_join(dir, "again");
    ok(adapter_write(ad, again, NULL, err));
    adapter_free(ad);
    ok(adapter_read(again, &ad, err));
    cr_assert_eq(ad->n_extras, 2);
    cr_assert_arr_eq(ad->extras[1].data, ones, 60);
    adapter_free(ad);
    free(again);
    temp_end(dir);
}

/* One q_proj of layer 3 under this config: is it read, and with what scale? */
static lori_status try_config(const char *config, int rank, double *scale,
                              lori_error *err)
{
    char *dir = temp_begin();
    const format_desc t[] = {
        {"base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight",
         BASE_F32,
         2,
         {rank, 2},
         ones},
        {"base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight",
         BASE_F32,
         2,
         {2, rank},
         ones},
    };
    make_folder(dir, config, t, 2);
    adapter *ad = NULL;
    lori_status st = adapter_read(dir, &ad, err);
    if (ad)
        *scale = ad->sites[0].scale;
    adapter_free(ad);
    temp_end(dir);
    return st;
}

/* PEFT's rules of targets and patterns. scale 0: refused. */
Test(foreign, targets_and_patterns)
{
    static const struct {
        const char *keys;
        int rank;
        double scale;
    } rows[] = {
        {"\"r\":4,\"lora_alpha\":6,\"target_modules\":[\"q_proj\"]", 4, 1.5},
        {"\"r\":4,\"lora_alpha\":6.5,\"target_modules\":null", 4, 1.625},
        {"\"target_modules\":\"all-linear\"", 8, 1},
        {"\"r\":4,\"lora_alpha\":6,\"use_rslora\":true,"
         "\"target_modules\":\"ALL-LINEAR\"",
         4, 3},
        {"\"r\":4,\"target_modules\":\".*\\\\.(q|k)_proj\"", 4, 2},
        {"\"r\":4,\"target_modules\":\"q_proj\"", 4, 0}, /* fullmatch */
        {"\"r\":4,\"target_modules\":[\"attn.q_proj\"]", 4, 0},
        {"\"r\":4,\"target_modules\":[\"self_attn.q_proj\"]", 4, 2},
        {"\"r\":4,\"target_modules\":[\"proj\"]", 4, 0},
        {"\"r\":4,\"target_modules\":[\"v_proj\"]", 4, 0},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],"
         "\"exclude_modules\":[\"q_proj\"]",
         4, 0},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],"
         "\"exclude_modules\":\".*layers\\\\.3.*\"",
         4, 0},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],"
         "\"exclude_modules\":\"layers.3\"",
         4, 2},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],\"layers_to_transform\":3", 4,
         2},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],\"layers_to_transform\":0", 4,
         0},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],"
         "\"layers_to_transform\":[1,3],\"layers_pattern\":\"layers\"",
         4, 2},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],"
         "\"layers_to_transform\":[1,3],\"layers_pattern\":[\"h\",\"blocks\"]",
         4, 0},
        {"\"r\":4,\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[]",
         4, 2},
        /* An exact name skips the layer filter. */
        {"\"r\":4,\"layers_to_transform\":0,"
         "\"target_modules\":[\"model.layers.3.self_attn.q_proj\"]",
         4, 2},
        /* Patterns: first match wins, each dictionary on its own. */
        {"\"r\":9,\"lora_alpha\":6,\"target_modules\":[\"q_proj\"],"
         "\"rank_pattern\":{\"q_proj\":4}",
         4, 1.5},
        {"\"r\":4,\"lora_alpha\":6,\"target_modules\":[\"q_proj\"],"
         "\"rank_pattern\":{\"proj\":9},\"alpha_pattern\":{\"q_proj\":2.5}",
         4, 0.625},
        {"\"r\":9,\"target_modules\":[\"q_proj\"],\"lora_alpha\":6,"
         "\"rank_pattern\":{\"v_proj\":1,\"layers.3.self_attn.q_.*\":4,"
         "\"q_proj\":7}",
         4, 1.5},
        {"\"r\":9,\"target_modules\":[\"q_proj\"],\"lora_alpha\":6,"
         "\"rank_pattern\":{\"^layers.3.self_attn.q_proj\":1,"
         "\"^model.layers.3.self_attn.q_proj\":4}",
         4, 1.5},
        /* Inert keys of a newer PEFT. */
        {"\"r\":4,\"target_modules\":[\"q_proj\"],\"new_switch\":false,"
         "\"new_size\":16,\"new_list\":[],\"new_name\":\"x\",\"n\":null,"
         "\"lora_bias\":false,\"use_dora\":false,\"loftq_config\":{},"
         "\"eva_config\":{\"rho\":2.0},\"init_lora_weights\":\"eva\","
         "\"task_type\":\"CAUSAL_LM\",\"bias\":\"none\"",
         4, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        base_str s = {0};
        base_str_printf(&s, "{\"peft_type\":\"LORA\",%s}", rows[i].keys);
        double scale = 0;
        lori_error e = {0};
        lori_status st = try_config(s.s, rows[i].rank, &scale, &e);
        cr_assert_eq(scale, rows[i].scale, "row %zu: scale %g %s: %s", i, scale,
                     e.message, s.s);
        cr_assert_eq(st, rows[i].scale != 0 ? LORI_OK : LORI_MISMATCH,
                     "row %zu: %s", i, e.message);
        base_str_free(&s);
    }
}

/* Options that would change the result are refused, each by its name. */
Test(foreign, refused_options)
{
    static const struct {
        const char *keys, *name;
        lori_status status;
    } rows[] = {
        {"\"use_dora\":true", "use_dora", LORI_UNSUPPORTED},
        {"\"lora_bias\":true", "lora_bias", LORI_UNSUPPORTED},
        {"\"bias\":\"all\"", "bias", LORI_UNSUPPORTED},
        {"\"bias\":\"lora_only\"", "bias", LORI_UNSUPPORTED},
        {"\"use_qalora\":true", "use_qalora", LORI_UNSUPPORTED},
        {"\"use_bdlora\":{\"x\":1}", "use_bdlora", LORI_UNSUPPORTED},
        {"\"layer_replication\":[[0,2]]", "layer_replication",
         LORI_UNSUPPORTED},
        {"\"trainable_token_indices\":[1]", "trainable_token_indices",
         LORI_UNSUPPORTED},
        {"\"target_parameters\":[\"e\"]", "target_parameters",
         LORI_UNSUPPORTED},
        {"\"alora_invocation_tokens\":[1]", "alora_invocation_tokens",
         LORI_UNSUPPORTED},
        {"\"arrow_config\":{\"k\":1}", "arrow_config", LORI_UNSUPPORTED},
        {"\"kasa_config\":{\"k\":1}", "kasa_config", LORI_UNSUPPORTED},
        {"\"monteclora_config\":{\"k\":1}", "monteclora_config",
         LORI_UNSUPPORTED},
        {"\"megatron_config\":{\"k\":1}", "megatron_config", LORI_UNSUPPORTED},
        {"\"init_lora_weights\":\"pissa_niter_4\"", "pissa_niter_4",
         LORI_UNSUPPORTED},
        {"\"init_lora_weights\":\"olora\"", "olora", LORI_UNSUPPORTED},
        {"\"init_lora_weights\":\"loftq\"", "loftq", LORI_UNSUPPORTED},
        {"\"init_lora_weights\":\"lora_ga\"", "lora_ga", LORI_UNSUPPORTED},
        {"\"modules_to_save\":[\"score\"]", "score", LORI_UNSUPPORTED},
        {"\"modules_to_save\":[\"lm_head\"]", "lm_head", LORI_NOT_FOUND},
        {"\"future_option\":true", "future_option", LORI_UNSUPPORTED},
        {"\"future_option\":{\"a\":1}", "future_option", LORI_UNSUPPORTED},
        {"\"rank_pattern\":{\"q_proj\":0}", "rank_pattern", LORI_FORMAT},
        {"\"rank_pattern\":{\"q_proj\":2.5}", "rank_pattern", LORI_FORMAT},
        {"\"rank_pattern\":{\"(\":2}", "pattern '('", LORI_FORMAT},
        {"\"rank_pattern\":{\"(*MARK:x)\":2}", "usable pattern",
         LORI_UNSUPPORTED},
        {"\"alpha_pattern\":{\"q_proj\":\"2\"}", "alpha_pattern", LORI_FORMAT},
        {"\"alpha_pattern\":[1]", "alpha_pattern", LORI_FORMAT},
        {"\"r\":0", "'r'", LORI_FORMAT},
        {"\"r\":\"8\"", "'r'", LORI_FORMAT},
        {"\"lora_alpha\":true", "lora_alpha", LORI_FORMAT},
        {"\"layers_pattern\":\"layers\"", "layers_pattern", LORI_FORMAT},
        {"\"layers_to_transform\":\"3\"", "layers_to_transform", LORI_FORMAT},
        {"\"exclude_modules\":5", "exclude_modules", LORI_FORMAT},
        {"\"r\":9", "rank 8", LORI_MISMATCH},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        base_str s = {0};
        base_str_printf(
            &s,
            "{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"]"
            ",%s}",
            rows[i].keys);
        double scale = 0;
        fails(try_config(s.s, 8, &scale, err), rows[i].status, rows[i].name);
        base_str_free(&s);
    }
    double scale = 0;
    fails(try_config("{}", 8, &scale, err), LORI_NOT_FOUND, "peft_type");
    fails(try_config("{\"peft_type\":\"ADALORA\"}", 8, &scale, err),
          LORI_UNSUPPORTED, "ADALORA");
    fails(try_config("[]", 8, &scale, err), LORI_FORMAT, "not a JSON object");
    fails(try_config("{\"peft_type\":", 8, &scale, err), LORI_FORMAT,
          "adapter_config.json");
}

/* ---- bad tensors ---------------------------------------------------- */

#define Q "base_model.model.model.layers.0.q_proj"
static const char good_config[] =
    "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":5,"
    "\"target_modules\":[\"q_proj\"]}";

static lori_status try_tensors(const format_desc *t, size_t n, lori_error *err)
{
    char *dir = temp_begin();
    make_folder(dir, good_config, t, n);
    adapter *ad = NULL;
    lori_status st = adapter_read(dir, &ad, err);
    cr_assert_eq(ad == NULL, st != LORI_OK);
    adapter_free(ad);
    temp_end(dir);
    return st;
}

static const format_desc good_A = {
    Q ".lora_A.weight", BASE_F32, 2, {2, 4}, ones};
static const format_desc good_B = {
    Q ".lora_B.weight", BASE_F32, 2, {3, 2}, ones};

Test(foreign, tensors_that_do_not_belong)
{
    const struct {
        format_desc extra;
        lori_status status;
        const char *part;
    } rows[] = {
        {{Q ".lora_magnitude_vector", BASE_F32, 1, {3}, ones},
         LORI_UNSUPPORTED,
         "DoRA"},
        {{Q ".lora_B.bias", BASE_F32, 1, {3}, ones}, LORI_UNSUPPORTED, "bias"},
        {{Q ".base_layer.bias", BASE_F32, 1, {3}, ones},
         LORI_UNSUPPORTED,
         "base_layer.bias"},
        {{"base_model.model.model.embed_tokens.lora_embedding_A",
          BASE_F32,
          2,
          {2, 3},
          ones},
         LORI_UNSUPPORTED,
         "lora_embedding_A"},
        {{"base_model.model.model.norm.weight", BASE_F32, 1, {3}, ones},
         LORI_UNSUPPORTED,
         "model.norm.weight"},
        {{"base_model.model.model.layers.1.q_proj.lora_A.weight",
          BASE_F32,
          2,
          {2, 4},
          ones},
         LORI_NOT_FOUND,
         "has no lora_B"},
        {{"base_model.model.model.layers.1.q_proj.lora_B.weight",
          BASE_F32,
          2,
          {3, 2},
          ones},
         LORI_NOT_FOUND,
         "has no lora_A"},
        {{Q ".lora_A.default.weight", BASE_F32, 2, {2, 4}, ones},
         LORI_UNSUPPORTED,
         "more than one adapter"},
        {{"model.layers.0.q_proj.lora_A.weight", BASE_F32, 2, {2, 4}, ones},
         LORI_FORMAT,
         "mean the same weight"},
        {{"base_model.model.model.embed_tokens.weight", BASE_F32, 1, {4}, ones},
         LORI_FORMAT,
         "not a matrix"},
        {{"base_model.model.lm_head.weight", BASE_I32, 2, {4, 1}, ones},
         LORI_UNSUPPORTED,
         "I32"},
    };
    ok(try_tensors((format_desc[]){good_A, good_B}, 2, err));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fails(
            try_tensors((format_desc[]){good_A, good_B, rows[i].extra}, 3, err),
            rows[i].status, rows[i].part);
}

Test(foreign, bad_shapes_and_numbers)
{
    format_desc bad = good_B;
    bad.shape[1] = 3;
    bad.shape[0] = 2;
    fails(try_tensors((format_desc[]){good_A, bad}, 2, err), LORI_FORMAT,
          "must be the rank");
    bad = good_A;
    bad.n_dims = 3;
    bad.shape[2] = 1;
    fails(try_tensors((format_desc[]){bad, good_B}, 2, err), LORI_FORMAT,
          "not a matrix");
    bad = good_A;
    bad.dtype = BASE_U8;
    fails(try_tensors((format_desc[]){bad, good_B}, 2, err), LORI_UNSUPPORTED,
          "U8");
    bad.dtype = BASE_F32;
    bad.shape[1] = 0;
    fails(try_tensors((format_desc[]){bad, good_B}, 2, err), LORI_FORMAT,
          "not a matrix");
    fails(try_tensors(&(format_desc){Q ".lora_B.mask", BASE_F32, 1, {4}, ones},
                      1, err),
          LORI_FORMAT, "no lora_A");
    fails(try_tensors(&good_A, 0, err), LORI_FORMAT, "no tensors");
    float nan[8] = {1, 2, 3, (float)NAN}, inf[6] = {0, -(float)INFINITY};
    bad = good_A;
    bad.data = nan;
    fails(try_tensors((format_desc[]){bad, good_B}, 2, err), LORI_NUMERIC,
          "lora_A.weight': element 3 is NaN");
    bad = good_B;
    bad.data = inf;
    fails(try_tensors((format_desc[]){good_A, bad}, 2, err), LORI_NUMERIC,
          "lora_B.weight': element 1 is infinite");
}

/* Every cut of the weights file is an error, and so is a missing file. */
Test(foreign, truncation_and_missing_files)
{
    char *dir = temp_begin();
    const format_desc t[] = {{Q ".lora_A.weight", BASE_F32, 2, {2, 4}, ones},
                             {Q ".lora_B.weight", BASE_F32, 2, {3, 2}, ones}};
    make_folder(dir, good_config, t, 2);
    char *path = base_path_join(dir, "adapter_model.safetensors");
    size_t n = 0;
    char *bytes = slurp(dir, "adapter_model.safetensors", &n);
    adapter *ad = NULL;
    for (size_t cut = 0; cut < n; cut += 3) {
        FILE *f = fopen(path, "wb"); /* no flush to disk: it is a sweep */
        cr_assert_eq(fwrite(bytes, 1, cut, f), cut);
        fclose(f);
        cr_assert_neq(adapter_read(dir, &ad, NULL), LORI_OK, "cut %zu", cut);
        cr_assert_null(ad);
    }
    cr_assert_eq(unlink(path), 0);
    fails(adapter_read(dir, &ad, err), LORI_NOT_FOUND,
          "adapter_model.safetensors");
    spit(dir, "adapter_model.bin", "x");
    fails(adapter_read(dir, &ad, err), LORI_UNSUPPORTED, "adapter_model.bin");
    char *config = base_path_join(dir, "adapter_config.json");
    cr_assert_eq(unlink(config), 0);
    fails(adapter_read(dir, &ad, err), LORI_NOT_FOUND, "adapter_config.json");
    spit(dir, "keep.json", "{}");
    fails(adapter_read(dir, &ad, err), LORI_INVALID, "mask folder");
    fails(adapter_read("/nonexistent-folder", &ad, err), LORI_NOT_FOUND,
          "no such folder");
    free(config);
    free(bytes);
    free(path);
    temp_end(dir);
}

Test(foreign, bad_side_file)
{
    static const struct {
        const char *text;
        lori_status status;
        const char *part;
    } rows[] = {
        {"[]", LORI_FORMAT, "object"},
        {"{\"format\":\"x\",\"version\":1}", LORI_FORMAT, "lori-adapter"},
        {"{\"format\":\"lori-adapter\",\"version\":2}", LORI_UNSUPPORTED,
         "newer"},
        {"{\"format\":\"lori-adapter\",\"version\":1,\"a_seed\":\"-1\"}",
         LORI_FORMAT, "a_seed"},
        {"{\"format\":\"lori-adapter\",\"version\":1,\"a_seed\":\"\"}",
         LORI_FORMAT, "a_seed"},
        {"{\"format\":\"lori-adapter\",\"version\":1,\"a_seed\":7}",
         LORI_FORMAT, "a_seed"},
        {"{\"format\":\"lori-adapter\",\"version\":1,"
         "\"a_seed\":\"18446744073709551616\"}",
         LORI_FORMAT, "a_seed"},
        {"{\"format\":\"lori-adapter\",\"version\":1,\"a_seed\":\"7\"}",
         LORI_NOT_FOUND, "a_version"},
        {"{\"format\":\"lori-adapter\",\"version\":1,\"a_seed\":\"7\","
         "\"a_version\":2}",
         LORI_UNSUPPORTED, "version 2"},
    };
    char *dir = temp_begin();
    const format_desc t[] = {{Q ".lora_A.weight", BASE_F32, 2, {2, 4}, ones},
                             {Q ".lora_B.weight", BASE_F32, 2, {3, 2}, ones}};
    make_folder(dir, good_config, t, 2);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        adapter *ad = NULL;
        spit(dir, "lori.json", rows[i].text);
        fails(adapter_read(dir, &ad, err), rows[i].status, rows[i].part);
        cr_assert_null(ad);
    }
    temp_end(dir);
}
