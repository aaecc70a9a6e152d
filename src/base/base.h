/* base: status, memory, file mapping, byte cursor, clock. Depends on libc only.
 *
 * This is the one door to malloc: nothing outside base/mem.c allocates. */
#ifndef FV_BASE_H
#define FV_BASE_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastvlm.h"

#if defined(__GNUC__)
#define FV_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define FV_MUST_CHECK   __attribute__((warn_unused_result))
#else
#define FV_PRINTF(f, a)
#define FV_MUST_CHECK
#endif

#define FV_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FV_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define FV_MAX(a, b)    ((a) > (b) ? (a) : (b))

/* ---- status.c ---------------------------------------------------------------------------- */

/* Fills *err (which may be NULL) and returns status, so that callers can `return fv_fail(...)`. */
fv_status fv_fail(fv_error *err, fv_status status, uint64_t at, const char *format, ...)
    FV_PRINTF(4, 5);

/* FV_ERR_MEMORY with the number of bytes asked for and what for. */
fv_status fv_fail_memory(fv_error *err, size_t n_bytes, const char *what);

#define FV_TRY(call)                       \
    do {                                   \
        fv_status fv_try_status_ = (call); \
        if (fv_try_status_ != FV_OK)       \
            return fv_try_status_;         \
    } while (0)

/* The same for functions with a `fail:` label and a `status` variable. */
#define FV_TRY_GOTO(call)               \
    do {                                \
        if ((status = (call)) != FV_OK) \
            goto fail;                  \
    } while (0)

/* ---- mem.c ------------------------------------------------------------------------------- */

/* NULL when the product overflows or memory is out; count or size 0 gives a valid block.
 * Blocks of fv_alloc are 64-byte aligned; all are released with fv_free. */
void *fv_alloc(size_t count, size_t size) FV_MUST_CHECK;
void *fv_alloc_zero(size_t count, size_t size) FV_MUST_CHECK;
/* Grows a block of fv_alloc from old_count to count elements; the old block stays valid on
 * failure. */
void *fv_grow(void *block, size_t old_count, size_t count, size_t size) FV_MUST_CHECK;
void fv_free(void *block);
char *fv_strdup(const char *text) FV_MUST_CHECK;

/* Large blocks straight from the system with huge pages where there are any; zeroed. */
void *fv_pages_alloc(size_t n_bytes) FV_MUST_CHECK;
void fv_pages_free(void *block, size_t n_bytes);

/* For tests: allocations asked for and still held, in this process; after n_calls more calls all
 * fail, until called again (UINT64_MAX: never fail). */
uint64_t fv_mem_taken(void);
int64_t fv_mem_live(void);
void fv_mem_fail_after(uint64_t n_calls);
void fv_mem_fail_once(uint64_t n_calls); /* only the call behind them fails */

/* Bytes that this thread has taken less those that it has given back, blocks and pages, as the
 * allocator rounds them. The difference over a call is what the call keeps. */
int64_t fv_mem_thread_bytes(void);

/* An arena that measures and carves with the same code: with base == NULL fv_arena_take
 * only counts; allocate `used` bytes, set base and capacity, and run the same calls again. */
typedef struct fv_arena {
    uint8_t *base;
    size_t capacity, used;
    bool overflow; /* a product overflowed while measuring */
} fv_arena;
void *fv_arena_take(fv_arena *arena, size_t count, size_t size); /* 64-byte aligned */

/* ---- map.c ------------------------------------------------------------------------------- */

/* A file, or a part of one, mapped read-only. An empty file gives data == NULL, size 0. */
typedef struct fv_map {
    const uint8_t *data;
    size_t size;
    size_t skip; /* bytes that are mapped in front of data, so that a page begins there */
} fv_map;

fv_status fv_map_open(fv_map *map, const char *path, fv_error *err);
/* n_bytes from offset on, any offset; 0: to the end of the file. fd may be closed afterwards. name
 * is what messages call it. */
fv_status fv_map_open_fd(fv_map *map, int fd, uint64_t offset, uint64_t n_bytes, const char *name,
                         fv_error *err);
void fv_map_close(fv_map *map);
/* Reads ahead (will_need) or gives the pages of a range back to the system. Hints only. */
void fv_map_advise(const fv_map *map, size_t offset, size_t n_bytes, bool will_need);

/* Pages of any memory that is there: read, so that the next access waits for no disk; kept in
 * memory until fv_pages_unlock or their unmapping. Locking fails with FV_ERR_LIMIT where the system
 * refuses. */
void fv_pages_touch(const void *data, size_t n_bytes);
fv_status fv_pages_lock(const void *data, size_t n_bytes, fv_error *err);
void fv_pages_unlock(const void *data, size_t n_bytes);

/* Reads a whole file, or what a pipe gives, into memory with a NUL after the last byte.
 * FV_ERR_LIMIT when there are more than max_bytes, of which no more than one is read; devices are
 * FV_ERR_IO. */
fv_status fv_read_file(uint8_t **data, size_t *n_bytes, const char *path, size_t max_bytes,
                       fv_error *err);

/* "dir/name" in a block to fv_free; NULL when memory is out. */
char *fv_path_join(const char *dir, const char *name) FV_MUST_CHECK;
bool fv_is_dir(const char *path);
bool fv_is_file(const char *path);
/* Whether the name is there, be it as a directory or a dangling link, but not as a pipe or device:
 * for files that may be missing, so that opening one that cannot be read says so. */
