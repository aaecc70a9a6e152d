/* text/tokenizer.c: the golden cases, both directions, long words, and tables built from arrays. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

static const char golden[] = FV_SOURCE_DIR "/tests/data/tiny";

static fv_tokenizer *tiny;

static int load_tiny(void **state)
{
    (void)state;
    fv_error err;
    char *dir = fv_path_join(golden, "checkpoint");
    fv_status status = fv_tokenizer_load_dir(&tiny, dir, NULL, &err);

    if (status != FV_OK)
        print_error("%s\n", err.message);
    fv_free(dir);
    return status == FV_OK ? 0 : -1;
}

static int free_tiny(void **state)
{
    (void)state;
    fv_tokenizer_free(tiny);
    return 0;
}

/* The text of ids as it is shown: special tokens left out unless all is true. */
static char *decode(const int32_t *ids, size_t n, bool all)
{
    fv_stream *s;
    const char *text;
    size_t n_text, used = 0;
    char *out = calloc(1, (n + 1) * fv_tokenizer_max_bytes(tiny) * 3 + 16);

    assert_int_equal(fv_stream_new(&s, fv_tokenizer_max_bytes(tiny), NULL, 0, NULL), FV_OK);
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes;
        const char *bytes = fv_tokenizer_bytes(tiny, ids[i], &n_bytes);
        assert_non_null(bytes);
        if (!all && fv_tokenizer_is_special(tiny, ids[i]))
            continue;
        fv_stream_push(s, bytes, n_bytes, &text, &n_text);
        memcpy(out + used, text, n_text);
        used += n_text;
    }
    fv_stream_finish(s, &text, &n_text);
    memcpy(out + used, text, n_text);
    fv_stream_free(s);
    return out;
}

static void check_ids(const fv_ids *ids, const fv_json_value *want, const char *text)
{
    bool same = ids->n == fv_json_count(want);

    for (size_t i = 0; same && i < ids->n; i++) {
        int64_t id = -1;
        same = fv_json_as_int(fv_json_at(want, i), &id) && id == ids->data[i];
    }
    if (!same)
        fail_msg("ids of \"%s\" differ", text);
}

