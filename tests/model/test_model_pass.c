/* test_model_pass.c - what a pass must not depend on: neighbours in the
 * batch, rows asked for, kept entries, threads, the cache; and what it takes.
 */
#include <math.h>
#include <stdlib.h>

#include "tiny_model.h"

static const tiny_spec mistral = {
    .family = "mistral", .window = 6, .kv_heads = 1, .seed = 11};
static const tiny_spec llama = {.rope = MODEL_ROPE_LLAMA3,
                                .tied = true,
                                .attention_bias = true,
                                .layers = 3,
                                .seed = 12};

/* Passes of so different lengths go other ways through products. */
static const int lengths[] = {9, 40, 1, 17, 2};
#define SEQS 5

static double *losses(tiny *t, const tiny_batch *b, double *loss)
{
    model_run *run = tiny_run(t, b, false, MODEL_KEEP_ALL, 3);
    double *nll = base_alloc((size_t)b->b.n_rows + 1, sizeof *nll);
    lori_error err = {0};
    cr_assert_eq(model_loss(run, &b->b, t->ma, false, nll, loss, &err), LORI_OK,
                 "%s", err.message);
    model_run_free(run);
    return nll;
}

/* ---- packing --------------------------------------------------------------
 */

/* Sequence s of `all`, alone. */
static void alone(const tiny_batch *all, int s, tiny_batch *out)
{
    int32_t from = all->cu[s], to = all->cu[s + 1];
    *out = (tiny_batch){.cu = {0, to - from}};
    memcpy(out->ids, all->ids + from, (size_t)(to - from) * sizeof *out->ids);
    int64_t r = 0;
    for (int64_t i = 0; i < all->b.n_rows; i++)
        if (all->row[i] >= from && all->row[i] < to) {
            out->row[r] = all->row[i] - from;
            out->target[r] = all->target[i];
            out->weight[r++] = all->weight[i];
        }
    out->b = (model_batch){.n_tokens = to - from,
                           .n_seqs = 1,
                           .n_rows = r,
                           .ids = out->ids,
                           .cu = out->cu,
                           .row = out->row,
                           .target = out->target,
                           .weight = out->weight};
}

static void packed_is_alone(const tiny_spec *spec, const char *name,
                            base_dtype dtype, double tolerance)
{
    tiny t = tiny_open(spec, name, dtype, 0);
    tiny_adapt(&t, 3, 1);
    tiny_batch all, one;
    tiny_batch_make(&all, 101, lengths, SEQS, 1);
    double loss, sum = 0.0, part;
    double *together = losses(&t, &all, &loss);
    int64_t at = 0;
    for (int s = 0; s < SEQS; s++) {
        alone(&all, s, &one);
        double *nll = losses(&t, &one, &part);
        sum += part;
        for (int64_t i = 0; i < one.b.n_rows; i++, at++)
            cr_assert_leq(fabs(nll[i] - together[at]),
                          tolerance * (1.0 + fabs(nll[i])),
                          "%s: sequence %d row %d: %.9g alone, %.9g packed",
                          name, s, (int)i, nll[i], together[at]);
        free(nll);
    }
    cr_assert_eq(at, all.b.n_rows);
    cr_assert_leq(fabs(sum - loss), tolerance * fabs(loss));
    free(together);
    tiny_close(&t);
}

/* In double nothing but the order of sums may differ; in float it is the
 * acceptance's 1e-6; in bf16 one rounding of a residual is 2^-9, so that only
 * a leak between sequences is told from rounding. */
Test(model_pass, packed_equals_one_at_a_time)
{
    packed_is_alone(&mistral, "ref", BASE_F64, 1e-13);
    packed_is_alone(&mistral, "ref", BASE_F32, 1e-6);
    packed_is_alone(&mistral, "cpu", BASE_F32, 1e-6);
    packed_is_alone(&llama, "cpu", BASE_F32, 1e-6);
    packed_is_alone(&llama, "cpu", BASE_BF16, 3e-2);
}

