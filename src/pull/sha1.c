/* SHA-1. [FIPS 180-4, sections 4.1.1, 5.3.1 and 6.1] */
#include "pull/sha1.h"

#include <string.h>

static uint32_t rotate_left(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_add_block(uint32_t state[5], const uint8_t *p)
{
    uint32_t w[80];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

    for (int t = 0; t < 16; t++, p += 4)
        w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
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

void fv_sha1_begin(fv_sha1 *s)
{
    static const uint32_t initial[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
                                         0xc3d2e1f0 };
    memcpy(s->state, initial, sizeof initial);
    s->n_bytes = 0;
}

void fv_sha1_add(fv_sha1 *s, const void *data, size_t n_bytes)
{
    const uint8_t *p = data;
    size_t held = s->n_bytes % 64;

    if (n_bytes == 0)
        return; /* data may be NULL */
    s->n_bytes += n_bytes;
    if (held > 0) {
        size_t n = 64 - held < n_bytes ? 64 - held : n_bytes;
        memcpy(s->block + held, p, n);
        if (held + n < 64)
            return;
        sha1_add_block(s->state, s->block);
        p += n;
        n_bytes -= n;
    }
    for (; n_bytes >= 64; n_bytes -= 64, p += 64)
        sha1_add_block(s->state, p);
    memcpy(s->block, p, n_bytes);
}

/* A 1 bit, zeros up to 8 bytes before the end of a block, the length in bits. */
void fv_sha1_end(fv_sha1 *s, uint8_t digest[FV_SHA1_BYTES])
{
    static const uint8_t padding[64] = { 0x80 };
    uint64_t n_bits = s->n_bytes * 8;
    uint8_t length[8];

    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(n_bits >> (56 - 8 * i));
    fv_sha1_add(s, padding, 1 + (119 - s->n_bytes % 64) % 64);
    fv_sha1_add(s, length, 8);
    for (int i = 0; i < FV_SHA1_BYTES; i++)
        digest[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
}
