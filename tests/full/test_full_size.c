/* The full-size synthetic checkpoint against what the reference computed for it: every stage of the
 * vision tower, the image tokens, every decoder layer, logits, the greedy ids. Not part of the
 * usual tests, since the checkpoint has 1.5 GB: tools/test-full.sh makes it and runs this.
 *
 *     FV_FULL_CHECKPOINT=build/full/fastvlm-0.5b build/dev/test_full_size
 *
 * tests/data/full/README.md says where the values come from. */
#include "support/cm.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/golden.h"

#define FULL FV_SOURCE_DIR "/tests/data/full"

static json_t *want;

static int load(void **state)
{
    (void)state;
    json_error_t err;
    want = json_load_file(FULL "/fastvlm-0.5b.json", 0, &err);
    return want && getenv("FV_FULL_CHECKPOINT") ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    json_decref(want);
    return 0;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static size_t offset(const npy *a, const json_t *at)
{
    size_t flat = 0;
    for (int d = 0; d < a->n_dims; d++)
        flat = flat * a->shape[d] + (size_t)json_integer_value(json_array_get(at, (size_t)d));
    return flat;
}

/* Root mean square and the sampled values, within tolerance * absmax. Returns the worst of them. */
static double compare_stage(const char *dir, const char *name, const json_t *stage,
                            double tolerance)
{
    npy got = npy_read(dir, name);
    const json_t *shape = json_object_get(stage, "shape"), *at = json_object_get(stage, "at");
    double absmax = number(stage, "absmax"), sum = 0, worst = 0;

    assert_int_equal(got.n_dims, json_array_size(shape));
    for (int d = 0; d < got.n_dims; d++)
        assert_int_equal(got.shape[d], json_integer_value(json_array_get(shape, (size_t)d)));
    for (size_t i = 0; i < got.n; i++)
        sum += (double)got.data[i] * got.data[i];
    double rms = sqrt(sum / (double)got.n);
    if (!(fabs(rms - number(stage, "rms")) <= tolerance * number(stage, "rms")))
        fail_msg("%s: rms %.8g, expected %.8g", name, rms, number(stage, "rms"));
    for (size_t i = 0; i < json_array_size(at); i++) {
        double value = json_number_value(json_array_get(json_object_get(stage, "values"), i));
        double off = fabs(got.data[offset(&got, json_array_get(at, i))] - value) / absmax;
        if (!(off <= tolerance))
            fail_msg("%s: value %zu is %.8g, expected %.8g", name, i,
                     got.data[offset(&got, json_array_get(at, i))], value);
        worst = fmax(worst, off);
    }
    npy_free(&got);
    return worst;
}

static double compare_stages(const char *dir, const char *group, double tolerance)
{
    const char *name;
    json_t *stage;
    double worst = 0;
    json_object_foreach(json_object_get(want, group), name, stage)
        worst = fmax(worst, compare_stage(dir, name, stage, tolerance));
    printf("%s: worst value off by %.2g of the largest\n", group, worst);
    return worst;
}

static void compare_logits(const char *dir, double tolerance)
{
    npy got = npy_read(dir, "logits_prefill");
    const json_t *logits = json_object_get(want, "logits");
    static const char *const lists[][2] = { { "top_ids", "top_values" },
                                            { "fixed_ids", "fixed_values" } };
    const float *last = got.data + got.n - got.shape[got.n_dims - 1];
    double worst = 0;

    for (size_t l = 0; l < 2; l++) {
        const json_t *ids = json_object_get(logits, lists[l][0]),
                     *values = json_object_get(logits, lists[l][1]);
        assert_true(json_array_size(ids) > 0 && json_array_size(ids) == json_array_size(values));
        for (size_t i = 0; i < json_array_size(ids); i++)
            worst = fmax(worst, fabs(last[json_integer_value(json_array_get(ids, i))] -
                                     json_number_value(json_array_get(values, i))));
    }
    printf("logits: off by at most %.2g\n", worst);
    assert_true(worst <= tolerance);
    npy_free(&got);
}

static void compare_ids(const answer *a)
{
    const json_t *ids = json_object_get(json_object_get(want, "greedy"), "ids");
    assert_int_equal(a->n, json_array_size(ids));
    for (size_t i = 0; i < a->n; i++)
        assert_int_equal(a->ids[i], json_integer_value(json_array_get(ids, i)));
}

static answer ask_full(fv_precision vision, fv_precision decoder, const char *dump_dir)
{
    ask a = { .dir = getenv("FV_FULL_CHECKPOINT"),
              .image = FULL "/scene.jpg",
              .prompt = json_string_value(json_object_get(want, "prompt")),
              .dump_dir = dump_dir,
              .vision = vision,
              .decoder = decoder,
              .ignore_eos = true,
              .fit = FV_FIT_PAD,
              .max_new = (int)json_array_size(
                  json_object_get(json_object_get(want, "greedy"), "ids")) };
    answer out = run_ask(&a);
    printf("vision %.0f ms, prefill %.0f ms, first token %.0f ms, decode %.0f ms\n",
           out.stats.vision_ms, out.stats.prefill_ms, out.stats.first_token_ms,
           out.stats.decode_ms);
    return out;
}

static void test_every_stage_f32(void **state)
{
    (void)state;
    char *dir = temp_dir();
    answer a = ask_full(FV_PRECISION_F32, FV_PRECISION_F32, dir);
    compare_stages(dir, "vision", 1e-4);
    compare_stage(dir, "image_tokens", json_object_get(want, "image_tokens"), 1e-4);
    compare_stages(dir, "decoder", 1e-4);
    compare_logits(dir, 1e-3);
    compare_ids(&a);
    assert_int_equal(a.stats.image_tokens, 256);
    temp_remove(dir);
}

/* The narrowest margin between two choices is 0.23, wide enough for 16-bit weights and
 * activations. */
static void test_same_ids_bf16(void **state)
{
    (void)state;
    answer a = ask_full(FV_PRECISION_BF16, FV_PRECISION_BF16, NULL);
    compare_ids(&a);
}

static void test_same_ids_f16(void **state)
{
    (void)state;
    answer a = ask_full(FV_PRECISION_F16, FV_PRECISION_F16, NULL);
    compare_ids(&a);
}

static void test_same_ids_auto(void **state)
{
    (void)state;
    answer a = ask_full(FV_PRECISION_AUTO, FV_PRECISION_AUTO, NULL);
    compare_ids(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_stage_f32),
        cmocka_unit_test(test_same_ids_bf16),
        cmocka_unit_test(test_same_ids_f16),
        cmocka_unit_test(test_same_ids_auto),
    };
    if (!getenv("FV_FULL_CHECKPOINT")) {
        printf("skip: FV_FULL_CHECKPOINT names no checkpoint\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, load, unload);
}
