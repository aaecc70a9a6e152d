/* base/map.c */
#include "support/cm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

static char dir[] = "/tmp/fv_test_map_XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static char *put_file(const char *name, size_t n_bytes)
{
    char *path = fv_path_join(dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < n_bytes; i++)
        fputc((int)(i * 7 + i / 4096) & 0xff, file);
    fclose(file);
    return path;
}

static void test_map_reads_the_file(void **state)
{
    (void)state;
    const size_t n = 5 * 4096 + 100;
    char *path = put_file("data", n);
    fv_map map;

    assert_int_equal(fv_map_open(&map, path, NULL), FV_OK);
    assert_int_equal(map.size, n);
    fv_map_advise(&map, 0, n, true);
    fv_map_advise(&map, 100, 9000, false);
    fv_map_advise(&map, n - 1, SIZE_MAX, false);
    fv_map_advise(&map, n + 1, 1, true);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(map.data[i], (i * 7 + i / 4096) & 0xff);
    fv_map_close(&map);
    assert_null(map.data);
    fv_map_close(&map);
    unlink(path);
    fv_free(path);
}

static void test_empty_file(void **state)
{
    (void)state;
    char *path = put_file("empty", 0);
    fv_map map;
    uint8_t *data;
    size_t n;

    assert_int_equal(fv_map_open(&map, path, NULL), FV_OK);
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    fv_map_advise(&map, 0, 1, true);
    fv_map_close(&map);
    assert_int_equal(fv_read_file(&data, &n, path, 0, NULL), FV_OK);
    assert_int_equal(n, 0);
    assert_int_equal(data[0], 0);
    fv_free(data);
    unlink(path);
    fv_free(path);
}

static void test_missing_and_directory(void **state)
{
    (void)state;
    fv_error err;
    fv_map map;
    uint8_t *data;
    size_t n;

    assert_int_equal(fv_map_open(&map, "/nowhere/at/all", &err), FV_ERR_IO);
    assert_string_equal(err.message, "/nowhere/at/all: cannot open: No such file or directory");
    assert_null(map.data);
    assert_int_equal(fv_map_open(&map, dir, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "is a directory, expected a file"));
    assert_int_equal(fv_read_file(&data, &n, dir, 10, &err), FV_ERR_IO);
    assert_null(data);
    assert_true(fv_is_dir(dir) && !fv_is_file(dir));
    assert_false(fv_is_dir("/nowhere") || fv_is_file("/nowhere"));
}

static void test_read_file_keeps_its_limit(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 65533, 65534, 65535, 65536, 200000 };
    fv_error err;
    uint8_t *data;
    size_t n;

    for (size_t i = 0; i < FV_COUNT(sizes); i++) {
        char *path = put_file("read", sizes[i]);
        assert_true(fv_is_file(path));
        assert_int_equal(fv_read_file(&data, &n, path, sizes[i], NULL), FV_OK);
        assert_int_equal(n, sizes[i]);
        assert_int_equal(data[n], 0);
        assert_int_equal(data[n - 1], ((n - 1) * 7 + (n - 1) / 4096) & 0xff);
        fv_free(data);
        assert_int_equal(fv_read_file(&data, &n, path, sizes[i] - 1, &err), FV_ERR_LIMIT);
        assert_null(data);
        unlink(path);
        fv_free(path);
    }
}

/* Pipes have no size to go by; no more is read than a byte past the limit. */
static void test_pipe(void **state)
{
    (void)state;
    static const char text[40000] = { 'x' };
    static char rest[sizeof text];
    for (int limited = 0; limited < 2; limited++) {
        int ends[2];
        uint8_t *data;
        size_t n;
        char path[64];

        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], text, sizeof text), sizeof text);
        if (!limited) {
            close(ends[1]);
            ends[1] = -1;
        }
        snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
        fv_status status = fv_read_file(&data, &n, path, limited ? 1000 : SIZE_MAX, NULL);
        assert_int_equal(status, limited ? FV_ERR_LIMIT : FV_OK);
        assert_int_equal(n, limited ? 0 : sizeof text);
        if (limited)
            assert_int_equal(read(ends[0], rest, sizeof rest), sizeof text - 1001);
        fv_free(data);
        close(ends[0]);
        if (ends[1] >= 0)
            close(ends[1]);
    }
}

static void test_devices_are_not_read(void **state)
{
    (void)state;
    static const char *const paths[] = { "/dev/zero", "/dev/null", "/dev/urandom" };
    for (size_t i = 0; i < FV_COUNT(paths); i++) {
        uint8_t *data;
        size_t n;
        fv_error err;
        assert_int_equal(fv_read_file(&data, &n, paths[i], 100, &err), FV_ERR_IO);
        assert_null(data);
        assert_non_null(strstr(err.message, ": is a device, expected a file"));
    }
}

/* A fifo cannot be mapped, and must not be waited for: it is refused after opening. */
static void test_device_is_not_mapped(void **state)
{
    (void)state;
    fv_map map;
    fv_error err;
    assert_int_equal(fv_map_open(&map, "/dev/null", &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "not a regular file"));
}

static void test_read_survives_failing_memory(void **state)
{
    (void)state;
    char *path = put_file("memory", 100);
    int64_t live = fv_mem_live();
    uint8_t *data;
    size_t n;
    fv_error err;

    fv_mem_fail_after(0);
    assert_int_equal(fv_read_file(&data, &n, path, 1000, &err), FV_ERR_MEMORY);
    assert_null(fv_path_join("a", "b"));
    fv_mem_fail_after(UINT64_MAX);
    assert_int_equal(fv_mem_live(), live);
    unlink(path);
    fv_free(path);
}

static void test_paths(void **state)
{
    (void)state;
    static const char *cases[][3] = {
        { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" }, { "/", "b", "/b" }
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        char *path = fv_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        fv_free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_reads_the_file),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_missing_and_directory),
        cmocka_unit_test(test_read_file_keeps_its_limit),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_devices_are_not_read),
        cmocka_unit_test(test_device_is_not_mapped),
        cmocka_unit_test(test_read_survives_failing_memory),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
