/* genie_answer: what genie-t2t-run prints, taken apart as it comes.
 *
 *     Using libGenie.so version 1.13.0
 *
 *     Embedding file size: 100352 bytes
 *
 *     [BEGIN]: A large red star ... [END]
 *
 * Log lines may stand before [BEGIN]. The text itself may hold both marks: it goes from the first
 * [BEGIN] to the last [END]. When the first token is the end, there is only [END]. */
#ifndef FV_GENIE_ANSWER_H
#define FV_GENIE_ANSWER_H

#include "base/base.h"

/* Zero-initialise; fv_genie_answer_free when done. */
typedef struct fv_genie_answer {
    char *output; /* all of it, with a NUL */
    size_t n, capacity;
    size_t shown; /* bytes of the text that fv_genie_answer_next has handed out */
} fv_genie_answer;

enum { FV_GENIE_MAX_OUTPUT = 64 << 20 };

/* The next bytes, cut anywhere. FV_ERR_LIMIT: more than FV_GENIE_MAX_OUTPUT. */
fv_status fv_genie_answer_add(fv_genie_answer *a, const char *data, size_t n, fv_error *err);
/* Text that can be shown by now and has not been: whole characters, nothing that may be part of the
 * end mark. False: none. Valid until the next fv_genie_answer_add. */
bool fv_genie_answer_next(fv_genie_answer *a, const char **text, size_t *n_bytes);
/* The whole text, borrowed. FV_ERR_FORMAT: no mark at all, or a text without an end; *text and
 * *n_bytes are what there is of it. */
fv_status fv_genie_answer_end(fv_genie_answer *a, const char **text, size_t *n_bytes,
                              fv_error *err);
void fv_genie_answer_free(fv_genie_answer *a);

#endif
