/* cpu_linear.c - the table's products of matrices, sums over tokens and the
 * embedding. Three ways to a product, see cpu_gemm.c and cpu_tiles.c. */
#include "backend/cpu/cpu_i.h"

static void check(const cpu_backend *cpu, const cpu_call *p)
{
    base_dtype act = cpu->be.act, acc = cpu->be.acc;
    CPU_REQUIRE(p->a.dtype == act && p->a.cols == p->k);
    CPU_REQUIRE(p->c.dtype == act || p->c.dtype == acc);
    CPU_REQUIRE(p->c.rows == p->a.rows && p->k > 0);
}

/* n products of floats of one a, without what is added to them. */
static void multiply_floats(cpu_backend *cpu, const cpu_call *p, int n)
{
    if (cpu_gemm_few(cpu, p, n, NULL))
        return;
    for (int i = 0; i < n; ++i)
        if (p[i].c.cols > 0)
            cpu_gemm_packed(cpu, &p[i]);
}

/* n products of one a, what is added to them, and SwiGLU of them (or NULL). On
 * tiles only the way of many rows joins what is added, so few rows go it too: a
 * row has the same bits in any company. */
static void multiply(cpu_backend *cpu, const cpu_call *p, int n,
                     const cpu_glu *glu)
{
    bool more = false;
    for (int i = 0; i < n; ++i) {
        for (const cpu_call *q = &p[i]; q; q = q->then)
            check(cpu, q);
        more = more || p[i].then;
    }
    if (cpu->failed || p->a.rows == 0)
        return;
    if (!more && cpu_gemm_few(cpu, p, n, glu))
        return;
    if (cpu->tiles) {
        cpu_gemm_tiles(cpu, p, n, glu);
        return;
    }
    multiply_floats(cpu, p, n);
    for (int i = 0; i < n; ++i)
        for (const cpu_call *q = p[i].then; q; q = q->then)
            multiply_floats(cpu, q, 1);
    if (glu)
        cpu_glu_rows(cpu, glu);
}

/* Lets *memory, the call for `low`, follow p; returns the last of the two. */
static cpu_call *add_low(cpu_call *p, const backend_low *low, cpu_call *memory)
{
    if (!low || low->left.cols == 0)
        return p;
    const backend_view a = low->left, b = low->right;
    CPU_REQUIRE(b.dtype == a.dtype);
    CPU_REQUIRE(a.cols == (p->b_rows_n ? b.cols : b.rows));
    CPU_REQUIRE(p->c.cols == (p->b_rows_n ? b.rows : b.cols));
    *memory = (cpu_call){.c = p->c,
                         .a = a,
                         .b = b.data,
                         .ldb = b.ld,
                         .k = a.cols,
                         .b_rows_n = p->b_rows_n,
                         .alpha = 1,
                         .beta = 1};
    p->then = memory;
    return memory;
}

/* x W^T + plus, and what it tells of the order of weights. */
static cpu_call with_weight(cpu_backend *cpu, backend_view y, backend_view x,
                            const backend_weight *w, const backend_view *plus)
{
    CPU_REQUIRE(x.cols == w->cols && y.cols == w->rows);
    if (plus)
        CPU_REQUIRE(cpu_same_shape(*plus, y) && plus->dtype == y.dtype &&
                    plus->ld == y.ld);
    if (cpu->last)
        *cpu->last->after =
            (cpu_place){w->data, w->rows, w->cols, w->compact.blocks};
    cpu->last = w;
    return (cpu_call){.c = y,
                      .a = x,
                      .b = w->data,
                      .ldb = w->cols,
                      .k = w->cols,
                      .b_rows_n = true,
                      .alpha = 1,
                      .beta = plus ? 1 : 0,
                      .plus = plus,
                      .compact = w->compact.blocks ? &w->compact : NULL,
                      .after = *w->after};
}

static void cpu_gemm_w(backend *be, backend_view y, backend_view x,
                       const backend_weight *w, const backend_low *low,
                       const backend_view *plus)
{
    cpu_call p = with_weight(cpu_of(be), y, x, w, plus), own;
    add_low(&p, low, &own);
    multiply(cpu_of(be), &p, 1, NULL);
}

static void with_weights(backend *be, int n_w, const backend_view *y,
                         backend_view x, backend_weight *const *w,
                         const backend_low *low, const cpu_glu *glu)
{
    cpu_call p[BACKEND_GROUP], own[BACKEND_GROUP];
    CPU_REQUIRE(n_w > 0 && n_w <= BACKEND_GROUP);
    for (int i = 0; i < n_w; ++i) {
        p[i] = with_weight(cpu_of(be), y[i], x, w[i], NULL);
        add_low(&p[i], low ? &low[i] : NULL, &own[i]);
    }
    multiply(cpu_of(be), p, n_w, glu);
}

