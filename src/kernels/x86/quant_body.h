/* Weights in blocks of 8 or 4 bits with 256-bit vectors, for files that define
 *
 *    QUANT_ISA(name)               the name with the instruction set behind it
 *    MR                            rows of a tile
 *    dot8(part, w, q)              part + sums of four products of 32 signed weights; part optional
 *    dot4(part4, w, v, q, r)       part4 + sums of four products w q and four v r, w and v below 16
 *    PANEL_Q8_BYTES                of 8 columns' block of k in a panel of 8 bits, without scales
 *    panel_put(dst, type, i, w)    puts word i of k of 8 columns, signed bytes, into such a block
 *
 * and, behind it, tiles, which only they understand the panels of. */
#ifndef FV_QUANT_BODY_H
#define FV_QUANT_BODY_H

#include <string.h>

#include "kernels/blocks.h"
#include "kernels/x86/gemm_epilogue_avx2.h"

enum {
    NR = 16,
    PIECE = 16, /* blocks of k for which a panel's piece (9 or 17 KiB) stays in L1 */
    SPAN = 8,   /* panels that use a piece of A while it is in L2 */
    ROWS = 120 / MR * MR
};

static __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

static size_t block_bytes(fv_type type)
{
    return type == FV_TYPE_Q8_0 ? FV_Q8_BLOCK_BYTES : FV_Q4_BLOCK_BYTES;
}

static float block_scale(const char *block)
{
    uint16_t half;
    memcpy(&half, block, 2);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

/* ---- matrix times vector ----------------------------------------------------------------- */

enum {
    /* Rows of activations that share a row of weights: two sums of each are half of the registers.
     * The weights of the second four come from L1. */
    SHARED_ROWS = 4,
    AHEAD = 4096 /* bytes that are asked for before they are needed: past the end of a page */
};

static inline __m128i load16(const void *p) { return _mm_loadu_si128((const __m128i *)p); }

static float add_sums(__m256 first, __m256 second)
{
    const __m256 t = _mm256_add_ps(first, second);
    const __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    const __m128 v = _mm_add_ps(u, _mm_movehl_ps(u, u));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

/* The scales of four blocks: each load has one where it is wanted. */
static inline __m128 four_scales(const char *at, const size_t step)
{
    __m128i half = load16(at);
    half = _mm_blend_epi16(half, load16(at + step - 2), 2);
    half = _mm_blend_epi16(half, load16(at + 2 * step - 4), 4);
    half = _mm_blend_epi16(half, load16(at + 3 * step - 6), 8);
    return _mm_cvtph_ps(half);
}

/* Lane i or, below, lanes i and i + 1 of four. */
static inline __m256 one_scale(__m128 scale, int i)
{
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(scale), _mm256_set1_epi32(i));
}

static inline __m256 two_scales(__m128 scale, int i)
{
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(scale),
                                    _mm256_setr_epi32(i, i, i, i, i + 1, i + 1, i + 1, i + 1));
}

/* A row of quantised activations, from some blocks on. */
typedef struct quantised {
    const char *q, *part, *d; /* of 4 bits: q4 and part4 */
} quantised;

/* The first of m rows' s[block % 2][row] += products of four blocks of weights: of each block eight
 * sums of four. Rows lie x_step bytes apart; m is a constant in every use. */
static inline __attribute__((always_inline)) void add_q8(__m256 s[2][SHARED_ROWS], const char *at,
                                                         quantised x, size_t x_step, const size_t m)
{
    const __m128 scale = four_scales(at, FV_Q8_BLOCK_BYTES);
    __m128 both[SHARED_ROWS];
    UNROLL for (size_t i = 0; i < m; i++)
        both[i] = _mm_mul_ps(scale, _mm_loadu_ps((const float *)(const void *)(x.d + i * x_step)));
    UNROLL for (int h = 0; h < 4; h++)
    {
        const __m256i w = load32(at + h * FV_Q8_BLOCK_BYTES + 2);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            const __m256i products = dot8(load32(x.part + i * x_step + 32 * h), w,
                                          load32(x.q + i * x_step + 32 * h));
            s[h % 2][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), one_scale(both[i], h),
                                          s[h % 2][i]);
        }
    }
}

