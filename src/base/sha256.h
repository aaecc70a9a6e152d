/* sha256: SHA-256 (FIPS 180-4) of a stream of bytes.
 *
 *     fv_sha256 s;  uint8_t digest[FV_SHA256_BYTES];  char hex[2 * FV_SHA256_BYTES + 1];
 *     fv_sha256_begin(&s);
 *     fv_sha256_add(&s, data, n_bytes);         any number of times
 *     fv_sha256_end(&s, digest);
 *     fv_hex(hex, digest, sizeof digest);
 *
 * Plain values: an fv_sha256 may be copied to go on twice from one point, and needs no release. */
#ifndef FV_SHA256_H
#define FV_SHA256_H

#include "base/block_hash.h"

enum { FV_SHA256_BYTES = 32 };

typedef struct fv_sha256 {
    fv_block_hash hash;
} fv_sha256;

void fv_sha256_begin(fv_sha256 *s);
void fv_sha256_add(fv_sha256 *s, const void *data, size_t n_bytes);
void fv_sha256_end(fv_sha256 *s, uint8_t digest[FV_SHA256_BYTES]); /* s is used up */

extern int fv_sha256_portable; /* for tests: not 0 forgoes the processor's instructions for it */

/* Lower-case hexadecimal digits and a NUL: text has room for 2 * n_bytes + 1. */
void fv_hex(char *text, const uint8_t *bytes, size_t n_bytes);

#endif