static void cpu_gemm_ws(backend *be, int n_w, const backend_view *y,
                        backend_view x, backend_weight *const *w,
                        const backend_low *low)
{
    with_weights(be, n_w, y, x, w, low, NULL);
}

static void check_glu(const backend *be, const cpu_glu *glu)
{
    CPU_REQUIRE(cpu_is_act(be, glu->a) && cpu_is_act(be, glu->gate) &&
                cpu_is_act(be, glu->up));
    CPU_REQUIRE(cpu_same_shape(glu->a, glu->gate) &&
                cpu_same_shape(glu->a, glu->up));
}

static void cpu_gemm_swiglu(backend *be, backend_view a, backend_view g,
                            backend_view u, backend_view x,
                            backend_weight *const w[2], const backend_low *low)
{
    const cpu_glu glu = {.gate = g, .up = u, .a = a};
    check_glu(be, &glu);
    with_weights(be, 2, (backend_view[]){g, u}, x, w, low, &glu);
}

/* dy W */
static cpu_call with_turned(backend_view dx, backend_view dy,
                            const backend_weight *w, double beta)
{
    CPU_REQUIRE(dy.cols == w->rows && dx.cols == w->cols);
    return (cpu_call){.c = dx,
                      .a = dy,
                      .b = w->data,
                      .ldb = w->cols,
                      .k = w->rows,
                      .alpha = 1,
                      .beta = (float)beta};
}

static void cpu_gemm_wt(backend *be, backend_view dx, backend_view dy,
                        const backend_weight *w, const backend_low *low,
                        double beta)
{
    cpu_call p = with_turned(dx, dy, w, beta), own;
    add_low(&p, low, &own);
    multiply(cpu_of(be), &p, 1, NULL);
}

static void cpu_gemm_swiglu_bwd(backend *be, backend_view g, backend_view u,
                                backend_view da, backend_view dy,
                                const backend_weight *w, const backend_low *low)
{
    const cpu_glu glu = {.gate = g, .up = u, .a = da, .back = true};
    cpu_call p = with_turned(da, dy, w, 0), own;
    check_glu(be, &glu);
    add_low(&p, low, &own);
    multiply(cpu_of(be), &p, 1, &glu);
}

static void cpu_gemm_wts(backend *be, backend_view dx, int n_w,
                         const backend_view *dy, backend_weight *const *w,
                         const backend_low *low)
{
    cpu_call p[BACKEND_GROUP], own[BACKEND_GROUP], *last = NULL;
    CPU_REQUIRE(n_w > 0 && n_w <= BACKEND_GROUP);
    for (int i = 0; i < n_w; ++i) {
        p[i] = with_turned(dx, dy[i], w[i], i ? 1 : 0);
        if (last)
            last->then = &p[i];
        last = add_low(&p[i], low ? &low[i] : NULL, &own[i]);
    }
    multiply(cpu_of(be), p, 1, NULL);
}

static void cpu_gemm_nt(backend *be, backend_view c, backend_view a,
                        backend_view b, double alpha, double beta)
{
    CPU_REQUIRE(b.rows == c.cols && b.cols == a.cols && b.dtype == a.dtype);
    cpu_call p = {.c = c,
                  .a = a,
                  .b = b.data,
                  .ldb = b.ld,
                  .k = a.cols,
                  .b_rows_n = true,
                  .alpha = (float)alpha,
                  .beta = (float)beta};
    multiply(cpu_of(be), &p, 1, NULL);
}

static void cpu_gemm_nn(backend *be, backend_view c, backend_view a,
                        backend_view b, double alpha, double beta)
{
    CPU_REQUIRE(b.rows == a.cols && b.cols == c.cols && b.dtype == a.dtype);
    cpu_call p = {.c = c,
                  .a = a,
                  .b = b.data,
                  .ldb = b.ld,
                  .k = a.cols,
                  .alpha = (float)alpha,
                  .beta = (float)beta};
    multiply(cpu_of(be), &p, 1, NULL);
}

static void cpu_embed(backend *be, backend_view y, const backend_weight *w,
                      const int32_t *ids)
{
    CPU_REQUIRE(y.cols == w->cols && y.dtype == be->act);
    const backend_view table = {(void *)(uintptr_t)w->data, w->rows, w->cols,
                                w->cols, be->act};
    be->gather_rows(be, y, table, ids);
}

/* ---- sums over tokens ------------------------------------------------ */

/* A task owns a tile [TOKEN_P, TOKEN_Q] of c and walks all tokens in order:
 * TOKEN_STEP rows at a time become float and are multiplied into the tile, a
 * block of BACKEND_TOKEN_BLOCK is summed from zero and then added to c. */
enum { TOKEN_P = 192, TOKEN_Q = 192, TOKEN_STEP = 128 };

