/* conform.c - the harness of the conformance tests; see conform.h. */
#include "backend/conform.h"

#include <criterion/logging.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static cf_config configs[] = {
    {"ref", BASE_F32, ""},      {"cpu", BASE_F32, "base"},
    {"cpu", BASE_F32, "avx2"},  {"cpu", BASE_F32, "avx512"},
    {"cpu", BASE_F32, ""},      {"cpu", BASE_BF16, "base"},
    {"cpu", BASE_BF16, "avx2"}, {"cpu", BASE_BF16, "avx512"},
    {"cpu", BASE_BF16, "amx"},  {"cpu", BASE_BF16, "amx-emulated"},
    {"cpu", BASE_BF16, ""},     {"cpu", BASE_BF16, "avx512bf16"},
    {"cuda", BASE_F32, ""},     {"cuda", BASE_BF16, ""},
};

/* ---- opening ---------------------------------------------------------- */

/* As the kernel lists it. */
static bool amx_runs(void)
{
    base_str machine = {0};
    backend_machine(&machine);
    bool runs = machine.s && strstr(machine.s, "amx_bf16");
    base_str_free(&machine);
    return runs;
}

static bool machine_runs(const char *isa)
{
    __builtin_cpu_init();
    if (strcmp(isa, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(isa, "amx") == 0)
        return amx_runs();
    if (strcmp(isa, "avx512bf16") == 0)
        return __builtin_cpu_supports("avx512bf16");
    if (strcmp(isa, "avx512") == 0 || strcmp(isa, "amx-emulated") == 0)
        return __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    return true;
}

/* False, with the reason, where there is no GPU or no backend for it; another
 * failure to open it is for the tests to find. Asked in a child: a process that
 * has used CUDA cannot do so after a fork. */
static bool gpu_runs(char *why, size_t n)
{
    int ends[2], status = 0;
    memset(why, 0, n);
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        backend_options options = {.name = "cuda", .dtype = BASE_F32};
        backend *be = NULL;
        lori_error err = {0};
        lori_status st = backend_open(&options, &be, &err);
        ssize_t sent = write(ends[1], err.message, strlen(err.message));
        _exit(st == LORI_UNSUPPORTED && sent > 0);
    }
    close(ends[1]);
    ssize_t got = child > 0 ? read(ends[0], why, n - 1) : -1;
    close(ends[0]);
    cr_assert(got >= 0 && waitpid(child, &status, 0) == child);
    return status == 0;
}

static bool config_runs(const cf_config *config, char *why, size_t n)
{
    static char no_gpu[256];
    static int gpu = -1;
    if (strcmp(config->name, "cuda") == 0) {
        if (gpu < 0)
            gpu = gpu_runs(no_gpu, sizeof no_gpu);
        snprintf(why, n, "%s", no_gpu);
        return gpu;
    }
    snprintf(why, n, "this processor does not run it");
    return machine_runs(config->isa);
}

/* A skipped case of a parameterized test fails the run in Criterion: those
 * that this machine cannot run are left out, once with the reason. */
struct criterion_test_params cf_configs(void)
{
    static cf_config runs[sizeof configs / sizeof configs[0]];
    static size_t n;
    if (n == 0)
        for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
            char why[256];
            if (config_runs(&configs[i], why, sizeof why))
                runs[n++] = configs[i];
            else
                cr_log_warn("SKIP conformance of %s %s %s: %s", configs[i].name,
                            base_dtype_name(configs[i].dtype), configs[i].isa,
                            why);
        }
    return cr_make_param_array(cf_config, runs, n);
}

static backend *open_one(const char *name, base_dtype dtype, const char *isa,
                         int threads)
{
    backend_options options = {.name = name,
                               .dtype = dtype,
                               .n_threads = threads,
                               .isa = *isa ? isa : NULL};
    backend *be = NULL;
    lori_error err = {0};
    cr_assert_eq(backend_open(&options, &be, &err), LORI_OK, "%s %s %s: %s",
                 name, base_dtype_name(dtype), isa, err.message);
    return be;
}

