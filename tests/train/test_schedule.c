/* test_schedule.c - learning rates against Hugging Face's formulas, steps of
 * an epoch, the order of rows, packing. */
#include "train/train_i.h"
#include "train_test.h"

/* Values of transformers' get_linear_schedule_with_warmup(opt, 3, 10) and
 * get_constant_schedule_with_warmup(opt, 3), lr 0.5: lr of steps 0, 1, ... */
Test(schedule, rates)
{
    static const double linear[] = {0,       0.5 / 3, 1.0 / 3, 0.5,
                                    3.0 / 7, 2.5 / 7, 2.0 / 7, 1.5 / 7,
                                    1.0 / 7, 0.5 / 7};
    train_recipe r = {.learning_rate = 0.5, .warmup_steps = 3};
    cr_assert_eq(schedule_warmup(&r, 10), 3);
    for (int t = 0; t < 10; t++) {
        r.lr_scheduler_type = TRAIN_LINEAR;
        cr_assert_float_eq(schedule_lr(&r, 3, 10, t), linear[t], 1e-15);
        r.lr_scheduler_type = TRAIN_CONSTANT;
        cr_assert_float_eq(schedule_lr(&r, 3, 10, t), t < 3 ? linear[t] : 0.5,
                           1e-15);
        cr_assert_eq(schedule_lr(&r, 0, 10, t), 0.5);
    }
    r = (train_recipe){.warmup_ratio = 0.05};
    cr_assert_eq(schedule_warmup(&r, 101), 6); /* ceil(5.05) */
    cr_assert_eq(schedule_warmup(&r, 100), 5);
}

Test(schedule, totals)
{
    train_recipe r = {.per_device_train_batch_size = 4,
                      .gradient_accumulation_steps = 2,
                      .num_train_epochs = 3,
                      .max_steps = -1};
    cr_assert_eq(schedule_total(&r, 17), 9); /* 3 steps an epoch */
    r.num_train_epochs = 0.5;
    cr_assert_eq(schedule_total(&r, 17), 2);
    cr_assert_eq(schedule_total(&r, 1), 1);
    r.max_steps = 5;
    cr_assert_eq(schedule_total(&r, 17), 5);
}

/* Rows of 2, 3, ... tokens, all predicted. */
static train_data *rows(int64_t n)
{
    train_data *d = calloc(1, sizeof *d);
    d->n_rows = n;
    d->start = calloc((size_t)n + 1, sizeof *d->start);
    for (int64_t i = 0; i < n; i++)
        d->start[i + 1] = d->start[i] + i + 2;
    d->n_tokens = d->start[n];
    d->ids = calloc((size_t)d->n_tokens, sizeof *d->ids);
    d->label = malloc((size_t)d->n_tokens);
    memset(d->label, 1, (size_t)d->n_tokens);
    for (int64_t i = 0; i < n; i++)
        d->label[d->start[i]] = 0;
    for (int64_t i = 0; i < d->n_tokens; i++)
        d->ids[i] = (int32_t)i;
    d->n_targets = d->n_tokens - n;
    return d;
}

Test(schedule, every_row_once_an_epoch)
{
    train_data *d = rows(11);
    train_recipe r = {.per_device_train_batch_size = 2,
                      .gradient_accumulation_steps = 2,
                      .shuffle = true,
                      .seed = 3};
    batch_plan plan;
    ok(batch_plan_init(&plan, d, &r, err));
    cr_assert_eq(plan.steps_per_epoch, 3);
    int64_t n, first[2][11], sizes[] = {4, 4, 3};
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        bool seen[11] = {0};
        for (int64_t k = 0; k < 3; k++) {
            const int64_t *list = batch_rows(&plan, 3 * epoch + k, &n);
            cr_assert_eq(n, sizes[k]);
            for (int64_t i = 0; i < n; i++) {
                cr_assert_not(seen[list[i]]);
                seen[list[i]] = true;
                first[epoch][4 * k + i] = list[i];
            }
        }
    }
    cr_assert_arr_neq(first[0], first[1], sizeof first[0]);
    /* Going back finds the same order again: resume depends on it. */
    cr_assert_arr_eq(batch_rows(&plan, 0, &n), first[0], 4 * sizeof(int64_t));
    batch_plan_fini(&plan);
    r.shuffle = false;
    ok(batch_plan_init(&plan, d, &r, err));
    const int64_t *list = batch_rows(&plan, 4, &n);
    for (int64_t i = 0; i < n; i++)
        cr_assert_eq(list[i], 4 + i);
    batch_plan_fini(&plan);
    train_data_free(d);
}

Test(schedule, limits_are_the_largest_pass)
{
    train_data *d = rows(7);
    train_recipe r = {.per_device_train_batch_size = 2,
                      .gradient_accumulation_steps = 2,
                      .shuffle = true,
                      .seed = 5};
    batch_plan plan;
    model_limits limits = {0};
    ok(batch_plan_init(&plan, d, &r, err));
    ok(batch_train_limits(&plan, 5, &limits, err));
    batch_buffer b;
    ok(batch_buffer_init(&b, &limits, err));
    int64_t largest = 0, n;
    for (int64_t t = 0; t < 5; t++) {
        const int64_t *list = batch_rows(&plan, t, &n);
        for (int64_t i = 0; i < n; i += 2) {
            batch_start(&b);
            for (int64_t k = i; k < n && k < i + 2; k++)
                cr_assert(batch_add(&b, d, list[k]));
            if (b.pass.n_tokens > largest)
                largest = b.pass.n_tokens;
        }
    }
    cr_assert_eq(limits.tokens, largest);
    cr_assert_eq(limits.seqs, 2);
    /* A run too long to walk: the two longest rows, 7 + 6 tokens. */
    model_limits bound = {0};
    ok(batch_train_limits(&plan, INT64_MAX / 2, &bound, err));
    cr_assert_eq(bound.tokens, 7 + 6);
    cr_assert_eq(bound.rows, 7 + 6);
    batch_buffer_fini(&b);
    batch_plan_fini(&plan);
    train_data_free(d);
}

/* Only what a target depends on is packed. */
Test(schedule, packing)
{
    train_data *d = rows(3); /* rows 0 1 | 2 3 4 | 5 6 7 8 */
    d->label[6] = d->label[8] = 0;
    model_limits limits = {.tokens = 5, .seqs = 3, .rows = 4};
    batch_buffer b;
    ok(batch_buffer_init(&b, &limits, err));
    batch_start(&b);
    cr_assert(batch_add(&b, d, 2));
    cr_assert(batch_add(&b, d, 1));
    cr_assert_not(batch_add(&b, d, 1)); /* no room for 2 more tokens */
    cr_assert(batch_add(&b, d, 0));
    cr_assert_not(batch_add(&b, d, 0)); /* a fourth sequence */
    batch_weigh(&b, 0.25);
    cr_assert_eq(b.pass.n_tokens, 5);
    cr_assert_eq(b.pass.n_seqs, 3);
    cr_assert_eq(b.pass.n_rows, 4);
    cr_assert_arr_eq(b.ids, ((int32_t[]){5, 6, 2, 3, 0}), 20);
    cr_assert_arr_eq(b.cu, ((int32_t[]){0, 2, 4, 5}), 16);
    cr_assert_arr_eq(b.row, ((int32_t[]){1, 2, 3, 4}), 16);
    cr_assert_arr_eq(b.target, ((int32_t[]){7, 3, 4, 1}), 16);
    cr_assert_eq(b.weight[2], 0.25f);
    batch_buffer_fini(&b);
    train_data_free(d);
}
