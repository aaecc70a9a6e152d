/* weights: every parameter of the model, bound once.
 *
 * One table per part (weights_table.c) names each parameter in both checkpoint layouts, with its
 * kind, its place in these structs and its shape; the loader, `fastvlm info` and the exporters
 * walk it with fv_weights_walk. After binding, code says block->fc1: no look-up by name.
 *
 *     checkpoint  --weights_load.c-->  fv_weights   fused, folded, mapped where the type serves
 *     packed file --weights_bind.c-->  fv_weights   pointers into the file, nothing else */
#ifndef FV_WEIGHTS_H
#define FV_WEIGHTS_H

#include "base/base.h"
#include "base/types.h"
#include "io/tensors.h"
#include "kernels/kernels.h"
#include "model/config.h"

/* How the rows in front of an int8 layer become u8: q = round(x inv[c]) + zero, with a scale for
 * each channel so that one with large values does not cost the others their steps. The layer's
 * weights hold 1 / inv. inv NULL: the layer is not in int8. fine: eight binary digits more, in a
 * second byte (fv_quantize_u16_fn); only of matrices. */
typedef struct fv_u8 {
    const float *inv; /* [channels] */
    int zero;         /* 0 .. 255 */
    bool fine;
} fv_u8;

/* A linear layer or 1x1 convolution, y = W x + bias: W row-major [n, k] as the checkpoint has it,
 * mapped where its type serves the wanted precision.
 * Type I8: y = mul (bias8 + W q), q the input as u8, or in.fine the input's 16 bits divided by 256;
 * bias8 holds the bias and the zero's part.
 * Type Q8_0 with mul, a decoder's in w8a8: the blocks of a row have one scale, mul; bias8 is what
 * inputs in u8 with a zero of 128 are too much, -128 times the sum of a row. */
typedef struct fv_mat {
    const void *data;
    fv_type type;
    size_t n, k;          /* outputs, inputs */
    const float *bias;    /* [n] or NULL */
    const int32_t *bias8; /* [n], I8; Q8_0 or NULL */
    const float *mul;     /* [n], I8; Q8_0 or NULL */
    fv_u8 in;             /* I8 */
} fv_mat;

/* A depthwise convolution: every channel has kernels of its own, mult of them, so that output o
 * reads input o / mult. Taps come first: tap (dy, dx) of all channels lies together, as kernels
 * that work on channels side by side want it.
 * In int8: y = mul sum (q - in.zero) w8 + bias. */
typedef struct fv_dw {
    const float *w;    /* [kernel * kernel, channels * mult] */
    const float *bias; /* [channels * mult] */
    size_t channels;   /* of the input */
    unsigned mult, kernel;
    const int8_t *w8; /* in place of w */
    const float *mul; /* [channels * mult], with w8 */
    fv_u8 in;         /* with w8 */
} fv_dw;

/* The feed-forward network of both kinds of block, c -> hidden = 4c -> c; docs/model.md, 3.4. */
typedef struct fv_ffn {
    fv_dw dw;           /* 7x7 with its BatchNorm folded in */
    fv_mat fc1, fc2;    /* [hidden, c], [c, hidden] */
    const float *scale; /* [c] layer scale */
} fv_ffn;

/* A block is one of two kinds, as its stage says: RepMixer (docs/model.md, 3.2) or attention
 * (3.3). */
typedef struct fv_vision_block {
    fv_dw mixer;                  /* RepMixer: 3x3 */
    const float *norm_w, *norm_b; /* attention: [c] LayerNorm over channels */
    fv_mat qkv, proj;             /* [3c, c] rows q | k | v; [c, c] */
    const float *scale;           /* [c] layer scale of the attention */
    fv_ffn ffn;
} fv_vision_block;

typedef struct fv_vision_stage_weights {
    fv_dw cpe;              /* stages with one: the positional convolution, rows 13 and 17 */
    fv_vision_block *block; /* [depth] */
    fv_dw down_dw;          /* to the next stage, stride 2, 2 outputs a channel */
    fv_mat down_pw;         /* [2c, 2c] */
} fv_vision_stage_weights;

