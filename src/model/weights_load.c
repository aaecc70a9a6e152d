/* A checkpoint's tensors -> fv_weights. See weights.h.
 *
 * Matrices stay where they are mapped when that serves; vectors and depthwise kernels are small
 * and become f32, depthwise ones with the taps first. The fusing of training-time blocks follows
 * docs/model.md, 3.6; it works in double and rounds once. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/report.h"
#include "model/weights.h"

#define BN_EPS 1e-5

/* ---- memory of the model: a chain of blocks, carved in order ----------------------------- */

enum { BLOCK_BYTES = 8 << 20 };

typedef struct fv_block_list {
    struct fv_block_list *next;
    uint8_t *data;
    size_t used, size;
} block_list;

typedef struct loader {
    fv_weights *w;
    const fv_config *c;
    const fv_tensors *tensors;
    const fv_weight_options *options;
    const char *odd_name; /* first tensor with a value that is not finite */
    uint64_t n_odd;
    uint64_t n_stored; /* values in all tensors, at least 1 */
} loader;

static void *weights_take(fv_weights *w, size_t n_bytes, fv_error *err)
{
    block_list *b = w->owned;
    n_bytes = (n_bytes + 63) / 64 * 64;
    if (!b || b->size - b->used < n_bytes) {
        size_t size = FV_MAX(n_bytes, (size_t)BLOCK_BYTES);
        b = fv_alloc_zero(1, sizeof *b);
        if (!b || !(b->data = fv_pages_alloc(size))) {
            fv_free(b);
            fv_fail_memory(err, size, "weights");
            return NULL;
        }
        b->size = size;
        b->next = w->owned;
        w->owned = b;
        w->owned_bytes += size;
    }
    b->used += n_bytes;
    return b->data + b->used - n_bytes;
}

/* ---- reading a tensor -------------------------------------------------------------------- */

static const fv_tensor *look_up(loader *l, const char *name)
{
    const fv_tensor *x = fv_tensors_find(l->tensors, name);
    if (x)
        l->w->used[x - fv_tensors_at(l->tensors, 0)] = true;
    return x;
}

static bool is_float(fv_type type)
{
    return type == FV_TYPE_F32 || type == FV_TYPE_F16 || type == FV_TYPE_BF16;
}

/* Finds a tensor of this shape; trailing dimensions of 1 may be there or not. */
static fv_status loader_need(loader *l, const fv_tensor **out, const char *name,
                             const uint64_t *shape, int n_dims, fv_error *err)
{
    char found[FV_SHAPE_TEXT], wanted[FV_SHAPE_TEXT];
    const fv_tensor *x = *out = look_up(l, name);
    fv_shape_text(wanted, shape, n_dims);
    if (!x)
        return fv_fail(err, FV_ERR_FORMAT, 0, "tensor %s is missing; expected one of shape %s",
                       name, wanted);
    bool same = x->rank <= FV_TENSOR_MAX_DIMS;
    for (int i = 0; i < FV_TENSOR_MAX_DIMS; i++)
        same = same && (i < x->n_dims ? x->shape[i] : 1) == (i < n_dims ? shape[i] : 1);
    if (!same || !is_float(x->type))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: tensor %s has %s %s, expected F32, F16 or BF16 %s",
                       fv_tensors_file(l->tensors, x->file), name, fv_tensor_type_name(x),
                       fv_shape_text(found, x->shape, x->n_dims), wanted);
    l->w->n_parameters += x->n_elems;
    return FV_OK;
}

static float value_at(const fv_tensor *x, size_t i)
{
    uint16_t h;
    float f;
    const uint8_t *p = x->data;
    if (x->type == FV_TYPE_F32) {
        memcpy(&f, p + 4 * i, 4);
        return f;
    }
    memcpy(&h, p + 2 * i, 2);
    return x->type == FV_TYPE_F16 ? fv_f16_to_f32(h) : fv_bf16_to_f32(h);
}

static void note_odd(loader *l, const char *name, uint64_t n)
{
    if (n && !l->odd_name)
        l->odd_name = name;
    l->n_odd += n;
}

