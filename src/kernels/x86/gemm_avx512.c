/* Matrix products, packing and matrix-vector products in f32 for AVX-512. */
#include "kernels/x86/gemm_avx512.h"

#define MAC_F32(s, a, b) _mm512_fmadd_ps(a, b, s)
DEFINE_TILES(tile_f32, MAC_F32)

static void gemm_f32_14x32__avx512(const fv_gemm_args *g) { gemm(g, tile_f32s, 4); }

PACK(pack_f32_f32__avx512, FV_TYPE_F32, FV_TYPE_F32)
PACK(pack_f32_f16__avx512, FV_TYPE_F32, FV_TYPE_F16)
PACK(pack_f32_bf16__avx512, FV_TYPE_F32, FV_TYPE_BF16)

/* ---- matrix times vector ----------------------------------------------------------------- */

/* One row after the other and nothing fetched ahead: a single stream is what the processor's own
 * prefetcher follows best. Two registers of 16 partial sums, for even and odd groups of 16. */
static inline __attribute__((always_inline)) void gemv(float *y, const void *w, fv_type type,
                                                       size_t ld, const float *x, const float *bias,
                                                       size_t n, size_t k)
{
    const size_t row_bytes = ld * fv_type_size(type);
    const char *row = w;
    for (size_t j = 0; j < n; j++, row += row_bytes) {
        __m512 s0 = _mm512_setzero_ps(), s1 = s0;
        size_t q = 0;
        for (; q + 32 <= k; q += 32) {
            __m512 w0, w1;
            if (type == FV_TYPE_F32) {
                w0 = load_f32(row, type, q, 0xffff);
                w1 = load_f32(row, type, q + 16, 0xffff);
            } else { /* a whole line at once */
                __m512i line = _mm512_loadu_si512((const uint16_t *)(const void *)row + q);
                __m256i low = _mm512_castsi512_si256(line),
                        high = _mm512_extracti64x4_epi64(line, 1);
                if (type == FV_TYPE_F16) {
                    w0 = _mm512_cvtph_ps(low);
                    w1 = _mm512_cvtph_ps(high);
                } else {
                    w0 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16));
                    w1 = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
                }
            }
            s0 = _mm512_fmadd_ps(w0, _mm512_loadu_ps(x + q), s0);
            s1 = _mm512_fmadd_ps(w1, _mm512_loadu_ps(x + q + 16), s1);
        }
        if (q < k) {
            const size_t left = k - q;
            const __mmask16 m0 = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
            const __mmask16 m1 = left > 16 ? (__mmask16)((1u << (left - 16)) - 1) : 0;
            s0 = _mm512_fmadd_ps(load_f32(row, type, q, m0), _mm512_maskz_loadu_ps(m0, x + q), s0);
            s1 = _mm512_fmadd_ps(load_f32(row, type, q + 16, m1),
                                 _mm512_maskz_loadu_ps(m1, x + q + 16), s1);
        }
        float sum = _mm512_reduce_add_ps(_mm512_add_ps(s0, s1));
        y[j] = bias ? sum + bias[j] : sum;
    }
}

#define GEMV(name, type)                                                                    \
    static void name(float *y, const void *w, size_t ld, const float *x, const float *bias, \
                     size_t n, size_t k)                                                    \
    {                                                                                       \
        gemv(y, w, type, ld, x, bias, n, k);                                                \
    }
GEMV(gemv_f32__avx512, FV_TYPE_F32)
GEMV(gemv_f16__avx512, FV_TYPE_F16)
GEMV(gemv_bf16__avx512, FV_TYPE_BF16)

/* ---- matrix times several vectors -------------------------------------------------------- */

enum {
    GROUP = 8,    /* rows of weights that pass by a stretch of k ... */
    STRETCH = 768 /* ... of 8 rows of x, which then take 24 KiB of L1 */
};

/* 32 weights of a row, widened as gemv does it. */
static inline void load_32(__m512 w[2], const char *row, fv_type type, size_t q)
{
    if (type == FV_TYPE_F32) {
        w[0] = load_f32(row, type, q, 0xffff);
        w[1] = load_f32(row, type, q + 16, 0xffff);
        return;
    }
    const __m512i line = _mm512_loadu_si512((const uint16_t *)(const void *)row + q);
    const __m256i low = _mm512_castsi512_si256(line), high = _mm512_extracti64x4_epi64(line, 1);
    if (type == FV_TYPE_F16) {
        w[0] = _mm512_cvtph_ps(low);
        w[1] = _mm512_cvtph_ps(high);
    } else {
        w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(low), 16));
        w[1] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    }
}

/* s[0], s[1] [m] += elements [q, end) of a row of weights times m rows x: gemv's operations. end is
 * a multiple of 32, or the row's. */
