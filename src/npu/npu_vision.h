/* npu_vision: the encoder and the projector on their way to the NPU.
 *
 *     model -> graph -> ranges -> channels evened out -> graph -> ranges -> plan
 *
 * In floats there is nothing to calibrate, and the first graph is the last. */
#ifndef FV_NPU_VISION_H
#define FV_NPU_VISION_H

#include "fastvlm_npu.h"
#include "model/model.h"
#include "npu/npu_equalize.h"
#include "npu/npu_plan.h"
#include "pack/calibrate.h"

typedef struct fv_npu_vision {
    fv_model model;
    fv_config config; /* the model's, with the image size of the graph */
    fv_ops ops;
    fv_graph graph; /* of `even` once there is a plan of 8 or 16 bits */
    fv_npu_even even;
    fv_ranges *ranges; /* of graph */
    fv_npu_plan plan;
    fv_seen seen;
} fv_npu_vision;

/* image_size 0: the model's. On failure *v is zero. */
fv_status fv_npu_vision_open(fv_npu_vision *v, const char *model, int image_size,
                             const fv_callbacks *callbacks, fv_error *err);
void fv_npu_vision_close(fv_npu_vision *v); /* zero is fine */

/* calibrate: its images; not asked for F16. min_cosine: fv_npu_mixed_choose's. Once for a v. */
fv_status fv_npu_vision_plan(fv_npu_vision *v, fv_npu_precision precision, double min_cosine,
                             const fv_calibrate_options *calibrate, fv_error *err);

/* The graph in f32 on the CPU: pixels [S, S, 3] -> tokens [T, d_model]. */
fv_status fv_npu_vision_run(fv_npu_vision *v, const float *pixels, float *tokens,
                            const fv_graph_observer *observer, fv_error *err);

/* An image file as pixels [S, S, 3]; *taken false, after a warning: unreadable. u8: as many
 * bytes. */
fv_status fv_npu_vision_read(const fv_npu_vision *v, const char *path, float *pixels, uint8_t *u8,
                             bool *taken, const fv_callbacks *callbacks, fv_error *err);

/* Numbers of an image, and of its tokens. */
size_t fv_npu_vision_pixels(const fv_npu_vision *v);
size_t fv_npu_vision_tokens(const fv_npu_vision *v);

#endif