/* A neighbour's tokens change nothing at all but the order of sums. */
Test(model_pass, neighbours_are_invisible)
{
    tiny t = tiny_open(&llama, "ref", BASE_F64, 0);
    tiny_batch a, b;
    tiny_batch_make(&a, 101, lengths, SEQS, 2);
    b = a;
    b.b.ids = b.ids;
    b.b.cu = b.cu;
    for (int32_t i = a.cu[1]; i < a.cu[2]; i++)
        b.ids[i] = (a.ids[i] + 1) % 101;
    double la, lb, *na = losses(&t, &a, &la), *nb = losses(&t, &b, &lb);
    int64_t changed = 0;
    for (int64_t i = 0; i < a.b.n_rows; i++) {
        bool inside = a.row[i] >= a.cu[1] && a.row[i] < a.cu[2];
        if (inside)
            changed += na[i] != nb[i];
        else
            cr_assert_eq(na[i], nb[i], "row %d sees its neighbour", (int)i);
    }
    cr_assert_gt(changed, 20);
    free(na);
    free(nb);
    tiny_close(&t);
}

/* The last block and the head run on label rows only: exact. */
Test(model_pass, fewer_label_rows_change_nothing)
{
    tiny t = tiny_open(&mistral, "ref", BASE_F64, 0);
    tiny_adapt(&t, 3, 3);
    tiny_batch all, some;
    tiny_batch_make(&all, 101, lengths, SEQS, 3);
    some = all;
    some.b.n_rows = 0;
    for (int64_t i = 2; i < all.b.n_rows; i += 5) {
        some.row[some.b.n_rows] = all.row[i];
        some.target[some.b.n_rows] = all.target[i];
        some.weight[some.b.n_rows++] = all.weight[i];
    }
    some.b.row = some.row;
    some.b.target = some.target;
    some.b.weight = some.weight;
    double loss, *full = losses(&t, &all, &loss);
    double *few = losses(&t, &some, &loss);
    for (int64_t i = 0; i < some.b.n_rows; i++)
        cr_assert_float_eq(few[i], full[2 + 5 * i], 1e-12);

    /* and logits give the same nll */
    double *logits = base_alloc((size_t)(some.b.n_rows * 101), sizeof *logits);
    model_run *run = tiny_run(&t, &some, false, MODEL_KEEP_ALL, 3);
    cr_assert_eq(model_logits(run, &some.b, t.ma, logits, NULL), LORI_OK);
    for (int64_t i = 0; i < some.b.n_rows; i++) {
        double sum = 0.0;
        for (int j = 0; j < 101; j++)
            sum += exp(logits[i * 101 + j]);
        cr_assert_float_eq(log(sum) - logits[i * 101 + some.target[i]], few[i],
                           1e-11);
    }
    model_run_free(run);
    free(logits);
    free(full);
    free(few);
    tiny_close(&t);
}

/* ---- gradients --------------------------------------------------------------
 */

static void pass(tiny *t, model_run *run, const tiny_batch *b, double *loss)
{
    lori_error err = {0};
    cr_assert_eq(model_loss(run, &b->b, t->ma, true, NULL, loss, &err), LORI_OK,
                 "%s", err.message);
}

/* Two passes add up, and a gradient of kept entries is those of the dense
 * one, bit for bit. */
