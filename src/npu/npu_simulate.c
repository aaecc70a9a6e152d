/* Weights and values rounded to 8 bits. See npu_simulate.h. */
#include "npu/npu_simulate.h"

#include <math.h>
#include <string.h>

#include "npu/npu_weights.h"

typedef struct rounder {
    fv_npu_rounded *out;
    const fv_kernels *k;
    fv_error *err;
} rounder;

/* Columns of w [rows, n] as what their 8 bits stand for. */
static fv_status columns_round(float *w, size_t rows, size_t n, fv_error *err)
{
    int8_t *w8 = fv_alloc(rows * n, 1);
    float *scale = fv_alloc(n, sizeof *scale);
    if (w8 && scale) {
        fv_npu_quantize(w, rows, n, NULL, 1, w8, scale);
        for (size_t i = 0; i < rows * n; i++)
            w[i] = w8[i] * scale[i % n];
    }
    fv_status status = w8 && scale ? FV_OK : fv_fail_memory(err, rows * n, "rounded weights");
    fv_free(w8);
    fv_free(scale);
    return status;
}

static fv_status mat_round(rounder *r, fv_mat *m)
{
    float *columns = fv_alloc(m->n * m->k, sizeof *columns);
    float *w = fv_region_take(&r->out->memory, m->n * m->k, sizeof *w),
          *bias = fv_region_take(&r->out->memory, m->n, sizeof *bias);
    fv_status status = columns && w && bias
                           ? fv_npu_columns(columns, bias, m, 0, m->n, NULL, 1, r->k, r->err)
                           : fv_fail_memory(r->err, m->n * m->k * sizeof *w, "rounded weights");
    if (status == FV_OK)
        status = columns_round(columns, m->k, m->n, r->err);
    for (size_t i = 0; status == FV_OK && i < m->k; i++)
        for (size_t o = 0; o < m->n; o++)
            w[o * m->k + i] = columns[i * m->n + o];
    fv_free(columns);
    *m = (fv_mat){ .data = w, .type = FV_TYPE_F32, .n = m->n, .k = m->k, .bias = bias };
    return status;
}

static fv_status dw_round(rounder *r, fv_dw *d)
{
    size_t n = d->channels * d->mult, taps = (size_t)d->kernel * d->kernel;
    float *w = fv_region_take(&r->out->memory, taps * n, sizeof *w);
    if (!w)
        return fv_fail_memory(r->err, taps * n * sizeof *w, "rounded weights");
    fv_graph_dw_taps(d, w);
    *d = (fv_dw){
        .w = w, .bias = d->bias, .channels = d->channels, .mult = d->mult, .kernel = d->kernel
    };
    return columns_round(w, taps, n, r->err);
}

/* fv_weight_fn */
static fv_status weight_round(void *user, const fv_weight *t, fv_error *err)
{
    rounder *r = user;
    (void)err;
    return fv_weight_is_depthwise(t) ? dw_round(r, t->slot)
           : fv_weight_is_matrix(t)  ? mat_round(r, t->slot)
                                     : FV_OK;
}

fv_status fv_npu_round(fv_npu_rounded *out, const fv_weights *w, const fv_config *c,
                       const fv_kernels *k, fv_error *err)
{
    rounder r = { out, k, err };
    *out = (fv_npu_rounded){ 0 };
    FV_TRY(fv_weights_share_vision(&out->w, w, c, err));
    fv_status status = fv_weights_walk(&out->w, c, weight_round, &r, err);
    if (status != FV_OK)
        fv_npu_rounded_free(out);
    return status;
}

void fv_npu_rounded_free(fv_npu_rounded *r)
{
    fv_weights_free(&r->w);
    fv_region_free(&r->memory);
    *r = (fv_npu_rounded){ 0 };
}

void fv_npu_round_values(float *x, size_t n, fv_qnn_encoding e)
{
    float back = 1 / e.scale, low = (float)e.offset, high = low + 255;
    for (size_t i = 0; i < n; i++)
        x[i] = fmaxf(low, fminf(high, rintf(x[i] * back))) * e.scale;
}
