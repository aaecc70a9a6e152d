/* TIFF -> RGB with libtiff: the first page, in any of libtiff's compressions, in strips or tiles.
 *
 *     samples of 1, 2, 4, 8 or 16 bits   -> 8: 16 bits are cut to the high 8, as in PNG
 *     grey, palette, RGB, CMYK           -> RGB here; alpha is dropped, colours that were
 *                                           multiplied by it are divided again, as Pillow does
 *     YCbCr in JPEG                      -> RGB by libtiff's decoder
 *     other YCbCr, Lab, LogLuv           -> RGB by libtiff's RGBA interface
 *
 * The orientation is TIFF's own, not EXIF's, and Pillow applies it as it opens the file: so it is
 * applied whatever the caller says about EXIF.
 *
 * Of the first kind, samples go through a band of rows, u8 [band, width, n_used]: one row of a
 * strip, a row of tiles, or the whole image when every sample is a plane of its own. */
#ifdef FASTVLM_TIFF
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <tiffio.h>

#include "base/dynlib.h"
#include "base/number.h"
#include "image/image.h"

/* What libtiff may allocate at a time: a tile, a row, the offsets of the strips. */
enum { MAX_BLOCK_BYTES = 1 << 28 };

/* ---- the library ------------------------------------------------------------------------- */

typedef struct tiff_functions {
    __typeof__(&TIFFOpenOptionsAlloc) options_alloc;
    __typeof__(&TIFFOpenOptionsFree) options_free;
    __typeof__(&TIFFOpenOptionsSetMaxSingleMemAlloc) set_max_alloc;
    __typeof__(&TIFFOpenOptionsSetErrorHandlerExtR) set_error_handler;
    __typeof__(&TIFFOpenOptionsSetWarningHandlerExtR) set_warning_handler;
    __typeof__(&TIFFClientOpenExt) open;
    __typeof__(&TIFFClose) close;
    __typeof__(&TIFFGetField) get;
    __typeof__(&TIFFGetFieldDefaulted) get_defaulted;
    __typeof__(&TIFFSetField) set;
    __typeof__(&TIFFIsTiled) is_tiled;
    __typeof__(&TIFFTileSize) tile_size;
    __typeof__(&TIFFScanlineSize) row_size;
    __typeof__(&TIFFReadTile) read_tile;
    __typeof__(&TIFFReadScanline) read_row;
    __typeof__(&TIFFReadRGBAImageOriented) read_rgba;
} tiff_functions;

static pthread_once_t tiff_once = PTHREAD_ONCE_INIT;
static tiff_functions tiff;
static char tiff_problem[FV_DYNLIB_PROBLEM]; /* empty: loaded */

static void tiff_load(void)
{
    static const char *const files[] = {
#if defined(__APPLE__)
        "libtiff.6.dylib",
        "/opt/homebrew/lib/libtiff.6.dylib",
#else
        "libtiff.so.6",
#endif
    };
    static const fv_dynlib_function functions[] = {
        { "TIFFOpenOptionsAlloc", offsetof(tiff_functions, options_alloc), false },
        { "TIFFOpenOptionsFree", offsetof(tiff_functions, options_free), false },
        { "TIFFOpenOptionsSetMaxSingleMemAlloc", offsetof(tiff_functions, set_max_alloc), false },
        { "TIFFOpenOptionsSetErrorHandlerExtR", offsetof(tiff_functions, set_error_handler),
          false },
        { "TIFFOpenOptionsSetWarningHandlerExtR", offsetof(tiff_functions, set_warning_handler),
          false },
        { "TIFFClientOpenExt", offsetof(tiff_functions, open), false },
        { "TIFFClose", offsetof(tiff_functions, close), false },
        { "TIFFGetField", offsetof(tiff_functions, get), false },
        { "TIFFGetFieldDefaulted", offsetof(tiff_functions, get_defaulted), false },
        { "TIFFSetField", offsetof(tiff_functions, set), false },
        { "TIFFIsTiled", offsetof(tiff_functions, is_tiled), false },
        { "TIFFTileSize", offsetof(tiff_functions, tile_size), false },
        { "TIFFScanlineSize", offsetof(tiff_functions, row_size), false },
        { "TIFFReadTile", offsetof(tiff_functions, read_tile), false },
        { "TIFFReadScanline", offsetof(tiff_functions, read_row), false },
        { "TIFFReadRGBAImageOriented", offsetof(tiff_functions, read_rgba), false },
    };
    fv_dynlib_open(&tiff, files, FV_COUNT(files), functions, FV_COUNT(functions), tiff_problem);
}

