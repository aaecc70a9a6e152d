/* How the linear layers cut their columns into tasks: shared by ops.c, ops_quant.c, ops_vector.c. */
#ifndef FV_OPS_SPLIT_H
#define FV_OPS_SPLIT_H

#include "nn/ops.h"

/* Layer and first column of a task when every layer is cut into runs of `columns`; how many
 * tasks. */
const fv_linear *fv_find_columns(const fv_linear *layers, size_t n_layers, size_t columns,
                                 size_t task, size_t *col);
size_t fv_count_columns(const fv_linear *layers, size_t n_layers, size_t columns);

/* Rows of weights in a matrix-vector task at most, and the scratch of one: a sum for each of them and
 * each row of x that shares them. */
enum { FV_VECTOR_COLUMNS = 1024, FV_GEMV_ROWS = 8 };
enum { FV_VECTOR_BYTES = FV_VECTOR_COLUMNS * FV_GEMV_ROWS * sizeof(float) };

static inline const void *fv_mat_row(const fv_mat *w, size_t row)
{
    return (const uint8_t *)w->data + row * fv_row_bytes(w->type, w->k);
}

/* ---- ops_quant.c: some weights in blocks. x f32; y of every layer f32, no activation; need: also
 * for gated. */

bool fv_has_blocks(const fv_linear *layers, size_t n_layers);
/* m rows x [m, ldx] of k as rows of 8 bits into ops->shared, fv_quantized_row_bytes(k) apart. */
void fv_quantise_rows(const fv_ops *ops, const float *x, size_t ldx, size_t m, size_t k);
void fv_linear_run_quant(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                         const float *x, size_t ldx, size_t m);
void fv_gated_run_quant(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                        const float *x, size_t m);

/* Columns [x0, x1) of output row y of a depthwise convolution. */
void fv_dw_row(const fv_kernels *k, void *dst, size_t dst_ld, fv_type dst_type, const float *src,
               fv_map_shape shape, const fv_dw *dw, unsigned stride, fv_act act, size_t y,
               size_t x0, size_t x1);

#endif
