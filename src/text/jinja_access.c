/* jinja_access.c - a.name, a[key] and a[i:j:k]: an attribute is a method of
 * the value's type or, of a dict, a member; the sandbox hides what changes a
 * value. Includes base only. Source: jinja2 sandbox.py, runtime.py. */
#include "text/jinja_i.h"

/* ---- loop, cycler
 * ----------------------------------------------------------------- */

static size_t loop_length(jinja_run *run, jinja_loop *loop)
{
    while (jinja_loop_has(run, loop, loop->n))
        ;
    return loop->n;
}

static jinja_value neighbour(jinja_run *run, jinja_loop *loop, bool next)
{
    if (next && jinja_loop_has(run, loop, loop->at + 1))
        return loop->item[loop->at + 1];
    if (!next && loop->at > 0)
        return loop->item[loop->at - 1];
    return jinja_undefined_hint(run, next ? "there is no next item"
                                          : "there is no previous item");
}

static jinja_value loop_attribute(jinja_run *run, jinja_loop *loop,
                                  jinja_value name)
{
    int64_t at = (int64_t)loop->at;
    if (jinja_is_text(name, "index0"))
        return jinja_int(at);
    if (jinja_is_text(name, "index"))
        return jinja_int(at + 1);
    if (jinja_is_text(name, "first"))
        return jinja_bool(at == 0);
    if (jinja_is_text(name, "last"))
        return jinja_bool(!jinja_loop_has(run, loop, loop->at + 1));
    if (jinja_is_text(name, "length"))
        return jinja_int((int64_t)loop_length(run, loop));
    if (jinja_is_text(name, "revindex"))
        return jinja_int((int64_t)loop_length(run, loop) - at);
    if (jinja_is_text(name, "revindex0"))
        return jinja_int((int64_t)loop_length(run, loop) - at - 1);
    if (jinja_is_text(name, "depth"))
        return jinja_int(loop->depth0 + 1);
    if (jinja_is_text(name, "depth0"))
        return jinja_int(loop->depth0);
    if (jinja_is_text(name, "nextitem") || jinja_is_text(name, "previtem"))
        return neighbour(run, loop, name.as.s[0] == 'n');
    return (jinja_value){.kind = JINJA_MISSING};
}

/* ---- attributes and items
 * ------------------------------------------------------------ */

/* A real attribute in Python's sense; MISSING when there is none. */
static jinja_value attribute(jinja_run *run, jinja_value a, jinja_value name)
{
    bool hidden = name.n > 4 && memcmp(name.as.s, "__", 2) == 0 &&
                  memcmp(name.as.s + name.n - 2, "__", 2) == 0;
    if (hidden)
        return jinja_undefined_unsafe(run, a, name);
    jinja_value v = {.kind = JINJA_MISSING};
    if (a.kind == JINJA_LOOP)
        v = loop_attribute(run, a.as.loop, name);
    if (a.kind == JINJA_CYCLER && jinja_is_text(name, "current"))
        v = a.as.cycler->items.item[a.as.cycler->at];
    if (a.kind == JINJA_MACRO && jinja_is_text(name, "name"))
        v = a.as.macro->name;
    if (a.kind == JINJA_NAMESPACE) {
        const jinja_value *found = jinja_dict_find(run, a.as.dict, name);
        return found ? *found : v;
    }
    const jinja_builtin *method = jinja_find_method(a, name.as.s, name.n);
    if (v.kind != JINJA_MISSING || !method)
        return v;
    if (!method->run)
        return jinja_undefined_unsafe(run, a, name);
    jinja_method *bound = jinja_take(&run->arena, 1, sizeof *bound);
    if (!bound)
        return jinja_error(run, "out of memory");
    *bound = (jinja_method){a, method};
    return (jinja_value){.kind = JINJA_METHOD, .as.method = bound};
}

jinja_value jinja_get_attribute(jinja_run *run, jinja_value a, jinja_value name)
{
    if (a.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, a);
    jinja_value v = attribute(run, a, name);
    if (v.kind == JINJA_MISSING && a.kind == JINJA_DICT) {
        const jinja_value *member = jinja_dict_find(run, a.as.dict, name);
        if (member)
            return *member;
    }
    return v.kind == JINJA_MISSING ? jinja_undefined_in(run, a, name) : v;
}

/* a[i] of a sequence; MISSING when out of range. */
static jinja_value item_at(jinja_value a, int64_t i)
{
    size_t n = 0;
    jinja_length(a, &n);
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || i >= (int64_t)n)
        return (jinja_value){.kind = JINJA_MISSING};
    if (a.kind == JINJA_RANGE)
        return jinja_range_item(a.as.range, (size_t)i);
    if (a.kind != JINJA_STR)
        return a.as.list->item[i];
    size_t from = jinja_char_offset(a, (size_t)i);
    jinja_value rest = jinja_part(a, from, a.n);
    return jinja_part(rest, 0, jinja_char_offset(rest, 1));
}