static void test_golden_cases(void **state)
{
    (void)state;
    fv_error err;
    fv_json *doc;
    const fv_json_value *cases, *greedy;
    const char *want;
    fv_ids ids = { 0 };
    char *path = fv_path_join(golden, "manifest.json");

    if (fv_json_open(&doc, path, 16 << 20, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_free(path);
    assert_int_equal(fv_json_array(doc, fv_json_root(doc), "tokenizer_cases", &cases, NULL), FV_OK);
    assert_true(fv_json_count(cases) > 5);
    for (size_t i = 0; i < fv_json_count(cases); i++) {
        const fv_json_value *one = fv_json_at(cases, i), *want_ids;
        const char *text;
        assert_int_equal(fv_json_string(doc, one, "text", &text, NULL), FV_OK);
        assert_int_equal(fv_json_string(doc, one, "decoded", &want, NULL), FV_OK);
        assert_int_equal(fv_json_array(doc, one, "ids", &want_ids, NULL), FV_OK);
        ids.n = 0;
        assert_int_equal(fv_tokenizer_encode(tiny, text, strlen(text), &ids, NULL), FV_OK);
        check_ids(&ids, want_ids, text);
        char *got = decode(ids.data, ids.n, true);
        assert_string_equal(got, want);
        free(got);
    }

    /* The greedy answer: bytes that are no UTF-8 among them. */
    int64_t answer[64];
    int32_t narrow[64];
    size_t n;
    assert_int_equal(fv_json_object(doc, fv_json_root(doc), "greedy", &greedy, NULL), FV_OK);
    assert_int_equal(fv_json_ints(doc, greedy, "ids", 0, 511, 1, 64, answer, &n, NULL), FV_OK);
    assert_int_equal(fv_json_string(doc, greedy, "text", &want, NULL), FV_OK);
    for (size_t i = 0; i < n; i++)
        narrow[i] = (int32_t)answer[i];
    char *got = decode(narrow, n, false);
    assert_string_equal(got, want);
    free(got);
    fv_ids_free(&ids);
    fv_json_free(doc);
}

static void test_questions_about_ids(void **state)
{
    (void)state;
    size_t n;

    assert_int_equal(fv_tokenizer_size(tiny), 472);
    assert_int_equal(fv_tokenizer_find(tiny, "<|endoftext|>"), 469);
    assert_int_equal(fv_tokenizer_find(tiny, "<|im_start|>"), 470);
    assert_int_equal(fv_tokenizer_find(tiny, "<|im_end|>"), 471);
    assert_int_equal(fv_tokenizer_find(tiny, "<|im_"), -1);
    assert_int_equal(fv_tokenizer_find(tiny, "<|im_end|>x"), -1);
    /* only added tokens have texts that are found */
    assert_int_equal(fv_tokenizer_find(tiny, "the"), -1);
    assert_int_equal(fv_tokenizer_find(tiny, ""), -1);
    assert_true(fv_tokenizer_is_special(tiny, 471));
    assert_false(fv_tokenizer_is_special(tiny, 0));
    assert_false(fv_tokenizer_is_special(tiny, 472));
    assert_false(fv_tokenizer_is_special(tiny, -200));
    assert_true(fv_tokenizer_has(tiny, 0));
    assert_false(fv_tokenizer_has(tiny, -1));
    assert_false(fv_tokenizer_has(tiny, 472));
    assert_null(fv_tokenizer_bytes(tiny, 472, &n));
    assert_int_equal(n, 0);
    assert_null(fv_tokenizer_bytes(tiny, INT32_MIN, &n));
    assert_memory_equal(fv_tokenizer_bytes(tiny, 220, &n), " ", 1);
    assert_int_equal(n, 1);
    assert_memory_equal(fv_tokenizer_bytes(tiny, 471, &n), "<|im_end|>", 10);
    assert_int_equal(n, 10);
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    fv_error err;
    fv_ids ids = { 0 };

    assert_int_equal(fv_ids_push(&ids, 7, NULL), FV_OK);
    assert_int_equal(fv_tokenizer_encode(tiny, "hello \xe4\xb8 x", 10, &ids, &err), FV_ERR_FORMAT);
    assert_int_equal(err.at, 6);
    assert_string_equal(err.message, "the text is not valid UTF-8: byte 0xe4 at offset 6");
    assert_int_equal(ids.n, 1); /* unchanged */
    assert_int_equal(fv_tokenizer_encode(tiny, NULL, 0, &ids, &err), FV_OK);
    assert_int_equal(ids.n, 1);
    fv_ids_free(&ids);
}

/* A word longer than the short path goes through the heap: both must agree. "ab" repeated is one
 * word of letters; cutting it by '!' gives short words of the same letters. */
static void test_long_words_as_short_ones(void **state)
{
    (void)state;
    uint64_t seed = 5;
    fv_ids ids = { 0 }, again = { 0 };

    for (int round = 0; round < 300; round++) {
        /* A word that merging leaves in two parts at one place has the ids of the parts: put a
         * letter that no merge joins ("Z", checked below) between random short words. */
        char text[2048];
        size_t n = 0;
        fv_ids parts = { 0 };
        while (n < 1500) {
            size_t begin = n, length = 1 + (seed >> 33) % 40;
            for (size_t i = 0; i < length; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                text[n++] = "etaoinshrdlucm"[(seed >> 33) % 14];
            }
            assert_int_equal(fv_tokenizer_encode(tiny, text + begin, n - begin, &parts, NULL),
                             FV_OK);
            text[n++] = 'Z';
            assert_int_equal(fv_tokenizer_encode(tiny, "Z", 1, &parts, NULL), FV_OK);
        }
        ids.n = 0;
        assert_int_equal(fv_tokenizer_encode(tiny, text, n, &ids, NULL), FV_OK);
        assert_int_equal(ids.n, parts.n);
        assert_memory_equal(ids.data, parts.data, ids.n * sizeof *ids.data);
        fv_ids_free(&parts);
    }
    again.n = 0;
    assert_int_equal(fv_tokenizer_encode(tiny, "eZe", 3, &again, NULL), FV_OK);
    assert_int_equal(again.n, 3);
    fv_ids_free(&ids);
    fv_ids_free(&again);
}

static void test_a_megabyte_without_a_space(void **state)
{
    (void)state;
    size_t n = 1 << 20;
    char *text = malloc(n);
    fv_ids ids = { 0 };
    uint64_t seed = 9;

    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        text[i] = "etaoinshrdlucm"[(seed >> 33) % 14];
    }
    double before = fv_now_ms();
    assert_int_equal(fv_tokenizer_encode(tiny, text, n, &ids, NULL), FV_OK);
    assert_true(fv_now_ms() - before < 60000); /* about 0.3 s; n^2 would take an hour */
    assert_true(ids.n > n / 4 && ids.n < n);
    char *back = decode(ids.data, ids.n, true);
    assert_memory_equal(back, text, n);
    free(back);
    free(text);
    fv_ids_free(&ids);
}

static void check_text(const char *text, const int32_t *want, size_t n)
{
    fv_ids ids = { 0 };

    assert_int_equal(fv_tokenizer_encode(tiny, text, strlen(text), &ids, NULL), FV_OK);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.data, want, n * sizeof *want);
    fv_ids_free(&ids);
}

