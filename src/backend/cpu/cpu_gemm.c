/* cpu_gemm.c - own products of matrices. Every element of the result is one
 * chain of multiply-adds over k (isa/cpu_k_gemm.c), so how a product is cut is
 * a matter of speed alone, and may depend on the number of threads.
 *
 * Packed: a task owns rows x columns of c. It walks blocks of columns, and in
 * each blocks along k: op(b) is packed into panels once for all the task's
 * rows, which pass by in pieces that stay in cache.
 * Few rows: b is streamed once; see `few` of cpu_kernels.h. */
#include <omp.h>

#include "backend/cpu/cpu_i.h"

enum {
    MOST_ROWS = 768, /* of a task: their sums take 1.2 MB */
    ROWS = 96,       /* that are expanded and multiplied at a time */
    LOW_ROWS = 64,   /* at most: packing is much of the work, so panels stay */
    LOW_N = 32,      /* in the first cache: a block's columns */
    LOW_K = 128      /* and length */
};

typedef struct scratch {
    float *sum, *panels, *x;
} scratch;

static size_t scratch_bytes(int64_t m)
{
    int64_t rows = m < ROWS ? m : ROWS;
    return (size_t)((m * CPU_GEMM_N + CPU_GEMM_N * CPU_GEMM_K +
                     rows * CPU_GEMM_LD)) *
           sizeof(float);
}

static scratch scratch_at(float *p, int64_t m)
{
    float *panels = p + m * CPU_GEMM_N;
    return (scratch){p, panels, panels + CPU_GEMM_N * CPU_GEMM_K};
}

/* ---- cutting ---------------------------------------------------------- */

typedef struct plan {
    cpu_cut m, n, k;
    int64_t block; /* columns packed at a time within a task */
} plan;

/* The time of a piece [m, n] in multiply-adds per step of k: packing a column
 * of op(b) takes as long as 10 of them, expanding a row of a as 5. */
static double piece_cost(cpu_cut m, cpu_cut n, int n_threads)
{
    int64_t rounds = (m.count * n.count + n_threads - 1) / n_threads;
    double rows = (double)m.size, cols = (double)n.size;
    return (double)rounds * (rows * cols + 10 * cols + 5 * rows);
}

/* The cheapest of the cuts whose pieces fit the blocks, for threads that each
 * take the next piece. */
