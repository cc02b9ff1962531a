/* jinja_format.c - Python's two ways to format (% and str.format, the latter
 * without format specifications) and strftime. Includes base only.
 * Source: Python 3.11's printf-style formatting; string.Formatter. */
#include <stdio.h>
#include <time.h>

#include "text/jinja_i.h"

/* ---- format % values
 * ---------------------------------------------------------- */

/* One conversion: %[(key)][flags][width][.precision]letter. */
typedef struct spec {
    bool left, plus, space, zero, alternate, has_precision;
    int width, precision;
    char letter;
} spec;

typedef struct percent {
    jinja_run *run;
    jinja_value values; /* a tuple's items one by one, else one value */
    size_t used;
    bool mapped; /* a %(key)s was seen */
    bool safe;   /* the format is Markup: values are escaped */
} percent;

static jinja_value next_value(percent *p)
{
    bool tuple = p->values.kind == JINJA_TUPLE;
    size_t n = tuple ? p->values.as.list->n : 1;
    if (p->used >= n)
        return jinja_error(p->run, "not enough arguments for format string");
    size_t i = p->used++;
    return tuple ? p->values.as.list->item[i] : p->values;
}

/* A number of a specification, or "*" for the next value. */
static size_t read_number(percent *p, jinja_value f, size_t at, int *out)
{
    *out = 0;
    if (at < f.n && f.as.s[at] == '*') {
        int64_t i = 0;
        if (!jinja_as_int(next_value(p), &i) || i > 4096 || i < -4096)
            jinja_error(p->run, "a width that is no integer up to 4096");
        else
            *out = (int)i;
        return at + 1;
    }
    for (; at < f.n && f.as.s[at] >= '0' && f.as.s[at] <= '9'; at++) {
        *out = *out * 10 + (f.as.s[at] - '0');
        if (*out > 4096) {
            jinja_error(p->run, "a width or precision over 4096");
            *out = 0;
        }
    }
    return at;
}

static size_t read_flags(jinja_value f, size_t at, spec *s)
{
    for (; at < f.n; at++) {
        switch (f.as.s[at]) {
        case '-':
            s->left = true;
            break;
        case '+':
            s->plus = true;
            break;
        case ' ':
            s->space = true;
            break;
        case '0':
            s->zero = true;
            break;
        case '#':
            s->alternate = true;
            break;
        default:
            return at;
        }
    }
    return at;
}

/* Appends text of `n` characters in its width; a number's zeros go behind its
 * sign and prefix (`head` bytes). */
static void pad(const spec *s, const char *text, size_t bytes, size_t chars,
                size_t head, base_str *out)
{
    size_t width = s->width > 0 ? (size_t)s->width : 0;
    size_t fill = width > chars ? width - chars : 0;
    bool zeros = s->zero && !s->left && head != SIZE_MAX;
    size_t first = zeros ? head : 0;
    base_str_add(out, text, first);
    for (size_t i = 0; i < fill && !s->left; i++)
        base_str_puts(out, zeros ? "0" : " ");
    base_str_add(out, text + first, bytes - first);
    for (size_t i = 0; i < fill && s->left; i++)
        base_str_puts(out, " ");
}

static const char *sign_of(const spec *s, bool negative)
{
    if (negative)
        return "-";
    return s->plus ? "+" : s->space ? " " : "";
}

