/* test_run.c - whole runs on a tiny model: what is trained and what stays,
 * accumulation, resuming, threads, interruption, broken numbers, the folder
 * that is left behind. */
#include "train/train_i.h"
#include "train_test.h"

static void begin(void)
{
    temp_begin();
    make_model("base");
    make_rows("rows.jsonl", 22, 11);
    make_rows("valid.jsonl", 7, 12);
}
TestSuite(run, .init = begin, .fini = temp_end);

static adapter *read_adapter(const char *folder)
{
    adapter *ad = NULL;
    ok(adapter_read(folder, &ad, err));
    return ad;
}

/* Largest |x - y| over all B (or A), and whether any bit differs. */
static double distance(const adapter *x, const adapter *y, bool a)
{
    double most = 0;
    cr_assert_eq(x->n_sites, y->n_sites);
    for (int64_t i = 0; i < x->n_sites; i++) {
        const adapter_site *s = &x->sites[i], *t = &y->sites[i];
        int64_t n = s->rank * (a ? s->in : s->out);
        for (int64_t k = 0; k < n; k++)
            most = fmax(most, fabs((double)(a ? s->A[k] : s->B[k]) -
                                   (double)(a ? t->A[k] : t->B[k])));
    }
    return most;
}

/* A mask of the adapter in `folder`, written to "mask". */
static void make_mask(const char *folder, double sparsity)
{
    adapter *ad = read_adapter(folder);
    adapter_keep *keep = NULL;
    ok(adapter_keep_topk(ad, sparsity, &keep, err));
    ok(adapter_keep_write(keep, "mask", true, err));
    adapter_keep_free(keep);
    adapter_free(ad);
}

