/* Attention, AVX2. */
#include "kernels/x86/transpose_avx2.h"
#include "kernels/x86/vec_avx2.h"

#include "kernels/x86/attn_body.h"

static void attn__avx2(const fv_attn_args *a) { attn_run(a); }

void fv_attn_init_avx2(fv_kernels *k);
void fv_attn_init_avx2(fv_kernels *k) { k->attn = attn__avx2; }
