/* Weights in blocks of 8 or 4 bits for AVX-512 with VNNI. vpdpbusd multiplies unsigned by signed
 * bytes: weights are taken as q + 128 (or q + 8), and the sums begin with what that is too much. */
#include <string.h>

#include "base/base.h"
#include "kernels/blocks.h"
#include "kernels/x86/gemm_epilogue_avx512.h"
#include "kernels/x86/repeat_rows.h"

enum {
    MR = 14,
    NR = 32,
    BLOCK_BYTES = NR * FV_PACKED_Q_BLOCK_BYTES,
    PIECE = 16, /* blocks of k for which a panel's piece (18 KiB) stays in L1 */
    SPAN = 4,   /* panels that use a piece of A while it is in L2 */
    /* bytes that a matrix-vector product asks for before it needs them: past the end of a page */
    AHEAD = 4096,
    GROUP = 8,                /* rows of weights that use a stretch of activations */
    STRETCH_BYTES = 24 << 10, /* of all rows of activations: half of L1 */
    ROWS = 10 * MR            /* whose sums wait on the stack: ROWS * SPAN * NR floats, 70 KiB */
};

/* ---- activations ------------------------------------------------------------------------- */

typedef struct row_parts {
    int8_t *q, *q4;
    int32_t *part, *part4, *sum;
    float *d;
} row_parts;

/* Block b by itself: behind the last four, and where a scale is 0 or NaN. */
static void quantize_block(const row_parts *to, size_t b, const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    const __m512i m0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
    const __m512i m1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
    float inv;
    to->d[b] = fv_qrow_scale(_mm512_reduce_max_epu32(_mm512_max_epu32(m0, m1)), &inv);
    __m128i q0 = _mm_setzero_si128(), q1 = q0;
    if (inv > 0) {
        q0 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x0, _mm512_set1_ps(inv))));
        q1 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x1, _mm512_set1_ps(inv))));
    }
    const __m256i both = _mm256_set_m128i(q1, q0);
    const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), both);
    const __m256i much = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(fours, 7));
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(much),
                                       _mm256_extracti128_si256(much, 1));
    _mm256_storeu_si256((__m256i *)(void *)(to->q + b * FV_BLOCK), both);
    _mm256_storeu_si256((__m256i *)(void *)(to->part + 8 * b), much);
    _mm_storeu_si128((__m128i *)(void *)(to->q4 + fv_qrow_at4(b)), q0);
    _mm_storeu_si128((__m128i *)(void *)(to->q4 + fv_qrow_at4(b) + 64), q1);
    _mm_storeu_si128((__m128i *)(void *)(to->part4 + 4 * b), _mm_srai_epi32(sums, 4));
    const __m128i pairs = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
    to->sum[b] = _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0xb1)));
}

/* 64 numbers of two blocks as bytes. */
static inline __m512i to_bytes(const __m512 *x, __m512 inv0, __m512 inv1)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i r0 = _mm512_cvtps_epi32(_mm512_mul_ps(x[0], inv0)),
                  r1 = _mm512_cvtps_epi32(_mm512_mul_ps(x[1], inv0));
    const __m512i r2 = _mm512_cvtps_epi32(_mm512_mul_ps(x[2], inv1)),
                  r3 = _mm512_cvtps_epi32(_mm512_mul_ps(x[3], inv1));
    return _mm512_permutexvar_epi32(
        order, _mm512_packs_epi16(_mm512_packs_epi32(r0, r1), _mm512_packs_epi32(r2, r3)));
}

/* -128 times the sums of four bytes. */
static inline __m512i much_of(__m512i bytes)
{
    const __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(fours, 7));
}

