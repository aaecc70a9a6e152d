/* base/pool.c. Also run under the thread sanitizer. */
#include "support/cm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

enum { MAX_TASKS = 257, MAX_WORKERS = 64 };

static const int thread_counts[] = { 1, 2, 3, 5, 16 };

/* What one call of fv_pool_run saw. Plain fields on purpose: the pool has to order them. */
typedef struct job {
    uint32_t runs[MAX_TASKS];
    uint64_t value[MAX_TASKS];
    uint64_t by_worker[MAX_WORKERS]; /* one thread at a time: no atomics needed */
    uint64_t seed;
    atomic_uint inside[MAX_WORKERS];
    atomic_uint clashes;
} job;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    return x;
}

static void one_task(void *user, size_t task, unsigned worker)
{
    job *j = user;
    if (atomic_fetch_add(&j->inside[worker], 1) != 0)
        atomic_fetch_add(&j->clashes, 1);
    j->runs[task]++;
    j->value[task] = mix(j->seed + task);
    j->by_worker[worker]++;
    atomic_fetch_sub(&j->inside[worker], 1);
}

static void run_and_check(fv_pool *pool, size_t n_tasks, uint64_t seed)
{
    static _Thread_local job j;
    memset(&j, 0, sizeof j);
    j.seed = seed;
    fv_pool_run(pool, n_tasks, one_task, &j);
    uint64_t total = 0;
    for (size_t i = 0; i < MAX_TASKS; i++) {
        if (j.runs[i] != (i < n_tasks))
            fail_msg("task %zu of %zu ran %u times", i, n_tasks, j.runs[i]);
        if (i < n_tasks && j.value[i] != mix(seed + i))
            fail_msg("task %zu left a wrong value", i);
    }
    for (size_t i = 0; i < MAX_WORKERS; i++) {
        total += j.by_worker[i];
        if (j.by_worker[i] && i >= fv_pool_threads(pool))
            fail_msg("worker %zu of %u", i, fv_pool_threads(pool));
    }
    assert_int_equal(total, n_tasks);
    assert_int_equal(atomic_load(&j.clashes), 0);
}

static void test_every_task_once(void **state)
{
    (void)state;
    for (size_t t = 0; t < FV_COUNT(thread_counts); t++) {
        fv_pool *pool;
        assert_int_equal(fv_pool_new(&pool, thread_counts[t], NULL), FV_OK);
        assert_int_equal(fv_pool_threads(pool), thread_counts[t]);
        for (size_t n = 0; n <= MAX_TASKS; n++)
            run_and_check(pool, n, n);
        fv_pool_free(pool);
    }
    fv_pool_free(NULL);
}

/* Thousands of short jobs, some after a pause long enough for the workers to fall asleep. */
static void test_many_jobs_with_pauses(void **state)
{
    (void)state;
    for (size_t t = 0; t < FV_COUNT(thread_counts); t++) {
        fv_pool *pool;
        assert_int_equal(fv_pool_new(&pool, thread_counts[t], NULL), FV_OK);
        for (uint64_t i = 0; i < 3000; i++) {
            run_and_check(pool, mix(i) % 40, i);
            if (i % 100 == 0)
                usleep((unsigned)(mix(i) % 300));
        }
        fv_pool_free(pool);
    }
}

/* One slow task at a random place: the caller has to wait for a worker that is still inside,
 * longer than it spins. */
static void slow_task(void *user, size_t task, unsigned worker)
{
    job *j = user;
    if (task == j->seed)
        usleep(2000);
    one_task(user, task, worker);
}

static void test_caller_waits_for_the_last(void **state)
{
    (void)state;
    for (size_t t = 0; t < FV_COUNT(thread_counts); t++) {
        fv_pool *pool;
        assert_int_equal(fv_pool_new(&pool, thread_counts[t], NULL), FV_OK);
        for (uint64_t i = 0; i < 100; i++) {
            static job j;
            memset(&j, 0, sizeof j);
            j.seed = i % 8;
            fv_pool_run(pool, 8, slow_task, &j);
            for (size_t task = 0; task < 8; task++)
                assert_int_equal(j.runs[task], 1);
        }
        fv_pool_free(pool);
    }
}

typedef struct caller {
    pthread_t thread;
    fv_pool *pool;
    unsigned number;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    for (uint64_t i = 0; i < 500; i++)
        run_and_check(c->pool, mix(c->number * 1000u + i) % 60, i);
    return NULL;
}

static void test_concurrent_callers(void **state)
{
    (void)state;
    for (size_t t = 0; t < FV_COUNT(thread_counts); t++) {
        caller callers[4];
        fv_pool *pool;
        assert_int_equal(fv_pool_new(&pool, thread_counts[t], NULL), FV_OK);
        for (unsigned i = 0; i < FV_COUNT(callers); i++) {
            callers[i] = (caller){ .pool = pool, .number = i };
            assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
        }
        for (unsigned i = 0; i < FV_COUNT(callers); i++)
            pthread_join(callers[i].thread, NULL);
        fv_pool_free(pool);
    }
}

static void outer_task(void *user, size_t task, unsigned worker)
{
    (void)worker;
    run_and_check(user, 10, task);
}

/* A task that uses the pool does its own tasks alone. */
static void test_nested_call(void **state)
{
    (void)state;
    fv_pool *pool;
    assert_int_equal(fv_pool_new(&pool, 3, NULL), FV_OK);
    fv_pool_run(pool, 20, outer_task, pool);
    fv_pool_free(pool);
}

/* Both workers of a pool of two can be inside at once, when the machine has two cores. */
static void meet_task(void *user, size_t task, unsigned worker)
{
    atomic_uint *met = user;
    (void)task;
    (void)worker;
    atomic_fetch_add(met, 1);
    for (int i = 0; i < 2000 && atomic_load(met) < 2; i++)
        usleep(1000);
}

static void test_workers_really_help(void **state)
{
    (void)state;
    fv_pool *pool;
    assert_int_equal(fv_pool_new(&pool, 2, NULL), FV_OK);
    for (int i = 0; i < 20; i++) {
        atomic_uint met = 0;
        double start = fv_now_ms();
        fv_pool_run(pool, 2, meet_task, &met);
        assert_int_equal(atomic_load(&met), 2);
        assert_true(fv_now_ms() - start < 1900); /* alone, the first task would have waited 2 s */
        usleep(500);
    }
    fv_pool_free(pool);
}

static void test_bad_counts_and_memory(void **state)
{
    (void)state;
    fv_pool *pool;
    fv_error err;
    int64_t live = fv_mem_live();

    assert_int_equal(fv_pool_new(&pool, -1, &err), FV_ERR_ARGUMENT);
    assert_null(pool);
    assert_int_equal(fv_pool_new(&pool, 100000, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_pool_new(&pool, 0, &err), FV_OK);
    assert_int_equal(fv_pool_threads(pool), fv_cpu_cores());
    fv_pool_free(pool);
    for (uint64_t n = 0; n < 2; n++) {
        fv_mem_fail_after(n);
        assert_int_equal(fv_pool_new(&pool, 2, &err), FV_ERR_MEMORY);
        fv_mem_fail_after(UINT64_MAX);
    }
    assert_int_equal(fv_mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_once),
        cmocka_unit_test(test_many_jobs_with_pauses),
        cmocka_unit_test(test_caller_waits_for_the_last),
        cmocka_unit_test(test_concurrent_callers),
        cmocka_unit_test(test_nested_call),
        cmocka_unit_test(test_workers_really_help),
        cmocka_unit_test(test_bad_counts_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
