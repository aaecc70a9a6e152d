/* npu_simulate: what a plan's 8 bits cost, without an NPU: graph_run with rounded weights and
 * values.
 *
 * 16 bits are taken for exact, and attention's inner values too. Fast enough to ask what each layer
 * costs by itself, which an emulator of the NPU is not at full size. */
#ifndef FV_NPU_SIMULATE_H
#define FV_NPU_SIMULATE_H

#include "base/region.h"
#include "npu/npu_plan.h"

/* The encoder with every layer's weights rounded to 8 bits. w outlives *out. */
typedef struct fv_npu_rounded {
    fv_weights w;
    fv_region memory;
} fv_npu_rounded;

fv_status fv_npu_round(fv_npu_rounded *out, const fv_weights *w, const fv_config *c,
                       const fv_kernels *k, fv_error *err);
void fv_npu_rounded_free(fv_npu_rounded *r); /* zero is fine */

/* x rounded to 8 bits of this encoding. */
void fv_npu_round_values(float *x, size_t n, fv_qnn_encoding e);

#endif