fv_status fv_tiff_check(fv_error *err)
{
    pthread_once(&tiff_once, tiff_load);
    if (tiff_problem[0])
        return fv_fail(
            err, FV_ERR_UNSUPPORTED, 0,
            "TIFF needs libtiff 4.5 or newer (%s); install it (Debian, Ubuntu: libtiff6)",
            tiff_problem);
    return FV_OK;
}

/* ---- one file ---------------------------------------------------------------------------- */

typedef struct tiff_job {
    const fv_image_file *file;
    uint64_t at; /* where libtiff reads next */
    fv_image *image;
    TIFF *tiff;
    uint16_t bits, n_samples, photometric, compression, planar;
    uint16_t *red, *green, *blue; /* palette, libtiff's */
    int turned;                   /* orientation, 1 to 8 */
    bool premultiplied, by_rgba;
    size_t n_used;    /* samples of a pixel that are needed, the first ones */
    uint8_t *samples; /* [band, width, n_used] */
    uint8_t *block;   /* a row or tile as libtiff gives it */
    char what[160];   /* libtiff's first complaint */
    fv_error *err;
} tiff_job;

static tmsize_t tiff_on_read(thandle_t user, void *out, tmsize_t n)
{
    tiff_job *job = user;
    if (job->at >= job->file->size || n <= 0)
        return 0;
    size_t n_bytes = FV_MIN((size_t)n, job->file->size - (size_t)job->at);
    memcpy(out, job->file->data + job->at, n_bytes);
    job->at += n_bytes;
    return (tmsize_t)n_bytes;
}

static tmsize_t tiff_on_write(thandle_t user, void *data, tmsize_t n)
{
    (void)user, (void)data, (void)n;
    return -1;
}

static toff_t tiff_on_seek(thandle_t user, toff_t offset, int from)
{
    tiff_job *job = user;
    job->at = from == SEEK_SET   ? offset
              : from == SEEK_CUR ? job->at + offset
                                 : job->file->size + offset;
    return job->at;
}

static int tiff_on_close(thandle_t user)
{
    (void)user;
    return 0;
}

static toff_t tiff_on_size(thandle_t user) { return ((tiff_job *)user)->file->size; }

static int tiff_on_error(TIFF *t, void *user, const char *module, const char *format, va_list args)
{
    tiff_job *job = user;
    (void)t, (void)module;
    if (!job->what[0])
        fv_format_list(job->what, sizeof job->what, format, args);
    return 1; /* nothing is printed */
}

static int tiff_on_warning(TIFF *t, void *user, const char *module, const char *format,
                           va_list args)
{
    (void)t, (void)user, (void)module, (void)format, (void)args;
    return 1;
}

static fv_status tiff_fail_block(const tiff_job *job)
{
    return fv_fail(job->err, FV_ERR_LIMIT, 0,
                   "%s: TIFF with a tile or row of more than %d MiB; save it with smaller tiles, "
                   "or as JPEG or PNG",
                   job->file->name, MAX_BLOCK_BYTES >> 20);
}

