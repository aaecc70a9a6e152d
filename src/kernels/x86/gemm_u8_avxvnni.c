/* Matrix product of u8 and i8 for AVX-VNNI: as gemm_u8_avx512vnni.c with registers of 8 sums and
 * tiles of 6 x 16. */
#include <immintrin.h>

enum { MR = 6, NR = 16, WIDEN = 0 };

#include "kernels/x86/gemm_u8_avx2.h"

#define TILE(mr)                                                                                   \
    static void tile_##mr(const uint8_t *a, size_t a_ld, const int32_t *b, size_t n, int32_t *out, \
                          bool more, const int32_t *bias)                                          \
    {                                                                                              \
        __m256i s[mr][2], *to = (__m256i *)(void *)out;                                            \
        UNROLL for (int i = 0; i < mr; i++)                                                        \
        {                                                                                          \
            UNROLL for (int h = 0; h < 2; h++)                                                     \
                s[i][h] = more ? to[2 * i + h]                                                     \
                               : _mm256_loadu_si256((const __m256i *)(const void *)bias + h);      \
        }                                                                                          \
        for (size_t q = 0; q < n; q++, a += 4, b += NR) {                                          \
            const __m256i b0 = *(const __m256i *)(const void *)b,                                  \
                          b1 = *(const __m256i *)(const void *)(b + 8);                            \
            UNROLL for (int i = 0; i < mr; i++)                                                    \
            {                                                                                      \
                int32_t word;                                                                      \
                memcpy(&word, a + (size_t)i * a_ld, 4);                                            \
                const __m256i ai = _mm256_set1_epi32(word);                                        \
                s[i][0] = _mm256_dpbusd_avx_epi32(s[i][0], ai, b0);                                \
                s[i][1] = _mm256_dpbusd_avx_epi32(s[i][1], ai, b1);                                \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int i = 0; i < mr; i++)                                                        \
        {                                                                                          \
            to[2 * i] = s[i][0];                                                                   \
            to[2 * i + 1] = s[i][1];                                                               \
        }                                                                                          \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static tile_fn *const tiles[MR + 1] = { 0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6 };

static void gemm_u8_6x16__avxvnni(const fv_gemm_u8_args *g) { gemm(g, tiles); }
static void pack_u8__avxvnni(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack(dst, w, ld, false, n, k);
}

static void pack_u8_q8__avxvnni(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, fv_row_bytes(FV_TYPE_Q8_0, k), true, n, k);
}

void fv_gemm_u8_init_avxvnni(fv_kernels *k);
void fv_gemm_u8_init_avxvnni(fv_kernels *k)
{
    k->gemm_u8 = (fv_gemm_u8_kernel){ .mr = MR,
                                      .nr = NR,
                                      .run = gemm_u8_6x16__avxvnni,
                                      .pack = pack_u8__avxvnni,
                                      .pack_q8 = pack_u8_q8__avxvnni };
}
