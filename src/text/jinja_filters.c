/* jinja_filters.c - the filters on single values. Includes base only.
 * Source: jinja2 filters.py; transformers' own tojson. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja_i.h"

#define FILTER(name)                                                           \
    static jinja_value name(jinja_run *run, jinja_value self,                  \
                            const jinja_value *arg, const jinja_call *call)
#define UNUSED (void)run, (void)self, (void)arg, (void)call

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

/* A str that the filter does not convert to. */
static bool want_text(jinja_run *run, jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED)
        jinja_use_undefined(run, v);
    if (v.kind != JINJA_STR)
        jinja_error(run, "a str is needed, not %s", jinja_type(v));
    return !jinja_failed(run);
}

/* ---- text
 * ---------------------------------------------------------------------- */

FILTER(upper)
{
    UNUSED;
    return jinja_change_case(run, jinja_soft_str(run, self), JINJA_UPPER);
}

FILTER(lower)
{
    UNUSED;
    return jinja_change_case(run, jinja_soft_str(run, self), JINJA_LOWER);
}

FILTER(capitalize)
{
    UNUSED;
    return jinja_change_case(run, jinja_soft_str(run, self), JINJA_CAPITALIZE);
}

FILTER(title)
{
    UNUSED;
    return jinja_change_case(run, jinja_soft_str(run, self), JINJA_WORDS);
}

FILTER(trim)
{
    UNUSED;
    jinja_value s = jinja_soft_str(run, self);
    jinja_value chars = arg[0].kind == JINJA_MISSING ? jinja_none() : arg[0];
    if (chars.kind != JINJA_NONE && !want_text(run, chars))
        return s;
    return jinja_step(run,
                      (size_t)s.n * (chars.kind == JINJA_STR ? chars.n : 1))
               ? jinja_strip(s, chars, true, true)
               : s;
}

FILTER(string)
{
    UNUSED;
    return jinja_soft_str(run, self);
}

FILTER(safe)
{
    UNUSED;
    jinja_value s = jinja_soft_str(run, self);
    s.safe = true;
    return s;
}

FILTER(escape)
{
    UNUSED;
    return jinja_escape(run, self);
}

FILTER(forceescape)
{
    UNUSED;
    return jinja_escape(run, jinja_to_str(run, self));
}

FILTER(replace)
{
    UNUSED;
    int64_t count = arg[2].kind == JINJA_NONE ? -1 : whole(run, arg[2], -1);
    jinja_value v =
        jinja_replace(run, jinja_to_str(run, self), jinja_to_str(run, arg[0]),
                      jinja_to_str(run, arg[1]), count);
    v.safe = false;
    return v;
}

FILTER(format)
{
    UNUSED;
    jinja_value f = jinja_soft_str(run, self), values, *item;
    if (call->n && call->n_keywords)
        return jinja_error(run, "format can't handle positional and keyword "
                                "arguments at the same time");
    if (call->n_keywords) {
        values = jinja_dict_new(run, call->n_keywords);
        for (size_t i = 0; i < call->n_keywords && !jinja_failed(run); i++)
            jinja_dict_set(run, values.as.dict, call->keyword[i].name,
                           call->keyword[i].value);
    } else {
        values = jinja_list_new(run, JINJA_TUPLE, call->n, &item);
        if (!jinja_failed(run) && call->n)
            memcpy(item, call->arg, call->n * sizeof *item);
    }
    return jinja_failed(run) ? f : jinja_percent(run, f, values);
}

/* The lines of s, of which all but the first (`first`: all) are indented;
 * empty ones only with `blank`. */
