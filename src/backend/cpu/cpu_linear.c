/* cpu_linear.c - products of matrices on the CPU, and the embedding. Cuts a
 * product into tasks by its shape alone and runs them on all threads:
 *   direct   oneDNN on the operands as they lie (bf16 or float)
 *   expand   bf16 without bf16 instructions: panels become float in scratch,
 *            oneDNN multiplies floats, the sum is rounded once
 *   dots     at most 8 rows (decoding): own dot products, W is streamed once
 *   tokens   c = x^T y: own kernel, sums in blocks of BACKEND_TOKEN_BLOCK */
#include <omp.h>

#include "backend/cpu/cpu_i.h"

/* c = alpha a op(b) + beta c. */
typedef struct product {
    backend_view c, a;
    const char *b;
    int64_t ldb, k;
    bool b_rows_n; /* b is [n, k] (used transposed), else [k, n] */
    float alpha, beta;
} product;

/* `total` cut into `count` pieces of `size`, the last one shorter. */
typedef struct cut {
    int64_t total, size, count;
} cut;

static cut cut_even(int64_t total, int64_t pieces, int64_t step)
{
    int64_t size = (total + pieces - 1) / pieces;
    size = (size + step - 1) / step * step;
    return (cut){total, size, (total + size - 1) / size};
}

static int64_t cut_length(cut c, int64_t i)
{
    return i + 1 < c.count ? c.size : c.total - (c.count - 1) * c.size;
}

static const char *element(const void *data, int64_t index, base_dtype dtype)
{
    return (const char *)data + (size_t)index * base_dtype_bytes(dtype);
}

/* Where piece (row, col) of op(b) begins: row along k, col along n. */
static const char *b_at(const product *p, int64_t row, int64_t col)
{
    return element(p->b, p->b_rows_n ? col * p->ldb + row : row * p->ldb + col,
                   p->a.dtype);
}

/* ---- direct ---------------------------------------------------------- */

/* oneDNN's fast product writes only a c without gaps between its rows. So
 * pieces are whole rows, or a block of columns goes to scratch as floats and
 * from there to c: where c has gaps, where there are too few rows to cut, and
 * where w is so large that it should be read once. */
typedef struct pieces {
    cut m, n;
    bool staged;
    const cpu_product *at[2][2]; /* [last row piece][last column piece] */
    size_t product_bytes;
} pieces;

/* Row pieces of at most 256: their x stays in cache while w is repacked once
 * for each. An even number of them feeds two or four threads evenly. */
static void cut_direct(const product *p, pieces *s)
{
    int64_t m = p->a.rows, n = p->c.cols;
    bool low = m <= 64;
    bool head = n > 8192 || p->k > 16384; /* w is far larger than a cache */
    int64_t wide = n;
    s->staged = (low && n > 128) || p->c.ld != n || head;
    if (low)
        s->m = cut_even(m, 1, 1);
    else if (head)
        s->m = cut_even(m, (m + 255) / 256, 32);
    else
        s->m = cut_even(m, 2 * ((m + 511) / 512), 32);
    if (s->staged)
        wide = low && n <= 2048 ? 128 : p->k > 16384 ? 288 : 256;
    s->n = cut_even(n, (n + wide - 1) / wide, s->staged ? 32 : 1);
}

