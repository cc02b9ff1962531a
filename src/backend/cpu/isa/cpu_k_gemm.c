/* cpu_k_gemm.c - products with large matrices. c = alpha x op(b) + beta plus,
 * where every element of x op(b) is one chain of multiply-adds over k, in
 * order, from zero. The chain may pause (its sum is a float in memory) and go
 * on, so bits depend neither on how a product is cut into blocks nor on which
 * of the two ways below computes it: many rows or few, a row's bits are equal.
 *
 * Many rows: a block of b is packed as floats into panels of PANEL columns,
 * [k][PANEL] each, and multiplied by register tiles of MM_ROWS rows of x.
 * Few rows (decoding): w is streamed once. For one or two rows of x, rows of w
 * are transposed in registers; more rows are themselves transposed. */
#include "backend/cpu/isa/cpu_k_tile.h"

/* ---- packing ---------------------------------------------------------- */

/* Element t of every row, as floats. */
INLINE vf turned(const vf *part, int64_t t, bool bf)
{
    if (!bf)
        return part[t];
    return expand_pairs((vu)part[t / 2], t);
}

/* VL columns of a panel from rows of b [n, k]; those past the last row repeat
 * it, and nobody stores what comes of them. */
INLINE void pack_rows(float *panel, int64_t width, const char *b, int64_t step,
                      int64_t n, int64_t k, bool bf)
{
    const char *row[VL];
    for (int i = 0; i < VL; ++i)
        row[i] = b + (i < n ? i : n - 1) * step;
    for (int64_t t = 0; t < k; t += K_STEP(bf)) {
        vf part[VL];
        int64_t count = k - t < K_STEP(bf) ? k - t : K_STEP(bf);
        turn_rows(part, row, t, count, bf);
        if (count == K_STEP(bf))
            for (int i = 0; i < K_STEP(bf); ++i)
                store(panel + (t + i) * width, turned(part, i, bf));
        else
            for (int i = 0; i < count; ++i)
                store(panel + (t + i) * width, turned(part, i, bf));
    }
}

/* A panel is one vector wide where no more columns are left. */
INLINE int64_t panel_width(int64_t left)
{
    return left > VL ? PANEL : VL;
}

INLINE void pack_turned(float *panels, const char *b, int64_t ldb, int64_t n,
                        int64_t k, bool bf)
{
    const int64_t step = ldb * (bf ? 2 : 4);
    for (int64_t j = 0; j < n; j += PANEL) {
        const int64_t width = panel_width(n - j);
        for (int64_t v = 0; v < width; v += VL)
            pack_rows(panels + v, width, b + (j + v) * step, step, n - j - v, k,
                      bf);
        panels += k * width;
    }
}

/* Row by row of b, as it lies in memory, into all panels. */
INLINE void pack_plain(float *panels, const char *b, int64_t ldb, int64_t n,
                       int64_t k, bool bf)
{
    for (int64_t t = 0; t < k; ++t) {
        const char *row = b + t * ldb * (bf ? 2 : 4);
        int64_t j = 0;
        float *p = panels + t * PANEL;
        for (; j + PANEL <= n; j += PANEL) {
            store(p, load_any(row, j, bf));
            store(p + VL, load_any(row, j + VL, bf));
            p += k * PANEL;
        }
        p -= t * PANEL; /* the last panel */
        for (const int64_t width = panel_width(n - j); j < n; j += VL) {
            store(p + t * width, get(row, j, n - j < VL ? n - j : VL, bf));
            p += VL;
        }
    }
}

void CPU_NAME(cpu_pack)(float *panels, const void *b, int64_t ldb,
                        bool b_rows_n, int64_t n, int64_t k, bool bf)
{
    if (b_rows_n && bf)
        pack_turned(panels, b, ldb, n, k, true);
    else if (b_rows_n)
        pack_turned(panels, b, ldb, n, k, false);
    else if (bf)
        pack_plain(panels, b, ldb, n, k, true);
    else
        pack_plain(panels, b, ldb, n, k, false);
}

/* ---- many rows -------------------------------------------------------- */

/* A whole panel's row; c and plus (NULL: beta is 0) are fetched two panels
 * ahead of their use. */
INLINE void finish_row(char *c, const char *plus, const float *sum, vf alpha,
                       vf beta, bool bf, bool more)
{
    if (more && plus && plus != c)
        __builtin_prefetch(plus + 2 * PANEL * (bf ? 2 : 4), 0, 3);
    if (more)
        __builtin_prefetch(c + 2 * PANEL * (bf ? 2 : 4), 1, 3);
    for (int64_t j = 0; j < PANEL; j += VL) {
        vf v = load(sum + j) * alpha;
        if (plus)
            v = madd(beta, load_any(plus, j, bf), v);
        store_any(c, j, v, bf);
    }
}

