/* cpu_gemm.c - own products of matrices. Every element of the result is one
 * chain of multiply-adds over k (isa/cpu_k_gemm.c), so how a product is cut is
 * a matter of speed alone, and may depend on the caches and on the number of
 * threads.
 *
 * Packed: a task owns rows x columns of c. It walks blocks of columns, and in
 * each blocks along k: op(b) is packed into panels, which stay in the second
 * cache, once for all the task's rows. These pass by a tile at a time, and
 * become floats just before their use: they never leave the first cache.
 * What is expanded and packed next is fetched meanwhile.
 * Few rows: b is streamed once; see `few` of cpu_kernels.h. */

#include "backend/cpu/cpu_i.h"

enum {
    ROWS = 12,     /* expanded at a time: whole register tiles */
    LEAST_M = 96,  /* rows of a task that keeps sums between blocks of k */
    MOST_M = 512,  /* (one that is a single block takes any number) */
    LEAST_N = 96,  /* columns of a task */
    MOST_N = 384,  /* if it keeps no sums, */
    SUM_N = 256,   /* and if it does */
    LEAST_K = 192, /* of a block; */
    MOST_K = 512,  /* a single one may be half longer */
    LOW_ROWS = 64, /* at most: packing is much of the work, so panels stay */
    LOW_N = 32,    /* in the first cache: a block's columns */
    LOW_K = 128    /* and length */
};
_Static_assert(MOST_K * 3 / 2 <= CPU_GEMM_K, "a row of x has room for a block");

/* ---- cutting ---------------------------------------------------------- */

typedef struct plan {
    cpu_cut m, n, k;
    int64_t block; /* columns packed at a time within a task */
} plan;

typedef struct scratch {
    float *x, *panels, *sum;
} scratch;

/* Columns of a block with those that fill its last panel. */
static int64_t block_columns(const plan *s)
{
    return (s->block + CPU_PANEL - 1) / CPU_PANEL * CPU_PANEL;
}

static scratch scratch_at(const plan *s, float *p)
{
    float *panels = p + ROWS * CPU_GEMM_LD;
    return (scratch){p, panels, panels + block_columns(s) * s->k.size};
}

/* A product that is one block along k keeps no sums. */
static size_t scratch_bytes(const plan *s)
{
    const int64_t sum_rows = s->k.count > 1 ? s->m.size : 0;
    return (size_t)(ROWS * CPU_GEMM_LD +
                    block_columns(s) * (s->k.size + sum_rows)) *
           sizeof(float);
}

/* The time of a piece [m, n] in multiply-adds per step of k: packing a column
 * of op(b) takes as long as 12 of them, expanding a row of a as 4. */
static double piece_cost(cpu_cut m, cpu_cut n, int n_threads)
{
    int64_t rounds = (m.count * n.count + n_threads - 1) / n_threads;
    double rows = (double)m.size, cols = (double)n.size;
    return (double)rounds * (rows * cols + 12 * cols + 4 * rows);
}

/* The cheapest of the cuts whose pieces are [most_m, most_n] or less, for
 * threads that each take the next piece. */
static void cut_many(const cpu_call *p, plan *s, int64_t most_m, int64_t most_n,
                     int step, int n_threads)
{
    const int64_t m = p->a.rows, n = p->c.cols;
    const int64_t m0 = (m + most_m - 1) / most_m;
    const int64_t n0 = (n + most_n - 1) / most_n;
    double best = 0;
    for (int64_t pm = m0; pm <= m0 + n_threads; ++pm)
        for (int64_t pn = n0; pn <= n0 + n_threads; ++pn) {
            cpu_cut cm = cpu_cut_even(m, pm, ROWS),
                    cn = cpu_cut_even(n, pn, step);
            double cost = piece_cost(cm, cn, n_threads);
            if (best == 0 || cost < best) {
                best = cost;
                s->m = cm;
                s->n = cn;
            }
            if (pn * pm >= 4 * n_threads)
                break; /* even enough */
        }
    s->block = s->n.size;
}

/* Panels take half of the second cache, sums between blocks along k a quarter;
 * the rest is for what is fetched ahead. */
static plan cut_for_cache(const cpu_backend *cpu, const cpu_call *p)
{
    plan s;
    const int64_t floats = (int64_t)(cpu->l2_bytes / sizeof(float));
    const int64_t most_k = cpu_clamp(floats / 2 / SUM_N, LEAST_K, MOST_K);
    const bool sums = p->k > most_k * 3 / 2;
    const int64_t blocks = sums ? (p->k + most_k - 1) / most_k : 1;
    s.k = cpu_cut_even(p->k, blocks, CPU_PAD);
    const int64_t most_m =
        sums ? cpu_clamp(floats / 4 / SUM_N, LEAST_M, MOST_M) : p->a.rows;
    const int64_t most_n =
        cpu_clamp(floats / 2 / s.k.size, LEAST_N, sums ? SUM_N : MOST_N);
    cut_many(p, &s, most_m, most_n / CPU_PANEL * CPU_PANEL, cpu->k->panel,
             cpu->be.n_threads);
    return s;
}