FILTER(indent)
{
    UNUSED;
    bool first = jinja_true(arg[1]), blank = jinja_true(arg[2]);
    jinja_value width = arg[0];
    base_str out = {0};
    if (!want_text(run, self))
        return self;
    if (width.kind != JINJA_STR)
        width =
            jinja_binary(run, JINJA_MUL, JINJA_LITERAL(" "),
                         width.kind == JINJA_MISSING ? jinja_int(4) : width);
    if (self.safe)
        width.safe = true;
    jinja_value with_end =
        jinja_binary(run, JINJA_ADD, self, JINJA_LITERAL("\n"));
    jinja_value lines = jinja_split_lines(run, with_end, false);
    for (size_t i = 0; !jinja_failed(run) && i < lines.as.list->n; i++) {
        jinja_value line = lines.as.list->item[i];
        if (i)
            base_str_puts(&out, "\n");
        if (i ? blank || line.n : first)
            base_str_add(&out, width.as.s, width.n);
        base_str_add(&out, line.as.s, line.n);
        if (!jinja_step(run, width.n + line.n) || out.len > JINJA_MAX_OUTPUT)
            jinja_error(run, "a string of more than %zu MiB",
                        JINJA_MAX_OUTPUT >> 20);
    }
    jinja_value v = jinja_str_take(run, &out);
    v.safe = self.safe;
    return v;
}

FILTER(truncate)
{
    UNUSED;
    int64_t length = whole(run, arg[0], 255);
    bool killwords = jinja_true(arg[1]);
    jinja_value end =
        arg[2].kind == JINJA_MISSING ? JINJA_LITERAL("...") : arg[2];
    int64_t leeway = arg[3].kind == JINJA_NONE ? 5 : whole(run, arg[3], 5);
    if (!want_text(run, end))
        return self;
    int64_t tail = (int64_t)jinja_chars(end);
    size_t items = 0; /* what is short enough may be anything with a length */
    if (length < tail || leeway < 0)
        return jinja_error(run,
                           "truncate: length %lld or leeway %lld is too "
                           "small",
                           (long long)length, (long long)leeway);
    if (self.kind != JINJA_STR && jinja_length(self, &items) &&
        (int64_t)items <= length + leeway)
        return self;
    if (!want_text(run, self) || (int64_t)jinja_chars(self) <= length + leeway)
        return self;
    jinja_value head =
        jinja_part(self, 0, jinja_char_offset(self, (size_t)(length - tail)));
    if (!killwords) {
        size_t space = jinja_find_last(head, JINJA_LITERAL(" "));
        if (space != SIZE_MAX)
            head = jinja_part(head, 0, space);
    }
    return jinja_binary(run, JINJA_ADD, head, end);
}

FILTER(wordcount)
{
    UNUSED;
    jinja_value s = jinja_soft_str(run, self);
    int64_t n = 0;
    bool inside = false;
    for (size_t at = 0; at < s.n;) {
        uint32_t c;
        at += (size_t)text_utf8_next(s.as.s + at, &c);
        bool word = c == '_' || text_is_numeric(c) ||
                    text_in_ranges(text_alphabetic, text_alphabetic_count, c);
        n += word && !inside;
        inside = word;
    }
    return jinja_int(n);
}

FILTER(center)
{
    UNUSED;
    jinja_value s = jinja_soft_str(run, self);
    jinja_value width = arg[0].kind == JINJA_MISSING ? jinja_int(80) : arg[0];
    jinja_call one = {.arg = &width, .n = 1};
    const jinja_builtin *method = jinja_find_method(s, "center", 6);
    return jinja_failed(run) ? s : jinja_call_builtin(run, method, s, &one);
}

/* ---- numbers
 * ---------------------------------------------------------------------- */

/* The number's text without white space around it and "_" between digits. */
static bool plain_number(jinja_value s, char *out, size_t size)
{
    s = jinja_strip(s, jinja_none(), true, true);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.as.s[i];
        bool digits = i > 0 && i + 1 < s.n && s.as.s[i - 1] >= '0' &&
                      s.as.s[i + 1] >= '0' && s.as.s[i - 1] <= 'z' &&
                      s.as.s[i + 1] <= 'z' && s.as.s[i - 1] != '_';
        if (c == '_' && digits)
            continue;
        if (n + 1 >= size || c == '_' || c == '\0' || c == ' ')
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n > 0;
}

static bool parse_float(jinja_value s, double *out)
{
    char text[512], *end;
    if (!plain_number(s, text, sizeof text) || strpbrk(text, "xXpP(\t\n\v\f\r"))
        return false;
    *out = strtod(text, &end);
    return *end == '\0';
}

