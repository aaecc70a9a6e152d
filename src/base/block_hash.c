/* Bytes -> blocks of 64 and a padded last one. */
#include "base/block_hash.h"

#include <string.h>

static void store_be32(uint8_t *p, uint32_t x)
{
    p[0] = (uint8_t)(x >> 24);
    p[1] = (uint8_t)(x >> 16);
    p[2] = (uint8_t)(x >> 8);
    p[3] = (uint8_t)x;
}

void fv_block_hash_begin(fv_block_hash *h, const uint32_t *state, size_t n_words)
{
    memcpy(h->state, state, n_words * sizeof *state);
    h->n_bytes = 0;
}

void fv_block_hash_add(fv_block_hash *h, const void *data, size_t n_bytes, fv_block_hash_fn *fn)
{
    const uint8_t *p = data;
    size_t held = h->n_bytes % 64;

    if (n_bytes == 0)
        return; /* data may be NULL */
    h->n_bytes += n_bytes;
    if (held > 0) {
        size_t n = 64 - held < n_bytes ? 64 - held : n_bytes;
        memcpy(h->block + held, p, n);
        if (held + n < 64)
            return;
        fn(h->state, h->block, 1);
        p += n;
        n_bytes -= n;
    }
    fn(h->state, p, n_bytes / 64);
    memcpy(h->block, p + n_bytes / 64 * 64, n_bytes % 64);
}

/* A 1 bit, zeros up to 8 bytes before the end of a block, the length in bits. */
void fv_block_hash_end(fv_block_hash *h, uint8_t *digest, size_t n_words, fv_block_hash_fn *fn)
{
    static const uint8_t padding[64] = { 0x80 };
    uint64_t n_bits = h->n_bytes * 8;
    uint8_t length[8];

    store_be32(length, (uint32_t)(n_bits >> 32));
    store_be32(length + 4, (uint32_t)n_bits);
    fv_block_hash_add(h, padding, 1 + (119 - h->n_bytes % 64) % 64, fn);
    fv_block_hash_add(h, length, 8, fn);
    for (size_t i = 0; i < n_words; i++)
        store_be32(digest + 4 * i, h->state[i]);
}
