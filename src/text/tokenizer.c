/* Text to ids and ids to bytes, through the tables of tokenizer_tables.h.
 *
 *     text --added tokens--> pieces --NFC--> --added tokens--> pieces --words--> bytes --merges-->
 * ids
 *
 * Merging follows Hugging Face's `tokenizers`: of all adjacent pairs the one of lowest rank, of
 * equal ones the leftmost, until no pair has a rank. [Sennrich, Haddow, Birch 2016; GPT-2's
 * bytes] */
#include "text/tokenizer.h"

#include <assert.h>
#include <string.h>

#include "base/list.h"
#include "text/tokenizer_tables.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum {
    SHORT_WORD = 48,         /* bytes; longer words go through the heap */
    MAX_TEXT_BYTES = 1 << 28 /* positions are 32-bit, and NFC may take three times as many */
};

/* ---- ids ---- */

static fv_status ids_reserve(fv_ids *ids, size_t n_more, fv_error *err)
{
    return FV_LIST_ROOM(ids->data, ids->n, ids->capacity, n_more, err);
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

/* ---- words -> ids ---- */

typedef struct symbol {
    int32_t id;         /* -1: merged into an earlier one */
    int32_t prev, next; /* -1: none */
} symbol;

typedef struct candidate {
    uint32_t rank, at; /* the pair that begins with symbol `at` */
    int32_t merged;
} candidate;

/* What one call of encode needs besides the ids. */
typedef struct scratch {
    fv_nfc nfc;
    symbol *symbols; /* [capacity] */
    candidate *heap; /* [3 * capacity]: a pair for each symbol, two more for each merge */
    size_t capacity;
} scratch;

/* A word of a few bytes: look for the best pair anew after each merge. */
static void encode_short(const fv_tokenizer *t, const uint8_t *word, size_t n, fv_ids *ids)
{
    int32_t id[SHORT_WORD], merged[SHORT_WORD];
    uint32_t rank[SHORT_WORD];

    for (size_t i = 0; i < n; i++)
        id[i] = t->byte_id[word[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        const fv_merge_slot *m = fv_merge_at(t, id[i], id[i + 1]);
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
            const fv_merge_slot *m = fv_merge_at(t, id[i], id[i + 1]);
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

static void push_pair(const fv_tokenizer *t, const symbol *s, int32_t at, candidate *heap,
                      size_t *n_heap)
{
    const fv_merge_slot *m = fv_merge_at(t, s[at].id, s[s[at].next].id);

    if (m->left >= 0)
        heap_push(heap, n_heap, (candidate){ m->rank, (uint32_t)at, m->merged });
}

/* A long word: candidates in a heap, n log n. A candidate is stale when its place was merged away
 * or its pair has changed; a pair at one place only ever gets longer, so comparing what it would
 * merge into tells. */
static void encode_long(const fv_tokenizer *t, const uint8_t *word, size_t n, scratch *x,
                        fv_ids *ids)
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
        if (fv_merge_at(t, left->id, right->id)->merged != c.merged)
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

static fv_status encode_word(const fv_tokenizer *t, const char *word, size_t n, scratch *x,
                             fv_ids *ids, fv_error *err)
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
            return fv_fail_memory(err, n * (sizeof *x->symbols + 3 * sizeof *x->heap),
                                  "a long word");
        x->capacity = n;
    }
    encode_long(t, (const uint8_t *)word, n, x, ids);
    return FV_OK;
}

/* ---- text -> ids ---- */

static fv_status encode_words(const fv_tokenizer *t, const char *text, size_t n_bytes, scratch *x,
                              fv_ids *ids, fv_error *err)
{
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = fv_word_length(text + at, n_bytes - at);
        FV_TRY(encode_word(t, text + at, n, x, ids, err));
    }
    return FV_OK;
}

/* The longest added token that text begins with, or NULL: the sorted list is narrowed to those that
 * agree in one byte more, and a token that ends there comes first among them. */
static const fv_added_token *added_at(const fv_added_list *added, const uint8_t *text,
                                      size_t n_bytes)
{
    const fv_added_token *low = added->list, *high = low + added->n, *found = NULL;

    for (size_t depth = 0; low < high && depth < n_bytes; depth++) {
        const fv_added_token *a = low, *b = high;
        while (a < b) { /* first with a byte >= text[depth] here */
            const fv_added_token *mid = a + (b - a) / 2;
            if (mid->n <= depth || mid->text[depth] < text[depth])
                a = mid + 1;
            else
                b = mid;
        }
        low = a;
        b = high;
        while (a < b) { /* first with a greater one */
            const fv_added_token *mid = a + (b - a) / 2;
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

/* The next added token at or behind *at, which moves to its place; NULL, and the end, without one.
 * */
static const fv_added_token *added_next(const fv_added_list *added, const char *text,
                                        size_t n_bytes, size_t *at)
{
    const fv_added_token *found = NULL;

    for (; added->n && *at < n_bytes; ++*at)
        if (added->starts[(uint8_t)text[*at]] &&
            (found = added_at(added, (const uint8_t *)text + *at, n_bytes - *at)))
            return found;
    *at = n_bytes;
    return NULL;
}

/* Text between tokens of the first list; marks: those of the second are looked for. */
static fv_status encode_piece(const fv_tokenizer *t, const char *text, size_t n_bytes, bool marks,
                              scratch *x, fv_ids *ids, fv_error *err)
{
    const fv_added_token *found = NULL;

    if (!fv_is_nfc_quick(text, n_bytes)) {
        FV_TRY(fv_nfc_normalize(&x->nfc, text, n_bytes, err));
        text = x->nfc.text;
        n_bytes = x->nfc.n_text;
    }
    for (size_t piece = 0, at = 0; piece < n_bytes; piece = at += found ? found->n : 0) {
        at = marks ? at : n_bytes;
        found = added_next(&t->normalized, text, n_bytes, &at);
        FV_TRY(encode_words(t, text + piece, at - piece, x, ids, err));
        if (found)
            FV_TRY(fv_ids_push(ids, found->id, err));
    }
    return FV_OK;
}

/* marks: added tokens in the text are recognised. */
static fv_status encode_text(const fv_tokenizer *t, const char *text, size_t n_bytes, bool marks,
                             fv_ids *ids, fv_error *err)
{
    fv_status status = FV_OK;
    scratch x = { 0 };
    const fv_added_token *found = NULL;
    size_t n_before = ids->n, bad_at;

    if (n_bytes > MAX_TEXT_BYTES)
        return fv_fail(err, FV_ERR_LIMIT, 0, "the text has %zu bytes, up to %d are allowed",
                       n_bytes, MAX_TEXT_BYTES);
    if (!fv_utf8_valid(text, n_bytes, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at,
                       "the text is not valid UTF-8: byte 0x%02x at offset %zu",
                       (unsigned)(uint8_t)text[bad_at], bad_at);
    for (size_t piece = 0, at = 0; piece < n_bytes; piece = at += found ? found->n : 0) {
        at = marks ? at : n_bytes;
        found = added_next(&t->added, text, n_bytes, &at);
        FV_TRY_GOTO(encode_piece(t, text + piece, at - piece, marks, &x, ids, err));
        if (found)
            FV_TRY_GOTO(fv_ids_push(ids, found->id, err));
    }
fail:
    if (status != FV_OK)
        ids->n = n_before;
    fv_nfc_free(&x.nfc);
    fv_free(x.symbols);
    fv_free(x.heap);
    return status;
}

fv_status fv_tokenizer_encode(const fv_tokenizer *t, const char *text, size_t n_bytes, fv_ids *ids,
                              fv_error *err)
{
    return encode_text(t, text, n_bytes, true, ids, err);
}

fv_status fv_tokenizer_encode_words(const fv_tokenizer *t, const char *text, size_t n_bytes,
                                    fv_ids *ids, fv_error *err)
{
    return encode_text(t, text, n_bytes, false, ids, err);
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
    const fv_added_list *const lists[] = { &t->added, &t->normalized };
    size_t n = strlen(text);

    for (size_t i = 0; i < FV_COUNT(lists); i++) {
        const fv_added_token *found = added_at(lists[i], (const uint8_t *)text, n);
        if (found && found->n == n)
            return found->id;
    }
    return -1;
}

int32_t fv_tokenizer_size(const fv_tokenizer *t) { return t->n_tokens; }

size_t fv_tokenizer_max_bytes(const fv_tokenizer *t) { return t->max_bytes; }
