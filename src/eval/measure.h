/* measure: how far one array is from another, and one distribution from another. In double. */
#ifndef FV_MEASURE_H
#define FV_MEASURE_H

#include "base/base.h"

/* Sums over any number of arrays; zero-initialise. */
typedef struct fv_distance {
    double want2, got2, both, noise; /* sums of w^2, g^2, w g, (w - g)^2 */
    size_t n;
} fv_distance;

void fv_distance_add(fv_distance *d, const float *want, const float *got, size_t n);
void fv_distance_join(fv_distance *d, const fv_distance *more);
/* 10 log10(sum w^2 / sum (w - g)^2) in dB; infinity when nothing differs. */
double fv_distance_sqnr(const fv_distance *d);
/* sum w g / sqrt(sum w^2 sum g^2); 1 when both are zero, 0 when one is. */
double fv_distance_cosine(const fv_distance *d);

/* Kullback-Leibler divergence sum p log(p / q) in nats, p and q the softmax of want and got. At
 * least 0; infinity or NaN only when a logit is. */
double fv_kl_divergence(const float *want, const float *got, size_t n);
/* The index of the largest, the lowest among equals. */
size_t fv_largest(const float *x, size_t n);
/* The middle of n values, of an even number the mean of the two; sorts x. 0 of none. */
double fv_median(double *x, size_t n);

#endif
