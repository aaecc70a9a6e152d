/* JSON text: exact bytes, and what the reader makes of them. */
#include "support/cm.h"

#include <string.h>

#include "io/json.h"
#include "io/json_write.h"
#include "support/not_text.h"

static void test_bytes(void **state)
{
    (void)state;
    fv_error err = { 0 };
    for (int compact = 0; compact < 2; compact++) {
        fv_json_text j = { .compact = compact != 0 };
        fv_json_begin(&j, NULL, '{');
        fv_json_put_text(&j, "a", "x\"\\\n\t\x01\x7f\xc3\xa9");
        fv_json_put_text(&j, "n", NULL);
        fv_json_begin_row(&j, "r", '[');
        fv_json_put_int(&j, NULL, -7);
        fv_json_put_bool(&j, NULL, true);
        fv_json_end(&j);
        fv_json_begin(&j, "e", '{');
        fv_json_end(&j);
        fv_json_begin(&j, "l", '[');
        fv_json_put_real(&j, NULL, 1e-6);
        fv_json_put_real(&j, NULL, 1000000);
        fv_json_end(&j);
        fv_json_end(&j);
        assert_int_equal(fv_json_done(&j, &err), FV_OK);
        assert_string_equal(
            j.text,
            compact
                ? "{\"a\":\"x\\\"\\\\\\n\\u0009\\u0001\\u007f\xc3\xa9\",\"n\":null,\"r\":[-7,true],"
                  "\"e\":{},\"l\":[1e-06,1e+06]}\n"
                : "{\n  \"a\": \"x\\\"\\\\\\n\\u0009\\u0001\\u007f\xc3\xa9\",\n  \"n\": null,\n"
                  "  \"r\": [-7, true],\n  \"e\": {},\n  \"l\": [\n    1e-06,\n    1e+06\n  "
                  "]\n}\n");
        assert_int_equal(j.n, strlen(j.text));
        fv_json_text_free(&j);
    }
}

/* What is not text is replaced, so that the file is JSON. */
static void test_text_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(not_text); i++) {
        fv_json_text j = { 0 };
        fv_json *doc = NULL;
        const char *text = NULL;
        fv_error err = { 0 };
        fv_json_begin(&j, NULL, '{');
        fv_json_put_text(&j, "name", not_text[i].bytes);
        fv_json_put_bytes(&j, not_text[i].bytes, "x", 1);
        fv_json_end(&j);
        assert_int_equal(fv_json_done(&j, &err), FV_OK);
        if (fv_json_parse(&doc, j.text, j.n, "x", &err) != FV_OK)
            fail_msg("row %zu: %s", i, err.message);
        assert_int_equal(fv_json_string(doc, fv_json_root(doc), "name", &text, &err), FV_OK);
        assert_string_equal(text, not_text[i].text);
        assert_non_null(fv_json_member(fv_json_root(doc), not_text[i].text));
        fv_json_free(doc);
        fv_json_text_free(&j);
    }
}

static void test_reals_come_back(void **state)
{
    (void)state;
    static const double values[] = {
        0, 1, -1, 0.1, 1.0 / 255, 3.141592653589793, 1e300, -2.5e-300, 123456789, 5e-324
    };
    fv_error err = { 0 };
    fv_json_text j = { 0 };
    fv_json *doc = NULL;
    fv_json_begin(&j, NULL, '{');
    fv_json_begin(&j, "v", '[');
    for (size_t i = 0; i < FV_COUNT(values); i++) {
        fv_json_begin_row(&j, NULL, '{');
        fv_json_put_real(&j, "x", values[i]);
        fv_json_end(&j);
    }
    fv_json_end(&j);
    fv_json_end(&j);
    assert_int_equal(fv_json_done(&j, &err), FV_OK);
    assert_int_equal(fv_json_parse(&doc, j.text, j.n, "x", &err), FV_OK);
    const fv_json_value *list = fv_json_member(fv_json_root(doc), "v");
    for (size_t i = 0; i < FV_COUNT(values); i++) {
        double x = 99;
        assert_int_equal(fv_json_number(doc, fv_json_at(list, i), "x", -1e301, 1e301, &x, &err),
                         FV_OK);
        assert_true(x == values[i]);
        assert_int_equal(fv_json_type_of(fv_json_member(fv_json_at(list, i), "x")), FV_JSON_REAL);
    }
    fv_json_free(doc);
    fv_json_text_free(&j);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_json_text j = { 0 };
    fv_mem_fail_after(0);
    fv_json_begin(&j, NULL, '[');
    fv_json_put_int(&j, NULL, 1);
    fv_json_end(&j);
    fv_status status = fv_json_done(&j, &err);
    fv_mem_fail_after(UINT64_MAX);
    assert_int_equal(status, FV_ERR_MEMORY);
    fv_json_text_free(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_bytes),
                                        cmocka_unit_test(test_text_only),
                                        cmocka_unit_test(test_reals_come_back),
                                        cmocka_unit_test(test_out_of_memory) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
