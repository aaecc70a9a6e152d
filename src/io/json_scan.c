/* A cursor over JSON text: strings, integers, brackets, and a walk over values of any kind. */
#include "io/json_scan.h"

#include <stdio.h>
#include <string.h>

void fv_scan_begin(fv_scan *s, const void *text, size_t n_bytes, char *unescaped, const char *name)
{
    *s = (fv_scan){ .name = name, .begin = text ? text : "", .unescaped = unescaped };
    s->at = s->begin;
    s->end = s->begin + n_bytes;
}

static uint64_t offset(const fv_scan *s) { return (uint64_t)(s->at - s->begin); }

/* Where a message says that something is: "byte 17", or "line 3, column 1" in a text for people. */
typedef struct place {
    char text[56];
} place;

static place scan_place(const fv_scan *s, uint64_t at)
{
    place p;
    uint64_t line = 1, column = 1;

    if (!s->lines) {
        snprintf(p.text, sizeof p.text, "byte %" PRIu64, at);
        return p;
    }
    for (const char *c = s->begin; c < s->begin + at; c++) {
        column = *c == '\n' ? 1 : column + (((unsigned char)*c & 0xc0) != 0x80); /* characters */
        line += *c == '\n';
    }
    snprintf(p.text, sizeof p.text, "line %" PRIu64 ", column %" PRIu64, line, column);
    return p;
}

char fv_scan_peek(fv_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
    return s->at < s->end ? *s->at : '\0';
}

fv_status fv_scan_unexpected(fv_scan *s, const char *expected, fv_error *err)
{
    char found = fv_scan_peek(s);

    if (s->at == s->end)
        return fv_fail(err, FV_ERR_FORMAT, offset(s), "%s: the text ends at %s, expected %s",
                       s->name, scan_place(s, offset(s)).text, expected);
    if (found > 0x20 && found < 0x7f)
        return fv_fail(err, FV_ERR_FORMAT, offset(s), "%s: %s: expected %s, found '%c'", s->name,
                       scan_place(s, offset(s)).text, expected, found);
    return fv_fail(err, FV_ERR_FORMAT, offset(s), "%s: %s: expected %s, found byte 0x%02x", s->name,
                   scan_place(s, offset(s)).text, expected, (unsigned)(unsigned char)found);
}

fv_status fv_scan_open(fv_scan *s, char bracket, bool *first, fv_error *err)
{
    if (fv_scan_peek(s) != bracket)
        return fv_scan_unexpected(s, bracket == '{' ? "'{'" : "'['", err);
    s->at++;
    *first = true;
    return FV_OK;
}

fv_status fv_scan_more(fv_scan *s, char bracket, bool *first, bool *more, fv_error *err)
{
    char next = fv_scan_peek(s);

    *more = next != bracket;
    if (*more && *first) {
        *first = false;
        return FV_OK;
    }
    if (*more && next != ',')
        return fv_scan_unexpected(s, bracket == '}' ? "',' or '}'" : "',' or ']'", err);
    s->at++;
    return FV_OK;
}

/* Four hexadecimal digits at at; -1 when they are none. */
static int32_t hex4(const char *at)
{
    int32_t value = 0;

    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 63));
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    }
    return to;
}

/* The escape at s->at, after its backslash. Half a surrogate pair becomes U+FFFD and sets s->odd,
 * as a NUL does: Python writes both, and no text can hold them. */
static fv_status unescape(fv_scan *s, char **to, fv_error *err)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = s->at < s->end && *s->at ? strchr(names, *s->at) : NULL;

    if (name) {
        *(*to)++ = values[name - names];
        s->at++;
        return FV_OK;
    }
    if (s->end - s->at < 5 || *s->at != 'u' || hex4(s->at + 1) < 0)
        return fv_scan_unexpected(s, "an escape sequence", err);
    int32_t c = hex4(s->at + 1);
    s->at += 5;
    if (c >= 0xd800 && c <= 0xdbff && s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
        int32_t low = hex4(s->at + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            s->at += 6;
        }
    }
    bool half = c >= 0xd800 && c <= 0xdfff;
    s->half = s->half || half;
    s->nul = s->nul || c == 0;
    *to = put_utf8(*to, half || c == 0 ? 0xfffd : (uint32_t)c);
    return FV_OK;
}

