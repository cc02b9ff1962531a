/* jinja_value.c - the values of a run: making them, Python's truth, equality,
 * order and membership, and the items of what can be iterated.
 * Includes base, jansson. */
#include <math.h>

#include "text/jinja_i.h"

/* ---- making
 * --------------------------------------------------------------------- */

jinja_value jinja_str_take(jinja_run *run, base_str *text)
{
    char *copy = jinja_extend(&run->arena, NULL, 0, text->len);
    jinja_value v = jinja_str("", 0);
    if (text->failed)
        run->arena.failed = true;
    else if (copy && text->len)
        v = jinja_str(memcpy(copy, text->s, text->len), text->len);
    base_str_free(text);
    jinja_step(run, v.n);
    return v;
}

jinja_value jinja_list_new(jinja_run *run, jinja_kind kind, size_t n,
                           jinja_value **items)
{
    jinja_list *list = jinja_take(&run->arena, 1, sizeof *list);
    *items = jinja_take(&run->arena, n, sizeof **items);
    jinja_step(run, n * sizeof **items);
    if (jinja_failed(run) || !list || !*items)
        return jinja_error(run, "out of memory");
    *list = (jinja_list){*items, n};
    return (jinja_value){.kind = (uint8_t)kind, .as.list = list};
}

jinja_value jinja_tuple_of(jinja_run *run, jinja_value a, jinja_value b)
{
    jinja_value *item, tuple = jinja_list_new(run, JINJA_TUPLE, 2, &item);
    if (!jinja_failed(run)) {
        item[0] = a;
        item[1] = b;
    }
    return tuple;
}

jinja_value jinja_dict_new(jinja_run *run, size_t cap)
{
    jinja_dict *dict = jinja_take(&run->arena, 1, sizeof *dict);
    jinja_entry *entry = jinja_take(&run->arena, cap, sizeof *entry);
    if (!jinja_step(run, cap * sizeof *entry) || !dict || !entry)
        return jinja_error(run, "out of memory");
    *dict = (jinja_dict){.entry = entry, .cap = cap};
    return (jinja_value){.kind = JINJA_DICT, .as.dict = dict};
}

const jinja_value *jinja_dict_find(jinja_run *run, const jinja_dict *dict,
                                   jinja_value key)
{
    jinja_step(run, dict->n);
    for (size_t i = 0; i < dict->n && !jinja_failed(run); i++) {
        jinja_value have = dict->entry[i].key;
        bool same = key.kind == JINJA_STR
                        ? have.kind == JINJA_STR &&
                              jinja_same_text(have, key.as.s, key.n)
                        : jinja_equal(run, have, key);
        if (same)
            return &dict->entry[i].value;
    }
    return NULL;
}

static void dict_append(jinja_run *run, jinja_dict *dict, jinja_value key,
                        jinja_value value)
{
    if (dict->n == dict->cap) {
        size_t cap = dict->cap ? 2 * dict->cap : 4;
        jinja_entry *entry = jinja_take(&run->arena, cap, sizeof *entry);
        if (!jinja_step(run, cap) || !entry)
            return;
        if (dict->n)
            memcpy(entry, dict->entry, dict->n * sizeof *entry);
        dict->entry = entry;
        dict->cap = cap;
    }
    dict->entry[dict->n++] = (jinja_entry){key, value};
}

void jinja_dict_set(jinja_run *run, jinja_dict *dict, jinja_value key,
                    jinja_value value)
{
    if (!jinja_hashable(key)) {
        jinja_error(run, "unhashable type: '%s'", jinja_type(key));
        return;
    }
    const jinja_value *old = jinja_dict_find(run, dict, key);
    if (old)
        dict->entry[(const jinja_entry *)((const char *)old -
                                          offsetof(jinja_entry, value)) -
                    dict->entry]
            .value = value;
    else
        dict_append(run, dict, key, value);
}

jinja_value jinja_range_item(const jinja_range *range, size_t i)
{
    return jinja_int(range->start + (int64_t)i * range->step);
}

