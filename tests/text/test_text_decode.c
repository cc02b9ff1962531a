/* test_text_decode.c - ids to text, whole and streamed. */
#include "text/text_test.h"

static void expect_text(const text_tokenizer *tok, const int32_t *ids, size_t n,
                        unsigned flags, const char *want)
{
    base_str out = {0};
    cr_assert_eq(text_decode(tok, ids, n, flags, &out, NULL), LORI_OK);
    cr_expect_str_eq(out.s ? out.s : "", want);
    base_str_free(&out);
}

Test(text_decode, bytes_special_and_unknown)
{
    text_tokenizer *tok = open_good(SMALL);
    expect_text(tok, (int32_t[]){19, 6, 9, 16, 20}, 5, 0, "<s>abc a\n</s>");
    expect_text(tok, (int32_t[]){19, 6, 9, 16, 20}, 5, TEXT_SKIP_SPECIAL,
                "abc a\n");
    expect_text(tok, (int32_t[]){0, -1, 21, 1000000, 1}, 5, 0, "ab");
    expect_text(tok, NULL, 0, 0, "");
    /* One U+FFFD for each maximal ill-formed part. */
    expect_text(tok, (int32_t[]){10, 0}, 2, 0,
                "\xEF\xBF\xBD"
                "a");
    expect_text(tok, (int32_t[]){12, 13, 14}, 3, 0, "\xEF\xBF\xBD");
    expect_text(tok, (int32_t[]){11, 11}, 2, 0, "\xEF\xBF\xBD\xEF\xBF\xBD");
    cr_expect_eq(text_decode(tok, NULL, 0, 8, NULL, NULL), LORI_INVALID);
    text_tokenizer_close(tok);
}

/* A character of the byte alphabet in an added token is a byte. */
Test(text_decode, added_token_of_the_byte_alphabet)
{
    text_tokenizer *tok = open_good(TOKENIZER(
        ADDED("\\u00e9", "21", "false") "," ADDED("\\u4e00", "22", "false"),
        "null", BYTE_LEVEL, "null", BYTE_LEVEL, SMALL_MODEL));
    expect_text(tok, (int32_t[]){21, 22}, 2, 0, "\xEF\xBF\xBD\xE4\xB8\x80");
    text_tokenizer_close(tok);
}

Test(text_decode, without_a_decoder)
{
    text_tokenizer *tok = open_good(
        TOKENIZER("", "null", BYTE_LEVEL, "null", "null", SMALL_MODEL));
    expect_text(tok, (int32_t[]){6, 9, 50, 0}, 4, 0,
                "abc \xC4\xA0"
                "a a");
    text_tokenizer_close(tok);
    tok = open_good(TOKENIZER("", "null", BYTE_LEVEL, "null",
                              "{\"type\":\"Fuse\"}", SMALL_MODEL));
    expect_text(tok, (int32_t[]){6, 0}, 2, 0, "abca");
    text_tokenizer_close(tok);
}

/* Each put gives what has become certain: U+1F99B is bytes F0 9F A6 9B. */
Test(text_decode, stream_step_by_step)
{
    static const struct {
        int32_t id;
        const char *now;
    } steps[] = {{0, "a"},
                 {12, ""},
                 {13, ""},
                 {14, ""},
                 {15, "\xF0\x9F\xA6\x9B"},
                 {10, ""},
                 {0, "\xEF\xBF\xBD"
                     "a"},
                 {12, ""},
                 {12, "\xEF\xBF\xBD"},
                 {13, ""}};
    text_tokenizer *tok = open_good(SMALL);
    text_stream *stream = NULL;
    base_str out = {0};
    cr_assert_eq(text_stream_new(tok, 0, &stream, NULL), LORI_OK);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        base_str_clear(&out);
        cr_assert_eq(text_stream_put(stream, steps[i].id, &out, NULL), LORI_OK);
        cr_expect_str_eq(out.len ? out.s : "", steps[i].now, "step %zu", i);
    }
    base_str_clear(&out);
    cr_assert_eq(text_stream_end(stream, &out, NULL), LORI_OK);
    cr_expect_str_eq(out.s, "\xEF\xBF\xBD"); /* F0 9F: one part */
    text_stream_free(stream);
    text_stream_free(NULL);
    base_str_free(&out);
    text_tokenizer_close(tok);
}

/* All sequences of up to four of the byte tokens: streamed = whole. */
Test(text_decode, stream_equals_whole)
{
    static const int32_t pick[] = {0, 10, 11, 12, 13, 14, 15, 19};
    enum { KINDS = sizeof pick / sizeof *pick };
    text_tokenizer *tok = open_good(SMALL);
    for (unsigned flags = 0; flags <= TEXT_SKIP_SPECIAL; flags++)
        for (int code = 0; code < KINDS * KINDS * KINDS * KINDS; code++) {
            int32_t ids[4];
            base_str whole = {0}, parts = {0};
            text_stream *stream = NULL;
            for (int i = 0, rest = code; i < 4; i++, rest /= KINDS)
                ids[i] = pick[rest % KINDS];
            cr_assert_eq(text_decode(tok, ids, 4, flags, &whole, NULL),
                         LORI_OK);
            cr_assert_eq(text_stream_new(tok, flags, &stream, NULL), LORI_OK);
            for (int i = 0; i < 4; i++)
                cr_assert_eq(text_stream_put(stream, ids[i], &parts, NULL),
                             LORI_OK);
            cr_assert_eq(text_stream_end(stream, &parts, NULL), LORI_OK);
            cr_assert_eq(whole.len, parts.len, "code %d", code);
            if (whole.len)
                cr_assert_eq(memcmp(whole.s, parts.s, whole.len), 0);
            text_stream_free(stream);
            base_str_free(&whole);
            base_str_free(&parts);
        }
    text_tokenizer_close(tok);
}
