/* tokenizer_tables: what a tokenizer is made of; only for the tokenizer's own files.
 *
 *     blob, offset   id -> bytes               offset[id] .. offset[id + 1] in blob
 *     byte_id        byte -> id                where every word starts
 *     merges         (left, right) -> rank, merged id    open addressing, linear probing
 *     added          texts of added tokens, sorted, to find the longest one at a place: those
 * looked                    for in the text as it is, and those looked for after NFC
 *
 * 6 MB together for the 151,643 tokens of Qwen2. */
#ifndef FV_TOKENIZER_TABLES_H
#define FV_TOKENIZER_TABLES_H

#include "text/tokenizer.h"

typedef struct fv_merge_slot {
    int32_t left, right; /* left < 0: empty */
    uint32_t rank;
    int32_t merged;
} fv_merge_slot;

typedef struct fv_added_token {
    const uint8_t *text;
    size_t n;
    int32_t id;
} fv_added_token;

/* Added tokens in byte order. */
typedef struct fv_added_list {
    fv_added_token *list; /* [n] */
    size_t n;
    bool starts[256]; /* whether one begins with this byte */
} fv_added_list;

struct fv_tokenizer {
    uint8_t *blob;
    uint32_t *offset;                /* [n_tokens + 1] */
    uint8_t *kind;                   /* [n_tokens] fv_token_kind */
    fv_merge_slot *merges;           /* [merge_mask + 1] */
    fv_added_list added, normalized; /* looked for before and after NFC */
    size_t merge_mask, max_bytes;
    int32_t n_tokens;
    int32_t byte_id[256];
    bool mapped; /* blob, offset and merges lie in a packed file */
};

/* ---- tokenizer_build.c: the parts that need no look-up, also for tables that come ready ---- */

/* Fills added and normalized from kind, offset and blob; the ids, in increasing order, are those of
 * the latter. */
fv_status fv_tokenizer_add_added(fv_tokenizer *t, const int32_t *normalized, size_t n_normalized,
                                 const char *name, fv_error *err);

/* Part of the packed format (docs/format.md): changing it means a new format version. */
static inline size_t fv_merge_hash(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 24 ^ key * 0xd6e8feb86659fd93u >> 40);
}

/* The slot of a pair, or the empty one where it belongs (rank UINT32_MAX, left, merged < 0). */
static inline fv_merge_slot *fv_merge_at(const fv_tokenizer *t, int32_t left, int32_t right)
{
    for (size_t i = fv_merge_hash(left, right) & t->merge_mask;; i = (i + 1) & t->merge_mask) {
        fv_merge_slot *slot = &t->merges[i];
        if ((slot->left == left && slot->right == right) || slot->left < 0)
            return slot;
    }
}

#endif
