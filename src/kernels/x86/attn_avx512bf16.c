/* Attention with operands in bf16, AVX-512 BF16: vdpbf16ps adds two products a lane. */
#include "kernels/x86/attn_pairs_avx512.h"

static void pairs_scores(float *s, const attn_elem *keys, const attn_elem *q, size_t ld, size_t n,
                         size_t width)
{
    outer(s, OUTER_ZERO, s, keys, width / 2, 1, q, ld, width / 2, n);
}

/* [key / 2][c] */
static void values_pack(attn_elem *to, const fv_attn_args *a, size_t first, size_t n, size_t width,
                        size_t block)
{
    (void)block;
    for (size_t j = first; j < first + n; j += 2, to += width)
        for (size_t c = 0; c < a->d; c += VEC_W)
            _mm512_storeu_si512(to + c, pairs_of(kv_load(a->v, a->kv_type, a->ldv, j, c, a->d),
                                                 j + 1 < first + n ? kv_load(a->v, a->kv_type,
                                                                             a->ldv, j + 1, c, a->d)
                                                                   : vec_zero()));
}

static void pairs_values(float *o, const float *keep, const attn_elem *values, const attn_elem *p,
                         size_t ld, size_t n, size_t width, size_t block)
{
    (void)block;
    outer(o, OUTER_KEEP, keep, values, 1, width, p, ld, (n + 1) / 2, width);
}

static void attn_bf16__avx512bf16(const fv_attn_args *a) { pairs_run(a); }

void fv_attn_init_avx512bf16(fv_kernels *k);
void fv_attn_init_avx512bf16(fv_kernels *k) { k->attn_bf16 = attn_bf16__avx512bf16; }
