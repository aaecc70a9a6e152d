/* GGUF bytes -> metadata and tensors. See gguf.h. */
#include "io/gguf.h"
#include "base/sniff.h"

#include <string.h>

#include "base/utf8_text.h"

enum {
    VERSION = 3,
    HEADER_BYTES = 24,
    MIN_PAIR_BYTES = 8 + 1 + 4 + 1, /* one letter and one byte */
    MIN_INFO_BYTES = 8 + 1 + 4 + 4 + 8,
    MAX_PAIRS = 1 << 16,
    MAX_TENSORS = 1 << 18,
    MAX_KEY = 65535,
    MAX_DEPTH = 4,
    MAX_ALIGNMENT = 1 << 20
};

struct fv_gguf {
    fv_map map;    /* empty when the bytes are borrowed or copied */
    uint8_t *copy; /* NULL: not copied */
    const uint8_t *bytes;
    size_t n_bytes, data_at;
    char *name;
    fv_gguf_value *pairs; /* [n_pairs] */
    size_t n_pairs;
    uint32_t *slots; /* hash table over pairs: index + 1, 0 is empty */
    size_t n_slots;  /* a power of two */
    fv_tensors *tensors;
};

typedef struct cursor {
    const char *name;
    const uint8_t *begin, *at, *end;
    fv_error *err;
} cursor;

