/* Encoded images by hash. See features_cache.h. A digest's first bytes choose its chain. */
#include "serve/features_cache.h"

#include <pthread.h>
#include <string.h>

enum { CHAINS = 1024 };

typedef struct cache_entry {
    struct cache_entry *chain;         /* of the same chain */
    struct cache_entry *newer, *older; /* by last use */
    uint8_t digest[FV_SHA256_BYTES];
    fv_features *features;
    size_t n_bytes;
} cache_entry;

struct serve_cache {
    pthread_mutex_t lock;
    cache_entry *chains[CHAINS];
    cache_entry *newest, *oldest;
    size_t max_bytes;
    serve_cache_counts counts;
};

fv_status serve_cache_new(serve_cache **out, size_t max_bytes, fv_error *err)
{
    serve_cache *cache = *out = fv_alloc_zero(1, sizeof *cache);
    if (!cache)
        return fv_fail_memory(err, sizeof *cache, "the cache of images");
    pthread_mutex_init(&cache->lock, NULL);
    cache->max_bytes = max_bytes;
    return FV_OK;
}

static cache_entry **cache_chain(serve_cache *cache, const uint8_t *digest)
{
    return &cache->chains[(digest[0] | digest[1] << 8) % CHAINS];
}

static void entry_unlink(serve_cache *cache, cache_entry *e)
{
    *(e->newer ? &e->newer->older : &cache->newest) = e->older;
    *(e->older ? &e->older->newer : &cache->oldest) = e->newer;
}

static void entry_push(serve_cache *cache, cache_entry *e)
{
    e->newer = NULL;
    e->older = cache->newest;
    *(e->older ? &e->older->newer : &cache->oldest) = e;
    cache->newest = e;
}

static cache_entry *entry_find(serve_cache *cache, const uint8_t *digest)
{
    cache_entry *e = *cache_chain(cache, digest);
    while (e && memcmp(e->digest, digest, sizeof e->digest) != 0)
        e = e->chain;
    return e;
}

static void entry_drop(serve_cache *cache, cache_entry *e)
{
    cache_entry **at = cache_chain(cache, e->digest);
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    entry_unlink(cache, e);
    cache->counts.n_images--;
    cache->counts.n_bytes -= e->n_bytes;
    fv_features_free(e->features);
    fv_free(e);
}

fv_features *serve_cache_find(serve_cache *cache, const uint8_t digest[FV_SHA256_BYTES])
{
    fv_features *found = NULL;
    pthread_mutex_lock(&cache->lock);
    cache_entry *e = entry_find(cache, digest);
    if (e) {
        entry_unlink(cache, e);
        entry_push(cache, e);
        found = fv_features_ref(e->features);
    }
    pthread_mutex_unlock(&cache->lock);
    return found;
}

void serve_cache_add(serve_cache *cache, const uint8_t digest[FV_SHA256_BYTES],
                     fv_features *features)
{
    size_t n_rows, d_model;
    fv_features_rows(features, &n_rows, &d_model);
    size_t n_bytes = sizeof(cache_entry) + n_rows * d_model * sizeof(float);
    cache_entry *e = n_bytes <= cache->max_bytes ? fv_alloc_zero(1, sizeof *e) : NULL;
    if (!e)
        return; /* it will be encoded again */
    memcpy(e->digest, digest, sizeof e->digest);
    e->n_bytes = n_bytes;
    pthread_mutex_lock(&cache->lock);
    if (entry_find(cache, digest)) {
        fv_free(e);
    } else {
        while (cache->counts.n_bytes + n_bytes > cache->max_bytes)
            entry_drop(cache, cache->oldest);
        e->features = fv_features_ref(features);
        e->chain = *cache_chain(cache, digest);
        *cache_chain(cache, digest) = e;
        entry_push(cache, e);
        cache->counts.n_images++;
        cache->counts.n_bytes += n_bytes;
    }
    pthread_mutex_unlock(&cache->lock);
}

serve_cache_counts serve_cache_count(serve_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    serve_cache_counts counts = cache->counts;
    pthread_mutex_unlock(&cache->lock);
    return counts;
}

void serve_cache_free(serve_cache *cache)
{
    if (!cache)
        return;
    while (cache->oldest)
        entry_drop(cache, cache->oldest);
    pthread_mutex_destroy(&cache->lock);
    fv_free(cache);
}
