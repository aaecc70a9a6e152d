/* The matrix product's loops and epilogue for AVX-512, shared by gemm_avx512.c (f32) and
 * gemm_avx512bf16.c. Everything is counted in words of 32 bits: one f32, or a pair of bf16.
 *
 *            panel p of B, 32 columns wide           a tile: up to 14 rows x 2 registers of sums
 *           k ->  [ b b b b | b b b b ]              per k: 2 loads of B, then for each row one
 *      A  [ a ]   [ c c c c | c c c c ]              broadcast of A and 2 FMAs; 28 sums + 2 + 1
 *      14 [ a ]   [ c c c c | c c c c ]              registers of 32.
 *
 * Loops from outside in: blocks of rows whose piece of A stays in L2; panels of B; pieces of k when a
 * panel does not fit in L2; tiles of rows, for which the panel's piece comes from L2 again and
 * again. A sum that spans several pieces of k waits in memory as f32, so that it is the same
 * chain of additions in order of k whatever the blocks are. Chosen on Zen 4 (32 KiB L1, 1 MiB L2). */
#ifndef FV_GEMM_AVX512_H
#define FV_GEMM_AVX512_H

#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"
#include "kernels/x86/vmath_avx512.h"

enum {
    MR = 14, NR = 32,
    A_BLOCK_BYTES = 384 << 10, /* of A per block of rows */
    MIN_ROWS = 56,             /* of such a block: fewer would read B too often */
    MAX_PIECE = 1536,          /* words of k that are not cut */
    PIECE = 1024,              /* else words of a piece */
    CUT_ROWS = 112,            /* rows of a block when k is cut: their sums wait on the stack */
    COPY_PIECE = 256           /* words of a row of A copied when rows collide in L1 */
};

/* out[i][0..32) = (more ? out[i][0..32) : 0) + sum over n words of a[i] * b. Rows lie a_ld bytes and
 * out_ld floats apart. */
typedef void tile_fn(const char *a, size_t a_ld, const float *b, size_t n, float *out, size_t out_ld, bool more);

#define UNROLL _Pragma("GCC unroll 16")

/* A tile of mr rows (a constant). MAC(sum, a, b) adds the products of 16 words. */
#define DEFINE_TILE(name, mr, MAC)                                                                            \
    static void name(const char *a, size_t a_ld, const float *b, size_t n, float *out, size_t out_ld,         \
                     bool more)                                                                               \
    {                                                                                                         \
        __m512 s[mr][2];                                                                                      \
        UNROLL for (int i = 0; i < mr; i++) s[i][0] = s[i][1] = _mm512_setzero_ps();                          \
        if (more) {                                                                                           \
            UNROLL for (int i = 0; i < mr; i++) {                                                             \
                s[i][0] = _mm512_loadu_ps(out + (size_t)i * out_ld);                                          \
                s[i][1] = _mm512_loadu_ps(out + (size_t)i * out_ld + 16);                                     \
            }                                                                                                 \
        }                                                                                                     \
        for (size_t q = 0; q < n; q++, a += 4, b += NR) {                                                     \
            __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps(b + 16);                                       \
            UNROLL for (int i = 0; i < mr; i++) {                                                             \
                float word;                                                                                   \
                memcpy(&word, a + (size_t)i * a_ld, 4);                                                       \
                __m512 ai = _mm512_set1_ps(word);                                                             \
                s[i][0] = MAC(s[i][0], ai, b0);                                                               \
                s[i][1] = MAC(s[i][1], ai, b1);                                                               \
            }                                                                                                 \
        }                                                                                                     \
        UNROLL for (int i = 0; i < mr; i++) {                                                                 \
            _mm512_storeu_ps(out + (size_t)i * out_ld, s[i][0]);                                              \
            _mm512_storeu_ps(out + (size_t)i * out_ld + 16, s[i][1]);                                         \
        }                                                                                                     \
    }

