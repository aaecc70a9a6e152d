/* qnn_signature: what a context binary says of its tensors, as records to run it with. */
#ifndef FV_QNN_SIGNATURE_H
#define FV_QNN_SIGNATURE_H

#include "base/region.h"
#include "fastvlm_npu.h"
#include "npu/qnn_abi.h"

/* Input or output `index` of a graph. FV_ERR_UNSUPPORTED when there is none, or when it is neither
 * f32 nor u8 or u16 with a scale. file: for messages. Names are binary's, dims the region's. */
fv_status fv_qnn_tensor_take(fv_qnn_tensor *to, const fv_npu_binary *binary, size_t graph,
                             fv_npu_tensor_kind kind, size_t index, fv_region *region,
                             const char *file, fv_error *err);

#endif
