/* How the linear layers cut their columns into tasks: shared by ops.c and ops_quant.c. */
#ifndef FV_OPS_SPLIT_H
#define FV_OPS_SPLIT_H

#include "nn/ops.h"

/* Layer and first column of a task when every layer is cut into runs of `columns`; how many
 * tasks. */
const fv_linear *fv_find_columns(const fv_linear *layers, size_t n_layers, size_t columns,
                                 size_t task, size_t *col);
size_t fv_count_columns(const fv_linear *layers, size_t n_layers, size_t columns);

enum { FV_VECTOR_COLUMNS = 1024 };

/* Rows of weights in a matrix-vector task, at most FV_VECTOR_COLUMNS: short enough that no thread
 * waits long for the others, none too short. */
size_t fv_vector_columns(const fv_linear *layers, size_t n_layers, unsigned n_workers);

static inline const void *fv_mat_row(const fv_mat *w, size_t row)
{
    return (const uint8_t *)w->data + row * fv_row_bytes(w->type, w->k);
}

/* ---- ops_quant.c: some weights in blocks. x f32; y of every layer f32, no activation; need: also
 * for gated. */

bool fv_has_blocks(const fv_linear *layers, size_t n_layers);
void fv_linear_run_quant(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                         const float *x, size_t ldx, size_t m);
void fv_gated_run_quant(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                        const float *x, size_t m);

/* Columns [x0, x1) of output row y of a depthwise convolution. */
void fv_dw_row(const fv_kernels *k, void *dst, size_t dst_ld, fv_type dst_type, const float *src,
               fv_map_shape shape, const fv_dw *dw, unsigned stride, fv_act act, size_t y,
               size_t x0, size_t x1);

#endif
