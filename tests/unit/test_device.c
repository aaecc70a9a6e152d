/* What adb and a phone say, taken apart: the list of phones and which one is meant, facts, which
 * files are there, whether a program can run there, an answer in pieces. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "device/device_program.h"
#include "device/device_push.h"
#include "device/device_stream.h"
#include "device/shell_text.h"

static fv_error err;

/* ---------------------------------------------------------------- the list */

static const char several[] =
    "* daemon not running; starting now at tcp:5037\n"
    "* daemon started successfully\n"
    "List of devices attached\n"
    "R5CX123ABC             device usb:1-4.3 product:pa3q model:SM_S938B device:pa3q "
    "transport_id:2\n"
    "0123456789             no permissions (user in plugdev group; are your udev rules wrong?); "
    "see "
    "[http://developer.android.com/tools/device.html] usb:1-1 transport_id:4\n"
    "192.168.1.7:5555       unauthorized transport_id:3\r\n"
    "emulator-5554          offline\n\n";

static fv_status list_of(fv_adb_entries *entries, const char *text)
{
    *entries = (fv_adb_entries){ 0 };
    return fv_adb_entries_parse(entries, text, strlen(text), &err);
}

static void test_list(void **state)
{
    fv_adb_entries e;
    (void)state;
    assert_int_equal(list_of(&e, several), FV_OK);
    assert_int_equal(e.n, 4);
    assert_string_equal(e.list[0].serial, "R5CX123ABC");
    assert_string_equal(e.list[0].state, "device");
    assert_string_equal(e.list[0].model, "SM_S938B");
    assert_string_equal(e.list[1].state,
                        "no permissions (user in plugdev group; are your udev rules wrong?); see "
                        "[http://developer.android.com/tools/device.html]");
    assert_string_equal(e.list[2].state, "unauthorized");
    assert_string_equal(e.list[2].model, "");
    assert_string_equal(e.list[3].state, "offline");
    fv_adb_entries_free(&e);

    assert_int_equal(list_of(&e, "adb: unknown command devices\n"), FV_ERR_FORMAT);
    assert_int_equal(list_of(&e, "List of devices attached\nR5CX123ABC\n"), FV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "line 1"));
    fv_adb_entries_free(&e);
}

static void test_pick(void **state)
{
    fv_adb_entries e;
    size_t index = 9;
    (void)state;
    assert_int_equal(list_of(&e, several), FV_OK);
    assert_int_equal(fv_adb_pick(&e, NULL, &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "4 phones, and none is chosen: R5CX123ABC (SM_S938B), "));
    assert_int_equal(fv_adb_pick(&e, "R5CX123ABC", &index, &err), FV_OK);
    assert_int_equal(index, 0);
    assert_int_equal(fv_adb_pick(&e, "0123456789", &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "udev rules"));
    assert_int_equal(fv_adb_pick(&e, "192.168.1.7:5555", &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "not authorised"));
    assert_int_equal(fv_adb_pick(&e, "emulator-5554", &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "offline"));
    assert_int_equal(fv_adb_pick(&e, "R5CX123AB", &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "knows no such phone"));
    fv_adb_entries_free(&e);

    assert_int_equal(list_of(&e, "List of devices attached\n\n"), FV_OK);
    assert_int_equal(fv_adb_pick(&e, NULL, &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "USB debugging"));
    fv_adb_entries_free(&e);
    assert_int_equal(list_of(&e, "List of devices attached\nA recovery\n"), FV_OK);
    assert_int_equal(fv_adb_pick(&e, NULL, &index, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "start Android"));
    fv_adb_entries_free(&e);
}

/* ---------------------------------------------------------------- facts */

static fv_device_facts facts_of(const char *text)
{
    fv_device_facts f;
    assert_int_equal(fv_device_facts_parse(&f, text, strlen(text), &err), FV_OK);
    return f;
}

