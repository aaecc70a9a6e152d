/* image/pixels.c: pixels of the caller's in every format, turn and layout, against images that own
 * the same pixels as RGB. */
#include "support/cm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "support/image_cases.h"

static const struct {
    int w, h;
} sizes[] = { { 1, 1 }, { 2, 1 }, { 1, 3 }, { 3, 2 }, { 5, 7 }, { 16, 9 }, { 33, 31 } };

static const fv_pixel_format formats[] = { FV_PIXELS_RGB,  FV_PIXELS_BGR,  FV_PIXELS_RGBA,
                                           FV_PIXELS_BGRA, FV_PIXELS_GRAY, FV_PIXELS_RGB_F32,
                                           FV_PIXELS_NV12, FV_PIXELS_NV21 };

static size_t bytes_of_pixel(fv_pixel_format format)
{
    switch (format) {
    case FV_PIXELS_RGB:
    case FV_PIXELS_BGR: return 3;
    case FV_PIXELS_RGBA:
    case FV_PIXELS_BGRA: return 4;
    case FV_PIXELS_RGB_F32: return 12;
    default: return 1;
    }
}

static uint32_t noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 24;
}

/* BT.601 from its definition, in double: Kr = 0.299, Kb = 0.114; the value before rounding. */
static void exact_rgb(double rgb[3], int luma, int u, int v)
{
    const double kr = 0.299, kb = 0.114, kg = 1 - kr - kb;
    double y = (luma - 16) / 219.0, pb = (u - 128) / 224.0, pr = (v - 128) / 224.0;
    rgb[0] = y + 2 * (1 - kr) * pr;
    rgb[2] = y + 2 * (1 - kb) * pb;
    rgb[1] = (y - kr * rgb[0] - kb * rgb[2]) / kg;
    for (int c = 0; c < 3; c++)
        rgb[c] = fmin(fmax(rgb[c] * 255, 0), 255);
}

/* What the library makes of one pixel; yuv_against_the_definition checks it. */
static void convert_one(uint8_t *rgb, uint8_t luma, uint8_t u, uint8_t v)
{
    uint8_t pair[2] = { u, v };
    fv_image *image;
    fv_pixels p = { .size = sizeof p,
                    .format = FV_PIXELS_NV12,
                    .width = 1,
                    .height = 1,
                    .plane = { &luma, pair } };
    size_t ld;
    assert_int_equal(fv_image_wrap(&image, &p, NULL), FV_OK);
    fv_image_rows(image, 0, 1, rgb, &ld);
    fv_image_free(image);
}

/* The caller's side: pixels in a block that ends where the last row does, and the same as RGB. */
typedef struct given {
    fv_pixels pixels;
    uint8_t *block[2];
    uint8_t *rgb; /* [h, w, 3] */
} given;

/* A block of n_rows rows with a gap of bytes between them; the top row is the last when up. */
static void give_plane(given *g, int plane, size_t row_bytes, size_t n_rows, size_t gap, bool up,
                       uint32_t *seed)
{
    size_t stride = row_bytes + gap, n = stride * (n_rows - 1) + row_bytes;
    g->block[plane] = malloc(n);
    assert_non_null(g->block[plane]);
    for (size_t i = 0; i < n; i++)
        g->block[plane][i] = (uint8_t)noise(seed);
    g->pixels.plane[plane] = g->block[plane] + (up ? stride * (n_rows - 1) : 0);
    g->pixels.stride_bytes[plane] = up ? -(ptrdiff_t)stride : gap ? (ptrdiff_t)stride : 0;
    if (up && gap == 0)
        g->pixels.stride_bytes[plane] = -(ptrdiff_t)row_bytes;
}

static uint8_t *given_row(const given *g, int plane, size_t row_bytes, int y)
{
    ptrdiff_t stride = g->pixels.stride_bytes[plane];
    return (uint8_t *)(uintptr_t)g->pixels.plane[plane] +
           y * (stride ? stride : (ptrdiff_t)row_bytes);
}

