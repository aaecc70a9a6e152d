/* The tokenizer's files: vocab.json + merges.txt + added tokens, or tokenizer.json.
 *
 *     vocab.json             {"!": 0, "\"": 1, ...}                          text (stand-ins) -> id
 *     merges.txt             "#version: 0.2", then "left right" lines        order = rank
 *     added_tokens.json      {"<|im_end|>": 151645, ...}                     text -> id
 *     tokenizer_config.json  added_tokens_decoder {"151645": {content, special, ...}}
 *     tokenizer.json         all of it in one object [Hugging Face tokenizers]
 *
 * Apple's checkpoints have the first three; a checkpoint saved by transformers 5 has
 * tokenizer.json. The texts stay slices of the mapped files until fv_tokenizer_build copies what it
 * keeps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "base/list.h"
#include "base/sniff.h"
#include "io/json_scan.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

enum {
    MAX_ID = (1 << 20) - 1,
    MAX_SMALL_FILE = 16 << 20 /* added_tokens.json, tokenizer_config.json */
};

/* What the files gave so far. */
typedef struct source {
    fv_token_source *tokens; /* [token_capacity], kind NONE where nothing was named */
    fv_merge_source *merges;
    size_t n_tokens, token_capacity, n_merges, merge_capacity;
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
    *token = (fv_token_source){ text, (uint8_t)kind };
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

/* These change where a token matches; no Qwen2 checkpoint sets them, so they are refused, not
 * ignored. */
static fv_status check_flag(const char *name, const char *text, const char *flag, bool set,
                            fv_error *err)
{
    if (!set)
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: added token \"%s\": %s is not supported", name,
                   text, flag);
}

static const char *const flags[] = { "lstrip", "rstrip", "single_word" };

/* added_tokens_decoder: {"151643": {"content": "<|endoftext|>", "special": true, ...}, ...} */
static fv_status read_decoder(const fv_json *config, source *s, fv_error *err)
{
    const fv_json_value *decoder = NULL, *entry;
    const char *key, *name = fv_json_name(config);
    void *iter = NULL;

    FV_TRY(fv_json_opt_object(config, fv_json_root(config), "added_tokens_decoder", &decoder, err));
    while (decoder && fv_json_next(decoder, &iter, &key, &entry)) {
        char *end;
        const char *text;
        bool special = true, set;
        long long id = strtoll(key, &end, 10);
        FV_TRY(check_id(name, key, end > key && *end == '\0', id, err));
        if (fv_json_type_of(entry) != FV_JSON_OBJECT)
            return fv_fail(err, FV_ERR_FORMAT, 0,
                           "%s: added_tokens_decoder.%s: expected an object, found %s", name, key,
                           fv_json_type_name(entry));
        FV_TRY(fv_json_string(config, entry, "content", &text, err));
        FV_TRY(fv_json_opt_bool(config, entry, "special", &special, err));
        for (size_t i = 0; i < FV_COUNT(flags); i++) {
            set = false;
            FV_TRY(fv_json_opt_bool(config, entry, flags[i], &set, err));
            FV_TRY(check_flag(name, text, flags[i], set, err));
        }
        FV_TRY(files_put_token(s, id, (fv_slice){ text, strlen(text) },
                               special ? FV_TOKEN_SPECIAL : FV_TOKEN_ADDED, name, err));
    }
    return FV_OK;
}

/* added_tokens.json says nothing about which tokens are special; added_tokens_decoder does where
 * there is one, else all are, as in Apple's checkpoints. */
static fv_status read_added(const fv_json *added, const fv_json *config, source *s, fv_error *err)
{
    const fv_json_value *decoder = config ? fv_json_member(fv_json_root(config),
                                                           "added_tokens_decoder")
                                          : NULL,
                        *value;
    const char *text;
    void *iter = NULL;

    while (fv_json_next(fv_json_root(added), &iter, &text, &value)) {
        char key[24];
        int64_t id = 0;
        bool is_id = fv_json_as_int(value, &id), special = true;
        FV_TRY(check_id(fv_json_name(added), text, is_id, id, err));
        snprintf(key, sizeof key, "%" PRId64, id);
        fv_json_as_bool(fv_json_member(fv_json_member(decoder, key), "special"), &special);
        FV_TRY(files_put_token(s, id, (fv_slice){ text, strlen(text) },
                               special ? FV_TOKEN_SPECIAL : FV_TOKEN_ADDED, fv_json_name(added),
                               err));
    }
    return FV_OK;
}

/* ---- tokenizer.json ---- */

