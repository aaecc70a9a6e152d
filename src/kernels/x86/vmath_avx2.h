/* Vector exp, GELU, SiLU and stores for AVX2 with FMA and F16C, 8 values at a time. Included by
 * the *_avx2.c files only. Every function works lane by lane, so a value's result does not
 * depend on its neighbours. Constants: tools/vmath_tables.py.
 *
 * Errors against double, over f32 in steps of 997 bit patterns, both signs:
 *   fv_exp_avx2   1.1 ULP for -87.33 <= x <= 88.37; 0 below, inf above
 *   fv_exp2_avx2  relative 1.2e-7 for -126 <= x < 127.5, 0 below; exp2(0) = 1
 *   fv_gelu_avx2  half an ULP of y plus 5.6e-8
 *   fv_silu_avx2  2 ULP for x >= -88.37, -0 below
 * NaN gives NaN in all of them. */
#ifndef FV_VMATH_AVX2_H
#define FV_VMATH_AVX2_H

#include <immintrin.h>

#include "base/half.h"
#include "base/types.h"

/* e^x = 2^n e^r with n = round(x / ln 2), r in +-ln 2 / 2. */
static inline __m256 fv_exp_avx2(__m256 x)
{
    /* min and max return their second operand for NaN */
    __m256 clamped = _mm256_min_ps(_mm256_set1_ps(88.37f), x);
    clamped = _mm256_max_ps(_mm256_set1_ps(-87.33f), clamped);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(clamped, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* 16 bits of ln 2: n times it is exact */
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), clamped);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
    __m256 p = _mm256_set1_ps(0.00139411085f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00837512594f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0416663513f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.166664153f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(
        _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    p = _mm256_blendv_ps(p, _mm256_set1_ps(__builtin_inff()),
                         _mm256_cmp_ps(x, _mm256_set1_ps(88.37f), _CMP_GT_OQ));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-87.33f), _CMP_LT_OQ), p);
}

/* 2^x = 2^floor(x) 2^r, r = x - floor(x); for x < 127.5. */
static inline __m256 fv_exp2_avx2(__m256 x)
{
    /* max: x when it is NaN */
    __m256 n = _mm256_floor_ps(_mm256_max_ps(_mm256_set1_ps(-126.0f), x));
    __m256 r = _mm256_sub_ps(x, n);
    __m256 p = _mm256_set1_ps(0.000218657849f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00123913318f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00968418643f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0554806292f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.240230456f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.693146944f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(
        _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_LT_OQ), p);
}

/* gelu(x) = max(x, 0) - g(|x|), g(a) = a (1 - Phi(a)): a bump of height 0.17, nothing from 5.62 on.
 * Interval n is centred on 3/4 n; its polynomial by powers of a - 3/4 n comes from 8-entry tables
 * (vpermps). */
static const float fv_gelu_table_avx2[7][8] __attribute__((aligned(32))) = {
    { 0.0f, 0.169970512f, 0.100210801f, 0.0275050644f, 0.00404969417f, 0.000331564806f,
      1.52895282e-05f, 3.99260415e-07f },
    { 0.5f, 0.000775106135f, -0.127469629f, -0.0591898672f, -0.0119455382f, -0.00123380998f,
      -6.8535599e-05f, -2.0923801e-06f },
    { -0.398941934f, -0.216442689f, 0.0161896087f, 0.0486014411f, 0.0155114559f, 0.00212658336f,
      0.000145852828f, 5.27710699e-06f },
    { -1.01359428e-05f, 0.129347816f, 0.0566889755f, -0.0126392115f, -0.0110858222f,
      -0.00221786858f, -0.000194435386f, -8.45597788e-06f },
    { 0.0666000247f, 0.0047637457f, -0.0360844173f, -0.00768750161f, 0.00406327844f, 0.00151840039f,
      0.000181288939f, 9.79506331e-06f },
    { -0.000507528952f, -0.0221538432f, 0.00237335032f, 0.00707648322f, 8.8516339e-05f,
      -0.000667714106f, -0.000128280095f, -9.35831395e-06f },
    { -0.00905985758f, 0.00229159067f, 0.00480941636f, -0.00168733043f, -0.00078640983f,
      0.000147264393f, 6.2194631e-05f, 6.15879298e-06f },
};

