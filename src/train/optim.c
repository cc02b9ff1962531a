/* optim.c - learning-rate schedules, and AdamW over one packed vector of all
 * trainable parameters. Owns masters, gradient and moments; the matrices the
 * passes use belong to the model_adapter and receive the rounded values.
 * Schedules: transformers optimization.py; clipping: torch clip_grad_norm_.
 * Includes train_i.h, libm. */
#include <math.h>
#include <stdlib.h>

#include "train/train_i.h"

/* ---- schedule ------------------------------------------------------- */

/* Source: transformers Trainer: ceil(epochs * steps an epoch). */
int64_t schedule_total(const train_recipe *r, int64_t n_rows)
{
    if (r->max_steps > 0)
        return r->max_steps;
    int64_t per_step;
    if (!base_mul64(r->per_device_train_batch_size,
                    r->gradient_accumulation_steps, &per_step) ||
        per_step > n_rows)
        per_step = n_rows;
    int64_t steps = (n_rows + per_step - 1) / per_step;
    double total = ceil(r->num_train_epochs * (double)steps);
    return total >= 1 ? total < 1e15 ? (int64_t)total : (int64_t)1e15 : 1;
}

int64_t schedule_warmup(const train_recipe *r, int64_t total)
{
    if (r->warmup_steps > 0)
        return r->warmup_steps;
    return (int64_t)ceil(r->warmup_ratio * (double)total);
}

/* Source: get_constant_schedule_with_warmup, get_linear_schedule_with_warmup:
 * t counts from 0, so the first step of a warm-up has rate 0. */
double schedule_lr(const train_recipe *r, int64_t warmup, int64_t total,
                   int64_t t)
{
    if (t < warmup)
        return r->learning_rate * ((double)t / (double)warmup);
    if (r->lr_scheduler_type == TRAIN_CONSTANT)
        return r->learning_rate;
    int64_t rest = total - warmup > 1 ? total - warmup : 1;
    double left = (double)(total - t) / (double)rest;
    return r->learning_rate * (left > 0 ? left : 0);
}

/* ---- packed parameters ---------------------------------------------- */

static size_t acc_bytes(const optim *o)
{
    return base_dtype_bytes(o->be->acc);
}

static void *offset(const optim *o, void *vector, int64_t start)
{
    return (char *)vector + (size_t)start * acc_bytes(o);
}

static void put_host(const optim *o, int64_t i, float x)
{
    if (o->be->acc == BASE_F64)
        ((double *)o->host)[i] = (double)x;
    else
        ((float *)o->host)[i] = x;
}

static float get_host(const optim *o, int64_t i)
{
    return o->be->acc == BASE_F64 ? (float)((const double *)o->host)[i]
                                  : ((const float *)o->host)[i];
}

/* Calls for every kept entry of a B, in packed order. */
static void each_kept(const adapter_keep_site *site, int64_t out, int64_t rank,
                      void (*visit)(void *context, int64_t entry),
                      void *context)
{
    for (int64_t i = 0; i < out; i++)
        for (int64_t j = 0; j < rank; j++)
            if (!site || adapter_keep_get(site, i, j))
                visit(context, i * rank + j);
}

/* Uploads a mask's bits and row starts of one site. */
static bool upload_keep(optim *o, const adapter_keep_site *site,
                        backend_keep *keep)
{
    backend *be = o->be;
    size_t words = (size_t)(site->rank + 31) / 32;
    size_t bits = (size_t)site->out * words * sizeof(uint32_t);
    size_t starts = ((size_t)site->out + 1) * sizeof(int64_t);
    uint32_t *device_bits = be->alloc(be, bits);
    int64_t *device_start = be->alloc(be, starts);
    int64_t *start = base_alloc((size_t)site->out + 1, sizeof *start);
    *keep = (backend_keep){site->out, site->rank, site->kept, device_bits,
                           device_start};
    if (!device_bits || !device_start || !start) {
        free(start);
        return false;
    }
    for (int64_t i = 0; i < site->out; i++) {
        start[i + 1] = start[i];
        for (int64_t j = 0; j < site->rank; j++)
            start[i + 1] += adapter_keep_get(site, i, j);
    }
    be->copy(be, device_bits, site->bits, bits, BACKEND_TO_DEVICE);
    be->copy(be, device_start, start, starts, BACKEND_TO_DEVICE);
    lori_status st = be->sync(be, NULL); /* `start` must live until then */
    free(start);
    return st == LORI_OK;
}

