/* Matrix product of u8 and i8 for AVX-512 VNNI: vpdpbusd multiplies fours of bytes and adds them to
 * an i32 sum.
 *
 *          panel of B, 32 columns wide             a tile: up to 14 rows x 2 registers of sums
 *           k -> [ b b b b | b b b b ]             per word of k, 4 bytes: 2 loads of B, then each
 *      A  [ a ]  [ c c c c | c c c c ]             row one broadcast of A and 2 vpdpbusd;
 *      14 [ a ]  [ c c c c | c c c c ]             28 sums + 2 + 1 of 32 registers */
#include <immintrin.h>

enum { MR = 14, NR = 32, WIDEN = 0 };

#include "kernels/x86/gemm_u8_body.h"
#include "kernels/x86/gemm_u8_epilogue_avx512.h"
#include "kernels/x86/transpose_avx512.h"

#define TILE(mr)                                                                                   \
    static void tile_##mr(const uint8_t *a, size_t a_ld, const int32_t *b, size_t n, int32_t *out, \
                          bool more, const int32_t *bias)                                          \
    {                                                                                              \
        __m512i s[mr][2];                                                                          \
        if (more) {                                                                                \
            UNROLL for (int i = 0; i < mr; i++)                                                    \
            {                                                                                      \
                s[i][0] = _mm512_load_si512(out + i * NR);                                         \
                s[i][1] = _mm512_load_si512(out + i * NR + 16);                                    \
            }                                                                                      \
        } else {                                                                                   \
            UNROLL for (int i = 0; i < mr; i++)                                                    \
            {                                                                                      \
                s[i][0] = _mm512_loadu_si512(bias);                                                \
                s[i][1] = _mm512_loadu_si512(bias + 16);                                           \
            }                                                                                      \
        }                                                                                          \
        for (size_t q = 0; q < n; q++, a += 4, b += NR) {                                          \
            __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + 16);                     \
            UNROLL for (int i = 0; i < mr; i++)                                                    \
            {                                                                                      \
                int32_t word;                                                                      \
                memcpy(&word, a + (size_t)i * a_ld, 4);                                            \
                __m512i ai = _mm512_set1_epi32(word);                                              \
                s[i][0] = _mm512_dpbusd_epi32(s[i][0], ai, b0);                                    \
                s[i][1] = _mm512_dpbusd_epi32(s[i][1], ai, b1);                                    \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int i = 0; i < mr; i++)                                                        \
        {                                                                                          \
            _mm512_store_si512(out + i * NR, s[i][0]);                                             \
            _mm512_store_si512(out + i * NR + 16, s[i][1]);                                        \
        }                                                                                          \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
TILE(13)
TILE(14)

static tile_fn *const tiles[MR + 1] = { 0,       tile_1,  tile_2,  tile_3,  tile_4,
                                        tile_5,  tile_6,  tile_7,  tile_8,  tile_9,
                                        tile_10, tile_11, tile_12, tile_13, tile_14 };

static void gemm_u8_14x32__avx512vnni(const fv_gemm_u8_args *g) { gemm(g, tiles); }

/* ---- packing ----------------------------------------------------------------------------- */

/* Up to 64 elements of a row, from element q on; n_bytes of them, zeros behind. */
static inline __attribute__((always_inline)) __m512i elements(const int8_t *row, bool blocks,
                                                              size_t q, size_t n_bytes)
{
    if (!blocks)
        return n_bytes == 64 ? _mm512_loadu_si512(row + q)
                             : _mm512_maskz_loadu_epi8(((__mmask64)1 << n_bytes) - 1, row + q);
    const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)(row + fv_q8_at(q)));
    if (n_bytes == FV_BLOCK)
        return _mm512_zextsi256_si512(first);
    row += fv_q8_at(q + FV_BLOCK);
    return _mm512_inserti64x4(_mm512_castsi256_si512(first),
                              _mm256_loadu_si256((const __m256i *)(const void *)row), 1);
}

/* Squares of 16 rows by 16 words of i8 or, in blocks, of Q8_0; rows row_bytes apart. */
static inline __attribute__((always_inline)) void pack(int32_t *to, const int8_t *w,
                                                       size_t row_bytes, const bool blocks,
                                                       size_t n, size_t k)
{
    const size_t words = (k + 3) / 4;
    for (size_t j = 0; j < n; j += NR, to += words * NR) {
        for (size_t h = 0; h < NR; h += 16) {
            const size_t rows = j + h < n ? FV_MIN((size_t)16, n - j - h) : 0;
            const int8_t *from = w + (rows ? j + h : 0) * row_bytes;
            for (size_t q = 0; q < words; q += 16) {
                const size_t n_words = FV_MIN((size_t)16, words - q);
                __m512i r[16];
                UNROLL for (size_t i = 0; i < 16; i++)
                    r[i] = i < rows ? elements(from + i * row_bytes, blocks, 4 * q,
                                               FV_MIN((size_t)64, k - 4 * q))
                                    : _mm512_setzero_si512();
                transpose(r);
                for (size_t i = 0; i < n_words; i++)
                    _mm512_store_si512(to + (q + i) * NR + h, r[i]);
            }
        }
    }
}

static void pack_u8__avx512vnni(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, false, n, k);
}

static void pack_u8_q8__avx512vnni(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

void fv_gemm_u8_init_avx512vnni(fv_kernels *k);
void fv_gemm_u8_init_avx512vnni(fv_kernels *k)
{
    k->gemm_u8 = (fv_gemm_u8_kernel){ .mr = MR,
                                      .nr = NR,
                                      .run = gemm_u8_14x32__avx512vnni,
                                      .pack = pack_u8__avx512vnni,
                                      .pack_q8 = pack_u8_q8__avx512vnni };
}
