/* Matrix products for any AArch64 processor.
 *
 * The tile of 8 x 8 takes 16 of the 32 registers; four k of each row of A lie in 8 more and
 * are multiplied lane by lane, so that A can be read as it is, without packing. Four k: 8 loads
 * of A, 8 of B, 64 multiply-adds. The bf16 kernel widens B in registers (a bf16 is the upper
 * half of an f32) and A while copying it: it saves memory, not time. */
#include "kernels/arm/gemm_tile_neon.h"

/* Elements of k in a stretch: 8 columns of B and 8 rows of A take 12 kB each as f32, and lie
 * together in the level 1 cache of a small core (32 kB). Rows of A whose distance is a multiple
 * of COLLIDE bytes would fall onto the same few lines of that cache (4 ways of 8 kB); those are
 * copied, COPY_M at a time, PAD elements further apart. */
enum { STRETCH = 384, COPY_M = 32, PAD = 16, COLLIDE = 4096 };

/* ---- one tile ---------------------------------------------------------------------------- */

/* Eight columns of B. Zipped with zeros a bf16 becomes its f32. */
FV_INLINE float32x4x2_t load8(const void *p, size_t i, fv_type type)
{
    float32x4x2_t b;
    if (type == FV_TYPE_BF16) {
        uint16x8_t zero = vdupq_n_u16(0), h = vld1q_u16((const uint16_t *)p + i);
        b.val[0] = vreinterpretq_f32_u16(vzip1q_u16(zero, h));
        b.val[1] = vreinterpretq_f32_u16(vzip2q_u16(zero, h));
    } else {
        b.val[0] = vld1q_f32((const float *)p + i);
        b.val[1] = vld1q_f32((const float *)p + i + 4);
    }
    return b;
}

/* a, lane: row and element of A */
#define TILE_STEP(lane)                                               \
    do {                                                              \
        float32x4x2_t w = load8(b, (q + lane) * TILE_N, type);        \
        FV_UNROLL                                                     \
        for (size_t r = 0; r < rows; r++) {                           \
            c[r][0] = vfmaq_laneq_f32(c[r][0], w.val[0], x[r], lane); \
            c[r][1] = vfmaq_laneq_f32(c[r][1], w.val[1], x[r], lane); \
        }                                                             \
    } while (0)

/* acc [rows, 8] (+)= the products of k elements; type of B; rows is a constant in every use. */
FV_INLINE void tile(float *acc, bool first, const float *a, size_t lda, const void *b, size_t k,
                    size_t rows, fv_type type)
{
    float32x4_t c[TILE_M][2], x[TILE_M];
    FV_UNROLL
    for (size_t r = 0; r < rows; r++) {
        c[r][0] = first ? vdupq_n_f32(0) : vld1q_f32(acc + r * TILE_N);
        c[r][1] = first ? vdupq_n_f32(0) : vld1q_f32(acc + r * TILE_N + 4);
    }
    size_t q = 0;
    for (; q + 4 <= k; q += 4) {
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            x[r] = vld1q_f32(a + r * lda + q);
        TILE_STEP(0);
        TILE_STEP(1);
        TILE_STEP(2);
        TILE_STEP(3);
    }
    for (; q < k; q++) {
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            x[r] = fv_ld(a + r * lda + q, 1);
        TILE_STEP(0);
    }
    FV_UNROLL
    for (size_t r = 0; r < rows; r++) {
        vst1q_f32(acc + r * TILE_N, c[r][0]);
        vst1q_f32(acc + r * TILE_N + 4, c[r][1]);
    }
}

#define TILE_ROWS(n) \
    case n: tile(acc, first, a, lda, b, k, n, type); break

FV_INLINE void tile_rows(float *acc, bool first, const float *a, size_t lda, const void *b,
                         size_t k, size_t rows, fv_type type)
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

/* ---- blocks of tiles --------------------------------------------------------------------- */

