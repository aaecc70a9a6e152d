/* Decoding: what Pillow makes of every picture of tests/data/images/accept, and the message for
 * every file that is none. */
#include "support/cm.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/image.h"
#include "support/image_cases.h"

#define IMAGES FV_SOURCE_DIR "/tests/data/images/"

typedef struct file_bytes {
    uint8_t *data;
    size_t size;
} file_bytes;

static file_bytes load(const char *folder, const char *name)
{
    char path[512];
    file_bytes f;
    fv_error err;

    snprintf(path, sizeof path, IMAGES "%s/%s", folder, name);
    if (fv_read_file(&f.data, &f.size, path, 1 << 24, &err) != FV_OK)
        fail_msg("%s", err.message);
    return f;
}

/* Calls fn for every name in a folder; returns how many there were. */
static size_t each_file(const char *folder, void (*fn)(const char *name))
{
    char path[512];
    size_t n = 0;

    snprintf(path, sizeof path, IMAGES "%s", folder);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.') {
            fn(entry->d_name);
            n++;
        }
    closedir(dir);
    return n;
}

/* ---- pictures ---------------------------------------------------------------------------- */

static void expected_pixels(void **state)
{
    (void)state;
    FILE *list = open_cases();
    char line[256], kind[16], name[128];
    size_t n = 0;

    while (fgets(line, sizeof line, list)) {
        unsigned w, h, crc;
        if (sscanf(line, "%15s %127s %u %u %x", kind, name, &w, &h, &crc) != 5 ||
            (strcmp(kind, "decode") != 0 && strcmp(kind, "stored") != 0))
            continue;
        fv_image_options options = { .size = sizeof options,
                                     .ignore_exif = strcmp(kind, "stored") == 0 };
        char path[512];
        snprintf(path, sizeof path, IMAGES "accept/%s", name);
        fv_image *image;
        fv_error err;
        if (fv_image_open(&image, path, &options, &err) != FV_OK)
            fail_msg("%s", err.message);
        if (fv_image_width(image) != (int)w || fv_image_height(image) != (int)h)
            fail_msg("%s %s: %d x %d, expected %u x %u", kind, name, fv_image_width(image),
                     fv_image_height(image), w, h);
        if (crc32_of(fv_image_rgb(image), (size_t)w * h * 3) != crc)
            fail_msg("%s %s: other pixels than Pillow's", kind, name);
        assert_true(fv_image_decode_ms(image) >= 0);
        fv_image_free(image);
        n++;
    }
    fclose(list);
    assert_true(n > 120);
}

static void from_memory_and_standard_input(void **state)
{
    (void)state;
    file_bytes f = load("accept", "jpeg_420.jpg");
    fv_image *image, *piped;

    assert_int_equal(fv_image_read(&image, f.data, f.size, NULL, NULL), FV_OK);
    assert_string_equal(fv_image_format(image), "JPEG");
    assert_non_null(freopen(IMAGES "accept/jpeg_420.jpg", "rb", stdin));
    assert_int_equal(fv_image_open(&piped, "-", NULL, NULL), FV_OK);
    assert_memory_equal(fv_image_rgb(image), fv_image_rgb(piped), 61 * 43 * 3);
    fv_image_free(piped);
    fv_image_free(image);
    fv_free(f.data);
}

static void all_eight_orientations(void **state)
{
    (void)state;
    /* 1 2 3    what a viewer shows of it for each orientation, row by row */
    /* 4 5 6 */
    static const char *const want[9] = { "",       "123456", "321654", "654321", "456123",
                                         "142536", "415263", "635241", "362514" };
    for (int o = 0; o < 10; o++) {
        uint8_t rgb[18];
        for (int i = 0; i < 18; i++)
            rgb[i] = (uint8_t)("123456"[i / 3] + 10 * (i % 3));
        fv_image *image = image_of_rgb(rgb, 3, 2);
        assert_int_equal(fv_image_turn(image, o, NULL), FV_OK);
        assert_int_equal(image->width, o >= 5 && o <= 8 ? 2 : 3);
        assert_int_equal(image->height, o >= 5 && o <= 8 ? 3 : 2);
        for (int i = 0; i < 18; i++)
            assert_int_equal(image->rgb[i], want[o >= 1 && o <= 8 ? o : 1][i / 3] + 10 * (i % 3));
        fv_image_free(image);
    }
}

