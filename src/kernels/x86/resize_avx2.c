/* 8-bit resampling for AVX2: pmaddwd on pairs of taps, weights split into high and low parts.
 *
 * Along rows: a register holds 4 pixels of one row in each half; a shuffle spreads two of them
 * to 16-bit pairs (r0 r1, g0 g1, b0 b1, - -), so a product and a sum give 3 channels of 2 rows,
 * and weights are one broadcast for both. Four outputs are packed to 12 bytes a row:
 *
 *     row a: r0g0b0 r1g1b1 r2g2b2 r3g3b3 . . . . | row b: the same       16 bytes loaded for 12
 *     taps 0, 1:  r0 r1 g0 g1 b0 b1 - -          | ...
 *     taps 2, 3:  r2 r3 g2 g3 b2 b3 - -          | ...
 *
 * Across rows: bytes of two rows are interleaved into pairs, 32 columns at a time. */
#include <immintrin.h>
#include <string.h>

#include "kernels/ref/resize_scalar.h"

enum { OUTPUTS = 4 };

static inline __m256i bcast(const int16_t *pair)
{
    int32_t v;
    memcpy(&v, pair, 4);
    return _mm256_set1_epi32(v);
}

static inline __m256i two_rows(const uint8_t *a, const uint8_t *b)
{
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)a);
    __m128i y = _mm_loadu_si128((const __m128i *)(const void *)b);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(x), y, 1);
}

/* hi * 2^15 + lo, rounded, without the 22 fraction bits */
static inline __m256i finish(__m256i lo, __m256i hi)
{
    __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(hi, 15), lo);
    return _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << 21)), 22);
}

/* One output of 4 rows: y[0] has rows 0 and 1, y[1] rows 2 and 3; in a half r g b -. */
static inline void one_output(__m256i y[2], const uint8_t *src, size_t ld, const int16_t *w,
                              size_t n_groups)
{
    const __m256i taps01 = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1,
                                            -1, 0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1,
                                            -1, -1);
    const __m256i taps23 = _mm256_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1,
                                            -1, 6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1,
                                            -1, -1);
    __m256i lo0 = _mm256_setzero_si256(), hi0 = lo0, lo1 = lo0, hi1 = lo0;

    for (size_t g = 0; g < n_groups; g++, src += 12, w += 8) {
        __m256i p = two_rows(src, src + ld), q = two_rows(src + 2 * ld, src + 3 * ld);
        __m256i p01 = _mm256_shuffle_epi8(p, taps01), p23 = _mm256_shuffle_epi8(p, taps23);
        __m256i q01 = _mm256_shuffle_epi8(q, taps01), q23 = _mm256_shuffle_epi8(q, taps23);
        __m256i w_lo01 = bcast(w), w_lo23 = bcast(w + 2), w_hi01 = bcast(w + 4),
                w_hi23 = bcast(w + 6);
        lo0 = _mm256_add_epi32(lo0, _mm256_madd_epi16(p01, w_lo01));
        hi0 = _mm256_add_epi32(hi0, _mm256_madd_epi16(p01, w_hi01));
        lo1 = _mm256_add_epi32(lo1, _mm256_madd_epi16(q01, w_lo01));
        hi1 = _mm256_add_epi32(hi1, _mm256_madd_epi16(q01, w_hi01));
        lo0 = _mm256_add_epi32(lo0, _mm256_madd_epi16(p23, w_lo23));
        hi0 = _mm256_add_epi32(hi0, _mm256_madd_epi16(p23, w_hi23));
        lo1 = _mm256_add_epi32(lo1, _mm256_madd_epi16(q23, w_lo23));
        hi1 = _mm256_add_epi32(hi1, _mm256_madd_epi16(q23, w_hi23));
    }
    y[0] = finish(lo0, hi0);
    y[1] = finish(lo1, hi1);
}

static inline void store12(uint8_t *dst, __m128i v)
{
    int32_t last = _mm_extract_epi32(v, 2);
    _mm_storel_epi64((__m128i *)(void *)dst, v);
    memcpy(dst + 8, &last, 4);
}

/* Outputs o .. o + 3 of the two rows in v[0..3]. */
static inline void store_outputs(uint8_t *a, uint8_t *b, __m256i v0, __m256i v1, __m256i v2,
                                 __m256i v3)
{
    const __m256i drop_fourth = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1,
                                                 -1, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1,
                                                 -1, -1);
    __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(v0, v1), _mm256_packs_epi32(v2, v3));
    bytes = _mm256_shuffle_epi8(bytes, drop_fourth);
    store12(a, _mm256_castsi256_si128(bytes));
    store12(b, _mm256_extracti128_si256(bytes, 1));
}