#define DEFINE_TILES(stem, MAC)                                                                            \
    DEFINE_TILE(stem##_1, 1, MAC) DEFINE_TILE(stem##_2, 2, MAC) DEFINE_TILE(stem##_3, 3, MAC)              \
    DEFINE_TILE(stem##_4, 4, MAC) DEFINE_TILE(stem##_5, 5, MAC) DEFINE_TILE(stem##_6, 6, MAC)              \
    DEFINE_TILE(stem##_7, 7, MAC) DEFINE_TILE(stem##_8, 8, MAC) DEFINE_TILE(stem##_9, 9, MAC)              \
    DEFINE_TILE(stem##_10, 10, MAC) DEFINE_TILE(stem##_11, 11, MAC) DEFINE_TILE(stem##_12, 12, MAC)        \
    DEFINE_TILE(stem##_13, 13, MAC) DEFINE_TILE(stem##_14, 14, MAC)                                        \
    static tile_fn *const stem##s[MR + 1] = { 0, stem##_1, stem##_2, stem##_3, stem##_4, stem##_5,         \
                                              stem##_6, stem##_7, stem##_8, stem##_9, stem##_10,           \
                                              stem##_11, stem##_12, stem##_13, stem##_14 };

/* Lanes of mask as g->c_type; in this file's own way when it has one. */
#ifndef STORE_AVX512
#define STORE_AVX512 fv_store_avx512
#endif

/* Rows i .. i + rows, columns j .. j + width of C from their sums [rows, sum_ld]. */
static void epilogue(const fv_gemm_args *g, size_t i, size_t rows, size_t j, size_t width, const float *sum,
                     size_t sum_ld)
{
    const bool narrow = g->c_type != FV_TYPE_F32;
    for (size_t v = 0; v < width; v += 16) {
        const __mmask16 mask = width - v >= 16 ? 0xffff : (__mmask16)((1u << (width - v)) - 1);
        const size_t col = j + v;
        const __m512 bias = g->bias ? _mm512_maskz_loadu_ps(mask, g->bias + col) : _mm512_setzero_ps();
        const __m512 scale = g->scale ? _mm512_maskz_loadu_ps(mask, g->scale + col) : _mm512_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            __m512 y = _mm512_loadu_ps(sum + r * sum_ld + v);
            if (g->bias)
                y = _mm512_add_ps(y, bias);
            if (g->act == FV_ACT_GELU)
                y = narrow ? fv_gelu16_avx512(y) : fv_gelu_avx512(y);
            if (g->gate)
                y = _mm512_mul_ps(y, fv_silu_avx512(_mm512_maskz_loadu_ps(mask, g->gate + (i + r) * g->ldg + col)));
            if (g->scale)
                y = _mm512_mul_ps(y, scale);
            if (g->residual)
                y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, g->residual + (i + r) * g->ldr + col));
            STORE_AVX512(g->c, g->c_type, (i + r) * g->ldc + col, mask, y);
        }
    }
}

/* Rows in the same L1 set: with 64 sets of 8 lines, every step-th row is 4096 bytes further. */
static bool rows_collide(size_t a_ld)
{
    for (size_t step = 1; step <= 2; step++) {
        size_t d = step * a_ld % 4096;
        if (d < 64 || d > 4096 - 64)
            return true;
    }
    return false;
}

static void fetch_rows(const void *p, size_t elem_bytes, size_t ld, size_t i, size_t rows, size_t j)
{
    for (size_t r = 0; r < rows; r++) {
        const char *at = (const char *)p + ((i + r) * ld + j) * elem_bytes;
        _mm_prefetch(at, _MM_HINT_T0);
        _mm_prefetch(at + 16 * elem_bytes, _MM_HINT_T0);
    }
}

static void gemm(const fv_gemm_args *g, tile_fn *const *tile, size_t elem_bytes)
{
    const size_t words = g->k * elem_bytes / 4, a_ld = g->lda * elem_bytes;
    const bool plain = g->c_type == FV_TYPE_F32 && !g->bias && g->act == FV_ACT_NONE && !g->gate && !g->scale &&
                       !g->residual;
    const bool copy = g->m > 4 && words >= 64 && rows_collide(a_ld);
    size_t piece = words <= MAX_PIECE ? words : PIECE;
    if (copy && piece > COPY_PIECE)
        piece = COPY_PIECE;
    size_t block = A_BLOCK_BYTES / (words * 4) / MR * MR;
    if (piece < words)
        block = CUT_ROWS;
    else if (block < MIN_ROWS)
        block = MIN_ROWS;

    float sums[CUT_ROWS * NR] __attribute__((aligned(64)));
    char copied[MR][COPY_PIECE * 4 + 64] __attribute__((aligned(64)));

    for (size_t i0 = 0; i0 < g->m; i0 += block) {
        const size_t i1 = FV_MIN(g->m, i0 + block);
        for (size_t j = 0; j < g->n; j += NR) {
            const size_t width = FV_MIN((size_t)NR, g->n - j);
            const bool direct = plain && width == NR;
            const float *b = (const float *)g->b + j * words;
            for (size_t q = 0; q < words; q += piece) {
                const size_t n = FV_MIN(piece, words - q);
                const bool last = q + n == words;
                for (size_t i = i0; i < i1; i += MR) {
                    const size_t rows = FV_MIN((size_t)MR, i1 - i);
                    const char *a = (const char *)g->a + i * a_ld + q * 4;
                    float *out = sums + (piece < words ? (i - i0) * NR : 0);
                    size_t a_step = a_ld, out_ld = NR;
                    if (copy) {
                        for (size_t r = 0; r < rows; r++)
                            memcpy(copied[r], a + r * a_ld, n * 4);
                        a = copied[0];
                        a_step = sizeof copied[0];
                    }
                    if (direct) {
                        out = (float *)g->c + i * g->ldc + j;
                        out_ld = g->ldc;
                    }
                    if (last) {
                        fetch_rows(g->c, fv_type_size(g->c_type), g->ldc, i, rows, j);
                        if (g->residual && g->residual != g->c)
                            fetch_rows(g->residual, 4, g->ldr, i, rows, j);
                        if (g->gate)
                            fetch_rows(g->gate, 4, g->ldg, i, rows, j);
                    }
                    tile[rows](a, a_step, b + q * NR, n, out, out_ld, q > 0);
                    if (last && !direct)
                        epilogue(g, i, rows, j, width, out, out_ld);
                }
            }
        }
    }
}

#endif
