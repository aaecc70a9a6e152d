/* Attention for at most 8 query rows, AVX-512: the query heads that share keys and values when one
 * position is decoded.
 *
 * Scores and weights are those of attn_body.h in half the lanes, at twice the rate. The values are
 * different: lanes are columns of the value rows, which are widened in registers on their way, each
 * for all query rows; o is [row][d]. The operations on an element, and so its bits, are the
 * same. */
#include "kernels/x86/transpose_avx2.h"
#include "kernels/x86/vec_avx512vl.h"
#include "kernels/x86/vmath_avx512.h"

#include "kernels/x86/attn_body.h"

static inline __m512 load_16(const void *p, fv_type type, size_t i, __mmask16 mask)
{
    if (type == FV_TYPE_F16)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)p + i));
    return _mm512_maskz_loadu_ps(mask, (const float *)p + i);
}

/* o[row][c] = o keep + sum_j s[j][row] v[j][c] for 32 columns from c; whole: all of them exist */
static inline __attribute__((always_inline)) void values_32(attn_scratch *w, const fv_attn_args *a,
                                                            size_t first, size_t n, const float *s,
                                                            size_t c, fv_type type,
                                                            const unsigned n_row, const bool whole)
{
    const size_t d = a->d, left = d - c;
    const __mmask16 m0 = whole || left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    const __mmask16 m1 = whole || left >= 32 ? 0xffff
                         : left > 16         ? (__mmask16)((1u << (left - 16)) - 1)
                                             : 0;
    __m512 acc[8][2];
    UNROLL
    for (unsigned r = 0; r < n_row; r++) {
        __m512 keep = _mm512_set1_ps(w->keep[r]);
        acc[r][0] = _mm512_mul_ps(_mm512_maskz_loadu_ps(m0, w->o + r * d + c), keep);
        acc[r][1] = _mm512_mul_ps(_mm512_maskz_loadu_ps(m1, w->o + r * d + c + 16), keep);
    }
    for (size_t j = 0; j < n; j++) {
        size_t at = (first + j) * a->ldv + c;
        __m512 v0 = load_16(a->v, type, at, m0), v1 = load_16(a->v, type, at + 16, m1);
        UNROLL
        for (unsigned r = 0; r < n_row; r++) {
            __m512 p = _mm512_set1_ps(s[j * 8 + r]);
            acc[r][0] = _mm512_fmadd_ps(p, v0, acc[r][0]);
            acc[r][1] = _mm512_fmadd_ps(p, v1, acc[r][1]);
        }
    }
    UNROLL
    for (unsigned r = 0; r < n_row; r++) {
        _mm512_mask_storeu_ps(w->o + r * d + c, m0, acc[r][0]);
        _mm512_mask_storeu_ps(w->o + r * d + c + 16, m1, acc[r][1]);
    }
}

#define VALUES(n_row)                                                                          \
    static void values_##n_row(attn_scratch *w, const fv_attn_args *a, size_t first, size_t n, \
                               const float *s)                                                 \
    {                                                                                          \
        size_t c = 0;                                                                          \
        if (a->kv_type == FV_TYPE_F16)                                                         \
            for (; c + 32 <= a->d; c += 32)                                                    \
                values_32(w, a, first, n, s, c, FV_TYPE_F16, n_row, true);                     \
        else                                                                                   \
            for (; c + 32 <= a->d; c += 32)                                                    \
                values_32(w, a, first, n, s, c, FV_TYPE_F32, n_row, true);                     \
        if (c < a->d)                                                                          \
            values_32(w, a, first, n, s, c, a->kv_type, n_row, false);                         \
    }
VALUES(1)
VALUES(2)
VALUES(3)
VALUES(4)
VALUES(5)
VALUES(6)
VALUES(7)
VALUES(8)

fv_attn_fn fv_attn8_avx512;
void fv_attn8_avx512(const fv_attn_args *a)
{
    typedef void values_fn(attn_scratch * w, const fv_attn_args *a, size_t first, size_t n,
                           const float *s);
    static values_fn *const values[9] = { NULL,     values_1, values_2, values_3, values_4,
                                          values_5, values_6, values_7, values_8 };
    attn_scratch *w = a->scratch;
    const size_t d = a->d, n_keys = a->causal ? a->n_visible + a->n_q - 1 : a->n_kv;
    const size_t step = FV_MIN((size_t)ATTN_PANEL / d, (size_t)ATTN_KEYS);

    attn_begin(w, a, 8);
    for (size_t j = 0; j < n_keys; j += ATTN_KEYS) {
        size_t n = FV_MIN(n_keys - j, (size_t)ATTN_KEYS);
        for (size_t p = 0; p < n; p += step) {
            size_t m = FV_MIN(n - p, step);
            attn_widen(w->panel, a->k, a->kv_type, j + p, m, a->ldk, d);
            attn_scores(w->s + p * 8, w->panel, d, w->q, 8, m, d);
        }
        attn_weights(w, 8, j, n, a->causal ? a->n_visible : n_keys);
        if (a->kv_type != FV_TYPE_I8) {
            values[a->n_q](w, a, j, n, w->s);
            continue;
        }
        fv_attn_args wide = *a; /* values of 8 bits are widened first */
        wide.v = w->panel;
        wide.ldv = d;
        wide.kv_type = FV_TYPE_F32;
        for (size_t p = 0; p < n; p += step) {
            attn_widen(w->panel, a->v, FV_TYPE_I8, j + p, FV_MIN(n - p, step), a->ldv, d);
            values[a->n_q](w, &wide, 0, FV_MIN(n - p, step), w->s + p * 8);
            for (size_t r = 0; r < 8; r++)
                w->keep[r] = 1;
        }
    }
    for (size_t i = 0; i < a->n_q; i++) {
        __m512 sum = _mm512_set1_ps(w->sum[i]);
        for (size_t c = 0; c < d; c += 16) {
            __mmask16 mask = d - c >= 16 ? 0xffff : (__mmask16)((1u << (d - c)) - 1);
            __m512 y = _mm512_div_ps(_mm512_maskz_loadu_ps(mask, w->o + i * d + c), sum);
            fv_store_avx512(a->out, a->out_type, i * a->ldo + c, mask, y);
        }
    }
}
