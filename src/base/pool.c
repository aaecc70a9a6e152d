/* A persistent pool of threads that several callers share fairly.
 *
 * Every caller works on its own job and on nothing else; workers go where help is due. With k jobs
 * open, n threads in all, callers included, are spread evenly: about n / k for each job. There are
 * N_SLOTS places for open jobs; a caller that finds all of them taken works alone. Results never
 * depend on who ran what.
 *
 * One word, the board, says which jobs are open:
 *
 *     board   STOP | for every slot: number of the job, modulo 64 << 1 | LIVE
 *
 * A caller opens a job with one change of the board and closes it with another, as soon as no task
 * is left to take; then it waits for those inside. A worker enters by counting itself into the
 * slot and looking at the board afterwards; a caller clears LIVE and looks at the count afterwards.
 * All four are in one total order, so either the worker sees that the job is closed, or the caller
 * sees the worker. Nobody ever waits for a thread that has not started: a pool with more threads
 * than free cores gets slower by its wake-ups only.
 *
 * Every thread begins with a run of tasks of its own, in order, and then helps the others: tasks
 * that follow each other often read memory that does, and the processor sees one stream.
 *
 * Between two tasks a worker looks at the board. When it changed, and another job is worse off by
 * two threads or more, or there are more threads at work than the pool has, the worker leaves; the
 * caller and those who stay finish the job.
 *
 * In a child of fork there are no workers: a caller works alone.
 *
 * Workers spin for a moment after a job, because a token is a few hundred short jobs in a row, and
 * then sleep on a condition variable. Where others would give them work they still linger for the
 * next job of the same slot: long tasks of an image's encoder would otherwise swallow them in the
 * gap between two short jobs of a decoder. */
#include "base/base.h"
#include "base/fpenv.h"
#include "base/sized.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

enum {
    MAX_THREADS = 1024,
    STACK_BYTES = 2 << 20,
    PAUSES_PER_LOOK = 32,
    N_SLOTS = 8, /* of 7 bits each on the board */
    SLOT_BITS = 7,
    NO_SLOT = -1
};

#define SPIN_MS   0.05
#define LINGER_MS 0.02

#define STOP      ((uint64_t)1 << 63)
#define LIVE      ((uint64_t)1)
#define SLOT_MASK ((uint64_t)0x7f)
#define ALL_LIVE  ((uint64_t)0x0002040810204081) /* LIVE of every slot */

/* A thread's run of tasks; in a cache line of its own, for it is written all the time. */
typedef struct run {
    alignas(64) _Atomic size_t next;
    size_t end;
} run;

/* A place for an open job. */
typedef struct slot {
    /* Written by the caller that holds the slot, before the job opens; read by those inside. */
    alignas(64) atomic_bool taken;
    fv_task_fn *fn;
    void *user;
    run *runs;              /* [n_threads], of them the first `limit` are used */
    _Atomic unsigned limit; /* threads that may work on the job, the caller included */
    uint64_t job;           /* this slot's part of the board while the job is open */
    /* Written by workers that come and go. */
    alignas(64) _Atomic unsigned inside; /* workers in the job; the caller is not counted */
    atomic_bool caller_sleeps;
    pthread_cond_t emptied;
} slot;

typedef struct worker {
    fv_threads *pool;
    pthread_t thread;
    unsigned number; /* 1 to n_threads - 1; 0 is the caller */
    int cpu;         /* to be pinned to; -1: none */
    uint64_t seen;   /* jobs that have no task or no place left for this worker, as on the board */
    uint64_t board;  /* the last one looked at */
    int last;        /* the slot whose job was finished last, or NO_SLOT */
} worker;

struct fv_threads {
    unsigned n_threads, n_started;
    _Atomic double spin_ms; /* 0 when there are more threads than cores */
    worker *workers;        /* [n_threads - 1] */
    run *runs;              /* [N_SLOTS, n_threads] */
    unsigned n_forks;       /* when the threads were started: a child of fork has none of them */
    _Atomic unsigned n_references;

