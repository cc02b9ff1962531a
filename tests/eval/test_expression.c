/* test_expression.c - expressions and their values; Python's where it has one.
 */
#include "eval_test.h"

/* The expression has this value for x = 7, y = -3, z = 2. */
static void value(const char *expression, int64_t v)
{
    char tests[64];
    snprintf(tests, sizeof tests, "x=7 y=-3 z=2: %lld", (long long)v);
    cr_assert(expression_passes(expression, tests), "%s is not %lld",
              expression, (long long)v);
    snprintf(tests, sizeof tests, "x=7 y=-3 z=2: %lld", (long long)v + 1);
    cr_assert_not(expression_passes(expression, tests));
}

Test(expression, values)
{
    value("x + y * z", 1);
    value(" ( x + y ) * z ", 8);
    value("x - y - z", 8);
    value("x // z", 3);
    value("y // z", -2); /* floor, as Python */
    value("x // y", -3);
    value("y % z", 1);
    value("x % y", -2);
    value("-x % 4", 1);
    value("--x", 7);
    value("x * -y", 21);
    value("max(x, y, z) - min(x, y)", 10);
    value("max(min(x,y)+1,z*2)", 4);
    value("100 // 7 % 5", 4);
    value("100000000000000000 * 9", 900000000000000000);
}

Test(expression, without_a_value)
{
    static const char *const table[] = {"",
                                        "x +",
                                        "x y",
                                        "w",
                                        "xy",
                                        "2x",
                                        "x / z",
                                        "x ** z",
                                        "max(x)",
                                        "max x",
                                        "(x",
                                        "x)",
                                        "abs(x)",
                                        "x // 0",
                                        "x % (z - 2)",
                                        "x = 7",
                                        "x; y",
                                        "max(x,)",
                                        "3.5",
                                        "x + 9223372036854775807",
                                        "-(-9223372036854775807 - 1) * 1",
                                        "9223372036854775808",
                                        "(-9223372036854775807 - 1) // -1",
                                        "__import__('os')"};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (int v = -9; v < 30; v++) {
            char tests[32];
            snprintf(tests, sizeof tests, "x=7 y=-3 z=2: %d", v);
            cr_assert_not(expression_passes(table[i], tests), "'%s' is %d",
                          table[i], v);
        }
}

Test(expression, is_bounded)
{
    char deep[5001];
    memset(deep, '(', sizeof deep);
    deep[5000] = 0;
    cr_assert_not(expression_passes(deep, "x=1: 1"));
    memset(deep, '-', 1000);
    deep[1000] = 0;
    cr_assert_not(expression_passes(deep, "x=1: 1"));
}

Test(expression, every_test_counts)
{
    cr_assert(expression_passes("x + 1", "x=1: 2; x=-5: -4;"));
    cr_assert_not(expression_passes("x + 1", "x=1: 2; x=5: 7"));
    cr_assert(expression_passes("12", ": 12"));
    cr_assert(expression_tests_good("x=1 y=2: 3; x=0: 0"));
    static const char *const bad[] = {"",        "x=1",
                                      "x: 3",    "x=1: 3 4",
                                      "x=: 3",   "x=1 : ",
                                      "X=1: 2",  "x=1: 2, x=2: 3",
                                      "xy=1: 2", "x=1: 99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_not(expression_tests_good(bad[i]), "%s", bad[i]);
        cr_assert_not(expression_passes("x", bad[i]), "%s", bad[i]);
    }
}
