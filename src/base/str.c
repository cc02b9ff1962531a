/* str.c - growing strings, the texts of numbers and sizes, spelling help and
 * the UTF-8 check. Includes base.h and libc. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

/* Room for n more bytes and the NUL; doubles so that appending is linear. */
static bool reserve(base_str *str, size_t n)
{
    size_t need;
    if (str->failed || !base_add(str->len, n, &need) ||
        !base_add(need, 1, &need)) {
        str->failed = true;
        return false;
    }
    if (need <= str->cap)
        return true;
    size_t cap = str->cap ? str->cap : 64;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *s = base_resize(str->s, cap, 1);
    if (!s) {
        str->failed = true;
        return false;
    }
    str->s = s;
    str->cap = cap;
    return true;
}

void base_str_add(base_str *str, const char *bytes, size_t n)
{
    if (!reserve(str, n))
        return;
    if (n)
        memcpy(str->s + str->len, bytes, n);
    str->len += n;
    str->s[str->len] = '\0';
}

void base_str_puts(base_str *str, const char *z)
{
    base_str_add(str, z, strlen(z));
}

void base_str_vprintf(base_str *str, const char *fmt, __builtin_va_list ap)
{
    if (str->failed)
        return;
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        str->failed = true;
        return;
    }
    if (!reserve(str, (size_t)n))
        return;
    vsnprintf(str->s + str->len, (size_t)n + 1, fmt, ap);
    str->len += (size_t)n;
}

void base_str_printf(base_str *str, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    base_str_vprintf(str, fmt, ap);
    va_end(ap);
}

void base_str_clear(base_str *str)
{
    str->len = 0;
    if (str->s)
        str->s[0] = '\0';
}

void base_str_free(base_str *str)
{
    free(str->s);
    *str = (base_str){0};
}

char *base_str_take(base_str *str)
{
    char *s = NULL;
    if (reserve(str, 0)) {
        s = str->s;
        s[str->len] = '\0';
        str->s = NULL;
    }
    base_str_free(str);
    return s;
}

#define WORD_MAX 64

/* Edit distance where a swap of neighbours counts one, as typing errors go.
 * Three rows are enough: the one being made and the two above it. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb)
{
    size_t rows[3][WORD_MAX + 1];
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *row = rows[i % 3], *up = rows[(i + 2) % 3];
        const size_t *up2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best)
                best = up[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
                a[i - 2] == b[j - 1] && up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *base_nearest(const char *word, const char *const *candidates,
                         size_t n)
{
    size_t len = strlen(word);
    if (len == 0 || len > WORD_MAX)
        return NULL;
    size_t limit = len / 3 > 2 ? len / 3 : 2;
    const char *nearest = NULL;
    size_t best = limit + 1;
    for (size_t i = 0; i < n; i++) {
        size_t m = strlen(candidates[i]);
        if (m > WORD_MAX)
            continue;
        size_t d = distance(word, len, candidates[i], m);
        /* Changing every letter is not a typing error. */
        if (d < best && d < len && d < m) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}

char *base_human_bytes(double bytes, char *buf, size_t n)
{
    static const char *const unit[] = {"B", "KB", "MB", "GB", "TB", "PB", "EB"};
    size_t i = 0;
    while (fabs(bytes) >= 999.95 && i + 1 < sizeof unit / sizeof *unit) {
        bytes /= 1000.0;
        i++;
    }
    if (n)
        snprintf(buf, n, i ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
    return buf;
}

/* Lays out digits and exponent as Python's repr does. `sci` is a "%.*e" text:
 * [-]d[.ddd]e[+-]xx. */
static void repr(const char *sci, char buf[32])
{
    char digits[24];
    int n = 0;
    const char *p = sci;
    char *out = buf;
    if (*p == '-')
        *out++ = *p++;
    /* The decimal point is the locale's, so it is known by not being a digit.
     */
    for (; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9' && n < (int)sizeof digits)
            digits[n++] = *p;
    int exponent = (int)strtol(p + 1, NULL, 10);
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (exponent < -4 || exponent >= 16) {
        *out++ = digits[0];
        if (n > 1) {
            *out++ = '.';
            memcpy(out, digits + 1, (size_t)n - 1);
            out += n - 1;
        }
        snprintf(out, 13, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        *out++ = '0';
        *out++ = '.';
        for (int i = -1; i > exponent; i--)
            *out++ = '0';
        memcpy(out, digits, (size_t)n);
        out[n] = '\0';
        return;
    }
    for (int i = 0; i <= exponent; i++)
        *out++ = i < n ? digits[i] : '0';
    *out++ = '.';
    if (n > exponent + 1) {
        memcpy(out, digits + exponent + 1, (size_t)(n - exponent - 1));
        out += n - exponent - 1;
    } else {
        *out++ = '0';
    }
    *out = '\0';
}

static bool not_finite(double x, char buf[32])
{
    if (isfinite(x))
        return false;
    const char *text = "inf";
    if (isnan(x))
        text = "nan";
    else if (x < 0)
        text = "-inf";
    strcpy(buf, text);
    return true;
}

char *base_f64_text(double x, char buf[32])
{
    if (not_finite(x, buf))
        return buf;
    char sci[40];
    for (int digits = 0; digits <= 16; digits++) {
        snprintf(sci, sizeof sci, "%.*e", digits, x);
        if (strtod(sci, NULL) == x)
            break;
    }
    repr(sci, buf);
    return buf;
}

char *base_f32_text(float x, char buf[32])
{
    if (not_finite((double)x, buf))
        return buf;
    char sci[40];
    for (int digits = 0; digits <= 8; digits++) {
        snprintf(sci, sizeof sci, "%.*e", digits, (double)x);
        if (strtof(sci, NULL) == x)
            break;
    }
    repr(sci, buf);
    return buf;
}

/* Bytes of the valid character at s, or 0. Refuses overlong forms, surrogates
 * and code points above U+10FFFF (Unicode 15, table 3-7). */
static size_t utf8_char(const unsigned char *s, size_t n)
{
    unsigned c = s[0];
    if (c < 0x80)
        return 1;
    size_t len;
    unsigned lo = 0x80, hi = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        len = 2;
    } else if (c >= 0xe0 && c <= 0xef) {
        len = 3;
        lo = c == 0xe0 ? 0xa0 : lo;
        hi = c == 0xed ? 0x9f : hi;
    } else if (c >= 0xf0 && c <= 0xf4) {
        len = 4;
        lo = c == 0xf0 ? 0x90 : lo;
        hi = c == 0xf4 ? 0x8f : hi;
    } else {
        return 0;
    }
    if (n < len || s[1] < lo || s[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return len;
}

size_t base_utf8_valid(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        while (n - i >= sizeof word) { /* ASCII, eight at a time */
            memcpy(&word, s + i, sizeof word);
            if (word & 0x8080808080808080ULL)
                break;
            i += sizeof word;
        }
        if (i == n)
            break;
        size_t len = utf8_char((const unsigned char *)s + i, n - i);
        if (!len)
            break;
        i += len;
    }
    return i;
}