/* Slices of every site and the vector's length. */
static bool lay_out(optim *o, model_adapter *ma, const adapter_keep *keep,
                    bool train_a)
{
    for (int64_t s = 0; s < ma->n_sites; s++) {
        model_site *site = &ma->sites[s];
        base_dtype act = o->be->act;
        const backend_keep *kept = keep ? &o->keeps[s] : NULL;
        int64_t n_b = kept ? kept->kept : site->out * site->rank;
        if (n_b)
            o->slices[o->n_slices++] = (optim_slice){
                .site = s,
                .start = o->n,
                .count = n_b,
                .keep = kept,
                .dense = backend_matrix(site->B, act, site->out, site->rank)};
        o->n += n_b;
        if (!train_a)
            continue;
        o->slices[o->n_slices++] = (optim_slice){
            .site = s,
            .is_a = true,
            .start = o->n,
            .count = site->rank * site->in,
            .dense = backend_matrix(site->A, act, site->rank, site->in)};
        o->n += site->rank * site->in;
    }
    return o->n > 0;
}

static bool take_memory(optim *o)
{
    backend *be = o->be;
    size_t bytes;
    if (!base_mul((size_t)o->n, acc_bytes(o), &bytes))
        return false;
    o->p = be->alloc(be, bytes);
    o->g = be->alloc(be, bytes);
    o->m = be->alloc(be, bytes);
    o->v = be->alloc(be, bytes);
    o->sq = be->alloc(be, (size_t)o->n_slices * sizeof *o->sq);
    o->sq_host = base_alloc((size_t)o->n_slices, sizeof *o->sq_host);
    int64_t most = 1;
    for (int64_t k = 0; k < o->n_slices; k++)
        most = o->slices[k].count > most ? o->slices[k].count : most;
    o->host = base_alloc((size_t)most, acc_bytes(o));
    return o->p && o->g && o->m && o->v && o->sq && o->sq_host && o->host;
}

typedef struct packing {
    optim *o;
    float *dense;
    int64_t at;
} packing;

static void pack_entry(void *context, int64_t entry)
{
    packing *p = context;
    put_host(p->o, p->at++, p->dense[entry]);
}

static void unpack_entry(void *context, int64_t entry)
{
    packing *p = context;
    p->dense[entry] = get_host(p->o, p->at++);
}

/* Between o->host and the host adapter's matrix of one slice. */
static void visit_slice(optim *o, const optim_slice *s, const adapter *ad,
                        void (*visit)(void *context, int64_t entry))
{
    const adapter_site *site = &ad->sites[s->site];
    packing p = {o, s->is_a ? site->A : site->B, 0};
    if (s->is_a)
        each_kept(NULL, site->rank, site->in, visit, &p);
    else
        each_kept(o->keep ? &o->keep->sites[s->site] : NULL, site->out,
                  site->rank, visit, &p);
}

/* Masters from the host adapter, through one slice's worth of memory. */
static lori_status upload_start(optim *o, const adapter *ad, lori_error *err)
{
    backend *be = o->be;
    for (int64_t k = 0; k < o->n_slices; k++) {
        const optim_slice *s = &o->slices[k];
        visit_slice(o, s, ad, pack_entry);
        be->copy(be, offset(o, o->p, s->start), o->host,
                 (size_t)s->count * acc_bytes(o), BACKEND_TO_DEVICE);
        BASE_TRY(be->sync(be, err)); /* before the memory is used again */
    }
    return LORI_OK;
}

/* Points backward at the packed gradient. */
static void point_sites(optim *o, model_adapter *ma, const adapter_keep *keep)
{
    for (int64_t s = 0; s < ma->n_sites; s++)
        ma->sites[s].keep = keep ? &o->keeps[s] : NULL;
    for (int64_t k = 0; k < o->n_slices; k++) {
        const optim_slice *s = &o->slices[k];
        void *g = offset(o, o->g, s->start);
        if (s->is_a)
            ma->sites[s->site].gA = g;
        else
            ma->sites[s->site].gB = g;
    }
}

lori_status optim_init(optim *o, model_adapter *ma, const adapter *ad,
                       const adapter_keep *keep, bool train_a, lori_error *err)
{
    size_t sites = (size_t)ma->n_sites;
    *o = (optim){.be = ma->be, .keep = keep};
    o->slices = base_alloc(2 * sites, sizeof *o->slices);
    bool ok = o->slices != NULL;
    if (ok && keep) {
        o->keeps = base_alloc(sites, sizeof *o->keeps);
        ok = o->keeps != NULL;
        for (int64_t s = 0; ok && s < ma->n_sites; s++) {
            o->n_keeps = s + 1;
            ok = upload_keep(o, &keep->sites[s], &o->keeps[s]);
        }
    }
    if (ok && !lay_out(o, ma, keep, train_a)) {
        optim_fini(o);
        return base_fail(err, LORI_INVALID, "nothing is to be trained");
    }
    ok = ok && take_memory(o);
    if (!ok) {
        size_t bytes = (size_t)o->n * 4 * acc_bytes(o);
        optim_fini(o);
        return base_prefix(err, base_no_memory(err, bytes),
                           "parameters and optimizer state");
    }
    lori_status st = upload_start(o, ad, err);
    if (st) {
        optim_fini(o);
        return st;
    }
    point_sites(o, ma, keep);
    return LORI_OK;
}

