/* Registers are read and written directly: fegetenv and fesetenv save the whole x87 stack, which
 * costs more than a short call does, and do not promise to touch FTZ and DAZ. */
#include "base/fpenv.h"

#if defined(__x86_64__)

/* To nearest, denormals kept, exceptions masked, no flag raised. The x87 registers compute long
 * double only; libc's conversions between text and numbers may. */
enum { MXCSR_DEFAULT = 0x1f80, X87_DEFAULT = 0x037f };

static void mxcsr_write(uint32_t value) { __asm__ volatile("ldmxcsr %0" : : "m"(value)); }

static void x87_write(uint16_t value) { __asm__ volatile("fldcw %0" : : "m"(value)); }

fv_fpenv fv_fpenv_enter(void)
{
    uint32_t mxcsr;
    uint16_t x87;

    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    mxcsr_write(MXCSR_DEFAULT);
    if (x87 != X87_DEFAULT)
        x87_write(X87_DEFAULT);
    return (fv_fpenv){ { mxcsr, x87 } };
}

/* What is set now need not be the default: a callback may have changed it. */
void fv_fpenv_leave(const fv_fpenv *caller)
{
    uint16_t x87;

    mxcsr_write((uint32_t)caller->word[0]);
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    if (x87 != caller->word[1])
        x87_write((uint16_t)caller->word[1]);
}

#elif defined(__aarch64__)

fv_fpenv fv_fpenv_enter(void)
{
    fv_fpenv caller;

    __asm__ volatile("mrs %0, fpcr" : "=r"(caller.word[0]));
    __asm__ volatile("mrs %0, fpsr" : "=r"(caller.word[1]));
    if (caller.word[0] != 0)
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return caller;
}

/* What is set now need not be the default: a callback may have changed it. */
void fv_fpenv_leave(const fv_fpenv *caller)
{
    uint64_t fpcr;

    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    if (fpcr != caller->word[0])
        __asm__ volatile("msr fpcr, %0" : : "r"(caller->word[0]));
    __asm__ volatile("msr fpsr, %0" : : "r"(caller->word[1]));
}

#else

#include <fenv.h>
#include <string.h>

_Static_assert(sizeof(fenv_t) <= sizeof(fv_fpenv), "no room for this machine's environment");

fv_fpenv fv_fpenv_enter(void)
{
    fenv_t now;
    fv_fpenv caller = { 0 };

    fegetenv(&now);
    memcpy(&caller, &now, sizeof now);
    fesetenv(FE_DFL_ENV);
    return caller;
}

void fv_fpenv_leave(const fv_fpenv *caller)
{
    fenv_t before;

    memcpy(&before, caller, sizeof before);
    fesetenv(&before);
}

#endif
