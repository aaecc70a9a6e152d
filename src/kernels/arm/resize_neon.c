/* 8-bit resampling for any AArch64 processor. Sums are unsigned, so that they wrap as asked. */
#include <string.h>

#include "kernels/arm/vmath_neon.h"
#include "kernels/kernels.h"

/* clip8((2^21 + sum) >> 22) of four sums, as 16-bit values; both steps saturate. */
static inline uint16x4_t clip8(uint32x4_t sum)
{
    return vqmovun_s32(
        vshrq_n_s32(vreinterpretq_s32_u32(vaddq_u32(sum, vdupq_n_u32(1 << 21))), 22));
}

/* One output pixel: lanes are its three colours. A group of four taps is 12 bytes; a table
 * look-up spreads each tap's colours over 32-bit lanes. */
static inline uint32x4_t four_taps(uint32x4_t sum, uint8x16_t x, uint32x4_t w)
{
    static const uint8_t spread[4][16] = {
        { 0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 255, 255, 255, 255 },
        { 3, 255, 255, 255, 4, 255, 255, 255, 5, 255, 255, 255, 255, 255, 255, 255 },
        { 6, 255, 255, 255, 7, 255, 255, 255, 8, 255, 255, 255, 255, 255, 255, 255 },
        { 9, 255, 255, 255, 10, 255, 255, 255, 11, 255, 255, 255, 255, 255, 255, 255 },
    };
    sum = vmlaq_laneq_u32(sum, vreinterpretq_u32_u8(vqtbl1q_u8(x, vld1q_u8(spread[0]))), w, 0);
    sum = vmlaq_laneq_u32(sum, vreinterpretq_u32_u8(vqtbl1q_u8(x, vld1q_u8(spread[1]))), w, 1);
    sum = vmlaq_laneq_u32(sum, vreinterpretq_u32_u8(vqtbl1q_u8(x, vld1q_u8(spread[2]))), w, 2);
    return vmlaq_laneq_u32(sum, vreinterpretq_u32_u8(vqtbl1q_u8(x, vld1q_u8(spread[3]))), w, 3);
}

static void resize_h__neon(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t m,
                           const fv_resize_taps *taps)
{
    size_t whole = taps->n_taps / 4, rest = taps->n_taps % 4;
    for (size_t row = 0; row < m; row++, dst += dst_ld, src += src_ld) {
        for (size_t o = 0; o < taps->n_out; o++) {
            const uint8_t *x = src + (size_t)taps->first[o] * 3;
            const int32_t *w = taps->w + o * taps->n_groups * 4;
            uint32x4_t sum = vdupq_n_u32(0);
            for (size_t g = 0; g < whole; g++, x += 12, w += 4) {
                uint32_t end;
                memcpy(&end, x + 8, sizeof end);
                sum = four_taps(sum, vcombine_u8(vld1_u8(x), vcreate_u8(end)),
                                vreinterpretq_u32_s32(vld1q_s32(w)));
            }
            if (rest) {
                uint8_t last[16] = { 0 };
                for (size_t i = 0; i < rest * 3; i++)
                    last[i] = x[i];
                sum = four_taps(sum, vld1q_u8(last), vreinterpretq_u32_s32(vld1q_s32(w)));
            }
            uint8x8_t y = vqmovn_u16(vcombine_u16(clip8(sum), vdup_n_u16(0)));
            vst1_lane_u8(dst + o * 3, y, 0);
            vst1_lane_u8(dst + o * 3 + 1, y, 1);
            vst1_lane_u8(dst + o * 3 + 2, y, 2);
        }
    }
}

/* Sixteen bytes of a row. */
static inline void add_row(uint32x4_t sum[4], uint8x16_t x, uint32_t w)
{
    uint16x8_t low = vmovl_u8(vget_low_u8(x)), high = vmovl_high_u8(x);
    sum[0] = vmlaq_n_u32(sum[0], vmovl_u16(vget_low_u16(low)), w);
    sum[1] = vmlaq_n_u32(sum[1], vmovl_high_u16(low), w);
    sum[2] = vmlaq_n_u32(sum[2], vmovl_u16(vget_low_u16(high)), w);
    sum[3] = vmlaq_n_u32(sum[3], vmovl_high_u16(high), w);
}

static inline uint8x16_t clip_row(const uint32x4_t sum[4])
{
    return vcombine_u8(vqmovn_u16(vcombine_u16(clip8(sum[0]), clip8(sum[1]))),
                       vqmovn_u16(vcombine_u16(clip8(sum[2]), clip8(sum[3]))));
}

static void resize_v__neon(uint8_t *dst, const uint8_t *const *rows, size_t n,
                           const fv_resize_taps *taps, size_t o)
{
    const int32_t *w = taps->w + o * taps->n_groups * 4;
    for (size_t j = 0; j < n; j += 16) {
        size_t part = n - j < 16 ? n - j : 16;
        uint32x4_t sum[4] = { vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0) };
        uint8_t some[16] = { 0 };
        if (part == 16) {
            for (size_t i = 0; i < taps->n_taps; i++)
                add_row(sum, vld1q_u8(rows[i] + j), (uint32_t)w[i]);
            vst1q_u8(dst + j, clip_row(sum));
        } else {
            for (size_t i = 0; i < taps->n_taps; i++) {
                memcpy(some, rows[i] + j, part);
                add_row(sum, vld1q_u8(some), (uint32_t)w[i]);
            }
            vst1q_u8(some, clip_row(sum));
            memcpy(dst + j, some, part);
        }
    }
}

void fv_resize_init_neon(fv_kernels *k);
void fv_resize_init_neon(fv_kernels *k)
{
    k->resize_h = resize_h__neon;
    k->resize_v = resize_v__neon;
}
