/* json_scan.c - JSON read as a stream, for members too large to make a tree
 * of: a vocabulary of 100,000 strings costs its strings and nothing else. No
 * recursion; what is skipped is checked for brackets and strings only and left
 * to whoever parses it. Includes base. Source: RFC 8259. */
#include <stdlib.h>

#include "format/format.h"

#define SCAN_DEPTH 512

static lori_status fail(const format_scan *scan, size_t at, const char *what,
                        lori_error *err)
{
    int64_t line = format_scan_line(scan, at);
    size_t start = at;
    while (start > 0 && scan->s[start - 1] != '\n')
        start--;
    return base_fail(err, LORI_FORMAT, "%s:%lld:%zu: %s%s", scan->name,
                     (long long)line, at - start + 1, what,
                     at >= scan->n ? " near end of file" : "");
}

int64_t format_scan_line(const format_scan *scan, size_t at)
{
    int64_t line = 1;
    for (size_t i = 0; i < at && i < scan->n; i++)
        line += scan->s[i] == '\n';
    return line;
}

lori_status format_scan_start(format_scan *scan, const char *bytes, size_t n,
                              const char *name, lori_error *err)
{
    *scan = (format_scan){.s = bytes, .n = n, .name = name};
    size_t valid = n ? base_utf8_valid(bytes, n) : 0;
    return valid == n ? LORI_OK : fail(scan, valid, "invalid UTF-8", err);
}

void format_scan_free(format_scan *scan)
{
    base_str_free(&scan->text);
}

int format_scan_peek(format_scan *scan)
{
    static const char indent[] = "        ";
    while (scan->at < scan->n) {
        char c = scan->s[scan->at];
        if (c == ' ' && scan->n - scan->at >= 8 &&
            memcmp(scan->s + scan->at, indent, 8) == 0) {
            scan->at += 8;
            continue;
        }
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return (unsigned char)c;
        scan->at++;
    }
    return -1;
}

lori_status format_scan_open(format_scan *scan, char bracket, lori_error *err)
{
    if (format_scan_peek(scan) != bracket)
        return fail(scan, scan->at,
                    bracket == '{' ? "expected '{'" : "expected '['", err);
    scan->at++;
    scan->first = true;
    return LORI_OK;
}

lori_status format_scan_more(format_scan *scan, char bracket, bool *more,
                             lori_error *err)
{
    int c = format_scan_peek(scan);
    bool first = scan->first;
    scan->first = false;
    *more = c != bracket;
    if (!*more || !first) {
        if (*more && c != ',')
            return fail(scan, scan->at,
                        bracket == '}' ? "expected ',' or '}'"
                                       : "expected ',' or ']'",
                        err);
        scan->at++;
    }
    return LORI_OK;
}

lori_status format_scan_end(format_scan *scan, lori_error *err)
{
    if (format_scan_peek(scan) < 0)
        return LORI_OK;
    return fail(scan, scan->at, "expected the end of the file", err);
}

/* ---- strings ----------------------------------------------------------- */

