/* depth_plot: what a precision loses from stage to stage, as an SVG picture. */
#ifndef FV_DEPTH_PLOT_H
#define FV_DEPTH_PLOT_H

#include "base/base.h"

enum { FV_DEPTH_LINES = 2 };

typedef struct fv_depth_point {
    const char *name;
    double sqnr[FV_DEPTH_LINES]; /* dB; infinite: nothing is lost; NaN: no point */
} fv_depth_point;

typedef struct fv_depth_plot {
    const char *title;
    size_t n_title_bytes;
    size_t n_images;
    const char *line[FV_DEPTH_LINES]; /* what each line is */
    const fv_depth_point *points;     /* in the order of the model */
    size_t n;
} fv_depth_plot;

fv_status fv_depth_plot_put(const fv_depth_plot *d, const char *file, fv_error *err);

#endif
