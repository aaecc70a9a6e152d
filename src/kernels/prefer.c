/* A table of kernels for this processor: the versions that its instructions allow
 * (dispatch.c), right (selfcheck.c), and of two that do the same the faster one. An instruction
 * that is there can lose: vdpbf16ps makes bf16 twice as fast as f32 on Zen 4, and half as fast on
 * Emerald Rapids. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "kernels/kernels.h"

/* What is known of a processor's bf16 without tiles. */
static const struct known {
    const char *vendor;
    unsigned family, first_model, last_model;
    bool fast;
} known[] = {
    { "AuthenticAMD", 25, 0, 255, true },   /* Zen 4: twice f32 (only its models have bf16) */
    { "GenuineIntel", 6, 143, 143, false }, /* Sapphire Rapids: Emerald Rapids' cores */
    { "GenuineIntel", 6, 207, 207, false }, /* Emerald Rapids: 0.5 of f32 */
};

enum { ROWS = 28, COLUMNS = 64, DEPTH = 128, TURNS = 16, CALLS = 4 };

static double product_ms(const fv_gemm_kernel *g, const void *a, const void *b, float *c)
{
    const fv_gemm_args args = { .m = ROWS,
                                .n = COLUMNS,
                                .k = DEPTH,
                                .a = a,
                                .lda = DEPTH,
                                .b = b,
                                .c = c,
                                .ldc = COLUMNS,
                                .c_type = FV_TYPE_F32 };
    const double start = fv_now_ms();
    for (int i = 0; i < CALLS; i++)
        g->run(&args);
    return fv_now_ms() - start;
}

bool fv_bf16_measure(const fv_kernels *k)
{
    static const float a[ROWS * DEPTH] = { 0 };
    static const float b[COLUMNS * DEPTH] __attribute__((aligned(64))) = { 0 };
    float c[ROWS * COLUMNS];
    double f32 = 1e9, bf16 = 1e9;
    for (int i = 0; i < TURNS; i++) { /* in turns: whatever slows the machine slows both */
        const double t = product_ms(&k->gemm_f32, a, b, c);
        const double u = product_ms(&k->gemm_bf16, a, b, c);
        f32 = FV_MIN(f32, t);
        bf16 = FV_MIN(bf16, u);
    }
    return bf16 < 0.9 * f32;
}

/* Measured once per process and level: engines that are opened one after the other agree. */
static bool measured_once(const fv_kernels *k, unsigned cpu)
{
    static _Atomic uint64_t last; /* level << 2 | 2 | fast */
    const uint64_t seen = atomic_load(&last);
    if (seen >> 2 == cpu && seen & 2)
        return seen & 1;
    const bool fast = fv_bf16_measure(k);
    atomic_store(&last, (uint64_t)cpu << 2 | 2 | fast);
    return fast;
}

/* Sets fast_bf16; why. sound: the table is the level's own, no kernel was replaced. *ignored: as in
 * fv_kernels_notes. */
static const char *bf16_choose(fv_kernels *k, unsigned cpu, bool sound, const char **ignored)
{
    const char *wanted = getenv("FV_BF16");
    fv_cpu_id id;
    if (wanted && (!strcmp(wanted, "fast") || !strcmp(wanted, "slow"))) {
        k->fast_bf16 = wanted[0] == 'f';
        return "FV_BF16 says so";
    }
    *ignored = wanted && *wanted ? wanted : NULL;
    if (!k->fast_bf16)
        return "no instructions for bf16 at this level";
    if (sound && (cpu & FV_CPU_AMX))
        return "AMX multiplies bf16 several times faster than f32";
    if (sound && fv_cpu_identify(&id))
        for (const struct known *p = known; p < known + FV_COUNT(known); p++)
            if (!strcmp(p->vendor, id.vendor) && p->family == id.family &&
                id.model >= p->first_model && id.model <= p->last_model) {
                k->fast_bf16 = p->fast;
                return p->fast ? "known to be faster than f32 on this processor"
                               : "known to be slower than f32 on this processor";
            }
    k->fast_bf16 = measured_once(k, cpu);
    return k->fast_bf16 ? "measured: faster than f32" : "measured: not faster than f32";
}

/* 8-bit weights times one row, full size: with AVX-512 33 -> 23 ms a token on Emerald Rapids,
 * nothing on Zen 4. A measurement would need more weights than the caches hold. */
static void vector_choose(fv_kernels *k)
{
    fv_cpu_id id;
    if (k->gemv_q8_ahead && fv_cpu_identify(&id) && !strcmp(id.vendor, "GenuineIntel"))
        k->gemv_q[FV_TYPE_Q8_0] = k->gemv_q8_ahead;
}

void fv_kernels_open(fv_kernels *k, unsigned cpu, fv_kernels_notes *notes)
{
    fv_kernels_notes unused;
    if (!notes)
        notes = &unused;
    *notes = (fv_kernels_notes){ 0 };
    fv_kernels_init(k, cpu);
    vector_choose(k);
    const bool sound = fv_kernels_check(k, cpu, notes->fault, sizeof notes->fault);
    notes->bf16 = bf16_choose(k, cpu, sound, &notes->ignored);
}
