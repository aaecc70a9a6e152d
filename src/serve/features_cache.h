/* features_cache: encoded images by the SHA-256 of their files, so that the same image is not
 * encoded twice; the least recently used go when there is no room. Any thread may call. */
#ifndef FV_SERVE_FEATURES_CACHE_H
#define FV_SERVE_FEATURES_CACHE_H

#include "base/base.h"
#include "base/sha256.h"

typedef struct serve_cache serve_cache;

typedef struct serve_cache_counts {
    size_t n_images, n_bytes;
} serve_cache_counts;

fv_status serve_cache_new(serve_cache **out, size_t max_bytes, fv_error *err);
void serve_cache_free(serve_cache *cache); /* NULL is fine */

/* A reference to give up, or NULL. */
fv_features *serve_cache_find(serve_cache *cache, const uint8_t digest[FV_SHA256_BYTES]);
/* Keeps a reference of its own, where there is room. */
void serve_cache_add(serve_cache *cache, const uint8_t digest[FV_SHA256_BYTES],
                     fv_features *features);
serve_cache_counts serve_cache_count(serve_cache *cache);

#endif
