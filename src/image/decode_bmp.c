/* BMP -> RGB: Windows' and OS/2's headers; 1, 2, 4, 8, 16, 24 and 32 bits; RLE4, RLE8, masks.
 *
 *     "BM"  size (4)  0 (4)  offset of the pixels (4)
 *     header: its size (4), width, height, planes, bits, compression ...   [masks]  [colours]
 *     rows of 4-byte multiples, bottom to top unless the height is negative
 *
 * No library of the distributions reads it, and it is a table of integers. Values are Pillow's:
 * alpha is dropped, an n-bit sample v is floor(255 v / (2^n - 1)), what RLE skips has colour 0.
 * https://learn.microsoft.com/windows/win32/gdi/bitmap-storage */
#include <string.h>

#include "image/image.h"

enum { FILE_HEAD = 14, CORE_HEAD = 12, INFO_HEAD = 40, MASKS_AT = FILE_HEAD + INFO_HEAD };
enum { BMP_RGB = 0, BMP_RLE8 = 1, BMP_RLE4 = 2, BMP_MASKS = 3, BMP_ALPHA_MASKS = 6 };

typedef struct bmp_channel {
    uint32_t mask;
    int shift; /* of its lowest bit */
    uint32_t max;
} bmp_channel;

typedef struct bmp_job {
    const fv_image_file *file;
    fv_image *image;
    uint32_t head; /* size of the header */
    uint32_t bits, compression;
    bool top_down;
    size_t pixels_at;
    uint8_t colors[256][3];
    bmp_channel channel[3]; /* red, green, blue; of 16 and 32 bits */
    fv_error *err;
} bmp_job;

static uint32_t bmp_u16(const bmp_job *job, size_t at)
{
    return job->file->data[at] | (uint32_t)job->file->data[at + 1] << 8;
}
static uint32_t bmp_u32(const bmp_job *job, size_t at)
{
    return bmp_u16(job, at) | bmp_u16(job, at + 2) << 16;
}

static fv_status bmp_cut_off(const bmp_job *job)
{
    return fv_fail(job->err, FV_ERR_FORMAT, job->file->size,
                   "%s: BMP ends early, at byte %zu" FV_CUT_OFF, job->file->name, job->file->size);
}

/* ---- header ------------------------------------------------------------------------------ */

static fv_status bmp_read_size(bmp_job *job)
{
    const fv_image_file *file = job->file;
    uint64_t width, height;

    if (file->size < FILE_HEAD + CORE_HEAD)
        return bmp_cut_off(job);
    job->head = bmp_u32(job, FILE_HEAD);
    job->pixels_at = bmp_u32(job, 10);
    if (file->size - FILE_HEAD < job->head)
        return bmp_cut_off(job);
    if (job->head == CORE_HEAD) {
        width = bmp_u16(job, 18);
        height = bmp_u16(job, 20);
        job->bits = bmp_u16(job, 24);
        return fv_image_allocate(job->image, file, width, height, job->err);
    }
    int32_t w = (int32_t)bmp_u32(job, 18), h = (int32_t)bmp_u32(job, 22);
    if (w < 0)
        return fv_fail(job->err, FV_ERR_FORMAT, 18,
                       "%s: damaged BMP: the width is %" PRId32
                       "; expected at least 1" FV_TAKE_ANOTHER,
                       file->name, w);
    width = (uint64_t)w;
    job->top_down = h < 0;
    height = h < 0 ? (uint64_t) - (int64_t)h : (uint64_t)h;
    if (job->head >= 16)
        job->bits = bmp_u16(job, 28);
    if (job->head >= INFO_HEAD)
        job->compression = bmp_u32(job, 30);
    return fv_image_allocate(job->image, file, width, height, job->err);
}