/* ---- files that are no pictures ---------------------------------------------------------- */

static const struct {
    const char *name;
    fv_status status;
    const char *says;
} refused[] = {
    { "empty.jpg", FV_ERR_FORMAT, "the file is empty, expected an image" },
    { "text.jpg", FV_ERR_FORMAT,
      "found text that starts with \"Hello, I am a le\", expected JPEG, PNG, WebP or PNM" },
    { "noise.bin", FV_ERR_FORMAT, "not an image: found bytes " },
    { "png_30000x30000.png", FV_ERR_LIMIT,
      "30000 x 30000 pixels are 900000000, the limit is 268435456" },
    { "png_70000x1.png", FV_ERR_LIMIT, "70000 x 1 pixels; a side may have up to 65535" },
    { "png_zero_width.png", FV_ERR_FORMAT, "0 x 5 pixels; expected at least one" },
    { "png_huge_chunk.png", FV_ERR_FORMAT, "PNG ends early" },
    { "png_bad_crc.png", FV_ERR_FORMAT, "damaged PNG" },
    { "png_no_ihdr.png", FV_ERR_FORMAT, "does not start with an IHDR" },
    { "png_short_pixels.png", FV_ERR_FORMAT, "damaged PNG: Not enough" },
    { "jpeg_30000x30000.jpg", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "jpeg_zero_height.jpg", FV_ERR_FORMAT, "damaged JPEG: Empty" },
    { "jpeg_taller_than_its_data.jpg", FV_ERR_FORMAT,
      "damaged JPEG: Corrupt JPEG data: premature end" },
    { "jpeg_only_markers.jpg", FV_ERR_FORMAT, "damaged JPEG: " },
    { "jpeg_lost_code.jpg", FV_ERR_FORMAT, "damaged JPEG: " },
    { "jpeg_lost_restart.jpg", FV_ERR_FORMAT, "damaged JPEG: " },
    { "jpeg_12bit.jpg", FV_ERR_FORMAT, "damaged JPEG: Unsupported JPEG data precision 12" },
    { "webp_huge_chunk.webp", FV_ERR_FORMAT, "the chunk at byte 12 claims 4294967280 bytes" },
    { "webp_huge_riff.webp", FV_ERR_FORMAT, "WebP ends early: its header claims 4294967288 bytes" },
    { "webp_no_picture.webp", FV_ERR_FORMAT, "it contains no image" },
    { "webp_huge_canvas.webp", FV_ERR_LIMIT, "100000 x 10 pixels" },
    { "webp_frame_outside_canvas.webp", FV_ERR_FORMAT, "leaves the canvas of 40 x 30" },
    { "webp_damaged.webp", FV_ERR_FORMAT, "damaged WebP: the image data is not VP8" },
    { "webp_lossless_cut_inside.webp", FV_ERR_FORMAT, "damaged WebP: the image data" },
    { "pnm_zero_height.ppm", FV_ERR_FORMAT, "5 x 0 pixels; expected at least one" },
    { "pnm_no_width.ppm", FV_ERR_FORMAT, "PNM header: width at byte 3 is not a number" },
    { "pnm_max70000.pgm", FV_ERR_FORMAT, "maximum value 70000, expected 1 to 65535" },
    { "pnm_60000x60000.ppm", FV_ERR_LIMIT, "60000 x 60000 pixels are 3600000000" },
    { "pnm_99999999999999999999x1.ppm", FV_ERR_LIMIT, "a side may have up to 65535" },
    { "gif.gif", FV_ERR_UNSUPPORTED, "this is a GIF" },
    { "bmp.bmp", FV_ERR_UNSUPPORTED, "this is a BMP" },
    { "tiff.tif", FV_ERR_UNSUPPORTED, "this is a TIFF" },
    { "heic_start.heic", FV_ERR_UNSUPPORTED, "this is a HEIC" },
};

