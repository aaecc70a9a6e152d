/* Weights f32 <-> blocks of 8 or 4 bits. See quantize.h. */
#include "quant/quantize.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "quant/round.h"

/* x = d q, lo <= q <= hi */
typedef struct grid {
    fv_type type;
    float lo, hi;
    /* the range is lopsided: a negative d gives the larger half to the other sign */
    bool both_signs;
    float first, step; /* the search: d = largest / (first + i step), i < n */
    int n;
} grid;

static const grid q8 = { FV_TYPE_Q8_0, -127, 127, false, 121, 0.5f, 17 };
static const grid q4 = { FV_TYPE_Q4_0, -8, 7, true, 5, 0.125f, 33 };

typedef struct block {
    float x[FV_BLOCK], weight[FV_BLOCK];
    float q[FV_BLOCK];
    uint16_t d;
    double error;
} block;

static inline float grid_clamp(float x, const grid *g) { return fv_round_clamp(x, g->lo, g->hi); }

static float block_largest(const block *b)
{
    float largest = 0;
    for (int i = 0; i < FV_BLOCK; i++)
        largest = FV_MAX(largest, fabsf(b->x[i]));
    return largest;
}

/* The best scale for the q that inv gives, and how much of the squared length it explains. */
static float block_fit(const block *b, const grid *g, float inv, float *explained)
{
    float xq[4] = { 0 }, qq[4] = { 0 };
    for (int i = 0; i < FV_BLOCK; i += 4) {
        for (int j = 0; j < 4; j++) {
            float q = fv_round_even(grid_clamp(b->x[i + j] * inv, g)), wq = b->weight[i + j] * q;
            xq[j] += wq * b->x[i + j];
            qq[j] += wq * q;
        }
    }
    float sum_xq = (xq[0] + xq[2]) + (xq[1] + xq[3]), sum_qq = (qq[0] + qq[2]) + (qq[1] + qq[3]);
    *explained = sum_qq > 0 ? sum_xq / sum_qq * sum_xq : 0;
    return sum_qq > 0 ? sum_xq / sum_qq : 0;
}

/* Rounds to the scale d as it will be stored; keeps the result when it is better. */
static bool block_try_scale(block *b, const grid *g, float d)
{
    uint16_t half = fv_f32_to_f16_sat(d);
    half = half & 0x7fff ? half : 0; /* no -0 */
    const float stored = fv_f16_to_f32(half), inv = half ? 1 / stored : 0;
    float q[FV_BLOCK];
    double error = 0;
    for (int i = 0; i < FV_BLOCK; i++) {
        q[i] = fv_round_even(grid_clamp(b->x[i] * inv, g));
        double off = (double)b->x[i] - (double)stored * (double)q[i];
        error += (double)b->weight[i] * off * off;
    }
    if (!(error < b->error))
        return false;
    memcpy(b->q, q, sizeof q);
    b->d = half;
    b->error = error;
    return true;
}

/* The largest value at the end of the range; of a lopsided one, at the farther end. */
static void block_round_plain(block *b, const grid *g)
{
    float largest = 0;
    for (int i = 0; i < FV_BLOCK; i++)
        if (fabsf(b->x[i]) > fabsf(largest))
            largest = b->x[i];
    block_try_scale(b, g, g->both_signs ? largest / g->lo : fabsf(largest) / g->hi);
}

static void block_search(block *b, const grid *g)
{
    const float largest = block_largest(b);
    if (!(largest > 0) || b->error == 0)
        return;
    float best = -1, d = 0;
    for (int sign = 1; sign >= (g->both_signs ? -1 : 1); sign -= 2) {
        for (int i = 0; i < g->n; i++) {
            float explained,
                fitted = block_fit(b, g, (float)sign * (g->first + (float)i * g->step) / largest,
                                   &explained);
            if (explained > best) {
                best = explained;
                d = fitted;
            }
        }
    }
    /* round, fit, round again */
    for (int round = 0; round < 8 && block_try_scale(b, g, d) && b->d; round++) {
        float explained;
        d = block_fit(b, g, 1 / fv_f16_to_f32(b->d), &explained);
    }
}

