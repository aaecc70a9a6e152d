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
static void pack_u8__avx2(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, n, k);
}

void fv_gemm_u8_init_avx2(fv_kernels *k);
void fv_gemm_u8_init_avx2(fv_kernels *k)
{
    k->gemm_u8 =
        (fv_gemm_u8_kernel){ .mr = MR, .nr = NR, .run = gemm_u8_6x8__avx2, .pack = pack_u8__avx2 };
}