void cf_open(conform *c, const cf_config *config)
{
    memset(c, 0, sizeof *c);
    snprintf(c->label, sizeof c->label, "%s %s %s", config->name,
             base_dtype_name(config->dtype), config->isa);
    c->be[CF_TWO] = open_one(config->name, config->dtype, config->isa, 2);
    c->be[CF_ONE] = open_one(config->name, config->dtype, config->isa, 1);
    c->be[CF_REF] = open_one("ref", BASE_F64, "", 1);
    base_rng_start(&c->rng, 20240509, 1);
}

static void release(conform *c)
{
    CF_EACH(i)
    {
        lori_error err = {0};
        cr_assert_eq(c->be[i]->sync(c->be[i], &err), LORI_OK, "%s %s: %s",
                     c->label, c->what, err.message);
        for (int w = 0; w < c->n_weights; w++)
            c->be[i]->weight_close(c->be[i], c->weights[i][w]);
        while (c->n_held[i] > 0)
            c->be[i]->free(c->be[i], c->held[i][--c->n_held[i]]);
    }
    while (c->n_weights > 0)
        free(c->tensors[--c->n_weights]);
}

void cf_close(conform *c)
{
    release(c);
    CF_EACH(i) backend_close(c->be[i]);
}

void cf_next(conform *c, const char *fmt, ...)
{
    release(c);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->what, sizeof c->what, fmt, ap);
    va_end(ap);
}

/* ---- operands --------------------------------------------------------- */

base_dtype cf_dtype(const conform *c, int i, cf_kind kind)
{
    return kind == CF_ACT ? c->be[i]->act : c->be[i]->acc;
}

double cf_round(const conform *c, cf_kind kind, double x)
{
    if (cf_dtype(c, CF_TWO, kind) == BASE_BF16)
        return base_bf16_to_f32(base_f64_to_bf16(x));
    return (float)x;
}

static void store(void *p, int64_t i, base_dtype dtype, double x)
{
    if (dtype == BASE_F64)
        ((double *)p)[i] = x;
    else if (dtype == BASE_F32)
        ((float *)p)[i] = (float)x;
    else
        ((uint16_t *)p)[i] = base_f64_to_bf16(x);
}

static double load(const void *p, int64_t i, base_dtype dtype)
{
    if (dtype == BASE_F64)
        return ((const double *)p)[i];
    if (dtype == BASE_F32)
        return ((const float *)p)[i];
    return base_bf16_to_f32(((const uint16_t *)p)[i]);
}

void *cf_alloc(conform *c, int i, size_t bytes)
{
    cr_assert_lt(c->n_held[i], CF_HELD);
    void *p = c->be[i]->alloc(c->be[i], bytes);
    cr_assert_not_null(p);
    return c->held[i][c->n_held[i]++] = p;
}

void cf_upload(conform *c, int i, void *dst, const void *src, size_t bytes)
{
    lori_error err = {0};
    c->be[i]->copy(c->be[i], dst, src, bytes, BACKEND_TO_DEVICE);
    cr_assert_eq(c->be[i]->sync(c->be[i], &err), LORI_OK, "%s %s: %s", c->label,
                 c->what, err.message);
}

/* No memory after the last element: a read beyond it is out of bounds. */
static int64_t span(int64_t rows, int64_t cols, int pad)
{
    return rows == 0 ? 0 : pad / 2 + (rows - 1) * (cols + pad) + cols;
}

cf_operand cf_from(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                   int pad, const double *values)
{
    cf_operand o = {0};
    int64_t n = span(rows, cols, pad), ld = cols + pad;
    CF_EACH(i)
    {
        base_dtype dtype = cf_dtype(c, i, kind);
        size_t size = base_dtype_bytes(dtype);
        char *host = base_alloc((size_t)n, size);
        for (int64_t t = 0; t < n; t++)
            store(host, t, dtype, NAN);
        for (int64_t r = 0; r < rows && values; r++) {
            for (int64_t j = 0; j < cols; j++)
                store(host, pad / 2 + r * ld + j, dtype,
                      cf_round(c, kind, values[r * cols + j]));
        }
        char *p = cf_alloc(c, i, (size_t)n * size);
        cf_upload(c, i, p, host, (size_t)n * size);
        free(host);
        o.v[i] = (backend_view){p + (size_t)(n ? pad / 2 : 0) * size, rows,
                                cols, ld, dtype};
    }
    return o;
}

