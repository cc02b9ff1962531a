/* test_ref_attn.c - attention of the reference: forward against a dense
 * softmax, backward against central differences, packing, windows, grouped
 * heads, pages. */
#include "backend/fd.h"

/* Everything of one call; arrays are host memory (ref). */
typedef struct attn_case {
    backend *be;
    int n_seq;
    int32_t cu[8];
    int H, K, D;
    int64_t n, window;
    double *q, *k, *v, *o, *lse, *weight; /* weight: dL/do */
} attn_case;

typedef struct attn_spec {
    int len[4]; /* 0 ends */
    int H, K, D;
    int64_t window;
} attn_spec;

/* Lengths with 1 among them, groups of 1, 2 and 3 heads, windows shorter than,
 * equal to and longer than a sequence, and 1 (a token sees only itself). */
static const attn_spec specs[] = {
    {{5, 1, 9}, 4, 2, 4, 0}, {{1}, 1, 1, 2, 0},       {{7, 3}, 3, 1, 3, 3},
    {{6, 4}, 2, 2, 5, 1},    {{8, 5, 1}, 6, 2, 2, 5}, {{9}, 2, 1, 4, 100},
};
#define N_SPECS (sizeof specs / sizeof specs[0])

static attn_case attn_new(const attn_spec *s)
{
    attn_case c = {.be = fd_open(BASE_F64),
                   .H = s->H,
                   .K = s->K,
                   .D = s->D,
                   .window = s->window};
    for (int i = 0; i < 4 && s->len[i]; i++) {
        c.cu[i + 1] = c.cu[i] + s->len[i];
        c.n_seq++;
    }
    c.n = c.cu[c.n_seq];
    c.q = fd_random(c.n * c.H * c.D, 1, 1.5);
    c.k = fd_random(c.n * c.K * c.D, 2, 1.5);
    c.v = fd_random(c.n * c.K * c.D, 3, 1.0);
    c.weight = fd_random(c.n * c.H * c.D, 4, 1.0);
    c.o = fd_zeros(c.n * c.H * c.D);
    c.lse = fd_zeros(c.n * c.H);
    return c;
}

static void attn_free(attn_case *c)
{
    fd_close(c->be);
    free(c->q);
    free(c->k);
    free(c->v);
    free(c->o);
    free(c->lse);
    free(c->weight);
}

static backend_attn attn_desc(const attn_case *c)
{
    return (backend_attn){.n_seq = c->n_seq,
                          .cu_q = c->cu,
                          .cu_k = c->cu,
                          .max_q = c->n,
                          .max_k = c->n,
                          .n_heads = c->H,
                          .n_kv_heads = c->K,
                          .head_dim = c->D,
                          .window = c->window,
                          .scale = 0.7};
}

static double attn_loss(void *context)
{
    attn_case *c = context;
    backend_attn desc = attn_desc(c);
    int64_t wide = (int64_t)c->H * c->D, narrow = (int64_t)c->K * c->D;
    c->be->attn(c->be, fd_view(c->o, c->n, wide), fd_view(c->lse, c->n, c->H),
                fd_view(c->q, c->n, wide), fd_view(c->k, c->n, narrow),
                fd_view(c->v, c->n, narrow), &desc);
    return fd_dot(c->o, c->weight, c->n * wide);
}

/* Row i, head h by a dense masked softmax over all rows. */
static double dense_row(const attn_case *c, int64_t i, int h, double *o)
{
    int group = c->H / c->K;
    int64_t first = 0;
    for (int s = 0; s < c->n_seq; s++) {
        if (i >= c->cu[s] && i < c->cu[s + 1])
            first = c->cu[s];
    }
    double sum = 0;
    memset(o, 0, (size_t)c->D * sizeof *o);
    for (int64_t j = 0; j < c->n; j++) {
        bool visible =
            j >= first && j <= i && (c->window == 0 || i - j < c->window);
        const double *k = c->k + (j * c->K + h / group) * c->D;
        double p =
            visible ? exp(0.7 * fd_dot(c->q + (i * c->H + h) * c->D, k, c->D))
                    : 0;
        sum += p;
        for (int t = 0; t < c->D; t++)
            o[t] += p * c->v[(j * c->K + h / group) * c->D + t];
    }
    for (int t = 0; t < c->D; t++)
        o[t] /= sum;
    return log(sum);
}

Test(ref_attn, forward_equals_a_dense_softmax)
{
    for (size_t s = 0; s < N_SPECS; s++) {
        attn_case c = attn_new(&specs[s]);
        attn_loss(&c);
        for (int64_t i = 0; i < c.n; i++) {
            for (int h = 0; h < c.H; h++) {
                double o[8], l = dense_row(&c, i, h, o);
                /* Scores below 10 and at most 9 terms: a few rounding errors
                 * of 1e-16, and any wrong key moves o by more than 1e-4. */
                cr_assert_float_eq(c.lse[i * c.H + h], l, 1e-13);
                cr_assert(fd_error(c.o + (i * c.H + h) * c.D, o, c.D) < 1e-12,
                          "spec %zu row %d head %d", s, (int)i, h);
            }
        }
        attn_free(&c);
    }
}

