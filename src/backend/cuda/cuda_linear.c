/* cuda_linear.c - the table's products of matrices and sums over tokens, all by
 * cuBLASLt. */
#include "backend/cuda/cuda_i.h"

static void multiply(cuda_backend *cuda, const cuda_product *p)
{
    lori_error err;
    CUDA_REQUIRE(p->k > 0);
    if (cuda->failed || p->m == 0 || p->n == 0)
        return;
    lori_status st =
        cuda_lt_run(cuda->lt, p, cuda->workspace, cuda->stream, &err);
    if (st)
        cuda_fail(cuda, st, "%s", err.message);
}

/* c = alpha a op(b) + beta plus, op(b) = b^T with turn_b; plus has c's ld. */
static void product_plus(backend *be, backend_view c, backend_view a,
                         backend_view b, bool turn_b, double alpha, double beta,
                         backend_view plus)
{
    CUDA_REQUIRE(a.dtype == be->act && b.dtype == be->act);
    CUDA_REQUIRE(c.dtype == be->act || c.dtype == be->acc);
    CUDA_REQUIRE(c.rows == a.rows && a.cols == (turn_b ? b.cols : b.rows));
    CUDA_REQUIRE(c.cols == (turn_b ? b.rows : b.cols));
    CUDA_REQUIRE(same_shape(plus, c) && plus.dtype == c.dtype &&
                 plus.ld == c.ld);
    const cuda_product p = {.m = c.rows,
                            .n = c.cols,
                            .k = a.cols,
                            .lda = a.ld,
                            .ldb = b.ld,
                            .ldc = c.ld,
                            .ab = be->act,
                            .c_type = c.dtype,
                            .turn_b = turn_b,
                            .a = a.data,
                            .b = b.data,
                            .c = c.data,
                            .plus = plus.data,
                            .alpha = (float)alpha,
                            .beta = (float)beta};
    multiply(cuda_of(be), &p);
}

static void product(backend *be, backend_view c, backend_view a, backend_view b,
                    bool turn_b, double alpha, double beta)
{
    product_plus(be, c, a, b, turn_b, alpha, beta, c);
}

static backend_view weight_view(const backend *be, const backend_weight *w)
{
    return backend_matrix(w->data, be->act, w->rows, w->cols);
}

/* c = a op(W) + beta plus; a product of low rank follows as one of its own. */
static void with_weight(backend *be, backend_view c, backend_view a,
                        const backend_weight *w, bool turn_w,
                        const backend_low *low, double beta, backend_view plus)
{
    product_plus(be, c, a, weight_view(be, w), turn_w, 1, beta, plus);
    if (low && low->left.cols > 0)
        product(be, c, low->left, low->right, turn_w, 1, 1);
}

static void gemm_w(backend *be, backend_view y, backend_view x,
                   const backend_weight *w, const backend_low *low,
                   const backend_view *plus)
{
    with_weight(be, y, x, w, true, low, plus ? 1 : 0, plus ? *plus : y);
}

static void gemm_ws(backend *be, int n_w, const backend_view *y, backend_view x,
                    backend_weight *const *w, const backend_low *low)
{
    for (int i = 0; i < n_w; ++i)
        gemm_w(be, y[i], x, w[i], low ? &low[i] : NULL, NULL);
}

static void gemm_wt(backend *be, backend_view dx, backend_view dy,
                    const backend_weight *w, const backend_low *low,
                    double beta)
{
    with_weight(be, dx, dy, w, false, low, beta, dx);
}

static void gemm_wts(backend *be, backend_view dx, int n_w,
                     const backend_view *dy, backend_weight *const *w,
                     const backend_low *low)
{
    for (int i = 0; i < n_w; ++i)
        gemm_wt(be, dx, dy[i], w[i], low ? &low[i] : NULL, i ? 1 : 0);
}

static void gemm_nt(backend *be, backend_view c, backend_view a, backend_view b,
                    double alpha, double beta)
{
    product(be, c, a, b, true, alpha, beta);
}

static void gemm_nn(backend *be, backend_view c, backend_view a, backend_view b,
                    double alpha, double beta)
{
    product(be, c, a, b, false, alpha, beta);
}

/* One product a block of tokens, each added to the sum of those before. */
static void gemm_tn(backend *be, backend_view c, backend_view x, backend_view y,
                    double alpha, double beta)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(c.dtype == be->acc && x.dtype == be->act &&
                 y.dtype == be->act);
    CUDA_REQUIRE(x.rows == y.rows && c.rows == x.cols && c.cols == y.cols);
    if (x.rows == 0 && !cuda->failed)
        cuda_check(cuda, "gemm_tn", cuda_k_scale(cuda->stream, c, (float)beta));
    for (int64_t t = 0; t < x.rows; t += BACKEND_TOKEN_BLOCK) {
        const int64_t left = x.rows - t;
        const int64_t n =
            left < BACKEND_TOKEN_BLOCK ? left : BACKEND_TOKEN_BLOCK;
        const cuda_product p = {.m = c.rows,
                                .n = c.cols,
                                .k = n,
                                .lda = x.ld,
                                .ldb = y.ld,
                                .ldc = c.ld,
                                .ab = be->act,
                                .c_type = c.dtype,
                                .turn_a = true,
                                .a = backend_rows(x, t, n).data,
                                .b = backend_rows(y, t, n).data,
                                .c = c.data,
                                .plus = c.data,
                                .alpha = (float)alpha,
                                .beta = t ? 1 : (float)beta};
        multiply(cuda, &p);
    }
}

static void embed(backend *be, backend_view y, const backend_weight *w,
                  const int32_t *ids)
{
    cuda_backend *cuda = cuda_of(be);
    CUDA_REQUIRE(y.cols == w->cols && y.dtype == be->act);
    if (!cuda->failed)
        cuda_check(
            cuda, "embed",
            cuda_k_gather_rows(cuda->stream, y, weight_view(be, w), ids));
}

void cuda_linear_fill(backend *be)
{
    be->gemm_w = gemm_w;
    be->gemm_ws = gemm_ws;
    be->gemm_wt = gemm_wt;
    be->gemm_wts = gemm_wts;
    be->gemm_nt = gemm_nt;
    be->gemm_nn = gemm_nn;
    be->gemm_tn = gemm_tn;
    be->embed = embed;
}