Test(run, lori_dense_trains_b_and_leaves_a)
{
    train_result result;
    ok(train("output_dir=runs/task-x max_steps=6 validation_file=valid.jsonl "
             "eval_steps=3 shuffle=false",
             NULL, &result, err));
    adapter *ad = read_adapter("runs/task-x");
    adapter *fresh = read_adapter("runs/task-x");
    cr_assert_str_eq(ad->method, "lori-d");
    cr_assert_str_eq(ad->base_model, "base");
    cr_assert_eq(ad->n_sites, LAYERS * 7);
    cr_assert_eq(ad->sites[0].scale, 3.0); /* alpha 12, rank 4 */
    /* A is version 1 of the folder's name, bit for bit. */
    cr_assert(ad->origin.has_seed);
    cr_assert_eq(ad->origin.seed, adapter_seed_from_name("task-x"));
    adapter_init_a(fresh, adapter_seed_from_name("task-x"));
    cr_assert_eq(distance(ad, fresh, true), 0.0);
    for (int64_t i = 0; i < ad->n_sites; i++) {
        double sum = 0;
        for (int64_t k = 0; k < ad->sites[i].out * 4; k++)
            sum += fabs((double)ad->sites[i].B[k]);
        cr_assert_gt(sum, 0, "%s is not trained", ad->sites[i].path);
    }
    cr_assert_eq(result.steps, 6);
    cr_assert_eq(result.trainable, adapter_count_b(ad));
    cr_assert_eq(result.kept, adapter_count_b(ad));
    cr_assert_eq(result.epochs_x1000, 1000);
    cr_assert(result.has_eval && !result.interrupted);
    double v[16];
    cr_assert_eq(metric("runs/task-x/metrics.jsonl", "loss", v, 16), 3);
    cr_assert_eq(v[2], result.train_loss);
    cr_assert_eq(metric("runs/task-x/metrics.jsonl", "eval_loss", v, 16), 2);
    cr_assert_eq(v[1], result.eval_loss);
    cr_assert_eq(metric("runs/task-x/metrics.jsonl", "eval_tokens", v, 16), 2);
    static const char *const keys[] = {"step",           "epoch",
                                       "grad_norm",      "learning_rate",
                                       "tokens",         "useful_tokens_per_s",
                                       "rss_peak_bytes", "elapsed_s"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cr_assert_geq(metric("runs/task-x/metrics.jsonl", keys[i], v, 16), 3,
                      "%s", keys[i]);
    cr_assert_not(base_is_dir("runs/task-x/checkpoint"));
    cr_assert_not(base_is_dir("runs/task-x/adapter.part"));
    /* The recipe beside the adapter is the run's. */
    train_recipe r;
    ok(train_recipe_load("runs/task-x/recipe.yaml", NULL, 0, &r, err));
    cr_assert_eq(r.max_steps, 6);
    train_recipe_free(&r);
    adapter_free(ad);
    adapter_free(fresh);
}

/* The evaluation inside a run and on its own are the same number. */
Test(run, evaluation_agrees)
{
    train_result result;
    ok(train("output_dir=out max_steps=2 validation_file=valid.jsonl", NULL,
             &result, err));
    adapter *ad = read_adapter("out");
    backend *be = NULL;
    model *m = NULL;
    model_adapter *ma = NULL;
    train_data *data = NULL;
    ok(backend_open(&(backend_options){.name = getenv("LORI_BACKEND"),
                                       .dtype = BASE_F32,
                                       .isa = getenv("LORI_ISA")},
                    &be, err));
    ok(model_open("base", be, &m, err));
    ok(model_adapter_new(m, ad, &ma, err));
    ok(train_data_load("valid.jsonl", NULL,
                       &(train_data_options){.max_seq_length = 64,
                                             .completion_only_loss = true},
                       VOCAB, NULL, &data, err));
    double one, all, base;
    ok(train_evaluate(m, ma, data, 1, NULL, &one, err));
    ok(train_evaluate(m, ma, data, 100, NULL, &all, err));
    ok(train_evaluate(m, NULL, data, 3, NULL, &base, err));
    /* Packed or alone: sums of other blocks, f32. */
    cr_assert_float_eq(one, all, 1e-6 * all);
    cr_assert_float_eq(result.eval_loss, all, 1e-6 * all);
    cr_assert_gt(fabs(base - all), 1e-4);
    train_data_free(data);
    model_adapter_free(ma);
    model_close(m);
    backend_close(be);
    adapter_free(ad);
}

Test(run, memorises)
{
    train_result result;
    make_rows("rows.jsonl", 4, 3);
    ok(train("output_dir=out max_steps=80 learning_rate=2e-2 lora_rank=16 "
             "logging_steps=1",
             NULL, &result, err));
    double loss[80];
    cr_assert_eq(metric("out/metrics.jsonl", "loss", loss, 80), 80);
    cr_assert_gt(loss[0], 4.0);
    cr_assert_lt(result.train_loss, 0.1 * loss[0]);
    ok(train("output_dir=out2 method=lora max_steps=80 learning_rate=1e-2 "
             "lora_rank=16 logging_steps=1",
             NULL, &result, err));
    cr_assert_lt(result.train_loss, 0.1 * loss[0]);
    adapter *ad = read_adapter("out2"), *seeded = read_adapter("out2");
    cr_assert_str_eq(ad->method, "lora");
    cr_assert_not(ad->origin.has_seed);
    cr_assert_eq(result.trainable, adapter_count_a(ad) + adapter_count_b(ad));
    adapter_init_a(seeded, adapter_seed_from_name("out2"));
    cr_assert_gt(distance(ad, seeded, true), 1e-3); /* A moved */
    adapter_free(ad);
    adapter_free(seeded);
}

/* 4 rows at once and 4 times 1 row, weighed by the step's targets: the same
 * gradient up to the order of sums. In f64 (ref), so that Adam's division by
 * small numbers does not magnify rounding: B is stored in f32, 1e-6. */
Test(run, accumulation_is_a_larger_batch)
{
    static const machine ref64 = {"ref", BASE_F64, 1};
    for (int k = 0; k < 2; k++) {
        const char *how = k ? "loss_reduction=example_sum " : "";
        char keys[256];
        train_result result;
        snprintf(keys, sizeof keys,
                 "%soutput_dir=one%d max_steps=8 lori_a_seed=1", how, k);
        ok(train_on(&ref64, keys, NULL, &result, err));
        snprintf(keys, sizeof keys,
                 "%soutput_dir=four%d max_steps=8 lori_a_seed=1 "
                 "per_device_train_batch_size=1 gradient_accumulation_steps=4",
                 how, k);
        ok(train_on(&ref64, keys, NULL, &result, err));
    }
    double x[16], y[16];
    for (int k = 0; k < 2; k++) {
        adapter *one = read_adapter(k ? "one1" : "one0");
        adapter *four = read_adapter(k ? "four1" : "four0");
        cr_assert_lt(distance(one, four, false), 1e-6);
        adapter_free(one);
        adapter_free(four);
        int n = metric(k ? "one1/metrics.jsonl" : "one0/metrics.jsonl", "loss",
                       x, 16);
        cr_assert_eq(n,
                     metric(k ? "four1/metrics.jsonl" : "four0/metrics.jsonl",
                            "loss", y, 16));
        /* Weights of a pass are f32. */
        for (int i = 0; i < n; i++)
            cr_assert_float_eq(x[i], y[i], 1e-6 * x[i]);
    }
    /* A sum over a row's 10 or so targets instead of a mean. */
    metric("one0/metrics.jsonl", "loss", y, 16);
    cr_assert_gt(x[0], 5 * y[0]);
}

Test(run, sparse_leaves_entries_that_are_not_kept)
{
    train_result result;
    ok(train("output_dir=d max_steps=4 lori_a_seed=77", NULL, &result, err));
    make_mask("d", 0.9);
    ok(train("output_dir=s max_steps=4 lori_mask_path=mask weight_decay=0.1",
             NULL, &result, err));
    adapter *d = read_adapter("d"), *s = read_adapter("s");
    adapter_keep *keep = NULL;
    ok(adapter_keep_read("mask", &keep, err));
    cr_assert_str_eq(s->method, "lori-s");
    cr_assert_eq(s->origin.seed, 77); /* the mask's A */
    cr_assert_eq(distance(d, s, true), 0.0);
    cr_assert_eq(result.trainable, keep->kept);
    int64_t moved = 0;
    const float zero = 0;
    for (int64_t i = 0; i < s->n_sites; i++)
        for (int64_t k = 0; k < s->sites[i].out * 4; k++) {
            if (adapter_keep_get(&keep->sites[i], k / 4, k % 4))
                moved += s->sites[i].B[k] != 0;
            else
                cr_assert_arr_eq(&s->sites[i].B[k], &zero, sizeof zero);
        }
    cr_assert_eq(moved, keep->kept);
    /* Continual: the start is another adapter's B; what is not kept stays. */
    ok(train("output_dir=c max_steps=4 lori_mask_path=mask weight_decay=0.1 "
             "adapter_name_or_path=d",
             NULL, &result, err));
    adapter *c = read_adapter("c");
    moved = 0;
    for (int64_t i = 0; i < c->n_sites; i++)
        for (int64_t k = 0; k < c->sites[i].out * 4; k++) {
            bool same = !memcmp(&c->sites[i].B[k], &d->sites[i].B[k], 4);
            if (adapter_keep_get(&keep->sites[i], k / 4, k % 4))
                moved += !same;
            else
                cr_assert(same);
        }
    cr_assert_gt(moved, keep->kept / 2);
    cr_assert_eq(distance(d, c, true), 0.0);
    cr_assert_eq(c->origin.seed, 77);
    adapter_keep_free(keep);
    adapter_free(d);
    adapter_free(s);
    adapter_free(c);
    fails(train("output_dir=e lori_mask_path=mask lora_rank=8", NULL, &result,
                err),
          LORI_MISMATCH, "mask mask is of rank 4, but lora_rank is 8");
    fails(train("output_dir=e lori_mask_path=mask lora_target_modules=q_proj",
                NULL, &result, err),
          LORI_MISMATCH, "mask mask also covers");
    cr_assert_not(base_is_dir("e"));
}

/* Same bits with 1 and 2 threads, in f32 and bf16. */
Test(run, threads)
{
    for (int k = 0; k < 2; k++) {
        machine one = {"cpu", k ? BASE_BF16 : BASE_F32, 1}, two = one;
        train_result result;
        two.threads = 2;
        ok(train_on(&one,
                    "output_dir=t1 max_steps=5 overwrite_output_dir=true "
                    "lori_a_seed=3",
                    NULL, &result, err));
        ok(train_on(&two,
                    "output_dir=t2 max_steps=5 overwrite_output_dir=true "
                    "lori_a_seed=3",
                    NULL, &result, err));
        cr_assert(same_file("t1/adapter_model.safetensors",
                            "t2/adapter_model.safetensors"));
    }
}

/* ---- stopping and going on -------------------------------------------- */

typedef struct stopper {
    int64_t asked, after;
} stopper;

static int stop(void *context)
{
    stopper *s = context;
    return ++s->asked > s->after;
}

static void same_metrics(const char *x, const char *y)
{
    static const char *const keys[] = {"step",      "epoch",         "loss",
                                       "grad_norm", "learning_rate", "tokens",
                                       "eval_loss", "eval_tokens"};
    double a[64], b[64];
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        int n = metric(x, keys[k], a, 64);
        cr_assert_gt(n, 0);
        cr_assert_eq(n, metric(y, keys[k], b, 64), "%s", keys[k]);
        for (int i = 0; i < n; i++)
            cr_assert_eq(a[i], b[i], "%s, line %d", keys[k], i);
    }
}

