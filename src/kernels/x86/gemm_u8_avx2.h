/* Packing and the epilogue of the u8 x i8 matrix product for AVX2 and AVX-VNNI. */
#ifndef FV_GEMM_U8_AVX2_H
#define FV_GEMM_U8_AVX2_H

#include "kernels/x86/u8_avx2.h"

#include "kernels/x86/gemm_u8_body.h"

#define UNROLL _Pragma("GCC unroll 16")

/* Rows of i8 or, in blocks, of Q8_0: row_bytes from one to the next. */
static inline __attribute__((always_inline)) void pack(void *dst, const void *w, size_t row_bytes,
                                                       const bool blocks, size_t n, size_t k)
{
    int32_t *to = dst;
    for (size_t j = 0; j < n; j += NR) {
        for (size_t q = 0; q < k; q += 4) {
            const int8_t *from = (const int8_t *)w + j * row_bytes + (blocks ? fv_q8_at(q) : q);
            const size_t n_bytes = FV_MIN((size_t)4, k - q);
            for (size_t c = j; c < j + NR; c++, from += row_bytes) {
                int32_t word = 0;
                if (c < n && n_bytes == 4)
                    memcpy(&word, from, 4);
                else if (c < n)
                    memcpy(&word, from, n_bytes);
                *to++ = word;
            }
        }
    }
}

/* Columns by eights. */
static void epilogue(const fv_gemm_u8_args *g, size_t i, size_t rows, size_t j, size_t width,
                     const int32_t *sum)
{
    if (g->c_type == FV_TYPE_I32) {
        for (size_t r = 0; r < rows; r++)
            memcpy((int32_t *)g->c + (i + r) * g->ldc + j, sum + r * NR, width * sizeof *sum);
        return;
    }
    const __m256i zero = _mm256_set1_epi16((short)g->zero);
    const bool plain = g->c_type == FV_TYPE_U8 && !g->act && !g->scale && !g->residual;
    for (size_t v = 0; v < width; v += VEC_W) {
        const size_t n = FV_MIN(width - v, (size_t)VEC_W), col = j + v;
        vec mul = vec_load_n(g->mul + col, n), add = vec_zero(), scale = vec_zero(),
            inv = vec_zero();
        if (g->add)
            add = vec_load_n(g->add + col, n);
        if (g->scale)
            scale = vec_load_n(g->scale + col, n);
        if (g->c_type == FV_TYPE_U8)
            inv = vec_load_n(g->inv + col, n);
        if (plain)
            mul = vec_mul(mul, inv);
        for (size_t r = 0; r < rows; r++) {
            __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(sum + r * NR + v));
            vec y;
            if (g->low) {
                const float *at = (const float *)(const void *)(g->low + (i + r) * g->ldl + col);
                const __m256i low = _mm256_castps_si256(vec_load_n(at, n)),
                              rest = _mm256_and_si256(low, _mm256_set1_epi32(255));
                s = _mm256_add_epi32(s, _mm256_srai_epi32(low, 8));
                y = vec_fma(_mm256_cvtepi32_ps(rest), vec_set(0x1p-8f), _mm256_cvtepi32_ps(s));
            } else {
                y = _mm256_cvtepi32_ps(s);
            }
            y = vec_mul(y, mul);
            if (g->row)
                y = vec_mul(y, vec_set(g->row[i + r]));
            if (g->add)
                y = vec_add(y, add);
            if (g->act == FV_ACT_GELU)
                y = vec_gelu(y);
            if (g->scale)
                y = vec_mul(y, scale);
            if (g->residual) {
                const float *residual = g->residual + (i + r) * g->ldr + col;
                y = vec_add(y, n == VEC_W ? vec_load(residual) : vec_load_n(residual, n));
            }
            const size_t at = (i + r) * g->ldc + col;
            if (g->c_type != FV_TYPE_U8)
                vec_put_n(g->c, g->c_type, at, n, y);
            else if (n == VEC_W) /* a size that the compiler knows */
                fv_put_u8_avx2((uint8_t *)g->c + at, VEC_W,
                               fv_round_avx2(plain ? y : vec_mul(y, inv)), zero);
            else
                fv_put_u8_avx2((uint8_t *)g->c + at, n, fv_round_avx2(plain ? y : vec_mul(y, inv)),
                               zero);
        }
    }
}

#endif