/* A vector as f32. */
static fv_status load_vector(loader *l, const float **out, const char *name, size_t n,
                             fv_error *err)
{
    const fv_tensor *x;
    uint64_t shape[1] = { n }, odd = 0;
    FV_TRY(loader_need(l, &x, name, shape, 1, err));
    float *v = weights_take(l->w, n * sizeof *v, err);
    if (!v)
        return FV_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        v[i] = value_at(x, i);
        odd += !isfinite(v[i]);
    }
    note_odd(l, x->name, odd);
    *out = v;
    return FV_OK;
}

/* ---- convolutions in double: [n, per_group, kernel, kernel] and [n] ---------------------- */

typedef struct conv {
    double *w, *b;
    size_t n, per_group;
    unsigned kernel;
} conv;

static fv_status conv_new(conv *v, size_t n, size_t per_group, unsigned kernel, fv_error *err)
{
    *v = (conv){ .n = n, .per_group = per_group, .kernel = kernel };
    v->w = fv_alloc_zero(n * per_group, sizeof *v->w * kernel * kernel);
    v->b = fv_alloc_zero(n, sizeof *v->b);
    return v->w && v->b ? FV_OK
                        : fv_fail_memory(err, n * per_group * kernel * kernel * sizeof *v->w,
                                         "a convolution");
}

static void conv_free(conv *v)
{
    fv_free(v->w);
    fv_free(v->b);
}

/* y = scale x + shift of a BatchNorm in eval mode. */
static fv_status load_bn(loader *l, const char *base, size_t n, double *scale, double *shift,
                         fv_error *err)
{
    static const char *const part[4] = { "weight", "bias", "running_mean", "running_var" };
    const fv_tensor *x[4];
    uint64_t shape[1] = { n };
    char name[FV_WEIGHT_NAME + 64];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s.%s", base, part[i]);
        FV_TRY(loader_need(l, &x[i], name, shape, 1, err));
    }
    for (size_t i = 0; i < n; i++) {
        scale[i] = value_at(x[0], i) / sqrt((double)value_at(x[3], i) + BN_EPS);
        shift[i] = value_at(x[1], i) - value_at(x[2], i) * scale[i];
        if (!isfinite(scale[i]) || !isfinite(shift[i]))
            note_odd(l, x[0]->name, 1);
    }
    return FV_OK;
}

/* v += the convolution WEIGHT, BIAS (kernel k at the centre of v's), followed by the BatchNorm bn;
 * bias and bn may be NULL. */
static fv_status add_conv(loader *l, conv *v, const char *weight, const char *bias, const char *bn,
                          unsigned k, fv_error *err)
{
    const fv_tensor *x, *bias_x = NULL;
    uint64_t shape[4] = { v->n, v->per_group, k, k }, bias_shape[1] = { v->n };
    fv_status status = FV_OK;
    double *scale = fv_alloc(2 * v->n, sizeof *scale);
    if (!scale)
        return fv_fail_memory(err, 2 * v->n * sizeof *scale, "a BatchNorm");
    double *shift = scale + v->n;
    for (size_t i = 0; i < v->n; i++) {
        scale[i] = 1;
        shift[i] = 0;
    }
    FV_TRY_GOTO(loader_need(l, &x, weight, shape, 4, err));
    if (bias)
        FV_TRY_GOTO(loader_need(l, &bias_x, bias, bias_shape, 1, err));
    if (bn)
        FV_TRY_GOTO(load_bn(l, bn, v->n, scale, shift, err));
    unsigned edge = (v->kernel - k) / 2;
    uint64_t odd = 0;
    for (size_t o = 0; o < v->n; o++) {
        for (size_t i = 0; i < v->per_group; i++)
            for (unsigned y = 0; y < k; y++)
                for (unsigned z = 0; z < k; z++) {
                    float f = value_at(x, ((o * v->per_group + i) * k + y) * k + z);
                    odd += !isfinite(f);
                    v->w[((o * v->per_group + i) * v->kernel + y + edge) * v->kernel + z + edge] +=
                        scale[o] * f;
                }
        v->b[o] += shift[o] + (bias_x ? scale[o] * value_at(bias_x, o) : 0);
    }
    note_odd(l, x->name, odd);
fail:
    fv_free(scale);
    return status;
}

