/* test_number.c - half precisions, dtypes, hashes, random numbers, memory. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/base.h"

static float as_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The value of f16 bits from the definition. */
static double half_value(unsigned h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double x =
        exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -x : x;
}

Test(number, every_f16)
{
    for (unsigned h = 0; h < 65536; h++) {
        float f = base_f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00) {
            cr_assert(isnan(f));
            cr_assert_gt(base_f32_to_f16(f) & 0x7fff, 0x7c00);
            continue;
        }
        if ((h & 0x7fff) == 0x7c00)
            cr_assert(isinf(f) && !signbit(f) == !(h >> 15));
        else
            cr_assert(f == half_value(h) && !signbit(f) == !(h >> 15));
        cr_assert_eq(base_f32_to_f16(f), h);
    }
}

/* Halfway between two neighbours goes to the even one, a hair beyond to the
 * nearer one: all 31743 pairs, both signs. */
Test(number, f16_rounds_to_nearest_even)
{
    for (unsigned h = 0; h < 0x7bff; h++) {
        float low = base_f16_to_f32((uint16_t)h);
        float high = base_f16_to_f32((uint16_t)(h + 1));
        float mid = low + (high - low) / 2; /* exact: 12 significant bits */
        cr_assert_eq(base_f32_to_f16(mid), h % 2 ? h + 1 : h);
        cr_assert_eq(base_f32_to_f16(nextafterf(mid, 0)), h);
        cr_assert_eq(base_f32_to_f16(nextafterf(mid, 1e9F)), h + 1);
        cr_assert_eq(base_f32_to_f16(-mid), (h % 2 ? h + 1 : h) | 0x8000);
    }
    cr_assert_eq(base_f32_to_f16(65519.996F), 0x7bff);
    cr_assert_eq(base_f32_to_f16(65520), 0x7c00);
}

Test(number, bf16_rounds_to_nearest_even)
{
    cr_expect_eq(base_f32_to_bf16(as_float(0x3f808000)), 0x3f80);
    cr_expect_eq(base_f32_to_bf16(as_float(0x3f818000)), 0x3f82);
    cr_expect_eq(base_f32_to_bf16(as_float(0x3f808001)), 0x3f81);
    cr_expect_eq(base_f32_to_bf16(as_float(0x7f7fffff)), 0x7f80);
    cr_expect_eq(base_f32_to_bf16(as_float(0x7f800001)), 0x7fc0);
    cr_expect_eq(base_f32_to_bf16(as_float(0x80000000)), 0x8000);
}

Test(number, f64_to_bf16_rounds_once)
{
    /* 1 + 2^-8 is the midpoint of 1 and 1 + 2^-7. A part too small for float
     * must still decide; through float it would be lost and tie to even. */
    cr_expect_eq(base_f64_to_bf16(1 + 0x1p-8), 0x3f80);
    cr_expect_eq(base_f64_to_bf16(1 + 0x1p-8 + 0x1p-40), 0x3f81);
    cr_expect_eq(base_f64_to_bf16(-(1 + 0x1p-8 + 0x1p-40)), 0xbf81);
    cr_expect_eq(base_f64_to_bf16(1 + 0x3p-8 - 0x1p-40), 0x3f81);
    cr_expect_eq(base_f64_to_bf16(1 + 0x3p-8), 0x3f82);
    cr_expect_eq(base_f64_to_bf16(1e300), 0x7f80);
    cr_expect_eq(base_f64_to_bf16(-1e300), 0xff80);
    cr_expect_eq(base_f64_to_bf16(1e-300), 0);
    cr_expect_eq(base_f64_to_bf16(0x1p-134), 0); /* tie to zero */
    cr_expect_eq(base_f64_to_bf16(0x1p-134 + 0x1p-170), 1);
    cr_expect_eq(base_f64_to_bf16(NAN) & 0x7fff, 0x7fc0);
    /* Exact midpoints plus or minus a double's last bit, over all binades. */
    for (uint32_t h = 0x0080; h < 0x7f00; h += 37) {
        double mid =
            ((double)as_float(h << 16) + (double)as_float((h + 1) << 16)) / 2;
        cr_assert_eq(base_f64_to_bf16(nextafter(mid, 0)), h);
        cr_assert_eq(base_f64_to_bf16(nextafter(mid, 1e300)), h + 1);
        cr_assert_eq(base_f64_to_bf16(mid), h + h % 2);
    }
}

Test(number, arrays_of_each_type)
{
    static const float x[5] = {0, -1.5F, 65504, 0x1p-24F, 3};
    for (base_dtype d = 0; d < BASE_DTYPES; d++) {
        base_dtype again;
        const char *name = base_dtype_name(d);
        cr_assert(base_dtype_parse(name, strlen(name), &again) && again == d);
        if (!base_dtype_is_float(d))
            continue;
        unsigned char store[5 * 8 + 1];
        float back[5];
        /* An odd address: tensors in a file may stand anywhere. */
        base_from_f32(x, store + 1, d, 5);
        base_to_f32(store + 1, d, back, 5);
        for (int i = 0; i < 5; i++) {
            float expected = d == BASE_BF16
                                 ? base_bf16_to_f32(base_f32_to_bf16(x[i]))
                                 : x[i];
            cr_expect_eq(back[i], expected, "%s %g", name, back[i]);
        }
    }
    base_dtype d;
    cr_expect_not(base_dtype_parse("F8_E4M3", 7, &d));
    cr_expect_not(base_dtype_parse("BF1", 3, &d));
}

