/* Ranges and weights in f32 -> scales and weights in int8. See int8.h. */
#include "quant/int8.h"

#include <math.h>
#include <string.h>

#include "quant/round.h"

/* What the choice of scales is judged by: enough for the order of the candidates not to change with
 * more of them, few enough for a layer of 3072 x 12288 to take a second or two. */
enum {
    JUDGED_ROWS = 64,    /* sample rows, spread over all */
    JUDGED_OUTPUTS = 48, /* outputs of a matrix, spread over all */
    LANES = 8            /* of loops that compilers turn into vectors */
};

/* Candidates. Those for the range leave the few largest values to be clipped. Sample rows hold few
 * of those: below 0.8 they agree to more than the features bear. */
static const float alphas[] = { 0, 0.25f, 0.5f, 0.75f, 1 };
static const float clips[] = { 1, 0.95f, 0.9f, 0.85f, 0.8f };
static const float fine_clip = 2; /* with rows of 16 bits: room for what was not seen */
static const float shrinks[] = { 1, 0.95f, 0.9f, 0.85f, 0.8f }; /* of a row of weights */

void fv_int8_see(fv_int8_seen *s, const float *x, size_t ld, size_t n, size_t first, size_t last)
{
    float *restrict low = s->low + first, *restrict high = s->high + first;
    const size_t channels = last - first, whole = channels / LANES * LANES;
    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * ld;
        for (size_t c = 0; c < whole; c += LANES)
            for (size_t j = 0; j < LANES; j++) {
                low[c + j] = row[c + j] < low[c + j] ? row[c + j] : low[c + j];
                high[c + j] = row[c + j] > high[c + j] ? row[c + j] : high[c + j];
            }
        for (size_t c = whole; c < channels; c++) {
            low[c] = row[c] < low[c] ? row[c] : low[c];
            high[c] = row[c] > high[c] ? row[c] : high[c];
        }
    }
}

/* How far channel c reaches on either side. */
static float channel_reach(const fv_int8_seen *in, size_t c)
{
    return fmaxf(-in->low[c], in->high[c]);
}

/* What a channel counts as reaching at least: one without values would have no scale. */
static float reach_floor(const fv_int8_seen *in)
{
    float most = 0;
    for (size_t c = 0; c < in->k; c++)
        most = fmaxf(most, channel_reach(in, c));
    return 1e-4f * most + 1e-20f;
}

/* ---- a matrix ---------------------------------------------------------------------------- */

/* Pieces of the scratch. */
typedef struct matrix_memory {
    float *w, *wq; /* [JUDGED_OUTPUTS, k] rows of weights, and what their i8 stand for */
    float *s;      /* [k] smoothing */
    float *xq;     /* [k] what the u8 of a sample row stand for */
    float *y;      /* [JUDGED_ROWS, JUDGED_OUTPUTS] outputs in f32 */
    /* with products, of a group of columns: */
    float *h;          /* [width, width] as the smoothed input has them, factored */
    float *importance; /* [width] */
    float *rows;       /* [FV_COMPENSATED_ROWS, width] weights, smoothed */
    void *compensated; /* fv_compensate's scratch */
} matrix_memory;

/* Where they lie from scratch on, which is NULL to ask how many bytes they take. */
static size_t matrix_memory_carve(matrix_memory *m, const fv_int8_seen *in, const fv_kernels *k,
                                  uint8_t *scratch)
{
    const size_t width = in->products.n ? in->products.width : 0;
    const struct {
        float **to;
        size_t elems;
    } parts[] = { { &m->w, JUDGED_OUTPUTS * in->k },
                  { &m->wq, JUDGED_OUTPUTS * in->k },
                  { &m->s, in->k },
                  { &m->xq, in->k },
                  { &m->y, JUDGED_ROWS * JUDGED_OUTPUTS },
                  { &m->h, width * width },
                  { &m->importance, width },
                  { &m->rows, FV_COMPENSATED_ROWS * width } };
    size_t used = 0;
    for (size_t i = 0; i < FV_COUNT(parts); i++) {
        *parts[i].to = scratch ? (float *)(void *)(scratch + used) : NULL;
        used += (parts[i].elems * sizeof(float) + 63) / 64 * 64;
    }
    m->compensated = scratch ? scratch + used : NULL;
    return used + (width ? (fv_compensated_scratch(k, width) + 63) / 64 * 64 : 0);
}

