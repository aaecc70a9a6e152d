/* base/spawn.c, with /bin/sh and with this program itself (see child_main) as the other program. */
#include "support/cm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "base/spawn.h"

static const char *self; /* this program's path */
static bool emulated;    /* an emulator has the last word on standard error when it dies */

#define SHELL(script) ((const char *const[]){ "/bin/sh", "-c", script, NULL })
#define SELF(...)     ((const char *const[]){ self, "--child", __VA_ARGS__, NULL })

static void assert_no_children(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, text, n);
        assert_true(written > 0);
        text += written;
        n -= (size_t)written;
    }
}

/* ---- what the other program does --------------------------------------------------------- */

/* n bytes on each stream, a little on one, a little on the other. */
static int child_flood(size_t n)
{
    char block[1000];
    for (size_t at = 0; at < n; at += sizeof block) {
        memset(block, 'a' + (int)(at / sizeof block % 26), sizeof block);
        fwrite(block, 1, sizeof block, stdout);
        fwrite(block, 1, sizeof block, stderr);
    }
    return 0;
}

static int child_state(void)
{
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int number = 1; number < 32; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
            printf("signal %d is ignored\n", number);
        if (sigismember(&mask, number))
            printf("signal %d is blocked\n", number);
    }
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("descriptor %d is open\n", fd);
    printf("group %s\n", getpgrp() == getpid() ? "own" : "the caller's");
    return 0;
}

static int child_main(int argc, char **argv)
{
    const char *what = argv[2];
    if (strcmp(what, "flood") == 0)
        return child_flood((size_t)atol(argv[3]));
    if (strcmp(what, "state") == 0)
        return child_state();
    if (strcmp(what, "arguments") == 0)
        for (int i = 3; i < argc; i++)
            printf("[%s]\n", argv[i]);
    if (strcmp(what, "die") == 0) {
        fprintf(stderr, "going\n");
        signal(atoi(argv[3]), SIG_DFL);
        raise(atoi(argv[3]));
    }
    return 0;
}

/* ---- tests ------------------------------------------------------------------------------- */

static void test_output_and_exit_codes(void **state)
{
    (void)state;
    fv_spawn_result r;
    fv_error err;
    unsigned before = open_descriptors();

    fv_spawn_options o = { .argv = SHELL("printf hello; printf world >&2") };
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_OK);
    assert_int_equal(r.exit_code, 0);
    assert_int_equal(r.signal, 0);
    assert_int_equal(r.n_out, 5);
    assert_string_equal(r.out, "hello");
    assert_string_equal(r.err, "world");
    fv_spawn_result_free(&r);

    o.argv = SHELL(":");
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_OK);
    assert_string_equal(r.out, "");
    assert_string_equal(r.err, "");
    fv_spawn_result_free(&r);

    o.argv = SHELL("echo out; echo first >&2; echo 'why it failed' >&2; exit 7");
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    assert_string_equal(err.message, "/bin/sh: exit code 7: why it failed");
    assert_int_equal(r.exit_code, 7);
    assert_string_equal(r.out, "out\n");
    assert_string_equal(r.err, "first\nwhy it failed\n");
    fv_spawn_result_free(&r);

    o.any_exit_code = true;
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_int_equal(r.exit_code, 7);
    fv_spawn_result_free(&r);

    o = (fv_spawn_options){ .argv = SHELL("echo 'said on the wrong stream'; exit 1") };
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    assert_string_equal(err.message, "/bin/sh: exit code 1: said on the wrong stream");
    fv_spawn_result_free(&r);
    o.argv = SHELL("exit 255");
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    assert_string_equal(err.message, "/bin/sh: exit code 255");
    fv_spawn_result_free(&r);

    static const int numbers[] = { SIGKILL, SIGSEGV, SIGTERM };
    for (size_t i = 0; i < FV_COUNT(numbers); i++) {
        char number[16], want[64];
        snprintf(number, sizeof number, "%d", numbers[i]);
        snprintf(want, sizeof want, "ended with signal %d (SIG", numbers[i]);
        o.argv = SELF("die", number);
        assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
        assert_non_null(strstr(err.message, want));
        assert_non_null(strstr(emulated ? r.err : err.message, "going"));
        assert_int_equal(r.signal, numbers[i]);
        assert_int_equal(r.exit_code, -1);
        fv_spawn_result_free(&r);
    }
    assert_int_equal(open_descriptors(), before);
    assert_no_children();
}

/* ---- a function in the child instead of a program ---- */