Test(model_pass, kept_entries_of_the_dense_gradient)
{
    tiny t = tiny_open(&llama, "ref", BASE_F64, 0);
    tiny_adapt(&t, 3, 4);
    tiny_gradients(&t, false);
    tiny_batch b;
    tiny_batch_make(&b, 101, lengths, SEQS, 4);
    model_run *run = tiny_run(&t, &b, true, MODEL_KEEP_NO_MLP, 3);
    double loss;
    pass(&t, run, &b, &loss);
    model_site *s = &t.ma->sites[9];
    int64_t n = s->out * s->rank, kept = 0;
    double *dense = tiny_fetch(t.be, s->gB, n);

    backend_keep keep = {.rows = s->out, .cols = s->rank};
    uint32_t *bits = t.be->alloc(t.be, (size_t)s->out * sizeof *bits);
    int64_t *start = t.be->alloc(t.be, (size_t)(s->out + 1) * sizeof *start);
    uint32_t host_bits[64] = {0};
    int64_t host_start[65] = {0};
    double expected[256];
    cr_assert_leq(s->out, 64);
    for (int64_t i = 0; i < s->out; i++) {
        host_start[i] = kept;
        for (int64_t j = 0; j < s->rank; j++)
            if ((i * 7 + j * 3) % 5 == 0) {
                host_bits[i] |= 1U << j;
                expected[kept++] = dense[i * s->rank + j];
            }
    }
    host_start[s->out] = keep.kept = kept;
    t.be->copy(t.be, bits, host_bits, (size_t)s->out * sizeof *bits,
               BACKEND_TO_DEVICE);
    t.be->copy(t.be, start, host_start, (size_t)(s->out + 1) * sizeof *start,
               BACKEND_TO_DEVICE);
    cr_assert_eq(t.be->sync(t.be, NULL), LORI_OK);
    keep.bits = bits;
    keep.start = start;
    s->keep = &keep;
    tiny_zero_gradients(&t);
    pass(&t, run, &b, &loss);
    double *packed = tiny_fetch(t.be, s->gB, kept);
    cr_assert_eq(memcmp(packed, expected, (size_t)kept * sizeof *packed), 0);
    free(packed);
    pass(&t, run, &b, &loss); /* adds the same again */
    packed = tiny_fetch(t.be, s->gB, kept);
    for (int64_t i = 0; i < kept; i++)
        cr_assert_eq(packed[i], 2.0 * expected[i]);
    free(packed);
    free(dense);
    t.be->free(t.be, bits);
    t.be->free(t.be, start);
    model_run_free(run);
    tiny_close(&t);
}

/* Only the sites that ask get a gradient, and the pass stops where nothing
 * below is trained: the gradient of a site is the same either way. */
Test(model_pass, partly_trained_adapters)
{
    tiny t = tiny_open(&llama, "ref", BASE_F64, 0);
    tiny_adapt(&t, 3, 5);
    tiny_gradients(&t, true);
    tiny_batch b;
    tiny_batch_make(&b, 101, lengths, SEQS, 5);
    model_run *run = tiny_run(&t, &b, true, MODEL_KEEP_INPUTS, 3);
    double loss;
    pass(&t, run, &b, &loss);
    for (int64_t only = 0; only < t.ma->n_sites; only++) {
        model_site saved[32], *s = &t.ma->sites[only];
        int64_t nb = s->out * s->rank, na = s->rank * s->in;
        double *fullB = tiny_fetch(t.be, s->gB, nb);
        double *fullA = tiny_fetch(t.be, s->gA, na);
        memcpy(saved, t.ma->sites, (size_t)t.ma->n_sites * sizeof *saved);
        for (int64_t i = 0; i < t.ma->n_sites; i++)
            if (i != only)
                t.ma->sites[i].gA = t.ma->sites[i].gB = NULL;
        t.be->zero(t.be, s->gB, (size_t)nb * sizeof(double));
        t.be->zero(t.be, s->gA, (size_t)na * sizeof(double));
        pass(&t, run, &b, &loss);
        double *aloneB = tiny_fetch(t.be, s->gB, nb);
        double *aloneA = tiny_fetch(t.be, s->gA, na);
        cr_assert_eq(memcmp(aloneB, fullB, (size_t)nb * sizeof *fullB), 0,
                     "B of %s", t.ad->sites[only].path);
        cr_assert_eq(memcmp(aloneA, fullA, (size_t)na * sizeof *fullA), 0,
                     "A of %s", t.ad->sites[only].path);
        memcpy(t.ma->sites, saved, (size_t)t.ma->n_sites * sizeof *saved);
        free(fullA);
        free(fullB);
        free(aloneA);
        free(aloneB);
    }
    model_run_free(run);
    tiny_close(&t);
}

typedef int64_t rounding(int64_t n);

static double *everything(int n_threads, base_dtype dtype, rounding *rows,
                          int64_t *n)
{
    tiny t = tiny_open(&mistral, "cpu", dtype, n_threads);
    t.be->round_rows = rows;
    tiny_adapt(&t, 3, 6);
    tiny_gradients(&t, true);
    tiny_batch b;
    tiny_batch_make(&b, 101, lengths, SEQS, 6);
    model_run *run = tiny_run(&t, &b, true, MODEL_KEEP_ALL, 3);
    double *all = base_alloc(1 << 16, sizeof *all);
    pass(&t, run, &b, all);
    *n = 1;
    for (int64_t i = 0; i < t.ma->n_sites; i++) {
        model_site *s = &t.ma->sites[i];
        for (int k = 0; k < 2; k++) {
            int64_t some = s->rank * (k ? s->out : s->in);
            double *g = tiny_fetch(t.be, k ? s->gB : s->gA, some);
            memcpy(all + *n, g, (size_t)some * sizeof *g);
            *n += some;
            free(g);
        }
    }
    model_run_free(run);
    tiny_close(&t);
    return all;
}