static void test_added_tokens_are_cut_out_first(void **state)
{
    (void)state;
    check_text("<|im_end|><|im_start|>", (const int32_t[]){ 471, 470 }, 2);
    /* before NFC could join '>' with U+0338 */
    check_text("<|im_end|>\xcc\xb8", (const int32_t[]){ 471, 136, 116 }, 3);
    check_text("<<|im_end|>>", (const int32_t[]){ 27, 471, 29 }, 3);
}

/* ---- from arrays ---- */

typedef struct arrays {
    fv_token_source tokens[300];
    fv_merge_source merges[8];
    char text[256][4];
    size_t n_tokens, n_merges;
} arrays;

static fv_slice slice(const char *text) { return (fv_slice){ text, strlen(text) }; }

/* 256 single-byte tokens (byte b has id b), then "ab", "abc", "bc", an added and a special one. */
static void make_arrays(arrays *a)
{
    int next = 0x100;

    memset(a, 0, sizeof *a);
    for (int b = 0; b < 256; b++) {
        bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        int c = itself ? b : next++;
        if (c < 0x80) {
            a->text[b][0] = (char)c;
        } else {
            a->text[b][0] = (char)(0xc0 | c >> 6);
            a->text[b][1] = (char)(0x80 | (c & 63));
        }
        a->tokens[b] = (fv_token_source){ slice(a->text[b]), FV_TOKEN_NORMAL, false };
    }
    a->tokens[256] = (fv_token_source){ slice("ab"), FV_TOKEN_NORMAL, false };
    a->tokens[257] = (fv_token_source){ slice("abc"), FV_TOKEN_NORMAL, false };
    a->tokens[258] = (fv_token_source){ slice("bc"), FV_TOKEN_NORMAL, false };
    a->tokens[260] = (fv_token_source){ slice("<a>"), FV_TOKEN_ADDED, false };
    a->tokens[261] = (fv_token_source){ slice("<a>b"), FV_TOKEN_SPECIAL, false };
    a->n_tokens = 270; /* what follows has no token */
    a->merges[0] = (fv_merge_source){ slice("b"), slice("c") };
    a->merges[1] = (fv_merge_source){ slice("a"), slice("b") };
    a->merges[2] = (fv_merge_source){ slice("ab"), slice("c") };
    a->n_merges = 3;
}

static fv_status build(fv_tokenizer **t, const arrays *a, fv_error *err)
{
    return fv_tokenizer_build(t, a->tokens, a->n_tokens, a->merges, a->n_merges, "arrays", err);
}

static void test_build_from_arrays(void **state)
{
    (void)state;
    static arrays a;
    fv_tokenizer *t;
    fv_ids ids = { 0 };
    static const int32_t want[] = { 'a', 258, ' ', 256, ' ', 261, 260, 'c' };
    size_t n;

    make_arrays(&a);
    assert_int_equal(build(&t, &a, NULL), FV_OK);
    memset(&a, 0, sizeof a); /* everything was copied */
    assert_int_equal(fv_tokenizer_size(t), 262);
    assert_false(fv_tokenizer_has(t, 259));
    assert_null(fv_tokenizer_bytes(t, 259, &n));
    assert_true(fv_tokenizer_is_special(t, 261));
    assert_false(fv_tokenizer_is_special(t, 260));
    assert_int_equal(fv_tokenizer_find(t, "<a>"), 260);
    assert_int_equal(fv_tokenizer_encode(t, "abc ab <a>b<a>c", 15, &ids, NULL), FV_OK);
    /* "bc" has the lower rank; the longest added token wins */
    assert_int_equal(ids.n, FV_COUNT(want));
    assert_memory_equal(ids.data, want, sizeof want);
    fv_ids_free(&ids);
    fv_tokenizer_free(t);
}