/* The same of 4 bits: s[block / 2 % 2][row], of each of two blocks four sums of eight. */
static inline __attribute__((always_inline)) void add_q4(__m256 s[2][SHARED_ROWS], const char *at,
                                                         quantised x, size_t x_step, const size_t m)
{
    const __m256i low = _mm256_set1_epi8(15);
    const __m128 scale = four_scales(at, FV_Q4_BLOCK_BYTES);
    __m128 both[SHARED_ROWS];
    UNROLL for (size_t i = 0; i < m; i++)
        both[i] = _mm_mul_ps(scale, _mm_loadu_ps((const float *)(const void *)(x.d + i * x_step)));
    UNROLL for (int h = 0; h < 2; h++, at += 2 * FV_Q4_BLOCK_BYTES)
    {
        const __m256i pairs = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(at + 2)),
                                                      load16(at + FV_Q4_BLOCK_BYTES + 2), 1);
        const __m256i first = _mm256_and_si256(pairs, low),
                      second = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), low);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            const char *q = x.q + i * x_step + 32 * h;
            const __m256i products = dot4(load32(x.part + i * x_step + 32 * h), first, second,
                                          load32(q), load32(q + 64));
            s[h][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), two_scales(both[i], 2 * h),
                                      s[h][i]);
        }
    }
}

/* One row of weights times m rows. */
static inline __attribute__((always_inline)) void dot_rows(float *y, size_t ldy, const char *at,
                                                           fv_type type, bool ahead, const char *x,
                                                           size_t x_step, const float *bias,
                                                           const size_t m, size_t nb)
{
    const bool bits8 = type == FV_TYPE_Q8_0;
    const size_t step = 4 * block_bytes(type);
    quantised row = { x + (bits8 ? 0 : FV_QROW_Q4 * fv_qrow_blocks(nb)),
                      (const char *)(bits8 ? fv_qrow_part(x, nb) : fv_qrow_part4(x, nb)),
                      (const char *)fv_qrow_d(x, nb) };
    char last[4 * FV_Q8_BLOCK_BYTES];
    __m256 s[2][SHARED_ROWS];
    UNROLL for (size_t i = 0; i < m; i++) s[0][i] = s[1][i] = _mm256_setzero_ps();
    for (size_t b = 0; b < nb; b += 4, at += step) {
        if (b + 4 > nb) {
            memset(last, 0, step);
            at = memcpy(last, at, (nb - b) * block_bytes(type));
        } else if (ahead) {
            _mm_prefetch(at + AHEAD, _MM_HINT_T0);
            if (bits8) /* a step takes 136 bytes */
                _mm_prefetch(at + AHEAD + 64, _MM_HINT_T0);
        }
        if (bits8)
            add_q8(s, at, row, x_step, m);
        else
            add_q4(s, at, row, x_step, m);
        row.q += 128, row.part += bits8 ? 128 : 64, row.d += 16;
    }
    UNROLL for (size_t i = 0; i < m; i++)
    {
        const float sum = add_sums(s[0][i], s[1][i]);
        y[i * ldy] = bias ? sum + *bias : sum;
    }
}

#define DOT_ROWS_CASE(count) \
    case count: dot_rows(to, ldy, at, type, ahead, from, x_step, add, count, nb); break;

