/* The tokenizer's tables and the two directions through them.
 *
 *     text --added tokens--> pieces --NFC--> --words--> bytes --merges--> ids
 *
 * Tables (all for the 151,643 tokens of Qwen2, 7.5 MB together):
 *
 *     blob, offset   id -> bytes               offset[id] .. offset[id + 1] in blob
 *     byte_id        byte -> id                where every word starts
 *     merges         (left, right) -> rank, merged id    open addressing, linear probing
 *     added          texts of added tokens, sorted, to find the longest one at a place
 *
 * Text -> id is needed only while merges are resolved; that table is dropped after building.
 *
 * Merging follows Hugging Face's `tokenizers`: of all adjacent pairs the one of lowest rank, of
 * equal ones the leftmost, until no pair has a rank. [Sennrich, Haddow, Birch 2016; GPT-2's bytes] */
#include "text/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"
#include "text/utf8.h"

enum {
    SHORT_WORD = 48,           /* bytes; longer words go through the heap */
    MAX_TOKENS = 1 << 20,
    MAX_MERGES = 1 << 22,
    MAX_VOCAB_BYTES = 1 << 30, /* offsets are 32-bit */
    MAX_TEXT_BYTES = 1 << 28   /* positions are 32-bit, and NFC may take three times as many */
};

typedef struct merge_slot {
    int32_t  left, right;    /* left < 0: empty */
    uint32_t rank;
    int32_t  merged;
} merge_slot;

typedef struct added_token {
    const uint8_t *text;
    size_t  n;
    int32_t id;
} added_token;

struct fv_tokenizer {
    uint8_t     *blob;
    uint32_t    *offset;     /* [n_tokens + 1] */
    uint8_t     *kind;       /* [n_tokens] fv_token_kind */
    merge_slot  *merges;     /* [merge_mask + 1] */
    added_token *added;      /* [n_added] in byte order */
    size_t       merge_mask, n_added, max_bytes;
    int32_t      n_tokens;
    int32_t      byte_id[256];
    bool         starts_added[256];
};

/* ---- ids ---- */

static fv_status ids_reserve(fv_ids *ids, size_t n_more, fv_error *err)
{
    size_t want = ids->n + n_more;

    if (want <= ids->capacity)
        return FV_OK;
    want = FV_MAX(want + want / 2, 64);
    int32_t *data = fv_grow(ids->data, ids->capacity, want, sizeof *data);
    if (!data)
        return fv_fail_memory(err, want * sizeof *data, "token ids");
    ids->data = data;
    ids->capacity = want;
    return FV_OK;
}

fv_status fv_ids_push(fv_ids *ids, int32_t id, fv_error *err)
{
    FV_TRY(ids_reserve(ids, 1, err));
    ids->data[ids->n++] = id;
    return FV_OK;
}

void fv_ids_free(fv_ids *ids)
{
    fv_free(ids->data);
    *ids = (fv_ids){ 0 };
}

/* ---- building: stand-in characters ---- */

/* GPT-2's bytes_to_unicode: bytes 21-7E, A1-AC and AE-FF stand for themselves, the other 68 in
 * increasing order for U+0100, U+0101, ... */
enum { N_STAND_INS = 0x144 };

static void stand_in_table(int16_t byte_of[N_STAND_INS])
{
    int next = 0x100;

    for (int c = 0; c < N_STAND_INS; c++)
        byte_of[c] = -1;
    for (int byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        byte_of[itself ? byte : next++] = (int16_t)byte;
    }
}

/* Writes the bytes that text stands for; returns their number, or SIZE_MAX when it holds anything
 * else. Stand-ins take one or two bytes of UTF-8, so to needs at most text.n bytes. */
