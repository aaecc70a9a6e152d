/* f32 to u8 for AVX2. */
#include "kernels/x86/u8_avx2.h"

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

void fv_quantize_u8_init_avx2(fv_kernels *k);
void fv_quantize_u8_init_avx2(fv_kernels *k) { k->quantize_u8 = quantize_u8__avx2; }
