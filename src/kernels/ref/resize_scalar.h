/* One output of the 8-bit resampler: the definition, and what vector versions do at their ends. */
#ifndef FV_RESIZE_SCALAR_H
#define FV_RESIZE_SCALAR_H

#include "kernels/kernels.h"

/* Sums wrap, as the contract says; signed overflow would be undefined. */
static inline uint8_t fv_resize_round(uint32_t sum)
{
    int32_t y = (int32_t)(sum + (1u << 21)) >> 22;
    return (uint8_t)(y < 0 ? 0 : y > 255 ? 255 : y);
}

/* Output o of one row: three bytes to dst. */
static inline void fv_resize_pixel(uint8_t *dst, const uint8_t *src, const fv_resize_taps *taps,
                                   size_t o)
{
    const uint8_t *x = src + (size_t)taps->first[o] * 3;
    const int32_t *w = taps->w + o * taps->n_groups * 4;

    for (size_t c = 0; c < 3; c++) {
        uint32_t sum = 0;
        for (size_t i = 0; i < taps->n_taps; i++)
            sum += x[i * 3 + c] * (uint32_t)w[i];
        dst[c] = fv_resize_round(sum);
    }
}

/* Byte j of output row o. */
static inline uint8_t fv_resize_byte(const uint8_t *const *rows, size_t j,
                                     const fv_resize_taps *taps, size_t o)
{
    const int32_t *w = taps->w + o * taps->n_groups * 4;
    uint32_t sum = 0;

    for (size_t i = 0; i < taps->n_taps; i++)
        sum += rows[i][j] * (uint32_t)w[i];
    return fv_resize_round(sum);
}

/* Outputs, from the first on, whose groups of taps and 4 bytes more lie inside the row: vector
 * versions load 16 bytes for the 12 of a group. first never falls, so they are the leading ones. */
static inline size_t fv_resize_leading(const fv_resize_taps *taps)
{
    size_t n = taps->n_out;

    while (n > 0 && (size_t)taps->first[n - 1] + taps->n_groups * 4 + 2 > taps->n_in)
        n--;
    return n;
}

#endif
