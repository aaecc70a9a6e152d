/* Matrix product of bf16 operands for AVX-512 with BF16: vdpbf16ps multiplies pairs and adds them
 * to an f32 sum. It takes subnormal operands and results for zero, which is far below the bound. */
#include <immintrin.h>

#include "base/types.h"

static inline void store_native(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x);
#define STORE_AVX512 store_native
#include "kernels/x86/gemm_avx512.h"

/* vcvtneps2bf16 rounds as fv_f32_to_bf16 does but for subnormals, which become zero. */
static inline void store_native(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x)
{
    if (type == FV_TYPE_BF16)
        _mm256_mask_storeu_epi16((uint16_t *)p + i, mask, (__m256i)_mm512_cvtneps_pbh(x));
    else
        fv_store_avx512(p, type, i, mask, x);
}

#define MAC_BF16(s, a, b) _mm512_dpbf16_ps(s, (__m512bh)(a), (__m512bh)(b))
DEFINE_TILES(tile_bf16, MAC_BF16)

static void gemm_bf16_14x32__avx512bf16(const fv_gemm_args *g) { gemm(g, tile_bf16s, 2); }

PACK(pack_bf16_f32__avx512bf16, FV_TYPE_BF16, FV_TYPE_F32)
PACK(pack_bf16_f16__avx512bf16, FV_TYPE_BF16, FV_TYPE_F16)
PACK(pack_bf16_bf16__avx512bf16, FV_TYPE_BF16, FV_TYPE_BF16)

void fv_gemm_init_avx512bf16(fv_kernels *k);
void fv_gemm_init_avx512bf16(fv_kernels *k)
{
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16,
                                     .mr = MR,
                                     .nr = NR,
                                     .kg = 2,
                                     .run = gemm_bf16_14x32__avx512bf16,
                                     .pack = { [FV_TYPE_F32] = pack_bf16_f32__avx512bf16,
                                               [FV_TYPE_F16] = pack_bf16_f16__avx512bf16,
                                               [FV_TYPE_BF16] = pack_bf16_bf16__avx512bf16 } };
    k->fast_bf16 = true;
}
