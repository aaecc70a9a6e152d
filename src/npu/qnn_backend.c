/* The backend of graph/ that makes QNN nodes. See qnn_backend.h.
 *
 * Everything is [1, height, width, channels], rows of a projector or a decoder too, so that a
 * linear layer is a 1x1 Conv2d and nothing is ever transposed but the operands of attention. q, k
 * and v are three convolutions. Folded into weights: the layer scale, 1 / sqrt(d) into q.
 *
 * A convolution whose channels have two outputs each is a grouped Conv2d: DepthWiseConv2d computes
 * it wrongly in f16 on large maps (docs/npu.md). */
#include "npu/qnn_backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/list.h"
#include "npu/npu_weights.h"

enum {
    MAX_IN = 3,
    MAX_PARAMS = 4,
    MADE_INPUTS = 3,                     /* cos, sin, the mask */
    PIECE_BYTES = (16 << 20) - 1,        /* of a layer's weights, */
    PIECE_OUTPUTS = ((64 << 10) - 1) / 2 /* and outputs in f16 of a row: see piece_outputs */
};

typedef struct qnn_backend {
    fv_qnn *q;
    const fv_npu_plan *plan;
    const fv_kernels *k;
    fv_qnn_model *out;
    const bool *show;        /* by index of the value; NULL: none */
    fv_qnn_weights *weights; /* NULL: none are shared */
    uint32_t real;           /* type of floats: FV_QNN_F16 or FV_QNN_F32 */
    fv_qnn_tensor *made;     /* by index of the value: as its node writes it */
    fv_qnn_tensor *other[2]; /* converted to 8, to 16 bits; name NULL: not yet */
    fv_error *err;
} qnn_backend;

/* ---- memory and names -------------------------------------------------------------------- */

static fv_status backend_take(qnn_backend *b, void *pointer, size_t count, size_t size)
{
    void *block = fv_region_take(&b->out->region, count, size);
    memcpy(pointer, &block, sizeof block);
    return block ? FV_OK : fv_fail_memory(b->err, count * size, "a graph for the NPU");
}

static const char *backend_text(qnn_backend *b, const char *format, ...) FV_PRINTF(2, 3);
static const char *backend_text(qnn_backend *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = fv_region_text(&b->out->region, format, args);
    va_end(args);
    return text;
}

/* ---- tensors ----------------------------------------------------------------------------- */

typedef struct shape {
    uint32_t rank, dim[4];
} shape;

