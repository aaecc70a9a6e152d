/* The epilogue of matrix products, portable. */
#ifndef FV_GEMM_REF_H
#define FV_GEMM_REF_H

#include "kernels/kernels.h"
#include "kernels/ref/scalar.h"

static inline void fv_ref_epilogue(const fv_gemm_args *g, size_t i, size_t j, float y)
{
    if (g->bias)
        y += g->bias[j];
    if (g->act == FV_ACT_GELU)
        y = fv_ref_gelu(y);
    if (g->gate)
        y *= fv_ref_silu(g->gate[i * g->ldg + j]);
    if (g->scale)
        y *= g->scale[j];
    if (g->residual)
        y += g->residual[i * g->ldr + j];
    fv_ref_store(g->c, g->c_type, i * g->ldc + j, y);
}

#endif
