/* The one table that names every weight. See weights.h; shapes: docs/model.md, section 9. */
#include <stdio.h>
#include <string.h>

#include "model/weights.h"

/* The dimensions that rows speak of. Their values differ from stage to stage and from model to
 * model; the walker fills them in as it goes. */
enum dim {
    DIM_RGB,      /* 3 */
    DIM_C,        /* vision: channels of the stage */
    DIM_C2,       /* of the next stage */
    DIM_3C,       /* q | k | v */
    DIM_HIDDEN,   /* inside the FFN */
    DIM_FEATURES, /* channels of conv_exp */
    DIM_SQUEEZE,
    DIM_D,   /* decoder: d_model */
    DIM_Q,   /* all query heads */
    DIM_KV,  /* all key-value heads */
    DIM_FFN, /* d_ffn */
    DIM_VOCAB,
    DIM_COUNT
};

/* Rows of one table with the same group hand u8 to each other: they are in int8 together or not at
 * all. NEVER: no int8 form; the first layers of the encoder and its positional convolutions are a
 * small part of the time and the places where 8 bits cost most. */
enum group { NEVER, GROUP1, GROUP2 };

/* A parameter of a step, or of a decoder layer. Tables list them in the order in which they are
 * used; a table is walked once for every step that has its parameters. */
typedef struct row {
    const char *apple,
        *fast;           /* names behind the step's prefix, in both layouts; without ".weight" */
    fv_weight_kind kind; /* which tensors there are, and what they become */
    size_t offset;       /* of its slot in the step's struct */
    enum dim n, k;       /* outputs, inputs; a vector has n values */
    unsigned kernel;     /* side of a convolution's kernel; KERNEL_*: as the config says */
    fv_train_form train; /* what it looks like before fusing; training checkpoints only */
    enum group group;
} row;

enum { KERNEL_MIXER = 100, KERNEL_DOWN, KERNEL_CPE };

#define AT(type, member) offsetof(type, member)

/* rows 1 to 3 of docs/model.md, section 3.1 */
static const row stem_rows[] = {
    { "patch_embed.0.reparam_conv", "stem.0.reparam_conv", FV_WEIGHT_STEM,
      AT(fv_vision_weights, stem0), DIM_C, DIM_RGB, 3, FV_TRAIN_MOBILEONE, NEVER },
    { "patch_embed.1.reparam_conv", "stem.1.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_weights, stem1), DIM_C, DIM_C, 3, FV_TRAIN_MOBILEONE, NEVER },
    { "patch_embed.2.reparam_conv", "stem.2.reparam_conv", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, stem2), DIM_C, DIM_C, 1, FV_TRAIN_MOBILEONE, NEVER },
};

/* rows 13 and 17 */
static const row cpe_rows[] = {
    { "reparam_conv", "pos_emb.reparam_conv", FV_WEIGHT_DEPTHWISE, AT(fv_vision_stage_weights, cpe),
      DIM_C, DIM_C, KERNEL_CPE, FV_TRAIN_CPE, NEVER },
};

/* rows 5 and 6, 8 and 9, 11 and 12, 15 and 16 */
static const row down_rows[] = {
    { "proj.0.lkb_reparam", "downsample.proj.0.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_stage_weights, down_dw), DIM_C2, DIM_C, KERNEL_DOWN, FV_TRAIN_LARGE_KERNEL,
      GROUP1 },
    { "proj.1.reparam_conv", "downsample.proj.1.reparam_conv", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_stage_weights, down_pw), DIM_C2, DIM_C2, 1, FV_TRAIN_MOBILEONE, GROUP1 },
};

