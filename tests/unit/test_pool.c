/* base/pool.c. Also run under the thread sanitizer. */
#include "support/cm.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
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

static void run_and_check(const fv_pool *pool, size_t n_tasks, uint64_t seed)
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

/* More callers than the pool has places for open jobs, some of them held to few threads. */
enum { N_CALLERS = 12 };

typedef struct caller {
    pthread_t thread;
    fv_pool pool;
    unsigned number;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    for (uint64_t i = 0; i < 400; i++) {
        fv_pool pool = fv_pool_limit(&c->pool, (int)(i % 5));
        run_and_check(&pool, mix(c->number * 1000u + i) % 60, i);
        if (i % 64 == c->number)
            usleep(100); /* long enough to fall asleep */
    }
    return NULL;
}

static void test_concurrent_callers(void **state)
{
    (void)state;
    for (size_t t = 0; t < FV_COUNT(thread_counts); t++) {
        caller callers[N_CALLERS];
        fv_pool *pool;
        assert_int_equal(fv_pool_new(&pool, thread_counts[t], NULL), FV_OK);
        for (unsigned i = 0; i < FV_COUNT(callers); i++) {
            callers[i] = (caller){ .pool = *pool, .number = i };
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

/* A task may use the pool: its own tasks are a job like any other. */
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

/* ---- sharing ----------------------------------------------------------------------------- */

/* Tasks that sleep need no processor: how many run at once is up to the pool alone, whatever the
 * machine has to do besides. */
typedef struct sleepers {
    const fv_pool *pool;
    size_t n_tasks;
    unsigned task_us;
    atomic_uint inside, most, finished, by_caller;
} sleepers;

static void sleep_task(void *user, size_t task, unsigned worker)
{
    sleepers *s = user;
    unsigned inside = atomic_fetch_add(&s->inside, 1) + 1, most = atomic_load(&s->most);
    (void)task;
    while (inside > most && !atomic_compare_exchange_weak(&s->most, &most, inside))
        ;
    usleep(s->task_us ? s->task_us : 2000);
    atomic_fetch_sub(&s->inside, 1);
    atomic_fetch_add(&s->finished, 1);
    if (worker == 0)
        atomic_fetch_add(&s->by_caller, 1);
}

static void *run_sleepers(void *arg)
{
    sleepers *s = arg;
    fv_pool_run(s->pool, s->n_tasks, sleep_task, s);
    return NULL;
}

/* Whether the bounds below hold depends on a machine that lets sleepers wake up in time. A pool
 * that shares badly misses them every time; one that shares well must keep them once. */
enum { TRIES = 20 };

/* How late the latest of some sleepers wakes up, in ms. */
static double latest_wake(void)
{
    double latest = 0;
    for (int i = 0; i < 200; i++) {
        double before = fv_now_ms();
        usleep(200);
        latest = FV_MAX(latest, fv_now_ms() - before - 0.2);
    }
    return latest;
}

static void assert_unless_busy(bool kept)
{
    double late = kept ? 0 : latest_wake();
    if (late > 1) {
        print_message("skip: sleepers wake up to %.1f ms late on this machine\n", late);
        skip();
    }
    assert_true(kept);
}

static bool is_within(unsigned value, unsigned lowest, unsigned highest)
{
    return value >= lowest && value <= highest;
}

static bool second_caller_gets_its_share(const fv_pool *pool)
{
    sleepers first = { .pool = pool, .n_tasks = 300 }, second = { .pool = pool, .n_tasks = 50 };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_sleepers, &first), 0);
    while (atomic_load(&first.finished) < 50)
        usleep(500);
    unsigned before = atomic_load(&first.finished);
    run_sleepers(&second);
    unsigned meanwhile = atomic_load(&first.finished) - before;
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&first.finished), 300);
    assert_int_equal(atomic_load(&second.finished), 50);
    return atomic_load(&first.most) == 4 &&
           /* 50, as the second has; 150 if it kept its threads. */
           is_within(meanwhile, 30, 90) &&
           /* Half of its tasks are its helper's. */
           is_within(atomic_load(&second.by_caller), 15, 35) &&
           is_within(atomic_load(&second.most), 2, 3) &&
           /* 50 with four threads, 50 with two, 200 with four: the caller has done 88; were its
            * helpers not given back, 137. */
           is_within(atomic_load(&first.by_caller), 60, 110);
}

