/* base/mem.c, base/region.c, base/list.c */
#include "support/cm.h"

#include <string.h>

#include "base/list.h"
#include "base/region.h"

static void test_blocks_are_aligned(void **state)
{
    (void)state;
    for (size_t n = 0; n < 300; n++) {
        uint8_t *block = fv_alloc_zero(n, 1);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(block[i], 0);
        fv_free(block);
    }
    fv_free(NULL);
}

static void test_products_must_fit(void **state)
{
    (void)state;
    assert_null(fv_alloc(SIZE_MAX / 2, 3));
    assert_null(fv_alloc_zero(SIZE_MAX, 2));
    char *block = fv_strdup("kept");
    assert_null(fv_grow(block, 5, SIZE_MAX / 4, 8));
    assert_string_equal(block, "kept");
    fv_free(block);
    assert_null(fv_pages_alloc(SIZE_MAX));
}

static void test_grow_copies(void **state)
{
    (void)state;
    uint32_t *list = NULL;
    for (uint32_t n = 0; n < 100; n++) {
        list = fv_grow(list, n, n + 1, sizeof *list);
        assert_non_null(list);
        list[n] = n * n;
    }
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(list[i], i * i);
    list = fv_grow(list, 100, 10, sizeof *list); /* shrinking is growing too */
    assert_int_equal(list[9], 81);
    fv_free(list);
}

static void test_pages(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        0, 1, 4096, 4097, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 9u << 20
    };
    for (size_t i = 0; i < FV_COUNT(sizes); i++) {
        uint8_t *block = fv_pages_alloc(sizes[i]);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 4096, 0);
        if (sizes[i] >= 2u << 20)
            assert_int_equal((uintptr_t)block % (2u << 20), 0);
        for (size_t at = 0; at < sizes[i]; at += 4096)
            assert_int_equal(block[at], 0);
        memset(block, 1, sizes[i]);
        fv_pages_free(block, sizes[i]);
    }
    fv_pages_free(NULL, 1);
}

static void carve(fv_arena *arena, float **a, double **b, char **c)
{
    *a = fv_arena_take(arena, 3, sizeof **a);
    *b = fv_arena_take(arena, 17, sizeof **b);
    *c = fv_arena_take(arena, 0, 1);
}

static void test_arena_measures_and_carves(void **state)
{
    (void)state;
    fv_arena arena = { 0 };
    float *a;
    double *b;
    char *c;

    carve(&arena, &a, &b, &c);
    assert_null(a);
    assert_int_equal(arena.used, 64 + 192);
    arena = (fv_arena){ .base = fv_alloc(arena.used, 1), .capacity = arena.used };
    carve(&arena, &a, &b, &c);
    assert_false(arena.overflow);
    assert_ptr_equal(a, arena.base);
    assert_ptr_equal(b, arena.base + 64);
    assert_null(fv_arena_take(&arena, 1, 1)); /* full */
    assert_true(arena.overflow);
    fv_free(arena.base);

    arena = (fv_arena){ 0 };
    assert_null(fv_arena_take(&arena, SIZE_MAX / 2, 4));
    assert_true(arena.overflow);
    arena = (fv_arena){ 0 };
    fv_arena_take(&arena, SIZE_MAX - 200, 1);
    fv_arena_take(&arena, 300, 1);
    assert_true(arena.overflow);
}

static void test_allocations_can_fail(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    uint64_t taken = fv_mem_taken();
    void *first = fv_alloc(1, 1);
    assert_int_equal(fv_mem_taken(), taken + 1);
    assert_int_equal(fv_mem_live(), live + 1);

    fv_mem_fail_after(1);
    void *second = fv_alloc(1, 1);
    assert_non_null(second);
    assert_null(fv_alloc(1, 1));
    assert_null(fv_pages_alloc(1));
    assert_null(fv_strdup("x"));
    fv_mem_fail_after(UINT64_MAX);
    void *third = fv_alloc(1, 1);
    assert_non_null(third);
    fv_free(first);
    fv_free(second);
    fv_free(third);
    assert_int_equal(fv_mem_live(), live);
}

static FV_PRINTF(2, 3) char *text_in(fv_region *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = fv_region_text(r, format, args);
    va_end(args);
    return text;
}

static void test_region(void **state)
{
    (void)state;
    fv_region r = { 0 };
    int64_t live = fv_mem_live();
    uint8_t *piece[200];
    for (size_t i = 0; i < 200; i++) { /* small ones, and some larger than a block of the region */
        size_t n = i % 50 == 49 ? 100000 : i * 7;
        piece[i] = fv_region_take(&r, n, 1);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % 16, 0);
        for (size_t j = 0; j < n; j++)
            assert_int_equal(piece[i][j], 0);
        memset(piece[i], 0xff, n);
    }
    char *text = text_in(&r, "%0*d", 70000, 5);
    assert_int_equal(strlen(text), 70000);
    assert_string_equal(text_in(&r, "layer %d", 3), "layer 3");
    fv_mem_fail_after(0);
    assert_null(fv_region_take(&r, 1 << 17, 1));
    fv_mem_fail_after(UINT64_MAX);
    fv_region_free(&r);
    assert_int_equal(fv_mem_live(), live);
    assert_non_null(fv_region_take(&r, 1, 1)); /* empty, ready again */
    fv_region_free(&r);
}

static void test_list(void **state)
{
    (void)state;
    uint64_t *list = NULL, taken = fv_mem_taken();
    size_t n = 0, capacity = 0;
    fv_error err = { 0 };
    for (; n < 100000; list[n] = n * n, n++)
        assert_int_equal(FV_LIST_ROOM(list, n, capacity, 1, &err), FV_OK);
    assert_true(fv_mem_taken() - taken < 20); /* by doubling */
    for (size_t i = 0; i < n; i++)
        assert_int_equal(list[i], i * i);
    assert_int_equal(FV_LIST_ROOM(list, n, capacity, 1000000, &err), FV_OK); /* many at once */
    assert_true(capacity >= n + 1000000);
    size_t before = capacity;
    assert_int_equal(FV_LIST_ROOM(list, n, capacity, 0, &err), FV_OK);
    assert_int_equal(capacity, before);
    assert_int_equal(FV_LIST_ROOM(list, n, capacity, SIZE_MAX, &err), FV_ERR_MEMORY);
    assert_int_equal(FV_LIST_ROOM(list, n, capacity, SIZE_MAX / 8, &err), FV_ERR_MEMORY);
    fv_mem_fail_after(0);
    assert_int_equal(FV_LIST_ROOM(list, n, capacity, capacity, &err), FV_ERR_MEMORY);
    fv_mem_fail_after(UINT64_MAX);
    assert_true(capacity == before && list[n - 1] == (n - 1) * (n - 1)); /* as it was */
    fv_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_aligned),
        cmocka_unit_test(test_products_must_fit),
        cmocka_unit_test(test_grow_copies),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_arena_measures_and_carves),
        cmocka_unit_test(test_allocations_can_fail),
        cmocka_unit_test(test_region),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
