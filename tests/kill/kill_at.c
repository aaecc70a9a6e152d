/* Preloaded into the program: ends it with SIGKILL just before its KILL_AT-th call that changes the
 * file system, and counts such calls into the file KILL_COUNT when it ends by itself. Built by
 * matrix.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long n_calls;
static long kill_at;

__attribute__((constructor)) static void kill_at_begin(void)
{
    const char *at = getenv("KILL_AT");
    kill_at = at ? atol(at) : 0;
}

__attribute__((destructor)) static void kill_at_end(void)
{
    const char *path = getenv("KILL_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%ld\n", atomic_load(&n_calls));
        fclose(f);
    }
}

static void kill_at_see(void)
{
    if (atomic_fetch_add(&n_calls, 1) + 1 == kill_at)
        kill(getpid(), SIGKILL);
}

#define CHANGES(type, name, parameters, arguments)              \
    type name parameters                                        \
    {                                                           \
        static type(*next) parameters;                          \
        if (!next)                                              \
            next = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        kill_at_see();                                          \
        return next arguments;                                  \
    }

CHANGES(int, mkdir, (const char *path, mode_t mode), (path, mode))
CHANGES(int, rmdir, (const char *path), (path))
CHANGES(int, unlink, (const char *path), (path))
CHANGES(int, unlinkat, (int at, const char *path, int flags), (at, path, flags))
CHANGES(int, rename, (const char *from, const char *to), (from, to))
CHANGES(int, link, (const char *from, const char *to), (from, to))
CHANGES(int, linkat, (int a, const char *from, int b, const char *to, int flags),
        (a, from, b, to, flags))
CHANGES(int, chmod, (const char *path, mode_t mode), (path, mode))
CHANGES(int, fsync, (int fd), (fd))
CHANGES(int, close, (int fd), (fd))
CHANGES(int, ftruncate, (int fd, off_t n), (fd, n))
CHANGES(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
CHANGES(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at))

int open(const char *path, int flags, ...)
{
    static int (*next)(const char *, int, ...);
    mode_t mode = 0;
    if (!next)
        next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
        kill_at_see();
    }
    return next(path, flags, mode);
}
