/* Building a tokenizer's tables from a vocabulary, merges and added tokens, wherever they come
 * from.
 *
 *     texts in stand-in characters -> bytes in one blob; a table text -> id
 *     merges: (left, right) texts  -> ids, through that table, which is then dropped
 *     added tokens                 -> two sorted lists */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_tables.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum {
    MAX_TOKENS = 1 << 20,
    MAX_MERGES = 1 << 22,
    MAX_VOCAB_BYTES = 1 << 30 /* offsets are 32-bit */
};

/* ---- stand-in characters ---- */

/* GPT-2's bytes_to_unicode: bytes 21-7E, A1-AC and AE-FF stand for themselves, the other 68 in
 * increasing order for U+0100, U+0101, ... */
enum { N_STAND_INS = 0x144 };

static void stand_in_table(int16_t byte_of[N_STAND_INS])
{
    int next = 0x100;

    for (int c = 0; c < N_STAND_INS; c++)
        byte_of[c] = -1;
    for (int byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
                      byte >= 0xae;
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
typedef struct shown {
    char text[48];
} shown;

static shown show(fv_slice text)
{
    shown s;
    size_t used = 0, at = 0;

    while (at < text.n) {
        bool complete, truncated;
        size_t n = fv_utf8_step((const uint8_t *)text.data + at, text.n - at, &complete,
                                &truncated);
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

/* ---- text -> id ---- */

typedef struct text_slot {
    uint32_t tag;
    int32_t id; /* -1: empty */
} text_slot;

typedef struct text_index {
    text_slot *slots;
    size_t mask;
    const fv_token_source *tokens;
} text_index;

/* Eight bytes at a time. Not keyed: a hostile vocabulary can make the table slow, but its size
 * bounds by how much. */
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
        if (slot->tag == hash >> 32 && found->n == text.n &&
            memcmp(found->data, text.data, text.n) == 0)
            return slot;
    }
}

/* Looks up a batch of texts: id[i] is -1 for what is no token. A lookup is three dependent reads
 * from memory that no cache holds (slot, token, text), so each is asked for in all of them before
 * it is used in one: this more than halves the time to load a vocabulary. */
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

/* ---- merges ---- */

/* The smallest power of two that leaves at least a third of the slots empty. */
static size_t table_size(size_t n)
{
    size_t size = 16;

    while (size < n + n / 2 + 1)
        size *= 2;
    return size;
}

static fv_status unknown_part(size_t index, const fv_merge_source *m, fv_slice part,
                              const char *what, const char *name, fv_error *err)
{
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: merge %zu (\"%s\" \"%s\"): %s \"%s\" is not in the vocabulary", name,
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

/* The id of left + right, or -1. Merges and the tokens they make stand in the same order, so the
 * one after the last (guess) usually is it. joined has room for the longest token's text. */
static int32_t find_joined(const text_index *x, const fv_merge_source *m, int32_t guess,
                           int32_t n_tokens, char *joined, size_t longest)
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

static fv_status add_merges(fv_tokenizer *t, const text_index *x, const fv_merge_source *merges,
                            size_t n_merges, char *joined, size_t longest, const char *name,
                            fv_error *err)
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
            __builtin_prefetch(&t->merges[fv_merge_hash(id[2 * i], id[2 * i + 1]) & t->merge_mask],
                               1);
        for (size_t i = 0; i < n; i++) {
            const fv_merge_source *m = &merges[first + i];
            int32_t left = id[2 * i], right = id[2 * i + 1];
            if (left < 0)
                return unknown_part(first + i, m, m->left, "the left part", name, err);
            if (right < 0)
                return unknown_part(first + i, m, m->right, "the right part", name, err);
            int32_t merged = find_joined(x, m, guess, t->n_tokens, joined, longest);
            if (merged < 0)
                return fv_fail(
                    err, FV_ERR_FORMAT, 0,
                    "%s: merge %zu (\"%s\" \"%s\"): the merged text is not in the vocabulary", name,
                    first + i + 1, show(m->left).text, show(m->right).text);
            guess = merged + 1;
            /* Of equal pairs the last counts. */
            *fv_merge_at(t, left, right) = (fv_merge_slot){ left, right, (uint32_t)(first + i),
                                                            merged };
        }
    }
    return FV_OK;
}

/* ---- added tokens ---- */

static int compare_bytes(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b)
{
    int order = memcmp(a, b, FV_MIN(n_a, n_b));

    return order != 0 ? order : (n_a > n_b) - (n_a < n_b);
}

static int compare_added(const void *a, const void *b)
{
    const fv_added_token *x = a, *y = b;

    return compare_bytes(x->text, x->n, y->text, y->n);
}

/* Those of one list: added tokens whose ids are, or are not, among the n_normalized. */
static fv_status added_fill(fv_tokenizer *t, fv_added_list *list, bool normalized,
                            const int32_t *ids, size_t n_ids, fv_error *err)
{
    size_t n = 0, next = 0;

    for (int32_t id = 0; id < t->n_tokens; id++)
        n += t->kind[id] >= FV_TOKEN_ADDED;
    list->list = fv_alloc(n, sizeof *list->list);
    if (!list->list)
        return fv_fail_memory(err, n * sizeof *list->list, "the added tokens");
    for (int32_t id = 0; id < t->n_tokens; id++) {
        while (next < n_ids && ids[next] < id)
            next++;
        bool is_normalized = next < n_ids && ids[next] == id;
        if (t->kind[id] < FV_TOKEN_ADDED || is_normalized != normalized)
            continue;
        list->list[list->n++] = (fv_added_token){ t->blob + t->offset[id],
                                                  t->offset[id + 1] - t->offset[id], id };
        list->starts[t->blob[t->offset[id]]] = true;
    }
    qsort(list->list, list->n, sizeof *list->list, compare_added);
    return FV_OK;
}

static fv_status added_check(const fv_added_list *list, const char *name, fv_error *err)
{
    for (size_t i = 1; i < list->n; i++) {
        const fv_added_token *a = &list->list[i];
        if (compare_added(a - 1, a) == 0)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: added tokens %" PRId32 " and %" PRId32 " are both \"%s\"", name,
                           a[-1].id, a->id, show((fv_slice){ (const char *)a->text, a->n }).text);
    }
    return FV_OK;
}

fv_status fv_tokenizer_add_added(fv_tokenizer *t, const int32_t *normalized, size_t n_normalized,
                                 const char *name, fv_error *err)
{
    FV_TRY(added_fill(t, &t->added, false, normalized, n_normalized, err));
    FV_TRY(added_fill(t, &t->normalized, true, normalized, n_normalized, err));
    FV_TRY(added_check(&t->added, name, err));
    FV_TRY(added_check(&t->normalized, name, err));
    /* they are compared with text in NFC */
    for (size_t i = 0; i < t->normalized.n; i++) {
        const fv_added_token *a = &t->normalized.list[i];
        if (!fv_is_nfc_quick((const char *)a->text, a->n))
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                           "%s: added token %" PRId32
                           " \"%s\": normalized is true; expected false, "
                           "or a text without accents",
                           name, a->id, show((fv_slice){ (const char *)a->text, a->n }).text);
    }
    return FV_OK;
}