/* v += gain[o] at the centre tap of the input channel that output o sees of itself. */
static void add_identity(conv *v, const double *gain)
{
    for (size_t o = 0; o < v->n; o++) {
        unsigned middle = v->kernel / 2;
        size_t i = o % v->per_group;
        v->w[((o * v->per_group + i) * v->kernel + middle) * v->kernel + middle] += gain ? gain[o]
                                                                                         : 1.0;
    }
}

static bool loader_has(loader *l, const char *base, const char *rest)
{
    char name[FV_WEIGHT_NAME + 64];
    snprintf(name, sizeof name, "%s%s", base, rest);
    return fv_tensors_find(l->tensors, name) != NULL;
}

/* base.conv followed by base.bn */
static fv_status add_conv_bn(loader *l, conv *v, const char *base, unsigned k, fv_error *err)
{
    char weight[FV_WEIGHT_NAME + 64], bn[FV_WEIGHT_NAME + 64];
    snprintf(weight, sizeof weight, "%s.conv.weight", base);
    snprintf(bn, sizeof bn, "%s.bn", base);
    return add_conv(l, v, weight, NULL, bn, k, err);
}

/* Sum of the branches base.rbr_conv.{i}, base.rbr_scale (1x1) and base.rbr_skip (BatchNorm
 * alone). */
static fv_status add_mobileone(loader *l, conv *v, const char *base, fv_error *err)
{
    char name[FV_WEIGHT_NAME + 32];
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "%s.rbr_conv.%d", base, i);
        if (!loader_has(l, name, ".conv.weight"))
            break;
        FV_TRY(add_conv_bn(l, v, name, v->kernel, err));
    }
    snprintf(name, sizeof name, "%s.rbr_scale", base);
    if (loader_has(l, name, ".conv.weight"))
        FV_TRY(add_conv_bn(l, v, name, 1, err));
    snprintf(name, sizeof name, "%s.rbr_skip", base);
    if (loader_has(l, name, ".weight")) {
        double *scale = fv_alloc(2 * v->n, sizeof *scale);
        if (!scale)
            return fv_fail_memory(err, 2 * v->n * sizeof *scale, "a BatchNorm");
        fv_status status = load_bn(l, name, v->n, scale, scale + v->n, err);
        if (status == FV_OK) {
            add_identity(v, scale);
            for (size_t o = 0; o < v->n; o++)
                v->b[o] += scale[v->n + o];
        }
        fv_free(scale);
        FV_TRY(status);
    }
    return FV_OK;
}

/* x + layer_scale (mixer(x) - norm(x)) */
static fv_status add_repmixer(loader *l, conv *v, const char *base, fv_error *err)
{
    char name[FV_WEIGHT_NAME + 32];
    conv norm = { 0 };
    fv_status status = FV_OK;
    size_t taps = (size_t)v->kernel * v->kernel;
    const fv_tensor *scale = NULL;
    uint64_t shape[1] = { v->n };
    FV_TRY_GOTO(conv_new(&norm, v->n, 1, v->kernel, err));
    snprintf(name, sizeof name, "%s.mixer", base);
    FV_TRY_GOTO(add_mobileone(l, v, name, err));
    snprintf(name, sizeof name, "%s.norm", base);
    FV_TRY_GOTO(add_mobileone(l, &norm, name, err));
    if (loader_has(l, base, ".layer_scale")) {
        snprintf(name, sizeof name, "%s.layer_scale", base);
        FV_TRY_GOTO(loader_need(l, &scale, name, shape, 1, err));
    }
    for (size_t o = 0; o < v->n; o++) {
        double s = scale ? value_at(scale, o) : 1.0;
        for (size_t t = 0; t < taps; t++)
            v->w[o * taps + t] = s * (v->w[o * taps + t] - norm.w[o * taps + t]);
        v->b[o] = s * (v->b[o] - norm.b[o]);
    }
    add_identity(v, NULL);
fail:
    conv_free(&norm);
    return status;
}