static const uint8_t type_bytes[FV_GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

const char *fv_gguf_type_name(fv_gguf_type type)
{
    static const char *const name[FV_GGUF_TYPE_COUNT] = { "u8",  "i8",  "u16",  "i16",    "u32",
                                                          "i32", "f32", "bool", "string", "array",
                                                          "u64", "i64", "f64" };
    return name[type];
}

/* ---- numbers ---- */

static uint64_t get(const uint8_t *p, size_t n) /* little-endian */
{
    uint64_t value = 0;
    for (size_t i = n; i-- > 0;)
        value = value << 8 | p[i];
    return value;
}

static uint64_t left(const cursor *c) { return (uint64_t)(c->end - c->at); }
static uint64_t cursor_offset(const cursor *c) { return (uint64_t)(c->at - c->begin); }

static fv_status ends_early(const cursor *c, const char *what)
{
    return fv_fail(c->err, FV_ERR_FORMAT, cursor_offset(c),
                   "%s: the file ends inside %s at byte %" PRIu64 " (is it truncated?)", c->name,
                   what, cursor_offset(c));
}

static fv_status cursor_take(cursor *c, size_t n, uint64_t *out, const char *what)
{
    if (left(c) < n)
        return ends_early(c, what);
    *out = get(c->at, n);
    c->at += n;
    return FV_OK;
}

/* A length and that many bytes. */
static fv_status take_string(cursor *c, const uint8_t **out, uint64_t *n, const char *what)
{
    FV_TRY(cursor_take(c, 8, n, what));
    if (*n > left(c))
        return fv_fail(c->err, FV_ERR_FORMAT, cursor_offset(c) - 8,
                       "%s: %s at byte %" PRIu64 " claims %" PRIu64 " bytes, the file has %" PRIu64
                       " more",
                       c->name, what, cursor_offset(c) - 8, *n, left(c));
    *out = c->at;
    c->at += *n;
    return FV_OK;
}

static bool is_text(const uint8_t *s, uint64_t n)
{
    return !memchr(s, 0, (size_t)n) && fv_utf8_valid((const char *)s, (size_t)n, NULL);
}

/* ---- metadata ---- */

static fv_status take_type(cursor *c, fv_gguf_type *out, const fv_gguf_value *v)
{
    uint64_t type = 0;
    FV_TRY(cursor_take(c, 4, &type, "the metadata"));
    if (type >= FV_GGUF_TYPE_COUNT)
        return fv_fail(c->err, FV_ERR_FORMAT, cursor_offset(c) - 4,
                       "%s: %.*s has metadata type %" PRIu64 ", expected 0 to %d", c->name,
                       (int)FV_MIN(v->n_key, 80), v->key, type, FV_GGUF_TYPE_COUNT - 1);
    *out = (fv_gguf_type)type;
    return FV_OK;
}

static fv_status bad_bool(const cursor *c, const fv_gguf_value *v)
{
    return fv_fail(c->err, FV_ERR_FORMAT, cursor_offset(c), "%s: %.*s: a bool is not 0 or 1",
                   c->name, (int)FV_MIN(v->n_key, 80), v->key);
}

/* Moves over an array; the outermost one is described in *v. */
static fv_status skip_array(cursor *c, fv_gguf_value *v, bool outer, int depth)
{
    fv_gguf_type of = FV_GGUF_U8;
    const uint8_t *text;
    uint64_t n = 0, length, n_bytes;
    if (depth == MAX_DEPTH)
        return fv_fail(c->err, FV_ERR_UNSUPPORTED, cursor_offset(c),
                       "%s: %.*s: arrays are nested more than %d deep", c->name,
                       (int)FV_MIN(v->n_key, 80), v->key, MAX_DEPTH);
    FV_TRY(take_type(c, &of, v));
    FV_TRY(cursor_take(c, 8, &n, "the metadata"));
    uint64_t least = of == FV_GGUF_STRING ? 8 : of == FV_GGUF_ARRAY ? 12 : type_bytes[of];
    if (__builtin_mul_overflow(n, least, &n_bytes) || n_bytes > left(c))
        return fv_fail(
            c->err, FV_ERR_FORMAT, cursor_offset(c),
            "%s: %.*s claims %" PRIu64 " elements of type %s, the file has %" PRIu64 " more bytes",
            c->name, (int)FV_MIN(v->n_key, 80), v->key, n, fv_gguf_type_name(of), left(c));
    if (outer) {
        v->of = of;
        v->n = n;
        v->data = c->at;
    }
    if (of == FV_GGUF_BOOL)
        for (uint64_t i = 0; i < n; i++)
            if (c->at[i] > 1)
                return bad_bool(c, v);
    for (uint64_t i = 0; i < n && of == FV_GGUF_STRING; i++)
        FV_TRY(take_string(c, &text, &length, "a string of the metadata"));
    for (uint64_t i = 0; i < n && of == FV_GGUF_ARRAY; i++)
        FV_TRY(skip_array(c, v, false, depth + 1));
    if (of != FV_GGUF_STRING && of != FV_GGUF_ARRAY)
        c->at += n_bytes;
    return FV_OK;
}

static fv_status take_pair(cursor *c, fv_gguf_value *v)
{
    const uint8_t *key;
    uint64_t n = 0, at = cursor_offset(c);
    FV_TRY(take_string(c, &key, &n, "a metadata key"));
    if (n == 0 || n > MAX_KEY)
        return fv_fail(c->err, FV_ERR_FORMAT, at,
                       "%s: a metadata key at byte %" PRIu64 " has %" PRIu64
                       " bytes, expected 1 to %d",
                       c->name, at, n, MAX_KEY);
    for (uint64_t i = 0; i < n; i++)
        if (key[i] <= 0x20 || key[i] >= 0x7f)
            return fv_fail(c->err, FV_ERR_FORMAT, at,
                           "%s: the metadata key at byte %" PRIu64
                           " contains byte 0x%02x; keys are printable ASCII",
                           c->name, at, key[i]);
    *v = (fv_gguf_value){ .key = (const char *)key, .n_key = (size_t)n };
    FV_TRY(take_type(c, &v->type, v));
    v->data = c->at;
    if (v->type == FV_GGUF_ARRAY)
        return skip_array(c, v, true, 0);
    if (v->type == FV_GGUF_STRING) {
        FV_TRY(take_string(c, &v->data, &v->n, "a string of the metadata"));
        return is_text(v->data, v->n)
                   ? FV_OK
                   : fv_fail(c->err, FV_ERR_FORMAT, at, "%s: %.*s is not UTF-8, or contains a NUL",
                             c->name, (int)FV_MIN(n, 80), v->key);
    }
    if (left(c) < type_bytes[v->type])
        return ends_early(c, "the metadata");
    if (v->type == FV_GGUF_BOOL && *c->at > 1)
        return bad_bool(c, v);
    c->at += type_bytes[v->type];
    return FV_OK;
}

static uint64_t hash_key(const char *key, size_t n) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)key[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot of a key, or the empty one where it belongs. */
static uint32_t *slot_of(const fv_gguf *g, const char *key, size_t n)
{
    for (size_t at = hash_key(key, n) & (g->n_slots - 1);; at = (at + 1) & (g->n_slots - 1)) {
        uint32_t *slot = &g->slots[at];
        if (!*slot || (g->pairs[*slot - 1].n_key == n && !memcmp(g->pairs[*slot - 1].key, key, n)))
            return slot;
    }
}

static fv_status read_pairs(fv_gguf *g, cursor *c, uint64_t n)
{
    if (n > MAX_PAIRS || n > left(c) / MIN_PAIR_BYTES)
        return fv_fail(c->err, FV_ERR_FORMAT, 16,
                       "%s: claims %" PRIu64 " metadata keys in %zu bytes, up to %d are allowed",
                       c->name, n, g->n_bytes, MAX_PAIRS);
    g->n_slots = 16;
    while (g->n_slots < 2 * n)
        g->n_slots *= 2;
    g->pairs = fv_alloc((size_t)n, sizeof *g->pairs);
    g->slots = fv_alloc_zero(g->n_slots, sizeof *g->slots);
    if (!g->pairs || !g->slots)
        return fv_fail_memory(c->err, (size_t)n * sizeof *g->pairs, "metadata");
    for (; g->n_pairs < n; g->n_pairs++) {
        fv_gguf_value *v = &g->pairs[g->n_pairs];
        FV_TRY(take_pair(c, v));
        uint32_t *slot = slot_of(g, v->key, v->n_key);
        if (*slot)
            return fv_fail(c->err, FV_ERR_FORMAT, cursor_offset(c),
                           "%s: duplicate metadata key %.*s", c->name, (int)FV_MIN(v->n_key, 80),
                           v->key);
        *slot = (uint32_t)g->n_pairs + 1;
    }
    return FV_OK;
}

/* ---- tensors ---- */

/* Numbers of ggml's types. Those without one of ours are named in messages. */
static const struct {
    uint8_t number;
    fv_type type;
} known_types[] = {
    { 0, FV_TYPE_F32 }, { 1, FV_TYPE_F16 },  { 2, FV_TYPE_Q4_0 }, { 8, FV_TYPE_Q8_0 },
    { 24, FV_TYPE_I8 }, { 26, FV_TYPE_I32 }, { 27, FV_TYPE_I64 }, { 30, FV_TYPE_BF16 },
};

int fv_gguf_type_number(fv_type type)
{
    for (size_t i = 0; i < FV_COUNT(known_types); i++)
        if (known_types[i].type == type)
            return known_types[i].number;
    return -1;
}

static bool type_of_number(uint64_t number, fv_type *out)
{
    for (size_t i = 0; i < FV_COUNT(known_types); i++) {
        if (known_types[i].number == number) {
            *out = known_types[i].type;
            return true;
        }
    }
    return false;
}

/* Elements and bytes of a shape; the last dimension is the row. */
static fv_status tensor_measure(const cursor *c, fv_tensor *x)
{
    char shape[FV_SHAPE_TEXT];
    uint64_t row = x->n_dims ? x->shape[x->n_dims - 1] : 1, bits;
    x->n_elems = 1;
    for (int i = 0; i < x->n_dims; i++)
        if (__builtin_mul_overflow(x->n_elems, x->shape[i], &x->n_elems))
            return fv_fail(c->err, FV_ERR_FORMAT, 0,
                           "%s: tensor %s: the product of its shape %s overflows", c->name, x->name,
                           fv_shape_text(shape, x->shape, x->n_dims));
    if (__builtin_mul_overflow(x->n_elems, (uint64_t)64, &bits)) /* so that no size below can */
        return fv_fail(c->err, FV_ERR_FORMAT, 0, "%s: tensor %s: its size overflows", c->name,
                       x->name);
    if (fv_type_is_block(x->type) && row % FV_BLOCK)
        return fv_fail(c->err, FV_ERR_FORMAT, 0,
                       "%s: tensor %s: rows of %" PRIu64 " elements, %s needs a multiple of %d",
                       c->name, x->name, row, fv_type_name(x->type), FV_BLOCK);
    x->n_bytes = fv_row_bytes(x->type, x->n_elems);
    return FV_OK;
}

static fv_status take_info(cursor *c, fv_tensor *x, char name[FV_GGUF_NAME], uint64_t *offset)
{
    const uint8_t *text;
    uint64_t n = 0, n_dims = 0, type = 0, at = cursor_offset(c), ne[FV_TENSOR_MAX_DIMS] = { 0 };
    FV_TRY(take_string(c, &text, &n, "a tensor's name"));
    if (n == 0 || n >= FV_GGUF_NAME)
        return fv_fail(c->err, FV_ERR_FORMAT, at,
                       "%s: a tensor's name at byte %" PRIu64 " has %" PRIu64
                       " bytes, expected 1 to %d",
                       c->name, at, n, FV_GGUF_NAME - 1);
    if (!is_text(text, n))
        return fv_fail(c->err, FV_ERR_FORMAT, at,
                       "%s: a tensor's name at byte %" PRIu64 " is not UTF-8, or contains a NUL",
                       c->name, at);
    memcpy(name, text, (size_t)n);
    name[n] = '\0';
    *x = (fv_tensor){ .name = name };
    FV_TRY(cursor_take(c, 4, &n_dims, "the list of tensors"));
    if (n_dims > FV_TENSOR_MAX_DIMS)
        return fv_fail(c->err, FV_ERR_FORMAT, at,
                       "%s: tensor %s has %" PRIu64 " dimensions, up to %d are allowed", c->name,
                       name, n_dims, FV_TENSOR_MAX_DIMS);
    for (uint64_t i = 0; i < n_dims; i++)
        FV_TRY(cursor_take(c, 8, &ne[i], "the list of tensors"));
    x->n_dims = (int)n_dims;
    for (uint64_t i = 0; i < n_dims; i++)
        x->shape[n_dims - 1 - i] = ne[i];
    FV_TRY(cursor_take(c, 4, &type, "the list of tensors"));
    if (!type_of_number(type, &x->type))
        return fv_fail(c->err, FV_ERR_UNSUPPORTED, at,
                       "%s: tensor %s has type number %" PRIu64
                       "; expected F32 (0), F16 (1), Q4_0 (2), Q8_0 (8), I8 (24), I32 (26), I64 "
                       "(27) or BF16 (30)",
                       c->name, name, type);
    FV_TRY(cursor_take(c, 8, offset, "the list of tensors"));
    return tensor_measure(c, x);
}

static fv_status place(const fv_gguf *g, const cursor *c, fv_tensor *x, uint64_t alignment)
{
    uint64_t offset = (uint64_t)(uintptr_t)x->data, room = g->n_bytes - g->data_at;
    if (offset % alignment)
        return fv_fail(c->err, FV_ERR_FORMAT, 0,
                       "%s: tensor %s has offset %" PRIu64 ", expected a multiple of %" PRIu64,
                       c->name, x->name, offset, alignment);
    if (offset > room || x->n_bytes > room - offset)
        return fv_fail(c->err, FV_ERR_FORMAT, 0,
                       "%s: tensor %s lies at bytes %" PRIu64 " to %" PRIu64
                       " of the data, the file has %" PRIu64 " (is it truncated?)",
                       c->name, x->name, offset, offset + x->n_bytes, room);
    x->data = g->bytes + g->data_at + offset;
    return FV_OK;
}

static fv_status read_tensors(fv_gguf *g, cursor *c, uint64_t n)
{
    int64_t alignment = FV_GGUF_ALIGNMENT;
    fv_status status = FV_OK;
    if (n > MAX_TENSORS || n > left(c) / MIN_INFO_BYTES)
        return fv_fail(c->err, FV_ERR_FORMAT, 8,
                       "%s: claims %" PRIu64 " tensors in %zu bytes, up to %d are allowed", c->name,
                       n, g->n_bytes, MAX_TENSORS);
    FV_TRY(fv_gguf_opt_int(g, "general.alignment", 8, MAX_ALIGNMENT, &alignment, c->err));
    if (alignment % 8)
        return fv_fail(c->err, FV_ERR_FORMAT, 0,
                       "%s: general.alignment is %" PRId64 ", expected a multiple of 8", c->name,
                       alignment);
    fv_tensor *list = fv_alloc((size_t)n, sizeof *list);
    char(*names)[FV_GGUF_NAME] = fv_alloc((size_t)n, sizeof *names);
    if (!list || !names) {
        status = fv_fail_memory(c->err, (size_t)n * (sizeof *list + sizeof *names),
                                "the list of tensors");
        goto fail;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t offset = 0;
        FV_TRY_GOTO(take_info(c, &list[i], names[i], &offset));
        if (offset > UINTPTR_MAX) {
            status = fv_fail(c->err, FV_ERR_FORMAT, 0, "%s: tensor %s has offset %" PRIu64, c->name,
                             names[i], offset);
            goto fail;
        }
        /* until it is known where the data begins */
        list[i].data = (const void *)(uintptr_t)offset;
    }
    uint64_t at = cursor_offset(c),
             data_at = (at + (uint64_t)alignment - 1) / (uint64_t)alignment * (uint64_t)alignment;
    /* a file without tensors may lack the padding */
    g->data_at = (size_t)FV_MIN(data_at, g->n_bytes);
    for (size_t i = 0; i < n; i++)
        FV_TRY_GOTO(place(g, c, &list[i], (uint64_t)alignment));
    FV_TRY_GOTO(fv_tensors_from_list(&g->tensors, list, (size_t)n, g->name, c->err));
fail:
    fv_free(list);
    fv_free(names);
    return status;
}

/* ---- the file ---- */

static fv_status gguf_read_all(fv_gguf *g, fv_error *err)
{
    cursor c = { g->name, g->bytes, g->bytes, g->bytes + g->n_bytes, err };
    uint64_t version = 0, n_tensors = 0, n_pairs = 0;
    FV_TRY(fv_refuse_foreign(g->bytes, g->n_bytes, g->name, FV_FILE_GGUF, "a GGUF file", err));
    if (g->n_bytes < HEADER_BYTES || memcmp(g->bytes, "GGUF", 4))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: not a GGUF file: it does not start with \"GGUF\"", g->name);
    c.at += 4;
    FV_TRY(cursor_take(&c, 4, &version, "the header"));
    if (version != VERSION)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 4,
                       (version & 0xffff) == 0 ? "%s: GGUF in big-endian order (version 0x%08x); "
                                                 "expected version %d, little-endian"
                                               : "%s: GGUF version %u, expected %d",
                       g->name, (unsigned)version, VERSION);
    FV_TRY(cursor_take(&c, 8, &n_tensors, "the header"));
    FV_TRY(cursor_take(&c, 8, &n_pairs, "the header"));
    FV_TRY(read_pairs(g, &c, n_pairs));
    return read_tensors(g, &c, n_tensors);
}

