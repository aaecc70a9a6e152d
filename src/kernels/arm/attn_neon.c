/* Attention and rotary positions for any AArch64 processor.
 *
 * Keys come in blocks of 64, queries in tiles of four rows, the last of one to three. For a
 * block and a tile:
 *
 *     scores     q k^T, four rows by four keys at a time. Lanes are four elements of the head;
 *                the four lanes of a score are added at the end, so keys are read as they lie
 *     softmax    running maximum and sum of each row (Milakov and Gimelshein, 2018)
 *     values     lanes are four columns; a probability multiplies whole rows of v
 *
 * Blocks begin at multiples of 64 and a row's operations do not depend on its tile: the same
 * bits however queries are split. f16 keys and values are widened as they are loaded, those of 8
 * bits a block at a time. */
#include <math.h>

#include "kernels/arm/vmath_neon.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"

enum { KEYS = 64, ROWS = 4 };

/* What lies in scratch. */
typedef struct attn_state {
    float acc[FV_ATTN_MAX_Q][FV_ATTN_MAX_D]; /* sum of p v */
    float top[FV_ATTN_MAX_Q], sum[FV_ATTN_MAX_Q];
    float p[ROWS][KEYS]; /* scores, then probabilities, of a tile */
    float keep[ROWS];
    size_t seen[ROWS]; /* keys of the block that a row sees */
    /* of a block, widened from 8 bits */
    float keys[KEYS * FV_ATTN_MAX_D], values[KEYS * FV_ATTN_MAX_D];
} attn_state;

/* Four elements of a type from p on. */
FV_INLINE float32x4_t four(const char *p, fv_type type) { return fv_load(p, type, 0, 4); }

/* p[0 .. rows) = scale q k^T for keys that lie at j0 .. j0 + count; rows is constant in every
 * use. */
FV_INLINE void scores(const fv_attn_args *a, attn_state *s, size_t i, size_t j0, size_t count,
                      size_t rows, fv_type type)
{
    const float *q[ROWS];
    const size_t size = fv_type_size(type);
    FV_UNROLL
    for (size_t r = 0; r < rows; r++)
        q[r] = a->q + (i + r) * a->ldq;
    for (size_t j = 0; j < count; j += 4) {
        const char *key[4]; /* past the last key that one again; its scores are not used */
        float32x4_t c[ROWS][4], x[ROWS];
        FV_UNROLL
        for (size_t t = 0; t < 4; t++) {
            key[t] = (const char *)a->k +
                     (j0 + (j + t < count ? j + t : count - 1)) * a->ldk * size;
            FV_UNROLL
            for (size_t r = 0; r < rows; r++)
                c[r][t] = vdupq_n_f32(0);
        }
        size_t e = 0;
        for (; e + 4 <= a->d; e += 4) {
            FV_UNROLL
            for (size_t r = 0; r < rows; r++)
                x[r] = vld1q_f32(q[r] + e);
            FV_UNROLL
            for (size_t t = 0; t < 4; t++) {
                float32x4_t w = four(key[t], type);
                key[t] += 4 * size;
                FV_UNROLL
                for (size_t r = 0; r < rows; r++)
                    c[r][t] = vfmaq_f32(c[r][t], x[r], w);
            }
        }
        if (e < a->d) {
            FV_UNROLL
            for (size_t r = 0; r < rows; r++)
                x[r] = fv_ld(q[r] + e, 2);
            FV_UNROLL
            for (size_t t = 0; t < 4; t++) {
                float32x4_t w = fv_load(key[t], type, 0, 2);
                FV_UNROLL
                for (size_t r = 0; r < rows; r++)
                    c[r][t] = vfmaq_f32(c[r][t], x[r], w);
            }
        }
        FV_UNROLL
        for (size_t r = 0; r < rows; r++) {
            float32x4_t sum = vpaddq_f32(vpaddq_f32(c[r][0], c[r][1]),
                                         vpaddq_f32(c[r][2], c[r][3]));
            vst1q_f32(s->p[r] + j, vmulq_n_f32(sum, a->scale));
        }
    }
}

