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

/* One row of k weights (a multiple of FV_BLOCK) as type, Q8_0 or Q4_0, into dst of
 * fv_row_bytes(type, k) bytes. Never worse than rounding with the scale of the largest value.
 * Returns the squared error; infinity when a weight is not finite (such are stored as 0). Scales
 * end at f16's 65504. */
double fv_quantize_weights(fv_type type, void *dst, const float *x, size_t k);

/* Rounding with the scale of the largest value: what the search is measured against. */
double fv_quantize_weights_plain(fv_type type, void *dst, const float *x, size_t k);

/* The weights that a row of type stands for. */
void fv_dequantize_weights(fv_type type, float *dst, const void *src, size_t k);

/* ---- compensated: GPTQ's method [arXiv 2210.17323], in the form of error feedback [QuIP, arXiv
 * 2307.13304]
 *
 * Over inputs x the outputs of a row w rounded to v are off by (w - v) H (w - v)^T in square, H =
 * sum x x^T. With H = R R^T, R upper triangular, that is the sum over columns l of
 *
 *     R[l][l]^2 (w[l] + sum_{i < l} (w[i] - v[i]) R[i][l] / R[l][l] - v[l])^2
 *
 * so rounding from the first column to the last, each to the nearest of w[l] plus its share of the
 * errors before, leaves of each term only what this one rounding costs. R[l][l]^2 is what an error
 * in column l costs: the search for a block's scale weighs with it. */

enum { FV_COMPENSATED_ROWS = 64 };

#define FV_DAMPING \
    0.01 /* of H's mean diagonal, added to the diagonal: columns that never had an input stay put */

/* What comes into a group of a matrix's columns. */
typedef struct fv_inputs {
    size_t n; /* columns, a multiple of FV_BLOCK */
    /* [n, n] in: H, both halves; factored: R[i][l] / R[l][l] above the diagonal, mirrored below */
    float *h;
    float *importance; /* [n] factored: R[l][l]^2, their mean 1 */
} fv_inputs;

/* false when H holds NaN or infinity on its diagonal. */
bool fv_inputs_factor(fv_inputs *in, const fv_kernels *k);

/* rows <= FV_COMPENSATED_ROWS rows of in->n finite weights w, ld apart, into blocks, rows dst_bytes
 * apart. scratch: fv_compensated_scratch bytes, 64-byte aligned. When H is a multiple of the unit
 * matrix, the error is at most fv_quantize_weights'. */
size_t fv_compensated_scratch(const fv_kernels *k, size_t n);
void fv_quantize_compensated(fv_type type, uint8_t *dst, size_t dst_bytes, const float *w,
                             size_t ld, size_t rows, const fv_inputs *in, const fv_kernels *k,
                             void *scratch);

#endif
