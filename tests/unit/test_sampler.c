/* nn/sampler.c: each step against its definition, the draw against its probabilities. */
#include "support/cm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/sampler.h"

static uint64_t seed = 11;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static fv_sampler *make(const fv_sampler_options *o, size_t n_rows, size_t n_tokens)
{
    fv_sampler *s;
    fv_error err;

    if (fv_sampler_new(&s, o, n_rows, n_tokens, &err) != FV_OK)
        fail_msg("%s", err.message);
    return s;
}

static int32_t pick(fv_sampler *s, const float *logits, const int32_t *history, size_t n)
{
    int32_t id = -1;
    fv_error err;

    if (fv_sampler_pick(s, logits, history, n, &id, &err) != FV_OK)
        fail_msg("%s", err.message);
    return id;
}

/* ---- greedy ---- */

static void test_greedy(void **state)
{
    (void)state;
    float logits[100];
    fv_sampler *s = make(NULL, 100, 90);

    for (int i = 0; i < 100; i++)
        logits[i] = (float)-i;
    assert_int_equal(pick(s, logits, NULL, 0), 0);
    logits[95] = 50; /* a row without a token */
    assert_int_equal(pick(s, logits, NULL, 0), 0);
    logits[40] = logits[41] = logits[89] = 7;
    assert_int_equal(pick(s, logits, NULL, 0), 40); /* the lowest among equals */
    fv_sampler_forbid(s, 40);
    fv_sampler_forbid(s, 40);
    fv_sampler_forbid(s, -200);
    fv_sampler_forbid(s, 95);
    fv_sampler_forbid(s, 1000);
    assert_int_equal(pick(s, logits, NULL, 0), 41);
    logits[41] = NAN;
    assert_int_equal(pick(s, logits, NULL, 0), 89);
    logits[3] = INFINITY;
    assert_int_equal(pick(s, logits, NULL, 0), 3);
    fv_sampler_free(s);
}

static void test_every_position_wins(void **state)
{
    (void)state;
    float logits[70];

    for (size_t n = 1; n <= 70; n++) {
        fv_sampler *s = make(NULL, n, n);
        for (size_t best = 0; best < n; best++) {
            for (size_t i = 0; i < n; i++)
                logits[i] = i == best ? -1.0f : i % 3 ? -2.0f : NAN;
            assert_int_equal(pick(s, logits, NULL, 0), best);
        }
        fv_sampler_free(s);
    }
}

static void test_nothing_to_choose(void **state)
{
    (void)state;
    float logits[8];
    int32_t id = 77;
    fv_error err;
    fv_sampler_options o;

    fv_sampler_options_default(&o);
    for (int round = 0; round < 2; round++) {
        o.temperature = (float)round;
        fv_sampler *s = make(&o, 8, 8);
        for (int i = 0; i < 8; i++)
            logits[i] = i % 2 ? NAN : -INFINITY;
        assert_int_equal(fv_sampler_pick(s, logits, NULL, 0, &id, &err), FV_ERR_FORMAT);
        assert_string_equal(err.message,
                            "no token can be chosen: all 8 logits are -infinity or NaN");
        assert_int_equal(id, 77);
        logits[5] = -1e30f;
        assert_int_equal(pick(s, logits, NULL, 0), 5);
        fv_sampler_forbid(s, 5);
        assert_int_equal(fv_sampler_pick(s, logits, NULL, 0, &id, NULL), FV_ERR_FORMAT);
        fv_sampler_free(s);
    }
}

