/* runner: where the tools of the SDK run, this machine or a phone.
 *
 * The qairt way (qairt_way.h) is written once against this table; runner_host.c fills it for this
 * machine, src/device for a phone over adb.
 *
 * Paths on the runner are absolute and hold no space, comma or quote: the lists that qnn-net-run
 * reads and the arguments of genie-t2t-run know no quoting. */
#ifndef FV_RUNNER_H
#define FV_RUNNER_H

#include "base/spawn.h"

enum { FV_RUNNER_PATH = 1024 }; /* bytes of a path on a runner, with its NUL */

/* One program, run to its end. */
typedef struct fv_runner_call {
    const char *const *argv;        /* ends with NULL; argv[0] is a path on the runner */
    const char *const *environment; /* besides runner->environment; ends with NULL, or is NULL */
    const char *directory;          /* on the runner; NULL: runner->root */
    double timeout_ms;              /* 0: none */
    /* What it writes: lines without their newline, or with `raw` pieces as they come, newlines
     * and all. NULL: dropped. A runner that cannot tell the streams apart says is_error false. */
    fv_spawn_line_fn *line;
    bool raw;
    fv_spawn_stop_fn *stop; /* asked at least ten times a second; true: FV_ERR_CANCELLED */
    void *user;             /* of line and stop */
} fv_runner_call;

typedef struct fv_runner fv_runner;
struct fv_runner {
    const char *name;     /* for messages and profile.json: "this machine", "device R5CX123ABC" */
    const char *soc;      /* "SM8750"; NULL: an emulated NPU */
    const char *root;     /* a folder for what is run: inputs, outputs */
    const char *programs; /* the folder of qnn-net-run and genie-t2t-run */
    const char *backend;  /* what --backend is given: "libQnnHtp.so", or a path */
    const char *const *environment; /* of every call: LD_LIBRARY_PATH, ... ; ends with NULL */

    /* Copies a file of this machine to a path under root. Its folders are made; what was there is
     * replaced. On FV_OK the copy is whole. */
    fv_status (*put)(fv_runner *runner, const char *local, const char *remote, fv_error *err);
    /* Makes a large file that does not change (weights, tables, context binaries) readable on the
     * runner, and says under which path: here its own, on a phone root/name, pushed unless the
     * same bytes are there already. */
    fv_status (*place)(fv_runner *runner, const char *local, const char *name,
                       char path[FV_RUNNER_PATH], fv_error *err);
    /* *exit_code is what the program gave; a code other than 0 is no error. FV_ERR_IO: it could not
     * be started, was ended by a signal, or the phone is gone; FV_ERR_LIMIT: time;
     * FV_ERR_CANCELLED. In all of these the program has been ended. */
    fv_status (*run)(fv_runner *runner, const fv_runner_call *call, int *exit_code, fv_error *err);
    /* Copies a file of the runner to this machine; FV_ERR_IO when it is not there. */
    fv_status (*get)(fv_runner *runner, const char *remote, const char *local, fv_error *err);
    /* Names of the entries of a folder on the runner, each ended by NUL, sorted, in a block to
     * fv_free; *n_names of them. A folder that is not there has none. */
    fv_status (*list)(fv_runner *runner, const char *remote, char **names, size_t *n_names,
                      fv_error *err);
    /* The folder `remote`, under root, empty: made, or what was in it removed. */
    fv_status (*clear)(fv_runner *runner, const char *remote, fv_error *err);
    void *user; /* of the functions */
};

#endif
