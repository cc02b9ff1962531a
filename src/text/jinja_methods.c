/* jinja_methods.c - methods of strings, lists and dicts, as Python has them.
 * A row without a function is a method that exists and that the sandbox
 * forbids, because it would change its object. Includes base only.
 * Source: Python 3.11's built-in types; jinja2 sandbox.py. */
#include "text/jinja_i.h"

#define METHOD(name)                                                           \
    static jinja_value name(jinja_run *run, jinja_value self,                  \
                            const jinja_value *arg, const jinja_call *call)
#define UNUSED (void)run, (void)self, (void)arg, (void)call

/* ---- arguments --------------------------------------------------------------
 */

static bool want_text(jinja_run *run, jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED)
        jinja_use_undefined(run, v);
    if (v.kind != JINJA_STR)
        jinja_error(run, "a str is needed, not %s", jinja_type(v));
    return !jinja_failed(run);
}

/* An integer argument; absent: `otherwise`. */
static int64_t whole(jinja_run *run, jinja_value v, int64_t otherwise)
{
    int64_t i;
    if (v.kind == JINJA_MISSING)
        return otherwise;
    if (jinja_as_int(v, &i))
        return i;
    jinja_error(run, "'%s' object cannot be interpreted as an integer",
                jinja_type(v));
    return otherwise;
}

/* s[start:end], for methods that look at a part only. */
static jinja_value part_of(jinja_run *run, jinja_value s, jinja_value start,
                           jinja_value end)
{
    jinja_value part[3] = {start, end, jinja_none()};
    for (int k = 0; k < 2; k++)
        if (part[k].kind == JINJA_MISSING)
            part[k] = jinja_none();
    return part[0].kind == JINJA_NONE && part[1].kind == JINJA_NONE
               ? s
               : jinja_slice(run, s, part);
}

/* ---- str
 * ---------------------------------------------------------------------- */

METHOD(str_upper)
{
    UNUSED;
    return jinja_change_case(run, self, JINJA_UPPER);
}

METHOD(str_lower)
{
    UNUSED;
    return jinja_change_case(run, self, JINJA_LOWER);
}

METHOD(str_capitalize)
{
    UNUSED;
    return jinja_change_case(run, self, JINJA_CAPITALIZE);
}

METHOD(str_title)
{
    UNUSED;
    return jinja_change_case(run, self, JINJA_TITLE);
}

static jinja_value strip(jinja_run *run, jinja_value self, jinja_value chars,
                         bool left, bool right)
{
    if (chars.kind == JINJA_MISSING)
        chars = jinja_none();
    if (chars.kind != JINJA_NONE && !want_text(run, chars))
        return self;
    return jinja_step(run,
                      (size_t)self.n * (chars.kind == JINJA_STR ? chars.n : 1))
               ? jinja_strip(self, chars, left, right)
               : self;
}

METHOD(str_strip)
{
    UNUSED;
    return strip(run, self, arg[0], true, true);
}

METHOD(str_lstrip)
{
    UNUSED;
    return strip(run, self, arg[0], true, false);
}

METHOD(str_rstrip)
{
    UNUSED;
    return strip(run, self, arg[0], false, true);
}

static jinja_value split(jinja_run *run, jinja_value self,
                         const jinja_value *arg, bool right)
{
    jinja_value separator =
        arg[0].kind == JINJA_MISSING ? jinja_none() : arg[0];
    if (separator.kind != JINJA_NONE && !want_text(run, separator))
        return self;
    return jinja_split(run, self, separator, whole(run, arg[1], -1), right);
}

METHOD(str_split)
{
    UNUSED;
    return split(run, self, arg, false);
}

METHOD(str_rsplit)
{
    UNUSED;
    return split(run, self, arg, true);
}

METHOD(str_splitlines)
{
    UNUSED;
    int64_t keep = 0;
    if (arg[0].kind != JINJA_MISSING && !jinja_as_int(arg[0], &keep))
        return jinja_error(run,
                           "'%s' object cannot be interpreted as an integer",
                           jinja_type(arg[0]));
    return jinja_split_lines(run, self, keep != 0);
}

