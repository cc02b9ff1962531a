/* jinja_lex.c - a template's text as tokens, one at a time. White space next
 * to tags goes as trim_blocks and lstrip_blocks say; comments and raw blocks
 * end here. Includes base only. Source: jinja2 lexer.py's rules. */
#include <errno.h>
#include <stdlib.h>

#include "text/jinja_i.h"

static uint32_t char_at(const jinja_lexer *lx, size_t at, size_t *length)
{
    uint32_t c;
    *length = (size_t)text_utf8_next(lx->s + at, &c);
    return c;
}

static bool has(const jinja_lexer *lx, size_t at, const char *text)
{
    size_t n = strlen(text);
    return lx->n - at >= n && memcmp(lx->s + at, text, n) == 0;
}

static size_t skip_space(const jinja_lexer *lx, size_t at)
{
    while (at < lx->n) {
        size_t length;
        if (!text_is_python_space(char_at(lx, at, &length)))
            break;
        at += length;
    }
    return at;
}

static void move_to(jinja_lexer *lx, size_t at)
{
    for (; lx->at < at; lx->at++)
        lx->line += lx->s[lx->at] == '\n';
    lx->line_starting = at > 0 && lx->s[at - 1] == '\n';
}

static jinja_token token_at(const jinja_lexer *lx, jinja_token_kind kind,
                            size_t n)
{
    return (jinja_token){
        .kind = kind, .line = lx->line, .s = lx->s + lx->at, .n = n};
}

static jinja_token fail(jinja_lexer *lx, const char *message)
{
    lx->fault->line = lx->line;
    jinja_fail(lx->fault, LORI_FORMAT, "%s", message);
    lx->at = lx->n;
    return token_at(lx, JINJA_T_END, 0);
}

/* ---- text between tags --------------------------------------------------- */

/* The end of a tag at `at`: `mark` with "-" (white space behind goes), "+"
 * (all stays) or nothing (with `trim` one line end goes). 0: none here. */
static size_t tag_end(const jinja_lexer *lx, size_t at, const char *mark,
                      bool trim)
{
    if (has(lx, at, "-") && has(lx, at + 1, mark))
        return skip_space(lx, at + 3);
    if (trim && has(lx, at, "+") && has(lx, at + 1, mark))
        return at + 3;
    if (!has(lx, at, mark))
        return 0;
    return at + 2 + (trim && has(lx, at + 2, "\n"));
}

/* Length of the text at lx->at that is kept before a tag at `tag`. */
static size_t kept_before(const jinja_lexer *lx, size_t tag, bool lstrip,
                          char sign)
{
    size_t from = lx->at, line = tag;
    if (sign == '-')
        return jinja_strip(jinja_str(lx->s + from, tag - from), jinja_none(),
                           false, true)
            .n;
    if (!lstrip || sign == '+')
        return tag - from;
    while (line > from && lx->s[line - 1] != '\n')
        line--;
    if ((line > from || lx->line_starting) && skip_space(lx, line) >= tag)
        return line - from;
    return tag - from;
}

static char sign_at(const jinja_lexer *lx, size_t at)
{
    return has(lx, at, "-") || has(lx, at, "+") ? lx->s[at] : '\0';
}

/* "{% raw %}" at `at`: the offset behind it, else 0. */
static size_t raw_begin(const jinja_lexer *lx, size_t at, const char *word)
{
    at += 2;
    at = skip_space(lx, at + (sign_at(lx, at) != '\0'));
    if (!has(lx, at, word))
        return 0;
    at = skip_space(lx, at + strlen(word));
    return tag_end(lx, at, "%}", word[0] == 'e');
}

static size_t find_tag(const jinja_lexer *lx, size_t at)
{
    for (; at + 1 < lx->n; at++)
        if (lx->s[at] == '{' && strchr("{%#", lx->s[at + 1]) && lx->s[at + 1])
            return at;
    return lx->n;
}

/* After a raw tag: its text, up to "{% endraw %}". */
static jinja_token raw_text(jinja_lexer *lx)
{
    for (size_t at = lx->at; at + 1 < lx->n; at++) {
        size_t end = has(lx, at, "{%") ? raw_begin(lx, at, "endraw") : 0;
        if (!end)
            continue;
        jinja_token token = token_at(
            lx, JINJA_T_TEXT, kept_before(lx, at, true, sign_at(lx, at + 2)));
        move_to(lx, end);
        lx->raw = false;
        return token;
    }
    lx->raw = lx->at < lx->n; /* at the very end jinja2 lets it pass */
    return lx->raw ? fail(lx, "Missing end of raw directive")
                   : token_at(lx, JINJA_T_END, 0);
}

