/* Lines of a file where poll gives nothing. What lines are is in fuzz_row and tests/cli. */
#include "support/cm.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "batch/line_reader.h"

enum { MOST_ASKED = 20 };

static bool ask_a_few_times(void *user, const char *stage, double done)
{
    int *n = user;
    (void)stage;
    (void)done;
    return ++*n > MOST_ASKED;
}

/* poll takes no more files than may be open: with a limit of 0 it fails. */
static void test_poll_fails(void **state)
{
    (void)state;
    static const char text[] = "one\ntwo";
    char path[] = "/tmp/fv_lines_XXXXXX";
    int fd = mkstemp(path), n_asked = 0;
    const fv_callbacks callbacks = { .size = sizeof callbacks,
                                     .progress = ask_a_few_times,
                                     .user = &n_asked };
    fv_error err = { 0 };
    fv_line_reader l;
    fv_line line;
    bool found = false;
    struct rlimit before, none;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    assert_int_equal(fv_line_reader_open(&l, path, 100, &callbacks, &err), FV_OK);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    fv_status status = fv_line_reader_next(&l, &line, &found, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (status != FV_OK)
        fail_msg("asked %d times: %s", n_asked, err.message);
    assert_true(found && line.n == 3);
    assert_memory_equal(line.text, "one", 3);
    fv_line_reader_close(&l);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_poll_fails) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