#define SHAPE(...)                                                              \
    (shape)                                                                     \
    {                                                                           \
        sizeof((uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), { __VA_ARGS__ } \
    }

/* How a value lies: maps and heads as they are, rows as a map of one line. */
static shape value_shape(const fv_value *v)
{
    shape s = { .rank = 4 };
    for (int i = 0; i < v->n_dims; i++)
        s.dim[4 - v->n_dims + i] = (uint32_t)v->dim[i].n;
    for (int i = 0; i < 4 - v->n_dims; i++)
        s.dim[i] = 1;
    return s;
}

static fv_qnn_tensor tensor_of(const char *name, uint32_t kind, uint32_t type)
{
    return (fv_qnn_tensor){ .version = 1,
                            .name = name,
                            .kind = kind,
                            .type = type,
                            .quant = { .defined = FV_QNN_UNDEFINED, .kind = FV_QNN_UNDEFINED } };
}

static void tensor_encode(fv_qnn_tensor *t, fv_qnn_encoding e)
{
    t->quant = (fv_qnn_quant){ .defined = FV_QNN_DEFINED, .kind = FV_QNN_SCALE_OFFSET, .one = e };
}

static fv_status tensor_create(qnn_backend *b, fv_qnn_tensor *t, shape s)
{
    if (!t->name)
        return fv_fail_memory(b->err, 64, "a name");
    FV_TRY(backend_take(b, &t->dims, 4, sizeof *t->dims));
    memcpy(t->dims, s.dim, sizeof s.dim);
    t->rank = s.rank;
    b->out->n_tensors++;
    return fv_qnn_tensor_create(b->q, t, b->err);
}

static uint32_t width_type(const qnn_backend *b, uint8_t width)
{
    return width == FV_NPU_FLOAT ? b->real : width == FV_NPU_WIDE ? FV_QNN_UQ16 : FV_QNN_UQ8;
}

static fv_qnn_encoding format_of(const fv_npu_formats *f, uint8_t width)
{
    return width == FV_NPU_WIDE ? f->u16 : f->u8;
}

static uint32_t shown_kind(const qnn_backend *b, const fv_value *v)
{
    return b->show && b->show[v->index] ? FV_QNN_OUTPUT : FV_QNN_NATIVE;
}

/* An activation in a width; f NULL in floats. kind: shown_kind for a value of the graph. */
static fv_status activation_create(qnn_backend *b, fv_qnn_tensor *t, const char *name, shape s,
                                   uint32_t kind, uint8_t width, const fv_npu_formats *f)
{
    *t = tensor_of(name, kind, width_type(b, width));
    if (width != FV_NPU_FLOAT)
        tensor_encode(t, format_of(f, width));
    return tensor_create(b, t, s);
}

/* Weights or parameters, whose data the region holds. */
static fv_status static_create(qnn_backend *b, fv_qnn_tensor *t, const char *name, uint32_t type,
                               shape s, void *data, size_t n_bytes)
{
    *t = tensor_of(name, FV_QNN_STATIC, type);
    t->buffer = (fv_qnn_buffer){ data, (uint32_t)n_bytes };
    return tensor_create(b, t, s);
}

/* ---- nodes ------------------------------------------------------------------------------- */

/* A node being put together. */
typedef struct making {
    const char *name;
    fv_qnn_param param[MAX_PARAMS];
    fv_qnn_tensor in[MAX_IN];
    uint32_t n_params, n_in;
} making;

static void param_scalar(making *m, const char *name, fv_qnn_scalar value)
{
    m->param[m->n_params++] =
        (fv_qnn_param){ .kind = FV_QNN_PARAM_SCALAR, .name = name, .scalar = value };
}

#define PARAM_U32(m, name, x) \
    param_scalar((m), (name), (fv_qnn_scalar){ FV_QNN_U32, 0, { .u32 = (x) } })
#define PARAM_F32(m, name, x) \
    param_scalar((m), (name), (fv_qnn_scalar){ FV_QNN_F32, 0, { .f32 = (x) } })
#define PARAM_BOOL(m, name, x) \
    param_scalar((m), (name), (fv_qnn_scalar){ FV_QNN_BOOL, 0, { .b8 = (x) } })

static fv_status param_words(qnn_backend *b, making *m, const char *name, uint32_t type, shape s,
                             const uint32_t *values)
{
    fv_qnn_param *p = &m->param[m->n_params++];
    size_t n = 1;
    for (uint32_t i = 0; i < s.rank; i++)
        n *= s.dim[i];
    uint32_t *data;
    FV_TRY(backend_take(b, &data, n, sizeof *data));
    memcpy(data, values, n * sizeof *data);
    *p = (fv_qnn_param){ .kind = FV_QNN_PARAM_TENSOR, .name = name };
    return static_create(b, &p->tensor, backend_text(b, "%s:%s", m->name, name), type, s, data,
                         n * sizeof *data);
}

static fv_status param_u32s(qnn_backend *b, making *m, const char *name, shape s,
                            const uint32_t *values)
{
    return param_words(b, m, name, FV_QNN_U32, s, values);
}

static fv_status node_create_of(qnn_backend *b, making *m, const char *type, fv_qnn_tensor *in,
                                uint32_t n_in, fv_qnn_tensor *result)
{
    fv_qnn_op op = { .version = 1,
                     .name = m->name,
                     .package = FV_QNN_PACKAGE,
                     .type = type,
                     .n_params = m->n_params,
                     .params = m->param,
                     .n_in = n_in,
                     .in = in,
                     .n_out = 1,
                     .out = result };
    if (!m->name)
        return fv_fail_memory(b->err, 64, "a name");
    b->out->n_nodes++;
    b->out->n_transposes += !strcmp(type, "Transpose");
    b->out->n_floats += result->type == b->real;
    return fv_qnn_node_add(b->q, &op, b->err);
}

static fv_status node_create(qnn_backend *b, making *m, const char *type, fv_qnn_tensor *result)
{
    return node_create_of(b, m, type, m->in, m->n_in, result);
}

/* What a value's tensor is called: the graph's name for it, or, when only one name can be an
 * output's, that. */
static const char *node_name(qnn_backend *b, const char *tensor, const char *what)
{
    return backend_text(b, "%s/%s", tensor, what);
}

/* t in another width, as a new tensor. */
static fv_status convert_create(qnn_backend *b, fv_qnn_tensor *to, const fv_qnn_tensor *t,
                                uint8_t width, fv_qnn_encoding e)
{
    const char *name = backend_text(b, "%s:u%d", t->name, width);
    shape s = { .rank = t->rank };
    memcpy(s.dim, t->dims, t->rank * sizeof *t->dims);
    *to = tensor_of(name, FV_QNN_NATIVE, width_type(b, width));
    tensor_encode(to, e);
    FV_TRY(tensor_create(b, to, s));
    making m = { .name = node_name(b, name, "convert"), .in = { *t }, .n_in = 1 };
    b->out->n_converts++;
    return node_create(b, &m, "Convert", to);
}

/* A value in the width of the node that reads it. */
static fv_status value_as(qnn_backend *b, const fv_value *v, uint8_t width, fv_qnn_tensor *out)
{
    const fv_qnn_tensor *made = &b->made[v->index];
    if (width == FV_NPU_FLOAT || made->type == width_type(b, width)) {
        *out = *made;
        return FV_OK;
    }
    fv_qnn_tensor *kept = &b->other[width == FV_NPU_WIDE][v->index];
    if (!kept->name)
        FV_TRY(convert_create(b, kept, made, width,
                              width == FV_NPU_WIDE ? fv_npu_encode_widened(made->quant.one)
                                                   : b->plan->of[v->index].u8));
    *out = *kept;
    return FV_OK;
}

static uint8_t node_width_of(const qnn_backend *b, const fv_node *n)
{
    return b->plan->width[n->out->index];
}

static const fv_npu_formats *value_format(const qnn_backend *b, const fv_value *v)
{
    return b->plan->of ? &b->plan->of[v->index] : NULL;
}

/* Rows that come from a map lie as it does. */
static shape result_shape(const qnn_backend *b, const fv_node *n)
{
    shape s = value_shape(n->out);
    if (n->out->form == FV_FORM_ROWS && n->n_in && n->in[0]->form == FV_FORM_ROWS) {
        const fv_qnn_tensor *x = &b->made[n->in[0]->index];
        s.dim[1] = x->dims[1];
        s.dim[2] = x->dims[2];
    }
    return s;
}

/* The tensor of a node's result. The name of an output of the graph is kept for that. */
static fv_status result_create(qnn_backend *b, const fv_node *n, fv_qnn_tensor **t)
{
    const fv_value *v = n->out;
    bool taken = v->output && !strcmp(v->output, v->name);
    *t = &b->made[v->index];
    return activation_create(b, *t, taken ? backend_text(b, "%s.value", v->name) : v->name,
                             result_shape(b, n), shown_kind(b, v), node_width_of(b, n),
                             value_format(b, n->out));
}

/* A node of all inputs in its width, without parameters or with those in *m. */
static fv_status plain_create(qnn_backend *b, const fv_node *n, making *m, const char *type)
{
    fv_qnn_tensor *y;
    m->name = node_name(b, n->out->name, type);
    for (size_t i = 0; i < n->n_in; i++)
        FV_TRY(value_as(b, n->in[i], node_width_of(b, n), &m->in[m->n_in++]));
    FV_TRY(result_create(b, n, &y));
    return node_create(b, m, type, y);
}

/* ---- convolutions ------------------------------------------------------------------------ */

typedef struct convolution {
    const char *name;
    uint32_t kernel, stride, groups;
    uint32_t in_each; /* input channels that an output reads */
    uint32_t outputs;
    /* f32: [kernel, kernel, in_each, outputs] and [outputs]; or, where `from` is there, rows
     * [first, first + outputs) of that times factor and scale, which are converted late: they are
     * large */
    float *w, *bias;
    const fv_mat *from;
    size_t first;
    const float *scale;
    float factor;
    fv_npu_means means; /* of the input's channels */
} convolution;

/* As QNN takes them: f32, or 8 and 32 bits with a scale for each output. */
typedef struct converted {
    void *w, *bias;
    fv_qnn_encoding *ew, *eb; /* NULL: floats */
} converted;

/* What a matrix has become for a convolution; x_scale 0: floats. */
struct qnn_weight {
    const fv_mat *from;
    size_t first, n;
    const float *scale;
    float factor, x_scale;
    converted is;
};

void fv_qnn_weights_free(fv_qnn_weights *w)
{
    fv_free(w->list);
    fv_region_free(&w->memory);
    *w = (fv_qnn_weights){ 0 };
}

static size_t conv_rows(const convolution *c) { return (size_t)c->kernel * c->kernel * c->in_each; }

static fv_status region_need(qnn_backend *b, fv_region *r, void *pointer, size_t count, size_t size)
{
    void *block = fv_region_take(r, count, size);
    memcpy(pointer, &block, sizeof block);
    return block ? FV_OK : fv_fail_memory(b->err, count * size, "a graph's weights");
}

/* w and bias of c, which end as what its 8 bits were made from. */
static fv_status conv_quantize(qnn_backend *b, const convolution *c, float *w, float *bias,
                               float x_scale, fv_region *r, converted *out)
{
    size_t rows = conv_rows(c);
    int32_t *bias32;
    FV_TRY(region_need(b, r, &out->w, rows * c->outputs, 1));
    FV_TRY(region_need(b, r, &bias32, c->outputs, sizeof *bias32));
    FV_TRY(region_need(b, r, &out->ew, c->outputs, sizeof *out->ew));
    FV_TRY(region_need(b, r, &out->eb, c->outputs, sizeof *out->eb));
    float *scale = fv_alloc(c->outputs, sizeof *scale);
    if (!scale)
        return fv_fail_memory(b->err, c->outputs * sizeof *scale, "scales");
    fv_npu_quantize(w, rows, c->outputs, bias, x_scale, out->w, scale);
    fv_npu_bias_correct(w, out->w, scale, bias, &c->means, rows, c->in_each,
                        c->groups > 1 ? c->outputs / c->groups : 0, c->outputs);
    for (size_t o = 0; o < c->outputs; o++) {
        out->ew[o] = (fv_qnn_encoding){ scale[o], 0 };
        out->eb[o] = (fv_qnn_encoding){ scale[o] * x_scale, 0 };
        double q = rint((double)bias[o] / (double)out->eb[o].scale);
        bias32[o] = (int32_t)fmax(-2147483000.0, fmin(2147483000.0, q));
    }
    out->bias = bias32;
    fv_free(scale);
    return FV_OK;
}

/* Numbers in the graph's type of floats, into r. */
static fv_status reals_take(qnn_backend *b, void *out, const float *from, size_t n, fv_region *r)
{
    const fv_qnn_tensor like = { .type = b->real };
    void *to;
    FV_TRY(region_need(b, r, &to, n, fv_qnn_type_bytes(b->real)));
    fv_qnn_pack(&like, to, from, n);
    memcpy(out, &to, sizeof to);
    return FV_OK;
}

/* x_scale 0: floats, in r; in f16 they take half of what the library would copy of f32. */
static fv_status conv_convert(qnn_backend *b, const convolution *c, float x_scale, fv_region *r,
                              converted *out)
{
    size_t n = conv_rows(c) * c->outputs;
    fv_region passing = { 0 };
    float *w = c->w, *bias = c->bias;
    fv_status status = FV_OK;
    *out = (converted){ 0 };
    if (c->from) {
        FV_TRY_GOTO(region_need(b, &passing, &w, n, sizeof *w));
        FV_TRY_GOTO(region_need(b, &passing, &bias, c->outputs, sizeof *bias));
        FV_TRY_GOTO(fv_npu_columns(w, bias, c->from, c->first, c->outputs, c->scale, c->factor,
                                   b->k, b->err));
    }
    if (x_scale > 0)
        status = conv_quantize(b, c, w, bias, x_scale, r, out);
    else
        status = reals_take(b, &out->w, w, n, r);
    if (status == FV_OK && !(x_scale > 0))
        status = reals_take(b, &out->bias, bias, c->outputs, r);
fail:
    fv_region_free(&passing);
    return status;
}

/* The converted weights of c, from the graph before where it had them. */
static fv_status conv_converted(qnn_backend *b, const convolution *c, float x_scale, converted *out)
{
    fv_qnn_weights *all = b->weights;
    if (!all || !c->from)
        return conv_convert(b, c, x_scale, &b->out->region, out);
    for (size_t i = 0; i < all->n; i++) {
        const struct qnn_weight *t = &all->list[i];
        if (t->from == c->from && t->first == c->first && t->n == c->outputs &&
            t->scale == c->scale && t->factor == c->factor && t->x_scale == x_scale) {
            *out = t->is;
            return FV_OK;
        }
    }
    FV_TRY(FV_LIST_ROOM(all->list, all->n, all->capacity, 1, b->err));
    FV_TRY(conv_convert(b, c, x_scale, &all->memory, out));
    all->list[all->n++] = (struct qnn_weight){ .from = c->from,
                                               .first = c->first,
                                               .n = c->outputs,
                                               .scale = c->scale,
                                               .factor = c->factor,
                                               .x_scale = x_scale,
                                               .is = *out };
    return FV_OK;
}

static fv_status conv_weights(qnn_backend *b, const convolution *c, const fv_qnn_tensor *x,
                              fv_qnn_tensor *w, fv_qnn_tensor *bias)
{
    const shape ws = SHAPE(c->kernel, c->kernel, c->in_each, c->outputs), bs = SHAPE(c->outputs);
    const char *w_name = backend_text(b, "%s:weight", c->name),
               *b_name = backend_text(b, "%s:bias", c->name);
    size_t n = conv_rows(c) * c->outputs;
    const bool floats = x->type == b->real;
    converted is;
    FV_TRY(conv_converted(b, c, floats ? 0 : x->quant.one.scale, &is));
    if (floats) {
        const size_t each = fv_qnn_type_bytes(b->real);
        FV_TRY(static_create(b, w, w_name, b->real, ws, is.w, n * each));
        return static_create(b, bias, b_name, b->real, bs, is.bias, c->outputs * each);
    }
    *w = tensor_of(w_name, FV_QNN_STATIC, FV_QNN_SQ8);
    w->buffer = (fv_qnn_buffer){ is.w, (uint32_t)n };
    w->quant = (fv_qnn_quant){ .defined = FV_QNN_DEFINED,
                               .kind = FV_QNN_AXIS_SCALE_OFFSET,
                               .axis = { 3, c->outputs, is.ew } };
    FV_TRY(tensor_create(b, w, ws));
    *bias = tensor_of(b_name, FV_QNN_STATIC, FV_QNN_SQ32);
    bias->buffer = (fv_qnn_buffer){ is.bias, (uint32_t)(c->outputs * sizeof(int32_t)) };
    bias->quant = (fv_qnn_quant){ .defined = FV_QNN_DEFINED,
                                  .kind = FV_QNN_AXIS_SCALE_OFFSET,
                                  .axis = { 0, c->outputs, is.eb } };
    return tensor_create(b, bias, bs);
}

static fv_status conv_create(qnn_backend *b, const convolution *c, const fv_qnn_tensor *x,
                             fv_qnn_tensor *y)
{
    const bool depthwise = c->groups > 1 && c->groups == c->outputs;
    const char *type = depthwise ? "DepthWiseConv2d" : "Conv2d";
    const uint32_t pad = c->kernel / 2;
    making m = { .name = node_name(b, c->name, type), .in = { *x }, .n_in = 3 };
    FV_TRY(conv_weights(b, c, x, &m.in[1], &m.in[2]));
    FV_TRY(param_u32s(b, &m, "stride", SHAPE(2), (uint32_t[]){ c->stride, c->stride }));
    FV_TRY(param_u32s(b, &m, "pad_amount", SHAPE(2, 2), (uint32_t[]){ pad, pad, pad, pad }));
    FV_TRY(param_u32s(b, &m, "dilation", SHAPE(2), (uint32_t[]){ 1, 1 }));
    if (!depthwise)
        PARAM_U32(&m, "group", c->groups);
    return node_create(b, &m, type, y);
}

/* Memory for the weights of c; its bias begins as zeroes. */
static fv_status conv_take(qnn_backend *b, convolution *c)
{
    size_t n = (size_t)c->kernel * c->kernel * c->in_each * c->outputs;
    FV_TRY(backend_take(b, &c->w, n, sizeof *c->w));
    return backend_take(b, &c->bias, c->outputs, sizeof *c->bias);
}

/* A node's own convolution, of its first input. */
static fv_status node_conv(qnn_backend *b, const fv_node *n, convolution *c)
{
    fv_qnn_tensor x, *y;
    c->name = n->out->name;
    FV_TRY(fv_npu_plan_means(&c->means, b->plan, n, b->err));
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &x));
    FV_TRY(result_create(b, n, &y));
    return conv_create(b, c, &x, y);
}