static void four_rows(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t n,
                      const fv_resize_taps *taps)
{
    for (size_t o = 0; o < n; o += OUTPUTS, dst += OUTPUTS * 3) {
        __m256i y[OUTPUTS][2];
        for (size_t i = 0; i < OUTPUTS; i++)
            one_output(y[i], src + (size_t)taps->first[o + i] * 3, src_ld,
                       taps->w16 + (o + i) * taps->n_groups * 8, taps->n_groups);
        store_outputs(dst, dst + dst_ld, y[0][0], y[1][0], y[2][0], y[3][0]);
        store_outputs(dst + 2 * dst_ld, dst + 3 * dst_ld, y[0][1], y[1][1], y[2][1], y[3][1]);
    }
}

static void resize_h__avx2(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t m,
                           const fv_resize_taps *taps)
{
    size_t n = fv_resize_leading(taps) / OUTPUTS * OUTPUTS, row = 0;

    for (; row + 4 <= m; row += 4)
        four_rows(dst + row * dst_ld, dst_ld, src + row * src_ld, src_ld, n, taps);
    for (; row < m; row++) /* a single row as four that are the same one */
        four_rows(dst + row * dst_ld, 0, src + row * src_ld, 0, n, taps);
    for (row = 0; row < m; row++)
        for (size_t o = n; o < taps->n_out; o++)
            fv_resize_pixel(dst + row * dst_ld + o * 3, src + row * src_ld, taps, o);
}

/* 32 columns from j on. */
static void resize_v_block(uint8_t *dst, const uint8_t *const *rows, size_t j,
                           const fv_resize_taps *taps, size_t o)
{
    const __m256i zero = _mm256_setzero_si256();
    const int16_t *w = taps->w16 + o * taps->n_groups * 8;
    __m256i lo[4] = { zero, zero, zero, zero }, hi[4] = { zero, zero, zero, zero };

    for (size_t i = 0; i < taps->n_taps; i += 2) {
        const int16_t *pair = w + i / 4 * 8 + i % 4;
        /* past the end its weight is zero */
        const uint8_t *second = rows[i + 1 < taps->n_taps ? i + 1 : i];
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(rows[i] + j));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(second + j));
        __m256i ab_lo = _mm256_unpacklo_epi8(a, b), ab_hi = _mm256_unpackhi_epi8(a, b);
        __m256i x[4] = { _mm256_unpacklo_epi8(ab_lo, zero), _mm256_unpackhi_epi8(ab_lo, zero),
                         _mm256_unpacklo_epi8(ab_hi, zero), _mm256_unpackhi_epi8(ab_hi, zero) };
        __m256i w_lo = bcast(pair), w_hi = bcast(pair + 4);
        for (int c = 0; c < 4; c++) {
            lo[c] = _mm256_add_epi32(lo[c], _mm256_madd_epi16(x[c], w_lo));
            hi[c] = _mm256_add_epi32(hi[c], _mm256_madd_epi16(x[c], w_hi));
        }
    }
    /* Packing within halves undoes the unpacking within halves. */
    __m256i left = _mm256_packs_epi32(finish(lo[0], hi[0]), finish(lo[1], hi[1]));
    __m256i right = _mm256_packs_epi32(finish(lo[2], hi[2]), finish(lo[3], hi[3]));
    _mm256_storeu_si256((__m256i *)(void *)(dst + j), _mm256_packus_epi16(left, right));
}

static void resize_v__avx2(uint8_t *dst, const uint8_t *const *rows, size_t n,
                           const fv_resize_taps *taps, size_t o)
{
    size_t j = 0;

    for (; j + 32 <= n; j += 32)
        resize_v_block(dst, rows, j, taps, o);
    if (j < n && n >= 32) {
        resize_v_block(dst, rows, n - 32, taps, o); /* columns done twice come out the same */
        j = n;
    }
    for (; j < n; j++)
        dst[j] = fv_resize_byte(rows, j, taps, o);
}

void fv_resize_init_avx2(fv_kernels *k);
void fv_resize_init_avx2(fv_kernels *k)
{
    k->resize_h = resize_h__avx2;
    k->resize_v = resize_v__avx2;
}
