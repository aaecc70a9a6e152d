/* Depthwise convolution of u8 for AVX2: vpmaddwd takes two taps of a column at once.
 *
 * 16 channels at a time. Input rows, less src_zero, are widened to 16 bits and interleaved by pairs
 * in the scratch, a column after the other; unpacking within 128-bit lanes leaves the channels in
 * this order, and packing undoes it:
 *
 *     half 0:  0-3 8-11        half 1:  4-7 12-15
 *
 * Two pairs cover a 3 x 3 kernel, four a 7 x 7 one; the row that is too many has weight zero, or
 * belongs to the second output row of a call, which takes the same columns with weights one row
 * further down. A tile is 4 output columns. */
#include "kernels/x86/u8_avx2.h"

#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

#define UNROLL _Pragma("GCC unroll 64")

enum { CHANNELS = 16, TILE = 4, CHUNK = 64, PAIR = 4 * CHANNELS, MAX_PAIRS = 4 };

_Static_assert((CHUNK + 7) * MAX_PAIRS * PAIR <= 1 << 16, "fv_dwconv_u8_scratch_bytes");

/* Packed weights of 16 channels and one of their mult outputs: [output
 * row][half][pair][dx][lane]. */
typedef struct block {
    int16_t w[2][2][MAX_PAIRS][7][8][2];
} block;

static size_t packed_bytes__avx2(size_t channels, unsigned k, unsigned mult)
{
    (void)k;
    return (channels + CHANNELS - 1) / CHANNELS * mult * sizeof(block);
}

static void pack__avx2(void *dst, const int8_t *weight, size_t channels, unsigned k, unsigned mult)
{
    block *to = dst;
    memset(dst, 0, packed_bytes__avx2(channels, k, mult));
    for (size_t c = 0; c < channels; c++) {
        const size_t i = c % CHANNELS, half = i / 4 % 2, lane = i / 8 * 4 + i % 4;
        for (unsigned m = 0; m < mult; m++) {
            block *b = to + c / CHANNELS * mult + m;
            for (unsigned t = 0; t < k * k; t++) {
                const int8_t w = weight[(t * channels + c) * mult + m];
                const unsigned dy = t / k, dx = t % k;
                b->w[0][half][dy / 2][dx][lane][dy % 2] = w;
                b->w[1][half][(dy + 1) / 2][dx][lane][(dy + 1) % 2] = w;
            }
        }
    }
}

/* 16 channels of column x, less zero; n of them exist, none outside the map. */
static inline __m256i load(const uint8_t *row, size_t ld, size_t x, size_t n, __m256i zero)
{
    uint8_t some[16] = { 0 };
    if (!row)
        return _mm256_setzero_si256();
    row += x * ld;
    if (n < CHANNELS)
        row = memcpy(some, row, n);
    return _mm256_sub_epi16(
        _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)row)), zero);
}

/* Columns [p0, p1) of channels c .., counted from the left edge of the padding. */
static void fill(const fv_dwconv_u8_args *d, char *to, size_t n_pairs, size_t p0, size_t p1,
                 size_t c)
{
    const size_t pad = d->k / 2, n_rows = d->k + (d->rows - 1),
                 n = FV_MIN(d->channels - c, (size_t)CHANNELS);
    const __m256i zero = _mm256_set1_epi16((short)d->src_zero);
    for (size_t p = p0; p < p1; p++) {
        const bool inside = p >= pad && p < d->width + pad;
        for (size_t i = 0; i < n_pairs; i++, to += PAIR) {
            const uint8_t *first = inside ? d->src[2 * i] : NULL;
            const uint8_t *second = inside && 2 * i + 1 < n_rows ? d->src[2 * i + 1] : NULL;
            const __m256i a = load(first ? first + c : NULL, d->src_ld, p - pad, n, zero);
            const __m256i b = load(second ? second + c : NULL, d->src_ld, p - pad, n, zero);
            _mm256_store_si256((__m256i *)(void *)to, _mm256_unpacklo_epi16(a, b));
            _mm256_store_si256((__m256i *)(void *)(to + 32), _mm256_unpackhi_epi16(a, b));
        }
    }
}

