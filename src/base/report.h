/* report: what a call says on the way, and whether its caller wants it to go on. Callbacks may be
 * NULL, and so may each function in them. */
#ifndef FV_REPORT_H
#define FV_REPORT_H

#include "base/base.h"

void fv_log(const fv_callbacks *callbacks, fv_log_level level, const char *format, ...)
    FV_PRINTF(3, 4);

/* FV_ERR_CANCELLED when the caller wants to stop. stage is a static string, done in [0, 1]. */
fv_status fv_progress(const fv_callbacks *callbacks, const char *stage, double done, fv_error *err);

#endif
