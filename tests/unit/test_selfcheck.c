/* kernels/selfcheck.c and prefer.c: kernels that are wrong or slow on the processor at hand. */
#include "support/cm.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

/* ---- kernels broken on purpose ---- */

static fv_kernels good; /* what the broken ones call first */

static void gemm_last_element(const fv_gemm_args *g)
{
    good.gemm_bf16.run(g);
    ((float *)g->c)[(g->m - 1) * g->ldc + g->n - 1] += 1;
}

static void gemm_rows_in_whole_tiles(const fv_gemm_args *g)
{
    fv_gemm_args most = *g;
    memset(g->c, 0, g->m * g->ldc * sizeof(float));
    most.m = g->m / 32 * 32;
    good.gemm_bf16.run(&most);
}

/* Rounded as if sums were kept in bf16. */
static void gemm_rounded(const fv_gemm_args *g)
{
    good.gemm_bf16.run(g);
    for (size_t i = 0; i < g->m * g->ldc; i++) {
        uint32_t bits;
        memcpy(&bits, (float *)g->c + i, 4);
        bits &= 0xffff0000;
        memcpy((float *)g->c + i, &bits, 4);
    }
}

/* Unsigned bytes taken for signed ones. */
static void gemm_u8_signed(const fv_gemm_u8_args *g)
{
    uint8_t *a = malloc(g->m * g->lda);
    fv_gemm_u8_args other = *g;
    assert_non_null(a);
    for (size_t i = 0; i < g->m * g->lda; i++)
        a[i] = g->a[i] & 127;
    other.a = a;
    good.gemm_u8.run(&other);
    free(a);
}

/* High bytes for low ones, too. */
static void gemm_u8_without_low(const fv_gemm_u8_args *g)
{
    fv_gemm_u8_args other = *g;
    other.a_low = g->a;
    good.gemm_u8.run16(&other);
}

static void gemm_q_without_bias(const fv_gemm_args *g)
{
    fv_gemm_args other = *g;
    other.bias = NULL;
    good.gemm_q.run[FV_TYPE_Q4_0](&other);
}

static void gemm_f32_first_row(const fv_gemm_args *g)
{
    good.gemm_f32.run(g);
    *(float *)g->c = -*(float *)g->c;
}

static void attn_without_last_key(const fv_attn_args *a)
{
    fv_attn_args other = *a;
    other.n_kv--;
    good.attn_bf16(&other);
}

static void expect_replaced(fv_kernels *k, unsigned cpu, const char *slot)
{
    char fault[160] = "";
    assert_false(fv_kernels_check(k, cpu, fault, sizeof fault));
    if (strncmp(fault, slot, strlen(slot)) != 0 || !strstr(fault, " of level ") ||
        !strstr(fault, " by level "))
        fail_msg("unexpected fault of %s: %s", slot, fault);
    assert_true(fv_kernels_check(k, cpu, fault, sizeof fault));
}

static void test_broken_kernels_are_replaced(void **state)
{
    (void)state;
    const unsigned cpu = fv_cpu_detect();
    if (!cpu) {
        print_message("skip: the portable kernels have nothing below them\n");
        return;
    }
    fv_gemm_fn *const bf16[] = { gemm_last_element, gemm_rows_in_whole_tiles, gemm_rounded };
    fv_kernels k;
    fv_kernels_init(&good, cpu);
    for (size_t i = 0; i < FV_COUNT(bf16); i++) {
        k = good;
        k.gemm_bf16.run = bf16[i];
        expect_replaced(&k, cpu, "gemm_bf16");
        assert_ptr_not_equal(k.gemm_bf16.run, bf16[i]);
    }
    k = good;
    k.gemm_u8.run = gemm_u8_signed;
    expect_replaced(&k, cpu, "gemm_u8");
    fv_kernels avx2;
    fv_kernels_init(&avx2, cpu & FV_CPU_AVX2);
    if (avx2.gemm_u8.run16) {
        good = avx2;
        k = good;
        k.gemm_u8.run16 = gemm_u8_without_low;
        expect_replaced(&k, FV_CPU_AVX2, "gemm_u8");
        fv_kernels_init(&good, cpu);
    }
    if (good.attn_bf16) {
        k = good;
        k.attn_bf16 = attn_without_last_key;
        expect_replaced(&k, cpu, "attn_bf16");
    }
    k = good;
    k.gemm_q.run[FV_TYPE_Q4_0] = gemm_q_without_bias;
    expect_replaced(&k, cpu, "gemm_q");
    k = good;
    k.gemm_f32.run = gemm_f32_first_row;
    expect_replaced(&k, cpu, "gemm_f32");
    assert_ptr_equal(k.gemm_bf16.run, good.gemm_bf16.run); /* the others stay */

    char fault[160];
    k.gemm_u8.run = gemm_u8_signed;
    k.gemm_f32.run = gemm_f32_first_row;
    assert_false(fv_kernels_check(&k, cpu, fault, sizeof fault));
    assert_non_null(strstr(fault, ", gemm_u8 of level "));
    char small[20];
    k.gemm_f32.run = gemm_f32_first_row;
    assert_false(fv_kernels_check(&k, cpu, small, sizeof small));
    assert_int_equal(strlen(small), sizeof small - 1);
}

