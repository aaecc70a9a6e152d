/* Two arrays -> signal to noise, cosine; two sets of logits -> divergence. See measure.h. */
#include "eval/measure.h"

#include <math.h>
#include <stdlib.h>

void fv_distance_add(fv_distance *d, const float *want, const float *got, size_t n)
{
    double want2 = 0, got2 = 0, both = 0, noise = 0;
    for (size_t i = 0; i < n; i++) {
        double w = (double)want[i], g = (double)got[i];
        want2 += w * w;
        got2 += g * g;
        both += w * g;
        noise += (w - g) * (w - g);
    }
    fv_distance_join(d, &(fv_distance){ want2, got2, both, noise, n });
}

void fv_distance_join(fv_distance *d, const fv_distance *more)
{
    d->want2 += more->want2;
    d->got2 += more->got2;
    d->both += more->both;
    d->noise += more->noise;
    d->n += more->n;
}

double fv_distance_sqnr(const fv_distance *d)
{
    return d->noise == 0 ? INFINITY : 10 * log10(d->want2 / d->noise);
}

double fv_distance_cosine(const fv_distance *d)
{
    if (d->noise == 0)
        return 1;
    double cosine = d->both / (sqrt(d->want2) * sqrt(d->got2));
    return d->want2 == 0 || d->got2 == 0 ? 0 : FV_MIN(cosine, 1.0);
}

/* log of the sum of exp(x), with the largest taken out. */
static double log_sum(const float *x, size_t n, double *largest)
{
    double sum = 0;
    *largest = -INFINITY;
    for (size_t i = 0; i < n; i++)
        *largest = fmax(*largest, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - *largest);
    return log(sum);
}

double fv_kl_divergence(const float *want, const float *got, size_t n)
{
    double top_w, top_g, sum_w = log_sum(want, n, &top_w), sum_g = log_sum(got, n, &top_g), kl = 0;
    for (size_t i = 0; i < n; i++) {
        double p = (double)want[i] - top_w - sum_w, q = (double)got[i] - top_g - sum_g, x = q - p;
        /* p log(p / q) and the sum of q - p, which is 0 in exact arithmetic: now every term is >=
         * 0, and a small divergence is not the difference of large numbers. A large x would
         * overflow. */
        kl += x < 1 ? exp(p) * (expm1(x) - x) : exp(q) - exp(p) - exp(p) * x;
    }
    return kl;
}

size_t fv_largest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static int measure_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double fv_median(double *x, size_t n)
{
    if (n == 0)
        return 0;
    qsort(x, n, sizeof *x, measure_compare);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}