/* Rows of c that begin `at` bytes behind its first. */
INLINE void finish_rows(const cpu_gemm_block *g, const float *sum, int64_t at,
                        int64_t rows, bool bf, bool more)
{
    const int64_t step = g->ldc * (bf ? 2 : 4);
    const vf alpha = splat(g->alpha), beta = splat(g->beta);
    char *c = (char *)g->c + at;
    const char *plus = (const char *)g->plus + at;
    if (g->beta != 0)
        for (int64_t i = 0; i < rows; ++i)
            finish_row(c + i * step, plus + i * step, sum + i * PANEL, alpha,
                       beta, bf, more);
    else
        for (int64_t i = 0; i < rows; ++i)
            finish_row(c + i * step, NULL, sum + i * PANEL, alpha, beta, bf,
                       more);
}

INLINE void finish_tile(const cpu_gemm_block *g, const float *sum, int64_t row,
                        int64_t rows, int64_t col, int64_t cols)
{
    const int64_t size = g->c_bf ? 2 : 4;
    int64_t at = (row * g->ldc + col) * size;
    const bool more = col + 3 * PANEL <= g->n;
    if (cols == PANEL && g->c_bf)
        finish_rows(g, sum, at, rows, true, more);
    else if (cols == PANEL)
        finish_rows(g, sum, at, rows, false, more);
    else
        for (int64_t i = 0; i < rows; ++i, at += g->ldc * size)
            put_scaled((char *)g->c + at, (const char *)g->plus + at,
                       sum + i * PANEL, cols, g->alpha, g->beta, g->c_bf);
}

/* Spread evenly over `tiles` tiles. */
static ahead ahead_of(const cpu_gemm_block *g, int64_t tiles)
{
    const cpu_ahead *p = g->ahead;
    const int64_t steps = tiles * ((g->k + AHEAD_STEP - 1) / AHEAD_STEP);
    const int64_t lines = p[0].rows * p[0].lines + p[1].rows * p[1].lines;
    ahead a = {.each = (lines + steps - 1) / steps, .more = p[0].rows > 0};
    a.part = a.more ? p : p + 1;
    a.row = a.part->at;
    a.rows = a.part->rows;
    return a;
}

/* Tiles of about equal height: the last is never a single slow row. */
void CPU_NAME(cpu_gemm)(const cpu_gemm_block *g)
{
    const float *panel = g->panels;
    const int64_t tiles = (g->m + MM_ROWS - 1) / MM_ROWS;
    ahead a = ahead_of(g, tiles * ((g->n + PANEL - 1) / PANEL));
    for (int64_t j = 0; j < g->n; j += PANEL) {
        const int64_t width = panel_width(g->n - j);
        const int64_t cols = g->n - j < PANEL ? g->n - j : PANEL;
        float done[MM_ROWS * PANEL];
        for (int64_t i = 0; i < tiles; ++i) {
            int64_t row = g->m * i / tiles;
            int64_t rows = g->m * (i + 1) / tiles - row;
            const float *x = g->x + row * CPU_GEMM_LD;
            float *sum = g->sum + j * g->sum_rows + row * PANEL;
            const float *from = g->first ? NULL : sum;
            float *to = g->last ? done : sum;
            if (width > VL)
                tile_of(rows, 2, g->k, x, panel, from, to, &a);
            else
                tile_of(rows, 1, g->k, x, panel, from, to, &a);
            if (g->last)
                finish_tile(g, done, row, rows, j, cols);
        }
        panel += g->k * width;
    }
}

/* ---- few rows --------------------------------------------------------- */

/* What is read after the rows of w before j. */
INLINE stream stream_from(const cpu_few *f, int64_t j, int64_t ld)
{
    if (j < f->n)
        return (stream){(uintptr_t)f->w + (uintptr_t)(j * ld), (f->n - j) * ld};
    return (stream){(uintptr_t)f->after, f->after_bytes};
}

/* Rows of w from j on; those past the last one repeat it. */
INLINE void few_rows(const char **row, int rows, const cpu_few *f, int64_t j,
                     int64_t ld)
{
    for (int i = 0; i < rows; ++i)
        row[i] = (const char *)f->w + (j + i < f->n ? j + i : f->n - 1) * ld;
}

