/* Weights in blocks of 8 or 4 bits for Arm, for files that define
 *
 *     QUANT_ISA(name)    the name with the instruction set behind it
 *     GROUP              elements of k that lie together in a panel: 4 or 8
 *     add_block          sums[r][h] += products of rows r of A with columns 4 h .. of a block
 *     QUANT_PAIRS        in its place: products by SMMLA
 *     QUANT_DOT          and dot16(sum, a, b): lane i of sum += a[j] b[j], 4 i <= j < 4 i + 4;
 *                        without it there is no matrix-vector product
 *
 * A panel holds, for each block of k, i8 [32 / GROUP][8][GROUP], then 8 scales. */
#ifndef FV_QUANT_NEON_H
#define FV_QUANT_NEON_H

#include <string.h>

#include "kernels/arm/gemm_tile_neon.h"
#include "kernels/blocks.h"

enum { PIECE = 16 /* blocks of k */, PANEL_BLOCK = TILE_N * FV_PACKED_Q_BLOCK_BYTES };

FV_INLINE size_t block_bytes(fv_type type)
{
    return type == FV_TYPE_Q8_0 ? FV_Q8_BLOCK_BYTES : FV_Q4_BLOCK_BYTES;
}

FV_INLINE float block_scale(const char *block)
{
    uint16_t half;
    memcpy(&half, block, 2);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}

FV_INLINE int8x16_t load16(const void *p) { return vld1q_s8((const int8_t *)p); }

/* ---- matrix times vector ----------------------------------------------------------------- */

#if defined(QUANT_DOT)

/* sum += the block's products, in two times 4 sums of four. */
FV_INLINE void add_q8(float32x4_t sum[2], const char *block, const int8_t *q, float d)
{
    const float scale = block_scale(block) * d;
    const int32x4_t none = vdupq_n_s32(0);
    sum[0] = vfmaq_n_f32(sum[0], vcvtq_f32_s32(dot16(none, load16(block + 2), load16(q))), scale);
    sum[1] = vfmaq_n_f32(sum[1], vcvtq_f32_s32(dot16(none, load16(block + 18), load16(q + 16))),
                         scale);
}

/* The same of 4 bits, in 4 sums of eight. */
FV_INLINE float32x4_t add_q4(float32x4_t sum, const char *block, const int8_t *q, float d)
{
    const uint8x16_t pairs = vld1q_u8((const uint8_t *)block + 2);
    const int8x16_t eight = vdupq_n_s8(8);
    const int8x16_t first = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15))), eight);
    const int8x16_t second = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4)), eight);
    const int32x4_t products = dot16(dot16(vdupq_n_s32(0), first, load16(q)), second,
                                     load16(q + 16));
    return vfmaq_n_f32(sum, vcvtq_f32_s32(products), block_scale(block) * d);
}

FV_INLINE float add_sums(const float32x4_t s[4])
{
    const float32x4_t u = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
    const float32x2_t v = vadd_f32(vget_low_f32(u), vget_high_f32(u));
    return vget_lane_f32(v, 0) + vget_lane_f32(v, 1);
}

