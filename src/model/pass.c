/* pass.c - a batch through the whole model: checks, upload, embedding, blocks,
 * the head on label rows in chunks, loss and its gradient. Refuses ids, rows
 * and adapters outside the workspace or the vocabulary, and losses that are
 * no numbers. May include base, backend, model. Source: transformers
 * LlamaForCausalLM; spec/engine.md 2 (chunked cross-entropy). */
#include <math.h>

#include "model/model_i.h"

/* ---- checks -------------------------------------------------------------- */

lori_status model_pass_check_rows(const model_run *run, int64_t n_tokens,
                                  int64_t n_rows, const int32_t *row,
                                  lori_error *err)
{
    if (n_rows < 0 || n_rows > run->limits.rows)
        return base_fail(err, LORI_INVALID,
                         "%lld label rows; the workspace holds %lld",
                         (long long)n_rows, (long long)run->limits.rows);
    for (int64_t i = 0; i < n_rows; i++)
        if (row[i] < 0 || row[i] >= n_tokens || (i && row[i] <= row[i - 1]))
            return base_fail(err, LORI_INVALID,
                             "label row %lld names token %d: rows must ascend "
                             "and lie in [0, %lld)",
                             (long long)i, row[i], (long long)n_tokens);
    return LORI_OK;
}

lori_status model_pass_check_adapter(const model_run *run,
                                     const model_adapter *ad, lori_error *err)
{
    for (int64_t i = 0; ad && i < ad->n_sites; i++)
        if (ad->sites[i].rank > run->limits.rank)
            return base_fail(err, LORI_INVALID,
                             "adapter of rank %lld in a workspace made for "
                             "rank %lld",
                             (long long)ad->sites[i].rank,
                             (long long)run->limits.rank);
    return LORI_OK;
}

