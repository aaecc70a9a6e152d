/* text/tokenizer_files.c: the layouts of a checkpoint's tokenizer, and files that are not one. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "text/tokenizer.h"

static const char tiny[] = FV_SOURCE_DIR "/tests/data/tiny/checkpoint";

/* ---- a folder to write into ---- */

static char dir[64];
static const char *const names[] = { "vocab.json", "merges.txt", "added_tokens.json",
                                     "tokenizer_config.json", "tokenizer.json" };

static void drop(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void write_bytes(const char *name, const void *data, size_t n)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

static void copy(const char *name)
{
    char path[512];
    uint8_t *data;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", tiny, name);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 24, NULL), FV_OK);
    write_bytes(name, data, n);
    fv_free(data);
}

/* Text of the tiny checkpoint's file with the first `from` replaced. */
static void write_changed(const char *name, const char *from, const char *to)
{
    char path[512];
    uint8_t *data;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", tiny, name);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 24, NULL), FV_OK);
    char *found = strstr((char *)data, from);
    assert_non_null(found);
    size_t before = (size_t)(found - (char *)data), n_to = strlen(to),
           after = n - before - strlen(from);
    char *changed = malloc(before + n_to + after);
    memcpy(changed, data, before);
    memcpy(changed + before, to, n_to);
    memcpy(changed + before + n_to, found + strlen(from), after);
    write_bytes(name, changed, before + n_to + after);
    free(changed);
    fv_free(data);
}

static void clean(void)
{
    for (size_t i = 0; i < FV_COUNT(names); i++)
        drop(names[i]);
}

/* vocab.json, merges.txt and added_tokens.json of the tiny checkpoint. */
static void fresh(void)
{
    clean();
    for (size_t i = 0; i < 3; i++)
        copy(names[i]);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/fv-tokenizer-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    clean();
    return rmdir(dir);
}

static void check_fails(fv_status want, const char *message)
{
    fv_tokenizer *t;
    fv_error err = { 0 };
    int64_t live = fv_mem_live();

    assert_int_equal(fv_tokenizer_load_dir(&t, dir, &err), want);
    assert_null(t);
    assert_int_equal(err.status, want);
    assert_int_equal(fv_mem_live(), live);
    if (message)
        assert_string_equal(err.message, message);
}

static fv_tokenizer *load(const char *from)
{
    fv_tokenizer *t;
    fv_error err;

    if (fv_tokenizer_load_dir(&t, from, &err) != FV_OK)
        fail_msg("%s", err.message);
    return t;
}

/* The same ids, bytes and kinds, and the same ids for a text. */
static void check_same(const fv_tokenizer *a, const fv_tokenizer *b)
{
    static const char text[] =
        "Describe the image, it's 12 caf\xc3\xa9s <|im_end|>\n and the rest of it";
    fv_ids x = { 0 }, y = { 0 };

    assert_int_equal(fv_tokenizer_size(a), fv_tokenizer_size(b));
    for (int32_t id = 0; id < fv_tokenizer_size(a); id++) {
        size_t n, m;
        const char *p = fv_tokenizer_bytes(a, id, &n), *q = fv_tokenizer_bytes(b, id, &m);
        assert_int_equal(n, m);
        if (n)
            assert_memory_equal(p, q, n);
        assert_int_equal(fv_tokenizer_is_special(a, id), fv_tokenizer_is_special(b, id));
    }
    assert_int_equal(fv_tokenizer_encode(a, text, sizeof text - 1, &x, NULL), FV_OK);
    assert_int_equal(fv_tokenizer_encode(b, text, sizeof text - 1, &y, NULL), FV_OK);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.data, y.data, x.n * sizeof *x.data);
    fv_ids_free(&x);
    fv_ids_free(&y);
}

/* ---- layouts ---- */