static fv_status bmp_check_kind(const bmp_job *job)
{
    uint32_t bits = job->bits;
    bool ok;

    switch (job->compression) {
    case BMP_RGB:
        ok = bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16 || bits == 24 ||
             bits == 32;
        break;
    case BMP_RLE8: ok = bits == 8; break;
    case BMP_RLE4: ok = bits == 4; break;
    case BMP_MASKS:
    case BMP_ALPHA_MASKS: ok = (bits == 16 || bits == 32) && job->head != 64; break;
    default: ok = false;
    }
    if (ok)
        return FV_OK;
    return fv_fail(job->err, FV_ERR_UNSUPPORTED, 28,
                   "%s: BMP with %" PRIu32 " bits in compression %" PRIu32
                   "; expected 1 to 32 bits, plain, RLE or with masks" FV_CONVERT,
                   job->file->name, bits, job->compression);
}

static fv_status bmp_set_channel(bmp_job *job, int c, uint32_t mask)
{
    bmp_channel *channel = &job->channel[c];
    int shift = 0;

    while (shift < 31 && mask && !(mask >> shift & 1))
        shift++;
    uint32_t max = mask >> shift;
    if (max & (max + 1) || (job->bits == 16 && mask > 0xffff))
        return fv_fail(job->err, FV_ERR_FORMAT, MASKS_AT,
                       "%s: damaged BMP: the mask 0x%08" PRIx32
                       " of a colour is not one run of bits" FV_TAKE_ANOTHER,
                       job->file->name, mask);
    *channel = (bmp_channel){ .mask = mask, .shift = shift, .max = max };
    return FV_OK;
}

static fv_status bmp_read_masks(bmp_job *job)
{
    static const uint32_t usual[2][3] = { { 0x7c00, 0x03e0, 0x001f },
                                          { 0xff0000, 0x00ff00, 0x0000ff } };

    uint32_t masks[3] = { 0 };

    if (job->compression != BMP_RGB) {
        if (job->file->size < MASKS_AT + 12)
            return bmp_cut_off(job);
        for (size_t c = 0; c < 3; c++)
            masks[c] = bmp_u32(job, MASKS_AT + 4 * c);
    }
    bool none = !masks[0] && !masks[1] && !masks[2];
    for (int c = 0; c < 3; c++)
        FV_TRY(bmp_set_channel(job, c, none ? usual[job->bits == 32][c] : masks[c]));
    if (job->pixels_at < FILE_HEAD + (size_t)job->head)
        job->pixels_at = FILE_HEAD + (size_t)job->head;
    return FV_OK;
}

/* Colours: B, G, R, and a byte more except after the oldest header. Those that the file lacks are
 * black. */
static fv_status bmp_read_colors(bmp_job *job)
{
    size_t step = job->head == CORE_HEAD ? 3 : 4, at = FILE_HEAD + (size_t)job->head;
    size_t n = (size_t)1 << job->bits;
    uint32_t used = job->head >= INFO_HEAD ? bmp_u32(job, 46) : 0;

    if (used > 0 && used < n)
        n = used;
    /* Some hold fewer than they promise: the pixels begin where the colours end. Some name a place
     * for the pixels where the colours are. */
    if (job->pixels_at > at)
        n = FV_MIN(n, (job->pixels_at - at) / step);
    else
        job->pixels_at = at + n * step;
    if (job->file->size < at + n * step)
        return bmp_cut_off(job);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            job->colors[i][c] = job->file->data[at + i * step + 2 - c];
    return FV_OK;
}

/* ---- pixels ------------------------------------------------------------------------------ */

static uint8_t *bmp_row(const bmp_job *job, size_t y)
{
    size_t height = (size_t)job->image->height;
    return job->image->rgb + (job->top_down ? y : height - 1 - y) * (size_t)job->image->width * 3;
}

