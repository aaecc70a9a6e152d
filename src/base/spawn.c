/* fork, exec, and a loop that reads both streams until the program has ended. See spawn.h. */
#include "base/list.h"
#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

extern char **environ;

enum {
    READ_BYTES = 64 << 10,
    LINE_BYTES = 64 << 10,
    QUOTED_BYTES = 200, /* of the last line, in a message */
    DEFAULT_OUTPUT_BYTES = 16 << 20,
    MAX_LOOK_MS = 20, /* between two looks whether the program has ended */
    LINGER_MS = 200   /* for what is still in the pipes when it has, and somebody holds them open */
};

#define DEFAULT_GRACE_MS 2000.0

/* One stream that the program writes. */
typedef struct stream {
    int fd; /* -1: closed */
    bool is_error;
    char *kept; /* all of it, or the line that is not complete */
    size_t n, capacity;
    char last[QUOTED_BYTES + 1]; /* the last line that is not empty, or its beginning */
    size_t n_last;
    bool line_over; /* the next byte begins another */
} stream;

typedef struct child {
    const fv_spawn_options *options;
    const char *name;
    size_t max_bytes;
    char **environment;
    char *path;
    pid_t pid;
    stream out, err;
    char *buffer; /* [2 READ_BYTES]: of standard output, of standard error */
} child;

/* ---------------------------------------------------------------- descriptors */

/* Standard descriptors may be closed in the caller; ours must not take their numbers. */
static bool fd_lift(int *fd)
{
    if (*fd < 0 || *fd > 2)
        return *fd >= 0;
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
    close(*fd);
    *fd = high;
    return high >= 0;
}

static void fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool pipe_open(int ends[2])
{
#if defined(__linux__)
    int code = pipe2(ends, O_CLOEXEC);
#else
    int code = pipe(ends);
    for (int i = 0; i < 2 && code == 0; i++)
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
#endif
    if (code != 0) {
        ends[0] = ends[1] = -1;
        return false;
    }
    bool read_end = fd_lift(&ends[0]), write_end = fd_lift(&ends[1]);
    return read_end && write_end;
}

/* A file of its own without a name: a program that does not read its input cannot hold us up. */
static int input_file(void)
{
#if defined(__linux__)
    int fd = (int)syscall(SYS_memfd_create, "input", 1u /* MFD_CLOEXEC */);
    if (fd >= 0)
        return fd;
#endif
    char path[] = "/tmp/fastvlm-input-XXXXXX";
    int file = mkstemp(path);
    if (file >= 0) {
        unlink(path);
        fcntl(file, F_SETFD, FD_CLOEXEC);
    }
    return file;
}

static bool input_open(int *fd, const fv_spawn_options *o)
{
    const char *at = o->input;
    size_t left = o->input ? o->n_input_bytes : 0;

    if (o->input_pipe) {
        *fd = pipe_open(o->input_pipe) ? fcntl(o->input_pipe[0], F_DUPFD_CLOEXEC, 3) : -1;
        return *fd >= 0;
    }
    *fd = o->input ? input_file() : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!fd_lift(fd))
        return false;
    while (left > 0) {
        ssize_t n = write(*fd, at, left);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            at += n;
            left -= (size_t)n;
        }
    }
    return !o->input || lseek(*fd, 0, SEEK_SET) == 0;
}

/* ---------------------------------------------------------------- environment, PATH */

