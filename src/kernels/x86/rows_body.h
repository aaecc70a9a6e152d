/* Norms, rotary positions, conversions and elementwise operations in the vocabulary of a
 * vec_*.h. */
#include <math.h>

#include "base/base.h"
#include "kernels/kernels.h"

/* for (i, n) in vectors of [0, count): body with n == VEC_W, then once with what is left */
#define ROWS_EACH(i, n, count, body)               \
    do {                                           \
        size_t i = 0;                              \
        for (; i + VEC_W <= (count); i += VEC_W) { \
            const size_t n = VEC_W;                \
            body                                   \
        }                                          \
        if (i < (count)) {                         \
            const size_t n = (count)-i;            \
            body                                   \
        }                                          \
    } while (0)

static inline vec rows_get(const float *p, size_t n)
{
    return n == VEC_W ? vec_load(p) : vec_load_n(p, n);
}

static inline void rows_put(float *p, size_t n, vec x)
{
    if (n == VEC_W)
        vec_store(p, x);
    else
        vec_store_n(p, n, x);
}

static inline void rows_put_as(void *p, fv_type type, size_t i, size_t n, vec x)
{
    if (n == VEC_W)
        vec_put(p, type, i, x);
    else
        vec_put_n(p, type, i, n, x);
}

/* sum_j x[j] and sum_j (x[j] - centre)^2 with 2 VEC_W partial sums each; centre 0 leaves the tail's
 * zeros 0 */
static inline void rows_moments(const float *x, size_t c, float centre, float *sum, float *squares)
{
    vec s[2] = { vec_zero(), vec_zero() }, q[2] = { vec_zero(), vec_zero() }, u = vec_set(centre);
    size_t j = 0;
    for (; j + 2 * VEC_W <= c; j += 2 * VEC_W) {
        vec a = vec_sub(vec_load(x + j), u), b = vec_sub(vec_load(x + j + VEC_W), u);
        s[0] = vec_add(s[0], a);
        s[1] = vec_add(s[1], b);
        q[0] = vec_fma(a, a, q[0]);
        q[1] = vec_fma(b, b, q[1]);
    }
    for (; j < c; j += VEC_W) {
        size_t n = FV_MIN(c - j, (size_t)VEC_W);
        vec a = vec_first(n, vec_sub(vec_load_n(x + j, n), u), vec_zero());
        s[0] = vec_add(s[0], a);
        q[0] = vec_fma(a, a, q[0]);
    }
    *sum = vec_sum(vec_add(s[0], s[1]));
    *squares = vec_sum(vec_add(q[0], q[1]));
}

/* The second pass sums around the mean of the first and corrects both mean and variance by what
 * that mean was off. */
static void VEC_ISA(layernorm)(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                               size_t src_ld, const float *weight, const float *bias, size_t m,
                               size_t c, float eps)
{
    for (size_t i = 0; i < m; i++, src += src_ld) {
        float sum, squares;
        rows_moments(src, c, 0, &sum, &squares);
        float centre = sum / (float)c;
        rows_moments(src, c, centre, &sum, &squares);
        double off = (double)sum / (double)c, var = (double)squares / (double)c - off * off;
        vec mean = vec_set((float)(centre + off)),
            r = vec_set((float)(1.0 / sqrt(FV_MAX(var, 0.0) + eps)));
        ROWS_EACH(j, n, c, {
            vec y = vec_mul(vec_sub(rows_get(src + j, n), mean), r);
            y = vec_fma(y, rows_get(weight + j, n), rows_get(bias + j, n));
            rows_put_as(dst, dst_type, i * dst_ld + j, n, y);
        });
    }
}

static void VEC_ISA(rmsnorm)(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                             size_t src_ld, const float *weight, size_t m, size_t c, float eps)
{
    for (size_t i = 0; i < m; i++, src += src_ld) {
        float sum, squares;
        rows_moments(src, c, 0, &sum, &squares);
        vec r = vec_set((float)(1.0 / sqrt((double)squares / (double)c + eps)));
        ROWS_EACH(j, n, c, {
            vec y = vec_mul(rows_get(weight + j, n), vec_mul(rows_get(src + j, n), r));
            rows_put_as(dst, dst_type, i * dst_ld + j, n, y);
        });
    }
}

static void VEC_ISA(rope)(float *x, const float *cosine, const float *sine, size_t n_heads,
                          size_t d)
{
    const size_t half = d / 2, whole = half / VEC_W * VEC_W, left = half - whole;
    for (size_t h = 0; h < n_heads; h++, x += d) {
        for (size_t m = 0; m < whole; m += VEC_W) {
            vec a = vec_load(x + m), b = vec_load(x + m + half), c = vec_load(cosine + m),
                s = vec_load(sine + m);
            vec_store(x + m, vec_fnma(b, s, vec_mul(a, c)));
            vec_store(x + m + half, vec_fma(a, s, vec_mul(b, c)));
        }
        if (left) {
            vec a = vec_load_n(x + whole, left), b = vec_load_n(x + whole + half, left);
            vec c = vec_load_n(cosine + whole, left), s = vec_load_n(sine + whole, left);
            vec_store_n(x + whole, left, vec_fnma(b, s, vec_mul(a, c)));
            vec_store_n(x + whole + half, left, vec_fma(a, s, vec_mul(b, c)));
        }
    }
}

/* The type is a constant in each, so no conversion branches. */
#define CONVERT(name, to, from)                                           \
    static void VEC_ISA(name)(void *dst, const void *src, size_t n)       \
    {                                                                     \
        size_t i = 0;                                                     \
        for (; i + VEC_W <= n; i += VEC_W)                                \
            vec_put(dst, to, i, vec_get(src, from, i));                   \
        if (i < n)                                                        \
            vec_put_n(dst, to, i, n - i, vec_get_n(src, from, i, n - i)); \
    }
