/* test_infer_text.c - the text of a reply as it grows: stop strings are found
 * wherever tokens end, never shown, and nothing certain is held back. */
#include "infer/infer.h"
#include "text/text_test.h"

typedef struct shown {
    char text[64];  /* everything */
    char steps[96]; /* what each token showed, with '|' after each */
    int64_t stop;
    int tokens; /* fed until the stop */
} shown;

/* Ids of SMALL: 0 "a" 1 "b" 2 "c" 3 " " 4 "ab" 5 "bc" 6 "abc" 7 "aa". */
static shown feed(const char *const *stops, int64_t n_stops, const int32_t *ids,
                  int n)
{
    text_tokenizer *tok = open_good(SMALL);
    infer_text *t = NULL;
    lori_error err = {0};
    base_str all = {0};
    shown s = {.stop = -1};
    cr_assert_eq(infer_text_new(tok, stops, n_stops, &t, &err), LORI_OK);
    for (int i = 0; i < n && s.stop < 0; i++) {
        size_t from = all.len;
        cr_assert_eq(infer_text_put(t, ids[i], &all, &s.stop, &err), LORI_OK);
        strncat(s.steps, all.s ? all.s + from : "", all.len - from);
        strcat(s.steps, "|");
        s.tokens = i + 1;
    }
    if (s.stop < 0)
        cr_assert_eq(infer_text_end(t, &all, &err), LORI_OK);
    snprintf(s.text, sizeof s.text, "%.*s", (int)all.len, all.s ? all.s : "");
    base_str_free(&all);
    infer_text_free(t);
    text_tokenizer_close(tok);
    return s;
}

Test(infer_text, stop_strings)
{
    static const struct {
        const char *stops[3];
        int32_t ids[6];
        int n;
        const char *text, *steps;
        int64_t stop;
        int tokens;
    } rows[] = {
        {{NULL}, {0, 1, 2}, 3, "abc", "a|b|c|", -1, 3},
        {{"bc"}, {0, 1, 2, 0}, 4, "a", "a|||", 0, 3}, /* over two tokens */
        {{"bc"}, {0, 6, 0}, 3, "aa", "a|a|", 0, 2},   /* inside one */
        {{"bc"}, {0, 1, 0, 1}, 4, "abab", "a||ba||", -1, 4}, /* not completed */
        {{"aab"}, {0, 0, 0, 1, 2}, 5, "a", "||a||", 0, 4}, /* overlaps itself */
        {{"x", "c a", "c"}, {1, 2, 3, 0}, 4, "b", "b||", 2, 2},
        {{"bca", "ca"}, {0, 5, 0, 1}, 4, "a", "a|||", 0, 3}, /* the earliest */
        {{"b", "bc"}, {0, 5, 1}, 3, "a", "a||", 1, 2}, /* the longest there */
        {{" "}, {0, 3}, 2, "a", "a||", 0, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t n_stops = 0;
        while (n_stops < 3 && rows[i].stops[n_stops])
            n_stops++;
        shown s = feed(rows[i].stops, n_stops, rows[i].ids, rows[i].n);
        cr_assert_str_eq(s.text, rows[i].text, "row %zu: '%s'", i, s.text);
        cr_assert_str_eq(s.steps, rows[i].steps, "row %zu: '%s'", i, s.steps);
        cr_assert_eq(s.stop, rows[i].stop, "row %zu", i);
        cr_assert_eq(s.tokens, rows[i].tokens, "row %zu", i);
    }
}

/* U+00E9 is two tokens: a stop string of it is found, half of it never shown.
 */
Test(infer_text, characters_stay_whole)
{
    const char *stop[] = {"\xc3\xa9"};
    shown s = feed(stop, 1, (const int32_t[]){0, 10, 11, 0}, 4);
    cr_assert_str_eq(s.text, "a");
    cr_assert_eq(s.stop, 0);
    s = feed(NULL, 0, (const int32_t[]){0, 10, 11, 0}, 4);
    cr_assert_str_eq(s.steps, "a||\xc3\xa9|a|");
}

Test(infer_text, empty_stop_strings_are_refused)
{
    text_tokenizer *tok = open_good(SMALL);
    infer_text *t = NULL;
    lori_error err = {0};
    const char *stops[] = {"a", ""};
    cr_assert_eq(infer_text_new(tok, stops, 2, &t, &err), LORI_INVALID);
    cr_assert_null(t);
    cr_assert_not_null(strstr(err.message, "stop string 1 is empty"));
    text_tokenizer_close(tok);
}
