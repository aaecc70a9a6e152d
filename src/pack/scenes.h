/* scenes: synthetic images to calibrate with when nobody gives any. */
#ifndef FV_SCENES_H
#define FV_SCENES_H

#include <stdint.h>

/* An image of shapes, colour gradients, stripes, words and noise from a seed, into rgb [size, size,
 * 3]. */
void fv_scene_draw(uint8_t *rgb, int size, uint64_t seed);

#endif
