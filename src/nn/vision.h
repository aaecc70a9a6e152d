/* vision: pixels f32 [S, S, 3] -> FastViTHD -> features f32 [T, n_features], T = (S / 64)^2. */
#ifndef FV_VISION_H
#define FV_VISION_H

#include "nn/ops.h"
#include "nn/watch.h"
#include "model/weights.h"

typedef struct fv_vision {
    const fv_config *c;
    const fv_vision_weights *w;
    int image_size;  /* S */
    fv_type operand; /* of matrix products with float weights: F32, BF16 or F16 */
    float *map[2];   /* the largest map, twice: the current map, what comes of it */
    uint8_t *map8;   /* a RepMixer block's map as u8, where its FFN is in int8 */
    float *features; /* [T, n_features] */
    float *squeeze;  /* [2 n_features + n_squeeze] row 19's vectors */
    void *memory;
    size_t memory_bytes;
} fv_vision;

/* Takes the memory for one image size, also in ops. type: what layers that are not in int8 compute
 * in; I8: in what is fast. */
fv_status fv_vision_init(fv_vision *v, const fv_config *c, const fv_vision_weights *w,
                         int image_size, fv_type type, fv_ops *ops, fv_error *err);
void fv_vision_free(fv_vision *v);

/* Fills v->features from pixels [S, S, 3] in [0, 1]. */
fv_status fv_vision_run(fv_vision *v, const fv_ops *ops, const float *pixels, const fv_watch *watch,
                        fv_error *err);

/* The same in parts, for who runs some of them again: the stem, into map[0]; then each step of
 * fv_vision_walk in order, from map[0] into map[0], the last into features. A step's map holds
 * (image_size / reduction)^2 pixels as wide as its stage. */
fv_status fv_vision_run_stem(fv_vision *v, const fv_ops *ops, const float *pixels,
                             const fv_watch *watch, fv_error *err);
void fv_vision_run_step(fv_vision *v, const fv_ops *ops, const fv_vision_step *step);

/* projector: features [T, n_features] -> image tokens [T, d_model], y = W2 gelu(W1 x + b1) + b2. */
fv_status fv_projector_run(fv_vision *v, const fv_ops *ops, float *tokens, const fv_watch *watch,
                           fv_error *err);

#endif
