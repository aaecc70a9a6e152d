/* Nodes and values, shapes inferred. See graph.h. */
#include "base/list.h"
#include "graph/graph.h"

#include <assert.h>
#include <string.h>

const char *fv_op_name(fv_op op)
{
    static const char *const name[FV_OP_COUNT] = {
        [FV_OP_INPUT] = "input",
        [FV_OP_CONSTANT] = "constant",
        [FV_OP_GATHER] = "gather",
        [FV_OP_CAST] = "cast",
        [FV_OP_CONV] = "conv",
        [FV_OP_DEPTHWISE] = "depthwise",
        [FV_OP_LINEAR] = "linear",
        [FV_OP_CHANNEL_NORM] = "channel_norm",
        [FV_OP_RMS_NORM] = "rms_norm",
        [FV_OP_GELU] = "gelu",
        [FV_OP_RELU] = "relu",
        [FV_OP_SIGMOID] = "sigmoid",
        [FV_OP_SILU] = "silu",
        [FV_OP_COS] = "cos",
        [FV_OP_SIN] = "sin",
        [FV_OP_ADD] = "add",
        [FV_OP_MUL] = "mul",
        [FV_OP_MEAN] = "mean",
        [FV_OP_SELF_ATTENTION] = "self_attention",
        [FV_OP_ANGLE] = "angle",
        [FV_OP_ROPE] = "rope",
        [FV_OP_MASK] = "mask",
        [FV_OP_ATTENTION] = "attention",
        [FV_OP_ROWS] = "rows",
        [FV_OP_HEADS] = "heads",
        [FV_OP_TRANSPOSE] = "transpose",
        [FV_OP_CONCAT] = "concat",
        [FV_OP_SLICE] = "slice",
        [FV_OP_TAIL] = "tail",
    };
    return name[op];
}

const void *fv_node_weight(const fv_node *n)
{
    switch (n->op) {
    case FV_OP_GATHER: return n->gather.table;
    case FV_OP_CONV: return n->conv.w;
    case FV_OP_DEPTHWISE: return n->depthwise.w;
    case FV_OP_LINEAR: return n->linear.w;
    default: return NULL;
    }
}

/* ---- memory ------------------------------------------------------------------------------ */

static void *graph_out_of_memory(fv_graph *g, size_t n_bytes)
{
    if (g->status == FV_OK)
        g->status = fv_fail_memory(g->err, n_bytes, "a graph");
    return NULL;
}

void *fv_graph_take(fv_graph *g, size_t count, size_t size)
{
    void *p = g->status == FV_OK ? fv_region_take(&g->region, count, size) : NULL;
    return p ? p : graph_out_of_memory(g, count * size);
}

static const char *graph_vtext(fv_graph *g, const char *format, va_list args)
{
    const char *text = g->status == FV_OK ? fv_region_text(&g->region, format, args) : NULL;
    return text ? text : graph_out_of_memory(g, strlen(format));
}

static FV_PRINTF(2, 3) const char *graph_text(fv_graph *g, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = graph_vtext(g, format, args);
    va_end(args);
    return text;
}

/* Appends to one of the graph's lists of pointers. */
static bool list_add(fv_graph *g, void *list_, size_t *n, size_t *room, void *item)
{
    void ***list = list_;
    if (g->status != FV_OK)
        return false;
    if (fv_list_room(list, *n, room, 1, sizeof **list, NULL) != FV_OK) {
        graph_out_of_memory(g, 2 * *room * sizeof **list);
        return false;
    }
    (*list)[(*n)++] = item;
    return true;
}

void fv_graph_begin(fv_graph *g, const char *name, fv_error *err)
{
    *g = (fv_graph){ .part = "", .scope = "", .err = err };
    g->name = graph_text(g, "%s", name);
}

void fv_graph_end(fv_graph *g)
{
    fv_region_free(&g->region);
    fv_free(g->node);
    fv_free(g->value);
    fv_free(g->input);
    fv_free(g->output);
    *g = (fv_graph){ 0 };
}

/* ---- values ------------------------------------------------------------------------------ */

const fv_value *fv_graph_find(const fv_graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_values; i++) {
        const fv_value *v = g->value[i];
        if (!strcmp(v->name, name) || (v->alias && !strcmp(v->alias, name)))
            return v;
    }
    return NULL;
}

size_t fv_value_elems(const fv_value *v)
{
    size_t n = 1;
    for (int i = 0; i < v->n_dims; i++)
        n *= (size_t)v->dim[i].n;
    return n;
}

size_t fv_value_cols(const fv_value *v) { return v->n_dims ? (size_t)v->dim[v->n_dims - 1].n : 1; }

