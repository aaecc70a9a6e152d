/* base/half.h: every 16-bit value there and back, and rounding against the definition. */
#include "support/cm.h"

#include <math.h>

#include "base/base.h"
#include "base/half.h"

/* The value by the definition of the format, in double. */
static double f16_value(uint16_t half)
{
    int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half & 0x8000 ? -size : size;
}

static void test_f16_there_and_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        float value = fv_f16_to_f32((uint16_t)half);
        if ((half & 0x7c00) == 0x7c00 && (half & 0x3ff)) {
            assert_true(isnan(value));
            assert_int_equal(fv_f32_to_f16(value), half | 0x200);
            continue;
        }
        if ((half & 0x7c00) == 0x7c00)
            assert_true(isinf(value) && (value < 0) == (half >> 15));
        else
            assert_true((double)value == f16_value((uint16_t)half) &&
                        !!signbit(value) == (int)(half >> 15));
        assert_int_equal(fv_f32_to_f16(value), half);
    }
}

/* Between each pair of neighbours: the middle goes to the even one, a hair beside it does not. */
static void test_f16_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        float middle = (float)((f16_value((uint16_t)half) + f16_value((uint16_t)(half + 1))) / 2);
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float side = sign ? -middle : middle;
            assert_int_equal(fv_f32_to_f16(side), sign | (half + (half & 1)));
            assert_int_equal(fv_f32_to_f16(nextafterf(side, 0)), sign | half);
            assert_int_equal(fv_f32_to_f16(nextafterf(side, sign ? -INFINITY : INFINITY)),
                             sign | (half + 1));
        }
    }
}

static void test_f16_overflow(void **state)
{
    (void)state;
    assert_int_equal(fv_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(fv_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(fv_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(fv_f32_to_f16_sat(65520.0f), 0x7bff);
    assert_int_equal(fv_f32_to_f16_sat(-INFINITY), 0xfbff);
    assert_int_equal(fv_f32_to_f16_sat(1.0f), 0x3c00);
    assert_true((fv_f32_to_f16_sat(NAN) & 0x7fff) > 0x7c00);
}

static void test_bf16_there_and_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        uint16_t back = fv_f32_to_bf16(fv_bf16_to_f32((uint16_t)half));
        bool is_nan = (half & 0x7fff) > 0x7f80;
        assert_int_equal(back, is_nan ? half | 0x40 : half);
    }
}

static void test_bf16_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7f80; half++) {
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            uint32_t middle = (sign | half) << 16 | 0x8000;
            assert_int_equal(fv_f32_to_bf16(fv_f32_of_bits(middle)), sign | (half + (half & 1)));
            assert_int_equal(fv_f32_to_bf16(fv_f32_of_bits(middle - 1)), sign | half);
            assert_int_equal(fv_f32_to_bf16(fv_f32_of_bits(middle + 1)), sign | (half + 1));
        }
    }
    /* A NaN whose payload lives in the lower half only must not become infinity. */
    assert_int_equal(fv_f32_to_bf16(fv_f32_of_bits(0x7f800001)), 0x7fc0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_there_and_back),  cmocka_unit_test(test_f16_rounds_to_even),
        cmocka_unit_test(test_f16_overflow),        cmocka_unit_test(test_bf16_there_and_back),
        cmocka_unit_test(test_bf16_rounds_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
