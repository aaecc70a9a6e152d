/* The tokenizer's files: tokenizer.json, or vocab.json + merges.txt, and added tokens.
 *
 *     tokenizer.json           all of it in one object [Hugging Face tokenizers]
 *     vocab.json               {"!": 0, "\"": 1, ...}                        text (stand-ins) -> id
 *     merges.txt               "#version: 0.2", then "left right" lines      order = rank
 *     tokenizer_config.json    added_tokens_decoder {"151645": {content, special, ...}}, and which
 *                              tokens are the special ones
 *     added_tokens.json        {"<|im_end|>": 151645, ...}                   text -> id
 *     special_tokens_map.json  the special ones, once more
 *
 * Apple's checkpoints have vocab.json, merges.txt and added_tokens.json; a checkpoint saved by
 * transformers 5 has tokenizer.json; many have all of them. Then tokenizer.json, which is whole,
 * counts, and what contradicts it is said. The texts stay slices of the mapped files until
 * fv_tokenizer_build copies what it keeps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/report.h"
#include "base/sniff.h"
#include "io/json.h"
#include "io/json_scan.h"
#include "io/settings.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

enum {
    MAX_ID = (1 << 20) - 1,
    MAX_SMALL_FILE = 16 << 20, /* added_tokens.json, tokenizer_config.json */
    MAX_SETTING = 4096         /* bytes of a member of "model" that is a setting */
};

/* What the files gave so far. */
typedef struct source {
    fv_token_source *tokens; /* [token_capacity], kind NONE where nothing was named */
    fv_merge_source *merges;
    size_t n_tokens, token_capacity, n_merges, merge_capacity;
    const fv_callbacks *callbacks;
} source;

/* ---- collecting ---- */

/* Later kinds override: a token of the vocabulary may be declared an added one with the same
 * text. */
static fv_status files_put_token(source *s, int64_t id, fv_slice text, fv_token_kind kind,
                                 const char *name, fv_error *err)
{
    size_t at = (size_t)id;

    if (at >= s->token_capacity) {
        size_t before = s->token_capacity;
        FV_TRY(FV_LIST_ROOM(s->tokens, before, s->token_capacity, at + 1 - before, err));
        memset(s->tokens + before, 0, (s->token_capacity - before) * sizeof *s->tokens);
    }
    fv_token_source *token = &s->tokens[at];
    if (token->kind != FV_TOKEN_NONE && (kind == FV_TOKEN_NORMAL || token->text.n != text.n ||
                                         memcmp(token->text.data, text.data, text.n) != 0))
        return fv_fail(
            err, FV_ERR_FORMAT, 0, "%s: id %zu is assigned to both \"%.*s\" and \"%.*s\"", name, at,
            (int)FV_MIN(token->text.n, 40), token->text.data, (int)FV_MIN(text.n, 40), text.data);
    *token = (fv_token_source){ text, (uint8_t)kind, false };
    s->n_tokens = FV_MAX(s->n_tokens, at + 1);
    return FV_OK;
}

static fv_status put_merge(source *s, fv_merge_source merge, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(s->merges, s->n_merges, s->merge_capacity, 1, err));
    s->merges[s->n_merges++] = merge;
    return FV_OK;
}

/* ---- vocab.json, merges.txt ---- */

static fv_status scan_vocab(fv_scan *scan, source *s, fv_error *err)
{
    bool first, more;
    fv_slice text;
    int64_t id;

    FV_TRY(fv_scan_open(scan, '{', &first, err));
    for (;;) {
        FV_TRY(fv_scan_more(scan, '}', &first, &more, err));
        if (!more)
            return FV_OK;
        FV_TRY(fv_scan_key(scan, &text.data, &text.n, err));
        FV_TRY(fv_scan_int(scan, 0, MAX_ID, &id, err));
        FV_TRY(files_put_token(s, id, text, FV_TOKEN_NORMAL, scan->name, err));
    }
}

static fv_status bad_merge(const char *name, size_t number, fv_slice line, fv_error *err)
{
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: %zu: expected \"left right\", found \"%.*s\"", name,
                   number, (int)FV_MIN(line.n, 40), line.data);
}

