/* Decoding: what Pillow makes of every image of tests/data/images/accept, and the message for
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

/* Whether this build and machine read the format that a file's name ends in. */
static bool format_is_read(const char *name)
{
    static const struct {
        const char *ending, *format;
    } endings[] = {
        { ".gif", "GIF" }, { ".tif", "TIFF" }, { ".heic", "HEIC" }, { ".avif", "AVIF" }
    };
    const char *dot = strrchr(name, '.'), *format;

    for (size_t i = 0; i < FV_COUNT(endings); i++)
        if (!strcmp(dot, endings[i].ending))
            for (size_t k = 0; fv_image_format_check(k, &format, NULL) != FV_ERR_ARGUMENT; k++)
                if (!strcmp(format, endings[i].format))
                    return fv_image_format_check(k, &format, NULL) == FV_OK;
    return true;
}

/* ---- images ---------------------------------------------------------------------------- */

static void expected_pixels(void **state)
{
    (void)state;
    FILE *list = open_cases();
    char line[256], kind[16], name[128];
    size_t n = 0;

    while (fgets(line, sizeof line, list)) {
        unsigned w, h, crc;
        if (sscanf(line, "%15s %127s %u %u %x", kind, name, &w, &h, &crc) != 5 ||
            (strcmp(kind, "decode") != 0 && strcmp(kind, "stored") != 0) || !format_is_read(name))
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
    assert_true(n > (format_is_read("x.tif") ? 370 : 240));
}

/* Formats whose decoders may round otherwise than the reference's: no byte is further off than the
 * list says. */
static void near_pixels(void **state)
{
    (void)state;
    FILE *list = open_cases();
    char line[256], kind[16], name[128];
    size_t n = 0;

    while (fgets(line, sizeof line, list)) {
        int w, h, most, worst = 0;
        char path[512];
        fv_image *image, *want;
        fv_error err;
        if (sscanf(line, "%15s %127s %d %d %d", kind, name, &w, &h, &most) != 5 ||
            strcmp(kind, "near") != 0 || !format_is_read(name))
            continue;
        snprintf(path, sizeof path, IMAGES "near/%s.png", name);
        assert_int_equal(fv_image_open(&want, path, NULL, NULL), FV_OK);
        snprintf(path, sizeof path, IMAGES "accept/%s", name);
        if (fv_image_open(&image, path, NULL, &err) != FV_OK)
            fail_msg("%s", err.message);
        if (image->width != w || image->height != h || want->width != w || want->height != h)
            fail_msg("%s: %d x %d, expected %d x %d", name, image->width, image->height, w, h);
        for (int i = 0; i < w * h * 3; i++)
            worst = FV_MAX(worst, abs(image->rgb[i] - want->rgb[i]));
        if (worst > most)
            fail_msg("%s: a byte is %d away from the reference, expected at most %d", name, worst,
                     most);
        fv_image_free(image);
        fv_image_free(want);
        n++;
    }
    fclose(list);
    if (format_is_read("x.heic"))
        assert_true(n >= 25);
}

static void from_memory(void **state)
{
    (void)state;
    file_bytes f = load("accept", "jpeg_420.jpg");
    fv_image *image, *opened;

    assert_int_equal(fv_image_read(&image, f.data, f.size, NULL, NULL), FV_OK);
    assert_string_equal(fv_image_format(image), "JPEG");
    assert_int_equal(fv_image_open(&opened, IMAGES "accept/jpeg_420.jpg", NULL, NULL), FV_OK);
    assert_memory_equal(fv_image_rgb(image), fv_image_rgb(opened), 61 * 43 * 3);
    fv_image_free(opened);
    fv_image_free(image);
    fv_free(f.data);
}

/* A path is a path: what "-" means is the program's business. Devices have no end. */
static void paths_that_are_no_files(void **state)
{
    (void)state;
    static const struct {
        const char *path, *message;
    } cases[] = {
        { "-", "-: cannot open: No such file" },   { "/dev/zero", "/dev/zero: is a device" },
        { "/dev/null", "/dev/null: is a device" }, { "/dev/tty", "/dev/tty: " },
        { "/tmp", "/tmp: is a directory" },
    };
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_image *image;
        fv_error err;
        assert_int_equal(fv_image_open(&image, cases[i].path, NULL, &err), FV_ERR_IO);
        if (!strstr(err.message, cases[i].message))
            fail_msg("\"%s\" lacks \"%s\"", err.message, cases[i].message);
    }
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

/* ---- files that are no images ---------------------------------------------------------- */

static const struct {
    const char *name;
    fv_status status;
    const char *says;
} refused[] = {
    { "empty.jpg", FV_ERR_FORMAT, "the file is empty, expected an image" },
    { "text.jpg", FV_ERR_FORMAT,
      "found text that starts with \"Hello, I am a letter and no pict\", expected JPEG, PNG" },
    { "noise.bin", FV_ERR_FORMAT, "not an image: found data that starts with the bytes f6 " },
    { "png_30000x30000.png", FV_ERR_LIMIT,
      "30000 x 30000 pixels are 900000000; expected up to 268435456: scale the image down" },
    { "png_70000x1.png", FV_ERR_LIMIT, "70000 x 1 pixels; expected up to 65535 a side" },
    { "png_zero_width.png", FV_ERR_FORMAT, "0 x 5 pixels; expected at least one" },
    { "png_huge_chunk.png", FV_ERR_FORMAT, "PNG ends early" },
    { "png_bad_crc.png", FV_ERR_FORMAT, "damaged PNG" },
    { "png_no_ihdr.png", FV_ERR_FORMAT, "does not start with an IHDR" },
    { "png_short_pixels.png", FV_ERR_FORMAT, "damaged PNG: libpng reports \"Not enough" },
    { "jpeg_30000x30000.jpg", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "jpeg_zero_height.jpg", FV_ERR_FORMAT, "damaged JPEG: libjpeg reports \"Empty" },
    { "jpeg_taller_than_its_data.jpg", FV_ERR_FORMAT,
      "damaged JPEG: libjpeg reports \"Corrupt JPEG data: premature end" },
    { "jpeg_only_markers.jpg", FV_ERR_FORMAT, "damaged JPEG: " },
    { "jpeg_lost_code.jpg", FV_ERR_FORMAT, "damaged JPEG: " },
    { "jpeg_lost_restart.jpg", FV_ERR_FORMAT, "damaged JPEG: " },
    { "jpeg_12bit.jpg", FV_ERR_UNSUPPORTED, "JPEG with 12 bits per sample; expected 8; convert" },
    { "webp_huge_chunk.webp", FV_ERR_FORMAT, "the chunk at byte 12 claims 4294967280 bytes" },
    { "webp_huge_riff.webp", FV_ERR_FORMAT, "WebP ends early: its header claims 4294967288 bytes" },
    { "webp_no_picture.webp", FV_ERR_FORMAT, "it contains no image" },
    { "webp_huge_canvas.webp", FV_ERR_LIMIT, "100000 x 10 pixels" },
    { "webp_frame_outside_canvas.webp", FV_ERR_FORMAT, "leaves the canvas of 40 x 30" },
    { "webp_damaged.webp", FV_ERR_FORMAT, "damaged WebP: the image data (VP8) cannot be decoded" },
    { "webp_lossless_cut_inside.webp", FV_ERR_FORMAT, "the image data (VP8L, lossless)" },
    { "pnm_zero_height.ppm", FV_ERR_FORMAT, "5 x 0 pixels; expected at least one" },
    { "pnm_no_width.ppm", FV_ERR_FORMAT, "damaged PNM: expected a number, the width, at byte 3" },
    { "pnm_max70000.pgm", FV_ERR_FORMAT, "the maximum value is 70000; expected 1 to 65535" },
    { "pnm_60000x60000.ppm", FV_ERR_LIMIT, "60000 x 60000 pixels are 3600000000" },
    { "pnm_99999999999999999999x1.ppm", FV_ERR_LIMIT, "expected up to 65535 a side" },
    { "plain.ppm", FV_ERR_UNSUPPORTED,
      "this is a PPM in plain text (P3), expected JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, "
      "AVIF or binary PNM (P5, P6); convert it" },
    { "icon.ico", FV_ERR_UNSUPPORTED, "this is an icon (ICO), expected JPEG, PNG" },
    { "jpeg2000.jp2", FV_ERR_UNSUPPORTED, "this is a JPEG 2000 image" },
    { "photo.psd", FV_ERR_UNSUPPORTED, "this is a Photoshop document (PSD)" },
    { "qoi.qoi", FV_ERR_UNSUPPORTED, "this is a QOI image" },
    { "apple.png", FV_ERR_UNSUPPORTED, "this is a PNG as Apple packs it into apps (CgBI)" },
    { "photo.nef", FV_ERR_UNSUPPORTED, "this is a camera's raw file (NEF, ARW or similar)" },
    { "photo.dng", FV_ERR_UNSUPPORTED, "this is a DNG (camera raw file)" },
    { "named.arw", FV_ERR_UNSUPPORTED, "this is a camera's raw file" },
    { "gif_30000x30000.gif", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "gif_frame_65535.gif", FV_ERR_LIMIT, "130000 x 29 pixels" },
    { "gif_no_frame.gif", FV_ERR_FORMAT, "damaged GIF: it contains no image" },
    { "gif_bad_code.gif", FV_ERR_FORMAT, "damaged GIF: " },
    { "gif_code_size_20.gif", FV_ERR_FORMAT, "damaged GIF: " },
    { "gif_only_head.gif", FV_ERR_FORMAT, "GIF ends early, at byte 13" },
    { "gif_half.gif", FV_ERR_FORMAT, "GIF ends early, at byte 941" },
    { "bmp_30000x30000.bmp", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "bmp_width_0.bmp", FV_ERR_FORMAT, "0 x 29 pixels; expected at least one" },
    { "bmp_width_negative.bmp", FV_ERR_FORMAT, "damaged BMP: the width is -33; expected at" },
    { "bmp_height_least.bmp", FV_ERR_LIMIT, "33 x 2147483648 pixels" },
    { "bmp_half.bmp", FV_ERR_FORMAT, "BMP ends early, at byte 1378" },
    { "bmp_3_bits.bmp", FV_ERR_UNSUPPORTED, "BMP with 3 bits" },
    { "bmp_jpeg_inside.bmp", FV_ERR_UNSUPPORTED, "BMP with 0 bits in compression 4" },
    { "bmp_split_mask.bmp", FV_ERR_FORMAT, "the mask 0x00005000 of a colour is not one run" },
    { "bmp_rle8_cut.bmp", FV_ERR_FORMAT, "BMP ends early" },
    { "bmp_pixels_behind_end.bmp", FV_ERR_FORMAT, "BMP ends early" },
    { "tiff_30000x30000.tif", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "tiff_width_0.tif", FV_ERR_FORMAT, "damaged TIFF: " },
    { "tiff_half.tif", FV_ERR_FORMAT, "TIFF ends early: libtiff reports \"Read error" },
    { "tiff_strip_too_short.tif", FV_ERR_FORMAT, "TIFF ends early: libtiff reports \"Read error" },
    { "tiff_bad_lzw.tif", FV_ERR_FORMAT,
      "damaged TIFF: libtiff reports \"Using code not yet in table" },
    { "tiff_float.tif", FV_ERR_UNSUPPORTED, "floating-point samples of 32 bits" },
    { "tiff_12_bits.tif", FV_ERR_UNSUPPORTED, "TIFF with 12 bits per sample" },
    { "tiff_huge_tiles.tif", FV_ERR_LIMIT,
      "a tile or row of more than 256 MiB; save it with smaller tiles" },
    { "tiff_inks.tif", FV_ERR_UNSUPPORTED, "inks other than CMYK (ink set 2)" },
    { "tiff_empty_directory.tif", FV_ERR_FORMAT, "damaged TIFF: " },
    { "tiff_ifd_behind_end.tif", FV_ERR_FORMAT, "TIFF ends early" },
    { "heic_start.heic", FV_ERR_FORMAT, "damaged HEIC: " },
    { "heic_30000x30000.heic", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "heic_grid_30000x30000.heic", FV_ERR_LIMIT, "30000 x 30000 pixels are 900000000" },
    { "heic_grid_missing_tiles.heic", FV_ERR_FORMAT, "damaged HEIC: " },
    { "heic_half.heic", FV_ERR_FORMAT, "damaged HEIC: " },
    { "heic_lies.heic", FV_ERR_FORMAT, "the image is not 64 x 64 pixels as its header says" },
    { "heic_lies_width.heic", FV_ERR_FORMAT, "the image is not 64 x 512 pixels as its header" },
    { "heic_lies_inside.heic", FV_ERR_FORMAT, "the image is not 64 x 64 pixels as its header" },
    { "avif_lies.avif", FV_ERR_FORMAT, "the image is not 64 x 64 pixels as its header says" },
    { "avif_lies_inside.avif", FV_ERR_FORMAT, "the image is not 64 x 64 pixels as its header" },
};

/* A message ends with what to do, except where the file is no image of any kind. */
static bool says_what_to_do(const char *message)
{
    static const char *const ends[] = {
        "; save it again or use another copy",
        "; the file is cut off: copy or download it again",
        "; convert it to an 8-bit JPEG or PNG first",
        "; convert it to JPEG or PNG first",
        "; export it as JPEG first",
        ": scale the image down",
        ": scale the image down or raise max_pixels",
        "; save it with smaller tiles, or as JPEG or PNG",
        "(JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or binary PNM (P5, P6))",
        "expected JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or binary PNM (P5, P6)",
    };
    size_t n = strlen(message);
    for (size_t i = 0; i < FV_COUNT(ends); i++)
        if (n > strlen(ends[i]) && !strcmp(message + n - strlen(ends[i]), ends[i]))
            return true;
    return false;
}

static void check_refused(const char *name)
{
    size_t i = 0;
    while (i < FV_COUNT(refused) && strcmp(refused[i].name, name) != 0)
        i++;
    if (i == FV_COUNT(refused))
        fail_msg("reject/%s is not in the table", name);

    if (!format_is_read(name))
        return;
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
    if (!says_what_to_do(err.message))
        fail_msg("%s: \"%s\" does not say what to do", name, err.message);
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

    assert_int_equal(fv_image_open(&image, "no/such/image.jpg", NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "no/such/image.jpg"));
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
    static const char *const names[] = {
        "jpeg_420.jpg",   "png_rgb8.png", "webp_lossy.webp", "webp_animated.webp", "pnm_p6.ppm",
        "gif_offset.gif", "bmp_24.bmp",   "tiff_tiles.tif",  "heic_420.heic",      "avif_420.avif",
    };
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        if (!format_is_read(names[i]))
            continue;
        file_bytes f = load("accept", names[i]);
        fv_image_options options = { .size = sizeof options, .max_pixels = 246 };
        fv_image *image;
        fv_error err;
        assert_int_equal(fv_image_read(&image, f.data, f.size, &options, &err), FV_ERR_LIMIT);
        assert_non_null(strstr(err.message, "expected up to 246"));
        options.max_pixels = 70 * 68;
        assert_int_equal(fv_image_read(&image, f.data, f.size, &options, &err), FV_OK);
        fv_image_free(image);
        fv_free(f.data);
    }
}

