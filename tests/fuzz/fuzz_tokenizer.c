/* fuzz_tokenizer.c - bytes that begin with '{' are a tokenizer.json, which
 * must be refused with a message or work; other bytes are a text for a fixed
 * tokenizer, which must be refused or give ids that decode alike, whole and
 * streamed. */
#include <stdlib.h>

#include "fuzz/fuzz.h"
#include "fuzz/memory_file.h"

#include "text/text.h"

static const char FIXED[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":9,\"content\":\"<s>\","
    "\"single_word\":true,\"lstrip\":true,\"rstrip\":true,\"normalized\":true,"
    "\"special\":true},{\"id\":9,\"content\":\"  \",\"single_word\":false,"
    "\"lstrip\":true,\"rstrip\":false,\"normalized\":false,\"special\":false}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":"
    "\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
    "\"individual_digits\":false},{\"type\":\"Split\",\"pattern\":{\"Regex\":"
    "\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}]?\\\\p{L}+|\\\\s+(?!\\\\S)|\\\\s*\"},"
    "\"behavior\":\"MergedWithNext\",\"invert\":true},{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":true,\"trim_offsets\":true}]},\"post_processor\":"
    "null,"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
    "\"unk_token\":\"a\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":"
    "{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120a\":4,\"<0xC4>\":5,"
    "\"<0x80>\":6,\"\\u00c3\":7,\"aa\":8},\"merges\":[\"a b\",\"a a\","
    "\"\\u0120 a\"]}}";

static void check_decode(const text_tokenizer *tok, const text_ids *ids)
{
    base_str whole = {0}, parts = {0};
    text_stream *stream = NULL;
    FUZZ_CHECK(text_decode(tok, ids->ids, ids->n, 0, &whole, NULL) == LORI_OK);
    FUZZ_CHECK(text_stream_new(tok, 0, &stream, NULL) == LORI_OK);
    for (size_t i = 0; i < ids->n; i++) {
        FUZZ_CHECK(ids->ids[i] >= 0 && text_token(tok, ids->ids[i]));
        FUZZ_CHECK(text_stream_put(stream, ids->ids[i], &parts, NULL) ==
                   LORI_OK);
    }
    FUZZ_CHECK(text_stream_end(stream, &parts, NULL) == LORI_OK);
    /* A wrong byte takes a whole run of byte tokens with it; a stream has shown
     * the good characters before it. */
    if (!whole.len || !memmem(whole.s, whole.len, "\xEF\xBF\xBD", 3)) {
        FUZZ_CHECK(whole.len == parts.len);
        FUZZ_CHECK(!whole.len || memcmp(whole.s, parts.s, whole.len) == 0);
    }
    FUZZ_CHECK(!whole.len || base_utf8_valid(whole.s, whole.len) == whole.len);
    text_stream_free(stream);
    base_str_free(&whole);
    base_str_free(&parts);
}

/* Offsets do not change ids. */
static void check_offsets(const text_tokenizer *tok, const char *s, size_t n,
                          unsigned flags, const text_ids *want)
{
    text_ids ids = {0};
    text_offset *at = NULL;
    FUZZ_CHECK(text_encode_offsets(tok, s, n, flags, &ids, &at, NULL) ==
               LORI_OK);
    FUZZ_CHECK(ids.n == want->n && at);
    FUZZ_CHECK(!ids.n ||
               memcmp(ids.ids, want->ids, ids.n * sizeof *ids.ids) == 0);
    text_ids_free(&ids);
    free(at);
}

static void try_text(const text_tokenizer *tok, const char *s, size_t n)
{
    for (unsigned flags = 0; flags <= TEXT_PLAIN; flags += TEXT_PLAIN) {
        text_ids ids = {0};
        lori_error err = {0};
        if (text_encode(tok, s, n, flags, &ids, &err) == LORI_OK) {
            check_decode(tok, &ids);
            check_offsets(tok, s, n, flags, &ids);
        } else {
            FUZZ_CHECK(ids.n == 0 && err.message[0]);
        }
        text_ids_free(&ids);
    }
}

int fuzz_tokenizer(const uint8_t *data, size_t n)
{
    static const char *const texts[] = {"",
                                        "a b  ab 12 <s> \xC3\xA9\xCC\x81\n\n'S",
                                        "aaaaaaaaaaaaaaaaaaaaaaaa"};
    bool is_file = n > 0 && data[0] == '{';
    text_tokenizer *tok = NULL;
    lori_error err = {0};
    char path[64];
    int fd = is_file
                 ? memory_file(data, n, path)
                 : memory_file((const uint8_t *)FIXED, sizeof FIXED - 1, path);
    lori_status st = text_tokenizer_open(path, &tok, &err);
    close(fd);
    if (st != LORI_OK) {
        FUZZ_CHECK(is_file && !tok && err.message[0]);
        return 0;
    }
    if (!is_file)
        try_text(tok, (const char *)data, n);
    for (size_t i = 0; is_file && i < sizeof texts / sizeof *texts; i++)
        try_text(tok, texts[i], strlen(texts[i]));
    text_tokenizer_close(tok);
    return 0;
}

FUZZ_TARGET(fuzz_tokenizer)
