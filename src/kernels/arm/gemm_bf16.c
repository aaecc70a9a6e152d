/* The bf16 matrix product on processors with BFMMLA.
 *
 * BFMMLA multiplies two rows of A by two columns of B, four k of each, into a 2 x 2 square:
 *
 *     a: [row 0: k0..k3 | row 1: k0..k3]   b: [column 0: k0..k3 | column 1: k0..k3]
 *     c: [c00 c01 c10 c11] += a b^T
 *
 * Sixteen multiply-adds where BFDOT does eight. Panels of B, [k / 4][8][4], are four such b
 * after another. Rows of A are interleaved by pairs into a buffer on the stack, once for a
 * block of C. A tile of 8 x 8 is 16 squares; four k: 4 loads of A, 4 of B, 16 BFMMLA.
 *
 * Rounding: with FPCR.EBF = 0, which is what programs start with, BFMMLA ignores the rounding
 * mode: it rounds each sum of two products, and each addition of that, to odd, and flushes
 * denormals. So an element's bits are the same on every processor, its error is within twice
 * that of rounding to nearest, and that is inside the kernel's bound because a rounding
 * covers two products. With FPCR.EBF = 1 (FEAT_EBF16, nobody sets it) the products would
 * be summed otherwise: same bound, other bits. */
#include "kernels/arm/gemm_tile_neon.h"

/* Elements of k in a stretch: a block of A takes 32 kB of stack. */
enum { STRETCH = 256, PAIRS = TILE_M / 2, SQUARE = 8 /* elements of an a or b */ };

/* ---- A ----------------------------------------------------------------------------------- */

/* Two rows of k elements as [k / 4][2][4], one such every `step` elements; upper may be NULL. */
static void interleave(uint16_t *dst, size_t step, const uint16_t *lower, const uint16_t *upper,
                       size_t k)
{
    size_t q = 0;
    for (; q + 8 <= k; q += 8, dst += 2 * step) {
        uint64x2_t a = vreinterpretq_u64_u16(vld1q_u16(lower + q));
        uint64x2_t b = upper ? vreinterpretq_u64_u16(vld1q_u16(upper + q)) : vdupq_n_u64(0);
        vst1q_u16(dst, vreinterpretq_u16_u64(vzip1q_u64(a, b)));
        vst1q_u16(dst + step, vreinterpretq_u16_u64(vzip2q_u64(a, b)));
    }
    for (; q < k; q += 4, dst += step) {
        vst1_u16(dst, fv_ld16(lower + q, k - q));
        vst1_u16(dst + 4, upper ? fv_ld16(upper + q, k - q) : vdup_n_u16(0));
    }
}

/* Rows [i, i + rows) of A and k elements from `at` on, as [k / 4][pairs][2][4]. */
static void interleave_rows(uint16_t *dst, const fv_gemm_args *g, size_t i, size_t rows, size_t at,
                            size_t k)
{
    size_t pairs = (rows + 1) / 2;
    for (size_t p = 0; p < pairs; p++) {
        const uint16_t *row = (const uint16_t *)g->a + (i + 2 * p) * g->lda + at;
        interleave(dst + p * SQUARE, pairs * SQUARE, row, 2 * p + 1 < rows ? row + g->lda : NULL,
                   k);
    }
}

/* ---- one tile ---------------------------------------------------------------------------- */

FV_INLINE bfloat16x8_t load_bf16(const uint16_t *p) { return vreinterpretq_bf16_u16(vld1q_u16(p)); }

/* Four columns of two rows to two squares, or back: the same exchange of halves. */
FV_INLINE void swap_halves(float32x4_t *x, float32x4_t *y)
{
    float64x2_t a = vreinterpretq_f64_f32(*x), b = vreinterpretq_f64_f32(*y);
    *x = vreinterpretq_f32_f64(vzip1q_f64(a, b));
    *y = vreinterpretq_f32_f64(vzip2q_f64(a, b));
}

/* acc [2 pairs, 8] (+)= the products of `groups` times four k; pairs is a constant in every use. */
FV_INLINE void tile(float *acc, bool first, const uint16_t *a, const uint16_t *b, size_t groups,
                    size_t pairs)
{
    float32x4_t c[PAIRS][4];
    FV_UNROLL
    for (size_t p = 0; p < pairs; p++) {
        FV_UNROLL
        for (size_t j = 0; j < 4; j++) /* half j / 2 of row 2 p + j % 2 */
            c[p][j] = first ? vdupq_n_f32(0)
                            : vld1q_f32(acc + (2 * p + j % 2) * TILE_N + j / 2 * 4);
        swap_halves(&c[p][0], &c[p][1]);
        swap_halves(&c[p][2], &c[p][3]);
    }
    for (; groups > 0; groups--, a += pairs * SQUARE, b += 4 * SQUARE) {
        bfloat16x8_t x[PAIRS];
        FV_UNROLL
        for (size_t p = 0; p < pairs; p++)
            x[p] = load_bf16(a + p * SQUARE);
        FV_UNROLL
        for (size_t j = 0; j < 4; j++) {
            bfloat16x8_t w = load_bf16(b + j * SQUARE);
            FV_UNROLL
            for (size_t p = 0; p < pairs; p++)
                c[p][j] = vbfmmlaq_f32(c[p][j], x[p], w);
        }
    }
    FV_UNROLL
    for (size_t p = 0; p < pairs; p++) {
        swap_halves(&c[p][0], &c[p][1]);
        swap_halves(&c[p][2], &c[p][3]);
        FV_UNROLL
        for (size_t j = 0; j < 4; j++)
            vst1q_f32(acc + (2 * p + j % 2) * TILE_N + j / 2 * 4, c[p][j]);
    }
}