static void block_put(const block *b, fv_type type, uint8_t *dst)
{
    memcpy(dst, &b->d, 2);
    dst += 2;
    if (type == FV_TYPE_Q8_0)
        for (int i = 0; i < FV_BLOCK; i++)
            dst[i] = (uint8_t)(int8_t)b->q[i];
    else
        for (int i = 0; i < FV_BLOCK / 2; i++)
            dst[i] = (uint8_t)((int)b->q[i] + 8) |
                     (uint8_t)(((int)b->q[i + FV_BLOCK / 2] + 8) << 4);
}

static double row_quantize(const grid *g, uint8_t *dst, const float *x, size_t k, bool searching)
{
    double error = 0;
    for (size_t at = 0; at < k; at += FV_BLOCK, dst += fv_row_bytes(g->type, FV_BLOCK)) {
        block b = { .error = INFINITY };
        for (int i = 0; i < FV_BLOCK; i++) {
            const bool good = isfinite(x[at + (size_t)i]);
            b.x[i] = good ? x[at + (size_t)i] : 0;
            b.weight[i] = 1;
            error += good ? 0 : (double)INFINITY;
        }
        block_round_plain(&b, g);
        if (searching)
            block_search(&b, g);
        block_put(&b, g->type, dst);
        error += b.error;
    }
    return error;
}

static const grid *grid_of(fv_type type) { return type == FV_TYPE_Q8_0 ? &q8 : &q4; }

double fv_quantize_weights(fv_type type, void *dst, const float *x, size_t k)
{
    return row_quantize(grid_of(type), dst, x, k, true);
}

double fv_quantize_weights_plain(fv_type type, void *dst, const float *x, size_t k)
{
    return row_quantize(grid_of(type), dst, x, k, false);
}

/* ---- one scale a row --------------------------------------------------------------------- */

enum { ROW_SCALES = 8 };
#define ROW_STEP 0.04f

static double row_error(const float *x, size_t k, float d)
{
    const float inv = d > 0 ? 1 / d : 0;
    double error = 0;
    for (size_t at = 0; at < k; at += FV_BLOCK) {
        float sum[4] = { 0 };
        for (size_t i = at; i < at + FV_BLOCK; i += 4)
            for (size_t j = 0; j < 4; j++) {
                const float off = x[i + j] - d * fv_round_even(grid_clamp(x[i + j] * inv, &q8));
                sum[j] += off * off;
            }
        error += (sum[0] + sum[2]) + (sum[1] + sum[3]);
    }
    return error;
}

double fv_quantize_row(void *dst, const float *x, size_t k)
{
    float largest = 0;
    for (size_t i = 0; i < k; i++) {
        if (!isfinite(x[i])) {
            memset(dst, 0, fv_row_bytes(FV_TYPE_Q8_0, k));
            return INFINITY;
        }
        largest = FV_MAX(largest, fabsf(x[i]));
    }
    double least = INFINITY;
    uint16_t best = 0;
    for (int i = 0; i < ROW_SCALES; i++) {
        const uint16_t half = fv_f32_to_f16_sat(largest / q8.hi * (1 - ROW_STEP * (float)i));
        const double error = row_error(x, k, fv_f16_to_f32(half));
        if (error < least) {
            least = error;
            best = half;
        }
    }
    const float d = fv_f16_to_f32(best), inv = d > 0 ? 1 / d : 0;
    uint8_t *to = dst;
    for (size_t at = 0; at < k; at += FV_BLOCK, to += FV_Q8_BLOCK_BYTES) {
        block b = { .d = best };
        for (int i = 0; i < FV_BLOCK; i++)
            b.q[i] = fv_round_even(grid_clamp(x[at + (size_t)i] * inv, &q8));
        block_put(&b, FV_TYPE_Q8_0, to);
    }
    return least;
}

void fv_row_scale_read(const void *row, size_t k, float *scale, int32_t *offset)
{
    const uint8_t *at = row;
    uint16_t half;
    int32_t sum = 0;
    memcpy(&half, at, 2);
    for (size_t b = 0; b < k / FV_BLOCK; b++, at += FV_Q8_BLOCK_BYTES)
        for (int i = 0; i < FV_BLOCK; i++)
            sum += (int8_t)at[2 + i];
    *scale = fv_f16_to_f32(half);
    *offset = -128 * sum;
}