/* base.lkb_origin plus base.small_conv, a 3x3 */
static fv_status add_large_kernel(loader *l, conv *v, const char *base, fv_error *err)
{
    char name[FV_WEIGHT_NAME + 32];
    snprintf(name, sizeof name, "%s.lkb_origin", base);
    FV_TRY(add_conv_bn(l, v, name, v->kernel, err));
    snprintf(name, sizeof name, "%s.small_conv", base);
    return loader_has(l, name, ".conv.weight") ? add_conv_bn(l, v, name, 3, err) : FV_OK;
}

/* pe(x) + x */
static fv_status add_cpe(loader *l, conv *v, const char *base, fv_error *err)
{
    char weight[FV_WEIGHT_NAME + 32], bias[FV_WEIGHT_NAME + 32];
    snprintf(weight, sizeof weight, "%s.pe.weight", base);
    snprintf(bias, sizeof bias, "%s.pe.bias", base);
    FV_TRY(add_conv(l, v, weight, bias, NULL, v->kernel, err));
    add_identity(v, NULL);
    return FV_OK;
}

/* The fused tensors when they are there, otherwise the training-time branches, fused. */
static fv_status load_conv(loader *l, conv *v, const fv_weight *t, size_t per_group, fv_error *err)
{
    const char *fused = t->name[l->c->layout], *last = strrchr(fused, '.');
    char base[FV_WEIGHT_NAME], weight[FV_WEIGHT_NAME + 16], bias[FV_WEIGHT_NAME + 16];
    FV_TRY(conv_new(v, t->n, per_group, t->kernel, err));
    snprintf(weight, sizeof weight, "%s.weight", fused);
    snprintf(bias, sizeof bias, "%s.bias", fused);
    if (t->kind == FV_WEIGHT_DEPTHWISE_BN)
        return add_conv_bn(l, v, fused, t->kernel, err);
    snprintf(base, sizeof base, "%.*s", last ? (int)(last - fused) : 0, fused);
    if (!fv_tensors_find(l->tensors, weight)) {
        if (t->train == FV_TRAIN_MOBILEONE && (loader_has(l, base, ".rbr_conv.0.conv.weight") ||
                                               loader_has(l, base, ".rbr_skip.weight")))
            return add_mobileone(l, v, base, err);
        if (t->train == FV_TRAIN_REPMIXER && loader_has(l, base, ".norm.rbr_skip.weight"))
            return add_repmixer(l, v, base, err);
        if (t->train == FV_TRAIN_LARGE_KERNEL && loader_has(l, base, ".lkb_origin.conv.weight"))
            return add_large_kernel(l, v, base, err);
        if (t->train == FV_TRAIN_CPE && loader_has(l, base, ".pe.weight"))
            return add_cpe(l, v, base, err);
    }
    return add_conv(l, v, weight, bias, NULL, t->kernel, err);
}

static const float *to_f32(loader *l, const double *x, size_t n, fv_error *err)
{
    float *y = weights_take(l->w, n * sizeof *y, err);
    for (size_t i = 0; y && i < n; i++)
        y[i] = (float)x[i];
    return y;
}

static fv_status load_depthwise(loader *l, const fv_weight *t, fv_error *err)
{
    fv_dw *out = t->slot;
    size_t taps = (size_t)t->kernel * t->kernel;
    conv v = { 0 };
    fv_status status = FV_OK;
    float *w = NULL;
    FV_TRY_GOTO(load_conv(l, &v, t, 1, err));
    w = weights_take(l->w, taps * t->n * sizeof *w, err);
    *out = (fv_dw){ .w = w,
                    .bias = to_f32(l, v.b, t->n, err),
                    .channels = t->k,
                    .mult = (unsigned)(t->n / t->k),
                    .kernel = t->kernel };
    if (!w || !out->bias) {
        status = FV_ERR_MEMORY;
        goto fail;
    }
    for (size_t o = 0; o < t->n; o++)
        for (size_t tap = 0; tap < taps; tap++)
            w[tap * t->n + o] = (float)v.w[o * taps + tap];
fail:
    conv_free(&v);
    return status;
}

