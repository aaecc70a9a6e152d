/* The ways in which a host may have set the floating-point environment. */
#ifndef HOST_FPENV_H
#define HOST_FPENV_H

#include <fenv.h>
#include <stdbool.h>
#include <stdint.h>

enum { HOST_FPENV_KINDS = 5 };

static inline const char *host_fpenv_name(int kind)
{
    static const char *const name[HOST_FPENV_KINDS] = { "round upward", "round downward",
                                                        "round toward zero", "flush denormals",
                                                        "flush denormals and round upward" };
    return name[kind];
}

static inline bool host_fpenv_flush(void)
{
#if defined(__x86_64__)
    uint32_t mxcsr = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mxcsr | 0x8040); /* FTZ, DAZ */
    return true;
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (uint64_t)1 << 24)); /* FZ */
    return true;
#else
    return false;
#endif
}

/* Rounding, denormals and traps as they are set, without the flags that arithmetic raises. */
static inline uint64_t host_fpenv_modes(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & ~0x3fu;
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
#else
    return (uint64_t)fegetround();
#endif
}

/* False when this machine has no such way. */
static inline bool host_fpenv_set(int kind)
{
    switch (kind) {
    case 0: return fesetround(FE_UPWARD) == 0;
    case 1: return fesetround(FE_DOWNWARD) == 0;
    case 2: return fesetround(FE_TOWARDZERO) == 0;
    case 3: return host_fpenv_flush();
    default: return fesetround(FE_UPWARD) == 0 && host_fpenv_flush();
    }
}

#endif