static size_t stand_ins_to_bytes(const int16_t byte_of[N_STAND_INS], fv_slice text, uint8_t *to)
{
    const uint8_t *from = (const uint8_t *)text.data, *end = from + text.n;
    uint8_t *begin = to;

    while (from < end) {
        unsigned c = *from++;
        if (c >= 0x80) {
            if (c < 0xc2 || c > 0xc5 || from == end || (*from & 0xc0) != 0x80)
                return SIZE_MAX;
            c = (c & 31u) << 6 | (*from++ & 63u);
        }
        if (c >= N_STAND_INS || byte_of[c] < 0)
            return SIZE_MAX;
        *to++ = (uint8_t)byte_of[c];
    }
    return (size_t)(to - begin);
}

/* text for a message: at most 40 bytes, whole characters, '?' for what is no UTF-8. */
typedef struct shown { char text[48]; } shown;

static shown show(fv_slice text)
{
    shown s;
    size_t used = 0, at = 0;

    while (at < text.n) {
        bool complete, truncated;
        size_t n = fv_utf8_step((const uint8_t *)text.data + at, text.n - at, &complete, &truncated);
        if (used + n > 40) {
            memcpy(s.text + used, "...", 3);
            used += 3;
            break;
        }
        if (complete)
            memcpy(s.text + used, text.data + at, n);
        else
            memset(s.text + used, '?', n);
        used += n;
        at += n;
    }
    s.text[used] = '\0';
    return s;
}

/* ---- building: text -> id ---- */

typedef struct text_slot {
    uint32_t tag;
    int32_t  id;    /* -1: empty */
} text_slot;

typedef struct text_index {
    text_slot             *slots;
    size_t                 mask;
    const fv_token_source *tokens;
} text_index;

/* Eight bytes at a time. Not keyed: a hostile vocabulary can make the table slow, but its size bounds
 * by how much. */
static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t hash_bytes(const char *text, size_t n)
{
    uint64_t h = n, word;

    for (; n >= 8; text += 8, n -= 8) {
        memcpy(&word, text, 8);
        h = mix(h, word);
    }
    word = 0;
    if (n > 0)
        memcpy(&word, text, n);
    return mix(mix(h, word), 0);
}

/* The slot that holds text, or the empty one where it belongs. */
static text_slot *index_slot(const text_index *x, fv_slice text, uint64_t hash)
{
    for (size_t i = hash & x->mask;; i = (i + 1) & x->mask) {
        text_slot *slot = &x->slots[i];
        if (slot->id < 0)
            return slot;
        const fv_slice *found = &x->tokens[slot->id].text;
        if (slot->tag == hash >> 32 && found->n == text.n && memcmp(found->data, text.data, text.n) == 0)
            return slot;
    }
}

/* Looks up a batch of texts: id[i] is -1 for what is no token. A lookup is three dependent reads from
 * memory that no cache holds (slot, token, text), so each is asked for in all of them before it is
 * used in one: this more than halves the time to load a vocabulary. */
enum { BATCH = 32 };

static void index_find(const text_index *x, const fv_slice *text, size_t n, int32_t *id)
{
    uint64_t hash[BATCH];

    for (size_t i = 0; i < n; i++) {
        hash[i] = hash_bytes(text[i].data, text[i].n);
        __builtin_prefetch(&x->slots[hash[i] & x->mask]);
    }
    for (size_t i = 0; i < n; i++) {
        id[i] = x->slots[hash[i] & x->mask].id;
        if (id[i] >= 0)
            __builtin_prefetch(&x->tokens[id[i]]);
    }
    for (size_t i = 0; i < n; i++)
        if (id[i] >= 0)
            __builtin_prefetch(x->tokens[id[i]].text.data);
    for (size_t i = 0; i < n; i++)
        id[i] = index_slot(x, text[i], hash[i])->id;
}

/* ---- building: merges ---- */

static size_t merge_hash(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 24 ^ key * 0xd6e8feb86659fd93u >> 40);
}

static merge_slot *merge_at(const fv_tokenizer *t, int32_t left, int32_t right)
{
    for (size_t i = merge_hash(left, right) & t->merge_mask;; i = (i + 1) & t->merge_mask) {
        merge_slot *slot = &t->merges[i];
        if ((slot->left == left && slot->right == right) || slot->left < 0)
            return slot;
    }
}

