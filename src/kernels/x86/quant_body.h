/* Weights in blocks of 8 or 4 bits with 256-bit vectors, for files that define
 *
 *    QUANT_ISA(name)               the name with the instruction set behind it
 *    MR, TILES                     rows of a tile; its functions, tile_1 ... tile_MR
 *    dot8(part, w, q)              part + sums of four products of 32 signed weights; part optional
 *    dot4(part4, w, v, q, r)       part4 + sums of four products w q and four v r, w and v below 16
 *    add_products                  of a panel's 8 x 4 bytes and a broadcast word of A
 *    PANEL_FLIP                    what the panels' signed bytes are xored with */
#ifndef FV_QUANT_BODY_H
#define FV_QUANT_BODY_H

#include <string.h>

#include "kernels/blocks.h"
#include "kernels/x86/gemm_epilogue_avx2.h"
#include "kernels/x86/repeat_rows.h"

enum {
    NR = 16,
    BLOCK_BYTES = NR * FV_PACKED_Q_BLOCK_BYTES,
    PIECE = 16, /* blocks of k for which a panel's piece (9 KiB) stays in L1 */
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

static float add_sums(__m256 first, __m256 second)
{
    const __m256 t = _mm256_add_ps(first, second);
    const __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    const __m128 v = _mm_add_ps(u, _mm_movehl_ps(u, u));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

/* sum += the block's products, in 8 sums of four. */
static inline __m256 add_q8(__m256 sum, const char *w, const int8_t *q, const int32_t *part,
                            float d)
{
    const __m256i products = dot8(load32(part), load32(w + 2), load32(q));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_set1_ps(block_scale(w) * d), sum);
}

static void QUANT_ISA(gemv_q8)(float *y, const void *w, const void *x, const float *bias, size_t n,
                               size_t k)
{
    const size_t nb = k / FV_BLOCK, step = FV_Q8_BLOCK_BYTES;
    const float *d = fv_qrow_d(x, nb);
    const char *at = w;
    for (size_t j = 0; j < n; j++) {
        const int8_t *q = fv_qrow_q(x);
        const int32_t *part = fv_qrow_part(x, nb);
        __m256 even = _mm256_setzero_ps(), odd = even;
        size_t b = 0;
        for (; b + 2 <= nb; b += 2, at += 2 * step, q += 64, part += 16) {
            even = add_q8(even, at, q, part, d[b]);
            odd = add_q8(odd, at + step, q + 32, part + 8, d[b + 1]);
        }
        if (b < nb) {
            even = add_q8(even, at, q, part, d[b]);
            at += step;
        }
        y[j] = bias ? add_sums(even, odd) + bias[j] : add_sums(even, odd);
    }
}

/* sum += the products of two blocks, of each in 4 sums of eight. */
static inline __m256 add_q4(__m256 sum, const char *w, const int8_t *q4, const int32_t *part4,
                            const float *d)
{
    const __m128i w0 = _mm_loadu_si128((const __m128i *)(const void *)(w + 2));
    const __m128i w1 = _mm_loadu_si128((const __m128i *)(const void *)(w + FV_Q4_BLOCK_BYTES + 2));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(w0), w1, 1),
                  low = _mm256_set1_epi8(15);
    const __m256i products = dot4(load32(part4), _mm256_and_si256(both, low),
                                  _mm256_and_si256(_mm256_srli_epi16(both, 4), low), load32(q4),
                                  load32(q4 + 64));
    const __m128 scale0 = _mm_set1_ps(block_scale(w) * d[0]),
                 scale1 = _mm_set1_ps(block_scale(w + FV_Q4_BLOCK_BYTES) * d[1]);
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products),
                           _mm256_insertf128_ps(_mm256_castps128_ps256(scale0), scale1, 1), sum);
}

