/* bench_step.c - whole training steps, and beside each of them, in the same
 * process, exactly its matrix products alone: the same calls with the same
 * operands through the same table. Their ratio says what everything else costs.
 *   bench_step MODEL_FOLDER [BATCH [STEPS [MEAN [THREADS]]]]
 * LORI_ISA chooses the instruction set, as for `lori`.
 * Lengths are lognormal (sigma 0.4, at most 512), 40 % of a sequence are
 * labels, LoRI-D of rank 32 on all linears. A table of operations between the
 * model and the backend counts and times every call (each is synchronous on a
 * CPU); the product itself knows nothing of it. Prints a table and one line of
 * JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/train_i.h"

enum { RANK = 32, LONGEST = 512, STEPS = 32 };

typedef enum part {
    PART_PRODUCT, /* frozen weights */
    PART_LOW_RANK,
    PART_ATTENTION,
    PART_ROWS,
    PART_LOSS,
    PART_OPTIMIZER,
    PARTS
} part;
static const char *const part_names[PARTS + 1] = {"products with W",
                                                  "low-rank products",
                                                  "attention",
                                                  "rows",
                                                  "loss",
                                                  "optimizer",
                                                  "rest"};

/* Every operation that a step calls, and the part that it counts to. */
#define OPERATIONS(X)                                                          \
    X(gemm_w, PART_PRODUCT)                                                    \
    X(gemm_wt, PART_PRODUCT)                                                   \
    X(gemm_nt, PART_LOW_RANK)                                                  \
    X(gemm_nn, PART_LOW_RANK)                                                  \
    X(gemm_tn, PART_LOW_RANK)                                                  \
    X(embed, PART_ROWS)                                                        \
    X(zero, PART_ROWS)                                                         \
    X(rmsnorm, PART_ROWS)                                                      \
    X(rmsnorm_bwd, PART_ROWS)                                                  \
    X(rope, PART_ROWS)                                                         \
    X(swiglu, PART_ROWS)                                                       \
    X(swiglu_bwd, PART_ROWS)                                                   \
    X(cast, PART_ROWS)                                                         \
    X(add, PART_ROWS)                                                          \
    X(gather_rows, PART_ROWS)                                                  \
    X(scatter_rows, PART_ROWS)                                                 \
    X(attn, PART_ATTENTION)                                                    \
    X(attn_bwd, PART_ATTENTION)                                                \
    X(xent_stats, PART_LOSS)                                                   \
    X(xent_grad, PART_LOSS)                                                    \
    X(keep_gather, PART_OPTIMIZER)                                             \
    X(keep_scatter, PART_OPTIMIZER)                                            \
    X(sqnorm, PART_OPTIMIZER)                                                  \
    X(adamw, PART_OPTIMIZER)

#define NUMBER(name, part)  OP_##name,
#define PART_OF(name, part) part,
#define NAME_OF(name, part) #name,
enum { OPERATIONS(NUMBER) OPS };
static const part op_parts[OPS] = {OPERATIONS(PART_OF)};
static const char *const op_names[OPS] = {OPERATIONS(NAME_OF)};

/* One recorded product. */
typedef struct call {
    int kind; /* index into the replay's switch */
    backend_view c, a, b;
    const backend_weight *w;
    backend_low low; /* that joins the product with w */
    double alpha, beta;
} call;

typedef struct recorder {
    backend be; /* the table that the model sees */
    backend *inner;
    double seconds[OPS];
    bool recording;
    call *calls;
    int64_t n, room;
    backend_view logits; /* where replayed logits go: their gradient stays */
} recorder;

static void stop(const char *message)
{
    fprintf(stderr, "bench_step: %s\n", message);
    exit(1);
}

static void must(lori_status st, const lori_error *err)
{
    if (st)
        stop(err->message);
}

static void *need(void *p)
{
    if (!p)
        stop("out of memory");
    return p;
}

/* ---- the table between ----------------------------------------------------
 */

static recorder *recorder_of(backend *be)
{
    return (recorder *)(void *)((char *)be - offsetof(recorder, be));
}

static void record(recorder *r, call c)
{
    if (!r->recording)
        return;
    if (r->n == r->room) {
        r->room = r->room ? 2 * r->room : 1024;
        r->calls = need(realloc(r->calls, (size_t)r->room * sizeof c));
    }
    r->calls[r->n++] = c;
}