/* The engine's rows are over (y, x, rgb). */
static fv_status conv_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    convolution c = {
        .kernel = 3, .stride = 2, .groups = 1, .in_each = 3, .outputs = (uint32_t)n->conv.w->n
    };
    FV_TRY(conv_take(b, &c));
    FV_TRY(fv_npu_columns(c.w, c.bias, n->conv.w, 0, c.outputs, NULL, 1, b->k, b->err));
    return node_conv(b, n, &c);
}

static fv_status depthwise_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    const fv_dw *w = n->depthwise.w;
    convolution c = { .kernel = w->kernel,
                      .stride = n->depthwise.stride,
                      .groups = (uint32_t)w->channels,
                      .in_each = 1,
                      .outputs = (uint32_t)(w->channels * w->mult) };
    FV_TRY(conv_take(b, &c));
    fv_graph_dw_taps(w, c.w);
    memcpy(c.bias, w->bias, c.outputs * sizeof *c.bias);
    return node_conv(b, n, &c);
}

/* Rows [first, first + n) of a matrix as a 1x1 convolution. */
static convolution pointwise_of(const fv_mat *w, size_t first, size_t n, const float *scale,
                                float factor)
{
    return (convolution){ .kernel = 1,
                          .stride = 1,
                          .groups = 1,
                          .in_each = (uint32_t)w->k,
                          .outputs = (uint32_t)n,
                          .from = w,
                          .first = first,
                          .scale = scale,
                          .factor = factor };
}