static void QUANT_ISA(gemv_q4)(float *y, const void *w, const void *x, const float *bias, size_t n,
                               size_t k)
{
    const size_t nb = k / FV_BLOCK, step = FV_Q4_BLOCK_BYTES;
    const float *d = fv_qrow_d(x, nb);
    const char *at = w;
    for (size_t j = 0; j < n; j++) {
        const int8_t *q4 = fv_qrow_q4(x, nb);
        const int32_t *part4 = fv_qrow_part4(x, nb);
        __m256 first = _mm256_setzero_ps(), second = first;
        size_t b = 0;
        for (; b + 4 <= nb; b += 4, at += 4 * step, q4 += 128, part4 += 16) {
            first = add_q4(first, at, q4, part4, d + b);
            second = add_q4(second, at + 2 * step, q4 + 32, part4 + 8, d + b + 2);
        }
        if (b < nb) {
            char last[4 * FV_Q4_BLOCK_BYTES] = { 0 };
            memcpy(last, at, (nb - b) * step);
            at += (nb - b) * step;
            first = add_q4(first, last, q4, part4, d + b);
            second = add_q4(second, last + 2 * step, q4 + 32, part4 + 8, d + b + 2);
        }
        y[j] = bias ? add_sums(first, second) + bias[j] : add_sums(first, second);
    }
}

/* ---- matrix times several vectors -------------------------------------------------------- */

/* Four rows a time share a row of weights: two sums of each are half of the registers. The weights
 * of the second four come from L1. */
enum { SHARED_ROWS = 4 };

/* A row of weights times m rows x, which is a constant in every use, x_step bytes apart: gemv_q8's
 * operations. */
static inline __attribute__((always_inline)) void dot_rows_q8(float *y, size_t ldy, const char *at,
                                                              const char *x, size_t x_step,
                                                              float bias, bool add, const size_t m,
                                                              size_t nb)
{
    const char *q = (const char *)fv_qrow_q(x), *part = (const char *)fv_qrow_part(x, nb),
               *d = (const char *)fv_qrow_d(x, nb);
    __m256 s[2][SHARED_ROWS];
    UNROLL for (size_t i = 0; i < m; i++) s[0][i] = s[1][i] = _mm256_setzero_ps();
    for (size_t b = 0; b < nb; b += 2) {
        UNROLL for (size_t h = 0; h < 2; h++)
        {
            if (b + h >= nb)
                continue;
            const __m256i w = load32(at + 2);
            const float scale = block_scale(at);
            UNROLL for (size_t i = 0; i < m; i++)
            {
                float x_scale;
                memcpy(&x_scale, d + i * x_step, 4);
                const __m256i products = dot8(load32(part + i * x_step), w, load32(q + i * x_step));
                s[h][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products),
                                          _mm256_set1_ps(scale * x_scale), s[h][i]);
            }
            at += FV_Q8_BLOCK_BYTES, q += FV_BLOCK, part += 32, d += 4;
        }
    }
    UNROLL for (size_t i = 0; i < m; i++) y[i * ldy] = add ? add_sums(s[0][i], s[1][i]) + bias
                                                           : add_sums(s[0][i], s[1][i]);
}

/* s[h] += the products of four blocks, two by two: gemv_q4's. */
static inline __attribute__((always_inline)) void add_rows_q4(__m256 s[2][SHARED_ROWS],
                                                              const char *at, const char *q4,
                                                              const char *part4, const char *d,
                                                              size_t x_step, const size_t m)
{
    const __m256i low = _mm256_set1_epi8(15);
    UNROLL for (size_t h = 0; h < 2; h++, at += 2 * FV_Q4_BLOCK_BYTES)
    {
        const __m128i w0 = _mm_loadu_si128((const __m128i *)(const void *)(at + 2));
        const __m128i w1 = _mm_loadu_si128(
            (const __m128i *)(const void *)(at + FV_Q4_BLOCK_BYTES + 2));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(w0), w1, 1);
        const __m256i first = _mm256_and_si256(both, low),
                      second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        const float scale0 = block_scale(at), scale1 = block_scale(at + FV_Q4_BLOCK_BYTES);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            float x_scale[2];
            const char *q = q4 + i * x_step + 32 * h;
            memcpy(x_scale, d + i * x_step + 8 * h, 8);
            const __m256i products = dot4(load32(part4 + i * x_step + 32 * h), first, second,
                                          load32(q), load32(q + 64));
            const __m256 scale = _mm256_insertf128_ps(
                _mm256_castps128_ps256(_mm_set1_ps(scale0 * x_scale[0])),
                _mm_set1_ps(scale1 * x_scale[1]), 1);
            s[h][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, s[h][i]);
        }
    }
}