#define TIMED(be, op, expr)                                                    \
    do {                                                                       \
        recorder *r_ = recorder_of(be);                                        \
        double began_ = base_now_s();                                          \
        expr;                                                                  \
        r_->seconds[op] += base_now_s() - began_;                              \
    } while (0)
#define INNER(be) recorder_of(be)->inner

enum { W, WT, NT, NN, TN };

/* A product with a weight, and the low-rank one that joins it. */
static void record_weight(backend *be, int kind, backend_view c, backend_view a,
                          const backend_weight *w, const backend_low *low,
                          double beta)
{
    call p = {.kind = kind, .c = c, .a = a, .w = w, .beta = beta};
    if (low)
        p.low = *low;
    record(recorder_of(be), p);
}

static void gemm_w(backend *be, backend_view y, backend_view x,
                   const backend_weight *w, const backend_low *low,
                   const backend_view *plus)
{
    record_weight(be, W, y, x, w, low, plus ? 1 : 0);
    TIMED(be, OP_gemm_w, INNER(be)->gemm_w(INNER(be), y, x, w, low, plus));
}

static void gemm_ws(backend *be, int n_w, const backend_view *y, backend_view x,
                    backend_weight *const *w, const backend_low *low)
{
    for (int i = 0; i < n_w; i++)
        record_weight(be, W, y[i], x, w[i], low ? &low[i] : NULL, 0);
    TIMED(be, OP_gemm_w, INNER(be)->gemm_ws(INNER(be), n_w, y, x, w, low));
}

static void gemm_wt(backend *be, backend_view dx, backend_view dy,
                    const backend_weight *w, const backend_low *low,
                    double beta)
{
    record_weight(be, WT, dx, dy, w, low, beta);
    TIMED(be, OP_gemm_wt, INNER(be)->gemm_wt(INNER(be), dx, dy, w, low, beta));
}

static void gemm_wts(backend *be, backend_view dx, int n_w,
                     const backend_view *dy, backend_weight *const *w,
                     const backend_low *low)
{
    for (int i = 0; i < n_w; i++)
        record_weight(be, WT, dx, dy[i], w[i], low ? &low[i] : NULL, i ? 1 : 0);
    TIMED(be, OP_gemm_wt, INNER(be)->gemm_wts(INNER(be), dx, n_w, dy, w, low));
}

/* SwiGLU goes with the products here: only they are replayed. */
static void gemm_swiglu(backend *be, backend_view a, backend_view g,
                        backend_view u, backend_view x,
                        backend_weight *const w[2], const backend_low *low)
{
    record_weight(be, W, g, x, w[0], low ? &low[0] : NULL, 0);
    record_weight(be, W, u, x, w[1], low ? &low[1] : NULL, 0);
    TIMED(be, OP_gemm_w, INNER(be)->gemm_swiglu(INNER(be), a, g, u, x, w, low));
}

static void gemm_swiglu_bwd(backend *be, backend_view g, backend_view u,
                            backend_view da, backend_view dy,
                            const backend_weight *w, const backend_low *low)
{
    record_weight(be, WT, da, dy, w, low, 0);
    TIMED(be, OP_gemm_wt,
          INNER(be)->gemm_swiglu_bwd(INNER(be), g, u, da, dy, w, low));
}

#define LOW_RANK(name, kind_)                                                  \
    static void name(backend *be, backend_view c, backend_view a,              \
                     backend_view b, double alpha, double beta)                \
    {                                                                          \
        record(recorder_of(be), (call){.kind = (kind_),                        \
                                       .c = c,                                 \
                                       .a = a,                                 \
                                       .b = b,                                 \
                                       .alpha = alpha,                         \
                                       .beta = beta});                         \
        TIMED(be, OP_##name,                                                   \
              INNER(be)->name(INNER(be), c, a, b, alpha, beta));               \
    }
LOW_RANK(gemm_nt, NT)
LOW_RANK(gemm_nn, NN)
LOW_RANK(gemm_tn, TN)

