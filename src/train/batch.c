/* batch.c - which rows make up a step, and how they are packed into a pass.
 * Sequences stand one behind the other without padding; of each, only the
 * tokens that a target depends on: what stands after the last prediction
 * changes no loss and no gradient in a causal model. Includes train_i.h. */
#include <stdlib.h>

#include "train/train_i.h"

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void batch_row_size(const train_data *data, int64_t row, int64_t *used,
                    int64_t *targets)
{
    int64_t start = data->start[row], n = data->start[row + 1] - start;
    *used = 0;
    *targets = 0;
    for (int64_t i = 0; i < n; i++)
        if (data->label[start + i]) {
            *used = i; /* token i is predicted from those before it */
            ++*targets;
        }
}

/* ---- order ---------------------------------------------------------- */

lori_status batch_plan_init(batch_plan *plan, const train_data *data,
                            const train_recipe *r, lori_error *err)
{
    *plan = (batch_plan){.data = data,
                         .micro = r->per_device_train_batch_size,
                         .shuffle = r->shuffle,
                         .seed = r->seed,
                         .epoch = -1};
    size_t n = (size_t)data->n_rows;
    if (!base_mul64(plan->micro, r->gradient_accumulation_steps,
                    &plan->per_step))
        plan->per_step = INT64_MAX;
    plan->per_step = min64(plan->per_step, data->n_rows);
    plan->steps_per_epoch =
        (data->n_rows + plan->per_step - 1) / plan->per_step;
    plan->order = base_alloc(n, sizeof *plan->order);
    plan->used = base_alloc(n, sizeof *plan->used);
    plan->targets = base_alloc(n, sizeof *plan->targets);
    if (!plan->order || !plan->used || !plan->targets) {
        batch_plan_fini(plan);
        return base_no_memory(err, n * sizeof *plan->order);
    }
    for (int64_t i = 0; i < data->n_rows; i++) {
        int64_t used, targets;
        batch_row_size(data, i, &used, &targets);
        plan->used[i] = (int32_t)used; /* <= max_seq_length */
        plan->targets[i] = (int32_t)targets;
    }
    return LORI_OK;
}

void batch_plan_fini(batch_plan *plan)
{
    free(plan->order);
    free(plan->used);
    free(plan->targets);
    plan->order = NULL;
    plan->used = plan->targets = NULL;
}

/* The order depends on (seed, epoch) alone, so a resumed run finds it again
 * without replaying what came before. */
static void order_epoch(batch_plan *plan, int64_t epoch)
{
    if (plan->epoch == epoch)
        return;
    int64_t n = plan->data->n_rows;
    for (int64_t i = 0; i < n; i++)
        plan->order[i] = i;
    if (plan->shuffle) {
        base_rng rng;
        base_rng_start(&rng, plan->seed, (uint64_t)epoch);
        base_rng_shuffle(&rng, plan->order, n);
    }
    plan->epoch = epoch;
}

const int64_t *batch_rows(batch_plan *plan, int64_t t, int64_t *n)
{
    int64_t first = t % plan->steps_per_epoch * plan->per_step;
    order_epoch(plan, t / plan->steps_per_epoch);
    *n = min64(plan->per_step, plan->data->n_rows - first);
    return plan->order + first;
}

static int descending(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
    return (a < b) - (a > b);
}

/* Sum of the `n` largest values. */
static lori_status largest(const int32_t *values, int64_t rows, int64_t n,
                           int64_t *sum, lori_error *err)
{
    int32_t *sorted = base_alloc((size_t)rows, sizeof *sorted);
    if (!sorted)
        return base_no_memory(err, (size_t)rows * sizeof *sorted);
    memcpy(sorted, values, (size_t)rows * sizeof *sorted);
    qsort(sorted, (size_t)rows, sizeof *sorted, descending);
    *sum = 0;
    for (int64_t i = 0; i < n; i++)
        *sum += sorted[i];
    free(sorted);
    return LORI_OK;
}

/* For runs too long to walk through: the longest rows might meet. */
static lori_status bound_limits(const batch_plan *plan, model_limits *limits,
                                lori_error *err)
{
    int64_t n = plan->data->n_rows, micro = min64(plan->micro, n);
    int64_t tokens, targets;
    BASE_TRY(largest(plan->used, n, micro, &tokens, err));
    BASE_TRY(largest(plan->targets, n, micro, &targets, err));
    limits->seqs = max64(limits->seqs, micro);
    limits->tokens = max64(limits->tokens, tokens);
    limits->rows = max64(limits->rows, targets);
    return LORI_OK;
}

