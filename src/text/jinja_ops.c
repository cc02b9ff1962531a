/* jinja_ops.c - Python's operators on values: arithmetic with floor division
 * and true division, concatenation that escapes beside Markup, comparisons.
 * Integers are 64 bits wide: what goes beyond is an error, where Python would
 * go on. Includes base only. Source: Python 3.11's data model. */
#include <math.h>

#include "text/jinja_i.h"

static const char *const symbols[] = {
    [JINJA_ADD] = "+", [JINJA_SUB] = "-",       [JINJA_MUL] = "*",
    [JINJA_DIV] = "/", [JINJA_FLOORDIV] = "//", [JINJA_MOD] = "%",
    [JINJA_POW] = "**"};

static jinja_value overflow(jinja_run *run)
{
    return jinja_error(run, "an integer beyond 64 bits");
}

static jinja_value power_of_int(jinja_run *run, int64_t a, int64_t b)
{
    int64_t result = 1;
    if (b < 0 && a == 0)
        return jinja_error(run, "0.0 cannot be raised to a negative power");
    if (b < 0)
        return jinja_float(pow((double)a, (double)b));
    while (b > 0) {
        if (b & 1 && __builtin_mul_overflow(result, a, &result))
            return overflow(run);
        b >>= 1;
        if (b && __builtin_mul_overflow(a, a, &a))
            return overflow(run);
    }
    return jinja_int(result);
}

static jinja_value int_op(jinja_run *run, jinja_op op, int64_t a, int64_t b)
{
    int64_t r = 0;
    bool over = false;
    if (b == 0 && (op == JINJA_DIV || op == JINJA_FLOORDIV || op == JINJA_MOD))
        return jinja_error(run, "division by zero");
    switch (op) {
    case JINJA_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case JINJA_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case JINJA_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case JINJA_DIV:
        return jinja_float((double)a / (double)b);
    case JINJA_FLOORDIV:
        if (a == INT64_MIN && b == -1)
            return overflow(run);
        r = a / b - (a % b != 0 && (a < 0) != (b < 0));
        break;
    case JINJA_MOD:
        r = b == -1 ? 0 : a % b;
        if (r != 0 && (r < 0) != (b < 0))
            r += b;
        break;
    default:
        return power_of_int(run, a, b);
    }
    return over ? overflow(run) : jinja_int(r);
}

/* The remainder has the divisor's sign. */
static double float_mod(double a, double b)
{
    double r = fmod(a, b);
    if (r == 0)
        return copysign(0, b);
    return (r < 0) != (b < 0) ? r + b : r;
}

static double float_floordiv(double a, double b)
{
    double r = fmod(a, b), q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0))
        q -= 1;
    if (q == 0)
        return copysign(0, a / b);
    double whole = floor(q);
    return q - whole > 0.5 ? whole + 1 : whole;
}

static jinja_value float_op(jinja_run *run, jinja_op op, double a, double b)
{
    if (b == 0 && (op == JINJA_DIV || op == JINJA_FLOORDIV || op == JINJA_MOD))
        return jinja_error(run, "float division by zero");
    switch (op) {
    case JINJA_ADD:
        return jinja_float(a + b);
    case JINJA_SUB:
        return jinja_float(a - b);
    case JINJA_MUL:
        return jinja_float(a * b);
    case JINJA_DIV:
        return jinja_float(a / b);
    case JINJA_FLOORDIV:
        return jinja_float(float_floordiv(a, b));
    case JINJA_MOD:
        return jinja_float(float_mod(a, b));
    default:
        break;
    }
    double r = pow(a, b);
    if (isfinite(a) && isfinite(b) && !isfinite(r))
        return jinja_error(run, "a power without a float result");
    return jinja_float(r);
}

/* ---- strings and lists
 * ------------------------------------------------------------ */

static jinja_value join_strings(jinja_run *run, jinja_value a, jinja_value b)
{
    bool safe = a.safe || b.safe;
    if (safe) {
        a = jinja_escape(run, a);
        b = jinja_escape(run, b);
    }
    if (a.n > JINJA_MAX_OUTPUT || b.n > JINJA_MAX_OUTPUT - a.n)
        return jinja_error(run, "a string of more than %zu MiB",
                           JINJA_MAX_OUTPUT >> 20);
    if (!jinja_step(run, b.n))
        return a;
    char *s = jinja_extend(&run->arena, a.as.s, a.n, b.n);
    if (!s)
        return jinja_error(run, "out of memory");
    if (b.n)
        memcpy(s + a.n, b.as.s, b.n);
    jinja_value v = jinja_str(s, (size_t)a.n + b.n);
    v.safe = safe;
    return v;
}