static void QUANT_ISA(gemv_q8)(float *y, const void *w, const void *x, const float *bias, size_t n,
                               size_t k)
{
    const size_t nb = k / FV_BLOCK, step = FV_Q8_BLOCK_BYTES;
    const float *d = fv_qrow_d(x, nb);
    const char *at = w;
    for (size_t j = 0; j < n; j++) {
        const int8_t *q = fv_qrow_q(x);
        float32x4_t s[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
        size_t b = 0;
        for (; b + 2 <= nb; b += 2, at += 2 * step, q += 2 * FV_BLOCK) {
            add_q8(s, at, q, d[b]);
            add_q8(s + 2, at + step, q + FV_BLOCK, d[b + 1]);
        }
        if (b < nb) {
            add_q8(s, at, q, d[b]);
            at += step;
        }
        y[j] = bias ? add_sums(s) + bias[j] : add_sums(s);
    }
}

static void QUANT_ISA(gemv_q4)(float *y, const void *w, const void *x, const float *bias, size_t n,
                               size_t k)
{
    const size_t nb = k / FV_BLOCK, step = FV_Q4_BLOCK_BYTES;
    const float *d = fv_qrow_d(x, nb);
    const char *at = w;
    for (size_t j = 0; j < n; j++) {
        const int8_t *q = fv_qrow_q(x);
        float32x4_t s[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
        size_t b = 0;
        for (; b + 4 <= nb; b += 4, at += 4 * step, q += 4 * FV_BLOCK) {
            FV_UNROLL
            for (size_t i = 0; i < 4; i++)
                s[i] = add_q4(s[i], at + i * step, q + i * FV_BLOCK, d[b + i]);
        }
        FV_UNROLL
        for (size_t i = 0; i < 3; i++) {
            if (b + i >= nb)
                continue;
            s[i] = add_q4(s[i], at, q + i * FV_BLOCK, d[b + i]);
            at += step;
        }
        y[j] = bias ? add_sums(s) + bias[j] : add_sums(s);
    }
}

/* ---- matrix times several vectors -------------------------------------------------------- */

/* Four rows a time share a row of weights: 16 sums of 32 registers. The weights of the second four
 * come from L1. */
enum { SHARED_ROWS = 4 };

/* A row of weights times m rows x, which is a constant in every use, x_step bytes apart: gemv_q8's
 * operations. */
FV_INLINE void dot_rows_q8(float32x4_t s[SHARED_ROWS][4], const char *at, const char *x,
                           size_t x_step, size_t m, size_t nb)
{
    const char *q = (const char *)fv_qrow_q(x), *d = (const char *)fv_qrow_d(x, nb);
    const int32x4_t none = vdupq_n_s32(0);
    for (size_t b = 0; b < nb; b += 2) {
        FV_UNROLL
        for (size_t h = 0; h < 2; h++) {
            if (b + h >= nb)
                continue;
            const int8x16_t w0 = load16(at + 2), w1 = load16(at + 18);
            const float scale = block_scale(at);
            FV_UNROLL
            for (size_t i = 0; i < m; i++) {
                float x_scale;
                memcpy(&x_scale, d + i * x_step, 4);
                const float both = scale * x_scale;
                const int32x4_t p0 = dot16(none, w0, load16(q + i * x_step)),
                                p1 = dot16(none, w1, load16(q + i * x_step + 16));
                s[i][2 * h] = vfmaq_n_f32(s[i][2 * h], vcvtq_f32_s32(p0), both);
                s[i][2 * h + 1] = vfmaq_n_f32(s[i][2 * h + 1], vcvtq_f32_s32(p1), both);
            }
            at += FV_Q8_BLOCK_BYTES, q += FV_BLOCK, d += 4;
        }
    }
}

/* gemv_q4's. */
FV_INLINE void dot_rows_q4(float32x4_t s[SHARED_ROWS][4], const char *at, const char *x,
                           size_t x_step, size_t m, size_t nb)
{
    const char *q = (const char *)fv_qrow_q(x), *d = (const char *)fv_qrow_d(x, nb);
    const int8x16_t eight = vdupq_n_s8(8);
    for (size_t b = 0; b < nb; b += 4) {
        FV_UNROLL
        for (size_t h = 0; h < 4; h++) {
            if (b + h >= nb)
                continue;
            const uint8x16_t pairs = vld1q_u8((const uint8_t *)at + 2);
            const int8x16_t first = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15))),
                                             eight);
            const int8x16_t second = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4)), eight);
            const float scale = block_scale(at);
            FV_UNROLL
            for (size_t i = 0; i < m; i++) {
                float x_scale;
                memcpy(&x_scale, d + i * x_step, 4);
                const int32x4_t products = dot16(
                    dot16(vdupq_n_s32(0), first, load16(q + i * x_step)), second,
                    load16(q + i * x_step + 16));
                s[i][h] = vfmaq_n_f32(s[i][h], vcvtq_f32_s32(products), scale * x_scale);
            }
            at += FV_Q4_BLOCK_BYTES, q += FV_BLOCK, d += 4;
        }
    }
}

FV_INLINE void dot_rows(float *y, size_t ldy, const char *at, const char *x, size_t x_step,
                        float bias, bool add, size_t m, size_t nb, fv_type type)
{
    float32x4_t s[SHARED_ROWS][4];
    FV_UNROLL
    for (size_t i = 0; i < m; i++)
        s[i][0] = s[i][1] = s[i][2] = s[i][3] = vdupq_n_f32(0);
    if (type == FV_TYPE_Q8_0)
        dot_rows_q8(s, at, x, x_step, m, nb);
    else
        dot_rows_q4(s, at, x, x_step, m, nb);
    FV_UNROLL
    for (size_t i = 0; i < m; i++)
        y[i * ldy] = add ? add_sums(s[i]) + bias : add_sums(s[i]);
}

