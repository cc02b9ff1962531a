/* jinja_list_filters.c - the filters on what can be iterated. Those that are
 * generators in jinja2 give an iterator here, too: it is true even when empty,
 * has no length, and runs once. Includes base only.
 * Source: jinja2 filters.py. */
#include "text/jinja_i.h"

#define FILTER(name)                                                           \
    static jinja_value name(jinja_run *run, jinja_value self,                  \
                            const jinja_value *arg, const jinja_call *call)
#define UNUSED (void)run, (void)self, (void)arg, (void)call

/* ---- attributes
 * ------------------------------------------------------------------ */

/* One part of "a.b.0": digits are an index. */
static jinja_value path_part(const char *s, size_t n)
{
    int64_t i = 0;
    size_t digits = 0;
    while (digits < n && digits < 9 && s[digits] >= '0' && s[digits] <= '9')
        i = i * 10 + (s[digits++] - '0');
    return n > 0 && digits == n ? jinja_int(i) : jinja_str(s, n);
}

/* item.a.b for attribute "a.b"; absent or none: the item. */
static jinja_value get_path(jinja_run *run, jinja_value item,
                            jinja_value attribute, jinja_value otherwise)
{
    bool replace =
        otherwise.kind != JINJA_MISSING && otherwise.kind != JINJA_NONE;
    if (attribute.kind == JINJA_MISSING || attribute.kind == JINJA_NONE)
        return item;
    if (attribute.kind != JINJA_STR) {
        item = jinja_get_item(run, item, attribute);
        return replace && item.kind == JINJA_UNDEFINED ? otherwise : item;
    }
    for (size_t at = 0; at <= attribute.n && !jinja_failed(run);) {
        const char *dot = attribute.n > at ? memchr(attribute.as.s + at, '.',
                                                    attribute.n - at)
                                           : NULL;
        size_t end = dot ? (size_t)(dot - attribute.as.s) : attribute.n;
        item =
            jinja_get_item(run, item, path_part(attribute.as.s + at, end - at));
        if (replace && item.kind == JINJA_UNDEFINED)
            item = otherwise;
        at = end + 1;
    }
    return item;
}

/* What sort and its like compare: text in lower case, unless sensitive. */
static jinja_value key_of(jinja_run *run, jinja_value v, jinja_value sensitive)
{
    if (v.kind != JINJA_STR || jinja_true(sensitive))
        return v;
    return jinja_change_case(run, v, JINJA_LOWER);
}

/* ---- map, select
 * --------------------------------------------------------------------- */

/* The call without its first `n` arguments, which name what to apply. */
static jinja_call rest_of(const jinja_call *call, size_t n)
{
    jinja_call rest = *call;
    rest.arg += n;
    rest.n -= n;
    return rest;
}

static const jinja_builtin *named(jinja_run *run, jinja_value name, bool filter)
{
    const jinja_builtin *b = NULL;
    if (name.kind == JINJA_STR)
        b = filter ? jinja_find_filter(name.as.s, name.n)
                   : jinja_find_test(name.as.s, name.n);
    if (!b && name.kind == JINJA_STR)
        jinja_error(run, "No %s named '%.*s'", filter ? "filter" : "test",
                    (int)name.n, name.as.s);
    else if (!b)
        jinja_error(run, "a %s's name must be a str",
                    filter ? "filter" : "test");
    return b;
}

static jinja_value map_attribute(jinja_run *run, jinja_list items,
                                 const jinja_call *call)
{
    jinja_value attribute = {0}, otherwise = {0}, *out;
    for (size_t i = 0; i < call->n_keywords; i++) {
        const jinja_keyword *k = &call->keyword[i];
        if (jinja_is_text(k->name, "attribute"))
            attribute = k->value;
        else if (jinja_is_text(k->name, "default"))
            otherwise = k->value;
        else
            return jinja_error(run,
                               "map got an unexpected keyword argument "
                               "'%.*s'",
                               (int)k->name.n, k->name.as.s);
    }
    if (attribute.kind == JINJA_MISSING)
        return jinja_error(run, "map requires a filter argument");
    jinja_value v = jinja_list_new(run, JINJA_LIST, items.n, &out);
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++)
        out[i] = get_path(run, items.item[i], attribute, otherwise);
    return v;
}

