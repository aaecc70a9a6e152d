/* Pieces that the Arm kernels share: vectors of fewer than four values, the 16-bit types, and
 * exp, GELU and SiLU on four lanes. All static and inline: each file compiles them for its own
 * instruction set.
 *
 * Lanes never meet in here, so a value gets the same bits in a full vector, in a part of one
 * and in any lane. */
#ifndef FV_VMATH_NEON_H
#define FV_VMATH_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "base/types.h"

#define FV_INLINE static inline __attribute__((always_inline))

/* Before a loop over registers: with a bound that is constant after inlining it disappears. */
#if defined(__clang__)
#define FV_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FV_UNROLL _Pragma("GCC unroll 32")
#endif

/* ---- 1 to 4 values; lanes past n are zero and their memory is not touched ---------------- */

static inline float32x4_t fv_ld(const float *p, size_t n)
{
    if (n >= 4)
        return vld1q_f32(p);
    if (n == 1)
        return vld1q_lane_f32(p, vdupq_n_f32(0), 0);
    float32x4_t x = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
    return n == 3 ? vld1q_lane_f32(p + 2, x, 2) : x;
}

static inline void fv_st(float *p, float32x4_t x, size_t n)
{
    if (n >= 4) {
        vst1q_f32(p, x);
        return;
    }
    if (n == 1) {
        vst1q_lane_f32(p, x, 0);
        return;
    }
    vst1_f32(p, vget_low_f32(x));
    if (n == 3)
        vst1q_lane_f32(p + 2, x, 2);
}

static inline uint16x4_t fv_ld16(const uint16_t *p, size_t n)
{
    if (n >= 4)
        return vld1_u16(p);
    uint16x4_t x = vld1_lane_u16(p, vdup_n_u16(0), 0);
    if (n > 1)
        x = vld1_lane_u16(p + 1, x, 1);
    return n > 2 ? vld1_lane_u16(p + 2, x, 2) : x;
}

static inline void fv_st16(uint16_t *p, uint16x4_t x, size_t n)
{
    if (n >= 4) {
        vst1_u16(p, x);
        return;
    }
    vst1_lane_u16(p, x, 0);
    if (n > 1)
        vst1_lane_u16(p + 1, x, 1);
    if (n > 2)
        vst1_lane_u16(p + 2, x, 2);
}

/* ---- 16-bit types; to nearest even ------------------------------------------------------- */

static inline float32x4_t fv_widen_f16(uint16x4_t h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(h));
}

/* A bf16 is the upper half of an f32: zipped with zeros below. One instruction, on every vector
 * pipe; shifts have fewer pipes on most cores. */
static inline float32x4_t fv_widen_bf16(uint16x4_t h)
{
    return vreinterpretq_f32_u16(vzip1q_u16(vdupq_n_u16(0), vcombine_u16(h, vdup_n_u16(0))));
}

/* Saturating at +-65504; FMIN and FMAX let a NaN through. */
static inline uint16x4_t fv_narrow_f16(float32x4_t x)
{
    x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(65504.0f)), vdupq_n_f32(-65504.0f));
    return vreinterpret_u16_f16(vcvt_f16_f32(x));
}

static inline uint16x4_t fv_narrow_bf16(float32x4_t x)
{
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return vreinterpret_u16_bf16(vcvt_bf16_f32(x)); /* the same bits */
#else
    uint32x4_t u = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
#endif
}

/* n <= 4 values from or to element i of an array of a type. */
static inline float32x4_t fv_load(const void *p, fv_type type, size_t i, size_t n)
{
    switch (type) {
    case FV_TYPE_F16: return fv_widen_f16(fv_ld16((const uint16_t *)p + i, n));
    case FV_TYPE_BF16: return fv_widen_bf16(fv_ld16((const uint16_t *)p + i, n));
    default: return fv_ld((const float *)p + i, n);
    }
}

static inline void fv_store(void *p, fv_type type, size_t i, float32x4_t x, size_t n)
{
    switch (type) {
    case FV_TYPE_F16: fv_st16((uint16_t *)p + i, fv_narrow_f16(x), n); break;
    case FV_TYPE_BF16: fv_st16((uint16_t *)p + i, fv_narrow_bf16(x), n); break;
    default: fv_st((float *)p + i, x, n);
    }
}

