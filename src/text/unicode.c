/* NFC and the pre-tokenizer's words.
 *
 * The pattern is Qwen2's and fixed, so it is written out as code instead of being handed to a regex
 * engine. It runs as fast as PCRE2's JIT, but needs no executable memory (of which phones grant
 * none), no limits on the length of a match, and no workaround for \s, where PCRE2 counts U+180E
 * in. A test holds it against PCRE2. [docs/tokenizer.md has the figures] */
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

/* ---- characters ---- */

/* The character at text, which is valid UTF-8; *n is its length. */
static uint32_t char_at(const char *text, size_t *n)
{
    const uint8_t *t = (const uint8_t *)text;

    if (t[0] < 0x80) {
        *n = 1;
        return t[0];
    }
    if (t[0] < 0xe0) {
        *n = 2;
        return (t[0] & 31u) << 6 | (t[1] & 63u);
    }
    if (t[0] < 0xf0) {
        *n = 3;
        return (t[0] & 15u) << 12 | (t[1] & 63u) << 6 | (t[2] & 63u);
    }
    *n = 4;
    return (t[0] & 7u) << 18 | (t[1] & 63u) << 12 | (t[2] & 63u) << 6 | (t[3] & 63u);
}

typedef enum char_class {
    OTHER,  /* [^\s\p{L}\p{N}] */
    LETTER, /* \p{L} */
    NUMBER, /* \p{N} */
    SPACE,  /* \s but \r and \n */
    NEWLINE /* \r or \n */
} char_class;

/* Unicode's White_Space property; utf8proc has no table of it. It has not changed since 6.3. */
static bool is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static char_class class_of(uint32_t c)
{
    if (c < 0x80) {
        if ((c | 32) - 'a' < 26)
            return LETTER;
        if (c - '0' < 10)
            return NUMBER;
        return c == '\n' || c == '\r' ? NEWLINE : is_white_space(c) ? SPACE : OTHER;
    }
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return NUMBER;
    default: return is_white_space(c) ? SPACE : OTHER;
    }
}

/* ---- words ---- */

/* The end of the run of characters of one class that goes on at `at`. */
static size_t run_end(const char *text, size_t n_bytes, size_t at, char_class class)
{
    size_t n;

    while (at < n_bytes && class_of(char_at(text + at, &n)) == class)
        at += n;
    return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) after the apostrophe; 0 when it is none. U+017F folds to s. */
