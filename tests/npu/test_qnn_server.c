/* npu/qnn_child.c: a child that stays. It answers calls in memory that both see; its failures, its
 * death and the caller's wish to stop become the call's status; nothing is left behind. */
#include "support/cm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "npu/qnn_child.h"

enum { NUMBERS = 300000, ADD = 1, FAIL, DIE, HANG, PRINT, TELL };

/* What both processes see. */
typedef struct numbers {
    int calls; /* that the child has answered */
    int in[NUMBERS], out[NUMBERS];
} numbers;

typedef struct adder {
    int base; /* set before the child is there */
    int kept; /* the child's own */
    bool fails, dies;
} adder;

static fv_status adder_open(void *user, fv_qnn_child *child, fv_error *err)
{
    adder *a = user;
    (void)child;
    if (a->dies)
        raise(SIGSEGV);
    if (a->fails)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 7, "the library is too old");
    a->kept = a->base;
    return FV_OK;
}

static fv_status adder_answer(void *user, fv_qnn_child *child, unsigned what, fv_error *err)
{
    adder *a = user;
    numbers *n = fv_qnn_child_shared(child);
    switch (what) {
    case ADD:
        for (size_t i = 0; i < NUMBERS; i++)
            n->out[i] = n->in[i] + a->kept;
        a->kept++;
        n->calls++;
        return FV_OK;
    case FAIL:
        fprintf(stderr, "a line on an error\n");
        return fv_fail(err, FV_ERR_MEMORY, 0, "full");
    case DIE:
        fprintf(stderr, "its last words\n");
        raise(SIGSEGV);
        return FV_OK;
    case PRINT:
        printf("# LIBNATIVE: %d\n\n", a->kept); /* no answer, though standard output is a pipe */
        fflush(stdout);
        return FV_OK;
    case TELL:
        fv_qnn_child_tell(child, 0.25);
        usleep(300000);
        return FV_OK;
    default:
        for (;;)
            pause();
    }
}

static fv_qnn_server_options options_of(adder *a)
{
    return (fv_qnn_server_options){ .open = adder_open,
                                    .answer = adder_answer,
                                    .user = a,
                                    .name = "adder",
                                    .stage = "npu",
                                    .shared_bytes = sizeof(numbers) };
}