bool fv_is_there(const char *path);
/* FV_ERR_IO with the reason when path leads to no file because it is an address or a dangling link;
 * FV_OK otherwise. */
fv_status fv_path_check(const char *path, fv_error *err);
/* FV_OK when path is a file that can be opened; otherwise as opening it fails. */
fv_status fv_file_check(const char *path, fv_error *err);

/* ---- clock.c ----------------------------------------------------------------------------- */

double fv_now_ms(void); /* monotonic */

/* ---- cpu.c ------------------------------------------------------------------------------- */

enum {
    /* x86-64 */
    FV_CPU_AVX2 = 1u << 0,   /* AVX2, FMA, F16C */
    FV_CPU_AVX512 = 1u << 1, /* F, BW, VL, DQ */
    FV_CPU_AVX512BF16 = 1u << 2,
    FV_CPU_AVX512VNNI = 1u << 3,
    FV_CPU_AVXVNNI = 1u << 4,
    FV_CPU_AMX = 1u << 5, /* tiles, of bf16 and of bytes; AVX512BF16 and AVX512VNNI come with it */
    /* AArch64 */
    FV_CPU_NEON = 1u << 8,
    FV_CPU_DOTPROD = 1u << 9,
    FV_CPU_FP16 = 1u << 10, /* half-precision arithmetic and FMLAL */
    FV_CPU_BF16 = 1u << 11, /* BFDOT, BFMMLA */
    FV_CPU_I8MM = 1u << 12
};

/* What this processor and system offer. Asks the system for the use of AMX where there is any;
 * fv_cpu_level does not when FV_CPU names a lower level. */
unsigned fv_cpu_detect(void);
/* detect() lowered by the environment's FV_CPU ("ref", "avx2", "avx512", "avx512bf16",
 * "neon", ...): a name means that level and those below it. A name that is no level of this
 * build, which is ignored, or one that this processor lacks, is reported through *missing (may be
 * NULL). */
unsigned fv_cpu_level(const char **missing);
/* Name of the highest level in flags: "ref", "avx2", ... */
const char *fv_cpu_name(unsigned flags);
/* Who made it, and which: "GenuineIntel", 6, 207. False where there is no CPUID. */
typedef struct fv_cpu_id {
    char vendor[13];
    unsigned family, model;
} fv_cpu_id;
bool fv_cpu_identify(fv_cpu_id *id);
int fv_cpu_cores(void); /* physical cores this process may run on, at least 1 */
/* cgroup.c: what a container may have; 0: no limit. root is "" but in tests, whose file systems
 * stand elsewhere. */
typedef struct fv_cgroup {
    int cpus; /* that its quota pays for, rounded up */
    uint64_t memory_bytes, memory_left;
} fv_cgroup;
fv_cgroup fv_cgroup_limits(const char *root);
/* The machine's memory, or what a container may have of it; 0: not known. */
typedef struct fv_memory_limits {
    uint64_t total_bytes, available_bytes;
    bool limited; /* by a container */
} fv_memory_limits;
fv_memory_limits fv_memory_of_process(const char *root);
/* Whether the calling thread may run on this processor, and may be held to one (Linux). */
bool fv_cpu_is_allowed(int cpu);
bool fv_cpu_can_pin(void);
/* Holds the calling thread to one processor; false when the system refuses. */
bool fv_cpu_pin(int cpu);

/* ---- pool.c ------------------------------------------------------------------------------ */

/* fv_threads, of fastvlm.h: threads that any number of callers share; counted references. What a
 * caller holds: the threads, and how many of them, itself included, may work on a call. */
typedef struct fv_pool {
    fv_threads *threads;
    unsigned limit; /* at least 1 */
} fv_pool;

typedef void fv_task_fn(void *user, size_t task, unsigned worker);

fv_threads *fv_threads_ref(fv_threads *threads); /* fv_threads_free gives it up */
/* For tests: workers spin between jobs though there may be more of them than cores. */
void fv_threads_spin(fv_threads *threads);

/* A pool with threads of its own, or a share in those of others, which it refers to. After fork the
 * child may only free what it inherited. */
fv_status fv_pool_new(fv_pool **out, int n_threads, fv_error *err);
fv_status fv_pool_share(fv_pool **out, fv_threads *threads, fv_error *err);
void fv_pool_free(fv_pool *pool);
/* The same threads, of which a call uses at most n_threads (0: as many as before). Borrowed: valid
 * as long as pool is, never freed. */
fv_pool fv_pool_limit(const fv_pool *pool, int n_threads);

/* Calls fn(user, task, worker) for every task in [0, n_tasks), worker in [0, fv_pool_threads), each
 * worker number used by one thread at a time within this call. The caller works too, as worker 0.
 * Any number of threads may be inside at once: k of them get about 1 / k of the threads each. A
 * task may call fv_pool_run itself; its tasks have worker numbers of their own. */
void fv_pool_run(const fv_pool *pool, size_t n_tasks, fv_task_fn *fn, void *user);
unsigned fv_pool_threads(const fv_pool *pool);

/* ---- half.h has the f16 and bf16 conversions --------------------------------------------- */

#endif
