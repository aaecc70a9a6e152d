/* Norms, conversions and elementwise operations for any AArch64 processor. */
#include <math.h>
#include <string.h>

#include "kernels/arm/vmath_neon.h"
#include "kernels/kernels.h"

/* A statement for i = 0, 4, ... with n = 4, then for what is left of count with n < 4. */
#define BY_FOURS(i, n, count, ...)                         \
    do {                                                   \
        size_t i = 0;                                      \
        for (const size_t n = 4; i + n <= (count); i += n) \
            __VA_ARGS__;                                   \
        const size_t n = (count)-i;                        \
        if (n > 0)                                         \
            __VA_ARGS__;                                   \
    } while (0)

/* ---- norms ------------------------------------------------------------------------------- */

/* Sums over a row go to 16 partial sums: quarter number i / 4 mod 4. */
FV_INLINE double sum_up(const float32x4_t s[4])
{
    float64x2_t t = vdupq_n_f64(0);
    for (size_t j = 0; j < 4; j++)
        t = vaddq_f64(t, vaddq_f64(vcvt_f64_f32(vget_low_f32(s[j])), vcvt_high_f64_f32(s[j])));
    return vaddvq_f64(t);
}

/* The last pass of the norms; dst_type is a constant in every use. */
FV_INLINE void layernorm_row(void *dst, fv_type dst_type, size_t at, const float *src,
                             float32x4_t mean, float32x4_t off, float32x4_t r, const float *weight,
                             const float *bias, size_t c)
{
    BY_FOURS(j, n, c, {
        float32x4_t x = vmulq_f32(vsubq_f32(vsubq_f32(fv_ld(src + j, n), mean), off), r);
        fv_store(dst, dst_type, at + j, vfmaq_f32(fv_ld(bias + j, n), x, fv_ld(weight + j, n)), n);
    });
}

FV_INLINE void rmsnorm_row(void *dst, fv_type dst_type, size_t at, const float *src, float32x4_t r,
                           const float *weight, size_t c)
{
    BY_FOURS(j, n, c, {
        float32x4_t x = vmulq_f32(fv_ld(src + j, n), r);
        fv_store(dst, dst_type, at + j, vmulq_f32(fv_ld(weight + j, n), x), n);
    });
}

#define BY_TYPE(type, call)                           \
    do {                                              \
        switch (type) {                               \
        case FV_TYPE_F16: call(FV_TYPE_F16); break;   \
        case FV_TYPE_BF16: call(FV_TYPE_BF16); break; \
        default: call(FV_TYPE_F32);                   \
        }                                             \
    } while (0)

/* Two passes over the row for its statistics. The first mean is rounded; the second pass sums
 * what is left around it, which corrects the mean and keeps the variance exact where the mean
 * is much larger than the spread. */
static void layernorm__neon(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                            size_t src_ld, const float *weight, const float *bias, size_t m,
                            size_t c, float eps)
{
    for (size_t row = 0; row < m; row++, src += src_ld) {
        float32x4_t s[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
        float32x4_t squares[4] = { s[0], s[0], s[0], s[0] };
        size_t i = 0;
        for (; i + 16 <= c; i += 16)
            for (size_t j = 0; j < 4; j++)
                s[j] = vaddq_f32(s[j], vld1q_f32(src + i + 4 * j));
        for (; i < c; i += 4)
            s[0] = vaddq_f32(s[0], fv_ld(src + i, c - i));
        float about = (float)(sum_up(s) / (double)c);

        const float32x4_t mean = vdupq_n_f32(about);
        s[0] = s[1] = s[2] = s[3] = vdupq_n_f32(0);
        for (i = 0; i + 16 <= c; i += 16) {
            for (size_t j = 0; j < 4; j++) {
                float32x4_t x = vsubq_f32(vld1q_f32(src + i + 4 * j), mean);
                s[j] = vaddq_f32(s[j], x);
                squares[j] = vfmaq_f32(squares[j], x, x);
            }
        }
        for (; i + 4 <= c; i += 4) {
            float32x4_t x = vsubq_f32(vld1q_f32(src + i), mean);
            s[0] = vaddq_f32(s[0], x);
            squares[0] = vfmaq_f32(squares[0], x, x);
        }
        double rest = sum_up(s), square = sum_up(squares);
        for (; i < c; i++) {
            float x = src[i] - about;
            rest += x;
            square += (double)x * x;
        }
        rest /= (double)c;
        square = square / (double)c - rest * rest;

        float32x4_t off = vdupq_n_f32((float)rest);
        float32x4_t r = vdupq_n_f32((float)(1.0 / sqrt((square > 0 ? square : 0) + eps)));
#define ROW(type) layernorm_row(dst, type, row *dst_ld, src, mean, off, r, weight, bias, c)
        BY_TYPE(dst_type, ROW);
#undef ROW
    }
}

static void rmsnorm__neon(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                          size_t src_ld, const float *weight, size_t m, size_t c, float eps)
{
    for (size_t row = 0; row < m; row++, src += src_ld) {
        float32x4_t s[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
        size_t i = 0;
        for (; i + 16 <= c; i += 16) {
            for (size_t j = 0; j < 4; j++) {
                float32x4_t x = vld1q_f32(src + i + 4 * j);
                s[j] = vfmaq_f32(s[j], x, x);
            }
        }
        for (; i < c; i += 4) {
            float32x4_t x = fv_ld(src + i, c - i);
            s[0] = vfmaq_f32(s[0], x, x);
        }
        float32x4_t r = vdupq_n_f32((float)(1.0 / sqrt(sum_up(s) / (double)c + eps)));
#define ROW(type) rmsnorm_row(dst, type, row *dst_ld, src, r, weight, c)
        BY_TYPE(dst_type, ROW);
#undef ROW
    }
}

/* ---- conversions ------------------------------------------------------------------------- */

FV_INLINE void convert(void *dst, fv_type to, const void *src, fv_type from, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        float32x4_t x[4];
        for (size_t j = 0; j < 4; j++)
            x[j] = fv_load(src, from, i + 4 * j, 4);
        for (size_t j = 0; j < 4; j++)
            fv_store(dst, to, i + 4 * j, x[j], 4);
    }
    for (; i < n; i += 4)
        fv_store(dst, to, i, fv_load(src, from, i, n - i), n - i);
}

#define CONVERT(name, to, from) \
    static void name(void *dst, const void *src, size_t n) { convert(dst, to, src, from, n); }
CONVERT(convert_f32_f16__neon, FV_TYPE_F32, FV_TYPE_F16)
CONVERT(convert_f32_bf16__neon, FV_TYPE_F32, FV_TYPE_BF16)
CONVERT(convert_f16_f32__neon, FV_TYPE_F16, FV_TYPE_F32)
CONVERT(convert_f16_bf16__neon, FV_TYPE_F16, FV_TYPE_BF16)
CONVERT(convert_bf16_f32__neon, FV_TYPE_BF16, FV_TYPE_F32)
CONVERT(convert_bf16_f16__neon, FV_TYPE_BF16, FV_TYPE_F16)

/* ---- elementwise ------------------------------------------------------------------------- */

static void swiglu__neon(float *y, const float *gate, const float *up, size_t n)
{
    BY_FOURS(i, part, n,
             fv_st(y + i, vmulq_f32(fv_silu(fv_ld(gate + i, part)), fv_ld(up + i, part)), part));
}

static void add__neon(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = i; j < i + 16; j += 4)
            vst1q_f32(y + j, vaddq_f32(vld1q_f32(y + j), vld1q_f32(x + j)));
    for (; i < n; i += 4)
        fv_st(y + i, vaddq_f32(fv_ld(y + i, n - i), fv_ld(x + i, n - i)), n - i);
}

