/* ref_ops.c - the operations of backend.h as obvious loops: the oracle.
 * (Attention is in ref_attn.c, under the same rules.)
 *
 * Compiled twice: REF_REAL=32 stores float, REF_REAL=64 stores double; act and
 * acc are both that type. Every operation computes in double whatever it
 * stores, so one result of the float build is the exact result rounded once
 * (almost always), and other float backends can be judged against it. Sums
 * run in a fixed order that does not depend on the number of threads:
 * threads only share out whole rows, heads or sequences.
 * Never optimised beyond a loop order that walks memory forwards. Allocates
 * nothing. May include base and backend.h. */
#include "backend/ref/ref_real_i.h"

/* Columns handled together, their double sums on the stack. */
#define TILE 64

static backend_view weight_view(const backend *be, const backend_weight *w)
{
    /* No weight fits nothing. */
    return w ? backend_matrix(w->data, be->act, w->rows, w->cols)
             : backend_matrix(NULL, be->act, -1, -1);
}

/* ---- products of matrices -------------------------------------------- */

static void product_nt(const backend *be, backend_view c, backend_view a,
                       backend_view b, double alpha, double beta)
{
    bool threads = c.rows * c.cols * a.cols > WORTH_THREADS;
#pragma omp parallel for num_threads(be->n_threads)                            \
    schedule(static) if (threads)
    for (int64_t i = 0; i < c.rows; i++) {
        for (int64_t j = 0; j < c.cols; j++)
            put(row(c, i) + j, alpha * dot(row(a, i), row(b, j), a.cols), beta);
    }
}

static void nn_row(real *c, const real *a, backend_view b, double alpha,
                   double beta)
{
    double sum[TILE];
    for (int64_t j = 0; j < b.cols; j += TILE) {
        int64_t n = b.cols - j < TILE ? b.cols - j : TILE;
        memset(sum, 0, sizeof sum);
        for (int64_t k = 0; k < b.rows; k++) {
            const real *bk = row(b, k) + j;
            for (int64_t t = 0; t < n; t++)
                sum[t] += (double)a[k] * (double)bk[t];
        }
        for (int64_t t = 0; t < n; t++)
            put(c + j + t, alpha * sum[t], beta);
    }
}

static void product_nn(const backend *be, backend_view c, backend_view a,
                       backend_view b, double alpha, double beta)
{
    bool threads = c.rows * c.cols * a.cols > WORTH_THREADS;
#pragma omp parallel for num_threads(be->n_threads)                            \
    schedule(static) if (threads)
    for (int64_t i = 0; i < c.rows; i++)
        nn_row(row(c, i), row(a, i), b, alpha, beta);
}

static void gemm_nt(backend *be, backend_view c, backend_view a, backend_view b,
                    double alpha, double beta)
{
    if (FITS(be, "gemm_nt",
             c.rows == a.rows && c.cols == b.rows && a.cols == b.cols, c, a, b))
        product_nt(be, c, a, b, alpha, beta);
}

static void gemm_nn(backend *be, backend_view c, backend_view a, backend_view b,
                    double alpha, double beta)
{
    if (FITS(be, "gemm_nn",
             c.rows == a.rows && c.cols == b.cols && a.cols == b.rows, c, a, b))
        product_nn(be, c, a, b, alpha, beta);
}

/* With a weight. A product of low rank follows as one of its own. */

static bool has_low(const backend_low *low)
{
    return low && low->left.cols > 0;
}

static void gemm_w(backend *be, backend_view y, backend_view x,
                   const backend_weight *w, const backend_low *low,
                   const backend_view *plus)
{
    backend_view wv = weight_view(be, w), add = plus ? *plus : y;
    if (FITS(be, "gemm_w",
             y.rows == x.rows && x.cols == wv.cols && y.cols == wv.rows &&
                 same_shape(add, y) && add.ld == y.ld,
             y, x, wv)) {
        if (add.data != y.data)
            be->cast(be, y, add);
        product_nt(be, y, x, wv, 1.0, plus ? 1.0 : 0.0);
    }
    if (has_low(low))
        gemm_nt(be, y, low->left, low->right, 1.0, 1.0);
}

static void gemm_ws(backend *be, int n_w, const backend_view *y, backend_view x,
                    backend_weight *const *w, const backend_low *low)
{
    for (int i = 0; i < n_w; i++)
        gemm_w(be, y[i], x, w[i], low ? &low[i] : NULL, NULL);
}