size_t fv_int8_scratch(const fv_int8_seen *in, const fv_kernels *k)
{
    matrix_memory m;
    return matrix_memory_carve(&m, in, k, NULL);
}

/* In an order that is the same on every machine. */
static float row_dot(const float *a, const float *b, size_t n)
{
    float s[16] = { 0 };
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++)
            s[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    float sum = 0;
    for (size_t j = 0; j < 16; j++)
        sum += s[j];
    return sum;
}

static void smoothing_fill(const fv_int8_seen *in, float alpha, float *s)
{
    float floor = reach_floor(in);
    for (size_t c = 0; c < in->k; c++)
        s[c] = powf(fmaxf(channel_reach(in, c), floor), alpha);
}

/* Step and zero of u8 for the smoothed range times clip. */
static float range_step(const fv_int8_seen *in, const float *s, float clip, int *zero)
{
    float low = 0, high = 0;
    for (size_t c = 0; c < in->k; c++) {
        low = fminf(low, in->low[c] / s[c]);
        high = fmaxf(high, in->high[c] / s[c]);
    }
    float step = fmaxf((high - low) * clip / 255, 1e-20f);
    *zero = (int)FV_MIN(255.0f, FV_MAX(0.0f, rintf(-low * clip / step)));
    return step;
}

static inline float square_lost(float x, float inverse, float scale)
{
    const float lost = x - fv_round_even(fv_round_clamp(x * inverse, -127, 127)) * scale;
    return lost * lost;
}

/* A row of weights times s as i8: the scale with the least squared error. Returns the scale; out
 * holds the values that the i8 stand for, w8 (may be NULL) the i8. */
static float row_round(const float *w, const float *s, size_t k, float *out, int8_t *w8)
{
    const size_t whole = k / LANES * LANES;
    float most = 0, best = 0;
    double least = INFINITY;
    for (size_t c = 0; c < k; c++) {
        const float size = fabsf(w[c] * s[c]);
        most = size > most ? size : most;
    }
    if (most == 0)
        most = 1e-20f;
    for (size_t i = 0; i < FV_COUNT(shrinks); i++) {
        const float scale = most * shrinks[i] / 127, inverse = 1 / scale;
        float error[LANES] = { 0 };
        for (size_t c = 0; c < whole; c += LANES)
            for (size_t j = 0; j < LANES; j++)
                error[j] += square_lost(w[c + j] * s[c + j], inverse, scale);
        for (size_t c = whole; c < k; c++)
            error[c - whole] += square_lost(w[c] * s[c], inverse, scale);
        double sum = 0;
        for (size_t j = 0; j < LANES; j++)
            sum += (double)error[j];
        if (sum < least) {
            least = sum;
            best = scale;
        }
    }
    for (size_t c = 0; c < k; c++) {
        float q = fv_round_even(fv_round_clamp(w[c] * s[c] / best, -127, 127));
        out[c] = q * best;
        if (w8)
            w8[c] = (int8_t)q;
    }
    return best;
}

/* Step and zero of a layer's input, and whether it has 16 bits. */
typedef struct input_grid {
    float step;
    int zero;
    bool fine;
} input_grid;

/* What the u8 of a sample row stand for, smoothed as they are, into m->xq. */
static void sample_round(const matrix_memory *m, const float *x, size_t k, const input_grid *g)
{
    const float most = g->fine ? 65535 : 255, origin = (float)(g->zero * (g->fine ? 256 : 1)),
                small = g->step / (g->fine ? 256 : 1);
    for (size_t c = 0; c < k; c++) {
        const float v = fv_round_clamp(x[c] / (m->s[c] * small), -origin, most - origin);
        m->xq[c] = fv_round_even(v) * small;
    }
}

