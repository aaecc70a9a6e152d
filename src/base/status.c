/* Errors as values: the one place that fills an fv_error. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

const char *fv_version(void) { return FV_VERSION; }

const char *fv_status_name(fv_status status)
{
    switch (status) {
    case FV_OK: return "ok";
    case FV_ERR_ARGUMENT: return "argument";
    case FV_ERR_IO: return "io";
    case FV_ERR_FORMAT: return "format";
    case FV_ERR_UNSUPPORTED: return "unsupported";
    case FV_ERR_MEMORY: return "memory";
    case FV_ERR_LIMIT: return "limit";
    case FV_ERR_CANCELLED: return "cancelled";
    case FV_ERR_STATE: return "state";
    }
    return "unknown";
}

/* The message is one line of UTF-8, though names taken from files may hold anything: control
 * characters become '?', and a cut never leaves half a character at the end. */
static void tidy_message(char *text, size_t capacity, int wanted)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = '?';
    if (wanted < 0 || (size_t)wanted < capacity)
        return;
    size_t lead = n;
    while (lead > 0 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80)
        lead--;
    if (lead == 0)
        return;
    unsigned char c = (unsigned char)text[lead - 1];
    size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    if (lead - 1 + length > n)
        text[lead - 1] = '\0';
}

fv_status fv_fail(fv_error *err, fv_status status, uint64_t at, const char *format, ...)
{
    if (!err)
        return status;
    va_list args;
    va_start(args, format);
    err->status = status;
    err->at = at;
    int wanted = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    tidy_message(err->message, sizeof err->message, wanted);
    return status;
}

fv_status fv_fail_memory(fv_error *err, size_t n_bytes, const char *what)
{
    return fv_fail(err, FV_ERR_MEMORY, 0, "out of memory: %s needs %zu bytes", what, n_bytes);
}
