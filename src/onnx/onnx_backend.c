/* The backend of graph/ that writes ONNX: what each operation is there. See graph/graph.h.
 *
 * Maps are [batch, channels, height, width] and linear layers of maps 1x1 convolutions, so that
 * nothing needs transposing but the operands of attention. Query heads that share a key head are
 * folded into rows, so that keys and values are never repeated. Norms and GELU: onnx_ops.c.
 * Values get ONNX's usual names (SCOPE/Conv_17), inputs and outputs the graph's. */
#include "onnx/onnx_backend.h"

#include <math.h>

#include "onnx/onnx_ops.h"
#include "onnx/onnx_plan.h"

typedef struct onnx_backend {
    fv_onnx_graph *g;
    fv_onnx_value *of; /* by the index of the graph's value */
} onnx_backend;

static fv_onnx_value onnx_input_of(const onnx_backend *b, const fv_node *n, size_t i)
{
    return b->of[n->in[i]->index];
}

/* The next ONNX node is the last of n's: when n's result is an output, it has that name. */
static void result_name_next(const onnx_backend *b, const fv_node *n)
{
    if (n->out->output)
        fv_onnx_call_next(b->g, n->out->output);
}

static fv_status result_set(const onnx_backend *b, const fv_node *n, fv_onnx_value v)
{
    b->of[n->out->index] = v;
    return fv_onnx_status(b->g);
}

/* ---- where values come from -------------------------------------------------------------- */

static fv_status input_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_dim dims[FV_GRAPH_DIMS];
    fv_onnx_dims(n->out, dims);
    return result_set(
        b, n, fv_onnx_input(b->g, n->out->name, n->out->type, dims, (size_t)n->out->n_dims));
}

static fv_status constant_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    if (!n->constant.data)
        return result_set(b, n, fv_onnx_scalar(b->g, n->out->type, n->constant.x));
    return result_set(b, n,
                      fv_onnx_weights(b->g, n->layer, n->constant.data, FV_TYPE_F32,
                                      FV_SHAPE(fv_value_elems(n->out)))
                          ->name);
}

static fv_status gather_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    const fv_mat *w = n->gather.table;
    fv_onnx_value ids = onnx_input_of(b, n, 0);
    if (n->gather.last_id) {
        fv_onnx_value last = fv_onnx_i64_scalar(b->g, n->gather.last_id);
        ids = fv_onnx(b->g, "Min", ids, last);
    }
    const char *name = fv_onnx_text(b->g, "%s.weight", n->layer);
    fv_onnx_weight *table = fv_onnx_weights(b->g, name, w->data, w->type, FV_SHAPE(w->n, w->k));
    result_name_next(b, n);
    return result_set(b, n, fv_onnx(b->g, "Gather", table->name, ids));
}

static fv_status cast_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    result_name_next(b, n);
    return result_set(b, n, fv_onnx_cast(b->g, onnx_input_of(b, n, 0), n->out->type));
}

/* ---- layers ------------------------------------------------------------------------------ */

/* The engine's rows are over (y, x, rgb); ONNX wants [n, rgb, y, x]. */
static fv_status conv_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_graph *g = b->g;
    const fv_mat *w = n->conv.w;
    uint64_t c = w->n;
    fv_onnx_weight *t = fv_onnx_weights(g, fv_onnx_text(g, "%s.weight", n->layer), w->data,
                                        FV_TYPE_F32, FV_SHAPE(c, 3, 3, 3));
    t->stride[0] = 27;
    t->stride[1] = 1;
    t->stride[2] = 9;
    t->stride[3] = 3;
    fv_onnx_weight *bias = fv_onnx_weights(g, fv_onnx_text(g, "%s.bias", n->layer), w->bias,
                                           FV_TYPE_F32, FV_SHAPE(c));
    fv_onnx_value y = fv_onnx(g, "Conv", onnx_input_of(b, n, 0), t->name, bias->name);
    fv_onnx_ints(g, "kernel_shape", FV_INTS(3, 3));
    fv_onnx_ints(g, "pads", FV_INTS(1, 1, 1, 1));
    fv_onnx_ints(g, "strides", FV_INTS(2, 2));
    return result_set(b, n, y);
}