Test(model_pass, threads_do_not_change_bits)
{
    for (int k = 0; k < 2; k++) {
        int64_t n;
        double *one = everything(1, k ? BASE_BF16 : BASE_F32, NULL, &n);
        double *two = everything(2, k ? BASE_BF16 : BASE_F32, NULL, &n);
        cr_assert_eq(memcmp(one, two, (size_t)n * sizeof *one), 0);
        free(one);
        free(two);
    }
}

static int64_t sixteens(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* cuBLASLt sums in an order of its own for every shape. */
static bool bits_go_by_shape(const backend *be)
{
    return strstr(be->detail, "cuBLASLt") != NULL;
}

/* Rows that a backend asks for beside those that are there. */
Test(model_pass, rows_to_spare_change_no_bits)
{
    tiny t = tiny_open(&mistral, "cpu", BASE_F32, 0);
    const bool known = !bits_go_by_shape(t.be);
    tiny_close(&t);
    for (int k = 0; k < 2 && known; k++) {
        int64_t n;
        double *some = everything(2, k ? BASE_BF16 : BASE_F32, NULL, &n);
        double *more = everything(2, k ? BASE_BF16 : BASE_F32, sixteens, &n);
        for (int64_t i = 0; i < n; i++)
            cr_assert_eq(some[i], more[i], "number %d", (int)i);
        free(some);
        free(more);
    }
}

/* ---- the cache
 * ---------------------------------------------------------------- */

enum { VOCAB = 101, PAGE = 4, LONG = 23, SHORT = 14, LD = 7 };

/* One step: `piece` new tokens of each of the two sequences of `b`. */
typedef struct cached_step {
    int32_t ids[64], row[64], cu[3], past[2], table[2 * LD];
    int32_t from[64]; /* the token in the batch */
    model_step step;
} cached_step;

static void make_step(cached_step *c, const tiny_batch *b, const int piece[2],
                      int done[2])
{
    static const int32_t table[2 * LD] = {11, 3, 8, 0, 6,  2,  9,
                                          5,  1, 7, 4, 10, -1, 77};
    int seqs = 0, n = 0;
    for (int s = 0; s < 2; s++) {
        if (!piece[s])
            continue; /* this one sits the step out */
        for (int i = 0; i < piece[s]; i++, n++) {
            c->from[n] = b->cu[s] + done[s] + i;
            c->ids[n] = b->ids[c->from[n]];
            c->row[n] = n;
        }
        c->past[seqs] = done[s];
        memcpy(c->table + seqs * LD, table + s * LD, LD * sizeof *table);
        c->cu[++seqs] = n;
        done[s] += piece[s];
    }
    c->step = (model_step){.n_tokens = n,
                           .n_seqs = seqs,
                           .n_rows = n,
                           .ids = c->ids,
                           .cu = c->cu,
                           .past = c->past,
                           .table = c->table,
                           .table_ld = LD,
                           .row = c->row};
}

static double worst_row(backend *be, const void *part, const void *full)
{
    double worst = 0.0;
    for (int j = 0; j < VOCAB; j++)
        worst = fmax(worst, be->acc == BASE_F64
                                ? fabs(((const double *)part)[j] -
                                       ((const double *)full)[j])
                                : (double)fabsf(((const float *)part)[j] -
                                                ((const float *)full)[j]));
    return worst;
}

/* How far `lse` is from log(sum(exp(.))) of a row. */
static double lse_error(backend *be, const void *row, double lse)
{
    double sum = 0.0;
    for (int j = 0; j < VOCAB; j++)
        sum += exp((be->acc == BASE_F64 ? ((const double *)row)[j]
                                        : (double)((const float *)row)[j]) -
                   lse);
    return fabs(log(sum));
}

/* Two sequences grow by uneven pieces into pages taken in a mixed order; every
 * token's logits are those of the full pass. */
static void cached_is_full(const tiny_spec *spec, const char *name,
                           base_dtype dtype, rounding *rows, double tolerance)
{
    static const int pieces[][2] = {{9, 3}, {1, 1}, {1, 4},
                                    {5, 0}, {1, 1}, {6, 5}};
    tiny t = tiny_open(spec, name, dtype, 0);
    t.be->round_rows = rows;
    tiny_adapt(&t, 3, 8);
    tiny_batch b;
    tiny_batch_make(&b, VOCAB, (const int[]){LONG, SHORT}, 2, 8);
    for (int32_t i = 0; i < LONG + SHORT; i++)
        b.row[i] = i;
    b.b.n_rows = LONG + SHORT;
    model_run *run = tiny_run(&t, &b, false, MODEL_KEEP_ALL, 3);
    size_t line = VOCAB * base_dtype_bytes(t.be->acc);
    char *full = base_alloc(LONG + SHORT, line);
    char *part = base_alloc(LONG + SHORT, line);
    lori_error err = {0};
    cr_assert_eq(model_logits(run, &b.b, t.ma, full, &err), LORI_OK, "%s",
                 err.message);
    model_cache *cache;
    cr_assert_eq(model_cache_new(t.m, 12, PAGE, &cache, &err), LORI_OK, "%s",
                 err.message);
    int done[2] = {0, 0};
    for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
        cached_step c = {0};
        make_step(&c, &b, pieces[k], done);
        if (k == 1) /* logits of nothing: keys and values all the same */
            c.step.n_rows = 0;
        model_segment all = {c.step.n_tokens, t.ma};
        c.step.segments = &all;
        c.step.n_segments = 1;
        double lse[64];
        cr_assert_eq(model_forward_cached(run, cache, &c.step, part, lse, &err),
                     LORI_OK, "%s", err.message);
        for (int64_t i = 0; i < c.step.n_rows; i++) {
            double d = worst_row(t.be, part + (size_t)i * line,
                                 full + (size_t)c.from[i] * line);
            cr_assert_leq(d, tolerance, "%s: logits of token %d differ by %g",
                          name, c.from[i], d);
            /* Floats of size 1 to 10, and a sum of 101 of them. */
            d = lse_error(t.be, part + (size_t)i * line, lse[i]);
            cr_assert_leq(d, t.be->acc == BASE_F64 ? 1e-13 : 3e-6,
                          "%s: lse of token %d is wrong by %g", name, c.from[i],
                          d);
        }
    }
    cr_assert_eq(done[0], LONG);
    cr_assert_eq(done[1], SHORT);
    free(full);
    free(part);
    model_cache_free(cache);
    model_run_free(run);
    tiny_close(&t);
}

