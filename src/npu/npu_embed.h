/* npu_embed: the embedding on its way to the NPU: ids i32 [1, FV_NPU_IDS] -> rows. */
#ifndef FV_NPU_EMBED_H
#define FV_NPU_EMBED_H

#include "model/model.h"
#include "npu/npu_plan.h"

enum { FV_NPU_IDS = 512 }; /* as the reference Qualcomm pipeline has it */

typedef struct fv_npu_embed {
    fv_model model;
    fv_graph graph;
    fv_npu_plan plan;
} fv_npu_embed;

/* F16; W8A16: the table in 16 bits; W8A8: in 8. One scale for the whole table, that of its largest
 * value. On failure *e is zero. */
fv_status fv_npu_embed_open(fv_npu_embed *e, const char *model, fv_npu_precision precision,
                            const fv_callbacks *callbacks, fv_error *err);
void fv_npu_embed_close(fv_npu_embed *e); /* zero is fine */

#endif
