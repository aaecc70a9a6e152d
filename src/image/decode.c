/* Bytes -> image: tells the format by the first bytes, hands on to its decoder, turns. */
#include <string.h>

#include "image/image.h"
#include "base/fpenv.h"
#include "base/number.h"
#include "base/sized.h"
#include "base/sniff.h"

enum { MAX_FILE_BYTES = 1 << 30 };

/* ---- the formats ------------------------------------------------------------------------- */

#ifdef FASTVLM_IMAGE
#define IF_IMAGE(decode) decode
#else
#define IF_IMAGE(decode) NULL
#endif
#ifdef FASTVLM_GIF
#define IF_GIF(function) function
#else
#define IF_GIF(function) NULL
#endif
#ifdef FASTVLM_TIFF
#define IF_TIFF(function) function
#else
#define IF_TIFF(function) NULL
#endif
#ifdef FASTVLM_HEIF
#define IF_HEIF(function) function
#else
#define IF_HEIF(function) NULL
#endif

static const struct {
    fv_file_kind kind;
    const char *name;
    fv_decode_fn *decode;              /* NULL: this build leaves it out */
    fv_status (*check)(fv_error *err); /* whether its library is there; NULL: it is linked */
    const char *option;                /* of the build */
} formats[] = {
    { FV_FILE_JPEG, "JPEG", IF_IMAGE(fv_decode_jpeg), NULL, "FASTVLM_IMAGE" },
    { FV_FILE_PNG, "PNG", IF_IMAGE(fv_decode_png), NULL, "FASTVLM_IMAGE" },
    { FV_FILE_WEBP, "WebP", IF_IMAGE(fv_decode_webp), NULL, "FASTVLM_IMAGE" },
    { FV_FILE_GIF, "GIF", IF_GIF(fv_decode_gif), IF_GIF(fv_gif_check), "FASTVLM_GIF" },
    { FV_FILE_BMP, "BMP", fv_decode_bmp, NULL, "" },
    { FV_FILE_TIFF, "TIFF", IF_TIFF(fv_decode_tiff), IF_TIFF(fv_tiff_check), "FASTVLM_TIFF" },
    { FV_FILE_HEIC, "HEIC", IF_HEIF(fv_decode_heif), IF_HEIF(fv_heic_check), "FASTVLM_HEIF" },
    { FV_FILE_AVIF, "AVIF", IF_HEIF(fv_decode_heif), IF_HEIF(fv_avif_check), "FASTVLM_HEIF" },
    { FV_FILE_PNM, "PNM", fv_decode_pnm, NULL, "" },
};

fv_status fv_image_format_check(size_t index, const char **name, fv_error *err)
{
    FV_REQUIRE(name, err);
    *name = NULL;
    if (index >= FV_COUNT(formats))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "index is %zu; there are %zu formats of images",
                       index, FV_COUNT(formats));
    *name = formats[index].name;
    if (!formats[index].decode)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s is not read by this build (%s is off)",
                       *name, formats[index].option);
    return formats[index].check ? formats[index].check(err) : FV_OK;
}

/* ---- what is not read, said by name ------------------------------------------------------ */

/* The names under which cameras' raw files go that begin as any TIFF does. */
static bool name_is_raw(const char *name)
{
    static const char *const endings[] = { ".nef", ".nrw", ".arw", ".sr2", ".dng", ".pef",
                                           ".srw", ".cr2", ".3fr", ".fff", ".iiq", ".dcr",
                                           ".kdc", ".erf", ".mef", ".mos", ".rwl" };
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < FV_COUNT(endings); i++)
        if (fv_ascii_same(dot, endings[i]))
            return true;
    return false;
}

static const char *image_advice(const fv_sniff *found)
{
    switch (found->kind) {
    case FV_FILE_IMAGE: return "convert it to JPEG or PNG first";
    case FV_FILE_RAW: return "export it as JPEG first";
    case FV_FILE_VIDEO: return "save a frame of it as JPEG or PNG first";
    case FV_FILE_MODEL:
    case FV_FILE_SAFETENSORS:
    case FV_FILE_GGUF: return "a model is no image";
    default: return found->advice;
    }
}

