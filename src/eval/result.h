/* result: what a comparison found, as fv_eval_run keeps it behind fv_eval. */
#ifndef FV_EVAL_RESULT_H
#define FV_EVAL_RESULT_H

#include "fastvlm_tools.h"

struct fv_eval {
    fv_eval_info info;
    fv_eval_stage_info *stages; /* [info.n_stages] */
    fv_eval_image_info *images; /* [info.n_images] */
};

#endif