static size_t list_length(const char *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

static size_t variable_length(const char *entry)
{
    const char *equals = strchr(entry, '=');
    return equals ? (size_t)(equals - entry) : strlen(entry);
}

/* The last entry of list that is about the variable of entry. */
static const char *variable_find(const char *const *list, const char *entry)
{
    size_t n = variable_length(entry);
    const char *found = NULL;
    for (size_t i = 0; list && list[i]; i++)
        if (variable_length(list[i]) == n && strncmp(list[i], entry, n) == 0)
            found = list[i];
    return found;
}

/* The caller's variables that are not named in options, then those that are given a value. */
static bool environment_make(child *c)
{
    const char *const *ours = (const char *const *)environ, *const *more = c->options->environment;
    size_t n = 0;

    c->environment = fv_alloc(list_length(ours) + list_length(more) + 1, sizeof *c->environment);
    if (!c->environment)
        return false;
    for (size_t i = 0; ours && ours[i]; i++)
        if (!variable_find(more, ours[i]))
            c->environment[n++] = (char *)(uintptr_t)ours[i];
    for (size_t i = 0; more && more[i]; i++)
        if (strchr(more[i], '=') && variable_find(more, more[i]) == more[i])
            c->environment[n++] = (char *)(uintptr_t)more[i];
    c->environment[n] = NULL;
    return true;
}

/* The first executable file of that name in the folders of list, "a:b"; NULL: the usual ones. */
static fv_status program_search(char **out, const char *name, const char *list, fv_error *err)
{
    *out = NULL;
    if (strchr(name, '/')) {
        *out = fv_strdup(name);
        return *out ? FV_OK : fv_fail_memory(err, strlen(name), "a path");
    }
    for (const char *at = list && *list ? list : "/usr/local/bin:/usr/bin:/bin"; *at;) {
        size_t n = strcspn(at, ":");
        char *folder = fv_alloc(n + 2, 1);
        if (!folder)
            return fv_fail_memory(err, n, "a path");
        snprintf(folder, n + 2, "%.*s", n ? (int)n : 1, n ? at : ".");
        char *path = fv_path_join(folder, name);
        fv_free(folder);
        if (!path)
            return fv_fail_memory(err, n, "a path");
        if (fv_is_file(path) && access(path, X_OK) == 0) {
            *out = path;
            return FV_OK;
        }
        fv_free(path);
        at += n + (at[n] == ':');
    }
    return fv_fail(err, FV_ERR_IO, 0, "%s: program not found on PATH", name);
}

fv_status fv_program_find(char **path, const char *name, fv_error *err)
{
    return program_search(path, name, getenv("PATH"), err);
}

/* c->path: what to execute. */
static fv_status program_find(child *c, fv_error *err)
{
    const char *entry = variable_find((const char *const *)c->environment, "PATH");
    return program_search(&c->path, c->name, entry && strlen(entry) > 5 ? entry + 5 : NULL, err);
}

/* ---------------------------------------------------------------- in the new process */

/* What the child writes into a pipe that exec closes, when it cannot get there. */
typedef struct start_failure {
    int code;       /* errno */
    bool directory; /* chdir failed, otherwise exec */
} start_failure;

/* Closes all descriptors from 3 on but one. Only calls that are safe after fork. */
static void descriptors_close(int but)
{
#if defined(SYS_close_range)
    bool below = but == 3 || syscall(SYS_close_range, 3u, (unsigned)but - 1, 0u) == 0;
    if (below && syscall(SYS_close_range, (unsigned)but + 1, ~0u, 0u) == 0)
        return;
#endif
    struct rlimit limit;
    int end = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < (rlim_t)end)
        end = (int)limit.rlim_cur;
    for (int fd = 3; fd < end; fd++)
        if (fd != but)
            close(fd);
}

static _Noreturn void child_main(const child *c, const int fds[3], int failure_fd, pid_t parent)
{
    start_failure failure = { 0 };
    struct sigaction usual = { .sa_handler = SIG_DFL };
    sigset_t none;

#if defined(__linux__)
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
#else
    (void)parent;
#endif
    setpgid(0, 0);
    for (int number = 1; number < 65; number++)
        sigaction(number, &usual, NULL); /* SIGKILL and the like refuse */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int i = 0; i < 3; i++)
        while (dup2(fds[i], i) < 0 && errno == EINTR)
            ;
    descriptors_close(failure_fd);
    if (c->options->directory && chdir(c->options->directory) != 0) {
        failure.directory = true;
    } else if (c->options->call) {
        close(failure_fd); /* as exec would: the parent waits for it */
        _exit(c->options->call(c->options->user));
    } else {
        execve(c->path, (char *const *)(uintptr_t)c->options->argv, c->environment);
    }
    failure.code = errno;
    while (write(failure_fd, &failure, sizeof failure) < 0 && errno == EINTR)
        ;
    _exit(127);
}

/* ---------------------------------------------------------------- start */