static fv_status files_read_merges(fv_slice text, const char *name, source *s, fv_error *err)
{
    static const char version[] = "#version:";
    const char *at = text.data, *end = at + text.n;

    for (size_t number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        fv_slice line = { at, (size_t)((newline ? newline : end) - at) };
        fv_merge_source merge;
        at = newline ? newline + 1 : end;
        if (line.n > 0 && line.data[line.n - 1] == '\r') /* a file that passed through Windows */
            line.n--;
        if (line.n == 0 || (number == 1 && line.n >= sizeof version - 1 &&
                            memcmp(line.data, version, sizeof version - 1) == 0))
            continue;
        if (!fv_merge_split(line, &merge))
            return bad_merge(name, number, line, err);
        FV_TRY(put_merge(s, merge, err));
    }
    return FV_OK;
}

/* ---- added tokens ---- */

static fv_status check_id(const char *name, const char *text, bool is_id, int64_t id, fv_error *err)
{
    if (is_id && id >= 0 && id <= MAX_ID)
        return FV_OK;
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: \"%s\": expected an id in [0, %d]", name, text,
                   MAX_ID);
}

static bool slices_equal(fv_slice a, fv_slice b)
{
    return a.n == b.n && !memcmp(a.data, b.data, a.n);
}

static bool slice_is(fv_slice slice, const char *text)
{
    return slice.n == strlen(text) && memcmp(slice.data, text, slice.n) == 0;
}

/* The token with this text, added or not; NULL: none. */
static fv_token_source *source_find(const source *s, const char *text)
{
    for (size_t i = 0; i < s->n_tokens; i++)
        if (s->tokens[i].kind != FV_TOKEN_NONE && slice_is(s->tokens[i].text, text))
            return &s->tokens[i];
    return NULL;
}

/* A token of a lesser source: where a greater one has another text for this id, or another id for
 * this text, that one counts. */
static fv_status put_lesser(source *s, int64_t id, const char *text, fv_token_kind kind,
                            const char *name, fv_error *err)
{
    const fv_token_source *same = source_find(s, text),
                          *there = (size_t)id < s->n_tokens && s->tokens[id].kind != FV_TOKEN_NONE
                                       ? &s->tokens[id]
                                       : NULL;
    if (same == there)
        return files_put_token(s, id, (fv_slice){ text, strlen(text) }, kind, name, err);
    if (same)
        fv_log(s->callbacks, FV_LOG_WARNING,
               "%s: \"%s\" has the id %" PRId64 ", and %zu in another file, which counts", name,
               text, id, (size_t)(same - s->tokens));
    else
        fv_log(s->callbacks, FV_LOG_WARNING,
               "%s: id %" PRId64 " is \"%s\", and \"%.*s\" in another file, which counts", name, id,
               text, (int)FV_MIN(there->text.n, 40), there->text.data);
    return FV_OK;
}

/* {"content": "<|endoftext|>", "special": true, "normalized": false, ...}. A greater source has
 * come before when `lesser`. */
static fv_status read_added_token(const fv_json *doc, const fv_json_value *entry, int64_t id,
                                  bool special, bool lesser, source *s, fv_error *err)
{
    const char *text;
    bool normalized = false;

    FV_TRY(fv_json_string(doc, entry, "content", &text, err));
    FV_TRY(fv_json_opt_bool(doc, entry, "special", &special, err));
    FV_TRY(fv_json_opt_bool(doc, entry, "normalized", &normalized, err));
    FV_TRY(fv_settings_check(FV_SETTINGS_ADDED_TOKEN, doc, entry, err));
    fv_token_kind kind = special ? FV_TOKEN_SPECIAL : FV_TOKEN_ADDED;
    FV_TRY(lesser ? put_lesser(s, id, text, kind, fv_json_name(doc), err)
                  : files_put_token(s, id, (fv_slice){ text, strlen(text) }, kind,
                                    fv_json_name(doc), err));
    if ((size_t)id < s->n_tokens && slice_is(s->tokens[id].text, text))
        s->tokens[id].normalized = normalized;
    return FV_OK;
}

/* added_tokens_decoder: {"151643": {"content": "<|endoftext|>", ...}, ...} */
static fv_status read_decoder(const fv_json *config, bool lesser, source *s, fv_error *err)
{
    const fv_json_value *decoder = NULL, *entry;
    const char *key, *name = fv_json_name(config);
    void *iter = NULL;

    FV_TRY(fv_json_opt_object(config, fv_json_root(config), "added_tokens_decoder", &decoder, err));
    while (decoder && fv_json_next(decoder, &iter, &key, &entry)) {
        char *end;
        long long id = strtoll(key, &end, 10);
        FV_TRY(check_id(name, key, end > key && *end == '\0', id, err));
        if (fv_json_type_of(entry) != FV_JSON_OBJECT)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: added_tokens_decoder.%s: expected an object, found %s", name, key,
                           fv_json_type_name(entry));
        FV_TRY(read_added_token(config, entry, id, true, lesser, s, err));
    }
    return FV_OK;
}

