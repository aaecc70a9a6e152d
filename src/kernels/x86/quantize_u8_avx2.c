/* f32 to u8, and to 16 bits in two bytes, for AVX2. */
#include "kernels/x86/u8_avx2.h"

#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

static void quantize_u8__avx2(uint8_t *dst, size_t dst_ld, const float *src, size_t src_ld,
                              const float *inv, int zero, size_t m, size_t c)
{
    const __m256i plus = _mm256_set1_epi16((short)zero);
    for (; m; m--, dst += dst_ld, src += src_ld) {
        size_t j = 0;
        for (; j + 32 <= c; j += 32) {
            __m256i y[4];
            for (size_t i = 0; i < 4; i++)
                y[i] = fv_round_avx2(vec_mul(vec_load(src + j + 8 * i), vec_load(inv + j + 8 * i)));
            _mm256_storeu_si256((__m256i *)(void *)(dst + j),
                                fv_pack_u8_avx2(y[0], y[1], y[2], y[3], plus));
        }
        for (; j < c; j += 8) {
            const size_t n = FV_MIN(c - j, (size_t)8);
            fv_put_u8_avx2(dst + j, n,
                           fv_round_avx2(vec_mul(vec_load_n(src + j, n), vec_load_n(inv + j, n))),
                           plus);
        }
    }
}

static void quantize_u16__avx2(uint8_t *high, uint8_t *low, size_t dst_ld, const float *src,
                               size_t src_ld, const float *inv, int zero, size_t m, size_t c)
{
    const __m256i plus = _mm256_set1_epi32(256 * zero), most = _mm256_set1_epi32(65535);
    /* of each half: low bytes of four numbers, then their high bytes */
    const __m256i order = _mm256_set1_epi64x(0x0d0905010c080400);
    for (; m; m--, high += dst_ld, low += dst_ld, src += src_ld) {
        for (size_t j = 0; j < c; j += 8) {
            const size_t n = FV_MIN(c - j, (size_t)8);
            const vec scale = vec_mul(vec_load_n(inv + j, n), _mm256_set1_ps(256));
            const vec x = vec_mul(vec_load_n(src + j, n), scale);
            /* min: the second operand for NaN, which then becomes the least number */
            __m256i q = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(65536), x));
            q = _mm256_max_epi32(_mm256_add_epi32(q, plus), _mm256_setzero_si256());
            q = _mm256_shuffle_epi8(_mm256_min_epi32(q, most), order);
            const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(q),
                                                    _mm256_extracti128_si256(q, 1));
            uint8_t bytes[16]; /* eight low ones, eight high ones */
            _mm_storeu_si128((__m128i *)(void *)bytes, both);
            memcpy(low + j, bytes, n);
            memcpy(high + j, bytes + 8, n);
        }
    }
}

void fv_quantize_u8_init_avx2(fv_kernels *k);
void fv_quantize_u8_init_avx2(fv_kernels *k)
{
    k->quantize_u8 = quantize_u8__avx2;
    k->quantize_u16 = quantize_u16__avx2;
}
