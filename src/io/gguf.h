/* gguf: one file that holds a model: metadata and tensors. [ggml docs/gguf.md, version 3]
 *
 *     "GGUF" | u32 version | u64 n_tensors | u64 n_metadata
 *     metadata  n x { string key | u32 type | value }
 *     tensors   n x { string name | u32 n_dims | u64 ne[n_dims] | u32 type | u64 offset }
 *     padding to general.alignment (32)
 *     data      offsets count from here; each is a multiple of the alignment
 *
 * Little-endian throughout. A string is a u64 length and its bytes; an array a u32 element type, a
 * u64 count and its elements. ne[0] is the fastest dimension: an fv_tensor's shape is ne reversed.
 *
 * Reading checks every count, length and offset against the bytes that are there before it is used;
 * no value of the file is trusted with memory beyond a small multiple of the file's size. */
#ifndef FV_GGUF_H
#define FV_GGUF_H

#include "base/base.h"
#include "io/tensors.h"

typedef enum fv_gguf_type {
    FV_GGUF_U8,
    FV_GGUF_I8,
    FV_GGUF_U16,
    FV_GGUF_I16,
    FV_GGUF_U32,
    FV_GGUF_I32,
    FV_GGUF_F32,
    FV_GGUF_BOOL,
    FV_GGUF_STRING,
    FV_GGUF_ARRAY,
    FV_GGUF_U64,
    FV_GGUF_I64,
    FV_GGUF_F64,
    FV_GGUF_TYPE_COUNT
} fv_gguf_type;

enum { FV_GGUF_ALIGNMENT = 32, FV_GGUF_NAME = 64 /* a tensor's name has fewer bytes than this */ };

typedef struct fv_gguf fv_gguf;

/* What a file must begin at a multiple of, in bytes, to be read where it lies. */
enum { FV_GGUF_MIN_ALIGNMENT = 4 };

/* Maps a file, or a part of one (fv_map_open_fd), or reads n_bytes of memory that outlive *out. A
 * file that does not begin at a multiple of FV_GGUF_MIN_ALIGNMENT is copied; the original bytes are
 * not needed then. name is what messages call it. */
fv_status fv_gguf_open(fv_gguf **out, const char *path, fv_error *err);
fv_status fv_gguf_open_fd(fv_gguf **out, int fd, uint64_t offset, uint64_t n_bytes,
                          const char *name, fv_error *err);
fv_status fv_gguf_read(fv_gguf **out, const void *data, size_t n_bytes, const char *name,
                       fv_error *err);
void fv_gguf_free(fv_gguf *g);

const char *fv_gguf_name(const fv_gguf *g);
const fv_tensors *fv_gguf_tensors(const fv_gguf *g);
/* Are its bytes the caller's? Otherwise they are mapped or copied. */
bool fv_gguf_is_borrowed(const fv_gguf *g);
size_t fv_gguf_copied_bytes(const fv_gguf *g); /* 0: not copied */
/* The whole file, and where its tensor data begins. */
const uint8_t *fv_gguf_bytes(const fv_gguf *g, size_t *n_bytes, size_t *data_at);

/* ---- metadata ----
 *
 * The plain functions need the key: absent, of another type or out of range is FV_ERR_FORMAT by
 * name. fv_gguf_opt_* leave *out as it is when the key is absent. Integers may have any integer
 * type, numbers F32, F64 or an integer type. */

typedef struct fv_gguf_value {
    const char *key; /* n_key bytes, no NUL at the end */
    size_t n_key;
    fv_gguf_type type, of; /* of: the elements of an array */
    uint64_t n;            /* elements of an array; bytes of a string */
    const uint8_t *data;   /* the value, the string's bytes, or the first element */
} fv_gguf_value;

size_t fv_gguf_count(const fv_gguf *g);
const fv_gguf_value *fv_gguf_at(const fv_gguf *g, size_t index);      /* in file order */
const fv_gguf_value *fv_gguf_find(const fv_gguf *g, const char *key); /* NULL: none */
const char *fv_gguf_type_name(fv_gguf_type type);                     /* "u32", for messages */

fv_status fv_gguf_int(const fv_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                      fv_error *err);
fv_status fv_gguf_opt_int(const fv_gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                          fv_error *err);
fv_status fv_gguf_number(const fv_gguf *g, const char *key, double min, double max, double *out,
                         fv_error *err);
fv_status fv_gguf_opt_bool(const fv_gguf *g, const char *key, bool *out, fv_error *err);
/* Borrowed, *n bytes of UTF-8 without a NUL in or behind them. */
fv_status fv_gguf_string(const fv_gguf *g, const char *key, const char **out, size_t *n,
                         fv_error *err);
