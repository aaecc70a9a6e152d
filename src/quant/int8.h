/* int8: a layer of the encoder in 8 bits, from what was seen in front of it. Pure arithmetic.
 *
 *     values seen   -> fv_int8_see    -> fv_int8_seen: ranges of the channels, sample rows
 *     seen, weights -> fv_int8_matrix / fv_int8_depthwise -> fv_int8_layer: scales and i8
 *
 * The layer's input x becomes u8, q = round(x inv[c]) + zero; sums of products are i32. */
#ifndef FV_INT8_H
#define FV_INT8_H

#include "base/base.h"
#include "base/types.h"
#include "kernels/kernels.h"
#include "quant/compensate.h"

/* What was seen of a layer's input. Ranges begin as 0, 0: they hold 0, which padding and GELU need
 * exactly. */
typedef struct fv_int8_seen {
    size_t k;          /* channels */
    float *low, *high; /* [k] */
    float *rows;       /* [n_rows, k] samples */
    size_t n_rows;
    fv_input_groups products; /* of a matrix, over many rows; n 0: to be rounded to the nearest */
} fv_int8_seen;

/* Widens the ranges of channels [first, last) by n rows of them, ld apart. */
void fv_int8_see(fv_int8_seen *s, const float *x, size_t ld, size_t n, size_t first, size_t last);

/* A layer in int8. */
typedef struct fv_int8_layer {
    float *inv;     /* [k] */
    int zero;       /* 0 .. 255 */
    int8_t *w8;     /* matrix [n, k], depthwise [taps, k mult]; in -127 .. 127 */
    float *mul;     /* [n]: of a sum, what it is worth */
    int32_t *bias8; /* [n] of a matrix: the bias and the zero's part, in units of mul */
    float *bias;    /* [n] of a convolution */
    double sqnr;    /* dB: of a matrix' outputs, of a convolution's input, on sample rows */
    bool fine;      /* asked for, of a matrix: rows of 16 bits, w8a16 */
} fv_int8_layer;

/* A linear layer, y = W x + bias, W [n, k] of a float type.
 *
 * inv[c] = 1 / (s[c] step). s = |x|max^alpha evens out channels of different size and is absorbed
 * by the weights, so that an outlier channel does not cost the others their steps and the product
 * stays one of u8 with i8 [SmoothQuant, arXiv 2211.10438]. alpha and how much of the range is
 * clipped are those, of a few, with the least squared error of some outputs over some sample rows.
 * A row of weights has the scale, of a few, with the least squared error of its values. With rows
 * of 16 bits the range is twice what was seen: a bit less for values, room for other images.
 *
 * Weights become the nearest of their row's scale or, with products, the columns still to come make
 * up for the rounding of those before (compensate.h). What an output then lacks on average over the
 * sample rows is added to its bias, where it has one: a layer without stays without in every format
 * that the model is exported to.
 *
 * scratch: fv_int8_scratch bytes, 64-byte aligned. */
void fv_int8_matrix(fv_int8_layer *out, const fv_int8_seen *in, const void *w, fv_type type,
                    size_t n, const float *bias, const fv_kernels *k, void *scratch);
size_t fv_int8_scratch(const fv_int8_seen *in, const fv_kernels *k);

/* A depthwise convolution, weights f32 [taps, k mult]: channels do not meet, each has scales of its
 * own anyway; its range is clipped where its sample values lose least. bias: [k mult] or NULL. */
void fv_int8_depthwise(fv_int8_layer *out, const fv_int8_seen *in, const float *w,
                       const float *bias, size_t taps, size_t mult);

#endif