/* ---- exp, GELU, SiLU --------------------------------------------------------------------- */

/* 2^(n + r) for an integral n in [-126, 127], given as shift = n + fv_round_magic, and r in
 * [-1/2, 1/2]. The magic number's own 127 puts n + 127 in the low bits of shift: shifted left
 * by 23 they are the float 2^n. NaN in r stays NaN. Coefficients: minimax for the relative
 * error, 2e-9 before rounding. */
#define FV_ROUND_MAGIC (0x1.8p23f + 127)

static inline float32x4_t fv_exp2_parts(float32x4_t shift, float32x4_t r)
{
    float32x4_t p = vfmaq_f32(vdupq_n_f32(0x1.5f3e52p-10f), r, vdupq_n_f32(0x1.41fbbcp-13f));
    p = vfmaq_f32(vdupq_n_f32(0x1.3b2d4cp-7f), r, p);
    p = vfmaq_f32(vdupq_n_f32(0x1.c6aee8p-5f), r, p);
    p = vfmaq_f32(vdupq_n_f32(0x1.ebfbdcp-3f), r, p);
    p = vfmaq_f32(vdupq_n_f32(0x1.62e430p-1f), r, p);
    p = vfmaq_f32(vdupq_n_f32(1), r, p);
    return vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(shift), 23)));
}

/* e^x for x in [-87, 88]: relative error below 1.2e-7 (1 ulp); outside, an end of that range.
 * NaN stays NaN. */
static inline float32x4_t fv_exp(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(FV_ROUND_MAGIC);
    x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(88)), vdupq_n_f32(-87));
    float32x4_t shift = vfmaq_f32(magic, x, vdupq_n_f32(0x1.715476p0f)); /* log2 e */
    float32x4_t n = vsubq_f32(shift, magic);
    float32x4_t r = vfmaq_f32(vnegq_f32(n), x, vdupq_n_f32(0x1.715476p0f));
    r = vfmaq_f32(r, x, vdupq_n_f32(0x1.4ae0cp-26f)); /* the rest of log2 e */
    return fv_exp2_parts(shift, r);
}

/* The same for softmax: exactly 0 below -87, so -infinity masks. x <= 88. */
static inline float32x4_t fv_exp_masked(float32x4_t x)
{
    uint32x4_t gone = vcltq_f32(x, vdupq_n_f32(-87));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(fv_exp(x)), gone));
}

/* x / (1 + e^-x): relative error below 2e-7; below -88, where it is 0, at most 1e-36. */
static inline float32x4_t fv_silu(float32x4_t x)
{
    x = vmaxq_f32(x, vdupq_n_f32(-88));
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1), fv_exp(vnegq_f32(x))));
}

/* x (1 + erf(x / sqrt 2)) / 2, without a division: with t = |x| and Q(t) = erfc(t / sqrt 2) / 2,
 *
 *     gelu(x) = max(x, 0) - t Q(t),      log2 Q(t) = -1 + t p(t)
 *
 * p of degree 7 is a minimax fit on [0, 8] of the error of t Q(t): 1e-8 before rounding. */
static inline float32x4_t fv_gelu(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(FV_ROUND_MAGIC);
    float32x4_t t = vminq_f32(vabsq_f32(x), vdupq_n_f32(8));
    float32x4_t p = vfmaq_f32(vdupq_n_f32(2.9755769e-05f), t, vdupq_n_f32(-2.02721071e-06f));
    p = vfmaq_f32(vdupq_n_f32(-0.000140772143f), t, p);
    p = vfmaq_f32(vdupq_n_f32(-0.000245650503f), t, p);
    p = vfmaq_f32(vdupq_n_f32(0.00720366742f), t, p);
    p = vfmaq_f32(vdupq_n_f32(-0.0525913127f), t, p);
    p = vfmaq_f32(vdupq_n_f32(-0.459178001f), t, p);
    p = vfmaq_f32(vdupq_n_f32(-1.15110838f), t, p);
    p = vfmaq_f32(vdupq_n_f32(-1), t, p); /* -1 to -54 */
    float32x4_t shift = vaddq_f32(p, magic);
    float32x4_t r = vsubq_f32(p, vsubq_f32(shift, magic));
    return vfmsq_f32(vmaxq_f32(x, vdupq_n_f32(0)), t, fv_exp2_parts(shift, r));
}

#endif