/* libtiff has no codes, only sentences. */
static fv_status tiff_fail(const tiff_job *job)
{
    static const char *const no_memory[] = { "emory", "o space", "lloc", "Insertion in tif_map" };
    const char *name = job->file->name, *what = job->what;

    if (strstr(what, "beyond the"))
        return tiff_fail_block(job);
    bool empty = strstr(what, "(0 elements"); /* a directory of nothing, no failed allocation */
    for (size_t i = 0; i < FV_COUNT(no_memory) && !empty; i++)
        if (strstr(what, no_memory[i]))
            return fv_fail(job->err, FV_ERR_MEMORY, 0, "out of memory: decoding %s (%s)", name,
                           what);
    if (strstr(what, "Read error") || strstr(what, "an not read"))
        return fv_fail(job->err, FV_ERR_FORMAT, job->file->size,
                       "%s: TIFF ends early: " FV_REPORTS("libtiff") FV_CUT_OFF, name, what);
    if (strstr(what, "not configured") || strstr(what, "not implemented"))
        return fv_fail(job->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: TIFF that cannot be read: " FV_REPORTS("libtiff") FV_CONVERT, name,
                       what);
    if (!*what)
        return fv_fail(job->err, FV_ERR_FORMAT, 0,
                       "%s: damaged TIFF: it has no pages" FV_TAKE_ANOTHER, name);
    return fv_fail(job->err, FV_ERR_FORMAT, 0,
                   "%s: damaged TIFF: " FV_REPORTS("libtiff") FV_TAKE_ANOTHER, name, what);
}

/* ---- what kind --------------------------------------------------------------------------- */

#define TIFF_UNSUPPORTED(job, what, value)                                             \
    fv_fail((job)->err, FV_ERR_UNSUPPORTED, 0,                                         \
            "%s: TIFF with " what ", which is not read" FV_CONVERT, (job)->file->name, \
            (unsigned)(value))

