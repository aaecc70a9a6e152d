/* Pixels of the caller's, in the formats that cameras, windows and other libraries have: borrowed,
 * and read as rows of RGB where they are needed. No copy of the image is ever made; the resampler
 * asks for a few rows at a time.
 *
 *     RGB, upright, rows ascending    read where it lies
 *     anything else                   a row, or a few columns of a turned image, converted
 *
 * Alpha is dropped, not blended, as decoding does. NV12 and NV21 are BT.601, limited range, what
 * phones' cameras give: with y = 255 / 219 (Y - 16), u = 255 / 224 (U - 128), v likewise,
 *
 *     R = y + 1.402 v    G = y - 0.344136 u - 0.714136 v    B = y + 1.772 u
 *
 * rounded and clamped to [0, 255]; the 2 x 2 pixels of a pair of chroma share it. A float x is
 * floor(255 x + 0.5), clamped, NaN 0: values that were bytes / 255 are those bytes again, and the
 * reference, too, goes on from 8 bits. */
#include <string.h>

#include "base/sized.h"
#include "image/image.h"

enum { N_FORMATS = FV_PIXELS_NV21 + 1 };

static const struct {
    const char *name;
    uint8_t pixel_bytes; /* of plane 0 */
    bool chroma;         /* in plane 1 */
} formats[N_FORMATS] = {
    [FV_PIXELS_RGB] = { "RGB", 3, false },          [FV_PIXELS_BGR] = { "BGR", 3, false },
    [FV_PIXELS_RGBA] = { "RGBA", 4, false },        [FV_PIXELS_BGRA] = { "BGRA", 4, false },
    [FV_PIXELS_GRAY] = { "GRAY", 1, false },        [FV_PIXELS_NV12] = { "NV12", 1, true },
    [FV_PIXELS_RGB_F32] = { "RGB f32", 12, false }, [FV_PIXELS_NV21] = { "NV21", 1, true },
};

/* ---- one pixel after the other ----------------------------------------------------------- */

static uint8_t byte_from_float(const uint8_t *from)
{
    float x;
    memcpy(&x, from, sizeof x); /* rows may begin anywhere */
    if (!(x > 0))
        return 0;
    return x >= 1 ? 255 : (uint8_t)(x * 255.0f + 0.5f);
}

