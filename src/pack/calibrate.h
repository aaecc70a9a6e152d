/* calibrate: the encoder and the projector in int8, from what flows through them.
 *
 *     pictures -> encoder in f32, seen layer by layer -> ranges and sample rows
 *     each layer: smoothing, clipping and rounding with the least measured error -> int8 weights
 *     the encoder in int8 against f32; the costliest layer goes back to bf16, until it is close */
#ifndef FV_CALIBRATE_H
#define FV_CALIBRATE_H

#include "pack/pack.h"

typedef struct fv_calibrate_options {
    const char *const *paths; /* pictures and folders; n_paths 0: built-in synthetic scenes */
    size_t n_paths;
    /* 0: as fv_pack_options says; of more pictures so many are taken, evenly over the list; without
     * pictures so many scenes are drawn */
    int max_images;
    double min_cosine;             /* of features and image tokens, mean over pictures; 0: 0.9992 */
    const fv_callbacks *callbacks; /* may be NULL */
} fv_calibrate_options;

/* ---- what it is calibrated with (samples.c) ---- */

enum { FV_CALIBRATE_IMAGES = 32, FV_CALIBRATE_SCENES = 16 }; /* int8 at 1024 x 1024 */

typedef struct fv_seen {
    size_t n, n_skipped; /* pictures seen; broken ones */
    bool synthetic;
} fv_seen;

/* Sees the at-th of n pictures, f32 [S, S, 3] in [0, 1]. */
typedef fv_status fv_calibrate_fn(void *user, const float *pixels, size_t at, size_t n,
                                  fv_error *err);

/* Shows the pictures of the options to fn, at most so many unless the options say how many, or so
 * many scenes; of less than 1024 x 1024 pixels up to four times as many. Broken pictures are
 * skipped; it is an error when they are half or more of all. */
fv_status fv_calibrate_pictures(fv_seen *out, const fv_calibrate_options *o, size_t pictures,
                                size_t scenes, const fv_config *c, const fv_kernels *k,
                                fv_pool *pool, fv_calibrate_fn *fn, void *user, fv_error *err);

/* ---- the encoder ---- */

typedef struct fv_calibration fv_calibration;

/* w as loaded from a checkpoint; it outlives *out. */
fv_status fv_calibrate(fv_calibration **out, const fv_config *c, fv_weights *w, const fv_kernels *k,
                       fv_pool *pool, const fv_calibrate_options *options, fv_error *err);
void fv_calibration_free(fv_calibration *c);

/* Fills the losses' cosines where that has not been done: the encoder with each unit alone in int8
 * over a picture. */
fv_status fv_calibrate_layers(fv_calibration *c, fv_error *err);

size_t fv_calibration_units(const fv_calibration *c);
const fv_layer_loss *fv_calibration_unit(const fv_calibration *c, size_t i);

/* What the encoder loses as it is now, over the pictures it was judged by. */
void fv_calibration_report(const fv_calibration *c, fv_pack_report *report);

/* What the packer asks for each weight; valid while c lives. */
fv_pack_hook fv_calibration_hook(fv_calibration *c);

#endif
