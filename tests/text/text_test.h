/* text_test.h - what the text room's tests share. */
#ifndef TESTS_TEXT_TEXT_TEST_H
#define TESTS_TEXT_TEXT_TEST_H

#include <criterion/criterion.h>

#include "format/temp.h"
#include "text/text.h"

/* A byte-level tokenizer of nine merges. The empty parts are for tests that
 * put something there. */
#define SMALL_VOCAB                                                            \
    "{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"ab\":4,\"bc\":5,\"abc\":6,"      \
    "\"aa\":7,\"aaaa\":8,\"\\u0120a\":9,\"\\u00c3\":10,\"\\u00a9\":11,"        \
    "\"\\u00f0\":12,\"\\u0141\":13,\"\\u00a6\":14,\"\\u013d\":15,"             \
    "\"\\u010a\":16,\"1\":17,\"11\":18,\"<s>\":19,\"</s>\":20}"
#define SMALL_MERGES                                                           \
    "[\"b c\",\"a b\",[\"a\",\"bc\"],\"a a\",\"aa aa\",[\"\\u0120\",\"a\"],"   \
    "\"1 1\"]"
#define SMALL_MODEL                                                            \
    "{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"                   \
    "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"          \
    "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"      \
    "\"vocab\":" SMALL_VOCAB ",\"merges\":" SMALL_MERGES "}"
#define BYTE_LEVEL                                                             \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"                      \
    "\"trim_offsets\":true,\"use_regex\":true}"
#define ADDED(content, id, special)                                            \
    "{\"id\":" id ",\"content\":\"" content "\",\"single_word\":false,"        \
    "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"                  \
    "\"special\":" special "}"
#define TOKENIZER(added, normalizer, pre, post, decoder, model)                \
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"               \
    "\"added_tokens\":[" added "],\"normalizer\":" normalizer                  \
    ",\"pre_tokenizer\":" pre ",\"post_processor\":" post                      \
    ",\"decoder\":" decoder ",\"model\":" model "}"
#define SMALL_ADDED ADDED("<s>", "19", "true") "," ADDED("</s>", "20", "true")
#define SMALL                                                                  \
    TOKENIZER(SMALL_ADDED, "null", BYTE_LEVEL, "null", BYTE_LEVEL, SMALL_MODEL)

/* Opens bytes as tokenizer.json of a folder of their own. */
static inline lori_status open_bytes(const char *json, size_t n,
                                     text_tokenizer **out, lori_error *err)
{
    temp t;
    temp_open(&t);
    temp_file(&t, "tokenizer.json", json, n);
    lori_status st = text_tokenizer_open(t.dir, out, err);
    temp_close(&t);
    return st;
}

static inline text_tokenizer *open_good(const char *json)
{
    text_tokenizer *tok = NULL;
    lori_error err = {0};
    cr_assert_eq(open_bytes(json, strlen(json), &tok, &err), LORI_OK, "%s",
                 err.message);
    return tok;
}

/* The ids of s as "1 2 3", in `buf`. */
static inline const char *ids_text(const text_tokenizer *tok, const char *s,
                                   unsigned flags, char buf[512])
{
    text_ids ids = {0};
    lori_error err = {0};
    size_t at = 0;
    cr_assert_eq(text_encode(tok, s, strlen(s), flags, &ids, &err), LORI_OK,
                 "%s", err.message);
    buf[0] = '\0';
    for (size_t i = 0; i < ids.n; i++)
        at += (size_t)snprintf(buf + at, 512 - at, "%s%d", i ? " " : "",
                               ids.ids[i]);
    text_ids_free(&ids);
    return buf;
}

#define EXPECT_IDS(tok, s, flags, want)                                        \
    do {                                                                       \
        char ids_buf_[512];                                                    \
        cr_expect_str_eq(ids_text(tok, s, flags, ids_buf_), want);             \
    } while (0)

/* Opening must fail with `status` and a message that holds `part`. */
static inline void expect_refused(const char *json, lori_status status,
                                  const char *part)
{
    text_tokenizer *tok = NULL;
    lori_error err = {0};
    lori_status st = open_bytes(json, strlen(json), &tok, &err);
    cr_expect_eq(st, status, "%s: %d %s", part, (int)st, err.message);
    cr_expect_null(tok);
    cr_expect(strstr(err.message, part) != NULL, "'%s' is not in '%s'", part,
              err.message);
    cr_expect(strstr(err.message, "tokenizer.json") != NULL, "no file in '%s'",
              err.message);
    text_tokenizer_close(tok);
}

#endif
