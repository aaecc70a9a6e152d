/* Fitting and resampling against Pillow's results, at every instruction level, on any number of
 * threads. */
#include "support/cm.h"

#include <string.h>

#include "image/image.h"
#include "support/image_cases.h"

static const unsigned levels[] = {
    0,
#if defined(__x86_64__)
    FV_CPU_AVX2,
    FV_CPU_AVX2 | FV_CPU_AVX512,
    FV_CPU_AVX2 | FV_CPU_AVX512 | FV_CPU_AVX512VNNI,
#elif defined(__aarch64__)
    FV_CPU_NEON,
    FV_CPU_NEON | FV_CPU_I8MM,
#endif
};

static fv_fit fit_of(const char *name)
{
    return strcmp(name, "pad") == 0    ? FV_FIT_PAD
           : strcmp(name, "crop") == 0 ? FV_FIT_CROP
                                       : FV_FIT_STRETCH;
}

static fv_image *patterned(unsigned w, unsigned h, unsigned seed)
{
    uint8_t *rgb = fv_alloc((size_t)w * h, 3);

    assert_non_null(rgb);
    fill_pattern(rgb, w, h, seed);
    fv_image *image = image_of_rgb(rgb, (int)w, (int)h);
    fv_free(rgb);
    return image;
}

/* Every line "fit" of expected.txt; sizes above max_size are left to the fast levels. */
static size_t check_cases(unsigned cpu, fv_pool *pool, unsigned max_size)
{
    FILE *list = open_cases();
    char line[256], kind[16];
    size_t n = 0;
    fv_kernels kernels;

    fv_kernels_init(&kernels, cpu);
    while (fgets(line, sizeof line, list)) {
        unsigned w, h, seed, size, crc;
        if (sscanf(line, "fit %15s %u %u %u %u %x", kind, &w, &h, &seed, &size, &crc) != 6 ||
            size > max_size)
            continue;
        fv_image *image = patterned(w, h, seed);
        uint8_t *got = fv_alloc((size_t)size * size, 3);
        fv_error err;
        assert_non_null(got);
        if (fv_fit_u8(got, image, FV_RECIPE(fit_of(kind)), (int)size, pool, &kernels, &err) !=
            FV_OK)
            fail_msg("%s", err.message);
        if (crc32_of(got, (size_t)size * size * 3) != crc)
            fail_msg("level %s, %u threads: other pixels than Pillow's: %s", fv_cpu_name(cpu),
                     pool ? fv_pool_threads(pool) : 0, line);
        fv_free(got);
        fv_image_free(image);
        n++;
    }
    fclose(list);
    return n;
}

static void as_pillow_at_every_level(void **state)
{
    (void)state;
    unsigned have = fv_cpu_detect();

    for (size_t i = 0; i < FV_COUNT(levels); i++) {
        if ((levels[i] & have) != levels[i]) {
            print_message("skip: this processor has no %s\n", fv_cpu_name(levels[i]));
            continue;
        }
        size_t n = check_cases(levels[i], NULL, levels[i] ? 4096 : 256);
        assert_true(n >= 216);
    }
}

static void as_pillow_on_any_number_of_threads(void **state)
{
    (void)state;
    for (int n = 1; n <= 5; n++) {
        fv_pool *pool;
        assert_int_equal(fv_pool_new(&pool, n, NULL), FV_OK);
        assert_true(check_cases(fv_cpu_detect(), pool, n == 2 ? 4096 : 256) >= 216);
        fv_pool_free(pool);
    }
}

/* The longest pictures there may be. In the middle of a crop only near rows count, so a short
 * piece of the picture gives the same; padded, the line is too thin to be seen; a plain colour
 * stays what it is when stretched. */
static void longest_sides(void **state)
{
    (void)state;
    enum { LONG = 65535, PIECE = 101, S = 8 };
    fv_kernels kernels;
    uint8_t out[S * S * 3], want[S * S * 3];

    fv_kernels_init(&kernels, fv_cpu_detect());
    for (int upright = 0; upright < 2; upright++) {
        fv_image *image = upright ? patterned(1, LONG, 2) : patterned(LONG, 1, 2);
        const uint8_t *middle = fv_image_rgb(image) + (LONG - PIECE) / 2 * 3;
        fv_image *piece = image_of_rgb(middle, upright ? 1 : PIECE, upright ? PIECE : 1);
        assert_int_equal(fv_fit_u8(out, image, FV_RECIPE(FV_FIT_CROP), S, NULL, &kernels, NULL),
                         FV_OK);
        assert_int_equal(fv_fit_u8(want, piece, FV_RECIPE(FV_FIT_CROP), S, NULL, &kernels, NULL),
                         FV_OK);
        assert_memory_equal(out, want, sizeof out);

        assert_int_equal(fv_fit_u8(out, image, FV_RECIPE(FV_FIT_PAD), S, NULL, &kernels, NULL),
                         FV_OK);
        for (size_t i = 0; i < sizeof out; i++)
            assert_int_equal(out[i], 0);

        memset(image->rgb, 77, LONG * 3);
        assert_int_equal(fv_fit_u8(out, image, FV_RECIPE(FV_FIT_STRETCH), S, NULL, &kernels, NULL),
                         FV_OK);
        for (size_t i = 0; i < sizeof out; i++)
            assert_int_equal(out[i], 77);
        fv_image_free(piece);
        fv_image_free(image);
    }
}

