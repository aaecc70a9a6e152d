/* cosine: how alike two arrays are, as calibrations judge their choices. */
#ifndef FV_COSINE_H
#define FV_COSINE_H

#include <stddef.h>

/* sum a b / sqrt(sum a^2 sum b^2), in double; 0 when one of them is zero. */
double fv_cosine(const float *a, const float *b, size_t n);

#endif
