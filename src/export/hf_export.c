/* A model -> a checkpoint directory of either layout: the weights. hf_files.c writes the rest.
 *
 *     the table of weights (nn/weights.h)   one or more tensors each, by the target's names
 *       stored as such in the source        copied, or converted to the type asked for
 *       fused while loading, or packed      from the bound weights, in f32
 *
 * Two passes: the first makes the list for the header, the second writes the data; nothing but a
 * chunk is in memory. A BatchNorm that was folded into its convolution comes back as one that does
 * nothing but add the bias. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/hf.h"
#include "base/list.h"
#include "base/fpenv.h"
#include "model/precision.h"
#include "base/sized.h"
#include "base/outfile.h"
#include "base/report.h"
#include "fastvlm_tools.h"
#include "io/tensors_write.h"

enum { CHUNK = 1 << 19 }; /* values */

#define BN_EPS 1e-5f

/* Where the values of an item come from when the source does not store them. */
typedef enum item_from {
    FROM_TENSOR,    /* tensor */
    FROM_F32,       /* f32 [n], bound vectors and biases */
    FROM_MATRIX,    /* mat, row by row */
    FROM_INT8_BIAS, /* mat: what its bias8 holds besides the zero's part */
    FROM_TAPS,      /* dw [taps, n] -> [n, 1, k, k] */
    FROM_STEM,      /* f32 [n, taps, rgb] -> [n, rgb, k, k] */
    FROM_CONSTANT,  /* value, or for I64 zero */
    FROM_BN_WEIGHT  /* sqrt(1 + eps): together with a variance of 1 exactly nothing */
} item_from;

typedef struct item {
    char name[FV_WEIGHT_NAME + 32];
    fv_type type;
    int n_dims;
    uint64_t shape[FV_TENSOR_MAX_DIMS], n_elems;
    item_from from;
    const fv_tensor *tensor;
    const fv_mat *mat;
    const fv_dw *dw;
    const float *f32;
    float value;
    /* values that the source has; the rest are zeros (rows added to the embedding) */
    uint64_t n_stored;
} item;

typedef struct hf {
    const fv_model *s;
    const fv_callbacks *callbacks;
    fv_hf_target target;
    fv_precision dtype;
    item *items;
    size_t n, capacity;
    uint64_t n_values, n_written;
} hf;

/* ---- the list ---- */

static fv_type wanted_type(const hf *h, fv_type stored)
{
    bool half = stored == FV_TYPE_BF16 || stored == FV_TYPE_F16;
    return fv_precision_type(h->dtype, half ? stored : FV_TYPE_F32);
}

/* A new item of this shape (ends at the first 0); NULL when memory is out. */
static item *hf_add_item(hf *h, const char *name, const char *rest, fv_type stored,
                         const uint64_t shape[FV_TENSOR_MAX_DIMS], fv_error *err)
{
    if (FV_LIST_ROOM(h->items, h->n, h->capacity, 1, err) != FV_OK)
        return NULL;
    item *x = &h->items[h->n++];
    *x = (item){ .type = stored == FV_TYPE_I64 ? stored : wanted_type(h, stored), .n_elems = 1 };
    snprintf(x->name, sizeof x->name, "%s%s", name, rest);
    for (; x->n_dims < FV_TENSOR_MAX_DIMS && shape[x->n_dims]; x->n_dims++) {
        x->shape[x->n_dims] = shape[x->n_dims];
        x->n_elems *= shape[x->n_dims];
    }
    x->n_stored = x->n_elems;
    return x;
}

static const fv_tensor *stored(const hf *h, const fv_weight *t, const char *rest)
{
    char name[FV_WEIGHT_NAME + 32];
    snprintf(name, sizeof name, "%s%s", t->name[h->s->config.layout], rest);
    return h->s->checkpoint ? fv_tensors_find(h->s->checkpoint, name) : NULL;
}

/* The tensor name + rest of a weight: as stored, or from what fallback says. */
static fv_status add_part(hf *h, const fv_weight *t, const char *rest,
                          const uint64_t shape[FV_TENSOR_MAX_DIMS], const item *fallback,
                          fv_error *err)
{
    const fv_tensor *x = stored(h, t, rest);
    fv_type type = x ? x->type : fallback->from == FROM_MATRIX ? fallback->mat->type : FV_TYPE_F32;
    item *i = hf_add_item(h, t->name[h->target.layout], rest, type, shape, err);
    if (!i)
        return FV_ERR_MEMORY;
    i->from = x ? FROM_TENSOR : fallback->from;
    i->tensor = x;
    i->mat = fallback->mat;
    i->dw = fallback->dw;
    i->f32 = fallback->f32;
    i->value = fallback->value;
    return FV_OK;
}