static void test_facts(void **state)
{
    (void)state;
    fv_device_facts f = facts_of(
        "ro.product.model=SM-S938B\nro.product.manufacturer=samsung\nro.build.version.release=15\n"
        "ro.build.version.sdk=35\nro.product.cpu.abi=arm64-v8a\nro.soc.model=SM8750P\n"
        "ro.board.platform=sun\nmachine=aarch64\npage=16384\npage=\nMemTotal=11534336 kB\n"
        "MemAvailable=5767168 kB\n"
        "df=Filesystem       1K-blocks     Used Available Use% Mounted on\n"
        "df=/dev/block/dm-56 115343360 40265318  75078042  35% /data\nend\n");
    assert_string_equal(f.model, "SM-S938B");
    assert_int_equal(f.api_level, 35);
    assert_true(f.has_chip && f.chip.htp_version == 79);
    assert_string_equal(f.chip.name, "SM8750");
    assert_int_equal(f.page_bytes, 16384);
    assert_int_equal(f.memory_bytes, UINT64_C(11534336) << 10);
    assert_int_equal(f.free_bytes, UINT64_C(75078042) << 10);

    /* the board where the chip is not named; never against a name */
    f = facts_of("ro.board.platform=pineapple\nend\n");
    assert_true(f.has_chip && f.chip.htp_version == 75);
    f = facts_of("ro.soc.model=MT6989\nro.board.platform=sun\nend\n");
    assert_false(f.has_chip);
    f = facts_of("page=-1\nMemTotal=99999999999999999999 kB\nro.build.version.sdk=x\nend\n");
    assert_true(f.page_bytes == 0 && f.memory_bytes == 0 && f.api_level == 0);
    assert_int_equal(fv_device_facts_parse(&f, "page=4096\nen", 12, &err), FV_ERR_FORMAT);
}

/* ---------------------------------------------------------------- files */

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
#define ONES  "1111111111111111111111111111111111111111111111111111111111111111"

/* What the answer says of one file of 7 bytes whose hash is ZEROS. */
static void file_of(const char *answer, bool *there, bool *unsure)
{
    fv_push_file file = { .remote = (char *)(uintptr_t) "bin/fastvlm", .n_bytes = 7 };
    fv_push_set set = { .list = &file, .n = 1 };
    memcpy(file.sha256, ZEROS, sizeof ZEROS);
    assert_int_equal(fv_push_answer_parse(&set, unsure, answer, strlen(answer), &err), FV_OK);
    *there = file.there;
}

static void test_files(void **state)
{
    static const struct {
        const char *answer;
        bool there, unsure;
    } cases[] = {
        { "end\n", false, false },
        { "--\nend\n", false, false },
        { ZEROS " 7 100 bin/fastvlm\n--\n7 100 bin/fastvlm\nend\n", true, false },
        /* entered with another hash: it has changed here */
        { ONES " 7 100 bin/fastvlm\n--\n7 100 bin/fastvlm\nend\n", false, false },
        /* the last line counts */
        { ONES " 7 90 bin/fastvlm\n" ZEROS " 7 100 bin/fastvlm\n--\n7 100 bin/fastvlm\nend\n", true,
          false },
        /* touched since, or never entered: the phone is to hash it */
        { ZEROS " 7 100 bin/fastvlm\n--\n7 101 bin/fastvlm\nend\n", false, true },
        { "--\n7 100 bin/fastvlm\nend\n", false, true },
        /* of another size, gone, or of another name */
        { ZEROS " 7 100 bin/fastvlm\n--\n6 100 bin/fastvlm\nend\n", false, false },
        { ZEROS " 7 100 bin/fastvlm\n--\nend\n", false, false },
        { ZEROS " 7 100 bin/fastvlm2\n--\n7 100 bin/fastvlm2\nend\n", false, false },
        { "garbage\n" ZEROS "\n" ZEROS " x\n--\nx\n7\n7 \nend\n", false, false },
    };
    bool there, unsure;
    (void)state;
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        file_of(cases[i].answer, &there, &unsure);
        if (there != cases[i].there || unsure != cases[i].unsure)
            fail_msg("case %zu: there %d, unsure %d", i, there, unsure);
    }
    fv_push_set none = { 0 };
    assert_int_equal(fv_push_answer_parse(&none, &unsure, "--\n", 3, &err), FV_ERR_FORMAT);

    char *name = fv_push_name("some where/-my model,'v2'.gguf");
    assert_string_equal(name, "_my_model__v2_.gguf");
    fv_free(name);
}

/* ---------------------------------------------------------------- the program */