typedef struct call_state {
    int value, fd;
    const char *what;
} call_state;

static int call_in_child(void *user)
{
    call_state *c = user;
    char text[64];
    c->value++; /* in the child's memory only */
    if (strcmp(c->what, "die") == 0)
        raise(SIGSEGV);
    if (strcmp(c->what, "wait") == 0)
        pause();
    int n = snprintf(text, sizeof text, "value %d, descriptor %s", c->value,
                     fcntl(c->fd, F_GETFD) < 0 ? "closed" : "open");
    write_all(1, text, (size_t)n);
    write_all(2, "going\n", 6);
    return strcmp(c->what, "fail") == 0 ? 9 : 0;
}

static bool call_never_stops(void *user)
{
    (void)user;
    return false;
}

static void test_function_in_a_child(void **state)
{
    (void)state;
    call_state c = { 41, open("/dev/null", O_RDONLY), "work" };
    fv_spawn_result r;
    fv_error err;
    fv_spawn_options o = { .argv = (const char *const[]){ "the worker", NULL },
                           .call = call_in_child,
                           .stop = call_never_stops,
                           .user = &c,
                           .directory = "/usr" };
    unsigned before = open_descriptors();

    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_OK);
    assert_string_equal(r.out, "value 42, descriptor closed");
    assert_string_equal(r.err, "going\n");
    assert_int_equal(c.value, 41);
    fv_spawn_result_free(&r);

    c.what = "fail";
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    assert_string_equal(err.message, "the worker: exit code 9: going");
    fv_spawn_result_free(&r);
    c.what = "die";
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    static const char died[] = "the worker: ended with signal 11 (SIGSEGV)";
    assert_memory_equal(err.message, died, sizeof died - emulated);
    fv_spawn_result_free(&r);
    c.what = "wait";
    o.timeout_ms = 50;
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_LIMIT);
    assert_string_equal(err.message, "the worker: not finished after 0.1 s, terminated");
    fv_spawn_result_free(&r);
    o.directory = "/nonexistent/folder";
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "the worker: cannot change to the directory"));
    fv_spawn_result_free(&r);
    close(c.fd);
    assert_int_equal(open_descriptors(), before - 1);
    assert_no_children();
}

static void test_not_startable(void **state)
{
    (void)state;
    static const char *const none[] = { NULL }, *const empty[] = { "", NULL };
    const struct {
        const char *const *argv;
        const char *directory, *message;
        fv_status status;
    } cases[] = {
        { (const char *const[]){ "fv-no-such-program", NULL }, NULL,
          "fv-no-such-program: program not found on PATH", FV_ERR_IO },
        { (const char *const[]){ "/nonexistent/program", NULL }, NULL,
          "/nonexistent/program: cannot be started: No such file", FV_ERR_IO },
        { (const char *const[]){ "/etc/passwd", NULL }, NULL,
          "/etc/passwd: cannot be started: Permission denied", FV_ERR_IO },
        { SHELL(":"), "/nonexistent/folder",
          "/bin/sh: cannot change to the directory /nonexistent/folder: No such file", FV_ERR_IO },
        { none, NULL, "argv names no program", FV_ERR_ARGUMENT },
        { empty, NULL, "argv names no program", FV_ERR_ARGUMENT },
        { NULL, NULL, "argv names no program", FV_ERR_ARGUMENT },
    };
    unsigned before = open_descriptors();
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_spawn_options o = { .argv = cases[i].argv, .directory = cases[i].directory };
        fv_spawn_result r;
        fv_error err;
        assert_int_equal(fv_spawn_run(&r, &o, &err), cases[i].status);
        if (!strstr(err.message, cases[i].message))
            fail_msg("\"%s\" lacks \"%s\"", err.message, cases[i].message);
        assert_int_equal(r.exit_code, -1);
        fv_spawn_result_free(&r);
    }
    assert_int_equal(open_descriptors(), before);
    assert_no_children();
}

/* No shell reads the arguments. */
static void test_arguments(void **state)
{
    (void)state;
    fv_spawn_result r;
    fv_spawn_options o = { .argv = SELF("arguments", "", "a b", "$HOME", "`id`", "\"'\\", "*\n?",
                                        "\xff\xfe") };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_string_equal(r.out, "[]\n[a b]\n[$HOME]\n[`id`]\n[\"'\\]\n[*\n?]\n[\xff\xfe]\n");
    fv_spawn_result_free(&r);
}

