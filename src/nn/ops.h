/* ops: the model's operations on whole matrices and maps, split over the pool.
 *
 * An fv_ops holds the scratch of one session. Maps are f32 [height * width, channels]; the
 * operands of matrix products have the type of the wanted precision (`act` below). */
#ifndef FV_OPS_H
#define FV_OPS_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "model/weights.h"

typedef struct fv_ops {
    const fv_kernels *k;
    fv_pool *pool;
    unsigned n_workers;
    uint8_t *worker_scratch; /* n_workers blocks of worker_bytes */
    size_t worker_bytes;
    uint8_t *shared; /* packed weights of a fused layer, widened operands */
    size_t shared_bytes;
} fv_ops;

/* What the scratch must hold, found by walking the model's shapes. */
typedef struct fv_ops_need {
    size_t worker_bytes, shared_bytes;
} fv_ops_need;

fv_status fv_ops_init(fv_ops *ops, const fv_kernels *k, fv_pool *pool, fv_error *err);
void fv_ops_free(fv_ops *ops);
/* Grows the scratch when it is smaller than need. */
fv_status fv_ops_reserve(fv_ops *ops, const fv_ops_need *need, fv_error *err);

static inline void *fv_ops_worker(const fv_ops *ops, unsigned worker)
{
    return ops->worker_scratch + worker * ops->worker_bytes;
}

/* The matrix kernel for operands of this type. F16 operands are widened and use F32's. */
static inline const fv_gemm_kernel *fv_gemm_of(const fv_kernels *k, fv_type act)
{
    return act == FV_TYPE_BF16 ? &k->gemm_bf16 : &k->gemm_f32;
}

/* One linear layer; the epilogue is fv_gemm_args'. */
typedef struct fv_linear {
    const fv_mat *w;
    void *y;
    size_t ldy;
    fv_type y_type;
    fv_act act;
    const float *scale; /* [n] or NULL */
    const float *residual;
    size_t ldr;           /* [m, n] f32 or NULL; may be y */
    float *const *y_rows; /* fv_linear_run_each: where each of the m rows goes, in place of y */
} fv_linear;

/* Weights in blocks want x and y in F32 and no activation; what they need is fv_quant_need's, not
 * fv_linear_need's or fv_gated_need's. */

/* y = epilogue(x W^T + bias) for m rows x [m, ldx] of x_type, for each of n_layers layers that
 * share x. One row of f32 operands goes through the matrix-vector kernels: x_type F32, every
 * y_type F32 and no activation or scale. */
void fv_linear_run(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const void *x,
                   fv_type x_type, size_t ldx, size_t m);
fv_ops_need fv_linear_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t k_dim,
                           size_t m, fv_type x_type);

/* y = silu(x Wg^T) * (x Wu^T): y [m, n] of y_type, contiguous. */
void fv_gated_run(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, void *y, fv_type y_type,
                  const void *x, fv_type x_type, size_t m);
fv_ops_need fv_gated_need(const fv_kernels *k, size_t n, size_t k_dim, size_t m, fv_type x_type);

/* Rows that know nothing of each other, such as the tokens of several conversations: each of the m
 * f32 rows gets the bits that it gets alone (of fv_linear_run and fv_gated_run with m = 1), and the
 * weights are read from memory once for all. y is f32; no activation, no scale. Needs what one row
 * needs, and with weights in blocks fv_quant_need's of m. */
void fv_linear_run_each(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const float *x,
                        size_t ldx, size_t m);
void fv_gated_run_each(const fv_ops *ops, const fv_mat *gate, const fv_mat *up, float *y,
                       const float *x, size_t m);

/* For layers and gated layers of which some weights are in blocks: at most n columns, k_dim
 * deep. */
fv_ops_need fv_quant_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t k_dim,
                          size_t m);

typedef struct fv_map_shape {
    size_t height, width; /* of the input */
} fv_map_shape;

/* Depthwise convolution of a map, stride 1 or 2, padding kernel / 2; dst contiguous. */
void fv_dw_run(const fv_ops *ops, void *dst, fv_type dst_type, const float *src, fv_map_shape shape,
               const fv_dw *dw, unsigned stride, fv_act act);

/* dst = src + scale * fc2(gelu(fc1(dw(src)))), all over blocks of pixels that stay in the cache.
 * dst and src are different maps. act is the type between the layers. */
void fv_ffn_run(const fv_ops *ops, float *dst, const float *src, fv_map_shape shape,
                const fv_ffn *ffn, fv_type act);
fv_ops_need fv_ffn_need(const fv_kernels *k, unsigned n_workers, size_t channels, size_t hidden,
                        size_t n_pixels, fv_type act);

/* ---- int8: u8 in front of every layer, see fv_u8 (ops_int8.c) ---- */

/* n rows of c as u8, contiguous. */
void fv_quantise_run(const fv_ops *ops, uint8_t *dst, const float *src, size_t n, size_t c,
                     const fv_u8 *to);

typedef struct fv_linear8 {
    const fv_mat *w; /* I8 */
    void *y;
    size_t ldy;
    fv_type y_type;  /* U8, F32, F16 or BF16 */
    const fv_u8 *to; /* U8: of the next layer */
    fv_act act;
    const float *scale; /* [n] or NULL */
    const float *residual;
    size_t ldr;
} fv_linear8;

void fv_linear8_run(const fv_ops *ops, const fv_linear8 *l, const uint8_t *x, size_t ldx, size_t m);
fv_ops_need fv_linear8_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t k_dim,
                            size_t m);

/* A depthwise convolution in f32 whose result is also wanted as u8. */
void fv_dw_u8_run(const fv_ops *ops, float *dst, uint8_t *dst8, const fv_u8 *to, const float *src,
                  fv_map_shape shape, const fv_dw *dw);
/* A depthwise convolution in int8; dst contiguous. */
void fv_dw8_run(const fv_ops *ops, uint8_t *dst, const fv_u8 *to, const uint8_t *src,
                fv_map_shape shape, const fv_dw *dw, unsigned stride, fv_act act);
fv_ops_need fv_dw8_need(const fv_kernels *k, const fv_dw *dw);

/* fv_ffn_run in int8: src8 is src as u8 of ffn->dw.in. */
void fv_ffn8_run(const fv_ops *ops, float *dst, const float *src, const uint8_t *src8,
                 fv_map_shape shape, const fv_ffn *ffn);
fv_ops_need fv_ffn8_need(const fv_kernels *k, unsigned n_workers, const fv_ffn *ffn,
                         fv_map_shape shape);

/* Multi-head attention without a mask: q | k | v rows [n, 3c] f32 -> out [n, c] of out_type. */
void fv_attention_run(const fv_ops *ops, void *out, fv_type out_type, const float *qkv, size_t n,
                      size_t c, size_t d);

static inline fv_ops_need fv_ops_max(fv_ops_need a, fv_ops_need b)
{
    return (fv_ops_need){ FV_MAX(a.worker_bytes, b.worker_bytes),
                          FV_MAX(a.shared_bytes, b.shared_bytes) };
}

#endif
