/* base/utf8_text.c: validation of every sequence; text/utf8.c: streams cut in every way. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "support/not_text.h"
#include "text/utf8.h"

/* ---- validation ---- */

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000 + 0x1000; c++) {
        char text[4];
        size_t n, bad_at = 9;
        if (c < 0x80) {
            n = 1;
            text[0] = (char)c;
        } else if (c < 0x800) {
            n = 2;
            text[0] = (char)(0xc0 | c >> 6);
        } else if (c < 0x10000) {
            n = 3;
            text[0] = (char)(0xe0 | c >> 12);
        } else {
            n = 4;
            text[0] = (char)(0xf0 | c >> 18);
        }
        for (size_t i = 1; i < n; i++)
            text[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 63));
        bool good = c < 0x110000 && (c < 0xd800 || c >= 0xe000);
        assert_int_equal(fv_utf8_valid(text, n, &bad_at), good);
        if (!good)
            assert_int_equal(bad_at, 0);
        for (size_t cut = 1; cut < n; cut++) /* a truncated one never is */
            assert_false(fv_utf8_valid(text, cut, NULL));
    }
}

static void test_position_of_the_first_bad_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n, bad_at;
    } cases[] = {
        { "\x80", 1, 0 },
        { "abc\xff", 4, 3 },
        { "abcdefgh\xc3(", 10, 8 },
        { "abcdefghijklmnop\xe4\xb8", 18, 16 },
        { "\xc3\xa9\xc3", 3, 2 },
        { "\xc0\x80", 2, 0 },         /* overlong NUL */
        { "a\xe0\x80\xaf", 4, 1 },    /* overlong */
        { "a\xed\xa0\x80", 4, 1 },    /* surrogate */
        { "\xf4\x90\x80\x80", 4, 0 }, /* past U+10FFFF */
        { "\xf0\x9f\x98\x80\xf5", 5, 4 },
        { "1234567\xe4\xb8\xad"
          "12345678\xfe",
          19, 18 },
    };

    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        size_t bad_at = 99;
        assert_false(fv_utf8_valid(cases[i].text, cases[i].n, &bad_at));
        assert_int_equal(bad_at, cases[i].bad_at);
    }
    assert_true(fv_utf8_valid("", 0, NULL));
    assert_true(fv_utf8_valid("12345678\0abc", 12, NULL));
}

/* ---- streams ---- */

static uint64_t seed = 7;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* All text of bytes cut at random; every piece must be complete UTF-8. */
static char *run(fv_stream *s, const char *bytes, size_t n, size_t largest, bool *stopped)
{
    char *all = calloc(1, n * 3 + 16);
    size_t used = 0, at = 0, n_text;
    const char *text;

    fv_stream_reset(s);
    *stopped = false;
    while (at < n && !*stopped) {
        size_t piece = 1 + rnd((uint32_t)largest);
        piece = FV_MIN(piece, n - at);
        *stopped = fv_stream_push(s, bytes + at, piece, &text, &n_text);
        assert_true(fv_utf8_valid(text, n_text, NULL));
        memcpy(all + used, text, n_text);
        used += n_text;
        at += piece;
    }
    if (fv_stream_finish(s, &text, &n_text))
        *stopped = true;
    assert_true(fv_utf8_valid(text, n_text, NULL));
    memcpy(all + used, text, n_text);
    return all;
}

#define R "\xef\xbf\xbd"

/* Expectations are Python's bytes.decode("utf-8", "replace"). */
static void test_replacement_is_pythons(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        { "plain", "plain" },
        { "caf\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80",
          "caf\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80" },
        { "a\x80z", "a" R "z" },
        { "\x80\xbf", R R },
        { "\xc3", R },
        { "\xc3(", R "(" },
        { "\xc0\xaf", R R },
        { "\xe4\xb8", R },
        { "\xe4\xb8x", R "x" },
        { "\xe4x", R "x" },
        { "\xe0\x80\x80", R R R },
        { "\xed\xa0\x80", R R R },
        { "\xf0\x9f\x98", R },
        { "\xf0\x9f\x98x", R "x" },
        { "\xf0\x9f\xf0\x9f\x98\x80", R "\xf0\x9f\x98\x80" },
        { "\xf0\x80\x80\x80", R R R R },
        { "\xf4\x90\x80\x80", R R R R },
        { "\xf5\xff\xfe", R R R },
        { "\xe4\xb8\xe4\xb8\xad\xe4", R "\xe4\xb8\xad" R },
    };
    fv_stream *s;

    assert_int_equal(fv_stream_new(&s, 16, NULL, 0, NULL), FV_OK);
    for (size_t i = 0; i < FV_COUNT(cases); i++)
        for (size_t largest = 1; largest <= 16; largest++) {
            bool stopped;
            char *got = run(s, cases[i].bytes, strlen(cases[i].bytes), largest, &stopped);
            assert_string_equal(got, cases[i].want);
            assert_false(stopped);
            free(got);
        }
    fv_stream_free(s);
}

