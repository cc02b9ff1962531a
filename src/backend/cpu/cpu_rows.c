/* cpu_rows.c - row operations, loss, kept entries and optimizer: the loops
 * over rows and threads around the kernels of isa/. A row is computed by one
 * thread alone. */
#include <math.h>
#include <omp.h>

#include "backend/cpu/cpu_i.h"

/* Below this much work a region of threads costs more than it saves. */
#define WORTH(elements) ((elements) >= 16384)

#define ROWS(be, elements)                                                     \
    num_threads((be)->n_threads) if (WORTH(elements)) schedule(static)

static bool is_bf(backend_view v)
{
    return v.dtype == BASE_BF16;
}
static bool is_act(const backend *be, backend_view v)
{
    return v.dtype == be->act;
}
static bool same_shape(backend_view a, backend_view b)
{
    return a.rows == b.rows && a.cols == b.cols;
}

static void cpu_add_bias(backend *be, backend_view y, const void *b)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(is_act(be, y));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, y.rows *y.cols)
    for (int64_t i = 0; i < y.rows; ++i)
        cpu->k->add_bias(cpu_at(y, i, 0), b, y.cols, is_bf(y));
}

static void cpu_rmsnorm(backend *be, backend_view y, void *rstd, backend_view x,
                        const void *w, double eps)
{
    cpu_backend *cpu = cpu_of(be);
    float *r = rstd;
    CPU_REQUIRE(is_act(be, x) && is_act(be, y) && same_shape(x, y));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, x.rows *x.cols)
    for (int64_t i = 0; i < x.rows; ++i) {
        float value = cpu->k->rmsnorm(cpu_at(y, i, 0), cpu_at(x, i, 0), w, eps,
                                      x.cols, is_bf(x));
        if (r)
            r[i] = value;
    }
}

static void cpu_rmsnorm_bwd(backend *be, backend_view dx, backend_view dy,
                            backend_view x, const void *w, const void *rstd)
{
    cpu_backend *cpu = cpu_of(be);
    const float *r = rstd;
    CPU_REQUIRE(dx.dtype == be->acc && dy.dtype == be->acc && is_act(be, x));
    CPU_REQUIRE(same_shape(dx, dy) && same_shape(dx, x));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, x.rows *x.cols)
    for (int64_t i = 0; i < x.rows; ++i)
        cpu->k->rmsnorm_bwd(cpu_at(dx, i, 0), cpu_at(dy, i, 0), cpu_at(x, i, 0),
                            w, r[i], x.cols, is_bf(x));
}

static void cpu_rope(backend *be, backend_view x, const int32_t *pos,
                     const void *cosines, const void *sines, int head_dim,
                     bool inverse)
{
    cpu_backend *cpu = cpu_of(be);
    const float *co = cosines, *si = sines;
    int64_t half = head_dim / 2;
    CPU_REQUIRE(is_act(be, x) && head_dim > 0 && head_dim % 2 == 0 &&
                x.cols % head_dim == 0);
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, x.rows *x.cols)
    for (int64_t i = 0; i < x.rows; ++i)
        cpu->k->rope(cpu_at(x, i, 0), co + pos[i] * half, si + pos[i] * half,
                     x.cols / head_dim, head_dim, inverse, is_bf(x));
}

static void cpu_swiglu(backend *be, backend_view a, backend_view g,
                       backend_view u)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(is_act(be, a) && is_act(be, g) && is_act(be, u));
    CPU_REQUIRE(same_shape(a, g) && same_shape(a, u));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, a.rows *a.cols)
    for (int64_t i = 0; i < a.rows; ++i)
        cpu->k->swiglu(cpu_at(a, i, 0), cpu_at(g, i, 0), cpu_at(u, i, 0),
                       a.cols, is_bf(a));
}

static void cpu_swiglu_bwd(backend *be, backend_view g, backend_view u,
                           backend_view da)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(is_act(be, g) && is_act(be, u) && is_act(be, da));
    CPU_REQUIRE(same_shape(g, u) && same_shape(g, da));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, g.rows *g.cols)
    for (int64_t i = 0; i < g.rows; ++i)
        cpu->k->swiglu_bwd(cpu_at(g, i, 0), cpu_at(u, i, 0), cpu_at(da, i, 0),
                           g.cols, is_bf(g));
}

static void cpu_cast(backend *be, backend_view dst, backend_view src)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(is_act(be, dst) || dst.dtype == be->acc);
    CPU_REQUIRE(is_act(be, src) || src.dtype == be->acc);
    CPU_REQUIRE(same_shape(dst, src));
    if (cpu->failed)
        return;
    size_t bytes = (size_t)dst.cols * base_dtype_bytes(dst.dtype);
