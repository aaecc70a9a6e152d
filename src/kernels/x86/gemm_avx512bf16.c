/* Matrix product of bf16 operands for AVX-512 with BF16: vdpbf16ps multiplies pairs and adds them
 * to an f32 sum. It takes subnormal operands and results for zero, which is far below the bound. */
#include <immintrin.h>

#include "base/types.h"

static inline void store_native(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x);
#define STORE_AVX512 store_native
#include "kernels/x86/gemm_avx512.h"

/* vcvtneps2bf16 rounds as fv_f32_to_bf16 does but for subnormals, which become zero. */
static inline void store_native(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x)
{
    if (type == FV_TYPE_BF16)
        _mm256_mask_storeu_epi16((uint16_t *)p + i, mask, (__m256i)_mm512_cvtneps_pbh(x));
    else
        fv_store_avx512(p, type, i, mask, x);
}

#define MAC_BF16(s, a, b) _mm512_dpbf16_ps(s, (__m512bh)(a), (__m512bh)(b))
DEFINE_TILES(tile_bf16, MAC_BF16)

static void gemm_bf16_14x32__avx512bf16(const fv_gemm_args *g) { gemm(g, tile_bf16s, 2); }

/* ---- packing -------------------------------------------------------------------------- */

/* 16 rows of 16 words become 16 columns of words. */
static inline void transpose(__m512i r[16])
{
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        UNROLL for (int h = 0; h < 2; h++) {
            r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + h + 2]);
            r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + h + 2]);
        }
    }
    UNROLL for (int c = 0; c < 4; c++) { /* r[4 b + c]: column 4 q + c of rows 4 b .. 4 b + 3 in quarter q */
        __m512i lo01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), hi01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        __m512i lo23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        __m512i hi23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(lo01, lo23, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(lo01, lo23, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(hi01, hi23, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(hi01, hi23, 0xdd);
    }
    UNROLL for (int i = 0; i < 16; i++) r[i] = t[i];
}

/* Columns of mask, 32 from element i on, as bf16. */
static inline __m512i load_bf16(const char *row, fv_type type, size_t i, __mmask32 mask)
{
    if (type == FV_TYPE_BF16)
        return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)(const void *)row + i);
    __mmask16 low = (__mmask16)mask, high = (__mmask16)(mask >> 16);
    __m512 a, b;
    if (type == FV_TYPE_F16) {
        __m512i half = _mm512_maskz_loadu_epi16(mask, (const uint16_t *)(const void *)row + i);
        a = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
        b = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1));
    } else {
        a = _mm512_maskz_loadu_ps(low, (const float *)(const void *)row + i);
        b = _mm512_maskz_loadu_ps(high, (const float *)(const void *)row + i + 16);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(b, a);
}

static inline __attribute__((always_inline)) void pack_bf16(uint16_t *dst, const void *w, fv_type type, size_t ld,
                                                            size_t n, size_t k)
{
    const size_t row_bytes = ld * fv_type_size(type), groups = (k + 1) / 2;
    for (size_t j = 0; j < n; j += NR, dst += NR * 2 * groups) {
        for (size_t h = 0; h < NR; h += 16) {
            const size_t rows = j + h < n ? FV_MIN((size_t)16, n - j - h) : 0;
            const char *from = (const char *)w + (j + h) * row_bytes;
            for (size_t q = 0; q < k; q += 32) {
                const size_t columns = FV_MIN((size_t)32, k - q), pairs = (columns + 1) / 2;
                const __mmask32 mask = columns == 32 ? ~(__mmask32)0 : ((__mmask32)1 << columns) - 1;
                uint16_t *to = dst + q * NR + h * 2;
                __m512i r[16];
                if (rows == 16) {
                    UNROLL for (int i = 0; i < 16; i++) {
                        r[i] = load_bf16(from + (size_t)i * row_bytes, type, q, mask);
                        _mm_prefetch(from + (size_t)i * row_bytes + q * fv_type_size(type) + 512, _MM_HINT_T0);
                    }
                } else {
                    UNROLL for (int i = 0; i < 16; i++)
                        r[i] = (size_t)i < rows ? load_bf16(from + (size_t)i * row_bytes, type, q, mask)
                                                : _mm512_setzero_si512();
                }
                transpose(r);
                if (pairs == 16) {
                    UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * NR * 2, r[i]);
                } else {
                    UNROLL for (int i = 0; i < 16; i++)
                        if ((size_t)i < pairs)
                            _mm512_store_si512(to + i * NR * 2, r[i]);
                }
            }
        }
    }
}

static void pack_bf16_f32__avx512bf16(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_bf16(dst, w, FV_TYPE_F32, ld, n, k);
}

static void pack_bf16_f16__avx512bf16(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_bf16(dst, w, FV_TYPE_F16, ld, n, k);
}

static void pack_bf16_bf16__avx512bf16(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    pack_bf16(dst, w, FV_TYPE_BF16, ld, n, k);
}

void fv_gemm_init_avx512bf16(fv_kernels *k);
void fv_gemm_init_avx512bf16(fv_kernels *k)
{
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16, .mr = MR, .nr = NR, .kg = 2,
                                     .run = gemm_bf16_14x32__avx512bf16,
                                     .pack = { [FV_TYPE_F32] = pack_bf16_f32__avx512bf16,
                                               [FV_TYPE_F16] = pack_bf16_f16__avx512bf16,
                                               [FV_TYPE_BF16] = pack_bf16_bf16__avx512bf16 } };
    k->fast_bf16 = true;
}
