/* The model of the tile instructions and a processor that has them: the same bits. Where there is
 * none, the model stands for it, and everything else about the kernels is checked on the model. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "base/base.h"

/* Any bf16 of one of five kinds: normal numbers near 1, all exponents, subnormal, zero, infinite or
 * not a number (where wild). */
static uint16_t any_bf16(fv_check *c, bool wild)
{
    const uint16_t bits = (uint16_t)check_rand(c), sign = bits & 0x8000, mantissa = bits & 0x7f;
    switch (check_rand(c) % 8) {
    case 0: return sign | mantissa; /* subnormal */
    case 1: return sign;
    case 2:
        return wild && mantissa < 4 ? (uint16_t)(sign | 0x7f80 | (mantissa & 1)) : bits & 0xbfff;
    case 3: return bits & 0x9fff; /* products that are subnormal */
    default: return sign | 0x3f00 | (bits & 0xff);
    }
}

static void check_sums_bf16(fv_check *c)
{
    enum { M = 45, N = 70 };
    if (!check_slot(c, "model_bf16", true))
        return;
    for (size_t k = 2; k <= 200; k += 6) {
        if (!check_case(c, "k=%zu", k))
            continue;
        const bool wild = k % 3 == 0;
        uint16_t *a = check_in(c, M * k * 2, 2), *w = check_in(c, N * k * 2, 2);
        void *b = check_in(c, fv_packed_elems(&c->now->gemm_bf16, N, k) * 2, 64);
        float *want = check_out(c, M * N * 4, 4), *got = check_out(c, M * N * 4, 4);
        for (size_t i = 0; i < M * k; i++)
            a[i] = any_bf16(c, wild);
        for (size_t i = 0; i < N * k; i++)
            w[i] = any_bf16(c, wild);
        c->now->gemm_bf16.pack[FV_TYPE_BF16](b, w, k, N, k);
        fv_gemm_args args = {
            .m = M, .n = N, .k = k, .a = a, .lda = k, .b = b, .c = want, .ldc = N
        };
        c->below->gemm_bf16.run(&args);
        args.c = got;
        c->now->gemm_bf16.run(&args);
        for (size_t i = 0; i < M * N; i++)
            if (!(isnan(want[i]) && isnan(got[i])) &&
                !check_same(c, "sum (the processor's, the model's)", &want[i], &got[i], 4))
                break;
        check_done(c);
    }
}

void check_amx(fv_check *c)
{
    if (!strcmp(c->level, "amx-model") && (fv_cpu_detect() & FV_CPU_AMX))
        check_sums_bf16(c);
}