size_t fv_value_rows(const fv_value *v)
{
    size_t cols = fv_value_cols(v);
    return cols ? fv_value_elems(v) / cols : 0;
}

void fv_graph_scope(fv_graph *g, const char *part, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *scope = graph_vtext(g, format, args);
    va_end(args);
    g->part = part;
    g->scope = scope ? scope : "";
}

/* PART.SCOPE.NAME, without those that are empty */
static const char *scoped_name(fv_graph *g, const char *name)
{
    const char *dot1 = *g->part && *g->scope ? "." : "",
               *dot2 = (*g->part || *g->scope) && *name ? "." : "";
    return graph_text(g, "%s%s%s%s%s", g->part, dot1, g->scope, dot2, name);
}

static fv_value *value_add(fv_graph *g, const char *name, fv_type type, fv_form form,
                           const fv_dim *dims, int n_dims)
{
    fv_value *v = fv_graph_take(g, 1, sizeof *v);
    if (!v || !name)
        return NULL;
    *v = (fv_value){
        .name = name, .index = g->n_values, .form = form, .type = type, .n_dims = n_dims
    };
    for (int i = 0; i < n_dims; i++)
        v->dim[i] = dims[i];
    return list_add(g, &g->value, &g->n_values, &g->value_room, v) ? v : NULL;
}

void fv_graph_stage(fv_graph *g, fv_value *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *name = graph_vtext(g, format, args);
    va_end(args);
    if (!v || !name)
        return;
    if (v->stage)
        v->alias = name;
    else
        v->name = name;
    v->stage = true;
}

void fv_graph_output(fv_graph *g, fv_value *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *name = graph_vtext(g, format, args);
    va_end(args);
    if (v && list_add(g, &g->output, &g->n_outputs, &g->output_room, v))
        v->output = name;
}

/* ---- nodes ------------------------------------------------------------------------------- */

/* A node without a result yet; NULL when an input is. */
static fv_node *node_add(fv_graph *g, fv_op op, const char *layer, fv_value *const *in, size_t n_in)
{
    for (size_t i = 0; i < n_in; i++)
        if (!in[i])
            return NULL;
    fv_node *n = fv_graph_take(g, 1, sizeof *n);
    if (!n)
        return NULL;
    *n = (fv_node){ .op = op, .scope = g->scope, .n_in = n_in };
    if (layer && !(n->layer = graph_text(g, "%s", layer)))
        return NULL;
    for (size_t i = 0; i < n_in; i++) {
        n->in[i] = in[i];
        in[i]->last_use = n;
        in[i]->n_uses++;
    }
    return list_add(g, &g->node, &g->n_nodes, &g->node_room, n) ? n : NULL;
}

#define NODE(g, op, layer, ...)                           \
    node_add(g, op, layer, (fv_value *[]){ __VA_ARGS__ }, \
             sizeof((fv_value *[]){ __VA_ARGS__ }) / sizeof(fv_value *))

/* The node's result. name NULL: as the first input, with the operation behind it. */
static fv_value *node_result(fv_graph *g, fv_node *n, const char *name, fv_type type, fv_form form,
                             const fv_dim *dims, int n_dims)
{
    if (!n || g->status != FV_OK)
        return NULL;
    if (!name)
        name = graph_text(g, "%s.%s", n->in[0]->name, fv_op_name(n->op));
    if ((n->out = value_add(g, name, type, form, dims, n_dims)))
        n->out->from = n;
    return n->out;
}

/* Of the first input's type and shape. */
static fv_value *same_result(fv_graph *g, fv_node *n, const char *name)
{
    const fv_value *x = n ? n->in[0] : NULL;
    return x ? node_result(g, n, name, x->type, x->form, x->dim, x->n_dims) : NULL;
}

/* Of the first input's shape with another last dimension. */
static fv_value *resized_result(fv_graph *g, fv_node *n, const char *name, size_t last)
{
    fv_dim dim[FV_GRAPH_DIMS];
    const fv_value *x = n ? n->in[0] : NULL;
    if (!x)
        return NULL;
    memcpy(dim, x->dim, sizeof dim);
    dim[x->n_dims - 1] = FV_DIM(last);
    return node_result(g, n, name, x->type, x->form, dim, x->n_dims);
}

fv_value *fv_graph_input(fv_graph *g, const char *name, fv_type type, fv_form form,
                         const fv_dim *dims, int n_dims)
{
    fv_node *n = node_add(g, FV_OP_INPUT, NULL, NULL, 0);
    fv_value *v = node_result(g, n, graph_text(g, "%s", name), type, form, dims, n_dims);
    return v && list_add(g, &g->input, &g->n_inputs, &g->input_room, v) ? v : NULL;
}

