/* rounder: the decoder in blocks of 8 or 4 bits, rounded with what flows through it in view.
 *
 *   answers.h: sequences of rows, prompts with images and the model's own answers
 *   each layer: the sequences go through it, its inputs observed -> H = sum x x^T of every input
 *               its matrices are rounded against H (quant/quantize.h)
 *               the sequences go through the rounded layer, so that the next one can make up for it
 *
 * One layer is worked on at a time, when it is written: memory is that of the sequences and of one
 * layer. The embedding and the head are left alone: their inputs are words, not sums, and q4 has
 * them in z8. */
#ifndef FV_ROUNDER_H
#define FV_ROUNDER_H

#include "pack/calibrate.h"
#include "text/tokenizer.h"

typedef struct fv_rounder fv_rounder;

/* w as loaded from a checkpoint; it and the others outlive *out. type: Q8_0 or Q4_0; row_scales,
 * with Q8_0: the blocks of a row have one scale. The options' min_cosine and compensate are not
 * used. */
fv_status fv_rounder_new(fv_rounder **out, const fv_config *c, fv_weights *w, const fv_tokenizer *t,
                         const fv_kernels *k, fv_pool *pool, fv_type type, bool row_scales,
                         const fv_calibrate_options *options, fv_error *err);
void fv_rounder_free(fv_rounder *r);

void fv_rounder_report(const fv_rounder *r, fv_pack_report *report);

/* What the packer asks for each weight; valid while r lives. */
fv_pack_hook fv_rounder_hook(fv_rounder *r);

#endif
