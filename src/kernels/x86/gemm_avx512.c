/* Matrix products, packing and matrix-vector products in f32 for AVX-512. */
#include "kernels/x86/gemm_avx512.h"

#define MAC_F32(s, a, b) _mm512_fmadd_ps(a, b, s)
DEFINE_TILES(tile_f32, MAC_F32)

static void gemm_f32_14x32__avx512(const fv_gemm_args *g) { gemm(g, tile_f32s, 4); }

PACK(pack_f32_f32__avx512, FV_TYPE_F32, FV_TYPE_F32)
PACK(pack_f32_f16__avx512, FV_TYPE_F32, FV_TYPE_F16)
PACK(pack_f32_bf16__avx512, FV_TYPE_F32, FV_TYPE_BF16)

/* ---- matrix times vector --------------------------------------------------------------- */

/* One row after the other, four registers of partial sums a row. The rows of a task are one
 * sequential stream, which the hardware prefetchers follow at the memory's rate: on Zen 4 several rows
 * at once, or prefetch instructions, halve it (docs/performance.md). */
static inline __attribute__((always_inline)) void gemv(float *y, const void *w, fv_type type, size_t ld,
                                                       const float *x, const float *bias, size_t n, size_t k)
{
    const char *row = w;
    for (size_t j = 0; j < n; j++, row += ld * fv_type_size(type)) {
        __m512 s[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
        size_t q = 0;
        for (; q + 64 <= k; q += 64)
            UNROLL for (int i = 0; i < 4; i++)
                s[i] = _mm512_fmadd_ps(load_f32(row, type, q + 16 * (size_t)i, 0xffff),
                                       _mm512_loadu_ps(x + q + 16 * (size_t)i), s[i]);
        for (int i = 0; q < k; q += 16, i++) {
            const __mmask16 mask = k - q >= 16 ? 0xffff : (__mmask16)((1u << (k - q)) - 1);
            s[i] = _mm512_fmadd_ps(load_f32(row, type, q, mask), _mm512_maskz_loadu_ps(mask, x + q), s[i]);
        }
        float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])));
        y[j] = bias ? sum + bias[j] : sum;
    }
}

#define GEMV(name, type)                                                                                \
    static void name(float *y, const void *w, size_t ld, const float *x, const float *bias, size_t n,   \
                     size_t k)                                                                          \
    {                                                                                                   \
        gemv(y, w, type, ld, x, bias, n, k);                                                            \
    }
GEMV(gemv_f32__avx512, FV_TYPE_F32)
GEMV(gemv_f16__avx512, FV_TYPE_F16)

enum { GEMV_MAX_K = 20480 }; /* of the sorted copy of x on the stack, 80 KiB */

/* 32 weights in one register: the even ones are its dwords shifted left, the odd ones its dwords without
 * their lower half. x is sorted to match: 16 even elements, 16 odd ones. Fewer instructions a byte than
 * widening, so that more cache lines are under way at once. */
static void gemv_bf16__avx512(float *y, const void *w, size_t ld, const float *x, const float *bias, size_t n, size_t k)
{
    if (k > GEMV_MAX_K) {
        gemv(y, w, FV_TYPE_BF16, ld, x, bias, n, k);
        return;
    }
    _Alignas(64) float sorted[GEMV_MAX_K];
    const __m512i odd = _mm512_set1_epi32((int)0xffff0000), pick = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20,
                                                                                   22, 24, 26, 28, 30);
    size_t whole = k / 64 * 64;
    for (size_t q = 0; q < whole; q += 32) {
        __m512 a = _mm512_loadu_ps(x + q), b = _mm512_loadu_ps(x + q + 16);
        _mm512_store_ps(sorted + q, _mm512_permutex2var_ps(a, pick, b));
        _mm512_store_ps(sorted + q + 16, _mm512_permutex2var_ps(a, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), b));
    }
    const uint16_t *row = w;
    for (size_t j = 0; j < n; j++, row += ld) {
        __m512 s[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
        for (size_t q = 0; q < whole; q += 64)
            UNROLL for (int i = 0; i < 2; i++) {
                __m512i u = _mm512_loadu_si512(row + q + 32 * (size_t)i);
                const float *xs = sorted + q + 32 * (size_t)i;
                s[2 * i] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(u, 16)), _mm512_load_ps(xs), s[2 * i]);
                s[2 * i + 1] = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(u, odd)), _mm512_load_ps(xs + 16),
                                               s[2 * i + 1]);
            }
        for (size_t q = whole, i = 0; q < k; q += 16, i++) {
            const __mmask16 mask = k - q >= 16 ? 0xffff : (__mmask16)((1u << (k - q)) - 1);
            s[i] = _mm512_fmadd_ps(load_f32((const char *)row, FV_TYPE_BF16, q, mask), _mm512_maskz_loadu_ps(mask, x + q), s[i]);
        }
        float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])));
        y[j] = bias ? sum + bias[j] : sum;
    }
}

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
