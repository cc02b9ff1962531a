/* jinja_str.c - what Python's str does, on UTF-8: positions count code
 * points, letter case is Unicode's full mapping, white space is str.isspace.
 * Includes base only. Source: Python 3.11's str; tools/gen_unicode.py. */
#include "text/jinja_i.h"

bool text_is_python_space(uint32_t c)
{
    return text_is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

size_t jinja_chars(jinja_value s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.as.s[i] & 0xC0) != 0x80;
    return n;
}

size_t jinja_char_offset(jinja_value s, size_t k)
{
    size_t at = 0;
    uint32_t c;
    while (k-- > 0 && at < s.n)
        at += (size_t)text_utf8_next(s.as.s + at, &c);
    return at;
}

jinja_value jinja_part(jinja_value s, size_t from, size_t to)
{
    jinja_value part = jinja_str(s.as.s + from, to - from);
    part.safe = s.safe;
    return part;
}

/* ---- strip, find, replace, split
 * --------------------------------------------- */

static bool is_stripped(uint32_t c, jinja_value chars)
{
    if (chars.kind != JINJA_STR)
        return text_is_python_space(c);
    for (size_t i = 0; i < chars.n;) {
        uint32_t one;
        i += (size_t)text_utf8_next(chars.as.s + i, &one);
        if (one == c)
            return true;
    }
    return false;
}

jinja_value jinja_strip(jinja_value s, jinja_value chars, bool left, bool right)
{
    size_t from = 0, to = s.n;
    uint32_t c;
    while (left && from < to) {
        size_t step = (size_t)text_utf8_next(s.as.s + from, &c);
        if (!is_stripped(c, chars))
            break;
        from += step;
    }
    while (right && to > from) {
        size_t step = (size_t)text_utf8_before(s.as.s, to, &c);
        if (!is_stripped(c, chars))
            break;
        to -= step;
    }
    return jinja_part(s, from, to);
}

size_t jinja_find(jinja_value s, jinja_value what, size_t from)
{
    if (from > s.n || what.n > s.n - from)
        return SIZE_MAX;
    if (what.n == 0)
        return from;
    const char *hit = memmem(s.as.s + from, s.n - from, what.as.s, what.n);
    return hit ? (size_t)(hit - s.as.s) : SIZE_MAX;
}

size_t jinja_find_last(jinja_value s, jinja_value what)
{
    for (size_t at = s.n + 1; at-- > 0;)
        if (what.n <= s.n - at &&
            (what.n == 0 || memcmp(s.as.s + at, what.as.s, what.n) == 0))
            return at;
    return SIZE_MAX;
}

/* An empty `old` stands before every character and at the end. */
static void replace_nothing(jinja_value s, jinja_value with, int64_t count,
                            base_str *out)
{
    for (size_t at = 0; at <= s.n;) {
        uint32_t c;
        if (count-- != 0)
            base_str_add(out, with.as.s, with.n);
        else
            count = 0;
        size_t step = at < s.n ? (size_t)text_utf8_next(s.as.s + at, &c) : 1;
        if (at < s.n)
            base_str_add(out, s.as.s + at, step);
        at += step;
    }
}

jinja_value jinja_replace(jinja_run *run, jinja_value s, jinja_value old,
                          jinja_value with, int64_t count)
{
    base_str out = {0};
    size_t at = 0, hit;
    if (!jinja_step(run, s.n))
        return s;
    if (old.n == 0) {
        if (!jinja_step(run, (size_t)s.n * with.n) ||
            (size_t)s.n * with.n > JINJA_MAX_OUTPUT)
            return jinja_error(run, "a string of more than %zu MiB",
                               JINJA_MAX_OUTPUT >> 20);
        replace_nothing(s, with, count, &out);
        return jinja_str_take(run, &out);
    }
    while (count-- != 0 && (hit = jinja_find(s, old, at)) != SIZE_MAX &&
           !jinja_failed(run)) {
        base_str_add(&out, s.as.s + at, hit - at);
        base_str_add(&out, with.as.s, with.n);
        if (out.len > JINJA_MAX_OUTPUT)
            jinja_error(run, "a string of more than %zu MiB",
                        JINJA_MAX_OUTPUT >> 20);
        at = hit + old.n;
    }
    base_str_add(&out, s.as.s + at, s.n - at);
    return jinja_str_take(run, &out);
}

/* The next part between separators, from the left: [*at, *end), next at
 * *next. False when nothing is left. */
static bool split_space(jinja_value s, size_t *at, size_t *end, bool whole)
{
    uint32_t c;
    while (*at < s.n) {
        size_t step = (size_t)text_utf8_next(s.as.s + *at, &c);
        if (!text_is_python_space(c))
            break;
        *at += step;
    }
    for (*end = *at; *end < s.n;) {
        size_t step = (size_t)text_utf8_next(s.as.s + *end, &c);
        if (!whole && text_is_python_space(c))
            break;
        *end += step;
    }
    return *end > *at;
}

