/* fpenv: the floating-point environment that all results are defined in.
 *
 * A program may round upward, flush denormals to zero or trap divisions; the same bits on every
 * machine want the default: to nearest, denormals kept, no traps. Every public function that
 * computes begins with fv_fpenv_enter and ends with fv_fpenv_leave, which gives the caller its own
 * environment back, the exception flags as they were included. What lies in between is one call: a
 * compiler may move arithmetic of the same function across the other two.
 *
 *     fv_fpenv caller = fv_fpenv_enter();
 *     fv_status status = session_next(s, out, err);
 *     fv_fpenv_leave(&caller);
 *
 * FV_DEFAULT_FPENV does both for the rest of a block, however it is left; for functions that hand
 * all arithmetic to others.
 *
 * A callback of the caller's runs in the default, too. The pool's workers enter once and for all.
 * A thread inherits its creator's environment, so that threads made in between need no call. */
#ifndef FV_FPENV_H
#define FV_FPENV_H

#include <stdint.h>

/* x86: MXCSR, x87 control word; Arm: FPCR, FPSR; elsewhere fenv_t. */
typedef struct fv_fpenv {
    uint64_t word[4];
} fv_fpenv;

fv_fpenv fv_fpenv_enter(void);
void fv_fpenv_leave(const fv_fpenv *caller);

#define FV_DEFAULT_FPENV                                   \
    __attribute__((cleanup(fv_fpenv_leave_block), unused)) \
    const fv_fpenv fv_fpenv_block = fv_fpenv_enter()
static inline void fv_fpenv_leave_block(const fv_fpenv *caller) { fv_fpenv_leave(caller); }

#endif
