/* Operations that the graphs share, in primitive operators or fused ones. See docs/export.md.
 *
 * In f16 the statistics of norms are taken in f32, as the model's definition says: squares of
 * activations pass 65504. */
#include "onnx/onnx_ops.h"

#include <math.h>

fv_onnx_value fv_onnx_cast(fv_onnx_graph *g, fv_onnx_value x, fv_type type)
{
    fv_onnx_value y = fv_onnx(g, "Cast", x);
    fv_onnx_int(g, "to", fv_onnx_data_type(type));
    return y;
}

fv_onnx_value fv_onnx_reshape(fv_onnx_graph *g, fv_onnx_value x, const int64_t *shape, size_t n)
{
    fv_onnx_value to = fv_onnx_i64(g, shape, n);
    return fv_onnx(g, "Reshape", x, to);
}

fv_onnx_value fv_onnx_transpose(fv_onnx_graph *g, fv_onnx_value x, const int64_t *perm, size_t n)
{
    fv_onnx_value y = fv_onnx(g, "Transpose", x);
    fv_onnx_ints(g, "perm", perm, n);
    return y;
}

fv_onnx_value fv_onnx_unsqueeze(fv_onnx_graph *g, fv_onnx_value x, const int64_t *axes, size_t n)
{
    fv_onnx_value at = fv_onnx_i64(g, axes, n);
    return fv_onnx(g, "Unsqueeze", x, at);
}

/* The axes became an input with operator set 18. */
fv_onnx_value fv_onnx_mean(fv_onnx_graph *g, fv_onnx_value x, int64_t axis)
{
    fv_onnx_value y;
    if (g->opset >= 18) {
        fv_onnx_value axes = fv_onnx_i64(g, &axis, 1);
        y = fv_onnx(g, "ReduceMean", x, axes);
    } else {
        y = fv_onnx(g, "ReduceMean", x);
        fv_onnx_ints(g, "axes", &axis, 1);
    }
    fv_onnx_int(g, "keepdims", 1);
    return y;
}

fv_onnx_value fv_onnx_slice(fv_onnx_graph *g, fv_onnx_value x, int64_t begin, int64_t end,
                            int64_t axis)
{
    fv_onnx_value from = fv_onnx_i64(g, &begin, 1), to = fv_onnx_i64(g, &end, 1),
                  along = fv_onnx_i64(g, &axis, 1);
    return fv_onnx(g, "Slice", x, from, to, along);
}

/* 0.5 x (1 + erf(x / sqrt 2)) */
fv_onnx_value fv_onnx_gelu(fv_onnx_graph *g, fv_onnx_value x)
{
    if (g->fused && g->opset >= 20)
        return fv_onnx(g, "Gelu", x);
    fv_onnx_value root = fv_onnx_scalar(g, g->real, sqrt(2.0)), one = fv_onnx_scalar(g, g->real, 1);
    fv_onnx_value half = fv_onnx_scalar(g, g->real, 0.5);
    fv_onnx_value e = fv_onnx(g, "Erf", fv_onnx(g, "Div", x, root));
    return fv_onnx(g, "Mul", fv_onnx(g, "Mul", x, fv_onnx(g, "Add", e, one)), half);
}

static const char *weight_name_join(fv_onnx_graph *g, const char *name, const char *part)
{
    return fv_onnx_text(g, "%s%s%s", name, *name ? "." : "", part);
}

/* ---- layers in int8 ----
 *
 *     q = round(x inv[c]) + zero,   y[n] = mul[n] (bias8[n] + sum of w8[n, c] q[c])
 *
 * As a graph: x inv - QuantizeLinear(step 1, zero) - DequantizeLinear - Conv with
 * DequantizeLinear(w8, mul): one step for the whole map and one for each output, the smoothing in
 * inv and w8. Widened: the weights that the layer stands for, mul w8 inv. */