/* q | k | v that only attention reads: it takes the matrix apart itself. */
static bool feeds_self_attention(const fv_value *v)
{
    return v->last_use && v->n_uses == 1 && v->last_use->op == FV_OP_SELF_ATTENTION;
}

bool fv_qnn_can_show(const fv_value *v)
{
    fv_op op = v->from->op;
    return op != FV_OP_INPUT && !fv_op_moves(op) && !feeds_self_attention(v);
}

/* Outputs of a linear layer that are computed together: all, or a multiple of 64 where weights are
 * so large, or so wide, that one DMA transfer could not move them (docs/npu.md). */
static size_t piece_outputs(const fv_mat *w, size_t each_bytes)
{
    size_t most = FV_MIN((size_t)PIECE_BYTES / (w->k * each_bytes), (size_t)PIECE_OUTPUTS);
    if (w->n <= most || most < 64)
        return w->n;
    size_t pieces = (w->n + most - 1) / most, each = (w->n + pieces - 1) / pieces;
    return FV_MIN((each + 63) / 64 * 64, most / 64 * 64);
}

/* A linear layer in pieces, put together again. */
static fv_status pieces_create(qnn_backend *b, const fv_node *n, size_t each)
{
    const fv_mat *w = n->linear.w;
    const size_t pieces = (w->n + each - 1) / each;
    shape s = result_shape(b, n);
    making m = { .name = node_name(b, n->out->name, "Concat") };
    fv_qnn_tensor x, *y, *part;
    FV_TRY(backend_take(b, &part, pieces, sizeof *part));
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &x));
    for (size_t i = 0; i < pieces; i++) {
        size_t first = i * each, count = FV_MIN(each, w->n - first);
        convolution c = pointwise_of(w, first, count, n->linear.scale, 1);
        c.name = backend_text(b, "%s.%zu", n->out->name, i);
        FV_TRY(fv_npu_plan_means(&c.means, b->plan, n, b->err));
        s.dim[3] = (uint32_t)count;
        FV_TRY(activation_create(b, &part[i], c.name, s, FV_QNN_NATIVE, node_width_of(b, n),
                                 value_format(b, n->out)));
        FV_TRY(conv_create(b, &c, &x, &part[i]));
    }
    PARAM_U32(&m, "axis", 3);
    FV_TRY(result_create(b, n, &y));
    return node_create_of(b, &m, "Concat", part, (uint32_t)pieces, y);
}

static fv_status linear_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    const fv_mat *w = n->linear.w;
    if (feeds_self_attention(n->out))
        return FV_OK;
    size_t each = piece_outputs(w, node_width_of(b, n) == FV_NPU_FLOAT ? 2 : 1);
    if (each < w->n)
        return pieces_create(b, n, each);
    convolution c = pointwise_of(w, 0, w->n, n->linear.scale, 1);
    return node_conv(b, n, &c);
}

/* ---- norms, element by element ----------------------------------------------------------- */

/* Gamma in 16 bits, symmetric, and beta in 32. */
static fv_status norm_weights(qnn_backend *b, const fv_node *n, fv_qnn_tensor *gamma,
                              fv_qnn_tensor *beta)
{
    uint32_t c = (uint32_t)fv_value_cols(n->out);
    const char *g_name = backend_text(b, "%s:weight", n->out->name),
               *b_name = backend_text(b, "%s:bias", n->out->name);
    float *w, *bias, most = 1e-6f, most_bias = 1e-6f;
    FV_TRY(backend_take(b, &w, c, sizeof *w));
    FV_TRY(backend_take(b, &bias, c, sizeof *bias));
    memcpy(w, n->norm.weight, c * sizeof *w);
    if (n->norm.bias)
        memcpy(bias, n->norm.bias, c * sizeof *bias);
    if (node_width_of(b, n) == FV_NPU_FLOAT) {
        const size_t each = fv_qnn_type_bytes(b->real);
        void *gammas, *betas;
        FV_TRY(reals_take(b, &gammas, w, c, &b->out->region));
        FV_TRY(reals_take(b, &betas, bias, c, &b->out->region));
        FV_TRY(static_create(b, gamma, g_name, b->real, SHAPE(c), gammas, c * each));
        return static_create(b, beta, b_name, b->real, SHAPE(c), betas, c * each);
    }
    const bool wide = node_width_of(b, n) == FV_NPU_WIDE;
    for (uint32_t i = 0; i < c; i++) {
        most = fmaxf(most, fabsf(w[i]));
        most_bias = fmaxf(most_bias, fabsf(bias[i]));
    }
    fv_qnn_encoding eg = wide ? (fv_qnn_encoding){ most / 32767, 0 }
                              : fv_npu_encode_range(-most, most, 255),
                    eb = { fmaxf(most_bias / 0x7fff0000, eg.scale * 1e-5f), 0 };
    int16_t *w16 = (int16_t *)w;
    uint8_t *w8 = (uint8_t *)w;
    int32_t *bias32 = (int32_t *)bias;
    for (uint32_t i = 0; i < c; i++) {
        float q = rintf(n->norm.weight[i] / eg.scale);
        if (wide)
            w16[i] = (int16_t)q;
        else
            w8[i] = (uint8_t)fmaxf(0, fminf(255, q - (float)eg.offset));
        bias32[i] = n->norm.bias ? (int32_t)rint((double)n->norm.bias[i] / (double)eb.scale) : 0;
    }
    *gamma = tensor_of(g_name, FV_QNN_STATIC, wide ? FV_QNN_SQ16 : FV_QNN_UQ8);
    gamma->buffer = (fv_qnn_buffer){ w, c * (wide ? 2 : 1) };
    tensor_encode(gamma, eg);
    FV_TRY(tensor_create(b, gamma, SHAPE(c)));
    *beta = tensor_of(b_name, FV_QNN_STATIC, FV_QNN_SQ32);
    beta->buffer = (fv_qnn_buffer){ bias, c * 4 };
    tensor_encode(beta, eb);
    return tensor_create(b, beta, SHAPE(c));
}

static fv_status channel_norm_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    fv_qnn_tensor *y;
    making m = { .name = node_name(b, n->out->name, "LayerNorm"), .n_in = 3 };
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &m.in[0]));
    FV_TRY(norm_weights(b, n, &m.in[1], &m.in[2]));
    PARAM_F32(&m, "epsilon", (float)n->norm.eps);
    FV_TRY(param_u32s(b, &m, "axes", SHAPE(1), (uint32_t[]){ 3 }));
    FV_TRY(result_create(b, n, &y));
    return node_create(b, &m, "LayerNorm", y);
}

static fv_status plain_build(void *user, const fv_node *n)
{
    static const char *const type[FV_OP_COUNT] = {
        [FV_OP_GELU] = "Gelu",
        [FV_OP_RELU] = "Relu",
        [FV_OP_SIGMOID] = "Sigmoid",
        [FV_OP_ADD] = "ElementWiseAdd",
        [FV_OP_MUL] = "ElementWiseMultiply",
    };
    making m = { 0 };
    return plain_create(user, n, &m, type[n->op]);
}

static fv_status mean_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    making m = { .name = node_name(b, n->out->name, "mean") };
    FV_TRY(param_u32s(b, &m, "axes", SHAPE(2), (uint32_t[]){ 1, 2 }));
    PARAM_BOOL(&m, "keep_dims", 1);
    return plain_create(b, n, &m, "ReduceMean");
}

