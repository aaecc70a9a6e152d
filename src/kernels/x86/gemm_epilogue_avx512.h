/* What the matrix products of AVX-512 share, whatever their operands are: the epilogue. */
#ifndef FV_GEMM_EPILOGUE_AVX512_H
#define FV_GEMM_EPILOGUE_AVX512_H

#include "kernels/kernels.h"
#include "kernels/x86/transpose_avx512.h"
#include "kernels/x86/vmath_avx512.h"

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

#endif
