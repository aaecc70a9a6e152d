/* products: H = sum x x^T of what comes into a matrix (quant/compensate.h), row by row of x. */
#ifndef FV_PRODUCTS_H
#define FV_PRODUCTS_H

#include "nn/ops.h"
#include "quant/compensate.h"

/* Memory for k columns, H = 0. */
fv_status fv_products_init(fv_input_groups *p, size_t k, fv_error *err);
void fv_products_free(fv_input_groups *p);

/* What adding at most n rows takes of ops. */
fv_ops_need fv_products_need(const fv_ops *ops, const fv_input_groups *p, size_t n);

/* H += x^T x for n rows x [n, k]. turned: [k, n], scratch. The same on any number of threads. */
void fv_products_add(const fv_input_groups *p, const fv_ops *ops, const float *x, size_t n,
                     float *turned);

#endif