/* x times inv, as u8 and back. */
static fv_onnx_value u8_round_trip(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                                   const fv_u8 *in, size_t k, bool channels_last)
{
    fv_onnx_weight *inv = channels_last ? fv_onnx_weights(g, weight_name_join(g, name, "inv"),
                                                          in->inv, FV_TYPE_F32, FV_SHAPE(k))
                                        : fv_onnx_weights(g, weight_name_join(g, name, "inv"),
                                                          in->inv, FV_TYPE_F32, FV_SHAPE(k, 1, 1));
    fv_onnx_value step = fv_onnx_scalar(g, FV_TYPE_F32, 1), zero = fv_onnx_u8_scalar(g, in->zero);
    fv_onnx_value q = fv_onnx(g, "QuantizeLinear", fv_onnx(g, "Mul", x, inv->name), step, zero);
    return fv_onnx(g, "DequantizeLinear", q, step, zero);
}

/* w8 with a step for each output, which is its axis. */
static fv_onnx_value weights_dequantise(fv_onnx_graph *g, const char *name,
                                        const fv_onnx_weight *w8, const float *mul, uint64_t n,
                                        int axis)
{
    fv_onnx_weight *step = fv_onnx_weights(g, weight_name_join(g, name, "step"), mul, FV_TYPE_F32,
                                           FV_SHAPE(n));
    fv_onnx_value w = fv_onnx(g, "DequantizeLinear", w8->name, step->name);
    fv_onnx_int(g, "axis", axis);
    return w;
}

/* a[i] b[i] in the graph's memory; b may be NULL. */
static const float *rows_multiply(fv_onnx_graph *g, const float *a, const float *b, size_t n)
{
    float *y = fv_onnx_take(g, n, sizeof *y);
    for (size_t i = 0; y && i < n; i++)
        y[i] = a[i] * (b ? b[i] : 1);
    return y;
}

/* The bias without the zero's part. */
static const float *bias8_restore(fv_onnx_graph *g, const fv_mat *w, const float *scale)
{
    float *bias = fv_onnx_take(g, w->n, sizeof *bias);
    for (size_t i = 0; bias && i < w->n; i++) {
        const int8_t *row = (const int8_t *)w->data + i * w->k;
        int64_t sum = 0;
        for (size_t c = 0; c < w->k; c++)
            sum += row[c];
        bias[i] = (float)((double)w->mul[i] * (double)(w->bias8[i] + w->in.zero * sum)) *
                  (scale ? scale[i] : 1);
    }
    return bias;
}

/* ---- layers ---- */

fv_onnx_value fv_onnx_linear(fv_onnx_graph *g, const char *name, fv_onnx_value x, const fv_mat *w,
                             const char *result)
{
    bool int8 = w->type == FV_TYPE_I8, qdq = int8 && g->qdq && !w->in.fine;
    const float *bias = int8 ? bias8_restore(g, w, NULL) : w->bias;
    if (qdq)
        x = u8_round_trip(g, name, x, &w->in, w->k, true);
    fv_onnx_weight *t = fv_onnx_weights(g, weight_name_join(g, name, "weight"), w->data, w->type,
                                        FV_SHAPE(w->k, w->n));
    t->stride[0] = 1;
    t->stride[1] = w->k;
    if (int8 && !qdq) {
        t->type = g->real;
        t->row_scale = w->in.inv;
        t->column_scale = w->mul;
    }
    fv_onnx_value weights = qdq ? weights_dequantise(g, name, t, w->mul, w->n, 1) : t->name;
    if (!bias)
        fv_onnx_call_next(g, result);
    fv_onnx_value y = fv_onnx(g, "MatMul", x, weights);
    if (!bias)
        return y;
    fv_onnx_weight *b = fv_onnx_weights(g, weight_name_join(g, name, "bias"), bias, FV_TYPE_F32,
                                        FV_SHAPE(w->n));
    fv_onnx_call_next(g, result);
    return fv_onnx(g, "Add", y, b->name);
}