static fv_status child_fork(child *c, const int fds[3], int failure[2], fv_error *err)
{
    sigset_t all, before;
    pid_t parent = getpid();

    /* A handler of the caller's must not run in the child. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    c->pid = fork();
    if (c->pid == 0)
        child_main(c, fds, failure[1], parent);
    int code = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (c->pid < 0)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot start a process: %s", c->name,
                       strerror(code));
    fd_close(&failure[1]);

    start_failure why;
    ssize_t n;
    while ((n = read(failure[0], &why, sizeof why)) < 0 && errno == EINTR)
        ;
    if (n != sizeof why)
        return FV_OK;
    while (waitpid(c->pid, &code, 0) < 0 && errno == EINTR)
        ;
    c->pid = -1;
    if (why.directory)
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot change to the directory %s: %s", c->name,
                       c->options->directory, strerror(why.code));
    return fv_fail(err, FV_ERR_IO, 0, "%s: cannot be started: %s", c->path, strerror(why.code));
}

static fv_status child_start(child *c, fv_error *err)
{
    int fds[3] = { -1, -1, -1 }, failure[2] = { -1, -1 }, out[2] = { -1, -1 },
        error[2] = { -1, -1 };
    fv_status status;

    if (input_open(&fds[0], c->options) && pipe_open(out) && pipe_open(error) &&
        pipe_open(failure)) {
        fds[1] = out[1];
        fds[2] = error[1];
        status = child_fork(c, fds, failure, err);
    } else {
        status = fv_fail(err, FV_ERR_IO, 0, "%s: cannot open a pipe: %s", c->name, strerror(errno));
    }
    fd_close(&fds[0]);
    fd_close(&out[1]);
    fd_close(&error[1]);
    fd_close(&failure[0]);
    fd_close(&failure[1]);
    c->out.fd = out[0];
    c->err.fd = error[0];
    for (int i = 0; i < 2; i++) {
        int fd = i ? error[0] : out[0];
        if (fd >= 0)
            fcntl(fd, F_SETFL, O_NONBLOCK);
    }
    return status;
}

/* ---------------------------------------------------------------- what it writes */

static fv_status stream_keep(stream *s, const char *data, size_t n, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(s->kept, s->n, s->capacity, n + 1, err));
    memcpy(s->kept + s->n, data, n);
    s->n += n;
    s->kept[s->n] = '\0';
    return FV_OK;
}

static void stream_note_last(stream *s, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (data[i] == '\n' || data[i] == '\r') {
            s->line_over = true;
            continue;
        }
        if (s->line_over)
            s->n_last = 0;
        s->line_over = false;
        if (s->n_last < QUOTED_BYTES)
            s->last[s->n_last++] = data[i];
    }
    s->last[s->n_last] = '\0';
}

/* Hands on all complete lines of data and keeps the rest for later. */
static fv_status stream_lines(stream *s, const child *c, const char *data, size_t n, fv_error *err)
{
    const fv_spawn_options *o = c->options;

    while (n > 0) {
        const char *end = memchr(data, '\n', n);
        size_t part = FV_MIN(end ? (size_t)(end - data) : n, (size_t)LINE_BYTES - s->n);
        if (s->n > 0 || !(end || part == LINE_BYTES)) {
            FV_TRY(stream_keep(s, data, part, err));
            if ((end && data + part == end) || s->n == LINE_BYTES) {
                o->line(o->user, s->is_error, s->kept, s->n);
                s->n = 0;
            }
        } else {
            o->line(o->user, s->is_error, data, part);
        }
        part += end && data + part == end;
        data += part;
        n -= part;
    }
    return FV_OK;
}

static fv_status stream_take(stream *s, const child *c, const char *data, size_t n, fv_error *err)
{
    stream_note_last(s, data, n);
    if (c->options->line && c->options->raw) {
        c->options->line(c->options->user, s->is_error, data, n);
        return FV_OK;
    }
    if (c->options->line)
        return stream_lines(s, c, data, n, err);
    if (n > c->max_bytes - s->n)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "%s: more than the %zu bytes allowed on its standard %s", c->name,
                       c->max_bytes, s->is_error ? "error" : "output");
    return stream_keep(s, data, n, err);
}

