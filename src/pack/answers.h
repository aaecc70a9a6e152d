/* answers: rows of the decoder as it meets them in use, for rounding with its inputs in view.
 *
 *   calibration set -> encoder in f32 -> prompt: a question and the image   rows [n, d_model]
 *                   -> decoder in f32 -> its own answer, greedy             more rows */
#ifndef FV_ANSWERS_H
#define FV_ANSWERS_H

#include "pack/calibrate.h"
#include "text/tokenizer.h"

typedef struct fv_answer_rows {
    float *x; /* [n, d_model]: what comes into the first layer */
    size_t n;
} fv_answer_rows;

typedef struct fv_answers {
    fv_answer_rows *list;
    size_t n, capacity;
    size_t n_rows, longest; /* of all; of one */
    fv_seen seen;
} fv_answers;

/* One for each image of the calibration set. w as loaded from a checkpoint. On failure *out is to
 * be freed, too. */
fv_status fv_answers_collect(fv_answers *out, const fv_config *c, const fv_weights *w,
                             const fv_tokenizer *t, const fv_kernels *k, fv_pool *pool,
                             const fv_calibrate_options *options, fv_error *err);
void fv_answers_free(fv_answers *a);

#endif
