/* pixel_values [1, 3, S, S] -> FastViTHD and projector as an ONNX graph -> image_features [1, T,
 * d_model].
 *
 * Maps are [batch, channels, height, width]; linear layers over channels are 1x1 convolutions, so
 * that nothing needs transposing but the operands of attention. Layers: docs/model.md, section
 * 3. */
#include "onnx/onnx_model.h"

#include <math.h>

#define LN_EPS 1e-5

static fv_value ffn(fv_onnx_graph *g, fv_value x, const fv_ffn *w)
{
    fv_value y = fv_onnx_depthwise(g, "convffn.conv", x, &w->dw, 1);
    y = fv_onnx_gelu(g, fv_onnx_pointwise(g, "convffn.fc1", y, &w->fc1, NULL));
    return fv_onnx(g, "Add", x, fv_onnx_pointwise(g, "convffn.fc2", y, &w->fc2, w->scale));
}

/* Softmax(q^T k / sqrt(32)) v with heads of d channels; x [batch, c, height, width]. */
static fv_value attention(fv_onnx_graph *g, fv_value x, const fv_vision_block *w, int64_t c,
                          int64_t d, int64_t side)
{
    int64_t heads = c / d, n = side * side;
    fv_value part[3], split[2];
    fv_value qkv = fv_onnx_reshape(g, fv_onnx_pointwise(g, "token_mixer.qkv", x, &w->qkv, NULL),
                                   FV_INTS(0, 3 * heads, d, n));
    split[0] = qkv;
    split[1] = fv_onnx_i64(g, FV_INTS(heads, heads, heads));
    fv_onnx_node_many(g, "Split", split, 2, part, 3);
    fv_onnx_int(g, "axis", 1);
    fv_value scale = fv_onnx_scalar(g, g->real, 1 / sqrt((double)d));
    /* [heads, n, d] */
    fv_value q = fv_onnx_transpose(g, fv_onnx(g, "Mul", part[0], scale), FV_INTS(0, 1, 3, 2));
    fv_value weights = fv_onnx(g, "Softmax", fv_onnx(g, "MatMul", q, part[1]));
    fv_onnx_int(g, "axis", -1);
    fv_value v = fv_onnx_transpose(g, part[2], FV_INTS(0, 1, 3, 2));
    fv_value y = fv_onnx_transpose(g, fv_onnx(g, "MatMul", weights, v), FV_INTS(0, 1, 3, 2));
    y = fv_onnx_reshape(g, y, FV_INTS(0, c, side, side));
    return fv_onnx_pointwise(g, "token_mixer.proj", y, &w->proj, w->scale);
}

static fv_value block(fv_onnx_graph *g, fv_value x, const fv_vision_block *w,
                      const fv_vision_stage *s, int64_t d, int64_t side)
{
    if (s->attention) {
        fv_value h = fv_onnx_channel_norm(g, x, w->norm_w, w->norm_b, (size_t)s->width, LN_EPS);
        x = fv_onnx(g, "Add", x, attention(g, h, w, s->width, d, side));
    } else {
        x = fv_onnx_depthwise(g, "token_mixer", x, &w->mixer, 1);
    }
    return ffn(g, x, &w->ffn);
}

static fv_value stem(fv_onnx_graph *g, fv_value x, const fv_vision_weights *w)
{
    uint64_t c = w->stem0.n;
    fv_onnx_scope(g, "patch_embed");
    /* The engine's rows are over (y, x, rgb). */
    fv_onnx_weight *t = fv_onnx_weights(g, "0.weight", w->stem0.data, FV_TYPE_F32,
                                        FV_SHAPE(c, 3, 3, 3));
    t->stride[0] = 27;
    t->stride[1] = 1;
    t->stride[2] = 9;
    t->stride[3] = 3;
    fv_onnx_weight *b = fv_onnx_weights(g, "0.bias", w->stem0.bias, FV_TYPE_F32, FV_SHAPE(c));
    x = fv_onnx(g, "Conv", x, t->name, b->name);
    fv_onnx_ints(g, "kernel_shape", FV_INTS(3, 3));
    fv_onnx_ints(g, "pads", FV_INTS(1, 1, 1, 1));
    fv_onnx_ints(g, "strides", FV_INTS(2, 2));
    x = fv_onnx_gelu(g, x);
    x = fv_onnx_gelu(g, fv_onnx_depthwise(g, "1", x, &w->stem1, 2));
    return fv_onnx_gelu(g, fv_onnx_pointwise(g, "2", x, &w->stem2, NULL));
}