static lori_status get_direct(cpu_backend *cpu, const product *p, pieces *s,
                              lori_error *err)
{
    s->product_bytes = 0;
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            cpu_product_key key;
            memset(&key, 0, sizeof key);
            key.m = cut_length(s->m, i ? s->m.count - 1 : 0);
            key.n = cut_length(s->n, j ? s->n.count - 1 : 0);
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

static int run_piece(cpu_backend *cpu, const product *p, const pieces *s,
                     int64_t i, int64_t j, int thread)
{
    const cpu_product *piece = s->at[i + 1 == s->m.count][j + 1 == s->n.count];
    int64_t row = i * s->m.size, col = j * s->n.size;
    const void *a = cpu_at(p->a, row, 0), *b = b_at(p, 0, col);
    char *scratch = cpu_scratch_of(cpu, thread);
    if (!s->staged)
        return cpu_product_run(piece, thread, a, b, cpu_at(p->c, row, col),
                               scratch);
    float *c = (float *)(void *)scratch;
    int bad =
        cpu_product_run(piece, thread, a, b, c, scratch + staged_bytes(s));
    int64_t m = cut_length(s->m, i), n = cut_length(s->n, j);
    for (int64_t r = 0; r < m; ++r)
        cpu->k->axpby(cpu_at(p->c, row + r, col), c + r * n, p->alpha, p->beta,
                      n, p->c.dtype == BASE_BF16);
    return bad;
}

/* False when oneDNN has no such product, and nothing was done. */
static bool direct(cpu_backend *cpu, const product *p)
{
    pieces s;
    cut_direct(p, &s);
    lori_error err;
    lori_status st = get_direct(cpu, p, &s, &err);
    if (st == LORI_UNSUPPORTED)
        return false;
    if (st)
        cpu_fail(cpu, st, "%s", err.message);
    if (st || !cpu_scratch(cpu, s.product_bytes + staged_bytes(&s)))
        return true;
    int bad = 0;
#pragma omp parallel num_threads(cpu->be.n_threads) reduction(| : bad)
    {
        int thread = omp_get_thread_num();
        omp_set_num_threads(1); /* what oneDNN sees; this region's own */
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (int64_t j = 0; j < s.n.count; ++j)
            for (int64_t i = 0; i < s.m.count; ++i)
                bad |= run_piece(cpu, p, &s, i, j, thread);
    }
    if (bad)
        cpu_fail(cpu, LORI_DEVICE, "oneDNN failed in a matrix product");
    return true;
}

/* ---- expand ---------------------------------------------------------- */

/* Float panels in scratch: x [m.size, k.size], w as b lies, c [m, n]. */
typedef struct expanded {
    cut m, n, k;
    /* [last m][last n][last k][after the first k] */
    const cpu_product *pieces[2][2][2][2];
    size_t product_bytes;
} expanded;

static size_t expanded_bytes(const expanded *e)
{
    int64_t floats = e->m.size * e->k.size + e->n.size * e->k.size +
                     e->m.size * e->n.size + 3 * CPU_PAD;
    return (size_t)floats * 4 + e->product_bytes;
}

static lori_status get_expanded(cpu_backend *cpu, const product *p, expanded *e,
                                lori_error *err)
{
    memset(e, 0, sizeof *e);
    e->m = cut_even(p->a.rows, (p->a.rows + 255) / 256, 32);
    e->n = cut_even(p->c.cols, (p->c.cols + 127) / 128, 32);
    e->k = cut_even(p->k, (p->k + 1023) / 1024, 32);
    for (int i = 0; i < 16; ++i) {
        int im = i & 1, in = i >> 1 & 1, ik = i >> 2 & 1, later = i >> 3;
        cpu_product_key key;
        memset(&key, 0, sizeof key);
        key.m = cut_length(e->m, im ? e->m.count - 1 : 0);
        key.n = cut_length(e->n, in ? e->n.count - 1 : 0);
        key.k = cut_length(e->k, ik ? e->k.count - 1 : 0);
        key.lda = e->k.size;
        key.ldb = p->b_rows_n ? e->k.size : e->n.size;
        key.ldc = e->n.size;
        key.ab = BASE_F32;
        key.c = BASE_F32;
        key.b_rows_n = p->b_rows_n;
        key.alpha = 1;
        key.beta = later ? 1 : 0;
        const cpu_product **out = &e->pieces[im][in][ik][later];
        BASE_TRY(cpu_dnnl_get(cpu->dnnl, &key, out, err));
        size_t bytes = cpu_product_scratch_bytes(*out);
        if (bytes > e->product_bytes)
            e->product_bytes = bytes;
    }
    return LORI_OK;
}

static float *aligned_after(float *p, int64_t n)
{
    return p + CPU_ROUND_UP(n);
}

static int expanded_piece(cpu_backend *cpu, const product *p, const expanded *e,
                          int64_t i, int64_t j, int thread)
{
    float *x = cpu_scratch_of(cpu, thread);
    float *w = aligned_after(x, e->m.size * e->k.size);
    float *c = aligned_after(w, e->n.size * e->k.size);
    float *rest = aligned_after(c, e->m.size * e->n.size);
    int64_t m = cut_length(e->m, i), n = cut_length(e->n, j);
    int bad = 0;
    for (int64_t t = 0; t < e->k.count; ++t) {
        int64_t k = cut_length(e->k, t), at = t * e->k.size;
        const char *b = b_at(p, at, j * e->n.size);
        cpu->k->load_rows(x, e->k.size, cpu_at(p->a, i * e->m.size, at),
                          p->a.ld, m, k, true);
        if (p->b_rows_n)
            cpu->k->load_rows(w, e->k.size, b, p->ldb, n, k, true);
        else
            cpu->k->load_rows(w, e->n.size, b, p->ldb, k, n, true);
        bad |=
            cpu_product_run(e->pieces[i + 1 == e->m.count][j + 1 == e->n.count]
                                     [t + 1 == e->k.count][t > 0],
                            thread, x, w, c, rest);
    }
    for (int64_t r = 0; r < m; ++r)
        cpu->k->axpby(cpu_at(p->c, i * e->m.size + r, j * e->n.size),
                      c + r * e->n.size, p->alpha, p->beta, n,
                      p->c.dtype == BASE_BF16);
    return bad;
}

static void expand(cpu_backend *cpu, const product *p)
{
    expanded e;
    lori_error err;
    lori_status st = get_expanded(cpu, p, &e, &err);
    if (st) {
        cpu_fail(cpu, st, "%s", err.message);
        return;
    }
    if (!cpu_scratch(cpu, expanded_bytes(&e)))
        return;
    int bad = 0;
#pragma omp parallel num_threads(cpu->be.n_threads) reduction(| : bad)
    {
        int thread = omp_get_thread_num();
        omp_set_num_threads(1);
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (int64_t j = 0; j < e.n.count; ++j)
            for (int64_t i = 0; i < e.m.count; ++i)
                bad |= expanded_piece(cpu, p, &e, i, j, thread);
    }
    if (bad)
        cpu_fail(cpu, LORI_DEVICE, "oneDNN failed in a matrix product");
}

/* ---- dots ------------------------------------------------------------ */

#define DOT_ROWS 8  /* most rows of x */
#define DOT_TASK 64 /* rows of W in a task */

static void dots_task(cpu_backend *cpu, const product *p, const float *x,
                      int64_t first)
{
    float out[DOT_ROWS * DOT_TASK];
    bool bf = p->a.dtype == BASE_BF16;
    int64_t n = p->c.cols - first < DOT_TASK ? p->c.cols - first : DOT_TASK;
    cpu->k->dots(out, DOT_TASK, x, p->a.rows, b_at(p, 0, first), n, p->k, bf);
    for (int64_t i = 0; i < p->a.rows; ++i)
        cpu->k->axpby(cpu_at(p->c, i, first), out + i * DOT_TASK, p->alpha,
                      p->beta, n, p->c.dtype == BASE_BF16);
}

static void dots(cpu_backend *cpu, const product *p)
{
    const int64_t rows = p->a.rows, ld = CPU_ROUND_UP(p->k);
    if (!cpu_scratch(cpu, (size_t)(rows * ld) * 4))
        return;
#pragma omp parallel num_threads(cpu->be.n_threads) if (p->c.cols * p->k >     \
                                                        65536)
    {
        float *x = cpu_scratch_of(cpu, omp_get_thread_num());
        cpu->k->load_rows(x, ld, p->a.data, p->a.ld, rows, p->k,
                          p->a.dtype == BASE_BF16);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < p->c.cols; j += DOT_TASK)
            dots_task(cpu, p, x, j);
    }
}

