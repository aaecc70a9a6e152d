/* Bytes as a safetensors file: what is accepted must lie inside the bytes, without overlaps. */
#include <stdlib.h>
#include <string.h>

#include "io/tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_tensors *t = NULL;
    fv_error err = { 0 };
    if (fv_tensors_read(&t, data, n_bytes, "input", &err) != FV_OK) {
        if (t || !err.message[0])
            abort();
        return 0;
    }
    const uint8_t *last = data;
    for (size_t i = 0; i < fv_tensors_count(t); i++) {
        const fv_tensor *x = fv_tensors_at(t, i);
        uint64_t n = 1;
        for (int d = 0; d < x->n_dims; d++)
            n *= x->shape[d];
        if (n != x->n_elems || x->n_dims > FV_TENSOR_MAX_DIMS ||
            (x->type != FV_TYPE_OTHER && n * fv_type_size(x->type) != x->n_bytes) ||
            fv_tensors_find(t, x->name) != x)
            abort();
        if (!x->n_bytes)
            continue;
        const uint8_t *begin = x->data;
        if (begin < last || x->n_bytes > (uint64_t)(data + n_bytes - begin))
            abort();
        last = begin + x->n_bytes;
    }
    fv_tensors_free(t);
    return 0;
}