fv_value *fv_graph_scalar(fv_graph *g, fv_type type, const char *name, double x)
{
    fv_node *n = node_add(g, FV_OP_CONSTANT, NULL, NULL, 0);
    if (n)
        n->constant.x = x;
    return node_result(g, n, scoped_name(g, name), type, FV_FORM_OTHER, NULL, 0);
}

fv_value *fv_graph_vector(fv_graph *g, fv_type type, const char *layer, const float *data, size_t n)
{
    fv_node *node = node_add(g, FV_OP_CONSTANT, layer, NULL, 0);
    if (node)
        node->constant.data = data;
    return node_result(g, node, scoped_name(g, layer), type, FV_FORM_OTHER, (fv_dim[]){ FV_DIM(n) },
                       1);
}

fv_value *fv_graph_gather(fv_graph *g, fv_value *ids, fv_type type, const char *layer,
                          const fv_mat *table, int last_id)
{
    fv_node *n = NODE(g, FV_OP_GATHER, layer, ids);
    if (!n)
        return NULL;
    n->gather.table = table;
    n->gather.last_id = last_id;
    fv_dim dim[] = { ids->dim[0], ids->dim[1], FV_DIM(table->k) };
    return node_result(g, n, scoped_name(g, layer), type, FV_FORM_ROWS, dim, 3);
}

fv_value *fv_graph_cast(fv_graph *g, fv_value *x, fv_type type)
{
    if (!x || x->type == type)
        return x;
    fv_node *n = NODE(g, FV_OP_CAST, NULL, x);
    return node_result(g, n, NULL, type, x->form, x->dim, x->n_dims);
}

/* ---- layers ------------------------------------------------------------------------------ */

/* A map [batch, height, width, .] shrunk by the stride. */
static fv_value *map_result(fv_graph *g, fv_node *n, const char *name, unsigned stride,
                            size_t channels)
{
    if (!n)
        return NULL;
    const fv_value *x = n->in[0];
    assert(x->form == FV_FORM_MAP);
    fv_dim dim[] = { x->dim[0], FV_DIM(x->dim[1].n / stride), FV_DIM(x->dim[2].n / stride),
                     FV_DIM(channels) };
    return node_result(g, n, name, x->type, FV_FORM_MAP, dim, 4);
}

fv_value *fv_graph_conv(fv_graph *g, fv_value *x, const char *layer, const fv_mat *w)
{
    fv_node *n = NODE(g, FV_OP_CONV, layer, x);
    if (n)
        n->conv.w = w;
    return map_result(g, n, scoped_name(g, layer), 2, w->n);
}

fv_value *fv_graph_depthwise(fv_graph *g, fv_value *x, const char *layer, const fv_dw *w,
                             unsigned stride)
{
    fv_node *n = NODE(g, FV_OP_DEPTHWISE, layer, x);
    if (!n)
        return NULL;
    assert(fv_value_cols(x) == w->channels);
    n->depthwise.w = w;
    n->depthwise.stride = stride;
    return map_result(g, n, scoped_name(g, layer), stride, w->channels * w->mult);
}

fv_value *fv_graph_linear(fv_graph *g, fv_value *x, const char *layer, const fv_mat *w,
                          const float *scale)
{
    fv_node *n = NODE(g, FV_OP_LINEAR, layer, x);
    if (!n)
        return NULL;
    assert(fv_value_cols(x) == w->k);
    n->linear.w = w;
    n->linear.scale = scale;
    return resized_result(g, n, scoped_name(g, layer), w->n);
}

fv_value *fv_graph_norm(fv_graph *g, fv_op op, fv_value *x, const char *layer, const float *weight,
                        const float *bias, double eps)
{
    fv_node *n = NODE(g, op, layer, x);
    if (!n)
        return NULL;
    n->norm.weight = weight;
    n->norm.bias = bias;
    n->norm.eps = eps;
    return same_result(g, n, scoped_name(g, layer));
}

/* ---- element by element ------------------------------------------------------------------ */

fv_value *fv_graph_unary(fv_graph *g, fv_op op, fv_value *x)
{
    return same_result(g, NODE(g, op, NULL, x), NULL);
}

fv_value *fv_graph_add(fv_graph *g, fv_value *a, fv_value *b, const char *name)
{
    return same_result(g, NODE(g, FV_OP_ADD, NULL, a, b), scoped_name(g, name));
}

