/* io/json_scan.c against jansson: the same texts are JSON, the same strings come out. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "io/json_scan.h"

static char unescaped[4096];

static fv_scan begin(const char *text)
{
    fv_scan s;

    fv_scan_begin(&s, text, strlen(text), unescaped, "text");
    return s;
}

static bool is_json(const char *text)
{
    fv_scan s = begin(text);

    return fv_scan_skip(&s, NULL) == FV_OK && fv_scan_end(&s, NULL) == FV_OK;
}

/* Random texts from the pieces of JSON: mostly wrong, many nearly right. jansson refuses more only
 * in numbers (range), NUL and halves of surrogate pairs; none of them occurs (the exponents are
 * negative). test_json.c compares with Python. */
static void test_the_same_texts_are_json(void **state)
{
    (void)state;
    static const char *const pieces[] = { "{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"a\"",
                                          "\"b\"",
                                          "\"\\n\"",
                                          "\"\\u00e9\"",
                                          "\"\\ud83d\\ude00\"",
                                          "\"\\x\"",
                                          "\"",
                                          "1",
                                          "-0",
                                          "01",
                                          "1.5",
                                          "1.",
                                          ".5",
                                          "1e-3",
                                          "1e-",
                                          "-",
                                          "true",
                                          "false",
                                          "null",
                                          "nul",
                                          " ",
                                          "\n",
                                          "\t",
                                          "\v",
                                          "0" };
    uint64_t seed = 3;
    size_t n_good = 0;

    for (int round = 0; round < 300000; round++) {
        char text[128];
        size_t n = 0;
        int depth = 0;
        for (int i = 0; i < 12; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            uint32_t r = (uint32_t)(seed >> 33);
            const char *piece = pieces[r % FV_COUNT(pieces)];
            if (r % 5 == 0) /* make right ones less rare */
                piece = depth ? "]" : "[";
            else if (r % 5 == 1)
                piece = depth ? ",1" : "[1";
            depth += piece[0] == '[' ? 1 : piece[0] == ']' ? -1 : 0;
            n += (size_t)sprintf(text + n, "%s", piece);
            if (depth == 0 && r % 3 == 0)
                break;
        }
        json_t *want = json_loads(text, JSON_DECODE_ANY, NULL);
        if (is_json(text) != (want != NULL))
            fail_msg("\"%s\": jansson says %s", text, want ? "yes" : "no");
        n_good += want != NULL;
        json_decref(want);
    }
    assert_true(n_good > 5000);
}

static void test_strings(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\"\"",
        "\"plain\"",
        "\"a\\\"b\"",
        "\"\\\\\"",
        "\"\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0041\\u00e9\\u65e5\\ud83d\\ude00z\"",
        "\"\\u007f\\u0080\\u07ff\\u0800\\uffff\\udbff\\udfff\"",
        "\"x\\ny\\nz\"",
        "\"\xc3\xa9\\n\xe6\x97\xa5\"",
    };

    for (size_t i = 0; i < FV_COUNT(texts); i++) {
        fv_scan s = begin(texts[i]);
        const char *text;
        size_t n;
        json_t *want = json_loads(texts[i], JSON_DECODE_ANY, NULL);
        assert_non_null(want);
        assert_int_equal(fv_scan_string(&s, &text, &n, NULL), FV_OK);
        assert_int_equal(fv_scan_end(&s, NULL), FV_OK);
        assert_int_equal(n, json_string_length(want));
        assert_memory_equal(text, json_string_value(want), n);
        if (!strchr(texts[i], '\\'))
            assert_ptr_equal(text, texts[i] + 1); /* no copy */
        json_decref(want);
    }
}

static void test_walk(void **state)
{
    (void)state;
    fv_scan s = begin(" { \"a\" : 12 , \"b\\n\":-3, \"c\": [true, false] } ");
    const char *key;
    size_t n;
    bool first, more, b;
    int64_t i;

    assert_int_equal(fv_scan_open(&s, '{', &first, NULL), FV_OK);
    assert_int_equal(fv_scan_more(&s, '}', &first, &more, NULL), FV_OK);
    assert_true(more);
    assert_int_equal(fv_scan_key(&s, &key, &n, NULL), FV_OK);
    assert_memory_equal(key, "a", n);
    assert_int_equal(fv_scan_int(&s, 0, 99, &i, NULL), FV_OK);
    assert_int_equal(i, 12);
    assert_int_equal(fv_scan_more(&s, '}', &first, &more, NULL), FV_OK);
    assert_int_equal(fv_scan_key(&s, &key, &n, NULL), FV_OK);
    assert_memory_equal(key, "b\n", n);
    assert_int_equal(fv_scan_int(&s, -5, 99, &i, NULL), FV_OK);
    assert_int_equal(i, -3);
    assert_int_equal(fv_scan_more(&s, '}', &first, &more, NULL), FV_OK);
    assert_int_equal(fv_scan_key(&s, &key, &n, NULL), FV_OK);
    assert_int_equal(fv_scan_open(&s, '[', &first, NULL), FV_OK);
    assert_int_equal(fv_scan_more(&s, ']', &first, &more, NULL), FV_OK);
    assert_int_equal(fv_scan_bool(&s, &b, NULL), FV_OK);
    assert_true(b);
    assert_int_equal(fv_scan_more(&s, ']', &first, &more, NULL), FV_OK);
    assert_int_equal(fv_scan_bool(&s, &b, NULL), FV_OK);
    assert_false(b);
    assert_int_equal(fv_scan_more(&s, ']', &first, &more, NULL), FV_OK);
    assert_false(more);
    first = false;
    assert_int_equal(fv_scan_more(&s, '}', &first, &more, NULL), FV_OK);
    assert_false(more);
    assert_int_equal(fv_scan_end(&s, NULL), FV_OK);
}

static void check_int(const char *text, const char *message)
{
    fv_scan s = begin(text);
    fv_error err = { 0 };
    int64_t i;

    assert_int_equal(fv_scan_int(&s, INT64_MIN, INT64_MAX, &i, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, message);
}

static void test_hostile_numbers(void **state)
{
    (void)state;
    fv_scan s = begin("922337203685477579");
    int64_t i;

    assert_int_equal(fv_scan_int(&s, INT64_MIN, INT64_MAX, &i, NULL), FV_OK);
    assert_int_equal(i, 922337203685477579);
    check_int("9223372036854775808", "text: byte 0: expected an integer in [-9223372036854775808, "
                                     "9223372036854775807], found 9223372036854775808");
    check_int(" 123456789012345678901234567890123456789012345678901234567890",
              "text: byte 1: expected an integer in [-9223372036854775808, 9223372036854775807], "
              "found 1234567890123456789012345678901234567890");
    check_int("-", "text: the text ends at byte 1, expected an integer");
    check_int("--1", "text: byte 1: expected an integer, found '-'");
    check_int("007", "text: byte 0: a number starts with 0");
    check_int("7.0", "text: byte 0: expected an integer, found a real number");
    check_int("7E1", "text: byte 0: expected an integer, found a real number");
    check_int("\x01", "text: byte 0: expected an integer, found byte 0x01");
}

static void test_empty(void **state)
{
    (void)state;
    fv_scan s;
    fv_error err;

    fv_scan_begin(&s, NULL, 0, unescaped, "text");
    assert_int_equal(fv_scan_peek(&s), 0);
    assert_int_equal(fv_scan_skip(&s, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "text: the text ends at byte 0, expected a value");
    assert_int_equal(fv_scan_end(&s, NULL), FV_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_texts_are_json),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_hostile_numbers),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