/* Blocks b to b + 3, whose maxima and scales share vectors. */
static inline void quantize_blocks(const row_parts *to, size_t b, const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 v[8];
    __m512i m[4];
    UNROLL for (int i = 0; i < 8; i++) v[i] = _mm512_loadu_ps(x + 16 * i);
    UNROLL for (int i = 0; i < 4; i++)
        m[i] = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(v[2 * i]), magnitude),
                                _mm512_and_si512(_mm512_castps_si512(v[2 * i + 1]), magnitude));
    const __m512i m01 = _mm512_max_epu32(_mm512_unpacklo_epi32(m[0], m[1]),
                                         _mm512_unpackhi_epi32(m[0], m[1]));
    const __m512i m23 = _mm512_max_epu32(_mm512_unpacklo_epi32(m[2], m[3]),
                                         _mm512_unpackhi_epi32(m[2], m[3]));
    const __m512i all = _mm512_max_epu32(_mm512_unpacklo_epi64(m01, m23),
                                         _mm512_unpackhi_epi64(m01, m23));
    const __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(all),
                                          _mm512_extracti64x4_epi64(all, 1));
    const __m128i largest = _mm_max_epu32(_mm256_castsi256_si128(half),
                                          _mm256_extracti128_si256(half, 1));
    /* fv_qrow_scale's cases */
    const __mmask8 usual = _mm_cmplt_epu32_mask(largest, _mm_set1_epi32(0x7f800000)) &
                           _mm_cmpge_epu32_mask(largest, _mm_set1_epi32(0x0d800000));
    if (usual != 15) {
        for (size_t i = 0; i < 4; i++)
            quantize_block(to, b + i, x + i * FV_BLOCK);
        return;
    }
    const __m128 most = _mm_castsi128_ps(largest), limit = _mm_set1_ps(127);
    const __m512 inv = _mm512_castps128_ps512(_mm_div_ps(limit, most));
    _mm_storeu_ps(to->d + b, _mm_div_ps(most, limit));
    __m512 each[4];
    UNROLL for (int i = 0; i < 4; i++) each[i] = _mm512_permutexvar_ps(_mm512_set1_epi32(i), inv);
    const __m512i q01 = to_bytes(v, each[0], each[1]), q23 = to_bytes(v + 4, each[2], each[3]);
    const __m512i much01 = much_of(q01), much23 = much_of(q23);
    /* both halves of every block side by side, then one behind the other */
    __m512i sums = _mm512_add_epi32(_mm512_shuffle_i32x4(much01, much23, 0x88),
                                    _mm512_shuffle_i32x4(much01, much23, 0xdd));
    _mm512_storeu_si512(to->q + b * FV_BLOCK, q01);
    _mm512_storeu_si512(to->q + b * FV_BLOCK + 64, q23);
    _mm512_storeu_si512(to->part + 8 * b, much01);
    _mm512_storeu_si512(to->part + 8 * b + 16, much23);
    _mm512_storeu_si512(to->q4 + fv_qrow_at4(b), _mm512_shuffle_i32x4(q01, q23, 0x88));
    _mm512_storeu_si512(to->q4 + fv_qrow_at4(b) + 64, _mm512_shuffle_i32x4(q01, q23, 0xdd));
    _mm512_storeu_si512(to->part4 + 4 * b, _mm512_srai_epi32(sums, 4));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, 0x4e));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, 0xb1));
    const __m512i firsts = _mm512_zextsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
    _mm_storeu_si128((__m128i *)(void *)(to->sum + b),
                     _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, sums)));
}

static void quantize_row__avx512vnni(void *dst, const float *x, size_t k)
{
    const size_t nb = k / FV_BLOCK;
    const row_parts to = { dst,
                           (int8_t *)fv_qrow_q4(dst, nb),
                           (int32_t *)fv_qrow_part(dst, nb),
                           (int32_t *)fv_qrow_part4(dst, nb),
                           (int32_t *)fv_qrow_sum(dst, nb),
                           (float *)fv_qrow_d(dst, nb) };
    size_t b = 0;
    for (; b + 4 <= nb; b += 4)
        quantize_blocks(&to, b, x + b * FV_BLOCK);
    for (; b < nb; b++)
        quantize_block(&to, b, x + b * FV_BLOCK);
    fv_qrow_fill(dst, nb);
}

/* ---- matrix times vector ----------------------------------------------------------------- */

static inline size_t block_bytes(fv_type type)
{
    return type == FV_TYPE_Q8_0 ? FV_Q8_BLOCK_BYTES : FV_Q4_BLOCK_BYTES;
}

static inline __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

static inline float add_sums(__m512 s)
{
    const __m256 t = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    const __m128 u = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    const __m128 v = _mm_add_ps(u, _mm_movehl_ps(u, u));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

/* The scales of four blocks, times those of the activations. */
static inline __m512 scales(__m128i half, const float *d)
{
    return _mm512_castps128_ps512(_mm_mul_ps(_mm_cvtph_ps(half), _mm_loadu_ps(d)));
}

/* Two blocks of 8 bits times q: 16 sums of four products. */
static inline __m512 dot_pair(const char *at, __m512i q, __m512i part)
{
    const __m512i bytes = _mm512_inserti64x4(_mm512_castsi256_si512(load32(at + 2)),
                                             load32(at + FV_Q8_BLOCK_BYTES + 2), 1);
    return _mm512_cvtepi32_ps(
        _mm512_dpbusd_epi32(part, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)), q));
}

