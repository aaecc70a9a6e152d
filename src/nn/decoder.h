/* decoder: sequence rows f32 [n, d_model] -> Qwen2 with a KV cache -> logits f32 [n_vocab].
 *
 * Matrix products use operands of `act` (bf16 or f32); one row at a time (decoding) always
 * multiplies f32 rows with the weights as stored. Weights in blocks (Q8_0, Q4_0; any matrix may be)
 * meet f32 rows that are quantised to 8 bits on the way. The residual stream, norms and softmax are
 * f32. */
#ifndef FV_DECODER_H
#define FV_DECODER_H

#include "nn/ops.h"
#include "nn/watch.h"
#include "model/weights.h"

enum { FV_PREFILL_ROWS = 512 }; /* rows that go through the layers at once */

/* Keys after RoPE, and values: [layer][key, value][kv head][capacity] rows of d_head of `type`. */
typedef struct fv_kv_cache {
    fv_type type; /* F32, F16 or I8 (fv_kv_row_bytes) */
    size_t n_layers, n_heads, d_head;
    size_t capacity, n; /* rows it can hold; rows it holds */
    uint8_t *data;
    size_t data_bytes;
} fv_kv_cache;

typedef struct fv_decoder {
    const fv_config *c;
    const fv_decoder_weights *w;
    fv_type act;
    bool blocks; /* some weights are in blocks of 8 or 4 bits */
    size_t rows; /* rows the buffers below hold */
    fv_kv_cache kv;
    float *x;         /* [rows, d_model] residual stream */
    void *h;          /* [rows, d_model] normed, or attention's result */
    float *q, *k, *v; /* [rows, heads * d_head], [rows, kv_heads * d_head] twice */
    void *ffn;        /* [rows, d_ffn] */
    float *rope;      /* [rows, d_head]: cosines, then sines, of a row's position */
    float *frequency; /* [d_head / 2] */
    float *logits;    /* [n_vocab] */
    void *memory;
    size_t memory_bytes;
} fv_decoder;

fv_status fv_decoder_init(fv_decoder *d, const fv_config *c, const fv_decoder_weights *w,
                          fv_type act, fv_type kv_type, fv_error *err);
void fv_decoder_free(fv_decoder *d);

/* Memory for a run of n rows (at most FV_PREFILL_ROWS count) and a cache of n_context rows. The
 * cache keeps what it holds; it grows in steps, so that decoding does not allocate every token. */
fv_status fv_decoder_reserve(fv_decoder *d, fv_ops *ops, size_t n_rows, size_t n_context,
                             fv_error *err);

/* Embedding rows of ids into x [n, d_model]. */
void fv_decoder_embed(const fv_decoder *d, const fv_ops *ops, float *x, const int32_t *ids,
                      size_t n);

/* Appends n rows (already reserved) to the cache; d->logits are then the last row's. x is [n,
 * d_model] and not changed. On failure (cancelled) the cache holds what it held before. */
fv_status fv_decoder_run(fv_decoder *d, const fv_ops *ops, const float *x, size_t n,
                         const fv_watch *watch, fv_error *err);

/* One layer alone over a sequence of n rows (already reserved) from its beginning, in place; what
 * the cache held of this layer is lost. For what goes through a model layer by layer, such as
 * calibration. */
void fv_decoder_run_layer(fv_decoder *d, const fv_ops *ops, size_t layer, float *x, size_t n,
                          const fv_watch *watch);

#endif