/* ---- the operations -------------------------------------------------- */

static void multiply(cpu_backend *cpu, const product *p)
{
    base_dtype act = cpu->be.act, acc = cpu->be.acc;
    CPU_REQUIRE(p->a.dtype == act && p->a.cols == p->k);
    CPU_REQUIRE(p->c.dtype == act || p->c.dtype == acc);
    CPU_REQUIRE(p->c.rows == p->a.rows && p->k > 0);
    if (cpu->failed || p->c.rows == 0 || p->c.cols == 0)
        return;
    cpu_dnnl_trim(cpu->dnnl);
    if (p->a.rows <= DOT_ROWS && p->b_rows_n && p->ldb == p->k)
        dots(cpu, p);
    else if (act == BASE_F32 || cpu->native_bf16) {
        if (direct(cpu, p))
            return;
        if (act == BASE_BF16)
            expand(cpu, p);
        else
            cpu_fail(cpu, LORI_UNSUPPORTED,
                     "oneDNN %s offers no float matrix product here",
                     cpu_dnnl_version(cpu->dnnl));
    } else
        expand(cpu, p);
}

static void cpu_gemm_w(backend *be, backend_view y, backend_view x,
                       const backend_weight *w, double beta)
{
    CPU_REQUIRE(x.cols == w->cols && y.cols == w->rows);
    product p = {y, x, w->data, w->cols, w->cols, true, 1, (float)beta};
    multiply(cpu_of(be), &p);
}