/* a RepMixer block (3.2); its FFN follows */
static const row mixer_rows[] = {
    { "token_mixer.reparam_conv", "token_mixer.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_block, mixer), DIM_C, DIM_C, KERNEL_MIXER, FV_TRAIN_REPMIXER, NEVER },
    { "layer_scale", "layer_scale.gamma", FV_WEIGHT_VECTOR, AT(fv_vision_block, ffn.scale), DIM_C,
      DIM_C, 1, FV_TRAIN_NONE, NEVER },
};

/* an attention block (3.3); its FFN follows */
static const row attention_rows[] = {
    { "norm.weight", "norm.weight", FV_WEIGHT_VECTOR, AT(fv_vision_block, norm_w), DIM_C, DIM_C, 1,
      FV_TRAIN_NONE, NEVER },
    { "norm.bias", "norm.bias", FV_WEIGHT_VECTOR, AT(fv_vision_block, norm_b), DIM_C, DIM_C, 1,
      FV_TRAIN_NONE, NEVER },
    { "token_mixer.qkv", "token_mixer.qkv", FV_WEIGHT_MATRIX, AT(fv_vision_block, qkv), DIM_3C,
      DIM_C, 1, FV_TRAIN_NONE, GROUP1 },
    { "token_mixer.proj", "token_mixer.proj", FV_WEIGHT_MATRIX_BIAS, AT(fv_vision_block, proj),
      DIM_C, DIM_C, 1, FV_TRAIN_NONE, GROUP2 },
    { "layer_scale_1", "layer_scale_1.gamma", FV_WEIGHT_VECTOR, AT(fv_vision_block, scale), DIM_C,
      DIM_C, 1, FV_TRAIN_NONE, NEVER },
    { "layer_scale_2", "layer_scale_2.gamma", FV_WEIGHT_VECTOR, AT(fv_vision_block, ffn.scale),
      DIM_C, DIM_C, 1, FV_TRAIN_NONE, NEVER },
};

/* the FFN of either (3.4) */
static const row ffn_rows[] = {
    { "convffn.conv", "mlp.conv", FV_WEIGHT_DEPTHWISE_BN, AT(fv_vision_block, ffn.dw), DIM_C, DIM_C,
      7, FV_TRAIN_NONE, GROUP1 },
    { "convffn.fc1", "mlp.fc1", FV_WEIGHT_MATRIX_BIAS, AT(fv_vision_block, ffn.fc1), DIM_HIDDEN,
      DIM_C, 1, FV_TRAIN_NONE, GROUP1 },
    { "convffn.fc2", "mlp.fc2", FV_WEIGHT_MATRIX_BIAS, AT(fv_vision_block, ffn.fc2), DIM_C,
      DIM_HIDDEN, 1, FV_TRAIN_NONE, GROUP1 },
};

/* row 19 with its squeeze-excite (3.5) */
static const row expand_rows[] = {
    { "conv_exp.reparam_conv", "final_conv.reparam_conv", FV_WEIGHT_DEPTHWISE,
      AT(fv_vision_weights, expand), DIM_FEATURES, DIM_C, 3, FV_TRAIN_MOBILEONE, NEVER },
    { "conv_exp.se.reduce", "final_conv.se.fc1", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, squeeze), DIM_SQUEEZE, DIM_FEATURES, 1, FV_TRAIN_NONE, NEVER },
    { "conv_exp.se.expand", "final_conv.se.fc2", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, excite), DIM_FEATURES, DIM_SQUEEZE, 1, FV_TRAIN_NONE, NEVER },
};

/* section 4 */
static const row projector_rows[] = {
    { "mm_projector.0", "multi_modal_projector.linear_1", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, project1), DIM_D, DIM_FEATURES, 1, FV_TRAIN_NONE, GROUP1 },
    { "mm_projector.2", "multi_modal_projector.linear_2", FV_WEIGHT_MATRIX_BIAS,
      AT(fv_vision_weights, project2), DIM_D, DIM_D, 1, FV_TRAIN_NONE, GROUP2 },
};

