/* Depthwise convolution for any AArch64 processor.
 *
 * Lanes are four channels. A tile of output columns is computed together: for each row of the
 * kernel its k weights stay in registers, and each input column is loaded once and multiplied
 * into every output column that it touches. 7 x 7, stride 1, eight columns: 14 loads of input,
 * 7 of weights and 56 multiply-adds for a kernel row. With two outputs a channel (mult 2) the
 * four lanes of a column become eight, each twice.
 *
 * Where windows leave the map the missing input columns are skipped. All forms add the taps of
 * an element in order of rows, then of columns: the same bits. */
#include "kernels/arm/vmath_neon.h"
#include "kernels/kernels.h"

enum { MAX_TILE = 8 };

/* Activation and store of n <= 4 channels of `count` columns, element `at` of dst on. */
static void activate_and_store(const fv_dwconv_args *d, size_t at, size_t count, size_t n,
                               const float32x4_t *y)
{
    for (size_t t = 0; t < count; t++, at += d->dst_ld)
        fv_store(d->dst, d->dst_type, at, d->act == FV_ACT_GELU ? fv_gelu(y[t]) : y[t], n);
}

/* The same after adding the bias; channels from o on, columns from x on. */
FV_INLINE void finish(const fv_dwconv_args *d, size_t x, size_t count, size_t o, size_t n,
                      const float32x4_t *y, size_t cols)
{
    size_t at = (x - d->x0) * d->dst_ld + o;
    float32x4_t bias = d->bias ? fv_ld(d->bias + o, n) : vdupq_n_f32(0), z[MAX_TILE];
    if (d->act == FV_ACT_NONE && d->dst_type == FV_TYPE_F32) {
        FV_UNROLL
        for (size_t t = 0; t < cols; t++, at += d->dst_ld)
            if (t < count)
                fv_st((float *)d->dst + at, d->bias ? vaddq_f32(y[t], bias) : y[t], n);
    } else {
        FV_UNROLL
        for (size_t t = 0; t < cols; t++)
            z[t] = d->bias ? vaddq_f32(y[t], bias) : y[t];
        activate_and_store(d, at, count, n, z);
    }
}

/* Outputs o .. o + 3 (mult 1) or o .. o + 7 (mult 2) of columns [x, x + count), count <= cols.
 * Inside the map count is cols and no window leaves the map. k, stride, mult, cols and inside
 * are constants in every use. */
FV_INLINE void tile(const fv_dwconv_args *d, size_t x, size_t count, size_t o, size_t k,
                    size_t stride, size_t mult, size_t cols, bool inside)
{
    size_t n_out = d->channels * mult, left = x * stride; /* left + col - k / 2: an input column */
    size_t first = left < k / 2 ? k / 2 - left : 0;
    size_t end = (count - 1) * stride + k;
    if (left + end > d->width + k / 2)
        end = d->width + k / 2 - left;
    float32x4_t y[2][MAX_TILE];
    FV_UNROLL
    for (size_t t = 0; t < cols; t++)
        y[0][t] = y[1][t] = vdupq_n_f32(0);
    for (size_t dy = 0; dy < k; dy++) {
        if (!d->src[dy])
            continue;
        const float *weight = d->weight + dy * k * n_out + o;
        float32x4_t w[7][2];
        FV_UNROLL
        for (size_t dx = 0; dx < k; dx++) {
            w[dx][0] = vld1q_f32(weight + dx * n_out);
            if (mult == 2)
                w[dx][1] = vld1q_f32(weight + dx * n_out + 4);
        }
        /* In bytes: an addition a column. Wraps around left of the map, and back. */
        size_t step = d->src_ld * sizeof(float),
               at = (left - k / 2) * step + o / mult * sizeof(float);
        FV_UNROLL
        /* tap col - t * stride of output t */
        for (size_t col = 0; col < (cols - 1) * stride + k; col++, at += step) {
            if (!inside && (col < first || col >= end))
                continue;
            float32x4_t in = vld1q_f32((const float *)((const char *)d->src[dy] + at));
            float32x4_t low = mult == 2 ? vzip1q_f32(in, in) : in, high = vzip2q_f32(in, in);
            FV_UNROLL
            for (size_t t = 0; t < cols; t++) {
                if (col < t * stride || col - t * stride >= k)
                    continue;
                y[0][t] = vfmaq_f32(y[0][t], low, w[col - t * stride][0]);
                if (mult == 2)
                    y[1][t] = vfmaq_f32(y[1][t], high, w[col - t * stride][1]);
            }
        }
    }
    finish(d, x, count, o, 4, y[0], cols);
    if (mult == 2)
        finish(d, x, count, o + 4, 4, y[1], cols);
}

