/* The loops of the matrix product, for x86 files that define MR, NR, a table of tile functions and
 * epilogue(). Everything is counted in words of 32 bits: one f32, or a pair of bf16.
 *
 * From outside in: blocks of rows whose piece of A stays in L2; panels of B; pieces of k when a
 * panel does not fit in L2; tiles of rows, for which the panel's piece comes from L2 again and
 * again. A sum that spans several pieces of k waits in memory as f32, so that it is the same
 * chain of additions in order of k whatever the blocks are. Sizes chosen on Zen 4 (32 KiB L1,
 * 1 MiB L2). */
#ifndef FV_GEMM_BODY_H
#define FV_GEMM_BODY_H

#include <immintrin.h>

#include "base/base.h"
#include "kernels/kernels.h"

enum {
    A_BLOCK_BYTES = 384 << 10,   /* of A per block of rows */
    MIN_ROWS = 56,               /* of such a block: fewer would read B too often */
    MAX_PIECE = 1536,            /* words of k that are not cut */
    PIECE = 1024,                /* else words of a piece */
    CUT_ROWS = 112 / MR * MR,    /* rows of a block when k is cut: their sums wait on the stack */
    COPY_PIECE = 256,            /* when rows collide in L1: words of a row copied, */
    COPY_PANELS = MR > 8 ? 4 : 1 /* and panels that use the copy */
};

/* out[i][0..NR) = (more ? out[i][0..NR) : 0) + sum over n words of a[i] * b. Rows lie a_ld bytes
 * and out_ld floats apart. */
typedef void tile_fn(const char *a, size_t a_ld, const float *b, size_t n, float *out,
                     size_t out_ld, bool more);

/* Writes rows i .. i + rows, columns j .. j + width of C from their sums [rows, sum_ld]. */
static void epilogue(const fv_gemm_args *g, size_t i, size_t rows, size_t j, size_t width,
                     const float *sum, size_t sum_ld);

/* Do the rows of a tile fall into the same set of L1 (64 sets of 8 lines of 64 bytes)? */
static bool rows_collide(size_t a_ld)
{
    return MR > 8 && (a_ld % 4096 < 64 || a_ld % 4096 > 4096 - 64);
}

static void fetch_rows(const void *p, size_t elem_bytes, size_t ld, size_t i, size_t rows, size_t j)
{
    for (size_t r = 0; r < rows; r++) {
        const char *at = (const char *)p + ((i + r) * ld + j) * elem_bytes;
        _mm_prefetch(at, _MM_HINT_T0);
        _mm_prefetch(at + NR / 2 * elem_bytes, _MM_HINT_T0);
    }
}

/* Columns j .. of one tile of rows, i .., for words [q, q + n) of k. */
static inline void one_tile(const fv_gemm_args *g, tile_fn *const *tile, bool plain, size_t words,
                            size_t q, size_t n, const char *a, size_t a_ld, size_t i, size_t rows,
                            size_t j, float *sum, size_t sum_ld)
{
    const size_t width = FV_MIN((size_t)NR, g->n - j);
    const float *b = (const float *)g->b + j * words + q * NR;
    const bool last = q + n == words;
    if (last) {
        fetch_rows(g->c, fv_type_size(g->c_type), g->ldc, i, rows, j);
        if (g->residual && g->residual != g->c)
            fetch_rows(g->residual, 4, g->ldr, i, rows, j);
        if (g->gate)
            fetch_rows(g->gate, 4, g->ldg, i, rows, j);
    }
    if (plain && width == NR) {
        tile[rows](a, a_ld, b, n, (float *)g->c + i * g->ldc + j, g->ldc, q > 0);
        return;
    }
    tile[rows](a, a_ld, b, n, sum, sum_ld, q > 0);
    if (last)
        epilogue(g, i, rows, j, width, sum, sum_ld);
}

static void gemm(const fv_gemm_args *g, tile_fn *const *tile, size_t elem_bytes)
{
    const size_t words = g->k * elem_bytes / 4, a_ld = g->lda * elem_bytes;
    const bool plain = g->c_type == FV_TYPE_F32 && !g->bias && g->act == FV_ACT_NONE && !g->gate &&
                       !g->scale && !g->residual;
    const bool copy = g->m > 4 && words >= 64 && rows_collide(a_ld);
    const size_t piece = copy ? COPY_PIECE : words <= MAX_PIECE ? words : PIECE;
    /* columns for which a piece of A is used at once */
    const size_t span = copy ? COPY_PANELS * NR : NR;
    size_t block = A_BLOCK_BYTES / (words * 4) / MR * MR;
    if (piece < words)
        block = CUT_ROWS;
    else if (block < MIN_ROWS)
        block = MIN_ROWS;

    float sums[CUT_ROWS * COPY_PANELS * NR] __attribute__((aligned(64)));
    char copied[MR][COPY_PIECE * 4 + 64] __attribute__((aligned(64)));

    for (size_t i0 = 0; i0 < g->m; i0 += block) {
        const size_t i1 = FV_MIN(g->m, i0 + block);
        for (size_t j0 = 0; j0 < g->n; j0 += span) {
            const size_t j1 = FV_MIN(g->n, j0 + span);
            for (size_t q = 0; q < words; q += piece) {
                const size_t n = FV_MIN(piece, words - q);
                for (size_t i = i0; i < i1; i += MR) {
                    const size_t rows = FV_MIN((size_t)MR, i1 - i);
                    const char *a = (const char *)g->a + i * a_ld + q * 4;
                    size_t ld = a_ld;
                    if (copy) {
                        for (size_t r = 0; r < rows; r++)
                            memcpy(copied[r], a + r * a_ld, n * 4);
                        a = copied[0];
                        ld = sizeof copied[0];
                    }
                    float *sum = sums + (piece < words ? (i - i0) * span : 0);
                    for (size_t j = j0; j < j1; j += NR) {
                        if (copy) { /* a share of the next piece to be copied */
                            const char *next = i + MR < i1
                                                   ? (const char *)g->a + (i + MR) * a_ld + q * 4
                                                   : (const char *)g->a + i0 * a_ld +
                                                         (q + piece) % words * 4;
                            for (size_t r = (j - j0) / NR; r < MR && r < i1 - i0; r += COPY_PANELS)
                                for (size_t x = 0; x < COPY_PIECE * 4; x += 64)
                                    _mm_prefetch(next + r * a_ld + x, _MM_HINT_T1);
                        }
                        one_tile(g, tile, plain, words, q, n, a, ld, i, rows, j, sum + (j - j0),
                                 span);
                    }
                }
            }
        }
    }
}

#endif
