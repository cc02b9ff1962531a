/* test_text_encode.c - encode: order of merges, added tokens, bad bytes, long
 * texts, and what a failure leaves behind. */
#include "text/text_test.h"

Test(text_encode, merges_go_by_rank)
{
    text_tokenizer *tok = open_good(SMALL);
    /* "b c" (rank 0) goes before "a b" (rank 1), then "a bc" gives abc. */
    EXPECT_IDS(tok, "abc", 0, "6");
    EXPECT_IDS(tok, "ab", 0, "4");
    EXPECT_IDS(tok, "aaaaaaa", 0, "8 7 0"); /* leftmost of equal ranks */
    EXPECT_IDS(tok, "a a", 0, "0 9");
    EXPECT_IDS(tok, "a  a", 0, "0 3 9");
    EXPECT_IDS(tok, "", 0, "");
    EXPECT_IDS(tok, "a\xC3\xA9", 0, "0 10 11");
    EXPECT_IDS(tok, "azb", 0, "4"); /* no unk: z is dropped, as in HF */
    text_tokenizer_close(tok);
}

Test(text_encode, special_text)
{
    text_tokenizer *tok = open_good(SMALL);
    EXPECT_IDS(tok, "a<s>b</s>", 0, "0 19 1 20");
    EXPECT_IDS(tok, "<<s>>a", 0, "19 0");
    EXPECT_IDS(tok, "a<s>b", TEXT_PLAIN, "0 1");
    cr_expect(text_is_special(tok, 19));
    cr_expect_not(text_is_special(tok, 18));
    cr_expect_not(text_is_special(tok, 99));
    cr_expect_eq(text_vocab_size(tok), 21);
    cr_expect_str_eq(text_token(tok, 9), "\xC4\xA0"
                                         "a");
    cr_expect_null(text_token(tok, 21));
    cr_expect_null(text_token(tok, -1));
    cr_expect_eq(text_token_id(tok, "</s>"), 20);
    cr_expect_eq(text_token_id(tok, "abc"), 6);
    cr_expect_eq(text_token_id(tok, "x"), -1);
    text_tokenizer_close(tok);
}

/* Ids of added tokens: the vocabulary's first, then the next free ones; what
 * the file says does not count. */
Test(text_encode, ids_of_added_tokens)
{
    text_tokenizer *tok = open_good(TOKENIZER(
        ADDED("abc", "500", "true") "," ADDED("new", "3", "false") "," ADDED(
            "newer", "3", "true") "," ADDED("", "4", "true"),
        "null", BYTE_LEVEL, "null", BYTE_LEVEL, SMALL_MODEL));
    cr_expect_eq(text_token_id(tok, "abc"), 6);
    cr_expect_eq(text_token_id(tok, "new"), 21);
    cr_expect_eq(text_token_id(tok, "newer"), 22);
    cr_expect_eq(text_vocab_size(tok), 23);
    EXPECT_IDS(tok, "newernew1", 0, "22 21 17"); /* longest first */
    cr_expect(text_is_special(tok, 22));
    cr_expect_not(text_is_special(tok, 21));
    text_tokenizer_close(tok);
}

Test(text_encode, template_with_ids_around)
{
    text_tokenizer *tok = open_good(TOKENIZER(
        SMALL_ADDED, "null", BYTE_LEVEL,
        "{\"type\":\"Sequence\",\"processors\":[" BYTE_LEVEL
        ",{\"type\":\"TemplateProcessing\",\"single\":["
        "{\"SpecialToken\":{\"id\":\"BOS\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
        "{\"SpecialToken\":{\"id\":\"EOS\",\"type_id\":0}}],\"pair\":[],"
        "\"special_tokens\":{\"BOS\":{\"id\":\"BOS\",\"ids\":[19],"
        "\"tokens\":[\"<s>\"]},\"EOS\":{\"id\":\"EOS\",\"ids\":[20,16],"
        "\"tokens\":[\"</s>\",\"x\"]}}}]}",
        BYTE_LEVEL, SMALL_MODEL));
    EXPECT_IDS(tok, "ab", TEXT_ADD_SPECIAL, "19 4 20 16");
    EXPECT_IDS(tok, "ab", 0, "4");
    EXPECT_IDS(tok, "", TEXT_ADD_SPECIAL, "19 20 16");
    text_tokenizer_close(tok);
}

/* The ill-formed strings of the Unicode standard and their first bad byte. */
Test(text_encode, bytes_that_are_not_utf8)
{
    static const struct {
        const char *s;
        size_t n, bad;
    } rows[] = {{"\xff", 1, 0},
                {"a\xc3", 2, 1},
                {"\xc0\x80", 2, 0},
                {"ab\xed\xa0\x80", 5, 2},
                {"\xf4\x90\x80\x80", 4, 0},
                {"a\0\xe5\x8f", 4, 2}};
    text_tokenizer *tok = open_good(SMALL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text_ids ids = {0};
        lori_error err = {0};
        char place[32];
        cr_assert_eq(text_ids_add(&ids, 7, &err), LORI_OK);
        cr_expect_eq(text_encode(tok, rows[i].s, rows[i].n, 0, &ids, &err),
                     LORI_FORMAT);
        snprintf(place, sizeof place, "byte %zu ", rows[i].bad);
        cr_expect(strstr(err.message, place) != NULL, "%zu: %s", i,
                  err.message);
        cr_expect_eq(ids.n, 1); /* what was there stays */
        text_ids_free(&ids);
    }
    text_tokenizer_close(tok);
}