/* The smallest power of two that leaves at least a third of the slots empty. */
static size_t table_size(size_t n)
{
    size_t size = 16;

    while (size < n + n / 2 + 1)
        size *= 2;
    return size;
}

static fv_status unknown_part(size_t index, const fv_merge_source *m, fv_slice part, const char *what,
                              const char *name, fv_error *err)
{
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: merge %zu (\"%s\" \"%s\"): %s \"%s\" is not in the vocabulary", name,
                   index + 1, show(m->left).text, show(m->right).text, what, show(part).text);
}

/* Is this token left + right? */
static bool is_joined(const fv_token_source *token, const fv_merge_source *m)
{
    const fv_slice *text = &token->text;

    return token->kind == FV_TOKEN_NORMAL && text->n == m->left.n + m->right.n &&
           memcmp(text->data, m->left.data, m->left.n) == 0 &&
           memcmp(text->data + m->left.n, m->right.data, m->right.n) == 0;
}

/* The id of left + right, or -1. Merges and the tokens they make stand in the same order, so the one
 * after the last (guess) usually is it. joined has room for the longest token's text. */
static int32_t find_joined(const text_index *x, const fv_merge_source *m, int32_t guess, int32_t n_tokens, char *joined,
                           size_t longest)
{
    fv_slice text = { joined, m->left.n + m->right.n };
    int32_t id;

    if (guess < n_tokens && is_joined(&x->tokens[guess], m))
        return guess;
    if (text.n > longest)
        return -1;
    memcpy(joined, m->left.data, m->left.n);
    memcpy(joined + m->left.n, m->right.data, m->right.n);
    index_find(x, &text, 1, &id);
    return id;
}

static fv_status add_merges(fv_tokenizer *t, const text_index *x, const fv_merge_source *merges, size_t n_merges,
                            char *joined, size_t longest, const char *name, fv_error *err)
{
    fv_slice text[BATCH];
    int32_t id[BATCH], guess = 256;

    for (size_t first = 0, n; first < n_merges; first += n) {
        n = FV_MIN(n_merges - first, BATCH / 2);
        for (size_t i = 0; i < n; i++) {
            text[2 * i] = merges[first + i].left;
            text[2 * i + 1] = merges[first + i].right;
        }
        index_find(x, text, 2 * n, id);
        for (size_t i = 0; i < n; i++)
            __builtin_prefetch(&t->merges[merge_hash(id[2 * i], id[2 * i + 1]) & t->merge_mask], 1);
        for (size_t i = 0; i < n; i++) {
            const fv_merge_source *m = &merges[first + i];
            int32_t left = id[2 * i], right = id[2 * i + 1];
            if (left < 0)
                return unknown_part(first + i, m, m->left, "the left part", name, err);
            if (right < 0)
                return unknown_part(first + i, m, m->right, "the right part", name, err);
            int32_t merged = find_joined(x, m, guess, t->n_tokens, joined, longest);
            if (merged < 0)
                return fv_fail(err, FV_ERR_FORMAT, 0,
                               "%s: merge %zu (\"%s\" \"%s\"): the merged text is not in the vocabulary", name,
                               first + i + 1, show(m->left).text, show(m->right).text);
            guess = merged + 1;
            /* Of equal pairs the last counts. */
            *merge_at(t, left, right) = (merge_slot){ left, right, (uint32_t)(first + i), merged };
        }
    }
    return FV_OK;
}

/* ---- building: added tokens ---- */

static int compare_bytes(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b)
{
    int order = memcmp(a, b, FV_MIN(n_a, n_b));

    return order != 0 ? order : (n_a > n_b) - (n_a < n_b);
}

static int compare_added(const void *a, const void *b)
{
    const added_token *x = a, *y = b;

    return compare_bytes(x->text, x->n, y->text, y->n);
}

