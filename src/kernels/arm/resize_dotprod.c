/* 8-bit resampling along rows with SDOT: four taps at once.
 *
 * A group of four taps is 12 bytes. One table look-up puts the taps of a colour side by side,
 *
 *     r0 g0 b0 r1 g1 b1 r2 g2 b2 r3 g3 b3  ->  r0 r1 r2 r3 | g0 g1 g2 g3 | b0 b1 b2 b3 | 0
 *
 * and one SDOT for each of a weight's three digits adds them to the digit's sums of the three
 * colours. SDOT wants signed bytes: with x - 128 for x, 128 times the sum of the weights is
 * missing, which is what a row of bytes -128 gives, negated. Four rows share an output's
 * weights. */
#include "kernels/arm/vmath_neon.h"
#include "kernels/kernels.h"

enum { DIGITS = 3, ROWS = 4 };

/* Sums of digits to the sum; unsigned, so that it wraps. */
static inline uint32x4_t join(const int32x4_t s[DIGITS])
{
    uint32x4_t low = vreinterpretq_u32_s32(s[0]), mid = vreinterpretq_u32_s32(s[1]),
               high = vreinterpretq_u32_s32(s[2]);
    return vaddq_u32(low, vaddq_u32(vshlq_n_u32(mid, 8), vshlq_n_u32(high, 16)));
}

FV_INLINE void add_group(int32x4_t s[DIGITS], int8x16_t x, int8x16_t w)
{
    s[0] = vdotq_laneq_s32(s[0], x, w, 0);
    s[1] = vdotq_laneq_s32(s[1], x, w, 1);
    s[2] = vdotq_laneq_s32(s[2], x, w, 2);
}

/* Twelve bytes minus 128, by colour; not more than `bytes` are read. */
FV_INLINE int8x16_t load_group(const uint8_t *x, size_t bytes)
{
    static const uint8_t by_colour[16] = {
        0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, 255, 255, 255, 255
    };
    uint8_t some[16] = { 0 };
    if (bytes < 16)
        for (size_t i = 0; i < bytes; i++)
            some[i] = x[i];
    uint8x16_t v = veorq_u8(vld1q_u8(bytes < 16 ? some : x), vdupq_n_u8(128));
    return vreinterpretq_s8_u8(vqtbl1q_u8(v, vld1q_u8(by_colour)));
}

/* Output o of `rows` rows, constant in every use. */
FV_INLINE void output(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t rows,
                      const fv_resize_taps *taps, size_t o)
{
    const int8x16_t lowest = vdupq_n_s8(-128);
    const int8_t *w = taps->w8 + o * taps->n_groups * 16;
    size_t at = (size_t)taps->first[o] * 3, row_end = taps->n_in * 3, end = at + taps->n_taps * 3;
    int32x4_t s[ROWS][DIGITS], none[DIGITS];
    FV_UNROLL
    for (size_t d = 0; d < DIGITS; d++) {
        none[d] = vdupq_n_s32(0);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            s[r][d] = vdupq_n_s32(0);
    }
    for (; at < end && at + 16 <= row_end; at += 12, w += 16) { /* taps past the last weigh 0 */
        int8x16_t weights = vld1q_s8(w);
        add_group(none, lowest, weights);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            add_group(s[r], load_group(src + r * src_ld + at, 16), weights);
    }
    for (; at < end; at += 12, w += 16) { /* at the end of the rows */
        int8x16_t weights = vld1q_s8(w);
        add_group(none, lowest, weights);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            add_group(s[r], load_group(src + r * src_ld + at, end - at), weights);
    }
    uint32x4_t half = vsubq_u32(vdupq_n_u32(1 << 21), join(none));
    FV_UNROLL
    for (size_t r = 0; r < rows; r++) {
        uint16x4_t y = vqmovun_s32(
            vshrq_n_s32(vreinterpretq_s32_u32(vaddq_u32(join(s[r]), half)), 22));
        uint8x8_t pixel = vqmovn_u16(vcombine_u16(y, y));
        vst1_lane_u8(dst + r * dst_ld + o * 3, pixel, 0);
        vst1_lane_u8(dst + r * dst_ld + o * 3 + 1, pixel, 1);
        vst1_lane_u8(dst + r * dst_ld + o * 3 + 2, pixel, 2);
    }
}

static void resize_h__dotprod(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld,
                              size_t m, const fv_resize_taps *taps)
{
    for (; m >= ROWS; m -= ROWS, dst += ROWS * dst_ld, src += ROWS * src_ld)
        for (size_t o = 0; o < taps->n_out; o++)
            output(dst, dst_ld, src, src_ld, ROWS, taps, o);
    for (; m > 0; m--, dst += dst_ld, src += src_ld)
        for (size_t o = 0; o < taps->n_out; o++)
            output(dst, dst_ld, src, src_ld, 1, taps, o);
}

void fv_resize_init_dotprod(fv_kernels *k);
void fv_resize_init_dotprod(fv_kernels *k) { k->resize_h = resize_h__dotprod; }