#define LONG                                                                   \
    "max_steps=11 gradient_accumulation_steps=2 lr_scheduler_type=linear "     \
    "warmup_steps=3 lori_a_seed=9 logging_steps=3 eval_steps=4 "               \
    "per_device_train_batch_size=3 validation_file=valid.jsonl "

/* Stopped anywhere, between or inside steps or in an evaluation, and resumed:
 * the same adapter and the same metrics, bit for bit. */
Test(run, resume_is_the_uninterrupted_run)
{
    train_result result;
    ok(train(LONG "output_dir=whole", NULL, &result, err));
    int stopped = 0;
    for (int64_t after = 1; after < 40; after += 4) {
        stopper s = {.after = after};
        lori_ui ui = {.context = &s, .interrupted = stop};
        lori_error e = {0};
        lori_status st = train(LONG "output_dir=parts "
                                    "overwrite_output_dir=true",
                               &ui, &result, &e);
        if (st == LORI_OK)
            break;
        cr_assert_eq(st, LORI_INTERRUPTED, "%s", e.message);
        if (!result.interrupted)
            continue; /* while reading the data: nothing to go on with */
        stopped++;
        cr_assert_not_null(strstr(e.message, "resume_from_checkpoint"));
        cr_assert_lt(result.steps, 12);
        adapter_free(read_adapter("parts")); /* usable */
        cr_assert(base_is_file("parts/checkpoint/state.json"));
        ok(train(LONG "output_dir=parts resume_from_checkpoint=true", NULL,
                 &result, err));
        cr_assert_eq(result.steps, 11);
        cr_assert(same_file("whole/adapter_model.safetensors",
                            "parts/adapter_model.safetensors"),
                  "stopped after %d calls", (int)after);
        same_metrics("whole/metrics.jsonl", "parts/metrics.jsonl");
        cr_assert_not(base_is_dir("parts/checkpoint"));
    }
    cr_assert_geq(stopped, 5);
}

