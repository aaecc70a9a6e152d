/* Bytes as a checkpoint's tokenizer files, with a 0x1E byte between them: tokenizer.json, when the
 * first byte is odd, vocab.json, merges.txt, added_tokens.json, tokenizer_config.json and
 * special_tokens_map.json (missing ones are absent). What loads must encode and give its bytes
 * back. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* The text up to the next separator; absent when nothing is left. */
static fv_slice next_file(const char **at, const char *end)
{
    fv_slice file = { *at, 0 };

    if (!*at)
        return file;
    const char *stop = memchr(*at, 0x1e, (size_t)(end - *at));
    file.n = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : NULL;
    return file;
}

static void check_round_trip(const fv_tokenizer *t, const char *text)
{
    fv_ids ids = { 0 };
    size_t at = 0;

    if (fv_tokenizer_encode(t, text, strlen(text), &ids, NULL) != FV_OK)
        abort();
    for (size_t i = 0; i < ids.n; i++) {
        size_t n;
        const char *bytes = fv_tokenizer_bytes(t, ids.data[i], &n);
        if (!bytes || n > fv_tokenizer_max_bytes(t) || n > strlen(text) - at ||
            memcmp(text + at, bytes, n) != 0)
            abort();
        at += n;
    }
    if (at != strlen(text))
        abort();
    fv_ids_free(&ids);
}

/* Warnings have a text. */
static void hear(void *user, fv_log_level level, const char *message)
{
    (void)user;
    (void)level;
    if (!message[0])
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const fv_callbacks callbacks = { .size = sizeof callbacks, .log = hear };
    fv_tokenizer_files files = { .callbacks = &callbacks };
    fv_tokenizer *t;
    fv_error err = { 0 };

    if (n_bytes == 0)
        return 0;
    const char *at = (const char *)data + 1, *end = (const char *)data + n_bytes;
    if (data[0] & 1)
        files.tokenizer_json = next_file(&at, end);
    files.vocab_json = next_file(&at, end);
    files.merges_txt = next_file(&at, end);
    files.added_tokens_json = next_file(&at, end);
    files.tokenizer_config_json = next_file(&at, end);
    files.special_tokens_map_json = next_file(&at, end);
    if (fv_tokenizer_load(&t, &files, &err) != FV_OK) {
        if (t || err.status == FV_OK || !err.message[0])
            abort();
        return 0;
    }
    check_round_trip(t, "<|im_start|>user\nDescribe the image, it's 12 caf\xc3\xa9s.<|im_end|>\n");
    check_round_trip(
        t, "hehehehehehehehehehehehehehehehehehehehehehehehehehehehehehehehehehethethethethethe");
    fv_tokenizer_free(t);
    return 0;
}