/* [n, 3, 3, 3] -> rows over (y, x, rgb) */
static fv_status load_stem(loader *l, const fv_weight *t, fv_error *err)
{
    fv_mat *out = t->slot;
    size_t taps = (size_t)t->kernel * t->kernel;
    conv v = { 0 };
    fv_status status = FV_OK;
    float *w = NULL;
    FV_TRY_GOTO(load_conv(l, &v, t, t->k, err));
    w = weights_take(l->w, taps * t->k * t->n * sizeof *w, err);
    *out = (fv_mat){ .data = w,
                     .type = FV_TYPE_F32,
                     .n = t->n,
                     .k = taps * t->k,
                     .bias = to_f32(l, v.b, t->n, err) };
    if (!w || !out->bias) {
        status = FV_ERR_MEMORY;
        goto fail;
    }
    for (size_t o = 0; o < t->n; o++)
        for (size_t i = 0; i < t->k; i++)
            for (size_t tap = 0; tap < taps; tap++)
                w[(o * taps + tap) * t->k + i] = (float)v.w[(o * t->k + i) * taps + tap];
fail:
    conv_free(&v);
    return status;
}

/* ---- matrices ---------------------------------------------------------------------------- */

enum { CHUNK = 1 << 19 }; /* elements a task converts or checks */

typedef struct chunk_job {
    const fv_kernels *k;
    const uint8_t *src;
    uint8_t *dst; /* NULL: only check */
    fv_type from, to;
    size_t n;
    uint64_t n_odd;
} chunk_job;

static void run_chunk(void *user, size_t task, unsigned worker)
{
    chunk_job *j = user;
    size_t at = task * CHUNK, n = FV_MIN((size_t)CHUNK, j->n - at);
    const uint8_t *src = j->src + at * fv_type_size(j->from);
    uint64_t odd = 0;
    (void)worker;
    if (j->from == FV_TYPE_F32) {
        for (size_t i = 0; i < n; i++) {
            uint32_t u;
            memcpy(&u, src + 4 * i, 4);
            odd += (u & 0x7f800000u) == 0x7f800000u;
        }
    } else {
        uint16_t mask = j->from == FV_TYPE_F16 ? 0x7c00 : 0x7f80;
        uint32_t count = 0;
        for (size_t i = 0; i < n; i++) {
            uint16_t u;
            memcpy(&u, src + 2 * i, 2);
            count += (u & mask) == mask;
        }
        odd = count;
    }
    if (odd)
        __atomic_fetch_add(&j->n_odd, odd, __ATOMIC_RELAXED);
    if (j->dst)
        j->k->convert[j->to][j->from](j->dst + at * fv_type_size(j->to), src, n);
}

/* A matrix stays where it is mapped when its type serves: as asked for, or widened to f32 as it is
 * read. */
static bool matrix_stays(const fv_tensor *x, fv_type wanted)
{
    bool aligned = (uintptr_t)x->data % fv_type_size(x->type) == 0;
    return aligned && (x->type == wanted || wanted == FV_TYPE_F32);
}

static fv_status load_matrix(loader *l, const fv_weight *t, fv_error *err)
{
    fv_mat *out = t->slot;
    const fv_weight_options *o = l->options;
    fv_type wanted = t->part == FV_PART_DECODER ? o->decoder : o->vision;
    char name[FV_WEIGHT_NAME + 16];
    const fv_tensor *x = NULL;
    uint64_t shape[2] = { t->n, t->k };
    snprintf(name, sizeof name, "%s.weight", t->name[l->c->layout]);
    *out = (fv_mat){ .n = t->n, .k = t->k };
    /* a 1x1 convolution to fuse */
    if (t->train != FV_TRAIN_NONE && !fv_tensors_find(l->tensors, name)) {
        conv v = { 0 };
        fv_status status = load_conv(l, &v, t, t->k, err);
        if (status == FV_OK) {
            out->type = FV_TYPE_F32;
            out->data = to_f32(l, v.w, t->n * t->k, err);
            out->bias = to_f32(l, v.b, t->n, err);
            status = out->data && out->bias ? FV_OK : FV_ERR_MEMORY;
        }
        conv_free(&v);
        return status;
    }
    FV_TRY(loader_need(l, &x, name, shape, 2, err));
    bool mapped = matrix_stays(x, wanted);
    if (wanted == FV_TYPE_F32)
        wanted = x->type; /* widened as it is read */
    chunk_job job = {
        .k = o->kernels, .src = x->data, .from = x->type, .to = wanted, .n = x->n_elems
    };
    if (!mapped && !(job.dst = weights_take(l->w, x->n_elems * fv_type_size(wanted), err)))
        return FV_ERR_MEMORY;
    fv_pool_run(o->pool, (x->n_elems + CHUNK - 1) / CHUNK, run_chunk, &job);
    note_odd(l, x->name, job.n_odd);
    out->data = mapped ? x->data : job.dst;
    out->type = wanted;
    l->w->mapped[x - fv_tensors_at(l->tensors, 0)] = mapped;
    if (mapped)
        l->w->mapped_bytes += x->n_bytes;
    else
        fv_tensors_drop(l->tensors, x);
    if (t->kind == FV_WEIGHT_MATRIX_BIAS) {
        snprintf(name, sizeof name, "%s.bias", t->name[l->c->layout]);
        FV_TRY(load_vector(l, &out->bias, name, t->n, err));
    }
    return FV_OK;
}