/* 8 channels of TILE columns. */
static inline __attribute__((always_inline)) void sums(__m256i s[TILE], const char *in,
                                                       const block *b, unsigned row, unsigned half,
                                                       const unsigned k, const unsigned stride)
{
    const unsigned n_pairs = (k + 1) / 2;
    UNROLL for (unsigned t = 0; t < TILE; t++) s[t] = _mm256_setzero_si256();
    for (unsigned i = 0; i < n_pairs; i++) {
        __m256i w[7];
        UNROLL for (unsigned dx = 0; dx < k; dx++)
            w[dx] = _mm256_load_si256((const __m256i *)(const void *)b->w[row][half][i][dx]);
        UNROLL for (unsigned j = 0; j < (TILE - 1) * stride + k; j++)
        {
            const __m256i v = _mm256_load_si256(
                (const __m256i *)(const void *)(in + (j * n_pairs + i) * PAIR + half * 32));
            UNROLL for (unsigned dx = 0; dx < k; dx++)
            {
                if (j < dx || (j - dx) % stride || (j - dx) / stride >= TILE)
                    continue;
                const unsigned t = (j - dx) / stride;
                s[t] = _mm256_add_epi32(s[t], _mm256_madd_epi16(v, w[dx]));
            }
        }
    }
}

/* Parameters of 16 channels and one of their outputs, in the order of the sums; without GELU mul
 * and bias are already times inv. */
typedef struct params {
    vec mul[2], bias[2], inv[2];
} params;

static void get_params(vec to[2], const float *p, unsigned mult, size_t lanes)
{
    float each[CHANNELS] = { 0 };
    for (size_t i = 0; i < lanes; i++)
        each[i] = p[i * mult];
    const vec a = vec_load(each), b = vec_load(each + VEC_W);
    to[0] = _mm256_permute2f128_ps(a, b, 0x20);
    to[1] = _mm256_permute2f128_ps(a, b, 0x31);
}

static void get_all(params *p, const fv_dwconv_u8_args *d, size_t at, size_t lanes)
{
    get_params(p->mul, d->mul + at, d->mult, lanes);
    p->bias[0] = p->bias[1] = vec_zero();
    if (d->bias)
        get_params(p->bias, d->bias + at, d->mult, lanes);
    get_params(p->inv, d->inv + at, d->mult, lanes);
    for (int half = 0; half < 2 && d->act == FV_ACT_NONE; half++) {
        p->mul[half] = vec_mul(p->mul[half], p->inv[half]);
        p->bias[half] = vec_mul(p->bias[half], p->inv[half]);
    }
}

/* Both halves of a column as 16 numbers of 16 bits, in order. */
static inline __m256i finish(__m256i s0, __m256i s1, const params *p, __m256i zero, bool gelu)
{
    vec y0 = vec_fma(_mm256_cvtepi32_ps(s0), p->mul[0], p->bias[0]);
    vec y1 = vec_fma(_mm256_cvtepi32_ps(s1), p->mul[1], p->bias[1]);
    if (gelu) {
        y0 = vec_mul(vec_gelu(y0), p->inv[0]);
        y1 = vec_mul(vec_gelu(y1), p->inv[1]);
    }
    return _mm256_adds_epi16(_mm256_packs_epi32(fv_round_avx2(y0), fv_round_avx2(y1)), zero);
}

static inline void put(uint8_t *dst, __m128i y, size_t n)
{
    if (n >= 16)
        _mm_storeu_si128((__m128i *)(void *)dst, y);
    else
        memcpy(dst, &y, n);
}