/* Scores of a row become exp(score - top); what it keeps of earlier blocks. */
static void softmax(attn_state *s, size_t i, size_t r)
{
    size_t n = s->seen[r], whole = (n + 3) / 4 * 4;
    float *p = s->p[r];
    for (size_t j = n; j < whole; j++)
        p[j] = -INFINITY;
    float32x4_t high = vdupq_n_f32(s->top[i]), sum = vdupq_n_f32(0);
    for (size_t j = 0; j < whole; j += 4)
        high = vmaxq_f32(high, vld1q_f32(p + j));
    float top = vmaxvq_f32(high);
    high = vdupq_n_f32(top);
    for (size_t j = 0; j < whole; j += 4) {
        float32x4_t e = fv_exp_masked(vsubq_f32(vld1q_f32(p + j), high));
        vst1q_f32(p + j, e);
        sum = vaddq_f32(sum, e);
    }
    s->keep[r] = vgetq_lane_f32(fv_exp_masked(vdupq_n_f32(s->top[i] - top)), 0);
    s->sum[i] = s->sum[i] * s->keep[r] + vaddvq_f32(sum);
    s->top[i] = top;
}

/* acc = acc keep + p v for columns [e, e + 4 vecs) (n of them when that is less than a vector),
 * rows and vecs constant. */
FV_INLINE void values(const fv_attn_args *a, attn_state *s, size_t i, size_t j0, size_t e, size_t n,
                      size_t rows, size_t vecs, fv_type type)
{
    float32x4_t c[ROWS][16], x[ROWS];
    const size_t size = fv_type_size(type), step = a->ldv * size;
    const char *at = (const char *)a->v + (j0 * a->ldv + e) * size;
    size_t j = 0, shared = s->seen[0]; /* the first row sees least */
    FV_UNROLL
    for (size_t r = 0; r < rows; r++)
        FV_UNROLL
    for (size_t t = 0; t < vecs; t++)
        c[r][t] = vmulq_n_f32(vld1q_f32(s->acc[i + r] + e + 4 * t), s->keep[r]);

#define VALUES_STEP(lane)                                           \
    do {                                                            \
        FV_UNROLL                                                   \
        for (size_t t = 0; t < vecs; t++) {                         \
            float32x4_t v = fv_load(at + 4 * t * size, type, 0, n); \
            FV_UNROLL                                               \
            for (size_t r = 0; r < rows; r++)                       \
                c[r][t] = vfmaq_laneq_f32(c[r][t], v, x[r], lane);  \
        }                                                           \
        at += step;                                                 \
    } while (0)

    for (; j + 4 <= shared; j += 4) {
        FV_UNROLL
        for (size_t r = 0; r < rows; r++)
            x[r] = vld1q_f32(s->p[r] + j);
        VALUES_STEP(0);
        VALUES_STEP(1);
        VALUES_STEP(2);
        VALUES_STEP(3);
    }
    for (; j < s->seen[rows - 1]; j++, at += step) {
        FV_UNROLL
        for (size_t t = 0; t < vecs; t++) {
            float32x4_t v = fv_load(at + 4 * t * size, type, 0, n);
            FV_UNROLL
            for (size_t r = 0; r < rows; r++)
                if (j < s->seen[r])
                    c[r][t] = vfmaq_n_f32(c[r][t], v, s->p[r][j]);
        }
    }
    FV_UNROLL
    for (size_t r = 0; r < rows; r++)
        FV_UNROLL
    for (size_t t = 0; t < vecs; t++)
        vst1q_f32(s->acc[i + r] + e + 4 * t, c[r][t]);
}

/* The block of keys from j0 on, which lie at row `at`, for `rows` queries from i on, constant in
 * every use. */
FV_INLINE void block(const fv_attn_args *a, attn_state *s, size_t i, size_t j0, size_t at,
                     size_t rows, fv_type type)
{
    for (size_t r = 0; r < rows; r++) {
        size_t n = (a->causal ? a->n_visible + i + r : a->n_kv) - j0;
        s->seen[r] = n < KEYS ? n : KEYS;
    }
    scores(a, s, i, at, s->seen[rows - 1], rows, type);
    for (size_t r = 0; r < rows; r++)
        softmax(s, i + r, r);
    size_t e = 0;
    if (rows == 1)
        for (; e + 64 <= a->d; e += 64)
            values(a, s, i, at, e, 4, 1, 16, type);
    for (; e + 16 <= a->d; e += 16)
        values(a, s, i, at, e, 4, rows, 4, type);
    for (; e + 4 <= a->d; e += 4)
        values(a, s, i, at, e, 4, rows, 1, type);
    if (e < a->d)
        values(a, s, i, at, e, a->d - e, rows, 1, type);
}

