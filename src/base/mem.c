/* The one door to the system's memory. */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <malloc/malloc.h>
#else
#include <malloc.h>
#endif

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* Counted for tests: decoding must not allocate, and every allocation must be able to fail.
 * Relaxed is enough, the numbers order nothing. */
static _Atomic uint64_t n_taken;
static _Atomic int64_t n_live;
static _Atomic uint64_t fail_at; /* 0: never; otherwise the number of the first call that fails */
static _Atomic bool fail_once;   /* and the only one */

static _Thread_local int64_t thread_bytes;

int64_t fv_mem_thread_bytes(void) { return thread_bytes; }

/* What the allocator gave for a block. */
static int64_t mem_block_bytes(void *block)
{
#if defined(__APPLE__)
    return (int64_t)malloc_size(block);
#else
    return (int64_t)malloc_usable_size(block);
#endif
}

uint64_t fv_mem_taken(void) { return atomic_load_explicit(&n_taken, memory_order_relaxed); }

int64_t fv_mem_live(void) { return atomic_load_explicit(&n_live, memory_order_relaxed); }

void fv_mem_fail_after(uint64_t n_calls)
{
    uint64_t at = n_calls == UINT64_MAX ? 0 : fv_mem_taken() + n_calls + 1;
    atomic_store_explicit(&fail_once, false, memory_order_relaxed);
    atomic_store_explicit(&fail_at, at, memory_order_relaxed);
}

void fv_mem_fail_once(uint64_t n_calls)
{
    fv_mem_fail_after(n_calls);
    atomic_store_explicit(&fail_once, true, memory_order_relaxed);
}

/* False when a test wants this call to fail. */
static bool may_take(void)
{
    uint64_t number = atomic_fetch_add_explicit(&n_taken, 1, memory_order_relaxed) + 1;
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    return at == 0 || number < at ||
           (number > at && atomic_load_explicit(&fail_once, memory_order_relaxed));
}

void *fv_alloc(size_t count, size_t size)
{
    size_t n_bytes;
    void *block;

    if (__builtin_mul_overflow(count, size, &n_bytes) || !may_take())
        return NULL;
    if (n_bytes == 0)
        n_bytes = 1;
    if (posix_memalign(&block, ALIGNMENT, n_bytes) != 0)
        return NULL;
    atomic_fetch_add_explicit(&n_live, 1, memory_order_relaxed);
    thread_bytes += mem_block_bytes(block);
    return block;
}

void *fv_alloc_zero(size_t count, size_t size)
{
    void *block = fv_alloc(count, size);
    if (block)
        memset(block, 0, count * size);
    return block;
}

/* A new block and a copy: realloc would lose the alignment. */
void *fv_grow(void *block, size_t old_count, size_t count, size_t size)
{
    void *grown = fv_alloc(count, size);
    if (!grown)
        return NULL;
    if (block)
        memcpy(grown, block, FV_MIN(old_count, count) * size);
    fv_free(block);
    return grown;
}

void fv_free(void *block)
{
    if (!block)
        return;
    atomic_fetch_sub_explicit(&n_live, 1, memory_order_relaxed);
    thread_bytes -= mem_block_bytes(block);
    free(block);
}

char *fv_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = fv_alloc(n, 1);
    if (copy)
        memcpy(copy, text, n);
    return copy;
}

/* Bytes mapped for n_bytes, 0 when the sum overflows. */
static size_t whole_pages(size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (n_bytes == 0)
        n_bytes = 1;
    if (n_bytes > SIZE_MAX - page - HUGE_PAGE)
        return 0;
    return (n_bytes + page - 1) / page * page;
}

void *fv_pages_alloc(size_t n_bytes)
{
    size_t length = whole_pages(n_bytes);
    if (length == 0 || !may_take())
        return NULL;

    /* The kernel only gives huge pages to blocks that start on one: map more, cut the ends. */
    size_t slack = length >= HUGE_PAGE ? HUGE_PAGE : 0;
    uint8_t *raw = mmap(NULL, length + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    size_t head = slack ? (size_t)(-(uintptr_t)raw % HUGE_PAGE) : 0;
    if (head)
        munmap(raw, head);
    if (slack - head)
        munmap(raw + head + length, slack - head);
#if defined(MADV_HUGEPAGE)
    if (slack)
        madvise(raw + head, length, MADV_HUGEPAGE); /* a hint; refusal costs speed only */
#endif
    atomic_fetch_add_explicit(&n_live, 1, memory_order_relaxed);
    thread_bytes += (int64_t)length;
    return raw + head;
}

void fv_pages_free(void *block, size_t n_bytes)
{
    if (!block)
        return;
    atomic_fetch_sub_explicit(&n_live, 1, memory_order_relaxed);
    thread_bytes -= (int64_t)whole_pages(n_bytes);
    munmap(block, whole_pages(n_bytes));
}

void *fv_arena_take(fv_arena *arena, size_t count, size_t size)
{
    size_t n_bytes, used;

    if (arena->overflow)
        return NULL;
    if (__builtin_mul_overflow(count, size, &n_bytes) || n_bytes > SIZE_MAX - ALIGNMENT ||
        __builtin_add_overflow(arena->used, (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT,
                               &used)) {
        arena->overflow = true;
        return NULL;
    }
    uint8_t *block = NULL;
    if (arena->base) {
        if (used > arena->capacity) {
            arena->overflow = true;
            return NULL;
        }
        block = arena->base + arena->used;
    }
    arena->used = used;
    return block;
}