/* An operation that is only timed: its parameters, then its arguments. */
#define ONLY_TIMED(name, parameters, ...)                                      \
    static void name parameters                                                \
    {                                                                          \
        TIMED(be, OP_##name, INNER(be)->name(INNER(be), __VA_ARGS__));         \
    }
ONLY_TIMED(embed,
           (backend * be, backend_view y, const backend_weight *w,
            const int32_t *ids),
           y, w, ids)
ONLY_TIMED(zero, (backend * be, void *p, size_t n), p, n)
ONLY_TIMED(rmsnorm,
           (backend * be, backend_view y, void *rstd, backend_view x,
            const void *w, double eps),
           y, rstd, x, w, eps)
ONLY_TIMED(rmsnorm_bwd,
           (backend * be, backend_view dx, backend_view dy, backend_view x,
            const void *w, const void *rstd, const backend_view *copy),
           dx, dy, x, w, rstd, copy)
ONLY_TIMED(rope,
           (backend * be, backend_view x, const int32_t *pos, const void *co,
            const void *si, int head_dim, bool inverse),
           x, pos, co, si, head_dim, inverse)
ONLY_TIMED(swiglu,
           (backend * be, backend_view a, backend_view g, backend_view u), a, g,
           u)
ONLY_TIMED(swiglu_bwd,
           (backend * be, backend_view g, backend_view u, backend_view da), g,
           u, da)
ONLY_TIMED(cast, (backend * be, backend_view d, backend_view s), d, s)
ONLY_TIMED(add, (backend * be, backend_view d, backend_view s), d, s)
ONLY_TIMED(gather_rows,
           (backend * be, backend_view d, backend_view s, const int32_t *index),
           d, s, index)
ONLY_TIMED(scatter_rows,
           (backend * be, backend_view d, backend_view s, const int32_t *index),
           d, s, index)
ONLY_TIMED(attn,
           (backend * be, backend_view o, backend_view lse, backend_view q,
            backend_view k, backend_view v, const backend_attn *d),
           o, lse, q, k, v, d)
ONLY_TIMED(attn_bwd,
           (backend * be, backend_view dq, backend_view dk, backend_view dv,
            backend_view dout, backend_view q, backend_view k, backend_view v,
            backend_view o, backend_view lse, backend_view delta,
            const backend_attn *d),
           dq, dk, dv, dout, q, k, v, o, lse, delta, d)
ONLY_TIMED(xent_stats,
           (backend * be, void *lse, void *nll, backend_view z,
            const int32_t *target),
           lse, nll, z, target)
ONLY_TIMED(xent_grad,
           (backend * be, backend_view d, backend_view z, const int32_t *target,
            const void *lse, const void *weight),
           d, z, target, lse, weight)
ONLY_TIMED(keep_gather,
           (backend * be, void *p, backend_view dense, const backend_keep *keep,
            bool accumulate),
           p, dense, keep, accumulate)
ONLY_TIMED(keep_scatter,
           (backend * be, backend_view dense, const void *p,
            const backend_keep *keep),
           dense, p, keep)
ONLY_TIMED(sqnorm, (backend * be, double *out, const void *x, int64_t n), out,
           x, n)
ONLY_TIMED(adamw,
           (backend * be, void *p, const void *g, void *m, void *v, int64_t n,
            const backend_adamw *hp),
           p, g, m, v, n, hp)

static void recorder_init(recorder *r, backend *inner)
{
    *r = (recorder){.be = *inner, .inner = inner};
    backend *be = &r->be;
    be->gemm_w = gemm_w;
    be->gemm_ws = gemm_ws;
    be->gemm_wt = gemm_wt;
    be->gemm_wts = gemm_wts;
    be->gemm_swiglu = gemm_swiglu;
    be->gemm_swiglu_bwd = gemm_swiglu_bwd;
    be->gemm_nt = gemm_nt;
    be->gemm_nn = gemm_nn;
    be->gemm_tn = gemm_tn;
    be->embed = embed;
    be->zero = zero;
    be->rmsnorm = rmsnorm;
    be->rmsnorm_bwd = rmsnorm_bwd;
    be->rope = rope;
    be->swiglu = swiglu;
    be->swiglu_bwd = swiglu_bwd;
    be->cast = cast;
    be->add = add;
    be->gather_rows = gather_rows;
    be->scatter_rows = scatter_rows;
    be->attn = attn;
    be->attn_bwd = attn_bwd;
    be->xent_stats = xent_stats;
    be->xent_grad = xent_grad;
    be->keep_gather = keep_gather;
    be->keep_scatter = keep_scatter;
    be->sqnorm = sqnorm;
    be->adamw = adamw;
}

static double flops(const call *c)
{
    double inner = c->kind == TN ? (double)c->a.rows
                                 : (double)(c->a.cols + c->low.left.cols);
    return 2.0 * (double)c->c.rows * (double)c->c.cols * inner;
}

/* The recorded products again. The logits go elsewhere, so that the product
 * after them reads the gradient that the step left, not floats as bf16. */
static void replay(recorder *r, const call *calls, int64_t n)
{
    backend *be = r->inner;
    for (int64_t i = 0; i < n; i++) {
        call c = calls[i];
        if (c.kind == W && c.c.dtype != c.a.dtype)
            c.c.data = r->logits.data;
        switch (c.kind) {
        case W:
            be->gemm_w(be, c.c, c.a, c.w, &c.low, c.beta != 0 ? &c.c : NULL);
            break;
        case WT:
            be->gemm_wt(be, c.c, c.a, c.w, &c.low, c.beta);
            break;
        case NT:
            be->gemm_nt(be, c.c, c.a, c.b, c.alpha, c.beta);
            break;
        case NN:
            be->gemm_nn(be, c.c, c.a, c.b, c.alpha, c.beta);
            break;
        default:
            be->gemm_tn(be, c.c, c.a, c.b, c.alpha, c.beta);
            break;
        }
    }
}

/* ---- batches --------------------------------------------------------------
 */

typedef struct step_data {
    model_batch pass;
    int32_t *ids, *cu, *row, *target;
    float *weight;
    call *calls;
    int64_t n_calls;
} step_data;

static int32_t draw_length(base_rng *rng, double mean)
{
    double sigma = 0.4, u = 1 - base_rng_uniform(rng);
    double z = sqrt(-2 * log(u)) * cos(6.283185307 * base_rng_uniform(rng));
    double len = exp(log(mean) - sigma * sigma / 2 + sigma * z);
    return (int32_t)(len < 16 ? 16 : len > LONGEST ? LONGEST : len);
}

static void draw(step_data *s, base_rng *rng, int64_t batch, double mean,
                 int64_t vocab)
{
    size_t most = (size_t)batch * LONGEST;
    s->ids = need(calloc(most, sizeof *s->ids));
    s->row = need(calloc(most, sizeof *s->row));
    s->target = need(calloc(most, sizeof *s->target));
    s->weight = need(calloc(most, sizeof *s->weight));
    s->cu = need(calloc((size_t)batch + 1, sizeof *s->cu));
    model_batch *b = &s->pass;
    *b = (model_batch){.ids = s->ids, .cu = s->cu, .row = s->row};
    b->target = s->target;
    b->weight = s->weight;
    b->n_seqs = batch;
    for (int64_t i = 0; i < batch; i++) {
        int32_t n = draw_length(rng, mean), first = s->cu[i];
        s->cu[i + 1] = first + n;
        for (int32_t t = first; t < first + n; t++)
            s->ids[t] = (int32_t)base_rng_below(rng, (uint64_t)vocab);
        for (int32_t t = first + n * 6 / 10; t + 1 < first + n; t++) {
            s->row[b->n_rows] = t;
            s->target[b->n_rows++] = s->ids[t + 1];
        }
    }
    b->n_tokens = s->cu[batch];
    for (int64_t i = 0; i < b->n_rows; i++)
        s->weight[i] = 1.0F / (float)b->n_rows;
}

/* ---- a step -----------------------------------------------------------------
 */

typedef struct bench {
    recorder rec;
    model *m;
    adapter *ad;
    model_adapter *ma;
    optim optim;
    model_run *run;
    train_recipe recipe;
    step_data data[STEPS];
    int64_t steps, batch, done;
    size_t planned;
} bench;

static double one_step(bench *b, const step_data *s)
{
    lori_error err;
    double began = base_now_s(), loss, norm;
    optim_zero_grad(&b->optim);
    must(model_loss(b->run, &s->pass, b->ma, true, NULL, &loss, &err), &err);
    must(optim_grad_norm(&b->optim, &norm, &err), &err);
    optim_update(&b->optim, &b->recipe, 1e-4, norm, ++b->done);
    must(b->rec.be.sync(&b->rec.be, &err), &err);
    return base_now_s() - began;
}

static double products_alone(bench *b, const step_data *s)
{
    lori_error err;
    double began = base_now_s();
    replay(&b->rec, s->calls, s->n_calls);
    must(b->rec.be.sync(&b->rec.be, &err), &err);
    return base_now_s() - began;
}

static void open_bench(bench *b, const char *folder, double mean, int threads)
{
    lori_error err;
    backend *be = NULL;
    backend_options o = {.name = "cpu",
                         .dtype = BASE_BF16,
                         .n_threads = threads,
                         .isa = getenv("LORI_ISA")};
    must(backend_open(&o, &be, &err), &err);
    recorder_init(&b->rec, be);
    must(model_open(folder, &b->rec.be, &b->m, &err), &err);
    const model_config *c = model_get_config(b->m);
    adapter_site_spec *specs = NULL;
    int64_t n = 0;
    must(model_sites(c, NULL, 0, RANK, 2 * RANK, &specs, &n, &err), &err);
    must(adapter_new(specs, n, false, &b->ad, &err), &err);
    model_sites_free(specs, n);
    adapter_init_a(b->ad, 1);
    must(model_adapter_new(b->m, b->ad, &b->ma, &err), &err);
    must(optim_init(&b->optim, b->ma, b->ad, NULL, false, &err), &err);
    b->recipe = (train_recipe){.adam_beta1 = 0.9,
                               .adam_beta2 = 0.999,
                               .adam_epsilon = 1e-8,
                               .max_grad_norm = 1};
    base_rng rng;
    base_rng_start(&rng, 7, 0);
    model_limits limits = {.backward = true, .rank = RANK, .seqs = b->batch};
    for (int64_t i = 0; i < b->steps; i++) {
        step_data *s = &b->data[i];
        draw(s, &rng, b->batch, mean, c->vocab);
        if (s->pass.n_tokens > limits.tokens)
            limits.tokens = s->pass.n_tokens;
        if (s->pass.n_rows > limits.rows)
            limits.rows = s->pass.n_rows;
    }
    limits.keep_all = c->n_layers;
    b->planned = model_run_bytes(b->m, &limits);
    must(model_run_new(b->m, &limits, &b->run, &err), &err);
}

/* First time of every step: prepares its products and records them. */
static void warm_up(bench *b)
{
    recorder *r = &b->rec;
    int64_t most = 0;
    for (int64_t i = 0; i < b->steps; i++) {
        r->recording = true;
        one_step(b, &b->data[i]);
        r->recording = false;
        b->data[i].calls = r->calls;
        b->data[i].n_calls = r->n;
        for (int64_t k = 0; k < r->n; k++) {
            const call *c = &r->calls[k];
            int64_t n = c->c.rows * c->c.ld;
            if (c->kind == W && c->c.dtype != c->a.dtype && n > most)
                most = n;
        }
        r->calls = NULL;
        r->n = r->room = 0;
    }
    r->logits.data = need(r->inner->alloc(r->inner, (size_t)most * 4));
}

static void close_bench(bench *b)
{
    b->rec.inner->free(b->rec.inner, b->rec.logits.data);
    for (int64_t i = 0; i < b->steps; i++) {
        step_data *s = &b->data[i];
        void *all[] = {s->ids, s->row, s->target, s->weight, s->cu, s->calls};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            free(all[k]);
    }
    model_run_free(b->run);
    optim_fini(&b->optim);
    model_adapter_free(b->ma);
    adapter_free(b->ad);
    model_close(b->m);
    backend_close(b->rec.inner);
}

/* ---- the report
 * -------------------------------------------------------------- */

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* Medians over the steps of each operation's share. */
static void shares(const bench *b, double (*op_s)[OPS], const double *step,
                   double *op_share, double *part_share)
{
    for (int p = 0; p < PARTS; p++)
        part_share[p] = 0;
    part_share[PARTS] = 1;
    for (int o = 0; o < OPS; o++) {
        double of_step[STEPS];
        for (int64_t i = 0; i < b->steps; i++)
            of_step[i] = op_s[i][o] / step[i];
        op_share[o] = median(of_step, b->steps);
        part_share[op_parts[o]] += op_share[o];
        part_share[PARTS] -= op_share[o];
    }
}

static void print_json(const bench *b, const char *name, const double *figure,
                       const double *op_share, const double *part_share)
{
    printf("{\"model\": \"%s\", \"backend\": \"%s\", \"batch\": %d, "
           "\"steps\": %d, \"step_s\": %.4f, \"products_s\": %.4f, "
           "\"products_gflops\": %.1f, \"ratio\": %.4f, "
           "\"useful_tokens_per_s\": %.1f, \"workspace_bytes\": %zu, "
           "\"rss_anon_bytes\": %lld, \"share\": {",
           name, b->rec.inner->detail, (int)b->batch, (int)b->steps, figure[0],
           figure[1], figure[2], figure[3], figure[4], b->planned,
           (long long)base_rss_anon_bytes());
    for (int p = 0; p <= PARTS; p++)
        printf("%s\"%s\": %.4f", p ? ", " : "", part_names[p], part_share[p]);
    printf("}, \"operations\": {");
    for (int o = 0; o < OPS; o++)
        printf("%s\"%s\": %.4f", o ? ", " : "", op_names[o], op_share[o]);
    puts("}}");
}

static void report(const bench *b, const char *name, double (*op_s)[OPS],
                   double *step, double *alone)
{
    double ratio[STEPS], rate[STEPS], speed[STEPS];
    double op_share[OPS], part_share[PARTS + 1];
    shares(b, op_s, step, op_share, part_share);
    for (int64_t i = 0; i < b->steps; i++) {
        double f = 0;
        for (int64_t k = 0; k < b->data[i].n_calls; k++)
            f += flops(&b->data[i].calls[k]);
        ratio[i] = alone[i] / step[i];
        rate[i] = f / alone[i] * 1e-9;
        speed[i] = (double)b->data[i].pass.n_tokens / step[i];
    }
    double figure[] = {median(step, b->steps), median(alone, b->steps),
                       median(rate, b->steps), median(ratio, b->steps),
                       median(speed, b->steps)};
    printf("  step %.3f s, its products alone %.3f s at %.0f GFLOP/s: ratio "
           "%.3f (medians of %d)\n  %.0f useful tok/s; workspace planned %.3f "
           "GB, private memory at the end %.3f GB\n",
           figure[0], figure[1], figure[2], figure[3], (int)b->steps, figure[4],
           (double)b->planned * 1e-9, (double)base_rss_anon_bytes() * 1e-9);
    for (int p = 0; p <= PARTS; p++) {
        printf("  %-18s %5.1f %%", part_names[p], 100 * part_share[p]);
        for (int o = 0; o < OPS; o++)
            if ((int)op_parts[o] == p && op_share[o] >= 0.0005)
                printf("  %s %.1f", op_names[o], 100 * op_share[o]);
        putchar('\n');
    }
    print_json(b, name, figure, op_share, part_share);
}

int main(int argc, char **argv)
{
    static bench b;
    b.batch = argc > 2 ? atoll(argv[2]) : 8;
    b.steps = argc > 3 ? atoll(argv[3]) : 5;
    double mean = argc > 4 ? atof(argv[4]) : 220;
    if (argc < 2 || b.batch < 1 || b.batch > 1024 || b.steps < 1 ||
        b.steps > STEPS || mean < 16 || mean > LONGEST) {
        fputs("usage: bench_step MODEL_FOLDER [BATCH [STEPS (at most 32) "
              "[MEAN_LENGTH (16 to 512) [THREADS]]]]\n",
              stderr);
        return 2;
    }
    double step[STEPS], alone[STEPS], op_s[STEPS][OPS];
    open_bench(&b, argv[1], mean, argc > 5 ? atoi(argv[5]) : 0);
    printf("%s: %s, %d sequences of mean length %.0f\n",
           base_path_name(argv[1]), b.rec.inner->detail, (int)b.batch, mean);
    warm_up(&b);
    for (int64_t i = 0; i < b.steps; i++) {
        memset(b.rec.seconds, 0, sizeof b.rec.seconds);
        step[i] = one_step(&b, &b.data[i]);
        memcpy(op_s[i], b.rec.seconds, sizeof op_s[i]);
        alone[i] = products_alone(&b, &b.data[i]);
    }
    report(&b, base_path_name(argv[1]), op_s, step, alone);
    close_bench(&b);
    return 0;
}
