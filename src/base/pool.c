/* A persistent pool of threads that share the tasks of one call at a time.
 *
 * Every thread begins with a run of tasks of its own, in order, and then helps the others: tasks
 * that follow each other often read memory that does, and the processor sees one stream.
 *
 * The caller opens a job, works on it like everybody else, closes it when no task is left to
 * take, and waits for those who joined. A worker that wakes too late finds the job closed:
 * nobody ever waits for a thread that has not started, so a pool with more threads than
 * free cores gets slower by its wake-ups only. All this lives in one word:
 *
 *     state   epoch << 32 | OPEN | number of workers inside
 *
 * Workers spin for a moment after a job, because a token is a few hundred short jobs in a
 * row, and then sleep on a condition variable. */
#include "base/base.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX_THREADS = 1024, STACK_BYTES = 2 << 20, PAUSES_PER_LOOK = 32 };

#define SPIN_MS 0.05

#define INSIDE_MASK ((uint64_t)0xffff)
#define OPEN        ((uint64_t)1 << 16)
#define STOP        ((uint64_t)1 << 17)
#define EPOCH_ONE   ((uint64_t)1 << 32)

typedef struct worker {
    fv_pool *pool;
    pthread_t thread;
    unsigned number; /* 1 to n_threads - 1; 0 is the caller */
} worker;

/* A thread's run of tasks; in a cache line of its own, for it is written all the time. */
typedef struct run {
    alignas(64) _Atomic size_t next;
    size_t end;
} run;

struct fv_pool {
    unsigned n_threads, n_started;
    double spin_ms;  /* 0 when there are more threads than cores */
    worker *workers; /* [n_threads - 1] */

    /* The job; written before it opens, read by those inside. */
    fv_task_fn *fn;
    void *user;
    run *runs; /* [n_threads] */

    /* Each in a cache line of its own: they are written by different threads all the time. */
    alignas(64) _Atomic uint64_t state;
    alignas(64) atomic_bool busy; /* a caller is inside fv_pool_run */

    alignas(64) pthread_mutex_t lock;
    pthread_cond_t opened, emptied;
    _Atomic unsigned n_sleeping;
    atomic_bool caller_sleeps;
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield is a no-op on most cores */
#endif
}

static void do_tasks(fv_pool *pool, unsigned number)
{
    for (unsigned i = 0; i < pool->n_threads; i++) {
        run *r = &pool->runs[(number + i) % pool->n_threads];
        size_t task = atomic_load_explicit(&r->next, memory_order_relaxed);
        while (task < r->end &&
               (task = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed)) < r->end)
            pool->fn(pool->user, task, number);
    }
}

/* ---------------------------------------------------------------- workers */

/* Something for a worker that has seen all jobs up to epoch. */
static bool is_news(uint64_t state, uint64_t epoch)
{
    return (state & STOP) || ((state & OPEN) && state / EPOCH_ONE != epoch);
}

static uint64_t wait_for_news(fv_pool *pool, uint64_t epoch)
{
    uint64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);

    if (!is_news(state, epoch) && pool->spin_ms > 0) {
        double until = fv_now_ms() + pool->spin_ms;
        do {
            for (int i = 0; i < PAUSES_PER_LOOK && !is_news(state, epoch); i++) {
                pause_cpu();
                state = atomic_load_explicit(&pool->state, memory_order_acquire);
            }
        } while (!is_news(state, epoch) && fv_now_ms() < until);
    }
    if (is_news(state, epoch))
        return state;

    /* Either this thread sees the new state, or the opener sees the new n_sleeping: both sides
     * write first and look afterwards, in one total order. */
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (!is_news(state = atomic_load(&pool->state), epoch))
        pthread_cond_wait(&pool->opened, &pool->lock);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
    return state;
}

static void leave(fv_pool *pool)
{
    uint64_t before = atomic_fetch_sub(&pool->state, 1);
    if ((before & INSIDE_MASK) == 1 && atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->lock);
        pthread_mutex_unlock(&pool->lock);
        pthread_cond_signal(&pool->emptied);
    }
}

static void *worker_main(void *arg)
{
    worker *self = arg;
    fv_pool *pool = self->pool;
    uint64_t epoch = 0;

    for (;;) {
        uint64_t state = wait_for_news(pool, epoch);
        if (state & STOP)
            return NULL;
        if (!atomic_compare_exchange_strong(&pool->state, &state, state + 1))
            continue; /* somebody else joined, left, or the job closed */
        epoch = state / EPOCH_ONE;
        do_tasks(pool, self->number);
        leave(pool);
    }
}

/* ---------------------------------------------------------------- the caller */

