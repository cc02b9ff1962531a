/* test_text_load.c - what opening refuses, and what a folder's other files
 * change. */
#include "text/text_test.h"

#define WITH_PRE(pre)                                                          \
    TOKENIZER("", "null", pre, "null", BYTE_LEVEL, SMALL_MODEL)
#define SPLIT(regex)                                                           \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                      \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}"

Test(text_load, components_that_are_refused)
{
    expect_refused(TOKENIZER("", "{\"type\":\"Lowercase\"}", BYTE_LEVEL, "null",
                             BYTE_LEVEL, SMALL_MODEL),
                   LORI_UNSUPPORTED, "normalizer 'Lowercase'");
    expect_refused(
        TOKENIZER("",
                  "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
                  "{\"type\":\"NFKC\"}]}",
                  BYTE_LEVEL, "null", BYTE_LEVEL, SMALL_MODEL),
        LORI_UNSUPPORTED, "normalizer 'NFKC'");
    expect_refused(WITH_PRE("{\"type\":\"BertPreTokenizer\"}"),
                   LORI_UNSUPPORTED, "pre-tokenizer 'BertPreTokenizer'");
    expect_refused(WITH_PRE("{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"),
                   LORI_FORMAT, "'replacement' is not one character");
    expect_refused(WITH_PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\","
                            "\"prepend_scheme\":\"last\"}"),
                   LORI_UNSUPPORTED, "prepend_scheme 'last'");
    expect_refused(WITH_PRE("{\"type\":\"Metaspace\",\"replacement\":\"_\","
                            "\"add_prefix_space\":false}"),
                   LORI_FORMAT, "add_prefix_space false");
    expect_refused(WITH_PRE("{\"type\":\"Punctuation\",\"behavior\":\"No\"}"),
                   LORI_UNSUPPORTED, "split behavior 'No'");
    expect_refused(WITH_PRE("{\"type\":\"FixedLength\",\"length\":0}"),
                   LORI_FORMAT, "length");
    expect_refused(TOKENIZER("", "null", BYTE_LEVEL,
                             "{\"type\":\"BertProcessing\"}", BYTE_LEVEL,
                             SMALL_MODEL),
                   LORI_UNSUPPORTED, "post-processor 'BertProcessing'");
    expect_refused(TOKENIZER("", "null", BYTE_LEVEL, "null",
                             "{\"type\":\"WordPiece\"}", SMALL_MODEL),
                   LORI_UNSUPPORTED, "decoder 'WordPiece'");
    expect_refused(
        TOKENIZER("", "null", BYTE_LEVEL, "null",
                  "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},"
                  "{\"type\":\"ByteFallback\"}]}",
                  SMALL_MODEL),
        LORI_UNSUPPORTED, "ByteFallback is not supported at this place");
    expect_refused(TOKENIZER("", "null", BYTE_LEVEL, "null", BYTE_LEVEL,
                             "{\"type\":\"Unigram\",\"vocab\":[]}"),
                   LORI_UNSUPPORTED, "model 'Unigram'");
    expect_refused(WITH_PRE("{\"no\":1}"), LORI_NOT_FOUND, "pre-tokenizer");
    expect_refused("[1]", LORI_FORMAT, "not a JSON object");
    expect_refused("{\"version\":\"2.0\"}", LORI_UNSUPPORTED, "version '2.0'");
}

/* Constructs that Oniguruma and PCRE2 read differently. */
Test(text_load, patterns_that_are_refused)
{
    static const char *const files[] = {
        WITH_PRE(SPLIT("\\\\p{N}{1,3}+")), WITH_PRE(SPLIT("[a[bc]]")),
        WITH_PRE(SPLIT("[a-z&&[^b]]")),    WITH_PRE(SPLIT("\\\\w+")),
        WITH_PRE(SPLIT("a\\\\b")),         WITH_PRE(SPLIT("\\\\h")),
        WITH_PRE(SPLIT("\\\\p{Han}")),     WITH_PRE(SPLIT("(?i:straSSe)")),
        WITH_PRE(SPLIT("a(?i)b|c")),       WITH_PRE(SPLIT("(?m:a.)")),
        WITH_PRE(SPLIT("(a)\\\\1")),       WITH_PRE(SPLIT("a{,3}")),
        WITH_PRE(SPLIT("a{2}?")),          WITH_PRE(SPLIT("[[:alpha:]]"))};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_refused(files[i], LORI_UNSUPPORTED, "pre_tokenizer step 0");
    expect_refused(WITH_PRE(SPLIT("(a")), LORI_FORMAT, "'(' is not closed");
    expect_refused(WITH_PRE(SPLIT("a)")), LORI_FORMAT, "opens nowhere");
    expect_refused(WITH_PRE(SPLIT("[a")), LORI_FORMAT, "not closed");
}