static void test_environment_and_directory(void **state)
{
    (void)state;
    static const char *const more[] = { "FV_ONE=1 = one", "FV_TWO", "FV_THREE=first", "FV_THREE=3",
                                        NULL };
    fv_spawn_result r;
    setenv("FV_ONE", "old", 1);
    setenv("FV_TWO", "old", 1);
    setenv("FV_KEPT", "kept", 1);
    fv_spawn_options o = {
        .argv = SHELL("echo \"$FV_ONE|${FV_TWO-unset}|$FV_THREE|$FV_KEPT\"; pwd"),
        .environment = more,
        .directory = "/usr",
    };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_string_equal(r.out, "1 = one|unset|3|kept\n/usr\n");
    assert_string_equal(getenv("FV_ONE"), "old");
    fv_spawn_result_free(&r);

    /* The PATH that the program will have is the one that it is looked for on. */
    static const char *const path[] = { "PATH=/nonexistent::/bin", NULL };
    o = (fv_spawn_options){ .argv = (const char *const[]){ "sh", "-c", "echo $PATH", NULL },
                            .environment = path };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_string_equal(r.out, "/nonexistent::/bin\n");
    fv_spawn_result_free(&r);
}

static void test_input(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    fv_spawn_result r;
    uint8_t *bytes = fv_alloc(N, 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < N; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    fv_spawn_options o = { .argv = SHELL("cat"), .input = bytes, .n_input_bytes = N };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_int_equal(r.n_out, N);
    assert_memory_equal(r.out, bytes, N);
    fv_spawn_result_free(&r);
    o.argv = SHELL("exit 0"); /* does not read it: no signal, no wait */
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    fv_spawn_result_free(&r);
    o = (fv_spawn_options){ .argv = SHELL("cat; echo end"), .input = "", .n_input_bytes = 0 };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_string_equal(r.out, "end\n");
    fv_spawn_result_free(&r);
    o.input = NULL;
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_string_equal(r.out, "end\n");
    fv_spawn_result_free(&r);
    fv_free(bytes);
}

/* A pipe in place of input: told what to do while it runs. */
static void pipe_line(void *user, bool is_error, const char *line, size_t n)
{
    int *ends = user;
    assert_false(is_error);
    if (n == 5 && !memcmp(line, "ready", 5)) {
        write_all(ends[1], "one\n", 4);
    } else if (n == 3 && !memcmp(line, "one", 3)) {
        close(ends[1]); /* the end of its input */
        ends[1] = -1;
    } else {
        assert_int_equal(n, 3);
        assert_memory_equal(line, "end", 3);
        ends[0] = -ends[0];
    }
}

static void test_input_pipe(void **state)
{
    (void)state;
    fv_spawn_result r;
    int ends[2] = { -1, -1 };
    fv_spawn_options o = { .argv = SHELL("echo ready; cat; echo end"),
                           .input_pipe = ends,
                           .line = pipe_line,
                           .user = ends };
    unsigned before = open_descriptors();
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_true(ends[0] < -2 && ends[1] == -1);
    close(-ends[0]);
    assert_int_equal(open_descriptors(), before);
    fv_spawn_result_free(&r);
}

/* Much on both streams at once; a pipe holds 64 KiB. */
static void test_flood(void **state)
{
    (void)state;
    fv_spawn_result r;
    fv_error err;
    fv_spawn_options o = { .argv = SELF("flood", "5000000"), .timeout_ms = 60000 };
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_OK);
    assert_int_equal(r.n_out, 5000000);
    assert_int_equal(r.n_err, 5000000);
    for (size_t i = 0; i < r.n_out; i += 1000)
        assert_true(r.out[i] == 'a' + (int)(i / 1000 % 26) && r.err[i + 999] == r.out[i]);
    fv_spawn_result_free(&r);

    o.max_output_bytes = 100000;
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_LIMIT);
    assert_non_null(strstr(err.message, "more than the 100000 bytes allowed on its standard "));
    assert_true(r.n_out <= 100000 && r.n_err <= 100000);
    fv_spawn_result_free(&r);
    o.argv = SELF("flood", "100000"); /* as many as are allowed */
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_OK);
    fv_spawn_result_free(&r);
    assert_no_children();
}

typedef struct lines {
    char text[400000];
    size_t n, calls, errors;
} lines;

static void note_line(void *user, bool is_error, const char *line, size_t n)
{
    lines *l = user;
    assert_true(l->n + n + 3 < sizeof l->text);
    l->text[l->n++] = is_error ? 'E' : 'O';
    memcpy(l->text + l->n, line, n);
    l->n += n;
    l->text[l->n++] = '|';
    l->calls++;
    l->errors += is_error;
}