/* A comment without its end passes, too, when nothing follows its begin. */
static void skip_comment(jinja_lexer *lx, size_t tag)
{
    size_t from = tag + 2 + (sign_at(lx, tag + 2) != '\0');
    for (size_t at = from; at < lx->n; at++) {
        size_t end = tag_end(lx, at, "#}", true);
        if (end) {
            move_to(lx, end);
            return;
        }
    }
    move_to(lx, from < lx->n ? tag : lx->n);
    if (from < lx->n)
        fail(lx, "Missing end of comment tag");
}

/* Enters the tag at `tag`; text before it, if any, is the token. */
static jinja_token begin_tag(jinja_lexer *lx, size_t tag)
{
    bool print = lx->s[tag + 1] == '{';
    char sign = sign_at(lx, tag + 2);
    jinja_token text =
        token_at(lx, JINJA_T_TEXT, kept_before(lx, tag, !print, sign));
    if (lx->s[tag + 1] == '#') {
        skip_comment(lx, tag);
        return text;
    }
    size_t raw = print ? 0 : raw_begin(lx, tag, "raw");
    move_to(lx, raw ? raw : tag);
    lx->raw = raw > 0;
    if (!raw)
        lx->state = print ? JINJA_IN_PRINT : JINJA_IN_BLOCK;
    return text;
}

static jinja_token root_token(jinja_lexer *lx)
{
    while (lx->fault->status == LORI_OK && (lx->raw || lx->at < lx->n)) {
        size_t tag = find_tag(lx, lx->at);
        jinja_token text;
        if (lx->raw) {
            text = raw_text(lx);
        } else if (tag == lx->n) {
            text = token_at(lx, JINJA_T_TEXT, lx->n - lx->at);
            move_to(lx, lx->n);
        } else {
            text = begin_tag(lx, tag);
        }
        if (text.n && lx->fault->status == LORI_OK)
            return text;
        if (lx->state == JINJA_ROOT)
            continue;
        return jinja_next_token(lx);
    }
    return token_at(lx, JINJA_T_END, 0);
}

/* ---- strings and numbers --------------------------------------------------
 */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Appends the character of `digits` hex digits at s; false: too few, or no
 * character. */
static bool put_hex(const char *s, size_t n, size_t digits, base_str *out)
{
    uint32_t c = 0;
    char text[4];
    if (n < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        int value = hex_digit(s[i]);
        if (value < 0)
            return false;
        c = c << 4 | (uint32_t)value;
    }
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return false;
    base_str_add(out, text, (size_t)text_utf8_put(c, text));
    return true;
}

static size_t put_octal(const char *s, size_t n, base_str *out)
{
    uint32_t c = 0;
    size_t i = 0;
    char text[4];
    for (; i < 3 && i < n && s[i] >= '0' && s[i] <= '7'; i++)
        c = c << 3 | (uint32_t)(s[i] - '0');
    base_str_add(out, text, (size_t)text_utf8_put(c, text));
    return i;
}

/* A backslash before a character beyond ASCII: Python sees the character
 * written as \xe9, so that the backslash escapes this one's. */
static void put_written_out(uint32_t c, base_str *out)
{
    if (c < 0x100)
        base_str_printf(out, "\\x%02x", c);
    else if (c < 0x10000)
        base_str_printf(out, "\\u%04x", c);
    else
        base_str_printf(out, "\\U%08x", c);
}

/* The escape at s[0] == '\\'; returns its length, 0 when it is malformed. */
static size_t put_escape(const char *s, size_t n, base_str *out)
{
    static const char letters[] = "abfnrtv\\'\"";
    static const char values[] = "\a\b\f\n\r\t\v\\'\"";
    char c = s[1];
    const char *known = c ? strchr(letters, c) : NULL;
    if (known) {
        base_str_add(out, values + (known - letters), 1);
        return 2;
    }
    if (c == '\n')
        return 2;
    if (c >= '0' && c <= '7')
        return 1 + put_octal(s + 1, n - 1, out);
    if (c == 'x')
        return put_hex(s + 2, n - 2, 2, out) ? 4 : 0;
    if (c == 'u')
        return put_hex(s + 2, n - 2, 4, out) ? 6 : 0;
    if (c == 'U')
        return put_hex(s + 2, n - 2, 8, out) ? 10 : 0;
    if (c == 'N')
        return 0;
    if ((unsigned char)c < 0x80) {
        base_str_add(out, s, 2);
        return 2;
    }
    uint32_t wide;
    size_t length = (size_t)text_utf8_next(s + 1, &wide);
    put_written_out(wide, out);
    return 1 + length;
}

