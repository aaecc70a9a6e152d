/* Every layout and storage of a checkpoint that the loader knows, against the reference. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "support/golden.h"

#define VARIANTS FV_SOURCE_DIR "/tests/data/variants"

static void check_variant(const char *variant)
{
    char dir[512], path[600], checkpoint[600];
    fv_json *doc = NULL;
    fv_error err;
    const char *prompt = NULL;
    snprintf(dir, sizeof dir, "%s/%s", VARIANTS, variant);
    snprintf(path, sizeof path, "%s/expect.json", dir);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", dir);
    if (fv_json_open(&doc, path, 1 << 20, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_json_as_string(fv_json_member(fv_json_root(doc), "prompt"), &prompt);
    const fv_json_value *ids = fv_json_member(fv_json_root(doc), "greedy");

    char *dump = temp_dir();
    ask a = { .dir = checkpoint,
              .image = FV_SOURCE_DIR "/tests/data/tiny/image.png",
              .prompt = prompt,
              .vision = FV_PRECISION_F32,
              .decoder = FV_PRECISION_F32,
              .max_new = (int)fv_json_count(ids),
              .dump_dir = dump,
              .fit = FV_FIT_PAD,
              .ignore_eos = true };
    answer got = run_ask(&a);
    static const struct {
        const char *want, *got;
    } arrays[] = {
        { "features", "vision.features" },
        { "image_tokens", "image_tokens" },
        { "logits_last", "logits_prefill" },
    };
    for (size_t i = 0; i < 3; i++) {
        npy want = npy_read(dir, arrays[i].want), have = npy_read(dump, arrays[i].got);
        /* of the logits the last row, without rows added after the tokenizer's */
        const float *last = i < 2 ? have.data : have.data + have.n - have.shape[1];
        if (i < 2)
            assert_int_equal(have.n, want.n);
        double rel = relative_l2(last, want.data, want.n);
        if (!(rel < 1e-5))
            fail_msg("%s: %s: relative L2 %g, expected < 1e-5", variant, arrays[i].want, rel);
        npy_free(&want);
        npy_free(&have);
    }
    assert_int_equal(got.n, fv_json_count(ids));
    for (size_t i = 0; i < got.n; i++) {
        int64_t id = -1;
        fv_json_as_int(fv_json_at(ids, i), &id);
        if (got.ids[i] != id)
            fail_msg("%s: token %zu is %d, expected %d", variant, i, got.ids[i], (int)id);
    }
    temp_remove(dump);
    fv_json_free(doc);
}

#define VARIANT(name)                     \
    static void test_##name(void **state) \
    {                                     \
        (void)state;                      \
        check_variant(#name);             \
    }
VARIANT(base)
VARIANT(fast_vlm)
VARIANT(sharded)
VARIANT(tokenizer_json)
VARIANT(stored_head)
VARIANT(f16)
VARIANT(f32)
VARIANT(unfused)
VARIANT(shape)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base),        cmocka_unit_test(test_fast_vlm),
        cmocka_unit_test(test_sharded),     cmocka_unit_test(test_tokenizer_json),
        cmocka_unit_test(test_stored_head), cmocka_unit_test(test_f16),
        cmocka_unit_test(test_f32),         cmocka_unit_test(test_unfused),
        cmocka_unit_test(test_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
