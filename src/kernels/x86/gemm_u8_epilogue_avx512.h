/* What the u8 x i8 matrix products of AVX-512 do with their sums, for files that define NR, 32: two
 * registers a row. */
#ifndef FV_GEMM_U8_EPILOGUE_AVX512_H
#define FV_GEMM_U8_EPILOGUE_AVX512_H

#include "kernels/kernels.h"
#include "kernels/x86/u8_avx512.h"

static inline __mmask16 mask_of(size_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

/* What the columns of a panel have in common. */
typedef struct columns {
    __mmask16 mask[2];
    __m512 mul[2], add[2], scale[2], inv[2];
} columns;

/* 16 sums as far as y; h: the panel's half. gelu: 0, or bits of the result that GELU must get
 * right. */
static inline __attribute__((always_inline)) __m512 finish(const fv_gemm_u8_args *g,
                                                           const columns *c, size_t row, size_t j,
                                                           int h, const int32_t *sum,
                                                           const int gelu)
{
    __m512i s = _mm512_load_si512(sum + 16 * h);
    __m512 y;
    if (g->low) {
        const __m512i low = _mm512_maskz_loadu_epi32(c->mask[h],
                                                     g->low + row * g->ldl + j + (size_t)(16 * h));
        const __m512i rest = _mm512_and_si512(low, _mm512_set1_epi32(255));
        s = _mm512_add_epi32(s, _mm512_srai_epi32(low, 8));
        y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(rest), _mm512_set1_ps(0x1p-8f),
                            _mm512_cvtepi32_ps(s));
    } else {
        y = _mm512_cvtepi32_ps(s);
    }
    y = _mm512_mul_ps(y, c->mul[h]);
    if (g->row)
        y = _mm512_mul_ps(y, _mm512_set1_ps(g->row[row]));
    if (g->add)
        y = _mm512_add_ps(y, c->add[h]);
    if (gelu)
        y = gelu == 8 ? fv_gelu8_avx512(y) : gelu == 16 ? fv_gelu16_avx512(y) : fv_gelu_avx512(y);
    if (g->scale)
        y = _mm512_mul_ps(y, c->scale[h]);
    if (g->residual) {
        const float *r = g->residual + row * g->ldr + j + (size_t)(16 * h);
        y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(c->mask[h], r));
    }
    return y;
}

static inline __attribute__((always_inline)) __m512i rounded(const fv_gemm_u8_args *g,
                                                             const columns *c, size_t row, size_t j,
                                                             int h, const int32_t *sum,
                                                             const int gelu, const bool plain)
{
    if (plain) /* mul is already times inv */
        return fv_round_avx512(
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sum + 16 * h)), c->mul[h]));
    return fv_round_avx512(_mm512_mul_ps(finish(g, c, row, j, h, sum, gelu), c->inv[h]));
}

/* To u8, two rows at a time: 4 registers of 16 become 2 x 32 bytes. */
static inline __attribute__((always_inline)) void to_u8(const fv_gemm_u8_args *g, const columns *c,
                                                        size_t i, size_t rows, size_t j,
                                                        size_t width, const int32_t *sum,
                                                        const int gelu, const bool plain)
{
    const __m512i zero = _mm512_set1_epi16((short)g->zero);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    uint8_t *to = (uint8_t *)g->c + i * g->ldc + j;
    for (size_t r = 0; r < rows; r += 2, to += 2 * g->ldc) {
        const size_t s = r + 1 < rows ? r + 1 : r;
        __m512i p0 = rounded(g, c, i + r, j, 0, sum + r * NR, gelu, plain);
        __m512i p1 = rounded(g, c, i + r, j, 1, sum + r * NR, gelu, plain);
        __m512i q0 = rounded(g, c, i + s, j, 0, sum + s * NR, gelu, plain);
        __m512i q1 = rounded(g, c, i + s, j, 1, sum + s * NR, gelu, plain);
        __m512i bytes = _mm512_permutexvar_epi32(order, fv_pack_u8_avx512(p0, p1, q0, q1, zero));
        const __m256i low = _mm512_castsi512_si256(bytes),
                      high = _mm512_extracti64x4_epi64(bytes, 1);
        if (width == NR) {
            _mm256_storeu_si256((__m256i *)(void *)to, low);
            if (s > r)
                _mm256_storeu_si256((__m256i *)(void *)(to + g->ldc), high);
        } else {
            const __mmask32 mask = ((__mmask32)1 << width) - 1;
            _mm256_mask_storeu_epi8(to, mask, low);
            if (s > r)
                _mm256_mask_storeu_epi8(to + g->ldc, mask, high);
        }
    }
}

