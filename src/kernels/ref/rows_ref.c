/* Norms, conversions and elementwise operations, portable: the oracle. */
#include "kernels/kernels.h"
#include "kernels/ref/scalar.h"

static void layernorm__ref(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                           size_t src_ld, const float *weight, const float *bias, size_t m,
                           size_t c, float eps)
{
    for (size_t i = 0; i < m; i++, src += src_ld) {
        double mean = 0, var = 0;
        for (size_t j = 0; j < c; j++)
            mean += src[j];
        mean /= (double)c;
        for (size_t j = 0; j < c; j++)
            var += (src[j] - mean) * (src[j] - mean);
        double r = 1.0 / sqrt(var / (double)c + eps);
        for (size_t j = 0; j < c; j++)
            fv_ref_store(dst, dst_type, i * dst_ld + j,
                         (float)((src[j] - mean) * r) * weight[j] + bias[j]);
    }
}

static void rmsnorm__ref(void *dst, fv_type dst_type, size_t dst_ld, const float *src,
                         size_t src_ld, const float *weight, size_t m, size_t c, float eps)
{
    for (size_t i = 0; i < m; i++, src += src_ld) {
        double sum = 0;
        for (size_t j = 0; j < c; j++)
            sum += (double)src[j] * src[j];
        float r = (float)(1.0 / sqrt(sum / (double)c + eps));
        for (size_t j = 0; j < c; j++)
            fv_ref_store(dst, dst_type, i * dst_ld + j, weight[j] * (src[j] * r));
    }
}

#define CONVERT(name, to, from)                                  \
    static void name(void *dst, const void *src, size_t n)       \
    {                                                            \
        for (size_t i = 0; i < n; i++)                           \
            fv_ref_store(dst, to, i, fv_ref_load(src, from, i)); \
    }
CONVERT(convert_f32_f16__ref, FV_TYPE_F32, FV_TYPE_F16)
CONVERT(convert_f32_bf16__ref, FV_TYPE_F32, FV_TYPE_BF16)
CONVERT(convert_f16_f32__ref, FV_TYPE_F16, FV_TYPE_F32)
CONVERT(convert_f16_bf16__ref, FV_TYPE_F16, FV_TYPE_BF16)
CONVERT(convert_bf16_f32__ref, FV_TYPE_BF16, FV_TYPE_F32)
CONVERT(convert_bf16_f16__ref, FV_TYPE_BF16, FV_TYPE_F16)

static void copy_32__ref(void *dst, const void *src, size_t n) { memmove(dst, src, n * 4); }
static void copy_16__ref(void *dst, const void *src, size_t n) { memmove(dst, src, n * 2); }

static void swiglu__ref(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fv_ref_silu(gate[i]) * up[i];
}

static void add__ref(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void colsum__ref(float *sum, const float *x, size_t ld, size_t m, size_t c)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < c; j++)
            sum[j] += x[i * ld + j];
}

static void scale_gelu__ref(float *y, size_t ldy, const float *x, size_t ldx, const float *scale,
                            size_t m, size_t c)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < c; j++)
            y[i * ldy + j] = fv_ref_gelu(x[i * ldx + j] * scale[j]);
}

static size_t argmax__ref(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best] || (x[best] != x[best] && x[i] == x[i]))
            best = i;
    return best;
}

void fv_rows_init_ref(fv_kernels *k);
void fv_rows_init_ref(fv_kernels *k)
{
    k->layernorm = layernorm__ref;
    k->rmsnorm = rmsnorm__ref;
    k->convert[FV_TYPE_F32][FV_TYPE_F32] = copy_32__ref;
    k->convert[FV_TYPE_F32][FV_TYPE_F16] = convert_f32_f16__ref;
    k->convert[FV_TYPE_F32][FV_TYPE_BF16] = convert_f32_bf16__ref;
    k->convert[FV_TYPE_F16][FV_TYPE_F32] = convert_f16_f32__ref;
    k->convert[FV_TYPE_F16][FV_TYPE_F16] = copy_16__ref;
    k->convert[FV_TYPE_F16][FV_TYPE_BF16] = convert_f16_bf16__ref;
    k->convert[FV_TYPE_BF16][FV_TYPE_F32] = convert_bf16_f32__ref;
    k->convert[FV_TYPE_BF16][FV_TYPE_F16] = convert_bf16_f16__ref;
    k->convert[FV_TYPE_BF16][FV_TYPE_BF16] = copy_16__ref;
    k->swiglu = swiglu__ref;
    k->add = add__ref;
    k->colsum = colsum__ref;
    k->scale_gelu = scale_gelu__ref;
    k->argmax = argmax__ref;
}
