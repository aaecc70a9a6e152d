/* safetensors files -> a list of named tensors. See tensors.h. */
#include "io/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/sniff.h"
#include "io/json.h"

enum { MAX_HEADER_BYTES = 100 << 20, MAX_INDEX_BYTES = 64 << 20, MAX_FILES = 1024 };

typedef struct tensor_file {
    fv_map map;
    char *name;
} tensor_file;

struct fv_tensors {
    tensor_file *files;
    size_t n_files, file_capacity;
    fv_tensor *list;
    size_t n, capacity, name_capacity;
    uint32_t *slots; /* hash table over list: index + 1, 0 is empty; size a power of two */
    size_t n_slots;
    char **names; /* the blocks behind list[i].name */
};

static uint64_t hash_text(const char *s) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return h;
}

static fv_status rehash(fv_tensors *t, fv_error *err)
{
    size_t n = 64;
    while (n < t->n * 2)
        n *= 2;
    uint32_t *slots = fv_alloc_zero(n, sizeof *slots);
    if (!slots)
        return fv_fail_memory(err, n * sizeof *slots, "tensor names");
    for (size_t i = 0; i < t->n; i++) {
        size_t at = hash_text(t->list[i].name) & (n - 1);
        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = (uint32_t)(i + 1);
    }
    fv_free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    return FV_OK;
}

const fv_tensor *fv_tensors_find(const fv_tensors *t, const char *name)
{
    for (size_t at = hash_text(name) & (t->n_slots - 1); t->slots[at];
         at = (at + 1) & (t->n_slots - 1))
        if (!strcmp(t->list[t->slots[at] - 1].name, name))
            return &t->list[t->slots[at] - 1];
    return NULL;
}

size_t fv_tensors_count(const fv_tensors *t) { return t->n; }
const fv_tensor *fv_tensors_at(const fv_tensors *t, size_t index) { return &t->list[index]; }
const char *fv_tensors_file(const fv_tensors *t, uint32_t file) { return t->files[file].name; }

const char *fv_shape_text(char text[FV_SHAPE_TEXT], const uint64_t *shape, int n_dims)
{
    int at = snprintf(text, FV_SHAPE_TEXT, "[");
    for (int i = 0; i < n_dims; i++)
        at += snprintf(text + at, (size_t)(FV_SHAPE_TEXT - at), "%s%" PRIu64, i ? ", " : "",
                       shape[i]);
    snprintf(text + at, (size_t)(FV_SHAPE_TEXT - at), "]");
    return text;
}

/* The types of the format. [safetensors, Dtype] */
static const struct dtype {
    const char *name;
    uint8_t bits;
    fv_type type;
} dtypes[] = {
    { "BF16", 16, FV_TYPE_BF16 },    { "F16", 16, FV_TYPE_F16 },
    { "F32", 32, FV_TYPE_F32 },      { "F64", 64, FV_TYPE_OTHER },
    { "I64", 64, FV_TYPE_I64 },      { "I32", 32, FV_TYPE_I32 },
    { "I16", 16, FV_TYPE_OTHER },    { "I8", 8, FV_TYPE_I8 },
    { "U64", 64, FV_TYPE_OTHER },    { "U32", 32, FV_TYPE_OTHER },
    { "U16", 16, FV_TYPE_OTHER },    { "U8", 8, FV_TYPE_U8 },
    { "BOOL", 8, FV_TYPE_OTHER },    { "C64", 64, FV_TYPE_OTHER },
    { "F8_E4M3", 8, FV_TYPE_OTHER }, { "F8_E4M3FNUZ", 8, FV_TYPE_OTHER },
    { "F8_E5M2", 8, FV_TYPE_OTHER }, { "F8_E5M2FNUZ", 8, FV_TYPE_OTHER },
    { "F8_E8M0", 8, FV_TYPE_OTHER }, { "F6_E2M3", 6, FV_TYPE_OTHER },
    { "F6_E3M2", 6, FV_TYPE_OTHER }, { "F4", 4, FV_TYPE_OTHER },
};

