/* From f32 to u8 for Arm. */
#ifndef FV_U8_NEON_H
#define FV_U8_NEON_H

#include <string.h>

#include "kernels/arm/vmath_neon.h"

/* 4 + 4 values as u8: to nearest even, plus zero, saturating; NaN becomes -512 and so 0. */
FV_INLINE uint8x8_t fv_to_u8(float32x4_t x, float32x4_t y, int zero)
{
    const float32x4_t low = vdupq_n_f32(-512);
    int16x8_t q = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(vmaxnmq_f32(x, low))),
                               vqmovn_s32(vcvtnq_s32_f32(vmaxnmq_f32(y, low))));
    return vqmovun_s16(vqaddq_s16(q, vdupq_n_s16((int16_t)zero)));
}

/* n <= 4 of them to memory. */
FV_INLINE void fv_put_u8(uint8_t *dst, float32x4_t x, int zero, size_t n)
{
    uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(fv_to_u8(x, x, zero)), 0);
    if (n >= 4)
        memcpy(dst, &bytes, 4);
    else
        memcpy(dst, &bytes, n);
}

#endif
