/* aihub_client: the user's AI Hub client (the Python package qai-hub), run.
 *
 * Uploads go through its program `qai-hub`, as the reference pipeline does; everything else through
 * short Python programs of ours that import the package, because the program neither downloads nor
 * says by its exit code how a job ended. Ours answer with JSON, a line each (aihub_said.h).
 *
 * The client reads its access token itself, from its own configuration file. We read that file,
 * too, to say early what is missing, and to keep the token out of what we quote. */
#ifndef FV_AIHUB_CLIENT_H
#define FV_AIHUB_CLIENT_H

#include "fastvlm_qairt.h"
#include "qairt/aihub_said.h"

typedef struct fv_aihub_client {
    const fv_aihub_options *options;
    char *program; /* qai-hub */
    char *python;  /* that has the package */
    char *config;  /* the client's configuration file */
    char *token;   /* in it; only ever compared with */
    uint32_t jitter;
} fv_aihub_client;

/* options are borrowed. With dry_run nothing needs to be there. On failure *c is zero. */
fv_status fv_aihub_client_open(fv_aihub_client *c, const fv_aihub_options *options, fv_error *err);
/* The same with whatever is there: program, python and token are NULL where they are missing. */
fv_status fv_aihub_client_look(fv_aihub_client *c, const fv_aihub_options *options, fv_error *err);
void fv_aihub_client_close(fv_aihub_client *c);

/* Our Python programs, with what follows their names in argv:
 *
 *     VERSION                                version; imports nothing of the package
 *     CHECK                                  user, version
 *     MODELS   NAME SINCE                    whole models of that name and of this user, made since
 *                                            then, newest first: model_id, time
 *     SUBMIT   MODEL_ID JOB_NAME DEVICE OS OPTIONS      job_id, url
 *     JOBS     JOB_NAME SINCE                compile jobs, newest first: job_id, model_id, options,
 *                                            device, url, time
 *     STATUS   JOB_ID...                     job_id, status, message, url
 *     DOWNLOAD JOB_ID FILE                   model_id (of what was compiled) */
typedef enum fv_aihub_program {
    FV_AIHUB_VERSION,
    FV_AIHUB_CHECK,
    FV_AIHUB_MODELS,
    FV_AIHUB_SUBMIT,
    FV_AIHUB_JOBS,
    FV_AIHUB_STATUS,
    FV_AIHUB_DOWNLOAD
} fv_aihub_program;

typedef void fv_aihub_answer_fn(void *user, const fv_aihub_said *said);

typedef struct fv_aihub_call {
    const char *stage; /* of progress; static */
    double done;       /* of progress */
    double timeout_s;
    const char *temporary; /* folder for the client's temporary files; NULL: the system's */
    fv_aihub_answer_fn *answer;
    void *user;
} fv_aihub_call;

/* Runs a program once; words ends with NULL. With dry_run it is only logged, and FV_OK.
 * *transient: after a failure, the same again may go well. */
fv_status fv_aihub_ask_once(fv_aihub_client *c, const fv_aihub_call *call, fv_aihub_program program,
                            const char *const *words, bool *transient, fv_error *err);
/* The same, for what changes nothing at the service: tries again as often as options allow.
 * transient may be NULL. */
fv_status fv_aihub_ask(fv_aihub_client *c, const fv_aihub_call *call, fv_aihub_program program,
                       const char *const *words, bool *transient, fv_error *err);
/* `qai-hub upload-model`, once. "" with dry_run. */
fv_status fv_aihub_upload_once(fv_aihub_client *c, const fv_aihub_call *call, const char *file,
                               const char *name, char model_id[FV_AIHUB_ID], bool *transient,
                               fv_error *err);

/* Waits before try number n (from 1) of something: longer each time, a little apart. */
fv_status fv_aihub_wait(fv_aihub_client *c, const char *stage, int n, fv_error *err);
int fv_aihub_retries(const fv_aihub_client *c);

#endif
