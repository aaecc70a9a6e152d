/* Conversions of the 16-bit float types. bf16 is the upper half of an f32. */
#ifndef FV_HALF_H
#define FV_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t fv_bits_of_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float fv_f32_of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float fv_bf16_to_f32(uint16_t h) { return fv_f32_of_bits((uint32_t)h << 16); }

/* To nearest even; a NaN stays a quiet NaN. */
static inline uint16_t fv_f32_to_bf16(float x)
{
    uint32_t u = fv_bits_of_f32(x);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float fv_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return fv_f32_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in f32 */
        float x = (float)fraction * 0x1p-24f;
        return sign ? -x : x;
    }
    return fv_f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* To nearest even; overflow gives an infinity, a NaN stays a quiet NaN. */
static inline uint16_t fv_f32_to_f16(float x)
{
    uint32_t u = fv_bits_of_f32(x), sign = u >> 16 & 0x8000, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
    if (mag >= 0x477ff000u) /* 65520 and more */
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the rounded subnormal in the low bits */
        float shifted = fv_f32_of_bits(mag) + 0.5f;
        return (uint16_t)(sign | (fv_bits_of_f32(shifted) - 0x3f000000u));
    }
    mag += 0xfff + (mag >> 13 & 1);
    return (uint16_t)(sign | ((mag >> 13) - (112u << 10)));
}

/* The same with overflow and infinities at +-65504, the largest finite value. */
static inline uint16_t fv_f32_to_f16_sat(float x)
{
    uint16_t h = fv_f32_to_f16(x);
    return (h & 0x7fff) == 0x7c00 ? (uint16_t)(h - 1) : h;
}

#endif
