/* limits: what this machine's processor and memory can do at most, measured. */
#ifndef FV_KERNELS_LIMITS_H
#define FV_KERNELS_LIMITS_H

#include "base/base.h"
#include "kernels/kernels.h"

/* Fills *out but its size: products a second of the table's own kernels on operands that stay in a
 * core's cache, and bytes a second read from memory, by all threads of the pool together, the best
 * of several tries. Takes 300 MB and about half a second. */
fv_status fv_limits_measure(fv_limits *out, const fv_kernels *k, const fv_pool *pool,
                            fv_error *err);

#endif
