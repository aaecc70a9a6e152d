/* Matrix product of u8 and i8 for AMX: tdpbusd multiplies 16 fours of bytes for 16 x 16 sums of
 * i32. Panels and epilogue are those of AVX-512 VNNI, below it. */
#define TILE_PRODUCT TILE_FOURS_U8_I8
#include "kernels/x86/gemm_amx.h"
#include "kernels/x86/gemm_u8_epilogue_avx512.h"

static void finish_rows(const void *args, size_t i, size_t rows, size_t j, size_t width,
                        const int32_t *sum)
{
    epilogue(args, i, rows, j, width, sum);
}

static void gemm_u8_32x32__amx(const fv_gemm_u8_args *g)
{
    product_run(&(tile_product){ .m = g->m,
                                 .n = g->n,
                                 .k_bytes = g->k,
                                 .a = (const char *)g->a,
                                 .a_ld = g->lda,
                                 .b = g->b,
                                 .start = g->bias,
                                 .args = g,
                                 .c = g->c,
                                 .c_row_bytes = g->ldc * fv_type_size(g->c_type),
                                 .c_elem_bytes = fv_type_size(g->c_type),
                                 .residual = g->residual,
                                 .ldr = g->ldr });
}

void fv_gemm_u8_init_amx(fv_kernels *k);
void fv_gemm_u8_init_amx(fv_kernels *k)
{
    k->gemm_u8.run = gemm_u8_32x32__amx;
    k->gemm_u8.mr = MR;
}
