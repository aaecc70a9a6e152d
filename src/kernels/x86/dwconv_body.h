/* Depthwise convolution in the vocabulary of vec_avx2.h or vec_avx512.h.
 *
 * A tile is some output columns of one vector of input channels; its DW_SUMS sums stay in
 * registers. mult 2: even and odd outputs of those channels apart, zipped together when they are
 * stored. A kernel row brings its k weights into registers; then every input column of the row is
 * loaded once and added to the up to k outputs that it touches:
 *
 *     input column   j = 0 1 2 3 4 ...            7 x 7, stride 1: weight dx = j - t
 *     output t = 0   [0 1 2 3 4 5 6]
 *            t = 1     [0 1 2 3 4 5 6]
 *
 * Sums begin with the bias and go on by rows, then columns of the kernel. Columns in the padding
 * are left out, in tiles at the edges of the map only; so are the outputs past x1 of a last
 * tile.
 *
 * 3 x 3 kernels wait for memory: neighbours in a tile lie a whole pixel apart, which hardware does
 * not prefetch, so what comes next is asked for here. */
#include "base/base.h"
#include "kernels/kernels.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* Half the registers hold sums, the others a row of weights and an input. */
enum { DW_SUMS = VEC_REGS / 2 };

/* GELU and the conversion run over the sums in memory, in loops of their own. */
static void dwconv_put(const fv_dwconv_args *d, float *sum, size_t x, size_t n, size_t c,
                       size_t lanes)
{
    const size_t mult = d->mult, n_left = lanes * mult;
    if (mult == 2) {
        for (size_t t = 0; t < n; t++) {
            vec even = vec_load(sum + 2 * t * VEC_W), odd = vec_load(sum + (2 * t + 1) * VEC_W);
            vec_zip(&even, &odd);
            vec_store(sum + 2 * t * VEC_W, even);
            vec_store(sum + (2 * t + 1) * VEC_W, odd);
        }
    }
    if (d->act == FV_ACT_GELU && d->dst_type == FV_TYPE_F32) {
        for (size_t i = 0; i < n * mult * VEC_W; i += VEC_W)
            vec_store(sum + i, vec_gelu(vec_load(sum + i)));
    } else if (d->act == FV_ACT_GELU) {
        for (size_t i = 0; i < n * mult * VEC_W; i += VEC_W)
            vec_store(sum + i, vec_gelu16(vec_load(sum + i)));
    }
    for (size_t t = 0; t < n; t++) {
        size_t at = (x - d->x0 + t) * d->dst_ld + c * mult;
        for (size_t m = 0; m < mult && m * VEC_W < n_left; m++) {
            vec y = vec_load(sum + (t * mult + m) * VEC_W);
            if (n_left - m * VEC_W >= VEC_W)
                vec_put(d->dst, d->dst_type, at + m * VEC_W, y);
            else
                vec_put_n(d->dst, d->dst_type, at + m * VEC_W, n_left - m * VEC_W, y);
        }
    }
}

/* Parameters at p of a vector of outputs; mult 2: of two, even and odd ones. */
static inline __attribute__((always_inline)) void dwconv_get(vec w[2], const float *p,
                                                             unsigned mult, bool full, size_t lanes)
{
    if (mult == 1) {
        w[0] = full ? vec_load(p) : vec_load_n(p, lanes);
        return;
    }
    size_t n = 2 * lanes, first = FV_MIN(n, (size_t)VEC_W);
    vec a = full ? vec_load(p) : vec_load_n(p, first);
    vec b = full ? vec_load(p + VEC_W) : n > first ? vec_load_n(p + VEC_W, n - first) : vec_zero();
    w[0] = vec_even(a, b);
    w[1] = vec_odd(a, b);
}

/* Columns x .. x + n - 1, n <= n_t, of channels c .. c + lanes - 1. inside: n == n_t and no column
 * of the padding; full: lanes == VEC_W. */