/* Four hexadecimal digits at scan->at, or -1. */
static int32_t hex4(const format_scan *scan, size_t at)
{
    int32_t value = 0;
    if (scan->n - at < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        char c = scan->s[at + i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static void add_utf8(base_str *out, uint32_t c)
{
    char b[4];
    size_t n = 0;
    if (c < 0x80) {
        b[n++] = (char)c;
    } else if (c < 0x800) {
        b[n++] = (char)(0xC0 | c >> 6);
        b[n++] = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        b[n++] = (char)(0xE0 | c >> 12);
        b[n++] = (char)(0x80 | (c >> 6 & 0x3F));
        b[n++] = (char)(0x80 | (c & 0x3F));
    } else {
        b[n++] = (char)(0xF0 | c >> 18);
        b[n++] = (char)(0x80 | (c >> 12 & 0x3F));
        b[n++] = (char)(0x80 | (c >> 6 & 0x3F));
        b[n++] = (char)(0x80 | (c & 0x3F));
    }
    base_str_add(out, b, n);
}

/* The escape whose backslash is at scan->at. */
static lori_status read_escape(format_scan *scan, lori_error *err)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t at = scan->at + 1;
    const char *known =
        at < scan->n && scan->s[at] ? strchr(from, scan->s[at]) : NULL;
    if (known) {
        base_str_add(&scan->text, to + (known - from), 1);
        scan->at = at + 1;
        return LORI_OK;
    }
    int32_t c = at < scan->n && scan->s[at] == 'u' ? hex4(scan, at + 1) : -1;
    if (c < 0)
        return fail(scan, scan->at, "invalid escape", err);
    at += 5;
    if (c >= 0xD800 && c < 0xE000) {
        int32_t low = c < 0xDC00 && scan->n - at >= 6 && scan->s[at] == '\\' &&
                              scan->s[at + 1] == 'u'
                          ? hex4(scan, at + 2)
                          : -1;
        if (low < 0xDC00 || low >= 0xE000)
            return fail(scan, scan->at, "half of a surrogate pair", err);
        c = 0x10000 + (c - 0xD800) * 0x400 + (low - 0xDC00);
        at += 6;
    }
    add_utf8(&scan->text, (uint32_t)c);
    scan->at = at;
    return LORI_OK;
}

lori_status format_scan_string(format_scan *scan, const char **s, size_t *n,
                               lori_error *err)
{
    if (format_scan_peek(scan) != '"')
        return fail(scan, scan->at, "expected a string", err);
    size_t start = ++scan->at, from = start;
    base_str_clear(&scan->text);
    for (;;) {
        if (scan->at >= scan->n)
            return fail(scan, scan->n, "a string is not closed", err);
        unsigned char c = (unsigned char)scan->s[scan->at];
        if (c == '"')
            break;
        if (c < 0x20)
            return fail(scan, scan->at, "control character in a string", err);
        if (c != '\\') {
            scan->at++;
            continue;
        }
        base_str_add(&scan->text, scan->s + from, scan->at - from);
        BASE_TRY(read_escape(scan, err));
        from = scan->at;
    }
    *s = scan->s + start;
    *n = scan->at - start;
    if (from != start) { /* there were escapes */
        base_str_add(&scan->text, scan->s + from, scan->at - from);
        *s = scan->text.s;
        *n = scan->text.len;
    }
    scan->at++;
    return scan->text.failed ? base_no_memory(err, scan->at - start) : LORI_OK;
}

lori_status format_scan_key(format_scan *scan, const char **s, size_t *n,
                            lori_error *err)
{
    BASE_TRY(format_scan_string(scan, s, n, err));
    if (format_scan_peek(scan) != ':')
        return fail(scan, scan->at, "expected ':'", err);
    scan->at++;
    return LORI_OK;
}

/* ---- other values ------------------------------------------------------ */

lori_status format_scan_int(format_scan *scan, int64_t lo, int64_t hi,
                            int64_t *value, bool *good, lori_error *err)
{
    int c = format_scan_peek(scan);
    size_t start = scan->at, digits = 0;
    int64_t x = 0;
    bool minus = c == '-';
    scan->at += minus;
    for (; scan->at < scan->n; scan->at++, digits++) {
        char d = scan->s[scan->at];
        if (d < '0' || d > '9' || digits > 17)
            break;
        x = x * 10 + (d - '0');
    }
    char next = scan->at < scan->n ? scan->s[scan->at] : ' ';
    *value = minus ? -x : x;
    *good = digits > 0 && !strchr(".eE0123456789", next) && *value >= lo &&
            *value <= hi && !(digits > 1 && scan->s[start + minus] == '0');
    if (*good)
        return LORI_OK;
    scan->at = start; /* whatever it is, it ends where a value ends */
    const char *s;
    size_t n;
    return format_scan_skip(scan, &s, &n, err);
}

static lori_status skip_string(format_scan *scan, lori_error *err)
{
    for (scan->at++; scan->at < scan->n; scan->at++) {
        char c = scan->s[scan->at];
        if (c == '"') {
            scan->at++;
            return LORI_OK;
        }
        scan->at += c == '\\';
    }
    scan->at = scan->n;
    return fail(scan, scan->n, "a string is not closed", err);
}

/* What a character is outside strings. */
enum { IS_WORD, IS_SPACE, IS_QUOTE, IS_OPEN, IS_CLOSE, IS_BETWEEN };
static const unsigned char kinds[256] = {
    [' '] = IS_SPACE, ['\t'] = IS_SPACE,  ['\r'] = IS_SPACE,  ['\n'] = IS_SPACE,
    ['"'] = IS_QUOTE, ['{'] = IS_OPEN,    ['['] = IS_OPEN,    ['}'] = IS_CLOSE,
    [']'] = IS_CLOSE, [','] = IS_BETWEEN, [':'] = IS_BETWEEN,
};

/* A number or a word: up to what cannot be part of one. */
static lori_status skip_word(format_scan *scan, lori_error *err)
{
    if (scan->s[scan->at] == 0)
        return fail(scan, scan->at, "expected a value", err);
    while (scan->at < scan->n &&
           kinds[(unsigned char)scan->s[scan->at]] == IS_WORD)
        scan->at++;
    return LORI_OK;
}

lori_status format_scan_skip(format_scan *scan, const char **s, size_t *n,
                             lori_error *err)
{
    char open[SCAN_DEPTH];
    size_t depth = 0;
    format_scan_peek(scan);
    const size_t start = scan->at;
    do {
        if (scan->at >= scan->n)
            return fail(scan, scan->n, "a value is not closed", err);
        char c = scan->s[scan->at];
        switch (kinds[(unsigned char)c]) {
        case IS_SPACE:
            scan->at++;
            break;
        case IS_QUOTE:
            BASE_TRY(skip_string(scan, err));
            break;
        case IS_OPEN:
            if (depth == SCAN_DEPTH)
                return fail(scan, scan->at, "values nested too deep", err);
            open[depth++] = c;
            scan->at++;
            break;
        case IS_CLOSE:
            if (depth == 0 || open[--depth] != (c == '}' ? '{' : '['))
                return fail(scan, scan->at, "a bracket closes nothing", err);
            scan->at++;
            break;
        case IS_BETWEEN:
            if (depth == 0)
                return fail(scan, scan->at, "expected a value", err);
            scan->at++;
            break;
        default:
            BASE_TRY(skip_word(scan, err));
        }
    } while (depth > 0);
    *s = scan->s + start;
    *n = scan->at - start;
    return LORI_OK;
}
