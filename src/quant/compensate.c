/* Factors of H, and rounding that hands errors on. See compensate.h. */
#include "quant/compensate.h"

#include <math.h>
#include <string.h>

#include "quant/round.h"

fv_input_groups fv_input_groups_of(size_t k)
{
    size_t groups = (k + FV_INPUTS_MOST - 1) / FV_INPUTS_MOST, even = (k + groups - 1) / groups,
           width = FV_MIN(k, (even + FV_BLOCK - 1) / FV_BLOCK * FV_BLOCK);
    return (fv_input_groups){ .k = k, .width = width, .n = (k + width - 1) / width };
}

fv_inputs fv_input_group(const fv_input_groups *all, size_t g)
{
    size_t from = g * all->width;
    return (fv_inputs){ .n = FV_MIN(all->width, all->k - from),
                        .h = all->h + from * all->width,
                        .importance = all->importance + from };
}

/* Row j of R from the rows after it, from the last row up: R R^T = H column by column, so that the
 * dot products run along rows. */
bool fv_inputs_factor(fv_inputs *in, const fv_kernels *k)
{
    const size_t n = in->n;
    float *h = in->h, *dots = in->importance; /* free until the end */
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)h[i * n + i] / (double)n;
    if (!(mean < 1e30))
        return false;
    if (mean < 1e-30) { /* nothing ever came in */
        memset(h, 0, n * n * sizeof *h);
        mean = 1;
    }
    const float damping = (float)(FV_DAMPING * mean);
    for (size_t i = 0; i < n; i++)
        h[i * n + i] += damping;
    for (size_t j = n; j-- > 0;) {
        float *row = h + j * n;
        if (j + 1 < n) {
            k->gemv[FV_TYPE_F32](dots, h + j + 1, n, row + j + 1, NULL, j + 1, n - j - 1);
            for (size_t i = 0; i <= j; i++)
                h[i * n + j] -= dots[i];
        }
        /* exactly, it never is below; rounded, it may be */
        row[j] = sqrtf(FV_MAX(row[j], damping));
        for (size_t i = 0; i < j; i++)
            h[i * n + j] /= row[j];
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)h[i * n + i] * (double)h[i * n + i];
    for (size_t i = 0; i < n; i++) {
        in->importance[i] = (float)((double)h[i * n + i] * (double)h[i * n + i] * (double)n / sum);
        for (size_t l = i + 1; l < n; l++)
            h[l * n + i] = h[i * n + l] = h[i * n + l] / h[l * n + l];
    }
    return true;
}

double fv_round_in_order(const fv_round_columns *c, float scale, float lo, float hi, double most,
                         float q[FV_COMPENSATED_COLUMNS], float off[FV_COMPENSATED_COLUMNS])
{
    const float inv = scale != 0 ? 1 / scale : 0;
    float x[FV_COMPENSATED_COLUMNS];
    double error = 0;
    memcpy(x, c->x, c->n * sizeof *x);
    for (size_t i = 0; i < c->n; i++) {
        q[i] = fv_round_even(fv_round_clamp(x[i] * inv, lo, hi));
        off[i] = c->w[i] - scale * q[i];
        const double miss = (double)x[i] - (double)scale * (double)q[i];
        error += (double)c->importance[i] * miss * miss;
        if (error >= most)
            return INFINITY;
        for (size_t l = i + 1; l < c->n; l++)
            x[l] += off[i] * c->share[i * c->ld + l];
    }
    return error;
}

static size_t compensated_panel_bytes(const fv_kernels *k, size_t n)
{
    return (fv_packed_elems(&k->gemm_f32, n, FV_COMPENSATED_COLUMNS) * sizeof(float) + 63) / 64 *
           64;
}

size_t fv_compensated_scratch(const fv_kernels *k, size_t n)
{
    return compensated_panel_bytes(k, n) +
           FV_COMPENSATED_ROWS * (n + FV_COMPENSATED_COLUMNS) * sizeof(float);
}

void fv_compensate(const fv_inputs *in, const float *w, size_t ld, size_t rows, fv_round_fn *fn,
                   void *user, const fv_kernels *k, void *scratch)
{
    const size_t n = in->n;
    float *panel = scratch, *x = (float *)((uint8_t *)scratch + compensated_panel_bytes(k, n)),
          *off = x + FV_COMPENSATED_ROWS * n;
    for (size_t row = 0; row < rows; row++)
        memcpy(x + row * n, w + row * ld, n * sizeof *x);
    for (size_t at = 0; at < n; at += FV_COMPENSATED_COLUMNS) {
        const size_t columns = FV_MIN((size_t)FV_COMPENSATED_COLUMNS, n - at),
                     rest = n - at - columns;
        for (size_t row = 0; row < rows; row++) {
            float *here = x + row * n + at;
            for (size_t i = 0; i < columns; i++)
                here[i] = isfinite(here[i]) ? here[i] : 0;
            fn(user,
               &(fv_round_columns){ .row = row,
                                    .at = at,
                                    .n = columns,
                                    .w = w + row * ld + at,
                                    .x = here,
                                    .importance = in->importance + at,
                                    .share = in->h + at * n + at,
                                    .ld = n },
               off + row * FV_COMPENSATED_COLUMNS);
        }
        if (rest == 0)
            break;
        k->gemm_f32.pack[FV_TYPE_F32](panel, in->h + (at + columns) * n + at, n, rest, columns);
        k->gemm_f32.run(&(fv_gemm_args){ .m = rows,
                                         .n = rest,
                                         .k = columns,
                                         .a = off,
                                         .lda = FV_COMPENSATED_COLUMNS,
                                         .b = panel,
                                         .c = x + at + columns,
                                         .ldc = n,
                                         .c_type = FV_TYPE_F32,
                                         .residual = x + at + columns,
                                         .ldr = n });
    }
}