/* A small image in the container, a large one in the coded data: refused before it is decoded. */
static void coded_size_limit(void **state)
{
    (void)state;
    static const char *const names[] = { "heic_lies.heic", "heic_lies_inside.heic",
                                         "avif_lies.avif", "avif_lies_inside.avif" };
    for (size_t i = 0; i < FV_COUNT(names); i++) {
        if (!format_is_read(names[i]))
            continue;
        file_bytes f = load("reject", names[i]);
        fv_image_options options = { .size = sizeof options, .max_pixels = 448 * 448 - 1 };
        fv_image *image;
        fv_error err;
        fv_status status = fv_image_read(&image, f.data, f.size, &options, &err);
        if (status != FV_ERR_LIMIT || !strstr(err.message, "has 512 x 512 pixels; expected up to"))
            fail_msg("%s: %s %s", names[i], fv_status_name(status), err.message);
        options.max_pixels++;
        assert_int_equal(fv_image_read(&image, f.data, f.size, &options, &err), FV_ERR_FORMAT);
        fv_free(f.data);
    }
}

/* Formats of which only the first frame or page counts, or whose end may hold no pixels. */
static bool may_lack_its_end(const char *name)
{
    const char *dot = strrchr(name, '.');
    return !strcmp(dot, ".gif") || !strcmp(dot, ".tif") || !strcmp(dot, ".heic") ||
           !strcmp(dot, ".avif") || strstr(name, "_rle");
}

