/* ref_attn.c - attention, its backward and the page pools, as obvious loops.
 *
 * Compiled twice, under the rules stated in ref_ops.c: double inside whatever
 * is stored, threads share out whole heads, nothing is allocated (one row of
 * D sums lives on the stack, so D <= REF_MAX_HEAD_DIM). Offsets and page
 * numbers are checked before anything is read through them. May include base
 * and backend.h. */
#include "backend/ref/ref_real_i.h"

/* One head of one sequence: rows of q and positions of k and v. */
typedef struct seq {
    int64_t q0, len_q, k0, len_k;
    const int32_t *table; /* pages, or NULL */
    const backend_attn *desc;
} seq;

static seq seq_at(const backend_attn *d, int s)
{
    return (seq){.q0 = d->cu_q[s],
                 .len_q = d->cu_q[s + 1] - d->cu_q[s],
                 .k0 = d->cu_k[s],
                 .len_k = d->cu_k[s + 1] - d->cu_k[s],
                 .table =
                     d->block_table ? d->block_table + s * d->table_ld : NULL,
                 .desc = d};
}

/* Row of k and v that holds position j. */
static int64_t key_row(const seq *s, int64_t j)
{
    if (!s->table)
        return s->k0 + j;
    int page = s->desc->page;
    return (int64_t)s->table[j / page] * page + j % page;
}

/* First position visible from position p. */
static int64_t first_key(const seq *s, int64_t p)
{
    int64_t w = s->desc->window;
    return w > 0 && p - w + 1 > 0 ? p - w + 1 : 0;
}

static bool pages_hold(const seq *s, int64_t pool_rows)
{
    int page = s->desc->page;
    for (int64_t j = 0; j * page < s->len_k; j++) {
        if (j >= s->desc->table_ld || s->table[j] < 0 ||
            ((int64_t)s->table[j] + 1) * page > pool_rows)
            return false;
    }
    return true;
}

static bool offsets_hold(const backend_attn *d, int64_t q_rows, int64_t k_rows)
{
    if (d->n_seq < 0 || d->window < 0 || (d->block_table && d->page <= 0))
        return false;
    for (int i = 0; i < d->n_seq; i++) {
        seq s = seq_at(d, i);
        if (s.q0 < 0 || s.k0 < 0 || s.len_q < 0 || s.len_k < s.len_q ||
            s.len_q > d->max_q || s.len_k > d->max_k || s.q0 + s.len_q > q_rows)
            return false;
        if (s.table ? !pages_hold(&s, k_rows) : s.k0 + s.len_k > k_rows)
            return false;
    }
    return true;
}

static bool attn_fits(backend *be, const char *op, backend_view q,
                      backend_view k, backend_view v, const backend_attn *d)
{
    bool heads = d->n_kv_heads > 0 && d->n_heads % d->n_kv_heads == 0 &&
                 d->head_dim > 0 && d->head_dim <= REF_MAX_HEAD_DIM;
    int64_t wide = (int64_t)d->n_heads * d->head_dim;
    int64_t narrow = (int64_t)d->n_kv_heads * d->head_dim;
    return FITS(be, op,
                heads && q.cols == wide && k.cols == narrow && same_shape(k, v),
                q, k, v) &&
           ref_holds(be, op, offsets_hold(d, q.rows, k.rows),
                     "sequence offsets or pages do not fit the rows");
}

/* Online log-sum-exp of the scaled scores of query row i of head h. */
static double attn_lse(const seq *s, const real *q, backend_view k, int64_t i)
{
    int64_t p = s->len_k - s->len_q + i, d = s->desc->head_dim;
    double max = -HUGE_VAL, sum = 0;
    for (int64_t j = first_key(s, p); j <= p; j++) {
        double x = s->desc->scale * dot(q, row(k, key_row(s, j)), d);
        if (x > max) {
            sum = sum * exp(max - x) + 1.0;
            max = x;
        } else {
            sum += exp(x - max);
        }
    }
    return max + log(sum);
}

/* o = sum_j exp(score_j - lse) v_j: scores are formed twice, so nothing of
 * the length of the sequence is stored. */
static void attn_row(const seq *s, real *o, real *lse, const real *q,
                     backend_view k, backend_view v, int64_t i)
{
    int64_t p = s->len_k - s->len_q + i, d = s->desc->head_dim;
    double norm = attn_lse(s, q, k, i), sum[REF_MAX_HEAD_DIM];
    if (lse)
        *lse = (real)norm;
    for (int64_t t = 0; t < d; t++)
        sum[t] = 0;
    for (int64_t j = first_key(s, p); j <= p; j++) {
        int64_t r = key_row(s, j);
        double w = exp(s->desc->scale * dot(q, row(k, r), d) - norm);
        for (int64_t t = 0; t < d; t++)
            sum[t] += w * (double)row(v, r)[t];
    }
    for (int64_t t = 0; t < d; t++)
        o[t] = (real)sum[t];
}

