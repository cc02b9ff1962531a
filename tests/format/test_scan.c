/* test_scan.c - JSON as a stream, and SentencePiece models. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "format/format.h"

static format_scan start(const char *text)
{
    format_scan scan;
    cr_assert_eq(format_scan_start(&scan, text, strlen(text), "x.json", NULL),
                 LORI_OK);
    return scan;
}

Test(scan, values_in_order)
{
    format_scan scan = start(" {\"a\": [1, -20, \"b\\u00e9\\ud83d\\ude00\\n\"],"
                             "\"c\":{\"d\" :[{}, 1.5]}}\n");
    lori_error err = {0};
    const char *s;
    size_t n;
    int64_t x;
    bool more, good;
    cr_assert_eq(format_scan_open(&scan, '{', &err), LORI_OK);
    cr_assert_eq(format_scan_more(&scan, '}', &more, &err), LORI_OK);
    cr_assert_eq(format_scan_key(&scan, &s, &n, &err), LORI_OK);
    cr_expect(more && n == 1 && s[0] == 'a');
    cr_assert_eq(format_scan_open(&scan, '[', &err), LORI_OK);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(format_scan_more(&scan, ']', &more, &err), LORI_OK);
        cr_assert_eq(format_scan_int(&scan, -20, 1, &x, &good, &err), LORI_OK);
        cr_expect(good && x == (i ? -20 : 1));
    }
    cr_assert_eq(format_scan_more(&scan, ']', &more, &err), LORI_OK);
    cr_assert_eq(format_scan_string(&scan, &s, &n, &err), LORI_OK);
    cr_expect(n == 8 && memcmp(s, "b\u00e9\U0001f600\n", 8) == 0);
    cr_assert_eq(format_scan_more(&scan, ']', &more, &err), LORI_OK);
    cr_expect_not(more);
    cr_assert_eq(format_scan_more(&scan, '}', &more, &err), LORI_OK);
    cr_assert_eq(format_scan_key(&scan, &s, &n, &err), LORI_OK);
    cr_assert_eq(format_scan_skip(&scan, &s, &n, &err), LORI_OK);
    cr_expect(n == 16 && memcmp(s, "{\"d\" :[{}, 1.5]}", 16) == 0, "%zu", n);
    cr_assert_eq(format_scan_more(&scan, '}', &more, &err), LORI_OK);
    cr_expect_not(more);
    cr_expect_eq(format_scan_end(&scan, &err), LORI_OK);
    format_scan_free(&scan);
}

/* A value that is no such integer is skipped, and said to be none. */
Test(scan, integers_that_are_none)
{
    static const char *const texts[] = {
        "[7]",     "[-7]", "[1.0]", "[1e2]",
        "[\"1\"]", "[01]", "[{}]",  "[99999999999999999999]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        format_scan scan = start(texts[i]);
        lori_error err = {0};
        int64_t x;
        bool more, good;
        cr_assert_eq(format_scan_open(&scan, '[', &err), LORI_OK);
        cr_assert_eq(format_scan_more(&scan, ']', &more, &err), LORI_OK);
        cr_assert_eq(format_scan_int(&scan, -6, 6, &x, &good, &err), LORI_OK,
                     "%s: %s", texts[i], err.message);
        cr_expect_not(good, "%s", texts[i]);
        cr_assert_eq(format_scan_more(&scan, ']', &more, &err), LORI_OK, "%s",
                     texts[i]);
        cr_expect_not(more);
        format_scan_free(&scan);
    }
}

Test(scan, errors_name_line_and_column)
{
    static const struct {
        const char *text, *message;
    } cases[] = {{"[1,\n 2", "x.json:2:3: expected ',' or ']' near end"},
                 {"[\"a", "x.json:1:4: a string is not closed"},
                 {"[\"\\q\"]", "x.json:1:3: invalid escape"},
                 {"[\"\\ud800x\"]", "half of a surrogate pair"},
                 {"[\"a\nb\"]", "control character"},
                 {"[}", "x.json:1:2"},
                 {"[[]", "expected ',' or ']'"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        format_scan scan = start(cases[i].text);
        lori_error err = {0};
        const char *s;
        size_t n;
        bool more = true;
        lori_status st = format_scan_open(&scan, '[', &err);
        while (st == LORI_OK && more) {
            st = format_scan_more(&scan, ']', &more, &err);
            if (st == LORI_OK && more)
                st = format_scan_peek(&scan) == '"'
                         ? format_scan_string(&scan, &s, &n, &err)
                         : format_scan_skip(&scan, &s, &n, &err);
        }
        cr_expect_eq(st, LORI_FORMAT, "%s", cases[i].text);
        cr_expect(strstr(err.message, cases[i].message) != NULL, "%s",
                  err.message);
        format_scan_free(&scan);
    }
    format_scan scan;
    lori_error err = {0};
    cr_expect_eq(format_scan_start(&scan, "\"\xff\"", 3, "x.json", &err),
                 LORI_FORMAT);
    cr_expect(strstr(err.message, "invalid UTF-8") != NULL);
}

static char *corpus(const char *name, size_t *n)
{
    char path[128], *bytes;
    lori_error err = {0};
    snprintf(path, sizeof path, "tests/fuzz/corpus/spm/%s", name);
    cr_assert_eq(base_file_read(path, 1 << 20, &bytes, n, &err), LORI_OK, "%s",
                 err.message);
    return bytes;
}

Test(spm, small_model)
{
    size_t n;
    char *bytes = corpus("small.model", &n);
    format_spm spm;
    lori_error err = {0};
    cr_assert_eq(format_spm_parse(bytes, n, "m", &spm, &err), LORI_OK, "%s",
                 err.message);
    cr_expect_eq(spm.model_type, 2);
    cr_expect_eq(spm.byte_fallback, 1);
    cr_expect_eq(spm.remove_extra_whitespaces, 0);
    cr_expect_eq(spm.add_dummy_prefix, 1);
    cr_expect_eq(spm.bos, 1);
    cr_expect_eq(spm.pad, -1);
    cr_expect_eq(spm.piece[0].type, 2);
    cr_expect_eq(spm.piece[3].type, 6);
    cr_expect_eq(spm.piece[260].score, -1.0F);
    cr_expect(spm.piece[260].n == 2 &&
              memcmp(spm.piece[260].text, "he", 2) == 0);
    cr_expect_eq(spm.piece[spm.n - 1].type, 4);
    format_spm_free(&spm);
    /* Cut short it is another model, or an error with the place. */
    for (size_t cut = 1; cut < n; cut++) {
        lori_status st = format_spm_parse(bytes, cut, "m", &spm, &err);
        if (st == LORI_OK)
            format_spm_free(&spm);
        else
            cr_expect(strncmp(err.message, "m: byte ", 8) == 0, "%s",
                      err.message);
    }
    free(bytes);
}