static fv_status new_gguf(fv_gguf **out, const char *name, fv_error *err)
{
    fv_gguf *g = fv_alloc_zero(1, sizeof *g);
    if (!g || !(g->name = fv_strdup(name))) {
        fv_free(g);
        return fv_fail_memory(err, sizeof *g, "a GGUF file");
    }
    *out = g;
    return FV_OK;
}

/* Tensors are read where they lie when they can be; the tables of a tokenizer and f32 weights need
 * a multiple of 4. */
static fv_status gguf_take_bytes(fv_gguf *g, const void *data, size_t n_bytes, fv_error *err)
{
    g->bytes = data;
    g->n_bytes = n_bytes;
    if ((uintptr_t)data % FV_GGUF_MIN_ALIGNMENT == 0)
        return FV_OK;
    if (!(g->copy = fv_pages_alloc(n_bytes)))
        return fv_fail_memory(err, n_bytes, "a copy of a model that is not aligned");
    memcpy(g->copy, data, n_bytes);
    g->bytes = g->copy;
    return FV_OK;
}

fv_status fv_gguf_read(fv_gguf **out, const void *data, size_t n_bytes, const char *name,
                       fv_error *err)
{
    fv_gguf *g = NULL;
    *out = NULL;
    FV_TRY(new_gguf(&g, name, err));
    fv_status status = gguf_take_bytes(g, data, n_bytes, err);
    if (status == FV_OK)
        status = gguf_read_all(g, err);
    if (status != FV_OK) {
        fv_gguf_free(g);
        return status;
    }
    *out = g;
    return FV_OK;
}