static void attn(backend *be, backend_view o, backend_view lse, backend_view q,
                 backend_view k, backend_view v, const backend_attn *desc)
{
    bool has_lse = lse.data != NULL;
    if (!attn_fits(be, "attn", q, k, v, desc) ||
        !FITS(be, "attn", same_shape(o, q), o, q) ||
        (has_lse &&
         !FITS(be, "attn", lse.rows == q.rows && lse.cols == desc->n_heads, lse,
               q)))
        return;
    int group = desc->n_heads / desc->n_kv_heads, d = desc->head_dim;
    for (int n = 0; n < desc->n_seq; n++) {
        seq s = seq_at(desc, n);
        bool threads = s.len_q * s.len_k * q.cols > WORTH_THREADS;
#pragma omp parallel for num_threads(be->n_threads)                            \
    schedule(static) if (threads)
        for (int h = 0; h < desc->n_heads; h++) {
            backend_view kh = backend_cols(k, (int64_t)(h / group) * d, d);
            backend_view vh = backend_cols(v, (int64_t)(h / group) * d, d);
            for (int64_t i = 0; i < s.len_q; i++)
                attn_row(&s, row(o, s.q0 + i) + (int64_t)h * d,
                         has_lse ? row(lse, s.q0 + i) + h : NULL,
                         row(q, s.q0 + i) + (int64_t)h * d, kh, vh, i);
        }
    }
}

/* The operands of attn_bwd, cut to one query head and its K/V head. */
typedef struct grad {
    backend_view dout, q, k, v, o, lse, delta;
} grad;

/* With p_ij = exp(x_ij - lse_i), x_ij = scale q_i.k_j and o_i = sum_j p_ij v_j:
 *   dv_j = sum_i p_ij do_i            dp_ij = do_i . v_j
 *   dx_ij = p_ij (dp_ij - delta_i)    delta_i = sum_j p_ij dp_ij = do_i . o_i
 *   dq_i = scale sum_j dx_ij k_j      dk_j = scale sum_i dx_ij q_i.
 * Source: FlashAttention-2, arXiv:2307.08691, section 2. */
static double attn_p(const seq *s, const grad *g, int64_t i, int64_t j,
                     double *dx)
{
    int64_t d = s->desc->head_dim, qi = s->q0 + i, kj = s->k0 + j;
    double x = s->desc->scale * dot(row(g->q, qi), row(g->k, kj), d);
    double p = exp(x - (double)*row(g->lse, qi));
    double dp = dot(row(g->dout, qi), row(g->v, kj), d);
    *dx = p * (dp - (double)*row(g->delta, qi));
    return p;
}

static void attn_bwd_q(const seq *s, const grad *g, real *dq, int64_t i)
{
    int64_t d = s->desc->head_dim;
    double sum[REF_MAX_HEAD_DIM], dx;
    for (int64_t t = 0; t < d; t++)
        sum[t] = 0;
    for (int64_t j = first_key(s, i); j <= i; j++) {
        attn_p(s, g, i, j, &dx);
        for (int64_t t = 0; t < d; t++)
            sum[t] += dx * (double)row(g->k, s->k0 + j)[t];
    }
    for (int64_t t = 0; t < d; t++)
        dq[t] = (real)(s->desc->scale * sum[t]);
}

/* Adds one query head's part to the sums of dk_j and dv_j. */
static void attn_bwd_kv(const seq *s, const grad *g, double *dk, double *dv,
                        int64_t j)
{
    int64_t d = s->desc->head_dim;
    for (int64_t i = j; i < s->len_q && first_key(s, i) <= j; i++) {
        double dx, p = attn_p(s, g, i, j, &dx);
        for (int64_t t = 0; t < d; t++) {
            dk[t] += s->desc->scale * dx * (double)row(g->q, s->q0 + i)[t];
            dv[t] += p * (double)row(g->dout, s->q0 + i)[t];
        }
    }
}

static grad grad_head(const grad *all, const backend_attn *desc, int h)
{
    int64_t d = desc->head_dim, at = h * d;
    int64_t kv = (int64_t)(h / (desc->n_heads / desc->n_kv_heads)) * d;
    return (grad){.dout = backend_cols(all->dout, at, d),
                  .q = backend_cols(all->q, at, d),
                  .k = backend_cols(all->k, kv, d),
                  .v = backend_cols(all->v, kv, d),
                  .o = backend_cols(all->o, at, d),
                  .lse = backend_cols(all->lse, h, 1),
                  .delta = backend_cols(all->delta, h, 1)};
}