/* bytes[m]: two columns of 16 channels; this one is the first or second. */
static inline void store(uint8_t *dst, const __m256i bytes[2], int second, size_t lanes,
                         unsigned mult)
{
    const __m128i a = second ? _mm256_extracti128_si256(bytes[0], 1)
                             : _mm256_castsi256_si128(bytes[0]);
    if (mult == 1) {
        put(dst, a, lanes);
        return;
    }
    const __m128i b = second ? _mm256_extracti128_si256(bytes[1], 1)
                             : _mm256_castsi256_si128(bytes[1]);
    put(dst, _mm_unpacklo_epi8(a, b), 2 * lanes);
    if (lanes > 8)
        put(dst + 16, _mm_unpackhi_epi8(a, b), 2 * lanes - 16);
}

static inline __attribute__((always_inline)) void rows_of(const fv_dwconv_u8_args *d,
                                                          const unsigned k, const unsigned stride)
{
    const size_t n_pairs = (k + 1) / 2, column = n_pairs * PAIR, chunk = CHUNK / stride;
    const __m256i zero = _mm256_set1_epi16((short)d->zero);
    const bool gelu = d->act == FV_ACT_GELU;
    char *in = d->scratch;
    for (size_t c = 0; c < d->channels; c += CHANNELS) {
        const size_t lanes = FV_MIN(d->channels - c, (size_t)CHANNELS);
        const block *b = (const block *)d->weight + c / CHANNELS * d->mult;
        params p[2];
        for (unsigned m = 0; m < d->mult; m++)
            get_all(&p[m], d, c * d->mult + m, lanes);
        for (size_t x = d->x0; x < d->x1; x += chunk) {
            const size_t n = FV_MIN(d->x1 - x, chunk);
            fill(d, in, n_pairs, x * stride, (x + n - 1) * stride + k, c);
            for (size_t t = 0; t < n; t += TILE) {
                for (unsigned row = 0; row < d->rows; row++) {
                    __m256i bytes[TILE / 2][2];
                    for (unsigned m = 0; m < d->mult; m++) {
                        __m256i s0[TILE], s1[TILE];
                        sums(s0, in + t * stride * column, b + m, row, 0, k, stride);
                        sums(s1, in + t * stride * column, b + m, row, 1, k, stride);
                        UNROLL for (int i = 0; i < TILE; i += 2)
                            bytes[i / 2][m] = _mm256_permute4x64_epi64(
                                _mm256_packus_epi16(
                                    finish(s0[i], s1[i], p + m, zero, gelu),
                                    finish(s0[i + 1], s1[i + 1], p + m, zero, gelu)),
                                0xd8);
                    }
                    uint8_t *dst = d->dst + row * d->dst_row + (x + t - d->x0) * d->dst_ld +
                                   c * d->mult;
                    for (size_t i = 0; i < FV_MIN(n - t, (size_t)TILE); i++)
                        store(dst + i * d->dst_ld, bytes[i / 2], (int)(i % 2), lanes, d->mult);
                }
            }
        }
    }
}

static void k3s1(const fv_dwconv_u8_args *d) { rows_of(d, 3, 1); }
static void k3s2(const fv_dwconv_u8_args *d) { rows_of(d, 3, 2); }
static void k7s1(const fv_dwconv_u8_args *d) { rows_of(d, 7, 1); }
static void k7s2(const fv_dwconv_u8_args *d) { rows_of(d, 7, 2); }

static void dwconv_u8__avx2(const fv_dwconv_u8_args *d)
{
    static fv_dwconv_u8_fn *const by_shape[2][2] = { { k3s1, k3s2 }, { k7s1, k7s2 } };
    fv_dwconv_u8_fn *fn = by_shape[d->k == 7][d->stride == 2];
    if (d->rows == 1 || d->stride == 1) {
        fn(d);
        return;
    }
    fv_dwconv_u8_args one = *d;
    one.rows = 1;
    fn(&one);
    memcpy(one.src, d->src + 2, d->k * sizeof *one.src);
    one.dst += d->dst_row;
    fn(&one);
}

void fv_dwconv_u8_init_avx2(fv_kernels *k);
void fv_dwconv_u8_init_avx2(fv_kernels *k)
{
    k->dwconv_u8 = (fv_dwconv_u8_kernel){ dwconv_u8__avx2, pack__avx2, packed_bytes__avx2 };
}