CONVERT(convert_f32_f16, FV_TYPE_F32, FV_TYPE_F16)
CONVERT(convert_f32_bf16, FV_TYPE_F32, FV_TYPE_BF16)
CONVERT(convert_f16_f32, FV_TYPE_F16, FV_TYPE_F32)
CONVERT(convert_f16_bf16, FV_TYPE_F16, FV_TYPE_BF16)
CONVERT(convert_bf16_f32, FV_TYPE_BF16, FV_TYPE_F32)
CONVERT(convert_bf16_f16, FV_TYPE_BF16, FV_TYPE_F16)

static void VEC_ISA(swiglu)(float *y, const float *gate, const float *up, size_t count)
{
    ROWS_EACH(i, n, count, {
        rows_put(y + i, n, vec_mul(vec_silu(rows_get(gate + i, n)), rows_get(up + i, n)));
    });
}

static void VEC_ISA(add)(float *y, const float *x, size_t count)
{
    ROWS_EACH(i, n, count,
              { rows_put(y + i, n, vec_add(rows_get(y + i, n), rows_get(x + i, n))); });
}

/* Four vectors of columns at a time stay in registers while the rows pass. */
static void VEC_ISA(colsum)(float *sum, const float *x, size_t ld, size_t m, size_t c)
{
    size_t j = 0;
    for (; j + 4 * VEC_W <= c; j += 4 * VEC_W) {
        vec s0 = vec_load(sum + j), s1 = vec_load(sum + j + VEC_W);
        vec s2 = vec_load(sum + j + 2 * VEC_W), s3 = vec_load(sum + j + 3 * VEC_W);
        for (size_t i = 0; i < m; i++) {
            const float *p = x + i * ld + j;
            s0 = vec_add(s0, vec_load(p));
            s1 = vec_add(s1, vec_load(p + VEC_W));
            s2 = vec_add(s2, vec_load(p + 2 * VEC_W));
            s3 = vec_add(s3, vec_load(p + 3 * VEC_W));
        }
        vec_store(sum + j, s0);
        vec_store(sum + j + VEC_W, s1);
        vec_store(sum + j + 2 * VEC_W, s2);
        vec_store(sum + j + 3 * VEC_W, s3);
    }
    for (; j < c; j += VEC_W) {
        size_t n = FV_MIN(c - j, (size_t)VEC_W);
        vec s = rows_get(sum + j, n);
        for (size_t i = 0; i < m; i++)
            s = vec_add(s, rows_get(x + i * ld + j, n));
        rows_put(sum + j, n, s);
    }
}

static void VEC_ISA(scale_gelu)(float *y, size_t ldy, const float *x, size_t ldx,
                                const float *scale, size_t m, size_t c)
{
    for (size_t i = 0; i < m; i++, x += ldx, y += ldy)
        ROWS_EACH(j, n, c, {
            rows_put(y + j, n, vec_gelu(vec_mul(rows_get(x + j, n), rows_get(scale + j, n))));
        });
}

/* The largest value, then where it first stands; NaN equals nothing. All NaN: 0. */
static size_t VEC_ISA(argmax)(const float *x, size_t n)
{
    vec t[4], top = vec_set(-INFINITY);
    for (size_t k = 0; k < 4; k++)
        t[k] = top;
    size_t i = 0;
    for (; i + 4 * VEC_W <= n; i += 4 * VEC_W)
        for (size_t k = 0; k < 4; k++)
            /* the second operand when x is NaN */
            t[k] = vec_max(vec_load(x + i + k * VEC_W), t[k]);
    for (; i < n; i += VEC_W) {
        size_t left = FV_MIN(n - i, (size_t)VEC_W);
        t[0] = vec_max(vec_first(left, vec_load_n(x + i, left), top), t[0]);
    }
    float lane[VEC_W], best = -INFINITY;
    vec_store(lane, vec_max(vec_max(t[0], t[1]), vec_max(t[2], t[3])));
    for (size_t k = 0; k < VEC_W; k++)
        best = lane[k] > best ? lane[k] : best;
    top = vec_set(best);
    for (i = 0; i + VEC_W <= n; i += VEC_W) {
        unsigned equal = vec_equal(vec_load(x + i), top);
        if (equal)
            return i + (size_t)__builtin_ctz(equal);
    }
    for (; i < n; i++)
        if (x[i] == best)
            return i;
    return 0;
}

static void rows_init(fv_kernels *k)
{
    k->layernorm = VEC_ISA(layernorm);
    k->rmsnorm = VEC_ISA(rmsnorm);
    k->rope = VEC_ISA(rope);
    k->convert[FV_TYPE_F32][FV_TYPE_F16] = VEC_ISA(convert_f32_f16);
    k->convert[FV_TYPE_F32][FV_TYPE_BF16] = VEC_ISA(convert_f32_bf16);
    k->convert[FV_TYPE_F16][FV_TYPE_F32] = VEC_ISA(convert_f16_f32);
    k->convert[FV_TYPE_F16][FV_TYPE_BF16] = VEC_ISA(convert_f16_bf16);
    k->convert[FV_TYPE_BF16][FV_TYPE_F32] = VEC_ISA(convert_bf16_f32);
    k->convert[FV_TYPE_BF16][FV_TYPE_F16] = VEC_ISA(convert_bf16_f16);
    k->swiglu = VEC_ISA(swiglu);
    k->add = VEC_ISA(add);
    k->colsum = VEC_ISA(colsum);
    k->scale_gelu = VEC_ISA(scale_gelu);
    k->argmax = VEC_ISA(argmax);
}