static void test_layouts_agree(void **state)
{
    (void)state;
    fv_tokenizer *want = load(tiny), *t;

    fresh();
    t = load(dir); /* without tokenizer_config.json */
    check_same(want, t);
    fv_tokenizer_free(t);

    drop("added_tokens.json");
    copy("tokenizer_config.json"); /* added_tokens_decoder instead */
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    clean();
    copy("tokenizer.json");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);
    fv_tokenizer_free(want);
}

static void test_merges_as_pairs_and_escapes(void **state)
{
    (void)state;
    fv_tokenizer *want = load(tiny), *t;

    clean();
    write_changed("tokenizer.json", "\"h e\"", "[ \"\\u0068\" , \"e\" ]");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    fresh();
    write_changed("vocab.json", "\"A\":", " \"\\u0041\" :\n");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    fresh(); /* lines that end in CR LF, an empty line */
    write_changed("merges.txt", "h e\n", "h e\r\n\n");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);

    fresh(); /* no version line */
    write_changed("merges.txt", "#version: 0.2\n", "");
    t = load(dir);
    check_same(want, t);
    fv_tokenizer_free(t);
    fv_tokenizer_free(want);
}

static void test_added_tokens_that_are_shown(void **state)
{
    (void)state;
    fv_tokenizer *t;

    fresh(); /* Qwen2.5's <tool_call> is added, but not special */
    write_text("added_tokens.json", "{\"<|im_end|>\": 471, \"<tool_call>\": 480}");
    write_text("tokenizer_config.json", "{\"added_tokens_decoder\": {\"480\": {\"content\": "
                                        "\"<tool_call>\", \"special\": false}}}");
    t = load(dir);
    assert_int_equal(fv_tokenizer_size(t), 481);
    assert_true(fv_tokenizer_is_special(t, 471));
    assert_false(fv_tokenizer_is_special(t, 480));
    assert_false(fv_tokenizer_has(t, 470));
    assert_int_equal(fv_tokenizer_find(t, "<tool_call>"), 480);
    fv_tokenizer_free(t);

    fresh(); /* no added tokens at all is a tokenizer too */
    drop("added_tokens.json");
    t = load(dir);
    assert_int_equal(fv_tokenizer_size(t), 469);
    fv_tokenizer_free(t);

    fresh(); /* a token of the vocabulary declared as added */
    write_changed("vocab.json", "\"A\":32", "\"<pad>\":473,\"A\":32");
    write_text("added_tokens.json", "{\"<pad>\": 473, \"<image>\": 472}");
    t = load(dir);
    assert_true(fv_tokenizer_is_special(t, 473));
    assert_int_equal(fv_tokenizer_find(t, "<image>"), 472);
    fv_tokenizer_free(t);
}

/* ---- bad files ---- */

static void test_missing_files(void **state)
{
    (void)state;
    fv_tokenizer *t;
    fv_error err;

    clean();
    check_fails(FV_ERR_IO, NULL);
    assert_int_equal(fv_tokenizer_load_dir(&t, "/nowhere/at/all", &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "vocab.json"));
    fresh();
    drop("merges.txt");
    check_fails(FV_ERR_IO, NULL);
}

static void test_empty_files(void **state)
{
    (void)state;
    fresh();
    write_text("vocab.json", "");
    check_fails(FV_ERR_FORMAT, "vocab.json: the file is empty");
    fresh();
    write_text("merges.txt", "");
    check_fails(FV_ERR_FORMAT, "merges.txt: the file is empty");
    fresh();
    write_text("added_tokens.json", "");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: the file is empty, expected JSON");
    clean();
    write_text("tokenizer.json", "");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: the file is empty");
    fresh();
    write_text("vocab.json", "{}");
    check_fails(FV_ERR_FORMAT, NULL);
}