/* Text comes as soon as it is certain, not later. */
static void test_bytes_made_text(void **state)
{
    (void)state;
    char text[64];
    for (size_t i = 0; i < FV_COUNT(not_text); i++) {
        size_t n = fv_utf8_replace(text, not_text[i].bytes, strlen(not_text[i].bytes));
        assert_int_equal(n, strlen(not_text[i].text));
        assert_memory_equal(text, not_text[i].text, n);
    }
    assert_int_equal(fv_utf8_replace(text, "a\0b", 3), 5); /* a NUL is no text either */
    assert_memory_equal(text, "a" FV_UTF8_REPLACEMENT "b", 5);
}

static void test_nothing_certain_is_held_back(void **state)
{
    (void)state;
    const char *stop[] = { "END", "\n\n" }, *text;
    fv_stream *s;
    size_t n;

    assert_int_equal(fv_stream_new(&s, 8, stop, 2, NULL), FV_OK);
    assert_false(fv_stream_push(s, "abc", 3, &text, &n));
    assert_int_equal(n, 3);
    assert_false(fv_stream_push(s, "xE", 2, &text, &n));
    assert_int_equal(n, 1);
    assert_false(fv_stream_push(s, "N", 1, &text, &n));
    assert_int_equal(n, 0);
    /* "ENN" is no stop string: all of it comes */
    assert_false(fv_stream_push(s, "N", 1, &text, &n));
    assert_int_equal(n, 3);
    assert_memory_equal(text, "ENN", 3);
    assert_false(fv_stream_push(s, "\xc3", 1, &text, &n));
    assert_int_equal(n, 0);
    assert_false(fv_stream_push(s, "\xa9\n", 2, &text, &n));
    assert_int_equal(n, 2);
    assert_true(fv_stream_push(s, "\nrest", 5, &text, &n));
    assert_int_equal(n, 0);
    assert_true(fv_stream_push(s, "more", 4, &text, &n));
    assert_int_equal(n, 0);
    assert_true(fv_stream_finish(s, &text, &n));
    assert_int_equal(n, 0);
    fv_stream_reset(s);
    assert_false(fv_stream_push(s, "E", 1, &text, &n));
    assert_int_equal(n, 0);
    /* the beginning of a stop string is text after all */
    assert_false(fv_stream_finish(s, &text, &n));
    assert_int_equal(n, 1);
    fv_stream_free(s);
}

/* The stream against the definition: the first place where a stop string ends, the longest
 * there. */
static void test_stop_strings_against_the_definition(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char strings[3][8], bytes[64] = "", want[80];
        const char *stop[3] = { strings[0], strings[1], strings[2] };
        size_t n_stop = 1 + rnd(3), n = rnd(40), cut = SIZE_MAX, length = 0;
        bool stopped;
        fv_stream *s;

        for (size_t i = 0; i < n_stop; i++) {
            size_t k = 1 + rnd(5);
            for (size_t j = 0; j < k; j++)
                strings[i][j] = (char)('a' + rnd(2));
            strings[i][k] = '\0';
        }
        for (size_t i = 0; i < n; i++)
            bytes[i] = (char)('a' + rnd(2));
        for (size_t end = 1; end <= n && cut == SIZE_MAX; end++)
            for (size_t i = 0; i < n_stop; i++) {
                size_t k = strlen(stop[i]);
                if (k <= end && k > length && memcmp(bytes + end - k, stop[i], k) == 0) {
                    length = k;
                    cut = end - k;
                }
            }
        snprintf(want, sizeof want, "%.*s", (int)FV_MIN(cut, n), bytes);
        assert_int_equal(fv_stream_new(&s, 9, stop, n_stop, NULL), FV_OK);
        char *got = run(s, bytes, n, 1 + rnd(9), &stopped);
        assert_string_equal(got, want);
        assert_int_equal(stopped, cut != SIZE_MAX);
        free(got);
        fv_stream_free(s);
    }
}

