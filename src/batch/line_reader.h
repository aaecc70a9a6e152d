/* line_reader: the lines of a file or pipe of any length, with a limit on each.
 *
 *     fv_line_reader l;  fv_line line;  bool found;
 *     FV_TRY(fv_line_reader_open(&l, path, max_bytes, callbacks, err));
 *     FV_TRY(fv_line_reader_next(&l, &line, &found, err));        while found
 *     fv_line_reader_close(&l); */
#ifndef FV_LINE_READER_H
#define FV_LINE_READER_H

#include "base/base.h"

typedef struct fv_line {
    const char *text; /* without its end, "\n" or "\r\n", and without a byte order mark before the
                         first; valid until the next call */
    size_t n;
    bool too_long; /* there is no text then */
} fv_line;

typedef struct fv_line_reader {
    char *name;
    int fd;
    char *buffer;
    size_t capacity, begin, end, max_bytes;
    uint64_t n_read; /* bytes, up to the end of the last line */
    bool at_end;
    const fv_callbacks *callbacks;
} fv_line_reader;

/* callbacks: asked several times a second while a pipe sends nothing or has no writer, so that the
 * wait can be ended; they outlive l. NULL: it cannot. */
fv_status fv_line_reader_open(fv_line_reader *l, const char *path, size_t max_bytes,
                              const fv_callbacks *callbacks, fv_error *err);
/* *found is false at the end. */
fv_status fv_line_reader_next(fv_line_reader *l, fv_line *line, bool *found, fv_error *err);
void fv_line_reader_close(fv_line_reader *l);

#endif
