/* The vector vocabulary that the shared kernel bodies (x86/..._body.h) are written in, for AVX-512:
 * 16 floats. n always counts lanes from the first; loads of n lanes touch only those elements and
 * leave zero in the others. */
#ifndef FV_VEC_AVX512_H
#define FV_VEC_AVX512_H

#include "kernels/x86/vmath_avx512.h"

#define VEC_ISA(name) name##__avx512

typedef __m512 vec;
enum { VEC_W = 16, VEC_REGS = 32 };

static inline __mmask16 vec_mask(size_t n) { return (__mmask16)((1u << n) - 1); }

static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_set(float x) { return _mm512_set1_ps(x); }
static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vec vec_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(vec_mask(n), p);
}
static inline void vec_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline void vec_store_n(float *p, size_t n, vec x)
{
    _mm512_mask_storeu_ps(p, vec_mask(n), x);
}

static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); } /* b when either is NaN */
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
/* a in the first n lanes, b in the others */
static inline vec vec_first(size_t n, vec a, vec b)
{
    return _mm512_mask_mov_ps(b, vec_mask(n), a);
}

static inline vec vec_exp2(vec x) { return fv_exp2_avx512(x); }
static inline vec vec_gelu(vec x) { return fv_gelu_avx512(x); }
static inline vec vec_gelu16(vec x) { return fv_gelu16_avx512(x); }
static inline vec vec_silu(vec x) { return fv_silu_avx512(x); }

static inline vec vec_from_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vec vec_from_f16_n(const uint16_t *p, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_mask(n), p));
}

static inline vec vec_from_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline vec vec_from_bf16_n(const uint16_t *p, size_t n)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vec_mask(n), p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* Elements i.. of an array of F32, F16 or BF16. */
static inline void vec_put(void *p, fv_type type, size_t i, vec x)
{
    fv_store_avx512(p, type, i, 0xffff, x);
}
static inline void vec_put_n(void *p, fv_type type, size_t i, size_t n, vec x)
{
    fv_store_avx512(p, type, i, vec_mask(n), x);
}

static inline vec vec_get(const void *p, fv_type type, size_t i)
{
    switch (type) {
    case FV_TYPE_F16: return vec_from_f16((const uint16_t *)p + i);
    case FV_TYPE_BF16: return vec_from_bf16((const uint16_t *)p + i);
    default: return vec_load((const float *)p + i);
    }
}

static inline vec vec_get_n(const void *p, fv_type type, size_t i, size_t n)
{
    switch (type) {
    case FV_TYPE_F16: return vec_from_f16_n((const uint16_t *)p + i, n);
    case FV_TYPE_BF16: return vec_from_bf16_n((const uint16_t *)p + i, n);
    default: return vec_load_n((const float *)p + i, n);
    }
}

/* Sum of the lanes, halves onto halves. */
static inline float vec_sum(vec x)
{
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

/* One bit a lane: equal, and not NaN. */
static inline unsigned vec_equal(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

/* Element pairs a, b = e0 o0 e1 o1 ... to e0 e1 ... and o0 o1 ..., and back. */
static inline vec vec_even(vec a, vec b)
{
    const __m512i step = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28,
                                           30);
    return _mm512_permutex2var_ps(a, step, b);
}

static inline vec vec_odd(vec a, vec b)
{
    const __m512i step = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29,
                                           31);
    return _mm512_permutex2var_ps(a, step, b);
}

static inline void vec_zip(vec *a, vec *b)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    vec first = _mm512_permutex2var_ps(*a, low, *b);
    *b = _mm512_permutex2var_ps(*a, _mm512_add_epi32(low, _mm512_set1_epi32(8)), *b);
    *a = first;
}

#endif