/* NULL: a type that is newer than this table. */
static const struct dtype *dtype_find(const char *name)
{
    for (size_t i = 0; i < FV_COUNT(dtypes); i++)
        if (!strcmp(name, dtypes[i].name))
            return &dtypes[i];
    return NULL;
}

static fv_status entry_shape(fv_tensor *x, const fv_json *doc, const fv_json_value *entry,
                             fv_error *err)
{
    const fv_json_value *shape;
    FV_TRY(fv_json_array(doc, entry, "shape", &shape, err));
    x->rank = (int)FV_MIN(fv_json_count(shape), (size_t)INT32_MAX);
    x->n_dims = FV_MIN(x->rank, (int)FV_TENSOR_MAX_DIMS);
    x->n_elems = 1;
    for (int i = 0; i < x->rank; i++) {
        const fv_json_value *item = fv_json_at(shape, (size_t)i);
        int64_t n = -1;
        char found[FV_JSON_SHOWN];
        if (!fv_json_as_int(item, &n) || n < 0) {
            fv_json_show(item, found);
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: shape[%d]: expected an integer of at least 0, found %s",
                           fv_json_name(doc), i, found);
        }
        if (__builtin_mul_overflow(x->n_elems, (uint64_t)n, &x->n_elems))
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the product of the shape overflows",
                           fv_json_name(doc));
        if (i < x->n_dims)
            x->shape[i] = (uint64_t)n;
        else /* no more than n_elems, unless that is 0 */
            x->shape[x->n_dims - 1] = x->n_elems ? x->shape[x->n_dims - 1] * (uint64_t)n : 0;
    }
    return FV_OK;
}

/* One entry of the header: {"dtype": "BF16", "shape": [..], "data_offsets": [begin, end]}. */
static fv_status read_entry(fv_tensor *x, const fv_json *doc, const fv_json_value *entry,
                            const char *name, const uint8_t *data, uint64_t data_bytes,
                            uint64_t data_at, fv_error *err)
{
    const char *file = fv_json_name(doc), *dtype;
    int64_t offsets[2];
    size_t n_offsets;
    fv_error inner = { 0 };
    fv_status status = FV_OK;
    if (fv_json_type_of(entry) != FV_JSON_OBJECT)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %s: expected an object, found %s", file, name,
                       fv_json_type_name(entry));
    if ((status = fv_json_string(doc, entry, "dtype", &dtype, &inner)) != FV_OK ||
        (status = entry_shape(x, doc, entry, &inner)) != FV_OK ||
        (status = fv_json_ints(doc, entry, "data_offsets", 0, INT64_MAX, 2, 2, offsets, &n_offsets,
                               &inner)) != FV_OK)
        return fv_fail(err, status, 0, "%s (tensor %s)", inner.message, name);
    uint64_t begin = (uint64_t)offsets[0], end = (uint64_t)offsets[1], n_bits;
    if (begin > end)
        return fv_fail(err, FV_ERR_FORMAT, data_at + begin,
                       "%s: tensor %s begins at byte %" PRIu64 " of the data and ends at %" PRIu64,
                       file, name, begin, end);
    if (end > data_bytes)
        return fv_fail(err, FV_ERR_FORMAT, data_at + begin,
                       "%s: tensor %s lies at bytes %" PRIu64 " to %" PRIu64
                       " of the data, the file has %" PRIu64 " (is it truncated?)",
                       file, name, begin, end, data_bytes);
    const struct dtype *known = dtype_find(dtype);
    x->type = known ? known->type : FV_TYPE_OTHER;
    snprintf(x->dtype, sizeof x->dtype, "%s", dtype);
    x->n_bytes = end - begin;
    x->data = data ? data + begin : NULL;
    if (!known)
        return FV_OK;
    if (__builtin_mul_overflow(x->n_elems, (uint64_t)known->bits, &n_bits))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s: its size overflows", file, name);
    if (n_bits % 8 || n_bits / 8 != x->n_bytes)
        return fv_fail(
            err, FV_ERR_FORMAT, data_at + begin,
            "%s: tensor %s: %s elements of %s need %" PRIu64 "%s bytes, its range has %" PRIu64,
            file, name, dtype, fv_shape_text((char[FV_SHAPE_TEXT]){ 0 }, x->shape, x->n_dims),
            n_bits / 8, n_bits % 8 ? " and a part of" : "", x->n_bytes);
    return FV_OK;
}

