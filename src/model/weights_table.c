/* The one table that names every weight. See weights.h; shapes: docs/model.md, section 9. */
#include <stdio.h>
#include <string.h>

#include "model/weights.h"

/* Sizes that differ from part to part; a row's n and k index this list. */
enum dim {
    DIM_RGB,
    DIM_C,
    DIM_C2,
    DIM_3C,
    DIM_HIDDEN,
    DIM_FEATURES,
    DIM_SQUEEZE, /* vision */
    DIM_D,
    DIM_Q,
    DIM_KV,
    DIM_FFN,
    DIM_VOCAB, /* decoder */
    DIM_COUNT
};

typedef struct row {
    const char *apple, *fast; /* behind the part's prefix */
    fv_weight_kind kind;
    size_t offset; /* in the part's struct */
    enum dim n, k;
    unsigned kernel; /* 0: KERNEL_* below, from the config */
    fv_train_form train;
} row;

enum { KERNEL_MIXER = 100, KERNEL_DOWN, KERNEL_CPE };

#define AT(type, member) offsetof(type, member)

static const row stem_rows[] = {
    { "patch_embed.0.reparam_conv", "stem.0.reparam_conv", FV_WEIGHT_STEM,
      AT(fv_vision_weights, stem0), DIM_C, DIM_RGB, 3, FV_TRAIN_MOBILEONE },
    { "patch_embed.1.reparam_conv", "stem.1.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_weights, stem1), DIM_C, DIM_C, 3, FV_TRAIN_MOBILEONE },
    { "patch_embed.2.reparam_conv", "stem.2.reparam_conv", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, stem2), DIM_C, DIM_C, 1, FV_TRAIN_MOBILEONE },
};

static const row cpe_rows[] = {
    { "reparam_conv", "pos_emb.reparam_conv", FV_WEIGHT_DEPTHWISE, AT(fv_vision_stage_weights, cpe),
      DIM_C, DIM_C, KERNEL_CPE, FV_TRAIN_CPE },
};

static const row down_rows[] = {
    { "proj.0.lkb_reparam", "downsample.proj.0.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_stage_weights, down_dw), DIM_C2, DIM_C, KERNEL_DOWN, FV_TRAIN_LARGE_KERNEL },
    { "proj.1.reparam_conv", "downsample.proj.1.reparam_conv", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_stage_weights, down_pw), DIM_C2, DIM_C2, 1, FV_TRAIN_MOBILEONE },
};

static const row mixer_rows[] = {
    { "token_mixer.reparam_conv", "token_mixer.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_block, mixer), DIM_C, DIM_C, KERNEL_MIXER, FV_TRAIN_REPMIXER },
    { "layer_scale", "layer_scale.gamma", FV_WEIGHT_VECTOR, AT(fv_vision_block, ffn.scale), DIM_C,
      DIM_C, 1, FV_TRAIN_NONE },
};

static const row attention_rows[] = {
    { "norm.weight", "norm.weight", FV_WEIGHT_VECTOR, AT(fv_vision_block, norm_w), DIM_C, DIM_C, 1,
      FV_TRAIN_NONE },
    { "norm.bias", "norm.bias", FV_WEIGHT_VECTOR, AT(fv_vision_block, norm_b), DIM_C, DIM_C, 1,
      FV_TRAIN_NONE },
    { "token_mixer.qkv", "token_mixer.qkv", FV_WEIGHT_MATRIX, AT(fv_vision_block, qkv), DIM_3C,
      DIM_C, 1, FV_TRAIN_NONE },
    { "token_mixer.proj", "token_mixer.proj", FV_WEIGHT_MATRIX_BIAS, AT(fv_vision_block, proj),
      DIM_C, DIM_C, 1, FV_TRAIN_NONE },
    { "layer_scale_1", "layer_scale_1.gamma", FV_WEIGHT_VECTOR, AT(fv_vision_block, scale), DIM_C,
      DIM_C, 1, FV_TRAIN_NONE },
    { "layer_scale_2", "layer_scale_2.gamma", FV_WEIGHT_VECTOR, AT(fv_vision_block, ffn.scale),
      DIM_C, DIM_C, 1, FV_TRAIN_NONE },
};

static const row ffn_rows[] = {
    { "convffn.conv", "mlp.conv", FV_WEIGHT_DEPTHWISE_BN, AT(fv_vision_block, ffn.dw), DIM_C, DIM_C,
      7, FV_TRAIN_NONE },
    { "convffn.fc1", "mlp.fc1", FV_WEIGHT_MATRIX_BIAS, AT(fv_vision_block, ffn.fc1), DIM_HIDDEN,
      DIM_C, 1, FV_TRAIN_NONE },
    { "convffn.fc2", "mlp.fc2", FV_WEIGHT_MATRIX_BIAS, AT(fv_vision_block, ffn.fc2), DIM_C,
      DIM_HIDDEN, 1, FV_TRAIN_NONE },
};

static const row expand_rows[] = {
    { "conv_exp.reparam_conv", "final_conv.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_weights, expand), DIM_FEATURES, DIM_C, 3, FV_TRAIN_MOBILEONE },
    { "conv_exp.se.reduce", "final_conv.se.fc1", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, squeeze), DIM_SQUEEZE, DIM_FEATURES, 1, FV_TRAIN_NONE },
    { "conv_exp.se.expand", "final_conv.se.fc2", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, excite), DIM_FEATURES, DIM_SQUEEZE, 1, FV_TRAIN_NONE },
};