static void test_bad_vocabularies(void **state)
{
    (void)state;
    fresh();
    write_changed("vocab.json", "\"A\":32,", "");
    check_fails(FV_ERR_FORMAT,
                "vocab.json, merges.txt: the vocabulary has no token for the single byte 0x41");
    write_changed("vocab.json", "\"A\":32", "\"A\":33");
    check_fails(FV_ERR_FORMAT, "vocab.json: id 33 is assigned to both \"A\" and \"B\"");
    write_changed("vocab.json", "\"A\":32", "\"A\":32,\"A\":500");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: tokens 32 and 500 are both \"A\"");
    write_changed("vocab.json", "\"A\":32", "\"A\":-1");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: byte 220: expected an integer in [0, 1048575], found -1");
    write_changed("vocab.json", "\"A\":32", "\"A\":1048576");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: byte 220: expected an integer in [0, 1048575], found 1048576");
    write_changed("vocab.json", "\"A\":32", "\"A\":99999999999999999999999999");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("vocab.json", "\"A\":32", "\"A\":3.2e1");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: expected an integer, found a real number");
    write_changed("vocab.json", "\"A\":32", "\"A\":032");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: a number starts with 0");
    write_changed("vocab.json", "\"A\":32", "\"A\":\"32\"");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: expected an integer, found '\"'");
    write_changed("vocab.json", "\"A\":32", "\"A\" 32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 220: expected ':', found '3'");
    write_changed("vocab.json", "\"A\":32", "\"A\":32,");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 223: expected a string, found ','");
    write_changed("vocab.json", "\"A\":32", "\"\":470,\"A\":32");
    check_fails(FV_ERR_FORMAT,
                "added_tokens.json: id 470 is assigned to both \"\" and \"<|im_start|>\"");
    write_changed("vocab.json", "\"A\":32", "\"\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: the text of token 600 is empty");
    write_changed("vocab.json", "\"A\":32", "\"\xe6\x97\xa5\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: token 600 \"\xe6\x97\xa5\" contains a "
                               "character that does not stand for a byte");
    write_changed("vocab.json", "\"A\":32", "\"a\xff\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 218 is not valid UTF-8");
    write_changed("vocab.json", "\"A\":32", "\"\\ud800\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 223: half a surrogate pair");
    write_changed("vocab.json", "\"A\":32", "\"\\q\":600,\"A\":32");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 218: expected an escape sequence, found 'q'");
    write_text("vocab.json", "[1, 2]");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 0: expected '{', found '['");
    write_text("vocab.json", "{\"a\": 1} x");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 9: expected the end of the text, found 'x'");
    write_text("vocab.json", "\x7f"
                             "ELF");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: this is a program or library (ELF), not a tokenizer's file");
    write_text("vocab.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    check_fails(FV_ERR_FORMAT, "vocab.json: this is a Git LFS pointer, not a tokenizer's file; git "
                               "lfs pull fetches the file itself");
    write_text("vocab.json", "\xef\xbb\xbf{\"a\": 1}");
    check_fails(FV_ERR_FORMAT,
                "vocab.json: this is text that begins with a byte order mark (UTF-8 BOM), not a "
                "tokenizer's file; save it as UTF-8 without the mark");
    write_text("vocab.json", "\x7f");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 0: expected '{', found byte 0x7f");
    write_text("vocab.json", "{\"a\nb\": 1}");
    check_fails(FV_ERR_FORMAT, "vocab.json: byte 3: a string is not closed");
}

static void test_bad_merges(void **state)
{
    (void)state;
    fresh();
    write_changed("merges.txt", "h e\n", "h e x\n");
    check_fails(FV_ERR_FORMAT, "merges.txt: 3: expected \"left right\", found \"h e x\"");
    write_changed("merges.txt", "h e\n", "he\n");
    check_fails(FV_ERR_FORMAT, "merges.txt: 3: expected \"left right\", found \"he\"");
    write_changed("merges.txt", "h e\n", "h qqq\n");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: merge 2 (\"h\" \"qqq\"): the right part "
                               "\"qqq\" is not in the vocabulary");
    write_changed("merges.txt", "h e\n", "q q\n");
    check_fails(
        FV_ERR_FORMAT,
        "vocab.json, merges.txt: merge 2 (\"q\" \"q\"): the merged text is not in the vocabulary");
    write_bytes("merges.txt", "a\0b c\n", 6);
    check_fails(FV_ERR_FORMAT, NULL);
    write_text("merges.txt", "\xff\xfd");
    check_fails(FV_ERR_FORMAT, "merges.txt: byte 0 is not valid UTF-8");
    write_text("merges.txt", "\xff\xfe");
    check_fails(FV_ERR_FORMAT,
                "merges.txt: this is text in UTF-16, not a tokenizer's file; save it as UTF-8");
    write_text("merges.txt", "<html><body>404</body></html>");
    check_fails(FV_ERR_FORMAT,
                "merges.txt: this is an HTML page, not a tokenizer's file; a server sent it "
                "instead, often to report an error: read it, then download again");
}