static void test_repetition_penalty(void **state)
{
    (void)state;
    float logits[6] = { 4, 3, -1, -2, 2.5f, -9 };
    int32_t history[] = { 0, 0, -200, 0, 2, 99, 4 };
    fv_sampler_options o;

    fv_sampler_options_default(&o);
    o.repetition_penalty = 1.3f;
    fv_sampler *s = make(&o, 6, 6);
    assert_int_equal(pick(s, logits, history, 0), 0);
    /* 4 / 1.3 = 3.08 once, however often it was seen */
    assert_int_equal(pick(s, logits, history, 7), 0);
    fv_sampler_free(s);
    o.repetition_penalty = 1.4f;
    s = make(&o, 6, 6);
    assert_int_equal(pick(s, logits, history, 7), 1); /* 2.86 against 3 */
    assert_int_equal(pick(s, logits, history, 0), 0); /* nothing is remembered from call to call */
    float negative[6] = { -1, -1.2f, -8, -8, -8, -8 };
    assert_int_equal(pick(s, negative, history, 2), 1); /* -1 * 1.4 */
    fv_sampler_forbid(s, 1);
    assert_int_equal(pick(s, negative, (int32_t[]){ 0, 1 }, 2), 0);
    assert_int_equal(pick(s, negative, NULL, 0), 0);
    fv_sampler_free(s);
}

/* ---- sampling ---- */

/* Probabilities as transformers' processors make them, by sorting everything, in doubles. */
static void expected(const float *logits, size_t n, const fv_sampler_options *o, double *p)
{
    int *order = malloc(n * sizeof *order);
    double *score = malloc(n * sizeof *score), total = 0, above = 0, max;
    size_t kept = n;

    for (size_t i = 0; i < n; i++) {
        order[i] = (int)i;
        score[i] = (double)logits[i] / (double)o->temperature;
    }
    for (size_t i = 1; i < n; i++) /* descending, stable */
        for (size_t k = i; k > 0 && score[order[k]] > score[order[k - 1]]; k--) {
            int t = order[k];
            order[k] = order[k - 1];
            order[k - 1] = t;
        }
    max = score[order[0]];
    if (o->top_k > 0 && (size_t)o->top_k < n) {
        kept = (size_t)o->top_k;
        while (kept < n && score[order[kept]] == score[order[o->top_k - 1]])
            kept++;
    }
    for (size_t i = 0; i < kept; i++)
        total += exp(score[order[i]] - max);
    if (o->top_p < 1) {
        size_t i = 0;
        while (i < kept && (i == 0 || above < (double)o->top_p * total))
            above += exp(score[order[i++]] - max);
        kept = i;
    }
    total = 0;
    memset(p, 0, n * sizeof *p);
    for (size_t i = 0; i < kept; i++)
        if (i == 0 || exp(score[order[i]] - max) >= (double)o->min_p)
            total += p[order[i]] = exp(score[order[i]] - max);
    for (size_t i = 0; i < n; i++)
        p[i] /= total;
    free(order);
    free(score);
}

static void check_distribution(fv_sampler_options o, const float *logits, size_t n)
{
    enum { DRAWS = 40000 };
    double p[64];
    int count[64] = { 0 };
    fv_sampler *s = make(&o, n, n);

    expected(logits, n, &o, p);
    for (int i = 0; i < DRAWS; i++)
        count[pick(s, logits, NULL, 0)]++;
    for (size_t i = 0; i < n; i++) {
        double mean = DRAWS * p[i], spread = sqrt(DRAWS * p[i] * (1 - p[i]));
        if (p[i] == 0 && count[i] > 0)
            fail_msg("id %zu was drawn and must not be", i);
        if (fabs(count[i] - mean) > 5 * spread + 1)
            fail_msg("id %zu: drawn %d times, expected %.0f +- %.0f", i, count[i], mean, spread);
    }
    fv_sampler_free(s);
}

static void test_distributions(void **state)
{
    (void)state;
    float logits[64];

    for (int round = 0; round < 60; round++) {
        size_t n = 1 + rnd(64);
        fv_sampler_options o;
        fv_sampler_options_default(&o);
        o.seed = (uint64_t)round;
        o.temperature = (float[]){ 0.2f, 0.7f, 1, 3 }[rnd(4)];
        if (rnd(2))
            o.top_k = (int)(1 + rnd(20));
        if (rnd(2))
            o.top_p = (float)rnd(101) / 100;
        if (rnd(3) == 0)
            o.min_p = (float)rnd(60) / 100;
        for (size_t i = 0; i < n; i++) /* quarters: many ties */
            logits[i] = (float)rnd(40) / 4 - 5;
        check_distribution(o, logits, n);
    }
}

