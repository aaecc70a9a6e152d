/* base/fpenv.c, and that the pool's workers use it. */
#include "support/cm.h"

#include <fenv.h>
#include <float.h>
#include <unistd.h>

#include "base/base.h"
#include "base/fpenv.h"
#include "support/host_fpenv.h"

/* What the environment does to three sums and a product; volatile, so that no compiler computes
 * them. */
typedef struct effects {
    float third, sum, denormal, from_denormal;
} effects;

static __attribute__((noinline)) effects effects_now(void)
{
    volatile float one = 1, three = 3, tiny = FLT_EPSILON / 4, least = FLT_MIN, half = 0.5f,
                   denormal = FLT_TRUE_MIN * 8;
    return (effects){ one / three, one + tiny, least * half, denormal * three };
}

static void assert_default(effects e)
{
    assert_true(e.third == 0x1.555556p-2f);
    assert_true(e.sum == 1);
    assert_true(e.denormal == FLT_MIN / 2);
    assert_true(e.from_denormal == FLT_TRUE_MIN * 24);
}

static void test_enter_and_leave(void **state)
{
    (void)state;
    assert_default(effects_now());
    for (int kind = 0; kind < HOST_FPENV_KINDS; kind++) {
        fv_fpenv plain = fv_fpenv_enter(); /* the test's own, to be restored at the end */
        if (!host_fpenv_set(kind)) {
            print_message("skip: this machine cannot %s\n", host_fpenv_name(kind));
            fv_fpenv_leave(&plain);
            continue;
        }
        effects odd = effects_now();
        feclearexcept(FE_ALL_EXCEPT);
        feraiseexcept(FE_DIVBYZERO);
        int rounding = fegetround();

        fv_fpenv caller = fv_fpenv_enter();
        effects between = effects_now();
        int rounding_between = fegetround();
        fv_fpenv_leave(&caller);

        int rounding_after = fegetround(), flags = fetestexcept(FE_ALL_EXCEPT);
        effects after = effects_now();
        fv_fpenv_leave(&plain);
        assert_default(between);
        assert_int_equal(rounding_between, FE_TONEAREST);
        assert_int_equal(rounding_after, rounding);
        assert_int_equal(flags, FE_DIVBYZERO); /* not FE_INEXACT, which the sums raise */
        assert_memory_equal(&after, &odd, sizeof odd);
        effects usual = effects_now();
        assert_memory_not_equal(&odd, &usual, sizeof odd); /* the case was one */
    }
    assert_default(effects_now());
}

typedef struct look {
    effects seen[64];
    unsigned worker[64];
} look;

static void look_task(void *user, size_t task, unsigned worker)
{
    look *l = user;
    usleep(500);
    l->seen[task] = effects_now();
    l->worker[task] = worker;
}

/* A thread inherits the environment of its creator; a worker does not keep it. */
static void test_workers(void **state)
{
    (void)state;
    for (int kind = 0; kind < HOST_FPENV_KINDS; kind++) {
        static look l;
        fv_pool *pool;
        fv_fpenv plain = fv_fpenv_enter();
        host_fpenv_set(kind);
        fv_status status = fv_pool_new(&pool, 3, NULL);
        fv_fpenv_leave(&plain);
        assert_int_equal(status, FV_OK);
        bool helped = false;
        for (int tries = 0; tries < 50 && !helped; tries++) {
            fv_pool_run(pool, FV_COUNT(l.seen), look_task, &l);
            for (size_t i = 0; i < FV_COUNT(l.seen); i++) {
                assert_default(l.seen[i]);
                helped = helped || l.worker[i] != 0;
            }
        }
        assert_true(helped);
        fv_pool_free(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enter_and_leave),
        cmocka_unit_test(test_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