cf_operand cf_random(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                     int pad, double scale)
{
    double *x = base_alloc((size_t)(rows * cols), sizeof *x);
    for (int64_t i = 0; i < rows * cols; i++)
        x[i] = scale * (2 * base_rng_uniform(&c->rng) - 1);
    cf_operand o = cf_from(c, kind, rows, cols, pad, x);
    free(x);
    return o;
}

cf_operand cf_blank(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                    int pad)
{
    return cf_from(c, kind, rows, cols, pad, NULL);
}

cf_operand cf_target(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                     int pad, double beta)
{
    return beta == 0 ? cf_blank(c, kind, rows, cols, pad)
                     : cf_random(c, kind, rows, cols, pad, 3.0);
}

cf_ints cf_int32(conform *c, const int32_t *values, int64_t n)
{
    cf_ints a = {0};
    CF_EACH(i)
    {
        a.p[i] = cf_alloc(c, i, (size_t)n * sizeof *values);
        if (values)
            cf_upload(c, i, a.p[i], values, (size_t)n * sizeof *values);
    }
    return a;
}

cf_weight cf_weights(conform *c, int64_t rows, int64_t cols, base_dtype dtype)
{
    size_t n = (size_t)(rows * cols);
    float *x = base_alloc(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)base_rng_below(&c->rng, 255) / 64.0F - 127.0F / 64.0F;
    cf_weight w = cf_weights_from(c, rows, cols, dtype, x);
    free(x);
    return w;
}

cf_weight cf_weights_from(conform *c, int64_t rows, int64_t cols,
                          base_dtype dtype, const float *x)
{
    size_t n = (size_t)(rows * cols);
    /* One element into its memory, as a tensor lies in a mapped file. */
    char *memory = base_alloc(n + 1, base_dtype_bytes(dtype));
    char *data = memory + base_dtype_bytes(dtype);
    base_from_f32(x, data, dtype, n);
    int at = c->n_weights++;
    cr_assert_lt(at, 8);
    c->tensors[at] = memory;
    cf_weight w = {0};
    backend_tensor tensor = {"w", data, rows, cols, dtype};
    CF_EACH(i)
    {
        lori_error err = {0};
        cr_assert_eq(c->be[i]->weight_open(c->be[i], &tensor, &w.p[i], &err),
                     LORI_OK, "%s", err.message);
        c->weights[i][at] = w.p[i];
    }
    return w;
}

/* ---- judging ---------------------------------------------------------- */

/* The operand's memory from its first element to its last. */
static char *download(conform *c, int i, const cf_operand *o)
{
    const backend_view *v = &o->v[i];
    size_t n = v->rows ? (size_t)((v->rows - 1) * v->ld + v->cols) : 0;
    n *= base_dtype_bytes(v->dtype);
    char *host = base_alloc(n + 1, 1);
    lori_error err = {0};
    c->be[i]->copy(c->be[i], host, v->data, n, BACKEND_TO_HOST);
    cr_assert_eq(c->be[i]->sync(c->be[i], &err), LORI_OK, "%s %s: %s", c->label,
                 c->what, err.message);
    return host;
}

double *cf_values(conform *c, int i, const cf_operand *o)
{
    const backend_view *v = &o->v[i];
    char *host = download(c, i, o);
    double *x = base_alloc((size_t)(v->rows * v->cols), sizeof *x);
    for (int64_t r = 0; r < v->rows; r++) {
        for (int64_t j = 0; j < v->cols; j++)
            x[r * v->cols + j] = load(host, r * v->ld + j, v->dtype);
    }
    free(host);
    return x;
}