static void test_bad_arrays(void **state)
{
    (void)state;
    static arrays a;
    fv_tokenizer *t;
    fv_error err;

    make_arrays(&a);
    a.tokens[259] = (fv_token_source){ slice("ab"), FV_TOKEN_NORMAL, false };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "arrays: tokens 256 and 259 are both \"ab\"");
    assert_null(t);

    make_arrays(&a);
    a.tokens[0x41].kind = FV_TOKEN_NONE;
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message,
                        "arrays: the vocabulary has no token for the single byte 0x41");

    make_arrays(&a);
    a.tokens[259] = (fv_token_source){ slice("a b"), FV_TOKEN_NORMAL, false };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message,
        "arrays: token 259 \"a b\" contains a character that does not stand for a byte");
    a.tokens[259].text = slice("\xe4\xb8\xad");
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    a.tokens[259].text = slice("x\xff\xc4");
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message,
        "arrays: token 259 \"x??\" contains a character that does not stand for a byte");
    a.tokens[259].text = slice("");
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "arrays: the text of token 259 is empty");
    a.tokens[259] = (fv_token_source){ slice("<a>"), FV_TOKEN_ADDED, false };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "arrays: added tokens 259 and 260 are both \"<a>\"");
    a.tokens[259].text = slice("\xff");
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message, "arrays: added token 259 \"?\" is not valid UTF-8");

    make_arrays(&a);
    a.merges[1] = (fv_merge_source){ slice("a"), slice("qq") };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(
        err.message,
        "arrays: merge 2 (\"a\" \"qq\"): the right part \"qq\" is not in the vocabulary");
    a.merges[1] = (fv_merge_source){ slice("\xe6\x97\xa5"), slice("a") };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    a.merges[1] = (fv_merge_source){ { 0 }, slice("a") };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    a.merges[1] = (fv_merge_source){ slice("a"), slice("a") };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    assert_string_equal(err.message,
                        "arrays: merge 2 (\"a\" \"a\"): the merged text is not in the vocabulary");
    a.merges[1] = (fv_merge_source){ slice("abc"), slice("abc") }; /* longer than any token */
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);
    /* added tokens take no part in merges */
    a.merges[1] = (fv_merge_source){ slice("<a>"), slice("b") };
    assert_int_equal(build(&t, &a, &err), FV_ERR_FORMAT);

    assert_int_equal(fv_tokenizer_build(&t, NULL, 0, NULL, 0, "nothing", &err), FV_ERR_FORMAT);
    assert_int_equal(fv_tokenizer_build(&t, a.tokens, 256, NULL, (size_t)1 << 40, "arrays", &err),
                     FV_ERR_LIMIT);
}

static void test_merge_split(void **state)
{
    (void)state;
    fv_merge_source m;

    assert_true(fv_merge_split(slice("ab cd"), &m));
    assert_int_equal(m.left.n, 2);
    assert_int_equal(m.right.n, 2);
    assert_memory_equal(m.right.data, "cd", 2);
    assert_false(fv_merge_split(slice("abcd"), &m));
    assert_false(fv_merge_split(slice(" abcd"), &m));
    assert_false(fv_merge_split(slice("abcd "), &m));
    assert_false(fv_merge_split(slice("ab c d"), &m));
    assert_false(fv_merge_split(slice(" "), &m));
    assert_false(fv_merge_split((fv_slice){ 0 }, &m));
}

static void test_allocation_failures(void **state)
{
    (void)state;
    static arrays a;
    char text[400], nfd[] = "e\xcc\x81 o\xcc\x88";
    int64_t live = fv_mem_live();
    fv_tokenizer *t = NULL;
    fv_ids ids = { 0 };
    fv_status status = FV_ERR_MEMORY;

    make_arrays(&a);
    for (uint64_t i = 0; !t; i++) {
        fv_mem_fail_after(i);
        status = build(&t, &a, NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        if (status != FV_OK)
            assert_int_equal(fv_mem_live(), live);
    }
    memset(text, 'a', sizeof text); /* a long word, then one to normalise */
    memcpy(text + 390, nfd, sizeof nfd - 1);
    int64_t loaded = fv_mem_live();
    status = FV_ERR_MEMORY;
    for (uint64_t i = 0; status != FV_OK; i++) {
        fv_mem_fail_after(i);
        status = fv_tokenizer_encode(t, text, 390 + sizeof nfd - 1, &ids, NULL);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        if (status != FV_OK)
            assert_int_equal(ids.n, 0);
        fv_ids_free(&ids);
        assert_int_equal(fv_mem_live(), loaded);
    }
    fv_tokenizer_free(t);
    fv_tokenizer_free(NULL);
    assert_int_equal(fv_mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_cases),
        cmocka_unit_test(test_questions_about_ids),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_long_words_as_short_ones),
        cmocka_unit_test(test_a_megabyte_without_a_space),
        cmocka_unit_test(test_added_tokens_are_cut_out_first),
        cmocka_unit_test(test_build_from_arrays),
        cmocka_unit_test(test_bad_arrays),
        cmocka_unit_test(test_merge_split),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, load_tiny, free_tiny);
}