/* ---- attention --------------------------------------------------------------------------- */

static fv_status reshape_create(qnn_backend *b, const fv_qnn_tensor *x, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, "reshape"), .in = { *x }, .n_in = 1 };
    return node_create(b, &m, "Reshape", y);
}

/* Axes 1 and 2 change places: [1, rows, heads, d] <-> [1, heads, rows, d]. */
static fv_status transpose_create(qnn_backend *b, const fv_qnn_tensor *x, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, "transpose"), .in = { *x }, .n_in = 1 };
    FV_TRY(param_u32s(b, &m, "perm", SHAPE(4), (uint32_t[]){ 0, 2, 1, 3 }));
    return node_create(b, &m, "Transpose", y);
}

static fv_status matmul_create(qnn_backend *b, const fv_qnn_tensor *x, const fv_qnn_tensor *z,
                               bool transposed, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, "MatMul"), .in = { *x, *z }, .n_in = 2 };
    PARAM_BOOL(&m, "transpose_in0", 0);
    PARAM_BOOL(&m, "transpose_in1", transposed);
    return node_create(b, &m, "MatMul", y);
}

/* A tensor between two nodes of one operation, encoded as another one. */
static fv_status inner_create(qnn_backend *b, fv_qnn_tensor *t, const char *name, shape s,
                              const fv_qnn_tensor *like)
{
    *t = tensor_of(name, FV_QNN_NATIVE, like->type);
    t->quant = like->quant;
    return tensor_create(b, t, s);
}

/* q, k or v as [1, heads, pixels, d]. q has attention's width; k and v may be narrower than it. */
static fv_status head_create(qnn_backend *b, const fv_node *n, size_t which, fv_qnn_tensor *out)
{
    static const char letter[] = "qkv";
    const fv_value *qkv = n->in[0];
    const fv_node *layer = qkv->from;
    uint32_t d = (uint32_t)n->self_attention.width, c = (uint32_t)n->out->dim[3].n,
             height = (uint32_t)n->out->dim[1].n, width = (uint32_t)n->out->dim[2].n;
    uint8_t w = b->plan->width[qkv->index];
    fv_qnn_tensor x, y, z;
    convolution conv;
    conv = pointwise_of(layer->linear.w, which * c, c, NULL,
                        which ? 1 : (float)(1 / sqrt((double)d)));
    conv.name = backend_text(b, "%s.%c", qkv->name, letter[which]);
    FV_TRY(fv_npu_plan_means(&conv.means, b->plan, layer, b->err));
    FV_TRY(value_as(b, layer->in[0], w, &x));
    FV_TRY(activation_create(b, &y, conv.name, SHAPE(1, height, width, c), FV_QNN_NATIVE, w,
                             b->plan->part ? &b->plan->part[qkv->index][which] : NULL));
    FV_TRY(conv_create(b, &conv, &x, &y));
    const uint8_t attention = node_width_of(b, n);
    if (which == 0 && w == FV_NPU_NARROW && attention == FV_NPU_WIDE) {
        FV_TRY(convert_create(b, &z, &y, FV_NPU_WIDE, fv_npu_encode_widened(y.quant.one)));
        y = z;
    } else if (w == FV_NPU_WIDE && attention == FV_NPU_NARROW) {
        FV_TRY(convert_create(b, &z, &y, FV_NPU_NARROW, b->plan->part[qkv->index][which].u8));
        y = z;
    }
    FV_TRY(inner_create(b, &z, backend_text(b, "%s.rows", conv.name),
                        SHAPE(1, height * width, c / d, d), &y));
    FV_TRY(reshape_create(b, &y, &z));
    FV_TRY(inner_create(b, out, backend_text(b, "%s.heads", conv.name),
                        SHAPE(1, c / d, height * width, d), &y));
    return transpose_create(b, &z, out);
}

/* softmax(s) of the last dimension, in the types of scores and weights. */
static fv_status softmax_create(qnn_backend *b, const fv_qnn_tensor *s, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, "Softmax"), .in = { *s }, .n_in = 1 };
    PARAM_U32(&m, "axis", 3);
    PARAM_F32(&m, "beta", 1);
    return node_create(b, &m, "Softmax", y);
}

static fv_status self_attention_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    const fv_value *sv = n->self_attention.scores, *wv = n->self_attention.weights;
    uint32_t d = (uint32_t)n->self_attention.width, c = (uint32_t)n->out->dim[3].n,
             pixels = (uint32_t)(n->out->dim[1].n * n->out->dim[2].n);
    uint8_t width = node_width_of(b, n);
    fv_qnn_tensor head[3], scores, weights, *y, rows, heads;
    if (!feeds_self_attention(n->in[0]))
        return fv_fail(b->err, FV_ERR_UNSUPPORTED, 0, "%s: q, k and v are read by others, too",
                       n->out->name);
    for (size_t i = 0; i < 3; i++)
        FV_TRY(head_create(b, n, i, &head[i]));
    FV_TRY(activation_create(b, &scores, sv->name, value_shape(sv), shown_kind(b, sv), width,
                             value_format(b, sv)));
    FV_TRY(matmul_create(b, &head[0], &head[1], true, &scores));
    FV_TRY(activation_create(b, &weights, wv->name, value_shape(wv), shown_kind(b, wv), width,
                             value_format(b, wv)));
    FV_TRY(softmax_create(b, &scores, &weights));
    b->made[sv->index] = scores;
    b->made[wv->index] = weights;
    FV_TRY(result_create(b, n, &y));
    FV_TRY(inner_create(b, &heads, backend_text(b, "%s.heads", n->out->name),
                        SHAPE(1, c / d, pixels, d), y));
    FV_TRY(matmul_create(b, &weights, &head[2], false, &heads));
    FV_TRY(inner_create(b, &rows, backend_text(b, "%s.rows", n->out->name),
                        SHAPE(1, pixels, c / d, d), y));
    FV_TRY(transpose_create(b, &heads, &rows));
    return reshape_create(b, &rows, y);
}

/* ---- the decoder ------------------------------------------------------------------------- */

/* A tensor inside an operation, in its width; f NULL in floats. */
static fv_status inside_create(qnn_backend *b, fv_qnn_tensor *t, const fv_node *n, const char *what,
                               shape s, const fv_npu_formats *f)
{
    return activation_create(b, t, backend_text(b, "%s.%s", n->out->name, what), s, FV_QNN_NATIVE,
                             node_width_of(b, n), f);
}

static fv_status binary_create(qnn_backend *b, const char *type, const fv_qnn_tensor *x,
                               const fv_qnn_tensor *z, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, type), .in = { *x, *z }, .n_in = 2 };
    return node_create(b, &m, type, y);
}

static fv_status concat_create(qnn_backend *b, const fv_qnn_tensor *x, const fv_qnn_tensor *z,
                               uint32_t axis, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, "Concat"), .in = { *x, *z }, .n_in = 2 };
    PARAM_U32(&m, "axis", axis);
    return node_create(b, &m, "Concat", y);
}

/* Entries [begin, end) of an axis. */
static fv_status slice_create(qnn_backend *b, const fv_qnn_tensor *x, uint32_t axis, int32_t begin,
                              int32_t end, fv_qnn_tensor *y)
{
    making m = { .name = node_name(b, y->name, "StridedSlice"), .in = { *x }, .n_in = 1 };
    uint32_t ranges[12];
    for (uint32_t i = 0; i < 4; i++) {
        ranges[3 * i] = i == axis ? (uint32_t)begin : 0;
        ranges[3 * i + 1] = i == axis ? (uint32_t)end : x->dims[i];
        ranges[3 * i + 2] = 1;
    }
    FV_TRY(param_words(b, &m, "ranges", FV_QNN_I32, SHAPE(4, 3), ranges));
    return node_create(b, &m, "StridedSlice", y);
}