static jinja_token string_token(jinja_lexer *lx)
{
    size_t end = lx->at + 1;
    base_str text = {0};
    while (end < lx->n && lx->s[end] != lx->s[lx->at])
        end += lx->s[end] == '\\' ? 2 : 1;
    if (end >= lx->n)
        return fail(lx, "a string without its closing quote");
    jinja_token token = token_at(lx, JINJA_T_STRING, end + 1 - lx->at);
    for (size_t i = lx->at + 1; i < end;) {
        size_t step =
            lx->s[i] == '\\' ? put_escape(lx->s + i, end - i, &text) : 1;
        if (lx->s[i] != '\\')
            base_str_add(&text, lx->s + i, 1);
        if (step == 0) {
            base_str_free(&text);
            return fail(lx, "a \\x, \\u, \\U or \\N escape that is malformed "
                            "or names no character");
        }
        i += step;
    }
    char *copy = jinja_extend(lx->arena, text.s ? text.s : "", 0, text.len);
    if (copy && text.len)
        memcpy(copy, text.s, text.len);
    lx->arena->failed = lx->arena->failed || text.failed;
    token.value = jinja_str(copy, copy ? text.len : 0);
    base_str_free(&text);
    move_to(lx, end + 1);
    return token;
}

/* Digits with single "_" between them; the offset behind them. */
static size_t digits_end(const jinja_lexer *lx, size_t at, const char *set)
{
    size_t end = at;
    while (end < lx->n) {
        size_t digit = end + (end > at && lx->s[end] == '_');
        if (digit >= lx->n || !lx->s[digit] || !strchr(set, lx->s[digit]))
            break;
        end = digit + 1;
    }
    return end;
}

#define DECIMAL "0123456789"

/* The offset behind a float at lx->at, 0 when it is none. */
static size_t float_end(const jinja_lexer *lx)
{
    size_t whole = digits_end(lx, lx->at, DECIMAL), end = whole;
    if (lx->at > 0 && lx->s[lx->at - 1] == '.')
        return 0;
    if (has(lx, end, ".")) {
        size_t fraction = digits_end(lx, end + 1, DECIMAL);
        if (fraction > end + 1)
            end = fraction;
    }
    if (end < lx->n && (lx->s[end] == 'e' || lx->s[end] == 'E')) {
        size_t at = end + 1 + (sign_at(lx, end + 1) != '\0');
        size_t exponent = digits_end(lx, at, DECIMAL);
        if (exponent > at)
            end = exponent;
    }
    return end > whole ? end : 0;
}

static size_t integer_end(const jinja_lexer *lx, int *base)
{
    static const struct {
        char letter;
        int base;
        const char *digits;
    } form[] = {{'x', 16, "0123456789abcdefABCDEF"},
                {'o', 8, "01234567"},
                {'b', 2, "01"}};
    *base = 10;
    if (lx->s[lx->at] != '0')
        return digits_end(lx, lx->at, DECIMAL);
    for (int k = 0; k < 3 && lx->at + 1 < lx->n; k++) {
        if ((lx->s[lx->at + 1] | 0x20) != form[k].letter)
            continue;
        size_t from = lx->at + 2 + has(lx, lx->at + 2, "_");
        size_t end = digits_end(lx, from, form[k].digits);
        if (end > from) {
            *base = form[k].base;
            return end;
        }
    }
    return digits_end(lx, lx->at, "0");
}

