/* Scalar pieces shared by the portable kernels: the definitions all versions answer to. */
#ifndef FV_SCALAR_H
#define FV_SCALAR_H

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/types.h"
#include "kernels/blocks.h"

static inline float fv_ref_gelu(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
}
static inline float fv_ref_silu(float x) { return x / (1.0f + expf(-x)); }

/* u8 as the contract has it: to nearest even, NaN to 0 */
static inline uint8_t fv_ref_u8(float x, int zero)
{
    if (x != x)
        return 0;
    x = nearbyintf(x < -512 ? -512 : x > 512 ? 512 : x) + (float)zero;
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

static inline float fv_ref_load(const void *p, fv_type type, size_t i)
{
    switch (type) {
    case FV_TYPE_F16: return fv_f16_to_f32(((const uint16_t *)p)[i]);
    case FV_TYPE_BF16: return fv_bf16_to_f32(((const uint16_t *)p)[i]);
    default: return ((const float *)p)[i];
    }
}

static inline void fv_ref_store(void *p, fv_type type, size_t i, float x)
{
    switch (type) {
    case FV_TYPE_F16: ((uint16_t *)p)[i] = fv_f32_to_f16_sat(x); break;
    case FV_TYPE_BF16: ((uint16_t *)p)[i] = fv_f32_to_bf16(x); break;
    default: ((float *)p)[i] = x;
    }
}

/* Element c of row j of keys or values d wide. */
static inline float fv_kv_load(const void *p, fv_type type, size_t ld, size_t d, size_t j, size_t c)
{
    if (type != FV_TYPE_I8)
        return fv_ref_load(p, type, j * ld + c);
    const char *row = (const char *)p + j * ld;
    return fv_kv_scales(row, d)[c / FV_BLOCK] * (float)((const int8_t *)row)[c];
}

#endif
