/* onnx_ops: operations in primitive ONNX operators or fused ones. See onnx_ops.c. */
#ifndef FV_ONNX_OPS_H
#define FV_ONNX_OPS_H

#include "onnx/onnx_graph.h"

fv_onnx_value fv_onnx_gelu(fv_onnx_graph *g, fv_onnx_value x);
fv_onnx_value fv_onnx_cast(fv_onnx_graph *g, fv_onnx_value x, fv_type type);
fv_onnx_value fv_onnx_reshape(fv_onnx_graph *g, fv_onnx_value x, const int64_t *shape, size_t n);
fv_onnx_value fv_onnx_transpose(fv_onnx_graph *g, fv_onnx_value x, const int64_t *perm, size_t n);
fv_onnx_value fv_onnx_unsqueeze(fv_onnx_graph *g, fv_onnx_value x, const int64_t *axes, size_t n);
/* Over one axis, which stays with size 1. */
fv_onnx_value fv_onnx_mean(fv_onnx_graph *g, fv_onnx_value x, int64_t axis);
/* [begin, end) of an axis. */
fv_onnx_value fv_onnx_slice(fv_onnx_graph *g, fv_onnx_value x, int64_t begin, int64_t end,
                            int64_t axis);

/* x [.., k] times the weights [n, k], plus the bias when there is one. NAME in the scope; result
 * (may be NULL) names what comes out. */
fv_onnx_value fv_onnx_linear(fv_onnx_graph *g, const char *name, fv_onnx_value x, const fv_mat *w,
                             const char *result);
/* A 1x1 convolution of x [batch, k, height, width]; scale [n] (may be NULL) multiplies weights and
 * bias. */
fv_onnx_value fv_onnx_pointwise(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                                const fv_mat *w, const float *scale);
fv_onnx_value fv_onnx_depthwise(fv_onnx_graph *g, const char *name, fv_onnx_value x, const fv_dw *w,
                                int stride);
/* LayerNorm over the channels of each pixel of x [batch, c, height, width]. */
fv_onnx_value fv_onnx_channel_norm(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                                   const float *weight, const float *bias, size_t c, double eps);
/* RMSNorm over the last axis. */
fv_onnx_value fv_onnx_rms_norm(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                               const float *weight, size_t d, double eps);

#endif