/* Reads once, so that the other stream gets its turn; closes the stream at its end. Bytes read; 0:
 * none. */
static size_t stream_read(stream *s, char *buffer)
{
    ssize_t n;

    if (s->fd < 0)
        return 0;
    while ((n = read(s->fd, buffer, READ_BYTES)) < 0 && errno == EINTR)
        ;
    if (n > 0)
        return (size_t)n;
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        fd_close(&s->fd);
    return 0;
}

/* What the program has written, of both streams; what it wrote to standard error before something
 * on standard output is told before that. */
static fv_status streams_read(child *c, fv_error *err)
{
    char *out = c->buffer, *said = c->buffer + READ_BYTES;
    size_t n_out = stream_read(&c->out, out), n_said = stream_read(&c->err, said);
    if (n_said > 0)
        FV_TRY(stream_take(&c->err, c, said, n_said, err));
    return n_out > 0 ? stream_take(&c->out, c, out, n_out, err) : FV_OK;
}

/* A last line without a newline. */
static void stream_finish(stream *s, const child *c)
{
    if (c->options->line && s->n > 0)
        c->options->line(c->options->user, s->is_error, s->kept, s->n);
}

/* ---------------------------------------------------------------- the end */

/* True when the program has ended; it stays a zombie, and its group ours to signal, until
 * child_reap. */
static bool child_has_ended(const child *c)
{
    siginfo_t info = { 0 };
    int code;
    while ((code = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT)) < 0 &&
           errno == EINTR)
        ;
    return code < 0 || info.si_pid != 0; /* < 0: somebody else has taken its exit code */
}

/* Waits up to wait_ms for output or the end, without reading anything. */
static void child_poll(const child *c, double wait_ms)
{
    struct pollfd fds[2] = { { .fd = c->out.fd, .events = POLLIN },
                             { .fd = c->err.fd, .events = POLLIN } };
    poll(fds, 2, wait_ms < 1 ? 1 : (int)wait_ms); /* EINTR: the loop looks again */
}

/* Until the program has ended, or a reason to end it. */
static fv_status child_watch(child *c, fv_error *err)
{
    const fv_spawn_options *o = c->options;
    double begin = fv_now_ms(), ended_at = 0, look_ms = 1;
    bool ended = false;

    for (;;) {
        size_t before = c->out.n + c->err.n;
        FV_TRY(streams_read(c, err));
        double now = fv_now_ms();
        bool silent = c->out.fd < 0 && c->err.fd < 0;
        if (ended && (silent || now - ended_at >= LINGER_MS))
            return FV_OK;
        if (!ended && child_has_ended(c)) {
            ended = true;
            ended_at = now;
            continue; /* what it wrote last */
        }
        if (o->stop && o->stop(o->user))
            return fv_fail(err, FV_ERR_CANCELLED, 0, "%s: cancelled", c->name);
        if (o->timeout_ms > 0 && now - begin >= o->timeout_ms)
            return fv_fail(err, FV_ERR_LIMIT, 0, "%s: not finished after %.1f s, terminated",
                           c->name, o->timeout_ms / 1000);
        look_ms = before == c->out.n + c->err.n ? FV_MIN(look_ms * 2, (double)MAX_LOOK_MS) : 1;
        child_poll(c, look_ms);
    }
}

/* Ends the whole group: politely, then not. */
static void child_end(const child *c)
{
    double begin = fv_now_ms();
    double grace = c->options->grace_ms > 0 ? c->options->grace_ms : DEFAULT_GRACE_MS;

    kill(-c->pid, SIGTERM);
    while (!child_has_ended(c) && fv_now_ms() - begin < grace) {
        struct timespec nap = { .tv_nsec = 2000000 };
        nanosleep(&nap, NULL);
    }
    kill(-c->pid, SIGKILL); /* also those that the program has left behind */
}

static fv_status child_reap(child *c, fv_spawn_result *result, fv_error *err)
{
    int status, code;

    while ((code = waitpid(c->pid, &status, 0)) < 0 && errno == EINTR)
        ;
    if (code < 0)
        return fv_fail(
            err, FV_ERR_STATE, 0,
            "%s: its exit code is lost: this process ignores SIGCHLD or waits for all of "
            "its children",
            c->name);
    if (WIFEXITED(status))
        result->exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status))
        result->signal = WTERMSIG(status);
    return FV_OK;
}