/* Rows of A as f32; returns where they are. */
FV_INLINE const float *copy_rows(float *to, const fv_gemm_args *g, size_t i, size_t rows, size_t at,
                                 size_t k, fv_type type)
{
    for (size_t r = 0; r < rows; r++) {
        size_t from = (i + r) * g->lda + at, q = 0;
        float *row = to + r * (STRETCH + PAD);
        for (; q + 8 <= k; q += 8) {
            float32x4x2_t x = load8(g->a, from + q, type);
            vst1q_f32(row + q, x.val[0]);
            vst1q_f32(row + q + 4, x.val[1]);
        }
        for (; q < k; q += 4)
            fv_st(row + q, fv_load(g->a, type, from + q, k - q), k - q);
    }
    return to;
}

/* One block of C, i1 - i0 rows: for each stretch of k, each panel of B meets all rows of the
 * block. */
FV_INLINE void block(const fv_gemm_args *g, size_t i0, size_t i1, size_t j0, float *copy,
                     fv_type type)
{
    float acc[BLOCK_N / TILE_N][BLOCK_M / TILE_M][TILE_M * TILE_N];
    size_t j1 = g->n - j0 < BLOCK_N ? g->n : j0 + BLOCK_N;
    for (size_t q = 0; q < g->k; q += STRETCH) {
        size_t depth = g->k - q < STRETCH ? g->k - q : STRETCH, lda = copy ? STRETCH + PAD : g->lda;
        bool last = q + depth == g->k;
        const float *a = copy ? copy_rows(copy, g, i0, i1 - i0, q, depth, type)
                              : (const float *)g->a + i0 * lda + q;
        for (size_t j = j0; j < j1; j += TILE_N) {
            const char *b = (const char *)g->b + (j * g->k + q * TILE_N) * fv_type_size(type);
            for (size_t i = i0; i < i1; i += TILE_M) {
                size_t rows = i1 - i < TILE_M ? i1 - i : TILE_M;
                float *sums = acc[(j - j0) / TILE_N][(i - i0) / TILE_M];
                tile_rows(sums, q == 0, a + (i - i0) * lda, lda, b, depth, rows, type);
                if (last)
                    gemm_epilogue(g, i, j, rows, sums);
            }
        }
    }
}

FV_INLINE void gemm(const fv_gemm_args *g, bool copy, fv_type type)
{
    float rows[COPY_M * (STRETCH + PAD)];
    size_t block_m = copy ? COPY_M : BLOCK_M;
    for (size_t j = 0; j < g->n; j += BLOCK_N)
        for (size_t i = 0; i < g->m; i += block_m)
            block(g, i, g->m - i < block_m ? g->m : i + block_m, j, copy ? rows : NULL, type);
}

static void gemm_f32_8x8__neon(const fv_gemm_args *g)
{
    gemm(g, g->lda * sizeof(float) % COLLIDE == 0, FV_TYPE_F32);
}

static void gemm_bf16_8x8__neon(const fv_gemm_args *g) { gemm(g, true, FV_TYPE_BF16); }

/* ---- packing ----------------------------------------------------------------------------- */

