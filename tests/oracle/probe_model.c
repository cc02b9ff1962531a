/* probe_model.c - runs one batch through the model for the Python comparisons
 * of tests/oracle/: logits, losses and adapter gradients, as safetensors.
 * A developer's tool, not part of the product. It owns no mathematics: it only
 * calls model.h. May include the rooms model..base.
 *
 *   probe_model MODEL_DIR BATCH.safetensors OUT.safetensors [--adapter DIR]
 *       [--backend cpu|ref] [--dtype f32|bf16|f64] [--threads N] [--isa X]
 *       [--schedule 0|1|2] [--logits] [--grad] [--repeat N]
 *
 * BATCH: I32 ids [n], cu [s+1], row [k], target [k]; F32 weight [k].
 * OUT: loss [1] and nll [k] F64; with --logits, logits [k, V] (F64 for --dtype
 * f64, else F32); with --grad, "PATH.lora_A.grad" [r, in] and
 * "PATH.lora_B.grad" [out, r] of every site, in the same type. --repeat runs
 * the whole pass N times and demands equal bits. */
#include <stdio.h>
#include <stdlib.h>

#include "adapter/adapter.h"
#include "backend/backend.h"
#include "base/base.h"
#include "format/format.h"
#include "model/model.h"

typedef struct options {
    const char *model, *batch, *out, *adapter;
    backend_options backend;
    model_schedule schedule;
    bool logits, grad;
    long repeat;
} options;

/* Everything that is open; fini releases what is there. */
typedef struct probe {
    options opt;
    backend *be;
    model *m;
    adapter *ad;
    model_adapter *ma;
    model_run *run;
    format_store *store;
    model_batch batch;
    size_t acc;   /* bytes of an acc value */
    int64_t rank; /* largest of the adapter */
    double loss;
    double *nll;
    void *logits;
    void **grad; /* host copies: A then B of every site */
    char **grad_name;
} probe;

static int usage(void)
{
    fputs("usage: probe_model MODEL_DIR BATCH.safetensors OUT.safetensors "
          "[--adapter DIR] [--backend cpu|ref] [--dtype f32|bf16|f64] "
          "[--threads N] [--isa X] [--schedule 0|1|2] [--logits] [--grad] "
          "[--repeat N]\n",
          stderr);
    return 2;
}

static bool parse_dtype(const char *text, base_dtype *out)
{
    if (!strcmp(text, "f32"))
        *out = BASE_F32;
    else if (!strcmp(text, "bf16"))
        *out = BASE_BF16;
    else if (!strcmp(text, "f64"))
        *out = BASE_F64;
    else
        return false;
    return true;
}

static bool parse_pair(options *o, const char *name, const char *value)
{
    if (!strcmp(name, "--adapter"))
        o->adapter = value;
    else if (!strcmp(name, "--backend"))
        o->backend.name = value;
    else if (!strcmp(name, "--dtype"))
        return parse_dtype(value, &o->backend.dtype);
    else if (!strcmp(name, "--threads"))
        o->backend.n_threads = (int)strtol(value, NULL, 10);
    else if (!strcmp(name, "--isa"))
        o->backend.isa = value;
    else if (!strcmp(name, "--schedule"))
        o->schedule = (model_schedule)strtol(value, NULL, 10);
    else if (!strcmp(name, "--repeat"))
        o->repeat = strtol(value, NULL, 10);
    else
        return false;
    return true;
}

static bool parse_args(options *o, int argc, char **argv)
{
    *o = (options){.backend = {.name = "cpu", .dtype = BASE_F32}, .repeat = 1};
    const char *words[3] = {0};
    int n = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--grad"))
            o->grad = true;
        else if (!strcmp(argv[i], "--logits"))
            o->logits = true;
        else if (argv[i][0] == '-') {
            if (i + 1 == argc || !parse_pair(o, argv[i], argv[i + 1]))
                return false;
            i++;
        } else if (n < 3)
            words[n++] = argv[i];
        else
            return false;
    }
    o->model = words[0];
    o->batch = words[1];
    o->out = words[2];
    return n == 3 && o->repeat >= 1 && (unsigned)o->schedule <= 2;
}

/* Borrowed values of a 1-D tensor; *n is checked when it is >= 0, else set. */
static lori_status take(const probe *p, const char *name, base_dtype dtype,
                        int64_t *n, const void **out, lori_error *err)
{
    const format_tensor *t = format_store_find(p->store, name);
    if (!t)
        return base_fail(err, LORI_NOT_FOUND, "%s: no tensor '%s'",
                         p->opt.batch, name);
    if (t->dtype != dtype || t->n_dims != 1 || (*n >= 0 && t->shape[0] != *n))
        return base_fail(err, LORI_MISMATCH,
                         "%s: '%s' must be %s with %lld values", p->opt.batch,
                         name, base_dtype_name(dtype), (long long)*n);
    *n = t->shape[0];
    *out = t->data;
    return LORI_OK;
}

