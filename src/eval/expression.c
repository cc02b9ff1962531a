/* expression.c - integer expressions that a model wrote, judged by their
 * values:
 * + - * // % with Python's meaning, max, min, parentheses, variables. Starts no
 * process and runs in a bounded number of steps: every character is read once,
 * nesting is at most DEPTH_MAX. What it does not know, what overflows and what
 * divides by zero has no value. Includes eval_i.h. */
#include <stdlib.h>

#include "eval/eval_i.h"

#define DEPTH_MAX  64
#define LENGTH_MAX 4096
#define VARS_MAX   26 /* one letter each */

typedef struct reader {
    const char *s;
    const int64_t *value; /* of 'a' + i */
    uint32_t known;       /* bit i: variable 'a' + i has a value */
    int depth;
    bool bad;
} reader;

static int64_t sum(reader *r);

static int64_t fail(reader *r)
{
    r->bad = true;
    return 0;
}

static void skip(reader *r)
{
    while (*r->s == ' ' || *r->s == '\t')
        r->s++;
}

/* Goes behind `text` when it comes next. */
static bool take(reader *r, const char *text)
{
    skip(r);
    size_t n = strlen(text);
    if (strncmp(r->s, text, n) != 0)
        return false;
    r->s += n;
    return true;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (c >= '0' && c <= '9');
}

static int64_t number(reader *r)
{
    int64_t v = 0;
    for (; *r->s >= '0' && *r->s <= '9'; r->s++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, *r->s - '0', &v))
            return fail(r);
    return is_word(*r->s) ? fail(r) : v;
}

/* The rest of "max(a, b, ...)" behind its name. */
static int64_t extreme(reader *r, bool largest)
{
    if (!take(r, "("))
        return fail(r);
    int64_t best = sum(r);
    int n = 1;
    for (; !r->bad && take(r, ","); n++) {
        int64_t v = sum(r);
        if (largest ? v > best : v < best)
            best = v;
    }
    return n < 2 || !take(r, ")") ? fail(r) : best;
}

static int64_t name(reader *r)
{
    const char *from = r->s;
    while (is_word(*r->s))
        r->s++;
    size_t n = (size_t)(r->s - from);
    if (n == 3 && !strncmp(from, "max", 3))
        return extreme(r, true);
    if (n == 3 && !strncmp(from, "min", 3))
        return extreme(r, false);
    if (n != 1 || *from < 'a' || *from > 'z' ||
        !(r->known >> (*from - 'a') & 1))
        return fail(r);
    return r->value[*from - 'a'];
}

/* A number, a name, a call, parentheses, or one of them negated. */
static int64_t atom(reader *r)
{
    int64_t v = 0;
    if (r->bad || r->depth == DEPTH_MAX)
        return fail(r);
    r->depth++;
    if (take(r, "-")) {
        if (__builtin_sub_overflow(0, atom(r), &v))
            fail(r);
    } else if (take(r, "(")) {
        v = sum(r);
        if (!take(r, ")"))
            fail(r);
    } else
        v = *r->s >= '0' && *r->s <= '9' ? number(r) : name(r);
    r->depth--;
    return v;
}

/* Floor division and its remainder, which has the sign of y. */
static int64_t divide(reader *r, int64_t x, int64_t y, bool rest)
{
    if (y == 0 || (x == INT64_MIN && y == -1))
        return fail(r);
    int64_t q = x / y, m = x % y;
    if (m != 0 && (m < 0) != (y < 0)) {
        q--;
        m += y;
    }
    return rest ? m : q;
}

static int64_t product(reader *r)
{
    int64_t v = atom(r);
    while (!r->bad) {
        if (take(r, "//"))
            v = divide(r, v, atom(r), false);
        else if (take(r, "%"))
            v = divide(r, v, atom(r), true);
        else if (!take(r, "*"))
            break;
        else if (__builtin_mul_overflow(v, atom(r), &v))
            return fail(r);
    }
    return v;
}

static int64_t sum(reader *r)
{
    int64_t v = product(r);
    while (!r->bad) {
        if (take(r, "+")) {
            if (__builtin_add_overflow(v, product(r), &v))
                return fail(r);
        } else if (!take(r, "-"))
            break;
        else if (__builtin_sub_overflow(v, product(r), &v))
            return fail(r);
    }
    return v;
}

/* ---- tests -------------------------------------------------------------- */

typedef struct test {
    int64_t value[VARS_MAX], result;
    uint32_t known;
} test;

static bool read_integer(const char **s, int64_t *out)
{
    char *end;
    *s += strspn(*s, " ");
    *out = strtoll(*s, &end, 10);
    bool fine = end != *s && end - *s < 19; /* no overflow */
    *s = end;
    return fine;
}

/* "x=3 y=-5: 8" at *s, which moves behind it and a ';'. */
static bool next_test(const char **s, test *out)
{
    *out = (test){0};
    const char *at = *s + strspn(*s, " ");
    for (; *at >= 'a' && *at <= 'z' && at[1] == '='; at += strspn(at, " ")) {
        int k = *at - 'a';
        at += 2;
        if (!read_integer(&at, &out->value[k]))
            return false;
        out->known |= UINT32_C(1) << k;
    }
    if (*at++ != ':' || !read_integer(&at, &out->result))
        return false;
    at += strspn(at, " ");
    if (*at && *at != ';')
        return false;
    *s = at + (*at == ';');
    return true;
}

bool expression_tests_good(const char *tests)
{
    test one;
    bool any = false;
    while (*tests) {
        if (!next_test(&tests, &one))
            return false;
        any = true;
    }
    return any;
}

bool expression_passes(const char *expression, const char *tests)
{
    test one;
    bool any = false;
    if (strlen(expression) > LENGTH_MAX)
        return false;
    while (*tests) {
        if (!next_test(&tests, &one))
            return false;
        reader r = {.s = expression, .value = one.value, .known = one.known};
        int64_t v = sum(&r);
        skip(&r);
        if (r.bad || *r.s || v != one.result)
            return false;
        any = true;
    }
    return any;
}
