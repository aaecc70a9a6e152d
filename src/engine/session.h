/* session: what the library's own measurements do with a conversation, beyond fastvlm.h. */
#ifndef FV_SESSION_H
#define FV_SESSION_H

#include "nn/watch.h"

/* Gives every stage of the following calls to tap; NULL ends it. */
void fv_session_tap(fv_session *s, fv_tap_fn *tap, void *user);

/* The image tokens of the turn's last picture, [T, d_model]; NULL when it has none. Valid until the
 * next call. */
const float *fv_session_rows(const fv_session *s);
/* Puts a picture's image tokens, as fv_session_rows gave them, into the turn in place of the
 * picture. */
fv_status fv_session_add_rows(fv_session *s, const float *rows, fv_error *err);

/* As fv_session_next, but takes the token id instead of choosing one. It may be any row of the
 * vocabulary; the end of an answer, too, is only a token here. */
fv_status fv_session_force(fv_session *s, int32_t id, fv_error *err);
/* What the last token was chosen from, or forced against: [n_vocab], valid until the next call. */
const float *fv_session_logits(const fv_session *s);

#endif
