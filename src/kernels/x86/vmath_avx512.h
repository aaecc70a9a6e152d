/* Vector exp, exp2, GELU, SiLU and stores for AVX-512 (F, DQ), 16 values at a time. Included by
 * the *_avx512*.c files only. Every function works lane by lane, so a value's result does not
 * depend on its neighbours. Constants: tools/vmath_tables.py.
 *
 * Errors against double, over f32 in steps of 997 bit patterns, both signs:
 *   fv_exp_avx512     1.1 ULP; overflow gives inf, exp(-inf) = 0
 *   fv_exp2_avx512    relative 1.2e-7; exp2(0) = 1, exp2(-inf) = 0
 *   fv_exp2_8bit_avx512  relative 1.0e-4 from -126 to 0
 *   fv_gelu_avx512    half an ULP of y plus 3.1e-8
 *   fv_gelu16_avx512  for results stored in 16 bits: absolute 6.1e-7; relative 2e-5 for x > -3,
 *                     4e-4 for x > -4.5 (half an ULP: f16 2.4e-4 to 4.9e-4, bf16 8 times that)
 *   fv_silu_avx512    2 ULP
 * NaN gives NaN in all of them. */
#ifndef FV_VMATH_AVX512_H
#define FV_VMATH_AVX512_H

#include <immintrin.h>

#include "base/types.h"

