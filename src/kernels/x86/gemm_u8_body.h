/* The loops of the u8 x i8 matrix product, for x86 files that define MR, NR, WIDEN (1: tiles take A
 * as i16), a table of tile functions and epilogue(). Everything is counted in words: four elements
 * of k.
 *
 * From outside in: blocks of rows whose piece of A stays in L2; panels of B; pieces of k when a
 * panel does not fit in L2; tiles of rows, as equal as they can be, so that no tile is left with
 * few of them. Rows that have to be widened are copied for all panels at once where a block of
 * them fits the copy; otherwise, and when they only collide, a piece of a tile's rows at a time. */
#ifndef FV_GEMM_U8_BODY_H
#define FV_GEMM_U8_BODY_H

#include <immintrin.h>
#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

enum {
    A_BLOCK_BYTES = 384 << 10, /* of A per block of rows */
    MIN_ROWS = 112 / MR * MR,  /* of such a block: fewer would read B too often */
    PIECE = 1536,              /* words of k that are not cut */
    COPY_PIECE = 256,          /* words of a row copied: rows collide in L1, or end within a word */
    COPY_GAP = 64,             /* bytes between copied rows: they are not to collide again */
    COPY_BYTES = WIDEN ? 48 << 10 : MR * (COPY_PIECE * 4 + COPY_GAP)
};

/* out[i][0..NR) = (more ? out[i][0..NR) : bias[0..NR)) + sum over n words of a[i] * b. Rows lie
 * a_ld bytes and NR sums apart; a is of u8, or i16 when WIDEN. */
typedef void tile_fn(const uint8_t *a, size_t a_ld, const int32_t *b, size_t n, int32_t *out,
                     bool more, const int32_t *bias);

/* Writes rows i .. i + rows, columns j .. j + width of C from their sums [rows, NR]. */
static void epilogue(const fv_gemm_u8_args *g, size_t i, size_t rows, size_t j, size_t width,
                     const int32_t *sum);

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
        if (elem_bytes > 2)
            _mm_prefetch(at + NR / 2 * elem_bytes, _MM_HINT_T0);
    }
}

/* n bytes and then zeros to words words, widened when WIDEN. */
static void copy_row(uint8_t *to, const uint8_t *a, size_t n, size_t words)
{
    size_t i = 0;
    if (!WIDEN) {
        memset(to + words * 4 - 4, 0, 4);
        memcpy(to, a, n);
        return;
    }
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256(
            (__m256i *)(void *)(to + 2 * i),
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(a + i))));
    for (; i < words * 4; i++) {
        const uint16_t x = i < n ? a[i] : 0;
        memcpy(to + 2 * i, &x, 2);
    }
}

static void gemm(const fv_gemm_u8_args *g, tile_fn *const *tile)
{
    const size_t words = (g->k + 3) / 4;
    const bool copy = WIDEN || g->k % 4 || (g->m > 4 && words >= 64 && rows_collide(g->lda));
    const size_t room = COPY_BYTES / (words * 4 * (1 + WIDEN) + COPY_GAP) / MR * MR;
    const bool copy_once = WIDEN && room > 0; /* for all panels: so many rows */
    const size_t piece = copy_once ? words : FV_MIN(words, (size_t)(copy ? COPY_PIECE : PIECE));
    const size_t block = copy_once ? FV_MIN(room, (size_t)MIN_ROWS)
                         : piece < words
                             ? (size_t)MIN_ROWS
                             : FV_MAX((size_t)MIN_ROWS, A_BLOCK_BYTES / (words * 4) / MR * MR);
    const size_t copy_ld = piece * 4 * (1 + WIDEN) + COPY_GAP;

    int32_t sums[MIN_ROWS * NR] __attribute__((aligned(64)));
    int32_t bias[NR] __attribute__((aligned(64))) = { 0 };
    uint8_t copied[COPY_BYTES] __attribute__((aligned(64)));

    for (size_t i0 = 0; i0 < g->m; i0 += block) {
        const size_t n_rows = FV_MIN(g->m - i0, block), n_tiles = (n_rows + MR - 1) / MR;
        if (copy_once)
            for (size_t r = 0; r < n_rows; r++)
                copy_row(copied + r * copy_ld, g->a + (i0 + r) * g->lda, g->k, words);
        for (size_t j = 0; j < g->n; j += NR) {
            const size_t width = FV_MIN((size_t)NR, g->n - j);
            const int32_t *b = (const int32_t *)g->b + j * words, *start = bias;
            if (g->bias)
                start = width < NR ? memcpy(bias, g->bias + j, width * sizeof *bias) : g->bias + j;
            for (size_t q = 0; q < words; q += piece) {
                const size_t n = FV_MIN(piece, words - q);
                const bool last = q + n == words;
                for (size_t t = 0; t < n_tiles; t++) {
                    const size_t first = n_rows * t / n_tiles,
                                 rows = n_rows * (t + 1) / n_tiles - first;
                    const uint8_t *a = g->a + (i0 + first) * g->lda + q * 4;
                    size_t ld = g->lda;
                    if (copy_once) {
                        a = copied + first * copy_ld;
                        ld = copy_ld;
                    } else if (copy) {
                        const size_t n_bytes = FV_MIN(n * 4, g->k - q * 4);
                        for (size_t r = 0; r < rows; r++)
                            copy_row(copied + r * copy_ld, a + r * ld, n_bytes, n);
                        a = copied;
                        ld = copy_ld;
                    }
                    if (last && words >= 48) {
                        fetch_rows(g->c, fv_type_size(g->c_type), g->ldc, i0 + first, rows, j);
                        if (g->residual && g->residual != g->c)
                            fetch_rows(g->residual, 4, g->ldr, i0 + first, rows, j);
                    }
                    int32_t *sum = sums + (piece < words ? first * NR : 0);
                    tile[rows](a, ld, b + q * NR, n, sum, q > 0, start);
                    if (last)
                        epilogue(g, i0 + first, rows, j, width, sum);
                }
            }
        }
    }
}

#endif