#pragma omp parallel for ROWS(be, dst.rows *dst.cols)
    for (int64_t i = 0; i < dst.rows; ++i) {
        void *to = cpu_at(dst, i, 0), *from = cpu_at(src, i, 0);
        if (dst.dtype == src.dtype)
            memmove(to, from, bytes);
        else if (is_bf(dst))
            cpu->k->shrink(to, from, dst.cols);
        else
            cpu->k->expand(to, from, dst.cols);
    }
}

static void cpu_add(backend *be, backend_view dst, backend_view src)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(dst.dtype == be->acc);
    CPU_REQUIRE(is_act(be, src) || src.dtype == be->acc);
    CPU_REQUIRE(same_shape(dst, src));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, dst.rows *dst.cols)
    for (int64_t i = 0; i < dst.rows; ++i)
        cpu->k->add(cpu_at(dst, i, 0), cpu_at(src, i, 0), dst.cols, is_bf(src));
}

static void cpu_gather_rows(backend *be, backend_view dst, backend_view src,
                            const int32_t *index)
{
    CPU_REQUIRE(dst.dtype == src.dtype && dst.cols == src.cols);
    if (cpu_of(be)->failed)
        return;
    size_t bytes = (size_t)dst.cols * base_dtype_bytes(dst.dtype);
#pragma omp parallel for ROWS(be, dst.rows *dst.cols)
    for (int64_t i = 0; i < dst.rows; ++i) {
        CPU_REQUIRE(index[i] >= 0 && index[i] < src.rows);
        memcpy(cpu_at(dst, i, 0), cpu_at(src, index[i], 0), bytes);
    }
}

static void cpu_scatter_rows(backend *be, backend_view dst, backend_view src,
                             const int32_t *index)
{
    CPU_REQUIRE(dst.dtype == src.dtype && dst.cols == src.cols);
    if (cpu_of(be)->failed)
        return;
    size_t bytes = (size_t)dst.cols * base_dtype_bytes(dst.dtype);
#pragma omp parallel for ROWS(be, src.rows *src.cols)
    for (int64_t i = 0; i < src.rows; ++i) {
        CPU_REQUIRE(index[i] >= 0 && index[i] < dst.rows);
        memcpy(cpu_at(dst, index[i], 0), cpu_at(src, i, 0), bytes);
    }
}

/* ---- loss ------------------------------------------------------------ */

static void cpu_xent_stats(backend *be, void *lse, void *nll,
                           backend_view logits, const int32_t *target)
{
    cpu_backend *cpu = cpu_of(be);
    float *l = lse, *loss = nll;
    CPU_REQUIRE(logits.dtype == be->acc);
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, logits.rows *logits.cols)
    for (int64_t i = 0; i < logits.rows; ++i) {
        const float *x = cpu_at(logits, i, 0);
        CPU_REQUIRE(target[i] >= 0 && target[i] < logits.cols);
        float max;
        double log_sum = cpu->k->logsum(x, logits.cols, &max);
        l[i] = (float)((double)max + log_sum);
        /* From the parts: the difference keeps digits that lse rounds off. */
        loss[i] = (float)((double)max - (double)x[target[i]] + log_sum);
    }
}

static void cpu_xent_grad(backend *be, backend_view d, backend_view logits,
                          const int32_t *target, const void *lse,
                          const void *weight)
{
    cpu_backend *cpu = cpu_of(be);
    const float *l = lse, *w = weight;
    CPU_REQUIRE(logits.dtype == be->acc && is_act(be, d));
    CPU_REQUIRE(same_shape(d, logits));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, logits.rows *logits.cols)
    for (int64_t i = 0; i < logits.rows; ++i) {
        CPU_REQUIRE(target[i] >= 0 && target[i] < logits.cols);
        cpu->k->xent_grad(cpu_at(d, i, 0), cpu_at(logits, i, 0), l[i], w[i],
                          target[i], logits.cols, is_bf(d));
    }
}

static void cpu_argmax(backend *be, int32_t *out, backend_view x)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(x.dtype == be->acc && x.cols > 0);
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, x.rows *x.cols)
    for (int64_t i = 0; i < x.rows; ++i)
        out[i] = (int32_t)cpu->k->argmax(cpu_at(x, i, 0), x.cols);
}

/* ---- kept entries and optimizer -------------------------------------- */

/* The kept entries of row i to packed (in row order). */
static void gather_row(float *packed, const float *row,
                       const backend_keep *keep, int64_t i, bool accumulate)
{
    int64_t words = (keep->cols + 31) / 32;
    float *to = packed + keep->start[i];
    for (int64_t w = 0; w < words; ++w)
        for (uint32_t bits = keep->bits[i * words + w]; bits;
             bits &= bits - 1) {
            float value = row[w * 32 + __builtin_ctz(bits)];
            *to = accumulate ? *to + value : value;
            ++to;
        }
}

