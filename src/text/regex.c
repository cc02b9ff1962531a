/* regex.c - runs the Split patterns of tokenizer.json, which are written for
 * Oniguruma (Ruby syntax), with PCRE2. The pattern is read token by token:
 * what means the same in both passes, \s \S \v \u are respelled, and anything
 * else is refused, so an accepted pattern splits alike (up to characters that
 * are newer than PCRE2's Unicode). Includes base.
 * Source: spec/text.md 1.8; Oniguruma doc/RE; pcre2pattern(3). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

#include "text/text_i.h"

/* Unicode White_Space, which is Oniguruma's \s; PCRE2's also has U+180E. */
#define SPACES                                                                 \
    "\\x09-\\x0D\\x20\\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}"          \
    "\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NOT_SPACES                                                             \
    "\\x00-\\x08\\x0E-\\x1F\\x21-\\x84\\x86-\\x9F\\xA1-\\x{167F}\\x{1681}-"    \
    "\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}"       \
    "\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"

/* Steps of one search; PCRE2's default, stated because it is our bound. */
#define MATCH_LIMIT 10000000
#define HEAP_LIMIT  (64 * 1024) /* KiB */

struct text_regex {
    pcre2_code *code;
    bool jit;
    char *where; /* for errors */
};

struct text_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
};

/* ---- translation ----------------------------------------------------- */

#define MAX_GROUPS 64

typedef struct reader {
    const char *s;
    size_t n, i;
    base_str out;
    bool fold[MAX_GROUPS]; /* (?i) in force, by depth */
    int depth;
    char folded; /* ASCII letter before this one inside (?i), else 0 */
    const char *where;
    lori_error *err;
} reader;

static lori_status refuse(reader *r, size_t at, const char *what)
{
    return base_fail(r->err, LORI_UNSUPPORTED,
                     "%s: %s at byte %zu of the pattern: its meaning differs "
                     "between regex engines, so it is refused",
                     r->where, what, at);
}

static int peek(const reader *r, size_t k)
{
    return r->i + k < r->n ? (unsigned char)r->s[r->i + k] : -1;
}

static bool starts(const reader *r, const char *z)
{
    size_t n = strlen(z);
    return r->n - r->i >= n && memcmp(r->s + r->i, z, n) == 0;
}

