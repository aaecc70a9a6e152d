/* json_write: JSON text in a growing buffer, the same bytes every time.
 *
 *     fv_json_text j = { 0 };
 *     fv_json_begin(&j, NULL, '{');
 *     fv_json_put_text(&j, "model_type", "fast_vlm");
 *     fv_json_begin_row(&j, "layers", '[');              on one line
 *     fv_json_put_int(&j, NULL, 2);
 *     fv_json_end(&j);
 *     fv_json_end(&j);
 *     FV_TRY_GOTO(fv_json_done(&j, err));                memory was enough, everything is closed
 *     ... j.text, j.n ...
 *     fv_json_text_free(&j);
 *
 * key is NULL inside arrays and for the outermost value. */
#ifndef FV_JSON_WRITE_H
#define FV_JSON_WRITE_H

#include "base/base.h"

enum { FV_JSON_DEPTH = 32 };

typedef struct fv_json_text {
    char *text; /* with a NUL */
    size_t n, capacity;
    int depth;
    bool row[FV_JSON_DEPTH], some[FV_JSON_DEPTH]; /* on one line; has a member already */
    char close[FV_JSON_DEPTH];
    bool failed;  /* memory was out */
    bool compact; /* set before the first value: no spaces, no lines */
} fv_json_text;

void fv_json_begin(fv_json_text *j, const char *key, char bracket);
void fv_json_begin_row(fv_json_text *j, const char *key, char bracket);
void fv_json_end(fv_json_text *j);

void fv_json_put_text(fv_json_text *j, const char *key, const char *value); /* NULL gives null */
/* valid UTF-8 */
void fv_json_put_bytes(fv_json_text *j, const char *key, const char *value, size_t n);
void fv_json_put_int(fv_json_text *j, const char *key, int64_t value);
/* shortest digits that give value back */
void fv_json_put_real(fv_json_text *j, const char *key, double value);
void fv_json_put_bool(fv_json_text *j, const char *key, bool value);
/* A value that is JSON already, as it is. */
void fv_json_put_json(fv_json_text *j, const char *key, const char *json, size_t n);

/* A line as it is, for text that is not JSON but shares the buffer. */
void fv_json_line(fv_json_text *j, const char *line, size_t n);

fv_status fv_json_done(fv_json_text *j, fv_error *err); /* adds the last newline */
void fv_json_text_free(fv_json_text *j);

#endif