/* The last channels: n <= 4 outputs of one column. */
static void single(const fv_dwconv_args *d, size_t x, size_t o, size_t n)
{
    /* left + dx - k / 2: input column */
    size_t n_out = d->channels * d->mult, k = d->k, left = x * d->stride;
    size_t first = left < k / 2 ? k / 2 - left : 0;
    size_t last = left + k - k / 2 > d->width ? d->width + k / 2 - left : k;
    float32x4_t y = vdupq_n_f32(0);
    for (size_t dy = 0; dy < k; dy++) {
        if (!d->src[dy])
            continue;
        for (size_t dx = first; dx < last; dx++) {
            const float *src = d->src[dy] + (left + dx - k / 2) * d->src_ld;
            /* o and n are multiples of mult */
            float32x4_t in = fv_ld(src + o / d->mult, n / d->mult);
            if (d->mult == 2)
                in = vzip1q_f32(in, in);
            y = vfmaq_f32(y, in, fv_ld(d->weight + (dy * k + dx) * n_out + o, n));
        }
    }
    finish(d, x, 1, o, n, &y, 1);
}

/* All columns, in tiles of `cols`. */
FV_INLINE void columns(const fv_dwconv_args *d, size_t k, size_t stride, size_t mult, size_t cols)
{
    size_t n_out = d->channels * mult, whole = n_out - n_out % (4 * mult);
    for (size_t x = d->x0, count; x < d->x1; x += count) {
        count = d->x1 - x < cols ? d->x1 - x : cols;
        bool inside = count == cols && x * stride >= k / 2 &&
                      (x + cols - 1) * stride + k - k / 2 <= d->width;
        if (inside)
            for (size_t o = 0; o < whole; o += 4 * mult)
                tile(d, x, cols, o, k, stride, mult, cols, true);
        else
            for (size_t o = 0; o < whole; o += 4 * mult)
                tile(d, x, count, o, k, stride, mult, cols, false);
        for (size_t t = x; t < x + count; t++)
            for (size_t o = whole; o < n_out; o += 4)
                single(d, t, o, n_out - o < 4 ? n_out - o : 4);
    }
}

/* 7 weights and 8 sums, or 14 and 8, fit the 32 registers together with a column's lanes. */
static void dwconv_7x7_s1_m1(const fv_dwconv_args *d) { columns(d, 7, 1, 1, 8); }
static void dwconv_7x7_s1_m2(const fv_dwconv_args *d) { columns(d, 7, 1, 2, 4); }
static void dwconv_7x7_s2_m1(const fv_dwconv_args *d) { columns(d, 7, 2, 1, 8); }
static void dwconv_7x7_s2_m2(const fv_dwconv_args *d) { columns(d, 7, 2, 2, 4); }
static void dwconv_3x3_s1_m1(const fv_dwconv_args *d) { columns(d, 3, 1, 1, 8); }
static void dwconv_3x3_s1_m2(const fv_dwconv_args *d) { columns(d, 3, 1, 2, 4); }
static void dwconv_3x3_s2_m1(const fv_dwconv_args *d) { columns(d, 3, 2, 1, 8); }
static void dwconv_3x3_s2_m2(const fv_dwconv_args *d) { columns(d, 3, 2, 2, 4); }

static void dwconv__neon(const fv_dwconv_args *d)
{
    static fv_dwconv_fn *const form[2][2][2] = {
        { { dwconv_3x3_s1_m1, dwconv_3x3_s1_m2 }, { dwconv_3x3_s2_m1, dwconv_3x3_s2_m2 } },
        { { dwconv_7x7_s1_m1, dwconv_7x7_s1_m2 }, { dwconv_7x7_s2_m1, dwconv_7x7_s2_m2 } },
    };
    form[d->k == 7][d->stride == 2][d->mult == 2](d);
}

void fv_dwconv_init_neon(fv_kernels *k);
void fv_dwconv_init_neon(fv_kernels *k) { k->dwconv = dwconv__neon; }
