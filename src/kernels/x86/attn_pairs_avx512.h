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

#include "kernels/x86/transpose_avx512.h"
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
    WIDTH = 32,
    LATER = 16 /* keys are asked for so many rows before their turn */
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
/* Rows first .. first + n - 1 of a's values, with zeros for keys up to a multiple of 32 and columns
 * up to width. */
static void values_pack(attn_elem *to, const fv_attn_args *a, size_t first, size_t n, size_t width,
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

/* Columns c .. of a row of keys or values, at most 16 of them (0 behind column d), in f32. c is a
 * multiple of 16, so that in I8 they share a scale. */
static inline vec kv_load(const void *rows, fv_type type, size_t ld, size_t row, size_t c, size_t d)
{
    const size_t left = c < d ? FV_MIN(d - c, (size_t)VEC_W) : 0;
    if (type == FV_TYPE_F16)
        return vec_from_f16_n((const uint16_t *)rows + row * ld + c, left);
    if (type == FV_TYPE_I8) {
        const int8_t *p = (const int8_t *)rows + row * ld;
        const __m128i q = _mm_maskz_loadu_epi8((__mmask16)((1u << left) - 1), p + c);
        const float scale = left ? fv_kv_scales(p, d)[c / FV_BLOCK] : 0;
        return vec_mul(vec_set(scale), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
    }
    return vec_load_n((const float *)rows + row * ld + c, left);
}

/* Asks for a row of keys or values that comes later. */
static inline void kv_ask(const void *rows, fv_type type, size_t ld, size_t row, size_t d)
{
    const size_t size = type == FV_TYPE_I8 ? 1 : fv_type_size(type);
    attn_ask((const char *)rows + row * ld * size, d, size);
}

/* Rows first .. first + n - 1 of a's keys: each a row of width / 2 pairs */
static void keys_pack(attn_elem *to, const fv_attn_args *a, size_t first, size_t n, size_t width)
{
    for (size_t j = first; j < first + n; j++, to += width / 2) {
        if (j + LATER < a->n_kv)
            kv_ask(a->k, a->kv_type, a->ldk, j + LATER, a->d);
        kv_ask(a->v, a->kv_type, a->ldv, j, a->d); /* their turn is next */
        for (size_t c = 0; c < width; c += VEC_W)
            _mm256_storeu_si256((__m256i *)(void *)(to + c / 2),
                                halves_of(kv_load(a->k, a->kv_type, a->ldk, j, c, a->d)));
    }
}

/* The lanes from v on that see key j. */
static inline __mmask16 lanes_seeing(size_t j, size_t n_visible, size_t v)
{
    const size_t blind = attn_blind(j, n_visible);
    return blind <= v ? 0xffff : blind - v < VEC_W ? (__mmask16)(0xffffu << (blind - v)) : 0;
}

/* Scores of keys first .. first + n - 1 to pairs of weights p, with zeros up to a multiple of 32
 * keys; row i sees keys below n_visible + i. */
static inline __attribute__((always_inline)) void weights_of(attn_scratch *w, attn_elem *p,
                                                             size_t ld, size_t first, size_t n,
                                                             size_t n_visible,
                                                             const bool some_blind)
{
    for (size_t v = 0; v < ld; v += VEC_W) {
        const float *s = w->s + v;
        vec before = vec_load(w->top + v), top = before;
        for (size_t j = 0; j < n; j++) /* NaN is met below */
            top = some_blind ? _mm512_mask_max_ps(top, lanes_seeing(first + j, n_visible, v),
                                                  vec_load(s + j * ld), top)
                             : vec_max(vec_load(s + j * ld), top);
        vec keep = vec_exp2(vec_sub(before, top)), sum = vec_mul(vec_load(w->sum + v), keep);
        size_t j = 0;
        for (; j < n; j += 2) {
            vec pair[2] = { vec_zero(), vec_zero() };
            for (size_t i = 0; i < 2 && j + i < n; i++) {
                pair[i] = fv_exp2_8bit_avx512(vec_sub(vec_load(s + (j + i) * ld), top));
                if (some_blind)
                    pair[i] = _mm512_maskz_mov_ps(lanes_seeing(first + j + i, n_visible, v),
                                                  pair[i]);
                sum = vec_add(sum, pair[i]);
            }
            _mm512_storeu_si512(p + j / 2 * ld + v, pairs_of(pair[0], pair[1]));
        }
        for (; j % 32; j += 2)
            _mm512_storeu_si512(p + j / 2 * ld + v, _mm512_setzero_si512());
        vec_store(w->top + v, top);
        vec_store(w->keep + v, keep);
        vec_store(w->sum + v, sum);
    }
}

static void weights_pack(attn_scratch *w, attn_elem *p, size_t ld, size_t first, size_t n,
                         size_t n_visible)
{
    if (first + n > n_visible)
        weights_of(w, p, ld, first, n, n_visible, true);
    else
        weights_of(w, p, ld, first, n, n_visible, false);
}

/* Rows first .. of a, at most GROUP of them, and the keys that they see. */
static fv_attn_args rows_of(const fv_attn_args *a, size_t first)
{
    fv_attn_args g = *a;
    g.q += first * a->ldq;
    g.n_q = FV_MIN(a->n_q - first, (size_t)GROUP);
    g.n_visible = a->causal ? a->n_visible + first : a->n_kv;
    g.n_kv = a->causal ? g.n_visible + g.n_q - 1 : a->n_kv;
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
    const size_t d = a->d, n_keys = a->causal ? a->n_visible + a->n_q - 1 : a->n_kv,
                 width = (d + WIDTH - 1) / WIDTH * WIDTH, n_groups = (a->n_q + GROUP - 1) / GROUP,
                 block = FV_MIN((size_t)PANEL / width * 2 / 32 * 32, (size_t)BLOCK);

    for (size_t g = 0; g < n_groups; g++) {
        const fv_attn_args rows = rows_of(a, g * GROUP);
        attn_begin(&w->group[g], &rows, lanes_of(&rows));
        queries_pack(w->q[g], &w->group[g], lanes_of(&rows), d, width);
    }
    for (size_t j = 0; j < n_keys; j += block) {
        keys_pack(w->keys, a, j, FV_MIN(n_keys - j, block), width);
        values_pack(w->values, a, j, FV_MIN(n_keys - j, block), width, block);
        for (size_t g = 0; g < n_groups; g++) {
            const fv_attn_args rows = rows_of(a, g * GROUP);
            if (rows.n_kv <= j)
                continue; /* it sees none of them */
            attn_scratch *f = &w->group[g];
            const size_t ld = lanes_of(&rows), n = FV_MIN(rows.n_kv - j, block);
            pairs_scores(f->s, w->keys, w->q[g], ld, n, width);
            weights_pack(f, w->p, ld, j, n, rows.n_visible);
            pairs_values(f->o, f->keep, w->values, w->p, ld, n, width, block);
        }
    }
    for (size_t g = 0; g < n_groups; g++) {
        const fv_attn_args rows = rows_of(a, g * GROUP);
        attn_end(&w->group[g], &rows, lanes_of(&rows));
    }
}

#endif