/* A constant of f32, one for all. */
static fv_status scalar_create(qnn_backend *b, fv_qnn_tensor *t, const char *name, float x)
{
    float *data;
    FV_TRY(backend_take(b, &data, 1, sizeof *data));
    *data = x;
    return static_create(b, t, name, FV_QNN_F32, SHAPE(1), data, sizeof *data);
}

/* For libQnnCpu, whose RmsNorm adds epsilon to the root and not below it: x / (sqrt(mean x^2) +
 * epsilon), in 2.47. weight x rsqrt(mean x^2 + epsilon), operation by operation. */
static fv_status rms_norm_parts(qnn_backend *b, const fv_node *n)
{
    const shape whole = result_shape(b, n), one = SHAPE(1, whole.dim[1], whole.dim[2], 1);
    making mean = { .n_in = 1 }, root = { .n_in = 1 };
    fv_qnn_tensor x, gamma, beta, eps, squares, sum, safe, back, normed, *y;
    FV_TRY(value_as(b, n->in[0], FV_NPU_FLOAT, &x));
    FV_TRY(norm_weights(b, n, &gamma, &beta));
    FV_TRY(scalar_create(b, &eps, backend_text(b, "%s:epsilon", n->out->name), (float)n->norm.eps));
    FV_TRY(inside_create(b, &squares, n, "squares", whole, NULL));
    FV_TRY(binary_create(b, "ElementWiseMultiply", &x, &x, &squares));
    FV_TRY(inside_create(b, &sum, n, "mean", one, NULL));
    mean.name = node_name(b, sum.name, "ReduceMean");
    mean.in[0] = squares;
    FV_TRY(param_u32s(b, &mean, "axes", SHAPE(1), (uint32_t[]){ 3 }));
    PARAM_BOOL(&mean, "keep_dims", 1);
    FV_TRY(node_create(b, &mean, "ReduceMean", &sum));
    FV_TRY(inside_create(b, &safe, n, "safe", one, NULL));
    FV_TRY(binary_create(b, "ElementWiseAdd", &sum, &eps, &safe));
    FV_TRY(inside_create(b, &back, n, "back", one, NULL));
    root.name = node_name(b, back.name, "rsqrt");
    root.in[0] = safe;
    FV_TRY(node_create(b, &root, "ElementWiseRsqrt", &back));
    FV_TRY(inside_create(b, &normed, n, "normed", whole, NULL));
    FV_TRY(binary_create(b, "ElementWiseMultiply", &x, &back, &normed));
    FV_TRY(result_create(b, n, &y));
    return binary_create(b, "ElementWiseMultiply", &normed, &gamma, y);
}

static fv_status rms_norm_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    fv_qnn_tensor *y;
    if (!fv_qnn_is_htp(b->q))
        return rms_norm_parts(b, n);
    making m = { .name = node_name(b, n->out->name, "RmsNorm"), .n_in = 3 };
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &m.in[0]));
    FV_TRY(norm_weights(b, n, &m.in[1], &m.in[2]));
    PARAM_F32(&m, "epsilon", (float)n->norm.eps);
    FV_TRY(param_u32s(b, &m, "axes", SHAPE(1), (uint32_t[]){ 3 }));
    FV_TRY(result_create(b, n, &y));
    return node_create(b, &m, "RmsNorm", y);
}

/* x sigmoid(x) */
static fv_status silu_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    fv_qnn_tensor x, gate, *y;
    const fv_npu_formats share = { fv_npu_encode_range(0, 1, 255),
                                   fv_npu_encode_range(0, 1, 65535) };
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &x));
    FV_TRY(inside_create(b, &gate, n, "gate", value_shape(n->out), &share));
    making m = { .name = node_name(b, gate.name, "Sigmoid"), .in = { x }, .n_in = 1 };
    FV_TRY(node_create(b, &m, "Sigmoid", &gate));
    FV_TRY(result_create(b, n, &y));
    return binary_create(b, "ElementWiseMultiply", &x, &gate, y);
}

/* x cos + rotated(x) sin. Half of the rotated channels change their sign: sin has those signs, see
 * sin_build. */
static fv_status rope_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    uint8_t width = node_width_of(b, n);
    const fv_npu_formats *fx = value_format(b, n->in[0]), *fy = value_format(b, n->out);
    shape whole = value_shape(n->out), half = whole;
    fv_qnn_tensor x, cos, sin, part[2], turned, a, c, *y;
    int32_t d = (int32_t)whole.dim[3];
    half.dim[3] = (uint32_t)d / 2;
    FV_TRY(value_as(b, n->in[0], width, &x));
    FV_TRY(value_as(b, n->in[1], width, &cos));
    FV_TRY(value_as(b, n->in[2], width, &sin));
    FV_TRY(inside_create(b, &part[0], n, "first", half, fx));
    FV_TRY(inside_create(b, &part[1], n, "second", half, fx));
    FV_TRY(slice_create(b, &x, 3, 0, d / 2, &part[0]));
    FV_TRY(slice_create(b, &x, 3, d / 2, d, &part[1]));
    FV_TRY(inside_create(b, &turned, n, "turned", whole, fx));
    FV_TRY(concat_create(b, &part[1], &part[0], 3, &turned));
    FV_TRY(inside_create(b, &a, n, "cos", whole, fy));
    FV_TRY(binary_create(b, "ElementWiseMultiply", &x, &cos, &a));
    FV_TRY(inside_create(b, &c, n, "sin", whole, fy));
    FV_TRY(binary_create(b, "ElementWiseMultiply", &turned, &sin, &c));
    FV_TRY(result_create(b, n, &y));
    return binary_create(b, "ElementWiseAdd", &a, &c, y);
}

/* Scores with those that are masked: what lies lower than all others is cut off there. */
static fv_npu_formats masked_format(const fv_npu_formats *scores)
{
    const fv_qnn_encoding e = scores->u16;
    float low = (float)e.offset * e.scale, high = (float)(e.offset + 65535) * e.scale;
    return (fv_npu_formats){ .u16 = fv_npu_encode_range(low - FV_NPU_ABSENT, high, 65535) };
}

/* Attention over a cache. Heads of q that share one of k and v are folded into rows: [1, heads, N,
 * d] seen as [1, kv, heads / kv * N, d], so that keys and values are never repeated. */
