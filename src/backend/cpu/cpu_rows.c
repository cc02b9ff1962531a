/* cpu_rows.c - row operations, loss, kept entries and optimizer: the loops
 * over rows and threads around the kernels of isa/. A row is computed by one
 * thread alone. */
#include <math.h>

#include "backend/cpu/cpu_i.h"

/* An operation's operands, by their kinds; which of them it uses, and for
 * what, stands at the operation. */
typedef struct rows {
    const cpu_backend *cpu;
    backend_view y, x, z;
    const void *w;
    void *out;
    float *f;
    const float *g, *h;
    const int32_t *index;
    const backend_keep *keep;
    const backend_view *copy;
    const cpu_adamw_step *step;
    double eps;
    int64_t n;
    int head_dim;
    bool flag;
} rows;

typedef void row_fn(const rows *r, int64_t i);

typedef struct rows_call {
    const rows *r;
    row_fn *row;
    int64_t count;
} rows_call;

static void rows_part(void *context, int thread, int n)
{
    const rows_call *c = context;
    const int64_t end = backend_share(c->count, thread + 1, n);
    for (int64_t i = backend_share(c->count, thread, n); i < end; ++i)
        c->row(c->r, i);
}

/* Rows 0 to count - 1, `elements` in all; on one thread where others cost more
 * than they save. */
static void each_row(const rows *r, int64_t count, int64_t elements,
                     row_fn *row)
{
    enum { WORTH = 16384 };
    const backend *be = &r->cpu->be;
    rows_call c = {r, row, count};
    if (!r->cpu->failed)
        backend_team_run(be->team, elements >= WORTH ? be->n_threads : 1,
                         rows_part, &c);
}

static bool is_bf(backend_view v)
{
    return v.dtype == BASE_BF16;
}

static void add_bias_row(const rows *r, int64_t i)
{
    r->cpu->k->add_bias(cpu_at(r->y, i, 0), r->w, r->y.cols, is_bf(r->y));
}

static void cpu_add_bias(backend *be, backend_view y, const void *b)
{
    CPU_REQUIRE(cpu_is_act(be, y));
    const rows r = {.cpu = cpu_of(be), .y = y, .w = b};
    each_row(&r, y.rows, y.rows * y.cols, add_bias_row);
}

/* f: rstd, or NULL */
static void rmsnorm_row(const rows *r, int64_t i)
{
    const float rstd =
        r->cpu->k->rmsnorm(cpu_at(r->y, i, 0), cpu_at(r->x, i, 0), r->w, r->eps,
                           r->x.cols, is_bf(r->x));
    if (r->f)
        r->f[i] = rstd;
}

static void cpu_rmsnorm(backend *be, backend_view y, void *rstd, backend_view x,
                        const void *w, double eps)
{
    CPU_REQUIRE(cpu_is_act(be, x) && cpu_is_act(be, y) && cpu_same_shape(x, y));
    const rows r = {
        .cpu = cpu_of(be), .y = y, .x = x, .w = w, .f = rstd, .eps = eps};
    each_row(&r, x.rows, x.rows * x.cols, rmsnorm_row);
}

/* y: dx, z: dy, g: rstd, copy: or NULL */
static void rmsnorm_bwd_row(const rows *r, int64_t i)
{
    r->cpu->k->rmsnorm_bwd(cpu_at(r->y, i, 0), cpu_at(r->z, i, 0),
                           cpu_at(r->x, i, 0), r->w, r->g[i], r->x.cols,
                           is_bf(r->x),
                           r->copy ? cpu_at(*r->copy, i, 0) : NULL);
}

static void cpu_rmsnorm_bwd(backend *be, backend_view dx, backend_view dy,
                            backend_view x, const void *w, const void *rstd,
                            const backend_view *copy)
{
    CPU_REQUIRE(dx.dtype == be->acc && dy.dtype == be->acc &&
                cpu_is_act(be, x));
    CPU_REQUIRE(cpu_same_shape(dx, dy) && cpu_same_shape(dx, x));
    if (copy)
        CPU_REQUIRE(cpu_is_act(be, *copy) && cpu_same_shape(dx, *copy));
    const rows r = {.cpu = cpu_of(be),
                    .y = dx,
                    .z = dy,
                    .x = x,
                    .w = w,
                    .g = rstd,
                    .copy = copy};
    each_row(&r, x.rows, x.rows * x.cols, rmsnorm_bwd_row);
}