static inline __attribute__((always_inline)) void to_floats(const fv_gemm_u8_args *g,
                                                            const columns *c, size_t i, size_t rows,
                                                            size_t j, const int32_t *sum,
                                                            const int gelu)
{
    for (size_t r = 0; r < rows; r++) {
        const size_t at = (i + r) * g->ldc + j;
        fv_store_avx512(g->c, g->c_type, at, c->mask[0],
                        finish(g, c, i + r, j, 0, sum + r * NR, gelu));
        fv_store_avx512(g->c, g->c_type, at + 16, c->mask[1],
                        finish(g, c, i + r, j, 1, sum + r * NR, gelu));
    }
}

/* Sums as they are, for a later call's `low`. */
static void to_sums(const fv_gemm_u8_args *g, size_t i, size_t rows, size_t j, size_t width,
                    const int32_t *sum)
{
    const __mmask16 low = mask_of(width), high = mask_of(width > 16 ? width - 16 : 0);
    int32_t *to = (int32_t *)g->c + i * g->ldc + j;
    for (size_t r = 0; r < rows; r++, sum += NR, to += g->ldc) {
        _mm512_mask_storeu_epi32(to, low, _mm512_load_si512(sum));
        if (high)
            _mm512_mask_storeu_epi32(to + 16, high, _mm512_load_si512(sum + 16));
    }
}

/* Writes rows i .. i + rows, columns j .. j + width of C from their sums [rows, NR]. */
static void epilogue(const fv_gemm_u8_args *g, size_t i, size_t rows, size_t j, size_t width,
                     const int32_t *sum)
{
    if (g->c_type == FV_TYPE_I32) {
        to_sums(g, i, rows, j, width, sum);
        return;
    }
    columns c = { .mask = { mask_of(width), mask_of(width > 16 ? width - 16 : 0) } };
    for (size_t h = 0; h < 2; h++) {
        const size_t at = j + 16 * h;
        c.mul[h] = _mm512_maskz_loadu_ps(c.mask[h], g->mul + at);
        c.add[h] = g->add ? _mm512_maskz_loadu_ps(c.mask[h], g->add + at) : _mm512_setzero_ps();
        c.scale[h] = g->scale ? _mm512_maskz_loadu_ps(c.mask[h], g->scale + at)
                              : _mm512_setzero_ps();
        c.inv[h] = g->inv ? _mm512_maskz_loadu_ps(c.mask[h], g->inv + at) : _mm512_setzero_ps();
    }
    const bool plain = g->c_type == FV_TYPE_U8 && !g->act && !g->scale && !g->residual;
    if (plain) {
        c.mul[0] = _mm512_mul_ps(c.mul[0], c.inv[0]);
        c.mul[1] = _mm512_mul_ps(c.mul[1], c.inv[1]);
        to_u8(g, &c, i, rows, j, width, sum, 0, true);
    } else if (g->c_type == FV_TYPE_U8 && g->act == FV_ACT_GELU) {
        to_u8(g, &c, i, rows, j, width, sum, 8, false);
    } else if (g->c_type == FV_TYPE_U8) {
        to_u8(g, &c, i, rows, j, width, sum, 0, false);
    } else if (g->act == FV_ACT_GELU) {
        to_floats(g, &c, i, rows, j, sum, g->c_type == FV_TYPE_F32 ? 32 : 16);
    } else {
        to_floats(g, &c, i, rows, j, sum, 0);
    }
}

#endif