static lori_status load_batch(probe *p, lori_error *err)
{
    BASE_TRY(format_store_open_file(p->opt.batch, &p->store, err));
    model_batch *b = &p->batch;
    int64_t tokens = -1, seqs = -1, rows = -1;
    const void *ids, *cu, *row, *target, *weight;
    BASE_TRY(take(p, "ids", BASE_I32, &tokens, &ids, err));
    BASE_TRY(take(p, "cu", BASE_I32, &seqs, &cu, err));
    BASE_TRY(take(p, "row", BASE_I32, &rows, &row, err));
    BASE_TRY(take(p, "target", BASE_I32, &rows, &target, err));
    BASE_TRY(take(p, "weight", BASE_F32, &rows, &weight, err));
    *b = (model_batch){.n_tokens = tokens,
                       .n_seqs = seqs - 1,
                       .n_rows = rows,
                       .ids = ids,
                       .cu = cu,
                       .row = row,
                       .target = target,
                       .weight = weight};
    return LORI_OK;
}

/* Device memory for the gradients of every A and B, all entries. */
static lori_status want_gradients(probe *p, lori_error *err)
{
    for (int64_t i = 0; i < p->ma->n_sites; i++) {
        model_site *s = &p->ma->sites[i];
        size_t a = (size_t)(s->rank * s->in) * p->acc;
        size_t b = (size_t)(s->out * s->rank) * p->acc;
        s->gA = p->be->alloc(p->be, a);
        s->gB = p->be->alloc(p->be, b);
        if (!s->gA || !s->gB)
            return base_no_memory(err, a + b);
    }
    return LORI_OK;
}

static lori_status load_adapter(probe *p, lori_error *err)
{
    if (!p->opt.adapter)
        return p->opt.grad
                   ? base_fail(err, LORI_INVALID, "--grad needs --adapter")
                   : LORI_OK;
    BASE_TRY(adapter_read(p->opt.adapter, &p->ad, err));
    for (int64_t i = 0; i < p->ad->n_sites; i++)
        if (p->ad->sites[i].rank > p->rank)
            p->rank = p->ad->sites[i].rank;
    BASE_TRY(model_adapter_new(p->m, p->ad, &p->ma, err));
    return p->opt.grad ? want_gradients(p, err) : LORI_OK;
}

static lori_status load(probe *p, lori_error *err)
{
    BASE_TRY(backend_open(&p->opt.backend, &p->be, err));
    p->acc = base_dtype_bytes(p->be->acc);
    BASE_TRY(model_open(p->opt.model, p->be, &p->m, err));
    BASE_TRY(load_batch(p, err));
    BASE_TRY(load_adapter(p, err));
    model_limits limits = {.tokens = p->batch.n_tokens,
                           .seqs = p->batch.n_seqs,
                           .rows = p->batch.n_rows,
                           .backward = p->opt.grad,
                           .rank = p->rank};
    if (p->opt.schedule == MODEL_KEEP_ALL)
        limits.keep_all = INT64_MAX;
    if (p->opt.schedule == MODEL_KEEP_NO_MLP)
        limits.keep_no_mlp = INT64_MAX;
    return model_run_new(p->m, &limits, &p->run, err);
}

/* Host copies of the gradients, and the names they get in OUT. */
static lori_status fetch_gradients(probe *p, lori_error *err)
{
    size_t n = (size_t)p->ma->n_sites;
    p->grad = base_alloc(2 * n, sizeof *p->grad);
    p->grad_name = base_alloc(2 * n, sizeof *p->grad_name);
    if (!p->grad || !p->grad_name)
        return base_no_memory(err, n);
    for (size_t i = 0; i < 2 * n; i++) {
        const model_site *s = &p->ma->sites[i / 2];
        bool is_b = i % 2;
        size_t bytes = (size_t)((is_b ? s->out : s->in) * s->rank) * p->acc;
        base_str name = {0};
        base_str_printf(&name, "%s.lora_%c.grad", p->ad->sites[i / 2].path,
                        is_b ? 'B' : 'A');
        p->grad_name[i] = base_str_take(&name);
        p->grad[i] = base_alloc(bytes, 1);
        if (!p->grad[i] || !p->grad_name[i])
            return base_no_memory(err, bytes);
        p->be->copy(p->be, p->grad[i], is_b ? s->gB : s->gA, bytes,
                    BACKEND_TO_HOST);
    }
    return p->be->sync(p->be, err);
}

static void forget_gradients(probe *p)
{
    for (int64_t i = 0; p->ma && i < 2 * p->ma->n_sites; i++) {
        if (p->grad)
            free(p->grad[i]);
        if (p->grad_name)
            free(p->grad_name[i]);
    }
    free(p->grad);
    free(p->grad_name);
    p->grad = NULL;
    p->grad_name = NULL;
}

