/* A function in a child process, its answer and its progress. See qnn_child.h. */
#include "npu/qnn_child.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

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
    int out; /* in the child: the pipe of the result */
};

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

static bool child_stop(void *user)
{
    const fv_qnn_child *c = user;
    unsigned permille = FV_MIN(c->page->permille, 1000u);
    return fv_progress(c->options->callbacks, c->options->stage, permille / 1000.0, NULL) != FV_OK;
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
    shared_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                             -1, 0);
    if (page == MAP_FAILED)
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