static fv_status depthwise_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    return result_set(b, n,
                      fv_onnx_depthwise(b->g, n->layer, onnx_input_of(b, n, 0), n->depthwise.w,
                                        (int)n->depthwise.stride));
}

static fv_status linear_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_value x = onnx_input_of(b, n, 0);
    return result_set(b, n,
                      n->in[0]->form == FV_FORM_MAP
                          ? fv_onnx_pointwise(b->g, n->layer, x, n->linear.w, n->linear.scale)
                          : fv_onnx_linear(b->g, n->layer, x, n->linear.w, n->out->output));
}

static fv_status norm_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_value x = onnx_input_of(b, n, 0);
    size_t c = fv_value_cols(n->out);
    return result_set(
        b, n,
        n->op == FV_OP_CHANNEL_NORM
            ? fv_onnx_channel_norm(b->g, n->layer, x, n->norm.weight, n->norm.bias, c, n->norm.eps)
            : fv_onnx_rms_norm(b->g, n->layer, x, n->norm.weight, c, n->norm.eps));
}

/* ---- element by element ------------------------------------------------------------------ */

/* Operations that are one ONNX operator of the same inputs. */
static fv_status plain_lower(void *user, const fv_node *n)
{
    static const char *const operator[FV_OP_COUNT] = {
        [FV_OP_RELU] = "Relu",
        [FV_OP_SIGMOID] = "Sigmoid",
        [FV_OP_COS] = "Cos",
        [FV_OP_SIN] = "Sin",
        [FV_OP_ADD] = "Add",
        [FV_OP_MUL] = "Mul",
        [FV_OP_MEAN] = "GlobalAveragePool",
    };
    onnx_backend *b = user;
    fv_onnx_value in[FV_GRAPH_INPUTS];
    for (size_t i = 0; i < n->n_in; i++)
        in[i] = onnx_input_of(b, n, i);
    result_name_next(b, n);
    return result_set(b, n, fv_onnx_node(b->g, operator[n->op], in, n->n_in));
}

static fv_status gelu_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    return result_set(b, n, fv_onnx_gelu(b->g, onnx_input_of(b, n, 0)));
}

static fv_status silu_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_value x = onnx_input_of(b, n, 0);
    return result_set(b, n, fv_onnx(b->g, "Mul", x, fv_onnx(b->g, "Sigmoid", x)));
}

/* ---- attention --------------------------------------------------------------------------- */

/* Keys stay [heads, d, n], as a convolution gives them; queries and values are transposed. */
static fv_status self_attention_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_graph *g = b->g;
    const fv_value *out = n->out;
    int64_t d = (int64_t)n->self_attention.width, c = out->dim[3].n, heads = c / d,
            pixels = out->dim[1].n * out->dim[2].n;
    fv_onnx_value part[3], split[2];
    split[0] = fv_onnx_reshape(g, onnx_input_of(b, n, 0), FV_INTS(0, 3 * heads, d, pixels));
    split[1] = fv_onnx_i64(g, FV_INTS(heads, heads, heads));
    fv_onnx_node_many(g, "Split", split, 2, part, 3);
    fv_onnx_int(g, "axis", 1);
    fv_onnx_value scale = fv_onnx_scalar(g, g->real, 1 / sqrt((double)d));
    fv_onnx_value q = fv_onnx_transpose(g, fv_onnx(g, "Mul", part[0], scale), FV_INTS(0, 1, 3, 2));
    fv_onnx_value weights = fv_onnx(g, "Softmax", fv_onnx(g, "MatMul", q, part[1]));
    fv_onnx_int(g, "axis", -1);
    fv_onnx_value v = fv_onnx_transpose(g, part[2], FV_INTS(0, 1, 3, 2));
    fv_onnx_value y = fv_onnx_transpose(g, fv_onnx(g, "MatMul", weights, v), FV_INTS(0, 1, 3, 2));
    return result_set(b, n, fv_onnx_reshape(g, y, FV_INTS(0, c, out->dim[1].n, out->dim[2].n)));
}