/* n rows of d values of 8 bits as f32, close together */
static void widen(float *to, const void *from, size_t ld, size_t first, size_t n, size_t d)
{
    for (size_t j = first; j < first + n; j++, to += d) {
        const int8_t *q = (const int8_t *)from + j * ld;
        const float *scale = fv_kv_scales(q, d);
        for (size_t c = 0; c < d; c++)
            to[c] = scale[c / FV_BLOCK] * (float)q[c];
    }
}

/* eight: keys and values are of 8 bits, type is F32. */
FV_INLINE void attention(const fv_attn_args *args, fv_type type, bool eight)
{
    fv_attn_args copy = *args, *a = &copy;
    attn_state *s = a->scratch;
    size_t n = a->causal ? a->n_visible + a->n_q - 1 : a->n_kv;
    for (size_t i = 0; i < a->n_q; i++) {
        for (size_t e = 0; e < a->d; e += 4)
            vst1q_f32(s->acc[i] + e, vdupq_n_f32(0));
        s->top[i] = -INFINITY;
        s->sum[i] = 0;
    }
    for (size_t j = 0; j < n; j += KEYS) {
        /* the first that sees key j */
        size_t i = a->causal && j >= a->n_visible ? j - a->n_visible + 1 : 0;
        size_t at = eight ? 0 : j;
        if (eight) {
            widen(s->keys, args->k, args->ldk, j, n - j < KEYS ? n - j : KEYS, a->d);
            widen(s->values, args->v, args->ldv, j, n - j < KEYS ? n - j : KEYS, a->d);
            a->k = s->keys;
            a->v = s->values;
            a->ldk = a->ldv = a->d;
        }
        for (; i + ROWS <= a->n_q; i += ROWS)
            block(a, s, i, j, at, ROWS, type);
        switch (a->n_q - i) {
        case 3: block(a, s, i, j, at, 3, type); break;
        case 2: block(a, s, i, j, at, 2, type); break;
        case 1: block(a, s, i, j, at, 1, type); break;
        }
    }
    for (size_t i = 0; i < a->n_q; i++) {
        float32x4_t sum = vdupq_n_f32(s->sum[i]);
        for (size_t e = 0; e < a->d; e += 4)
            fv_store(a->out, a->out_type, i * a->ldo + e, vdivq_f32(vld1q_f32(s->acc[i] + e), sum),
                     a->d - e < 4 ? a->d - e : 4);
    }
}

static void attn_f32(const fv_attn_args *a) { attention(a, FV_TYPE_F32, false); }
static void attn_f16(const fv_attn_args *a) { attention(a, FV_TYPE_F16, false); }
static void attn_i8(const fv_attn_args *a) { attention(a, FV_TYPE_F32, true); }

static void attn__neon(const fv_attn_args *a)
{
    _Static_assert(sizeof(attn_state) <= (size_t)1 << 19, "fv_attn_scratch_bytes");
    (a->kv_type == FV_TYPE_F16 ? attn_f16 : a->kv_type == FV_TYPE_I8 ? attn_i8 : attn_f32)(a);
}

/* ---- rotary positions -------------------------------------------------------------------- */

FV_INLINE void rotate(float *a, float *b, const float *cosine, const float *sine, size_t n)
{
    float32x4_t x = fv_ld(a, n), y = fv_ld(b, n), c = fv_ld(cosine, n), s = fv_ld(sine, n);
    fv_st(a, vsubq_f32(vmulq_f32(x, c), vmulq_f32(y, s)), n);
    fv_st(b, vaddq_f32(vmulq_f32(y, c), vmulq_f32(x, s)), n);
}

static void rope__neon(float *x, const float *cosine, const float *sine, size_t n_heads, size_t d)
{
    size_t half = d / 2;
    for (size_t h = 0; h < n_heads; h++, x += d) {
        size_t m = 0;
        for (; m + 4 <= half; m += 4)
            rotate(x + m, x + half + m, cosine + m, sine + m, 4);
        if (m < half)
            rotate(x + m, x + half + m, cosine + m, sine + m, half - m);
    }
}

void fv_attn_init_neon(fv_kernels *k);
void fv_attn_init_neon(fv_kernels *k)
{
    k->attn = attn__neon;
    k->rope = rope__neon;
}
