/* onnx_model: the model's parts as ONNX graphs, and the operations they share. */
#ifndef FV_ONNX_MODEL_H
#define FV_ONNX_MODEL_H

#include "onnx/onnx_graph.h"
#include "model/source.h"
#include "model/config.h"
#include "model/weights.h"

/* ---- onnx_ops.c ---- */

fv_value fv_onnx_gelu(fv_onnx_graph *g, fv_value x);
fv_value fv_onnx_cast(fv_onnx_graph *g, fv_value x, fv_type type);
fv_value fv_onnx_reshape(fv_onnx_graph *g, fv_value x, const int64_t *shape, size_t n);
fv_value fv_onnx_transpose(fv_onnx_graph *g, fv_value x, const int64_t *perm, size_t n);
fv_value fv_onnx_unsqueeze(fv_onnx_graph *g, fv_value x, const int64_t *axes, size_t n);
/* Over one axis, which stays with size 1. */
fv_value fv_onnx_mean(fv_onnx_graph *g, fv_value x, int64_t axis);
/* [begin, end) of an axis. */
fv_value fv_onnx_slice(fv_onnx_graph *g, fv_value x, int64_t begin, int64_t end, int64_t axis);

/* x [.., k] times the weights [n, k], plus the bias when there is one. NAME in the scope; result
 * (may be NULL) names what comes out. */
fv_value fv_onnx_linear(fv_onnx_graph *g, const char *name, fv_value x, const fv_mat *w,
                        const char *result);
/* A 1x1 convolution of x [batch, k, height, width]; scale [n] (may be NULL) multiplies weights and
 * bias. */
fv_value fv_onnx_pointwise(fv_onnx_graph *g, const char *name, fv_value x, const fv_mat *w,
                           const float *scale);
fv_value fv_onnx_depthwise(fv_onnx_graph *g, const char *name, fv_value x, const fv_dw *w,
                           int stride);
/* LayerNorm over the channels of each pixel of x [batch, c, height, width]. */
fv_value fv_onnx_channel_norm(fv_onnx_graph *g, fv_value x, const float *weight, const float *bias,
                              size_t c, double eps);
/* RMSNorm over the last axis. */
fv_value fv_onnx_rms_norm(fv_onnx_graph *g, const char *name, fv_value x, const float *weight,
                          size_t d, double eps);

/* ---- the graphs ---- */

typedef struct fv_onnx_shape {
    bool free_batch; /* transformers.js: dimensions with names, growing cache */
    bool npu;        /* keys transposed, only new entries come out, the host keeps the cache */
    fv_type io;      /* of features, embeddings and logits; the cache has the graph's type */
    int image_size, seq_len, step_len, cache_len;
    int n_tokens; /* free_batch: ids from here on get no chance, nor does image_token */
    int image_token;
} fv_onnx_shape;

/* pixel_values [1, 3, S, S] -> image_features [1, T, d_model]. */
void fv_onnx_vision(fv_onnx_graph *g, const fv_config *c, const fv_vision_weights *w,
                    const fv_onnx_shape *s);
/* input_ids [1, seq_len] -> inputs_embeds [1, seq_len, d_model]. */
void fv_onnx_embed(fv_onnx_graph *g, const fv_config *c, const fv_decoder_weights *w,
                   const fv_onnx_shape *s);
/* One step of the decoder; signatures: docs/export.md. */
void fv_onnx_decoder(fv_onnx_graph *g, const fv_config *c, const fv_decoder_weights *w,
                     const fv_onnx_shape *s);

/* ---- onnx_js.c: transformers.js ---- */

/* The id of "<image>" there: the tokenizer's, otherwise the next free one. */
int32_t fv_onnx_js_image_token(const fv_model *s);
/* config.json and the other small files, into the folder dir. outside: the parts whose weights are
 * in a file of their own. */
fv_status fv_onnx_js_files(const fv_model *s, bool f16, unsigned outside, const char *dir,
                           fv_error *err);

#endif