/* f16 keeps the scale apart: times a small scale, weights would lose bits to the narrow range. */
fv_onnx_value fv_onnx_pointwise(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                                const fv_mat *w, const float *scale)
{
    bool fold = g->real == FV_TYPE_F32, int8 = w->type == FV_TYPE_I8,
         qdq = int8 && g->qdq && !w->in.fine;
    const float *folded = fold ? scale : NULL, *bias = int8 ? bias8_restore(g, w, NULL) : w->bias;
    if (qdq)
        x = u8_round_trip(g, name, x, &w->in, w->k, false);
    fv_onnx_weight *t = fv_onnx_weights(g, weight_name_join(g, name, "weight"), w->data, w->type,
                                        FV_SHAPE(w->n, w->k, 1, 1));
    const float *rows = int8 ? rows_multiply(g, w->mul, folded, w->n) : folded;
    if (int8 && !qdq) {
        t->type = g->real;
        t->stride[0] = w->k;
        t->stride[1] = 1;
        t->column_scale = w->in.inv;
    }
    if (!qdq)
        t->row_scale = rows;
    fv_onnx_value weights = qdq ? weights_dequantise(g, name, t, rows, w->n, 0) : t->name, y;
    if (bias) {
        fv_onnx_weight *b = fv_onnx_weights(g, weight_name_join(g, name, "bias"), bias, FV_TYPE_F32,
                                            FV_SHAPE(w->n));
        b->row_scale = folded;
        y = fv_onnx(g, "Conv", x, weights, b->name);
    } else {
        y = fv_onnx(g, "Conv", x, weights);
    }
    fv_onnx_ints(g, "kernel_shape", FV_INTS(1, 1));
    if (!scale || fold)
        return y;
    fv_onnx_weight *s = fv_onnx_weights(g, weight_name_join(g, name, "layer_scale"), scale,
                                        FV_TYPE_F32, FV_SHAPE(w->n, 1, 1));
    return fv_onnx(g, "Mul", y, s->name);
}

/* The factor of each output channel that widens w8. */
static const float *dw_widening_factors(fv_onnx_graph *g, const fv_dw *w)
{
    size_t n = w->channels * w->mult;
    float *y = fv_onnx_take(g, n, sizeof *y);
    for (size_t i = 0; y && i < n; i++)
        y[i] = w->mul[i] * w->in.inv[i / w->mult];
    return y;
}

/* The engine keeps taps first, [kernel * kernel, n]; ONNX wants [n, 1, kernel, kernel]. */
fv_onnx_value fv_onnx_depthwise(fv_onnx_graph *g, const char *name, fv_onnx_value x, const fv_dw *w,
                                int stride)
{
    uint64_t n = w->channels * w->mult, k = w->kernel;
    int64_t pad = (int64_t)k / 2;
    bool qdq = w->w8 && g->qdq;
    if (qdq)
        x = u8_round_trip(g, name, x, &w->in, w->channels, false);
    fv_onnx_weight *t = fv_onnx_weights(g, weight_name_join(g, name, "weight"),
                                        w->w8 ? (const void *)w->w8 : w->w,
                                        w->w8 ? FV_TYPE_I8 : FV_TYPE_F32, FV_SHAPE(n, 1, k, k));
    t->stride[0] = 1;
    t->stride[2] = k * n;
    t->stride[3] = n;
    if (w->w8 && !qdq) {
        t->type = g->real;
        t->row_scale = dw_widening_factors(g, w);
    }
    fv_onnx_value weights = qdq ? weights_dequantise(g, name, t, w->mul, n, 0) : t->name;
    fv_onnx_weight *b = fv_onnx_weights(g, weight_name_join(g, name, "bias"), w->bias, FV_TYPE_F32,
                                        FV_SHAPE(n));
    fv_onnx_value y = fv_onnx(g, "Conv", x, weights, b->name);
    fv_onnx_int(g, "group", (int64_t)w->channels);
    fv_onnx_ints(g, "kernel_shape", FV_INTS((int64_t)k, (int64_t)k));
    fv_onnx_ints(g, "pads", FV_INTS(pad, pad, pad, pad));
    fv_onnx_ints(g, "strides", FV_INTS(stride, stride));
    return y;
}