/* One long job has all four threads; a second caller gets two of them while its job runs, and gives
 * them back. */
static void test_second_caller_gets_its_share(void **state)
{
    (void)state;
    fv_pool *pool;
    bool fair = false;
    assert_int_equal(fv_pool_new(&pool, 4, NULL), FV_OK);
    for (int i = 0; i < TRIES && !fair; i++)
        fair = second_caller_gets_its_share(pool);
    fv_pool_free(pool);
    assert_unless_busy(fair);
}

/* Jobs of two tasks, one for the caller and one for a helper: the caller's waits for the helper's,
 * for a moment, so that a helper which is there is always done first. */
typedef struct pairs {
    atomic_uint helped; /* jobs whose second task another thread than the caller's did */
    atomic_bool done;
} pairs;

static void pair_task(void *user, size_t task, unsigned worker)
{
    pairs *p = user;
    if (worker > 0)
        atomic_fetch_add(&p->helped, 1);
    if (task > 0) {
        atomic_store(&p->done, true);
        return;
    }
    double begin = fv_now_ms();
    while (!atomic_load(&p->done) && fv_now_ms() - begin < 0.3)
        ;
}

/* A second caller with many short jobs, as a decoder has. Its helper is not lost to the long tasks
 * of the first whenever there is no job for it for a moment; without that it is there for one job
 * in twenty. */
static bool short_jobs_keep_their_helper(const fv_pool *pool)
{
    enum { JOBS = 200 };
    sleepers first = { .pool = pool, .n_tasks = 60, .task_us = 8000 };
    pairs second = { 0 };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_sleepers, &first), 0);
    while (atomic_load(&first.finished) < 4)
        usleep(500);
    for (int i = 0; i < JOBS; i++) {
        atomic_store(&second.done, false);
        fv_pool_run(pool, 2, pair_task, &second);
    }
    unsigned finished = atomic_load(&first.finished);
    pthread_join(thread, NULL);
    return finished < 60 && atomic_load(&second.helped) > JOBS / 2;
}

static void test_short_jobs_keep_their_helper(void **state)
{
    (void)state;
    fv_pool *pool;
    bool kept = false;
    assert_int_equal(fv_pool_new(&pool, 4, NULL), FV_OK);
    fv_threads_spin(pool->threads);
    for (int i = 0; i < TRIES && !kept; i++)
        kept = short_jobs_keep_their_helper(pool);
    fv_pool_free(pool);
    assert_unless_busy(kept);
}

/* As many callers as threads: each works alone, and nobody waits for another. */
static bool callers_work_alone(const fv_pool *pool, int n)
{
    enum { MOST = 3, TASKS = 60 };
    pthread_t thread[MOST];
    sleepers s[MOST];
    bool alone = true;
    for (int i = 0; i < n; i++) {
        s[i] = (sleepers){ .pool = pool, .n_tasks = TASKS };
        assert_int_equal(pthread_create(&thread[i], NULL, run_sleepers, &s[i]), 0);
    }
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < n; i++) {
        assert_int_equal(atomic_load(&s[i].finished), TASKS);
        alone = alone && atomic_load(&s[i].by_caller) > TASKS * 8 / 10;
    }
    return alone;
}

static void test_as_many_callers_as_threads(void **state)
{
    (void)state;
    fv_pool *pool;
    bool alone = false;
    assert_int_equal(fv_pool_new(&pool, 3, NULL), FV_OK);
    for (int i = 0; i < TRIES && !alone; i++)
        alone = callers_work_alone(pool, 3);
    fv_pool_free(pool);
    assert_unless_busy(alone);
}

static void test_limit(void **state)
{
    (void)state;
    fv_pool *pool;
    assert_int_equal(fv_pool_new(&pool, 6, NULL), FV_OK);
    for (int limit = 0; limit <= 7; limit++) {
        fv_pool limited = fv_pool_limit(pool, limit);
        assert_int_equal(fv_pool_threads(&limited), 6);
        unsigned want = limit == 0 || limit > 6 ? 6 : (unsigned)limit, most = 0;
        for (int i = 0; i < 5; i++) {
            sleepers s = { .pool = &limited, .n_tasks = 24 };
            run_sleepers(&s);
            assert_int_equal(atomic_load(&s.finished), 24);
            assert_true(atomic_load(&s.most) <= want);
            most = FV_MAX(most, atomic_load(&s.most));
        }
        assert_int_equal(most, want);
    }
    /* A limit never widens another. */
    fv_pool two = fv_pool_limit(pool, 2), four = fv_pool_limit(&two, 4);
    assert_int_equal(four.limit, 2);
    fv_pool_free(pool);
}