/* Squared error of the judged outputs with these scales; *signal: their own squares. */
static double scales_judge(const fv_int8_seen *in, const matrix_memory *m, const input_grid *g,
                           size_t rows, size_t outputs, double *signal)
{
    const size_t k = in->k;
    double error = 0;
    *signal = 0;
    for (size_t i = 0; i < rows; i++) {
        sample_round(m, in->rows + i * in->n_rows / rows * k, k, g);
        for (size_t j = 0; j < outputs; j++) {
            double y = (double)m->y[i * JUDGED_OUTPUTS + j],
                   lost = y - (double)row_dot(m->xq, m->wq + j * k, k);
            error += lost * lost;
            *signal += y * y;
        }
    }
    return error;
}

/* Means over the sample rows [k]: of the input, and of what its u8 stand for. */
static void means_fill(const fv_int8_seen *in, const matrix_memory *m, const input_grid *g,
                       float *mean, float *mean_q)
{
    const size_t k = in->k;
    const float share = 1 / (float)FV_MAX(in->n_rows, (size_t)1);
    for (size_t c = 0; c < k; c++)
        mean[c] = mean_q[c] = 0;
    for (size_t i = 0; i < in->n_rows; i++) {
        const float *x = in->rows + i * k;
        sample_round(m, x, k, g);
        for (size_t c = 0; c < k; c++) {
            mean[c] += x[c] * share;
            mean_q[c] += m->xq[c] * share;
        }
    }
}

/* What an output of weights w lacks on average with wq in their place: it goes into the bias. */
static float row_lack(const float *w, const float *wq, const float *mean, const float *mean_q,
                      size_t k)
{
    double lack = 0;
    for (size_t c = 0; c < k; c++)
        lack += (double)w[c] * (double)mean[c] - (double)wq[c] * (double)mean_q[c];
    return isfinite(lack) ? (float)lack : 0; /* what is not finite is refused elsewhere */
}

typedef struct matrix_choice {
    float alpha, clip;
} matrix_choice;

/* Tries all candidates. */
static matrix_choice scales_choose(const fv_int8_seen *in, const matrix_memory *m, bool fine,
                                   size_t rows, size_t outputs, double *sqnr)
{
    const float *clip = fine ? &fine_clip : clips;
    const size_t n_clips = fine ? 1 : FV_COUNT(clips);
    matrix_choice choice = { 0, 1 };
    double best = INFINITY, signal = 0;
    for (size_t a = 0; a < FV_COUNT(alphas); a++) {
        smoothing_fill(in, alphas[a], m->s);
        for (size_t j = 0; j < outputs; j++)
            row_round(m->w + j * in->k, m->s, in->k, m->wq + j * in->k, NULL);
        for (size_t i = 0; i < n_clips; i++) {
            input_grid g = { .fine = fine };
            g.step = range_step(in, m->s, clip[i], &g.zero);
            double error = scales_judge(in, m, &g, rows, outputs, &signal);
            if (error < best) {
                best = error;
                choice = (matrix_choice){ alphas[a], clip[i] };
            }
        }
    }
    *sqnr = best > 0 ? 10 * log10(signal / best) : 200;
    return choice;
}

/* ---- a matrix rounded with its inputs in view --------------------------------------------- */

typedef struct int8_rows {
    const float *scale; /* of each row */
    int8_t *w8;         /* the group's part of them, ld apart */
    size_t ld;
} int8_rows;

/* fv_round_fn */
static void int8_columns_round(void *user, const fv_round_columns *c, float *off)
{
    const int8_rows *to = user;
    float q[FV_COMPENSATED_COLUMNS] = { 0 };
    memset(off, 0, c->n * sizeof *off); /* it may end early where weights are infinite */
    fv_round_in_order(c, to->scale[c->row], -127, 127, INFINITY, q, off);
    for (size_t i = 0; i < c->n; i++)
        to->w8[c->row * to->ld + c->at + i] = (int8_t)q[i];
}

