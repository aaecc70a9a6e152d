/* The tile, the epilogue and packing of the matrix product for AVX-512: gemm_avx512.c takes them
 * for f32, gemm_avx512bf16.c for bf16.
 *
 *        panel of B, 32 columns wide             a tile: up to 14 rows x 2 registers of sums
 *         k -> [ b b b b | b b b b ]             per word of k: 2 loads of B, then for each row one
 *    A  [ a ]  [ c c c c | c c c c ]             broadcast of A and 2 multiply-adds;
 *    14 [ a ]  [ c c c c | c c c c ]             28 sums + 2 + 1 of 32 registers */
#ifndef FV_GEMM_AVX512_H
#define FV_GEMM_AVX512_H

#include <string.h>

#include "kernels/x86/gemm_epilogue_avx512.h"

enum { MR = 14, NR = 32, SHORT_ROW = 4096 /* bytes */ };

#include "kernels/x86/gemm_body.h"

/* A tile of mr rows (a constant). MAC(sum, a, b) adds the products of 16 words. */
#define DEFINE_TILE(name, mr, MAC)                                                     \
    static void name(const char *a, size_t a_ld, const float *b, size_t n, float *out, \
                     size_t out_ld, bool more)                                         \
    {                                                                                  \
        __m512 s[mr][2];                                                               \
        UNROLL for (int i = 0; i < mr; i++) s[i][0] = s[i][1] = _mm512_setzero_ps();   \
        if (more) {                                                                    \
            UNROLL for (int i = 0; i < mr; i++)                                        \
            {                                                                          \
                s[i][0] = _mm512_loadu_ps(out + (size_t)i * out_ld);                   \
                s[i][1] = _mm512_loadu_ps(out + (size_t)i * out_ld + 16);              \
            }                                                                          \
        }                                                                              \
        for (size_t q = 0; q < n; q++, a += 4, b += NR) {                              \
            __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);                \
            UNROLL for (int i = 0; i < mr; i++)                                        \
            {                                                                          \
                float word;                                                            \
                memcpy(&word, a + (size_t)i * a_ld, 4);                                \
                __m512 ai = _mm512_set1_ps(word);                                      \
                s[i][0] = MAC(s[i][0], ai, b0);                                        \
                s[i][1] = MAC(s[i][1], ai, b1);                                        \
            }                                                                          \
        }                                                                              \
        UNROLL for (int i = 0; i < mr; i++)                                            \
        {                                                                              \
            _mm512_storeu_ps(out + (size_t)i * out_ld, s[i][0]);                       \
            _mm512_storeu_ps(out + (size_t)i * out_ld + 16, s[i][1]);                  \
        }                                                                              \
    }

