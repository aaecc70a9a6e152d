/* Depthwise convolution of u8 for AVX-512 VNNI: vpdpbusd takes four taps of a column at once.
 *
 * 32 channels at a time. Input rows are interleaved by fours in the scratch, a column after the
 * other, so that a word holds four rows of one channel; unpacking within 128-bit lanes leaves the
 * channels in this order:
 *
 *     half 0:  0-3 16-19 8-11 24-27        half 1:  4-7 20-23 12-15 28-31
 *
 * and packing the sums to bytes undoes it. A group of four rows covers a 3 x 3 kernel, two groups a
 * 7 x 7 one; the eighth row (fourth of 3 x 3) has weight zero, or belongs to the second output row
 * of a call, which takes the same columns with weights one row further down:
 *
 *     input row      0 1 2 3   4 5 6 7
 *     output row 0   a b c d   e f g -
 *     output row 1   - a b c   d e f g
 *
 * A tile is 8 output columns. For each half and group the weights of the kernel's columns are in
 * registers, and each input column is loaded once and added to the outputs that it touches. Columns
 * outside the map are in the scratch too: there are no edges. */
#include "kernels/x86/u8_avx512.h"

#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

#define UNROLL _Pragma("GCC unroll 64")

enum {
    CHANNELS = 32,
    TILE = 8,
    CHUNK = 32,
    QUAD = 4 * CHANNELS,
    MAX_GROUPS = 2,
    BLOCK_BYTES = (CHUNK + 7) * MAX_GROUPS * QUAD
};

_Static_assert(2 * BLOCK_BYTES <= 1 << 16, "fv_dwconv_u8_scratch_bytes");

/* Packed weights of 32 channels and one of their mult outputs. */
typedef struct block {
    int32_t sum[2][16]; /* of all taps, [half] */
    /* [output row][half][group][dx]; k 3: one group, 3 columns used */
    int8_t w[2][2][MAX_GROUPS][7][16][4];
} block;

static const uint8_t channel_order[2][16] = {
    { 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27 },
    { 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31 }
};

static size_t packed_bytes__avx512vnni(size_t channels, unsigned k, unsigned mult)
{
    (void)k;
    return (channels + CHANNELS - 1) / CHANNELS * mult * sizeof(block);
}

static void pack__avx512vnni(void *dst, const int8_t *weight, size_t channels, unsigned k,
                             unsigned mult)
{
    block *to = dst;
    memset(dst, 0, packed_bytes__avx512vnni(channels, k, mult));
    for (size_t c = 0; c < channels; c += CHANNELS) {
        for (unsigned m = 0; m < mult; m++, to++) {
            for (unsigned i = 0; i < CHANNELS; i++) {
                const unsigned half = i / 16, lane = i % 16;
                const size_t channel = c + channel_order[half][lane];
                if (channel >= channels)
                    continue;
                for (unsigned t = 0; t < k * k; t++) {
                    const int8_t w = weight[t * channels * mult + channel * mult + m];
                    const unsigned dy = t / k, dx = t % k;
                    to->sum[half][lane] += w;
                    to->w[0][half][dy / 4][dx][lane][dy % 4] = w;
                    to->w[1][half][(dy + 1) / 4][dx][lane][(dy + 1) % 4] = w;
                }
            }
        }
    }
}

/* ---- input ------------------------------------------------------------------------------- */

