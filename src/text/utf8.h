/* utf8: the stream that turns token bytes into text that may be shown.
 *
 *     token bytes --(fv_stream)--> complete UTF-8, stop strings cut off
 */
#ifndef FV_UTF8_H
#define FV_UTF8_H

#include "base/base.h"
#include "base/utf8_text.h"

/* A stream over one answer. Bytes go in as tokens come; text comes out as soon as it is certain:
 *
 * - bytes of a character that is not complete yet are held back;
 * - bytes that cannot be UTF-8 become U+FFFD, one per maximal subpart, as Python's
 *   bytes.decode("utf-8", "replace") does, wherever the tokens were cut;
 * - text that may be the beginning of a stop string is held back until it is or is not. The answer
 *   ends at the first byte where any stop string is complete; of several that end there the
 *   longest counts. The stop string itself is not given out.
 *
 * The text depends on the bytes only, never on how they were cut into tokens. White space at the
 * ends is kept: predict.py strips its final text, a caller who wants that strips it too.
 * Nothing is allocated after fv_stream_new. */
typedef struct fv_stream fv_stream;

/* max_piece_bytes: the longest push (fv_tokenizer_max_bytes). The n_stop strings are copied; each
 * must be non-empty UTF-8, else FV_ERR_ARGUMENT. */
fv_status fv_stream_new(fv_stream **out, size_t max_piece_bytes, const char *const *stop,
                        size_t n_stop, fv_error *err);
void fv_stream_free(fv_stream *stream);
void fv_stream_reset(fv_stream *stream); /* for the next answer */

/* Takes n_bytes <= max_piece_bytes and gives the text that is certain now (maybe none), valid until
 * the next call. True when a stop string is complete: the text ends before it and later pushes
 * give nothing until the stream is reset. */
bool fv_stream_push(fv_stream *stream, const char *bytes, size_t n_bytes, const char **text,
                    size_t *n_text);

/* The answer is over: gives what is held back (nothing after a stop string); an incomplete
 * character becomes U+FFFD, and when that completes a stop string the result is true. */
bool fv_stream_finish(fv_stream *stream, const char **text, size_t *n_text);

#endif