/* x: four k of four columns; afterwards four columns of each of four k */
FV_INLINE void transpose4(float32x4_t x[4])
{
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(x[0], x[1])),
                b = vreinterpretq_f64_f32(vtrn2q_f32(x[0], x[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(x[2], x[3])),
                d = vreinterpretq_f64_f32(vtrn2q_f32(x[2], x[3]));
    x[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    x[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    x[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    x[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

/* Four k of four columns, from element `first` of w on, to four columns of four k. */
FV_INLINE void pack_4x4(void *dst, fv_type to, size_t at, const void *w, fv_type from, size_t first,
                        size_t ld)
{
    float32x4_t x[4];
    FV_UNROLL
    for (size_t j = 0; j < 4; j++)
        x[j] = fv_load(w, from, first + j * ld, 4);
    transpose4(x);
    FV_UNROLL
    for (size_t r = 0; r < 4; r++)
        fv_store(dst, to, at + r * TILE_N, x[r], 4);
}

/* The same at the edges: `columns` and `depth` of them. */
static void pack_edge(void *dst, fv_type to, size_t at, const void *w, fv_type from, size_t first,
                      size_t ld, size_t columns, size_t depth)
{
    float32x4_t x[4];
    for (size_t j = 0; j < 4; j++)
        x[j] = j < columns ? fv_load(w, from, first + j * ld, depth) : vdupq_n_f32(0);
    transpose4(x);
    for (size_t r = 0; r < depth; r++)
        fv_store(dst, to, at + r * TILE_N, x[r], 4);
}

FV_INLINE void pack(void *dst, fv_type to, const void *w, fv_type from, size_t ld, size_t n,
                    size_t k)
{
    for (size_t p = 0, at = 0; p < n; p += TILE_N, at += TILE_N * k) {
        size_t q = 0;
        if (p + TILE_N <= n) {
            for (; q + 4 <= k; q += 4) {
                pack_4x4(dst, to, at + q * TILE_N, w, from, p * ld + q, ld);
                pack_4x4(dst, to, at + q * TILE_N + 4, w, from, (p + 4) * ld + q, ld);
            }
        }
        for (; q < k; q += 4) {
            size_t depth = k - q < 4 ? k - q : 4;
            for (size_t half = 0; half < TILE_N; half += 4)
                pack_edge(dst, to, at + q * TILE_N + half, w, from, (p + half) * ld + q, ld,
                          p + half < n ? n - p - half : 0, depth);
        }
    }
}

#define PACK(name, to, from)                                                  \
    static void name(void *dst, const void *w, size_t ld, size_t n, size_t k) \
    {                                                                         \
        pack(dst, to, w, from, ld, n, k);                                     \
    }
PACK(pack_f32_f32__neon, FV_TYPE_F32, FV_TYPE_F32)
PACK(pack_f32_f16__neon, FV_TYPE_F32, FV_TYPE_F16)
PACK(pack_f32_bf16__neon, FV_TYPE_F32, FV_TYPE_BF16)
PACK(pack_bf16_f32__neon, FV_TYPE_BF16, FV_TYPE_F32)
PACK(pack_bf16_f16__neon, FV_TYPE_BF16, FV_TYPE_F16)
PACK(pack_bf16_bf16__neon, FV_TYPE_BF16, FV_TYPE_BF16)

/* ---- matrix times vector ----------------------------------------------------------------- */

/* Sixteen values of a row, widened. */
FV_INLINE void load16(float32x4_t w[4], const void *p, size_t i, fv_type type)
{
    if (type == FV_TYPE_F16) {
        const uint16_t *h = (const uint16_t *)p + i;
        float16x8_t a = vreinterpretq_f16_u16(vld1q_u16(h)),
                    b = vreinterpretq_f16_u16(vld1q_u16(h + 8));
        w[0] = vcvt_f32_f16(vget_low_f16(a));
        w[1] = vcvt_high_f32_f16(a);
        w[2] = vcvt_f32_f16(vget_low_f16(b));
        w[3] = vcvt_high_f32_f16(b);
    } else {
        float32x4x2_t a = load8(p, i, type), b = load8(p, i + 8, type);
        w[0] = a.val[0];
        w[1] = a.val[1];
        w[2] = b.val[0];
        w[3] = b.val[1];
    }
}

/* Sums of `rows` (1 or 4) rows from row j on. A row has 16 partial sums: element k goes to
 * number k mod 16. They are added as quarters, then within the quarter. */
FV_INLINE float32x4_t dots(const void *w, size_t at, size_t ld, const float *x, size_t k,
                           size_t rows, fv_type type)
{
    float32x4_t c[4][4], s[4];
    FV_UNROLL
    for (size_t r = 0; r < 4; r++)
        FV_UNROLL
    for (size_t part = 0; part < 4; part++)
        c[r][part] = vdupq_n_f32(0);
    size_t q = 0;
    for (; q + 16 <= k; q += 16) {
        float32x4_t v[4], u[4];
        load16(v, x, q, FV_TYPE_F32);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++) {
            /* one row's loads at a time, or registers run out */
            __asm__ volatile("" ::: "memory");
            load16(u, w, at + r * ld + q, type);
            FV_UNROLL
            for (size_t part = 0; part < 4; part++)
                c[r][part] = vfmaq_f32(c[r][part], u[part], v[part]);
        }
    }
    for (size_t part = 0; q < k; part++, q += 4) {
        size_t n = k - q < 4 ? k - q : 4;
        float32x4_t v = fv_ld(x + q, n);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++) {
            float32x4_t u = fv_load(w, type, at + r * ld + q, n);
            if (part == 0)
                c[r][0] = vfmaq_f32(c[r][0], u, v);
            else if (part == 1)
                c[r][1] = vfmaq_f32(c[r][1], u, v);
            else if (part == 2)
                c[r][2] = vfmaq_f32(c[r][2], u, v);
            else
                c[r][3] = vfmaq_f32(c[r][3], u, v);
        }
    }
    FV_UNROLL
    for (size_t r = 0; r < 4; r++)
        s[r] = vaddq_f32(vaddq_f32(c[r][0], c[r][1]), vaddq_f32(c[r][2], c[r][3]));
    return vpaddq_f32(vpaddq_f32(s[0], s[1]), vpaddq_f32(s[2], s[3]));
}

FV_INLINE void gemv(float *y, const void *w, size_t ld, const float *x, const float *bias, size_t n,
                    size_t k, fv_type type)
{
    size_t j = 0;
    for (; j + 4 <= n; j += 4) {
        float32x4_t s = dots(w, j * ld, ld, x, k, 4, type);
        vst1q_f32(y + j, bias ? vaddq_f32(s, vld1q_f32(bias + j)) : s);
    }
    for (; j < n; j++) {
        float s = vgetq_lane_f32(dots(w, j * ld, ld, x, k, 1, type), 0);
        y[j] = bias ? s + bias[j] : s;
    }
}

#define GEMV(name, type)                                                                    \
    static void name(float *y, const void *w, size_t ld, const float *x, const float *bias, \
                     size_t n, size_t k)                                                    \
    {                                                                                       \
        gemv(y, w, ld, x, bias, n, k, type);                                                \
    }
GEMV(gemv_f32__neon, FV_TYPE_F32)
GEMV(gemv_f16__neon, FV_TYPE_F16)
GEMV(gemv_bf16__neon, FV_TYPE_BF16)

/* ---- matrix times several vectors -------------------------------------------------------- */

/* As dots, the other way round: the products of one row of weights with `rows` rows of x, four at
 * most, which lie ldx apart. */
FV_INLINE float32x4_t dots_shared(const void *w, size_t at, const float *x, size_t ldx, size_t k,
                                  size_t rows, fv_type type)
{
    float32x4_t c[4][4], s[4];
    FV_UNROLL
    for (size_t r = 0; r < 4; r++)
        c[r][0] = c[r][1] = c[r][2] = c[r][3] = vdupq_n_f32(0);
    size_t q = 0;
    for (; q + 16 <= k; q += 16) {
        float32x4_t v[4], u[4];
        load16(v, w, at + q, type);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++) {
            __asm__ volatile("" ::: "memory");
            load16(u, x, r * ldx + q, FV_TYPE_F32);
            FV_UNROLL
            for (size_t part = 0; part < 4; part++)
                c[r][part] = vfmaq_f32(c[r][part], v[part], u[part]);
        }
    }
    FV_UNROLL
    for (size_t part = 0; part < 4; part++) {
        if (q >= k)
            continue;
        size_t n = k - q < 4 ? k - q : 4;
        float32x4_t v = fv_load(w, type, at + q, n);
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            c[r][part] = vfmaq_f32(c[r][part], v, fv_ld(x + r * ldx + q, n));
        q += 4;
    }
    FV_UNROLL
    for (size_t r = 0; r < 4; r++)
        s[r] = vaddq_f32(vaddq_f32(c[r][0], c[r][1]), vaddq_f32(c[r][2], c[r][3]));
    return vpaddq_f32(vpaddq_f32(s[0], s[1]), vpaddq_f32(s[2], s[3]));
}

FV_INLINE void gemv_rows(float *y, size_t ldy, const void *w, size_t ld, const float *x, size_t ldx,
                         const float *bias, size_t m, size_t n, size_t k, fv_type type)
{
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < m; i += 4) {
            const size_t rows = m - i < 4 ? m - i : 4;
            const float *from = x + i * ldx;
            float32x4_t s;
            switch (rows) {
            case 4: s = dots_shared(w, j * ld, from, ldx, k, 4, type); break;
            case 3: s = dots_shared(w, j * ld, from, ldx, k, 3, type); break;
            case 2: s = dots_shared(w, j * ld, from, ldx, k, 2, type); break;
            default: s = dots_shared(w, j * ld, from, ldx, k, 1, type); break;
            }
            if (bias)
                s = vaddq_f32(s, vdupq_n_f32(bias[j]));
            float sums[4];
            vst1q_f32(sums, s);
            for (size_t r = 0; r < rows; r++)
                y[(i + r) * ldy + j] = sums[r];
        }
    }
}

#define GEMV_ROWS(name, type)                                                                    \
    static void name(float *y, size_t ldy, const void *w, size_t ld, const float *x, size_t ldx, \
                     const float *bias, size_t m, size_t n, size_t k)                            \
    {                                                                                            \
        gemv_rows(y, ldy, w, ld, x, ldx, bias, m, n, k, type);                                   \
    }
GEMV_ROWS(gemv_rows_f32__neon, FV_TYPE_F32)
GEMV_ROWS(gemv_rows_f16__neon, FV_TYPE_F16)
GEMV_ROWS(gemv_rows_bf16__neon, FV_TYPE_BF16)

void fv_gemm_init_neon(fv_kernels *k);
void fv_gemm_init_neon(fv_kernels *k)
{
    k->gemm_f32 = (fv_gemm_kernel){ .type = FV_TYPE_F32,
                                    .mr = TILE_M,
                                    .nr = TILE_N,
                                    .kg = 1,
                                    .run = gemm_f32_8x8__neon,
                                    .pack = { [FV_TYPE_F32] = pack_f32_f32__neon,
                                              [FV_TYPE_F16] = pack_f32_f16__neon,
                                              [FV_TYPE_BF16] = pack_f32_bf16__neon } };
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16,
                                     .mr = TILE_M,
                                     .nr = TILE_N,
                                     .kg = 1,
                                     .run = gemm_bf16_8x8__neon,
                                     .pack = { [FV_TYPE_F32] = pack_bf16_f32__neon,
                                               [FV_TYPE_F16] = pack_bf16_f16__neon,
                                               [FV_TYPE_BF16] = pack_bf16_bf16__neon } };
    k->gemv[FV_TYPE_F32] = gemv_f32__neon;
    k->gemv[FV_TYPE_F16] = gemv_f16__neon;
    k->gemv[FV_TYPE_BF16] = gemv_bf16__neon;
    k->gemv_rows[FV_TYPE_F32] = gemv_rows_f32__neon;
    k->gemv_rows[FV_TYPE_F16] = gemv_rows_f16__neon;
    k->gemv_rows[FV_TYPE_BF16] = gemv_rows_bf16__neon;
}