void fv_dequantize_weights(fv_type type, float *dst, const void *src, size_t k)
{
    const uint8_t *block_at = src;
    for (size_t at = 0; at < k;
         at += FV_BLOCK, dst += FV_BLOCK, block_at += fv_row_bytes(type, FV_BLOCK)) {
        uint16_t half;
        memcpy(&half, block_at, 2);
        const float d = fv_f16_to_f32(half);
        const uint8_t *q = block_at + 2;
        for (int i = 0; i < FV_BLOCK; i++) {
            int nibble = i < FV_BLOCK / 2 ? q[i % 16] & 15 : q[i % 16] >> 4;
            dst[i] = d * (float)(type == FV_TYPE_Q8_0 ? (int)(int8_t)q[i] : nibble - 8);
        }
    }
}

/* ---- with the inputs in view ------------------------------------------------------------- */

enum { NEAR_SCALES = 4 };
#define NEAR_STEP 0.02f

typedef struct compensated {
    fv_type type;
    const grid *g;
    uint8_t *dst; /* rows dst_bytes apart */
    size_t dst_bytes;
} compensated;

static void block_try_in_order(block *b, const grid *g, uint16_t d, const fv_round_columns *c,
                               float off[FV_BLOCK])
{
    float q[FV_BLOCK], lost[FV_BLOCK];
    const double error = fv_round_in_order(c, fv_f16_to_f32(d), g->lo, g->hi, b->error, q, lost);
    if (error >= b->error)
        return;
    b->d = d;
    b->error = error;
    memcpy(b->q, q, sizeof q);
    memcpy(off, lost, sizeof lost);
}

/* fv_round_fn: the search does not know what the errors do inside the block; scales around its own
 * are tried with them. */
static void block_compensate(void *user, const fv_round_columns *c, float *off)
{
    const compensated *to = user;
    block b = { .error = INFINITY };
    memcpy(b.x, c->x, sizeof b.x);
    memcpy(b.weight, c->importance, sizeof b.weight);
    block_round_plain(&b, to->g);
    block_search(&b, to->g);
    const float d = fv_f16_to_f32(b.d);
    for (int i = 0; i < FV_BLOCK; i++)
        off[i] = c->w[i] - d * b.q[i]; /* without any sharing, where that overflows */
    b.error = INFINITY;
    block_try_in_order(&b, to->g, b.d, c, off);
    for (int i = 1; i <= NEAR_SCALES; i++) {
        block_try_in_order(&b, to->g, fv_f32_to_f16_sat(d * (1 + NEAR_STEP * (float)i)), c, off);
        block_try_in_order(&b, to->g, fv_f32_to_f16_sat(d * (1 - NEAR_STEP * (float)i)), c, off);
    }
    block_put(&b, to->type, to->dst + c->row * to->dst_bytes + fv_row_bytes(to->type, c->at));
}

void fv_quantize_compensated(fv_type type, uint8_t *dst, size_t dst_bytes, const float *w,
                             size_t ld, size_t rows, const fv_inputs *in, const fv_kernels *k,
                             void *scratch)
{
    compensated to = { type, grid_of(type), dst, dst_bytes };
    fv_compensate(in, w, ld, rows, block_compensate, &to, k, scratch);
}

static void row_compensate(void *user, const fv_round_columns *c, float *off)
{
    const compensated *to = user;
    uint8_t *dst = to->dst + c->row * to->dst_bytes + fv_row_bytes(to->type, c->at);
    block b;
    memcpy(&b.d, dst, 2);
    if (b.d) {
        fv_round_in_order(c, fv_f16_to_f32(b.d), to->g->lo, to->g->hi, INFINITY, b.q, off);
    } else {
        memset(b.q, 0, sizeof b.q);
        memcpy(off, c->w, sizeof b.q);
    }
    block_put(&b, to->type, dst);
}

void fv_quantize_row_compensated(fv_type type, uint8_t *dst, size_t dst_bytes, const float *w,
                                 size_t ld, size_t rows, const fv_inputs *in, const fv_kernels *k,
                                 void *scratch)
{
    compensated to = { type, grid_of(type), dst, dst_bytes };
    fv_compensate(in, w, ld, rows, row_compensate, &to, k, scratch);
}
