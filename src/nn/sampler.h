/* sampler: logits -> one token id.
 *
 *     f32 [n_rows] -> repetition penalty -> temperature -> top-k -> top-p -> min-p -> draw
 *
 * The order and the meaning of each step are transformers'. With temperature 0: the largest
 * logit after the penalty, the lowest id among equals. */
#ifndef FV_SAMPLER_H
#define FV_SAMPLER_H

#include "base/base.h"

typedef struct fv_sampler fv_sampler; /* one thread at a time */

typedef struct fv_sampler_options {
    float temperature;        /* 0: greedy */
    int top_k;                /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off */
    uint64_t seed;
} fv_sampler_options;

void fv_sampler_options_default(fv_sampler_options *options); /* greedy, everything off, seed 0 */

/* n_rows: length of the logits; ids >= n_tokens are never chosen. options may be NULL. Out-of-range
 * options are FV_ERR_ARGUMENT by name. All memory is taken here. */
fv_status fv_sampler_new(fv_sampler **out, const fv_sampler_options *options, size_t n_rows,
                         size_t n_tokens, fv_error *err);
void fv_sampler_free(fv_sampler *s);
/* Never choose id (no token behind it, "<image>"). Ids out of range are ignored. */
void fv_sampler_forbid(fv_sampler *s, int32_t id);
/* Starts the random sequence again. */
void fv_sampler_seed(fv_sampler *s, uint64_t seed);

/* Chooses from logits[n_rows]; history are the ids the repetition penalty looks at (negative ones,
 * as FV_IMAGE_MARK, and those past n_rows are skipped; NULL when n_history is 0). A NaN is never
 * chosen; when no allowed logit is a number above -infinity: FV_ERR_FORMAT. */
fv_status fv_sampler_pick(fv_sampler *s, const float *logits, const int32_t *history,
                          size_t n_history, int32_t *id, fv_error *err);

#endif
