/* 8-bit vision, portable: the oracle. */
#include "kernels/kernels.h"
#include "kernels/ref/scalar.h"

enum { MR = 4, NR = 8 };

static void quantize_u8__ref(uint8_t *dst, size_t dst_ld, const float *src, size_t src_ld,
                             const float *inv, int zero, size_t m, size_t c)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < c; j++)
            dst[i * dst_ld + j] = fv_ref_u8(src[i * src_ld + j] * inv[j], zero);
}

static void quantize_u16__ref(uint8_t *high, uint8_t *low, size_t dst_ld, const float *src,
                              size_t src_ld, const float *inv, int zero, size_t m, size_t c)
{
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < c; j++) {
            const float x = src[i * src_ld + j] * (inv[j] * 256), least = -65536, most = 65536;
            /* what is out of range, and NaN, to where clamping finds it */
            const float v = !(x > least) ? least : x > most ? most : x;
            const int q = (int)rintf(v) + 256 * zero;
            const int clamped = q < 0 ? 0 : q > 65535 ? 65535 : q;
            high[i * dst_ld + j] = (uint8_t)(clamped >> 8);
            low[i * dst_ld + j] = (uint8_t)clamped;
        }
    }
}

static void gemm_u8__ref(const fv_gemm_u8_args *g)
{
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j++) {
            const int8_t *b = (const int8_t *)g->b + j / NR * NR * ((g->k + 3) / 4 * 4) +
                              j % NR * 4;
            int32_t s = g->bias ? g->bias[j] : 0;
            for (size_t k = 0; k < g->k; k++)
                s += g->a[i * g->lda + k] * b[k / 4 * NR * 4 + k % 4];
            if (g->c_type == FV_TYPE_I32) {
                ((int32_t *)g->c)[i * g->ldc + j] = s;
                continue;
            }
            if (g->c_type == FV_TYPE_U8 && g->act == FV_ACT_NONE && !g->scale && !g->residual) {
                ((uint8_t *)g->c)[i * g->ldc + j] = fv_ref_u8((float)s * (g->mul[j] * g->inv[j]),
                                                              g->zero);
                continue;
            }
            const int32_t low = g->low ? g->low[i * g->ldl + j] : 0;
            float y = fmaf((float)(low & 255), 0x1p-8f, (float)(s + (low >> 8)));
            y *= g->mul[j];
            if (g->row)
                y *= g->row[i];
            if (g->add)
                y += g->add[j];
            if (g->act == FV_ACT_GELU)
                y = fv_ref_gelu(y);
            if (g->scale)
                y *= g->scale[j];
            if (g->residual)
                y += g->residual[i * g->ldr + j];
            if (g->c_type == FV_TYPE_U8)
                ((uint8_t *)g->c)[i * g->ldc + j] = fv_ref_u8(y * g->inv[j], g->zero);
            else
                fv_ref_store(g->c, g->c_type, i * g->ldc + j, y);
        }
    }
}

static void pack_u8__ref(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    int8_t *to = dst;
    for (size_t p = 0; p < n; p += NR)
        for (size_t q = 0; q < k; q += 4)
            for (size_t j = p; j < p + NR; j++)
                for (size_t r = q; r < q + 4; r++)
                    *to++ = j < n && r < k ? ((const int8_t *)w)[j * ld + r] : 0;
}

static void pack_u8_q8__ref(void *dst, const void *w, size_t ld, size_t n, size_t k)
{
    const size_t row_bytes = fv_row_bytes(FV_TYPE_Q8_0, k);
    int8_t *to = dst;
    (void)ld;
    for (size_t p = 0; p < n; p += NR)
        for (size_t q = 0; q < k; q += 4)
            for (size_t j = p; j < p + NR; j++)
                for (size_t r = q; r < q + 4; r++)
                    *to++ = j < n ? ((const int8_t *)w)[j * row_bytes + fv_q8_at(r)] : 0;
}

static void dwconv_u8__ref(const fv_dwconv_u8_args *d)
{
    const size_t n_out = d->channels * d->mult;
    const int8_t *weight = d->weight;
    for (size_t y = 0; y < d->rows; y++) {
        const uint8_t *const *src = d->src + y * d->stride;
        for (size_t x = d->x0; x < d->x1; x++) {
            for (size_t o = 0; o < n_out; o++) {
                int32_t s = 0;
                for (unsigned dy = 0; dy < d->k; dy++) {
                    for (unsigned dx = 0; dx < d->k; dx++) {
                        size_t at = x * d->stride + dx; /* one past the padding: column + k / 2 */
                        if (!src[dy] || at < d->k / 2 || at - d->k / 2 >= d->width)
                            continue;
                        s += (src[dy][(at - d->k / 2) * d->src_ld + o / d->mult] - d->src_zero) *
                             weight[(dy * d->k + dx) * n_out + o];
                    }
                }
                const float bias = d->bias ? d->bias[o] : 0, inv = d->inv[o];
                float v = d->act == FV_ACT_GELU ? fv_ref_gelu(fmaf((float)s, d->mul[o], bias)) * inv
                                                : fmaf((float)s, d->mul[o] * inv, bias * inv);
                d->dst[y * d->dst_row + (x - d->x0) * d->dst_ld + o] = fv_ref_u8(v, d->zero);
            }
        }
    }
}

static size_t dwconv_u8_bytes__ref(size_t channels, unsigned k, unsigned mult)
{
    return (size_t)k * k * channels * mult;
}

static void dwconv_u8_pack__ref(void *dst, const int8_t *weight, size_t channels, unsigned k,
                                unsigned mult)
{
    memcpy(dst, weight, dwconv_u8_bytes__ref(channels, k, mult));
}

void fv_int8_init_ref(fv_kernels *k);
void fv_int8_init_ref(fv_kernels *k)
{
    k->quantize_u8 = quantize_u8__ref;
    k->quantize_u16 = quantize_u16__ref;
    k->gemm_u8 = (fv_gemm_u8_kernel){
        .mr = MR, .nr = NR, .run = gemm_u8__ref, .pack = pack_u8__ref, .pack_q8 = pack_u8_q8__ref
    };
    k->dwconv_u8 = (fv_dwconv_u8_kernel){ dwconv_u8__ref, dwconv_u8_pack__ref,
                                          dwconv_u8_bytes__ref };
}
