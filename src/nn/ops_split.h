/* How the operations cut their work into tasks, and what their files share: ops.c, ops_map.c,
 * ops_int8.c, ops_quant.c, ops_vector.c. */
#ifndef FV_OPS_SPLIT_H
#define FV_OPS_SPLIT_H

#include <assert.h>

#include "nn/ops.h"

static inline size_t fv_round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

static inline const void *fv_mat_row(const fv_mat *w, size_t row)
{
    return (const uint8_t *)w->data + row * fv_row_bytes(w->type, w->k);
}

static inline void fv_ops_observe(const fv_ops *ops, const void *site, const void *x,
                                  fv_type x_type, size_t n, size_t c)
{
    assert(!ops->observe || x_type != FV_TYPE_U8);
    if (ops->observe)
        ops->observe(ops->observe_user, site, x, x_type, n, c);
}

/* ---- linear layers: runs of columns ---- */

/* Layer and first column of a task when every layer is cut into runs of `columns`; how many
 * tasks. */
const fv_linear *fv_find_columns(const fv_linear *layers, size_t n_layers, size_t columns,
                                 size_t task, size_t *col);
size_t fv_count_columns(const fv_linear *layers, size_t n_layers, size_t columns);

/* Rows of weights in a matrix-vector task at most, and the scratch of one: a sum for each of them
 * and each row of x that shares them. */
enum { FV_VECTOR_COLUMNS = 1024 };
enum { FV_VECTOR_BYTES = FV_VECTOR_COLUMNS * FV_GEMV_ROWS * sizeof(float) };

/* ---- ops.c: float weights as the matrix kernel's panels ---- */

/* All n columns, k deep; a multiple of 64. */
size_t fv_panel_bytes(const fv_gemm_kernel *g, size_t n, size_t k);
void fv_panels_pack_all(const fv_ops *ops, const fv_gemm_kernel *g, uint8_t *dst, const fv_mat *w);

/* ---- ops_map.c ---- */

/* Columns [x0, x1) of output row y of a depthwise convolution with float weights. */
void fv_dw_row(const fv_kernels *k, void *dst, size_t dst_ld, fv_type dst_type, const float *src,
               fv_map_shape shape, const fv_dw *dw, unsigned stride, fv_act act, size_t y,
               size_t x0, size_t x1);

/* ---- ops_int8.c: the operations of ops.h for int8 weights ---- */

/* n rows of c as u8, contiguous. */
void fv_quantise_run(const fv_ops *ops, uint8_t *dst, const float *src, size_t n, size_t c,
                     const fv_u8 *to);

void fv_linear_run_int8(const fv_ops *ops, const fv_linear *l, const void *x, fv_type x_type,
                        size_t m);
fv_ops_need fv_linear_need_int8(const fv_kernels *k, unsigned n_workers, const fv_mat *w, size_t m);

void fv_dw_run_int8(const fv_ops *ops, fv_rows y, fv_rows x, fv_map_shape shape, const fv_dw *dw,
                    unsigned stride, fv_act act);
fv_ops_need fv_dw_need_int8(const fv_kernels *k, const fv_dw *dw, fv_map_shape shape);

/* With 16-bit rows: runs of pixels through all three layers; false as below. */
bool fv_ffn_run_fine(const fv_ops *ops, float *y, const float *x, fv_map_shape shape,
                     const fv_ffn *ffn);
bool fv_ffn_need_fine(fv_ops_need *need, const fv_kernels *k, unsigned n_workers, const fv_ffn *ffn,
                      fv_map_shape shape);

/* The three layers over tiles that stay in a core's cache; false: their weights or the map do not
 * fit that, nothing was done. */
bool fv_ffn_run_tiles_int8(const fv_ops *ops, float *y, fv_rows x, fv_map_shape shape,
                           const fv_ffn *ffn);
/* And what that needs, if it does. */
bool fv_ffn_need_tiles_int8(fv_ops_need *need, const fv_kernels *k, unsigned n_workers,
                            const fv_ffn *ffn, fv_map_shape shape);

/* ---- ops_quant.c: some weights in blocks. x f32; y of every layer f32, no activation; need: also
 * for gated. ---- */

bool fv_has_blocks(const fv_linear *layers, size_t n_layers);
/* m rows x [m, ldx] of k as rows of 8 bits into ops->shared, fv_quantized_row_bytes(k) apart. */
void fv_quantise_rows(const fv_ops *ops, const float *x, size_t ldx, size_t m, size_t k);
void fv_linear_run_quant(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                         const float *x, size_t ldx, size_t m);
void fv_gated_run_quant(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                        const float *x, size_t m);

/* ---- ops_time.c ---- */

/* n_layers layers that share their input, or the two of a gated layer. x_type: of the input. */
void fv_time_linear(const fv_ops *ops, double start, const char *kind, const fv_linear *layers,
                    size_t n_layers, fv_type x_type, size_t m);
void fv_time_dw(const fv_ops *ops, double start, const fv_dw *dw, size_t n_pixels);
/* The three layers as one. */
void fv_time_ffn(const fv_ops *ops, double start, const fv_ffn *ffn, fv_type operand,
                 size_t n_pixels);

/* ---- ops_vector.c: fv_linear_run_each and fv_gated_run_each, without the time ---- */

void fv_linear_run_vectors(const fv_ops *ops, const fv_linear *layers, size_t n_layers,
                           const float *x, size_t ldx, size_t m);
void fv_gated_run_vectors(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                          const float *x, size_t m);

#endif
