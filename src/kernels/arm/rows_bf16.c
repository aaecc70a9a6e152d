/* Conversions to bf16 with the instruction for it: one where plain NEON takes seven. The same
 * bits: to nearest even, a NaN stays a quiet NaN. */
#include "kernels/arm/vmath_neon.h"
#include "kernels/kernels.h"

static void convert_bf16_f32__bf16(void *dst, const void *src, size_t n)
{
    const float *x = src;
    uint16_t *y = dst;
    for (; n >= 16; n -= 16, x += 16, y += 16) {
        bfloat16x8_t a = vcvtq_low_bf16_f32(vld1q_f32(x)), b = vcvtq_low_bf16_f32(vld1q_f32(x + 8));
        vst1q_u16(y, vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(a, vld1q_f32(x + 4))));
        vst1q_u16(y + 8, vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(b, vld1q_f32(x + 12))));
    }
    for (size_t i = 0; i < n; i += 4)
        fv_st16(y + i, fv_narrow_bf16(fv_ld(x + i, n - i)), n - i);
}

static void convert_bf16_f16__bf16(void *dst, const void *src, size_t n)
{
    const uint16_t *x = src;
    uint16_t *y = dst;
    for (; n >= 8; n -= 8, x += 8, y += 8) {
        float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(x));
        bfloat16x8_t a = vcvtq_low_bf16_f32(vcvt_f32_f16(vget_low_f16(h)));
        vst1q_u16(y, vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(a, vcvt_high_f32_f16(h))));
    }
    for (size_t i = 0; i < n; i += 4)
        fv_st16(y + i, fv_narrow_bf16(fv_widen_f16(fv_ld16(x + i, n - i))), n - i);
}

void fv_rows_init_bf16(fv_kernels *k);
void fv_rows_init_bf16(fv_kernels *k)
{
    k->convert[FV_TYPE_BF16][FV_TYPE_F32] = convert_bf16_f32__bf16;
    k->convert[FV_TYPE_BF16][FV_TYPE_F16] = convert_bf16_f16__bf16;
}
