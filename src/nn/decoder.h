/* decoder: sequence rows f32 [n, d_model] -> Qwen2 with a KV cache -> logits f32 [n_vocab].
 *
 *     fv_sequence   what one conversation has seen: its KV cache, the logits that follow
 *     fv_decoder    the model, and the buffers that rows pass through
 *
 * A prompt goes through the layers many rows at a time (fv_decoder_run), an answer one row at a
 * time (fv_decoder_step). Either way several sequences can share every read of the weights: the
 * prompts of fv_decoder_run_prompts, one row each of a step. A sequence's bits never depend on the
 * company it is in, nor on the number of threads.
 *
 * A prompt's matrix products use operands of `act` (bf16 or f32). A row by itself, and every row
 * of a step, is f32 and meets the weights as stored. Weights in blocks (Q8_0, Q4_0; any matrix may
 * be) meet f32 rows that are quantised to 8 bits on the way. The residual stream, norms and softmax
 * are f32. */
#ifndef FV_DECODER_H
#define FV_DECODER_H

#include "nn/kv_cache.h"
#include "nn/ops.h"
#include "nn/watch.h"
#include "model/weights.h"

enum {
    FV_PREFILL_ROWS = 512, /* of prompts that go through the layers at once */
    FV_STEP_ROWS = 64      /* sequences whose tokens do; weights are read once for all of them */
};

typedef struct fv_sequence {
    fv_kv_cache kv;
    float *logits; /* [n_vocab] that follow its last row */
} fv_sequence;

typedef struct fv_decoder {
    const fv_config *c;
    const fv_decoder_weights *w;
    fv_type act;      /* of a prompt's operands */
    bool blocks;      /* some weights are in blocks, or will be before the next run */
    float *frequency; /* [d_head / 2] of RoPE */

    /* Buffers, of one caller at a time; hd is n_heads * d_head, hd_kv is n_kv_heads * d_head. */
    size_t rows;  /* that they hold */
    float *x;     /* [rows, d_model] the residual stream */
    void *h;      /* [rows, d_model or hd] of act: normed, or attention's result */
    float *q;     /* [rows, hd] */
    float *k, *v; /* [rows, hd_kv] */
    void *ffn;    /* [rows, d_ffn] of act: silu(gate) * up */
    float *rope;  /* [rows, d_head]: cosines [d_head / 2], then sines, of a row's position */
    void *memory; /* behind all of these */
    size_t memory_bytes;
} fv_decoder;

fv_status fv_decoder_init(fv_decoder *d, const fv_config *c, const fv_decoder_weights *w,
                          fv_type act, fv_error *err);
void fv_decoder_free(fv_decoder *d);

fv_status fv_sequence_init(fv_sequence *s, const fv_config *c, fv_type kv_type, fv_error *err);
void fv_sequence_free(fv_sequence *s);

/* Memory for runs of n rows (at most FV_PREFILL_ROWS count) and for steps of n sequences; with less
 * room both go through the layers in stretches. */
fv_status fv_decoder_reserve(fv_decoder *d, fv_ops *ops, size_t n_rows, fv_error *err);

/* Embedding rows of ids into x [n, d_model]. */
void fv_decoder_embed(const fv_decoder *d, const fv_ops *ops, float *x, const int32_t *ids,
                      size_t n);

/* A prompt, one of a list: rows that are appended to its sequence, which has room for them. */
typedef struct fv_decoder_prompt {
    struct fv_decoder_prompt *next; /* of another sequence */
    fv_sequence *s;
    const float *x; /* [n, d_model] */
    size_t n;
    const fv_watch *watch; /* asked before every layer whether to go on */
    /* how it fared */
    fv_status
        status; /* FV_OK: s has the logits behind its last row; otherwise what it had before */
    fv_error err;
    size_t done; /* rows that have gone through the layers */
} fv_decoder_prompt;

/* Prompts together, FV_PREFILL_ROWS rows at a time: the same bits as one by one. One that fails
 * (cancelled) leaves the others at the next layer. The last layer goes only as far as it is wanted:
 * to the cache for all rows, to the logits for the last of a prompt, which takes the operations of
 * a step there. A tap gets all rows, the last with these bits. */
void fv_decoder_run_prompts(fv_decoder *d, const fv_ops *ops, fv_decoder_prompt *first);

/* A prompt alone. On failure the sequence holds what it held before. */
fv_status fv_decoder_run(fv_decoder *d, const fv_ops *ops, fv_sequence *s, const float *x, size_t n,
                         const fv_watch *watch, fv_error *err);

/* A token for each of n different sequences, for which decoder and sequences have room: appends
 * ids[i] to s[i] and computes its logits. The same bits as one by one. */
void fv_decoder_step(fv_decoder *d, const fv_ops *ops, fv_sequence *const *s, const int32_t *ids,
                     size_t n);

/* One layer alone over a sequence of n rows x [n, d_model] from its beginning, in place; what the
 * cache held of this layer is lost. For what goes through a model layer by layer, such as
 * calibration. */
void fv_decoder_run_layer(fv_decoder *d, const fv_ops *ops, fv_sequence *s, size_t layer, float *x,
                          size_t n);

#endif
