/* Matrix products, packing and matrix-vector products for AVX2 with FMA and F16C.
 *
 * The tile is 6 rows x 16 columns: 12 sums, 2 registers of B and 1 or 2 of A of the 16 there are.
 * bf16 operands come in pairs, one in a word of 32 bits: shifted left, the word is the f32 of the
 * first; with its low half cleared, of the second. So the bf16 product costs more than the f32
 * one; it is there for those who keep bf16 activations. */
#include <string.h>

#include "kernels/x86/gemm_epilogue_avx2.h"

enum { MR = 6, NR = 16, SHORT_ROW = 4096 /* bytes */ };

#include "kernels/x86/gemm_body.h"

/* Both operands of a word as they are; then FMA. */
#define STEP_F32(mr)                                               \
    {                                                              \
        __m256 b0 = _mm256_load_ps(b), b1 = _mm256_load_ps(b + 8); \
        UNROLL for (int i = 0; i < mr; i++)                        \
        {                                                          \
            float word;                                            \
            memcpy(&word, a + (size_t)i * a_ld, 4);                \
            __m256 ai = _mm256_set1_ps(word);                      \
            s[i][0] = _mm256_fmadd_ps(ai, b0, s[i][0]);            \
            s[i][1] = _mm256_fmadd_ps(ai, b1, s[i][1]);            \
        }                                                          \
    }

/* First the first of each pair, then the second. */
#define HALF_BF16(mr, WIDEN)                                                          \
    {                                                                                 \
        __m256 b0 = WIDEN(_mm256_load_si256((const __m256i *)(const void *)b));       \
        __m256 b1 = WIDEN(_mm256_load_si256((const __m256i *)(const void *)(b + 8))); \
        UNROLL for (int i = 0; i < mr; i++)                                           \
        {                                                                             \
            int32_t word;                                                             \
            memcpy(&word, a + (size_t)i * a_ld, 4);                                   \
            __m256 ai = WIDEN(_mm256_set1_epi32(word));                               \
            s[i][0] = _mm256_fmadd_ps(ai, b0, s[i][0]);                               \
            s[i][1] = _mm256_fmadd_ps(ai, b1, s[i][1]);                               \
        }                                                                             \
    }
#define FIRST(word) _mm256_castsi256_ps(_mm256_slli_epi32(word, 16))
#define SECOND(word) \
    _mm256_castsi256_ps(_mm256_and_si256(word, _mm256_set1_epi32((int32_t)0xffff0000u)))
#define STEP_BF16(mr)                                                                            \
    {                                                                                            \
        HALF_BF16(mr, FIRST)                                                                     \
        __asm__ volatile(                                                                        \
            "" ::                                                                                \
                : "memory"); /* load the words again: keeping them takes 8 registers too many */ \
        HALF_BF16(mr, SECOND)                                                                    \
    }

#define DEFINE_TILE(name, mr, STEP)                                                    \
    static void name(const char *a, size_t a_ld, const float *b, size_t n, float *out, \
                     size_t out_ld, bool more)                                         \
    {                                                                                  \
        __m256 s[mr][2];                                                               \
        UNROLL for (int i = 0; i < mr; i++) s[i][0] = s[i][1] = _mm256_setzero_ps();   \
        if (more) {                                                                    \
            UNROLL for (int i = 0; i < mr; i++)                                        \
            {                                                                          \
                s[i][0] = _mm256_loadu_ps(out + (size_t)i * out_ld);                   \
                s[i][1] = _mm256_loadu_ps(out + (size_t)i * out_ld + 8);               \
            }                                                                          \
        }                                                                              \
        for (size_t q = 0; q < n; q++, a += 4, b += NR)                                \
            STEP(mr)                                                                   \
        UNROLL for (int i = 0; i < mr; i++)                                            \
        {                                                                              \
            _mm256_storeu_ps(out + (size_t)i * out_ld, s[i][0]);                       \
            _mm256_storeu_ps(out + (size_t)i * out_ld + 8, s[i][1]);                   \
        }                                                                              \
    }

