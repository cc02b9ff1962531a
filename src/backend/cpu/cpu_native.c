/* cpu_native.c - products of bf16 operands as they lie, by oneDNN: for
 * processors whose own bf16 instructions are faster than float ones. Cut into
 * tasks by shape alone; each runs on one thread. */
#include <omp.h>

#include "backend/cpu/cpu_i.h"

/* oneDNN's fast product writes only a c without gaps between its rows. So
 * pieces are whole rows, or a block of columns goes to scratch as floats and
 * from there to c: where c has gaps, where there are too few rows to cut, and
 * where w is so large that it should be read once. */
typedef struct pieces {
    cpu_cut m, n;
    bool staged;
    const cpu_product *at[2][2]; /* [last row piece][last column piece] */
    size_t product_bytes;
} pieces;

/* Row pieces of at most 256: their x stays in cache while w is repacked once
 * for each. An even number of them feeds two or four threads evenly. */
static void cut_pieces(const cpu_call *p, pieces *s)
{
    int64_t m = p->a.rows, n = p->c.cols;
    bool low = m <= 64;
    bool head = n > 8192 || p->k > 16384; /* w is far larger than a cache */
    int64_t wide = n;
    s->staged = (low && n > 128) || p->c.ld != n || head;
    if (low)
        s->m = cpu_cut_even(m, 1, 1);
    else if (head)
        s->m = cpu_cut_even(m, (m + 255) / 256, 32);
    else
        s->m = cpu_cut_even(m, 2 * ((m + 511) / 512), 32);
    if (s->staged)
        wide = low && n <= 2048 ? 128 : p->k > 16384 ? 288 : 256;
    s->n = cpu_cut_even(n, (n + wide - 1) / wide, s->staged ? 32 : 1);
}

static lori_status get_pieces(cpu_backend *cpu, const cpu_call *p, pieces *s,
                              lori_error *err)
{
    s->product_bytes = 0;
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            cpu_product_key key;
            memset(&key, 0, sizeof key);
            key.m = cpu_cut_length(s->m, i ? s->m.count - 1 : 0);
            key.n = cpu_cut_length(s->n, j ? s->n.count - 1 : 0);
            key.k = p->k;
            key.lda = p->a.ld;
            key.ldb = p->ldb;
            key.ldc = s->staged ? key.n : p->c.ld;
            key.ab = (int32_t)p->a.dtype;
            key.c = s->staged ? BASE_F32 : (int32_t)p->c.dtype;
            key.b_rows_n = p->b_rows_n;
            key.alpha = s->staged ? 1 : p->alpha;
            key.beta = s->staged ? 0 : p->beta;
            BASE_TRY(cpu_dnnl_get(cpu->dnnl, &key, &s->at[i][j], err));
            size_t bytes = cpu_product_scratch_bytes(s->at[i][j]);
            s->product_bytes =
                bytes > s->product_bytes ? bytes : s->product_bytes;
        }
    return LORI_OK;
}

static size_t staged_bytes(const pieces *s)
{
    return s->staged ? (size_t)CPU_ROUND_UP(s->m.size * s->n.size) * 4 : 0;
}

static int run_piece(cpu_backend *cpu, const cpu_call *p, const pieces *s,
                     int64_t i, int64_t j, int thread)
{
    const cpu_product *piece = s->at[i + 1 == s->m.count][j + 1 == s->n.count];
    int64_t row = i * s->m.size, col = j * s->n.size;
    const void *a = cpu_at(p->a, row, 0), *b = cpu_b_at(p, 0, col);
    char *scratch = cpu_scratch_of(cpu, thread);
    if (!s->staged)
        return cpu_product_run(piece, thread, a, b, cpu_at(p->c, row, col),
                               scratch);
    float *c = (float *)(void *)scratch;
    int bad =
        cpu_product_run(piece, thread, a, b, c, scratch + staged_bytes(s));
    int64_t m = cpu_cut_length(s->m, i), n = cpu_cut_length(s->n, j);
    for (int64_t r = 0; r < m; ++r)
        cpu->k->axpby(cpu_at(p->c, row + r, col), c + r * n, p->alpha, p->beta,
                      n, p->c.dtype == BASE_BF16);
    return bad;
}

/* What cpu_gemm_dnnl() gives its threads. */
typedef struct piece_call {
    cpu_backend *cpu;
    const cpu_call *p;
    const pieces *s;
    backend_tasks tasks;
    _Atomic int bad;
} piece_call;

static void piece_part(void *context, int thread, int n)
{
    (void)n;
    piece_call *c = context;
    const int before = omp_get_max_threads();
    omp_set_num_threads(1); /* what oneDNN sees; this thread's own */
    int64_t at;
    while (backend_take(&c->tasks, &at))
        c->bad |= run_piece(c->cpu, c->p, c->s, at % c->s->m.count,
                            at / c->s->m.count, thread);
    omp_set_num_threads(before);
}

bool cpu_gemm_dnnl(cpu_backend *cpu, const cpu_call *p)
{
    pieces s;
    cpu_dnnl_trim(cpu->dnnl);
    cut_pieces(p, &s);
    lori_error err;
    lori_status st = get_pieces(cpu, p, &s, &err);
    if (st == LORI_UNSUPPORTED)
        return false;
    if (st)
        cpu_fail(cpu, st, "%s", err.message);
    if (st || !cpu_scratch(cpu, s.product_bytes + staged_bytes(&s)))
        return true;
    piece_call c = {.cpu = cpu, .p = p, .s = &s};
    c.tasks.count = s.m.count * s.n.count;
    backend_team_run(cpu->be.team, cpu->be.n_threads, piece_part, &c);
    if (c.bad)
        cpu_fail(cpu, LORI_DEVICE, "oneDNN failed in a matrix product");
    return true;
}