static plan cut(const cpu_backend *cpu, const cpu_call *p)
{
    plan s;
    if (p->a.rows > LOW_ROWS)
        return cut_for_cache(cpu, p);
    s.k = cpu_cut_even(p->k, (p->k + LOW_K - 1) / LOW_K, CPU_PAD);
    s.m = cpu_cut_even(p->a.rows, 1, 1);
    s.n = cpu_cut_even(p->c.cols, 4 * cpu->be.n_threads, LOW_N);
    s.block = LOW_N;
    return s;
}

/* ---- a task ----------------------------------------------------------- */

typedef struct task {
    const cpu_backend *cpu;
    const cpu_call *p;
    const plan *s;
    int64_t row, m, col, n; /* its part of c */
    scratch at;
} task;

/* Columns [col, col + n) of the task, block t along k. */
typedef struct block {
    int64_t t, col, n;
} block;

static cpu_ahead rows_ahead(const char *at, int64_t ld, int64_t rows,
                            int64_t cols, base_dtype dtype)
{
    const int64_t size = (int64_t)base_dtype_bytes(dtype);
    return (cpu_ahead){at, ld * size, rows, cpu_lines(at, cols * size)};
}

/* The share in block b of op(b) that goes with rows [i, i + m) of the task's.
 */
static cpu_ahead b_ahead(const task *w, block b, int64_t i, int64_t m)
{
    const cpu_call *p = w->p;
    const int64_t k0 = b.t * w->s->k.size, k = cpu_cut_length(w->s->k, b.t);
    const int64_t rows = p->b_rows_n ? b.n : k;
    const int64_t from = rows * i / w->m, to = rows * (i + m) / w->m;
    const char *at = p->b_rows_n ? cpu_b_at(p, k0, w->col + b.col + from)
                                 : cpu_b_at(p, k0 + from, w->col + b.col);
    return rows_ahead(at, p->ldb, to - from, p->b_rows_n ? k : b.n, p->a.dtype);
}

/* Rows of a from row i of the task on, block t along k. */
static cpu_ahead x_ahead(const task *w, int64_t t, int64_t i)
{
    return rows_ahead(cpu_at(w->p->a, w->row + i, t * w->s->k.size), w->p->a.ld,
                      w->m - i < ROWS ? w->m - i : ROWS,
                      cpu_cut_length(w->s->k, t), w->p->a.dtype);
}

/* All rows with one block of op(b); `next` comes after it (n 0: nothing). */
static void multiply_block(const task *w, block b, block next)
{
    const cpu_call *p = w->p;
    const cpu_kernels *kernels = w->cpu->k;
    const bool bf = p->a.dtype == BASE_BF16;
    const int64_t k0 = b.t * w->s->k.size;
    cpu_gemm_block g = {.n = b.n,
                        .k = cpu_cut_length(w->s->k, b.t),
                        .x = w->at.x,
                        .panels = w->at.panels,
                        .sum_rows = w->m,
                        .first = b.t == 0,
                        .last = b.t + 1 == w->s->k.count,
                        .ldc = p->c.ld,
                        .c_bf = p->c.dtype == BASE_BF16,
                        .alpha = p->alpha,
                        .beta = p->beta};
    kernels->pack(w->at.panels, cpu_b_at(p, k0, w->col + b.col), p->ldb,
                  p->b_rows_n, g.n, g.k, bf);
    for (int64_t i = 0; i < w->m; i += ROWS) {
        g.m = w->m - i < ROWS ? w->m - i : ROWS;
        kernels->load_rows(w->at.x, CPU_GEMM_LD, cpu_at(p->a, w->row + i, k0),
                           p->a.ld, g.m, g.k, bf);
        g.ahead[0] = g.ahead[1] = (cpu_ahead){0};
        if (i + ROWS < w->m)
            g.ahead[0] = x_ahead(w, b.t, i + ROWS);
        else if (next.n)
            g.ahead[0] = x_ahead(w, next.t, 0);
        if (next.n)
            g.ahead[1] = b_ahead(w, next, i, g.m);
        g.sum = w->at.sum + i * kernels->panel;
        g.c = cpu_at(p->c, w->row + i, w->col + b.col);
        g.plus = cpu_plus_at(p, w->row + i, w->col + b.col);
        kernels->gemm(&g);
    }
}

