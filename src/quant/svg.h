/* svg: a picture in the making, line by line. */
#ifndef FV_SVG_H
#define FV_SVG_H

#include "base/base.h"
#include "io/json_write.h"

typedef struct fv_svg {
    fv_json_text text; /* the file */
} fv_svg;

/* A white page with a title: any bytes, shown as text. */
void fv_svg_begin(fv_svg *s, double width, double height, double title_x, const char *title,
                  size_t n_title_bytes);
/* Another line, at most 1023 bytes. */
void fv_svg_put(fv_svg *s, const char *format, ...) FV_PRINTF(2, 3);
/* Text as XML. */
void fv_svg_escape(char *to, size_t size, const char *from, size_t n_bytes);
/* Ends the picture, writes it and frees it. */
fv_status fv_svg_save(fv_svg *s, const char *file, fv_error *err);

#endif
