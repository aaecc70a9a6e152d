/* kv_cache: the keys and values of one sequence's rows, of every layer.
 *
 *     [layer][keys, values][kv head][capacity] rows of d_head, keys after RoPE
 *
 * The rows of a head follow each other: attention reads them as one matrix. */
#ifndef FV_KV_CACHE_H
#define FV_KV_CACHE_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "model/config.h"

typedef enum fv_kv_part { FV_KV_KEYS, FV_KV_VALUES } fv_kv_part;

typedef struct fv_kv_cache {
    fv_type type; /* F32, F16 or I8 */
    size_t n_layers, n_heads, d_head;
    size_t capacity, n; /* rows it can hold; rows it holds. Lowering n forgets the last rows */
    size_t row_bytes;   /* of one head's keys or values: fv_kv_row_bytes */
    uint8_t *data;
    size_t data_bytes;
} fv_kv_cache;

/* Empty, without memory. */
void fv_kv_init(fv_kv_cache *kv, const fv_config *c, fv_type type);
void fv_kv_free(fv_kv_cache *kv);

/* Room for n rows. Grows in steps, so that decoding does not allocate every token; what it holds
 * stays, also on failure. */
fv_status fv_kv_reserve(fv_kv_cache *kv, size_t n, fv_error *err);

/* Rows [to->n, n), for which `to` has room; to holds the first n then. */
void fv_kv_copy(fv_kv_cache *to, const fv_kv_cache *from, size_t n);

/* Row 0 of a head; the others are row_bytes apart. */
static inline uint8_t *fv_kv_rows(const fv_kv_cache *kv, size_t layer, fv_kv_part part, size_t head)
{
    return kv->data + ((layer * 2 + part) * kv->n_heads + head) * kv->capacity * kv->row_bytes;
}

#endif