static void test_every_level_is_right(void **state)
{
    (void)state;
    const unsigned have = fv_cpu_detect();
    for (unsigned bit = 1, cpu = 0; bit; bit <<= 1) {
        fv_kernels k;
        char fault[160] = "";
        if (!(have & bit))
            continue;
        fv_kernels_init(&k, cpu |= bit);
        if (!fv_kernels_check(&k, cpu, fault, sizeof fault))
            fail_msg("level %s: %s", fv_cpu_name(cpu), fault);
    }
}

/* ---- what is faster ---- */

static void test_bf16_is_chosen(void **state)
{
    (void)state;
    const unsigned cpu = fv_cpu_detect();
    fv_kernels k, again;
    fv_kernels_notes notes, notes_again;
    unsetenv("FV_BF16");
    fv_kernels_open(&k, 0, &notes);
    assert_false(k.fast_bf16);
    assert_string_equal(notes.fault, "");
    fv_kernels_open(&k, cpu, &notes);
    fv_kernels_open(&again, cpu, &notes_again);
    assert_int_equal(k.fast_bf16, again.fast_bf16); /* measured or not */
    assert_string_equal(notes.bf16, notes_again.bf16);
    assert_string_equal(notes.fault, "");
    assert_memory_equal(&k, &again, sizeof k);
    setenv("FV_BF16", "slow", 1);
    fv_kernels_open(&k, cpu, NULL);
    assert_false(k.fast_bf16);
    setenv("FV_BF16", "fast", 1);
    fv_kernels_open(&k, 0, &notes);
    assert_true(k.fast_bf16);
    assert_string_equal(notes.bf16, "FV_BF16 says so");
    setenv("FV_BF16", "perhaps", 1); /* as if it were not set */
    fv_kernels_open(&k, cpu, &notes);
    assert_int_equal(k.fast_bf16, again.fast_bf16);
    unsetenv("FV_BF16");
}

/* Whatever the machine does meanwhile, a kernel that does its work ten times is slower. */
static void gemm_ten_times(const fv_gemm_args *g)
{
    for (int i = 0; i < 10; i++)
        good.gemm_bf16.run(g);
}

static void test_bf16_is_measured(void **state)
{
    (void)state;
    fv_kernels k;
    fv_kernels_init(&good, fv_cpu_detect());
    good.gemm_bf16 = good.gemm_f32; /* reads fewer numbers than it is given */
    k = good;
    k.gemm_bf16.run = gemm_ten_times;
    assert_false(fv_bf16_measure(&k));
    k.gemm_bf16 = good.gemm_f32;
    k.gemm_f32.run = gemm_ten_times;
    assert_true(fv_bf16_measure(&k));
}

static void test_processor_is_named(void **state)
{
    (void)state;
    fv_cpu_id id = { "", 0, 0 };
#if defined(__x86_64__)
    assert_true(fv_cpu_identify(&id));
    assert_int_equal(strlen(id.vendor), 12);
    assert_true(id.family > 0);
#else
    assert_false(fv_cpu_identify(&id));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_kernels_are_replaced),
        cmocka_unit_test(test_every_level_is_right),
        cmocka_unit_test(test_bf16_is_chosen),
        cmocka_unit_test(test_bf16_is_measured),
        cmocka_unit_test(test_processor_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
