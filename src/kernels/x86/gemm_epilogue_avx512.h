/* What the matrix products of AVX-512 share, whatever their operands are: the epilogue, and the
 * transposition of a square that packing is made of. */
#ifndef FV_GEMM_EPILOGUE_AVX512_H
#define FV_GEMM_EPILOGUE_AVX512_H

#include "kernels/kernels.h"
#include "kernels/x86/vmath_avx512.h"

#define UNROLL _Pragma("GCC unroll 16")

/* Lanes of mask as g->c_type; in this file's own way when it has one. */
#ifndef STORE_AVX512
#define STORE_AVX512 fv_store_avx512
#endif

static void epilogue(const fv_gemm_args *g, size_t i, size_t rows, size_t j, size_t width,
                     const float *sum, size_t sum_ld)
{
    const bool narrow = g->c_type != FV_TYPE_F32;
    for (size_t v = 0; v < width; v += 16) {
        const __mmask16 mask = width - v >= 16 ? 0xffff : (__mmask16)((1u << (width - v)) - 1);
        const size_t col = j + v;
        const __m512 bias = g->bias ? _mm512_maskz_loadu_ps(mask, g->bias + col)
                                    : _mm512_setzero_ps();
        const __m512 scale = g->scale ? _mm512_maskz_loadu_ps(mask, g->scale + col)
                                      : _mm512_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            __m512 y = _mm512_loadu_ps(sum + r * sum_ld + v);
            if (g->bias)
                y = _mm512_add_ps(y, bias);
            if (g->act == FV_ACT_GELU)
                y = narrow ? fv_gelu16_avx512(y) : fv_gelu_avx512(y);
            if (g->gate)
                y = _mm512_mul_ps(y, fv_silu_avx512(_mm512_maskz_loadu_ps(
                                         mask, g->gate + (i + r) * g->ldg + col)));
            if (g->scale)
                y = _mm512_mul_ps(y, scale);
            if (g->residual)
                y = _mm512_add_ps(
                    y, _mm512_maskz_loadu_ps(mask, g->residual + (i + r) * g->ldr + col));
            STORE_AVX512(g->c, g->c_type, (i + r) * g->ldc + col, mask, y);
        }
    }
}

/* 16 rows of 16 words become 16 columns: pairs, fours, then 128-bit quarters change places. */
static inline void transpose(__m512i r[16])
{
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 2)
    {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
    {
        UNROLL for (int h = 0; h < 2; h++)
        {
            r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + h + 2]);
            r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + h + 2]);
        }
    }
    /* r[4 b + c]: column 4 q + c of rows 4 b .. 4 b + 3 in quarter q */
    UNROLL for (int c = 0; c < 4; c++)
    {
        __m512i even01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88),
                odd01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        __m512i even23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        __m512i odd23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(even01, even23, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
    }
    UNROLL for (int i = 0; i < 16; i++) r[i] = t[i];
}

#endif
