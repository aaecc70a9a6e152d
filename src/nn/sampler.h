/* sampler: logits -> one token id.
 *
 *     f32 [n_rows] -> bias, mask -> repetition penalty -> (log-probabilities)
 *                  -> temperature -> top-k -> top-p -> min-p -> draw
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
    const fv_logit_bias *bias; /* borrowed; ids in range */
    size_t n_bias;
    fv_mask_fn *mask;     /* NULL: none; asked before every choice, ... */
    fv_chosen_fn *chosen; /* ... told of it afterwards; NULL: not */
    void *mask_user;
    int n_top; /* best alternatives to keep, 0 to FV_SAMPLER_TOP; 0: no log-probabilities */
} fv_sampler_options;

enum { FV_SAMPLER_TOP = 20 };

void fv_sampler_options_default(fv_sampler_options *options); /* greedy, everything off, seed 0 */

/* n_rows: length of the logits; ids >= n_tokens are never chosen. options may be NULL. Out-of-range
 * options are FV_ERR_ARGUMENT by name. All memory is taken here. */
fv_status fv_sampler_new(fv_sampler **out, const fv_sampler_options *options, size_t n_rows,
                         size_t n_tokens, fv_error *err);
void fv_sampler_free(fv_sampler *s);
/* Never choose id (no token behind it, "<image>"). Ids out of range are ignored. */
void fv_sampler_forbid(fv_sampler *s, int32_t id);
/* Other options, by the same rules; takes no memory. What is forbidden stays. On failure nothing
 * changes. */
fv_status fv_sampler_set(fv_sampler *s, const fv_sampler_options *options, fv_error *err);
/* Starts the random sequence again. */
void fv_sampler_seed(fv_sampler *s, uint64_t seed);

/* Chooses from logits[n_rows]; history are the ids the repetition penalty looks at (negative ones,
 * as FV_IMAGE_MARK, and those past n_rows are skipped; NULL when n_history is 0). A NaN is never
 * chosen; when no allowed logit is a number above -infinity: FV_ERR_FORMAT. */
fv_status fv_sampler_pick(fv_sampler *s, const float *logits, const int32_t *history,
                          size_t n_history, int32_t *id, fv_error *err);

/* Natural logarithms of the last choice's probability, and of the best alternatives', best first,
 * over what could be chosen, before temperature. NaN and none when n_top was 0. */
float fv_sampler_logprob(const fv_sampler *s);
const fv_token_logprob *fv_sampler_top(const fv_sampler *s, size_t *n);

/* The same for a given token: whether greedy choice would have taken it goes to *greedy. Without
 * bias, mask and penalty; -infinity for what cannot be chosen. */
double fv_sampler_score(fv_sampler *s, const float *logits, int32_t id, bool *greedy);

#endif
