/* block_hash: what SHA-1 and SHA-256 share: bytes that come in pieces of any size are hashed in
 * blocks of 64, the last one padded. [FIPS 180-4, sections 5.1.1 and 5.2.1] */
#ifndef FV_BLOCK_HASH_H
#define FV_BLOCK_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct fv_block_hash {
    uint32_t state[8]; /* SHA-1 uses the first 5 */
    uint64_t n_bytes;  /* seen so far */
    uint8_t block[64]; /* the last n_bytes % 64 of them */
} fv_block_hash;

/* Takes n_blocks blocks of 64 bytes into the state. */
typedef void fv_block_hash_fn(uint32_t *state, const uint8_t *data, size_t n_blocks);

void fv_block_hash_begin(fv_block_hash *h, const uint32_t *state, size_t n_words);
void fv_block_hash_add(fv_block_hash *h, const void *data, size_t n_bytes, fv_block_hash_fn *fn);
/* The digest is n_words words, most significant byte first; h is used up. */
void fv_block_hash_end(fv_block_hash *h, uint8_t *digest, size_t n_words, fv_block_hash_fn *fn);

static inline uint32_t fv_load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

#endif