/* index: positions; g, h: cosines and sines; flag: inverse */
static void rope_row(const rows *r, int64_t i)
{
    const int64_t at = r->index[i] * (int64_t)(r->head_dim / 2);
    r->cpu->k->rope(cpu_at(r->x, i, 0), r->g + at, r->h + at,
                    r->x.cols / r->head_dim, r->head_dim, r->flag, is_bf(r->x));
}

static void cpu_rope(backend *be, backend_view x, const int32_t *pos,
                     const void *cosines, const void *sines, int head_dim,
                     bool inverse)
{
    CPU_REQUIRE(cpu_is_act(be, x) && head_dim > 0 && head_dim % 2 == 0 &&
                x.cols % head_dim == 0);
    const rows r = {.cpu = cpu_of(be),
                    .x = x,
                    .index = pos,
                    .g = cosines,
                    .h = sines,
                    .head_dim = head_dim,
                    .flag = inverse};
    each_row(&r, x.rows, x.rows * x.cols, rope_row);
}

/* y: a, x: gate, z: up */
static void swiglu_row(const rows *r, int64_t i)
{
    r->cpu->k->swiglu(cpu_at(r->y, i, 0), cpu_at(r->x, i, 0),
                      cpu_at(r->z, i, 0), r->y.cols, is_bf(r->y));
}

static void cpu_swiglu(backend *be, backend_view a, backend_view g,
                       backend_view u)
{
    CPU_REQUIRE(cpu_is_act(be, a) && cpu_is_act(be, g) && cpu_is_act(be, u));
    CPU_REQUIRE(cpu_same_shape(a, g) && cpu_same_shape(a, u));
    const rows r = {.cpu = cpu_of(be), .y = a, .x = g, .z = u};
    each_row(&r, a.rows, a.rows * a.cols, swiglu_row);
}

/* x: gate, z: up, y: da */
static void swiglu_bwd_row(const rows *r, int64_t i)
{
    r->cpu->k->swiglu_bwd(cpu_at(r->x, i, 0), cpu_at(r->z, i, 0),
                          cpu_at(r->y, i, 0), r->x.cols, is_bf(r->x));
}

static void cpu_swiglu_bwd(backend *be, backend_view g, backend_view u,
                           backend_view da)
{
    CPU_REQUIRE(cpu_is_act(be, g) && cpu_is_act(be, u) && cpu_is_act(be, da));
    CPU_REQUIRE(cpu_same_shape(g, u) && cpu_same_shape(g, da));
    const rows r = {.cpu = cpu_of(be), .x = g, .z = u, .y = da};
    each_row(&r, g.rows, g.rows * g.cols, swiglu_bwd_row);
}

void cpu_glu_rows(cpu_backend *cpu, const cpu_glu *glu)
{
    if (glu->back)
        cpu_swiglu_bwd(&cpu->be, glu->gate, glu->up, glu->a);
    else
        cpu_swiglu(&cpu->be, glu->a, glu->gate, glu->up);
}

static void cast_row(const rows *r, int64_t i)
{
    void *to = cpu_at(r->y, i, 0), *from = cpu_at(r->x, i, 0);
    if (r->y.dtype == r->x.dtype)
        memmove(to, from, (size_t)r->y.cols * base_dtype_bytes(r->y.dtype));
    else if (is_bf(r->y))
        r->cpu->k->shrink(to, from, r->y.cols);
    else
        r->cpu->k->expand(to, from, r->y.cols);
}

static void cpu_cast(backend *be, backend_view dst, backend_view src)
{
    CPU_REQUIRE(cpu_is_act(be, dst) || dst.dtype == be->acc);
    CPU_REQUIRE(cpu_is_act(be, src) || src.dtype == be->acc);
    CPU_REQUIRE(cpu_same_shape(dst, src));
    const rows r = {.cpu = cpu_of(be), .y = dst, .x = src};
    each_row(&r, dst.rows, dst.rows * dst.cols, cast_row);
}

static void add_row(const rows *r, int64_t i)
{
    r->cpu->k->add(cpu_at(r->y, i, 0), cpu_at(r->x, i, 0), r->y.cols,
                   is_bf(r->x));
}