/* e^x = 2^n e^r with n = round(x / ln 2), r in +-ln 2 / 2; vscalefps handles every n. */
static inline __m512 fv_exp_avx512(__m512 x)
{
    /* min and max return their second operand for NaN */
    x = _mm512_min_ps(_mm512_set1_ps(130.0f), x);
    x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* 16 bits of ln 2: n times it is exact */
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
    __m512 p = _mm512_set1_ps(0.00139411085f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00837512594f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0416663513f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.166664153f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* 2^x = 2^floor(x) 2^r, r = x - floor(x) from one vreduceps; vscalefps takes the floor itself. */
static inline __m512 fv_exp2_avx512(__m512 x)
{
    __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0.000218657849f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00123913318f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00968418643f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0554806292f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.240230456f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693146944f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

/* 2^x for x <= 0 whose result is rounded to 8 bits: n = round(x) is left in the low bits of
 * x + 1.5 * 2^23 and added to the exponent of 2^(x - n), a cubic. Half of it runs where no
 * multiplication does. Below -126: 2^-126. */
static inline __m512 fv_exp2_8bit_avx512(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(12582912.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x); /* x when it is NaN */
    const __m512 t = _mm512_add_ps(x, shift), r = _mm512_sub_ps(x, _mm512_sub_ps(t, shift));
    __m512 p = _mm512_set1_ps(0.0558382832f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.242639482f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693136752f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.999924541f));
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

/* gelu(x) = max(x, 0) - g(|x|), g(a) = a (1 - Phi(a)): a bump of height 0.17, nothing from 5.72 on.
 * Interval n is centred on 3/16 n; its polynomial comes from 32-entry tables in registers or
 * cache (vpermt2ps), by powers of a - 3/16 n. */
static const float fv_gelu_table_avx512[5][32] __attribute__((aligned(64))) = {
    { 0.0f,
      0.0798064321f,
      0.132686332f,
      0.161374331f,
      0.169970512f,
      0.163360044f,
      0.146581337f,
      0.124261916f,
      0.100210801f,
      0.0772092417f,
      0.056993179f,
      0.0403839126f,
      0.0275050644f,
      0.0180243552f,
      0.0113726771f,
      0.00691284705f,
      0.00404969417f,
      0.00228716596f,
      0.00124563975f,
      0.000654324191f,
      0.000331564806f,
      0.000162096898f,
      7.64640426e-05f,
      3.48059475e-05f,
      1.52895282e-05f,
      6.48193827e-06f,
      2.65220615e-06f,
      1.04741628e-06f,
      3.99260415e-07f,
      1.46903176e-07f,
      5.21741192e-08f,
      0.0f },
    { 0.5f,
      0.352136284f,
      0.214385033f,
      0.0953189954f,
      0.000774828601f,
      -0.0667556375f,
      -0.10806644f,
      -0.126602724f,
      -0.127469257f,
      -0.11635033f,
      -0.0985781178f,
      -0.0785000324f,
      -0.0591899157f,
      -0.0424589068f,
      -0.0290685985f,
      -0.0190369561f,
      -0.0119456472f,
      -0.00719123846f,
      -0.00415717717f,
      -0.00230953307f,
      -0.00123380031f,
      -0.0006341259f,
      -0.000313684548f,
      -0.000149398213f,
      -6.85261839e-05f,
      -3.02783574e-05f,
      -1.28903066e-05f,
      -5.28844066e-06f,
      -2.09119003e-06f,
      -7.97113898e-07f,
      -2.92927922e-07f,
      0.0f },
    { -0.398942649f,   -0.385100216f,   -0.345708907f,   -0.286688685f,
      -0.216442585f,   -0.144102111f,   -0.0777986199f,  -0.0233792886f,
      0.0161895808f,   0.0407135002f,   0.0521270819f,   0.0535910279f,
      0.0486013852f,   0.0403061956f,   0.0311146434f,   0.0225845277f,
      0.0155114885f,   0.0101234606f,   0.00629697368f,  0.00374119892f,
      0.00212658895f,  0.00115799753f,  0.000604679517f, 0.000303035747f,
      0.000145850165f, 6.74541079e-05f, 2.99918902e-05f, 1.28253141e-05f,
      5.27656084e-06f, 2.0892121e-06f,  7.96298707e-07f, 0.0f },
    { 1.84612782e-05f,  0.0484498441f,    0.0894854888f,    0.117354468f,
      0.12914446f,      0.125166744f,     0.108504251f,     0.0839469209f,
      0.0566938184f,    0.0312104486f,    0.0105099976f,    -0.00405455101f,
      -0.0125674652f,   -0.0160759222f,   -0.0160600413f,   -0.0139953094f,
      -0.0110795861f,   -0.00812673103f,  -0.0055846218f,   -0.00362060312f,
      -0.00222488679f,  -0.00130020618f,  -0.000724358833f, -0.000385424908f,
      -0.000196155903f, -9.55967116e-05f, -4.4655495e-05f,  -2.0009511e-05f,
      -8.6062073e-06f,  -3.55501652e-06f, -1.41101646e-06f, 0.0f },
    { 0.0662496462f,   0.0612356067f,   0.0469672121f,   0.0267347191f,
      0.00478089601f,  -0.0147210108f,  -0.028684346f,   -0.0356925242f,
      -0.0360359289f,  -0.0312876776f,  -0.0236372147f,  -0.0152303027f,
      -0.0077011832f,  -0.00197297195f, 0.0017018955f,   0.00355230109f,
      0.00405400246f,  0.00372902467f,  0.00301746069f,  0.00222398574f,
      0.00151956908f,  0.000972460199f, 0.000586740207f, 0.000335274206f,
      0.000182030126f, 9.41301187e-05f, 4.644816e-05f,   2.19030899e-05f,
      9.88229021e-06f, 4.27022815e-06f, 1.76864501e-06f, 0.0f },
};

/* The same by powers of a itself. */
static const float fv_gelu16_table_avx512[4][32] __attribute__((aligned(64))) = {
    { 0.0f,
      -5.89653355e-05f,
      -0.000986834988f,
      -0.00377409975f,
      -0.00683967955f,
      -0.00398941804f,
      0.0148468604f,
      0.0597920753f,
      0.135807335f,
      0.238800332f,
      0.355205387f,
      0.465433568f,
      0.549714863f,
      0.593864024f,
      0.59278661f,
      0.550763071f,
      0.478959799f,
      0.391542286f,
      0.301924974f,
      0.220228657f,
      0.152301371f,
      0.100051858f,
      0.0625380725f,
      0.0372447446f,
      0.0211595315f,
      0.0114793768f,
      0.00595244812f,
      0.0029524616f,
      0.00140181393f,
      0.000637508638f,
      0.000277852581f,
      0.0f },
    { 0.500001729f,     0.501459301f,     0.51112622f,      0.529022753f,
      0.543391168f,     0.533813477f,     0.479618758f,     0.369468868f,
      0.207555324f,     0.0136679094f,    -0.182634443f,    -0.35099861f,
      -0.468699157f,    -0.52560395f,     -0.524620771f,    -0.478426248f,
      -0.40437749f,     -0.319602311f,    -0.237614363f,    -0.166887969f,
      -0.111083448f,    -0.0702449605f,   -0.0422836766f,   -0.024266826f,
      -0.0132955825f,   -0.00696202647f,  -0.00348743144f,  -0.00167250645f,
      -0.000768467959f, -0.000338489452f, -0.000143007739f, 0.0f },
    { -0.399270296f,  -0.411828309f,   -0.446014464f,   -0.484575748f,
      -0.507088304f,  -0.496375829f,   -0.444336236f,   -0.354266316f,
      -0.239222527f,  -0.117486283f,   -0.00708921999f, 0.0786634088f,
      0.133470446f,   0.157924518f,    0.157652184f,    0.140722662f,
      0.115263492f,   0.0878550708f,   0.0628490001f,   0.0424367078f,
      0.0271532927f,  0.0165123958f,   0.00956470706f,  0.00528646447f,
      0.00279189576f, 0.00141049142f,  0.000682326267f, 0.00031630919f,
      0.00014061312f, 5.99775958e-05f, 2.45596802e-05f, 0.0f },
    { 0.00933609903f,   0.0484734997f,    0.0895274654f,    0.117405653f,
      0.129194543f,     0.125206873f,     0.108529024f,     0.083955124f,
      0.056687858f,     0.0311950184f,    0.0104904091f,    -0.00407373533f,
      -0.0125832213f,   -0.0160869285f,   -0.0160663594f,   -0.0139978565f,
      -0.0110795964f,   -0.00812536851f,  -0.00558276614f,  -0.00361880357f,
      -0.00222340878f,  -0.00129911979f,  -0.000723625941f, -0.000384964806f,
      -0.000195884888f, -9.54460629e-05f, -4.45761543e-05f, -1.99698061e-05f,
      -8.58728436e-06f, -3.54641338e-06f, -1.40727968e-06f, 0.0f },
};

static inline __m512 fv_pick_avx512(const float table[32], __m512i index)
{
    return _mm512_permutex2var_ps(_mm512_load_ps(table), index, _mm512_load_ps(table + 16));
}

static inline __m512 fv_gelu_avx512(__m512 x)
{
    /* adding it rounds to an integer, in the low bits */
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    __m512 a = _mm512_range_ps(x, _mm512_set1_ps(5.8f), 0xa); /* min(|x|, 5.8) */
    __m512 t = _mm512_fmadd_ps(a, _mm512_set1_ps(5.33333349f), magic);
    __m512i n = _mm512_castps_si512(t);
    __m512 r = _mm512_fnmadd_ps(_mm512_sub_ps(t, magic), _mm512_set1_ps(0.1875f), a);
    __m512 g = fv_pick_avx512(fv_gelu_table_avx512[4], n);
    g = _mm512_fmadd_ps(g, r, fv_pick_avx512(fv_gelu_table_avx512[3], n));
    g = _mm512_fmadd_ps(g, r, fv_pick_avx512(fv_gelu_table_avx512[2], n));
    g = _mm512_fmadd_ps(g, r, fv_pick_avx512(fv_gelu_table_avx512[1], n));
    g = _mm512_fmadd_ps(g, r, fv_pick_avx512(fv_gelu_table_avx512[0], n));
    /* max returns its second operand for NaN */
    return _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), x), g);
}