/* sum += the products of four blocks. Their scales come one by one: wide loads of all four are
 * slower. */
static inline __m512 add_q8(__m512 sum, const char *at, const int8_t *q, const int32_t *part,
                            const float *d)
{
    enum { STEP = FV_Q8_BLOCK_BYTES };
    const __m512i pick0 = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i pick1 = _mm512_setr_epi32(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    uint16_t h[4];
    UNROLL for (int i = 0; i < 4; i++) memcpy(&h[i], at + i * STEP, 2);
    __m128i half = _mm_cvtsi32_si128(h[0]);
    half = _mm_insert_epi16(half, h[1], 1);
    half = _mm_insert_epi16(half, h[2], 2);
    half = _mm_insert_epi16(half, h[3], 3);
    const __m512 scale = scales(half, d);
    sum = _mm512_fmadd_ps(dot_pair(at, _mm512_loadu_si512(q), _mm512_loadu_si512(part)),
                          _mm512_permutexvar_ps(pick0, scale), sum);
    return _mm512_fmadd_ps(
        dot_pair(at + 2 * STEP, _mm512_loadu_si512(q + 64), _mm512_loadu_si512(part + 16)),
        _mm512_permutexvar_ps(pick1, scale), sum);
}

/* The same of 4 bits, which are the 72 bytes from at on: words 0, 9, 18 and 27 are the scales. */
static inline __m512 add_q4(__m512 sum, const char *at, const int8_t *q4, const int32_t *part4,
                            const float *d)
{
    const __m512i scale_words = _mm512_zextsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 0, 0, 0, 0));
    const __m512i value_words = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 26, 25, 24, 23, 22, 21, 20,
                                                 19, 17, 16, 15, 14, 13, 12, 11, 10, 8, 7, 6, 5, 4,
                                                 3, 2, 1);
    const __m512i pick = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                  low = _mm512_set1_epi8(15);
    const __m512i begin = _mm512_loadu_si512(at);
    const __m512 scale = scales(
        _mm512_castsi512_si128(_mm512_permutexvar_epi16(scale_words, begin)), d);
    const __m512i values = _mm512_inserti64x2(
        _mm512_permutexvar_epi16(value_words, begin),
        _mm_loadu_si128((const __m128i *)(const void *)(at + 3 * FV_Q4_BLOCK_BYTES + 2)), 3);
    const __m512i products = _mm512_dpbusd_epi32(
        _mm512_dpbusd_epi32(_mm512_loadu_si512(part4), _mm512_and_si512(values, low),
                            _mm512_loadu_si512(q4)),
        _mm512_and_si512(_mm512_srli_epi16(values, 4), low), _mm512_loadu_si512(q4 + 64));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(pick, scale), sum);
}

static inline __m512 add_blocks(fv_type type, __m512 sum, const char *at, const int8_t *q,
                                const int32_t *part, const float *d)
{
    return type == FV_TYPE_Q8_0 ? add_q8(sum, at, q, part, d) : add_q4(sum, at, q, part, d);
}

/* Row after row in one stream, four blocks a step. Two rows at once would share the loads of the
 * activations and be faster in a cache, but memory gives two streams that lie so close to each
 * other at half the rate only. */
static inline __attribute__((always_inline)) void gemv(float *y, const void *w, fv_type type,
                                                       bool ahead, const void *x, const float *bias,
                                                       size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, step = block_bytes(type),
                 part_step = type == FV_TYPE_Q8_0 ? 32 : 16;
    const char *at = w;
    for (size_t j = 0; j < n; j++) {
        const int8_t *q = type == FV_TYPE_Q8_0 ? fv_qrow_q(x) : fv_qrow_q4(x, nb);
        const int32_t *part = type == FV_TYPE_Q8_0 ? fv_qrow_part(x, nb) : fv_qrow_part4(x, nb);
        const float *d = fv_qrow_d(x, nb);
        __m512 s = _mm512_setzero_ps();
        size_t b = 0;
        for (; b + 4 <= nb; b += 4, at += 4 * step, q += 128, part += part_step, d += 4) {
            if (ahead)
                _mm_prefetch(at + AHEAD, _MM_HINT_T0);
            if (ahead && type == FV_TYPE_Q8_0) /* a step takes 136 bytes */
                _mm_prefetch(at + AHEAD + 64, _MM_HINT_T0);
            s = add_blocks(type, s, at, q, part, d);
        }
        if (b < nb) {
            char last[4 * FV_Q8_BLOCK_BYTES] = { 0 };
            memcpy(last, at, (nb - b) * step);
            at += (nb - b) * step;
            s = add_blocks(type, s, last, q, part, d);
        }
        y[j] = bias ? add_sums(s) + bias[j] : add_sums(s);
    }
}

