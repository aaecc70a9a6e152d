/* Attention, AVX-512. */
#include "kernels/x86/transpose_avx512.h"
#include "kernels/x86/vec_avx512.h"

#include "kernels/x86/attn_body.h"

fv_attn_fn fv_attn8_avx512; /* attn8_avx512.c */

static void attn__avx512(const fv_attn_args *a)
{
    if (a->n_q <= 8)
        fv_attn8_avx512(a);
    else
        attn_run(a);
}

void fv_attn_init_avx512(fv_kernels *k);
void fv_attn_init_avx512(fv_kernels *k) { k->attn = attn__avx512; }
