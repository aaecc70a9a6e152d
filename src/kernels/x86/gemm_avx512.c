/* Matrix products, packing and matrix-vector products in f32 for AVX-512. */
#include "kernels/x86/gemm_avx512.h"

#define MAC_F32(s, a, b) _mm512_fmadd_ps(a, b, s)
DEFINE_TILES(tile_f32, MAC_F32)

static void gemm_f32_14x32__avx512(const fv_gemm_args *g) { gemm(g, tile_f32s, 4); }

PACK(pack_f32_f32__avx512, FV_TYPE_F32, FV_TYPE_F32)
PACK(pack_f32_f16__avx512, FV_TYPE_F32, FV_TYPE_F16)
PACK(pack_f32_bf16__avx512, FV_TYPE_F32, FV_TYPE_BF16)

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
            s[i][0] = _mm512_fmadd_ps(load_f32(row, type, q, 0xffff), x0, s[i][0]);
            s[i][1] = _mm512_fmadd_ps(load_f32(row, type, q + 16, 0xffff), x1, s[i][1]);
        }
    }
    for (int h = 0; q < k; q += 16, h = 1) {
        const __mmask16 mask = k - q >= 16 ? 0xffff : (__mmask16)((1u << (k - q)) - 1);
        __m512 xq = _mm512_maskz_loadu_ps(mask, x + q);
        UNROLL for (int i = 0; i < rows; i++) {
            __m512 wq = load_f32(w + (size_t)i * row_bytes, type, q, mask);
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
