/* eval/measure: against values worked out by hand, and at the edges. */
#include "support/cm.h"

#include <math.h>

#include "eval/measure.h"

static void assert_near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within))
        fail_msg("got %.17g, wanted %.17g", got, want);
}

static fv_distance distance(const float *want, const float *got, size_t n)
{
    fv_distance d = { 0 };
    fv_distance_add(&d, want, got, n);
    return d;
}

static void test_distance(void **state)
{
    const float want[4] = { 3, 4, 0, 0 }, got[4] = { 3, 4, 0, 0.5f }, turned[4] = { -4, 3, 0, 0 };
    (void)state;
    fv_distance d = distance(want, got, 4);
    assert_near(fv_distance_sqnr(&d), 20, 1e-12); /* 25 to 0.25 */
    assert_near(fv_distance_cosine(&d), 25 / (5 * sqrt(25.25)), 1e-15);
    d = distance(want, turned, 4);
    assert_near(fv_distance_cosine(&d), 0, 0);
    assert_near(fv_distance_sqnr(&d), 10 * log10(0.5), 1e-12);
    d = distance(want, want, 4);
    assert_true(isinf(fv_distance_sqnr(&d)) && fv_distance_sqnr(&d) > 0);
    assert_near(fv_distance_cosine(&d), 1, 0);
}

static void test_distance_of_zeros(void **state)
{
    const float zero[2] = { 0, 0 }, one[2] = { 1, 0 };
    (void)state;
    fv_distance d = distance(zero, zero, 2);
    assert_near(fv_distance_cosine(&d), 1, 0);
    d = distance(zero, one, 2);
    assert_near(fv_distance_cosine(&d), 0, 0);
    assert_true(isinf(fv_distance_sqnr(&d)) && fv_distance_sqnr(&d) < 0);
    d = distance(one, zero, 2);
    assert_near(fv_distance_sqnr(&d), 0, 0);
}

static void test_distance_adds_up(void **state)
{
    const float want[4] = { 1, -2, 3, 0.25f }, got[4] = { 1.5f, -2, 2.5f, 0 };
    (void)state;
    fv_distance whole = distance(want, got, 4), parts = distance(want, got, 1);
    fv_distance_add(&parts, want + 1, got + 1, 3);
    assert_near(fv_distance_sqnr(&parts), fv_distance_sqnr(&whole), 1e-12);
    assert_int_equal(parts.n, 4);
}

static void test_kl(void **state)
{
    /* softmax of want: 1/4, 3/4; of got: 1/2, 1/2 */
    const float want[2] = { 0, 1.0986123f }, got[2] = { 7, 7 };
    (void)state;
    assert_near(fv_kl_divergence(want, got, 2), 0.25 * log(0.5) + 0.75 * log(1.5), 1e-7);
    assert_near(fv_kl_divergence(got, want, 2), 0.5 * log(2) + 0.5 * log(2.0 / 3), 1e-7);
    assert_near(fv_kl_divergence(want, want, 2), 0, 0);
    const float far[2] = { 1000, -1000 }, other[2] = { -1000, 1000 };
    assert_near(fv_kl_divergence(far, other, 2), 2000, 1e-9);
}

/* 1e-6 off in one of many logits: the divergence, about p (1 - p) d^2 / 2, is far below the
 * rounding of a sum of p log(p / q) alone. */
static void test_small_kl(void **state)
{
    float want[1000], got[1000];
    (void)state;
    for (size_t i = 0; i < 1000; i++)
        want[i] = got[i] = 0;
    got[17] = 9.5367431640625e-7f;
    double d = (double)got[17], p = 1e-3;
    assert_near(fv_kl_divergence(want, got, 1000), p * (1 - p) * d * d / 2, 1e-19);
    for (size_t i = 0; i < 1000; i++)
        want[i] = 3;
    assert_true(fv_kl_divergence(want, got, 1000) >= 0);
}

static void test_largest_and_median(void **state)
{
    const float x[5] = { -1, 4, 2, 4, -8 };
    double odd[3] = { 3, 1, 2 }, even[4] = { 4, 1, 3, 2 };
    (void)state;
    assert_int_equal(fv_largest(x, 5), 1);
    assert_int_equal(fv_largest(x, 1), 0);
    assert_near(fv_median(odd, 3), 2, 0);
    assert_near(fv_median(even, 4), 2.5, 0);
    assert_near(fv_median(NULL, 0), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance),         cmocka_unit_test(test_distance_of_zeros),
        cmocka_unit_test(test_distance_adds_up), cmocka_unit_test(test_kl),
        cmocka_unit_test(test_small_kl),         cmocka_unit_test(test_largest_and_median),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
