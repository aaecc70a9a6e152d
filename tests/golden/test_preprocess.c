/* Preprocessing against the reference's own outputs: tests/data/tiny/pre_*.npy and the tiny
 * checkpoint's picture. Exact. */
#include "support/cm.h"

#include <stdio.h>
#include <string.h>

#include "image/image.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny/"

/* A .npy file of u8 [h, w, 3]: a header of text, then the bytes. */
typedef struct npy {
    uint8_t *file, *data;
    int h, w;
} npy;

static npy load(const char *name)
{
    char path[512], text[256] = "";
    npy a;
    size_t n;
    fv_error err;

    snprintf(path, sizeof path, TINY "%s", name);
    if (fv_read_file(&a.file, &n, path, 1 << 24, &err) != FV_OK)
        fail_msg("%s", err.message);
    size_t n_head = (size_t)a.file[8] | (size_t)a.file[9] << 8;
    assert_true(n > 10 + n_head && n_head < sizeof text);
    memcpy(text, a.file + 10, n_head);
    assert_non_null(strstr(text, "'|u1'"));
    assert_int_equal(sscanf(strstr(text, "'shape': ("), "'shape': (%d, %d, 3)", &a.h, &a.w), 2);
    assert_int_equal(n, 10 + n_head + (size_t)a.h * (size_t)a.w * 3);
    a.data = a.file + 10 + n_head;
    return a;
}

static void check_fit(const fv_image *image, fv_fit fit, const npy *want, const char *name)
{
    uint8_t *got = fv_alloc((size_t)want->w * (size_t)want->w, 3);
    fv_kernels kernels;

    assert_non_null(got);
    assert_int_equal(want->w, want->h);
    for (int best = 0; best < 2; best++) {
        fv_kernels_init(&kernels, best ? fv_cpu_detect() : 0);
        assert_int_equal(fv_fit_u8(got, image, FV_RECIPE(fit), want->w, NULL, &kernels, NULL),
                         FV_OK);
        if (memcmp(got, want->data, (size_t)want->w * (size_t)want->w * 3) != 0)
            fail_msg("%s: other pixels than the reference's", name);
    }
    fv_free(got);
}

static void golden_cases(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        fv_fit fit;
    } cases[] = {
        { "pre_100x37_64_pad", FV_FIT_PAD },   { "pre_20x13_48_pad", FV_FIT_PAD },
        { "pre_37x100_64_pad", FV_FIT_PAD },   { "pre_64x64_64_pad", FV_FIT_PAD },
        { "pre_50x131_32_crop", FV_FIT_CROP }, { "pre_90x70_64_crop", FV_FIT_CROP },
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_in.npy", cases[i].name);
        npy in = load(name);
        snprintf(name, sizeof name, "%s_out.npy", cases[i].name);
        npy out = load(name);
        fv_image *image;
        fv_pixels pixels = {
            .size = sizeof pixels, .width = in.w, .height = in.h, .plane = { in.data }
        };
        assert_int_equal(fv_image_wrap(&image, &pixels, NULL), FV_OK);
        check_fit(image, cases[i].fit, &out, cases[i].name);
        fv_image_free(image);
        fv_free(in.file);
        fv_free(out.file);
    }
}

static void tiny_picture(void **state)
{
    (void)state;
    static const char *const names[] = { "image.png", "image.ppm" };
    npy want = load("pixels_u8.npy");

    for (size_t i = 0; i < FV_COUNT(names); i++) {
        char path[512];
        fv_image *image;
        snprintf(path, sizeof path, TINY "%s", names[i]);
        assert_int_equal(fv_image_open(&image, path, NULL, NULL), FV_OK);
        check_fit(image, FV_FIT_PAD, &want, names[i]);
        fv_image_free(image);
    }
    fv_free(want.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(golden_cases),
                                        cmocka_unit_test(tiny_picture) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
