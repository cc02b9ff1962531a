/* unicode.c - UTF-8 stepping, character classes, the byte alphabet.
 * Includes base only. */
#include "text/text.h"
#include "text/unicode_i.h"

bool text_in_ranges(const text_range *ranges, size_t n, uint32_t c)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c > ranges[mid].last)
            lo = mid + 1;
        else if (c < ranges[mid].first)
            hi = mid;
        else
            return true;
    }
    return false;
}

bool text_is_white_space(uint32_t c)
{
    if (c < 0x80)
        return (c >= 9 && c <= 13) || c == 0x20;
    return c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool text_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
               (c >= 'a' && c <= 'z') || c == '_';
    return text_in_ranges(text_word, text_word_count, c);
}

bool text_is_numeric(uint32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    return text_in_ranges(text_numeric, text_numeric_count, c);
}

bool text_is_punctuation(uint32_t c)
{
    return text_in_ranges(text_punctuation, text_punctuation_count, c);
}

/* ---- UTF-8 ---------------------------------------------------------- */

/* Bounds of the second byte for lead byte `b`, or false when `b` leads
 * nothing. Source: Unicode, table 3-7. */
static bool second_bounds(unsigned b, unsigned *lo, unsigned *hi, int *length)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (b >= 0xC2 && b <= 0xDF) {
        *length = 2;
    } else if (b >= 0xE0 && b <= 0xEF) {
        *length = 3;
        if (b == 0xE0)
            *lo = 0xA0;
        if (b == 0xED)
            *hi = 0x9F;
    } else if (b >= 0xF0 && b <= 0xF4) {
        *length = 4;
        if (b == 0xF0)
            *lo = 0x90;
        if (b == 0xF4)
            *hi = 0x8F;
    } else {
        return false;
    }
    return true;
}

int text_utf8_get(const char *s, size_t n, uint32_t *c)
{
    unsigned b = (unsigned char)s[0], lo, hi;
    int length;
    if (b < 0x80) {
        *c = b;
        return 1;
    }
    if (!second_bounds(b, &lo, &hi, &length))
        return -1;
    uint32_t value = b & (0x7FU >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n)
            return 0;
        b = (unsigned char)s[i];
        if (b < lo || b > hi)
            return -i;
        value = value << 6 | (b & 0x3F);
        lo = 0x80;
        hi = 0xBF;
    }
    *c = value;
    return length;
}

int text_utf8_next(const char *s, uint32_t *c)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) {
        *c = u[0];
        return 1;
    }
    if (u[0] < 0xE0) {
        *c = (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
        return 2;
    }
    if (u[0] < 0xF0) {
        *c = (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 |
             (u[2] & 0x3F);
        return 3;
    }
    *c = (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3F) << 12 |
         (uint32_t)(u[2] & 0x3F) << 6 | (u[3] & 0x3F);
    return 4;
}

int text_utf8_before(const char *s, size_t n, uint32_t *c)
{
    size_t i = n - 1;
    while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80)
        i--;
    return text_utf8_next(s + i, c);
}

int text_utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t text_utf8_lossy(const char *s, size_t n, bool last, base_str *out)
{
    size_t i = 0;
    while (i < n) {
        size_t good = base_utf8_valid(s + i, n - i);
        base_str_add(out, s + i, good);
        i += good;
        if (i == n)
            break;
        uint32_t c;
        int step = text_utf8_get(s + i, n - i, &c);
        if (step == 0 && !last)
            break;
        base_str_puts(out, "\xEF\xBF\xBD");
        i = step == 0 ? n : i + (size_t)-step;
    }
    return i;
}

/* ---- the byte alphabet ---------------------------------------------- */

/* Bytes that print stand for themselves; the other 68, in order, are
 * U+0100 and on. */
static bool stands_for_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) ||
           (c >= 0xAE && c <= 0xFF);
}

uint32_t text_byte_char(uint8_t byte)
{
    uint32_t b = byte;
    if (stands_for_itself(b))
        return b;
    if (b <= 0x20)
        return 0x100 + b;
    if (b <= 0xA0)
        return 0x100 + 33 + (b - 0x7F);
    return 0x143; /* 0xAD */
}

void text_spell_bytes(const char *bytes, size_t n, base_str *out)
{
    for (size_t i = 0; i < n; i++) {
        char spelled[4];
        int length = text_utf8_put(text_byte_char((uint8_t)bytes[i]), spelled);
        base_str_add(out, spelled, (size_t)length);
    }
}

int text_char_byte(uint32_t c)
{
    if (stands_for_itself(c))
        return (int)c;
    if (c < 0x100 || c > 0x143)
        return -1;
    uint32_t k = c - 0x100;
    if (k <= 0x20)
        return (int)k;
    return k == 67 ? 0xAD : (int)(0x7F + k - 33);
}