    /* In a cache line of its own: everybody reads it all the time. */
    alignas(64) _Atomic uint64_t board;

    alignas(64) pthread_mutex_t lock;
    pthread_cond_t opened;
    _Atomic unsigned n_sleeping;

    slot slots[N_SLOTS];
};

/* Of this process and those it came from. */
static _Atomic unsigned n_forks;

static void forks_count(void) { atomic_fetch_add(&n_forks, 1); }

static void forks_watch(void) { pthread_atfork(NULL, NULL, forks_count); }

/* False in a child of fork, where the lock and the counts of those inside may also be left from
 * threads of the parent. */
static bool threads_exist(const fv_threads *pool)
{
    return pool->n_forks == atomic_load_explicit(&n_forks, memory_order_relaxed);
}

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield is a no-op on most cores */
#endif
}

static uint64_t board_read(fv_threads *pool) { return atomic_load(&pool->board); }

static uint64_t board_slot(uint64_t board, int s) { return board >> (s * SLOT_BITS) & SLOT_MASK; }

static bool slot_is_live(uint64_t board, int s) { return board >> (s * SLOT_BITS) & LIVE; }

/* The lowest live slot of board, which has one; *board loses it. */
static int board_take(uint64_t *board)
{
    int bit = __builtin_ctzll(*board & ALL_LIVE);
    *board &= ~((uint64_t)1 << bit);
    return bit / SLOT_BITS;
}

/* Threads at work on all open jobs, callers included. */
static unsigned board_threads(fv_threads *pool, uint64_t board)
{
    unsigned n = 0;
    for (uint64_t rest = board & ALL_LIVE; rest;)
        n += 1 + atomic_load(&pool->slots[board_take(&rest)].inside);
    return n;
}

/* ---------------------------------------------------------------- workers */

/* After a worker has left: wakes the caller that waits for the last one. */
static void slot_left(fv_threads *pool, slot *s, unsigned inside_before)
{
    if (inside_before != 1 || !atomic_load(&s->caller_sleeps))
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_signal(&s->emptied);
}

static void slot_leave(fv_threads *pool, slot *s)
{
    slot_left(pool, s, atomic_fetch_sub(&s->inside, 1));
}

/* Leaves only if no other worker came or left since `inside` was read: two workers never both act
 * on the same imbalance. */
static bool slot_leave_if(fv_threads *pool, slot *s, unsigned inside)
{
    if (!atomic_compare_exchange_strong(&s->inside, &inside, inside - 1))
        return false;
    slot_left(pool, s, inside);
    return true;
}

/* True when the job in slot s is one that w knows to have no task or no place left. */
static bool worker_has_seen(const worker *w, uint64_t board, int s)
{
    return board_slot(board, s) == board_slot(w->seen, s);
}

static bool slot_has_room(slot *s, unsigned inside)
{
    return inside + 1 < atomic_load_explicit(&s->limit, memory_order_relaxed);
}

/* Where this worker is needed most: the open job with the fewest threads, if the pool's number of
 * threads allows for one more at work. */
static int worker_pick(const worker *w, uint64_t board)
{
    fv_threads *pool = w->pool;
    int best = NO_SLOT;
    unsigned fewest = 0, n = 0;

    for (uint64_t rest = board & ALL_LIVE; rest;) {
        int s = board_take(&rest);
        unsigned inside = atomic_load(&pool->slots[s].inside);
        n += 1 + inside;
        if (!worker_has_seen(w, board, s) && (best < 0 || inside < fewest) &&
            slot_has_room(&pool->slots[s], inside)) {
            best = s;
            fewest = inside;
        }
    }
    return n < pool->n_threads ? best : NO_SLOT;
}

/* True when w should act: *s is the slot to go to, or NO_SLOT when the pool ends. A worker that
 * lingers goes nowhere but to the slot that it worked for last. */