void optim_fini(optim *o)
{
    backend *be = o->be;
    if (!be)
        return;
    void *device[] = {o->p, o->g, o->m, o->v, o->sq};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        if (device[i])
            be->free(be, device[i]);
    for (int64_t s = 0; s < o->n_keeps; s++) {
        const backend_keep *keep = &o->keeps[s];
        if (keep->bits)
            be->free(be, (void *)(uintptr_t)keep->bits);
        if (keep->start)
            be->free(be, (void *)(uintptr_t)keep->start);
    }
    free(o->keeps);
    free(o->slices);
    free(o->sq_host);
    free(o->host);
    *o = (optim){0};
}

/* ---- a step --------------------------------------------------------- */

void optim_zero_grad(optim *o)
{
    o->be->zero(o->be, o->g, (size_t)o->n * acc_bytes(o));
}

lori_status optim_grad_norm(optim *o, double *norm, lori_error *err)
{
    backend *be = o->be;
    for (int64_t k = 0; k < o->n_slices; k++) {
        const optim_slice *s = &o->slices[k];
        be->sqnorm(be, o->sq + k, offset(o, o->g, s->start), s->count);
    }
    be->copy(be, o->sq_host, o->sq, (size_t)o->n_slices * sizeof *o->sq,
             BACKEND_TO_HOST);
    BASE_TRY(be->sync(be, err));
    double sum = 0;
    for (int64_t k = 0; k < o->n_slices; k++)
        sum += o->sq_host[k];
    *norm = sqrt(sum);
    return LORI_OK;
}

const optim_slice *optim_bad_slice(const optim *o)
{
    for (int64_t k = 0; k < o->n_slices; k++)
        if (!isfinite(o->sq_host[k]))
            return &o->slices[k];
    return NULL;
}

/* Source: torch.nn.utils.clip_grad_norm_. */
static double clip(const train_recipe *r, double norm)
{
    if (r->max_grad_norm <= 0)
        return 1;
    double scale = r->max_grad_norm / (norm + 1e-6);
    return scale < 1 ? scale : 1;
}

static void update_range(optim *o, const backend_adamw *hp, int64_t start,
                         int64_t n)
{
    o->be->adamw(o->be, offset(o, o->p, start), offset(o, o->g, start),
                 offset(o, o->m, start), offset(o, o->v, start), n, hp);
}

/* The values the passes use, rounded from the masters. */
static void scatter(optim *o)
{
    for (int64_t k = 0; k < o->n_slices; k++) {
        const optim_slice *s = &o->slices[k];
        o->be->keep_scatter(o->be, s->dense, offset(o, o->p, s->start),
                            s->keep);
    }
}

void optim_update(optim *o, const train_recipe *r, double lr, double norm,
                  int64_t step)
{
    backend_adamw hp = {.lr = lr,
                        .beta1 = r->adam_beta1,
                        .beta2 = r->adam_beta2,
                        .eps = r->adam_epsilon,
                        .weight_decay = r->weight_decay,
                        .step = step,
                        .grad_scale = clip(r, norm)};
    if (r->clip_scope == TRAIN_CLIP_GLOBAL)
        update_range(o, &hp, 0, o->n);
    for (int64_t k = 0;
         r->clip_scope == TRAIN_CLIP_PER_TENSOR && k < o->n_slices; k++) {
        hp.grad_scale = clip(r, sqrt(o->sq_host[k]));
        update_range(o, &hp, o->slices[k].start, o->slices[k].count);
    }
    scatter(o);
}

/* ---- in and out ----------------------------------------------------- */

static void *vector(const optim *o, int which)
{
    return which == 0 ? o->p : which == 1 ? o->m : o->v;
}

lori_status optim_get(optim *o, int which, const optim_slice *s,
                      lori_error *err)
{
    o->be->copy(o->be, o->host, offset(o, vector(o, which), s->start),
                (size_t)s->count * acc_bytes(o), BACKEND_TO_HOST);
    return o->be->sync(o->be, err);
}

lori_status optim_put(optim *o, int which, const void *host, lori_error *err)
{
    o->be->copy(o->be, vector(o, which), host, (size_t)o->n * acc_bytes(o),
                BACKEND_TO_DEVICE);
    if (which == 0)
        scatter(o);
    return o->be->sync(o->be, err);
}

lori_status optim_store(optim *o, adapter *ad, lori_error *err)
{
    for (int64_t k = 0; k < o->n_slices; k++) {
        BASE_TRY(optim_get(o, 0, &o->slices[k], err));
        visit_slice(o, &o->slices[k], ad, unpack_entry);
    }
    return LORI_OK;
}
