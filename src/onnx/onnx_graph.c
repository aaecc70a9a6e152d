/* One ONNX graph, built node by node. See onnx_graph.h. */
#include "base/list.h"
#include "onnx/onnx_graph.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/number.h"

static void onnx_out_of_memory(fv_onnx_graph *g, size_t n_bytes)
{
    if (g->status == FV_OK)
        g->status = fv_fail_memory(g->err, n_bytes, "an ONNX graph");
}

void *fv_onnx_take(fv_onnx_graph *g, size_t count, size_t size)
{
    void *p = g->status == FV_OK ? fv_region_take(&g->region, count, size) : NULL;
    if (!p)
        onnx_out_of_memory(g, count * size);
    return p;
}

const char *fv_onnx_text(fv_onnx_graph *g, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = g->status == FV_OK ? fv_region_text(&g->region, format, args) : NULL;
    va_end(args);
    if (!text)
        onnx_out_of_memory(g, strlen(format));
    return text ? text : "";
}

/* protobuf-c's structs hold char *; nothing writes through them. */
static char *borrowed_text(const char *text) { return (char *)(uintptr_t)text; }

void fv_onnx_begin(fv_onnx_graph *g, const char *name, fv_type real, int opset, bool fused,
                   fv_error *err)
{
    *g = (fv_onnx_graph){ .real = real, .opset = opset, .fused = fused, .err = err };
    onnx__graph_proto__init(&g->graph);
    g->last_weight = &g->weights;
    g->graph.name = borrowed_text(fv_onnx_text(g, "%s", name));
}

void fv_onnx_end(fv_onnx_graph *g)
{
    fv_region_free(&g->region);
    fv_free(g->graph.node);
    fv_free(g->graph.input);
    fv_free(g->graph.output);
    *g = (fv_onnx_graph){ 0 };
}

void fv_onnx_scope(fv_onnx_graph *g, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fv_format_list(g->scope, sizeof g->scope, format, args);
    va_end(args);
}

/* Room for one more pointer at the end of a list. */
static bool onnx_list_grow(fv_onnx_graph *g, void ***list, size_t n, size_t *room)
{
    if (g->status != FV_OK)
        return false;
    if (fv_list_room(list, n, room, 1, sizeof **list, NULL) == FV_OK)
        return true;
    onnx_out_of_memory(g, 2 * *room * sizeof **list);
    return false;
}

/* ---- nodes ------------------------------------------------------------------------------- */

void fv_onnx_call_next(fv_onnx_graph *g, const char *name) { g->next_name = name; }

static const char *onnx_result_name(fv_onnx_graph *g, const char *op)
{
    const char *name = g->next_name;
    g->next_name = NULL;
    return name ? fv_onnx_text(g, "%s", name)
                : fv_onnx_text(g, "%s%s%s_%u", g->scope, *g->scope ? "/" : "", op, g->n_values++);
}

void fv_onnx_node_many(fv_onnx_graph *g, const char *op, const fv_onnx_value *inputs,
                       size_t n_inputs, fv_onnx_value *outputs, size_t n_outputs)
{
    Onnx__NodeProto *node = fv_onnx_take(g, 1, sizeof *node);
    for (size_t i = 0; i < n_outputs; i++)
        outputs[i] = "";
    if (!node || !onnx_list_grow(g, (void ***)&g->graph.node, g->graph.n_node, &g->node_room))
        return;
    onnx__node_proto__init(node);
    node->op_type = borrowed_text(fv_onnx_text(g, "%s", op));
    node->input = fv_onnx_take(g, n_inputs, sizeof *node->input);
    node->output = fv_onnx_take(g, n_outputs, sizeof *node->output);
    for (size_t i = 0; i < n_outputs; i++)
        outputs[i] = onnx_result_name(g, op);
    if (g->status != FV_OK)
        return;
    for (size_t i = 0; i < n_inputs; i++)
        node->input[i] = borrowed_text(inputs[i]);
    for (size_t i = 0; i < n_outputs; i++)
        node->output[i] = borrowed_text(outputs[i]);
    node->n_input = n_inputs;
    node->n_output = n_outputs;
    node->name = node->output[0];
    g->graph.node[g->graph.n_node++] = node;
}

fv_onnx_value fv_onnx_node(fv_onnx_graph *g, const char *op, const fv_onnx_value *inputs,
                           size_t n_inputs)
{
    fv_onnx_value output;
    fv_onnx_node_many(g, op, inputs, n_inputs, &output, 1);
    return output;
}