typedef struct fv_vision_weights {
    fv_mat stem0; /* [c, 27] 3x3 stride 2 as a matrix over taps (y, x, rgb); f32 */
    fv_dw stem1;  /* 3x3 stride 2 */
    fv_mat stem2; /* [c, c] */
    fv_vision_stage_weights stage[FV_MAX_STAGES];
    fv_dw expand;              /* conv_exp: 3x3, 2 outputs a channel */
    fv_mat squeeze, excite;    /* [n_squeeze, n_features] and back */
    fv_mat project1, project2; /* the projector: [d_model, n_features], [d_model, d_model] */
} fv_vision_weights;

typedef struct fv_decoder_layer {
    const float *norm1, *norm2; /* [d_model] before attention, before the MLP */
    fv_mat q, k, v, o;
    fv_mat gate, up, down;
} fv_decoder_layer;

typedef struct fv_decoder_weights {
    fv_mat embed, head; /* [n_vocab, d_model]; the same memory when tied */
    const float *norm;
    fv_decoder_layer *layer;
} fv_decoder_weights;

typedef struct fv_weights {
    fv_vision_weights vision;
    fv_decoder_weights decoder;
    fv_vision_block *blocks;     /* storage behind stage[].block */
    struct fv_block_list *owned; /* memory of everything that is not mapped */
    bool *used;                  /* [tensors]: the model needs this tensor of the checkpoint */
    bool *mapped;                /* [tensors]: and reads it where the file has it */
    bool tied;                   /* decoder.head is decoder.embed */
    uint64_t n_parameters;       /* values of the tensors in use */
    uint64_t owned_bytes, mapped_bytes;
} fv_weights;

/* ---- the encoder's steps ---- */

typedef enum fv_vision_kind {
    FV_VISION_START, /* before the first step */
    FV_VISION_STEM,
    FV_VISION_CPE,
    FV_VISION_REPMIXER,
    FV_VISION_ATTENTION,
    FV_VISION_DOWN, /* from a stage to the next one */
    FV_VISION_EXPAND,
    FV_VISION_PROJECTOR
} fv_vision_kind;

/* A step: a block, or what lies between blocks. */
typedef struct fv_vision_step {
    fv_vision_kind kind;
    int stage, block;   /* of DOWN the stage that it leaves; of EXPAND and PROJECTOR the last */
    int network;        /* its number in Apple's names, network.N */
    unsigned reduction; /* the map that comes in has sides of image_size / reduction */
} fv_vision_step;

/* Goes to the next step; false behind the last one. Steps begin as { 0 }:
 *
 *     for (fv_vision_step s = { 0 }; fv_vision_walk(config, &s);) */
bool fv_vision_walk(const fv_config *c, fv_vision_step *step);

size_t fv_vision_block_count(const fv_config *c);
/* Some layer in int8, rows of 8 bits; and, with fine, w8a16. */
bool fv_vision_has_int8(const fv_config *c, const fv_vision_weights *w, bool fine);

/* ---- the table ---- */

typedef enum fv_weight_kind {
    FV_WEIGHT_VECTOR,      /* const float *; [n] or [n, 1, 1] */
    FV_WEIGHT_MATRIX,      /* fv_mat; NAME.weight [n, k] or [n, k, 1, 1] */
    FV_WEIGHT_MATRIX_BIAS, /* and NAME.bias [n] */
    FV_WEIGHT_STEM,        /* fv_mat; NAME.weight [n, 3, 3, 3], NAME.bias */
    FV_WEIGHT_DEPTHWISE,   /* fv_dw; NAME.weight [n, 1, kernel, kernel], NAME.bias */
    FV_WEIGHT_DEPTHWISE_BN /* fv_dw; NAME.conv.weight and the BatchNorm NAME.bn */
} fv_weight_kind;

/* How a convolution looks in a training checkpoint (docs/model.md, 3.6). The blocks' names
 * replace the last part of the fused name. */
typedef enum fv_train_form {
    FV_TRAIN_NONE,
    FV_TRAIN_MOBILEONE,
    FV_TRAIN_REPMIXER,
    FV_TRAIN_LARGE_KERNEL,
    FV_TRAIN_CPE
} fv_train_form;