/* Takes the map. */
static fv_status read_map(fv_gguf **out, fv_map map, const char *name, fv_error *err)
{
    fv_status status = fv_gguf_read(out, map.data, map.size, name, err);
    if (status != FV_OK || (*out)->copy)
        fv_map_close(&map);
    else
        (*out)->map = map;
    return status;
}

fv_status fv_gguf_open(fv_gguf **out, const char *path, fv_error *err)
{
    fv_map map;
    *out = NULL;
    FV_TRY(fv_map_open(&map, path, err));
    return read_map(out, map, path, err);
}

fv_status fv_gguf_open_fd(fv_gguf **out, int fd, uint64_t offset, uint64_t n_bytes,
                          const char *name, fv_error *err)
{
    fv_map map;
    *out = NULL;
    FV_TRY(fv_map_open_fd(&map, fd, offset, n_bytes, name, err));
    return read_map(out, map, name, err);
}

void fv_gguf_free(fv_gguf *g)
{
    if (!g)
        return;
    fv_tensors_free(g->tensors);
    fv_map_close(&g->map);
    fv_pages_free(g->copy, g->n_bytes);
    fv_free(g->pairs);
    fv_free(g->slots);
    fv_free(g->name);
    fv_free(g);
}

const char *fv_gguf_name(const fv_gguf *g) { return g->name; }
const fv_tensors *fv_gguf_tensors(const fv_gguf *g) { return g->tensors; }
bool fv_gguf_is_borrowed(const fv_gguf *g) { return !g->copy && !g->map.data; }
size_t fv_gguf_copied_bytes(const fv_gguf *g) { return g->copy ? g->n_bytes : 0; }