/* DW3x3 to twice the channels, squeeze-excite, GELU */
static fv_value expand(fv_onnx_graph *g, fv_value x, const fv_vision_weights *w)
{
    fv_onnx_scope(g, "conv_exp");
    x = fv_onnx_depthwise(g, "", x, &w->expand, 1);
    fv_value gate = fv_onnx(g, "GlobalAveragePool", x);
    gate = fv_onnx(g, "Relu", fv_onnx_pointwise(g, "se.reduce", gate, &w->squeeze, NULL));
    gate = fv_onnx(g, "Sigmoid", fv_onnx_pointwise(g, "se.expand", gate, &w->excite, NULL));
    return fv_onnx_gelu(g, fv_onnx(g, "Mul", x, gate));
}

void fv_onnx_vision(fv_onnx_graph *g, const fv_config *c, const fv_vision_weights *w,
                    const fv_onnx_shape *s)
{
    fv_onnx_dim batch = s->free_batch ? FV_FREE("batch_size") : FV_DIM(1);
    int64_t side = s->image_size / 4, tokens = fv_config_image_tokens(s->image_size);
    int network = 0;
    fv_onnx_dim pixels[4] = { batch, FV_DIM(3), FV_DIM(s->image_size), FV_DIM(s->image_size) };
    fv_value x = fv_onnx_input(g, "pixel_values", s->io, pixels, 4);
    if (s->io != g->real)
        x = fv_onnx_cast(g, x, g->real);
    x = stem(g, x, w);
    for (int i = 0; i < c->n_stages; i++) {
        const fv_vision_stage *stage = &c->stage[i];
        if (stage->cpe) {
            fv_onnx_scope(g, "network.%d", network++);
            x = fv_onnx_depthwise(g, "", x, &w->stage[i].cpe, 1);
        }
        for (int b = 0; b < stage->depth; b++) {
            fv_onnx_scope(g, "network.%d.%d", network, b);
            x = block(g, x, &w->stage[i].block[b], stage, c->d_head_vision, side);
        }
        network++;
        if (i + 1 < c->n_stages) {
            fv_onnx_scope(g, "network.%d", network++);
            x = fv_onnx_gelu(g, fv_onnx_depthwise(g, "proj.0", x, &w->stage[i].down_dw, 2));
            x = fv_onnx_gelu(g, fv_onnx_pointwise(g, "proj.1", x, &w->stage[i].down_pw, NULL));
            side /= 2;
        }
    }
    x = expand(g, x, w);
    fv_onnx_scope(g, "mm_projector");
    x = fv_onnx_transpose(g, fv_onnx_reshape(g, x, FV_INTS(0, c->n_features, tokens)),
                          FV_INTS(0, 2, 1));
    x = fv_onnx_gelu(g, fv_onnx_linear(g, "0", x, &w->project1, NULL));
    x = fv_onnx_linear(g, "2", x, &w->project2, s->io == g->real ? "image_features" : NULL);
    if (s->io != g->real) {
        fv_onnx_call_next(g, "image_features");
        fv_onnx_cast(g, x, s->io);
    }
    fv_onnx_dim features[3] = { batch, FV_DIM(tokens), FV_DIM(c->d_model) };
    fv_onnx_output(g, "image_features", s->io, features, 3);
}
