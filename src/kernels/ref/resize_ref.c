/* 8-bit resampling, portable: the oracle. */
#include "kernels/ref/resize_scalar.h"

static void resize_h__ref(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t m,
                          const fv_resize_taps *taps)
{
    for (size_t row = 0; row < m; row++)
        for (size_t o = 0; o < taps->n_out; o++)
            fv_resize_pixel(dst + row * dst_ld + o * 3, src + row * src_ld, taps, o);
}

static void resize_v__ref(uint8_t *dst, const uint8_t *const *rows, size_t n,
                          const fv_resize_taps *taps, size_t o)
{
    for (size_t j = 0; j < n; j++)
        dst[j] = fv_resize_byte(rows, j, taps, o);
}

void fv_resize_init_ref(fv_kernels *k);
void fv_resize_init_ref(fv_kernels *k)
{
    k->resize_h = resize_h__ref;
    k->resize_v = resize_v__ref;
}