static fv_status add_batch_norm(hf *h, const fv_weight *t, const fv_dw *dw, fv_error *err)
{
    static const char *const rest[4] = { ".bn.weight", ".bn.bias", ".bn.running_mean",
                                         ".bn.running_var" };
    const item fallback[4] = { { .from = FROM_BN_WEIGHT },
                               { .from = FROM_F32, .f32 = dw->bias },
                               { .from = FROM_CONSTANT, .value = 0 },
                               { .from = FROM_CONSTANT, .value = 1 } };
    const uint64_t shape[4] = { t->n }, scalar[4] = { 0 };
    for (int i = 0; i < 4; i++)
        FV_TRY(add_part(h, t, rest[i], shape, &fallback[i], err));
    item *count = hf_add_item(h, t->name[h->target.layout], ".bn.num_batches_tracked", FV_TYPE_I64,
                              scalar, err);
    if (!count)
        return FV_ERR_MEMORY;
    count->tensor = stored(h, t, ".bn.num_batches_tracked");
    count->from = count->tensor && count->tensor->type == FV_TYPE_I64 ? FROM_TENSOR : FROM_CONSTANT;
    return FV_OK;
}

static fv_status add_matrix(hf *h, const fv_weight *t, fv_error *err)
{
    const fv_mat *mat = t->slot;
    const item weight = { .from = FROM_MATRIX, .mat = mat };
    const item bias = { .from = mat->type == FV_TYPE_I8 ? FROM_INT8_BIAS : FROM_F32,
                        .f32 = mat->bias,
                        .mat = mat };
    /* 1x1 convolutions are everything in the tower but the attention's linear layers */
    bool conv = t->part == FV_PART_VISION &&
                !strstr(t->name[FV_LAYOUT_LLAVA_QWEN2], ".token_mixer.");
    const uint64_t shape[4] = { t->n, t->k, conv ? 1 : 0, 1 }, bias_shape[4] = { t->n };
    if (mat->type != FV_TYPE_I8 && !h->s->kernels.convert[FV_TYPE_F32][mat->type])
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s is %s, which cannot be converted back to floating point", h->s->name,
                       t->name[h->s->config.layout], fv_type_name(mat->type));
    FV_TRY(add_part(h, t, ".weight", shape, &weight, err));
    const fv_decoder_weights *d = &h->s->weights.decoder;
    if ((t->slot == &d->embed || t->slot == &d->head) && h->target.rows > (int)t->n) {
        item *x = &h->items[h->n - 1];
        x->shape[0] = (uint64_t)h->target.rows;
        x->n_elems = (uint64_t)h->target.rows * t->k;
    }
    return t->kind == FV_WEIGHT_MATRIX_BIAS ? add_part(h, t, ".bias", bias_shape, &bias, err)
                                            : FV_OK;
}

static fv_status add_weight(void *user, const fv_weight *t, fv_error *err)
{
    hf *h = user;
    const uint64_t vector[4] = { t->n }, scale[4] = { t->n, 1, 1 },
                   dw_shape[4] = { t->n, 1, t->kernel, t->kernel },
                   stem_shape[4] = { t->n, t->k, t->kernel, t->kernel };
    const fv_dw *dw = t->slot;
    const fv_mat *mat = t->slot;
    switch (t->kind) {
    case FV_WEIGHT_VECTOR: {
        const item values = { .from = FROM_F32, .f32 = *(const float *const *)t->slot };
        return add_part(h, t, "", strstr(t->name[0], ".layer_scale") ? scale : vector, &values,
                        err);
    }
    case FV_WEIGHT_STEM: {
        const item weight = { .from = FROM_STEM, .f32 = mat->data },
                   bias = { .from = FROM_F32, .f32 = mat->bias };
        FV_TRY(add_part(h, t, ".weight", stem_shape, &weight, err));
        return add_part(h, t, ".bias", vector, &bias, err);
    }
    case FV_WEIGHT_DEPTHWISE: {
        const item weight = { .from = FROM_TAPS, .dw = dw },
                   bias = { .from = FROM_F32, .f32 = dw->bias };
        FV_TRY(add_part(h, t, ".weight", dw_shape, &weight, err));
        return add_part(h, t, ".bias", vector, &bias, err);
    }
    case FV_WEIGHT_DEPTHWISE_BN: {
        const item weight = { .from = FROM_TAPS, .dw = dw };
        FV_TRY(add_part(h, t, ".conv.weight", dw_shape, &weight, err));
        return add_batch_norm(h, t, dw, err);
    }
    default: return add_matrix(h, t, err);
    }
}

