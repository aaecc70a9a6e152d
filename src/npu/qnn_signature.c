/* Tensors of a context binary, to be run with. See qnn_signature.h. */
#include "npu/qnn_signature.h"

#include <string.h>

#include "npu/qnn_types.h"

fv_status fv_qnn_tensor_take(fv_qnn_tensor *to, const fv_npu_binary *binary, size_t graph,
                             fv_npu_tensor_kind kind, size_t index, fv_region *region,
                             const char *file, fv_error *err)
{
    fv_npu_tensor_info t = { .size = sizeof t };
    if (!fv_npu_binary_tensor(binary, graph, kind, index, &t))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: its graph has no %s", file,
                       kind == FV_NPU_INPUT ? "input" : "output");
    *to = (fv_qnn_tensor){
        .version = 1,
        .id = t.id,
        .name = t.name,
        .kind = kind == FV_NPU_INPUT ? FV_QNN_INPUT : FV_QNN_OUTPUT,
        .type = fv_qnn_type_parse(t.type),
        .rank = t.rank,
        .dims = fv_region_take(region, t.rank ? t.rank : 1, sizeof *to->dims),
        .quant = { .defined = t.quantized ? FV_QNN_DEFINED : FV_QNN_UNDEFINED,
                   .kind = t.quantized ? FV_QNN_SCALE_OFFSET : FV_QNN_UNDEFINED,
                   .one = { (float)t.scale, t.offset } },
    };
    if (!to->dims)
        return fv_fail_memory(err, t.rank * sizeof *to->dims, "dimensions");
    memcpy(to->dims, t.dims, t.rank * sizeof *to->dims);
    bool fixed = to->type == FV_QNN_UQ8 || to->type == FV_QNN_UQ16;
    bool real = to->type == FV_QNN_F32 || to->type == FV_QNN_F16;
    if (!real && !(fixed && t.quantized))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s is %s%s; expected f32, f16, or u8 or u16 with a scale", file, t.name,
                       t.type, t.quantized ? " with a scale" : "");
    return FV_OK;
}