/* The products of group g as the smoothed input has them, factored. */
static bool group_factor(const fv_int8_seen *in, const matrix_memory *m, size_t g, fv_inputs *out,
                         const fv_kernels *kernels)
{
    const fv_inputs seen = fv_input_group(&in->products, g);
    const float *s = m->s + g * in->products.width;
    *out = (fv_inputs){ .n = seen.n, .h = m->h, .importance = m->importance };
    for (size_t i = 0; i < seen.n; i++)
        for (size_t l = 0; l < seen.n; l++)
            out->h[i * seen.n + l] = seen.h[i * seen.n + l] / s[i] / s[l];
    return fv_inputs_factor(out, kernels);
}

/* The i8 of all rows; scale: [n] of each. A group whose products are not finite is rounded to the
 * nearest: what is not finite is refused elsewhere. */
static void matrix_compensate(int8_t *w8, float *scale, const fv_int8_seen *in,
                              const matrix_memory *m, const void *w, fv_type type, size_t n,
                              const fv_kernels *kernels)
{
    const size_t k = in->k, width = in->products.width;
    fv_convert_fn *widen = kernels->convert[FV_TYPE_F32][type];
    const uint8_t *weights = w;
    for (size_t j = 0; j < n; j++) {
        widen(m->w, weights + j * fv_row_bytes(type, k), k);
        scale[j] = row_round(m->w, m->s, k, m->wq, w8 + j * k);
    }
    for (size_t g = 0; g < in->products.n; g++) {
        fv_inputs group;
        if (!group_factor(in, m, g, &group, kernels))
            continue;
        for (size_t first = 0; first < n; first += FV_COMPENSATED_ROWS) {
            const size_t rows = FV_MIN((size_t)FV_COMPENSATED_ROWS, n - first), from = g * width;
            for (size_t j = 0; j < rows; j++) {
                float *row = m->rows + j * group.n;
                widen(row, weights + fv_row_bytes(type, (first + j) * k + from), group.n);
                for (size_t c = 0; c < group.n; c++)
                    row[c] *= m->s[from + c];
            }
            int8_rows to = { scale + first, w8 + first * k + from, k };
            fv_compensate(&group, m->rows, group.n, rows, int8_columns_round, &to, kernels,
                          m->compensated);
        }
    }
}

/* What the i8 of a row stand for, smoothed as they are. */
static void row_restore(float *out, const int8_t *w8, float scale, size_t k)
{
    for (size_t c = 0; c < k; c++)
        out[c] = (float)w8[c] * scale;
}

/* ---- a matrix as a whole ------------------------------------------------------------------ */

void fv_int8_matrix(fv_int8_layer *out, const fv_int8_seen *in, const void *w, fv_type type,
                    size_t n, const float *bias, const fv_kernels *kernels, void *scratch)
{
    const size_t k = in->k, rows = FV_MIN((size_t)JUDGED_ROWS, in->n_rows),
                 outputs = FV_MIN((size_t)JUDGED_OUTPUTS, n);
    const bool compensated = in->products.n > 0;
    matrix_memory m;
    matrix_memory_carve(&m, in, kernels, scratch);
    fv_convert_fn *widen = kernels->convert[FV_TYPE_F32][type];
    const uint8_t *weights = w;
    for (size_t j = 0; j < outputs; j++)
        widen(m.w + j * k, weights + j * n / outputs * fv_row_bytes(type, k), k);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < outputs; j++)
            m.y[i * JUDGED_OUTPUTS + j] = row_dot(in->rows + i * in->n_rows / rows * k, m.w + j * k,
                                                  k);
    const matrix_choice choice = scales_choose(in, &m, out->fine, rows, outputs, &out->sqnr);
    smoothing_fill(in, choice.alpha, m.s);
    const float step = range_step(in, m.s, choice.clip, &out->zero);
    const input_grid grid = { step, out->zero, out->fine };
    for (size_t c = 0; c < k; c++)
        out->inv[c] = 1 / (m.s[c] * step);
    if (compensated) {
        double signal;
        matrix_compensate(out->w8, out->mul, in, &m, w, type, n, kernels);
        for (size_t j = 0; j < outputs; j++)
            row_restore(m.wq + j * k, out->w8 + j * n / outputs * k, out->mul[j * n / outputs], k);
        const double error = scales_judge(in, &m, &grid, rows, outputs, &signal);
        out->sqnr = error > 0 ? 10 * log10(signal / error) : 200;
    }
    float *mean = m.w + k, *mean_q = m.w + 2 * k; /* rows that were judged */
    means_fill(in, &m, &grid, mean, mean_q);
    for (size_t j = 0; j < n; j++) {
        int8_t *w8 = out->w8 + j * k;
        int32_t sum = 0;
        widen(m.w, weights + j * fv_row_bytes(type, k), k);
        if (compensated)
            row_restore(m.wq, w8, out->mul[j], k);
        else
            out->mul[j] = row_round(m.w, m.s, k, m.wq, w8);
        const float scale = out->mul[j] * step,
                    b = bias ? bias[j] + row_lack(m.w, m.wq, mean, mean_q, k) : 0;
        for (size_t c = 0; c < k; c++)
            sum += w8[c];
        /* rows of zeros, too, have a bias that fits */
        out->mul[j] = fmaxf(scale, fabsf(b) * 0x1p-28f);
        out->bias8[j] = (int32_t)rintf(b / out->mul[j]) - out->zero * sum;
    }
}

