/* model: a model opened, wherever its bytes are. The engine, pack, verify and the exports all open
 * through here, so that they accept and refuse the same models.
 *
 *     checkpoint directory    config.json, tokenizer files, safetensors
 *     packed file             GGUF: by path, in memory, or through a file descriptor
 *
 *       ->  config, tokenizer, checks between them
 *       ->  tensors, weights, checks between them and the config      (FV_MODEL_STORED, _RUN) */
#ifndef FV_MODEL_H
#define FV_MODEL_H

#include "base/base.h"
#include "io/gguf.h"
#include "io/tensors.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/tokenizer.h"

typedef struct fv_model {
    char *name; /* the path it was opened by; what messages call it */
    fv_config config;
    fv_tokenizer *tokenizer;
    fv_gguf *packed;           /* NULL: a checkpoint directory */
    fv_tensors *checkpoint;    /* of a directory; NULL: a packed file, or opened without weights */
    const fv_tensors *tensors; /* of either; NULL: opened without weights */
    fv_weights weights;
    fv_type vision, decoder; /* FV_MODEL_RUN, _LAYOUT: the types that matrices compute in */
    fv_kernels kernels;
    unsigned cpu; /* the level of kernels */
    fv_pool *pool;
    bool owns_pool;
    bool locked; /* pages of a packed file in borrowed memory, to unlock */
} fv_model;

typedef enum fv_model_depth {
    FV_MODEL_TEXT = 0, /* config and tokenizer; no pool */
    FV_MODEL_STORED,   /* and weights, matrices in the types they are stored in */
    /* and the layout of weights: of a checkpoint directory no weight is read, and
     * weights.owned_bytes is what FV_MODEL_RUN would take */
    FV_MODEL_LAYOUT,
    FV_MODEL_RUN /* and weights, matrices in the types they compute in */
} fv_model_depth;

typedef struct fv_model_options {
    fv_model_depth depth;
    /* of FV_MODEL_RUN and _LAYOUT. AUTO: as stored where this processor computes that quickly, else
     * f32. A packed file runs as it was packed; bf16 and f16 may be widened to f32. */
    fv_precision vision, decoder;
    fv_pool *pool;       /* borrowed; NULL: one of its own */
    fv_threads *threads; /* for a pool of its own; NULL: new ones, n_threads of them */
    int n_threads;       /* 0: one per physical core */
    bool prefault;       /* read the weights that are mapped before returning */
    bool lock;           /* keep all weights in memory; FV_ERR_LIMIT where the system refuses */
    const fv_callbacks *callbacks; /* may be NULL; progress: "open" and "prefault", 0 to 1 each */
} fv_model_options;

/* A checkpoint directory or a packed file. On failure *m is zero. */
fv_status fv_model_open(fv_model *m, const char *path, const fv_model_options *options,
                        fv_error *err);
/* A packed file that has been read. Takes it, on failure too. */
fv_status fv_model_open_packed(fv_model *m, fv_gguf *packed, const fv_model_options *options,
                               fv_error *err);
void fv_model_close(fv_model *m); /* zero is fine */

/* Bytes of the model's files that are mapped, or that the caller lends. */
uint64_t fv_model_mapped_bytes(const fv_model *m);

/* The type that all tensors of the model share: "BF16"; "mixed" when they differ. */
const char *fv_model_stored_type(const fv_model *m);

/* The id of a token such as <|im_end|>; FV_ERR_FORMAT by name when there is none. */
fv_status fv_model_token(const fv_model *m, const char *text, int32_t *id, fv_error *err);

/* The tokens that end an answer: <|im_end|> and <|endoftext|> besides those of the files, since
 * converted checkpoints name the base model's. [docs/model.md, 9.2] */
typedef struct fv_end_tokens {
    int32_t id[FV_MAX_EOS + 2];
    int n;
} fv_end_tokens;
fv_end_tokens fv_end_tokens_of(const fv_config *c, const fv_tokenizer *t);
bool fv_end_tokens_have(const fv_end_tokens *ends, int32_t id);

/* Whether a checkpoint directory holds a file of this name; false for a packed file. */
bool fv_model_has_file(const fv_model *m, const char *name);

#endif