static given give(fv_pixel_format format, int w, int h, size_t gap, bool up, uint32_t seed)
{
    given g = { .pixels = { .size = sizeof g.pixels, .format = format, .width = w, .height = h } };
    size_t each = bytes_of_pixel(format), row = each * (size_t)w, chroma = ((size_t)w + 1) / 2 * 2;
    bool yuv = format == FV_PIXELS_NV12 || format == FV_PIXELS_NV21;

    give_plane(&g, 0, row, (size_t)h, gap, up, &seed);
    if (yuv)
        give_plane(&g, 1, chroma, ((size_t)h + 1) / 2, gap, up, &seed);
    g.rgb = malloc((size_t)w * (size_t)h * 3);
    assert_non_null(g.rgb);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *to = g.rgb + ((size_t)y * (size_t)w + (size_t)x) * 3;
            uint8_t *from = given_row(&g, 0, row, y) + (size_t)x * each;
            switch (format) {
            case FV_PIXELS_GRAY: to[0] = to[1] = to[2] = from[0]; break;
            case FV_PIXELS_RGB_F32:
                for (int c = 0; c < 3; c++) {
                    to[c] = (uint8_t)noise(&seed);
                    float value = (float)to[c] / 255;
                    memcpy(from + c * 4, &value, 4);
                }
                break;
            case FV_PIXELS_NV12:
            case FV_PIXELS_NV21: {
                const uint8_t *pair = given_row(&g, 1, chroma, y / 2) + x / 2 * 2;
                bool first_u = format == FV_PIXELS_NV12;
                convert_one(to, from[0], pair[!first_u], pair[first_u]);
                break;
            }
            default: {
                bool blue_first = format == FV_PIXELS_BGR || format == FV_PIXELS_BGRA;
                for (int c = 0; c < 3; c++)
                    to[c] = from[blue_first ? 2 - c : c];
            }
            }
        }
    return g;
}

static void give_back(given *g)
{
    free(g->block[0]);
    free(g->block[1]);
    free(g->rgb);
}

/* Every row of image, in blocks of m, is the row of want, which owns its pixels. */
static void assert_rows(const fv_image *image, const fv_image *want, size_t m, const char *what)
{
    size_t w = (size_t)want->width, h = (size_t)want->height;
    uint8_t *scratch = malloc(w * 3 * FV_IMAGE_ROWS);
    assert_non_null(scratch);
    assert_int_equal(image->width, want->width);
    assert_int_equal(image->height, want->height);
    for (size_t y = 0; y < h; y += m) {
        size_t n = FV_MIN(m, h - y), ld;
        const uint8_t *rows = fv_image_rows(image, y, n, scratch, &ld);
        for (size_t i = 0; i < n; i++)
            if (memcmp(rows + i * ld, want->rgb + (y + i) * w * 3, w * 3) != 0)
                fail_msg("%s: row %zu of %zu x %zu differs", what, y + i, w, h);
    }
    free(scratch);
}

static void every_format_turn_and_layout(void **state)
{
    (void)state;
    static const size_t gaps[] = { 0, 1, 13 };
    uint32_t seed = 1;
    size_t n_plain = 0;

    for (size_t f = 0; f < FV_COUNT(formats); f++)
        for (size_t s = 0; s < FV_COUNT(sizes); s++)
            for (int layout = 0; layout < 6; layout++)
                for (int turn = 0; turn <= 8; turn++) {
                    char what[64];
                    given g = give(formats[f], sizes[s].w, sizes[s].h, gaps[layout / 2],
                                   layout % 2 == 1, seed++);
                    fv_image *image, *want;
                    fv_error err;
                    g.pixels.orientation = turn;
                    if (fv_image_wrap(&image, &g.pixels, &err) != FV_OK)
                        fail_msg("%s", err.message);
                    assert_null(fv_image_rgb(image));
                    want = image_of_rgb(g.rgb, sizes[s].w, sizes[s].h);
                    assert_int_equal(fv_image_turn(want, turn, NULL), FV_OK);
                    snprintf(what, sizeof what, "%s, layout %d, turn %d", fv_image_format(image),
                             layout, turn);
                    for (size_t m = 1; m <= FV_IMAGE_ROWS; m += FV_IMAGE_ROWS - 1)
                        assert_rows(image, want, m, what);
                    n_plain += fv_image_is_plain(image);
                    fv_image_free(want);
                    fv_image_free(image);
                    give_back(&g);
                }
    /* RGB with rows that ascend and no turn (0 or 1) needs no copy of a row. */
    assert_int_equal(n_plain, FV_COUNT(sizes) * FV_COUNT(gaps) * 2);
}

