/* Bytes -> picture: tells the format by the first bytes, hands on to its decoder, turns. */
#include <stdio.h>
#include <string.h>

#include "image/image.h"
#include "base/sized.h"

enum { MAX_FILE_BYTES = 1 << 30 };

static bool begins(const fv_image_file *file, size_t at, const char *with, size_t n)
{
    return file->size >= at + n && memcmp(file->data + at, with, n) == 0;
}
#define BEGINS(file, at, literal) begins(file, at, literal, sizeof(literal) - 1)

/* ---- what is not read, said by name ------------------------------------------------------ */

static const char *foreign_format(const fv_image_file *file)
{
    if (BEGINS(file, 0, "GIF8"))
        return "a GIF";
    if (BEGINS(file, 0, "BM") && file->size >= 26)
        return "a BMP";
    if (BEGINS(file, 0, "II*\0") || BEGINS(file, 0, "MM\0*"))
        return "a TIFF or camera raw file";
    if (BEGINS(file, 4, "ftypheic") || BEGINS(file, 4, "ftypheix") || BEGINS(file, 4, "ftypmif1"))
        return "a HEIC";
    if (BEGINS(file, 4, "ftypavif") || BEGINS(file, 4, "ftypavis"))
        return "an AVIF";
    if (BEGINS(file, 4, "ftyp"))
        return "a video (MP4 or similar)";
    if (BEGINS(file, 0, "\xff\x0a") || BEGINS(file, 0, "\0\0\0\x0cJXL "))
        return "a JPEG XL";
    if (BEGINS(file, 0, "\0\0\0\x0cjP  ") || BEGINS(file, 0, "\xff\x4f\xff\x51"))
        return "a JPEG 2000";
    if (BEGINS(file, 0, "%PDF"))
        return "a PDF";
    if (BEGINS(file, 0, "PK\3\4"))
        return "a ZIP archive";
    return NULL;
}

/* The first bytes, as text when they are text and in hexadecimal otherwise. */
static void describe_start(char *out, size_t capacity, const fv_image_file *file)
{
    size_t n = FV_MIN(file->size, (size_t)16);
    bool text = true;

    for (size_t i = 0; i < n; i++) {
        uint8_t c = file->data[i];
        text = text && (c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0x7f));
    }
    if (text) {
        size_t line = 0;
        while (line < n && file->data[line] >= 0x20)
            line++;
        snprintf(out, capacity, "text that starts with \"%.*s\"", (int)line,
                 (const char *)file->data);
        return;
    }
    int used = snprintf(out, capacity, "bytes");
    for (size_t i = 0; i < FV_MIN(n, (size_t)8) && (size_t)used < capacity; i++)
        used += snprintf(out + used, capacity - (size_t)used, " %02x", file->data[i]);
}

static fv_status fail_unknown(const fv_image_file *file, fv_error *err)
{
    const char *foreign = foreign_format(file);
    char found[80];

    if (foreign)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: this is %s; supported formats are JPEG, PNG, WebP and PNM: convert it "
                       "first",
                       file->name, foreign);
    describe_start(found, sizeof found, file);
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: not an image: found %s, expected JPEG, PNG, WebP or PNM (P5, P6)",
                   file->name, found);
}

/* ---- the formats ------------------------------------------------------------------------- */

static bool is_jpeg(const fv_image_file *file) { return BEGINS(file, 0, "\xff\xd8\xff"); }
static bool is_png(const fv_image_file *file) { return BEGINS(file, 0, "\x89PNG\r\n\x1a\n"); }
static bool is_webp(const fv_image_file *file)
{
    return BEGINS(file, 0, "RIFF") && BEGINS(file, 8, "WEBP");
}

static bool is_pnm(const fv_image_file *file)
{
    return file->size >= 3 && file->data[0] == 'P' &&
           (file->data[1] == '5' || file->data[1] == '6') &&
           strchr(" \t\n\r\v\f#", file->data[2]) && file->data[2];
}

static const struct {
    const char *name;
    bool (*is)(const fv_image_file *file);
    fv_decode_fn *decode; /* NULL: this build leaves it out */
} formats[] = {
#ifdef FASTVLM_IMAGE
    { "JPEG", is_jpeg, fv_decode_jpeg },
    { "PNG", is_png, fv_decode_png },
    { "WebP", is_webp, fv_decode_webp },
#else
    { "JPEG", is_jpeg, NULL },
    { "PNG", is_png, NULL },
    { "WebP", is_webp, NULL },
#endif
    { "PNM", is_pnm, fv_decode_pnm },
};

static fv_status decode(fv_image *image, int *orientation, const fv_image_file *file, fv_error *err)
{
    if (file->size == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the file is empty, expected an image (JPEG, PNG, WebP or PNM)",
                       file->name);
    for (size_t i = 0; i < FV_COUNT(formats); i++) {
        if (!formats[i].is(file))
            continue;
        if (!formats[i].decode)
            return fv_fail(
                err, FV_ERR_UNSUPPORTED, 0,
                "%s: this is a %s, and this build reads only PNM: build with FASTVLM_IMAGE=ON",
                file->name, formats[i].name);
        image->format = formats[i].name;
        return formats[i].decode(image, orientation, file, err);
    }
    return fail_unknown(file, err);
}