/* Logits are of size 1 to 10; only the order of sums differs. */
Test(model_pass, cached_logits_equal_full_logits)
{
    cached_is_full(&llama, "ref", BASE_F64, NULL, 1e-12);
    cached_is_full(&mistral, "ref", BASE_F64, NULL, 1e-12);
    cached_is_full(&mistral, "ref", BASE_F32, NULL, 1e-5);
    cached_is_full(&llama, "cpu", BASE_F32, NULL, 1e-5);
    cached_is_full(&mistral, "cpu", BASE_F32, NULL, 1e-5);
    cached_is_full(&llama, "cpu", BASE_F32, sixteens, 1e-5);
}

/* The first sequence's logits where its adapter is also the other's, and where
 * that one has none. */
static void in_company(base_dtype dtype)
{
    tiny t = tiny_open(&llama, "cpu", dtype, 0);
    if (bits_go_by_shape(t.be)) {
        tiny_close(&t);
        return;
    }
    tiny_adapt(&t, 3, 8);
    tiny_batch b;
    tiny_batch_make(&b, VOCAB, (const int[]){LONG, SHORT}, 2, 8);
    b.b.n_rows = LONG + SHORT; /* that the run has room for */
    model_run *run = tiny_run(&t, &b, false, MODEL_KEEP_ALL, 3);
    float *logits[2];
    for (int mixed = 0; mixed < 2; mixed++) {
        lori_error err = {0};
        model_cache *cache;
        cr_assert_eq(model_cache_new(t.m, 12, PAGE, &cache, &err), LORI_OK);
        int done[2] = {0, 0};
        cached_step c = {0};
        make_step(&c, &b, (const int[]){LONG, SHORT}, done);
        const model_segment one = {LONG + SHORT, t.ma},
                            two[2] = {{LONG, t.ma}, {LONG + SHORT, NULL}};
        c.step.segments = mixed ? two : &one;
        c.step.n_segments = mixed ? 2 : 1;
        logits[mixed] = base_alloc((LONG + SHORT) * VOCAB, sizeof(float));
        cr_assert_eq(model_forward_cached(run, cache, &c.step, logits[mixed],
                                          NULL, &err),
                     LORI_OK, "%s", err.message);
        model_cache_free(cache);
    }
    const size_t line = VOCAB * sizeof(float);
    cr_assert_eq(memcmp(logits[0], logits[1], LONG * line), 0,
                 "a row's bits depend on the adapters of others");
    cr_assert_neq(memcmp(logits[0] + LONG * VOCAB, logits[1] + LONG * VOCAB,
                         SHORT * line),
                  0);
    free(logits[0]);
    free(logits[1]);
    model_run_free(run);
    tiny_close(&t);
}