typedef struct pairs {
    unsigned n_errors, n_lines, late; /* late: lines that were told before the error before them */
} pairs;

static void note_pair(void *user, bool is_error, const char *line, size_t n)
{
    pairs *p = user;
    (void)line;
    (void)n;
    p->n_errors += is_error;
    if (!is_error)
        p->late += p->n_errors < ++p->n_lines;
}

/* What is written to standard error before a line is told before it. */
static void test_errors_first(void **state)
{
    (void)state;
    pairs p = { 0 };
    fv_spawn_result r;
    const fv_spawn_options o = {
        .argv = SHELL("i=0; while [ $i -lt 3000 ]; do echo no >&2; echo yes; i=$((i+1)); done"),
        .line = note_pair,
        .user = &p
    };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    fv_spawn_result_free(&r);
    assert_int_equal(p.n_lines, 3000);
    assert_int_equal(p.late, 0);
}

static void test_lines(void **state)
{
    (void)state;
    static lines l;
    fv_spawn_result r;
    fv_spawn_options o = { .argv = SHELL("printf 'one\n\nthr'; sleep 0.1; printf 'ee\nlast'"),
                           .line = note_line,
                           .user = &l };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_null(r.out);
    assert_null(r.err);
    l.text[l.n] = '\0';
    assert_string_equal(l.text, "Oone|O|Othree|Olast|");
    fv_spawn_result_free(&r);

    l.n = l.calls = 0;
    o.argv = SHELL("echo bad >&2; exit 3");
    fv_error err;
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_IO);
    l.text[l.n] = '\0';
    assert_string_equal(l.text, "Ebad|");
    assert_string_equal(err.message, "/bin/sh: exit code 3: bad");
    fv_spawn_result_free(&r);

    /* 150,000 bytes without a newline come in pieces of 64 KiB: two whole ones and a rest. */
    l.n = l.calls = l.errors = 0;
    o.argv = SELF("flood", "150000");
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_int_equal(l.calls, 6);
    assert_int_equal(l.errors, 3);
    assert_int_equal(l.n, 300000 + 2 * 6);
    fv_spawn_result_free(&r);

    /* raw: what is there, without waiting for the line's end. */
    l.n = 0;
    o.raw = true;
    o.argv = SHELL("printf 'half'; sleep 0.2; printf ' a line\n\n'");
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    l.text[l.n] = '\0';
    assert_string_equal(l.text, "Ohalf|O a line\n\n|");
    fv_spawn_result_free(&r);
}

/* Whether the process whose number stands in the file is gone, or soon will be. */
static bool is_gone(const char *file)
{
    uint8_t *text;
    size_t n;
    assert_int_equal(fv_read_file(&text, &n, file, 100, NULL), FV_OK);
    pid_t pid = (pid_t)atol((char *)text);
    fv_free(text);
    assert_true(pid > 1);
    for (int i = 0; i < 500; i++) {
        char path[64], line[256] = "";
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        FILE *stat = fopen(path, "r");
        if (!stat)
            return kill(pid, 0) != 0;
        char *got = fgets(line, sizeof line, stat);
        fclose(stat);
        if (!got || strstr(line, ") Z")) /* nobody's child now; init will reap it */
            return true;
        usleep(10000);
    }
    return false;
}

static void test_timeout_ends_the_group(void **state)
{
    (void)state;
    char file[] = "/tmp/fv-test-spawn-XXXXXX", script[256];
    close(mkstemp(file));
    fv_spawn_result r;
    fv_error err;

    /* One that ends when it is told, one that does not listen; each with a child of its own. */
    for (int deaf = 0; deaf < 2; deaf++) {
        snprintf(script, sizeof script, "%s echo begun; sleep 100 & echo $! > %s; wait; sleep 100",
                 deaf ? "trap '' TERM;" : "", file);
        fv_spawn_options o = { .argv = SHELL(script), .timeout_ms = 300, .grace_ms = 200 };
        double begin = fv_now_ms();
        assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_LIMIT);
        assert_true(fv_now_ms() - begin < 20000);
        assert_string_equal(err.message, "/bin/sh: not finished after 0.3 s, terminated");
        assert_int_equal(r.signal, deaf ? SIGKILL : SIGTERM);
        assert_string_equal(r.out, "begun\n");
        fv_spawn_result_free(&r);
        assert_true(is_gone(file));
        assert_no_children();
    }
    unlink(file);
}