static bool worker_is_due(const worker *w, uint64_t board, bool lingers, int *s)
{
    *s = worker_pick(w, board);
    return (board & STOP) || (*s >= 0 && (!lingers || *s == w->last));
}

/* Spins until there is a job; false when it is time to sleep. */
static bool worker_spin(worker *w, int *s)
{
    fv_threads *pool = w->pool;
    uint64_t board = board_read(pool);
    double spin_ms = pool->spin_ms;
    bool lingers = spin_ms > 0 && w->last != NO_SLOT;

    if (worker_is_due(w, board, lingers, s))
        return true;
    /* Where callers and their helpers fill the processors, spinning would take one from them. */
    if (spin_ms == 0 || board_threads(pool, board) >= pool->n_threads)
        return false;
    double begin = fv_now_ms(), waited;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            uint64_t now = board_read(pool);
            if (now != board && worker_is_due(w, board = now, lingers, s))
                return true;
            cpu_pause();
        }
        waited = fv_now_ms() - begin;
        if (lingers && waited >= LINGER_MS) {
            lingers = false;
            if (worker_is_due(w, board, false, s))
                return true;
        }
    } while (waited < spin_ms);
    return false;
}

static int worker_wait(worker *w)
{
    fv_threads *pool = w->pool;
    int s;

    if (worker_spin(w, &s))
        return s;
    /* Either this thread sees the new board, or the opener sees the new n_sleeping: both sides
     * write first and look afterwards, in one total order. */
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (!worker_is_due(w, board_read(pool), false, &s))
        pthread_cond_wait(&pool->opened, &pool->lock);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
    return s;
}

static void worker_note(worker *w, int s, uint64_t job)
{
    w->seen &= ~(SLOT_MASK << (s * SLOT_BITS));
    w->seen |= job << (s * SLOT_BITS);
}

/* Enters the job in slot s; false when it closed meanwhile or has threads enough. */
static bool worker_join(worker *w, int s)
{
    slot *place = &w->pool->slots[s];
    unsigned inside = atomic_fetch_add(&place->inside, 1);

    w->board = board_read(w->pool);
    if (slot_is_live(w->board, s)) { /* and stays so while this thread is inside */
        if (slot_has_room(place, inside))
            return true;
        worker_note(w, s, place->job);
    }
    slot_leave(w->pool, place);
    return false;
}

/* Leaves slot s when another job needs this worker more, or none needs it. */
static bool worker_moves(worker *w, int s)
{
    fv_threads *pool = w->pool;

    for (;;) {
        unsigned here = atomic_load(&pool->slots[s].inside), most = 0, least = here, n = 1 + here;
        uint64_t board = w->board = board_read(pool);
        for (uint64_t rest = board & ALL_LIVE; rest;) {
            int other = board_take(&rest);
            if (other == s)
                continue;
            unsigned inside = atomic_load(&pool->slots[other].inside);
            n += 1 + inside;
            most = FV_MAX(most, inside);
            if (!worker_has_seen(w, board, other) && slot_has_room(&pool->slots[other], inside))
                least = FV_MIN(least, inside);
        }
        bool too_many = n > pool->n_threads && here >= most;
        if (!too_many && least + 1 >= here)
            return false;
        if (slot_leave_if(pool, &pool->slots[s], here))
            return true;
    }
}

/* Tasks of the slot's job until none is left to take. A worker, which has a slot number, may be
 * called away before: false. */
static bool tasks_run(slot *place, unsigned number, worker *w, int s)
{
    unsigned n_runs = atomic_load_explicit(&place->limit, memory_order_relaxed);

    for (unsigned i = 0; i < n_runs; i++) {
        run *r = &place->runs[(number + i) % n_runs];
        size_t task = atomic_load_explicit(&r->next, memory_order_relaxed);
        while (task < r->end &&
               (task = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed)) < r->end) {
            place->fn(place->user, task, number);
            if (w && atomic_load_explicit(&w->pool->board, memory_order_relaxed) != w->board &&
                worker_moves(w, s))
                return false;
        }
    }
    return true;
}