Test(model_pass, a_row_does_not_depend_on_other_adapters)
{
    in_company(BASE_F32);
    in_company(BASE_BF16);
}

/* ---- memory
 * --------------------------------------------------------------------- */

static size_t taken, calls;
static void *(*real_alloc)(backend *be, size_t bytes);
static void *(*real_host)(backend *be, size_t bytes);
static void *counting_alloc(backend *be, size_t bytes)
{
    taken += bytes;
    calls++;
    return real_alloc(be, bytes);
}
static void *counting_host(backend *be, size_t bytes)
{
    calls++;
    return real_host(be, bytes);
}

Test(model_pass, workspace_is_what_it_says)
{
    tiny t = tiny_open(&llama, "cpu", BASE_F32, 1);
    tiny_adapt(&t, 3, 9);
    tiny_gradients(&t, false);
    tiny_batch b;
    tiny_batch_make(&b, 101, lengths, SEQS, 9);
    real_alloc = t.be->alloc;
    real_host = t.be->host_alloc;
    t.be->alloc = counting_alloc;
    t.be->host_alloc = counting_host;
    size_t before = 0;
    for (int s = 2; s >= 0; s--) { /* each keeps more than the one before */
        model_limits limits = {.tokens = b.b.n_tokens,
                               .seqs = SEQS,
                               .rows = b.b.n_rows,
                               .backward = true,
                               .rank = 3,
                               .keep_all = s == MODEL_KEEP_ALL ? 99 : 0,
                               .keep_no_mlp = s == MODEL_KEEP_NO_MLP ? 99 : 0};
        taken = 0;
        model_run *run = tiny_run(&t, &b, true, (model_schedule)s, 3);
        cr_assert_eq(taken, model_run_bytes(t.m, &limits));
        cr_assert_gt(taken, before);
        before = taken;
        double loss;
        pass(&t, run, &b, &loss);
        calls = 0;
        for (int i = 0; i < 3; i++)
            pass(&t, run, &b, &loss);
        cr_assert_eq(calls, 0, "a pass took memory");
        model_run_free(run);
    }
    t.be->alloc = real_alloc;
    t.be->host_alloc = real_host;
    tiny_close(&t);
}

/* Every allocation of the device fails in turn: an error each time, nothing
 * half-built, nothing leaked (the sanitizer build looks). */
static int fail_at;
static void *failing_alloc(backend *be, size_t bytes)
{
    return fail_at-- ? real_alloc(be, bytes) : NULL;
}
static void *failing_host(backend *be, size_t bytes)
{
    return fail_at-- ? real_host(be, bytes) : NULL;
}

