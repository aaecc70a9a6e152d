/* Matrix product of bf16 operands for AMX: tdpbf16ps multiplies 16 pairs of bf16 for 16 x 16 sums.
 * Panels and epilogue are those of AVX-512 BF16, below it. */
#include "base/types.h"

#include <immintrin.h>

static inline void store_native(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x);
#define STORE_AVX512 store_native
#include "kernels/x86/gemm_epilogue_avx512.h"

#define TILE_PRODUCT TILE_PAIRS_BF16
#include "kernels/x86/gemm_amx.h"

/* vcvtneps2bf16 rounds as fv_f32_to_bf16 does but for subnormals, which become zero. */
static inline void store_native(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x)
{
#if defined(__AVX512BF16__) /* tests of the model do without */
    if (type == FV_TYPE_BF16) {
        _mm256_mask_storeu_epi16((uint16_t *)p + i, mask, (__m256i)_mm512_cvtneps_pbh(x));
        return;
    }
#endif
    fv_store_avx512(p, type, i, mask, x);
}

static void finish_rows(const void *args, size_t i, size_t rows, size_t j, size_t width,
                        const int32_t *sum)
{
    epilogue(args, i, rows, j, width, (const float *)(const void *)sum, NR);
}

static void gemm_bf16_32x32__amx(const fv_gemm_args *g)
{
    product_run(&(tile_product){ .m = g->m,
                                 .n = g->n,
                                 .k_bytes = g->k * 2,
                                 .a = g->a,
                                 .a_ld = g->lda * 2,
                                 .b = g->b,
                                 .args = g,
                                 .c = g->c,
                                 .c_row_bytes = g->ldc * fv_type_size(g->c_type),
                                 .c_elem_bytes = fv_type_size(g->c_type),
                                 .residual = g->residual,
                                 .ldr = g->ldr,
                                 .gate = g->gate,
                                 .ldg = g->ldg });
}

void fv_gemm_init_amx(fv_kernels *k);
void fv_gemm_init_amx(fv_kernels *k)
{
    k->gemm_bf16.run = gemm_bf16_32x32__amx;
    k->gemm_bf16.mr = MR;
    k->fast_bf16 = true;
}
