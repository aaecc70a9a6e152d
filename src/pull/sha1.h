/* sha1: SHA-1 (FIPS 180-4) of a stream of bytes, as git names its objects by. Good against
 * accidents and for agreeing with git; where an attacker may choose the bytes, SHA-256 is the one
 * to trust.
 *
 * Used like sha256.h, which also has fv_hex. */
#ifndef FV_SHA1_H
#define FV_SHA1_H

#include "base/block_hash.h"

enum { FV_SHA1_BYTES = 20 };

typedef struct fv_sha1 {
    fv_block_hash hash;
} fv_sha1;

void fv_sha1_begin(fv_sha1 *s);
void fv_sha1_add(fv_sha1 *s, const void *data, size_t n_bytes);
void fv_sha1_end(fv_sha1 *s, uint8_t digest[FV_SHA1_BYTES]); /* s is used up */

#endif