static bool stop_at_once(void *user)
{
    int *calls = user;
    return ++*calls > 3;
}

static void test_stop(void **state)
{
    (void)state;
    int calls = 0;
    fv_spawn_result r;
    fv_error err;
    fv_spawn_options o = { .argv = SHELL("sleep 100"), .stop = stop_at_once, .user = &calls };
    double begin = fv_now_ms();
    assert_int_equal(fv_spawn_run(&r, &o, &err), FV_ERR_CANCELLED);
    assert_true(fv_now_ms() - begin < 20000);
    assert_string_equal(err.message, "/bin/sh: cancelled");
    fv_spawn_result_free(&r);
    assert_no_children();
}

/* What the program leaves behind holds its pipes open and lives on. */
static void test_daemon_left_behind(void **state)
{
    (void)state;
    fv_spawn_result r;
    fv_spawn_options o = { .argv = SHELL("sleep 30 & echo $!"), .timeout_ms = 20000 };
    double begin = fv_now_ms();
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    assert_true(fv_now_ms() - begin < 15000);
    pid_t pid = (pid_t)atol(r.out);
    assert_true(pid > 1);
    assert_int_equal(kill(pid, 0), 0);
    kill(pid, SIGKILL);
    fv_spawn_result_free(&r);
}

/* A program that closes its streams and goes on is waited for. */
static void test_silent_program(void **state)
{
    (void)state;
    fv_spawn_result r;
    fv_spawn_options o = { .argv = SHELL("exec >&- 2>&-; sleep 0.2; exit 5") };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_ERR_IO);
    assert_int_equal(r.exit_code, 5);
    fv_spawn_result_free(&r);
}

/* The caller's descriptors, ignored and blocked signals do not reach the program. */
static void test_fresh_state(void **state)
{
    (void)state;
    sigset_t mask, before, now;
    int open_fd = dup(1), high = fcntl(1, F_DUPFD, 700);
    assert_true(open_fd > 2 && high >= 700);
    void (*old)(int) = signal(SIGPIPE, SIG_IGN), (*hup)(int) = signal(SIGHUP, SIG_IGN);
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    fv_spawn_result r;
    fv_spawn_options o = { .argv = SELF("state") };
    assert_int_equal(fv_spawn_run(&r, &o, NULL), FV_OK);
    pthread_sigmask(SIG_SETMASK, &before, &now);
    signal(SIGPIPE, old);
    signal(SIGHUP, hup);
    close(open_fd);
    close(high);
    assert_string_equal(r.out, "group own\n");
    assert_true(sigismember(&now, SIGINT) && sigismember(&now, SIGUSR2)); /* as they were */
    assert_false(sigismember(&now, SIGTERM));
    fv_spawn_result_free(&r);
}

/* The caller's own standard descriptors may be closed: pipes must not take their numbers. */
static void test_closed_standard_descriptors(void **state)
{
    (void)state;
    for (int closed = 1; closed < 8; closed++) {
        int saved[3];
        for (int fd = 0; fd < 3; fd++) {
            saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 10);
            if (closed >> fd & 1)
                close(fd);
        }
        fv_spawn_result r;
        fv_spawn_options o = { .argv = SHELL("cat; echo err >&2"),
                               .input = "in",
                               .n_input_bytes = 2 };
        fv_status status = fv_spawn_run(&r, &o, NULL);
        for (int fd = 0; fd < 3; fd++) {
            dup2(saved[fd], fd);
            close(saved[fd]);
        }
        assert_int_equal(status, FV_OK);
        assert_string_equal(r.out, "in");
        assert_string_equal(r.err, "err\n");
        fv_spawn_result_free(&r);
    }
}

static void on_alarm(int number) { (void)number; }