/* (x - mean) / sqrt(variance + eps) * weight + bias */
fv_onnx_value fv_onnx_channel_norm(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                                   const float *weight, const float *bias, size_t c, double eps)
{
    bool widen = g->real == FV_TYPE_F16;
    if (g->fused && g->opset >= 17) { /* works on the last axes only */
        fv_onnx_weight *w = fv_onnx_weights(g, weight_name_join(g, name, "weight"), weight,
                                            FV_TYPE_F32, FV_SHAPE(c));
        fv_onnx_weight *b = fv_onnx_weights(g, weight_name_join(g, name, "bias"), bias, FV_TYPE_F32,
                                            FV_SHAPE(c));
        fv_onnx_value last = fv_onnx_transpose(g, x, FV_INTS(0, 2, 3, 1));
        fv_onnx_value y = fv_onnx(g, "LayerNormalization", last, w->name, b->name);
        fv_onnx_int(g, "axis", -1);
        fv_onnx_float(g, "epsilon", (float)eps);
        return fv_onnx_transpose(g, y, FV_INTS(0, 3, 1, 2));
    }
    if (widen)
        x = fv_onnx_cast(g, x, FV_TYPE_F32);
    fv_onnx_weight *w = fv_onnx_weights(g, weight_name_join(g, name, "weight"), weight, FV_TYPE_F32,
                                        FV_SHAPE(c, 1, 1));
    fv_onnx_weight *b = fv_onnx_weights(g, weight_name_join(g, name, "bias"), bias, FV_TYPE_F32,
                                        FV_SHAPE(c, 1, 1));
    w->type = b->type = FV_TYPE_F32;
    fv_onnx_value d = fv_onnx(g, "Sub", x, fv_onnx_mean(g, x, 1));
    fv_onnx_value variance = fv_onnx_mean(g, fv_onnx(g, "Mul", d, d), 1);
    fv_onnx_value small = fv_onnx_scalar(g, FV_TYPE_F32, eps);
    fv_onnx_value deviation = fv_onnx(g, "Sqrt", fv_onnx(g, "Add", variance, small));
    fv_onnx_value y = fv_onnx(g, "Mul", fv_onnx(g, "Div", d, deviation), w->name);
    y = fv_onnx(g, "Add", y, b->name);
    return widen ? fv_onnx_cast(g, y, FV_TYPE_F16) : y;
}

/* weight * (x / sqrt(mean(x^2) + eps)) */
fv_onnx_value fv_onnx_rms_norm(fv_onnx_graph *g, const char *name, fv_onnx_value x,
                               const float *weight, size_t d, double eps)
{
    bool widen = g->real == FV_TYPE_F16;
    fv_onnx_weight *w = fv_onnx_weights(g, weight_name_join(g, name, "weight"), weight, FV_TYPE_F32,
                                        FV_SHAPE(d));
    if (g->fused && g->opset >= 23) {
        fv_onnx_value y = fv_onnx(g, "RMSNormalization", x, w->name);
        fv_onnx_int(g, "axis", -1);
        fv_onnx_float(g, "epsilon", (float)eps);
        return y;
    }
    if (widen)
        x = fv_onnx_cast(g, x, FV_TYPE_F32);
    fv_onnx_value two = fv_onnx_scalar(g, FV_TYPE_F32, 2),
                  small = fv_onnx_scalar(g, FV_TYPE_F32, eps);
    fv_onnx_value square = fv_onnx_mean(g, fv_onnx(g, "Pow", x, two), -1);
    fv_onnx_value y = fv_onnx(g, "Div", x, fv_onnx(g, "Sqrt", fv_onnx(g, "Add", square, small)));
    if (widen)
        y = fv_onnx_cast(g, y, FV_TYPE_F16);
    return fv_onnx(g, "Mul", y, w->name);
}
