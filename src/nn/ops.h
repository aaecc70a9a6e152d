/* ops: the model's operations on whole matrices and maps, split over the pool.
 *
 *     ops.c        scratch; linear layers in floats; gated layers
 *     ops_map.c    what only the encoder has: convolutions, FFN, LayerNorm, attention over maps
 *     ops_int8.c   linear layers, convolutions and FFN with int8 weights
 *     ops_quant.c  linear and gated layers with weights in blocks of 8 or 4 bits
 *     ops_vector.c linear and gated layers over single rows that are independent
 *     ops_time.c   what operations say of themselves when somebody takes their time
 *
 * An operation takes weights of any type; the caller does not branch on it. Rows are [n, channels],
 * a map is rows of [height * width, channels]. An fv_ops holds the scratch of one session. */
#ifndef FV_OPS_H
#define FV_OPS_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "model/weights.h"
#include "nn/watch.h"

/* Sees what goes into a layer, rows [n, c] of a float type, before it runs; site is its fv_mat or
 * fv_dw, of layers that share their input the first. An FFN runs layer by layer then, in F32 to the
 * same bits: who observes says so before sizes are asked for. */
typedef void fv_observe_fn(void *user, const void *site, const void *x, fv_type type, size_t n,
                           size_t c);

typedef struct fv_ops {
    const fv_kernels *k;
    fv_pool *pool;
    unsigned n_workers;
    uint8_t *worker_scratch; /* n_workers blocks of worker_bytes */
    size_t worker_bytes;
    uint8_t *shared; /* packed weights of a layer, its input in another type, maps inside an FFN */
    size_t shared_bytes;
    fv_observe_fn *observe; /* NULL: nobody looks on */
    void *observe_user;
    fv_op_time_fn *timed; /* NULL: nobody takes the time */
    void *timed_user;
} fv_ops;

/* What the scratch must hold. Every operation has a function that tells; their maximum over the
 * model's layers is reserved before it runs. */
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

static inline fv_ops_need fv_ops_max(fv_ops_need a, fv_ops_need b)
{
    return (fv_ops_need){ FV_MAX(a.worker_bytes, b.worker_bytes),
                          FV_MAX(a.shared_bytes, b.shared_bytes) };
}

/* The matrix kernel for operands of this type. F16 operands are widened and use F32's. */
static inline const fv_gemm_kernel *fv_gemm_of(const fv_kernels *k, fv_type operand)
{
    return operand == FV_TYPE_BF16 ? &k->gemm_bf16 : &k->gemm_f32;
}

/* ---- rows on their way from one layer to the next ------------------------------------------ */

/* Rows [n, channels], contiguous, in the form in which the layer behind them takes them.
 *
 *     F32, BF16, F16   a layer with float weights
 *     U8               a layer in int8, whose scales these are; not one of 16-bit rows
 *                      (fv_u8.fine), which takes F32 and quantises it itself
 *     F32 and beside   a layer in int8 again; but the f32 rows are needed, too, because the sum
 *                      behind that layer adds to them
 *
 * A layer in int8 takes F32 as well, and quantises it first: a pass over memory that writing U8 at
 * once saves. */
typedef struct fv_rows {
    void *data;
    fv_type type;
    uint8_t *beside;      /* NULL: only data */
    const fv_u8 *to_int8; /* of U8 and of beside: how the values became u8 */
} fv_rows;

static inline fv_rows fv_rows_f32(const float *data)
{
    return (fv_rows){ .data = (void *)data, .type = FV_TYPE_F32 };
}

/* Rows that only the layer with this input reads (fv_mat.in or fv_dw.in), at data: u8 when it is in
 * int8, otherwise of type. */
static inline fv_rows fv_rows_for(const fv_u8 *in, void *data, fv_type type)
{
    if (in->fine)
        return fv_rows_f32(data);
    return (fv_rows){ .data = data, .type = in->inv ? FV_TYPE_U8 : type, .to_int8 = in };
}

/* F32 rows that others read, too; beside has room for them as u8. */
static inline fv_rows fv_rows_beside(const fv_u8 *in, float *data, uint8_t *beside)
{
    return (fv_rows){ .data = data,
                      .type = FV_TYPE_F32,
                      .beside = in->inv && !in->fine ? beside : NULL,
                      .to_int8 = in };
}

/* What a linear layer with these weights can write of what the layer behind it wants: one in floats
 * or with 16-bit rows cannot write u8; then the layer behind it quantises f32. */
static inline fv_rows fv_rows_from(const fv_mat *w, fv_rows wanted)
{
    if ((w->type != FV_TYPE_I8 || w->in.fine) && wanted.type == FV_TYPE_U8)
        wanted.type = FV_TYPE_F32;
    return wanted;
}