/* Every system call is interrupted, many times. */
static void test_interrupted(void **state)
{
    (void)state;
    struct sigaction on = { .sa_handler = on_alarm }, before; /* without SA_RESTART */
    struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
    sigaction(SIGALRM, &on, &before);
    setitimer(ITIMER_REAL, &often, NULL);
    fv_spawn_result r = { 0 }, deaf = { 0 };
    fv_spawn_options o = { .argv = SHELL("sleep 0.2; echo done; head -c 300000 /dev/zero") };
    fv_status status = fv_spawn_run(&r, &o, NULL);
    o = (fv_spawn_options){ .argv = SHELL("trap '' TERM; sleep 100; sleep 100"),
                            .timeout_ms = 200,
                            .grace_ms = 100 };
    fv_status ended = fv_spawn_run(&deaf, &o, NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    assert_int_equal(status, FV_OK);
    assert_int_equal(r.n_out, 300005);
    assert_int_equal(ended, FV_ERR_LIMIT);
    assert_int_equal(deaf.signal, SIGKILL);
    fv_spawn_result_free(&r);
    fv_spawn_result_free(&deaf);
    assert_no_children();
}

/* A host that ignores SIGCHLD loses exit codes; that is said, and nothing hangs. */
static void test_ignored_sigchld(void **state)
{
    (void)state;
    void (*before)(int) = signal(SIGCHLD, SIG_IGN);
    fv_spawn_result r;
    fv_error err;
    fv_spawn_options o = { .argv = SHELL("echo hello") };
    fv_status status = fv_spawn_run(&r, &o, &err);
    signal(SIGCHLD, before);
    assert_int_equal(status, FV_ERR_STATE);
    assert_non_null(strstr(err.message, "ignores SIGCHLD"));
    assert_string_equal(r.out, "hello\n");
    fv_spawn_result_free(&r);
}

static void *spawn_often(void *arg)
{
    atomic_uint *failed = arg;
    for (int i = 0; i < 30; i++) {
        fv_spawn_result r;
        char code[32];
        snprintf(code, sizeof code, "echo %d; exit %d", i, i);
        fv_spawn_options o = { .argv = SHELL(code), .any_exit_code = true };
        if (fv_spawn_run(&r, &o, NULL) != FV_OK || r.exit_code != i || atoi(r.out) != i)
            atomic_fetch_add(failed, 1);
        fv_spawn_result_free(&r);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t thread[4];
    atomic_uint failed = 0;
    for (size_t i = 0; i < FV_COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, spawn_often, &failed), 0);
    for (size_t i = 0; i < FV_COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&failed), 0);
    assert_no_children();
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    int64_t live = fv_mem_live();
    uint64_t n = 0;
    fv_status status;
    do {
        fv_spawn_result r;
        fv_error err = { .message = "" };
        fv_spawn_options o = { .argv = (const char *const[]){ "sh", "-c", "echo out", NULL } };
        fv_mem_fail_after(n++);
        status = fv_spawn_run(&r, &o, &err);
        fv_mem_fail_after(UINT64_MAX);
        fv_spawn_result_free(&r);
        assert_true(status == FV_OK || (status == FV_ERR_MEMORY && err.message[0]));
        assert_int_equal(fv_mem_live(), live);
        assert_no_children();
    } while (status != FV_OK && n < 100);
    assert_int_equal(status, FV_OK);
    assert_true(n > 4);
}

/* Where tests run under an emulator, the system cannot start this program by itself: a script at
 * path does. */
static void emulator_script_write(const char *path, const char *emulator, const char *program)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\nexec %s %s \"$@\"\n", emulator, program);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

static void test_program_find(void **state)
{
    fv_error err;
    char *path;
    (void)state;
    assert_int_equal(fv_program_find(&path, "sh", &err), FV_OK);
    assert_int_equal(access(path, X_OK), 0);
    assert_non_null(strstr(path, "/sh"));
    fv_free(path);
    assert_int_equal(fv_program_find(&path, "./no/such", &err), FV_OK); /* a path is as it is */
    assert_string_equal(path, "./no/such");
    fv_free(path);
    assert_int_equal(fv_program_find(&path, "fv-no-such-program", &err), FV_ERR_IO);
    assert_null(path);
    assert_string_equal(err.message, "fv-no-such-program: program not found on PATH");
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--child") == 0)
        return child_main(argc, argv);
    const char *emulator = getenv("FV_TEST_EMULATOR");
    char script[64];
    self = argv[0];
    if (emulator && *emulator) {
        snprintf(script, sizeof script, "/tmp/fastvlm-test-spawn-%d", (int)getpid());
        emulator_script_write(script, emulator, argv[0]);
        self = script;
        emulated = true;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_program_find),
        cmocka_unit_test(test_output_and_exit_codes),
        cmocka_unit_test(test_function_in_a_child),
        cmocka_unit_test(test_not_startable),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_environment_and_directory),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_input_pipe),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_errors_first),
        cmocka_unit_test(test_timeout_ends_the_group),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_daemon_left_behind),
        cmocka_unit_test(test_silent_program),
        cmocka_unit_test(test_fresh_state),
        cmocka_unit_test(test_closed_standard_descriptors),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_ignored_sigchld),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (emulated)
        unlink(script);
    return failed;
}
