/* runner_host: this machine as a runner (runner.h), with the SDK's own programs and libraries. */
#ifndef FV_RUNNER_HOST_H
#define FV_RUNNER_HOST_H

#include "qairt/qairt_tool.h"
#include "qairt/runner.h"

typedef struct fv_runner_host {
    fv_runner runner; /* what is handed on */
    char *root;       /* a scratch directory */
    char *backend;    /* libQnnHtp.so of the SDK */
    char *variables[4];
    const char *environment[4];
} fv_runner_host;

/* sdk must outlive it. On failure *h is zero. */
fv_status fv_runner_host_open(fv_runner_host *h, const fv_sdk *sdk, fv_error *err);
void fv_runner_host_close(fv_runner_host *h); /* removes what was put there */

#endif
