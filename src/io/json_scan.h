/* json_scan: a cursor over JSON text that builds no tree.
 *
 * For the large tokenizer files: 151,643 members of vocab.json would be a tree of 300,000
 * values; here a string is a slice of the file unless it has escapes. JSON as RFC 8259 has it, and
 * what Python's json writes besides: NaN, Infinity, -Infinity. That the text is UTF-8 is for the
 * caller to check. Every function fails with FV_ERR_FORMAT, the name of the text and the place.
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
    char
        *unescaped; /* strings with escapes go here, with a NUL; as long as the text: never short */
    bool lines;     /* messages say line and column instead of the byte */
    bool half, nul; /* of the last string: U+FFFD stands in it for half a surrogate pair, a NUL */
} fv_scan;

/* text and unescaped (n_bytes of it) are borrowed; both must outlive the strings. */
void fv_scan_begin(fv_scan *s, const void *text, size_t n_bytes, char *unescaped, const char *name);

fv_status fv_scan_open(fv_scan *s, char bracket, bool *first, fv_error *err); /* '{' or '[' */
/* '}' or ']' */
fv_status fv_scan_more(fv_scan *s, char bracket, bool *first, bool *more, fv_error *err);
/* A string that is text: without NUL and halves of surrogate pairs. */
fv_status fv_scan_string(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err);
/* and its colon */
fv_status fv_scan_key(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err);
fv_status fv_scan_int(fv_scan *s, int64_t min, int64_t max, int64_t *out, fv_error *err);
fv_status fv_scan_bool(fv_scan *s, bool *out, fv_error *err);
fv_status fv_scan_skip(fv_scan *s, fv_error *err); /* any value */
fv_status fv_scan_end(fv_scan *s, fv_error *err);  /* nothing but white space is left */
char fv_scan_peek(fv_scan *s); /* next character that is not white space; 0 at the end */

/* ---- values of any kind, one event after the other ---- */

enum { FV_SCAN_MAX_DEPTH = 2048 };

typedef enum fv_scan_kind {
    FV_SCAN_OBJECT, /* '{': members follow, then CLOSE */
    FV_SCAN_ARRAY,
    FV_SCAN_CLOSE,
    FV_SCAN_STRING,
    FV_SCAN_INT,  /* of any length */
    FV_SCAN_REAL, /* also NaN, Infinity and -Infinity */
    FV_SCAN_TRUE,
    FV_SCAN_FALSE,
    FV_SCAN_NULL
} fv_scan_kind;

typedef struct fv_scan_event {
    fv_scan_kind kind;
    const char *key; /* of a member of an object, else NULL */
    size_t n_key;
    const char *text; /* a string's bytes; numbers and words as they are written */
    size_t n;
    bool odd; /* a string in which U+FFFD stands for what is not text */
} fv_scan_event;

typedef struct fv_scan_walk {
    uint64_t
        object[FV_SCAN_MAX_DEPTH / 64]; /* a bit for each open bracket: an object, or an array */
    int depth;
    bool first;
} fv_scan_walk;

/* The next event of a value; *walk begins as zero, and the value is over when its depth is 0. */
fv_status fv_scan_next(fv_scan *s, fv_scan_walk *walk, fv_scan_event *event, fv_error *err);

/* "NAME: byte N: expected EXPECTED, found 'c'" */
fv_status fv_scan_unexpected(fv_scan *s, const char *expected, fv_error *err);

#endif
