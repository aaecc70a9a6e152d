/* The AI Hub's ledgers and what its client prints, read. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qairt/aihub_ledger.h"
#include "qairt/aihub_said.h"

#define VISION  "fastvlm_vision_encoder_fp32"
#define HASH(c) c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
#define HASH_A  HASH("aa")
#define HASH_B  HASH("bb")
#define LEDGER(lines) \
    (&(fv_aihub_ledger){ .path = (char[]){ "ids.txt" }, .text = (char[]){ lines } })

static void test_ids(void **state)
{
    (void)state;
    assert_true(fv_aihub_is_id("mabc123", 'm'));
    assert_false(fv_aihub_is_id("m", 'm'));
    assert_false(fv_aihub_is_id("jabc", 'm'));
    assert_false(fv_aihub_is_id("mABC", 'm'));
    assert_false(fv_aihub_is_id("m/../x", 'm'));
    assert_false(fv_aihub_is_id("m12345678901234567890123456789012345678901234567890", 'm'));
}

static void test_time(void **state)
{
    char now[FV_AIHUB_TIME];
    (void)state;
    assert_int_equal(fv_aihub_time_read("1970-01-02T00:00:01Z"), 86401);
    assert_int_equal(fv_aihub_time_read("2026-11-27T21:00:00Z"), 1795813200);
    assert_int_equal(fv_aihub_time_read("2026-11-27 21:00:00Z"), -1);
    assert_int_equal(fv_aihub_time_read("2026-11-27T21:00:00Zx"), -1);
    assert_int_equal(fv_aihub_time_read("2026-13-27T21:00:00Z"), -1);
    assert_int_equal(fv_aihub_time_read(""), -1);
    fv_aihub_time(now);
    assert_true(fv_aihub_time_read(now) > 1700000000);
}

static void test_models(void **state)
{
    fv_aihub_model m;
    fv_error err;
    (void)state;
    assert_int_equal(fv_aihub_model_find(&m, LEDGER(""), VISION, &err), FV_OK);
    assert_string_equal(m.model_id, "");
    assert_false(m.pending);

    /* kept by hand: blanks, a return, no newline at the end; another name; the last line counts */
    assert_int_equal(fv_aihub_model_find(&m,
                                         LEDGER("# mine\r\n\n  " VISION " : mold \r\n"
                                                "other:mother\n" VISION ":mnew"),
                                         VISION, &err),
                     FV_OK);
    assert_string_equal(m.model_id, "mnew");
    assert_string_equal(m.sha256, "");

    assert_int_equal(fv_aihub_model_find(&m,
                                         LEDGER("# fastvlm upload " VISION " bytes=5 sha256=" HASH_A
                                                " at=2026-11-27T21:00:00Z\n" VISION ":m1\n"
                                                "# fastvlm upload " VISION " bytes=5 sha256=" HASH_B
                                                " at=2026-11-27T21:00:01Z\n"
                                                "# fastvlm upload other bytes=5 sha256=" HASH_A
                                                " at=2026-11-27T21:00:02Z\nother:m2\n"),
                                         VISION, &err),
                     FV_OK);
    assert_string_equal(m.model_id, "m1");
    assert_string_equal(m.sha256, HASH_A);
    assert_true(m.pending);
    assert_string_equal(m.pending_sha256, HASH_B);
    assert_int_equal(m.pending_time, 1795813201);

    static const char *const wrong[] = { "x",          ":m1",           VISION ":",
                                         VISION ":j1", VISION ":m1 m2", VISION ":m1/x" };
    for (size_t i = 0; i < FV_COUNT(wrong); i++) {
        char text[200];
        snprintf(text, sizeof text, "a:m1\n%s\n", wrong[i]);
        fv_aihub_ledger l = { .path = (char[]){ "ids.txt" }, .text = text };
        assert_int_equal(fv_aihub_model_find(&m, &l, VISION, &err), FV_ERR_FORMAT);
        assert_non_null(strstr(err.message, "ids.txt: line 2: expected NAME:MODEL_ID"));
        assert_int_equal(err.at, 2);
    }
    assert_true(fv_aihub_ledger_has(LEDGER("a:m1\na:m2\n"), "a", "m1"));
    assert_false(fv_aihub_ledger_has(LEDGER("a:m1\n# a:m2\nb:m3\n"), "a", "m2"));
    assert_false(fv_aihub_ledger_has(LEDGER("a:m1\n# a:m2\nb:m3\n"), "a", "m3"));
}

