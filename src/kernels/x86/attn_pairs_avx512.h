/* Attention whose products have operands in bf16, for AVX-512; who includes it says how the
 * products are made: pairs_scores, values_pack, pairs_values.
 *
 * Lanes are query rows, as in attn_body.h, and products add pairs:
 *
 *     scores  s[j][row]  = sum over pairs of c of k[j][c c+1] q[c c+1][row]
 *     values  o[c][row]  = o keep + sum over pairs of j of v[j j+1][c] p[j j+1][row]
 *
 * Maxima, weights and their sums are in f32; the weights are rounded for the second product only.
 * Rounding is to the nearest, ties to even; subnormal operands count as zero.
 *
 * Query rows go in groups of two vectors, whose sums of 8 keys, or of 8 columns, stay in registers;
 * a block of keys is packed once for all groups. The width d is filled up with zeros to a multiple
 * of WIDTH. */
#ifndef FV_ATTN_PAIRS_AVX512_H
#define FV_ATTN_PAIRS_AVX512_H

#include "kernels/x86/vec_avx512.h"

#define ATTN_PAIRS
typedef uint32_t attn_elem; /* two bf16, the first in the low half */
static inline vec attn_set(attn_elem x) { return _mm512_castsi512_ps(_mm512_set1_epi32((int)x)); }
static inline vec attn_load(const attn_elem *p)
{
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
}
static inline vec attn_mac(vec a, vec b, vec c)
{
#if defined(__AVX512BF16__)
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
#else /* the model of AMX's instructions, which does without */
    (void)a, (void)b;
#endif
    return c;
}
#include "kernels/x86/attn_body.h"

enum {
    GROUP = 2 * VEC_W,
    GROUPS = FV_ATTN_MAX_Q / GROUP,
    BLOCK = 128,  /* keys; fewer, but a multiple of 32, where PANEL is too small */
    PANEL = 4096, /* pairs */
    WIDTH = 32
};

typedef struct pairs_scratch {
    attn_scratch group[GROUPS];
    attn_elem q[GROUPS][FV_ATTN_MAX_D / 2 * GROUP]; /* [c / 2][row] */
    attn_elem p[BLOCK / 2 * GROUP];                 /* [key / 2][row] */
    attn_elem keys[PANEL], values[PANEL];           /* [key][c / 2]; as values_pack has it */
} pairs_scratch;
_Static_assert(sizeof(pairs_scratch) <= (size_t)1 << 19, "fv_attn_scratch_bytes");
_Static_assert(BLOCK *GROUP <= ATTN_KEYS * FV_ATTN_MAX_Q, "room for scores");

/* s [key][row], n keys. Keys that fill up a multiple of 32 may be written, too. */
static void pairs_scores(float *s, const attn_elem *keys, const attn_elem *q, size_t ld, size_t n,
                         size_t width);
/* n values of d columns, with zeros for keys up to a multiple of 32 and columns up to width. */
static void values_pack(attn_elem *to, const float *v, size_t ldv, size_t n, size_t d, size_t width,
                        size_t block);
/* o [c][row], with p zero for keys up to a multiple of 32 */
static void pairs_values(float *o, const float *keep, const attn_elem *values, const attn_elem *p,
                         size_t ld, size_t n, size_t width, size_t block);

/* As vcvtneps2bf16 rounds, in the low halves of words. */
static inline __m512i rounded(vec x)
{
    const __m512i bits = _mm512_castps_si512(x),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1)),
                  up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                    small = _mm512_cmplt_epu32_mask(_mm512_slli_epi32(bits, 1),
                                                    _mm512_set1_epi32(0x01000000));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000)),
                  zero = _mm512_and_si512(bits, _mm512_set1_epi32((int)0x80000000));
    return _mm512_srli_epi32(
        _mm512_mask_mov_epi32(_mm512_mask_mov_epi32(up, nan, quiet), small, zero), 16);
}

/* Lane by lane: a in the low half, b in the high half. */
static inline __m512i pairs_of(vec a, vec b)
{
#if defined(__AVX512BF16__)
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9,
                                           24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
                                           16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    return _mm512_or_si512(rounded(a), _mm512_slli_epi32(rounded(b), 16));
#endif
}

/* 16 of keys' values as 16 bf16 that follow each other */
static inline __m256i halves_of(vec x)
{
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    return _mm512_cvtepi32_epi16(rounded(x));
#endif
}