static fv_status load_one(void *user, const fv_weight *t, fv_error *err)
{
    loader *l = user;
    /* by what the weights before have read: as good as all when the last one begins */
    FV_TRY(fv_progress(l->options->callbacks, "open",
                       (double)l->w->n_parameters / (double)l->n_stored, err));
    switch (t->kind) {
    case FV_WEIGHT_VECTOR: return load_vector(l, t->slot, t->name[l->c->layout], t->n, err);
    case FV_WEIGHT_STEM: return load_stem(l, t, err);
    case FV_WEIGHT_DEPTHWISE:
    case FV_WEIGHT_DEPTHWISE_BN: return load_depthwise(l, t, err);
    default: return load_matrix(l, t, err);
    }
}

fv_status fv_weights_load(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                          const fv_weight_options *options, fv_error *err)
{
    fv_status status = FV_OK;
    fv_config config = *c;
    /* An untied model without a stored head uses the embedding. [docs/model.md, 9.1] */
    if (!fv_tensors_find(tensors, "lm_head.weight"))
        config.tied = true;
    FV_TRY_GOTO(fv_weights_alloc(w, &config, err));
    FV_TRY_GOTO(fv_weights_begin_use(w, tensors, err));
    loader l = { .w = w, .c = &config, .tensors = tensors, .options = options, .n_stored = 1 };
    for (size_t i = 0; i < fv_tensors_count(tensors); i++)
        if (is_float(fv_tensors_at(tensors, i)->type))
            l.n_stored += fv_tensors_at(tensors, i)->n_elems;
    FV_TRY_GOTO(fv_weights_walk(w, &config, load_one, &l, err));
    w->tied = config.tied;
    if (config.tied)
        w->decoder.head = w->decoder.embed;
    if (l.n_odd)
        fv_log(options->callbacks, FV_LOG_WARNING,
               "%" PRIu64 " weights are NaN or infinite, the first in tensor %s: answers will be "
               "wrong; fetch the checkpoint again",
               l.n_odd, l.odd_name);
    return FV_OK;
fail:
    fv_weights_free(w);
    return status;
}

/* ---- what loading would take ------------------------------------------------------------- */

typedef struct measurer {
    fv_weights *w;
    const fv_config *c;
    const fv_tensors *tensors;
    const fv_weight_options *options;
    size_t room; /* left in the last block */
} measurer;

/* weights_take without taking. */
static void measurer_take(measurer *m, size_t n_bytes)
{
    n_bytes = (n_bytes + 63) / 64 * 64;
    if (m->room < n_bytes) {
        m->room = FV_MAX(n_bytes, (size_t)BLOCK_BYTES);
        m->w->owned_bytes += m->room;
    }
    m->room -= n_bytes;
}

