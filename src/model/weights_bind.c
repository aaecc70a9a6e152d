/* A packed file's tensors -> fv_weights: pointers into the file, nothing else. See weights.h.
 *
 *     vector             NAME      F32 [n]
 *     matrix             .weight   F32, F16, BF16, Q8_0 or Q4_0 [n, k]    .bias  F32 [n]
 *     matrix in w8a8     .weight   Q8_0 [n, k], a row's blocks with one scale; .bias as above
 *                        .scale    F32 [n] that scale    .offset  I32 [n] -128 times a row's sum
 *     matrix in int8     .weight   I8 [n, k]    .scale  F32 [n]           .bias  I32 [n]
 *     stem               .weight   F32 [n, taps * k]                      .bias  F32 [n]
 *     depthwise          .weight   F32 [taps, n]                          .bias  F32 [n]
 *     depthwise in int8  .weight   I8 [taps, n]    .scale  F32 [n]        .bias  F32 [n]
 *
 * with, in int8, how the input becomes u8 (fv_u8): .inv F32 [k], .zero I32 [1]. A matrix in w8a16
 * is one in int8 with .zero16 I32 [1] in place of .zero, 256 times as large. */
#include <stdio.h>
#include <string.h>

#include "model/weights.h"

/* What a layer is in, as far as the others of its group are concerned. */
/* Columns of a matrix in I8: its sums stay within 32 bits (kernels.h). */
enum { MOST_K8 = 65536 };

typedef enum layer_kind {
    KIND_CONVOLUTION, /* in f32: beside matrices in floats and in w8a16 */
    KIND_FLOATS,
    KIND_INT8,
    KIND_FINE
} layer_kind;

typedef struct binder {
    fv_weights *w;
    const fv_tensors *tensors;
    int group;       /* the current layer group, -1: none yet */
    layer_kind kind; /* and what its layers so far are in */
} binder;

typedef unsigned type_set; /* bits by fv_type */

static const type_set only_f32 = 1u << FV_TYPE_F32;
static const type_set floats = 1u << FV_TYPE_F32 | 1u << FV_TYPE_F16 | 1u << FV_TYPE_BF16;
static const type_set blocks = 1u << FV_TYPE_Q8_0 | 1u << FV_TYPE_Q4_0;

static const char *set_text(char text[64], type_set set)
{
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < FV_TYPE_COUNT; i++) {
        if (!(set >> i & 1))
            continue;
        set &= ~(1u << i);
        at += (size_t)snprintf(text + at, 64 - at, "%s%s",
                               !at   ? ""
                               : set ? ", "
                                     : " or ",
                               fv_type_name((fv_type)i));
    }
    return text;
}

/* A tensor of exactly this shape and one of these types. */
static fv_status binder_need(binder *b, const fv_tensor **out, const fv_weight *t,
                             const char *suffix, size_t rows, size_t columns, type_set types,
                             fv_error *err)
{
    char name[FV_PACKED_NAME], found[FV_SHAPE_TEXT], wanted[FV_SHAPE_TEXT], set[64];
    uint64_t shape[2] = { rows, columns };
    int n_dims = columns ? 2 : 1;
    fv_weight_packed_name(name, t, suffix);
    fv_shape_text(wanted, shape, n_dims);
    const fv_tensor *x = *out = fv_tensors_find(b->tensors, name);
    if (!x)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s is missing; expected one of shape %s",
                       fv_tensors_file(b->tensors, 0), name, wanted);
    if (x->n_dims != n_dims || memcmp(x->shape, shape, (size_t)n_dims * sizeof *shape) ||
        !(types >> x->type & 1))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s has %s %s, expected %s %s",
                       fv_tensors_file(b->tensors, x->file), name, fv_type_name(x->type),
                       fv_shape_text(found, x->shape, x->n_dims), set_text(set, types), wanted);
    if ((uintptr_t)x->data % 4)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: tensor %s does not start at a multiple of 4 bytes",
                       fv_tensors_file(b->tensors, x->file), name);
    b->w->used[x - fv_tensors_at(b->tensors, 0)] = true;
    b->w->mapped[x - fv_tensors_at(b->tensors, 0)] = true;
    b->w->n_parameters += x->n_elems;
    b->w->mapped_bytes += x->n_bytes;
    return FV_OK;
}

