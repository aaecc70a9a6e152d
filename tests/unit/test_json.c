/* io/json.c: what Python reads is read, getters, their messages, and what the parser refuses. */
#include "support/cm.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/json.h"

static fv_json *parse(const char *text)
{
    fv_json *doc;
    fv_error err;

    if (fv_json_parse(&doc, text, strlen(text), "config.json", &err) != FV_OK)
        fail_msg("%s", err.message);
    return doc;
}

static void check_refused(const char *text, size_t n, const char *message)
{
    fv_json *doc;
    fv_error err;

    assert_int_equal(fv_json_parse(&doc, text, n, "config.json", &err), FV_ERR_FORMAT);
    assert_null(doc);
    if (message)
        assert_memory_equal(err.message, message, strlen(message));
    assert_true(err.at <= n);
}

static void test_what_the_parser_refuses(void **state)
{
    (void)state;
    check_refused("", 0, "config.json: the file is empty, expected JSON");
    check_refused("{\"a\": 1", 7, NULL);
    check_refused("{\"a\": 1, \"a\": 2}", 16,
                  "config.json: the key \"a\" comes twice in one object");
    check_refused("{\n\"a\": 1,\n}", 11,
                  "config.json: line 3, column 1: expected a string, found '}'");
    check_refused("{\"\xc3\xa9\": 1,\n\"b\" 2}", 16,
                  "config.json: line 2, column 5: expected ':', found '2'");
    check_refused("{\"a\": 1} x", 10,
                  "config.json: line 1, column 10: expected the end of the text, found 'x'");
    check_refused("12", 2,
                  "config.json: line 1, column 1: expected an object or an array, found '1'");
    check_refused("{\"a\": \"\xff\"}", 10,
                  "config.json: byte 7 (0xff) is not UTF-8, which JSON is written in");
    check_refused("{\"a\"\0: 1}", 9,
                  "config.json: line 1, column 5: expected ':', found byte 0x00");
    char deep[5000];
    memset(deep, '[', sizeof deep);
    check_refused(deep, sizeof deep, "config.json: line 1, column 2049: nested deeper than 2048");
    memset(deep + 2048, ']', 2048); /* as deep as it may be */
    fv_json *doc;
    assert_int_equal(fv_json_parse(&doc, deep, 4096, "deep", NULL), FV_OK);
    fv_json_free(doc);
}

/* Texts, and what Python's json makes of {"v": TEXT}: NULL for an error, i and an integer, r and a
 * float in hexadecimal, s and a string, o: a string that no UTF-8 holds, b and a bool, n: None, a
 * or d and a number of members. Recorded from json.loads of Python 3.11.7. */