fv_value *fv_graph_mul(fv_graph *g, fv_value *a, fv_value *b, const char *name)
{
    return same_result(g, NODE(g, FV_OP_MUL, NULL, a, b), scoped_name(g, name));
}

fv_value *fv_graph_mean(fv_graph *g, fv_value *x)
{
    fv_node *n = NODE(g, FV_OP_MEAN, NULL, x);
    if (!n)
        return NULL;
    fv_dim dim[] = { x->dim[0], FV_DIM(1), FV_DIM(1), x->dim[3] };
    return node_result(g, n, NULL, x->type, FV_FORM_MAP, dim, 4);
}

/* ---- attention --------------------------------------------------------------------------- */

/* Scores and weights inside attention: [batch, heads, rows, keys]. */
static fv_value *inner_value(fv_graph *g, const fv_node *n, const char *name, const fv_dim *dim)
{
    fv_value *v = value_add(g, graph_text(g, "%s.%s", n->out->name, name), n->in[0]->type,
                            FV_FORM_OTHER, dim, 4);
    if (v)
        v->from = n;
    return v;
}

fv_value *fv_graph_self_attention(fv_graph *g, fv_value *qkv, const char *name, size_t width)
{
    fv_node *n = NODE(g, FV_OP_SELF_ATTENTION, NULL, qkv);
    if (!n)
        return NULL;
    size_t c = fv_value_cols(qkv) / 3;
    int64_t pixels = qkv->dim[1].n * qkv->dim[2].n;
    fv_dim inner[] = { qkv->dim[0], FV_DIM(c / width), FV_DIM(pixels), FV_DIM(pixels) };
    n->self_attention.width = width;
    if (!resized_result(g, n, scoped_name(g, name), c))
        return NULL;
    n->self_attention.scores = inner_value(g, n, "scores", inner);
    n->self_attention.weights = inner_value(g, n, "weights", inner);
    return n->out;
}

fv_value *fv_graph_angle(fv_graph *g, fv_value *positions, const float *frequency, size_t half)
{
    fv_node *n = NODE(g, FV_OP_ANGLE, "frequency", positions);
    if (!n)
        return NULL;
    n->angle.frequency = frequency;
    fv_dim dim[] = { positions->dim[0], FV_DIM(1), positions->dim[1], FV_DIM(2 * half) };
    return node_result(g, n, NULL, FV_TYPE_F32, FV_FORM_HEADS, dim, 4);
}

fv_value *fv_graph_rope(fv_graph *g, fv_value *x, fv_value *cos, fv_value *sin)
{
    return same_result(g, NODE(g, FV_OP_ROPE, NULL, x, cos, sin), NULL);
}

fv_value *fv_graph_mask(fv_graph *g, fv_value *mask, fv_value *rows, fv_type type, int step_len,
                        int cache_len)
{
    fv_node *n = step_len ? NODE(g, FV_OP_MASK, NULL, mask) : NODE(g, FV_OP_MASK, NULL, mask, rows);
    if (!n)
        return NULL;
    n->mask.step_len = step_len;
    n->mask.cache_len = cache_len;
    fv_dim dim[] = { mask->dim[0], FV_DIM(1), rows->dim[1], mask->dim[mask->n_dims - 1] };
    return node_result(g, n, NULL, type, FV_FORM_OTHER, dim, 4);
}

fv_value *fv_graph_attention(fv_graph *g, fv_value *q, fv_value *k, fv_value *v, fv_value *bias,
                             const char *name, bool transposed)
{
    fv_node *n = bias ? NODE(g, FV_OP_ATTENTION, NULL, q, k, v, bias)
                      : NODE(g, FV_OP_ATTENTION, NULL, q, k, v);
    if (!n)
        return NULL;
    n->attention.transposed = transposed;
    fv_dim dim[] = { q->dim[0], q->dim[2], FV_DIM(q->dim[1].n * q->dim[3].n) };
    fv_dim inner[] = { q->dim[0], q->dim[1], q->dim[2], v->dim[2] };
    if (!node_result(g, n, scoped_name(g, name), q->type, FV_FORM_ROWS, dim, 3))
        return NULL;
    n->attention.scores = inner_value(g, n, "scores", inner);
    n->attention.weights = inner_value(g, n, "weights", inner);
    return n->out;
}

/* ---- data that moves --------------------------------------------------------------------- */

fv_value *fv_graph_rows(fv_graph *g, fv_value *map)
{
    fv_node *n = NODE(g, FV_OP_ROWS, NULL, map);
    if (!n)
        return NULL;
    fv_dim dim[] = { map->dim[0], FV_DIM(map->dim[1].n * map->dim[2].n), map->dim[3] };
    return node_result(g, n, NULL, map->type, FV_FORM_ROWS, dim, 3);
}

