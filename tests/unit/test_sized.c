/* Structs that cross the border: sizes smaller and larger than the library's, unknown bytes. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "base/report.h"

typedef struct knobs {
    size_t size;
    int a, b;
} knobs;

/* The same struct as an older and as a newer caller knows it. */
typedef struct older_knobs {
    size_t size;
    int a;
} older_knobs;
typedef struct newer_knobs {
    size_t size;
    int a, b;
    double c;
} newer_knobs;

static fv_error err;

static void test_options(void **state)
{
    knobs k = { .a = 9, .b = 9 };
    (void)state;
    assert_int_equal(FV_OPTIONS_IN(&k, knobs, NULL, &err), FV_OK);
    assert_true(k.size == sizeof k && k.a == 0 && k.b == 0);

    knobs same = { .size = sizeof same, .a = 1, .b = 2 };
    assert_int_equal(FV_OPTIONS_IN(&k, knobs, &same, &err), FV_OK);
    assert_true(k.size == sizeof k && k.a == 1 && k.b == 2);

    /* what stands behind the older struct is not read */
    older_knobs older[2] = { { .size = sizeof(size_t) + sizeof(int), .a = 3 }, { .a = -1 } };
    memset((char *)older + older[0].size, 0x55, sizeof older - older[0].size);
    assert_int_equal(FV_OPTIONS_IN(&k, knobs, older, &err), FV_OK);
    assert_true(k.size == sizeof k && k.a == 3 && k.b == 0);

    newer_knobs newer = { .size = sizeof newer, .a = 4, .b = 5 };
    assert_int_equal(FV_OPTIONS_IN(&k, knobs, &newer, &err), FV_OK);
    assert_true(k.size == sizeof k && k.a == 4 && k.b == 5);
    newer.c = 1;
    assert_int_equal(FV_OPTIONS_IN(&k, knobs, &newer, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "knobs"));
    assert_non_null(strstr(err.message, "does not know"));

    for (size_t size = 0; size < sizeof size; size++) {
        same.size = size;
        assert_int_equal(FV_OPTIONS_IN(&k, knobs, &same, &err), FV_ERR_ARGUMENT);
    }
    assert_non_null(strstr(err.message, "knobs_default"));
}

static void test_results(void **state)
{
    const knobs done = { .a = 1, .b = 2 };
    (void)state;
    knobs same = { .size = sizeof same };
    assert_true(fv_result_out(&same, &done, sizeof done));
    assert_true(same.size == sizeof same && same.a == 1 && same.b == 2);

    char room[sizeof(knobs)];
    size_t size = sizeof(size_t) + sizeof(int);
    memset(room, 0x55, sizeof room);
    memcpy(room, &size, sizeof size);
    assert_true(fv_result_out(room, &done, sizeof done));
    assert_memory_equal(room + sizeof size, &done.a, sizeof done.a);
    assert_int_equal(room[size], 0x55); /* nothing behind the caller's size */

    newer_knobs newer = { .size = sizeof newer, .a = 9, .b = 9, .c = 9 };
    assert_true(fv_result_out(&newer, &done, sizeof done));
    assert_true(newer.size == sizeof newer && newer.a == 1 && newer.b == 2 && newer.c == 0);

    assert_false(fv_result_out(NULL, &done, sizeof done));
    same = (knobs){ .a = 7 };
    assert_false(fv_result_out(&same, &done, sizeof done));
    assert_int_equal(same.a, 7);
    assert_int_equal(FV_RESULT_CHECK(&same, knobs, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "knobs: size is 0"));
    assert_int_equal(FV_RESULT_CHECK(&newer, knobs, &err), FV_OK);
}

static fv_status want(const void *thing)
{
    FV_REQUIRE(thing, &err);
    return FV_OK;
}

static void test_required(void **state)
{
    (void)state;
    assert_int_equal(want(""), FV_OK);
    assert_int_equal(want(NULL), FV_ERR_ARGUMENT);
    assert_string_equal(err.message, "thing is NULL");
}

typedef struct heard {
    char line[80];
    fv_log_level level;
    bool stop;
} heard;

static void hear(void *user, fv_log_level level, const char *message)
{
    heard *h = user;
    h->level = level;
    snprintf(h->line, sizeof h->line, "%s", message);
}

static bool ask(void *user, const char *stage, double done)
{
    heard *h = user;
    snprintf(h->line, sizeof h->line, "%s %g", stage, done);
    return h->stop;
}

static void test_callbacks(void **state)
{
    heard h = { .level = FV_LOG_WARNING };
    fv_callbacks given = { .size = sizeof given, .log = hear, .progress = ask, .user = &h }, copy;
    const fv_callbacks *member = &given;
    (void)state;
    assert_int_equal(fv_callbacks_in(&copy, &member, &err), FV_OK);
    assert_ptr_equal(member, &copy);
    given = (fv_callbacks){ 0 };
    fv_log(member, FV_LOG_INFO, "%d lines", 2);
    assert_string_equal(h.line, "2 lines");
    assert_int_equal(h.level, FV_LOG_INFO);
    assert_int_equal(fv_progress(member, "pack", 0.5, &err), FV_OK);
    assert_string_equal(h.line, "pack 0.5");
    h.stop = true;
    assert_int_equal(fv_progress(member, "pack", 1, &err), FV_ERR_CANCELLED);
    assert_non_null(strstr(err.message, "pack"));

    member = NULL;
    assert_int_equal(fv_callbacks_in(&copy, &member, &err), FV_OK);
    fv_log(member, FV_LOG_INFO, "nobody");
    assert_int_equal(fv_progress(member, "pack", 1, &err), FV_OK);
    fv_log(NULL, FV_LOG_INFO, "nobody");
    assert_int_equal(fv_progress(NULL, "pack", 1, &err), FV_OK);
    member = &given; /* no size */
    assert_int_equal(fv_callbacks_in(&copy, &member, &err), FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "fv_callbacks"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_options),
                                        cmocka_unit_test(test_results),
                                        cmocka_unit_test(test_required),
                                        cmocka_unit_test(test_callbacks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
