/* cuda_ops.c - the table's operations that have a kernel of their own: checks
 * of the operands, then the launch. */
#include <math.h>

#include "backend/cuda/cuda_i.h"

static bool is_act(const backend *be, backend_view v)
{
    return v.dtype == be->act;
}

/* Launches, unless something failed before. `cuda` is the handle. */
#define RUN(op, launch)                                                        \
    do {                                                                       \
        if (!cuda->failed)                                                     \
            cuda_check(cuda, op, launch);                                      \
    } while (0)

/* ---- rows ------------------------------------------------------------- */

static void add_bias(backend *be, backend_view y, const void *b)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, y));
    RUN("add_bias", cuda_k_add_bias(cuda->stream, y, b));
}

static void rmsnorm(backend *be, backend_view y, void *rstd, backend_view x,
                    const void *w, double eps)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, x) && is_act(be, y) && same_shape(x, y));
    RUN("rmsnorm", cuda_k_rmsnorm(cuda->stream, y, rstd, x, w, (float)eps));
}

static void rmsnorm_bwd(backend *be, backend_view dx, backend_view dy,
                        backend_view x, const void *w, const void *rstd,
                        const backend_view *copy)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(dx.dtype == be->acc && dy.dtype == be->acc && is_act(be, x));
    CUDA_REQUIRE(same_shape(dx, dy) && same_shape(dx, x));
    if (copy)
        CUDA_REQUIRE(is_act(be, *copy) && same_shape(dx, *copy));
    RUN("rmsnorm_bwd",
        cuda_k_rmsnorm_bwd(cuda->stream, dx, dy, x, w, rstd, copy));
}

static void rope(backend *be, backend_view x, const int32_t *pos,
                 const void *cosines, const void *sines, int head_dim,
                 bool inverse)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, x) && head_dim > 0 && head_dim % 2 == 0 &&
                 x.cols % head_dim == 0);
    RUN("rope",
        cuda_k_rope(cuda->stream, x, pos, cosines, sines, head_dim, inverse));
}

static void swiglu(backend *be, backend_view a, backend_view g, backend_view u)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, a) && is_act(be, g) && is_act(be, u));
    CUDA_REQUIRE(same_shape(a, g) && same_shape(a, u));
    RUN("swiglu", cuda_k_swiglu(cuda->stream, a, g, u));
}

static void swiglu_bwd(backend *be, backend_view g, backend_view u,
                       backend_view da)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, g) && is_act(be, u) && is_act(be, da));
    CUDA_REQUIRE(same_shape(g, u) && same_shape(g, da));
    RUN("swiglu_bwd", cuda_k_swiglu_bwd(cuda->stream, g, u, da));
}

static void cast(backend *be, backend_view dst, backend_view src)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, dst) || dst.dtype == be->acc);
    CUDA_REQUIRE(is_act(be, src) || src.dtype == be->acc);
    CUDA_REQUIRE(same_shape(dst, src));
    RUN("cast", cuda_k_cast(cuda->stream, dst, src));
}

static void add(backend *be, backend_view dst, backend_view src)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(dst.dtype == be->acc);
    CUDA_REQUIRE(is_act(be, src) || src.dtype == be->acc);
    CUDA_REQUIRE(same_shape(dst, src));
    RUN("add", cuda_k_add(cuda->stream, dst, src));
}

static void gather_rows(backend *be, backend_view dst, backend_view src,
                        const int32_t *index)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(dst.dtype == src.dtype && dst.cols == src.cols);
    RUN("gather_rows", cuda_k_gather_rows(cuda->stream, dst, src, index));
}

static void scatter_rows(backend *be, backend_view dst, backend_view src,
                         const int32_t *index)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(dst.dtype == src.dtype && dst.cols == src.cols);
    RUN("scatter_rows", cuda_k_scatter_rows(cuda->stream, dst, src, index));
}

/* ---- attention -------------------------------------------------------- */

/* The head size is the model's, so a size that the kernels lack is no bug. */
static bool attn_fits(backend *be, backend_view q, backend_view k,
                      backend_view v, const backend_attn *d)
{
    CUDA_REQUIRE(d->n_heads > 0 && d->n_kv_heads > 0 && d->head_dim > 0);
    CUDA_REQUIRE(d->n_heads % d->n_kv_heads == 0 && d->window >= 0);
    CUDA_REQUIRE(q.cols == (int64_t)d->n_heads * d->head_dim);
    CUDA_REQUIRE(k.cols == (int64_t)d->n_kv_heads * d->head_dim);
    CUDA_REQUIRE(v.cols == k.cols && (!d->block_table || d->page > 0));
    CUDA_REQUIRE(is_act(be, q) && is_act(be, k) && is_act(be, v));
    if (d->head_dim > CUDA_MAX_HEAD_DIM)
        cuda_fail(cuda_of(be), LORI_UNSUPPORTED,
                  "backend cuda: head size %d, and attention is built for at "
                  "most %d; use backend cpu",
                  d->head_dim, CUDA_MAX_HEAD_DIM);
    return !cuda_of(be)->failed;
}

static void attn(backend *be, backend_view o, backend_view lse, backend_view q,
                 backend_view k, backend_view v, const backend_attn *d)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, o) && o.cols == q.cols);
    CUDA_REQUIRE(!lse.data || (lse.dtype == be->acc && lse.cols == d->n_heads));
    if (!attn_fits(be, q, k, v, d))
        return;
    const int64_t chunks = cuda_k_attn_chunks(d);
    float *scratch = NULL;
    if (chunks > 1) {
        const int64_t floats = q.rows * d->n_heads * chunks * (d->head_dim + 2);
        scratch = cuda_scratch(cuda, (size_t)floats * sizeof *scratch);
    }
    RUN("attn", cuda_k_attn(cuda->stream, o, lse, q, k, v, d, scratch));
}