/* The same bits with one and two threads, gaps untouched. */
static void check_bits(conform *c, const cf_operand *o, const char *name)
{
    const backend_view *v = &o->v[CF_TWO];
    char *two = download(c, CF_TWO, o), *one = download(c, CF_ONE, o);
    size_t size = base_dtype_bytes(v->dtype);
    for (int64_t r = 0; r < v->rows; r++) {
        cr_expect_eq(memcmp(two + (size_t)(r * v->ld) * size,
                            one + (size_t)(r * v->ld) * size,
                            (size_t)v->cols * size),
                     0, "%s, %s: row %d of %s depends on the number of threads",
                     c->label, c->what, (int)r, name);
        bool gap = true;
        for (int64_t j = v->cols; j < v->ld && r + 1 < v->rows; j++)
            gap = gap && isnan(load(two, r * v->ld + j, v->dtype));
        cr_expect(gap || o->alias, "%s, %s: %s: written after row %d", c->label,
                  c->what, name, (int)r);
    }
    free(two);
    free(one);
}

static void judge(conform *c, const double *got, const double *want,
                  const backend_view *v, const char *name, double tol,
                  double each)
{
    int64_t n = v->rows * v->cols, worst = -1;
    double diff = 0, sum = 0, most = 0;
    for (int64_t i = 0; i < n; i++)
        sum += want[i] * want[i];
    double rms = n ? sqrt(sum / (double)n) : 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(got[i] - want[i]);
        double ratio = d / (each * (fabs(want[i]) + rms) + 1e-300);
        diff += d * d;
        if (!(ratio <= most)) {
            most = ratio;
            worst = i;
        }
    }
    double error = sum > 0 ? sqrt(diff / sum) : sqrt(diff);
    cr_expect(error <= tol, "%s, %s: %s: error %.3g, tolerance %.3g", c->label,
              c->what, name, error, tol);
    cr_expect(most <= 1, "%s, %s: %s[%d][%d] is %.9g, expected %.9g", c->label,
              c->what, name, (int)(worst / v->cols), (int)(worst % v->cols),
              got[worst], want[worst]);
}

void cf_check(conform *c, const cf_operand *o, const char *name, double terms,
              double slack)
{
    cf_check_rounded(c, o, name, terms, slack, 1);
}

void cf_check_rounded(conform *c, const cf_operand *o, const char *name,
                      double terms, double slack, double single)
{
    const backend_view *v = &o->v[CF_TWO];
    double tol, each;
    if (v->dtype == BASE_BF16) {
        tol = slack * (v->rows * v->cols < 256 ? 4e-3 : 2e-3);
        each = slack * 4e-3;
    } else {
        double long_sum = sqrt(terms) / 16;
        tol = slack * 1e-6 * (long_sum > 1 ? long_sum : 1);
        each = 16 * tol;
    }
    double *got = cf_values(c, CF_TWO, o), *want = cf_values(c, CF_REF, o);
    judge(c, got, want, v, name, tol, single * each);
    check_bits(c, o, name);
    free(got);
    free(want);
}

void cf_check_same(conform *c, int i, const cf_operand *a, const cf_operand *b,
                   const char *name)
{
    double *one = cf_values(c, i, a), *other = cf_values(c, i, b);
    cr_expect_arr_eq(one, other,
                     (size_t)(a->v[i].rows * a->v[i].cols) * sizeof *one,
                     "%s, %s: %s differs", c->label, c->what, name);
    free(one);
    free(other);
}

void cf_check_exact(conform *c, const cf_operand *o, const char *name)
{
    const backend_view *v = &o->v[CF_TWO];
    double *got = cf_values(c, CF_TWO, o), *want = cf_values(c, CF_REF, o);
    for (int64_t i = 0; i < v->rows * v->cols; i++) {
        bool same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
        cr_expect(same, "%s, %s: %s[%d][%d] is %.9g, expected %.9g", c->label,
                  c->what, name, (int)(i / v->cols), (int)(i % v->cols), got[i],
                  want[i]);
    }
    check_bits(c, o, name);
    free(got);
    free(want);
}