static inline __m256 fv_pick_avx2(const float table[8], __m256i index)
{
    return _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
}

static inline __m256 fv_gelu_avx2(__m256 x)
{
    /* adding it rounds to an integer, in the low bits */
    const __m256 magic = _mm256_set1_ps(0x1.8p23f);
    __m256 abs = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    __m256 a = _mm256_min_ps(abs, _mm256_set1_ps(5.62f)); /* 5.62 for NaN */
    __m256 t = _mm256_fmadd_ps(a, _mm256_set1_ps(1.33333337f), magic);
    __m256i n = _mm256_castps_si256(t);
    __m256 r = _mm256_fnmadd_ps(_mm256_sub_ps(t, magic), _mm256_set1_ps(0.75f), a);
    __m256 g = fv_pick_avx2(fv_gelu_table_avx2[6], n);
    for (int k = 5; k >= 0; k--)
        g = _mm256_fmadd_ps(g, r, fv_pick_avx2(fv_gelu_table_avx2[k], n));
    g = _mm256_and_ps(g, _mm256_cmp_ps(abs, _mm256_set1_ps(5.62f), _CMP_LT_OQ));
    return _mm256_sub_ps(_mm256_max_ps(_mm256_setzero_ps(), x), g);
}

/* x / (1 + e^-x) */
static inline __m256 fv_silu_avx2(__m256 x)
{
    __m256 e = fv_exp_avx2(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(e, _mm256_set1_ps(1.0f)));
}

/* To nearest even; a NaN stays a quiet NaN; the same bits as fv_f32_to_bf16. */
static inline __m128i fv_bf16_avx2(__m256 x)
{
    __m256i u = _mm256_castps_si256(x), high = _mm256_srli_epi32(u, 16);
    __m256i even = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i y = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), even), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    y = _mm256_blendv_epi8(y, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
}

/* To nearest even, saturating; the same bits as fv_f32_to_f16_sat. */
static inline __m128i fv_f16_sat_avx2(__m256 x)
{
    x = _mm256_min_ps(_mm256_set1_ps(65504.0f), x);
    x = _mm256_max_ps(_mm256_set1_ps(-65504.0f), x);
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 8 values to element i of p, an array of F32, F16 or BF16. */
static inline void fv_store_avx2(void *p, fv_type type, size_t i, __m256 x)
{
    switch (type) {
    case FV_TYPE_F16:
        _mm_storeu_si128((__m128i *)(void *)((uint16_t *)p + i), fv_f16_sat_avx2(x));
        break;
    case FV_TYPE_BF16:
        _mm_storeu_si128((__m128i *)(void *)((uint16_t *)p + i), fv_bf16_avx2(x));
        break;
    default: _mm256_storeu_ps((float *)p + i, x);
    }
}

/* All ones in the first n of 8 lanes, n <= 8: the mask of vmaskmov. */
static inline __m256i fv_mask_avx2(size_t n)
{
    static const int32_t ones[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + 8 - n));
}

/* The first n <= 8 of x to element i of p. */
static inline void fv_store_n_avx2(void *p, fv_type type, size_t i, size_t n, __m256 x)
{
    uint16_t half[8];
    if (type == FV_TYPE_F32) {
        _mm256_maskstore_ps((float *)p + i, fv_mask_avx2(n), x);
        return;
    }
    _mm_storeu_si128((__m128i *)(void *)half,
                     type == FV_TYPE_F16 ? fv_f16_sat_avx2(x) : fv_bf16_avx2(x));
    memcpy((uint16_t *)p + i, half, n * sizeof *half);
}

#endif