static Onnx__AttributeProto *attribute_add(fv_onnx_graph *g, const char *name,
                                           Onnx__AttributeProto__AttributeType type)
{
    enum { ROOM = 8 };
    Onnx__AttributeProto *a = fv_onnx_take(g, 1, sizeof *a);
    if (!a || g->graph.n_node == 0)
        return NULL;
    Onnx__NodeProto *node = g->graph.node[g->graph.n_node - 1];
    if (!node->attribute && !(node->attribute = fv_onnx_take(g, ROOM, sizeof *node->attribute)))
        return NULL;
    onnx__attribute_proto__init(a);
    a->name = borrowed_text(fv_onnx_text(g, "%s", name));
    a->has_type = true;
    a->type = type;
    node->attribute[node->n_attribute++] = a;
    return a;
}

void fv_onnx_int(fv_onnx_graph *g, const char *name, int64_t value)
{
    Onnx__AttributeProto *a = attribute_add(g, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (!a)
        return;
    a->has_i = true;
    a->i = value;
}

void fv_onnx_float(fv_onnx_graph *g, const char *name, float value)
{
    Onnx__AttributeProto *a = attribute_add(g, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (!a)
        return;
    a->has_f = true;
    a->f = value;
}

void fv_onnx_ints(fv_onnx_graph *g, const char *name, const int64_t *values, size_t n)
{
    Onnx__AttributeProto *a = attribute_add(g, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    if (!a || !(a->ints = fv_onnx_take(g, n, sizeof *a->ints)))
        return;
    memcpy(a->ints, values, n * sizeof *values);
    a->n_ints = n;
}

/* ---- inputs, outputs --------------------------------------------------------------------- */

int32_t fv_onnx_data_type(fv_type type)
{
    switch (type) {
    case FV_TYPE_F16: return ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16;
    case FV_TYPE_I64: return ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
    case FV_TYPE_I32: return ONNX__TENSOR_PROTO__DATA_TYPE__INT32;
    case FV_TYPE_I8: return ONNX__TENSOR_PROTO__DATA_TYPE__INT8;
    case FV_TYPE_U8: return ONNX__TENSOR_PROTO__DATA_TYPE__UINT8;
    default: return ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    }
}

static Onnx__ValueInfoProto *onnx_value_info(fv_onnx_graph *g, const char *name, fv_type type,
                                             const fv_dim *dims, size_t n)
{
    Onnx__ValueInfoProto *info = fv_onnx_take(g, 1, sizeof *info);
    Onnx__TypeProto *outer = fv_onnx_take(g, 1, sizeof *outer);
    Onnx__TypeProto__Tensor *tensor = fv_onnx_take(g, 1, sizeof *tensor);
    Onnx__TensorShapeProto *shape = fv_onnx_take(g, 1, sizeof *shape);
    Onnx__TensorShapeProto__Dimension *dim = fv_onnx_take(g, n, sizeof *dim);
    Onnx__TensorShapeProto__Dimension **list = fv_onnx_take(g, n, sizeof *list);
    const char *copy = fv_onnx_text(g, "%s", name);
    if (g->status != FV_OK)
        return NULL;
    onnx__value_info_proto__init(info);
    onnx__type_proto__init(outer);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    for (size_t i = 0; i < n; i++) {
        onnx__tensor_shape_proto__dimension__init(&dim[i]);
        if (dims[i].name) {
            dim[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            dim[i].dim_param = borrowed_text(dims[i].name);
        } else {
            dim[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dim[i].dim_value = dims[i].n;
        }
        list[i] = &dim[i];
    }
    shape->n_dim = n;
    shape->dim = list;
    tensor->has_elem_type = true;
    tensor->elem_type = fv_onnx_data_type(type);
    tensor->shape = shape;
    outer->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    outer->tensor_type = tensor;
    info->name = borrowed_text(copy);
    info->type = outer;
    return info;
}

fv_onnx_value fv_onnx_input(fv_onnx_graph *g, const char *name, fv_type type, const fv_dim *dims,
                            size_t n)
{
    Onnx__ValueInfoProto *info = onnx_value_info(g, name, type, dims, n);
    if (!info || !onnx_list_grow(g, (void ***)&g->graph.input, g->graph.n_input, &g->input_room))
        return "";
    g->graph.input[g->graph.n_input++] = info;
    return info->name;
}

void fv_onnx_output(fv_onnx_graph *g, const char *name, fv_type type, const fv_dim *dims, size_t n)
{
    Onnx__ValueInfoProto *info = onnx_value_info(g, name, type, dims, n);
    if (info && onnx_list_grow(g, (void ***)&g->graph.output, g->graph.n_output, &g->output_room))
        g->graph.output[g->graph.n_output++] = info;
}

/* ---- initialisers ------------------------------------------------------------------------ */

static fv_onnx_weight *onnx_weight_add(fv_onnx_graph *g, const char *name, fv_type type,
                                       const void *data, fv_type from, const uint64_t *shape,
                                       int n_dims)
{
    static fv_onnx_weight nowhere; /* for a caller that goes on after memory ran out; never read */
    fv_onnx_weight *w = fv_onnx_take(g, 1, sizeof *w);
    if (!w) {
        nowhere = (fv_onnx_weight){ .name = "" };
        return &nowhere;
    }
    *w = (fv_onnx_weight){
        .name = name, .type = type, .n_dims = n_dims, .data = data, .from = from
    };
    if (n_dims)
        memcpy(w->shape, shape, (size_t)n_dims * sizeof *shape);
    *g->last_weight = w;
    g->last_weight = &w->next;
    return w;
}

fv_onnx_weight *fv_onnx_weights(fv_onnx_graph *g, const char *name, const void *data, fv_type from,
                                const uint64_t *shape, int n_dims)
{
    const char *full = fv_onnx_text(g, "%s%s%s", g->scope, *g->scope ? "." : "", name);
    return onnx_weight_add(g, full,
                           fv_type_is_block(from) || from == FV_TYPE_F32 || from == FV_TYPE_F16 ||
                                   from == FV_TYPE_BF16
                               ? g->real
                               : from,
                           data, from, shape, n_dims);
}

static const fv_onnx_weight *onnx_weight_find(const fv_onnx_graph *g, const char *name)
{
    for (const fv_onnx_weight *w = g->weights; w; w = w->next)
        if (!strcmp(w->name, name))
            return w;
    return NULL;
}

fv_onnx_value fv_onnx_scalar(fv_onnx_graph *g, fv_type type, double value)
{
    const char *name = fv_onnx_text(g, "%s(%.9g)", type == FV_TYPE_F16 ? "f16" : "f32", value);
    const fv_onnx_weight *found = onnx_weight_find(g, name);
    if (found)
        return found->name;
    float *data = fv_onnx_take(g, 1, sizeof *data);
    if (!data)
        return "";
    *data = (float)value;
    return onnx_weight_add(g, name, type, data, FV_TYPE_F32, NULL, 0)->name;
}

static fv_onnx_value onnx_i64_add(fv_onnx_graph *g, const char *name, const int64_t *values,
                                  size_t n, int n_dims)
{
    uint64_t shape[1] = { n };
    const fv_onnx_weight *found = onnx_weight_find(g, name);
    if (found)
        return found->name;
    int64_t *data = fv_onnx_take(g, n, sizeof *data);
    if (!data)
        return "";
    memcpy(data, values, n * sizeof *values);
    return onnx_weight_add(g, name, FV_TYPE_I64, data, FV_TYPE_I64, shape, n_dims)->name;
}

fv_onnx_value fv_onnx_i64(fv_onnx_graph *g, const int64_t *values, size_t n)
{
    char text[FV_ONNX_NAME] = "i64[";
    size_t at = 4;
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%" PRId64, i ? "," : "", values[i]);
    snprintf(text + at, sizeof text - at, "]");
    return onnx_i64_add(g, fv_onnx_text(g, "%s", text), values, n, 1);
}

fv_onnx_value fv_onnx_u8_scalar(fv_onnx_graph *g, int value)
{
    const char *name = fv_onnx_text(g, "u8(%d)", value);
    const fv_onnx_weight *found = onnx_weight_find(g, name);
    if (found)
        return found->name;
    uint8_t *data = fv_onnx_take(g, 1, 1);
    if (!data)
        return "";
    *data = (uint8_t)value;
    return onnx_weight_add(g, name, FV_TYPE_U8, data, FV_TYPE_U8, NULL, 0)->name;
}

fv_onnx_value fv_onnx_i64_scalar(fv_onnx_graph *g, int64_t value)
{
    return onnx_i64_add(g, fv_onnx_text(g, "i64(%" PRId64 ")", value), &value, 1, 0);
}