/* A crash: the last checkpoint is older than the last lines of metrics. */
Test(run, resume_after_a_crash)
{
    train_result result;
    ok(train(LONG "output_dir=whole", NULL, &result, err));
    stopper s = {.after = 21};
    lori_ui ui = {.context = &s, .interrupted = stop};
    lori_error e = {0};
    cr_assert_eq(train(LONG "output_dir=parts save_steps=2", &ui, &result, &e),
                 LORI_INTERRUPTED);
    FILE *f = fopen("parts/metrics.jsonl", "a");
    for (int64_t step = result.steps + 1; step < result.steps + 3; step++)
        fprintf(f, "{\"step\": %lld, \"loss\": 1.0}\n", (long long)step);
    fputs("{\"step\": 9, \"lo", f);
    fclose(f);
    ok(train(LONG "output_dir=parts resume_from_checkpoint=true", NULL, &result,
             err));
    cr_assert(same_file("whole/adapter_model.safetensors",
                        "parts/adapter_model.safetensors"));
    same_metrics("whole/metrics.jsonl", "parts/metrics.jsonl");
}

Test(run, resume_refuses_another_run)
{
    train_result result;
    stopper s = {.after = 8};
    lori_ui ui = {.context = &s, .interrupted = stop};
    lori_error e = {0};
    cr_assert_eq(train(LONG "output_dir=parts", &ui, &result, &e),
                 LORI_INTERRUPTED);
    fails(train(LONG "output_dir=parts", NULL, &result, err), LORI_INVALID,
          "output_dir parts holds an unfinished run");
    fails(train(LONG "output_dir=parts resume_from_checkpoint=true seed=1",
                NULL, &result, err),
          LORI_MISMATCH,
          "the run was started with seed: 42, the recipe now says 1");
    fails(train(LONG "output_dir=parts resume_from_checkpoint=true "
                     "max_steps=20",
                NULL, &result, err),
          LORI_MISMATCH, "planned for 11 steps, now for 20");
    make_rows("rows.jsonl", 22, 99);
    fails(train(LONG "output_dir=parts resume_from_checkpoint=true", NULL,
                &result, err),
          LORI_MISMATCH, "the rows of train_file are not what");
    cr_assert(base_is_file("parts/checkpoint/state.safetensors"));
    fails(train("output_dir=none resume_from_checkpoint=true", NULL, &result,
                err),
          LORI_NOT_FOUND, "holds no checkpoint");
    cr_assert_not(base_is_dir("none"));
}

