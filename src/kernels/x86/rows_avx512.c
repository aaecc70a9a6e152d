/* Norms, rotary positions, conversions and elementwise operations, AVX-512. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/x86/rows_body.h"

void fv_rows_init_avx512(fv_kernels *k);
void fv_rows_init_avx512(fv_kernels *k) { rows_init(k); }
