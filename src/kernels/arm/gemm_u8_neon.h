/* The loops and the epilogue of the u8 x i8 matrix product for Arm, for files that define tile(),
 * SIGNED and DEPTH: how many elements of k of a column lie together in a panel, 4 or 8. What is
 * left of k behind whole steps lies in fours always.
 *
 * A tile is 8 rows by 8 columns. Where instructions take signed bytes only (SIGNED), tiles take a -
 * 128, and 128 times the sum of a column of B is added back; a panel's sums are taken once for a
 * block of rows. */
#ifndef FV_GEMM_U8_NEON_H
#define FV_GEMM_U8_NEON_H

#include <string.h>

#include "base/base.h"
#include "kernels/arm/u8_neon.h"
#include "kernels/kernels.h"

enum { MR = 8, NR = 8, BLOCK_ROWS = 96, STEP = 16 /* elements of k */ };

/* sum[MR][NR] += over n steps of k of a[i] + at times b. */
static void tile(int32_t *sum, const uint8_t *const a[MR], size_t at, const int8_t *b, size_t n);

/* 4 columns of a tile, from their sums; type is a constant in every use. */
FV_INLINE void put_columns(const fv_gemm_u8_args *g, size_t i, size_t rows, size_t j, size_t n,
                           const int32_t *sum, fv_type type)
{
    const float32x4_t mul = fv_ld(g->mul + j, n), scale = g->scale ? fv_ld(g->scale + j, n) : mul;
    const float32x4_t add = g->add ? fv_ld(g->add + j, n) : mul;
    const float32x4_t inv = type == FV_TYPE_U8 ? fv_ld(g->inv + j, n) : mul;
    const bool plain = type == FV_TYPE_U8 && !g->act && !g->scale && !g->residual;
    for (size_t r = 0; r < rows; r++, sum += NR) {
        int32x4_t s = vld1q_s32(sum);
        float32x4_t y;
        if (g->low) {
            int32_t some[4] = { 0 };
            memcpy(some, g->low + (i + r) * g->ldl + j, n * sizeof *some);
            const int32x4_t low = vld1q_s32(some), rest = vandq_s32(low, vdupq_n_s32(255));
            s = vaddq_s32(s, vshrq_n_s32(low, 8));
            y = vfmaq_n_f32(vcvtq_f32_s32(s), vcvtq_f32_s32(rest), 0x1p-8f);
        } else {
            y = vcvtq_f32_s32(s);
        }
        y = vmulq_f32(y, plain ? vmulq_f32(mul, inv) : mul);
        if (g->row)
            y = vmulq_n_f32(y, g->row[i + r]);
        if (g->add)
            y = vaddq_f32(y, add);
        if (g->act == FV_ACT_GELU)
            y = fv_gelu(y);
        if (g->scale)
            y = vmulq_f32(y, scale);
        if (g->residual)
            y = vaddq_f32(y, fv_ld(g->residual + (i + r) * g->ldr + j, n));
        const size_t at = (i + r) * g->ldc + j;
        if (type == FV_TYPE_U8)
            fv_put_u8((uint8_t *)g->c + at, plain ? y : vmulq_f32(y, inv), g->zero, n);
        else
            fv_store(g->c, type, at, y, n);
    }
}

static void epilogue(const fv_gemm_u8_args *g, size_t i, size_t rows, size_t j, const int32_t *sum)
{
    if (g->c_type == FV_TYPE_I32) {
        for (size_t r = 0; r < rows; r++)
            memcpy((int32_t *)g->c + (i + r) * g->ldc + j, sum + r * NR,
                   FV_MIN(g->n - j, (size_t)NR) * sizeof *sum);
        return;
    }
    for (size_t v = 0; v < NR && j + v < g->n; v += 4) {
        const size_t n = FV_MIN(g->n - j - v, (size_t)4);
        switch (g->c_type) {
        case FV_TYPE_U8: put_columns(g, i, rows, j + v, n, sum + v, FV_TYPE_U8); break;
        case FV_TYPE_F16: put_columns(g, i, rows, j + v, n, sum + v, FV_TYPE_F16); break;
        case FV_TYPE_BF16: put_columns(g, i, rows, j + v, n, sum + v, FV_TYPE_BF16); break;
        default: put_columns(g, i, rows, j + v, n, sum + v, FV_TYPE_F32);
        }
    }
}

/* The last words of a panel, in the order of a step. */
static void end_copy(int8_t *to, const int8_t *b, size_t n_words)
{
    for (size_t w = 0; w < n_words; w++)
        for (size_t c = 0; c < NR; c++, b += 4)
            memcpy(to + w * 4 / DEPTH * DEPTH * NR + c * DEPTH + w * 4 % DEPTH, b, 4);
}

static void gemm(const fv_gemm_u8_args *g)
{
    const size_t words = (g->k + 3) / 4, n_steps = g->k / STEP, left = g->k % STEP;
    int8_t b_end[STEP * NR] = { 0 }; /* the last elements of k, and zeros */
    uint8_t a_end[MR][STEP] = { { 0 } };

    for (size_t i0 = 0; i0 < g->m; i0 += BLOCK_ROWS) {
        const size_t i1 = FV_MIN(g->m, i0 + BLOCK_ROWS);
        for (size_t j = 0; j < g->n; j += NR) {
            const int8_t *b = (const int8_t *)g->b + j * words * 4;
            const size_t n_cols = FV_MIN(g->n - j, (size_t)NR);
            int32_t start[NR] = { 0 };
            if (g->bias)
                memcpy(start, g->bias + j, n_cols * sizeof *start);
            for (size_t q = 0; SIGNED && q < words * NR; q++)
                start[q % NR] += 128 * (b[4 * q] + b[4 * q + 1] + b[4 * q + 2] + b[4 * q + 3]);
            if (left)
                end_copy(b_end, b + n_steps * STEP * NR, words - n_steps * STEP / 4);
            for (size_t i = i0; i < i1; i += MR) {
                const size_t rows = FV_MIN(i1 - i, (size_t)MR);
                const uint8_t *a[MR];
                int32_t sum[MR * NR];
                for (size_t r = 0; r < MR; r++) { /* rows past the last are the last again */
                    a[r] = g->a + (i + FV_MIN(r, rows - 1)) * g->lda;
                    memcpy(sum + r * NR, start, sizeof start);
                }
                tile(sum, a, 0, b, n_steps);
                if (left) {
                    for (size_t r = 0; r < MR; r++) {
                        memcpy(a_end[r], a[r] + n_steps * STEP, left);
                        a[r] = a_end[r];
                    }
                    tile(sum, a, 0, b_end, 1);
                }
                epilogue(g, i, rows, j, sum);
            }
        }
    }
}

/* Rows of i8 or, in blocks, of Q8_0: row_bytes from one to the next. */
FV_INLINE void pack(void *dst, const void *w, size_t row_bytes, const bool blocks, size_t n,
                    size_t k)
{
    int8_t *to = dst;
    for (size_t j = 0; j < n; j += NR)
        for (size_t q = 0, depth; q < k; q += depth) {
            const int8_t *from = (const int8_t *)w + (blocks ? fv_q8_at(q) : q);
            depth = q < k / STEP * STEP ? DEPTH : 4;
            for (size_t c = j; c < j + NR; c++, to += depth) {
                memset(to, 0, depth);
                if (c < n)
                    memcpy(to, from + c * row_bytes, FV_MIN(depth, k - q));
            }
        }
}

#endif
