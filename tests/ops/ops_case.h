/* What the tests of src/nn's operations share: an fv_ops with exactly the scratch that was asked
 * for and canaries behind it, weights of every type with the values that they stand for, and
 * oracles in double. Everything here is simple enough to be believed. */
#ifndef FV_OPS_CASE_H
#define FV_OPS_CASE_H

#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "kernels/blocks.h"
#include "nn/ops.h"

enum { MAX_THREADS = 4, CANARY = 64, N_LEVELS = 2 };

/* ---- random values --------------------------------------------------------------------------- */

static uint64_t case_seed = 1;

static inline size_t case_below(size_t n)
{
    case_seed = case_seed * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(case_seed >> 33) % n;
}

static inline float case_uniform(float lo, float hi)
{
    return lo + (hi - lo) * (float)case_below(1 << 20) / (float)(1 << 20);
}

/* Memory that is there until the case ends. */
static void *case_block[256];
static size_t case_n_blocks;

static inline void *case_alloc(size_t n_bytes)
{
    assert_true(case_n_blocks < FV_COUNT(case_block));
    void *block = aligned_alloc(64, (n_bytes + 64) / 64 * 64);
    assert_non_null(block);
    memset(block, 0xa5, n_bytes);
    return case_block[case_n_blocks++] = block;
}

static inline void case_end(void)
{
    while (case_n_blocks)
        free(case_block[--case_n_blocks]);
}

/* ---- elements of any type -------------------------------------------------------------------- */

static inline double get(const void *p, fv_type type, size_t i)
{
    switch (type) {
    case FV_TYPE_F16: return (double)fv_f16_to_f32(((const uint16_t *)p)[i]);
    case FV_TYPE_BF16: return (double)fv_bf16_to_f32(((const uint16_t *)p)[i]);
    case FV_TYPE_U8: return ((const uint8_t *)p)[i];
    case FV_TYPE_I8: return ((const int8_t *)p)[i];
    default: return (double)((const float *)p)[i];
    }
}

static inline void set(void *p, fv_type type, size_t i, float x)
{
    switch (type) {
    case FV_TYPE_F16: ((uint16_t *)p)[i] = fv_f32_to_f16_sat(x); break;
    case FV_TYPE_BF16: ((uint16_t *)p)[i] = fv_f32_to_bf16(x); break;
    case FV_TYPE_U8: ((uint8_t *)p)[i] = (uint8_t)x; break;
    case FV_TYPE_I8: ((int8_t *)p)[i] = (int8_t)x; break;
    default: ((float *)p)[i] = x;
    }
}

static inline void *make_values(fv_type type, size_t n, float lo, float hi)
{
    void *p = case_alloc(n * fv_type_size(type));
    for (size_t i = 0; i < n; i++)
        set(p, type, i, type == FV_TYPE_U8 ? (float)case_below(256) : case_uniform(lo, hi));
    return p;
}

static inline float *make_floats(size_t n, float lo, float hi)
{
    return make_values(FV_TYPE_F32, n, lo, hi);
}

/* Half a step of a type at x: what rounding to it may cost. */
static inline double half_step(fv_type type, double x)
{
    return type == FV_TYPE_F32    ? fabs(x) * 0x1p-24
           : type == FV_TYPE_BF16 ? fabs(x) * 0x1p-8
                                  : fmax(fabs(x) * 0x1p-11, 0x1p-25);
}

static inline double gelu(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }

/* kernels.h: clamp(round(x) + zero, 0, 255) */
static inline uint8_t to_u8(float x, int zero)
{
    float q = rintf(x) + (float)zero;
    return (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q);
}

/* kernels.h: clamp(round(256 x) + 256 zero, 0, 65535); x is times 256 already */
static inline uint16_t to_u16(float x, int zero)
{
    float q = rintf(x) + 256 * (float)zero;
    return (uint16_t)(q < 0 ? 0 : q > 65535 ? 65535 : q);
}

/* ---- operations with exactly the scratch they said they need --------------------------------- */

typedef struct ops_case {
    fv_ops ops;
    fv_kernels kernels;
    uint8_t *worker, *shared;
    size_t worker_bytes, shared_bytes; /* without the canaries */
} ops_case;

static inline const char *level_name(int level) { return level ? "this machine's kernels" : "ref"; }

static inline void case_open(ops_case *c, int level, int n_threads)
{
    fv_error err;
    *c = (ops_case){ 0 };
    fv_kernels_init(&c->kernels, level ? fv_cpu_level(NULL) : 0);
    c->ops.k = &c->kernels;
    if (fv_pool_new(&c->ops.pool, n_threads, &err) != FV_OK)
        fail_msg("%s", err.message);
    c->ops.n_workers = fv_pool_threads(c->ops.pool);
    assert_int_equal(c->ops.n_workers, n_threads);
}

static inline void case_close(ops_case *c)
{
    fv_pool_free(c->ops.pool);
    free(c->worker);
    free(c->shared);
    case_end();
}

/* Scratch of this size, full of what an operation before may have left there. */
static inline void case_reserve(ops_case *c, fv_ops_need need)
{
    const size_t n = c->ops.n_workers;
    free(c->worker);
    free(c->shared);
    c->worker_bytes = need.worker_bytes;
    c->shared_bytes = need.shared_bytes;
    c->ops.worker_bytes = (need.worker_bytes + CANARY + 63) / 64 * 64;
    c->ops.shared_bytes = need.shared_bytes;
    c->worker = aligned_alloc(64, n * c->ops.worker_bytes);
    c->shared = aligned_alloc(64, (need.shared_bytes + CANARY + 63) / 64 * 64);
    assert_true(c->worker && c->shared);
    memset(c->worker, 0xa5, n * c->ops.worker_bytes);
    memset(c->shared, 0xa5, need.shared_bytes + CANARY);
    c->ops.worker_scratch = c->worker;
    c->ops.shared = c->shared;
}

