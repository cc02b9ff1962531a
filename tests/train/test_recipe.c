/* test_recipe.c - recipes: values, spellings, errors word for word. */
#include "train/train_i.h"
#include "train_test.h"

TestSuite(recipe, .init = temp_begin, .fini = temp_end);

#define NEED                                                                   \
    "model_name_or_path: base\ntrain_file: rows.jsonl\noutput_dir: out\n"

static lori_status load(const char *yaml, train_recipe *r, lori_error *err)
{
    put("r.yaml", yaml);
    return train_recipe_load("r.yaml", NULL, 0, r, err);
}

#define rejects(yaml, text)                                                    \
    do {                                                                       \
        train_recipe r_;                                                       \
        says(load(NEED yaml, &r_, err), LORI_INVALID, text);                   \
        cr_assert_null(r_.output_dir); /* nothing half-built */                \
    } while (0)

Test(recipe, defaults)
{
    train_recipe r;
    ok(load(NEED, &r, err));
    cr_assert_str_eq(r.model_name_or_path, "base");
    cr_assert_eq(r.dtype, BASE_BF16);
    cr_assert_eq(r.max_seq_length, 2048);
    cr_assert(r.shuffle && r.completion_only_loss && !r.use_rslora);
    cr_assert_eq(r.method, TRAIN_LORI);
    cr_assert_eq(r.phase, TRAIN_DENSE);
    cr_assert_eq(r.lora_rank, 32);
    cr_assert_eq(r.lora_alpha, 64.0);
    cr_assert_null(r.lora_target_modules);
    cr_assert_not(r.has_a_seed);
    cr_assert_eq(r.learning_rate, 2e-4);
    cr_assert_eq(r.lr_scheduler_type, TRAIN_CONSTANT);
    cr_assert_eq(r.adam_beta1, 0.9);
    cr_assert_eq(r.adam_beta2, 0.999);
    cr_assert_eq(r.adam_epsilon, 1e-8);
    cr_assert_eq(r.weight_decay, 0.0);
    cr_assert_eq(r.max_grad_norm, 1.0);
    cr_assert_eq(r.clip_scope, TRAIN_CLIP_GLOBAL);
    cr_assert_eq(r.loss_reduction, TRAIN_TOKEN_MEAN);
    cr_assert_eq(r.per_device_train_batch_size, 8);
    cr_assert_eq(r.gradient_accumulation_steps, 1);
    cr_assert_eq(r.num_train_epochs, 3.0);
    cr_assert_eq(r.max_steps, -1);
    cr_assert_eq(r.seed, 42);
    cr_assert_eq(r.logging_steps, 10);
    train_recipe_free(&r);
    cr_assert_null(r.output_dir);
}

Test(recipe, groups_aliases_lists_and_kinds)
{
    train_recipe r;
    ok(load("model: {model_name_or_path: base, torch_dtype: float32}\n"
            "data:\n"
            "  train_file: rows.jsonl\n"
            "  columns: {prompt: question, completion: answer}\n"
            "  prompt_template: \"Q: {question}\\nA:\"\n"
            "  cutoff_len: 512\n"
            "  shuffle: no\n"
            "adapter:\n"
            "  method: lora\n"
            "  r: 8\n"
            "  lora_target: [q_proj, 'v_proj']\n"
            "  lori_a_seed: 18446744073709551615\n"
            "train: {batch_size: 4, iters: 7, epochs: 0.5}\n"
            "optim: {lr: 1e-3, lr_scheduler_type: constant_with_warmup}\n"
            "eval:\n"
            "save: {adapter_path: out, eval_every: 5}\n",
            &r, err));
    cr_assert_eq(r.dtype, BASE_F32);
    cr_assert_str_eq(r.columns.prompt, "question");
    cr_assert_str_eq(r.columns.completion, "answer");
    cr_assert_str_eq(r.prompt_template, "Q: {question}\nA:");
    cr_assert_eq(r.max_seq_length, 512);
    cr_assert_not(r.shuffle);
    cr_assert_eq(r.method, TRAIN_LORA);
    cr_assert_eq(r.lora_rank, 8);
    cr_assert_eq(r.lora_alpha, 16.0);
    cr_assert_eq(r.n_targets, 2);
    cr_assert_str_eq(r.lora_target_modules[1], "v_proj");
    cr_assert(r.has_a_seed);
    cr_assert_eq(r.lori_a_seed, UINT64_MAX);
    cr_assert_eq(r.per_device_train_batch_size, 4);
    cr_assert_eq(r.max_steps, 7);
    cr_assert_eq(r.num_train_epochs, 0.5);
    cr_assert_eq(r.learning_rate, 1e-3);
    cr_assert_eq(r.lr_scheduler_type, TRAIN_CONSTANT);
    cr_assert_eq(r.eval_steps, 5);
    train_recipe_free(&r);
}

