/* base/cpu.c */
#include "support/cm.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static void test_env_lowers_only(void **state)
{
    (void)state;
    unsigned have = fv_cpu_detect();
    const char *unknown = "untouched";

    unsetenv("FV_CPU");
    assert_int_equal(fv_cpu_level(&unknown), have);
    assert_null(unknown);
    setenv("FV_CPU", "", 1);
    assert_int_equal(fv_cpu_level(&unknown), have);
    assert_null(unknown);
    setenv("FV_CPU", "ref", 1);
    assert_int_equal(fv_cpu_level(&unknown), 0);
    assert_string_equal(fv_cpu_name(0), "ref");
    setenv("FV_CPU", "quantum", 1);
    assert_int_equal(fv_cpu_level(&unknown), have);
    assert_string_equal(unknown, "quantum");
    assert_int_equal(fv_cpu_level(NULL), have);
    unsetenv("FV_CPU");
}

/* A name asks for its own level, and what it leaves is that level or a lower one. */
static void test_names_and_levels_agree(void **state)
{
    (void)state;
    static const char *names[] = {
#if defined(__x86_64__)
        "avx2",
        "avxvnni",
        "avx512",
        "avx512vnni",
        "avx512bf16",
        "amx",
#elif defined(__aarch64__)
        "neon",
        "dotprod",
        "fp16",
        "bf16",
        "i8mm",
#else
        "ref",
#endif
    };
    unsigned have = fv_cpu_detect(), before = 0;

    for (size_t i = 0; i < FV_COUNT(names); i++) {
        const char *missing;
        setenv("FV_CPU", names[i], 1);
        unsigned flags = fv_cpu_level(&missing);
        if (missing) /* this processor's is a lower one */
            assert_string_not_equal(fv_cpu_name(flags), names[i]);
        else
            assert_string_equal(fv_cpu_name(flags), names[i]);
        assert_int_equal(flags & ~have, 0);
        if (strcmp(names[i], "avx512") != 0) /* the side branch avxvnni is not below it */
            assert_int_equal(before & ~flags, 0);
        before = flags;
    }
    unsetenv("FV_CPU");
    assert_int_equal(before, have); /* the highest name allows everything */
#if defined(__x86_64__)
    assert_string_equal(fv_cpu_name(FV_CPU_AVX2), "avx2");
    assert_string_equal(fv_cpu_name(FV_CPU_AVX2 | FV_CPU_AVX512), "avx512");
    assert_string_equal(fv_cpu_name(~0u), "amx");
#elif defined(__aarch64__)
    assert_true(have & FV_CPU_NEON);
    assert_string_equal(fv_cpu_name(FV_CPU_NEON), "neon");
#endif
}

static void test_cores(void **state)
{
    (void)state;
    assert_in_range(fv_cpu_cores(), 1, 8192);
}

static void test_clock_goes_forward(void **state)
{
    (void)state;
    double before = fv_now_ms();
    for (int i = 0; i < 1000; i++) {
        double now = fv_now_ms();
        assert_true(now >= before);
        before = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_env_lowers_only),
        cmocka_unit_test(test_names_and_levels_agree),
        cmocka_unit_test(test_cores),
        cmocka_unit_test(test_clock_goes_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
