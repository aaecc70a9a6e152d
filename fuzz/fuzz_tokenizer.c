/* Bytes as a checkpoint's tokenizer files. The first byte says which: even, vocab.json, merges.txt,
 * added_tokens.json and tokenizer_config.json with a 0x1E byte between them (missing ones are
 * absent); odd, tokenizer.json. What loads must encode and give its bytes back. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_tokenizer_files files = { 0 };
    fv_tokenizer *t;
    fv_error err = { 0 };

    if (n_bytes == 0)
        return 0;
    const char *at = (const char *)data + 1, *end = (const char *)data + n_bytes;
    if (data[0] & 1) {
        files.tokenizer_json = (fv_slice){ at, n_bytes - 1 };
    } else {
        files.vocab_json = next_file(&at, end);
        files.merges_txt = next_file(&at, end);
        files.added_tokens_json = next_file(&at, end);
        files.tokenizer_config_json = next_file(&at, end);
    }
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
