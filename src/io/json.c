/* Typed access to a parsed JSON file. A message needs the way from the top value to the member
 * ("text_config.rope_parameters.rope_theta"); only the failing case pays for it, by a search. */
#include "io/json.h"
#include "base/sniff.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct fv_json {
    json_t *root;
    char *name;
};

/* fv_json_value is jansson's json_t under a name of ours. */
static const json_t *node(const fv_json_value *value) { return (const json_t *)value; }

static const fv_json_value *value_of(const json_t *json) { return (const fv_json_value *)json; }

/* ---- parsing ---- */

fv_status fv_json_parse(fv_json **out, const void *text, size_t n_bytes, const char *name,
                        fv_error *err)
{
    json_error_t why;

    *out = NULL;
    if (n_bytes == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the file is empty, expected JSON", name);
    FV_TRY(fv_refuse_foreign(text, n_bytes, name, FV_FILE_JSON, "JSON", err));
    const uint8_t *nul = memchr(text, '\0', n_bytes); /* jansson passes over them in silence */
    if (nul)
        return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(nul - (const uint8_t *)text),
                       "%s: byte %zu is a NUL, which JSON does not allow", name,
                       (size_t)(nul - (const uint8_t *)text));
    fv_json *doc = fv_alloc_zero(1, sizeof *doc);
    char *copy = fv_strdup(name);
    if (!doc || !copy) {
        fv_free(doc);
        fv_free(copy);
        return fv_fail_memory(err, sizeof *doc + strlen(name), "JSON document");
    }
    doc->name = copy;
    doc->root = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &why);
    if (!doc->root) {
        fv_json_free(doc);
        if (json_error_code(&why) == json_error_out_of_memory)
            return fv_fail_memory(err, n_bytes, name);
        return fv_fail(err, FV_ERR_FORMAT, why.position > 0 ? (uint64_t)why.position : 0,
                       "%s: line %d, column %d: %s", name, why.line, why.column, why.text);
    }
    *out = doc;
    return FV_OK;
}

fv_status fv_json_open(fv_json **out, const char *path, size_t max_bytes, fv_error *err)
{
    uint8_t *text;
    size_t n_bytes;
    const char *slash = strrchr(path, '/');

    *out = NULL;
    FV_TRY(fv_read_file(&text, &n_bytes, path, max_bytes, err));
    fv_status status = fv_json_parse(out, text, n_bytes, slash ? slash + 1 : path, err);
    fv_free(text);
    return status;
}

void fv_json_free(fv_json *doc)
{
    if (!doc)
        return;
    json_decref(doc->root);
    fv_free(doc->name);
    fv_free(doc);
}

const fv_json_value *fv_json_root(const fv_json *doc) { return value_of(doc->root); }

const char *fv_json_name(const fv_json *doc) { return doc->name; }

/* ---- messages ---- */

enum { PATH_BYTES = 200 };

/* Writes the way from node at to target, each step followed by a dot. Objects and arrays are
 * distinct nodes (only true, false and null are shared), so a pointer identifies one. */
static bool find_path(json_t *at, const json_t *target, char *path, size_t used)
{
    size_t index;
    const char *key;
    json_t *child;

    if (used >= PATH_BYTES - 1)
        return false; /* too long to be shown whole */
    path[used] = '\0';
    if (at == target)
        return true;
    if (json_is_object(at)) {
        json_object_foreach(at, key, child)
        {
            int n = snprintf(path + used, PATH_BYTES - used, "%s.", key);
            if (find_path(child, target, path, FV_MIN(used + (size_t)n, PATH_BYTES - 1)))
                return true;
        }
    } else if (json_is_array(at)) {
        json_array_foreach(at, index, child)
        {
            int n = snprintf(path + used, PATH_BYTES - used, "%zu.", index);
            if (find_path(child, target, path, FV_MIN(used + (size_t)n, PATH_BYTES - 1)))
                return true;
        }
    }
    path[used] = '\0';
    return false;
}

static fv_status member_wrong(const fv_json *doc, const fv_json_value *object, const char *key,
                              const char *expected, const char *found, fv_error *err)
{
    char path[PATH_BYTES] = "";

    if (object && !find_path(doc->root, node(object), path, 0))
        path[0] = '\0';
    if (!found)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s%s is missing, expected %s", doc->name, path,
                       key, expected);
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s%s: expected %s, found %s", doc->name, path, key,
                   expected, found);
}