/* section 6 */
static const row embed_rows[] = {
    { "model.embed_tokens", "model.language_model.embed_tokens", FV_WEIGHT_MATRIX,
      AT(fv_decoder_weights, embed), DIM_VOCAB, DIM_D, 1, FV_TRAIN_NONE, NEVER },
    { "model.norm.weight", "model.language_model.norm.weight", FV_WEIGHT_VECTOR,
      AT(fv_decoder_weights, norm), DIM_D, DIM_D, 1, FV_TRAIN_NONE, NEVER },
};

/* the output head, where it is not the embedding */
static const row head_rows[] = {
    { "lm_head", "lm_head", FV_WEIGHT_MATRIX, AT(fv_decoder_weights, head), DIM_VOCAB, DIM_D, 1,
      FV_TRAIN_NONE, NEVER },
};

/* a decoder layer, section 6; both layouts call its parameters the same */
#define BOTH(name) name, name
static const row layer_rows[] = {
    { BOTH("input_layernorm.weight"), FV_WEIGHT_VECTOR, AT(fv_decoder_layer, norm1), DIM_D, DIM_D,
      1, FV_TRAIN_NONE, NEVER },
    { BOTH("self_attn.q_proj"), FV_WEIGHT_MATRIX_BIAS, AT(fv_decoder_layer, q), DIM_Q, DIM_D, 1,
      FV_TRAIN_NONE, NEVER },
    { BOTH("self_attn.k_proj"), FV_WEIGHT_MATRIX_BIAS, AT(fv_decoder_layer, k), DIM_KV, DIM_D, 1,
      FV_TRAIN_NONE, NEVER },
    { BOTH("self_attn.v_proj"), FV_WEIGHT_MATRIX_BIAS, AT(fv_decoder_layer, v), DIM_KV, DIM_D, 1,
      FV_TRAIN_NONE, NEVER },
    { BOTH("self_attn.o_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, o), DIM_D, DIM_Q, 1,
      FV_TRAIN_NONE, NEVER },
    { BOTH("post_attention_layernorm.weight"), FV_WEIGHT_VECTOR, AT(fv_decoder_layer, norm2), DIM_D,
      DIM_D, 1, FV_TRAIN_NONE, NEVER },
    { BOTH("mlp.gate_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, gate), DIM_FFN, DIM_D, 1,
      FV_TRAIN_NONE, NEVER },
    { BOTH("mlp.up_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, up), DIM_FFN, DIM_D, 1,
      FV_TRAIN_NONE, NEVER },
    { BOTH("mlp.down_proj"), FV_WEIGHT_MATRIX, AT(fv_decoder_layer, down), DIM_D, DIM_FFN, 1,
      FV_TRAIN_NONE, NEVER },
};

/* ---- the walk ---------------------------------------------------------------------------- */

typedef struct walker {
    fv_weights *w;
    const fv_config *c;
    size_t dim[DIM_COUNT];
    unsigned cpe_kernel;
    fv_part part;
    fv_vision_step step;
    size_t n_weights; /* so far: the next weight's index */
    int n_groups;     /* so far: the number of the next table's first group */
    fv_weight_fn *fn;
    void *user;
    fv_error *err;
} walker;

/* RepCPE's kernel differs from stage to stage, the others' are the model's. */
static unsigned kernel_of(const walker *w, unsigned kernel)
{
    switch (kernel) {
    case KERNEL_MIXER: return (unsigned)w->c->mixer_kernel;
    case KERNEL_DOWN: return (unsigned)w->c->down_kernel;
    case KERNEL_CPE: return w->cpe_kernel;
    default: return kernel;
    }
}

/* base: the struct that the rows' offsets are in. */
static fv_status walk_rows(walker *w, const row *rows, size_t n_rows, const char *apple,
                           const char *fast, void *base)
{
    int groups = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const row *r = &rows[i];
        fv_weight weight = { .index = w->n_weights++,
                             .kind = r->kind,
                             .part = w->part,
                             .train = r->train,
                             .group = r->group == NEVER ? -1 : w->n_groups + (int)r->group - 1,
                             .step = w->step,
                             .n = w->dim[r->n],
                             .k = w->dim[r->k],
                             .kernel = kernel_of(w, r->kernel),
                             .slot = (char *)base + r->offset };
        snprintf(weight.name[FV_LAYOUT_LLAVA_QWEN2], FV_WEIGHT_NAME, "%s%s", apple, r->apple);
        snprintf(weight.name[FV_LAYOUT_FAST_VLM], FV_WEIGHT_NAME, "%s%s", fast, r->fast);
        groups = FV_MAX(groups, (int)r->group);
        FV_TRY(w->fn(w->user, &weight, w->err));
    }
    w->n_groups += groups;
    return FV_OK;
}

#define WALK(w, rows, apple, fast, base) \
    FV_TRY(walk_rows(w, rows, FV_COUNT(rows), apple, fast, base))

#define APPLE_TOWER "model.vision_tower.vision_tower.model."
#define FAST_TOWER  "model.vision_tower.timm_model."

/* Dimensions of a stage's tables. */
static void walk_set_stage(walker *w, const fv_vision_stage *s)
{
    w->dim[DIM_C] = (size_t)s->width;
    w->dim[DIM_C2] = 2 * (size_t)s->width;
    w->dim[DIM_3C] = 3 * (size_t)s->width;
    w->dim[DIM_HIDDEN] = (size_t)s->hidden;
    w->cpe_kernel = (unsigned)s->cpe;
}

/* The prefixes of a step's names. Apple numbers stages and what lies between them in one row
 * (network.N); the other layout counts stages and puts the convolutions in front of a stage into
 * it. */
static fv_status walk_step(walker *w, const fv_vision_step *s)
{
    fv_vision_weights *v = &w->w->vision;
    fv_vision_stage_weights *stage = &v->stage[s->stage];
    char apple[96], fast[96];
    w->step = *s;
    walk_set_stage(w, &w->c->stage[s->stage]);
    snprintf(apple, sizeof apple, APPLE_TOWER "network.%d.", s->network);
    snprintf(fast, sizeof fast, FAST_TOWER "stages.%d.", s->stage + (s->kind == FV_VISION_DOWN));
    switch (s->kind) {
    case FV_VISION_STEM: WALK(w, stem_rows, APPLE_TOWER, FAST_TOWER, v); break;
    case FV_VISION_CPE: WALK(w, cpe_rows, apple, fast, stage); break;
    case FV_VISION_DOWN: WALK(w, down_rows, apple, fast, stage); break;
    case FV_VISION_REPMIXER:
    case FV_VISION_ATTENTION:
        snprintf(apple, sizeof apple, APPLE_TOWER "network.%d.%d.", s->network, s->block);
        snprintf(fast, sizeof fast, FAST_TOWER "stages.%d.blocks.%d.", s->stage, s->block);
        if (s->kind == FV_VISION_ATTENTION)
            WALK(w, attention_rows, apple, fast, &stage->block[s->block]);
        else
            WALK(w, mixer_rows, apple, fast, &stage->block[s->block]);
        WALK(w, ffn_rows, apple, fast, &stage->block[s->block]);
        break;
    case FV_VISION_EXPAND: WALK(w, expand_rows, APPLE_TOWER, FAST_TOWER, v); break;
    case FV_VISION_PROJECTOR:
        w->part = FV_PART_PROJECTOR;
        WALK(w, projector_rows, "model.", "model.", v);
        break;
    case FV_VISION_START: break;
    }
    return FV_OK;
}

static fv_status walk_decoder(walker *w, fv_decoder_weights *d)
{
    char apple[64], fast[64];
    w->part = FV_PART_DECODER;
    w->step = (fv_vision_step){ 0 };
    WALK(w, embed_rows, "", "", d);
    for (int i = 0; i < w->c->n_layers; i++) {
        snprintf(apple, sizeof apple, "model.layers.%d.", i);
        snprintf(fast, sizeof fast, "model.language_model.layers.%d.", i);
        WALK(w, layer_rows, apple, fast, &d->layer[i]);
    }
    if (!w->c->tied)
        WALK(w, head_rows, "", "", d);
    return FV_OK;
}

fv_status fv_weights_walk(fv_weights *weights, const fv_config *c, fv_weight_fn *fn, void *user,
                          fv_error *err)
{
    walker w = { .w = weights,
                 .c = c,
                 .part = FV_PART_VISION,
                 .fn = fn,
                 .user = user,
                 .err = err,
                 .dim = { [DIM_RGB] = 3,
                          [DIM_FEATURES] = (size_t)c->n_features,
                          [DIM_SQUEEZE] = (size_t)c->n_squeeze,
                          [DIM_D] = (size_t)c->d_model,
                          [DIM_Q] = (size_t)c->n_heads * (size_t)c->d_head,
                          [DIM_KV] = (size_t)c->n_kv_heads * (size_t)c->d_head,
                          [DIM_FFN] = (size_t)c->d_ffn,
                          [DIM_VOCAB] = (size_t)c->n_vocab } };
    for (fv_vision_step s = { 0 }; fv_vision_walk(c, &s);)
        FV_TRY(walk_step(&w, &s));
    return weights->decoder.layer ? walk_decoder(&w, &weights->decoder) : FV_OK;
}

/* ---- what a row says ---------------------------------------------------------------------- */

void fv_weight_packed_name(char out[FV_PACKED_NAME], const fv_weight *weight, const char *suffix)
{
    const char *name = weight->name[FV_LAYOUT_LLAVA_QWEN2];
    bool tower = !strncmp(name, APPLE_TOWER, sizeof APPLE_TOWER - 1);
    snprintf(out, FV_PACKED_NAME, "%s%s%s", tower ? "vision." : "",
             tower ? name + sizeof APPLE_TOWER - 1 : name, suffix);
}

bool fv_weight_is_int8(const fv_weight *t)
{
    if (fv_weight_is_matrix(t))
        return ((const fv_mat *)t->slot)->type == FV_TYPE_I8;
    return fv_weight_is_depthwise(t) && ((const fv_dw *)t->slot)->w8;
}

/* ---- room for what the walk binds ---------------------------------------------------------- */

/* Memory for the blocks of all stages, in one piece. */
static fv_status alloc_blocks(fv_weights *w, const fv_config *c, fv_error *err)
{
    size_t n = fv_vision_block_count(c);
    w->blocks = fv_alloc_zero(n, sizeof *w->blocks);
    if (!w->blocks)
        return fv_fail_memory(err, n * sizeof *w->blocks, "the weight tables");
    fv_vision_block *next = w->blocks;
    for (int i = 0; i < c->n_stages; next += c->stage[i++].depth)
        w->vision.stage[i].block = next;
    return FV_OK;
}

fv_status fv_weights_alloc(fv_weights *w, const fv_config *c, fv_error *err)
{
    *w = (fv_weights){ 0 };
    w->decoder.layer = fv_alloc_zero((size_t)c->n_layers, sizeof *w->decoder.layer);
    if (!w->decoder.layer)
        return fv_fail_memory(err, (size_t)c->n_layers * sizeof *w->decoder.layer,
                              "the weight tables");
    return alloc_blocks(w, c, err);
}

fv_status fv_weights_share_vision(fv_weights *out, const fv_weights *w, const fv_config *c,
                                  fv_error *err)
{
    *out = (fv_weights){ .vision = w->vision };
    FV_TRY(alloc_blocks(out, c, err));
    memcpy(out->blocks, w->blocks, fv_vision_block_count(c) * sizeof *out->blocks);
    return FV_OK;
}