static void scaled_like_the_reference(void **state)
{
    (void)state;
    uint8_t u8[258] = { 0 };
    float f32[258];

    for (int i = 0; i < 256; i++)
        u8[i] = (uint8_t)(255 - i);
    fv_pixels_f32(f32, u8, 86, FV_RECIPE(FV_FIT_PAD));
    int n_other = 0; /* values that float arithmetic would give otherwise */
    for (int i = 0; i < 256; i++) {
        assert_true(f32[i] == (float)((double)(255 - i) * (1.0 / 255)));
        n_other += f32[i] != (float)(255 - i) * (1.0f / 255);
    }
    assert_true(f32[0] == 1.0f && f32[255] == 0.0f && n_other > 0);
}

static void both_steps(void **state)
{
    (void)state;
    fv_kernels kernels;
    fv_image *image = patterned(50, 31, 4);
    uint8_t u8[24 * 24 * 3], again[24 * 24 * 3];
    float pixels[24 * 24 * 3], own[24 * 24 * 3];
    fv_error err;

    fv_kernels_init(&kernels, fv_cpu_detect());
    assert_int_equal(fv_fit_u8(again, image, FV_RECIPE(FV_FIT_PAD), 24, NULL, &kernels, NULL),
                     FV_OK);
    assert_int_equal(
        fv_preprocess(pixels, u8, image, FV_RECIPE(FV_FIT_PAD), 24, NULL, &kernels, NULL), FV_OK);
    assert_int_equal(
        fv_preprocess(own, NULL, image, FV_RECIPE(FV_FIT_PAD), 24, NULL, &kernels, NULL), FV_OK);
    assert_memory_equal(u8, again, sizeof u8);
    assert_memory_equal(pixels, own, sizeof own);
    for (size_t i = 0; i < FV_COUNT(u8); i++)
        assert_true(pixels[i] == (float)(u8[i] * (1.0 / 255)));
    /* Padding is black: 50 x 31 leaves 9 rows of 50 free above, which are 4 of 24 and a bit. */
    for (size_t i = 0; i < 3 * 24 * 3; i++)
        assert_int_equal(u8[i], 0);

    assert_int_equal(
        fv_preprocess(pixels, u8, image, FV_RECIPE(FV_FIT_AUTO), 24, NULL, &kernels, &err),
        FV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "expected pad, crop or stretch"));
    assert_int_equal(
        fv_preprocess(pixels, NULL, image, FV_RECIPE(FV_FIT_PAD), 0, NULL, &kernels, &err),
        FV_ERR_ARGUMENT);
    assert_int_equal(fv_fit_u8(u8, image, FV_RECIPE(FV_FIT_PAD), 20000, NULL, &kernels, &err),
                     FV_ERR_ARGUMENT);
    fv_image_free(image);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    fv_kernels kernels;
    fv_image *image = patterned(50, 31, 4);
    float pixels[24 * 24 * 3];
    int64_t live = fv_mem_live();

    fv_kernels_init(&kernels, 0);
    uint64_t n = 0;
    fv_status status;
    do {
        fv_error err = { .message = "" };
        fv_mem_fail_after(n++);
        status = fv_preprocess(pixels, NULL, image, FV_RECIPE(FV_FIT_PAD), 24, NULL, &kernels,
                               &err);
        fv_mem_fail_after(UINT64_MAX);
        assert_int_equal(fv_mem_live(), live);
        assert_true(status == FV_OK || (status == FV_ERR_MEMORY && err.message[0]));
    } while (status != FV_OK && n < 100);
    assert_int_equal(status, FV_OK);
    assert_true(n > 4);
    fv_image_free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_pillow_at_every_level),
        cmocka_unit_test(as_pillow_on_any_number_of_threads),
        cmocka_unit_test(longest_sides),
        cmocka_unit_test(scaled_like_the_reference),
        cmocka_unit_test(both_steps),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
