/* calibrate: the encoder and the projector in int8, from what flows through them.
 *
 *     calibration set -> encoder in f32, its layers' inputs observed -> ranges and sample rows
 *     each layer: smoothing, clipping and rounding with the least error -> int8 (quant/int8.h)
 *     each layer group alone in int8 and in w8a16 (rows of 16 bits) over small images -> an order
 *     the encoder in int8 against f32 at its own size; the groups that cost most go to w8a16, or
 *     back to bf16, until the feature cosine is reached */
#ifndef FV_CALIBRATE_H
#define FV_CALIBRATE_H

#include "pack/pack.h"

typedef struct fv_calibrate_options {
    const char *const *paths; /* images and directories; n_paths 0: built-in scenes */
    size_t n_paths;
    int max_images;    /* images taken, evenly over the list, or scenes drawn; 0: see below */
    double min_cosine; /* of features and image tokens, mean over images; 0: 0.9993 */
    bool compensate;   /* of the encoder: its matrices are rounded with their inputs in view */
    const fv_callbacks *callbacks; /* may be NULL */
} fv_calibrate_options;

/* ---- the calibration set (calib_images.c) ---- */

enum { FV_CALIBRATE_IMAGES = 32, FV_CALIBRATE_SCENES = 16 }; /* int8 at 1024 x 1024 */

typedef struct fv_seen {
    size_t n, n_skipped; /* images seen; unreadable ones */
    bool synthetic;      /* built-in scenes */
} fv_seen;

/* Sees the at-th of n images, f32 [S, S, 3] in [0, 1]. */
typedef fv_status fv_calibrate_fn(void *user, const float *pixels, size_t at, size_t n,
                                  fv_error *err);

/* Shows the calibration set to fn: up to max_images of the options, by default up to `images`, or
 * `scenes` built-in ones; up to four times as many when the model's images are smaller than
 * 1024 x 1024. Unreadable images are skipped; it is an error when they are half or more of all. */
fv_status fv_calibrate_images(fv_seen *out, const fv_calibrate_options *o, size_t images,
                              size_t scenes, const fv_config *c, const fv_kernels *k, fv_pool *pool,
                              fv_calibrate_fn *fn, void *user, fv_error *err);

/* A smaller size for what is only compared with its like, where runs at image_size are long: a half
 * of it, a quarter, ..., as long as that is 256 or more. */
int fv_calibrate_small_size(int image_size);

/* f32 [from_size, from_size, 3] -> [to_size, to_size, 3], means over squares; to_size divides
 * from_size. */
void fv_calibrate_shrink(float *to, size_t to_size, const float *from, size_t from_size);

/* ---- the encoder ---- */

typedef struct fv_calibration fv_calibration;

/* w as loaded from a checkpoint; it outlives *out. */
fv_status fv_calibrate(fv_calibration **out, const fv_config *c, fv_weights *w, const fv_kernels *k,
                       fv_pool *pool, const fv_calibrate_options *options, fv_error *err);
void fv_calibration_free(fv_calibration *c);

/* Fills the groups' cosines where that has not been done: the encoder with each group alone in
 * int8, and in w8a16, over two images of fv_calibrate_small_size. */
fv_status fv_calibrate_groups(fv_calibration *c, fv_error *err);

size_t fv_calibration_group_count(const fv_calibration *c);
const fv_layer_loss *fv_calibration_group(const fv_calibration *c, size_t i);

/* What the encoder loses as it is now, over the images it was judged by. */
void fv_calibration_report(const fv_calibration *c, fv_pack_report *report);

/* What the packer asks for each weight; valid while c lives. */
fv_pack_hook fv_calibration_hook(fv_calibration *c);

#endif
