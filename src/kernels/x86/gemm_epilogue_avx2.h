/* What the matrix products of AVX2 share, whatever their operands are: the epilogue. */
#ifndef FV_GEMM_EPILOGUE_AVX2_H
#define FV_GEMM_EPILOGUE_AVX2_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "kernels/x86/transpose_avx2.h"
#include "kernels/x86/vmath_avx2.h"

static void epilogue(const fv_gemm_args *g, size_t i, size_t rows, size_t j, size_t width,
                     const float *sum, size_t sum_ld)
{
    for (size_t v = 0; v < width; v += 8) {
        const size_t col = j + v, n = FV_MIN((size_t)8, width - v);
        const __m256i mask = fv_mask_avx2(n);
        const __m256 bias = g->bias ? _mm256_maskload_ps(g->bias + col, mask) : _mm256_setzero_ps();
        const __m256 scale = g->scale ? _mm256_maskload_ps(g->scale + col, mask)
                                      : _mm256_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            __m256 y = _mm256_loadu_ps(sum + r * sum_ld + v);
            if (g->bias)
                y = _mm256_add_ps(y, bias);
            if (g->act == FV_ACT_GELU)
                y = fv_gelu_avx2(y);
            if (g->gate)
                y = _mm256_mul_ps(
                    y, fv_silu_avx2(_mm256_maskload_ps(g->gate + (i + r) * g->ldg + col, mask)));
            if (g->scale)
                y = _mm256_mul_ps(y, scale);
            if (g->residual)
                y = _mm256_add_ps(y,
                                  _mm256_maskload_ps(g->residual + (i + r) * g->ldr + col, mask));
            if (n == 8)
                fv_store_avx2(g->c, g->c_type, (i + r) * g->ldc + col, y);
            else
                fv_store_n_avx2(g->c, g->c_type, (i + r) * g->ldc + col, n, y);
        }
    }
}

#endif