static inline __m512 fv_gelu16_avx512(__m512 x)
{
    __m512 a = _mm512_range_ps(x, _mm512_set1_ps(5.8f), 0xa);
    __m512i n = _mm512_castps_si512(
        _mm512_fmadd_ps(a, _mm512_set1_ps(5.33333349f), _mm512_set1_ps(0x1.8p23f)));
    __m512 g = fv_pick_avx512(fv_gelu16_table_avx512[3], n);
    g = _mm512_fmadd_ps(g, a, fv_pick_avx512(fv_gelu16_table_avx512[2], n));
    g = _mm512_fmadd_ps(g, a, fv_pick_avx512(fv_gelu16_table_avx512[1], n));
    g = _mm512_fmadd_ps(g, a, fv_pick_avx512(fv_gelu16_table_avx512[0], n));
    return _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), x), g);
}

/* x / (1 + e^-x). e^-x may be infinite: then -0. */
static inline __m512 fv_silu_avx512(__m512 x)
{
    __m512 e = fv_exp_avx512(_mm512_xor_ps(x, _mm512_set1_ps(-0.0f)));
    return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

/* To nearest even; a NaN stays a quiet NaN; the same bits as fv_f32_to_bf16. */
static inline __m256i fv_bf16_avx512(__m512 x)
{
    __m512i u = _mm512_castps_si512(x), high = _mm512_srli_epi32(u, 16);
    __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i y = _mm512_srli_epi32(
        _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), even), 16);
    y = _mm512_mask_or_epi32(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), high,
                             _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(y);
}

/* To nearest even, saturating; the same bits as fv_f32_to_f16_sat. */
static inline __m256i fv_f16_sat_avx512(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(65504.0f), x); /* both return their second operand for NaN */
    x = _mm512_max_ps(_mm512_set1_ps(-65504.0f), x);
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Lanes of mask to element i of p, an array of F32, F16 or BF16. */
static inline void fv_store_avx512(void *p, fv_type type, size_t i, __mmask16 mask, __m512 x)
{
    switch (type) {
    case FV_TYPE_F16:
        _mm256_mask_storeu_epi16((uint16_t *)p + i, mask, fv_f16_sat_avx512(x));
        break;
    case FV_TYPE_BF16: _mm256_mask_storeu_epi16((uint16_t *)p + i, mask, fv_bf16_avx512(x)); break;
    default: _mm512_mask_storeu_ps((float *)p + i, mask, x);
    }
}

#endif