/* The same from the right: [*from, *to) before *to. */
static bool split_space_right(jinja_value s, size_t *from, size_t *to,
                              bool whole)
{
    uint32_t c;
    while (*to > 0) {
        size_t step = (size_t)text_utf8_before(s.as.s, *to, &c);
        if (!text_is_python_space(c))
            break;
        *to -= step;
    }
    for (*from = *to; *from > 0;) {
        size_t step = (size_t)text_utf8_before(s.as.s, *from, &c);
        if (!whole && text_is_python_space(c))
            break;
        *from -= step;
    }
    return *to > *from;
}

typedef struct parts {
    jinja_value *item;
    size_t n, cap;
} parts;

static void add_part(jinja_run *run, parts *list, jinja_value part)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 8;
        jinja_value *item = jinja_take(&run->arena, cap, sizeof *item);
        if (!jinja_step(run, cap * sizeof *item) || !item)
            return;
        if (list->n)
            memcpy(item, list->item, list->n * sizeof *item);
        list->item = item;
        list->cap = cap;
    }
    list->item[list->n++] = part;
}

static void split_left(jinja_run *run, jinja_value s, jinja_value separator,
                       int64_t most, parts *out)
{
    size_t at = 0, end;
    if (separator.kind != JINJA_STR) {
        while (!jinja_failed(run)) {
            bool whole = most >= 0 && (int64_t)out->n >= most;
            if (!split_space(s, &at, &end, whole))
                return;
            add_part(run, out, jinja_part(s, at, end));
            at = end;
        }
        return;
    }
    while ((most < 0 || (int64_t)out->n < most) && !jinja_failed(run) &&
           (end = jinja_find(s, separator, at)) != SIZE_MAX) {
        add_part(run, out, jinja_part(s, at, end));
        at = end + separator.n;
    }
    add_part(run, out, jinja_part(s, at, s.n));
}

static void split_right(jinja_run *run, jinja_value s, jinja_value separator,
                        int64_t most, parts *out)
{
    size_t from, to = s.n;
    if (separator.kind != JINJA_STR) {
        while (!jinja_failed(run)) {
            bool whole = most >= 0 && (int64_t)out->n >= most;
            if (!split_space_right(s, &from, &to, whole))
                break;
            add_part(run, out, jinja_part(s, from, to));
            to = from;
        }
    } else {
        while ((most < 0 || (int64_t)out->n < most) && !jinja_failed(run)) {
            if (!jinja_step(run, to * separator.n))
                return;
            from = jinja_find_last(jinja_part(s, 0, to), separator);
            if (from == SIZE_MAX)
                break;
            add_part(run, out, jinja_part(s, from + separator.n, to));
            to = from;
        }
        add_part(run, out, jinja_part(s, 0, to));
    }
    for (size_t i = 0; i < out->n / 2; i++) {
        jinja_value swap = out->item[i];
        out->item[i] = out->item[out->n - 1 - i];
        out->item[out->n - 1 - i] = swap;
    }
}

static jinja_value parts_list(jinja_run *run, const parts *found)
{
    jinja_value *item, list = jinja_list_new(run, JINJA_LIST, found->n, &item);
    if (!jinja_failed(run) && found->n)
        memcpy(item, found->item, found->n * sizeof *item);
    return list;
}

jinja_value jinja_split(jinja_run *run, jinja_value s, jinja_value separator,
                        int64_t most, bool from_right)
{
    parts found = {0};
    if (!jinja_step(run, s.n))
        return s;
    if (separator.kind == JINJA_STR && separator.n == 0)
        return jinja_error(run, "empty separator");
    if (from_right && most >= 0)
        split_right(run, s, separator, most, &found);
    else
        split_left(run, s, separator, most, &found);
    return parts_list(run, &found);
}

/* What str.splitlines takes for a line end. */
static bool is_line_end(uint32_t c)
{
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
           c == 0x2028 || c == 0x2029;
}

jinja_value jinja_split_lines(jinja_run *run, jinja_value s, bool keep_ends)
{
    parts found = {0};
    size_t from = 0;
    for (size_t at = 0; at < s.n && jinja_step(run, 0);) {
        uint32_t c = 0;
        size_t end = at;
        while (at < s.n) {
            end = at;
            at += (size_t)text_utf8_next(s.as.s + at, &c);
            if (is_line_end(c))
                break;
            end = at;
        }
        if (c == '\r' && at < s.n && s.as.s[at] == '\n')
            at++;
        add_part(run, &found, jinja_part(s, from, keep_ends ? at : end));
        from = at;
    }
    return parts_list(run, &found);
}

