/* A tokenizer back into its files: the bytes of those it came from, and the same ids. */
#include "support/cm.h"

#include <string.h>

#include "base/base.h"
#include "support/golden.h"
#include "text/tokenizer.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/checkpoint"

static fv_tokenizer *load(const char *dir)
{
    fv_error err = { 0 };
    fv_tokenizer *t = NULL;
    if (fv_tokenizer_load_dir(&t, dir, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    return t;
}

static void expect_file(const fv_tokenizer *t, fv_token_file which, const char *name)
{
    fv_error err = { 0 };
    char *text, *path = fv_path_join(TINY, name);
    uint8_t *want;
    size_t n, n_want;
    assert_int_equal(fv_read_file(&want, &n_want, path, 1 << 20, &err), FV_OK);
    assert_int_equal(fv_tokenizer_write(t, which, NULL, NULL, &text, &n, &err), FV_OK);
    assert_int_equal(n, n_want);
    assert_memory_equal(text, want, n);
    fv_free(text);
    fv_free(want);
    fv_free(path);
}

static void test_same_bytes(void **state)
{
    (void)state;
    fv_tokenizer *t = load(TINY);
    expect_file(t, FV_FILE_TOKENIZER_JSON, "tokenizer.json");
    expect_file(t, FV_FILE_VOCAB_JSON, "vocab.json");
    expect_file(t, FV_FILE_MERGES_TXT, "merges.txt");
    fv_tokenizer_free(t);
}

static void check_ids(const fv_tokenizer *a, const fv_tokenizer *b, const char *text)
{
    fv_error err = { 0 };
    fv_ids x = { 0 }, y = { 0 };
    assert_int_equal(fv_tokenizer_encode(a, text, strlen(text), &x, &err), FV_OK);
    assert_int_equal(fv_tokenizer_encode(b, text, strlen(text), &y, &err), FV_OK);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.data, y.data, x.n * sizeof *x.data);
    fv_ids_free(&x);
    fv_ids_free(&y);
}

/* With "<image>" added and without it again: tokenizer.json stands alone, so do the four small
 * files. */
static void test_extra_and_skip(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_tokenizer *t = load(TINY), *with = NULL, *without = NULL;
    fv_tokenizer_files files = { 0 };
    char *json, *vocab, *merges, *added;
    size_t n, n_vocab, n_merges, n_added;
    assert_int_equal(
        fv_tokenizer_write(t, FV_FILE_TOKENIZER_JSON, "<image>", NULL, &json, &n, &err), FV_OK);
    files.tokenizer_json = (fv_slice){ json, n };
    assert_int_equal(fv_tokenizer_load(&with, &files, &err), FV_OK);
    assert_int_equal(fv_tokenizer_size(with), fv_tokenizer_size(t) + 1);
    assert_int_equal(fv_tokenizer_find(with, "<image>"), fv_tokenizer_size(t));
    assert_true(fv_tokenizer_is_special(with, fv_tokenizer_size(t)));

    assert_int_equal(
        fv_tokenizer_write(with, FV_FILE_VOCAB_JSON, NULL, "<image>", &vocab, &n_vocab, &err),
        FV_OK);
    assert_int_equal(
        fv_tokenizer_write(with, FV_FILE_MERGES_TXT, NULL, "<image>", &merges, &n_merges, &err),
        FV_OK);
    assert_int_equal(fv_tokenizer_write(with, FV_FILE_ADDED_TOKENS_JSON, NULL, "<image>", &added,
                                        &n_added, &err),
                     FV_OK);
    files = (fv_tokenizer_files){ .vocab_json = { vocab, n_vocab },
                                  .merges_txt = { merges, n_merges },
                                  .added_tokens_json = { added, n_added } };
    assert_int_equal(fv_tokenizer_load(&without, &files, &err), FV_OK);
    assert_int_equal(fv_tokenizer_size(without), fv_tokenizer_size(t));
    assert_int_equal(fv_tokenizer_find(without, "<image>"), -1);
    static const char *const texts[] = {
        "", "Describe the image.",
        "<|im_start|>user\nH\xc3\xa9llo \xe6\x97\xa5\xe6\x9c\xac 12 \t\n\n x<|im_end|>",
        "\x01\x7f '\xc2\xad'  caf\x65\xcc\x81"
    };
    for (size_t i = 0; i < FV_COUNT(texts); i++) {
        check_ids(t, with, texts[i]);
        check_ids(t, without, texts[i]);
    }
    fv_free(json);
    fv_free(vocab);
    fv_free(merges);
    fv_free(added);
    fv_tokenizer_free(t);
    fv_tokenizer_free(with);
    fv_tokenizer_free(without);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    fv_tokenizer *t = load(TINY);
    int64_t live = fv_mem_live();
    fv_status status = FV_ERR_MEMORY;
    for (uint64_t i = 0; status != FV_OK; i++) {
        fv_error err = { 0 };
        char *text = NULL;
        size_t n;
        fv_mem_fail_after(i);
        status = fv_tokenizer_write(t, FV_FILE_TOKENIZER_JSON, NULL, NULL, &text, &n, &err);
        fv_mem_fail_after(UINT64_MAX);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
        fv_free(text);
        assert_int_equal(fv_mem_live(), live);
        assert_true(i < 100);
    }
    fv_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_same_bytes),
                                        cmocka_unit_test(test_extra_and_skip),
                                        cmocka_unit_test(test_every_allocation_fails) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