/* 1: parsed, 0: no integer, -1: beyond 64 bits. */
static int parse_int(jinja_value s, int base, int64_t *out)
{
    char text[512], *end;
    if (!plain_number(s, text, sizeof text))
        return 0;
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (strspn(digits, "0123456789abcdefghijklmnopqrstuvwxyz"
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(digits))
        return 0;
    bool zero_x = digits[0] == '0' && (digits[1] | 0x20) == 'x';
    if (base == 10 && zero_x)
        return 0;
    errno = 0;
    *out = strtoll(text, &end, base);
    if (*end || end == text)
        return 0;
    return errno == ERANGE ? -1 : 1;
}

static jinja_value truncated(jinja_run *run, double f, jinja_value otherwise)
{
    if (isnan(f))
        return otherwise;
    if (isinf(f))
        return jinja_error(run, "cannot convert float infinity to integer");
    if (f >= 9223372036854775808.0 || f < -9223372036854775808.0)
        return jinja_error(run, "an integer beyond 64 bits");
    return jinja_int((int64_t)f);
}

FILTER(to_int)
{
    UNUSED;
    jinja_value otherwise =
        arg[0].kind == JINJA_MISSING ? jinja_int(0) : arg[0];
    int64_t i, base = whole(run, arg[1], 10);
    double f;
    if (self.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, self);
    if (jinja_as_int(self, &i))
        return jinja_int(i);
    if (self.kind == JINJA_FLOAT)
        return truncated(run, self.as.f, otherwise);
    if (self.kind != JINJA_STR)
        return otherwise;
    int parsed = base == 0 || (base >= 2 && base <= 36)
                     ? parse_int(self, (int)base, &i)
                     : 0;
    if (parsed < 0)
        return jinja_error(run, "an integer beyond 64 bits");
    if (parsed)
        return jinja_int(i);
    if (!parse_float(self, &f) || isinf(f))
        return otherwise;
    return truncated(run, f, otherwise);
}

FILTER(to_float)
{
    UNUSED;
    double f;
    if (self.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, self);
    if (jinja_is_number(self))
        return jinja_float(jinja_as_float(self));
    if (self.kind == JINJA_STR && parse_float(self, &f))
        return jinja_float(f);
    return arg[0].kind == JINJA_MISSING ? jinja_float(0) : arg[0];
}

FILTER(absolute)
{
    UNUSED;
    int64_t i;
    if (self.kind == JINJA_FLOAT)
        return jinja_float(fabs(self.as.f));
    if (jinja_as_int(self, &i))
        return i < 0 ? jinja_negate(run, self) : jinja_int(i);
    if (self.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, self);
    return jinja_error(run, "bad operand type for abs(): '%s'",
                       jinja_type(self));
}

/* Python's round: correctly rounded in decimal, ties to even. */
static jinja_value round_common(jinja_run *run, jinja_value v, int64_t digits)
{
    char text[400];
    int64_t i;
    if (jinja_as_int(v, &i) && digits >= 0)
        return jinja_int(i);
    if (digits < 0) {
        double unit = pow(10, (double)-digits);
        double r = rint(jinja_as_float(v) / unit) * unit;
        return jinja_as_int(v, &i) ? truncated(run, r, v) : jinja_float(r);
    }
    if (!isfinite(v.as.f) || digits > 22)
        return v;
    snprintf(text, sizeof text, "%.*f", (int)digits, v.as.f);
    return jinja_float(strtod(text, NULL));
}

FILTER(rounded)
{
    UNUSED;
    int64_t digits = whole(run, arg[0], 0);
    if (self.kind == JINJA_UNDEFINED)
        return jinja_use_undefined(run, self);
    if (!jinja_is_number(self))
        return jinja_error(run, "type %s cannot be rounded", jinja_type(self));
    if (arg[1].kind == JINJA_MISSING || jinja_is_text(arg[1], "common"))
        return round_common(run, self, digits);
    bool up = jinja_is_text(arg[1], "ceil");
    if (!up && !jinja_is_text(arg[1], "floor"))
        return jinja_error(run, "method must be common, ceil or floor");
    double unit = pow(10, (double)digits), f = jinja_as_float(self) * unit;
    return jinja_float((up ? ceil(f) : floor(f)) / unit);
}

/* ---- any value
 * ---------------------------------------------------------------------- */

FILTER(with_default)
{
    UNUSED;
    bool absent = self.kind == JINJA_UNDEFINED ||
                  (jinja_true(arg[1]) && !jinja_true(self));
    if (!absent)
        return self;
    return arg[0].kind == JINJA_MISSING ? JINJA_LITERAL("") : arg[0];
}

FILTER(length)
{
    UNUSED;
    size_t n;
    if (jinja_length(self, &n))
        return jinja_int((int64_t)n);
    return jinja_error(run, "object of type '%s' has no len()",
                       jinja_type(self));
}

FILTER(attr)
{
    UNUSED;
    if (!want_text(run, arg[0]))
        return self;
    bool method = jinja_find_method(self, arg[0].as.s, arg[0].n) != NULL;
    if (self.kind == JINJA_DICT && !method) /* members are no attributes */
        return jinja_undefined_in(run, self, arg[0]);
    return jinja_get_attribute(run, self, arg[0]);
}

/* One level of tojson's indentation: a number of spaces, or a text. */
static void set_indent(jinja_run *run, jinja_value indent,
                       jinja_json_style *style)
{
    if (indent.kind == JINJA_MISSING || indent.kind == JINJA_NONE)
        return;
    style->indented = true;
    style->item = JINJA_LITERAL(",");
    style->indent = indent;
    if (indent.kind != JINJA_STR)
        style->indent =
            jinja_binary(run, JINJA_MUL, JINJA_LITERAL(" "), indent);
}

FILTER(tojson)
{
    UNUSED;
    jinja_json_style style = {.ascii = jinja_true(arg[0]),
                              .sort = jinja_true(arg[3]),
                              .item = JINJA_LITERAL(", "),
                              .key = JINJA_LITERAL(": ")};
    base_str out = {0};
    set_indent(run, arg[1], &style);
    if (arg[2].kind != JINJA_MISSING && arg[2].kind != JINJA_NONE) {
        jinja_list pair = jinja_items(run, arg[2]);
        if (jinja_failed(run) || pair.n != 2 ||
            pair.item[0].kind != JINJA_STR || pair.item[1].kind != JINJA_STR)
            return jinja_error(run, "separators must be two strings");
        style.item = pair.item[0];
        style.key = pair.item[1];
    }
    if (!jinja_failed(run))
        jinja_put_json(run, self, &style, &out);
    return jinja_str_take(run, &out);
}

const jinja_builtin jinja_filters[] = {
    {"trim", trim, "chars", 0, false},
    {"tojson", tojson, "ensure_ascii,indent,separators,sort_keys", 0, false},
    {"length", length, "", 0, false},
    {"string", string, "", 0, false},
    {"safe", safe, "", 0, false},
    {"default", with_default, "default_value,boolean", 0, false},
    {"upper", upper, "", 0, false},
    {"lower", lower, "", 0, false},
    {"capitalize", capitalize, "", 0, false},
    {"title", title, "", 0, false},
    {"indent", indent, "width,first,blank", 0, false},
    {"int", to_int, "default,base", 0, false},
    {"float", to_float, "default", 0, false},
    {"abs", absolute, "", 0, false},
    {"round", rounded, "precision,method", 0, false},
    {"replace", replace, "old,new,count", 2, false},
    {"format", format, NULL, 0, false},
    {"truncate", truncate, "length,killwords,end,leeway", 0, false},
    {"wordcount", wordcount, "", 0, false},
    {"center", center, "width", 0, false},
    {"count", length, "", 0, false},
    {"d", with_default, "default_value,boolean", 0, false},
    {"e", escape, "", 0, false},
    {"escape", escape, "", 0, false},
    {"forceescape", forceescape, "", 0, false},
    {"attr", attr, "name", 1, false},
};
const size_t jinja_filters_count = sizeof jinja_filters / sizeof *jinja_filters;
