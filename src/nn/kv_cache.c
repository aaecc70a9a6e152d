/* The KV cache of one sequence. See kv_cache.h. */
#include "nn/kv_cache.h"

#include <string.h>

enum { KV_STEP = 1024 /* rows by which a cache grows; from there on it doubles */ };

void fv_kv_init(fv_kv_cache *kv, const fv_config *c, fv_type type)
{
    *kv = (fv_kv_cache){ .type = type,
                         .n_layers = (size_t)c->n_layers,
                         .n_heads = (size_t)c->n_kv_heads,
                         .d_head = (size_t)c->d_head,
                         .row_bytes = fv_kv_row_bytes(type, (size_t)c->d_head) };
}

void fv_kv_free(fv_kv_cache *kv)
{
    fv_free(kv->data);
    *kv = (fv_kv_cache){ 0 };
}

fv_status fv_kv_reserve(fv_kv_cache *kv, size_t n, fv_error *err)
{
    const size_t n_parts = kv->n_layers * 2 * kv->n_heads;
    if (n <= kv->capacity)
        return FV_OK;
    fv_kv_cache fresh = *kv;
    fresh.capacity = FV_MAX(kv->capacity * 2, (n + KV_STEP - 1) / KV_STEP * KV_STEP);
    fresh.data_bytes = n_parts * fresh.capacity * kv->row_bytes;
    fresh.data = fv_alloc(fresh.data_bytes, 1);
    if (!fresh.data)
        return fv_fail_memory(err, fresh.data_bytes, "the KV cache");
    for (size_t i = 0; i < n_parts && kv->n; i++)
        memcpy(fresh.data + i * fresh.capacity * kv->row_bytes,
               kv->data + i * kv->capacity * kv->row_bytes, kv->n * kv->row_bytes);
    fv_free(kv->data);
    *kv = fresh;
    return FV_OK;
}

void fv_kv_copy(fv_kv_cache *to, const fv_kv_cache *from, size_t n)
{
    const size_t at = to->n * to->row_bytes;
    for (size_t layer = 0; layer < from->n_layers && n > to->n; layer++)
        for (int part = FV_KV_KEYS; part <= FV_KV_VALUES; part++)
            for (size_t head = 0; head < from->n_heads; head++)
                memcpy(fv_kv_rows(to, layer, (fv_kv_part)part, head) + at,
                       fv_kv_rows(from, layer, (fv_kv_part)part, head) + at,
                       n * from->row_bytes - at);
    to->n = n;
}