/* Tensors that the model does not read but the llava_qwen2 layout has. */
static fv_status add_unused(hf *h, fv_error *err)
{
    static const char *const names[] = { "lm_head.weight",
                                         "model.vision_tower.vision_tower.model.head.proj" };
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        const fv_tensor *x = h->s->checkpoint ? fv_tensors_find(h->s->checkpoint, names[i]) : NULL;
        bool listed = false;
        for (size_t k = 0; k < h->n && !listed; k++)
            listed = !strcmp(h->items[k].name, names[i]);
        bool is_float = x && (x->type == FV_TYPE_F32 || x->type == FV_TYPE_F16 ||
                              x->type == FV_TYPE_BF16);
        if (!is_float || listed || h->target.layout != FV_LAYOUT_LLAVA_QWEN2 ||
            x->rank > FV_TENSOR_MAX_DIMS)
            continue;
        uint64_t shape[4] = { 0 };
        memcpy(shape, x->shape, sizeof *shape * (size_t)x->n_dims);
        item *it = hf_add_item(h, names[i], "", x->type, shape, err);
        if (!it)
            return FV_ERR_MEMORY;
        it->tensor = x;
    }
    return FV_OK;
}

/* Wide types first, so that all are aligned; then by name. */
static int by_type_and_name(const void *a, const void *b)
{
    const item *x = a, *y = b;
    size_t wide_x = fv_type_size(x->type), wide_y = fv_type_size(y->type);
    return wide_x != wide_y ? (wide_x < wide_y) - (wide_x > wide_y) : strcmp(x->name, y->name);
}

/* ---- the data ---- */

/* A value of an int8 matrix: the input is x inv + zero there, so inv belongs to the weight. */
static float int8_weight(const fv_mat *m, size_t i)
{
    return m->mul[i / m->k] * ((const int8_t *)m->data)[i] * m->in.inv[i % m->k];
}

/* mul (bias8 + zero times the sum of the row). */
static float hf_int8_bias(const fv_mat *m, size_t row)
{
    int64_t sum = 0;
    for (size_t i = 0; i < m->k; i++)
        sum += ((const int8_t *)m->data)[row * m->k + i];
    return m->mul[row] * (float)(m->bias8[row] + m->in.zero * sum);
}

/* Tap t of output o. */
static float tap(const fv_dw *dw, size_t t, size_t o)
{
    size_t at = t * dw->channels * dw->mult + o;
    return dw->w8 ? dw->mul[o] * dw->w8[at] * dw->in.inv[o / dw->mult] : dw->w[at];
}

/* Values at .. at + n of an item as f32. */
static void values_of(const hf *h, const item *x, uint64_t at, size_t n, float *to)
{
    size_t per = x->n_dims && x->shape[0] ? (size_t)(x->n_elems / x->shape[0]) : 1;
    size_t taps = x->n_dims == 4 ? (size_t)(x->shape[2] * x->shape[3]) : 1;
    switch (x->from) {
    case FROM_F32: memcpy(to, x->f32 + at, n * sizeof *to); break;
    case FROM_MATRIX:
        for (size_t i = 0; i < n && x->mat->type == FV_TYPE_I8; i++)
            to[i] = int8_weight(x->mat, (size_t)at + i);
        if (x->mat->type == FV_TYPE_I8)
            break;
        h->s->kernels.convert[FV_TYPE_F32][x->mat->type](
            to, (const uint8_t *)x->mat->data + fv_row_bytes(x->mat->type, (size_t)at), n);
        break;
    case FROM_TAPS: /* [n, taps] from [taps, n] */
        for (size_t i = 0; i < n; i++)
            to[i] = tap(x->dw, (at + i) % per, (at + i) / per);
        break;
    case FROM_INT8_BIAS:
        for (size_t i = 0; i < n; i++)
            to[i] = hf_int8_bias(x->mat, (size_t)at + i);
        break;
    case FROM_STEM: /* [n, rgb, taps] from [n, taps, rgb] */
        for (size_t i = 0; i < n; i++) {
            size_t o = (at + i) / per, rest = (at + i) % per;
            to[i] = x->f32[o * per + rest % taps * (per / taps) + rest / taps];
        }
        break;
    default:
        for (size_t i = 0; i < n; i++)
            to[i] = x->from == FROM_BN_WEIGHT ? sqrtf(1 + BN_EPS) : x->value;
    }
}

