/* json_scan: a cursor over JSON text that builds no tree.
 *
 * For the large tokenizer files: 151,643 members of vocab.json cost jansson a tree of 300,000
 * blocks; here a string is a slice of the file unless it has escapes. Strict JSON (RFC 8259); that
 * the text is UTF-8 is for the caller to check. Every function fails with FV_ERR_FORMAT, the name
 * of the text and the offset.
 *
 *     bool first, more;
 *     FV_TRY(fv_scan_open(s, '{', &first, err));
 *     for (;;) {
 *         FV_TRY(fv_scan_more(s, '}', &first, &more, err));
 *         if (!more)
 *             break;
 *         FV_TRY(fv_scan_key(s, &key, &n_key, err));
 *         FV_TRY(fv_scan_int(s, 0, 99, &value, err));
 *     } */
#ifndef FV_JSON_SCAN_H
#define FV_JSON_SCAN_H

#include "base/base.h"

typedef struct fv_scan {
    const char *name; /* for messages */
    const char *at, *begin, *end;
    char *unescaped; /* strings with escapes go here; as long as the text, so never short */
} fv_scan;

/* text and unescaped (n_bytes of it) are borrowed; both must outlive the strings. */
void fv_scan_begin(fv_scan *s, const void *text, size_t n_bytes, char *unescaped, const char *name);

fv_status fv_scan_open(fv_scan *s, char bracket, bool *first, fv_error *err); /* '{' or '[' */
/* '}' or ']' */
fv_status fv_scan_more(fv_scan *s, char bracket, bool *first, bool *more, fv_error *err);
fv_status fv_scan_string(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err);
/* and its colon */
fv_status fv_scan_key(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err);
fv_status fv_scan_int(fv_scan *s, int64_t min, int64_t max, int64_t *out, fv_error *err);
fv_status fv_scan_bool(fv_scan *s, bool *out, fv_error *err);
fv_status fv_scan_skip(fv_scan *s, fv_error *err); /* any value, nested up to 64 deep */
fv_status fv_scan_end(fv_scan *s, fv_error *err);  /* nothing but white space is left */
char fv_scan_peek(fv_scan *s); /* next character that is not white space; 0 at the end */

/* "NAME: byte N: expected EXPECTED, found 'c'" */
fv_status fv_scan_unexpected(fv_scan *s, const char *expected, fv_error *err);

#endif
