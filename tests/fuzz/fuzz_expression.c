/* fuzz_expression.c - expressions and their tests: the first line is the
 * expression, the rest the tests. An answer can only pass readable tests. */
#include <stdlib.h>
#include <string.h>

#include "eval/eval_i.h"
#include "fuzz/fuzz.h"

int fuzz_expression(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);
    if (!text)
        return 0;
    if (n)
        memcpy(text, data, n);
    text[n] = '\0';
    char *tests = strchr(text, '\n');
    if (tests)
        *tests++ = '\0';
    else
        tests = text + strlen(text);
    bool good = expression_tests_good(tests);
    FUZZ_CHECK(!expression_passes(text, tests) || good);
    FUZZ_CHECK(!expression_passes(text, "x=-9223372036854775807 y=-1: 1") ||
               *text);
    free(text);
    return 0;
}

FUZZ_TARGET(fuzz_expression)
