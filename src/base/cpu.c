/* What the processor and the system offer, and how many cores there are. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

/* ---------------------------------------------------------------- instructions */

#if defined(__x86_64__)

/* What the system saves at a context switch: bit 1 SSE, 2 AVX, 5-7 AVX-512, 17-18 AMX. */
static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* May this process use tiles? Linux lends their 8 KB a thread only to processes that ask, once and
 * for all threads, also those that run already; children inherit it, exec takes it back. It refuses
 * when a thread has an alternate signal stack too small for the larger frame of a signal; once it
 * has granted, no thread can set such a small one. Other systems: no. */
static bool ask_for_tiles(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { GET_PERMISSION = 0x1022, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    uint64_t granted = 0;
    if (syscall(SYS_arch_prctl, GET_PERMISSION, &granted) == 0 && granted >> TILE_DATA & 1)
        return true;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

/* Palette 1 as the kernels use it: 8 tiles of 16 rows of 64 bytes. */
static bool has_full_tiles(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(0x1d, 1, &a, &b, &c, &d) && b >> 16 >= 8 && (b & 0xffff) >= 64 &&
           (c & 0xffff) >= 16;
}

/* Levels that the system must be asked for are left out, unasked, when `asked` lacks them. */
static unsigned cpu_flags(unsigned asked)
{
    unsigned a, b, c, d, a1, b1, c1, d1, flags = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    const unsigned wanted = fma | osxsave | avx | f16c;
    if ((c & wanted) != wanted)
        return 0;
    uint64_t saved = saved_registers();
    if ((saved & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if (!(b & 1u << 5))
        return 0;
    flags |= FV_CPU_AVX2;
    if (a < 1 || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1))
        a1 = 0;
    if (a1 & 1u << 4)
        flags |= FV_CPU_AVXVNNI;
    const unsigned avx512 = 1u << 16 /* F */ | 1u << 17 /* DQ */ | 1u << 30 /* BW */ |
                            1u << 31 /* VL */;
    if ((saved & 0xe6) != 0xe6 || (b & avx512) != avx512)
        return flags;
    flags |= FV_CPU_AVX512;
    if (c & 1u << 11)
        flags |= FV_CPU_AVX512VNNI;
    if (a1 & 1u << 5)
        flags |= FV_CPU_AVX512BF16;
    const unsigned amx = 1u << 22 /* BF16 */ | 1u << 24 /* TILE */ | 1u << 25 /* INT8 */;
    if ((flags & FV_CPU_AVX512BF16) && (flags & FV_CPU_AVX512VNNI) && (d & amx) == amx &&
        (saved >> 17 & 3) == 3 && has_full_tiles() && (asked & FV_CPU_AMX) && ask_for_tiles())
        flags |= FV_CPU_AMX;
    return flags;
}

#elif defined(__aarch64__) && defined(__linux__)

/* The numbers are the kernel's ABI; old C library headers lack the later names. */
static unsigned cpu_flags(unsigned asked)
{
    (void)asked;
    unsigned long cap = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    const unsigned long fp16 = 1ul << 9 /* FPHP */ | 1ul << 10 /* ASIMDHP */ |
                               1ul << 23 /* ASIMDFHM */;
    unsigned flags = FV_CPU_NEON;

    if (cap & 1ul << 20)
        flags |= FV_CPU_DOTPROD;
    if ((cap & fp16) == fp16)
        flags |= FV_CPU_FP16;
    if (cap2 & 1ul << 13)
        flags |= FV_CPU_I8MM;
    if (cap2 & 1ul << 14)
        flags |= FV_CPU_BF16;
    return flags;
}

#elif defined(__aarch64__) && defined(__APPLE__)

static bool has_feature(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

static unsigned cpu_flags(unsigned asked)
{
    (void)asked;
    unsigned flags = FV_CPU_NEON;

    if (has_feature("hw.optional.arm.FEAT_DotProd"))
        flags |= FV_CPU_DOTPROD;
    if (has_feature("hw.optional.arm.FEAT_FP16") && has_feature("hw.optional.arm.FEAT_FHM"))
        flags |= FV_CPU_FP16;
    if (has_feature("hw.optional.arm.FEAT_BF16"))
        flags |= FV_CPU_BF16;
    if (has_feature("hw.optional.arm.FEAT_I8MM"))
        flags |= FV_CPU_I8MM;
    return flags;
}

#elif defined(__aarch64__)

static unsigned cpu_flags(unsigned asked) { return FV_CPU_NEON & asked; }

#else

static unsigned cpu_flags(unsigned asked) { return 0 & asked; }

#endif

unsigned fv_cpu_detect(void) { return cpu_flags(~0u); }

bool fv_cpu_identify(fv_cpu_id *id)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d))
        return false;
    const unsigned name[3] = { b, d, c };
    memcpy(id->vendor, name, 12);
    id->vendor[12] = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return false;
    /* the extended fields count for families 6 and 15 and on */
    id->family = a >> 8 & 15;
    id->model = a >> 4 & 15;
    if (id->family == 15)
        id->family += a >> 20 & 255;
    if (id->family == 6 || id->family >= 15)
        id->model += (a >> 16 & 15) << 4;
    return true;
#else
    (void)id;
    return false;
#endif
}

/* From the lowest to the highest; mask holds the level's own flag and all that FV_CPU=name
 * still allows. AVX-VNNI is a side branch: 256-bit dot products on processors without
 * AVX-512, so "avx512" does not include it. */
static const struct level {
    const char *name;
    unsigned flag, mask;
} levels[] = {
    { "ref", 0, 0 },
#if defined(__x86_64__)
    { "avx2", FV_CPU_AVX2, FV_CPU_AVX2 },
    { "avxvnni", FV_CPU_AVXVNNI, FV_CPU_AVX2 | FV_CPU_AVXVNNI },
    { "avx512", FV_CPU_AVX512, FV_CPU_AVX2 | FV_CPU_AVX512 },
    { "avx512vnni", FV_CPU_AVX512VNNI,
      FV_CPU_AVX2 | FV_CPU_AVXVNNI | FV_CPU_AVX512 | FV_CPU_AVX512VNNI },
    { "avx512bf16", FV_CPU_AVX512BF16,
      FV_CPU_AVX2 | FV_CPU_AVXVNNI | FV_CPU_AVX512 | FV_CPU_AVX512VNNI | FV_CPU_AVX512BF16 },
    { "amx", FV_CPU_AMX,
      FV_CPU_AVX2 | FV_CPU_AVXVNNI | FV_CPU_AVX512 | FV_CPU_AVX512VNNI | FV_CPU_AVX512BF16 |
          FV_CPU_AMX },
#elif defined(__aarch64__)
    { "neon", FV_CPU_NEON, FV_CPU_NEON },
    { "dotprod", FV_CPU_DOTPROD, FV_CPU_NEON | FV_CPU_DOTPROD },
    { "fp16", FV_CPU_FP16, FV_CPU_NEON | FV_CPU_DOTPROD | FV_CPU_FP16 },
    { "bf16", FV_CPU_BF16, FV_CPU_NEON | FV_CPU_DOTPROD | FV_CPU_FP16 | FV_CPU_BF16 },
    { "i8mm", FV_CPU_I8MM, FV_CPU_NEON | FV_CPU_DOTPROD | FV_CPU_FP16 | FV_CPU_BF16 | FV_CPU_I8MM },
#endif
};

unsigned fv_cpu_level(const char **missing)
{
    const char *name = getenv("FV_CPU"), *unused;

    if (!missing)
        missing = &unused;
    *missing = NULL;
    if (!name || !*name)
        return fv_cpu_detect();
    for (size_t i = 0; i < FV_COUNT(levels); i++) {
        if (strcmp(name, levels[i].name) != 0)
            continue;
        const unsigned flags = cpu_flags(levels[i].mask) & levels[i].mask;
        if ((flags & levels[i].flag) != levels[i].flag)
            *missing = name;
        return flags;
    }
    *missing = name;
    return fv_cpu_detect();
}

const char *fv_cpu_name(unsigned flags)
{
    for (size_t i = FV_COUNT(levels); i-- > 1;)
        if (flags & levels[i].flag)
            return levels[i].name;
    return levels[0].name;
}

/* ---------------------------------------------------------------- cores */

#if defined(__linux__)

enum { MAX_CPUS = 8192, WORD_BITS = 8 * sizeof(unsigned long) };

static bool has_cpu(const unsigned long *mask, int cpu)
{
    return mask[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1;
}

/* The lowest-numbered thread of cpu's core; cpu itself when the system does not say. */
static int first_sibling(int cpu)
{
    char path[96];
    int first;

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "re");
    if (!file)
        return cpu;
    if (fscanf(file, "%d", &first) != 1 || first < 0 || first >= MAX_CPUS)
        first = cpu;
    fclose(file);
    return first;
}

bool fv_cpu_is_allowed(int cpu)
{
    unsigned long allowed[MAX_CPUS / WORD_BITS] = { 0 };

    return cpu >= 0 && cpu < MAX_CPUS &&
           sched_getaffinity(0, sizeof allowed, (cpu_set_t *)(void *)allowed) == 0 &&
           has_cpu(allowed, cpu);
}

bool fv_cpu_can_pin(void) { return true; }

bool fv_cpu_pin(int cpu)
{
    unsigned long one[MAX_CPUS / WORD_BITS] = { 0 };

    one[cpu / WORD_BITS] = 1ul << (cpu % WORD_BITS);
    return sched_setaffinity(0, sizeof one, (const cpu_set_t *)(const void *)one) == 0;
}

int fv_cpu_cores(void)
{
    unsigned long allowed[MAX_CPUS / WORD_BITS] = { 0 }, seen[MAX_CPUS / WORD_BITS] = { 0 };
    int cores = 0;

    if (sched_getaffinity(0, sizeof allowed, (cpu_set_t *)(void *)allowed) != 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        return online > 0 ? (int)online : 1;
    }
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (!has_cpu(allowed, cpu))
            continue;
        int core = first_sibling(cpu);
        cores += !has_cpu(seen, core);
        seen[core / WORD_BITS] |= 1ul << (core % WORD_BITS);
    }
    int quota = fv_cgroup_limits("").cpus;
    if (quota > 0)
        cores = FV_MIN(cores, quota);
    return FV_MAX(cores, 1);
}

#elif defined(__APPLE__)

int fv_cpu_cores(void)
{
    int cores = 1;
    size_t size = sizeof cores;
    if (sysctlbyname("hw.physicalcpu", &cores, &size, NULL, 0) != 0 || cores < 1)
        return 1;
    return cores;
}

#else

#include <unistd.h>

int fv_cpu_cores(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

#endif

#if !defined(__linux__)

bool fv_cpu_is_allowed(int cpu)
{
    (void)cpu;
    return false;
}

bool fv_cpu_can_pin(void) { return false; }

bool fv_cpu_pin(int cpu)
{
    (void)cpu;
    return false;
}

#endif