static inline __attribute__((always_inline)) void add_stretch(__m512 s[2][FV_GEMV_ROWS],
                                                              const char *row, const char *ahead,
                                                              fv_type type, const float *x,
                                                              size_t ldx, const size_t m, size_t q,
                                                              size_t end)
{
    for (x += q; q + 32 <= end; q += 32, x += 32, ahead += 32 * fv_type_size(type)) {
        __m512 w[2];
        _mm_prefetch(ahead, _MM_HINT_T1);
        if (type == FV_TYPE_F32)
            _mm_prefetch(ahead + 64, _MM_HINT_T1);
        load_32(w, row, type, q);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            s[0][i] = _mm512_fmadd_ps(w[0], _mm512_loadu_ps(x + i * ldx), s[0][i]);
            s[1][i] = _mm512_fmadd_ps(w[1], _mm512_loadu_ps(x + i * ldx + 16), s[1][i]);
        }
    }
    if (q < end) {
        const size_t left = end - q;
        const __mmask16 m0 = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        const __mmask16 m1 = left > 16 ? (__mmask16)((1u << (left - 16)) - 1) : 0;
        const __m512 w0 = load_f32(row, type, q, m0), w1 = load_f32(row, type, q + 16, m1);
        UNROLL for (size_t i = 0; i < m; i++)
        {
            s[0][i] = _mm512_fmadd_ps(w0, _mm512_maskz_loadu_ps(m0, x + i * ldx), s[0][i]);
            s[1][i] = _mm512_fmadd_ps(w1, _mm512_maskz_loadu_ps(m1, x + i * ldx + 16), s[1][i]);
        }
    }
}

/* m is a constant in every use. Deep rows are cut into stretches of which all m rows of x stay in
 * L1 while a group of rows of weights, whose sums wait in memory, passes by. Weights are asked for
 * in the order in which they lie, a group ahead. */
static inline __attribute__((always_inline)) void gemv_rows(float *y, size_t ldy, const void *w,
                                                            fv_type type, size_t ld, const float *x,
                                                            size_t ldx, const float *bias,
                                                            const size_t m, size_t n, size_t k)
{
    const size_t row_bytes = ld * fv_type_size(type);
    __m512 sums[GROUP][2][FV_GEMV_ROWS];
    for (size_t j0 = 0; j0 < n; j0 += GROUP) {
        const char *group = (const char *)w + j0 * row_bytes, *ahead = group + GROUP * row_bytes;
        const size_t rows = FV_MIN((size_t)GROUP, n - j0);
        size_t q = 0, end;
        do {
            end = FV_MIN(k, q + STRETCH);
            for (size_t j = 0; j < rows; j++, ahead += (end - q) * fv_type_size(type)) {
                __m512 s[2][FV_GEMV_ROWS];
                UNROLL for (size_t i = 0; i < m; i++)
                {
                    s[0][i] = q ? sums[j][0][i] : _mm512_setzero_ps();
                    s[1][i] = q ? sums[j][1][i] : _mm512_setzero_ps();
                }
                add_stretch(s, group + j * row_bytes, ahead, type, x, ldx, m, q, end);
                UNROLL for (size_t i = 0; i < m; i++)
                {
                    if (end < k) {
                        sums[j][0][i] = s[0][i];
                        sums[j][1][i] = s[1][i];
                        continue;
                    }
                    const float sum = _mm512_reduce_add_ps(_mm512_add_ps(s[0][i], s[1][i]));
                    y[i * ldy + j0 + j] = bias ? sum + bias[j0 + j] : sum;
                }
            }
        } while ((q = end) < k);
    }
}

#define GEMV_ROWS_CASE(type, m)                                \
    case m:                                                    \
        gemv_rows(y, ldy, w, type, ld, x, ldx, bias, m, n, k); \
        break;
#define GEMV_ROWS(name, type)                                                                    \
    static void name(float *y, size_t ldy, const void *w, size_t ld, const float *x, size_t ldx, \
                     const float *bias, size_t m, size_t n, size_t k)                            \
    {                                                                                            \
        switch (m) {                                                                             \
            GEMV_ROWS_CASE(type, 1)                                                              \
            GEMV_ROWS_CASE(type, 2)                                                              \
            GEMV_ROWS_CASE(type, 3)                                                              \
            GEMV_ROWS_CASE(type, 4)                                                              \
            GEMV_ROWS_CASE(type, 5)                                                              \
            GEMV_ROWS_CASE(type, 6)                                                              \
            GEMV_ROWS_CASE(type, 7)                                                              \
            GEMV_ROWS_CASE(type, 8)                                                              \
        }                                                                                        \
    }
GEMV_ROWS(gemv_rows_f32__avx512, FV_TYPE_F32)
GEMV_ROWS(gemv_rows_f16__avx512, FV_TYPE_F16)
GEMV_ROWS(gemv_rows_bf16__avx512, FV_TYPE_BF16)

void fv_gemm_init_avx512(fv_kernels *k);
void fv_gemm_init_avx512(fv_kernels *k)
{
    k->gemm_f32 = (fv_gemm_kernel){ .type = FV_TYPE_F32,
                                    .mr = MR,
                                    .nr = NR,
                                    .kg = 1,
                                    .run = gemm_f32_14x32__avx512,
                                    .pack = { [FV_TYPE_F32] = pack_f32_f32__avx512,
                                              [FV_TYPE_F16] = pack_f32_f16__avx512,
                                              [FV_TYPE_BF16] = pack_f32_bf16__avx512 } };
    k->gemv[FV_TYPE_F32] = gemv_f32__avx512;
    k->gemv[FV_TYPE_F16] = gemv_f16__avx512;
    k->gemv[FV_TYPE_BF16] = gemv_bf16__avx512;
    k->gemv_rows[FV_TYPE_F32] = gemv_rows_f32__avx512;
    k->gemv_rows[FV_TYPE_F16] = gemv_rows_f16__avx512;
    k->gemv_rows[FV_TYPE_BF16] = gemv_rows_bf16__avx512;
}