static void test_bad_added_tokens(void **state)
{
    (void)state;
    fresh();
    write_text("added_tokens.json", "{\"<|im_end|>\": \"x\"}");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: \"<|im_end|>\": expected an id in [0, 1048575]");
    write_text("added_tokens.json", "{\"<|im_end|>\": -5}");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: \"<|im_end|>\": expected an id in [0, 1048575]");
    write_text("added_tokens.json", "{\"<|im_end|>\": 3}");
    check_fails(FV_ERR_FORMAT,
                "added_tokens.json: id 3 is assigned to both \"$\" and \"<|im_end|>\"");
    write_text("added_tokens.json", "{\"a\": 501, \"a\": 502}");
    check_fails(FV_ERR_FORMAT, NULL);
    write_text("added_tokens.json", "[]");
    check_fails(FV_ERR_FORMAT, "added_tokens.json: expected an object, found an array");
    write_text("added_tokens.json", "{\"\": 501}");
    check_fails(FV_ERR_FORMAT, "vocab.json, merges.txt: the text of token 501 is empty");
    drop("added_tokens.json");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<a>\"}}}");
    check_fails(FV_ERR_FORMAT, "tokenizer_config.json: \"x\": expected an id in [0, 1048575]");
    write_text("tokenizer_config.json", "{\"added_tokens_decoder\": {\"501\": 3}}");
    check_fails(
        FV_ERR_FORMAT,
        "tokenizer_config.json: added_tokens_decoder.501: expected an object, found an integer");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"501\": {\"special\": true}}}");
    check_fails(
        FV_ERR_FORMAT,
        "tokenizer_config.json: added_tokens_decoder.501.content is missing, expected a string");
    write_text("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"501\": {\"content\": \"<a>\", \"lstrip\": true}}}");
    check_fails(FV_ERR_UNSUPPORTED,
                "tokenizer_config.json: added token \"<a>\": lstrip is not supported");
    write_text("tokenizer_config.json", "{\"added_tokens_decoder\": []}");
    check_fails(FV_ERR_FORMAT,
                "tokenizer_config.json: added_tokens_decoder: expected an object, found an array");
}

static void test_bad_tokenizer_json(void **state)
{
    (void)state;
    clean();
    write_changed("tokenizer.json", "\"type\":\"BPE\"", "\"type\":\"Unigram\"");
    check_fails(FV_ERR_UNSUPPORTED, "tokenizer.json: model.type is \"Unigram\", expected \"BPE\"");
    write_changed("tokenizer.json", "\"byte_fallback\":false", "\"byte_fallback\":true");
    check_fails(
        FV_ERR_UNSUPPORTED,
        "tokenizer.json: model.byte_fallback is true, which Qwen2's tokenizer does not use");
    write_changed("tokenizer.json", "\\\\p{N}|", "\\\\p{N}{1,3}|");
    check_fails(FV_ERR_UNSUPPORTED,
                "tokenizer.json: pre_tokenizer does not split by Qwen2's pattern");
    write_changed("tokenizer.json", "\"NFC\"", "\"NFKC\"");
    check_fails(FV_ERR_UNSUPPORTED, "tokenizer.json: normalizer is not NFC");
    write_changed("tokenizer.json", "\"rstrip\":false", "\"rstrip\":true");
    check_fails(FV_ERR_UNSUPPORTED, "tokenizer.json: added token 469: rstrip is not supported");
    write_changed("tokenizer.json", "\"id\":469,", "");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "[\"h\"]");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "[\"h\",\"e\",\"x\"]");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "[]");
    check_fails(FV_ERR_FORMAT, NULL);
    write_changed("tokenizer.json", "\"h e\"", "\"he\"");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: 2: expected \"left right\", found \"he\"");
    write_text("tokenizer.json", "{}");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: model is missing, expected an object");
    write_text("tokenizer.json", "{\"model\": null}");
    check_fails(FV_ERR_FORMAT, "tokenizer.json: byte 10: expected '{', found 'n'");
    char deep[300];
    memset(deep, '[', sizeof deep - 1);
    memcpy(deep, "{\"x\":", 5);
    deep[sizeof deep - 1] = '\0';
    write_text("tokenizer.json", deep);
    check_fails(FV_ERR_FORMAT, "tokenizer.json: byte 69: nested deeper than 64");
}

