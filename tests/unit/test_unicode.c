/* text/unicode.c: words against PCRE2 with the pattern spelt out, NFC against utf8proc's own. */
#include "support/cm.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include "base/base.h"
#include "text/unicode.h"

static uint64_t seed = 1;

static uint32_t rnd(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static size_t put(char *to, uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)to);
}

/* ---- words ---- */

/* \s spelt out: PCRE2's own, with PCRE2_UCP, also matches U+180E, which is no White_Space. The
 * caseless group as in the pattern: PCRE2 folds U+017F to s too. */
#define S                                                                                       \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
    "\\x{205f}\\x{3000}"
static const char pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" S
    "\\p{L}\\p{N}]+[\\r\\n]*"
    "|[" S "]*[\\r\\n]+|[" S "]+(?![^" S "])|[" S "]+";

/* What makes the alternatives differ; letters, marks and numbers from several scripts. All were in
 * Unicode long before the versions that PCRE2 and utf8proc have. */
static const uint32_t pool[] = {
    'a',    's',    'S',    't',    'r',     'e',    'v',     'l',    'L',     'd',      'm',
    0x17f,  0xe9,   0x130,  0x4e2d, 0x5d0,   0x915,  0xac00,  0x1112, 0x1d5d8, 0x301,    0x93f,
    0x200d, 0x180e, 0x200b, 0xfeff, 0x1f600, 0,      7,       0x7f,   0xfffd,  0x10ffff, 0xe000,
    '0',    '9',    0xb2,   0xbd,   0x663,   0x2163, 0x1d7ce, '\'',   '\'',    '\'',     '!',
    '.',    '-',    0x2019, 0x3002, ' ',     ' ',    ' ',     '\t',   '\n',    '\n',     '\r',
    '\v',   0x1c,   0x85,   0xa0,   0x1680,  0x2003, 0x2028,  0x3000,
};

static void test_words_are_the_patterns(void **state)
{
    (void)state;
    int code;
    PCRE2_SIZE where;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
    assert_non_null(re);
    pcre2_match_data *match = pcre2_match_data_create(4, NULL);

    for (int round = 0; round < 200000; round++) {
        char text[160];
        size_t n = 0, at = 0, n_chars = 1 + rnd(30);
        for (size_t i = 0; i < n_chars; i++)
            n += put(text + n, pool[rnd(FV_COUNT(pool))]);
        while (at < n) {
            int found = pcre2_match(re, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, match, NULL);
            PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
            assert_true(found > 0);
            assert_int_equal(range[0], at); /* no character is left out */
            if (fv_word_length(text + at, n - at) != range[1] - at)
                fail_msg("round %d, offset %zu of \"%.*s\": %zu bytes, PCRE2 %zu", round, at,
                         (int)n, text, fv_word_length(text + at, n - at), (size_t)(range[1] - at));
            at = range[1];
        }
    }
    pcre2_match_data_free(match);
    pcre2_code_free(re);
}

static void check_words(const char *text, const char *const *want)
{
    size_t at = 0, n = strlen(text);

    for (; *want; want++) {
        size_t got = fv_word_length(text + at, n - at);
        assert_int_equal(got, strlen(*want));
        assert_memory_equal(text + at, *want, got);
        at += got;
    }
    assert_int_equal(at, n);
}

static void test_words_by_hand(void **state)
{
    (void)state;
    check_words("Hello world", (const char *[]){ "Hello", " world", NULL });
    check_words("it's  12 cats!\n\nOK",
                (const char *[]){ "it", "'s", " ", " ", "1", "2", " cats", "!\n\n", "OK", NULL });
    check_words("a \n b  ", (const char *[]){ "a", " \n", " b", "  ", NULL });
    check_words("they'LL 'xyz", (const char *[]){ "they", "'LL", " '", "xyz", NULL });
    check_words("\xe2\x80\xa6x", (const char *[]){ "\xe2\x80\xa6x", NULL });
    check_words("'\xc5\xbf'", (const char *[]){ "'\xc5\xbf", "'", NULL });
}

/* ---- NFC ---- */