static void cpu_add(backend *be, backend_view dst, backend_view src)
{
    CPU_REQUIRE(dst.dtype == be->acc);
    CPU_REQUIRE(cpu_is_act(be, src) || src.dtype == be->acc);
    CPU_REQUIRE(cpu_same_shape(dst, src));
    const rows r = {.cpu = cpu_of(be), .y = dst, .x = src};
    each_row(&r, dst.rows, dst.rows * dst.cols, add_row);
}

static void copy_row(backend_view to, int64_t i, backend_view from, int64_t j)
{
    CPU_REQUIRE(i >= 0 && i < to.rows && j >= 0 && j < from.rows);
    memcpy(cpu_at(to, i, 0), cpu_at(from, j, 0),
           (size_t)to.cols * base_dtype_bytes(to.dtype));
}

static void gather_one(const rows *r, int64_t i)
{
    copy_row(r->y, i, r->x, r->index[i]);
}

static void cpu_gather_rows(backend *be, backend_view dst, backend_view src,
                            const int32_t *index)
{
    CPU_REQUIRE(dst.dtype == src.dtype && dst.cols == src.cols);
    const rows r = {.cpu = cpu_of(be), .y = dst, .x = src, .index = index};
    each_row(&r, dst.rows, dst.rows * dst.cols, gather_one);
}

static void scatter_one(const rows *r, int64_t i)
{
    copy_row(r->y, r->index[i], r->x, i);
}

static void cpu_scatter_rows(backend *be, backend_view dst, backend_view src,
                             const int32_t *index)
{
    CPU_REQUIRE(dst.dtype == src.dtype && dst.cols == src.cols);
    const rows r = {.cpu = cpu_of(be), .y = dst, .x = src, .index = index};
    each_row(&r, src.rows, src.rows * src.cols, scatter_one);
}

/* ---- loss ------------------------------------------------------------ */

/* x: logits, index: targets, out: lse, f: nll */
static void xent_stats_row(const rows *r, int64_t i)
{
    const float *x = cpu_at(r->x, i, 0);
    const int32_t target = r->index[i];
    CPU_REQUIRE(target >= 0 && target < r->x.cols);
    float max, *lse = r->out;
    double log_sum = r->cpu->k->logsum(x, r->x.cols, &max);
    lse[i] = (float)((double)max + log_sum);
    /* From the parts: the difference keeps digits that lse rounds off. */
    r->f[i] = (float)((double)max - (double)x[target] + log_sum);
}

static void cpu_xent_stats(backend *be, void *lse, void *nll,
                           backend_view logits, const int32_t *target)
{
    CPU_REQUIRE(logits.dtype == be->acc);
    const rows r = {
        .cpu = cpu_of(be), .x = logits, .index = target, .out = lse, .f = nll};
    each_row(&r, logits.rows, logits.rows * logits.cols, xent_stats_row);
}

/* y: d, x: logits, index: targets, g: lse, h: weights */
static void xent_grad_row(const rows *r, int64_t i)
{
    const int32_t target = r->index[i];
    CPU_REQUIRE(target >= 0 && target < r->x.cols);
    r->cpu->k->xent_grad(cpu_at(r->y, i, 0), cpu_at(r->x, i, 0), r->g[i],
                         r->h[i], target, r->x.cols, is_bf(r->y));
}

static void cpu_xent_grad(backend *be, backend_view d, backend_view logits,
                          const int32_t *target, const void *lse,
                          const void *weight)
{
    CPU_REQUIRE(logits.dtype == be->acc && cpu_is_act(be, d));
    CPU_REQUIRE(cpu_same_shape(d, logits));
    const rows r = {.cpu = cpu_of(be),
                    .y = d,
                    .x = logits,
                    .index = target,
                    .g = lse,
                    .h = weight};
    each_row(&r, logits.rows, logits.rows * logits.cols, xent_grad_row);
}

static void argmax_row(const rows *r, int64_t i)
{
    int32_t *out = r->out;
    out[i] = (int32_t)r->cpu->k->argmax(cpu_at(r->x, i, 0), r->x.cols);
}

