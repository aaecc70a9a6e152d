/* sha1: SHA-1 (FIPS 180-4) of a stream of bytes, as git names its objects by. Good against
 * accidents and for agreeing with git; where an attacker may choose the bytes, SHA-256 is the one
 * to trust.
 *
 * Used like sha256.h, which also has fv_hex. */
#ifndef FV_SHA1_H
#define FV_SHA1_H

#include <stddef.h>
#include <stdint.h>

enum { FV_SHA1_BYTES = 20 };

typedef struct fv_sha1 {
    uint32_t state[5];
    uint64_t n_bytes;  /* seen so far */
    uint8_t block[64]; /* the last n_bytes % 64 of them */
} fv_sha1;

void fv_sha1_begin(fv_sha1 *s);
void fv_sha1_add(fv_sha1 *s, const void *data, size_t n_bytes);
void fv_sha1_end(fv_sha1 *s, uint8_t digest[FV_SHA1_BYTES]); /* s is used up */

#endif