fv_status fv_image_allocate(fv_image *image, const fv_image_file *file, uint64_t width,
                            uint64_t height, fv_error *err)
{
    if (width == 0 || height == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the %s header says %" PRIu64 " x %" PRIu64
                       " pixels; expected at least one",
                       file->name, image->format, width, height);
    if (width > FV_IMAGE_MAX_SIDE || height > FV_IMAGE_MAX_SIDE)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "%s: %" PRIu64 " x %" PRIu64
                       " pixels; a side may have up to %d: scale the image down",
                       file->name, width, height, FV_IMAGE_MAX_SIDE);
    if (width * height > file->max_pixels)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "%s: %" PRIu64 " x %" PRIu64 " pixels are %" PRIu64 ", the limit is %" PRIu64
                       " (max_pixels); scale the image down or raise the limit",
                       file->name, width, height, width * height, file->max_pixels);
    image->rgb = fv_pixels_alloc((size_t)width, (size_t)height);
    if (!image->rgb)
        return fv_fail_memory(err, (size_t)(width * height) * 3, file->name);
    image->width = (int)width;
    image->height = (int)height;
    return FV_OK;
}

/* Huge pages spare a photograph some ten thousand page faults; small pictures stay where
 * AddressSanitizer sees their ends. */
enum { PAGES_FROM_BYTES = 4 << 20 };

uint8_t *fv_pixels_alloc(size_t width, size_t height)
{
    size_t n_bytes = width * height * 3 + 1;
    return n_bytes < PAGES_FROM_BYTES ? fv_alloc(n_bytes, 1) : fv_pages_alloc(n_bytes);
}

void fv_pixels_free(uint8_t *rgb, size_t width, size_t height)
{
    size_t n_bytes = width * height * 3 + 1;
    if (n_bytes < PAGES_FROM_BYTES)
        fv_free(rgb);
    else
        fv_pages_free(rgb, n_bytes);
}

/* ---- the public functions ---------------------------------------------------------------- */

static fv_status read_picture(fv_image **out, fv_image_file *file, const fv_image_options *options,
                              double begin, fv_error *err)
{
    int orientation = 1;
    fv_status status;
    fv_image *image = fv_alloc_zero(1, sizeof *image);

    if (!image)
        return fv_fail_memory(err, sizeof *image, file->name);
    file->max_pixels = options->max_pixels ? options->max_pixels : (uint64_t)1 << 28;
    FV_TRY_GOTO(decode(image, &orientation, file, err));
    if (!options->ignore_exif)
        FV_TRY_GOTO(fv_image_turn(image, orientation, err));
    image->decode_ms = fv_now_ms() - begin;
    *out = image;
    return FV_OK;
fail:
    fv_image_free(image);
    return status;
}

fv_status fv_image_open(fv_image **out, const char *path, const fv_image_options *options,
                        fv_error *err)
{
    double begin = fv_now_ms();
    fv_image_options o;
    uint8_t *data = NULL;
    size_t size = 0;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(path, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_image_options, options, err));
    if (!*path)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "path is empty: expected a file name, or - for standard input");
    if (fv_is_dir(path))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected an image file", path);
    FV_TRY(fv_read_file(&data, &size, path, MAX_FILE_BYTES, err));
    fv_image_file file = { .name = strcmp(path, "-") == 0 ? "standard input" : path,
                           .data = data,
                           .size = size };
    fv_status status = read_picture(out, &file, &o, begin, err);
    fv_free(data);
    return status;
}

fv_status fv_image_read(fv_image **out, const void *data, size_t n_bytes,
                        const fv_image_options *options, fv_error *err)
{
    fv_image_file file = { .name = "image in memory", .data = data, .size = n_bytes };
    fv_image_options o;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_TRY(FV_OPTIONS_IN(&o, fv_image_options, options, err));
    if (!data && n_bytes)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "image in memory: data is NULL, n_bytes is %zu",
                       n_bytes);
    return read_picture(out, &file, &o, fv_now_ms(), err);
}

int fv_image_width(const fv_image *image) { return image ? image->width : 0; }
int fv_image_height(const fv_image *image) { return image ? image->height : 0; }
const uint8_t *fv_image_rgb(const fv_image *image) { return image ? image->rgb : NULL; }
const char *fv_image_format(const fv_image *image) { return image ? image->format : ""; }
double fv_image_decode_ms(const fv_image *image) { return image->decode_ms; }

void fv_image_free(fv_image *image)
{
    if (!image)
        return;
    if (image->rgb)
        fv_pixels_free(image->rgb, (size_t)image->width, (size_t)image->height);
    fv_free(image);
}
