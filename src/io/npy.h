/* npy: writes arrays in numpy's .npy format, version 1.0, C order. */
#ifndef FV_NPY_H
#define FV_NPY_H

#include "base/base.h"
#include "base/types.h"

/* Writes DIR/NAME.npy: beside, then renamed, so that no half file keeps the name. type is F32, U8
 * or I64; n_dims <= 4. */
fv_status fv_npy_write(const char *dir, const char *name, fv_type type, const void *data,
                       const size_t *shape, int n_dims, fv_error *err);

#endif