static void gemv_q8__avx512vnni(float *y, const void *w, const void *x, const float *bias, size_t n,
                                size_t k)
{
    gemv(y, w, FV_TYPE_Q8_0, false, x, bias, n, k);
}

static void gemv_q8_ahead__avx512vnni(float *y, const void *w, const void *x, const float *bias,
                                      size_t n, size_t k)
{
    gemv(y, w, FV_TYPE_Q8_0, true, x, bias, n, k);
}

static void gemv_q4__avx512vnni(float *y, const void *w, const void *x, const float *bias, size_t n,
                                size_t k)
{
    gemv(y, w, FV_TYPE_Q4_0, true, x, bias, n, k);
}

/* ---- matrix times several vectors -------------------------------------------------------- */

/* Four blocks of weights as add_q8 and add_q4 take them apart, for several rows of activations. Q8:
 * q + 128 of blocks 0 and 1, and of blocks 2 and 3. Q4: q + 8 of all first halves, and of all
 * second halves. */
typedef struct four_blocks {
    __m512i u0, u1;
    __m128 scale; /* [4] */
} four_blocks;

static inline four_blocks four_q8(const char *at)
{
    enum { STEP = FV_Q8_BLOCK_BYTES };
    const __m512i flip = _mm512_set1_epi8(-128);
    uint16_t h[4];
    UNROLL for (int i = 0; i < 4; i++) memcpy(&h[i], at + i * STEP, 2);
    __m128i half = _mm_cvtsi32_si128(h[0]);
    half = _mm_insert_epi16(half, h[1], 1);
    half = _mm_insert_epi16(half, h[2], 2);
    half = _mm_insert_epi16(half, h[3], 3);
    const __m512i b01 = _mm512_inserti64x4(_mm512_castsi256_si512(load32(at + 2)),
                                           load32(at + STEP + 2), 1);
    const __m512i b23 = _mm512_inserti64x4(_mm512_castsi256_si512(load32(at + 2 * STEP + 2)),
                                           load32(at + 3 * STEP + 2), 1);
    return (four_blocks){ _mm512_xor_si512(b01, flip), _mm512_xor_si512(b23, flip),
                          _mm_cvtph_ps(half) };
}

static inline four_blocks four_q4(const char *at)
{
    const __m512i scale_words = _mm512_zextsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 0, 0, 0, 0));
    const __m512i value_words = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 26, 25, 24, 23, 22, 21, 20,
                                                 19, 17, 16, 15, 14, 13, 12, 11, 10, 8, 7, 6, 5, 4,
                                                 3, 2, 1);
    const __m512i low = _mm512_set1_epi8(15), begin = _mm512_loadu_si512(at);
    const __m512i values = _mm512_inserti64x2(
        _mm512_permutexvar_epi16(value_words, begin),
        _mm_loadu_si128((const __m128i *)(const void *)(at + 3 * FV_Q4_BLOCK_BYTES + 2)), 3);
    return (four_blocks){
        _mm512_and_si512(values, low), _mm512_and_si512(_mm512_srli_epi16(values, 4), low),
        _mm_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(scale_words, begin)))
    };
}

/* sum += products of 64 bytes w, unsigned, and of those at q. The instruction itself: around the
 * intrinsic gcc 12 sends sums through memory. */
static inline __m512i dot_at(__m512i sum, __m512i w, const char *q)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const __m512i_u *)(const void *)q));
    return sum;
}

static inline __m512i sums_at(const char *part) { return _mm512_loadu_si512(part); }

/* sum += the products of four blocks: what add_q8 and add_q4 compute, in their order. */
static inline __m512 add_four(fv_type type, __m512 sum, four_blocks w, const char *q,
                              const char *part, const char *d)
{
    const __m512 scale = _mm512_castps128_ps512(
        _mm_mul_ps(w.scale, _mm_loadu_ps((const float *)(const void *)d)));
    if (type == FV_TYPE_Q4_0) {
        const __m512i pick = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        const __m512i products = dot_at(dot_at(sums_at(part), w.u0, q), w.u1, q + 64);
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_permutexvar_ps(pick, scale),
                               sum);
    }
    const __m512i pick0 = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i pick1 = _mm512_setr_epi32(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m512i p0 = dot_at(sums_at(part), w.u0, q),
                  p1 = dot_at(sums_at(part + 64), w.u1, q + 64);
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(p0), _mm512_permutexvar_ps(pick0, scale), sum);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(p1), _mm512_permutexvar_ps(pick1, scale), sum);
}