Test(text_load, models_that_are_refused)
{
#define WITH_MODEL(model)                                                      \
    TOKENIZER("", "null", BYTE_LEVEL, "null", BYTE_LEVEL, model)
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0,\"b\":1},"
                              "\"merges\":[\"a b\"]}"),
                   LORI_FORMAT, "needs the token 'ab'");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}"),
                   LORI_FORMAT, "merges[0] is not two tokens");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}"),
                   LORI_FORMAT, "merges[0] is not two tokens");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":-1},\"merges\":[]}"),
                   LORI_FORMAT, "vocab['a']");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":4000000000},\"merges\":[]}"),
                   LORI_FORMAT, "vocab['a']");
    expect_refused(WITH_MODEL("{\"vocab\":[],\"merges\":[]}"), LORI_FORMAT,
                   "model.vocab");
    expect_refused(WITH_MODEL("{\"vocab\":{},\"merges\":[],\"dropout\":0.1}"),
                   LORI_UNSUPPORTED, "dropout 0.1");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"),
                   LORI_FORMAT, "gives the id 0 to 'a' and to 'b'");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}"),
                   LORI_FORMAT, "the token 'a' twice");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0},\"merges\":5}"),
                   LORI_FORMAT, "merges is not a list");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":0}}"), LORI_FORMAT,
                   "merges is not a list");
    expect_refused(WITH_MODEL("{\"vocab\":{\"a\":1.5},\"merges\":[]}"),
                   LORI_FORMAT, "vocab['a']");
}

/* unk_token outside the vocabulary is an error only when it is needed. */
Test(text_load, unknown_token_that_is_no_token)
{
    text_tokenizer *tok = open_good(
        WITH_MODEL("{\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]}"));
    text_ids ids = {0};
    lori_error err = {0};
    EXPECT_IDS(tok, "aa", 0, "0 0");
    cr_expect_eq(text_encode(tok, "ab", 2, 0, &ids, &err), LORI_FORMAT);
    cr_expect_eq(ids.n, 0);
    cr_expect(strstr(err.message, "unk_token '?'") != NULL, "%s", err.message);
    text_ids_free(&ids);
    text_tokenizer_close(tok);
}

/* No prefix of the file but the whole is a tokenizer. */
Test(text_load, truncated_file)
{
    static const char json[] = SMALL;
    temp t;
    temp_open(&t);
    for (size_t n = 0; n < sizeof json - 1; n++) {
        text_tokenizer *tok = NULL;
        lori_error err = {0};
        temp_file(&t, "tokenizer.json", json, n);
        cr_expect_neq(text_tokenizer_open(t.dir, &tok, &err), LORI_OK);
        cr_expect_null(tok);
        cr_expect(strstr(err.message, "tokenizer.json") != NULL, "%zu: %s", n,
                  err.message);
    }
    temp_close(&t);
}

Test(text_load, no_such_file)
{
    text_tokenizer *tok = NULL;
    lori_error err = {0};
    temp t;
    temp_open(&t);
    cr_expect_eq(text_tokenizer_open(t.dir, &tok, &err), LORI_NOT_FOUND);
    cr_expect(strstr(err.message, "no tokenizer.json") != NULL, "%s",
              err.message);
    cr_expect_neq(text_tokenizer_open(temp_path(&t, "x.json"), &tok, &err),
                  LORI_OK);
    cr_expect_null(tok);
    temp_close(&t);
}

/* ---- folders ----------------------------------------------------------- */

static text_tokenizer *open_folder(temp *t, const char *config)
{
    text_tokenizer *tok = NULL;
    lori_error err = {0};
    temp_file(t, "tokenizer.json", SMALL, sizeof SMALL - 1);
    if (config)
        temp_file(t, "tokenizer_config.json", config, strlen(config));
    cr_assert_eq(text_tokenizer_open(t->dir, &tok, &err), LORI_OK, "%s",
                 err.message);
    return tok;
}

static void expect_stops(const text_tokenizer *tok, const char *want)
{
    size_t n, at = 0;
    char have[128] = "";
    const int32_t *stop = text_stops(tok, &n);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(have + at, sizeof have - at, "%s%d",
                               i ? " " : "", stop[i]);
    cr_expect_str_eq(have, want);
}

/* Old form: added_tokens_decoder's flags win, its ids do not; named tokens
 * that are no added tokens yet become special ones. */
Test(text_load, folder_of_transformers_4)
{
    temp t;
    temp_open(&t);
    text_tokenizer *tok = open_folder(
        &t, "{\"added_tokens_decoder\":{\"77\":{\"content\":\"new\","
            "\"lstrip\":false,\"normalized\":false,\"rstrip\":true,"
            "\"single_word\":false,\"special\":false},\"19\":{\"content\":"
            "\"<s>\",\"lstrip\":false,\"normalized\":false,\"rstrip\":true,"
            "\"single_word\":false,\"special\":true}},"
            "\"bos_token\":{\"__type\":\"AddedToken\",\"content\":\"<s>\"},"
            "\"eos_token\":\"abc\",\"unk_token\":null,"
            "\"additional_special_tokens\":[\"11\",\"<more>\"]}");
    cr_expect_eq(text_bos(tok), 19);
    cr_expect_eq(text_eos(tok), 6);
    cr_expect(text_is_special(tok, 6));
    cr_expect(text_is_special(tok, 18));
    cr_expect_eq(text_token_id(tok, "new"), 21);
    cr_expect_not(text_is_special(tok, 21));
    cr_expect_eq(text_token_id(tok, "<more>"), 22);
    EXPECT_IDS(tok, "<s> \n aabc new b", 0, "19 0 6 3 21 1");
    expect_stops(tok, "6");
    text_tokenizer_close(tok);
    temp_close(&t);
}