/* In f32 whatever the graph's type is: the angles of a long conversation need it. */
static fv_status angle_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_graph *g = b->g;
    fv_onnx_weight *f = fv_onnx_weights(g, n->layer, n->angle.frequency, FV_TYPE_F32,
                                        FV_SHAPE(fv_value_cols(n->out) / 2));
    f->type = FV_TYPE_F32;
    fv_onnx_value rows = fv_onnx_unsqueeze(g, fv_onnx_cast(g, onnx_input_of(b, n, 0), FV_TYPE_F32),
                                           FV_INTS(1, 3));
    fv_onnx_value angle = fv_onnx(g, "Mul", rows, f->name);
    angle = fv_onnx(g, "Concat", angle, angle);
    fv_onnx_int(g, "axis", -1);
    return result_set(b, n, angle);
}

static fv_status rope_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_graph *g = b->g;
    int64_t half = n->out->dim[3].n / 2;
    fv_onnx_value x = onnx_input_of(b, n, 0);
    fv_onnx_value first = fv_onnx_slice(g, x, 0, half, 3),
                  second = fv_onnx_slice(g, x, half, 2 * half, 3);
    fv_onnx_value turned = fv_onnx(g, "Concat", fv_onnx(g, "Neg", second), first);
    fv_onnx_int(g, "axis", -1);
    x = fv_onnx(g, "Mul", x, onnx_input_of(b, n, 1));
    turned = fv_onnx(g, "Mul", turned, onnx_input_of(b, n, 2));
    return result_set(b, n, fv_onnx(g, "Add", x, turned));
}

static double low_score(const fv_onnx_graph *g)
{
    return g->real == FV_TYPE_F16 ? -65504.0 : -0x1p126;
}

/* A mask of fixed length; with several new rows also causal among them. */
static fv_onnx_value fixed_mask_lower(fv_onnx_graph *g, const fv_node *n, fv_onnx_value mask)
{
    size_t rows = (size_t)n->mask.step_len, total = (size_t)n->mask.cache_len + rows;
    fv_onnx_value seen = fv_onnx_cast(g, mask, g->real);
    if (n->in[0]->n_dims == 2)
        seen = fv_onnx_unsqueeze(g, seen, FV_INTS(1, 2));
    if (rows > 1) {
        float *causal = fv_onnx_take(g, rows * total, sizeof *causal);
        for (size_t i = 0; causal && i < rows; i++)
            for (size_t j = 0; j <= total - rows + i; j++)
                causal[i * total + j] = 1;
        fv_onnx_weight *t = fv_onnx_weights(g, "causal", causal, FV_TYPE_F32,
                                            FV_SHAPE(1, 1, rows, total));
        seen = fv_onnx(g, "Mul", seen, t->name);
    }
    fv_onnx_value one = fv_onnx_scalar(g, g->real, 1),
                  low = fv_onnx_scalar(g, g->real, low_score(g));
    return fv_onnx(g, "Mul", fv_onnx(g, "Sub", one, seen), low);
}

