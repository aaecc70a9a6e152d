/* Picture -> the encoder's input: fit to a square, resample, scale to [0, 1].
 *
 *     pad       centred on a black square of the long edge, the odd pixel right or below;
 *               then S x S. What Apple's predict.py does. [process_images, "pad"]
 *     crop      the short edge becomes S, the long one S * long / short cut to an integer;
 *               the S x S in the middle. [CLIPImageProcessor]
 *     stretch   straight to S x S. */
#include "image/image.h"

enum { MAX_SIZE = 16384 };

static void pad_axes(fv_axis *x, fv_axis *y, int64_t w, int64_t h, int64_t size)
{
    int64_t side = FV_MAX(w, h);

    *x = (fv_axis){ .in = side, .out = size, .offset = (side - w) / 2, .length = w, .count = size };
    *y = (fv_axis){ .in = side, .out = size, .offset = (side - h) / 2, .length = h, .count = size };
}

static fv_axis crop_axis(int64_t length, int64_t shorter, int64_t size)
{
    int64_t out = (int64_t)((double)(size * length) / (double)shorter);
    return (fv_axis){
        .in = length, .out = out, .length = length, .first = (out - size) / 2, .count = size
    };
}

static fv_axis stretch_axis(int64_t length, int64_t size)
{
    return (fv_axis){ .in = length, .out = size, .length = length, .count = size };
}

fv_status fv_fit_u8(uint8_t *dst, const fv_image *image, fv_fit fit, int size, fv_pool *pool,
                    const fv_kernels *kernels, fv_error *err)
{
    int64_t w = image->width, h = image->height, shorter = FV_MIN(w, h);
    fv_axis x, y;

    if (size < 1 || size > MAX_SIZE)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "input side %d, expected 1 to %d", size, MAX_SIZE);
    switch (fit) {
    case FV_FIT_PAD: pad_axes(&x, &y, w, h, size); break;
    case FV_FIT_CROP:
        x = crop_axis(w, shorter, size);
        y = crop_axis(h, shorter, size);
        break;
    case FV_FIT_STRETCH:
        x = stretch_axis(w, size);
        y = stretch_axis(h, size);
        break;
    default:
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "fit %d, expected pad, crop or stretch", (int)fit);
    }
    return fv_resize_u8(dst, image, &x, &y, pool, kernels, err);
}

void fv_pixels_f32(float *dst, const uint8_t *src, size_t n)
{
    float table[256];

    for (int v = 0; v < 256; v++)
        table[v] = (float)((double)v * (1.0 / 255));
    for (size_t i = 0; i < n; i++)
        dst[i] = table[src[i]];
}

fv_status fv_preprocess(float *pixels, uint8_t *u8, const fv_image *image, fv_fit fit, int size,
                        fv_pool *pool, const fv_kernels *kernels, fv_error *err)
{
    size_t n = (size_t)FV_MAX(size, 0) * (size_t)FV_MAX(size, 0) * 3;
    uint8_t *own = u8 ? NULL : fv_alloc(n, 1);

    if (!u8 && !own)
        return fv_fail_memory(err, n, "preprocessing the image");
    fv_status status = fv_fit_u8(u8 ? u8 : own, image, fit, size, pool, kernels, err);
    if (status == FV_OK)
        fv_pixels_f32(pixels, u8 ? u8 : own, n);
    fv_free(own);
    return status;
}
