/* Lines of a file or pipe. See line_reader.h. */
#include "batch/line_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"

enum { FIRST_BYTES = 1 << 16, MOST_KEPT_BYTES = 1 << 20, ASK_MS = 50 };

/* A pipe's writer is not waited for here, but where the wait can be ended. Elsewhere than on Linux
 * poll may take a pipe that has had no writer yet for one at its end. */
static int line_reader_open_file(const char *path)
{
#if defined(__linux__)
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
#else
    int fd = open(path, O_RDONLY | O_CLOEXEC);
#endif
    if (fd < 0 && errno == ENXIO && !strcmp(path, "/dev/stdin")) /* a socket cannot be opened */
        fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    return fd;
}

fv_status fv_line_reader_open(fv_line_reader *l, const char *path, size_t max_bytes,
                              const fv_callbacks *callbacks, fv_error *err)
{
    *l = (fv_line_reader){
        .fd = -1, .max_bytes = max_bytes, .capacity = FIRST_BYTES, .callbacks = callbacks
    };
    l->name = fv_strdup(path);
    l->buffer = fv_alloc(l->capacity, 1);
    if (!l->name || !l->buffer) {
        fv_line_reader_close(l);
        return fv_fail_memory(err, FIRST_BYTES, "a list");
    }
    l->fd = line_reader_open_file(path);
    if (l->fd < 0) {
        int why = errno;
        fv_line_reader_close(l);
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot open: %s", path, strerror(why));
    }
    return FV_OK;
}

void fv_line_reader_close(fv_line_reader *l)
{
    if (l->fd >= 0)
        close(l->fd);
    fv_free(l->name);
    fv_free(l->buffer);
    *l = (fv_line_reader){ .fd = -1 };
}

static fv_status line_reader_resize(fv_line_reader *l, size_t capacity, fv_error *err)
{
    char *buffer = fv_grow(l->buffer, l->end, capacity, 1);
    if (!buffer)
        return fv_fail_memory(err, capacity, "a line");
    l->buffer = buffer;
    l->capacity = capacity;
    return FV_OK;
}

/* Until there is something to read, or the end. A pipe that nobody has opened to write yet has
 * neither. Where poll fails, read says what is wrong. */
static fv_status line_reader_wait(fv_line_reader *l, fv_error *err)
{
    struct pollfd p = { .fd = l->fd, .events = POLLIN };
    for (;;) {
        int n = poll(&p, 1, ASK_MS);
        if (n > 0 || (n < 0 && errno != EINTR))
            return FV_OK;
        FV_TRY(fv_progress(l->callbacks, "read inputs", 0, err));
    }
}

/* More bytes behind those that are there. */
static fv_status line_reader_fill(fv_line_reader *l, fv_error *err)
{
    if (l->begin > 0) {
        memmove(l->buffer, l->buffer + l->begin, l->end - l->begin);
        l->end -= l->begin;
        l->begin = 0;
    }
    if (l->end == l->capacity)
        FV_TRY(line_reader_resize(l, l->capacity * 2, err));
    else if (l->capacity > MOST_KEPT_BYTES && l->end < FIRST_BYTES) /* a long line has gone */
        FV_TRY(line_reader_resize(l, FIRST_BYTES, err));
    for (;;) {
        FV_TRY(line_reader_wait(l, err));
        ssize_t n = read(l->fd, l->buffer + l->end, l->capacity - l->end);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return fv_fail(err, FV_ERR_IO, l->n_read, "%s: cannot read: %s", l->name,
                           strerror(errno));
        l->end += (size_t)n;
        l->at_end = n == 0;
        return FV_OK;
    }
}

/* Up to the next line end, of which *n is the distance; what is too long is dropped on the way. */
static fv_status line_reader_reach_end(fv_line_reader *l, size_t *n, bool *too_long, fv_error *err)
{
    *too_long = false;
    for (size_t seen = 0;;) {
        const char *from = l->buffer + l->begin;
        const char *end = memchr(from + seen, '\n', l->end - l->begin - seen);
        seen = end ? (size_t)(end - from) : l->end - l->begin;
        if (seen > l->max_bytes) {
            *too_long = true;
            l->n_read += seen;
            l->begin += seen;
            seen = 0;
        }
        if (end || l->at_end) {
            *n = seen;
            return FV_OK;
        }
        FV_TRY(line_reader_fill(l, err));
    }
}

fv_status fv_line_reader_next(fv_line_reader *l, fv_line *line, bool *found, fv_error *err)
{
    size_t n;
    bool first = l->n_read == 0, too_long;
    *found = false;
    FV_TRY(line_reader_reach_end(l, &n, &too_long, err));
    bool ended = l->begin + n < l->end; /* with a line end, which the last line may lack */
    if (!ended && n == 0 && !too_long)
        return FV_OK;
    *found = true;
    *line = (fv_line){ .text = l->buffer + l->begin, .n = n, .too_long = too_long };
    l->begin += n + ended;
    l->n_read += n + ended;
    if (too_long)
        *line = (fv_line){ .too_long = true };
    if (first && line->n >= 3 && !memcmp(line->text, "\xef\xbb\xbf", 3)) {
        line->text += 3;
        line->n -= 3;
    }
    if (line->n && line->text[line->n - 1] == '\r')
        line->n--;
    return FV_OK;
}