static fv_status push(fv_tensors *t, const fv_tensor *x, const char *name, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(t->list, t->n, t->capacity, 1, err));
    FV_TRY(FV_LIST_ROOM(t->names, t->n, t->name_capacity, 1, err));
    char *copy = fv_strdup(name);
    if (!copy)
        return fv_fail_memory(err, strlen(name) + 1, "a tensor name");
    t->names[t->n] = copy;
    t->list[t->n] = *x;
    t->list[t->n++].name = copy;
    return FV_OK;
}

static int by_data(const void *a, const void *b)
{
    const fv_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

/* No two tensors may share bytes: the list is sorted by address, which is also file order. */
static fv_status check_overlap(fv_tensors *t, size_t first, const char *file, fv_error *err)
{
    if (t->n == first)
        return FV_OK;
    qsort(t->list + first, t->n - first, sizeof *t->list, by_data);
    for (size_t i = first; i < t->n; i++)
        t->names[i] = (char *)t->list[i].name;
    const fv_tensor *before = NULL; /* an empty one between two others hides nothing */
    for (size_t i = first; i < t->n; i++) {
        const fv_tensor *x = &t->list[i];
        if (!x->n_bytes)
            continue;
        if (before && (const uint8_t *)before->data + before->n_bytes > (const uint8_t *)x->data)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensors %s and %s overlap", file,
                           before->name, x->name);
        before = x;
    }
    return FV_OK;
}

static fv_status tensors_read_header(fv_tensors *t, uint32_t file_index, const uint8_t *bytes,
                                     size_t n_bytes, const char *file, fv_error *err)
{
    FV_TRY(fv_refuse_foreign(bytes, n_bytes, file, FV_FILE_SAFETENSORS, "a safetensors file", err));
    if (n_bytes < 8)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %zu bytes are too few for a safetensors file",
                       file, n_bytes);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    if (header < 2) /* "{}" */
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the header claims %" PRIu64 " bytes; expected at least 2", file,
                       header);
    if (header > MAX_HEADER_BYTES || header > n_bytes - 8)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the header claims %" PRIu64
                       " bytes; the file has %zu and %d are the limit (not a "
                       "safetensors file, or truncated)",
                       file, header, n_bytes, MAX_HEADER_BYTES);
    fv_json *doc = NULL;
    FV_TRY(fv_json_parse(&doc, bytes + 8, (size_t)header, file, err));
    fv_status status = FV_OK;
    size_t first = t->n;
    const fv_json_value *entry;
    const char *name;
    void *iter = NULL;
    if (fv_json_type_of(fv_json_root(doc)) != FV_JSON_OBJECT) {
        status = fv_fail(err, FV_ERR_FORMAT, 8, "%s: the header is not a JSON object", file);
        goto fail;
    }
    while (fv_json_next(fv_json_root(doc), &iter, &name, &entry)) {
        fv_tensor x = { .file = file_index };
        if (!strcmp(name, "__metadata__"))
            continue;
        FV_TRY_GOTO(read_entry(&x, doc, entry, name, bytes + 8 + header, n_bytes - 8 - header,
                               8 + header, err));
        FV_TRY_GOTO(push(t, &x, name, err));
    }
    FV_TRY_GOTO(check_overlap(t, first, file, err));
fail:
    fv_json_free(doc);
    return status;
}