const uint8_t *fv_gguf_bytes(const fv_gguf *g, size_t *n_bytes, size_t *data_at)
{
    *n_bytes = g->n_bytes;
    *data_at = g->data_at;
    return g->bytes;
}

/* ---- looking up ---- */

size_t fv_gguf_count(const fv_gguf *g) { return g->n_pairs; }
const fv_gguf_value *fv_gguf_at(const fv_gguf *g, size_t index) { return &g->pairs[index]; }

const fv_gguf_value *fv_gguf_find(const fv_gguf *g, const char *key)
{
    uint32_t slot = *slot_of(g, key, strlen(key));
    return slot ? &g->pairs[slot - 1] : NULL;
}

static fv_status gguf_need(const fv_gguf *g, const char *key, const char *expected,
                           const fv_gguf_value **out, fv_error *err)
{
    *out = fv_gguf_find(g, key);
    return *out ? FV_OK
                : fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s is missing, expected %s", g->name, key,
                          expected);
}

static fv_status gguf_wrong(const fv_gguf *g, const char *key, const char *expected,
                            const fv_gguf_value *v, fv_error *err)
{
    return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(v->data - g->bytes),
                   "%s: %s: expected %s, found %s %s", g->name, key, expected,
                   v->type == FV_GGUF_ARRAY ? "an array of" : "type",
                   fv_gguf_type_name(v->type == FV_GGUF_ARRAY ? v->of : v->type));
}

