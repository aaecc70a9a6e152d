/* Depthwise convolution, AVX-512. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/x86/dwconv_body.h"

void fv_dwconv_init_avx512(fv_kernels *k);
void fv_dwconv_init_avx512(fv_kernels *k) { k->dwconv = VEC_ISA(dwconv); }
