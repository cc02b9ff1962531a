/* test_str.c - strings, texts of numbers, errors and callbacks. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

Test(str, grows)
{
    base_str s = {0};
    for (int i = 0; i < 1000; i++)
        base_str_printf(&s, "%d,", i);
    cr_expect_eq(s.len, 10 * 2 + 90 * 3 + 900 * 4);
    cr_expect_eq(s.s[s.len], '\0');
    cr_expect_eq(strncmp(s.s, "0,1,2,", 6), 0);
    base_str_clear(&s);
    base_str_add(&s, "a\0b", 3);
    cr_expect(s.len == 3 && memcmp(s.s, "a\0b", 4) == 0);
    char *taken = base_str_take(&s);
    cr_expect(s.s == NULL && s.len == 0);
    free(taken);
    taken = base_str_take(&s);
    cr_expect_str_eq(taken, "");
    free(taken);
    s.failed = true;
    base_str_puts(&s, "x");
    cr_expect_null(base_str_take(&s));
    cr_expect_not(s.failed);
}

/* As Python 3 prints them. */
Test(str, doubles_as_python_repr)
{
    static const struct {
        double x;
        const char *text;
    } rows[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {0.1, "0.1"},
        {1e-5, "1e-05"},
        {0.0001, "0.0001"},
        {0.00012, "0.00012"},
        {1e16, "1e+16"},
        {1e15, "1000000000000000.0"},
        {9999999999999998.0, "9999999999999998.0"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {2.0 / 3, "0.6666666666666666"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {9.999999747378752e-06, "9.999999747378752e-06"},
        {-1234.5, "-1234.5"},
        {100, "100.0"},
        {1e22, "1e+22"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
        {NAN, "nan"},
    };
    char text[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_str_eq(base_f64_text(rows[i].x, text), rows[i].text);
}

Test(str, floats_read_back)
{
    char text[32];
    cr_expect_str_eq(base_f32_text(1e-5F, text), "1e-05");
    cr_expect_str_eq(base_f32_text(1e-6F, text), "1e-06");
    cr_expect_str_eq(base_f32_text(500000, text), "500000.0");
    cr_expect_str_eq(base_f32_text(1.08F, text), "1.08");
    uint32_t u = 12345;
    for (int i = 0; i < 20000; i++) {
        u = u * 1664525 + 1013904223;
        float x;
        memcpy(&x, &u, sizeof x);
        if (isnan(x) || isinf(x))
            continue;
        cr_assert_eq(strtof(base_f32_text(x, text), NULL), x);
        double d = (double)x * 1.1;
        cr_assert_eq(strtod(base_f64_text(d, text), NULL), d);
        cr_assert(strpbrk(text, ".e") != NULL);
    }
}

Test(str, nearest)
{
    static const char *const keys[] = {"learning_rate", "lora_rank", "seed",
                                       "lr"};
    cr_expect_str_eq(base_nearest("learnign_rate", keys, 4), "learning_rate");
    cr_expect_str_eq(base_nearest("lora_rnk", keys, 4), "lora_rank");
    cr_expect_str_eq(base_nearest("sede", keys, 4), "seed");
    cr_expect_null(base_nearest("dropout", keys, 4));
    cr_expect_null(base_nearest("xy", keys, 4));
    cr_expect_null(base_nearest("", keys, 4));
    char longest[200];
    memset(longest, 'a', sizeof longest);
    longest[199] = '\0';
    cr_expect_null(base_nearest(longest, keys, 4));
}

Test(str, utf8)
{
    static const struct {
        const char *s;
        size_t n, valid;
    } rows[] = {
        {"abc", 3, 3},
        {"h\xc3\xa9", 3, 3},
        {"\xf0\x9f\x98\x80", 4, 4},
        {"\xc0\xaf", 2, 0},
        {"\xe0\x80\xaf", 3, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xf4\x90\x80\x80", 4, 0},
        {"a\xe2\x82", 3, 1},
        {"\x80", 1, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"a\0b", 3, 3},
        {"", 0, 0},
        {"\xe2\x28\xa1", 3, 0},
        {"\xf0\x90\x28\xbc", 4, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(base_utf8_valid(rows[i].s, rows[i].n), rows[i].valid,
                     "row %zu", i);
}

Test(str, human_bytes)
{
    char b[32];
    cr_expect_str_eq(base_human_bytes(0, b, sizeof b), "0 B");
    cr_expect_str_eq(base_human_bytes(999, b, sizeof b), "999 B");
    cr_expect_str_eq(base_human_bytes(12.3e6, b, sizeof b), "12.3 MB");
    cr_expect_str_eq(base_human_bytes(999960, b, sizeof b), "1.0 MB");
    cr_expect_str_eq(base_human_bytes(1e21, b, sizeof b), "1000.0 EB");
}

Test(error, message)
{
    lori_error err;
    cr_expect_eq(base_fail(&err, LORI_FORMAT, "line %d\nof\x1b[2J it", 3),
                 LORI_FORMAT);
    cr_expect_str_eq(err.message, "line 3 of [2J it"); /* one plain line */
    cr_expect_eq(base_prefix(&err, LORI_IO, "reading %s", "x"), LORI_IO);
    cr_expect_str_eq(err.message, "reading x: line 3 of [2J it");
    cr_expect_eq(err.status, LORI_IO);
    base_fail(&err, LORI_IO,
              "a\xc2\x9b"
              "1m\xff\xc3\xa9\xc3");
    cr_expect_str_eq(err.message, "a  1m?\xc3\xa9?");
    cr_expect_eq(base_fail(NULL, LORI_IO, "x"), LORI_IO);
    cr_expect_eq(base_prefix(NULL, LORI_IO, "x"), LORI_IO);
    cr_expect_str_eq(base_status_name(LORI_OK), "OK");
    cr_expect_str_eq(base_status_name(LORI_DEVICE), "DEVICE");
    cr_expect_str_eq(base_status_name((lori_status)99), "UNKNOWN");
    cr_expect_eq(base_fail_errno(&err, 2, "cannot open '%s'", "q"),
                 LORI_NOT_FOUND);
    cr_expect_str_eq(err.message, "cannot open 'q': No such file or directory");
}

Test(error, long_message_ends_on_a_whole_character)
{
    lori_error err;
    char text[4000];
    for (int shift = 0; shift < 3; shift++) {
        memset(text, 'a', 3);
        for (int i = 0; i < 1200; i++)
            memcpy(text + shift + 3 * i, "\xe2\x82\xac", 3);
        text[shift + 3600] = '\0';
        base_fail(&err, LORI_IO, "%s", text);
        size_t n = strlen(err.message);
        cr_expect_gt(n, sizeof err.message - 5);
        cr_expect_eq(base_utf8_valid(err.message, n), n);
        base_prefix(&err, LORI_IO, "ab");
        n = strlen(err.message);
        cr_expect_eq(strncmp(err.message, "ab: ", 4), 0);
        cr_expect_eq(base_utf8_valid(err.message, n), n);
    }
}

typedef struct seen {
    char line[64], detail[64];
    int64_t done;
} seen;

static void on_log(void *context, lori_log_level level, const char *line)
{
    seen *s = context;
    snprintf(s->line, sizeof s->line, "%d %s", (int)level, line);
}

static void on_progress(void *context, const lori_progress *p)
{
    seen *s = context;
    s->done = p->done;
    snprintf(s->detail, sizeof s->detail, "%s %s", p->what, p->detail);
}

static int on_interrupted(void *context)
{
    return ((seen *)context)->done == 5;
}

Test(ui, callbacks)
{
    seen s = {.done = 0};
    lori_ui ui = {.context = &s,
                  .log = on_log,
                  .progress = on_progress,
                  .interrupted = on_interrupted};
    base_log(&ui, LORI_LOG_WARNING, "n = %d", 3);
    cr_expect_str_eq(s.line, "1 n = 3");
    cr_expect_not(base_interrupted(&ui));
    base_progress(&ui, "train", 5, 9, "loss %.1f", 0.5);
    cr_expect_str_eq(s.detail, "train loss 0.5");
    cr_expect(base_interrupted(&ui));
    base_progress(&ui, "train", 6, 9, NULL);
    cr_expect_str_eq(s.detail, "train ");
    lori_ui none = {0};
    base_log(&none, LORI_LOG_INFO, "x");
    base_progress(NULL, "x", 0, 0, NULL);
    cr_expect_not(base_interrupted(&none));
    cr_expect_not(base_interrupted(NULL));
}

Test(ui, this_process)
{
    cr_expect_gt(base_rss_peak_bytes(), 100000);
    int64_t before = base_rss_anon_bytes();
    cr_expect_gt(before, 0);
    size_t n = 32 << 20;
    volatile char *block = malloc(n);
    cr_assert_not_null((void *)block);
    for (size_t i = 0; i < n; i += 4096)
        block[i] = 1;
    /* Most of the 32 MiB must show, whatever the allocator does. */
    cr_expect_gt(base_rss_anon_bytes(), before + (24 << 20));
    free((void *)block);
    double t = base_now_s();
    cr_expect(base_now_s() >= t);
}
