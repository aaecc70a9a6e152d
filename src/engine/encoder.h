/* encoder: image -> image tokens [T, d_model], T = (S / 64)^2.
 *
 *     image -> fit, resize, scale -> pixels f32 [S, S, 3] -> vision, projector -> features
 *
 * What the second arrow is made of is a table of functions: the CPU's own by default, another one
 * (a neural processor's) where a caller hands it in. The scratch of an encoding, 66 MB at S = 1024,
 * belongs to the engine: it is kept for the next image, and several threads may encode at once. */
#ifndef FV_ENCODER_H
#define FV_ENCODER_H

#include <pthread.h>

#include "engine/features.h"
#include "engine/layer_clock.h"
#include "image/image.h"
#include "model/model.h"
#include "nn/watch.h"

/* What encodes pixels. A function that fails leaves nothing to release. */
typedef struct fv_encoder_ops {
    const char *name; /* "cpu" */
    /* Scratch for one image at a time. context: the encoder's. */
    fv_status (*open)(void **scratch, const void *context, fv_error *err);
    /* pixels [S, S, 3] in [0, 1] -> tokens [T, d_model]. n_threads: at most; 0: all. Fills
     * times->vision and times->projector. */
    fv_status (*run)(void *scratch, float *tokens, const float *pixels, int n_threads,
                     const fv_watch *watch, fv_encode_times *times, fv_error *err);
    void (*close)(void *scratch);
} fv_encoder_ops;

enum { FV_ENCODER_IDLE = 4 }; /* scratches kept for the next image */

typedef struct fv_encoder_slot {
    void *scratch;
    uint8_t *u8;   /* [S, S, 3] the fitted image */
    float *pixels; /* [S, S, 3] */
} fv_encoder_slot;

typedef struct fv_encoder {
    const fv_model *model;
    int image_size;
    const fv_encoder_ops *ops;
    const void *context;
    pthread_mutex_t lock; /* of idle */
    fv_encoder_slot idle[FV_ENCODER_IDLE];
    size_t n_idle;
} fv_encoder;

/* The CPU's encoder; its context is an fv_encoder. */
extern const fv_encoder_ops fv_encoder_cpu;

/* model outlives it. Takes no memory before the first image. ops NULL: the CPU's. */
void fv_encoder_init(fv_encoder *e, const fv_model *model, int image_size,
                     const fv_encoder_ops *ops, const void *context);
void fv_encoder_free(fv_encoder *e);

/* What the scratch for one image takes: it is taken, unused, and given back. */
fv_status fv_encoder_memory(fv_encoder *e, uint64_t *bytes, fv_error *err);

/* Any number of threads at once. options: by the border's rules already. */
fv_status fv_encoder_encode(fv_encoder *e, const fv_image *image, const fv_encode_options *options,
                            fv_features **out, fv_error *err);

#endif
