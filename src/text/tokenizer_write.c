/* A tokenizer back into the files that Hugging Face's tokenizers and transformers read. */
#include <stdlib.h>
#include <string.h>

#include "io/json_write.h"
#include "text/tokenizer_tables.h"

fv_token_kind fv_tokenizer_kind(const fv_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_tokens ? (fv_token_kind)t->kind[id] : FV_TOKEN_NONE;
}

bool fv_tokenizer_is_normalized(const fv_tokenizer *t, int32_t id)
{
    size_t i = 0;

    while (i < t->normalized.n && t->normalized.list[i].id != id)
        i++;
    return i < t->normalized.n;
}

/* GPT-2's bytes_to_unicode; tokenizer_build.c has the other direction. */
static unsigned stand_in(unsigned byte)
{
    if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae)
        return byte;
    return 0x100 + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7f + 0x21 : 0x21 + 0x22);
}

size_t fv_tokenizer_stored_text(const fv_tokenizer *t, int32_t id, char *text)
{
    fv_token_kind kind = fv_tokenizer_kind(t, id);
    size_t n = 0, n_bytes = kind == FV_TOKEN_NONE ? 0 : t->offset[id + 1] - t->offset[id];
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned byte = t->blob[t->offset[id] + i],
                 c = kind == FV_TOKEN_NORMAL ? stand_in(byte) : 0;
        if (kind != FV_TOKEN_NORMAL) {
            text[n++] = (char)byte;
        } else if (c < 0x80) {
            text[n++] = (char)c;
        } else {
            text[n++] = (char)(0xc0 | c >> 6);
            text[n++] = (char)(0x80 | (c & 63));
        }
    }
    text[n] = 0;
    return n;
}

/* ---- merges ---- */

static int by_rank(const void *a, const void *b)
{
    const fv_merge_slot *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

fv_status fv_tokenizer_merges(const fv_tokenizer *t, fv_merge_ids **out, size_t *n, fv_error *err)
{
    fv_status status = FV_OK;
    fv_merge_slot *slots = fv_alloc(t->merge_mask + 1, sizeof *slots);
    *out = NULL;
    *n = 0;
    if (!slots)
        return fv_fail_memory(err, (t->merge_mask + 1) * sizeof *slots, "the merges");
    for (size_t i = 0; i <= t->merge_mask; i++)
        if (t->merges[i].left >= 0)
            slots[(*n)++] = t->merges[i];
    qsort(slots, *n, sizeof *slots, by_rank);
    if ((*out = fv_alloc(*n, sizeof **out)))
        for (size_t i = 0; i < *n; i++)
            (*out)[i] = (fv_merge_ids){ slots[i].left, slots[i].right };
    else
        status = fv_fail_memory(err, *n * sizeof **out, "the merges");
    fv_free(slots);
    return status;
}

/* ---- the files ---- */

typedef struct writer {
    const fv_tokenizer *t;
    const char *extra, *skip;
    char *left; /* room for a token's text */
    fv_merge_ids *merges;
    size_t n_merges;
} writer;

static void put_vocabulary(const writer *w, fv_json_text *j, const char *key)
{
    fv_json_begin(j, key, '{');
    for (int32_t id = 0; id < w->t->n_tokens; id++)
        if (w->t->kind[id] == FV_TOKEN_NORMAL) {
            fv_tokenizer_stored_text(w->t, id, w->left);
            fv_json_put_int(j, w->left, id);
        }
    fv_json_end(j);
}

static size_t merge_text(const writer *w, size_t i, char *text)
{
    size_t n = fv_tokenizer_stored_text(w->t, w->merges[i].left, text);
    text[n++] = ' ';
    return n + fv_tokenizer_stored_text(w->t, w->merges[i].right, text + n);
}

static void put_added(fv_json_text *j, const char *text, int32_t id, bool special, bool normalized,
                      bool full)
{
    if (!full) {
        fv_json_put_int(j, text, id);
        return;
    }
    fv_json_begin(j, NULL, '{');
    fv_json_put_int(j, "id", id);
    fv_json_put_text(j, "content", text);
    fv_json_put_bool(j, "single_word", false);
    fv_json_put_bool(j, "lstrip", false);
    fv_json_put_bool(j, "rstrip", false);
    fv_json_put_bool(j, "normalized", normalized);
    fv_json_put_bool(j, "special", special);
    fv_json_end(j);
}

static void put_all_added(const writer *w, fv_json_text *j, bool full)
{
    for (int32_t id = 0; id < w->t->n_tokens; id++) {
        if (w->t->kind[id] < FV_TOKEN_ADDED)
            continue;
        fv_tokenizer_stored_text(w->t, id, w->left);
        if (!w->skip || strcmp(w->skip, w->left))
            put_added(j, w->left, id, w->t->kind[id] == FV_TOKEN_SPECIAL,
                      fv_tokenizer_is_normalized(w->t, id), full);
    }
    if (w->extra && fv_tokenizer_find(w->t, w->extra) < 0)
        put_added(j, w->extra, w->t->n_tokens, true, false, full);
}

static void put_byte_level(fv_json_text *j, const char *key)
{
    fv_json_begin(j, key, '{');
    fv_json_put_text(j, "type", "ByteLevel");
    fv_json_put_bool(j, "add_prefix_space", false);
    fv_json_put_bool(j, "trim_offsets", false);
    fv_json_put_bool(j, "use_regex", false);
    fv_json_end(j);
}

/* Qwen2's words. [docs/tokenizer.md] */
static const char pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                              "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                              "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static void put_pre_tokenizer(fv_json_text *j)
{
    fv_json_begin(j, "pre_tokenizer", '{');
    fv_json_put_text(j, "type", "Sequence");
    fv_json_begin(j, "pretokenizers", '[');
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "type", "Split");
    fv_json_begin(j, "pattern", '{');
    fv_json_put_text(j, "Regex", pattern);
    fv_json_end(j);
    fv_json_put_text(j, "behavior", "Isolated");
    fv_json_put_bool(j, "invert", false);
    fv_json_end(j);
    put_byte_level(j, NULL);
    fv_json_end(j);
    fv_json_end(j);
}