/* 32 channels of four rows; only those of mask unless full. */
static inline __attribute__((always_inline)) void interleave(uint8_t *to, const uint8_t *p0,
                                                             const uint8_t *p1, const uint8_t *p2,
                                                             const uint8_t *p3, const bool full,
                                                             __mmask32 mask)
{
#define LOAD(p)                                                    \
    (full ? _mm256_loadu_si256((const __m256i *)(const void *)(p)) \
          : _mm256_maskz_loadu_epi8(mask, p))
    __m256i a = LOAD(p0), b = LOAD(p1), c = LOAD(p2), d = LOAD(p3);
#undef LOAD
    __m256i ab_lo = _mm256_unpacklo_epi8(a, b), ab_hi = _mm256_unpackhi_epi8(a, b);
    __m256i cd_lo = _mm256_unpacklo_epi8(c, d), cd_hi = _mm256_unpackhi_epi8(c, d);
    _mm256_store_si256((__m256i *)(void *)to, _mm256_unpacklo_epi16(ab_lo, cd_lo));
    _mm256_store_si256((__m256i *)(void *)(to + 32), _mm256_unpacklo_epi16(ab_hi, cd_hi));
    _mm256_store_si256((__m256i *)(void *)(to + 64), _mm256_unpackhi_epi16(ab_lo, cd_lo));
    _mm256_store_si256((__m256i *)(void *)(to + 96), _mm256_unpackhi_epi16(ab_hi, cd_hi));
}

/* n columns of one or two blocks of channels; ld 0: the same bytes again and again. */
static inline __attribute__((always_inline)) void columns(uint8_t *to, size_t to_ld,
                                                          const uint8_t *const row[4],
                                                          const size_t ld[4], size_t n,
                                                          const bool two, const bool full,
                                                          __mmask32 mask)
{
    const uint8_t *p0 = row[0], *p1 = row[1], *p2 = row[2], *p3 = row[3];
    for (size_t x = 0; x < n;
         x++, to += to_ld, p0 += ld[0], p1 += ld[1], p2 += ld[2], p3 += ld[3]) {
        interleave(to, p0, p1, p2, p3, full || two, mask);
        if (two)
            interleave(to + BLOCK_BYTES, p0 + CHANNELS, p1 + CHANNELS, p2 + CHANNELS, p3 + CHANNELS,
                       full, mask);
    }
}

/* Columns [p0, p1) of channels c .., counted from the left edge of the padding. */
static void fill(const fv_dwconv_u8_args *d, uint8_t *to, size_t n_groups, size_t p0, size_t p1,
                 size_t c, size_t n_blocks)
{
    const size_t pad = d->k / 2, n_rows = d->k + (d->rows - 1), to_ld = n_groups * QUAD;
    const size_t left = FV_MIN(FV_MAX(p0, pad), p1),
                 right = FV_MAX(left, FV_MIN(p1, d->width + pad));
    const size_t lanes = FV_MIN(d->channels - c - (n_blocks - 1) * CHANNELS, (size_t)CHANNELS);
    const __mmask32 mask = ~(__mmask32)0 >> (CHANNELS - lanes);
    const __m512i outside = _mm512_set1_epi8((char)d->src_zero);
    uint8_t outside_row[2 * CHANNELS];
    _mm512_storeu_si512(outside_row, outside);
    for (size_t p = p0; p < p1; p++)
        if (p < left || p >= right)
            for (size_t b = 0; b < n_blocks; b++)
                for (size_t i = 0; i < to_ld; i += 64)
                    _mm512_store_si512(to + b * BLOCK_BYTES + (p - p0) * to_ld + i, outside);
    for (size_t g = 0; g < n_groups && left < right; g++) {
        const uint8_t *row[4];
        size_t ld[4];
        for (size_t i = 0; i < 4; i++) {
            const uint8_t *src = g * 4 + i < n_rows ? d->src[g * 4 + i] : NULL;
            row[i] = src ? src + (left - pad) * d->src_ld + c : outside_row;
            ld[i] = src ? d->src_ld : 0;
        }
        uint8_t *at = to + (left - p0) * to_ld + g * QUAD;
        if (lanes == CHANNELS && n_blocks == 2)
            columns(at, to_ld, row, ld, right - left, true, true, mask);
        else if (lanes == CHANNELS)
            columns(at, to_ld, row, ld, right - left, false, true, mask);
        else
            columns(at, to_ld, row, ld, right - left, n_blocks == 2, false, mask);
    }
}