static void open_job(fv_pool *pool, size_t n_tasks, fv_task_fn *fn, void *user)
{
    pool->fn = fn;
    pool->user = user;
    for (unsigned i = 0; i < pool->n_threads; i++) {
        size_t share = n_tasks / pool->n_threads, rest = n_tasks % pool->n_threads;
        atomic_store_explicit(&pool->runs[i].next, share * i + FV_MIN(i, rest),
                              memory_order_relaxed);
        pool->runs[i].end = share * (i + 1) + FV_MIN(i + 1, rest);
    }
    /* Nobody is inside, and the job is closed: only this thread writes the state now. The
     * epoch's 32 bits may wrap; a worker would have to sleep through all 2^32 jobs. */
    uint64_t epoch = atomic_load_explicit(&pool->state, memory_order_relaxed) / EPOCH_ONE;
    atomic_store(&pool->state, ((epoch + 1) & 0xffffffff) * EPOCH_ONE | OPEN);

    unsigned sleeping = atomic_load(&pool->n_sleeping);
    if (sleeping == 0)
        return;
    /* A worker between its look at the state and its wait holds the lock. */
    pthread_mutex_lock(&pool->lock);
    pthread_mutex_unlock(&pool->lock);
    if (n_tasks - 1 >= sleeping)
        pthread_cond_broadcast(&pool->opened);
    else
        for (size_t i = 0; i < n_tasks - 1; i++)
            pthread_cond_signal(&pool->opened);
}

static bool is_empty(fv_pool *pool) { return (atomic_load(&pool->state) & INSIDE_MASK) == 0; }

static void close_job(fv_pool *pool)
{
    if ((atomic_fetch_and(&pool->state, ~OPEN) & INSIDE_MASK) == 0)
        return;
    if (pool->spin_ms > 0) {
        double until = fv_now_ms() + pool->spin_ms;
        do {
            for (int i = 0; i < PAUSES_PER_LOOK; i++) {
                if (is_empty(pool))
                    return;
                pause_cpu();
            }
        } while (fv_now_ms() < until);
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (!is_empty(pool))
        pthread_cond_wait(&pool->emptied, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void fv_pool_run(fv_pool *pool, size_t n_tasks, fv_task_fn *fn, void *user)
{
    if (n_tasks <= 1 || pool->n_threads == 1 ||
        atomic_exchange_explicit(&pool->busy, true, memory_order_acquire)) {
        for (size_t task = 0; task < n_tasks; task++)
            fn(user, task, 0);
        return;
    }
    open_job(pool, n_tasks, fn, user);
    do_tasks(pool, 0);
    close_job(pool);
    atomic_store_explicit(&pool->busy, false, memory_order_release);
}

unsigned fv_pool_threads(const fv_pool *pool) { return pool->n_threads; }

/* ---------------------------------------------------------------- life */

/* Workers take no signals: those belong to the program's own threads. */
static int start_worker(worker *w)
{
    sigset_t all, before;
    pthread_attr_t attr;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&w->thread, &attr, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return code;
}

fv_status fv_pool_new(fv_pool **out, int n_threads, fv_error *err)
{
    int cores = fv_cpu_cores();

    *out = NULL;
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%d threads, expected 0 (automatic) to %d",
                       n_threads, MAX_THREADS);
    if (n_threads == 0)
        n_threads = FV_MIN(cores, MAX_THREADS);
    fv_pool *pool = fv_alloc_zero(1, sizeof *pool);
    if (!pool)
        return fv_fail_memory(err, sizeof *pool, "thread pool");
    pool->n_threads = (unsigned)n_threads;
    pool->spin_ms = n_threads <= cores ? SPIN_MS : 0;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pthread_cond_init(&pool->emptied, NULL);
    pool->workers = fv_alloc_zero((size_t)n_threads, sizeof *pool->workers);
    pool->runs = fv_alloc_zero((size_t)n_threads, sizeof *pool->runs);
    if (!pool->workers || !pool->runs) {
        fv_pool_free(pool);
        return fv_fail_memory(err, (size_t)n_threads * (sizeof *pool->workers + sizeof *pool->runs),
                              "thread pool");
    }
    for (unsigned number = 1; number < pool->n_threads; number++) {
        worker *w = &pool->workers[number - 1];
        w->pool = pool;
        w->number = number;
        int code = start_worker(w);
        if (code != 0) {
            fv_pool_free(pool);
            return fv_fail(err, FV_ERR_LIMIT, 0, "cannot start thread %u of %d: %s", number + 1,
                           n_threads, strerror(code));
        }
        pool->n_started++;
    }
    *out = pool;
    return FV_OK;
}

void fv_pool_free(fv_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_or(&pool->state, STOP);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_broadcast(&pool->opened);
    for (unsigned i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->emptied);
    pthread_cond_destroy(&pool->opened);
    pthread_mutex_destroy(&pool->lock);
    fv_free(pool->workers);
    fv_free(pool->runs);
    fv_free(pool);
}