static fv_status wrong_type(const fv_json *doc, const fv_json_value *object, const char *key,
                            const char *expected, fv_error *err)
{
    const fv_json_value *found = fv_json_member(object, key);

    return member_wrong(doc, object, key, expected, found ? fv_json_type_name(found) : NULL, err);
}

/* ---- values ---- */

fv_json_type fv_json_type_of(const fv_json_value *value)
{
    if (!value)
        return FV_JSON_NULL;
    switch (json_typeof(node(value))) {
    case JSON_OBJECT: return FV_JSON_OBJECT;
    case JSON_ARRAY: return FV_JSON_ARRAY;
    case JSON_STRING: return FV_JSON_STRING;
    case JSON_INTEGER: return FV_JSON_INT;
    case JSON_REAL: return FV_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return FV_JSON_BOOL;
    case JSON_NULL: break;
    }
    return FV_JSON_NULL;
}

const char *fv_json_type_name(const fv_json_value *value)
{
    switch (fv_json_type_of(value)) {
    case FV_JSON_OBJECT: return "an object";
    case FV_JSON_ARRAY: return "an array";
    case FV_JSON_STRING: return "a string";
    case FV_JSON_INT: return "an integer";
    case FV_JSON_REAL: return "a real number";
    case FV_JSON_BOOL: return "true or false";
    case FV_JSON_NULL: break;
    }
    return "null";
}

const fv_json_value *fv_json_member(const fv_json_value *object, const char *key)
{
    return object ? value_of(json_object_get(node(object), key)) : NULL;
}

size_t fv_json_count(const fv_json_value *value)
{
    return json_is_array(node(value)) ? json_array_size(node(value))
                                      : json_object_size(node(value));
}

const fv_json_value *fv_json_at(const fv_json_value *array, size_t index)
{
    return value_of(json_array_get(node(array), index));
}

bool fv_json_next(const fv_json_value *object, void **iter, const char **key,
                  const fv_json_value **value)
{
    /* jansson's iterators take no const, but do not write */
    json_t *json = (json_t *)(uintptr_t)object;

    *iter = *iter ? json_object_iter_next(json, *iter) : json_object_iter(json);
    if (!*iter)
        return false;
    *key = json_object_iter_key(*iter);
    *value = value_of(json_object_iter_value(*iter));
    return true;
}

bool fv_json_as_int(const fv_json_value *value, int64_t *out)
{
    if (!json_is_integer(node(value)))
        return false;
    *out = json_integer_value(node(value));
    return true;
}

bool fv_json_as_bool(const fv_json_value *value, bool *out)
{
    if (!json_is_boolean(node(value)))
        return false;
    *out = json_is_true(node(value));
    return true;
}

bool fv_json_as_string(const fv_json_value *value, const char **out)
{
    if (!json_is_string(node(value)))
        return false;
    *out = json_string_value(node(value)); /* the parser refuses \u0000 */
    return true;
}

/* ---- members ---- */

/* An optional member counts as absent when it is null. */
static bool absent(const fv_json_value *object, const char *key)
{
    return fv_json_type_of(fv_json_member(object, key)) == FV_JSON_NULL;
}

fv_status fv_json_int(const fv_json *doc, const fv_json_value *object, const char *key, int64_t min,
                      int64_t max, int64_t *out, fv_error *err)
{
    char expected[80], found[32];
    int64_t value;

    snprintf(expected, sizeof expected, "an integer in [%" PRId64 ", %" PRId64 "]", min, max);
    if (!fv_json_as_int(fv_json_member(object, key), &value))
        return wrong_type(doc, object, key, expected, err);
    if (value < min || value > max) {
        snprintf(found, sizeof found, "%" PRId64, value);
        return member_wrong(doc, object, key, expected, found, err);
    }
    *out = value;
    return FV_OK;
}

fv_status fv_json_opt_int(const fv_json *doc, const fv_json_value *object, const char *key,
                          int64_t min, int64_t max, int64_t *out, fv_error *err)
{
    return absent(object, key) ? FV_OK : fv_json_int(doc, object, key, min, max, out, err);
}

