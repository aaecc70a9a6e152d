/* Results as JSON, for programs. See cli.h. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *json_text_n(const char *text, size_t n_bytes)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t n = 0, bad;
    uint32_t code;
    if (is_text(text, n_bytes, &bad))
        return json_stringn(text, n_bytes);
    char *whole = malloc(3 * n_bytes);
    if (!whole)
        return NULL;
    for (size_t at = 0; at < n_bytes;) {
        size_t length = character_read(text + at, n_bytes - at, &code);
        const char *from = length ? text + at : replacement;
        memcpy(whole + n, from, length ? length : 3);
        n += length ? length : 3;
        at += length ? length : 1;
    }
    json_t *value = json_stringn(whole, n);
    free(whole);
    return value;
}

json_t *json_text(const char *text) { return json_text_n(text, strlen(text)); }

json_t *json_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

void json_set_text(json_t *object, const char *key, const char *text)
{
    json_t *whole = json_text(key);
    if (whole)
        json_object_set_new(object, json_string_value(whole), json_text(text));
    json_decref(whole);
}

/* jansson escapes what JSON demands, control characters below the blank. A terminal obeys more than
 * those; all stand in strings, where every character may be escaped. */
static bool json_write(const char *text, size_t n_bytes)
{
    uint32_t code;
    char escape[12];
    size_t from = 0;
    bool ok = true;
    for (size_t at = 0, n; at < n_bytes && ok; at += n) {
        n = character_read(text + at, n_bytes - at, &code);
        n = n ? n : 1;
        if (!is_control(code) || code < 0x20)
            continue;
        snprintf(escape, sizeof escape, "\\u%04x", (unsigned)code);
        ok = (at == from || write_out(text + from, at - from)) && write_out(escape, 6);
        from = at + n;
    }
    return ok && write_out(text + from, n_bytes - from) && write_out("\n", 1);
}

int print_json(json_t *root, unsigned n_digits)
{
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(n_digits)) : NULL;
    json_decref(root);
    if (!text) {
        print_err("fastvlm: out of memory: the result cannot be written as JSON\n");
        return EXIT_FAILED;
    }
    bool ok = json_write(text, strlen(text));
    free(text);
    return ok ? EXIT_OK : end_out();
}

int write_json(json_t *root, unsigned n_digits, const char *path)
{
    FILE *f = root ? fopen(path, "wb") : NULL;
    bool ok = f && json_dumpf(root, f, JSON_INDENT(1) | JSON_REAL_PRECISION(n_digits)) == 0;
    ok = f && fclose(f) == 0 && ok;
    json_decref(root);
    if (!ok)
        print_err("fastvlm: %s: cannot be written: %s\n", path, strerror(errno));
    return ok ? EXIT_OK : EXIT_FAILED;
}