/* All gradients of one K/V head of one sequence. */
static void attn_bwd_head(const seq *s, const grad *all, backend_view dq,
                          backend_view dk, backend_view dv, int kv_head)
{
    const backend_attn *desc = s->desc;
    int group = desc->n_heads / desc->n_kv_heads;
    int64_t d = desc->head_dim;
    for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
        grad g = grad_head(all, desc, h);
        for (int64_t i = 0; i < s->len_q; i++)
            *row(g.delta, s->q0 + i) =
                (real)dot(row(g.dout, s->q0 + i), row(g.o, s->q0 + i), d);
        for (int64_t i = 0; i < s->len_q; i++)
            attn_bwd_q(s, &g, row(dq, s->q0 + i) + h * d, i);
    }
    for (int64_t j = 0; j < s->len_k; j++) {
        double sum_k[REF_MAX_HEAD_DIM], sum_v[REF_MAX_HEAD_DIM];
        for (int64_t t = 0; t < d; t++)
            sum_k[t] = sum_v[t] = 0;
        for (int h = kv_head * group; h < (kv_head + 1) * group; h++) {
            grad g = grad_head(all, desc, h);
            attn_bwd_kv(s, &g, sum_k, sum_v, j);
        }
        for (int64_t t = 0; t < d; t++) {
            row(dk, s->k0 + j)[kv_head * d + t] = (real)sum_k[t];
            row(dv, s->k0 + j)[kv_head * d + t] = (real)sum_v[t];
        }
    }
}

static bool square_contiguous(const backend_attn *d)
{
    if (d->block_table)
        return false;
    for (int n = 0; n < d->n_seq; n++) {
        seq s = seq_at(d, n);
        if (s.len_q != s.len_k)
            return false;
    }
    return true;
}

static void attn_bwd(backend *be, backend_view dq, backend_view dk,
                     backend_view dv, backend_view dout, backend_view q,
                     backend_view k, backend_view v, backend_view o,
                     backend_view lse, backend_view delta,
                     const backend_attn *desc)
{
    const char *op = "attn_bwd";
    bool fits = same_shape(q, dq) && same_shape(q, dout) && same_shape(q, o) &&
                same_shape(k, dk) && same_shape(v, dv) &&
                same_shape(lse, delta) && lse.rows == q.rows &&
                lse.cols == desc->n_heads;
    if (!attn_fits(be, op, q, k, v, desc) ||
        !FITS(be, op, fits, dq, dk, dv, dout, q, k, v, o, lse, delta) ||
        !ref_holds(be, op, square_contiguous(desc),
                   "needs contiguous keys and len_q = len_k"))
        return;
    grad all = {dout, q, k, v, o, lse, delta};
    for (int n = 0; n < desc->n_seq; n++) {
        seq s = seq_at(desc, n);
        bool threads = s.len_q * s.len_k * q.cols > WORTH_THREADS;
#pragma omp parallel for num_threads(be->n_threads)                            \
    schedule(static) if (threads)
        for (int h = 0; h < desc->n_kv_heads; h++)
            attn_bwd_head(&s, &all, dq, dk, dv, h);
    }
}

static void kv_write(backend *be, backend_view k_pool, backend_view v_pool,
                     backend_view k, backend_view v, const backend_attn *desc)
{
    int64_t narrow = (int64_t)desc->n_kv_heads * desc->head_dim;
    bool fits = same_shape(k, v) && same_shape(k_pool, v_pool) &&
                k.cols == narrow && k_pool.cols == narrow;
    if (!FITS(be, "kv_write", fits, k_pool, v_pool, k, v) ||
        !ref_holds(be, "kv_write", offsets_hold(desc, k.rows, k_pool.rows),
                   "sequence offsets or pages do not fit the rows"))
        return;
    for (int n = 0; n < desc->n_seq; n++) {
        seq s = seq_at(desc, n);
        for (int64_t i = 0; i < s.len_q; i++) {
            int64_t r = key_row(&s, s.len_k - s.len_q + i);
            size_t bytes = (size_t)narrow * sizeof(real);
            memcpy(row(k_pool, r), row(k, s.q0 + i), bytes);
            memcpy(row(v_pool, r), row(v, s.q0 + i), bytes);
        }
    }
}

void REF_NAME(ref_attn)(backend *be)
{
    be->attn = attn;
    be->attn_bwd = attn_bwd;
    be->kv_write = kv_write;
}
