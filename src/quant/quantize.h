/* quantize: rows of weights f32 <-> GGUF blocks of 8 or 4 bits.
 *
 * The scale of every block is searched for: the one with the least squared error, weighted by how much
 * each column matters. Deterministic; never worse than rounding with the scale of the largest value. */
#ifndef FV_QUANTIZE_H
#define FV_QUANTIZE_H

#include "base/base.h"
#include "base/types.h"

/* One row of k weights (a multiple of FV_BLOCK) as type, Q8_0 or Q4_0, into dst of fv_row_bytes(type, k) bytes.
 * importance [k]: what a squared error in a column costs, >= 0, as the mean square of its activations;
 * NULL: all the same. Returns the weighted squared error; infinity when a weight is not finite (such are
 * stored as 0). Scales end at f16's 65504. */
double fv_quantize_weights(fv_type type, void *dst, const float *x, size_t k, const float *importance);

/* Rounding with the scale of the largest value: what the search is measured against. */
double fv_quantize_weights_plain(fv_type type, void *dst, const float *x, size_t k, const float *importance);

/* The weights that a row of type stands for. */
void fv_dequantize_weights(fv_type type, float *dst, const void *src, size_t k);

#endif
