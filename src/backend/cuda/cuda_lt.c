/* cuda_lt.c - cuBLASLt, behind a narrow door: one product of row-major
 * matrices. The only file that includes cublasLt.h.
 *
 * cuBLASLt is column-major: what is row-major [m, n] here is [n, m] there, so
 * c^T = op(b)^T op(a)^T is asked for, and no operand is moved.
 *
 * The library is loaded when a GPU is opened, not when the program starts: it
 * has half a gigabyte, and a program that was built with CUDA must also start
 * where it is missing. Owns the plans (descriptors, layouts and the chosen
 * algorithm), kept in a hash table by shape, types and alignment. */
#include <dlfcn.h>
#include <float.h>
#include <stdlib.h>

#include <cublasLt.h>

#include "backend/cuda/cuda_i.h"

#define MAX_PLANS 4096
#define BUCKETS   1024

#define TEXT(x)  TEXT_(x)
#define TEXT_(x) #x
#define LIBRARY  "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

/* The functions that are used, as X(name without cublasLt). */
#define LT_FUNCTIONS(X)                                                        \
    X(Create)                                                                  \
    X(Destroy)                                                                 \
    X(GetVersion)                                                              \
    X(GetStatusName)                                                           \
    X(Matmul)                                                                  \
    X(MatmulAlgoGetHeuristic)                                                  \
    X(MatmulDescCreate)                                                        \
    X(MatmulDescDestroy)                                                       \
    X(MatmulDescSetAttribute)                                                  \
    X(MatmulPreferenceCreate)                                                  \
    X(MatmulPreferenceDestroy)                                                 \
    X(MatmulPreferenceSetAttribute)                                            \
    X(MatrixLayoutCreate)                                                      \
    X(MatrixLayoutDestroy)

/* Compared as bytes: zero it first. */
typedef struct plan_key {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t ab, c, turn_a, turn_b;
    uint32_t align_a, align_b, align_c, align_plus;
} plan_key;

typedef struct plan {
    plan_key key;
    struct plan *next;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* ours, not cuBLASLt's first and second */
    cublasLtMatmulAlgo_t algo;
} plan;

struct cuda_lt {
    void *library;
#define LT_MEMBER(name) __typeof__(cublasLt##name) *(name);
    LT_FUNCTIONS(LT_MEMBER)
#undef LT_MEMBER
    cublasLtHandle_t handle;
    int n_plans;
    plan *bucket[BUCKETS];
};

/* ---- the library ------------------------------------------------------- */

static lori_status failed(const cuda_lt *lt, lori_error *err, const char *what,
                          cublasStatus_t status)
{
    return base_fail(err,
                     status == CUBLAS_STATUS_ALLOC_FAILED ? LORI_NO_MEMORY
                                                          : LORI_DEVICE,
                     "cuBLASLt: %s: %s", what, lt->GetStatusName(status));
}

static lori_status load(cuda_lt *lt, lori_error *err)
{
    static const char *const names[] = {
#define LT_NAME(name) "cublasLt" #name,
        LT_FUNCTIONS(LT_NAME)
#undef LT_NAME
    };
    void *found[sizeof names / sizeof *names], **next = found;
    /* Never unloaded: it leaves things behind that run at exit. */
    lt->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lt->library)
        return base_fail(err, LORI_UNSUPPORTED,
                         "backend cuda: %s; install cuBLAS %d, name its folder "
                         "in LD_LIBRARY_PATH, or use backend cpu",
                         dlerror(), CUBLAS_VER_MAJOR);
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
        found[i] = dlsym(lt->library, names[i]);
        if (!found[i])
            return base_fail(err, LORI_UNSUPPORTED,
                             "backend cuda: " LIBRARY " lacks %s; install the "
                             "cuBLAS that this program was built with, or use "
                             "backend cpu",
                             names[i]);
    }
#define LT_TAKE(name) memcpy(&lt->name, next++, sizeof lt->name);
    LT_FUNCTIONS(LT_TAKE)
#undef LT_TAKE
    return LORI_OK;
}