/* Callers that use the processor go on at about the same rate, one with long tasks and one with
 * short jobs. With more threads than processors a short job may have to wait for a helper that the
 * system has put aside, each time: it goes on, no more can be said. */
typedef struct racer {
    pthread_t thread;
    const fv_pool *pool;
    size_t n_tasks;
    unsigned turns; /* of a task */
    atomic_bool *over;
    uint64_t done; /* turns */
} racer;

static void turn_task(void *user, size_t task, unsigned worker)
{
    const racer *r = user;
    volatile uint64_t x = task;
    (void)worker;
    for (unsigned i = 0; i < r->turns; i++)
        x = mix(x);
}

static void *race(void *arg)
{
    racer *r = arg;
    while (!atomic_load(r->over)) {
        fv_pool_run(r->pool, r->n_tasks, turn_task, r);
        r->done += (uint64_t)r->n_tasks * r->turns;
    }
    return NULL;
}

static void test_callers_progress_alike(void **state)
{
    (void)state;
    static const int counts[] = { 2, 64 };
    for (size_t t = 0; t < FV_COUNT(counts); t++) {
        fv_pool *pool;
        atomic_bool over = false;
        assert_int_equal(fv_pool_new(&pool, counts[t], NULL), FV_OK);
        racer racers[] = { { .pool = pool, .n_tasks = 100, .turns = 20000, .over = &over },
                           { .pool = pool, .n_tasks = 8, .turns = 500, .over = &over } };
        for (size_t i = 0; i < FV_COUNT(racers); i++)
            assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
        usleep(500 * 1000);
        atomic_store(&over, true);
        for (size_t i = 0; i < FV_COUNT(racers); i++)
            pthread_join(racers[i].thread, NULL);
        double ratio = (double)racers[0].done / (double)racers[1].done;
        assert_true(racers[0].done > 0 && racers[1].done > 0);
        fv_pool_free(pool);
        if (counts[t] == 2 && (ratio > 4 || ratio < 0.25))
            print_message("one caller has done %.2f times what the other has\n", ratio);
        assert_unless_busy(counts[t] != 2 || (ratio <= 4 && ratio >= 0.25));
    }
}

static void test_shared_threads(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    fv_threads *threads;
    fv_pool *a, *b;
    fv_threads_options o = { .size = sizeof o, .n_threads = 3 };
    assert_int_equal(fv_threads_new(&threads, &o, NULL), FV_OK);
    assert_int_equal(fv_pool_share(&a, threads, NULL), FV_OK);
    assert_int_equal(fv_pool_share(&b, threads, NULL), FV_OK);
    fv_threads_free(threads);
    run_and_check(a, 100, 1);
    fv_pool_free(a);
    run_and_check(b, 100, 2);
    fv_pool_free(b);
    fv_threads_free(NULL);
    assert_int_equal(fv_mem_live(), live);
}

/* ---- the process around it --------------------------------------------------------------- */

/* A child of fork has the memory and none of the threads, one of which may have held the lock. */
static void test_child_of_fork_works_alone(void **state)
{
    (void)state;
    caller busy = { .number = 1 };
    fv_pool *pool;
    assert_int_equal(fv_pool_new(&pool, 3, NULL), FV_OK);
    busy.pool = *pool;
    assert_int_equal(pthread_create(&busy.thread, NULL, call_often, &busy), 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            alarm(20);
            run_and_check(pool, 100, 3);
            fv_pool_free(pool);
            _exit(0);
        }
        int status = -1;
        while (waitpid(child, &status, 0) < 0)
            ;
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    pthread_join(busy.thread, NULL);
    run_and_check(pool, 100, 3);
    fv_pool_free(pool);
}

/* Workers leave other people's signals alone; what their own instructions raise reaches the
 * program's handlers. */
typedef struct masks {
    atomic_uint looked, blocked_own, open_others;
} masks;

