/* hub: what the Hugging Face hub says about a revision of a repository.
 *
 *     GET ENDPOINT/api/models/REPO/revision/REVISION?blobs=true
 *
 *     { "sha": COMMIT, "gated": false | "auto" | "manual", "cardData": { "license": ... },
 *       "siblings": [ { "rfilename": "config.json", "size": 1234, "blobId": SHA-1 },
 *                     { "rfilename": "model.safetensors", "size": N, "lfs": { "sha256": ... } } ] }
 *
 * The answer is not trusted: names are checked before anything is done with them. */
#ifndef FV_HUB_H
#define FV_HUB_H

#include "base/base.h"

typedef struct fv_hub_file {
    char name[256]; /* a name, no path */
    uint64_t size;
    char hash[65];
    bool sha256; /* else SHA-1 of "blob SIZE\0" and the bytes */
} fv_hub_file;

enum { FV_HUB_MAX_FILES = 1024, FV_HUB_MAX_BYTES = 16 << 20 };

typedef struct fv_hub_listing {
    char commit[41];
    char license[128], license_file[256];
    bool gated;
    size_t n_files; /* that a checkpoint needs, sorted as listed */
    fv_hub_file *files;
} fv_hub_listing;

/* repo names it in messages. On failure there is nothing to free. */
fv_status fv_hub_parse(fv_hub_listing *out, const void *text, size_t n_bytes, const char *repo,
                       fv_error *err);
void fv_hub_free(fv_hub_listing *listing);

/* "owner/name" as the hub allows it. */
bool fv_hub_repo_ok(const char *repo);

#endif