static jinja_token number_token(jinja_lexer *lx)
{
    int base = 10;
    size_t end = float_end(lx), n = 0;
    bool real = end > 0;
    char digits[512];
    if (!real)
        end = integer_end(lx, &base);
    jinja_token token = token_at(lx, JINJA_T_NUMBER, end - lx->at);
    for (size_t i = lx->at + (base == 10 ? 0 : 2); i < end; i++) {
        if (lx->s[i] == '_')
            continue;
        if (n + 1 == sizeof digits)
            return fail(lx, "a number of more than 511 digits");
        digits[n++] = lx->s[i];
    }
    digits[n] = '\0';
    errno = 0;
    token.value = real ? jinja_float(strtod(digits, NULL))
                       : jinja_int(strtoll(digits, NULL, base));
    if (!real && errno)
        return fail(lx, "an integer beyond 64 bits");
    move_to(lx, end);
    return token;
}

/* ---- inside a tag ----------------------------------------------------------
 */

static jinja_token name_token(jinja_lexer *lx)
{
    size_t end = lx->at, length;
    while (end < lx->n && text_is_word(char_at(lx, end, &length)))
        end += length;
    jinja_token token = token_at(lx, JINJA_T_NAME, end - lx->at);
    move_to(lx, end);
    return token;
}

/* Keeps count of brackets: inside them "}}" and "%}" are operators. */
static bool balance(jinja_lexer *lx, char c)
{
    static const char open[] = "([{", close[] = ")]}";
    const char *at = strchr(open, c);
    if (at) {
        if (lx->n_open == JINJA_MAX_NEST) {
            fail(lx, "brackets nested too deeply");
            return false;
        }
        lx->closing[lx->n_open++] = close[at - open];
    } else if (strchr(close, c)) {
        if (lx->n_open == 0 || lx->closing[lx->n_open - 1] != c) {
            char message[64] = "unexpected '?'";
            message[12] = c;
            if (lx->n_open) {
                strcpy(message + 14, ", expected '?'");
                message[26] = lx->closing[lx->n_open - 1];
            }
            fail(lx, message);
            return false;
        }
        lx->n_open--;
    }
    return true;
}

static jinja_token operator_token(jinja_lexer *lx)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (has(lx, lx->at, two[i]))
            n = 2;
    char c = lx->s[lx->at];
    if (n == 1 && (!c || !strchr("+-/*%~[](){}><=.:|,;", c))) {
        size_t length;
        char_at(lx, lx->at, &length);
        char message[32] = "unexpected char '";
        memcpy(message + 17, lx->s + lx->at, length);
        strcpy(message + 17 + length, "'");
        return fail(lx, c ? message : "unexpected NUL character");
    }
    if (n == 1 && !balance(lx, c))
        return token_at(lx, JINJA_T_END, 0);
    jinja_token token = token_at(lx, JINJA_T_OPERATOR, n);
    move_to(lx, lx->at + n);
    return token;
}

static jinja_token inside_token(jinja_lexer *lx)
{
    bool print = lx->state == JINJA_IN_PRINT;
    size_t end =
        lx->n_open ? 0 : tag_end(lx, lx->at, print ? "}}" : "%}", !print);
    if (end) {
        jinja_token token =
            token_at(lx, print ? JINJA_T_PRINT_END : JINJA_T_BLOCK_END, 2);
        move_to(lx, end);
        lx->state = JINJA_ROOT;
        lx->inside = false;
        return token;
    }
    size_t length, next = skip_space(lx, lx->at);
    if (next > lx->at) {
        move_to(lx, next);
        return inside_token(lx);
    }
    if (lx->at >= lx->n)
        return token_at(lx, JINJA_T_END, 0);
    char c = lx->s[lx->at];
    if (c >= '0' && c <= '9')
        return number_token(lx);
    if (c == '\'' || c == '"')
        return string_token(lx);
    if (text_is_word(char_at(lx, lx->at, &length)))
        return name_token(lx);
    return operator_token(lx);
}

jinja_token jinja_next_token(jinja_lexer *lx)
{
    if (lx->fault->status != LORI_OK)
        return token_at(lx, JINJA_T_END, 0);
    if (lx->state == JINJA_ROOT)
        return root_token(lx);
    if (!lx->inside) {
        bool print = lx->state == JINJA_IN_PRINT;
        jinja_token token =
            token_at(lx, print ? JINJA_T_PRINT_BEGIN : JINJA_T_BLOCK_BEGIN, 2);
        move_to(lx, lx->at + 2 + (sign_at(lx, lx->at + 2) != '\0'));
        lx->inside = true;
        return token;
    }
    return inside_token(lx);
}