static void gemm_wt(backend *be, backend_view dx, backend_view dy,
                    const backend_weight *w, const backend_low *low,
                    double beta)
{
    backend_view wv = weight_view(be, w);
    if (FITS(be, "gemm_wt",
             dx.rows == dy.rows && dx.cols == wv.cols && dy.cols == wv.rows, dx,
             dy, wv))
        product_nn(be, dx, dy, wv, 1.0, beta);
    if (has_low(low))
        gemm_nn(be, dx, low->left, low->right, 1.0, 1.0);
}

static void gemm_wts(backend *be, backend_view dx, int n_w,
                     const backend_view *dy, backend_weight *const *w,
                     const backend_low *low)
{
    for (int i = 0; i < n_w; i++)
        gemm_wt(be, dx, dy[i], w[i], low ? &low[i] : NULL, i ? 1 : 0);
}

/* total[j] += sum over one block of tokens of x[t][i] y[t][j]. */
static void tn_block(double *total, backend_view x, int64_t i, backend_view y,
                     int64_t j, int64_t n)
{
    double sum[TILE] = {0};
    for (int64_t t = 0; t < x.rows; t++) {
        double xi = (double)row(x, t)[i];
        const real *yt = row(y, t) + j;
        for (int64_t u = 0; u < n; u++)
            sum[u] += xi * (double)yt[u];
    }
    for (int64_t u = 0; u < n; u++)
        total[u] += sum[u];
}

static void tn_row(real *c, backend_view x, int64_t i, backend_view y,
                   double alpha, double beta)
{
    for (int64_t j = 0; j < y.cols; j += TILE) {
        int64_t n = y.cols - j < TILE ? y.cols - j : TILE;
        double total[TILE] = {0};
        for (int64_t t = 0; t < x.rows; t += BACKEND_TOKEN_BLOCK) {
            int64_t m = x.rows - t < BACKEND_TOKEN_BLOCK ? x.rows - t
                                                         : BACKEND_TOKEN_BLOCK;
            tn_block(total, backend_rows(x, t, m), i, backend_rows(y, t, m), j,
                     n);
        }
        for (int64_t u = 0; u < n; u++)
            put(c + j + u, alpha * total[u], beta);
    }
}

static void gemm_tn(backend *be, backend_view c, backend_view x, backend_view y,
                    double alpha, double beta)
{
    if (!FITS(be, "gemm_tn",
              c.rows == x.cols && c.cols == y.cols && x.rows == y.rows, c, x,
              y))
        return;
    bool threads = c.rows * c.cols * x.rows > WORTH_THREADS;
#pragma omp parallel for num_threads(be->n_threads)                            \
    schedule(static) if (threads)
    for (int64_t i = 0; i < c.rows; i++)
        tn_row(row(c, i), x, i, y, alpha, beta);
}

static void embed(backend *be, backend_view y, const backend_weight *w,
                  const int32_t *ids)
{
    backend_view wv = weight_view(be, w);
    if (!FITS(be, "embed", y.cols == wv.cols && (ids || y.rows == 0), y, wv))
        return;
    for (int64_t i = 0; i < y.rows; i++) {
        if (!ref_holds(be, "embed", ids[i] >= 0 && ids[i] < wv.rows,
                       "a token id is outside the vocabulary"))
            return;
        memcpy(row(y, i), row(wv, ids[i]), (size_t)y.cols * sizeof(real));
    }
}

static void add_bias(backend *be, backend_view y, const void *b)
{
    const real *bias = b;
    if (!FITS(be, "add_bias", bias || y.cols == 0, y))
        return;
    for (int64_t i = 0; i < y.rows; i++) {
        for (int64_t j = 0; j < y.cols; j++)
            row(y, i)[j] += bias[j];
    }
}

/* ---- rows ------------------------------------------------------------ */

static void rmsnorm(backend *be, backend_view y, void *rstd, backend_view x,
                    const void *w, double eps)
{
    if (!FITS(be, "rmsnorm", same_shape(x, y) && w, y, x))
        return;
    const real *wr = w;
    for (int64_t i = 0; i < x.rows; i++) {
        const real *xi = row(x, i);
        double r = 1.0 / sqrt(dot(xi, xi, x.cols) / (double)x.cols + eps);
        if (rstd)
            ((real *)rstd)[i] = (real)r;
        for (int64_t j = 0; j < x.cols; j++)
            row(y, i)[j] = (real)((double)xi[j] * r * (double)wr[j]);
    }
}