/* Known answers of Random123 (kat_vectors, philox4x32 10 rounds). */
Test(number, philox)
{
    static const uint32_t in[3][6] = {{0, 0, 0, 0, 0, 0},
                                      {0xffffffff, 0xffffffff, 0xffffffff,
                                       0xffffffff, 0xffffffff, 0xffffffff},
                                      {0x243f6a88, 0x85a308d3, 0x13198a2e,
                                       0x03707344, 0xa4093822, 0x299f31d0}};
    static const uint32_t expected[3][4] = {
        {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        base_philox(in[i], in[i] + 4, out);
        cr_expect_arr_eq(out, expected[i], sizeof out);
    }
}

Test(number, streams)
{
    base_rng a, b;
    base_rng_start(&a, 7, 1);
    base_rng_start(&b, 7, 2);
    int same = 0;
    for (int i = 0; i < 1000; i++)
        same += base_rng_u32(&a) == base_rng_u32(&b);
    cr_expect_lt(same, 3); /* streams differ; 2^-32 chance each */
    /* The counter carries: block 2^32 is not block 0 again. */
    base_rng_start(&a, 7, 1);
    uint32_t first = base_rng_u32(&a);
    a.counter[0] = UINT32_MAX;
    a.left = 0;
    base_rng_u32(&a);
    cr_expect(a.counter[0] == 0 && a.counter[1] == 1);
    a.left = 0;
    cr_expect_neq(base_rng_u32(&a), first);
    double sum = 0;
    for (int i = 0; i < 10000; i++) {
        double u = base_rng_uniform(&a);
        cr_assert(u >= 0 && u < 1);
        sum += u;
    }
    /* Mean of 10000: sigma = 0.0029; five sigma. */
    cr_expect_float_eq(sum / 10000, 0.5, 0.0145);
}

Test(number, below_and_shuffle)
{
    base_rng r;
    base_rng_start(&r, 1, 2);
    int count[6] = {0};
    for (int i = 0; i < 6000; i++)
        count[base_rng_below(&r, 6)]++;
    for (int i = 0; i < 6; i++) /* sigma = 29; five sigma */
        cr_expect(abs(count[i] - 1000) < 145, "%d: %d", i, count[i]);
    cr_expect_eq(base_rng_below(&r, 1), 0);
    /* With n just over 2^63 nearly half of all words must be rejected. */
    for (int i = 0; i < 100; i++)
        cr_assert_leq(base_rng_below(&r, (1ULL << 63) + 1), 1ULL << 63);
    int64_t order[100], seen[100] = {0};
    for (int i = 0; i < 100; i++)
        order[i] = i;
    base_rng_shuffle(&r, order, 100);
    int fixed = 0;
    for (int i = 0; i < 100; i++) {
        seen[order[i]]++;
        fixed += order[i] == i;
    }
    for (int i = 0; i < 100; i++)
        cr_assert_eq(seen[i], 1);
    cr_expect_lt(fixed, 10);
}

Test(number, fnv1a)
{
    /* Vectors of the FNV reference (draft-eastlake-fnv). */
    cr_expect_eq(base_fnv1a(BASE_FNV_START, "", 0), 0xcbf29ce484222325ULL);
    cr_expect_eq(base_fnv1a(BASE_FNV_START, "a", 1), 0xaf63dc4c8601ec8cULL);
    cr_expect_eq(base_fnv1a(BASE_FNV_START, "foobar", 6),
                 0x85944171f73967e8ULL);
    uint64_t half = base_fnv1a(BASE_FNV_START, "foo", 3);
    cr_expect_eq(base_fnv1a(half, "bar", 3), 0x85944171f73967e8ULL);
}

Test(number, checked_sizes)
{
    size_t x;
    int64_t y;
    cr_expect_not(base_mul(SIZE_MAX, 2, &x));
    cr_expect_not(base_add(SIZE_MAX, 1, &x));
    cr_expect_not(base_mul64(INT64_MAX, 2, &y));
    cr_expect_not(base_mul64(-1, 1, &y));
    cr_expect_not(base_mul64(1, -1, &y));
    cr_expect(base_mul64(3, 4, &y) && y == 12);
    cr_expect_null(base_alloc(SIZE_MAX / 2, 3));
    void *empty = base_alloc(0, 8);
    cr_expect_not_null(empty);
    cr_expect_null(base_resize(empty, SIZE_MAX / 2, 3));
    free(empty);
}

Test(number, plan_then_place)
{
    base_plan count = {0};
    cr_expect_null(base_plan_take(&count, 3, 4));
    base_plan_take(&count, 0, 4);
    base_plan_take(&count, 65, 1);
    cr_expect_eq(count.used, 64 + 128);
    unsigned char *memory = aligned_alloc(64, count.used);
    base_plan place = {.base = memory};
    cr_expect_eq(base_plan_take(&place, 3, 4), memory);
    cr_expect_eq(base_plan_take(&place, 0, 4), memory + 64);
    cr_expect_eq(base_plan_take(&place, 65, 1), memory + 64);
    cr_expect_eq(place.used, count.used);
    free(memory);
    base_plan_take(&count, SIZE_MAX - 100, 1);
    cr_expect(count.overflow);
    base_plan_take(&count, 1, 1);
    cr_expect(count.overflow);
}
