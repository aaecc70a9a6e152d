/* Weights in blocks of 8 or 4 bits for AVX-VNNI: vpdpbusd on 256 bits, for processors without
 * AVX-512. Weights are taken as q + 128, the sums begin with what that is too much. */
#include <immintrin.h>

#include "base/types.h"

enum { MR = 6, PANEL_Q8_BYTES = 8 * FV_BLOCK };
#define QUANT_ISA(name) name##__avxvnni

static inline __m256i dot8(__m256i part, __m256i w, __m256i q)
{
    return _mm256_dpbusd_avx_epi32(part, _mm256_xor_si256(w, _mm256_set1_epi8(-128)), q);
}

static inline __m256i dot4(__m256i part4, __m256i first, __m256i second, __m256i q,
                           __m256i q_second)
{
    return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(part4, first, q), second, q_second);
}

/* As q + 128: [8][8][4]. */
static inline void panel_put(uint8_t *dst, fv_type type, size_t i, __m256i w)
{
    (void)type;
    _mm256_store_si256((__m256i *)(void *)(dst + 32 * i),
                       _mm256_xor_si256(w, _mm256_set1_epi8(-128)));
}

#include "kernels/x86/quant_body.h"
#include "kernels/x86/repeat_rows.h"

/* The instruction itself: around the intrinsic gcc 12 moves sums about. */
static inline void add_products(__m256i *sum, __m256i w, __m256i x)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(*sum) : "x"(w), "x"(x));
}

#define CLEAR(i)                                            \
    _mm256_store_ps(out + i * out_ld, _mm256_setzero_ps()), \
        _mm256_store_ps(out + i * out_ld + 8, _mm256_setzero_ps());
#define BEGIN(i) __m256i s##i = word_at(much, i, a_ld), t##i = s##i;
#define MULTIPLY(i)                            \
    {                                          \
        const __m256i x = word_at(a, i, a_ld); \
        add_products(&s##i, b0, x);            \
        add_products(&t##i, b1, x);            \
    }
#define END(i)                                                     \
    {                                                              \
        const __m256 x = _mm256_castsi256_ps(word_at(d, i, a_ld)); \
        add_block(out + i * out_ld, s##i, b + 256, x);             \
        add_block(out + i * out_ld + 8, t##i, b + 288, x);         \
    }

#define DEFINE_TILE(mr)                                                                      \
    static void tile_##mr(const int8_t *a, const float *d, const int32_t *much, size_t a_ld, \
                          const uint8_t *b, size_t n, float *out, size_t out_ld, bool more)  \
    {                                                                                        \
        if (!more) {                                                                         \
            ROWS_##mr(CLEAR)                                                                 \
        }                                                                                    \
        for (size_t q = 0; q < n; q++, d++, much++, b += 320) {                              \
            ROWS_##mr(BEGIN) for (int g = 0; g < 8; g++, a += 4, b += 32)                    \
            {                                                                                \
                const __m256i b0 = load32(b), b1 = load32(b + 256);                          \
                ROWS_##mr(MULTIPLY)                                                          \
            }                                                                                \
            ROWS_##mr(END)                                                                   \
        }                                                                                    \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)

static tile_fn *const tiles[MR + 1] = { 0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6 };
static void gemm_q_6x16__avxvnni(const fv_gemm_args *g) { gemm(g, FV_TYPE_Q8_0, tiles); }

void fv_quant_init_avxvnni(fv_kernels *k);
void fv_quant_init_avxvnni(fv_kernels *k)
{
    fill_slots(k, gemm_q_6x16__avxvnni, gemm_q_6x16__avxvnni);
}