static fv_status attention_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    const fv_value *q = n->in[0], *sv = n->attention.scores, *wv = n->attention.weights;
    uint8_t width = node_width_of(b, n);
    uint32_t heads = (uint32_t)q->dim[1].n, rows = (uint32_t)q->dim[2].n, d = (uint32_t)q->dim[3].n,
             kv = (uint32_t)n->in[2]->dim[1].n, keys = (uint32_t)n->in[2]->dim[2].n,
             folded = heads / kv * rows;
    const shape scores = SHAPE(1, heads, rows, keys), narrow = SHAPE(1, kv, folded, keys);
    const fv_npu_formats *fs = value_format(b, sv), *fw = value_format(b, wv),
                         *fq = value_format(b, q), *fy = value_format(b, n->out);
    fv_npu_formats fm = fs ? masked_format(fs) : (fv_npu_formats){ 0 };
    fv_qnn_tensor x, k, v, bias, t, s, masked, w, *y;
    if (n->n_in < 4)
        return fv_fail(b->err, FV_ERR_UNSUPPORTED, 0, "%s: attention without a mask", n->out->name);
    FV_TRY(value_as(b, q, width, &x));
    FV_TRY(value_as(b, n->in[1], width, &k));
    FV_TRY(value_as(b, n->in[2], width, &v));
    FV_TRY(value_as(b, n->in[3], width, &bias));
    FV_TRY(inside_create(b, &t, n, "queries", SHAPE(1, kv, folded, d), fq));
    FV_TRY(reshape_create(b, &x, &t));
    FV_TRY(inside_create(b, &s, n, "folded", narrow, fs));
    FV_TRY(matmul_create(b, &t, &k, !n->attention.transposed, &s));
    FV_TRY(inside_create(b, &t, n, "scores", scores, fs));
    FV_TRY(reshape_create(b, &s, &t));
    FV_TRY(inside_create(b, &masked, n, "masked", scores, &fm));
    FV_TRY(binary_create(b, "ElementWiseAdd", &t, &bias, &masked));
    FV_TRY(inside_create(b, &w, n, "weights", scores, fw));
    FV_TRY(softmax_create(b, &masked, &w));
    FV_TRY(inside_create(b, &t, n, "shares", narrow, fw));
    FV_TRY(reshape_create(b, &w, &t));
    FV_TRY(inside_create(b, &s, n, "sums", SHAPE(1, kv, folded, d), fy));
    FV_TRY(matmul_create(b, &t, &v, false, &s));
    FV_TRY(inside_create(b, &t, n, "heads", SHAPE(1, heads, rows, d), fy));
    FV_TRY(reshape_create(b, &s, &t));
    FV_TRY(inside_create(b, &w, n, "rows", SHAPE(1, rows, heads, d), fy));
    FV_TRY(transpose_create(b, &t, &w));
    FV_TRY(result_create(b, n, &y));
    return reshape_create(b, &w, y);
}

/* Rows [1, 1, N, heads d] -> [1, heads, N, d] */
static fv_status heads_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    shape s = value_shape(n->out);
    fv_qnn_tensor x, t, *y;
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &x));
    FV_TRY(inside_create(b, &t, n, "rows", SHAPE(1, s.dim[2], s.dim[1], s.dim[3]),
                         value_format(b, n->out)));
    FV_TRY(reshape_create(b, &x, &t));
    FV_TRY(result_create(b, n, &y));
    return transpose_create(b, &t, y);
}

static fv_status transpose_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    making m = { .name = node_name(b, n->out->name, "transpose") };
    FV_TRY(param_u32s(b, &m, "perm", SHAPE(4), (uint32_t[]){ 0, 1, 3, 2 }));
    return plain_create(b, n, &m, "Transpose");
}

static fv_status concat_build(void *user, const fv_node *n)
{
    making m = { 0 };
    PARAM_U32(&m, "axis", (uint32_t)n->concat.axis);
    return plain_create(user, n, &m, "Concat");
}

static fv_status slice_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    fv_qnn_tensor x, *y;
    FV_TRY(value_as(b, n->in[0], node_width_of(b, n), &x));
    FV_TRY(result_create(b, n, &y));
    return slice_create(b, &x, (uint32_t)n->slice.axis, (int32_t)n->slice.begin,
                        (int32_t)n->slice.end, y);
}

/* The scalar that queries are multiplied by. */
static fv_status constant_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    fv_qnn_tensor *t = &b->made[n->out->index];
    uint8_t width = node_width_of(b, n);
    void *data;
    if (n->constant.data)
        return fv_fail(b->err, FV_ERR_UNSUPPORTED, 0, "%s: a vector of constants", n->out->name);
    FV_TRY(backend_take(b, &data, 1, sizeof(float)));
    *t = tensor_of(n->out->name, FV_QNN_STATIC, width_type(b, width));
    if (width != FV_NPU_FLOAT)
        tensor_encode(t, format_of(value_format(b, n->out), width));
    fv_qnn_pack(t, data, (float[]){ (float)n->constant.x }, 1);
    t->buffer = (fv_qnn_buffer){ data, (uint32_t)fv_qnn_type_bytes(t->type) };
    return tensor_create(b, t, SHAPE(1));
}

/* ---- where values come from, data that moves --------------------------------------------- */

/* A value that the caller gives: pixels are bytes, 1 / 255 each, wherever the graph is not in
 * floats. */
static fv_status given_create(qnn_backend *b, const fv_node *n, const char *name)
{
    fv_qnn_tensor *t = &b->made[n->out->index];
    uint8_t width = node_width_of(b, n);
    *t = tensor_of(name, FV_QNN_INPUT, width_type(b, width));
    if (width != FV_NPU_FLOAT)
        tensor_encode(t, format_of(&b->plan->of[n->out->index], width));
    FV_TRY(tensor_create(b, t, value_shape(n->out)));
    b->out->in[b->out->n_in++] = *t;
    return FV_OK;
}

/* The table of n in the type and encoding of its rows y, converted row by row. */
static fv_status table_create(qnn_backend *b, fv_qnn_tensor *t, const fv_node *n,
                              const fv_qnn_tensor *y)
{
    const fv_mat *from = n->gather.table;
    const size_t row_bytes = from->k * fv_qnn_type_bytes(y->type);
    uint8_t *data;
    if (row_bytes * from->n > UINT32_MAX)
        return fv_fail(b->err, FV_ERR_LIMIT, 0, "%s: %zu rows of %zu bytes; expected 4 GiB at most",
                       n->out->name, from->n, row_bytes);
    FV_TRY(backend_take(b, &data, from->n, row_bytes));
    float *row = fv_alloc(from->k, sizeof *row);
    if (!row)
        return fv_fail_memory(b->err, from->k * sizeof *row, "a row of the embedding");
    for (size_t i = 0; i < from->n; i++) {
        fv_graph_mat_rows(b->k, from, i, 1, row, NULL);
        fv_qnn_pack(y, data + i * row_bytes, row, from->k);
    }
    fv_free(row);
    *t = tensor_of(backend_text(b, "%s:table", n->out->name), FV_QNN_STATIC, y->type);
    t->quant = y->quant;
    t->buffer = (fv_qnn_buffer){ data, (uint32_t)(from->n * row_bytes) };
    return tensor_create(b, t, SHAPE((uint32_t)from->n, (uint32_t)from->k));
}

/* Rows of a table: ids i32 -> rows. */
static fv_status gather_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    const fv_mat *from = n->gather.table;
    const fv_value *ids = n->in[0];
    const uint32_t rows = (uint32_t)ids->dim[1].n, cols = (uint32_t)from->k;
    uint8_t width = node_width_of(b, n);
    fv_qnn_tensor *x = &b->made[ids->index], *y = &b->made[n->out->index], table;
    *x = tensor_of(ids->name, FV_QNN_INPUT, FV_QNN_I32);
    FV_TRY(tensor_create(b, x, SHAPE(1, rows)));
    b->out->in[b->out->n_in++] = *x;
    FV_TRY(activation_create(b, y, n->out->name, SHAPE(1, rows, cols), FV_QNN_NATIVE, width,
                             value_format(b, n->out)));
    FV_TRY(table_create(b, &table, n, y));
    making m = { .name = node_name(b, n->out->name, "Gather"), .in = { table, *x }, .n_in = 2 };
    param_scalar(&m, "axis", (fv_qnn_scalar){ FV_QNN_I32, 0, { .i32 = 0 } });
    return node_create(b, &m, "Gather", y);
}

