/* What the Arm matrix products share: the blocks in which C is computed, and the epilogue.
 *
 * C is computed in tiles of 8 x 8. A tile function adds the products of a stretch of k to a
 * tile in memory; between stretches the tile waits in `acc`. Stretches, and the order of
 * everything else, do not change what happens to one element of C: sums in order of k, then
 * the epilogue. */
#ifndef FV_GEMM_TILE_NEON_H
#define FV_GEMM_TILE_NEON_H

#include "kernels/arm/vmath_neon.h"
#include "kernels/kernels.h"

/* Rows and columns of a tile; rows and columns of a block of tiles. A block's sums take 16 kB. */
enum { TILE_M = 8, TILE_N = 8, BLOCK_M = 64, BLOCK_N = 64 };

/* The last steps of the epilogue; type is a constant in every use. */
FV_INLINE void gemm_store(const fv_gemm_args *g, size_t i, size_t at, size_t n, size_t rows,
                          const float *y, fv_type type)
{
    float32x4_t scale = g->scale ? fv_ld(g->scale + at, n) : vdupq_n_f32(0);
    for (size_t r = 0; r < rows; r++, y += TILE_N) {
        float32x4_t x = vld1q_f32(y);
        if (g->scale)
            x = vmulq_f32(x, scale);
        if (g->residual)
            x = vaddq_f32(x, fv_ld(g->residual + (i + r) * g->ldr + at, n));
        fv_store(g->c, type, (i + r) * g->ldc + at, x, n);
    }
}

/* Tile rows [0, rows) of C at (i, j), from their sums. Step by step over the tile, so that the
 * constants of GELU are loaded once. Columns past n take part in GELU and are not stored. */
static inline void gemm_epilogue(const fv_gemm_args *g, size_t i, size_t j, size_t rows, float *acc)
{
    for (size_t col = 0; col < TILE_N && j + col < g->n; col += 4) {
        size_t at = j + col, n = g->n - at < 4 ? g->n - at : 4;
        float *y = acc + col;
        if (g->bias) {
            float32x4_t bias = fv_ld(g->bias + at, n);
            for (size_t r = 0; r < rows; r++)
                vst1q_f32(y + r * TILE_N, vaddq_f32(vld1q_f32(y + r * TILE_N), bias));
        }
        if (g->act == FV_ACT_GELU)
            for (size_t r = 0; r < rows; r++)
                vst1q_f32(y + r * TILE_N, fv_gelu(vld1q_f32(y + r * TILE_N)));
        if (g->gate) {
            const float *gate = g->gate + i * g->ldg + at;
            for (size_t r = 0; r < rows; r++, gate += g->ldg)
                vst1q_f32(y + r * TILE_N,
                          vmulq_f32(vld1q_f32(y + r * TILE_N), fv_silu(fv_ld(gate, n))));
        }
        switch (g->c_type) {
        case FV_TYPE_F16: gemm_store(g, i, at, n, rows, y, FV_TYPE_F16); break;
        case FV_TYPE_BF16: gemm_store(g, i, at, n, rows, y, FV_TYPE_BF16); break;
        default: gemm_store(g, i, at, n, rows, y, FV_TYPE_F32);
        }
    }
}

#endif
