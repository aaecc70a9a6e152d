/* CMYK -> RGB, Pillow's conversion: white minus ink, darkened by black, rounded. */
#include "image/image.h"

void fv_rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, size_t width)
{
    for (size_t i = 0; i < width; i++, rgb += 3, cmyk += 4) {
        unsigned white = cmyk[3];
        for (int c = 0; c < 3; c++) {
            unsigned ink = (255u - cmyk[c]) * white + 128;
            ink = ((ink >> 8) + ink) >> 8;
            rgb[c] = (uint8_t)(white - FV_MIN(ink, white));
        }
    }
}