/* added_tokens.json says nothing about which tokens are special; a token that nothing else names
 * is, as in Apple's checkpoints. */
static fv_status read_added(const fv_json *added, bool lesser, source *s, fv_error *err)
{
    const fv_json_value *value;
    const char *text;
    void *iter = NULL;

    while (fv_json_next(fv_json_root(added), &iter, &text, &value)) {
        const fv_token_source *same = source_find(s, text);
        int64_t id = 0;
        bool is_id = fv_json_as_int(value, &id), again = same && same->kind >= FV_TOKEN_ADDED;
        FV_TRY(check_id(fv_json_name(added), text, is_id, id, err));
        if (again && same - s->tokens == id)
            continue;
        FV_TRY(lesser || again ? put_lesser(s, id, text, FV_TOKEN_SPECIAL, fv_json_name(added), err)
                               : files_put_token(s, id, (fv_slice){ text, strlen(text) },
                                                 FV_TOKEN_SPECIAL, fv_json_name(added), err));
    }
    return FV_OK;
}

/* Whether words are made of this token: a byte's own, or one that merges know. */
static bool source_is_word(const source *s, const fv_token_source *token)
{
    const fv_slice *text = &token->text;

    if (token->kind != FV_TOKEN_NORMAL)
        return false;
    if (text->n == 1 || (text->n == 2 && (text->data[0] & 0x80)))
        return true;
    for (size_t i = 0; i < s->n_merges; i++) {
        const fv_merge_source *m = &s->merges[i];
        if (slices_equal(m->left, *text) || slices_equal(m->right, *text) ||
            (m->left.n + m->right.n == text->n && !memcmp(text->data, m->left.data, m->left.n) &&
             !memcmp(text->data + m->left.n, m->right.data, m->right.n)))
            return true;
    }
    return false;
}

/* A token by its text, or an object with "content": special, and where no file gives it an id, the
 * next one. [transformers tokenization_utils_base] */
static fv_status read_special(const fv_json_value *value, const char *name, source *s,
                              fv_error *err)
{
    const char *text = NULL;

    if (fv_json_type_of(value) == FV_JSON_OBJECT)
        value = fv_json_member(value, "content");
    if (!fv_json_as_string(value, &text) || !*text)
        return FV_OK;
    fv_token_source *token = source_find(s, text);
    if (token && source_is_word(s, token))
        fv_log(s->callbacks, FV_LOG_WARNING,
               "%s: the special token \"%s\" is one that words are made of, and stays one", name,
               text);
    else if (token)
        token->kind = FV_TOKEN_SPECIAL;
    if (token)
        return FV_OK;
    if (s->n_tokens > MAX_ID)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: no id is left for \"%s\"", name, text);
    return files_put_token(s, (int64_t)s->n_tokens, (fv_slice){ text, strlen(text) },
                           FV_TOKEN_SPECIAL, name, err);
}

/* The tokens with a part to play, then lists of more, under an old and a new name: an array, or an
 * object whose values are tokens. */
static fv_status read_specials(const fv_json *doc, source *s, fv_error *err)
{
    static const char *const keys[] = { "bos_token",           "eos_token",
                                        "unk_token",           "sep_token",
                                        "pad_token",           "cls_token",
                                        "mask_token",          "additional_special_tokens",
                                        "extra_special_tokens" };
    const char *key;

    for (size_t i = 0; i < FV_COUNT(keys); i++) {
        const fv_json_value *value = fv_json_member(fv_json_root(doc), keys[i]), *item;
        void *iter = NULL;
        for (size_t k = 0; k < fv_json_count(value) && fv_json_at(value, k); k++)
            FV_TRY(read_special(fv_json_at(value, k), fv_json_name(doc), s, err));
        if (i < FV_COUNT(keys) - 1)
            FV_TRY(read_special(value, fv_json_name(doc), s, err));
        else
            while (fv_json_next(value, &iter, &key, &item))
                FV_TRY(read_special(item, fv_json_name(doc), s, err));
    }
    return FV_OK;
}