/* ---- all of it ---- */

/* Fills blob, offset, kind, byte_id and the index. */
static fv_status add_tokens(fv_tokenizer *t, text_index *x, const fv_token_source *tokens,
                            const char *name, fv_error *err)
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
            __builtin_prefetch(
                &x->slots[hash_bytes(tokens[id + AHEAD].text.data, tokens[id + AHEAD].text.n) &
                          x->mask],
                1);
        t->offset[id] = (uint32_t)used;
        t->kind[id] = tokens[id].kind;
        if (tokens[id].kind == FV_TOKEN_NONE)
            continue;
        if (text.n == 0)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the text of token %" PRId32 " is empty",
                           name, id);
        if (tokens[id].kind == FV_TOKEN_NORMAL) {
            uint64_t hash = hash_bytes(text.data, text.n);
            text_slot *slot = index_slot(x, text, hash);
            if (slot->id >= 0)
                return fv_fail(err, FV_ERR_FORMAT, 0,
                               "%s: tokens %" PRId32 " and %" PRId32 " are both \"%s\"", name,
                               slot->id, id, show(text).text);
            *slot = (text_slot){ (uint32_t)(hash >> 32), id };
            n = stand_ins_to_bytes(byte_of, text, t->blob + used);
            if (n == SIZE_MAX)
                return fv_fail(err, FV_ERR_FORMAT, 0,
                               "%s: token %" PRId32
                               " \"%s\" contains a character that does not stand for a byte",
                               name, id, show(text).text);
            if (n == 1)
                t->byte_id[t->blob[used]] = id;
        } else {
            size_t bad_at;
            if (!fv_utf8_valid(text.data, text.n, &bad_at))
                return fv_fail(err, FV_ERR_FORMAT, 0,
                               "%s: added token %" PRId32 " \"%s\" is not valid UTF-8", name, id,
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
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: the vocabulary has no token for the single byte 0x%02x", name,
                           (unsigned)byte);
    return FV_OK;
}