Test(recipe, overrides)
{
    static const char *const over[] = {
        "optim.learning-rate=3e-4",
        "seed=7",
        "seed=8",
        "lora_target_modules=[q_proj, down_proj]",
        "output_dir=a=b",
        "columns=prompt=q,completion=a",
        "validation_file=null",
        "--num-train-epochs=1"};
    train_recipe r;
    put("r.yaml", NEED "lr: 1e-3\nvalidation_file: v.jsonl\n");
    ok(train_recipe_load("r.yaml", over, 8, &r, err));
    cr_assert_eq(r.learning_rate, 3e-4);
    cr_assert_eq(r.seed, 8);
    cr_assert_eq(r.n_targets, 2);
    cr_assert_str_eq(r.lora_target_modules[0], "q_proj");
    cr_assert_str_eq(r.lora_target_modules[1], "down_proj");
    cr_assert_str_eq(r.output_dir, "a=b");
    cr_assert_str_eq(r.columns.prompt, "q");
    cr_assert_null(r.validation_file);
    cr_assert_eq(r.num_train_epochs, 1.0);
    train_recipe_free(&r);
    says(train_recipe_load(
             NULL, (const char *[]){"lr=1", "nonsense", "learning_rate=2"}, 3,
             &r, err),
         LORI_INVALID,
         "command line: 'nonsense' is not like learning_rate=2e-4\n"
         "command line: learning_rate is 2.0, but command line: lr is 1.0: "
         "give one of them\n"
         "command line: model_name_or_path is missing\n"
         "command line: train_file is missing\n"
         "command line: output_dir is missing");
}

Test(recipe, resolved_text_reads_back)
{
    train_recipe r, again;
    ok(load(NEED "lori_mask_path: 'masks/a b'\nlora_alpha: 0.1\n"
                 "lora_target_modules: q_proj, up_proj\n"
                 "prompt_template: \"\\\"{q}\\\\ \\t\xc3\xa9: #\\n\\x01\"\n"
                 "columns: {completion: a}\nseed: 18446744073709551615\n"
                 "adam_epsilon: 1e-12\nlori_a_seed: 3\nmax_steps: 12\n"
                 "memory_budget: 1.5 GiB\n",
            &r, err));
    cr_assert_eq(r.phase, TRAIN_SPARSE);
    base_str one = {0}, two = {0};
    train_recipe_text(&r, &one);
    cr_assert_not(one.failed);
    ok(load(one.s, &again, err));
    train_recipe_text(&again, &two);
    cr_assert_str_eq(one.s, two.s);
    cr_assert_str_eq(again.prompt_template, r.prompt_template);
    cr_assert_str_eq(again.prompt_template, "\"{q}\\ \t\xc3\xa9: #\n\x01");
    cr_assert_str_eq(again.lori_mask_path, "masks/a b");
    cr_assert_eq(again.lora_alpha, 0.1);
    cr_assert_eq(again.seed, UINT64_MAX);
    cr_assert_eq(again.memory_budget, 3LL << 29);
    cr_assert_eq(again.phase, TRAIN_SPARSE);
    base_str_free(&one);
    base_str_free(&two);
    train_recipe_free(&r);
    train_recipe_free(&again);
}