static fv_nfc nfc;

static void check_nfc(const char *text, size_t n)
{
    utf8proc_uint8_t *want = NULL;
    utf8proc_ssize_t n_want = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                                           &want, UTF8PROC_STABLE | UTF8PROC_COMPOSE);

    assert_true(n_want >= 0);
    assert_int_equal(fv_nfc_normalize(&nfc, text, n, NULL), FV_OK);
    assert_int_equal(nfc.n_text, n_want);
    assert_memory_equal(nfc.text, want, nfc.n_text);
    if (fv_is_nfc_quick(text, n)) {
        assert_int_equal(n, nfc.n_text);
        assert_memory_equal(nfc.text, text, n);
    }
    free(want);
}

static void test_every_character(void **state)
{
    (void)state;
    char text[32];

    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000)
            continue;
        size_t n = put(text, 'a');
        n += put(text + n, c);
        n += put(text + n, 0x301);
        check_nfc(text, n);
        check_nfc(text + 1, n - 3);
    }
}

/* A character that the quick check lets pass is in NFC after any other one: it has no decomposition
 * and class 0, and no decomposition of any character has it in a later place. */
static void test_quick_check_is_safe(void **state)
{
    (void)state;
    static bool second[0x110000];
    char text[8];

    for (int32_t c = 0; c < 0x110000; c++) {
        utf8proc_int32_t parts[8];
        int boundary = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, 8, UTF8PROC_DECOMPOSE, &boundary);
        for (utf8proc_ssize_t i = 1; i < n; i++)
            second[parts[i]] = true;
    }
    for (int32_t c = 0x11a8; c < 0x11c3; c++) /* Hangul */
        second[c] = true;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if ((c >= 0xd800 && c < 0xe000) || !fv_is_nfc_quick(text, put(text, c)))
            continue;
        const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
        assert_int_equal(p->combining_class, 0);
        assert_false(second[c]);
    }
}

static void test_random_marks(void **state)
{
    (void)state;
    static const uint32_t marks[] = { 'a',    'o',    'e',    0x300,  0x301,   0x302,   0x323,
                                      0x327,  0x31b,  0x345,  0x5b0,  0x5b4,   0x5bc,   0x64b,
                                      0x651,  0x93c,  0x94d,  0xe38,  0x1100,  0x1161,  0x11a8,
                                      0xac00, 0x3099, 0x304b, 0x212b, 0x1d15e, 0x1d165, 0xf71,
                                      0xf72,  0xf73,  0x340,  0x344,  0x200d };
    char text[400];

    for (int round = 0; round < 50000; round++) {
        size_t n = 0, n_chars = 1 + rnd(40);
        for (size_t i = 0; i < n_chars; i++)
            n += put(text + n, marks[rnd(FV_COUNT(marks))]);
        check_nfc(text, n);
    }
}

/* Marks in the worst order: exchanging neighbours would take 10^11 steps. */
static void test_many_marks_take_no_ages(void **state)
{
    (void)state;
    size_t n_marks = 500000, n = 0;
    char *text = malloc(1 + n_marks * 2);

    text[n++] = 'a';
    for (size_t i = 0; i < n_marks; i++)
        n += put(text + n, i < n_marks / 2 ? 0x301 : 0x323);
    double before = fv_now_ms();
    assert_int_equal(fv_nfc_normalize(&nfc, text, n, NULL), FV_OK);
    assert_true(fv_now_ms() - before < 20000);
    /* a and one dot below became one character: 3 bytes for 1 + 2 */
    assert_int_equal(nfc.n_text, n);
    free(text);
}

static int free_nfc(void **state)
{
    (void)state;
    fv_nfc_free(&nfc);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_by_hand),   cmocka_unit_test(test_words_are_the_patterns),
        cmocka_unit_test(test_every_character), cmocka_unit_test(test_quick_check_is_safe),
        cmocka_unit_test(test_random_marks),    cmocka_unit_test(test_many_marks_take_no_ages),
    };
    return cmocka_run_group_tests(tests, NULL, free_nfc);
}
