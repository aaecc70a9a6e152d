/* Matrix products, portable: the oracle. */
#include "kernels/ref/gemm_ref.h"

enum { MR = 4, NR = 8 };

static void gemm(const fv_gemm_args *g, fv_type type, size_t kg)
{
    size_t groups = (g->k + kg - 1) / kg;
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j++) {
            size_t panel = j / NR * groups * NR * kg + j % NR * kg;
            float sum = 0;
            for (size_t k = 0; k < g->k; k++)
                sum += fv_ref_load(g->a, type, i * g->lda + k) *
                       fv_ref_load(g->b, type, panel + k / kg * NR * kg + k % kg);
            fv_ref_epilogue(g, i, j, sum);
        }
    }
}

static void gemm_f32__ref(const fv_gemm_args *g) { gemm(g, FV_TYPE_F32, 1); }
static void gemm_bf16__ref(const fv_gemm_args *g) { gemm(g, FV_TYPE_BF16, 2); }

static void pack(void *dst, fv_type to, size_t kg, const void *w, fv_type from, size_t ld, size_t n,
                 size_t k)
{
    size_t groups = (k + kg - 1) / kg, at = 0;
    for (size_t p = 0; p < n; p += NR)
        for (size_t q = 0; q < groups; q++)
            for (size_t j = p; j < p + NR; j++)
                for (size_t r = q * kg; r < q * kg + kg; r++)
                    fv_ref_store(dst, to, at++,
                                 j < n && r < k ? fv_ref_load(w, from, j * ld + r) : 0.0f);
}

#define PACK(name, to, kg, from)                                              \
    static void name(void *dst, const void *w, size_t ld, size_t n, size_t k) \
    {                                                                         \
        pack(dst, to, kg, w, from, ld, n, k);                                 \
    }
PACK(pack_f32_f32__ref, FV_TYPE_F32, 1, FV_TYPE_F32)
PACK(pack_f32_f16__ref, FV_TYPE_F32, 1, FV_TYPE_F16)
PACK(pack_f32_bf16__ref, FV_TYPE_F32, 1, FV_TYPE_BF16)
PACK(pack_bf16_f32__ref, FV_TYPE_BF16, 2, FV_TYPE_F32)
PACK(pack_bf16_f16__ref, FV_TYPE_BF16, 2, FV_TYPE_F16)
PACK(pack_bf16_bf16__ref, FV_TYPE_BF16, 2, FV_TYPE_BF16)

static void gemv(float *y, const void *w, fv_type type, size_t ld, const float *x,
                 const float *bias, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j++) {
        float sum = 0;
        for (size_t i = 0; i < k; i++)
            sum += fv_ref_load(w, type, j * ld + i) * x[i];
        y[j] = bias ? sum + bias[j] : sum;
    }
}

#define GEMV(name, type)                                                                    \
    static void name(float *y, const void *w, size_t ld, const float *x, const float *bias, \
                     size_t n, size_t k)                                                    \
    {                                                                                       \
        gemv(y, w, type, ld, x, bias, n, k);                                                \
    }
GEMV(gemv_f32__ref, FV_TYPE_F32)
GEMV(gemv_f16__ref, FV_TYPE_F16)
GEMV(gemv_bf16__ref, FV_TYPE_BF16)

#define GEMV_ROWS(name, type)                                                                    \
    static void name(float *y, size_t ldy, const void *w, size_t ld, const float *x, size_t ldx, \
                     const float *bias, size_t m, size_t n, size_t k)                            \
    {                                                                                            \
        for (size_t i = 0; i < m; i++)                                                           \
            gemv(y + i * ldy, w, type, ld, x + i * ldx, bias, n, k);                             \
    }
GEMV_ROWS(gemv_rows_f32__ref, FV_TYPE_F32)
GEMV_ROWS(gemv_rows_f16__ref, FV_TYPE_F16)
GEMV_ROWS(gemv_rows_bf16__ref, FV_TYPE_BF16)

void fv_gemm_init_ref(fv_kernels *k);
void fv_gemm_init_ref(fv_kernels *k)
{
    k->gemm_f32 = (fv_gemm_kernel){ .type = FV_TYPE_F32,
                                    .mr = MR,
                                    .nr = NR,
                                    .kg = 1,
                                    .run = gemm_f32__ref,
                                    .pack = { [FV_TYPE_F32] = pack_f32_f32__ref,
                                              [FV_TYPE_F16] = pack_f32_f16__ref,
                                              [FV_TYPE_BF16] = pack_f32_bf16__ref } };
    k->gemm_bf16 = (fv_gemm_kernel){ .type = FV_TYPE_BF16,
                                     .mr = MR,
                                     .nr = NR,
                                     .kg = 2,
                                     .run = gemm_bf16__ref,
                                     .pack = { [FV_TYPE_F32] = pack_bf16_f32__ref,
                                               [FV_TYPE_F16] = pack_bf16_f16__ref,
                                               [FV_TYPE_BF16] = pack_bf16_bf16__ref } };
    k->gemv[FV_TYPE_F32] = gemv_f32__ref;
    k->gemv[FV_TYPE_F16] = gemv_f16__ref;
    k->gemv[FV_TYPE_BF16] = gemv_bf16__ref;
    k->gemv_rows[FV_TYPE_F32] = gemv_rows_f32__ref;
    k->gemv_rows[FV_TYPE_F16] = gemv_rows_f16__ref;
    k->gemv_rows[FV_TYPE_BF16] = gemv_rows_bf16__ref;
}
