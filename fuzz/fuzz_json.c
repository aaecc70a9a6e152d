/* Bytes as config.json, optionally with preprocessor_config.json, processor_config.json and
 * generation_config.json behind it, a 0x1E byte between them: what parses must describe a model
 * that the loader can size, what does not must say why. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/json_scan.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What is read as a document, the scanner passes over. */
static void check_scan(const void *text, size_t n_bytes)
{
    fv_scan s;
    fv_error err = { 0 };
    char *unescaped = malloc(n_bytes + 1);

    fv_scan_begin(&s, text, n_bytes, unescaped, "text");
    if (fv_scan_skip(&s, &err) != FV_OK || fv_scan_end(&s, &err) != FV_OK)
        abort();
    free(unescaped);
}

/* The text up to the next separator; none is left after the last. */
static fv_config_text next_text(const uint8_t **at, const uint8_t *end)
{
    fv_config_text text = { *at, 0 };

    if (!*at)
        return text;
    const uint8_t *stop = *at < end ? memchr(*at, 0x1e, (size_t)(end - *at)) : NULL;
    text.n = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : NULL;
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const uint8_t *at = data, *end = data + n_bytes;
    fv_config_files files = { .config = next_text(&at, end) };
    size_t n_config = files.config.n;
    fv_config config;
    fv_error err = { 0 };
    fv_json *doc;

    if (fv_json_parse(&doc, data, n_config, "fuzz.json", &err) == FV_OK)
        check_scan(data, n_config);
    else if (doc || err.status == FV_OK || err.at > n_config || !err.message[0])
        abort();
    fv_json_free(doc);

    files.preprocessor = next_text(&at, end);
    files.processor = next_text(&at, end);
    files.generation = next_text(&at, end);
    fv_status status = fv_config_parse(&config, &files, "config.json", &err);
    if (status == FV_OK) {
        if (config.d_model <= 0 || config.n_layers <= 0 || config.n_vocab <= 0 ||
            config.n_stages <= 0 || config.n_heads % config.n_kv_heads != 0 ||
            config.image_size % FV_PATCH != 0)
            abort();
    } else if (err.status != status || !err.message[0]) {
        abort();
    }
    return 0;
}