/* False when the type is not an integer, or the value does not fit. */
static bool int_at(fv_gguf_type type, const uint8_t *p, int64_t *out)
{
    uint64_t u = type_bytes[type] ? get(p, type_bytes[type]) : 0;
    switch (type) {
    case FV_GGUF_I8: *out = (int8_t)u; return true;
    case FV_GGUF_I16: *out = (int16_t)u; return true;
    case FV_GGUF_I32: *out = (int32_t)u; return true;
    case FV_GGUF_I64: *out = (int64_t)u; return true;
    case FV_GGUF_U8:
    case FV_GGUF_U16:
    case FV_GGUF_U32: *out = (int64_t)u; return true;
    case FV_GGUF_U64: *out = (int64_t)u; return u <= INT64_MAX;
    default: return false;
    }
}

fv_status fv_gguf_int(const fv_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                      fv_error *err)
{
    const fv_gguf_value *v;
    int64_t value;
    FV_TRY(gguf_need(g, key, "an integer", &v, err));
    if (!int_at(v->type, v->data, &value))
        return gguf_wrong(g, key, "an integer", v, err);
    if (value < min || value > max)
        return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(v->data - g->bytes),
                       "%s: %s is %" PRId64 ", expected an integer in [%" PRId64 ", %" PRId64 "]",
                       g->name, key, value, min, max);
    *out = value;
    return FV_OK;
}

fv_status fv_gguf_opt_int(const fv_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                          fv_error *err)
{
    return fv_gguf_find(g, key) ? fv_gguf_int(g, key, min, max, out, err) : FV_OK;
}