/* Of positions and the mask's ids the graph gets what comes of them. */
static fv_status input_build(void *user, const fv_node *n)
{
    return n->out->type == FV_TYPE_I64 ? FV_OK : given_create(user, n, n->out->name);
}

/* The angles of RoPE and the mask are the host's to compute, a few numbers for a step: cos and sin
 * [1, 1, N, D], sin with its first half negative, for rotated(x) is (second half, first half) here;
 * the bias [1, 1, N, positions], 0 where a row may look and very low elsewhere. */
static fv_status nothing_build(void *user, const fv_node *n)
{
    (void)user;
    (void)n;
    return FV_OK;
}
static fv_status cos_build(void *user, const fv_node *n)
{
    return given_create(user, n, "position_cos");
}
static fv_status sin_build(void *user, const fv_node *n)
{
    return given_create(user, n, "position_sin");
}
static fv_status mask_build(void *user, const fv_node *n)
{
    return given_create(user, n, "attention_bias");
}

/* A map as rows is the same tensor. */
static fv_status rows_build(void *user, const fv_node *n)
{
    qnn_backend *b = user;
    b->made[n->out->index] = b->made[n->in[0]->index];
    for (int i = 0; i < 2; i++)
        b->other[i][n->out->index] = b->other[i][n->in[0]->index];
    return FV_OK;
}

/* ---- outputs ----------------------------------------------------------------------------- */

/* The graph's outputs have the names and shapes that they have there. */
static fv_status outputs_create(qnn_backend *b)
{
    const fv_graph *g = b->plan->g;
    for (size_t i = 0; i < g->n_outputs; i++) {
        const fv_value *v = g->output[i];
        const fv_qnn_tensor *made = &b->made[v->index];
        fv_qnn_tensor *t = &b->out->out[b->out->n_out];
        shape s = { .rank = (uint32_t)v->n_dims };
        for (int d = 0; d < v->n_dims; d++)
            s.dim[d] = (uint32_t)v->dim[d].n;
        b->out->value[b->out->n_out++] = v;
        *t = tensor_of(v->output, FV_QNN_OUTPUT, made->type);
        t->quant = made->quant;
        FV_TRY(tensor_create(b, t, s));
        FV_TRY(reshape_create(b, made, t));
    }
    return FV_OK;
}

static void shown_list(qnn_backend *b)
{
    const fv_graph *g = b->plan->g;
    for (size_t i = 0; i < g->n_values && b->show; i++)
        if (b->show[i] && b->made[i].kind == FV_QNN_OUTPUT) {
            b->out->value[b->out->n_out] = g->value[i];
            b->out->out[b->out->n_out++] = b->made[i];
        }
}

/* ---- the table --------------------------------------------------------------------------- */

static const fv_backend qnn_operations = {
    .name = "QNN",
    .op = {
    [FV_OP_INPUT] = input_build,
    [FV_OP_GATHER] = gather_build,
    [FV_OP_CONV] = conv_build,
    [FV_OP_DEPTHWISE] = depthwise_build,
    [FV_OP_LINEAR] = linear_build,
    [FV_OP_CHANNEL_NORM] = channel_norm_build,
    [FV_OP_GELU] = plain_build,
    [FV_OP_RELU] = plain_build,
    [FV_OP_SIGMOID] = plain_build,
    [FV_OP_ADD] = plain_build,
    [FV_OP_MUL] = plain_build,
    [FV_OP_MEAN] = mean_build,
    [FV_OP_SELF_ATTENTION] = self_attention_build,
    [FV_OP_ROWS] = rows_build,
    [FV_OP_CONSTANT] = constant_build,
    [FV_OP_RMS_NORM] = rms_norm_build,
    [FV_OP_SILU] = silu_build,
    [FV_OP_ANGLE] = nothing_build,
    [FV_OP_COS] = cos_build,
    [FV_OP_SIN] = sin_build,
    [FV_OP_MASK] = mask_build,
    [FV_OP_ROPE] = rope_build,
    [FV_OP_ATTENTION] = attention_build,
    [FV_OP_HEADS] = heads_build,
    [FV_OP_TRANSPOSE] = transpose_build,
    [FV_OP_CONCAT] = concat_build,
    [FV_OP_SLICE] = slice_build,
    },
};

static fv_status model_build(qnn_backend *b, const fv_qnn_model_options *o)
{
    const fv_graph *g = b->plan->g;
    size_t n = g->n_values;
    FV_TRY(backend_take(b, &b->made, n, sizeof *b->made));
    for (int i = 0; i < 2; i++)
        FV_TRY(backend_take(b, &b->other[i], n, sizeof *b->other[i]));
    FV_TRY(backend_take(b, &b->out->in, g->n_inputs + MADE_INPUTS, sizeof *b->out->in));
    FV_TRY(backend_take(b, &b->out->out, g->n_outputs + n, sizeof *b->out->out));
    FV_TRY(backend_take(b, &b->out->value, g->n_outputs + n, sizeof *b->out->value));
    FV_TRY(fv_qnn_graph_begin(b->q, g->name, o->f16, b->err));
    FV_TRY(fv_graph_lower(g, &qnn_operations, b, b->err));
    FV_TRY(outputs_create(b));
    shown_list(b);
    return FV_OK;
}

fv_status fv_qnn_model_build(fv_qnn_model *out, fv_qnn *q, const fv_npu_plan *plan,
                             const fv_kernels *k, const fv_qnn_model_options *options,
                             fv_error *err)
{
    qnn_backend b = { .q = q,
                      .plan = plan,
                      .k = k,
                      .out = out,
                      .show = options->show,
                      .weights = options->weights,
                      .real = options->f16 ? FV_QNN_F16 : FV_QNN_F32,
                      .err = err };
    *out = (fv_qnn_model){ 0 };
    fv_status status = model_build(&b, options);
    if (status != FV_OK)
        fv_qnn_model_free(out);
    return status;
}

void fv_qnn_model_free(fv_qnn_model *m)
{
    fv_region_free(&m->region);
    *m = (fv_qnn_model){ 0 };
}

/* ---- numbers ----------------------------------------------------------------------------- */

void fv_qnn_pack(const fv_qnn_tensor *t, void *to, const float *from, size_t n)
{
    const fv_qnn_encoding e = t->quant.one;
    const float most = t->type == FV_QNN_UQ8 ? 255 : 65535;
    if (t->type == FV_QNN_F32) {
        memcpy(to, from, n * sizeof *from);
        return;
    }
    if (t->type == FV_QNN_F16) {
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = fv_f32_to_f16(from[i]);
        return;
    }
    if (t->type == FV_QNN_I32) {
        for (size_t i = 0; i < n; i++)
            ((int32_t *)to)[i] = (int32_t)from[i];
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float q = fmaxf(0, fminf(most, rintf(from[i] / e.scale) - (float)e.offset));
        if (t->type == FV_QNN_UQ8)
            ((uint8_t *)to)[i] = (uint8_t)q;
        else
            ((uint16_t *)to)[i] = (uint16_t)q;
    }
}

void fv_qnn_unpack(const fv_qnn_tensor *t, float *to, const void *from, size_t n)
{
    const fv_qnn_encoding e = t->quant.one;
    if (t->type == FV_QNN_F32) {
        memcpy(to, from, n * sizeof *to);
        return;
    }
    if (t->type == FV_QNN_F16) {
        for (size_t i = 0; i < n; i++)
            to[i] = fv_f16_to_f32(((const uint16_t *)from)[i]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t q = t->type == FV_QNN_UQ8 ? ((const uint8_t *)from)[i]
                                          : ((const uint16_t *)from)[i];
        to[i] = (float)(q + e.offset) * e.scale;
    }
}
