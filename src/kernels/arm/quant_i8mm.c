/* Products with weights in blocks of 8 or 4 bits with SMMLA: two rows of eight times two columns of
 * eight. */
#include "kernels/arm/vmath_neon.h"

#define QUANT_ISA(name) name##__i8mm
enum { GROUP = 8 };

#define QUANT_PAIRS

#include "kernels/arm/quant_neon.h"

void fv_quant_init_i8mm(fv_kernels *k);
void fv_quant_init_i8mm(fv_kernels *k) { fill_slots(k); }