static void check_refused(const char *name)
{
    size_t i = 0;
    while (i < FV_COUNT(refused) && strcmp(refused[i].name, name) != 0)
        i++;
    if (i == FV_COUNT(refused))
        fail_msg("reject/%s is not in the table", name);

    char path[512];
    snprintf(path, sizeof path, IMAGES "reject/%s", name);
    fv_image *image = (fv_image *)&path;
    fv_error err = { .message = "" };
    fv_status status = fv_image_open(&image, path, NULL, &err);
    assert_null(image);
    if (status != refused[i].status || !strstr(err.message, refused[i].says) ||
        !strstr(err.message, name))
        fail_msg("%s: %s \"%s\", expected %s \"... %s ...\"", name, fv_status_name(status),
                 err.message, fv_status_name(refused[i].status), refused[i].says);
    assert_int_equal(err.status, status);
    assert_int_equal(fv_image_open(&image, path, NULL, NULL), status);
}

static void refused_with_a_reason(void **state)
{
    (void)state;
    assert_int_equal(each_file("reject", check_refused), FV_COUNT(refused));
}

static void no_file(void **state)
{
    (void)state;
    fv_image *image;
    fv_error err;

    assert_int_equal(fv_image_open(&image, "no/such/picture.jpg", NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "no/such/picture.jpg"));
    assert_int_equal(fv_image_open(&image, FV_SOURCE_DIR "/tests", NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "is a directory, expected an image file"));
    assert_int_equal(fv_image_open(&image, "", NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_image_open(&image, NULL, NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_image_read(&image, NULL, 5, NULL, &err), FV_ERR_ARGUMENT);
    assert_int_equal(fv_image_read(&image, NULL, 0, NULL, &err), FV_ERR_FORMAT);
    assert_null(image);
}

static void pixel_limit(void **state)
{
    (void)state;
    static const char *const names[] = { "jpeg_420.jpg", "png_rgb8.png", "webp_lossy.webp",
                                         "webp_animated.webp", "pnm_p6.ppm" };
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        file_bytes f = load("accept", names[i]);
        fv_image_options options = { .size = sizeof options, .max_pixels = 246 };
        fv_image *image;
        fv_error err;
        assert_int_equal(fv_image_read(&image, f.data, f.size, &options, &err), FV_ERR_LIMIT);
        assert_non_null(strstr(err.message, "the limit is 246"));
        options.max_pixels = 61 * 43;
        assert_int_equal(fv_image_read(&image, f.data, f.size, &options, &err), FV_OK);
        fv_image_free(image);
        fv_free(f.data);
    }
}

/* Cut anywhere, a file is refused, except where only bytes after the picture are missing. The
 * block is exactly as long as the cut, so that ASan sees a read past it. */
static void check_truncated(const char *name)
{
    file_bytes f = load("accept", name);

    for (size_t n = 0; n < f.size; n++) {
        uint8_t *cut = fv_alloc(n, 1);
        fv_image *image = NULL;
        fv_error err = { .message = "" };
        assert_non_null(cut);
        memcpy(cut, f.data, n);
        fv_status status = fv_image_read(&image, cut, n, NULL, &err);
        if (status == FV_OK)
            fail_msg("%s: accepted with %zu of %zu bytes", name, n, f.size);
        if (status == FV_ERR_MEMORY || !err.message[0])
            fail_msg("%s, %zu bytes: %s %s", name, n, fv_status_name(status), err.message);
        fv_free(cut);
    }
    fv_free(f.data);
}

static void truncated_anywhere(void **state)
{
    (void)state;
    assert_true(each_file("accept", check_truncated) > 60);
}

/* The library never prints: standard error stays empty over all bad files. */
static void silent(void **state)
{
    (void)state;
    FILE *caught = tmpfile();
    assert_non_null(caught);
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(fileno(caught), STDERR_FILENO) >= 0);
    size_t n = 0;
    for (size_t i = 0; i < FV_COUNT(refused); i++) {
        file_bytes f = load("reject", refused[i].name);
        fv_image *image;
        n += fv_image_read(&image, f.data, f.size, NULL, NULL) != FV_OK;
        fv_free(f.data);
    }
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(n, FV_COUNT(refused));
    assert_int_equal(fseek(caught, 0, SEEK_END), 0);
    assert_int_equal(ftell(caught), 0);
    fclose(caught);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expected_pixels),
        cmocka_unit_test(from_memory_and_standard_input),
        cmocka_unit_test(all_eight_orientations),
        cmocka_unit_test(refused_with_a_reason),
        cmocka_unit_test(no_file),
        cmocka_unit_test(pixel_limit),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
