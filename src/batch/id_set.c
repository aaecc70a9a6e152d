/* Which texts have been there. See id_set.h. */
#include "batch/id_set.h"

#include <string.h>

#include "base/sha256.h"

enum { FIRST_CAPACITY = 1024 };

/* Where the id is, or the free slot that is its place. */
static size_t id_set_find(const fv_id_set *set, const uint64_t id[2])
{
    size_t at = (size_t)id[0] & (set->capacity - 1);
    while (set->slot[at][0] && memcmp(set->slot[at], id, sizeof set->slot[0]) != 0)
        at = (at + 1) & (set->capacity - 1);
    return at;
}

static fv_status id_set_grow(fv_id_set *set, fv_error *err)
{
    fv_id_set grown = { .n = set->n,
                        .capacity = set->capacity ? 2 * set->capacity : FIRST_CAPACITY };
    grown.slot = fv_alloc_zero(grown.capacity, sizeof *grown.slot);
    if (!grown.slot)
        return fv_fail_memory(err, grown.capacity * sizeof *grown.slot, "the keys of the rows");
    for (size_t i = 0; i < set->capacity; i++)
        if (set->slot[i][0])
            memcpy(grown.slot[id_set_find(&grown, set->slot[i])], set->slot[i], sizeof *grown.slot);
    fv_free(set->slot);
    *set = grown;
    return FV_OK;
}

fv_status fv_id_set_add(fv_id_set *set, const char *text, bool *is_new, fv_error *err)
{
    uint8_t digest[FV_SHA256_BYTES];
    uint64_t id[2];
    fv_sha256 sha;
    if (2 * (set->n + 1) > set->capacity)
        FV_TRY(id_set_grow(set, err));
    fv_sha256_begin(&sha);
    fv_sha256_add(&sha, text, strlen(text));
    fv_sha256_end(&sha, digest);
    memcpy(id, digest, sizeof id);
    id[0] |= 1; /* never that of a free slot */
    size_t at = id_set_find(set, id);
    *is_new = !set->slot[at][0];
    if (*is_new) {
        memcpy(set->slot[at], id, sizeof id);
        set->n++;
    }
    return FV_OK;
}

void fv_id_set_free(fv_id_set *set)
{
    fv_free(set->slot);
    *set = (fv_id_set){ 0 };
}