/* Every merge is one string: a right part that holds a space cannot occur, a space being U+0120. */
static void put_model(const writer *w, fv_json_text *j, char *joined)
{
    fv_json_begin(j, "model", '{');
    fv_json_put_text(j, "type", "BPE");
    fv_json_put_text(j, "dropout", NULL);
    fv_json_put_text(j, "unk_token", NULL);
    fv_json_put_text(j, "continuing_subword_prefix", "");
    fv_json_put_text(j, "end_of_word_suffix", "");
    fv_json_put_bool(j, "fuse_unk", false);
    fv_json_put_bool(j, "byte_fallback", false);
    put_vocabulary(w, j, "vocab");
    fv_json_begin(j, "merges", '[');
    for (size_t i = 0; i < w->n_merges; i++) {
        merge_text(w, i, joined);
        fv_json_put_text(j, NULL, joined);
    }
    fv_json_end(j);
    fv_json_end(j);
}

static void put_tokenizer(const writer *w, fv_json_text *j, char *joined)
{
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "version", "1.0");
    fv_json_put_text(j, "truncation", NULL);
    fv_json_put_text(j, "padding", NULL);
    fv_json_begin(j, "added_tokens", '[');
    put_all_added(w, j, true);
    fv_json_end(j);
    fv_json_begin(j, "normalizer", '{');
    fv_json_put_text(j, "type", "NFC");
    fv_json_end(j);
    put_pre_tokenizer(j);
    put_byte_level(j, "post_processor");
    put_byte_level(j, "decoder");
    put_model(w, j, joined);
    fv_json_end(j);
}

fv_status fv_tokenizer_write(const fv_tokenizer *t, fv_token_file which, const char *extra,
                             const char *skip, char **text, size_t *n, fv_error *err)
{
    writer w = { .t = t, .extra = extra, .skip = skip };
    fv_json_text j = { .compact = which != FV_FILE_ADDED_TOKENS_JSON };
    size_t room = 2 * t->max_bytes + 1;
    fv_status status = FV_OK;
    char *joined = fv_alloc(2, room);
    w.left = fv_alloc(room, 1);
    if (!joined || !w.left) {
        status = fv_fail_memory(err, 3 * room, "the text of a token");
        goto fail;
    }
    FV_TRY_GOTO(fv_tokenizer_merges(t, &w.merges, &w.n_merges, err));
    if (which == FV_FILE_TOKENIZER_JSON) {
        put_tokenizer(&w, &j, joined);
    } else if (which == FV_FILE_VOCAB_JSON) {
        put_vocabulary(&w, &j, NULL);
    } else if (which == FV_FILE_ADDED_TOKENS_JSON) {
        fv_json_begin(&j, NULL, '{');
        put_all_added(&w, &j, false);
        fv_json_end(&j);
    } else {
        fv_json_line(&j, "#version: 0.2", 13);
        for (size_t i = 0; i < w.n_merges; i++)
            fv_json_line(&j, joined, merge_text(&w, i, joined));
    }
    if (which == FV_FILE_MERGES_TXT && j.failed)
        status = fv_fail_memory(err, j.n, "merges.txt");
    else if (which != FV_FILE_MERGES_TXT)
        status = fv_json_done(&j, err);
fail:
    fv_free(w.merges);
    fv_free(w.left);
    fv_free(joined);
    if (status != FV_OK) {
        fv_json_text_free(&j);
        return status;
    }
    *text = j.text;
    *n = j.n;
    return FV_OK;
}
