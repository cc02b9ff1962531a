/* cpu_k_mm.c - products of small float matrices held in cache. */
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
