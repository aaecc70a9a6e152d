/* quantize: rows of weights f32 <-> GGUF blocks of 8 or 4 bits.
 *
 * The scale of every block is searched for: the one with the least squared error of the weights.
 * With the inputs of the matrix in view, the error of its outputs is what counts, and the columns
 * still to come make up for the rounding of those before. Deterministic. */
#ifndef FV_QUANTIZE_H
#define FV_QUANTIZE_H

#include "base/base.h"
#include "base/types.h"
#include "kernels/kernels.h"
#include "quant/compensate.h"

/* One row of k weights (a multiple of FV_BLOCK) as type, Q8_0 or Q4_0, into dst of
 * fv_row_bytes(type, k) bytes. Never worse than rounding with the scale of the largest value.
 * Returns the squared error; infinity when a weight is not finite (such are stored as 0). Scales
 * end at f16's 65504. */
double fv_quantize_weights(fv_type type, void *dst, const float *x, size_t k);

/* Rounding with the scale of the largest value: what the search is measured against. */
double fv_quantize_weights_plain(fv_type type, void *dst, const float *x, size_t k);

/* The same as Q8_0 with one scale for all blocks of the row: of a few, the one with the least
 * squared error. */
double fv_quantize_row(void *dst, const float *x, size_t k);
/* Its scale, and -128 times the sum of its q. */
void fv_row_scale_read(const void *row, size_t k, float *scale, int32_t *offset);

/* The weights that a row of type stands for. */
void fv_dequantize_weights(fv_type type, float *dst, const void *src, size_t k);

/* ---- compensated (compensate.h) */

/* rows <= FV_COMPENSATED_ROWS rows of in->n finite weights w, ld apart, into blocks, rows dst_bytes
 * apart; in->n is a multiple of FV_BLOCK. scratch: as fv_compensate's. When H is a multiple of the
 * unit matrix, the error is at most fv_quantize_weights'. */
void fv_quantize_compensated(fv_type type, uint8_t *dst, size_t dst_bytes, const float *w,
                             size_t ld, size_t rows, const fv_inputs *in, const fv_kernels *k,
                             void *scratch);
/* The same of type Q8_0 with the scales that the blocks of dst have already. */
void fv_quantize_row_compensated(fv_type type, uint8_t *dst, size_t dst_bytes, const float *w,
                                 size_t ld, size_t rows, const fv_inputs *in, const fv_kernels *k,
                                 void *scratch);

#endif
