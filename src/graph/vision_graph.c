/* pixel_values [1, S, S, 3] -> FastViTHD and projector -> image_features [1, T, d_model], as a
 * graph. nn/vision.c is the same, executed; layers and their numbers: docs/model.md, sections 3
 * and 4. */
#include "graph/graph.h"

#define LN_EPS 1e-5

/* rows 1 to 3: [S, S, 3] -> [S/4, S/4, c]. The dense 3x3 is the only convolution in which channels
 * of different positions meet; everything after it is depthwise (DW) or 1x1. */
static fv_value *stem_describe(fv_graph *g, fv_value *x, const fv_vision_weights *w)
{
    fv_graph_scope(g, "vision", "patch_embed");
    x = fv_graph_unary(g, FV_OP_GELU, fv_graph_conv(g, x, "0", &w->stem0)); /* [S/2, S/2, c] */
    fv_graph_stage(g, x, "vision.stem.0");
    x = fv_graph_unary(g, FV_OP_GELU, fv_graph_depthwise(g, x, "1", &w->stem1, 2));
    fv_graph_stage(g, x, "vision.stem.1");
    x = fv_graph_unary(g, FV_OP_GELU, fv_graph_linear(g, x, "2", &w->stem2, NULL));
    fv_graph_stage(g, x, "vision.stem.2");
    return x;
}

/* x + scale * fc2(gelu(fc1(DW7x7(x)))): [h, w, c], inside [h, w, hidden]. BatchNorm is folded into
 * the 7x7 already; the layer scale belongs to fc2's node, for a backend to fold or not. */
static fv_value *ffn_describe(fv_graph *g, fv_value *x, const fv_ffn *w)
{
    fv_value *y = fv_graph_depthwise(g, x, "convffn.conv", &w->dw, 1);
    y = fv_graph_unary(g, FV_OP_GELU, fv_graph_linear(g, y, "convffn.fc1", &w->fc1, NULL));
    y = fv_graph_linear(g, y, "convffn.fc2", &w->fc2, w->scale);
    return fv_graph_add(g, x, y, "convffn.sum");
}

/* x = DW3x3(x); x = x + scale * FFN(x). RepMixer has no residual of its own: it is in the 3x3. */
static fv_value *repmixer_describe(fv_graph *g, fv_value *x, const fv_vision_block *w)
{
    return ffn_describe(g, fv_graph_depthwise(g, x, "token_mixer", &w->mixer, 1), &w->ffn);
}

/* x = x + scale1 * MHSA(LN(x)); x = x + scale2 * FFN(x). The FFN takes x as it is, not normed. */
static fv_value *vision_attention_describe(fv_graph *g, fv_value *x, const fv_vision_block *w,
                                           size_t d)
{
    fv_value *y = fv_graph_norm(g, FV_OP_CHANNEL_NORM, x, "norm", w->norm_w, w->norm_b, LN_EPS);
    y = fv_graph_linear(g, y, "token_mixer.qkv", &w->qkv, NULL); /* [h, w, 3c]: q | k | v */
    y = fv_graph_self_attention(g, y, "token_mixer.attention", d);
    y = fv_graph_linear(g, y, "token_mixer.proj", &w->proj, w->scale);
    return ffn_describe(g, fv_graph_add(g, x, y, "token_mixer.sum"), &w->ffn);
}

/* rows 5, 6 and the like: [h, w, c] -> DW7x7, stride 2 -> [h/2, w/2, 2c], GELU, 1x1, GELU */
static fv_value *down_describe(fv_graph *g, fv_value *x, const fv_vision_stage_weights *w)
{
    x = fv_graph_unary(g, FV_OP_GELU, fv_graph_depthwise(g, x, "proj.0", &w->down_dw, 2));
    return fv_graph_unary(g, FV_OP_GELU, fv_graph_linear(g, x, "proj.1", &w->down_pw, NULL));
}

/* row 19: DW3x3 to n_features channels, each times a gate in (0, 1) that all pixels' means decide
 * (squeeze-excite), GELU */
static fv_value *expand_describe(fv_graph *g, fv_value *x, const fv_vision_weights *w)
{
    fv_graph_scope(g, "vision", "conv_exp");
    x = fv_graph_depthwise(g, x, "", &w->expand, 1);
    fv_graph_stage(g, x, "vision.conv_exp.conv");
    fv_value *gate = fv_graph_mean(g, x); /* [1, 1, n_features] */
    gate = fv_graph_linear(g, gate, "se.reduce", &w->squeeze, NULL);
    gate = fv_graph_linear(g, fv_graph_unary(g, FV_OP_RELU, gate), "se.expand", &w->excite, NULL);
    gate = fv_graph_unary(g, FV_OP_SIGMOID, gate);
    x = fv_graph_unary(g, FV_OP_GELU, fv_graph_mul(g, x, gate, "se.product"));
    fv_graph_stage(g, x, "vision.conv_exp");
    return x;
}

/* section 4: features [T, n_features], T = (S/64)^2 -> image tokens [T, d_model] */
static fv_value *projector_describe(fv_graph *g, fv_value *x, const fv_vision_weights *w)
{
    fv_graph_scope(g, "", "mm_projector");
    x = fv_graph_rows(g, x);
    fv_graph_stage(g, x, "vision.features");
    x = fv_graph_unary(g, FV_OP_GELU, fv_graph_linear(g, x, "0", &w->project1, NULL));
    x = fv_graph_linear(g, x, "2", &w->project2, NULL);
    fv_graph_stage(g, x, "image_tokens");
    return x;
}

void fv_graph_vision(fv_graph *g, const fv_config *c, const fv_vision_weights *w,
                     const fv_graph_spec *s)
{
    fv_dim batch = s->free_batch ? FV_FREE("batch_size") : FV_DIM(1);
    fv_dim pixels[] = { batch, FV_DIM(s->image_size), FV_DIM(s->image_size), FV_DIM(3) };
    int network = 0; /* the checkpoint counts positional convolutions, stages and what is between */
    fv_value *x = fv_graph_input(g, "pixel_values", s->io, FV_FORM_MAP, pixels, 4);
    x = stem_describe(g, fv_graph_cast(g, x, s->real), w);
    for (int i = 0; i < c->n_stages; i++) {
        const fv_vision_stage *stage = &c->stage[i];
        if (stage->cpe) {
            fv_graph_scope(g, "vision", "network.%d", network);
            x = fv_graph_depthwise(g, x, "", &w->stage[i].cpe, 1);
            fv_graph_stage(g, x, "vision.network.%d", network++);
        }
        for (int b = 0; b < stage->depth; b++) {
            const fv_vision_block *block = &w->stage[i].block[b];
            fv_graph_scope(g, "vision", "network.%d.%d", network, b);
            x = stage->attention ? vision_attention_describe(g, x, block, (size_t)c->d_head_vision)
                                 : repmixer_describe(g, x, block);
            fv_graph_stage(g, x, "vision.network.%d.%d", network, b);
        }
        fv_graph_stage(g, x, "vision.network.%d", network++);
        if (i + 1 < c->n_stages) {
            fv_graph_scope(g, "vision", "network.%d", network);
            x = down_describe(g, x, &w->stage[i]);
            fv_graph_stage(g, x, "vision.network.%d", network++);
        }
    }
    x = projector_describe(g, expand_describe(g, x, w), w);
    fv_graph_output(g, fv_graph_cast(g, x, s->io), "image_features");
}
