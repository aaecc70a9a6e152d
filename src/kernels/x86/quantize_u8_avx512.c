/* f32 to u8, and to 16 bits in two bytes, for AVX-512. */
#include "kernels/x86/u8_avx512.h"

#include "base/base.h"
#include "kernels/kernels.h"

static inline __attribute__((always_inline)) __m512i one(const float *x, const float *inv,
                                                         __mmask16 mask)
{
    return fv_round_avx512(
        _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x), _mm512_maskz_loadu_ps(mask, inv)));
}

static void quantize_u8__avx512(uint8_t *dst, size_t dst_ld, const float *src, size_t src_ld,
                                const float *inv, int zero, size_t m, size_t c)
{
    const __m512i plus = _mm512_set1_epi16((short)zero);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (; m; m--, dst += dst_ld, src += src_ld) {
        size_t j = 0;
        for (; j + 64 <= c; j += 64) {
            __m512i y = fv_pack_u8_avx512(one(src + j, inv + j, 0xffff),
                                          one(src + j + 16, inv + j + 16, 0xffff),
                                          one(src + j + 32, inv + j + 32, 0xffff),
                                          one(src + j + 48, inv + j + 48, 0xffff), plus);
            _mm512_storeu_si512(dst + j, _mm512_permutexvar_epi32(order, y));
        }
        for (; j < c; j += 16) {
            const __mmask16 mask = c - j >= 16 ? 0xffff : (__mmask16)((1u << (c - j)) - 1);
            const __m512i y = one(src + j, inv + j, mask);
            const __m512i bytes = _mm512_permutexvar_epi32(order,
                                                           fv_pack_u8_avx512(y, y, y, y, plus));
            _mm_mask_storeu_epi8(dst + j, mask, _mm512_castsi512_si128(bytes));
        }
    }
}

static void quantize_u16__avx512(uint8_t *high, uint8_t *low, size_t dst_ld, const float *src,
                                 size_t src_ld, const float *inv, int zero, size_t m, size_t c)
{
    const __m512i plus = _mm512_set1_epi32(256 * zero), most = _mm512_set1_epi32(65535);
    for (; m; m--, high += dst_ld, low += dst_ld, src += src_ld) {
        for (size_t j = 0; j < c; j += 16) {
            const __mmask16 mask = c - j >= 16 ? 0xffff : (__mmask16)((1u << (c - j)) - 1);
            const __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, inv + j),
                                               _mm512_set1_ps(256));
            const __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, src + j), scale);
            /* min: the second operand for NaN, which then becomes the least number */
            __m512i q = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(65536), x));
            q = _mm512_max_epi32(_mm512_add_epi32(q, plus), _mm512_setzero_si512());
            q = _mm512_min_epi32(q, most);
            _mm_mask_storeu_epi8(low + j, mask, _mm512_cvtepi32_epi8(q));
            _mm_mask_storeu_epi8(high + j, mask, _mm512_cvtepi32_epi8(_mm512_srli_epi32(q, 8)));
        }
    }
}

void fv_quantize_u8_init_avx512(fv_kernels *k);
void fv_quantize_u8_init_avx512(fv_kernels *k)
{
    k->quantize_u8 = quantize_u8__avx512;
    k->quantize_u16 = quantize_u16__avx512;
}
