/* 8-bit resampling, portable: the oracle. */
#include "kernels/kernels.h"

/* Sums wrap: a signed overflow would be undefined, and the weights of a hostile table could reach it. */
static uint8_t round_clip(uint32_t sum)
{
    int32_t y = (int32_t)(sum + (1u << 21)) >> 22;
    return (uint8_t)(y < 0 ? 0 : y > 255 ? 255 : y);
}

static void resize_h__ref(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t m,
                          const fv_resize_taps *taps)
{
    for (size_t row = 0; row < m; row++, dst += dst_ld, src += src_ld)
        for (size_t o = 0; o < taps->n_out; o++) {
            const uint8_t *x = src + (size_t)taps->first[o] * 3;
            const int32_t *w = taps->w + o * taps->n_groups * 4;
            for (size_t c = 0; c < 3; c++) {
                uint32_t sum = 0;
                for (size_t i = 0; i < taps->n_taps; i++)
                    sum += x[i * 3 + c] * (uint32_t)w[i];
                dst[o * 3 + c] = round_clip(sum);
            }
        }
}

static void resize_v__ref(uint8_t *dst, const uint8_t *const *rows, size_t n, const fv_resize_taps *taps, size_t o)
{
    const int32_t *w = taps->w + o * taps->n_groups * 4;

    for (size_t j = 0; j < n; j++) {
        uint32_t sum = 0;
        for (size_t i = 0; i < taps->n_taps; i++)
            sum += rows[i][j] * (uint32_t)w[i];
        dst[j] = round_clip(sum);
    }
}

void fv_resize_init_ref(fv_kernels *k);
void fv_resize_init_ref(fv_kernels *k)
{
    k->resize_h = resize_h__ref;
    k->resize_v = resize_v__ref;
}
