/* Which versions of the kernels a processor gets: portable first, then upward. A version is
 * an init function at the end of its file; it overrides the slots that its file has. */
#include "base/base.h"
#include "kernels/kernels.h"

typedef void init_fn(fv_kernels *k);

init_fn fv_gemm_init_ref, fv_dwconv_init_ref, fv_attn_init_ref, fv_rows_init_ref,
    fv_resize_init_ref;
init_fn fv_quant_init_ref;
init_fn fv_int8_init_ref;
#if defined(__x86_64__)
init_fn fv_gemm_init_avx2, fv_dwconv_init_avx2, fv_attn_init_avx2, fv_rows_init_avx2,
    fv_resize_init_avx2;
init_fn fv_quant_init_avx2, fv_quant_init_avxvnni;
init_fn fv_gemm_init_avx512, fv_dwconv_init_avx512, fv_attn_init_avx512, fv_rows_init_avx512;
init_fn fv_dwconv_u8_init_avx2, fv_gemm_u8_init_avx2, fv_gemm_u8_init_avxvnni;
init_fn fv_quantize_u8_init_avx2, fv_quantize_u8_init_avx512;
init_fn fv_gemm_init_avx512bf16, fv_attn_init_avx512bf16;
init_fn fv_resize_init_avx512vnni;
init_fn fv_quant_init_avx512vnni;
init_fn fv_gemm_u8_init_avx512vnni, fv_dwconv_u8_init_avx512vnni;
init_fn fv_gemm_init_amx, fv_gemm_u8_init_amx, fv_quant_init_amx, fv_attn_init_amx;
#endif
#if defined(__aarch64__)
init_fn fv_gemm_init_neon, fv_dwconv_init_neon, fv_attn_init_neon, fv_rows_init_neon,
    fv_resize_init_neon;
init_fn fv_int8_init_neon, fv_dwconv_u8_init_neon, fv_gemm_u8_init_dotprod, fv_gemm_u8_init_i8mm;
init_fn fv_resize_init_dotprod;
init_fn fv_gemm_init_bf16, fv_rows_init_bf16;
init_fn fv_quant_init_neon, fv_quant_init_dotprod, fv_quant_init_i8mm;
#endif

void fv_kernels_init(fv_kernels *k, unsigned cpu)
{
    *k = (fv_kernels){ 0 };
    fv_gemm_init_ref(k);
    fv_dwconv_init_ref(k);
    fv_attn_init_ref(k);
    fv_rows_init_ref(k);
    fv_resize_init_ref(k);
    fv_quant_init_ref(k);
    fv_int8_init_ref(k);
#if defined(__x86_64__)
    if (cpu & FV_CPU_AVX2) {
        fv_gemm_init_avx2(k);
        fv_dwconv_init_avx2(k);
        fv_attn_init_avx2(k);
        fv_rows_init_avx2(k);
        fv_resize_init_avx2(k);
        fv_quant_init_avx2(k);
        fv_quantize_u8_init_avx2(k);
        fv_gemm_u8_init_avx2(k);
        fv_dwconv_u8_init_avx2(k);
    }
    if (cpu & FV_CPU_AVXVNNI) {
        fv_quant_init_avxvnni(k);
        fv_gemm_u8_init_avxvnni(k);
    }
    if (cpu & FV_CPU_AVX512) {
        fv_gemm_init_avx512(k);
        fv_dwconv_init_avx512(k);
        fv_attn_init_avx512(k);
        fv_rows_init_avx512(k);
        fv_quantize_u8_init_avx512(k);
    }
    if (cpu & FV_CPU_AVX512BF16) {
        fv_gemm_init_avx512bf16(k);
        fv_attn_init_avx512bf16(k);
    }
    if (cpu & FV_CPU_AVX512VNNI) {
        fv_resize_init_avx512vnni(k);
        fv_quant_init_avx512vnni(k);
        fv_gemm_u8_init_avx512vnni(k);
        fv_dwconv_u8_init_avx512vnni(k);
    }
    if (cpu & FV_CPU_AMX) { /* uses the panels of AVX512BF16 and AVX512VNNI */
        fv_gemm_init_amx(k);
        fv_gemm_u8_init_amx(k);
        fv_quant_init_amx(k);
        fv_attn_init_amx(k);
    }
#endif
#if defined(__aarch64__)
    if (cpu & FV_CPU_NEON) {
        fv_gemm_init_neon(k);
        fv_dwconv_init_neon(k);
        fv_attn_init_neon(k);
        fv_rows_init_neon(k);
        fv_resize_init_neon(k);
        fv_quant_init_neon(k);
        fv_int8_init_neon(k);
        fv_dwconv_u8_init_neon(k);
    }
    if (cpu & FV_CPU_DOTPROD) {
        fv_resize_init_dotprod(k);
        fv_quant_init_dotprod(k);
        fv_gemm_u8_init_dotprod(k);
    }
    if (cpu & FV_CPU_BF16) {
        fv_gemm_init_bf16(k);
        fv_rows_init_bf16(k);
    }
    if (cpu & FV_CPU_I8MM) {
        fv_quant_init_i8mm(k);
        fv_gemm_u8_init_i8mm(k);
    }
#endif
    (void)cpu;
}