lori_status model_pass_check_ids(const model_run *run, int64_t n_tokens,
                                 int64_t n_seqs, const int32_t *ids,
                                 const int32_t *cu, const model_adapter *ad,
                                 lori_error *err)
{
    const model_limits *l = &run->limits;
    int64_t vocab = run->m->config.vocab;
    if (n_tokens < 1 || n_tokens > l->tokens || n_seqs < 1 || n_seqs > run->S)
        return base_fail(err, LORI_INVALID,
                         "batch of %lld tokens in %lld sequences; the "
                         "workspace holds %lld in %lld",
                         (long long)n_tokens, (long long)n_seqs,
                         (long long)l->tokens, (long long)run->S);
    for (int64_t s = 0; s < n_seqs; s++)
        if (cu[s + 1] <= cu[s])
            return base_fail(err, LORI_INVALID, "sequence %lld is empty",
                             (long long)s);
    if (cu[0] != 0 || cu[n_seqs] != n_tokens)
        return base_fail(err, LORI_INVALID,
                         "sequences cover tokens [%d, %d) of %lld", cu[0],
                         cu[n_seqs], (long long)n_tokens);
    for (int64_t i = 0; i < n_tokens; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return base_fail(err, LORI_INVALID,
                             "token %lld is id %d; the model's vocabulary has "
                             "%lld",
                             (long long)i, ids[i], (long long)vocab);
    return model_pass_check_adapter(run, ad, err);
}

lori_status model_pass_check_targets(const model_run *run, int64_t n_rows,
                                     const int32_t *target, lori_error *err)
{
    int64_t vocab = run->m->config.vocab;
    for (int64_t i = 0; i < n_rows; i++)
        if (target[i] < 0 || target[i] >= vocab)
            return base_fail(err, LORI_INVALID,
                             "target %lld is id %d; the model's vocabulary has "
                             "%lld",
                             (long long)i, target[i], (long long)vocab);
    return LORI_OK;
}

/* ---- start and upload ---------------------------------------------------- */

void model_pass_start(model_pass *p, model_run *run, const model_adapter *ad,
                      int64_t n_tokens, int64_t n_seqs, int64_t n_rows)
{
    const model_config *c = &run->m->config;
    *p = (model_pass){.run = run, .ad = ad};
    p->n_real = n_tokens;
    p->n = model_rows(run->m->be, n_tokens);
    p->label_real = n_rows;
    p->label = model_rows(run->m->be, n_rows);
    p->attn = (backend_attn){
        .n_seq = (int)n_seqs,
        .cu_q = run->device.cu_q,
        .cu_k = run->device.cu_k,
        .n_heads = (int)c->n_heads,
        .n_kv_heads = (int)c->n_kv_heads,
        .head_dim = (int)c->head_dim,
        .window = c->window,
        .scale = 1.0 / sqrt((double)c->head_dim),
    };
    base_dtype acc = run->m->be->acc;
    p->dres = backend_matrix(run->dres, acc, p->n, c->d);
    p->dxn = backend_matrix(run->dxn, acc, p->n, c->d);
}

/* `n` values, then zeros up to `padded`. */
static void stage(int32_t *dst, const int32_t *src, int64_t n, int64_t padded)
{
    if (n)
        memcpy(dst, src, (size_t)n * sizeof *dst);
    if (padded > n)
        memset(dst + n, 0, (size_t)(padded - n) * sizeof *dst);
}

void model_pass_stage(model_pass *p, const int32_t *ids, const int32_t *cu,
                      const int32_t *row)
{
    const model_inputs *in = &p->run->host;
    stage(in->ids, ids, p->n_real, p->n);
    stage(in->cu_q, cu, p->attn.n_seq + 1, p->attn.n_seq + 1);
    stage(in->row, row, p->label_real, p->label);
    stage(in->target, NULL, 0, p->label);
    for (int s = 0; s < p->attn.n_seq; s++)
        if (cu[s + 1] - cu[s] > p->attn.max_q)
            p->attn.max_q = cu[s + 1] - cu[s];
    memset(in->pos, 0, (size_t)p->n * sizeof *in->pos);
}

void model_pass_upload(model_pass *p)
{
    backend *be = p->run->m->be;
    be->copy(be, p->run->device.ids, p->run->host.ids, p->run->inputs_bytes,
             BACKEND_TO_DEVICE);
}

/* Whole sequences: positions and keys start at 0. */
static void stage_whole(model_pass *p, const model_batch *b)
{
    const model_run *run = p->run;
    const model_inputs *in = &run->host;
    model_pass_stage(p, b->ids, b->cu, b->row);
    stage(in->cu_k, b->cu, b->n_seqs + 1, b->n_seqs + 1);
    for (int64_t s = 0; s < b->n_seqs; s++)
        for (int32_t t = b->cu[s]; t < b->cu[s + 1]; t++)
            in->pos[t] = t - b->cu[s];
    p->attn.max_k = p->attn.max_q;
    p->cos = run->cos;
    p->sin = run->sin;
}

void model_pass_stage_targets(model_pass *p, const int32_t *target,
                              const float *weight)
{
    const model_inputs *in = &p->run->host;
    stage(in->target, target, p->label_real, p->label);
    for (int64_t i = 0; i < p->label; i++) {
        float w = i >= p->label_real ? 0.0F : weight ? weight[i] : 1.0F;
        if (p->run->m->be->acc == BASE_F64)
            ((double *)in->weight)[i] = (double)w;
        else
            ((float *)in->weight)[i] = w;
    }
}

/* ---- forward ------------------------------------------------------------- */

void model_pass_forward(model_pass *p)
{
    model_run *run = p->run;
    model *m = run->m;
    backend *be = m->be;
    backend_view x = backend_matrix(run->kept[0].x, be->act, p->n, m->config.d);
    be->weight_acquire(be, &m->embed, 1);
    be->embed(be, x, m->embed, run->device.ids);
    be->weight_release(be, &m->embed, 1);
    for (int64_t l = 0; l < m->config.n_layers; l++)
        model_block_forward(p, l);
}

/* The last norm, on label rows: run->t. */
static backend_view last_norm(const model_pass *p)
{
    model_run *run = p->run;
    const model *m = run->m;
    backend *be = m->be;
    int64_t d = m->config.d;
    void *y = run->kept[m->config.n_layers - 1].y;
    backend_view xn = backend_matrix_apart(run->t, be->act, p->label, d);
    be->rmsnorm(be, xn, run->rstd, backend_matrix(y, be->act, p->label, d),
                m->norm, m->config.norm_eps);
    return xn;
}

/* Logits of label rows from `from` on: as many as there are, or room for. */
static backend_view head_chunk(const model_pass *p, backend_view xn,
                               int64_t from, backend_view room)
{
    const model *m = p->run->m;
    const int64_t left = xn.rows - from;
    room.rows = left < room.rows ? left : room.rows;
    m->be->gemm_w(m->be, room, backend_rows(xn, from, room.rows), m->head, NULL,
                  NULL);
    return room;
}

/* Host values of acc type from their place in the workspace. */
static double host_value(const model_run *run, int64_t i)
{
    return run->m->be->acc == BASE_F64
               ? ((const double *)run->host_nll)[i]
               : (double)((const float *)run->host_nll)[i];
}

/* Logits of all label rows to the host, and of each row log(sum(exp(.))), NaN
 * where one of them is not finite. */
static void fetch_logits(const model_pass *p, void *logits)
{
    model_run *run = p->run;
    backend *be = run->m->be;
    size_t size = base_dtype_bytes(be->acc);
    size_t row = (size_t)run->m->config.vocab * size;
    /* Where the host's memory is the device's, nothing is copied. */
    const bool in_place = be->host_alloc == be->alloc;
    backend_view xn = last_norm(p);
    xn.rows = in_place ? p->label_real : p->label;
    be->weight_acquire(be, &run->m->head, 1);
    for (int64_t from = 0; from < xn.rows; from += run->chunk) {
        char *to = (char *)logits + (size_t)from * row;
        backend_view chunk =
            head_chunk(p, xn, from,
                       backend_matrix(in_place ? to : run->logits, be->acc,
                                      run->chunk, run->m->config.vocab));
        int64_t real = p->label_real - from;
        chunk.rows = real < chunk.rows ? real : chunk.rows;
        if (chunk.rows <= 0)
            continue;
        if (!in_place)
            be->copy(be, to, chunk.data, (size_t)chunk.rows * row,
                     BACKEND_TO_HOST);
        /* the targets do not matter */
        be->xent_stats(be, (char *)run->nll_lse + (size_t)from * size,
                       (char *)run->nll + (size_t)from * size, chunk,
                       run->device.target + from);
    }
    be->weight_release(be, &run->m->head, 1);
    be->copy(be, run->host_nll, run->nll_lse, (size_t)p->label_real * size,
             BACKEND_TO_HOST);
}

lori_status model_pass_logits(model_pass *p, void *logits, double *lse,
                              lori_error *err)
{
    model_run *run = p->run;
    backend *be = run->m->be;
    if (p->label)
        fetch_logits(p, logits);
    BASE_TRY(be->sync(be, err));
    bool finite = true;
    for (int64_t k = 0; k < p->label_real; k++) {
        const double of_row = host_value(run, k);
        finite = finite && !isnan(of_row);
        if (lse)
            lse[k] = of_row;
    }
    if (finite)
        return LORI_OK;
    return base_fail(err, LORI_NUMERIC,
                     "a logit is not a finite number: the weights or the "
                     "adapter hold NaN or infinity, or values too large for "
                     "%s",
                     base_dtype_name(be->act));
}

/* ---- loss ---------------------------------------------------------------- */

/* nll of every label row; with `backward` the logits become their gradient in
 * place, (softmax - onehot) weight, and dxn = d W. One pass over the chunks:
 * an [n, V] buffer never exists. */
static void head_loss(const model_pass *p, bool backward)
{
    model_run *run = p->run;
    backend *be = run->m->be;
    size_t size = base_dtype_bytes(be->acc), small = base_dtype_bytes(be->act);
    backend_view xn = last_norm(p);
    const backend_view room = backend_matrix_apart(
        run->logits, be->acc, run->chunk, run->m->config.vocab);
    be->weight_acquire(be, &run->m->head, 1);
    for (int64_t from = 0; from < p->label; from += run->chunk) {
        backend_view logits = head_chunk(p, xn, from, room);
        const int32_t *target = run->device.target + from;
        char *lse = (char *)run->nll_lse + (size_t)from * size;
        char *nll = (char *)run->nll + (size_t)from * size;
        be->xent_stats(be, lse, nll, logits, target);
        if (!backward)
            continue;
        backend_view d = logits; /* row starts stay where they are */
        d.dtype = be->act;
        d.ld = logits.ld * (int64_t)(size / small);
        be->xent_grad(be, d, logits, target, lse,
                      (char *)run->device.weight + (size_t)from * size);
        be->gemm_wt(be, backend_rows(p->dxn, from, logits.rows), d,
                    run->m->head, NULL, 0.0);
    }
    be->weight_release(be, &run->m->head, 1);
}

/* From the head's dxn down to the lowest layer that trains. */
static void backward_blocks(model_pass *p)
{
    const model_run *run = p->run;
    const model_config *c = &run->m->config;
    backend *be = run->m->be;
    int64_t lowest = 0;
    while (!model_layer_trains(p->ad, lowest, 0, MODEL_ROLES))
        lowest++;
    backend_view y =
        backend_matrix(run->kept[c->n_layers - 1].y, be->act, p->label, c->d);
    be->zero(be, p->dres.data,
             (size_t)(p->label * p->dres.ld) * base_dtype_bytes(be->acc));
    model_norm_backward(p, y, run->m->norm, run->rstd);
    for (int64_t l = c->n_layers - 1; l >= lowest; l--)
        model_block_backward(p, l, l > lowest);
}

static bool trains(const model_config *c, const model_adapter *ad)
{
    for (int64_t l = 0; ad && l < c->n_layers; l++)
        if (model_layer_trains(ad, l, 0, MODEL_ROLES))
            return true;
    return false;
}

/* The values of host_value summed in row order, in double. */
static lori_status sum_loss(const model_pass *p, const float *weight,
                            double *nll, double *loss, lori_error *err)
{
    const model_run *run = p->run;
    double sum = 0.0;
    for (int64_t i = 0; i < p->label_real; i++) {
        double value = host_value(run, i);
        if (!isfinite(value))
            return base_fail(err, LORI_NUMERIC,
                             "the loss of label row %lld (token %d) is not a "
                             "finite number: the weights or the adapter hold "
                             "NaN or infinity, or the learning rate is too "
                             "high",
                             (long long)i, run->host.row[i]);
        if (nll)
            nll[i] = value;
        sum += value * (weight ? (double)weight[i] : 1.0);
    }
    *loss = sum;
    return LORI_OK;
}

lori_status model_pass_loss(model_pass *p, const float *weight, bool backward,
                            double *nll, double *loss, lori_error *err)
{
    model_run *run = p->run;
    backend *be = run->m->be;
    if (p->label)
        head_loss(p, backward);
    if (backward)
        backward_blocks(p);
    be->copy(be, run->host_nll, run->nll,
             (size_t)p->label_real * base_dtype_bytes(be->acc),
             BACKEND_TO_HOST);
    BASE_TRY(be->sync(be, err));
    return sum_loss(p, weight, nll, loss, err);
}

lori_status model_loss(model_run *run, const model_batch *b,
                       const model_adapter *ad, bool backward, double *nll,
                       double *loss, lori_error *err)
{
    *loss = 0.0;
    BASE_TRY(model_pass_check_ids(run, b->n_tokens, b->n_seqs, b->ids, b->cu,
                                  ad, err));
    BASE_TRY(model_pass_check_rows(run, b->n_tokens, b->n_rows, b->row, err));
    BASE_TRY(model_pass_check_targets(run, b->n_rows, b->target, err));
    backward = backward && trains(&run->m->config, ad);
    if (backward && !run->limits.backward)
        return base_fail(err, LORI_INVALID,
                         "the workspace was made without backward");
    if (!b->n_rows)
        return LORI_OK;
    model_pass p;
    model_pass_start(&p, run, ad, b->n_tokens, b->n_seqs, b->n_rows);
    stage_whole(&p, b);
    model_pass_stage_targets(&p, b->target, b->weight);
    model_pass_upload(&p);
    model_pass_forward(&p);
    return model_pass_loss(&p, b->weight, backward, nll, loss, err);
}

lori_status model_logits(model_run *run, const model_batch *b,
                         const model_adapter *ad, void *logits, lori_error *err)
{
    BASE_TRY(model_pass_check_ids(run, b->n_tokens, b->n_seqs, b->ids, b->cu,
                                  ad, err));
    BASE_TRY(model_pass_check_rows(run, b->n_tokens, b->n_rows, b->row, err));
    model_pass p;
    model_pass_start(&p, run, ad, b->n_tokens, b->n_seqs, b->n_rows);
    stage_whole(&p, b);
    model_pass_upload(&p);
    if (b->n_rows)
        model_pass_forward(&p);
    return model_pass_logits(&p, logits, NULL, err);
}