fv_status fv_tokenizer_build(fv_tokenizer **out, const fv_token_source *tokens, size_t n_tokens,
                             const fv_merge_source *merges, size_t n_merges, const char *name,
                             fv_error *err)
{
    fv_status status = FV_OK;
    text_index x = { .tokens = tokens };
    char *joined = NULL;
    size_t n_text = 0, longest = 0, n_normalized = 0;
    int32_t *normalized = NULL;

    *out = NULL;
    while (n_tokens > 0 && tokens[n_tokens - 1].kind == FV_TOKEN_NONE)
        n_tokens--;
    if (n_tokens > MAX_TOKENS)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu tokens, up to %d are allowed", name, n_tokens,
                       MAX_TOKENS);
    if (n_merges > MAX_MERGES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu merges, up to %d are allowed", name, n_merges,
                       MAX_MERGES);
    for (size_t i = 0; i < n_tokens; i++) {
        n_text += tokens[i].text.n;
        longest = FV_MAX(longest, tokens[i].text.n);
        if (n_text > MAX_VOCAB_BYTES)
            return fv_fail(err, FV_ERR_LIMIT, 0,
                           "%s: the texts of the tokens have more than %d bytes", name,
                           MAX_VOCAB_BYTES);
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
    normalized = fv_alloc(n_tokens, sizeof *normalized);
    t->merges = fv_alloc(t->merge_mask + 1, sizeof *t->merges);
    x.slots = fv_alloc(x.mask + 1, sizeof *x.slots);
    joined = fv_alloc(longest, 1);
    if (!t->blob || !t->offset || !t->kind || !normalized || !t->merges || !x.slots || !joined) {
        status = fv_fail_memory(err,
                                n_text + n_tokens * 5 + (t->merge_mask + 1) * sizeof *t->merges +
                                    (x.mask + 1) * sizeof *x.slots,
                                "tokenizer");
        goto done;
    }
    for (size_t i = 0; i < n_tokens; i++)
        if (tokens[i].kind >= FV_TOKEN_ADDED && tokens[i].normalized)
            normalized[n_normalized++] = (int32_t)i;
    memset(x.slots, -1, (x.mask + 1) * sizeof *x.slots);
    memset(t->merges, -1, (t->merge_mask + 1) * sizeof *t->merges);
    if ((status = add_tokens(t, &x, tokens, name, err)) == FV_OK &&
        (status = add_merges(t, &x, merges, n_merges, joined, longest, name, err)) == FV_OK)
        status = fv_tokenizer_add_added(t, normalized, n_normalized, name, err);
done:
    fv_free(normalized);
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
    if (!t->mapped) {
        fv_free(t->blob);
        fv_free(t->offset);
        fv_free(t->merges);
    }
    fv_free(t->kind);
    fv_free(t->added.list);
    fv_free(t->normalized.list);
    fv_free(t);
}