METHOD(str_replace)
{
    UNUSED;
    jinja_value with = arg[1];
    if (!want_text(run, arg[0]) || !want_text(run, with))
        return self;
    if (self.safe)
        with = jinja_escape(run, with);
    jinja_value v =
        jinja_replace(run, self, arg[0], with, whole(run, arg[2], -1));
    v.safe = self.safe;
    return v;
}

static bool affix(jinja_value s, jinja_value a, bool end)
{
    return a.n <= s.n && (a.n == 0 || memcmp(s.as.s + (end ? s.n - a.n : 0),
                                             a.as.s, a.n) == 0);
}

/* A str, or a tuple of which one does. */
static jinja_value has_affix(jinja_run *run, jinja_value self,
                             const jinja_value *arg, bool end)
{
    jinja_value s = part_of(run, self, arg[1], arg[2]);
    jinja_list any = {(jinja_value[1]){arg[0]}, 1};
    if (arg[0].kind == JINJA_TUPLE)
        any = *arg[0].as.list;
    for (size_t i = 0; i < any.n && !jinja_failed(run); i++)
        if (want_text(run, any.item[i]) && affix(s, any.item[i], end))
            return jinja_bool(true);
    return jinja_bool(false);
}

METHOD(str_startswith)
{
    UNUSED;
    return has_affix(run, self, arg, false);
}

METHOD(str_endswith)
{
    UNUSED;
    return has_affix(run, self, arg, true);
}

METHOD(str_removeprefix)
{
    UNUSED;
    return want_text(run, arg[0]) && affix(self, arg[0], false)
               ? jinja_part(self, arg[0].n, self.n)
               : self;
}

METHOD(str_removesuffix)
{
    UNUSED;
    return want_text(run, arg[0]) && affix(self, arg[0], true)
               ? jinja_part(self, 0, self.n - arg[0].n)
               : self;
}

/* Position in code points, -1 when absent. */
static jinja_value find(jinja_run *run, jinja_value self,
                        const jinja_value *arg, bool last, bool must)
{
    if (!want_text(run, arg[0]))
        return self;
    jinja_value s = part_of(run, self, arg[1], arg[2]);
    if (!jinja_step(run, last ? (size_t)s.n * arg[0].n : s.n))
        return self;
    size_t at = last ? jinja_find_last(s, arg[0]) : jinja_find(s, arg[0], 0);
    if (at == SIZE_MAX)
        return must ? jinja_error(run, "substring not found") : jinja_int(-1);
    size_t before = s.n ? (size_t)(s.as.s - self.as.s) : 0;
    return jinja_int((int64_t)jinja_chars(jinja_part(self, 0, before + at)));
}

METHOD(str_find)
{
    UNUSED;
    return find(run, self, arg, false, false);
}

METHOD(str_rfind)
{
    UNUSED;
    return find(run, self, arg, true, false);
}

METHOD(str_index)
{
    UNUSED;
    return find(run, self, arg, false, true);
}

METHOD(str_rindex)
{
    UNUSED;
    return find(run, self, arg, true, true);
}

METHOD(str_count)
{
    UNUSED;
    int64_t n = 0;
    if (!want_text(run, arg[0]))
        return self;
    jinja_value s = part_of(run, self, arg[1], arg[2]);
    jinja_step(run, s.n);
    if (arg[0].n == 0)
        return jinja_int((int64_t)jinja_chars(s) + 1);
    for (size_t at = 0; (at = jinja_find(s, arg[0], at)) != SIZE_MAX;
         at += arg[0].n)
        n++;
    return jinja_int(n);
}

METHOD(str_join)
{
    UNUSED;
    base_str out = {0};
    jinja_list items = jinja_items(run, arg[0]);
    for (size_t i = 0; i < items.n && !jinja_failed(run); i++) {
        jinja_value item = items.item[i];
        if (!want_text(run, item))
            break;
        if (self.safe)
            item = jinja_escape(run, item);
        if (i)
            jinja_put_str(run, self, &out);
        jinja_put_str(run, item, &out);
        if (out.len > JINJA_MAX_OUTPUT)
            jinja_error(run, "a string of more than %zu MiB",
                        JINJA_MAX_OUTPUT >> 20);
    }
    jinja_value v = jinja_str_take(run, &out);
    v.safe = self.safe;
    return v;
}