static void attn_bwd(backend *be, backend_view dq, backend_view dk,
                     backend_view dv, backend_view dout, backend_view q,
                     backend_view k, backend_view v, backend_view o,
                     backend_view lse, backend_view delta,
                     const backend_attn *d)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(!d->block_table && d->max_q == d->max_k);
    CUDA_REQUIRE(is_act(be, dq) && is_act(be, dk) && is_act(be, dv));
    CUDA_REQUIRE(is_act(be, dout) && is_act(be, o) && same_shape(o, dout));
    CUDA_REQUIRE(same_shape(dq, q) && same_shape(dk, k) && same_shape(dv, v));
    CUDA_REQUIRE(lse.dtype == be->acc && delta.dtype == be->acc);
    const cuda_attn_grad views = {dq, dk, dv, dout, q, k, v, o, lse, delta};
    if (attn_fits(be, q, k, v, d))
        RUN("attn_bwd", cuda_k_attn_bwd(cuda->stream, &views, d));
}

static void kv_write(backend *be, backend_view k_pool, backend_view v_pool,
                     backend_view k, backend_view v, const backend_attn *d)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(k_pool.cols == k.cols && v_pool.cols == v.cols);
    CUDA_REQUIRE(is_act(be, k_pool) && is_act(be, v_pool));
    CUDA_REQUIRE(is_act(be, k) && is_act(be, v) && v.cols == k.cols);
    CUDA_REQUIRE(!d->block_table || d->page > 0);
    RUN("kv_write", cuda_k_kv_write(cuda->stream, k_pool, v_pool, k, v, d));
}

/* ---- loss ------------------------------------------------------------- */

static void xent_stats(backend *be, void *lse, void *nll, backend_view logits,
                       const int32_t *target)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(logits.dtype == be->acc);
    RUN("xent_stats",
        cuda_k_xent_stats(cuda->stream, lse, nll, logits, target));
}

static void xent_grad(backend *be, backend_view d, backend_view logits,
                      const int32_t *target, const void *lse,
                      const void *weight)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(logits.dtype == be->acc && is_act(be, d));
    CUDA_REQUIRE(same_shape(d, logits));
    RUN("xent_grad",
        cuda_k_xent_grad(cuda->stream, d, logits, target, lse, weight));
}

static void argmax(backend *be, int32_t *out, backend_view x)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(x.dtype == be->acc && x.cols > 0);
    RUN("argmax", cuda_k_argmax(cuda->stream, out, x));
}

/* ---- kept entries and optimizer --------------------------------------- */

static void keep_gather(backend *be, void *packed, backend_view dense,
                        const backend_keep *keep, bool accumulate)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(dense.dtype == be->acc);
    CUDA_REQUIRE(!keep ||
                 (keep->rows == dense.rows && keep->cols == dense.cols));
    backend_view all = backend_matrix(packed, be->acc, dense.rows, dense.cols);
    if (keep)
        RUN("keep_gather",
            cuda_k_keep_gather(cuda->stream, packed, dense, keep, accumulate));
    else if (accumulate)
        add(be, all, dense);
    else
        cast(be, all, dense);
}

static void keep_scatter(backend *be, backend_view dense, const void *packed,
                         const backend_keep *keep)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(is_act(be, dense) || dense.dtype == be->acc);
    CUDA_REQUIRE(!keep ||
                 (keep->rows == dense.rows && keep->cols == dense.cols));
    if (keep)
        RUN("keep_scatter",
            cuda_k_keep_scatter(cuda->stream, dense, packed, keep));
    else
        RUN("keep_scatter",
            cuda_k_cast(cuda->stream, dense,
                        (backend_view){(void *)(uintptr_t)packed, dense.rows,
                                       dense.cols, dense.cols, be->acc}));
}

static void sqnorm(backend *be, double *out, const void *x, int64_t n)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(n >= 0);
    RUN("sqnorm", cuda_k_sqnorm(cuda->stream, out, x, n, cuda->partial));
}

static void adamw(backend *be, void *p, const void *g, void *m, void *v,
                  int64_t n, const backend_adamw *hp)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(hp->step >= 1);
    const double t = (double)hp->step;
    const cuda_adamw_step step = {
        .decay = (float)(1.0 - hp->lr * hp->weight_decay),
        .beta1 = (float)hp->beta1,
        .left1 = (float)(1.0 - hp->beta1),
        .beta2 = (float)hp->beta2,
        .left2 = (float)(1.0 - hp->beta2),
        .step = (float)(hp->lr / (1.0 - pow(hp->beta1, t))),
        .root = (float)(1.0 / sqrt(1.0 - pow(hp->beta2, t))),
        .eps = (float)hp->eps,
        .grad_scale = (float)hp->grad_scale,
    };
    RUN("adamw", cuda_k_adamw(cuda->stream, p, g, m, v, n, step));
}

void cuda_ops_fill(backend *be)
{
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
    be->attn = attn;
    be->attn_bwd = attn_bwd;
    be->kv_write = kv_write;
    be->xent_stats = xent_stats;
    be->xent_grad = xent_grad;
    be->argmax = argmax;
    be->keep_gather = keep_gather;
    be->keep_scatter = keep_scatter;
    be->sqnorm = sqnorm;
    be->adamw = adamw;
}
