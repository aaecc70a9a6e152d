/* Weights in blocks of 8 or 4 bits for AVX2. vpmaddubsw multiplies unsigned by signed bytes and
 * adds pairs in 16 bits: |w| times x with w's sign stays within 2 x 128 x 127. Where weights are
 * packed, they are packed as digits of 4 bits, whose sums stay in 16 bits much longer. */
#include <immintrin.h>

#include "base/types.h"

enum { MR = 4, PANEL_Q8_BYTES = 2 * 8 * FV_BLOCK };
#define QUANT_ISA(name) name##__avx2

static inline __m256i dot8(__m256i part, __m256i w, __m256i q)
{
    (void)part;
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w)),
                             _mm256_set1_epi16(1));
}

/* Four products of at most 15 x 128 fit in 16 bits. */
static inline __m256i dot4(__m256i part4, __m256i first, __m256i second, __m256i q,
                           __m256i q_second)
{
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(first, q),
                                           _mm256_maddubs_epi16(second, q_second));
    return _mm256_add_epi32(part4, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline void panel_store(uint8_t *to, __m256i w)
{
    _mm256_store_si256((__m256i *)(void *)to, w);
}

/* Nothing above 15: q + 8 of 4 bits, [8][8][4]; of 8 bits both halves of q + 128, [8][2][8][4]. */
static inline void panel_put(uint8_t *dst, fv_type type, size_t i, __m256i w)
{
    const __m256i low = _mm256_set1_epi8(15);
    if (type == FV_TYPE_Q4_0) {
        panel_store(dst + 32 * i, _mm256_add_epi8(w, _mm256_set1_epi8(8)));
    } else {
        const __m256i u = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        panel_store(dst + 64 * i, _mm256_and_si256(u, low));
        panel_store(dst + 64 * i + 32, _mm256_and_si256(_mm256_srli_epi16(u, 4), low));
    }
}

#include "kernels/x86/quant_body.h"

/* ---- matrix times matrix ----------------------------------------------------------------- */

/* As no weight in a panel is above 15, sums of 16 bits hold a whole block of products, 8 times 2 x
 * 15 x 127. They are widened once a block. */

/* s, t += the products of a row's four values and those of 16 columns. In assembly: see
 * gemm_u8_avx2.c. */
static inline void pairs_add(__m256i *s, __m256i *t, const void *a, __m256i b0, __m256i b1)
{
    __m256i x, product;
    __asm__("vpbroadcastd %[a], %[x]\n\t"
            "vpmaddubsw %[x], %[b0], %[product]\n\t"
            "vpaddw %[product], %[s], %[s]\n\t"
            "vpmaddubsw %[x], %[b1], %[x]\n\t"
            "vpaddw %[x], %[t], %[t]"
            : [s] "+x"(*s), [t] "+x"(*t), [x] "=&x"(x), [product] "=&x"(product)
            : [a] "m"(*(const int32_t(*)[1])a), [b0] "x"(b0), [b1] "x"(b1));
}

/* A block of k: s[i], t[i] = a row's products with eight columns at b, and `other` bytes behind. */
static inline __attribute__((always_inline)) void block_pairs(__m256i *s, __m256i *t,
                                                              const int8_t *a, size_t a_ld,
                                                              const uint8_t *b, const size_t other,
                                                              const size_t step, const size_t mr)
{
    UNROLL for (size_t i = 0; i < mr; i++)
    {
        const __m256i x = word_at(a, i, a_ld);
        s[i] = _mm256_maddubs_epi16(load32(b), x);
        t[i] = _mm256_maddubs_epi16(load32(b + other), x);
    }
    for (int g = 1; g < 8; g++) {
        a += 4, b += step;
        const __m256i b0 = load32(b), b1 = load32(b + other);
        UNROLL for (size_t i = 0; i < mr; i++) pairs_add(&s[i], &t[i], row_at(a, i, a_ld), b0, b1);
    }
}

/* 4 bits: s and t are 16 columns. 8 bits: the low and the high halves of the weights of 8 columns,
 * one half of the panel after the other. */
static inline __attribute__((always_inline)) void tile_run(const int8_t *a, const float *d,
                                                           const int32_t *much, size_t a_ld,
                                                           const uint8_t *b, size_t n, float *out,
                                                           size_t out_ld, bool more, fv_type type,
                                                           const size_t mr)
{
    const __m256i ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16);
    __m256i s[MR], t[MR];
    for (size_t i = 0; !more && i < mr; i++)
        memset(out + i * out_ld, 0, NR * sizeof *out);
    for (size_t q = 0; q < n; q++, a += FV_BLOCK, d++, much++, b += panel_bytes(type)) {
        const uint8_t *scales = b + 2 * half_bytes(type);
        if (type == FV_TYPE_Q4_0) {
            block_pairs(s, t, a, a_ld, b, 256, 32, mr);
            UNROLL for (size_t i = 0; i < mr; i++)
            {
                const __m256i excess = _mm256_srai_epi32(word_at(much, i, a_ld), 4);
                const __m256 x = _mm256_castsi256_ps(word_at(d, i, a_ld));
                float *to = out + i * out_ld;
                add_block(to, _mm256_add_epi32(_mm256_madd_epi16(s[i], ones), excess), scales, x);
                add_block(to + 8, _mm256_add_epi32(_mm256_madd_epi16(t[i], ones), excess),
                          scales + 32, x);
            }
            continue;
        }
        for (size_t h = 0; h < 2; h++) {
            block_pairs(s, t, a, a_ld, b + h * half_bytes(type), 32, 64, mr);
            UNROLL for (size_t i = 0; i < mr; i++)
            {
                const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(s[i], ones),
                                                     _mm256_madd_epi16(t[i], sixteens));
                add_block(out + i * out_ld + 8 * h, _mm256_add_epi32(sum, word_at(much, i, a_ld)),
                          scales + 32 * h, _mm256_castsi256_ps(word_at(d, i, a_ld)));
            }
        }
    }
}