METHOD(str_format)
{
    UNUSED;
    return jinja_brace_format(run, self, call);
}

static jinja_value partition(jinja_run *run, jinja_value self,
                             jinja_value separator, bool last)
{
    jinja_value *item, v = jinja_list_new(run, JINJA_TUPLE, 3, &item);
    if (jinja_failed(run) || !want_text(run, separator))
        return v;
    if (separator.n == 0)
        return jinja_error(run, "empty separator");
    if (!jinja_step(run, last ? (size_t)self.n * separator.n : self.n))
        return v;
    size_t at = last ? jinja_find_last(self, separator)
                     : jinja_find(self, separator, 0);
    size_t end = at + separator.n;
    if (at == SIZE_MAX)
        at = end = last ? 0 : self.n;
    item[0] = jinja_part(self, 0, at);
    item[1] = jinja_part(self, at, end);
    item[2] = jinja_part(self, end, self.n);
    return v;
}

METHOD(str_partition)
{
    UNUSED;
    return partition(run, self, arg[0], false);
}

METHOD(str_rpartition)
{
    UNUSED;
    return partition(run, self, arg[0], true);
}

/* `left` of the fill stands before the text: 0 none, 1 all, 2 half. */
static jinja_value justify(jinja_run *run, jinja_value self,
                           const jinja_value *arg, int left)
{
    int64_t width = whole(run, arg[0], 0), n = (int64_t)jinja_chars(self);
    jinja_value fill =
        arg[1].kind == JINJA_MISSING ? JINJA_LITERAL(" ") : arg[1];
    base_str out = {0};
    if (!want_text(run, fill) || width <= n)
        return self;
    if (jinja_chars(fill) != 1 || width > (int64_t)JINJA_MAX_OUTPUT)
        return jinja_error(run,
                           "a fill of one character and a width up to "
                           "%zu million are needed",
                           JINJA_MAX_OUTPUT >> 20);
    int64_t spare = width - n;
    int64_t before = left == 0 ? 0 : spare;
    if (left == 2) /* as Python: the odd one goes left of an odd width */
        before = spare / 2 + (spare & width & 1);
    jinja_step(run, (size_t)spare * 16);
    for (int64_t i = 0; i < spare && !jinja_failed(run); i++) {
        if (i == before)
            base_str_add(&out, self.as.s, self.n);
        base_str_add(&out, fill.as.s, fill.n);
    }
    if (before == spare)
        base_str_add(&out, self.as.s, self.n);
    jinja_value v = jinja_str_take(run, &out);
    v.safe = self.safe;
    return v;
}

METHOD(str_ljust)
{
    UNUSED;
    return justify(run, self, arg, 0);
}

METHOD(str_rjust)
{
    UNUSED;
    return justify(run, self, arg, 1);
}

METHOD(str_center)
{
    UNUSED;
    return justify(run, self, arg, 2);
}

METHOD(str_zfill)
{
    UNUSED;
    jinja_value fill[2] = {arg[0], JINJA_LITERAL("0")};
    bool sign = self.n && (self.as.s[0] == '-' || self.as.s[0] == '+');
    if (!sign)
        return justify(run, self, fill, 1);
    fill[0] = jinja_int(whole(run, arg[0], 0) - 1);
    jinja_value rest = justify(run, jinja_part(self, 1, self.n), fill, 1);
    return jinja_binary(run, JINJA_ADD, jinja_part(self, 0, 1), rest);
}

typedef bool char_class(uint32_t c);

static bool is_digit(uint32_t c)
{
    return text_in_ranges(text_digit, text_digit_count, c);
}

static bool is_alpha(uint32_t c)
{
    return text_in_ranges(text_alphabetic, text_alphabetic_count, c);
}

static bool is_alnum(uint32_t c)
{
    return is_alpha(c) || text_is_numeric(c);
}

static jinja_value all_chars(jinja_value s, char_class *is)
{
    uint32_t c;
    for (size_t at = 0; at < s.n;) {
        at += (size_t)text_utf8_next(s.as.s + at, &c);
        if (!is(c))
            return jinja_bool(false);
    }
    return jinja_bool(s.n > 0);
}

METHOD(str_isdigit)
{
    UNUSED;
    return all_chars(self, is_digit);
}

