/* The transposition of a square of words, for AVX-512. */
#ifndef FV_TRANSPOSE_AVX512_H
#define FV_TRANSPOSE_AVX512_H

#include <immintrin.h>

#ifndef UNROLL
#define UNROLL _Pragma("GCC unroll 16")
#endif

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

static inline void transpose_floats(__m512 r[16])
{
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i++) t[i] = _mm512_castps_si512(r[i]);
    transpose(t);
    UNROLL for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(t[i]);
}

#endif