static inline __attribute__((always_inline)) void gemv_rows(float *y, size_t ldy, const void *w,
                                                            fv_type type, bool ahead, const void *x,
                                                            const float *bias, const size_t m,
                                                            size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, x_step = fv_quantized_row_bytes(k);
    const char *at = w;
    for (size_t j = 0; j < n; j++, at += nb * block_bytes(type)) {
        const float *add = bias ? bias + j : NULL;
        for (size_t i = 0; i < m; i += SHARED_ROWS) {
            const char *from = (const char *)x + i * x_step;
            float *to = y + i * ldy + j;
            switch (FV_MIN(m - i, (size_t)SHARED_ROWS)) {
                DOT_ROWS_CASE(1)
                DOT_ROWS_CASE(2)
                DOT_ROWS_CASE(3)
                DOT_ROWS_CASE(4)
            }
        }
    }
}

#define GEMV(name, type, ahead)                                                            \
    static void QUANT_ISA(name)(float *y, const void *w, const void *x, const float *bias, \
                                size_t n, size_t k)                                        \
    {                                                                                      \
        gemv_rows(y, 0, w, type, ahead, x, bias, 1, n, k);                                 \
    }
GEMV(gemv_q8, FV_TYPE_Q8_0, false)
GEMV(gemv_q8_ahead, FV_TYPE_Q8_0, true)
GEMV(gemv_q4, FV_TYPE_Q4_0, true)

#define GEMV_ROWS(name, type)                                                       \
    static void QUANT_ISA(name)(float *y, size_t ldy, const void *w, const void *x, \
                                const float *bias, size_t m, size_t n, size_t k)    \
    {                                                                               \
        gemv_rows(y, ldy, w, type, true, x, bias, m, n, k);                         \
    }
GEMV_ROWS(gemv_rows_q8, FV_TYPE_Q8_0)
GEMV_ROWS(gemv_rows_q4, FV_TYPE_Q4_0)

/* ---- matrix times matrix ----------------------------------------------------------------- */

/* Panels are 16 columns wide: for each block of k that of the first 8, of the others, and the
 * scales. */
static inline size_t half_bytes(fv_type type)
{
    return type == FV_TYPE_Q8_0 ? PANEL_Q8_BYTES : 8 * FV_BLOCK;
}

static inline size_t panel_bytes(fv_type type) { return 2 * half_bytes(type) + NR * sizeof(float); }

/* out [rows, NR] (+)= over n blocks of k. a, d, much: the first row's values, scales, and what a
 * block's sums are too much when weights are read as q + 128. */
typedef void tile_fn(const int8_t *a, const float *d, const int32_t *much, size_t a_ld,
                     const uint8_t *b, size_t n, float *out, size_t out_ld, bool more);

static inline const void *row_at(const void *p, size_t i, size_t ld)
{
    return (const char *)p + i * ld;
}

static inline __m256i word_at(const void *p, size_t i, size_t ld)
{
    int32_t word;
    memcpy(&word, row_at(p, i, ld), 4);
    return _mm256_set1_epi32(word);
}

static inline void add_block(float *to, __m256i sum, const uint8_t *w, __m256 x)
{
    const __m256 scale = _mm256_mul_ps(_mm256_load_ps((const float *)(const void *)w), x);
    _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_load_ps(to)));
}

