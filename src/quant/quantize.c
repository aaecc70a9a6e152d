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

/* Row j of R from the rows after it, from the last row up: R R^T = H column by column, so that the
 * dot products run along rows. */
bool fv_inputs_factor(fv_inputs *in, const fv_kernels *k)
{
    const size_t n = in->n;
    float *h = in->h, *dots = in->importance; /* free until the end */
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += (double)h[i * n + i] / (double)n;
    if (!(mean < 1e30))
        return false;
    if (mean < 1e-30) { /* nothing ever came in */
        memset(h, 0, n * n * sizeof *h);
        mean = 1;
    }
    const float damping = (float)(FV_DAMPING * mean);
    for (size_t i = 0; i < n; i++)
        h[i * n + i] += damping;
    for (size_t j = n; j-- > 0;) {
        float *row = h + j * n;
        if (j + 1 < n) {
            k->gemv[FV_TYPE_F32](dots, h + j + 1, n, row + j + 1, NULL, j + 1, n - j - 1);
            for (size_t i = 0; i <= j; i++)
                h[i * n + j] -= dots[i];
        }
        /* exactly, it never is below; rounded, it may be */
        row[j] = sqrtf(FV_MAX(row[j], damping));
        for (size_t i = 0; i < j; i++)
            h[i * n + j] /= row[j];
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)h[i * n + i] * (double)h[i * n + i];
    for (size_t i = 0; i < n; i++) {
        in->importance[i] = (float)((double)h[i * n + i] * (double)h[i * n + i] * (double)n / sum);
        for (size_t l = i + 1; l < n; l++)
            h[l * n + i] = h[i * n + l] = h[i * n + l] / h[l * n + l];
    }
    return true;
}

static size_t compensated_panel_bytes(const fv_kernels *k, size_t n)
{
    return (fv_packed_elems(&k->gemm_f32, n, FV_BLOCK) * sizeof(float) + 63) / 64 * 64;
}

size_t fv_compensated_scratch(const fv_kernels *k, size_t n)
{
    return compensated_panel_bytes(k, n) + FV_COMPENSATED_ROWS * (n + FV_BLOCK) * sizeof(float);
}

/* Rounds the block's values in order to the scale d, each error handed on to the values behind it.
 * w: the values before any error was added; off: what of them is lost. Kept when it costs less than
 * b->error. */
static void block_round_in_order(block *b, const grid *g, uint16_t d, const float *w,
                                 const float *share, size_t ld, float off[FV_BLOCK])
{
    const float scale = fv_f16_to_f32(d), inv = d & 0x7fff ? 1 / scale : 0;
    float x[FV_BLOCK], q[FV_BLOCK], lost[FV_BLOCK];
    double error = 0;
    memcpy(x, b->x, sizeof x);
    for (int i = 0; i < FV_BLOCK; i++) {
        q[i] = fv_round_even(grid_clamp(x[i] * inv, g));
        lost[i] = w[i] - scale * q[i];
        const double miss = (double)x[i] - (double)scale * (double)q[i];
        error += (double)b->weight[i] * miss * miss;
        if (error >= b->error)
            return;
        for (int l = i + 1; l < FV_BLOCK; l++)
            x[l] += lost[i] * share[(size_t)i * ld + (size_t)l];
    }
    b->d = d;
    b->error = error;
    memcpy(b->q, q, sizeof q);
    memcpy(off, lost, sizeof lost);
}

/* The search does not know what the errors do inside the block; scales around its own are tried
 * with them. */
static void block_search_in_order(block *b, const grid *g, const float *w, const float *share,
                                  size_t ld, float off[FV_BLOCK])
{
    const float d = fv_f16_to_f32(b->d);
    const uint16_t found = b->d;
    for (int i = 0; i < FV_BLOCK; i++)
        off[i] = w[i] - d * b->q[i]; /* without any sharing, where that overflows */
    b->error = INFINITY;
    block_round_in_order(b, g, found, w, share, ld, off);
    for (int i = 1; i <= NEAR_SCALES; i++) {
        block_round_in_order(b, g, fv_f32_to_f16_sat(d * (1 + NEAR_STEP * (float)i)), w, share, ld,
                             off);
        block_round_in_order(b, g, fv_f32_to_f16_sat(d * (1 - NEAR_STEP * (float)i)), w, share, ld,
                             off);
    }
}

void fv_quantize_compensated(fv_type type, uint8_t *dst, size_t dst_bytes, const float *w,
                             size_t ld, size_t rows, const fv_inputs *in, const fv_kernels *k,
                             void *scratch)
{
    const grid *g = grid_of(type);
    const size_t n = in->n;
    float *panel = scratch, *x = (float *)((uint8_t *)scratch + compensated_panel_bytes(k, n)),
          *off = x + FV_COMPENSATED_ROWS * n;
    for (size_t row = 0; row < rows; row++)
        memcpy(x + row * n, w + row * ld, n * sizeof *x);
    for (size_t at = 0; at < n; at += FV_BLOCK) {
        const size_t rest = n - at - FV_BLOCK;
        for (size_t row = 0; row < rows; row++) {
            block b = { .error = INFINITY };
            for (size_t i = 0; i < FV_BLOCK; i++) {
                b.x[i] = isfinite(x[row * n + at + i]) ? x[row * n + at + i] : 0;
                b.weight[i] = in->importance[at + i];
            }
            block_round_plain(&b, g);
            block_search(&b, g);
            block_search_in_order(&b, g, w + row * ld + at, in->h + at * n + at, n,
                                  off + row * FV_BLOCK);
            block_put(&b, type, dst + row * dst_bytes + fv_row_bytes(type, at));
        }
        if (rest == 0)
            break;
        k->gemm_f32.pack[FV_TYPE_F32](panel, in->h + (at + FV_BLOCK) * n + at, n, rest, FV_BLOCK);
        k->gemm_f32.run(&(fv_gemm_args){ .m = rows,
                                         .n = rest,
                                         .k = FV_BLOCK,
                                         .a = off,
                                         .lda = FV_BLOCK,
                                         .b = panel,
                                         .c = x + at + FV_BLOCK,
                                         .ldc = n,
                                         .c_type = FV_TYPE_F32,
                                         .residual = x + at + FV_BLOCK,
                                         .ldr = n });
    }
}