static fv_qnn_server *adder_start(adder *a)
{
    fv_qnn_server *s;
    fv_error err;
    const fv_qnn_server_options o = options_of(a);
    if (fv_qnn_server_open(&s, &o, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    return s;
}

static void assert_nothing_left(unsigned descriptors)
{
    unsigned n = 0;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    assert_int_equal(n, descriptors);
}

static unsigned descriptors_now(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void must(fv_qnn_server *s, unsigned what)
{
    fv_error err;
    if (fv_qnn_server_call(s, what, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
}

static void test_calls(void **state)
{
    adder a = { .base = 1000 };
    unsigned before = descriptors_now();
    (void)state;
    fv_qnn_server *s = adder_start(&a);
    numbers *n = fv_qnn_server_shared(s);
    a.base = 5; /* the child has its own */
    for (int k = 0; k < 50; k++) {
        for (int i = 0; i < NUMBERS; i++)
            n->in[i] = i * k;
        must(s, ADD);
        for (int i = 0; i < NUMBERS; i++)
            assert_int_equal(n->out[i], i * k + 1000 + k);
    }
    assert_int_equal(n->calls, 50);
    must(s, PRINT);
    must(s, ADD); /* what was printed did not count as an answer */
    assert_int_equal(n->calls, 51);
    assert_false(fv_qnn_server_ended(s));
    fv_qnn_server_close(s);
    fv_qnn_server_close(NULL);
    assert_nothing_left(before);
}

static void count_line(void *user, fv_log_level level, const char *message)
{
    char *lines = user;
    (void)level;
    snprintf(lines + strlen(lines), 200 - strlen(lines), "%s;", message);
}

/* A failed call is a message; the child lives on. */
static void test_failing_answer(void **state)
{
    adder a = { .base = 1 };
    fv_error err;
    char lines[200] = "";
    fv_callbacks callbacks = { .size = sizeof callbacks, .log = count_line, .user = lines };
    (void)state;
    fv_qnn_server *s = adder_start(&a);
    assert_int_equal(fv_qnn_server_call(s, FAIL, &callbacks, &err), FV_ERR_MEMORY);
    assert_string_equal(err.message, "full");
    assert_string_equal(lines, "QNN: a line on an error;");
    must(s, ADD);
    fv_qnn_server_close(s);
}

static void test_dying_child(void **state)
{
    adder a = { .base = 1 };
    fv_error err;
    unsigned before = descriptors_now();
    (void)state;
    fv_qnn_server *s = adder_start(&a);
    assert_int_equal(fv_qnn_server_call(s, DIE, NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "adder: ended with signal 11 (SIGSEGV): its last words"));
    assert_true(fv_qnn_server_ended(s));
    assert_int_equal(fv_qnn_server_call(s, ADD, NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "signal 11"));
    fv_qnn_server_close(s);
    assert_nothing_left(before);
}

static void test_opening_fails(void **state)
{
    adder fails = { .fails = true }, dies = { .dies = true };
    unsigned before = descriptors_now();
    fv_qnn_server *s = (fv_qnn_server *)&fails;
    fv_error err;
    (void)state;
    fv_qnn_server_options o = options_of(&fails);
    assert_int_equal(fv_qnn_server_open(&s, &o, NULL, &err), FV_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "the library is too old");
    assert_int_equal(err.at, 7);
    assert_null(s);
    o = options_of(&dies);
    assert_int_equal(fv_qnn_server_open(&s, &o, NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "signal 11"));
    assert_null(s);
    o = options_of(&fails);
    o.shared_bytes = SIZE_MAX / 2;
    assert_int_equal(fv_qnn_server_open(&s, &o, NULL, &err), FV_ERR_MEMORY);
    assert_nothing_left(before);
}

/* Stops at the third look; notes what it was told. */
typedef struct looker {
    int looks;
    double done;
    bool stops;
} looker;

static bool look(void *user, const char *stage, double done)
{
    looker *l = user;
    assert_string_equal(stage, "npu");
    l->done = done;
    l->looks++;
    return l->stops && l->looks >= 3;
}

static void test_progress_and_stopping(void **state)
{
    adder a = { .base = 1 };
    looker l = { 0 };
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = look, .user = &l };
    unsigned before = descriptors_now();
    fv_error err;
    (void)state;
    fv_qnn_server *s = adder_start(&a);
    assert_int_equal(fv_qnn_server_call(s, TELL, &callbacks, &err), FV_OK);
    assert_true(l.looks >= 1 && l.done == 0.25);
    l = (looker){ .stops = true };
    assert_int_equal(fv_qnn_server_call(s, HANG, &callbacks, &err), FV_ERR_CANCELLED);
    assert_string_equal(err.message, "adder: cancelled");
    assert_int_equal(l.looks, 3);
    assert_true(fv_qnn_server_ended(s));
    assert_int_equal(fv_qnn_server_call(s, ADD, NULL, &err), FV_ERR_CANCELLED);
    fv_qnn_server_close(s);
    assert_nothing_left(before);
}

static void test_memory(void **state)
{
    adder a = { .base = 1 };
    fv_qnn_server *s;
    fv_error err;
    const fv_qnn_server_options o = options_of(&a);
    int64_t live = fv_mem_live();
    (void)state;
    for (uint64_t n = 0; n < 3; n++) {
        fv_mem_fail_after(n);
        fv_status status = fv_qnn_server_open(&s, &o, NULL, &err);
        fv_mem_fail_after(UINT64_MAX);
        if (status == FV_OK)
            fv_qnn_server_close(s);
        else
            assert_int_equal(status, FV_ERR_MEMORY);
        assert_int_equal(fv_mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),       cmocka_unit_test(test_failing_answer),
        cmocka_unit_test(test_dying_child), cmocka_unit_test(test_opening_fails),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_progress_and_stopping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