static void cut_many(const cpu_call *p, plan *s, int step, int n_threads)
{
    const int64_t m = p->a.rows, n = p->c.cols;
    const int64_t m0 = (m + MOST_ROWS - 1) / MOST_ROWS;
    const int64_t n0 = (n + CPU_GEMM_N - 1) / CPU_GEMM_N;
    double best = 0;
    for (int64_t pm = m0; pm <= m0 + n_threads; ++pm)
        for (int64_t pn = n0; pn <= n0 + n_threads; ++pn) {
            cpu_cut cm = cpu_cut_even(m, pm, 12),
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

static plan cut(const cpu_backend *cpu, const cpu_call *p)
{
    plan s;
    const int step = cpu->k->panel, n_threads = cpu->be.n_threads;
    const bool low = p->a.rows <= LOW_ROWS;
    const int64_t k = low ? LOW_K : CPU_GEMM_K;
    s.k = cpu_cut_even(p->k, (p->k + k - 1) / k, CPU_PAD);
    if (!low) {
        cut_many(p, &s, step, n_threads);
        return s;
    }
    s.m = cpu_cut_even(p->a.rows, 1, 1);
    s.n = cpu_cut_even(p->c.cols, 4 * n_threads, LOW_N);
    s.block = LOW_N;
    return s;
}

/* ---- a task ----------------------------------------------------------- */

/* The block of op(b) at (row, col), to be fetched ahead. */
static cpu_ahead block_at(const cpu_backend *cpu, const cpu_call *p,
                          int64_t row, int64_t col, int64_t k)
{
    const int64_t size = (int64_t)base_dtype_bytes(p->a.dtype);
    const int64_t line = 64, panel = cpu->k->panel;
    cpu_ahead a = {.at = cpu_b_at(p, row, col), .row_bytes = p->ldb * size};
    a.rows = p->b_rows_n ? panel : k;
    a.panel_bytes = panel * size * (p->b_rows_n ? p->ldb : 1);
    a.lines = ((p->b_rows_n ? k : panel) * size + line - 1) / line;
    return a;
}

/* Columns [col, col + n) of the task's m rows from `row` on, for one block
 * along k. */
static void multiply_block(const cpu_backend *cpu, const cpu_call *p,
                           const plan *s, cpu_gemm_block *g, int64_t t,
                           int64_t row, int64_t m, int64_t col, scratch at)
{
    const bool bf = p->a.dtype == BASE_BF16;
    const int64_t k0 = t * s->k.size;
    g->k = cpu_cut_length(s->k, t);
    g->first = t == 0;
    g->last = t + 1 == s->k.count;
    cpu->k->pack(at.panels, cpu_b_at(p, k0, col), p->ldb, p->b_rows_n, g->n,
                 g->k, bf);
    for (int64_t i = 0; i < m; i += ROWS) {
        g->m = m - i < ROWS ? m - i : ROWS;
        cpu->k->load_rows(at.x, CPU_GEMM_LD, cpu_at(p->a, row + i, k0), p->a.ld,
                          g->m, g->k, bf);
        g->sum = at.sum + i * cpu->k->panel;
        g->c = cpu_at(p->c, row + i, col);
        cpu->k->gemm(g);
        g->next.at = NULL; /* has been fetched */
    }
}

static void task(const cpu_backend *cpu, const cpu_call *p, const plan *s,
                 int64_t i, int64_t j, float *memory)
{
    const int64_t m = cpu_cut_length(s->m, i), n = cpu_cut_length(s->n, j);
    const int64_t row = i * s->m.size, col = j * s->n.size;
    const scratch at = scratch_at(memory, s->m.size);
    cpu_gemm_block g = {.x = at.x,
                        .panels = at.panels,
                        .sum_rows = s->m.size,
                        .ldc = p->c.ld,
                        .c_bf = p->c.dtype == BASE_BF16,
                        .alpha = p->alpha,
                        .beta = p->beta};
    for (int64_t b = 0; b < n; b += s->block) {
        g.n = n - b < s->block ? n - b : s->block;
        for (int64_t t = 0; t < s->k.count; ++t) {
            if (t + 1 < s->k.count)
                g.next = block_at(cpu, p, (t + 1) * s->k.size, col + b,
                                  cpu_cut_length(s->k, t + 1));
            else if (b + s->block < n)
                g.next = block_at(cpu, p, 0, col + b + s->block,
                                  cpu_cut_length(s->k, 0));
            multiply_block(cpu, p, s, &g, t, row, m, col + b, at);
        }
    }
}

void cpu_gemm_packed(cpu_backend *cpu, const cpu_call *p)
{
    const plan s = cut(cpu, p);
    if (!cpu_scratch(cpu, scratch_bytes(s.m.size)))
        return;
#pragma omp parallel for schedule(dynamic, 1) collapse(2)                      \
    num_threads(cpu->be.n_threads)
    for (int64_t j = 0; j < s.n.count; ++j)
        for (int64_t i = 0; i < s.m.count; ++i)
            task(cpu, p, &s, i, j, cpu_scratch_of(cpu, omp_get_thread_num()));
}

/* ---- few rows --------------------------------------------------------- */

/* Rows of b that a thread takes at least: where a piece begins, nothing has
 * been fetched ahead. */
enum { FEW_PIECE = 32 };

/* oneDNN is asked above so many rows: its bf16 units beat float ones then. */
enum { FEW_BESIDE_DNNL = 8 };

bool cpu_gemm_few(cpu_backend *cpu, const cpu_call *p)
{
    const int64_t m = p->a.rows, n = p->c.cols;
    const bool bf = p->a.dtype == BASE_BF16;
    if (m > (cpu->dnnl ? FEW_BESIDE_DNNL : CPU_FEW_ROWS) || !p->b_rows_n)
        return false;
    if (!cpu_scratch(cpu, (size_t)(CPU_ROUND_UP(m) * CPU_ROUND_UP(p->k)) *
                              sizeof(float)))
        return true;
    const cpu_cut s = cpu_cut_even(n, cpu->be.n_threads, FEW_PIECE);
#pragma omp parallel num_threads(cpu->be.n_threads) if (n * p->k > 65536)
    {
        float *x = cpu_scratch_of(cpu, omp_get_thread_num());
        cpu->k->few_x(x, p->a.data, p->a.ld, m, p->k, bf);
#pragma omp for schedule(static) nowait
        for (int64_t j = 0; j < s.count; ++j) {
            cpu_few f = {.m = m,
                         .n = cpu_cut_length(s, j),
                         .k = p->k,
                         .x = x,
                         .w = cpu_b_at(p, 0, j * s.size),
                         .ldw = p->ldb,
                         .bf = bf,
                         .c = cpu_at(p->c, 0, j * s.size),
                         .ldc = p->c.ld,
                         .c_bf = p->c.dtype == BASE_BF16,
                         .alpha = p->alpha,
                         .beta = p->beta};
            cpu->k->few(&f);
        }
    }
    return true;
}
