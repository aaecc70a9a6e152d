/* Weights in blocks of 8 or 4 bits for AVX-VNNI: vpdpbusd on 256 bits, for processors without
 * AVX-512. Weights are taken as q + 128, the sums begin with what that is too much. */
#include <immintrin.h>

enum { MR = 6 };
#define QUANT_ISA(name) name##__avxvnni
#define TILES      \
    DEFINE_TILE(1) \
    DEFINE_TILE(2) \
    DEFINE_TILE(3) \
    DEFINE_TILE(4) \
    DEFINE_TILE(5) \
    DEFINE_TILE(6)
#define PANEL_FLIP 0x80
#define PANEL_Q4_ZERO 8

static inline __m256i dot8(__m256i part, __m256i w, __m256i q)
{
    return _mm256_dpbusd_avx_epi32(part, _mm256_xor_si256(w, _mm256_set1_epi8(-128)), q);
}

static inline __m256i dot4(__m256i part4, __m256i first, __m256i second, __m256i q,
                           __m256i q_second)
{
    return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(part4, first, q), second, q_second);
}

/* The instruction itself: around the intrinsic gcc 12 moves sums about. */
static inline void add_products(__m256i *sum, __m256i w, __m256i x)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(*sum) : "x"(w), "x"(x));
}

#include "kernels/x86/quant_body.h"

static tile_fn *const tiles[MR + 1] = { 0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6 };
static void gemm_q_6x16__avxvnni(const fv_gemm_args *g) { gemm(g, tiles); }

void fv_quant_init_avxvnni(fv_kernels *k);
void fv_quant_init_avxvnni(fv_kernels *k) { fill_slots(k, gemm_q_6x16__avxvnni, gemm_q_6x16__avxvnni); }