/* ---- tokenizer.json ---- */

/* ["a b", ...] or [["a", "b"], ...] */
static fv_status scan_merges(fv_scan *scan, source *s, fv_error *err)
{
    bool first, more, inner_first;
    fv_merge_source merge;
    fv_slice line;

    FV_TRY(fv_scan_open(scan, '[', &first, err));
    for (size_t number = 1;; number++) {
        FV_TRY(fv_scan_more(scan, ']', &first, &more, err));
        if (!more)
            return FV_OK;
        if (fv_scan_peek(scan) == '[') {
            FV_TRY(fv_scan_open(scan, '[', &inner_first, err));
            FV_TRY(fv_scan_more(scan, ']', &inner_first, &more, err));
            FV_TRY(fv_scan_string(scan, &merge.left.data, &merge.left.n, err));
            FV_TRY(fv_scan_more(scan, ']', &inner_first, &more, err));
            FV_TRY(fv_scan_string(scan, &merge.right.data, &merge.right.n, err));
            FV_TRY(fv_scan_more(scan, ']', &inner_first, &more, err));
            if (more)
                return fv_scan_unexpected(scan, "the end of a pair", err);
        } else {
            FV_TRY(fv_scan_string(scan, &line.data, &line.n, err));
            if (!fv_merge_split(line, &merge))
                return bad_merge(scan->name, number, line, err);
        }
        FV_TRY(put_merge(s, merge, err));
    }
}

/* The members of tokenizer.json without the two large ones, as a document of its own: that one is
 * small, and its settings are looked up like those of any file. */
typedef struct small_text {
    char *text;
    size_t n, capacity;
} small_text;

static fv_status small_add(small_text *t, const char *text, size_t n, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(t->text, t->n, t->capacity, n, err));
    memcpy(t->text + t->n, text, n);
    t->n += n;
    return FV_OK;
}

/* "key": value, after the opening bracket or a comma. from, to: the member as it is written. */
static fv_status small_member(small_text *t, const char *from, const char *to, fv_error *err)
{
    if (t->text[t->n - 1] != '{')
        FV_TRY(small_add(t, ",", 1, err));
    return small_add(t, from, (size_t)(to - from), err);
}

static fv_status scan_model(fv_scan *scan, source *s, small_text *small, fv_error *err)
{
    static const char opening[] = "\"model\":{";
    bool first, more;
    fv_slice key;

    FV_TRY(fv_scan_open(scan, '{', &first, err));
    FV_TRY(small_member(small, opening, opening + sizeof opening - 1, err));
    for (;;) {
        FV_TRY(fv_scan_more(scan, '}', &first, &more, err));
        if (!more)
            return small_add(small, "}", 1, err);
        fv_scan_peek(scan);
        const char *from = scan->at;
        FV_TRY(fv_scan_key(scan, &key.data, &key.n, err));
        if (slice_is(key, "vocab")) {
            FV_TRY(scan_vocab(scan, s, err));
        } else if (slice_is(key, "merges")) {
            FV_TRY(scan_merges(scan, s, err));
        } else {
            FV_TRY(fv_scan_skip(scan, err));
            if (scan->at - from < MAX_SETTING)
                FV_TRY(small_member(small, from, scan->at, err));
        }
    }
}

/* The vocabulary and the merges into s, the rest into small. */
static fv_status scan_tokenizer(fv_scan *scan, source *s, small_text *small, fv_error *err)
{
    static const char *const read_later[] = { "added_tokens", "normalizer", "pre_tokenizer",
                                              "post_processor", "decoder" };
    bool first, more, has_model = false;
    fv_slice key;

    FV_TRY(small_add(small, "{", 1, err));
    FV_TRY(fv_scan_open(scan, '{', &first, err));
    for (;;) {
        FV_TRY(fv_scan_more(scan, '}', &first, &more, err));
        if (!more)
            break;
        fv_scan_peek(scan);
        const char *from = scan->at;
        FV_TRY(fv_scan_key(scan, &key.data, &key.n, err));
        if (slice_is(key, "model")) {
            FV_TRY(scan_model(scan, s, small, err));
            has_model = true;
            continue;
        }
        FV_TRY(fv_scan_skip(scan, err));
        for (size_t i = 0; i < FV_COUNT(read_later); i++)
            if (slice_is(key, read_later[i]))
                FV_TRY(small_member(small, from, scan->at, err));
    }
    FV_TRY(fv_scan_end(scan, err));
    if (!has_model)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: model is missing, expected an object",
                       scan->name);
    return small_add(small, "}", 1, err);
}

