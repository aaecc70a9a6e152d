/* Element types and sizes of QNN tensors. See qnn_types.h. */
#include "npu/qnn_types.h"

#include <stdio.h>
#include <string.h>

typedef struct qnn_type {
    uint32_t type;
    unsigned n_bytes;
    const char *name;
    const char *label; /* Qualcomm's, without QNN_DATATYPE_ */
} qnn_type;

static const qnn_type types[] = {
    { FV_QNN_UQ8, 1, "u8", "UFIXED_POINT_8" },    { FV_QNN_UQ16, 2, "u16", "UFIXED_POINT_16" },
    { FV_QNN_SQ8, 1, "s8", "SFIXED_POINT_8" },    { FV_QNN_SQ16, 2, "s16", "SFIXED_POINT_16" },
    { FV_QNN_SQ32, 4, "s32", "SFIXED_POINT_32" }, { FV_QNN_F16, 2, "f16", "FLOAT_16" },
    { FV_QNN_F32, 4, "f32", "FLOAT_32" },         { FV_QNN_I8, 1, "i8", "INT_8" },
    { FV_QNN_I16, 2, "i16", "INT_16" },           { FV_QNN_I32, 4, "i32", "INT_32" },
    { FV_QNN_I64, 8, "i64", "INT_64" },           { FV_QNN_U8, 1, "uint8", "UINT_8" },
    { FV_QNN_U16, 2, "uint16", "UINT_16" },       { FV_QNN_U32, 4, "uint32", "UINT_32" },
    { FV_QNN_BOOL, 1, "bool", "BOOL_8" },
};

static const qnn_type *type_find(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

const char *fv_qnn_type_name(uint32_t type)
{
    const qnn_type *t = type_find(type);
    return t ? t->name : "?";
}

uint32_t fv_qnn_type_parse(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (!strcmp(types[i].name, name))
            return types[i].type;
    return 0;
}

void fv_qnn_type_label(uint32_t type, char label[FV_QNN_LABEL])
{
    const qnn_type *t = type_find(type);
    if (t)
        snprintf(label, FV_QNN_LABEL, "QNN_DATATYPE_%s", t->label);
    else
        snprintf(label, FV_QNN_LABEL, "QNN_DATATYPE_0x%04x", (unsigned)type);
}

uint32_t fv_qnn_type_of_label(const char *label)
{
    static const char prefix[] = "QNN_DATATYPE_";
    if (strncmp(label, prefix, sizeof prefix - 1) == 0)
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
            if (strcmp(types[i].label, label + sizeof prefix - 1) == 0)
                return types[i].type;
    return FV_QNN_UNDEFINED;
}

size_t fv_qnn_type_bytes(uint32_t type)
{
    const qnn_type *t = type_find(type);
    return t ? t->n_bytes : 0;
}

size_t fv_qnn_tensor_elems(const fv_qnn_tensor *t)
{
    size_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(n, t->dims[i], &n))
            return 0;
    return n;
}

size_t fv_qnn_tensor_bytes(const fv_qnn_tensor *t)
{
    size_t n;
    return __builtin_mul_overflow(fv_qnn_tensor_elems(t), fv_qnn_type_bytes(t->type), &n) ? 0 : n;
}
