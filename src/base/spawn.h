/* spawn: runs another program, or a function in a child process, to its end.
 *
 * The program gets its arguments as they are, no shell reads them; its standard input from memory;
 * of the caller's descriptors none but the three standard ones; a process group of its own, so that
 * all it has started can be ended with it; signals as a fresh process has them. When the calling
 * process dies, it is told to end (Linux).
 *
 * What it starts and leaves behind (adb's server) lives on when it has ended by itself, even if it
 * holds its standard output open. */
#ifndef FV_SPAWN_H
#define FV_SPAWN_H

#include "base/base.h"

/* A line of its standard output, or of standard error, as it comes; without its newline, any bytes,
 * no NUL after the last. A line of more than 64 KiB comes in pieces. */
typedef void fv_spawn_line_fn(void *user, bool is_error, const char *line, size_t n_bytes);
/* Asked at least ten times a second; true ends the program and gives FV_ERR_CANCELLED. */
typedef bool fv_spawn_stop_fn(void *user);
/* Runs in the child; what it returns is the exit code. Of the caller's threads only its own is
 * there: locks that others held stay locked, pools may only be freed (base.h). */
typedef int fv_spawn_call_fn(void *user);

typedef struct fv_spawn_options {
    /* Ends with NULL. argv[0] is looked for on PATH, that of `environment` first; with a slash in
     * it it is a path, from `directory` on. With `call` only what messages call the child. */
    const char *const *argv;
    fv_spawn_call_fn *call; /* NULL: argv is a program. Code that may end its process runs so */
    /* Ends with NULL, or is NULL: "NAME=value" replaces or adds to the caller's environment, "NAME"
     * removes. Not for `call`, which has the caller's. */
    const char *const *environment;
    const char *directory; /* to work in; NULL: the caller's */
    const void *input;     /* its standard input; NULL: none (/dev/null) */
    size_t n_input_bytes;
    /* [2], in place of input: it is a pipe, for a child that is told what to do while it runs. Ends
     * to read and to write, filled before the child runs; the caller's to close. */
    int *input_pipe;
    double timeout_ms;       /* 0: none */
    double grace_ms;         /* from SIGTERM to SIGKILL when it is to end; 0: 2000 */
    size_t max_output_bytes; /* of each stream that is kept; 0: 16 MiB */
    fv_spawn_line_fn *line;  /* NULL: both streams are kept in the result; otherwise neither */
    bool raw; /* line gets pieces as they come, cut anywhere, newlines and all: text that grows */
    fv_spawn_stop_fn *stop; /* NULL: never */
    void *user;             /* of line, stop and call */
    bool any_exit_code;     /* true: an exit code other than 0 is no error */
} fv_spawn_options;

typedef struct fv_spawn_result {
    int exit_code;   /* -1: it did not exit, but was ended by a signal or never started */
    int signal;      /* that ended it; 0: none */
    char *out, *err; /* what it wrote, a NUL after the last byte; NULL with options->line */
    size_t n_out, n_err;
} fv_spawn_result;

/* FV_ERR_IO: not found, not startable, exit code other than 0, ended by a signal; FV_ERR_LIMIT:
 * time or output; FV_ERR_CANCELLED. The message names the program and quotes the last line of its
 * standard error. *result is filled as far as it went, on failure, too: fv_spawn_result_free it in
 * any case. The caller must not ignore SIGCHLD, nor wait for children that are not its own. */
fv_status fv_spawn_run(fv_spawn_result *result, const fv_spawn_options *options, fv_error *err);
void fv_spawn_result_free(fv_spawn_result *result);

/* Where a program of that name is: the first on PATH, a name with a slash in it as it is. In a
 * block to fv_free; FV_ERR_IO when there is none. */
fv_status fv_program_find(char **path, const char *name, fv_error *err);

#endif