METHOD(str_isalpha)
{
    UNUSED;
    return all_chars(self, is_alpha);
}

METHOD(str_isalnum)
{
    UNUSED;
    return all_chars(self, is_alnum);
}

METHOD(str_isspace)
{
    UNUSED;
    return all_chars(self, text_is_python_space);
}

/* Nothing of the other case, and a cased character. */
static jinja_value is_case(jinja_run *run, jinja_value s, jinja_case how)
{
    uint32_t c;
    bool cased = false;
    for (size_t at = 0; at < s.n && !cased;) {
        at += (size_t)text_utf8_next(s.as.s + at, &c);
        cased = text_in_ranges(text_cased, text_cased_count, c);
    }
    jinja_value same = jinja_change_case(run, s, how);
    return jinja_bool(cased && jinja_same_text(s, same.as.s, same.n));
}

METHOD(str_isupper)
{
    UNUSED;
    return is_case(run, self, JINJA_UPPER);
}

METHOD(str_islower)
{
    UNUSED;
    return is_case(run, self, JINJA_LOWER);
}

static const jinja_builtin str_methods[] = {
    {"split", str_split, "sep,maxsplit", 0, false},
    {"strip", str_strip, "chars", 0, false},
    {"lstrip", str_lstrip, "chars", 0, false},
    {"rstrip", str_rstrip, "chars", 0, false},
    {"startswith", str_startswith, "prefix,start,end", 1, false},
    {"endswith", str_endswith, "suffix,start,end", 1, false},
    {"replace", str_replace, "old,new,count", 2, false},
    {"upper", str_upper, "", 0, false},
    {"lower", str_lower, "", 0, false},
    {"capitalize", str_capitalize, "", 0, false},
    {"title", str_title, "", 0, false},
    {"rsplit", str_rsplit, "sep,maxsplit", 0, false},
    {"splitlines", str_splitlines, "keepends", 0, false},
    {"removeprefix", str_removeprefix, "prefix", 1, false},
    {"removesuffix", str_removesuffix, "suffix", 1, false},
    {"find", str_find, "sub,start,end", 1, false},
    {"rfind", str_rfind, "sub,start,end", 1, false},
    {"index", str_index, "sub,start,end", 1, false},
    {"rindex", str_rindex, "sub,start,end", 1, false},
    {"count", str_count, "sub,start,end", 1, false},
    {"join", str_join, "iterable", 1, false},
    {"format", str_format, NULL, 0, false},
    {"partition", str_partition, "sep", 1, false},
    {"rpartition", str_rpartition, "sep", 1, false},
    {"ljust", str_ljust, "width,fillchar", 1, false},
    {"rjust", str_rjust, "width,fillchar", 1, false},
    {"center", str_center, "width,fillchar", 1, false},
    {"zfill", str_zfill, "width", 1, false},
    {"isdigit", str_isdigit, "", 0, false},
    {"isalpha", str_isalpha, "", 0, false},
    {"isalnum", str_isalnum, "", 0, false},
    {"isspace", str_isspace, "", 0, false},
    {"isupper", str_isupper, "", 0, false},
    {"islower", str_islower, "", 0, false},
};

/* ---- list, tuple
 * ------------------------------------------------------------------- */

METHOD(list_count)
{
    UNUSED;
    int64_t n = 0;
    for (size_t i = 0; i < self.as.list->n && !jinja_failed(run); i++)
        n += jinja_equal(run, self.as.list->item[i], arg[0]);
    return jinja_int(n);
}

METHOD(list_index)
{
    UNUSED;
    for (size_t i = 0; i < self.as.list->n && !jinja_failed(run); i++)
        if (jinja_equal(run, self.as.list->item[i], arg[0]))
            return jinja_int((int64_t)i);
    return jinja_error(run, "the value is not in the %s", jinja_type(self));
}

/* Values never change, so a copy is the value itself. */
METHOD(copy)
{
    UNUSED;
    return self;
}

