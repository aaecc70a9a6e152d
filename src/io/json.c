/* Typed access to a parsed JSON file. A message needs the way from the top value to the member
 * ("text_config.rope_parameters.rope_theta"); only the failing case pays for it, by a search.
 *
 *     text --fv_scan_next--> nodes, in the order of the text; each knows its parent
 *     nodes --> items: for each array its elements, for each object its members in order, and the
 *               same once more sorted by key, to look them up and to see a key that comes twice */
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/number.h"
#include "base/sniff.h"
#include "base/utf8_text.h"
#include "io/json_scan.h"

struct fv_json_value {
    const char *key; /* of a member of an object */
    union {
        const char *text;            /* STRING; INT that is big: its digits */
        int64_t integer;             /* INT */
        double real;                 /* REAL */
        bool flag;                   /* BOOL */
        const fv_json_value **items; /* ARRAY [n]; OBJECT [2 n]: in order, then by key */
    };
    uint32_t n, parent; /* of ARRAY and OBJECT; place of the value that holds it */
    uint8_t type;       /* fv_json_type */
    bool big;           /* INT beyond 64 bits */
    bool odd;           /* STRING with something that is not text */
};

struct fv_json {
    fv_json_value *nodes; /* [n]; the first is the root */
    size_t n, capacity, max_values;
    const fv_json_value *top; /* where messages begin; NULL: the root */
    const fv_json_value **items;
    char *texts; /* strings, keys and big integers, each with a NUL */
    char *name;
};

/* ---- numbers ---- */