/* However the bytes are cut, the text is the same. */
static void test_cuts_do_not_matter(void **state)
{
    (void)state;
    static const char *const units[] = { "a",    "E",        "EN",       "END",      "\xc3",
                                         "\xa9", "\xe6\x97", "\xa5",     "\xf0\x9f", "\x98\x80",
                                         "\xff", "\n",       "\xc3\xa9", R };
    const char *stop[] = { "END", "\n\n\n", R R, "\xc3\xa9\xc3\xa9" };

    for (int round = 0; round < 5000; round++) {
        char bytes[128];
        size_t n = 0, n_units = rnd(30);
        bool first, second;
        fv_stream *s;
        for (size_t i = 0; i < n_units; i++) {
            const char *unit = units[rnd(FV_COUNT(units))];
            memcpy(bytes + n, unit, strlen(unit));
            n += strlen(unit);
        }
        assert_int_equal(fv_stream_new(&s, 128, stop, FV_COUNT(stop), NULL), FV_OK);
        char *a = run(s, bytes, n, 128, &first), *b = run(s, bytes, n, 1, &second);
        assert_string_equal(a, b);
        assert_int_equal(first, second);
        free(a);
        free(b);
        fv_stream_free(s);
    }
}

static void test_cut_character_completes_a_stop_string(void **state)
{
    (void)state;
    const char *stop[] = { "x" R }, *text;
    fv_stream *s;
    size_t n;

    assert_int_equal(fv_stream_new(&s, 4, stop, 1, NULL), FV_OK);
    assert_false(fv_stream_push(s, "ax\xe4", 3, &text, &n));
    assert_int_equal(n, 1);
    assert_true(fv_stream_finish(s, &text, &n));
    assert_int_equal(n, 0);
    fv_stream_free(s);
}

static void test_bad_stop_strings(void **state)
{
    (void)state;
    const char *empty[] = { "a", "" }, *none[] = { NULL }, *bad[] = { "\xff" };
    fv_stream *s;
    fv_error err;

    assert_int_equal(fv_stream_new(&s, 4, empty, 2, &err), FV_ERR_ARGUMENT);
    assert_string_equal(err.message, "stop string 2 is empty");
    assert_null(s);
    assert_int_equal(fv_stream_new(&s, 4, none, 1, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_stream_new(&s, 4, NULL, 1, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_stream_new(&s, 4, bad, 1, &err), FV_ERR_ARGUMENT);
    assert_string_equal(err.message, "stop string 1 is not valid UTF-8");
    fv_stream_free(NULL);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    const char *stop[] = { "one", "two" };
    int64_t live = fv_mem_live();
    fv_stream *s = NULL;

    for (uint64_t i = 0; !s; i++) {
        fv_mem_fail_after(i);
        fv_status status = fv_stream_new(&s, 8, stop, 2, NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        assert_true(i < 50);
        if (status != FV_OK)
            assert_int_equal(fv_mem_live(), live);
    }
    uint64_t taken = fv_mem_taken();
    const char *text;
    size_t n;
    for (int i = 0; i < 100; i++)
        fv_stream_push(s, "ontwontw", 8, &text, &n);
    assert_int_equal(fv_mem_taken(), taken); /* nothing allocates per token */
    fv_stream_free(s);
    assert_int_equal(fv_mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_position_of_the_first_bad_byte),
        cmocka_unit_test(test_replacement_is_pythons),
        cmocka_unit_test(test_bytes_made_text),
        cmocka_unit_test(test_nothing_certain_is_held_back),
        cmocka_unit_test(test_stop_strings_against_the_definition),
        cmocka_unit_test(test_cuts_do_not_matter),
        cmocka_unit_test(test_cut_character_completes_a_stop_string),
        cmocka_unit_test(test_bad_stop_strings),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
