/* tokenizer: Qwen2's byte-level BPE, text <-> ids.
 *
 *     UTF-8 text -> added tokens cut out -> NFC -> words (regex) -> bytes -> merges by rank -> ids
 *
 * docs/tokenizer.md describes the steps and how they were checked. A tokenizer is immutable after
 * loading; any number of threads may use it. */
#ifndef FV_TOKENIZER_H
#define FV_TOKENIZER_H

#include "base/base.h"

typedef struct fv_tokenizer fv_tokenizer;

/* A list of ids that grows. Zero-initialise; fv_ids_free when done; n = 0 empties it. */
typedef struct fv_ids {
    int32_t *data;
    size_t n, capacity;
} fv_ids;

fv_status fv_ids_push(fv_ids *ids, int32_t id, fv_error *err);
void fv_ids_free(fv_ids *ids);

/* ---- loading ---- */

/* Reads the tokenizer of a checkpoint directory: tokenizer.json, or where there is none, or it is
 * damaged, vocab.json and merges.txt; and the added tokens of tokenizer_config.json,
 * added_tokens.json and special_tokens_map.json. Where two files contradict each other, the
 * callbacks (may be NULL) get a warning. */
fv_status fv_tokenizer_load_dir(fv_tokenizer **out, const char *dir, const fv_callbacks *callbacks,
                                fv_error *err);

/* Bytes with a length; not NUL-terminated. data == NULL means absent. */
typedef struct fv_slice {
    const char *data;
    size_t n;
} fv_slice;

/* The same from memory, read only during the call: tokenizer.json, or vocab.json and merges.txt;
 * the others may be absent. */
typedef struct fv_tokenizer_files {
    fv_slice tokenizer_json;
    fv_slice vocab_json, merges_txt;
    fv_slice added_tokens_json, tokenizer_config_json, special_tokens_map_json;
    const fv_callbacks *callbacks;
} fv_tokenizer_files;

fv_status fv_tokenizer_load(fv_tokenizer **out, const fv_tokenizer_files *files, fv_error *err);

typedef enum fv_token_kind {
    FV_TOKEN_NONE = 0, /* the id has no token */
    FV_TOKEN_NORMAL,   /* text in stand-in characters (U+0120 for space, ...) */
    FV_TOKEN_ADDED,    /* plain text, cut out before everything else, shown when decoded */
    FV_TOKEN_SPECIAL   /* the same, not shown */
} fv_token_kind;

typedef struct fv_token_source {
    fv_slice text;
    uint8_t kind;    /* fv_token_kind */
    bool normalized; /* an added token that is looked for after NFC */
} fv_token_source;

typedef struct fv_merge_source {
    fv_slice left, right; /* stand-in characters */
} fv_merge_source;

/* Builds a tokenizer from arrays (a GGUF file has them); the index is the id, the order of merges
 * their rank. Everything is copied. name is what messages call the source. Fails by name on a text
 * that two ids share, a missing single-byte token, a merge of or into an unknown token. */
fv_status fv_tokenizer_build(fv_tokenizer **out, const fv_token_source *tokens, size_t n_tokens,
                             const fv_merge_source *merges, size_t n_merges, const char *name,
                             fv_error *err);
/* "left right" -> the pair; false when there is not exactly one space with text on both sides. */
bool fv_merge_split(fv_slice line, fv_merge_source *out);

void fv_tokenizer_free(fv_tokenizer *t);

/* ---- text -> ids ---- */

/* Appends the ids of text to *ids. Added and special tokens inside the text are recognised, as the
 * reference does. Invalid UTF-8 is FV_ERR_FORMAT with its offset. On failure *ids is unchanged. */
fv_status fv_tokenizer_encode(const fv_tokenizer *t, const char *text, size_t n_bytes, fv_ids *ids,
                              fv_error *err);
/* The same for text whose author must not be able to write control marks: added and special tokens
 * in it are words like any other. */
fv_status fv_tokenizer_encode_words(const fv_tokenizer *t, const char *text, size_t n_bytes,
                                    fv_ids *ids, fv_error *err);

/* ---- ids -> text ---- */

/* The bytes of an id (for added tokens their text), not NUL-terminated, borrowed; NULL when the id
 * has no token. */
const char *fv_tokenizer_bytes(const fv_tokenizer *t, int32_t id, size_t *n_bytes);
bool fv_tokenizer_has(const fv_tokenizer *t, int32_t id);
bool fv_tokenizer_is_special(const fv_tokenizer *t, int32_t id); /* not part of shown text */
/* The id of an added or special token by its text ("<|im_end|>"), or -1. */
int32_t fv_tokenizer_find(const fv_tokenizer *t, const char *text);
int32_t fv_tokenizer_size(const fv_tokenizer *t);     /* highest id + 1 = len(tokenizer) */
size_t fv_tokenizer_max_bytes(const fv_tokenizer *t); /* longest fv_tokenizer_bytes */

/* ---- writing it down again (tokenizer_write.c) ---- */

fv_token_kind fv_tokenizer_kind(const fv_tokenizer *t, int32_t id);
/* An added token that is looked for after NFC. */
bool fv_tokenizer_is_normalized(const fv_tokenizer *t, int32_t id);
/* The text of a token as vocab.json has it: stand-in characters, added tokens as they are. text has
 * room for 2 * fv_tokenizer_max_bytes + 1; gets a NUL. Returns its length; 0 for an id without a
 * token. */
size_t fv_tokenizer_stored_text(const fv_tokenizer *t, int32_t id, char *text);

typedef struct fv_merge_ids {
    int32_t left, right;
} fv_merge_ids;

/* The merges in the order of their rank, in a block to fv_free. */
fv_status fv_tokenizer_merges(const fv_tokenizer *t, fv_merge_ids **out, size_t *n, fv_error *err);

/* The files of a checkpoint, as text in a block to fv_free. extra, which may be NULL, is one more
 * special token with the id fv_tokenizer_size ("<image>" of the fast_vlm layout); it is left out
 * where the tokenizer has one of that text. skip (may be NULL) is the text of one to leave out. */
typedef enum fv_token_file {
    FV_FILE_TOKENIZER_JSON,
    FV_FILE_VOCAB_JSON,
    FV_FILE_MERGES_TXT,
    FV_FILE_ADDED_TOKENS_JSON
} fv_token_file;

fv_status fv_tokenizer_write(const fv_tokenizer *t, fv_token_file which, const char *extra,
                             const char *skip, char **text, size_t *n, fv_error *err);

#endif
