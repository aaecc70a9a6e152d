/* What Genie prints and measures, taken apart; versions of SDKs, commands as text, the folder of a
 * run. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/json.h"
#include "qairt/genie_answer.h"
#include "qairt/qairt_tool.h"
#include "qairt/run_output.h"

/* The answer in output when it comes in pieces of `step` bytes: what was shown on the way must be
 * the beginning of it, and all of it at the end. */
static void answer_expect(const char *output, size_t n, size_t step, const char *want)
{
    fv_genie_answer a = { 0 };
    char shown[256] = "";
    const char *text;
    size_t n_text, n_shown = 0;
    fv_error err;
    for (size_t at = 0; at < n; at += step) {
        assert_int_equal(fv_genie_answer_add(&a, output + at, FV_MIN(step, n - at), &err), FV_OK);
        while (fv_genie_answer_next(&a, &text, &n_text)) {
            assert_true(n_text > 0 && n_shown + n_text < sizeof shown);
            memcpy(shown + n_shown, text, n_text);
            n_shown += n_text;
        }
    }
    assert_int_equal(fv_genie_answer_end(&a, &text, &n_text, &err), FV_OK);
    assert_int_equal(n_text, strlen(want));
    assert_memory_equal(text, want, n_text);
    assert_int_equal(n_shown, n_text);
    assert_memory_equal(shown, want, n_shown);
    fv_genie_answer_free(&a);
}

static void test_answers(void **state)
{
    (void)state;
    static const struct {
        const char *output, *want;
    } cases[] = {
        { "Using libGenie.so version 1.13.0\n\n[PROMPT]: x\n\n[BEGIN]: Hello.[END]\n", "Hello." },
        { "[BEGIN]: Hello.[END]", "Hello." },
        { "[INFO]  \"a log line\"\n[BEGIN]: \n two lines\n[END]\n\n", "\n two lines\n" },
        { "[END]\n", "" },
        { "[BEGIN]: [END]\n", "" },
        { "[BEGIN]: a [END] b[END]\n", "a [END] b" },
        { "[BEGIN]: a [BEGIN]: b[END]\n", "a [BEGIN]: b" },
        { "[BEGIN]: [EN[EN[END]\n", "[EN[EN" },
        { "[BEGIN]: caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x88[END]\n",
          "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x88" },
        { "[BEGIN]: \xff\x80[END]\n", "\xff\x80" },
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++)
        for (size_t step = 1; step <= strlen(cases[i].output); step++)
            answer_expect(cases[i].output, strlen(cases[i].output), step, cases[i].want);
    static const char nul[] = "a\0b[BEGIN]: x[END]";
    answer_expect(nul, sizeof nul - 1, 1, "x");
}

/* A character is never shown in halves, nor what may become the end. */
static void test_held(void **state)
{
    (void)state;
    static const struct {
        const char *piece, *shown;
    } steps[] = { { "[BEGIN]: a\xe2", "a" }, { "\x82", NULL }, { "\xac[", "\xe2\x82\xac" },
                  { "END", NULL },           { "!", "[END!" }, { "[END]", NULL },
                  { "z[END]", "[END]z" } };
    fv_genie_answer a = { 0 };
    const char *text;
    size_t n;
    for (size_t i = 0; i < FV_COUNT(steps); i++) {
        assert_int_equal(fv_genie_answer_add(&a, steps[i].piece, strlen(steps[i].piece), NULL),
                         FV_OK);
        assert_int_equal(fv_genie_answer_next(&a, &text, &n), steps[i].shown != NULL);
        if (steps[i].shown) {
            assert_int_equal(n, strlen(steps[i].shown));
            assert_memory_equal(text, steps[i].shown, n);
        }
    }
    fv_genie_answer_free(&a);
}