static void mask_task(void *user, size_t task, unsigned worker)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
    static const int others[] = { SIGINT, SIGTERM, SIGALRM, SIGUSR1, SIGCHLD, SIGPIPE, SIGWINCH };
    masks *m = user;
    sigset_t mask;
    (void)task;
    usleep(1000); /* lets a worker come in */
    if (worker == 0 || pthread_sigmask(SIG_BLOCK, NULL, &mask) != 0)
        return;
    for (size_t i = 0; i < FV_COUNT(own); i++)
        if (sigismember(&mask, own[i]))
            atomic_fetch_add(&m->blocked_own, 1);
    for (size_t i = 0; i < FV_COUNT(others); i++)
        if (!sigismember(&mask, others[i]))
            atomic_fetch_add(&m->open_others, 1);
    atomic_fetch_add(&m->looked, 1);
}

static void test_signals_of_workers(void **state)
{
    (void)state;
    fv_pool *pool;
    masks m = { 0 };
    assert_int_equal(fv_pool_new(&pool, 3, NULL), FV_OK);
    for (int i = 0; i < 100 && atomic_load(&m.looked) == 0; i++)
        fv_pool_run(pool, 12, mask_task, &m);
    assert_true(atomic_load(&m.looked) > 0);
    assert_int_equal(atomic_load(&m.blocked_own), 0);
    assert_int_equal(atomic_load(&m.open_others), 0);
    fv_pool_free(pool);
}

#if defined(__linux__)

typedef struct places {
    const int *cpus;
    atomic_uint helped, elsewhere;
} places;

static void place_task(void *user, size_t task, unsigned worker)
{
    places *p = user;
    cpu_set_t mask;
    (void)task;
    usleep(1000);
    if (worker == 0)
        return;
    atomic_fetch_add(&p->helped, 1);
    bool right = sched_getcpu() == p->cpus[worker] &&
                 sched_getaffinity(0, sizeof mask, &mask) == 0 && CPU_COUNT(&mask) == 1;
    if (!right)
        atomic_fetch_add(&p->elsewhere, 1);
}

static void test_pinned(void **state)
{
    (void)state;
    cpu_set_t mine, after;
    int cpus[CPU_SETSIZE];
    size_t n = 0;
    fv_threads *threads;
    fv_error err;
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0 && n < 4; cpu--)
        if (CPU_ISSET(cpu, &mine))
            cpus[n++] = cpu;
    fv_threads_options o = { .size = sizeof o, .n_threads = (int)n, .cpus = cpus, .n_cpus = n };
    if (n > 1) {
        fv_pool *pool;
        places p = { .cpus = cpus };
        assert_int_equal(fv_threads_new(&threads, &o, &err), FV_OK);
        assert_int_equal(fv_pool_share(&pool, threads, NULL), FV_OK);
        for (int i = 0; i < 100 && atomic_load(&p.helped) == 0; i++)
            fv_pool_run(pool, 20, place_task, &p);
        assert_true(atomic_load(&p.helped) > 0);
        assert_int_equal(atomic_load(&p.elsewhere), 0);
        fv_pool_free(pool);
        fv_threads_free(threads);
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&mine, &after)); /* this thread is not the pool's */
        o.n_cpus--;
        assert_int_equal(fv_threads_new(&threads, &o, &err), FV_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "n_cpus is "));
        o.n_cpus++;
        cpus[1] = cpus[0];
        assert_int_equal(fv_threads_new(&threads, &o, &err), FV_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "cpus[0] and cpus[1] are both "));
    }
    static const int wrong[] = { -1, 8191, 8192, INT32_MAX };
    for (size_t i = 0; i < FV_COUNT(wrong); i++) {
        cpus[0] = wrong[i];
        assert_int_equal(fv_threads_new(&threads, &o, &err), FV_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "cpus[0] is "));
        assert_null(threads);
    }
    o.cpus = NULL;
    assert_int_equal(fv_threads_new(&threads, &o, &err), FV_ERR_ARGUMENT);
}

#endif

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
    for (uint64_t n = 0; n < 4; n++) {
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
        cmocka_unit_test(test_second_caller_gets_its_share),
        cmocka_unit_test(test_short_jobs_keep_their_helper),
        cmocka_unit_test(test_as_many_callers_as_threads),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_callers_progress_alike),
        cmocka_unit_test(test_shared_threads),
        cmocka_unit_test(test_child_of_fork_works_alone),
        cmocka_unit_test(test_signals_of_workers),
#if defined(__linux__)
        cmocka_unit_test(test_pinned),
#endif
        cmocka_unit_test(test_bad_counts_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
