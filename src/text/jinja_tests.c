/* jinja_tests.c - the tests ("is defined") and global functions, and how
 * filters, tests and globals are found by name. Includes base only.
 * Source: jinja2 tests.py, defaults.py; transformers' globals. */
#include "text/jinja_i.h"

#define TEST(name)                                                             \
    static jinja_value name(jinja_run *run, jinja_value self,                  \
                            const jinja_value *arg, const jinja_call *call)
#define UNUSED (void)run, (void)self, (void)arg, (void)call

/* ---- kinds
 * ------------------------------------------------------------------- */

#define KIND_TEST(name, condition)                                             \
    TEST(name)                                                                 \
    {                                                                          \
        UNUSED;                                                                \
        return jinja_bool(condition);                                          \
    }

KIND_TEST(is_defined, self.kind != JINJA_UNDEFINED)
KIND_TEST(is_undefined, self.kind == JINJA_UNDEFINED)
KIND_TEST(is_none, self.kind == JINJA_NONE)
KIND_TEST(is_boolean, self.kind == JINJA_BOOL)
KIND_TEST(is_true, self.kind == JINJA_BOOL && self.as.b)
KIND_TEST(is_false, self.kind == JINJA_BOOL && !self.as.b)
KIND_TEST(is_integer, self.kind == JINJA_INT)
KIND_TEST(is_float, self.kind == JINJA_FLOAT)
KIND_TEST(is_number, jinja_is_number(self))
KIND_TEST(is_string, self.kind == JINJA_STR)
KIND_TEST(is_mapping, self.kind == JINJA_DICT)
KIND_TEST(is_iterable, jinja_iterable(self) || self.kind == JINJA_LOOP)
KIND_TEST(is_callable, jinja_is_callable(self))
KIND_TEST(is_escaped, self.kind == JINJA_STR && self.safe)

/* What has a length and items by key. */
TEST(is_sequence)
{
    UNUSED;
    size_t n;
    return jinja_bool(jinja_length(self, &n) && self.kind != JINJA_VIEW);
}

/* ---- values
 * -------------------------------------------------------------------- */

TEST(is_in)
{
    UNUSED;
    return jinja_bool(jinja_contains(run, arg[0], self));
}

#define COMPARE_TEST(name, op)                                                 \
    TEST(name)                                                                 \
    {                                                                          \
        UNUSED;                                                                \
        return jinja_bool(jinja_compare(run, op, self, arg[0]));               \
    }

COMPARE_TEST(is_eq, JINJA_EQ)
COMPARE_TEST(is_ne, JINJA_NE)
COMPARE_TEST(is_lt, JINJA_LT)
COMPARE_TEST(is_le, JINJA_LE)
COMPARE_TEST(is_gt, JINJA_GT)
COMPARE_TEST(is_ge, JINJA_GE)

static jinja_value has_rest(jinja_run *run, jinja_value a, jinja_value b,
                            int64_t rest)
{
    jinja_value r = jinja_binary(run, JINJA_MOD, a, b);
    return jinja_bool(!jinja_failed(run) &&
                      jinja_equal(run, r, jinja_int(rest)));
}

TEST(is_odd)
{
    UNUSED;
    return has_rest(run, self, jinja_int(2), 1);
}

TEST(is_even)
{
    UNUSED;
    return has_rest(run, self, jinja_int(2), 0);
}

TEST(is_divisible)
{
    UNUSED;
    return has_rest(run, self, arg[0], 0);
}

/* Python's `is`: numbers and texts of equal value count as one object. */
TEST(is_same)
{
    UNUSED;
    bool by_value = self.kind <= JINJA_STR;
    return jinja_bool(
        self.kind == arg[0].kind &&
        (by_value ? jinja_equal(run, self, arg[0]) : self.as.s == arg[0].as.s));
}

static jinja_value is_case(jinja_run *run, jinja_value v, const char *method)
{
    jinja_value s = jinja_to_str(run, v);
    jinja_call none = {0};
    const jinja_builtin *b = jinja_find_method(s, method, strlen(method));
    return jinja_failed(run) ? s : jinja_call_builtin(run, b, s, &none);
}

TEST(is_lower)
{
    UNUSED;
    return is_case(run, self, "islower");
}

TEST(is_upper)
{
    UNUSED;
    return is_case(run, self, "isupper");
}

