/* jinja_text.c - values as text: Python's str and repr, HTML escapes, and
 * json.dumps as transformers' tojson calls it. Includes base, format.
 * Source: Python 3.11's object.__repr__s and json.encoder; markupsafe 3. */
#include <math.h>
#include <stdlib.h>

#include "format/format.h"
#include "text/jinja_i.h"

/* Every value that is put costs a step; false ends the recursion. */
static bool may_put(jinja_run *run, const base_str *out)
{
    if (out->failed)
        run->arena.failed = true;
    if (out->len > JINJA_MAX_OUTPUT)
        jinja_fail(&run->fault, LORI_UNSUPPORTED,
                   "a string of more than %zu MiB", JINJA_MAX_OUTPUT >> 20);
    return jinja_step(run, 0);
}

/* ---- repr
 * --------------------------------------------------------------------- */

static void put_quoted(jinja_value v, base_str *out)
{
    bool single = v.n && memchr(v.as.s, '\'', v.n);
    char quote = single && !memchr(v.as.s, '"', v.n) ? '"' : '\'';
    base_str_add(out, &quote, 1);
    for (size_t i = 0; i < v.n;) {
        uint32_t c;
        size_t length = (size_t)text_utf8_next(v.as.s + i, &c);
        if (c == (unsigned char)quote || c == '\\')
            base_str_printf(out, "\\%c", (int)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            base_str_puts(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (!text_in_ranges(text_unprintable, text_unprintable_count, c))
            base_str_add(out, v.as.s + i, length);
        else if (c < 0x100)
            base_str_printf(out, "\\x%02x", c);
        else if (c < 0x10000)
            base_str_printf(out, "\\u%04x", c);
        else
            base_str_printf(out, "\\U%08x", c);
        i += length;
    }
    base_str_add(out, &quote, 1);
}

static void put_list(jinja_run *run, const jinja_list *list, bool tuple,
                     base_str *out)
{
    base_str_puts(out, tuple ? "(" : "[");
    for (size_t i = 0; i < list->n && may_put(run, out); i++) {
        if (i)
            base_str_puts(out, ", ");
        jinja_put_repr(run, list->item[i], out);
    }
    if (tuple && list->n == 1)
        base_str_puts(out, ",");
    base_str_puts(out, tuple ? ")" : "]");
}

static void put_dict(jinja_run *run, const jinja_dict *dict, base_str *out)
{
    base_str_puts(out, "{");
    for (size_t i = 0; i < dict->n && may_put(run, out); i++) {
        if (i)
            base_str_puts(out, ", ");
        jinja_put_repr(run, dict->entry[i].key, out);
        base_str_puts(out, ": ");
        jinja_put_repr(run, dict->entry[i].value, out);
    }
    base_str_puts(out, "}");
}

static void put_view(jinja_run *run, jinja_value v, base_str *out)
{
    jinja_list items = jinja_items(run, v);
    base_str_printf(out, "%s(", jinja_type(v));
    put_list(run, &items, false, out);
    base_str_puts(out, ")");
}

static void put_range(const jinja_range *r, base_str *out)
{
    base_str_printf(out, "range(%lld, %lld", (long long)r->start,
                    (long long)r->stop);
    if (r->step != 1)
        base_str_printf(out, ", %lld", (long long)r->step);
    base_str_puts(out, ")");
}

/* Objects whose text in Python holds an address: here without it. */
static void put_object(jinja_run *run, jinja_value v, base_str *out)
{
    size_t n = 0;
    switch (v.kind) {
    case JINJA_NAMESPACE:
        base_str_puts(out, "<Namespace ");
        put_dict(run, v.as.dict, out);
        base_str_puts(out, ">");
        return;
    case JINJA_MACRO:
        base_str_puts(out, "<Macro ");
        put_quoted(v.as.macro->name, out);
        base_str_puts(out, ">");
        return;
    case JINJA_LOOP:
        while (jinja_loop_has(run, v.as.loop, n))
            n++;
        base_str_printf(out, "<LoopContext %zu/%zu>", v.as.loop->at + 1, n);
        return;
    default:
        base_str_printf(out, "<%s>", jinja_type(v));
    }
}

static void put_repr(jinja_run *run, jinja_value v, base_str *out)
{
    char number[32];
    switch (v.kind) {
    case JINJA_UNDEFINED:
        base_str_puts(out, "Undefined");
        break;
    case JINJA_NONE:
        base_str_puts(out, "None");
        break;
    case JINJA_BOOL:
        base_str_puts(out, v.as.b ? "True" : "False");
        break;
    case JINJA_INT:
        base_str_printf(out, "%lld", (long long)v.as.i);
        break;
    case JINJA_FLOAT:
        base_str_puts(out, base_f64_text(v.as.f, number));
        break;
    case JINJA_STR:
        jinja_step(run, v.n);
        base_str_puts(out, v.safe ? "Markup(" : "");
        put_quoted(v, out);
        base_str_puts(out, v.safe ? ")" : "");
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        put_list(run, v.as.list, v.kind == JINJA_TUPLE, out);
        break;
    case JINJA_DICT:
        put_dict(run, v.as.dict, out);
        break;
    case JINJA_VIEW:
        put_view(run, v, out);
        break;
    case JINJA_RANGE:
        put_range(v.as.range, out);
        break;
    default:
        put_object(run, v, out);
    }
}

void jinja_put_repr(jinja_run *run, jinja_value v, base_str *out)
{
    if (may_put(run, out) && jinja_enter(run)) {
        put_repr(run, v, out);
        jinja_leave(run);
    }
}

void jinja_put_str(jinja_run *run, jinja_value v, base_str *out)
{
    if (v.kind == JINJA_STR) {
        if (jinja_step(run, v.n))
            base_str_add(out, v.as.s, v.n);
    } else if (v.kind != JINJA_UNDEFINED) {
        jinja_put_repr(run, v, out);
    }
}

jinja_value jinja_to_str(jinja_run *run, jinja_value v)
{
    v = jinja_soft_str(run, v);
    v.safe = false;
    return v;
}

jinja_value jinja_soft_str(jinja_run *run, jinja_value v)
{
    if (v.kind == JINJA_STR)
        return v;
    base_str text = {0};
    jinja_put_str(run, v, &text);
    return jinja_str_take(run, &text);
}

jinja_value jinja_escape(jinja_run *run, jinja_value v)
{
    static const char special[] = "&<>'\"";
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&#39;",
                                         "&#34;"};
    if (v.kind == JINJA_STR && v.safe)
        return v;
    v = jinja_soft_str(run, v);
    base_str out = {0};
    size_t from = 0;
    for (size_t i = 0; i < v.n; i++) {
        const char *hit = v.as.s[i] ? strchr(special, v.as.s[i]) : NULL;
        if (!hit)
            continue;
        base_str_add(&out, v.as.s + from, i - from);
        base_str_puts(&out, entity[hit - special]);
        from = i + 1;
    }
    base_str_add(&out, v.as.s + from, v.n - from);
    v = jinja_str_take(run, &out);
    v.safe = true;
    return v;
}

/* ---- json.dumps
 * --------------------------------------------------------------------- */

typedef struct json_writer {
    jinja_run *run;
    const jinja_json_style *style;
    base_str *out;
    size_t level;
} json_writer;

static void put_json(json_writer *w, jinja_value v);

static void new_line(json_writer *w)
{
    base_str_puts(w->out, "\n");
    for (size_t i = 0; i < w->level && may_put(w->run, w->out); i++)
        base_str_add(w->out, w->style->indent.as.s, w->style->indent.n);
}

/* What stands before item i of a list or dict. */
static void separate(json_writer *w, size_t i)
{
    if (i)
        base_str_add(w->out, w->style->item.as.s, w->style->item.n);
    if (w->style->indented)
        new_line(w);
}

static void close_json(json_writer *w, bool any, const char *bracket)
{
    w->level--;
    if (w->style->indented && any)
        new_line(w);
    base_str_puts(w->out, bracket);
}

static void put_json_list(json_writer *w, const jinja_list *list)
{
    base_str_puts(w->out, "[");
    w->level++;
    for (size_t i = 0; i < list->n && !jinja_failed(w->run); i++) {
        separate(w, i);
        put_json(w, list->item[i]);
    }
    close_json(w, list->n > 0, "]");
}

static void put_json_float(double f, base_str *out)
{
    char number[32];
    if (isnan(f))
        base_str_puts(out, "NaN");
    else if (isinf(f))
        base_str_puts(out, f < 0 ? "-Infinity" : "Infinity");
    else
        base_str_puts(out, base_f64_text(f, number));
}

static void put_json_key(json_writer *w, jinja_value key)
{
    if (key.kind == JINJA_STR) {
        put_json(w, key);
    } else if (jinja_is_number(key) || key.kind == JINJA_NONE) {
        base_str_puts(w->out, "\"");
        put_json(w, key);
        base_str_puts(w->out, "\"");
    } else {
        jinja_error(w->run,
                    "keys must be str, int, float, bool or None, not %s",
                    jinja_type(key));
    }
}

/* qsort cannot carry the run: a stable insertion of pointers can. */
static const jinja_entry **sorted(json_writer *w, const jinja_dict *dict)
{
    const jinja_entry **order =
        jinja_take(&w->run->arena, dict->n, sizeof(void *));
    for (size_t i = 0; order && i < dict->n && !jinja_failed(w->run); i++) {
        size_t k = i;
        for (; w->style->sort && k > 0; k--) {
            if (!jinja_step(w->run, 0) ||
                jinja_order(w->run, order[k - 1]->key, dict->entry[i].key) <= 0)
                break;
            order[k] = order[k - 1];
        }
        order[k] = &dict->entry[i];
    }
    return order;
}

static void put_json_dict(json_writer *w, const jinja_dict *dict)
{
    const jinja_entry **order = sorted(w, dict);
    base_str_puts(w->out, "{");
    w->level++;
    for (size_t i = 0; i < dict->n && jinja_step(w->run, 0); i++) {
        separate(w, i);
        put_json_key(w, order[i]->key);
        base_str_add(w->out, w->style->key.as.s, w->style->key.n);
        put_json(w, order[i]->value);
    }
    close_json(w, dict->n > 0, "}");
}

static void put_json_kind(json_writer *w, jinja_value v)
{
    switch (v.kind) {
    case JINJA_NONE:
        base_str_puts(w->out, "null");
        break;
    case JINJA_BOOL:
        base_str_puts(w->out, v.as.b ? "true" : "false");
        break;
    case JINJA_INT:
        base_str_printf(w->out, "%lld", (long long)v.as.i);
        break;
    case JINJA_FLOAT:
        put_json_float(v.as.f, w->out);
        break;
    case JINJA_STR:
        jinja_step(w->run, v.n);
        format_json_quote(v.as.s, v.n, w->style->ascii, w->out);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        put_json_list(w, v.as.list);
        break;
    case JINJA_DICT:
        put_json_dict(w, v.as.dict);
        break;
    default:
        jinja_error(w->run, "Object of type %s is not JSON serializable",
                    jinja_type(v));
    }
}

static void put_json(json_writer *w, jinja_value v)
{
    if (may_put(w->run, w->out) && jinja_enter(w->run)) {
        put_json_kind(w, v);
        jinja_leave(w->run);
    }
}

void jinja_put_json(jinja_run *run, jinja_value v,
                    const jinja_json_style *style, base_str *out)
{
    json_writer w = {.run = run, .style = style, .out = out};
    put_json(&w, v);
}