#define DEFINE_TILES(stem, STEP)                                                      \
    DEFINE_TILE(stem##_1, 1, STEP)                                                    \
    DEFINE_TILE(stem##_2, 2, STEP)                                                    \
    DEFINE_TILE(stem##_3, 3, STEP)                                                    \
    DEFINE_TILE(stem##_4, 4, STEP)                                                    \
    DEFINE_TILE(stem##_5, 5, STEP)                                                    \
    DEFINE_TILE(stem##_6, 6, STEP)                                                    \
    static tile_fn *const stem##s[MR + 1] = { 0,        stem##_1, stem##_2, stem##_3, \
                                              stem##_4, stem##_5, stem##_6 };

DEFINE_TILES(tile_f32, STEP_F32)
DEFINE_TILES(tile_bf16, STEP_BF16)

static void gemm_f32_6x16__avx2(const fv_gemm_args *g) { gemm(g, tile_f32s, 4); }
static void gemm_bf16_6x16__avx2(const fv_gemm_args *g) { gemm(g, tile_bf16s, 2); }

/* ---- packing ----------------------------------------------------------------------------- */

/* 8 elements of a row, from element i on, widened to f32. */
static inline __m256 load_f32(const char *row, fv_type type, size_t i)
{
    const __m128i *half = (const __m128i *)(const void *)((const uint16_t *)(const void *)row + i);
    switch (type) {
    case FV_TYPE_F16: return _mm256_cvtph_ps(_mm_loadu_si128(half));
    case FV_TYPE_BF16:
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(half)), 16));
    default: return _mm256_loadu_ps((const float *)(const void *)row + i);
    }
}

/* 8 words from element i on. */
static inline __m256i load_words(const char *row, fv_type to, fv_type from, size_t i)
{
    if (to == FV_TYPE_F32)
        return _mm256_castps_si256(load_f32(row, from, i));
    if (from == FV_TYPE_BF16)
        return _mm256_loadu_si256(
            (const __m256i *)(const void *)((const uint16_t *)(const void *)row + i));
    return _mm256_set_m128i(fv_bf16_avx2(load_f32(row, from, i + 8)),
                            fv_bf16_avx2(load_f32(row, from, i)));
}

/* Reads a byte of every line of some short rows, one after the other: the processor's own
 * prefetcher follows that, while in the transposition each row would end before it has started.
 * Longer rows are better left alone (Zen 4: rows of 1792 bytes 9 -> 13 GB/s, of 9728 bytes 13 ->
 * 9). */
static inline void touch(const char *row, size_t row_bytes, size_t rows, size_t n_bytes)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t x = 0; x < n_bytes; x += 64)
            (void)*(const volatile char *)(row + i * row_bytes + x);
}

static inline __attribute__((always_inline)) void pack(void *dst, fv_type to, const void *w,
                                                       fv_type from, size_t ld, size_t n, size_t k)
{
    const size_t kg = to == FV_TYPE_F32 ? 1 : 2, size = fv_type_size(from), row_bytes = ld * size,
                 step = 8 * kg;
    int32_t *panel = dst;
    for (size_t j = 0; j < n; j += NR, panel += NR * ((k + kg - 1) / kg)) {
        for (size_t h = 0; h < NR; h += 8) {
            const size_t rows = j + h < n ? FV_MIN((size_t)8, n - j - h) : 0;
            const char *row = (const char *)w + (j + h) * row_bytes;
            if (k * size <= SHORT_ROW)
                touch(row, row_bytes, rows, k * size);
            for (size_t q = 0; q < k; q += step) {
                const size_t left = k - q, columns = FV_MIN((size_t)8, (left + kg - 1) / kg);
                __m256i r[8];
                if (rows == 8 && left >= step) {
                    UNROLL for (int i = 0; i < 8; i++)
                        r[i] = load_words(row + (size_t)i * row_bytes, to, from, q);
                } else { /* what there is of the rows, then zeros */
                    char edge[8][16 * 4] = { { 0 } };
                    for (size_t i = 0; i < rows; i++)
                        memcpy(edge[i], row + i * row_bytes + q * size, FV_MIN(left, step) * size);
                    for (int i = 0; i < 8; i++)
                        r[i] = load_words(edge[i], to, from, 0);
                }
                transpose(r);
                for (size_t i = 0; i < columns; i++)
                    _mm256_store_si256((__m256i *)(void *)(panel + (q / kg + i) * NR + h), r[i]);
            }
        }
    }
}

#define PACK(name, to, from)                                                  \
    static void name(void *dst, const void *w, size_t ld, size_t n, size_t k) \
    {                                                                         \
        pack(dst, to, w, from, ld, n, k);                                     \
    }
PACK(pack_f32_f32__avx2, FV_TYPE_F32, FV_TYPE_F32)
PACK(pack_f32_f16__avx2, FV_TYPE_F32, FV_TYPE_F16)
PACK(pack_f32_bf16__avx2, FV_TYPE_F32, FV_TYPE_BF16)
PACK(pack_bf16_f32__avx2, FV_TYPE_BF16, FV_TYPE_F32)
PACK(pack_bf16_f16__avx2, FV_TYPE_BF16, FV_TYPE_F16)
PACK(pack_bf16_bf16__avx2, FV_TYPE_BF16, FV_TYPE_BF16)

/* ---- matrix times vector ----------------------------------------------------------------- */

/* One row after the other and nothing fetched ahead: a single stream is what the processor's own
 * prefetcher follows best. Four registers of 8 partial sums, for groups of 8 in turn. */
static inline __attribute__((always_inline)) void gemv(float *y, const void *w, fv_type type,
                                                       size_t ld, const float *x, const float *bias,
                                                       size_t n, size_t k)
{
    const size_t size = fv_type_size(type), row_bytes = ld * size;
    const char *row = w;
    for (size_t j = 0; j < n; j++, row += row_bytes) {
        __m256 s[4];
        UNROLL for (int i = 0; i < 4; i++) s[i] = _mm256_setzero_ps();
        size_t q = 0;
        for (; q + 32 <= k; q += 32) {
            UNROLL for (size_t i = 0; i < 4; i++) s[i] = _mm256_fmadd_ps(
                load_f32(row, type, q + 8 * i), _mm256_loadu_ps(x + q + 8 * i), s[i]);
        }
        UNROLL for (size_t i = 0; i < 4; i++)
        {
            if (q + 8 * i < k) {
                const size_t left = FV_MIN((size_t)8, k - q - 8 * i);
                char edge[8 * 4] = { 0 };
                memcpy(edge, row + (q + 8 * i) * size, left * size);
                s[i] = _mm256_fmadd_ps(load_f32(edge, type, 0),
                                       _mm256_maskload_ps(x + q + 8 * i, fv_mask_avx2(left)), s[i]);
            }
        }
        __m256 t = _mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3]));
        __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
        u = _mm_add_ps(u, _mm_movehl_ps(u, u));
        float sum = _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
        y[j] = bias ? sum + bias[j] : sum;
    }
}