static fv_status add_file(fv_tensors *t, const char *dir, const char *name, fv_error *err)
{
    fv_status status = FV_OK;
    if (t->n_files == MAX_FILES)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: more than %d shards", dir, MAX_FILES);
    FV_TRY(FV_LIST_ROOM(t->files, t->n_files, t->file_capacity, 1, err));
    t->files[t->n_files] = (tensor_file){ 0 };
    char *path = fv_path_join(dir, name), *copy = fv_strdup(name);
    if (!path || !copy) {
        fv_free(copy);
        status = fv_fail_memory(err, strlen(dir) + strlen(name), "a path");
        goto fail;
    }
    t->files[t->n_files++].name = copy;
    tensor_file *f = &t->files[t->n_files - 1];
    FV_TRY_GOTO(fv_map_open(&f->map, path, err));
    FV_TRY_GOTO(
        tensors_read_header(t, (uint32_t)(t->n_files - 1), f->map.data, f->map.size, path, err));
fail:
    fv_free(path);
    return status;
}

/* The shards in the order in which the index first names them. */
static fv_status add_shards(fv_tensors *t, const char *dir, const char *index_path, fv_error *err)
{
    fv_json *doc = NULL;
    const fv_json_value *weights, *value;
    const char *name, *file;
    void *iter = NULL;
    fv_status status = FV_OK;
    FV_TRY(fv_json_open(&doc, index_path, MAX_INDEX_BYTES, err));
    FV_TRY_GOTO(fv_json_object(doc, fv_json_root(doc), "weight_map", &weights, err));
    while (fv_json_next(weights, &iter, &name, &value)) {
        size_t i = 0;
        if (!fv_json_as_string(value, &file) || strchr(file, '/') || !*file || *file == '.') {
            status = fv_fail(err, FV_ERR_FORMAT, 0,
                             "%s: %s: expected the name of a file in the same directory",
                             index_path, name);
            goto fail;
        }
        while (i < t->n_files && strcmp(t->files[i].name, file))
            i++;
        if (i == t->n_files)
            FV_TRY_GOTO(add_file(t, dir, file, err));
    }
    FV_TRY_GOTO(rehash(t, err));
    iter = NULL;
    while (fv_json_next(weights, &iter, &name, &value)) {
        const fv_tensor *x = fv_tensors_find(t, name);
        if (!x || !fv_json_as_string(value, &file) || strcmp(t->files[x->file].name, file)) {
            status = fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s is not in %s", index_path, name,
                             file);
            goto fail;
        }
    }
fail:
    fv_json_free(doc);
    return status;
}

/* Two shards may not hold the same name. */
static fv_status check_unique(const fv_tensors *t, const char *dir, fv_error *err)
{
    for (size_t i = 0; i < t->n; i++) {
        const fv_tensor *x = fv_tensors_find(t, t->list[i].name);
        if (x != &t->list[i])
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s is in %s and in %s", dir, x->name,
                           t->files[x->file].name, t->files[t->list[i].file].name);
    }
    return FV_OK;
}

static fv_status fail_no_weights(const char *dir, fv_error *err)
{
    static const char *const torch[] = { "pytorch_model.bin", "pytorch_model.bin.index.json",
                                         "consolidated.00.pth" };
    for (size_t i = 0; i < FV_COUNT(torch); i++) {
        char *path = fv_path_join(dir, torch[i]);
        bool there = path && fv_is_there(path);
        fv_free(path);
        if (there)
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                           "%s: the weights are a PyTorch checkpoint (%s), expected "
                           "model.safetensors; convert them to safetensors",
                           dir, torch[i]);
    }
    return fv_fail(err, FV_ERR_IO, 0,
                   "%s: no weights: expected model.safetensors, or model.safetensors.index.json "
                   "and its shards",
                   dir);
}