fv_status fv_gguf_opt_string(const fv_gguf *g, const char *key, const char **out, size_t *n,
                             fv_error *err);
bool fv_gguf_string_is(const fv_gguf *g, const char *key, const char *text);
/* min_n to max_n integers, each in [min, max]; *n is their number. */
fv_status fv_gguf_ints(const fv_gguf *g, const char *key, int64_t min, int64_t max, size_t min_n,
                       size_t max_n, int64_t *out, size_t *n, fv_error *err);
/* An array with elements of this type. */
fv_status fv_gguf_array(const fv_gguf *g, const char *key, fv_gguf_type of,
                        const fv_gguf_value **out, fv_error *err);
/* The next string of an array: *at starts as array->data, and is moved. Call it array->n times. The
 * bytes are as the file has them: any, UTF-8 or not. */
const char *fv_gguf_next(const uint8_t **at, size_t *n_bytes);

/* ---- the types of tensors ---- */

/* Number of a type in a file; -1: it has none. */
int fv_gguf_type_number(fv_type type);

/* ---- writing: metadata, then the list of tensors, then their data in that order ----
 *
 * The file grows beside its place and takes it in fv_gguf_finish, when all of it is on the disk;
 * until then, and after any failure, nothing is there. The first failure of a put or add sticks and
 * is returned by fv_gguf_begin_data. */

typedef struct fv_gguf_writer fv_gguf_writer;

/* path must not exist or be a regular file. */
fv_status fv_gguf_writer_new(fv_gguf_writer **out, const char *path, fv_error *err);
void fv_gguf_writer_free(fv_gguf_writer *w); /* before finish: removes what was written */

void fv_gguf_put_u32(fv_gguf_writer *w, const char *key, uint32_t value);
void fv_gguf_put_i32(fv_gguf_writer *w, const char *key, int32_t value);
void fv_gguf_put_u64(fv_gguf_writer *w, const char *key, uint64_t value);
void fv_gguf_put_f32(fv_gguf_writer *w, const char *key, float value);
void fv_gguf_put_f64(fv_gguf_writer *w, const char *key, double value);
void fv_gguf_put_bool(fv_gguf_writer *w, const char *key, bool value);
void fv_gguf_put_string(fv_gguf_writer *w, const char *key, const char *text, size_t n_bytes);
/* An array of n fixed-size values, or its head, for n calls of fv_gguf_put_item. */
void fv_gguf_put_array(fv_gguf_writer *w, const char *key, fv_gguf_type of, const void *values,
                       size_t n);
void fv_gguf_put_strings(fv_gguf_writer *w, const char *key, size_t n);
void fv_gguf_put_item(fv_gguf_writer *w, const char *text, size_t n_bytes);
/* f32 values that are known only when the data has been written: fv_gguf_set_floats fills them. */
void fv_gguf_reserve_floats(fv_gguf_writer *w, const char *key, size_t n);
void fv_gguf_set_floats(fv_gguf_writer *w, const float *values, size_t n);

void fv_gguf_add_tensor(fv_gguf_writer *w, const char *name, fv_type type, const uint64_t *shape,
                        int n_dims);

/* Writes everything before the data. Fails when the disk has no room for the whole file. */
fv_status fv_gguf_begin_data(fv_gguf_writer *w, fv_error *err);
uint64_t fv_gguf_total_bytes(const fv_gguf_writer *w);
/* The next bytes of the data, in the order of the tensors; a tensor may take many calls, no call
 * goes past a tensor's end. Padding is written between them. */
fv_status fv_gguf_write(fv_gguf_writer *w, const void *bytes, size_t n_bytes, fv_error *err);
/* Hashes, fsync, rename. */
fv_status fv_gguf_finish(fv_gguf_writer *w, fv_error *err);

/* ---- hashes ----
 *
 * The writer stores two, in 64 lower-case hexadecimal digits each:
 *   fastvlm.sha256         SHA-256 of the data, from its first byte to the end of the file
 *   fastvlm.sha256.header  SHA-256 of every byte before it, these 64 digits taken as '0' */
#define FV_GGUF_SHA256        "fastvlm.sha256"
#define FV_GGUF_SHA256_HEADER "fastvlm.sha256.header"

/* Compares both with the file; FV_ERR_FORMAT says which differs, FV_ERR_UNSUPPORTED that there are
 * none. callbacks may be NULL. */
fv_status fv_gguf_check_hashes(const fv_gguf *g, const fv_callbacks *callbacks, fv_error *err);

#endif