static fv_status fail_not_image(const fv_image_file *file, const fv_sniff *found, fv_error *err)
{
    bool foreign = found->kind == FV_FILE_IMAGE || found->kind == FV_FILE_RAW ||
                   found->kind == FV_FILE_VIDEO;
    const char *advice = image_advice(found);
    char what[FV_DESCRIPTION];

    if (found->kind == FV_FILE_EMPTY)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the file is empty, expected an image (" FV_IMAGE_FORMATS ")",
                       file->name);
    if (found->name)
        return fv_fail(err, foreign ? FV_ERR_UNSUPPORTED : FV_ERR_FORMAT, 0,
                       "%s: this is %s, expected " FV_IMAGE_FORMATS "%s%s", file->name, found->name,
                       advice ? "; " : "", advice ? advice : "");
    fv_describe_bytes(what, file->data, file->size);
    return fv_fail(err, FV_ERR_FORMAT, 0, "%s: not an image: found %s, expected " FV_IMAGE_FORMATS,
                   file->name, what);
}

static fv_status decode(fv_image *image, int *orientation, const fv_image_file *file, fv_error *err)
{
    fv_sniff found = fv_sniff_bytes(file->data, file->size);

    if (found.kind == FV_FILE_TIFF && name_is_raw(file->name))
        found = (fv_sniff){ .kind = FV_FILE_RAW, .name = "a camera's raw file" };
    for (size_t i = 0; i < FV_COUNT(formats); i++) {
        if (formats[i].kind != found.kind)
            continue;
        if (!formats[i].decode)
            return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                           "%s: this is %s, which this build does not read (%s is off)", file->name,
                           found.name, formats[i].option);
        image->format = formats[i].name;
        return formats[i].decode(image, orientation, file, err);
    }
    return fail_not_image(file, &found, err);
}

fv_status fv_image_allocate(fv_image *image, const fv_image_file *file, uint64_t width,
                            uint64_t height, fv_error *err)
{
    if (width == 0 || height == 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the %s header says %" PRIu64 " x %" PRIu64
                       " pixels; expected at least one" FV_TAKE_ANOTHER,
                       file->name, image->format, width, height);
    if (width > FV_IMAGE_MAX_SIDE || height > FV_IMAGE_MAX_SIDE)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "%s: %" PRIu64 " x %" PRIu64
                       " pixels; expected up to %d a side: scale the image down",
                       file->name, width, height, FV_IMAGE_MAX_SIDE);
    if (width * height > file->max_pixels)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "%s: %" PRIu64 " x %" PRIu64 " pixels are %" PRIu64
                       "; expected up to %" PRIu64 ": scale the image down or raise max_pixels",
                       file->name, width, height, width * height, file->max_pixels);
    image->rgb = fv_pixels_alloc((size_t)width, (size_t)height);
    if (!image->rgb)
        return fv_fail_memory(err, (size_t)(width * height) * 3, file->name);
    image->width = (int)width;
    image->height = (int)height;
    return FV_OK;
}

/* Huge pages spare a photograph some ten thousand page faults; small images stay where
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

static fv_status image_take_file(fv_image **out, fv_image_file *file,
                                 const fv_image_options *options, double begin, fv_error *err)
{
    FV_DEFAULT_FPENV;
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
                       "path is empty; expected the name of an image file");
    if (fv_is_dir(path))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a directory, expected an image file", path);
    FV_TRY(fv_read_file(&data, &size, path, MAX_FILE_BYTES, err));
    fv_image_file file = { .name = path, .data = data, .size = size };
    fv_status status = image_take_file(out, &file, &o, begin, err);
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
    return image_take_file(out, &file, &o, fv_now_ms(), err);
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
