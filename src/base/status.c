/* Errors as values: the one place that fills an fv_error. */
#include "base/base.h"

#include <string.h>

#include "base/number.h"

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

/* Bytes that a character beginning with c has, were it well-formed. */
static size_t character_length(unsigned char c)
{
    return c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
}

/* True when text begins with a well-formed character of n bytes that a line can show: no control
 * character, no surrogate, nothing that is longer than it need be. */
static bool character_is_shown(const char *text, size_t n)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *c = (const unsigned char *)text;

    if (n == 1)
        return c[0] >= 0x20 && c[0] < 0x7f;
    uint32_t code = c[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return false; /* the NUL at the end of text, too */
        code = code << 6 | (c[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code >= least[n] && code >= 0xa0 && code <= 0x10ffff && !surrogate;
}

/* The message is one line of UTF-8, though names taken from files may hold anything: every other
 * byte becomes '?', and a cut never leaves half a character at the end. */
static void message_tidy(char *text, bool cut)
{
    size_t n = strlen(text), kept = 0;

    for (size_t at = 0; at < n;) {
        size_t length = character_length((unsigned char)text[at]);
        if (cut && at + length > n)
            break;
        if (character_is_shown(text + at, length)) {
            memmove(text + kept, text + at, length);
            kept += length;
            at += length;
        } else {
            text[kept++] = '?';
            at++;
        }
    }
    text[kept] = '\0';
}

fv_status fv_fail(fv_error *err, fv_status status, uint64_t at, const char *format, ...)
{
    if (!err)
        return status;
    va_list args;
    va_start(args, format);
    err->status = status;
    err->at = at;
    int wanted = fv_format_list(err->message, sizeof err->message, format, args);
    va_end(args);
    message_tidy(err->message, wanted < 0 || (size_t)wanted >= sizeof err->message);
    return status;
}

fv_status fv_fail_memory(fv_error *err, size_t n_bytes, const char *what)
{
    return fv_fail(err, FV_ERR_MEMORY, 0, "out of memory: %s needs %zu bytes", what, n_bytes);
}