/* Digits with a sign, into 64 bits; false when they do not fit. */
static bool integer_value(const char *text, size_t n, int64_t *out)
{
    bool minus = *text == '-';
    uint64_t value = 0, limit = (uint64_t)INT64_MAX + minus;

    for (size_t i = minus; i < n; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (value > (limit - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = minus ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

/* ---- parsing ---- */

typedef struct parser {
    fv_json *doc;
    fv_scan scan;
    fv_error *err;
} parser;

/* A text of the scanner's, with a NUL behind it. Strings lie between quotes and integers before
 * another character, so texts has room for all of them. */
static const char *parser_keep(parser *p, const char *text, size_t n)
{
    char *to = p->scan.unescaped;

    if (text >= p->doc->texts && text < to) /* unescaped there */
        return text;
    memcpy(to, text, n);
    to[n] = '\0';
    p->scan.unescaped = to + n + 1;
    return to;
}

static fv_json_type type_of_event(fv_scan_kind kind)
{
    switch (kind) {
    case FV_SCAN_OBJECT: return FV_JSON_OBJECT;
    case FV_SCAN_ARRAY: return FV_JSON_ARRAY;
    case FV_SCAN_STRING: return FV_JSON_STRING;
    case FV_SCAN_INT: return FV_JSON_INT;
    case FV_SCAN_REAL: return FV_JSON_REAL;
    case FV_SCAN_TRUE:
    case FV_SCAN_FALSE: return FV_JSON_BOOL;
    default: return FV_JSON_NULL;
    }
}

static void parser_value(parser *p, fv_json_value *v, const fv_scan_event *e)
{
    v->type = (uint8_t)type_of_event(e->kind);
    switch (e->kind) {
    case FV_SCAN_STRING:
        v->text = parser_keep(p, e->text, e->n);
        v->odd = e->odd;
        break;
    case FV_SCAN_INT:
        v->big = !integer_value(e->text, e->n, &v->integer);
        if (v->big)
            v->text = parser_keep(p, e->text, e->n);
        break;
    case FV_SCAN_REAL:
        v->real = e->text[0] == 'N'   ? (double)NAN
                  : e->text[0] == 'I' ? (double)INFINITY
                  : e->text[1] == 'I' ? -(double)INFINITY
                                      : fv_number_read(e->text, NULL);
        break;
    default: v->flag = e->kind == FV_SCAN_TRUE; break;
    }
}

/* The text as nodes. */
static fv_status parser_nodes(parser *p)
{
    fv_json *doc = p->doc;
    fv_scan_walk walk = { 0 };
    fv_scan_event e;
    uint32_t parent = 0;

    if (fv_scan_peek(&p->scan) != '{' && fv_scan_peek(&p->scan) != '[')
        return fv_scan_unexpected(&p->scan, "an object or an array", p->err);
    do {
        FV_TRY(fv_scan_next(&p->scan, &walk, &e, p->err));
        if (e.kind == FV_SCAN_CLOSE) {
            parent = doc->nodes[parent].parent;
            continue;
        }
        if (doc->n == doc->max_values)
            return fv_fail(p->err, FV_ERR_LIMIT, 0, "%s: more than %zu values", doc->name,
                           doc->max_values);
        FV_TRY(FV_LIST_ROOM(doc->nodes, doc->n, doc->capacity, 1, p->err));
        fv_json_value *v = &doc->nodes[doc->n];
        *v = (fv_json_value){ .parent = parent };
        if (e.key)
            v->key = parser_keep(p, e.key, e.n_key);
        parser_value(p, v, &e);
        if (doc->n > 0)
            doc->nodes[parent].n++;
        if (e.kind == FV_SCAN_OBJECT || e.kind == FV_SCAN_ARRAY)
            parent = (uint32_t)doc->n;
        doc->n++;
    } while (walk.depth > 0);
    return fv_scan_end(&p->scan, p->err);
}

static int value_by_key(const void *a, const void *b)
{
    const fv_json_value *const *x = a, *const *y = b;

    return strcmp((*x)->key, (*y)->key);
}

static bool value_is_container(const fv_json_value *v)
{
    return v->type == FV_JSON_OBJECT || v->type == FV_JSON_ARRAY;
}

/* The lists of what each array and object holds. */
static fv_status parser_items(parser *p)
{
    fv_json *doc = p->doc;
    size_t n_items = 0;

    for (size_t i = 0; i < doc->n; i++)
        if (value_is_container(&doc->nodes[i]))
            n_items += (size_t)doc->nodes[i].n * (doc->nodes[i].type == FV_JSON_OBJECT ? 2 : 1);
    doc->items = fv_alloc(n_items, sizeof *doc->items);
    if (!doc->items)
        return fv_fail_memory(p->err, n_items * sizeof *doc->items, doc->name);
    n_items = 0;
    for (size_t i = 0; i < doc->n; i++) {
        fv_json_value *v = &doc->nodes[i];
        if (i > 0) /* parents come first */
            doc->nodes[v->parent].items[doc->nodes[v->parent].n++] = v;
        if (!value_is_container(v))
            continue;
        v->items = doc->items + n_items;
        n_items += (size_t)v->n * (v->type == FV_JSON_OBJECT ? 2 : 1);
        v->n = 0; /* counted again as they come */
    }
    for (size_t i = 0; i < doc->n; i++) {
        const fv_json_value *v = &doc->nodes[i];
        if (v->type != FV_JSON_OBJECT || v->n == 0)
            continue;
        const fv_json_value **sorted = v->items + v->n;
        memcpy(sorted, v->items, v->n * sizeof *sorted);
        qsort(sorted, v->n, sizeof *sorted, value_by_key);
        for (uint32_t k = 1; k < v->n; k++)
            if (!strcmp(sorted[k - 1]->key, sorted[k]->key))
                return fv_fail(p->err, FV_ERR_FORMAT, 0,
                               "%s: the key \"%.60s\" comes twice in one "
                               "object",
                               doc->name, sorted[k]->key);
    }
    return FV_OK;
}

static fv_status json_check_text(const char *text, size_t n_bytes, const char *name, fv_error *err)
{
    size_t bad_at;

    if (n_bytes == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the file is empty, expected JSON", name);
    FV_TRY(fv_refuse_foreign(text, n_bytes, name, FV_FILE_JSON, "JSON", err));
    if (!fv_utf8_valid(text, n_bytes, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at,
                       "%s: byte %zu (0x%02x) is not UTF-8, which JSON is written in", name, bad_at,
                       (unsigned)(unsigned char)text[bad_at]);
    return FV_OK;
}

fv_status fv_json_parse(fv_json **out, const void *text, size_t n_bytes, const char *name,
                        fv_error *err)
{
    return fv_json_parse_up_to(out, text, n_bytes, UINT32_MAX, name, err);
}

fv_status fv_json_parse_up_to(fv_json **out, const void *text, size_t n_bytes, size_t max_values,
                              const char *name, fv_error *err)
{
    fv_status status = FV_OK;
    parser p = { .err = err };

    *out = NULL;
    FV_TRY(json_check_text(text, n_bytes, name, err));
    p.doc = fv_alloc_zero(1, sizeof *p.doc);
    if (!p.doc || !(p.doc->name = fv_strdup(name)) || !(p.doc->texts = fv_alloc(n_bytes, 1))) {
        status = fv_fail_memory(err, sizeof *p.doc + n_bytes, name);
        goto fail;
    }
    p.doc->max_values = FV_MIN(max_values, (size_t)UINT32_MAX);
    fv_scan_begin(&p.scan, text, n_bytes, p.doc->texts, p.doc->name);
    p.scan.lines = true;
    FV_TRY_GOTO(parser_nodes(&p));
    FV_TRY_GOTO(parser_items(&p));
fail:
    if (status != FV_OK)
        fv_json_free(p.doc);
    else
        *out = p.doc;
    return status;
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
    fv_free(doc->nodes);
    fv_free(doc->items);
    fv_free(doc->texts);
    fv_free(doc->name);
    fv_free(doc);
}

const fv_json_value *fv_json_root(const fv_json *doc) { return doc->nodes; }

const char *fv_json_name(const fv_json *doc) { return doc->name; }

fv_status fv_json_enter(fv_json *doc, const fv_json_value *top, const char *name, fv_error *err)
{
    char *copy = fv_strdup(name);
    if (!copy)
        return fv_fail_memory(err, strlen(name), name);
    fv_free(doc->name);
    doc->name = copy;
    doc->top = top;
    return FV_OK;
}

/* ---- messages ---- */

enum { PATH_BYTES = 200, FOUND_BYTES = 64 };

/* The way from the top to a value, each step followed by a dot; empty when it is too long. */
static void value_path(const fv_json *doc, const fv_json_value *v, char path[PATH_BYTES])
{
    size_t at = PATH_BYTES;

    path[--at] = '\0';
    for (; v != doc->nodes && v != doc->top; v = &doc->nodes[v->parent]) {
        const fv_json_value *parent = &doc->nodes[v->parent];
        char index[16] = "";
        for (uint32_t i = 0; !v->key && i < parent->n; i++)
            if (parent->items[i] == v)
                snprintf(index, sizeof index, "%" PRIu32, i);
        const char *step = v->key ? v->key : index;
        size_t n = strlen(step);
        if (n + 1 > at) {
            path[0] = '\0';
            return;
        }
        path[--at] = '.';
        memcpy(path + (at -= n), step, n);
    }
    memmove(path, path + at, PATH_BYTES - at);
}

static fv_status member_wrong(const fv_json *doc, const fv_json_value *object, const char *key,
                              const char *expected, const char *found, fv_error *err)
{
    char path[PATH_BYTES] = "";

    if (object)
        value_path(doc, object, path);
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

/* A number as a message shows it: "70000", "Infinity". */
static const char *number_text(const fv_json_value *v, char text[FOUND_BYTES])
{
    if (v->type == FV_JSON_INT && v->big)
        snprintf(text, FOUND_BYTES, "%.40s%s", v->text, strlen(v->text) > 40 ? "..." : "");
    else if (v->type == FV_JSON_INT)
        snprintf(text, FOUND_BYTES, "%" PRId64, v->integer);
    else if (isfinite(v->real))
        fv_format(text, FOUND_BYTES, "%g", v->real);
    else
        snprintf(text, FOUND_BYTES, "%s",
                 isnan(v->real)  ? "NaN"
                 : v->real > 0.0 ? "Infinity"
                                 : "-Infinity");
    return text;
}

/* Appends to a text that ends in "..." when it is full. */
static void shown_add(char text[FV_JSON_SHOWN], const char *more)
{
    size_t n = strlen(text), room = FV_JSON_SHOWN - 1 - n, n_more = strlen(more);

    if (n > FV_JSON_SHOWN - 8 && !strcmp(text + n - 3, "..."))
        return;
    if (n_more <= room) {
        memcpy(text + n, more, n_more + 1);
        return;
    }
    memcpy(text + n, more, room);
    size_t end = FV_JSON_SHOWN - 4;
    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80) /* whole characters */
        end--;
    memcpy(text + end, "...", 4);
}

static void shown_value(char text[FV_JSON_SHOWN], const fv_json_value *v, int depth)
{
    char number[FOUND_BYTES];

    switch (fv_json_type_of(v)) {
    case FV_JSON_OBJECT: shown_add(text, v->n ? "{...}" : "{}"); return;
    case FV_JSON_ARRAY:
        if (depth > 2) {
            shown_add(text, "[...]");
            return;
        }
        shown_add(text, "[");
        for (uint32_t i = 0; i < v->n && strlen(text) < FV_JSON_SHOWN - 1; i++) {
            shown_add(text, i ? ", " : "");
            shown_value(text, v->items[i], depth + 1);
        }
        shown_add(text, "]");
        return;
    case FV_JSON_STRING:
        shown_add(text, "\"");
        shown_add(text, v->text);
        shown_add(text, "\"");
        return;
    case FV_JSON_REAL:
        if (isfinite(v->real)) {
            fv_format(number, sizeof number, "%.15g", v->real);
            shown_add(text, number);
            return;
        } /* fall through */
    case FV_JSON_INT: shown_add(text, number_text(v, number)); return;
    case FV_JSON_BOOL: shown_add(text, v->flag ? "true" : "false"); return;
    case FV_JSON_NULL: break;
    }
    shown_add(text, "null");
}

void fv_json_show(const fv_json_value *value, char text[FV_JSON_SHOWN])
{
    text[0] = '\0';
    shown_value(text, value, 0);
}

fv_status fv_json_unexpected(const fv_json *doc, const fv_json_value *object, const char *key,
                             const char *expected, fv_error *err)
{
    char path[PATH_BYTES] = "", found[FV_JSON_SHOWN];

    if (object)
        value_path(doc, object, path);
    fv_json_show(fv_json_member(object, key), found);
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s%s is %s; expected %s", doc->name, path, key,
                   found, expected);
}

/* ---- values ---- */

bool fv_json_same(const fv_json_value *a, const fv_json_value *b)
{
    fv_json_type type = fv_json_type_of(a);
    if (type != fv_json_type_of(b))
        return false;
    switch (type) {
    case FV_JSON_NULL: return true;
    case FV_JSON_BOOL: return a->flag == b->flag;
    case FV_JSON_INT:
        return a->big == b->big && (a->big ? !strcmp(a->text, b->text) : a->integer == b->integer);
    case FV_JSON_REAL: return !memcmp(&a->real, &b->real, sizeof a->real);
    case FV_JSON_STRING: return a->odd == b->odd && !strcmp(a->text, b->text);
    case FV_JSON_ARRAY:
    case FV_JSON_OBJECT: break;
    }
    bool same = a->n == b->n;
    for (uint32_t i = 0; same && i < a->n; i++)
        same = (type == FV_JSON_ARRAY || !strcmp(a->items[i]->key, b->items[i]->key)) &&
               fv_json_same(a->items[i], b->items[i]);
    return same;
}

fv_json_type fv_json_type_of(const fv_json_value *value)
{
    return value ? (fv_json_type)value->type : FV_JSON_NULL;
}

const char *fv_json_type_name(const fv_json_value *value)
{
    switch (fv_json_type_of(value)) {
    case FV_JSON_OBJECT: return "an object";
    case FV_JSON_ARRAY: return "an array";
    case FV_JSON_STRING: return value->odd ? "a string that is not text" : "a string";
    case FV_JSON_INT: return "an integer";
    case FV_JSON_REAL: return "a real number";
    case FV_JSON_BOOL: return "true or false";
    case FV_JSON_NULL: break;
    }
    return "null";
}

const fv_json_value *fv_json_member(const fv_json_value *object, const char *key)
{
    const fv_json_value wanted = { .key = key }, *find = &wanted;

    if (fv_json_type_of(object) != FV_JSON_OBJECT || object->n == 0)
        return NULL;
    const fv_json_value **found = bsearch(&find, object->items + object->n, object->n,
                                          sizeof(const fv_json_value *), value_by_key);
    return found ? *found : NULL;
}

size_t fv_json_count(const fv_json_value *value)
{
    return value && value_is_container(value) ? value->n : 0;
}

const fv_json_value *fv_json_at(const fv_json_value *array, size_t index)
{
    return fv_json_type_of(array) == FV_JSON_ARRAY && index < array->n ? array->items[index] : NULL;
}

bool fv_json_next(const fv_json_value *object, void **iter, const char **key,
                  const fv_json_value **value)
{
    uintptr_t at = (uintptr_t)*iter; /* the number of members that have come */

    if (fv_json_type_of(object) != FV_JSON_OBJECT || at >= object->n)
        return false;
    *value = object->items[at];
    *key = (*value)->key;
    *iter = (void *)(at + 1);
    return true;
}

bool fv_json_as_int(const fv_json_value *value, int64_t *out)
{
    if (fv_json_type_of(value) != FV_JSON_INT || value->big)
        return false;
    *out = value->integer;
    return true;
}

bool fv_json_as_number(const fv_json_value *value, double *out)
{
    if (fv_json_type_of(value) == FV_JSON_REAL)
        *out = value->real;
    else if (fv_json_type_of(value) != FV_JSON_INT)
        return false;
    else
        *out = value->big ? fv_number_read(value->text, NULL) : (double)value->integer;
    return true;
}

bool fv_json_as_bool(const fv_json_value *value, bool *out)
{
    if (fv_json_type_of(value) != FV_JSON_BOOL)
        return false;
    *out = value->flag;
    return true;
}

bool fv_json_as_string(const fv_json_value *value, const char **out)
{
    if (fv_json_type_of(value) != FV_JSON_STRING || value->odd)
        return false;
    *out = value->text;
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
    char expected[80], found[FOUND_BYTES];
    const fv_json_value *v = fv_json_member(object, key);
    int64_t value;

    if (min == max)
        snprintf(expected, sizeof expected, "%" PRId64 " only", min);
    else
        snprintf(expected, sizeof expected, "an integer in [%" PRId64 ", %" PRId64 "]", min, max);
    if (fv_json_type_of(v) != FV_JSON_INT)
        return wrong_type(doc, object, key, expected, err);
    if (!fv_json_as_int(v, &value) || value < min || value > max)
        return member_wrong(doc, object, key, expected, number_text(v, found), err);
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
    char expected[80], found[FOUND_BYTES];
    const fv_json_value *v = fv_json_member(object, key);
    double value;

    if (min == max)
        fv_format(expected, sizeof expected, "%g only", min);
    else
        fv_format(expected, sizeof expected, "a number in [%g, %g]", min, max);
    if (!fv_json_as_number(v, &value))
        return wrong_type(doc, object, key, expected, err);
    if (!isfinite(value) || value < min || value > max)
        return member_wrong(doc, object, key, expected, number_text(v, found), err);
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

    if (fv_json_type_of(value) != FV_JSON_OBJECT)
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

    if (fv_json_type_of(value) != FV_JSON_ARRAY)
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
    char expected[160], found[FOUND_BYTES];
    const fv_json_value *array = fv_json_member(object, key);
    size_t count = fv_json_count(array);

    size_t at = (size_t)(min_n == max_n ? snprintf(expected, sizeof expected, "%zu", min_n)
                         : min_n == 0
                             ? snprintf(expected, sizeof expected, "up to %zu", max_n)
                             : snprintf(expected, sizeof expected, "%zu to %zu", min_n, max_n));
    snprintf(expected + at, sizeof expected - at, " integer%s in [%" PRId64 ", %" PRId64 "]",
             max_n == 1 ? "" : "s", min, max);
    if (fv_json_type_of(array) != FV_JSON_ARRAY)
        return wrong_type(doc, object, key, expected, err);
    snprintf(found, sizeof found, "%zu value%s", count, count == 1 ? "" : "s");
    if (count < min_n || count > max_n)
        return member_wrong(doc, object, key, expected, found, err);
    for (size_t i = 0; i < count; i++) {
        int64_t value;
        const fv_json_value *item = fv_json_at(array, i);
        if (fv_json_type_of(item) != FV_JSON_INT)
            return member_wrong(doc, object, key, expected, fv_json_type_name(item), err);
        if (!fv_json_as_int(item, &value) || value < min || value > max)
            return member_wrong(doc, object, key, expected, number_text(item, found), err);
        out[i] = value;
    }
    *n = count;
    return FV_OK;
}