Test(ref_attn, backward_equals_central_differences)
{
    for (size_t s = 0; s < N_SPECS; s++) {
        attn_case c = attn_new(&specs[s]);
        attn_loss(&c);
        int64_t wide = (int64_t)c.H * c.D, narrow = (int64_t)c.K * c.D;
        double *dq = fd_random(c.n * wide, 5, 1);
        double *dk = fd_random(c.n * narrow, 6, 1);
        double *dv = fd_random(c.n * narrow, 7, 1);
        double *delta = fd_zeros(c.n * c.H);
        backend_attn desc = attn_desc(&c);
        c.be->attn_bwd(c.be, fd_view(dq, c.n, wide), fd_view(dk, c.n, narrow),
                       fd_view(dv, c.n, narrow), fd_view(c.weight, c.n, wide),
                       fd_view(c.q, c.n, wide), fd_view(c.k, c.n, narrow),
                       fd_view(c.v, c.n, narrow), fd_view(c.o, c.n, wide),
                       fd_view(c.lse, c.n, c.H), fd_view(delta, c.n, c.H),
                       &desc);
        double ev = fd_check(attn_loss, &c, c.v, c.n * narrow, dv);
        cr_assert(ev <= FD_TOL, "spec %zu: dv %g", s, ev);
        if (c.window == 1 || c.n == 1) { /* softmax of one score: no slope */
            cr_assert(fd_dot(dq, dq, c.n * wide) < 1e-24);
            cr_assert(fd_dot(dk, dk, c.n * narrow) < 1e-24);
        } else {
            double eq = fd_check(attn_loss, &c, c.q, c.n * wide, dq);
            double ek = fd_check(attn_loss, &c, c.k, c.n * narrow, dk);
            cr_assert(eq <= FD_TOL && ek <= FD_TOL, "spec %zu: dq %g dk %g", s,
                      eq, ek);
        }
        free(dq);
        free(dk);
        free(dv);
        free(delta);
        attn_free(&c);
    }
}

Test(ref_attn, packed_equals_one_sequence_at_a_time)
{
    attn_case c = attn_new(&specs[4]);
    attn_loss(&c);
    double *packed = fd_copy(c.o, c.n * c.H * c.D);
    int32_t all[8];
    memcpy(all, c.cu, sizeof all);
    int n_seq = c.n_seq;
    memset(c.o, 0, (size_t)(c.n * c.H * c.D) * sizeof *c.o);
    c.n_seq = 1;
    for (int s = 0; s < n_seq; s++) {
        c.cu[0] = all[s];
        c.cu[1] = all[s + 1];
        attn_loss(&c);
    }
    cr_assert_eq(
        memcmp(packed, c.o, (size_t)(c.n * c.H * c.D) * sizeof *packed), 0);
    free(packed);
    attn_free(&c);
}

Test(ref_attn, rows_outside_every_sequence_are_left_alone)
{
    attn_case c = attn_new(&specs[0]);
    for (int64_t i = 0; i < c.n * c.H * c.D; i++)
        c.o[i] = -3;
    c.n_seq = 1;
    c.cu[0] = 1; /* rows 1..4 */
    attn_loss(&c);
    int64_t wide = (int64_t)c.H * c.D;
    for (int64_t i = 0; i < c.n; i++)
        cr_assert_eq(c.o[i * wide] == -3, i == 0 || i >= 5, "row %d", (int)i);
    attn_free(&c);
}

/* ---- pages ------------------------------------------------------------ */

enum { PAGE = 4, TABLE = 5, POOL = 14 * PAGE };

/* Two sequences with a past: positions 0..len_k-1 live in shuffled pages, only
 * the last len_q positions have queries. */
typedef struct paged {
    int32_t cu_q[3], cu_k[3], table[2 * TABLE];
    backend_attn desc;
} paged;

static void paged_init(paged *p, int q0, int k0, int q1, int k1, int64_t window)
{
    static const int32_t pages[2 * TABLE] = {9, 2, 13, 0, 5, 7, 1, 12, 4, 3};
    *p = (paged){.cu_q = {0, q0, q0 + q1}, .cu_k = {0, k0, k0 + k1}};
    memcpy(p->table, pages, sizeof pages);
    p->desc = (backend_attn){.n_seq = 2,
                             .cu_q = p->cu_q,
                             .cu_k = p->cu_k,
                             .max_q = q0 > q1 ? q0 : q1,
                             .max_k = k0 > k1 ? k0 : k1,
                             .block_table = p->table,
                             .table_ld = TABLE,
                             .page = PAGE,
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 3,
                             .window = window,
                             .scale = 0.5};
}

/* Fills the pools chunk by chunk through kv_write, as decoding does, then
 * compares paged attention with attention over contiguous rows. */