/* gemv for m rows x, which is a constant in every use: a sum in a register for each. Deep rows are
 * cut into stretches of k of which all m rows stay in L1 while GROUP rows of weights, whose sums
 * wait in memory, pass by. Weights are asked for in the order in which they lie, a group ahead. */
static inline __attribute__((always_inline)) void gemv_rows(float *y, size_t ldy, const void *w,
                                                            fv_type type, const void *x,
                                                            const float *bias, const size_t m,
                                                            size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, step = block_bytes(type), x_step = fv_quantized_row_bytes(k),
                 part_bytes = type == FV_TYPE_Q8_0 ? 32 : 16; /* of a block */
    const size_t most = STRETCH_BYTES / (m * (FV_BLOCK + part_bytes + 4)) / 4 * 4,
                 stretch = FV_MIN(nb, most);
    const char *const q0 = (const char *)(type == FV_TYPE_Q8_0 ? fv_qrow_q(x) : fv_qrow_q4(x, nb));
    const char *const part0 = (const char *)(type == FV_TYPE_Q8_0 ? fv_qrow_part(x, nb)
                                                                  : fv_qrow_part4(x, nb));
    const char *const d0 = (const char *)fv_qrow_d(x, nb);
    __m512 sums[GROUP][FV_GEMV_ROWS];
    for (size_t j0 = 0; j0 < n; j0 += GROUP) {
        const char *group = (const char *)w + j0 * nb * step, *ahead = group + GROUP * nb * step;
        const size_t rows = FV_MIN((size_t)GROUP, n - j0);
        size_t b0 = 0, b1;
        do {
            b1 = FV_MIN(nb, b0 + stretch);
            for (size_t j = 0; j < rows; j++) {
                const char *at = group + (j * nb + b0) * step, *q = q0 + b0 * FV_BLOCK,
                           *part = part0 + b0 * part_bytes, *d = d0 + b0 * 4;
                __m512 s[FV_GEMV_ROWS];
                UNROLL for (size_t i = 0; i < m; i++) s[i] = b0 ? sums[j][i] : _mm512_setzero_ps();
                size_t b = b0;
                for (; b + 4 <= b1; b += 4) {
                    _mm_prefetch(ahead, _MM_HINT_T1);
                    if (type == FV_TYPE_Q8_0)
                        _mm_prefetch(ahead + 64, _MM_HINT_T1);
                    const four_blocks four = type == FV_TYPE_Q8_0 ? four_q8(at) : four_q4(at);
                    UNROLL for (size_t i = 0; i < m; i++) s[i] = add_four(
                        type, s[i], four, q + i * x_step, part + i * x_step, d + i * x_step);
                    at += 4 * step, ahead += 4 * step;
                    q += 4 * FV_BLOCK, part += 4 * part_bytes, d += 16;
                }
                if (b < b1) {
                    char last[4 * FV_Q8_BLOCK_BYTES] = { 0 };
                    memcpy(last, at, (b1 - b) * step);
                    const four_blocks four = type == FV_TYPE_Q8_0 ? four_q8(last) : four_q4(last);
                    UNROLL for (size_t i = 0; i < m; i++) s[i] = add_four(
                        type, s[i], four, q + i * x_step, part + i * x_step, d + i * x_step);
                }
                UNROLL for (size_t i = 0; i < m; i++)
                {
                    if (b1 < nb)
                        sums[j][i] = s[i];
                    else
                        y[i * ldy + j0 + j] = bias ? add_sums(s[i]) + bias[j0 + j] : add_sums(s[i]);
                }
            }
        } while ((b0 = b1) < nb);
    }
}

#define GEMV_ROWS_CASE(type, m)                       \
    case m:                                           \
        gemv_rows(y, ldy, w, type, x, bias, m, n, k); \
        break;
#define GEMV_ROWS(name, type)                                                               \
    static void name(float *y, size_t ldy, const void *w, const void *x, const float *bias, \
                     size_t m, size_t n, size_t k)                                          \
    {                                                                                       \
        switch (m) {                                                                        \
            GEMV_ROWS_CASE(type, 1)                                                         \
            GEMV_ROWS_CASE(type, 2)                                                         \
            GEMV_ROWS_CASE(type, 3)                                                         \
            GEMV_ROWS_CASE(type, 4)                                                         \
            GEMV_ROWS_CASE(type, 5)                                                         \
            GEMV_ROWS_CASE(type, 6)                                                         \
            GEMV_ROWS_CASE(type, 7)                                                         \
            GEMV_ROWS_CASE(type, 8)                                                         \
        }                                                                                   \
    }