static void copy(reader *r, size_t n)
{
    base_str_add(&r->out, r->s + r->i, n);
    r->i += n;
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int hex_value(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \p{..}: general categories only. Scripts, binary properties and POSIX names
 * have other members or spellings in the two engines. */
static lori_status read_property(reader *r)
{
    static const char *const names[] = {
        "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",
        "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
        "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf"};
    size_t at = r->i, from = 3, to;
    bool negated = peek(r, 1) == 'P';
    if (peek(r, 2) != '{')
        return refuse(r, at, "\\p without braces");
    if (peek(r, 3) == '^') {
        negated = !negated;
        from = 4;
    }
    for (to = from; is_letter(peek(r, to)); to++)
        ;
    if (peek(r, to) == '}')
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (strlen(names[k]) == to - from &&
                memcmp(names[k], r->s + at + from, to - from) == 0) {
                base_str_printf(&r->out, "\\%c{%s}", negated ? 'P' : 'p',
                                names[k]);
                r->i += to + 1;
                return LORI_OK;
            }
    return refuse(r, at, "\\p{...} that is not a general category");
}

/* \xHH, \x{H...}, \uHHHH */
static lori_status read_code_point(reader *r)
{
    size_t at = r->i, k = 2, digits = 0;
    bool braces = peek(r, 1) == 'x' && peek(r, 2) == '{';
    size_t most = braces ? 6 : peek(r, 1) == 'u' ? 4 : 2;
    uint32_t c = 0;
    if (braces)
        k++;
    for (; digits < most && hex_value(peek(r, k)) >= 0; k++, digits++)
        c = c * 16 + (uint32_t)hex_value(peek(r, k));
    if (braces ? digits == 0 || peek(r, k) != '}' : digits != most)
        return refuse(r, at, "an incomplete character code");
    /* Oniguruma reads \x80-\xFF as a byte of UTF-8, PCRE2 as a character. */
    if (!braces && most == 2 && c >= 0x80)
        return refuse(r, at, "\\xHH above 7F");
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return refuse(r, at, "a code that is no character");
    base_str_printf(&r->out, "\\x{%X}", (unsigned)c);
    r->i += k + (braces ? 1 : 0);
    return LORI_OK;
}

/* An escape that means the same inside and outside a class; *single tells
 * whether it is one character (may be a range end). */
static lori_status read_escape(reader *r, bool in_class, bool *single)
{
    int c = peek(r, 1);
    *single = false;
    if (c == 's' || c == 'S') {
        if (!in_class)
            base_str_puts(&r->out, c == 's' ? "[" : "[^");
        base_str_puts(&r->out, in_class && c == 'S' ? NOT_SPACES : SPACES);
        if (!in_class)
            base_str_puts(&r->out, "]");
        r->i += 2;
        return LORI_OK;
    }
    if (r->fold[r->depth] && c > 0 && strchr("pPxu", c))
        return refuse(r, r->i, "this escape where case is ignored");
    if (c == 'p' || c == 'P')
        return read_property(r);
    if (c == 'd' || c == 'D') {
        copy(r, 2);
        return LORI_OK;
    }
    *single = true;
    if (c == 'x' || c == 'u')
        return read_code_point(r);
    if (c == 'v') {
        base_str_puts(&r->out, "\\x0B");
        r->i += 2;
        return LORI_OK;
    }
    if (c == 'r' || c == 'n' || c == 't' || c == 'f' || c == 'a' || c == 'e' ||
        (c > 0x20 && c < 0x7F && !is_letter(c) && !(c >= '0' && c <= '9'))) {
        copy(r, 2);
        return LORI_OK;
    }
    if (c == ' ' || c >= 0x80) { /* an escaped literal */
        uint32_t cp;
        r->i++;
        copy(r, (size_t)text_utf8_next(r->s + r->i, &cp));
        return LORI_OK;
    }
    return refuse(r, r->i, "this escape");
}

/* [...] without nested sets, &&, or POSIX names. */
static lori_status read_class(reader *r)
{
    size_t at = r->i, first;
    bool fold = r->fold[r->depth], range_end = false;
    copy(r, 1);
    if (peek(r, 0) == '^') {
        if (fold)
            return refuse(r, at, "a negated class that ignores case");
        copy(r, 1);
    }
    for (first = r->i; peek(r, 0) != ']' || r->i == first;) {
        int c = peek(r, 0);
        bool single = true;
        if (c < 0)
            return base_fail(r->err, LORI_FORMAT,
                             "%s: '[' at byte %zu of the pattern is not closed",
                             r->where, at);
        if (c == '[' || starts(r, "&&"))
            return refuse(r, r->i, "a nested or intersected class");
        if (c == ']')
            return refuse(r, at, "']' as first member of a class");
        if (fold && !is_letter(c))
            return refuse(r, at,
                          "a class of more than ASCII letters that "
                          "ignores case");
        if (c == '\\') {
            BASE_TRY(read_escape(r, true, &single));
        } else {
            uint32_t cp;
            copy(r, (size_t)text_utf8_next(r->s + r->i, &cp));
        }
        if (range_end && !single)
            return refuse(r, at, "a class as the end of a range");
        range_end = false;
        /* A '-' makes a range unless it is first or last. */
        if (peek(r, 0) == '-' && peek(r, 1) != ']' && peek(r, 1) >= 0) {
            if (!single)
                return refuse(r, at, "a class as the start of a range");
            range_end = true;
            copy(r, 1);
        }
    }
    copy(r, 1);
    r->folded = 0;
    return LORI_OK;
}

static lori_status open_group(reader *r)
{
    static const char *const heads[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", NULL};
    bool fold = r->fold[r->depth];
    size_t at = r->i;
    if (at == 0 && starts(r, "(?i)")) {
        /* Only here: Ruby's reach of a later one differs at '|'. */
        copy(r, 4);
        r->fold[0] = true;
        return LORI_OK;
    }
    if (r->depth + 1 >= MAX_GROUPS)
        return refuse(r, at, "groups nested this deep");
    if (starts(r, "(?i:") || starts(r, "(?-i:")) {
        fold = starts(r, "(?i:");
        copy(r, fold ? 4 : 5);
    } else if (starts(r, "(?")) {
        size_t k = 0;
        while (heads[k] && !starts(r, heads[k]))
            k++;
        if (!heads[k])
            return refuse(r, at, "this group");
        copy(r, strlen(heads[k]));
    } else {
        /* Nothing reads captures. */
        base_str_puts(&r->out, "(?:");
        r->i++;
    }
    r->fold[++r->depth] = fold;
    r->folded = 0;
    return LORI_OK;
}

/* What may follow an item. */
static lori_status read_quantifier(reader *r)
{
    int c = peek(r, 0);
    size_t at = r->i;
    if (c == '{') {
        size_t k = 1, digits = 0;
        bool comma = false;
        for (; peek(r, k) >= '0' && peek(r, k) <= '9'; k++)
            digits++;
        if (digits && peek(r, k) == ',') {
            comma = true;
            for (k++; peek(r, k) >= '0' && peek(r, k) <= '9'; k++)
                ;
        }
        if (!digits || peek(r, k) != '}')
            return refuse(r, at, "'{' that is not {n}, {n,} or {n,m}");
        copy(r, k + 1);
        if (peek(r, 0) == '+' || peek(r, 0) == '*' || peek(r, 0) == '{' ||
            (peek(r, 0) == '?' && !comma))
            return refuse(r, at, "a quantifier after {n,m}");
        if (peek(r, 0) == '?')
            copy(r, 1);
    } else if (c == '*' || c == '+' || c == '?') {
        copy(r, 1);
        c = peek(r, 0);
        if (c == '+' || c == '?')
            copy(r, 1);
    } else {
        return LORI_OK;
    }
    c = peek(r, 0);
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return refuse(r, r->i, "a quantifier after a quantifier");
    r->folded = 0;
    return LORI_OK;
}

/* Oniguruma also folds one character to several (ss and sharp s, the f and st
 * ligatures); PCRE2 does not. Refuse patterns where that could matter. */
static lori_status check_folded(reader *r, int c)
{
    static const char *const pairs[] = {"ss", "st", "ff", "fi", "fl"};
    if (!r->fold[r->depth])
        return LORI_OK;
    if (c >= 0x80)
        return refuse(r, r->i, "a non-ASCII character that ignores case");
    char low = is_letter(c) ? (char)(c | 0x20) : 0;
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++)
        if (r->folded == pairs[k][0] && low == pairs[k][1])
            return refuse(r, r->i,
                          "a pair of letters that ignores case and "
                          "has a ligature");
    r->folded = low;
    return LORI_OK;
}

static lori_status read_item(reader *r)
{
    int c = peek(r, 0), next = peek(r, 1);
    bool single;
    uint32_t cp;
    if (c == '(')
        return open_group(r);
    if (c == ')') {
        if (r->depth == 0)
            return base_fail(r->err, LORI_FORMAT,
                             "%s: ')' at byte %zu of the pattern opens nowhere",
                             r->where, r->i);
        r->depth--;
        r->folded = 0;
        copy(r, 1);
        return read_quantifier(r);
    }
    if (c == '|' || c == '^' || c == '$') {
        r->folded = 0;
        copy(r, 1);
        return LORI_OK;
    }
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return refuse(r, r->i, "a quantifier with nothing before it");
    if (c == '[') {
        BASE_TRY(read_class(r));
        return read_quantifier(r);
    }
    if (c == '\\') {
        if (next == 'A' || next == 'z' || next == 'Z') {
            copy(r, 2);
            return LORI_OK;
        }
        BASE_TRY(read_escape(r, false, &single));
        r->folded = 0;
        return read_quantifier(r);
    }
    BASE_TRY(check_folded(r, c));
    copy(r, (size_t)text_utf8_next(r->s + r->i, &cp));
    return read_quantifier(r);
}

static lori_status translate(const char *pattern, size_t n, const char *where,
                             base_str *out, lori_error *err)
{
    reader r = {.s = pattern, .n = n, .where = where, .err = err};
    lori_status st = LORI_OK;
    while (st == LORI_OK && r.i < n)
        st = read_item(&r);
    if (st == LORI_OK && r.depth)
        st = base_fail(err, LORI_FORMAT, "%s: '(' is not closed", where);
    if (st == LORI_OK && r.out.failed)
        st = base_no_memory(err, n);
    if (st == LORI_OK)
        *out = r.out;
    else
        base_str_free(&r.out);
    return st;
}

/* ---- compile and match ------------------------------------------------ */

static lori_status compile(const char *s, size_t n, uint32_t options,
                           text_regex *regex, lori_error *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return base_no_memory(err, 0);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    regex->code = pcre2_compile((PCRE2_SPTR)s, n, options, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!regex->code) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: the pattern cannot be compiled: %s (byte %zu "
                         "of '%s')",
                         regex->where, (const char *)text, (size_t)at, s);
    }
    /* Without JIT support the interpreter runs it: slower, same result. */
    regex->jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    return LORI_OK;
}

lori_status text_regex_new(const char *pattern, size_t n, bool literal,
                           const char *where, text_regex **out, lori_error *err)
{
    base_str translated = {0};
    *out = NULL;
    text_regex *regex = base_alloc(1, sizeof *regex);
    if (!regex || !(regex->where = base_strdup(where))) {
        free(regex);
        return base_no_memory(err, sizeof *regex);
    }
    lori_status st = LORI_OK;
    if (literal) {
        st = compile(pattern, n, PCRE2_UTF | PCRE2_LITERAL, regex, err);
    } else {
        st = translate(pattern, n, where, &translated, err);
        if (st == LORI_OK)
            st = compile(translated.s ? translated.s : "", translated.len,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE |
                             PCRE2_NEVER_BACKSLASH_C,
                         regex, err);
        base_str_free(&translated);
    }
    if (st != LORI_OK) {
        text_regex_free(regex);
        return st;
    }
    *out = regex;
    return LORI_OK;
}

void text_regex_free(text_regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    free(regex->where);
    free(regex);
}

lori_status text_matcher_new(text_matcher **out, lori_error *err)
{
    *out = NULL;
    text_matcher *m = base_alloc(1, sizeof *m);
    if (m) {
        m->data = pcre2_match_data_create(1, NULL);
        m->context = pcre2_match_context_create(NULL);
    }
    if (!m || !m->data || !m->context) {
        text_matcher_free(m);
        return base_no_memory(err, sizeof *m);
    }
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT);
    *out = m;
    return LORI_OK;
}

