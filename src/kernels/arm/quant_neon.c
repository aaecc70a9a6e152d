/* Weights in blocks of 8 or 4 bits for any AArch64 processor: products of bytes in 16 bits, added
 * in pairs. */
#include "kernels/arm/vmath_neon.h"

#define QUANT_ISA(name) name##__neon
#define QUANT_DOT
enum { GROUP = 4 };

/* 128 x 127 fits in 16 bits, twice it is left to the additions of pairs. */
FV_INLINE int32x4_t dot16(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))),
                    high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}

/* Per four of k: a row's four bytes in all lanes, times those of four columns, twice. */
FV_INLINE void add_block(int32x4_t s[8][2], const int8_t *a, size_t lda, const int8_t *b,
                         size_t rows)
{
    for (size_t g = 0; g < 8; g++, a += 4, b += 32) {
        const int8x16_t b0 = vld1q_s8(b), b1 = vld1q_s8(b + 16);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++) {
            const int8x16_t x = vreinterpretq_s8_s32(
                vld1q_dup_s32((const int32_t *)(const void *)(a + r * lda)));
            s[r][0] = dot16(s[r][0], b0, x);
            s[r][1] = dot16(s[r][1], b1, x);
        }
    }
}

#include "kernels/arm/quant_neon.h"

static void quantize_row__neon(void *dst, const float *x, size_t k)
{
    const size_t nb = k / FV_BLOCK;
    int8_t *q = dst;
    int32_t *part = (int32_t *)fv_qrow_part(dst, nb), *part4 = (int32_t *)fv_qrow_part4(dst, nb);
    int8_t *q4 = (int8_t *)fv_qrow_q4(dst, nb);
    int32_t *sum = (int32_t *)fv_qrow_sum(dst, nb);
    float *d = (float *)fv_qrow_d(dst, nb);
    for (size_t b = 0; b < nb; b++, x += FV_BLOCK, q += FV_BLOCK, part += 8, part4 += 4) {
        float32x4_t v[8];
        int32x4_t r[8];
        uint32x4_t largest = vdupq_n_u32(0);
        FV_UNROLL
        for (size_t i = 0; i < 8; i++) {
            v[i] = vld1q_f32(x + 4 * i);
            largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(v[i])));
        }
        float inv;
        d[b] = fv_qrow_scale(vmaxvq_u32(largest), &inv);
        FV_UNROLL
        for (size_t i = 0; i < 8; i++)
            r[i] = inv > 0 ? vcvtnq_s32_f32(vmulq_n_f32(v[i], inv)) : vdupq_n_s32(0);
        int32x4_t both = vdupq_n_s32(0);
        FV_UNROLL
        for (size_t h = 0; h < 2; h++) {
            const int32x4_t *t = r + 4 * h;
            const int16x8_t low = vcombine_s16(vmovn_s32(t[0]), vmovn_s32(t[1]));
            const int16x8_t high = vcombine_s16(vmovn_s32(t[2]), vmovn_s32(t[3]));
            const int8x16_t bytes = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
            vst1q_s8(q + 16 * h, bytes);
            vst1q_s8(q4 + fv_qrow_at4(b) + 64 * h, bytes);
            const int32x4_t fours = vpaddq_s32(vpaddq_s32(t[0], t[1]), vpaddq_s32(t[2], t[3]));
            const int32x4_t much = vnegq_s32(vshlq_n_s32(fours, 7));
            vst1q_s32(part + 4 * h, much);
            both = vaddq_s32(both, much);
        }
        vst1q_s32(part4, vshrq_n_s32(both, 4));
        sum[b] = vaddvq_s32(both);
    }
    fv_qrow_fill(dst, nb);
}

void fv_quant_init_neon(fv_kernels *k);
void fv_quant_init_neon(fv_kernels *k)
{
    k->quantize_row = quantize_row__neon;
    fill_slots(k);
}