/* {"id": 151643, "content": "<|endoftext|>", "special": true, "lstrip": false, ...} */
static fv_status scan_added_token(fv_scan *scan, source *s, fv_error *err)
{
    bool first, more, special = false, set = false;
    bool flag[FV_COUNT(flags)] = { false };
    fv_slice key, text = { 0 };
    int64_t id = -1;

    FV_TRY(fv_scan_open(scan, '{', &first, err));
    for (;;) {
        FV_TRY(fv_scan_more(scan, '}', &first, &more, err));
        if (!more)
            break;
        FV_TRY(fv_scan_key(scan, &key.data, &key.n, err));
        size_t which = 0;
        while (which < FV_COUNT(flags) &&
               (key.n != strlen(flags[which]) || memcmp(key.data, flags[which], key.n) != 0))
            which++;
        if (which < FV_COUNT(flags))
            FV_TRY(fv_scan_bool(scan, &flag[which], err));
        else if (key.n == 2 && memcmp(key.data, "id", 2) == 0)
            FV_TRY(fv_scan_int(scan, 0, MAX_ID, &id, err));
        else if (key.n == 7 && memcmp(key.data, "content", 7) == 0)
            FV_TRY(fv_scan_string(scan, &text.data, &text.n, err));
        else if (key.n == 7 && memcmp(key.data, "special", 7) == 0)
            FV_TRY(fv_scan_bool(scan, &special, err));
        else
            FV_TRY(fv_scan_skip(scan, err));
    }
    if (id < 0 || !text.data)
        return fv_fail(err, FV_ERR_FORMAT, (uint64_t)(scan->at - scan->begin),
                       "%s: an added token without id or content before byte %zu", scan->name,
                       (size_t)(scan->at - scan->begin));
    for (size_t i = 0; i < FV_COUNT(flags); i++)
        if ((set = flag[i]))
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                           "%s: added token %" PRId64 ": %s is not supported", scan->name, id,
                           flags[i]);
    return files_put_token(s, id, text, special ? FV_TOKEN_SPECIAL : FV_TOKEN_ADDED, scan->name,
                           err);
}

static bool is_key(fv_slice key, const char *name)
{
    return key.n == strlen(name) && memcmp(key.data, name, key.n) == 0;
}

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

static fv_status scan_model(fv_scan *scan, source *s, fv_error *err)
{
    bool first, more, set;
    fv_slice key, text;

    FV_TRY(fv_scan_open(scan, '{', &first, err));
    for (;;) {
        FV_TRY(fv_scan_more(scan, '}', &first, &more, err));
        if (!more)
            return FV_OK;
        FV_TRY(fv_scan_key(scan, &key.data, &key.n, err));
        if (is_key(key, "vocab")) {
            FV_TRY(scan_vocab(scan, s, err));
        } else if (is_key(key, "merges")) {
            FV_TRY(scan_merges(scan, s, err));
        } else if (is_key(key, "type")) {
            FV_TRY(fv_scan_string(scan, &text.data, &text.n, err));
            if (!is_key(text, "BPE"))
                return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                               "%s: model.type is \"%.*s\", expected \"BPE\"", scan->name,
                               (int)FV_MIN(text.n, 40), text.data);
        } else if (is_key(key, "byte_fallback") || is_key(key, "ignore_merges")) {
            FV_TRY(fv_scan_bool(scan, &set, err));
            if (set)
                return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                               "%s: model.%.*s is true, which Qwen2's tokenizer does not use",
                               scan->name, (int)key.n, key.data);
        } else {
            FV_TRY(fv_scan_skip(scan, err));
        }
    }
}

static bool contains(const char *begin, const char *end, const char *text)
{
    size_t n = strlen(text);

    for (; (size_t)(end - begin) >= n; begin++)
        if (memcmp(begin, text, n) == 0)
            return true;
    return false;
}

/* Qwen2's pattern as JSON writes it. The words are cut by code that knows only this one. */
static const char pattern[] =
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"";