/* n keys of d values: each a row of width / 2 pairs */
static void keys_pack(attn_elem *to, const float *k, size_t ldk, size_t n, size_t d, size_t width)
{
    for (size_t j = 0; j < n; j++, k += ldk, to += width / 2)
        for (size_t c = 0; c < width; c += VEC_W) {
            const size_t left = c < d ? FV_MIN(d - c, (size_t)VEC_W) : 0;
            _mm256_storeu_si256((__m256i *)(void *)(to + c / 2),
                                halves_of(vec_load_n(k + c, left)));
        }
}

/* Scores of n keys to pairs of weights p, with zeros up to a multiple of 32 keys. */
static void weights_pack(attn_scratch *w, attn_elem *p, size_t ld, size_t n)
{
    for (size_t v = 0; v < ld; v += VEC_W) {
        const float *s = w->s + v;
        vec before = vec_load(w->top + v), top = before;
        for (size_t j = 0; j < n; j++)
            top = vec_max(vec_load(s + j * ld), top); /* NaN is met below */
        vec keep = vec_exp2(vec_sub(before, top)), sum = vec_mul(vec_load(w->sum + v), keep);
        size_t j = 0;
        for (; j < n; j += 2) {
            const vec first = fv_exp2_8bit_avx512(vec_sub(vec_load(s + j * ld), top));
            vec second = vec_zero();
            sum = vec_add(sum, first);
            if (j + 1 < n) {
                second = fv_exp2_8bit_avx512(vec_sub(vec_load(s + (j + 1) * ld), top));
                sum = vec_add(sum, second);
            }
            _mm512_storeu_si512(p + j / 2 * ld + v, pairs_of(first, second));
        }
        for (; j % 32; j += 2)
            _mm512_storeu_si512(p + j / 2 * ld + v, _mm512_setzero_si512());
        vec_store(w->top + v, top);
        vec_store(w->keep + v, keep);
        vec_store(w->sum + v, sum);
    }
}

/* Rows first .. of a, at most GROUP of them. */
static fv_attn_args rows_of(const fv_attn_args *a, size_t first)
{
    fv_attn_args g = *a;
    g.q += first * a->ldq;
    g.n_q = FV_MIN(a->n_q - first, (size_t)GROUP);
    g.out = (char *)a->out + first * a->ldo * fv_type_size(a->out_type);
    return g;
}

static size_t lanes_of(const fv_attn_args *g) { return (g->n_q + VEC_W - 1) / VEC_W * VEC_W; }

static void queries_pack(attn_elem *q, const attn_scratch *w, size_t ld, size_t d, size_t width)
{
    for (size_t c = 0; c < width; c += 2)
        for (size_t i = 0; i < ld; i += VEC_W)
            _mm512_storeu_si512(
                q + c / 2 * ld + i,
                c < d ? pairs_of(vec_load(w->q + c * ld + i), vec_load(w->q + (c + 1) * ld + i))
                      : _mm512_setzero_si512());
}

static void pairs_run(const fv_attn_args *a)
{
    pairs_scratch *w = a->scratch;
    const float *k = a->k, *v = a->v;
    const size_t d = a->d, width = (d + WIDTH - 1) / WIDTH * WIDTH,
                 n_groups = (a->n_q + GROUP - 1) / GROUP,
                 block = FV_MIN((size_t)PANEL / width * 2 / 32 * 32, (size_t)BLOCK);

    for (size_t g = 0; g < n_groups; g++) {
        const fv_attn_args rows = rows_of(a, g * GROUP);
        attn_begin(&w->group[g], &rows, lanes_of(&rows));
        queries_pack(w->q[g], &w->group[g], lanes_of(&rows), d, width);
    }
    for (size_t j = 0; j < a->n_kv; j += block) {
        const size_t n = FV_MIN(a->n_kv - j, block);
        keys_pack(w->keys, k + j * a->ldk, a->ldk, n, d, width);
        values_pack(w->values, v + j * a->ldv, a->ldv, n, d, width, block);
        for (size_t g = 0; g < n_groups; g++) {
            const fv_attn_args rows = rows_of(a, g * GROUP);
            attn_scratch *f = &w->group[g];
            const size_t ld = lanes_of(&rows);
            pairs_scores(f->s, w->keys, w->q[g], ld, n, width);
            weights_pack(f, w->p, ld, n);
            pairs_values(f->o, f->keep, w->values, w->p, ld, n, width, block);
        }
    }
    for (size_t g = 0; g < n_groups; g++) {
        const fv_attn_args rows = rows_of(a, g * GROUP);
        attn_end(&w->group[g], &rows, lanes_of(&rows));
    }
}

#endif
