/* A packed file's tensors -> fv_weights: pointers into the file, nothing else. See weights.h.
 *
 *     vector      NAME         F32 [n]
 *     matrix      NAME.weight  F32, F16, BF16, Q8_0 or Q4_0 [n, k]; NAME.bias F32 [n]
 *     NAME.weight  I8 [n, k]; NAME.scale F32 [n]; NAME.bias I32 [n]; NAME.inv F32 [k]; NAME.zero I32 [1]
 *     stem        NAME.weight  F32 [n, taps * k]; NAME.bias F32 [n]
 *     depthwise   NAME.weight  F32 [taps, n];     NAME.bias F32 [n]
 *     NAME.weight  I8 [taps, n]; NAME.scale F32 [n]; NAME.bias F32 [n]; NAME.inv F32 [k]; NAME.zero I32 [1] */
#include <stdio.h>
#include <string.h>

#include "model/weights.h"

typedef struct binder {
    fv_weights *w;
    const fv_tensors *tensors;
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
static fv_status need(binder *b, const fv_tensor **out, const fv_weight *t, const char *suffix,
                      size_t rows, size_t columns, type_set types, fv_error *err)
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
                       "%s: tensor %s does not begin at a multiple of 4 bytes",
                       fv_tensors_file(b->tensors, x->file), name);
    b->w->used[x - fv_tensors_at(b->tensors, 0)] = true;
    b->w->n_parameters += x->n_elems;
    b->w->mapped_bytes += x->n_bytes;
    return FV_OK;
}

static fv_status bind_vector(binder *b, const float **out, const fv_weight *t, const char *suffix,
                             fv_error *err)
{
    const fv_tensor *x;
    FV_TRY(need(b, &x, t, suffix, t->n, 0, only_f32, err));
    *out = x->data;
    return FV_OK;
}

/* How the input becomes u8, k channels. */
static fv_status bind_u8(binder *b, fv_u8 *out, const fv_weight *t, fv_error *err)
{
    const fv_tensor *inv, *zero;
    FV_TRY(need(b, &inv, t, ".inv", t->k, 0, only_f32, err));
    FV_TRY(need(b, &zero, t, ".zero", 1, 0, 1u << FV_TYPE_I32, err));
    *out = (fv_u8){ .inv = inv->data, .zero = *(const int32_t *)zero->data };
    if (out->zero < 0 || out->zero > 255)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s is %d, expected 0 to 255",
                       fv_tensors_file(b->tensors, zero->file), zero->name, out->zero);
    return FV_OK;
}

static fv_status bind_matrix(binder *b, const fv_weight *t, fv_error *err)
{
    fv_mat *m = t->slot;
    const fv_tensor *x = NULL;
    bool stem = t->kind == FV_WEIGHT_STEM;
    size_t k = stem ? t->k * t->kernel * t->kernel : t->k;
    type_set types = stem                         ? only_f32
                     : t->part == FV_PART_DECODER ? floats | blocks
                                                  : floats | 1u << FV_TYPE_I8;
    FV_TRY(need(b, &x, t, ".weight", t->n, k, types, err));
    *m = (fv_mat){ .data = x->data, .type = x->type, .n = t->n, .k = k };
    if (x->type == FV_TYPE_I8) {
        FV_TRY(bind_vector(b, &m->mul, t, ".scale", err));
        FV_TRY(need(b, &x, t, ".bias", t->n, 0, 1u << FV_TYPE_I32, err));
        m->bias8 = x->data;
        return bind_u8(b, &m->in, t, err);
    }
    return t->kind == FV_WEIGHT_MATRIX ? FV_OK : bind_vector(b, &m->bias, t, ".bias", err);
}

static fv_status bind_depthwise(binder *b, const fv_weight *t, fv_error *err)
{
    fv_dw *dw = t->slot;
    const fv_tensor *x = NULL;
    FV_TRY(need(b, &x, t, ".weight", (size_t)t->kernel * t->kernel, t->n,
                only_f32 | 1u << FV_TYPE_I8, err));
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

static fv_status bind_one(void *user, const fv_weight *t, fv_error *err)
{
    switch (t->kind) {
    case FV_WEIGHT_VECTOR: return bind_vector(user, t->slot, t, "", err);
    case FV_WEIGHT_DEPTHWISE:
    case FV_WEIGHT_DEPTHWISE_BN: return bind_depthwise(user, t, err);
    default: return bind_matrix(user, t, err);
    }
}

/* Layers that hand u8 to each other are all in int8 or none; convolutions outside them have no int8
 * form. */
static fv_status check_int8(const fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                            fv_error *err)
{
    bool ok = !w->vision.stem1.w8 && !w->vision.expand.w8 && w->vision.stem2.type != FV_TYPE_I8 &&
              w->vision.squeeze.type != FV_TYPE_I8 && w->vision.excite.type != FV_TYPE_I8;
    for (int i = 0; i < c->n_stages; i++) {
        const fv_vision_stage_weights *s = &w->vision.stage[i];
        ok = ok && !s->cpe.w8 && !s->down_dw.w8 == (s->down_pw.type != FV_TYPE_I8);
        for (int j = 0; j < c->stage[i].depth; j++) {
            const fv_ffn *f = &s->block[j].ffn;
            ok = ok && !s->block[j].mixer.w8 && !f->dw.w8 == (f->fc1.type != FV_TYPE_I8) &&
                 !f->dw.w8 == (f->fc2.type != FV_TYPE_I8);
        }
    }
    return ok ? FV_OK
              : fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                        "%s: int8 and wider layers are mixed in a way that this build does not run",
                        fv_tensors_file(tensors, 0));
}

fv_status fv_weights_bind(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                          fv_error *err)
{
    fv_status status = FV_OK;
    binder b = { w, tensors };
    FV_TRY_GOTO(fv_weights_alloc(w, c, err));
    w->used = fv_alloc_zero(fv_tensors_count(tensors), sizeof *w->used);
    if (!w->used) {
        status = fv_fail_memory(err, fv_tensors_count(tensors), "the list of tensors in use");
        goto fail;
    }
    FV_TRY_GOTO(fv_weights_walk(w, c, bind_one, &b, err));
    FV_TRY_GOTO(check_int8(w, c, tensors, err));
    w->tied = c->tied;
    if (c->tied)
        w->decoder.head = w->decoder.embed;
    return FV_OK;
fail:
    fv_weights_free(w);
    return status;
}