static jinja_value object_from_json(jinja_run *run, json_t *json)
{
    jinja_value v = jinja_dict_new(run, json_object_size(json));
    for (void *it = json_object_iter(json); it && !jinja_failed(run);
         it = json_object_iter_next(json, it)) {
        jinja_value key =
            jinja_str(json_object_iter_key(it), json_object_iter_key_len(it));
        dict_append(run, v.as.dict, key,
                    jinja_from_json(run, json_object_iter_value(it)));
    }
    return v;
}

jinja_value jinja_from_json(jinja_run *run, json_t *json)
{
    jinja_value v = jinja_none(), *item;
    if (!jinja_step(run, 0) || !jinja_enter(run))
        return v;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        v = object_from_json(run, json);
        break;
    case JSON_ARRAY:
        v = jinja_list_new(run, JINJA_LIST, json_array_size(json), &item);
        for (size_t i = 0; i < json_array_size(json) && !jinja_failed(run); i++)
            item[i] = jinja_from_json(run, json_array_get(json, i));
        break;
    case JSON_STRING:
        v = jinja_str(json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
        v = jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = jinja_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jinja_bool(json_is_true(json));
        break;
    case JSON_NULL:
        break;
    }
    jinja_leave(run);
    return v;
}

/* ---- undefined
 * -------------------------------------------------------------------- */

static jinja_value undefined(jinja_run *run, jinja_absent absent)
{
    jinja_absent *copy = jinja_take(&run->arena, 1, sizeof *copy);
    if (copy)
        *copy = absent;
    return (jinja_value){.kind = JINJA_UNDEFINED, .as.absent = copy};
}

jinja_value jinja_undefined_name(jinja_run *run, jinja_value name)
{
    return undefined(run, (jinja_absent){.name = name});
}

jinja_value jinja_undefined_in(jinja_run *run, jinja_value owner,
                               jinja_value name)
{
    return undefined(run, (jinja_absent){.owner = owner, .name = name});
}

jinja_value jinja_undefined_hint(jinja_run *run, const char *hint)
{
    return undefined(run, (jinja_absent){.hint = hint});
}

jinja_value jinja_undefined_unsafe(jinja_run *run, jinja_value owner,
                                   jinja_value name)
{
    return undefined(
        run, (jinja_absent){.owner = owner, .name = name, .unsafe = true});
}

jinja_value jinja_use_undefined(jinja_run *run, jinja_value v)
{
    const jinja_absent *absent = v.as.absent;
    base_str name = {0};
    if (!absent || jinja_failed(run))
        return jinja_error(run, "an undefined value is used");
    if (absent->hint)
        return jinja_error(run, "%s", absent->hint);
    jinja_put_repr(run, absent->name, &name);
    base_str_puts(&name, "");
    const char *text = name.s ? name.s : "?";
    if (absent->unsafe)
        jinja_error(run, "access to attribute %s of '%s' object is unsafe",
                    text, jinja_type(absent->owner));
    else if (absent->owner.kind == JINJA_MISSING)
        jinja_error(run, "%s is undefined", text);
    else if (absent->owner.kind == JINJA_NONE)
        jinja_error(run, "None has no attribute %s", text);
    else
        jinja_error(run, "'%s object' has no %s %s", jinja_type(absent->owner),
                    absent->name.kind == JINJA_STR ? "attribute" : "element",
                    text);
    base_str_free(&name);
    return v;
}

/* ---- looking
 * ------------------------------------------------------------------------ */