static inline __attribute__((always_inline)) void dot_rows_q4(float *y, size_t ldy, const char *at,
                                                              const char *x, size_t x_step,
                                                              float bias, bool add, const size_t m,
                                                              size_t nb)
{
    const char *q4 = (const char *)fv_qrow_q4(x, nb), *part4 = (const char *)fv_qrow_part4(x, nb),
               *d = (const char *)fv_qrow_d(x, nb);
    const size_t step = FV_Q4_BLOCK_BYTES;
    __m256 s[2][SHARED_ROWS];
    UNROLL for (size_t i = 0; i < m; i++) s[0][i] = s[1][i] = _mm256_setzero_ps();
    size_t b = 0;
    for (; b + 4 <= nb; b += 4, at += 4 * step, q4 += 128, part4 += 64, d += 16)
        add_rows_q4(s, at, q4, part4, d, x_step, m);
    if (b < nb) {
        char last[4 * FV_Q4_BLOCK_BYTES] = { 0 };
        memcpy(last, at, (nb - b) * step);
        add_rows_q4(s, last, q4, part4, d, x_step, m);
    }
    UNROLL for (size_t i = 0; i < m; i++) y[i * ldy] = add ? add_sums(s[0][i], s[1][i]) + bias
                                                           : add_sums(s[0][i], s[1][i]);
}

#define DOT_ROWS_CASE(dot, count)                                      \
    case count:                                                        \
        dot(to, ldy, row, from, x_step, add, bias != NULL, count, nb); \
        break;
#define GEMV_ROWS(name, dot, block)                                                 \
    static void QUANT_ISA(name)(float *y, size_t ldy, const void *w, const void *x, \
                                const float *bias, size_t m, size_t n, size_t k)    \
    {                                                                               \
        const size_t nb = k / FV_BLOCK, x_step = fv_quantized_row_bytes(k);         \
        const char *row = w;                                                        \
        for (size_t j = 0; j < n; j++, row += nb * (block)) {                       \
            const float add = bias ? bias[j] : 0;                                   \
            for (size_t i = 0; i < m; i += SHARED_ROWS) {                           \
                const char *from = (const char *)x + i * x_step;                    \
                float *to = y + i * ldy + j;                                        \
                switch (FV_MIN(m - i, (size_t)SHARED_ROWS)) {                       \
                    DOT_ROWS_CASE(dot, 1)                                           \
                    DOT_ROWS_CASE(dot, 2)                                           \
                    DOT_ROWS_CASE(dot, 3)                                           \
                    DOT_ROWS_CASE(dot, 4)                                           \
                }                                                                   \
            }                                                                       \
        }                                                                           \
    }
GEMV_ROWS(gemv_rows_q8, dot_rows_q8, FV_Q8_BLOCK_BYTES)
GEMV_ROWS(gemv_rows_q4, dot_rows_q4, FV_Q4_BLOCK_BYTES)

/* ---- matrix times matrix ----------------------------------------------------------------- */

/* Panels as for AVX-512 (quant_avx512vnni.c), 16 columns wide: for each block [8][16][4] bytes,
 * then the scales. */
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

#define CLEAR(i)                                            \
    _mm256_store_ps(out + i * out_ld, _mm256_setzero_ps()), \
        _mm256_store_ps(out + i * out_ld + 8, _mm256_setzero_ps());
#define BEGIN(i) \
    __m256i s##i = PANEL_FLIP ? word_at(much, i, a_ld) : _mm256_setzero_si256(), t##i = s##i;
