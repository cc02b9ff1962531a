/* test_text_unicode.c - NFC of Unicode 9, character classes, UTF-8 repair. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "text/text_i.h"

static text_buffer normal_form(const char *s, size_t n, bool compose)
{
    text_buffer out = {0};
    text_edit edit = {.from = {.s = s, .n = n}, .out = &out};
    lori_error err = {0};
    cr_assert_eq(text_normal_form(&edit, compose, &err), LORI_OK, "%s",
                 err.message);
    return out;
}

static void expect_form(const char *s, bool compose, const char *want)
{
    text_buffer out = normal_form(s, strlen(s), compose);
    cr_expect_str_eq(out.text.s ? out.text.s : "", want, "'%s'", s);
    text_buffer_free(&out);
}

static void expect_nfc(const char *s, const char *want)
{
    expect_form(s, true, want);
}

Test(text_unicode, nfc)
{
    expect_nfc("", "");
    expect_nfc("plain", "plain");
    expect_nfc("e\u0301", "\u00e9");
    expect_nfc("xe\u0301y", "x\u00e9y");
    expect_nfc("e\u0323\u0302", "\u1ec7");
    expect_nfc("e\u0302\u0323", "\u1ec7"); /* reordered first */
    expect_nfc("\u00e9\u0323", "\u1eb9\u0301");
    expect_nfc("a\u0301\u0301", "\u00e1\u0301");
    expect_nfc("\u0301a", "\u0301a");
    expect_nfc("\u1100\u1161\u11a8", "\uac01");
    expect_nfc("\uac00\u11a8", "\uac01");
    expect_nfc("\uac01\u11a8", "\uac01\u11a8");
    expect_nfc("\u212b\u2126", "\u00c5\u03a9"); /* singletons */
    expect_nfc("\u0958", "\u0915\u093c");       /* excluded from composition */
    expect_nfc("\u0344", "\u0308\u0301");
    expect_nfc("\u1f00\u0301\u0345", "\u1f84");
    expect_nfc("\U0001d15e", "\U0001d157\U0001d165");
    expect_nfc("\U0002f800", "\u4e3d");
    /* Unicode 13 composes these two, Unicode 9 does not know them. */
    expect_nfc("\U00011935\U00011930", "\U00011935\U00011930");
    /* U+1DF6 is a mark since Unicode 10: in 9 it blocks. */
    expect_nfc("e\u1df6\u0301", "e\u1df6\u0301");
}

Test(text_unicode, nfd)
{
    expect_form("", false, "");
    expect_form("plain", false, "plain");
    expect_form("\u00e9x", false, "e\u0301x");
    expect_form("e\u0302\u0323", false, "e\u0323\u0302");
    expect_form("\u1ec7\u00c0", false, "e\u0323\u0302A\u0300");
    expect_form("\uac01", false, "\u1100\u1161\u11a8");
    expect_form("\u00bf\u00df", false, "\u00bf\u00df");
    expect_form("\U00011935\U00011930", false, "\U00011935\U00011930");
}

/* A starter and 100,000 marks in falling order of class: sorted, and the one
 * of them that composes does. Quadratic sorting would take a minute. */
Test(text_unicode, nfc_of_many_marks)
{
    enum { N = 50000 };
    base_str in = {0};
    base_str_puts(&in, "e");
    for (int i = 0; i < N; i++)
        base_str_puts(&in, "\u0301"); /* class 230 */
    for (int i = 0; i < N; i++)
        base_str_puts(&in, "\u0323"); /* class 220 */
    text_buffer buffer = normal_form(in.s, in.len, true);
    base_str out = buffer.text;
    cr_assert_not(out.failed);
    cr_assert_eq(out.len, in.len); /* e + a dot below: 3 bytes, as U+1EB9 */
    cr_expect_eq(memcmp(out.s, "\u1eb9\u0323\u0323", 7), 0);
    cr_expect_eq(memcmp(out.s + out.len - 4, "\u0301\u0301", 4), 0);
    base_str_free(&in);
    text_buffer_free(&buffer);
}

/* Counts of the tables, from tokenizers 0.23: 1924 numeric characters
 * (spec text.md 0), and edges of the ranges. */
Test(text_unicode, classes)
{
    int numeric = 0, space = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        numeric += text_is_numeric(c);
        space += text_is_white_space(c);
    }
    cr_expect_eq(numeric, 1924);
    cr_expect_eq(space, 25);
    cr_expect(text_is_numeric(0xBD) && text_is_numeric(0x216B));
    cr_expect(text_is_numeric(0x3007) && !text_is_numeric(0x4E00));
    cr_expect(text_is_word('_') && text_is_word(0x301) && text_is_word(0x4E00));
    cr_expect(text_is_word(0x200D) && !text_is_word(0x200B));
    cr_expect_not(text_is_word('-') || text_is_word(0xBD));
}

/* The alphabet is one to one and has the known members. */
Test(text_unicode, byte_alphabet)
{
    bool seen[0x144] = {false};
    for (int b = 0; b < 256; b++) {
        uint32_t c = text_byte_char((uint8_t)b);
        cr_assert_lt(c, 0x144);
        cr_expect_not(seen[c]);
        seen[c] = true;
        cr_expect_eq(text_char_byte(c), b);
    }
    cr_expect_eq(text_byte_char(0x20), 0x120);
    cr_expect_eq(text_byte_char(0x0A), 0x10A);
    cr_expect_eq(text_byte_char(0xAD), 0x143);
    cr_expect_eq(text_byte_char(0x7F), 0x121);
    cr_expect_eq(text_char_byte(0x144), -1);
    cr_expect_eq(text_char_byte(0x20), -1);
}

/* Exact counts of U+FFFD for ill-formed strings (Rust's from_utf8_lossy). */
Test(text_unicode, repair)
{
    static const struct {
        const char *s;
        size_t marks;
    } rows[] = {{"\xff", 1},
                {"\xc3", 1},
                {"\xc0\x80", 2},
                {"\xed\xa0\x80", 3},
                {"\xf4\x90\x80\x80", 4},
                {"\xe5\x8f", 1},
                {"\xf0\x9f\xa6", 1},
                {"\xf0\x9f\xf0\x9f", 2},
                {"\xe5\x8f\x61", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        base_str out = {0};
        size_t marks = 0, n = strlen(rows[i].s);
        cr_expect_eq(text_utf8_lossy(rows[i].s, n, true, &out), n);
        for (size_t k = 0; k + 2 < out.len; k++)
            marks += memcmp(out.s + k, "\xEF\xBF\xBD", 3) == 0;
        cr_expect_eq(marks, rows[i].marks, "row %zu", i);
        cr_expect_eq(base_utf8_valid(out.s, out.len), out.len);
        base_str_free(&out);
    }
}

Test(text_unicode, utf8_round_trip)
{
    for (uint32_t c = 1; c < 0x110000; c++) {
        char bytes[4];
        uint32_t back = 0, next = 0, before = 0;
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        int n = text_utf8_put(c, bytes);
        cr_assert_eq(text_utf8_get(bytes, (size_t)n, &back), n);
        cr_assert_eq(text_utf8_next(bytes, &next), n);
        cr_assert_eq(text_utf8_before(bytes, (size_t)n, &before), n);
        cr_assert(back == c && next == c && before == c);
        if (n > 1)
            cr_assert_eq(text_utf8_get(bytes, (size_t)n - 1, &back), 0);
    }
}
