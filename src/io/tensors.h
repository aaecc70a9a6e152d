/* tensors: the named tensors of a model, mapped into memory. This file reads checkpoint
 * directories; gguf.h reads the other format into the same list.
 *
 *     model.safetensors | model.safetensors.index.json + shards  ->  fv_tensors
 *
 * safetensors: u64 little-endian header length, JSON header {name: {dtype, shape,
 * data_offsets}}, then the data; offsets count from the end of the header. Every range is
 * checked against its file, its shape and its neighbours before anything is read. Which types and
 * shapes are of use is for those who use a tensor: a file may hold others. */
#ifndef FV_TENSORS_H
#define FV_TENSORS_H

#include "base/base.h"
#include "base/types.h"

enum { FV_TENSOR_MAX_DIMS = 4 };

typedef struct fv_tensor {
    const char *name; /* borrowed from the store */
    fv_type type;
    char dtype[16]; /* the file's word for a type that is FV_TYPE_OTHER */
    int n_dims;     /* 0: a scalar */
    int rank;       /* in the file; past FV_TENSOR_MAX_DIMS, the last of shape is a product */
    uint64_t shape[FV_TENSOR_MAX_DIMS];
    const void *data; /* in the mapping; aligned to nothing */
    uint64_t n_elems, n_bytes;
    uint32_t file; /* index for fv_tensors_file */
} fv_tensor;

typedef struct fv_tensors fv_tensors;

/* Opens DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json names. */
fv_status fv_tensors_open(fv_tensors **out, const char *dir, fv_error *err);
void fv_tensors_free(fv_tensors *t);

size_t fv_tensors_count(const fv_tensors *t);
const fv_tensor *fv_tensors_at(const fv_tensors *t, size_t index);       /* in file order */
const fv_tensor *fv_tensors_find(const fv_tensors *t, const char *name); /* NULL: none */
const char *fv_tensors_file(const fv_tensors *t, uint32_t file);         /* "model.safetensors" */

/* Reads one safetensors file's bytes into a list; for fuzzing and tests. The bytes must outlive
 * it. */
fv_status fv_tensors_read(fv_tensors **out, const void *data, size_t n_bytes, const char *name,
                          fv_error *err);

/* For readers of other formats: a list of n tensors that lie in one file, refused when a name comes
 * twice or two of them share bytes. Names and file are copied; the tensors' bytes must outlive
 * it. */
fv_status fv_tensors_from_list(fv_tensors **out, const fv_tensor *list, size_t n, const char *file,
                               fv_error *err);

/* "BF16", or the file's word for another type. */
static inline const char *fv_tensor_type_name(const fv_tensor *x)
{
    return x->type == FV_TYPE_OTHER ? x->dtype : fv_type_name(x->type);
}

/* "[3072, 768]" into text; returns text. */
enum { FV_SHAPE_TEXT = 96 };
const char *fv_shape_text(char text[FV_SHAPE_TEXT], const uint64_t *shape, int n_dims);

/* Bytes of the files that are mapped. */
uint64_t fv_tensors_mapped_bytes(const fv_tensors *t);

/* The system may drop the pages of a tensor that has been copied. */
void fv_tensors_drop(const fv_tensors *t, const fv_tensor *tensor);

#endif
