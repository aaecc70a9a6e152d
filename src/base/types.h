/* Element types of tensors and activations. */
#ifndef FV_TYPES_H
#define FV_TYPES_H

#include <stddef.h>
#include <stdint.h>

typedef enum fv_type {
    FV_TYPE_F32 = 0,
    FV_TYPE_F16,
    FV_TYPE_BF16,
    FV_TYPE_I64,
    FV_TYPE_U8,
    FV_TYPE_COUNT
} fv_type;

static inline size_t fv_type_size(fv_type type)
{
    static const uint8_t size[FV_TYPE_COUNT] = { 4, 2, 2, 8, 1 };
    return size[type];
}

static inline const char *fv_type_name(fv_type type)
{
    static const char *const name[FV_TYPE_COUNT] = { "F32", "F16", "BF16", "I64", "U8" };
    return name[type];
}

#endif
