/* Matrix products, packing and matrix-vector products in f32 for AVX-512. */
#include "kernels/x86/gemm_avx512.h"

#define MAC_F32(s, a, b) _mm512_fmadd_ps(a, b, s)
DEFINE_TILES(tile_f32, MAC_F32)

static void gemm_f32_14x32__avx512(const fv_gemm_args *g) { gemm(g, tile_f32s, 4); }

/* ---- packing -------------------------------------------------------------------------- */

/* 16 rows of 16 values become 16 columns: pairs, fours, then 128-bit quarters change places. */
static inline void transpose(__m512 r[16])
{
    __m512 t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        UNROLL for (int h = 0; h < 2; h++) {
            __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + h + 2]);
            r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    /* r[4 b + c] holds column 4 q + c of rows 4 b .. 4 b + 3 in quarter q */
    UNROLL for (int c = 0; c < 4; c++) {
        __m512 lo01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), hi01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        __m512 lo23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        __m512 hi23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(lo01, lo23, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(lo01, lo23, 0xdd);
        t[4 + c] = _mm512_shuffle_f32x4(hi01, hi23, 0x88);
        t[12 + c] = _mm512_shuffle_f32x4(hi01, hi23, 0xdd);
    }
    UNROLL for (int i = 0; i < 16; i++) r[i] = t[i];
}

/* The values of mask at element i of a row, widened. */
static inline __m512 load_wide(const void *w, fv_type type, size_t i, __mmask16 mask)
{
    const uint16_t *half = (const uint16_t *)w + i;
    switch (type) {
    case FV_TYPE_F16: return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, half));
    case FV_TYPE_BF16: {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, half));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    default: return _mm512_maskz_loadu_ps(mask, (const float *)w + i);
    }
}

static inline __attribute__((always_inline)) void pack_f32(float *dst, const void *w, fv_type type, size_t ld,
                                                           size_t n, size_t k)
{
    const size_t row_bytes = ld * fv_type_size(type);
    for (size_t j = 0; j < n; j += NR, dst += NR * k) {
        for (size_t h = 0; h < NR; h += 16) {
            const size_t rows = j + h < n ? FV_MIN((size_t)16, n - j - h) : 0;
            const char *from = (const char *)w + (j + h) * row_bytes;
            for (size_t q = 0; q < k; q += 16) {
                const size_t columns = FV_MIN((size_t)16, k - q);
                const __mmask16 mask = (__mmask16)((1u << columns) - 1);
                float *to = dst + q * NR + h;
                __m512 r[16];
                if (rows == 16) {
                    UNROLL for (int i = 0; i < 16; i++) {
                        r[i] = load_wide(from + (size_t)i * row_bytes, type, q, mask);
                        _mm_prefetch(from + (size_t)i * row_bytes + q * fv_type_size(type) + 512, _MM_HINT_T0);
                    }
                } else {
                    UNROLL for (int i = 0; i < 16; i++)
                        r[i] = (size_t)i < rows ? load_wide(from + (size_t)i * row_bytes, type, q, mask)
                                                : _mm512_setzero_ps();
                }
                transpose(r);
                if (columns == 16) {
                    UNROLL for (int i = 0; i < 16; i++) _mm512_store_ps(to + i * NR, r[i]);
                } else {
                    UNROLL for (int i = 0; i < 16; i++)
                        if ((size_t)i < columns)
                            _mm512_store_ps(to + i * NR, r[i]);
                }
            }
        }
    }
}

static void pack_f32_f32__avx512(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_f32(dst, w, FV_TYPE_F32, ld, n, k);
}

static void pack_f32_f16__avx512(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_f32(dst, w, FV_TYPE_F16, ld, n, k);
}

static void pack_f32_bf16__avx512(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_f32(dst, w, FV_TYPE_BF16, ld, n, k);
}

/* ---- matrix times vector --------------------------------------------------------------- */