static void *worker_main(void *arg)
{
    worker *self = arg;
    fv_threads *pool = self->pool;

    fv_fpenv_enter(); /* it came with that of the thread that opened the pool */
    if (self->cpu >= 0)
        fv_cpu_pin(self->cpu); /* allowed a moment ago; if no more, not pinned is the next best */
    for (;;) {
        int s = worker_wait(self);
        if (s < 0)
            return NULL;
        if (!worker_join(self, s))
            continue;
        self->last = NO_SLOT;
        slot *place = &pool->slots[s];
        if (tasks_run(place, self->number, self, s)) {
            worker_note(self, s, place->job);
            self->last = s;
            slot_leave(pool, place);
        }
    }
}

/* ---------------------------------------------------------------- the caller */

/* A free slot, if possible the one that this thread had before: a worker that lingers there
 * waits for this caller's next job. */
static slot *slot_take(fv_threads *pool)
{
    static _Atomic unsigned n_callers;
    static _Thread_local unsigned mine; /* number of the slot and 1; 0: not chosen yet */

    if (mine == 0)
        mine = atomic_fetch_add(&n_callers, 1) % N_SLOTS + 1;
    for (unsigned i = 0; i < N_SLOTS; i++) {
        slot *s = &pool->slots[(mine - 1 + i) % N_SLOTS];
        if (!atomic_load_explicit(&s->taken, memory_order_relaxed) &&
            !atomic_exchange_explicit(&s->taken, true, memory_order_acquire))
            return s;
    }
    return NULL;
}

static void workers_wake(fv_threads *pool, size_t wanted)
{
    unsigned sleeping = atomic_load(&pool->n_sleeping);

    if (sleeping == 0)
        return;
    uint64_t board = board_read(pool);
    unsigned at_work = board_threads(pool, board);
    unsigned inside = at_work - (unsigned)__builtin_popcountll(board & ALL_LIVE);
    unsigned room = at_work < pool->n_threads ? pool->n_threads - at_work : 0;
    /* Those who are awake and free look at the board before they sleep. */
    unsigned used = sleeping + inside, awake = used < pool->n_started ? pool->n_started - used : 0;
    wanted = FV_MIN(wanted, (size_t)room);
    if (wanted <= awake)
        return;
    wanted -= awake;
    /* A worker between its look at the board and its wait holds the lock. */
    pthread_mutex_lock(&pool->lock);
    pthread_mutex_unlock(&pool->lock);
    if (wanted >= sleeping)
        pthread_cond_broadcast(&pool->opened);
    else
        for (size_t i = 0; i < wanted; i++)
            pthread_cond_signal(&pool->opened);
}

static void job_open(fv_threads *pool, slot *s, size_t n_tasks, fv_task_fn *fn, void *user,
                     unsigned n_threads)
{
    int shift = (int)(s - pool->slots) * SLOT_BITS;
    uint64_t before = s->job & ~LIVE;

    s->fn = fn;
    s->user = user;
    atomic_store_explicit(&s->limit, n_threads, memory_order_relaxed);
    for (unsigned i = 0; i < n_threads; i++) {
        size_t share = n_tasks / n_threads, rest = n_tasks % n_threads;
        atomic_store_explicit(&s->runs[i].next, share * i + FV_MIN(i, rest), memory_order_relaxed);
        s->runs[i].end = share * (i + 1) + FV_MIN(i + 1, rest);
    }
    /* The number may wrap: a worker that slept through all 64 jobs stays away from one. */
    s->job = ((before + 2) & SLOT_MASK) | LIVE;
    atomic_fetch_xor(&pool->board, (before ^ s->job) << shift);
    workers_wake(pool, FV_MIN(n_tasks, (size_t)n_threads) - 1);
}

static bool slot_is_empty(slot *s) { return atomic_load(&s->inside) == 0; }

