/* Validation of UTF-8, and replacement of what is not. See utf8_text.h. */
#include "base/utf8_text.h"

#include <string.h>

/* The range of the second byte decides about overlong forms, surrogates and U+10FFFF; later bytes
 * are 80..BF. [The Unicode Standard, table 3-7] */
size_t fv_utf8_step(const uint8_t *text, size_t n_bytes, bool *complete, bool *truncated)
{
    uint8_t lead = text[0], low = 0x80, high = 0xbf;
    size_t want;

    *complete = *truncated = false;
    if (lead < 0x80) {
        *complete = true;
        return 1;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        want = 2;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        want = 3;
        low = lead == 0xe0 ? 0xa0 : 0x80;
        high = lead == 0xed ? 0x9f : 0xbf;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        want = 4;
        low = lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 1;
    }
    for (size_t i = 1; i < want; i++) {
        if (i == n_bytes) {
            *truncated = true;
            return i;
        }
        if (text[i] < low || text[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    *complete = true;
    return want;
}

bool fv_utf8_valid(const char *text, size_t n_bytes, size_t *bad_at)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t at = 0;

    while (at < n_bytes) {
        if (n_bytes - at >= 8) {
            uint64_t eight;
            memcpy(&eight, bytes + at, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                at += 8;
                continue;
            }
        }
        bool complete, truncated;
        size_t n = fv_utf8_step(bytes + at, n_bytes - at, &complete, &truncated);
        if (!complete) {
            if (bad_at)
                *bad_at = at;
            return false;
        }
        at += n;
    }
    return true;
}

size_t fv_utf8_replace(char *to, const char *text, size_t n_bytes)
{
    static const char replacement[] = FV_UTF8_REPLACEMENT;
    size_t used = 0;

    for (size_t at = 0, n; at < n_bytes; at += n) {
        bool complete, truncated;
        n = fv_utf8_step((const uint8_t *)text + at, n_bytes - at, &complete, &truncated);
        const char *from = complete && text[at] ? text + at : replacement;
        size_t n_from = from == replacement ? sizeof replacement - 1 : n;
        memcpy(to + used, from, n_from);
        used += n_from;
    }
    return used;
}