/* ---- letter case
 * -------------------------------------------------------------------- */

static const text_case_special *special_case(uint32_t c)
{
    size_t lo = 0, hi = text_case_specials_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (text_case_specials[mid].c == c)
            return &text_case_specials[mid];
        if (text_case_specials[mid].c < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static const text_case_range *case_range(uint32_t c)
{
    size_t lo = 0, hi = text_case_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const text_case_range *r = &text_case[mid];
        if (c > r->last)
            lo = mid + 1;
        else if (c < r->first)
            hi = mid;
        else
            return r;
    }
    return NULL;
}

/* Whether a sigma at `at` ends a word: a cased letter before it and none
 * behind it, case-ignorable characters skipped. Source: Unicode 3.13. */
static bool is_final_sigma(jinja_value s, size_t at, size_t length)
{
    uint32_t c = 0;
    size_t i = at;
    bool cased = false;
    while (i > 0) {
        i -= (size_t)text_utf8_before(s.as.s, i, &c);
        if (!text_in_ranges(text_case_ignorable, text_case_ignorable_count,
                            c)) {
            cased = text_in_ranges(text_cased, text_cased_count, c);
            break;
        }
    }
    if (!cased)
        return false;
    for (i = at + length; i < s.n;) {
        i += (size_t)text_utf8_next(s.as.s + i, &c);
        if (!text_in_ranges(text_case_ignorable, text_case_ignorable_count, c))
            return !text_in_ranges(text_cased, text_cased_count, c);
    }
    return true;
}

/* The character at `at` in upper, lower or title case (the others). */
static void put_case(jinja_value s, size_t at, size_t length, uint32_t c,
                     jinja_case how, base_str *out)
{
    const text_case_special *special = c < 0x80 ? NULL : special_case(c);
    const text_case_range *range = case_range(c);
    char text[4];
    const char *fixed = NULL;
    if (special)
        fixed = how == JINJA_UPPER   ? special->upper
                : how == JINJA_LOWER ? special->lower
                                     : special->title;
    if (c == 0x3A3 && how == JINJA_LOWER)
        fixed = is_final_sigma(s, at, length) ? "\xCF\x82" : "\xCF\x83";
    if (fixed) {
        base_str_puts(out, fixed);
        return;
    }
    if (range)
        c = (uint32_t)((int64_t)c +
                       (how == JINJA_LOWER ? range->lower : range->upper));
    base_str_add(out, text, (size_t)text_utf8_put(c, text));
}

/* Jinja's title filter takes a word to begin after any of these. */
static bool divides_words(uint32_t c)
{
    return text_is_python_space(c) ||
           (c < 0x80 && c && strchr("-({[<", (int)c));
}

/* A word of that filter at s[from..to): what follows its first character is
 * lowered as a string of its own. */
static void put_word(jinja_value s, size_t from, size_t to, base_str *out)
{
    uint32_t c;
    size_t length = (size_t)text_utf8_next(s.as.s + from, &c);
    put_case(s, from, length, c, JINJA_UPPER, out);
    jinja_value rest = jinja_part(s, from + length, to);
    for (size_t at = 0; at < rest.n; at += length) {
        length = (size_t)text_utf8_next(rest.as.s + at, &c);
        put_case(rest, at, length, c, JINJA_LOWER, out);
    }
}

static void put_words(jinja_value s, base_str *out)
{
    uint32_t c;
    for (size_t at = 0; at < s.n;) {
        size_t end = at, length = 0;
        for (; end < s.n; end += length) {
            length = (size_t)text_utf8_next(s.as.s + end, &c);
            if (divides_words(c))
                break;
        }
        if (end > at)
            put_word(s, at, end, out);
        if (end < s.n)
            base_str_add(out, s.as.s + end, length);
        at = end + length * (end < s.n);
    }
}

jinja_value jinja_change_case(jinja_run *run, jinja_value s, jinja_case how)
{
    base_str out = {0};
    uint32_t c = 0;
    bool inside = false; /* after a cased character */
    if (!jinja_step(run, (size_t)s.n * 8))
        return s;
    if (how == JINJA_WORDS)
        put_words(s, &out);
    for (size_t at = 0; at < s.n && how != JINJA_WORDS;) {
        size_t length = (size_t)text_utf8_next(s.as.s + at, &c);
        bool later = how == JINJA_CAPITALIZE ? at > 0 : inside;
        bool first_only = how == JINJA_CAPITALIZE || how == JINJA_TITLE;
        put_case(s, at, length, c, first_only && later ? JINJA_LOWER : how,
                 &out);
        inside = text_in_ranges(text_cased, text_cased_count, c);
        at += length;
    }
    jinja_value v = jinja_str_take(run, &out);
    v.safe = s.safe && how != JINJA_WORDS;
    return v;
}