static void test_no_answer(void **state)
{
    (void)state;
    static const struct {
        const char *output, *message;
    } cases[] = { { "", "printed no answer" },
                  { "[BEGIN]:no blank", "printed no answer" },
                  { "[BEGIN]: half", "the answer has no end" },
                  { "[BEGIN]: half[END", "the answer has no end" } };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_genie_answer a = { 0 };
        const char *text;
        size_t n;
        fv_error err;
        assert_int_equal(fv_genie_answer_add(&a, cases[i].output, strlen(cases[i].output), &err),
                         FV_OK);
        assert_int_equal(fv_genie_answer_end(&a, &text, &n, &err), FV_ERR_FORMAT);
        assert_non_null(strstr(err.message, cases[i].message));
        fv_genie_answer_free(&a);
    }
}

/* ---- profiles ---- */

static fv_status profile_parse(fv_run_profile *p, const char *text, fv_error *err)
{
    *p = fv_run_profile_none();
    return fv_run_profile_parse(p, text, strlen(text), "profile.json", err);
}

static void test_profile(void **state)
{
    (void)state;
    fv_run_profile p;
    fv_error err;
    /* Events by their type: the query comes first, other components and events stand around. */
    assert_int_equal(
        profile_parse(&p,
                      "{\"components\": [{\"type\": \"x\"}, {\"events\": [{\"type\": \"other\"},"
                      "{\"type\": \"GenieDialog_query\", \"num-prompt-tokens\": {\"value\": 281, "
                      "\"unit\": \"\"}, \"time-to-first-token\": {\"value\": 1500, \"unit\": "
                      "\"us\"}, \"token-generation-rate\": {\"value\": 12.5}},"
                      "{\"type\": \"GenieDialog_create\", \"init-time\": {\"value\": 7}}]}]}",
                      &err),
        FV_OK);
    assert_int_equal(p.n_prompt_tokens, 281);
    assert_true(p.first_token_us == 1500 && p.generation_rate == 12.5 && p.init_us == 7);
    assert_true(p.prompt_rate < 0 && p.n_generated < 0); /* not said */
    static const char *const bad[][2] = {
        { "{\"components\": []}", "has no event GenieDialog_query" },
        { "{\"components\": {}}", "components" },
        { "{}", "components" },
        { "[]", "profile.json" },
        { "{\"components\": [{\"events\": [{\"type\": \"GenieDialog_query\", "
          "\"time-to-first-token\": {\"value\": -1}}]}]}",
          "value" },
        { "{\"components\": [{\"events\": [{\"type\": \"GenieDialog_query\", "
          "\"num-generated-tokens\": {\"value\": \"many\"}}]}]}",
          "value" },
        { "not json", "profile.json" },
    };
    for (size_t i = 0; i < FV_COUNT(bad); i++) {
        if (profile_parse(&p, bad[i][0], &err) == FV_OK)
            fail_msg("row %zu was read", i);
        if (!strstr(err.message, bad[i][1]))
            fail_msg("row %zu: %s", i, err.message);
    }
}

/* What is written is read back, and stands where it should. */
static void test_run_folder(void **state)
{
    (void)state;
    char base[] = "/tmp/test_genie_XXXXXX", path[200];
    fv_run_folder out, again;
    fv_error err;
    char *place = NULL, *second = NULL;
    fv_run_profile p = fv_run_profile_none(), back = fv_run_profile_none();
    assert_non_null(mkdtemp(base));
    p.way = "qairt", p.runner = "here", p.vision = "int8", p.decoder = "fp32";
    p.first_token_us = 2e6, p.n_generated = 5, p.vision_ms = 12.25, p.prompt_rate = 0.1;
    assert_int_equal(fv_run_folder_open(&out, base, NULL, &err), FV_OK);
    assert_int_equal(fv_run_folder_put(&out, "vision_out/Result_0/x.raw", "abc", 3, &err), FV_OK);
    assert_int_equal(fv_run_folder_commit(&out, "yes", 3, &p, &place, &err), FV_OK);
    /* Of the same second: another name; nothing of one that is given up. */
    assert_int_equal(fv_run_folder_open(&again, base, NULL, &err), FV_OK);
    assert_int_equal(fv_run_folder_commit(&again, "", 0, &p, &second, &err), FV_OK);
    assert_string_not_equal(place, second);
    assert_int_equal(fv_run_folder_open(&again, base, NULL, &err), FV_OK);
    fv_run_folder_abandon(&again);
    snprintf(path, sizeof path, "%s/vision_out/Result_0/x.raw", place);
    assert_int_equal(access(path, R_OK), 0);
    snprintf(path, sizeof path, "%s/profile.json", place);
    assert_int_equal(fv_run_profile_read(&back, path, &err), FV_OK);
    assert_true(back.first_token_us == 2e6 && back.n_generated == 5 && back.prompt_rate == 0.1);
    assert_true(back.init_us < 0);
    fv_json *doc;
    assert_int_equal(fv_json_open(&doc, path, 1 << 16, &err), FV_OK);
    const fv_json_value *pipeline = fv_json_at(fv_json_member(fv_json_root(doc), "components"), 1);
    const fv_json_value *events = fv_json_member(pipeline, "events");
    int64_t duration = 0;
    assert_int_equal(fv_json_count(events), 1);
    assert_true(fv_json_as_int(fv_json_member(fv_json_at(events, 0), "duration"), &duration));
    assert_int_equal(duration, 12250);
    fv_json_free(doc);
    fv_free(place);
    fv_free(second);
    assert_true(fv_folder_remove(base));
}

