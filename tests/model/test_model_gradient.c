/* test_model_gradient.c - the backward pass against central differences of
 * the forward pass, in double. */
#include <math.h>
#include <stdlib.h>

#include "tiny_model.h"

static const int lengths[] = {9, 19, 5}; /* the window below is 6 */

static const tiny_spec specs[] = {
    {.family = "llama", .rope = MODEL_ROPE_LLAMA3, .seed = 1},
    {.family = "llama",
     .tied = true,
     .attention_bias = true,
     .mlp_bias = true,
     .head_dim = 12,
     .layers = 3,
     .seed = 2},
    {.family = "mistral",
     .window = 6,
     .rope = MODEL_ROPE_LINEAR,
     .kv_heads = 1,
     .seed = 3},
};

static double loss_of(tiny *t, model_run *run, const tiny_batch *b)
{
    double loss;
    lori_error err = {0};
    cr_assert_eq(model_loss(run, &b->b, t->ma, false, NULL, &loss, &err),
                 LORI_OK, "%s", err.message);
    return loss;
}

/* d loss / d step of matrix + step * direction, at step 0. */
static double slope(tiny *t, model_run *run, const tiny_batch *b,
                    double *device, int64_t n, const double *direction)
{
    double *start = tiny_fetch(t->be, device, n), f[2];
    double *moved = base_alloc((size_t)n, sizeof *moved);
    const double step = 1e-5;
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < n; i++)
            moved[i] = start[i] + (k ? -step : step) * direction[i];
        t->be->copy(t->be, device, moved, (size_t)n * sizeof *moved,
                    BACKEND_TO_DEVICE);
        f[k] = loss_of(t, run, b);
    }
    t->be->copy(t->be, device, start, (size_t)n * sizeof *start,
                BACKEND_TO_DEVICE);
    cr_assert_eq(t->be->sync(t->be, NULL), LORI_OK);
    free(start);
    free(moved);
    return (f[0] - f[1]) / (2.0 * step);
}

/* The central difference's own error is step^2 f''' / 6 ~ 1e-8 of the norm,
 * and 1e-16 loss / step ~ 1e-9: 1e-6 holds with room, and every wrong term
 * is far larger. */
static void check_matrix(tiny *t, model_run *run, const tiny_batch *b,
                         const char *path, char which, void *matrix,
                         const void *gradient, int64_t n, base_rng *rng)
{
    double *g = tiny_fetch(t->be, gradient, n), norm = 0.0;
    double *u = base_alloc((size_t)n, sizeof *u);
    for (int64_t i = 0; i < n; i++)
        norm += g[i] * g[i];
    norm = sqrt(norm);
    cr_assert_gt(norm, 1e-6, "%s %c: no gradient", path, which);
    for (int trial = 0; trial < 3; trial++) {
        double dot = 0.0, scale = trial ? 1.0 : 1.0 / sqrt((double)n);
        for (int64_t i = 0; i < n; i++) /* first all at once, then entries */
            u[i] = trial ? 0.0 : scale * (2.0 * base_rng_uniform(rng) - 1.0);
        if (trial)
            u[base_rng_below(rng, (uint64_t)n)] = 1.0;
        for (int64_t i = 0; i < n; i++)
            dot += u[i] * g[i];
        double fd = slope(t, run, b, matrix, n, u);
        cr_assert_leq(fabs(fd - dot), 1e-6 * norm,
                      "%s %c trial %d: backward %.12g, difference %.12g "
                      "(norm %g)",
                      path, which, trial, dot, fd, norm);
    }
    free(u);
    free(g);
}

static void check_spec(const tiny_spec *spec)
{
    tiny t = tiny_open(spec, "ref", BASE_F64, 0);
    tiny_adapt(&t, 3, spec->seed);
    tiny_gradients(&t, true);
    tiny_batch b;
    tiny_batch_make(&b, model_get_config(t.m)->vocab, lengths, 3, spec->seed);
    model_run *run = tiny_run(&t, &b, true, MODEL_KEEP_ALL, 3);
    double loss;
    lori_error err = {0};
    cr_assert_eq(model_loss(run, &b.b, t.ma, true, NULL, &loss, &err), LORI_OK,
                 "%s", err.message);
    cr_assert_float_eq(loss, loss_of(&t, run, &b), 0.0);
    base_rng rng;
    base_rng_start(&rng, spec->seed, 4);
    for (int64_t i = 0; i < t.ma->n_sites; i++) {
        model_site *s = &t.ma->sites[i];
        const char *path = t.ad->sites[i].path;
        check_matrix(&t, run, &b, path, 'B', s->B, s->gB, s->out * s->rank,
                     &rng);
        check_matrix(&t, run, &b, path, 'A', s->A, s->gA, s->in * s->rank,
                     &rng);
    }
    model_run_free(run);
    tiny_close(&t);
}

Test(model_gradient, llama_scaled_rope)
{
    check_spec(&specs[0]);
}

Test(model_gradient, llama_tied_biases)
{
    check_spec(&specs[1]);
}

Test(model_gradient, mistral_window)
{
    check_spec(&specs[2]);
}

