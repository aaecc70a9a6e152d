/* Are the products of a table right on this processor? Levels differ in their instructions, and no
 * test that ran elsewhere has seen the instructions of this machine. So every kind of product is
 * given small whole numbers, of which all sums are exact in f32 whatever their order is. The
 * operands leave a rest in every direction of a tile and go to the ends of their range.
 *
 * An answer C is compared with A B^T + bias by way of C r and A (B^T r) + bias r, with a vector r
 * of different weights (Freivalds 1977): thousands of operations instead of hundreds of
 * thousands. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"

/* All tiles of all levels have at most 32 rows and columns. K: no multiple of 32 pairs of bf16 or
 * 64 bytes; KQ: blocks. */
enum { M = 35, N = 34, K = 70, KQ = 3 * FV_BLOCK, COLUMNS = 64 };

typedef struct operands {
    int16_t a[M][KQ], b[N][KQ];
} operands;

static int16_t some_number(size_t row, size_t q, int lo, int hi)
{
    const uint32_t h = (uint32_t)row * 0x9e3779b1u + (uint32_t)q * 0x85ebca77u;
    return (int16_t)(lo + (int)((h >> 16) * (uint32_t)(hi - lo + 1) >> 16));
}

/* Numbers in lo .. hi; every row has both ends. */
static void rows_make(int16_t (*x)[KQ], size_t n, size_t k, int lo, int hi)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t q = 0; q < k; q++)
            x[i][q] = some_number(i, q, lo, hi);
        x[i][i % k] = (int16_t)lo;
        x[i][(i + 3) % k] = (int16_t)hi;
    }
}

/* c [M, N] = a b^T + j? */
static bool answer_right(const operands *x, size_t k, const float *c)
{
    int64_t weight[N], through_b[KQ] = { 0 }, bias = 0;
    for (size_t j = 0; j < N; j++) {
        weight[j] = 1 + (int64_t)(j * j * 5 % 97);
        bias += weight[j] * (int64_t)j;
        for (size_t q = 0; q < k; q++)
            through_b[q] += weight[j] * x->b[j][q];
    }
    for (size_t i = 0; i < M; i++) {
        int64_t want = bias;
        double got = 0; /* exact: whole numbers below 2^53 */
        for (size_t q = 0; q < k; q++)
            want += x->a[i][q] * through_b[q];
        for (size_t j = 0; j < N; j++)
            got += (double)weight[j] * (double)c[i * N + j];
        if (got != (double)want)
            return false;
    }
    return true;
}

static void bias_make(float *bias)
{
    for (size_t j = 0; j < N; j++)
        bias[j] = (float)j;
}

/* Not on the stack: 56 KB. */
typedef struct float_case {
    union {
        float f32[M * K];
        uint16_t bf16[M * K];
    } a, w;
    float packed[COLUMNS * K] __attribute__((aligned(64)));
    float c[M * N], bias[N];
    operands x;
} float_case;

/* to[i] = from [n, K] in the type of g */
static void floats_make(const fv_gemm_kernel *g, void *to, int16_t (*from)[KQ], size_t n)
{
    for (size_t i = 0; i < n * K; i++) {
        const float value = from[i / K][i % K];
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (g->type == FV_TYPE_F32)
            ((float *)to)[i] = value;
        else
            ((uint16_t *)to)[i] = (uint16_t)(bits >> 16);
    }
}

static bool floats_right(const fv_gemm_kernel *g)
{
    float_case *t = fv_alloc(1, sizeof *t);
    if (!t)
        return true; /* not asked; whoever opens a model without memory hears of that */
    rows_make(t->x.a, M, K, -9, 9);
    rows_make(t->x.b, N, K, -8, 8);
    floats_make(g, &t->a, t->x.a, M);
    floats_make(g, &t->w, t->x.b, N);
    bias_make(t->bias);
    g->pack[g->type](t->packed, &t->w, K, N, K);
    g->run(&(fv_gemm_args){ .m = M,
                            .n = N,
                            .k = K,
                            .a = &t->a,
                            .lda = K,
                            .b = t->packed,
                            .c = t->c,
                            .ldc = N,
                            .c_type = FV_TYPE_F32,
                            .bias = t->bias });
    const bool right = answer_right(&t->x, K, t->c);
    fv_free(t);
    return right;
}

static bool gemm_f32_right(const fv_kernels *k) { return floats_right(&k->gemm_f32); }

static bool gemm_bf16_right(const fv_kernels *k) { return floats_right(&k->gemm_bf16); }

