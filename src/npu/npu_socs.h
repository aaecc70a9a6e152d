/* npu_socs: a chip by the name that somebody gives it. The table: fastvlm_npu.h. */
#ifndef FV_NPU_SOCS_H
#define FV_NPU_SOCS_H

#include "fastvlm_npu.h"

/* FV_ERR_ARGUMENT, which lists the chips that there are, when name is none of them. */
fv_status fv_npu_soc_take(fv_npu_soc_info *out, const char *name, fv_error *err);

#endif
