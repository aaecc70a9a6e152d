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
                         const fv_npu_means *means, size_t rows, size_t channels, size_t mult,
                         size_t n)
{
    for (size_t o = 0; means->mean && o < n; o++) {
        double added = 0;
        for (size_t i = 0; i < rows; i++) {
            size_t c = mult ? o / mult : i % channels, tap = mult ? i : i / channels;
            added += ((double)((float)w8[i * n + o] * scale[o]) * (double)means->rounded[c] -
                      (double)w[i * n + o] * (double)means->mean[c]) *
                     (double)means->share[tap];
        }
        bias[o] -= (float)added;
    }
}

/* The share of n outputs, stride apart, whose tap at `at` of a kernel lies inside `size` inputs. */
static double tap_share(size_t at, size_t kernel, size_t stride, size_t size, size_t n)
{
    size_t inside = 0;
    for (size_t i = 0; i < n; i++) {
        size_t x = i * stride + at; /* with the padding in front */
        inside += x >= kernel / 2 && x < size + kernel / 2;
    }
    return (double)inside / (double)n;
}

fv_status fv_npu_tap_shares(float share[FV_NPU_TAPS], const fv_node *layer, fv_error *err)
{
    const fv_value *x = layer->in[0], *y = layer->out;
    size_t kernel = layer->op == FV_OP_DEPTHWISE ? (size_t)layer->depthwise.w->kernel
                    : layer->op == FV_OP_CONV    ? 3
                                                 : 1;
    size_t stride = layer->op == FV_OP_DEPTHWISE ? layer->depthwise.stride : 2;
    if (kernel * kernel > FV_NPU_TAPS)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: a kernel of %zu x %zu; expected up to 8 x 8", y->name, kernel, kernel);
    for (size_t i = 0; i < kernel * kernel; i++)
        share[i] = kernel == 1 ? 1
                               : (float)(tap_share(i / kernel, kernel, stride, (size_t)x->dim[1].n,
                                                   (size_t)y->dim[1].n) *
                                         tap_share(i % kernel, kernel, stride, (size_t)x->dim[2].n,
                                                   (size_t)y->dim[2].n));
    return FV_OK;
}

/* ---- a layer as a whole ------------------------------------------------------------------ */

static void row_apply(const float *row, size_t n, size_t channels, const float *share,
                      const float *x, float *y, float *squares)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (y)
            sum += (double)row[i] * (double)x[i % channels] * (double)share[i / channels];
        if (squares)
            squares[i % channels] += row[i] * row[i];
    }
    if (y)
        *y = (float)sum;
}

static fv_status mat_apply(const fv_mat *w, size_t channels, const float *scale, const float *share,
                           const float *x, float *y, float *squares, const fv_kernels *k,
                           fv_error *err)
{
    float *row = fv_alloc(w->k, sizeof *row);
    if (!row)
        return fv_fail_memory(err, w->k * sizeof *row, "a row of weights");
    for (size_t o = 0; o < w->n; o++) {
        fv_graph_mat_rows(k, w, o, 1, row, NULL);
        for (size_t i = 0; scale && i < w->k; i++)
            row[i] *= scale[o];
        row_apply(row, w->k, channels, share, x, y ? &y[o] : NULL, squares);
    }
    fv_free(row);
    return FV_OK;
}

static fv_status taps_apply(const fv_dw *w, const float *share, const float *x, float *y,
                            float *squares, fv_error *err)
{
    size_t taps = (size_t)w->kernel * w->kernel, n = w->channels * w->mult;
    float *all = fv_alloc(taps * n, sizeof *all);
    if (!all)
        return fv_fail_memory(err, taps * n * sizeof *all, "a layer's weights");
    fv_graph_dw_taps(w, all);
    for (size_t o = 0; o < n; o++) {
        double sum = 0;
        for (size_t i = 0; i < taps; i++) {
            float tap = all[i * n + o];
            sum += (double)tap * (double)share[i];
            if (squares)
                squares[o / w->mult] += tap * tap;
        }
        if (y)
            y[o] = (float)(sum * (double)x[o / w->mult]);
    }
    fv_free(all);
    return FV_OK;
}

fv_status fv_npu_layer_apply(const fv_node *layer, const float *x, float *y, float *squares,
                             const fv_kernels *k, fv_error *err)
{
    size_t channels = fv_value_cols(layer->in[0]);
    float share[FV_NPU_TAPS];
    FV_TRY(fv_npu_tap_shares(share, layer, err));
    for (size_t i = 0; squares && i < channels; i++)
        squares[i] = 0;
    switch (layer->op) {
    case FV_OP_DEPTHWISE: return taps_apply(layer->depthwise.w, share, x, y, squares, err);
    case FV_OP_CONV: return mat_apply(layer->conv.w, channels, NULL, share, x, y, squares, k, err);
    default:
        return mat_apply(layer->linear.w, channels, layer->linear.scale, share, x, y, squares, k,
                         err);
    }
}