FV_INLINE void gemv_rows(float *y, size_t ldy, const void *w, fv_type type, const void *x,
                         const float *bias, size_t m, size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, x_step = fv_quantized_row_bytes(k);
    const char *row = w;
    for (size_t j = 0; j < n; j++, row += nb * block_bytes(type)) {
        const float add = bias ? bias[j] : 0;
        for (size_t i = 0; i < m; i += SHARED_ROWS) {
            const char *from = (const char *)x + i * x_step;
            float *to = y + i * ldy + j;
            switch (m - i < SHARED_ROWS ? m - i : SHARED_ROWS) {
            case 4: dot_rows(to, ldy, row, from, x_step, add, bias != NULL, 4, nb, type); break;
            case 3: dot_rows(to, ldy, row, from, x_step, add, bias != NULL, 3, nb, type); break;
            case 2: dot_rows(to, ldy, row, from, x_step, add, bias != NULL, 2, nb, type); break;
            case 1: dot_rows(to, ldy, row, from, x_step, add, bias != NULL, 1, nb, type); break;
            }
        }
    }
}

static void QUANT_ISA(gemv_rows_q8)(float *y, size_t ldy, const void *w, const void *x,
                                    const float *bias, size_t m, size_t n, size_t k)
{
    gemv_rows(y, ldy, w, FV_TYPE_Q8_0, x, bias, m, n, k);
}

static void QUANT_ISA(gemv_rows_q4)(float *y, size_t ldy, const void *w, const void *x,
                                    const float *bias, size_t m, size_t n, size_t k)
{
    gemv_rows(y, ldy, w, FV_TYPE_Q4_0, x, bias, m, n, k);
}

#endif

/* ---- matrix times matrix ----------------------------------------------------------------- */

#if defined(QUANT_PAIRS)

/* SMMLA multiplies two rows by two columns, eight values deep, into [row][column]. A piece of A is
 * copied so that a load brings both rows, and sums stay in that order until the last piece: neither
 * loads by halves nor exchanges between registers are left in the loop. */
typedef struct rows_piece {
    int8_t q[BLOCK_M / 2][PIECE][FV_BLOCK / 8][2][8];
    float d[BLOCK_M / 2][PIECE][2][2]; /* a row's scale, for two columns */
} rows_piece;

/* Blocks [at, at + n) of the rows; an odd last row has itself beside it. */
static void piece_fill(rows_piece *to, const char *a, size_t lda, size_t nb, size_t at, size_t n,
                       size_t rows)
{
    for (size_t r = 0; r < rows; r += 2) {
        const char *x = a + r * lda, *y = r + 1 < rows ? x + lda : x;
        const int8_t *qx = fv_qrow_q(x) + at * FV_BLOCK, *qy = fv_qrow_q(y) + at * FV_BLOCK;
        const float *dx = fv_qrow_d(x, nb) + at, *dy = fv_qrow_d(y, nb) + at;
        for (size_t b = 0; b < n; b++) {
            vst1q_f32(to->d[r / 2][b][0], vcombine_f32(vdup_n_f32(dx[b]), vdup_n_f32(dy[b])));
            for (size_t g = 0; g < FV_BLOCK / 8; g += 2, qx += 16, qy += 16) {
                const int64x2_t first = vreinterpretq_s64_s8(load16(qx)),
                                second = vreinterpretq_s64_s8(load16(qy));
                vst1q_s8(to->q[r / 2][b][g][0], vreinterpretq_s8_s64(vtrn1q_s64(first, second)));
                vst1q_s8(to->q[r / 2][b][g + 1][0],
                         vreinterpretq_s8_s64(vtrn2q_s64(first, second)));
            }
        }
    }
}

FV_INLINE float32x4_t two_twice(float32x2_t x) { return vcombine_f32(x, x); }

/* acc [pairs][4][2][2] (+)= the products of n blocks of rows from `pair` on; pairs is a constant in
 * every use. */