const char *jinja_type(jinja_value v)
{
    static const char *const names[] = {
        [JINJA_MISSING] = "nothing",   [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",     [JINJA_BOOL] = "bool",
        [JINJA_INT] = "int",           [JINJA_FLOAT] = "float",
        [JINJA_STR] = "str",           [JINJA_LIST] = "list",
        [JINJA_TUPLE] = "tuple",       [JINJA_DICT] = "dict",
        [JINJA_RANGE] = "range",       [JINJA_NAMESPACE] = "namespace",
        [JINJA_LOOP] = "LoopContext",  [JINJA_MACRO] = "Macro",
        [JINJA_FUNCTION] = "function", [JINJA_METHOD] = "method",
        [JINJA_CYCLER] = "Cycler",     [JINJA_JOINER] = "Joiner"};
    static const char *const views[] = {"dict_keys", "dict_values",
                                        "dict_items"};
    if (v.kind == JINJA_STR && v.safe)
        return "Markup";
    if (v.kind == JINJA_VIEW)
        return views[v.as.view->what];
    return v.kind == JINJA_ITERATOR ? v.as.iterator->type : names[v.kind];
}

bool jinja_true(jinja_value v)
{
    size_t n;
    switch (v.kind) {
    case JINJA_BOOL:
        return v.as.b;
    case JINJA_INT:
        return v.as.i != 0;
    case JINJA_FLOAT:
        return v.as.f != 0;
    case JINJA_STR:
        return v.n > 0;
    case JINJA_NONE:
    case JINJA_UNDEFINED:
    case JINJA_MISSING:
        return false;
    default:
        return !jinja_length(v, &n) || n > 0;
    }
}

bool jinja_same_text(jinja_value a, const char *s, size_t n)
{
    return a.n == n && (n == 0 || memcmp(a.as.s, s, n) == 0);
}

bool jinja_is_text(jinja_value v, const char *z)
{
    return v.kind == JINJA_STR && jinja_same_text(v, z, strlen(z));
}

bool jinja_hashable(jinja_value v)
{
    for (size_t i = 0; v.kind == JINJA_TUPLE && i < v.as.list->n; i++)
        if (!jinja_hashable(v.as.list->item[i]))
            return false;
    return v.kind != JINJA_LIST && v.kind != JINJA_DICT && v.kind != JINJA_VIEW;
}

bool jinja_is_callable(jinja_value v)
{
    return v.kind == JINJA_MACRO || v.kind == JINJA_FUNCTION ||
           v.kind == JINJA_METHOD || v.kind == JINJA_LOOP ||
           v.kind == JINJA_JOINER || v.kind == JINJA_UNDEFINED;
}

bool jinja_is_number(jinja_value v)
{
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT || v.kind == JINJA_FLOAT;
}

bool jinja_as_int(jinja_value v, int64_t *i)
{
    *i = v.kind == JINJA_BOOL ? v.as.b : v.as.i;
    return v.kind == JINJA_BOOL || v.kind == JINJA_INT;
}

double jinja_as_float(jinja_value v)
{
    if (v.kind == JINJA_FLOAT)
        return v.as.f;
    return v.kind == JINJA_BOOL ? (double)v.as.b : (double)v.as.i;
}

/* ---- equality and order
 * ---------------------------------------------------------------- */

/* Sign of a - b, exact: 2^53 and 2^53 + 1 as a float differ. 2: unordered. */
static int order_mixed(int64_t i, double f)
{
    if (isnan(f))
        return 2;
    if (f >= 9223372036854775808.0)
        return -1;
    if (f < -9223372036854775808.0)
        return 1;
    int64_t whole = (int64_t)f;
    if (i != whole)
        return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static int order_numbers(jinja_value a, jinja_value b)
{
    int64_t i, k;
    bool whole_a = jinja_as_int(a, &i), whole_b = jinja_as_int(b, &k);
    if (whole_a && whole_b)
        return i < k ? -1 : i > k;
    if (whole_a)
        return order_mixed(i, b.as.f);
    if (whole_b) {
        int order = order_mixed(k, a.as.f);
        return order == 2 ? 2 : -order;
    }
    if (isnan(a.as.f) || isnan(b.as.f))
        return 2;
    return a.as.f < b.as.f ? -1 : a.as.f > b.as.f;
}

static int order_text(jinja_value a, jinja_value b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.as.s, b.as.s, n) : 0;
    if (order == 0)
        return a.n < b.n ? -1 : a.n > b.n;
    return order < 0 ? -1 : 1;
}

static bool equal_lists(jinja_run *run, const jinja_list *a,
                        const jinja_list *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n && !jinja_failed(run); i++)
        if (!jinja_equal(run, a->item[i], b->item[i]))
            return false;
    return true;
}