/* ---- what must not happen ---------------------------------------------- */

Test(run, broken_numbers_leave_no_adapter)
{
    train_result result;
    lori_error e = {0};
    cr_assert_eq(train("output_dir=out max_steps=9 learning_rate=1e30 "
                       "save_steps=1 max_grad_norm=0",
                       NULL, &result, &e),
                 LORI_NUMERIC, "%s", e.message);
    cr_assert_not_null(strstr(e.message, "of 9: "), "%s", e.message);
    cr_assert_not_null(strstr(e.message, "try a lower learning_rate (now "
                                         "1e+30); no adapter was saved"),
                       "%s", e.message);
    cr_assert_not(base_is_file("out/adapter_config.json"));
    cr_assert_not(base_is_file("out/adapter_model.safetensors"));
    cr_assert(base_is_file("out/metrics.jsonl"));
    cr_assert(base_is_file("out/checkpoint/state.json")); /* the last good */
}

Test(run, output_places)
{
    train_result result;
    put("file", "x");
    fails(train("output_dir=file/out", NULL, &result, err), LORI_IO,
          "output_dir 'file/out' cannot be used, choose another: cannot make "
          "the folder 'file'");
    fails(train("output_dir=file", NULL, &result, err), LORI_IO, "output_dir");
    /* Found before anything is read, and nothing stays behind. */
    fails(train("output_dir=a/b/c train_file=none.jsonl", NULL, &result, err),
          LORI_NOT_FOUND, "none.jsonl");
    cr_assert_not(base_is_dir("a"));
    ok(base_mkdirs("a", err));
    fails(train("output_dir=a/b/c train_file=none.jsonl", NULL, &result, err),
          LORI_NOT_FOUND, "none.jsonl");
    cr_assert(base_is_dir("a") && !base_is_dir("a/b"));
    ok(train("output_dir=out max_steps=1", NULL, &result, err));
    size_t n;
    char *before = slurp("out/adapter_model.safetensors", &n);
    fails(train("output_dir=out max_steps=2", NULL, &result, err), LORI_INVALID,
          "output_dir out holds an adapter");
    /* A failed replacement leaves the old adapter whole. */
    fails(train("output_dir=out overwrite_output_dir=true learning_rate=1e30 "
                "max_grad_norm=0",
                NULL, &result, err),
          LORI_NUMERIC, "no adapter was saved");
    char *after = slurp("out/adapter_model.safetensors", NULL);
    cr_assert_arr_eq(before, after, n);
    adapter_free(read_adapter("out"));
    free(after);
    ok(train("output_dir=out max_steps=2 overwrite_output_dir=true", NULL,
             &result, err));
    after = slurp("out/adapter_model.safetensors", NULL);
    cr_assert_arr_neq(before, after, n);
    free(before);
    free(after);
}