static void step_limits(batch_plan *plan, int64_t t, model_limits *limits)
{
    int64_t n;
    const int64_t *rows = batch_rows(plan, t, &n);
    for (int64_t i = 0; i < n; i += plan->micro) {
        int64_t seqs = min64(plan->micro, n - i), tokens = 0, targets = 0;
        for (int64_t k = 0; k < seqs; k++) {
            tokens += plan->used[rows[i + k]];
            targets += plan->targets[rows[i + k]];
        }
        limits->seqs = max64(limits->seqs, seqs);
        limits->tokens = max64(limits->tokens, tokens);
        limits->rows = max64(limits->rows, targets);
    }
}

#define ROWS_TO_WALK 50000000 /* about a second */

lori_status batch_train_limits(batch_plan *plan, int64_t total,
                               model_limits *limits, lori_error *err)
{
    /* Without a shuffle every epoch is the first one again. */
    if (!plan->shuffle)
        total = min64(total, plan->steps_per_epoch);
    if (total > ROWS_TO_WALK / plan->per_step)
        return bound_limits(plan, limits, err);
    for (int64_t t = 0; t < total; t++)
        step_limits(plan, t, limits);
    return LORI_OK;
}

/* ---- packing -------------------------------------------------------- */

lori_status batch_buffer_init(batch_buffer *b, const model_limits *limits,
                              lori_error *err)
{
    *b = (batch_buffer){.max_tokens = limits->tokens,
                        .max_seqs = limits->seqs,
                        .max_rows = limits->rows};
    if (limits->tokens >= INT32_MAX || limits->rows >= INT32_MAX ||
        limits->seqs >= INT32_MAX)
        return base_fail(err, LORI_UNSUPPORTED,
                         "a pass of %lld tokens is too large: lower "
                         "per_device_train_batch_size",
                         (long long)limits->tokens);
    size_t tokens = (size_t)limits->tokens, seqs = (size_t)limits->seqs,
           rows = (size_t)limits->rows;
    b->ids = base_alloc(tokens, sizeof *b->ids);
    b->cu = base_alloc(seqs + 1, sizeof *b->cu);
    b->row = base_alloc(rows, sizeof *b->row);
    b->target = base_alloc(rows, sizeof *b->target);
    b->weight = base_alloc(rows, sizeof *b->weight);
    b->nll = base_alloc(rows, sizeof *b->nll);
    if (!b->ids || !b->cu || !b->row || !b->target || !b->weight || !b->nll) {
        batch_buffer_fini(b);
        return base_no_memory(err, tokens * sizeof *b->ids + rows * 24);
    }
    b->pass = (model_batch){.ids = b->ids,
                            .cu = b->cu,
                            .row = b->row,
                            .target = b->target,
                            .weight = b->weight};
    return LORI_OK;
}

void batch_buffer_fini(batch_buffer *b)
{
    free(b->ids);
    free(b->cu);
    free(b->row);
    free(b->target);
    free(b->weight);
    free(b->nll);
    *b = (batch_buffer){0};
}

void batch_start(batch_buffer *b)
{
    b->pass.n_tokens = b->pass.n_seqs = b->pass.n_rows = 0;
    b->cu[0] = 0;
}

bool batch_add(batch_buffer *b, const train_data *data, int64_t row)
{
    model_batch *p = &b->pass;
    int64_t start = data->start[row], used, targets;
    batch_row_size(data, row, &used, &targets);
    if (p->n_seqs + 1 > b->max_seqs || p->n_tokens + used > b->max_tokens ||
        p->n_rows + targets > b->max_rows)
        return false;
    for (int64_t i = 0; i < used; i++) {
        b->ids[p->n_tokens + i] = data->ids[start + i];
        if (!data->label[start + i + 1])
            continue;
        b->row[p->n_rows] = (int32_t)(p->n_tokens + i);
        b->target[p->n_rows] = data->ids[start + i + 1];
        p->n_rows++;
    }
    p->n_tokens += used;
    b->cu[++p->n_seqs] = (int32_t)p->n_tokens;
    return true;
}

void batch_weigh(batch_buffer *b, double weight)
{
    for (int64_t i = 0; i < b->pass.n_rows; i++)
        b->weight[i] = (float)weight;
}
