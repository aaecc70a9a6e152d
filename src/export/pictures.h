/* pictures: the files that a list of paths names. */
#ifndef FV_PICTURES_H
#define FV_PICTURES_H

#include "base/base.h"

typedef struct fv_pictures {
    char **path;
    size_t n, capacity;
} fv_pictures;

/* Files as they are, folders as the pictures in them by the order of their names (.jpg .jpeg .png
 * .webp .ppm .pgm .pnm; folders inside are not entered). A folder without pictures is an error.
 * Call fv_pictures_free also after a failure. */
fv_status fv_pictures_collect(fv_pictures *out, const char *const *paths, size_t n_paths,
                              fv_error *err);
void fv_pictures_free(fv_pictures *pictures);

/* A picture of shapes, colour gradients, stripes and noise from a seed into rgb [size, size, 3]:
 * for calibration when nobody gives pictures. */
void fv_scene_draw(uint8_t *rgb, int size, uint64_t seed);

#endif