/* y_j = w_j x_j r, r = (mean x^2 + eps)^(-1/2), dr/dx_k = -r^3 x_k / d.
 * dx_k = r w_k dy_k - r^3 x_k / d sum_j dy_j w_j x_j
 *      = r (w_k dy_k - xhat_k mean_j(w_j dy_j xhat_j)). */
static void rmsnorm_bwd(backend *be, backend_view dx, backend_view dy,
                        backend_view x, const void *w, const void *rstd,
                        const backend_view *copy)
{
    const backend_view to = copy ? *copy : dx;
    if (!FITS(be, "rmsnorm_bwd",
              same_shape(x, dx) && same_shape(x, dy) && same_shape(x, to) &&
                  w && (rstd || x.rows == 0),
              dx, dy, x, to))
        return;
    const real *wr = w;
    for (int64_t i = 0; i < x.rows; i++) {
        const real *xi = row(x, i), *dyi = row(dy, i);
        double r = (double)((const real *)rstd)[i], mean = 0;
        for (int64_t j = 0; j < x.cols; j++)
            mean += (double)wr[j] * (double)dyi[j] * (double)xi[j] * r;
        mean /= (double)x.cols;
        for (int64_t j = 0; j < x.cols; j++) {
            double g = (double)wr[j] * (double)dyi[j];
            put(row(dx, i) + j, r * (g - (double)xi[j] * r * mean), 1.0);
            row(to, i)[j] = row(dx, i)[j];
        }
    }
}

static void rope_head(real *x, const real *cos_row, const real *sin_row,
                      int64_t half, double sign)
{
    for (int64_t j = 0; j < half; j++) {
        double a = (double)x[j], b = (double)x[j + half];
        double c = (double)cos_row[j], s = sign * (double)sin_row[j];
        x[j] = (real)(a * c - b * s);
        x[j + half] = (real)(b * c + a * s);
    }
}

static void rope(backend *be, backend_view x, const int32_t *pos,
                 const void *cos, const void *sin, int head_dim, bool inverse)
{
    bool fits = head_dim > 0 && head_dim % 2 == 0 && x.cols % head_dim == 0 &&
                ((pos && cos && sin) || x.rows == 0);
    if (!FITS(be, "rope", fits, x))
        return;
    int64_t half = head_dim / 2;
    for (int64_t i = 0; i < x.rows; i++) {
        if (!ref_holds(be, "rope", pos[i] >= 0, "a position is negative"))
            return;
        const real *c = (const real *)cos + pos[i] * half;
        const real *s = (const real *)sin + pos[i] * half;
        for (int64_t j = 0; j < x.cols; j += head_dim)
            rope_head(row(x, i) + j, c, s, half, inverse ? -1.0 : 1.0);
    }
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static void swiglu(backend *be, backend_view a, backend_view g, backend_view u)
{
    if (!FITS(be, "swiglu", same_shape(a, g) && same_shape(a, u), a, g, u))
        return;
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            double x = (double)row(g, i)[j];
            row(a, i)[j] = (real)(x * sigmoid(x) * (double)row(u, i)[j]);
        }
    }
}

/* a = g s(g) u;  du = da g s(g);  dg = da u (s + g s (1 - s)). */
static void swiglu_bwd(backend *be, backend_view g, backend_view u,
                       backend_view da)
{
    if (!FITS(be, "swiglu_bwd", same_shape(da, g) && same_shape(da, u), g, u,
              da))
        return;
    for (int64_t i = 0; i < da.rows; i++) {
        real *gi = row(g, i), *ui = row(u, i);
        for (int64_t j = 0; j < da.cols; j++) {
            double x = (double)gi[j], y = (double)ui[j], s = sigmoid(x);
            double d = (double)row(da, i)[j];
            gi[j] = (real)(d * y * s * (1.0 + x * (1.0 - s)));
            ui[j] = (real)(d * x * s);
        }
    }
}