/* ---- a depthwise convolution ------------------------------------------------------------- */

/* Step of channel c: the clip with the least squared error of its sample values. Adds their squares
 * to *signal, the error to *noise. */
static float channel_choose(const fv_int8_seen *in, size_t c, float floor, double *signal,
                            double *noise)
{
    float range = fmaxf(channel_reach(in, c), floor), step = range / 127;
    double best = INFINITY, here = 0;
    for (size_t i = 0; i < FV_COUNT(clips); i++) {
        float trial = range * clips[i] / 127;
        double error = 0;
        here = 0;
        for (size_t r = 0; r < in->n_rows; r++) {
            float x = in->rows[r * in->k + c],
                  v = fv_round_even(fv_round_clamp(x / trial, -128, 127)) * trial;
            error += (double)(x - v) * (double)(x - v);
            here += (double)x * (double)x;
        }
        if (error < best) {
            best = error;
            step = trial;
        }
    }
    *signal += here;
    *noise += best;
    return step;
}

/* Of channel c over the sample rows. */
static void channel_means(const fv_int8_seen *in, size_t c, float step, double *mean,
                          double *mean_q)
{
    const double share = 1 / (double)FV_MAX(in->n_rows, (size_t)1);
    *mean = *mean_q = 0;
    for (size_t r = 0; r < in->n_rows; r++) {
        const float x = in->rows[r * in->k + c],
                    q = fv_round_even(fv_round_clamp(x / step, -128, 127));
        *mean += (double)x * share;
        *mean_q += (double)q * (double)step * share;
    }
}

void fv_int8_depthwise(fv_int8_layer *out, const fv_int8_seen *in, const float *w,
                       const float *bias, size_t taps, size_t mult)
{
    const size_t n = in->k * mult;
    const float floor = reach_floor(in);
    double signal = 0, noise = 0;
    out->zero = 128; /* channels have scales of their own: their ranges are taken as even */
    for (size_t c = 0; c < in->k; c++) {
        const float step = channel_choose(in, c, floor, &signal, &noise);
        double mean, mean_q;
        channel_means(in, c, step, &mean, &mean_q);
        out->inv[c] = 1 / step;
        for (size_t o = c * mult; o < (c + 1) * mult; o++) {
            float most = 0;
            double lack = 0;
            for (size_t t = 0; t < taps; t++)
                most = fmaxf(most, fabsf(w[t * n + o]));
            const float scale = fmaxf(most / 127, 1e-20f);
            for (size_t t = 0; t < taps; t++) {
                const float q = rintf(w[t * n + o] / scale);
                out->w8[t * n + o] = (int8_t)q;
                lack += (double)w[t * n + o] * mean - (double)(q * scale) * mean_q;
            }
            out->mul[o] = scale / out->inv[c];
            out->bias[o] = (bias ? bias[o] : 0) + (isfinite(lack) ? (float)lack : 0);
        }
    }
    out->sqnr = noise > 0 ? 10 * log10(signal / noise) : 200;
}