/* Every key has a line of help and reads its own default. */
Test(recipe, table_is_sound)
{
    base_str help = {0}, why = {0};
    train_recipe_help(&help);
    for (int64_t i = 0; i < recipe_n_keys; i++) {
        const recipe_key *k = &recipe_keys[i];
        cr_assert_not_null(strstr(help.s, k->name));
        cr_assert(recipe_is_group(k->group) && k->help);
        cr_assert_eq(recipe_find(k->name), i, "%s is named twice", k->name);
        cr_assert_null(recipe_advice(k->name));
        train_recipe r = {0};
        if (k->preset)
            cr_assert(recipe_read(k, k->preset, &r, &why), "%s", k->name);
        train_recipe_free(&r);
    }
    base_str_free(&help);
    base_str_free(&why);
}

Test(recipe, unknown_keys)
{
    rejects("learning_rte: 1\n",
            "r.yaml:4:1: unknown key 'learning_rte'; did you mean "
            "'learning_rate'?");
    rejects("optim:\n  weigth_decay: 0\n",
            "r.yaml:5:3: unknown key 'weigth_decay'; did you mean "
            "'weight_decay'?");
    rejects("zebra: 1\n",
            "r.yaml:4:1: unknown key 'zebra', and none is similar");
    rejects("lora_dropout: 0.05\n",
            "r.yaml:4:1: key 'lora_dropout' is not used by lori: there is no "
            "dropout; remove it");
    rejects("columns: {prompts: q}\n",
            "r.yaml:4:11: unknown key 'columns.prompts'; did you mean "
            "'columns.prompt'?");
    rejects("data: x\n",
            "r.yaml:4:1: 'data' is a group: it holds keys, not a value");
    rejects("optimm: {lr: 1}\n",
            "r.yaml:4:1: unknown key 'optimm', and none is similar");
}

Test(recipe, wrong_values)
{
    rejects("lr: fast\n", "r.yaml:4:5: lr: 'fast' is not a number");
    rejects("lr: 0,1\n", "r.yaml:4:5: lr: '0,1' is not a number");
    rejects("lr: nan\n", "r.yaml:4:5: lr: 'nan' is not a number");
    rejects("adam_beta1: 1.0\n",
            "r.yaml:4:13: adam_beta1: 1.0 is not possible: from 0 to 1");
    rejects("warmup_ratio: -0.1\n",
            "r.yaml:4:15: warmup_ratio: -0.1 is not possible: from 0 to 1");
    rejects("lora_rank: 0\n",
            "r.yaml:4:12: lora_rank: 0 is not possible: from 1 to 65536");
    rejects("lora_rank: 1.5\n",
            "r.yaml:4:12: lora_rank: '1.5' is not a whole number");
    rejects("memory_budget: 6 apples\n",
            "r.yaml:4:16: memory_budget: '6 apples' is not a size: a number "
            "with KB, MB, GB, KiB, MiB, GiB or alone");
    rejects("memory_budget: 0GB\n",
            "r.yaml:4:16: memory_budget: '0GB' is not a size: a number with "
            "KB, MB, GB, KiB, MiB, GiB or alone");
    rejects("shuffle: maybe\n",
            "r.yaml:4:10: shuffle: 'maybe' is not true or false");
    rejects("seed: -1\n", "r.yaml:4:7: seed: '-1' is not a seed: a whole "
                          "number from 0 to 2^64-1");
    rejects("dtype: bf17\n", "r.yaml:4:8: dtype: 'bf17' is not one of bf16, "
                             "f32; did you mean 'bf16'?");
    rejects("method: full\n",
            "r.yaml:4:9: method: 'full' is not one of lori, lora");
    rejects("lr_scheduler_type: liner\n",
            "r.yaml:4:20: lr_scheduler_type: 'liner' is not one of constant, "
            "linear; did you mean 'linear'?");
    rejects("lora_target_modules: [q_proj, v_porj]\n",
            "r.yaml:4:22: lora_target_modules: unknown module 'v_porj'; did "
            "you mean 'v_proj'?");
    rejects("lora_target_modules: [q_proj, '']\n",
            "r.yaml:4:22: lora_target_modules: 'q_proj,' has an empty name");
    rejects("lora_target_modules: {a: b}\n",
            "r.yaml:4:22: lora_target_modules: expected a list of names, not "
            "a map");
    rejects("lr: [1, 2]\n", "r.yaml:4:5: lr: expected one value, not a list");
    rejects("validation_file: ''\n",
            "r.yaml:4:18: validation_file: the value is empty");
    rejects("max_steps: 0\n",
            "r.yaml:4:12: max_steps: 0 would train nothing; -1 takes them "
            "from num_train_epochs");
}