/* x [n, c] f32 in the form of `as`: written there, or x itself where f32 is wanted. */
fv_rows fv_convert_run(const fv_ops *ops, fv_rows as, const float *x, size_t n, size_t c);

/* ---- linear layers ------------------------------------------------------------------------- */

/* One linear layer; the epilogue is fv_gemm_args'. */
typedef struct fv_linear {
    const fv_mat *w;
    void *y; /* [m, ldy] */
    size_t ldy;
    fv_type y_type;         /* F32, BF16, F16; weights in int8: or U8 ... */
    const fv_u8 *y_to_int8; /* ... for the layer that reads y */
    fv_act act;
    const float *scale;    /* [n] or NULL */
    const float *residual; /* [m, ldr] f32 or NULL; may be y */
    size_t ldr;
    float *const *y_rows; /* fv_linear_run_each: where each of the m rows goes, in place of y */
} fv_linear;

/* y = epilogue(x W^T + bias) for m rows x [m, ldx] of x_type, for each of n_layers layers that
 * share x. By the type of the weights:
 *
 *     floats   x F32, BF16 or F16, which is what the product's operands have. One row of F32 goes
 *              through the matrix-vector kernels when every y_type is F32 and there is no
 *              activation or scale
 *     I8       one layer; x U8 or F32, contiguous (ldx = k). Of 16-bit rows: x F32, y no U8
 *     blocks   x and y F32, no activation (ops_quant.c) */
void fv_linear_run(const fv_ops *ops, const fv_linear *layers, size_t n_layers, const void *x,
                   fv_type x_type, size_t ldx, size_t m);

/* Of a layer with float weights [n, k] over at most m rows. */
fv_ops_need fv_linear_need(const fv_kernels *k, unsigned n_workers, size_t n, size_t k_dim,
                           size_t m, fv_type x_type);
/* Of a layer with float or int8 weights; operand: x's type if they are floats. */
fv_ops_need fv_mat_need(const fv_ops *ops, const fv_mat *w, size_t m, fv_type operand);

/* y = silu(x Wg^T) * (x Wu^T): y [m, n] of y_type, contiguous. Weights in floats or blocks. */
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

/* ---- maps ---------------------------------------------------------------------------------- */

typedef struct fv_map_shape {
    size_t height, width; /* of the input */
} fv_map_shape;

/* y = act(dw(x)), stride 1 or 2, padding kernel / 2.
 *
 *     floats   x F32; y of any float type, beside included
 *     int8     x U8 or F32, beside included; y U8 */
void fv_dw_run(const fv_ops *ops, fv_rows y, fv_rows x, fv_map_shape shape, const fv_dw *dw,
               unsigned stride, fv_act act);
fv_ops_need fv_dw_need(const fv_ops *ops, const fv_dw *dw, fv_map_shape shape);

/* Whether fv_ffn_run may write y over x: with dw in int8 all of x is u8 elsewhere before y
 * begins. */
static inline bool fv_ffn_in_place(const fv_ffn *f) { return f->dw.w8; }

/* y = x + scale * fc2(gelu(fc1(dw(x)))), f32 [height * width, c]; x F32, beside included. y is not
 * x unless fv_ffn_in_place. The three layers are in int8 together; or fc1 and fc2 in int8 with
 * 16-bit rows, and dw in f32; or all in floats, with rows of type operand between them. */
void fv_ffn_run(const fv_ops *ops, float *y, fv_rows x, fv_map_shape shape, const fv_ffn *ffn,
                fv_type operand);
fv_ops_need fv_ffn_need(const fv_ops *ops, const fv_ffn *ffn, fv_map_shape shape, fv_type operand);

/* y = LayerNorm over the c channels of each of n rows x. */
void fv_layernorm_run(const fv_ops *ops, fv_rows y, const float *x, const float *weight,
                      const float *bias, size_t n, size_t c);
fv_ops_need fv_layernorm_need(size_t c);

/* Multi-head attention without a mask: q | k | v rows [n, 3c] f32 -> y [n, c]; heads of d. operand:
 * of its products, BF16 where that is faster than f32, else F32. */
void fv_attention_run(const fv_ops *ops, fv_rows y, const float *qkv, size_t n, size_t c, size_t d,
                      fv_type operand);
fv_ops_need fv_attention_need(void);

/* ---- time ---------------------------------------------------------------------------------- */

/* Every operation above says what it took where ops->timed is set; one that consists of others
 * leaves it to them. What a caller does by itself between operations:
 *
 *     const double start = fv_op_start(ops);
 *     ...
 *     fv_op_end(ops, start, &(fv_op_time){ .kind = "rope", .n_rows = n }); */
static inline double fv_op_start(const fv_ops *ops) { return ops->timed ? fv_now_ms() : 0; }
void fv_op_end(const fv_ops *ops, double start, const fv_op_time *op);

#endif