fv_status fv_json_number(const fv_json *doc, const fv_json_value *object, const char *key,
                         double min, double max, double *out, fv_error *err)
{
    char expected[80], found[32];
    const json_t *json = node(fv_json_member(object, key));

    snprintf(expected, sizeof expected, "a number in [%g, %g]", min, max);
    if (!json_is_number(json))
        return wrong_type(doc, object, key, expected, err);
    double value = json_number_value(json);
    if (!isfinite(value) || value < min || value > max) {
        snprintf(found, sizeof found, "%g", value);
        return member_wrong(doc, object, key, expected, found, err);
    }
    *out = value;
    return FV_OK;
}

fv_status fv_json_opt_number(const fv_json *doc, const fv_json_value *object, const char *key,
                             double min, double max, double *out, fv_error *err)
{
    return absent(object, key) ? FV_OK : fv_json_number(doc, object, key, min, max, out, err);
}

fv_status fv_json_bool(const fv_json *doc, const fv_json_value *object, const char *key, bool *out,
                       fv_error *err)
{
    if (!fv_json_as_bool(fv_json_member(object, key), out))
        return wrong_type(doc, object, key, "true or false", err);
    return FV_OK;
}

fv_status fv_json_opt_bool(const fv_json *doc, const fv_json_value *object, const char *key,
                           bool *out, fv_error *err)
{
    return absent(object, key) ? FV_OK : fv_json_bool(doc, object, key, out, err);
}

fv_status fv_json_string(const fv_json *doc, const fv_json_value *object, const char *key,
                         const char **out, fv_error *err)
{
    if (!fv_json_as_string(fv_json_member(object, key), out))
        return wrong_type(doc, object, key, "a string", err);
    return FV_OK;
}

fv_status fv_json_opt_string(const fv_json *doc, const fv_json_value *object, const char *key,
                             const char **out, fv_error *err)
{
    return absent(object, key) ? FV_OK : fv_json_string(doc, object, key, out, err);
}

fv_status fv_json_object(const fv_json *doc, const fv_json_value *object, const char *key,
                         const fv_json_value **out, fv_error *err)
{
    const fv_json_value *value = fv_json_member(object, key);

    if (!json_is_object(node(value)))
        return wrong_type(doc, object, key, "an object", err);
    *out = value;
    return FV_OK;
}

fv_status fv_json_opt_object(const fv_json *doc, const fv_json_value *object, const char *key,
                             const fv_json_value **out, fv_error *err)
{
    return absent(object, key) ? FV_OK : fv_json_object(doc, object, key, out, err);
}

fv_status fv_json_array(const fv_json *doc, const fv_json_value *object, const char *key,
                        const fv_json_value **out, fv_error *err)
{
    const fv_json_value *value = fv_json_member(object, key);

    if (!json_is_array(node(value)))
        return wrong_type(doc, object, key, "an array", err);
    *out = value;
    return FV_OK;
}

fv_status fv_json_opt_array(const fv_json *doc, const fv_json_value *object, const char *key,
                            const fv_json_value **out, fv_error *err)
{
    return absent(object, key) ? FV_OK : fv_json_array(doc, object, key, out, err);
}

fv_status fv_json_ints(const fv_json *doc, const fv_json_value *object, const char *key,
                       int64_t min, int64_t max, size_t min_n, size_t max_n, int64_t *out,
                       size_t *n, fv_error *err)
{
    char expected[160], found[64];
    const fv_json_value *array = fv_json_member(object, key);
    size_t count = fv_json_count(array);

    snprintf(expected, sizeof expected, "%zu to %zu integers in [%" PRId64 ", %" PRId64 "]", min_n,
             max_n, min, max);
    if (!json_is_array(node(array)))
        return wrong_type(doc, object, key, expected, err);
    snprintf(found, sizeof found, "%zu values", count);
    if (count < min_n || count > max_n)
        return member_wrong(doc, object, key, expected, found, err);
    for (size_t i = 0; i < count; i++) {
        int64_t value;
        const fv_json_value *item = fv_json_at(array, i);
        if (!fv_json_as_int(item, &value))
            return member_wrong(doc, object, key, expected, fv_json_type_name(item), err);
        if (value < min || value > max) {
            snprintf(found, sizeof found, "%" PRId64, value);
            return member_wrong(doc, object, key, expected, found, err);
        }
        out[i] = value;
    }
    *n = count;
    return FV_OK;
}
