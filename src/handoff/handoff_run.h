/* handoff_run: a handoff on its way; what the steps share. */
#ifndef FV_HANDOFF_RUN_H
#define FV_HANDOFF_RUN_H

#include "base/outfile.h"
#include "base/recipe.h"
#include "base/report.h"
#include "export/file_list.h"
#include "fastvlm_tools.h"
#include "handoff/handoff_state.h"

typedef struct fv_handoff_run {
    const char *model, *dir; /* as the caller names them */
    char *place;             /* the directory, absolute */
    fv_handoff_options o;    /* with its defaults filled in */
    const fv_callbacks *callbacks;
    int lock;         /* on the directory; -1: none */
    size_t n_parents; /* that were made for it */
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
    fv_callbacks named; /* the caller's, with places in place of the stage's names */
    fv_callbacks stage_callbacks;
    fv_handoff_record record;
    bool cannot;      /* for want of Qualcomm's libraries */
    const char *said; /* commands, in a dry run; NULL: none */
} fv_handoff_run;

/* A step's files into run->out.stage, what is missing into run->record. In a dry run only the
 * names, all into the record. */
typedef fv_status fv_handoff_make_fn(fv_handoff_run *run, fv_error *err);

/* By fastvlm itself; handoff_steps.c. NULL in the others: that way has nothing to do there. */
extern fv_handoff_make_fn *const fv_handoff_native[FV_HANDOFF_STEPS];
/* By the SDK's tools; by the AI Hub. handoff_vendor.c */
extern fv_handoff_make_fn *const fv_handoff_qairt[FV_HANDOFF_STEPS];
extern fv_handoff_make_fn *const fv_handoff_hub[FV_HANDOFF_STEPS];

/* What step i's files depend on besides the model, made in that way, as text, the build of
 * Qualcomm's libraries included or not; NULL: memory is out. */
const char *fv_handoff_depends(fv_handoff_run *run, int i, const char *way, bool builds);

/* ---- what the ways share: handoff_steps.c ---- */

#define FV_ONNX_FOLDER  "fastvlm-onnx-fp32"
#define FV_CALIB_FOLDER "fastvlm-calib-raw"
#define FV_FP16_FOLDER  "fastvlm-qaihub-fp16-context"
#define FV_QNN_FOLDER   "fastvlm-qnn-int8"
#define FV_GENIE_FOLDER "fastvlm-genie"
#define FV_INT8_FOLDER  FV_GENIE_FOLDER "/local_context/vision_int8_qnnmodel"
#define FV_INT8_NAME    "vision_encoder_int8_qnnmodel"
#define FV_INT8_BINARY  FV_INT8_FOLDER "/output/fastvlm_vision_encoder_int8_htp.bin"
#define FV_INT8_INFO    FV_INT8_FOLDER "/vision_int8_ctx_info.json"
#define FV_HUB_IDS      "../handoff/qaihub-model-ids.txt"
#define FV_HUB_JOBS     "../handoff/qaihub-fp16-jobs.txt"

enum { FV_HANDOFF_GRAPHS = 3, FV_HANDOFF_DECODERS = 3 };
/* The pipeline's names of the graphs: NAME.onnx is a file, "fastvlm_" NAME the Hub's name. */
extern const char *const fv_handoff_graphs[FV_HANDOFF_GRAPHS];
/* Files of Genie's decoders: f32, Z8, Q4. */
extern const char *const fv_handoff_decoders[FV_HANDOFF_DECODERS];

fv_status fv_handoff_miss(fv_handoff_run *run, const char *path, const char *reason,
                          const char *command, fv_error *err);
/* Of a dry run. command may be NULL: none but fastvlm. */
fv_status fv_handoff_plan(fv_handoff_run *run, const char *path, const char *command,
                          fv_error *err);
/* Where a file of the stage goes; its folders are made. In a dry run where it will be, and nothing
 * is made. To fv_free. */
fv_status fv_handoff_stage_path(fv_handoff_run *run, const char *name, char **path, fv_error *err);
/* Genie's files but its weights, into the stage. */
fv_status fv_handoff_genie_files(fv_handoff_run *run, fv_error *err);
/* In a dry run: their names. */
fv_status fv_handoff_genie_plan(fv_handoff_run *run, fv_error *err);

/* ---- commands, as a shell reads them: handoff_commands.c ---- */

/* Ours, for what is made with "qairt" or "hub" only; NULL: memory is out. */
const char *fv_handoff_again(fv_handoff_run *run, const char *with);
/* For a dry run: run->stage_callbacks take the commands that src/qairt would run. */
void fv_handoff_listen(fv_handoff_run *run);
/* Those since the last call; NULL: none. */
const char *fv_handoff_said(fv_handoff_run *run);

#endif