/* All gradients of a pass, one after the other; free() it. */
static double *all_gradients(tiny *t, int64_t *n)
{
    *n = 0;
    for (int64_t i = 0; i < t->ma->n_sites; i++)
        *n += t->ma->sites[i].rank * (t->ma->sites[i].out + t->ma->sites[i].in);
    double *all = base_alloc((size_t)*n, sizeof *all), *p = all;
    for (int64_t i = 0; i < t->ma->n_sites; i++) {
        model_site *s = &t->ma->sites[i];
        int64_t a = s->rank * s->in, b = s->rank * s->out;
        double *ga = tiny_fetch(t->be, s->gA, a);
        double *gb = tiny_fetch(t->be, s->gB, b);
        memcpy(p, ga, (size_t)a * sizeof *p);
        memcpy(p + a, gb, (size_t)b * sizeof *p);
        p += a + b;
        free(ga);
        free(gb);
    }
    return all;
}

static double *gradients_with(tiny *t, const tiny_batch *b, int64_t keep_all,
                              int64_t keep_no_mlp, double *loss, int64_t *n)
{
    model_limits limits = {.tokens = b->b.n_tokens,
                           .seqs = b->b.n_seqs,
                           .rows = b->b.n_rows,
                           .backward = true,
                           .keep_all = keep_all,
                           .keep_no_mlp = keep_no_mlp,
                           .rank = 3};
    model_run *run;
    lori_error err = {0};
    cr_assert_eq(model_run_new(t->m, &limits, &run, &err), LORI_OK, "%s",
                 err.message);
    tiny_zero_gradients(t);
    cr_assert_eq(model_loss(run, &b->b, t->ma, true, NULL, loss, &err), LORI_OK,
                 "%s", err.message);
    model_run_free(run);
    return all_gradients(t, n);
}

/* Every mix of schedules that a budget may choose. */
static void same_bits(const char *backend_name, base_dtype dtype)
{
    tiny t = tiny_open(&specs[1], backend_name, dtype, 0);
    tiny_adapt(&t, 3, 7);
    tiny_gradients(&t, true);
    tiny_batch b;
    tiny_batch_make(&b, model_get_config(t.m)->vocab, lengths, 3, 7);
    const int64_t layers = model_get_config(t.m)->n_layers;
    cr_assert_eq(layers, 3);
    double loss, first;
    int64_t n;
    double *want = gradients_with(&t, &b, layers, 0, &first, &n);
    for (int64_t all = 0; all < layers; all++)
        for (int64_t no_mlp = 0; no_mlp <= layers - all; no_mlp++) {
            double *g = gradients_with(&t, &b, all, no_mlp, &loss, &n);
            cr_assert_eq(loss, first);
            cr_assert_eq(memcmp(g, want, (size_t)n * sizeof *g), 0,
                         "%d + %d layers give other bits", (int)all,
                         (int)no_mlp);
            free(g);
        }
    free(want);
    tiny_close(&t);
}

Test(model_gradient, schedules_give_the_same_bits)
{
    same_bits("ref", BASE_F64);
    same_bits("ref", BASE_F32);
}

Test(model_gradient, schedules_give_the_same_bits_cpu)
{
    same_bits("cpu", BASE_F32);
    same_bits("cpu", BASE_BF16);
}

/* The schedule is the best that fits, whatever the budget, and more memory
 * never makes a worse one. */
Test(model_gradient, a_budget_chooses_the_schedule)
{
    tiny t = tiny_open(&specs[1], "cpu", BASE_F32, 1);
    model_limits most = {.tokens = 100,
                         .seqs = 3,
                         .rows = 50,
                         .backward = true,
                         .keep_all = 3,
                         .rank = 3};
    model_limits least = most, l = most;
    least.keep_all = 0;
    size_t high = model_run_bytes(t.m, &most), low;
    low = model_run_bytes(t.m, &least);
    cr_assert_lt(low, high);
    cr_assert_not(model_limits_fit(t.m, low - 1, &l));
    cr_assert(l.keep_all == 0 && l.keep_no_mlp == 0);
    cr_assert(model_limits_fit(t.m, low, &l));
    cr_assert(l.keep_all == 0 && l.keep_no_mlp == 0);
    cr_assert(model_limits_fit(t.m, high, &l));
    cr_assert(l.keep_all == 3 && l.keep_no_mlp == 0);
    int64_t before = 0;
    bool mixed = false;
    for (size_t budget = low; budget < high; budget += 64) {
        cr_assert(model_limits_fit(t.m, budget, &l));
        cr_assert_leq(model_run_bytes(t.m, &l), budget);
        int64_t now = 4 * l.keep_all + l.keep_no_mlp;
        cr_assert_geq(now, before);
        mixed |= l.keep_all > 0 && l.keep_no_mlp > 0;
        before = now;
    }
    cr_assert(mixed);
    model_bytes part;
    model_run_parts(t.m, &l, &part);
    cr_assert_eq(part.kept + part.live + part.logits + part.scratch,
                 part.total);
    tiny_close(&t);
}