FILTER(map)
{
    UNUSED;
    jinja_list items = {0};
    jinja_value *out;
    if (jinja_true(self))
        items = jinja_items(run, self);
    if (items.n == 0) /* jinja2 does not look at the arguments, either */
        return jinja_list_new(run, JINJA_LIST, 0, &out);
    if (call->n == 0)
        return map_attribute(run, items, call);
    const jinja_builtin *filter = named(run, call->arg[0], true);
    jinja_call rest = rest_of(call, 1);
    jinja_value v = jinja_list_new(run, JINJA_LIST, items.n, &out);
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++)
        out[i] = jinja_call_builtin(run, filter, items.item[i], &rest);
    return v;
}

/* select, reject and with `attr` selectattr, rejectattr: keeps the items of
 * which the test (or their truth) is `want`. */
static jinja_value choose(jinja_run *run, jinja_value self,
                          const jinja_call *call, bool attr, bool want)
{
    jinja_list items = {0};
    size_t skip = attr, n = 0;
    const jinja_builtin *test = NULL;
    jinja_value *out;
    if (jinja_true(self))
        items = jinja_items(run, self);
    if (items.n == 0)
        return jinja_list_new(run, JINJA_LIST, 0, &out);
    if (attr && call->n == 0)
        return jinja_error(run, "Missing parameter for attribute name");
    if (call->n > skip)
        test = named(run, call->arg[skip++], false);
    jinja_call rest = rest_of(call, skip);
    jinja_value v = jinja_list_new(run, JINJA_LIST, items.n, &out);
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++) {
        jinja_value one = items.item[i];
        if (attr)
            one = get_path(run, one, call->arg[0], (jinja_value){0});
        if (test && !jinja_failed(run))
            one = jinja_call_builtin(run, test, one, &rest);
        if (jinja_true(one) == want)
            out[n++] = items.item[i];
    }
    jinja_list *shorter = jinja_take(&run->arena, 1, sizeof *shorter);
    if (!shorter || jinja_failed(run))
        return jinja_error(run, "out of memory");
    *shorter = (jinja_list){out, n};
    v.as.list = shorter;
    return v;
}

FILTER(select_items)
{
    UNUSED;
    return choose(run, self, call, false, true);
}

FILTER(reject)
{
    UNUSED;
    return choose(run, self, call, false, false);
}

FILTER(selectattr)
{
    UNUSED;
    return choose(run, self, call, true, true);
}

FILTER(rejectattr)
{
    UNUSED;
    return choose(run, self, call, true, false);
}

/* ---- order
 * ----------------------------------------------------------------------------
 */

typedef struct keyed {
    jinja_value key, value;
} keyed;

/* Stable merge of two sorted halves. `sign` -1: descending. */
static void merge(jinja_run *run, keyed *a, keyed *spare, size_t half, size_t n,
                  int sign)
{
    size_t i = 0, k = half;
    memcpy(spare, a, n * sizeof *a);
    for (size_t at = 0; at < n; at++) {
        bool right = i == half;
        if (i < half && k < n && jinja_step(run, 0))
            right = sign * jinja_order(run, spare[i].key, spare[k].key) > 0;
        a[at] = right ? spare[k++] : spare[i++];
    }
}

static void sort_keyed(jinja_run *run, keyed *a, keyed *spare, size_t n,
                       int sign)
{
    if (n < 2 || jinja_failed(run))
        return;
    sort_keyed(run, a, spare, n / 2, sign);
    sort_keyed(run, a + n / 2, spare, n - n / 2, sign);
    if (!jinja_failed(run))
        merge(run, a, spare, n / 2, n, sign);
}