/* What stands under a key: the object itself, or those in its list when it is a "Sequence". Calls
 * check for each, in order. */
typedef struct stage_check {
    const fv_json *doc;
    size_t n; /* stages so far */
    fv_error *err;
} stage_check;

typedef fv_status stage_fn(stage_check *c, const fv_json_value *stage);

static fv_status walk_stages(stage_check *c, const fv_json_value *stage, const char *list,
                             stage_fn *fn)
{
    const char *type = "";

    if (fv_json_type_of(stage) != FV_JSON_OBJECT)
        return FV_OK;
    fv_json_as_string(fv_json_member(stage, "type"), &type);
    if (strcmp(type, "Sequence"))
        return fn(c, stage);
    const fv_json_value *items = fv_json_member(stage, list);
    for (size_t i = 0; i < fv_json_count(items); i++) {
        const fv_json_value *item = fv_json_at(items, i);
        fv_json_as_string(fv_json_member(item, "type"), &type);
        if (!strcmp(type, "Sequence"))
            return fv_json_unexpected(c->doc, item, "type", "no sequence inside another", c->err);
        FV_TRY(fn(c, item));
    }
    return FV_OK;
}

static bool stage_is(const fv_json_value *stage, const char *wanted)
{
    const char *type = "";

    return fv_json_as_string(fv_json_member(stage, "type"), &type) && !strcmp(type, wanted);
}

static fv_status check_normalizer(stage_check *c, const fv_json_value *stage)
{
    c->n++;
    return stage_is(stage, "NFC") ? FV_OK
                                  : fv_json_unexpected(c->doc, stage, "type", "\"NFC\"", c->err);
}

/* Qwen2's words. The code that cuts them knows only this pattern. */
static const char pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                              "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* A Split by the pattern, then the stand-ins for bytes. */
static fv_status check_pre_tokenizer(stage_check *c, const fv_json_value *stage)
{
    const char *found = "";

    c->n++;
    if (c->n == 2) {
        if (!stage_is(stage, "ByteLevel"))
            return fv_json_unexpected(c->doc, stage, "type", "\"ByteLevel\"", c->err);
        if (!fv_json_member(stage, "use_regex")) /* its default is true */
            return fv_json_unexpected(c->doc, stage, "use_regex", "false", c->err);
        return fv_settings_check(FV_SETTINGS_BYTE_LEVEL, c->doc, stage, c->err);
    }
    if (c->n > 2 || !stage_is(stage, "Split"))
        return fv_json_unexpected(c->doc, stage, "type",
                                  c->n > 2 ? "nothing behind \"ByteLevel\"" : "\"Split\"", c->err);
    FV_TRY(fv_settings_check(FV_SETTINGS_SPLIT, c->doc, stage, c->err));
    const fv_json_value *by = fv_json_member(stage, "pattern");
    fv_json_as_string(fv_json_member(by, "Regex"), &found);
    return strcmp(found, pattern)
               ? fv_json_unexpected(c->doc, by, "Regex", "Qwen2's pattern for words", c->err)
               : FV_OK;
}

/* ByteLevel moves only offsets; a template is fine that adds no token. */
static fv_status check_post_processor(stage_check *c, const fv_json_value *stage)
{
    const fv_json_value *single = fv_json_member(stage, "single");

    if (stage_is(stage, "ByteLevel"))
        return FV_OK;
    if (!stage_is(stage, "TemplateProcessing"))
        return fv_json_unexpected(c->doc, stage, "type", "\"ByteLevel\"", c->err);
    for (size_t i = 0; i < fv_json_count(single); i++)
        if (fv_json_member(fv_json_at(single, i), "SpecialToken"))
            return fv_json_unexpected(c->doc, stage, "single", "no special token", c->err);
    return FV_OK;
}

static fv_status check_decoder(stage_check *c, const fv_json_value *stage)
{
    c->n++;
    return stage_is(stage, "ByteLevel")
               ? FV_OK
               : fv_json_unexpected(c->doc, stage, "type", "\"ByteLevel\"", c->err);
}

/* Every stage of the pipeline is Qwen2's. Truncation and padding are switched off by transformers
 * at every call. */
