/* Weights of a layer: columns, 8 bits, corrected biases. See npu_weights.h. */
#include "npu/npu_weights.h"

#include <math.h>

fv_status fv_npu_columns(float *w, float *bias, const fv_mat *from, size_t first, size_t n,
                         const float *scale, float factor, const fv_kernels *k, fv_error *err)
{
    float *row = fv_alloc(from->k, sizeof *row);
    if (!row)
        return fv_fail_memory(err, from->k * sizeof *row, "a row of weights");
    for (size_t o = 0; o < n; o++) {
        float times = factor * (scale ? scale[first + o] : 1);
        fv_graph_mat_rows(k, from, first + o, 1, row, &bias[o]);
        bias[o] *= times;
        for (size_t c = 0; c < from->k; c++)
            w[c * n + o] = row[c] * times;
    }
    fv_free(row);
    return FV_OK;
}

enum { COLUMNS = 32 }; /* at a time, so that rows are read in their order */

/* Squared errors of columns [first, first + count) with these scales. */
static void columns_error(const float *w, size_t rows, size_t n, size_t first, size_t count,
                          const float *scale, double *lost)
{
    for (size_t o = 0; o < count; o++)
        lost[o] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t o = 0; o < count; o++) {
            float x = w[i * n + first + o], q = rintf(x / scale[o]);
            float off = x - fmaxf(-127, fminf(127, q)) * scale[o];
            lost[o] += (double)(off * off);
        }
}

/* The scales of count columns. */
static void columns_scale(const float *w, size_t rows, size_t n, size_t first, size_t count,
                          float *scale)
{
    static const float part[] = { 0.97f, 0.94f, 0.9f, 0.85f, 0.8f, 0.7f };
    float full[COLUMNS] = { 0 }, tried[COLUMNS];
    double least[COLUMNS], lost[COLUMNS];
    for (size_t i = 0; i < rows; i++)
        for (size_t o = 0; o < count; o++)
            full[o] = fmaxf(full[o], fabsf(w[i * n + first + o]));
    for (size_t o = 0; o < count; o++)
        scale[o] = full[o] = fmaxf(full[o] / 127, 1e-12f);
    columns_error(w, rows, n, first, count, full, least);
    for (size_t t = 0; t < FV_COUNT(part); t++) {
        for (size_t o = 0; o < count; o++)
            tried[o] = full[o] * part[t];
        columns_error(w, rows, n, first, count, tried, lost);
        for (size_t o = 0; o < count; o++)
            if (lost[o] < least[o]) {
                least[o] = lost[o];
                scale[o] = tried[o];
            }
    }
}

void fv_npu_quantize(const float *w, size_t rows, size_t n, const float *bias, float x_scale,
                     int8_t *w8, float *scale)
{
    for (size_t first = 0; first < n; first += COLUMNS)
        columns_scale(w, rows, n, first, FV_MIN(n - first, (size_t)COLUMNS), scale + first);
    for (size_t o = 0; bias && o < n; o++)
        scale[o] = fmaxf(scale[o], fabsf(bias[o]) / (x_scale * 0x1p30f));
    for (size_t i = 0; i < rows; i++)
        for (size_t o = 0; o < n; o++)
            w8[i * n + o] = (int8_t)fmaxf(-127, fminf(127, rintf(w[i * n + o] / scale[o])));
}

void fv_npu_bias_correct(const float *w, const int8_t *w8, const float *scale, float *bias,
                         const float *mean, size_t rows, size_t channels, size_t mult, size_t n)
{
    for (size_t o = 0; mean && o < n; o++) {
        double added = 0;
        for (size_t i = 0; i < rows; i++) {
            float off = (float)w8[i * n + o] * scale[o] - w[i * n + o];
            added += (double)off * (double)mean[mult ? o / mult : i % channels];
        }
        bias[o] -= (float)added;
    }
}