static fv_status add_added(fv_tokenizer *t, const char *name, fv_error *err)
{
    size_t n = 0;

    for (int32_t id = 0; id < t->n_tokens; id++)
        if (t->kind[id] >= FV_TOKEN_ADDED)
            t->added[n++] = (added_token){ t->blob + t->offset[id], t->offset[id + 1] - t->offset[id], id };
    qsort(t->added, n, sizeof *t->added, compare_added);
    for (size_t i = 0; i < n; i++) {
        const added_token *a = &t->added[i];
        if (i > 0 && compare_added(a - 1, a) == 0)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: added tokens %" PRId32 " and %" PRId32 " are both \"%s\"", name,
                           a[-1].id, a->id, show((fv_slice){ (const char *)a->text, a->n }).text);
        t->starts_added[a->text[0]] = true;
    }
    t->n_added = n;
    return FV_OK;
}

/* ---- building ---- */

/* Fills blob, offset, kind, byte_id and the index. */
static fv_status add_tokens(fv_tokenizer *t, text_index *x, const fv_token_source *tokens, const char *name,
                            fv_error *err)
{
    enum { AHEAD = 16 };
    int16_t byte_of[N_STAND_INS];
    size_t used = 0;

    stand_in_table(byte_of);
    memset(t->byte_id, -1, sizeof t->byte_id);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        fv_slice text = tokens[id].text;
        size_t n = 0;
        if (id + AHEAD < t->n_tokens)
            __builtin_prefetch(&x->slots[hash_bytes(tokens[id + AHEAD].text.data, tokens[id + AHEAD].text.n) & x->mask], 1);
        t->offset[id] = (uint32_t)used;
        t->kind[id] = tokens[id].kind;
        if (tokens[id].kind == FV_TOKEN_NONE)
            continue;
        if (text.n == 0)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the text of token %" PRId32 " is empty", name, id);
        if (tokens[id].kind == FV_TOKEN_NORMAL) {
            uint64_t hash = hash_bytes(text.data, text.n);
            text_slot *slot = index_slot(x, text, hash);
            if (slot->id >= 0)
                return fv_fail(err, FV_ERR_FORMAT, 0, "%s: tokens %" PRId32 " and %" PRId32 " are both \"%s\"", name,
                               slot->id, id, show(text).text);
            *slot = (text_slot){ (uint32_t)(hash >> 32), id };
            n = stand_ins_to_bytes(byte_of, text, t->blob + used);
            if (n == SIZE_MAX)
                return fv_fail(err, FV_ERR_FORMAT, 0, "%s: token %" PRId32 " \"%s\" holds a character that stands for no byte",
                               name, id, show(text).text);
            if (n == 1)
                t->byte_id[t->blob[used]] = id;
        } else {
            size_t bad_at;
            if (!fv_utf8_valid(text.data, text.n, &bad_at))
                return fv_fail(err, FV_ERR_FORMAT, 0, "%s: added token %" PRId32 " \"%s\" is not valid UTF-8", name, id,
                               show(text).text);
            n = text.n;
            memcpy(t->blob + used, text.data, n);
        }
        used += n;
        t->max_bytes = FV_MAX(t->max_bytes, n);
    }
    t->offset[t->n_tokens] = (uint32_t)used;
    for (int byte = 0; byte < 256; byte++)
        if (t->byte_id[byte] < 0)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the vocabulary has no token for the single byte 0x%02x", name,
                           (unsigned)byte);
    return FV_OK;
}

