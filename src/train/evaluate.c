/* evaluate.c - mean negative log-likelihood of a dataset. Rows share passes in
 * file order; a row's result does not depend on its company. Includes
 * train_i.h. */
#include "train/train_i.h"

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void evaluate_limits(const train_data *data, int64_t batch_size, bool roomy,
                     model_limits *limits)
{
    int64_t group = roomy ? batch_size : 1;
    if (group > data->n_rows)
        group = data->n_rows;
    for (int64_t i = 0; i < data->n_rows; i += group) {
        int64_t tokens = 0, rows = 0;
        for (int64_t k = i; k < i + group && k < data->n_rows; k++) {
            int64_t used, targets;
            batch_row_size(data, k, &used, &targets);
            tokens += used;
            rows += targets;
        }
        limits->tokens = max64(limits->tokens, tokens);
        limits->rows = max64(limits->rows, rows);
    }
    limits->seqs = max64(limits->seqs, group);
}

lori_status evaluate_run(model_run *run, batch_buffer *b,
                         const model_adapter *ad, const train_data *data,
                         int64_t batch_size, const lori_ui *ui,
                         double *mean_nll, lori_error *err)
{
    double sum = 0;
    for (int64_t i = 0; i < data->n_rows;) {
        if (base_interrupted(ui))
            return base_fail(err, LORI_INTERRUPTED, "evaluation interrupted");
        base_progress(ui, "evaluate", i, data->n_rows, "%s", "");
        batch_start(b);
        while (i < data->n_rows && b->pass.n_seqs < batch_size &&
               batch_add(b, data, i))
            i++;
        if (b->pass.n_seqs == 0) /* limits were not made for this data */
            return base_fail(err, LORI_INVALID,
                             "row %lld does not fit the evaluation's limits",
                             (long long)i);
        batch_weigh(b, 1);
        double loss;
        BASE_TRY(model_loss(run, &b->pass, ad, false, b->nll, &loss, err));
        for (int64_t k = 0; k < b->pass.n_rows; k++)
            sum += b->nll[k];
    }
    base_progress(ui, "evaluate", data->n_rows, data->n_rows, "%s", "");
    *mean_nll = sum / (double)data->n_targets;
    return LORI_OK;
}

static int64_t largest_rank(const model_adapter *ad)
{
    int64_t rank = 0;
    for (int64_t i = 0; ad && i < ad->n_sites; i++)
        rank = max64(rank, ad->sites[i].rank);
    return rank;
}

lori_status train_evaluate(model *m, const model_adapter *ad,
                           const train_data *data, int64_t batch_size,
                           const lori_ui *ui, double *mean_nll, lori_error *err)
{
    *mean_nll = 0;
    if (batch_size < 1)
        batch_size = 1;
    model_limits limits = {.rank = largest_rank(ad)};
    evaluate_limits(data, batch_size, true, &limits);
    batch_buffer b = {0};
    model_run *run = NULL;
    lori_status st = batch_buffer_init(&b, &limits, err);
    if (!st)
        st = model_run_new(m, &limits, &run, err);
    if (!st)
        st = evaluate_run(run, &b, ad, data, batch_size, ui, mean_nll, err);
    model_run_free(run);
    batch_buffer_fini(&b);
    return st;
}
