/* npu_mixed: which layers of a plan have 8 bits, chosen by what each costs.
 *
 *     units       a convolution or linear layer with the GELU behind it
 *     cost        how far the image tokens turn when only this unit is in 8 bits
 *     choice      all in 8 bits; then 16 for those first that cost most for the multiplications
 *                 they save, until the tokens are close enough to f32
 *     fit         how ranges are fitted and whether biases are corrected: the best of a few
 *     once more   wide units in 8 bits where that is still close enough */
#ifndef FV_NPU_MIXED_H
#define FV_NPU_MIXED_H

#include "npu/npu_vision.h"

#define FV_NPU_MIXED_COSINE 0.9986

/* Changes widths of v->plan, which has encodings. pixels [n, S, S, 3] are the images that it is
 * judged by; min_cosine: of their tokens, mean; 0: FV_NPU_MIXED_COSINE, or half as far again as
 * 8-bit weights alone turn them. What that cannot reach is a plan of 16 bits. */
fv_status fv_npu_mixed_choose(fv_npu_vision *v, const float *pixels, size_t n, double min_cosine,
                              const fv_callbacks *callbacks, fv_error *err);

/* Keeps the widths of v->plan and chooses its fit: the one with which those images lose least. */
fv_status fv_npu_fit_choose(fv_npu_vision *v, const float *pixels, size_t n,
                            const fv_callbacks *callbacks, fv_error *err);

#endif