static uint8_t byte_clamped(int32_t v) /* in 1 / 65536 */
{
    v = (v + 32768) >> 16;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void rgb_from_yuv(uint8_t *rgb, int y, int u, int v)
{
    /* the coefficients above times 65536: 255 / 219, then 255 / 224 times each */
    int32_t luma = (y - 16) * 76309;
    u -= 128;
    v -= 128;
    rgb[0] = byte_clamped(luma + 104597 * v);
    rgb[1] = byte_clamped(luma - 25675 * u - 53279 * v);
    rgb[2] = byte_clamped(luma + 132201 * u);
}

/* Where a row of a plane begins. */
static const uint8_t *plane_row(const fv_pixels *p, int plane, size_t y)
{
    return (const uint8_t *)p->plane[plane] + (ptrdiff_t)y * p->stride_bytes[plane];
}

/* Pixels [x, x + n) of row y as stored, to rgb [n, 3]. */
static void pixels_convert(const fv_pixels *p, size_t y, size_t x, size_t n, uint8_t *rgb)
{
    const uint8_t *from = plane_row(p, 0, y) + x * formats[p->format].pixel_bytes;

    switch (p->format) {
    case FV_PIXELS_RGB: memcpy(rgb, from, n * 3); return;
    case FV_PIXELS_BGR:
    case FV_PIXELS_BGRA:
        for (size_t i = 0, step = formats[p->format].pixel_bytes; i < n; i++, from += step) {
            rgb[i * 3] = from[2];
            rgb[i * 3 + 1] = from[1];
            rgb[i * 3 + 2] = from[0];
        }
        return;
    case FV_PIXELS_RGBA:
        for (size_t i = 0; i < n; i++)
            memcpy(rgb + i * 3, from + i * 4, 3);
        return;
    case FV_PIXELS_GRAY:
        for (size_t i = 0; i < n; i++)
            memset(rgb + i * 3, from[i], 3);
        return;
    case FV_PIXELS_RGB_F32:
        for (size_t i = 0; i < n * 3; i++)
            rgb[i] = byte_from_float(from + i * sizeof(float));
        return;
    case FV_PIXELS_NV12:
    case FV_PIXELS_NV21: {
        const uint8_t *chroma = plane_row(p, 1, y / 2);
        int u = p->format == FV_PIXELS_NV21, v = !u; /* which of a pair comes first */
        for (size_t i = 0; i < n; i++) {
            const uint8_t *pair = chroma + (x + i) / 2 * 2;
            rgb_from_yuv(rgb + i * 3, from[i], pair[u], pair[v]);
        }
        return;
    }
    }
}

/* ---- rows of an image, turned ------------------------------------------------------------ */

bool fv_image_is_plain(const fv_image *image)
{
    const fv_pixels *p = &image->pixels;
    return image->rgb ||
           (p->format == FV_PIXELS_RGB && p->orientation == 1 && p->stride_bytes[0] > 0);
}

/* The m rows from y on of an image whose rows are columns as stored. */
static void rows_from_columns(const fv_image *image, fv_orient turn, size_t y, size_t m,
                              uint8_t *rows, size_t row_bytes)
{
    const fv_pixels *p = &image->pixels;
    size_t w = (size_t)image->width, h = (size_t)image->height;
    size_t first = turn.flip_x ? h - y - m : y;
    uint8_t rgb[FV_IMAGE_ROWS * 3];

    for (size_t x = 0; x < w; x++) {
        pixels_convert(p, turn.flip_y ? w - 1 - x : x, first, m, rgb);
        for (size_t i = 0; i < m; i++)
            memcpy(rows + i * row_bytes + x * 3, rgb + (turn.flip_x ? m - 1 - i : i) * 3, 3);
    }
}

static void row_mirror(uint8_t *rgb, size_t n)
{
    for (size_t i = 0, k = n - 1; i < k; i++, k--)
        for (size_t c = 0; c < 3; c++) {
            uint8_t left = rgb[i * 3 + c];
            rgb[i * 3 + c] = rgb[k * 3 + c];
            rgb[k * 3 + c] = left;
        }
}

const uint8_t *fv_image_rows(const fv_image *image, size_t y, size_t m, uint8_t *scratch,
                             size_t *row_bytes)
{
    size_t w = (size_t)image->width, h = (size_t)image->height;

    *row_bytes = w * 3;
    if (image->rgb)
        return image->rgb + y * w * 3;
    if (fv_image_is_plain(image)) {
        *row_bytes = (size_t)image->pixels.stride_bytes[0];
        return plane_row(&image->pixels, 0, y);
    }
    fv_orient turn = fv_orient_of(image->pixels.orientation);
    if (turn.transpose) {
        rows_from_columns(image, turn, y, m, scratch, w * 3);
        return scratch;
    }
    for (size_t i = 0; i < m; i++) {
        uint8_t *row = scratch + i * w * 3;
        pixels_convert(&image->pixels, turn.flip_y ? h - 1 - y - i : y + i, 0, w, row);
        if (turn.flip_x)
            row_mirror(row, w);
    }
    return scratch;
}

/* ---- what the caller says about them ----------------------------------------------------- */

/* A plane of n_rows rows of row_bytes: there, and nowhere past the ends of memory. A stride of 0 is
 * row_bytes. */
static fv_status plane_check(fv_pixels *p, int plane, size_t row_bytes, size_t n_rows,
                             fv_error *err)
{
    ptrdiff_t *stride = &p->stride_bytes[plane];
    uintptr_t begin = (uintptr_t)p->plane[plane];

    if (!begin)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "pixels: plane[%d] is NULL; %s needs it", plane,
                       formats[p->format].name);
    if (*stride == 0)
        *stride = (ptrdiff_t)row_bytes;
    size_t step = *stride < 0 ? (size_t)0 - (size_t)*stride : (size_t)*stride, extent, end;
    if (step < row_bytes)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "pixels: stride_bytes[%d] is %td; a row of %d %s pixels has %zu bytes",
                       plane, *stride, p->width, formats[p->format].name, row_bytes);
    bool wraps = __builtin_mul_overflow(step, n_rows - 1, &extent) ||
                 __builtin_add_overflow(extent, row_bytes, &extent) || extent > PTRDIFF_MAX;
    if (*stride < 0)
        wraps = wraps || extent - row_bytes > begin ||
                __builtin_add_overflow(begin, row_bytes, &end);
    else
        wraps = wraps || __builtin_add_overflow(begin, extent, &end);
    if (wraps)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "pixels: %zu rows with stride_bytes[%d] of %td leave the address space",
                       n_rows, plane, *stride);
    return FV_OK;
}

static fv_status pixels_check(fv_pixels *p, fv_error *err)
{
    if ((unsigned)p->format >= N_FORMATS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "pixels: format is %d; expected FV_PIXELS_RGB to NV21", (int)p->format);
    if (p->width < 1 || p->height < 1)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "pixels: %d x %d; expected sides of at least 1",
                       p->width, p->height);
    if (p->width > FV_IMAGE_MAX_SIDE || p->height > FV_IMAGE_MAX_SIDE)
        return fv_fail(err, FV_ERR_LIMIT, 0, "pixels: %d x %d; a side may have up to %d", p->width,
                       p->height, FV_IMAGE_MAX_SIDE);
    if (p->orientation < 0 || p->orientation > 8)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "pixels: orientation is %d; expected EXIF's 1 to 8, or 0", p->orientation);
    p->orientation = FV_MAX(p->orientation, 1);
    size_t w = (size_t)p->width, h = (size_t)p->height;
    FV_TRY(plane_check(p, 0, w * formats[p->format].pixel_bytes, h, err));
    if (formats[p->format].chroma)
        FV_TRY(plane_check(p, 1, (w + 1) / 2 * 2, (h + 1) / 2, err));
    return FV_OK;
}

fv_status fv_image_wrap(fv_image **out, const fv_pixels *pixels, fv_error *err)
{
    fv_pixels p;

    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(pixels, err);
    FV_TRY(FV_OPTIONS_IN(&p, fv_pixels, pixels, err));
    FV_TRY(pixels_check(&p, err));
    fv_image *image = fv_alloc_zero(1, sizeof *image);
    if (!image)
        return fv_fail_memory(err, sizeof *image, "an image");
    bool transpose = fv_orient_of(p.orientation).transpose;
    image->width = transpose ? p.height : p.width;
    image->height = transpose ? p.width : p.height;
    image->pixels = p;
    image->format = formats[p.format].name;
    *out = image;
    return FV_OK;
}