/* An ELF file with one loaded segment and, if interpreter is not NULL, the path of a loader. */
static size_t elf_make(uint8_t *to, unsigned machine, uint64_t align, const char *interpreter)
{
    size_t n = interpreter ? 2 : 1, text = 64 + 56 * n;
    memset(to, 0, 512);
    memcpy(to, "\177ELF\2\1\1", 7);
    to[18] = (uint8_t)machine;
    to[32] = 64;
    to[54] = 56;
    to[56] = (uint8_t)n;
    to[64] = 1;
    memcpy(to + 64 + 48, &align, 8);
    if (interpreter) {
        to[120] = 3;
        to[128] = (uint8_t)text;
        to[120 + 32] = (uint8_t)(strlen(interpreter) + 1);
        memcpy(to + text, interpreter, strlen(interpreter));
    }
    return text + 64;
}

static void test_program(void **state)
{
    uint8_t elf[512];
    fv_device_facts phone = { .machine = "aarch64", .android = "15", .page_bytes = 16384 };
    (void)state;
    size_t n = elf_make(elf, 183, 65536, NULL);
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_OK);
    n = elf_make(elf, 183, 16384, "/system/bin/linker64");
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_OK);
    n = elf_make(elf, 183, 4096, NULL);
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "aligned to 4096 bytes, the phone's pages have 16384"));
    n = elf_make(elf, 62, 65536, NULL);
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "p: built for x86-64, the phone is aarch64"));
    n = elf_make(elf, 183, 65536, "/lib/ld-linux-aarch64.so.1");
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "/lib/ld-linux-aarch64.so.1"));
    phone.android[0] = '\0'; /* Linux on a Snapdragon has that loader */
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_OK);
    elf[56] = 200;
    assert_int_equal(fv_device_program_check(elf, n, "p", &phone, &err), FV_ERR_FORMAT);
    assert_int_equal(fv_device_program_check(elf, 40, "p", &phone, &err), FV_ERR_FORMAT);
}

/* ---------------------------------------------------------------- text */

static void text_join(void *user, const char *text, size_t n)
{
    char *to = user;
    assert_true(strlen(to) + n < 200);
    strncat(to, text, n);
}

/* Whole characters, whatever the cuts; one newline at the end is the program's. */
static void test_stream(void **state)
{
    static const char said[] = "a \xe2\x80\x9cred\xe2\x80\x9d\nst\xff\xe2\x82\n\n\n";
    static const char meant[] = "a \xe2\x80\x9cred\xe2\x80\x9d\nst\xef\xbf\xbd\xef\xbf\xbd\n\n";
    (void)state;
    for (size_t step = 1; step < sizeof said; step++) {
        char got[200] = "";
        fv_device_stream s = { .text = text_join, .user = got };
        for (size_t at = 0; at < sizeof said - 1; at += step)
            fv_device_stream_add(&s, said + at, FV_MIN(step, sizeof said - 1 - at));
        assert_int_equal(fv_device_stream_end(&s, &err), FV_OK);
        assert_string_equal(got, meant);
        assert_string_equal(s.kept, meant);
        fv_device_stream_free(&s);
    }
    fv_device_stream none = { 0 };
    assert_int_equal(fv_device_stream_end(&none, &err), FV_OK);
    assert_int_equal(none.n, 0);
    fv_device_stream_free(&none);
}

static void test_shell_text(void **state)
{
    fv_shell_text t = { 0 };
    (void)state;
    fv_shell_add(&t, "cd ");
    fv_shell_quote(&t, "it's $(not) run");
    fv_shell_add(&t, " && %d", 7);
    assert_int_equal(fv_shell_done(&t, &err), FV_OK);
    assert_string_equal(t.text, "cd 'it'\\''s $(not) run' && 7");
    fv_shell_text_free(&t);
    fv_mem_fail_after(0);
    fv_shell_add(&t, "x");
    fv_mem_fail_after(UINT64_MAX);
    assert_int_equal(fv_shell_done(&t, &err), FV_ERR_MEMORY);
    fv_shell_text_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),       cmocka_unit_test(test_pick),
        cmocka_unit_test(test_facts),      cmocka_unit_test(test_files),
        cmocka_unit_test(test_program),    cmocka_unit_test(test_stream),
        cmocka_unit_test(test_shell_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
