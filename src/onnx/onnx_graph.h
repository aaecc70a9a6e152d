/* onnx_graph: one ONNX graph, built node by node.
 *
 * A value is its name. Every function that adds a node returns the name of what it computes; when
 * memory is out it returns "" and the graph remembers (fv_onnx_status), so that a model reads
 * as a list of its steps:
 *
 *     v = fv_onnx(g, "Conv", x, weight, bias);
 *     fv_onnx_int(g, "group", 96);              belongs to the node before
 *     v = fv_onnx(g, "Relu", v);
 *
 * Weights are not copied: an initialiser says where its values are and in which order, and
 * onnx_write.c reads them there. Names depend on nothing but the order of the calls. */
#ifndef FV_ONNX_GRAPH_H
#define FV_ONNX_GRAPH_H

#include <onnx.pb-c.h>

#include "base/region.h"
#include "base/types.h"
#include "graph/graph.h"

enum { FV_ONNX_DIMS = 4, FV_ONNX_NAME = 192 };

typedef const char *fv_onnx_value;

/* An initialiser. Element (i, j, k, l) is data[i stride[0] + j stride[1] + ...]; a plain array has
 * stride[0] 0. */
typedef struct fv_onnx_weight {
    const char *name;
    fv_type type; /* in the file: F32, F16, I64, I8 or U8 */
    int n_dims;
    uint64_t shape[FV_ONNX_DIMS];
    const void *data;
    fv_type from; /* of data: any float type when type is one, otherwise the same */
    uint64_t stride[FV_ONNX_DIMS];
    const float *row_scale, *column_scale; /* [shape[0]], [shape[1]] factors, or NULL */
    struct fv_onnx_weight *next;
} fv_onnx_weight;

typedef struct fv_onnx_graph {
    Onnx__GraphProto graph; /* everything but the initialisers */
    fv_onnx_weight *weights, **last_weight;
    fv_type real; /* of activations and weights: F32 or F16 */
    int opset;
    bool qdq;   /* int8 layers with QuantizeLinear and DequantizeLinear, otherwise widened */
    bool fused; /* Gelu, LayerNormalization, RMSNormalization where the opset has them */
    char scope[FV_ONNX_NAME]; /* in front of names */
    const char *next_name;    /* of the next node's result */
    unsigned n_values;
    size_t node_room, input_room, output_room;
    fv_region region;
    fv_status status;
    fv_error *err;
} fv_onnx_graph;

void fv_onnx_begin(fv_onnx_graph *g, const char *name, fv_type real, int opset, bool fused,
                   fv_error *err);
void fv_onnx_end(fv_onnx_graph *g);
static inline fv_status fv_onnx_status(const fv_onnx_graph *g) { return g->status; }

int32_t fv_onnx_data_type(fv_type type); /* TensorProto.DataType */

/* Memory that lives as long as the graph; zeroed; NULL when out. */
void *fv_onnx_take(fv_onnx_graph *g, size_t count, size_t size);
/* Formatted text in the graph's memory; never NULL. */
const char *fv_onnx_text(fv_onnx_graph *g, const char *format, ...) FV_PRINTF(2, 3);
void fv_onnx_scope(fv_onnx_graph *g, const char *format, ...) FV_PRINTF(2, 3);

/* ---- nodes ---- */

#define fv_onnx(g, op, ...)                                     \
    fv_onnx_node(g, op, (const fv_onnx_value[]){ __VA_ARGS__ }, \
                 sizeof((const fv_onnx_value[]){ __VA_ARGS__ }) / sizeof(fv_onnx_value))

fv_onnx_value fv_onnx_node(fv_onnx_graph *g, const char *op, const fv_onnx_value *inputs,
                           size_t n_inputs);
/* The same with several results. */
void fv_onnx_node_many(fv_onnx_graph *g, const char *op, const fv_onnx_value *inputs,
                       size_t n_inputs, fv_onnx_value *outputs, size_t n_outputs);
/* The next node's result gets this name: a graph's output. */
void fv_onnx_call_next(fv_onnx_graph *g, const char *name);

/* Attributes of the node added last. */
void fv_onnx_int(fv_onnx_graph *g, const char *name, int64_t value);
void fv_onnx_float(fv_onnx_graph *g, const char *name, float value);
void fv_onnx_ints(fv_onnx_graph *g, const char *name, const int64_t *values, size_t n);
#define FV_INTS(...) \
    (const int64_t[]){ __VA_ARGS__ }, sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)

/* ---- inputs, outputs ---- */

fv_onnx_value fv_onnx_input(fv_onnx_graph *g, const char *name, fv_type type, const fv_dim *dims,
                            size_t n);
void fv_onnx_output(fv_onnx_graph *g, const char *name, fv_type type, const fv_dim *dims, size_t n);

/* ---- initialisers ---- */

/* NAME in the scope, shape as given; the result may be changed (strides, scales) before writing. */
fv_onnx_weight *fv_onnx_weights(fv_onnx_graph *g, const char *name, const void *data, fv_type from,
                                const uint64_t *shape, int n_dims);
#define FV_SHAPE(...)                  \
    (const uint64_t[]){ __VA_ARGS__ }, \
        (int)(sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))
/* Constants; equal ones are one. */
fv_onnx_value fv_onnx_scalar(fv_onnx_graph *g, fv_type type, double value);
fv_onnx_value fv_onnx_i64(fv_onnx_graph *g, const int64_t *values, size_t n); /* [n] */
fv_onnx_value fv_onnx_i64_scalar(fv_onnx_graph *g, int64_t value);
fv_onnx_value fv_onnx_u8_scalar(fv_onnx_graph *g, int value);

#endif
