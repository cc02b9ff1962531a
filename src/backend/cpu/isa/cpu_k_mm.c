/* cpu_k_mm.c - products of small float matrices held in cache, and dot
 * products of a few rows with rows of keys (decoding). */
#include "backend/cpu/isa/cpu_k.h"

/* One register tile of `rows` x `wide` vectors. `rows`, `wide` and often `ars`
 * are constants where this is inlined. */
INLINE void tile(int rows, int wide, int64_t k, const float *a, int64_t ars,
                 int64_t aks, const float *b, int64_t ldb, float *c,
                 int64_t ldc, bool add)
{
    vf acc[MM_ROWS][2];
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < wide; ++j)
            acc[i][j] = add ? load(c + i * ldc + j * VL) : (vf){0};
    for (int64_t t = 0; t < k; ++t) {
        vf b0 = load(b + t * ldb);
        vf b1 = wide > 1 ? load(b + t * ldb + VL) : b0;
        for (int i = 0; i < rows; ++i) {
            vf x = splat(a[i * ars + t * aks]);
            acc[i][0] += x * b0;
            if (wide > 1)
                acc[i][1] += x * b1;
        }
    }
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < wide; ++j)
            store(c + i * ldc + j * VL, acc[i][j]);
}

INLINE void columns(int wide, int64_t m, int64_t k, const float *a, int64_t ars,
                    int64_t aks, const float *b, int64_t ldb, float *c,
                    int64_t ldc, bool add)
{
    int64_t i = 0;
    for (; i + MM_ROWS <= m; i += MM_ROWS)
        tile(MM_ROWS, wide, k, a + i * ars, ars, aks, b, ldb, c + i * ldc, ldc,
             add);
    for (; i + MM_SOME <= m; i += MM_SOME)
        tile(MM_SOME, wide, k, a + i * ars, ars, aks, b, ldb, c + i * ldc, ldc,
             add);
    for (; i < m; ++i)
        tile(1, wide, k, a + i * ars, ars, aks, b, ldb, c + i * ldc, ldc, add);
}

INLINE void all(int64_t m, int64_t n, int64_t k, const float *a, int64_t ars,
                int64_t aks, const float *b, int64_t ldb, float *c, int64_t ldc,
                bool add)
{
    int64_t j = 0;
    for (; j + 2 * VL <= n; j += 2 * VL)
        columns(2, m, k, a, ars, aks, b + j, ldb, c + j, ldc, add);
    for (; j < n; j += VL)
        columns(1, m, k, a, ars, aks, b + j, ldb, c + j, ldc, add);
}

/* The common row strides of a become constants: a dozen row addresses then
 * need one register. */
void CPU_NAME(cpu_mm)(int64_t m, int64_t n, int64_t k, const float *a,
                      int64_t ars, int64_t aks, const float *b, int64_t ldb,
                      float *c, int64_t ldc, bool add)
{
    if (ars == 1)
        all(m, n, k, a, 1, aks, b, ldb, c, ldc, add);
    else if (ars == 64 && aks == 1)
        all(m, n, k, a, 64, 1, b, ldb, c, ldc, add);
    else if (ars == 128 && aks == 1)
        all(m, n, k, a, 128, 1, b, ldb, c, ldc, add);
    else if (ars == CPU_LD && aks == 1)
        all(m, n, k, a, CPU_LD, 1, b, ldb, c, ldc, add);
    else
        all(m, n, k, a, ars, aks, b, ldb, c, ldc, add);
}

/* ---- dot products --------------------------------------------------- */

/* `n` rows of x with `rows` rows of w, both constants where inlined: w is
 * read once, x comes from cache. Two chains each for a single row hide the
 * latency of the additions. */
INLINE void dots_tile(int n, int rows, float *out, int64_t ldo, const float *x,
                      int64_t ldx, const char *w, int64_t k, bool bf)
{
    const int64_t size = bf ? 2 : 4;
    vf acc[8][4];
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < rows; ++j)
            acc[i][j] = (vf){0};
    int64_t t = 0;
    for (; t + VL <= k; t += VL) {
        vf wv[4];
        for (int j = 0; j < rows; ++j) {
            const char *row = w + j * k * size;
            /* Far enough ahead for memory, and into the next rows. */
            __builtin_prefetch(row + t * size + 1024, 0, 1);
            wv[j] = load_any(row, t, bf);
        }
        for (int i = 0; i < n; ++i) {
            vf xv = load(x + i * ldx + t);
            for (int j = 0; j < rows; ++j)
                acc[i][j] += xv * wv[j];
        }
    }
    if (t < k)
        for (int j = 0; j < rows; ++j) {
            vf wv = load_some(w + j * k * size, t, k - t, bf);
            for (int i = 0; i < n; ++i)
                acc[i][j] += load(x + i * ldx + t) * wv;
        }
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < rows; ++j)
            out[i * ldo + j] = lanes_sum(acc[i][j]);
}

/* Few rows of x take more rows of w at once: enough chains, few registers. */
INLINE void dots_of(int n, float *out, int64_t ldo, const float *x, int64_t ldx,
                    const char *w, int64_t rows, int64_t k, bool bf)
{
    const int64_t step = k * (bf ? 2 : 4);
    int64_t j = 0;
    if (n <= 4)
        for (; j + 4 <= rows; j += 4)
            dots_tile(n, 4, out + j, ldo, x, ldx, w + j * step, k, bf);
    else
        for (; j + 2 <= rows; j += 2)
            dots_tile(n, 2, out + j, ldo, x, ldx, w + j * step, k, bf);
    for (; j < rows; ++j)
        dots_tile(n, 1, out + j, ldo, x, ldx, w + j * step, k, bf);
}

INLINE void dots_as(float *out, int64_t ldo, const float *x, int64_t n,
                    const void *w, int64_t rows, int64_t k, bool bf)
{
    int64_t ldx = CPU_ROUND_UP(k);
    switch (n) {
    case 1:
        dots_of(1, out, ldo, x, ldx, w, rows, k, bf);
        break;
    case 2:
        dots_of(2, out, ldo, x, ldx, w, rows, k, bf);
        break;
    case 3:
        dots_of(3, out, ldo, x, ldx, w, rows, k, bf);
        break;
    case 4:
        dots_of(4, out, ldo, x, ldx, w, rows, k, bf);
        break;
    case 5:
        dots_of(5, out, ldo, x, ldx, w, rows, k, bf);
        break;
    case 6:
        dots_of(6, out, ldo, x, ldx, w, rows, k, bf);
        break;
    case 7:
        dots_of(7, out, ldo, x, ldx, w, rows, k, bf);
        break;
    default:
        dots_of(8, out, ldo, x, ldx, w, rows, k, bf);
        break;
    }
}

void CPU_NAME(cpu_dots)(float *out, int64_t ldo, const float *x, int64_t n,
                        const void *w, int64_t rows, int64_t k, bool bf)
{
    if (bf)
        dots_as(out, ldo, x, n, w, rows, k, true);
    else
        dots_as(out, ldo, x, n, w, rows, k, false);
}
