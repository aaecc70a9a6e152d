/* calibrate: the encoder and the projector in int8, from what flows through them.
 *
 *     pictures -> encoder in f32, seen layer by layer -> ranges and sample rows
 *     each layer: smoothing, clipping and rounding with the least measured error -> int8 weights
 *     the encoder in int8 against f32; the layer that costs most goes back to bf16, until it is good enough */
#ifndef FV_CALIBRATE_H
#define FV_CALIBRATE_H

#include "export/pack.h"

typedef struct fv_calibrate_options {
    const char *const *paths; /* pictures and folders; n_paths 0: built-in synthetic scenes */
    size_t n_paths;
    int    max_images;        /* 0: as fv_pack_options says; of more pictures so many are taken, evenly over the list;
                                 without pictures so many scenes are drawn */
    double min_cosine;        /* of features and image tokens, mean over pictures; 0: 0.9991 */
    fv_progress_fn *progress;
    void  *progress_user;
    fv_log_fn *log;
    void  *log_user;
} fv_calibrate_options;

typedef struct fv_calibration fv_calibration;

/* w as loaded from a checkpoint; it outlives *out. */
fv_status fv_calibrate(fv_calibration **out, const fv_config *c, fv_weights *w, const fv_kernels *k, fv_pool *pool,
                       const fv_calibrate_options *options, fv_error *err);
void      fv_calibration_free(fv_calibration *c);

/* Fills the losses' cosines where that has not been done: the encoder with each unit alone in int8 over a picture. */
fv_status fv_calibrate_layers(fv_calibration *c, fv_error *err);

size_t               fv_calibration_units(const fv_calibration *c);
const fv_layer_loss *fv_calibration_unit(const fv_calibration *c, size_t i);

/* What the encoder loses as it is now, over the pictures it was judged by. */
void fv_calibration_report(const fv_calibration *c, fv_pack_report *report);

/* What the packer asks for each weight; valid while c lives. */
fv_pack_hook fv_calibration_hook(fv_calibration *c);

#endif