static lori_status open_everything(tiny *t, backend *be)
{
    lori_error err = {0};
    model *m = NULL;
    model_adapter *ma = NULL;
    model_run *run = NULL;
    model_cache *cache = NULL;
    model_limits limits = {
        .tokens = 20, .seqs = 2, .rows = 5, .rank = 3, .backward = true};
    lori_status st = model_open(t->folder, be, &m, &err);
    if (!st)
        st = model_adapter_new(m, t->ad, &ma, &err);
    if (!st)
        st = model_run_new(m, &limits, &run, &err);
    if (!st)
        st = model_cache_new(m, 3, 4, &cache, &err);
    cr_assert(!st || (st == LORI_NO_MEMORY && err.message[0]), "%s",
              err.message);
    cr_assert(!st == !!cache);
    model_cache_free(cache);
    model_run_free(run);
    model_adapter_free(ma);
    model_close(m);
    return st;
}

Test(model_pass, no_memory_is_an_error)
{
    tiny t = tiny_open(&llama, "ref", BASE_F32, 0);
    tiny_adapt(&t, 3, 9);
    backend_options o = {.name = "ref", .dtype = BASE_F32};
    backend *be;
    cr_assert_eq(backend_open(&o, &be, NULL), LORI_OK);
    real_alloc = be->alloc;
    real_host = be->host_alloc;
    be->alloc = failing_alloc;
    be->host_alloc = failing_host;
    int n = 0;
    for (fail_at = 0; open_everything(&t, be) != LORI_OK; fail_at = ++n)
        cr_assert_lt(n, 50);
    cr_assert_gt(n, 4);
    backend_close(be);
    tiny_close(&t);
}

/* ---- refusals
 * ---------------------------------------------------------------------- */

static void refuses(lori_status got, lori_status want, const lori_error *err,
                    const char *text)
{
    cr_assert_eq(got, want, "%s", err->message);
    cr_assert_str_eq(err->message, text);
}

Test(model_pass, bad_batches_are_refused)
{
    tiny t = tiny_open(&llama, "ref", BASE_F32, 0);
    tiny_batch b;
    tiny_batch_make(&b, 101, (const int[]){6, 5}, 2, 10);
    model_run *run = tiny_run(&t, &b, false, MODEL_KEEP_ALL, 0);
    lori_error err = {0};
    double loss;
    b.ids[3] = 101;
    refuses(model_loss(run, &b.b, NULL, false, NULL, &loss, &err), LORI_INVALID,
            &err, "token 3 is id 101; the model's vocabulary has 101");
    b.ids[3] = 7;
    b.target[1] = -1;
    refuses(model_loss(run, &b.b, NULL, false, NULL, &loss, &err), LORI_INVALID,
            &err, "target 1 is id -1; the model's vocabulary has 101");
    b.target[1] = 1;
    b.row[1] = b.row[0];
    refuses(model_loss(run, &b.b, NULL, false, NULL, &loss, &err), LORI_INVALID,
            &err,
            "label row 1 names token 2: rows must ascend and lie in [0, 11)");
    tiny_adapt(&t, 3, 10);
    b.row[1] = b.row[0] + 1;
    refuses(model_loss(run, &b.b, t.ma, false, NULL, &loss, &err), LORI_INVALID,
            &err, "adapter of rank 3 in a workspace made for rank 0");
    b.b.n_tokens = 12;
    refuses(model_loss(run, &b.b, NULL, false, NULL, &loss, &err), LORI_INVALID,
            &err,
            "batch of 12 tokens in 2 sequences; the workspace holds 11 in 2");
    model_run_free(run);
    tiny_close(&t);
}

Test(model_pass, a_loss_that_is_no_number_is_an_error)
{
    tiny t = tiny_open(&llama, "cpu", BASE_F32, 0);
    tiny_adapt(&t, 3, 10);
    tiny_batch b;
    tiny_batch_make(&b, 101, (const int[]){6, 5}, 2, 10);
    model_run *run = tiny_run(&t, &b, false, MODEL_KEEP_ALL, 3);
    float nan = NAN;
    t.be->copy(t.be, t.ma->sites[2].B, &nan, sizeof nan, BACKEND_TO_DEVICE);
    lori_error err = {0};
    double loss;
    refuses(model_loss(run, &b.b, t.ma, false, NULL, &loss, &err), LORI_NUMERIC,
            &err,
            "the loss of label row 0 (token 2) is not a finite number: the "
            "weights or the adapter hold NaN or infinity, or the learning rate "
            "is too high");
    cr_assert_eq(loss, 0.0);
    model_run_free(run);
    tiny_close(&t);
}