/* ---- sums and output --------------------------------------------------------------------- */

/* 16 channels of TILE columns. */
static inline __attribute__((always_inline)) void sums(__m512i s[TILE], const uint8_t *in,
                                                       const block *b, int row, int half,
                                                       __m512i start, const unsigned k,
                                                       const unsigned stride,
                                                       const unsigned n_groups)
{
    UNROLL for (unsigned t = 0; t < TILE; t++) s[t] = start;
    UNROLL for (unsigned g = 0; g < n_groups; g++)
    {
        __m512i w[7];
        UNROLL for (unsigned dx = 0; dx < k; dx++)
            w[dx] = _mm512_load_si512(b->w[row][half][g][dx]);
        UNROLL for (unsigned j = 0; j < (TILE - 1) * stride + k; j++)
        {
            const __m512i v = _mm512_load_si512(in + (j * n_groups + g) * QUAD +
                                                (unsigned)half * 64);
            UNROLL for (unsigned dx = 0; dx < k; dx++)
            {
                if (j < dx || (j - dx) % stride || (j - dx) / stride >= TILE)
                    continue;
                s[(j - dx) / stride] = _mm512_dpbusd_epi32(s[(j - dx) / stride], v, w[dx]);
            }
        }
    }
}

/* Parameters of 32 channels and one of their outputs, in the order of the sums; without GELU mul
 * and bias are already times inv. */
typedef struct params {
    __m512 mul[2], bias[2], inv[2];
    __m512i start[2]; /* of the sums: what src_zero adds to all taps, taken off */
} params;

/* Every mult-th of the floats from p on, in the order of the halves; lanes: channels. */
static void get_params(__m512 to[2], const float *p, unsigned mult, size_t lanes)
{
    float each[CHANNELS] = { 0 };
    for (size_t i = 0; i < lanes; i++)
        each[i] = p[i * mult];
    for (int half = 0; half < 2; half++)
        to[half] = _mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(
                                           (const __m128i *)(const void *)channel_order[half])),
                                       each, 4);
}

static inline __attribute__((always_inline)) __m512i finish(__m512i s, const params *p, int half,
                                                            const bool gelu)
{
    __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), p->mul[half], p->bias[half]);
    if (gelu)
        y = _mm512_mul_ps(fv_gelu8_avx512(y), p->inv[half]);
    return fv_round_avx512(y);
}

/* Bytes of TILE columns, two in a register: eight channels of the one and of the other by turns,
 * channels 0-7, 16-23, 8-15, 24-31. */
static inline __attribute__((always_inline)) void tile(__m512i out[TILE / 2], const uint8_t *in,
                                                       const block *b, int row, const params *p,
                                                       __m512i zero, const unsigned k,
                                                       const unsigned stride, const bool gelu)
{
    const unsigned n_groups = k == 7 ? 2 : 1;
    __m512i s0[TILE], s1[TILE];
    /* else gcc keeps a tile's input for both of mult 2, on the stack */
    __asm__ volatile("" : "+r"(in), "+r"(b));
    sums(s0, in, b, row, 0, p->start[0], k, stride, n_groups);
    sums(s1, in, b, row, 1, p->start[1], k, stride, n_groups);
    UNROLL for (int t = 0; t < TILE; t += 2) out[t / 2] = fv_pack_u8_avx512(
        finish(s0[t], p, 0, gelu), finish(s1[t], p, 1, gelu), finish(s0[t + 1], p, 0, gelu),
        finish(s1[t + 1], p, 1, gelu), zero);
}