static size_t contraction(const char *text, size_t n_bytes)
{
    if (n_bytes >= 1) {
        char a = (char)(text[0] | 32), b = n_bytes >= 2 ? (char)(text[1] | 32) : '\0';
        if ((uint8_t)text[0] == 0xc5 && n_bytes >= 2 && (uint8_t)text[1] == 0xbf)
            return 2;
        if (((uint8_t)text[0] | 32) >= 0x80)
            return 0;
        if (a == 's' || a == 't' || a == 'm' || a == 'd')
            return 1;
        if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
            return 2;
    }
    return 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last newline of the run if it has one; else the run but its
 * last character, which belongs to what follows, unless nothing follows or it is all there is. */
static size_t white_space(const char *text, size_t n_bytes)
{
    size_t at = 0, last = 0, newline = 0, n;

    while (at < n_bytes) {
        char_class class = class_of(char_at(text + at, &n));
        if (class != SPACE && class != NEWLINE)
            break;
        last = at;
        at += n;
        if (class == NEWLINE)
            newline = at;
    }
    if (newline > 0)
        return newline;
    return at == n_bytes || last == 0 ? at : last;
}

size_t fv_word_length(const char *text, size_t n_bytes)
{
    size_t n, n_next, end;
    uint32_t c = char_at(text, &n);
    char_class class = class_of(c), next = OTHER;

    if (c == '\'') {
        size_t more = contraction(text + 1, n_bytes - 1);
        if (more > 0)
            return 1 + more;
    }
    if (class == LETTER)
        return run_end(text, n_bytes, n, LETTER);
    if (class == NUMBER)
        return n;
    if (n < n_bytes)
        next = class_of(char_at(text + n, &n_next));
    if (class != NEWLINE && n < n_bytes && next == LETTER) /* one character before letters */
        return run_end(text, n_bytes, n + n_next, LETTER);
    if (class == OTHER || (c == ' ' && n < n_bytes && next == OTHER)) {
        end = run_end(text, n_bytes, n, OTHER);
        while (end < n_bytes && (text[end] == '\r' || text[end] == '\n'))
            end++;
        return end;
    }
    return white_space(text, n_bytes);
}

/* ---- NFC ---- */

/* Ranges whose characters never change under NFC, whatever stands around them (quick check "yes",
 * combining class 0). Incomplete on purpose: common scripts, so that most text needs no copy. A
 * test checks every character of them against utf8proc. */
static const struct {
    uint32_t first, last;
} inert[] = {
    { 0x0000, 0x02ff },                                           /* Latin */
    { 0x0388, 0x0482 },                                           /* Greek, Cyrillic */
    { 0x048a, 0x052f },   { 0x05d0, 0x05ea },                     /* Hebrew */
    { 0x061b, 0x064a },                                           /* Arabic */
    { 0x0660, 0x066f },   { 0x0671, 0x06d5 }, { 0x0904, 0x0928 }, /* Devanagari letters */
    { 0x092a, 0x0930 },   { 0x0e01, 0x0e37 },                     /* Thai */
    { 0x1e00, 0x1e99 },                                           /* Latin additional */
    { 0x1ea0, 0x1eff },   { 0x2002, 0x20cf },                     /* punctuation, signs */
    { 0x2190, 0x2328 },                                           /* arrows, mathematics */
    { 0x232b, 0x2adb },   { 0x3000, 0x3029 },                     /* CJK punctuation, kana */
    { 0x3041, 0x3094 },   { 0x309b, 0x30ff }, { 0x3400, 0x4dbf }, /* ideographs */
    { 0x4e00, 0x9fff },   { 0xac00, 0xd7a3 },                     /* Hangul syllables */
    { 0xff00, 0xffef },                                           /* full and half width */
    { 0x1f300, 0x1faff },                                         /* emoji */
};

static bool is_inert(uint32_t c)
{
    size_t low = 0, high = FV_COUNT(inert);

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c > inert[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < FV_COUNT(inert) && c >= inert[low].first;
}

bool fv_is_nfc_quick(const char *text, size_t n_bytes)
{
    size_t at = 0, n;

    while (at < n_bytes) {
        if ((uint8_t)text[at] < 0xcc) { /* below U+0300 */
            at += (uint8_t)text[at] < 0x80 ? 1 : 2;
            continue;
        }
        if (!is_inert(char_at(text + at, &n)))
            return false;
        at += n;
    }
    return true;
}

/* Stable sort of a run of combining characters by their class, through a buffer of n. utf8proc's
 * own reordering exchanges neighbours, which takes hours on a megabyte of marks. */
static void sort_marks(int32_t *marks, int32_t *other, size_t n)
{
    size_t left = n / 2, i = 0, k = left, to = 0;

    if (n < 2)
        return;
    sort_marks(marks, other, left);
    sort_marks(marks + left, other, n - left);
    while (i < left && k < n) {
        const utf8proc_property_t *a = utf8proc_get_property(marks[i]),
                                  *b = utf8proc_get_property(marks[k]);
        other[to++] = a->combining_class <= b->combining_class ? marks[i++] : marks[k++];
    }
    while (i < left)
        other[to++] = marks[i++];
    while (k < n)
        other[to++] = marks[k++];
    memcpy(marks, other, n * sizeof *marks);
}

static void sort_all_marks(int32_t *chars, int32_t *other, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t begin = at;
        bool ordered = true;
        int class, before = 0;
        while (at < n && (class = utf8proc_get_property(chars[at])->combining_class) > 0) {
            ordered &= class >= before;
            before = class;
            at++;
        }
        if (!ordered)
            sort_marks(chars + begin, other, at - begin);
        if (at == begin)
            at++;
    }
}

fv_status fv_nfc_normalize(fv_nfc *nfc, const char *text, size_t n_bytes, fv_error *err)
{
    enum { LONGEST = 4 }; /* characters that one character's canonical decomposition has at most */
    size_t n_chars = 0, at = 0, n, room;

    if (n_bytes > (SIZE_MAX / sizeof *nfc->chars - 16) / (2 * LONGEST))
        return fv_fail_memory(err, n_bytes, "NFC");
    /* A character of k bytes decomposes into at most 3 characters for k = 2 and 4 for k > 2, that
     * is at most 1.5 for each byte; as much again for sorting. */
    room = (n_bytes + n_bytes / 2 + LONGEST) * 2;
    if (nfc->chars_capacity < room) {
        fv_free(nfc->chars);
        nfc->chars = fv_alloc(room, sizeof *nfc->chars);
        nfc->chars_capacity = nfc->chars ? room : 0;
        if (!nfc->chars)
            return fv_fail_memory(err, room * sizeof *nfc->chars, "NFC");
    }
    while (at < n_bytes) {
        int32_t c = (int32_t)char_at(text + at, &n);
        int boundary = 0;
        utf8proc_ssize_t made = utf8proc_decompose_char(
            c, nfc->chars + n_chars, (utf8proc_ssize_t)(room / 2 - n_chars),
            UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        if (made < 0 || (size_t)made > room / 2 - n_chars)
            return fv_fail(err, FV_ERR_FORMAT, at, "U+%04X cannot be normalised", (unsigned)c);
        n_chars += (size_t)made;
        at += n;
    }
    sort_all_marks(nfc->chars, nfc->chars + room / 2, n_chars);
    n_chars = (size_t)utf8proc_normalize_utf32(nfc->chars, (utf8proc_ssize_t)n_chars,
                                               UTF8PROC_STABLE | UTF8PROC_COMPOSE);

    if (nfc->text_capacity < n_chars * 4) {
        fv_free(nfc->text);
        nfc->text = fv_alloc(n_chars * 4, 1);
        nfc->text_capacity = nfc->text ? n_chars * 4 : 0;
        if (!nfc->text)
            return fv_fail_memory(err, n_chars * 4, "NFC");
    }
    nfc->n_text = 0;
    for (size_t i = 0; i < n_chars; i++)
        nfc->n_text += (size_t)utf8proc_encode_char(nfc->chars[i],
                                                    (utf8proc_uint8_t *)nfc->text + nfc->n_text);
    return FV_OK;
}

void fv_nfc_free(fv_nfc *nfc)
{
    fv_free(nfc->text);
    fv_free(nfc->chars);
    *nfc = (fv_nfc){ 0 };
}