static fv_status write_item(hf *h, fv_outfile *f, const item *x, float *values, uint8_t *converted,
                            fv_error *err)
{
    static const uint8_t zeros[4096];
    size_t size = fv_type_size(x->type);
    const fv_tensor *t = x->from == FROM_TENSOR ? x->tensor : NULL;
    uint64_t n_stored = t ? FV_MIN(x->n_stored, t->n_elems) : x->n_stored;
    for (uint64_t at = 0; at < n_stored; at += CHUNK) {
        size_t n = (size_t)FV_MIN((uint64_t)CHUNK, n_stored - at);
        const void *data = converted;
        FV_TRY(
            fv_progress(h->callbacks, "weights", (double)h->n_written / (double)h->n_values, err));
        if (x->type == FV_TYPE_I64 && !t)
            data = zeros;
        else if (t && t->type == x->type)
            data = (const uint8_t *)t->data + at * size;
        else if (t)
            h->s->kernels.convert[x->type][t->type](
                converted, (const uint8_t *)t->data + at * fv_type_size(t->type), n);
        else {
            values_of(h, x, at, n, values);
            if (x->type == FV_TYPE_F32)
                data = values;
            else
                h->s->kernels.convert[x->type][FV_TYPE_F32](converted, values, n);
        }
        FV_TRY(fv_outfile_write(f, data, n * size, err));
        h->n_written += n;
    }
    for (uint64_t left = (x->n_elems - n_stored) * size; left > 0;) {
        size_t n = (size_t)FV_MIN(left, (uint64_t)sizeof zeros);
        FV_TRY(fv_outfile_write(f, zeros, n, err));
        left -= n;
    }
    if (t)
        fv_tensors_drop(h->s->checkpoint, t);
    return FV_OK;
}

static fv_status write_weights(hf *h, const char *stage, fv_error *err)
{
    fv_outfile f = { 0 };
    fv_status status = FV_OK;
    char *path = fv_path_join(stage, "model.safetensors");
    fv_tensor *list = fv_alloc_zero(h->n, sizeof *list);
    float *values = fv_alloc(CHUNK, sizeof *values);
    uint8_t *converted = fv_alloc(CHUNK, sizeof(float));
    if (!path || !list || !values || !converted) {
        status = fv_fail_memory(err, CHUNK * 2 * sizeof(float), "a buffer for weights");
        goto fail;
    }
    qsort(h->items, h->n, sizeof *h->items, by_type_and_name);
    for (size_t i = 0; i < h->n; i++) {
        const item *x = &h->items[i];
        list[i] = (fv_tensor){ .name = x->name,
                               .type = x->type,
                               .n_dims = x->n_dims,
                               .n_elems = x->n_elems,
                               .n_bytes = x->n_elems * fv_type_size(x->type) };
        memcpy(list[i].shape, x->shape, sizeof list[i].shape);
        h->n_values += x->n_elems;
    }
    FV_TRY_GOTO(fv_outfile_open(&f, path, err));
    FV_TRY_GOTO(fv_tensors_write_header(&f, list, h->n, err));
    for (size_t i = 0; i < h->n; i++)
        FV_TRY_GOTO(write_item(h, &f, &h->items[i], values, converted, err));
    FV_TRY_GOTO(fv_outfile_commit(&f, err));
fail:
    fv_outfile_abandon(&f);
    fv_free(path);
    fv_free(list);
    fv_free(values);
    fv_free(converted);
    return status;
}

/* ---- the folder ---- */

