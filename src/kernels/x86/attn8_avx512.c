/* Attention for at most 8 query rows, AVX-512: half the lanes of attn_avx512.c, at twice the rate. */
#include "kernels/x86/vec_avx512vl.h"

#include "kernels/x86/attn_body.h"

fv_attn_fn fv_attn8_avx512;
void fv_attn8_avx512(const fv_attn_args *a) { attn_run(a); }
