/* What the image tests share with tools/reference/make_image_cases.py. */
#ifndef FV_IMAGE_CASES_H
#define FV_IMAGE_CASES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastvlm.h"

static inline uint32_t crc32_of(const uint8_t *data, size_t n_bytes)
{
    uint32_t table[256], crc = 0xffffffffu;

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    for (size_t i = 0; i < n_bytes; i++)
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
    return ~crc;
}

/* pattern() of the generator: noise for even seeds, ramps with edges for odd ones. */
static inline void fill_pattern(uint8_t *rgb, uint32_t w, uint32_t h, uint32_t seed)
{
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t v = ((x * 5) ^ (y * 3)) + c * 40 + seed;
                if (!(seed & 1)) {
                    v = x * 0x9E3779B1u + y * 0x85EBCA77u + c * 0xC2B2AE3Du + seed;
                    v ^= v >> 15;
                    v *= 0x2C1B3C6Du;
                    v ^= v >> 12;
                }
                *rgb++ = (uint8_t)v;
            }
}

/* An image that owns its pixels, by way of a PPM file in memory. */
static inline fv_image *image_of_rgb(const uint8_t *rgb, int w, int h)
{
    size_t n = (size_t)w * (size_t)h * 3;
    char *file = malloc(n + 32);
    fv_image *image;

    assert_non_null(file);
    int head = snprintf(file, 32, "P6 %d %d 255\n", w, h);
    memcpy(file + head, rgb, n);
    assert_int_equal(fv_image_read(&image, file, (size_t)head + n, NULL, NULL), FV_OK);
    free(file);
    return image;
}

static inline FILE *open_cases(void)
{
    FILE *list = fopen(FV_SOURCE_DIR "/tests/data/images/expected.txt", "r");

    assert_non_null(list);
    return list;
}

#endif
