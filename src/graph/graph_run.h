/* graph_run: a graph executed in f32, one operation after the other, every value shown.
 *
 * The second opinion on nn/vision.c and nn/decoder.c, and the eye of whatever needs to know what
 * flows between operations: ranges for int8 and for an NPU (graph_ranges.h). It calls the engine's
 * own kernels without fusing anything, so that values are those of the engine in f32; weights of
 * any type are widened. Maps are [height, width, channels]. */
#ifndef FV_GRAPH_RUN_H
#define FV_GRAPH_RUN_H

#include "graph/graph.h"
#include "nn/ops.h"

/* An input or an output by its name: f32, ids and positions i64. An output is a copy for the
 * caller, fv_value_elems of its value. */
typedef struct fv_run_input {
    const char *name;
    const void *data;
} fv_run_input;
typedef struct fv_run_output {
    const char *name;
    float *data;
} fv_run_output;

typedef struct fv_graph_observer {
    void *user;
    /* Every f32 value as it is made, inputs and constants included: fv_value_rows rows of
     * fv_value_cols. x is only there during the call; another status than FV_OK ends the run. */
    fv_status (*value)(void *user, const fv_value *v, const float *x);
    /* Before that, what a node has computed: may change it, and all that follows; or NULL. */
    void (*change)(void *user, const fv_value *v, float *x);
    /* Self-attention in which `change` also sees scores and weights, as it goes; or NULL: none. */
    bool (*inside)(void *user, const fv_node *n);
    /* What a layer with weights reads, in[0], as a copy for it alone: may change that; or NULL. */
    void (*read)(void *user, const fv_node *n, float *x);
    /* Also the values inside attention, which cost time and memory: heads * rows * rows. */
    bool inner;
} fv_graph_observer;

typedef struct fv_graph_io {
    const fv_run_input *in;
    size_t n_in;
    const fv_run_output *out; /* those that are wanted */
    size_t n_out;
} fv_graph_io;

/* All dimensions are numbers and batch is 1; activations are f32 (fv_graph_spec.real). observer
 * may be NULL. Grows the scratch of ops as it goes. */
fv_status fv_graph_run(const fv_graph *g, fv_ops *ops, const fv_graph_io *io,
                       const fv_graph_observer *observer, fv_error *err);

#endif