static fv_status check_pipeline(const fv_json *doc, fv_error *err)
{
    static const struct pipeline_part {
        const char *key, *list;
        stage_fn *fn;
        size_t n; /* stages there must be */
        const char *expected;
    } parts[] = {
        { "normalizer", "normalizers", check_normalizer, 1, "NFC" },
        { "pre_tokenizer", "pretokenizers", check_pre_tokenizer, 2, "Split and ByteLevel" },
        { "post_processor", "processors", check_post_processor, 0, "" },
        { "decoder", "decoders", check_decoder, 1, "ByteLevel" },
    };
    const fv_json_value *root = fv_json_root(doc);

    for (size_t i = 0; i < FV_COUNT(parts); i++) {
        stage_check c = { doc, 0, err };
        FV_TRY(walk_stages(&c, fv_json_member(root, parts[i].key), parts[i].list, parts[i].fn));
        if (c.n < parts[i].n)
            return fv_json_unexpected(doc, root, parts[i].key, parts[i].expected, err);
    }
    return fv_settings_check(FV_SETTINGS_TOKENIZER_MODEL, doc, fv_json_member(root, "model"), err);
}

static fv_status read_own_added(const fv_json *doc, source *s, fv_error *err)
{
    const fv_json_value *list = NULL;

    FV_TRY(fv_json_opt_array(doc, fv_json_root(doc), "added_tokens", &list, err));
    for (size_t i = 0; i < fv_json_count(list); i++) {
        int64_t id;
        FV_TRY(fv_json_int(doc, fv_json_at(list, i), "id", 0, MAX_ID, &id, err));
        FV_TRY(read_added_token(doc, fv_json_at(list, i), id, false, false, s, err));
    }
    return FV_OK;
}

/* ---- from memory ---- */

/* What reading holds: texts of tokens lie in the files, in unescaped, and in the documents. */
typedef struct reading {
    const fv_tokenizer_files *files;
    source s;
    char *unescaped;
    fv_json *tokenizer, *config, *added, *map;
} reading;

static void reading_free(reading *r)
{
    fv_json_free(r->tokenizer);
    fv_json_free(r->config);
    fv_json_free(r->added);
    fv_json_free(r->map);
    fv_free(r->unescaped);
    fv_free(r->s.tokens);
    fv_free(r->s.merges);
}