static fv_status bind_vector(binder *b, const float **out, const fv_weight *t, const char *suffix,
                             fv_error *err)
{
    const fv_tensor *x;
    FV_TRY(binder_need(b, &x, t, suffix, t->n, 0, only_f32, err));
    *out = x->data;
    return FV_OK;
}

/* How the input becomes u8, k channels. */
static fv_status bind_u8(binder *b, fv_u8 *out, const fv_weight *t, fv_error *err)
{
    const fv_tensor *inv, *zero;
    char name[FV_PACKED_NAME];
    fv_weight_packed_name(name, t, ".zero16");
    const bool fine = fv_weight_is_matrix(t) && fv_tensors_find(b->tensors, name);
    FV_TRY(binder_need(b, &inv, t, ".inv", t->k, 0, only_f32, err));
    if (fine) {
        char other[FV_PACKED_NAME];
        fv_weight_packed_name(other, t, ".zero");
        if (fv_tensors_find(b->tensors, other))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: has both %s and %s, expected one of them",
                           fv_tensors_file(b->tensors, 0), other, name);
    }
    FV_TRY(binder_need(b, &zero, t, fine ? ".zero16" : ".zero", 1, 0, 1u << FV_TYPE_I32, err));
    const int32_t value = *(const int32_t *)zero->data, step = fine ? 256 : 1;
    if (value < 0 || value > 255 * step || value % step)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s is %d, expected %s",
                       fv_tensors_file(b->tensors, zero->file), zero->name, value,
                       fine ? "a multiple of 256 from 0 to 65280" : "0 to 255");
    *out = (fv_u8){ .inv = inv->data, .zero = value / step, .fine = fine };
    return FV_OK;
}

static fv_status check_columns(const binder *b, const fv_tensor *x, size_t k, fv_error *err)
{
    return k <= MOST_K8 ? FV_OK
                        : fv_fail(err, FV_ERR_FORMAT, 0,
                                  "%s: tensor %s has %zu columns, expected %d at most in 8 bits "
                                  "with a scale a row",
                                  fv_tensors_file(b->tensors, x->file), x->name, k, MOST_K8);
}

/* A matrix in w8a8 has them. */
static fv_status bind_row_scales(binder *b, const fv_weight *t, fv_mat *m, fv_error *err)
{
    char name[FV_PACKED_NAME];
    const fv_tensor *x;
    fv_weight_packed_name(name, t, ".scale");
    if (m->type != FV_TYPE_Q8_0 || !fv_tensors_find(b->tensors, name))
        return FV_OK;
    FV_TRY(bind_vector(b, &m->mul, t, ".scale", err));
    FV_TRY(binder_need(b, &x, t, ".offset", t->n, 0, 1u << FV_TYPE_I32, err));
    m->bias8 = x->data;
    return check_columns(b, x, m->k, err);
}

static fv_status bind_matrix(binder *b, const fv_weight *t, fv_error *err)
{
    fv_mat *m = t->slot;
    const fv_tensor *x = NULL;
    bool stem = t->kind == FV_WEIGHT_STEM;
    size_t k = stem ? t->k * t->kernel * t->kernel : t->k;
    type_set types = stem                         ? only_f32
                     : t->part == FV_PART_DECODER ? floats | blocks
                     : t->group >= 0              ? floats | 1u << FV_TYPE_I8
                                                  : floats;
    FV_TRY(binder_need(b, &x, t, ".weight", t->n, k, types, err));
    *m = (fv_mat){ .data = x->data, .type = x->type, .n = t->n, .k = k };
    if (x->type == FV_TYPE_I8) {
        FV_TRY(check_columns(b, x, k, err));
        FV_TRY(bind_vector(b, &m->mul, t, ".scale", err));
        FV_TRY(binder_need(b, &x, t, ".bias", t->n, 0, 1u << FV_TYPE_I32, err));
        m->bias8 = x->data;
        return bind_u8(b, &m->in, t, err);
    }
    FV_TRY(bind_row_scales(b, t, m, err));
    return t->kind == FV_WEIGHT_MATRIX ? FV_OK : bind_vector(b, &m->bias, t, ".bias", err);
}

