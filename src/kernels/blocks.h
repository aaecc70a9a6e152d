/* The blocks of 32 weights, as GGUF lays them out, and the row of quantised activations that meets them.
 *
 * A row of k activations, in nb = k / 32 blocks, is five arrays one behind the other:
 *
 *     i8  q     [k]       x = d q
 *     i32 part  [k / 4]   -128 times the sum of four q: what is too much when weights are taken as q + 128
 *     i32 part4 [k / 4]   -8 times that sum in a block's first half, -128 times in its second: what is too
 *                         much when 4-bit weights are taken as they lie, q + 8 and 16 (q + 8)
 *     f32 d     [nb]
 *     i32 sum   [nb]      -128 times the sum of a block's q
 *
 * A row begins at a line of 64 bytes and is an odd number of lines long: rows that lie 4096 bytes
 * apart would fall into one set of L1. */
#ifndef FV_BLOCKS_H
#define FV_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "base/types.h"

typedef struct fv_q8_block {
    uint16_t d;    /* f16 */
    int8_t   q[FV_BLOCK];
} fv_q8_block;

typedef struct fv_q4_block {
    uint16_t d;    /* f16 */
    uint8_t  q[FV_BLOCK / 2]; /* low halves are elements 0 .. 15, high halves 16 .. 31 */
} fv_q4_block;

_Static_assert(sizeof(fv_q8_block) == FV_Q8_BLOCK_BYTES, "GGUF's Q8_0");
_Static_assert(sizeof(fv_q4_block) == FV_Q4_BLOCK_BYTES, "GGUF's Q4_0");

enum { FV_QROW_PART = 32, FV_QROW_PART4 = 64, FV_QROW_D = 96, FV_QROW_SUM = 100, FV_QROW_BYTES = 104 }; /* times nb */

static inline const int8_t *fv_qrow_q(const void *row) { return (const int8_t *)row; }

static inline const int32_t *fv_qrow_part(const void *row, size_t nb)
{
    return (const int32_t *)(const void *)((const char *)row + FV_QROW_PART * nb);
}

static inline const int32_t *fv_qrow_part4(const void *row, size_t nb)
{
    return (const int32_t *)(const void *)((const char *)row + FV_QROW_PART4 * nb);
}

static inline const float *fv_qrow_d(const void *row, size_t nb)
{
    return (const float *)(const void *)((const char *)row + FV_QROW_D * nb);
}

static inline const int32_t *fv_qrow_sum(const void *row, size_t nb)
{
    return (const int32_t *)(const void *)((const char *)row + FV_QROW_SUM * nb);
}

/* The scale of a block from its largest |x|, taken as bits: 0 for what is too small to divide by, NaN
 * when the block holds an infinity or a NaN; then every q is 0. *inv is what x is multiplied by. */
static inline float fv_qrow_scale(uint32_t largest_bits, float *inv)
{
    union { uint32_t bits; float value; } largest = { largest_bits }, nan = { 0x7fc00000 };
    *inv = 0;
    if (largest_bits >= 0x7f800000)
        return nan.value;
    if (largest_bits < 0x0d800000) /* 2^-100 */
        return 0;
    *inv = 127.0f / largest.value;
    return largest.value / 127.0f;
}

/* Scales of a row of d keys or values in I8 (fv_kv_row_bytes). */
static inline const float *fv_kv_scales(const void *row, size_t d)
{
    return (const float *)(const void *)((const char *)row + (d + 3) / 4 * 4);
}

#endif