static bool equal_dicts(jinja_run *run, const jinja_dict *a,
                        const jinja_dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n && !jinja_failed(run); i++) {
        const jinja_value *other = jinja_dict_find(run, b, a->entry[i].key);
        if (!other || !jinja_equal(run, a->entry[i].value, *other))
            return false;
    }
    return true;
}

static bool equal_ranges(const jinja_range *a, const jinja_range *b)
{
    return a->n == b->n && (a->n == 0 || a->start == b->start) &&
           (a->n < 2 || a->step == b->step);
}

static bool equal_kinds(jinja_run *run, jinja_value a, jinja_value b)
{
    switch (a.kind) {
    case JINJA_NONE:
    case JINJA_UNDEFINED:
        return true;
    case JINJA_STR:
        return jinja_same_text(a, b.as.s, b.n);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return equal_lists(run, a.as.list, b.as.list);
    case JINJA_DICT:
        return equal_dicts(run, a.as.dict, b.as.dict);
    case JINJA_RANGE:
        return equal_ranges(a.as.range, b.as.range);
    case JINJA_METHOD:
        return a.as.method->builtin == b.as.method->builtin &&
               a.as.method->self.as.s == b.as.method->self.as.s;
    default: /* objects: identity */
        return a.as.s == b.as.s;
    }
}

bool jinja_equal(jinja_run *run, jinja_value a, jinja_value b)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return order_numbers(a, b) == 0;
    if (a.kind != b.kind || !jinja_step(run, a.kind == JINJA_STR ? a.n : 0) ||
        !jinja_enter(run))
        return false;
    bool equal = equal_kinds(run, a, b);
    jinja_leave(run);
    return equal;
}

static int order_lists(jinja_run *run, const jinja_list *a, const jinja_list *b)
{
    for (size_t i = 0; i < a->n && i < b->n && !jinja_failed(run); i++)
        if (!jinja_equal(run, a->item[i], b->item[i]))
            return jinja_order(run, a->item[i], b->item[i]);
    return a->n < b->n ? -1 : a->n > b->n;
}

int jinja_order(jinja_run *run, jinja_value a, jinja_value b)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return order_numbers(a, b);
    if (a.kind == JINJA_STR && b.kind == JINJA_STR) {
        jinja_step(run, a.n < b.n ? a.n : b.n);
        return order_text(a, b);
    }
    if ((a.kind == JINJA_LIST || a.kind == JINJA_TUPLE) && a.kind == b.kind) {
        if (!jinja_enter(run))
            return 0;
        int order = order_lists(run, a.as.list, b.as.list);
        jinja_leave(run);
        return order;
    }
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        jinja_use_undefined(run, a.kind == JINJA_UNDEFINED ? a : b);
    jinja_error(run, "no order between '%s' and '%s'", jinja_type(a),
                jinja_type(b));
    return 0;
}

bool jinja_contains(jinja_run *run, jinja_value all, jinja_value one)
{
    if (all.kind == JINJA_STR) {
        if (one.kind != JINJA_STR) {
            jinja_error(run,
                        "'in <string>' requires string as left operand, not %s",
                        jinja_type(one));
            return false;
        }
        jinja_step(run, all.n);
        return jinja_find(all, one, 0) != SIZE_MAX;
    }
    if (all.kind == JINJA_DICT ||
        (all.kind == JINJA_VIEW && all.as.view->what == JINJA_KEYS)) {
        if (!jinja_hashable(one))
            jinja_error(run, "unhashable type: '%s'", jinja_type(one));
        return jinja_dict_find(run,
                               all.kind == JINJA_DICT ? all.as.dict
                                                      : all.as.view->dict,
                               one) != NULL;
    }
    jinja_list items = {0};
    if (jinja_iterable(all))
        items = jinja_items(run, all);
    else
        jinja_error(run, "argument of type '%s' is not iterable",
                    jinja_type(all));
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++)
        if (jinja_equal(run, items.item[i], one))
            return true;
    return false;
}

