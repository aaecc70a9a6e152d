/* The vector vocabulary of the shared kernel bodies for 8 floats on an AVX-512 processor (VL): what
 * attention needs when a call has at most 8 rows. The same operations as vec_avx512.h, so that a
 * row has the same bits in both. */
#ifndef FV_VEC_AVX512VL_H
#define FV_VEC_AVX512VL_H

#include <immintrin.h>

#include "base/types.h"

#define VEC_ISA(name) name##__avx512vl

typedef __m256 vec;
enum { VEC_W = 8, VEC_REGS = 32 };

static inline __mmask8 vec_mask(size_t n) { return (__mmask8)((1u << n) - 1); }

static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_set(float x) { return _mm256_set1_ps(x); }
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vec vec_load_n(const float *p, size_t n)
{
    return _mm256_maskz_loadu_ps(vec_mask(n), p);
}
static inline void vec_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline void vec_store_n(float *p, size_t n, vec x)
{
    _mm256_mask_storeu_ps(p, vec_mask(n), x);
}

static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); } /* b when either is NaN */
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
static inline vec vec_first(size_t n, vec a, vec b)
{
    return _mm256_mask_mov_ps(b, vec_mask(n), a);
}

/* fv_exp2_avx512 */
static inline vec vec_exp2(vec x)
{
    __m256 r = _mm256_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m256 p = _mm256_set1_ps(0.000218657849f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00123913318f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00968418643f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0554806292f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.240230456f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.693146944f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_scalef_ps(p, x);
}

static inline void vec_put_n(void *p, fv_type type, size_t i, size_t n, vec x)
{
    __m256i u, high, odd, y;
    switch (type) {
    case FV_TYPE_F16: /* saturating; min and max return their second operand for NaN */
        x = _mm256_min_ps(_mm256_set1_ps(65504.0f), x);
        x = _mm256_max_ps(_mm256_set1_ps(-65504.0f), x);
        _mm_mask_storeu_epi16((uint16_t *)p + i, vec_mask(n),
                              _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        break;
    case FV_TYPE_BF16: /* fv_bf16_avx512 */
        u = _mm256_castps_si256(x);
        high = _mm256_srli_epi32(u, 16);
        odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        y = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd),
                              16);
        y = _mm256_mask_or_epi32(y, _mm256_cmp_ps_mask(x, x, _CMP_UNORD_Q), high,
                                 _mm256_set1_epi32(0x40));
        _mm_mask_storeu_epi16((uint16_t *)p + i, vec_mask(n), _mm256_cvtepi32_epi16(y));
        break;
    default: vec_store_n((float *)p + i, n, x);
    }
}

static inline vec vec_from_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vec vec_from_f16_n(const uint16_t *p, size_t n)
{
    return _mm256_cvtph_ps(_mm_maskz_loadu_epi16(vec_mask(n), p));
}

#endif
