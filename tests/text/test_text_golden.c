/* test_text_golden.c - ids and texts against tests/golden/text_*.json, which
 * hold small tokenizers and what the tokenizers package gives for them. */
#include "format/format.h"
#include "text/text_test.h"

static bool same_ids(const json_t *want, const text_ids *have)
{
    if (json_array_size(want) != have->n)
        return false;
    for (size_t i = 0; i < have->n; i++)
        if (json_integer_value(json_array_get(want, i)) != have->ids[i])
            return false;
    return true;
}

static bool same_offsets(const json_t *want, const text_offset *at, size_t n)
{
    if (json_array_size(want) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(want, i);
        if (json_integer_value(json_array_get(pair, 0)) !=
                (json_int_t)at[i].start ||
            json_integer_value(json_array_get(pair, 1)) !=
                (json_int_t)at[i].end)
            return false;
    }
    return true;
}

static void check_offsets(const text_tokenizer *tok, const char *name,
                          size_t row, const json_t *text, const json_t *want,
                          unsigned flags)
{
    text_ids ids = {0};
    text_offset *at = NULL;
    lori_error err = {0};
    lori_status st =
        text_encode_offsets(tok, json_string_value(text),
                            json_string_length(text), flags, &ids, &at, &err);
    cr_expect(st == LORI_OK && same_offsets(want, at, ids.n),
              "%s: case %zu, flags %u: other offsets (%s)", name, row, flags,
              err.message);
    text_ids_free(&ids);
    free(at);
}

static void check_ids(const text_tokenizer *tok, const char *name, size_t row,
                      const json_t *text, const json_t *want, unsigned flags)
{
    text_ids ids = {0};
    lori_error err = {0};
    lori_status st = text_encode(tok, json_string_value(text),
                                 json_string_length(text), flags, &ids, &err);
    cr_expect(st == LORI_OK && same_ids(want, &ids),
              "%s: case %zu, flags %u: other ids (%s)", name, row, flags,
              err.message);
    text_ids_free(&ids);
}

/* Whole and streamed. */
static void check_text(const text_tokenizer *tok, const char *name, size_t row,
                       const json_t *list, const json_t *want, unsigned flags)
{
    text_ids ids = {0};
    base_str whole = {0}, parts = {0};
    text_stream *stream = NULL;
    for (size_t i = 0; i < json_array_size(list); i++)
        cr_assert_eq(
            text_ids_add(&ids,
                         (int32_t)json_integer_value(json_array_get(list, i)),
                         NULL),
            LORI_OK);
    cr_assert_eq(text_decode(tok, ids.ids, ids.n, flags, &whole, NULL),
                 LORI_OK);
    cr_assert_eq(text_stream_new(tok, flags, &stream, NULL), LORI_OK);
    for (size_t i = 0; i < ids.n; i++) {
        cr_assert_eq(text_stream_put(stream, ids.ids[i], &parts, NULL),
                     LORI_OK);
        cr_expect_eq(base_utf8_valid(parts.s ? parts.s : "", parts.len),
                     parts.len, "%s: %zu: half a character", name, row);
    }
    cr_assert_eq(text_stream_end(stream, &parts, NULL), LORI_OK);
    cr_expect(whole.len == json_string_length(want) &&
                  memcmp(whole.len ? whole.s : "", json_string_value(want),
                         whole.len) == 0,
              "%s: text %zu, flags %u: '%s', want '%s'", name, row, flags,
              whole.s ? whole.s : "", json_string_value(want));
    /* A wrong byte takes a whole run of byte tokens with it; a stream has shown
     * the good characters before it. */
    bool wrong_bytes = whole.len && strstr(whole.s, "\uFFFD");
    cr_expect((wrong_bytes && parts.len) ||
                  (whole.len == parts.len &&
                   memcmp(whole.len ? whole.s : "", parts.len ? parts.s : "",
                          whole.len) == 0),
              "%s: %zu: the streamed text differs", name, row);
    text_stream_free(stream);
    base_str_free(&whole);
    base_str_free(&parts);
    text_ids_free(&ids);
}

static void check_golden(const char *name)
{
    char path[128];
    json_t *root = NULL;
    lori_error err = {0};
    base_str file = {0};
    snprintf(path, sizeof path, "tests/golden/text_%s.json", name);
    cr_assert_eq(format_json_load(path, &root, &err), LORI_OK, "%s",
                 err.message);
    format_json_text(json_object_get(root, "tokenizer"), 0, &file);
    text_tokenizer *tok = open_good(file.s);
    const json_t *cases = json_object_get(root, "cases");
    const json_t *lists = json_object_get(root, "lists");
    cr_assert_gt(json_array_size(cases), 40);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *row = json_array_get(cases, i);
        const json_t *text = json_array_get(row, 0);
        const json_t *special = json_array_get(row, 2);
        check_ids(tok, name, i, text, json_array_get(row, 1), 0);
        check_ids(tok, name, i, text, special, TEXT_ADD_SPECIAL);
        check_ids(tok, name, i, text, json_array_get(row, 3), TEXT_PLAIN);
        check_offsets(tok, name, i, text, json_array_get(row, 6), 0);
        check_offsets(tok, name, i, text, json_array_get(row, 7),
                      TEXT_ADD_SPECIAL);
        check_text(tok, name, i, special, json_array_get(row, 4), 0);
        check_text(tok, name, i, special, json_array_get(row, 5),
                   TEXT_SKIP_SPECIAL);
    }
    for (size_t i = 0; i < json_array_size(lists); i++) {
        const json_t *row = json_array_get(lists, i);
        const json_t *ids = json_array_get(row, 0);
        check_text(tok, name, i, ids, json_array_get(row, 1), 0);
        check_text(tok, name, i, ids, json_array_get(row, 2),
                   TEXT_SKIP_SPECIAL);
    }
    text_tokenizer_close(tok);
    base_str_free(&file);
    json_decref(root);
}

Test(text_golden, gpt2)
{
    check_golden("gpt2");
}

Test(text_golden, smollm)
{
    check_golden("smollm");
}

Test(text_golden, llama3)
{
    check_golden("llama3");
}

Test(text_golden, qwen)
{
    check_golden("qwen");
}

Test(text_golden, flags_of_added_tokens)
{
    check_golden("flags");
}

Test(text_golden, characters_and_byte_fallback)
{
    check_golden("characters");
}

Test(text_golden, plain)
{
    check_golden("plain");
}

Test(text_golden, llama2)
{
    check_golden("llama2");
}

Test(text_golden, metaspace)
{
    check_golden("metaspace");
}

Test(text_golden, gemma)
{
    check_golden("gemma");
}

Test(text_golden, words)
{
    check_golden("words");
}
