/* Element types of tensors and activations. */
#ifndef FV_TYPES_H
#define FV_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fv_type {
    FV_TYPE_F32 = 0,
    FV_TYPE_F16,
    FV_TYPE_BF16,
    FV_TYPE_I64,
    FV_TYPE_U8,
    FV_TYPE_I8,
    FV_TYPE_I32,
    FV_TYPE_Q8_0, /* blocks of 32: f16 scale d, 32 x i8; x = d q */
    /* blocks of 32: f16 scale d, 16 bytes; element i < 16 low half of byte i, else high; x = d (q -
     * 8) */
    FV_TYPE_Q4_0,
    FV_TYPE_OTHER, /* of a tensor in a file, which nothing here computes with */
    FV_TYPE_COUNT
} fv_type;

enum { FV_BLOCK = 32, FV_Q8_BLOCK_BYTES = 34, FV_Q4_BLOCK_BYTES = 18 };

static inline bool fv_type_is_block(fv_type type)
{
    return type == FV_TYPE_Q8_0 || type == FV_TYPE_Q4_0;
}

/* Bytes of an element; 0 for types of blocks and FV_TYPE_OTHER. */
static inline size_t fv_type_size(fv_type type)
{
    static const uint8_t size[FV_TYPE_COUNT] = { 4, 2, 2, 8, 1, 1, 4, 0, 0, 0 };
    return size[type];
}

/* Bytes of a row of n elements; n is a multiple of FV_BLOCK for types of blocks. */
static inline size_t fv_row_bytes(fv_type type, size_t n)
{
    switch (type) {
    case FV_TYPE_Q8_0: return n / FV_BLOCK * FV_Q8_BLOCK_BYTES;
    case FV_TYPE_Q4_0: return n / FV_BLOCK * FV_Q4_BLOCK_BYTES;
    default: return n * fv_type_size(type);
    }
}

static inline const char *fv_type_name(fv_type type)
{
    static const char *const name[FV_TYPE_COUNT] = { "F32", "F16", "BF16", "I64",  "U8",
                                                     "I8",  "I32", "Q8_0", "Q4_0", "other" };
    return name[type];
}

#endif