static void put_integer(percent *p, const spec *s, jinja_value v, base_str *out)
{
    int64_t i;
    char digits[80];
    base_str text = {0};
    const char *prefix = "";
    bool decimal = strchr("diu", s->letter) != NULL;
    if (v.kind == JINJA_FLOAT && decimal && v.as.f > -9e18 && v.as.f < 9e18) {
        v = jinja_int((int64_t)v.as.f);
    } else if (!jinja_as_int(v, &i)) {
        jinja_error(p->run, "%%%c format: a number is required, not %s",
                    s->letter, jinja_type(v));
        return;
    }
    jinja_as_int(v, &i);
    uint64_t u = i < 0 ? (uint64_t)0 - (uint64_t)i : (uint64_t)i;
    if (s->letter == 'x' || s->letter == 'X') {
        snprintf(digits, sizeof digits, s->letter == 'x' ? "%llx" : "%llX",
                 (unsigned long long)u);
        prefix = s->letter == 'x' ? "0x" : "0X";
    } else if (s->letter == 'o') {
        snprintf(digits, sizeof digits, "%llo", (unsigned long long)u);
        prefix = "0o";
    } else {
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)u);
    }
    base_str_puts(&text, sign_of(s, i < 0));
    base_str_puts(&text, s->alternate ? prefix : "");
    size_t head = text.len, length = strlen(digits);
    for (int k = (int)length; s->has_precision && k < s->precision; k++)
        base_str_puts(&text, "0");
    base_str_puts(&text, digits);
    pad(s, text.s ? text.s : "", text.len, text.len, head, out);
    base_str_free(&text);
}

static void put_float(percent *p, const spec *s, jinja_value v, base_str *out)
{
    char format[8] = "%.*f", digits[4700];
    base_str text = {0};
    if (!jinja_is_number(v)) {
        jinja_error(p->run, "must be real number, not %s", jinja_type(v));
        return;
    }
    double f = jinja_as_float(v);
    bool negative = f < 0 || (f == 0 && 1 / f < 0);
    if (s->alternate)
        strcpy(format, "%#.*f");
    format[strlen(format) - 1] = s->letter;
    int precision = s->has_precision && s->precision >= 0 ? s->precision : 6;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(digits, sizeof digits, format, precision, negative ? -f : f);
#pragma GCC diagnostic pop
    base_str_puts(&text, sign_of(s, negative));
    size_t head = text.len;
    base_str_puts(&text, digits);
    pad(s, text.s ? text.s : "", text.len, text.len, head, out);
    base_str_free(&text);
}

static void put_text(percent *p, const spec *s, jinja_value v, base_str *out)
{
    base_str text = {0};
    if (p->safe)
        v = jinja_escape(p->run, v);
    if (s->letter == 's')
        jinja_put_str(p->run, v, &text);
    else
        jinja_put_repr(p->run, v, &text);
    jinja_value all = jinja_str_take(p->run, &text);
    size_t bytes = s->has_precision && s->precision >= 0
                       ? jinja_char_offset(all, (size_t)s->precision)
                       : all.n;
    jinja_value part = jinja_part(all, 0, bytes);
    pad(s, part.as.s, part.n, jinja_chars(part), SIZE_MAX, out);
}

static void put_char(percent *p, const spec *s, jinja_value v, base_str *out)
{
    int64_t c;
    char text[4];
    size_t n = 0;
    if (v.kind == JINJA_STR && jinja_chars(v) == 1) {
        n = v.n;
        memcpy(text, v.as.s, n);
    } else if (jinja_as_int(v, &c) && c >= 0 && c <= 0x10FFFF &&
               (c < 0xD800 || c > 0xDFFF)) {
        n = (size_t)text_utf8_put((uint32_t)c, text);
    } else {
        jinja_error(p->run, "%%c requires int or char");
    }
    pad(s, text, n, 1, SIZE_MAX, out);
}

/* "(key)" at f[at] looks the value up; returns the offset behind it. */
static size_t read_key(percent *p, jinja_value f, size_t at, jinja_value *value)
{
    size_t end = at;
    int open = 1;
    while (end < f.n && open > 0) {
        open += (f.as.s[end] == '(') - (f.as.s[end] == ')');
        end++;
    }
    if (open || p->values.kind != JINJA_DICT) {
        jinja_error(p->run, open ? "incomplete format key"
                                 : "format requires a mapping");
        return f.n;
    }
    jinja_value key = jinja_part(f, at, end - 1);
    const jinja_value *found = jinja_dict_find(p->run, p->values.as.dict, key);
    if (found)
        *value = *found;
    else
        jinja_error(p->run, "format key '%.*s' is missing", (int)key.n,
                    key.as.s);
    p->mapped = true;
    return end;
}