static jinja_value join_lists(jinja_run *run, jinja_value a, jinja_value b)
{
    jinja_value *item;
    size_t n = a.as.list->n;
    jinja_value v =
        jinja_list_new(run, (jinja_kind)a.kind, n + b.as.list->n, &item);
    if (jinja_failed(run))
        return v;
    memcpy(item, a.as.list->item, n * sizeof *item);
    memcpy(item + n, b.as.list->item, b.as.list->n * sizeof *item);
    return v;
}

static jinja_value repeat(jinja_run *run, jinja_value a, int64_t times)
{
    bool text = a.kind == JINJA_STR;
    size_t n = text ? a.n : a.as.list->n, total;
    if (times < 0)
        times = 0;
    if (!base_mul(n, (size_t)times, &total) || total > JINJA_MAX_OUTPUT)
        return jinja_error(run, "a repetition of more than %zu million",
                           JINJA_MAX_OUTPUT >> 20);
    if (text) {
        char *s = jinja_extend(&run->arena, NULL, 0, total);
        if (!jinja_step(run, total) || !s)
            return jinja_error(run, "out of memory");
        for (size_t at = 0; n && at < total; at += n)
            memcpy(s + at, a.as.s, n);
        jinja_value v = jinja_str(s, total);
        v.safe = a.safe;
        return v;
    }
    jinja_value *item;
    jinja_value v = jinja_list_new(run, (jinja_kind)a.kind, total, &item);
    for (size_t at = 0; n && at < total && !jinja_failed(run); at += n)
        memcpy(item + at, a.as.list->item, n * sizeof *item);
    return v;
}

static bool is_sequence(jinja_value v)
{
    return v.kind == JINJA_STR || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE;
}

jinja_value jinja_binary(jinja_run *run, jinja_op op, jinja_value a,
                         jinja_value b)
{
    int64_t i, k;
    if (jinja_failed(run))
        return a;
    if (op == JINJA_MOD && a.kind == JINJA_STR)
        return jinja_percent(run, a, b);
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, a.kind == JINJA_UNDEFINED ? a : b);
    bool whole_a = jinja_as_int(a, &i), whole_b = jinja_as_int(b, &k);
    if (whole_a && whole_b)
        return int_op(run, op, i, k);
    if (jinja_is_number(a) && jinja_is_number(b))
        return float_op(run, op, jinja_as_float(a), jinja_as_float(b));
    if (op == JINJA_ADD && a.kind == JINJA_STR && b.kind == JINJA_STR)
        return join_strings(run, a, b);
    if (op == JINJA_ADD && a.kind == b.kind && is_sequence(a))
        return join_lists(run, a, b);
    if (op == JINJA_MUL && is_sequence(a) && whole_b)
        return repeat(run, a, k);
    if (op == JINJA_MUL && is_sequence(b) && whole_a)
        return repeat(run, b, i);
    return jinja_error(run, "unsupported operand types for %s: '%s' and '%s'",
                       symbols[op], jinja_type(a), jinja_type(b));
}

jinja_value jinja_negate(jinja_run *run, jinja_value v)
{
    int64_t i;
    if (jinja_as_int(v, &i))
        return i == INT64_MIN ? overflow(run) : jinja_int(-i);
    if (v.kind == JINJA_FLOAT)
        return jinja_float(-v.as.f);
    if (v.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, v);
    return jinja_error(run, "bad operand type for unary -: '%s'",
                       jinja_type(v));
}

bool jinja_compare(jinja_run *run, jinja_op op, jinja_value a, jinja_value b)
{
    switch (op) {
    case JINJA_EQ:
        return jinja_equal(run, a, b);
    case JINJA_NE:
        return !jinja_equal(run, a, b);
    case JINJA_IN:
        return jinja_contains(run, b, a);
    case JINJA_NOT_IN:
        return !jinja_contains(run, b, a);
    default:
        break;
    }
    int order = jinja_order(run, a, b); /* 2: a NaN, nothing holds */
    switch (op) {
    case JINJA_LT:
        return order == -1;
    case JINJA_LE:
        return order == -1 || order == 0;
    case JINJA_GT:
        return order == 1;
    default:
        return order == 1 || order == 0;
    }
}