static void job_close(fv_threads *pool, slot *s)
{
    atomic_fetch_and(&pool->board, ~(LIVE << (s - pool->slots) * SLOT_BITS));
    if (slot_is_empty(s))
        return;
    if (pool->spin_ms > 0) {
        double until = fv_now_ms() + pool->spin_ms;
        do {
            for (int i = 0; i < PAUSES_PER_LOOK; i++) {
                if (slot_is_empty(s))
                    return;
                cpu_pause();
            }
        } while (fv_now_ms() < until);
    }
    pthread_mutex_lock(&pool->lock);
    /* An exchange: emulators of Arm have let the load behind a mere store pass it. */
    atomic_exchange(&s->caller_sleeps, true);
    while (!slot_is_empty(s))
        pthread_cond_wait(&s->emptied, &pool->lock);
    atomic_store(&s->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void fv_pool_run(const fv_pool *pool, size_t n_tasks, fv_task_fn *fn, void *user)
{
    fv_threads *threads = pool->threads;
    bool alone = n_tasks <= 1 || pool->limit <= 1 || !threads_exist(threads);
    slot *s = alone ? NULL : slot_take(threads);

    if (!s) {
        for (size_t task = 0; task < n_tasks; task++)
            fn(user, task, 0);
        return;
    }
    job_open(threads, s, n_tasks, fn, user, pool->limit);
    tasks_run(s, 0, NULL, NO_SLOT);
    job_close(threads, s);
    atomic_store_explicit(&s->taken, false, memory_order_release);
}

unsigned fv_pool_threads(const fv_pool *pool) { return pool->threads->n_threads; }

fv_pool fv_pool_limit(const fv_pool *pool, int n_threads)
{
    fv_pool limited = *pool;
    if (n_threads > 0)
        limited.limit = FV_MIN(limited.limit, (unsigned)n_threads);
    return limited;
}

/* ---------------------------------------------------------------- life */

/* Workers take no signals that others send, for those belong to the program's own threads; what
 * their own instructions cause goes to the program's handlers. */
static int worker_start(worker *w)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
    sigset_t blocked, before;
    pthread_attr_t attr;

    sigfillset(&blocked);
    for (size_t i = 0; i < FV_COUNT(own); i++)
        sigdelset(&blocked, own[i]);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int code = pthread_create(&w->thread, &attr, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return code;
}

static fv_status cpus_check(const fv_threads_options *o, fv_error *err)
{
    if (o->n_cpus != (size_t)o->n_threads)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "n_cpus is %zu; expected one for each of n_threads, which is %d", o->n_cpus,
                       o->n_threads);
    if (!fv_cpu_can_pin())
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "cpus: threads cannot be pinned to processors on this system");
    for (size_t i = 0; i < o->n_cpus; i++) {
        if (!fv_cpu_is_allowed(o->cpus[i]))
            return fv_fail(err, FV_ERR_ARGUMENT, 0,
                           "cpus[%zu] is %d: not a processor that this process may use", i,
                           o->cpus[i]);
        for (size_t k = 0; k < i; k++)
            if (o->cpus[k] == o->cpus[i])
                return fv_fail(err, FV_ERR_ARGUMENT, 0, "cpus[%zu] and cpus[%zu] are both %d", k, i,
                               o->cpus[i]);
    }
    return FV_OK;
}

/* Everything but the workers; *out is freed by fv_threads_free also after a failure. */
static fv_status threads_prepare(fv_threads **out, int n_threads, fv_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    fv_threads *pool = *out = fv_alloc_zero(1, sizeof *pool);
    size_t n = (size_t)n_threads;

    if (!pool)
        return fv_fail_memory(err, sizeof *pool, "thread pool");
    pool->n_threads = (unsigned)n_threads;
    pool->n_references = 1;
    pthread_once(&once, forks_watch);
    pool->n_forks = atomic_load(&n_forks);
    pool->spin_ms = n_threads <= fv_cpu_cores() ? SPIN_MS : 0;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->opened, NULL);
    for (size_t i = 0; i < N_SLOTS; i++)
        pthread_cond_init(&pool->slots[i].emptied, NULL);
    pool->workers = fv_alloc_zero(n, sizeof *pool->workers);
    pool->runs = fv_alloc_zero(n, N_SLOTS * sizeof *pool->runs);
    if (!pool->workers || !pool->runs)
        return fv_fail_memory(err, n * (sizeof *pool->workers + N_SLOTS * sizeof *pool->runs),
                              "thread pool");
    for (size_t i = 0; i < N_SLOTS; i++)
        pool->slots[i].runs = pool->runs + i * n;
    return FV_OK;
}