fv_status fv_gguf_number(const fv_gguf *g, const char *key, double min, double max, double *out,
                         fv_error *err)
{
    const fv_gguf_value *v;
    int64_t whole;
    double value;
    FV_TRY(gguf_need(g, key, "a number", &v, err));
    if (v->type == FV_GGUF_F32) {
        uint32_t bits = (uint32_t)get(v->data, 4);
        float f;
        memcpy(&f, &bits, sizeof f);
        value = f;
    } else if (v->type == FV_GGUF_F64) {
        uint64_t bits = get(v->data, 8);
        memcpy(&value, &bits, sizeof value);
    } else if (int_at(v->type, v->data, &whole)) {
        value = (double)whole;
    } else {
        return gguf_wrong(g, key, "a number", v, err);
    }
    if (!(value >= min && value <= max))
        return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(v->data - g->bytes),
                       "%s: %s is %g, expected a number in [%g, %g]", g->name, key, value, min,
                       max);
    *out = value;
    return FV_OK;
}

fv_status fv_gguf_opt_bool(const fv_gguf *g, const char *key, bool *out, fv_error *err)
{
    const fv_gguf_value *v = fv_gguf_find(g, key);
    if (!v)
        return FV_OK;
    if (v->type != FV_GGUF_BOOL)
        return gguf_wrong(g, key, "a bool", v, err);
    *out = *v->data != 0;
    return FV_OK;
}

fv_status fv_gguf_string(const fv_gguf *g, const char *key, const char **out, size_t *n,
                         fv_error *err)
{
    const fv_gguf_value *v;
    FV_TRY(gguf_need(g, key, "a string", &v, err));
    if (v->type != FV_GGUF_STRING)
        return gguf_wrong(g, key, "a string", v, err);
    *out = (const char *)v->data;
    *n = (size_t)v->n;
    return FV_OK;
}

fv_status fv_gguf_opt_string(const fv_gguf *g, const char *key, const char **out, size_t *n,
                             fv_error *err)
{
    return fv_gguf_find(g, key) ? fv_gguf_string(g, key, out, n, err) : FV_OK;
}

bool fv_gguf_string_is(const fv_gguf *g, const char *key, const char *text)
{
    const fv_gguf_value *v = fv_gguf_find(g, key);
    return v && v->type == FV_GGUF_STRING && v->n == strlen(text) &&
           !memcmp(v->data, text, (size_t)v->n);
}

fv_status fv_gguf_ints(const fv_gguf *g, const char *key, int64_t min, int64_t max, size_t min_n,
                       size_t max_n, int64_t *out, size_t *n, fv_error *err)
{
    const fv_gguf_value *v;
    FV_TRY(gguf_need(g, key, "an array of integers", &v, err));
    if (v->type != FV_GGUF_ARRAY || (v->n && v->of == FV_GGUF_BOOL))
        return gguf_wrong(g, key, "an array of integers", v, err);
    if (v->n < min_n || v->n > max_n)
        return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(v->data - g->bytes),
                       "%s: %s has %" PRIu64 " elements, expected %zu to %zu", g->name, key, v->n,
                       min_n, max_n);
    for (size_t i = 0; i < v->n; i++) {
        if (!int_at(v->of, v->data + i * type_bytes[v->of], &out[i]))
            return gguf_wrong(g, key, "an array of integers", v, err);
        if (out[i] < min || out[i] > max)
            return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(v->data - g->bytes),
                           "%s: %s[%zu] is %" PRId64 ", expected an integer in [%" PRId64
                           ", %" PRId64 "]",
                           g->name, key, i, out[i], min, max);
    }
    *n = (size_t)v->n;
    return FV_OK;
}

fv_status fv_gguf_array(const fv_gguf *g, const char *key, fv_gguf_type of,
                        const fv_gguf_value **out, fv_error *err)
{
    char expected[48] = "an array of type ";
    const fv_gguf_value *v;
    strcat(expected, fv_gguf_type_name(of));
    FV_TRY(gguf_need(g, key, expected, &v, err));
    if (v->type != FV_GGUF_ARRAY || v->of != of)
        return gguf_wrong(g, key, expected, v, err);
    *out = v;
    return FV_OK;
}

const char *fv_gguf_next(const uint8_t **at, size_t *n_bytes)
{
    const char *text = (const char *)*at + 8;
    *n_bytes = (size_t)get(*at, 8);
    *at += 8 + *n_bytes;
    return text;
}