/* Rows of 16 bits: even numbers to 65534, and of the answer, which is the sum / 256, half. */
static bool gemm_u8_run16_right(const fv_kernels *k)
{
    uint8_t a[2][M * K];
    int8_t w[N * K], packed[COLUMNS * (K + 3)] __attribute__((aligned(64)));
    float c[M * N], mul[N], residual[N];
    operands x;
    if (!k->gemm_u8.run16)
        return true;
    rows_make(x.a, M, K, 0, INT16_MAX);
    rows_make(x.b, N, K, -3, 3);
    for (size_t i = 0; i < M * K; i++) {
        a[0][i] = (uint8_t)(x.a[i / K][i % K] >> 7);
        a[1][i] = (uint8_t)(x.a[i / K][i % K] << 1);
    }
    for (size_t i = 0; i < N * K; i++)
        w[i] = (int8_t)x.b[i / K][i % K];
    for (size_t j = 0; j < N; j++)
        mul[j] = 128;
    bias_make(residual);
    k->gemm_u8.pack(packed, w, K, N, K);
    k->gemm_u8.run16(&(fv_gemm_u8_args){ .m = M,
                                         .n = N,
                                         .k = K,
                                         .a = a[0],
                                         .a_low = a[1],
                                         .lda = K,
                                         .b = packed,
                                         .c = c,
                                         .ldc = N,
                                         .c_type = FV_TYPE_F32,
                                         .mul = mul,
                                         .residual = residual }); /* one row for all */
    return answer_right(&x, K, c);
}

static bool gemm_u8_right(const fv_kernels *k)
{
    uint8_t a[M * K];
    int8_t w[N * K], packed[COLUMNS * (K + 3)] __attribute__((aligned(64)));
    float c[M * N], mul[N];
    int32_t bias[N];
    operands x;
    rows_make(x.a, M, K, 0, 255);
    rows_make(x.b, N, K, -127, 127);
    for (size_t i = 0; i < M * K; i++)
        a[i] = (uint8_t)x.a[i / K][i % K];
    for (size_t i = 0; i < N * K; i++)
        w[i] = (int8_t)x.b[i / K][i % K];
    for (size_t j = 0; j < N; j++) {
        bias[j] = (int32_t)j;
        mul[j] = 1;
    }
    k->gemm_u8.pack(packed, w, K, N, K);
    k->gemm_u8.run(&(fv_gemm_u8_args){ .m = M,
                                       .n = N,
                                       .k = K,
                                       .a = a,
                                       .lda = K,
                                       .b = packed,
                                       .c = c,
                                       .ldc = N,
                                       .c_type = FV_TYPE_F32,
                                       .bias = bias,
                                       .mul = mul });
    return answer_right(&x, K, c) && gemm_u8_run16_right(k);
}

/* One scale, 1: a block of activations whose largest is 127 is its own quantised row. */
static bool gemm_q_right(const fv_kernels *k, fv_type type)
{
    const size_t lda = fv_quantized_row_bytes(KQ),
                 packed_bytes = fv_packed_q_bytes(&k->gemm_q, type, COLUMNS, KQ);
    uint8_t *rows = fv_alloc(M * lda + packed_bytes, 1),
            *packed = rows + M * lda; /* not on the stack: 30 KB */
    float row[KQ], c[M * N], bias[N];
    union {
        fv_q8_block q8[N * KQ / FV_BLOCK];
        fv_q4_block q4[N * KQ / FV_BLOCK];
    } w;
    operands x;
    if (!rows)
        return true; /* not asked */
    memset(&w, 0, sizeof w);
    rows_make(x.a, M, KQ, -127, 127);
    rows_make(x.b, N, KQ, type == FV_TYPE_Q8_0 ? -127 : -8, type == FV_TYPE_Q8_0 ? 127 : 7);
    for (size_t i = 0; i < M; i++) {
        for (size_t q = 0; q < KQ; q++) {
            if (q % FV_BLOCK == i % FV_BLOCK) /* every block has its 127 */
                x.a[i][q] = 127;
            row[q] = x.a[i][q];
        }
        k->quantize_row(rows + i * lda, row, KQ);
    }
    for (size_t i = 0; i < N * KQ; i++) {
        const size_t e = i % FV_BLOCK;
        const int q = x.b[i / KQ][i % KQ];
        if (type == FV_TYPE_Q8_0) {
            w.q8[i / FV_BLOCK].q[e] = (int8_t)q;
            w.q8[i / FV_BLOCK].d = 0x3c00;
        } else {
            w.q4[i / FV_BLOCK].q[e % 16] |= (uint8_t)((q + 8) << (e / 16 * 4));
            w.q4[i / FV_BLOCK].d = 0x3c00;
        }
    }
    bias_make(bias);
    k->gemm_q.pack[type](packed, &w, 0, N, KQ);
    k->gemm_q.run[type](&(fv_gemm_args){ .m = M,
                                         .n = N,
                                         .k = KQ,
                                         .a = rows,
                                         .lda = lda,
                                         .b = packed,
                                         .c = c,
                                         .ldc = N,
                                         .c_type = FV_TYPE_F32,
                                         .bias = bias });
    fv_free(rows);
    return answer_right(&x, KQ, c);
}

static bool gemm_blocks_right(const fv_kernels *k)
{
    return gemm_q_right(k, FV_TYPE_Q8_0) && gemm_q_right(k, FV_TYPE_Q4_0);
}