Test(run, foreign_adapters_are_refused)
{
    train_result result;
    ok(train("output_dir=out max_steps=1", NULL, &result, err));
    put("wide.txt", "");
    adapter_site_spec spec = {"model.layers.5.mlp.up_proj", D, FFN, 2, 4};
    adapter *ad = NULL;
    ok(adapter_new(&spec, 1, false, &ad, err));
    ok(adapter_write(ad, "other", &(adapter_write_options){0}, err));
    adapter_free(ad);
    fails(train("output_dir=x adapter_name_or_path=other", NULL, &result, err),
          LORI_MISMATCH, "model.layers.5.mlp.up_proj");
    cr_assert_not(base_is_dir("x"));
}

/* Clipping: a tiny max_grad_norm and Adam at its first step give the same
 * update (scale-free), so it shows in the second moment only through eps; with
 * a large eps the update is proportional to the clipped gradient. */
Test(run, clipping)
{
    train_result result;
    adapter *ad[3];
    static const char *const keys[] = {
        "output_dir=c0 max_grad_norm=0", "output_dir=c1 max_grad_norm=1e-3",
        "output_dir=c2 max_grad_norm=1e-3 clip_scope=per_tensor"};
    for (int k = 0; k < 3; k++) {
        char all[256], folder[3] = {'c', (char)('0' + k), 0};
        snprintf(all, sizeof all,
                 "%s max_steps=1 adam_epsilon=1 lori_a_seed=1 logging_steps=1",
                 keys[k]);
        ok(train(all, NULL, &result, err));
        ad[k] = read_adapter(folder);
    }
    double norm, sum[3] = {0}, largest = 0;
    cr_assert_eq(metric("c1/metrics.jsonl", "grad_norm", &norm, 1), 1);
    cr_assert_gt(norm, 1e-2); /* before clipping, and to be clipped */
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < ad[k]->n_sites; i++) {
            double site = 0;
            for (int64_t j = 0; j < ad[k]->sites[i].out * 4; j++)
                site += pow((double)ad[k]->sites[i].B[j] / 1e-2, 2);
            sum[k] += site;
            if (k == 2)
                largest = fmax(largest, fabs(sqrt(site) / 1e-3 - 1));
        }
    /* Update = lr g / (|g| + 1): with |g| <= 1e-3 it is lr g to 1e-3. */
    cr_assert_float_eq(sqrt(sum[1]), 1e-3, 3e-6);
    cr_assert_float_eq(largest, 0, 3e-3); /* every matrix at 1e-3 */
    cr_assert_gt(sqrt(sum[0]), 1e-2 / 2);
    for (int k = 0; k < 3; k++)
        adapter_free(ad[k]);
}
