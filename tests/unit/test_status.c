/* base/status.c */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

static void test_names(void **state)
{
    (void)state;
    const char *names[] = { "ok",     "argument", "io",        "format", "unsupported",
                            "memory", "limit",    "cancelled", "state" };
    for (int i = 0; i <= FV_ERR_STATE; i++)
        assert_string_equal(fv_status_name((fv_status)i), names[i]);
    assert_string_equal(fv_status_name((fv_status)99), "unknown");
    assert_string_equal(fv_version(), FV_VERSION);
}

static void test_fail_fills_all(void **state)
{
    (void)state;
    fv_error err;
    assert_int_equal(fv_fail(&err, FV_ERR_FORMAT, 123, "%s: %d of %d", "file", 1, 2),
                     FV_ERR_FORMAT);
    assert_int_equal(err.status, FV_ERR_FORMAT);
    assert_int_equal(err.at, 123);
    assert_string_equal(err.message, "file: 1 of 2");
    assert_int_equal(fv_fail(NULL, FV_ERR_IO, 0, "nobody listens"), FV_ERR_IO);
    assert_int_equal(fv_fail_memory(&err, 77, "cache"), FV_ERR_MEMORY);
    assert_non_null(strstr(err.message, "cache needs 77 bytes"));
}

static void test_message_is_one_line(void **state)
{
    (void)state;
    fv_error err;
    fv_fail(&err, FV_ERR_IO, 0, "%s", "a\nb\x1b[31mc\td\x7f");
    assert_string_equal(err.message, "a?b?[31mc?d?");
}

/* Names come from files: a message is UTF-8 whatever they hold. */
static void test_message_is_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *name, *shown;
    } cases[] = {
        { "plain", "plain" },
        { "\xc3\xa4 \xe4\xbd\xa0 \xf0\x9f\x90\x88", "\xc3\xa4 \xe4\xbd\xa0 \xf0\x9f\x90\x88" },
        { "\xff\xfe", "??" },
        { "mod\xe9l", "mod?l" },               /* Latin-1 */
        { "a\x80\xbf", "a??" },                /* continuations of nothing */
        { "\xc3(", "?(" },                     /* begun and not continued */
        { "\xe4\xbd", "??" },                  /* ended */
        { "\xc0\xaf \xe0\x80\xaf", "?? ???" }, /* longer than need be */
        { "\xed\xa0\x80", "???" },             /* a surrogate */
        { "\xf4\x90\x80\x80 \xf5", "???? ?" }, /* past the last character */
        { "\xc2\x9b"
          "31m",
          "??31m" }, /* a control sequence of one character */
        { "\xc2\xa0\xef\xbf\xbf", "\xc2\xa0\xef\xbf\xbf" },
    };
    fv_error err;
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_fail(&err, FV_ERR_IO, 0, "%s: no", cases[i].name);
        char want[64];
        snprintf(want, sizeof want, "%s: no", cases[i].shown);
        assert_string_equal(err.message, want);
    }
}

/* A long message is cut between characters: 2-, 3- and 4-byte ones at every offset. */
static void test_cut_keeps_utf8_whole(void **state)
{
    (void)state;
    static const char *characters[] = { "\xc3\xa4", "\xe4\xbd\xa0", "\xf0\x9f\x90\x88" };
    fv_error err;

    for (size_t c = 0; c < FV_COUNT(characters); c++) {
        size_t length = strlen(characters[c]);
        for (size_t lead = 0; lead < 8; lead++) {
            char text[1024] = { 0 };
            memset(text, 'x', lead);
            for (size_t at = lead; at + length < sizeof text; at += length)
                memcpy(text + at, characters[c], length);
            fv_fail(&err, FV_ERR_IO, 0, "%s", text);
            size_t n = strlen(err.message);
            assert_true(n < sizeof err.message && n + length >= sizeof err.message);
            assert_int_equal((n - lead) % length, 0);
            assert_memory_equal(err.message, text, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_fail_fills_all),
        cmocka_unit_test(test_message_is_one_line),
        cmocka_unit_test(test_message_is_utf8),
        cmocka_unit_test(test_cut_keeps_utf8_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