#define GEMV(name, type)                                                                    \
    static void name(float *y, const void *w, size_t ld, const float *x, const float *bias, \
                     size_t n, size_t k)                                                    \
    {                                                                                       \
        gemv(y, w, type, ld, x, bias, n, k);                                                \
    }
GEMV(gemv_f32__avx2, FV_TYPE_F32)
GEMV(gemv_f16__avx2, FV_TYPE_F16)
GEMV(gemv_bf16__avx2, FV_TYPE_BF16)

/* ---- matrix times several vectors -------------------------------------------------------- */

/* Three rows a time share a row of weights: 12 sums of 16 registers. */
enum { SHARED_ROWS = 3 };

/* A row of weights times m rows x, which is a constant in every use: gemv's operations. */
static inline __attribute__((always_inline)) void dot_rows(float *y, size_t ldy, const char *row,
                                                           fv_type type, const float *x, size_t ldx,
                                                           float bias, bool add, const size_t m,
                                                           size_t k)
{
    __m256 s[SHARED_ROWS][4];
    UNROLL for (size_t r = 0; r < m; r++) UNROLL for (int i = 0; i < 4; i++)
        s[r][i] = _mm256_setzero_ps();
    size_t q = 0;
    for (; q + 32 <= k; q += 32) {
        UNROLL for (size_t i = 0; i < 4; i++)
        {
            const __m256 w = load_f32(row, type, q + 8 * i);
            UNROLL for (size_t r = 0; r < m; r++)
                s[r][i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + r * ldx + q + 8 * i), s[r][i]);
        }
    }
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        if (q + 8 * i < k) {
            const size_t left = FV_MIN((size_t)8, k - q - 8 * i), size = fv_type_size(type);
            char edge[8 * 4] = { 0 };
            memcpy(edge, row + (q + 8 * i) * size, left * size);
            const __m256 w = load_f32(edge, type, 0);
            UNROLL for (size_t r = 0; r < m; r++) s[r][i] = _mm256_fmadd_ps(
                w, _mm256_maskload_ps(x + r * ldx + q + 8 * i, fv_mask_avx2(left)), s[r][i]);
        }
    }
    UNROLL for (size_t r = 0; r < m; r++)
    {
        __m256 t = _mm256_add_ps(_mm256_add_ps(s[r][0], s[r][1]), _mm256_add_ps(s[r][2], s[r][3]));
        __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
        u = _mm_add_ps(u, _mm_movehl_ps(u, u));
        const float sum = _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
        y[r * ldy] = add ? sum + bias : sum;
    }
}