fv_status fv_tokenizer_build(fv_tokenizer **out, const fv_token_source *tokens, size_t n_tokens,
                             const fv_merge_source *merges, size_t n_merges, const char *name, fv_error *err)
{
    fv_status status = FV_OK;
    text_index x = { .tokens = tokens };
    char *joined = NULL;
    size_t n_text = 0, longest = 0, n_added = 0;

    *out = NULL;
    while (n_tokens > 0 && tokens[n_tokens - 1].kind == FV_TOKEN_NONE)
        n_tokens--;
    if (n_tokens > MAX_TOKENS)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu tokens, at most %d are allowed", name, n_tokens, MAX_TOKENS);
    if (n_merges > MAX_MERGES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu merges, at most %d are allowed", name, n_merges, MAX_MERGES);
    for (size_t i = 0; i < n_tokens; i++) {
        n_text += tokens[i].text.n;
        longest = FV_MAX(longest, tokens[i].text.n);
        n_added += tokens[i].kind >= FV_TOKEN_ADDED;
        if (n_text > MAX_VOCAB_BYTES)
            return fv_fail(err, FV_ERR_LIMIT, 0, "%s: the texts of the tokens have more than %d bytes", name, MAX_VOCAB_BYTES);
    }

    fv_tokenizer *t = fv_alloc_zero(1, sizeof *t);
    if (!t)
        return fv_fail_memory(err, sizeof *t, "tokenizer");
    t->n_tokens = (int32_t)n_tokens;
    t->merge_mask = table_size(n_merges) - 1;
    x.mask = table_size(n_tokens) - 1;
    t->blob = fv_alloc(n_text, 1);
    t->offset = fv_alloc(n_tokens + 1, sizeof *t->offset);
    t->kind = fv_alloc(n_tokens, 1);
    t->added = fv_alloc(n_added, sizeof *t->added);
    t->merges = fv_alloc(t->merge_mask + 1, sizeof *t->merges);
    x.slots = fv_alloc(x.mask + 1, sizeof *x.slots);
    joined = fv_alloc(longest, 1);
    if (!t->blob || !t->offset || !t->kind || !t->added || !t->merges || !x.slots || !joined) {
        status = fv_fail_memory(err, n_text + n_tokens * 5 + (t->merge_mask + 1) * sizeof *t->merges +
                                (x.mask + 1) * sizeof *x.slots, "tokenizer");
        goto done;
    }
    memset(x.slots, -1, (x.mask + 1) * sizeof *x.slots);
    memset(t->merges, -1, (t->merge_mask + 1) * sizeof *t->merges);
    if ((status = add_tokens(t, &x, tokens, name, err)) == FV_OK &&
        (status = add_merges(t, &x, merges, n_merges, joined, longest, name, err)) == FV_OK)
        status = add_added(t, name, err);
done:
    fv_free(x.slots);
    fv_free(joined);
    if (status == FV_OK)
        *out = t;
    else
        fv_tokenizer_free(t);
    return status;
}

bool fv_merge_split(fv_slice line, fv_merge_source *out)
{
    const char *space = line.n > 0 ? memchr(line.data, ' ', line.n) : NULL;

    if (!space)
        return false;
    out->left = (fv_slice){ line.data, (size_t)(space - line.data) };
    out->right = (fv_slice){ space + 1, line.n - out->left.n - 1 };
    return out->left.n > 0 && out->right.n > 0 && !memchr(out->right.data, ' ', out->right.n);
}

void fv_tokenizer_free(fv_tokenizer *t)
{
    if (!t)
        return;
    fv_free(t->blob);
    fv_free(t->offset);
    fv_free(t->kind);
    fv_free(t->added);
    fv_free(t->merges);
    fv_free(t);
}

/* ---- words -> ids ---- */

typedef struct symbol {
    int32_t id;          /* -1: merged into an earlier one */
    int32_t prev, next;  /* -1: none */
} symbol;

typedef struct candidate {
    uint32_t rank, at;   /* the pair that begins with symbol `at` */
    int32_t  merged;
} candidate;

/* What one call of encode needs besides the ids. */
typedef struct scratch {
    fv_nfc     nfc;
    symbol    *symbols;  /* [capacity] */
    candidate *heap;     /* [3 * capacity]: a pair for each symbol, two more for each merge */
    size_t     capacity;
} scratch;

/* A word of a few bytes: look for the best pair anew after each merge. */
static void encode_short(const fv_tokenizer *t, const uint8_t *word, size_t n, fv_ids *ids)
{
    int32_t id[SHORT_WORD], merged[SHORT_WORD];
    uint32_t rank[SHORT_WORD];

    for (size_t i = 0; i < n; i++)
        id[i] = t->byte_id[word[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        const merge_slot *m = merge_at(t, id[i], id[i + 1]);
        rank[i] = m->rank; /* UINT32_MAX in an empty slot */
        merged[i] = m->merged;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == UINT32_MAX)
            break;
        id[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            merged[i - 1] = merged[i];
        }
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const merge_slot *m = merge_at(t, id[i], id[i + 1]);
            rank[i] = m->rank;
            merged[i] = m->merged;
        }
    }
    for (size_t i = 0; i < n; i++)
        ids->data[ids->n++] = id[i];
}

