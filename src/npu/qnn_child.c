/* A function in a child process, its answer and its progress; a child that stays. See qnn_child.h.
 */
#include "npu/qnn_child.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cond.h"
#include "base/report.h"
#include "base/spawn.h"

/* A page that both processes see. The parent trusts nothing in it: the libraries may have written
 * anywhere. */
typedef struct shared_page {
    _Atomic unsigned permille; /* done */
    _Atomic bool answered;
    uint64_t peak_bytes;
    fv_error err;
} shared_page;

struct fv_qnn_child {
    const fv_qnn_child_options *options;
    shared_page *page;
    void *shared;
    int out; /* in the child: the pipe of the result */
};

static void *shared_take(size_t n_bytes)
{
    void *at = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* Standard output becomes another standard error; the pipe of the result keeps a number that no
 * library knows. */
static bool child_streams_part(fv_qnn_child *c)
{
    c->out = dup(STDOUT_FILENO);
    return c->out >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0;
}

static int child_call(void *user)
{
    fv_qnn_child *c = user;
    shared_page *page = c->page;
    struct rusage use;

    page->err.status = child_streams_part(c) ? c->options->run(c->options->user, c, &page->err)
                                             : fv_fail(&page->err, FV_ERR_IO, 0,
                                                       "%s: cannot open a pipe", c->options->name);
    if (getrusage(RUSAGE_SELF, &use) == 0)
#ifdef __APPLE__
        page->peak_bytes = (uint64_t)use.ru_maxrss;
#else
        page->peak_bytes = (uint64_t)use.ru_maxrss * 1024;
#endif
    page->answered = true;
    return 0;
}

static fv_status child_progress(const fv_qnn_child *c, const fv_callbacks *callbacks)
{
    unsigned permille = FV_MIN(c->page->permille, 1000u);
    return fv_progress(callbacks, c->options->stage, permille / 1000.0, NULL);
}

static bool child_stop(void *user)
{
    const fv_qnn_child *c = user;
    return child_progress(c, c->options->callbacks) != FV_OK;
}

/* What the child says of its end. */
static fv_status answer_check(const fv_qnn_child *c, fv_error *err)
{
    const shared_page *page = c->page;
    char message[sizeof page->err.message];

    if (!page->answered)
        return fv_fail(err, FV_ERR_IO, 0, "%s: ended before its result", c->options->name);
    if (page->err.status == FV_OK)
        return FV_OK;
    memcpy(message, page->err.message, sizeof message);
    message[sizeof message - 1] = 0;
    bool known = page->err.status > FV_OK && page->err.status <= FV_ERR_STATE;
    return fv_fail(err, known ? page->err.status : FV_ERR_IO, page->err.at, "%s", message);
}

fv_status fv_qnn_child_run(fv_qnn_child_result *result, const fv_qnn_child_options *options,
                           fv_error *err)
{
    *result = (fv_qnn_child_result){ 0 };
    shared_page *page = shared_take(sizeof *page);
    if (!page)
        return fv_fail_memory(err, sizeof *page, "a page that two processes share");
    fv_qnn_child c = { .options = options, .page = page, .out = -1 };
    fv_spawn_options spawn = {
        .argv = (const char *const[]){ options->name, NULL },
        .call = child_call,
        .timeout_ms = options->timeout_ms,
        .max_output_bytes = options->max_bytes,
        .stop = child_stop,
        .user = &c,
    };
    fv_spawn_result spawned;
    fv_status status = fv_spawn_run(&spawned, &spawn, err);
    if (status == FV_OK)
        status = answer_check(&c, err);
    result->bytes = spawned.out;
    result->n_bytes = spawned.n_out;
    result->said = spawned.err;
    result->n_said = spawned.n_err;
    result->peak_bytes = page->peak_bytes;
    munmap(page, sizeof *page);
    return status;
}

void fv_qnn_child_result_free(fv_qnn_child_result *result)
{
    fv_free(result->bytes);
    fv_free(result->said);
    *result = (fv_qnn_child_result){ 0 };
}

fv_status fv_qnn_child_write(fv_qnn_child *child, const void *data, size_t n_bytes, fv_error *err)
{
    const char *at = data;
    while (n_bytes > 0) {
        ssize_t n = write(child->out, at, n_bytes);
        if (n < 0 && errno != EINTR)
            return fv_fail(err, FV_ERR_IO, 0, "%s: the process that waits for it is gone",
                           child->options->name);
        if (n > 0) {
            at += n;
            n_bytes -= (size_t)n;
        }
    }
    return FV_OK;
}

void fv_qnn_child_tell(fv_qnn_child *child, double done)
{
    child->page->permille = done > 0 ? (unsigned)(FV_MIN(done, 1.0) * 1000) : 0;
}

void fv_qnn_said_log(const fv_callbacks *callbacks, const char *said)
{
    for (const char *at = said; at && *at;) {
        int n = (int)strcspn(at, "\n");
        if (n)
            fv_log(callbacks, FV_LOG_WARNING, "QNN: %.*s", FV_MIN(n, 400), at);
        at += n + (at[n] == '\n');
    }
}

/* ---- a child that stays ------------------------------------------------------------------ */

enum {
    SAID_BYTES = 16 << 10,
    LOOK_MS = 50 /* between two looks whether the caller wants to stop */
};

/* fv_spawn_run waits for its child in a thread of its own; the caller waits for that thread. */
struct fv_qnn_server {
    fv_qnn_server_options o;
    fv_qnn_child_options as_child; /* what fv_qnn_child's functions ask for */
    fv_qnn_child child;
    pthread_t thread;
    int pipe[2]; /* calls, a number each */

    pthread_mutex_t lock; /* of the following */
    pthread_cond_t changed;
    unsigned n_answers;
    bool stop, ended;
    fv_error end; /* why */
    char said[SAID_BYTES];
    size_t n_said;
};

/* In the child: a byte for every answer. */
static fv_status answer_send(fv_qnn_child *child, fv_status status)
{
    child->page->err.status = status;
    child->page->answered = true;
    return fv_qnn_child_write(child, "\n", 1, NULL);
}

/* In the child, until the other end of the pipe is closed. */
static int server_call(void *user)
{
    fv_qnn_server *s = user;
    fv_qnn_child *c = &s->child;
    fv_error *err = &c->page->err;
    unsigned what;
    fv_status status = child_streams_part(c)
                           ? s->o.open(s->o.user, c, err)
                           : fv_fail(err, FV_ERR_IO, 0, "%s: cannot open a pipe", s->o.name);
    fv_status sent = answer_send(c, status);
    while (status == FV_OK && sent == FV_OK) {
        ssize_t n = read(STDIN_FILENO, &what, sizeof what);
        if (n < 0 && errno == EINTR)
            continue;
        if (n != sizeof what)
            break;
        sent = answer_send(c, s->o.answer(s->o.user, c, what, err));
    }
    return 0;
}

static bool server_stop(void *user)
{
    fv_qnn_server *s = user;
    pthread_mutex_lock(&s->lock);
    bool stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return stop;
}

/* Keeps the first lines that the libraries say. */
static void server_line(void *user, bool is_error, const char *line, size_t n_bytes)
{
    fv_qnn_server *s = user;
    pthread_mutex_lock(&s->lock);
    if (!is_error) {
        s->n_answers++;
        pthread_cond_signal(&s->changed);
    } else if (n_bytes + 2 <= sizeof s->said - s->n_said) {
        memcpy(s->said + s->n_said, line, n_bytes);
        s->n_said += n_bytes;
        s->said[s->n_said++] = '\n';
    }
    pthread_mutex_unlock(&s->lock);
}

static void *server_watch(void *user)
{
    fv_qnn_server *s = user;
    fv_spawn_options spawn = { .argv = (const char *const[]){ s->o.name, NULL },
                               .call = server_call,
                               .input_pipe = s->pipe,
                               .line = server_line,
                               .stop = server_stop,
                               .user = s };
    fv_spawn_result spawned;
    fv_error end = { .status = FV_OK };
    end.status = fv_spawn_run(&spawned, &spawn, &end);
    fv_spawn_result_free(&spawned);
    pthread_mutex_lock(&s->lock);
    s->end = end;
    s->ended = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Called and returns with the lock held. */
static void server_nap(fv_qnn_server *s)
{
    fv_cond_wait_until(&s->changed, &s->lock, fv_now_ms() + LOOK_MS);
}

/* Signals are for the caller's threads. */
static int server_thread(fv_qnn_server *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&s->thread, NULL, server_watch, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

/* Until there are n answers or the child is gone. */
static fv_status answer_wait(fv_qnn_server *s, unsigned n, const fv_callbacks *callbacks)
{
    fv_status status = FV_OK;
    pthread_mutex_lock(&s->lock);
    while (s->n_answers < n && !s->ended) {
        server_nap(s);
        if (s->n_answers >= n || s->ended || s->stop)
            continue;
        pthread_mutex_unlock(&s->lock);
        status = child_progress(&s->child, callbacks);
        pthread_mutex_lock(&s->lock);
        s->stop = status != FV_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* What became of a call: the child's answer, or its end. */
static fv_status answer_take(fv_qnn_server *s, unsigned n, const fv_callbacks *callbacks,
                             fv_error *err)
{
    FV_TRY(answer_wait(s, n, callbacks) == FV_OK
               ? FV_OK
               : fv_fail(err, FV_ERR_CANCELLED, 0, "%s: cancelled", s->o.name));
    pthread_mutex_lock(&s->lock);
    bool answered = s->n_answers >= n;
    fv_error end = s->end;
    s->said[s->n_said] = 0;
    s->n_said = 0;
    pthread_mutex_unlock(&s->lock);
    fv_status status = answered ? answer_check(&s->child, err)
                       : end.status != FV_OK
                           ? fv_fail(err, end.status, 0, "%s", end.message)
                           : fv_fail(err, FV_ERR_IO, 0, "%s: has ended", s->o.name);
    if (status != FV_OK)
        fv_qnn_said_log(callbacks, s->said);
    return status;
}

static void server_free(fv_qnn_server *s)
{
    if (s->child.page)
        munmap(s->child.page, sizeof *s->child.page);
    if (s->child.shared)
        munmap(s->child.shared, s->o.shared_bytes);
    for (int i = 0; i < 2; i++)
        if (s->pipe[i] >= 0)
            close(s->pipe[i]);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    fv_free(s);
}

fv_status fv_qnn_server_open(fv_qnn_server **out, const fv_qnn_server_options *options,
                             const fv_callbacks *callbacks, fv_error *err)
{
    *out = NULL;
    fv_qnn_server *s = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "a child process");
    s->o = *options;
    s->pipe[0] = s->pipe[1] = -1;
    s->as_child = (fv_qnn_child_options){ .name = s->o.name, .stage = s->o.stage };
    s->child = (fv_qnn_child){ .options = &s->as_child,
                               .page = shared_take(sizeof(shared_page)),
                               .shared = shared_take(s->o.shared_bytes),
                               .out = -1 };
    pthread_mutex_init(&s->lock, NULL);
    fv_cond_init(&s->changed);
    if (!s->child.page || !s->child.shared) {
        server_free(s);
        return fv_fail_memory(err, options->shared_bytes, "memory that two processes share");
    }
    int code = server_thread(s);
    if (code != 0) {
        server_free(s);
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot start a thread: %s", options->name,
                       strerror(code));
    }
    fv_status status = answer_take(s, 1, callbacks, err);
    if (status == FV_OK)
        *out = s;
    else
        fv_qnn_server_close(s);
    return status;
}

fv_status fv_qnn_server_call(fv_qnn_server *s, unsigned what, const fv_callbacks *callbacks,
                             fv_error *err)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->n_answers + 1;
    bool ended = s->ended;
    pthread_mutex_unlock(&s->lock);
    s->child.page->answered = false;
    s->child.page->permille = 0;
    /* never full: one call at a time; never without a reader: that end is ours, too */
    while (!ended && write(s->pipe[1], &what, sizeof what) < 0 && errno == EINTR)
        ;
    return answer_take(s, n, callbacks, err);
}

bool fv_qnn_server_ended(fv_qnn_server *s)
{
    pthread_mutex_lock(&s->lock);
    bool ended = s->ended;
    pthread_mutex_unlock(&s->lock);
    return ended;
}

void fv_qnn_server_close(fv_qnn_server *s)
{
    if (!s)
        return;
    if (s->pipe[1] >= 0)
        close(s->pipe[1]); /* the child ends when it has answered */
    s->pipe[1] = -1;
    pthread_join(s->thread, NULL);
    server_free(s);
}

void *fv_qnn_server_shared(fv_qnn_server *s) { return s->child.shared; }
void *fv_qnn_child_shared(fv_qnn_child *child) { return child->shared; }
