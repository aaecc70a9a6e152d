/* Matrix product of u8 and i8 for AVX2. vpmaddubsw would saturate its 16-bit sums, so both operands
 * are widened to 16 bits: A when a piece of its rows is copied, B as it is loaded. vpmaddwd gives
 * two sums a column, over even and odd pairs of k; they meet at the end of a tile.
 *
 *     A  a0 a1 a2 a3 | a0 a1 a2 a3 | ..      (one word, broadcast)
 *     B  b0 b1 b2 b3 | b0 b1 b2 b3 | ..      (4 columns)
 *        a0 b0 + a1 b1, a2 b2 + a3 b3 | .. */
#include <immintrin.h>

enum { MR = 6, NR = 8, WIDEN = 1 };

#include "kernels/x86/gemm_u8_avx2.h"

static inline __m256i load_b(const void *p)
{
    return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)p));
}

/* A row of A: s0, s1 += its four values times b0, b1. In assembly, because gcc 12 begins with the
 * products of all rows, for which it has too few registers, and keeps the sums on the stack: half
 * the rate. */
static inline void row_add(__m256i *s0, __m256i *s1, const void *a, __m256i b0, __m256i b1)
{
    __m256i ai, product;
    __asm__ volatile("vpbroadcastq %[a], %[ai]\n\t"
                     "vpmaddwd %[b0], %[ai], %[product]\n\t"
                     "vpaddd %[product], %[s0], %[s0]\n\t"
                     "vpmaddwd %[b1], %[ai], %[ai]\n\t"
                     "vpaddd %[ai], %[s1], %[s1]"
                     : [s0] "+x"(*s0), [s1] "+x"(*s1), [ai] "=&x"(ai), [product] "=&x"(product)
                     : [a] "m"(*(const int64_t(*)[1])a), [b0] "x"(b0), [b1] "x"(b1));
}

#define TILE(mr)                                                                                   \
    static void tile_##mr(const uint8_t *a, size_t a_ld, const int32_t *b, size_t n, int32_t *out, \
                          bool more, const int32_t *bias)                                          \
    {                                                                                              \
        __m256i s[mr][2];                                                                          \
        UNROLL for (int i = 0; i < mr; i++) s[i][0] = s[i][1] = _mm256_setzero_si256();            \
        for (size_t q = 0; q < n; q++, a += 8, b += NR) {                                          \
            const __m256i b0 = load_b(b), b1 = load_b(b + 4);                                      \
            UNROLL for (int i = 0; i < mr; i++)                                                    \
                row_add(&s[i][0], &s[i][1], a + (size_t)i * a_ld, b0, b1);                         \
        }                                                                                          \
        UNROLL for (int i = 0; i < mr; i++)                                                        \
        {                                                                                          \
            __m256i *to = (__m256i *)(void *)(out + i * NR);                                       \
            __m256i y = _mm256_permute4x64_epi64(_mm256_hadd_epi32(s[i][0], s[i][1]), 0xd8);       \
            __m256i start = more ? *to : _mm256_loadu_si256((const __m256i *)(const void *)bias);  \
            *to = _mm256_add_epi32(start, y);                                                      \
        }                                                                                          \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static tile_fn *const tiles[MR + 1] = { 0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6 };

static void gemm_u8_6x8__avx2(const fv_gemm_u8_args *g) { gemm(g, tiles); }

/* ---- rows of 16 bits --------------------------------------------------------------------- */

/* What tiles multiply is 16 bits wide anyway. From an input q they take q - 2^15, and 2^15 times
 * the sum of a column of B is added back. Sums over a piece of k fit in 32 bits: 504 x 2^15 x 128 <
 * 2^31. Their multiples of 256 go to a sum `high`, what is left to a sum `low`. */
enum {
    PIECE16 = 126,   /* words of k */
    ROWS16 = 4 * MR, /* whose piece is copied, 25 KB, and passes all of COLUMNS16 */
    COLUMNS16 = 256, /* whose sums wait: 24 KB each of high and low */
    COPIED16_LD = PIECE16 * 8 + COPY_GAP
};

/* n bytes high, n bytes low, then zeros to words words. */
static void copy_row16(uint8_t *to, const uint8_t *high, const uint8_t *low, size_t n, size_t words)
{
    const __m128i half = _mm_set1_epi16(-0x8000);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(high + i)),
                      l = _mm_loadu_si128((const __m128i *)(const void *)(low + i));
        __m128i *at = (__m128i *)(void *)(to + 2 * i);
        _mm_storeu_si128(at, _mm_xor_si128(_mm_unpacklo_epi8(l, h), half));
        _mm_storeu_si128(at + 1, _mm_xor_si128(_mm_unpackhi_epi8(l, h), half));
    }
    for (; i < words * 4; i++) {
        const uint16_t q = i < n ? (uint16_t)(high[i] << 8 | low[i]) ^ 0x8000 : 0;
        memcpy(to + 2 * i, &q, 2);
    }
}

