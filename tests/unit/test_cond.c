/* Waiting with a limit where the wall clock cannot be trusted. */
#include "support/cm.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cond.h"

#if defined(__linux__)
/* In this program the wall clock is an hour ahead: who waits by it waits for an hour. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    now->tv_sec += clock == CLOCK_REALTIME ? 3600 : 0;
    return result;
}
#endif

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static bool there;

static void test_time_is_over(void **state)
{
    (void)state;
    double until = fv_now_ms() + 20;
    fv_cond_init(&changed);
    pthread_mutex_lock(&lock);
    while (fv_cond_wait_until(&changed, &lock, until))
        ;
    assert_true(fv_now_ms() >= until);
    assert_false(fv_cond_wait_until(&changed, &lock, -1)); /* long over */
    pthread_mutex_unlock(&lock);
    pthread_cond_destroy(&changed);
}

static void *change(void *user)
{
    pthread_mutex_lock(&lock);
    there = true;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return user;
}

static void test_a_change(void **state)
{
    pthread_t thread;
    (void)state;
    fv_cond_init(&changed);
    pthread_mutex_lock(&lock);
    assert_int_equal(pthread_create(&thread, NULL, change, NULL), 0);
    while (!there && fv_cond_wait_until(&changed, &lock, fv_now_ms() + 600e3))
        ;
    assert_true(there);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&changed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_time_is_over),
                                        cmocka_unit_test(test_a_change) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