/* Cut anywhere, a file is refused, or gives the pixels of the whole one where only bytes after the
 * image are missing. The block is exactly as long as the cut, so that ASan sees a read past it. */
static void check_truncated(const char *name)
{
    if (!format_is_read(name))
        return;
    file_bytes f = load("accept", name);
    fv_image *whole = NULL;

    assert_int_equal(fv_image_read(&whole, f.data, f.size, NULL, NULL), FV_OK);
    size_t n_rgb = (size_t)whole->width * (size_t)whole->height * 3;
    size_t step = f.size > 4000 ? 7 : 1;
    for (size_t n = 0; n < f.size; n += step) {
        uint8_t *cut = fv_alloc(n, 1);
        fv_image *image = NULL;
        fv_error err = { .message = "" };
        assert_non_null(cut);
        memcpy(cut, f.data, n);
        fv_status status = fv_image_read(&image, cut, n, NULL, &err);
        if (status == FV_OK && (!may_lack_its_end(name) || image->width != whole->width ||
                                memcmp(image->rgb, whole->rgb, n_rgb) != 0))
            fail_msg("%s: accepted with %zu of %zu bytes", name, n, f.size);
        if (status == FV_ERR_MEMORY || (status != FV_OK && !err.message[0]))
            fail_msg("%s, %zu bytes: %s %s", name, n, fv_status_name(status), err.message);
        fv_image_free(image);
        fv_free(cut);
    }
    fv_image_free(whole);
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
        char path[512];
        snprintf(path, sizeof path, IMAGES "reject/%s", refused[i].name);
        fv_image *image;
        n += fv_image_open(&image, path, NULL, NULL) != FV_OK;
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
        cmocka_unit_test(near_pixels),
        cmocka_unit_test(from_memory),
        cmocka_unit_test(paths_that_are_no_files),
        cmocka_unit_test(all_eight_orientations),
        cmocka_unit_test(refused_with_a_reason),
        cmocka_unit_test(no_file),
        cmocka_unit_test(pixel_limit),
        cmocka_unit_test(coded_size_limit),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