FV_INLINE void tile(float *acc, bool first, const rows_piece *a, size_t pair, const char *panel,
                    size_t n, size_t pairs)
{
    if (first)
        memset(acc, 0, pairs * 16 * sizeof *acc);
    for (size_t b = 0; b < n; b++, panel += PANEL_BLOCK) {
        const int8_t *w = (const int8_t *)panel;
        const float *scale = (const float *)(const void *)(panel + FV_BLOCK * TILE_N);
        int32x4_t s[TILE_M / 2][4];
        FV_UNROLL
        for (size_t p = 0; p < pairs; p++)
            s[p][0] = s[p][1] = s[p][2] = s[p][3] = vdupq_n_s32(0);
        FV_UNROLL
        for (size_t g = 0; g < FV_BLOCK / 8; g++, w += 64) {
            const int8x16_t w0 = load16(w), w1 = load16(w + 16), w2 = load16(w + 32),
                            w3 = load16(w + 48);
            FV_UNROLL
            for (size_t p = 0; p < pairs; p++) {
                const int8x16_t x = load16(a->q[pair + p][b][g]);
                s[p][0] = vmmlaq_s32(s[p][0], x, w0);
                s[p][1] = vmmlaq_s32(s[p][1], x, w1);
                s[p][2] = vmmlaq_s32(s[p][2], x, w2);
                s[p][3] = vmmlaq_s32(s[p][3], x, w3);
            }
        }
        FV_UNROLL
        for (size_t c = 0; c < 4; c++) {
            const float32x4_t dw = two_twice(vld1_f32(scale + 2 * c));
            FV_UNROLL
            for (size_t p = 0; p < pairs; p++) {
                float *to = acc + p * 16 + c * 4;
                const float32x4_t dx = vld1q_f32(a->d[pair + p][b][0]);
                vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vcvtq_f32_s32(s[p][c]), vmulq_f32(dw, dx)));
            }
        }
    }
}

#define TILE_PAIRS(count) \
    case count: tile(acc, first, a, pair, panel, n, count); break

static void tile_pairs(float *acc, bool first, const rows_piece *a, size_t pair, const char *panel,
                       size_t n, size_t pairs)
{
    switch (pairs) {
        TILE_PAIRS(4);
        TILE_PAIRS(3);
        TILE_PAIRS(2);
        TILE_PAIRS(1);
    }
}

/* [pairs][4][2][2] becomes [2 pairs][8], in place. */
static void pairs_part(float *acc, size_t pairs)
{
    for (size_t p = 0; p < pairs; p++, acc += 16) {
        const float64x2_t a = vreinterpretq_f64_f32(vld1q_f32(acc)),
                          b = vreinterpretq_f64_f32(vld1q_f32(acc + 4)),
                          c = vreinterpretq_f64_f32(vld1q_f32(acc + 8)),
                          d = vreinterpretq_f64_f32(vld1q_f32(acc + 12));
        vst1q_f32(acc, vreinterpretq_f32_f64(vtrn1q_f64(a, b)));
        vst1q_f32(acc + 4, vreinterpretq_f32_f64(vtrn1q_f64(c, d)));
        vst1q_f32(acc + 8, vreinterpretq_f32_f64(vtrn2q_f64(a, b)));
        vst1q_f32(acc + 12, vreinterpretq_f32_f64(vtrn2q_f64(c, d)));
    }
}

#else

/* acc [rows, 8] (+)= the products of n blocks; rows is a constant in every use. */
FV_INLINE void tile(float *acc, bool first, const char *a, size_t lda, size_t nb, size_t at,
                    const char *panel, size_t n, size_t rows)
{
    if (first)
        memset(acc, 0, rows * TILE_N * sizeof *acc);
    for (size_t b = at; b < at + n; b++, panel += PANEL_BLOCK) {
        int32x4_t s[TILE_M][2];
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            s[r][0] = s[r][1] = vdupq_n_s32(0);
        add_block(s, fv_qrow_q(a) + b * FV_BLOCK, lda, (const int8_t *)panel, rows);
        const float *scale = (const float *)(const void *)(panel + FV_BLOCK * TILE_N);
        const float32x4_t w0 = vld1q_f32(scale), w1 = vld1q_f32(scale + 4);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++) {
            const float d = fv_qrow_d(a + r * lda, nb)[b];
            float *to = acc + r * TILE_N;
            vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vcvtq_f32_s32(s[r][0]), vmulq_n_f32(w0, d)));
            vst1q_f32(to + 4,
                      vfmaq_f32(vld1q_f32(to + 4), vcvtq_f32_s32(s[r][1]), vmulq_n_f32(w1, d)));
        }
    }
}

#define TILE_ROWS(count)                                   \
    case count:                                            \
        tile(acc, first, a, lda, nb, at, panel, n, count); \
        break

static void tile_rows(float *acc, bool first, const char *a, size_t lda, size_t nb, size_t at,
                      const char *panel, size_t n, size_t rows)
{
    switch (rows) {
        TILE_ROWS(8);
        TILE_ROWS(7);
        TILE_ROWS(6);
        TILE_ROWS(5);
        TILE_ROWS(4);
        TILE_ROWS(3);
        TILE_ROWS(2);
        TILE_ROWS(1);
    }
}

