/* io/json.c: getters, their messages, and what the parser refuses. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "io/json.h"

static fv_json *parse(const char *text)
{
    fv_json *doc;
    fv_error err;

    if (fv_json_parse(&doc, text, strlen(text), "config.json", &err) != FV_OK)
        fail_msg("%s", err.message);
    return doc;
}

/* The words after the place are jansson's. */
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
                  "config.json: line 1, column 12: duplicate object key");
    check_refused("{\n\"a\": 1,\n}", 11, "config.json: line 3, column 1: string or '}' expected");
    check_refused("{\"a\": 1} x", 10, NULL);
    check_refused("12", 2, NULL);
    check_refused("{\"a\": \"\\u0000\"}", 15, NULL);
    check_refused("{\"a\": \"\xff\"}", 10, NULL);
    /* jansson took it */
    check_refused("{\"a\"\0: 1}", 9, "config.json: byte 4 is a NUL, which JSON does not allow");
    check_refused("{\"a\": 99999999999999999999}", 27, NULL);
    check_refused("{\"a\": 1e999}", 12, NULL);
    check_refused("{\"a\": NaN}", 10, NULL);
    char deep[5000];
    memset(deep, '[', sizeof deep);
    check_refused(deep, sizeof deep,
                  "config.json: line 1, column 2049: maximum parsing depth reached");
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

    for (uint64_t i = 0; !doc; i++) {
        fv_mem_fail_after(i);
        fv_status status = fv_json_parse(&doc, "{}", 2, "x", NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        if (status != FV_OK)
            assert_int_equal(fv_mem_live(), live);
    }
    fv_json_free(doc);
}

/* jansson takes its memory itself: let its n-th allocation fail. */
static size_t jansson_left;

static void *failing_malloc(size_t n) { return jansson_left-- > 0 ? malloc(n) : NULL; }

static void test_jansson_out_of_memory(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\": [1, 2.5, \"text\", {\"b\": null}], \"c\": {\"d\": \"\\u00e9\"}}";
    int64_t live = fv_mem_live();
    fv_json *doc = NULL;
    json_malloc_t old_malloc;
    json_free_t old_free;

    json_get_alloc_funcs(&old_malloc, &old_free);
    json_set_alloc_funcs(failing_malloc, free);
    for (size_t i = 0; !doc; i++) {
        jansson_left = i;
        fv_status status = fv_json_parse(&doc, text, sizeof text - 1, "x", &err);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY || status == FV_ERR_FORMAT);
        assert_true(i < 200);
        if (status != FV_OK)
            assert_int_equal(fv_mem_live(), live);
        jansson_left = SIZE_MAX;
    }
    fv_json_free(doc);
    json_set_alloc_funcs(old_malloc, old_free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_parser_refuses),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_long_and_odd_keys),
        cmocka_unit_test(test_walking),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_jansson_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