/* The encoder's input has the same bits whoever owns the pixels. */
static void same_input_of_the_encoder(void **state)
{
    (void)state;
    enum { S = 64 };
    static const int turns[] = { 1, 3, 6 };
    static uint8_t got[S * S * 3], want[S * S * 3];
    fv_kernels kernels;
    fv_pool *pool;

    fv_kernels_init(&kernels, fv_cpu_detect());
    assert_int_equal(fv_pool_new(&pool, 3, NULL), FV_OK);
    for (size_t f = 0; f < FV_COUNT(formats); f++)
        for (size_t t = 0; t < FV_COUNT(turns); t++)
            for (fv_fit fit = FV_FIT_PAD; fit <= FV_FIT_STRETCH; fit++) {
                given g = give(formats[f], 201, 134, f % 2 ? 5 : 0, f % 3 == 1, (uint32_t)f);
                fv_image *image, *owned = image_of_rgb(g.rgb, 201, 134);
                g.pixels.orientation = turns[t];
                assert_int_equal(fv_image_wrap(&image, &g.pixels, NULL), FV_OK);
                assert_int_equal(fv_image_turn(owned, turns[t], NULL), FV_OK);
                assert_int_equal(fv_fit_u8(want, owned, FV_RECIPE(fit), S, NULL, &kernels, NULL),
                                 FV_OK);
                for (int threads = 0; threads < 2; threads++) {
                    memset(got, 0, sizeof got);
                    assert_int_equal(fv_fit_u8(got, image, FV_RECIPE(fit), S, threads ? pool : NULL,
                                               &kernels, NULL),
                                     FV_OK);
                    assert_memory_equal(got, want, sizeof got);
                }
                fv_image_free(image);
                fv_image_free(owned);
                give_back(&g);
            }
    fv_pool_free(pool);
}

/* Half a step from the exact value, and what the 16 bits of the coefficients lose. */
static void yuv_against_the_definition(void **state)
{
    (void)state;
    double worst = 0;

    for (int u = 0; u < 256; u += 3)
        for (int v = 0; v < 256; v += 3)
            for (int y = 0; y < 256; y++) {
                double want[3];
                uint8_t rgb[3];
                convert_one(rgb, (uint8_t)y, (uint8_t)u, (uint8_t)v);
                exact_rgb(want, y, u, v);
                for (int c = 0; c < 3; c++)
                    worst = fmax(worst, fabs(rgb[c] - want[c]));
            }
    assert_true(worst < 0.502);
}

static void floats(void **state)
{
    (void)state;
    static const struct {
        float from;
        uint8_t to;
    } cases[] = {
        { 0, 0 },
        { 1, 255 },
        { -0.0f, 0 },
        { -1, 0 },
        { 2, 255 },
        { INFINITY, 255 },
        { -INFINITY, 0 },
        { NAN, 0 },
        { 0.5f, 128 },
        { 0.25f, 64 },
        { 1e-30f, 0 },
        { 0.4f / 255, 0 },
        { 0.6f / 255, 1 },
        { 254.4f / 255, 254 },
        { 254.6f / 255, 255 },
        { 1.00001f, 255 },
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        float rgb[3] = { cases[i].from, cases[i].from, 0 };
        uint8_t row[3];
        size_t ld;
        fv_image *image;
        fv_pixels p = {
            .size = sizeof p, .format = FV_PIXELS_RGB_F32, .width = 1, .height = 1, .plane = { rgb }
        };
        assert_int_equal(fv_image_wrap(&image, &p, NULL), FV_OK);
        fv_image_rows(image, 0, 1, row, &ld);
        if (row[0] != cases[i].to || row[1] != cases[i].to || row[2] != 0)
            fail_msg("%g becomes %u, expected %u", (double)cases[i].from, row[0], cases[i].to);
        fv_image_free(image);
    }
}

