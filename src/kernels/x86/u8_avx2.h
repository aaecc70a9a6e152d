/* From f32 to u8 for AVX2. */
#ifndef FV_U8_AVX2_H
#define FV_U8_AVX2_H

#include "kernels/x86/vec_avx2.h"

/* Rounded to nearest even; what is out of range, and NaN, so that packing saturates it to the right
 * side. */
static inline __m256i fv_round_avx2(__m256 x)
{
    /* min: the second operand for NaN */
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(512.0f), x));
}

/* 4 x 8 rounded numbers plus zero (16-bit lanes) as bytes, in order. */
static inline __m256i fv_pack_u8_avx2(__m256i a, __m256i b, __m256i c, __m256i d, __m256i zero)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i y = _mm256_packus_epi16(_mm256_adds_epi16(_mm256_packs_epi32(a, b), zero),
                                    _mm256_adds_epi16(_mm256_packs_epi32(c, d), zero));
    return _mm256_permutevar8x32_epi32(y, order);
}

/* The first n of 8 rounded numbers plus zero. */
static inline void fv_put_u8_avx2(uint8_t *dst, size_t n, __m256i x, __m256i zero)
{
    uint64_t bytes = (uint64_t)_mm256_extract_epi64(fv_pack_u8_avx2(x, x, x, x, zero), 0);
    __builtin_memcpy(dst, &bytes, n);
}

#endif