static void test_top_k_keeps_ties(void **state)
{
    (void)state;
    float logits[6] = { 1, 3, 2, 3, 2, 0 };
    bool seen[6] = { false };
    fv_sampler_options o;

    fv_sampler_options_default(&o);
    o.temperature = 1;
    o.top_k = 3;
    fv_sampler *s = make(&o, 6, 6);
    for (int i = 0; i < 1000; i++)
        seen[pick(s, logits, NULL, 0)] = true;
    assert_true(seen[1] && seen[3] && seen[2] && seen[4]);
    assert_false(seen[0] || seen[5]);
    fv_sampler_free(s);
}

static void test_forbidden_and_nan_are_never_drawn(void **state)
{
    (void)state;
    float logits[40];
    fv_sampler_options o;

    fv_sampler_options_default(&o);
    o.temperature = 5;
    o.top_p = 0.999f;
    fv_sampler *s = make(&o, 40, 35);
    for (int i = 0; i < 40; i++)
        logits[i] = i % 5 == 0 ? NAN : i % 7 == 0 ? -INFINITY : 1;
    for (int i = 1; i < 40; i += 3)
        fv_sampler_forbid(s, i);
    for (int i = 0; i < 5000; i++) {
        int32_t id = pick(s, logits, NULL, 0);
        assert_true(id < 35 && id % 5 != 0 && id % 7 != 0 && id % 3 != 1);
    }
    fv_sampler_free(s);
}