lori_status cuda_lt_open(cuda_lt **out, lori_error *err)
{
    *out = NULL;
    cuda_lt *lt = base_alloc(1, sizeof *lt);
    if (!lt)
        return base_no_memory(err, sizeof *lt);
    lori_status st = load(lt, err);
    if (!st) {
        cublasStatus_t status = lt->Create(&lt->handle);
        if (status)
            st = failed(lt, err, "starting", status);
    }
    if (st) {
        cuda_lt_close(lt);
        return st;
    }
    *out = lt;
    return LORI_OK;
}

void cuda_lt_version(const cuda_lt *lt, base_str *out)
{
    size_t v = lt->GetVersion();
    base_str_printf(out, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

/* ---- plans -------------------------------------------------------------- */

static void plan_free(const cuda_lt *lt, plan *p)
{
    if (p->desc)
        lt->MatmulDescDestroy(p->desc);
    if (p->a)
        lt->MatrixLayoutDestroy(p->a);
    if (p->b)
        lt->MatrixLayoutDestroy(p->b);
    if (p->c)
        lt->MatrixLayoutDestroy(p->c);
    free(p);
}

static void forget_all(cuda_lt *lt)
{
    for (int i = 0; i < BUCKETS; ++i) {
        while (lt->bucket[i]) {
            plan *p = lt->bucket[i];
            lt->bucket[i] = p->next;
            plan_free(lt, p);
        }
    }
    lt->n_plans = 0;
}

void cuda_lt_close(cuda_lt *lt)
{
    if (!lt)
        return;
    forget_all(lt);
    if (lt->handle)
        lt->Destroy(lt->handle);
    if (lt->library)
        dlclose(lt->library);
    free(lt);
}

static cudaDataType_t type_of(int32_t dtype)
{
    return dtype == BASE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A row-major matrix [rows, cols] as cuBLASLt sees it. */
static cublasStatus_t layout(const cuda_lt *lt, cublasLtMatrixLayout_t *out,
                             int32_t dtype, int64_t rows, int64_t cols,
                             int64_t ld)
{
    return lt->MatrixLayoutCreate(out, type_of(dtype), (uint64_t)cols,
                                  (uint64_t)rows, ld);
}

static cublasStatus_t describe(const cuda_lt *lt, plan *p)
{
    const plan_key *k = &p->key;
    const cublasOperation_t turn = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    cublasStatus_t st =
        lt->MatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!st)
        st =
            lt->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA,
                                       k->turn_b ? &turn : &plain, sizeof turn);
    if (!st)
        st =
            lt->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB,
                                       k->turn_a ? &turn : &plain, sizeof turn);
    if (!st)
        st = k->turn_a ? layout(lt, &p->a, k->ab, k->k, k->m, k->lda)
                       : layout(lt, &p->a, k->ab, k->m, k->k, k->lda);
    if (!st)
        st = k->turn_b ? layout(lt, &p->b, k->ab, k->n, k->k, k->ldb)
                       : layout(lt, &p->b, k->ab, k->k, k->n, k->ldb);
    if (!st)
        st = layout(lt, &p->c, k->c, k->m, k->n, k->ldc);
    return st;
}

static cublasStatus_t prefer(const cuda_lt *lt,
                             cublasLtMatmulPreference_t preference,
                             const plan_key *k)
{
    /* The parts of a split sum are added as floats, not in c: that may be bf16,
     * and would be rounded once for each part. */
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const size_t workspace = CUDA_WORKSPACE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t size;
    } all[] = {
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums},
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
         sizeof workspace},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &k->align_b, 4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &k->align_a, 4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &k->align_plus, 4},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &k->align_c, 4},
    };
    cublasStatus_t st = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; !st && i < sizeof all / sizeof *all; ++i)
        st = lt->MatmulPreferenceSetAttribute(preference, all[i].attribute,
                                              all[i].value, all[i].size);
    return st;
}

