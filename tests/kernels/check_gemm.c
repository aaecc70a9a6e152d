/* Checks of the matrix products, their packing, and the matrix-vector products. */
#include "check.h"

void check_gemm(fv_check *c) { (void)c; }