GEMV_ROWS(gemv_rows_q8__avx512vnni, FV_TYPE_Q8_0)
GEMV_ROWS(gemv_rows_q4__avx512vnni, FV_TYPE_Q4_0)

/* ---- matrix times matrix ----------------------------------------------------------------- */

/* A panel of 32 columns, for each block of k:
 *
 *     u8  [8][32][4]   q + 128, four of k together
 *     f32 [32]         scales
 *
 * A tile of mr rows: per four of k, 2 loads of the panel, then for each row one broadcast and 2
 * times 4 multiply-adds a lane; 28 sums + 2 + 1 of 32 registers. At the end of a block they become
 * f32 and join the sums in memory, which L1 holds. a, d, much: the first row's values, scales, and
 * sums of a block. */
typedef void tile_fn(const int8_t *a, const float *d, const int32_t *much, size_t a_ld,
                     const uint8_t *b, size_t n, float *out, size_t out_ld, bool more);

static inline const void *row_at(const void *p, size_t i, size_t ld)
{
    return (const char *)p + i * ld;
}

static inline __m512i word_at(const void *p, size_t i, size_t ld)
{
    int32_t word;
    memcpy(&word, row_at(p, i, ld), 4);
    return _mm512_set1_epi32(word);
}

static inline void add_block(float *to, __m512i sum, __m512 w, __m512 x)
{
    _mm512_store_ps(
        to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(w, x), _mm512_load_ps(to)));
}

/* gcc 12 keeps copies in memory of sums in an array, and moves sums about around the intrinsic;
 * with names and the instruction itself all 28 stay where they are (Zen 4: 172 -> 331 GOP/s). */
#define ADD_PRODUCTS(sum, u, s) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s))

#define CLEAR(i)                                            \
    _mm512_store_ps(out + i * out_ld, _mm512_setzero_ps()), \
        _mm512_store_ps(out + i * out_ld + 16, _mm512_setzero_ps());
