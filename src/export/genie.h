/* genie: what others write of Genie's configurations, in the exporter's words. */
#ifndef FV_GENIE_H
#define FV_GENIE_H

#include "fastvlm_tools.h"
#include "io/json_write.h"
#include "model/model.h"

/* Where the machine that decodes has the files. */
typedef struct fv_genie_paths {
    const char *model;      /* CPU engine: the composed decoder */
    const char *tokenizer;  /* tokenizer.json */
    const char *extensions; /* NPU engine: htp_backend.json */
    const char *context;    /* NPU engine: the decoder's context binary */
} fv_genie_paths;

/* The dialog of an open model, of the CPU engine or the NPU's. options: zeroes are defaults; its
 * paths are not used. FV_ERR_ARGUMENT: lengths that do not fit each other or the model. */
fv_status fv_genie_dialog_put(fv_json_text *j, const fv_model *model,
                              const fv_genie_options *options, const fv_genie_paths *paths,
                              bool htp, fv_error *err);

/* "devices": of the backend extensions of Genie and of Qualcomm's tools. */
void fv_htp_put_devices(fv_json_text *j, unsigned soc_model, unsigned htp_version);

#endif