static block block_at(const task *w, int64_t t, int64_t col)
{
    const int64_t left = w->n - col;
    return (block){t, col, left < w->s->block ? left : w->s->block};
}

static void run_task(const task *w)
{
    const int64_t count = w->s->k.count;
    for (int64_t col = 0; col < w->n; col += w->s->block)
        for (int64_t t = 0; t < count; ++t) {
            block next = {0};
            if (t + 1 < count)
                next = block_at(w, t + 1, col);
            else if (col + w->s->block < w->n)
                next = block_at(w, 0, col + w->s->block);
            multiply_block(w, block_at(w, t, col), next);
        }
}

/* What cpu_gemm_packed() gives its threads. */
typedef struct packed_call {
    const cpu_backend *cpu;
    const cpu_call *p;
    const plan *s;
    backend_tasks tasks;
} packed_call;

static void packed_part(void *context, int thread, int n)
{
    (void)n;
    packed_call *c = context;
    const plan *s = c->s;
    float *memory = cpu_scratch_of(c->cpu, thread);
    int64_t at;
    while (backend_take(&c->tasks, &at)) {
        const int64_t i = at % s->m.count, j = at / s->m.count;
        const task w = {.cpu = c->cpu,
                        .p = c->p,
                        .s = s,
                        .row = i * s->m.size,
                        .m = cpu_cut_length(s->m, i),
                        .col = j * s->n.size,
                        .n = cpu_cut_length(s->n, j),
                        .at = scratch_at(s, memory)};
        run_task(&w);
    }
}

void cpu_gemm_packed(cpu_backend *cpu, const cpu_call *p)
{
    const plan s = cut(cpu, p);
    packed_call c = {.cpu = cpu, .p = p, .s = &s};
    c.tasks.count = s.m.count * s.n.count;
    if (cpu_scratch(cpu, scratch_bytes(&s)))
        backend_team_run(cpu->be.team, cpu->be.n_threads, packed_part, &c);
}

/* ---- few rows --------------------------------------------------------- */

/* Rows of b that a thread takes at least: where a piece begins, nothing has
 * been fetched ahead. */
enum { FEW_PIECE = 32 };

static int64_t few_rows(const cpu_backend *cpu)
{
    return cpu->tiles ? CPU_TILE_ROWS : CPU_FEW_ROWS;
}

/* The rows of a as the kernel takes them, in a thread's scratch. */
static size_t few_bytes(const cpu_backend *cpu, const cpu_call *p, bool compact)
{
    if (cpu->tiles)
        return (size_t)cpu->tiles->few_x(NULL, p->a.data, p->a.ld, p->a.rows,
                                         p->k, compact) *
               sizeof(uint16_t);
    if (compact)
        return (size_t)(p->a.rows * cpu_few_compact_ld(p->k)) * sizeof(float);
    return (size_t)(CPU_ROUND_UP(p->a.rows) * CPU_ROUND_UP(p->k)) *
           sizeof(float);
}

static void few_load(const cpu_backend *cpu, const cpu_call *p, bool compact,
                     void *x)
{
    if (cpu->tiles)
        cpu->tiles->few_x(x, p->a.data, p->a.ld, p->a.rows, p->k, compact);
    else
        (compact ? cpu->k->few_compact_x : cpu->k->few_x)(
            x, p->a.data, p->a.ld, p->a.rows, p->k, p->a.dtype == BASE_BF16);
}

/* Blocks of rows of w [., cols] from `row` on, the first of its block. */
static const uint8_t *compact_rows(const uint8_t *blocks, int64_t row,
                                   int64_t cols)
{
    return blocks + row / CPU_COMPACT_SIDE * cpu_compact_blocks(cols) *
                        CPU_COMPACT_BLOCK;
}

/* The beginning of what the thread of piece j of p reads in the next product:
 * as much of it as a kernel reads at a time. */
static cpu_ahead few_after(const cpu_backend *cpu, const cpu_call *p, int64_t j)
{
    enum { AT_ONCE = 64 };
    const cpu_place *w = &p->after;
    if (!w->data)
        return (cpu_ahead){0};
    const cpu_cut s = cpu_cut_even(w->rows, cpu->be.n_threads, FEW_PIECE);
    if (j >= s.count)
        return (cpu_ahead){0};
    if (w->blocks)
        return (cpu_ahead){
            .at = (const char *)compact_rows(w->blocks, j * s.size, w->cols),
            .row_bytes = CPU_COMPACT_BLOCK,
            .rows = cpu_compact_blocks(w->cols)};
    const int64_t rows = cpu_cut_length(s, j);
    const int64_t row = w->cols * (int64_t)base_dtype_bytes(p->a.dtype);
    return (cpu_ahead){.at = (const char *)w->data + j * s.size * row,
                       .row_bytes = row,
                       .rows = rows < AT_ONCE ? rows : AT_ONCE};
}

