/* npu_decoder: the decoder on its way to the NPU.
 *
 *     decoder_step     one row, a token -> its keys and values, logits
 *     decoder_chunk    FV_NPU_CHUNK rows of a prompt -> their keys and values
 *
 * Two graphs of one context that hold the same weights. The last row of a prompt is a step, so that
 * the head is computed for one row only. The cache is kept outside: keys past [kv, D, C] and
 * values [kv, C, D] come in, the new rows come out, to be written to where the bias lets the next
 * rows look. So is what is a few numbers for a call: cos and sin of the positions, the bias
 * (qnn_backend.c has their shapes). npu_lm.c does all that.
 *
 *     W8A16: images -> questions, the model's answers -> rows -> graph in f32 -> ranges -> plans */
#ifndef FV_NPU_DECODER_H
#define FV_NPU_DECODER_H

#include "model/model.h"
#include "npu/npu_plan.h"
#include "pack/calibrate.h"

enum { FV_NPU_STEP = 1, FV_NPU_CHUNK = 128, FV_NPU_CACHE = 512 };

#define FV_NPU_STEP_GRAPH  "decoder_step"
#define FV_NPU_CHUNK_GRAPH "decoder_chunk"

typedef struct fv_npu_decoder {
    fv_model model;
    fv_graph graph[2]; /* step, chunk */
    fv_npu_plan plan[2];
    fv_seen seen;  /* of the calibration set */
    size_t n_rows; /* that the ranges are from */
} fv_npu_decoder;

/* cache_len 0: FV_NPU_CACHE. On failure *d is zero. */
fv_status fv_npu_decoder_open(fv_npu_decoder *d, const char *model, int cache_len,
                              const fv_callbacks *callbacks, fv_error *err);
void fv_npu_decoder_close(fv_npu_decoder *d); /* zero is fine */

/* F16 or W8A16; calibrate: its images, not asked for F16. Once for a d. */
fv_status fv_npu_decoder_plan(fv_npu_decoder *d, fv_npu_precision precision,
                              const fv_calibrate_options *calibrate, fv_error *err);

#endif