/* Row i of N sees the columns up to past + i of attention_mask [batch, total]. */
static fv_onnx_value growing_mask_lower(fv_onnx_graph *g, fv_onnx_value mask, fv_onnx_value x)
{
    fv_onnx_value zero = fv_onnx_i64_scalar(g, 0), one = fv_onnx_i64_scalar(g, 1);
    fv_onnx_value total = fv_onnx(g, "Gather", fv_onnx(g, "Shape", mask), one);
    fv_onnx_value n = fv_onnx(g, "Gather", fv_onnx(g, "Shape", x), one);
    fv_onnx_value column = fv_onnx(g, "Range", zero, total, one);
    fv_onnx_value row = fv_onnx(g, "Range", fv_onnx(g, "Sub", total, n), total, one);
    fv_onnx_value later = fv_onnx(g, "Greater", column, fv_onnx_unsqueeze(g, row, FV_INTS(1)));
    fv_onnx_value hidden = fv_onnx(g, "Equal", fv_onnx_unsqueeze(g, mask, FV_INTS(1, 2)), zero);
    fv_onnx_value low = fv_onnx_scalar(g, g->real, low_score(g)),
                  nothing = fv_onnx_scalar(g, g->real, 0);
    return fv_onnx(g, "Where", fv_onnx(g, "Or", later, hidden), low, nothing);
}

static fv_status mask_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    return result_set(b, n,
                      n->mask.step_len ? fixed_mask_lower(b->g, n, onnx_input_of(b, n, 0))
                                       : growing_mask_lower(b->g, onnx_input_of(b, n, 0),
                                                            onnx_input_of(b, n, 1)));
}

/* [heads, N, .] seen as [kv, heads / kv * N, .] and back. A graph has a bias here: without one
 * (FV_CACHE_NONE) is for graph_run. */
static fv_status attention_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_graph *g = b->g;
    int64_t heads = n->in[0]->dim[1].n, d = n->in[0]->dim[3].n, kv = n->in[2]->dim[1].n;
    fv_onnx_value k = onnx_input_of(b, n, 1);
    if (n->n_in < 4)
        return fv_fail(g->err, FV_ERR_UNSUPPORTED, 0, "%s: attention without a mask", n->out->name);
    if (!n->attention.transposed)
        k = fv_onnx_transpose(g, k, FV_INTS(0, 1, 3, 2));
    fv_onnx_value q = fv_onnx_reshape(g, onnx_input_of(b, n, 0), FV_INTS(0, kv, -1, d));
    fv_onnx_value scores = fv_onnx_reshape(g, fv_onnx(g, "MatMul", q, k), FV_INTS(0, heads, -1, 0));
    fv_onnx_value weights = fv_onnx(g, "Softmax",
                                    fv_onnx(g, "Add", scores, onnx_input_of(b, n, 3)));
    fv_onnx_int(g, "axis", -1);
    weights = fv_onnx_reshape(g, weights, FV_INTS(0, kv, -1, 0));
    fv_onnx_value y = fv_onnx_reshape(g, fv_onnx(g, "MatMul", weights, onnx_input_of(b, n, 2)),
                                      FV_INTS(0, heads, -1, d));
    y = fv_onnx_transpose(g, y, FV_INTS(0, 2, 1, 3));
    return result_set(b, n, fv_onnx_reshape(g, y, FV_INTS(0, 0, heads * d)));
}

/* ---- data that moves --------------------------------------------------------------------- */

static fv_status rows_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    const fv_value *out = n->out;
    fv_onnx_value x = fv_onnx_reshape(b->g, onnx_input_of(b, n, 0),
                                      FV_INTS(0, out->dim[2].n, out->dim[1].n));
    return result_set(b, n, fv_onnx_transpose(b->g, x, FV_INTS(0, 2, 1)));
}

static fv_status heads_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_value x = fv_onnx_reshape(b->g, onnx_input_of(b, n, 0),
                                      FV_INTS(0, 0, n->out->dim[1].n, n->out->dim[3].n));
    result_name_next(b, n);
    return result_set(b, n, fv_onnx_transpose(b->g, x, FV_INTS(0, 2, 1, 3)));
}

static fv_status transpose_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    result_name_next(b, n);
    return result_set(b, n, fv_onnx_transpose(b->g, onnx_input_of(b, n, 0), FV_INTS(0, 1, 3, 2)));
}

