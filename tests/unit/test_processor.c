/* model/processor.c with image/preprocess.c: the pixels of transformers' own image processor, bit
 * for bit, for every setting that is carried out, from the checkpoint's file and from a packed one.
 * */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "model/config.h"
#include "model/config_gguf.h"
#include "model/processor.h"
#include "support/golden.h"
#include "support/image_cases.h"

/* tools/reference/make_processor_cases.py has the format and makes them. */
#define CASES FV_SOURCE_DIR "/tests/data/processor/cases.txt"

static const char config_text[] =
    "{\"model_type\": \"fast_vlm\", \"text_config\": {\"hidden_size\": 64, \"intermediate_size\": "
    "64,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 320}}";

static fv_config config_with(const char *processor)
{
    fv_config c;
    fv_error err = { 0 };
    fv_config_files files = { .config = { config_text, sizeof config_text - 1 },
                              .preprocessor = { processor, strlen(processor) } };
    if (fv_config_parse(&c, &files, "config.json", &err) != FV_OK)
        fail_msg("%s: %s", processor, err.message);
    return c;
}

/* As a packed file gives it back. */
static fv_config packed_again(const fv_config *c)
{
    char *dir = temp_dir(), *path = fv_path_join(dir, "x.gguf");
    fv_gguf_writer *w = NULL;
    fv_gguf *g = NULL;
    fv_config again = { 0 };
    fv_error err = { 0 };
    fv_status status = fv_gguf_writer_new(&w, path, &err);
    if (status == FV_OK) {
        fv_gguf_put_string(w, "general.architecture", "fastvlm", 7);
        fv_config_write_gguf(c, w);
        status = fv_gguf_begin_data(w, &err);
    }
    if (status == FV_OK)
        status = fv_gguf_finish(w, &err);
    if (status == FV_OK)
        status = fv_gguf_open(&g, path, &err);
    if (status == FV_OK)
        status = fv_config_read_gguf(&again, g, &err);
    if (status != FV_OK)
        fail_msg("%s", err.message);
    fv_gguf_free(g);
    fv_gguf_writer_free(w);
    fv_free(path);
    temp_remove(dir);
    return again;
}

static uint32_t pixels_crc(const fv_config *c, const fv_image *image, const fv_kernels *kernels)
{
    size_t n = (size_t)c->image_size * (size_t)c->image_size * 3;
    float *pixels = fv_alloc(n, sizeof *pixels);
    fv_error err = { 0 };
    assert_non_null(pixels);
    if (fv_preprocess(pixels, NULL, image, &c->recipe, c->image_size, NULL, kernels, &err) != FV_OK)
        fail_msg("%s", err.message);
    uint32_t crc = crc32_of((const uint8_t *)pixels, n * sizeof *pixels);
    fv_free(pixels);
    return crc;
}

static void test_pixels_are_transformers(void **state)
{
    (void)state;
    FILE *list = fopen(CASES, "r");
    char line[1024];
    fv_kernels kernels;
    size_t n = 0;
    assert_non_null(list);
    fv_kernels_init(&kernels, fv_cpu_level(NULL));
    while (fgets(line, sizeof line, list)) {
        unsigned w, h, seed, crc;
        int at = 0;
        assert_int_equal(sscanf(line, "%u %u %u %x %n", &w, &h, &seed, &crc, &at), 4);
        uint8_t *rgb = fv_alloc((size_t)w * h, 3);
        assert_non_null(rgb);
        fill_pattern(rgb, w, h, seed);
        fv_image *image = image_of_rgb(rgb, (int)w, (int)h);
        fv_config c = config_with(line + at), again = packed_again(&c);
        uint32_t got = pixels_crc(&c, image, &kernels);
        if (got != crc)
            fail_msg("%s: %08x", line, got);
        if (pixels_crc(&again, image, &kernels) != crc)
            fail_msg("packed: %s", line);
        fv_image_free(image);
        fv_free(rgb);
        n++;
    }
    fclose(list);
    assert_true(n > 500);
}

/* What is written is read back. */
static void test_comes_back(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"crop_size\": 256, \"size\": 256, \"image_mean\": 0.5, \"image_std\": [0.25, 1, 2]}",
        ("{\"crop_size\": 256, \"size\": [300, 400], \"resample\": 1, \"rescale_factor\": "
         "0.0078125}"),
        "{\"crop_size\": 256, \"size\": [256, 256], \"resample\": 0, \"do_rescale\": false}",
        "{\"crop_size\": 256, \"do_resize\": false, \"do_normalize\": false}",
        "{\"crop_size\": 256, \"size\": 288, \"resample\": 4}",
    };
    for (size_t i = 0; i < FV_COUNT(texts); i++) {
        fv_json_text j = { 0 };
        fv_error err = { 0 };
        fv_config c = config_with(texts[i]);
        fv_json_begin(&j, NULL, '{');
        fv_processor_put_clip(&j, &c);
        fv_json_end(&j);
        assert_int_equal(fv_json_done(&j, &err), FV_OK);
        fv_config again = config_with(j.text);
        const fv_recipe *a = &c.recipe, *b = &again.recipe;
        bool same = a->fit == b->fit && a->filter == b->filter && a->n_scale == b->n_scale &&
                    a->rescale == b->rescale && c.image_size == again.image_size &&
                    !memcmp(a->scale, b->scale, (size_t)a->n_scale * sizeof *a->scale) &&
                    !memcmp(a->mean, b->mean, sizeof a->mean) &&
                    !memcmp(a->std, b->std, sizeof a->std);
        if (!same)
            fail_msg("%s came back as %s", texts[i], j.text);
        fv_json_text_free(&j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels_are_transformers),
        cmocka_unit_test(test_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
