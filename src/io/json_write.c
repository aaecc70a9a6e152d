/* JSON text. See json_write.h. */
#include "io/json_write.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/list.h"
#include "base/number.h"
#include "base/utf8_text.h"

static void text_add(fv_json_text *j, const char *text, size_t n)
{
    j->failed = j->failed || FV_LIST_ROOM(j->text, j->n, j->capacity, n + 1, NULL) != FV_OK;
    if (j->failed)
        return;
    memcpy(j->text + j->n, text, n);
    j->n += n;
    j->text[j->n] = 0;
}

/* Bytes that are not UTF-8 become U+FFFD: a JSON text is UTF-8. */
static void text_add_string(fv_json_text *j, const char *s, size_t n)
{
    bool valid = fv_utf8_valid(s, n, NULL);
    text_add(j, "\"", 1);
    for (size_t i = 0, from = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)s[i] : 0;
        char escape[8] = "";
        if (c >= 0x80 && !valid) {
            bool complete, truncated;
            size_t length = fv_utf8_step((const uint8_t *)s + i, n - i, &complete, &truncated);
            if (!complete) {
                text_add(j, s + from, i - from);
                text_add(j, FV_UTF8_REPLACEMENT, 3);
                from = i + length;
            }
            i += length - 1;
            continue;
        }
        if (i < n && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        text_add(j, s + from, i - from);
        from = i + 1;
        if (i == n)
            break;
        if (c == '"' || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", c);
        else if (c == '\n')
            snprintf(escape, sizeof escape, "\\n");
        else
            snprintf(escape, sizeof escape, "\\u%04x", c);
        text_add(j, escape, strlen(escape));
    }
    text_add(j, "\"", 1);
}

static void new_line(fv_json_text *j)
{
    static const char spaces[2 * FV_JSON_DEPTH + 1] =
        "                                                                ";
    text_add(j, "\n", 1);
    text_add(j, spaces, 2 * (size_t)j->depth);
}

/* The comma, the line and the key in front of a value. */
static void text_lead(fv_json_text *j, const char *key)
{
    if (j->depth > 0) {
        int at = j->depth - 1;
        if (j->some[at])
            text_add(j, ",", 1);
        if (!j->row[at] && !j->compact)
            new_line(j);
        else if (j->some[at] && !j->compact)
            text_add(j, " ", 1);
        j->some[at] = true;
    }
    if (key) {
        text_add_string(j, key, strlen(key));
        text_add(j, ": ", j->compact ? 1 : 2);
    }
}

static void begin(fv_json_text *j, const char *key, char bracket, bool row)
{
    assert(j->depth < FV_JSON_DEPTH);
    text_lead(j, key);
    text_add(j, &bracket, 1);
    j->row[j->depth] = row;
    j->some[j->depth] = false;
    j->close[j->depth++] = bracket == '{' ? '}' : ']';
}

void fv_json_begin(fv_json_text *j, const char *key, char bracket)
{
    begin(j, key, bracket, false);
}
void fv_json_begin_row(fv_json_text *j, const char *key, char bracket)
{
    begin(j, key, bracket, true);
}

void fv_json_end(fv_json_text *j)
{
    assert(j->depth > 0);
    j->depth--;
    if (j->some[j->depth] && !j->row[j->depth] && !j->compact)
        new_line(j);
    text_add(j, &j->close[j->depth], 1);
}

void fv_json_put_bytes(fv_json_text *j, const char *key, const char *value, size_t n)
{
    text_lead(j, key);
    text_add_string(j, value, n);
}

void fv_json_put_text(fv_json_text *j, const char *key, const char *value)
{
    text_lead(j, key);
    if (value)
        text_add_string(j, value, strlen(value));
    else
        text_add(j, "null", 4);
}

void fv_json_put_int(fv_json_text *j, const char *key, int64_t value)
{
    char text[32];
    text_lead(j, key);
    text_add(j, text, (size_t)snprintf(text, sizeof text, "%" PRId64, value));
}

void fv_json_put_real(fv_json_text *j, const char *key, double value)
{
    char text[40];
    int n = 0;
    for (int digits = 1; digits <= 17; digits++) {
        n = fv_format(text, sizeof text, "%.*g", digits, value);
        if (fv_number_read(text, NULL) == value)
            break;
    }
    if (!strpbrk(text, ".e")) /* a reader should see a real */
        n += snprintf(text + n, sizeof text - (size_t)n, ".0");
    text_lead(j, key);
    text_add(j, text, (size_t)n);
}

void fv_json_put_bool(fv_json_text *j, const char *key, bool value)
{
    text_lead(j, key);
    text_add(j, value ? "true" : "false", value ? 4 : 5);
}

void fv_json_put_json(fv_json_text *j, const char *key, const char *json, size_t n)
{
    text_lead(j, key);
    text_add(j, json, n);
}

void fv_json_line(fv_json_text *j, const char *line, size_t n)
{
    text_add(j, line, n);
    text_add(j, "\n", 1);
}

fv_status fv_json_done(fv_json_text *j, fv_error *err)
{
    assert(j->depth == 0);
    text_add(j, "\n", 1);
    return j->failed ? fv_fail_memory(err, j->n, "a JSON text") : FV_OK;
}

void fv_json_text_free(fv_json_text *j)
{
    fv_free(j->text);
    *j = (fv_json_text){ 0 };
}