static inline __attribute__((always_inline)) void dwconv_tile(
    const fv_dwconv_args *d, size_t x, size_t n, size_t c, size_t lanes, const unsigned k,
    const unsigned stride, const unsigned mult, const bool inside, const bool full)
{
    const unsigned n_t = DW_SUMS / mult;
    const size_t n_out = d->channels * mult, pad = k / 2;
    const size_t left = x * stride; /* input column of j = 0, plus pad */
    const size_t end = FV_MIN(d->width + pad, left + (n - 1) * stride + k);
    vec sum[DW_SUMS], w[7][2];

    w[0][0] = w[0][1] = vec_zero();
    if (d->bias)
        dwconv_get(w[0], d->bias + c * mult, mult, full, lanes);
    UNROLL
    for (unsigned t = 0; t < n_t; t++) {
        sum[t * mult] = w[0][0];
        if (mult == 2)
            sum[t * 2 + 1] = w[0][1];
    }
    if (k == 3 && d->dst_type == FV_TYPE_F32) { /* for the stores at the end */
        UNROLL
        for (unsigned t = 0; t < n_t; t++)
            __builtin_prefetch((float *)d->dst + (x - d->x0 + t) * d->dst_ld + c * mult, 1);
    }
    for (unsigned dy = 0; dy < k; dy++) {
        if (!d->src[dy])
            continue;
        const float *weight = d->weight + dy * k * n_out + c * mult;
        UNROLL
        for (unsigned dx = 0; dx < k; dx++)
            dwconv_get(w[dx], weight + dx * n_out, mult, full, lanes);
        const float *at = d->src[dy] + c + (left < pad ? 0 : left - pad) * d->src_ld;
        UNROLL
        for (unsigned j = 0; j < (n_t - 1) * stride + k; j++) {
            if (!inside && (left + j < pad || left + j >= end))
                continue;
            vec v = full ? vec_load(at) : vec_load_n(at, lanes);
            if (k == 3 && dy == k - 1 && j < n_t * stride) /* the next tile's newest row */
                __builtin_prefetch(at + n_t * stride * d->src_ld);
            at += d->src_ld;
            UNROLL
            for (unsigned dx = 0; dx < k; dx++) {
                if (j < dx || (j - dx) % stride || (j - dx) / stride >= n_t)
                    continue;
                unsigned t = (j - dx) / stride * mult;
                sum[t] = vec_fma(v, w[dx][0], sum[t]);
                if (mult == 2)
                    sum[t + 1] = vec_fma(v, w[dx][1], sum[t + 1]);
            }
        }
    }
    /* most layers */
    if (mult == 1 && full && d->dst_type == FV_TYPE_F32 && d->act == FV_ACT_NONE) {
        float *dst = (float *)d->dst + (x - d->x0) * d->dst_ld + c;
        UNROLL
        for (unsigned t = 0; t < n_t; t++)
            if (inside || t < n)
                vec_store(dst + t * d->dst_ld, sum[t]);
        return;
    }
    float out[DW_SUMS * VEC_W];
    UNROLL
    for (unsigned t = 0; t < DW_SUMS; t++)
        vec_store(out + t * VEC_W, sum[t]);
    dwconv_put(d, out, x, n, c, lanes);
}

#define DWCONV(name, k, stride, mult)                                                    \
    static void name(const fv_dwconv_args *d)                                            \
    {                                                                                    \
        const size_t n_t = DW_SUMS / (mult);                                             \
        for (size_t x = d->x0; x < d->x1; x += n_t) {                                    \
            size_t n = FV_MIN(d->x1 - x, n_t);                                           \
            bool inside = n == n_t && x * (stride) >= (k) / 2 &&                         \
                          (x + n_t - 1) * (stride) + (k) - (k) / 2 <= d->width;          \
            for (size_t c = 0; c < d->channels; c += VEC_W) {                            \
                size_t lanes = FV_MIN(d->channels - c, (size_t)VEC_W);                   \
                if (lanes < VEC_W)                                                       \
                    dwconv_tile(d, x, n, c, lanes, (k), (stride), (mult), false, false); \
                else if (inside)                                                         \
                    dwconv_tile(d, x, n, c, lanes, (k), (stride), (mult), true, true);   \
                else                                                                     \
                    dwconv_tile(d, x, n, c, lanes, (k), (stride), (mult), false, true);  \
            }                                                                            \
        }                                                                                \
    }
DWCONV(dwconv_k3s1m1, 3, 1, 1)
DWCONV(dwconv_k3s1m2, 3, 1, 2)
DWCONV(dwconv_k3s2m1, 3, 2, 1)
DWCONV(dwconv_k3s2m2, 3, 2, 2)
DWCONV(dwconv_k7s1m1, 7, 1, 1)
DWCONV(dwconv_k7s1m2, 7, 1, 2)
DWCONV(dwconv_k7s2m1, 7, 2, 1)
DWCONV(dwconv_k7s2m2, 7, 2, 2)

static void VEC_ISA(dwconv)(const fv_dwconv_args *d)
{
    static fv_dwconv_fn *const by_shape[2][2][2] = {
        { { dwconv_k3s1m1, dwconv_k3s1m2 }, { dwconv_k3s2m1, dwconv_k3s2m2 } },
        { { dwconv_k7s1m1, dwconv_k7s1m2 }, { dwconv_k7s2m1, dwconv_k7s2m2 } },
    };
    by_shape[d->k == 7][d->stride == 2][d->mult == 2](d);
}