static void cpu_gemm_wt(backend *be, backend_view dx, backend_view dy,
                        const backend_weight *w, double beta)
{
    CPU_REQUIRE(dy.cols == w->rows && dx.cols == w->cols);
    product p = {dx, dy, w->data, w->cols, w->rows, false, 1, (float)beta};
    multiply(cpu_of(be), &p);
}

static void cpu_gemm_nt(backend *be, backend_view c, backend_view a,
                        backend_view b, double alpha, double beta)
{
    CPU_REQUIRE(b.rows == c.cols && b.cols == a.cols && b.dtype == a.dtype);
    product p = {c, a, b.data, b.ld, a.cols, true, (float)alpha, (float)beta};
    multiply(cpu_of(be), &p);
}

static void cpu_gemm_nn(backend *be, backend_view c, backend_view a,
                        backend_view b, double alpha, double beta)
{
    CPU_REQUIRE(b.rows == a.cols && b.cols == c.cols && b.dtype == a.dtype);
    product p = {c, a, b.data, b.ld, a.cols, false, (float)alpha, (float)beta};
    multiply(cpu_of(be), &p);
}

static void cpu_embed(backend *be, backend_view y, const backend_weight *w,
                      const int32_t *ids)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(y.cols == w->cols && y.dtype == be->act);
    if (cpu->failed)
        return;
    size_t row = (size_t)w->cols * base_dtype_bytes(be->act);
    for (int64_t i = 0; i < y.rows; ++i) {
        CPU_REQUIRE(ids[i] >= 0 && ids[i] < w->rows);
        memcpy(cpu_at(y, i, 0), (const char *)w->data + (size_t)ids[i] * row,
               row);
    }
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
static cut cut_tokens(int64_t total, int64_t most, int64_t step)
{
    return cut_even(
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

static void cpu_gemm_tn(backend *be, backend_view c, backend_view x,
                        backend_view y, double alpha, double beta)
{
    cpu_backend *cpu = cpu_of(be);
    CPU_REQUIRE(x.rows == y.rows && c.rows == x.cols && c.cols == y.cols);
    CPU_REQUIRE(c.dtype == be->acc && x.dtype == be->act && y.dtype == be->act);
    if (cpu->failed || c.rows == 0 || c.cols == 0)
        return;
    size_t floats = (TOKEN_STEP + TOKEN_P) * (TOKEN_Q + CPU_PAD) +
                    TOKEN_STEP * (TOKEN_P + CPU_PAD);
    if (!cpu_scratch(cpu, floats * 4))
        return;
    const cut p = cut_tokens(c.rows, TOKEN_P, 12);
    const cut q = cut_tokens(c.cols, TOKEN_Q, 32);
#pragma omp parallel for schedule(dynamic, 1) collapse(2)                      \
    num_threads(be->n_threads)
    for (int64_t i = 0; i < p.count; ++i)
        for (int64_t j = 0; j < q.count; ++j)
            token_tile(cpu, c, x, y, (float)alpha, (float)beta, i * p.size,
                       cut_length(p, i), j * q.size, cut_length(q, j),
                       cpu_scratch_of(cpu, omp_get_thread_num()));
}

void cpu_linear_fill(backend *be)
{
    be->gemm_w = cpu_gemm_w;
    be->gemm_wt = cpu_gemm_wt;
    be->embed = cpu_embed;
    be->gemm_nt = cpu_gemm_nt;
    be->gemm_nn = cpu_gemm_nn;
    be->gemm_tn = cpu_gemm_tn;
}
