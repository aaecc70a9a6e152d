/* handoff_run: a handoff on its way; what the steps share. */
#ifndef FV_HANDOFF_RUN_H
#define FV_HANDOFF_RUN_H

#include "base/outfile.h"
#include "base/recipe.h"
#include "export/file_list.h"
#include "fastvlm_tools.h"
#include "handoff/handoff_state.h"

typedef struct fv_handoff_run {
    const char *model;
    char *place;          /* the directory, absolute */
    fv_handoff_options o; /* with its defaults filled in */
    const fv_callbacks *callbacks;
    fv_source source;
    fv_recipe recipe; /* of the model's images */
    int image_size;
    char images[FV_HASH_TEXT]; /* names, sizes and times of the calibration images; "": none */
    fv_npu_soc_info soc;
    char soc_name[16];                    /* "sm8750" */
    char qnn_build[64], qnn_problem[600]; /* of libQnnHtp; why there is none */
    fv_handoff_state state;

    /* the step that is being made */
    fv_outdir out;
    fv_staged staged;
    fv_callbacks stage_callbacks;
    fv_handoff_record record;
} fv_handoff_run;

/* A step's files into run->out.stage, what is missing into run->record. In a dry run only the
 * names, all into the record. handoff_steps.c */
typedef fv_status fv_handoff_make_fn(fv_handoff_run *run, fv_error *err);
extern fv_handoff_make_fn *const fv_handoff_make[FV_HANDOFF_STEPS];
/* What step i's files depend on besides the model, as text; NULL: memory is out. */
const char *fv_handoff_depends(fv_handoff_run *run, int i);

#endif