#define BEGIN(i) __m512i s##i = word_at(much, i, a_ld), t##i = s##i;
#define MULTIPLY(i)                            \
    {                                          \
        const __m512i x = word_at(a, i, a_ld); \
        ADD_PRODUCTS(s##i, b0, x);             \
        ADD_PRODUCTS(t##i, b1, x);             \
    }
#define END(i)                                                     \
    {                                                              \
        const __m512 x = _mm512_castsi512_ps(word_at(d, i, a_ld)); \
        add_block(out + i * out_ld, s##i, w0, x);                  \
        add_block(out + i * out_ld + 16, t##i, w1, x);             \
    }

#define DEFINE_TILE(mr)                                                                            \
    static void tile_##mr(const int8_t *a, const float *d, const int32_t *much, size_t a_ld,       \
                          const uint8_t *b, size_t n, float *out, size_t out_ld, bool more)        \
    {                                                                                              \
        if (!more) {                                                                               \
            ROWS_##mr(CLEAR)                                                                       \
        }                                                                                          \
        for (size_t q = 0; q < n; q++, d++, much++, b += 128) {                                    \
            ROWS_##mr(BEGIN) _Pragma("GCC unroll 8") for (int g = 0; g < 8; g++, a += 4, b += 128) \
            {                                                                                      \
                const __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + 64);           \
                ROWS_##mr(MULTIPLY)                                                                \
            }                                                                                      \
            const __m512 w0 = _mm512_load_ps((const float *)(const void *)b);                      \
            const __m512 w1 = _mm512_load_ps((const float *)(const void *)(b + 64));               \
            ROWS_##mr(END)                                                                         \
        }                                                                                          \
    }

DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)
DEFINE_TILE(7)
DEFINE_TILE(8)
DEFINE_TILE(9)
DEFINE_TILE(10)
DEFINE_TILE(11)
DEFINE_TILE(12)
DEFINE_TILE(13)
DEFINE_TILE(14)

static tile_fn *const tile[MR + 1] = { 0,       tile_1,  tile_2,  tile_3,  tile_4,
                                       tile_5,  tile_6,  tile_7,  tile_8,  tile_9,
                                       tile_10, tile_11, tile_12, tile_13, tile_14 };

/* Asks for blocks [b, b + n) of some rows of A, which lie far apart. */
static void fetch_operands(const char *a, size_t lda, size_t rows, size_t nb, size_t b, size_t n)
{
    for (size_t r = 0; r < rows; r++, a += lda) {
        for (size_t x = 0; x < n * FV_BLOCK; x += 64)
            _mm_prefetch((const char *)fv_qrow_q(a) + b * FV_BLOCK + x, _MM_HINT_T0);
        _mm_prefetch((const char *)(fv_qrow_d(a, nb) + b), _MM_HINT_T0);
        _mm_prefetch((const char *)(fv_qrow_sum(a, nb) + b), _MM_HINT_T0);
    }
}

static void fetch_results(const void *p, size_t elem_bytes, size_t ld, size_t i, size_t rows,
                          size_t j)
{
    for (size_t r = 0; r < rows; r++) {
        const char *at = (const char *)p + ((i + r) * ld + j) * elem_bytes;
        _mm_prefetch(at, _MM_HINT_T0);
        _mm_prefetch(at + NR / 2 * elem_bytes, _MM_HINT_T0);
    }
}

static void gemm_q_14x32__avx512vnni(const fv_gemm_args *g)
{
    const size_t nb = g->k / FV_BLOCK, span = SPAN * NR;
    float sums[ROWS * SPAN * NR] __attribute__((aligned(64)));
    for (size_t i0 = 0; i0 < g->m; i0 += ROWS) {
        const size_t i1 = FV_MIN(g->m, i0 + ROWS);
        for (size_t j0 = 0; j0 < g->n; j0 += span) {
            const size_t j1 = FV_MIN(g->n, j0 + span);
            for (size_t b = 0; b < nb; b += PIECE) {
                const size_t n = FV_MIN((size_t)PIECE, nb - b);
                for (size_t j = j0; j < j1; j += NR) {
                    const uint8_t *panel = (const uint8_t *)g->b + (j / NR * nb + b) * BLOCK_BYTES;
                    for (size_t i = i0; i < i1; i += MR) {
                        const size_t rows = FV_MIN((size_t)MR, i1 - i);
                        const char *a = (const char *)g->a + i * g->lda;
                        float *sum = sums + (i - i0) * span + (j - j0);
                        if (j == j0 && i + MR < i1)
                            fetch_operands(a + MR * g->lda, g->lda, FV_MIN((size_t)MR, i1 - i - MR),
                                           nb, b, n);
                        if (b + n == nb) {
                            fetch_results(g->c, fv_type_size(g->c_type), g->ldc, i, rows, j);
                            if (g->residual && g->residual != g->c)
                                fetch_results(g->residual, 4, g->ldr, i, rows, j);
                            if (g->gate)
                                fetch_results(g->gate, 4, g->ldg, i, rows, j);
                        }
                        tile[rows](fv_qrow_q(a) + b * FV_BLOCK, fv_qrow_d(a, nb) + b,
                                   fv_qrow_sum(a, nb) + b, g->lda, panel, n, sum, span, b > 0);
                        if (b + n == nb)
                            epilogue(g, i, rows, j, FV_MIN((size_t)NR, g->n - j), sum, span);
                    }
                }
            }
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------- */

enum { CHUNK = 64 /* blocks whose scales are gathered before their values are read */ };

/* Two blocks of Q8_0 or four of Q4_0, without their scales; fewer when left says so. */
static inline __attribute__((always_inline)) __m512i load_values(const char *w, fv_type type,
                                                                 size_t left)
{
    if (type == FV_TYPE_Q8_0) {
        const __m512i first = _mm512_zextsi256_si512(
            _mm256_loadu_si256((const __m256i *)(const void *)(w + 2)));
        return left < 2 ? first
                        : _mm512_inserti64x4(
                              first,
                              _mm256_loadu_si256(
                                  (const __m256i *)(const void *)(w + FV_Q8_BLOCK_BYTES + 2)),
                              1);
    }
    __m512i r = _mm512_zextsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(w + 2)));
    if (left > 1)
        r = _mm512_inserti64x2(
            r, _mm_loadu_si128((const __m128i *)(const void *)(w + FV_Q4_BLOCK_BYTES + 2)), 1);
    if (left > 2)
        r = _mm512_inserti64x2(
            r, _mm_loadu_si128((const __m128i *)(const void *)(w + 2 * FV_Q4_BLOCK_BYTES + 2)), 2);
    if (left > 3)
        r = _mm512_inserti64x2(
            r, _mm_loadu_si128((const __m128i *)(const void *)(w + 3 * FV_Q4_BLOCK_BYTES + 2)), 3);
    return r;
}

/* Blocks [b, b + n) of 16 columns whose rows begin at w. */
static inline __attribute__((always_inline)) void pack_blocks(uint8_t *dst, const char *w,
                                                              fv_type type, size_t row_bytes,
                                                              size_t rows, size_t n)
{
    const size_t step = block_bytes(type), together = type == FV_TYPE_Q8_0 ? 2 : 4;
    uint16_t half[CHUNK][16] __attribute__((aligned(32)));
    if (rows < 16)
        memset(half, 0, sizeof half);
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < n; b++)
            memcpy(&half[b][r], w + r * row_bytes + b * step, 2);
    for (size_t b = 0; b < n; b += together) {
        const size_t left = FV_MIN(n - b, together);
        const char *at = w + b * step;
        uint8_t *to = dst + b * BLOCK_BYTES;
        __m512i r[16];
        if (rows == 16 && left == together) {
            UNROLL for (int i = 0; i < 16; i++)
                r[i] = load_values(at + (size_t)i * row_bytes, type, together);
        } else {
            UNROLL for (int i = 0; i < 16; i++)
                r[i] = (size_t)i < rows ? load_values(at + (size_t)i * row_bytes, type, left)
                                        : _mm512_setzero_si512();
        }
        transpose(r);
        if (type == FV_TYPE_Q8_0) {
            UNROLL for (int i = 0; i < 16; i++) if ((size_t)i / 8 < left)
                _mm512_store_si512(to + i / 8 * BLOCK_BYTES + i % 8 * 128,
                                   _mm512_xor_si512(r[i], _mm512_set1_epi8(-128)));
        } else {
            const __m512i low = _mm512_set1_epi8(15), up = _mm512_set1_epi8(120); /* q - 8 + 128 */
            UNROLL for (int i = 0; i < 16; i++)
            {
                if ((size_t)i / 4 >= left)
                    continue;
                uint8_t *words = to + i / 4 * BLOCK_BYTES + i % 4 * 128;
                _mm512_store_si512(words, _mm512_add_epi8(_mm512_and_si512(r[i], low), up));
                _mm512_store_si512(
                    words + 512,
                    _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi16(r[i], 4), low), up));
            }
        }
    }
    for (size_t b = 0; b < n; b++)
        _mm512_store_ps(dst + b * BLOCK_BYTES + 1024,
                        _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)half[b])));
}

