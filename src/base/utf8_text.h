/* utf8_text: is it UTF-8, and text made UTF-8 where a format or a promise demands it. */
#ifndef FV_UTF8_TEXT_H
#define FV_UTF8_TEXT_H

#include "base/base.h"

/* Well-formed as Unicode table 3-7 says: no overlong forms, surrogates or values past U+10FFFF.
 * When false, *bad_at (may be NULL) is the offset of the first byte of the bad sequence. */
bool fv_utf8_valid(const char *text, size_t n_bytes, size_t *bad_at);

/* Length of the longest well-formed beginning of one character at text: a whole character sets
 * *complete. A byte that begins none gives 1 with *complete false; an input that ends inside a
 * character gives n_bytes and *truncated true. n_bytes >= 1. */
size_t fv_utf8_step(const uint8_t *text, size_t n_bytes, bool *complete, bool *truncated);

/* U+FFFD, which stands for bytes that are not text. */
#define FV_UTF8_REPLACEMENT "\xef\xbf\xbd"

/* The text with each maximal part that is not UTF-8 replaced by U+FFFD, as Python's
 * bytes.decode("utf-8", "replace") does, and each NUL, too. to has room for 3 * n_bytes; returns
 * the number of bytes written. */
size_t fv_utf8_replace(char *to, const char *text, size_t n_bytes);

#endif