/* text must not be empty and must be UTF-8. */
static fv_status check_text(fv_slice text, const char *name, fv_error *err)
{
    size_t bad_at;

    if (text.n == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the file is empty", name);
    FV_TRY(fv_refuse_foreign(text.data, text.n, name, FV_FILE_TEXT, "a tokenizer's file", err));
    if (!fv_utf8_valid(text.data, text.n, &bad_at))
        return fv_fail(err, FV_ERR_FORMAT, bad_at, "%s: byte %zu is not valid UTF-8", name, bad_at);
    return FV_OK;
}

/* Leaves *doc NULL when text is absent. */
static fv_status parse_optional(fv_json **doc, fv_slice text, const char *name, fv_error *err)
{
    *doc = NULL;
    if (!text.data)
        return FV_OK;
    if (text.n > MAX_SMALL_FILE)
        return fv_fail(err, FV_ERR_LIMIT, 0, "%s: %zu bytes, up to %d are allowed", name, text.n,
                       MAX_SMALL_FILE);
    FV_TRY(fv_json_parse(doc, text.data, text.n, name, err));
    if (fv_json_type_of(fv_json_root(*doc)) == FV_JSON_OBJECT)
        return FV_OK;
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: expected an object, found an array", name);
}

static fv_status begin_scan(fv_scan *scan, fv_slice text, char **unescaped, const char *name,
                            fv_error *err)
{
    FV_TRY(check_text(text, name, err));
    *unescaped = fv_alloc(text.n, 1);
    if (!*unescaped)
        return fv_fail_memory(err, text.n, name);
    fv_scan_begin(scan, text.data, text.n, *unescaped, name);
    return FV_OK;
}

static fv_status read_tokenizer_json(reading *r, fv_error *err)
{
    static const char name[] = "tokenizer.json";
    fv_scan scan;
    small_text small = { 0 };
    fv_status status = FV_OK;

    FV_TRY(begin_scan(&scan, r->files->tokenizer_json, &r->unescaped, name, err));
    FV_TRY_GOTO(scan_tokenizer(&scan, &r->s, &small, err));
    FV_TRY_GOTO(fv_json_parse(&r->tokenizer, small.text, small.n, name, err));
    FV_TRY_GOTO(check_pipeline(r->tokenizer, err));
    FV_TRY_GOTO(read_own_added(r->tokenizer, &r->s, err));
fail:
    fv_free(small.text);
    return status;
}

static fv_status read_vocab_and_merges(const fv_tokenizer_files *files, source *s, char **unescaped,
                                       fv_error *err)
{
    fv_scan scan;

    FV_TRY(begin_scan(&scan, files->vocab_json, unescaped, "vocab.json", err));
    FV_TRY(scan_vocab(&scan, s, err));
    FV_TRY(fv_scan_end(&scan, err));
    FV_TRY(check_text(files->merges_txt, "merges.txt", err));
    return files_read_merges(files->merges_txt, "merges.txt", s, err);
}

/* Where the poorer source differs from the one that counts, into text; false: nowhere. */
static bool source_differs(const source *s, const source *other, char text[160])
{
    for (size_t id = 0; id < FV_MAX(s->n_tokens, other->n_tokens); id++) {
        static const fv_token_source none;
        const fv_token_source *a = id < s->n_tokens ? &s->tokens[id] : &none,
                              *b = id < other->n_tokens ? &other->tokens[id] : &none;
        /* vocab.json need not have the added tokens */
        if (b->kind == FV_TOKEN_NONE ? a->kind != FV_TOKEN_NORMAL
                                     : a->kind != FV_TOKEN_NONE && slices_equal(a->text, b->text))
            continue;
        snprintf(text, 160, "vocab.json has %s%.*s%s for id %zu",
                 b->kind == FV_TOKEN_NONE ? "nothing" : "\"", (int)FV_MIN(b->text.n, 40),
                 b->kind == FV_TOKEN_NONE ? "" : b->text.data, b->kind == FV_TOKEN_NONE ? "" : "\"",
                 id);
        return true;
    }
    for (size_t i = 0; i < FV_MIN(s->n_merges, other->n_merges); i++)
        if (!slices_equal(s->merges[i].left, other->merges[i].left) ||
            !slices_equal(s->merges[i].right, other->merges[i].right)) {
            snprintf(text, 160, "merges.txt has another merge %zu", i + 1);
            return true;
        }
    if (s->n_merges != other->n_merges)
        snprintf(text, 160, "merges.txt has %zu merges, not %zu", other->n_merges, s->n_merges);
    return s->n_merges != other->n_merges;
}

/* vocab.json and merges.txt beside a tokenizer.json: read only to say what they contradict. */
static fv_status compare_sources(const reading *r, fv_error *err)
{
    source other = { 0 };
    char *unescaped = NULL, text[160] = "";
    fv_error why = { 0 };
    fv_status status = FV_OK;

    if (!r->files->vocab_json.data || !r->files->merges_txt.data || !r->files->callbacks)
        return FV_OK;
    status = read_vocab_and_merges(r->files, &other, &unescaped, &why);
    if (status == FV_ERR_MEMORY) {
        fv_fail(err, status, 0, "%s", why.message);
    } else if (status != FV_OK) {
        fv_log(r->files->callbacks, FV_LOG_WARNING, "%s; tokenizer.json is whole, and used",
               why.message);
        status = FV_OK;
    } else if (source_differs(&r->s, &other, text)) {
        fv_log(r->files->callbacks, FV_LOG_WARNING,
               "vocab.json and merges.txt contradict tokenizer.json, which is used: %s", text);
    }
    fv_free(unescaped);
    fv_free(other.tokens);
    fv_free(other.merges);
    return status;
}

/* The vocabulary and the merges, from the first source that can be read. */
static fv_status read_base(reading *r, bool *whole, fv_error *err)
{
    bool second = r->files->vocab_json.data && r->files->merges_txt.data;
    fv_error why = { 0 };

    *whole = r->files->tokenizer_json.data != NULL;
    if (!*whole)
        return read_vocab_and_merges(r->files, &r->s, &r->unescaped, err);
    fv_status status = read_tokenizer_json(r, second ? &why : err);
    if (status == FV_OK)
        return compare_sources(r, err);
    if (!second)
        return status;
    if (status != FV_ERR_FORMAT)
        return fv_fail(err, status, why.at, "%s", why.message);
    fv_log(r->files->callbacks, FV_LOG_WARNING, "%s; vocab.json and merges.txt are used instead",
           why.message);
    reading_free(r);
    *r = (reading){ .files = r->files, .s.callbacks = r->files->callbacks };
    *whole = false;
    return read_vocab_and_merges(r->files, &r->s, &r->unescaped, err);
}

/* Added tokens of the other files, and which are special. special_tokens_map.json is read by the
 * reference where tokenizer_config.json has no added_tokens_decoder. */
static fv_status read_other_added(reading *r, bool whole, fv_error *err)
{
    const fv_tokenizer_files *f = r->files;

    FV_TRY(parse_optional(&r->config, f->tokenizer_config_json, "tokenizer_config.json", err));
    FV_TRY(parse_optional(&r->added, f->added_tokens_json, "added_tokens.json", err));
    FV_TRY(parse_optional(&r->map, f->special_tokens_map_json, "special_tokens_map.json", err));
    const fv_json_value *config = r->config ? fv_json_root(r->config) : NULL;
    bool decoder = fv_json_type_of(fv_json_member(config, "added_tokens_decoder")) != FV_JSON_NULL;
    if (r->config) {
        FV_TRY(fv_settings_check(FV_SETTINGS_TOKENIZER_CONFIG, r->config, config, err));
        FV_TRY(read_decoder(r->config, whole, &r->s, err));
    }
    if (r->added)
        FV_TRY(read_added(r->added, whole, &r->s, err));
    if (r->config)
        FV_TRY(read_specials(r->config, &r->s, err));
    return r->map && !decoder ? read_specials(r->map, &r->s, err) : FV_OK;
}

fv_status fv_tokenizer_load(fv_tokenizer **out, const fv_tokenizer_files *files, fv_error *err)
{
    fv_status status = FV_OK;
    reading r = { .files = files, .s.callbacks = files->callbacks };
    bool whole;

    *out = NULL;
    FV_TRY_GOTO(read_base(&r, &whole, err));
    FV_TRY_GOTO(read_other_added(&r, whole, err));
    status = fv_tokenizer_build(out, r.s.tokens, r.s.n_tokens, r.s.merges, r.s.n_merges,
                                whole ? "tokenizer.json" : "vocab.json, merges.txt", err);
fail:
    reading_free(&r);
    return status;
}

/* ---- from a directory ---- */

/* Maps dir/name; when it may be missing and is, *text stays absent. An empty file is not absent. */
static fv_status open_text(fv_map *map, fv_slice *text, const char *dir, const char *name,
                           bool optional, fv_error *err)
{
    fv_status status = FV_OK;
    char *path = fv_path_join(dir, name);

    if (!path)
        return fv_fail_memory(err, strlen(dir) + strlen(name) + 2, name);
    if (!optional || fv_is_there(path)) {
        status = fv_map_open(map, path, err);
        if (status == FV_OK)
            *text = (fv_slice){ map->data ? (const char *)map->data : "", map->size };
    }
    fv_free(path);
    return status;
}

fv_status fv_tokenizer_load_dir(fv_tokenizer **out, const char *dir, const fv_callbacks *callbacks,
                                fv_error *err)
{
    fv_status status = FV_OK;
    fv_tokenizer_files f = { .callbacks = callbacks };
    fv_map map[6] = { 0 };

    *out = NULL;
    FV_TRY_GOTO(open_text(&map[0], &f.tokenizer_json, dir, "tokenizer.json", true, err));
    FV_TRY_GOTO(open_text(&map[1], &f.vocab_json, dir, "vocab.json", true, err));
    bool needed = !f.tokenizer_json.data;
    if (needed && !f.vocab_json.data) {
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt",
                         dir);
        goto fail;
    }
    FV_TRY_GOTO(open_text(&map[2], &f.merges_txt, dir, "merges.txt", !needed, err));
    FV_TRY_GOTO(open_text(&map[3], &f.added_tokens_json, dir, "added_tokens.json", true, err));
    FV_TRY_GOTO(
        open_text(&map[4], &f.tokenizer_config_json, dir, "tokenizer_config.json", true, err));
    FV_TRY_GOTO(
        open_text(&map[5], &f.special_tokens_map_json, dir, "special_tokens_map.json", true, err));
    status = fv_tokenizer_load(out, &f, err);
fail:
    for (size_t i = 0; i < FV_COUNT(map); i++)
        fv_map_close(&map[i]);
    return status;
}