static void check_paged(int q0, int k0, int q1, int k1, int64_t window)
{
    backend *be = fd_open(BASE_F64);
    enum { W = 12, N = 6 };
    int64_t nk = k0 + k1, nq = q0 + q1;
    double *k = fd_random(nk * N, 1, 1), *v = fd_random(nk * N, 2, 1);
    double *pk = fd_zeros(POOL * N), *pv = fd_zeros(POOL * N);
    double *q = fd_random(nq * W, 3, 1), *o = fd_zeros(nq * W);
    double *want = fd_zeros(nq * W);
    for (int64_t i = 0; i < POOL * N; i++) /* what nobody may read */
        pk[i] = pv[i] = NAN;
    for (int done = 0; done < k0 || done < k1; done += 3) {
        int n0 = done < k0 ? (k0 - done < 3 ? k0 - done : 3) : 0;
        int n1 = done < k1 ? (k1 - done < 3 ? k1 - done : 3) : 0;
        paged w;
        paged_init(&w, n0, n0 ? done + n0 : 0, n1, n1 ? done + n1 : 0, 0);
        double rows_k[6 * N], rows_v[6 * N];
        memcpy(rows_k, k + done * N, (size_t)(n0 * N) * sizeof *k);
        memcpy(rows_v, v + done * N, (size_t)(n0 * N) * sizeof *v);
        memcpy(rows_k + n0 * N, k + (k0 + done) * N,
               (size_t)(n1 * N) * sizeof *k);
        memcpy(rows_v + n0 * N, v + (k0 + done) * N,
               (size_t)(n1 * N) * sizeof *v);
        be->kv_write(be, fd_view(pk, POOL, N), fd_view(pv, POOL, N),
                     fd_view(rows_k, n0 + n1, N), fd_view(rows_v, n0 + n1, N),
                     &w.desc);
    }
    paged p;
    paged_init(&p, q0, k0, q1, k1, window);
    backend_view none = {0};
    be->attn(be, fd_view(o, nq, W), none, fd_view(q, nq, W),
             fd_view(pk, POOL, N), fd_view(pv, POOL, N), &p.desc);
    backend_attn flat = p.desc;
    flat.block_table = NULL;
    be->attn(be, fd_view(want, nq, W), none, fd_view(q, nq, W),
             fd_view(k, nk, N), fd_view(v, nk, N), &flat);
    cr_assert_eq(memcmp(o, want, (size_t)(nq * W) * sizeof *o), 0,
                 "q %d %d k %d %d window %d", q0, q1, k0, k1, (int)window);
    free(k);
    free(v);
    free(pk);
    free(pv);
    free(q);
    free(o);
    free(want);
    fd_close(be);
}

Test(ref_attn, paged_equals_contiguous)
{
    check_paged(1, 17, 1, 5, 0);  /* decoding */
    check_paged(1, 20, 1, 4, 3);  /* whole pages, window */
    check_paged(7, 7, 3, 13, 0);  /* a prompt beside a continued one */
    check_paged(2, 9, 0, 12, 4);  /* a sequence without queries */
    check_paged(1, 1, 4, 16, 16); /* the first token of all */
}

/* A query sees itself: with len_q = len_k = n and with a past the last row of
 * o must be the same. */
Test(ref_attn, queries_are_the_last_positions)
{
    attn_case c = attn_new(&specs[5]);
    attn_loss(&c);
    int64_t wide = (int64_t)c.H * c.D, narrow = (int64_t)c.K * c.D;
    double last[16];
    int32_t cu_q[2] = {0, 1};
    backend_attn desc = attn_desc(&c);
    desc.cu_q = cu_q;
    c.be->attn(c.be, fd_view(last, 1, wide), (backend_view){0},
               fd_view(c.q + (c.n - 1) * wide, 1, wide),
               fd_view(c.k, c.n, narrow), fd_view(c.v, c.n, narrow), &desc);
    cr_assert_eq(
        memcmp(last, c.o + (c.n - 1) * wide, (size_t)wide * sizeof *last), 0);
    attn_free(&c);
}

Test(ref_attn, a_page_outside_the_pool_is_an_error_not_a_read)
{
    backend *be = fd_open(BASE_F64);
    double *pool = fd_zeros(POOL * 6), *q = fd_zeros(2 * 12);
    paged p;
    paged_init(&p, 1, 9, 1, 9, 0);
    p.table[TABLE + 2] = 14;
    be->attn(be, fd_view(q, 2, 12), (backend_view){0}, fd_view(q, 2, 12),
             fd_view(pool, POOL, 6), fd_view(pool, POOL, 6), &p.desc);
    lori_error err = {0};
    cr_assert_eq(be->sync(be, &err), LORI_DEVICE);
    cr_assert(strstr(err.message, "page"), "%s", err.message);
    p.table[TABLE + 2] = 11;
    p.cu_q[2] = 3; /* more query rows than q has */
    be->attn(be, fd_view(q, 2, 12), (backend_view){0}, fd_view(q, 2, 12),
             fd_view(pool, POOL, 6), fd_view(pool, POOL, 6), &p.desc);
    cr_assert_eq(be->sync(be, &err), LORI_DEVICE);
    free(pool);
    free(q);
    fd_close(be);
}