/* ---- the SDK's side ---- */

static void test_versions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        unsigned numbers[4];
    } cases[] = { { "2.42.0.251225", true, { 2, 42, 0, 251225 } },
                  { "v2.42.0.251225135753_193295", true, { 2, 42, 0, 251225 } },
                  { "2.42.0", true, { 2, 42, 0, 0 } },
                  { "10.1.2.300101-auto", true, { 10, 1, 2, 300101 } },
                  { "2.42", false, { 2, 42, 0, 0 } },
                  { "qairt", false, { 0 } },
                  { "", false, { 0 } },
                  { "2..42.0", false, { 2, 0, 0, 0 } } };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        unsigned numbers[4];
        assert_int_equal(fv_sdk_version_parse(cases[i].text, numbers), cases[i].good);
        if (cases[i].good)
            assert_memory_equal(numbers, cases[i].numbers, sizeof numbers);
    }
}

static void test_releases(void **state)
{
    (void)state;
    const unsigned a[4] = { 2, 42, 0, 251225 }, b[4] = { 2, 42, 0, 260101 }, c[4] = { 2, 43, 0, 1 };
    assert_int_equal(fv_sdk_release_compare(a, b), 0);
    assert_true(fv_sdk_release_compare(a, c) < 0 && fv_sdk_release_compare(c, b) > 0);
}

static void test_commands(void **state)
{
    (void)state;
    fv_args args = { 0 };
    fv_args_add2(&args, "tool", "plain-1.2/x_y");
    fv_args_add2(&args, "", "two words");
    fv_args_add(&args, "it's");
    fv_args_format(&args, "%d,%d", 3, 4);
    const char *const environment[] = { "A=b c", "REMOVED", NULL };
    char *text = fv_args_text((const char *const *)args.list, environment);
    assert_string_equal(text, "'A=b c' tool plain-1.2/x_y '' 'two words' 'it'\\''s' 3,4");
    fv_free(text);
    for (int i = 0; i < FV_ARGS; i++)
        fv_args_add(&args, "more");
    fv_error err;
    assert_int_equal(fv_args_done(&args, &err), FV_ERR_MEMORY);
    assert_null(args.list[FV_ARGS]);
    fv_args_free(&args);
    static const char *const bad[] = { "a b", "a,b", "a'b", "a\"b", "a\\b", "a\nb", "a\x7f" };
    for (size_t i = 0; i < FV_COUNT(bad); i++)
        assert_int_equal(fv_tool_path_check(bad[i], NULL), FV_ERR_ARGUMENT);
    assert_int_equal(fv_tool_path_check("/a/caf\xc3\xa9-1.bin", NULL), FV_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),    cmocka_unit_test(test_held),
        cmocka_unit_test(test_no_answer),  cmocka_unit_test(test_profile),
        cmocka_unit_test(test_run_folder), cmocka_unit_test(test_versions),
        cmocka_unit_test(test_releases),   cmocka_unit_test(test_commands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