static inline __attribute__((always_inline)) void gemv_rows(float *y, size_t ldy, const void *w,
                                                            fv_type type, size_t ld, const float *x,
                                                            size_t ldx, const float *bias, size_t m,
                                                            size_t n, size_t k)
{
    const char *row = w;
    for (size_t j = 0; j < n; j++, row += ld * fv_type_size(type)) {
        const float add = bias ? bias[j] : 0;
        for (size_t i = 0; i < m; i += SHARED_ROWS) {
            const float *from = x + i * ldx;
            float *to = y + i * ldy + j;
            switch (FV_MIN(m - i, (size_t)SHARED_ROWS)) {
            case 3: dot_rows(to, ldy, row, type, from, ldx, add, bias != NULL, 3, k); break;
            case 2: dot_rows(to, ldy, row, type, from, ldx, add, bias != NULL, 2, k); break;
            case 1: dot_rows(to, ldy, row, type, from, ldx, add, bias != NULL, 1, k); break;
            }
        }
    }
}

#define GEMV_ROWS(name, type)                                                                    \
    static void name(float *y, size_t ldy, const void *w, size_t ld, const float *x, size_t ldx, \
                     const float *bias, size_t m, size_t n, size_t k)                            \
    {                                                                                            \
        gemv_rows(y, ldy, w, type, ld, x, ldx, bias, m, n, k);                                   \
    }
GEMV_ROWS(gemv_rows_f32__avx2, FV_TYPE_F32)
GEMV_ROWS(gemv_rows_f16__avx2, FV_TYPE_F16)
GEMV_ROWS(gemv_rows_bf16__avx2, FV_TYPE_BF16)

void fv_gemm_init_avx2(fv_kernels *k);
void fv_gemm_init_avx2(fv_kernels *k)
{
    k->gemm_f32 = (fv_gemm_kernel){ .type = FV_TYPE_F32,
                                    .mr = MR,
                                    .nr = NR,
                                    .kg = 1,
                                    .run = gemm_f32_6x16__avx2,
                                    .pack = { [FV_TYPE_F32] = pack_f32_f32__avx2,
                                              [FV_TYPE_F16] = pack_f32_f16__avx2,
                                              [FV_TYPE_BF16] = pack_f32_bf16__avx2 } };
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16,
                                     .mr = MR,
                                     .nr = NR,
                                     .kg = 2,
                                     .run = gemm_bf16_6x16__avx2,
                                     .pack = { [FV_TYPE_F32] = pack_bf16_f32__avx2,
                                               [FV_TYPE_F16] = pack_bf16_f16__avx2,
                                               [FV_TYPE_BF16] = pack_bf16_bf16__avx2 } };
    k->gemv[FV_TYPE_F32] = gemv_f32__avx2;
    k->gemv[FV_TYPE_F16] = gemv_f16__avx2;
    k->gemv[FV_TYPE_BF16] = gemv_bf16__avx2;
    k->gemv_rows[FV_TYPE_F32] = gemv_rows_f32__avx2;
    k->gemv_rows[FV_TYPE_F16] = gemv_rows_f16__avx2;
    k->gemv_rows[FV_TYPE_BF16] = gemv_rows_bf16__avx2;
}
