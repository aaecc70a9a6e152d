/* The transposition of a square of words, for AVX2. */
#ifndef FV_TRANSPOSE_AVX2_H
#define FV_TRANSPOSE_AVX2_H

#include <immintrin.h>

#ifndef UNROLL
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* 8 rows of 8 words become 8 columns: pairs, fours, then halves change places. */
static inline void transpose(__m256i r[8])
{
    __m256i t[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        UNROLL for (int h = 0; h < 2; h++)
        {
            r[i + 2 * h] = _mm256_unpacklo_epi64(t[i + h], t[i + h + 2]);
            r[i + 2 * h + 1] = _mm256_unpackhi_epi64(t[i + h], t[i + h + 2]);
        }
    }
    /* r[4 b + c]: column 4 h + c of rows 4 b .. 4 b + 3 in half h */
    UNROLL for (int c = 0; c < 4; c++)
    {
        t[c] = _mm256_permute2x128_si256(r[c], r[4 + c], 0x20);
        t[4 + c] = _mm256_permute2x128_si256(r[c], r[4 + c], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = t[i];
}

static inline void transpose_floats(__m256 r[8])
{
    __m256i t[8];
    UNROLL for (int i = 0; i < 8; i++) t[i] = _mm256_castps_si256(r[i]);
    transpose(t);
    UNROLL for (int i = 0; i < 8; i++) r[i] = _mm256_castsi256_ps(t[i]);
}

#endif