static cublasStatus_t choose(const cuda_lt *lt, plan *p)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    cublasStatus_t st = lt->MatmulPreferenceCreate(&preference);
    if (!st)
        st = prefer(lt, preference, &p->key);
    if (!st)
        st = lt->MatmulAlgoGetHeuristic(lt->handle, p->desc, p->b, p->a, p->c,
                                        p->c, preference, 1, &best, &n);
    if (preference)
        lt->MatmulPreferenceDestroy(preference);
    if (!st && n == 0)
        st = CUBLAS_STATUS_NOT_SUPPORTED;
    if (!st)
        p->algo = best.algo;
    return st;
}

static lori_status plan_failed(const cuda_lt *lt, const plan_key *k,
                               cublasStatus_t status, lori_error *err)
{
    lori_status st = failed(lt, err, "choosing an algorithm", status);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED && err)
        st = err->status = LORI_UNSUPPORTED;
    base_prefix(err, st,
                "%s [%lld, %lld, %lld] to %s, ld %lld %lld %lld, turned %d %d, "
                "aligned to %u %u %u %u",
                base_dtype_name((base_dtype)k->ab), (long long)k->m,
                (long long)k->n, (long long)k->k,
                base_dtype_name((base_dtype)k->c), (long long)k->lda,
                (long long)k->ldb, (long long)k->ldc, k->turn_a, k->turn_b,
                k->align_a, k->align_b, k->align_c, k->align_plus);
    return st;
}

/* The largest power of two up to 16 that divides the address. */
static uint32_t alignment(const void *p)
{
    const uintptr_t at = (uintptr_t)p | 16;
    return (uint32_t)(at & (~at + 1));
}

static plan_key key_of(const cuda_product *p)
{
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = p->m;
    key.n = p->n;
    key.k = p->k;
    key.lda = p->lda;
    key.ldb = p->ldb;
    key.ldc = p->ldc;
    key.ab = (int32_t)p->ab;
    key.c = (int32_t)p->c_type;
    key.turn_a = p->turn_a;
    key.turn_b = p->turn_b;
    key.align_a = alignment(p->a);
    key.align_b = alignment(p->b);
    key.align_c = alignment(p->c);
    key.align_plus = alignment(p->plus);
    return key;
}

static lori_status find_plan(cuda_lt *lt, const plan_key *key, const plan **out,
                             lori_error *err)
{
    uint64_t hash = base_fnv1a(BASE_FNV_START, key, sizeof *key);
    plan **head = &lt->bucket[hash % BUCKETS], *p = *head;
    while (p && memcmp(&p->key, key, sizeof *key) != 0)
        p = p->next;
    if (!p) {
        if (lt->n_plans >= MAX_PLANS)
            forget_all(lt);
        p = base_alloc(1, sizeof *p);
        if (!p)
            return base_no_memory(err, sizeof *p);
        p->key = *key;
        cublasStatus_t status = describe(lt, p);
        if (!status)
            status = choose(lt, p);
        if (status) {
            plan_free(lt, p);
            return plan_failed(lt, key, status, err);
        }
        p->next = *head;
        *head = p;
        lt->n_plans++;
    }
    *out = p;
    return LORI_OK;
}

/* With beta exactly 1 and c aligned, kernels for Hopper round the product to
 * the type of c and add it in memory: c would be rounded twice. The next float
 * is as good as 1 to a bf16. */
static float exact_beta(const cuda_product *p)
{
    return p->c_type == BASE_BF16 && p->beta == 1 ? 1 + FLT_EPSILON : p->beta;
}

lori_status cuda_lt_run(cuda_lt *lt, const cuda_product *p, void *workspace,
                        cudaStream_t stream, lori_error *err)
{
    const plan_key key = key_of(p);
    const plan *how = NULL;
    BASE_TRY(find_plan(lt, &key, &how, err));
    const float beta = exact_beta(p);
    cublasStatus_t status =
        lt->Matmul(lt->handle, how->desc, &p->alpha, p->b, how->b, p->a, how->a,
                   &beta, p->plus, how->c, p->c, how->c, &how->algo, workspace,
                   CUDA_WORKSPACE, stream);
    return status ? failed(lt, err, "a product", status) : LORI_OK;
}
