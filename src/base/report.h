/* report: what a call says on the way, and whether its caller wants it to go on. Callbacks may be
 * NULL, and so may each function in them. */
#ifndef FV_REPORT_H
#define FV_REPORT_H

#include "base/base.h"

void fv_log(const fv_callbacks *callbacks, fv_log_level level, const char *format, ...)
    FV_PRINTF(3, 4);

/* FV_ERR_CANCELLED when the caller wants to stop. stage is a static string, done in [0, 1]. */
fv_status fv_progress(const fv_callbacks *callbacks, const char *stage, double done, fv_error *err);

/* Callbacks for a call that writes into a folder which takes its place later: what is logged does
 * not begin with "FOLDER/". staged outlives the call. */
typedef struct fv_staged {
    const char *folder;
    const fv_callbacks *callbacks;
} fv_staged;
fv_callbacks fv_staged_callbacks(fv_staged *staged);

#endif
