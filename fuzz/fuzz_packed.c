/* Bytes as a packed model: config, tokenizer and weights of whatever the GGUF reader accepts. A
 * tokenizer that opens must encode and decode; its ready tables may disagree with its keys, not
 * with memory. */
#include <stdlib.h>
#include <string.h>

#include "model/config_gguf.h"
#include "model/weights.h"
#include "text/tokenizer_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static volatile size_t sink;

static void use(const fv_tokenizer *t)
{
    static const char text[] = "Hello, the picture <|im_end|> \xc3\xa9 "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    fv_ids ids = { 0 };
    size_t n;
    if (fv_tokenizer_encode(t, text, sizeof text - 1, &ids, NULL) == FV_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            const char *bytes = fv_tokenizer_bytes(t, ids.data[i], &n);
            if (ids.data[i] < 0 || ids.data[i] >= fv_tokenizer_size(t) ||
                n > fv_tokenizer_max_bytes(t))
                abort();
            for (size_t j = 0; bytes && j < n; j++)
                sink += (unsigned char)bytes[j];
        }
    }
    fv_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_gguf *g = NULL;
    fv_config config;
    fv_tokenizer *ready = NULL, *built = NULL;
    fv_weights weights = { 0 };
    bool same;
    uint8_t *copy = fv_alloc(n_bytes, 1); /* aligned as a mapping is */
    if (!copy)
        return 0;
    if (n_bytes)
        memcpy(copy, data, n_bytes);
    if (fv_gguf_read(&g, copy, n_bytes, "input", NULL) == FV_OK) {
        if (fv_config_read_gguf(&config, g, NULL) == FV_OK &&
            fv_weights_bind(&weights, &config, fv_gguf_tensors(g), NULL) == FV_OK)
            fv_weights_free(&weights);
        if (fv_tokenizer_open_gguf(&ready, g, NULL) == FV_OK)
            use(ready);
        if (fv_tokenizer_read_gguf(&built, g, NULL) == FV_OK)
            use(built);
        if (ready && built)
            fv_tokenizer_same(built, ready, &same, NULL);
    }
    fv_tokenizer_free(ready);
    fv_tokenizer_free(built);
    fv_gguf_free(g);
    fv_free(copy);
    return 0;
}