/* n columns to rows of dst. */
static inline __attribute__((always_inline)) void store(uint8_t *dst, size_t ld,
                                                        const __m512i out[2][TILE / 2], size_t n,
                                                        size_t lanes, const unsigned mult)
{
    const __m512i by_column = _mm512_setr_epi64(0, 4, 2, 6, 1, 5, 3, 7);
    const __mmask64 mask = ~(__mmask64)0 >> (64 - lanes * mult);
    if (n == TILE && lanes == CHANNELS) {
        UNROLL for (size_t t = 0; t < TILE; t += 2)
        {
            if (mult == 1) {
                const __m512i y = _mm512_permutexvar_epi64(by_column, out[0][t / 2]);
                _mm256_storeu_si256((__m256i *)(void *)(dst + t * ld), _mm512_castsi512_si256(y));
                _mm256_storeu_si256((__m256i *)(void *)(dst + (t + 1) * ld),
                                    _mm512_extracti64x4_epi64(y, 1));
            } else {
                const __m512i low = _mm512_unpacklo_epi8(out[0][t / 2], out[1][t / 2]);
                const __m512i high = _mm512_unpackhi_epi8(out[0][t / 2], out[1][t / 2]);
                _mm512_storeu_si512(dst + t * ld, _mm512_shuffle_i64x2(low, low, 0xd8));
                _mm512_storeu_si512(dst + (t + 1) * ld, _mm512_shuffle_i64x2(high, high, 0xd8));
            }
        }
        return;
    }
    for (size_t t = 0; t < n; t += 2) {
        __m512i first, second;
        if (mult == 1) {
            first = _mm512_permutexvar_epi64(by_column, out[0][t / 2]);
            second = _mm512_shuffle_i64x2(first, first, 0xee);
        } else {
            first = _mm512_unpacklo_epi8(out[0][t / 2], out[1][t / 2]);
            first = _mm512_shuffle_i64x2(first, first, 0xd8);
            second = _mm512_unpackhi_epi8(out[0][t / 2], out[1][t / 2]);
            second = _mm512_shuffle_i64x2(second, second, 0xd8);
        }
        _mm512_mask_storeu_epi8(dst + t * ld, mask, first);
        if (t + 1 < n)
            _mm512_mask_storeu_epi8(dst + (t + 1) * ld, mask, second);
    }
}

static void get_all(params *p, const fv_dwconv_u8_args *d, const block *b, size_t at, size_t lanes)
{
    get_params(p->mul, d->mul + at, d->mult, lanes);
    p->bias[0] = p->bias[1] = _mm512_setzero_ps();
    if (d->bias)
        get_params(p->bias, d->bias + at, d->mult, lanes);
    get_params(p->inv, d->inv + at, d->mult, lanes);
    for (int half = 0; half < 2; half++) {
        p->start[half] = _mm512_mullo_epi32(_mm512_load_si512(b->sum[half]),
                                            _mm512_set1_epi32(-d->src_zero));
        if (d->act == FV_ACT_NONE) {
            p->mul[half] = _mm512_mul_ps(p->mul[half], p->inv[half]);
            p->bias[half] = _mm512_mul_ps(p->bias[half], p->inv[half]);
        }
    }
}