/* One or two rows: rows of w are turned in groups of VL. A step along k is what
 * one transposition gives of every group. While the groups of a step are turned
 * one after the other, the products of the step before fill the gaps. */
enum { TURN_ROWS = 2, TURN_GROUPS = 4, TURN_W = TURN_GROUPS * VL };
_Static_assert(VL % TURN_GROUPS == 0,
               "a step's products fall into equal parts");

typedef struct turn_step {
    vf w[TURN_GROUPS][VL]; /* as turn_rows gives them */
    const float *x;        /* where its elements begin */
} turn_step;

/* sum [TURN_GROUPS] of every row += x w for one element along k. */
INLINE void turned_madd(int m, vf (*sum)[TURN_GROUPS], const float *x,
                        int64_t ldx, const vf *w)
{
    for (int i = 0; i < m; ++i) {
        const vf v = splat(x[i * ldx]);
        for (int g = 0; g < TURN_GROUPS; ++g)
            sum[i][g] = madd(v, w[g], sum[i][g]);
    }
}

/* The same for elements [from, to) of a step; `from` is even. */
INLINE void turned_add(int m, vf (*sum)[TURN_GROUPS], const turn_step *s,
                       int64_t ldx, int64_t from, int64_t to, bool bf)
{
    vf w[TURN_GROUPS];
    for (int64_t t = from; t < to; t += bf ? 2 : 1) {
        for (int g = 0; g < TURN_GROUPS; ++g)
            w[g] = turned(s->w[g], t, bf);
        turned_madd(m, sum, s->x + t, ldx, w);
        if (!bf || t + 1 == to)
            continue;
        for (int g = 0; g < TURN_GROUPS; ++g)
            w[g] = turned(s->w[g], t + 1, bf);
        turned_madd(m, sum, s->x + t + 1, ldx, w);
    }
}

/* All of k for TURN_W rows of w (m is a constant). */
INLINE void turned_block(int m, const cpu_few *f, const char *const *row,
                         stream *next, bool bf, vf (*sum)[TURN_GROUPS])
{
    const int64_t step = K_STEP(bf), ldx = CPU_ROUND_UP(f->k);
    const int64_t part = step / TURN_GROUPS, size = bf ? 2 : 4;
    const int64_t whole = f->k / step * step;
    turn_step s[2];
    for (int64_t t = 0; t < whole; t += step) {
        turn_step *now = &s[t / step % 2];
        const turn_step *before = &s[(t / step + 1) % 2];
        now->x = f->x + t;
        for (int g = 0; g < TURN_GROUPS; ++g) {
            turn_rows(now->w[g], row + g * VL, t, step, bf);
            stream_bytes(next, VL * step * size);
            if (t > 0)
                turned_add(m, sum, before, ldx, g * part, (g + 1) * part, bf);
        }
    }
    if (whole > 0)
        turned_add(m, sum, &s[(whole / step + 1) % 2], ldx, 0, step, bf);
    if (whole < f->k) {
        s[0].x = f->x + whole;
        for (int g = 0; g < TURN_GROUPS; ++g)
            turn_rows(s[0].w[g], row + g * VL, whole, f->k - whole, bf);
        turned_add(m, sum, &s[0], ldx, 0, f->k - whole, bf);
    }
}

INLINE void few_turned(int m, const cpu_few *f, bool bf)
{
    const int64_t ld = f->ldw * (bf ? 2 : 4);
    for (int64_t j = 0; j < f->n; j += TURN_W) {
        const char *row[TURN_W];
        vf sum[TURN_ROWS][TURN_GROUPS] = {{{0}}};
        few_rows(row, TURN_W, f, j, ld);
        stream next = stream_from(f, j + TURN_W, ld);
        turned_block(m, f, row, &next, bf, sum);
        for (int i = 0; i < m; ++i)
            few_put(f, i, j, (const float *)sum[i],
                    f->n - j < TURN_W ? f->n - j : TURN_W);
    }
}

/* More: rows of x fill the lanes of a vector, [k][VL], and w is not turned.
 * Where a half or a quarter of the lanes would do, `dup` lanes follow each
 * other for every row of x and belong to a group of as many rows of w: lane l
 * is row l / dup of x and row l % dup of the group. */
INLINE int lanes_dup(int64_t m)
{
#if VL == 16
    return m <= 4 ? 4 : m <= 8 ? 2 : 1;
#elif VL == 8
    return m <= 4 ? 2 : 1;
#else
    return m > 0;
#endif
}