/* ROWS rows at once, each with one register of 16 partial sums for even and one for odd groups of 16. */
static inline __attribute__((always_inline)) void gemv_rows(float *y, const char *w, fv_type type, size_t row_bytes,
                                                            const float *x, const float *bias, size_t k,
                                                            const int rows)
{
    const size_t size = fv_type_size(type);
    __m512 s[8][2];
    UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = _mm512_setzero_ps();
    size_t q = 0;
    for (; q + 32 <= k; q += 32) {
        __m512 x0 = _mm512_loadu_ps(x + q), x1 = _mm512_loadu_ps(x + q + 16);
        UNROLL for (int i = 0; i < rows; i++) {
            const char *row = w + (size_t)i * row_bytes;
            _mm_prefetch(row + q * size + 1024, _MM_HINT_T0);
            if (size == 4)
                _mm_prefetch(row + q * size + 1024 + 64, _MM_HINT_T0);
            s[i][0] = _mm512_fmadd_ps(load_wide(row, type, q, 0xffff), x0, s[i][0]);
            s[i][1] = _mm512_fmadd_ps(load_wide(row, type, q + 16, 0xffff), x1, s[i][1]);
        }
    }
    for (int h = 0; q < k; q += 16, h = 1) {
        const __mmask16 mask = k - q >= 16 ? 0xffff : (__mmask16)((1u << (k - q)) - 1);
        __m512 xq = _mm512_maskz_loadu_ps(mask, x + q);
        UNROLL for (int i = 0; i < rows; i++) {
            __m512 wq = load_wide(w + (size_t)i * row_bytes, type, q, mask);
            if (h)
                s[i][1] = _mm512_fmadd_ps(wq, xq, s[i][1]);
            else
                s[i][0] = _mm512_fmadd_ps(wq, xq, s[i][0]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++) {
        float sum = _mm512_reduce_add_ps(_mm512_add_ps(s[i][0], s[i][1]));
        y[i] = bias ? sum + bias[i] : sum;
    }
}

static inline __attribute__((always_inline)) void gemv(float *y, const void *w, fv_type type, size_t ld,
                                                       const float *x, const float *bias, size_t n, size_t k)
{
    const size_t row_bytes = ld * fv_type_size(type);
    const char *row = w;
    size_t j = 0;
    for (; j + 4 <= n; j += 4, row += 4 * row_bytes)
        gemv_rows(y + j, row, type, row_bytes, x, bias ? bias + j : NULL, k, 4);
    for (; j < n; j++, row += row_bytes)
        gemv_rows(y + j, row, type, row_bytes, x, bias ? bias + j : NULL, k, 1);
}

#define GEMV(name, type)                                                                                \
    static void name(float *y, const void *w, size_t ld, const float *x, const float *bias, size_t n,   \
                     size_t k)                                                                          \
    {                                                                                                   \
        gemv(y, w, type, ld, x, bias, n, k);                                                            \
    }
GEMV(gemv_f32__avx512, FV_TYPE_F32)
GEMV(gemv_f16__avx512, FV_TYPE_F16)
GEMV(gemv_bf16__avx512, FV_TYPE_BF16)

void fv_gemm_init_avx512(fv_kernels *k);
void fv_gemm_init_avx512(fv_kernels *k)
{
    k->gemm_f32 = (fv_gemm_kernel){ .type = FV_TYPE_F32, .mr = MR, .nr = NR, .kg = 1, .run = gemm_f32_14x32__avx512,
                                    .pack = { [FV_TYPE_F32] = pack_f32_f32__avx512,
                                              [FV_TYPE_F16] = pack_f32_f16__avx512,
                                              [FV_TYPE_BF16] = pack_f32_bf16__avx512 } };
    k->gemv[FV_TYPE_F32] = gemv_f32__avx512;
    k->gemv[FV_TYPE_F16] = gemv_f16__avx512;
    k->gemv[FV_TYPE_BF16] = gemv_bf16__avx512;
}
