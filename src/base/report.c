/* Log lines and progress. See report.h. */
#include "base/report.h"

#include <string.h>

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

static void staged_log(void *user, fv_log_level level, const char *message)
{
    const fv_staged *s = user;
    size_t n = strlen(s->folder);
    if (!strncmp(message, s->folder, n) && message[n] == '/')
        message += n + 1;
    if (s->callbacks && s->callbacks->log) /* not fv_log, which cuts long ones */
        s->callbacks->log(s->callbacks->user, level, message);
}

static bool staged_progress(void *user, const char *stage, double done)
{
    const fv_staged *s = user;
    return fv_progress(s->callbacks, stage, done, NULL) != FV_OK;
}

fv_callbacks fv_staged_callbacks(fv_staged *staged)
{
    return (fv_callbacks){
        .size = sizeof(fv_callbacks), .log = staged_log, .progress = staged_progress, .user = staged
    };
}
