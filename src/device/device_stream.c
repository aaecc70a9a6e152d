/* An answer that comes in pieces. See device_stream.h. */
#include "device/device_stream.h"

#include <string.h>

#include "base/list.h"
#include "base/utf8_text.h"

static void stream_give(fv_device_stream *s, const char *text, size_t n)
{
    s->failed = s->failed || FV_LIST_ROOM(s->kept, s->n, s->capacity, n + 1, NULL) != FV_OK;
    if (s->failed || n == 0)
        return;
    memcpy(s->kept + s->n, text, n);
    s->n += n;
    s->kept[s->n] = '\0';
    if (s->text)
        s->text(s->user, text, n);
}

static void stream_give_newlines(fv_device_stream *s)
{
    for (; s->n_newlines > 0; s->n_newlines--)
        stream_give(s, "\n", 1);
}

/* One character, or a byte or more that begin none. */
static void stream_character(fv_device_stream *s, const uint8_t *at, size_t n, bool complete)
{
    if (complete && n == 1 && *at == '\n') {
        s->n_newlines++;
        return;
    }
    stream_give_newlines(s);
    if (complete)
        stream_give(s, (const char *)at, n);
    else
        stream_give(s, FV_UTF8_REPLACEMENT, strlen(FV_UTF8_REPLACEMENT));
}

void fv_device_stream_add(fv_device_stream *s, const char *data, size_t n_bytes)
{
    bool complete, truncated;

    for (size_t i = 0; i < n_bytes;) {
        s->part[s->n_part++] = (uint8_t)data[i++];
        for (size_t n = s->n_part; n > 0;) {
            size_t step = fv_utf8_step(s->part, n, &complete, &truncated);
            if (truncated && n < sizeof s->part)
                break;
            stream_character(s, s->part, step, complete);
            memmove(s->part, s->part + step, n - step);
            n = s->n_part = n - step;
        }
    }
}

fv_status fv_device_stream_end(fv_device_stream *s, fv_error *err)
{
    if (s->n_part > 0)
        stream_character(s, s->part, s->n_part, false);
    s->n_part = 0;
    s->n_newlines -= s->n_newlines > 0;
    stream_give_newlines(s);
    stream_give(s, "", 0);
    return s->failed ? fv_fail_memory(err, s->n, "an answer") : FV_OK;
}

void fv_device_stream_free(fv_device_stream *s)
{
    fv_free(s->kept);
    *s = (fv_device_stream){ 0 };
}