static void bmp_unpack_row(const bmp_job *job, uint8_t *rgb, const uint8_t *row)
{
    size_t width = (size_t)job->image->width, bits = job->bits, bytes = bits / 8;

    for (size_t x = 0; x < width; x++, rgb += 3) {
        if (bits <= 8) {
            size_t bit = x * bits;
            unsigned index = row[bit / 8] >> (8 - bits - bit % 8) & ((1u << bits) - 1);
            memcpy(rgb, job->colors[index], 3);
        } else if (bits == 24) {
            rgb[0] = row[x * 3 + 2];
            rgb[1] = row[x * 3 + 1];
            rgb[2] = row[x * 3];
        } else {
            uint32_t v = 0;
            for (size_t i = bytes; i-- > 0;)
                v = v << 8 | row[x * bytes + i];
            for (int c = 0; c < 3; c++) {
                const bmp_channel *channel = &job->channel[c];
                uint64_t sample = (v & channel->mask) >> channel->shift;
                rgb[c] = (uint8_t)(channel->max ? sample * 255 / channel->max : 0);
            }
        }
    }
}

static fv_status bmp_read_plain(bmp_job *job)
{
    size_t height = (size_t)job->image->height;
    size_t row_bytes = ((size_t)job->image->width * job->bits + 31) / 32 * 4;

    if (job->pixels_at > job->file->size || (job->file->size - job->pixels_at) / row_bytes < height)
        return bmp_cut_off(job);
    for (size_t y = 0; y < height; y++)
        bmp_unpack_row(job, bmp_row(job, y), job->file->data + job->pixels_at + y * row_bytes);
    return FV_OK;
}

/* Pairs of bytes: a run and its colour or, after 0, an escape: end of row, end of image, a move, or
 * so many pixels as they are. Two colours take turns in a run of RLE4. */
static fv_status bmp_read_rle(bmp_job *job)
{
    const uint8_t *data = job->file->data;
    size_t at = job->pixels_at, size = job->file->size, x = 0, y = 0;
    size_t width = (size_t)job->image->width, height = (size_t)job->image->height;
    bool nibbles = job->compression == BMP_RLE4;

    for (size_t i = 0; i < width * height; i++)
        memcpy(job->image->rgb + i * 3, job->colors[0], 3);
    for (;;) {
        if (at > size || size - at < 2) /* the end may be missing, rows may not */
            return y >= height || (y == height - 1 && x >= width) ? FV_OK : bmp_cut_off(job);
        size_t n = data[at], code = data[at + 1];
        bool literal = n == 0 && code >= 3;
        at += 2;
        if (n == 0 && code == 0) {
            x = 0;
            y++;
            continue;
        }
        if (n == 0 && code == 1)
            return FV_OK;
        if (n == 0 && code == 2) {
            if (size - at < 2)
                return bmp_cut_off(job);
            x += data[at];
            y += data[at + 1];
            at += 2;
            continue;
        }
        if (literal)
            n = code;
        size_t n_bytes = literal ? (nibbles ? (n + 1) / 2 : n) : 0;
        if (size - at < n_bytes)
            return bmp_cut_off(job);
        for (size_t i = 0; i < n; i++, x++) {
            size_t byte = literal ? data[at + (nibbles ? i / 2 : i)] : code;
            size_t index = !nibbles ? byte : i % 2 ? byte & 15 : byte >> 4;
            if (x < width && y < height)
                memcpy(bmp_row(job, y) + x * 3, job->colors[index], 3);
        }
        at += (n_bytes + 1) / 2 * 2; /* literals end at even places */
    }
}

fv_status fv_decode_bmp(fv_image *image, int *orientation, const fv_image_file *file, fv_error *err)
{
    bmp_job job = { .file = file, .image = image, .err = err };

    (void)orientation; /* BMP has none but its direction */
    FV_TRY(bmp_read_size(&job));
    FV_TRY(bmp_check_kind(&job));
    if (job.bits <= 8)
        FV_TRY(bmp_read_colors(&job));
    if (job.bits == 16 || job.bits == 32)
        FV_TRY(bmp_read_masks(&job));
    if (job.compression == BMP_RLE8 || job.compression == BMP_RLE4)
        return bmp_read_rle(&job);
    return bmp_read_plain(&job);
}