static lori_status run_once(probe *p, lori_error *err)
{
    const model_batch *b = &p->batch;
    for (int64_t i = 0; p->opt.grad && i < p->ma->n_sites; i++) {
        model_site *s = &p->ma->sites[i];
        p->be->zero(p->be, s->gA, (size_t)(s->rank * s->in) * p->acc);
        p->be->zero(p->be, s->gB, (size_t)(s->out * s->rank) * p->acc);
    }
    if (p->opt.logits)
        BASE_TRY(model_logits(p->run, b, p->ma, p->logits, err));
    BASE_TRY(model_loss(p->run, b, p->ma, p->opt.grad, p->nll, &p->loss, err));
    return p->opt.grad ? fetch_gradients(p, err) : LORI_OK;
}

/* A fingerprint of all results, to compare repetitions. */
static uint64_t fingerprint(const probe *p, size_t logits_bytes)
{
    uint64_t h = base_fnv1a(BASE_FNV_START, &p->loss, sizeof p->loss);
    h = base_fnv1a(h, p->nll, (size_t)p->batch.n_rows * sizeof *p->nll);
    if (p->opt.logits)
        h = base_fnv1a(h, p->logits, logits_bytes);
    for (int64_t i = 0; p->opt.grad && i < 2 * p->ma->n_sites; i++) {
        const model_site *s = &p->ma->sites[i / 2];
        size_t n = (size_t)((i % 2 ? s->out : s->in) * s->rank);
        h = base_fnv1a(h, p->grad[i], n * p->acc);
    }
    return h;
}

static lori_status compute(probe *p, lori_error *err)
{
    size_t rows = (size_t)p->batch.n_rows;
    size_t vocab = (size_t)model_get_config(p->m)->vocab;
    size_t logits_bytes = rows * vocab * p->acc;
    p->nll = base_alloc(rows, sizeof *p->nll);
    p->logits = p->opt.logits ? base_alloc(rows * vocab, p->acc) : NULL;
    if (!p->nll || (p->opt.logits && !p->logits))
        return base_no_memory(err, logits_bytes);
    uint64_t first = 0;
    for (long i = 0; i < p->opt.repeat; i++) {
        forget_gradients(p);
        BASE_TRY(run_once(p, err));
        uint64_t now = fingerprint(p, logits_bytes);
        if (i && now != first)
            return base_fail(err, LORI_NUMERIC,
                             "pass %ld gave other bits than the first", i + 1);
        first = now;
    }
    return LORI_OK;
}

static lori_status save(const probe *p, lori_error *err)
{
    size_t n_grad = p->opt.grad ? 2 * (size_t)p->ma->n_sites : 0, n = 0;
    base_dtype acc = p->be->acc;
    int64_t rows = p->batch.n_rows;
    format_desc *desc = base_alloc(n_grad + 3, sizeof *desc);
    if (!desc)
        return base_no_memory(err, (n_grad + 3) * sizeof *desc);
    desc[n++] = (format_desc){"loss", BASE_F64, 1, {1}, &p->loss};
    desc[n++] = (format_desc){"nll", BASE_F64, 1, {rows}, p->nll};
    if (p->opt.logits)
        desc[n++] = (format_desc){
            "logits", acc, 2, {rows, model_get_config(p->m)->vocab}, p->logits};
    for (size_t i = 0; i < n_grad; i++) {
        const model_site *s = &p->ma->sites[i / 2];
        int64_t first = i % 2 ? s->out : s->rank;
        int64_t second = i % 2 ? s->rank : s->in;
        desc[n++] =
            (format_desc){p->grad_name[i], acc, 2, {first, second}, p->grad[i]};
    }
    format_pair pt = {"format", "pt"};
    lori_status st = format_st_write(p->opt.out, desc, n, &pt, 1, err);
    free(desc);
    return st;
}

static void fini(probe *p)
{
    forget_gradients(p);
    for (int64_t i = 0; p->opt.grad && p->ma && i < p->ma->n_sites; i++) {
        p->be->free(p->be, p->ma->sites[i].gA);
        p->be->free(p->be, p->ma->sites[i].gB);
    }
    free(p->nll);
    free(p->logits);
    model_run_free(p->run);
    model_adapter_free(p->ma);
    adapter_free(p->ad);
    model_close(p->m);
    backend_close(p->be);
    format_store_close(p->store);
}

int main(int argc, char **argv)
{
    probe p = {0};
    if (!parse_args(&p.opt, argc, argv))
        return usage();
    lori_error err = {0};
    lori_status st = load(&p, &err);
    if (st == LORI_OK)
        st = compute(&p, &err);
    if (st == LORI_OK)
        st = save(&p, &err);
    if (st == LORI_OK)
        printf("loss %.17g  peak %lld bytes  %s: %s\n", p.loss,
               (long long)base_rss_peak_bytes(), p.be->name, p.be->detail);
    else
        fprintf(stderr, "probe_model: %s\n", err.message);
    fini(&p);
    return st == LORI_OK ? 0 : 1;
}
