/* cpu_k_gemm.c - products with large matrices. c = alpha x op(b) + beta c,
 * where every element of x op(b) is one chain of multiply-adds over k, in
 * order, from zero. The chain may pause (its sum is a float in memory) and go
 * on, so bits depend neither on how a product is cut into blocks nor on which
 * of the two ways below computes it: many rows or few, a row's bits are equal.
 *
 * Many rows: a block of b is packed as floats into panels of PANEL columns,
 * [k][PANEL] each, and multiplied by register tiles of MM_ROWS rows of x.
 * Few rows (decoding): rows of w are streamed once, VL at a time, transposed
 * in registers. */
#include "backend/cpu/isa/cpu_k.h"

#define PANEL (2 * VL)
_Static_assert(PANEL <= CPU_PANEL && CPU_PANEL % PANEL == 0,
               "scratch is cut for whole panels");

/* ---- packing ---------------------------------------------------------- */

/* What one transposition gives of VL rows: so many elements along k. */
#define K_STEP(bf) ((bf) ? 2 * VL : VL)

/* Elements [from, from + count) of VL rows, turned: lane i of part[t] is row
 * i's float t or pair t of bf16; zero past `count`. */
INLINE void turn_rows(vf *part, const char *const *row, int64_t from,
                      int64_t count, bool bf)
{
    const size_t size = bf ? 2 : 4;
    for (int i = 0; i < VL; ++i) {
        const char *p = row[i] + (size_t)from * size;
        if (count == K_STEP(bf)) {
            memcpy(&part[i], p, sizeof part[i]);
        } else {
            part[i] = (vf){0};
            memcpy(&part[i], p, (size_t)count * size);
        }
    }
    turn_square(part);
}

/* Element t of every row, as floats. */
INLINE vf turned(const vf *part, int64_t t, bool bf)
{
    if (!bf)
        return part[t];
    vu pair = (vu)part[t / 2];
    return (vf)(t % 2 ? pair & 0xffff0000U : pair << 16);
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

/* Asks for lines of the next block of b while this one is multiplied. */
typedef struct ahead {
    uintptr_t row, ld; /* bytes */
    int64_t lines, at; /* in a row; the next one */
    int64_t each;      /* lines for every AHEAD_STEP of k */
} ahead;
#define AHEAD_STEP 16

INLINE void look_ahead(ahead *a)
{
    for (int64_t i = 0; i < a->each; ++i) {
        __builtin_prefetch((const void *)(a->row + (uintptr_t)a->at * 64), 0,
                           2);
        if (++a->at == a->lines) {
            a->at = 0;
            a->row += a->ld;
        }
    }
}

/* One register tile: to [rows, wide vectors] = from + x panel; `from` NULL is
 * zero. `rows` and `wide` are constants where this is inlined. */
INLINE void tile(int rows, int wide, int64_t k, const float *x,
                 const float *panel, const float *from, float *to, ahead *a)
{
    vf acc[MM_ROWS][2];
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < wide; ++j)
            acc[i][j] = from ? load(from + i * PANEL + j * VL) : (vf){0};
    for (int64_t t = 0; t < k;) {
        const int64_t end = k - t < AHEAD_STEP ? k : t + AHEAD_STEP;
        look_ahead(a);
        for (; t < end; ++t) {
            vf b0 = load(panel);
            vf b1 = wide > 1 ? load(panel + VL) : b0;
            panel += wide * VL;
            for (int i = 0; i < rows; ++i) {
                vf v = splat(x[i * CPU_GEMM_LD + t]);
                acc[i][0] = madd(v, b0, acc[i][0]);
                if (wide > 1)
                    acc[i][1] = madd(v, b1, acc[i][1]);
            }
        }
    }
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < wide; ++j)
            store(to + i * PANEL + j * VL, acc[i][j]);
}

#define TILE(n)                                                                \
    case n:                                                                    \
        tile(n, wide, k, x, panel, from, to, a);                               \
        break;

INLINE void tile_of(int64_t rows, int wide, int64_t k, const float *x,
                    const float *panel, const float *from, float *to, ahead *a)
{
    switch (rows) {
        TILE(1)
        TILE(2)
        TILE(3) TILE(4) TILE(5)
#if MM_ROWS > 6
            TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11)
#endif
                default : tile(MM_ROWS, wide, k, x, panel, from, to, a);
        break;
    }
}

/* c [n] = alpha sum + beta c */
INLINE void finish(void *c, const float *sum, int64_t n, float alpha,
                   float beta, bool bf)
{
    FOR_VECTORS(j, count, n)
    {
        vf v = load(sum + j) * alpha;
        if (beta != 0)
            v = madd(splat(beta), get(c, j, count, bf), v);
        put(c, j, v, count, bf);
    }
}

INLINE void finish_tile(const cpu_gemm_block *g, const float *sum, int64_t row,
                        int64_t rows, int64_t col, int64_t cols)
{
    const size_t size = g->c_bf ? 2 : 4;
    for (int64_t i = 0; i < rows; ++i) {
        void *c = (char *)g->c + (size_t)((row + i) * g->ldc + col) * size;
        if (g->c_bf)
            finish(c, sum + i * PANEL, cols, g->alpha, g->beta, true);
        else
            finish(c, sum + i * PANEL, cols, g->alpha, g->beta, false);
    }
}

