/* The vector vocabulary that the shared kernel bodies (x86/..._body.h) are written in, for AVX2:
 * 8 floats. n always counts lanes from the first; loads of n lanes touch only those elements and
 * leave zero in the others. */
#ifndef FV_VEC_AVX2_H
#define FV_VEC_AVX2_H

#include "kernels/x86/vmath_avx2.h"

#define VEC_ISA(name) name##__avx2

typedef __m256 vec;
enum { VEC_W = 8, VEC_REGS = 16 };

static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_set(float x) { return _mm256_set1_ps(x); }
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vec vec_load_n(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, fv_mask_avx2(n));
}
static inline void vec_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline void vec_store_n(float *p, size_t n, vec x)
{
    _mm256_maskstore_ps(p, fv_mask_avx2(n), x);
}

static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); } /* b when either is NaN */
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
/* a in the first n lanes, b in the others */
static inline vec vec_first(size_t n, vec a, vec b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(fv_mask_avx2(n)));
}

static inline vec vec_exp2(vec x) { return fv_exp2_avx2(x); }
static inline vec vec_gelu(vec x) { return fv_gelu_avx2(x); }
static inline vec vec_gelu16(vec x) { return fv_gelu_avx2(x); } /* a shorter one gained nothing */
static inline vec vec_silu(vec x) { return fv_silu_avx2(x); }

static inline vec vec_from_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vec vec_from_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline vec vec_from_f16_n(const uint16_t *p, size_t n)
{
    uint16_t half[VEC_W] = { 0 };
    memcpy(half, p, n * sizeof *half);
    return vec_from_f16(half);
}

static inline vec vec_from_bf16_n(const uint16_t *p, size_t n)
{
    uint16_t half[VEC_W] = { 0 };
    memcpy(half, p, n * sizeof *half);
    return vec_from_bf16(half);
}

/* Elements i.. of an array of F32, F16 or BF16. */
static inline void vec_put(void *p, fv_type type, size_t i, vec x) { fv_store_avx2(p, type, i, x); }
static inline void vec_put_n(void *p, fv_type type, size_t i, size_t n, vec x)
{
    fv_store_n_avx2(p, type, i, n, x);
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
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

/* One bit a lane: equal, and not NaN. */
static inline unsigned vec_equal(vec a, vec b)
{
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

/* Element pairs a, b = e0 o0 e1 o1 ... to e0 e1 ... and o0 o1 ..., and back. */
static inline vec vec_even(vec a, vec b)
{
    vec x = _mm256_shuffle_ps(a, b, 0x88); /* by 128-bit halves */
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}

static inline vec vec_odd(vec a, vec b)
{
    vec x = _mm256_shuffle_ps(a, b, 0xdd);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}

static inline void vec_zip(vec *a, vec *b)
{
    vec low = _mm256_unpacklo_ps(*a, *b), high = _mm256_unpackhi_ps(*a, *b);
    *a = _mm256_permute2f128_ps(low, high, 0x20);
    *b = _mm256_permute2f128_ps(low, high, 0x31);
}

#endif
