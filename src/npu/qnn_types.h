/* qnn_types: element types and sizes of QNN tensors. */
#ifndef FV_QNN_TYPES_H
#define FV_QNN_TYPES_H

#include "npu/qnn_abi.h"

/* "u8", "s8", "f16"; "?" when it is unknown. Fixed point is named for how it is stored. */
const char *fv_qnn_type_name(uint32_t type);
/* The inverse; 0: unknown. */
uint32_t fv_qnn_type_parse(const char *name);
/* As Qualcomm's tools print it: "QNN_DATATYPE_UFIXED_POINT_8"; and back, FV_QNN_UNDEFINED when it
 * is unknown. */
enum { FV_QNN_LABEL = 40 };
void fv_qnn_type_label(uint32_t type, char label[FV_QNN_LABEL]);
uint32_t fv_qnn_type_of_label(const char *label);
/* Bytes of an element; 0: unknown. */
size_t fv_qnn_type_bytes(uint32_t type);

/* Elements and bytes of a tensor; 0 when a size overflows or the type is unknown. */
size_t fv_qnn_tensor_elems(const fv_qnn_tensor *t);
size_t fv_qnn_tensor_bytes(const fv_qnn_tensor *t);

#endif