Test(recipe, contradictions)
{
    rejects("lr: 1e-3\nlearning_rate: 2e-3\n",
            "r.yaml:5:16: learning_rate is 0.002, but r.yaml:4:5: lr is "
            "0.001: give one of them");
    rejects("lori_phase: sparse\n",
            "r.yaml:4:13: lori_phase: sparse needs lori_mask_path, a mask "
            "made by 'lori mask' from a LoRI-D adapter");
    rejects("lori_phase: dense\nlori_mask_path: m\n",
            "r.yaml:4:13: lori_phase: dense has no use for lori_mask_path; "
            "remove one of them");
    rejects("method: lora\nlori_mask_path: m\n",
            "r.yaml:5:17: lori_mask_path: a mask needs method: lori");
    rejects("warmup_steps: 5\nwarmup_ratio: 0.1\n",
            "r.yaml:5:15: warmup_ratio: give warmup_steps or warmup_ratio, "
            "not both");
    rejects("adapter_name_or_path: a\nlori_a_seed: 1\n",
            "r.yaml:5:14: lori_a_seed: adapter_name_or_path brings its own A; "
            "remove one of them");
    rejects("columns: {prompt: q}\n",
            "r.yaml: columns: completion is missing beside prompt");
    rejects("prompt_template: 'Q: {question'\n",
            "r.yaml:4:18: prompt_template: a '{' has no '}'; write {{ for a "
            "brace");
    /* The same value in two spellings is no contradiction. */
    train_recipe r;
    ok(load(NEED "lr: 1e-3\noptim: {learning_rate: 0.001}\n", &r, err));
    train_recipe_free(&r);
}

Test(recipe, all_errors_at_once)
{
    train_recipe r;
    says(load("model_name_or_path: base\nlora_rnk: 4\nlr: x\n", &r, err),
         LORI_INVALID,
         "r.yaml:2:1: unknown key 'lora_rnk'; did you mean 'lora_rank'?\n"
         "r.yaml:3:5: lr: 'x' is not a number\n"
         "r.yaml: train_file is missing\n"
         "r.yaml: output_dir is missing");
    /* More than a message holds: whole lines, and how many are left out. */
    base_str many = {0};
    for (int i = 0; i < 100; i++)
        base_str_printf(&many, "unknown_key_number_%03d: 1\n", i);
    lori_error err = {0};
    cr_assert_eq(load(many.s, &r, &err), LORI_INVALID);
    const char *last = strrchr(err.message, '\n') + 1;
    int left = 0, lines = 1;
    cr_assert_eq(sscanf(last, "... and %d more", &left), 1, "%s", last);
    for (const char *p = err.message; *p; p++)
        lines += *p == '\n';
    cr_assert_eq(lines - 1 + left, 103);
    base_str_free(&many);
}

Test(recipe, bad_files)
{
    train_recipe r;
    fails(train_recipe_load("none.yaml", NULL, 0, &r, err), LORI_NOT_FOUND,
          "none.yaml");
    fails(load("a: [", &r, err), LORI_FORMAT, "r.yaml:");
    fails(load("- lr\n", &r, err), LORI_INVALID,
          "r.yaml:1:1: a recipe is a map of keys, like learning_rate: 2e-4");
}