/* Any string; s->half and s->nul say what it holds that is not text. */
static fv_status scan_any_string(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err)
{
    s->half = s->nul = false;
    if (fv_scan_peek(s) != '"')
        return fv_scan_unexpected(s, "a string", err);
    const char *run = ++s->at;
    char *to = s->unescaped;
    for (;;) {
        while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20)
            s->at++;
        if (s->at == s->end || (unsigned char)*s->at < 0x20)
            return fv_fail(err, FV_ERR_FORMAT, offset(s), "%s: %s: a string is not closed", s->name,
                           scan_place(s, offset(s)).text);
        if (*s->at == '"' && to == s->unescaped) { /* no escape: a slice of the text */
            *text = run;
            *n_bytes = (size_t)(s->at++ - run);
            return FV_OK;
        }
        memcpy(to, run, (size_t)(s->at - run));
        to += s->at - run;
        if (*s->at++ == '"')
            break;
        FV_TRY(unescape(s, &to, err));
        run = s->at;
    }
    *text = s->unescaped;
    *n_bytes = (size_t)(to - s->unescaped);
    *to = '\0'; /* the quotes leave room */
    s->unescaped = to + 1;
    return FV_OK;
}

fv_status fv_scan_string(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err)
{
    FV_TRY(scan_any_string(s, text, n_bytes, err));
    if (s->half || s->nul)
        return fv_fail(err, FV_ERR_FORMAT, offset(s), "%s: %s: %s", s->name,
                       scan_place(s, offset(s)).text, s->half ? "half a surrogate pair" : "a NUL");
    return FV_OK;
}

static fv_status scan_colon(fv_scan *s, fv_error *err)
{
    if (fv_scan_peek(s) != ':')
        return fv_scan_unexpected(s, "':'", err);
    s->at++;
    return FV_OK;
}

fv_status fv_scan_key(fv_scan *s, const char **text, size_t *n_bytes, fv_error *err)
{
    FV_TRY(fv_scan_string(s, text, n_bytes, err));
    return scan_colon(s, err);
}

