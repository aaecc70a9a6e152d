/* qnn_child: a child process for Qualcomm's libraries.
 *
 * They print on standard output, cannot be interrupted, keep their memory, and a damaged file may
 * make them end the process they are in. So a function that calls them runs in a child: it sees
 * what its parent had in memory (mapped weights, options), gives bytes back, and its status and
 * message become the caller's.
 *
 *     parent                              child
 *     fv_qnn_child_run  --- fork --->     run(user, child, err)
 *       progress  <--- shared page ---      fv_qnn_child_tell
 *       result.bytes  <---- pipe ------     fv_qnn_child_write
 *       result.said   <---- pipe ------     what the libraries print on either stream
 *       err       <--- shared page ---      its return value
 *
 * Or the child stays, for loading a binary may take longer than running it, and the decoder's keys
 * and values live with it:
 *
 *     fv_qnn_server_open  --- fork --->   open(user, child, err)        once
 *     fv_qnn_server_call  --- pipe --->   answer(user, child, what, err)
 *       fv_qnn_server_shared  <------->     fv_qnn_child_shared: the same memory
 *       err, progress  <--- as above ---
 *     fv_qnn_server_close --- pipe --->   ends */
#ifndef FV_QNN_CHILD_H
#define FV_QNN_CHILD_H

#include "base/base.h"

typedef struct fv_qnn_child fv_qnn_child;

/* Runs in the child. Only its own thread is there: pools of the parent must not be used. */
typedef fv_status fv_qnn_child_fn(void *user, fv_qnn_child *child, fv_error *err);

typedef struct fv_qnn_child_options {
    fv_qnn_child_fn *run;
    void *user;
    const char *name;              /* in messages: "vision.bin: QNN compiler" */
    const char *stage;             /* of progress; a static string */
    const fv_callbacks *callbacks; /* progress; may be NULL */
    double timeout_ms;             /* 0: none */
    size_t max_bytes;              /* of the result and of what is said; 0: 16 MiB */
} fv_qnn_child_options;

typedef struct fv_qnn_child_result {
    char *bytes; /* a NUL after the last */
    size_t n_bytes;
    char *said; /* lines of the libraries */
    size_t n_said;
    uint64_t peak_bytes; /* the child's memory at its largest; 0: it did not end by itself */
} fv_qnn_child_result;

/* The child's status and message; FV_ERR_IO when it was ended by a signal, FV_ERR_LIMIT after the
 * time allowed, FV_ERR_CANCELLED. *result is filled as far as it went: free it in any case. */
fv_status fv_qnn_child_run(fv_qnn_child_result *result, const fv_qnn_child_options *options,
                           fv_error *err);
void fv_qnn_child_result_free(fv_qnn_child_result *result);

/* In the child: bytes of the result; how much is done, in [0, 1]. */
fv_status fv_qnn_child_write(fv_qnn_child *child, const void *data, size_t n_bytes, fv_error *err);
void fv_qnn_child_tell(fv_qnn_child *child, double done);

/* What the libraries said, as warnings, line by line; NULL is fine. */
void fv_qnn_said_log(const fv_callbacks *callbacks, const char *said);

/* ---- a child that stays ---- */

/* In the child, for each call; what: the caller's number. */
typedef fv_status fv_qnn_answer_fn(void *user, fv_qnn_child *child, unsigned what, fv_error *err);

typedef struct fv_qnn_server_options {
    fv_qnn_child_fn *open;
    fv_qnn_answer_fn *answer;
    void *user;          /* of both; the child has a copy of it and of all that it points to */
    const char *name;    /* in messages; outlives the server */
    const char *stage;   /* of progress; a static string */
    size_t shared_bytes; /* of memory that both see, at first zero: arguments and results */
} fv_qnn_server_options;

typedef struct fv_qnn_server fv_qnn_server;

/* Starts a child and waits until open has returned. Its status and message are the call's, as
 * above; what the libraries said is logged when it fails. On failure *out is NULL. */
fv_status fv_qnn_server_open(fv_qnn_server **out, const fv_qnn_server_options *options,
                             const fv_callbacks *callbacks, fv_error *err);
/* One call at a time. After FV_ERR_CANCELLED, or when the child has died, every further call fails:
 * fv_qnn_server_ended tells, and another one must be opened. */
fv_status fv_qnn_server_call(fv_qnn_server *s, unsigned what, const fv_callbacks *callbacks,
                             fv_error *err);
bool fv_qnn_server_ended(fv_qnn_server *s);
void fv_qnn_server_close(fv_qnn_server *s); /* NULL is fine */

/* The shared memory, in the parent and in the child. The parent trusts nothing in it. */
void *fv_qnn_server_shared(fv_qnn_server *s);
void *fv_qnn_child_shared(fv_qnn_child *child);

#endif
