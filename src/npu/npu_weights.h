/* npu_weights: a layer's weights as an NPU wants them. Pure arithmetic. */
#ifndef FV_NPU_WEIGHTS_H
#define FV_NPU_WEIGHTS_H

#include "graph/graph.h"

/* Rows [first, first + n) of a matrix as columns: w [w->k, n], bias [n], each output times factor
 * and, where there is one, its scale. */
fv_status fv_npu_columns(float *w, float *bias, const fv_mat *from, size_t first, size_t n,
                         const float *scale, float factor, const fv_kernels *k, fv_error *err);

/* Columns of w [rows, n] in 8 bits, -127 to 127, each with a scale of its own: of a few, the one
 * with the least squared error. A bias is a multiple of x_scale times that: it must fit 32 bits,
 * which only counts where hardly anything comes in. bias NULL: there is none. */
void fv_npu_quantize(const float *w, size_t rows, size_t n, const float *bias, float x_scale,
                     int8_t *w8, float *scale);

/* Takes from each bias what rounding the weights added to the output of a mean input: mean of the
 * input's channels, or NULL, then nothing is done. mult 0: w is [taps, channels] by n; otherwise a
 * depthwise convolution, [taps] by n, where output o reads channel o / mult. */
void fv_npu_bias_correct(const float *w, const int8_t *w8, const float *scale, float *bias,
                         const float *mean, size_t rows, size_t channels, size_t mult, size_t n);

#endif