/* An odd number of cache lines: columns then spread over all sets. */
static int64_t odd_lines(int64_t n)
{
    n = CPU_ROUND_UP(n);
    return n / CPU_PAD % 2 ? n : n + CPU_PAD;
}

/* An even number of tiles along a long side: two threads share them. */
static cpu_cut cut_tokens(int64_t total, int64_t most, int64_t step)
{
    return cpu_cut_even(
        total,
        total <= most / 2 ? 1 : 2 * ((total + 2 * most - 1) / (2 * most)),
        step);
}

static void token_tile(const cpu_backend *cpu, backend_view c, backend_view x,
                       backend_view y, float alpha, float beta, int64_t p0,
                       int64_t p, int64_t q0, int64_t q, float *scratch)
{
    const bool bf = x.dtype == BASE_BF16;
    int64_t ldp = odd_lines(p), ldq = odd_lines(q), wide = CPU_ROUND_UP(q);
    float *xs = scratch, *ys = xs + TOKEN_STEP * (TOKEN_P + CPU_PAD);
    float *tile = ys + TOKEN_STEP * (TOKEN_Q + CPU_PAD);
    int64_t t = 0;
    do {
        int64_t start = t;
        int64_t end =
            t + BACKEND_TOKEN_BLOCK < x.rows ? t + BACKEND_TOKEN_BLOCK : x.rows;
        memset(tile, 0, (size_t)(p * ldq) * 4);
        for (; t < end; t += TOKEN_STEP) {
            int64_t n = end - t < TOKEN_STEP ? end - t : TOKEN_STEP;
            cpu->k->load_rows(xs, ldp, cpu_at(x, t, p0), x.ld, n, p, bf);
            cpu->k->load_rows(ys, ldq, cpu_at(y, t, q0), y.ld, n, q, bf);
            cpu->k->mm(p, wide, n, xs, 1, ldp, ys, ldq, tile, ldq, true);
        }
        for (int64_t i = 0; i < p; ++i)
            cpu->k->axpby(cpu_at(c, p0 + i, q0), tile + i * ldq, alpha,
                          start ? 1 : beta, q, false);
        t = end;
    } while (t < x.rows);
}

/* What cpu_gemm_tn() gives its threads. */
typedef struct sum_call {
    const cpu_backend *cpu;
    backend_view c, x, y;
    float alpha, beta;
    cpu_cut p, q;
    backend_tasks tiles;
} sum_call;

static void sum_part(void *context, int thread, int n)
{
    (void)n;
    sum_call *s = context;
    int64_t at;
    while (backend_take(&s->tiles, &at)) {
        const int64_t i = at / s->q.count, j = at % s->q.count;
        token_tile(s->cpu, s->c, s->x, s->y, s->alpha, s->beta, i * s->p.size,
                   cpu_cut_length(s->p, i), j * s->q.size,
                   cpu_cut_length(s->q, j), cpu_scratch_of(s->cpu, thread));
    }
}

static void cpu_gemm_tn(backend *be, backend_view c, backend_view x,
                        backend_view y, double alpha, double beta)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(x.rows == y.rows && c.rows == x.cols && c.cols == y.cols);
    CPU_REQUIRE(c.dtype == be->acc && x.dtype == be->act && y.dtype == be->act);
    if (cpu->failed || c.rows == 0 || c.cols == 0)
        return;
    if (cpu->tiles) {
        cpu_sum_tiles(cpu, c, x, y, (float)alpha, (float)beta);
        return;
    }
    size_t floats = (TOKEN_STEP + TOKEN_P) * (TOKEN_Q + CPU_PAD) +
                    TOKEN_STEP * (TOKEN_P + CPU_PAD);
    if (!cpu_scratch(cpu, floats * 4))
        return;
    const cpu_cut p = cut_tokens(c.rows, TOKEN_P, 12);
    const cpu_cut q = cut_tokens(c.cols, TOKEN_Q, 32);
    sum_call call = {.cpu = cpu,
                     .c = c,
                     .x = x,
                     .y = y,
                     .alpha = (float)alpha,
                     .beta = (float)beta,
                     .p = p,
                     .q = q};
    call.tiles.count = p.count * q.count;
    backend_team_run(be->team, be->n_threads, sum_part, &call);
}

void cpu_linear_fill(backend *be)
{
    be->gemm_w = cpu_gemm_w;
    be->gemm_ws = cpu_gemm_ws;
    be->gemm_wt = cpu_gemm_wt;
    be->gemm_wts = cpu_gemm_wts;
    be->gemm_swiglu = cpu_gemm_swiglu;
    be->gemm_swiglu_bwd = cpu_gemm_swiglu_bwd;
    be->embed = cpu_embed;
    be->gemm_nt = cpu_gemm_nt;
    be->gemm_nn = cpu_gemm_nn;
    be->gemm_tn = cpu_gemm_tn;
}
