/* json: typed access to a parsed JSON file, with messages that name file and key.
 *
 * For the small files of a checkpoint: config.json, the safetensors header and index,
 * tokenizer_config.json. Everything that Python's json writes is read: integers of any length, NaN,
 * Infinity, halves of surrogate pairs; such a value is refused where it is used, by file, key and
 * what was found. Keys that come twice, text that is not UTF-8 and nesting past 2,048 are refused
 * when the text is parsed. (The large vocabulary files go through json_scan.h, which builds no
 * tree.)
 *
 *     fv_json *doc;  int64_t d_model;  double eps = 1e-6;
 *     FV_TRY(fv_json_open(&doc, "model/config.json", 1 << 20, err));
 *     const fv_json_value *root = fv_json_root(doc);
 *     fv_json_int(doc, root, "hidden_size", 1, 65536, &d_model, err);
 *         -> "config.json: hidden_size: expected an integer in [1, 65536], found a string"
 *     fv_json_opt_number(doc, root, "rms_norm_eps", 0, 1, &eps, err);
 *
 * Every fv_json_value and string is borrowed from the document. A document is immutable, but for
 * fv_json_enter: any number of threads may read it. */
#ifndef FV_JSON_H
#define FV_JSON_H

#include "base/base.h"

typedef struct fv_json fv_json;
typedef struct fv_json_value fv_json_value;

/* Parses n_bytes of UTF-8. name is what messages call it ("config.json"); copied. The top value
 * must be an object or an array. FV_ERR_FORMAT carries the byte offset in err->at. */
fv_status fv_json_parse(fv_json **out, const void *text, size_t n_bytes, const char *name,
                        fv_error *err);
/* The same for text from anybody: up to max_values values, of which each takes forty bytes and
 * more, however short it is; FV_ERR_LIMIT. */
fv_status fv_json_parse_up_to(fv_json **out, const void *text, size_t n_bytes, size_t max_values,
                              const char *name, fv_error *err);
/* The same for a file of at most max_bytes; messages use the last part of the path. */
fv_status fv_json_open(fv_json **out, const char *path, size_t max_bytes, fv_error *err);
void fv_json_free(fv_json *doc);

const fv_json_value *fv_json_root(const fv_json *doc);
const char *fv_json_name(const fv_json *doc);
/* A value that is a document of its own, such as the body of a request: from here on messages call
 * it `name` and say the way from `top`. */
fv_status fv_json_enter(fv_json *doc, const fv_json_value *top, const char *name, fv_error *err);

/* ---- members of an object ----
 *
 * object must be an object (or NULL, which has no members): use fv_json_object to descend.
 * The plain functions need the member: absent or of another type is FV_ERR_FORMAT.
 * fv_json_opt_* leave *out as it is when the member is absent or null, and still fail when it has
 * another type or is out of range. Bounds are inclusive. */

fv_status fv_json_int(const fv_json *doc, const fv_json_value *object, const char *key, int64_t min,
                      int64_t max, int64_t *out, fv_error *err);
fv_status fv_json_opt_int(const fv_json *doc, const fv_json_value *object, const char *key,
                          int64_t min, int64_t max, int64_t *out, fv_error *err);
/* An integer or a real; finite. */
fv_status fv_json_number(const fv_json *doc, const fv_json_value *object, const char *key,
                         double min, double max, double *out, fv_error *err);
fv_status fv_json_opt_number(const fv_json *doc, const fv_json_value *object, const char *key,
                             double min, double max, double *out, fv_error *err);
fv_status fv_json_bool(const fv_json *doc, const fv_json_value *object, const char *key, bool *out,
                       fv_error *err);
fv_status fv_json_opt_bool(const fv_json *doc, const fv_json_value *object, const char *key,
                           bool *out, fv_error *err);
/* Text: without a NUL or half a surrogate pair inside. */
fv_status fv_json_string(const fv_json *doc, const fv_json_value *object, const char *key,
                         const char **out, fv_error *err);
fv_status fv_json_opt_string(const fv_json *doc, const fv_json_value *object, const char *key,
                             const char **out, fv_error *err);
fv_status fv_json_object(const fv_json *doc, const fv_json_value *object, const char *key,
                         const fv_json_value **out, fv_error *err);
fv_status fv_json_opt_object(const fv_json *doc, const fv_json_value *object, const char *key,
                             const fv_json_value **out, fv_error *err);
fv_status fv_json_array(const fv_json *doc, const fv_json_value *object, const char *key,
                        const fv_json_value **out, fv_error *err);
fv_status fv_json_opt_array(const fv_json *doc, const fv_json_value *object, const char *key,
                            const fv_json_value **out, fv_error *err);
/* An array of min_n to max_n integers, each in [min, max]; *n is their number. */
fv_status fv_json_ints(const fv_json *doc, const fv_json_value *object, const char *key,
                       int64_t min, int64_t max, size_t min_n, size_t max_n, int64_t *out,
                       size_t *n, fv_error *err);

/* The same value, with members in the same order? */
bool fv_json_same(const fv_json_value *a, const fv_json_value *b);

/* A value as JSON on one line: numbers with up to 15 digits, objects as "{...}", long lists and
 * strings with "..." at the end. */
enum { FV_JSON_SHOWN = 96 };
void fv_json_show(const fv_json_value *value, char text[FV_JSON_SHOWN]);
/* FV_ERR_UNSUPPORTED: "config.json: text_config.hidden_act is "gelu"; expected EXPECTED". */
fv_status fv_json_unexpected(const fv_json *doc, const fv_json_value *object, const char *key,
                             const char *expected, fv_error *err);

/* ---- values without a key: walking files whose keys are data ---- */

typedef enum fv_json_type {
    FV_JSON_NULL,
    FV_JSON_BOOL,
    FV_JSON_INT,
    FV_JSON_REAL,
    FV_JSON_STRING,
    FV_JSON_ARRAY,
    FV_JSON_OBJECT
} fv_json_type;

fv_json_type fv_json_type_of(const fv_json_value *value);  /* NULL counts as FV_JSON_NULL */
const char *fv_json_type_name(const fv_json_value *value); /* "a string", for messages */
/* NULL when absent or when object is none. */
const fv_json_value *fv_json_member(const fv_json_value *object, const char *key);
size_t fv_json_count(const fv_json_value *value); /* of an array or object, else 0 */
const fv_json_value *fv_json_at(const fv_json_value *array, size_t index); /* NULL past the end */
/* Members in file order. *iter starts as NULL; false after the last one. */
bool fv_json_next(const fv_json_value *object, void **iter, const char **key,
                  const fv_json_value **value);
/* False, and *out unchanged, when value is NULL or of another type (or the string is not text, the
 * integer beyond 64 bits). */
bool fv_json_as_int(const fv_json_value *value, int64_t *out);
bool fv_json_as_number(const fv_json_value *value, double *out); /* may be infinite or NaN */
bool fv_json_as_bool(const fv_json_value *value, bool *out);
bool fv_json_as_string(const fv_json_value *value, const char **out);

#endif