static fv_status workers_start(fv_threads *pool, const int *cpus, fv_error *err)
{
    for (unsigned number = 1; number < pool->n_threads; number++) {
        worker *w = &pool->workers[number - 1];
        *w = (worker){
            .pool = pool, .number = number, .cpu = cpus ? cpus[number] : -1, .last = NO_SLOT
        };
        int code = worker_start(w);
        if (code != 0)
            return fv_fail(err, FV_ERR_LIMIT, 0, "cannot start thread %u of %u: %s", number + 1,
                           pool->n_threads, strerror(code));
        pool->n_started++;
    }
    return FV_OK;
}

fv_status fv_threads_new(fv_threads **out, const fv_threads_options *options, fv_error *err)
{
    fv_threads_options o;
    fv_threads *pool = NULL;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_TRY(FV_OPTIONS_IN(&o, fv_threads_options, options, err));
    if (o.n_threads < 0 || o.n_threads > MAX_THREADS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (automatic) to %d",
                       o.n_threads, MAX_THREADS);
    if (o.cpus || o.n_cpus) {
        FV_REQUIRE(o.cpus, err);
        FV_TRY(cpus_check(&o, err));
    }
    if (o.n_threads == 0)
        o.n_threads = FV_MIN(fv_cpu_cores(), MAX_THREADS);
    fv_status status = threads_prepare(&pool, o.n_threads, err);
    if (status == FV_OK)
        status = workers_start(pool, o.cpus, err);
    if (status == FV_OK)
        *out = pool;
    else
        fv_threads_free(pool);
    return status;
}

fv_threads *fv_threads_ref(fv_threads *pool)
{
    atomic_fetch_add_explicit(&pool->n_references, 1, memory_order_relaxed);
    return pool;
}

void fv_threads_spin(fv_threads *pool) { pool->spin_ms = SPIN_MS; }

static void workers_stop(fv_threads *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_or(&pool->board, STOP);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_broadcast(&pool->opened);
    for (unsigned i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    for (size_t i = 0; i < N_SLOTS; i++)
        pthread_cond_destroy(&pool->slots[i].emptied);
    pthread_cond_destroy(&pool->opened);
    pthread_mutex_destroy(&pool->lock);
}

void fv_threads_free(fv_threads *pool)
{
    if (!pool || atomic_fetch_sub(&pool->n_references, 1) > 1)
        return;
    if (threads_exist(pool))
        workers_stop(pool);
    fv_free(pool->workers);
    fv_free(pool->runs);
    fv_free(pool);
}

fv_status fv_pool_share(fv_pool **out, fv_threads *threads, fv_error *err)
{
    fv_pool *pool = *out = fv_alloc(1, sizeof *pool);

    if (!pool)
        return fv_fail_memory(err, sizeof *pool, "thread pool");
    *pool = (fv_pool){ .threads = fv_threads_ref(threads), .limit = threads->n_threads };
    return FV_OK;
}

fv_status fv_pool_new(fv_pool **out, int n_threads, fv_error *err)
{
    fv_threads_options options = { .size = sizeof options, .n_threads = n_threads };
    fv_threads *threads;

    *out = NULL;
    FV_TRY(fv_threads_new(&threads, &options, err));
    fv_status status = fv_pool_share(out, threads, err);
    fv_threads_free(threads);
    return status;
}

void fv_pool_free(fv_pool *pool)
{
    if (!pool)
        return;
    fv_threads_free(pool->threads);
    fv_free(pool);
}