static inline __attribute__((always_inline)) void pack(void *dst, const void *w, fv_type type,
                                                       size_t n, size_t k)
{
    const size_t nb = k / FV_BLOCK, row_bytes = nb * block_bytes(type);
    for (size_t j = 0; j < n; j += NR) {
        for (size_t h = 0; h < NR; h += 16) {
            const size_t rows = j + h < n ? FV_MIN((size_t)16, n - j - h) : 0;
            const char *row = (const char *)w + (j + h) * row_bytes;
            for (size_t b = 0; b < nb; b += CHUNK) {
                uint8_t *to = (uint8_t *)dst + (j / NR * nb + b) * BLOCK_BYTES + h * 4;
                pack_blocks(to, row + b * block_bytes(type), type, row_bytes, rows,
                            FV_MIN((size_t)CHUNK, nb - b));
            }
        }
    }
}

static void pack_q8__avx512vnni(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, FV_TYPE_Q8_0, n, k);
}

static void pack_q4__avx512vnni(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    (void)ld;
    pack(dst, w, FV_TYPE_Q4_0, n, k);
}

void fv_quant_init_avx512vnni(fv_kernels *k);
void fv_quant_init_avx512vnni(fv_kernels *k)
{
    k->quantize_row = quantize_row__avx512vnni;
    k->gemv_q[FV_TYPE_Q8_0] = gemv_q8__avx512vnni;
    k->gemv_q[FV_TYPE_Q4_0] = gemv_q4__avx512vnni;
    k->gemv_q8_ahead = gemv_q8_ahead__avx512vnni;
    k->gemv_q_rows[FV_TYPE_Q8_0] = gemv_rows_q8__avx512vnni;
    k->gemv_q_rows[FV_TYPE_Q4_0] = gemv_rows_q4__avx512vnni;
    k->gemm_q = (fv_gemm_q_kernel){
        .mr = MR,
        .nr = NR,
        .run = { [FV_TYPE_Q8_0] = gemm_q_14x32__avx512vnni,
                 [FV_TYPE_Q4_0] = gemm_q_14x32__avx512vnni },
        .pack = { [FV_TYPE_Q8_0] = pack_q8__avx512vnni, [FV_TYPE_Q4_0] = pack_q4__avx512vnni }
    };
}