/* Beside attention in f32, with queries that stay whole when they are scaled for powers of two: all
 * that rounding does is to the weights, less than 2^-8 of values up to 100. */
static bool attn_bf16_right(const fv_kernels *k)
{
    enum { ROWS = 35, KEYS = 37, D = 34, QUERIES = ROWS * D, VALUES = KEYS * D };
    if (!k->attn_bf16)
        return true;
    float *memory = fv_alloc(fv_attn_scratch_bytes() + (3 * QUERIES + 2 * VALUES) * sizeof *memory,
                             1);
    if (!memory)
        return true; /* not asked */
    float *q = memory + fv_attn_scratch_bytes() / sizeof *memory, *keys = q + QUERIES,
          *values = keys + VALUES, *want = values + VALUES, *got = want + QUERIES;
    for (size_t i = 0; i < QUERIES; i++)
        q[i] = some_number(i, 1, -8, 8);
    for (size_t i = 0; i < VALUES; i++) {
        keys[i] = some_number(i, 2, -4, 4);
        values[i] = some_number(i, 3, -100, 100);
    }
    fv_attn_args a = { .q = q,
                       .n_q = ROWS,
                       .ldq = D,
                       .k = keys,
                       .v = values,
                       .n_kv = KEYS,
                       .ldk = D,
                       .ldv = D,
                       .kv_type = FV_TYPE_F32,
                       .d = D,
                       .scale = 0x1p-6f * 0.693147181f, /* ln 2 */
                       .out = want,
                       .ldo = D,
                       .out_type = FV_TYPE_F32,
                       .scratch = memory };
    bool right = true;
    for (int causal = 0; causal < 2; causal++) {
        a.causal = causal;
        a.n_visible = KEYS - ROWS + 1;
        a.out = want;
        k->attn(&a);
        a.out = got;
        k->attn_bf16(&a);
        for (size_t i = 0; i < QUERIES; i++) {
            const float off = got[i] - want[i];
            right = right && off < 0.5f && off > -0.5f; /* false for NaN */
        }
    }
    fv_free(memory);
    return right;
}

/* ---- the table --------------------------------------------------------------------------- */

/* A slot that can be replaced by a lower level's, and how it is asked. */
static const struct guard {
    const char *name;
    size_t offset, size; /* in fv_kernels */
    bool (*right)(const fv_kernels *k);
} guards[] = {
#define SLOT(name) #name, offsetof(fv_kernels, name), sizeof((fv_kernels *)0)->name
    { SLOT(gemm_f32), gemm_f32_right },   { SLOT(gemm_bf16), gemm_bf16_right },
    { SLOT(gemm_u8), gemm_u8_right },     { SLOT(gemm_q), gemm_blocks_right },
    { SLOT(attn_bf16), attn_bf16_right },
#undef SLOT
};

/* From the highest to the lowest, as dispatch.c raises them. */
static const unsigned levels[] = {
    FV_CPU_AMX,  FV_CPU_AVX512VNNI, FV_CPU_AVX512BF16, FV_CPU_AVX512,  FV_CPU_AVXVNNI, FV_CPU_AVX2,
    FV_CPU_I8MM, FV_CPU_BF16,       FV_CPU_FP16,       FV_CPU_DOTPROD, FV_CPU_NEON,
};

/* k's slot becomes that of the next lower level that has another; *cpu: the flags that are left,
 * *owner: those of the level that the old one belongs to. False: there is none. */
static bool slot_lower(fv_kernels *k, const struct guard *g, unsigned *cpu, unsigned *owner)
{
    char *slot = (char *)k + g->offset;
    for (size_t i = 0; i < FV_COUNT(levels); i++) {
        fv_kernels lower;
        if (!(*cpu & levels[i]))
            continue;
        *owner = *cpu;
        fv_kernels_init(&lower, *cpu &= ~levels[i]);
        if (memcmp(slot, (char *)&lower + g->offset, g->size) != 0) {
            memcpy(slot, (char *)&lower + g->offset, g->size);
            return true;
        }
    }
    return false;
}

bool fv_kernels_check(fv_kernels *k, unsigned cpu, char *fault, size_t fault_bytes)
{
    fv_kernels ref;
    size_t at = 0;
    fv_kernels_init(&ref, 0);
    for (const struct guard *g = guards; g < guards + FV_COUNT(guards); g++) {
        unsigned left = cpu, owner = cpu, next;
        if (memcmp((char *)k + g->offset, (char *)&ref + g->offset, g->size) == 0 || g->right(k))
            continue;
        if (slot_lower(k, g, &left, &owner))
            while (!g->right(k) && slot_lower(k, g, &left, &next))
                ;
        int n = snprintf(fault + at, fault_bytes - at, "%s%s of level %s by level %s's",
                         at ? ", " : "", g->name, fv_cpu_name(owner), fv_cpu_name(left));
        at = FV_MIN(at + (size_t)FV_MAX(n, 0), fault_bytes - 1);
    }
    return at == 0;
}
