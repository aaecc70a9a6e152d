/* Image -> the encoder's input: fit to a square, resample, and make numbers of the bytes.
 *
 *     pad       centred on a black square of the long edge, the odd pixel right or below;
 *               then S x S. What Apple's predict.py does. [process_images, "pad"]
 *     crop      the short edge becomes S, the long one S * long / short cut to an integer;
 *               the S x S in the middle. [CLIPImageProcessor] Its size may be another, or none.
 *     stretch   straight to S x S. */
#include "image/image.h"

#include <limits.h>

enum { MAX_SIZE = 16384 };

static void pad_axes(fv_axis *x, fv_axis *y, int64_t w, int64_t h, int64_t size)
{
    int64_t side = FV_MAX(w, h);

    *x = (fv_axis){ .in = side, .out = size, .offset = (side - w) / 2, .length = w, .count = size };
    *y = (fv_axis){ .in = side, .out = size, .offset = (side - h) / 2, .length = h, .count = size };
}

/* Of a line that is scaled to out pixels, the `size` in the middle; where size is the larger, the
 * odd pixel of black comes first. [transformers image_transforms, center_crop] */
static fv_axis crop_axis(int64_t length, int64_t out, int64_t size)
{
    int64_t first = out >= size ? (out - size) / 2 : -((size - out + 1) / 2);
    return (fv_axis){ .in = length, .out = out, .length = length, .first = first, .count = size };
}

static fv_status crop_axes(fv_axis *x, fv_axis *y, int64_t w, int64_t h, const fv_recipe *r,
                           int64_t size, fv_error *err)
{
    int64_t shorter = FV_MIN(w, h), edge = r->n_scale == 1 ? r->scale[0] : size, out_w, out_h;
    if (r->n_scale == 2) {
        out_w = r->scale[0] ? r->scale[0] : w;
        out_h = r->scale[1] ? r->scale[1] : h;
    } else {
        out_w = (int64_t)((double)(edge * w) / (double)shorter);
        out_h = (int64_t)((double)(edge * h) / (double)shorter);
    }
    if (out_w > INT_MAX || out_h > INT_MAX)
        return fv_fail(err, FV_ERR_LIMIT, 0,
                       "the image has %" PRId64 " x %" PRId64 " pixels, which is too narrow for a "
                       "square cut out of its middle",
                       w, h);
    *x = crop_axis(w, out_w, size);
    *y = crop_axis(h, out_h, size);
    return FV_OK;
}

static fv_axis stretch_axis(int64_t length, int64_t size)
{
    return (fv_axis){ .in = length, .out = size, .length = length, .count = size };
}

fv_status fv_fit_u8(uint8_t *dst, const fv_image *image, const fv_recipe *recipe, int size,
                    fv_pool *pool, const fv_kernels *kernels, fv_error *err)
{
    int64_t w = image->width, h = image->height;
    fv_axis x, y;

    if (size < 1 || size > MAX_SIZE)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "input side %d, expected 1 to %d", size, MAX_SIZE);
    switch (recipe->fit) {
    case FV_FIT_PAD: pad_axes(&x, &y, w, h, size); break;
    case FV_FIT_CROP: FV_TRY(crop_axes(&x, &y, w, h, recipe, size, err)); break;
    case FV_FIT_STRETCH:
        x = stretch_axis(w, size);
        y = stretch_axis(h, size);
        break;
    default:
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "fit %d, expected pad, crop or stretch",
                       (int)recipe->fit);
    }
    x.filter = y.filter = recipe->filter;
    return fv_resize_u8(dst, image, &x, &y, pool, kernels, err);
}

/* In double as far as the rescaling, then in f32, as the reference. [transformers image_transforms,
 * rescale and normalize] */
void fv_pixels_f32(float *dst, const uint8_t *src, size_t n, const fv_recipe *recipe)
{
    float table[256][3];

    for (int v = 0; v < 256; v++) {
        float value = recipe->rescale != 0 ? (float)((double)v * recipe->rescale) : (float)v;
        for (int c = 0; c < 3; c++)
            table[v][c] = (value - recipe->mean[c]) / recipe->std[c];
    }
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++)
            dst[3 * i + (size_t)c] = table[src[3 * i + (size_t)c]][c];
}

fv_status fv_preprocess(float *pixels, uint8_t *u8, const fv_image *image, const fv_recipe *recipe,
                        int size, fv_pool *pool, const fv_kernels *kernels, fv_error *err)
{
    size_t n = (size_t)FV_MAX(size, 0) * (size_t)FV_MAX(size, 0);
    uint8_t *own = u8 ? NULL : fv_alloc(n, 3);

    if (!u8 && !own)
        return fv_fail_memory(err, 3 * n, "preprocessing the image");
    fv_status status = fv_fit_u8(u8 ? u8 : own, image, recipe, size, pool, kernels, err);
    if (status == FV_OK)
        fv_pixels_f32(pixels, u8 ? u8 : own, n, recipe);
    fv_free(own);
    return status;
}