/* Without added_tokens_decoder, special_tokens_map.json overrides. */
Test(text_load, folder_with_a_map)
{
    static const char map[] = "{\"bos_token\":\"<s>\",\"eos_token\":"
                              "{\"content\":\"</s>\",\"lstrip\":false}}";
    static const char legacy[] = "{\"extra\":30,\"</s>\":20}";
    temp t;
    temp_open(&t);
    temp_file(&t, "special_tokens_map.json", map, sizeof map - 1);
    temp_file(&t, "added_tokens.json", legacy, sizeof legacy - 1);
    text_tokenizer *tok = open_folder(&t, "{\"eos_token\":\"abc\"}");
    cr_expect_eq(text_bos(tok), 19);
    cr_expect_eq(text_eos(tok), 20);
    cr_expect_eq(text_token_id(tok, "extra"), 21);
    cr_expect_not(text_is_special(tok, 21));
    cr_expect_not(text_is_special(tok, 6));
    text_tokenizer_close(tok);
    /* With it, the map is not read. */
    tok =
        open_folder(&t, "{\"eos_token\":\"abc\",\"added_tokens_decoder\":{}}");
    cr_expect_eq(text_bos(tok), -1);
    cr_expect_eq(text_eos(tok), 6);
    text_tokenizer_close(tok);
    temp_close(&t);
}

Test(text_load, stop_ids)
{
    static const char model[] = "{\"bos_token_id\":1,\"eos_token_id\":[2,3]}";
    static const char both[] = "{\"eos_token_id\":[5,6]}";
    static const char one[] = "{\"eos_token_id\":5}";
    static const char none[] = "{\"do_sample\":true}";
    static const char bad[] = "{\"eos_token_id\":\"x\"}";
    temp t;
    temp_open(&t);
    text_tokenizer *tok = open_folder(&t, NULL);
    expect_stops(tok, "");
    cr_expect_eq(text_bos(tok), -1);
    text_tokenizer_close(tok);
    temp_file(&t, "config.json", model, sizeof model - 1);
    tok = open_folder(&t, NULL);
    expect_stops(tok, "2 3");
    cr_expect_eq(text_bos(tok), 1);
    cr_expect_eq(text_eos(tok), 2);
    text_tokenizer_close(tok);
    temp_file(&t, "generation_config.json", both, sizeof both - 1);
    tok = open_folder(&t, "{\"eos_token\":\"</s>\",\"bos_token\":null}");
    expect_stops(tok, "5 6");
    cr_expect_eq(text_bos(tok), -1); /* the tokenizer says: none */
    cr_expect_eq(text_eos(tok), 20);
    text_tokenizer_close(tok);
    temp_file(&t, "generation_config.json", one, sizeof one - 1);
    tok = open_folder(&t, NULL);
    expect_stops(tok, "5");
    text_tokenizer_close(tok);
    temp_file(&t, "generation_config.json", none, sizeof none - 1);
    tok = open_folder(&t, NULL);
    expect_stops(tok, ""); /* that file alone decides */
    text_tokenizer_close(tok);
    temp_file(&t, "generation_config.json", bad, sizeof bad - 1);
    lori_error err = {0};
    cr_expect_eq(text_tokenizer_open(t.dir, &tok, &err), LORI_FORMAT);
    cr_expect(strstr(err.message, "generation_config.json") != NULL, "%s",
              err.message);
    temp_close(&t);
}

Test(text_load, bad_side_files)
{
    temp t;
    temp_open(&t);
    temp_file(&t, "tokenizer.json", SMALL, sizeof SMALL - 1);
    static const char *const bad[] = {
        "[]",
        "{",
        "{\"eos_token\":5}",
        "{\"added_tokens_decoder\":{\"x\":{\"content\":\"a\"}}}",
        "{\"added_tokens_decoder\":{\"1\":{}}}",
        "{\"added_tokens_decoder\":{\"1\":{\"content\":\"a\",\"lstrip\":2}}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        text_tokenizer *tok = NULL;
        lori_error err = {0};
        temp_file(&t, "tokenizer_config.json", bad[i], strlen(bad[i]));
        cr_expect_eq(text_tokenizer_open(t.dir, &tok, &err), LORI_FORMAT, "%zu",
                     i);
        cr_expect_null(tok);
        cr_expect(strstr(err.message, "tokenizer_config.json") != NULL, "%s",
                  err.message);
    }
    temp_close(&t);
}