void text_matcher_free(text_matcher *matcher)
{
    if (!matcher)
        return;
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    free(matcher);
}

/* First match in s[0..n) at or after `from`. *found false: none. */
static lori_status find(const text_regex *regex, text_matcher *matcher,
                        const char *s, size_t n, size_t from, bool *found,
                        size_t *start, size_t *end, lori_error *err)
{
    *found = false;
    /* The direct call skips checks that are done once, at compile. */
    int rc = regex->jit ? pcre2_jit_match(regex->code, (PCRE2_SPTR)s, n, from,
                                          0, matcher->data, matcher->context)
                        : pcre2_match(regex->code, (PCRE2_SPTR)s, n, from,
                                      PCRE2_NO_UTF_CHECK, matcher->data,
                                      matcher->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(regex->code, (PCRE2_SPTR)s, n, from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, matcher->data,
                         matcher->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return LORI_OK;
    if (rc == PCRE2_ERROR_NOMEMORY)
        return base_no_memory(err, n);
    if (rc < 0) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(rc, text, sizeof text);
        return base_fail(err, LORI_UNSUPPORTED,
                         "%s: matching stopped in a text of %zu bytes: %s; "
                         "cut the text into smaller parts",
                         regex->where, n, (const char *)text);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(matcher->data);
    *found = true;
    *start = at[0];
    *end = at[1];
    return LORI_OK;
}

lori_status text_regex_next(text_matches *m, text_matcher *matcher, bool *found,
                            size_t *start, size_t *end, lori_error *err)
{
    *found = false;
    while (m->from <= m->n) {
        BASE_TRY(find(m->regex, matcher, m->s, m->n, m->from, found, start, end,
                      err));
        if (!*found)
            break;
        if (*start == *end && m->any && *end == m->last_end) {
            uint32_t c;
            *found = false;
            m->from +=
                m->from < m->n ? (size_t)text_utf8_next(m->s + m->from, &c) : 1;
            continue;
        }
        m->from = m->last_end = *end;
        m->any = true;
        return LORI_OK;
    }
    m->from = m->n + 1;
    return LORI_OK;
}
