/* test_plan.c - the planned memory: its parts, what a budget chooses, what is
 * said of one that is too small, and that results do not depend on it. */
#include "train/train_i.h"
#include "train_test.h"

static void begin(void)
{
    temp_begin();
    make_model("base");
    make_rows("rows.jsonl", 22, 11);
}
TestSuite(plan, .init = begin, .fini = temp_end);

#define RUN "max_steps=4 lori_a_seed=5 save_steps=2 "

static train_plan plan_of(const char *keys)
{
    train_recipe r;
    recipe(&r, keys);
    backend_options o = {.name = getenv("LORI_BACKEND"),
                         .dtype = BASE_F32,
                         .n_threads = 1,
                         .isa = getenv("LORI_ISA")};
    backend *be = NULL;
    model *m = NULL;
    train_plan plan;
    ok(backend_open(&o, &be, err));
    ok(model_open(r.model_name_or_path, be, &m, err));
    ok(train_plan_make(&r, m, NULL, NULL, &plan, err));
    model_close(m);
    backend_close(be);
    train_recipe_free(&r);
    return plan;
}

Test(plan, parts)
{
    train_plan p = plan_of("output_dir=no " RUN);
    cr_assert(p.automatic && p.fits);
    cr_assert(!base_is_dir("no"), "a plan wrote");
    cr_assert_eq(p.steps, 4);
    cr_assert_eq(p.rows_per_step, 4);
    cr_assert_eq(p.keep_all, LAYERS);
    cr_assert_eq(p.total, p.mapped + p.converted + p.adapter + p.optimizer +
                              p.data + p.kept + p.live + p.logits + p.scratch);
    base_map map;
    ok(base_map_open("base/model.safetensors", &map, err));
    cr_assert(p.mapped < map.bytes && p.mapped + 16384 > map.bytes);
    base_map_close(&map);
    /* sites: q, o [32, 32], k, v [16, 32], gate, up [48, 32], down [32, 48] */
    int64_t b = LAYERS * 4 * (32 + 16 + 16 + 32 + 48 + 48 + 32);
    int64_t a = LAYERS * 4 * (6 * 32 + 48);
    cr_assert_eq(p.parameters, b);
    cr_assert_eq(p.adapter, (size_t)(a + b) * 8);
    cr_assert_eq(p.optimizer, (size_t)(4 * b + 48 * 4) * 4);
    train_plan lora = plan_of("output_dir=no method=lora " RUN);
    cr_assert_eq(lora.parameters, a + b);
    train_plan small =
        plan_of("output_dir=no gradient_checkpointing=true " RUN);
    cr_assert_eq(small.keep_inputs, LAYERS);
    cr_assert_lt(small.total, p.total);
}

/* A run with this many bytes ends in the same adapter as one without bound,
 * also when it is resumed with another budget. */
Test(plan, budgets_change_no_bits)
{
    train_result result;
    ok(train(RUN "output_dir=free", NULL, &result, err));
    cr_assert_eq(result.plan.keep_all, LAYERS);
    size_t high = result.plan.total;
    ok(train(RUN "output_dir=least gradient_checkpointing=true", NULL, &result,
             err));
    cr_assert_eq(result.plan.keep_inputs, LAYERS);
    cr_assert(same_file("free/adapter_model.safetensors",
                        "least/adapter_model.safetensors"));
    size_t low = result.plan.total;
    bool mixed = false;
    for (int k = 0; k <= 4; k++) {
        char keys[256];
        size_t budget = low + (high - low) * (size_t)k / 4;
        snprintf(keys, sizeof keys, RUN "output_dir=b%d memory_budget=%zu", k,
                 budget);
        ok(train(keys, NULL, &result, err));
        cr_assert_leq(result.plan.total, budget);
        cr_assert(!result.plan.automatic);
        mixed |=
            result.plan.keep_all < LAYERS && result.plan.keep_inputs < LAYERS;
        snprintf(keys, sizeof keys, "b%d/adapter_model.safetensors", k);
        cr_assert(same_file("free/adapter_model.safetensors", keys));
    }
    cr_assert(mixed, "no budget chose between most and least");
}

typedef struct stopper {
    int left;
} stopper;

static int stop_after(void *context)
{
    stopper *s = context;
    return s->left-- <= 0;
}

Test(plan, resuming_with_another_budget)
{
    train_result result;
    ok(train(RUN "output_dir=whole", NULL, &result, err));
    stopper s = {3};
    lori_ui ui = {.context = &s, .interrupted = stop_after};
    fails(train(RUN "output_dir=parts gradient_checkpointing=true", &ui,
                &result, err),
          LORI_INTERRUPTED, "resume_from_checkpoint");
    ok(train(RUN "output_dir=parts resume_from_checkpoint=true "
                 "memory_budget=1GB",
             NULL, &result, err));
    cr_assert_eq(result.plan.budget, 1000000000);
    cr_assert(same_file("whole/adapter_model.safetensors",
                        "parts/adapter_model.safetensors"));
}

/* The remedy that the message names works. */
Test(plan, too_small)
{
    train_result result;
    train_plan least =
        plan_of("output_dir=no gradient_checkpointing=true " RUN);
    char keys[256];
    snprintf(keys, sizeof keys, RUN "output_dir=out memory_budget=%zu",
             least.total - 1);
    fails(train(keys, NULL, &result, err), LORI_NO_MEMORY, "raise it to 5MB");
    cr_assert(!base_is_dir("out"));
    fails(train(keys, NULL, &result, err), LORI_NO_MEMORY,
          "lower per_device_train_batch_size from 4 to 3");
    strcat(keys, " per_device_train_batch_size=3");
    ok(train(keys, NULL, &result, err));
    ok(train(RUN "output_dir=out5 memory_budget=5MB", NULL, &result, err));
    says(train(RUN "output_dir=other memory_budget=1KiB", NULL, &result, err),
         LORI_NO_MEMORY,
         "memory_budget of 1.0 KB: with every layer recomputed this run takes "
         "4.6 MB (4.3 MB without its workspace for 81 tokens a pass); raise it "
         "to 5MB");
}