static const struct python {
    const char *text, *value;
} python[] = {
    { "0", "i0" },
    { "-0", "i0" },
    { "1", "i1" },
    { "-1", "i-1" },
    { "9223372036854775807", "i9223372036854775807" },
    { "-9223372036854775808", "i-9223372036854775808" },
    { "9223372036854775808", "i9223372036854775808" },
    { "-9223372036854775809", "i-9223372036854775809" },
    { "1000000000000000019884624838656", "i1000000000000000019884624838656" },
    { "18446744073709551615", "i18446744073709551615" },
    { "123456789012345678901234567890123456789012345678901234567890",
      "i123456789012345678901234567890123456789012345678901234567890" },
    { "Infinity", "rinf" },
    { "-Infinity", "r-inf" },
    { "NaN", "rnan" },
    { "-NaN", NULL },
    { "nan", NULL },
    { "inf", NULL },
    { "+1", NULL },
    { "01", NULL },
    { "-01", NULL },
    { "1.", NULL },
    { ".5", NULL },
    { "-.5", NULL },
    { "1.5", "r0x1.8000000000000p+0" },
    { "-0.0", "r-0x0.0p+0" },
    { "0.1", "r0x1.999999999999ap-4" },
    { "0.30000000000000004", "r0x1.3333333333334p-2" },
    { "1e5", "r0x1.86a0000000000p+16" },
    { "1E+5", "r0x1.86a0000000000p+16" },
    { "1e-5", "r0x1.4f8b588e368f1p-17" },
    { "1e400", "rinf" },
    { "-1e400", "r-inf" },
    { "1e-400", "r0x0.0p+0" },
    { "2.2250738585072014e-308", "r0x1.0000000000000p-1022" },
    { "5e-324", "r0x0.0000000000001p-1022" },
    { "1.7976931348623157e308", "r0x1.fffffffffffffp+1023" },
    { "0.1e1", "r0x1.0000000000000p+0" },
    { "1e", NULL },
    { "1e+", NULL },
    { "0x10", NULL },
    { "1_000", NULL },
    { "9007199254740993.0", "r0x1.0000000000000p+53" },
    { "123456789.123456789", "r0x1.d6f34547e6b75p+26" },
    { "1000000000000000000000000000000.5", "r0x1.93e5939a08ceap+99" },
    { "true", "b1" },
    { "false", "b0" },
    { "null", "n" },
    { "True", NULL },
    { "None", NULL },
    { "\"\"", "s" },
    { "\"a\"", "sa" },
    { "\"\\u00e9\"", "s\303\251" },
    { "\"\\ud83d\\ude00\"", "s\360\237\230\200" },
    { "\"\\ud83d\"", "o" },
    { "\"\\ude00x\"", "o" },
    { "\"\\ud83d\\u0041\"", "o" },
    { "\"\\u0000\"", "o" },
    { "\"a\\u0000b\"", "o" },
    { "\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"", "s/\010\014\n\015\011\\\"" },
    { "\"\\x41\"", NULL },
    { "\"\\u12\"", NULL },
    { "\"\011\"", NULL },
    { "\"\177\"", "s\177" },
    { "\"\303\251\346\227\245\360\237\230\200\"", "s\303\251\346\227\245\360\237\230\200" },
    { "'a'", NULL },
    { "[]", "a0" },
    { "[1,]", NULL },
    { "[,1]", NULL },
    { "[1 2]", NULL },
    { "{}", "d0" },
    { "{\"a\":1,}", NULL },
    { "{a:1}", NULL },
    { "[NaN,Infinity]", "a2" },
    { "[1,[2,[3]]]", "a2" },
    { "", NULL },
    { "//c\n1", NULL },
    { "1/**/", NULL },
};

/* Whether v is what the table says. */
static bool is_value(const fv_json_value *v, const char *want)
{
    char shown[FV_JSON_SHOWN];
    const char *text;
    int64_t integer;
    double real = 1;
    bool flag;
    switch (*want++) {
    case 'i': /* past 64 bits it is an integer, but no value */
        fv_json_show(v, shown);
        return fv_json_type_of(v) == FV_JSON_INT && !strncmp(shown, want, 40) &&
               (strlen(want) > 18 || (fv_json_as_int(v, &integer) && integer == atoll(want)));
    case 'r':
        return fv_json_type_of(v) == FV_JSON_REAL && fv_json_as_number(v, &real) &&
               !fv_json_as_int(v, &integer) &&
               (strcmp(want, "nan") ? real == strtod(want, NULL) && !signbit(real) == (*want != '-')
                                    : isnan(real));
    case 's': return fv_json_as_string(v, &text) && !strcmp(text, want);
    case 'o': return fv_json_type_of(v) == FV_JSON_STRING && !fv_json_as_string(v, &text);
    case 'b': return fv_json_as_bool(v, &flag) && flag == (*want == '1');
    case 'n': return fv_json_type_of(v) == FV_JSON_NULL;
    case 'a': return fv_json_type_of(v) == FV_JSON_ARRAY && fv_json_count(v) == (size_t)atoi(want);
    default: return fv_json_type_of(v) == FV_JSON_OBJECT && fv_json_count(v) == (size_t)atoi(want);
    }
}

static void check_python(void)
{
    for (size_t i = 0; i < FV_COUNT(python); i++) {
        char text[256];
        fv_json *doc;
        int n = snprintf(text, sizeof text, "{\"v\": %s}", python[i].text);
        fv_status status = fv_json_parse(&doc, text, (size_t)n, "x", NULL);
        if ((status == FV_OK) != (python[i].value != NULL) ||
            (doc && !is_value(fv_json_member(fv_json_root(doc), "v"), python[i].value)))
            fail_msg("%s: status %s, Python says %s", python[i].text, fv_status_name(status),
                     python[i].value ? python[i].value : "error");
        fv_json_free(doc);
    }
}

static void test_reads_as_python(void **state)
{
    (void)state;
    check_python();
    /* in a locale that writes 1,5, where there is one */
    if (setlocale(LC_ALL, "de_DE.UTF-8") || setlocale(LC_ALL, "fr_FR.UTF-8"))
        check_python();
    setlocale(LC_ALL, "C");
}

