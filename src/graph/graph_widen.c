/* Weights of any stored type as f32, for who computes with them plainly or writes them anew. */
#include <string.h>

#include "graph/graph.h"

void fv_graph_mat_rows(const fv_kernels *k, const fv_mat *w, size_t first, size_t n, float *rows,
                       float *bias)
{
    for (size_t i = 0; i < n; i++) {
        float *row = rows + i * w->k;
        if (w->type == FV_TYPE_I8) {
            const int8_t *w8 = (const int8_t *)w->data + (first + i) * w->k;
            int64_t sum = 0;
            for (size_t c = 0; c < w->k; c++) {
                row[c] = w8[c] * w->mul[first + i] * w->in.inv[c];
                sum += w8[c];
            }
            if (bias)
                bias[i] = (float)((double)w->mul[first + i] *
                                  (double)(w->bias8[first + i] + w->in.zero * sum));
            continue;
        }
        k->convert[FV_TYPE_F32][w->type](
            row, (const uint8_t *)w->data + (first + i) * fv_row_bytes(w->type, w->k), w->k);
        if (bias)
            bias[i] = w->bias ? w->bias[first + i] : 0;
    }
}

void fv_graph_dw_taps(const fv_dw *w, float *taps)
{
    size_t outputs = w->channels * w->mult, n = (size_t)w->kernel * w->kernel * outputs;
    if (!w->w8)
        memcpy(taps, w->w, n * sizeof *taps);
    for (size_t i = 0; w->w8 && i < n; i++)
        taps[i] = w->w8[i] * (w->mul[i % outputs] * w->in.inv[i % outputs / w->mult]);
}