static jinja_value sorted_list(jinja_run *run, keyed *a, size_t n, bool reverse)
{
    jinja_value *out, v = jinja_list_new(run, JINJA_LIST, n, &out);
    keyed *spare = jinja_take(&run->arena, n, sizeof *spare);
    if (!jinja_step(run, n) || !spare)
        return v;
    sort_keyed(run, a, spare, n, reverse ? -1 : 1);
    for (size_t i = 0; i < n; i++)
        out[i] = a[i].value;
    return v;
}

/* The keys of "a,b.c" as a list, as jinja2 compares them. */
static jinja_value multi_key(jinja_run *run, jinja_value item,
                             jinja_value attribute, jinja_value sensitive)
{
    size_t n = 1, at = 0, k = 0;
    for (size_t i = 0; attribute.kind == JINJA_STR && i < attribute.n; i++)
        n += attribute.as.s[i] == ',';
    jinja_value *out, v = jinja_list_new(run, JINJA_LIST, n, &out);
    for (; k < n && !jinja_failed(run); k++) {
        jinja_value one = attribute;
        if (attribute.kind == JINJA_STR) {
            size_t end = at;
            while (end < attribute.n && attribute.as.s[end] != ',')
                end++;
            one = jinja_part(attribute, at, end);
            at = end + 1;
        }
        out[k] =
            key_of(run, get_path(run, item, one, (jinja_value){0}), sensitive);
    }
    return v;
}

FILTER(sort)
{
    UNUSED;
    jinja_list items = jinja_items(run, self);
    keyed *a = jinja_take(&run->arena, items.n, sizeof *a);
    if (!jinja_step(run, items.n) || !a)
        return self;
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++)
        a[i] = (keyed){multi_key(run, items.item[i], arg[2], arg[1]),
                       items.item[i]};
    return jinja_failed(run) ? self
                             : sorted_list(run, a, items.n, jinja_true(arg[0]));
}

FILTER(dictsort)
{
    UNUSED;
    bool by_value = jinja_is_text(arg[1], "value");
    if (arg[1].kind != JINJA_MISSING && !by_value &&
        !jinja_is_text(arg[1], "key"))
        return jinja_error(run,
                           "You can only sort by either \"key\" or \"value\"");
    if (self.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, self);
    if (self.kind != JINJA_DICT)
        return jinja_error(run, "'%s' object has no attribute 'items'",
                           jinja_type(self));
    const jinja_dict *dict = self.as.dict;
    keyed *a = jinja_take(&run->arena, dict->n, sizeof *a);
    if (!jinja_step(run, dict->n) || !a)
        return self;
    for (size_t i = 0; i < dict->n && !jinja_failed(run); i++) {
        const jinja_entry *e = &dict->entry[i];
        a[i] = (keyed){key_of(run, by_value ? e->value : e->key, arg[0]),
                       jinja_tuple_of(run, e->key, e->value)};
    }
    return jinja_failed(run) ? self
                             : sorted_list(run, a, dict->n, jinja_true(arg[2]));
}

FILTER(unique)
{
    UNUSED;
    jinja_list items = jinja_items(run, self);
    jinja_value *out, v = jinja_list_new(run, JINJA_LIST, items.n, &out);
    jinja_value seen = jinja_dict_new(run, items.n);
    jinja_list *kept = jinja_take(&run->arena, 1, sizeof *kept);
    if (jinja_failed(run) || !kept)
        return self;
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++) {
        jinja_value key =
            key_of(run, get_path(run, items.item[i], arg[1], (jinja_value){0}),
                   arg[0]);
        size_t before = seen.as.dict->n;
        jinja_dict_set(run, seen.as.dict, key, jinja_none());
        if (seen.as.dict->n > before)
            out[kept->n++] = items.item[i];
    }
    kept->item = out;
    v.as.list = kept;
    return v;
}