static void test_jobs(void **state)
{
    fv_aihub_job j;
    (void)state;
    fv_aihub_job_find(&j,
                      LEDGER("device=Snapdragon 8 Elite QRD os=15\ncompile_options=--a b --c\n\n"
                             "a: model_id=m1 job_id=j1 status=CREATED url=https://x/jobs/j1/\n"
                             "device=Phone os=\n"
                             "b: model_id=m9 job_id=j9 status=SUCCESS url=https://x/jobs/j9/\n"
                             "a: model_id=m1 job_id=j1 status=FAILED (a (b) url=c) url=u\n"
                             "# fastvlm download a job_id=j1 bytes=7 sha256=" HASH_A
                             " file=x y.bin at=2026-11-27T21:00:00Z\n"
                             "# fastvlm submit a model_id=m2 at=2026-11-27T21:00:00Z\n"),
                      "a");
    assert_string_equal(j.model_id, "m1");
    assert_string_equal(j.job_id, "j1");
    assert_string_equal(j.status, "FAILED");
    assert_string_equal(j.message, "a (b) url=c");
    assert_string_equal(j.url, "u");
    assert_string_equal(j.device, "Snapdragon 8 Elite QRD");
    assert_string_equal(j.os, "15");
    assert_string_equal(j.options, "--a b --c");
    assert_string_equal(j.file, "x y.bin");
    assert_int_equal(j.file_bytes, 7);
    assert_true(j.pending);
    assert_string_equal(j.pending_model, "m2");

    /* the next job forgets the file of the one before, and takes the device that holds by then */
    fv_aihub_job_find(&j,
                      LEDGER("a: model_id=m1 job_id=j1 status=SUCCESS url=u\n"
                             "# fastvlm download a job_id=j1 bytes=7 sha256=" HASH_A
                             " file=x.bin at=2026-11-27T21:00:00Z\n"
                             "device=Phone os=\n"
                             "# fastvlm submit a model_id=m2 at=2026-11-27T21:00:00Z\n"
                             "a: model_id=m2 job_id=j2 status=CREATED url=u\n"),
                      "a");
    assert_string_equal(j.job_id, "j2");
    assert_string_equal(j.device, "Phone");
    assert_string_equal(j.os, "");
    assert_string_equal(j.file, "");
    assert_false(j.pending);

    static const char *const wrong[] = { "a: model_id=m1 job_id=/etc status=CREATED url=u",
                                         "a: model_id=m1 job_id=j1 url=u",
                                         "a: job_id=j1 status=CREATED url=u",
                                         "a: x",
                                         "#a: model_id=m1 job_id=j1 status=CREATED url=u",
                                         "ab: model_id=m1 job_id=j1 status=X url=u" };
    for (size_t i = 0; i < FV_COUNT(wrong); i++) {
        fv_aihub_ledger l = { .text = (char *)(uintptr_t)wrong[i] };
        fv_aihub_job_find(&j, &l, "a");
        assert_string_equal(j.job_id, "");
    }
    fv_aihub_job_find(&j,
                      LEDGER("a: model_id=m1 job_id=j1 status=SUCCESS url=u\n"
                             "# fastvlm download a job_id=j1 bytes=7 sha256=" HASH_A
                             " file=../x.bin at=t\n"),
                      "a");
    assert_string_equal(j.file, "");
    assert_true(fv_aihub_ledger_has_job(LEDGER("a: model_id=m1 job_id=j1 status=S url=u\n"
                                               "a: model_id=m1 job_id=j2 status=S url=u\n"),
                                        "a", "j1"));
    assert_false(fv_aihub_ledger_has_job(LEDGER("#a: model_id=m1 job_id=j1 status=S url=u\n"
                                                "b: model_id=m1 job_id=j1 status=S url=u\n"),
                                         "a", "j1"));
    fv_aihub_job_header(&j, LEDGER("device=A os=1\ncompile_options=x\ndevice=B os=2\n"));
    assert_string_equal(j.device, "B");
    assert_string_equal(j.options, "x");
}

