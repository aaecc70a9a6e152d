/* Any bytes as an image: decoded within a small limit, then fitted in every way to 64 x 64. */
#include <stdlib.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
const char *__lsan_default_suppressions(void);

/* libheif 1.15 loses 40 bytes of dav1d's when a damaged AVIF ends its decoding. */
const char *__lsan_default_suppressions(void) { return "leak:libdav1d\n"; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static uint8_t square[64 * 64 * 3];
    static float pixels[64 * 64 * 3];
    const fv_image_options options = { .size = sizeof options, .max_pixels = 1 << 18 };
    fv_image *image;
    fv_error err;
    fv_kernels kernels;

    if (fv_image_read(&image, data, n_bytes, &options, &err) != FV_OK) {
        if (image || err.status == FV_OK || !err.message[0])
            abort();
        return 0;
    }
    fv_kernels_init(&kernels, fv_cpu_detect());
    for (fv_fit fit = FV_FIT_PAD; fit <= FV_FIT_STRETCH; fit++)
        if (fv_preprocess(pixels, square, image, FV_RECIPE(fit), 64, NULL, &kernels, &err) != FV_OK)
            abort();
    fv_image_free(image);
    return 0;
}