static jinja_value extreme(jinja_run *run, jinja_value self,
                           const jinja_value *arg, int sign)
{
    jinja_list items = jinja_items(run, self);
    jinja_value best = {0}, best_key = {0};
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++) {
        jinja_value key =
            key_of(run, get_path(run, items.item[i], arg[1], (jinja_value){0}),
                   arg[0]);
        if (i && sign * jinja_order(run, key, best_key) <= 0)
            continue;
        best = items.item[i];
        best_key = key;
    }
    return items.n ? best
                   : jinja_undefined_hint(
                         run, "No aggregated item, sequence was empty.");
}

FILTER(minimum)
{
    UNUSED;
    return extreme(run, self, arg, -1);
}

FILTER(maximum)
{
    UNUSED;
    return extreme(run, self, arg, 1);
}

FILTER(sum)
{
    UNUSED;
    jinja_list items = jinja_items(run, self);
    jinja_value total = arg[1].kind == JINJA_MISSING ? jinja_int(0) : arg[1];
    if (total.kind == JINJA_STR)
        return jinja_error(run, "sum() can't sum strings");
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++)
        total = jinja_binary(
            run, JINJA_ADD, total,
            get_path(run, items.item[i], arg[0], (jinja_value){0}));
    return total;
}

/* ---- parts
 * ------------------------------------------------------------------------------
 */

FILTER(first)
{
    UNUSED;
    jinja_value v = {0};
    if (self.kind == JINJA_ITERATOR) {
        if (jinja_iterator_next(run, self.as.iterator, &v))
            return v;
    } else {
        jinja_list items = jinja_items(run, self);
        if (items.n)
            return items.item[0];
    }
    return jinja_undefined_hint(run, "No first item, sequence was empty.");
}

FILTER(last)
{
    UNUSED;
    if (self.kind == JINJA_ITERATOR)
        return jinja_error(run, "'%s' object is not reversible",
                           jinja_type(self));
    jinja_list items = jinja_items(run, self);
    if (items.n)
        return items.item[items.n - 1];
    return jinja_undefined_hint(run, "No last item, sequence was empty.");
}

FILTER(list)
{
    UNUSED;
    jinja_list items = jinja_items(run, self);
    jinja_value *out, v = jinja_list_new(run, JINJA_LIST, items.n, &out);
    if (!jinja_failed(run) && items.n)
        memcpy(out, items.item, items.n * sizeof *out);
    return v;
}

FILTER(join)
{
    UNUSED;
    base_str out = {0};
    jinja_list items = jinja_items(run, self);
    jinja_value by = arg[0].kind == JINJA_MISSING ? JINJA_LITERAL("") : arg[0];
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++) {
        if (i)
            jinja_put_str(run, by, &out);
        jinja_put_str(
            run, get_path(run, items.item[i], arg[1], (jinja_value){0}), &out);
        if (out.len > JINJA_MAX_OUTPUT)
            jinja_error(run, "a string of more than %zu MiB",
                        JINJA_MAX_OUTPUT >> 20);
    }
    return jinja_str_take(run, &out);
}

/* A str reversed is a str; of a list Python makes an iterator, of an iterator
 * a list. */
FILTER(reverse)
{
    UNUSED;
    static const jinja_value backward[3] = {{.kind = JINJA_NONE},
                                            {.kind = JINJA_NONE},
                                            {.kind = JINJA_INT, .as.i = -1}};
    if (self.kind == JINJA_STR)
        return jinja_slice(run, self, backward);
    jinja_value all = list(run, self, arg, call);
    if (jinja_failed(run))
        return all;
    all = jinja_slice(run, all, backward);
    if (self.kind == JINJA_ITERATOR || jinja_failed(run))
        return all;
    jinja_iterator *it = jinja_take(&run->arena, 1, sizeof *it);
    if (!it)
        return jinja_error(run, "out of memory");
    *it = (jinja_iterator){.type = "reversed", .items = *all.as.list};
    return (jinja_value){.kind = JINJA_ITERATOR, .as.iterator = it};
}