/* What is read is refused where it is used, with file, key and what was found. */
static void test_values_out_of_range(void **state)
{
    (void)state;
    fv_json *doc = parse(
        "{\"big\": 1000000000000000019884624838656, \"inf\": Infinity, \"nan\": NaN,"
        " \"o\": {\"list\": [1, 99999999999999999999], \"half\": \"\\ud800\","
        " \"low\": -Infinity, \"huge\": 1e400}}");
    const fv_json_value *root = fv_json_root(doc), *o = fv_json_member(root, "o");
    int64_t i = 3, list[4];
    double r = 2;
    const char *text = "unset";
    size_t n;
    fv_error why;

    assert_int_equal(fv_json_int(doc, root, "big", 1, INT64_MAX, &i, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message, "config.json: big: expected an integer in [1, "
                                     "9223372036854775807], found 1000000000000000019884624838656");
    assert_int_equal(fv_json_number(doc, root, "big", 0, 1, &r, &why), FV_ERR_FORMAT);
    assert_int_equal(fv_json_number(doc, root, "big", 0, 1e31, &r, &why), FV_OK);
    assert_true(r == 1e30); /* as Python's float() has it */
    assert_int_equal(fv_json_number(doc, root, "inf", 0, 1, &r, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message,
                        "config.json: inf: expected a number in [0, 1], found Infinity");
    assert_int_equal(fv_json_opt_number(doc, root, "nan", 0, 1, &r, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message, "config.json: nan: expected a number in [0, 1], found NaN");
    assert_int_equal(fv_json_number(doc, o, "low", -1, 1, &r, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message,
                        "config.json: o.low: expected a number in [-1, 1], found -Infinity");
    assert_int_equal(fv_json_number(doc, o, "huge", -1, 1, &r, &why), FV_ERR_FORMAT);
    assert_int_equal(fv_json_int(doc, root, "inf", 0, 1, &i, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message,
                        "config.json: inf: expected an integer in [0, 1], found a real number");
    assert_int_equal(fv_json_ints(doc, o, "list", 0, 9, 1, 4, list, &n, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message,
                        "config.json: o.list: expected 1 to 4 integers in [0, 9], found "
                        "99999999999999999999");
    assert_int_equal(fv_json_string(doc, o, "half", &text, &why), FV_ERR_FORMAT);
    assert_string_equal(why.message,
                        "config.json: o.half: expected a string, found a string that is not text");
    assert_int_equal(i, 3);
    fv_json_free(doc);
}

static void test_shown(void **state)
{
    (void)state;
    char shown[FV_JSON_SHOWN], text[400];
    fv_json *doc = parse("{\"a\": [1, 2.5, -1.0, \"x\", null, true, {}, {\"k\": 1}, [[[1]]]],"
                         " \"e\": []}");
    fv_json_show(fv_json_member(fv_json_root(doc), "a"), shown);
    assert_string_equal(shown, "[1, 2.5, -1, \"x\", null, true, {}, {...}, [[[...]]]]");
    fv_json_show(fv_json_member(fv_json_root(doc), "e"), shown);
    assert_string_equal(shown, "[]");
    fv_json_show(NULL, shown);
    assert_string_equal(shown, "null");
    fv_json_free(doc);
    snprintf(text, sizeof text, "{\"a\": \"");
    for (int i = 0; i < 60; i++)
        strcat(text, "\xc3\xa9");
    strcat(text, "\"}");
    doc = parse(text);
    fv_json_show(fv_json_member(fv_json_root(doc), "a"), shown);
    assert_int_equal(strlen(shown), 94); /* a quote, whole characters, the dots */
    assert_string_equal(shown + 91, "...");
    fv_json_free(doc);
}

static void test_getters(void **state)
{
    (void)state;
    fv_json *doc = parse("{\"i\": 7, \"r\": 0.5, \"s\": \"text\", \"t\": true, \"n\": null, \"o\": "
                         "{\"x\": [1, 2, 3]}, \"a\": []}");
    const fv_json_value *root = fv_json_root(doc), *o = NULL, *a = NULL;
    int64_t i = -1, list[4];
    double r = -1;
    bool t = false;
    const char *s = "unset";
    size_t n;

    assert_string_equal(fv_json_name(doc), "config.json");
    assert_int_equal(fv_json_int(doc, root, "i", 0, 7, &i, NULL), FV_OK);
    assert_int_equal(i, 7);
    assert_int_equal(fv_json_number(doc, root, "r", 0, 1, &r, NULL), FV_OK);
    assert_true(r == 0.5);
    /* an integer is a number */
    assert_int_equal(fv_json_number(doc, root, "i", 0, 10, &r, NULL), FV_OK);
    assert_true(r == 7);
    assert_int_equal(fv_json_string(doc, root, "s", &s, NULL), FV_OK);
    assert_string_equal(s, "text");
    assert_int_equal(fv_json_bool(doc, root, "t", &t, NULL), FV_OK);
    assert_true(t);
    assert_int_equal(fv_json_object(doc, root, "o", &o, NULL), FV_OK);
    assert_int_equal(fv_json_ints(doc, o, "x", 0, 9, 1, 4, list, &n, NULL), FV_OK);
    assert_int_equal(n, 3);
    assert_int_equal(list[2], 3);
    assert_int_equal(fv_json_array(doc, root, "a", &a, NULL), FV_OK);
    assert_int_equal(fv_json_count(a), 0);
    assert_null(fv_json_at(a, 0));

    /* Absent and null leave the default; another type does not. */
    i = 5;
    assert_int_equal(fv_json_opt_int(doc, root, "none", 0, 9, &i, NULL), FV_OK);
    assert_int_equal(fv_json_opt_int(doc, root, "n", 0, 9, &i, NULL), FV_OK);
    assert_int_equal(fv_json_opt_int(doc, NULL, "i", 0, 9, &i, NULL), FV_OK);
    assert_int_equal(i, 5);
    assert_int_equal(fv_json_opt_int(doc, root, "s", 0, 9, &i, NULL), FV_ERR_FORMAT);
    r = 2;
    s = "unset";
    t = true;
    o = a = NULL;
    assert_int_equal(fv_json_opt_number(doc, root, "n", 0, 9, &r, NULL), FV_OK);
    assert_int_equal(fv_json_opt_string(doc, root, "n", &s, NULL), FV_OK);
    assert_int_equal(fv_json_opt_bool(doc, root, "n", &t, NULL), FV_OK);
    assert_int_equal(fv_json_opt_object(doc, root, "n", &o, NULL), FV_OK);
    assert_int_equal(fv_json_opt_array(doc, root, "n", &a, NULL), FV_OK);
    assert_true(r == 2 && t && !o && !a);
    assert_string_equal(s, "unset");
    assert_int_equal(fv_json_opt_object(doc, root, "o", &o, NULL), FV_OK);
    assert_int_equal(fv_json_opt_array(doc, o, "x", &a, NULL), FV_OK);
    assert_int_equal(fv_json_count(a), 3);
    fv_json_free(doc);
    fv_json_free(NULL);
}

static fv_error err;

static void test_messages(void **state)
{
    (void)state;
    fv_json *doc = parse("{\"hidden_size\": \"896\", \"big\": 70000, \"eps\": -1, \"flag\": 1, "
                         "\"half\": 1.5, \"none\": null,"
                         " \"text_config\": {\"rope\": {\"theta\": \"x\", \"list\": [1, true]}}, "
                         "\"many\": [{}, {\"k\": []}]}");
    const fv_json_value *root = fv_json_root(doc), *text, *rope;
    int64_t i = 3, list[4];
    double r;
    bool b;
    size_t n;
    const char *s;

    assert_int_equal(fv_json_int(doc, root, "hidden_size", 1, 65536, &i, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message, "config.json: hidden_size: expected an integer in [1, 65536], found a string");
    assert_int_equal(fv_json_int(doc, root, "big", 1, 65536, &i, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message,
                        "config.json: big: expected an integer in [1, 65536], found 70000");
    assert_int_equal(fv_json_int(doc, root, "half", 1, 65536, &i, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message, "config.json: half: expected an integer in [1, 65536], found a real number");
    assert_int_equal(fv_json_int(doc, root, "absent", 1, 65536, &i, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message,
                        "config.json: absent is missing, expected an integer in [1, 65536]");
    assert_int_equal(fv_json_int(doc, root, "none", 1, 65536, &i, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message,
                        "config.json: none: expected an integer in [1, 65536], found null");
    assert_int_equal(i, 3);
    assert_int_equal(fv_json_number(doc, root, "eps", 0, 1, &r, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "config.json: eps: expected a number in [0, 1], found -1");
    assert_int_equal(fv_json_bool(doc, root, "flag", &b, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "config.json: flag: expected true or false, found an integer");

    assert_int_equal(fv_json_object(doc, root, "text_config", &text, &err), FV_OK);
    assert_int_equal(fv_json_object(doc, text, "rope", &rope, &err), FV_OK);
    assert_int_equal(fv_json_number(doc, rope, "theta", 1, 1e9, &r, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message,
        "config.json: text_config.rope.theta: expected a number in [1, 1e+09], found a string");
    assert_int_equal(fv_json_ints(doc, rope, "list", 0, 9, 1, 4, list, &n, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "config.json: text_config.rope.list: expected 1 to 4 integers "
                                     "in [0, 9], found true or false");
    assert_int_equal(fv_json_ints(doc, rope, "list", 0, 9, 3, 4, list, &n, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message,
        "config.json: text_config.rope.list: expected 3 to 4 integers in [0, 9], found 2 values");
    assert_int_equal(fv_json_ints(doc, rope, "list", 2, 9, 1, 4, list, &n, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message,
        "config.json: text_config.rope.list: expected 1 to 4 integers in [2, 9], found 1");
    assert_int_equal(fv_json_array(doc, rope, "theta", &rope, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message,
                        "config.json: text_config.rope.theta: expected an array, found a string");
    const fv_json_value *second = fv_json_at(fv_json_member(root, "many"), 1);
    assert_int_equal(fv_json_string(doc, second, "k", &s, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "config.json: many.1.k: expected a string, found an array");
    /* a member of no object */
    assert_int_equal(fv_json_object(doc, fv_json_member(root, "flag"), "x", &text, &err),
                     FV_ERR_FORMAT);
    fv_json_free(doc);
}

/* A way that is too long to be shown is left out, and a message is one line. */
static void test_long_and_odd_keys(void **state)
{
    (void)state;
    char text[1024], key[400];
    int64_t i;

    memset(key, 'k', sizeof key);
    key[sizeof key - 1] = '\0';
    snprintf(text, sizeof text, "{\"%s\": {\"x\": 1}, \"a\\nb\": {\"x\": true}}", key);
    fv_json *doc = parse(text);
    const fv_json_value *root = fv_json_root(doc);
    assert_int_equal(fv_json_int(doc, fv_json_member(root, key), "x", 5, 6, &i, &err),
                     FV_ERR_FORMAT);
    assert_string_equal(err.message, "config.json: x: expected an integer in [5, 6], found 1");
    assert_int_equal(fv_json_int(doc, fv_json_member(root, "a\nb"), "x", 5, 6, &i, &err),
                     FV_ERR_FORMAT);
    assert_null(strchr(err.message, '\n'));
    fv_json_free(doc);
}

static void test_walking(void **state)
{
    (void)state;
    fv_json *doc = parse("{\"z\": 1, \"a\": {}, \"m\": [\"x\", 2.5]}");
    static const char *const keys[] = { "z", "a", "m" };
    const fv_json_value *root = fv_json_root(doc), *value, *m = NULL;
    const char *key, *s = NULL;
    void *iter = NULL;
    int64_t i;
    bool b;
    size_t n = 0;

    while (fv_json_next(root, &iter, &key, &value)) {
        assert_string_equal(key, keys[n++]); /* in file order */
        m = value;
    }
    assert_int_equal(n, 3);
    assert_int_equal(fv_json_count(root), 3);
    assert_int_equal(fv_json_type_of(m), FV_JSON_ARRAY);
    assert_true(fv_json_as_string(fv_json_at(m, 0), &s));
    assert_string_equal(s, "x");
    assert_false(fv_json_as_string(fv_json_at(m, 1), &s));
    assert_false(fv_json_as_int(fv_json_at(m, 1), &i));
    assert_false(fv_json_as_bool(NULL, &b));
    assert_int_equal(fv_json_type_of(fv_json_at(m, 1)), FV_JSON_REAL);
    assert_null(fv_json_at(m, 2));
    assert_null(fv_json_at(root, 0));
    assert_null(fv_json_member(m, "x"));
    assert_int_equal(fv_json_type_of(NULL), FV_JSON_NULL);
    assert_int_equal(fv_json_count(NULL), 0);
    iter = NULL;
    assert_false(fv_json_next(m, &iter, &key, &value));
    iter = NULL;
    assert_false(fv_json_next(NULL, &iter, &key, &value));
    fv_json_free(doc);
}

static void test_files(void **state)
{
    (void)state;
    char path[] = "/tmp/fv-json-XXXXXX";
    int fd = mkstemp(path);
    fv_json *doc;

    assert_int_equal(write(fd, "{\"a\": 1}", 8), 8);
    close(fd);
    assert_int_equal(fv_json_open(&doc, path, 8, &err), FV_OK);
    assert_string_equal(fv_json_name(doc), strrchr(path, '/') + 1);
    fv_json_free(doc);
    assert_int_equal(fv_json_open(&doc, path, 7, &err), FV_ERR_LIMIT);
    assert_null(doc);
    unlink(path);
    assert_int_equal(fv_json_open(&doc, path, 8, &err), FV_ERR_IO);
    assert_null(doc);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    fv_json *doc = NULL;

    static const char text[] = "{\"a\": [1, 2.5, \"text\", {\"b\": null}, 3, 4, 5, 6, 7, 8, 9, 10, "
                               "11, 12, 13, 14, 15, 16],"
                               " \"c\": {\"d\": \"\\u00e9\"}}";

    for (uint64_t i = 0; !doc; i++) {
        fv_mem_fail_after(i);
        fv_status status = fv_json_parse(&doc, text, sizeof text - 1, "x", NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        if (status != FV_OK)
            assert_int_equal(fv_mem_live(), live);
    }
    fv_json_free(doc);
}

/* As many values as are allowed, and one more; keys are none. */
static void test_value_limit(void **state)
{
    (void)state;
    static const char text[] = "{\"a\": [1, 2, {\"b\": null}], \"c\": \"d,[\"}"; /* 7 values */
    fv_json *doc;
    assert_int_equal(fv_json_parse_up_to(&doc, text, sizeof text - 1, 7, "x", &err), FV_OK);
    fv_json_free(doc);
    assert_int_equal(fv_json_parse_up_to(&doc, text, sizeof text - 1, 6, "x", &err), FV_ERR_LIMIT);
    assert_string_equal(err.message, "x: more than 6 values");
    assert_null(doc);
    size_t n = 8 << 20; /* what is too much takes no more memory than what is not */
    char *many = malloc(n);
    assert_non_null(many);
    for (size_t i = 0; i < n; i++)
        many[i] = i % 2 ? '1' : ',';
    many[0] = '[';
    fv_mem_fail_after(60);
    assert_int_equal(fv_json_parse_up_to(&doc, many, n, 1000, "x", &err), FV_ERR_LIMIT);
    fv_mem_fail_after(UINT64_MAX);
    free(many);
}

/* A value as a document of its own: messages begin there. */
static void test_enter(void **state)
{
    (void)state;
    fv_json *doc = parse("{\"body\": {\"a\": {\"b\": 1}}, \"c\": 2}");
    const fv_json_value *body = fv_json_member(fv_json_root(doc), "body");
    const char *text;
    assert_int_equal(fv_json_enter(doc, body, "request", &err), FV_OK);
    assert_int_equal(fv_json_string(doc, fv_json_member(body, "a"), "b", &text, &err),
                     FV_ERR_FORMAT);
    assert_string_equal(err.message, "request: a.b: expected a string, found an integer");
    assert_int_equal(fv_json_string(doc, body, "x", &text, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "request: x is missing, expected a string");
    assert_int_equal(fv_json_string(doc, fv_json_root(doc), "c", &text, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "request: c: expected a string, found an integer");
    assert_string_equal(fv_json_name(doc), "request");
    fv_json_free(doc);
}

static void test_same(void **state)
{
    (void)state;
    static const char *const texts[] = { "[]",
                                         "{}",
                                         "[1]",
                                         "[1, 2]",
                                         "[1.0]",
                                         "[true]",
                                         "[false]",
                                         "[null]",
                                         "[\"1\"]",
                                         "[\"\\u0000\"]",
                                         "[[1]]",
                                         "[123456789012345678901]",
                                         "[123456789012345678902]",
                                         "{\"a\": 1}",
                                         "{\"b\": 1}",
                                         "{\"a\": 1, \"b\": 2}",
                                         "{\"b\": 2, \"a\": 1}" };
    assert_true(fv_json_same(NULL, NULL));
    for (size_t i = 0; i < FV_COUNT(texts); i++)
        for (size_t k = 0; k < FV_COUNT(texts); k++) {
            fv_json *a = parse(texts[i]), *b = parse(texts[k]);
            if (fv_json_same(fv_json_root(a), fv_json_root(b)) != (i == k))
                fail_msg("%s and %s", texts[i], texts[k]);
            fv_json_free(a);
            fv_json_free(b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_parser_refuses),
        cmocka_unit_test(test_reads_as_python),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_long_and_odd_keys),
        cmocka_unit_test(test_walking),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_value_limit),
        cmocka_unit_test(test_enter),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