static fv_status scan_tokenizer(fv_scan *scan, source *s, fv_error *err)
{
    bool first, more, has_model = false, has_pattern = false, has_nfc = false, has_added = false;
    fv_scan added = *scan;
    fv_slice key;

    FV_TRY(fv_scan_open(scan, '{', &first, err));
    for (;;) {
        FV_TRY(fv_scan_more(scan, '}', &first, &more, err));
        if (!more)
            break;
        FV_TRY(fv_scan_key(scan, &key.data, &key.n, err));
        const char *value = scan->at;
        if (is_key(key, "model")) {
            FV_TRY(scan_model(scan, s, err));
            has_model = true;
            continue;
        }
        if (is_key(key, "added_tokens")) { /* stands before the vocabulary that it may override */
            added = *scan;
            has_added = true;
        }
        FV_TRY(fv_scan_skip(scan, err));
        if (is_key(key, "pre_tokenizer"))
            has_pattern = contains(value, scan->at, pattern);
        else if (is_key(key, "normalizer"))
            has_nfc = contains(value, scan->at, "\"NFC\"");
    }
    FV_TRY(fv_scan_end(scan, err));
    if (!has_model)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: model is missing, expected an object",
                       scan->name);
    if (!has_pattern)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: pre_tokenizer does not split by Qwen2's pattern", scan->name);
    if (!has_nfc)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: normalizer is not NFC", scan->name);
    if (!has_added)
        return FV_OK;
    added.unescaped = scan->unescaped;
    FV_TRY(fv_scan_open(&added, '[', &first, err));
    for (;;) {
        FV_TRY(fv_scan_more(&added, ']', &first, &more, err));
        if (!more)
            return FV_OK;
        FV_TRY(scan_added_token(&added, s, err));
    }
}

/* ---- from memory ---- */

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

fv_status fv_tokenizer_load(fv_tokenizer **out, const fv_tokenizer_files *files, fv_error *err)
{
    fv_status status;
    source s = { 0 };
    fv_scan scan;
    fv_json *config = NULL, *added = NULL;
    bool single = files->tokenizer_json.data != NULL;
    fv_slice text = single ? files->tokenizer_json : files->vocab_json;
    const char *name = single ? "tokenizer.json" : "vocab.json";
    char *unescaped = NULL;

    *out = NULL;
    FV_TRY_GOTO(check_text(text, name, err));
    unescaped = fv_alloc(text.n, 1);
    if (!unescaped) {
        status = fv_fail_memory(err, text.n, name);
        goto fail;
    }
    fv_scan_begin(&scan, text.data, text.n, unescaped, name);
    if (single) {
        FV_TRY_GOTO(scan_tokenizer(&scan, &s, err));
    } else {
        name = "vocab.json, merges.txt";
        FV_TRY_GOTO(scan_vocab(&scan, &s, err));
        FV_TRY_GOTO(fv_scan_end(&scan, err));
        FV_TRY_GOTO(check_text(files->merges_txt, "merges.txt", err));
        FV_TRY_GOTO(files_read_merges(files->merges_txt, "merges.txt", &s, err));
        FV_TRY_GOTO(
            parse_optional(&config, files->tokenizer_config_json, "tokenizer_config.json", err));
        FV_TRY_GOTO(parse_optional(&added, files->added_tokens_json, "added_tokens.json", err));
        if (added)
            FV_TRY_GOTO(read_added(added, config, &s, err));
        else if (config)
            FV_TRY_GOTO(read_decoder(config, &s, err));
    }
    status = fv_tokenizer_build(out, s.tokens, s.n_tokens, s.merges, s.n_merges, name, err);
fail:
    fv_json_free(config);
    fv_json_free(added);
    fv_free(unescaped);
    fv_free(s.tokens);
    fv_free(s.merges);
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

fv_status fv_tokenizer_load_dir(fv_tokenizer **out, const char *dir, fv_error *err)
{
    fv_status status;
    fv_tokenizer_files f = { 0 };
    fv_map map[5] = { 0 };

    *out = NULL;
    FV_TRY_GOTO(open_text(&map[0], &f.vocab_json, dir, "vocab.json", true, err));
    if (!f.vocab_json.data)
        FV_TRY_GOTO(open_text(&map[1], &f.tokenizer_json, dir, "tokenizer.json", true, err));
    if (!f.tokenizer_json.data) {
        if (!f.vocab_json.data) /* neither: the message names vocab.json */
            FV_TRY_GOTO(open_text(&map[0], &f.vocab_json, dir, "vocab.json", false, err));
        FV_TRY_GOTO(open_text(&map[2], &f.merges_txt, dir, "merges.txt", false, err));
        FV_TRY_GOTO(open_text(&map[3], &f.added_tokens_json, dir, "added_tokens.json", true, err));
        FV_TRY_GOTO(
            open_text(&map[4], &f.tokenizer_config_json, dir, "tokenizer_config.json", true, err));
    }
    status = fv_tokenizer_load(out, &f, err);
fail:
    for (size_t i = 0; i < FV_COUNT(map); i++)
        fv_map_close(&map[i]);
    return status;
}
