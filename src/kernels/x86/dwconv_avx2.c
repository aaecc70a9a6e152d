/* Depthwise convolution, AVX2. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/x86/dwconv_body.h"

void fv_dwconv_init_avx2(fv_kernels *k);
void fv_dwconv_init_avx2(fv_kernels *k) { k->dwconv = VEC_ISA(dwconv); }