#define TILE(name, type, mr)                                                                   \
    static void name##_##mr(const int8_t *a, const float *d, const int32_t *much, size_t a_ld, \
                            const uint8_t *b, size_t n, float *out, size_t out_ld, bool more)  \
    {                                                                                          \
        tile_run(a, d, much, a_ld, b, n, out, out_ld, more, type, mr);                         \
    }
#define TILES(name, type) \
    TILE(name, type, 1)   \
    TILE(name, type, 2)   \
    TILE(name, type, 3)   \
    TILE(name, type, 4)   \
    static tile_fn *const name[MR + 1] = { 0, name##_1, name##_2, name##_3, name##_4 };
TILES(tiles8, FV_TYPE_Q8_0)
TILES(tiles4, FV_TYPE_Q4_0)

static void gemm_q8_4x16__avx2(const fv_gemm_args *g) { gemm(g, FV_TYPE_Q8_0, tiles8); }
static void gemm_q4_4x16__avx2(const fv_gemm_args *g) { gemm(g, FV_TYPE_Q4_0, tiles4); }

/* ---- activations ------------------------------------------------------------------------- */

static void quantize_row__avx2(void *dst, const float *x, size_t k)
{
    const size_t nb = k / FV_BLOCK;
    int8_t *q = dst;
    int32_t *part = (int32_t *)fv_qrow_part(dst, nb), *part4 = (int32_t *)fv_qrow_part4(dst, nb);
    int8_t *q4 = (int8_t *)fv_qrow_q4(dst, nb);
    int32_t *sum = (int32_t *)fv_qrow_sum(dst, nb);
    float *d = (float *)fv_qrow_d(dst, nb);
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff),
                  order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (size_t b = 0; b < nb; b++, x += FV_BLOCK, q += FV_BLOCK, part += 8, part4 += 4) {
        __m256 v[4];
        __m256i largest = _mm256_setzero_si256(), r[4];
        UNROLL for (int i = 0; i < 4; i++)
        {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            largest = _mm256_max_epu32(largest,
                                       _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i m = _mm_max_epu32(_mm256_castsi256_si128(largest),
                                  _mm256_extracti128_si256(largest, 1));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
        float inv;
        d[b] = fv_qrow_scale((uint32_t)_mm_cvtsi128_si32(m), &inv);
        UNROLL for (int i = 0; i < 4; i++)
            r[i] = inv > 0 ? _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv)))
                           : _mm256_setzero_si256();
        const __m256i bytes = _mm256_permutevar8x32_epi32(
            _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3])),
            order);
        const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes),
                                                _mm256_set1_epi16(1));
        const __m256i much = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(fours, 7));
        _mm256_storeu_si256((__m256i *)(void *)q, bytes);
        _mm256_storeu_si256((__m256i *)(void *)part, much);
        _mm_storeu_si128((__m128i *)(void *)(q4 + fv_qrow_at4(b)), _mm256_castsi256_si128(bytes));
        _mm_storeu_si128((__m128i *)(void *)(q4 + fv_qrow_at4(b) + 64),
                         _mm256_extracti128_si256(bytes, 1));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(much), _mm256_extracti128_si256(much, 1));
        _mm_storeu_si128((__m128i *)(void *)part4, _mm_srai_epi32(s, 4));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        sum[b] = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    }
    fv_qrow_fill(dst, nb);
}

void fv_quant_init_avx2(fv_kernels *k);
void fv_quant_init_avx2(fv_kernels *k)
{
    k->quantize_row = quantize_row__avx2;
    fill_slots(k, gemm_q8_4x16__avx2, gemm_q4_4x16__avx2);
}
