/* phone_runner: a phone as a runner (qairt/runner.h), with the SDK's programs for Android. */
#ifndef FV_PHONE_RUNNER_H
#define FV_PHONE_RUNNER_H

#include "device/phone.h"
#include "qairt/runner.h"

typedef struct fv_phone_runner {
    fv_runner runner; /* what is handed on; its user is the struct */
    fv_device *device;
    bool skip_push; /* large files are not sent: they must be there */
    char *name, *programs;
    char *variables[2];
    const char *environment[3];
} fv_phone_runner;

/* device outlives it. On failure *r is zero. */
fv_status fv_phone_runner_open(fv_phone_runner *r, fv_device *device, bool skip_push,
                               fv_error *err);
void fv_phone_runner_close(fv_phone_runner *r);

#endif