/* ---- items
 * -------------------------------------------------------------------------------
 */

bool jinja_length(jinja_value v, size_t *n)
{
    switch (v.kind) {
    case JINJA_UNDEFINED:
        *n = 0;
        return true;
    case JINJA_STR:
        *n = jinja_chars(v);
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
        *n = v.as.list->n;
        return true;
    case JINJA_DICT:
        *n = v.as.dict->n;
        return true;
    case JINJA_VIEW:
        *n = v.as.view->dict->n;
        return true;
    case JINJA_RANGE:
        *n = v.as.range->n;
        return true;
    default:
        return false;
    }
}

bool jinja_iterable(jinja_value v)
{
    size_t n;
    return jinja_length(v, &n) || v.kind == JINJA_ITERATOR;
}

static jinja_list text_items(jinja_run *run, jinja_value s)
{
    jinja_list list = {.n = jinja_chars(s)};
    list.item = jinja_take(&run->arena, list.n, sizeof *list.item);
    if (!jinja_step(run, s.n) || !list.item)
        return (jinja_list){0};
    const char *at = s.as.s;
    for (size_t i = 0; i < list.n; i++) {
        uint32_t c;
        size_t length = (size_t)text_utf8_next(at, &c);
        list.item[i] = jinja_str(at, length);
        at += length;
    }
    return list;
}

static jinja_list dict_items(jinja_run *run, const jinja_dict *dict, int what)
{
    jinja_list list = {.n = dict->n};
    list.item = jinja_take(&run->arena, list.n, sizeof *list.item);
    if (!jinja_step(run, dict->n * 64) || !list.item)
        return (jinja_list){0};
    for (size_t i = 0; i < list.n && !jinja_failed(run); i++) {
        const jinja_entry *e = &dict->entry[i];
        list.item[i] = what == JINJA_KEYS ? e->key
                       : what == JINJA_VALUES
                           ? e->value
                           : jinja_tuple_of(run, e->key, e->value);
    }
    return list;
}

static jinja_list range_items(jinja_run *run, const jinja_range *range)
{
    jinja_list list = {.n = range->n};
    list.item = jinja_take(&run->arena, list.n, sizeof *list.item);
    if (!jinja_step(run, list.n * 16) || !list.item)
        return (jinja_list){0};
    for (size_t i = 0; i < list.n; i++)
        list.item[i] = jinja_range_item(range, i);
    return list;
}

/* Runs the filter behind an iterator, once. */
static void start(jinja_run *run, jinja_iterator *it)
{
    const jinja_builtin *filter = it->filter;
    if (!filter)
        return;
    it->filter = NULL;
    jinja_value all = jinja_call_builtin(run, filter, it->self, &it->call);
    if (!jinja_failed(run))
        it->items = *all.as.list;
}

bool jinja_iterator_next(jinja_run *run, jinja_iterator *it, jinja_value *out)
{
    start(run, it);
    if (jinja_failed(run) || it->at >= it->items.n)
        return false;
    *out = it->items.item[it->at++];
    return true;
}

jinja_list jinja_items(jinja_run *run, jinja_value v)
{
    jinja_list none = {0};
    switch (v.kind) {
    case JINJA_UNDEFINED:
        return none;
    case JINJA_STR:
        return text_items(run, v);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return *v.as.list;
    case JINJA_DICT:
        return dict_items(run, v.as.dict, JINJA_KEYS);
    case JINJA_VIEW:
        return dict_items(run, v.as.view->dict, (int)v.as.view->what);
    case JINJA_RANGE:
        return range_items(run, v.as.range);
    case JINJA_ITERATOR: {
        jinja_iterator *it = v.as.iterator;
        start(run, it);
        size_t at = it->at, left = it->items.n - at;
        it->at = it->items.n;
        return left ? (jinja_list){it->items.item + at, left} : none;
    }
    default:
        jinja_error(run, "'%s' object is not iterable", jinja_type(v));
        return none;
    }
}
