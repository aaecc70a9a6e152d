/* phone: one phone, chosen and asked what it is; what the files of this room share.
 *
 *     /data/local/tmp/fastvlm/
 *         manifest                what was sent (device_push.h)
 *         bin/fastvlm             the program
 *         models/ npu/ lib/       a packed file, a context binary, Qualcomm's libraries
 *         inputs/ outputs/        of the last run
 *         qairt/                  the SDK's tools, and what they read and write
 *         run.pid                 of the process that works now
 */
#ifndef FV_PHONE_H
#define FV_PHONE_H

#include "device/device_facts.h"
#include "device/device_push.h"
#include "fastvlm_device.h"

#define FV_DEVICE_DIRS "bin models npu lib inputs outputs qairt"

struct fv_device {
    fv_adb adb; /* its callbacks are those of the call that runs */
    char *program, *serial, *dir;
    fv_device_facts facts;
};

/* The phone's directory and a name under it; to fv_free, NULL when memory is out. */
char *fv_device_path(const fv_device *device, const char *name);

/* ---- device_job.c: a program of ours on the phone ---- */

typedef struct fv_device_job {
    const char *command;    /* the program and its arguments, as the shell reads them */
    const char *subject;    /* of messages: "fastvlm run" */
    const char *stage;      /* of progress */
    fv_spawn_line_fn *line; /* not NULL; see fv_adb_call */
    bool raw;
    fv_spawn_stop_fn *stop;
    void *user;
    double timeout_ms;
} fv_device_job;

/* Runs it in the phone's directory. When it is cancelled, takes too long or the connection fails,
 * its process is ended, if the phone can be reached. *exit_code: 128 + N when signal N ended it. */
fv_status fv_device_job_run(fv_device *device, const fv_device_job *job, int *exit_code,
                            fv_error *err);
/* Ends what an earlier job has left running; says so in the log. */
fv_status fv_device_job_end(fv_device *device, fv_error *err);

/* ---- device_files.c: which files a job needs ---- */

/* Fills an empty set: program, model, context binary and libraries. */
fv_status fv_device_files(fv_push_set *set, const fv_device *device,
                          const fv_device_push_options *options, fv_error *err);
/* Makes the files of a set be there; with skip only sees to it that they are. */
fv_status fv_device_set_send(fv_device *device, fv_push_set *set, bool skip, fv_error *err);
/* Makes them be there; with skip only sees to it that they are. */
fv_status fv_device_files_send(fv_device *device, const fv_device_push_options *options, bool skip,
                               fv_device_push_report *report, fv_error *err);

#endif
