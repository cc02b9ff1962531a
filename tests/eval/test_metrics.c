/* test_metrics.c - means, errors, intervals and perplexities on cases that were
 * computed by hand. */
#include <math.h>

#include "eval_test.h"

static const char *const all_rolling[] = {"word_perplexity", "byte_perplexity",
                                          "bits_per_byte", "token_perplexity",
                                          "loss"};

Test(metrics, shares)
{
    eval_task task = {
        .kind = EVAL_CHOICE, .metrics = {"acc_norm", "acc"}, .n_metrics = 2};
    /* acc: 3 of 4; acc_norm: 1 of 4 */
    const eval_values v[4] = {{{1, 0}}, {{1, 1}}, {{0, 0}}, {{1, 0}}};
    eval_score s;
    eval_summarize(&task, v, 4, &s);
    cr_assert_eq(s.n, 4);
    cr_assert_eq(s.n_metrics, 2);
    cr_assert_str_eq(s.metric[0].name, "acc_norm");
    cr_assert_eq(s.metric[0].value, 0.25);
    cr_assert_eq(s.metric[1].value, 0.75);
    /* sqrt(p (1 - p) / (n - 1)) = sqrt(0.1875 / 3) = 0.25; one rounding */
    cr_assert_float_eq(s.metric[1].stderr_, 0.25, 1e-16);
    cr_assert(s.metric[1].has_stderr && s.metric[1].is_share);
    eval_summarize(&task, v, 1, &s);
    cr_assert_not(s.metric[0].has_stderr);
}

Test(metrics, wilson)
{
    /* Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29. */
    static const struct {
        double hits, n, low, high;
    } table[] = {{81, 263, 0.2553, 0.3662},
                 {15, 148, 0.0624, 0.1605},
                 {0, 20, 0.0000, 0.1611},
                 {1, 29, 0.0061, 0.1718},
                 {29, 29, 0.8830, 1.0000}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double low, high;
        eval_wilson(table[i].hits, table[i].n, &low, &high);
        cr_assert_float_eq(low, table[i].low, 6e-5); /* of 4 printed digits */
        cr_assert_float_eq(high, table[i].high, 6e-5);
        cr_assert(table[i].hits > 0 || low == 0);
        cr_assert(table[i].hits < table[i].n || high == 1);
    }
}

Test(metrics, perplexities)
{
    eval_task task = {.kind = EVAL_ROLLING, .n_metrics = 5};
    memcpy(task.metrics, all_rolling, sizeof all_rolling);
    /* log-likelihood, tokens, words, bytes: sums -12, 6, 4, 24 */
    const eval_values v[2] = {{{-10, 4, 3, 20}}, {{-2, 2, 1, 4}}};
    eval_score s;
    eval_summarize(&task, v, 2, &s);
    cr_assert_float_eq(s.metric[0].value, exp(3), 1e-14 * exp(3));
    cr_assert_float_eq(s.metric[1].value, exp(0.5), 1e-15);
    cr_assert_float_eq(s.metric[2].value, 0.5 / log(2), 1e-15);
    cr_assert_float_eq(s.metric[3].value, exp(2), 1e-14 * exp(2));
    cr_assert_float_eq(s.metric[4].value, 2, 1e-15);
    for (int i = 0; i < 5; i++)
        cr_assert_not(s.metric[i].has_stderr || s.metric[i].is_share ||
                      s.metric[i].higher_is_better);
}
