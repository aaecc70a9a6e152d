/* Depthwise convolution of u8 for any AArch64 processor: eight channels, less src_zero, widened to
 * 16 bits; SMLAL adds to 32. A tile is 4 output columns: the weights of a kernel row are in
 * registers, each input column is loaded once and added to the outputs that it touches. Columns
 * outside the map are left out. */
#include "base/base.h"
#include "kernels/arm/u8_neon.h"
#include "kernels/kernels.h"

enum { CHANNELS = 8, TILE = 4 };

/* Packed weights: i16 [channels / 8][mult][k * k][8]. */
static size_t packed_bytes__neon(size_t channels, unsigned k, unsigned mult)
{
    return (channels + CHANNELS - 1) / CHANNELS * CHANNELS * mult * k * k * sizeof(int16_t);
}

static void pack__neon(void *dst, const int8_t *weight, size_t channels, unsigned k, unsigned mult)
{
    int16_t *to = dst;
    for (size_t c = 0; c < channels; c += CHANNELS)
        for (unsigned m = 0; m < mult; m++)
            for (unsigned t = 0; t < k * k; t++)
                for (size_t i = c; i < c + CHANNELS; i++)
                    *to++ = i < channels ? weight[(t * channels + i) * mult + m] : 0;
}

/* Every mult-th of 8 floats, n of which exist. */
static void get_params(float32x4_t to[2], const float *p, unsigned mult, size_t n)
{
    float each[CHANNELS] = { 0 };
    for (size_t i = 0; i < n && p; i++)
        each[i] = p[i * mult];
    to[0] = vld1q_f32(each);
    to[1] = vld1q_f32(each + 4);
}

typedef struct params {
    float32x4_t mul[2], bias[2], inv[2];
} params;

FV_INLINE uint8x8_t finish(const fv_dwconv_u8_args *d, const params *p, const int32x4_t s[2])
{
    float32x4_t y[2];
    FV_UNROLL
    for (int h = 0; h < 2; h++) {
        if (d->act == FV_ACT_GELU)
            y[h] = vmulq_f32(fv_gelu(vfmaq_f32(p->bias[h], vcvtq_f32_s32(s[h]), p->mul[h])),
                             p->inv[h]);
        else
            y[h] = vfmaq_f32(vmulq_f32(p->bias[h], p->inv[h]), vcvtq_f32_s32(s[h]),
                             vmulq_f32(p->mul[h], p->inv[h]));
    }
    return fv_to_u8(y[0], y[1], d->zero);
}

/* Sums of 8 channels of columns x .. x + TILE - 1. */
FV_INLINE void sums(int32x4_t s[TILE][2], const fv_dwconv_u8_args *d, const uint8_t *const *src,
                    size_t x, size_t c, size_t n, const int16_t *weight, const unsigned k,
                    const unsigned stride)
{
    const int16x8_t zero = vdupq_n_s16((int16_t)d->src_zero);
    FV_UNROLL
    for (int t = 0; t < TILE; t++)
        s[t][0] = s[t][1] = vdupq_n_s32(0);
    for (unsigned dy = 0; dy < k; dy++, weight += k * CHANNELS) {
        if (!src[dy])
            continue;
        int16x8_t w[7];
        FV_UNROLL
        for (unsigned dx = 0; dx < k; dx++)
            w[dx] = vld1q_s16(weight + dx * CHANNELS);
        FV_UNROLL
        for (unsigned j = 0; j < (TILE - 1) * stride + k; j++) {
            const size_t column = x * stride + j - k / 2; /* wraps left of the map */
            uint8_t some[CHANNELS] = { 0 };
            if (column >= d->width)
                continue;
            const uint8_t *p = src[dy] + column * d->src_ld + c;
            if (n < CHANNELS) {
                memcpy(some, p, n);
                p = some;
            }
            const int16x8_t v = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(p))), zero);
            FV_UNROLL
            for (unsigned dx = 0; dx < k; dx++) {
                if (j < dx || (j - dx) % stride || (j - dx) / stride >= TILE)
                    continue;
                const unsigned t = (j - dx) / stride;
                s[t][0] = vmlal_s16(s[t][0], vget_low_s16(v), vget_low_s16(w[dx]));
                s[t][1] = vmlal_high_s16(s[t][1], v, w[dx]);
            }
        }
    }
}

FV_INLINE void rows_of(const fv_dwconv_u8_args *d, const unsigned k, const unsigned stride)
{
    const int16_t *weight = d->weight;
    for (size_t c = 0; c < d->channels; c += CHANNELS, weight += d->mult * k * k * CHANNELS) {
        const size_t n = FV_MIN(d->channels - c, (size_t)CHANNELS);
        params p[2];
        for (unsigned m = 0; m < d->mult; m++) {
            const size_t at = c * d->mult + m;
            get_params(p[m].mul, d->mul + at, d->mult, n);
            get_params(p[m].bias, d->bias ? d->bias + at : NULL, d->mult, n);
            get_params(p[m].inv, d->inv + at, d->mult, n);
        }
        for (unsigned row = 0; row < d->rows; row++) {
            uint8_t *dst = d->dst + row * d->dst_row + c * d->mult;
            for (size_t x = d->x0; x < d->x1; x += TILE) {
                uint8x8_t out[TILE][2];
                for (unsigned m = 0; m < d->mult; m++) {
                    int32x4_t s[TILE][2];
                    sums(s, d, d->src + row * stride, x, c, n, weight + m * k * k * CHANNELS, k,
                         stride);
                    for (int t = 0; t < TILE; t++)
                        out[t][m] = finish(d, &p[m], s[t]);
                }
                for (size_t t = 0; t < TILE && x + t < d->x1; t++, dst += d->dst_ld) {
                    uint8_t bytes[2 * CHANNELS];
                    if (d->mult == 1) {
                        vst1_u8(bytes, out[t][0]);
                    } else {
                        vst1_u8(bytes, vzip1_u8(out[t][0], out[t][1]));
                        vst1_u8(bytes + CHANNELS, vzip2_u8(out[t][0], out[t][1]));
                    }
                    memcpy(dst, bytes, n * d->mult);
                }
            }
        }
    }
}

static void k3s1(const fv_dwconv_u8_args *d) { rows_of(d, 3, 1); }
static void k3s2(const fv_dwconv_u8_args *d) { rows_of(d, 3, 2); }
static void k7s1(const fv_dwconv_u8_args *d) { rows_of(d, 7, 1); }
static void k7s2(const fv_dwconv_u8_args *d) { rows_of(d, 7, 2); }

static void dwconv_u8__neon(const fv_dwconv_u8_args *d)
{
    static fv_dwconv_u8_fn *const by_shape[2][2] = { { k3s1, k3s2 }, { k7s1, k7s2 } };
    by_shape[d->k == 7][d->stride == 2](d);
}

void fv_dwconv_u8_init_neon(fv_kernels *k);
void fv_dwconv_u8_init_neon(fv_kernels *k)
{
    k->dwconv_u8 = (fv_dwconv_u8_kernel){ dwconv_u8__neon, pack__neon, packed_bytes__neon };
}
