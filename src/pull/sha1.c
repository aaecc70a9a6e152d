/* SHA-1. [FIPS 180-4, sections 4.1.1, 5.3.1 and 6.1] */
#include "pull/sha1.h"

static uint32_t rotate_left(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_add_block(uint32_t state[5], const uint8_t *p)
{
    uint32_t w[80];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

    for (int t = 0; t < 16; t++, p += 4)
        w[t] = fv_load_be32(p);
    for (int t = 16; t < 80; t++)
        w[t] = rotate_left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    for (int t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20)
            f = (b & c) ^ (~b & d), k = 0x5a827999;
        else if (t < 40)
            f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (t < 60)
            f = (b & c) ^ (b & d) ^ (c & d), k = 0x8f1bbcdc;
        else
            f = b ^ c ^ d, k = 0xca62c1d6;
        uint32_t next = rotate_left(a, 5) + f + e + k + w[t];
        e = d, d = c, c = rotate_left(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void sha1_add_blocks(uint32_t *state, const uint8_t *data, size_t n_blocks)
{
    for (; n_blocks > 0; n_blocks--, data += 64)
        sha1_add_block(state, data);
}

void fv_sha1_begin(fv_sha1 *s)
{
    static const uint32_t initial[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
                                         0xc3d2e1f0 };
    fv_block_hash_begin(&s->hash, initial, 5);
}

void fv_sha1_add(fv_sha1 *s, const void *data, size_t n_bytes)
{
    fv_block_hash_add(&s->hash, data, n_bytes, sha1_add_blocks);
}

void fv_sha1_end(fv_sha1 *s, uint8_t digest[FV_SHA1_BYTES])
{
    fv_block_hash_end(&s->hash, digest, FV_SHA1_BYTES / 4, sha1_add_blocks);
}
