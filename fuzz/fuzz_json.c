/* Bytes as config.json, optionally with a preprocessor_config.json after a 0x1E byte: what parses
 * must describe a model that the loader can size, what does not must say why. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/json_scan.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What jansson takes, the scanner takes. */
static void check_scan(const void *text, size_t n_bytes)
{
    fv_scan s;
    fv_error err = { 0 };
    char *unescaped = malloc(n_bytes + 1);

    fv_scan_begin(&s, text, n_bytes, unescaped, "text");
    if ((fv_scan_skip(&s, &err) != FV_OK || fv_scan_end(&s, &err) != FV_OK) &&
        !strstr(err.message, "nested deeper"))
        abort();
    free(unescaped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const uint8_t *stop = n_bytes ? memchr(data, 0x1e, n_bytes) : NULL;
    size_t n_config = stop ? (size_t)(stop - data) : n_bytes;
    fv_config config;
    fv_error err = { 0 };
    fv_json *doc;

    if (fv_json_parse(&doc, data, n_config, "fuzz.json", &err) == FV_OK)
        check_scan(data, n_config);
    else if (doc || err.status == FV_OK || err.at > n_config || !err.message[0])
        abort();
    fv_json_free(doc);

    fv_status status = fv_config_parse(&config, data, n_config, "config.json",
                                       stop ? stop + 1 : NULL, stop ? n_bytes - n_config - 1 : 0,
                                       &err);
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
