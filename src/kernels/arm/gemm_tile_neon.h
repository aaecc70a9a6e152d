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

/* Tile rows [0, rows) of C at (i, j), from their sums. */
static inline void gemm_epilogue(const fv_gemm_args *g, size_t i, size_t j, size_t rows, const float *acc)
{
    for (size_t col = 0; col < TILE_N && j + col < g->n; col += 4) {
        size_t at = j + col, n = g->n - at < 4 ? g->n - at : 4;
        float32x4_t zero = vdupq_n_f32(0);
        float32x4_t bias = g->bias ? fv_ld(g->bias + at, n) : zero;
        float32x4_t scale = g->scale ? fv_ld(g->scale + at, n) : zero;
        for (size_t r = 0; r < rows; r++) {
            float32x4_t y = vld1q_f32(acc + r * TILE_N + col);
            if (g->bias)
                y = vaddq_f32(y, bias);
            if (g->act == FV_ACT_GELU)
                y = fv_gelu(y);
            if (g->gate)
                y = vmulq_f32(y, fv_silu(fv_ld(g->gate + (i + r) * g->ldg + at, n)));
            if (g->scale)
                y = vmulq_f32(y, scale);
            if (g->residual)
                y = vaddq_f32(y, fv_ld(g->residual + (i + r) * g->ldr + at, n));
            fv_store(g->c, g->c_type, (i + r) * g->ldc + at, y, n);
        }
    }
}

#endif