static void scatter_row(void *row, bool bf, const float *packed,
                        const backend_keep *keep, int64_t i)
{
    int64_t words = (keep->cols + 31) / 32;
    const float *from = packed + keep->start[i];
    uint16_t *row16 = row;
    float *row32 = row;
    for (int64_t w = 0; w < words; ++w)
        for (uint32_t bits = keep->bits[i * words + w]; bits;
             bits &= bits - 1) {
            int64_t j = w * 32 + __builtin_ctz(bits);
            if (bf)
                row16[j] = base_f32_to_bf16(*from);
            else
                row32[j] = *from;
            ++from;
        }
}

static void cpu_keep_gather(backend *be, void *packed, backend_view dense,
                            const backend_keep *keep, bool accumulate)
{
    cpu_backend *cpu = cpu_of(be);
    float *to = packed;
    CPU_REQUIRE(dense.dtype == be->acc);
    CPU_REQUIRE(!keep ||
                (keep->rows == dense.rows && keep->cols == dense.cols));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, dense.rows *dense.cols)
    for (int64_t i = 0; i < dense.rows; ++i) {
        const float *row = cpu_at(dense, i, 0);
        if (keep)
            gather_row(to, row, keep, i, accumulate);
        else if (accumulate)
            cpu->k->add(to + i * dense.cols, row, dense.cols, false);
        else
            memcpy(to + i * dense.cols, row, (size_t)dense.cols * 4);
    }
}

static void cpu_keep_scatter(backend *be, backend_view dense,
                             const void *packed, const backend_keep *keep)
{
    cpu_backend *cpu = cpu_of(be);
    const float *from = packed;
    CPU_REQUIRE(is_act(be, dense) || dense.dtype == be->acc);
    CPU_REQUIRE(!keep ||
                (keep->rows == dense.rows && keep->cols == dense.cols));
    if (cpu->failed)
        return;
#pragma omp parallel for ROWS(be, dense.rows *dense.cols)
    for (int64_t i = 0; i < dense.rows; ++i) {
        void *row = cpu_at(dense, i, 0);
        if (keep)
            scatter_row(row, is_bf(dense), from, keep, i);
        else if (is_bf(dense))
            cpu->k->shrink(row, from + i * dense.cols, dense.cols);
        else
            memcpy(row, from + i * dense.cols, (size_t)dense.cols * 4);
    }
}

/* Fixed blocks, added in order. */
static void cpu_sqnorm(backend *be, double *out, const void *x, int64_t n)
{
    enum { BLOCK = 16384 };
    cpu_backend *cpu = cpu_of(be);
    const float *values = x;
    int64_t blocks = (n + BLOCK - 1) / BLOCK;
    if (cpu->failed || !cpu_scratch(cpu, (size_t)(blocks + 1) * 8))
        return;
    double *sums = cpu_scratch_of(cpu, 0);
#pragma omp parallel for ROWS(be, n)
    for (int64_t b = 0; b < blocks; ++b) {
        int64_t at = b * BLOCK, count = n - at < BLOCK ? n - at : BLOCK;
        sums[b] = cpu->k->sqnorm(values + at, count);
    }
    double sum = 0;
    for (int64_t b = 0; b < blocks; ++b)
        sum += sums[b];
    *out = sum;
}

static void cpu_adamw(backend *be, void *p, const void *g, void *m, void *v,
                      int64_t n, const backend_adamw *hp)
{
    enum { BLOCK = 16384 };
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(hp->step >= 1);
    if (cpu->failed)
        return;
    double t = (double)hp->step;
    const cpu_adamw_step step = {
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
    float *pf = p, *mf = m, *vf = v;
    const float *gf = g;
#pragma omp parallel for ROWS(be, n)
    for (int64_t at = 0; at < n; at += BLOCK)
        cpu->k->adamw(pf + at, gf + at, mf + at, vf + at,
                      n - at < BLOCK ? n - at : BLOCK, &step);
}

void cpu_rows_fill(backend *be)
{
    be->add_bias = cpu_add_bias;
    be->rmsnorm = cpu_rmsnorm;
    be->rmsnorm_bwd = cpu_rmsnorm_bwd;
    be->rope = cpu_rope;
    be->swiglu = cpu_swiglu;
    be->swiglu_bwd = cpu_swiglu_bwd;
    be->cast = cpu_cast;
    be->add = cpu_add;
    be->gather_rows = cpu_gather_rows;
    be->scatter_rows = cpu_scatter_rows;
    be->xent_stats = cpu_xent_stats;
    be->xent_grad = cpu_xent_grad;
    be->argmax = cpu_argmax;
    be->keep_gather = cpu_keep_gather;
    be->keep_scatter = cpu_keep_scatter;
    be->sqnorm = cpu_sqnorm;
    be->adamw = cpu_adamw;
}
