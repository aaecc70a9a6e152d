/* Which versions of the kernels a processor gets: portable first, then upward. A version is
 * an init function at the end of its file; it overrides the slots that its file has. */
#include "base/base.h"
#include "kernels/kernels.h"

typedef void init_fn(fv_kernels *k);

init_fn fv_gemm_init_ref, fv_dwconv_init_ref, fv_attn_init_ref, fv_rows_init_ref, fv_resize_init_ref;
#if defined(__x86_64__)
init_fn fv_dwconv_init_avx2, fv_attn_init_avx2, fv_rows_init_avx2;
init_fn fv_dwconv_init_avx512, fv_attn_init_avx512, fv_rows_init_avx512;
#endif

void fv_kernels_init(fv_kernels *k, unsigned cpu)
{
    *k = (fv_kernels){ 0 };
    fv_gemm_init_ref(k);
    fv_dwconv_init_ref(k);
    fv_attn_init_ref(k);
    fv_rows_init_ref(k);
    fv_resize_init_ref(k);
    (void)cpu;
#if defined(__x86_64__)
    if (cpu & FV_CPU_AVX2) {
        fv_dwconv_init_avx2(k);
        fv_attn_init_avx2(k);
        fv_rows_init_avx2(k);
    }
    if (cpu & FV_CPU_AVX512) {
        fv_dwconv_init_avx512(k);
        fv_attn_init_avx512(k);
        fv_rows_init_avx512(k);
    }
#endif
}