static void gemm(const fv_gemm_args *g, fv_type type, tile_fn *const *tile)
{
    const size_t nb = g->k / FV_BLOCK, span = SPAN * NR;
    float sums[ROWS * SPAN * NR] __attribute__((aligned(64)));
    for (size_t i0 = 0; i0 < g->m; i0 += ROWS) {
        const size_t i1 = FV_MIN(g->m, i0 + ROWS);
        for (size_t j0 = 0; j0 < g->n; j0 += span) {
            const size_t j1 = FV_MIN(g->n, j0 + span);
            for (size_t b = 0; b < nb; b += PIECE) {
                const size_t n = FV_MIN((size_t)PIECE, nb - b);
                for (size_t j = j0; j < j1; j += NR) {
                    const uint8_t *panel = (const uint8_t *)g->b +
                                           (j / NR * nb + b) * panel_bytes(type);
                    for (size_t i = i0; i < i1; i += MR) {
                        const size_t rows = FV_MIN((size_t)MR, i1 - i);
                        const char *a = (const char *)g->a + i * g->lda;
                        float *sum = sums + (i - i0) * span + (j - j0);
                        tile[rows](fv_qrow_q(a) + b * FV_BLOCK, fv_qrow_d(a, nb) + b,
                                   fv_qrow_sum(a, nb) + b, g->lda, panel, n, sum, span, b > 0);
                        if (b + n == nb)
                            epilogue(g, i, rows, j, FV_MIN((size_t)NR, g->n - j), sum, span);
                    }
                }
            }
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------- */

/* A block of 8 columns whose rows begin at w. */
static inline __attribute__((always_inline)) void pack_block(uint8_t *dst, float *scale,
                                                             const char *w, fv_type type,
                                                             size_t row_bytes, size_t rows)
{
    __m256i r[8];
    for (size_t i = 0; i < 8; i++) {
        const char *block = w + i * row_bytes;
        r[i] = _mm256_setzero_si256();
        scale[i] = i < rows ? block_scale(block) : 0;
        if (i >= rows)
            continue;
        if (type == FV_TYPE_Q8_0) {
            r[i] = load32(block + 2);
        } else {
            const __m128i pairs = _mm_loadu_si128((const __m128i *)(const void *)(block + 2)),
                          low = _mm_set1_epi8(15);
            const __m128i upper = _mm_and_si128(_mm_srli_epi16(pairs, 4), low);
            r[i] = _mm256_sub_epi8(_mm256_set_m128i(upper, _mm_and_si128(pairs, low)),
                                   _mm256_set1_epi8(8));
        }
    }
    transpose(r);
    UNROLL for (size_t i = 0; i < 8; i++) panel_put(dst, type, i, r[i]);
}

static inline __attribute__((always_inline)) void pack(void *dst, const void *w, fv_type type,
                                                       size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, row_bytes = nb * block_bytes(type);
    for (size_t j = 0; j < n; j += NR) {
        for (size_t h = 0; h < NR; h += 8) {
            const size_t rows = j + h < n ? FV_MIN((size_t)8, n - j - h) : 0;
            const char *row = (const char *)w + (rows ? j + h : 0) * row_bytes;
            for (size_t b = 0; b < nb; b++) {
                uint8_t *to = (uint8_t *)dst + (j / NR * nb + b) * panel_bytes(type);
                pack_block(to + h / 8 * half_bytes(type),
                           (float *)(void *)(to + 2 * half_bytes(type)) + h,
                           row + b * block_bytes(type), type, row_bytes, rows);
            }
        }
    }
}

static void QUANT_ISA(pack_q8)(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, FV_TYPE_Q8_0, n, k);
}

static void QUANT_ISA(pack_q4)(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, FV_TYPE_Q4_0, n, k);
}

static void fill_slots(fv_kernels *k, fv_gemm_fn *run_q8, fv_gemm_fn *run_q4)
{
    k->gemv_q[FV_TYPE_Q8_0] = QUANT_ISA(gemv_q8);
    k->gemv_q[FV_TYPE_Q4_0] = QUANT_ISA(gemv_q4);
    k->gemv_q8_ahead = QUANT_ISA(gemv_q8_ahead);
    k->gemv_q_rows[FV_TYPE_Q8_0] = QUANT_ISA(gemv_rows_q8);
    k->gemv_q_rows[FV_TYPE_Q4_0] = QUANT_ISA(gemv_rows_q4);
    k->gemm_q = (fv_gemm_q_kernel){
        .mr = MR,
        .nr = NR,
        .halves = PANEL_Q8_BYTES > 8 * FV_BLOCK,
        .run = { [FV_TYPE_Q8_0] = run_q8, [FV_TYPE_Q4_0] = run_q4 },
        .pack = { [FV_TYPE_Q8_0] = QUANT_ISA(pack_q8), [FV_TYPE_Q4_0] = QUANT_ISA(pack_q4) }
    };
}

#endif