/* There is one type here, so a cast is a copy. */
static void cast(backend *be, backend_view dst, backend_view src)
{
    if (!FITS(be, "cast", same_shape(dst, src), dst, src) || src.cols == 0)
        return;
    for (int64_t i = 0; i < src.rows; i++)
        memmove(row(dst, i), row(src, i), (size_t)src.cols * sizeof(real));
}

static void add(backend *be, backend_view dst, backend_view src)
{
    if (!FITS(be, "add", same_shape(dst, src), dst, src))
        return;
    for (int64_t i = 0; i < src.rows; i++) {
        for (int64_t j = 0; j < src.cols; j++)
            row(dst, i)[j] += row(src, i)[j];
    }
}

static void gather_rows(backend *be, backend_view dst, backend_view src,
                        const int32_t *index)
{
    bool fits = dst.cols == src.cols && (index || dst.rows == 0);
    if (!FITS(be, "gather_rows", fits, dst, src) || dst.cols == 0)
        return;
    for (int64_t i = 0; i < dst.rows; i++) {
        if (!ref_holds(be, "gather_rows", index[i] >= 0 && index[i] < src.rows,
                       "a row index is outside the source"))
            return;
        memcpy(row(dst, i), row(src, index[i]),
               (size_t)dst.cols * sizeof(real));
    }
}

static void scatter_rows(backend *be, backend_view dst, backend_view src,
                         const int32_t *index)
{
    bool fits = dst.cols == src.cols && (index || src.rows == 0);
    if (!FITS(be, "scatter_rows", fits, dst, src) || src.cols == 0)
        return;
    for (int64_t i = 0; i < src.rows; i++) {
        if (!ref_holds(be, "scatter_rows", index[i] >= 0 && index[i] < dst.rows,
                       "a row index is outside the destination"))
            return;
        memcpy(row(dst, index[i]), row(src, i),
               (size_t)src.cols * sizeof(real));
    }
}

/* ---- loss ------------------------------------------------------------ */

static bool targets_hold(backend *be, const char *op, const int32_t *target,
                         backend_view logits)
{
    bool ok = true;
    for (int64_t i = 0; i < logits.rows; i++)
        ok = ok && target[i] >= 0 && target[i] < logits.cols;
    return ref_holds(be, op, ok, "a target is outside the vocabulary");
}

static void xent_stats(backend *be, void *lse, void *nll, backend_view logits,
                       const int32_t *target)
{
    bool fits = logits.rows == 0 || (lse && nll && target && logits.cols > 0);
    if (!FITS(be, "xent_stats", fits, logits) ||
        !targets_hold(be, "xent_stats", target, logits))
        return;
    for (int64_t i = 0; i < logits.rows; i++) {
        const real *x = row(logits, i);
        double max = (double)x[0], sum = 0;
        for (int64_t j = 1; j < logits.cols; j++)
            max = (double)x[j] > max ? (double)x[j] : max;
        for (int64_t j = 0; j < logits.cols; j++)
            sum += isfinite(x[j]) ? exp((double)x[j] - max) : (double)NAN;
        double l = max + log(sum);
        ((real *)lse)[i] = (real)l;
        ((real *)nll)[i] = (real)(l - (double)x[target[i]]);
    }
}

/* Element by element, so d may be the memory of logits. */
static void xent_grad(backend *be, backend_view d, backend_view logits,
                      const int32_t *target, const void *lse,
                      const void *weight)
{
    bool fits =
        same_shape(d, logits) && (d.rows == 0 || (lse && weight && target));
    if (!FITS(be, "xent_grad", fits, d, logits) ||
        !targets_hold(be, "xent_grad", target, logits))
        return;
    for (int64_t i = 0; i < d.rows; i++) {
        double l = (double)((const real *)lse)[i];
        double w = (double)((const real *)weight)[i];
        for (int64_t j = 0; j < d.cols; j++) {
            double p = exp((double)row(logits, i)[j] - l);
            row(d, i)[j] = (real)(w * (j == target[i] ? p - 1.0 : p));
        }
    }
}

static void argmax(backend *be, int32_t *out, backend_view x)
{
    if (!FITS(be, "argmax", x.rows == 0 || (out && x.cols > 0), x))
        return;
    for (int64_t i = 0; i < x.rows; i++) {
        int64_t best = 0;
        for (int64_t j = 1; j < x.cols; j++)
            best = row(x, i)[j] > row(x, i)[best] ? j : best;
        out[i] = (int32_t)best;
    }
}