/* Channels go by pairs of blocks, so that a line of the input is used up once it is in L1. */
static inline __attribute__((always_inline)) void rows_of(const fv_dwconv_u8_args *d,
                                                          const unsigned k, const unsigned stride,
                                                          const unsigned mult, const bool gelu)
{
    const size_t n_groups = k == 7 ? 2 : 1, column = n_groups * QUAD, chunk = CHUNK / stride;
    const __m512i zero = _mm512_set1_epi16((short)d->zero);
    for (size_t pair = 0; pair < d->channels; pair += 2 * CHANNELS) {
        const size_t n_blocks = d->channels - pair > CHANNELS ? 2 : 1;
        const block *b = (const block *)d->weight + pair / CHANNELS * mult;
        params p[4];
        for (size_t i = 0; i < n_blocks; i++) {
            const size_t c = pair + i * CHANNELS, lanes = FV_MIN(d->channels - c, (size_t)CHANNELS);
            for (unsigned m = 0; m < mult; m++)
                get_all(&p[i * mult + m], d, b + i * mult + m, c * mult + m, lanes);
        }
        for (size_t x = d->x0; x < d->x1; x += chunk) {
            const size_t n = FV_MIN(d->x1 - x, chunk), kept = x == d->x0 ? 0 : k - stride;
            for (size_t i = 0; i < n_blocks; i++) {
                uint8_t *in = (uint8_t *)d->scratch + i * BLOCK_BYTES;
                /* columns that the chunk before had too */
                for (size_t at = 0; at < kept * column; at += 64)
                    _mm512_store_si512(in + at,
                                       _mm512_load_si512(in + chunk * stride * column + at));
            }
            fill(d, (uint8_t *)d->scratch + kept * column, n_groups, x * stride + kept,
                 (x + n - 1) * stride + k, pair, n_blocks);
            for (size_t i = 0; i < n_blocks; i++) {
                const uint8_t *in = (const uint8_t *)d->scratch + i * BLOCK_BYTES;
                const size_t c = pair + i * CHANNELS,
                             lanes = FV_MIN(d->channels - c, (size_t)CHANNELS);
                uint8_t *dst = d->dst + (x - d->x0) * d->dst_ld + c * mult;
                for (size_t t = 0; t < n; t += TILE) {
                    for (unsigned row = 0; row < d->rows; row++) {
                        __m512i out[2][TILE / 2];
                        for (unsigned m = 0; m < mult; m++)
                            tile(out[m], in + t * stride * column, b + i * mult + m, (int)row,
                                 p + i * mult + m, zero, k, stride, gelu);
                        store(dst + row * d->dst_row + t * d->dst_ld, d->dst_ld,
                              (const __m512i(*)[TILE / 2]) out, FV_MIN(n - t, (size_t)TILE), lanes,
                              mult);
                    }
                }
            }
        }
    }
}

#define ROWS(name, k, stride)                                                                     \
    static void name##m1(const fv_dwconv_u8_args *d) { rows_of(d, (k), (stride), 1, false); }     \
    static void name##m1_gelu(const fv_dwconv_u8_args *d) { rows_of(d, (k), (stride), 1, true); } \
    static void name##m2(const fv_dwconv_u8_args *d) { rows_of(d, (k), (stride), 2, false); }     \
    static void name##m2_gelu(const fv_dwconv_u8_args *d) { rows_of(d, (k), (stride), 2, true); }
ROWS(k3s1, 3, 1)
ROWS(k3s2, 3, 2)
ROWS(k7s1, 7, 1)
ROWS(k7s2, 7, 2)

static void dwconv_u8__avx512vnni(const fv_dwconv_u8_args *d)
{
    static fv_dwconv_u8_fn *const by_shape[2][2][2][2] = {
        { { { k3s1m1, k3s1m1_gelu }, { k3s1m2, k3s1m2_gelu } },
          { { k3s2m1, k3s2m1_gelu }, { k3s2m2, k3s2m2_gelu } } },
        { { { k7s1m1, k7s1m1_gelu }, { k7s1m2, k7s1m2_gelu } },
          { { k7s2m1, k7s2m1_gelu }, { k7s2m2, k7s2m2_gelu } } },
    };
    fv_dwconv_u8_fn *fn = by_shape[d->k == 7][d->stride == 2][d->mult == 2][d->act == FV_ACT_GELU];
    if (d->rows == 1 || d->stride == 1) {
        fn(d);
        return;
    }
    fv_dwconv_u8_args one = *d; /* rows two apart share no group of four */
    one.rows = 1;
    fn(&one);
    memcpy(one.src, d->src + 2, d->k * sizeof *one.src);
    one.dst += d->dst_row;
    fn(&one);
}

void fv_dwconv_u8_init_avx512vnni(fv_kernels *k);
void fv_dwconv_u8_init_avx512vnni(fv_kernels *k)
{
    k->dwconv_u8 = (fv_dwconv_u8_kernel){ dwconv_u8__avx512vnni, pack__avx512vnni,
                                          packed_bytes__avx512vnni };
}
