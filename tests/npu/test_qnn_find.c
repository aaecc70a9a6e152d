/* npu/qnn_find.c: which directory is taken, what a file is, and what is said when a library cannot
 * be opened. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "npu/qnn_find.h"

static char root[64];

static int root_make(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/fv-test-qnn-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int root_remove(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static const char *in_root(const char *name)
{
    static char path[4][300];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

/* A file with these bytes and the directories above it. */
static void file_put(const char *name, const void *bytes, size_t n)
{
    char command[400];
    snprintf(command, sizeof command, "mkdir -p $(dirname %s)", in_root(name));
    assert_int_equal(system(command), 0);
    FILE *f = fopen(in_root(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void environment_clear(void)
{
    unsetenv("FV_QNN_DIR");
    unsetenv("QNN_SDK_ROOT");
    setenv("XDG_DATA_HOME", in_root("none"), 1);
}

static void assert_found(const char *dir, const char *wanted, const char *wanted_by)
{
    char *found;
    const char *by;
    fv_error err;
    if (fv_qnn_find(&found, &by, dir, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_string_equal(found, in_root(wanted));
    assert_string_equal(by, wanted_by);
    fv_free(found);
}

static void assert_not_found(const char *dir, const char *message)
{
    char *found;
    const char *by;
    fv_error err;
    assert_int_equal(fv_qnn_find(&found, &by, dir, &err), FV_ERR_IO);
    assert_null(found);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" lacks \"%s\"", err.message, message);
}

static void test_directories(void **state)
{
    (void)state;
    environment_clear();
    assert_not_found(NULL, "no QNN libraries: FV_QNN_DIR and QNN_SDK_ROOT are not set, and ");
    file_put("plain/libQnnHtp.so", "", 0);
    file_put("wheel/onnxruntime_qnn/libQnnSystem.so", "", 0);
#if defined(__x86_64__)
    file_put("sdk/lib/x86_64-linux-clang/libQnnCpu.so", "", 0);
    assert_found(in_root("sdk"), "sdk/lib/x86_64-linux-clang", "qnn_dir");
#endif
    file_put("empty/readme", "", 0);
    assert_found(in_root("plain"), "plain", "qnn_dir");
    assert_found(in_root("wheel"), "wheel/onnxruntime_qnn", "qnn_dir");
    assert_not_found(in_root("empty"), "/empty: no QNN library in it; expected");

    /* Who comes first; one that is named wrongly is not passed over. */
    setenv("QNN_SDK_ROOT", in_root("plain"), 1);
    assert_found(NULL, "plain", "QNN_SDK_ROOT");
    setenv("FV_QNN_DIR", in_root("wheel"), 1);
    assert_found(NULL, "wheel/onnxruntime_qnn", "FV_QNN_DIR");
    setenv("FV_QNN_DIR", in_root("empty"), 1);
    assert_not_found(NULL, "/empty: no QNN library in it (named by FV_QNN_DIR)");
    setenv("FV_QNN_DIR", "", 1);
    assert_found("", "plain", "QNN_SDK_ROOT");
}

static void test_newest_of_those_set_up(void **state)
{
    (void)state;
    environment_clear();
    setenv("XDG_DATA_HOME", in_root("data"), 1);
    assert_not_found(NULL, "/data/fastvlm/qnn has none");
    file_put("data/fastvlm/qnn/2.9.0/onnxruntime_qnn/libQnnHtp.so", "", 0);
    file_put("data/fastvlm/qnn/2.10.0/onnxruntime_qnn/libQnnHtp.so", "", 0);
    file_put("data/fastvlm/qnn/2.11.0/readme", "", 0); /* no library */
    file_put("data/fastvlm/qnn/3.0.0.part-17/onnxruntime_qnn/libQnnHtp.so", "", 0);
    assert_found(NULL, "data/fastvlm/qnn/2.10.0/onnxruntime_qnn", "setup");

    /* Without XDG_DATA_HOME, or with a relative one, below HOME. */
    file_put(".local/share/fastvlm/qnn/1.2.3/libQnnHtp.so", "", 0);
    char *before = fv_strdup(getenv("HOME"));
    setenv("HOME", root, 1);
    setenv("XDG_DATA_HOME", "relative", 1);
    assert_found(NULL, ".local/share/fastvlm/qnn/1.2.3", "setup");
    unsetenv("XDG_DATA_HOME");
    assert_found(NULL, ".local/share/fastvlm/qnn/1.2.3", "setup");
    unsetenv("HOME");
    assert_not_found(NULL, "neither XDG_DATA_HOME nor HOME is set");
    setenv("HOME", before, 1);
    fv_free(before);
}

static void test_versions(void **state)
{
    (void)state;
    static const char *const bad[] = { "",     "2",        "2.7",    "2.7.0.1",   "2.7.",
                                       ".7.0", "2.7.x",    "2.7.0 ", "-2.7.0",    "2.7.00000",
                                       "2..0", "2.7.0\n1", "../..",  "2.7.0/../", "+2.7.0" };
    unsigned v[3];
    assert_true(fv_qnn_version_parse("2.70.1234", v));
    assert_true(v[0] == 2 && v[1] == 70 && v[2] == 1234);
    for (size_t i = 0; i < FV_COUNT(bad); i++)
        if (fv_qnn_version_parse(bad[i], v))
            fail_msg("\"%s\" is a version", bad[i]);
}

/* ---- what a file is ---- */

static void assert_elf(const uint8_t *head, size_t n, fv_status status, const char *message)
{
    fv_error err = { 0 };
    assert_int_equal(fv_elf_check(head, n, "x.so", &err), status);
    if (status != FV_OK && !strstr(err.message, message))
        fail_msg("\"%s\" lacks \"%s\"", err.message, message);
}

static void test_elf_headers(void **state)
{
    (void)state;
    uint8_t own[64], head[64];
    FILE *f = fopen(FV_FAKE_QNN "/libQnnHtp.so", "rb");
    assert_non_null(f);
    assert_int_equal(fread(own, 1, sizeof own, f), sizeof own);
    fclose(f);
    assert_elf(own, sizeof own, FV_OK, "");
    assert_elf(own, 0, FV_ERR_FORMAT, "x.so: the file is empty");
    assert_elf((const uint8_t *)"GGUF....", 8, FV_ERR_FORMAT, "expected an ELF file");
    assert_elf(own, 63, FV_ERR_FORMAT, "truncated: an ELF header has 64 bytes, found 63");

    static const struct {
        uint8_t machine;
        const char *message;
    } others[] = { { 3, "for 32-bit x86, expected" },
                   { 40, "for 32-bit Arm, expected" },
                   { 164, "for Hexagon, expected" },
                   { 99, "for another processor, expected" } };
    for (size_t i = 0; i < FV_COUNT(others); i++) {
        memcpy(head, own, sizeof head);
        head[18] = others[i].machine;
        assert_elf(head, sizeof head, FV_ERR_UNSUPPORTED, others[i].message);
    }
    memcpy(head, own, sizeof head);
    head[18] = own[18] == 62 ? 183 : 62;
    assert_elf(head, sizeof head, FV_ERR_UNSUPPORTED,
               own[18] == 62 ? "x.so: for 64-bit Arm, expected x86-64"
                             : "x.so: for x86-64, expected 64-bit Arm");
    memcpy(head, own, sizeof head);
    head[5] = 2;
    assert_elf(head, sizeof head, FV_ERR_UNSUPPORTED, "for a big-endian processor");
    memcpy(head, own, sizeof head);
    head[16] = 2;
    assert_elf(head, sizeof head, FV_ERR_UNSUPPORTED, "not a shared library (ELF type 2");
}

/* ---- opening ---- */

static void assert_open_fails(const char *dir, const char *name, fv_status status,
                              const char *message)
{
    fv_qnn_library library;
    fv_error err;
    assert_int_equal(fv_qnn_library_open(&library, dir, name, &err), status);
    if (!strstr(err.message, message))
        fail_msg("\"%s\" lacks \"%s\"", err.message, message);
}

static void test_library_open_failures(void **state)
{
    (void)state;
    uint8_t own[64];
    FILE *f = fopen(FV_FAKE_QNN "/libQnnHtp.so", "rb");
    assert_non_null(f);
    assert_int_equal(fread(own, 1, sizeof own, f), sizeof own);
    fclose(f);

    assert_open_fails(root, "libQnnNone.so", FV_ERR_IO, "/libQnnNone.so: no such library");
    file_put("bad/text.so", "not a library", 13);
    assert_open_fails(in_root("bad"), "text.so", FV_ERR_FORMAT, "not a library: expected an ELF");
    file_put("bad/short.so", own, sizeof own); /* only a header: dlopen's to refuse */
    assert_open_fails(in_root("bad"), "short.so", FV_ERR_IO, "short.so: cannot be loaded: ");

    assert_open_fails(FV_FAKE_QNN, "libneeds-atomic.so", FV_ERR_IO,
                      "needs the library libatomic-absent.so, which is not there");
    assert_open_fails(FV_FAKE_QNN, "libneeds-c++.so", FV_ERR_IO,
                      "needs the library libc++-absent.so, which is not there; it comes with the "
                      "wheel, in onnxruntime_qnn.libs beside this directory");
}

static void test_interfaces(void **state)
{
    (void)state;
    fv_qnn_library library;
    const fv_qnn_provider *backend;
    const fv_qnn_system *functions;
    fv_error err;

    unsetenv("FAKE_QNN");
    assert_int_equal(fv_qnn_library_open(&library, FV_FAKE_QNN, "libQnnHtp.so", &err), FV_OK);
    assert_int_equal(fv_qnn_backend_functions(&backend, &library, &err), FV_OK);
    assert_int_equal(backend->backend_id, FV_QNN_BACKEND_HTP);

    setenv("FAKE_QNN", "api=2.10", 1);
    assert_int_equal(fv_qnn_backend_functions(&backend, &library, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "QNN API 2.10.0, expected 2.27 or a later one"));
    setenv("FAKE_QNN", "api=3.40", 1);
    assert_int_equal(fv_qnn_backend_functions(&backend, &library, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "QNN API 3.40.0, expected 2.27"));
    setenv("FAKE_QNN", "providers=0", 1);
    assert_int_equal(fv_qnn_backend_functions(&backend, &library, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "offers 0 interfaces"));
    setenv("FAKE_QNN", "fail=QnnInterface_getProviders:1002", 1);
    assert_int_equal(fv_qnn_backend_functions(&backend, &library, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "QnnInterface_getProviders: error 1002"));

    setenv("FAKE_QNN", "system_api=0.9", 1);
    assert_int_equal(fv_qnn_system_functions(&functions, &library, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "QNN system API 0.9.0, expected version 1"));
    unsetenv("FAKE_QNN");
    assert_int_equal(fv_qnn_system_functions(&functions, &library, &err), FV_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_newest_of_those_set_up),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_elf_headers),
        cmocka_unit_test(test_library_open_failures),
        cmocka_unit_test(test_interfaces),
    };
    return cmocka_run_group_tests(tests, root_make, root_remove);
}