/* The conversion behind a "%" at f[at - 1]; returns the offset behind it. */
static size_t put_conversion(percent *p, jinja_value f, size_t at,
                             base_str *out)
{
    spec s = {0};
    jinja_value value = {0};
    if (at < f.n && f.as.s[at] == '(')
        at = read_key(p, f, at + 1, &value);
    at = read_flags(f, at, &s);
    at = read_number(p, f, at, &s.width);
    if (s.width < 0) {
        s.left = true;
        s.width = -s.width;
    }
    if (at < f.n && f.as.s[at] == '.') {
        s.has_precision = true;
        at = read_number(p, f, at + 1, &s.precision);
    }
    while (at < f.n && strchr("hlL", f.as.s[at]) && f.as.s[at])
        at++;
    if (at >= f.n) {
        jinja_error(p->run, "incomplete format");
        return at;
    }
    s.letter = f.as.s[at];
    if (s.letter == '%') {
        base_str_puts(out, "%");
        return at + 1;
    }
    if (value.kind == JINJA_MISSING)
        value = next_value(p);
    if (jinja_failed(p->run))
        return f.n;
    if (s.letter == 's' || s.letter == 'r' || s.letter == 'a')
        put_text(p, &s, value, out);
    else if (s.letter && strchr("diuxXo", s.letter))
        put_integer(p, &s, value, out);
    else if (s.letter && strchr("fFeEgG", s.letter))
        put_float(p, &s, value, out);
    else if (s.letter == 'c')
        put_char(p, &s, value, out);
    else
        jinja_error(p->run, "unsupported format character");
    return at + 1;
}

jinja_value jinja_percent(jinja_run *run, jinja_value f, jinja_value values)
{
    percent p = {.run = run, .values = values, .safe = f.safe};
    base_str out = {0};
    for (size_t at = 0; at < f.n && jinja_step(run, 0);) {
        const char *hit = memchr(f.as.s + at, '%', f.n - at);
        size_t end = hit ? (size_t)(hit - f.as.s) : f.n;
        base_str_add(&out, f.as.s + at, end - at);
        at = hit ? put_conversion(&p, f, end + 1, &out) : f.n;
        if (out.len > JINJA_MAX_OUTPUT)
            jinja_error(run, "a string of more than %zu MiB",
                        JINJA_MAX_OUTPUT >> 20);
    }
    size_t n = values.kind == JINJA_TUPLE ? values.as.list->n : 1;
    /* What could be a mapping need not be used. */
    bool spare_allowed =
        values.kind == JINJA_DICT || values.kind == JINJA_LIST ||
        values.kind == JINJA_RANGE || values.kind == JINJA_UNDEFINED;
    if (p.used < n && !p.mapped && !spare_allowed)
        jinja_error(run,
                    "not all arguments converted during string formatting");
    jinja_value v = jinja_str_take(run, &out);
    v.safe = f.safe;
    return v;
}

/* ---- format.format(...)
 * ------------------------------------------------------------ */

/* Fields are numbered by themselves or by the text, not both: *next counts
 * the former, and is SIZE_MAX after one of the latter. */
static jinja_value brace_value(jinja_run *run, jinja_value name,
                               const jinja_call *call, size_t *next)
{
    size_t i = 0, digits = 0;
    while (digits < name.n && digits < 6 && name.as.s[digits] >= '0' &&
           name.as.s[digits] <= '9')
        i = i * 10 + (size_t)(name.as.s[digits++] - '0');
    if (name.n == 0 || digits == name.n) {
        if (name.n == 0 ? *next == SIZE_MAX : *next && *next != SIZE_MAX)
            return jinja_error(run, "format: fields both with and without "
                                    "numbers");
        i = name.n == 0 ? *next : i;
        *next = name.n == 0 ? i + 1 : SIZE_MAX;
        if (i < call->n)
            return call->arg[i];
        return jinja_error(run, "format: no argument %zu", i);
    }
    for (size_t k = 0; k < call->n_keywords; k++)
        if (jinja_same_text(call->keyword[k].name, name.as.s, name.n))
            return call->keyword[k].value;
    return jinja_error(run,
                       "format: no argument '%.*s' (only plain names and "
                       "numbers are supported)",
                       (int)name.n, name.as.s);
}