fv_value *fv_graph_heads(fv_graph *g, fv_value *x, size_t heads)
{
    fv_node *n = NODE(g, FV_OP_HEADS, NULL, x);
    if (!n)
        return NULL;
    fv_dim dim[] = { x->dim[0], FV_DIM(heads), x->dim[1], FV_DIM(x->dim[2].n / (int64_t)heads) };
    return node_result(g, n, NULL, x->type, FV_FORM_HEADS, dim, 4);
}

fv_value *fv_graph_transpose(fv_graph *g, fv_value *x)
{
    fv_node *n = NODE(g, FV_OP_TRANSPOSE, NULL, x);
    if (!n)
        return NULL;
    fv_dim dim[FV_GRAPH_DIMS];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->n_dims - 2] = x->dim[x->n_dims - 1];
    dim[x->n_dims - 1] = x->dim[x->n_dims - 2];
    return node_result(g, n, NULL, x->type, x->form, dim, x->n_dims);
}

fv_value *fv_graph_concat(fv_graph *g, fv_value *a, fv_value *b, int axis, fv_dim length)
{
    fv_node *n = NODE(g, FV_OP_CONCAT, NULL, a, b);
    if (!n)
        return NULL;
    fv_dim dim[FV_GRAPH_DIMS];
    memcpy(dim, a->dim, sizeof dim);
    dim[axis] = length;
    n->concat.axis = axis;
    return node_result(g, n, NULL, a->type, a->form, dim, a->n_dims);
}

fv_value *fv_graph_slice(fv_graph *g, fv_value *x, int axis, int64_t begin, int64_t end)
{
    fv_node *n = NODE(g, FV_OP_SLICE, NULL, x);
    if (!n)
        return NULL;
    fv_dim dim[FV_GRAPH_DIMS];
    memcpy(dim, x->dim, sizeof dim);
    dim[axis] = FV_DIM(end - begin);
    n->slice.axis = axis;
    n->slice.begin = begin;
    n->slice.end = end;
    return node_result(g, n, NULL, x->type, x->form, dim, x->n_dims);
}

fv_value *fv_graph_tail(fv_graph *g, fv_value *x, fv_value *count, const char *length)
{
    fv_node *n = NODE(g, FV_OP_TAIL, NULL, x, count);
    if (!n)
        return NULL;
    fv_dim dim[] = { x->dim[0], FV_FREE(length), x->dim[2] };
    return node_result(g, n, NULL, x->type, x->form, dim, 3);
}

/* ---- weights without values -------------------------------------------------------------- */

static fv_status outline_weight(void *user, const fv_weight *t, fv_error *err)
{
    (void)user;
    (void)err;
    switch (t->kind) {
    case FV_WEIGHT_MATRIX:
    case FV_WEIGHT_MATRIX_BIAS: *(fv_mat *)t->slot = (fv_mat){ .n = t->n, .k = t->k }; break;
    case FV_WEIGHT_STEM:
        *(fv_mat *)t->slot = (fv_mat){ .n = t->n, .k = t->k * t->kernel * t->kernel };
        break;
    case FV_WEIGHT_DEPTHWISE:
    case FV_WEIGHT_DEPTHWISE_BN:
        *(fv_dw *)t->slot =
            (fv_dw){ .channels = t->k, .mult = (unsigned)(t->n / t->k), .kernel = t->kernel };
        break;
    case FV_WEIGHT_VECTOR: break;
    }
    return FV_OK;
}

fv_status fv_graph_outline(fv_weights *w, const fv_config *c, fv_error *err)
{
    fv_status status = fv_weights_alloc(w, c, err);
    if (status == FV_OK)
        status = fv_weights_walk(w, c, outline_weight, NULL, err);
    w->tied = c->tied;
    if (w->tied)
        w->decoder.head = w->decoder.embed;
    if (status != FV_OK)
        fv_weights_free(w);
    return status;
}

/* ---- lowering ---------------------------------------------------------------------------- */

fv_status fv_graph_lower(const fv_graph *g, const fv_backend *b, void *user, fv_error *err)
{
    FV_TRY(g->status);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const fv_node *n = g->node[i];
        if (!b->op[n->op])
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s has no operation %s", n->out->name,
                           b->name, fv_op_name(n->op));
        if (b->before)
            FV_TRY(b->before(user, n));
        FV_TRY(b->op[n->op](user, n));
        if (b->after)
            FV_TRY(b->after(user, n));
    }
    return FV_OK;
}