/* ---- kept entries and optimizer -------------------------------------- */

static bool kept(const backend_keep *keep, int64_t i, int64_t j)
{
    if (!keep)
        return true;
    int64_t words = (keep->cols + 31) / 32;
    return keep->bits[i * words + j / 32] >> (j % 32) & 1;
}

static bool keep_fits(backend *be, const char *op, backend_view dense,
                      const void *packed, const backend_keep *keep)
{
    int64_t n = keep ? keep->kept : dense.rows * dense.cols;
    bool fits =
        (!keep || (keep->rows == dense.rows && keep->cols == dense.cols)) &&
        (packed || n == 0);
    return FITS(be, op, fits, dense);
}

static void keep_gather(backend *be, void *packed, backend_view dense,
                        const backend_keep *keep, bool accumulate)
{
    if (!keep_fits(be, "keep_gather", dense, packed, keep))
        return;
    real *p = packed;
    for (int64_t i = 0; i < dense.rows; i++) {
        int64_t at = keep ? keep->start[i] : i * dense.cols;
        for (int64_t j = 0; j < dense.cols; j++) {
            if (kept(keep, i, j))
                put(&p[at++], (double)row(dense, i)[j], accumulate ? 1.0 : 0.0);
        }
    }
}

static void keep_scatter(backend *be, backend_view dense, const void *packed,
                         const backend_keep *keep)
{
    if (!keep_fits(be, "keep_scatter", dense, packed, keep))
        return;
    const real *p = packed;
    for (int64_t i = 0; i < dense.rows; i++) {
        int64_t at = keep ? keep->start[i] : i * dense.cols;
        for (int64_t j = 0; j < dense.cols; j++) {
            if (kept(keep, i, j))
                row(dense, i)[j] = p[at++];
        }
    }
}

static void sqnorm(backend *be, double *out, const void *x, int64_t n)
{
    if (ref_holds(be, "sqnorm", out && n >= 0 && (x || n == 0),
                  "NULL operand or negative length"))
        *out = dot(x, x, n);
}

static void adamw(backend *be, void *p, const void *g, void *m, void *v,
                  int64_t n, const backend_adamw *hp)
{
    if (!ref_holds(be, "adamw",
                   n >= 0 && hp->step >= 1 && (n == 0 || (p && g && m && v)),
                   "NULL operand, negative length or step below 1"))
        return;
    real *pr = p, *mr = m, *vr = v;
    double c1 = 1.0 - pow(hp->beta1, (double)hp->step);
    double c2 = 1.0 - pow(hp->beta2, (double)hp->step);
    for (int64_t i = 0; i < n; i++) {
        double gi = (double)((const real *)g)[i] * hp->grad_scale;
        double pi = (double)pr[i] * (1.0 - hp->lr * hp->weight_decay);
        double mi = hp->beta1 * (double)mr[i] + (1.0 - hp->beta1) * gi;
        double vi = hp->beta2 * (double)vr[i] + (1.0 - hp->beta2) * gi * gi;
        mr[i] = (real)mi;
        vr[i] = (real)vi;
        pr[i] = (real)(pi - hp->lr / c1 * mi / (sqrt(vi / c2) + hp->eps));
    }
}

void REF_NAME(ref_ops)(backend *be)
{
    be->gemm_w = gemm_w;
    be->gemm_ws = gemm_ws;
    be->gemm_wt = gemm_wt;
    be->gemm_wts = gemm_wts;
    be->embed = embed;
    be->gemm_nt = gemm_nt;
    be->gemm_nn = gemm_nn;
    be->gemm_tn = gemm_tn;
    be->add_bias = add_bias;
    be->rmsnorm = rmsnorm;
    be->rmsnorm_bwd = rmsnorm_bwd;
    be->rope = rope;
    be->swiglu = swiglu;
    be->swiglu_bwd = swiglu_bwd;
    be->cast = cast;
    be->add = add;
    be->gather_rows = gather_rows;
    be->scatter_rows = scatter_rows;
    be->xent_stats = xent_stats;
    be->xent_grad = xent_grad;
    be->argmax = argmax;
    be->keep_gather = keep_gather;
    be->keep_scatter = keep_scatter;
    be->sqnorm = sqnorm;
    be->adamw = adamw;
}