static bool scan_is_digit(const fv_scan *s)
{
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

fv_status fv_scan_int(fv_scan *s, int64_t min, int64_t max, int64_t *out, fv_error *err)
{
    bool minus = fv_scan_peek(s) == '-', huge = false;
    uint64_t start = offset(s), value = 0;

    if (minus)
        s->at++;
    if (!scan_is_digit(s))
        return fv_scan_unexpected(s, "an integer", err);
    const char *digits = s->at;
    while (scan_is_digit(s)) {
        huge |= value > (uint64_t)INT64_MAX / 10 - 1;
        value = value * 10 + (uint64_t)(*s->at++ - '0');
    }
    if (*digits == '0' && s->at - digits > 1)
        return fv_fail(err, FV_ERR_FORMAT, start, "%s: %s: a number starts with 0", s->name,
                       scan_place(s, start).text);
    if (s->at < s->end && (*s->at == '.' || *s->at == 'e' || *s->at == 'E'))
        return fv_fail(err, FV_ERR_FORMAT, start,
                       "%s: %s: expected an integer, found a real number", s->name,
                       scan_place(s, start).text);
    int64_t result = huge ? 0 : minus ? -(int64_t)value : (int64_t)value;
    if (huge || result < min || result > max)
        return fv_fail(err, FV_ERR_FORMAT, start,
                       "%s: %s: expected an integer in [%" PRId64 ", %" PRId64 "], found %.*s",
                       s->name, scan_place(s, start).text, min, max,
                       (int)FV_MIN(s->at - s->begin - (ptrdiff_t)start, 40), s->begin + start);
    *out = result;
    return FV_OK;
}

static bool take_word(fv_scan *s, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
        return false;
    s->at += n;
    return true;
}

fv_status fv_scan_bool(fv_scan *s, bool *out, fv_error *err)
{
    fv_scan_peek(s);
    if (take_word(s, "true"))
        *out = true;
    else if (take_word(s, "false"))
        *out = false;
    else
        return fv_scan_unexpected(s, "true or false", err);
    return FV_OK;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?, and the three words that Python writes for what
 * is no number. */
static fv_status scan_number(fv_scan *s, fv_scan_event *e, fv_error *err)
{
    e->kind = FV_SCAN_INT;
    if (take_word(s, "NaN") || take_word(s, "Infinity") || take_word(s, "-Infinity")) {
        e->kind = FV_SCAN_REAL;
        return FV_OK;
    }
    if (*s->at == '-')
        s->at++;
    if (!scan_is_digit(s))
        return fv_scan_unexpected(s, "a value", err);
    if (*s->at++ != '0')
        while (scan_is_digit(s))
            s->at++;
    if (s->at < s->end && *s->at == '.') {
        e->kind = FV_SCAN_REAL;
        s->at++;
        if (!scan_is_digit(s))
            return fv_scan_unexpected(s, "a digit", err);
        while (scan_is_digit(s))
            s->at++;
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        e->kind = FV_SCAN_REAL;
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        if (!scan_is_digit(s))
            return fv_scan_unexpected(s, "a digit", err);
        while (scan_is_digit(s))
            s->at++;
    }
    return FV_OK;
}

static bool walk_in_object(const fv_scan_walk *w)
{
    return w->depth > 0 && (w->object[(w->depth - 1) / 64] >> (w->depth - 1) % 64 & 1);
}

static fv_status walk_open(fv_scan *s, fv_scan_walk *w, fv_scan_event *e, fv_error *err)
{
    uint64_t bit = (uint64_t)1 << w->depth % 64, *word = &w->object[w->depth / 64];

    if (w->depth == FV_SCAN_MAX_DEPTH)
        return fv_fail(err, FV_ERR_FORMAT, offset(s), "%s: %s: nested deeper than %d", s->name,
                       scan_place(s, offset(s)).text, FV_SCAN_MAX_DEPTH);
    e->kind = *s->at++ == '{' ? FV_SCAN_OBJECT : FV_SCAN_ARRAY;
    *word = e->kind == FV_SCAN_OBJECT ? *word | bit : *word & ~bit;
    w->depth++;
    w->first = true;
    return FV_OK;
}

fv_status fv_scan_next(fv_scan *s, fv_scan_walk *w, fv_scan_event *e, fv_error *err)
{
    bool in_object = walk_in_object(w), more;

    *e = (fv_scan_event){ .kind = FV_SCAN_CLOSE };
    if (w->depth > 0) {
        FV_TRY(fv_scan_more(s, in_object ? '}' : ']', &w->first, &more, err));
        if (!more) {
            w->depth--;
            w->first = false;
            return FV_OK;
        }
    }
    if (in_object) {
        FV_TRY(scan_any_string(s, &e->key, &e->n_key, err));
        FV_TRY(scan_colon(s, err));
    }
    char next = fv_scan_peek(s);
    if (next == '{' || next == '[')
        return walk_open(s, w, e, err);
    e->text = s->at;
    if (next == '"') {
        e->kind = FV_SCAN_STRING;
        FV_TRY(scan_any_string(s, &e->text, &e->n, err));
        e->odd = s->half || s->nul;
        return FV_OK;
    }
    if (take_word(s, "true"))
        e->kind = FV_SCAN_TRUE;
    else if (take_word(s, "false"))
        e->kind = FV_SCAN_FALSE;
    else if (take_word(s, "null"))
        e->kind = FV_SCAN_NULL;
    else if (next == '\0')
        return fv_scan_unexpected(s, "a value", err);
    else
        FV_TRY(scan_number(s, e, err));
    e->n = (size_t)(s->at - e->text);
    return FV_OK;
}

fv_status fv_scan_skip(fv_scan *s, fv_error *err)
{
    char *unescaped = s->unescaped; /* what was skipped needs no room */
    fv_scan_walk walk = { 0 };
    fv_scan_event event;
    fv_status status;

    do {
        status = fv_scan_next(s, &walk, &event, err);
        s->unescaped = unescaped;
    } while (status == FV_OK && walk.depth > 0);
    return status;
}

fv_status fv_scan_end(fv_scan *s, fv_error *err)
{
    fv_scan_peek(s);
    return s->at == s->end ? FV_OK : fv_scan_unexpected(s, "the end of the text", err);
}