static bool has_items(jinja_value a)
{
    return a.kind == JINJA_STR || a.kind == JINJA_LIST ||
           a.kind == JINJA_TUPLE || a.kind == JINJA_RANGE;
}

jinja_value jinja_get_item(jinja_run *run, jinja_value a, jinja_value key)
{
    int64_t i;
    jinja_value v = {.kind = JINJA_MISSING};
    if (a.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, a);
    if (a.kind == JINJA_DICT && jinja_hashable(key)) {
        const jinja_value *found = jinja_dict_find(run, a.as.dict, key);
        if (found)
            return *found;
    } else if (has_items(a) && jinja_as_int(key, &i)) {
        jinja_step(run, a.kind == JINJA_STR ? a.n : 0);
        v = item_at(a, i);
    }
    if (v.kind == JINJA_MISSING && key.kind == JINJA_STR)
        v = attribute(run, a, key);
    return v.kind == JINJA_MISSING ? jinja_undefined_in(run, a, key) : v;
}

/* ---- slices
 * ------------------------------------------------------------------------------
 */

/* One bound, moved into [lo, hi] as Python does. */
static int64_t bound(jinja_run *run, jinja_value v, int64_t n, int64_t absent,
                     int64_t lo, int64_t hi)
{
    int64_t i;
    if (v.kind == JINJA_NONE)
        return absent;
    if (v.kind == JINJA_UNDEFINED)
        jinja_use_undefined(run, v);
    if (!jinja_as_int(v, &i)) {
        jinja_error(run, "slice indices must be integers or None");
        return 0;
    }
    if (i < 0)
        i = i < -n ? lo : i + n;
    return i < lo ? lo : i > hi ? hi : i;
}

static jinja_value slice_text(jinja_run *run, jinja_value s, int64_t start,
                              int64_t step, size_t count)
{
    if (step == 1) {
        size_t from = jinja_char_offset(s, (size_t)start);
        jinja_value rest = jinja_part(s, from, s.n);
        return jinja_part(rest, 0, jinja_char_offset(rest, count));
    }
    base_str out = {0};
    jinja_list chars = jinja_items(run, jinja_part(s, 0, s.n));
    for (size_t k = 0; k < count && !jinja_failed(run); k++) {
        jinja_value c = chars.item[start + (int64_t)k * step];
        base_str_add(&out, c.as.s, c.n);
    }
    jinja_value v = jinja_str_take(run, &out);
    v.safe = s.safe;
    return v;
}

static jinja_value slice_range(jinja_run *run, const jinja_range *r,
                               int64_t start, int64_t step, size_t count)
{
    jinja_range *part = jinja_take(&run->arena, 1, sizeof *part);
    if (!part)
        return jinja_error(run, "out of memory");
    part->start = r->start + start * r->step;
    part->step = r->step * step;
    part->n = count;
    part->stop = part->start + (int64_t)count * part->step;
    return (jinja_value){.kind = JINJA_RANGE, .as.range = part};
}

jinja_value jinja_slice(jinja_run *run, jinja_value a, const jinja_value *part)
{
    size_t length = 0;
    int64_t step = 1;
    if (a.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, a);
    if (!has_items(a))
        return jinja_error(run, "'%s' object cannot be sliced", jinja_type(a));
    jinja_length(a, &length);
    int64_t n = (int64_t)length;
    if (part[2].kind != JINJA_NONE && !jinja_as_int(part[2], &step))
        return jinja_error(run, "slice indices must be integers or None");
    if (step == 0)
        return jinja_error(run, "slice step cannot be zero");
    if (step > n + 1 || step < -n - 1) /* one item at most */
        step = step > 0 ? n + 1 : -n - 1;
    int64_t lo = step < 0 ? -1 : 0, hi = step < 0 ? n - 1 : n;
    int64_t start = bound(run, part[0], n, step < 0 ? hi : lo, lo, hi);
    int64_t stop = bound(run, part[1], n, step < 0 ? lo : hi, lo, hi);
    int64_t span = step < 0 ? start - stop : stop - start;
    int64_t size = step < 0 ? -step : step;
    size_t count = span > 0 ? (size_t)((span + size - 1) / size) : 0;
    if (!jinja_step(run, a.kind == JINJA_STR ? a.n : count * 16))
        return a;
    if (a.kind == JINJA_STR)
        return count ? slice_text(run, a, start, step, count)
                     : jinja_part(a, 0, 0);
    if (a.kind == JINJA_RANGE)
        return slice_range(run, a.as.range, start, step, count);
    jinja_value *item;
    jinja_value v = jinja_list_new(run, (jinja_kind)a.kind, count, &item);
    for (size_t k = 0; k < count && !jinja_failed(run); k++)
        item[k] = a.as.list->item[start + (int64_t)k * step];
    return v;
}