#if VL == 16
#define ZIP(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define ZIP_LOW  ZIP(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH                                                               \
    ZIP(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define ZIP_PAIRS_LOW                                                          \
    ZIP(0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23)
#define ZIP_PAIRS_HIGH                                                         \
    ZIP(8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31)
#elif VL == 8
#define ZIP(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define ZIP_LOW  ZIP(0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH ZIP(4, 12, 5, 13, 6, 14, 7, 15)
#endif

/* Rows of one vector each become dup vectors: element 0 of every row, element
 * 1 of every row and so on. */
INLINE void zip_rows(vu *row, int dup)
{
#if VL > 4
    for (int i = 0; i + 1 < dup; i += 2) {
        const vu a = row[i], b = row[i + 1];
        row[i] = ZIP_LOW;
        row[i + 1] = ZIP_HIGH;
    }
#endif
#if VL == 16
    if (dup == 4) {
        const vu high = row[1];
        vu a = row[0], b = row[2];
        row[0] = ZIP_PAIRS_LOW;
        row[1] = ZIP_PAIRS_HIGH;
        a = high;
        b = row[3];
        row[2] = ZIP_PAIRS_LOW;
        row[3] = ZIP_PAIRS_HIGH;
    }
#endif
    (void)row;
    (void)dup;
}

/* `dup` floats again and again. */
INLINE vf splat_group(const float *p, int dup)
{
#if VL > 4
    double two;
    memcpy(&two, p, sizeof(float) * (dup > 1 ? 2 : 1));
#endif
#if VL == 16
    if (dup == 4)
        return (vf)_mm512_broadcast_f32x4(_mm_loadu_ps(p));
    if (dup == 2)
        return (vf)_mm512_set1_pd(two);
#elif VL == 8
    if (dup == 2)
        return (vf)_mm256_set1_pd(two);
#endif
    (void)dup;
    return splat(*p);
}

/* A block is LANE_GROUPS groups of rows of w, LANE_K / dup of them along k. As
 * floats: [group][k / 2][dup], the even and the odd elements apart, which is
 * how bf16 comes out of a vector. */
enum { LANE_GROUPS = VL > 8 ? VL : 8, LANE_K = 256, LANE_LD = LANE_K / 2 };

typedef struct lane_block {
    float even[LANE_GROUPS * LANE_LD], odd[LANE_GROUPS * LANE_LD];
} lane_block;

/* Elements [from, from + k) of a group. */
INLINE void lane_load(float *even, float *odd, const char *const *row,
                      int64_t from, int64_t k, int dup, bool bf)
{
    int64_t t = 0;
    for (; bf && t + 2 * VL <= k; t += 2 * VL) {
        vu pair[4];
        for (int r = 0; r < dup; ++r)
            memcpy(&pair[r], row[r] + (from + t) * 2, sizeof pair[r]);
        zip_rows(pair, dup);
        for (int r = 0; r < dup; ++r) {
            store(even + t / 2 * dup + r * VL, expand_pairs(pair[r], 0));
            store(odd + t / 2 * dup + r * VL, expand_pairs(pair[r], 1));
        }
    }
    for (; t < k; ++t)
        for (int r = 0; r < dup; ++r)
            (t % 2 ? odd : even)[t / 2 * dup + r] =
                load_some(row[r], from + t, 1, bf)[0];
}

/* sum [LANE_GROUPS] += w x, x [k, VL]; of what follows in memory, `bytes` are
 * asked for with every two elements along k. */
INLINE void lane_sums(vf *sum, const lane_block *w, const float *x, int64_t k,
                      int dup, stream *next, int64_t bytes)
{
    vf acc[LANE_GROUPS];
    for (int g = 0; g < LANE_GROUPS; ++g)
        acc[g] = sum[g];
    const float *even = w->even, *odd = w->odd;
    for (int64_t t = 0; t < k / 2; ++t) {
        const vf x0 = load(x), x1 = load(x + VL);
        stream_bytes(next, bytes);
        for (int g = 0; g < LANE_GROUPS; ++g)
            acc[g] = madd(splat_group(even + g * LANE_LD, dup), x0, acc[g]);
        for (int g = 0; g < LANE_GROUPS; ++g)
            acc[g] = madd(splat_group(odd + g * LANE_LD, dup), x1, acc[g]);
        x += 2 * VL;
        even += dup;
        odd += dup;
    }
    for (int g = 0; g < LANE_GROUPS && k % 2; ++g)
        acc[g] = madd(splat_group(even + g * LANE_LD, dup), load(x), acc[g]);
    for (int g = 0; g < LANE_GROUPS; ++g)
        sum[g] = acc[g];
}

/* c[i .., j .. j + count) from the sums of a vector of rows of x. */
INLINE void lane_finish(const cpu_few *f, const vf *sum, int64_t i, int64_t j,
                        int64_t count, int dup)
{
    float part[LANE_GROUPS * VL], row[LANE_GROUPS * 4];
    memcpy(part, sum, sizeof part);
    for (int64_t l = 0; l < VL / dup && i + l < f->m; ++l) {
        for (int g = 0; g < LANE_GROUPS; ++g)
            for (int r = 0; r < dup; ++r)
                row[g * dup + r] = part[g * VL + l * dup + r];
        few_put(f, i + l, j, row, count);
    }
}

INLINE void few_lanes(int dup, const cpu_few *f, bool bf)
{
    const int rows = LANE_GROUPS * dup;
    const int64_t size = bf ? 2 : 4, ld = f->ldw * size;
    const int64_t vectors = (f->m * dup + VL - 1) / VL;
    for (int64_t j = 0; j < f->n; j += rows) {
        const char *row[LANE_GROUPS * 4];
        lane_block w;
        vf sum[CPU_FEW_ROWS / VL][LANE_GROUPS] = {{{0}}};
        few_rows(row, rows, f, j, ld);
        cpu_few_fetch_c(f, j, rows);
        stream next = stream_from(f, j + rows, ld);
        for (int64_t from = 0; from < f->k; from += LANE_K / dup) {
            const int64_t left = f->k - from;
            const int64_t k = left < LANE_K / dup ? left : LANE_K / dup;
            for (int g = 0; g < LANE_GROUPS; ++g)
                lane_load(w.even + g * LANE_LD, w.odd + g * LANE_LD,
                          row + g * dup, from, k, dup, bf);
            for (int64_t v = 0; v < vectors; ++v)
                lane_sums(sum[v], &w, f->x + (v * f->k + from) * VL, k, dup,
                          &next, v == 0 ? rows * 2 * size : 0);
        }
        for (int64_t v = 0; v < vectors; ++v)
            lane_finish(f, sum[v], v * VL, j, f->n - j < rows ? f->n - j : rows,
                        dup);
    }
}

/* x [k][VL] for few_lanes; lanes without a row repeat the last one. */
INLINE void lanes_x(float *dst, const char *x, int64_t ld, int64_t m, int64_t k,
                    int dup, bool bf)
{
    pack_rows(dst, VL, x, ld, m, k, bf);
#if VL > 4
    for (int64_t t = 0; t < k && dup > 1; ++t) {
        const vf a = load(dst + t * VL), b = a;
#if VL == 16
        const vf four = ZIP(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        const vf two = ZIP(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        store(dst + t * VL, dup == 4 ? four : two);
#else
        store(dst + t * VL, ZIP(0, 0, 1, 1, 2, 2, 3, 3));
#endif
    }
#endif
    (void)dup;
}

INLINE void few_as(const cpu_few *f, bool bf)
{
    if (f->m == 1)
        few_turned(1, f, bf);
    else if (f->m == TURN_ROWS)
        few_turned(TURN_ROWS, f, bf);
    else if (lanes_dup(f->m) == 1)
        few_lanes(1, f, bf);
#if VL > 4
    else if (lanes_dup(f->m) == 2)
        few_lanes(2, f, bf);
#endif
#if VL == 16
    else
        few_lanes(4, f, bf);
#endif
}

void CPU_NAME(cpu_few)(const cpu_few *f)
{
    if (f->bf)
        few_as(f, true);
    else
        few_as(f, false);
}

void CPU_NAME(cpu_few_x)(float *dst, const void *x, int64_t ldx, int64_t m,
                         int64_t k, bool bf)
{
    const int64_t ld = ldx * (bf ? 2 : 4);
    if (m <= TURN_ROWS) {
        CPU_NAME(cpu_load_rows)(dst, CPU_ROUND_UP(k), x, ldx, m, k, bf);
        return;
    }
    for (int64_t i = 0; i < m; i += VL)
        if (bf)
            lanes_x(dst + i * k, (const char *)x + i * ld, ld, m - i, k,
                    lanes_dup(m), true);
        else
            lanes_x(dst + i * k, (const char *)x + i * ld, ld, m - i, k,
                    lanes_dup(m), false);
}