#endif

/* Blocks of C; for each piece of k, each panel meets all rows of the block. */
static void QUANT_ISA(gemm_q_8x8)(const fv_gemm_args *g)
{
    const size_t nb = g->k / FV_BLOCK;
    float acc[BLOCK_N / TILE_N][BLOCK_M / TILE_M][TILE_M * TILE_N];
#if defined(QUANT_PAIRS)
    rows_piece piece;
#endif
    for (size_t i0 = 0; i0 < g->m; i0 += BLOCK_M) {
        const size_t i1 = g->m - i0 < BLOCK_M ? g->m : i0 + BLOCK_M;
        for (size_t j0 = 0; j0 < g->n; j0 += BLOCK_N) {
            const size_t j1 = g->n - j0 < BLOCK_N ? g->n : j0 + BLOCK_N;
            for (size_t b = 0; b < nb; b += PIECE) {
                const size_t n = nb - b < PIECE ? nb - b : PIECE;
#if defined(QUANT_PAIRS)
                piece_fill(&piece, (const char *)g->a + i0 * g->lda, g->lda, nb, b, n, i1 - i0);
#endif
                for (size_t j = j0; j < j1; j += TILE_N) {
                    const char *panel = (const char *)g->b + (j / TILE_N * nb + b) * PANEL_BLOCK;
                    for (size_t i = i0; i < i1; i += TILE_M) {
                        const size_t rows = i1 - i < TILE_M ? i1 - i : TILE_M;
                        float *sums = acc[(j - j0) / TILE_N][(i - i0) / TILE_M];
#if defined(QUANT_PAIRS)
                        tile_pairs(sums, b == 0, &piece, (i - i0) / 2, panel, n, (rows + 1) / 2);
                        if (b + n == nb)
                            pairs_part(sums, (rows + 1) / 2);
#else
                        tile_rows(sums, b == 0, (const char *)g->a + i * g->lda, g->lda, nb, b,
                                  panel, n, rows);
#endif
                        if (b + n == nb)
                            gemm_epilogue(g, i, j, rows, sums);
                    }
                }
            }
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------- */

FV_INLINE void pack(void *dst, const void *w, fv_type type, size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, step = block_bytes(type), row_bytes = nb * step;
    char *to = dst;
    for (size_t j = 0; j < n; j += TILE_N) {
        for (size_t b = 0; b < nb; b++, to += PANEL_BLOCK) {
            float scale[TILE_N];
            for (size_t c = 0; c < TILE_N; c++) {
                int8_t q[FV_BLOCK] = { 0 };
                scale[c] = 0;
                if (j + c < n) {
                    const char *block = (const char *)w + (j + c) * row_bytes + b * step;
                    scale[c] = block_scale(block);
                    if (type == FV_TYPE_Q8_0) {
                        memcpy(q, block + 2, FV_BLOCK);
                    } else {
                        const uint8x16_t pairs = vld1q_u8((const uint8_t *)block + 2);
                        const int8x16_t eight = vdupq_n_s8(8);
                        vst1q_s8(q, vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15))),
                                             eight));
                        vst1q_s8(q + 16,
                                 vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4)), eight));
                    }
                }
                for (size_t i = 0; i < FV_BLOCK / GROUP; i++)
                    memcpy(to + (i * TILE_N + c) * GROUP, q + i * GROUP, GROUP);
            }
            memcpy(to + FV_BLOCK * TILE_N, scale, sizeof scale);
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

FV_INLINE void fill_slots(fv_kernels *k)
{
    k->gemm_q = (fv_gemm_q_kernel){
        .mr = TILE_M,
        .nr = TILE_N,
        .run = { [FV_TYPE_Q8_0] = QUANT_ISA(gemm_q_8x8), [FV_TYPE_Q4_0] = QUANT_ISA(gemm_q_8x8) },
        .pack = { [FV_TYPE_Q8_0] = QUANT_ISA(pack_q8), [FV_TYPE_Q4_0] = QUANT_ISA(pack_q4) }
    };
#if defined(QUANT_DOT)
    k->gemv_q[FV_TYPE_Q8_0] = QUANT_ISA(gemv_q8);
    k->gemv_q[FV_TYPE_Q4_0] = QUANT_ISA(gemv_q4);
    k->gemv_q_rows[FV_TYPE_Q8_0] = QUANT_ISA(gemv_rows_q8);
    k->gemv_q_rows[FV_TYPE_Q4_0] = QUANT_ISA(gemv_rows_q4);
#endif
}

#endif
