/* qnn_backend: a graph as QNN nodes, in the types of a plan. See graph/graph.h, npu_plan.h. */
#ifndef FV_QNN_BACKEND_H
#define FV_QNN_BACKEND_H

#include "npu/npu_plan.h"
#include "npu/qnn.h"

/* What the NPU's graph has become; the tensors' memory is its own. */
typedef struct fv_qnn_model {
    fv_qnn_tensor *in, *out; /* of the graph, in its order; then, where shown, other values */
    const fv_value **value;  /* [n_out] what an output is */
    size_t n_in, n_out;
    size_t n_nodes, n_tensors;
    size_t n_converts;   /* nodes that only change a width, */
    size_t n_transposes; /* that only move data from axis to axis, */
    size_t n_floats;     /* that give floats */
    fv_region region;
} fv_qnn_model;

/* Weights that graphs of one context have in common, converted once; zero is empty. Freed when the
 * last of them is finalized. */
typedef struct fv_qnn_weights {
    struct qnn_weight *list;
    size_t n, capacity;
    fv_region memory;
} fv_qnn_weights;

void fv_qnn_weights_free(fv_qnn_weights *w);

typedef struct fv_qnn_model_options {
    bool f16;                /* compute f32 tensors in f16 */
    fv_qnn_weights *weights; /* NULL: each graph has its own */
    /* By index of the value: it is an output, too, behind those of the graph; NULL: none. Those
     * that fv_qnn_can_show. */
    const bool *show;
} fv_qnn_model_options;

/* Adds g to the current context, as a graph of its name, up to and without fv_qnn_finalize; *out
 * is freed after that. plan's values are g's. */
fv_status fv_qnn_model_build(fv_qnn_model *out, fv_qnn *q, const fv_npu_plan *plan,
                             const fv_kernels *k, const fv_qnn_model_options *options,
                             fv_error *err);
void fv_qnn_model_free(fv_qnn_model *m);

/* The NPU's graph has this value of an encoder as one tensor. */
bool fv_qnn_can_show(const fv_value *v);

/* Numbers <-> a tensor's own type, n of them: f32, f16, or 8 and 16 bits with a scale; ids too are
 * packed from floats. */
void fv_qnn_pack(const fv_qnn_tensor *t, void *to, const float *from, size_t n);
void fv_qnn_unpack(const fv_qnn_tensor *t, float *to, const void *from, size_t n);

#endif