/* sum[0..NR) = bias + 2^15 / 256 times the sums of a panel's columns. */
static void start16(int32_t *sum, const int32_t *b, size_t words, const int32_t *bias, size_t width)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i columns = _mm256_setzero_si256();
    for (size_t q = 0; q < words; q++, b += NR) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1),
                                                   *(const __m256i *)(const void *)b);
        columns = _mm256_add_epi32(columns, _mm256_madd_epi16(pairs, ones));
    }
    _mm256_store_si256((__m256i *)(void *)sum, _mm256_slli_epi32(columns, 7));
    for (size_t j = 0; bias && j < width; j++)
        sum[j] = (int32_t)((uint32_t)sum[j] + (uint32_t)bias[j]);
}

/* high, low += sum, which are rows x NR; low has rows of COLUMNS16. */
static void carry16(int32_t *high, int32_t *low, const int32_t *sum, size_t rows)
{
    for (size_t r = 0; r < rows; r++, high += NR, low += COLUMNS16, sum += NR) {
        __m256i *h = (__m256i *)(void *)high, *l = (__m256i *)(void *)low;
        const __m256i s = *(const __m256i *)(const void *)sum;
        *h = _mm256_add_epi32(*h, _mm256_srai_epi32(s, 8));
        *l = _mm256_add_epi32(*l, _mm256_and_si256(s, _mm256_set1_epi32(255)));
    }
}

/* Of at most ROWS16 rows and COLUMNS16 columns. start: [n], from start16. */
static void block16(const fv_gemm_u8_args *g, const int32_t *start)
{
    static const int32_t none[NR] __attribute__((aligned(32))) = { 0 };
    const size_t words = (g->k + 3) / 4, n_tiles = (g->m + MR - 1) / MR;
    uint8_t copied[ROWS16 * COPIED16_LD] __attribute__((aligned(64)));
    int32_t high[COLUMNS16 * ROWS16] __attribute__((aligned(64))); /* by panels */
    int32_t low[ROWS16 * COLUMNS16] __attribute__((aligned(64)));
    int32_t sum[MR * NR] __attribute__((aligned(64)));
    fv_gemm_u8_args end = *g;
    end.low = low;
    end.ldl = COLUMNS16;
    for (size_t j = 0; j < g->n; j += NR)
        for (size_t r = 0; r < g->m; r++) {
            memcpy(high + j * ROWS16 + r * NR, start + j, NR * sizeof *start);
            memset(low + r * COLUMNS16 + j, 0, NR * sizeof *low);
        }
    for (size_t q = 0; q < words; q += PIECE16) {
        const size_t n = FV_MIN(words - q, (size_t)PIECE16);
        for (size_t r = 0; r < g->m; r++)
            copy_row16(copied + r * COPIED16_LD, g->a + r * g->lda + 4 * q,
                       g->a_low + r * g->lda + 4 * q, FV_MIN(4 * n, g->k - 4 * q), n);
        for (size_t j = 0; j < g->n; j += NR) {
            const int32_t *b = (const int32_t *)g->b + j * words + q * NR;
            for (size_t t = 0; t < n_tiles; t++) {
                const size_t first = g->m * t / n_tiles, rows = g->m * (t + 1) / n_tiles - first;
                int32_t *to = high + j * ROWS16 + first * NR;
                tiles[rows](copied + first * COPIED16_LD, COPIED16_LD, b, n, sum, false, none);
                carry16(to, low + first * COLUMNS16 + j, sum, rows);
                if (q + n == words)
                    epilogue(&end, first, rows, j, FV_MIN((size_t)NR, g->n - j), to);
            }
        }
    }
}

static void gemm_u8_run16__avx2(const fv_gemm_u8_args *g)
{
    int32_t start[COLUMNS16] __attribute__((aligned(64)));
    const size_t words = (g->k + 3) / 4;
    for (size_t j0 = 0; j0 < g->n; j0 += COLUMNS16) {
        const size_t n = FV_MIN(g->n - j0, (size_t)COLUMNS16);
        const int32_t *b = (const int32_t *)g->b + j0 * words;
        for (size_t j = 0; j < n; j += NR)
            start16(start + j, b + j * words, words, g->bias ? g->bias + j0 + j : NULL,
                    FV_MIN((size_t)NR, n - j));
        for (size_t i = 0; i < g->m; i += ROWS16) {
            fv_gemm_u8_args block = *g;
            block.m = FV_MIN(g->m - i, (size_t)ROWS16);
            block.n = n;
            block.a += i * g->lda;
            block.a_low += i * g->lda;
            block.b = b;
            block.c = (char *)g->c + (i * g->ldc + j0) * fv_type_size(g->c_type);
            block.bias = NULL;
            block.mul += j0;
            if (g->row)
                block.row += i;
            if (g->add)
                block.add += j0;
            if (g->scale)
                block.scale += j0;
            if (g->residual)
                block.residual += i * g->ldr + j0;
            block16(&block, start);
        }
    }
}

static void pack_u8__avx2(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, false, n, k);
}

static void pack_u8_q8__avx2(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

void fv_gemm_u8_init_avx2(fv_kernels *k);
void fv_gemm_u8_init_avx2(fv_kernels *k)
{
    k->gemm_u8 = (fv_gemm_u8_kernel){ .mr = MR,
                                      .nr = NR,
                                      .run = gemm_u8_6x8__avx2,
                                      .run16 = gemm_u8_run16__avx2,
                                      .pack = pack_u8__avx2,
                                      .pack_q8 = pack_u8_q8__avx2 };
}