static void test_adding(void **state)
{
    char dir[] = "/tmp/fastvlm-aihub-XXXXXX";
    fv_aihub_ledger l;
    fv_error err;
    uint8_t *text;
    size_t n;
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(fv_aihub_ledger_open(&l, dir, "ids.txt", &err), FV_OK);
    assert_string_equal(l.text, "");
    assert_int_equal(fv_aihub_ledger_add(&l, &err, "%s:%s", "a", "m1"), FV_OK);
    /* a person adds a line in the meantime, without its newline */
    FILE *file = fopen(l.path, "a");
    assert_non_null(file);
    fputs("b:m2", file);
    fclose(file);
    assert_int_equal(fv_aihub_ledger_add(&l, &err, "c:m3"), FV_OK);
    assert_string_equal(l.text, "a:m1\nb:m2\nc:m3\n");
    assert_int_equal(fv_read_file(&text, &n, l.path, 1000, &err), FV_OK);
    assert_string_equal((char *)text, l.text);
    fv_free(text);
    assert_int_equal(fv_aihub_ledger_add(&l, &err, "c:\n"), FV_ERR_ARGUMENT);
    assert_int_equal(fv_aihub_ledger_add(&l, &err, "%5000s", "x"), FV_ERR_ARGUMENT);
    assert_string_equal(l.text, "a:m1\nb:m2\nc:m3\n");

    /* a disk that cannot be written leaves everything as it was */
    if (geteuid() != 0) {
        chmod(dir, 0500);
        assert_int_equal(fv_aihub_ledger_add(&l, &err, "d:m4"), FV_ERR_IO);
        chmod(dir, 0700);
    }
    file = fopen(l.path, "w");
    assert_non_null(file);
    fwrite("a:m1\n\0b", 1, 7, file);
    fclose(file);
    assert_int_equal(fv_aihub_ledger_add(&l, &err, "d:m4"), FV_ERR_FORMAT);
    unlink(l.path);
    fv_aihub_ledger_free(&l);
    rmdir(dir);
}

/* Every allocation fails once: nothing is lost, neither memory nor a line. */
static void test_memory(void **state)
{
    char dir[] = "/tmp/fastvlm-aihub-XXXXXX";
    fv_aihub_ledger l;
    fv_error err;
    bool done = false;
    size_t n_lines = 0;
    (void)state;
    assert_non_null(mkdtemp(dir));
    for (uint64_t n = 0; !done; n++) {
        int64_t live = fv_mem_live();
        fv_mem_fail_once(n);
        fv_status status = fv_aihub_ledger_open(&l, dir, "ids.txt", &err);
        if (status == FV_OK) {
            status = fv_aihub_ledger_add(&l, &err, "a:m1");
            n_lines += status == FV_OK;
        }
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        fv_aihub_ledger_free(&l);
        assert_int_equal(fv_mem_live(), live);
        assert_int_equal(fv_aihub_ledger_open(&l, dir, "ids.txt", &err), FV_OK);
        assert_true(l.n_bytes % 5 == 0 && l.n_bytes / 5 >= n_lines);
        n_lines = l.n_bytes / 5; /* it may stand there though reading it back failed */
        done = status == FV_OK;
        if (done)
            unlink(l.path);
        fv_aihub_ledger_free(&l);
        assert_true(n < 100);
    }
    assert_true(n_lines > 0);
    rmdir(dir);
}

static void test_clean(void **state)
{
    static const char *const cases[][2] = {
        { "plain", "plain" },
        { "  a \n\n b\t ", "a b" },
        { "┌──┐\n| a b |\n| c   |\n└──┘", "a b c" },
        { "url: https://s3/x?X-Amz-Signature=abc&y=1 (end)", "url: https://s3/x?... (end)" },
        { "with url: /bucket/key?sig=abc,", "with url: /bucket/key?..." },
        { "Really? Yes", "Really? Yes" },
        { "token s3cret, again s3crets3cret", "token ***, again ******" },
        { "\x1b[2Jred\x7f", "[2Jred" },
        { "\xff\xc3", "\xef\xbf\xbd\xef\xbf\xbd" },
        { "⏳ é", "⏳ é" },
    };
    char text[200], small[8];
    (void)state;
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_aihub_clean(text, sizeof text, cases[i][0], strlen(cases[i][0]), "s3cret");
        assert_string_equal(text, cases[i][1]);
    }
    fv_aihub_clean(small, sizeof small, "aaaaaa⏳b", 10, NULL); /* no half character */
    assert_string_equal(small, "aaaaaa");
}

static bool said_of(fv_aihub_said *said, const char *line)
{
    return fv_aihub_said_read(said, line, strlen(line), "s3cret");
}