/* What the reference of llava_qwen2 does, which reads no file about images. */
static bool recipe_is_fixed(const fv_recipe *r)
{
    bool fixed = r->fit != FV_FIT_STRETCH && r->filter == FV_FILTER_BICUBIC && !r->n_scale &&
                 r->rescale == 1.0 / 255;
    for (int i = 0; i < 3; i++)
        fixed = fixed && r->mean[i] == 0 && r->std[i] == 1;
    return fixed;
}

/* What the reference of the target cannot be told. */
static fv_status check_expressible(const fv_model *s, const fv_hf_target *t, fv_error *err)
{
    const fv_config *c = &s->config;
    if (t->layout == FV_LAYOUT_LLAVA_QWEN2 && !recipe_is_fixed(&c->recipe))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: image_mean, image_std, rescale_factor, resample or size are not those "
                       "of the llava_qwen2 layout, which cannot state them; export the fast_vlm "
                       "layout",
                       s->name);
    if (t->layout != FV_LAYOUT_FAST_VLM || c->layout == FV_LAYOUT_FAST_VLM)
        return FV_OK;
    bool plain = c->mixer_kernel == 3 && c->down_kernel == 7;
    for (int i = 0; i < c->n_stages; i++)
        plain = plain && c->stage[i].cpe == (i >= 3 ? 7 : 0) && c->stage[i].attention == (i >= 3) &&
                c->stage[i].hidden == 4 * c->stage[i].width;
    return plain
               ? FV_OK
               : fv_fail(
                     err, FV_ERR_UNSUPPORTED, 0,
                     "%s: the vision encoder's kernels, mixers or ratios differ from FastViTHD's, "
                     "which the fast_vlm layout cannot express; export the llava_qwen2 layout",
                     s->name);
}

static const char *dtype_name(const hf *h)
{
    switch (wanted_type(h, h->s->weights.decoder.embed.type)) {
    case FV_TYPE_BF16: return "bfloat16";
    case FV_TYPE_F16: return "float16";
    default: return "float32";
    }
}

static void choose_rows(hf *h)
{
    const fv_model *s = h->s;
    fv_hf_target *t = &h->target;
    t->rows = s->config.n_vocab;
    if (t->layout != FV_LAYOUT_FAST_VLM)
        return;
    t->image_token = fv_tokenizer_find(s->tokenizer, "<image>");
    if (t->image_token < 0)
        t->image_token = fv_tokenizer_size(s->tokenizer);
    if (t->image_token >= t->rows)
        t->rows = (t->image_token + 64) / 64 * 64;
}

fv_status fv_export_hf(const char *model, const fv_hf_options *hf_options, const char *dir,
                       const fv_export_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_hf_options wanted;
    fv_export_options o;
    fv_callbacks callbacks;
    fv_model s;
    fv_outdir out = { 0 };
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&wanted, fv_hf_options, hf_options, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    hf h = { .s = &s, .callbacks = o.callbacks, .dtype = wanted.dtype };
    h.target.layout = wanted.layout == FV_HF_LLAVA_QWEN2 ? FV_LAYOUT_LLAVA_QWEN2
                                                         : FV_LAYOUT_FAST_VLM;
    if (h.dtype != FV_PRECISION_AUTO && !fv_precision_is_float(h.dtype))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "dtype is %s; expected auto, f32, bf16 or f16",
                       fv_precision_name(h.dtype));
    FV_TRY(fv_model_open(
        &s, model, &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = o.callbacks }, err));
    FV_TRY_GOTO(check_expressible(&s, &h.target, err));
    choose_rows(&h);
    h.target.dtype = dtype_name(&h);
    h.target.copy_config = s.config.layout == h.target.layout && h.dtype == FV_PRECISION_AUTO;
    FV_TRY_GOTO(fv_weights_walk(&s.weights, &s.config, add_weight, &h, err));
    FV_TRY_GOTO(add_unused(&h, err));
    FV_TRY_GOTO(fv_outdir_open(&out, dir, o.force, o.callbacks, err));
    FV_TRY_GOTO(fv_hf_write_files(&s, &h.target, out.stage, err));
    FV_TRY_GOTO(write_weights(&h, out.stage, err));
    FV_TRY_GOTO(fv_outdir_commit(&out, err));
    fv_log(o.callbacks, FV_LOG_INFO, "%s: %zu tensors, %s, layout %s", dir, h.n, h.target.dtype,
           h.target.layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2");
fail:
    fv_outdir_abandon(&out);
    fv_free(h.items);
    fv_model_close(&s);
    return status;
}