static void colsum__neon(float *sum, const float *x, size_t ld, size_t m, size_t c)
{
    size_t j = 0;
    for (; j + 16 <= c; j += 16) {
        float32x4_t s[4];
        for (size_t q = 0; q < 4; q++)
            s[q] = vld1q_f32(sum + j + 4 * q);
        for (size_t i = 0; i < m; i++)
            for (size_t q = 0; q < 4; q++)
                s[q] = vaddq_f32(s[q], vld1q_f32(x + i * ld + j + 4 * q));
        for (size_t q = 0; q < 4; q++)
            vst1q_f32(sum + j + 4 * q, s[q]);
    }
    for (; j < c; j += 4) {
        float32x4_t s = fv_ld(sum + j, c - j);
        for (size_t i = 0; i < m; i++)
            s = vaddq_f32(s, fv_ld(x + i * ld + j, c - j));
        fv_st(sum + j, s, c - j);
    }
}

static void scale_gelu__neon(float *y, size_t ldy, const float *x, size_t ldx, const float *scale,
                             size_t m, size_t c)
{
    for (size_t i = 0; i < m; i++, y += ldy, x += ldx)
        BY_FOURS(j, n, c,
                 fv_st(y + j, fv_gelu(vmulq_f32(fv_ld(x + j, n), fv_ld(scale + j, n))), n));
}

/* The largest value first (a comparison with NaN is false, so NaN never wins), then where it is. */
static size_t argmax__neon(const float *x, size_t n)
{
    float32x4_t best[4];
    best[0] = best[1] = best[2] = best[3] = vdupq_n_f32(-INFINITY);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (size_t j = 0; j < 4; j++) {
            float32x4_t v = vld1q_f32(x + i + 4 * j);
            best[j] = vbslq_f32(vcgtq_f32(v, best[j]), v, best[j]);
        }
    }
    float top = vmaxvq_f32(vmaxq_f32(vmaxq_f32(best[0], best[1]), vmaxq_f32(best[2], best[3])));
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;

    const float32x4_t wanted = vdupq_n_f32(top);
    for (i = 0; i + 16 <= n; i += 16) {
        uint32x4_t hit = vceqq_f32(vld1q_f32(x + i), wanted);
        for (size_t j = 4; j < 16; j += 4)
            hit = vorrq_u32(hit, vceqq_f32(vld1q_f32(x + i + j), wanted));
        if (vmaxvq_u32(hit))
            break;
    }
    for (; i < n; i++)
        if (x[i] == top)
            return i;
    return 0; /* all NaN */
}

void fv_rows_init_neon(fv_kernels *k);
void fv_rows_init_neon(fv_kernels *k)
{
    k->layernorm = layernorm__neon;
    k->rmsnorm = rmsnorm__neon;
    k->convert[FV_TYPE_F32][FV_TYPE_F16] = convert_f32_f16__neon;
    k->convert[FV_TYPE_F32][FV_TYPE_BF16] = convert_f32_bf16__neon;
    k->convert[FV_TYPE_F16][FV_TYPE_F32] = convert_f16_f32__neon;
    k->convert[FV_TYPE_F16][FV_TYPE_BF16] = convert_f16_bf16__neon;
    k->convert[FV_TYPE_BF16][FV_TYPE_F32] = convert_bf16_f32__neon;
    k->convert[FV_TYPE_BF16][FV_TYPE_F16] = convert_bf16_f16__neon;
    k->swiglu = swiglu__neon;
    k->add = add__neon;
    k->colsum = colsum__neon;
    k->scale_gelu = scale_gelu__neon;
    k->argmax = argmax__neon;
}