static void cpu_argmax(backend *be, int32_t *out, backend_view x)
{
    CPU_REQUIRE(x.dtype == be->acc && x.cols > 0);
    const rows r = {.cpu = cpu_of(be), .x = x, .out = out};
    each_row(&r, x.rows, x.rows * x.cols, argmax_row);
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

/* f: packed, x: dense, flag: accumulate */
static void keep_gather_row(const rows *r, int64_t i)
{
    const float *row = cpu_at(r->x, i, 0);
    const int64_t cols = r->x.cols;
    if (r->keep)
        gather_row(r->f, row, r->keep, i, r->flag);
    else if (r->flag)
        r->cpu->k->add(r->f + i * cols, row, cols, false);
    else
        memcpy(r->f + i * cols, row, (size_t)cols * 4);
}

static void cpu_keep_gather(backend *be, void *packed, backend_view dense,
                            const backend_keep *keep, bool accumulate)
{
    CPU_REQUIRE(dense.dtype == be->acc);
    CPU_REQUIRE(!keep ||
                (keep->rows == dense.rows && keep->cols == dense.cols));
    const rows r = {.cpu = cpu_of(be),
                    .f = packed,
                    .x = dense,
                    .keep = keep,
                    .flag = accumulate};
    each_row(&r, dense.rows, dense.rows * dense.cols, keep_gather_row);
}

/* y: dense, g: packed */
static void keep_scatter_row(const rows *r, int64_t i)
{
    void *row = cpu_at(r->y, i, 0);
    const int64_t cols = r->y.cols;
    if (r->keep)
        scatter_row(row, is_bf(r->y), r->g, r->keep, i);
    else if (is_bf(r->y))
        r->cpu->k->shrink(row, r->g + i * cols, cols);
    else
        memcpy(row, r->g + i * cols, (size_t)cols * 4);
}

static void cpu_keep_scatter(backend *be, backend_view dense,
                             const void *packed, const backend_keep *keep)
{
    CPU_REQUIRE(cpu_is_act(be, dense) || dense.dtype == be->acc);
    CPU_REQUIRE(!keep ||
                (keep->rows == dense.rows && keep->cols == dense.cols));
    const rows r = {.cpu = cpu_of(be), .y = dense, .g = packed, .keep = keep};
    each_row(&r, dense.rows, dense.rows * dense.cols, keep_scatter_row);
}

/* Numbers in a row become blocks, each of them one thread's. */
enum { BLOCK = 16384 };

static int64_t blocks_of(int64_t n)
{
    return (n + BLOCK - 1) / BLOCK;
}
static int64_t block_length(int64_t n, int64_t i)
{
    return n - i * BLOCK < BLOCK ? n - i * BLOCK : BLOCK;
}

/* g: the numbers, n of them; out: sums of blocks */
static void sqnorm_block(const rows *r, int64_t i)
{
    double *sums = r->out;
    sums[i] = r->cpu->k->sqnorm(r->g + i * BLOCK, block_length(r->n, i));
}

/* Fixed blocks, added in order. */
static void cpu_sqnorm(backend *be, double *out, const void *x, int64_t n)
{
    cpu_backend *cpu = cpu_of(be);
    const int64_t blocks = blocks_of(n);
    if (cpu->failed || !cpu_scratch(cpu, (size_t)(blocks + 1) * 8))
        return;
    double *sums = cpu_scratch_of(cpu, 0), sum = 0;
    const rows r = {.cpu = cpu, .g = x, .n = n, .out = sums};
    each_row(&r, blocks, n, sqnorm_block);
    for (int64_t b = 0; b < blocks; ++b)
        sum += sums[b];
    *out = sum;
}

/* Of one adamw(): parameters, gradient, moments. */
typedef struct moments {
    float *p, *m, *v;
    const float *g;
} moments;

static void adamw_block(const rows *r, int64_t i)
{
    const moments *all = r->w;
    const int64_t at = i * BLOCK;
    r->cpu->k->adamw(all->p + at, all->g + at, all->m + at, all->v + at,
                     block_length(r->n, i), r->step);
}

static void cpu_adamw(backend *be, void *p, const void *g, void *m, void *v,
                      int64_t n, const backend_adamw *hp)
{
    CPU_REQUIRE(hp->step >= 1);
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
    const moments all = {p, m, v, g};
    const rows r = {.cpu = cpu_of(be), .w = &all, .n = n, .step = &step};
    each_row(&r, blocks_of(n), n, adamw_block);
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
