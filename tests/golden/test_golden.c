/* The tiny checkpoint against the reference: every stage, the logits, the ids. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "support/golden.h"

#define GOLDEN FV_SOURCE_DIR "/tests/data/tiny"

static fv_json *manifest(void)
{
    fv_json *doc = NULL;
    fv_error err;
    if (fv_json_open(&doc, GOLDEN "/manifest.json", 1 << 20, &err) != FV_OK)
        fail_msg("%s", err.message);
    return doc;
}

static const char *user_prompt(const fv_json *doc)
{
    const char *text = NULL;
    fv_json_as_string(fv_json_member(fv_json_member(fv_json_root(doc), "prompt"), "user"), &text);
    return text;
}

static size_t read_ids(const fv_json_value *list, int32_t *ids)
{
    size_t n = fv_json_count(list);
    for (size_t i = 0; i < n; i++) {
        int64_t id = 0;
        fv_json_as_int(fv_json_at(list, i), &id);
        ids[i] = (int32_t)id;
    }
    return n;
}

static answer run(fv_precision vision, fv_precision decoder, int n_threads, const char *dump_dir)
{
    fv_json *doc = manifest();
    ask a = { .dir = GOLDEN "/checkpoint",
              .image = GOLDEN "/image.png",
              .prompt = user_prompt(doc),
              .vision = vision,
              .decoder = decoder,
              .n_threads = n_threads,
              .max_new = 24,
              .dump_dir = dump_dir };
    answer out = run_ask(&a);
    fv_json_free(doc);
    return out;
}

/* Every array of the manifest that a run dumps; "vision.stem.0" is stored in part. */
static void test_stages_f32(void **state)
{
    (void)state;
    char *dir = temp_dir();
    fv_json *doc = manifest();
    const char *name;
    const fv_json_value *value;
    void *iter = NULL;
    int n = 0;
    run(FV_PRECISION_F32, FV_PRECISION_F32, 2, dir);
    while (fv_json_next(fv_json_member(fv_json_root(doc), "tensors"), &iter, &name, &value)) {
        if (!strncmp(name, "pre_", 4) || !strncmp(name, "text_", 5))
            continue;
        npy want = npy_read(GOLDEN, name), got = npy_read(dir, name);
        if (!strcmp(name, "vision.stem.0")) { /* rows 0..31 of each channel */
            for (size_t c = 0; c < want.shape[0]; c++)
                memmove(got.data + c * 32 * got.shape[2],
                        got.data + c * got.shape[1] * got.shape[2],
                        32 * got.shape[2] * sizeof *got.data);
        } else {
            assert_int_equal(got.n, want.n);
        }
        double rel = relative_l2(got.data, want.data, want.n),
               diff = max_abs_diff(got.data, want.data, want.n);
        if (!(rel < 1e-5))
            fail_msg("%s: relative L2 %g, expected < 1e-5 (max abs %g)", name, rel, diff);
        if (!strncmp(name, "logits", 6) && !(diff < 1e-3))
            fail_msg("%s: max abs difference %g, expected < 1e-3", name, diff);
        if (!strcmp(name, "pixels_u8") && diff != 0)
            fail_msg("%s: differs by up to %g levels", name, diff);
        npy_free(&want);
        npy_free(&got);
        n++;
    }
    assert_int_equal(n, 27);
    fv_json_free(doc);
    temp_remove(dir);
}

static void check_greedy(fv_precision vision, fv_precision decoder)
{
    fv_json *doc = manifest();
    int32_t want[64];
    size_t n = read_ids(fv_json_member(fv_json_member(fv_json_root(doc), "greedy"), "ids"), want);
    answer got = run(vision, decoder, 2, NULL);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.ids, want, n * sizeof *want);
    assert_int_equal(got.finish, FV_FINISH_LENGTH);
    assert_int_equal(got.stats.prompt_tokens, 47);
    assert_int_equal(got.stats.image_tokens, 16);
    fv_json_free(doc);
}

static void test_greedy_f32(void **state)
{
    (void)state;
    check_greedy(FV_PRECISION_F32, FV_PRECISION_F32);
}

static void test_text_only(void **state)
{
    (void)state;
    fv_json *doc = manifest();
    int32_t want[64];
    const fv_json_value *text = fv_json_member(fv_json_root(doc), "text_only");
    size_t n = read_ids(fv_json_member(text, "greedy"), want);
    ask a = { .dir = GOLDEN "/checkpoint",
              .prompt = "Describe the picture.",
              .vision = FV_PRECISION_F32,
              .decoder = FV_PRECISION_F32,
              .max_new = (int)n };
    answer got = run_ask(&a);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.ids, want, n * sizeof *want);
    fv_json_free(doc);
}

/* Features and image tokens in 16 bits stay within 1e-2; the features are finite. */
static void check_16_bits(fv_precision precision)
{
    char *dir = temp_dir();
    run(precision, precision, 2, dir);
    static const char *const names[] = { "vision.features", "image_tokens" };
    for (size_t i = 0; i < 2; i++) {
        npy want = npy_read(GOLDEN, names[i]), got = npy_read(dir, names[i]);
        assert_int_equal(got.n, want.n);
        double rel = relative_l2(got.data, want.data, want.n);
        if (!(rel < 1e-2))
            fail_msg("%s: relative L2 %g, expected < 1e-2", names[i], rel);
        npy_free(&want);
        npy_free(&got);
    }
    temp_remove(dir);
}

static void test_bf16(void **state)
{
    (void)state;
    check_16_bits(FV_PRECISION_BF16);
}

static void test_f16(void **state)
{
    (void)state;
    check_16_bits(FV_PRECISION_F16);
}

/* Any number of threads gives the same bits. */
static void test_threads(void **state)
{
    (void)state;
    static const int threads[] = { 1, 2, 3, 5 };
    static const char *const names[] = { "vision.features", "image_tokens", "logits_prefill",
                                         "logits_steps" };
    static const fv_precision precisions[] = { FV_PRECISION_F32, FV_PRECISION_BF16 };
    for (size_t p = 0; p < 2; p++) {
        npy first[4] = { 0 };
        for (size_t t = 0; t < 4; t++) {
            char *dir = temp_dir();
            run(precisions[p], precisions[p], threads[t], dir);
            for (size_t i = 0; i < 4; i++) {
                npy got = npy_read(dir, names[i]);
                if (t == 0) {
                    first[i] = got;
                    continue;
                }
                if (got.n != first[i].n ||
                    memcmp(got.data, first[i].data, got.n * sizeof *got.data))
                    fail_msg("%s: other bits with %d threads than with 1", names[i], threads[t]);
                npy_free(&got);
            }
            temp_remove(dir);
        }
        for (size_t i = 0; i < 4; i++)
            npy_free(&first[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages_f32), cmocka_unit_test(test_greedy_f32),
        cmocka_unit_test(test_text_only),  cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_f16),        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