static ahead ahead_of(const cpu_gemm_block *g, int64_t panel)
{
    const cpu_ahead *n = &g->next;
    ahead a = {0};
    if (n->at) {
        int64_t steps = (g->k + AHEAD_STEP - 1) / AHEAD_STEP;
        a.row = (uintptr_t)n->at + (uintptr_t)(panel * n->panel_bytes);
        a.ld = (uintptr_t)n->row_bytes;
        a.lines = n->lines;
        a.each = (n->rows * n->lines + steps - 1) / steps;
    }
    return a;
}

/* Tiles of about equal height: the last is never a single slow row. */
void CPU_NAME(cpu_gemm)(const cpu_gemm_block *g)
{
    const float *panel = g->panels;
    const int64_t tiles = (g->m + MM_ROWS - 1) / MM_ROWS;
    for (int64_t j = 0; j < g->n; j += PANEL) {
        const int64_t width = panel_width(g->n - j);
        const int64_t cols = g->n - j < PANEL ? g->n - j : PANEL;
        ahead a = ahead_of(g, j / PANEL);
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
            a.each = 0;
        }
        panel += g->k * width;
    }
}

/* ---- few rows --------------------------------------------------------- */

/* K_STEP columns of every row are asked for this many steps ahead. */
#define FEW_AHEAD 8

/* Groups of VL rows of w at a time: two share what is loaded of x, where
 * their sums fit the registers. */
#define FEW_GROUPS(m) ((m) <= MM_ROWS ? 2 : 1)

typedef struct few_rows {
    const char *row[PANEL];
    const char *next; /* first of the rows after these, or NULL */
    int64_t ld;       /* bytes */
} few_rows;

INLINE void few_prefetch(const few_rows *w, int n, int64_t step, int64_t steps,
                         int64_t step_bytes)
{
    const int64_t later = step + FEW_AHEAD;
    if (later < steps)
        for (int i = 0; i < n; ++i)
            __builtin_prefetch(w->row[i] + later * step_bytes, 0, 2);
    else if (w->next && later - steps < steps)
        for (int i = 0; i < n; ++i)
            __builtin_prefetch(
                w->next + i * w->ld + (later - steps) * step_bytes, 0, 2);
}

/* acc += x[., t] w[., t] for one t */
INLINE void few_add(int m, int groups, vf (*acc)[2], const float *x,
                    int64_t ldx, vf (*part)[VL], int64_t t, bool bf)
{
    vf w[2];
    for (int g = 0; g < groups; ++g)
        w[g] = turned(part[g], t, bf);
    for (int i = 0; i < m; ++i) {
        vf v = splat(x[i * ldx + t]);
        for (int g = 0; g < groups; ++g)
            acc[i][g] = madd(v, w[g], acc[i][g]);
    }
}

/* All of k for groups * VL rows of w and m rows of x (constants where
 * inlined). */
INLINE void few_sums(int m, int groups, const cpu_few *f, const few_rows *w,
                     bool bf, vf (*acc)[2])
{
    const int64_t step = K_STEP(bf), steps = (f->k + step - 1) / step;
    for (int64_t s = 0; s < steps; ++s) {
        const int64_t t = s * step;
        const int64_t count = f->k - t < step ? f->k - t : step;
        vf part[2][VL];
        few_prefetch(w, groups * VL, s, steps, step * (bf ? 2 : 4));
        for (int g = 0; g < groups; ++g)
            turn_rows(part[g], w->row + g * VL, t, count, bf);
        const float *x = f->x + t;
        int64_t u = 0;
        if (bf)
            for (; u + 2 <= count; u += 2) {
                few_add(m, groups, acc, x, f->ldx, part, u, bf);
                few_add(m, groups, acc, x, f->ldx, part, u | 1, bf);
            }
        for (; u < count; ++u)
            few_add(m, groups, acc, x, f->ldx, part, u, bf);
    }
}

INLINE void few_of(int m, const cpu_few *f, bool bf)
{
    const int groups = FEW_GROUPS(m), wide = groups * VL;
    const size_t c_size = f->c_bf ? 2 : 4;
    few_rows w = {.ld = f->ldw * (bf ? 2 : 4)};
    for (int64_t j = 0; j < f->n; j += wide) {
        const char *first = (const char *)f->w + j * w.ld;
        const int64_t count = f->n - j < wide ? f->n - j : wide;
        vf acc[CPU_FEW_ROWS][2] = {{{0}}};
        for (int i = 0; i < wide; ++i)
            w.row[i] = first + (i < count ? i : count - 1) * w.ld;
        w.next = j + 2 * wide <= f->n ? first + wide * w.ld : NULL;
        few_sums(m, groups, f, &w, bf, acc);
        for (int i = 0; i < m; ++i) {
            float sum[PANEL];
            void *c = (char *)f->c + (size_t)(i * f->ldc + j) * c_size;
            for (int g = 0; g < groups; ++g)
                store(sum + g * VL, acc[i][g]);
            finish(c, sum, count, f->alpha, f->beta, f->c_bf);
        }
    }
}

#define FEW(m)                                                                 \
    case m:                                                                    \
        few_of(m, f, bf);                                                      \
        break;

INLINE void few_as(const cpu_few *f, bool bf)
{
    switch (f->m) {
        FEW(1)
        FEW(2)
        FEW(3) FEW(4) FEW(5) FEW(6) FEW(7) default
            : few_of(CPU_FEW_ROWS, f, bf);
        break;
    }
}

void CPU_NAME(cpu_few)(const cpu_few *f)
{
    if (f->bf)
        few_as(f, true);
    else
        few_as(f, false);
}