FILTER(items)
{
    UNUSED;
    jinja_view view = {.dict = self.as.dict, .what = JINJA_ITEMS};
    if (self.kind == JINJA_UNDEFINED)
        return list(run, self, arg, call);
    if (self.kind != JINJA_DICT)
        return jinja_error(run, "Can only get item pairs from a mapping.");
    return list(run, (jinja_value){.kind = JINJA_VIEW, .as.view = &view}, arg,
                call);
}

/* ---- batch, slice
 * ------------------------------------------------------------------------ */

/* A list of items [from, to) and `fill` more of `with`. */
static jinja_value chunk(jinja_run *run, jinja_list items, size_t from,
                         size_t to, size_t fill, jinja_value with)
{
    jinja_value *out;
    jinja_value v = jinja_list_new(run, JINJA_LIST, to - from + fill, &out);
    for (size_t i = 0; i < to - from + fill && !jinja_failed(run); i++)
        out[i] = from + i < to ? items.item[from + i] : with;
    return v;
}

static bool chunk_count(jinja_run *run, jinja_value v, size_t *n)
{
    int64_t i;
    if (!jinja_as_int(v, &i) || i < 1 || i > JINJA_MAX_RANGE) {
        jinja_error(run, "a count from 1 to %d is needed", JINJA_MAX_RANGE);
        return false;
    }
    *n = (size_t)i;
    return true;
}

static bool fills(jinja_value v)
{
    return v.kind != JINJA_MISSING && v.kind != JINJA_NONE;
}

FILTER(batch)
{
    UNUSED;
    jinja_list items = jinja_items(run, self);
    size_t size;
    if (!chunk_count(run, arg[0], &size))
        return self;
    size_t n = (items.n + size - 1) / size;
    jinja_value *out, v = jinja_list_new(run, JINJA_LIST, n, &out);
    for (size_t i = 0; i < n && !jinja_failed(run); i++) {
        size_t to = items.n - i * size < size ? items.n : (i + 1) * size;
        size_t fill = fills(arg[1]) ? (i + 1) * size - to : 0;
        out[i] = chunk(run, items, i * size, to, fill, arg[1]);
    }
    return v;
}

FILTER(slice)
{
    UNUSED;
    jinja_list items = jinja_items(run, self);
    size_t n, at = 0;
    if (!chunk_count(run, arg[0], &n))
        return self;
    jinja_value *out, v = jinja_list_new(run, JINJA_LIST, n, &out);
    for (size_t i = 0; i < n && !jinja_failed(run); i++) {
        size_t longer = i < items.n % n, size = items.n / n + longer;
        out[i] = chunk(run, items, at, at + size,
                       fills(arg[1]) && !longer ? 1 : 0, arg[1]);
        at += size;
    }
    return v;
}

const jinja_builtin jinja_list_filters[] = {
    {"items", items, "", 0, true},
    {"list", list, "", 0, false},
    {"selectattr", selectattr, NULL, 0, true},
    {"map", map, NULL, 0, true},
    {"join", join, "d,attribute", 0, false},
    {"dictsort", dictsort, "case_sensitive,by,reverse", 0, false},
    {"first", first, "", 0, false},
    {"last", last, "", 0, false},
    {"reject", reject, NULL, 0, true},
    {"rejectattr", rejectattr, NULL, 0, true},
    {"select", select_items, NULL, 0, true},
    {"reverse", reverse, "", 0, false},
    {"sort", sort, "reverse,case_sensitive,attribute", 0, false},
    {"unique", unique, "case_sensitive,attribute", 0, true},
    {"min", minimum, "case_sensitive,attribute", 0, false},
    {"max", maximum, "case_sensitive,attribute", 0, false},
    {"sum", sum, "attribute,start", 0, false},
    {"batch", batch, "linecount,fill_with", 1, true},
    {"slice", slice, "slices,fill_with", 1, true},
};
const size_t jinja_list_filters_count =
    sizeof jinja_list_filters / sizeof *jinja_list_filters;
