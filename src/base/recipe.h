/* recipe: from an image to the encoder's numbers. A checkpoint's files state it, model/processor
 * reads it, image/preprocess carries it out. */
#ifndef FV_RECIPE_H
#define FV_RECIPE_H

#include "fastvlm.h"

/* Pillow's filters. */
typedef enum fv_filter {
    FV_FILTER_BICUBIC = 0,
    FV_FILTER_NEAREST,
    FV_FILTER_BOX,
    FV_FILTER_BILINEAR,
    FV_FILTER_HAMMING,
    FV_FILTER_LANCZOS,
    FV_FILTER_COUNT
} fv_filter;

/* What a checkpoint does to an image: which square of it becomes the input, and which numbers its
 * bytes become. [docs/images.md] */
typedef struct fv_recipe {
    fv_fit fit;
    fv_filter filter;
    /* CROP: what the image is scaled to before the square in its middle is taken, black where it is
     * too small. 0 numbers: the short edge to the square's side; 1: the short edge to this; 2: to
     * this width and height, or, when both are 0, not at all. */
    int n_scale, scale[2];
    double rescale;        /* f32(byte * rescale); 0: the byte itself */
    float mean[3], std[3]; /* then (f32 - mean) / std, by colour */
} fv_recipe;

/* Bytes / 255, resampled with BICUBIC: what FastVLM was trained with. */
#define FV_RECIPE(fit_) \
    (&(const fv_recipe){ .fit = (fit_), .rescale = 1.0 / 255, .std = { 1, 1, 1 } })

#endif