static void tile_pairs(float *acc, bool first, const uint16_t *a, const uint16_t *b, size_t groups,
                       size_t pairs)
{
    switch (pairs) {
    case 4: tile(acc, first, a, b, groups, 4); break;
    case 3: tile(acc, first, a, b, groups, 3); break;
    case 2: tile(acc, first, a, b, groups, 2); break;
    case 1: tile(acc, first, a, b, groups, 1); break;
    }
}

/* ---- blocks of tiles --------------------------------------------------------------------- */

static void gemm_bf16_8x8__bf16(const fv_gemm_args *g)
{
    float acc[BLOCK_N / TILE_N][BLOCK_M / TILE_M][TILE_M * TILE_N];
    uint16_t a[BLOCK_M / TILE_M][STRETCH * TILE_M];
    size_t padded = (g->k + 3) / 4 * 4;
    for (size_t i0 = 0; i0 < g->m; i0 += BLOCK_M) {
        size_t i1 = g->m - i0 < BLOCK_M ? g->m : i0 + BLOCK_M;
        for (size_t j0 = 0; j0 < g->n; j0 += BLOCK_N) {
            size_t j1 = g->n - j0 < BLOCK_N ? g->n : j0 + BLOCK_N;
            for (size_t q = 0; q < g->k; q += STRETCH) {
                size_t depth = g->k - q < STRETCH ? g->k - q : STRETCH;
                bool kept = g->k <= STRETCH && j0 > 0; /* the whole of k is still in a */
                for (size_t i = i0; i < i1 && !kept; i += TILE_M)
                    interleave_rows(a[(i - i0) / TILE_M], g, i, i1 - i < TILE_M ? i1 - i : TILE_M,
                                    q, depth);
                for (size_t j = j0; j < j1; j += TILE_N) {
                    const uint16_t *b = (const uint16_t *)g->b + j * padded + q * TILE_N;
                    for (size_t i = i0; i < i1; i += TILE_M) {
                        size_t rows = i1 - i < TILE_M ? i1 - i : TILE_M;
                        float *sums = acc[(j - j0) / TILE_N][(i - i0) / TILE_M];
                        tile_pairs(sums, q == 0, a[(i - i0) / TILE_M], b, (depth + 3) / 4,
                                   (rows + 1) / 2);
                        if (q + depth == g->k)
                            gemm_epilogue(g, i, j, rows, sums);
                    }
                }
            }
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------- */

FV_INLINE uint16x4_t load_narrow(const void *w, fv_type from, size_t i, size_t n)
{
    if (from == FV_TYPE_BF16)
        return fv_ld16((const uint16_t *)w + i, n);
    return fv_narrow_bf16(fv_load(w, from, i, n));
}

FV_INLINE uint16x8_t load8_narrow(const void *w, fv_type from, size_t i)
{
    if (from == FV_TYPE_BF16)
        return vld1q_u16((const uint16_t *)w + i);
    bfloat16x8_t low = vcvtq_low_bf16_f32(fv_load(w, from, i, 4));
    return vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(low, fv_load(w, from, i + 4, 4)));
}

/* Four k of a column lie together in a panel as they do in w. */
FV_INLINE void pack(uint16_t *dst, const void *w, fv_type from, size_t ld, size_t n, size_t k)
{
    for (size_t p = 0; p < n; p += TILE_N) {
        size_t q = 0;
        for (; p + TILE_N <= n && q + 8 <= k; q += 8, dst += 8 * TILE_N) {
            FV_UNROLL
            for (size_t j = 0; j < TILE_N; j += 2) {
                uint64x2_t a = vreinterpretq_u64_u16(load8_narrow(w, from, (p + j) * ld + q));
                uint64x2_t b = vreinterpretq_u64_u16(load8_narrow(w, from, (p + j + 1) * ld + q));
                vst1q_u16(dst + 4 * j, vreinterpretq_u16_u64(vzip1q_u64(a, b)));
                vst1q_u16(dst + 4 * (TILE_N + j), vreinterpretq_u16_u64(vzip2q_u64(a, b)));
            }
        }
        for (; q < k; q += 4, dst += 4 * TILE_N) {
            size_t depth = k - q < 4 ? k - q : 4;
            for (size_t j = 0; j < TILE_N; j++)
                vst1_u16(dst + 4 * j,
                         p + j < n ? load_narrow(w, from, (p + j) * ld + q, depth) : vdup_n_u16(0));
        }
    }
}

#define PACK(name, from)                                                      \
    static void name(void *dst, const void *w, size_t ld, size_t n, size_t k) \
    {                                                                         \
        pack(dst, w, from, ld, n, k);                                         \
    }
PACK(pack_bf16_f32__bf16, FV_TYPE_F32)
PACK(pack_bf16_f16__bf16, FV_TYPE_F16)
PACK(pack_bf16_bf16__bf16, FV_TYPE_BF16)

void fv_gemm_init_bf16(fv_kernels *k);
void fv_gemm_init_bf16(fv_kernels *k)
{
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16,
                                     .mr = TILE_M,
                                     .nr = TILE_N,
                                     .kg = 4,
                                     .run = gemm_bf16_8x8__bf16,
                                     .pack = { [FV_TYPE_F32] = pack_bf16_f32__bf16,
                                               [FV_TYPE_F16] = pack_bf16_f16__bf16,
                                               [FV_TYPE_BF16] = pack_bf16_bf16__bf16 } };
    k->fast_bf16 = true;
}
