/* npu_simulate: what a plan's 8 bits cost, without an NPU: graph_run with rounded weights and
 * values.
 *
 * 16 bits are taken for exact, and attention's inner values too. Fast enough to ask what each layer
 * costs by itself, which an emulator of the NPU is not at full size. */
#ifndef FV_NPU_SIMULATE_H
#define FV_NPU_SIMULATE_H

#include "base/region.h"
#include "npu/npu_plan.h"

/* The encoder with every layer's weights rounded to 8 bits. w outlives *out. */
typedef struct fv_npu_rounded {
    fv_weights w;
    fv_region memory;
} fv_npu_rounded;

fv_status fv_npu_round(fv_npu_rounded *out, const fv_weights *w, const fv_config *c,
                       const fv_kernels *k, fv_error *err);
void fv_npu_rounded_free(fv_npu_rounded *r); /* zero is fine */

/* x rounded to 8 bits of this encoding. */
void fv_npu_round_values(float *x, size_t n, fv_qnn_encoding e);

/* ---- a plan at work ---- */

/* What is taken from a layer's result, as its corrected bias does: by rounded weights, then by what
 * its input is: exact, in 8 bits, made from 8 bits. */
enum { FV_NPU_EXACT, FV_NPU_ROUNDED, FV_NPU_MADE, FV_NPU_READ_AS };
typedef struct fv_npu_correction {
    float *by[2][FV_NPU_READ_AS]; /* NULL: nothing */
} fv_npu_correction;

typedef struct fv_npu_simulation {
    const fv_npu_plan *plan; /* its widths may change from run to run */
    const fv_weights *w;
    const fv_config *c;
    fv_ops *ops;
    const fv_kernels *k;
    fv_npu_rounded rounded;
    int image_size;
    fv_graph graph[2]; /* of the weights, of the rounded ones: nodes and values as in the plan's */
    fv_npu_correction *corrections; /* by index of the value */
    bool weights_rounded;           /* in the graph that runs */
    fv_region region;
} fv_npu_simulation;

/* Images of the size that the plan's graph has. w: of that graph, with c's shapes. What is pointed
 * to outlives *out. On failure *out is zero. */
fv_status fv_npu_simulation_open(fv_npu_simulation *out, const fv_npu_plan *plan,
                                 const fv_weights *w, const fv_config *c, fv_ops *ops,
                                 const fv_kernels *k, fv_error *err);
void fv_npu_simulation_close(fv_npu_simulation *s); /* zero is fine */

/* Images of another size: the same layers and encodings on smaller maps take less time. */
fv_status fv_npu_simulation_resize(fv_npu_simulation *s, int image_size, fv_error *err);

/* After the plan's encodings and means have changed. */
fv_status fv_npu_simulation_learn(fv_npu_simulation *s, fv_error *err);

/* pixels [S, S, 3] -> tokens, of the plan's widths; weights rounded, or not: what activations cost
 * alone. */
fv_status fv_npu_simulation_run(fv_npu_simulation *s, const float *pixels, float *tokens,
                                bool round_weights, fv_error *err);
/* The same in f32. */
fv_status fv_npu_simulation_exact(fv_npu_simulation *s, const float *pixels, float *tokens,
                                  fv_error *err);

#endif
