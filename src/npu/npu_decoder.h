/* npu_decoder: the decoder on its way to the NPU, in f16.
 *
 *     decoder_step     one row, a token
 *     decoder_chunk    FV_NPU_CHUNK rows of a prompt
 *
 * Two graphs of one context that hold the same weights. The host keeps the cache: keys past [kv, D,
 * C] and values [kv, C, D] come in, the new rows come out, and the host writes them to where the
 * bias lets the next rows look. It also computes what is a few numbers for a call: cos and sin of
 * the positions, the bias (qnn_backend.c has their shapes). */
#ifndef FV_NPU_DECODER_H
#define FV_NPU_DECODER_H

#include "model/model.h"
#include "npu/npu_plan.h"

enum { FV_NPU_STEP = 1, FV_NPU_CHUNK = 128, FV_NPU_CACHE = 512 };

typedef struct fv_npu_decoder {
    fv_model model;
    fv_graph graph[2]; /* step, chunk */
    fv_npu_plan plan[2];
} fv_npu_decoder;

/* cache_len 0: FV_NPU_CACHE. On failure *d is zero. */
fv_status fv_npu_decoder_open(fv_npu_decoder *d, const char *model, int cache_len,
                              const fv_callbacks *callbacks, fv_error *err);
void fv_npu_decoder_close(fv_npu_decoder *d); /* zero is fine */

#endif
