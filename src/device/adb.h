/* adb: the user's adb client, and one phone behind it.
 *
 * Every call starts the client once, with an argument vector; what the phone's shell gets is one
 * text (shell_text.h). The client's server, which it starts when there is none, is the user's: it
 * is left running. Exit codes and separate streams need the daemon's shell protocol of version 2
 * (Android 7), which fv_adb_choose asks for.
 *
 * What goes wrong between here and the phone is FV_ERR_IO, with a message that says which of it:
 * unplugged, not authorised, offline, the server gone. */
#ifndef FV_ADB_H
#define FV_ADB_H

#include "base/spawn.h"

enum { FV_ADB_NAME = 128 }; /* bytes of a serial number, a state or a model, with its NUL */

typedef struct fv_adb {
    const char *program; /* looked for on PATH, unless there is a slash in it */
    const char *serial;  /* NULL until a phone is chosen */
    const fv_callbacks *callbacks;
    const char *stage; /* of progress while the client works, a static string */
    double done;
} fv_adb;

/* A line of `adb devices -l`. */
typedef struct fv_adb_entry {
    char serial[FV_ADB_NAME];
    char state[FV_ADB_NAME]; /* "device", "unauthorized", "no permissions (...)" */
    char model[FV_ADB_NAME]; /* "SM_S938B"; "" when it does not say */
} fv_adb_entry;

typedef struct fv_adb_entries {
    fv_adb_entry *list;
    size_t n, capacity;
} fv_adb_entries;

/* What the client printed. Lines of its server's start are skipped; FV_ERR_FORMAT when there is no
 * list in it. */
fv_status fv_adb_entries_parse(fv_adb_entries *entries, const char *text, size_t n_bytes,
                               fv_error *err);
fv_status fv_adb_list(fv_adb_entries *entries, const fv_adb *adb, fv_error *err);
void fv_adb_entries_free(fv_adb_entries *entries);

/* What is wrong with a phone in this state, and what to do about it; NULL: nothing. */
const char *fv_adb_state_problem(const char *state);
/* The entry that serial names; without one the only phone there is. Otherwise FV_ERR_IO, with the
 * phones that there are in the message. */
fv_status fv_adb_pick(const fv_adb_entries *entries, const char *serial, size_t *index,
                      fv_error *err);
/* All of it: *serial, to fv_free, is a phone that answers. adb->serial is what was asked for. */
fv_status fv_adb_choose(const fv_adb *adb, char **serial, fv_error *err);

/* A command of the phone's shell, run to its end. */
typedef struct fv_adb_call {
    const char *command;
    double timeout_ms; /* 0: none */
    /* What it writes, as of fv_runner_call; NULL: kept in the result. */
    fv_spawn_line_fn *line;
    bool raw;
    fv_spawn_stop_fn *stop; /* besides adb->callbacks */
    void *user;             /* of line and stop */
} fv_adb_call;

/* result->exit_code is the command's: other than 0 is no error here. Free result in any case. A
 * call that is cancelled or takes too long leaves the phone to end the command: its daemon sends
 * it SIGHUP. */
fv_status fv_adb_shell(const fv_adb *adb, const fv_adb_call *call, fv_spawn_result *result,
                       fv_error *err);
/* A short command that must succeed; *out, which may be NULL: its standard output, to fv_free. what
 * is the subject of the message when it does not. */
fv_status fv_adb_ask(const fv_adb *adb, const char *command, const char *what, char **out,
                     fv_error *err);

/* A file to or from the phone, under exactly these names. */
fv_status fv_adb_push(const fv_adb *adb, const char *local, const char *remote, fv_error *err);
fv_status fv_adb_pull(const fv_adb *adb, const char *remote, const char *local, fv_error *err);

#endif