/* Sets what the pixels are and how they are turned; allocates the image. */
static fv_status tiff_read_head(tiff_job *job)
{
    uint32_t width = 0, height = 0;
    uint16_t turned = 1, format = 1, ink = 1, n_extra = 0, *extra = NULL;

    tiff.get(job->tiff, TIFFTAG_IMAGEWIDTH, &width);
    tiff.get(job->tiff, TIFFTAG_IMAGELENGTH, &height);
    FV_TRY(fv_image_allocate(job->image, job->file, width, height, job->err));
    tiff.get_defaulted(job->tiff, TIFFTAG_BITSPERSAMPLE, &job->bits);
    tiff.get_defaulted(job->tiff, TIFFTAG_SAMPLESPERPIXEL, &job->n_samples);
    tiff.get_defaulted(job->tiff, TIFFTAG_SAMPLEFORMAT, &format);
    tiff.get_defaulted(job->tiff, TIFFTAG_COMPRESSION, &job->compression);
    tiff.get_defaulted(job->tiff, TIFFTAG_PLANARCONFIG, &job->planar);
    tiff.get_defaulted(job->tiff, TIFFTAG_EXTRASAMPLES, &n_extra, &extra);
    tiff.get_defaulted(job->tiff, TIFFTAG_INKSET, &ink);
    tiff.get_defaulted(job->tiff, TIFFTAG_ORIENTATION, &turned);
    job->turned = turned;
    if (!tiff.get(job->tiff, TIFFTAG_PHOTOMETRIC, &job->photometric))
        job->photometric = job->n_samples >= 3 ? PHOTOMETRIC_RGB : PHOTOMETRIC_MINISBLACK;
    if (job->photometric == PHOTOMETRIC_YCBCR && job->n_samples == 1)
        job->photometric = PHOTOMETRIC_MINISBLACK;

    switch (job->photometric) {
    case PHOTOMETRIC_MINISBLACK:
    case PHOTOMETRIC_MINISWHITE: job->n_used = 1; break;
    case PHOTOMETRIC_PALETTE:
        job->n_used = 1;
        if (job->bits > 8)
            return TIFF_UNSUPPORTED(job, "a palette of %u bits", job->bits);
        if (!tiff.get(job->tiff, TIFFTAG_COLORMAP, &job->red, &job->green, &job->blue))
            return fv_fail(job->err, FV_ERR_FORMAT, 0,
                           "%s: damaged TIFF: it has no palette" FV_TAKE_ANOTHER, job->file->name);
        break;
    case PHOTOMETRIC_RGB:
        job->premultiplied = n_extra > 0 && extra[0] == EXTRASAMPLE_ASSOCALPHA &&
                             job->n_samples >= 4;
        job->n_used = job->premultiplied ? 4 : 3;
        break;
    case PHOTOMETRIC_SEPARATED:
        if (ink != INKSET_CMYK)
            return TIFF_UNSUPPORTED(job, "inks other than CMYK (ink set %u)", ink);
        job->n_used = 4;
        break;
    case PHOTOMETRIC_YCBCR:
        job->n_used = 3;
        if (job->compression == COMPRESSION_JPEG)
            tiff.set(job->tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
        else
            job->by_rgba = true;
        break;
    case PHOTOMETRIC_CIELAB:
    case PHOTOMETRIC_ICCLAB:
    case PHOTOMETRIC_LOGL:
    case PHOTOMETRIC_LOGLUV: job->by_rgba = true; break;
    default: return TIFF_UNSUPPORTED(job, "photometric interpretation %u", job->photometric);
    }
    if (job->by_rgba)
        return FV_OK;
    if (format == SAMPLEFORMAT_IEEEFP)
        return TIFF_UNSUPPORTED(job, "floating-point samples of %u bits", job->bits);
    if (format != SAMPLEFORMAT_UINT && format != SAMPLEFORMAT_VOID)
        return TIFF_UNSUPPORTED(job, "samples of format %u", format);
    if (job->bits != 1 && job->bits != 2 && job->bits != 4 && job->bits != 8 && job->bits != 16)
        return TIFF_UNSUPPORTED(job, "%u bits per sample", job->bits);
    if (job->n_samples < job->n_used)
        return fv_fail(job->err, FV_ERR_FORMAT, 0,
                       "%s: damaged TIFF: %u samples a pixel; expected %zu" FV_TAKE_ANOTHER,
                       job->file->name, job->n_samples, job->n_used);
    return FV_OK;
}

/* ---- samples -> RGB ---------------------------------------------------------------------- */

/* out[i * step] = sample i * stride of a row as libtiff gives it, in 8 bits but for a palette. */
static void tiff_unpack(const tiff_job *job, uint8_t *out, size_t step, const uint8_t *row,
                        size_t first, size_t stride, size_t n)
{
    unsigned bits = job->bits, max = (1u << bits) - 1;
    bool index = job->photometric == PHOTOMETRIC_PALETTE;

    for (size_t i = 0, at = first; i < n; i++, out += step, at += stride) {
        unsigned v;
        if (bits == 8)
            v = row[at];
        else if (bits == 16) {
            uint16_t wide;
            memcpy(&wide, row + at * 2, 2);
            v = wide >> 8;
        } else {
            size_t bit = at * bits;
            v = (unsigned)(row[bit / 8] >> (8 - bits - bit % 8)) & max;
            v = index ? v : v * 255 / max;
        }
        *out = (uint8_t)v;
    }
}

/* Palettes have 16 bits; some writers put 8 into them. */
static unsigned tiff_palette_shift(const tiff_job *job)
{
    for (size_t i = 0; i < (size_t)1 << job->bits; i++)
        if (job->red[i] > 255 || job->green[i] > 255 || job->blue[i] > 255)
            return 8;
    return 0;
}

static void tiff_finish_row(const tiff_job *job, uint8_t *rgb, uint8_t *samples, unsigned shift)
{
    size_t width = (size_t)job->image->width, used = job->n_used;

    if (job->photometric == PHOTOMETRIC_SEPARATED) {
        for (size_t i = 0; i < width * 4; i++)
            samples[i] = (uint8_t)(255 - samples[i]);
        fv_rgb_from_cmyk(rgb, samples, width);
        return;
    }
    for (size_t x = 0; x < width; x++, rgb += 3, samples += used) {
        if (job->photometric == PHOTOMETRIC_PALETTE) {
            rgb[0] = (uint8_t)(job->red[*samples] >> shift);
            rgb[1] = (uint8_t)(job->green[*samples] >> shift);
            rgb[2] = (uint8_t)(job->blue[*samples] >> shift);
        } else if (used == 1) {
            uint8_t v = *samples;
            memset(rgb, job->photometric == PHOTOMETRIC_MINISWHITE ? 255 - v : v, 3);
        } else if (job->premultiplied && samples[3] != 255) {
            for (int c = 0; c < 3; c++)
                rgb[c] = samples[3] ? (uint8_t)FV_MIN(samples[c] * 255u / samples[3], 255u) : 0;
        } else {
            memcpy(rgb, samples, 3);
        }
    }
}

/* ---- rows and tiles ---------------------------------------------------------------------- */

/* Samples of the rows [y, y + n) into the band, from one plane or from all that lie together. */
static fv_status tiff_read_rows(tiff_job *job, size_t y, size_t n, size_t plane)
{
    bool apart = job->planar == PLANARCONFIG_SEPARATE;
    size_t width = (size_t)job->image->width, used = job->n_used;

    for (size_t i = 0; i < n; i++) {
        uint8_t *out = job->samples + i * width * used;
        if (tiff.read_row(job->tiff, job->block, (uint32_t)(y + i), (uint16_t)plane) != 1)
            return tiff_fail(job);
        if (apart)
            tiff_unpack(job, out + plane, used, job->block, 0, 1, width);
        for (size_t s = 0; s < used && !apart; s++)
            tiff_unpack(job, out + s, used, job->block, s, job->n_samples, width);
    }
    return FV_OK;
}

static fv_status tiff_read_tiles(tiff_job *job, size_t y, size_t n, size_t plane, size_t tile_w,
                                 size_t tile_h)
{
    bool apart = job->planar == PLANARCONFIG_SEPARATE;
    size_t width = (size_t)job->image->width, used = job->n_used;
    size_t together = apart ? 1 : job->n_samples;
    size_t row_bytes = (tile_w * together * job->bits + 7) / 8;

    for (size_t y0 = 0; y0 < n; y0 += tile_h)
        for (size_t x = 0; x < width; x += tile_w) {
            size_t w = FV_MIN(tile_w, width - x), h = FV_MIN(tile_h, n - y0);
            if (tiff.read_tile(job->tiff, job->block, (uint32_t)x, (uint32_t)(y + y0), 0,
                               (uint16_t)plane) < 0)
                return tiff_fail(job);
            for (size_t i = 0; i < h; i++) {
                uint8_t *out = job->samples + ((y0 + i) * width + x) * used;
                const uint8_t *row = job->block + i * row_bytes;
                if (apart)
                    tiff_unpack(job, out + plane, used, row, 0, 1, w);
                for (size_t s = 0; s < used && !apart; s++)
                    tiff_unpack(job, out + s, used, row, s, together, w);
            }
        }
    return FV_OK;
}

static fv_status tiff_read_pixels(tiff_job *job)
{
    size_t width = (size_t)job->image->width, height = (size_t)job->image->height;
    bool tiled = tiff.is_tiled(job->tiff), apart = job->planar == PLANARCONFIG_SEPARATE;
    size_t n_planes = apart ? job->n_used : 1, band = apart ? height : 1;
    uint32_t tile_w = 0, tile_h = 0;
    tmsize_t block = tiled ? tiff.tile_size(job->tiff) : tiff.row_size(job->tiff);

    if (tiled) {
        tiff.get(job->tiff, TIFFTAG_TILEWIDTH, &tile_w);
        tiff.get(job->tiff, TIFFTAG_TILELENGTH, &tile_h);
        if (!tile_w || !tile_h)
            return fv_fail(job->err, FV_ERR_FORMAT, 0,
                           "%s: damaged TIFF: tiles without a size" FV_TAKE_ANOTHER,
                           job->file->name);
        if (!apart)
            band = FV_MIN((size_t)tile_h, height);
    }
    /* Both sizes are libtiff's, which checks the products. */
    uint64_t expected = tiled
                            ? ((uint64_t)tile_w * (apart ? 1 : job->n_samples) * job->bits + 7) /
                                  8 * tile_h
                            : ((uint64_t)width * (apart ? 1 : job->n_samples) * job->bits + 7) / 8;
    if (block <= 0 || block > MAX_BLOCK_BYTES)
        return tiff_fail_block(job);
    if ((uint64_t)block < expected)
        return fv_fail(job->err, FV_ERR_FORMAT, 0,
                       "%s: damaged TIFF: a tile or row of %" PRIu64
                       " bytes; expected %" PRIu64 FV_TAKE_ANOTHER,
                       job->file->name, (uint64_t)block, expected);
    job->block = fv_alloc_zero((size_t)block, 1);
    job->samples = fv_alloc_zero(band * width, job->n_used);
    if (!job->block || !job->samples)
        return fv_fail_memory(job->err, band * width * job->n_used + (size_t)block,
                              job->file->name);
    unsigned shift = job->red ? tiff_palette_shift(job) : 0;
    for (size_t y = 0; y < height; y += band) {
        size_t n = FV_MIN(band, height - y);
        for (size_t plane = 0; plane < n_planes; plane++)
            FV_TRY(tiled ? tiff_read_tiles(job, y, n, plane, tile_w, tile_h)
                         : tiff_read_rows(job, y, n, plane));
        for (size_t i = 0; i < n; i++)
            tiff_finish_row(job, job->image->rgb + (y + i) * width * 3,
                            job->samples + i * width * job->n_used, shift);
    }
    return FV_OK;
}

/* libtiff's own conversion, for what is rare. It turns the image unless told that it stands. */
static fv_status tiff_read_rgba(tiff_job *job)
{
    size_t width = (size_t)job->image->width, height = (size_t)job->image->height;
    uint8_t *raster = fv_alloc(width * height, 4);

    if (!raster)
        return fv_fail_memory(job->err, width * height * 4, job->file->name);
    job->samples = raster;
    tiff.set(job->tiff, TIFFTAG_ORIENTATION, ORIENTATION_TOPLEFT);
    if (tiff.read_rgba(job->tiff, (uint32_t)width, (uint32_t)height, (uint32_t *)(void *)raster,
                       ORIENTATION_TOPLEFT, 1) != 1)
        return tiff_fail(job);
    for (size_t i = 0; i < width * height; i++)
        memcpy(job->image->rgb + i * 3, raster + i * 4, 3);
    return FV_OK;
}

static fv_status tiff_open(tiff_job *job)
{
    TIFFOpenOptions *options = tiff.options_alloc();

    if (!options)
        return fv_fail_memory(job->err, sizeof options, job->file->name);
    tiff.set_max_alloc(options, MAX_BLOCK_BYTES);
    tiff.set_error_handler(options, tiff_on_error, job);
    tiff.set_warning_handler(options, tiff_on_warning, job);
    /* m: not mapped, but read through the functions above */
    job->tiff = tiff.open("the file", "rm", job, tiff_on_read, tiff_on_write, tiff_on_seek,
                          tiff_on_close, tiff_on_size, NULL, NULL, options);
    tiff.options_free(options);
    return job->tiff ? FV_OK : tiff_fail(job);
}

fv_status fv_decode_tiff(fv_image *image, int *orientation, const fv_image_file *file,
                         fv_error *err)
{
    (void)orientation;
    FV_TRY(fv_tiff_check(err));
    tiff_job *job = fv_alloc_zero(1, sizeof *job);
    if (!job)
        return fv_fail_memory(err, sizeof *job, file->name);
    job->file = file;
    job->image = image;
    job->err = err;
    fv_status status = tiff_open(job);
    if (status == FV_OK)
        status = tiff_read_head(job);
    if (status == FV_OK)
        status = job->by_rgba ? tiff_read_rgba(job) : tiff_read_pixels(job);
    if (status == FV_OK)
        status = fv_image_turn(image, job->turned, err);
    if (job->tiff)
        tiff.close(job->tiff);
    fv_free(job->block);
    fv_free(job->samples);
    fv_free(job);
    return status;
}
#endif
