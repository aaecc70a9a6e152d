/* The blocks of 32 weights, as GGUF lays them out, and the row of quantised activations that meets
 * them.
 *
 * A row of k activations is six arrays one behind the other, of as many blocks as k has and zeros
 * up to a multiple of four; nb is that multiple:
 *
 *     i8  q     [32 nb]   x = d q
 *     i32 part  [8 nb]    -128 times the sum of four q: the excess when weights are read as q + 128
 *     i8  q4    [32 nb]   four blocks in the order of 4-bit weights: four first halves, four second
 *     i32 part4 [4 nb]    -8 times the sum of four q of a block's first half and of the four that
 *                         share bytes with them: the excess when weights are read as q + 8
 *     f32 d     [nb]
 *     i32 sum   [nb]      -128 times the sum of a block's q
 *
 * A row begins at a line of 64 bytes and is an odd number of lines long: rows that lie 4096 bytes
 * apart would fall into one set of L1. */
#ifndef FV_BLOCKS_H
#define FV_BLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/types.h"

typedef struct fv_q8_block {
    uint16_t d; /* f16 */
    int8_t q[FV_BLOCK];
} fv_q8_block;

typedef struct fv_q4_block {
    uint16_t d;              /* f16 */
    uint8_t q[FV_BLOCK / 2]; /* low halves are elements 0 .. 15, high halves 16 .. 31 */
} fv_q4_block;

_Static_assert(sizeof(fv_q8_block) == FV_Q8_BLOCK_BYTES, "GGUF's Q8_0");
_Static_assert(sizeof(fv_q4_block) == FV_Q4_BLOCK_BYTES, "GGUF's Q4_0");

/* times nb */
enum {
    FV_QROW_PART = 32,
    FV_QROW_Q4 = 64,
    FV_QROW_PART4 = 96,
    FV_QROW_D = 112,
    FV_QROW_SUM = 116,
    FV_QROW_BYTES = 120
};

/* n_blocks, as all below: of k */
static inline size_t fv_qrow_blocks(size_t n_blocks) { return (n_blocks + 3) / 4 * 4; }

static inline const int8_t *fv_qrow_q(const void *row) { return (const int8_t *)row; }

static inline const int32_t *fv_qrow_part(const void *row, size_t n_blocks)
{
    return (const int32_t *)(const void *)((const char *)row +
                                           FV_QROW_PART * fv_qrow_blocks(n_blocks));
}

static inline const int8_t *fv_qrow_q4(const void *row, size_t n_blocks)
{
    return (const int8_t *)row + FV_QROW_Q4 * fv_qrow_blocks(n_blocks);
}

static inline const int32_t *fv_qrow_part4(const void *row, size_t n_blocks)
{
    return (const int32_t *)(const void *)((const char *)row +
                                           FV_QROW_PART4 * fv_qrow_blocks(n_blocks));
}

static inline const float *fv_qrow_d(const void *row, size_t n_blocks)
{
    return (const float *)(const void *)((const char *)row + FV_QROW_D * fv_qrow_blocks(n_blocks));
}

static inline const int32_t *fv_qrow_sum(const void *row, size_t n_blocks)
{
    return (const int32_t *)(const void *)((const char *)row +
                                           FV_QROW_SUM * fv_qrow_blocks(n_blocks));
}

/* Where block b of q4 begins; its second half is 64 bytes on. */
static inline size_t fv_qrow_at4(size_t b) { return b / 4 * 128 + b % 4 * 16; }

/* Zeros for the blocks that fill up the last four. */
static inline void fv_qrow_fill(void *row, size_t n_blocks)
{
    const size_t all = fv_qrow_blocks(n_blocks), none = all - n_blocks;
    if (!none)
        return;
    memset((char *)row + n_blocks * FV_BLOCK, 0, none * FV_BLOCK);
    memset((char *)fv_qrow_part(row, n_blocks) + n_blocks * 32, 0, none * 32);
    for (size_t b = n_blocks; b < all; b++) {
        memset((char *)fv_qrow_q4(row, n_blocks) + fv_qrow_at4(b), 0, FV_BLOCK / 2);
        memset((char *)fv_qrow_q4(row, n_blocks) + fv_qrow_at4(b) + 64, 0, FV_BLOCK / 2);
    }
    memset((char *)fv_qrow_part4(row, n_blocks) + n_blocks * 16, 0, none * 16);
    memset((char *)fv_qrow_d(row, n_blocks) + n_blocks * 4, 0, none * 4);
    memset((char *)fv_qrow_sum(row, n_blocks) + n_blocks * 4, 0, none * 4);
}

/* The scale of a block from its largest |x|, taken as bits: 0 for what is too small to divide by,
 * NaN when the block holds an infinity or a NaN; then every q is 0. *inv is what x is multiplied
 * by. */
static inline float fv_qrow_scale(uint32_t largest_bits, float *inv)
{
    union {
        uint32_t bits;
        float value;
    } largest = { largest_bits }, nan = { 0x7fc00000 };
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
