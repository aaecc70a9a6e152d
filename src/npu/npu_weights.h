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

enum { FV_NPU_TAPS = 64 }; /* of a kernel, at most */

/* The share of a layer's output pixels for which each tap of its kernel lies inside the map and not
 * in the padding, [kernel * kernel]: 1 for a linear layer. FV_ERR_UNSUPPORTED: a larger kernel. */
fv_status fv_npu_tap_shares(float share[FV_NPU_TAPS], const fv_node *layer, fv_error *err);

/* The mean of each channel of a layer's input, and that of what is left of it when it has been
 * rounded; NULL: not known. Which taps see it. */
typedef struct fv_npu_means {
    const float *mean, *rounded;
    float share[FV_NPU_TAPS];
} fv_npu_means;

/* Takes from each bias what rounding weights and input added to the output of a mean input. mult 0:
 * w is [taps, channels] by n; otherwise a depthwise convolution, [taps] by n, where output o reads
 * channel o / mult. */
void fv_npu_bias_correct(const float *w, const int8_t *w8, const float *scale, float *bias,
                         const fv_npu_means *means, size_t rows, size_t channels, size_t mult,
                         size_t n);

/* What a layer's channels are multiplied with: y [outputs], its mean result without bias for an
 * input that has x [channels] in every pixel; squares [channels], the sum of all squared weights
 * that read a channel. y or squares may be NULL. */
fv_status fv_npu_layer_apply(const fv_node *layer, const float *x, float *y, float *squares,
                             const fv_kernels *k, fv_error *err);

#endif
