/* device_stream: what a program on the phone prints as its answer, cut anywhere by the way here.
 *
 * Gives whole characters on as soon as they are certain, and keeps all of them; a newline only when
 * something follows, since the last one is the program's, not the answer's. Bytes that are not
 * UTF-8 become U+FFFD. */
#ifndef FV_DEVICE_STREAM_H
#define FV_DEVICE_STREAM_H

#include "base/base.h"
#include "fastvlm_device.h"

typedef struct fv_device_stream {
    fv_device_text_fn *text; /* NULL: only keep */
    void *user;
    char *kept; /* the answer so far; a NUL after it once something came */
    size_t n, capacity;
    uint8_t part[4]; /* of a character that is not complete */
    size_t n_part;
    size_t n_newlines; /* held back */
    bool failed;       /* memory was out */
} fv_device_stream;

void fv_device_stream_add(fv_device_stream *s, const char *data, size_t n_bytes);
/* The end: gives what is held back, without the last newline. */
fv_status fv_device_stream_end(fv_device_stream *s, fv_error *err);
void fv_device_stream_free(fv_device_stream *s);

#endif