static void test_seeds(void **state)
{
    (void)state;
    enum { N = 1000 };
    static float logits[N];
    int32_t first[64], again[64], other[64];
    fv_sampler_options o;

    fv_sampler_options_default(&o);
    o.temperature = 1;
    o.seed = 42;
    for (int i = 0; i < N; i++)
        logits[i] = (float)rnd(100) / 50;
    fv_sampler *s = make(&o, N, N);
    for (int i = 0; i < 64; i++)
        first[i] = pick(s, logits, NULL, 0);
    fv_sampler_seed(s, 42);
    for (int i = 0; i < 64; i++)
        again[i] = pick(s, logits, NULL, 0);
    fv_sampler_seed(s, 43);
    for (int i = 0; i < 64; i++)
        other[i] = pick(s, logits, NULL, 0);
    assert_memory_equal(first, again, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
    fv_sampler_free(s);
}

/* xoshiro256** and splitmix64 as published: with equal logits the drawn id shows the number. */
static void test_random_numbers(void **state)
{
    (void)state;
    uint64_t x[4], z = 1234567;
    static float logits[1 << 20];
    fv_sampler_options o;

    for (int i = 0; i < 4; i++) {
        uint64_t y = z += 0x9e3779b97f4a7c15u;
        y = (y ^ (y >> 30)) * 0xbf58476d1ce4e5b9u;
        y = (y ^ (y >> 27)) * 0x94d049bb133111ebu;
        x[i] = y ^ (y >> 31);
    }
    /* splitmix64's test values */
    assert_true(x[0] == 6457827717110365317u && x[1] == 3203168211198807973u);
    fv_sampler_options_default(&o);
    o.temperature = 1;
    o.seed = 1234567;
    fv_sampler *s = make(&o, 1 << 20, 1 << 20);
    for (int i = 0; i < 5; i++) {
        uint64_t m = x[1] * 5, result = ((m << 7) | (m >> 57)) * 9, t = x[1] << 17;
        x[2] ^= x[0];
        x[3] ^= x[1];
        x[1] ^= x[2];
        x[0] ^= x[3];
        x[2] ^= t;
        x[3] = (x[3] << 45) | (x[3] >> 19);
        assert_int_equal(pick(s, logits, NULL, 0), result >> 44);
    }
    fv_sampler_free(s);
}

static void test_extremes(void **state)
{
    (void)state;
    float logits[4] = { 1e30f, -1e30f, 3e38f, 3e38f };
    fv_sampler_options o;

    fv_sampler_options_default(&o);
    o.temperature = 1e-30f; /* a difference divided by it overflows, and must not become a NaN */
    o.top_k = 1 << 30;
    fv_sampler *s = make(&o, 4, 4);
    for (int i = 0; i < 20; i++)
        assert_true(pick(s, logits, NULL, 0) >= 2);
    fv_sampler_free(s);
    o = (fv_sampler_options){ .temperature = 1, .top_p = 0, .repetition_penalty = 1 };
    s = make(&o, 4, 4);
    assert_int_equal(pick(s, logits, NULL, 0), 2); /* top_p 0 leaves the best one */
    logits[1] = INFINITY;
    assert_int_equal(pick(s, logits, NULL, 0), 1);
    fv_sampler_free(s);
}

static void check_refused(fv_sampler_options o, const char *message)
{
    fv_sampler *s;
    fv_error err;

    assert_int_equal(fv_sampler_new(&s, &o, 8, 8, &err), FV_ERR_ARGUMENT);
    assert_string_equal(err.message, message);
    assert_null(s);
}

static void test_bad_options(void **state)
{
    (void)state;
    fv_sampler_options good, o;
    fv_sampler *s;
    fv_error err;

    fv_sampler_options_default(&good);
    o = good;
    o.temperature = -1;
    check_refused(o, "temperature is -1, expected 0 or more");
    o.temperature = INFINITY;
    check_refused(o, "temperature is inf, expected 0 or more");
    o.temperature = NAN;
    assert_int_equal(fv_sampler_new(&s, &o, 8, 8, &err), FV_ERR_ARGUMENT);
    o = good;
    o.top_k = -3;
    check_refused(o, "top_k is -3, expected 0 or more");
    o = good;
    o.top_p = 1.5f;
    check_refused(o, "top_p is 1.5, expected a number in [0, 1]");
    o = good;
    o.min_p = -0.5f;
    check_refused(o, "min_p is -0.5, expected a number in [0, 1]");
    o = good;
    o.repetition_penalty = 0;
    check_refused(o, "repetition_penalty is 0, expected more than 0");
    assert_int_equal(fv_sampler_new(&s, NULL, 0, 5, &err), FV_ERR_ARGUMENT);
    assert_string_equal(err.message, "0 rows of logits and 5 tokens: nothing to choose from");
}

static void test_allocations(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    float logits[64] = { 0 };
    int32_t history[] = { 1, 2, 3 };
    fv_sampler *s = NULL;
    fv_sampler_options o = { .temperature = 1,
                             .top_k = 5,
                             .top_p = 0.9f,
                             .min_p = 0.01f,
                             .repetition_penalty = 1.1f,
                             .seed = 1 };

    for (uint64_t i = 0; !s; i++) {
        fv_mem_fail_after(i);
        fv_status status = fv_sampler_new(&s, &o, 64, 60, NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        if (status != FV_OK)
            assert_int_equal(fv_mem_live(), live);
    }
    uint64_t taken = fv_mem_taken();
    for (int i = 0; i < 100; i++)
        pick(s, logits, history, 3);
    assert_int_equal(fv_mem_taken(), taken);
    fv_sampler_free(s);
    fv_sampler_free(NULL);
    assert_int_equal(fv_mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_every_position_wins),
        cmocka_unit_test(test_nothing_to_choose),
        cmocka_unit_test(test_repetition_penalty),
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_top_k_keeps_ties),
        cmocka_unit_test(test_forbidden_and_nan_are_never_drawn),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_random_numbers),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