static const char *signal_name(int number)
{
    switch (number) {
    case SIGHUP: return " (SIGHUP)";
    case SIGINT: return " (SIGINT)";
    case SIGQUIT: return " (SIGQUIT)";
    case SIGILL: return " (SIGILL)";
    case SIGABRT: return " (SIGABRT)";
    case SIGBUS: return " (SIGBUS)";
    case SIGFPE: return " (SIGFPE)";
    case SIGKILL: return " (SIGKILL: killed, or the system is out of memory)";
    case SIGSEGV: return " (SIGSEGV)";
    case SIGPIPE: return " (SIGPIPE)";
    case SIGTERM: return " (SIGTERM)";
    default: return "";
    }
}

/* What its end means. */
static fv_status child_judge(const child *c, const fv_spawn_result *result, fv_error *err)
{
    const stream *said = c->err.n_last ? &c->err : &c->out;

    if (result->signal)
        return fv_fail(err, FV_ERR_IO, 0, "%s: ended with signal %d%s%s%s", c->name, result->signal,
                       signal_name(result->signal), said->n_last ? ": " : "", said->last);
    if (result->exit_code != 0 && !c->options->any_exit_code)
        return fv_fail(err, FV_ERR_IO, 0, "%s: exit code %d%s%s", c->name, result->exit_code,
                       said->n_last ? ": " : "", said->last);
    return FV_OK;
}

static fv_status child_run(child *c, fv_spawn_result *result, fv_error *err)
{
    if (!c->options->call) {
        if (!environment_make(c))
            return fv_fail_memory(err, list_length((const char *const *)environ) * sizeof(char *),
                                  "an environment");
        FV_TRY(program_find(c, err));
    }
    if (!(c->buffer = fv_alloc(2, READ_BYTES)))
        return fv_fail_memory(err, (size_t)2 * READ_BYTES, "a program's output");
    FV_TRY(child_start(c, err));
    fv_status status = child_watch(c, err);
    if (status != FV_OK)
        child_end(c);
    fv_status reaped = child_reap(c, result, status == FV_OK ? err : NULL);
    FV_TRY(status);
    FV_TRY(reaped);
    stream_finish(&c->out, c);
    stream_finish(&c->err, c);
    return child_judge(c, result, err);
}

/* Moves what was kept into the result; an empty stream is an empty text. */
static fv_status result_take(stream *s, char **text, size_t *n, fv_error *err)
{
    if (!s->kept)
        FV_TRY(stream_keep(s, "", 0, err));
    *text = s->kept;
    *n = s->n;
    s->kept = NULL;
    return FV_OK;
}

fv_status fv_spawn_run(fv_spawn_result *result, const fv_spawn_options *options, fv_error *err)
{
    *result = (fv_spawn_result){ .exit_code = -1 };
    if (!options->argv || !options->argv[0] || !*options->argv[0])
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "argv names no program");
    child c = { .options = options,
                .name = options->argv[0],
                .max_bytes = options->max_output_bytes ? options->max_output_bytes
                                                       : (size_t)DEFAULT_OUTPUT_BYTES,
                .out = { .fd = -1 },
                .err = { .fd = -1, .is_error = true } };
    fv_status status = child_run(&c, result, err);
    fd_close(&c.out.fd);
    fd_close(&c.err.fd);
    if (!options->line) {
        fv_status kept = result_take(&c.out, &result->out, &result->n_out, NULL);
        if (kept == FV_OK)
            kept = result_take(&c.err, &result->err, &result->n_err, NULL);
        if (status == FV_OK && kept != FV_OK)
            status = fv_fail_memory(err, 1, "a program's output");
    }
    fv_free(c.out.kept);
    fv_free(c.err.kept);
    fv_free(c.buffer);
    fv_free(c.path);
    fv_free(c.environment);
    return status;
}

void fv_spawn_result_free(fv_spawn_result *result)
{
    fv_free(result->out);
    fv_free(result->err);
    *result = (fv_spawn_result){ .exit_code = -1 };
}
