/* npu_selfcheck: whether a library computes the layer right that some get wrong.
 *
 * Between two stages a depthwise 7x7 with stride 2 has two outputs for each channel. In f16 and on
 * large maps the libraries of QAIRT 2.48 to 2.51 compute it wrongly as a DepthWiseConv2d (relative
 * error 0.87), so the backend makes a grouped Conv2d of it. This compiles and runs such a layer
 * through the same backend and compares it with ours. */
#ifndef FV_NPU_SELFCHECK_H
#define FV_NPU_SELFCHECK_H

#include "npu/qnn_job.h"
#include "nn/ops.h"

/* FV_ERR_UNSUPPORTED when the result is wrong. Takes about a second. */
fv_status fv_npu_selfcheck(const char *qnn_dir, const fv_npu_soc_info *soc, fv_ops *ops,
                           const fv_callbacks *callbacks, fv_error *err);

#endif