static fv_status measurer_take_matrix(measurer *m, const fv_weight *t, fv_error *err)
{
    char name[FV_WEIGHT_NAME + 16];
    const fv_weight_options *o = m->options;
    fv_type wanted = t->part == FV_PART_DECODER ? o->decoder : o->vision;
    snprintf(name, sizeof name, "%s.weight", t->name[m->c->layout]);
    const fv_tensor *x = fv_tensors_find(m->tensors, name);
    if (x && !is_float(x->type))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s has %s, expected F32, F16 or BF16",
                       fv_tensors_file(m->tensors, x->file), name, fv_tensor_type_name(x));
    fv_type type = !x ? FV_TYPE_F32 : wanted == FV_TYPE_F32 ? x->type : wanted;
    *(fv_mat *)t->slot = (fv_mat){ .type = type, .n = t->n, .k = t->k };
    if (!x) { /* to fuse from its branches, with a bias */
        measurer_take(m, t->n * t->k * sizeof(float));
        measurer_take(m, t->n * sizeof(float));
    } else if (matrix_stays(x, wanted)) {
        m->w->mapped_bytes += x->n_bytes;
    } else {
        measurer_take(m, (size_t)x->n_elems * fv_type_size(type));
    }
    if (x && t->kind == FV_WEIGHT_MATRIX_BIAS)
        measurer_take(m, t->n * sizeof(float));
    return FV_OK;
}

static fv_status measure_one(void *user, const fv_weight *t, fv_error *err)
{
    measurer *m = user;
    size_t taps = (size_t)t->kernel * t->kernel;
    switch (t->kind) {
    case FV_WEIGHT_VECTOR: measurer_take(m, t->n * sizeof(float)); break;
    case FV_WEIGHT_STEM:
        *(fv_mat *)t->slot = (fv_mat){ .type = FV_TYPE_F32, .n = t->n, .k = taps * t->k };
        measurer_take(m, taps * t->n * t->k * sizeof(float));
        measurer_take(m, t->n * sizeof(float));
        break;
    case FV_WEIGHT_DEPTHWISE:
    case FV_WEIGHT_DEPTHWISE_BN:
        *(fv_dw *)t->slot =
            (fv_dw){ .channels = t->k, .mult = (unsigned)(t->n / t->k), .kernel = t->kernel };
        measurer_take(m, taps * t->n * sizeof(float));
        measurer_take(m, t->n * sizeof(float));
        break;
    default: return measurer_take_matrix(m, t, err);
    }
    return FV_OK;
}

fv_status fv_weights_measure(fv_weights *w, const fv_config *c, const fv_tensors *tensors,
                             const fv_weight_options *options, fv_error *err)
{
    fv_config config = *c;
    measurer m = { .w = w, .c = &config, .tensors = tensors, .options = options };
    if (!fv_tensors_find(tensors, "lm_head.weight"))
        config.tied = true;
    fv_status status = fv_weights_alloc(w, &config, err);
    if (status == FV_OK)
        status = fv_weights_begin_use(w, tensors, err);
    if (status == FV_OK)
        status = fv_weights_walk(w, &config, measure_one, &m, err);
    w->tied = config.tied;
    if (config.tied)
        w->decoder.head = w->decoder.embed;
    if (status != FV_OK)
        fv_weights_free(w);
    return status;
}

fv_status fv_weights_begin_use(fv_weights *w, const fv_tensors *tensors, fv_error *err)
{
    size_t n = fv_tensors_count(tensors);
    w->used = fv_alloc_zero(n, sizeof *w->used);
    w->mapped = fv_alloc_zero(n, sizeof *w->mapped);
    return w->used && w->mapped ? FV_OK : fv_fail_memory(err, 2 * n, "the list of tensors in use");
}

uint64_t fv_weights_owned_bytes(const fv_weights *w)
{
    uint64_t sum = 0;
    for (const block_list *b = w->owned; b; b = b->next)
        sum += b->size;
    return sum;
}

fv_status fv_weights_lock(const fv_weights *w, fv_error *err)
{
    for (const block_list *b = w->owned; b; b = b->next)
        FV_TRY(fv_pages_lock(b->data, b->size, err));
    return FV_OK;
}

void fv_weights_free(fv_weights *w)
{
    for (block_list *b = w->owned, *next; b; b = next) {
        next = b->next;
        fv_pages_free(b->data, b->size);
        fv_free(b);
    }
    fv_free(w->used);
    fv_free(w->mapped);
    fv_free(w->blocks);
    fv_free(w->decoder.layer);
    *w = (fv_weights){ 0 };
}
