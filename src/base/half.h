/* The two 16-bit floats, bit by bit: the portable versions that every vector conversion is
 * checked against. All static: kernel files may include this without leaking code compiled
 * for their instruction set.
 *
 *     f16   1 sign | 5 exponent  | 10 fraction    max 65504, smallest 2^-24
 *     bf16  1 sign | 8 exponent  |  7 fraction    the upper half of an f32
 *
 * Rounding is to nearest, ties to even. A NaN stays a NaN, made quiet, with its sign and the
 * upper bits of its payload. */
#ifndef FV_HALF_H
#define FV_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t fv_bits_of_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float fv_f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float fv_bf16_to_f32(uint16_t half) { return fv_f32_of_bits((uint32_t)half << 16); }

static inline uint16_t fv_f32_to_bf16(float value)
{
    uint32_t bits = fv_bits_of_f32(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x0040);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float fv_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t rest = half & 0x7fff;

    if (rest >= 0x7c00) /* infinity and NaN */
        return fv_f32_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13 |
                              (rest > 0x7c00 ? 0x400000u : 0));
    if (rest >= 0x0400)
        return fv_f32_of_bits(sign | ((rest << 13) + (112u << 23)));
    float tiny = (float)rest * 0x1p-24f; /* exact */
    return fv_f32_of_bits(sign | fv_bits_of_f32(tiny));
}

/* IEEE 754: 65520 and above become infinity. */
static inline uint16_t fv_f32_to_f16(float value)
{
    uint32_t bits = fv_bits_of_f32(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;

    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (bits >= 0x38800000) { /* 2^-14: normal */
        bits -= 112u << 23;
        return (uint16_t)(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13);
    }
    if (bits < 0x33000000) /* below 2^-25 everything rounds to zero */
        return sign;
    uint32_t fraction = (bits & 0x7fffff) | 0x800000;
    uint32_t shift = 126 - (bits >> 23); /* 14 to 24 */
    uint32_t rounded = fraction >> shift;
    uint32_t rest = fraction & ((1u << shift) - 1), half = 1u << (shift - 1);
    rounded += rest > half || (rest == half && (rounded & 1));
    return (uint16_t)(sign | rounded);
}

/* The same, but what would be infinite becomes the largest finite value: activations stored
 * as f16 come close to the limit, and one infinity would turn a whole image into NaN. */
static inline uint16_t fv_f32_to_f16_sat(float value)
{
    uint16_t half = fv_f32_to_f16(value);
    return (half & 0x7fff) == 0x7c00 ? (uint16_t)((half & 0x8000) | 0x7bff) : half;
}

#endif