static const jinja_builtin list_methods[] = {
    {"count", list_count, "value", 1, false},
    {"index", list_index, "value", 1, false},
    {"copy", copy, "", 0, false},
    {"append", NULL, NULL, 0, false},
    {"clear", NULL, NULL, 0, false},
    {"pop", NULL, NULL, 0, false},
    {"reverse", NULL, NULL, 0, false},
    {"insert", NULL, NULL, 0, false},
    {"sort", NULL, NULL, 0, false},
    {"extend", NULL, NULL, 0, false},
    {"remove", NULL, NULL, 0, false},
};
enum { N_TUPLE_METHODS = 2 };

/* ---- dict
 * ------------------------------------------------------------------------------
 */

METHOD(dict_get)
{
    UNUSED;
    if (!jinja_hashable(arg[0]))
        return jinja_error(run, "unhashable type: '%s'", jinja_type(arg[0]));
    const jinja_value *found = jinja_dict_find(run, self.as.dict, arg[0]);
    if (found)
        return *found;
    return arg[1].kind == JINJA_MISSING ? jinja_none() : arg[1];
}

static jinja_value view(jinja_run *run, jinja_value self, enum jinja_what what)
{
    jinja_view *v = jinja_take(&run->arena, 1, sizeof *v);
    if (!v)
        return jinja_error(run, "out of memory");
    v->dict = self.as.dict;
    v->what = what;
    return (jinja_value){.kind = JINJA_VIEW, .as.view = v};
}

METHOD(dict_items)
{
    UNUSED;
    return view(run, self, JINJA_ITEMS);
}

METHOD(dict_keys)
{
    UNUSED;
    return view(run, self, JINJA_KEYS);
}

METHOD(dict_values)
{
    UNUSED;
    return view(run, self, JINJA_VALUES);
}

static const jinja_builtin dict_methods[] = {
    {"get", dict_get, "key,default", 1, false},
    {"items", dict_items, "", 0, false},
    {"keys", dict_keys, "", 0, false},
    {"values", dict_values, "", 0, false},
    {"copy", copy, "", 0, false},
    {"clear", NULL, NULL, 0, false},
    {"pop", NULL, NULL, 0, false},
    {"popitem", NULL, NULL, 0, false},
    {"setdefault", NULL, NULL, 0, false},
    {"update", NULL, NULL, 0, false},
};

/* ---- loop, cycler
 * ------------------------------------------------------------------------ */

METHOD(loop_cycle)
{
    UNUSED;
    if (call->n == 0)
        return jinja_error(run, "no items for cycling given");
    return call->arg[self.as.loop->at % call->n];
}

METHOD(loop_changed)
{
    UNUSED;
    jinja_loop *loop = self.as.loop;
    jinja_value *item;
    jinja_value now = jinja_list_new(run, JINJA_TUPLE, call->n, &item);
    if (jinja_failed(run))
        return self;
    if (call->n)
        memcpy(item, call->arg, call->n * sizeof *item);
    bool same = loop->changed.kind == JINJA_TUPLE &&
                jinja_equal(run, loop->changed, now);
    loop->changed = now;
    return jinja_bool(!same);
}

static const jinja_builtin loop_methods[] = {
    {"cycle", loop_cycle, NULL, 0, false},
    {"changed", loop_changed, NULL, 0, false},
};

METHOD(cycler_next)
{
    UNUSED;
    jinja_cycler *cycler = self.as.cycler;
    jinja_value v = cycler->items.item[cycler->at];
    cycler->at = (cycler->at + 1) % cycler->items.n;
    return v;
}

METHOD(cycler_reset)
{
    UNUSED;
    self.as.cycler->at = 0;
    return jinja_none();
}

static const jinja_builtin cycler_methods[] = {
    {"next", cycler_next, "", 0, false},
    {"reset", cycler_reset, "", 0, false},
};

#define FIND(table) jinja_find_in(table, sizeof table / sizeof *table, name, n)

const jinja_builtin *jinja_find_method(jinja_value v, const char *name,
                                       size_t n)
{
    switch (v.kind) {
    case JINJA_STR:
        return FIND(str_methods);
    case JINJA_LIST:
        return FIND(list_methods);
    case JINJA_TUPLE:
        return jinja_find_in(list_methods, N_TUPLE_METHODS, name, n);
    case JINJA_DICT:
        return FIND(dict_methods);
    case JINJA_LOOP:
        return FIND(loop_methods);
    case JINJA_CYCLER:
        return FIND(cycler_methods);
    default:
        return NULL;
    }
}