static void test_answers(void **state)
{
    fv_aihub_said said;
    (void)state;
    assert_true(said_of(&said, "{\"job_id\": \"j1\", \"status\": \"FAILED\", \"message\": \"no\\n "
                               "s3cret\", \"url\": \"https://x/\", \"time\": 12, \"other\": []}"));
    assert_string_equal(said.job_id, "j1");
    assert_string_equal(said.status, "FAILED");
    assert_string_equal(said.message, "no ***");
    assert_string_equal(said.url, "https://x/");
    assert_int_equal(said.time, 12);
    assert_string_equal(said.model_id, "");
    assert_true(said_of(&said, "{\"job_id\": \"../j1\", \"model_id\": 5, \"status\": \"a b\"}"));
    assert_string_equal(said.job_id, "");
    assert_string_equal(said.model_id, "");
    assert_string_equal(said.status, "");
    assert_false(said_of(&said, "Scheduled compile job (j1) successfully."));
    assert_false(said_of(&said, "{\"job_id\": "));
    assert_false(said_of(&said, ""));
}

static void test_upload(void **state)
{
    static const char *const wrong[] = { "model_id    : ", "model_id    : m1 x", "model_id : x1",
                                         "name : m1",      "the model_id : m1",  "" };
    static const char right[] = "model_id    : mabc123";
    char id[FV_AIHUB_ID] = "";
    (void)state;
    assert_true(fv_aihub_upload_read(id, right, strlen(right)));
    assert_string_equal(id, "mabc123");
    for (size_t i = 0; i < FV_COUNT(wrong); i++)
        assert_false(fv_aihub_upload_read(id, wrong[i], strlen(wrong[i])));
    assert_string_equal(id, "mabc123");
}

static void test_exceptions(void **state)
{
    static const char *const lines[] = {
        "\r  0%|   | 0.00/1.00M\r100%|███| 1.00M/1.00M",
        "Error: no traceback has begun",
        "Traceback (most recent call last):",
        "  File \"x.py\", line 1, in f",
        "    raise ValueError('secret')",
        "KeyError: 'first'",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "\r 50%|#\rTraceback (most recent call last):",
        "  File \"x.py\", line 2, in g",
        "    x: int = 5",
        "qai_hub.client.UserError: Failed to authenticate.",
        "",
        "┌──────┐",
        "| Failure to authenticate is likely caused by a bad s3cret |",
        "| token.                                                   |",
        "└──────┘",
    };
    fv_aihub_trace t = { 0 };
    (void)state;
    for (size_t i = 0; i < FV_COUNT(lines); i++)
        fv_aihub_trace_take(&t, lines[i], strlen(lines[i]), "s3cret");
    assert_string_equal(t.error, "UserError");
    assert_string_equal(t.message, "Failed to authenticate. Failure to authenticate is likely "
                                   "caused by a bad *** token.");
    assert_int_equal(fv_aihub_trouble_of(t.error, t.message), FV_AIHUB_TOKEN);
    assert_int_equal(fv_aihub_trouble_of("ReadTimeout", ""), FV_AIHUB_TRANSIENT);
    assert_int_equal(
        fv_aihub_trouble_of("InternalError", "Internal API failure. s3 is unavailable right now."),
        FV_AIHUB_TRANSIENT);
    assert_int_equal(fv_aihub_trouble_of("UserError", "Not found."), FV_AIHUB_FINAL);
    assert_int_equal(fv_aihub_trouble_of("ModuleNotFoundError", "No module named 'qai_hub'"),
                     FV_AIHUB_PACKAGE);
}

static void test_configuration(void **state)
{
    static const struct {
        const char *text, *value;
    } cases[] = {
        { "[api]\napi_token = abc\n", "abc" },
        { "[api]\r\nAPI_Token:abc\r\n", "abc" },
        { "[api]\n# api_token = x\n;api_token = y\napi_token = a b = c\n", "a b = c" },
        { "api_token = x\n[other]\napi_token = y\n", NULL },
        { "[api]\napi_token =\n", NULL },
        { "[api]\napi_token\n", NULL },
        { "[api]\n api_token = x\n", NULL },
        { "[api]\napi_token_old = x\n[b]\n[api]\napi_token=z", "z" },
        { "", NULL },
    };
    (void)state;
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        char *value = fv_aihub_config_value(cases[i].text, "api_token");
        if (cases[i].value)
            assert_string_equal(value, cases[i].value);
        else
            assert_null(value);
        fv_free(value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),           cmocka_unit_test(test_time),
        cmocka_unit_test(test_models),        cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_adding),        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_clean),         cmocka_unit_test(test_answers),
        cmocka_unit_test(test_upload),        cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
