/* 8-bit resampling for AVX-512 VNNI: vpdpbusd on groups of four taps, weights as three signed
 * digits of base 256.
 *
 * Along rows: 4 pixels of 4 rows, one row in each 128-bit lane; a shuffle puts the four taps of
 * a channel next to each other (r0 r1 r2 r3, g0 .., b0 .., -), and three products of four give
 * 3 channels of 4 rows. Across rows: 4 rows interleaved by bytes, 64 columns at a time. */
#include <immintrin.h>
#include <string.h>

#include "kernels/ref/resize_scalar.h"

enum { OUTPUTS = 4 };

static inline __m512i bcast(const int8_t *digits)
{
    int32_t v;
    memcpy(&v, digits, 4);
    return _mm512_set1_epi32(v);
}

static inline __m128i load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* The three digits together, rounded, without the 22 fraction bits */
static inline __m512i finish(__m512i d0, __m512i d1, __m512i d2)
{
    __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(d2, 8), d1);
    sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), d0);
    return _mm512_srai_epi32(_mm512_add_epi32(sum, _mm512_set1_epi32(1 << 21)), 22);
}

/* One output of 4 rows: in each lane r g b -. */
static inline __m512i one_output(const uint8_t *src, size_t ld, const int8_t *w, size_t n_groups)
{
    const __m128i order = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    const __m512i by_channel = _mm512_broadcast_i32x4(order);
    __m512i d0 = _mm512_setzero_si512(), d1 = d0, d2 = d0;

    for (size_t g = 0; g < n_groups; g++, src += 12, w += 16) {
        __m512i p = _mm512_castsi128_si512(load16(src));
        p = _mm512_inserti32x4(p, load16(src + ld), 1);
        p = _mm512_inserti32x4(p, load16(src + 2 * ld), 2);
        p = _mm512_inserti32x4(p, load16(src + 3 * ld), 3);
        p = _mm512_shuffle_epi8(p, by_channel);
        d0 = _mm512_dpbusd_epi32(d0, p, bcast(w));
        d1 = _mm512_dpbusd_epi32(d1, p, bcast(w + 4));
        d2 = _mm512_dpbusd_epi32(d2, p, bcast(w + 8));
    }
    return finish(d0, d1, d2);
}

static inline void store12(uint8_t *dst, __m128i v) { _mm_mask_storeu_epi8(dst, 0x0fff, v); }

static void four_rows(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld, size_t n,
                      const fv_resize_taps *taps)
{
    const __m128i kept = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const __m512i drop_fourth = _mm512_broadcast_i32x4(kept);

    for (size_t o = 0; o < n; o += OUTPUTS, dst += OUTPUTS * 3) {
        __m512i y[OUTPUTS];
        for (size_t i = 0; i < OUTPUTS; i++)
            y[i] = one_output(src + (size_t)taps->first[o + i] * 3, src_ld,
                              taps->w8 + (o + i) * taps->n_groups * 16, taps->n_groups);
        __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(y[0], y[1]),
                                            _mm512_packs_epi32(y[2], y[3]));
        bytes = _mm512_shuffle_epi8(bytes, drop_fourth);
        store12(dst, _mm512_castsi512_si128(bytes));
        store12(dst + dst_ld, _mm512_extracti32x4_epi32(bytes, 1));
        store12(dst + 2 * dst_ld, _mm512_extracti32x4_epi32(bytes, 2));
        store12(dst + 3 * dst_ld, _mm512_extracti32x4_epi32(bytes, 3));
    }
}

static void resize_h__avx512vnni(uint8_t *dst, size_t dst_ld, const uint8_t *src, size_t src_ld,
                                 size_t m, const fv_resize_taps *taps)
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

/* The columns from j on that mask names. */
static inline void resize_v_block(uint8_t *dst, const uint8_t *const *rows, size_t j,
                                  __mmask64 mask, const fv_resize_taps *taps, size_t o)
{
    const int8_t *w = taps->w8 + o * taps->n_groups * 16;
    const __m512i zero = _mm512_setzero_si512();
    __m512i d0[4] = { zero, zero, zero, zero }, d1[4] = { zero, zero, zero, zero },
            d2[4] = { zero, zero, zero, zero };

    for (size_t i = 0; i < taps->n_taps; i += 4, w += 16) {
        size_t last = taps->n_taps - 1; /* past it weights are zero */
        __m512i a = _mm512_maskz_loadu_epi8(mask, rows[i] + j);
        __m512i b = _mm512_maskz_loadu_epi8(mask, rows[i + 1 < last ? i + 1 : last] + j);
        __m512i c = _mm512_maskz_loadu_epi8(mask, rows[i + 2 < last ? i + 2 : last] + j);
        __m512i d = _mm512_maskz_loadu_epi8(mask, rows[i + 3 < last ? i + 3 : last] + j);
        __m512i ab_lo = _mm512_unpacklo_epi8(a, b), ab_hi = _mm512_unpackhi_epi8(a, b);
        __m512i cd_lo = _mm512_unpacklo_epi8(c, d), cd_hi = _mm512_unpackhi_epi8(c, d);
        __m512i x[4] = { _mm512_unpacklo_epi16(ab_lo, cd_lo), _mm512_unpackhi_epi16(ab_lo, cd_lo),
                         _mm512_unpacklo_epi16(ab_hi, cd_hi), _mm512_unpackhi_epi16(ab_hi, cd_hi) };
        __m512i w0 = bcast(w), w1 = bcast(w + 4), w2 = bcast(w + 8);
        for (int k = 0; k < 4; k++) {
            d0[k] = _mm512_dpbusd_epi32(d0[k], x[k], w0);
            d1[k] = _mm512_dpbusd_epi32(d1[k], x[k], w1);
            d2[k] = _mm512_dpbusd_epi32(d2[k], x[k], w2);
        }
    }
    /* Packing within lanes undoes the unpacking within lanes. */
    __m512i left = _mm512_packs_epi32(finish(d0[0], d1[0], d2[0]), finish(d0[1], d1[1], d2[1]));
    __m512i right = _mm512_packs_epi32(finish(d0[2], d1[2], d2[2]), finish(d0[3], d1[3], d2[3]));
    _mm512_mask_storeu_epi8(dst + j, mask, _mm512_packus_epi16(left, right));
}

static void resize_v__avx512vnni(uint8_t *dst, const uint8_t *const *rows, size_t n,
                                 const fv_resize_taps *taps, size_t o)
{
    for (size_t j = 0; j < n; j += 64)
        resize_v_block(dst, rows, j, n - j >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - j)) - 1,
                       taps, o);
}

void fv_resize_init_avx512vnni(fv_kernels *k);
void fv_resize_init_avx512vnni(fv_kernels *k)
{
    k->resize_h = resize_h__avx512vnni;
    k->resize_v = resize_v__avx512vnni;
}
