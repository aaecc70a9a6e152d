#include "base/cond.h"

#include <time.h>

static struct timespec timespec_of(double ms)
{
    double s = ms > 0 ? ms / 1e3 : 0;
    time_t whole = (time_t)s;
    return (struct timespec){ .tv_sec = whole, .tv_nsec = (long)((s - (double)whole) * 1e9) };
}

#if defined(__APPLE__) /* its conditions know the wall clock, and spans */
void fv_cond_init(pthread_cond_t *cond) { pthread_cond_init(cond, NULL); }

bool fv_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, double until_ms)
{
    struct timespec span = timespec_of(until_ms - fv_now_ms());
    return pthread_cond_timedwait_relative_np(cond, lock, &span) == 0;
}
#else
void fv_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* fv_now_ms's */
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool fv_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, double until_ms)
{
    struct timespec until = timespec_of(until_ms);
    return pthread_cond_timedwait(cond, lock, &until) == 0;
}
#endif
