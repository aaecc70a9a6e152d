/* Base64. See base64.h. */
#include "openai/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int sextet(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

fv_status fv_base64_read(const char *text, size_t n_text, uint8_t **out, size_t *n, fv_error *err)
{
    size_t n_digits = n_text;
    uint32_t bits = 0;
    *out = NULL;
    *n = 0;
    while (n_text % 4 == 0 && n_digits && n_text - n_digits < 2 && text[n_digits - 1] == '=')
        n_digits--;
    if (n_digits % 4 == 1)
        return fv_fail(err, FV_ERR_FORMAT, n_text, "base64 ends inside a byte");
    uint8_t *bytes = fv_alloc(n_digits / 4 * 3 + 3, 1);
    if (!bytes)
        return fv_fail_memory(err, n_digits / 4 * 3 + 3, "an image");
    size_t at = 0;
    for (size_t i = 0; i < n_digits; i++) {
        int value = sextet(text[i]);
        if (value < 0) {
            fv_free(bytes);
            return fv_fail(err, FV_ERR_FORMAT, i, "character %zu is not of base64", i);
        }
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 == 1)
            bytes[at++] = (uint8_t)(bits >> 4);
        else if (i % 4 == 2)
            bytes[at++] = (uint8_t)(bits >> 2);
        else if (i % 4 == 3)
            bytes[at++] = (uint8_t)bits;
    }
    *out = bytes;
    *n = at;
    return FV_OK;
}

void fv_base64_write(char *to, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)bytes[i] << 16;
        bits |= i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= i + 2 < n ? bytes[i + 2] : 0;
        *to++ = alphabet[bits >> 18];
        *to++ = alphabet[bits >> 12 & 63];
        *to++ = i + 1 < n ? alphabet[bits >> 6 & 63] : '=';
        *to++ = i + 2 < n ? alphabet[bits & 63] : '=';
    }
    *to = 0;
}
