/* Which model it is, for the manifest. See fastvlm_batch.h. */
#include "fastvlm_batch.h"

#include <stdio.h>

#include "base/sha256.h"
#include "base/sized.h"
#include "export/file_list.h"

fv_status fv_batch_model_id(char id[FV_BATCH_MODEL_ID_BYTES], const char *path, const void *data,
                            size_t n_bytes, const fv_callbacks *callbacks, fv_error *err)
{
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256 sha;
    fv_source source;
    FV_REQUIRE(id, err);
    if (!path) {
        FV_REQUIRE(data, err);
        fv_sha256_begin(&sha);
        fv_sha256_add(&sha, data, n_bytes);
        fv_sha256_end(&sha, digest);
        fv_hex(id, digest, sizeof digest);
        return FV_OK;
    }
    FV_TRY(fv_source_read(&source, path, "hash", callbacks, err));
    /* a file may have another name on another machine */
    snprintf(id, FV_BATCH_MODEL_ID_BYTES, "%s",
             fv_is_dir(path) ? source.sha256 : source.hash[0].sha256);
    fv_source_free(&source);
    return FV_OK;
}