/* Python looks the value up in a dict of names. */
static bool may_be_name(jinja_run *run, jinja_value v)
{
    if (!jinja_hashable(v))
        jinja_error(run, "unhashable type: '%s'", jinja_type(v));
    return !jinja_failed(run);
}

TEST(is_filter)
{
    UNUSED;
    if (!may_be_name(run, self))
        return self;
    return jinja_bool(self.kind == JINJA_STR &&
                      jinja_find_filter(self.as.s, self.n));
}

TEST(is_test)
{
    UNUSED;
    if (!may_be_name(run, self))
        return self;
    return jinja_bool(self.kind == JINJA_STR &&
                      jinja_find_test(self.as.s, self.n));
}

static const jinja_builtin tests[] = {
    {"defined", is_defined, "", 0, false},
    {"string", is_string, "", 0, false},
    {"mapping", is_mapping, "", 0, false},
    {"iterable", is_iterable, "", 0, false},
    {"none", is_none, "", 0, false},
    {"sequence", is_sequence, "", 0, false},
    {"undefined", is_undefined, "", 0, false},
    {"true", is_true, "", 0, false},
    {"false", is_false, "", 0, false},
    {"boolean", is_boolean, "", 0, false},
    {"integer", is_integer, "", 0, false},
    {"float", is_float, "", 0, false},
    {"number", is_number, "", 0, false},
    {"callable", is_callable, "", 0, false},
    {"escaped", is_escaped, "", 0, false},
    {"in", is_in, "seq", 1, false},
    {"equalto", is_eq, "b", 1, false},
    {"eq", is_eq, "b", 1, false},
    {"==", is_eq, "b", 1, false},
    {"ne", is_ne, "b", 1, false},
    {"!=", is_ne, "b", 1, false},
    {"lt", is_lt, "b", 1, false},
    {"lessthan", is_lt, "b", 1, false},
    {"<", is_lt, "b", 1, false},
    {"le", is_le, "b", 1, false},
    {"<=", is_le, "b", 1, false},
    {"gt", is_gt, "b", 1, false},
    {"greaterthan", is_gt, "b", 1, false},
    {">", is_gt, "b", 1, false},
    {"ge", is_ge, "b", 1, false},
    {">=", is_ge, "b", 1, false},
    {"odd", is_odd, "", 0, false},
    {"even", is_even, "", 0, false},
    {"divisibleby", is_divisible, "num", 1, false},
    {"sameas", is_same, "other", 1, false},
    {"lower", is_lower, "", 0, false},
    {"upper", is_upper, "", 0, false},
    {"filter", is_filter, "", 0, false},
    {"test", is_test, "", 0, false},
};

/* ---- globals
 * ------------------------------------------------------------------------ */

TEST(raise_exception)
{
    UNUSED;
    jinja_value s = jinja_to_str(run, arg[0]);
    if (jinja_failed(run))
        return s;
    return jinja_error(run, "the template refuses: %.*s", (int)s.n, s.as.s);
}

TEST(strftime_now)
{
    UNUSED;
    return jinja_strftime(run, arg[0]);
}

TEST(range)
{
    UNUSED;
    int64_t bound[3] = {0, 0, 1};
    jinja_range *r = jinja_take(&run->arena, 1, sizeof *r);
    if (call->n < 1 || call->n > 3 || call->n_keywords || !r)
        return jinja_error(run, "range takes 1 to 3 integers");
    for (size_t i = 0; i < call->n; i++)
        if (!jinja_as_int(call->arg[i], &bound[call->n == 1 ? 1 : i]))
            return jinja_error(run,
                               "'%s' object cannot be interpreted as an "
                               "integer",
                               jinja_type(call->arg[i]));
    if (bound[2] == 0)
        return jinja_error(run, "range() arg 3 must not be zero");
    *r = (jinja_range){.start = bound[0], .stop = bound[1], .step = bound[2]};
    bool up = r->step > 0, any = up ? r->start < r->stop : r->start > r->stop;
    uint64_t lo = (uint64_t)(up ? r->start : r->stop);
    uint64_t hi = (uint64_t)(up ? r->stop : r->start);
    uint64_t step = up ? (uint64_t)r->step : (uint64_t)0 - (uint64_t)r->step;
    if (any && (hi - lo - 1) / step >= JINJA_MAX_RANGE)
        return jinja_error(run,
                           "Range too big. The sandbox blocks ranges "
                           "larger than %d",
                           JINJA_MAX_RANGE);
    r->n = any ? (size_t)((hi - lo - 1) / step + 1) : 0;
    return (jinja_value){.kind = JINJA_RANGE, .as.range = r};
}

