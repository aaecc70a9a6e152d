/* Log lines and progress. See report.h. */
#include "base/report.h"

#include "base/number.h"

void fv_log(const fv_callbacks *callbacks, fv_log_level level, const char *format, ...)
{
    char message[sizeof(fv_error)];
    va_list args;
    if (!callbacks || !callbacks->log)
        return;
    va_start(args, format);
    fv_format_list(message, sizeof message, format, args);
    va_end(args);
    callbacks->log(callbacks->user, level, message);
}

fv_status fv_progress(const fv_callbacks *callbacks, const char *stage, double done, fv_error *err)
{
    if (callbacks && callbacks->progress && callbacks->progress(callbacks->user, stage, done))
        return fv_fail(err, FV_ERR_CANCELLED, 0, "cancelled during %s", stage);
    return FV_OK;
}