fv_status fv_tensors_open(fv_tensors **out, const char *dir, fv_error *err)
{
    *out = NULL;
    fv_tensors *t = fv_alloc_zero(1, sizeof *t);
    char *single = fv_path_join(dir, "model.safetensors"),
         *index = fv_path_join(dir, "model.safetensors.index.json");
    fv_status status = FV_OK;
    if (!t || !single || !index) {
        status = fv_fail_memory(err, sizeof *t, "the list of tensors");
        goto fail;
    }
    if (fv_is_there(single))
        FV_TRY_GOTO(add_file(t, dir, "model.safetensors", err));
    else if (fv_is_there(index))
        FV_TRY_GOTO(add_shards(t, dir, index, err));
    else {
        status = fail_no_weights(dir, err);
        goto fail;
    }
    FV_TRY_GOTO(rehash(t, err));
    FV_TRY_GOTO(check_unique(t, dir, err));
fail:
    fv_free(single);
    fv_free(index);
    if (status != FV_OK) {
        fv_tensors_free(t);
        return status;
    }
    *out = t;
    return FV_OK;
}

/* An empty list that belongs to one file called name. */
static fv_status new_list(fv_tensors **out, const char *name, fv_error *err)
{
    fv_tensors *t = fv_alloc_zero(1, sizeof *t);
    tensor_file *file = fv_alloc_zero(1, sizeof *file);
    char *copy = fv_strdup(name);
    if (!t || !file || !copy) {
        fv_free(file);
        fv_free(copy);
        fv_free(t);
        return fv_fail_memory(err, sizeof *t, "the list of tensors");
    }
    file->name = copy;
    t->files = file;
    t->n_files = t->file_capacity = 1;
    *out = t;
    return FV_OK;
}

fv_status fv_tensors_read(fv_tensors **out, const void *data, size_t n_bytes, const char *name,
                          fv_error *err)
{
    fv_status status = FV_OK;
    fv_tensors *t = NULL;
    *out = NULL;
    FV_TRY(new_list(&t, name, err));
    FV_TRY_GOTO(tensors_read_header(t, 0, data, n_bytes, name, err));
    FV_TRY_GOTO(rehash(t, err));
    FV_TRY_GOTO(check_unique(t, name, err));
fail:
    if (status != FV_OK) {
        fv_tensors_free(t);
        return status;
    }
    *out = t;
    return FV_OK;
}

fv_status fv_tensors_from_list(fv_tensors **out, const fv_tensor *list, size_t n, const char *file,
                               fv_error *err)
{
    fv_status status = FV_OK;
    fv_tensors *t = NULL;
    *out = NULL;
    FV_TRY(new_list(&t, file, err));
    for (size_t i = 0; i < n; i++)
        FV_TRY_GOTO(push(t, &list[i], list[i].name, err));
    FV_TRY_GOTO(check_overlap(t, 0, file, err));
    FV_TRY_GOTO(rehash(t, err));
    for (size_t i = 0; i < n; i++) {
        if (fv_tensors_find(t, t->list[i].name) != &t->list[i]) {
            status = fv_fail(err, FV_ERR_FORMAT, 0, "%s: tensor %s is listed twice", file,
                             t->list[i].name);
            goto fail;
        }
    }
fail:
    if (status != FV_OK) {
        fv_tensors_free(t);
        return status;
    }
    *out = t;
    return FV_OK;
}

void fv_tensors_free(fv_tensors *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        fv_free(t->names[i]);
    for (size_t i = 0; i < t->n_files; i++) {
        fv_map_close(&t->files[i].map);
        fv_free(t->files[i].name);
    }
    fv_free(t->names);
    fv_free(t->list);
    fv_free(t->slots);
    fv_free(t->files);
    fv_free(t);
}

void fv_tensors_drop(const fv_tensors *t, const fv_tensor *x)
{
    const fv_map *map = &t->files[x->file].map;
    if (map->data && x->data)
        fv_map_advise(map, (size_t)((const uint8_t *)x->data - map->data), (size_t)x->n_bytes,
                      false);
}

uint64_t fv_tensors_mapped_bytes(const fv_tensors *t)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->n_files; i++)
        sum += t->files[i].map.size;
    return sum;
}
