/* Bytes as a GGUF file: what is accepted must lie inside the bytes, without overlaps, and every
 * value must be readable. */
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static volatile uint64_t sink;

static void read_value(const fv_gguf *g, const fv_gguf_value *v, const uint8_t *data,
                       size_t n_bytes)
{
    char key[256];
    int64_t i = 0, list[8];
    double d = 0;
    bool b = false;
    const char *text = "";
    size_t n = 0;
    if (v->n_key >= sizeof key)
        return;
    memcpy(key, v->key, v->n_key);
    key[v->n_key] = 0;
    if (fv_gguf_find(g, key) != v || v->data < data || v->data > data + n_bytes)
        abort();
    fv_gguf_int(g, key, -100, 100, &i, NULL);
    fv_gguf_number(g, key, -1e9, 1e9, &d, NULL);
    fv_gguf_opt_bool(g, key, &b, NULL);
    fv_gguf_ints(g, key, INT64_MIN, INT64_MAX, 0, 8, list, &n, NULL);
    if (fv_gguf_string(g, key, &text, &n, NULL) == FV_OK && n && memchr(text, 0, n))
        abort();
    const fv_gguf_value *array;
    if (fv_gguf_array(g, key, FV_GGUF_STRING, &array, NULL) == FV_OK) {
        const uint8_t *at = array->data;
        for (uint64_t j = 0; j < array->n; j++) {
            text = fv_gguf_next(&at, &n);
            for (size_t k = 0; k < n; k++)
                sink += (uint8_t)text[k];
        }
        if (at > data + n_bytes)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    fv_gguf *g = NULL;
    fv_error err = { 0 };
    if (fv_gguf_read(&g, data, n_bytes, "input", &err) != FV_OK) {
        if (g || !err.message[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < fv_gguf_count(g); i++)
        read_value(g, fv_gguf_at(g, i), data, n_bytes);
    const uint8_t *last = data;
    const fv_tensors *t = fv_gguf_tensors(g);
    for (size_t i = 0; i < fv_tensors_count(t); i++) {
        const fv_tensor *x = fv_tensors_at(t, i);
        uint64_t n = 1;
        for (int d = 0; d < x->n_dims; d++)
            n *= x->shape[d];
        if (n != x->n_elems || fv_row_bytes(x->type, n) != x->n_bytes ||
            fv_tensors_find(t, x->name) != x)
            abort();
        const uint8_t *begin = x->data;
        if (begin < data || x->n_bytes > (uint64_t)(data + n_bytes - begin))
            abort();
        if (!x->n_bytes)
            continue;
        if (begin < last)
            abort();
        last = begin + x->n_bytes;
        sink += last[-1];
    }
    fv_gguf_check_hashes(g, NULL, &err);
    fv_gguf_free(g);
    return 0;
}