typedef enum fv_part { FV_PART_VISION, FV_PART_PROJECTOR, FV_PART_DECODER } fv_part;

enum { FV_WEIGHT_NAME = 160, FV_PACKED_NAME = FV_WEIGHT_NAME + 16 };

typedef struct fv_weight {
    char name[2][FV_WEIGHT_NAME]; /* by fv_layout */
    size_t index; /* in the walk: the same weight of another fv_weights has the same */
    fv_weight_kind kind;
    fv_part part;
    fv_train_form train;
    int group;   /* its layer group, counted from 0: in int8 together or not at all; -1: never */
    size_t n, k; /* outputs; inputs (matrices), input channels (convolutions) */
    unsigned kernel;
    void *slot;          /* where it is bound: const float *, fv_mat or fv_dw */
    fv_vision_step step; /* of the encoder, that it belongs to; of the decoder's weights { 0 } */
} fv_weight;

static inline bool fv_weight_is_depthwise(const fv_weight *t)
{
    return t->kind == FV_WEIGHT_DEPTHWISE || t->kind == FV_WEIGHT_DEPTHWISE_BN;
}

static inline bool fv_weight_is_matrix(const fv_weight *t)
{
    return t->kind != FV_WEIGHT_VECTOR && !fv_weight_is_depthwise(t);
}

/* As bound. */
bool fv_weight_is_int8(const fv_weight *t);

typedef fv_status fv_weight_fn(void *user, const fv_weight *weight, fv_error *err);

/* Calls fn for every parameter in the order in which the model uses them; stops at an error.
 * w->blocks must exist (fv_weights_alloc); without w->decoder.layer the walk ends with the
 * projector. The head is not listed when it is the embedding. */
fv_status fv_weights_alloc(fv_weights *w, const fv_config *c, fv_error *err);
/* A second encoder that is bound to the same memory and can be bound to other memory weight by
 * weight; no decoder. w outlives it. */
fv_status fv_weights_share_vision(fv_weights *out, const fv_weights *w, const fv_config *c,
                                  fv_error *err);
fv_status fv_weights_walk(fv_weights *w, const fv_config *c, fv_weight_fn *fn, void *user,
                          fv_error *err);

/* The name of a tensor in a packed file: the original layout's, the vision tower's prefix cut to
 * "vision."; suffix (".weight") may be "". At most 63 bytes for every model of five stages. */
void fv_weight_packed_name(char out[FV_PACKED_NAME], const fv_weight *weight, const char *suffix);

/* ---- loading ---- */

typedef struct fv_weight_options {
    fv_type vision, decoder; /* F32, BF16 or F16: what matrices are read as */
    const fv_kernels *kernels;
    fv_pool *pool;
    const fv_callbacks *callbacks; /* may be NULL */
} fv_weight_options;

/* Binds every parameter from a checkpoint's tensors, which must outlive w. A missing tensor or a
 * wrong shape fails by name with what was found and expected. A matrix stays mapped when it is
 * stored in the wanted type, or when f32 is wanted (16-bit weights are widened as they are read);
 * otherwise it is copied and converted. NaN and infinite values are logged as a warning. */
fv_status fv_weights_load(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                          const fv_weight_options *options, fv_error *err);
/* Reads no weight: lays out the structs of w and fills in owned_bytes, mapped_bytes and tied as
 * fv_weights_load would leave them. */
fv_status fv_weights_measure(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                             const fv_weight_options *options, fv_error *err);
/* Binds every parameter from a packed file's tensors: fused, folded and in their final types, so
 * that nothing is copied and no weight is read. c->tied says whether there is a head. */
fv_status fv_weights_bind(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                          fv_error *err);
/* Empty lists of the tensors in use; for the two above. */
fv_status fv_weights_begin_use(fv_weights *w, const fv_tensors *tensors, fv_error *err);
uint64_t fv_weights_owned_bytes(const fv_weights *w); /* what is not mapped */
/* Keeps what is not mapped in memory, until it is freed. */
fv_status fv_weights_lock(const fv_weights *w, fv_error *err);
void fv_weights_free(fv_weights *w);

#endif