static fv_status bind_depthwise(binder *b, const fv_weight *t, fv_error *err)
{
    fv_dw *dw = t->slot;
    const fv_tensor *x = NULL;
    FV_TRY(binder_need(b, &x, t, ".weight", (size_t)t->kernel * t->kernel, t->n,
                       t->group >= 0 ? only_f32 | 1u << FV_TYPE_I8 : only_f32, err));
    *dw = (fv_dw){ .channels = t->k, .mult = (unsigned)(t->n / t->k), .kernel = t->kernel };
    if (x->type == FV_TYPE_I8) {
        dw->w8 = x->data;
        FV_TRY(bind_vector(b, &dw->mul, t, ".scale", err));
        FV_TRY(bind_u8(b, &dw->in, t, err));
    } else {
        dw->w = x->data;
    }
    return bind_vector(b, &dw->bias, t, ".bias", err);
}

static layer_kind kind_of(const fv_weight *t)
{
    const bool int8 = fv_weight_is_int8(t);
    if (fv_weight_is_depthwise(t))
        return int8 ? KIND_INT8 : KIND_CONVOLUTION;
    return !int8 ? KIND_FLOATS : ((const fv_mat *)t->slot)->in.fine ? KIND_FINE : KIND_INT8;
}

/* The layers of a group hand u8 to each other: all are in int8 or none; and its matrices are in
 * w8a16 together. They follow each other in the walk. */
static fv_status check_group(binder *b, const fv_weight *t, fv_error *err)
{
    static const char *const names[] = { "f32", "floats", "int8", "w8a16" };
    char name[FV_PACKED_NAME];
    const layer_kind kind = kind_of(t);
    fv_weight_packed_name(name, t, ".weight");
    if (t->group < 0)
        return FV_OK;
    if (t->group != b->group) {
        b->group = t->group;
        b->kind = kind;
    }
    if (kind == b->kind || (kind == KIND_CONVOLUTION && b->kind != KIND_INT8))
        return FV_OK;
    if (b->kind == KIND_CONVOLUTION && kind != KIND_INT8) {
        b->kind = kind;
        return FV_OK;
    }
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: %s is in %s, other layers of its group are in %s; a layer group is in int8 "
                   "or w8a16 as a whole or not at all",
                   fv_tensors_file(b->tensors, 0), name, names[kind], names[b->kind]);
}

static fv_status bind_one(void *user, const fv_weight *t, fv_error *err)
{
    if (t->kind == FV_WEIGHT_VECTOR)
        return bind_vector(user, t->slot, t, "", err);
    FV_TRY(fv_weight_is_depthwise(t) ? bind_depthwise(user, t, err) : bind_matrix(user, t, err));
    return check_group(user, t, err);
}

fv_status fv_weights_bind(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                          fv_error *err)
{
    fv_status status = FV_OK;
    binder b = { .w = w, .tensors = tensors, .group = -1 };
    FV_TRY_GOTO(fv_weights_alloc(w, c, err));
    FV_TRY_GOTO(fv_weights_begin_use(w, tensors, err));
    FV_TRY_GOTO(fv_weights_walk(w, c, bind_one, &b, err));
    w->tied = c->tied;
    if (c->tied)
        w->decoder.head = w->decoder.embed;
    return FV_OK;
fail:
    fv_weights_free(w);
    return status;
}