#define MULTIPLY(i)                            \
    {                                          \
        const __m256i x = word_at(a, i, a_ld); \
        add_products(&s##i, b0, x);            \
        add_products(&t##i, b1, x);            \
    }
#define END(i)                                                     \
    {                                                              \
        const __m256 x = _mm256_castsi256_ps(word_at(d, i, a_ld)); \
        add_block(out + i * out_ld, s##i, b, x);                   \
        add_block(out + i * out_ld + 8, t##i, b + 32, x);          \
    }

#define DEFINE_TILE(mr)                                                                      \
    static void tile_##mr(const int8_t *a, const float *d, const int32_t *much, size_t a_ld, \
                          const uint8_t *b, size_t n, float *out, size_t out_ld, bool more)  \
    {                                                                                        \
        if (!more) {                                                                         \
            ROWS_##mr(CLEAR)                                                                 \
        }                                                                                    \
        for (size_t q = 0; q < n; q++, d++, much++, b += 64) {                               \
            ROWS_##mr(BEGIN) for (int g = 0; g < 8; g++, a += 4, b += 64)                    \
            {                                                                                \
                const __m256i b0 = load32(b), b1 = load32(b + 32);                           \
                ROWS_##mr(MULTIPLY)                                                          \
            }                                                                                \
            ROWS_##mr(END)                                                                   \
        }                                                                                    \
        (void)much;                                                                          \
    }

TILES

static void gemm(const fv_gemm_args *g, tile_fn *const *tile)
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
                    const uint8_t *panel = (const uint8_t *)g->b + (j / NR * nb + b) * BLOCK_BYTES;
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

/* Block b of 8 columns whose rows begin at w. */
static inline __attribute__((always_inline)) void pack_block(uint8_t *dst, const char *w,
                                                             fv_type type, size_t row_bytes,
                                                             size_t rows)
{
    float scale[8] = { 0 };
    __m256i r[8];
    for (size_t i = 0; i < 8; i++) {
        const char *block = w + i * row_bytes;
        r[i] = _mm256_setzero_si256();
        if (i >= rows)
            continue;
        scale[i] = block_scale(block);
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
    UNROLL for (int i = 0; i < 8; i++)
        _mm256_store_si256((__m256i *)(void *)(dst + i * 64),
                           _mm256_xor_si256(r[i], _mm256_set1_epi8((char)PANEL_FLIP)));
    _mm256_store_ps((float *)(void *)(dst + 512), _mm256_loadu_ps(scale));
}

static inline __attribute__((always_inline)) void pack(void *dst, const void *w, fv_type type,
                                                       size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, row_bytes = nb * block_bytes(type);
    for (size_t j = 0; j < n; j += NR) {
        for (size_t h = 0; h < NR; h += 8) {
            const size_t rows = j + h < n ? FV_MIN((size_t)8, n - j - h) : 0;
            const char *row = (const char *)w + (rows ? j + h : 0) * row_bytes;
            for (size_t b = 0; b < nb; b++)
                pack_block((uint8_t *)dst + (j / NR * nb + b) * BLOCK_BYTES + h * 4,
                           row + b * block_bytes(type), type, row_bytes, rows);
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

static void fill_slots(fv_kernels *k, fv_gemm_fn *run)
{
    k->gemv_q[FV_TYPE_Q8_0] = QUANT_ISA(gemv_q8);
    k->gemv_q[FV_TYPE_Q4_0] = QUANT_ISA(gemv_q4);
    k->gemv_q_rows[FV_TYPE_Q8_0] = QUANT_ISA(gemv_rows_q8);
    k->gemv_q_rows[FV_TYPE_Q4_0] = QUANT_ISA(gemv_rows_q4);
    k->gemm_q = (fv_gemm_q_kernel){
        .mr = MR,
        .nr = NR,
        .run = { [FV_TYPE_Q8_0] = run, [FV_TYPE_Q4_0] = run },
        .pack = { [FV_TYPE_Q8_0] = QUANT_ISA(pack_q8), [FV_TYPE_Q4_0] = QUANT_ISA(pack_q4) }
    };
}

#endif
