/* score: is an answer of the demonstration test right? The rules of tools/train/score.py. */
#ifndef FV_SCORE_H
#define FV_SCORE_H

#include "base/base.h"

/* kind "describe": the same shapes with their colours in any order, the same quoted words, the same
 * numbers of shapes, both or neither "empty". Every other kind: the same words, but for a final
 * full stop. Letter case and the width of spaces do not count. All are UTF-8. */
fv_status fv_score_answer(bool *correct, const char *kind, const char *wanted, const char *answer,
                          fv_error *err);

#endif