/* "{...}" with its inside at f[at..end). */
static void put_field(jinja_run *run, jinja_value f, size_t at, size_t end,
                      const jinja_call *call, size_t *next, base_str *out)
{
    jinja_value inside = jinja_part(f, at, end);
    bool repr =
        inside.n >= 2 && memcmp(inside.as.s + inside.n - 2, "!r", 2) == 0;
    if (repr ||
        (inside.n >= 2 && memcmp(inside.as.s + inside.n - 2, "!s", 2) == 0))
        inside = jinja_part(inside, 0, inside.n - 2);
    if (memchr(inside.as.s, ':', inside.n)) {
        jinja_error(run, "format: specifications after ':' are not supported");
        return;
    }
    jinja_value v = brace_value(run, inside, call, next);
    if (jinja_failed(run))
        return;
    if (f.safe && !repr)
        v = jinja_escape(run, v);
    if (repr)
        jinja_put_repr(run, v, out);
    else
        jinja_put_str(run, v, out);
}

jinja_value jinja_brace_format(jinja_run *run, jinja_value f,
                               const jinja_call *call)
{
    base_str out = {0};
    size_t next = 0;
    for (size_t at = 0; at < f.n && jinja_step(run, 0); at++) {
        char c = f.as.s[at];
        bool doubled = at + 1 < f.n && f.as.s[at + 1] == c;
        if (c != '{' && c != '}') {
            base_str_add(&out, f.as.s + at, 1);
        } else if (doubled) {
            base_str_add(&out, f.as.s + at++, 1);
        } else {
            const char *end = memchr(f.as.s + at, '}', f.n - at);
            if (c == '}' || !end) {
                jinja_error(run, "format: single '%c' in the string", c);
                break;
            }
            size_t close = (size_t)(end - f.as.s);
            put_field(run, f, at + 1, close, call, &next, &out);
            at = close;
        }
    }
    jinja_value v = jinja_str_take(run, &out);
    v.safe = f.safe;
    return v;
}

/* ---- strftime_now
 * -------------------------------------------------------------------- */

jinja_value jinja_strftime(jinja_run *run, jinja_value format)
{
    time_t now = (time_t)run->now_s;
    struct tm local = {0};
    char text[512];
    base_str plain = {0};
    if (format.kind != JINJA_STR)
        return jinja_error(run, "strftime_now needs a format, not %s",
                           jinja_type(format));
    if (!localtime_r(&now, &local) || format.n > 128 ||
        memchr(format.as.s, '\0', format.n))
        return jinja_error(run, "strftime_now: a format of more than 128 bytes "
                                "or with a NUL");
    /* Python's datetime here has no zone and no microseconds of its own. */
    for (size_t i = 0; i < format.n; i++) {
        bool directive = format.as.s[i] == '%' && i + 1 < format.n;
        char letter = directive ? format.as.s[i + 1] : '\0';
        if (letter == 'f')
            base_str_puts(&plain, "000000");
        else if (directive && letter != 'z' && letter != 'Z')
            base_str_add(&plain, format.as.s + i, 2);
        else if (!directive)
            base_str_add(&plain, format.as.s + i, 1);
        i += directive;
    }
    base_str_puts(&plain, "|"); /* an empty result is not a failure */
    size_t n = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (!plain.failed)
        n = strftime(text, sizeof text, plain.s, &local);
#pragma GCC diagnostic pop
    base_str_free(&plain);
    if (n == 0 || base_utf8_valid(text, n) != n)
        return jinja_error(run, "strftime_now: the result is too long");
    base_str out = {0};
    base_str_add(&out, text, n - 1);
    return jinja_str_take(run, &out);
}