static const row projector_rows[] = {
    { "mm_projector.0", "multi_modal_projector.linear_1", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, project1), DIM_D, DIM_FEATURES, 1, FV_TRAIN_NONE },
    { "mm_projector.2", "multi_modal_projector.linear_2", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, project2), DIM_D, DIM_D, 1, FV_TRAIN_NONE },
};

static const row embed_rows[] = {
    { "model.embed_tokens", "model.language_model.embed_tokens", FV_WEIGHT_MATRIX,
      AT(fv_decoder_weights, embed), DIM_VOCAB, DIM_D, 1, FV_TRAIN_NONE },
    { "model.norm.weight", "model.language_model.norm.weight", FV_WEIGHT_VECTOR,
      AT(fv_decoder_weights, norm), DIM_D, DIM_D, 1, FV_TRAIN_NONE },
};

static const row head_rows[] = {
    { "lm_head", "lm_head", FV_WEIGHT_MATRIX, AT(fv_decoder_weights, head), DIM_VOCAB, DIM_D, 1,
      FV_TRAIN_NONE },
};

#define BOTH(name) name, name
static const row layer_rows[] = {
    { BOTH("input_layernorm.weight"), FV_WEIGHT_VECTOR, AT(fv_decoder_layer, norm1), DIM_D, DIM_D,
      1, FV_TRAIN_NONE },
    { BOTH("self_attn.q_proj"), FV_WEIGHT_MATRIX_BIAS, AT(fv_decoder_layer, q), DIM_Q, DIM_D, 1,
      FV_TRAIN_NONE },
    { BOTH("self_attn.k_proj"), FV_WEIGHT_MATRIX_BIAS, AT(fv_decoder_layer, k), DIM_KV, DIM_D, 1,
      FV_TRAIN_NONE },
    { BOTH("self_attn.v_proj"), FV_WEIGHT_MATRIX_BIAS, AT(fv_decoder_layer, v), DIM_KV, DIM_D, 1,
      FV_TRAIN_NONE },
    { BOTH("self_attn.o_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, o), DIM_D, DIM_Q, 1,
      FV_TRAIN_NONE },
    { BOTH("post_attention_layernorm.weight"), FV_WEIGHT_VECTOR, AT(fv_decoder_layer, norm2), DIM_D,
      DIM_D, 1, FV_TRAIN_NONE },
    { BOTH("mlp.gate_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, gate), DIM_FFN, DIM_D, 1,
      FV_TRAIN_NONE },
    { BOTH("mlp.up_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, up), DIM_FFN, DIM_D, 1,
      FV_TRAIN_NONE },
    { BOTH("mlp.down_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, down), DIM_D, DIM_FFN, 1,
      FV_TRAIN_NONE },
};

typedef struct walker {
    const fv_config *c;
    size_t dim[DIM_COUNT];
    unsigned cpe_kernel;
    fv_part part;
    fv_weight_fn *fn;
    void *user;
    fv_error *err;
} walker;

static unsigned kernel_of(const walker *w, unsigned kernel)
{
    switch (kernel) {
    case KERNEL_MIXER: return (unsigned)w->c->mixer_kernel;
    case KERNEL_DOWN: return (unsigned)w->c->down_kernel;
    case KERNEL_CPE: return w->cpe_kernel;
    default: return kernel;
    }
}

static fv_status walk_rows(const walker *w, const row *rows, size_t n_rows, const char *apple,
                           const char *fast, void *base)
{
    for (size_t i = 0; i < n_rows; i++) {
        const row *r = &rows[i];
        fv_weight weight = { .kind = r->kind,
                             .part = w->part,
                             .train = r->train,
                             .n = w->dim[r->n],
                             .k = w->dim[r->k],
                             .kernel = kernel_of(w, r->kernel),
                             .slot = (char *)base + r->offset };
        snprintf(weight.name[FV_LAYOUT_LLAVA_QWEN2], FV_WEIGHT_NAME, "%s%s", apple, r->apple);
        snprintf(weight.name[FV_LAYOUT_FAST_VLM], FV_WEIGHT_NAME, "%s%s", fast, r->fast);
        FV_TRY(w->fn(w->user, &weight, w->err));
    }
    return FV_OK;
}

#define WALK(w, rows, apple, fast, base) \
    FV_TRY(walk_rows(w, rows, FV_COUNT(rows), apple, fast, base))

#define APPLE_TOWER "model.vision_tower.vision_tower.model."
#define FAST_TOWER  "model.vision_tower.timm_model."

static fv_status walk_stage(walker *w, fv_vision_stage_weights *stage, int i, int *network)
{
    const fv_vision_stage *s = &w->c->stage[i];
    char apple[96], fast[96];
    w->dim[DIM_C] = (size_t)s->width;
    w->dim[DIM_C2] = 2 * (size_t)s->width;
    w->dim[DIM_3C] = 3 * (size_t)s->width;
    w->dim[DIM_HIDDEN] = (size_t)s->hidden;
    w->cpe_kernel = (unsigned)s->cpe;
    if (s->cpe) {
        snprintf(apple, sizeof apple, APPLE_TOWER "network.%d.", (*network)++);
        snprintf(fast, sizeof fast, FAST_TOWER "stages.%d.", i);
        WALK(w, cpe_rows, apple, fast, stage);
    }
    for (int j = 0; j < s->depth; j++) {
        snprintf(apple, sizeof apple, APPLE_TOWER "network.%d.%d.", *network, j);
        snprintf(fast, sizeof fast, FAST_TOWER "stages.%d.blocks.%d.", i, j);
        if (s->attention)
            WALK(w, attention_rows, apple, fast, &stage->block[j]);
        else
            WALK(w, mixer_rows, apple, fast, &stage->block[j]);
        WALK(w, ffn_rows, apple, fast, &stage->block[j]);
    }
    ++*network;
    if (i + 1 < w->c->n_stages) {
        snprintf(apple, sizeof apple, APPLE_TOWER "network.%d.", (*network)++);
        snprintf(fast, sizeof fast, FAST_TOWER "stages.%d.", i + 1);
        WALK(w, down_rows, apple, fast, stage);
    }
    return FV_OK;
}

static fv_status walk_decoder(walker *w, fv_decoder_weights *d)
{
    const fv_config *c = w->c;
    char apple[64], fast[64];
    w->part = FV_PART_DECODER;
    w->dim[DIM_D] = (size_t)c->d_model;
    w->dim[DIM_Q] = (size_t)c->n_heads * (size_t)c->d_head;
    w->dim[DIM_KV] = (size_t)c->n_kv_heads * (size_t)c->d_head;
    w->dim[DIM_FFN] = (size_t)c->d_ffn;
    w->dim[DIM_VOCAB] = (size_t)c->n_vocab;
    WALK(w, embed_rows, "", "", d);
    for (int i = 0; i < c->n_layers; i++) {
        snprintf(apple, sizeof apple, "model.layers.%d.", i);
        snprintf(fast, sizeof fast, "model.language_model.layers.%d.", i);
        WALK(w, layer_rows, apple, fast, &d->layer[i]);
    }
    if (!c->tied)
        WALK(w, head_rows, "", "", d);
    return FV_OK;
}

void fv_weight_packed_name(char out[FV_PACKED_NAME], const fv_weight *weight, const char *suffix)
{
    const char *name = weight->name[FV_LAYOUT_LLAVA_QWEN2];
    bool tower = !strncmp(name, APPLE_TOWER, sizeof APPLE_TOWER - 1);
    snprintf(out, FV_PACKED_NAME, "%s%s%s", tower ? "vision." : "",
             tower ? name + sizeof APPLE_TOWER - 1 : name, suffix);
}

fv_status fv_weights_walk(fv_weights *weights, const fv_config *c, fv_weight_fn *fn, void *user,
                          fv_error *err)
{
    walker w = { .c = c, .part = FV_PART_VISION, .fn = fn, .user = user, .err = err };
    fv_vision_weights *v = &weights->vision;
    int network = 0;
    w.dim[DIM_RGB] = 3;
    w.dim[DIM_C] = (size_t)c->stage[0].width;
    WALK(&w, stem_rows, APPLE_TOWER, FAST_TOWER, v);
    for (int i = 0; i < c->n_stages; i++)
        FV_TRY(walk_stage(&w, &v->stage[i], i, &network));
    w.dim[DIM_FEATURES] = (size_t)c->n_features;
    w.dim[DIM_SQUEEZE] = (size_t)c->n_squeeze;
    WALK(&w, expand_rows, APPLE_TOWER, FAST_TOWER, v);
    w.part = FV_PART_PROJECTOR;
    w.dim[DIM_D] = (size_t)c->d_model;
    WALK(&w, projector_rows, "model.", "model.", v);
    return walk_decoder(&w, &weights->decoder);
}

fv_status fv_weights_alloc(fv_weights *w, const fv_config *c, fv_error *err)
{
    size_t n_blocks = 0;
    *w = (fv_weights){ 0 };
    for (int i = 0; i < c->n_stages; i++)
        n_blocks += (size_t)c->stage[i].depth;
    w->blocks = fv_alloc_zero(n_blocks, sizeof *w->blocks);
    w->decoder.layer = fv_alloc_zero((size_t)c->n_layers, sizeof *w->decoder.layer);
    if (!w->blocks || !w->decoder.layer)
        return fv_fail_memory(err, n_blocks * sizeof *w->blocks, "the weight tables");
    fv_vision_block *next = w->blocks;
    for (int i = 0; i < c->n_stages; next += c->stage[i++].depth)
        w->vision.stage[i].block = next;
    return FV_OK;
}