static inline void check_canary(const uint8_t *at, const char *what)
{
    for (size_t i = 0; i < CANARY; i++)
        if (at[i] != 0xa5)
            fail_msg("%s: written past its end, byte %zu", what, i);
}

static inline void case_check(const ops_case *c)
{
    for (size_t i = 0; i < c->ops.n_workers; i++)
        check_canary(c->worker + i * c->ops.worker_bytes + c->worker_bytes, "a worker's scratch");
    check_canary(c->shared + c->shared_bytes, "the shared scratch");
}

/* ---- weights --------------------------------------------------------------------------------- */

/* How a layer's input becomes u8. */
static inline fv_u8 make_u8(size_t channels)
{
    return (fv_u8){ .inv = make_floats(channels, 20, 90), .zero = 100 + (int)case_below(60) };
}

/* Without a bias when it is NULL afterwards: every third. */
static inline fv_mat make_mat(fv_type type, size_t n, size_t k)
{
    fv_mat m = { .type = type, .n = n, .k = k };
    if (type == FV_TYPE_I8) {
        int8_t *w = case_alloc(n * k);
        int32_t *bias = case_alloc(n * sizeof *bias);
        for (size_t i = 0; i < n * k; i++)
            w[i] = (int8_t)((int)case_below(256) - 128);
        for (size_t i = 0; i < n; i++)
            bias[i] = (int32_t)case_below(200001) - 100000;
        m.data = w;
        m.bias8 = bias;
        /* sums of about 75 x 127 sqrt(k) become values of about 1 */
        m.mul = make_floats(n, 0.5e-4f / sqrtf((float)k), 1.5e-4f / sqrtf((float)k));
        m.in = make_u8(k);
        return m;
    }
    m.bias = case_below(3) ? make_floats(n, -1, 1) : NULL;
    if (!fv_type_is_block(type)) {
        m.data = make_values(type, n * k, -1, 1);
        return m;
    }
    uint8_t *w = case_alloc(fv_row_bytes(type, n * k));
    for (size_t i = 0; i < fv_row_bytes(type, n * k); i++)
        w[i] = (uint8_t)case_below(256);
    for (size_t b = 0; b < n * k / FV_BLOCK; b++) {
        uint16_t d = fv_f32_to_f16(case_uniform(0.001f, 0.01f));
        memcpy(w + fv_row_bytes(type, b * FV_BLOCK), &d, 2);
    }
    m.data = w;
    return m;
}

/* Of Q8_0, the blocks of a row with one scale (w8a8). */
static inline fv_mat make_row_scaled(size_t n, size_t k)
{
    fv_mat m = make_mat(FV_TYPE_Q8_0, n, k);
    uint8_t *w = (uint8_t *)(uintptr_t)m.data;
    float *mul = case_alloc(n * sizeof *mul);
    int32_t *offset = case_alloc(n * sizeof *offset);
    for (size_t j = 0; j < n; j++) {
        const uint16_t d = fv_f32_to_f16(case_uniform(0.001f, 0.01f));
        mul[j] = fv_f16_to_f32(d);
        offset[j] = 0;
        for (size_t b = 0; b < k / FV_BLOCK; b++, w += FV_Q8_BLOCK_BYTES) {
            memcpy(w, &d, 2);
            for (size_t i = 0; i < FV_BLOCK; i++)
                offset[j] -= 128 * (int8_t)w[2 + i];
        }
    }
    m.mul = mul;
    m.bias8 = offset;
    return m;
}

/* The value that weight [j, i] stands for. */
static inline double mat_value(const fv_mat *m, size_t j, size_t i)
{
    const size_t at = j * m->k + i;
    if (!fv_type_is_block(m->type))
        return get(m->data, m->type, at);
    const uint8_t *block = (const uint8_t *)m->data +
                           fv_row_bytes(m->type, at / FV_BLOCK * FV_BLOCK);
    uint16_t d;
    memcpy(&d, block, 2);
    const size_t e = at % FV_BLOCK;
    int q = m->type == FV_TYPE_Q8_0 ? (int8_t)block[2 + e]
            : e < FV_BLOCK / 2      ? (block[2 + e] & 15) - 8
                                    : (block[2 + e - FV_BLOCK / 2] >> 4) - 8;
    return (double)fv_f16_to_f32(d) * q;
}

static inline fv_dw make_dw(bool int8, size_t channels, unsigned mult, unsigned kernel)
{
    const size_t n = channels * mult, taps = (size_t)kernel * kernel;
    fv_dw dw = { .channels = channels, .mult = mult, .kernel = kernel };
    dw.bias = make_floats(n, -1, 1);
    if (!int8) {
        dw.w = make_floats(taps * n, -0.3f, 0.3f);
        return dw;
    }
    int8_t *w = case_alloc(taps * n);
    for (size_t i = 0; i < taps * n; i++)
        w[i] = (int8_t)((int)case_below(256) - 128);
    dw.w8 = w;
    dw.mul = make_floats(n, 1e-5f, 3e-5f);
    dw.in = make_u8(channels);
    return dw;
}

static inline fv_ffn make_ffn(fv_type type, size_t channels, size_t hidden)
{
    return (fv_ffn){ .dw = make_dw(type == FV_TYPE_I8, channels, 1, 7),
                     .fc1 = make_mat(type, hidden, channels),
                     .fc2 = make_mat(type, channels, hidden),
                     .scale = make_floats(channels, -1, 1) };
}

#endif
