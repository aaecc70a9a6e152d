/* A file's bytes through SHA-256. See file_hash.h. */
#include "base/file_hash.h"

#include "base/report.h"
#include "base/sha256.h"

enum { SLICE = 8 << 20 };

fv_status fv_file_hash(char hex[FV_HASH_TEXT], uint64_t *n_bytes, const char *path,
                       const char *stage, const fv_callbacks *callbacks, fv_error *err)
{
    uint8_t digest[FV_SHA256_BYTES];
    fv_map map = { 0 };
    fv_sha256 sha;
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_map_open(&map, path, err));
    fv_sha256_begin(&sha);
    for (size_t at = 0; at < map.size; at += SLICE) {
        size_t n = FV_MIN((size_t)SLICE, map.size - at);
        FV_TRY_GOTO(fv_progress(callbacks, stage, (double)at / (double)map.size, err));
        fv_sha256_add(&sha, map.data + at, n);
        fv_map_advise(&map, at, n, false);
    }
    fv_sha256_end(&sha, digest);
    fv_hex(hex, digest, sizeof digest);
    *n_bytes = map.size;
fail:
    fv_map_close(&map);
    return status;
}
