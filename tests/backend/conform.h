/* conform.h - runs one operation on a backend under test (with two threads and
 * with one) and on the f64 reference, from the same numbers, and judges the
 * results.
 *
 * Inputs are rounded to the tested type first, so that the reference gets
 * exactly what the backend gets and only the operation's own error is seen.
 * Gaps between rows (ld > cols) hold NaN: reading one shows in the result,
 * writing one is found.
 *
 * Tolerances, as relative Frobenius error against f64:
 *   float results   1e-6 max(1, sqrt(terms) / 16). One chain of `terms`
 *                   additions of random signs errs by about 2^-24 sqrt(terms /
 *                   6); the bound is 2.5 times that for long sums, and covers
 *                   a few roundings and an exp of 2 ulp for short ones. A
 *                   product that passed through bf16 errs by 1e-3.
 *   bf16 results    one rounding: at most 2^-8 |x| each, so 4e-3 always; from
 *                   256 elements on 2e-3, as the root mean square of a
 *                   rounding is 1.6e-3 |x| and that of two is 2.3e-3.
 * Single elements are held to a looser bound, so that one wrong element of a
 * large matrix is found. */
#ifndef TESTS_BACKEND_CONFORM_H
#define TESTS_BACKEND_CONFORM_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>

#include "backend/backend.h"

enum { CF_TWO, CF_ONE, CF_REF, CF_BACKENDS };
#define CF_EACH(i) for (int i = 0; i < CF_BACKENDS; i++)

typedef enum cf_kind { CF_ACT, CF_ACC } cf_kind;

typedef struct cf_config {
    char name[8];
    base_dtype dtype;
    char isa[16]; /* "": the best */
} cf_config;

#define CF_HELD 64

typedef struct conform {
    char label[40]; /* "cpu BF16 avx2" */
    char what[160]; /* the case at hand */
    backend *be[CF_BACKENDS];
    base_rng rng;
    void *held[CF_BACKENDS][CF_HELD];
    int n_held[CF_BACKENDS];
    backend_weight *weights[CF_BACKENDS][8];
    void *tensors[8];
    int n_weights;
} conform;

typedef struct cf_operand {
    backend_view v[CF_BACKENDS];
    bool alias; /* lies in another operand's memory: gaps are not checked */
} cf_operand;

typedef struct cf_weight {
    backend_weight *p[CF_BACKENDS];
} cf_weight;

typedef struct cf_ints {
    int32_t *p[CF_BACKENDS];
} cf_ints;

/* One test for every configuration: CONFORM(name) { uses conform *c }. */
#define CONFORM(name)                                                          \
    ParameterizedTestParameters(conformance, name)                             \
    {                                                                          \
        return cf_configs();                                                   \
    }                                                                          \
    static void run_##name(conform *c);                                        \
    ParameterizedTest(cf_config *config, conformance, name)                    \
    {                                                                          \
        conform c;                                                             \
        cf_open(&c, config);                                                   \
        run_##name(&c);                                                        \
        cf_close(&c);                                                          \
    }                                                                          \
    static void run_##name(conform *c)

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* Every configuration that this processor runs, for
 * ParameterizedTestParameters; the others are named on the log. */
struct criterion_test_params cf_configs(void);

/* Opens the three backends. */
void cf_open(conform *c, const cf_config *config);
void cf_close(conform *c);
/* Names the next case and releases the operands of the one before. */
void cf_next(conform *c, const char *fmt, ...) BASE_PRINTF(2, 3);

base_dtype cf_dtype(const conform *c, int i, cf_kind kind);
/* x as the tested backend stores it. */
double cf_round(const conform *c, cf_kind kind, double x);

/* `values` [rows, cols] contiguous; NULL: random in (-scale, scale). The rows
 * stand `pad` elements apart and begin pad / 2 elements into the memory. */
cf_operand cf_from(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                   int pad, const double *values);
cf_operand cf_random(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                     int pad, double scale);
/* For results that are only written: all NaN. */
cf_operand cf_blank(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                    int pad);
/* Random when beta says that the old value is read, else blank. */
cf_operand cf_target(conform *c, cf_kind kind, int64_t rows, int64_t cols,
                     int pad, double beta);
/* Random numbers (multiples of 1/64 below 2, exact in every type). */
cf_weight cf_weights(conform *c, int64_t rows, int64_t cols, base_dtype dtype);
cf_weight cf_weights_from(conform *c, int64_t rows, int64_t cols,
                          base_dtype dtype, const float *x);
cf_ints cf_int32(conform *c, const int32_t *values, int64_t n);
void *cf_alloc(conform *c, int i, size_t bytes);
void cf_upload(conform *c, int i, void *dst, const void *src, size_t bytes);

/* Contiguous doubles [rows, cols]; the caller frees. */
double *cf_values(conform *c, int i, const cf_operand *o);
/* Judges a result: see the head. `slack` multiplies the tolerance. */
void cf_check(conform *c, const cf_operand *o, const char *name, double terms,
              double slack);
/* The same for sums of rounded terms, whose error goes with the size of the
 * terms: single elements may be so many times farther away. */
void cf_check_rounded(conform *c, const cf_operand *o, const char *name,
                      double terms, double slack, double single);
/* Bits of b on one backend, for what is computed in two ways. */
void cf_check_same(conform *c, int i, const cf_operand *a, const cf_operand *b,
                   const char *name);
/* Bits of the reference, for results that are copied, not computed. */
void cf_check_exact(conform *c, const cf_operand *o, const char *name);

#endif