/* Every beginning of a file but the whole one fails. */
static void test_truncated_files(void **state)
{
    (void)state;
    static const char *const files[] = { "vocab.json", "tokenizer.json" };
    fv_tokenizer *t;
    fv_error err;
    char path[512];
    uint8_t *data;
    size_t n;

    for (size_t f = 0; f < FV_COUNT(files); f++) {
        snprintf(path, sizeof path, "%s/%s", tiny, files[f]);
        assert_int_equal(fv_read_file(&data, &n, path, 1 << 24, NULL), FV_OK);
        while (n > 0 && data[n - 1] != '}') /* white space at the end may be missing */
            n--;
        for (size_t cut = 0; cut < n; cut++) {
            char *exact = malloc(cut + 1); /* so that a sanitizer sees a byte too far */
            memcpy(exact + 1, data, cut);
            fv_slice text = { exact + 1, cut };
            fv_tokenizer_files only = { 0 };
            *(f == 0 ? &only.vocab_json : &only.tokenizer_json) = text;
            assert_int_equal(fv_tokenizer_load(&t, &only, &err), FV_ERR_FORMAT);
            assert_null(t);
            free(exact);
        }
        fv_free(data);
    }
}

static void test_huge_token(void **state)
{
    (void)state;
    size_t n = 1 << 20;
    char *text = malloc(n + 64), *at = text;
    fv_tokenizer *t;

    fresh();
    at += sprintf(at, "{\"<");
    memset(at, 'x', n);
    at += n;
    at += sprintf(at, "\": 500}");
    write_bytes("added_tokens.json", text, (size_t)(at - text));
    t = load(dir);
    assert_int_equal(fv_tokenizer_max_bytes(t), n + 1);
    fv_tokenizer_free(t);
    free(text);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    for (int layout = 0; layout < 2; layout++) {
        fv_tokenizer *t = NULL;
        int64_t live = fv_mem_live();
        fresh();
        copy("tokenizer_config.json");
        if (layout == 1) {
            clean();
            copy("tokenizer.json");
        }
        for (uint64_t i = 0; !t; i++) {
            fv_mem_fail_after(i);
            fv_status status = fv_tokenizer_load_dir(&t, dir, NULL);
            fv_mem_fail_after(UINT64_MAX);
            assert_true(i < 200);
            /* A path that cannot be made looks like a file that is not there. */
            assert_true(status == FV_OK || status == FV_ERR_MEMORY || status == FV_ERR_IO);
            if (status != FV_OK)
                assert_int_equal(fv_mem_live(), live);
        }
        fv_tokenizer_free(t);
        assert_int_equal(fv_mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts_agree),
        cmocka_unit_test(test_merges_as_pairs_and_escapes),
        cmocka_unit_test(test_added_tokens_that_are_shown),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_empty_files),
        cmocka_unit_test(test_bad_vocabularies),
        cmocka_unit_test(test_bad_merges),
        cmocka_unit_test(test_bad_added_tokens),
        cmocka_unit_test(test_bad_tokenizer_json),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_huge_token),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