Test(text_encode, appends_and_takes_zero_bytes)
{
    text_tokenizer *tok = open_good(SMALL);
    text_ids ids = {0};
    cr_assert_eq(text_encode(tok, "ab", 2, 0, &ids, NULL), LORI_OK);
    cr_assert_eq(text_encode(tok, "a\0b", 3, 0, &ids, NULL), LORI_OK);
    cr_assert_eq(text_encode(tok, NULL, 0, 0, &ids, NULL), LORI_OK);
    cr_assert_eq(ids.n, 3);
    cr_expect_eq(ids.ids[0], 4);
    cr_expect_eq(ids.ids[1], 0);
    cr_expect_eq(ids.ids[2], 1);
    cr_expect_eq(text_encode(tok, "a", 1, 64, &ids, NULL), LORI_INVALID);
    text_ids_free(&ids);
    text_tokenizer_close(tok);
}

/* One piece of 100,003 letters: the heap; a quadratic merge would take
 * minutes. 100003 = 25000 * 4 + 2 + 1. */
Test(text_encode, long_pieces)
{
    enum { N = 100003 };
    text_tokenizer *tok = open_good(SMALL);
    text_ids ids = {0};
    lori_error err = {0};
    char *s = malloc(N);
    cr_assert_not_null(s);
    memset(s, 'a', N);
    cr_assert_eq(text_encode(tok, s, N, 0, &ids, &err), LORI_OK, "%s",
                 err.message);
    cr_assert_eq(ids.n, 25002);
    for (size_t i = 0; i < 25000; i++)
        cr_assert_eq(ids.ids[i], 8);
    cr_expect_eq(ids.ids[25000], 7);
    cr_expect_eq(ids.ids[25001], 0);
    ids.n = 0;
    memset(s, ' ', N);
    s[N - 1] = 'a'; /* \s+(?!\S) leaves one space to the last piece */
    cr_assert_eq(text_encode(tok, s, N, 0, &ids, &err), LORI_OK, "%s",
                 err.message);
    cr_assert_eq(ids.n, N - 1);
    cr_expect_eq(ids.ids[N - 3], 3);
    cr_expect_eq(ids.ids[N - 2], 9);
    free(s);
    text_ids_free(&ids);
    text_tokenizer_close(tok);
}

/* SMALL's merges by rank, as ids: left, right, result. */
static const int32_t MERGES[][3] = {{1, 2, 5},   {0, 1, 4}, {0, 5, 6},
                                    {0, 0, 7},   {7, 7, 8}, {3, 0, 9},
                                    {17, 17, 18}};

/* The definition, quadratic: the lowest rank anywhere, leftmost, one merge at
 * a time. */
static size_t merge_by_definition(int32_t *ids, size_t n)
{
    for (;;) {
        size_t rank = 0, at = n;
        for (; rank < sizeof MERGES / sizeof *MERGES && at == n; rank++)
            for (size_t i = 0; i + 1 < n && at == n; i++)
                if (ids[i] == MERGES[rank][0] && ids[i + 1] == MERGES[rank][1])
                    at = i;
        if (at == n)
            return n;
        ids[at] = MERGES[rank - 1][2];
        n--;
        for (size_t i = at + 1; i < n; i++)
            ids[i] = ids[i + 1];
    }
}

/* Pieces of 1 to 160 letters, on both sides of the change from scan to heap
 * (48), against the definition. */
Test(text_encode, pieces_of_all_lengths)
{
    text_tokenizer *tok = open_good(SMALL);
    base_rng rng;
    base_rng_start(&rng, 3, 0);
    for (size_t round = 0; round < 960; round++) {
        size_t n = 1 + round % 160;
        char text[160];
        int32_t want[160];
        text_ids have = {0};
        for (size_t i = 0; i < n; i++) {
            want[i] = (int32_t)base_rng_below(&rng, 3);
            /* Mostly a, so that the deep merges happen. */
            if (base_rng_below(&rng, 3))
                want[i] = 0;
            text[i] = (char)('a' + want[i]);
        }
        size_t n_want = merge_by_definition(want, n);
        cr_assert_eq(text_encode(tok, text, n, 0, &have, NULL), LORI_OK);
        cr_assert_eq(have.n, n_want, "length %zu", n);
        cr_assert_eq(memcmp(have.ids, want, n_want * sizeof *want), 0,
                     "length %zu", n);
        text_ids_free(&have);
    }
    text_tokenizer_close(tok);
}