/* c, from `row` of w on. */
static void few_kernel(const cpu_backend *cpu, cpu_few *f,
                       const cpu_compact *compact, int64_t row)
{
    if (!compact) {
        (cpu->tiles ? cpu->tiles->few : cpu->k->few)(f);
        return;
    }
    f->blocks = compact_rows(compact->blocks, row, f->k);
    f->whole = compact->whole;
    (cpu->tiles ? cpu->tiles->few_compact : cpu->k->few_compact)(f);
}

/* A thread's piece of one product; x as few_load() left it. */
static void few_pieces(const cpu_backend *cpu, const cpu_call *p, bool compact,
                       const float *x, int thread, int n_threads)
{
    const cpu_cut s = cpu_cut_even(p->c.cols, cpu->be.n_threads, FEW_PIECE);
    const int64_t end = backend_share(s.count, thread + 1, n_threads);
    for (int64_t j = backend_share(s.count, thread, n_threads); j < end; ++j) {
        const cpu_ahead after = few_after(cpu, p, j);
        cpu_few f = {.m = p->a.rows,
                     .n = cpu_cut_length(s, j),
                     .k = p->k,
                     .x = x,
                     .w = cpu_b_at(p, 0, j * s.size),
                     .ldw = p->ldb,
                     .bf = p->a.dtype == BASE_BF16,
                     .after = after.at,
                     .after_bytes = after.row_bytes * after.rows,
                     .c = cpu_at(p->c, 0, j * s.size),
                     .plus = cpu_plus_at(p, 0, j * s.size),
                     .ldc = p->c.ld,
                     .c_bf = p->c.dtype == BASE_BF16,
                     .alpha = p->alpha,
                     .beta = p->beta};
        few_kernel(cpu, &f, compact ? p->compact : NULL, j * s.size);
    }
}

/* Products of one a take it in one form. */
static bool all_compact(const cpu_call *p, int n)
{
    bool all = true;
    for (int i = 0; i < n; ++i)
        all = all && p[i].compact;
    return all;
}

/* SwiGLU of a thread's pieces of gate and up, which are the same columns. */
static void few_glu(const cpu_backend *cpu, const cpu_glu *glu, int thread,
                    int n_threads)
{
    const backend_view a = glu->a;
    const cpu_cut s = cpu_cut_even(a.cols, cpu->be.n_threads, FEW_PIECE);
    const int64_t from = backend_share(s.count, thread, n_threads) * s.size;
    const int64_t end = backend_share(s.count, thread + 1, n_threads) * s.size;
    const int64_t cols = (end < a.cols ? end : a.cols) - from;
    for (int64_t i = 0; i < a.rows && cols > 0; ++i)
        cpu->k->swiglu(cpu_at(a, i, from), cpu_at(glu->gate, i, from),
                       cpu_at(glu->up, i, from), cols, a.dtype == BASE_BF16);
}

/* What cpu_gemm_few() gives its threads. */
typedef struct few_call {
    const cpu_backend *cpu;
    const cpu_call *p;
    int n;
    bool compact;
    const cpu_glu *glu;
} few_call;

static void few_part(void *context, int thread, int n_threads)
{
    const few_call *f = context;
    const cpu_backend *cpu = f->cpu;
    void *x = cpu_scratch_of(cpu, thread);
    if (cpu->tiles)
        cpu->tiles->start();
    few_load(cpu, f->p, f->compact, x);
    for (int i = 0; i < f->n; ++i)
        few_pieces(cpu, &f->p[i], f->compact, x, thread, n_threads);
    if (cpu->tiles)
        cpu->tiles->stop();
    if (f->glu)
        few_glu(cpu, f->glu, thread, n_threads);
}

bool cpu_gemm_few(cpu_backend *cpu, const cpu_call *p, int n,
                  const cpu_glu *glu)
{
    int64_t columns = 0;
    for (int i = 0; i < n; ++i) {
        if (!p[i].b_rows_n)
            return false;
        columns += p[i].c.cols;
    }
    if (p->a.rows > few_rows(cpu))
        return false;
    const bool compact = all_compact(p, n);
    if (!columns || !cpu_scratch(cpu, few_bytes(cpu, p, compact)))
        return true;
    few_call call = {cpu, p, n, compact, glu};
    backend_team_run(cpu->be.team,
                     columns * p->k > 65536 ? cpu->be.n_threads : 1, few_part,
                     &call);
    return true;
}