static bool before(candidate a, candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(candidate *heap, size_t *n, candidate c)
{
    size_t i = (*n)++;

    while (i > 0 && before(c, heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static candidate heap_pop(candidate *heap, size_t *n)
{
    candidate top = heap[0], last = heap[--*n];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < *n) {
        if (child + 1 < *n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], last))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void push_pair(const fv_tokenizer *t, const symbol *s, int32_t at, candidate *heap, size_t *n_heap)
{
    const merge_slot *m = merge_at(t, s[at].id, s[s[at].next].id);

    if (m->left >= 0)
        heap_push(heap, n_heap, (candidate){ m->rank, (uint32_t)at, m->merged });
}

/* A long word: candidates in a heap, n log n. A candidate is stale when its place was merged away or
 * its pair has changed; a pair at one place only ever gets longer, so comparing what it would merge
 * into tells. */
static void encode_long(const fv_tokenizer *t, const uint8_t *word, size_t n, scratch *x, fv_ids *ids)
{
    symbol *s = x->symbols;
    size_t n_heap = 0;

    for (size_t i = 0; i < n; i++)
        s[i] = (symbol){ t->byte_id[word[i]], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1 };
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(t, s, (int32_t)i, x->heap, &n_heap);
    while (n_heap > 0) {
        candidate c = heap_pop(x->heap, &n_heap);
        symbol *left = &s[c.at];
        if (left->id < 0 || left->next < 0)
            continue;
        symbol *right = &s[left->next];
        if (merge_at(t, left->id, right->id)->merged != c.merged)
            continue;
        left->id = c.merged;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0) {
            s[left->next].prev = (int32_t)c.at;
            push_pair(t, s, (int32_t)c.at, x->heap, &n_heap);
        }
        if (left->prev >= 0)
            push_pair(t, s, left->prev, x->heap, &n_heap);
        assert(n_heap <= 3 * x->capacity);
    }
    for (int32_t i = 0; i >= 0; i = s[i].next)
        ids->data[ids->n++] = s[i].id;
}

static fv_status encode_word(const fv_tokenizer *t, const char *word, size_t n, scratch *x, fv_ids *ids, fv_error *err)
{
    FV_TRY(ids_reserve(ids, n, err));
    if (n <= SHORT_WORD) {
        encode_short(t, (const uint8_t *)word, n, ids);
        return FV_OK;
    }
    if (n > x->capacity) {
        fv_free(x->symbols);
        fv_free(x->heap);
        x->capacity = 0;
        x->symbols = fv_alloc(n, sizeof *x->symbols);
        x->heap = fv_alloc(n, 3 * sizeof *x->heap);
        if (!x->symbols || !x->heap)
            return fv_fail_memory(err, n * (sizeof *x->symbols + 3 * sizeof *x->heap), "a long word");
        x->capacity = n;
    }
    encode_long(t, (const uint8_t *)word, n, x, ids);
    return FV_OK;
}

/* ---- text -> ids ---- */

static fv_status encode_piece(const fv_tokenizer *t, const char *text, size_t n_bytes, scratch *x, fv_ids *ids,
                              fv_error *err)
{
    if (!fv_is_nfc_quick(text, n_bytes)) {
        FV_TRY(fv_nfc_normalize(&x->nfc, text, n_bytes, err));
        text = x->nfc.text;
        n_bytes = x->nfc.n_text;
    }
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = fv_word_length(text + at, n_bytes - at);
        FV_TRY(encode_word(t, text + at, n, x, ids, err));
    }
    return FV_OK;
}

/* The longest added token that text begins with, or NULL: the sorted list is narrowed to those that
 * agree in one byte more, and a token that ends there comes first among them. */
static const added_token *added_at(const fv_tokenizer *t, const uint8_t *text, size_t n_bytes)
{
    const added_token *low = t->added, *high = low + t->n_added, *found = NULL;

    for (size_t depth = 0; low < high && depth < n_bytes; depth++) {
        const added_token *a = low, *b = high;
        while (a < b) { /* first with a byte >= text[depth] here */
            const added_token *mid = a + (b - a) / 2;
            if (mid->n <= depth || mid->text[depth] < text[depth])
                a = mid + 1;
            else
                b = mid;
        }
        low = a;
        b = high;
        while (a < b) { /* first with a greater one */
            const added_token *mid = a + (b - a) / 2;
            if (mid->text[depth] <= text[depth])
                a = mid + 1;
            else
                b = mid;
        }
        high = a;
        if (low < high && low->n == depth + 1)
            found = low;
    }
    return found;
}

fv_status fv_tokenizer_encode(const fv_tokenizer *t, const char *text, size_t n_bytes, fv_ids *ids, fv_error *err)
{
    fv_status status = FV_OK;
    scratch x = { 0 };
    size_t n_before = ids->n, piece = 0, at = 0, bad_at;

    if (n_bytes > MAX_TEXT_BYTES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "the text has %zu bytes, at most %d are allowed", n_bytes, MAX_TEXT_BYTES);
    if (!fv_utf8_valid(text, n_bytes, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at, "the text is not valid UTF-8: byte 0x%02x at offset %zu",
                       (unsigned)(uint8_t)text[bad_at], bad_at);
    while (at < n_bytes) {
        const added_token *a = NULL;
        if (t->starts_added[(uint8_t)text[at]])
            a = added_at(t, (const uint8_t *)text + at, n_bytes - at);
        if (!a) {
            at++;
            continue;
        }
        FV_TRY_GOTO(encode_piece(t, text + piece, at - piece, &x, ids, err));
        FV_TRY_GOTO(fv_ids_push(ids, a->id, err));
        at += a->n;
        piece = at;
    }
    FV_TRY_GOTO(encode_piece(t, text + piece, n_bytes - piece, &x, ids, err));
fail:
    if (status != FV_OK)
        ids->n = n_before;
    fv_nfc_free(&x.nfc);
    fv_free(x.symbols);
    fv_free(x.heap);
    return status;
}

/* ---- ids -> text ---- */

bool fv_tokenizer_has(const fv_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens && t->kind[id] != FV_TOKEN_NONE;
}

const char *fv_tokenizer_bytes(const fv_tokenizer *t, int32_t id, size_t *n_bytes)
{
    *n_bytes = 0;
    if (!fv_tokenizer_has(t, id))
        return NULL;
    *n_bytes = t->offset[id + 1] - t->offset[id];
    return (const char *)t->blob + t->offset[id];
}

bool fv_tokenizer_is_special(const fv_tokenizer *t, int32_t id)
{
    return fv_tokenizer_has(t, id) && t->kind[id] == FV_TOKEN_SPECIAL;
}

int32_t fv_tokenizer_find(const fv_tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    const added_token *found = added_at(t, (const uint8_t *)text, n);

    return found && found->n == n ? found->id : -1;
}

int32_t fv_tokenizer_size(const fv_tokenizer *t)
{
    return t->n_tokens;
}

size_t fv_tokenizer_max_bytes(const fv_tokenizer *t)
{
    return t->max_bytes;
}