#define DEFINE_TILES(stem, MAC)                                                             \
    DEFINE_TILE(stem##_1, 1, MAC)                                                           \
    DEFINE_TILE(stem##_2, 2, MAC)                                                           \
    DEFINE_TILE(stem##_3, 3, MAC)                                                           \
    DEFINE_TILE(stem##_4, 4, MAC)                                                           \
    DEFINE_TILE(stem##_5, 5, MAC)                                                           \
    DEFINE_TILE(stem##_6, 6, MAC)                                                           \
    DEFINE_TILE(stem##_7, 7, MAC)                                                           \
    DEFINE_TILE(stem##_8, 8, MAC)                                                           \
    DEFINE_TILE(stem##_9, 9, MAC)                                                           \
    DEFINE_TILE(stem##_10, 10, MAC)                                                         \
    DEFINE_TILE(stem##_11, 11, MAC)                                                         \
    DEFINE_TILE(stem##_12, 12, MAC)                                                         \
    DEFINE_TILE(stem##_13, 13, MAC)                                                         \
    DEFINE_TILE(stem##_14, 14, MAC)                                                         \
    static tile_fn *const stem##s[MR + 1] = {                                               \
        0,        stem##_1, stem##_2,  stem##_3,  stem##_4,  stem##_5,  stem##_6, stem##_7, \
        stem##_8, stem##_9, stem##_10, stem##_11, stem##_12, stem##_13, stem##_14           \
    };

/* ---- packing ----------------------------------------------------------------------------- */

/* The elements of mask from element i of a row on, widened to f32. */
static inline __m512 load_f32(const char *row, fv_type type, size_t i, __mmask16 mask)
{
    const uint16_t *half = (const uint16_t *)(const void *)row + i;
    switch (type) {
    case FV_TYPE_F16: return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, half));
    case FV_TYPE_BF16: {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, half));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    default: return _mm512_maskz_loadu_ps(mask, (const float *)(const void *)row + i);
    }
}

/* 16 words of a row of weights from element i on, left of them to its end. */
static inline __m512i load_words(const char *row, fv_type to, fv_type from, size_t i, size_t left)
{
    const __mmask32 mask = left >= 32 ? ~(__mmask32)0 : ((__mmask32)1 << left) - 1;
    if (to == FV_TYPE_F32)
        return _mm512_castps_si512(load_f32(row, from, i, (__mmask16)mask));
    if (from == FV_TYPE_BF16)
        return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)(const void *)row + i);
#if defined(__AVX512BF16__)
    __m512 low = load_f32(row, from, i, (__mmask16)mask);
    __m512 high = load_f32(row, from, i + 16, (__mmask16)(mask >> 16));
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
#else
    return _mm512_setzero_si512(); /* no panels of bf16 without these instructions */
#endif
}

/* Reads a byte of every line of some short rows, one after the other: the processor's own
 * prefetcher follows that, while in the transposition each row would end before it has started.
 * Longer rows are better left alone (Zen 4: rows of 1792 bytes 9 -> 13 GB/s, of 9728 bytes 13 ->
 * 9). */
static inline void touch(const char *row, size_t row_bytes, size_t rows, size_t n_bytes)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t x = 0; x < n_bytes; x += 64)
            (void)*(const volatile char *)(row + i * row_bytes + x);
}

static inline __attribute__((always_inline)) void pack(void *dst, fv_type to, const void *w,
                                                       fv_type from, size_t ld, size_t n, size_t k)
{
    const size_t kg = to == FV_TYPE_F32 ? 1 : 2, size = fv_type_size(from), row_bytes = ld * size,
                 step = 16 * kg;
    int32_t *panel = dst;
    for (size_t j = 0; j < n; j += NR, panel += NR * ((k + kg - 1) / kg)) {
        for (size_t h = 0; h < NR; h += 16) {
            const size_t rows = j + h < n ? FV_MIN((size_t)16, n - j - h) : 0;
            const char *row = (const char *)w + (j + h) * row_bytes;
            if (k * size <= SHORT_ROW)
                touch(row, row_bytes, rows, k * size);
            for (size_t q = 0; q < k; q += step) {
                const size_t left = k - q, columns = FV_MIN((size_t)16, (left + kg - 1) / kg);
                int32_t *to_word = panel + q / kg * NR + h;
                __m512i r[16];
                if (rows == 16) {
                    UNROLL for (int i = 0; i < 16; i++)
                        r[i] = load_words(row + (size_t)i * row_bytes, to, from, q, left);
                } else {
                    UNROLL for (int i = 0; i < 16; i++)
                        r[i] = (size_t)i < rows
                                   ? load_words(row + (size_t)i * row_bytes, to, from, q, left)
                                   : _mm512_setzero_si512();
                }
                transpose(r);
                if (columns == 16) {
                    UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512(to_word + i * NR, r[i]);
                } else {
                    UNROLL for (int i = 0; i < 16; i++) if ((size_t)i < columns)
                        _mm512_store_si512(to_word + i * NR, r[i]);
                }
            }
        }
    }
}

#define PACK(name, to, from)                                                  \
    static void name(void *dst, const void *w, size_t ld, size_t n, size_t k) \
    {                                                                         \
        pack(dst, to, w, from, ld, n, k);                                     \
    }

#endif