static void add_pairs(jinja_run *run, jinja_dict *dict, jinja_value from)
{
    if (from.kind == JINJA_DICT) {
        for (size_t i = 0; i < from.as.dict->n && !jinja_failed(run); i++)
            jinja_dict_set(run, dict, from.as.dict->entry[i].key,
                           from.as.dict->entry[i].value);
        return;
    }
    jinja_list items = jinja_items(run, from);
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++) {
        jinja_list pair = jinja_items(run, items.item[i]);
        if (!jinja_failed(run) && pair.n == 2)
            jinja_dict_set(run, dict, pair.item[0], pair.item[1]);
        else
            jinja_error(run, "dict: element %zu is no pair", i);
    }
}

/* dict(pairs or mapping, name=value, ...). */
TEST(dict)
{
    UNUSED;
    jinja_value v = jinja_dict_new(run, call->n_keywords);
    if (call->n > 1)
        return jinja_error(run, "dict expected at most 1 argument, got %zu",
                           call->n);
    if (call->n && !jinja_failed(run))
        add_pairs(run, v.as.dict, call->arg[0]);
    for (size_t i = 0; i < call->n_keywords && !jinja_failed(run); i++)
        jinja_dict_set(run, v.as.dict, call->keyword[i].name,
                       call->keyword[i].value);
    return v;
}

TEST(namespace)
{
    jinja_value v = dict(run, self, arg, call);
    if (jinja_failed(run))
        return v;
    for (size_t i = 0; i < v.as.dict->n; i++)
        jinja_check_attribute(run, v.as.dict->entry[i].key);
    v.kind = JINJA_NAMESPACE;
    return v;
}

TEST(cycler)
{
    UNUSED;
    jinja_cycler *c = jinja_take(&run->arena, 1, sizeof *c);
    if (call->n == 0 || call->n_keywords || !c)
        return jinja_error(run, "at least one item has to be provided");
    c->items = (jinja_list){call->arg, call->n};
    return (jinja_value){.kind = JINJA_CYCLER, .as.cycler = c};
}

TEST(joiner)
{
    UNUSED;
    jinja_joiner *j = jinja_take(&run->arena, 1, sizeof *j);
    if (!j)
        return jinja_error(run, "out of memory");
    j->separator = arg[0].kind == JINJA_MISSING ? JINJA_LITERAL(", ") : arg[0];
    return (jinja_value){.kind = JINJA_JOINER, .as.joiner = j};
}

static const jinja_builtin globals[] = {
    {"raise_exception", raise_exception, "message", 1, false},
    {"strftime_now", strftime_now, "format", 1, false},
    {"range", range, NULL, 0, false},
    {"namespace", namespace, NULL, 0, false},
    {"dict", dict, NULL, 0, false},
    {"cycler", cycler, NULL, 0, false},
    {"joiner", joiner, "sep", 0, false},
};

void jinja_check_attribute(jinja_run *run, jinja_value name)
{
    if (name.kind == JINJA_STR && name.n && name.as.s[0] == '_')
        jinja_error(run,
                    "a namespace cannot have the attribute '%.*s': its "
                    "name begins with an underscore",
                    (int)name.n, name.as.s);
}

/* ---- by name
 * ------------------------------------------------------------------------- */

const jinja_builtin *jinja_find_in(const jinja_builtin *table, size_t count,
                                   const char *name, size_t n)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
            return &table[i];
    return NULL;
}

const jinja_builtin *jinja_find_filter(const char *name, size_t n)
{
    const jinja_builtin *b =
        jinja_find_in(jinja_filters, jinja_filters_count, name, n);
    return b ? b
             : jinja_find_in(jinja_list_filters, jinja_list_filters_count, name,
                             n);
}

const jinja_builtin *jinja_find_test(const char *name, size_t n)
{
    return jinja_find_in(tests, sizeof tests / sizeof *tests, name, n);
}

const jinja_builtin *jinja_find_global(const char *name, size_t n)
{
    return jinja_find_in(globals, sizeof globals / sizeof *globals, name, n);
}