static fv_status concat_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    result_name_next(b, n);
    fv_onnx_value y = fv_onnx(b->g, "Concat", onnx_input_of(b, n, 0), onnx_input_of(b, n, 1));
    fv_onnx_int(b->g, "axis", n->concat.axis);
    return result_set(b, n, y);
}

static fv_status slice_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    result_name_next(b, n);
    return result_set(
        b, n,
        fv_onnx_slice(b->g, onnx_input_of(b, n, 0), n->slice.begin, n->slice.end, n->slice.axis));
}

/* All when the number is 0, as -0 is the beginning. */
static fv_status tail_lower(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_graph *g = b->g;
    fv_onnx_value from = fv_onnx_reshape(g, fv_onnx(g, "Neg", onnx_input_of(b, n, 1)), FV_INTS(1));
    fv_onnx_value to = fv_onnx_i64(g, FV_INTS(INT64_MAX)), axis = fv_onnx_i64(g, FV_INTS(1));
    return result_set(b, n, fv_onnx(g, "Slice", onnx_input_of(b, n, 0), from, to, axis));
}

/* ---- the table --------------------------------------------------------------------------- */

static fv_status scope_enter(void *user, const fv_node *n)
{
    onnx_backend *b = user;
    fv_onnx_scope(b->g, "%s", n->scope);
    return FV_OK;
}

static const fv_backend onnx_operations = {
    .name = "ONNX",
    .before = scope_enter,
    .op = {
    [FV_OP_INPUT] = input_lower,
    [FV_OP_CONSTANT] = constant_lower,
    [FV_OP_GATHER] = gather_lower,
    [FV_OP_CAST] = cast_lower,
    [FV_OP_CONV] = conv_lower,
    [FV_OP_DEPTHWISE] = depthwise_lower,
    [FV_OP_LINEAR] = linear_lower,
    [FV_OP_CHANNEL_NORM] = norm_lower,
    [FV_OP_RMS_NORM] = norm_lower,
    [FV_OP_GELU] = gelu_lower,
    [FV_OP_RELU] = plain_lower,
    [FV_OP_SIGMOID] = plain_lower,
    [FV_OP_SILU] = silu_lower,
    [FV_OP_COS] = plain_lower,
    [FV_OP_SIN] = plain_lower,
    [FV_OP_ADD] = plain_lower,
    [FV_OP_MUL] = plain_lower,
    [FV_OP_MEAN] = plain_lower,
    [FV_OP_SELF_ATTENTION] = self_attention_lower,
    [FV_OP_ANGLE] = angle_lower,
    [FV_OP_ROPE] = rope_lower,
    [FV_OP_MASK] = mask_lower,
    [FV_OP_ATTENTION] = attention_lower,
    [FV_OP_ROWS] = rows_lower,
    [FV_OP_HEADS] = heads_lower,
    [FV_OP_TRANSPOSE] = transpose_lower,
    [FV_OP_CONCAT] = concat_lower,
    [FV_OP_SLICE] = slice_lower,
    [FV_OP_TAIL] = tail_lower,
    },
};

fv_status fv_onnx_lower(fv_onnx_graph *g, const fv_graph *part)
{
    onnx_backend b = { g, fv_onnx_take(g, part->n_values, sizeof *b.of) };
    FV_TRY(fv_onnx_status(g));
    if (g->status == FV_OK)
        g->status = fv_graph_lower(part, &onnx_operations, &b, g->err);
    for (size_t i = 0; i < part->n_outputs && g->status == FV_OK; i++) {
        const fv_value *v = part->output[i];
        fv_dim dims[FV_GRAPH_DIMS];
        fv_onnx_dims(v, dims);
        fv_onnx_output(g, v->output, v->type, dims, (size_t)v->n_dims);
    }
    return fv_onnx_status(g);
}
