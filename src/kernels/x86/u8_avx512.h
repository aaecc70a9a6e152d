/* From f32 to u8 for AVX-512: GELU as exact as a byte can show, and packing. */
#ifndef FV_U8_AVX512_H
#define FV_U8_AVX512_H

#include "kernels/x86/vmath_avx512.h"

/* As fv_gelu16_table_avx512, but one register holds a coefficient: 16 intervals of 3/8, degree 2;
 * error 2.1e-4. Constants: tools/vmath_tables.py. */
static const float fv_gelu8_table_avx512[3][16] __attribute__((aligned(64))) = {
    { 0.0f, 0.00296870084f, 0.0451653674f, 0.165525496f, 0.323464066f, 0.422369599f, 0.406433731f,
      0.303489447f, 0.181325451f, 0.0884066969f, 0.0356489122f, 0.0120029673f, 0.00339836325f,
      0.000813409861f, 0.00016527572f, 2.86019549e-05f },
    { 0.499945432f, 0.47509107f, 0.328643471f, 0.0715318024f, -0.17169778f, -0.291437656f,
      -0.277307272f, -0.193074346f, -0.105946057f, -0.0473462082f, -0.0175431669f, -0.00544961961f,
      -0.00142983685f, -0.000318535167f, -6.04882371e-05f, -9.82016172e-06f },
    { -0.396904796f, -0.344472975f, -0.216315493f, -0.0785520598f, 0.0152415084f, 0.0515041277f,
      0.0483975708f, 0.0311587658f, 0.0156180467f, 0.00637650676f, 0.00216672174f, 0.00062020513f,
      0.000150676147f, 3.12258271e-05f, 5.53965629e-06f, 8.43492501e-07f },
};

static inline __m512 fv_gelu8_avx512(__m512 x)
{
    __m512 a = _mm512_range_ps(x, _mm512_set1_ps(5.8f), 0xa); /* min(|x|, 5.8) */
    __m512i n = _mm512_castps_si512(
        _mm512_fmadd_ps(a, _mm512_set1_ps(2.66666675f), _mm512_set1_ps(0x1.8p23f)));
    __m512 g = _mm512_permutexvar_ps(n, _mm512_load_ps(fv_gelu8_table_avx512[2]));
    g = _mm512_fmadd_ps(g, a, _mm512_permutexvar_ps(n, _mm512_load_ps(fv_gelu8_table_avx512[1])));
    g = _mm512_fmadd_ps(g, a, _mm512_permutexvar_ps(n, _mm512_load_ps(fv_gelu8_table_avx512[0])));
    return _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), x), g);
}

/* Rounded to nearest even; what is out of range, and NaN, so that packing saturates it to the right
 * side. */
static inline __m512i fv_round_avx512(__m512 x)
{
    /* min: the second operand for NaN */
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(512.0f), x));
}

/* 4 x 16 rounded numbers plus zero (16-bit lanes) as bytes: of each quarter of 16 bytes 4 from a,
 * b, c and d. */
static inline __m512i fv_pack_u8_avx512(__m512i a, __m512i b, __m512i c, __m512i d, __m512i zero)
{
    return _mm512_packus_epi16(_mm512_adds_epi16(_mm512_packs_epi32(a, b), zero),
                               _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero));
}

#endif