static void hostile_values(void **state)
{
    (void)state;
    static uint8_t some[64];
    const void *high = (const void *)(UINTPTR_MAX - 15), *low = (const void *)(uintptr_t)16;
    const struct {
        fv_pixels pixels;
        fv_status status;
        const char *message;
    } cases[] = {
        { { .width = 1, .height = 1 }, FV_ERR_ARGUMENT, "plane[0] is NULL; RGB" },
        { { .width = 0, .height = 1, .plane = { some } }, FV_ERR_ARGUMENT, "0 x 1" },
        { { .width = 1, .height = -1, .plane = { some } }, FV_ERR_ARGUMENT, "1 x -1" },
        { { .width = INT32_MIN, .height = 1, .plane = { some } }, FV_ERR_ARGUMENT, "x 1" },
        { { .width = 65536, .height = 1, .plane = { some } }, FV_ERR_LIMIT, "65536 x 1" },
        { { .width = 1, .height = INT32_MAX, .plane = { some } }, FV_ERR_LIMIT, "65535" },
        { { .format = (fv_pixel_format)8, .width = 1, .height = 1, .plane = { some } },
          FV_ERR_ARGUMENT,
          "format is 8" },
        { { .format = (fv_pixel_format)-1, .width = 1, .height = 1, .plane = { some } },
          FV_ERR_ARGUMENT,
          "format is -1" },
        { { .width = 2, .height = 2, .plane = { some }, .orientation = 9 },
          FV_ERR_ARGUMENT,
          "orientation is 9" },
        { { .width = 2, .height = 2, .plane = { some }, .orientation = -1 },
          FV_ERR_ARGUMENT,
          "orientation is -1" },
        { { .width = 3, .height = 2, .plane = { some }, .stride_bytes = { 8 } },
          FV_ERR_ARGUMENT,
          "stride_bytes[0] is 8; a row of 3 RGB pixels has 9 bytes" },
        { { .width = 3, .height = 2, .plane = { some }, .stride_bytes = { -8 } },
          FV_ERR_ARGUMENT,
          "stride_bytes[0] is -8" },
        { { .width = 3, .height = 2, .plane = { some }, .stride_bytes = { PTRDIFF_MAX } },
          FV_ERR_ARGUMENT,
          "leave the address space" },
        { { .width = 3, .height = 2, .plane = { some }, .stride_bytes = { PTRDIFF_MIN } },
          FV_ERR_ARGUMENT,
          "leave the address space" },
        { { .width = 3,
            .height = 65535,
            .plane = { some },
            .stride_bytes = { PTRDIFF_MAX / 65533 } },
          FV_ERR_ARGUMENT,
          "leave the address space" },
        { { .width = 6, .height = 1, .plane = { high } },
          FV_ERR_ARGUMENT,
          "leave the address space" },
        { { .width = 5, .height = 2, .plane = { high } },
          FV_ERR_ARGUMENT,
          "leave the address space" },
        { { .width = 5, .height = 3, .plane = { low }, .stride_bytes = { -15 } },
          FV_ERR_ARGUMENT,
          "leave the address space" },
        { { .format = FV_PIXELS_NV12, .width = 4, .height = 4, .plane = { some } },
          FV_ERR_ARGUMENT,
          "plane[1] is NULL; NV12" },
        { { .format = FV_PIXELS_NV21,
            .width = 5,
            .height = 4,
            .plane = { some, some },
            .stride_bytes = { 5, 5 } },
          FV_ERR_ARGUMENT,
          "stride_bytes[1] is 5; a row of 5 NV21 pixels has 6 bytes" },
    };
    fv_error err;
    fv_image *image = (fv_image *)1;
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_pixels p = cases[i].pixels;
        p.size = sizeof p;
        assert_int_equal(fv_image_wrap(&image, &p, &err), cases[i].status);
        assert_null(image);
        if (!strstr(err.message, cases[i].message))
            fail_msg("\"%s\" lacks \"%s\"", err.message, cases[i].message);
    }
    fv_pixels p = { .width = 1, .height = 1, .plane = { some } };
    assert_int_equal(fv_image_wrap(&image, &p, &err), FV_ERR_ARGUMENT); /* size 0 */
    assert_int_equal(fv_image_wrap(&image, NULL, &err), FV_ERR_ARGUMENT);
    p.size = sizeof p;
    assert_int_equal(fv_image_wrap(NULL, &p, &err), FV_ERR_ARGUMENT);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    given g = give(FV_PIXELS_BGRA, 40, 30, 3, true, 5);
    fv_kernels kernels;
    uint8_t out[16 * 16 * 3];
    int64_t live = fv_mem_live();
    uint64_t n = 0;
    fv_status status;

    fv_kernels_init(&kernels, 0);
    do {
        fv_image *image;
        fv_mem_fail_after(n++);
        status = fv_image_wrap(&image, &g.pixels, NULL);
        if (status == FV_OK)
            status = fv_fit_u8(out, image, FV_RECIPE(FV_FIT_PAD), 16, NULL, &kernels, NULL);
        fv_mem_fail_after(UINT64_MAX);
        fv_image_free(image);
        assert_int_equal(fv_mem_live(), live);
        assert_true(status == FV_OK || status == FV_ERR_MEMORY);
    } while (status != FV_OK && n < 100);
    assert_int_equal(status, FV_OK);
    assert_true(n > 4);
    give_back(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_turn_and_layout),
        cmocka_unit_test(same_input_of_the_encoder),
        cmocka_unit_test(yuv_against_the_definition),
        cmocka_unit_test(floats),
        cmocka_unit_test(hostile_values),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
